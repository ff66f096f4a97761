"""Exercise 2: the complex step, with every node of the graph moved in turn."""
import numpy as np

from npvae.gradcheck import numerical_gradient

from .answers import Array, Arrays, Numbers, Student, Wrong, agree, agree_on_gradients, array, pick


def numbers(rng: np.random.Generator) -> Numbers:
    return {"A": pick(rng, (0.6, 0.7, 0.9, 1.1)), "B": pick(rng, (-1.3, -0.9, 0.7, 1.2)),
            "C": pick(rng, (-0.6, -0.2, 0.3, 0.5))}


def by_hand(s: Student, rng: np.random.Generator) -> None:
    a, b, c = s.number("A"), s.number("B"), s.number("C")
    found = s.ask("by_hand")
    names = ("u", "v", "L", "dv", "du", "dA", "dB", "dC")
    if not isinstance(found, dict) or set(found) != set(names):
        raise Wrong(f"by_hand should return a dict with the names {', '.join(names)}")
    got = {name: array(name, found[name], ()) for name in names}
    u = a * b
    v = np.tanh(u + c)
    for name, want in (("u", u), ("v", v), ("L", v * v + u)):
        agree(name, got[name], want, tolerance=1e-5)

    def loss(p: Arrays) -> complex:      # u and v are added to the nodes of their names
        node = p["A"] * p["B"] + p["u"]
        after = np.tanh(node + p["C"]) + p["v"]
        result: complex = np.asarray(after * after + node).item()
        return result

    want = numerical_gradient(loss, {name: np.array(value) for name, value in
                                     {"A": a, "B": b, "C": c, "u": 0.0, "v": 0.0}.items()})
    direct, through = np.array([1.0]), np.atleast_1d(want["C"])      # the two ways on from u
    for name in ("v", "C", "u", "A", "B"):
        factor = {"A": b, "B": a}.get(name)
        slips: dict[str, Array | float] = {} if factor is None else {
            "multiplied by the input itself": want["u"] * (a + b - factor),
            "the path by which L reads u itself is missing": (want["u"] - 1) * factor}
        if name == "u":
            slips = {"the path by which L reads u itself is missing": through, "the path through v is missing": direct}
        if name == "C":
            slips = {"the derivative of tanh is missing": want["v"], "the derivative of tanh has a square too few":
                     want["v"] * (1 - v), "u is not on this path": want["u"]}
        agree(f"d{name}", got[f"d{name}"], want[name], tolerance=1e-5, slips=slips)


def jacobian(s: Student, rng: np.random.Generator) -> None:
    for n, m in ((3, 3), (4, 2), (2, 5)):
        J = rng.standard_normal((n, m))
        agree("the Jacobian", s.array("jacobian", (n, m), lambda dy: J.T @ dy, n), J)


def softmax_backward(s: Student, rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal(5), rng.standard_normal(5)
    y = np.exp(x) / np.exp(x).sum()

    def loss(p: Arrays) -> complex:
        e = np.exp(p["x"])
        result: complex = (dy * e).sum() / e.sum()
        return result

    agree_on_gradients({"dx": s.array("softmax_backward", (5,), dy, x)}, loss, {"x": x}, slips={"x": {
        "as if the sum in the denominator did not depend on x": dy * y,
        "only the diagonal of the Jacobian: y_j depends on x_i for j other than i, too": dy * y * (1 - y),
        "the upstream gradient is not used": y * (1 - y),
        "the mean of dy, where each dy should count by its y": y * (dy - dy.mean()),
        "not multiplied by y": dy - (dy * y).sum()}})


def quadratic_backward(s: Student, rng: np.random.Generator) -> None:
    x, M, dy = rng.standard_normal(4), rng.standard_normal((4, 4)), 1.7

    def loss(p: Arrays) -> complex:
        result: complex = dy * np.asarray(p["x"] @ p["M"] @ p["x"]).item()
        return result

    left, right = dy * (M @ x), dy * (M.T @ x)
    paths: dict[str, Array] = {"the path through the left x": left, "the path through the right x": right}
    slips: dict[str, Array | float] = {
        "only the path through the left x": left, "only the path through the right x": right,
        "as if M were symmetric": 2 * left, "as if M were symmetric, and transposed": 2 * right,
        "the upstream gradient is not used": (left + right) / dy}
    agree_on_gradients(s.arrays("quadratic_backward", {"dx": (4,), "dM": (4, 4)}, dy, x, M), loss, {"x": x, "M": M},
                       parts={"x": paths}, slips={"x": slips, "M": {
                           "the upstream gradient is not used": np.outer(x, x),
                           "only the diagonal of M": dy * np.diag(x * x)}})
