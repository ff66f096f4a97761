"""Reconstruction terms, fused: no temporary arrays."""
import math

from ..reference.arrays import LOG_2PI
from ..reference.likelihoods import COTH, LOGVAR_FLOOR
from .compile import jit
from .elementary import difference, exp_unit, log, log1p_unit, scaled

# the two series of the continuous Bernoulli, the last coefficient first, for Horner's rule
_SLOPE = COTH[::-1]
_CUMULANT = tuple(c / (2 * k) for k, c in enumerate(COTH, 1))[::-1]


@jit
def bernoulli_nll_forward(nll, tail, logits, x):
    zero, one = nll.dtype.type(0), nll.dtype.type(1)
    for b in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            total = zero
            for d in range(logits.shape[2]):
                logit = logits[b, k, d]
                t = -logit if logit < zero else logit
                e = exp_unit(-t)
                total += t * (x[b, d] if logit < zero else one - x[b, d]) + log1p_unit(e)
                tail[b, k, d] = e / (one + e)
            nll[b, k] = total


@jit
def bernoulli_nll_backward(dlogits, dnll, tail, logits, x):
    zero, one = dnll.dtype.type(0), dnll.dtype.type(1)
    for b in range(tail.shape[0]):
        for k in range(tail.shape[1]):
            upstream = dnll[b, k]
            for d in range(tail.shape[2]):
                t = tail[b, k, d]
                rest = difference(difference(one, x[b, d]), t)
                dlogits[b, k, d] = upstream * (t - x[b, d] if logits[b, k, d] < zero else rest)


@jit
def gaussian_nll_forward(nll, mean, x, logvar):
    zero, half = nll.dtype.type(0), nll.dtype.type(0.5)
    inverse = nll.dtype.type(math.exp(-0.5 * logvar[0]))
    constant = nll.dtype.type(mean.shape[2] * (logvar[0] + LOG_2PI))
    for b in range(mean.shape[0]):
        for k in range(mean.shape[1]):
            total = zero
            for d in range(mean.shape[2]):
                r = scaled(x[b, d] - mean[b, k, d], inverse)
                total += r * r
            nll[b, k] = half * (total + constant)


@jit
def gaussian_nll_backward(dmean, dlogvar, dnll, mean, x, logvar):
    zero = dnll.dtype.type(0)
    inverse = dnll.dtype.type(math.exp(-0.5 * logvar[0]))
    gradient = 0.0
    for b in range(mean.shape[0]):
        for k in range(mean.shape[1]):
            upstream = dnll[b, k]
            squares = zero
            for d in range(mean.shape[2]):
                r = scaled(mean[b, k, d] - x[b, d], inverse)
                squares += r * r
                dmean[b, k, d] = upstream * scaled(r, inverse)
            gradient += upstream * 0.5 * (mean.shape[2] - squares)
    dlogvar[0] = gradient


@jit
def gaussian_pixel_nll_forward(nll, output, x):
    zero, half, one = nll.dtype.type(0), nll.dtype.type(0.5), nll.dtype.type(1)
    floor, floor_precision = nll.dtype.type(LOGVAR_FLOOR), nll.dtype.type(math.exp(-LOGVAR_FLOOR))
    constant = nll.dtype.type(x.shape[1] * (LOGVAR_FLOOR + LOG_2PI))
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            mean, s = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            total = zero
            for d in range(x.shape[1]):
                residual = x[b, d] - mean[d]
                t = s[d] - floor
                e = exp_unit(t if t < zero else -t)
                # exp(-softplus(t)) = 1 / (1 + exp(t)): no further exponential
                precision = floor_precision * (one if t < zero else e) / (one + e)
                softplus = (zero if t < zero else t) + log1p_unit(e)
                total += residual * residual * precision + softplus
            nll[b, k] = half * (total + constant)


