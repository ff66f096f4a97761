"""Bias and activation, fused: one pass that adds the bias, applies f and writes; one that makes dpre and db."""
from ..reference.dense import LEAKY_SLOPE
from .compile import jit
from .elementary import exp_unit, expm1, log1p_unit, normal


@jit
def identity_forward(out, pre, b):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = pre[i, j] + b[j]


@jit
def identity_backward(dpre, db, dout, out):
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j]
            db[j] += dpre[i, j]


@jit
def relu_forward(out, pre, b):
    zero = b.dtype.type(0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            out[i, j] = zero if a < zero else a


@jit
def relu_backward(dpre, db, dout, out):
    zero = out.dtype.type(0)
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j] if out[i, j] > zero else zero
            db[j] += dpre[i, j]


@jit
def leaky_relu_forward(out, pre, b):
    zero, slope = b.dtype.type(0), b.dtype.type(LEAKY_SLOPE)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            out[i, j] = slope * a if a < zero else a


@jit
def leaky_relu_backward(dpre, db, dout, out):
    zero, slope = out.dtype.type(0), out.dtype.type(LEAKY_SLOPE)
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j] if out[i, j] > zero else slope * dout[i, j]
            db[j] += dpre[i, j]


@jit
def elu_forward(out, pre, b):
    zero = b.dtype.type(0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            out[i, j] = expm1(a if a < zero else zero) if a < zero else a


@jit
def elu_backward(dpre, db, dout, out):
    zero, one = out.dtype.type(0), out.dtype.type(1)
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j] * (out[i, j] + one) if out[i, j] < zero else dout[i, j]
            db[j] += dpre[i, j]


@jit
def tanh_forward(out, pre, b):
    # With m = exp(-2|a|) - 1, tanh|a| = -m / (2 + m); no digits are lost near a = 0.
    zero, two = b.dtype.type(0), b.dtype.type(2)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            m = expm1(two * a if a < zero else -two * a)
            t = m / (two + m)
            out[i, j] = t if a < zero else -t


@jit
def tanh_backward(dpre, db, dout, out):
    one = out.dtype.type(1)
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j] * (one - out[i, j]) * (one + out[i, j])
            db[j] += dpre[i, j]


@jit
def sigmoid_forward(out, pre, b):
    zero, one = b.dtype.type(0), b.dtype.type(1)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            e = exp_unit(a if a < zero else -a)
            out[i, j] = (e if a < zero else one) / (one + e)


@jit
def sigmoid_backward(dpre, db, dout, out):
    one = out.dtype.type(1)
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j] * out[i, j] * (one - out[i, j])
            db[j] += dpre[i, j]


@jit
def softplus_forward(out, pre, b):
    zero = b.dtype.type(0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            out[i, j] = (zero if a < zero else a) + log1p_unit(exp_unit(a if a < zero else -a))


@jit
def softplus_backward(dpre, db, dout, out):
    db[:] = 0
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dpre[i, j] = dout[i, j] * -expm1(-out[i, j])
            db[j] += dpre[i, j]


@jit
def silu_forward(out, pre, b):
    # From a = -1000 down the result is 0; unbounded, -inf * exp(-inf) would be NaN.
    zero, one, least = b.dtype.type(0), b.dtype.type(1), b.dtype.type(-1000)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            a = least if a < least else a
            e = exp_unit(a if a < zero else -a)
            out[i, j] = (a * e if a < zero else a) / (one + e)


@jit
def silu_backward(dpre, db, dout, pre, b):
    zero, one, most = b.dtype.type(0), b.dtype.type(1), b.dtype.type(1000)
    db[:] = 0
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            a = pre[i, j] + b[j]
            a = -most if a < -most else a
            a = most if a > most else a
            e = exp_unit(a if a < zero else -a)
            large = one / (one + e)      # sigma(|a|) and sigma(-|a|)
            small = e * large
            dpre[i, j] = dout[i, j] * (small * (one + a * large) if a < zero else large * (one + a * small))
            db[j] += dpre[i, j]


@jit
def gelu_forward(out, pre, b):
    # phi(40) is 0: larger |a| would change nothing.
    zero, most = b.dtype.type(0), b.dtype.type(40)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a = pre[i, j] + b[j]
            t = -a if a < zero else a
            t = most if t > most else t
            phi, ratio = normal(t)
            out[i, j] = (zero if a < zero else a) - t * ratio * phi


@jit
def gelu_backward(dpre, db, dout, pre, b):
    zero, one, most = b.dtype.type(0), b.dtype.type(1), b.dtype.type(40)
    db[:] = 0
    for i in range(pre.shape[0]):
        for j in range(pre.shape[1]):
            a = pre[i, j] + b[j]
            t = -a if a < zero else a
            t = most if t > most else t
            phi, ratio = normal(t)
            s = phi * (t - ratio)
            dpre[i, j] = dout[i, j] * (-s if a < zero else one + s)
            db[j] += dpre[i, j]
