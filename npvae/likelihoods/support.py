"""What an array of data means, decided in one place for all functions that take data.  Read before `base.py`.

A likelihood names in `support` the numbers that it is a distribution of.  For a likelihood of pixels, which most here
are, an array means

    uint8                      bytes of pictures, 0 to 255: the model sees x / 255
    uint8, only 0 and 1        black and white: the model sees 0 and 1
    bool                       black and white
    floats                     the numbers themselves, of any size and byte order
    other integers             0 and 1 only; others raise ValueError, as they might be meant as bytes or as floats

For other likelihoods, as of counts, every number means itself, in uint8, too.  Numbers outside the support raise
ValueError.  NaN, and what a masked array hides, is a missing cell, which only models with `missing=True` take.

The meaning of bytes is decided once, from the whole array that is passed, and not for each of its batches or blocks.
So the bytes of a single picture that is nearly black, all of them 0 or 1, are taken for black and white.  To avoid
that, pass x / 255: floats mean what they are.  (The program passes what it has read from a file: with --limit, so many
images.)
"""
from typing import Any, Protocol, cast

import numpy as np

from ..kernels.reference.levels import LEVELS as LEVELS
from ..params import Array
from ..validate import matrix

_NEAR = 1e-3      # tolerance in levels; float32 rounds a byte / 255 by less
_ROWS = 10_000      # checked at a time
_BITS_OF_1 = np.float32(1).view(np.uint32)


class Support:
    """The set of numbers that a likelihood is a distribution of: all finite ones.  Subclasses restrict it.

    Attributes
    ----------
    pixels : the numbers are pixels, so that bytes are scaled by 1/255, and images can be binarized
    all_bytes : every uint8, scaled, lies in the set, so that bytes need not be checked
    placeholder : a number of the set, or one for each column, to stand in for missing cells; it influences nothing
    """

    pixels = True
    all_bytes = True
    placeholder: float | Array = 0.0

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        """Raises ValueError unless all of x (N, D) lies in the set; the message calls x `name` and the part that takes
        it `whose`."""
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must hold finite numbers, found NaN or infinity as {x.dtype}")

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        """`check` for a mean of such numbers, which may lie between them."""
        self.check(x, name, whose)

    def nearest(self, x: Array) -> Array:
        """The numbers of the set nearest to x in [0, 1]: random images for gradient checks."""
        return x


class Reals(Support):
    """Pixels of any brightness, or other real numbers."""


class UnitInterval(Support):
    """Pixels in [0, 1]."""

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        check_unit(x, name, f"for {whose}")


class Levels(Support):
    """Pixels with so many grey levels, i / (levels - 1); 256 for bytes."""

    def __init__(self, levels: int = LEVELS) -> None:
        self.levels, self.all_bytes = levels, levels == LEVELS

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        self.check_mean(x, name, whose)
        level = (self.levels - 1) * x.astype(np.result_type(x, np.float32))
        wrong = np.abs(level - np.rint(level)) > _NEAR
        if wrong.any():
            whole = "bytes / 255" if self.levels == LEVELS else f"whole numbers / {self.levels - 1}"
            raise ValueError(f"{name} must hold {whole} for {whose}, found {x[wrong][0]:g}; other numbers in [0, 1] "
                             "fit likelihood continuous-bernoulli or gaussian")

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        check_unit(x, name, f"for {whose}")

    def nearest(self, x: Array) -> Array:
        level: Array = np.rint((self.levels - 1) * x)
        return level / (self.levels - 1)


class Counts(Support):
    """0, 1, 2, ...: how often something was observed.  Not pixels; a byte is a count."""

    pixels = False

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        self.check_mean(x, name, whose)
        wrong = x != np.rint(x)
        if wrong.any():
            raise ValueError(f"{name} must hold whole numbers for {whose}, found {x[wrong][0]:g}")

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        super().check(x, name)
        if x.min() < 0:
            raise ValueError(f"{name} must not hold negative numbers for {whose}, found {x.min():g}")

    def nearest(self, x: Array) -> Array:
        count: Array = np.rint(10 * x)
        return count


class Positive(Support):
    """Positive real numbers, in any unit.  Not pixels."""

    pixels = False
    placeholder = 1.0

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        super().check(x, name)
        if x.min() <= 0:
            raise ValueError(f"{name} must hold positive numbers for {whose}, found {x.min():g}")

    def nearest(self, x: Array) -> Array:
        return x + 0.01


class Codes(Support):
    """0, 1, ..., L - 1, which stand for categories or for steps of a scale.  Not pixels.

    levels : L, the same for all columns, or one number for each of them
    """

    pixels = False

    def __init__(self, levels: int | tuple[int, ...]) -> None:
        self.levels = np.array(levels)

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        self.check_mean(x, name, whose)
        wrong = x != np.rint(x)
        if wrong.any():
            raise ValueError(f"{name} must hold codes, whole numbers from 0 on, for {whose}, found {x[wrong][0]:g}")

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        super().check(x, name)
        wrong = (x < 0) | (x > self.levels - 1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            most = np.broadcast_to(self.levels, x.shape)[row, column] - 1
            raise ValueError(f"{name} must hold codes from 0 to {most} in column {column} for {whose}, found "
                             f"{x[row, column]:g}")

    def nearest(self, x: Array) -> Array:
        code: Array = np.minimum(np.floor(self.levels * x), self.levels - 1)
        return code


def check_unit(x: Array, name: str, why: str) -> None:
    """Raises ValueError, with `why` in the message, unless every number of x lies in [0, 1]."""
    # Quick, since every batch is checked: as unsigned integers, the bits of the floats 0 to 1 are the smallest.
    if x.dtype == np.float32 and x.view(np.uint32).max() <= _BITS_OF_1:
        return
    low, high = x.min(), x.max()
    if not (low >= 0 and high <= 1):
        hint = ": divide pixels from 0 to 255 by 255, or pass them as uint8" if low >= 0 else ""
        found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}{hint}"
        raise ValueError(f"{name} must lie in [0, 1] {why}, found {found}")


