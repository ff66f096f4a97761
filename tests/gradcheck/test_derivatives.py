"""Numerical derivatives, one function at a time: where each threshold lies, by numbers on both sides of it."""
import re

import numpy as np
import pytest

from npvae.gradcheck import derivatives
from npvae.gradcheck.derivatives import EPS, Point, _Rung, _verdict

X = np.array([0.5, -3.0, 200.0])


def point(function, at=X):
    return Point(lambda p: function(p["x"]), {"x": np.asarray(at)})


# --- a point ---

@pytest.mark.parametrize("value", [3.0, -1e-100, 1e100])
def test_a_loss_is_steady_if_it_gives_the_same_twice_to_1e_9(value):
    for off, steady in ((0.0, True), (0.8e-9, True), (-0.8e-9, True), (1.2e-9, False), (-1.2e-9, False), (9.0, False)):
        values = iter([value * (1 + off), value])
        assert point(lambda x: next(values)).steady is steady
    assert point(lambda x: 0.0).steady and point(lambda x: np.nan).steady and point(lambda x: np.inf).steady


def test_the_noise_of_a_loss():
    """What is left of a large number that cancels; of any other loss eps; of points beyond an edge nothing."""
    for large in (1.0, 1e3, 1e6, 1e9, 1e12):
        for function in (lambda x: (np.sin(x[0]) + large) - large, lambda x: (x[0] + large) - (large + 0.25)):
            assert EPS / 8 <= point(function).noise / large <= 8 * EPS
    for scale in (1.0, -1e-300, 1e200):
        assert point(lambda x: 7 * scale).noise == EPS * abs(7 * scale)
    assert point(lambda x: 5.0 if x[1] == -3 else np.nan).noise == 5 * EPS
    assert point(lambda x: np.nan).noise == 0


def test_nearby_is_up_to_three_roundings_away():
    rng, seen = np.random.default_rng(0), []
    for _ in range(50):
        other = point(np.sum).nearby(rng, 0.25)
        assert other.complex_step == 0.25 and other.real["x"].shape == X.shape
        seen.append(np.rint((other.real["x"] / X - 1) / EPS))
    assert np.min(seen) == -3 and np.max(seen) == 3 and np.ptp(seen, axis=0).min() >= 5
    assert point(np.sum).nearby(rng).complex_step == derivatives.COMPLEX_STEP


def test_a_loss_that_cannot_be_had_has_no_number():
    for error in (ZeroDivisionError, ValueError, FloatingPointError):
        def fails(x):
            raise error
        assert np.isnan(point(fails).guarded())
    assert point(lambda x: 3 + 4j).guarded() == point(lambda x: 3 + 4j).middle == 3


# --- does the ladder confirm the complex step? ---

def rung(slope, jump=0.0, limit=None, kink=0.0):
    return _Rung(slope, jump, slope if limit is None else limit, kink)


ROUNDED, AWAY = [rung(1.0), rung(1.0)], [rung(1.0), rung(1.01), rung(1.0)]


