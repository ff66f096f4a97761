"""Tables in memory: data frames, dicts of columns, arrays.  Not part of the lesson; `tables.py` reads files.

A frame, as of pandas or polars, is taken by what it has: the names of its columns, and `to_numpy` of each.  Neither
package is imported.
"""
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..validate import shown
from .columns import CellError, Raw, is_missing, raw_texts
from .images import ImageData, fail
from .reading import Reading
from .tables import load_csv, table_of


def load_table(source: object, reading: Reading = Reading(), labels: np.ndarray | None = None) -> ImageData:
    """A table of columns of several kinds: the path of a .csv; a data frame; a dict of columns, name -> cells; or an
    array (N, D) of numbers, NaN where a cell is missing.

    `reading.columns` says kinds (`likelihoods/columns.py`), and `reading.whole`, `test_part` and `test_fraction` which
    rows are the test set.  labels (N,) go along with the rows.  The `columns` of what is returned are those of
    `npvae.likelihoods.Table`.  Raises DataError.
    """
    if isinstance(source, (str, Path)):
        return load_csv(source, replace(reading, table=True))
    name = f"a {type(source).__name__}"
    try:
        raws = list(_raws(source))
        if not raws or len({len(raw.texts) if raw.numbers is None else len(raw.numbers) for raw in raws}) > 1:
            raise ValueError("its columns must be one or more, all of one length")
        return table_of(name, "table", raws, labels, reading)
    except CellError as error:
        fail(name, f"row {error.row}, column {shown(error.column)} {error}", error)
    except (TypeError, ValueError) as error:
        fail(name, str(error).removeprefix(f"{name}: "), error)


def _raws(source: object) -> Iterator[Raw]:
    """The columns.  Raises TypeError, ValueError, CellError."""
    if isinstance(source, Mapping):
        pairs = [(str(name), np.asarray(cells)) for name, cells in source.items()]
    elif isinstance(source, np.ndarray) and source.ndim == 2:
        pairs = [(f"column {i + 1}", cells) for i, cells in enumerate(np.ma.filled(source.astype(float), np.nan).T)]
    else:
        names = getattr(source, "columns", getattr(source, "column_names", None))
        if names is None or not hasattr(source, "__getitem__"):
            raise TypeError("a table must be a path, a data frame, a dict of columns or an array (N, D)")
        pairs = [(str(name), np.asarray(source[name].to_numpy())) for name in names]
    for name, cells in pairs:
        if cells.ndim != 1:
            raise ValueError(f"column {shown(name)} has shape {cells.shape}, and (N,) is allowed")
        if cells.dtype.kind in "mM":
            raise ValueError(f"column {shown(name)} holds dates or times: turn them into numbers first, as days since "
                             f"the first one, or leave the column out")
        if cells.dtype.kind in "biuf":
            yield Raw(name, cells.astype(float))
        else:
            yield raw_texts(name, ["" if _is_gap(cell) else str(cell) for cell in cells.tolist()])


def _is_gap(cell: object) -> bool:
    """None, NaN, and what pandas calls NA."""
    return cell is None or cell != cell or is_missing(str(cell))
