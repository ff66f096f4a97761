"""What a checker can be fooled by: losses that are not analytic, kinks, zeros that are rounding, and how it says so."""
import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from npvae.gradcheck.derivatives import Point, hold
from npvae.gradcheck import TOLERANCES, check_gradients, check_pair
from npvae.testing import assert_gradients, spread

COMPLEX = pytest.mark.parametrize("method", ["complex", "directional"])
SCALES = pytest.mark.parametrize("scale", [1, 1e-6, 1e6, 1e-300])
X = spread(np.random.default_rng(3), (5, 4), most=2.0)


# --- not analytic ---

def softsign(x):
    return x / (1 + np.abs(x))


LOSSY = {      # a loss that drops or turns an imaginary part, and its gradient
    "abs": (lambda x: np.abs(x).sum(), np.sign), "var": (lambda x: x.var(), lambda x: 2 * (x - x.mean()) / x.size),
    "std": (lambda x: x.std(), lambda x: (x - x.mean()) / x.size / x.std()),
    "norm": (lambda x: np.linalg.norm(x), lambda x: x / np.linalg.norm(x)),
    "x abs(x)": (lambda x: (x * abs(x)).sum(), lambda x: 2 * abs(x)),
    "sign": (lambda x: (x * np.sign(x)).sum(), np.sign),
    "real": (lambda x: (x.real * x).sum(), lambda x: 2 * x),
    "conj": (lambda x: (x * np.conj(x)).sum(), lambda x: 2 * x),
    "vdot": (lambda x: np.vdot(x, x), lambda x: 2 * x),
    "float64": (lambda x: (np.asarray(x).astype(float) ** 2).sum(), lambda x: 2 * x),
    "float64 memory": (lambda x: fill(np.empty(x.shape), x * x).sum(), lambda x: 2 * x),
    "power of abs": (lambda x: (abs(x) ** 1.5).sum(), lambda x: 1.5 * np.sqrt(abs(x)) * np.sign(x)),
    "one part in a million": (lambda x: (x ** 3).sum() + 1e-6 * x.var(),
                              lambda x: 3 * x * x + 2e-6 * (x - x.mean()) / x.size),
    "one part in 10^8": (lambda x: (x ** 3).sum() + 1e-8 * np.abs(x).sum(), lambda x: 3 * x * x + 1e-8 * np.sign(x)),
    "softsign": (lambda x: softsign(x).sum(), lambda x: 1 / (1 + np.abs(x)) ** 2)}


def fill(memory, values):
    memory[...] = values
    return memory


@pytest.mark.every(33)
@COMPLEX
@SCALES
@pytest.mark.parametrize("name", LOSSY)
def test_a_loss_that_is_not_analytic_is_judged_by_central_differences(name, scale, method):
    """Right gradients pass, the complex step's own and others fail, and the tensor is named.  No warning escapes."""
    function, derivative = LOSSY[name]

    def loss(p):
        return scale * (function(p["x"]) + np.sum(p["y"] ** 2))
    at = {"x": X, "y": X[:2] / 3}
    right = {"x": scale * derivative(X), "y": scale * 2 * at["y"]}
    report = check_gradients(loss, right, at, method)
    tensors = {tensor.name: tensor for tensor in report.tensors}
    assert report.ok and tensors["y"].note == "" and tensors["y"].tolerance == TOLERANCES[method], report
    assert tensors["x"].note.startswith("the loss is not analytic in x") and tensors["x"].tolerance == 1e-7
    assert "np.sqrt((d * d).sum()) for a norm" in str(report)
    for factor in (0, 0.5, 1 + 1e-6, -1):
        assert check_gradients(loss, {**right, "x": factor * right["x"]}, at, method).verdict == "WRONG"