class HasSupport(Protocol):
    """A likelihood, or the decoder's last step: a part that says which data it takes."""

    name: str
    support: Support


def fitting(part: HasSupport, x: Array) -> Array:
    """x, random numbers in [0, 1], moved to what the part takes: for gradient checks."""
    return part.support.nearest(x)


_ANY = Reals()


def scale_of(x: Array, support: Support = _ANY) -> float:
    """The factor from a number of x to what the model sees: 1/255 for bytes of pictures, else 1."""
    return 1 / 255 if x.dtype == np.uint8 and support.pixels and x.size and x.max() > 1 else 1.0


def real(dtype: str) -> str:
    """The type of the data for a model of type `dtype`: data are never complex."""
    return "float64" if dtype == "complex128" else dtype


def floats(x: Array, scale: float, dtype: str = "float32") -> Array:
    """scale * x in `dtype`; for bytes exactly x / 255 as NumPy computes it.  x itself if scale is 1 and x holds floats.
    """
    if scale == 1 and x.dtype in (np.float32, np.float64):
        return x
    numbers = x.astype(dtype)
    numbers /= round(1 / scale)
    return numbers


def to_float(x: Array, support: Support = _ANY) -> Array:
    """x of any shape as a model sees it: bytes and other integers as float32, floats unchanged."""
    return floats(x, scale_of(x, support))


def part_of(x: Array, rows: slice | Array) -> Array:
    """Some rows of a data set of pixels x (N, D), with the same meaning as in the whole of x."""
    return with_scale(x[rows], scale_of(x))


def together(train: Array, test: Array) -> tuple[Array, Array]:
    """Two parts of one data set of pixels, with the same meaning in both."""
    scale = min(scale_of(train), scale_of(test))
    return with_scale(train, scale), with_scale(test, scale)


def with_scale(x: Array, scale: float) -> Array:
    """x such that `scale_of` gives `scale`: bytes that are only 0 and 1, but not black and white, become floats."""
    return x if scale_of(x) == scale or not x.any() else floats(x, scale)


def with_nan(x: np.ma.MaskedArray[Any, Any], support: Support = _ANY) -> Array:
    """A masked array as floats, as a model sees them, with NaN where it is masked."""
    seen = x.filled(0)
    scale = scale_of(seen, support)
    numbers = floats(seen, scale) if seen.dtype == np.uint8 else seen.astype(np.result_type(seen, np.float32))
    return np.where(np.ma.getmaskarray(x), np.nan, numbers).astype(numbers.dtype, copy=False)


def count_missing(x: Array) -> int:
    """How many cells of data x (N, D) are missing: those that are NaN."""
    if x.dtype.kind != "f":
        return 0
    return sum(int(np.isnan(x[start:start + _ROWS]).sum()) for start in range(0, len(x), _ROWS))


def read(x: object, name: str, columns: int, likelihood: HasSupport, dtype: str, binarized: bool = False,
         mean: bool = False, missing: bool = False) -> tuple[Array, float]:
    """Data x (N, D) from a user, as an array of uint8, float32 or float64, and its scale: the model sees scale * array.

    Nothing is copied that has one of these types.  For images that will be `binarized`, and for the `mean` of images,
    any grey in [0, 1] is allowed, whatever the likelihood.  NaN is allowed if cells may be `missing`.

    Raises TypeError for anything but real numbers, ValueError for a wrong shape and for numbers outside the support.
    """
    support, dtype = likelihood.support, real(dtype)
    if binarized and missing:
        raise ValueError("binarize needs complete data, and this model takes missing cells: use binarize='none'")
    if missing and np.ma.is_masked(x):
        x = with_nan(cast("np.ma.MaskedArray[Any, Any]", x), support)
    x = matrix(name, x, columns)
    scale, given = scale_of(x, support), x.dtype
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    elif x.dtype not in (np.uint8, np.float32, np.float64):      # the fused kernels take no others
        with np.errstate(over="ignore"):
            x = x.astype(dtype)
    family = likelihood.name.partition(":")[0]
    if given.kind in "iu" and given != np.uint8 and support.pixels and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"{name} holds {given} from {x.min():g} to {x.max():g}: for likelihood {family}, pass pixels "
                         "from 0 to 255 as uint8 and other numbers as floats")
    if binarized and not support.pixels:
        raise ValueError(f"binarize needs pixels, and likelihood {family} takes other numbers: use binarize='none'")
    if x.dtype == np.uint8 and (support.all_bytes or scale == 1 and support.pixels or binarized):
        return x, scale
    for start in range(0, len(x), _ROWS):
        with np.errstate(over="ignore"):
            rows = floats(x[start:start + _ROWS], scale, dtype).astype(dtype, copy=False)
        if missing:
            rows = np.where(np.isnan(rows), support.placeholder, rows).astype(dtype, copy=False)
        if binarized:
            check_unit(rows, name, "to be binarized")
            continue
        try:
            (support.check_mean if mean else support.check)(rows, name, f"likelihood {family}")
        except ValueError as error:
            hint = "; a model of data with gaps (missing=True) takes NaN" if np.isnan(rows).any() else ""
            raise ValueError(f"{error}{hint}") from None
    return x, scale
