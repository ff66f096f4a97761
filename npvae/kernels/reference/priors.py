"""Priors: log p(z) of a draw, in nats.  Read after `latents.py`, where p(z) = N(0, I) is built in.

Shapes:  z (B, K, Z);  log_p (B, K).  A mixture has C components: mean, logvar, inverse (C, Z);  logits, peak (C,);
weights (B, K, C).
"""
import numpy as np

from .arrays import LOG_2PI, Array


def standard_normal_forward(log_p: Array, z: Array) -> None:
    """log_p[b, k] = log N(z; 0, I) = sum_j -1/2 [ z^2 + log 2 pi ]."""
    np.sum(-0.5 * (z * z + LOG_2PI), axis=-1, out=log_p)


def standard_normal_backward(dz: Array, dlog_p: Array, z: Array) -> None:
    """Backward pass of  log_p = sum_j -1/2 z^2 + const:   dz = -dlog_p * z."""
    dz[...] = -dlog_p[:, :, None] * z


def gaussian_log_density_forward(log_p: Array, z: Array, mu: Array, logvar: Array) -> None:
    """log_p[r] = log N(z; mu, diag(exp(logvar))) = sum_j -1/2 [ r^2 + logvar + log 2 pi ],   r = (z - mu) / sigma.

    z, mu, logvar (B K, Z), one row for each draw;  log_p (B K,).  It is p(h1|h2) of a model with two stochastic layers
    (Burda et al. 2016, equation 1).  1 / sigma = exp(-logvar / 2) is computed before the square, as exp(-logvar) would
    overflow earlier.
    """
    np.sum(-0.5 * (((z - mu) * np.exp(-0.5 * logvar)) ** 2 + (logvar + LOG_2PI)), axis=-1, out=log_p)


def gaussian_log_density_backward(dz: Array, dmu: Array, dlogvar: Array, dlog_p: Array, z: Array, mu: Array,
                                  logvar: Array) -> None:
    """Backward pass of  log_p = sum_j -1/2 [ r^2 + logvar + const ],  r = (z - mu) exp(-logvar / 2):

        dmu     = dlog_p * r / sigma                                  dr/dmu = -1 / sigma
        dz      = -dmu                                                log_p depends on z - mu
        dlogvar = dlog_p * 1/2 [ r^2 - 1 ]                            dr/dlogvar = -r / 2
    """
    inverse = np.exp(-0.5 * logvar)
    r = (z - mu) * inverse
    dmu[...] = dlog_p[:, None] * r * inverse
    dz[...] = -dmu
    dlogvar[...] = dlog_p[:, None] * 0.5 * (r * r - 1)


def mixture_forward(log_p: Array, weights: Array, inverse: Array, peak: Array, z: Array, mean: Array, logvar: Array,
                    logits: Array) -> None:
    """log_p[b, k] = log sum_c pi_c N(z; mean_c, diag(s_c^2)),   pi = softmax(logits),   logvar = log s^2        (D13.2)

    a log-sum-exp over the components.  `inverse`, `peak` and `weights` are kept for the backward pass:

        inverse   = exp(-logvar / 2)                                               1 / s
        peak[c]   = log pi_c - sum_j 1/2 [ logvar + log 2 pi ]                     the value of log_joint at z = mean_c
        log_joint = peak[c] - sum_j 1/2 [ (z - mean_c) inverse ]^2                 log [ pi_c N(z; mean_c, s_c^2) ]
        log_p     = m + log sum_c exp(log_joint - m),   m = max_c log_joint        m keeps exp from overflowing
        weights   = exp(log_joint - m) / sum_c exp(log_joint - m)          (D13.4) p(c|z), the responsibilities

    With pi_c = 1/C and the q(z|x) of all images as components it is the aggregate posterior, the prior with the least
    mean KL term (D13.1); Tomczak and Welling 2018 (equation 9) approximate it with fewer components.  The square is not
    expanded into z^2 - 2 z mean + mean^2, two matrix products, which would cancel near a narrow component far from 0.
    The loop over components avoids an array of B K C Z numbers.

    log pi = (logits - max) - log sum exp(logits - max), in this order: a constant in all logits changes nothing and may
    be large.  Where z is so far from all components that the squares overflow, log_p is -infinity.
    """
    np.exp(-0.5 * logvar, out=inverse)
    shift = logits[np.argmax(logits.real)]
    log_pi = (logits - shift) - np.log(np.sum(np.exp(logits - shift)))
    peak[...] = log_pi - np.sum(0.5 * (logvar + LOG_2PI), axis=1)
    log_joint = np.empty_like(weights)
    for c in range(len(mean)):
        log_joint[:, :, c] = peak[c] - np.sum(0.5 * ((z - mean[c]) * inverse[c]) ** 2, axis=-1)
    m = np.take_along_axis(log_joint, np.argmax(log_joint.real, axis=-1)[:, :, None], axis=-1)
    infinite = np.isinf(m)
    shifted = np.exp(log_joint - np.where(infinite, np.nan, m))
    total = np.sum(shifted, axis=-1, keepdims=True)
    log_p[:, :, None] = np.where(infinite, m, m + np.log(total))
    weights[...] = shifted / total


def mixture_backward(dz: Array, dmean: Array, dlogvar: Array, dlogits: Array, dlog_p: Array, weights: Array,
                     inverse: Array, z: Array, mean: Array, logits: Array) -> None:
    """Backward pass of  log_p = log sum_c exp(log_joint),  log_joint = peak[c] - sum_j 1/2 r^2,  r = (z - mean_c) /
    s_c.

    The derivative of a log-sum-exp is the softmax, so dlog_joint = dlog_p * weights, and

        dz      = sum_c  -dlog_joint r / s                                 (D13.5) towards the components responsible
        dmean   = sum_bk dlog_joint r / s                                  (D13.6)
        dlogvar = sum_bk dlog_joint 1/2 [ r^2 - 1 ]                        (D13.7) the -1 is from peak
        dlogits = sum_bk dlog_joint - pi_c sum_bk dlog_p                   (D13.8) responsibility minus pi_c

    the last from  d log pi_c / d logits_i = [c = i] - pi_i  and  sum_c dlog_joint = dlog_p.
    """
    dz[...] = 0
    for c in range(len(mean)):
        dlog_joint, r = dlog_p * weights[:, :, c], (z - mean[c]) * inverse[c]
        push = dlog_joint[:, :, None] * r
        pull = push * inverse[c]
        dz[...] -= pull
        dmean[c] = np.sum(pull, axis=(0, 1))
        dlogits[c] = np.sum(dlog_joint)
        dlogvar[c] = 0.5 * (np.sum(push * r, axis=(0, 1)) - dlogits[c])
    pi = np.exp(logits - logits[np.argmax(logits.real)])
    dlogits[...] -= pi / np.sum(pi) * np.sum(dlog_p)
