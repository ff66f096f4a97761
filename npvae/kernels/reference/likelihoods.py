"""Reconstruction: the negative log-likelihood -log p(x|z), in nats.  Second chapter of the kernels.

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
