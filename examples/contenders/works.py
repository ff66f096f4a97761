"""What every contender is given: six works, the images, the order they come in, the weights to start from.

NumPy alone; npvae is imported where weights are made, which happens in the parent process only, so that a worker of
another library never loads it.
"""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8      # of Adam, for all


@dataclass(frozen=True)
class Work:
    """One training task: a network, what it minimises, and the images of one epoch.  The decoder mirrors the encoder.
    K > 1 draws mean the importance-weighted bound with a sampled log q - log p, K = 1 the ELBO with the exact KL."""

    name: str
    hidden: tuple[int, ...]
    latent: int
    batch: int
    activation: str
    draws: int = 1
    images: int = 60000
    input_dim: int = 784

    @property
    def steps(self) -> float:
        """Steps of one epoch, a smaller last batch counted as a part of one."""
        return self.images / self.batch

    def layers(self) -> list[tuple[str, int, int, int]]:
        """(name, rows per image, in, out) of each dense layer, in forward order."""
        up, down = [self.input_dim, *self.hidden], [self.latent, *self.hidden[::-1]]
        encoder = [(f"encoder.{i}", 1, *sizes) for i, sizes in enumerate(zip(up, up[1:]))]
        heads = [(name, 1, up[-1], self.latent) for name in ("mu", "logvar")]
        decoder = [(f"decoder.{i}", self.draws, *sizes) for i, sizes in enumerate(zip(down, down[1:]))]
        return [*encoder, *heads, *decoder, ("output", self.draws, down[-1], self.input_dim)]

    def products(self, images: int) -> list[tuple[int, int, int]]:
        """(m, k, n) of every matrix product (m, k) x (k, n) of one step on so many images: forward, then for each layer
        the gradient of its weights and that of its input, the images' own gradient left out."""
        found = []
        for name, draws, n_in, n_out in self.layers():
            rows = images * draws
            found += [(rows, n_in, n_out), (n_in, rows, n_out)]
            if not self.reads_images(name):
                found.append((rows, n_out, n_in))
        return found

    def reads_images(self, layer: str) -> bool:
        """Whether the layer's input is the images, which need no gradient."""
        return layer == "encoder.0" or (not self.hidden and layer in ("mu", "logvar"))

    def flops(self) -> int:
        """Floating-point operations in the matrix products of one full step; a multiplication and an addition are 2."""
        return sum(2 * m * k * n for m, k, n in self.products(self.batch))


_DEEP: dict[str, Any] = {"hidden": (200, 200), "latent": 50, "activation": "tanh"}
WORKS = {work.name: work for work in (
    Work("784-128-20 b128 relu", (128,), 20, 128, "relu"),
    Work("784-400-20 b128 relu", (400,), 20, 128, "relu"),
    Work("784-200-200-50 b100 tanh", batch=100, **_DEEP),
    Work("784-200-200-50 b20 tanh", batch=20, **_DEEP),
    Work("784-200-200-50 b20 tanh, IWAE K=5", batch=20, draws=5, images=20000, **_DEEP),
    Work("784-200-200-50 b20 tanh, IWAE K=50", batch=20, draws=50, images=6000, **_DEEP))}


@dataclass(frozen=True)
class Job:
    """A work with all that is needed to begin: what a worker receives."""

    work: Work
    pixels: Array      # uint8 (N, D), N = work.images
    parameters: Mapping[str, Array]      # float32, npvae's names
    seed: int
    threads: int
    variant: str      # of the contender, as `worker.CONTENDERS` says
    options: Mapping[str, Any]      # of parts other than training


def order(seed: int, epoch: int, images: int) -> Array:
    """The order of the images in an epoch: the permutation that npvae's `fit` draws; so all see the same batches."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, epoch))).permutation(images)


def synthetic(images: int, dim: int = 784) -> Array:
    """Bytes like those of MNIST in one respect: four fifths are black.  uint8 (images, dim)."""
    rng = np.random.default_rng(0)
    return (rng.random((images, dim)) < 0.2) * rng.integers(1, 256, (images, dim), dtype=np.uint8)


def write_pixels(folder: Path, source: str) -> None:
    """Put the training and the test images where the workers find them.  Raises DataError."""
    if source == "mnist":
        from npvae.data import load
        images = load(None)
        train, test = images.train_images, images.test_images
    else:
        train, test = synthetic(60000), synthetic(10000)
    np.save(folder / "train.npy", train)
    np.save(folder / "test.npy", test)


def write_parameters(folder: Path, work: Work, seed: int, epochs: int = 0) -> str:
    """The parameters that npvae starts with, or has after some epochs on the training images; the file's name."""
    from npvae import IWAE, VAE, fit
    path = folder / f"weights-{'-'.join(map(str, work.hidden))}-{work.latent}-{work.activation}-{seed}-{epochs}.npz"
    if not path.exists():
        vae = VAE(work.input_dim, work.hidden, work.latent, work.activation, seed=seed)
        if epochs:
            pixels = np.load(folder / "train.npy")[:work.images]
            fit(vae, pixels, pixels[:work.batch], epochs, work.batch, objective=IWAE(), seed=seed)
        arrays: dict[str, Any] = dict(vae.parameters)
        np.savez(path, **arrays)
    return path.name


def describe(work: Work) -> dict[str, Any]:
    """A work as JSON holds it."""
    return asdict(work)


def read_job(folder: Path, request: Mapping[str, Any], threads: int, variant: str) -> Job:
    """The job that a request of the parent describes."""
    work = Work(**{**request["work"], "hidden": tuple(request["work"]["hidden"])})
    with np.load(folder / request["parameters"]) as file:
        parameters = {name: file[name] for name in file.files}
    pixels = np.load(folder / request["pixels"], mmap_mode="r")[:work.images]
    return Job(work, np.ascontiguousarray(pixels), parameters, request["seed"], threads, variant,
               request.get("options", {}))
