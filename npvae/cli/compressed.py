"""The commands compress and decompress, and what `info` says of a compressed file.  Not part of the lesson."""
import argparse
import math
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .. import compression, data
from ..data.images import fail, read_pictures
from ..data.reading import Reading
from ..params import Array
from ..system.files import open_regular, replacing
from ..system.terminal import plain
from . import command_line
from .command_line import UsageError
from .runs import SavedRun, open_run

SUFFIX = ".npvae"


def compress(args: argparse.Namespace) -> None:
    """Write images from files as one compressed file."""
    run = open_run(args.run, args.threads)
    out = command_line.output("--out", args.out, [SUFFIX])
    x, shape = _images(args.files, run)
    try:
        with replacing(out) as file:
            compression.write(run.vae, x, file, shape, _bar)
    except ImportError as error:
        raise UsageError(str(error)) from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{_names(args.files)} with {args.run}: {error}") from None
    size = out.stat().st_size
    bits = f", {8 * size / len(x):,.1f} bits an image, {8 * size / x.size:.3f} a number" if len(x) else ""
    print(f"{plain(str(out))}\n{len(x):,} images in {size:,} bytes{bits}")


def decompress(args: argparse.Namespace) -> None:
    """Write the images of a compressed file, as an array or as pictures."""
    run = open_run(args.run, args.threads)
    folder = args.out.suffix.lower() != ".npy"
    out = args.out if folder else command_line.output("--out", args.out, [".npy"])
    try:
        with open_regular(args.file) as file:
            header = compression.read_header(file)
            blocks = compression.read(run.vae, file, header, _bar)
            if folder:
                _write_pictures(out, header, blocks)
            else:
                with replacing(out) as target:
                    _write_array(target, header, blocks)
    except compression.CompressionError as error:
        raise UsageError(f"{args.file}: {error}") from None
    except ImportError as error:
        raise UsageError(str(error)) from None
    print(f"{plain(str(out))}\n{header.images:,} images")


def info(path: Path) -> None:
    """Print what a compressed file says of itself."""
    try:
        with open_regular(path) as file:
            header = compression.read_header(file)
    except compression.CompressionError as error:
        raise UsageError(f"{path}: {error}") from None
    size, numbers = path.stat().st_size, header.images * header.pixels
    bits = f", {8 * size / numbers:.3f} bits a number" if numbers else ""
    print(f"file         {plain(str(path))}, {size:,} bytes{bits}\n"
          f"images       {header.images:,} of {' x '.join(map(str, header.shape))}, as {np.dtype(header.dtype).name}, "
          f"in {header.blocks:,} block{'s' * (header.blocks != 1)}\n"
          f"likelihood   {plain(header.likelihood)}\n"
          f"latents      2^{header.bins.depth} bins, 2^-{header.bins.fraction} wide\n"
          f"fingerprint  {header.fingerprint.hex()} of the model")


def _bar(blocks: range) -> Iterable[int]:
    bar: Iterable[int] = command_line.progress(blocks, "blocks")
    return bar


def _names(files: Sequence[Path]) -> str:
    return f"{files[0]}{f' and {len(files) - 1} more' * (len(files) > 1)}"


# ---- Read

def _images(files: Sequence[Path], run: SavedRun) -> tuple[Array, tuple[int, ...] | None]:
    """All images of the files (N, D), in this order, and their shape; None for arrays of rows."""
    parts = [_one(path) for path in files]
    for path, (x, shape) in zip(files, parts):
        if x.shape[1] != run.vae.input_dim:
            raise UsageError(f"{path}: holds {x.shape[1]} numbers an image; the model takes {run.vae.input_dim}")
        if x.dtype != parts[0][0].dtype or shape != parts[0][1]:
            raise UsageError(f"{path}: holds {_kind(x, shape)}, {files[0]} {_kind(*parts[0])}; they must agree")
    return parts[0][0] if len(parts) == 1 else np.concatenate([x for x, _ in parts]), parts[0][1]


def _kind(x: Array, shape: tuple[int, ...] | None) -> str:
    return f"{x.dtype} {'rows' if shape is None else ' x '.join(map(str, shape))}"


def _one(path: Path) -> tuple[Array, tuple[int, ...] | None]:
    """The images of a file or folder, training set and test set one after the other."""
    name = path.name.lower()
    if path.is_file() and name.endswith(".npy"):
        return _mapped(path)
    if path.is_file() and name.removesuffix(".gz").endswith("-ubyte"):
        array = data.read_idx(path)
        if array.ndim < 2:
            fail(path, "holds labels and no images")
        return array.reshape(len(array), -1), (array.shape[1], math.prod(array.shape[2:]))
    if path.is_file() and path.suffix.lower() not in (".npz", ".csv"):
        picture = read_pictures([path], iter)
        return picture.rows, (picture.image_shape[0], picture.image_shape[1])
    found = data.load(path, reading=Reading(whole=True))
    height, *width = found.image_shape
    return np.concatenate([found.train_images, found.test_images]), (height, math.prod(width))


def _mapped(path: Path) -> tuple[Array, tuple[int, ...] | None]:
    """An array in a .npy file, of which only the rows in use are in memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        fail(path, f"cannot be read: it is damaged, or no .npy of numbers ({error})", error)
    if array.ndim not in (2, 3):
        fail(path, f"has shape {array.shape}; (N, D) or (N, H, W) is allowed")
    shape = (array.shape[1], array.shape[2]) if array.ndim == 3 else None
    return array.reshape(len(array), math.prod(array.shape[1:])), shape


# ---- Write

def _write_array(file: BinaryIO, header: compression.Header, blocks: Iterator[Array]) -> None:
    """The images as a .npy, block by block."""
    dtype = np.dtype(header.dtype)
    np.lib.format.write_array_header_1_0(file, {
        "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (header.images, *header.shape)})
    for block in blocks:
        file.write(np.ascontiguousarray(block).data)


def _write_pictures(folder: Path, header: compression.Header, blocks: Iterator[Array]) -> None:
    """The images as pictures in a folder, which must be new or empty.  It appears when all are written."""
    from PIL import Image
    if len(header.shape) == 1 or header.dtype != "u1":
        raise UsageError(f"--out {folder}: these are {header.dtype} {header.shape} and no pictures of bytes: "
                         "give a .npy file")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--out {folder}: exists; give a new or an empty folder, or a .npy file")
    digits, numbers = len(str(max(header.images - 1, 0))), count()
    written = folder.with_name(f".npvae-{secrets.token_hex(8)}.tmp")
    written.mkdir()
    try:
        for block in blocks:
            for image in block.reshape(-1, *header.shape):
                Image.fromarray(image).save(written / f"{next(numbers):0{digits}d}.png")
        written.rename(folder)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise
