"""Exercise 4: densities sum to one; gradients by the complex step."""
import itertools

import numpy as np

from .answers import Array, Arrays, Numbers, Student, Wrong, agree, agree_on_gradients, log_normal, pick

LOG_2PI = float(np.log(2 * np.pi))


def numbers(rng: np.random.Generator) -> Numbers:
    return {"MEAN_PIXEL": pick(rng, (0.1, 0.15, 0.2, 0.25, 0.35, 0.4))}


def softplus(s: Student, rng: np.random.Generator) -> None:
    t = rng.normal(0, 3, 8)
    agree("softplus", s.array("softplus", t.shape, t), np.log(1 + np.exp(t)), slips={
        "this is its derivative, the sigmoid": 1 / (1 + np.exp(-t)), "softplus(-t)": np.log(1 + np.exp(-t)),
        "the 1 is missing: log(e^t) is t": t})
    for value, want in ((1000.0, 1000.0), (-1000.0, 0.0), (-40.0, np.exp(-40.0))):
        found = s.ask("softplus", np.array([value]))
        if not (isinstance(found, np.ndarray) and found.shape == (1,) and np.isfinite(found).all()):
            raise Wrong(f"at t = {value:g} it gives {found}: e^t overflows")
        if abs(found[0] - want) > 1e-9 * want:
            raise Wrong(f"at t = {value:g} it gives {found[0]:.6g}: the digits of e^t are lost when 1 is added to it")


def _sums(nll: Array, volume: float) -> str:
    mass = float(np.exp(-np.clip(nll, -50, None)).sum() * volume)
    return "" if abs(mass - 1) < 1e-6 else f"; and p(x|z) = e^-nll, over all images x, sums to {mass:.3g}, not to 1"


def bernoulli_nll(s: Student, rng: np.random.Generator) -> None:
    logits, x = rng.standard_normal((5, 4)), rng.integers(0, 2, (5, 4)) * 1.0
    p = 1 / (1 + np.exp(-logits))
    want = -np.where(x > 0.5, np.log(p), np.log(1 - p)).sum(axis=1)
    got = s.array("bernoulli_nll", (5,), logits, x)
    images = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    mass = s.array("bernoulli_nll", (16,), np.tile(logits[:1], (16, 1)), images)
    try:
        agree("nll", got, want, {"B": 5.0, "D": 4.0}, slips={
            "black and white are exchanged": -np.where(x > 0.5, np.log(1 - p), np.log(p)).sum(axis=1),
            "the term of the black pixels, (1 - x) log(1 - p), is missing": -(x * np.log(p)).sum(axis=1),
            "the term of the white pixels, x log p, is missing": -((1 - x) * np.log(1 - p)).sum(axis=1)})
    except Wrong as wrong:
        raise Wrong(f"{wrong}{_sums(mass, 1)}") from None
    extreme = s.array("bernoulli_nll", (1,), np.array([[1000.0, -1000.0]]), np.array([[0.0, 0.0]]))
    agree("nll at logits of 1000 and -1000", extreme, 1000.0)


def bernoulli_nll_backward(s: Student, rng: np.random.Generator) -> None:
    logits, x, dnll = rng.standard_normal((5, 4)), rng.random((5, 4)), rng.standard_normal(5)

    def loss(q: Arrays) -> complex:
        p = 1 / (1 + np.exp(-q["logits"]))
        result: complex = -(dnll[:, None] * (x * np.log(p) + (1 - x) * np.log(1 - p))).sum()
        return result

    p, d = 1 / (1 + np.exp(-logits)), dnll[:, None]
    agree_on_gradients({"dlogits": s.array("bernoulli_nll_backward", (5, 4), dnll, logits, x)}, loss,
                       {"logits": logits}, {"B": 5.0, "D": 4.0}, slips={"logits": {
                           "the gradient of the term of the black pixels, (1 - x) log(1 - p), is missing":
                               -d * x * (1 - p),
                           "dnll is not used": p - x, "x is missing": d * p, "logits stand where p should":
                               d * (logits - x),
                           "multiplied by p (1 - p): that is the way to the logits from dp, and it is taken already":
                               d * (p - x) * p * (1 - p),
                           "this is dp: the way from p to the logits is missing": d * (p - x) / (p * (1 - p))}})
    extreme = s.array("bernoulli_nll_backward", (1, 2), np.ones(1), np.array([[1000.0, -1000.0]]), np.zeros((1, 2)))
    agree("dlogits at logits of 1000 and -1000", extreme, np.array([[1.0, 0.0]]))


