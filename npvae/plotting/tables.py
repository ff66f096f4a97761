"""Pictures of tables, and of rows that are curves: data beside samples.  Read after `charts.py`.

Each function makes one matplotlib Figure, and its docstring says what to look for in it.  Rows are in the units of the
data; NaN is a missing cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..likelihoods.columns import Column
from .figures import BLUE, EM, FONT, INK, ORANGE, label_axes, new_figure, spread, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLUMNS = 48      # charts on one figure
_MOST_VALUES = 24      # of a count that is drawn as bars
_MOST_NAMES = 30      # beside a matrix of correlations


def columns_of(D: int) -> tuple[Column, ...]:
    """D columns of real numbers without names of their own."""
    return tuple(Column(f"column {d + 1}", "gaussian") for d in range(D))


def columns_and_samples(x: np.ndarray, drawn: np.ndarray, columns: Sequence[Column]) -> Figure:
    """For each column, how often its values occur in data x (N, D) and in draws of the model, drawn (M, D): histograms,
    and bars for categories and small counts.  At most 48 columns, evenly spaced, are shown.

    Look for: orange on blue.  An orange hill that is too wide or too narrow is a sigma that has not been learned;
    orange where there is no blue, values that the model invents; a missing bar, a level that it never draws.
    """
    x, drawn = _rows(x, len(columns), "x"), _rows(drawn, len(columns), "drawn")
    shown = spread(len(columns), _MOST_COLUMNS)
    across = min(4, len(shown))
    down = math.ceil(len(shown) / across)
    with new_figure(340 * across, 250 * down + 60) as figure:
        grid = figure.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(shown):]:
            axes.set_visible(False)
        for axes, d in zip(grid.flat, shown):
            _column(axes, x[:, d], drawn[:, d], columns[d])
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="upper right", ncols=2)
        figure.suptitle("Each column: data and samples" + f", {len(shown)} of {len(columns)}" * (
            len(shown) < len(columns)), color=INK)
    return figure


def _column(axes: Axes, data: np.ndarray, drawn: np.ndarray, column: Column) -> None:
    """The shares of one column's values, as bars side by side or as histograms on one grid."""
    data, drawn = data[np.isfinite(data)], drawn[np.isfinite(drawn)]
    values = np.arange(len(column.levels)) if column.levels else np.union1d(data, drawn)
    if column.levels or column.kind == "count" and 0 < len(values) <= _MOST_VALUES:
        for part, shift, colour, name in ((data, -0.2, BLUE, "data"), (drawn, 0.2, ORANGE, "samples")):
            shares = [np.mean(part == value) if len(part) else 0.0 for value in values]
            axes.bar(np.arange(len(values)) + shift, shares, 0.4, color=colour, label=name)
        step = math.ceil(len(values) / 6)
        names = [text_of(level)[:10] for level in column.levels] or [f"{value:g}" for value in values]
        axes.set_xticks(np.arange(0, len(values), step), names[::step])
    else:
        both = np.concatenate([data, drawn])
        # where nearly all of both lies: one far draw would make all others a single bar
        low, high = np.percentile(both, [0.5, 99.5]) if len(both) else (0.0, 1.0)
        bins = min(30, 5 + math.isqrt(len(data)))
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
        for part, filled, colour, name in ((data, True, BLUE, "data"), (drawn, False, ORANGE, "samples")):
            heights = np.histogram(part, edges)[0] / max(len(part), 1)
            axes.stairs(heights, edges, fill=filled, color=colour, linewidth=2, alpha=0.8 if filled else 1, label=name)
        axes.locator_params(axis="x", nbins=4)
    label_axes(axes, text_of(column.name), "", "")
    axes.set_yticks([])


