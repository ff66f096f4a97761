"""The report names the likely slip: the right one for each planted slip, and none where nothing can be said."""
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from npvae.gradcheck import TOLERANCES, check_gradients, check_pair, compare
from npvae.testing import away_from, inputs, seeds, shapes, spread

SCALES = st.sampled_from([10.0 ** k for k in range(-6, 7)])
COUNTS = {"B": 128.0, "K": 5.0}


def transposed_in_memory(g):
    return g.ravel(order="F").reshape(g.shape)


def at(index, change):
    """The slip in one place."""
    def slip(g):
        g = g.copy()
        g[index] = change(g[index])
        return g
    return slip


# Each slip: what becomes of a right gradient (A, B) of distinct lengths, and what is said of it.
SLIPS = {
    "sign": (np.negative, r"the sign is wrong"),
    "factor 2": (lambda g: 2 * g, r"twice what it should be, throughout: added twice, or a factor 1/2 forgotten\?"),
    "factor 1/2": (lambda g: g / 2, r"half what it should be, throughout: .*"),
    "factor 4": (lambda g: 4 * g, r"four times what it should be, throughout"),
    "factor -1/4": (lambda g: -g / 4, r"the sign is wrong and it is a quarter of what it should be, throughout"),
    "any factor": (lambda g: 0.37 * g, r"0\.37 times what it should be, throughout"),
    "factor 1.00001": (lambda g: g * 1.00001, r"1\.00001 times what it should be, throughout"),
    "B": (lambda g: 128 * g, r"B = 128 times too large: is a mean over B missing\?"),
    "1/B": (lambda g: g / 128, r"B = 128 times too small: a mean over B too many, or a sum taken as a mean\?"),
    "K": (lambda g: 5 * g, r"K = 5 times too large: is a mean over K missing\?"),
    "1/K": (lambda g: g / 5, r"K = 5 times too small: .*"),
    "sign and B": (lambda g: -128 * g, r"the sign is wrong and it is B = 128 times too large: .*"),
    "laid out by columns": (transposed_in_memory, r"transposed in memory: the right numbers, laid out by columns"),
    "zero": (np.zeros_like, r"zero throughout: a path from here to the loss is missing, or .*"),
    "NaN": (at((0, 1), lambda g: np.nan), r"NaN or infinity in 1 of \d+ entries"),
    "infinity": (at(0, lambda g: np.full_like(g, np.inf)), r"NaN or infinity in \d+ of \d+ entries"),
    "one entry": (at((1, 2), lambda g: g + 1), r"only the entry \[1, 2\] is wrong"),
    "one row": (at(1, lambda g: g + np.arange(1, len(g) + 1)), r"only row 1 is wrong"),
    "one row zero": (at(1, lambda g: 0 * g), r"only row 1 is wrong, and it is zero"),
    "one column": (at(np.s_[:, 2], lambda g: g - np.arange(1, len(g) + 1)), r"only column 2 is wrong"),
    "one column zero": (at(np.s_[:, -1], lambda g: 0 * g), r"only column \d is wrong, and it is zero"),
    "another's added": (None, r"too large by the gradient of other: added where it does not belong\?"),
    "another's missing": (None, r"the gradient of other is missing from the sum"),
    "another's": (None, r"equal to the gradient of other"),
    "shifted by one": (lambda g: np.roll(g, 1, axis=0), r"shifted by one along axis 0: an index is off by one"),
    "shifted back": (lambda g: np.roll(g, -1, axis=1), r"shifted by one along axis 1: an index is off by one"),
    "reversed": (lambda g: g[:, ::-1], r"in reverse order along axis 1"),
    "constant along an axis": (lambda g: g + np.arange(1, len(g) + 1)[:, None] / 3,
                               r"off by the same amount all along axis 1: the derivative of a sum or mean over it .*"),
    "constant down an axis": (lambda g: g - g.mean(axis=0), r"off by the same amount all along axis 0: .*"),
    "factor per column": (lambda g: g * np.linspace(0.2, 0.9, g.shape[1]),
                          r"off by a factor of its own for each index of axis 1, from 0\.2 to 0\.9: .*"),
    "factor per row": (lambda g: g * np.linspace(2, 3, len(g))[:, None],
                       r"off by a factor of its own for each index of axis 0, from 2 to 3: .*")}


