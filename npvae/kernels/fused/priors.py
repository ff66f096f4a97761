"""Priors, fused: log p(z) of every draw."""
import math

from ..reference.arrays import LOG_2PI
from .compile import jit
from .elementary import difference, exp, exp_unit, scaled

#: A component gets weight 0 where its share of p(z) is below e^-60 of the largest.  No sum changes by it in either
#: type; products of such numbers may be subnormal, and then slow; and the backward pass skips weights that are 0.
_LEAST = -60.0


@jit
def standard_normal_forward(log_p, z):
    zero, half, log_2pi = z.dtype.type(0), z.dtype.type(0.5), z.dtype.type(LOG_2PI)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            total = zero
            for j in range(z.shape[2]):
                total += z[b, k, j] * z[b, k, j] + log_2pi
            log_p[b, k] = -half * total


@jit
def standard_normal_backward(dz, dlog_p, z):
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            for j in range(z.shape[2]):
                dz[b, k, j] = -dlog_p[b, k] * z[b, k, j]


@jit
def gaussian_log_density_forward(log_p, z, mu, logvar):
    zero, half, log_2pi = z.dtype.type(0), z.dtype.type(0.5), z.dtype.type(LOG_2PI)
    for i in range(z.shape[0]):
        total = zero
        for j in range(z.shape[1]):
            r = (z[i, j] - mu[i, j]) * exp(-half * logvar[i, j])
            total += r * r + (logvar[i, j] + log_2pi)
        log_p[i] = -half * total


@jit
def gaussian_log_density_backward(dz, dmu, dlogvar, dlog_p, z, mu, logvar):
    one, half = z.dtype.type(1), z.dtype.type(0.5)
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            inverse = exp(-half * logvar[i, j])
            r = scaled(z[i, j] - mu[i, j], inverse)
            dmu[i, j] = scaled(dlog_p[i] * r, inverse)
            dz[i, j] = -scaled(dlog_p[i] * r, inverse)
            dlogvar[i, j] = dlog_p[i] * half * (r * r - one)


@jit
def mixture_forward(log_p, weights, inverse, peak, z, mean, logvar, logits):
    zero, half, one, log_2pi = z.dtype.type(0), z.dtype.type(0.5), z.dtype.type(1), z.dtype.type(LOG_2PI)
    least = z.dtype.type(_LEAST)
    m = logits[0]      # a NaN is not found unless it is the first, but the sum of exp below is NaN then
    for c in range(len(logits)):
        m = logits[c] if logits[c] > m else m
    total = zero
    for c in range(len(logits)):
        total += exp_unit(logits[c] - m)
    log_total = z.dtype.type(math.log(total))
    for c in range(mean.shape[0]):
        total = zero
        for j in range(mean.shape[1]):
            inverse[c, j] = exp(-half * logvar[c, j])
            total += logvar[c, j] + log_2pi
        peak[c] = difference(difference(difference(logits[c], m), log_total), half * total)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            for c in range(mean.shape[0]):
                total = zero
                for j in range(mean.shape[1]):
                    r = (z[b, k, j] - mean[c, j]) * inverse[c, j]
                    total += r * r
                weights[b, k, c] = peak[c] - half * total
            m = weights[b, k, 0]
            for c in range(mean.shape[0]):
                m = weights[b, k, c] if weights[b, k, c] > m else m
            total = zero
            for c in range(mean.shape[0]):
                share = weights[b, k, c] - m
                share = zero if share < least else exp_unit(share)
                weights[b, k, c] = share
                total += share
            log_p[b, k] = m + (zero if math.isinf(m) else math.log(total))
            for c in range(mean.shape[0]):
                weights[b, k, c] *= one / total


@jit
def mixture_backward(dz, dmean, dlogvar, dlogits, dlog_p, weights, inverse, z, mean, logits):
    zero, half = z.dtype.type(0), z.dtype.type(0.5)
    for c in range(mean.shape[0]):
        dlogits[c] = zero
        for j in range(mean.shape[1]):
            dmean[c, j] = zero
            dlogvar[c, j] = zero
    total = zero
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            total += dlog_p[b, k]
            for j in range(z.shape[2]):
                dz[b, k, j] = zero
            for c in range(mean.shape[0]):
                dshare = dlog_p[b, k] * weights[b, k, c]
                if dshare != zero:
                    dlogits[c] += dshare
                    for j in range(mean.shape[1]):
                        r = scaled(z[b, k, j] - mean[c, j], inverse[c, j])
                        push = dshare * r
                        pull = scaled(push, inverse[c, j])
                        dz[b, k, j] -= pull
                        dmean[c, j] += pull
                        dlogvar[c, j] += push * r
    m = logits[0]
    for c in range(len(logits)):
        m = logits[c] if logits[c] > m else m
    sum_pi = zero
    for c in range(len(logits)):
        sum_pi += exp_unit(logits[c] - m)
    for c in range(mean.shape[0]):
        for j in range(mean.shape[1]):
            dlogvar[c, j] = half * (dlogvar[c, j] - dlogits[c])
        dlogits[c] -= exp_unit(logits[c] - m) / sum_pi * total
