"""The columns of a table: what kind of numbers each one holds, and its cells as numbers.  Not part of the lesson;
`tables.py` reads files, `likelihoods/columns.py` says what a column is.

What is found from the data, in this order:

    one value only                               left out, with a note
    0 and 1, or two values                       binary
    whole numbers that count the rows            left out, with a note
    whole numbers, at most ten, each frequent    category      (2 % of the rows or more, five rows or more a level)
    whole numbers from 0 or 1 on                 count
    positive, and closer to a log-normal         positive      (by its likelihood, by 0.05 nats a row or more)
    other numbers                                real
    dates                                        refused
    text that is nearly everywhere different     left out, with a note
    other text                                   category
"""
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..likelihoods.columns import FAMILIES, KINDS, SKIP, Column, Wish, listing
from ..system.terminal import plain, shortened
from ..validate import shown

#: a cell that says that it is missing, in small letters
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "?")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2}))([ T]\d{1,2}:\d\d.*)?|"
                   r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?")
_NO_FIRST = {"no": 0, "false": 0, "n": 0, "f": 0}      # of two levels, the one that is 0, if the other is _YES
_FEW, _SHARE, _ROWS_EACH = 10, 0.02, 5      # levels, the rarest one's share of the rows, rows for each level
_ROWS_COUNTED = 10      # rows from which whole numbers, all different, are taken for numbers of rows
_MOST_LEVELS = 100
_GAIN = 0.05      # nats a row by which a log-normal must fit better than a Gaussian
_MOST_DECIMALS = 6
_LARGEST = 1e30      # squares of differences are divided by those of the scale
_SINGLE = 2.0 ** 22      # a mean of so many standard deviations leaves too few digits in float32


class Raw(NamedTuple):
    """A column as it was given: numbers (N,) in double precision, NaN where missing; or texts, empty where missing."""

    name: str
    numbers: np.ndarray | None
    texts: Sequence[str] = ()


class Found(NamedTuple):
    """The columns of a table, their cells as numbers (N, D), and what somebody should know of them."""

    columns: tuple[Column, ...]
    x: np.ndarray
    notes: tuple[str, ...]


class CellError(ValueError):
    """A cell that does not fit its column, whose name is `column`.  `row` counts the rows of data from 0."""

    def __init__(self, row: int, column: str, what: str) -> None:
        super().__init__(what)
        self.row, self.column = row, column


def is_missing(cell: str) -> bool:
    """Whether a cell says that it is missing."""
    return cell.strip().lower() in MISSING


def raw_texts(name: str, cells: Sequence[str], comma: bool = False) -> Raw:
    """A column of cells as they stand in a file; with `comma`, 0,5 is a number.

    It is a column of numbers if all present cells are, and one of texts if less than half of them are.  Raises
    CellError for the first other cell if half of them or more are numbers.
    """
    texts = ["" if is_missing(cell) else cell.strip() for cell in cells]
    plain_numbers = [text.replace(",", ".") if comma else text for text in texts]
    of_number = [_NUMBER.fullmatch(text) is not None for text in plain_numbers]
    present, numbers = sum(map(bool, texts)), sum(of_number)
    if numbers == present:
        return Raw(name, np.array([float(text) if text else math.nan for text in plain_numbers]))
    if 2 * numbers >= present:
        row = next(i for i, text in enumerate(texts) if text and not of_number[i])
        raise CellError(row, name, f"holds {shown(texts[row])}, which is not a number, as {numbers:,} other cells of "
                        f"this column are: leave it empty if it is missing, or say --columns {name}:category")
    return Raw(name, None, texts)


def find_columns(raws: Iterable[Raw], wanted: Mapping[str, Wish] | None = None,
                 fixed: Sequence[Column] | None = None) -> Found:
    """The kind of each column, found from its cells or as `wanted`, and its cells as numbers.

    fixed : the columns of a model that exists: they are looked up by name, with their levels, and others are left out

    Raises CellError for a cell that does not fit, ValueError for a column that does not.
    """
    by_name: dict[str, Raw] = {}
    for raw in map(_finite, raws):
        if raw.name in by_name:
            raise ValueError(f"has two columns called {shown(raw.name)}; each needs a name of its own")
        by_name[raw.name] = raw
    if fixed is not None:
        absent = [column.name for column in fixed if column.name not in by_name]
        if absent:
            raise ValueError(f"has no column {shown(absent[0])}, which the model takes; its columns are "
                             f"{_named(by_name)}")
        cells = [_codes(by_name[column.name], column) for column in fixed]
        return Found(tuple(fixed), np.column_stack(cells), _left_out(by_name.keys() - {c.name for c in fixed},
                                                                     by_name, "the model does not take"))
    wanted = {} if wanted is None else wanted
    for name in wanted:
        if name not in by_name:
            raise ValueError(f"has no column {shown(name)}; its columns are {_named(by_name)}")
    columns, parts, notes = [], [], []
    for name, raw in by_name.items():
        column = _as_wanted(raw, wanted[name]) if name in wanted else _detected(raw)
        if isinstance(column, Column):
            columns.append(column)
            parts.append(_codes(raw, column))
        elif column:
            notes.append(f"its column {plain(name)} was left out: {column}")
    if not columns:
        raise ValueError("holds no column that can be learned from" + f" ({'; '.join(notes)})" * bool(notes))
    return Found(tuple(columns), np.column_stack(parts), tuple(notes))


