"""Checks of arguments.  Each error is one line with the name of the argument, what is allowed, and what was given.

Not part of the lesson: skip it on a first reading.  Each check returns the value, converted to a plain type.
"""
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .system.terminal import one_line, shortened


#: a source of random numbers, as users pass it: a generator, which goes on, or the seed of a new one
Rng = np.random.Generator | int


class NonFiniteError(ArithmeticError):
    """NaN or infinity appeared in training.  The message names the step and the tensor."""


def shown(value: object) -> str:
    """repr(value) on one line, shortened: an array would take many."""
    return shortened(one_line(repr(value)), 100)


def integer(name: str, value: object, least: int) -> int:
    """`value` as an int >= `least`.  Raises TypeError or ValueError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer of at least {least}, got {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def real(name: str, value: object, least: float, strict: bool = False) -> float:
    """`value` as a finite float >= `least`, or > if `strict`.  Raises TypeError or ValueError."""
    bound = f"{'more than' if strict else 'at least'} {least:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number {bound}, got {shown(value)}")
    if not math.isfinite(value) or value < least or (strict and value == least):
        raise ValueError(f"{name} must be a finite number {bound}, got {value}")
    return float(value)


def boolean(name: str, value: object) -> bool:
    """`value`, if it is True or False.  Raises TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def widths(name: str, value: object) -> tuple[int, ...]:
    """Layer widths: a sequence of positive integers, possibly empty.  Raises TypeError or ValueError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"{name} must be a sequence of layer widths such as (400, 200), got {shown(value)}")
    return tuple(integer(f"{name}[{i}]", width, 1) for i, width in enumerate(value))


def choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """`value`, if it is one of `allowed`.  Raises ValueError, which lists them."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {shown(value)}")
    return value


def one_of(names: Iterable[str]) -> str:
    """Names as text: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def generator(name: str, value: object) -> np.random.Generator:
    """`value`, if it is a random generator; for a seed, an integer of at least 0, a new one.  Raises TypeError or
    ValueError."""
    if isinstance(value, np.random.Generator):
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a numpy.random.Generator, as default_rng(0) makes one, or a seed, an integer "
                        f"of at least 0, got {shown(value)}")
    return np.random.default_rng(integer(name, value, 0))


def numbers_of(name: str, value: object) -> NDArray[Any]:
    """`value` as an array.  Raises ValueError for ragged lists and for masked arrays."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must not be masked: what stands behind a mask would count as data; a "
                         "model of data with gaps (missing=True) leaves it out")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array of numbers, got rows of different lengths") from None


def matrix(name: str, value: object, columns: int) -> NDArray[Any]:
    """`value` as a real array of shape (rows, columns), rows >= 1.  Raises TypeError or ValueError."""
    array = numbers_of(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got an array of {array.dtype}")
    if array.ndim != 2 or array.shape[1] != columns or not len(array):
        raise ValueError(f"{name} must have shape (rows, {columns}) with at least one row, got {array.shape}")
    return array


def noise(name: str, value: object, rows: int, columns: int) -> NDArray[Any]:
    """`value` as a finite real array of shape (rows, K, columns), K >= 1.  Raises ValueError."""
    array = numbers_of(name, value)
    if array.ndim != 3 or array.shape[::2] != (rows, columns) or not array.shape[1]:
        raise ValueError(f"{name} must have shape (B, K, Z) = ({rows}, K, {columns}) with K at least 1, got "
                         f"{array.shape}")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite real numbers")
    return array


class Described:
    """A class whose repr is the call that makes the object: repr(ELBO(0.5)) is "ELBO(beta=0.5, sampled=False)".
    `made_of` names its arguments, which are attributes, too."""

    made_of: tuple[str, ...] = ()

    def __repr__(self) -> str:
        made_of = ", ".join(f"{name}={described(getattr(self, name))}" for name in self.made_of)
        return f"{type(self).__name__}({made_of})"


def described(part: object) -> str:
    """repr(part) if it is the same in every process; if it holds an address in memory, as that of a function does, the
    name of its class."""
    text = one_line(repr(part))
    return type(part).__name__ if " at 0x" in text else text
