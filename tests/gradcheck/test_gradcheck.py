"""The tester, tested: right gradients pass, and each planted slip is caught, at any scale of the loss."""
import doctest
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npvae.gradcheck import (
    CENTRAL_STEP, TOLERANCES, Report, TensorReport, check_gradients, checker, compare, numerical_gradient)
from npvae.gradcheck.checker import _compare
from npvae.gradcheck.derivatives import Slopes
from strategies import seeds
from networks import N, SLIPS, example, network, network_gradients

METHODS = pytest.mark.parametrize("method", ["complex", "central"])
SCALES = pytest.mark.parametrize("scale", [1, 1e-4, 1e-6, 1e8, 1e-200, 1e200])


# --- right gradients pass ---

def quadratic(p):
    return (p["w"] ** 2).sum(), {"w": 2 * p["w"]}


def scalar(p):
    return p["s"] ** 3, {"s": 3 * p["s"] ** 2}


def exponential(p):
    return np.exp(p["w"]).sum(), {"w": np.exp(p["w"])}


def trace(p):
    return np.trace(p["a"] @ p["c"]), {"a": p["c"].T, "c": p["a"].T}


def softmax(p):
    e = np.exp(p["w"])
    return np.log(e.sum()), {"w": e / e.sum()}


def cube(p):
    return (p["t"] ** 2).sum() * p["t"][0, 1, 2], {"t": 2 * p["t"] * p["t"][0, 1, 2] + unit_at(
        p["t"].shape, (0, 1, 2)) * (p["t"] ** 2).sum()}


def unit_at(shape, index):
    unit = np.zeros(shape)
    unit[index] = 1
    return unit


SHAPES = {quadratic: {"w": (5,)}, scalar: {"s": ()}, exponential: {"w": (2, 3)}, trace: {"a": (3, 4), "c": (4, 3)},
          softmax: {"w": (6,)}, cube: {"t": (2, 3, 4)}}


@pytest.mark.every(5)
@METHODS
@SCALES
@pytest.mark.parametrize("function", SHAPES)
@settings(max_examples=4)
@given(seed=seeds)
def test_right_gradients_pass(function, method, scale, seed):
    rng = np.random.default_rng(seed)
    at = {name: rng.uniform(0.5, 1.5, shape) for name, shape in SHAPES[function].items()}
    gradients = {name: scale * value for name, value in function(at)[1].items()}
    report = check_gradients(lambda p: scale * function(p)[0], gradients, at, method)
    assert report.ok and not any(tensor.vacuous for tensor in report.tensors), report
    assert all(tensor.error <= TOLERANCES[method] / 10 for tensor in report.tensors), report    # with room to spare


# --- planted slips are caught ---


@pytest.mark.every(10)
@METHODS
@SCALES
@pytest.mark.parametrize("slip", SLIPS)
def test_a_planted_slip_is_caught(slip, scale, method):
    """A tolerance in absolute terms would let all of these pass once the loss is small."""
    at = example()
    right = {name: scale * value for name, value in network_gradients(at).items()}
    wrong = {name: scale * value for name, value in SLIPS[slip](at).items()}
    assert check_gradients(lambda p: scale * network(p), right, at, method).ok
    assert not check_gradients(lambda p: scale * network(p), wrong, at, method).ok


def test_what_only_the_complex_step_sees():
    """An error of 1e-10 is beyond a central difference."""
    at = example()
    slight = {name: value * (1 + 1e-10) for name, value in network_gradients(at).items()}
    assert not check_gradients(network, slight, at, "complex").ok
    assert check_gradients(network, slight, at, "central").ok


@METHODS
@given(name=st.sampled_from(["W", "b"]), position=st.integers(0, N * N - 1), size=st.sampled_from([-3, 0.01, np.nan]))
def test_the_report_names_tensor_and_index(method, name, position, size):
    """`size` is in units of the tensor's RMS."""
    at = example()
    gradients = network_gradients(at)
    index = np.unravel_index(position % at[name].size, at[name].shape)
    gradients[name][index] += size * np.sqrt(np.mean(gradients[name] ** 2))
    report = check_gradients(network, gradients, at, method)
    assert not report.ok and report.worst.name == name and report.worst.index == tuple(map(int, index))
    assert np.array_equal(report.worst.analytic, gradients[name][index], equal_nan=True)
    assert report.worst.numeric == pytest.approx(network_gradients(at)[name][index], rel=1e-6, abs=1e-9)
    assert np.isnan(size) or report.worst.diagnosis == f"only the entry {list(report.worst.index)} is wrong"
    lines = [line for line in str(report).splitlines() if "looks like" not in line]
    assert len(lines) == 3 and lines[0].startswith(f"gradients WRONG ({method} differences")
    assert [line[:2] for line in lines[1:]] == ["* " if name == tensor else "  " for tensor in ("W", "b")]
    assert f"* {name} " in str(report) and f"{list(report.worst.index)}" in str(report)


