"""Normalizing flows: invertible steps that turn the Gaussian draw z0 into a richer z.  Read before `latents.py`, which
puts them to use; the formulas are in `kernels/reference/flows.py`.

A flow makes z from z0, and log |det dz/dz0| of every draw, by which the density shrinks.  Buffers:  a.z0, a.z, d.z0,
d.z (B, K, Z);  a.log_det, d.log_det (B, K).
"""
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from .params import Array, Block, Shapes


class NoFlow:
    """z is z0, in the same memory; log_det stays 0."""

    name = "gaussian"
    shapes: Shapes = {}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """It has no parameters."""

    def add_buffers(self, a: Any, d: Any, take: Callable[..., Array]) -> None:
        a.z0, d.z0 = a.z, d.z

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Nothing is to be done."""

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """Nothing is to be done."""

    def join(self, kernels: ModuleType, d: Any) -> None:
        """It does not read the encoder's output, so d.h, what the heads say of that, is all: it is d.encoder[-1]."""

    def transform(self, z0: Array, vae: Any, x: Array, labels: Array | None) -> Array:
        """z (B, Z) of z0 (B, Z), drawn for the images x (B, D)."""
        return z0


Flow = Any      # NoFlow, or a class with the same methods


def find(posterior: str, context: int, latent_dim: int) -> Flow:
    """The flow that makes the posterior of that name; `context` is the width of the encoder's output.  Raises
    ValueError with the known names."""
    if posterior == "gaussian":
        return NoFlow()
    raise ValueError(f"posterior must be one of gaussian, got {posterior!r}")
