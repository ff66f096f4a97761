"""The tools that charts.py and pictures.py draw with: style, grids of images, coloured points.

A grid of images becomes one array with white gaps, drawn by one imshow; hundreds of matplotlib Axes would take seconds.
matplotlib is imported inside functions only, and without pyplot.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..likelihoods.support import to_float
from ..system.terminal import plain, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

DPI = 100
FONT = 14  # points: still readable when a picture is shown at half its size
EM = FONT * DPI / 72  # the same in pixels
INK, BLUE, ORANGE, GREY = "#222222", "#1f5fa8", "#d9601a", "#9a9a9a"
_LONGEST = 24      # characters of a label
STYLE: dict[str, object] = {
    "font.family": "DejaVu Sans", "font.size": FONT, "text.color": INK, "text.usetex": False,
    "axes.labelcolor": INK, "axes.edgecolor": INK, "axes.facecolor": "white", "axes.grid": False,
    "axes.titlesize": FONT + 1, "axes.labelsize": FONT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.formatter.useoffset": False, "legend.fontsize": FONT, "legend.frameon": False,
}


@contextmanager
def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "constrained"
               ) -> Iterator[Figure]:
    """A Figure of width x height pixels.  The style applies only inside the `with` block."""
    import matplotlib
    from matplotlib.figure import Figure
    with matplotlib.rc_context(STYLE):      # type: ignore[arg-type, unused-ignore]      # it takes any mapping
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white",
                        layout=layout)      # type: ignore[arg-type, unused-ignore]      # "none" is not in its stubs
        setattr(figure, "_repr_png_", partial(png, figure))      # what a notebook shows of the last line of a cell
        yield figure


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file.  Letters that the font lacks are empty boxes, without a warning."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="png", dpi="figure", facecolor="white")
    return buffer.getvalue()


def label_axes(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Set the title and the labels of the axes."""
    axes.set_title(title, pad=12)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.tick_params(labelsize=FONT, colors=INK)  # ticks are drawn later, outside the style's context


