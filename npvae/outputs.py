"""The decoder's last step: from its hidden layer h to what the likelihood takes.  Read after `layers.py`.

Given z the pixels are independent, and the step is a dense layer; or each pixel depends on those before it (`made.py`).
Buffers:  a.decoder[-1], the hidden layer (B K, H);  a.rows, the output (B K, P);  a.x (B, D).
"""
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from .layers import Dense
from .params import Array, Block
from .validate import choice


class DenseOutput:
    """output = h W + b."""

    recordable = True      # does nothing but call kernels; see `lanes.py`

    def __init__(self, hidden: int, output_dim: int) -> None:
        self.layer = Dense("output", hidden, output_dim, "identity")
        self.W, self.b, self.shapes, self.initialize = (
            self.layer.W, self.layer.b, self.layer.shapes, self.layer.initialize)

    def add_buffers(self, a: Any, d: Any, take: Callable[..., Array]) -> None:
        """Those of `buffers.py` are enough."""

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        self.layer.forward(kernels, a.rows, a.rows_pre, a.decoder[-1], params)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        self.layer.backward(kernels, d.decoder[-1], d.rows_pre, grads, d.rows, a.rows, a.decoder[-1], params)

    def generate(self, kernels: ModuleType, a: Any, params: Block, rng: np.random.Generator | None) -> None:
        """a.rows for new images: the same, since no pixel looks at another."""
        self.forward(kernels, a, params)

    def draw(self, vae: Any, output: Array, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D) from what `generate` left (rows, P)."""
        return vae.likelihood.draw(vae.kernels, output, vae.parameters, rng)


Output = Any      # DenseOutput, or a class with the same methods


def find(decoder: str, hidden: int, likelihood: Any, input_dim: int) -> Output:
    """The last step of the decoder of that name.  Raises ValueError with the known names."""
    choice("decoder", decoder, ("dense",))
    return DenseOutput(hidden, likelihood.output_dim(input_dim))
