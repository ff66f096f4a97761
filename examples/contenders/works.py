"""What every contender gets: the works, the images and their order, the initial weights.

Needs only NumPy.  npvae is imported in the functions that make weights, which only the parent process calls, so that
workers of other libraries do not load it.
"""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8      # of Adam, for all


class Layer(NamedTuple):
    """A matrix product of the forward pass.

    reads : the layer whose output is its input, or "x" or "z"
    draws, extra : it has `draws` rows for each image, and `extra` rows besides, for pseudo-inputs
    """

    name: str
    reads: str
    draws: int
    extra: int
    n_in: int
    n_out: int


@dataclass(frozen=True)
class Work:
    """A training task: a network, an objective, and the images of one epoch.  The decoder mirrors the encoder.  For
    K > 1 draws the objective is the importance-weighted bound, otherwise the ELBO.

    units : hidden units of a MADE decoder, whose input is the image and the decoder's last hidden layer; 0: none
    pseudo_inputs : those of a VampPrior, rows that the encoder has besides the images; 0: p(z) is N(0, I)
    """

    name: str
    hidden: tuple[int, ...]
    latent: int
    batch: int
    activation: str
    draws: int = 1
    images: int = 60000
    input_dim: int = 784
    units: int = 0
    pseudo_inputs: int = 0

    @property
    def sampled(self) -> bool:
        """Whether the KL term is log q - log p at the draws of z, rather than exact."""
        return self.draws > 1 or self.pseudo_inputs > 0

    @property
    def variant(self) -> dict[str, Any]:
        """npvae's names of decoder and prior, if they are not the defaults."""
        return {**({"decoder": f"made:{self.units}"} if self.units else {}),
                **({"prior": f"vamp:{self.pseudo_inputs}"} if self.pseudo_inputs else {})}

    @property
    def steps(self) -> float:
        """Steps of one epoch; a smaller last batch counts as a fraction."""
        return self.images / self.batch

    def layers(self) -> list[Layer]:
        """Each matrix product, in forward order."""
        up, down = [self.input_dim, *self.hidden], [self.latent, *self.hidden[::-1]]
        ups = ["x", *(f"encoder.{i}" for i in range(len(self.hidden)))]
        downs = ["z", *(f"decoder.{i}" for i in range(len(self.hidden)))]
        K, P, D, H = self.draws, self.pseudo_inputs, self.input_dim, self.units
        encoder = [Layer(name, below, 1, P, *sizes) for name, below, *sizes in zip(ups[1:], ups, up, up[1:])]
        heads = [Layer(name, ups[-1], 1, P, up[-1], self.latent) for name in ("mu", "logvar")]
        decoder = [Layer(name, below, K, 0, *sizes) for name, below, *sizes in zip(downs[1:], downs, down, down[1:])]
        output = [Layer("output", downs[-1], K, 0, down[-1], D)]
        if H:      # the product with x is the same for all draws
            output = [Layer("made by x", "x", 1, 0, D, H), Layer("made by h", downs[-1], K, 0, down[-1], H),
                      Layer("output by made", "made by h", K, 0, H, D),
                      Layer("output by h", downs[-1], K, 0, down[-1], D)]
        return [*encoder, *heads, *decoder, *output]

    def products(self, images: int) -> list[tuple[int, int, int]]:
        """(m, k, n) of every matrix product (m, k) x (k, n) of one step on `images` images: for each layer the forward
        product, the gradient of its weights, and that of its input."""
        found = []
        for layer in self.layers():
            rows, back = self.rows(layer, images)
            found += [(rows, layer.n_in, layer.n_out), (layer.n_in, rows, layer.n_out)]
            if back:
                found.append((back, layer.n_out, layer.n_in))
        return found

    def rows(self, layer: Layer, images: int) -> tuple[int, int]:
        """The rows of a layer in a step on `images` images, and how many of them, the last ones, have a gradient on the
        input: images need none.  A part of a batch has the same part of the extra rows."""
        extra = layer.extra * images // self.batch
        rows = images * layer.draws + extra
        return rows, extra if layer.reads == "x" else rows

    def flops(self) -> int:
        """Floating-point operations, additions and multiplications, in the matrix products of one full step."""
        return sum(2 * m * k * n for m, k, n in self.products(self.batch))


