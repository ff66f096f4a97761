"""Bias and activation: what a dense layer does after its matrix product.  Read after `arrays.py`.

A dense layer is  out = f(a),  a = pre + b,  pre = x W.  BLAS computes the product; the kernels here add the bias and
apply the activation f to each entry.  Shapes:  pre, out (B, H);  b (H,).

The backward kernels share one derivation:

    dpre[i, j] = dout[i, j] * f'(a[i, j])          (D1.2)  each entry of out depends on one entry of a
    db[j]      = sum over i of dpre[i, j]          (D1.3)  the same b[j] is added to every row

f' is computed *from the output*: f'(a) is written as a function of f(a), so `pre` need not be kept.  SiLU and GELU, at
the end of the file, compute f' from a.  They are not monotonic: two inputs with different slopes have the same output.

Every comparison with NaN is False, so each comparison is written such that False leaves the NaN in place.
"""
import math

import numpy as np

from .arrays import Array

#: slope of the leaky ReLU for negative inputs (Maas et al. 2013)
LEAKY_SLOPE = 0.01


def identity_forward(out: Array, pre: Array, b: Array) -> None:
    """out = pre + b."""
    np.add(pre, b, out=out)


def identity_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1  (D2.1).   b was added to every row, so db is the sum of the rows of dpre  (D0.5)."""
    dpre[...] = dout
    np.sum(dpre, axis=0, out=db)


def relu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = max(0, a),  a = pre + b (Nair and Hinton 2010)."""
    a = pre + b
    out[...] = np.where(a.real < 0, 0, a)


def relu_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 where out > 0, else 0  (D2.2).  At a = 0 f has no derivative, and 0 is used."""
    dpre[...] = np.where(out.real > 0, dout, 0)
    np.sum(dpre, axis=0, out=db)


def leaky_relu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = a where a >= 0, else s a,  with the slope s = LEAKY_SLOPE."""
    a = pre + b
    out[...] = np.where(a.real < 0, LEAKY_SLOPE * a, a)


def leaky_relu_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 where out > 0, else s  (D2.3).  Since s > 0, out and a have the same sign."""
    dpre[...] = np.where(out.real > 0, dout, LEAKY_SLOPE * dout)
    np.sum(dpre, axis=0, out=db)


def elu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = a where a >= 0, else exp(a) - 1 (Clevert et al. 2016, equation 15, with alpha = 1).

    Computed as  max(a, 0) + expm1(min(a, 0)).  expm1 keeps the digits of exp(a) - 1 near a = 0, and cannot overflow, as
    its argument is never positive.
    """
    a = pre + b
    out[...] = np.where(a.real < 0, 0, a) + np.expm1(np.where(a.real < 0, a, 0))


def elu_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 where out >= 0, else exp(a) = out + 1  (D2.4)."""
    dpre[...] = np.where(out.real < 0, dout * (out + 1), dout)
    np.sum(dpre, axis=0, out=db)


def tanh_forward(out: Array, pre: Array, b: Array) -> None:
    """out = tanh(a),  a = pre + b."""
    np.tanh(pre + b, out=out)


def tanh_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 - tanh(a)^2 = (1 - out)(1 + out)  (D2.5): the product keeps more digits than the square.

    As for every elementwise function the Jacobian is diagonal, so the vector-Jacobian product is  dout * f'(a)  (D0.6).
    """
    dpre[...] = dout * (1 - out) * (1 + out)
    np.sum(dpre, axis=0, out=db)


def minus_abs(a: Array) -> Array:
    """-|a|, by the sign of the real part: the absolute value is not an analytic function of a complex number."""
    return np.where(a.real < 0, a, -a)


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), with e = exp(-|a|) so that nothing overflows:

        a >= 0:  1 / (1 + e)          a < 0:  e / (1 + e)          (D2.8)
    """
    e = np.exp(minus_abs(a))
    value: Array = np.where(a.real < 0, e, 1) / (1 + e)
    return value


def softplus(a: Array) -> Array:
    """log(1 + exp(a)) = max(a, 0) + log1p(exp(-|a|))  (D2.9).  The second form neither overflows nor loses digits."""
    return np.where(a.real < 0, 0, a) + np.log1p(np.exp(minus_abs(a)))


def sigmoid_forward(out: Array, pre: Array, b: Array) -> None:
    """out = 1 / (1 + exp(-a)),  a = pre + b."""
    out[...] = sigmoid(pre + b)


def sigmoid_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = exp(-a) / (1 + exp(-a))^2 = out (1 - out)  (D2.6)."""
    dpre[...] = dout * out * (1 - out)
    np.sum(dpre, axis=0, out=db)


