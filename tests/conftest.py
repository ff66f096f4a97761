"""Profiles and floating-point rules that hold for every test."""
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# No deadline: the first call of a fused kernel compiles it.  The CI profile draws the same examples every time.
settings.register_profile("dev", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def floating_point_errors_are_errors():
    """Overflow, division by zero and invalid operations fail the test; underflow to zero is what exp(-1000) is."""
    with np.errstate(all="raise", under="ignore"):
        yield
