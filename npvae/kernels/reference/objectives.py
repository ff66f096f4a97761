"""Log-sum-exp and importance weights: the arithmetic of the importance-weighted bound.  Read after `latents.py`.

Shapes:  log_w, weights (B, K);  bound (B,).
"""
import math

import numpy as np

from .arrays import Array


def importance_bound_forward(bound: Array, weights: Array, log_w: Array) -> None:
    """bound[b] = log 1/K sum_k w[b, k],   w = exp(log_w) = p(x, z_k) / q(z_k|x)    (D10.1; Burda et al. 2016, eq. 8)

    With m = max_k log_w, which keeps exp from overflowing:

        bound   = m + log sum_k exp(log_w - m) - log K                (D10.2)
        weights = exp(log_w - m) / sum_k exp(log_w - m)               (D10.3)  a softmax: they sum to one

    The mean of the bound over the draws, L_K, is the ELBO for K = 1, and more draws bring it nearer to log p(x):
    L_K <= L_{K+1} <= log p(x)  (D10.6).

    If all w of an image underflow to 0 the bound is -infinity; if one is infinite, so is the bound.  The weights are
    then NaN.
    """
    m = log_w[np.arange(len(log_w)), np.argmax(log_w.real, axis=1)]
    infinite = np.isinf(m)
    shifted = np.exp(log_w - np.where(infinite, np.nan, m)[:, None])
    total = np.sum(shifted, axis=1)
    bound[...] = np.where(infinite, m, m + np.log(total)) - math.log(log_w.shape[1])
    weights[...] = shifted / total[:, None]


def importance_bound_backward(dlog_w: Array, dbound: Array, weights: Array) -> None:
    """Backward pass of  bound = log sum_k exp(log_w) - log K,  whose derivative is the softmax:

        dlog_w = dbound * weights                                     (D10.4; Burda et al. 2016, equation 14)
    """
    dlog_w[...] = dbound[:, None] * weights
