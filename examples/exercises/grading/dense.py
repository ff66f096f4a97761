"""Exercise 3: the complex step, first where all sizes agree and a transposed matrix fits, then where none do."""
import numpy as np

from .answers import Array, Arrays, Numbers, Student, Wrong, agree, agree_on_gradients, pick

SIZES = ((3, 3, 3), (5, 4, 3))


def numbers(rng: np.random.Generator) -> Numbers:
    return {"SLOPE": pick(rng, (0.05, 0.15, 0.2, 0.25, 0.3))}


def dense(s: Student, rng: np.random.Generator) -> None:
    for B, n, m in SIZES:
        x, W, b = rng.standard_normal((B, n)), rng.standard_normal((n, m)), rng.standard_normal(m)
        slips: dict[str, Array | float] = {"the bias is missing": x @ W}
        if n == m:
            slips |= {"W is transposed": x @ W.T + b, "the bias is added along the wrong axis": x @ W + b[:, None],
                      "the product is elementwise": x * W + b}
        want = np.array([[sum(x[i, k] * W[k, j] for k in range(n)) + b[j] for j in range(m)] for i in range(B)])
        agree("y", s.array("dense", (B, m), x, W, b), want, slips=slips)


def dense_backward(s: Student, rng: np.random.Generator) -> None:
    for B, n, m in SIZES:
        x, W, dy = rng.standard_normal((B, n)), rng.standard_normal((n, m)), rng.standard_normal((B, m))
        inputs = {"x": x, "W": W, "b": np.zeros(m)}

        def loss(p: Arrays) -> complex:
            result: complex = (dy * (p["x"] @ p["W"] + p["b"])).sum()
            return result

        got = s.arrays("dense_backward", {"dx": x.shape, "dW": W.shape, "db": (m,)}, dy, x, W)
        square: dict[str, Array | float] = {
            "right for W transposed: a transpose is missing, or one too many": dy @ W} if n == m else {}
        parts = {"x": {"the upstream gradient": dy}} if n == m else {}
        agree_on_gradients(got, loss, inputs, {"B": B * 1.0}, parts, {"x": square})


def relu(s: Student, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 6))
    agree("y", s.array("relu", a.shape, a), np.array([[max(t, 0) for t in row] for row in a]), slips={
        "|a|": np.abs(a), "min(a, 0)": np.minimum(a, 0), "this is the derivative": a > 0, "no nonlinearity": a})
    found = s.ask("relu", a.astype(np.float32))
    if not (isinstance(found, np.ndarray) and found.dtype == np.float32):
        raise Wrong(f"for an array in float32, relu returns {getattr(found, 'dtype', type(found).__name__)}")


def _elementwise(s: Student, name: str, y: Array, slope: Array, dy: Array,
                 slips: dict[str, Array | float]) -> None:
    agree("da", s.array(name, y.shape, dy, y), dy * slope, parts={"the upstream gradient": dy}, slips={
        "the upstream gradient is not used": slope, **slips})


def relu_backward(s: Student, rng: np.random.Generator) -> None:
    a, dy = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    _elementwise(s, "relu_backward", np.maximum(a, 0), a > 0, dy, {
        "the mask is taken from the gradient, not from the output": dy * (dy > 0),
        "multiplied by the output, not by its slope": dy * np.maximum(a, 0)})


def leaky_relu_backward(s: Student, rng: np.random.Generator) -> None:
    a, dy, slope = rng.standard_normal((4, 6)), rng.standard_normal((4, 6)), s.number("SLOPE")
    _elementwise(s, "leaky_relu_backward", np.where(a > 0, a, slope * a), np.where(a > 0, 1, slope), dy, {
        "no leak on the way back: this is ReLU's": dy * (a > 0),
        "the two sides are exchanged": dy * np.where(a > 0, slope, 1),
        "the mask is taken from the gradient, not from the output": np.where(dy > 0, dy, slope * dy)})


def tanh_backward(s: Student, rng: np.random.Generator) -> None:
    a, dy = rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    y = np.tanh(a)
    slope = (np.tanh(a + 1e-30j).imag / 1e-30)
    _elementwise(s, "tanh_backward", y, slope, dy, {
        "1 - y: a square is missing": dy * (1 - y),
        "tanh is applied to its output: y is tanh(a) already": dy * (1 - np.tanh(y) ** 2),
        "1 + y^2: a sign": dy * (1 + y * y)})


def tied_backward(s: Student, rng: np.random.Generator) -> None:
    for B, n, m in ((4, 5, 3), (3, 3, 3)):
        x, W, dy = rng.standard_normal((B, n)), rng.standard_normal((n, m)), rng.standard_normal((B, n))

        def loss(p: Arrays) -> complex:
            result: complex = (dy * (np.tanh(p["x"] @ p["W"]) @ p["W"].T)).sum()
            return result

        h = np.tanh(x @ W)
        dpre = (dy @ W) * (1 - h * h)
        agree_on_gradients(
            s.arrays("tied_backward", {"dx": x.shape, "dW": W.shape}, dy, x, W), loss, {"x": x, "W": W}, {"B": B * 1.0},
            {"W": {"the path through the encoder": x.T @ dpre, "the path through the decoder": dy.T @ h}},
            {"W": {"only the path through the encoder": x.T @ dpre, "only the path through the decoder": dy.T @ h,
                   "the derivative of tanh is missing": dy.T @ h + x.T @ (dy @ W)},
             "x": {"the derivative of tanh is missing": dy @ W @ W.T}})
