"""Profiles, floating-point rules and threads that hold for every test."""
import os

# Before NumPy is loaded, here and in the programs that tests start: BLAS threads that wait for each other spin, and on
# a busy machine a product of two small matrices then takes milliseconds.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

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
