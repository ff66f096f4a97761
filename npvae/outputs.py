"""The decoder's last step: from its hidden layer h to what the likelihood takes.  Read after `layers.py`.

Given z the pixels are independent, and the step is a dense layer; or each pixel depends on those before it (`made.py`).
For that one E[x|z], a sum over all images, stands for something else: the probability of each pixel after those before
it, along one path of pixels, a drawn one where there is a generator.

Buffers:  a.decoder[-1], the hidden layer (B K, H);  a.rows, the output (B K, P);  a.x (B, D).
"""
import re
from types import ModuleType
from typing import Any

import numpy as np

from .layers import Dense
from .made import MADE
from .params import Array, Block, Take
from .validate import shown


class DenseOutput:
    """output = h W + b."""

    recordable = True      # does nothing but call kernels; see `lanes.py`

    def __init__(self, hidden: int, output_dim: int) -> None:
        self.layer = Dense("output", hidden, output_dim, "identity")
        self.W, self.b, self.shapes, self.initialize = (
            self.layer.W, self.layer.b, self.layer.shapes, self.layer.initialize)

    def check(self, x: Array, name: str, white: int = 1) -> None:
        """It looks at no pixel: what the likelihood takes fits."""

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """Those of `buffers.py` are enough."""

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        self.layer.forward(kernels, a.rows, a.rows_pre, a.decoder[-1], params)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        self.layer.backward(kernels, d.decoder[-1], d.rows_pre, grads, d.rows, a.rows, a.decoder[-1], params)

    def generate(self, kernels: ModuleType, a: Any, params: Block, rng: np.random.Generator | None) -> None:
        """a.rows for new images: the same, since no pixel looks at another."""
        self.forward(kernels, a, params)

    def draw(self, vae: Any, a: Any, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D) from what `generate` left in `a`."""
        return vae.likelihood.draw(vae.kernels, a.rows, vae.parameters, rng)


Output = Any      # DenseOutput, or a class with the same methods

_MADE = re.compile(r"made:([1-9][0-9]*)(\+direct)?")


def masked_units(decoder: str) -> tuple[int, bool]:
    """How many masked units the decoder of that name has, 0 for dense, and whether pixels see pixels directly, too.
    Raises ValueError with the known names."""
    made = _MADE.fullmatch(decoder) if isinstance(decoder, str) else None
    if not made and decoder != "dense":
        raise ValueError("decoder must be dense, or made:H with H units, such as made:500 or made:500+direct, got "
                         f"{shown(decoder)}")
    return (int(made[1]), bool(made[2])) if made else (0, False)


def find(decoder: str, hidden: int, likelihood: Any, input_dim: int, activation: str) -> Output:
    """The last step of the decoder of that name, after a layer of `hidden` units.  Raises ValueError for other names,
    and for a likelihood that does not fit."""
    units, direct = masked_units(decoder)
    if not units:
        return DenseOutput(hidden, likelihood.output_dim(input_dim))
    if likelihood.name != "bernoulli":
        raise ValueError(f"decoder {decoder} needs likelihood bernoulli, got {likelihood.name}: decoder dense fits it")
    return MADE(hidden, input_dim, units, activation, direct)
