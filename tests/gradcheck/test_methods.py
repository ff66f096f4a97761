"""The four methods: directions, kinks, one verdict at every scale of the loss, no false alarm; bad arguments."""
import numpy as np
import pytest
from hypothesis import given, settings

from npvae.gradcheck import CENTRAL_STEP, TOLERANCES, check_gradients, check_pair, compare
from npvae.testing import seeds, spread
from networks import SLIPS, example, network, network_gradients

METHODS = pytest.mark.parametrize("method", TOLERANCES)
DIRECTIONS = pytest.mark.parametrize("method", ["directional", "directional central"])


# --- along random directions ---

@pytest.mark.every(6)
@DIRECTIONS
@pytest.mark.parametrize("slip", SLIPS)
@settings(max_examples=3)
@given(seed=seeds())
def test_a_planted_slip_is_caught(slip, method, seed):
    """In the tensor it is in, and in no other."""
    at, rng = example(), np.random.default_rng(seed)
    right, wrong = network_gradients(at), SLIPS[slip](at)
    assert check_gradients(network, right, at, method, rng=rng).ok
    report = check_gradients(network, wrong, at, method, rng=rng)
    for tensor in report.tensors:
        equal = np.array_equal(wrong[tensor.name], right[tensor.name])
        assert (tensor.error <= report.tolerance) == equal, report
    assert not report.ok and report.worst.name in str(report)


N = 100_000
LARGE = {"w": spread(np.random.default_rng(1), (N,)), "c": spread(np.random.default_rng(2), (50, 40))}


def large_loss(p):
    """Cheap, curved, and every entry reaches every other."""
    w = p["w"]
    return (w * w * (1 + w)).sum() / N + p["c"].sum() * w.sum() / N + (p["c"] ** 3).sum()


LARGE_GRADIENTS = {"w": (2 * LARGE["w"] + 3 * LARGE["w"] ** 2 + LARGE["c"].sum()) / N,
                   "c": LARGE["w"].sum() / N + 3 * LARGE["c"] ** 2}


@pytest.mark.every(3)
@pytest.mark.parametrize("seed", range(10))
def test_one_direction_sees_an_error_of_1e_8_in_one_of_100_000_entries(seed):
    rng = np.random.default_rng(seed)
    assert check_gradients(large_loss, LARGE_GRADIENTS, LARGE, "directional", directions=1, rng=rng).ok
    typical = np.argsort(np.abs(LARGE_GRADIENTS["w"]))[N // 2:]
    wrong = {name: value.copy() for name, value in LARGE_GRADIENTS.items()}
    wrong["w"][rng.choice(typical)] *= 1 + 1e-8
    report = check_gradients(large_loss, wrong, LARGE, "directional", directions=1, rng=rng)
    assert not report.ok and report.worst.name == "w" and report.tensors[1].error <= report.tolerance


@DIRECTIONS
@pytest.mark.parametrize("directions", [1, 3])
@given(seed=seeds())
def test_a_direction_in_which_a_right_gradient_vanishes(method, directions, seed):
    """The sum of x - y moves by nothing along (1, 1): neither an error nor a vacuous test."""
    at = {"w": np.array([0.7, -0.2])}
    report = check_gradients(lambda p: (1 / 3) * (p["w"][0] - p["w"][1]), {"w": np.array([1, -1]) / 3}, at, method,
                             directions=directions, rng=np.random.default_rng(seed))
    assert report.ok and not report.vacuous, report
    nothing = check_gradients(lambda p: 0 * p["w"].sum(), {"w": np.zeros(2)}, at, method)
    assert nothing.ok and nothing.vacuous == ("w",)


@pytest.mark.every(2)
@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
@given(seed=seeds())
def test_the_rule(scale, seed):
    """Entry by entry the floor is the RMS, along one direction the analytic norm; and the error of whole tensors."""
    at = {"w": spread(np.random.default_rng(seed), (3, 4))}
    right, wrong = scale * np.cos(at["w"]), scale * np.cos(at["w"] + 0.1)
    entry, along = (check_gradients(lambda p: scale * np.sin(p["w"]).sum(), {"w": wrong}, at, method, directions=1,
                                    rng=np.random.default_rng(seed)).worst for method in ("complex", "directional"))
    norm = np.linalg.norm(right)
    assert entry.error == pytest.approx((np.abs(wrong - right) / np.maximum(np.abs(right), norm / np.sqrt(12))).max())
    assert entry.norm_error == pytest.approx(np.linalg.norm(wrong - right) / norm)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (3, 4))
    slopes = (wrong * signs).sum(), (right * signs).sum()
    assert (along.analytic, along.numeric) == pytest.approx(slopes)
    assert along.error == pytest.approx(abs(slopes[0] - slopes[1]) / max(abs(slopes[1]), np.linalg.norm(wrong)))


def test_the_error_of_a_whole_tensor_that_cannot_be_measured():
    for wrong, right, error in ((0.0, 0.0, 0), (1.0, 0.0, np.inf), (np.nan, 1.0, np.inf), (1.0, np.nan, np.inf)):
        assert compare({"w": np.full(3, wrong)}, {"w": np.full(3, right)}).worst.norm_error == error