def _finite(raw: Raw) -> Raw:
    """The column itself.  Raises CellError for a number that is infinite, or would be in float32."""
    if raw.numbers is not None and (wrong := np.abs(raw.numbers) > _LARGEST).any():
        row = int(wrong.argmax())
        raise CellError(row, raw.name, f"holds {raw.numbers[row]:g}; numbers up to {_LARGEST:g} are allowed")
    return raw


def _named(names: Iterable[str]) -> str:
    return shortened(", ".join(map(plain, names)), 200)


def _left_out(names: Iterable[str], order: Iterable[str], why: str) -> tuple[str, ...]:
    gone = [name for name in order if name in {*names}]
    return (f"its columns that {why} were left out: {_named(gone)}",) if gone else ()


# ---- The kind of a column

def _detected(raw: Raw) -> Column | str:
    """The column, or why it is left out.  Raises ValueError for dates."""
    return _of_texts(raw) if raw.numbers is None else _of_numbers(raw.name, raw.numbers)


def _of_numbers(name: str, numbers: np.ndarray) -> Column | str:
    values = numbers[~np.isnan(numbers)]
    found, counts = np.unique(values, return_counts=True)
    if len(found) < 2:
        return "all its cells are missing" if not len(found) else f"it holds {_level(found[0])} alone"
    whole, n, u = bool((values == np.rint(values)).all()), len(values), len(found)
    if u == 2 and (whole or n >= 5 * _ROWS_EACH):
        return Column(name, "bernoulli", tuple(map(_level, found)), decimals=0)
    if n >= _ROWS_COUNTED and numbers_the_rows(numbers):
        return "it numbers the rows"
    if whole and u == n >= _ROWS_COUNTED and re.fullmatch(r"(.*[ _.-])?(id|index|key)", name.lower()):
        return "it holds identifiers, each once"
    if whole and u <= _FEW and n >= _ROWS_EACH * u and counts.min() >= _SHARE * n:
        return Column(name, "categorical", tuple(map(_level, found)), decimals=0)
    if whole and found[0] in (0, 1):
        return Column(name, "negative-binomial", decimals=0)
    return Column(name, "log-normal" if _gain_of_logarithm(values) > _GAIN else "gaussian", decimals=_decimals(values))


def numbers_the_rows(numbers: np.ndarray | None) -> bool:
    """Whether the numbers (N,) are 0, 1, 2, ... or 1, 2, 3, ..."""
    return numbers is not None and bool(numbers[0] in (0, 1) and (np.diff(numbers) == 1).all())


def _gain_of_logarithm(values: np.ndarray) -> float:
    """By how many nats a row the best log-normal density fits better than the best Gaussian one."""
    if values.min() <= 0:
        return -math.inf
    logs = np.log(values)
    return float(np.log(values.std()) - np.log(logs.std()) - logs.mean()) if logs.std() > 0 else -math.inf


def _of_texts(raw: Raw) -> Column | str:
    texts = [text for text in raw.texts if text]
    found, n = {*texts}, len(texts)
    if sum(_DATE.fullmatch(text) is not None for text in found) > 0.5 * len(found):
        raise ValueError(f"column {shown(raw.name)} holds dates or times, such as {shown(texts[0])}: turn them into "
                         f"numbers first, as days since the first one, or leave it out with --columns {raw.name}:skip")
    if len(found) == 1:
        return f"it holds {shown(texts[0])} alone"
    if len(found) > 2 and (len(found) == n or len(found) > max(20, 0.5 * n)):
        return f"its {len(found):,} different texts in {n:,} rows look like identifiers"
    if len(found) > _MOST_LEVELS:
        return (f"{len(found):,} different texts are more than {_MOST_LEVELS}; --columns {raw.name}:category takes "
                "them all")
    return Column(raw.name, "bernoulli" if len(found) == 2 else "categorical", _in_order(found), decimals=0)


def _in_order(texts: Iterable[str]) -> tuple[str, ...]:
    """Levels in the order of their codes: numbers by size, no before yes, else by the alphabet."""
    def key(text: str) -> tuple[float, int, str, str]:
        number = float(text) if _NUMBER.fullmatch(text) else math.inf
        return number, _NO_FIRST.get(text.lower(), 1), text.lower(), text
    return tuple(sorted(texts, key=key))


