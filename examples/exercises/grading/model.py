"""Exercise 1: everything by quadrature over z."""
import numpy as np

from .answers import Array, Numbers, Student, agree, log_normal, normal_average, pick


def numbers(rng: np.random.Generator) -> Numbers:
    return {"WEIGHT": pick(rng, (0.7, 0.9, 1.2, 1.6, 1.8)), "BIAS": pick(rng, (-0.7, -0.3, 0.2, 0.4, 0.8)),
            "SIGMA": pick(rng, (0.4, 0.5, 0.7, 0.8))}


def _numbers(s: Student) -> tuple[float, float, float]:
    return s.number("WEIGHT"), s.number("BIAS"), s.number("SIGMA")


def _data(s: Student, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    return rng.normal(0, 2, 7), rng.normal(0, 1, 7), rng.normal(-1, 0.5, 7)


def _on_a_grid(s: Student, x: Array) -> tuple[Array, Array, Array]:
    """z (M,), p(z|x) dz (N, M) and log p(x) (N,)."""
    w, b, sigma = _numbers(s)
    z = np.linspace(-14, 14, 6001)
    joint = np.exp(log_normal(z, 0, 1) + log_normal(x[:, None], w * z + b, sigma ** 2)) * (z[1] - z[0])
    total = joint.sum(axis=1, keepdims=True)
    return z, joint / total, np.log(total[:, 0])


def _elbo(s: Student, x: Array, mu: Array, logvar: Array) -> tuple[Array, Array]:
    """The ELBO and its KL term, as averages over draws of q."""
    w, b, sigma = _numbers(s)
    nodes, weights = normal_average()
    z = mu[:, None] + np.exp(logvar / 2)[:, None] * nodes
    ratio = log_normal(z, mu[:, None], np.exp(logvar)[:, None]) - log_normal(z, 0, 1)
    kl = ratio @ weights
    return log_normal(x[:, None], w * z + b, sigma ** 2) @ weights - kl, kl


def log_marginal(s: Student, rng: np.random.Generator) -> None:
    (w, b, sigma), x = _numbers(s), _data(s, rng)[0]
    agree("log p(x)", s.array("log_marginal", x.shape, x), _on_a_grid(s, x)[2], slips={
        "as if z did not vary: its share of the variance of x is missing": log_normal(x, b, sigma ** 2),
        "the noise's share of the variance of x is missing": log_normal(x, b, w ** 2),
        "deviations were added, not variances": log_normal(x, b, (abs(w) + sigma) ** 2),
        "a deviation stands where a variance should": log_normal(x, b, np.sqrt(w ** 2 + sigma ** 2)),
        "the mean of x is another": log_normal(x, 0, w ** 2 + sigma ** 2)})


def posterior(s: Student, rng: np.random.Generator) -> None:
    (w, b, sigma), x = _numbers(s), _data(s, rng)[0]
    z, mass, _ = _on_a_grid(s, x)
    mean = mass @ z
    variance = mass @ z ** 2 - mean ** 2
    got = s.arrays("posterior", {"mean": x.shape, "variance": x.shape}, x)
    agree("variance", got["variance"], variance, tolerance=1e-8, slips={
        "as if the prior were flat: what it adds to the precision is missing": sigma ** 2 / w ** 2,
        "this is the precision": 1 / variance, "this is the deviation": np.sqrt(variance),
        "this is the variance of the prior": 1.0})
    agree("mean", got["mean"], mean, tolerance=1e-8, slips={
        "as if the prior were flat": (x - b) / w, "the bias is missing": mean + w * b / sigma ** 2 * variance,
        "not multiplied by the variance of the posterior": mean / variance})


def elbo(s: Student, rng: np.random.Generator) -> None:
    x, mu, logvar = _data(s, rng)
    w, _, sigma = _numbers(s)
    want, kl = _elbo(s, x, mu, logvar)
    spread = w ** 2 * np.exp(logvar) / sigma ** 2 / 2
    agree("ELBO", s.array("elbo", x.shape, x, mu, logvar), want, parts={
        "minus the KL term": -kl, "the share of the spread of z in E[log p(x|z)]": -spread}, slips={
        "the KL term is added, not subtracted": want + 2 * kl,
        "log p(x|z) at z = mu is not its mean under q, and a KL term is missing": want + kl + spread})


def gap(s: Student, rng: np.random.Generator) -> None:
    x, mu, logvar = _data(s, rng)
    z, mass, log_p = _on_a_grid(s, x)
    mean = mass @ z
    variance, v = mass @ z ** 2 - mean ** 2, np.exp(logvar)
    agree("gap", s.array("gap", x.shape, x, mu, logvar), log_p - _elbo(s, x, mu, logvar)[0], tolerance=1e-8, slips={
        "the other direction, KL(p(z|x) || q(z|x))":
            0.5 * ((mu - mean) ** 2 / v + variance / v - 1 - np.log(variance / v)),
        "from the prior, not from the posterior": 0.5 * (mu ** 2 + v - 1 - logvar),
        "the share of the means is missing": 0.5 * (v / variance - 1 - np.log(v / variance)),
        "the share of the variances is missing": 0.5 * (mu - mean) ** 2 / variance})
