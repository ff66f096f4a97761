"""Reads data of any format; binarization.  Not part of the lesson; `arrays.py`, `idx.py`, `images.py`, `tables.py` and
`formats.py` read one format each.

Every loader returns an `ImageData`: one image per row, (N, D) with D = height * width, pixels uint8 from 0 to 255 or
float32 of any range.  It raises `DataError`, in one line that names the file, for whatever is wrong with it.
"""
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..likelihoods import support
from .arrays import fail_for_memory, load_array
from .images import DataError, ImageData, Progress, fail, load_pictures
from .formats import find_folder, load_file
from .idx import EMBEDDED, load_set
from .meaning import understood
from .reading import Reading
from .tables import load_csv

BINARIZATIONS = ("none", "threshold", "static", "dynamic")

_BLOCK = 2**18  # pixels binarized at a time

#: what `load` takes
ALLOWED = "mnist, a folder of IDX files or of pictures, a .csv, .npy or .npz file"


def load(source: str | Path | None = None, progress: Progress = iter, limit: int | None = None,
         reading: Reading = Reading(), test_source: str | Path | None = None) -> ImageData:
    """The data set of that name: None or "mnist" for the MNIST included here ("./mnist" is a folder); a folder of IDX
    files or of pictures, over which `progress` wraps the loop; a .csv, .npy or .npz file.  With `limit`, the first
    `limit` images of each set.  With `test_source`, all images of the one or its training part are to train, and all of
    the other or its test part to test.  Raises DataError for anything else.
    """
    if test_source is None:
        images = _loaded(source, progress, limit, reading)
        if reading.whole and not len(images.test_images):
            images = _as_test(images)
    else:
        whole = replace(reading, whole=True)
        images, test = (_loaded(one, progress, limit, whole) for one in (source, test_source))
        images = _joined(images, test if len(test.test_images) else _as_test(test), test_source)
    return understood(images, reading, "mnist" if source is None else source, limit)


def _loaded(source: str | Path | None, progress: Progress, limit: int | None, reading: Reading) -> ImageData:
    path = Path("mnist" if source is None else source)
    try:
        return _load(path, source is None or source == "mnist", progress, limit, reading)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror or error})", error)
    except MemoryError as error:
        fail_for_memory(path, error)


def _as_test(images: ImageData) -> ImageData:
    """The training part as the test part."""
    labels = images.train_labels
    return images._replace(train_images=images.test_images, train_labels=None if labels is None else labels[:0],
                           test_images=images.train_images, test_labels=labels)


def _joined(images: ImageData, test: ImageData, source: str | Path) -> ImageData:
    """The training part of the one, and the test part of the other, which was read from `source`."""
    if images.image_shape != test.image_shape:
        shapes = (" x ".join(map(str, one.image_shape)) for one in (test, images))
        fail(source, "holds images of {}, the training data {}; they must agree".format(*shapes))
    dropped = (f"its own test part of {len(images.test_images):,} is not used",) * bool(len(images.test_images))
    return images._replace(test_images=test.test_images, test_labels=test.test_labels, split=f"that of {source}",
                           notes=images.notes + dropped + tuple(f"{source}: {note}" for note in test.notes))


def _load(path: Path, embedded: bool, progress: Progress, limit: int | None, reading: Reading) -> ImageData:
    if embedded:
        return load_set(EMBEDDED, "mnist", limit)
    if path.is_dir():
        if load_folder := find_folder(path):
            return load_folder(path, limit, reading)
        return load_pictures(path, progress, limit, reading)
    if path.exists() and path.suffix.lower() == ".csv":
        return load_csv(path, reading)
    if path.exists() and path.suffix.lower() in (".npy", ".npz"):
        return load_array(path, limit, reading)
    if path.exists() and (found := load_file(path, limit, reading)) is not None:
        return found
    fail(path, f"{'is not a data set' if path.exists() else 'there is no such file or folder'}; {ALLOWED} are allowed")


def binarize(images: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    """Black-and-white images of the same shape and dtype: 0 and 255 in uint8, 0 and 1 in floats.

    "none"       the grey images, unchanged
    "threshold"  white where pixel >= 128 (floats: 0.5)
    "static"     drawn once from rng, with P(white) = pixel / 255 (floats: pixel)
                 (bytes that hold only 0 and 1 are black and white already: see `likelihoods/support.py`)
    "dynamic"    the grey images, unchanged: `fit` draws anew for every batch (Burda et al. 2016)

    Raises ValueError for an unknown name, DataError for another dtype or, if "static", floats outside [0, 1].
    """
    if how not in BINARIZATIONS:
        raise ValueError(f"binarization {how!r} is unknown; known are {', '.join(BINARIZATIONS)}")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(f"images have dtype {images.dtype}; uint8 and the float types are allowed")
    if how in ("none", "dynamic"):
        return images
    white = images.dtype.type(round(1 / support.scale_of(images)))
    if how == "static" and images.size and not (images.min() >= 0 and images.max() <= white):
        raise DataError(f"images span {images.min()} to {images.max()}; static binarization allows 0 to 1")
    out = np.empty(images.shape, images.dtype)
    n_rows = max(1, _BLOCK * len(images) // max(1, images.size))
    for start in range(0, len(images), n_rows):
        rows = slice(start, start + n_rows)
        block = images[rows]
        if how == "threshold":
            np.greater_equal(block, 128 if white == 255 else 0.5, out=out[rows])
        else:
            # u < p has probability p for u uniform on [0, 1), also for p = 0 and p = 1
            uniform = rng.random(block.shape, dtype=np.float32)
            np.less(uniform, block / np.float32(white), out=out[rows])
    out *= white
    return out


def to_float(images: np.ndarray) -> np.ndarray:
    """Images as models see them: bytes as float32, divided by 255 unless they hold only 0 and 1; floats unchanged."""
    return support.to_float(images)
