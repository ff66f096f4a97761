"""A data set, from which batches are gathered, and the streams of random numbers.  Read after `optim.py`."""
import zlib
from types import ModuleType

import numpy as np

from .. import data
from ..buffers import Activations
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
    converted.  Raises ValueError or TypeError for data that the model cannot take (`likelihoods/support.py`)."""

    def __init__(self, name: str, x: Array, vae: VAE, binarize: str, seed: int, purpose: int,
                 labels: Array | None = None) -> None:
        choice("binarize", binarize, data.BINARIZATIONS)
        self.dtype, self.of_bytes = vae.dtype, getattr(x, "dtype", None) == np.uint8
        self.dynamic = binarize == "dynamic"
        x, self.scale = support.read(x, name, vae.input_dim, vae.likelihood, vae.dtype, binarized=binarize != "none",
                                     missing=vae.missing)
        self.array = np.ascontiguousarray(data.binarize(x, binarize, stream(seed, purpose, 0)))
        if not self.dynamic:
            vae.output.check(self.array, name, white=round(1 / self.scale))
        self.labels = (vae.check_labels(labels, len(x), name.replace("x_", "labels_"))
                       if vae.classes or labels is not None else None)
        self._noise: dict[tuple[int, ...], Array] = {}

    def __len__(self) -> int:
        return len(self.array)

    def floats(self) -> Array:
        """All rows (N, D) as the model sees them."""
        return support.floats(self.array, self.scale, self.dtype)

    def checksums(self) -> dict[str, int]:
        """CRC-32 of data and labels, which must be the same when a run is resumed."""
        labels = {} if self.labels is None else {"labels_crc32": zlib.crc32(self.labels.data)}
        return {"data_crc32": zlib.crc32(self.array.data), **labels}

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
        if not self.dynamic:
            kernels.gather_rows(x, self.array, index, self.scale)
            return
        if x.shape not in self._noise:
            self._noise[x.shape] = np.empty(x.shape, np.float32)
        noise = self._noise[x.shape]
        rng.random(out=noise, dtype=np.float32)
        kernels.gather_binarized(x, self.array, index, noise, self.scale)
