"""Files of results, with one row for each row of data: codes, scores, samples.  Not part of the lesson.

    .csv    a header, then all columns: numbers as short as they can be and still be read back to the same bits
    .npy    the columns of numbers alone, as one array
"""
import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..params import Array
from ..system.files import open_regular
from ..validate import shown
from .images import fail
from .npy import stored_array

_MOST_LINE = 2**26      # characters of a row
#: what the coordinates of a code are called, before their number
_CODES = ("mu", "z")

Column = Sequence[object] | Array


class Codes(NamedTuple):
    """Codes z (N, Z), and what else stands in their file: name of a column -> its cells."""

    z: Array
    others: dict[str, list[str]]


def numbered(name: str, values: Array) -> dict[str, Array]:
    """The columns of values (N, C) by name: name_1, name_2, ..."""
    return {f"{name}_{j + 1}": values[:, j] for j in range(values.shape[1])}


def as_csv(columns: Mapping[str, Column]) -> bytes:
    """The columns, all of N cells, as the content of a .csv file."""
    return joined([[*columns], *zip(*(_texts(column) for column in columns.values()))])


def joined(rows: Iterable[Iterable[object]], delimiter: str = ",") -> bytes:
    """Rows of cells as the content of a .csv file."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()


def _texts(column: Column) -> Iterable[object]:
    """The cells of a column; of an array of float32, the shortest texts that float32 tells apart."""
    return column.astype(str).tolist() if isinstance(column, np.ndarray) else column


def as_npy(array: Array) -> bytes:
    """The array as the content of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def load_codes(path: str | Path, latent_dim: int) -> Codes:
    """Codes of `latent_dim` numbers Z: a .npy file of shape (N, Z), or a .csv file with columns mu_1 to mu_Z, or z_1 to
    z_Z, and any others.  Raises DataError."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npy"):
        fail(path, "must end in .csv or .npy")
    try:
        with open_regular(path) as file:
            if suffix == ".npy":
                array, = stored_array(file, path.stat().st_size).read()
                return Codes(_checked(path, array, latent_dim), {})
            with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
                return _from_csv(path, csv.reader(_lines(path, text)), latent_dim)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror or error})", error)
    except UnicodeDecodeError as error:
        fail(path, f"is no text in UTF-8, as the .csv of codes must be ({error})", error)
    except (EOFError, csv.Error) as error:
        fail(path, f"cannot be read: it is damaged ({error})", error)
    except ValueError as error:      # of DataError, too, which names the file already
        fail(path, str(error).removeprefix(f"{path}: "), error)


def _lines(path: Path, file: io.TextIOWrapper) -> Iterator[str]:
    for line in iter(partial(file.readline, _MOST_LINE), ""):
        if len(line) == _MOST_LINE:
            fail(path, f"has a row longer than {_MOST_LINE:,} characters")
        yield line


def _from_csv(path: Path, rows: Iterator[list[str]], latent_dim: int) -> Codes:
    header = next(rows, [])
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        fail(path, f"has two columns called {shown(twice)}")
    for name in _CODES:
        count = sum(f"{name}_{j + 1}" in header for j in range(len(header)))
        if count:
            break
    else:
        fail(path, f"has no codes: columns mu_1 to mu_{latent_dim}, or z_1 to z_{latent_dim}, are needed, and its "
                   f"first row is {shown(','.join(header))}")
    if count != latent_dim:
        fail(path, f"has {count} columns of codes, {name}_1 and so on; the model takes {latent_dim}")
    columns = [header.index(f"{name}_{j + 1}") for j in range(latent_dim)]
    others = [i for i in range(len(header)) if i not in columns]
    z, cells = list[list[float]](), list[list[str]]()
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            fail(path, f"row {number} has {len(row)} cells, the header {len(header)}")
        try:
            z.append([float(row[i]) for i in columns])
        except ValueError as error:
            fail(path, f"row {number} holds a code that is not a number ({error})", error)
        cells.append([row[i] for i in others])
    checked = _checked(path, np.array(z).reshape(-1, latent_dim), latent_dim)
    return Codes(checked, {header[i]: [row[k] for row in cells] for k, i in enumerate(others)})


def _checked(path: Path, z: Array, latent_dim: int) -> Array:
    """z (N, Z), if it is that."""
    if z.ndim != 2 or z.shape[1] != latent_dim or not len(z):
        fail(path, f"holds an array of shape {z.shape}; (rows, {latent_dim}), of at least one row, is needed")
    if z.dtype.kind not in "fiu" or not np.isfinite(z).all():
        fail(path, "holds codes that are not finite numbers")
    return z