def test_nan_and_infinity_in_the_numbers_are_found_where_they_are():
    for bad in (np.nan, np.inf, -np.inf):
        for analytic, numeric in (([1.0, bad, 2.0], [1.0, 1.0, 2.0]), ([1.1, 1.0, 2.0], [1.0, bad, 2.0]),
                                  ([1.0, bad, 2.0], [1.0, bad, 2.0])):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                report = compare({"w": np.array(analytic)}, {"w": np.array(numeric)})
            assert not report.ok and report.worst.index == (1,) and report.worst.error == np.inf


def test_the_scale_of_an_entry_is_its_tensors():
    """Rounding in an entry small beside its neighbours is forgiven, an error is not; other tensors do not count."""
    numeric = {"w": np.array([3.0, 0.0, 1e-9, 4.0]), "small": np.array([1e-9])}
    rounded = {"w": numeric["w"] + [0, 1e-14, -1e-13, 0], "small": numeric["small"]}
    assert compare(rounded, numeric).ok and not compare(rounded, numeric, tolerance=1e-15).ok
    assert compare(rounded, numeric).worst.error == pytest.approx(1e-13 / 2.5, rel=1e-3)     # RMS of 3, 0, 0, 4
    for name, index in (("w", 1), ("w", 2), ("small", 0)):
        wrong = {key: value.copy() for key, value in numeric.items()}
        wrong[name][index] += 1e-10
        report = compare(wrong, numeric)
        assert not report.ok and (report.worst.name, report.worst.index) == (name, (index,))


def test_a_gradient_that_nothing_tested_is_flagged():
    at = {"used": np.array([1.0, 2.0]), "unused": np.array([3.0])}
    gradients = {"used": 2 * at["used"], "unused": np.zeros(1)}
    report = check_gradients(lambda p: (p["used"] ** 2).sum(), gradients, at)
    assert report.ok and [tensor.vacuous for tensor in report.tensors] == [False, True]
    assert "unused" in str(report) and "tests nothing" in str(report).splitlines()[3] and report.vacuous == ("unused",)
    gradients["unused"] += 1e-300
    assert not check_gradients(lambda p: (p["used"] ** 2).sum(), gradients, at).ok


@METHODS
def test_parameters_are_not_touched(method):
    """The loss is given copies, one entry moved at a time and put back."""
    at, seen = example(), []
    kept = {name: value.copy() for name, value in at.items()}

    def loss(p):
        seen.append({name: value.copy() for name, value in p.items()})
        assert not any(np.shares_memory(p[name], at[name]) for name in at)
        return network(p)
    numerical_gradient(loss, at, method)
    assert all(np.array_equal(at[name], kept[name]) and at[name].dtype == float for name in at)
    if method == "central":
        seen.pop(0)      # the loss in the middle, to see kinks
    assert len(seen) == (2 if method == "central" else 1) * (N * N + N)
    for p in seen:
        assert sum((p[name] != kept[name]).sum() for name in kept) == 1


@pytest.mark.parametrize("theta", [0.0, 1.0, -1e6, 1e-9])
def test_the_step_of_central_differences_follows_the_parameter(theta):
    steps = []

    def loss(p):
        steps.append(abs(p["w"].item() - theta))
        return p["w"].item()
    numerical_gradient(loss, {"w": np.array(theta)}, "central")
    assert steps.pop(0) == 0 and np.allclose(steps, CENTRAL_STEP * max(1, abs(theta)), rtol=1e-3)


# --- the rule by hand ---

def rule(analytic, numeric, jumps=0.0, central=False, tolerance=1e-12, **rest):
    numeric = np.array(numeric)
    found = Slopes(numeric, np.zeros(numeric.shape) + jumps, central, note="a note")
    return _compare("w", np.array(analytic), found, tolerance, {}, {}, **rest)


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_errors_by_hand(scale):
    """(3, -4) has the norm 5 and the RMS 5 / sqrt(2); an error of 0.3 and 0.4 is a tenth of it."""
    report = rule([scale * 3.3, scale * -3.6], [scale * 3.0, scale * -4.0])
    assert (report.name, report.index, report.verdict, report.note) == ("w", (1,), "WRONG", "a note")
    assert np.allclose([report.error, report.norm_error], 0.1, rtol=1e-13)
    assert (report.analytic, report.numeric) == (scale * -3.6, scale * -4.0)
    report = rule([scale * 3.3, scale * -4.0], [scale * 3.0, scale * -4.0], tolerance=0.09)
    assert report.index == (0,) and np.isclose(report.error, 0.3 / (5 / np.sqrt(2))) and report.verdict == "right"
    assert np.isclose(report.norm_error, 0.06) and (report.tolerance, report.kinks, report.vacuous) == (0.09, 0, False)
    assert rule([scale * 3.3, scale * -4.0], [scale * 3.0, scale * -4.0], tolerance=0.08).verdict == "WRONG"
    assert "np." not in repr(report)


