"""Priors p(z).  Read after `objectives.py`, before `latents.py` puts them to use; the formulas are in
`kernels/reference/priors.py`.

A prior makes log p(z) of every draw, and its derivative by z and by what it has learned.  Buffers:  a.z (B, K, Z);
a.log_p, d.log_p (B, K);  d.z_p (B, K, Z) takes dz.
"""
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from .params import Array, Block, Shapes


class StandardNormal:
    """p(z) = N(0, I)."""

    name = "normal"
    rows = 0
    shapes: Shapes = {}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """It has no parameters."""

    def add_buffers(self, a: Any, d: Any, take: Callable[..., Array]) -> None:
        """It needs none."""

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Before the encoder: it asks for no rows there."""

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """After the encoder's backward pass: it asked for no rows."""

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        kernels.standard_normal_forward(a.log_p, a.z)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        kernels.standard_normal_backward(d.z_p, d.log_p, a.z)

    def sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        """z (n, Z)."""
        return rng.standard_normal((n, vae.latent_dim))


Prior = Any      # StandardNormal, or a class with the same methods


def find(prior: str, input_dim: int, latent_dim: int) -> Prior:
    """The prior of that name.  Raises ValueError with the known names."""
    if prior == "normal":
        return StandardNormal()
    raise ValueError(f"prior must be one of normal, got {prior!r}")