def test_a_batch_norm_that_forgets_its_variance():
    """The issue as it was found: the complex step agrees with the wrong gradient to 4e-16."""
    def forward(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    def backward(dout, x, path=1):
        s = np.sqrt(x.var(0) + 1e-5)
        y = (x - x.mean(0)) / s
        return {"x": (dout - dout.mean(0) - path * y * (dout * y).mean(0)) / s}
    assert check_pair(forward, backward, {"x": X}).ok
    assert check_pair(forward, lambda dout, x: backward(dout, x, 0), {"x": X}).verdict == "WRONG"


@pytest.mark.parametrize("function", [
    lambda x: np.exp(x).sum(), lambda x: 1e4 + np.sin(x).sum(), lambda x: np.log(x * x + 1e-3).sum(),
    lambda x: np.where(x.real > 0, x, np.exp(x) - 1).sum(), lambda x: np.sort(x, axis=1)[:, 0].sum(),
    lambda x: x.max() - x.min(), lambda x: np.where(x.real > 0, x, 0).sum(), lambda x: np.linalg.inv(x[:4]).sum(),
    lambda x: np.log(np.where(x.real > 0, x, -x) * 1e-9).sum(), lambda x: 1e-300 * (x ** 4).sum(),
    lambda x: np.sqrt(np.where(x.real < 0, -x, x) - 0.05 + 1e-7).sum(), lambda x: 0 * x.sum()])
def test_an_analytic_loss_is_believed(function):
    """Curved, cut into pieces, with an edge nearby, large, small or constant."""
    point = Point(lambda p: function(p["x"]), {"x": X})
    assert hold(point, "x").kind == "smooth"


def test_parameters_far_below_one():
    """The step finds its size: log x at x = 1e-9."""
    x = np.array([1e-9, 3e-9, 1e-7])
    for error, verdict in ((0, "right"), (1e-8, "WRONG")):
        assert check_gradients(lambda p: np.log(p["x"]).sum(), {"x": (1 + error) / x}, {"x": x}).verdict == verdict


# --- kinks ---

TIES = np.array([[1.0, 1.0, 0.3], [0.2, 0.5, 0.4]])


def shares(first, second):
    """The upstream gradient of row 0's maximum, shared by the two entries that tie."""
    return lambda dout, x: {"x": np.array([[first, second, 0], [0, 1, 0]]) * dout[:, None]}


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("backward, verdict", [
    (shares(1, 1), "UNDECIDED"), (shares(1, 0), "UNDECIDED"), (shares(0, 1), "UNDECIDED"),
    (shares(0.5, 0.5), "UNDECIDED"), (shares(2, 0), "WRONG"), (shares(1, -0.1), "WRONG")])
def test_ties_of_a_maximum(backward, verdict, method):
    report = check_pair(lambda x: x.max(-1), backward, {"x": TIES}, method=method)
    assert (report.verdict, report.ok, report.worst.kinks) == (verdict, False, 2), report
    assert f"gradients {verdict} (" in str(report) and "2 entries lie at a kink" in str(report)
    with pytest.raises(AssertionError, match=f"gradients {verdict}"):
        assert_gradients(lambda x: x.max(-1), backward, {"x": TIES}, method=method)


@pytest.mark.parametrize("method", TOLERANCES)
@pytest.mark.parametrize("relu", [lambda x: np.where(x.real > 0, x, 0), lambda x: np.maximum(x, 0)])
def test_relu_at_zero(relu, method):
    """Entry by entry an error elsewhere is still seen."""
    at = {"x": np.array([0.0, 1.0, -1.0, 2.0])}
    for slope, verdict in ((0, "UNDECIDED"), (1, "UNDECIDED"), (0.5, "UNDECIDED"), (-0.3, "WRONG"), (1.3, "WRONG")):
        gradient = np.array([slope, 1, 0, 1]) * 1.0
        assert check_gradients(lambda p: relu(p["x"]).sum(), {"x": gradient}, at, method).verdict == verdict
        gradient[3] += 1e-3 if "directional" not in method else 1
        assert check_gradients(lambda p: relu(p["x"]).sum(), {"x": gradient}, at, method).verdict == "WRONG"


def test_a_kink_that_is_a_small_part_of_a_gradient():
    """One row of 2,000 lies at 0: the jump is some 1e-4 of the slope."""
    x = np.linspace(-1, 1, 2001)[:, None] * [1.0, 2.0]

    def loss(p):
        a = x @ p["w"]
        return np.where(a.real > 0, a, 0).sum() + p["w"][0] + np.where(p["b"].real > 0, p["b"], 0).sum() * 1e-3
    w = np.array([0.5, 0.2])
    right = {"w": x[x[:, 0] > 0].sum(0) + [1.0, 0.0], "b": np.array([1e-3, 0.0])}
    report = check_gradients(loss, right, {"w": w, "b": np.array([2.0, 0.0])})
    assert [tensor.verdict for tensor in report.tensors] == ["right", "UNDECIDED"], report


@pytest.mark.parametrize("method", ["central", "directional central"])
@pytest.mark.parametrize("root", [np.sqrt, np.vectorize(math.sqrt, otypes=[float])])
def test_a_step_beyond_the_edge_decides_nothing(root, method):
    """sqrt x at x = 1e-8, where central differences step to below 0, by NaN or by an error.  What lies inside is
    judged all the same, and NaN is wrong wherever it is."""
    at = {"x": np.array([1e-8, 2.0])}
    for x, slopes, verdict in ((at["x"], [1, 1], "UNDECIDED"), (at["x"], [np.nan, 1], "WRONG"),
                               (at["x"] + 1, [1, 1], "right"), (at["x"] + 1, [1, 2], "WRONG"),
                               *([(at["x"], [1, 2], "WRONG")] if method == "central" else [])):
        report = check_gradients(lambda p: root(p["x"]).sum(), {"x": 0.5 / np.sqrt(x) * slopes}, {"x": x}, method)
        assert (report.verdict, report.ok) == (verdict, verdict == "right"), report


# --- zeros that are rounding ---

def normalised(x):
    d = x - x.mean(0)
    s = np.sqrt((d * d).mean(0) + 1e-5)
    return d / s, s


def normalised_backward(dout, x):
    y, s = normalised(x)
    return (dout - dout.mean(0) - y * (dout * y).mean(0)) / s


def network(seed):
    """A bias in front of batch normalisation: loss, right gradients, parameters, and the size of the bias's terms."""
    rng = np.random.default_rng(seed)
    rows, inputs, outputs = (int(n) for n in rng.permutation(np.arange(3, 8))[:3])
    at = {"W": rng.normal(size=(inputs, outputs)), "b": rng.normal(size=outputs)}
    x, weight = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs))

    def loss(p):
        return (weight * normalised(x @ p["W"] + p["b"])[0] ** 2).sum()
    da = normalised_backward(2 * weight * normalised(x @ at["W"] + at["b"])[0], x @ at["W"] + at["b"])
    return loss, {"W": x.T @ da, "b": da.sum(0)}, at, np.abs(da).sum(0)


