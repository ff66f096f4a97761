"""What an array of data means, decided here for all that takes one.  Read before `base.py`.

A likelihood names in `support` the numbers that it is a distribution of.  Of likelihoods of pixels, most of those here,

    uint8                      bytes of pictures, 0 to 255: the model sees x / 255
    uint8, only 0 and 1        black and white: the model sees 0 and 1
    bool                       black and white
    floats                     what they are, of any size and byte order
    other integers             0 and 1; what holds others is refused: bytes in a wider type, or numbers to be floats?

Of others, such as counts, every number is what it is, and uint8 too.  What the support does not contain is refused.

What bytes mean is decided once for each array that is handed over, never for a part of it: a block of its rows, a batch
or the first images means what the whole means.  So a single picture that is nearly black, its bytes 0 and 1 alone, is
taken for black and white.  Where that is not meant, divide: x / 255 are floats, and mean what they are.  (The program
hands over what it has read of a file: with --limit, so many images.)
"""
from typing import Protocol

import numpy as np

from ..params import Array
from ..validate import matrix

LEVELS = 256      # of a byte
_NEAR = 1e-3      # of a level: rounding in float32 moves a byte / 255 by less
_ROWS = 10_000      # checked at a time
_BITS_OF_1 = np.float32(1).view(np.uint32)


class Support:
    """The numbers that a likelihood is a distribution of: any finite ones.  Subclasses allow fewer.

    pixels : are they pixels, of which bytes are 1/255, and which can be binarized?
    all_bytes : is every uint8 among them, as `scale` turns it into a number?  Then none is looked at.
    """

    pixels = True
    all_bytes = True

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        """Raises ValueError, which names x by `name` and whom it is for by `whose`, unless x (N, D) lies within."""
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must hold finite numbers, found NaN or infinity as {x.dtype}")

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        """The same of a mean of such numbers, which may lie between them."""
        self.check(x, name, whose)

    def nearest(self, x: Array) -> Array:
        """Numbers in [0, 1], moved to where the support has some: for gradient checks on random images."""
        return x


class Reals(Support):
    """Pixels of any brightness, or other real numbers."""


class UnitInterval(Support):
    """Pixels in [0, 1]."""

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        check_unit(x, name, f"for {whose}")


class Levels(Support):
    """Pixels of so many grey levels, i / (levels - 1); 256 are those of bytes."""

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
    """Whole numbers from 0 on, bytes among them: how often something was seen, and no pixels."""

    pixels = False

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        self.check_mean(x, name, whose)
        wrong = x != np.rint(x)
        if wrong.any():
            raise ValueError(f"{name} must hold whole numbers for {whose}, found {x[wrong][0]:g}")

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        super().check(x, name)
        if x.min() < 0:
            raise ValueError(f"{name} must hold numbers from 0 on for {whose}, found {x.min():g}")

    def nearest(self, x: Array) -> Array:
        count: Array = np.rint(10 * x)
        return count


def check_unit(x: Array, name: str, why: str) -> None:
    """Raises ValueError, which says `why`, unless every number lies in [0, 1]."""
    # Every batch is checked, so this must be quick: read as whole numbers, the bits of 0 to 1 come before all others'.
    if x.dtype == np.float32 and x.view(np.uint32).max() <= _BITS_OF_1:
        return
    low, high = x.min(), x.max()
    if not (low >= 0 and high <= 1):
        hint = ": divide by 255 what runs from 0 to 255, or give it as uint8" if low >= 0 else ""
        found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}{hint}"
        raise ValueError(f"{name} must lie in [0, 1] {why}, found {found}")


class HasSupport(Protocol):
    """A likelihood, or the last step of a decoder: it says what data it takes."""

    name: str
    support: Support


def fitting(part: HasSupport, x: Array) -> Array:
    """Random numbers x in [0, 1], as the part takes them: for gradient checks."""
    return part.support.nearest(x)


_ANY = Reals()


def scale_of(x: Array, support: Support = _ANY) -> float:
    """What a number of the array x is multiplied by to become what the model sees: 1/255 of bytes, else 1."""
    return 1 / 255 if x.dtype == np.uint8 and support.pixels and x.size and x.max() > 1 else 1.0


def real(dtype: str) -> str:
    """The type of the data of a model of that type: data are real."""
    return "float64" if dtype == "complex128" else dtype


def floats(x: Array, scale: float, dtype: str = "float32") -> Array:
    """scale * x, of bytes exactly what NumPy makes of x / 255; x itself where it holds such numbers already."""
    if scale == 1 and x.dtype in (np.float32, np.float64):
        return x
    numbers = x.astype(dtype)
    numbers /= round(1 / scale)
    return numbers


def to_float(x: Array, support: Support = _ANY) -> Array:
    """What a model sees, of an array of any shape: float32 of bytes and other integers, floats as they are."""
    return floats(x, scale_of(x, support))


def part_of(x: Array, rows: slice) -> Array:
    """Some rows of a data set of pixels, which mean what they mean in the whole x (N, D)."""
    return _with_scale(x[rows], scale_of(x))


def together(train: Array, test: Array) -> tuple[Array, Array]:
    """Two parts of one data set of pixels, which mean the same."""
    scale = min(scale_of(train), scale_of(test))
    return _with_scale(train, scale), _with_scale(test, scale)


def _with_scale(x: Array, scale: float) -> Array:
    """Bytes stay bytes; but where they hold only 0 and 1, and are not black and white, they become floats."""
    return x if scale_of(x) == scale or not x.any() else floats(x, scale)


def read(x: object, name: str, columns: int, likelihood: HasSupport, dtype: str, binarized: bool = False,
         mean: bool = False) -> tuple[Array, float]:
    """The data x (N, D) that somebody hands over, as an array of uint8, float32 or float64, and its scale: the model
    sees scale * array.  Nothing is copied that these types can hold as it is.

    Images that will be `binarized` may have any grey in [0, 1]: black and white fit all likelihoods of pixels.  So may
    the `mean` of images.

    Raises TypeError for what are no real numbers, ValueError for another shape and for numbers outside of the support.
    """
    x, support, dtype = matrix(name, x, columns), likelihood.support, real(dtype)
    scale, given = scale_of(x, support), x.dtype
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    elif x.dtype not in (np.uint8, np.float32, np.float64):      # others have no fused kernel
        with np.errstate(over="ignore"):
            x = x.astype(dtype)
    family = likelihood.name.partition(":")[0]
    if given.kind in "iu" and given != np.uint8 and support.pixels and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"{name} holds {given} from {x.min():g} to {x.max():g}: pixels from 0 to 255 are given as "
                         f"uint8, other numbers as floats, for likelihood {family}")
    if binarized and not support.pixels:
        raise ValueError(f"binarize needs pixels, and likelihood {family} takes other numbers: binarize='none' fits")
    if x.dtype == np.uint8 and (support.all_bytes or scale == 1 and support.pixels or binarized):
        return x, scale
    for start in range(0, len(x), _ROWS):
        with np.errstate(over="ignore"):
            rows = floats(x[start:start + _ROWS], scale, dtype).astype(dtype, copy=False)
        if binarized:
            check_unit(rows, name, "to be binarized")
            continue
        (support.check_mean if mean else support.check)(rows, name, f"likelihood {family}")
    return x, scale
