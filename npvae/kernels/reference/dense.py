"""Bias and activation: what a dense layer does after its matrix product.  Second chapter of the kernels.

A dense layer is  out = f(pre + b)  with  pre = x W.  BLAS makes the product; the kernels here add the bias and apply
the activation f, elementwise.  Shapes:  pre, out (B, H);  b (H,).

The backward kernels share one derivation.  With a = pre + b and out = f(a),

    dpre[i, j] = dout[i, j] * f'(a[i, j])          (D1.2)  each entry of out depends on one entry of a
    db[j]      = sum over i of dpre[i, j]          (D1.3)  the same b[j] is added to every row

and f' is always taken *from the output* (f'(a) written as a function of f(a)), so `pre` need not be kept.

Comparisons are written so that NaN fails them on the side that keeps it: `a < 0` is False for NaN, and NaN stays.
"""
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

#: slope of the leaky ReLU for negative inputs (Maas et al. 2013)
LEAKY_SLOPE = 0.01


def identity_forward(out: Array, pre: Array, b: Array) -> None:
    """out = pre + b."""
    np.add(pre, b, out=out)


def identity_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1  (D2.1).   The one row b was added to all rows, so db is the sum of the rows of dpre  (D0.5)."""
    dpre[...] = dout
    np.sum(dpre, axis=0, out=db)


def relu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = max(0, a), a = pre + b (Nair and Hinton 2010)."""
    a = pre + b
    out[...] = np.where(a.real < 0, 0, a)


def relu_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 where out > 0, else 0  (D2.2).  At the kink a = 0, where f has no derivative, 0 is taken."""
    dpre[...] = np.where(out.real > 0, dout, 0)
    np.sum(dpre, axis=0, out=db)


def leaky_relu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = a where a >= 0, else s a, with the slope s = LEAKY_SLOPE."""
    a = pre + b
    out[...] = np.where(a.real < 0, LEAKY_SLOPE * a, a)


def leaky_relu_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 where out > 0, else s  (D2.3).  (s > 0, so out and a have the same sign.)"""
    dpre[...] = np.where(out.real > 0, dout, LEAKY_SLOPE * dout)
    np.sum(dpre, axis=0, out=db)


def elu_forward(out: Array, pre: Array, b: Array) -> None:
    """out = a where a >= 0, else exp(a) - 1 (Clevert et al. 2016, equation 15, with alpha = 1):

    max(a, 0) + expm1(min(a, 0)).  expm1 keeps the digits of exp(a) - 1 near a = 0, and of no positive number it cannot
    overflow.
    """
    a = pre + b
    out[...] = np.where(a.real < 0, 0, a) + np.expm1(np.where(a.real < 0, a, 0))


def elu_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 where out >= 0, else exp(a) = out + 1  (D2.4)."""
    dpre[...] = np.where(out.real < 0, dout * (out + 1), dout)
    np.sum(dpre, axis=0, out=db)


def tanh_forward(out: Array, pre: Array, b: Array) -> None:
    """out = tanh(a)."""
    np.tanh(pre + b, out=out)


def tanh_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 - tanh(a)^2 = (1 - out)(1 + out)  (D2.5): the product keeps more digits than the square.

    As for every elementwise function the Jacobian is diagonal, and its product with dout is dout f'(a)  (D0.6).
    """
    dpre[...] = dout * (1 - out) * (1 + out)
    np.sum(dpre, axis=0, out=db)


def minus_abs(a: Array) -> Array:
    """-|a|, by the sign of the real part: the absolute value of a complex number is no analytic function."""
    return np.where(a.real < 0, a, -a)


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), with e = exp(-|a|) so that nothing overflows:

        a >= 0:  1 / (1 + e)          a < 0:  e / (1 + e)          (D2.8)
    """
    e = np.exp(minus_abs(a))
    return np.where(a.real < 0, e, 1) / (1 + e)


def softplus(a: Array) -> Array:
    """log(1 + exp(a)) = max(a, 0) + log1p(exp(-|a|))  (D2.9): the second neither overflows nor loses digits."""
    return np.where(a.real < 0, 0, a) + np.log1p(np.exp(minus_abs(a)))


def sigmoid_forward(out: Array, pre: Array, b: Array) -> None:
    """out = 1 / (1 + exp(-a))."""
    out[...] = sigmoid(pre + b)


def sigmoid_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = exp(-a) / (1 + exp(-a))^2 = out (1 - out)  (D2.6)."""
    dpre[...] = dout * out * (1 - out)
    np.sum(dpre, axis=0, out=db)


def softplus_forward(out: Array, pre: Array, b: Array) -> None:
    """out = log(1 + exp(a))."""
    out[...] = softplus(pre + b)


def softplus_backward(dpre: Array, db: Array, dout: Array, out: Array) -> None:
    """f'(a) = 1 / (1 + exp(-a)).  From the output: exp(out) = 1 + exp(a), hence f'(a) = 1 - exp(-out)  (D2.7)."""
    dpre[...] = dout * -np.expm1(-out)
    np.sum(dpre, axis=0, out=db)