@pytest.mark.every(21)
@COMPLEX
@SCALES
@pytest.mark.parametrize("seed", range(5))
def test_a_bias_before_batch_norm(seed, scale, method):
    """Zero up to rounding, with the bound; an error of 1e-8 of its terms, or of the weights' gradient, is seen."""
    loss, right, at, terms = network(seed)

    def check(**changed):
        return check_gradients(lambda p: scale * loss(p), {name: scale * g for name, g in {**right, **changed}.items()},
                               at, method)
    for report in (check(), check(b=0 * right["b"])):
        assert report.ok, report
    assert "zero up to rounding" in str(check()) and check().tensors[1].zero_bound < 1e-9 * scale * terms.max()
    assert check(b=right["b"] + 1e-8 * terms).tensors[1].verdict == "WRONG"
    assert check(W=right["W"] * (1 + 1e-8)).tensors[0].verdict == "WRONG"


@pytest.mark.every(9)
@pytest.mark.parametrize("method", TOLERANCES)
@pytest.mark.parametrize("seed", range(5))
def test_the_sum_of_what_batch_norm_returns(seed, method):
    x = np.random.default_rng(seed).normal(size=(3 + seed, 4))
    right = normalised_backward(np.ones(x.shape), x)
    for scale in (1, 1e-6, 1e6):
        for factor, verdict in ((0, "right"), (1e-8 if "central" not in method else 1e-6, "WRONG")):
            gradient = {"x": scale * (right + factor / normalised(x)[1])}
            report = check_gradients(lambda p: scale * normalised(p["x"])[0].sum(), gradient, {"x": x}, method)
            assert report.verdict == verdict, report