def test_errors_beside_zero_nan_and_infinity():
    for bad in (np.nan, np.inf):
        for analytic, numeric in (([2.0, bad], [1.0, 1.0]), ([1.0, bad], [1.0, bad]), ([bad, bad], [bad, bad])):
            report = rule(analytic, numeric, jumps=np.inf)
            assert report.error == report.norm_error == np.inf and report.verdict == "WRONG"
    assert rule([1.0, np.nan], [1.0, 1.0]).index == (1,)
    report = rule([0.0, 0.0], [0.0, 0.0])
    assert (report.error, report.norm_error, report.verdict, report.vacuous) == (0.0, 0.0, "right", True)
    report = rule([0.0, 1e-300], [0.0, 0.0])
    assert (report.error, report.norm_error, report.verdict, report.vacuous) == (np.inf, np.inf, "WRONG", True)


def test_along_directions_errors_are_relative_to_the_whole_gradient():
    report = rule([1.0, 0.0], [0.0, 0.0], norm=2.0, tolerance=0.4)
    assert (report.error, report.index, report.verdict, report.vacuous) == (0.5, (0,), "WRONG", False)
    assert np.isclose(report.norm_error, 0.5 / np.sqrt(2)) and report.diagnosis.startswith("not zero, and the loss")
    assert rule([5.0, 5.0], [4.0, 4.0], norm=2.0).error == 0.25
    assert rule([5.0, 5.0], [4.0, 4.0], norm=10.0).error == 0.1


def test_what_is_allowed_is_rounding_and_what_is_blurred_may_be():
    for off, verdict, error in ((0.9, "right", 0.0), (1.0, "right", 0.0), (1.1, "UNDECIDED", 1.1),
                                (1.9, "UNDECIDED", 1.9), (2.1, "WRONG", 2.1)):
        report = rule([1 + off, 1.0], [1.0, 1.0], allowed=1.0, blurred=2.0)
        assert report.verdict == verdict and np.isclose(report.error, error) and not report.vacuous
    for analytic, vacuous in ((0.5, False), (0.0, True), (2.0, True)):      # terms that cancel leave 1 at most
        assert rule([analytic, 0.0], [0.0, 0.0], allowed=1.0).vacuous == vacuous
    report = rule([4.0, 1.5, 3.0], [1.0, 1.0, 1.0], blurred=2.5)
    assert report.verdict == "WRONG" and report.index == (0,)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_kinks_by_hand(scale):
    """Central differences have one where the slopes differ by 1e-3 of the gradient's size, here 5; for the complex step
    it has been made sure before."""
    slopes = scale * np.array([7.0, 1.0])
    for jump, central, kinks in ((4.9e-3, True, 0), (5.1e-3, True, 1), (1e-9, False, 1)):
        report = rule(slopes, slopes, [0.0, scale * jump], central)
        assert (report.kinks, report.verdict) == (kinks, "UNDECIDED" if kinks else "right")
    for off, verdict in ((0.0, "UNDECIDED"), (1.00006, "UNDECIDED"), (-1.00006, "UNDECIDED"), (1.00008, "WRONG"),
                         (-1.00008, "WRONG")):      # half of 2, and 1e-5 of 2 and 5
        report = rule(slopes + [0.0, scale * off], slopes, [0.0, scale * 2.0], True)
        assert (report.kinks, report.verdict) == (1, verdict), off
        assert report.index == ((1,) if off else (0,))
    report = rule(slopes + [scale * 1e-3, scale * 0.5], slopes, [0.0, scale * 2.0])      # the wrong one is named
    assert report.verdict == "WRONG" and report.index == (0,)
    assert not rule([0.0, 0.0], [0.0, 0.0], [0.0, 1.0]).vacuous


def test_a_gradient_that_is_another_tensors_is_named():
    a, b = np.array([1.0, -2.0, 4.0]), np.array([3.0, 5.0, -1.0])
    says = ["equal to the gradient of b", "equal to the gradient of a"]
    report = compare({"a": b, "b": a}, {"a": a, "b": b})
    assert [tensor.diagnosis for tensor in report.tensors] == says
    report = check_gradients(lambda p: (p["a"] * b + p["b"] * a).sum(), {"a": a, "b": b}, {"a": a / 3, "b": b / 3})
    assert [tensor.diagnosis for tensor in report.tensors] == says


# --- what a report says ---

