"""Codes, fused."""
import math

import numpy as np

from .compile import inlined, jit
from .elementary import difference, exp, exp_unit, expm1
from .gamma import sigmoid, softplus


@inlined
def _code(value):
    """The code as an index; 0 where value is NaN."""
    return np.int64(value) if value == value else np.int64(0)


@jit
def one_hot(features, x, levels):
    zero, one = features.dtype.type(0), features.dtype.type(1)
    for b in range(x.shape[0]):
        start = 0
        for d in range(x.shape[1]):
            for j in range(levels[d]):
                features[b, start + j] = (one if x[b, d] == j else zero) + zero * x[b, d]
            start += levels[d]


@jit
def categories_nll_forward(cells, logits, x, levels):
    zero = cells.dtype.type(0)
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            start = 0
            for d in range(cells.shape[2]):
                scores = logits[b, k, start:start + levels[d]]
                start += levels[d]
                m, first, others = scores[0], 0, zero
                for j in range(levels[d]):
                    m, first = (scores[j], j) if scores[j] > m else (m, first)
                for j in range(levels[d]):
                    others += exp_unit(scores[j] - m) if j != first else zero
                cells[b, k, d] = difference(m, scores[_code(x[b, d])]) + math.log1p(others) + zero * x[b, d]


@jit
def categories_nll_backward(dlogits, dcells, logits, x, levels):
    zero, one = dcells.dtype.type(0), dcells.dtype.type(1)
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            start = 0
            for d in range(dcells.shape[2]):
                scores, dscores = logits[b, k, start:start + levels[d]], dlogits[b, k, start:start + levels[d]]
                start += levels[d]
                m, total, others, taken = scores[0], zero, zero, _code(x[b, d])
                for j in range(levels[d]):
                    m = scores[j] if scores[j] > m else m
                for j in range(levels[d]):
                    dscores[j] = exp_unit(scores[j] - m)
                    total += dscores[j]
                upstream = (dcells[b, k, d] + zero * x[b, d]) * (one / total)
                for j in range(levels[d]):
                    dscores[j] *= upstream
                    others += dscores[j] if j != taken else zero
                dscores[taken] = -others


@inlined
def _log_share(log_w):
    """log(1 - exp(-w)),  w = exp(log_w)."""
    w = exp(log_w)
    return log_w + math.log(-expm1(-w) / w) if w > 0.0 else log_w


@jit
def ordinal_nll_forward(cells, output, x, cuts, levels):
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            start = 0
            for d in range(cells.shape[2]):
                last, code, h = levels[d] - 1, _code(x[b, d]), np.float64(output[b, k, d])
                lower, cut, cost = 0.0, np.float64(cuts[start]), 0.0 * (x[b, d] + h)
                for j in range(1, last):      # NaN in a cut point further up has no influence
                    if j <= code:
                        lower, cut = cut, cut + exp(np.float64(cuts[start + j]))
                if code < last:
                    cost += softplus(h - cut)
                if code == last:
                    lower = cut
                if code > 0:
                    cost += softplus(lower - h)
                if 0 < code < last:
                    cost -= _log_share(np.float64(cuts[start + code]))
                cells[b, k, d] = cost
                start += last


@jit
def ordinal_nll_backward(doutput, dcuts, dcells, output, x, cuts, levels):
    zero = dcuts.dtype.type(0)
    for i in range(dcuts.shape[0]):
        dcuts[i] = zero
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            start = 0
            for d in range(dcells.shape[2]):
                last, code, h = levels[d] - 1, _code(x[b, d]), np.float64(output[b, k, d])
                upstream = dcells[b, k, d] + 0.0 * x[b, d]
                lower, cut = 0.0, np.float64(cuts[start])
                for j in range(1, last):
                    if j <= code:
                        lower, cut = cut, cut + exp(np.float64(cuts[start + j]))
                if code == last:
                    lower = cut
                du = -upstream * sigmoid(h - cut) if code < last else 0.0
                dv = upstream * sigmoid(lower - h) if code > 0 else 0.0
                doutput[b, k, d] = -(du + dv)
                # t_1 moves every cut point, t_j those from c_j on: below code both, at code the upper one
                dcuts[start] += du + dv
                for j in range(1, last):
                    if j < code:
                        dcuts[start + j] += exp(np.float64(cuts[start + j])) * (du + dv)
                    elif j == code:
                        w = exp(np.float64(cuts[start + j]))
                        share = exp_unit(-w) * w / -expm1(-w) if w > 0.0 else 1.0
                        dcuts[start + j] += w * du - upstream * share
                start += last
