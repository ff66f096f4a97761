"""Pixels with 256 grey levels, fused."""
import math

import numpy as np

from ..reference.gamma import SHIFT
from ..reference.levels import HALF, LARGEST, LEVELS, LOG_CHOOSE, LOG_SCALE_FLOOR
from .compile import inlined, jit
from .elementary import difference, exp, exp_unit, expm1, log, log1p_unit
from .gamma import digamma_rest, rest, softplus

_LEAST = 1e-30      # takes the place of a smaller w, where (1 - exp(-w)) / w is 1, and 0/0 for w = 0


@jit
def discretized_logistic_nll_forward(nll, output, x):
    zero, one, half, floor = nll.dtype.type(0), nll.dtype.type(1), nll.dtype.type(HALF), nll.dtype.type(LOG_SCALE_FLOOR)
    top, log_width = nll.dtype.type(math.exp(-LOG_SCALE_FLOOR)), nll.dtype.type(math.log(2 * HALF) - LOG_SCALE_FLOOR)
    least = nll.dtype.type(_LEAST)
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            location, r = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            total = zero
            for d in range(x.shape[1]):
                t = r[d] - floor
                e = exp_unit(t if t < zero else -t)
                rate = top * (one if t < zero else e) / (one + e)      # exp(-softplus(t)) = 1 / (1 + exp(t))
                softplus = (zero if t < zero else t) + log1p_unit(e)
                residual = difference(x[b, d], location[d])
                upper, lower = (residual + half) * rate, (residual - half) * rate
                below = (-upper if upper < zero else zero) + log1p_unit(exp_unit(upper if upper < zero else -upper))
                above = (zero if lower < zero else lower) + log1p_unit(exp_unit(lower if lower < zero else -lower))
                width = (half + half) * rate
                width = least if width < least else width
                inside = log_width - softplus + log(-expm1(-width) / width)
                black, white = x[b, d] < half, x[b, d] > one - half
                total += (zero if white else below) + (zero if black else above) - (zero if black or white else inside)
            nll[b, k] = total


@jit
def discretized_logistic_nll_backward(doutput, dnll, output, x):
    zero, one, half = dnll.dtype.type(0), dnll.dtype.type(1), dnll.dtype.type(HALF)
    floor, top = dnll.dtype.type(LOG_SCALE_FLOOR), dnll.dtype.type(math.exp(-LOG_SCALE_FLOOR))
    least = dnll.dtype.type(_LEAST)
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            upstream = dnll[b, k]
            location, r = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            dlocation, dr = doutput[b, k, :x.shape[1]], doutput[b, k, x.shape[1]:]
            for d in range(x.shape[1]):
                t = r[d] - floor
                e = exp_unit(t if t < zero else -t)
                rate, sigmoid = top * (one if t < zero else e) / (one + e), (e if t < zero else one) / (one + e)
                residual = difference(x[b, d], location[d])
                upper, lower = (residual + half) * rate, (residual - half) * rate
                e = exp_unit(upper if upper < zero else -upper)
                share = one / (one + e)
                dupper, not_upper = (share if upper < zero else e * share), (e * share if upper < zero else share)
                e = exp_unit(lower if lower < zero else -lower)
                share = one / (one + e)
                dlower, not_lower = (e * share if lower < zero else share), (share if lower < zero else e * share)
                # here dupper = sigmoid(-upper), without the sign;  both = dlower - dupper, as a product
                v = upper + lower
                both = ((-dupper * not_lower if v < zero else dlower * not_upper)
                        * -expm1(v if v < zero else -v))
                black, white = x[b, d] < half, x[b, d] > one - half
                both = -dupper if black else (dlower if white else both)
                dupper, dlower = (zero if white else dupper), (zero if black else dlower)
                width = (half + half) * rate
                width = least if width < least else width
                inside = zero if black or white else exp_unit(-width) * width / -expm1(-width)
                dlocation[d] = upstream * -both * rate
                dr[d] = upstream * (inside + upper * dupper - lower * dlower) * sigmoid


@inlined
def _level(value, levels):
    """The nearest level; 0 where value is NaN, so that it is always an index."""
    level = np.rint(value)
    return np.int64(level) if level >= 0 and level < levels else np.int64(0)


@jit
def categorical_nll_forward(nll, top, total, logits, x):
    zero, one, levels = nll.dtype.type(0), nll.dtype.type(1), logits.shape[2] // x.shape[1]
    steps = nll.dtype.type(levels - 1)
    for b in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            cost = 0.0
            for d in range(x.shape[1]):
                scores = logits[b, k, d * levels:(d + 1) * levels]
                m, first, others = scores[0], 0, zero
                for j in range(levels):
                    m, first = (scores[j], j) if scores[j] > m else (m, first)
                for j in range(first):
                    others += exp_unit(scores[j] - m)
                for j in range(first + 1, levels):
                    others += exp_unit(scores[j] - m)
                top[b, k, d], total[b, k, d] = m, one + others
                cost += (difference(m, scores[_level(steps * x[b, d], levels)]) + math.log1p(others)) + zero * x[b, d]
            nll[b, k] = cost


