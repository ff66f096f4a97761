"""Reconstruction: the negative log-likelihood -log p(x|z), in nats.  Third chapter of the kernels.

One number per image and draw, nll[b, k] = -log p(x[b] | z[b, k]), summed over the D pixels: pixels are independent
given z.  Shapes:  nll (B, K);  what the decoder puts out (B, K, D);  x (B, D), the same image for each of its K draws.

The upstream gradient dnll (B, K) says how much the loss moves with each nll; every backward kernel is dnll times a
per-pixel derivative.
"""
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

LOG_2PI = math.log(2 * math.pi)

#: The per-pixel sigma of `gaussian_pixel_nll` never falls below exp(LOGVAR_FLOOR / 2) = 0.05, some 13 grey levels.
LOGVAR_FLOOR = 2 * math.log(0.05)


def bernoulli_nll_forward(nll: Array, mean: Array, logits: Array, x: Array) -> None:
    """nll[b, k] = sum_d -[x log p + (1 - x) log(1 - p)],   p = sigmoid(l),  l = logits[b, k, d],  x = x[b, d].

    Inserting log p = l - softplus(l) and log(1 - p) = -softplus(l) gives

        nll = sum_d -[x l - x softplus(l) - (1 - x) softplus(l)]  =  sum_d softplus(l) - x l          (D3.1)

    with no logarithm of a probability left, so neither clipping nor an epsilon is needed however large l is.
    With e = exp(-|l|), which cannot overflow:

        softplus(l) = max(l, 0) + log1p(e)                                  (D3.2)
        p = 1 / (1 + e) where l >= 0,  e / (1 + e) where l < 0              (D3.3)

    mean (B, K, D) receives p: it is the picture to show, and the backward pass needs it.

    For grey x this is a cross-entropy and no likelihood: the integral of exp(-nll) over x in [0, 1]^D is
    prod_d tanh(l/2) / l  (D3.6),  not 1.
    """
    negative = logits.real < 0
    e = np.exp(np.where(negative, logits, -logits))
    softplus = np.where(negative, 0, logits) + np.log1p(e)
    np.sum(softplus - x[:, None, :] * logits, axis=-1, out=nll)
    mean[...] = np.where(negative, e, 1) / (1 + e)


def bernoulli_nll_backward(dlogits: Array, dnll: Array, mean: Array, x: Array) -> None:
    """forward was  nll = sum_d softplus(l) - x l.   softplus'(l) = sigmoid(l) = mean, hence

        dlogits = dnll * (mean - x)                                         (D3.4)

    On paper  dnll * (p - x) / (p (1 - p)) * p (1 - p)  (D3.5),  the chain rule through p, is the same.  In float32 it
    is NaN as soon as p rounds to 1, near l = 17.
    """
    dlogits[...] = dnll[:, :, None] * (mean - x[:, None, :])


def gaussian_nll_forward(nll: Array, mean: Array, x: Array, logvar: Array) -> None:
    """nll[b, k] = sum_d 1/2 [ (x - mean)^2 / sigma^2 + logvar + log 2 pi ],   sigma^2 = exp(logvar)           (D4.1)

    One sigma for all pixels: logvar has shape (1,), a constant or a learned parameter.

    The nll of a density, which may be negative and depends on the units of x: in units in which x, mean and sigma are
    a times as large, it is larger by D log a  (D4.8).
    """
    residual = x[:, None, :] - mean
    pixels = mean.shape[-1]
    nll[...] = 0.5 * (np.sum(residual * residual, axis=-1) * np.exp(-logvar) + pixels * (logvar + LOG_2PI))


def gaussian_nll_backward(dmean: Array, dlogvar: Array, dnll: Array, mean: Array, x: Array, logvar: Array) -> None:
    """forward was  nll = 1/2 [ S exp(-logvar) + D logvar + const ],   S = sum_d (x - mean)^2.

        dmean   = dnll * (mean - x) exp(-logvar)                            (D4.2)
        dlogvar = sum_{b,k} dnll * 1/2 [ D - S exp(-logvar) ]               (D4.3)  every nll depends on the one logvar

    With equal dnll, dlogvar is zero where  sigma^2 = mean_{b,k} S / D  (D4.4),  the mean squared residual.
    """
    residual = mean - x[:, None, :]
    precision = np.exp(-logvar)
    squares = np.sum(residual * residual, axis=-1)
    dlogvar[0] = np.sum(dnll * 0.5 * (mean.shape[-1] - squares * precision))
    dmean[...] = dnll[:, :, None] * precision * residual