def correlations(x: np.ndarray, drawn: np.ndarray, columns: Sequence[Column]) -> Figure:
    """The correlation of each pair of columns in data x (N, D) and in draws of the model, drawn (M, D), side by side;
    of categories that of the numbers of their levels.  Pairs are taken where both cells are present.

    Look for: two pictures alike.  A right-hand picture that is pale off its diagonal is a model whose columns do not
    know of each other: z is not used.
    """
    x, drawn = _rows(x, len(columns), "x"), _rows(drawn, len(columns), "drawn")
    step = math.ceil(len(columns) / _MOST_NAMES)
    names = [text_of(column.name)[:16] for column in columns[::step]]
    side, margin = 460, EM * 0.62 * max(map(len, names))
    with new_figure(2 * side + margin + 160, side + margin + 60) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, rows, title in ((left, x, "Correlations in the data"), (right, drawn, "in samples")):
            image = axes.imshow(_correlation(rows), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            label_axes(axes, title, "", "")
            axes.set_xticks(range(0, len(columns), step), names, rotation=90)
            axes.set_yticks(range(0, len(columns), step), names)
        figure.colorbar(image, ax=[left, right], fraction=0.03).ax.tick_params(labelsize=FONT)
    return figure


def _correlation(rows: np.ndarray) -> np.ndarray:
    """Correlations (D, D) over the rows where both cells are present; 0 where a column does not vary."""
    seen = np.isfinite(rows).astype(float)
    centred = np.where(seen > 0, rows, 0) - np.where(seen > 0, _means(rows, seen), 0)
    largest = np.maximum(np.abs(centred).max(axis=0), np.finfo(float).tiny)      # so that no square overflows
    centred /= largest
    together, squares = centred.T @ centred, np.square(centred).T @ seen
    scale = np.sqrt(squares * squares.T)
    correlation: np.ndarray = np.divide(together, scale, out=np.zeros_like(scale), where=scale > 0)
    return correlation


def _means(rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The mean (D,) of the cells that are present."""
    means: np.ndarray = np.where(seen > 0, rows, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return means


def curves(originals: np.ndarray, rebuilt: np.ndarray) -> Figure:
    """Rows (N, D) as curves over their columns, each with its reconstruction (N, D): a panel each, at most 12.

    Look for: the same peaks at the same places.  A smooth curve through noise is right: noise is not in z.
    """
    originals, rebuilt = _rows(originals, originals.shape[-1], "originals"), np.asarray(rebuilt, float)
    if rebuilt.shape != originals.shape:
        raise ValueError(f"rebuilt has shape {rebuilt.shape}, originals {originals.shape}: the two must be equal")
    shown = spread(len(originals), 12)
    across = min(3, len(shown))
    down = math.ceil(len(shown) / across)
    with new_figure(440 * across, 230 * down + 60) as figure:
        grid = figure.subplots(down, across, squeeze=False, sharex=True)
        for axes in grid.flat[len(shown):]:
            axes.set_visible(False)
        for axes, i in zip(grid.flat, shown):
            axes.plot(originals[i], color=BLUE, linewidth=1.5, label="data")
            axes.plot(rebuilt[i], color=ORANGE, linewidth=1.5, label="rebuilt")
            label_axes(axes, "", "", "")
        grid[0, 0].legend(loc="best")
        figure.suptitle("Test rows and their reconstructions", color=INK)
    return figure


def curves_drawn(drawn: np.ndarray, x: np.ndarray) -> Figure:
    """Draws of the model, drawn (M, D), and as many rows of data x (N, D), as curves over their columns, at most 12.

    Look for: curves that could stand on the other side.
    """
    x, drawn = _rows(x, x.shape[-1], "x"), _rows(drawn, x.shape[-1], "drawn")
    with new_figure(1300, 460) as figure:
        for axes, rows, colour, title in zip(figure.subplots(1, 2, sharey=True), (x, drawn), (BLUE, ORANGE),
                                             ("Rows of the data", "Draws of the model"), strict=True):
            axes.plot(rows[spread(len(rows), 12)].T, color=colour, linewidth=1, alpha=0.7)
            label_axes(axes, title, "column", "value")
    return figure


def _rows(rows: np.ndarray, D: int, name: str) -> np.ndarray:
    """Rows (N, D) in double precision.  Raises ValueError."""
    rows = np.asarray(rows, float)
    if rows.ndim != 2 or rows.shape[1] != D or not len(rows):
        raise ValueError(f"{name} has shape {rows.shape}: allowed is (N, {D}) with N >= 1")
    return rows
