"""Products and sums of whole arrays.  BLAS makes the matrix products, here as in the reference."""
from typing import Any

from numpy.typing import NDArray

from ..reference.arrays import matmul
from .compile import jit

__all__ = ["matmul", "add", "subtract", "negate", "sum_first", "transpose", "transpose_each", "sum_squares",
           "add_to_draws_forward", "add_to_draws_backward", "append_labels_forward", "append_labels_backward"]


def add(out, a, b):
    add_rows(*as_rows(out, a, b))


def subtract(out, a, b):
    subtract_rows(*as_rows(out, a, b))


def negate(out, a):
    negate_rows(*as_rows(out, a))


def as_rows(*arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Views as matrices, so that one compiled kernel serves all shapes: contiguous arrays become one row; parts of
    larger arrays are matrices already."""
    whole = all(array.flags.c_contiguous for array in arrays)
    return tuple(array.reshape(1, -1) for array in arrays) if whole else arrays


@jit
def add_rows(out, a, b):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] + b[i, j]


@jit
def subtract_rows(out, a, b):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] - b[i, j]


@jit
def negate_rows(out, a):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = -a[i, j]


@jit
def sum_first(out, x):
    for j in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[j, k] = x[0, j, k]
    for i in range(1, x.shape[0]):
        for j in range(out.shape[0]):
            for k in range(out.shape[1]):
                out[j, k] += x[i, j, k]


@jit
def transpose(out, a):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[j, i]


@jit
def transpose_each(out, a):
    for r in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[r, i, j] = a[r, j, i]


@jit
def sum_squares(total, x):
    squares = x.dtype.type(0)
    for i in range(x.size):
        squares += x[i] * x[i]
    total[0] = squares


@jit
def add_to_draws_forward(out, x, y):
    for b in range(out.shape[0]):
        for k in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[b, k, j] = x[b, k, j] + y[b, j]


@jit
def add_to_draws_backward(dy, dout):
    for b in range(dout.shape[0]):
        for j in range(dout.shape[2]):
            dy[b, j] = dout[b, 0, j]
        for k in range(1, dout.shape[1]):
            for j in range(dout.shape[2]):
                dy[b, j] += dout[b, k, j]


@jit
def append_labels_forward(out, x, labels):
    zero, one, width, draws = x.dtype.type(0), x.dtype.type(1), x.shape[1], x.shape[0] // labels.size
    for r in range(x.shape[0]):
        for j in range(width):
            out[r, j] = x[r, j]
        for j in range(width, out.shape[1]):
            out[r, j] = zero
        out[r, width + labels[r // draws]] = one


@jit
def append_labels_backward(dx, dout):
    for r in range(dx.shape[0]):
        for j in range(dx.shape[1]):
            dx[r, j] = dout[r, j]
