"""Counts, fused: in double precision, as in the reference.  Most counts of most data are 0, which has the shortest
formula."""
import math

import numpy as np

from ..reference.counts import FAR, LARGEST
from .compile import inlined, jit
from .elementary import excess, exp, exp_unit, expm1
from .gamma import bounded, peak_slope, poisson_peak, sigmoid, softplus


@jit
def log1p_features(features, x):
    for b in range(x.shape[0]):
        for d in range(x.shape[1]):
            features[b, d] = math.log1p(x[b, d])


@jit
def log_features(features, x):
    for b in range(x.shape[0]):
        for d in range(x.shape[1]):
            features[b, d] = math.log(x[b, d])


@jit
def log_total(offset, x):
    for b in range(x.shape[0]):
        total = 0.0
        for d in range(x.shape[1]):
            total += x[b, d]
        offset[b] = math.log(total) if total != 0.0 else 0.0


@inlined
def _poisson(log_mean, x):
    if x == 0.0:
        return exp(log_mean)
    return poisson_peak(x) + x * excess(log_mean - math.log(x))


@inlined
def _poisson_slope(log_mean, x):
    return exp(log_mean) if x == 0.0 else x * expm1(log_mean - math.log(x))


@jit
def poisson_nll_forward(cells, output, x, offset):
    for b in range(cells.shape[0]):
        more = np.float64(offset[b])
        for k in range(cells.shape[1]):
            for d in range(cells.shape[2]):
                cells[b, k, d] = _poisson(output[b, k, d] + more, np.float64(x[b, d]))


@jit
def poisson_nll_backward(doutput, dcells, output, x, offset):
    for b in range(dcells.shape[0]):
        more = np.float64(offset[b])
        for k in range(dcells.shape[1]):
            for d in range(dcells.shape[2]):
                doutput[b, k, d] = dcells[b, k, d] * _poisson_slope(output[b, k, d] + more, np.float64(x[b, d]))


@inlined
def _deviation(t, r, x):
    """s, q, v and whether the shares are exchanged, as in the reference."""
    n = r + x
    turned = 2.0 * x > n
    s, q = (-t if turned else t), (r if turned else x) / n
    beyond = s - FAR if s > FAR else 0.0
    return s, q, math.log1p(q * expm1(s - beyond)) + beyond, turned


@inlined
def _negative_binomial(log_mean, log_r, x):
    b = bounded(log_r, LARGEST)
    r = exp(b)
    if x == 0.0:
        return r * softplus(log_mean - b)
    n, log_x = r + x, math.log(x)
    s, q, v, _ = _deviation(log_mean - log_x, r, x)
    deviance = q * excess(s) - excess(v) if -1.0 < s < 1.0 else v - q * s
    return poisson_peak(r) + poisson_peak(x) - poisson_peak(n) + softplus(log_x - log_r) + n * deviance


@inlined
def _negative_binomial_slopes(log_mean, log_r, x):
    """With respect to l, and to log r."""
    b = bounded(log_r, LARGEST)
    r, odds = exp(b), log_mean - b
    share = r * sigmoid(odds)
    if x == 0.0:
        return share, r * excess(-softplus(odds))
    n, t, rest = r + x, log_mean - math.log(x), sigmoid(-odds)
    _, _, v, turned = _deviation(t, r, x)
    by_r = r * (peak_slope(r) - peak_slope(n)) - 0.5 * x / n + r * excess(-(v + (t if turned else 0.0)))
    return (x * expm1(t) * rest if t < 1.0 else share - x * rest), by_r


@jit
def negative_binomial_nll_forward(cells, output, x, offset):
    D = cells.shape[2]
    for b in range(cells.shape[0]):
        more = np.float64(offset[b])
        for k in range(cells.shape[1]):
            for d in range(D):
                cells[b, k, d] = _negative_binomial(
                    output[b, k, d] + more, np.float64(output[b, k, D + d]), np.float64(x[b, d]))


