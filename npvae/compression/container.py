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
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from ..likelihoods import support
from ..model.vae import VAE
from ..params import Array
from ..validate import matrix
from .chain import Chain
from .latents import Bins

MAGIC = b"\x89npvae\r\n"
VERSION = 1
_FIXED = struct.Struct("<8sB16sQIIIIIBBB2sB")      # up to the likelihood's length
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
    shape : of each, of one to three numbers
    block : images in a block
    most : the largest count
    bins : of the latent variables
    white : the value of a white pixel, 1 or 255
    dtype : of the array, such as "u1"
    likelihood : its name
    """

    fingerprint: bytes
    images: int
    shape: tuple[int, ...]
    block: int
    most: int
    bins: Bins
    white: int
    dtype: str
    likelihood: str

    @property
    def pixels(self) -> int:
        """D."""
        return math.prod(self.shape)

    @property
    def blocks(self) -> int:
        """Their number."""
        return -(-self.images // self.block)

    def packed(self) -> bytes:
        """As it stands in the file."""
        name, shape = self.likelihood.encode()[:255], (*self.shape, 0, 0)[:3]
        head = _FIXED.pack(MAGIC, VERSION, self.fingerprint, self.images, *shape, self.block, self.most,
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


def write(vae: VAE, x: Array, file: BinaryIO, image_shape: tuple[int, ...] | None = None, progress: Progress = iter
          ) -> None:
    """`compress` into a file.  `image_shape` is what `decompress` gives each image; None leaves them rows."""
    x, white, most = _checked(vae, x)
    rows = min(_MOST_IMAGES, max(1, _MOST_CELLS // vae.input_dim))
    start = Chain(vae, Bins(1, 1), most)      # refuses a model before its images
    levels = _Levels(x, start.cells.steps, white, vae.likelihood.name)
    chain = Chain(vae, None, most, levels[:rows] if len(x) else np.zeros((1, vae.input_dim), np.int64))
    header = Header(fingerprint(vae), len(x), image_shape or (vae.input_dim,), rows, most, chain.bins, white,
                    x.dtype.str[1:], vae.likelihood.name)
    head = header.packed()
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


def _checked(vae: VAE, x: Array) -> tuple[Array, int, int]:
    """x (N, D) as an array; the value of a white pixel, 1 or 255; and the largest count, or 0 for pixels."""
    x = np.asarray(x)
    if x.dtype.str[1:] not in _DTYPES:
        raise TypeError(f"x must hold numbers of at most 64 bits, got {x.dtype}")
    if x.ndim == 2 and not len(x):
        matrix("x", np.zeros((1, x.shape[1])), vae.input_dim)
        return x, 1, 0
    _, scale = support.read(x, "x", vae.input_dim, vae.likelihood, "float64")
    most = 0 if vae.likelihood.support.pixels else int(np.max(x))
    if most >= 2 ** 32:
        raise ValueError(f"x must hold counts below 2^32, found {most}")
    return x, round(1 / scale), most


class _Levels:
    """Images x (N, D) as levels, some rows at a time."""

    def __init__(self, x: Array, steps: int, white: int, name: str) -> None:
        self.x, self.steps, self.white, self.name, self.dtype = x, steps, white, name, x.dtype

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
    _, _, mark, images, *shape, block, most, depth, fraction, white, dtype, length = _FIXED.unpack(fixed)
    name, digest = file.read(length), file.read(8)
    if len(digest) < 8:
        raise CompressionError("ends within its header")
    if digest != _digest(fixed, name):
        raise CompressionError("has a damaged header")
    try:
        header = Header(mark, images, tuple(size for size in shape if size), block, most, Bins(depth, fraction), white,
                        dtype.decode(), name.decode())
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
    try:
        chain, head = Chain(vae, header.bins, header.most), header.packed()
    except ValueError as error:
        raise CompressionError(f"cannot be read with this model: {error}") from None
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
        yield values(levels, chain.cells.steps, header.white, np.dtype(header.dtype))
    if rest := size - file.tell():
        raise CompressionError(f"has {rest:,} bytes after its last block")