@pytest.mark.every(2)
@pytest.mark.parametrize("size", [1, 1e-3, 1e3])
@pytest.mark.parametrize("epsilon", [0, 1e-12])
def test_layer_norm_of_width_two(epsilon, size):
    """Every row becomes (1, -1) or (-1, 1): no gradient, but for rounding."""
    def forward(x):
        d = x - x.mean(1, keepdims=True)
        return d / np.sqrt((d * d).mean(1, keepdims=True) + epsilon * size ** 2)

    def backward(dout, x):
        d = x - x.mean(1, keepdims=True)
        s = np.sqrt((d * d).mean(1, keepdims=True) + epsilon * size ** 2)
        return {"x": (dout - dout.mean(1, keepdims=True) - d / s * (dout * d / s).mean(1, keepdims=True)) / s}
    for seed in range(2):
        x = size * np.random.default_rng(seed).normal(size=(4, 2))
        assert_gradients(forward, backward, {"x": x})
        wrong = check_pair(forward, lambda dout, x: {"x": backward(dout, x)["x"] + 1e-6 / size * dout}, {"x": x})
        assert wrong.verdict == "WRONG" and not wrong.violations, wrong


@COMPLEX
@pytest.mark.parametrize("gradient", [np.zeros_like(X), 2 * np.abs(X)])
@pytest.mark.parametrize("beside, verdict", [(0.0, None), (1e12, "UNDECIDED")])
def test_rounding_hides_what_would_confirm_the_complex_step(beside, verdict, gradient, method):
    """x |x| beside 10^12: central differences see nothing of it with small steps, and with large ones that the complex
    step has lost something.  Alone, they judge."""
    report = check_gradients(lambda p: beside + (np.abs(p["x"]) * p["x"].real).sum(), {"x": gradient}, {"x": X}, method)
    assert report.verdict == (verdict or ("right" if gradient.any() else "WRONG"))
    assert ("no central differences confirm" in report.tensors[0].note) == (verdict is not None)


@COMPLEX
def test_a_jump_of_the_loss_is_undecided(method):
    report = check_gradients(lambda p: np.where(p["x"].real >= 0, p["x"] + 1, p["x"]).sum(), {"x": np.ones(3)},
                             {"x": np.array([0.0, 1.0, 2.0])}, method)
    assert report.verdict == "UNDECIDED" and "the loss jumps here" in report.tensors[0].note


@COMPLEX
@pytest.mark.parametrize("function, derivative, at", [
    (lambda a: np.where(a.real > 0, a, 0), lambda a: 1.0 * (a > 0), -0.01),      # dead, and alive with larger steps
    (np.tanh, lambda a: 1 / np.cosh(a) ** 2, 12.0), (lambda a: a ** 3, lambda a: 3 * a * a, 1e-6)])
def test_small_gradients_beside_a_large_loss_are_right(function, derivative, at, method):
    theta = np.full(3, at) + [0, 1e-7, 2e-7]
    assert check_gradients(lambda p: 1e6 + function(p["x"]).sum(), {"x": derivative(theta)}, {"x": theta}, method).ok


