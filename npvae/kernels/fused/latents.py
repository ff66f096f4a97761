"""Reparameterization and KL, fused: on arrays so small, NumPy's time is that of its many calls."""
from ..reference.arrays import LOG_2PI
from .compile import jit
from .elementary import excess, exp, expm1


@jit
def reparameterize_forward(z, mu, logvar, eps):
    half = z.dtype.type(0.5)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            for j in range(z.shape[2]):
                z[b, k, j] = mu[b, j] + exp(half * logvar[b, j]) * eps[b, k, j]


@jit
def reparameterize_backward(dmu, dlogvar, dz, logvar, eps):
    zero, half = dz.dtype.type(0), dz.dtype.type(0.5)
    for b in range(dz.shape[0]):
        for j in range(dz.shape[2]):
            dmu[b, j] = zero
            dlogvar[b, j] = zero
        for k in range(dz.shape[1]):
            for j in range(dz.shape[2]):
                dmu[b, j] += dz[b, k, j]
                dlogvar[b, j] += dz[b, k, j] * eps[b, k, j]
        for j in range(dz.shape[2]):
            dlogvar[b, j] *= half * exp(half * logvar[b, j])


@jit
def gaussian_kl_forward(kl, mu, logvar):
    half = kl.dtype.type(0.5)
    for b in range(mu.shape[0]):
        for j in range(mu.shape[1]):
            kl[b, j] = half * (mu[b, j] * mu[b, j] + excess(logvar[b, j]))


@jit
def gaussian_kl_backward(dmu, dlogvar, dkl, mu, logvar):
    half = dkl.dtype.type(0.5)
    for b in range(mu.shape[0]):
        for j in range(mu.shape[1]):
            dmu[b, j] = dkl[b, j] * mu[b, j]
            dlogvar[b, j] = dkl[b, j] * half * expm1(logvar[b, j])


@jit
def log_ratio_forward(log_ratio, z, logvar, eps):
    zero, half = z.dtype.type(0), z.dtype.type(0.5)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            total = zero
            for j in range(z.shape[2]):
                total += z[b, k, j] * z[b, k, j] - eps[b, k, j] * eps[b, k, j] - logvar[b, j]
            log_ratio[b, k] = half * total


@jit
def log_ratio_backward(dz, dlogvar, dlog_ratio, z):
    zero, half = z.dtype.type(0), z.dtype.type(0.5)
    for b in range(z.shape[0]):
        total = zero
        for k in range(z.shape[1]):
            total += dlog_ratio[b, k]
            for j in range(z.shape[2]):
                dz[b, k, j] = dlog_ratio[b, k] * z[b, k, j]
        for j in range(z.shape[2]):
            dlogvar[b, j] = -half * total


@jit
def log_q_forward(log_q, logvar, eps):
    zero, half, log_2pi = eps.dtype.type(0), eps.dtype.type(0.5), eps.dtype.type(LOG_2PI)
    for b in range(eps.shape[0]):
        for k in range(eps.shape[1]):
            total = zero
            for j in range(eps.shape[2]):
                total += eps[b, k, j] * eps[b, k, j] + (logvar[b, j] + log_2pi)
            log_q[b, k] = -half * total


@jit
def log_q_backward(dlogvar, dlog_q):
    zero, half = dlog_q.dtype.type(0), dlog_q.dtype.type(0.5)
    for b in range(dlog_q.shape[0]):
        total = zero
        for k in range(dlog_q.shape[1]):
            total += dlog_q[b, k]
        for j in range(dlogvar.shape[1]):
            dlogvar[b, j] = -half * total