def gaussian_pixel_nll_forward(nll: Array, output: Array, x: Array) -> None:
    """nll as in `gaussian_nll_forward`, with a sigma for every pixel from the decoder.

    output (B, K, 2 D): the first D columns are the means, the others s, from which

        logvar = c + softplus(s - c),   c = LOGVAR_FLOOR                    (D4.5)

    is log sigma^2, bounded below by c.  Without a bound the likelihood has no maximum: a pixel that is black in every
    image is explained by sigma -> 0 at nll -> -infinity (Mattei and Frellsen 2018).  A smooth bound keeps the exact
    gradient, which a clip would not.
    """
    pixels = x.shape[-1]
    residual = x[:, None, :] - output[..., :pixels]
    t = output[..., pixels:] - LOGVAR_FLOOR
    negative = t.real < 0
    logvar = LOGVAR_FLOOR + np.where(negative, 0, t) + np.log1p(np.exp(np.where(negative, t, -t)))
    np.sum(0.5 * (residual * residual * np.exp(-logvar) + logvar + LOG_2PI), axis=-1, out=nll)


def gaussian_pixel_nll_backward(doutput: Array, dnll: Array, output: Array, x: Array) -> None:
    """forward was  nll = sum_d 1/2 [ r^2 exp(-logvar) + logvar + const ],  r = mean - x,  logvar = c + softplus(s - c).

        dmean   = dnll * r exp(-logvar)                                     (D4.6)
        dlogvar = dnll * 1/2 [ 1 - r^2 exp(-logvar) ]
        ds      = dlogvar * sigmoid(s - c)                                  (D4.7)

    doutput (B, K, 2 D) is [dmean, ds].
    """
    pixels = x.shape[-1]
    residual = output[..., :pixels] - x[:, None, :]
    t = output[..., pixels:] - LOGVAR_FLOOR
    negative = t.real < 0
    e = np.exp(np.where(negative, t, -t))
    sigmoid = np.where(negative, e, 1) / (1 + e)
    precision = np.exp(-(LOGVAR_FLOOR + np.where(negative, 0, t) + np.log1p(e)))
    upstream = dnll[:, :, None]
    doutput[..., :pixels] = upstream * residual * precision
    doutput[..., pixels:] = upstream * 0.5 * (1 - residual * residual * precision) * sigmoid


def gaussian_optimal_nll_forward(nll: Array, logvar: Array, mean: Array, x: Array) -> None:
    """nll as in `gaussian_nll_forward`, with the sigma that is best for this batch (sigma-VAE: Rybkin et al. 2021):
    of the squared residuals S[b, k] = sum_d (x - mean)^2,

        sigma^2 = 1/(B K D) sum_{b,k} S,   logvar = log sigma^2
        nll = 1/2 [ S / sigma^2 + D (logvar + log 2 pi) ]                   (D12.10)

    At this sigma the mean of nll over the batch, a function of sigma, is least: its derivative by logvar is the mean of
    1/2 [ D - S / sigma^2 ].  There it is  D/2 [ log sigma^2 + log 2 pi + 1 ].   logvar (1,) is an output.
    """
    residual = x[:, None, :] - mean
    squares = np.sum(residual * residual, axis=-1)
    variance = np.sum(squares) / mean.size
    logvar[0] = np.log(variance)
    nll[...] = 0.5 * (squares / variance + mean.shape[-1] * (logvar + LOG_2PI))


