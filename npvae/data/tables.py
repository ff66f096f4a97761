"""CSV files: images, one a row, or tables with columns of several kinds.  Not part of the lesson; `columns.py` finds
the kinds.

A file is taken for images, which have a likelihood of pixels, or for a table, which has one for each column:

    images    all cells are numbers from 0 to 1, or whole ones from 0 to 255; the columns have no names of their own
              (none, or numbered ones as pixel0, pixel1, ...); and they are 64 or more, or a square number, or stand
              beside one called label
    table     everything else
"""
import codecs
import contextlib
import csv
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice, pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from ..likelihoods.columns import are_columns, said_of
from ..system.files import open_regular
from ..system.terminal import shortened
from ..validate import shown
from .columns import CellError, Raw, find_columns, is_missing, numbers_the_rows, raw_texts, scaled
from .images import DataError, ImageData, fail, flat_shape, parts
from .reading import Reading, taken

_MOST_LINE, _MOST_CELLS = 2**26, 2**21      # characters and cells of a row
_PROBED = 20      # lines from which header and decimal comma are guessed
_LEAST_PIXELS = 64      # columns without names that are images, even if their number is no square
_WAYS = "only numbers are allowed, separated by commas, semicolons or tabs"


class Layout(NamedTuple):
    """The format of a file, as found from its first lines."""

    delimiter: str
    width: int  # cells of the first row
    header: list[str]  # names of columns; empty if the first line holds data
    skip: int  # lines before the first row of data
    comma: bool  # 0,5 is a number

    @property
    def names(self) -> list[str]:
        """What the columns of a table are called."""
        return [name.strip() or f"column {i + 1}" for i, name in enumerate(self.header or [""] * self.width)]

    def column(self, index: int) -> str:
        """A column as errors call it."""
        return f"column {index + 1}" + (f" ({shown(self.header[index].strip())})" if self.header else "")


def load_csv(path: str | Path, reading: Reading = Reading()) -> ImageData:
    """A CSV file: images, one a row, or a table, whose columns may hold numbers, counts, text, and missing cells.

    Of `reading` these count: table, columns, header, delimiter, decimal, label_column, and how the test part is chosen.
    Without them, cells are separated by commas, or by semicolons or tabs if the first line holds one.  The first line
    is a header if no cell of it is a number, if its first cell is empty, if one is `label`, if it counts 0, 1, 2, ...,
    as pandas numbers columns, or if it holds text above a column of numbers.  A first column that is called nothing and
    counts the rows, as pandas writes one, is left out.

    The column `label` holds labels, whole numbers or text, as in Kaggle's MNIST.  Images have pixels from 0 to 1, read
    as float32, or whole numbers from 0 to 255, uint8; their image_shape is (s, s) for s * s pixels, else (1, D).  In a
    table, float32, a cell is missing that is empty, NA, N/A, NaN, null or ?; it becomes NaN.
    Raises DataError, with the line and the column, for anything else.
    """
    path = Path(path)
    layout, notes = _layout(path, reading)
    labelled = _label_column(path, layout, reading)
    is_table = True if reading.columns is not None else reading.table
    if is_table is None and reading.values is not None:
        is_table = False
    numbers = None if is_table else _numbers(path, layout, labelled)
    if is_table is None and (why := _why_a_table(layout, labelled, numbers)):
        notes.append(f"was taken as a table, since {why}")
        is_table = True
    if is_table:
        return _load_table(path, layout, labelled, reading, notes)
    return _load_images(path, layout, labelled, numbers, reading, notes)


def read_cells(path: str | Path, reading: Reading = Reading()) -> tuple[Layout, list[list[str]]]:
    """The format of a CSV file, found as `load_csv` finds it, and its rows of data as they stand there."""
    layout, _ = _layout(Path(path), reading)
    return layout, [cells for _, cells in _rows_of_one_length(Path(path), layout)]


# ---- Lines and cells

