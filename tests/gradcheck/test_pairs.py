"""check_pair: right layers pass, and each rule of its docstring, broken by a small layer, is reported."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae.gradcheck import check_pair
from npvae.testing import away_from, inputs, matrices, probabilities

METHODS = pytest.mark.parametrize("method", ["complex", "central"])
RNG = np.random.default_rng(0)
X, W, Y = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 5)), RNG.standard_normal((3, 4))


# --- right layers ---

def dense(x, W, b):
    return np.tanh(x @ W + b)


def dense_backward(dout, x, W, b):
    dpre = dout * (1 - dense(x, W, b) ** 2)
    return {"x": dpre @ W.T, "W": x.T @ dpre, "b": dpre.sum(axis=0)}


def softmax(x):
    e = np.exp(x - x.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dout, x):
    y = softmax(x)
    return {"x": y * (dout - (dout * y).sum(axis=-1, keepdims=True))}


def cross_entropy(logits, p):
    return np.log1p(np.exp(logits)) - p * logits


def cross_entropy_backward(dout, logits, p):
    return {"logits": dout * (1 / (1 + np.exp(-logits)) - p), "p": -dout * logits}


def relu(x):
    return np.where(x.real > 0, x, 0)


def relu_backward(dout, x):
    return {"x": dout * (x > 0)}


def bilinear(x, y):
    return np.einsum("bi,bj->bij", x, y)


def bilinear_backward(dout, x, y):
    return {"x": (dout * y[:, None]).sum(axis=2), "y": (dout * x[:, :, None]).sum(axis=1)}


def convolution(x, w):
    """y_t = sum_k w_k x_(t+k)"""
    return sum(w[k] * x[k:len(x) - len(w) + 1 + k] for k in range(len(w)))


def convolution_backward(dout, x, w):
    dx = np.zeros_like(x)
    for k in range(len(w)):
        dx[k:k + len(dout)] += w[k] * dout
    return {"x": dx, "w": np.array([np.dot(dout, x[k:k + len(dout)]) for k in range(len(w))])}


LAYERS = {
    "dense": (dense, dense_backward, inputs({"x": "BD", "W": "DH", "b": "H"})),
    "softmax": (softmax, softmax_backward, inputs({"x": "BD"}, least=3)),
    "cross entropy": (cross_entropy, cross_entropy_backward,
                      inputs({"logits": "BD", "p": "BD"}, draw={"p": probabilities})),
    "relu": (relu, relu_backward, inputs({"x": "BD"}, draw={"x": lambda shape: away_from([0], shape).filter(
        lambda x: (x > 0).any())})),
    "bilinear": (bilinear, bilinear_backward, inputs({"x": "BD", "y": "BH"}, most=5)),
    "scalar": (lambda x: x ** 3, lambda dout, x: {"x": 3 * dout * x * x}, st.fixed_dictionaries({"x": matrices(())})),
    "convolution": (convolution, convolution_backward,
                    st.fixed_dictionaries({"x": matrices((7,)), "w": matrices((3,))}))}


@pytest.mark.every(2)
@METHODS
@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data())
def test_right_layers_pass(name, method, data):
    forward, backward, drawn = LAYERS[name]
    report = check_pair(forward, backward, data.draw(drawn), method=method)
    assert report.ok and not report.vacuous, report
    assert "WRONG" not in str(report) and "BROKEN" not in str(report) and "looks like" not in str(report)
    assert all(tensor.kinks == 0 for tensor in report.tensors), report


def test_constants_are_passed_and_not_differentiated():
    """Indices, masks and noise: of any type, and without a gradient."""
    def forward(table, index, keep):
        return table[index] * keep

    def backward(dout, table, index, keep):
        dtable = np.zeros_like(table)
        np.add.at(dtable, index, dout * keep)
        return {"table": dtable}
    given_ = {"table": W, "index": np.array([0, 3, 3, 1, 0, 2]), "keep": RNG.random((6, 5)) < 0.7}
    report = check_pair(forward, backward, given_, constants=["index", "keep"])
    assert report.ok and [tensor.name for tensor in report.tensors] == ["table"], report
    report = check_pair(forward, lambda dout, table, index, keep: backward(dout, table, index, ~keep), given_,
                        constants=["index", "keep"])
    assert not report.ok and not report.violations


def test_numbers_given_as_a_list_are_copied():
    """What the caller holds is never handed to the layer."""
    seen = []

    def forward(x):
        seen.append(x)
        return 2 * x
    mine = X.copy()
    assert check_pair(forward, lambda dout, x: {"x": 2 * dout}, {"x": mine}).ok
    assert check_pair(forward, lambda dout, x: {"x": 2 * dout}, {"x": X.tolist()}).ok
    assert not any(np.shares_memory(x, mine) for x in seen) and np.array_equal(mine, X)


# --- each rule, broken once ---

class Layer:
    """y = x * w, right, and the slot in which a broken layer keeps what it should not."""

    def __init__(self):
        self.kept, self.calls = {}, 0

    def forward(self, x, w):
        return x * w

    def backward(self, dout, x, w):
        return {"x": dout * w, "w": dout * x}


class ForwardCounts(Layer):
    def forward(self, x, w):
        self.calls += 1
        return x * w + self.calls


class ForwardReusesItsResult(Layer):
    def forward(self, x, w):
        out = x * w
        if np.isrealobj(out):
            out = self.kept.setdefault("out", out)
            out[...] = x * w
        return out


class ForwardChangesAnInput(Layer):
    def forward(self, x, w):
        out = x * w
        if x.flags.writeable:
            x *= 2
        return out


class ForwardSignsAConstant(Layer):
    """A second call would find nothing left to change."""

    def forward(self, x, w):
        np.sign(w, out=w if w.flags.writeable else None)
        return x * np.sign(w)

    def backward(self, dout, x, w):
        return {"x": dout * np.sign(w)}


class BackwardAccumulates(Layer):
    def backward(self, dout, x, w):
        self.kept["w"] = self.kept.get("w", 0) + dout * x
        return {"x": dout * w, "w": self.kept["w"].copy()}


class BackwardDrawsAtRandom(Layer):
    """Dropout drawn anew: the first call happens to keep all."""

    def backward(self, dout, x, w):
        self.calls += 1
        keep = 1.0 if self.calls == 1 else np.random.default_rng(self.calls).random(dout.shape) < 0.5
        return {"x": dout * w * keep, "w": dout * x}


class BackwardChangesAnInput(Layer):
    def backward(self, dout, x, w):
        gradients = super().backward(dout, x, w)
        if x.flags.writeable:
            x[0] = 0
        return gradients


class BackwardChangesDout(Layer):
    def backward(self, dout, x, w):
        gradients = super().backward(dout, x, w)
        if dout.flags.writeable:
            dout *= w
        return gradients


class BackwardReturnsDout(Layer):
    def forward(self, x, w):
        return x + w

    def backward(self, dout, x, w):
        return {"x": dout[:, ::-1][:, ::-1], "w": dout.copy()}


class BackwardWritesIntoAnInput(Layer):
    def backward(self, dout, x, w):
        dw = dout * x
        return {"x": np.multiply(dout, w, out=w if w.flags.writeable else None), "w": dw}


class BackwardReusesItsResult(Layer):
    def backward(self, dout, x, w):
        dw = self.kept.setdefault("w", np.empty(x.shape))
        dw[...] = dout * x
        return {"x": dout * w, "w": dw}


class GradientsShareMemory(BackwardReturnsDout):
    def backward(self, dout, x, w):
        shared = dout.copy()
        return {"x": shared, "w": shared}


class NotZeroForZero(Layer):
    def backward(self, dout, x, w):
        gradients = super().backward(dout, x, w)
        norm = np.linalg.norm(dout[0])
        with np.errstate(invalid="ignore"):
            gradients["x"][0] *= norm / norm
        return gradients


class NotLinear(Layer):
    """A clip that the first upstream gradient does not reach."""

    def backward(self, dout, x, w):
        self.kept.setdefault("limit", 1.01 * np.abs(dout).max())
        dout = np.clip(dout, -self.kept["limit"], self.kept["limit"])
        return super().backward(dout, x, w)


class WritesThoughNothingChanges(Layer):
    def forward(self, x, w):
        if np.isrealobj(x):
            x += 0
        return x * w


class TakesMemoryOrder(Layer):
    def forward(self, x, w):
        return x.ravel(order="K").reshape(x.shape) * w


class ReadsTheBuffer(Layer):
    def backward(self, dout, x, w):
        if 2 * dout.itemsize in dout.strides:
            raise BufferError("not\ncontiguous")
        return super().backward(dout, x, w)


class LosesAnAxis(Layer):
    """Right numbers, another shape, where memory is laid out by columns."""

    def backward(self, dout, x, w):
        gradients = super().backward(dout, x, w)
        return gradients if x.flags.c_contiguous else {**gradients, "x": gradients["x"].T}


AGAIN = "backward run twice gives two results: does it add to what was there, or draw at random?"
FORTRAN = "Fortran-ordered inputs give another result"
ONLY = {      # the layer, and all that is reported of it
    ForwardReusesItsResult: ["the result of forward shares memory with that of the next call, which overwrites it"],
    ForwardChangesAnInput: ["x is changed by forward"],
    BackwardDrawsAtRandom: [AGAIN, "backward is not linear in the upstream gradient",
                            "read-only inputs give another result", FORTRAN, "strided inputs give another result"],
    BackwardChangesAnInput: ["x is changed by backward"],
    BackwardChangesDout: ["dout, the upstream gradient, is changed by backward"],
    BackwardReturnsDout: ["the gradient of x shares memory with dout, the upstream gradient,"],
    BackwardWritesIntoAnInput: ["w is changed by backward", "the gradient of x shares memory with w"],
    BackwardReusesItsResult: ["the gradient of w shares memory with that of the next call, which overwrites it"],
    GradientsShareMemory: ["the gradients of x and w share memory"],
    NotZeroForZero: ["backward of a zero upstream gradient is not zero"],
    NotLinear: ["backward is not linear in the upstream gradient"],
    WritesThoughNothingChanges: ["read-only inputs: ValueError: output array is read-only"],
    TakesMemoryOrder: [FORTRAN],
    ReadsTheBuffer: ["strided inputs: BufferError: not contiguous"],
    LosesAnAxis: [FORTRAN, "strided inputs give another result"],
    ForwardCounts: ["forward run twice gives two results", "read-only inputs give another result", FORTRAN,
                    "strided inputs give another result"],
    BackwardAccumulates: [AGAIN, "backward of a zero upstream gradient is not zero",
                          "backward is not linear in the upstream gradient", "read-only inputs give another result",
                          FORTRAN, "strided inputs give another result"]}


@pytest.mark.parametrize("broken", ONLY)
def test_a_broken_rule_is_reported(broken):
    """Each of these layers has the right derivative, so that the rule alone fails it."""
    layer = broken()
    report = check_pair(layer.forward, layer.backward, {"x": X, "w": Y})
    assert all(tensor.error <= report.tolerance for tensor in report.tensors), report
    assert list(report.violations) == ONLY[broken]
    assert report.ok == (not ONLY[broken])
    verdict = "UNDECIDED" if broken is ForwardCounts else "right"      # two results have no derivative
    for line in ONLY[broken]:
        assert f"\n* {line}" in str(report) and f"gradients {verdict}, rules BROKEN" in str(report)


@pytest.mark.parametrize("scale", [1e-100, 1e8])
def test_rules_do_not_depend_on_scale(scale):
    layer = NotLinear()
    report = check_pair(lambda x, w: scale * x * w, lambda dout, x, w: layer.backward(scale * dout, x, w),
                        {"x": X, "w": Y})
    assert report.violations == ("backward is not linear in the upstream gradient",)
    assert check_pair(lambda x, w: scale * x * w, lambda dout, x, w: Layer().backward(scale * dout, x, w),
                      {"x": X, "w": Y}).ok


def test_no_rule_is_broken_by_zero_or_by_nan():
    """A gradient of zero, and NaN in a constant, where it does no harm."""
    hollow = np.where(Y > 0, Y, np.nan)
    report = check_pair(lambda x, v, w: x * np.nan_to_num(w) + 0 * v,
                        lambda dout, x, v, w: {"x": dout * np.nan_to_num(w), "v": 0 * dout},
                        {"x": X, "v": Y, "w": hollow}, constants=["w"])
    assert report.ok and report.vacuous == ("v",), report


def test_a_constant_changed_is_reported():
    layer = ForwardSignsAConstant()
    report = check_pair(layer.forward, layer.backward, {"x": X, "w": Y}, constants=["w"])
    assert report.violations == ("w is changed by forward",), report


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("changed, off, says", [
    ("forward", 0.8e-10, ()), ("forward", 1.2e-10, (FORTRAN,)), ("backward", 0.8e-10, ()),
    ("backward", 1e-8, (FORTRAN,))])      # of a gradient, terms that cancel may leave more
def test_sums_in_another_order_may_differ_by_1e_10(off, says, changed, scale):
    """Of the largest number, at any scale."""
    def blurred(value, x, name):
        return value * (1 + off * (x.flags.f_contiguous and np.isrealobj(x) and name == changed))
    report = check_pair(lambda x: blurred(scale * x, x, "forward"),
                        lambda dout, x: {"x": blurred(scale * dout, x, "backward")}, {"x": X})
    assert report.violations == says and report.verdict == "right", report


def test_a_result_without_numbers_breaks_no_rule():
    report = check_pair(lambda x, index: x[index], lambda dout, x, index: {"x": 0 * x},
                        {"x": X, "index": np.array([], int)}, constants=["index"])
    assert report.ok and report.vacuous == ("x",), report