@pytest.mark.every(6)
@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("slip", SLIPS)
@given(size=shapes("AB", least=3), seed=seeds(), scale=SCALES)
def test_the_slip_is_named(slip, method, size, seed, scale):
    """At any scale, over any shape, with the rounding that comes with the method."""
    rng = np.random.default_rng(seed)
    right, other = spread(rng, (size["A"], size["B"])), spread(rng, (size["A"], size["B"]))
    change, says = SLIPS[slip]
    if change is None:
        change = {"another's": lambda g: other, "another's added": lambda g: g + other,
                  "another's missing": lambda g: g - other}[slip]
    rounding = 1 + TOLERANCES[method] / 30 * rng.standard_normal(right.shape)
    numeric = {"w": scale * right * rounding, "other": scale * other}
    report = compare({"w": scale * change(right), "other": scale * other}, numeric, method, counts=COUNTS)
    assert not report.ok and report.worst.name == "w"
    assert re.fullmatch(says, report.worst.diagnosis), report.worst.diagnosis
    assert f"looks like: {report.worst.diagnosis}" in str(report)
    assert report.tensors[1].diagnosis == ""


@given(length=st.integers(2, 9), seed=seeds(), scale=SCALES)
def test_a_square_matrix_transposed(length, seed, scale):
    right = scale * spread(np.random.default_rng(seed), (length, length))
    assert compare({"w": right.T}, {"w": right}).worst.diagnosis == "transposed"


@given(length=st.integers(3, 9), seed=seeds(), scale=SCALES, count=st.sampled_from([3, 7, 100]))
def test_vectors(length, seed, scale, count):
    """Where there are no rows and columns."""
    right = scale * spread(np.random.default_rng(seed), (length,))
    for wrong, says in ((-right, "the sign is wrong"), (right[::-1], "in reverse order along axis 0"),
                        (at(2, np.negative)(right), "only the entry [2] is wrong"),
                        (right + scale, "off by the same amount all along axis 0: "),
                        (np.roll(right, 1), "shifted by one along axis 0: "),
                        (right / count, f"N = {count} times too small: ")):
        assert compare({"w": wrong}, {"w": right}, counts={"N": count}).worst.diagnosis.startswith(says)


def test_a_mask_is_missing_however_large_the_numbers_behind_it():
    right = np.array([1.0, 2, 0, 0, 3])
    for size in (1e-6, 1, 1e9):
        report = compare({"w": right + size * np.array([0, 0, 1.0, -2, 0])}, {"w": right})
        assert report.worst.diagnosis.startswith("not zero where it should be, in 2 of 5 entries, right elsewhere: ")


def test_more_axes_and_equal_counts():
    right = spread(np.random.default_rng(0), (2, 3, 4))
    report = compare({"w": at(np.s_[:, 1], np.negative)(right)}, {"w": right})
    assert report.worst.diagnosis == "only index 1 of axis 1 is wrong"
    report = compare({"w": 7 * right}, {"w": right}, counts={"B": 7, "D": 7, "K": 6})
    assert report.worst.diagnosis == "B or D = 7 times too large: is a mean over B or D missing?"


def test_slight_errors():
    """Even an error of 1e-9 has a pattern, and near-symmetry is none."""
    right = np.add.outer(np.arange(1.0, 5), np.arange(1.0, 5))
    for wrong, says in ((right * (1 + 1e-9), "1 +1e-09 times what it should be, throughout"),
                        (-right * (1 + 1e-9), "the sign is wrong"),
                        (at((1, 2), lambda g: g * (1 + 1e-9))(right), "only the entry [1, 2] is wrong"),
                        (at(3, lambda g: g + 1e-9)(right), "only row 3 is wrong"),
                        (right + 1e-8, "off by the same amount all along axis 0: ")):
        report = compare({"w": wrong}, {"w": right})
        assert not report.ok and report.worst.diagnosis.startswith(says), report


def test_far_apart_numbers():
    """Nothing overflows: 1e300 beside 1e-300."""
    right = np.array([1e-300, 2e-300, -3e-300])
    for wrong, says in ((1e300 * np.ones(3), ""), (1e200 * right, "1e+200 times what it should be, throughout"),
                        (at(0, lambda g: 1e-50)(right), "only the entry [0] is wrong")):
        assert compare({"w": wrong}, {"w": right}).worst.diagnosis == says
    huge = 1e300 * np.ones(3)
    assert compare({"w": right, "v": huge}, {"w": -right, "v": huge}).worst.diagnosis == "the sign is wrong"


