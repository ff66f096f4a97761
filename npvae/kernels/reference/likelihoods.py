"""Reconstruction: the negative log-likelihood -log p(x|z), in nats.  Read after `dense.py`.

One number per image and draw, nll[b, k] = -log p(x[b] | z[b, k]), summed over the D pixels, which are independent given
z.  Shapes:  nll (B, K);  the decoder's output (B, K, D);  x (B, D), the same image for each of its K draws.

Every backward kernel multiplies a derivative per pixel by the upstream gradient dnll (B, K).
"""
import math

import numpy as np

from .arrays import LOG_2PI, Array
from .dense import sigmoid, softplus

#: Lower bound of logvar in `gaussian_pixel_nll`: sigma = exp(LOGVAR_FLOOR / 2) = 0.05, some 13 grey levels.
LOGVAR_FLOOR = 2 * math.log(0.05)


def bernoulli_nll_forward(nll: Array, tail: Array, logits: Array, x: Array) -> None:
    """nll[b, k] = sum_d -[x log p + (1 - x) log(1 - p)],   p = sigmoid(l),  l = logits[b, k, d],  x = x[b, d].

    Inserting log p = l - softplus(l) and log(1 - p) = -softplus(l) gives

        nll = sum_d -[x l - x softplus(l) - (1 - x) softplus(l)]  =  sum_d softplus(l) - x l          (D3.1)

    without the logarithm of a probability, so neither clipping nor an epsilon is needed, however large l is.
    With t = |l| and e = exp(-t), which cannot overflow:

        softplus(l) = max(l, 0) + log1p(e)                                  (D3.2)
        softplus(l) - x l = log1p(e) + t x  where l < 0,  log1p(e) + t (1 - x)  where l >= 0

    No term is negative, so nothing cancels: a white pixel with a large logit costs exp(-l), not the difference l - l.

        tail = sigmoid(-t) = e / (1 + e)                                    (D3.3) probability of the less likely colour
        p    = tail where l < 0,  1 - tail where l >= 0

    tail (B, K, D) is kept for the backward pass, instead of p, which in float32 rounds to 1 from l = 17 on.

    For grey x this is a cross-entropy but no likelihood: the integral of exp(-nll) over x in [0, 1]^D is
    prod_d tanh(l/2) / l  (D3.6),  not 1.
    """
    x, negative = x[:, None, :], logits.real < 0
    t = np.where(negative, -logits, logits)
    e = np.exp(-t)
    np.sum(t * np.where(negative, x, 1 - x) + np.log1p(e), axis=-1, out=nll)
    tail[...] = e / (1 + e)


def bernoulli_nll_backward(dlogits: Array, dnll: Array, tail: Array, logits: Array, x: Array) -> None:
    """Backward pass of  nll = sum_d softplus(l) - x l.   softplus'(l) = sigmoid(l) = p, hence

        dlogits = dnll * (p - x)                                            (D3.4)
        p - x   = tail - x  where l < 0,  (1 - x) - tail  where l >= 0

    so that a pixel predicted correctly still has the gradient exp(-|l|), however large l is.

    The chain rule through p gives the same on paper,  dnll * (p - x) / (p (1 - p)) * p (1 - p)  (D3.5).  In float32 it
    is NaN as soon as p rounds to 1, near l = 17.
    """
    x = x[:, None, :]
    dlogits[...] = dnll[:, :, None] * np.where(logits.real < 0, tail - x, (1 - x) - tail)


def gaussian_nll_forward(nll: Array, mean: Array, x: Array, logvar: Array) -> None:
    """nll[b, k] = sum_d 1/2 [ (x - mean)^2 / sigma^2 + logvar + log 2 pi ],   sigma^2 = exp(logvar)           (D4.1)

    One sigma for all pixels: logvar has shape (1,), a constant or a learned parameter.  The residual is divided by
    sigma before it is squared: at sigma = 1e-19, 1 / sigma^2 overflows in float32, and a residual of 0 would give NaN.

    This is the nll of a density.  It may be negative, and it depends on the units: where x, mean and sigma are a times
    as large, it is larger by D log a  (D4.8).
    """
    r = (x[:, None, :] - mean) * np.exp(-0.5 * logvar)
    nll[...] = 0.5 * (np.sum(r * r, axis=-1) + mean.shape[-1] * (logvar + LOG_2PI))


