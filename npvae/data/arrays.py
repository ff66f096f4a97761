"""Images in .npy and .npz files.  Not part of the lesson; `npy.py` reads the arrays, `readers.py` the other formats."""
import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

import numpy as np

from ..system.files import open_regular
from ..validate import shown
from .images import DataError, ImageData, fail, flat_shape, luma, parts, turned
from .npy import StoredArray, open_member, open_zip, stored_array
from .reading import Reading
from .stored import StoredRows

#: keys of an .npz with a test part, in small letters: images of both parts, labels of both
_PAIRS = (("train", "test", "train_labels", "test_labels"), ("x_train", "x_test", "y_train", "y_test"),
          ("train_images", "test_images", "train_labels", "test_labels"))
#: and without: images, and their labels
_SINGLES = (("x", "y"), ("x", "labels"), ("data", "target"), ("data", "labels"), ("images", "labels"),
            ("arr_0", "arr_1"))
_LARGE = 2 ** 28      # bytes of rows from which on they stay in their file


class Kind(NamedTuple):
    """What an array of images holds."""

    image_shape: tuple[int, ...]
    dtype: np.dtype  # as stored
    channels_first: bool  # (N, 3, H, W)

    def agrees(self, other: "Kind") -> bool:
        """Whether both may be parts of one data set."""
        return (self.image_shape, self.dtype.kind in "bu", self.dtype.kind) == (
            other.image_shape, other.dtype.kind in "bu", other.dtype.kind)

    def __str__(self) -> str:
        return f"{self.dtype} {self.image_shape}"


