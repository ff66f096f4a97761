"""Exercise 9: checkers are checked: they must pass what is right, and refuse what is wrong."""
from collections.abc import Callable

import numpy as np

from .answers import Array, Numbers, Student, Wrong, agree, pick

Loss = Callable[[Array], complex]


def numbers(rng: np.random.Generator) -> Numbers:
    return {"RATIO": int(pick(rng, (3, 4, 5, 8)))}


def _loss(weights: Array, scale: float = 1.0) -> Loss:
    def loss(theta: Array) -> complex:
        total = np.sum(weights * np.exp(theta)) + np.sum(theta ** 3) * np.sum(theta)
        result: complex = scale * total if np.iscomplexobj(theta) else float(scale * total)
        return result
    return loss


def _gradient(weights: Array, theta: Array, scale: float = 1.0) -> Array:
    found: Array = scale * (weights * np.exp(theta) + 3 * theta ** 2 * np.sum(theta) + np.sum(theta ** 3))
    return found


def _differences(f: Loss, theta: Array, h: float) -> tuple[Array, Array]:
    """The central and the forward difference."""
    central, forward = np.empty(theta.shape), np.empty(theta.shape)
    for index in np.ndindex(theta.shape):
        up, down = theta.copy(), theta.copy()
        up[index] += h
        down[index] -= h
        central[index] = (f(up) - f(down)).real / (2 * h)
        forward[index] = (f(up) - f(theta)).real / h
    return central, forward


def _draw(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((2, 3)), rng.standard_normal((2, 3))


def central_difference(s: Student, rng: np.random.Generator) -> None:
    weights, theta = _draw(rng)
    f = _loss(weights)
    for h in (0.1, 0.02):
        central, forward = _differences(f, theta, h)
        agree("the gradient", s.array("central_difference", theta.shape, f, theta, h), central, {"1/h": 1 / h}, slips={
            "a difference on one side only": forward, "a difference on one side only, divided by 2 h": forward / 2,
            "all entries are moved at once": (f(theta + h) - f(theta - h)).real / (2 * h)}, tolerance=1e-8)


def two_step_sizes(s: Student, rng: np.random.Generator) -> None:
    weights, theta = _draw(rng)
    f, R, h = _loss(weights), s.number("RATIO"), 0.05
    near, far = _differences(f, theta, h)[0], _differences(f, theta, R * h)[0]
    want = (R * R * near - far) / (R * R - 1)
    agree("the gradient", s.array("two_step_sizes", theta.shape, f, theta, h), want, slips={
        "the error in h^2 is still there: the central difference with step h": near,
        "the central difference with step RATIO h": far, "the mean of the two": (near + far) / 2,
        "the weights are for an error in h, not in h^2": (R * near - far) / (R - 1),
        "the weights are exchanged": (R * R * far - near) / (R * R - 1),
        "the weights do not sum to one": R * R * near - far,
        "the weights are those of RATIO = 2": (4 * near - far) / 3}, tolerance=1e-8)


def complex_step(s: Student, rng: np.random.Generator) -> None:
    weights, theta = _draw(rng)
    f, want = _loss(weights), _gradient(weights, theta)
    got = s.array("complex_step", theta.shape, f, theta)
    error = float(np.max(np.abs(got - want)) / np.sqrt(np.mean(want ** 2)))
    if 1e-13 < error < 1e-3:
        raise Wrong(f"right to {error:.0e} only: a difference is taken somewhere, or the step is too large")
    agree("the gradient", got, want, slips={"all entries are moved at once": np.full(theta.shape, want.sum()),
                                            "the real part, not the imaginary": f(theta).real / 1e-30,
                                            "not divided by the step": want * 1e-30}, tolerance=1e-13)


def relative_error(s: Student, rng: np.random.Generator) -> None:
    numeric = np.array([3.0, -4.0, 1e-9, 0.5])
    analytic = numeric + np.array([0.3, 0.0, 0.01, -0.02])
    for scale in (1.0, 1e-7):
        a, n = scale * analytic, scale * numeric
        d, rms = np.abs(a - n), np.sqrt(np.mean(n ** 2))
        agree(f"the error of numbers of some {scale:g}", s.array("relative_error", (4,), a, n),
              d / np.maximum(np.abs(n), rms), slips={
                  "this is the absolute error": d, "relative to the numeric entry alone: a tiny one has no digits":
                  d / np.abs(n), "relative to the root mean square alone": d / rms,
                  "the sign of the error is kept": (a - n) / np.maximum(np.abs(n), rms),
                  "relative to the largest entry": d / np.max(np.abs(n)),
                  "relative to the smaller of the two": d / np.minimum(np.abs(n), rms),
                  "relative to the sum of the two": d / (np.abs(n) + rms)})


def gradient_is_right(s: Student, rng: np.random.Generator) -> None:
    for scale in (1.0, 1e-8, 1e6):
        weights, theta = _draw(rng)
        right, under = _gradient(weights, theta, scale), f" of a loss multiplied by {scale:g}" if scale != 1 else ""
        one, small = right.copy(), right.copy()
        one[1, 2] = 0
        small[np.unravel_index(np.argmax(np.abs(right)), right.shape)] *= 1 + 1e-5
        wrong = {"": right, "with the wrong sign": -right, "that is zero": 0 * right, "twice too large": 2 * right,
                 "with one entry zero": one, "in reverse order": right[::-1], "with NaN in it": right * np.nan,
                 "of which one entry is off by 1e-5 of itself": small}
        for how, gradient in wrong.items():
            said = s.ask("gradient_is_right", _loss(weights, scale), gradient, theta)
            if not isinstance(said, (bool, np.bool_)):
                raise Wrong(f"gradient_is_right returns a {type(said).__name__}, should be True or False")
            if bool(said) == bool(how):
                raise Wrong(f"it says {said} to a gradient {how}{under}" if how else
                            f"it says {said} to the right gradient{under}")


def sampler_is_honest(s: Student, rng: np.random.Generator) -> None:
    mu, logvar = np.array([0.5, -1.0]), np.array([0.8, -1.2])
    sigma = np.exp(logvar / 2)

    def sampler(noise: Callable[[int], Array]) -> Callable[[int], Array]:
        def draw(n: int) -> Array:
            if not 0 < n <= 1_000_000:
                raise ValueError(f"{n} draws: ask for 1 to 1,000,000")
            found: Array = mu + sigma * noise(n)
            return found
        return draw

    def normal(n: int) -> Array:
        return rng.standard_normal((n, 2))

    kinds: list[tuple[str, Callable[[int], Array]]] = [("an honest sampler", normal)] * 5 + [
        ("one that takes exp(logvar) for sigma", lambda n: sigma * normal(n)),
        ("one whose noise is scaled by 0.01", lambda n: 0.01 * normal(n)),
        ("one that returns mu", lambda n: np.zeros((n, 2))),
        ("one whose noise is uniform on [0, 1)", lambda n: rng.random((n, 2))),
        ("one whose first dimension is off by 0.2 sigma", lambda n: normal(n) + [0.2, 0]),
        ("one whose second variance is 20 % too large", lambda n: normal(n) * [1, 1.2 ** 0.5])]
    for kind, noise in kinds:
        said = s.ask("sampler_is_honest", sampler(noise), mu, logvar)
        if not isinstance(said, (bool, np.bool_)):
            raise Wrong(f"sampler_is_honest returns a {type(said).__name__}, should be True or False")
        if bool(said) != (noise is normal):
            raise Wrong(f"it says {said} to {kind}")