@jit
def gaussian_pixel_nll_backward(doutput, dnll, output, x):
    zero, half, one = dnll.dtype.type(0), dnll.dtype.type(0.5), dnll.dtype.type(1)
    floor, floor_precision = dnll.dtype.type(LOGVAR_FLOOR), dnll.dtype.type(math.exp(-LOGVAR_FLOOR))
    for b in range(output.shape[0]):
        for k in range(output.shape[1]):
            upstream = dnll[b, k]
            mean, s = output[b, k, :x.shape[1]], output[b, k, x.shape[1]:]
            dmean, ds = doutput[b, k, :x.shape[1]], doutput[b, k, x.shape[1]:]
            for d in range(x.shape[1]):
                residual = mean[d] - x[b, d]
                t = s[d] - floor
                e = exp_unit(t if t < zero else -t)
                precision = floor_precision * (one if t < zero else e) / (one + e)
                sigmoid = (e if t < zero else one) / (one + e)
                dmean[d] = upstream * residual * precision
                ds[d] = upstream * half * (one - residual * residual * precision) * sigmoid


@jit
def gaussian_optimal_nll_forward(nll, logvar, mean, x):
    zero, half = nll.dtype.type(0), nll.dtype.type(0.5)
    everything = 0.0
    for b in range(mean.shape[0]):
        for k in range(mean.shape[1]):
            total = zero
            for d in range(mean.shape[2]):
                residual = x[b, d] - mean[b, k, d]
                total += residual * residual
            nll[b, k] = total
            everything += total
    variance = everything / mean.size
    logvar[0] = math.log(variance)
    precision, constant = nll.dtype.type(1 / variance), nll.dtype.type(mean.shape[2] * (math.log(variance) + LOG_2PI))
    for b in range(mean.shape[0]):
        for k in range(mean.shape[1]):
            nll[b, k] = half * (nll[b, k] * precision + constant)


@jit
def gaussian_optimal_nll_backward(dmean, dnll, logvar, mean, x):
    """dmean holds r until the sum over the whole batch is known."""
    zero, inverse = dnll.dtype.type(0), dnll.dtype.type(math.exp(-0.5 * logvar[0]))
    total = 0.0
    for b in range(mean.shape[0]):
        for k in range(mean.shape[1]):
            squares = zero
            for d in range(mean.shape[2]):
                r = scaled(mean[b, k, d] - x[b, d], inverse)
                squares += r * r
                dmean[b, k, d] = r
            total += dnll[b, k] * (mean.shape[2] - squares)
    for b in range(mean.shape[0]):
        for k in range(mean.shape[1]):
            factor = dnll.dtype.type(dnll[b, k] + total / mean.size) * inverse
            for d in range(mean.shape[2]):
                dmean[b, k, d] *= factor


@jit
def continuous_bernoulli_nll_forward(nll, tail, logits, x):
    zero, half, one = nll.dtype.type(0), nll.dtype.type(0.5), nll.dtype.type(1)
    for b in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            total = zero
            for d in range(logits.shape[2]):
                logit = logits[b, k, d]
                t = -logit if logit < zero else logit
                near, far = (t if t < one else zero), (one if t < one else t)
                e, square, cumulant, slope = exp_unit(-far), near * near, zero, zero
                for i in range(len(_SLOPE)):
                    cumulant = cumulant * square + nll.dtype.type(_CUMULANT[i])
                    slope = slope * square + nll.dtype.type(_SLOPE[i])
                rest = one - e      # t / (1 - e) below: (1 - e) / t may be subnormal
                cumulant = square * cumulant - half * near if t < one else -log(far / rest)
                total += cumulant + t * (x[b, d] if logit < zero else one - x[b, d])
                tail[b, k, d] = half - near * slope if t < one else one / far - e / rest
            nll[b, k] = total


@jit
def continuous_bernoulli_nll_backward(dlogits, dnll, tail, logits, x):
    zero, one = dnll.dtype.type(0), dnll.dtype.type(1)
    for b in range(tail.shape[0]):
        for k in range(tail.shape[1]):
            upstream = dnll[b, k]
            for d in range(tail.shape[2]):
                t = tail[b, k, d]
                rest = difference(difference(one, x[b, d]), t)
                dlogits[b, k, d] = upstream * (t - x[b, d] if logits[b, k, d] < zero else rest)
