"""What a prior and a flow are: the classes to subclass; and how the KL term is estimated.  Read after `gaussian.py`.

Both are parts of `Composed`, which draws z0 = mu + sigma eps, has the flow make z of it, and the prior log p(z):

    KL term of a draw = log q0(z0|x) - log |det dz/dz0| - log p(z)

A part is given the arrays of a pass, `a` (values) and `d` (gradients), see `buffers.py`; `own` is what its `allocate`
has returned: arrays that nobody else needs.  It never sees the model.

To add a prior, subclass `Prior`: three methods, `forward`, `backward` and `sample`.  `VAE(prior=...)` takes an object
of the class, `VAE(posterior=...)` a flow.
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
Encode = Callable[[Array], tuple[Array, Array]]      # rows like images (R, D) to mu and logvar (R, Z) of q(z|row)


class KLEstimator(Enum):
    """How the KL term is estimated, and what gradient the encoder gets from it.

    EXACT                    in closed form, per image and latent dimension, kl (B, Z)
    SAMPLED                  log q(z|x) - log p(z) at the drawn z, log_ratio (B, K), and its derivative
    STICKING_THE_LANDING     the same value; its gradient without the score of q, which is noise (Roeder et al. 2017)
    DOUBLY_REPARAMETERIZED   the same for importance-weighted bounds (Tucker et al. 2019)

    The values are how saved runs write them.
    """

    EXACT = "False"
    SAMPLED = "True"
    STICKING_THE_LANDING = "'stl'"
    DOUBLY_REPARAMETERIZED = "'dreg'"

    def __repr__(self) -> str:
        return self.value

    @property
    def is_sampled(self) -> bool:
        """Is the KL term taken at the draws?"""
        return self is not KLEstimator.EXACT

    @property
    def follows_path(self) -> bool:
        """Is the path through z the only one that the encoder's gradient takes?"""
        return self in (KLEstimator.STICKING_THE_LANDING, KLEstimator.DOUBLY_REPARAMETERIZED)


class Prior(ABC, Generic[Own]):
    """p(z).

    Attributes
    ----------
    name : as the command line and saved files write it
    shapes : of its parameters, by name; none
    rows : R', how many rows it gives to the encoder below the images of a batch; none
    noise : N, how many standard normal numbers it draws itself beside the Z of z: a.eps_prior (B, K, N); none
    in_unit_interval : must training images lie in [0, 1]?
    recordable : as of a likelihood (`likelihoods/base.py`)
    """

    name: str
    shapes: Shapes = {}
    rows: int = 0
    noise: int = 0
    in_unit_interval: bool = False
    recordable: bool = False

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Set its parameters, if there are any."""

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> Own:
        """Arrays of its own, for as many images and draws as `a` has."""
        return None      # type: ignore[return-value]      # of a prior that needs none, Own is None

    @abstractmethod
    def forward(self, kernels: ModuleType, a: Activations, own: Own, params: Block) -> None:
        """a.log_p (B, K) = log p(z) of a.z (B, K, Z)."""

    @abstractmethod
    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Own, grads: Block, params: Block
                 ) -> None:
        """d.z_p (B, K, Z) from d.log_p (B, K); and the gradients of its parameters."""

    @abstractmethod
    def sample(self, shape: tuple[int, int], rng: np.random.Generator, params: Block, encode: Encode) -> Array:
        """z ~ p(z), of shape (n, Z).  `encode` gives q(z|row) of rows like images."""

    def fill_rows(self, kernels: ModuleType, rows: Array, own: Own, params: Block) -> None:
        """Before the encoder: write its rows (R', D)."""

    def rows_backward(self, kernels: ModuleType, drows: Array, rows: Array, own: Own, grads: Block, params: Block
                      ) -> None:
        """After the encoder's backward pass: from drows (R', D) to the gradients of what the rows are made of."""


class Flow(ABC, Generic[Own]):
    """z = f(z0), invertible, and log |det dz/dz0| of every draw.

    Attributes
    ----------
    name : as the command line and saved files write it
    shapes : of its parameters, by name; none
    reads_encoder : does it read the encoder's output a.encoder[-1], as the heads of mu and logvar do?
    recordable : as of a likelihood (`likelihoods/base.py`)
    """

    name: str
    shapes: Shapes = {}
    reads_encoder: bool = False
    recordable: bool = False

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Set its parameters, if there are any."""

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> Own:
        """Arrays of its own, for as many images and draws as `a` has."""
        return None      # type: ignore[return-value]      # of a flow that needs none, Own is None

    @abstractmethod
    def forward(self, kernels: ModuleType, a: Activations, own: Own, params: Block) -> None:
        """a.z (B, K, Z) and a.log_det (B, K) from a.z0 (B, K, Z)."""

    @abstractmethod
    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Own, grads: Block, params: Block
                 ) -> None:
        """d.z0 (B, K, Z) from d.z (B, K, Z) and d.log_det (B, K); the gradients of its parameters; and d.h_flow, if it
        reads the encoder."""
