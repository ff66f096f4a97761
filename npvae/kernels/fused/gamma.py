"""The Gamma function, softplus and sigmoid of one number in double precision, for use inside kernels."""
import math

from ..reference.arrays import LOG_2PI
from ..reference.gamma import REST, SHIFT, STIRLING
from .compile import inlined
from .elementary import exp_unit, log1p_unit

# the two series of Stirling's formula, the last coefficient first, for Horner's rule
_SLOPE = STIRLING[::-1]
_REST = REST[::-1]


@inlined
def rest(z):
    total, inverse = 0.0, 1.0 / z
    for i in range(len(_REST)):
        total = total * inverse * inverse + _REST[i]
    return total * inverse


@inlined
def rest_slope(z):
    total, inverse = 0.0, 1.0 / z
    for i in range(len(_SLOPE)):
        total = (total + _SLOPE[i]) * inverse * inverse
    return -total


@inlined
def digamma_rest(z):
    return rest_slope(z) - 0.5 / z


@inlined
def poisson_peak(u):
    if u >= SHIFT:
        return 0.5 * (math.log(u) + LOG_2PI) + rest(u)
    if u == 0.0:
        return 0.0
    z, product = u + SHIFT, 1.0
    for j in range(1, SHIFT):
        product *= u + j
    return (z - 0.5) * math.log(z) - z + 0.5 * LOG_2PI + rest(z) - math.log(product) - u * math.log(u) + u


@inlined
def peak_slope(u):
    if u >= SHIFT:
        return rest_slope(u)
    z, steps = u + SHIFT, 0.0
    for j in range(1, SHIFT):
        steps += 1.0 / (u + j)
    return math.log(z / u) + digamma_rest(z) - steps - 0.5 / u


@inlined
def softplus(t):
    return (0.0 if t < 0.0 else t) + log1p_unit(exp_unit(t if t < 0.0 else -t))


@inlined
def sigmoid(t):
    e = exp_unit(t if t < 0.0 else -t)
    return (e if t < 0.0 else 1.0) / (1.0 + e)


@inlined
def bounded(a, most):
    return -most if a < -most else (most if a > most else a)