def softplus_forward(out: Array, pre: Array, b: Array) -> None:
    """out = log(1 + exp(a)),  a = pre + b."""
    out[...] = softplus(pre + b)


def softplus_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 / (1 + exp(-a)) = 1 - exp(-out)  (D2.7),  since  exp(out) = 1 + exp(a)."""
    dpre[...] = dout * -np.expm1(-out)
    np.sum(dpre, axis=0, out=db)


def bounded(a: Array, most: float) -> Array:
    """a, or -most or most where its real part lies beyond.  Avoids inf * 0 where a is multiplied by something that is
    0."""
    return np.where(a.real < -most, -most, np.where(a.real > most, most, a))


def silu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = a sigma(a),  sigma(a) = 1 / (1 + exp(-a)) (Hendrycks and Gimpel 2016; swish in Ramachandran et al. 2017).
    """
    a = pre + b
    out[...] = np.where(a.real < 0, bounded(a, 1000), a) * sigmoid(a)


def silu_backward(dpre: Array, db: Array, dout: Array, pre: Array, b: Array) -> None:
    """f'(a) = sigma(a) + a sigma(a) (1 - sigma(a)) = sigma(a) (1 + a sigma(-a))  (D2.10).

    sigma(-a) is computed directly, as 1 - sigma(a) rounds to 0 from a = 37 on.
    """
    a = pre + b
    dpre[...] = dout * sigmoid(a) * (1 + bounded(a, 1000) * sigmoid(-a))
    np.sum(dpre, axis=0, out=db)


#: h, the distance of the nodes v_n in the sum of `normal_tail`, whose error is exp(-(2 pi / h)^2 / 2) = 3e-18
STEP = 0.7
#: v^2 and 2 h phi(v) of each node v > 0; that of the next one would be 1e-17
POINTS = [(v * v, 2 * STEP * math.exp(-v * v / 2) / math.sqrt(2 * math.pi))
          for v in (STEP * (n + 0.5) for n in range(12))]


def normal_density(t: Array) -> Array:
    """phi(t) = exp(-t^2 / 2) / sqrt(2 pi).

    The rounding error of t^2, which may be several hundred, would become a large relative error of the exponential.  So
    t^2 = h^2 + (t - h)(t + h),  where h is t rounded to a multiple of 1/16, and h^2 is exact (Cody 1969).
    """
    h = np.rint(16 * t.real) / 16
    density: Array = np.exp(-h * h / 2) * np.exp(-(t - h) * (t + h) / 2) / math.sqrt(2 * math.pi)
    return density


def normal_tail(t: Array) -> Array:
    """Phi(-t), the probability that a standard normal number is below -t, for t >= 0, to full relative precision.

        Phi(-t) = phi(t) h sum over n of  t phi(v_n) / (t^2 + v_n^2)  +  1 / (1 + exp(2 pi t / h)),
                  v_n = (n + 1/2) h,  n = ..., -1, 0, 1, ...       (D2.12)

    The sum is the midpoint rule for an integral from -infinity to infinity, where the rule is nearly exact.  The second
    term corrects for the pole of the integrand at v = it (Goodwin 1949; Chiarella and Reichel 1968).  No term is
    negative, so nothing cancels.  Beyond t = 8 the correction is below rounding and is left out; further out it would
    exceed Phi(-t).
    """
    inside: Array = np.zeros_like(t)
    for square, weight in POINTS:
        inside = inside + weight / (t * t + square)
    return normal_density(t) * t * inside + np.where(t.real < 8, sigmoid(-2 * math.pi / STEP * t), 0)


def gelu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = a Phi(a),  Phi(a) = (1 + erf(a / sqrt 2)) / 2 (Hendrycks and Gimpel 2016).  With t = |a|:

        a >= 0:  a - t Phi(-t)         a < 0:  -t Phi(-t)
    """
    a = pre + b
    t = -minus_abs(bounded(a, 1000))
    out[...] = np.where(a.real < 0, 0, a) - t * normal_tail(t)


def gelu_backward(dpre: Array, db: Array, dout: Array, pre: Array, b: Array) -> None:
    """f'(a) = Phi(a) + a phi(a)  (D2.11).  With t = |a| and s = t phi(t) - Phi(-t):

        a >= 0:  1 + s         a < 0:  -s
    """
    a = pre + b
    t = -minus_abs(bounded(a, 1000))
    s = t * normal_density(t) - normal_tail(t)
    dpre[...] = dout * np.where(a.real < 0, -s, 1 + s)
    np.sum(dpre, axis=0, out=db)