def _as_wanted(raw: Raw, wish: Wish) -> Column | str:
    """The column as someone says it is; "" if it is to be left out."""
    if wish.family == SKIP:
        return ""
    numbers = raw.numbers
    if FAMILIES[wish.family] in ("real", "positive", "count"):
        return Column(raw.name, wish.family, decimals=6 if numbers is None else _decimals(numbers))
    if wish.levels:
        return Column(raw.name, wish.family, wish.levels, decimals=0)
    if wish.family == "ordinal" and numbers is None:
        raise ValueError(f"column {shown(raw.name)} holds texts, whose order must be said, as in "
                         f"--columns '{raw.name}:ordinal(low|mid|high)'")
    found = {text for text in raw.texts if text} if numbers is None else {*map(_level, _values(numbers))}
    levels = _in_order(found)
    if len(levels) < 2 or len(levels) > 2 and wish.family == "bernoulli":
        raise ValueError(f"column {shown(raw.name)} holds {len(levels)} different values; "
                         f"{FAMILIES[wish.family]} takes {'two' if wish.family == 'bernoulli' else 'two or more'}")
    return Column(raw.name, wish.family, levels, decimals=0)


def _values(numbers: np.ndarray) -> np.ndarray:
    return np.unique(numbers[~np.isnan(numbers)])


def _level(value: float) -> str:
    """A number as a level is written: 2007, not 2007.0."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _decimals(numbers: np.ndarray) -> int:
    """The least number of decimals that keeps all values."""
    values = _values(numbers)
    near = 1e-9 * np.abs(values)
    return next((k for k in range(_MOST_DECIMALS) if (np.abs(values - np.round(values, k)) <= near).all()),
                _MOST_DECIMALS)


# ---- The cells of a column

def _codes(raw: Raw, column: Column) -> np.ndarray:
    """The cells as numbers (N,), float64.  Raises CellError for one that is not of the column's kind."""
    if column.levels:
        return _level_codes(raw, column)
    if raw.numbers is None:
        row = next(i for i, text in enumerate(raw.texts) if text and not _NUMBER.fullmatch(text))
        raise CellError(row, raw.name, f"holds {shown(raw.texts[row])}, which is not a number, as {column.kind} needs")
    numbers = raw.numbers
    if column.kind == "positive":
        wrong, what = numbers <= 0, "is not positive, as log-normal needs"
    elif column.kind == "count":
        wrong, what = (numbers < 0) | (numbers != np.rint(numbers)) & ~np.isnan(numbers), "is not a count"
    else:
        return numbers
    if wrong.any():
        row = int(wrong.argmax())
        raise CellError(row, column.name, f"holds {numbers[row]:g}, which {what}")
    return numbers


def _level_codes(raw: Raw, column: Column) -> np.ndarray:
    """The index of each cell's level."""
    code = {level: float(i) for i, level in enumerate(column.levels)}
    if all(map(_NUMBER.fullmatch, code)):      # levels 1, 2 and cells 1.0, 2.0 are the same
        code = {_level(float(level)): i for level, i in code.items()}
    texts = raw.texts if raw.numbers is None else ["" if number != number else _level(number) if math.isfinite(number)
                                                   else str(number) for number in raw.numbers.tolist()]
    for row, text in enumerate(texts):
        if text and text not in code:
            raise CellError(row, raw.name, f"holds {shown(text)}, which is none of its levels: {_named(column.levels)}")
    return np.array([code[text] if text else math.nan for text in texts])


# ---- What the network counts in, and what is printed

def scaled(columns: Sequence[Column], x: np.ndarray) -> tuple[Column, ...]:
    """The columns with the location and scale of training rows x (N, D).  Raises ValueError for a column whose
    differences float32 cannot hold."""
    def of(column: Column, cells: np.ndarray) -> Column:
        if column.levels:
            return column
        values = cells[~np.isnan(cells)].astype(float)
        moved = np.log(values) if column.kind == "positive" else np.log1p(values) if column.kind == "count" else values
        mean, spread = (float(moved.mean()), float(moved.std())) if len(moved) else (0.0, 0.0)
        if column.kind == "real" and abs(mean) > _SINGLE * spread > 0:
            raise ValueError(f"column {shown(column.name)} lies between {values.min():.10g} and {values.max():.10g}: "
                             "subtract a constant near its mean first, since float32 does not hold such differences")
        return column._replace(location=mean, scale=spread or 1.0)
    return tuple(of(column, cells) for column, cells in zip(columns, x.T))


def described(columns: Sequence[Column], x: np.ndarray) -> str:
    """A line for each column of x (N, D): name, kind, range or levels, number of missing cells."""
    def what(column: Column, cells: np.ndarray) -> str:
        if column.levels:
            return " < ".join(column.levels) if column.kind == "ordinal" else ", ".join(column.levels)
        seen = cells[~np.isnan(cells)]
        return f"{column.text(seen.min())} to {column.text(seen.max())}" if len(seen) else ""

    def kind(column: Column) -> str:
        return column.kind + f" ({column.family})" * (KINDS[column.kind] != column.family)
    return listing((column.name, kind(column), plain(what(column, cells)), int(np.isnan(cells).sum()))
                   for column, cells in zip(columns, x.T))
