"""What a training step is given from outside: rows of the data set, and noise.  Read last; there are no derivatives.

Shapes:  x, noise (B, D);  rows (N, D), uint8 or float;  index (B,) integers;  eps, uniform (2 N,).
"""
import numpy as np
from numpy.typing import NDArray

from .arrays import Array


def gather_rows(x: Array, rows: NDArray[np.number], index: NDArray[np.integer], scale: float) -> None:
    """x[b] = scale * rows[index[b]].   scale is 1/255 for bytes, 1 for floats; the data set is never converted as a
    whole."""
    np.multiply(rows[index], x.dtype.type(scale), out=x)


def gather_binarized(x: Array, rows: NDArray[np.number], index: NDArray[np.integer], noise: Array, scale: float
                     ) -> None:
    """x[b, d] = 1 with probability p = scale * rows[index[b], d], else 0:  a new draw at every visit.

    noise is uniform on [0, 1) and drawn by the caller;  noise < p  has probability p.  (Dynamic binarization: Burda et
    al. 2016, section 5.)
    """
    np.less(noise, rows[index] * x.dtype.type(scale), out=x)


def box_muller(eps: Array, uniform: NDArray[np.float32]) -> None:
    """Draws from N(0, 1), two from each two uniform numbers u on [0, 1), which the caller draws:

        r = sqrt(-2 log(1 - u[0])),      eps[0] = r cos(2 pi u[1]),      eps[1] = r sin(2 pi u[1])     (D5.7)

    For two independent normal numbers r^2 / 2 is exponentially distributed and the angle uniform (Box and Muller 1958).
    1 - u is never zero.  All of it is computed in float32, whatever the type of eps, so that runs in float32 and
    float64 see the same noise.
    """
    r = np.sqrt(-2 * np.log(1 - uniform[::2]))
    angle = np.float32(2 * np.pi) * uniform[1::2]
    eps[::2], eps[1::2] = r * np.cos(angle), r * np.sin(angle)
