"""Pixels with 256 grey levels, fused."""
import math

import numpy as np

from ..reference.levels import HALF, LEVELS, LOG_CHOOSE, LOG_SCALE_FLOOR, SHIFT, STIRLING
from .compile import inlined, jit
from .elementary import exp, expm1, log, log1p_unit

_SLOPE = STIRLING[::-1]      # of Stirling's two series, the last coefficient first
_REST = tuple(c / (2 * k - 1) for k, c in enumerate(STIRLING, 1))[::-1]


@jit
def discretized_logistic_nll_forward(nll, output, x):
    zero, one, half = nll.dtype.type(0), nll.dtype.type(1), nll.dtype.type(HALF)
    floor, top = nll.dtype.type(LOG_SCALE_FLOOR), nll.dtype.type(math.exp(-LOG_SCALE_FLOOR))
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            location, r = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            total = zero
            for d in range(x.shape[1]):
                t = r[d] - floor
                e = exp(t if t < zero else -t)
                rate = top * (one if t < zero else e) / (one + e)      # exp(-softplus(t)) = 1 / (1 + exp(t))
                upper, lower = (x[b, d] + half - location[d]) * rate, (x[b, d] - half - location[d]) * rate
                below = (-upper if upper < zero else zero) + log1p_unit(exp(upper if upper < zero else -upper))
                above = (zero if lower < zero else lower) + log1p_unit(exp(lower if lower < zero else -lower))
                inside = log(-expm1(-(half + half) * rate))
                black, white = x[b, d] < half, x[b, d] > one - half
                total += (zero if white else below) + (zero if black else above) - (zero if black or white else inside)
            nll[b, k] = total


@jit
def discretized_logistic_nll_backward(doutput, dnll, output, x):
    zero, one, half = dnll.dtype.type(0), dnll.dtype.type(1), dnll.dtype.type(HALF)
    floor, top = dnll.dtype.type(LOG_SCALE_FLOOR), dnll.dtype.type(math.exp(-LOG_SCALE_FLOOR))
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            upstream = dnll[b, k]
            location, r = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            dlocation, dr = doutput[b, k, :x.shape[1]], doutput[b, k, x.shape[1]:]
            for d in range(x.shape[1]):
                t = r[d] - floor
                e = exp(t if t < zero else -t)
                rate, sigmoid = top * (one if t < zero else e) / (one + e), (e if t < zero else one) / (one + e)
                upper, lower = (x[b, d] + half - location[d]) * rate, (x[b, d] - half - location[d]) * rate
                e = exp(upper if upper < zero else -upper)
                dupper = (one if upper < zero else e) / (one + e)      # sigmoid(-upper): without its sign
                e = exp(lower if lower < zero else -lower)
                dlower = (e if lower < zero else one) / (one + e)
                black, white = x[b, d] < half, x[b, d] > one - half
                dupper, dlower = (zero if white else dupper), (zero if black else dlower)
                width = (half + half) * rate
                inside = zero if black or white else exp(-width) * width / -expm1(-width)
                dlocation[d] = upstream * (dupper - dlower) * rate
                dr[d] = upstream * (inside + upper * dupper - lower * dlower) * sigmoid


@inlined
def _level(value, levels):
    """The nearest level, an index that exists also where value is NaN."""
    level = np.rint(value)
    return np.int64(level) if level >= 0 and level < levels else np.int64(0)


@jit
def categorical_nll_forward(nll, log_sum, logits, x):
    zero, levels = nll.dtype.type(0), logits.shape[2] // x.shape[1]
    steps = nll.dtype.type(levels - 1)
    for b in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            total = 0.0
            for d in range(x.shape[1]):
                scores = logits[b, k, d * levels:(d + 1) * levels]
                m = scores[0]
                for j in range(levels):
                    m = scores[j] if scores[j] > m else m
                spread = zero
                for j in range(levels):
                    spread += exp(scores[j] - m)
                log_sum[b, k, d] = m + math.log(spread)
                total += log_sum[b, k, d] - scores[_level(steps * x[b, d], levels)] + zero * x[b, d]
            nll[b, k] = total


