"""Arguments that are wrong are refused here, in one line that names the argument, what was wrong and what is allowed.

Not part of the lesson: skip it on a first reading.  Each function returns the value it was given, made plain.
"""
import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def integer(name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`.  Raises TypeError or ValueError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def real(name: str, value: Any, least: float, strict: bool = False) -> float:
    """`value` as a finite float, at least `least` (more than it if `strict`).  Raises TypeError or ValueError."""
    bound = f"{'more than' if strict else 'at least'} {least:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number {bound}, got {value!r}")
    if not math.isfinite(value) or value < least or (strict and value == least):
        raise ValueError(f"{name} must be a finite number {bound}, got {value}")
    return float(value)


def widths(name: str, value: Any) -> tuple[int, ...]:
    """Layer widths: an iterable of positive integers, possibly empty.  Raises TypeError or ValueError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of layer widths such as (400, 200), got {value!r}")
    return tuple(integer(f"{name}[{i}]", width, 1) for i, width in enumerate(value))


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value`, if it is one of `allowed`.  Raises ValueError with the list."""
    names = list(allowed)
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}")
    return str(value)


def matrix(name: str, value: Any, columns: int) -> NDArray[Any]:
    """`value` as a real array of shape (rows, columns), rows >= 1.  Raises TypeError or ValueError."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got an array of {array.dtype}")
    if array.ndim != 2 or array.shape[1] != columns or not len(array):
        raise ValueError(f"{name} must have shape (rows, {columns}) with at least one row, got {array.shape}")
    return array
