"""Exercise 6: the reparameterization trick, and what it is better than.

mu, logvar (log sigma^2), eps and z are (B, Z), but where a docstring says otherwise.
"""
import numpy as np

# your numbers, for variances()
MU = 1.0
SIGMA = 0.5


def reparameterize(mu: np.ndarray, logvar: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """A draw z from Normal(mu, e^logvar), made of eps ~ Normal(0, 1)."""
    return mu + np.exp(logvar / 2) * eps


def reparameterize_backward(dz: np.ndarray, logvar: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dmu and dlogvar, by the path through z alone."""
    return dz, dz * eps * np.exp(logvar / 2) / 2


def score_estimates(f: np.ndarray, z: np.ndarray, mu: float, logvar: float) -> np.ndarray:
    """The score-function estimator of  d E[f(z)] / d mu,  one estimate for each of N draws.

    f (N,) are the values f(z) at the draws z (N,) from Normal(mu, e^logvar).  No derivative of f is needed.
    """
    return f * (z - mu) * np.exp(-logvar)


def variances() -> tuple[float, float]:
    """For f(z) = z^2 and z ~ Normal(MU, SIGMA^2): the exact variance of one score-function estimate of d E[f] / d MU,
    and that of one reparameterized estimate, f'(z).

    With z = MU + SIGMA eps both are polynomials in eps, and E[eps^2], E[eps^4], E[eps^6] are 1, 3, 15.
    """
    score = (MU ** 4 + 18 * MU ** 2 * SIGMA ** 2 + 15 * SIGMA ** 4) / SIGMA ** 2 - (2 * MU) ** 2
    return score, 4 * SIGMA ** 2


def exponential_draw(u: np.ndarray, rate: float) -> np.ndarray:
    """Draws from the density rate e^(-rate z), z > 0, made of u (N,), uniform on [0, 1)."""
    return -np.log1p(-u) / rate


def exponential_backward(dz: np.ndarray, u: np.ndarray, rate: float) -> float:
    """drate, a number, from dz (N,): all draws share the rate."""
    return float(-(dz * exponential_draw(u, rate)).sum() / rate)
