"""Chapter 9 and appendix I, equation by equation: numerical derivatives and the rules they are held against."""
import math
from itertools import product

import numpy as np
import pytest

from npvae.gradcheck import checker, derivatives, rules
from npvae.gradcheck.derivatives import Point, Probe
from npvae.gradcheck import CENTRAL_STEP, check_gradients, check_pair, compare, numerical_gradient

equation = pytest.mark.equation
EPS = np.finfo(float).eps

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D9.1": (Point.central_slope, "(upper - lower) / width", "(upper - middle) / width"),
    "D9.2": (derivatives.entries, "CENTRAL_STEP * max(1.0,", "CENTRAL_STEP * min(1.0,"),
    "D9.3": (Point.complex_slope, "kept + 1j * self.complex_step", "kept - 1j * self.complex_step"),
    "D9.4": (checker._along_directions, "np.sum(gradients[name] * probe.direction)", "np.sum(gradients[name])"),
    "D9.5": (checker._compare, "difference / size)", "difference / np.maximum(np.abs(numeric), 1.0))"),
    "D9.6": (Point.central_slope, "upper - 2 * middle + lower", "upper - middle + lower"),
    "D9.7": (checker.check_pair, "np.sum(upstream * forward(", "np.sum(forward("),
    "D9.8": (rules._broken_linearity, "2 * gradients[name] - apart[name]", "gradients[name] - apart[name]"),
    "D9.9": (derivatives._extrapolate, "/ (_FACTOR ** 2 - 1)", "/ (_FACTOR ** 2 + 3)"),
    "D9.10": (derivatives.cancelling, "max(bounds) if used else 0.0", "max(bounds)")}


def slope_and_jump(function, at, size):
    """The central difference of a function of one number with a step of `size`, and the jump between its sides."""
    slope, jump = Point(lambda p: function(p["x"][0]), {"x": np.array([at])}).central_slope("x", Probe(0, 1.0, size))
    return slope, abs(jump)


@equation("D9.1")
def test_central_difference_and_the_first_term_of_its_error():
    """For a cubic that term, h^2 f'''/6, is all there is; numbers with few bits are not rounded."""
    for at, size in ((0.75, 1 / 64), (-3.0, 0.5), (0.0, 2.0)):
        slope, _ = slope_and_jump(lambda x: 2 * x ** 3 - 5 * x * x + x, at, size)
        assert slope == 6 * at ** 2 - 10 * at + 1 + 2 * size ** 2
    for function, first, third in ((math.exp, math.exp, math.exp), (math.sin, math.cos, lambda x: -math.cos(x))):
        slope, _ = slope_and_jump(function, 0.7, 1e-2)
        assert math.isclose(slope - first(0.7), 1e-4 / 6 * third(0.7), rel_tol=1e-4)


@equation("D9.2")
def test_the_step_is_nearly_the_best():
    """By measurement: sixteen times larger or smaller, and the error grows; at numbers of any size."""
    for length in (1.0, 1e3, 1e6):
        points = length * np.linspace(0.5, 2, 60)
        truth = np.exp(points / length) / length

        def error(factor):
            slopes = [slope_and_jump(lambda x: math.exp(x / length), float(at), factor * CENTRAL_STEP * max(1, at))[0]
                      for at in points]
            return np.sqrt(np.mean((slopes / truth - 1) ** 2))
        chosen = numerical_gradient(lambda p: np.sum(np.exp(p["x"] / length)) / 60, {"x": points}, "central")["x"]
        ours = np.sqrt(np.mean((60 * chosen / truth - 1) ** 2))
        assert ours < 3 * EPS ** (2 / 3) * 60 / math.e      # a loss of e, made of 60 terms
        assert error(16) > 8 * error(1) and error(1 / 16) > 4 * error(1)
        seen = []
        numerical_gradient(lambda p: seen.append(p["x"][0]) or p["x"][0], {"x": points[:1]}, "central")
        assert math.isclose(np.ptp(seen) / 2, EPS ** (1 / 3) * max(1, points[0]), rel_tol=1e-4)