@pytest.mark.parametrize("method", TOLERANCES)
@pytest.mark.parametrize("gradient", [2 * X, 3 * X])
def test_a_loss_that_draws_its_noise_anew_is_undecided(gradient, method):
    """It has no derivative, so no gradient of it is right, whatever rounding might excuse."""
    rng = np.random.default_rng(0)
    report = check_gradients(lambda p: (p["x"] ** 2 + p["x"] * rng.standard_normal(X.shape)).sum(), {"x": gradient},
                             {"x": X}, method)
    assert report.verdict == "UNDECIDED" and "two values at the same parameters" in report.tensors[0].note


@pytest.mark.parametrize("method", TOLERANCES)
@pytest.mark.parametrize("function", [
    lambda x: x.astype(np.complex64 if np.iscomplexobj(x) else np.float32) ** 2,
    lambda x: np.abs(x.astype(np.complex64)).astype(float),
    lambda x: fill(np.empty(x.shape, np.complex64 if np.iscomplexobj(x) else np.float32), x * x)])
def test_a_loss_in_float32_is_refused_wherever_it_is_that(function, method):
    """Its steps have no slope: small ones would say that nothing moves, and confirm a gradient of zero."""
    with pytest.raises(TypeError, match="float64 throughout, and moves with x in steps"):
        check_gradients(lambda p: function(p["x"]).astype(complex).sum(), {"x": 0 * X}, {"x": X}, method)


def test_what_is_not_used_has_no_rounding():
    report = check_gradients(lambda p: p["x"].sum(), {"x": np.ones(3), "y": np.array([1e-300])},
                             {"x": np.ones(3), "y": np.ones(1)})
    assert report.tensors[1].verdict == "WRONG" and report.tensors[1].vacuous and not report.tensors[1].zero_bound


def test_rounding_that_hides_a_gradient_is_said():
    """Central differences of a loss of 10^9 know nothing of a slope of 1: neither right nor wrong."""
    at = {"x": np.array([0.3, 0.7])}

    def loss(p):
        return 1e9 + np.sin(p["x"]).sum()
    right = {"x": np.cos(at["x"])}
    report = check_gradients(loss, right, at, "central")
    assert report.verdict == "UNDECIDED" and "rounding hides errors" in str(report), report
    assert check_gradients(loss, right, at).ok
    assert check_gradients(loss, {"x": 30 * right["x"]}, at, "central").verdict == "WRONG"


@pytest.mark.every(15)
@pytest.mark.parametrize("beside", 10.0 ** np.arange(6, 15))
@pytest.mark.parametrize("method", TOLERANCES)
def test_central_differences_of_a_large_loss_never_call_a_gradient_zero(method, beside):
    """What its rounding hides is not zero for that, where larger steps move the loss."""
    at = {"x": np.array([0.3, 0.7])}
    for factor in (1.0, 1.5, 10.0, 100.0, -1.0):
        report = check_gradients(lambda p: beside + np.sin(p["x"]).sum(), {"x": factor * np.cos(at["x"])}, at, method)
        if "central" not in method:
            assert report.verdict == ("right" if factor == 1 else "WRONG")
        elif factor == 1:
            assert report.verdict == "UNDECIDED" and "rounding hides " in report.tensors[0].note, report
        else:
            assert report.verdict != "right", report


@pytest.mark.every(15)
@pytest.mark.parametrize("method", TOLERANCES)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("large", 10.0 ** np.arange(2, 13))
def test_a_large_number_that_cancels(large, inside, method):
    """Its rounding is that of the loss, though the loss and what moves it are small."""
    x = np.array([0.3, 0.7, 1.1])

    def loss(p):
        return ((np.sin(p["x"]) + large) - large).sum() if inside else (np.sin(p["x"]).sum() + large) - large
    try:
        right, wrong = (check_gradients(loss, {"x": factor * np.cos(x)}, {"x": x}, method) for factor in (1, 1 + 1e-3))
    except TypeError as error:
        assert large >= 1e6 and "times as large as the loss that cancel" in str(error)
    else:
        assert right.verdict == "right" or right.verdict == "UNDECIDED" and (large > 1e6 or "central" in method), right
        assert wrong.verdict == "WRONG" or right.verdict == wrong.verdict == "UNDECIDED", wrong


