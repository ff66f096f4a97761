"""Your own images: a CSV table, a folder of pictures.  Not part of the lesson; `readers.py` reads the other formats.

`ImageData` is what every loader returns, `DataError` what every loader raises.
"""
import csv
import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from ..likelihoods.support import part_of, together
from ..system.files import open_regular
from ..system.terminal import shortened
from ..validate import shown

if TYPE_CHECKING:
    from PIL.Image import Image

#: wraps the loop over the files to be read, to show how far it is
Progress = Callable[[Sequence[Path]], Iterable[Path]]

_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}      # left in folders by Windows and macOS, and not hidden
_PICTURES = "pictures such as .png and .jpg"
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")      # not EPS, which Pillow gives to another program
_MOST_PIXELS, _MOST_BYTES = 2**24, 2**28      # of a picture: 4096 x 4096 is far more than a dense network takes
_MOST_LINE, _MOST_CELLS = 2**26, 2**21      # characters and cells of a row


class DataError(ValueError):
    """A file or array that cannot be used.  One line says which, what is wrong with it, and what is allowed."""


class ImageData(NamedTuple):
    """A data set.  Images are C-contiguous rows of uint8 or float32, labels uint8, int64, text, or None."""

    train_images: np.ndarray  # (N, D)
    train_labels: np.ndarray | None  # (N,)
    test_images: np.ndarray  # (M, D)
    test_labels: np.ndarray | None  # (M,)
    image_shape: tuple[int, int]  # (height, width), height * width = D
    name: str
    ink: bool = True  # a pixel of 1 is black, as ink on paper; False: it is white, as in photographs

    def first(self, limit: int | None) -> "ImageData":
        """The first `limit` images of each set; all for None."""
        if limit is None:
            return self
        labels = (None if labels is None else labels[:limit] for labels in (self.train_labels, self.test_labels))
        train, test = (part_of(images, slice(limit)) for images in (self.train_images, self.test_images))
        return self._replace(train_images=train, train_labels=next(labels), test_images=test, test_labels=next(labels))


def fail(path: str | Path, what: str, cause: BaseException | None = None) -> NoReturn:
    """Raises DataError with "path: what" on one line, even if the path or a quoted message holds line breaks."""
    raise DataError(" ".join(f"{path}: {what}".splitlines())) from cause


