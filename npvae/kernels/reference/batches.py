"""What a step is given from outside: rows of the data set, and noise.  Last chapter of the kernels; no derivatives.

Shapes:  x, noise (B, D);  rows (N, D), uint8 or float;  index (B,) integers;  eps, uniform (2 N,).
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


def box_muller(eps: Array, uniform: NDArray[np.float32]) -> None:
    """Two numbers from N(0, 1) for two from the uniform distribution on [0, 1), which the caller draws:

        r = sqrt(-2 log(1 - u[0])),      eps[0] = r cos(2 pi u[1]),      eps[1] = r sin(2 pi u[1])     (D5.7)

    In the plane, r^2 / 2 is exponentially distributed and the direction uniform (Box and Muller 1958).  1 - u is never
    zero.  All in float32, whatever the type of eps, so that runs in float32 and float64 see the same noise.
    """
    r = np.sqrt(-2 * np.log(1 - uniform[::2]))
    angle = np.float32(2 * np.pi) * uniform[1::2]
    eps[::2], eps[1::2] = r * np.cos(angle), r * np.sin(angle)
