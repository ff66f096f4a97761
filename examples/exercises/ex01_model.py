"""Exercise 1: a model with a latent variable, and its bound.

    z ~ Normal(0, 1)        x | z ~ Normal(WEIGHT z + BIAS, SIGMA^2)        q(z|x) = Normal(mu, e^logvar)

One number x for each data point, one number z behind it: here log p(x), the posterior and the gap of the ELBO have
closed forms.  x, mu and logvar are arrays (N,), an entry for each data point, and so is every answer.
"""
import numpy as np

# your numbers
WEIGHT = 1.5
BIAS = -0.5
SIGMA = 0.6


def log_normal(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Given: log of the density of Normal(mean, variance) at x."""
    return -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def log_marginal(x: np.ndarray) -> np.ndarray:
    """log p(x), with z integrated out.  x is a sum of independent normal variables."""
    raise NotImplementedError("log_marginal, D7.1")


def posterior(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of p(z|x), a normal distribution."""
    raise NotImplementedError("posterior, D7.1")


def elbo(x: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """E_q[log p(x|z)] - KL(q(z|x) || p(z)), both terms in closed form."""
    raise NotImplementedError("elbo, D7.1")


def gap(x: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """What the ELBO is short of log p(x): KL(q(z|x) || p(z|x)), without the two functions above it."""
    raise NotImplementedError("gap, D7.1")