def _layout(path: Path, reading: Reading) -> tuple[Layout, list[str]]:
    """The format, from the flags or from the first lines that are not empty; and what was guessed."""
    skip, lines, delimiter = 0, list[str](), reading.delimiter
    with _open(path) as file:
        for line in _lines(path, file):
            skip += not lines
            if line.strip():
                lines.append(line)
            if len(lines) == _PROBED:
                break
    if lines and (said := re.fullmatch(r"sep=(.)\s*", lines[0])):      # as Excel writes it
        delimiter, skip, lines = delimiter or said[1], skip + 1, lines[1:]
    if not lines:
        fail(path, "is empty; a table of numbers, one image a row, is expected")
    unquoted = re.sub('"[^"]*"', "", lines[0])
    delimiter = delimiter or next((mark for mark in "\t;" if mark in unquoted), ",")
    if lines[0].count(delimiter) >= _MOST_CELLS:
        fail(path, f"row {skip} has more than {_MOST_CELLS:,} cells; fewer are allowed")
    rows = list[list[str]]()
    try:
        rows.extend([cell.strip() for cell in cells] for cells in csv.reader(lines, delimiter=delimiter) if cells)
    except csv.Error as error:
        if not rows:      # else it is found again, with its row
            _fail_to_split(path, skip, error)
    comma, notes = reading.decimal == ",", list[str]()
    if reading.decimal is None and delimiter != "," and _has_commas(rows):
        comma, notes = True, ["its numbers are read with a decimal comma"]
    is_header = reading.header
    if is_header is None:
        is_header, note = _looks_like_header(rows, reading.label_column or "label", comma)
        notes += [note] * bool(note)
    return Layout(delimiter, len(rows[0]), rows[0] if is_header else [], skip if is_header else skip - 1, comma), notes


def _has_commas(rows: list[list[str]]) -> bool:
    cells = [cell for row in rows for cell in row]
    return (any(re.fullmatch(r"[+-]?\d+,\d+", cell) for cell in cells)
            and not any(re.fullmatch(r"[+-]?\d+\.\d+", cell) for cell in cells))


def _looks_like_header(rows: list[list[str]], label: str, comma: bool) -> tuple[bool, str]:
    """Whether the first row of a table is a header; and what must be said about that."""
    cells, others = rows[0], rows[1:]
    numbers, found = [_is_number(cell, comma) for cell in cells], ", ".join(cells[:3]) + ", ..." * (len(cells) > 3)
    if not any(numbers) or not cells[0] or label.lower() in map(str.lower, cells):
        guessed = others and not any(_is_number(cell, comma) for row in others for cell in row)
        return True, f"its first row, {found}, was taken as a header: --header no takes it as data" if guessed else ""
    if len(cells) > 2 and cells in (list(map(str, range(start, start + len(cells)))) for start in (0, 1)):
        return True, f"its first row, {found}, was taken as a header: --header no takes it as data"
    for i, cell in enumerate(cells):
        below = [row[i] for row in others if i < len(row) and not is_missing(row[i])]
        if not numbers[i] and not is_missing(cell) and below and all(_is_number(one, comma) for one in below):
            return True, ""
    if len(cells) > 7 and all(numbers) and all(float(a) < float(b) for a, b in pairwise(cells)):
        return False, (f"its first row, {found}, increases as a header of numbers does, and was taken as data: "
                       "--header yes takes it as a header")
    return False, ""


def _label_column(path: Path, layout: Layout, reading: Reading) -> int | None:
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
    fail(path, f"row {row} {what}; {_WAYS}", error)


def _open(path: Path, errors: str = "replace") -> io.TextIOWrapper:
    """Open a table; bytes that are not UTF-8 become a character that no number has, so that errors name their place."""
    try:
        file = open_regular(path)
        wide = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)      # as Excel's "Unicode text"
        return io.TextIOWrapper(file, encoding="utf-16" if wide else "utf-8-sig", errors=errors, newline="")
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror})", error)


