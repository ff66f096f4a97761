"""Compressed images in a file.  Read after `chain.py`.

    magic, version, fingerprint of the model, number of images, their shape and type, images per block, bins
    likelihood, checksum of all this
    for each block:    length, checksum of the bytes, checksum of the images, bytes

A block is a chain of its own, so that memory does not grow with the number of images.  Its first checksum covers its
bytes and the checksum before it, so that a damaged or exchanged block is found before it is decoded.  The second covers
the decoded images and the first: should a machine compute other probabilities in spite of all, that is an error and
never a wrong image.
"""
import hashlib
import io
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from ..likelihoods import support
from ..model.vae import VAE
from ..params import Array
from ..validate import matrix
from .cells import coded_cells
from .chain import Chain, check, choose_bins
from .latents import Bins

MAGIC = b"\x89npvae\r\n"
VERSION = 1
_FIXED = struct.Struct("<8sB16sQIIIBBB2sB")      # up to the likelihood's length
_BLOCK = struct.Struct("<I8s8s")
_MOST_CELLS, _MOST_IMAGES = 2 ** 23, 2 ** 12      # of a block
_DTYPES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")

Progress = Callable[[range], Iterable[int]]      # wraps the loop over the blocks, to show how far it is


class CompressionError(ValueError):
    """Compressed images that cannot be read: not such a file, damaged, or of another model."""


