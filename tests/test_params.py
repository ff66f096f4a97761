"""The block of all parameters: its norm, to the last digits and at both ends of its type's range."""
import math

import numpy as np
import pytest

from npvae.params import Block

TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def block(numbers, dtype):
    made = Block({"a": (1,), "b": (len(numbers) - 1,)} if numbers else {}, dtype)
    made.flat[...] = numbers
    return made


@TYPES
def test_the_norm_of_a_small_triangle_and_of_a_large_one(dtype):
    """3, -4 and 5 in many units: 1 and the norm, or, where no square of the unit can be held, the largest and 5/4."""
    limits = np.finfo(dtype)
    small, large = float(limits.smallest_subnormal), float(limits.max / 2 ** limits.nmant)
    for unit in (1, 2.0 ** -40, 2.0 ** 40):
        assert block([3 * unit, -4 * unit], dtype).norm_in_parts() == (1, 5 * unit)
        assert block([3 * unit, -4 * unit], dtype).norm() == 5 * unit
    for unit in (small, large):
        unit = float(np.dtype(dtype).type(unit))
        assert block([3 * unit, -4 * unit], dtype).norm_in_parts() == (4 * unit, 1.25)


def test_a_norm_may_be_larger_than_any_number_of_its_type():
    assert block(4 * [2.0 ** 127], "float32").norm() == 2.0 ** 128


@TYPES
def test_squares_that_have_lost_digits_are_not_summed(dtype):
    """Of 4,096 equal numbers the norm is 64 times one, also where each square is below the normal range of its type and
    the sum of all is not."""
    limits = np.finfo(dtype)
    number = float(np.sqrt(limits.tiny) / 32 * (1 + 256 * limits.eps))
    assert block(4096 * [number], dtype).norm() == pytest.approx(64 * number, rel=4 * float(limits.eps), abs=0)


@TYPES
def test_what_has_no_scale(dtype):
    assert block([], dtype).norm_in_parts() == block([0, 0, 0], dtype).norm_in_parts() == (1, 0)
    assert block([1, -math.inf, 1e30], dtype).norm_in_parts() == (1, math.inf)
    assert math.isnan(block([1, math.nan, math.inf], dtype).norm())
