"""The last exercise: your VAE learns MNIST.

Network 784-128-20, batches of 128, Adam at 1e-3, beta = 1.  Ten epochs end at 110 to 112 nats per test image.  Use
forward and backward of exercise 7, with beta=1, and adam_step of exercise 8.
"""
from collections.abc import Iterator

import numpy as np

from ex07_backward import backward, forward  # noqa: F401
from ex08_adam import adam_step  # noqa: F401

Arrays = dict[str, np.ndarray]


def initialize(rng: np.random.Generator, input_dim: int = 784, hidden: int = 128, latent: int = 20) -> Arrays:
    """The parameters of exercise 7 in float32: W ~ Normal(0, v), b = 0.

    v = g / max(in, out), with g = 2 for the two layers before a ReLU and 1 for the others.
    """
    raise NotImplementedError("initialize, D1.7")


def batches(rng: np.random.Generator, n: int, size: int) -> Iterator[np.ndarray]:
    """The indices 0 to n - 1, each once, in random order, in arrays of `size`; the last one may be shorter."""
    raise NotImplementedError("batches, each index once")


def train(rng: np.random.Generator, images: np.ndarray, epochs: int) -> Iterator[Arrays]:
    """Train on images (N, 784) in float32, 0 to 1; `yield params` after each epoch.

    Every batch gets fresh noise, eps = rng.standard_normal((B, 20), dtype=np.float32).
    """
    raise NotImplementedError("train, D7.2, D8.4")