def test_one_number_has_any_ratio():
    """Only a ratio that is known for something is named."""
    right = {"s": np.array(1.7)}
    for factor, says in ((2, "twice"), (-1, "the sign is wrong"), (5, "K = 5"), (1.234, ""), (0, "zero throughout")):
        diagnosis = compare({"s": factor * right["s"]}, right, counts=COUNTS).worst.diagnosis
        assert diagnosis.startswith(says) and bool(says) == bool(diagnosis)
    two = np.array([1.0, -3.0])
    assert compare({"w": 0.7 * two}, {"w": two}).worst.diagnosis == "0.7 times what it should be, throughout"


def test_what_the_loss_itself_shows():
    right = np.array([1.0, 2.0, 3.0])
    for bad in (np.nan, np.inf):
        report = compare({"w": right}, {"w": at(1, lambda g: bad)(right)})
        assert report.worst.diagnosis == "the loss itself is NaN or infinite near these parameters"
    report = compare({"w": right}, {"w": 0 * right})
    assert report.worst.diagnosis == "not zero, and the loss does not depend on this tensor, or has an extremum here"


def test_a_report_cannot_be_changed():
    report = compare({"w": np.ones(2)}, {"w": np.ones(2)})
    for thing in (report, report.worst):
        with pytest.raises(FrozenInstanceError):
            thing.tolerance = thing.error = 1


# --- whole layers ---

def tanh(x):
    return np.tanh(x)


def tanh_slope(x):
    return 1 - np.tanh(x) ** 2


def relu(x):
    return np.where(x.real > 0, x, 0)


def relu_slope(x):
    return (x > 0).astype(float)


def spotted(x):
    return np.arange(x.size).reshape(x.shape) % 2


@pytest.mark.parametrize("function, slope, slip, says", [
    (tanh, tanh_slope, lambda dout, slope: dout.copy(), "equal to the upstream gradient: is the derivative"),
    (tanh, tanh_slope, lambda dout, slope: dout * slope * slope, "the derivative of the activation is applied twice"),
    (tanh, tanh_slope, lambda dout, slope: -dout * slope, "the sign is wrong"),
    (tanh, tanh_slope, lambda dout, slope: dout / slope, ""),
    (relu, relu_slope, lambda dout, slope: dout * (1 - slope), "zero where it should not be, and nowhere else:"),
    (relu, relu_slope, lambda dout, slope: dout.copy(), "not zero where it should be, in "),
    (relu, relu_slope, lambda dout, slope: dout * slope * spotted(dout), "zero where it should not be, in "),
    (relu, relu_slope, lambda dout, slope: dout * slope[::-1], "")])
@given(x=shapes("AB", least=5).flatmap(lambda size: away_from([0], (size["A"], size["B"]))))
def test_activations(function, slope, slip, says, x):
    assume(all((x > 0).any(axis).all() and (x < 0).any(axis).all() for axis in (0, 1)))
    report = check_pair(function, lambda dout, x: {"x": slip(dout, slope(x))}, {"x": x})
    found = report.worst.diagnosis
    assert not report.ok and found.startswith(says) and bool(says) == bool(found), report


@given(drawn=inputs({"x": "BD", "W": "DH", "b": "H"}, least=3))
def test_a_dense_layer(drawn):
    """The lengths of all axes are known to the report."""
    def forward(x, W, b):
        return np.tanh(x @ W + b)

    def backward(slip):
        def gradients(dout, x, W, b):
            dpre = dout * (1 - forward(x, W, b) ** 2)
            return {"x": dpre @ W.T, "W": x.T @ dpre, "b": dpre.sum(axis=0), **slip(dout, dpre, x, W)}
        return gradients

    B = len(drawn["x"])
    for slip, says in ((lambda dout, dpre, x, W: {"b": dpre.mean(axis=0)}, f"axis 0 of x = {B} times too small: "),
                       (lambda dout, dpre, x, W: {"W": B * x.T @ dpre}, f"axis 0 of x = {B} times too large: "),
                       (lambda dout, dpre, x, W: {"x": (W @ dpre.T).reshape(x.shape)}, "transposed in memory: "),
                       (lambda dout, dpre, x, W: {"W": 0 * W}, "zero throughout: ")):
        report = check_pair(forward, backward(slip), drawn)
        assert report.worst.diagnosis.startswith(says), report
        assert sum(tensor.diagnosis != "" for tensor in report.tensors) == 1 and not report.violations


