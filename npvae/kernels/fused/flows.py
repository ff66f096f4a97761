"""Flows, fused: a step is a few sums over the latent dimensions; NumPy makes a temporary array for each."""
import math

from .compile import jit
from .elementary import exp_unit, expm1, log1p_unit


@jit
def planar_direction_forward(u_hat, stretch, u, w):
    zero, one = w.dtype.type(0), w.dtype.type(1)
    for b in range(w.shape[0]):
        a, n = zero, zero
        for j in range(w.shape[1]):
            a += w[b, j] * u[b, j]
            n += w[b, j] * w[b, j]
        log1p = log1p_unit(exp_unit(a if a < zero else -a))
        stretch[b] = (zero if a < zero else a) + log1p
        c = ((-a if a < zero else zero) + log1p - one) / n
        for j in range(w.shape[1]):
            u_hat[b, j] = u[b, j] + c * w[b, j]


@jit
def planar_direction_backward(du, dw, du_hat, dstretch, u, w):
    zero, one, two = w.dtype.type(0), w.dtype.type(1), w.dtype.type(2)
    for b in range(w.shape[0]):
        a, n, dpull = zero, zero, zero
        for j in range(w.shape[1]):
            a += w[b, j] * u[b, j]
            n += w[b, j] * w[b, j]
            dpull += du_hat[b, j] * w[b, j]
        dpull /= n
        e = exp_unit(a if a < zero else -a)
        c = ((-a if a < zero else zero) + log1p_unit(e) - one) / n
        da = ((e if a < zero else one) * dstretch[b] - (one if a < zero else e) * dpull) / (one + e)
        dn = -dpull * c
        for j in range(w.shape[1]):
            du[b, j] = du_hat[b, j] + da * w[b, j]
            dw[b, j] = c * du_hat[b, j] + da * u[b, j] + two * dn * w[b, j]


@jit
def planar_forward(z, log_det, pre, z0, u_hat, stretch, w, bias):
    zero, one, two, four = z.dtype.type(0), z.dtype.type(1), z.dtype.type(2), z.dtype.type(4)
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            a = zero
            for j in range(z.shape[2]):
                a += w[b, j] * z0[b, k, j]
            a += bias[b]
            e, m = exp_unit(two * a if a < zero else -two * a), expm1(two * a if a < zero else -two * a)
            t = m / (two + m) if a < zero else -m / (two + m)      # as in `tanh_forward`
            for j in range(z.shape[2]):
                z[b, k, j] = z0[b, k, j] + u_hat[b, j] * t
            pre[b, k] = a
            log_det[b, k] = math.log(t * t + four * e / ((one + e) * (one + e)) * stretch[b])      # one for all j


@jit
def planar_backward(dz0, du_hat, dstretch, dw, dbias, dz, dlog_det, pre, z0, u_hat, stretch, w):
    zero, one, two, four = dz.dtype.type(0), dz.dtype.type(1), dz.dtype.type(2), dz.dtype.type(4)
    for b in range(dz.shape[0]):
        dstretch[b] = zero
        dbias[b] = zero
        for j in range(dz.shape[2]):
            du_hat[b, j] = zero
            dw[b, j] = zero
        for k in range(dz.shape[1]):
            a = pre[b, k]
            e, m = exp_unit(two * a if a < zero else -two * a), expm1(two * a if a < zero else -two * a)
            t, slope = (m / (two + m) if a < zero else -m / (two + m)), four * e / ((one + e) * (one + e))
            ddet = dlog_det[b, k] / (t * t + slope * stretch[b])
            dt = zero
            for j in range(dz.shape[2]):
                dt += dz[b, k, j] * u_hat[b, j]
            dpre = slope * (dt + two * t * (one - stretch[b]) * ddet)
            for j in range(dz.shape[2]):
                dz0[b, k, j] = dz[b, k, j] + dpre * w[b, j]
                du_hat[b, j] += t * dz[b, k, j]
                dw[b, j] += dpre * z0[b, k, j]
            dstretch[b] += slope * ddet
            dbias[b] += dpre


@jit
def gate_forward(z, log_det, z0, net):
    zero, one, size = z.dtype.type(0), z.dtype.type(1), z.shape[2]
    for b in range(z.shape[0]):
        for k in range(z.shape[1]):
            total = zero
            for j in range(size):
                m, g = net[b, k, j], net[b, k, size + j]
                e = exp_unit(g if g < zero else -g)
                more = one / (one + e)
                gate, rest = (e * more, more) if g < zero else (more, e * more)
                z[b, k, j] = gate * z0[b, k, j] + rest * m
                total += (-g if g < zero else zero) + log1p_unit(e)
            log_det[b, k] = -total


@jit
def gate_backward(dz0, dnet, dz, dlog_det, z0, net):
    zero, one, size = dz.dtype.type(0), dz.dtype.type(1), dz.shape[2]
    for b in range(dz.shape[0]):
        for k in range(dz.shape[1]):
            for j in range(size):
                m, g = net[b, k, j], net[b, k, size + j]
                e = exp_unit(g if g < zero else -g)
                more = one / (one + e)
                gate, rest = (e * more, more) if g < zero else (more, e * more)
                dz0[b, k, j] = gate * dz[b, k, j]
                dnet[b, k, j] = rest * dz[b, k, j]
                dnet[b, k, size + j] = rest * (gate * (z0[b, k, j] - m) * dz[b, k, j] + dlog_det[b, k])
