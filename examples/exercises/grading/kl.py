"""Exercise 5: the KL as an average over draws; gradients by the complex step."""
import numpy as np

from .answers import Array, Arrays, Numbers, Student, agree, agree_on_gradients, log_normal, normal_average, pick

COUNTS = {"B": 4.0, "Z": 3.0}


def numbers(rng: np.random.Generator) -> Numbers:
    return {"PRIOR_MEAN": pick(rng, (-0.8, -0.4, 0.3, 0.6, 0.9)), "PRIOR_LOGVAR": pick(rng, (-0.6, -0.3, 0.4, 0.7))}


def _average(mu: Array, logvar: Array, mean: float, prior_logvar: float) -> Array:
    """E_q[log q(z) - log p(z)], summed over Z."""
    nodes, weights = normal_average()
    z = mu[..., None] + np.exp(logvar / 2)[..., None] * nodes
    ratio = log_normal(z, mu[..., None], np.exp(logvar)[..., None]) - log_normal(z, mean, np.exp(prior_logvar))
    found: Array = (ratio @ weights).sum(axis=1)
    return found


def _value(s: Student, rng: np.random.Generator, name: str, m: float, v: float) -> None:
    mu, logvar = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    d, ratio = (mu - m) * np.exp(-v / 2), logvar - v

    def total(terms: Array) -> Array:
        found: Array = 0.5 * terms.sum(axis=1)
        return found

    agree("KL", s.array(name, (4,), mu, logvar), _average(mu, logvar, m, v), COUNTS, slips={
        "the -1 is missing: a KL is zero where q equals p": total(d ** 2 + np.exp(ratio) - ratio),
        "the logarithm of the variance is missing": total(d ** 2 + np.expm1(ratio)),
        "the logarithm has the wrong sign": total(d ** 2 + np.expm1(ratio) + ratio),
        "logvar is taken for log sigma": total(d ** 2 + np.expm1(2 * ratio) - 2 * ratio),
        "the means are missing": total(np.expm1(ratio) - ratio),
        "the variance is missing": total(d ** 2 - 1 - ratio),
        "mu stands where its square should": total(d + np.expm1(ratio) - ratio),
        "the other direction, KL(p || q)":
            total((mu - m) ** 2 * np.exp(-logvar) + np.expm1(-ratio) + ratio),
        "this is the KL from Normal(0, 1)": total(mu ** 2 + np.expm1(logvar) - logvar)})


def _gradients(s: Student, rng: np.random.Generator, name: str, m: float, v: float) -> None:
    mu, logvar, dkl = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)

    def loss(p: Arrays) -> complex:
        ratio = p["logvar"] - v
        result: complex = (dkl * 0.5 * ((p["mu"] - m) ** 2 * np.exp(-v) + np.exp(ratio) - ratio).sum(axis=1)).sum()
        return result

    d, precision, ratio = dkl[:, None], np.exp(-v), np.exp(logvar - v)
    agree_on_gradients(
        s.arrays(name, {"dmu": (4, 3), "dlogvar": (4, 3)}, dkl, mu, logvar), loss, {"mu": mu, "logvar": logvar}, COUNTS,
        {"logvar": {"the gradient of -1/2 logvar": np.broadcast_to(-0.5 * d, (4, 3))}},
        {"mu": {"dkl is not used": (mu - m) * precision, "the precision of the prior is missing": d * (mu - m),
                "the mean of the prior is missing": d * mu * precision},
         "logvar": {"dkl is not used": 0.5 * (ratio - 1), "this is the gradient of sigma": d * (ratio - 1) / np.sqrt(
                        ratio), "the variance is missing": np.broadcast_to(-0.5 * d, (4, 3)),
                    "logvar stands where its exponential should": d * 0.5 * (logvar - v - 1),
                    "this is the gradient for the prior Normal(0, 1)": d * 0.5 * (np.exp(logvar) - 1)}})


def gaussian_kl(s: Student, rng: np.random.Generator) -> None:
    _value(s, rng, "gaussian_kl", 0.0, 0.0)


def gaussian_kl_backward(s: Student, rng: np.random.Generator) -> None:
    _gradients(s, rng, "gaussian_kl_backward", 0.0, 0.0)


def kl_to_prior(s: Student, rng: np.random.Generator) -> None:
    _value(s, rng, "kl_to_prior", s.number("PRIOR_MEAN"), s.number("PRIOR_LOGVAR"))


def kl_to_prior_backward(s: Student, rng: np.random.Generator) -> None:
    _gradients(s, rng, "kl_to_prior_backward", s.number("PRIOR_MEAN"), s.number("PRIOR_LOGVAR"))


def log_ratio(s: Student, rng: np.random.Generator) -> None:
    mu, logvar, eps = (rng.standard_normal((4, 3)) for _ in range(3))
    z = mu + np.exp(logvar / 2) * eps
    want = (log_normal(z, mu, np.exp(logvar)) - log_normal(z, 0, 1)).sum(axis=1)
    agree("log q - log p", s.array("log_ratio", (4,), z, eps, logvar), want, COUNTS, slips={
        "log q is without its eps^2": 0.5 * (z ** 2 - logvar).sum(axis=1),
        "log q is without its logarithm of sigma": 0.5 * (z ** 2 - eps ** 2).sum(axis=1),
        "log p is missing": 0.5 * (-eps ** 2 - logvar).sum(axis=1),
        "logvar is taken for log sigma": (0.5 * (z ** 2 - eps ** 2) - logvar).sum(axis=1),
        "this is log p - log q": -want})