KNOWN = [(np.exp, np.exp), (np.sin, np.cos), (np.log, lambda x: 1 / x), (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
         (np.tanh, lambda x: 1 / np.cosh(x) ** 2), (lambda x: x ** 7, lambda x: 7 * x ** 6),
         (lambda x: 1 / (1 + np.exp(-x)), lambda x: 0.25 / np.cosh(x / 2) ** 2)]


@equation("D9.3")
def test_complex_step_of_functions_with_known_derivatives():
    points = np.linspace(0.1, 3, 40)
    for function, derivative in KNOWN:
        slopes = numerical_gradient(lambda p: np.sum(function(p["x"])), {"x": points})["x"]
        np.testing.assert_allclose(slopes, derivative(points), rtol=20 * EPS, atol=0)


@equation("D9.4")
def test_derivatives_along_signs():
    """Against a loss with a gradient that is known, along all 64 directions, and along those that a check draws."""
    theta = np.random.default_rng(1).uniform(0.5, 1.5, (2, 3))
    power = np.arange(1.0, 7.0).reshape(2, 3)

    def loss(p):
        return np.sum(p["w"] ** power)
    gradient = power * theta ** (power - 1)
    point, squares = Point(loss, {"w": theta}), []
    for signs in product([-1.0, 1.0], repeat=6):
        v = np.array(signs).reshape(2, 3)
        slope = point.complex_slope("w", Probe(..., v, 0.0))
        assert math.isclose(slope, math.fsum((gradient * v).flat), rel_tol=1e-13, abs_tol=1e-13)
        squares.append(slope ** 2)
    assert math.isclose(math.fsum(squares) / 64, math.fsum((gradient ** 2).flat), rel_tol=1e-13)
    for method in ("directional", "directional central"):
        assert check_gradients(loss, {"w": gradient}, {"w": theta}, method).ok
        for k in np.ndindex(2, 3):
            wrong = gradient.copy()
            wrong[k] += 1e-5 * np.linalg.norm(gradient)
            for seed in range(3):      # one direction is enough for one entry
                assert not check_gradients(loss, {"w": wrong}, {"w": theta}, method, directions=1,
                                           rng=np.random.default_rng(seed)).ok


@equation("D9.5")
def test_the_rule_by_hand():
    """n = (1, 7, 0) has an RMS of sqrt(50/3); the errors are 1/2 of that, of 7, and of that again."""
    rms = math.sqrt(50 / 3)
    for scale in (1.0, 1e-6, 1e-150, 1e150):
        numeric = {"w": scale * np.array([1.0, 7.0, 0.0])}
        for index, size in enumerate((rms, 7.0, rms)):
            analytic = numeric["w"].copy()
            analytic[index] += scale * 0.5 * size
            worst = compare({"w": analytic}, numeric).worst
            assert math.isclose(worst.error, 0.5, rel_tol=1e-14) and worst.index == (index,)
        assert compare(numeric, numeric).worst.error == 0


@equation("D9.6")
def test_jump_at_a_kink_and_beside_one():
    """Between slopes -2 and 3: 5 at the kink, less in proportion to its distance, 0 where it is a step away."""
    for size in (1e-2, 1e-6):
        for part in (0.0, 0.25, 0.5, 0.9, 1.0, 1.7):
            _, jump = slope_and_jump(lambda x: 3 * x if x > 0 else -2 * x, -part * size, size)
            assert math.isclose(jump, 5 * max(0, 1 - part), rel_tol=1e-8, abs_tol=1e-8)
    jumps = [slope_and_jump(math.cosh, 1.0, size)[1] for size in (1e-3, 5e-4)]
    assert math.isclose(jumps[0], 1e-3 * math.cosh(1.0), rel_tol=1e-5) and abs(jumps[0] / jumps[1] - 2) < 1e-4
    smooth = {"x": np.linspace(0.5, 2, 7)}
    at_kinks = {"x": np.array([0.0, 1.0, 0.0, -1.0])}
    assert check_gradients(lambda p: np.sum(np.cosh(p["x"])), {"x": np.sinh(smooth["x"])}, smooth, "central").ok
    for loss, at, kinks in ((lambda p: np.sum(np.cosh(p["x"])), smooth, 0),
                            (lambda p: np.sum(np.abs(p["x"])), at_kinks, 2)):
        assert check_gradients(loss, at, at, "central").worst.kinks == kinks


def powers(x):
    """x, x^2, x^3 of one number (1,)."""
    return np.concatenate([x, x ** 2, x ** 3])


def powers_backward(dout, x):
    return {"x": dout[:1] + 2 * x * dout[1:2] + 3 * x ** 2 * dout[2:]}


@equation("D9.7")
def test_a_layer_is_checked_as_a_sum_with_its_upstream_gradient():
    """The numeric gradient of three powers of one number is the sum of their derivatives times what came from above."""
    for method in ("complex", "central"):
        handed = []

        def backward(dout, x):
            handed.append(dout.copy())
            return powers_backward(dout, x)
        report = check_pair(powers, backward, {"x": np.array([1.3])}, method=method)
        y = handed[0]
        assert report.ok and math.isclose(report.worst.numeric, y[0] + 2.6 * y[1] + 3 * 1.69 * y[2], rel_tol=1e-9)
        assert np.abs(y).min() > 0 and len(set(y)) == 3      # random, so no row of the Jacobian goes unseen
        for row in range(3):
            def without(dout, x, row=row):
                return powers_backward(np.where(np.arange(3) == row, 0, dout), x)
            assert not check_pair(powers, without, {"x": np.array([1.3])}, method=method).ok


@equation("D9.8")
def test_backward_is_linear():
    """A matrix product is; the same with clipping, a square or a constant in it is not."""
    weights = np.random.default_rng(2).standard_normal((3, 4))

    def violations(backward):
        return check_pair(lambda x: x @ weights, backward, {"x": np.ones((2, 3))}).violations
    assert violations(lambda dout, x: {"x": dout @ weights.T}) == ()
    nonlinear = "backward is not linear in the upstream gradient"
    for wrong in (lambda dout, x: {"x": np.clip(dout, -0.1, 0.1) @ weights.T},
                  lambda dout, x: {"x": dout ** 2 @ weights.T}, lambda dout, x: {"x": np.abs(dout) @ weights.T}):
        assert violations(wrong) == (nonlinear,)
    zero = "backward of a zero upstream gradient is not zero"
    assert violations(lambda dout, x: {"x": dout @ weights.T + 1e-3}) == (zero,)


@equation("D9.9")
def test_two_steps_extrapolate_and_the_complex_step_is_held_against_them():
    """The error of a slope with steps 8 h and h is -64 h^4 f^(5) / 120; of a jump a kink stays, and no curve."""
    def extrapolated(function, at, size):
        first, second = (slope_and_jump(function, at, h) for h in (size, size / 8))
        return derivatives._extrapolate(derivatives._Rung(*first), *second)
    for function, truth, fifth in ((math.exp, math.exp(0.7), math.exp(0.7)), (math.sin, math.cos(0.7), math.cos(0.7))):
        rung = extrapolated(function, 0.7, 0.1)
        assert math.isclose(rung.limit - truth, -(0.1 ** 4) * fifth / 64 / 120, rel_tol=0.01)
        assert abs(rung.kink) < 0.1 ** 3 / 8
    for function in (lambda x: abs(x) + x * x, lambda x: max(2 * x, 0.0) - x ** 3):
        assert math.isclose(extrapolated(function, 0.0, 1e-3).kink, 2, rel_tol=1e-9)
    x = {"x": np.array([0.4, -1.3, 2.0])}
    for lossy, right in ((np.abs, np.sign(x["x"])), (lambda x: np.linalg.norm(x), x["x"] / np.linalg.norm(x["x"])),
                         (lambda x: (x.real ** 2) / 2 + x, x["x"] + 1)):
        for part in (1.0, 1e-7):      # of the whole loss
            report = check_gradients(lambda p: np.sum(part * lossy(p["x"])) + np.sum(p["x"] ** 2),
                                     {"x": part * right + 2 * x["x"]}, x)
            assert report.ok and "not analytic in x" in report.worst.note and report.worst.tolerance == 1e-7, report


@equation("D9.10")
def test_what_terms_that_cancel_leave():
    """sum(x - mean x) does not move; its gradient is n times (1/n - 1/n), so eps in size, at any scale and any x."""
    for scale in (1e-6, 1.0, 1e6):
        for size in (1e-3, 1.0, 1e3):
            x = size * np.random.default_rng(0).standard_normal(7)
            bound = derivatives.cancelling(Point(lambda p: scale * np.sum(p["x"] - p["x"].mean()), {"x": x}), "x")[0]
            assert EPS / 4 <= bound / scale <= 100 * EPS
    assert derivatives.cancelling(Point(lambda p: p["y"][0] ** 2, {"x": np.ones(2), "y": np.ones(1)}), "x")[0] == 0
