"""Rows of the data set by index, as numbers the encoder can take.  Last chapter of the kernels; no derivatives.

Shapes:  x, noise (B, D);  rows (N, D), uint8 or float;  index (B,) integers.
"""
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def gather_rows(x: Array, rows: NDArray[Any], index: NDArray[np.integer], scale: float) -> None:
    """x[b] = scale * rows[index[b]].   scale is 1/255 for bytes and 1 for floats; the data set is never copied."""
    np.multiply(rows[index], x.dtype.type(scale), out=x)


def gather_binarized(x: Array, rows: NDArray[Any], index: NDArray[np.integer], noise: Array, scale: float) -> None:
    """x[b, d] = 1 with probability p = scale * rows[index[b], d], else 0: a new draw at every visit.

    noise is uniform on [0, 1), drawn by the caller; noise < p has probability p.  (Dynamic binarization: Burda et al.
    2016, section 5.)
    """
    np.less(noise, rows[index] * x.dtype.type(scale), out=x)