def _rows(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The number of each line and its cells; of images, used only to locate an error, since it is slow."""
    with _open(path) as file:
        lines = islice(_lines(path, file), layout.skip, None)
        reader = csv.reader(lines, delimiter=layout.delimiter)
        try:
            yield from ((layout.skip + reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            _fail_to_split(path, layout.skip + reader.line_num, error)


def _rows_of_one_length(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """As `_rows`.  Raises DataError for the first row of another length than the header, or the first row."""
    width, first = len(layout.header), "the header"
    for number, cells in _rows(path, layout):
        width, first = (width, first) if width else (len(cells), f"row {number}")
        if len(cells) != width:
            fail(path, f"row {number} has {len(cells)} cells, {first} {width}; all rows must be of one length")
        yield number, cells


def _is_number(cell: str, comma: bool = False) -> bool:
    try:
        float(cell.replace(",", ".") if comma else cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number, NumPy does not


# ---- Images

class _Numbers(NamedTuple):
    """A file in which all cells are numbers, but for labels, which may be text."""

    table: np.ndarray  # (N, C), float32; the column of labels holds indices into `names`
    names: list[str]  # the labels found


def _numbers(path: Path, layout: Layout, labelled: int | None) -> _Numbers | None:
    """All cells; None if one is no number, or a row is of another length."""
    codes: dict[str, int] = {}

    def code(cell: str) -> float:
        return codes.setdefault(cell.strip(), len(codes))

    try:
        table = _loaded(path, layout, np.float32, None if labelled is None else {labelled: code})
    except DataError:
        raise
    except ValueError:
        return None
    if not table.size:
        fail(path, "holds a header alone; a table of numbers, one image a row, is expected")
    return _Numbers(table, list(codes)) if table.shape[1] == layout.width else None


def _loaded(path: Path, layout: Layout, dtype: DTypeLike,
            converters: dict[int | str, Callable[[str], float]] | None = None) -> np.ndarray:
    """The rows of numbers (N, C).  Raises ValueError for other cells, DataError if the file cannot be read."""
    try:
        with _open(path, "strict") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of a table without rows
            lines = (line.replace(",", ".") for line in _lines(path, file)) if layout.comma else _lines(path, file)
            table: np.ndarray = np.loadtxt(lines, dtype, None, layout.delimiter, converters, skiprows=layout.skip,
                                           ndmin=2, encoding=None, quotechar='"')
            return table
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror or error})", error)


def _unnamed_index(layout: Layout, first: np.ndarray | None) -> bool:
    """Whether the first column, which holds these numbers (N,), is one that pandas writes: it counts the rows."""
    return bool(layout.header) and not layout.header[0].strip() and numbers_the_rows(first)


_INDEX = "its first column, without a name, counts the rows, and was left out"


def _why_a_table(layout: Layout, labelled: int | None, numbers: _Numbers | None) -> str:
    """Why the file is no table of images; "" if it is one."""
    if numbers is None:
        return "it holds text or missing cells"
    chosen = _columns_of_pixels(layout, labelled, numbers.table)
    if not chosen:
        return ""      # refused with the rest
    images = numbers.table.take(chosen, axis=1)
    low, high = images.min(), images.max()
    if np.isnan(low):
        return "it holds missing cells"
    if low < 0 or high > 255 or high > 1 and (images != np.rint(images)).any():
        return f"its numbers, from {low:g} to {high:g}, are no pixels"
    names = [layout.header[i].strip() for i in chosen if layout.header]
    if len({re.sub("[0-9]+", "", name) for name in names}) > 1 or not all(re.search("[0-9]", name) for name in names):
        return "its columns have names"
    if len(chosen) < _LEAST_PIXELS and math.isqrt(len(chosen)) ** 2 != len(chosen) and labelled is None:
        return f"it has {len(chosen)} columns"
    return ""


def _load_images(path: Path, layout: Layout, labelled: int | None, numbers: _Numbers | None, reading: Reading,
                 notes: list[str]) -> ImageData:
    """The file as images.  Raises DataError for the first cell that is not a pixel."""
    if numbers is None:
        _fail_by_row(path, layout, labelled)
    columns = _columns_of_pixels(layout, labelled, numbers.table)
    if not columns:
        fail(path, "holds labels alone; columns of pixels are needed")
    if 0 not in columns and labelled != 0:
        notes.append(_INDEX)
    labels = None if labelled is None else _as_labels(path, layout, numbers.table[:, labelled], labelled, numbers.names)
    images = numbers.table.take(columns, axis=1)
    if reading.values not in ("real", "counts"):
        images = _as_pixels(path, layout, images, columns)
    train, test = parts(path, len(images), reading)
    train_labels, test_labels = (None, None) if labels is None else (labels[train], labels[test])
    return ImageData(taken(images, train), train_labels, taken(images, test), test_labels, flat_shape(len(columns)),
                     path.stem, notes=tuple(notes), split=reading.test_part)


def _columns_of_pixels(layout: Layout, labelled: int | None, table: np.ndarray) -> list[int]:
    """All columns but that of labels, and one that counts the rows."""
    index = 0 if _unnamed_index(layout, table[:, 0]) else None
    return [i for i in range(layout.width) if i not in (labelled, index)]


def _fail_by_row(path: Path, layout: Layout, labelled: int | None) -> NoReturn:
    """Raises DataError for the first row of another length, or the first cell that is not a number."""
    for number, cells in _rows_of_one_length(path, layout):
        for index, cell in enumerate(cells):
            if index != labelled and not _is_number(cell, layout.comma):
                found = f"holds {shown(cell)}, which is not a number" if cell.strip() else "is empty"
                fail(path, f"row {number}, {layout.column(index)} {found}; {_WAYS}")
    fail(path, f"cannot be read as a table of numbers; {_WAYS}")


def _as_labels(path: Path, layout: Layout, index: np.ndarray, column: int, names: list[str]) -> np.ndarray:
    """The labels (N,), int64 if all are whole numbers, else text.  `index` (N,) holds indices into `names`."""
    at = index.astype(np.int64)      # exact in float32 up to 2^24 labels

    def whole(name: str) -> bool:
        return re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", name) is not None

    if all(map(whole, names)):
        return np.array([int(name.partition(".")[0]) for name in names], np.int64)[at]
    numbers = all(map(_is_number, names))      # a fraction among names is a name, too; a missing label is none
    wrong = [i for i, name in enumerate(names) if name.lower() in ("", "nan", "na") or numbers and not whole(name)]
    if wrong:
        _fail_at(path, layout, int((at == wrong[0]).argmax()), column,
                 "is not a label: whole numbers below 10^18, or names, are allowed")
    return np.array(names)[at]


def _as_pixels(path: Path, layout: Layout, images: np.ndarray, columns: list[int]) -> np.ndarray:
    """The columns (N, D) as float32 from 0 to 1, or as uint8."""
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


def _fail_at(path: Path, layout: Layout, row: int, column: int, what: str) -> NoReturn:
    """Raises DataError, which names a cell of the table by its line and column, and what it holds."""
    _, cells = next(islice(_rows(path, layout), row, None))
    _fail_at_cell(path, layout, row, column, f"holds {shortened(cells[column].strip(), 100)}, which {what}")


def _fail_at_cell(path: Path, layout: Layout, row: int, column: int, what: str) -> NoReturn:
    number, _ = next(islice(_rows(path, layout), row, None))
    fail(path, f"row {number}, {layout.column(column)} {what}")


# ---- Tables

def _load_table(path: Path, layout: Layout, labelled: int | None, reading: Reading, notes: list[str]) -> ImageData:
    """The file as a table of columns of several kinds."""
    names = layout.names
    try:
        cells = _cells(path, layout, names, labelled)
        labels = None
        if labelled is not None:
            found: dict[str, int] = {}
            index = np.array([found.setdefault(text, len(found)) for text in cells[labelled].texts])
            labels = _as_labels(path, layout, index, labelled, list(found))
        index_too = {labelled, 0} if _unnamed_index(layout, cells[0].numbers) else {labelled}
        return table_of(path, path.stem, [raw for i, raw in enumerate(cells) if i not in index_too], labels, reading,
                        notes + [_INDEX] * (len(index_too) - 1))
    except CellError as error:
        _fail_at_cell(path, layout, error.row, names.index(error.column), str(error))


def _cells(path: Path, layout: Layout, names: list[str], labelled: int | None) -> list[Raw]:
    """The columns; that of labels as texts.  Raises CellError, DataError."""
    if labelled is None:
        with contextlib.suppress(ValueError):      # the quick way, if there are only numbers
            table = _loaded(path, layout, np.float64)
            if table.size and table.shape[1] == layout.width:
                return [Raw(name, numbers) for name, numbers in zip(names, table.T)]
    rows = [cells for _, cells in _rows_of_one_length(path, layout)]
    if not rows:
        fail(path, "holds a header alone; rows of data are expected")
    for row, cells in enumerate(rows):
        if (wrong := [i for i, cell in enumerate(cells) if "\ufffd" in cell]):
            raise CellError(row, names[wrong[0]], f"holds {shown(cells[wrong[0]])}, bytes that are no UTF-8: save the "
                            "file as CSV UTF-8")
    return [Raw(name, None, [cell.strip() for cell in column]) if i == labelled else
            raw_texts(name, column, layout.comma) for i, (name, column) in enumerate(zip(names, zip(*rows)))]


def table_of(source: str | Path, name: str, raws: Sequence[Raw], labels: np.ndarray | None, reading: Reading,
             notes: Sequence[str] = ()) -> ImageData:
    """The data set of these columns.  Raises CellError; DataError, which names `source`."""
    try:
        fixed, said = (reading.columns, None) if are_columns(reading.columns) else (None, said_of(reading.columns))
    except ValueError as error:
        fail("columns", str(error), error)
    try:
        found = find_columns(raws, said, fixed)
        train, test = parts(source, len(found.x), reading)
        columns = fixed or scaled(found.columns, found.x[train])
    except (CellError, DataError):
        raise
    except ValueError as error:
        fail(source, str(error), error)
    x = found.x.astype(np.float32)
    return ImageData(x[train], None if labels is None else labels[train], x[test],
                     None if labels is None else labels[test], (1, len(columns)), name, columns=tuple(columns),
                     notes=(*notes, *found.notes), split=reading.test_part)
