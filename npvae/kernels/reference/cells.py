"""Cells: the terms of -log p(x|z), one for each column of x, and their sum over the columns that were observed.  Read
after `likelihoods.py`.

A likelihood that is independent between columns, given z, is a sum:  -log p(x|z) = sum_d cells[b, k, d]  with
cells[b, k, d] = -log p(x[b, d] | z[b, k]).  So a missing cell can be left out of the sum, and what stands in its place
has no influence.

Shapes:  nll (B, K);  cells (B, K, D);  x, filled, missing (B, D): missing is 1 where a cell of x is missing, else 0.
"""
import numpy as np
from numpy.typing import NDArray

from .arrays import Array


def sum_cells_forward(nll: Array, cells: Array) -> None:
    """nll[b, k] = sum_d cells[b, k, d]."""
    np.sum(cells, axis=-1, out=nll)


def sum_cells_backward(dcells: Array, dnll: Array) -> None:
    """Backward pass of  nll = sum_d cells:   dcells[b, k, d] = dnll[b, k]."""
    dcells[...] = dnll[:, :, None]


def sum_observed_forward(nll: Array, cells: Array, missing: Array) -> None:
    """nll[b, k] = sum_d cells[b, k, d], over the columns d that are observed in row b  (D18.1).

    A missing cell is not multiplied by 0 but left out: it may be infinite.
    """
    missing = missing[:, None, :]
    np.sum(np.where(missing == 0, cells, 0 * missing), axis=-1, out=nll)


def sum_observed_backward(dcells: Array, dnll: Array, missing: Array) -> None:
    """Backward pass of  nll = sum_d cells  over the observed columns:

        dcells[b, k, d] = dnll[b, k]  where x[b, d] is observed,  0  where it is missing         (D18.2)
    """
    missing = missing[:, None, :]
    dcells[...] = np.where(missing == 0, dnll[:, :, None], 0 * missing)


def split_missing(filled: Array, missing: Array, x: Array, placeholder: Array) -> None:
    """x (B, D), NaN where a cell is missing, as two arrays: missing = 1 there, else 0;  filled = placeholder[d] there,
    else x.   placeholder (D,)."""
    gone = np.isnan(x)
    missing[...] = gone
    filled[...] = np.where(gone, placeholder, x)


def append_missing(out: Array, features: Array, missing: Array, columns: NDArray[np.integer]) -> None:
    """out[b] = [features[b], 0 where they are of a missing cell;  missing[b]]:  the input of an encoder of rows with
    missing cells  (D18.3).   features (B, F), of which number f is computed from column columns[f];  out (B, F + D)."""
    width = features.shape[1]
    gone = missing[:, columns]
    out[:, :width] = np.where(gone == 0, features, 0 * gone)
    out[:, width:] = missing
