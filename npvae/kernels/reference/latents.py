"""The latent variable: reparameterization, and two forms of the KL term.  Read after `likelihoods.py`.

The encoder gives, for each image, a diagonal Gaussian  q(z|x) = N(mu, diag(sigma^2))  with  logvar = log sigma^2; the
prior is  p(z) = N(0, I).  Shapes:  mu, logvar, kl (B, Z);  eps, z (B, K, Z);  log_ratio (B, K).
"""
import math

import numpy as np

from .arrays import LOG_2PI, Array
from .dense import minus_abs
#: 1/2!, 1/3!, ...:   exp(a) - 1 - a = a^2 (1/2! + a/3! + ...),  enough terms to be exact for |a| < 1/2
EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(2, 17))


def excess(a: Array) -> Array:
    """exp(a) - 1 - a >= 0.  Near a = 0 the subtraction would lose all digits, so there the power series is summed."""
    excess, small = np.expm1(a) - a, minus_abs(a).real > -0.5
    near = a[small]
    series: Array | float = 0.0
    for c in reversed(EXPONENTIAL):
        series = series * near + c
    excess[small] = near * near * series
    return excess


def reparameterize_forward(z: Array, mu: Array, logvar: Array, eps: Array) -> None:
    """z[b, k] = mu[b] + sigma[b] * eps[b, k],   sigma = exp(logvar / 2),   eps ~ N(0, I) drawn by the caller.  (D5.1)

    Then z ~ N(mu, sigma^2)  (D5.4).  This is the reparameterization trick (Kingma and Welling 2014, section 2.4): a
    random draw has no derivative with respect to mu and sigma; with the noise as an argument z is a function of them,
    and has one.
    """
    z[...] = mu[:, None, :] + np.exp(0.5 * logvar)[:, None, :] * eps


def reparameterize_backward(dmu: Array, dlogvar: Array, dz: Array, logvar: Array, eps: Array) -> None:
    """Backward pass of  z = mu + exp(logvar / 2) eps,  one mu and one logvar for all K draws:

        dmu     = sum_k dz                                            (D5.2)  dz/dmu = 1
        dlogvar = sum_k dz * eps * 1/2 exp(logvar / 2)                (D5.3)  d sigma / d logvar = sigma / 2

    With dz = f'(z) these are unbiased estimates of the derivatives of E[f(z)]: for mu their mean over eps is E[f'(z)]
    (Bonnet's theorem, D5.5; no jumps in f), for logvar 1/2 sigma^2 E[f''(z)] (Price's theorem, D5.6; nor in f').
    """
    np.sum(dz, axis=1, out=dmu)
    dlogvar[...] = np.sum(dz * eps, axis=1) * 0.5 * np.exp(0.5 * logvar)


def gaussian_kl_forward(kl: Array, mu: Array, logvar: Array) -> None:
    """kl[b, j] = KL( N(mu, sigma^2) || N(0, 1) ) = 1/2 [ mu^2 + sigma^2 - 1 - log sigma^2 ]          (D6.1)

    The Kullback-Leibler divergence of each latent dimension, in nats (Kingma and Welling 2014, appendix B).  An unused
    dimension has mu and logvar near 0, where  sigma^2 - 1 - log sigma^2  is about  logvar^2 / 2;  a series keeps its
    digits.

    In float32, from logvar = 88.7 on, the KL is larger than the type can hold, and becomes infinite.
    """
    kl[...] = 0.5 * (mu * mu + excess(logvar))


def gaussian_kl_backward(dmu: Array, dlogvar: Array, dkl: Array, mu: Array, logvar: Array) -> None:
    """Backward pass of  kl = 1/2 [ mu^2 + exp(logvar) - 1 - logvar ]:

        dmu     = dkl * mu                                            (D6.2)
        dlogvar = dkl * 1/2 [ exp(logvar) - 1 ]                       (D6.3)
    """
    dmu[...] = dkl * mu
    dlogvar[...] = dkl * 0.5 * np.expm1(logvar)


def log_ratio_forward(log_ratio: Array, z: Array, logvar: Array, eps: Array) -> None:
    """log_ratio[b, k] = log q(z|x) - log p(z) at the drawn z: a Monte Carlo estimate of the KL term from one draw.

        log q = sum_j -1/2 [ eps^2 + logvar + log 2 pi ]       because (z - mu) / sigma is eps
        log p = sum_j -1/2 [ z^2 + log 2 pi ]

    so  log_ratio = sum_j 1/2 [ z^2 - eps^2 - logvar ]  (D6.4).  It is unbiased: its mean over eps is sum_j kl (D6.5).
    Importance-weighted bounds need this form.
    """
    np.sum(0.5 * (z * z - eps * eps - logvar[:, None, :]), axis=-1, out=log_ratio)


def log_ratio_backward(dz: Array, dlogvar: Array, dlog_ratio: Array, z: Array) -> None:
    """Backward pass of  log_ratio = sum_j 1/2 [ z^2 - eps^2 - logvar ],  eps a constant:

        dz      = dlog_ratio * z                                      (D6.6)
        dlogvar = sum_k -1/2 dlog_ratio                               (D6.7)  the same for every dimension j

    This dlogvar is the direct path only; `reparameterize_backward` gives the path through z to mu and logvar.
    """
    dz[...] = dlog_ratio[:, :, None] * z
    dlogvar[...] = -0.5 * np.sum(dlog_ratio, axis=1)[:, None]


def log_q_forward(log_q: Array, logvar: Array, eps: Array) -> None:
    """log_q[b, k] = log q(z|x) = sum_j -1/2 [ eps^2 + logvar + log 2 pi ]   at z = mu + exp(logvar / 2) eps."""
    np.sum(-0.5 * (eps * eps + (logvar[:, None, :] + LOG_2PI)), axis=-1, out=log_q)


def log_q_backward(dlogvar: Array, dlog_q: Array) -> None:
    """Backward pass of  log_q = sum_j -1/2 [ eps^2 + logvar + const ],  eps a constant:

        dlogvar = sum_k -1/2 dlog_q                                   the same for every dimension j
    """
    dlogvar[...] = -0.5 * np.sum(dlog_q, axis=1)[:, None]
