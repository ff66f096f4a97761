"""Rows of an array that stay in its file, for data larger than memory.  Not part of the lesson.

Rows are read when they are asked for, and not through a memory map: its pages would count as memory of the process.
"""
import io
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import DTypeLike

from ..system.files import open_regular
from .npy import fill

_BLOCK = 2 ** 22      # numbers at a time


class StoredRows:
    """Rows (N, D) of an array in a .npy file, as training needs them: x[rows] reads these into an array of their own.

    path, offset : the file, and the byte in it where the array begins
    dtype, width : type of its numbers, and D
    rows : (N,), which of its rows these are
    """

    ndim = 2

    def __init__(self, path: Path, offset: int, dtype: np.dtype, width: int, rows: np.ndarray) -> None:
        self.path, self.offset, self.dtype, self.rows = path, offset, dtype, rows
        self.shape, self.size = (len(rows), width), len(rows) * width
        self._extent: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        rows, width = self.rows[key], self.shape[1]
        row_bytes = width * self.dtype.itemsize
        with open_regular(self.path) as file:
            if len(rows) and 0 <= rows[-1] - rows[0] < 2 * len(rows) and (np.diff(rows) > 0).all():
                found = np.empty((int(rows[-1] - rows[0]) + 1, width), self.dtype)      # little lies between them
                file.seek(self.offset + int(rows[0]) * row_bytes)
                fill(file, found)
                return found if len(found) == len(rows) else found[rows - rows[0]]
            found, raw = np.empty((len(rows), width), self.dtype), cast(io.FileIO, file.raw)
            for i, row in enumerate(rows.tolist()):
                raw.seek(self.offset + row * row_bytes)
                fill(raw, found[i])
            return found

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, in order, some at a time."""
        size = max(1, _BLOCK // self.shape[1])
        for start in range(0, len(self), size):
            yield self[start:start + size]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def astype(self, dtype: DTypeLike, copy: bool = True) -> "np.ndarray | StoredRows":
        """The rows in this type: in memory, unless they have it."""
        return self if np.dtype(dtype) == self.dtype else self[:].astype(dtype, copy=False)

    def extent(self) -> tuple[float, float]:
        """The smallest and the largest number; NaN, a missing cell, is passed over."""
        if self._extent is None:
            ends = [extent(block) for block in self.blocks()] or [(0.0, 0.0)]
            low, high = np.transpose(ends)
            self._extent = float(np.fmin.reduce(low)), float(np.fmax.reduce(high))
        return self._extent

    def max(self) -> float:
        """The largest number."""
        return self.extent()[1]

    def any(self) -> bool:
        """Whether a number is not zero."""
        return any(self.extent())


def extent(x: np.ndarray | StoredRows) -> tuple[float, float]:
    """The smallest and the largest number of x; NaN, a missing cell, is passed over."""
    if isinstance(x, StoredRows):
        return x.extent()
    return float(np.fmin.reduce(x, axis=None)), float(np.fmax.reduce(x, axis=None))
