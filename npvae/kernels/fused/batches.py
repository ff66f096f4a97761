"""Rows of the data set by index, fused: converted and binarized on the way, with no copy between."""
from .compile import jit


@jit
def gather_rows(x, rows, index, scale):
    factor = x.dtype.type(scale)
    for b in range(x.shape[0]):
        row = index[b]
        for d in range(x.shape[1]):
            x[b, d] = x.dtype.type(rows[row, d]) * factor


@jit
def gather_binarized(x, rows, index, noise, scale):
    zero, one, factor = x.dtype.type(0), x.dtype.type(1), x.dtype.type(scale)
    for b in range(x.shape[0]):
        row = index[b]
        for d in range(x.shape[1]):
            x[b, d] = one if noise[b, d] < x.dtype.type(rows[row, d]) * factor else zero