@DIRECTIONS
def test_how_often_and_where_the_loss_is_evaluated(method):
    """All entries of one tensor at a time move, the others stay, and what the caller holds is not touched.  Besides
    the directions themselves, a check is a few evaluations a tensor."""
    at, seen = {name: 3 * value for name, value in example().items()}, []
    kept = {name: value.copy() for name, value in at.items()}

    def loss(p):
        seen.append({name: value - kept[name] for name, value in p.items()})
        return network(p)
    check_gradients(loss, network_gradients(at), at, method, directions=5)
    assert all(np.array_equal(at[name], kept[name]) for name in at)
    steps = {name: [p[name] for p in seen if p[name].any() and not p[other].any()]
             for name, other in (("W", "b"), ("b", "W"))}
    size = {name: CENTRAL_STEP * max(1, np.abs(at[name]).max()) if "central" in method else 1e-30 for name in at}
    for name in at:
        equal = [step for step in steps[name] if np.allclose(np.abs(step), size[name], rtol=1e-6, atol=0)]
        assert len(equal) == (10 if "central" in method else 5)
        in_float32 = 2      # a step to both sides: is it float32 inside?
        assert len(steps[name]) - len(equal) <= in_float32 + (0 if "central" in method else 1 + 2 * 3)
    assert len(seen) - sum(map(len, steps.values())) <= 2 + 4 + 9      # in the middle; two ways to see rounding


def test_directions_are_those_of_the_generator():
    at = example()
    one, same, other = (check_gradients(network, SLIPS["sign"](at), at, "directional", rng=rng).worst
                        for rng in (None, np.random.default_rng(0), np.random.default_rng(1)))
    assert one == same != other


# --- kinks ---

def relu(x):
    return np.where(x.real > 0, x, 0)


def relu_backward(dout, x):
    return {"x": dout * (x > 0)}


@pytest.mark.parametrize("at", [part * CENTRAL_STEP for part in (0, 0.1, 0.29, 0.33, 0.37, -0.5)])
def test_kinks_are_counted_with_central_differences(at):
    """And not excused: half a slope is neither side's.  The complex step looks at one side: right where the kink lies
    beside an entry, and at one it decides nothing."""
    x = spread(np.random.default_rng(0), (3, 4))
    x[0, 1] = x[2, 3] = at
    report = check_pair(relu, relu_backward, {"x": x}, method="central")
    assert not report.ok and report.worst.kinks == 2 and "2 entries lie at a kink" in str(report)
    assert report.worst.index in ((0, 1), (2, 3))
    report = check_pair(relu, relu_backward, {"x": x})
    assert report.worst.kinks == (0 if at else 2) and report.verdict == ("right" if at else "UNDECIDED"), report


@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
def test_curvature_is_no_kink(scale):
    """Where the slope vanishes the two sides differ by the step times the curvature, or by rounding."""
    for x in (np.zeros(3), np.array([1e-7, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])):
        report = check_gradients(lambda p: scale * (p["x"] ** 2).sum(), {"x": 2.0 * scale * x}, {"x": x}, "central")
        assert report.worst.kinks == 0 and "kink" not in str(report), report
    x, w = spread(np.random.default_rng(0), (2, 5))
    report = check_gradients(lambda p: scale * ((p["x"] / p["w"] * p["w"]).sum() + 1e3), {"x": np.full(5, float(scale)),
                             "w": np.zeros(5)}, {"x": x, "w": w}, "central")
    assert [tensor.kinks for tensor in report.tensors] == [0, 0], report


# --- the scale of the loss ---

@pytest.mark.every(5)
@METHODS
@pytest.mark.parametrize("slip", ["sign", "one row zero", "one entry off by 1e-6", "forgotten path", "a constant",
                                  "right"])
def test_the_verdict_does_not_depend_on_the_scale_of_the_loss(slip, method):
    """Times 10^k, k = -8 to 8: the same errors in the same tensors, with the same diagnosis."""
    at = example()
    gradients = network_gradients(at) if slip == "right" else SLIPS[slip](at)
    reports = [check_gradients(lambda p: 10.0 ** k * network(p), {name: 10.0 ** k * g for name, g in gradients.items()},
                               at, method) for k in range(-8, 9, 4)]
    assert all(report.ok == (slip == "right") for report in reports)
    for tensors in zip(*(report.tensors for report in reports)):
        one = tensors[0]
        wrong = one.error > TOLERANCES[method]
        assert all((t.error > TOLERANCES[method], t.diagnosis) == (wrong, one.diagnosis) for t in tensors)
        assert np.allclose([t.error for t in tensors], one.error, rtol=1e-3, atol=TOLERANCES[method])


# --- no false alarm ---

