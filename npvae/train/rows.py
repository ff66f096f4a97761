"""A data set, from which batches are gathered, and the streams of random numbers.  Read after `optim.py`."""
import zlib
from collections.abc import Iterable
from types import ModuleType
from typing import cast

import numpy as np

from .. import data
from ..buffers import Activations
from ..data.stored import StoredRows
from ..engine.executor import WholeArrayKernels
from ..likelihoods import support
from ..model.vae import VAE
from ..params import Array
from ..validate import choice

_SHUFFLE, _NOISE, _BINARIZE, BINARIZE_ONCE, _EVALUATE, _SIGMA = range(6)      # one stream each


def stream(seed: int, purpose: int, epoch: int) -> np.random.Generator:
    """A random generator for one purpose in one epoch, independent of all others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, epoch)))


class Rows:
    """A data set `array` (N, D) of bytes or floats; the model sees scale * array.  It is copied only where it must be
    converted, and may stay in its file.  Raises ValueError or TypeError for data that the model cannot take
    (`likelihoods/support.py`)."""

    def __init__(self, name: str, x: Array | StoredRows, vae: VAE, binarize: str, seed: int, purpose: int,
                 labels: Array | None = None) -> None:
        choice("binarize", binarize, data.BINARIZATIONS)
        self.dtype, self.of_bytes = vae.dtype, getattr(x, "dtype", None) == np.uint8
        self.dynamic = binarize == "dynamic"
        self.stored = x if isinstance(x, StoredRows) and binarize in ("none", "dynamic") else None
        self.array: Array
        if self.stored is None:
            x, self.scale = support.read(x, name, vae.input_dim, vae.likelihood, vae.dtype, missing=vae.missing,
                                         binarized=binarize != "none")
            self.array = np.ascontiguousarray(data.binarize(x, binarize, stream(seed, purpose, 0)))
        else:
            self.array = cast(Array, self.stored)      # it does as an array
            self.scale = support.scale_of(self.array, vae.likelihood.support)
        for block in self.blocks():
            if self.stored is not None:
                support.read(block, name, vae.input_dim, vae.likelihood, vae.dtype, missing=vae.missing,
                             binarized=binarize != "none")
            if not self.dynamic:
                vae.output.check(block, name, white=round(1 / self.scale))
        self.labels = (vae.check_labels(labels, len(x), name.replace("x_", "labels_"))
                       if vae.classes or labels is not None else None)
        self._noise: dict[tuple[int, ...], Array] = {}

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self) -> Iterable[Array]:
        """All rows in order: at once, or some at a time if they stay in their file."""
        return (self.array,) if self.stored is None else self.stored.blocks()

    def floats(self) -> Array:
        """All rows (N, D) as the model sees them."""
        return support.floats(self.array[:], self.scale, self.dtype)

    def checksums(self) -> dict[str, int]:
        """CRC-32 of data and labels, which must be the same when a run is resumed."""
        labels = {} if self.labels is None else {"labels_crc32": zlib.crc32(self.labels.data)}
        crc = 0
        for block in self.blocks():
            crc = zlib.crc32(block.data, crc)
        return {"data_crc32": crc, **labels}

    def gather(self, a: Activations, index: Array, kernels: ModuleType | WholeArrayKernels, rng: np.random.Generator
               ) -> None:
        """a.x (B, D) = the rows `index` (B,), binarized anew by `rng` if `dynamic`; a.labels (B,) = their labels."""
        a.index[...] = index
        self._gather(a.x, a.labels, a.index, kernels, rng)

    def taken(self, index: Array, kernels: ModuleType, rng: np.random.Generator) -> tuple[Array, Array]:
        """As `gather`, but returned in new arrays: images (n, D) and labels (n,)."""
        x, labels = np.empty((len(index), self.array.shape[1]), self.dtype), np.zeros(len(index), np.int64)
        self._gather(x, labels, index, kernels, rng)
        return x, labels

    def _gather(self, x: Array, labels: Array, index: Array, kernels: ModuleType | WholeArrayKernels,
                rng: np.random.Generator) -> None:
        if self.labels is not None:
            np.take(self.labels, index, out=labels, mode="clip")      # no temporary array, unlike "raise"
        array = self.array
        if self.stored is not None:
            array, index = self.stored[index], np.arange(len(index))
        if not self.dynamic:
            kernels.gather_rows(x, array, index, self.scale)
            return
        if x.shape not in self._noise:
            self._noise[x.shape] = np.empty(x.shape, np.float32)
        noise = self._noise[x.shape]
        rng.random(out=noise, dtype=np.float32)
        kernels.gather_binarized(x, array, index, noise, self.scale)