@pytest.mark.parametrize("method", ["central", "directional central"])
def test_what_central_differences_find_at_an_extremum_is_not_held_against_zero(method):
    """x^3 at 0, where they have h^2."""
    for gradient, verdict in ((0.0, "UNDECIDED"), (1e-6, "WRONG")):
        report = check_gradients(lambda p: (p["x"] ** 3).sum(), {"x": np.full(2, gradient)}, {"x": np.zeros(2)}, method)
        assert report.verdict == verdict, report


# --- messages ---

@pytest.mark.parametrize("forward, says", [
    (lambda x: np.logaddexp(x, 0.5), "np.logaddexp has no complex form: write logsumexp by hand, m + np.log("),
    (lambda x: np.arctan2(x, 2.0), "np.arctan2 has no complex form: write np.arctan(y / x)"),
    (lambda x: np.hypot(x, 2.0), "np.hypot has no complex form: write np.sqrt(a * a + b * b)"),
    (lambda x: x * np.floor(x), "np.floor has no complex form: np.floor(x.real) is enough"),
    (lambda x: np.cbrt(x), "np.cbrt has no complex form: write s * (s * x) ** (1 / 3)"),
    (lambda x: np.array([math.exp(v) for v in x.ravel().tolist()]), "math.exp has no complex form: np.exp has one"),
    (lambda x: np.multiply(x, x, out=np.zeros(x.shape)), "it writes into a float64 array: make that by np.zeros_like"),
    (lambda x: np.array([max(v, 0.0) for v in x.ravel().tolist()]), "not supported between instances of 'float' and")])
def test_a_function_without_complex_form_is_named(forward, says):
    def backward(dout, x):
        return {"x": np.zeros(x.shape)}
    with pytest.raises(TypeError) as caught:
        check_pair(forward, backward, {"x": X})
    assert says in str(caught.value) and "method='central'" in str(caught.value) and "\n" not in str(caught.value)
    assert check_pair(forward, backward, {"x": X}, method="central").verdict == "WRONG"


def test_an_error_of_the_loss_itself_is_left_as_it_is():
    def loss(p):
        raise KeyError("w")
    with pytest.raises(KeyError, match="w"):
        check_gradients(loss, {"x": X}, {"x": X})


def test_whole_numbers_go_into_constants():
    for index in (np.array([0, 2]), np.array([True] * 5)):
        with pytest.raises(TypeError, match=r"index must be float64, got \w+: .* `constants` .*constants=\['index'\]"):
            check_pair(lambda x, index: x[index], lambda dout, x, index: {}, {"x": X, "index": index})


# --- PyTorch and JAX ---

@pytest.mark.parametrize("constant", ["mean", None, 1, np.array([True])])
def test_constants_of_any_type(constant):
    assert check_pair(lambda x, how: 2 * x, lambda dout, x, how: {"x": 2 * dout}, {"x": X, "how": constant}, ["how"]).ok


def test_a_gradient_that_is_no_array():
    with pytest.raises(TypeError, match="the gradient of x must be an array, got list"):
        check_pair(lambda x: 2 * x, lambda dout, x: {"x": (2 * dout).tolist()}, {"x": X})


@pytest.fixture
def library(request):
    """PyTorch or JAX, or the test is skipped; what an import writes into the environment is taken back."""
    before = dict(os.environ)
    try:
        yield pytest.importorskip(request.param)
    finally:
        os.environ.clear()
        os.environ.update(before)


def wrong_at_1_2(slope):
    slope = slope.copy()
    slope[1, 2] *= 2
    return slope