_DEEP: dict[str, Any] = {"hidden": (200, 200), "latent": 50, "activation": "tanh"}
WORKS = {work.name: work for work in (
    Work("784-128-20 b128 relu", (128,), 20, 128, "relu"),
    Work("784-400-20 b128 relu", (400,), 20, 128, "relu"),
    Work("784-200-200-50 b100 tanh", batch=100, **_DEEP),
    Work("784-200-200-50 b20 tanh", batch=20, **_DEEP),
    Work("784-200-200-50 b20 tanh, IWAE K=5", batch=20, draws=5, images=20000, **_DEEP),
    Work("784-200-200-50 b20 tanh, IWAE K=50", batch=20, draws=50, images=6000, **_DEEP))}

_STATIC: dict[str, Any] = {"hidden": (300, 300), "latent": 40, "batch": 100, "activation": "relu"}
#: works of `examples/paper_tables.py`; measured only if they are named, and not part of the mean over works
FAMILY = {work.name: work for work in (
    Work("784-300-300-40 b100 relu, MADE 500", units=500, **_STATIC),
    Work("784-300-300-40 b100 relu, VampPrior 500", pseudo_inputs=500, **_STATIC))}
ALL = {**WORKS, **FAMILY}


def made_masks(work: Work) -> tuple[Array, Array]:
    """The masks of a MADE decoder (Germain et al. 2015): pixel d, counted from 1, is connected to hidden units of
    degree >= d (D, H), and a unit to pixels d > its degree (H, D).  Degrees ascend from 1 to D - 1."""
    pixels = np.arange(1, work.input_dim + 1)
    degrees = 1 + np.arange(work.units) * max(work.input_dim - 1, 1) // max(work.units, 1)
    return (pixels[:, None] <= degrees).astype(np.float32), (degrees[:, None] < pixels).astype(np.float32)


@dataclass(frozen=True)
class Job:
    """A work with its images and weights, as a worker gets it."""

    work: Work
    pixels: Array      # uint8 (N, D), N = work.images
    parameters: Mapping[str, Array]      # float32, npvae's names
    seed: int
    threads: int
    variant: str      # of the contender, as `worker.CONTENDERS` says
    options: Mapping[str, Any]      # for parts other than training


def order(seed: int, epoch: int, images: int) -> Array:
    """The order of the images in an epoch: the permutation that npvae's `fit` draws, so that batches are the same."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, epoch))).permutation(images)


def synthetic(images: int, dim: int = 784) -> Array:
    """Random bytes, uint8 (images, dim), of which four fifths are black, as in MNIST."""
    rng = np.random.default_rng(0)
    return (rng.random((images, dim)) < 0.2) * rng.integers(1, 256, (images, dim), dtype=np.uint8)


def write_pixels(folder: Path, source: str) -> None:
    """Save training and test images for the workers.  Raises DataError."""
    if source == "mnist":
        from npvae.data import load
        images = load(None)
        train, test = images.train_images, images.test_images
    else:
        train, test = synthetic(60000), synthetic(10000)
    np.save(folder / "train.npy", train)
    np.save(folder / "test.npy", test)


def load_pixels(path: Path, work: Work) -> Array:
    """The images of a work, uint8 (N, D); black and white for a MADE decoder or a VampPrior."""
    pixels = np.ascontiguousarray(np.load(path, mmap_mode="r")[:work.images])
    return (pixels > 127) * np.uint8(255) if work.variant else pixels


def write_parameters(folder: Path, work: Work, seed: int, epochs: int = 0) -> str:
    """Save the parameters that npvae starts with, or has after `epochs` epochs.  Returns the name of the file."""
    from npvae import IWAE, VAE, fit
    parts = *work.hidden, work.latent, work.activation, work.units, work.pseudo_inputs, seed, epochs
    path = folder / f"weights-{'-'.join(map(str, parts))}.npz"
    if not path.exists():
        vae = VAE(work.input_dim, work.hidden, work.latent, work.activation, seed=seed, **work.variant)
        if epochs:
            pixels = load_pixels(folder / "train.npy", work)
            fit(vae, pixels, pixels[:work.batch], epochs, work.batch, objective=IWAE(), seed=seed)
        arrays: dict[str, Any] = dict(vae.parameters)
        np.savez(path, **arrays)
    return path.name


def describe(work: Work) -> dict[str, Any]:
    """A work as JSON values."""
    return asdict(work)


def read_job(folder: Path, request: Mapping[str, Any], threads: int, variant: str) -> Job:
    """The job that a request of the parent process describes."""
    work = Work(**{**request["work"], "hidden": tuple(request["work"]["hidden"])})
    with np.load(folder / request["parameters"]) as file:
        parameters = {name: file[name] for name in file.files}
    return Job(work, load_pixels(folder / request["pixels"], work), parameters, request["seed"], threads, variant,
               request.get("options", {}))