# --- along directions ---

@pytest.mark.parametrize("method", ["directional", "directional central"])
def test_along_directions_ratios_are_named_and_places_are_not(method):
    rng = np.random.default_rng(0)
    theta = {"w": spread(rng, (4, 4)), "v": spread(rng, (7,))}

    def loss(p):
        return (p["w"] ** 3).sum() + (p["v"] ** 2).sum()
    right = {"w": 3 * theta["w"] ** 2, "v": 2 * theta["v"]}
    for change, says in ((np.negative, "the sign is wrong"), (lambda g: 2 * g, "twice what it "),
                         (lambda g: 5 * g, "K = 5 times too large"), (np.zeros_like, "zero throughout"),
                         (lambda g: np.nan * g, "NaN or infinity in 32 of 32 directions"),
                         (at((0, 1), np.negative), ""), (np.transpose, "")):
        report = check_gradients(loss, {**right, "w": change(right["w"])}, theta, method, counts=COUNTS)
        assert report.worst.name == "w" and report.worst.diagnosis.startswith(says)
        assert bool(says) == bool(report.worst.diagnosis), report
    report = check_gradients(loss, {**right, "w": at((0, 1), np.negative)(right["w"])}, theta, method)
    one = check_gradients(loss, {**right, "w": at((0, 1), np.negative)(right["w"])}, theta, method,
                          tolerance=0.999 * report.worst.error)
    assert not one.ok and one.worst.diagnosis == ""


# --- nothing is said where nothing is known ---

@given(size=shapes("AB", least=2), seed=seeds(), scale=SCALES)
def test_a_right_gradient_has_no_diagnosis(size, seed, scale):
    """Exact, or rounded."""
    rng = np.random.default_rng(seed)
    right = scale * spread(rng, (size["A"], size["B"]))
    for error in (0, 1e-14):
        report = compare({"w": right * (1 + error * rng.standard_normal(right.shape))}, {"w": right}, counts=COUNTS)
        assert report.ok and report.worst.diagnosis == "" and "looks like" not in str(report)


@pytest.mark.every(3)
@pytest.mark.parametrize("error", [np.inf, 30, 1e-3, 1e-7, 1e-10])
@pytest.mark.parametrize("kind", ["dense", "sparse", "symmetric", "constant"])
@given(shape=st.one_of(shapes("A", least=2), shapes("AB", least=2), shapes("ABC", least=2, most=5)), seed=seeds(),
       scale=SCALES)
def test_random_noise_has_no_diagnosis(error, kind, shape, seed, scale):
    """However large the error, in whatever shape; also where most entries are zero, or where a transposition, a shift
    or a factor for each row would nearly explain it.  `error` is relative, inf for an unrelated gradient."""
    rng = np.random.default_rng(seed)
    sizes = tuple(shape.values())
    shape = (sizes[0], sizes[0]) if kind == "symmetric" else sizes
    right, other, random = (spread(rng, shape) for _ in range(3))
    support = rng.random(shape) < 0.4 if kind == "sparse" else np.ones(shape, bool)
    assume(support.sum() > 3)      # two or three numbers may be off by one factor by chance
    # noise in one place, or in some of a few equal parts, is said to be there
    for axis, length in enumerate(shape):
        hit = support.any(axis=tuple(set(range(len(shape))) - {axis}))
        parts = [count for count in (2, 3, 4) if length % count == 0]
        assume(hit.sum() > 1 and all(part.any() for count in parts for part in np.split(hit, count)))
    right = right + right.T if kind == "symmetric" else np.ones(shape) if kind == "constant" else right
    wrong = random if error == np.inf else right + error * random
    numeric = {"w": scale * right * support, "other": scale * other}
    report = compare({"w": scale * wrong * support, "other": scale * other}, numeric, counts=COUNTS)
    assert not report.ok and report.worst.diagnosis == "", report