@jit
def categorical_nll_backward(dlogits, dnll, top, total, logits, x):
    zero, one, levels = dnll.dtype.type(0), dnll.dtype.type(1), logits.shape[2] // x.shape[1]
    steps = dnll.dtype.type(levels - 1)
    for b in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            for d in range(x.shape[1]):
                upstream = (dnll[b, k] + zero * x[b, d]) * (one / total[b, k, d])
                scores, dscores = logits[b, k, d * levels:(d + 1) * levels], dlogits[b, k, d * levels:(d + 1) * levels]
                taken, others, m = _level(steps * x[b, d], levels), zero, top[b, k, d]
                for j in range(levels):
                    dscores[j] = upstream * exp_unit(scores[j] - m)
                dscores[taken] = zero
                for j in range(levels):
                    others += dscores[j]
                dscores[taken] = -others


@inlined
def _log1p(q):
    """log(1 + q), q >= 0.  u = 1 + q is rounded; the factor q / (u - 1) corrects for that."""
    u = 1.0 + q
    return log(u) * (q / (u - 1.0)) if u != 1.0 else q


@inlined
def _rising(a, k):
    """c and r, as in the reference; the product of fractions as one fraction."""
    small, above, below = a < SHIFT, 1.0, a + k if a < SHIFT and k != 0.0 else 1.0
    z = a + SHIFT if small else a
    for j in range(1, SHIFT):
        above *= a + j if small else 1.0
        below *= a + k + j if small else 1.0
    excess = (z + k - 0.5) * _log1p(k / z) - k + rest(z + k) - rest(z)
    near = excess + k * log(z) + log(above / below) if k != 0.0 else 0.0
    return ((1.0 if k != 0.0 else 0.0) if small else k), (near if small else excess)


@inlined
def _rising_slope(a, k):
    """a S(a, k), as in the reference; sum_j 1 / (a + j) is one fraction, p'(a) / p(a) with p(a) = prod_j (a + j)."""
    small, above, dabove, below, dbelow = a < SHIFT, 1.0, 0.0, 1.0, 0.0
    z = a + SHIFT if small else a
    for j in range(1, SHIFT):
        dabove, above = dabove * (a + j) + above, above * (a + j)
        dbelow, below = dbelow * (a + k + j) + below, below * (a + k + j)
    slope = a * (_log1p(k / z) + digamma_rest(z + k) - digamma_rest(z))
    steps = k / (a + k) + a * ((dabove * below - dbelow * above) / (above * below)) if k != 0.0 else 0.0
    return slope + (steps if small else 0.0)


@inlined
def _bounded_exp(log_a):
    return exp(LARGEST if log_a > LARGEST else log_a)


@jit
def beta_binomial_nll_forward(nll, output, x):
    """In double precision, as in the reference."""
    n = float(LEVELS - 1)
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            total = 0.0
            for d in range(x.shape[1]):
                log_alpha, log_beta = np.float64(output[b, k, d]), np.float64(output[b, k, x.shape[1] + d])
                alpha, beta = _bounded_exp(log_alpha), _bounded_exp(log_beta)
                level = np.rint(n * np.float64(x[b, d]))
                c_a, r_a = _rising(alpha, level)
                c_b, r_b = _rising(beta, n - level)
                c_s, r_s = _rising(alpha + beta, n)
                up, down = softplus(log_beta - log_alpha), softplus(log_alpha - log_beta)
                log_sum = log_beta + down if log_alpha < log_beta else log_alpha + up
                rest = difference(difference(r_s, r_a), r_b) - LOG_CHOOSE[_level(level, LEVELS)]
                total += c_a * up + c_b * down + (c_s - c_a - c_b) * log_sum + rest
            nll[b, k] = total


@jit
def beta_binomial_nll_backward(doutput, dnll, output, x):
    n = float(LEVELS - 1)
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            for d in range(x.shape[1]):
                log_alpha, log_beta = np.float64(output[b, k, d]), np.float64(output[b, k, x.shape[1] + d])
                alpha, beta = _bounded_exp(log_alpha), _bounded_exp(log_beta)
                level, t = np.rint(n * np.float64(x[b, d])), log_alpha - log_beta
                both, e = _rising_slope(alpha + beta, n), exp_unit(t if t < 0.0 else -t)
                more = both / (1.0 + e)
                less = e * more
                doutput[b, k, d] = dnll[b, k] * ((less if t < 0.0 else more) - _rising_slope(alpha, level))
                doutput[b, k, x.shape[1] + d] = dnll[b, k] * (
                    (more if t < 0.0 else less) - _rising_slope(beta, n - level))
