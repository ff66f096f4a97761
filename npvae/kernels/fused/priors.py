"""Priors, fused: log p(z) of every draw."""
from ..reference.priors import LOG_2PI
from .compile import jit


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