def load_array(path: str | Path, limit: int | None = None, reading: Reading = Reading()) -> ImageData:
    """Images from a NumPy file: uint8, bool (converted to 0 and 255), other integers, or any float type (float32).

    Arrays are (N, H, W), (N, H, W, 3) in colour or (N, 3, H, W), or (N, D) with image_shape (s, s) if D = s * s and
    (1, D) otherwise.  Integers from 0 to 255 become uint8; for others `reading.values` must say what they are.
    `.npz`: train and test, optionally train_labels and test_labels; x_train, x_test, y_train, y_test, as Keras has
    them; or train_images and so on, as MedMNIST has; or one array, alone or with its labels; other keys are ignored.
    `reading` says which rows of one array are the test part.  Floats may have any range; the likelihood checks it.
    With `limit`, little more than the first `limit` images of each set is read.
    Raises DataError for anything else, for NaN and infinity, and for pickled or damaged files.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            if file.peek(2)[:2] == b"PK":
                with open_zip(file) as archive:
                    return _load_npz(path, archive, limit, reading)
            array = stored_array(file, os.fstat(file.fileno()).st_size)
            return _load_one(path, "the array", array, limit, reading)
    except DataError:
        raise
    except MemoryError as error:
        fail_for_memory(path, error)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror or error})", error)
    except Exception as error:  # zipfile and zlib raise many kinds for damaged files
        reason = str(error) or type(error).__name__
        fail(path, f"cannot be read: it is damaged, or no .npy or .npz of plain arrays ({reason})", error)


def load_labels(path: Path) -> np.ndarray:
    """The labels (N,) in an .npz of one array."""
    try:
        with open_regular(path) as file, open_zip(file) as archive:
            key, = archive.namelist()
            with _member(archive, key, None) as stored:
                count = stored.shape[0] if stored.shape else 0
            return _labels(path, archive, key, count)
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds for damaged files
        fail(path, f"is no .npz of labels ({getattr(error, 'strerror', None) or error})", error)


def fail_for_memory(path: Path, error: MemoryError) -> NoReturn:
    """Raises DataError for a file that is too large."""
    fail(path, f"there is no memory for it ({error}); fewer images, as with --limit, may fit", error)


def _load_one(path: Path, key: str, array: StoredArray, limit: int | None, reading: Reading) -> ImageData:
    """A data set of one array, divided as `reading` says."""
    kind = _kind(path, key, array)
    train, test = parts(path, array.shape[0], reading, f"{key} ", limit)
    if _stays_in_file(array, kind, len(train) + len(test), reading):
        offset, width = array.stream.tell(), math.prod(array.shape[1:])
        stored = [StoredRows(path, offset, array.dtype, width, rows) for rows in (train, test)]
        if not np.isfinite([one.extent() for one in stored]).all():
            fail(path, f"{key} holds infinity; finite numbers are allowed, and NaN for missing cells")
        x_train, x_test = (cast(np.ndarray, one) for one in stored)      # they do as arrays where data are read
        return _images(path, kind, reading, x_train, None, x_test, None, reading.test_part)
    x_train, x_test = (_as_rows(path, key, rows, kind, reading) for rows in array.read_rows(train, test))
    return _images(path, kind, reading, x_train, None, x_test, None, reading.test_part)


def _stays_in_file(array: StoredArray, kind: Kind, rows: int, reading: Reading) -> bool:
    """Whether rows of an array are to be read from its file when they are needed: many, and as they are."""
    plain = not (array.by_columns or kind.channels_first or reading.grey or reading.transpose)
    large = rows * math.prod(array.shape[1:]) * array.dtype.itemsize >= _LARGE
    return plain and large and array.dtype in (np.uint8, np.float32) and isinstance(array.stream, io.BufferedReader)


def _load_npz(path: Path, archive: zipfile.ZipFile, limit: int | None, reading: Reading) -> ImageData:
    """A data set in an .npz: a single array, alone or with labels; or both parts, with labels if there are any."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    called = {name.lower(): name for name in names}
    pair = next((keys for keys in _PAIRS if {*keys[:2]} <= {*called}), None)
    if pair is None:
        key = next((keys for keys in _SINGLES if {*keys} <= {*called}), (names[0].lower(), "") if len(names) == 1
                   else None)
        if key is None:
            fail(path, f"holds {shown(names)}; train and test, x_train and x_test, train_images and test_images, x and "
                       "y, or a single array are allowed")
        with _member(archive, called[key[0]], limit) as array:
            images = _load_one(path, called[key[0]], array, limit, reading)
            return _with_labels(path, archive, called.get(key[1]), array.shape[0], images, limit, reading)
    train_key, test_key, *label_keys = (called.get(key, "") for key in pair)
    with _member(archive, train_key, limit) as train, _member(archive, test_key, limit) as test:
        kind, test_kind = _kind(path, train_key, train), _kind(path, test_key, test)
        if not kind.agrees(test_kind):
            fail(path, f"{train_key} is {kind}, {test_key} {test_kind}; they must agree")
        x_train, = train.read(range(train.shape[0])[:limit])
        x_test, = test.read(range(test.shape[0])[:limit])
    y_train, y_test = (_labels(path, archive, key, count)[:limit] if key else None
                       for key, count in zip(label_keys, (train.shape[0], test.shape[0])))
    images = _images(path, kind, reading, _as_rows(path, train_key, x_train, kind, reading), y_train,
                     _as_rows(path, test_key, x_test, kind, reading), y_test, "")
    val = next((called[key] for key in ("val_images", "val", "x_val", "valid", "x_valid") if key in called), None)
    return images._replace(notes=(*images.notes, f"its {val} are in neither part")) if val else images


def _with_labels(path: Path, archive: zipfile.ZipFile, key: str | None, count: int, images: ImageData,
                 limit: int | None, reading: Reading) -> ImageData:
    """The images of one array with their labels; without a key, as they are."""
    if key is None:
        return images
    labels = _labels(path, archive, key, count)
    train, test = (labels[rows] for rows in parts(path, count, reading, limit=limit))
    return images._replace(train_labels=train, test_labels=test)


@contextmanager
def _member(archive: zipfile.ZipFile, key: str, limit: int | None) -> Iterator[StoredArray]:
    """The array of that key, open for reading within this context."""
    array = open_member(archive, key if key in archive.namelist() else f"{key}.npy", whole=limit is None)
    with array.stream:
        yield array