@pytest.mark.parametrize("library", ["torch"], indirect=True)
def test_a_pytorch_function(library):
    """Found by its type, in each of its forms; a custom backward pass is checked as it stands."""
    torch = library
    t = torch.tensor(X)

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(ctx, dout):
            x, = ctx.saved_tensors
            return dout * torch.tensor(wrong_at_1_2(3 * x.numpy() ** 2))
    for form, inputs in ((Cube, {"x": X}), (Cube.apply, {"x": t})):
        report = check_pair(form, None, inputs)
        assert report.verdict == "WRONG" and report.worst.diagnosis == "only the entry [1, 2] is wrong", report
    assert check_pair(lambda x, k: torch.tanh(x)[k] * x[k], None, {"x": t, "k": torch.tensor([0, 3, 3])}, ["k"]).ok
    assert check_pair(torch.nn.Softmax(dim=1), None, {"input": X}, method="central").ok
    assert check_pair(lambda x: x * abs(x), lambda dout, x: {"x": 2 * dout * abs(x)}, {"x": t}).ok
    changed = check_pair(lambda x: x * 1, lambda dout, x: {"x": dout.mul_(1.0 + (x * 0))}, {"x": t})
    assert not changed.violations
    changed = check_pair(lambda x: x * 2, lambda dout, x: {"x": dout.mul_(2)}, {"x": t})
    assert changed.violations == ("dout, the upstream gradient, is changed by backward",)
    with pytest.raises(TypeError, match="clamp is not supported for complex types: take method='central'"):
        check_pair(torch.relu, None, {"input": t})
    assert check_pair(lambda x: torch.relu(x), None, {"x": t}, method="central").ok
    with pytest.raises(TypeError, match="x must be float64, got float32"):
        check_pair(torch.tanh, None, {"x": t.float()})
    with pytest.raises(TypeError, match="forward must return one array, got tuple"):
        check_pair(lambda x: (x, x), None, {"x": t})
    with pytest.raises(TypeError, match="float64 throughout"):
        check_pair(lambda x: torch.tanh(x.float()).double(), None, {"x": t}, method="central")


@pytest.mark.parametrize("library", ["jax"], indirect=True)
def test_a_jax_function(library):
    jax = library
    if not jax.config.jax_enable_x64:
        with pytest.raises(TypeError, match="JAX computes in float32, .*jax_enable_x64"):
            check_pair(jax.numpy.tanh, None, {"x": X})
    with jax.enable_x64(True):
        @jax.custom_vjp
        def product(x, w):
            return x * w
        product.defvjp(lambda x, w: (x * w, (x, w)), lambda kept, dout: (dout * kept[1], -dout * kept[0]))
        report = check_pair(product, None, {"x": X, "w": X ** 2})
        assert [tensor.diagnosis for tensor in report.tensors] == ["", "the sign is wrong"], report
        assert check_pair(jax.jit(lambda x: jax.nn.softmax(x)), None, {"x": X}).ok
        report = check_pair(lambda x: jax.numpy.linalg.norm(x, axis=1), None, {"x": jax.numpy.asarray(X)})
        assert report.ok and "not analytic in x" in str(report)
        assert check_pair(lambda x: x ** 2, lambda dout, x: {"x": 2 * dout * x}, {"x": jax.numpy.asarray(X)}).ok
        with pytest.raises(TypeError, match="forward must return one array, got tuple"):
            check_pair(lambda x: (x, x), None, {"x": jax.numpy.asarray(X)})


def test_neither_is_imported_unless_given():
    with pytest.raises(TypeError, match="backward is missing: None is for a PyTorch or JAX function alone"):
        check_pair(lambda x: x * 2, None, {"x": X})
    code = ("import sys, numpy as np; from npvae.gradcheck import check_pair\n"
            "print(check_pair(lambda x: x ** 2, lambda d, x: {'x': 2 * d * x}, {'x': np.ones(2)}).ok,"
            " {'torch', 'jax'} & set(sys.modules))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "True set()\n", result.stderr


def test_no_warning_of_a_lost_imaginary_part():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_pair(lambda x: fill(np.empty(x.shape), x), lambda dout, x: {"x": dout.copy()}, {"x": X}).ok