def gaussian_nll(s: Student, rng: np.random.Generator) -> None:
    mean, x, logvar = rng.standard_normal((5, 4)), rng.standard_normal((5, 4)), -0.7
    square, line = ((mean - x) ** 2).sum(axis=1), np.linspace(-20, 20, 4001)[:, None]
    got = s.array("gaussian_nll", (5,), mean, x, logvar)
    mass = s.array("gaussian_nll", (4001,), np.full(line.shape, 0.3), line, logvar)
    norm = 4 * (logvar + LOG_2PI)
    try:
        agree("nll", got, -log_normal(x, mean, np.exp(logvar)).sum(axis=1), {"B": 5.0, "D": 4.0}, slips={
            "log 2 pi is missing": 0.5 * (square * np.exp(-logvar) + 4 * logvar),
            "logvar is taken for log sigma": 0.5 * (square * np.exp(-2 * logvar) + 4 * (2 * logvar + LOG_2PI)),
            "the 1/2 of the squared error is missing": square * np.exp(-logvar) + 0.5 * norm,
            "the 1/2 of the normaliser is missing": 0.5 * square * np.exp(-logvar) + norm,
            "the normaliser is missing: it depends on logvar": 0.5 * square * np.exp(-logvar),
            "the normaliser counts once, and there are D pixels": 0.5 * (square * np.exp(-logvar) + norm / 4),
            "multiplied by the variance, not divided by it": 0.5 * (square * np.exp(logvar) + norm)})
    except Wrong as wrong:
        raise Wrong(f"{wrong}{_sums(mass, 0.01)}") from None


def gaussian_nll_backward(s: Student, rng: np.random.Generator) -> None:
    mean, x, dnll, logvar = rng.standard_normal((5, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5), -0.7

    def loss(p: Arrays) -> complex:
        square = ((p["mean"] - x) ** 2).sum(axis=1)
        result: complex = (dnll * 0.5 * (square * np.exp(-p["logvar"]) + 4 * p["logvar"])).sum()
        return result

    square, r = ((mean - x) ** 2).sum(axis=1), mean - x
    error, size = float((dnll * square).sum() * np.exp(-logvar)), 4 * float(dnll.sum())
    agree_on_gradients(
        s.arrays("gaussian_nll_backward", {"dmean": (5, 4), "dlogvar": ()}, dnll, mean, x, logvar), loss,
        {"mean": mean, "logvar": np.array(logvar)}, {"B": 5.0, "D": 4.0}, slips={
            "mean": {"the precision is missing": dnll[:, None] * r, "dnll is not used": r * np.exp(-logvar),
                     "multiplied by the variance, not divided by it": dnll[:, None] * r * np.exp(logvar),
                     "divided by sigma, not by its square": dnll[:, None] * r * np.exp(-logvar / 2)},
            "logvar": {"1/4 for the 1/2 in front of D": 0.25 * size - 0.5 * error,
                       "the term of the squared error is missing": 0.5 * size,
                       "the term of the normaliser, D, is missing": -0.5 * error,
                       "this is d sigma: logvar is log sigma^2": size - error,
                       "the normaliser counts once, and there are D pixels": 0.5 * (size / 4 - error),
                       "dnll is not used": 0.5 * (20 - float(square.sum() * np.exp(-logvar)))}})


def best_logit(s: Student, rng: np.random.Generator) -> None:
    m = s.number("MEAN_PIXEL")
    logits = np.linspace(-8, 8, 1600001)
    cost = np.log1p(np.exp(logits)) - m * logits
    best = int(np.argmin(cost))
    got = s.arrays("best_logit", {"the logit": (), "the nll": ()})
    agree("the logit", got["the logit"], logits[best], tolerance=1e-4, slips={
        "this is the probability": m, "of black pixels": -logits[best], "log m": np.log(m),
        "the odds: their logarithm is missing": m / (1 - m)})
    agree("the nll", got["the nll"], cost[best], tolerance=1e-6, slips={
        "the share of the black pixels is missing": -m * np.log(m), "in bits, not in nats": cost[best] / np.log(2),
        "the share of the white pixels is missing": -(1 - m) * np.log(1 - m)})