def _kind(path: Path, key: str, array: StoredArray) -> Kind:
    """What an array holds, from its header alone."""
    shape, dtype = array.shape, array.dtype
    if len(shape) not in (2, 3, 4) or 0 in shape:
        fail(path, f"{key} has shape {shape}; (N, D), (N, H, W) or (N, H, W, 3) is allowed, no dimension zero")
    if dtype.kind not in "bufi":
        fail(path, f"{key} has dtype {dtype}; uint8, bool, other integers and the float types are allowed")
    if len(shape) == 2:
        return Kind(flat_shape(shape[1]), dtype, False)
    if len(shape) == 3:
        return Kind(shape[1:], dtype, False)
    first = shape[3] not in (1, 3) and shape[1] in (1, 3)
    height, width, channels = (*shape[2:], shape[1]) if first else shape[1:]
    if channels not in (1, 3):
        fail(path, f"{key} has shape {shape}; images of 1 or 3 colours, (N, H, W, 3) or (N, 3, H, W), are allowed" + (
            ": the fourth is how opaque a pixel is, and x[..., :3] leaves it out" if shape[3] == 4 else ""))
    return Kind((height, width, 3) if channels == 3 else (height, width), dtype, first)


def _as_rows(path: Path, key: str, array: np.ndarray, kind: Kind, reading: Reading) -> np.ndarray:
    """The images as contiguous rows (N, D), uint8 or float32; float64 for whole numbers that float32 cannot hold."""
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    if kind.channels_first:
        array = np.moveaxis(array, 1, -1)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        array = _integers(path, key, array, reading)
    kept = (np.uint8, np.float64) if kind.dtype.kind in "iu" else (np.uint8,)
    with np.errstate(all="ignore"):  # a float64 too large for float32 becomes inf, and is refused
        rows = array.astype(array.dtype if array.dtype in kept else np.float32, order="C", copy=False)
        rows = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        # fmin and fmax pass over NaN, a missing cell, and unlike isfinite need no temporary array
        ends = [extreme.reduce(rows, axis=None, initial=0) for extreme in (np.fmin, np.fmax)]
    if not np.isfinite(ends).all():
        fail(path, f"{key} holds infinity (as float32); finite numbers are allowed, and NaN for missing cells")
    return rows


def _integers(path: Path, key: str, array: np.ndarray, reading: Reading) -> np.ndarray:
    """Integers as uint8 if they are bytes, else as floats that hold them exactly, if it is said what they are."""
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if reading.values is None:
        fail(path, f"{key} holds {array.dtype} from {low} to {high}, which are no bytes: --values counts or --values "
                   "real says what they are")
    return array.astype(np.float32 if max(-low, high) <= 2 ** 24 else np.float64)


def _images(path: Path, kind: Kind, reading: Reading, x_train: np.ndarray, y_train: np.ndarray | None,
            x_test: np.ndarray, y_test: np.ndarray | None, split: str) -> ImageData:
    """A data set of rows, turned and made grey if `reading` says so."""
    shape = kind.image_shape
    if len(shape) == 3 and reading.grey:
        x_train, x_test = map(luma, (x_train, x_test))
        shape = shape[:2]
    elif reading.rgb and len(shape) != 3:
        fail(path, f"has no colours, which --rgb asks for: an image is {' x '.join(map(str, shape))}")
    if reading.transpose:
        if shape[0] == 1:
            fail(path, "holds no images, which --transpose would turn: transpose the array itself")
        x_train, x_test, shape = turned(x_train, shape), turned(x_test, shape), (shape[1], shape[0], *shape[2:])
    return ImageData(x_train, y_train, x_test, y_test, shape, path.stem, ink=len(shape) == 2, split=split,
                     stored=str(kind.dtype))


def _labels(path: Path, archive: zipfile.ZipFile, key: str, count: int) -> np.ndarray:
    """The labels of `count` images, as uint8, int64 or text."""
    with _member(archive, key, None) as stored:
        if stored.shape not in ((count,), (count, 1)) or stored.dtype.kind not in "iuU" or stored.dtype == np.uint64:
            fail(path, f"{key} is {stored.dtype} {stored.shape}; integers ({count},) that fit int64 are allowed")
        labels = stored.read()[0].reshape(count)
    return labels if labels.dtype == np.uint8 or labels.dtype.kind == "U" else labels.astype(np.int64)