def count_to_train(path: Path, count: int, what: str = "") -> int:
    """The number of training images in a set of `count` images without a split: the last tenth, at least one, is the
    test set.  Raises DataError for a single image; `what` names the part of the file."""
    if count < 2:
        fail(path, f"{what}holds 1 image; at least 2 are needed, one to train and one to test")
    return count - max(1, count // 10)


def flat_shape(pixels: int) -> tuple[int, int]:
    """The (height, width) of an image given as a row of numbers: a square if possible, else a line."""
    side = math.isqrt(pixels)
    return (side, side) if side * side == pixels else (1, pixels)


# ---- A table

class _Layout(NamedTuple):
    """The format of a table, as found from its first line."""

    delimiter: str
    header: list[str]  # names of columns; empty if the first line holds numbers
    skip: int  # lines before the first row of numbers

    def column(self, index: int) -> str:
        return f"column {index + 1}" + (f" ({shown(self.header[index].strip())})" if self.header else "")


def load_csv(path: str | Path) -> ImageData:
    """A table of numbers, one image per row: pixels from 0 to 1 (read as float32), or integers from 0 to 255 (uint8).

    Cells are separated by commas, or by semicolons or tabs if the first line holds one.  The first line is a header if
    no cell of it is a number, or if one is `label`.  The column `label` holds labels, integers, as in Kaggle's MNIST.
    image_shape is (s, s) for s * s pixels, else (1, D).  The last tenth of the rows, at least one, is the test set.
    Raises DataError, with the line and the column, for anything else.
    """
    path = Path(path)
    layout = _layout(path)
    table = _numbers(path, layout)
    labelled = [i for i, name in enumerate(layout.header) if name.strip().lower() == "label"]
    if len(labelled) > 1:
        fail(path, f"has {len(labelled)} columns called label; one is allowed")
    columns = [i for i in range(table.shape[1]) if i not in labelled]
    if not columns:
        fail(path, "holds labels alone; columns of pixels are needed")
    labels = _as_labels(path, layout, table, labelled[0]) if labelled else None
    images = _as_pixels(path, layout, table, columns)
    n = count_to_train(path, len(images))
    train_labels, test_labels = (None, None) if labels is None else (labels[:n], labels[n:])
    train, test = together(images[:n], images[n:])
    return ImageData(train, train_labels, test, test_labels, flat_shape(len(columns)), path.stem)


def _layout(path: Path) -> _Layout:
    """The delimiter and header, from the first line that is not empty."""
    skip = 0
    with _open(path) as file:
        for line in _lines(path, file):
            skip += 1
            if line.strip():
                break
        else:
            fail(path, "is empty; a table of numbers, one image a row, is expected")
    delimiter = next((mark for mark in "\t;" if mark in line), ",")
    if line.count(delimiter) >= _MOST_CELLS:
        fail(path, f"row {skip} has more than {_MOST_CELLS:,} cells; fewer are allowed")
    try:
        cells = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        _fail_to_split(path, skip, error)
    if any(map(_is_number, cells)) and not any(cell.strip().lower() == "label" for cell in cells):
        return _Layout(delimiter, [], 0)
    return _Layout(delimiter, cells, skip)


def _lines(path: Path, file: io.TextIOWrapper) -> Iterator[str]:
    """The lines of the file.  Raises DataError for one longer than any row of numbers, before it is all in memory."""
    for number in count(1):
        line = file.readline(_MOST_LINE)
        if len(line) == _MOST_LINE:
            fail(path, f"row {number} is longer than {_MOST_LINE:,} characters; shorter ones are allowed")
        if not line:
            return
        yield line


def _fail_to_split(path: Path, row: int, error: csv.Error) -> NoReturn:
    what = (f"holds a cell of more than {csv.field_size_limit():,} characters, which is not a number"
            if "field limit" in str(error) else f"cannot be read ({error})")
    fail(path, f"row {row} {what}; only numbers are allowed, separated by commas, semicolons or tabs", error)


def _open(path: Path, errors: str = "replace") -> io.TextIOWrapper:
    """Open a table; bytes that are not UTF-8 become a character that no number has, so that errors name their place."""
    try:
        return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors=errors, newline="")
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror})", error)


def _numbers(path: Path, layout: _Layout) -> np.ndarray:
    """The rows of numbers (N, C), float32."""
    try:
        with _open(path, "strict") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of a table without rows
            table = np.loadtxt(_lines(path, file), np.float32, None, layout.delimiter, skiprows=layout.skip,
                               quotechar='"', ndmin=2)
    except DataError:
        raise
    except (ValueError, OSError) as error:
        _fail_by_row(path, layout, error)
    if not table.size:
        fail(path, "holds a header alone; a table of numbers, one image a row, is expected")
    if layout.header and len(layout.header) != table.shape[1]:
        _fail_by_row(path, layout, None)
    return table


