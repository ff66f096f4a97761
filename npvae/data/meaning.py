"""What the numbers of a data set are, and the line that says how they were taken.  Not part of the lesson; read
`reading.py` first.

Without `Reading.values`, numbers are taken for

    binary    bytes, or floats, that are only 0 and 1
    bytes     other bytes, and what was stored as whole numbers from 0 to 255
    unit      other floats from 0 to 1
    real      other floats

The models themselves decide by the type of an array (`likelihoods/support.py`); here arrays get the type that means
what was found or said.
"""
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..likelihoods.support import count_missing, with_scale
from ..system.terminal import plain
from .images import ImageData, fail
from .reading import Reading
from .stored import extent

_TAKEN = {"binary": "binary", "unit": "numbers from 0 to 1", "real": "real numbers", "counts": "counts"}
_DARK = 128      # bytes that never reach half of 255 may be something else
_BLOCK = 2 ** 20      # numbers looked at at a time


def understood(images: ImageData, reading: Reading, source: str | Path, limit: int | None = None) -> ImageData:
    """The first `limit` images of each part, with numbers of the type that means what they are, the data line, and
    notes on what was guessed.  Raises DataError for numbers that are not what `reading.values` says."""
    train, test = images.train_images, images.test_images
    if images.columns:      # each has numbers of its own kind
        images = images.first(limit)
        return images._replace(line=_line(images, _missing(images), source), values="table")
    ends = [extent(part) for part in (train, test) if len(part)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    values, notes = reading.values, images.notes
    if values is None:
        values, notes = _guess(images, low, high), notes + _doubts(images, low, high)
    wrong = _why_not(values, (train, test), low, high)
    if wrong:
        fail(source, f"holds numbers from {low:g} to {high:g}, and --values {values} {wrong}")
    images = images._replace(train_images=_converted(train, values, high), test_images=_converted(test, values, high),
                             notes=notes, values=values).first(limit)
    numbers = images.stored if images.stored == "bool" else f"{images.stored or 'numbers'} {low:g} to {high:g}"
    gaps = f", {_missing(images)}" * bool(count_missing(train) + count_missing(test))
    return images._replace(line=_line(images, f"{numbers}, taken as {_taken(images)}{gaps}", source))


def _guess(images: ImageData, low: float, high: float) -> str:
    """What the numbers are, by type and range."""
    of_bytes = images.train_images.dtype == np.uint8
    if low >= 0 and high in (0, 1, 255 * of_bytes) and all(
            _all(_is_binary, part, high) for part in (images.train_images, images.test_images)):
        return "binary"
    return "bytes" if of_bytes else "unit" if low >= 0 and high <= 1 else "real"


def _all(check: Callable[[np.ndarray, float], bool], x: np.ndarray, high: float) -> bool:
    """Whether the check holds for all blocks of rows; after the first failure no other is looked at."""
    rows = max(1, _BLOCK // x.shape[1])
    return all(check(x[start:start + rows], high) for start in range(0, len(x), rows))


def _is_binary(x: np.ndarray, high: float) -> bool:
    """Whether all are 0 or the highest of all, or missing."""
    return bool(((x == 0) | (x == high) | (x != x)).all())


def _is_whole(x: np.ndarray, high: float) -> bool:
    return x.dtype == np.uint8 or bool(((x == np.rint(x)) | (x != x)).all())


def _doubts(images: ImageData, low: float, high: float) -> tuple[str, ...]:
    """What should be said of numbers that may be taken for something that they are not."""
    parts = images.train_images, images.test_images
    if images.stored == "levels":      # of pictures
        return ()
    if images.train_images.dtype == np.uint8:
        if 1 < high < _DARK:
            return (f"its largest number is {high:g}, far below 255, and it was divided by 255 all the same: --values "
                    "counts or real takes numbers as they are, --values bytes says that they are pixels",)
        if images.stored not in ("", "uint8", "bool") and high > 1:
            return (f"its {images.stored} were taken for pixels, and divided by 255: --values counts or real takes "
                    "them as they are, --values bytes says that they are pixels",)
        return ()
    if high > 1 and low >= 0 and all(_all(_is_whole, part, high) for part in parts):
        return (f"its floats are whole numbers from {low:g} to {high:g}, and were taken as they are: --values bytes "
                "divides pixels by 255, --values counts says that they are counts",)
    return ()


def _why_not(values: str, parts: Sequence[np.ndarray], low: float, high: float) -> str:
    """Why the numbers are not what `values` says; "" if they are."""
    whole = values not in ("bytes", "counts") or all(_all(_is_whole, part, high) for part in parts)
    if values == "binary" and not (low >= 0 and high in (0, 1, 255) and all(
            _all(_is_binary, part, high) for part in parts)):
        return "allows 0 and 1, or 0 and 255, alone: --binarize threshold makes black and white of grey levels"
    if values == "bytes" and not (low >= 0 and high <= 255 and whole):
        return "allows whole numbers from 0 to 255: --values real takes any, for --likelihood gaussian-learned"
    if values == "unit" and not (low >= 0 and high <= 1):
        return "allows numbers from 0 to 1: --values bytes divides by 255, --values real takes any"
    if values == "counts" and not (low >= 0 and whole):
        return "allows 0, 1, 2, ...: --values real takes other numbers"
    return ""


def _converted(x: np.ndarray, values: str, high: float) -> np.ndarray:
    """x in the type that means these values."""
    if values == "bytes":
        return with_scale(x.astype(np.uint8, copy=False), 1 / 255)
    if values == "binary" and high == 255:
        return x.astype(np.uint8, copy=False)
    if values in ("binary", "unit") or x.dtype != np.uint8:
        return x
    return x.astype(np.float32)


# ---- The line

def _line(images: ImageData, kind: str, source: str | Path) -> str:
    """What was read, and how it was taken."""
    count = len(images.train_images) + len(images.test_images)
    return (f"read {count:,} {_shape(images)} from {plain(str(source))}, {kind}; {_labels(images)}; "
            f"{_part(images)}")


def _missing(images: ImageData) -> str:
    """How many cells are missing."""
    count = sum(map(count_missing, (images.train_images, images.test_images)))
    return f"{count:,} cell{'s' * (count != 1)} missing" if count else "no cell missing"


def _taken(images: ImageData) -> str:
    if images.values == "bytes":
        return ("colours" if len(images.image_shape) == 3 else "grey levels") + " / 255"
    return _TAKEN[images.values]


def _shape(images: ImageData) -> str:
    height, width = images.image_shape[:2]
    if images.columns:
        return f"rows of {width:,} column{'s' * (width > 1)}"
    if height == 1:
        return f"rows of {width:,} number{'s' * (width > 1)}"
    return f"images of {height} x {width}" + " in colour" * (len(images.image_shape) == 3)


def _labels(images: ImageData) -> str:
    """How many labels there are, and which."""
    given = [labels for labels in (images.train_labels, images.test_labels) if labels is not None]
    if not given:
        return "no labels"
    found = np.unique(np.concatenate(given)).tolist()
    names = [plain(str(name)) for name in found]
    some = (f"{names[0]} to {names[-1]}" if len(names) > 2 and isinstance(found[0], int) else
            ", ".join(names[:5]) + ", ..." * (len(names) > 5))
    missing = "" if len(given) == 2 or not min(len(images.train_images), len(images.test_images)) else (
        f" of the {'test' if images.test_labels is None else 'training'} part none")
    return f"{len(names)} label{'s' * (len(names) > 1)}, {some}{missing and f';{missing}'}"


def _part(images: ImageData) -> str:
    """Which images are the test part."""
    count = f"{len(images.test_images):,}"
    if not len(images.train_images):
        return "all of them are the test part"
    return {"random": f"the test part is {count} of them, drawn at random (seed 0)",
            "last": f"the test part is the last {count} of them",
            "": f"the test part is its own, {count}"}.get(images.split, f"the test part is {images.split}, {count}")
