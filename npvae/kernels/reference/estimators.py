"""Gradient estimators: gradients of lower variance for the encoder.  Read after `latents.py` and `objectives.py`.

A bound is an expectation over draws of z, and so is its gradient; a few draws give a Monte Carlo estimate.  With

    log w = log p(x|z) - beta [ log q(z|x) - log p(z) ],   z = mu + sigma eps

the encoder's outputs phi = (mu, logvar) change log w in two ways, through z and as parameters of the density log q:

    d log w / d phi  =  d log w / dz * dz / dphi   -   beta * d log q / d phi  (z held fixed)          (D15.1)
                              path                              score

`log_ratio_backward` and `log_q_backward` compute the sum of both.  The score is pure noise, since its mean is zero:
E_q[ d log q / d phi ] = integral of dq / d phi = d 1 / d phi = 0  (D15.4).

*Sticking the landing* (STL; Roeder, Wu and Duvenaud 2017) leaves the score out.  The gradient of the ELBO stays
unbiased, at any beta.  Where q(z|x) is the posterior p(z|x), and beta = 1, log w = log p(x) at every z: the path is
zero draw by draw (D15.5), so the estimate has no variance at the optimum, where the score still would.

The importance-weighted bound multiplies each draw by w~_k = w_k / sum_l w_l, which depends on z_k.  The mean of
w~_k score_k is not zero, and leaving it out makes a bias (D15.7).  But it can be written as a path.  For any
f(z), held fixed as a function,

    E_q[ f(z) d log q / d phi ]  =  d / d phi E_q[ f(z) ]  =  E[ f'(z) dz / dphi ]                     (D15.6)

(the first equality is the derivative of the integral of q f, the second reparameterizes it).  Here f = w~_k as a
function of z_k, with the derivative  dw~_k / dz_k = w~_k (1 - w~_k) d log w_k / dz_k.  So

    E sum_k w~_k [ path_k - beta score_k ]  =  E sum_k [ w~_k - beta w~_k (1 - w~_k) ] path_k

                                            =  E sum_k w~_k s_k path_k,      s_k = 1 - beta + beta w~_k,         (D15.8)

the *doubly reparameterized gradient* (DReG; Tucker, Lawson, Gu and Maddison 2019), w~_k^2 path_k at beta = 1.  With one
draw w~ = 1, and DReG equals STL.

The decoder and a learned prior, which are not parameters of q(z|x), keep the plain gradient.

Shapes:  logvar (B, Z);  z, eps, dz (B, K, Z);  log_q, log_ratio, nll (B, K).
"""
import numpy as np

from .arrays import Array


def path_ratio_backward(dz: Array, dlog_ratio: Array, z: Array, logvar: Array, eps: Array) -> None:
    """Backward pass of  log_ratio = log q(z|x) - log N(z; 0, I) = sum_j 1/2 [ z^2 - (z - mu)^2 / sigma^2 - logvar ]

    with respect to z alone, the mu and logvar of the density held fixed:

        dz = dlog_ratio * [ z - (z - mu) / sigma^2 ] = dlog_ratio * [ z - eps / sigma ]           (D15.2)

    `log_ratio_backward` adds the score to this (D15.1).  Where q(z|x) is the posterior, the sum of this dz and the
    decoder's is zero for every draw (D15.5).

    eps / sigma is used, as z - mu loses digits where sigma is small beside mu.
    """
    dz[...] = dlog_ratio[:, :, None] * (z - eps * np.exp(-0.5 * logvar)[:, None, :])


def path_q_backward(dz: Array, dlog_q: Array, logvar: Array, eps: Array) -> None:
    """Backward pass of  log q(z|x) = sum_j -1/2 [ (z - mu)^2 / sigma^2 + logvar + log 2 pi ]  with respect to z alone:

        dz = -dlog_q * (z - mu) / sigma^2 = -dlog_q * eps / sigma                                 (D15.3)

    It serves any prior, whose own backward kernel gives the derivative of log p(z).

    `log_q_backward` adds the score to this, whose mean is zero (D15.4); times a function of z it becomes a path
    (D15.6).
    """
    dz[...] = -dlog_q[:, :, None] * (eps * np.exp(-0.5 * logvar)[:, None, :])


def scale_draws(out: Array, dz: Array, dnll: Array, dlog_ratio: Array) -> None:
    """out[b, k] = s[b, k] dz[b, k],   s = 1 - beta + beta w~  (D15.8).

    From the path gradient of each draw, which has the factor w~ already, to the doubly reparameterized gradient.  w~
    and beta follow from the upstream gradients of the bound; c is the same for all draws of an image:

        dnll = c w~,   dlog_ratio = c beta w~,   sum_k w~ = 1
        c = sum_k dnll,   beta = sum_k dlog_ratio / c,   beta w~ = dlog_ratio / c                 (D15.9)

    So neither the size of the batch nor the schedule of beta is needed.  Where dnll is zero for all draws of an image
    there are no weights, and out is NaN.
    """
    c = np.sum(dnll, axis=1)[:, None]
    beta = np.sum(dlog_ratio, axis=1)[:, None] / c
    out[...] = ((1 - beta) + dlog_ratio / c)[:, :, None] * dz
