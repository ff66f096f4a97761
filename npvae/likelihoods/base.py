"""The class of all likelihoods p(x|z), to be subclassed.  Read after `support.py`; the formulas are in
`kernels/reference/likelihoods.py` and `levels.py`.

A likelihood says how many outputs the decoder has for an image and which data it takes (`support`).  It calls the pair
of kernels that computes nll[b, k] = -log p(x[b] | z[b, k]), in nats, and its derivative.

To add one, subclass `Likelihood` and write four methods: `forward`, `backward`, `mean` and `draw`.  Pass an object of
the class as `VAE(likelihood=...)`; a row in `LIKELIHOODS` (`__init__.py`) gives it a name for the command line.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType

import numpy as np

from ..params import Array, Block, Shapes
from .support import Reals, Support


class Likelihood(ABC):
    """p(x|z) of an image x of D numbers, given the P outputs of the decoder at z.

    Attributes
    ----------
    name : as the command line and saved files write it
    support : the data it takes
    shapes : name -> shape of its own parameters; empty by default
    recordable : True promises that `forward` and `backward` only call kernels.  Their calls may then be recorded once
        and replayed (`engine/`), with what they took from `self` in the first pass.  Set it in the class itself: it is
        not inherited, as a subclass may compute something else
    fits_batch : True if `fit_batch` chooses a parameter for a whole batch
    """

    name: str
    support: Support = Reals()
    shapes: Shapes = {}
    recordable: bool = False
    fits_batch: bool = False

    def output_dim(self, input_dim: int) -> int:
        """P, the number of decoder outputs for an image of D numbers; D by default."""
        return input_dim

    def initialize(self, params: Block) -> None:
        """Set its own parameters, if it has any."""

    def bias_at(self, mean: Array) -> Array:
        """The output bias (P,) at which the decoder's first output is the mean image (D,); 0 by default."""
        return np.zeros(self.output_dim(len(mean)))

    @abstractmethod
    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        """nll (B, K) = -log p(x|z) in nats, from output (B, K, P) and x (B, D).  `kept` (B, K, P) is memory for values
        that `backward` needs."""

    @abstractmethod
    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        """doutput (B, K, P) from dnll (B, K), and the gradients of its own parameters into `grads`."""

    @abstractmethod
    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from output (rows, P)."""

    @abstractmethod
    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """A draw x ~ p(x|z) (rows, D) from output (rows, P)."""

    def fit_batch(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array) -> None:
        """In training, if `fits_batch`: nll (B, K) with the parameter that is best for this batch."""

    def fit_images(self, params: Block, x: Array, mean: Array) -> None:
        """If `fits_batch`: set that parameter to what is best for images x and their reconstructions `mean`, both (N,
        D)."""


def mean_within(mean: Array) -> Array:
    """The mean image, kept within [0.001, 0.999]: for pure black or white the bias would be infinite."""
    return np.clip(mean, 1e-3, 1 - 1e-3)


def solve(increasing: Callable[[Array], Array], target: Array, low: float, high: float) -> Array:
    """The root (D,) of  increasing(root) = target,  entry by entry, by bisection between `low` and `high`."""
    lower, upper = np.full(target.shape, low), np.full(target.shape, high)
    middle: Array = lower
    for _ in range(70):
        middle = 0.5 * (lower + upper)
        below = increasing(middle) < target
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return middle
