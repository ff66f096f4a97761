"""How short a file of images gets: gzip, bz2, xz, PNG, WebP, and npvae compress.

    npvae train --hidden 400 --binarize dynamic --epochs 20 --lr-schedule cosine --out runs/binary
    npvae train --hidden 200,200 --latent 50 --likelihood beta-binomial --epochs 20 --lr-schedule cosine --out runs/grey
    python examples/compression.py runs/binary runs/grey        a table, and runs/compression.png

A third run of `examples/pictures/compression.png` is as the second, with --data-dir FOLDER of Fashion-MNIST and 12
epochs.

Each run is measured on the test images of its data, or on those of --data-dir; for a run of binarized images they are
binarized once.  The files of npvae are written to disk, measured there, read again, and compared with the images.

gzip, bz2 and xz compress all images as one file, eight black-and-white pixels a byte.  PNG and WebP compress one large
picture of all images, side by side, without loss.  -ELBO is the mean of four estimates, in bits; what an npvae file is
longer than that is its start, its container and its bins.  A model is not part of a file: as with the tables inside
any compressor, who reads has it already.
"""
import bz2
import gzip
import io
import lzma
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from npvae import VAE, cli, compression
from npvae.cli.runs import load_images, open_run, test_images
from npvae.params import Array
from npvae.plotting import png
from npvae.plotting.figures import BLUE, GREY, ORANGE, label_axes, new_figure
from npvae.system.files import write_atomically

OTHERS = ("gzip", "bz2", "xz", "PNG", "WebP")


class Result(NamedTuple):
    """The sizes of one set of images, in bits an image.

    Attributes
    ----------
    name : of the run
    images, pixels : their number, and D
    others : of OTHERS
    bound : -ELBO / log 2
    npvae : the file on disk
    write, read : images a second
    """

    name: str
    images: int
    pixels: int
    others: dict[str, float]
    bound: float
    npvae: float
    write: float
    read: float


def others(levels: Array, shape: tuple[int, ...], binary: bool) -> dict[str, float]:
    """Bits an image by the compressors of OTHERS, of images (N, D), uint8: 0 and 1 if `binary`, else bytes."""
    plain = (np.packbits(levels, axis=1) if binary else levels).tobytes()
    picture = Image.fromarray(side_by_side(levels * (255 if binary else 1), shape))
    sizes = {"gzip": len(gzip.compress(plain, 9)), "bz2": len(bz2.compress(plain)), "xz": len(lzma.compress(plain)),
             "PNG": _saved(picture.convert("1") if binary else picture, format="PNG", optimize=True),
             "WebP": _saved(picture.convert("RGB"), format="WEBP", lossless=True, quality=100, method=4)}
    return {name: 8 * sizes[name] / len(levels) for name in OTHERS}


def _saved(picture: Image.Image, format: str, **how: bool | int) -> int:
    stream = io.BytesIO()
    picture.save(stream, format, **how)
    return stream.tell()


def side_by_side(images: Array, shape: tuple[int, ...]) -> Array:
    """Images (N, D) as one picture, as square as their number allows; the last row is filled with black."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    tiles = np.zeros((rows * columns, *shape), np.uint8)
    tiles[:len(images)] = images.reshape(-1, *shape)
    picture: Array = tiles.reshape(rows, columns, *shape).swapaxes(1, 2).reshape(rows * shape[0], columns * shape[1])
    return picture


def measure(name: str, vae: VAE, x: Array, shape: tuple[int, int],
            progress: Callable[[range], Iterable[int]] = iter) -> Result:
    """All sizes, for images x (N, D) as the model sees them.  Raises AssertionError if one does not come back."""
    binary = bool(np.isin(x, (0, 1)).all())
    levels = np.rint(x * (1 if binary else 255)).astype(np.uint8)
    bound = -np.mean([vae.elbo(x, np.random.default_rng(seed)).mean() for seed in range(4)]) / math.log(2)
    with tempfile.TemporaryFile() as file:
        began = time.perf_counter()
        compression.write(vae, levels, file, shape, progress)
        written, size = time.perf_counter(), file.tell()
        file.seek(0)
        back = list(compression.read(vae, file, compression.read_header(file), progress))
        read = time.perf_counter()
    assert np.array_equal(np.concatenate(back), levels), "other images came back"
    return Result(name, len(x), x.shape[1], others(levels, shape, binary), float(bound), 8 * size / len(x),
                  len(x) / (written - began), len(x) / (read - written))


def table(results: Sequence[Result]) -> str:
    """The results as a table, in Markdown."""
    rows = [["bits an image", *OTHERS, "-ELBO", "npvae", "bits a pixel", "npvae / -ELBO", "images a second"],
            ["---"] * (len(OTHERS) + 6)]
    for one in results:
        rows.append([f"{one.name}, {one.images:,} images", *(f"{one.others[name]:,.0f}" for name in OTHERS),
                     f"{one.bound:,.1f}", f"**{one.npvae:,.1f}**", f"{one.npvae / one.pixels:.3f}",
                     f"{one.npvae / one.bound:.4f}", f"{one.write:,.0f} written, {one.read:,.0f} read"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(results: Sequence[Result]) -> bytes:
    """The picture, as PNG: a panel of bars for each run."""
    with new_figure(1350, 420) as figure:
        for axes, one in zip(np.ravel(figure.subplots(1, len(results), squeeze=False)), results):
            sizes = {**one.others, "-ELBO": one.bound, "npvae": one.npvae}
            colours = [*[GREY] * len(OTHERS), ORANGE, BLUE]
            bars = axes.barh(range(len(sizes)), list(sizes.values()), color=colours)
            axes.bar_label(bars, [f"{size:,.0f}" for size in sizes.values()], padding=4)
            axes.set_yticks(range(len(sizes)), list(sizes))
            axes.invert_yaxis()
            axes.margins(x=0.15)
            label_axes(axes, one.name, "bits an image", "")
        return png(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the runs, print the table, write the picture."""
    parser = cli.Parser(None, "How short a file of images gets, by npvae and by others.", "")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="runs of npvae train")
    parser.add_argument("--data-dir", nargs="+", default=[], metavar="PATH",
                        help="data of each run in turn, in place of those it was trained on")
    parser.add_argument("--limit", type=cli.number(int, 1), default=None, metavar="N",
                        help="only the first test images")
    parser.add_argument("--out", type=Path, default=Path("runs/compression.png"), metavar="FILE",
                        help="a .png file for the picture")
    args = parser.parse_args(argv)
    out = cli.output("--out", args.out, [".png"])
    results = []
    for folder, source in zip(args.runs, [*args.data_dir, *[None] * len(args.runs)]):
        run = open_run(folder)
        if source is not None:
            run.args.data_dir = source
        x = test_images(run.vae, load_images(run.args), run.args)[:args.limit]
        shape = run.image_shape[0], math.prod(run.image_shape[1:])
        results.append(measure(folder.name, run.vae, x, shape, lambda blocks: cli.progress(blocks, "blocks")))
    print(table(results))
    write_atomically(out, draw(results))
    print(out)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