@jit
def categorical_nll_backward(dlogits, dnll, log_sum, logits, x):
    zero, levels = dnll.dtype.type(0), logits.shape[2] // x.shape[1]
    steps = dnll.dtype.type(levels - 1)
    for b in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            for d in range(x.shape[1]):
                upstream = dnll[b, k] + zero * x[b, d]
                scores, dscores = logits[b, k, d * levels:(d + 1) * levels], dlogits[b, k, d * levels:(d + 1) * levels]
                for j in range(levels):
                    dscores[j] = upstream * exp(scores[j] - log_sum[b, k, d])
                dscores[_level(steps * x[b, d], levels)] -= upstream


@inlined
def _rest(z):
    total, inverse = 0.0, 1.0 / z
    for i in range(len(_REST)):
        total = total * inverse * inverse + _REST[i]
    return total * inverse


@inlined
def _rest_slope(z):
    total, inverse = 0.0, 1.0 / z
    for i in range(len(_SLOPE)):
        total = (total + _SLOPE[i]) * inverse * inverse
    return -total - 0.5 * inverse


@inlined
def _log1p(q):
    """log(1 + q), q >= 0: what is lost in rounding u = 1 + q is made good by its ratio to u - 1."""
    u = 1.0 + q
    return log(u) * (q / (u - 1.0)) if u != 1.0 else q


@inlined
def _log_rising(a, k):
    """As in the reference, the eight factors as one fraction."""
    small, above, below = a < SHIFT, 1.0, 1.0
    z = a + SHIFT if small else a
    for j in range(SHIFT):
        above *= a + j if small else 1.0
        below *= a + k + j if small else 1.0
    return (z - 0.5) * _log1p(k / z) + k * (log(z + k) - 1.0) + _rest(z + k) - _rest(z) + log(above / below)


@inlined
def _rising_slope(a, k):
    """As in the reference, the sum of eight differences as one fraction:  sum_j 1 / (a + j) = p'/p,  p the product."""
    small, above, dabove, below, dbelow = a < SHIFT, 1.0, 0.0, 1.0, 0.0
    z = a + SHIFT if small else a
    for j in range(SHIFT):
        dabove, above = dabove * (a + j) + above, above * (a + j)
        dbelow, below = dbelow * (a + k + j) + below, below * (a + k + j)
    steps = (dabove * below - dbelow * above) / (above * below) if small else 0.0
    return _log1p(k / z) + _rest_slope(z + k) - _rest_slope(z) + steps


@jit
def beta_binomial_nll_forward(nll, output, x):
    """In double precision throughout, as in the reference."""
    n = LEVELS - 1
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            log_alpha, log_beta = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            total = 0.0
            for d in range(x.shape[1]):
                alpha, beta = exp(np.float64(log_alpha[d])), exp(np.float64(log_beta[d]))
                level = np.rint(n * np.float64(x[b, d]))
                total += (_log_rising(alpha + beta, n) - _log_rising(alpha, level) - _log_rising(beta, n - level)
                          - LOG_CHOOSE[_level(level, LEVELS)])
            nll[b, k] = total


@jit
def beta_binomial_nll_backward(doutput, dnll, output, x):
    n = LEVELS - 1
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            log_alpha, log_beta = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            dlog_alpha, dlog_beta = doutput[b, k, :x.shape[1]], doutput[b, k, x.shape[1]:]
            for d in range(x.shape[1]):
                alpha, beta = exp(np.float64(log_alpha[d])), exp(np.float64(log_beta[d]))
                level = np.rint(n * np.float64(x[b, d]))
                both = _rising_slope(alpha + beta, n)
                dlog_alpha[d] = dnll[b, k] * alpha * (both - _rising_slope(alpha, level))
                dlog_beta[d] = dnll[b, k] * beta * (both - _rising_slope(beta, n - level))
