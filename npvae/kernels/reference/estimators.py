"""Gradient estimators: the encoder's gradient with less noise in it.  Read after the latents and the objectives.

A bound is a mean over draws of z, and so is its gradient; what is computed at a few draws is an estimate.  With

    log w = log p(x|z) - beta [ log q(z|x) - log p(z) ],   z = mu + sigma eps

the encoder's phi = (mu, logvar) moves log w twice, through z and as what the density log q is made of:

    d log w / d phi  =  d log w / dz * dz / dphi   -   beta * d log q / d phi  (z held fixed)          (D15.1)
                              path                              score

`log_ratio_backward` and `log_q_backward` give both, since they look at eps.  The score is nothing but noise, as
E_q[ d log q / d phi ] = integral of dq / d phi = d 1 / d phi = 0  (D15.4).

Sticking the landing (Roeder, Wu and Duvenaud 2017) leaves the score out.  The ELBO's gradient is right on average
still, at any beta.  Where q(z|x) is the posterior p(z|x), log w = log p(x) at every z: the path is zero draw by draw
(D15.5), and the estimate has no variance where the training wants to end.  The score would go on shaking it.

The importance-weighted bound weighs each draw by w~_k = w_k / sum_l w_l, which depends on z_k: the mean of w~_k score_k
is not zero, and to leave it out is a bias (D15.7).  It can be turned into a path.  For any f(z), held fixed,

    E_q[ f(z) d log q / d phi ]  =  d / d phi E_q[ f(z) ]  =  E[ f'(z) dz / dphi ]                     (D15.6)

(the first equality is the derivative of the integral of q f, the second reparameterizes it).  Here f = w~_k, seen as a
function of z_k, with the derivative  dw~_k / dz_k = w~_k (1 - w~_k) d log w_k / dz_k.  So

    E sum_k w~_k [ path_k - beta score_k ]  =  E sum_k [ w~_k - beta w~_k (1 - w~_k) ] path_k

                                            =  E sum_k w~_k s_k path_k,      s_k = 1 - beta + beta w~_k,         (D15.8)

the doubly reparameterized gradient, w~_k^2 path_k at beta = 1 (Tucker, Lawson, Gu and Maddison 2019).  With one draw
w~ = 1, and it is that of sticking the landing.

What q(z|x) is not made of, the decoder and what a prior has learned, keeps the plain gradient.

Shapes:  logvar (B, Z);  z, eps, dz (B, K, Z);  log_q, log_ratio, nll (B, K).
"""
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def path_ratio_backward(dz: Array, dlog_ratio: Array, z: Array, logvar: Array, eps: Array) -> None:
    """forward was  log_ratio = log q(z|x) - log p(z) = sum_j 1/2 [ z^2 - (z - mu)^2 / sigma^2 - logvar ],  p = N(0, I),

    seen from z alone, with the mu and logvar of the density held fixed:

        dz = dlog_ratio * [ z - (z - mu) / sigma^2 ] = dlog_ratio * [ z - eps / sigma ]           (D15.2)

    What `log_ratio_backward` says beside it is the score (D15.1).  With the decoder's dz it is zero for every draw
    where q(z|x) is the posterior (D15.5).

    eps / sigma instead of (z - mu) / sigma^2, as z - mu has lost digits where sigma is small beside mu.
    """
    dz[...] = dlog_ratio[:, :, None] * (z - eps * np.exp(-0.5 * logvar)[:, None, :])


def path_q_backward(dz: Array, dlog_q: Array, logvar: Array, eps: Array) -> None:
    """forward was  log_q = log q(z|x) = sum_j -1/2 [ (z - mu)^2 / sigma^2 + logvar + log 2 pi ],  seen from z alone:

        dz = -dlog_q * (z - mu) / sigma^2 = -dlog_q * eps / sigma                                 (D15.3)

    for any prior, whose part comes from its own backward kernel.

    What `log_q_backward` says beside it is the score: zero on average (D15.4), a path where it has a factor (D15.6).
    """
    dz[...] = -dlog_q[:, :, None] * (eps * np.exp(-0.5 * logvar)[:, None, :])


def scale_draws(out: Array, dz: Array, dnll: Array, dlog_ratio: Array) -> None:
    """out[b, k] = s[b, k] dz[b, k],   s = 1 - beta + beta w~  (D15.8):  from the path of each draw, which has w~ in it,
    to the doubly reparameterized gradient.

    Weights and beta are read off the upstream gradients of the bound, c the same for all draws of an image:

        dnll = c w~,   dlog_ratio = c beta w~,   sum_k w~ = 1
        c = sum_k dnll,   beta = sum_k dlog_ratio / c,   beta w~ = dlog_ratio / c                 (D15.9)

    so an image needs to know neither the size of its batch nor the schedule of beta.  It must have weights: where dnll
    is zero for all draws there are none, and out is NaN.
    """
    c = np.sum(dnll, axis=1)[:, None]
    beta = np.sum(dlog_ratio, axis=1)[:, None] / c
    out[...] = ((1 - beta) + dlog_ratio / c)[:, :, None] * dz