def rows_of(images: np.ndarray, columns: int, ink: bool = True) -> np.ndarray:
    """Images (N, D) arranged as (R, columns, D), R = N / columns rounded up; unused places are white."""
    if images.ndim != 2 or not len(images):
        raise ValueError(f"images has shape {images.shape}: allowed is (N, D) with N >= 1")
    images, white = to_float(images), 0 if ink else 1
    places = np.full((math.ceil(len(images) / columns) * columns, images.shape[1]), white, dtype=images.dtype)
    places[:len(images)] = images
    return places.reshape(-1, columns, images.shape[1])


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (N, h, w), or (N, h, w, 3), as (N, height, width): shrunk by means of blocks, enlarged by repetition."""
    for axis, size in (1, height), (2, width):
        starts = np.arange(size) * images.shape[axis] // size
        # reduceat sums from each start to the next; if two starts are equal, the first gives that one pixel
        counts = np.maximum(np.diff(starts, append=images.shape[axis]), 1)
        others = tuple(other for other in range(images.ndim) if other != axis)
        images = np.add.reduceat(images, starts, axis=axis) / np.expand_dims(counts, others)
    return images


def tile_size(image_shape: tuple[int, ...], most: int) -> tuple[int, int]:
    """The (height, width) of a tile as drawn: at most `most` pixels a side, with a ratio of at most 4 to 1, so that an
    image of shape (1, D), a row of numbers, becomes a band that can be seen."""
    height, width = image_shape[:2]
    height, width = max(height, math.ceil(width / 4)), max(width, math.ceil(height / 4))
    shrink = min(1.0, most / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


_MISSING = 0.15      # darkness of a pixel that is missing


def _starts(n: int, size: int, gap: int, breaks: Collection[int]) -> np.ndarray:
    """The first pixel of each of n tiles in a line: a gap before each, and three more before those in `breaks`."""
    return np.array([gap + i * (size + gap) + 3 * gap * sum(b <= i for b in breaks) for i in range(n)])


def mosaic(images: np.ndarray, image_shape: tuple[int, ...], row_breaks: Collection[int] = (),
           column_breaks: Collection[int] = (), ink: bool = True
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Images (R, C, D) in [0, 1] as one picture of darkness, 0 white to 255 black, with wider gaps before the breaks.

    A pixel of 1 is black, or without `ink` white; one that is missing, NaN, is light grey.  The gaps are always white.
    For image_shape (height, width, 3) the picture has the darkness of red, green and blue.

    Returns the picture, the top pixel of each row (R,), the left pixel of each column (C,), and the size of a tile.
    Raises ValueError if image_shape does not make D pixels, or a pixel is infinite.
    """
    rows, columns, pixels = images.shape
    if image_shape[2:] not in ((), (3,)) or math.prod(image_shape) != pixels:
        raise ValueError(f"image_shape is {tuple(image_shape)}: allowed is (height, width) with a product of "
                         f"{pixels}, the pixels of an image, or (height, width, 3)")
    images = to_float(images)
    if np.isinf(images).any():
        raise ValueError("images hold infinity: only finite pixels can be drawn")
    images = np.where(np.isnan(images), _MISSING if ink else 1 - _MISSING, images)
    height, width = tile_size(image_shape, max(16, 2400 // max(rows, columns)))
    gap = max(1, round(max(height, width) / 14))
    tops, lefts = _starts(rows, height, gap, row_breaks), _starts(columns, width, gap, column_breaks)
    canvas = np.zeros((tops[-1] + height + gap, lefts[-1] + width + gap, *image_shape[2:]), dtype=np.uint8)
    for top, row in zip(tops, images, strict=True):
        darkness = np.clip(row, 0, 1) if ink else 1 - np.clip(row, 0, 1)
        tiles = resize(255 * darkness.reshape(-1, *image_shape), height, width)
        for left, tile in zip(lefts, np.rint(tiles), strict=True):
            canvas[top:top + height, left:left + width] = tile
    return canvas, tops, lefts, (height, width)


def tile_figure(images: np.ndarray, image_shape: tuple[int, ...], title: str, *,
                row_labels: Sequence[str] = (), column_labels: Sequence[str] = (), xlabel: str = "",
                ylabel: str = "", row_breaks: Collection[int] = (), column_breaks: Collection[int] = (),
                frames: Sequence[tuple[int, int]] = (), ink: bool = True) -> Figure:
    """Images (R, C, D) as a grid, with labels beside its rows and under its columns, and frames around the tiles at
    `frames`, (row, column) each; ink and breaks as in `mosaic`.  Where the numbers are not those of pixels, from 0 to
    1, grey runs from the smallest to the largest, and a bar beside the grid says so."""
    from matplotlib.patches import Rectangle
    low, high = _limits(to_float(images), image_shape)
    if (low, high) != (0, 1):
        images = (images - low) / (high - low)
    canvas, tops, lefts, (height, width) = mosaic(images, image_shape, row_breaks, column_breaks, ink)
    # an integer factor, so that all pixels have one size; a tile has at most 90 pixels a side, the grid 1250
    scale = min(90 / max(height, width), 1250 / max(canvas.shape[:2]))
    scale = math.floor(scale) if scale >= 1 else scale
    across, down = scale * canvas.shape[1], scale * canvas.shape[0]
    # margins from the number of letters: on average a letter is at most 0.56 em wide, a line 1.4 em high
    left = EM * (0.8 + 0.56 * max(map(len, row_labels), default=0) + 1.8 * bool(ylabel))
    below = EM * (0.5 + 1.4 * bool(column_labels) + 1.8 * bool(xlabel))
    spare = max(0, EM * (1 + 0.65 * max(len(title), len(xlabel))) - across)  # for a title wider than the grid
    bar = 4.5 * EM if (low, high) != (0, 1) else 0
    right, left, above = max(EM / 2, spare / 2) + bar, max(left, spare / 2), EM * 2.2
    full_width, full_height = round(left + across + right), round(below + down + above)
    with new_figure(full_width, full_height, layout="none") as figure:
        axes = figure.add_axes((round(left) / full_width, round(below) / full_height,
                                across / full_width, down / full_height))
        picture = canvas if canvas.ndim == 2 else 255 - canvas      # colours have no map
        axes.imshow(picture, cmap="gray_r", vmin=0, vmax=255, aspect="auto", origin="upper",
                    interpolation="hanning" if scale <= 4 else "nearest",  # for smooth strokes
                    interpolation_stage="data")  # on grey values: a quarter of the memory of colours
        if bar:
            place = ((full_width - bar) / full_width, round(below) / full_height, EM / full_width, down / full_height)
            _grey_bar(figure, place, low, high, ink)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_yticks(tops[:len(row_labels)] + (height - 1) / 2, row_labels)
        axes.set_xticks(lefts[:len(column_labels)] + (width - 1) / 2, column_labels)
        axes.tick_params(length=0, labelsize=FONT, colors=INK)
        axes.set_title(title, pad=10)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        for row, column in frames:
            axes.add_patch(Rectangle((lefts[column] - 0.5, tops[row] - 0.5), width, height, fill=False,
                                     edgecolor=ORANGE, linewidth=1.5))
    return figure


_FAR, _MANY = 0.1, 0.01      # pixels of a model that is unsure lie a little outside of [0, 1], and may be clipped


def _limits(images: np.ndarray, image_shape: tuple[int, ...]) -> tuple[float, float]:
    """The numbers that are drawn as white and black: 0 and 1, or the smallest and the largest if one number in a
    hundred lies outside of [0, 1] by more than 0.1."""
    known = images[np.isfinite(images)]
    if len(image_shape) > 2 or not known.size or np.mean((known < -_FAR) | (known > 1 + _FAR)) < _MANY:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return low, high if high > low else low + 1


def _grey_bar(figure: Figure, place: tuple[float, float, float, float], low: float, high: float, ink: bool) -> None:
    """A bar that says which grey is which number."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    scale = ScalarMappable(Normalize(low, high), "gray_r" if ink else "gray")
    figure.colorbar(scale, cax=figure.add_axes(place)).ax.tick_params(labelsize=FONT, colors=INK)


def strips(axes: Axes, values: np.ndarray, labels: np.ndarray | None) -> None:
    """Values (N,) of z for Z = 1, as one strip of points for each label; without labels as a histogram."""
    if labels is None:
        axes.hist(values, bins=50, color=BLUE)
        axes.set_ylabel("images")
        return
    classes, codes = np.unique(labels, return_inverse=True)
    # steps of the golden ratio spread the points evenly over a strip, without randomness
    heights = codes + 0.7 * ((np.arange(len(codes)) * 0.6180339887) % 1 - 0.5)
    axes.scatter(values, heights, c=_colours(classes)[0][codes], s=16, linewidths=0)
    step = math.ceil(len(classes) / 20)
    axes.set_yticks(range(0, len(classes), step), [text_of(c) for c in classes[::step]])
    axes.set_ylabel("label")


def coloured_points(figure: Figure, axes: Axes, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw points (N, 2): with a legend for up to 10 classes, a colour bar for more, one colour without labels."""
    from matplotlib.lines import Line2D
    area = 16 if len(points) > 200 else 60
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], color=BLUE, s=area, alpha=0.7, linewidths=0)
        return
    classes, codes = np.unique(labels, return_inverse=True)
    colours, scale = _colours(classes)
    # one call for all classes; with one for each, the last would cover the others
    axes.scatter(points[:, 0], points[:, 1], c=colours[codes], s=area, alpha=0.7, linewidths=0)
    if scale is not None:
        figure.colorbar(scale, ax=axes, label="label").ax.tick_params(labelsize=FONT)
        return
    handles = [Line2D([], [], linestyle="", marker="o", markersize=10, color=tuple(c)) for c in colours]
    axes.legend(handles, [text_of(c) for c in classes], title="label", title_fontsize=FONT,
                loc="center left", bbox_to_anchor=(1.0, 0.5))


def _colours(classes: np.ndarray) -> tuple[np.ndarray, ScalarMappable | None]:
    """A colour (n, 4) for each of n classes: distinct ones for up to 10, else along a scale, which is returned."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    if len(classes) <= 10:
        return np.array(colormaps["tab10"](np.arange(len(classes)))), None
    values = classes if np.issubdtype(classes.dtype, np.number) else np.arange(len(classes))
    scale = ScalarMappable(Normalize(float(values.min()), float(values.max())), "viridis")
    return np.array(scale.to_rgba(values)), scale


def label_text(label: object) -> str:
    """A label, a number or a name, as printable text."""
    return f"{label:.6g}" if isinstance(label, np.number) else plain(str(label))


def text_of(label: object) -> str:
    """A label as text for matplotlib: shortened, and with $ escaped, which would begin a formula."""
    return shortened(label_text(label), _LONGEST).replace("$", r"\$")


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0..n-1, evenly spaced, so that every label is shown of data sorted by label."""
    chosen: np.ndarray = np.linspace(0, n - 1, min(n, most)).round().astype(int)
    return chosen
