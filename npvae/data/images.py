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
from itertools import count, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from ..likelihoods.support import part_of, together
from ..system.files import open_regular
from ..system.terminal import shortened
from ..validate import shown
from .reading import Reading, taken

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
    notes: tuple[str, ...] = ()  # what was guessed or lost in reading, a sentence each

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


def parts(path: Path, count: int, reading: Reading, what: str = "", limit: int | None = None
          ) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the training part and of the test part of a set of `count` images that has none of its own; see
    `Reading.parts`.  Raises DataError for a single image; `what` names the part of the file."""
    if count < 2 and not reading.whole:
        fail(path, f"{what}holds 1 image; at least 2 are needed, one to train and one to test")
    return reading.parts(count, limit)


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


def load_csv(path: str | Path, reading: Reading = Reading()) -> ImageData:
    """A table of numbers, one image per row: pixels from 0 to 1 (read as float32), or integers from 0 to 255 (uint8).

    Of `reading` these count: header, delimiter, label_column, and how the test part is chosen.  Without them, cells are
    separated by commas, or by semicolons or tabs if the first line holds one; the first line is a header if no cell of
    it is a number, if its first cell is empty, if one is `label`, or if it counts 0, 1, 2, ..., as pandas numbers
    columns.  A first column that is called nothing and counts the rows, as pandas writes one, is left out.

    The column `label` holds labels, whole numbers or text, as in Kaggle's MNIST.  image_shape is (s, s) for s * s
    pixels, else (1, D).  Raises DataError, with the line and the column, for anything else.
    """
    path = Path(path)
    layout, notes = _layout(path, reading)
    labelled = _label_column(path, layout, reading)
    table, names = _numbers(path, layout, labelled)
    left_out = {labelled}
    if layout.header and not layout.header[0].strip() and np.array_equal(table[:, 0], np.arange(len(table))):
        left_out.add(0)
        notes.append("its first column, without a name, counts the rows, and was left out")
    columns = [i for i in range(table.shape[1]) if i not in left_out]
    if not columns:
        fail(path, "holds labels alone; columns of pixels are needed")
    labels = None if labelled is None else _as_labels(path, layout, table, labelled, names)
    images = _as_pixels(path, layout, table, columns)
    train, test = parts(path, len(images), reading)
    train_labels, test_labels = (None, None) if labels is None else (labels[train], labels[test])
    x_train, x_test = together(taken(images, train), taken(images, test))
    return ImageData(x_train, train_labels, x_test, test_labels, flat_shape(len(columns)), path.stem,
                     notes=tuple(notes))


def _layout(path: Path, reading: Reading) -> tuple[_Layout, list[str]]:
    """The delimiter and header, from the flags or from the first line that is not empty; and what was guessed."""
    skip = 0
    with _open(path) as file:
        for line in _lines(path, file):
            skip += 1
            if line.strip():
                break
        else:
            fail(path, "is empty; a table of numbers, one image a row, is expected")
    delimiter = reading.delimiter or next((mark for mark in "\t;" if mark in line), ",")
    if line.count(delimiter) >= _MOST_CELLS:
        fail(path, f"row {skip} has more than {_MOST_CELLS:,} cells; fewer are allowed")
    try:
        cells = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        _fail_to_split(path, skip, error)
    is_header, notes = reading.header, list[str]()
    if is_header is None:
        is_header, notes = _looks_like_header([cell.strip() for cell in cells], reading.label_column or "label")
    return _Layout(delimiter, cells, skip) if is_header else _Layout(delimiter, [], 0), notes


def _looks_like_header(cells: list[str], label: str) -> tuple[bool, list[str]]:
    """Whether the first row of a table is a header; and what must be said about that."""
    if not any(map(_is_number, cells)) or not cells[0] or label.lower() in map(str.lower, cells):
        return True, []
    found = ", ".join(cells[:3]) + ", ..." * (len(cells) > 3)
    if len(cells) > 2 and cells in (list(map(str, range(start, start + len(cells)))) for start in (0, 1)):
        return True, [f"its first row, {found}, was taken as a header: --header no takes it as data"]
    if len(cells) > 7 and all(map(_is_number, cells)) and all(float(a) < float(b) for a, b in pairwise(cells)):
        return False, [f"its first row, {found}, increases as a header of numbers does, and was taken as data: "
                       "--header yes takes it as a header"]
    return False, []


def _label_column(path: Path, layout: _Layout, reading: Reading) -> int | None:
    """The index of the column that holds labels; None without one."""
    wanted = reading.label_column or "label"
    labelled = [i for i, name in enumerate(layout.header) if name.strip().lower() == wanted.strip().lower()]
    if len(labelled) > 1:
        fail(path, f"has {len(labelled)} columns called {wanted}; one is allowed")
    if reading.label_column is not None and not labelled:
        names = ", ".join(name.strip() for name in layout.header[:20])
        fail(path, f"has no column {wanted}, which --label-column names: " + (
            f"its columns are {names}" if names else "its first row is no header, and --header yes takes it as one"))
    return labelled[0] if labelled else None


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


def _numbers(path: Path, layout: _Layout, labelled: int | None) -> tuple[np.ndarray, list[str]]:
    """The rows of numbers (N, C), float32; and the labels found, whose column holds indices into them."""
    codes: dict[str, int] = {}

    def code(cell: str) -> float:
        return codes.setdefault(cell.strip(), len(codes))

    try:
        with _open(path, "strict") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of a table without rows
            table = np.loadtxt(_lines(path, file), np.float32, None, layout.delimiter,
                               None if labelled is None else {labelled: code}, skiprows=layout.skip, ndmin=2,
                               encoding=None, quotechar='"')
    except DataError:
        raise
    except (ValueError, OSError) as error:
        _fail_by_row(path, layout, error, labelled)
    if not table.size:
        fail(path, "holds a header alone; a table of numbers, one image a row, is expected")
    if layout.header and len(layout.header) != table.shape[1]:
        _fail_by_row(path, layout, None, labelled)
    return table, list(codes)


def _rows(path: Path, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its cells: slow, only used to locate an error."""
    with _open(path) as file:
        lines = islice(_lines(path, file), layout.skip, None)
        reader = csv.reader(lines, delimiter=layout.delimiter)
        try:
            yield from ((layout.skip + reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            _fail_to_split(path, layout.skip + reader.line_num, error)


def _fail_by_row(path: Path, layout: _Layout, error: Exception | None, labelled: int | None) -> NoReturn:
    """Raises DataError for the first row of another length, or the first cell but labels that is not a number."""
    width, first = len(layout.header), "the header"
    for number, cells in _rows(path, layout):
        width, first = (width, first) if width else (len(cells), f"row {number}")
        if len(cells) != width:
            fail(path, f"row {number} has {len(cells)} cells, {first} {width}; all rows must be of one length")
        for index, cell in enumerate(cells):
            if index != labelled and not _is_number(cell):
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


def _as_labels(path: Path, layout: _Layout, table: np.ndarray, column: int, names: list[str]) -> np.ndarray:
    """The labels (N,), int64 if all are whole numbers, else text.  The column holds indices into `names`."""
    index = table[:, column].astype(np.int64)      # exact up to 2^24 labels

    def whole(name: str) -> bool:
        return re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", name) is not None

    if all(map(whole, names)):
        return np.array([int(name.partition(".")[0]) for name in names], np.int64)[index]
    numbers = all(map(_is_number, names))      # a fraction among names is a name, too; a missing label is none
    wrong = [i for i, name in enumerate(names) if name.lower() in ("", "nan", "na") or numbers and not whole(name)]
    if wrong:
        _fail_at(path, layout, int((index == wrong[0]).argmax()), column,
                 "is not a label: whole numbers below 10^18, or names, are allowed")
    return np.array(names)[index]


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

def load_pictures(folder: str | Path, progress: Progress = iter, limit: int | None = None,
                  reading: Reading = Reading()) -> ImageData:
    """Pictures of one size (PNG, JPEG, GIF, BMP, TIFF, WebP, PPM), sorted by name with numbers as numbers: 2 before 10.
    With `limit`, only the first `limit` pictures of each set are opened.

    Sub-folders `train` and `test` are the two sets; without them `reading` says how the test part is chosen.  Other
    sub-folders are classes: their names are the labels, int64 if all are integers.  Pictures of the classes alternate,
    so that the last and the first N images hold some of each class.

    Colours become grey (ITU-R 601 luma), transparent pixels are put on white, 16 bits are rounded to 8, only the first
    frame of an animation is read, and a camera's rotation flag is applied.  Hidden files are ignored.
    Raises DataError for files that are not pictures, pictures of different sizes, and folders inside of classes.
    """
    folder = Path(folder)
    names = [path.name for path in sum(_entries(folder), [])]
    halves = [part for part in ("train", "test") if part in names]
    if halves and (len(halves), len(names)) != (2, 2):
        fail(folder, f"holds {' and '.join(halves)} but not these two sub-folders alone; a split needs both and "
                     "nothing beside them")
    if halves:
        sets = [_pictures(folder / half) for half in halves]
        labels = [_labels(pictures) for pictures in sets]
        sets = [pictures[:limit] for pictures in sets]
    else:
        pictures = _pictures(folder)
        rows, names_found = parts(folder, len(pictures), reading, limit=limit), _labels(pictures)
        sets = [[pictures[i] for i in part] for part in rows]
        labels = [None if names_found is None else names_found[part] for part in rows]
    images, shape = _read_pictures([path for pictures in sets for path, _ in pictures], progress)
    n = len(sets[0])
    train, test = together(images[:n], images[n:])
    return ImageData(train, labels[0], test, labels[1], shape, folder.resolve().name, ink=False)


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