@pytest.mark.every(3)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1.0, 1e-200])
@pytest.mark.parametrize("rungs, sideways, rounding, verdict", [
    ([rung(1.0)], 1.0, 0.0, ""),      # one is not enough
    (ROUNDED, 1 + 7.9e-3, 1e-3, "smooth"), (ROUNDED, 1 - 7.9e-3, 1e-3, "smooth"),      # 8 times the rounding
    (ROUNDED, 1 + 8.1e-3, 1e-3, ""), (ROUNDED, 1 - 8.1e-3, 1e-3, ""),
    ([rung(1.01), rung(1.0)], 1 + 3.95e-4, 0.0, "smooth"),      # 4 squares of what has changed, in units of the slope
    ([rung(1.01), rung(1.0)], 1 + 4.05e-4, 0.0, ""), ([rung(0.99), rung(1.0)], 1 - 4.05e-4, 0.0, ""),
    ([rung(0.99), rung(1.0)], 1 - 3.95e-4, 0.0, "smooth"),
    ([rung(10.1), rung(10.0)], 10 - 3.95e-3, 0.0, "smooth"), ([rung(10.1), rung(10.0)], 10 - 4.05e-3, 0.0, ""),
    ([rung(1.1), rung(1.0)], 1 + 6.2e-3, 0.0, "smooth"), ([rung(1.1), rung(1.0)], 1 + 6.3e-3, 0.0, ""),      # a 16th
    ([rung(1e-3), rung(0.0)], 6.2e-5, 0.0, "smooth"), ([rung(1e-3), rung(0.0)], 6.3e-5, 0.0, ""),
    ([rung(0.0), rung(0.0)], 0.0, 0.0, "smooth"),
    ([rung(1.0), rung(1.0, kink=3.19e-2)], 1.0, 1e-3, "smooth"), ([rung(1.0), rung(1.0, kink=3.21e-2)], 1.0, 1e-3, ""),
    ([rung(1.0), rung(1.0, -9.0, kink=8.9e-3)], 1.0, 0.0, "smooth"),      # a jump is left of 1e-3 of itself
    ([rung(1.0), rung(1.0, 9.0, kink=9.1e-3)], 1.0, 0.0, ""),
    ([rung(0.5, kink=1.04), rung(1.0, kink=1.04), rung(1.0, 1.0, kink=1.0)], 1.0, 0.0, "kink"),
    ([rung(0.5, kink=0.96), rung(1.0, kink=0.96), rung(1.0, 1.0, kink=1.0)], 1.0, 0.0, "kink"),
    ([rung(1.0, kink=1.0), rung(1.0, kink=1.06), rung(1.0, 1.0, kink=1.0)], 1.0, 0.0, ""),
    ([rung(1.0, kink=1.0), rung(1.0, kink=0.94), rung(1.0, 1.0, kink=1.0)], 1.0, 0.0, ""),
    ([rung(1.0, kink=1.0), rung(1.0, 1.0, kink=1.0)], 1.0, 0.0, ""),      # nor are two, to call it a kink
    ([rung(1.0), rung(1.0), rung(1.0, kink=3.1e-2)], 1.0, 1e-3, "smooth"),      # all within the rounding
    (AWAY, 1.055, 1e-3, "not analytic"), (AWAY, 1.053, 1e-3, ""),      # 3 times what is left
    ([rung(1.0), rung(0.99), rung(1.0)], 0.945, 1e-3, "not analytic"), (AWAY, 0.947, 1e-3, ""),
    ([rung(1.01), rung(1.0)], 2.0, 0.0, ""), ([rung(1.0), rung(1.0), rung(1.0, kink=0.5)], 2.0, 0.0, "")])
def test_what_a_ladder_says(rungs, sideways, rounding, verdict, scale, sign):
    scaled = [_Rung(*(sign * scale * value for value in one)) for one in rungs]
    assert _verdict(scaled, sign * scale * sideways, scale * rounding) == verdict


# --- advice ---

@pytest.mark.parametrize("name", [name for name, text in derivatives._INSTEAD.items() if text.startswith("write")])
def test_what_is_to_be_written_instead_is_the_same_function(name):
    """As it stands in the message."""
    formula, *rest = re.split(", (?:with )?([ms]) = ", re.sub("^write (logsumexp by hand, )?", "",
                                                              derivatives._INSTEAD[name]))
    one, other = np.meshgrid([-2.5, -0.3, 0.7, 4.1], [-1.7, -0.6, 0.4, 3.0])
    names = {"np": np, "x": one, "a": one, "y": other, "b": other, "n": other}
    if rest:
        names[rest[0]] = eval(rest[1], names)
    given = {"arctan2": (other, one), "heaviside": (one, 0.5)}.get(name, (one, other)[:getattr(np, name).nin])
    np.testing.assert_allclose(eval(formula, names), getattr(np, name)(*given), rtol=1e-13, atol=1e-15)
