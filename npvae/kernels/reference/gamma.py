"""The Gamma function where its digits count: Stirling's formula and what is left of it.  Read before `levels.py`.

    log Gamma(z) = (z - 1/2) log z - z + 1/2 log(2 pi) + R(z),      psi(z) = d/dz log Gamma(z) = log z - 1/(2 z) + R'(z)

A difference of two log Gamma loses the digits of a small result, and so does log Gamma(z + 1) - z log z + z for a large
z.  Written with R, a sum of inverse powers of z, neither has a difference of large numbers.
"""
import numpy as np

from .arrays import LOG_2PI, Array

#: B_2k / (2k), k = 1, 2, ..., with the Bernoulli numbers B_2k, and B_2k / (2k (2k - 1)): the coefficients of Stirling's
#: series for psi and for log Gamma, accurate to 1e-16 from SHIFT on
STIRLING = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)
REST = tuple(c / (2 * k - 1) for k, c in enumerate(STIRLING, 1))
SHIFT = 8


def rest(z: Array) -> Array:
    """R(z), the remainder of Stirling's formula:  log Gamma(z) = (z - 1/2) log z - z + const + R(z)."""
    value: Array = np.polyval(REST[::-1], 1 / (z * z)) / z
    return value


def rest_slope(z: Array) -> Array:
    """R'(z)."""
    slope: Array = -np.polyval((*STIRLING[::-1], 0), 1 / (z * z))
    return slope


def digamma_rest(z: Array) -> Array:
    """R'(z) - 1/(2 z), the remainder of its derivative:  psi(z) = log z + R'(z) - 1/(2 z)."""
    return rest_slope(z) - 0.5 / z


def poisson_peak(u: Array) -> Array:
    """g(u) = log Gamma(u + 1) - u log u + u,  u >= 0:  -log of the Poisson probability of u events where u are expected
    (D16.1).

        g(u) = 1/2 log(2 pi u) + R(u)            from u = 8 on
        g(u) = (z - 1/2) log z - z + 1/2 log(2 pi) + R(z) - log [(u + 1) ... (u + 7)] - u log u + u    else,  z = u + 8
    """
    small = u.real < SHIFT
    z, positive = np.where(small, u + SHIFT, u), np.where(u == 0, 1, u)
    far = 0.5 * (np.log(z) + LOG_2PI) + rest(z)
    product = np.prod(u[..., None] + np.arange(1, SHIFT), axis=-1)
    near = (z - 1) * np.log(z) - z + far - np.log(np.where(small, product, 1)) - u * np.log(positive) + u
    return np.where(u == 0, 0 * u, np.where(small, near, far))


def peak_slope(u: Array) -> Array:
    """g'(u) - 1/(2 u) = psi(u) - log u + 1/(2 u),  u > 0:  R'(u) from u = 8 on, else by  psi(u) = psi(u + 8) - sum_{j <
    8} 1/(u + j).
    """
    small = u.real < SHIFT
    z = np.where(small, u + SHIFT, u)
    steps = np.sum(1 / (np.where(small, u, 1)[..., None] + np.arange(1, SHIFT)), axis=-1)
    near = np.log(z / u) + digamma_rest(z) - steps - 0.5 / u
    return np.where(small, near, rest_slope(z))