@jit
def negative_binomial_nll_backward(doutput, dcells, output, x, offset):
    D = dcells.shape[2]
    for b in range(dcells.shape[0]):
        more = np.float64(offset[b])
        for k in range(dcells.shape[1]):
            for d in range(D):
                by_mean, by_r = _negative_binomial_slopes(
                    output[b, k, d] + more, np.float64(output[b, k, D + d]), np.float64(x[b, d]))
                doutput[b, k, d], doutput[b, k, D + d] = dcells[b, k, d] * by_mean, dcells[b, k, d] * by_r


@inlined
def _zero(a, c):
    """-log(p + (1 - p) exp(-c)), as in the reference."""
    s = a + c
    if c < 1.0:
        e = exp(FAR if a > FAR else a)
        return math.log1p(-expm1(-c) / (e + exp(-c)))
    if a < 0.0:
        return softplus(a) + (c if s < 0.0 else -a) - softplus(s if s < 0.0 else -s)
    return softplus(-a) - softplus(-s)


@jit
def zero_inflated_nll_forward(cells, output, x, offset):
    D = cells.shape[2]
    for b in range(cells.shape[0]):
        more = np.float64(offset[b])
        for k in range(cells.shape[1]):
            for d in range(D):
                count, a = np.float64(x[b, d]), np.float64(output[b, k, D + d])
                c = _negative_binomial(output[b, k, d] + more, np.float64(output[b, k, 2 * D + d]), count)
                cells[b, k, d] = _zero(a, c) if count == 0.0 else softplus(a) + c


@jit
def zero_inflated_nll_backward(doutput, dcells, output, x, offset):
    D = dcells.shape[2]
    for b in range(dcells.shape[0]):
        more = np.float64(offset[b])
        for k in range(dcells.shape[1]):
            for d in range(D):
                count, a, upstream = np.float64(x[b, d]), np.float64(output[b, k, D + d]), dcells[b, k, d]
                log_mean, log_r = output[b, k, d] + more, np.float64(output[b, k, 2 * D + d])
                by_mean, by_r = _negative_binomial_slopes(log_mean, log_r, count)
                weight, da = 1.0, sigmoid(a)
                if count == 0.0:
                    c = _negative_binomial(log_mean, log_r, count)
                    weight, da = sigmoid(-a - c), expm1(-c) * sigmoid(-a) * sigmoid(a + c)
                doutput[b, k, d], doutput[b, k, D + d] = upstream * weight * by_mean, upstream * da
                doutput[b, k, 2 * D + d] = upstream * weight * by_r


@inlined
def _row_total(row):
    total = 0.0
    for d in range(row.shape[0]):
        total += row[d]
    return total


@jit
def multinomial_nll_forward(cells, log_mean, logits, x):
    for b in range(cells.shape[0]):
        total = _row_total(x[b])
        known = total != 0.0
        log_n, peak = (math.log(total) if known else 0.0), (poisson_peak(total) / total if known else 0.0)
        for k in range(cells.shape[1]):
            top, others = np.float64(logits[b, k, 0]), 0.0
            for d in range(1, cells.shape[2]):
                top = logits[b, k, d] if logits[b, k, d] > top else top
            for d in range(cells.shape[2]):
                others += exp_unit(logits[b, k, d] - top)
            less = math.log(others)
            for d in range(cells.shape[2]):
                rate, count = logits[b, k, d] - top - less + log_n, np.float64(x[b, d])
                log_mean[b, k, d] = rate
                cells[b, k, d] = _poisson(rate, count) - peak * count if known else 0.0


@jit
def multinomial_nll_backward(dlogits, dcells, log_mean, x):
    for b in range(dcells.shape[0]):
        total = _row_total(x[b])
        log_n = math.log(total) if total != 0.0 else 0.0
        for k in range(dcells.shape[1]):
            whole = 0.0
            for d in range(dcells.shape[2]):
                dlogits[b, k, d] = dcells[b, k, d] * _poisson_slope(np.float64(log_mean[b, k, d]), np.float64(x[b, d]))
            for d in range(dcells.shape[2]):      # of its own, so that each slope is rounded before it is added
                whole += dlogits[b, k, d]
            for d in range(dcells.shape[2]):
                log_p, slope = log_mean[b, k, d] - log_n, np.float64(dlogits[b, k, d])
                dlogits[b, k, d] = slope * -expm1(log_p) - exp(log_p) * (whole - slope) if total != 0.0 else 0.0
