"""The last exercise: your VAE learns MNIST.

Network 784-128-20, batches of 128, Adam at 1e-3, beta = 1.  Ten epochs end at 110 to 112 nats per test image.  Use
forward and backward of exercise 7, with beta=1, and adam_step of exercise 8.
"""
from collections.abc import Iterator

import numpy as np

from ex07_backward import backward, forward
from ex08_adam import adam_step

Arrays = dict[str, np.ndarray]


def initialize(rng: np.random.Generator, input_dim: int = 784, hidden: int = 128, latent: int = 20) -> Arrays:
    """The parameters of exercise 7 in float32: W ~ Normal(0, v), b = 0.

    v = g / max(in, out), with g = 2 for the two layers before a ReLU and 1 for the others.
    """
    layers = [("encoder", input_dim, hidden, 2), ("mu", hidden, latent, 1), ("logvar", hidden, latent, 1),
              ("decoder", latent, hidden, 2), ("output", hidden, input_dim, 1)]
    params = {}
    for name, n_in, n_out, gain in layers:
        scale = np.sqrt(gain / max(n_in, n_out))
        params[f"{name}.W"] = (scale * rng.standard_normal((n_in, n_out))).astype(np.float32)
        params[f"{name}.b"] = np.zeros(n_out, np.float32)
    return params


def batches(rng: np.random.Generator, n: int, size: int) -> Iterator[np.ndarray]:
    """The indices 0 to n - 1, each once, in random order, in arrays of `size`; the last one may be shorter."""
    order = rng.permutation(n)
    for start in range(0, n, size):
        yield order[start:start + size]


def train(rng: np.random.Generator, images: np.ndarray, epochs: int) -> Iterator[Arrays]:
    """Train on images (N, 784) in float32, 0 to 1; `yield params` after each epoch.

    Every batch gets fresh noise, eps = rng.standard_normal((B, 20), dtype=np.float32).
    """
    params = initialize(rng)
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    t = 0
    for _ in range(epochs):
        for index in batches(rng, len(images), 128):
            x, t = images[index], t + 1
            eps = rng.standard_normal((len(x), 20), dtype=np.float32)
            grads = backward(forward(params, x, eps, beta=1), params, x, eps, beta=1)
            for name, grad in grads.items():
                params[name], m[name], v[name] = adam_step(params[name], grad, m[name], v[name], t)
        yield params
