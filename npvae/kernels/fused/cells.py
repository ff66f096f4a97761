"""Cells and their sums, fused."""
from .compile import jit


@jit
def sum_cells_forward(nll, cells):
    zero = nll.dtype.type(0)
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            total = zero
            for d in range(cells.shape[2]):
                total += cells[b, k, d]
            nll[b, k] = total


@jit
def sum_cells_backward(dcells, dnll):
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            for d in range(dcells.shape[2]):
                dcells[b, k, d] = dnll[b, k]


@jit
def sum_observed_forward(nll, cells, missing):
    zero = nll.dtype.type(0)
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            total = zero
            for d in range(cells.shape[2]):
                total += cells[b, k, d] if missing[b, d] == zero else zero * missing[b, d]
            nll[b, k] = total


@jit
def sum_observed_backward(dcells, dnll, missing):
    zero = dnll.dtype.type(0)
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            for d in range(dcells.shape[2]):
                dcells[b, k, d] = dnll[b, k] if missing[b, d] == zero else zero * missing[b, d]


@jit
def split_missing(filled, missing, x, placeholder):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for b in range(x.shape[0]):
        for d in range(x.shape[1]):
            gone = x[b, d] != x[b, d]
            missing[b, d] = one if gone else zero
            filled[b, d] = placeholder[d] if gone else x[b, d]


@jit
def append_missing(out, features, missing, columns):
    zero, width = features.dtype.type(0), features.shape[1]
    for b in range(features.shape[0]):
        for f in range(width):
            gone = missing[b, columns[f]]
            out[b, f] = features[b, f] if gone == zero else zero * gone
        for d in range(missing.shape[1]):
            out[b, width + d] = missing[b, d]