def gaussian_optimal_nll_backward(dmean: Array, dnll: Array, logvar: Array, mean: Array, x: Array) -> None:
    """forward was  nll = 1/2 [ S / v + D log v + const ],  v = sigma^2 = 1/(B K D) sum_{b,k} S,  S = sum_d r^2,
    r = mean - x.  A mean changes nll[b, k] directly, and through v the nll of every image and draw:

        dv    = sum_{b,k} dnll * 1/2 [ D / v - S / v^2 ],      dS = dnll / (2 v) + dv / (B K D),      dmean = dS * 2 r

    in other letters

        dmean = r / v * (dnll + c),      c = 1/(B K D) sum_{b,k} dnll * [ D - S / v ]          (D12.10)

    With one dnll for all, c = 0: at its best sigma has no influence (the envelope theorem).  With weights, as in IWAE,
    c is not 0: the batch's sigma is the best for equal weights.
    """
    residual = mean - x[:, None, :]
    precision = np.exp(-logvar)
    squares = np.sum(residual * residual, axis=-1)
    c = np.sum(dnll * (mean.shape[-1] - squares * precision)) / mean.size
    dmean[...] = (dnll[:, :, None] + c) * precision * residual


#: c_k = B_2k / (2k)!, k = 1, 2, ..., with Bernoulli's numbers B:   l/2 coth(l/2) = 1 + sum_k c_k l^2k,   |l| < 2 pi
COTH = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
        -3617 / 10670622842880000, 43867 / 5109094217170944000, -174611 / 802857662698291200000)


def continuous_bernoulli_nll_forward(nll: Array, mean: Array, logits: Array, x: Array) -> None:
    """nll[b, k] = sum_d A(l) - x l,   A(l) = log [ (exp(l) - 1) / l ]  (D12.1),   l = logits[b, k, d],   x = x[b, d].

    The Bernoulli probabilities made a density of x in [0, 1] (Loaiza-Ganem and Cunningham 2019): with
    lambda = sigmoid(l),  lambda^x (1 - lambda)^(1 - x) = exp(x l - softplus(l)),  whose integral over x is not 1; since
    that of exp(x l) from 0 to 1 is (exp(l) - 1) / l,

        p(x) = C lambda^x (1 - lambda)^(1 - x) = exp(x l) l / (exp(l) - 1),      log C = softplus(l) - A(l)

    so neither softplus nor log C need be computed.  (The paper's C = 2 artanh(1 - 2 lambda) / (1 - 2 lambda) is
    l / tanh(l/2).)  A is the cumulant function of the uniform distribution on [0, 1], and the mean its derivative:

        A(l) = max(l, 0) + log [ (1 - e) / t ],   t = |l|,   e = exp(-t)
        E[x] = A'(l) = 1 / (1 - e) - 1 / t  where l > 0,  and  1 less that at t  where l < 0                 (D12.2)

    No exponential overflows.  Around l = 0, lambda = 1/2, both are differences of numbers that grow without bound, or
    0/0; there, for |l| < 1, their series are taken, ten terms of which leave an error of 1e-17:

        A(l) = l/2 + sum_k c_k l^2k / (2k),      E[x] = 1/2 + sum_k c_k l^(2k-1),      c_k = COTH[k - 1]     (D12.3)

    mean (B, K, D) receives E[x], which for this density is not lambda.
    """
    negative, small = logits.real < 0, (logits.real > -1) & (logits.real < 1)
    t = np.where(small, 1, np.where(negative, -logits, logits))
    e = np.exp(-t)
    near = np.where(small, logits, 0)
    power, cumulant, slope = near, 0.5 * near, 0.5 + 0 * near
    for k, c in enumerate(COTH):
        cumulant = cumulant + c / (2 * k + 2) * power * near
        slope = slope + c * power
        power = power * near * near
    cumulant = np.where(small, cumulant, np.where(negative, 0, logits) + np.log((1 - e) / t))
    np.sum(cumulant - x[:, None, :] * logits, axis=-1, out=nll)
    mean[...] = np.where(small, slope, np.where(negative, 1 / t - e / (1 - e), 1 / (1 - e) - 1 / t))


def continuous_bernoulli_nll_backward(dlogits: Array, dnll: Array, mean: Array, x: Array) -> None:
    """forward was  nll = sum_d A(l) - x l,   A'(l) = E[x] = mean:

        dlogits = dnll * (mean - x)                   (D12.2)  as for the Bernoulli, with the density's own mean
    """
    dlogits[...] = dnll[:, :, None] * (mean - x[:, None, :])