def random_check(rng, method):
    """A right gradient at random: of a polynomial or of a small network, of any size and scale."""
    scale, kind = 10.0 ** rng.integers(-8, 9), rng.integers(3)
    x, a = spread(rng, (2, int(rng.integers(1, 4)), 4))
    theta = {"w": spread(rng, (4, int(rng.integers(2, 4)))), "v": spread(rng, (4,))}

    def loss(p):
        h = (x * p["v"]) @ p["w"]
        value = [(h * h).sum(), (h * h * h + h).sum(), np.log(1 + np.exp(h)).sum()][kind]
        return scale * (value + (a * p["v"] * p["v"]).sum())
    h = (x * theta["v"]) @ theta["w"]
    dh = scale * [2 * h, 3 * h * h + 1, 1 / (1 + np.exp(-h))][kind]
    gradients = {"w": (x * theta["v"]).T @ dh,
                 "v": ((dh @ theta["w"].T) * x).sum(axis=0) + 2 * scale * a.sum(axis=0) * theta["v"]}
    return check_gradients(loss, gradients, theta, method, directions=int(rng.integers(1, 9)), rng=rng)


def false_alarms(count):
    methods = list(TOLERANCES)
    reports = (random_check(np.random.default_rng(seed), methods[seed % 4]) for seed in range(count))
    return [(seed, str(report)) for seed, report in enumerate(reports)
            if not report.ok or report.vacuous or "looks like" in str(report) or "kink" in str(report)]


@pytest.mark.parametrize("count", [160, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_false_alarm(count):
    assert false_alarms(count) == []


# --- bad arguments ---

X, Y = spread(np.random.default_rng(0), (2, 3, 4))


def pair(forward=lambda x, w: x * w, backward=lambda dout, x, w: {"x": dout * w, "w": dout * x}, inputs=None, **others):
    return check_pair(forward, backward, {"x": X, "w": Y} if inputs is None else inputs, **others)


@pytest.mark.parametrize("call, error, says", [
    (lambda: pair(inputs={"x": X.astype(np.float32), "w": Y}), TypeError, "x must be float64, got float32: rounding"),
    (lambda: pair(inputs={"x": np.ones((3, 4), int), "w": Y}), TypeError, "x must be float64, got int64"),
    (lambda: pair(inputs={"x": X[:0], "w": Y[:0]}), ValueError, "x has shape (0, 4): it is empty"),
    (lambda: pair(inputs={}), ValueError, "parameters must hold at least one array"),
    (lambda: pair(constants=["x", "w"]), ValueError, "parameters must hold at least one array"),
    (lambda: pair(constants="x"), ValueError, "constants must be a list of names among x, w, got 'x'"),
    (lambda: pair(constants=["y"]), ValueError, "constants must be a list of names among x, w, got ['y']"),
    (lambda: pair(method="forward"), ValueError, "method must be one of complex, central, got 'forward'"),
    (lambda: pair(rng=-1), TypeError, "or a seed, an integer of at least 0, got -1"),
    (lambda: pair(forward=lambda x, w: (x, w)), TypeError, "forward must return one array, got tuple"),
    (lambda: pair(forward=lambda x, w: None), TypeError, "forward must return one array, got NoneType"),
    (lambda: pair(forward=lambda x, w: (x * w).astype("float32")), TypeError, "what forward returns must be float64"),
    (lambda: pair(backward=lambda dout, x, w: (dout, dout)), TypeError, "backward must return a mapping of names to"),
    (lambda: pair(backward=lambda dout, x, w: {"x": dout}), ValueError, "gradients name ['x'], parameters ['w', 'x']"),
    (lambda: pair(constants=["w"]), ValueError, "gradients name ['w', 'x'], parameters ['x']"),
    (lambda: pair(backward=lambda dout, x, w: {"x": dout.T, "w": dout}), ValueError, "gradient of x has shape (4, 3)"),
    (lambda: pair(backward=lambda dout, x, w: {"x": dout.astype("float32"), "w": dout}), TypeError,
     "the gradient of x must be float64, got float32")])
def test_bad_arguments_of_check_pair_are_named(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("call, error, says", [
    (dict(directions=0), ValueError, "directions must be a whole number of at least 1, got 0"),
    (dict(directions=2.5), ValueError, "directions must be a whole number of at least 1, got 2.5"),
    (dict(rng="1"), TypeError, "rng must be a numpy.random.Generator, as default_rng(0) makes one, or a seed"),
    (dict(method="forward"), ValueError, "one of complex, central, directional, directional central, got 'forward'")])
def test_bad_arguments_of_the_directions_are_named(call, error, says):
    with pytest.raises(error) as caught:
        check_gradients(network, network_gradients(example()), example(), **{"method": "directional", **call})
    assert says in str(caught.value) and "\n" not in str(caught.value)


@METHODS
def test_less_than_float64_is_refused(method):
    """In the parameters, in the gradients and in the loss itself."""
    at = example()
    gradients = network_gradients(at)
    low = {name: value.astype(np.float32) for name, value in at.items()}
    for arguments in ((network, gradients, low), (network, {**gradients, "b": low["b"]}, at),
                      (lambda p: np.complex64(network(p)) if "central" not in method else np.float32(network(p)),
                       gradients, at)):
        with pytest.raises(TypeError, match="float64, got (float32|complex64): rounding in lower precision"):
            check_gradients(*arguments, method)
