"""Tables: columns of several kinds, each with its family of distributions.  Read after `cells.py`.

A column of reals is modelled in its own unit, but the network counts in standard deviations from the mean:

    u = (t(x) - a) / s,      t(x) = x, or log x for a positive column

with a and s, the mean and the standard deviation of t(x) over the training rows, fixed.  The density of x is that of u
times |du/dx|, so that

    -log p(x|z) = -log p(u|z) + log s + log |dt/dx|^-1,      the last term log x for t = log, else 0      (D16.40)

The columns of one family form a group.  These kernels take the group's columns out of the table, and put its cells back
in their places.  Shapes:  x (B, D);  columns (n,), the group's, as indices;  part (B, K, n) of whole (B, K, D).
"""
import numpy as np
from numpy.typing import NDArray

from .arrays import LOG_2PI, Array

#: t of a column, as `standardize_columns` is told it
IDENTITY, LOG, LOG1P = 0, 1, 2


def standardize_columns(u: Array, x: Array, columns: NDArray[np.integer], transforms: NDArray[np.integer],
                        location: Array, scale: Array) -> None:
    """u[b, i] = (t_i(x[b, columns[i]]) - location[i]) / scale[i],   u (B, n);  transforms (n,) say which t."""
    taken = x[:, columns]
    is_log, is_log1p = transforms == LOG, transforms == LOG1P
    moved = np.where(is_log, np.log(np.where(is_log, taken, 1)),
                     np.where(is_log1p, np.log1p(np.where(is_log1p, taken, 0)), taken))
    u[...] = (moved - location) / scale


def take_columns_forward(part: Array, whole: Array, columns: NDArray[np.integer]) -> None:
    """part[b, k, i] = whole[b, k, columns[i]]."""
    part[...] = whole[:, :, columns]


def take_columns_backward(dwhole: Array, dpart: Array, columns: NDArray[np.integer]) -> None:
    """Backward pass of  part[b, k, i] = whole[b, k, columns[i]]:  dwhole[b, k, columns[i]] = dpart[b, k, i].

    Each column of dwhole belongs to one group, which writes it.
    """
    dwhole[:, :, columns] = dpart


def place_cells_forward(cells: Array, part: Array, x: Array, columns: NDArray[np.integer],
                        transforms: NDArray[np.integer], log_scale: Array) -> None:
    """cells[b, k, columns[i]] = part[b, k, i] + log s_i + (log x where t = log)      (D16.40)

    part holds -log p(u|z), cells -log p(x|z) in the units of x.
    """
    is_log = transforms == LOG
    by_log = np.where(is_log, np.log(np.where(is_log, x[:, columns], 1)), 0)
    cells[:, :, columns] = part + (log_scale + by_log)[:, None, :]


def place_cells_backward(dpart: Array, dcells: Array, columns: NDArray[np.integer]) -> None:
    """Backward pass of  cells[b, k, columns[i]] = part[b, k, i] + const:  dpart[b, k, i] = dcells[b, k, columns[i]]."""
    dpart[...] = dcells[:, :, columns]


def gaussian_columns_nll_forward(cells: Array, output: Array, x: Array) -> None:
    """-log p(x) = u^2 / 2 + s + 1/2 log(2 pi),      u = (x - m) exp(-s)

    output (B, K, 2 n): the means m, then s = log sigma; each column has a sigma of its own.
    """
    m, s = np.split(output, 2, axis=-1)
    u = (x[:, None, :] - m) * np.exp(-s)
    cells[...] = 0.5 * u * u + s + 0.5 * LOG_2PI


def gaussian_columns_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array) -> None:
    """Backward pass of  u^2 / 2 + s + const,  u = (x - m) exp(-s):

        dm = -dcells * u exp(-s),        ds = dcells * (1 - u^2)      (D16.41)
    """
    m, s = np.split(output, 2, axis=-1)
    rate = np.exp(-s)
    u = (x[:, None, :] - m) * rate
    doutput[...] = np.concatenate([dcells * -u * rate, dcells * (1 - u * u)], axis=-1)
