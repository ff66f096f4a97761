"""Products, sums and copies of whole arrays, which join the other kernels.  Read first."""
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]      # of float32, float64 or complex128

LOG_2PI = math.log(2 * math.pi)


def matmul(out: Array, a: Array, b: Array) -> None:
    """out = a b.   a (M, L);  b (L, N);  either may be a transposed view.  Computed by BLAS in both twins.

    Its backward pass is two more products:  da = dout b^T,  D0.2,  and  db = a^T dout,  D0.3.
    """
    np.matmul(a, b, out=out)


def add(out: Array, a: Array, b: Array) -> None:
    """out = a + b, all of one shape.  Where a value is used twice, its two gradients are added (D0.4)."""
    np.add(a, b, out=out)


def subtract(out: Array, a: Array, b: Array) -> None:
    """out = a - b, all of one shape."""
    np.subtract(a, b, out=out)


def negate(out: Array, a: Array) -> None:
    """out = -a, both of one shape."""
    np.negative(a, out=out)


def sum_first(out: Array, x: Array) -> None:
    """out[b, k] = sum_t x[t, b, k].   x (T, B, K);  out (B, K)."""
    np.sum(x, axis=0, out=out)


def transpose(out: Array, a: Array) -> None:
    """out[i, j] = a[j, i].   out (M, N);  a (N, M)."""
    out[...] = a.T


def transpose_each(out: Array, a: Array) -> None:
    """out[r, i, j] = a[r, j, i]:  each matrix of a row of them is transposed.   out (R, M, N);  a (R, N, M)."""
    out[...] = a.swapaxes(1, 2)


def sum_squares(total: Array, x: Array) -> None:
    """total = sum_i x[i]^2.   total (1,);  x (P,).   Infinite or NaN if any entry is."""
    total[...] = np.dot(x, x)


def add_to_draws_forward(out: Array, x: Array, y: Array) -> None:
    """out[b, k] = x[b, k] + y[b]:  y, computed once per image, is added to each of its K draws.

    x, out (B, K, H);  y (B, H).
    """
    np.add(x, y[:, None, :], out=out)


def add_to_draws_backward(dy: Array, dout: Array) -> None:
    """Backward pass of  out[b, k] = x[b, k] + y[b]:   dy[b] = sum_k dout[b, k].   dx equals dout and is not written."""
    np.sum(dout, axis=1, out=dy)


def append_labels_forward(out: Array, x: Array, labels: NDArray[np.integer]) -> None:
    """out[r] = [x[r], one-hot of labels[r // K]]:  the input of a conditional encoder or decoder (Sohn et al. 2015).

    x (B K, N);  labels (B,), one for the K rows of an image;  out (B K, N + L), with L classes.
    """
    width, draws = x.shape[1], len(x) // len(labels)
    out[:, :width] = x
    out[:, width:] = np.arange(out.shape[1] - width) == np.repeat(labels, draws)[:, None]


def append_labels_backward(dx: Array, dout: Array) -> None:
    """Backward pass of  out = [x, one-hot]:   dx (B K, N) is the first N columns of dout (B K, N + L)."""
    dx[...] = dout[:, :dx.shape[1]]