RIGHT = TensorReport("w", 1e-16, (1, 0), 2.0, 2.0, False, 1e-16, "right", 1e-12, 0, "", "")
WRONG = replace(RIGHT, name="v", verdict="WRONG", error=1e-3, index=(), diagnosis="the sign is wrong", zero_bound=1e-9,
                kinks=2, vacuous=True, note="rounding hides errors")
TIE = replace(RIGHT, name="u", verdict="UNDECIDED", error=0.5, kinks=1)


def test_a_report_says_all_it_knows():
    two = "analytic  2.000000000000e+00  numeric  2.000000000000e+00"
    assert str(Report("complex", 1e-12, (RIGHT, WRONG), ("x is changed by forward",))).splitlines() == [
        "gradients WRONG, rules BROKEN (complex differences, tolerance 1e-12)",
        "  w                    error  1.0e-16 at [1, 0]       " + two,
        "* v                    error  1.0e-03 at []           " + two,
        "      looks like: the sign is wrong",
        "      the numeric gradient is zero throughout: this tests nothing",
        "      wrong where the gradient is zero up to rounding: the terms that cancel leave up to 1.0e-09",
        "      2 entries lie at a kink of the loss, or where it ends: no derivative is right or wrong; "
        "move the parameters",
        "      rounding hides errors",
        "* x is changed by forward"]
    assert str(Report("central", 1e-7, (TIE,))).splitlines()[:2] == [
        "gradients UNDECIDED (central differences, tolerance 1e-07)",
        "? u                    error  5.0e-01 at [1, 0]       " + two]


def test_the_worst_is_one_that_is_wrong():
    """Though an undecided one may have the larger error."""
    report = Report("complex", 1e-12, (TIE, WRONG, RIGHT))
    assert report.worst is WRONG and report.verdict == "WRONG" and report.vacuous == ("v",)
    assert Report("complex", 1e-12, (RIGHT, TIE)).verdict == "UNDECIDED"
    assert [Report("complex", 1e-12, (tensor,), broken).ok for tensor in (RIGHT, TIE, WRONG) for broken in ((), ("x",))
            ] == [True, False, False, False, False, False]


# --- bad arguments ---

def square(p):
    return (p["w"] ** 2).sum()


W = {"w": np.array([1.0, 2.0])}


@pytest.mark.parametrize("call, error, says", [
    (lambda: check_gradients(square, W, {"w": W["w"].astype(np.float32)}), TypeError, "w must be float64, got float32"),
    (lambda: check_gradients(square, {"w": W["w"].astype(np.float32)}, W), TypeError, "hides errors below 1e-3"),
    (lambda: check_gradients(square, W, {"w": np.array([1, 2])}), TypeError, "w must be float64, got int64"),
    (lambda: numerical_gradient(square, W, "forward"), ValueError, "one of complex, central, got 'forward'"),
    (lambda: compare(W, W, "forward"), ValueError, "complex, central, directional, directional central, got 'forward'"),
    (lambda: compare({"v": W["w"]}, W), ValueError, "gradients name ['v'], parameters ['w']"),
    (lambda: compare({}, W), ValueError, "gradients name [], parameters ['w']"),
    (lambda: compare({**W, "v": W["w"]}, W), ValueError, "gradients name ['v', 'w'], parameters ['w']"),
    (lambda: compare({"w": W["w"][:, None]}, W), ValueError, "gradient of w has shape (2, 1), the parameter (2,)"),
    (lambda: compare({"w": np.array(2.0)}, W), ValueError, "gradient of w has shape (), the parameter (2,)"),
    (lambda: compare({"w": 2 * W["w"] + 1j}, W), TypeError, "w must be float64, got complex128"),
    (lambda: compare({"w": ["2", "4"]}, W), TypeError, "w must be float64, got <U1"),
    (lambda: compare({}, {}), ValueError, "numeric must hold at least one array"),
    (lambda: numerical_gradient(square, {}), ValueError, "parameters must hold at least one array"),
    (lambda: check_gradients(square, {}, {}), ValueError, "parameters must hold at least one array"),
    (lambda: check_gradients(square, {"w": []}, {"w": np.zeros(0)}), ValueError, "w has shape (0,): it is empty"),
    (lambda: check_gradients(lambda p: p["w"] ** 2, W, W), ValueError, "one number, got ndarray of shape (2,)"),
    (lambda: check_gradients(lambda p: None, W, W), ValueError, "loss must return one number, got NoneType")])
def test_bad_arguments_are_named(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_example_in_the_docstring_runs():
    tests = [test for test in doctest.DocTestFinder().find(checker, "gradcheck") if test.examples]
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.tries >= 2 and runner.failures == 0
    assert any(test.name == "gradcheck.check_gradients" for test in tests)
