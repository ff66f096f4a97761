"""Codes 0, 1, ..., L - 1: -log P(x|z) in nats, one cell for each column.  Read after `reals.py`.

Columns may have different numbers of levels: levels (D,) says how many.  The numbers of a column lie side by side.
Shapes:  cells (B, K, D);  x (B, D), codes as floats.
"""
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .dense import sigmoid, softplus
from .levels import mean_exp


def _columns(x: Array, levels: NDArray[np.integer], less: int = 0) -> Iterator[tuple[int, slice, NDArray[np.intp]]]:
    """For each column: its index; where its L - less numbers stand; and its codes (B,), 0 where x is NaN."""
    ends = np.cumsum(levels - less)
    for d, (size, end) in enumerate(zip(levels - less, ends)):
        code = x[:, d].real
        yield d, slice(end - size, end), np.where(np.isnan(code), 0, code).astype(np.intp)


def one_hot(features: Array, x: Array, levels: NDArray[np.integer]) -> None:
    """features (B, sum of levels): of the L numbers of a column, 1 at its code and 0 elsewhere."""
    for d, own, _ in _columns(x, levels):
        features[:, own] = (x[:, d, None].real == np.arange(levels[d])) + 0 * x[:, d, None]      # 0 x: NaN stays NaN


def categories_nll_forward(cells: Array, logits: Array, x: Array, levels: NDArray[np.integer]) -> None:
    """-log P(i) = log sum_j exp(l_j) - l_i,  i = x[b, d]:  a softmax over the levels of each column, as D12.6.

    logits (B, K, sum of levels).  With m = max_j l_j,  (m - l_i) + log(1 + others),  others = sum_j exp(l_j - m)
    without the largest, whose term is 1: no term is negative.
    """
    for d, own, code in _columns(x, levels):
        scores = logits[:, :, own]
        largest = np.argmax(scores.real, axis=-1)[..., None]
        m = np.take_along_axis(scores, largest, axis=-1)
        others = np.sum(np.where(np.arange(scores.shape[-1]) == largest, 0, np.exp(scores - m)), axis=-1)
        taken = np.take_along_axis(scores, code[:, None, None], axis=-1)
        cells[:, :, d] = (m - taken)[..., 0] + np.log1p(others) + 0 * x[:, None, d]      # 0 x: NaN stays NaN


def categories_nll_backward(dlogits: Array, dcells: Array, logits: Array, x: Array, levels: NDArray[np.integer]
                            ) -> None:
    """Backward pass of  log sum_j exp(l_j) - l_i:   dl_j = dcells * [ p_j - (j = i) ],   p = softmax(l), as D12.7.

    p_i - 1 is computed as minus the sum of all other p_j, which keeps its digits where p_i is near 1.
    """
    for d, own, code in _columns(x, levels):
        scores = logits[:, :, own]
        taken = np.arange(scores.shape[-1]) == code[:, None, None]
        top = np.take_along_axis(scores, np.argmax(scores.real, axis=-1)[..., None], axis=-1)
        p = np.exp(scores - top)
        p = np.where(taken, 0, p) / np.sum(p, axis=-1, keepdims=True)
        upstream = dcells[:, :, d, None] + 0 * x[:, None, d, None]
        dlogits[:, :, own] = upstream * np.where(taken, -np.sum(p, axis=-1, keepdims=True), p)


class _Pieces:
    """What the two kernels below share, for one column: u, v (B, K) and w (B, 1), and which of them a code has.  Where
    there is none it is 0."""

    def __init__(self, t: Array, h: Array, code: NDArray[np.intp]) -> None:
        last = len(t)
        cuts = np.cumsum(np.concatenate([t[:1], np.exp(t[1:])]))
        self.code, self.gap = code[:, None], np.minimum(code, last - 1)[:, None]
        self.below, self.above = self.code < last, self.code > 0
        self.inside = self.below & self.above
        self.u = np.where(self.below, cuts[self.gap] - h, 0)
        self.v = np.where(self.above, cuts[np.maximum(self.code - 1, 0)] - h, 0)
        self.log_w = np.where(self.inside, t[self.gap], 0)


def ordinal_nll_forward(cells: Array, output: Array, x: Array, cuts: Array, levels: NDArray[np.integer]) -> None:
    """Levels in an order, as pieces of a logistic distribution around h, cut at c_1 < c_2 < ... < c_{L-1}:

        P(x <= i) = sigmoid(c_{i+1} - h),       c_1 = t_1,   c_{j+1} = c_j + exp(t_{j+1})        (McCullagh 1980)
        -log P(i) = softplus(-u) + softplus(v) - log(1 - exp(-w)),     u = c_{i+1} - h,   v = c_i - h,   w = u - v
                                                                                                       (D16.15)

    as in D12.4.  The lowest level has only the first term, the highest only the second.

    output is h (B, K, D);  cuts are the t (sum of L - 1,) of all columns, numbers of any sign, so that the cut points
    stay in order.  w = exp(t_{i+1}) is not computed as a difference.
    """
    for d, own, code in _columns(x, levels, 1):
        p = _Pieces(cuts[own], output[:, :, d], code)
        inside = np.where(p.inside, p.log_w + np.log(mean_exp(np.exp(p.log_w))), 0)
        cells[:, :, d] = (np.where(p.below, softplus(-p.u), 0) + np.where(p.above, softplus(p.v), 0) - inside
                          + 0 * x[:, None, d])      # 0 x: NaN stays NaN


def ordinal_nll_backward(doutput: Array, dcuts: Array, dcells: Array, output: Array, x: Array, cuts: Array,
                         levels: NDArray[np.integer]) -> None:
    """Backward pass of  softplus(-u) + softplus(v) - log(1 - exp(-w)):

        du = -dcells * sigmoid(-u),   dv = dcells * sigmoid(v),   dw = -dcells / (exp(w) - 1)
        dh = -(du + dv)                                                                      (D16.16)
        dt_j = exp(t_j) sum_{k >= j} dc_k + dw exp(t_j),  without the factor exp(t_j) for j = 1

    dc_k is the sum, over rows and draws, of du where c_k is the upper cut point and of dv where it is the lower one;
    dw exp(t_j) that of the level whose width is exp(t_j).
    """
    for d, own, code in _columns(x, levels, 1):
        t, upstream = cuts[own], dcells[:, :, d] + 0 * x[:, None, d]
        p = _Pieces(t, output[:, :, d], code)
        du = np.where(p.below, -upstream * sigmoid(-p.u), 0)
        dv = np.where(p.above, upstream * sigmoid(p.v), 0)
        w = np.exp(p.log_w)
        dlog_w = np.where(p.inside, -upstream * np.exp(-w) / mean_exp(w), 0)      # w / (exp(w) - 1)
        doutput[:, :, d] = -(du + dv)
        dc = np.array([np.sum(np.where(p.code == k, du, 0) + np.where(p.code - 1 == k, dv, 0)) for k in range(len(t))])
        from_k = np.cumsum(dc[::-1])[::-1]
        widths = [np.sum(np.where(p.code == k, dlog_w, 0)) for k in range(1, len(t))]
        dcuts[own] = np.concatenate([from_k[:1], np.exp(t[1:]) * from_k[1:] + np.array(widths)])
