"""Products and sums of whole arrays.  A matrix product is BLAS's, here as in the reference."""
from ..reference.arrays import matmul
from .compile import jit

__all__ = ["matmul", "add", "transpose", "sum_squares"]


@jit
def add(out, a, b):
    total, one, other = out.ravel(), a.ravel(), b.ravel()      # views, since the arrays are contiguous
    for i in range(total.size):
        total[i] = one[i] + other[i]


@jit
def transpose(out, a):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[j, i]


@jit
def sum_squares(total, x):
    squares = x.dtype.type(0)
    for i in range(x.size):
        squares += x[i] * x[i]
    total[0] = squares
