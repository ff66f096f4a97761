"""Gradient estimators, fused: no temporary arrays with a row for every draw."""
from .compile import jit
from .elementary import exp


@jit
def path_ratio_backward(dz, dlog_ratio, z, logvar, eps):
    minus_half = dz.dtype.type(-0.5)
    for b in range(dz.shape[0]):
        for k in range(dz.shape[1]):
            for j in range(dz.shape[2]):
                dz[b, k, j] = dlog_ratio[b, k] * (z[b, k, j] - eps[b, k, j] * exp(minus_half * logvar[b, j]))


@jit
def path_q_backward(dz, dlog_q, logvar, eps):
    minus_half = dz.dtype.type(-0.5)
    for b in range(dz.shape[0]):
        for k in range(dz.shape[1]):
            for j in range(dz.shape[2]):
                dz[b, k, j] = -dlog_q[b, k] * (eps[b, k, j] * exp(minus_half * logvar[b, j]))


@jit
def scale_draws(out, dz, dnll, dlog_ratio):
    zero, one = dz.dtype.type(0), dz.dtype.type(1)
    for b in range(dz.shape[0]):
        c, total = zero, zero
        for k in range(dz.shape[1]):
            c += dnll[b, k]
            total += dlog_ratio[b, k]
        rest = one - total / c
        for k in range(dz.shape[1]):
            s = rest + dlog_ratio[b, k] / c
            for j in range(dz.shape[2]):
                out[b, k, j] = s * dz[b, k, j]