def _rows(path: Path, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its cells: slow, only used to locate an error."""
    with _open(path) as file:
        lines = islice(_lines(path, file), layout.skip, None)
        reader = csv.reader(lines, delimiter=layout.delimiter)
        try:
            yield from ((layout.skip + reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            _fail_to_split(path, layout.skip + reader.line_num, error)


def _fail_by_row(path: Path, layout: _Layout, error: Exception | None) -> NoReturn:
    """Raises DataError for the first row of another length, or the first cell that is not a number."""
    width, first = len(layout.header), "the header"
    for number, cells in _rows(path, layout):
        width, first = (width, first) if width else (len(cells), f"row {number}")
        if len(cells) != width:
            fail(path, f"row {number} has {len(cells)} cells, {first} {width}; all rows must be of one length")
        for index, cell in enumerate(cells):
            if not _is_number(cell):
                found = f"holds {shown(cell)}, which is not a number" if cell.strip() else "is empty"
                fail(path, f"row {number}, {layout.column(index)} {found}; only numbers are allowed, separated by "
                           "commas, semicolons or tabs")
    fail(path, f"cannot be read ({getattr(error, 'strerror', None) or error})", error)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number, NumPy does not


def _as_labels(path: Path, layout: _Layout, table: np.ndarray, column: int) -> np.ndarray:
    """The column as int64.  It was read as float32, in which integers are exact up to 2^24."""
    labels = table[:, column]
    wrong = (labels != np.rint(labels)) | ~(np.abs(labels) < 2**24)
    if wrong.any():
        _fail_at(path, layout, int(wrong.argmax()), column, "is not a label: whole numbers below 2^24 are allowed")
    return labels.astype(np.int64)


def _as_pixels(path: Path, layout: _Layout, table: np.ndarray, columns: list[int]) -> np.ndarray:
    """The columns (N, D) as float32 from 0 to 1, or as uint8."""
    images = table.take(columns, axis=1)
    low, high = images.min(), images.max()
    if low >= 0 and high <= 1:
        return images
    with np.errstate(invalid="ignore"):  # a number that is not a byte changes, and so is found
        as_bytes = images.astype(np.uint8)
    if np.array_equal(as_bytes, images):
        return as_bytes
    outside = ~((images >= 0) & (images <= 255))
    wrong = outside if outside.any() else images != as_bytes
    because = "" if outside.any() else f", and the largest number is {high:g}"
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    _fail_at(path, layout, int(row), columns[int(column)],
             f"is not a pixel{because}: from 0 to 1, or integers from 0 to 255, are allowed (.npy takes others)")


def _fail_at(path: Path, layout: _Layout, row: int, column: int, what: str) -> NoReturn:
    """Raises DataError, which names a cell of the table by its line and column, and what it holds."""
    number, cells = next(islice(_rows(path, layout), row, None))
    fail(path, f"row {number}, {layout.column(column)} holds {shortened(cells[column].strip(), 100)}, which {what}")


# ---- A folder of pictures

def load_pictures(folder: str | Path, progress: Progress = iter, limit: int | None = None) -> ImageData:
    """Pictures of one size (PNG, JPEG, GIF, BMP, TIFF, WebP, PPM), sorted by name with numbers as numbers: 2 before 10.
    With `limit`, only the first `limit` pictures of each set are opened.

    Sub-folders `train` and `test` are the two sets; without them the last tenth, at least one, is the test set.  Other
    sub-folders are classes: their names are the labels, int64 if all are integers.  Pictures of the classes alternate,
    so that the test set and the first N images hold some of each class.

    Colours become grey (ITU-R 601 luma), transparent pixels are put on white, 16 bits are rounded to 8, only the first
    frame of an animation is read, and a camera's rotation flag is applied.  Hidden files are ignored.
    Raises DataError for files that are not pictures, pictures of different sizes, and folders inside of classes.
    """
    folder = Path(folder)
    names = [path.name for path in sum(_entries(folder), [])]
    parts = [part for part in ("train", "test") if part in names]
    if parts and (len(parts), len(names)) != (2, 2):
        fail(folder, f"holds {' and '.join(parts)} but not these two sub-folders alone; a split needs both and nothing "
                     "beside them")
    if parts:
        sets = [_pictures(folder / part) for part in parts]
        labels = [_labels(pictures) for pictures in sets]
    else:
        pictures = _pictures(folder)
        n, names_found = count_to_train(folder, len(pictures)), _labels(pictures)
        sets = [pictures[:n], pictures[n:]]
        labels = [None, None] if names_found is None else [names_found[:n], names_found[n:]]
    sets = [pictures[:limit] for pictures in sets]
    images, shape = _read_pictures([path for pictures in sets for path, _ in pictures], progress)
    n = len(sets[0])
    train, test = together(images[:n], images[n:])
    return ImageData(train, labels[0], test, labels[1], shape, folder.resolve().name, ink=False).first(limit)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the sub-folders in a folder, without hidden ones, sorted by name with numbers as numbers."""
    try:
        paths = [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _CLUTTER]
    except OSError as error:
        fail(folder, f"cannot be read ({error.strerror})", error)
    paths.sort(key=lambda path: ([int(part) if part.isdecimal() else part.lower()
                                  for part in re.split(r"(\d+)", path.name)], path.name))
    return [path for path in paths if not path.is_dir()], [path for path in paths if path.is_dir()]


def _pictures(folder: Path) -> list[tuple[Path, str]]:
    """The pictures in a folder, in the order of use, each with its class; "" if there are no classes."""
    files, classes = _entries(folder)
    if files and classes:
        fail(folder, f"holds files ({files[0].name}) beside sub-folders ({classes[0].name}); only one or the other is "
                     "allowed")
    turns = [(0.0, path, "") for path in files]
    for one in classes:
        inside, deeper = _entries(one)
        if deeper or not inside:
            found = f"a sub-folder ({deeper[0].name})" if deeper else "nothing"
            fail(one, f"holds {found}; the folder of a class must hold {_PICTURES}, and nothing else")
        turns += [((i + 0.5) / len(inside), path, one.name) for i, path in enumerate(inside)]
    if not turns:
        fail(folder, f"holds nothing; {_PICTURES} are needed, or MNIST-like files (train-images-idx3-ubyte, ...)")
    return [(path, name) for _, path, name in sorted(turns, key=lambda turn: turn[0])]


def _labels(pictures: list[tuple[Path, str]]) -> np.ndarray | None:
    """The classes (N,), as int64 if all are integers, else as text; None if there are no classes."""
    names = [name for _, name in pictures]
    if not any(names):
        return None
    whole = all(re.fullmatch("[0-9]{1,18}", name) for name in names)
    return np.array(names, dtype=np.int64 if whole else np.str_)


def _read_pictures(paths: list[Path], progress: Progress) -> tuple[np.ndarray, tuple[int, int]]:
    """Grey rows (N, D), uint8, and (height, width)."""
    images = np.empty((0, 0, 0), np.uint8)
    for i, path in enumerate(progress(paths)):
        image = _grey(path)
        if not i:
            images = np.empty((len(paths), *image.shape), np.uint8)
        elif image.shape != images.shape[1:]:
            (height, width), (first_height, first_width) = image.shape, images.shape[1:]
            fail(path, f"is {width} x {height} pixels, {paths[0]} {first_width} x {first_height}; all pictures must be "
                       "of one size")
        images[i] = image
    return images.reshape(len(paths), -1), (images.shape[1], images.shape[2])


def _grey(path: Path) -> np.ndarray:
    """One picture (height, width), uint8."""
    from PIL import Image, ImageOps
    try:
        with _in_silence(), open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                fail(path, f"is larger than {_MOST_BYTES:,} bytes; a smaller picture is needed")
            with Image.open(file, formats=_FORMATS) as picture:
                _check_pixels(path, *picture.size)
                of_c = picture.format == "TIFF" and file.fileno() != 2      # 2 if stderr is closed
                with _stderr_is_nowhere() if of_c else nullcontext():
                    picture.load()
                upright, of_16_bits = ImageOps.exif_transpose(picture), picture.format in ("PNG", "PPM")
                if upright.mode.startswith("I;16") or upright.mode == "I" and of_16_bits:
                    return np.rint(np.asarray(upright) / 257).astype(np.uint8)  # convert("L") would clip at 255
                if upright.mode in ("I", "F"):
                    fail(path, f"holds pixels of 32 bits (mode {upright.mode}); 1 to 16 are allowed")
                return np.asarray(_on_white(upright).convert("L"))
    except DataError:
        raise
    except MemoryError as error:
        fail(path, f"cannot be read as a picture: there is no memory for it ({error})", error)
    except Image.DecompressionBombError:
        _check_pixels(path, _MOST_PIXELS, _MOST_PIXELS)
    except Exception as error:  # a damaged file raises whatever Pillow, struct or zlib raise
        reason = getattr(error, "strerror", None) or "it is damaged, or none of " + ", ".join(_FORMATS)
        fail(path, f"cannot be read as a picture ({reason}); a folder must hold {_PICTURES}, or MNIST-like files",
             error)
    raise AssertionError


def _check_pixels(path: Path, width: int, height: int) -> None:
    """Raises DataError for too large a picture, before it is decoded: a small file may hold very many pixels."""
    if width * height > _MOST_PIXELS:
        fail(path, f"is {width} x {height} pixels; at most {_MOST_PIXELS:,} in all are allowed: a smaller picture is "
                   "needed")


@contextmanager
def _in_silence() -> Iterator[None]:
    """Within this context Pillow's warnings and log messages are not shown."""
    import logging      # as Pillow does, and not with npvae

    logger, handler = logging.getLogger("PIL"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _stderr_is_nowhere() -> Iterator[None]:
    """Within this context nothing is written to stderr: libtiff, written in C, reports damaged files there."""
    try:
        kept = os.dup(2)
    except OSError:      # it is closed
        yield
        return
    with open(kept, "wb", closefd=True), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)


def _on_white(picture: "Image") -> "Image":
    """The picture on a white background, where it is transparent."""
    if not picture.has_transparency_data:
        return picture
    from PIL import Image
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture.convert("RGBA"))
