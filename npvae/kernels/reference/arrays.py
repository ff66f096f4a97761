"""Products and sums of whole arrays: what joins the other chapters.  First chapter of the kernels."""
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def matmul(out: Array, a: Array, b: Array) -> None:
    """out = a b.   a (M, L);  b (L, N);  either may be a transposed view.  BLAS does it, for both twins.

    Its gradients are products again:  da = dout b^T  (D0.2)  and  db = a^T dout  (D0.3).
    """
    np.matmul(a, b, out=out)


def add(out: Array, a: Array, b: Array) -> None:
    """out = a + b: where two paths meet, their gradients are added (D0.4).   All of one shape."""
    np.add(a, b, out=out)


def transpose(out: Array, a: Array) -> None:
    """out[i, j] = a[j, i].   out (M, N);  a (N, M)."""
    out[...] = a.T


def sum_squares(total: Array, x: Array) -> None:
    """total[0] = sum_i x[i]^2,  x (P,): infinite or NaN as soon as one entry is."""
    total[0] = np.dot(x, x)