class Header(NamedTuple):
    """What a compressed file says about its images.

    Attributes
    ----------
    fingerprint : of the model, 16 bytes
    images : their number
    height, width : of each; height is 0 for rows of `width` numbers
    block : images in a block
    bins : of the latent variables
    white : the value of a white pixel, 1 or 255
    dtype : of the array, such as "u1"
    likelihood : its name
    """

    fingerprint: bytes
    images: int
    height: int
    width: int
    block: int
    bins: Bins
    white: int
    dtype: str
    likelihood: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return (self.height, self.width) if self.height else (self.width,)

    @property
    def pixels(self) -> int:
        """D."""
        return max(self.height, 1) * self.width

    @property
    def blocks(self) -> int:
        """Their number."""
        return -(-self.images // self.block)

    def packed(self) -> bytes:
        """As it stands in the file."""
        name = self.likelihood.encode()
        head = _FIXED.pack(MAGIC, VERSION, self.fingerprint, self.images, self.height, self.width, self.block,
                           self.bins.depth, self.bins.fraction, self.white, self.dtype.encode(), len(name)) + name
        return head + _digest(head)


def fingerprint(vae: VAE) -> bytes:
    """16 bytes that tell a model from others: a hash of its architecture and parameters."""
    hashed = hashlib.blake2b(json.dumps(vae.config(), sort_keys=True).encode(), digest_size=16)
    flat = vae.parameters.flat
    hashed.update(flat.astype(flat.dtype.newbyteorder("<")).tobytes())
    return hashed.digest()


def _digest(*parts: bytes) -> bytes:
    """A checksum; its first part is the one before it, so that it differs in another file and in another place."""
    return hashlib.blake2b(b"".join(parts), digest_size=8).digest()


# ---- Write

def compress(vae: VAE, x: Array, progress: Progress = iter) -> bytes:
    """Images x (N, D) in as few bytes as the model allows, exactly: `decompress` returns an equal array.

    Parameters
    ----------
    x : what its numbers mean is in `likelihoods/support.py`; floats must be exactly those that bytes / 255 give
    progress : wraps the loop over the blocks of up to 4,096 images

    Returns
    -------
    the bytes: about -ELBO / log 2 bits an image.  They are the same on every machine

    Raises ValueError or TypeError for images that the model does not take, or a model that cannot be compressed with;
    ImportError without the package constriction.
    """
    file = io.BytesIO()
    write(vae, x, file, progress=progress)
    return file.getvalue()


def write(vae: VAE, x: Array, file: BinaryIO, image_shape: tuple[int, int] | None = None, progress: Progress = iter
          ) -> None:
    """`compress` into a file.  `image_shape` is what `decompress` gives each image; None leaves them rows."""
    check(vae)
    levels = _Levels(vae, x)
    rows = min(_MOST_IMAGES, max(1, _MOST_CELLS // vae.input_dim))
    first = levels[:rows] if len(x) else np.zeros((1, vae.input_dim), np.int64)
    height, width = image_shape or (0, vae.input_dim)
    header = Header(fingerprint(vae), len(x), height, width, rows, choose_bins(vae, first), levels.white,
                    levels.dtype.str[1:], vae.likelihood.name)
    chain, head = Chain(vae, header.bins), header.packed()
    file.write(head)
    last = head[-8:]
    for block in progress(range(header.blocks)):
        part = levels[block * rows:(block + 1) * rows]
        content = chain.push(part).astype("<u4").tobytes()
        of_bytes = _digest(last, content)
        last = _digest(of_bytes, _plain(part))
        file.write(_BLOCK.pack(len(content), of_bytes, last) + content)


def _plain(levels: Array) -> bytes:
    return levels.astype("<i4").tobytes()


class _Levels:
    """Images x (N, D) as levels, some rows at a time."""

    def __init__(self, vae: VAE, x: Array) -> None:
        self.x, self.white, self.steps = np.asarray(x), 1, coded_cells(vae.likelihood).levels - 1
        self.dtype, self.name = self.x.dtype, vae.likelihood.name
        if self.x.ndim == 2 and not len(self.x):
            matrix("x", np.zeros((1, self.x.shape[1])), vae.input_dim)
        else:
            read, scale = support.read(self.x, "x", vae.input_dim, vae.likelihood, "float64")
            self.white = round(1 / scale)
        if self.dtype.str[1:] not in _DTYPES:
            raise TypeError(f"x must hold numbers of at most 64 bits, got {self.dtype}")

    def __getitem__(self, rows: slice) -> Array:
        """The levels (B, D) of some rows.  Raises ValueError for a number that is at no level."""
        x = self.x[rows]
        levels: Array = np.rint(x.astype(np.float64) * (self.steps / self.white)).astype(np.int64)
        wrong = values(levels, self.steps, self.white, self.dtype) != x
        if wrong.any():
            what = ("black and white, 0 and 1 or 0 and 255" if self.steps == 1 else
                    f"whole numbers / {self.steps}, exactly as {self.dtype} has them, or bytes as uint8")
            raise ValueError(f"x must hold {what}, for likelihood {self.name}, found {x[wrong][0]}")
        return levels


def values(levels: Array, steps: int, white: int, dtype: np.dtype) -> Array:
    """The numbers of these levels, 0 to `steps`, from 0 to `white`."""
    if dtype.kind == "f":
        fraction: Array = levels.astype(dtype) / dtype.type(steps)
        return fraction
    whole: Array = levels * white // steps
    return whole.astype(dtype)


# ---- Read

def decompress(vae: VAE, data: bytes, progress: Progress = iter) -> Array:
    """The images (N, D) that `compress` was given, with the same dtype.

    Raises CompressionError for data that are damaged or of another model; ImportError without constriction.
    """
    file = io.BytesIO(data)
    header = read_header(file)
    images = list(read(vae, file, header, progress))
    return np.concatenate([np.empty((0, header.pixels), header.dtype), *images])


def read_header(file: BinaryIO) -> Header:
    """The header of a file, which is left at the first block.  Raises CompressionError."""
    fixed = file.read(_FIXED.size)
    if not fixed.startswith(MAGIC):
        raise CompressionError("is not a file of npvae compress")
    if len(fixed) > len(MAGIC) and fixed[len(MAGIC)] != VERSION:
        raise CompressionError(f"has format version {fixed[len(MAGIC)]}, but this npvae reads {VERSION}")
    if len(fixed) < _FIXED.size:
        raise CompressionError("ends within its header")
    _, _, mark, images, height, width, block, depth, fraction, white, dtype, length = _FIXED.unpack(fixed)
    name, digest = file.read(length), file.read(8)
    if len(digest) < 8:
        raise CompressionError("ends within its header")
    if digest != _digest(fixed, name):
        raise CompressionError("has a damaged header")
    try:
        header = Header(mark, images, height, width, block, Bins(depth, fraction), white, dtype.decode(),
                        name.decode())
    except UnicodeDecodeError:
        raise CompressionError("has a damaged header") from None
    if (not 0 < block * header.pixels <= max(_MOST_CELLS, header.pixels) or block > _MOST_IMAGES or depth > 63
            or white not in (1, 255) or header.dtype not in _DTYPES):
        raise CompressionError("has a header that no npvae writes")
    return header


def read(vae: VAE, file: BinaryIO, header: Header, progress: Progress = iter) -> Iterator[Array]:
    """The images (B, D) of each block of a file, whose header has been read.  Raises CompressionError."""
    mine = fingerprint(vae)
    if header.fingerprint != mine:
        raise CompressionError(f"was compressed with another model: its fingerprint is {header.fingerprint.hex()}, "
                               f"this one's is {mine.hex()}")
    chain, head = Chain(vae, header.bins), header.packed()
    size = file.seek(0, os.SEEK_END)
    file.seek(len(head))
    last = head[-8:]
    for block in progress(range(header.blocks)):
        name = f"block {block + 1} of {header.blocks}"
        count = min(header.block, header.images - block * header.block)
        told = file.read(_BLOCK.size)
        length = _BLOCK.unpack(told)[0] if len(told) == _BLOCK.size else size
        if length > size - file.tell():
            raise CompressionError(f"ends within {name}, or that is damaged")
        content, (_, of_bytes, of_images) = file.read(length), _BLOCK.unpack(told)
        if length % 4 or of_bytes != _digest(last, content):
            raise CompressionError(f"has a damaged {name}")
        try:
            levels = chain.pop(np.frombuffer(content, "<u4"), count)
        except ValueError:
            levels = np.zeros((0, header.pixels), np.int64)
        last = _digest(of_bytes, _plain(levels))
        if of_images != last:
            raise CompressionError(f"has a {name} that decodes to other images than were compressed; this machine "
                                   "computes other probabilities than the one that wrote it")
        yield values(levels, chain.cells.levels - 1, header.white, np.dtype(header.dtype))
    if rest := size - file.tell():
        raise CompressionError(f"has {rest:,} bytes after its last block")