def gaussian_nll_backward(dmean: Array, dlogvar: Array, dnll: Array, mean: Array, x: Array, logvar: Array) -> None:
    """Backward pass of  nll = 1/2 [ S exp(-logvar) + D logvar + const ],   S = sum_d (x - mean)^2:

        dmean   = dnll * (mean - x) exp(-logvar)                            (D4.2)
        dlogvar = sum_{b,k} dnll * 1/2 [ D - S exp(-logvar) ]               (D4.3)  every nll depends on the one logvar

    If all dnll are equal, dlogvar is zero at  sigma^2 = mean_{b,k} S / D  (D4.4),  the mean squared residual.
    """
    inverse = np.exp(-0.5 * logvar)
    r = (mean - x[:, None, :]) * inverse
    dlogvar[...] = np.sum(dnll * 0.5 * (mean.shape[-1] - np.sum(r * r, axis=-1)))
    dmean[...] = dnll[:, :, None] * r * inverse


def gaussian_pixel_nll_forward(nll: Array, output: Array, x: Array) -> None:
    """nll as in `gaussian_nll_forward`, but the decoder gives each pixel a sigma of its own.

    output (B, K, 2 D): the first D columns are the means, the others s, from which

        logvar = c + softplus(s - c),   c = LOGVAR_FLOOR                    (D4.5)

    is log sigma^2, bounded below by c.  Without a bound the likelihood has no maximum: for a pixel that is black in
    every image, sigma -> 0 gives nll -> -infinity (Mattei and Frellsen 2018).  The bound is smooth, so the gradient is
    exact, which that of a clip would not be.
    """
    mean, s = np.split(output, 2, axis=-1)
    residual = x[:, None, :] - mean
    logvar = LOGVAR_FLOOR + softplus(s - LOGVAR_FLOOR)
    np.sum(0.5 * (residual * residual * np.exp(-logvar) + logvar + LOG_2PI), axis=-1, out=nll)


def gaussian_pixel_nll_backward(doutput: Array, dnll: Array, output: Array, x: Array) -> None:
    """Backward pass of  nll = sum_d 1/2 [ r^2 exp(-logvar) + logvar + const ],  r = mean - x,  logvar = c +
    softplus(s - c):

        dmean   = dnll * r exp(-logvar)                                     (D4.6)
        dlogvar = dnll * 1/2 [ 1 - r^2 exp(-logvar) ]
        ds      = dlogvar * sigmoid(s - c)                                  (D4.7)

    doutput (B, K, 2 D) is [dmean, ds].
    """
    (mean, s), (dmean, ds) = np.split(output, 2, axis=-1), np.split(doutput, 2, axis=-1)
    t, upstream = s - LOGVAR_FLOOR, dnll[:, :, None]
    residual = mean - x[:, None, :]
    precision = np.exp(-(LOGVAR_FLOOR + softplus(t)))
    dmean[...] = upstream * residual * precision
    ds[...] = upstream * 0.5 * (1 - residual * residual * precision) * sigmoid(t)


def gaussian_optimal_nll_forward(nll: Array, logvar: Array, mean: Array, x: Array) -> None:
    """nll as in `gaussian_nll_forward`, with the sigma that is best for this batch (sigma-VAE: Rybkin et al. 2021).

    From the squared residuals S[b, k] = sum_d (x - mean)^2:

        sigma^2 = 1/(B K D) sum_{b,k} S,   logvar = log sigma^2
        nll = 1/2 [ S / sigma^2 + D (logvar + log 2 pi) ]                   (D12.10)

    This sigma minimises the mean of nll over the batch, whose derivative with respect to logvar is the mean of 1/2 [ D
    - S / sigma^2 ]. The minimum is  D/2 [ log sigma^2 + log 2 pi + 1 ].   logvar (1,) is an output.

    Where every residual is 0 there is no minimum: nll falls without bound as sigma -> 0, logvar is -infinity and nll
    NaN.
    """
    residual = x[:, None, :] - mean
    squares = np.sum(residual * residual, axis=-1)
    variance = np.sum(squares) / mean.size
    logvar[...] = np.log(variance)
    nll[...] = 0.5 * (squares / variance + mean.shape[-1] * (logvar + LOG_2PI))


def gaussian_optimal_nll_backward(dmean: Array, dnll: Array, logvar: Array, mean: Array, x: Array) -> None:
    """Backward pass of  nll = 1/2 [ S / v + D log v + const ],  v = sigma^2 = 1/(B K D) sum_{b,k} S,  S = sum_d r^2,
    r = mean - x.  A mean changes nll[b, k] directly, and through v the nll of every image and draw:

        dv    = sum_{b,k} dnll * 1/2 [ D / v - S / v^2 ],      dS = dnll / (2 v) + dv / (B K D),      dmean = dS * 2 r

    which simplifies to

        dmean = r / v * (dnll + c),      c = 1/(B K D) sum_{b,k} dnll * [ D - S / v ]          (D12.10)

    If all dnll are equal, c = 0: at its optimum sigma has no influence (the envelope theorem).  With importance
    weights, as in IWAE, c is not 0, since this sigma is optimal for equal weights.
    """
    inverse = np.exp(-0.5 * logvar)
    r = (mean - x[:, None, :]) * inverse
    c = np.sum(dnll * (mean.shape[-1] - np.sum(r * r, axis=-1))) / mean.size
    dmean[...] = (dnll[:, :, None] + c) * r * inverse


#: c_k = B_2k / (2k)!, k = 1, 2, ..., with the Bernoulli numbers B_2k:  l/2 coth(l/2) = 1 + sum_k c_k l^2k,   |l| < 2 pi
COTH = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
        -3617 / 10670622842880000, 43867 / 5109094217170944000, -174611 / 802857662698291200000)


def continuous_bernoulli_nll_forward(nll: Array, tail: Array, logits: Array, x: Array) -> None:
    """nll[b, k] = sum_d A(l) - x l,   A(l) = log [ (exp(l) - 1) / l ]  (D12.1),   l = logits[b, k, d],   x = x[b, d].

    The Bernoulli probabilities, normalised to a density of x in [0, 1] (Loaiza-Ganem and Cunningham 2019).  With lambda
    = sigmoid(l),  lambda^x (1 - lambda)^(1 - x) = exp(x l - softplus(l)).  The integral of exp(x l) from 0 to 1 is
    (exp(l) - 1) / l, so

        p(x) = C lambda^x (1 - lambda)^(1 - x) = exp(x l) l / (exp(l) - 1),      log C = softplus(l) - A(l)

    and neither softplus nor log C need be computed.  (The paper's C = 2 artanh(1 - 2 lambda) / (1 - 2 lambda) is
    l / tanh(l/2).)  A is the cumulant function of the uniform distribution on [0, 1], and its derivative is E[x].

    By the symmetry A(l) = l + A(-l), A'(l) = 1 - A'(-l), both are needed at -t = -|l| only:

        A(l) - x l = A(-t) + t x  where l < 0,  A(-t) + t (1 - x)  where l >= 0,     A(-t) = log [ (1 - e) / t ]
        E[x] = A'(l) = tail where l < 0,  1 - tail where l >= 0,      tail = A'(-t) = 1 / t - e / (1 - e)    (D12.2)

    with e = exp(-t), which cannot overflow.  Near l = 0, lambda = 1/2, these are differences of very large numbers, or
    0/0. So for t < 1 their series are used, ten terms of which leave an error of 1e-17:

        A(-t) = -t/2 + sum_k c_k t^2k / (2k),     tail = 1/2 - sum_k c_k t^(2k-1),      c_k = COTH[k - 1]    (D12.3)

    tail (B, K, D) is kept for the backward pass.  E[x] itself would round to 1 for large l.
    """
    x, negative = x[:, None, :], logits.real < 0
    t = np.where(negative, -logits, logits)
    small = t.real < 1
    near, far, cumulant = t[small], t[~small], np.empty_like(t)
    integral: Array | float = 0.0
    series: Array | float = 0.0
    for k, c in reversed(list(enumerate(COTH, 1))):
        integral, series = integral * near * near + c / (2 * k), series * near * near + c
    e = np.exp(-far)
    cumulant[small], cumulant[~small] = (integral * near - 0.5) * near, np.log((1 - e) / far)
    tail[small], tail[~small] = 0.5 - series * near, 1 / far - e / (1 - e)
    np.sum(cumulant + t * np.where(negative, x, 1 - x), axis=-1, out=nll)


def continuous_bernoulli_nll_backward(dlogits: Array, dnll: Array, tail: Array, logits: Array, x: Array) -> None:
    """Backward pass of  nll = sum_d A(l) - x l,   A'(l) = E[x]:

        dlogits = dnll * (E[x] - x)                   (D12.2)  as for the Bernoulli, with the mean of this density
        E[x] - x = tail - x  where l < 0,  (1 - x) - tail  where l >= 0
    """
    x = x[:, None, :]
    dlogits[...] = dnll[:, :, None] * np.where(logits.real < 0, tail - x, (1 - x) - tail)
