"""What `test_levels` lends to other tests."""
import numpy as np
import pytest

ALL = ["discretized-logistic", "categorical", "beta-binomial"]
NAMES = pytest.mark.parametrize("name", [*ALL, "categorical:6"])
BYTES = np.arange(256)[:, None] / 255


def levels_of(likelihood):
    return np.arange(likelihood.levels)[:, None] / (likelihood.levels - 1)
