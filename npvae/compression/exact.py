"""Elementary functions with the same bits on every machine.

Two libraries of mathematics, or two processors, may give exp(1.3) two different last digits.  A decoder that computes a
probability even one unit apart from the encoder's reads another image.  The functions here use only what IEEE 754
promises to the last bit in double precision: + - * / of two numbers, rounding to whole numbers, and comparisons, each
as a NumPy operation of its own, so that no compiler joins two of them into one.  They are right to some 1e-14, which is
far more than a code needs.  There is no sum over an axis: its order may change.
"""
import math
from functools import lru_cache

import numpy as np

from ..params import Array

LOG2_E, LOG_2 = 1.4426950408889634, 0.6931471805599453
_LOG_2_HIGH, _LOG_2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10      # their sum has 30 digits of log 2
_MOST = 700.0      # exp of it is finite
_TAYLOR = [1 / math.factorial(n) for n in range(14)]
_STEPS = 2048      # entries of the table of the normal distribution per standard deviation,
_TAIL = 8          # up to so many standard deviations


def exp(x: Array) -> Array:
    """exp(x), for x within [-700, 700]; numbers beyond count as these bounds.

    With x = n log 2 + r,  |r| < 0.35:  exp(x) = 2^n (1 + r + r^2/2! + ... + r^13/13!).
    """
    x = np.minimum(np.maximum(x, -_MOST), _MOST)
    n = np.rint(x * LOG2_E)
    r = (x - n * _LOG_2_HIGH) - n * _LOG_2_LOW
    series: Array = np.full(np.shape(r), _TAYLOR[-1])
    for coefficient in _TAYLOR[-2::-1]:
        series = series * r + coefficient
    power: Array = ((n.astype(np.int64) + 1023) << 52).view(np.float64)      # by its bits, 2^n
    return series * power


def log(x: Array) -> Array:
    """log(x), for positive x.

    With x = 2^n m,  sqrt(1/2) <= m < sqrt(2),  and s = (m - 1) / (m + 1):  log m = 2 (s + s^3/3 + s^5/5 + ...).
    """
    m, n = np.frexp(x)
    small = m < math.sqrt(0.5)
    m, n = np.where(small, 2 * m, m), n - small
    s = (m - 1) / (m + 1)
    square = s * s
    series: Array = np.full(np.shape(s), 1 / 21)
    for k in range(19, 0, -2):
        series = series * square + 1 / k
    value: Array = n * LOG_2 + 2 * (s * series)
    return value


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), as in `kernels/reference/dense.py`."""
    e = exp(-np.abs(a))
    value: Array = np.where(a < 0, e, 1.0) / (1 + e)
    return value


def softplus(a: Array) -> Array:
    """log(1 + exp(a))."""
    value: Array = np.maximum(a, 0) + log(1 + exp(-np.abs(a)))
    return value


def tanh(a: Array) -> Array:
    """tanh(a)."""
    e = exp(-2 * np.abs(a))
    value: Array = np.sign(a) * ((1 - e) / (1 + e))
    return value


def normal_below(t: Array) -> Array:
    """Phi(t), the probability of a standard normal variable below t, at the nearest multiple of 1/2048: 0 from t = -8
    down, 1 from t = 8 up."""
    place = np.minimum(np.maximum(np.rint((t + _TAIL) * _STEPS), 0), 2 * _TAIL * _STEPS)
    below: Array = _normal_table()[place.astype(np.int64)]
    return below


@lru_cache(maxsize=1)
def _normal_table() -> Array:
    """The integral of the density by the midpoint rule, whose error is 1e-8 of each step.  `np.add.accumulate` adds in
    one order."""
    middle = (np.arange(2 * _TAIL * _STEPS) + 0.5) / _STEPS - _TAIL
    table: Array = np.concatenate([[0.0], np.add.accumulate(exp(-0.5 * (middle * middle)))])
    table /= table[-1]
    return table
