"""The classes of priors and flows, to be subclassed, and the ways to estimate the KL term.  Read after `gaussian.py`.

`Composed` draws z0 = mu + sigma eps; the flow maps it to z, and the prior computes log p(z):

    KL term of a draw = log q0(z0|x) - log |det dz/dz0| - log p(z)

A prior or a flow is given the arrays of a pass, `a` (values) and `d` (gradients), see `buffers.py`, and as `own` the
further arrays that its `allocate` has returned.  It is never given the model.

To add a prior, subclass `Prior` and write `forward`, `backward` and `sample`.  Pass an object of the class as
`VAE(prior=...)`; one of a subclass of `Flow` as `VAE(posterior=...)`.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Generic, TypeVar

import numpy as np

from ..buffers import Activations, Gradients
from ..params import Allocate, Array, Block, Shapes

Own = TypeVar("Own")
Encode = Callable[[Array], tuple[Array, Array]]      # from rows like images (R, D) to mu and logvar (R, Z) of q(z|row)


class KLEstimator(Enum):
    """How the KL term is estimated, and which gradient the encoder gets from it.

    EXACT                    in closed form, per image and latent dimension, kl (B, Z)
    SAMPLED                  a Monte Carlo estimate, log q(z|x) - log p(z) at the drawn z, log_ratio (B, K)
    STICKING_THE_LANDING     the same value; the gradient leaves out the score of q, which is noise (Roeder et al. 2017)
    DOUBLY_REPARAMETERIZED   the same value; such a gradient for importance-weighted bounds (Tucker et al. 2019)

    The values of the members are what saved runs contain.
    """

    EXACT = "False"
    SAMPLED = "True"
    STICKING_THE_LANDING = "'stl'"
    DOUBLY_REPARAMETERIZED = "'dreg'"

    def __repr__(self) -> str:
        return self.value

    @property
    def is_sampled(self) -> bool:
        """The KL term is computed at the draws."""
        return self is not KLEstimator.EXACT

    @property
    def follows_path(self) -> bool:
        """The encoder's gradient goes through z alone."""
        return self in (KLEstimator.STICKING_THE_LANDING, KLEstimator.DOUBLY_REPARAMETERIZED)


class Prior(ABC, Generic[Own]):
    """p(z).

    Attributes
    ----------
    name : as the command line and saved files write it
    shapes : name -> shape of its parameters; empty by default
    rows : R', how many rows it adds to the encoder's input, below the images; 0 by default
    noise : N, further standard normal numbers that it needs for each z, in a.eps_prior (B, K, N); 0 by default
    in_unit_interval : training images must lie in [0, 1]
    recordable : as in `Likelihood` (`likelihoods/base.py`)
    """

    name: str
    shapes: Shapes = {}
    rows: int = 0
    noise: int = 0
    in_unit_interval: bool = False
    recordable: bool = False

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Set its parameters, if it has any."""

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> Own:
        """Further arrays that it needs, for as many images and draws as `a` has; the other methods get them as `own`.
        """
        return None      # type: ignore[return-value]      # for a prior that needs none, Own is None

    @abstractmethod
    def forward(self, kernels: ModuleType, a: Activations, own: Own, params: Block) -> None:
        """a.log_p (B, K) = log p(z), in nats, at a.z (B, K, Z)."""

    @abstractmethod
    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Own, grads: Block, params: Block
                 ) -> None:
        """d.z_p (B, K, Z) from d.log_p (B, K), and the gradients of its parameters into `grads`."""

    @abstractmethod
    def sample(self, shape: tuple[int, int], rng: np.random.Generator, params: Block, encode: Encode) -> Array:
        """Draws z ~ p(z) of shape (n, Z).  `encode` gives mu and logvar of q(z|row) for rows that are like images."""

    def fill_rows(self, kernels: ModuleType, rows: Array, own: Own, params: Block) -> None:
        """Called before the encoder: write its rows (R', D)."""

    def rows_backward(self, kernels: ModuleType, drows: Array, rows: Array, own: Own, grads: Block, params: Block
                      ) -> None:
        """Called after the encoder's backward pass: from drows (R', D) to the gradients of the parameters behind the
        rows."""


class Flow(ABC, Generic[Own]):
    """z = f(z0), invertible, and log |det dz/dz0| of every draw.

    Attributes
    ----------
    name : as the command line and saved files write it
    shapes : name -> shape of its parameters; empty by default
    reads_encoder : it reads the encoder's output a.encoder[-1], as the layers of mu and logvar do
    recordable : as in `Likelihood` (`likelihoods/base.py`)
    """

    name: str
    shapes: Shapes = {}
    reads_encoder: bool = False
    recordable: bool = False

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Set its parameters, if it has any."""

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> Own:
        """Further arrays that it needs, for as many images and draws as `a` has; the other methods get them as `own`.
        """
        return None      # type: ignore[return-value]      # for a flow that needs none, Own is None

    @abstractmethod
    def forward(self, kernels: ModuleType, a: Activations, own: Own, params: Block) -> None:
        """a.z (B, K, Z) and a.log_det (B, K) from a.z0 (B, K, Z)."""

    @abstractmethod
    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Own, grads: Block, params: Block
                 ) -> None:
        """d.z0 (B, K, Z) from d.z (B, K, Z) and d.log_det (B, K); d.h_flow, if it reads the encoder; and the gradients
        of its parameters into `grads`."""
