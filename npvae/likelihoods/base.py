"""What a likelihood p(x|z) is: the class to subclass.  Read after `layers.py`; the formulas are in
`kernels/reference/likelihoods.py` and `levels.py`.

A likelihood says how many numbers the decoder puts out for an image, what numbers it is a distribution of (`support`,
see `support.py`), and calls the kernel pair that makes nll[b, k] = -log p(x[b] | z[b, k]), in nats, and its derivative.

To add one, subclass `Likelihood`: four methods, `forward`, `backward`, `mean` and `draw`.  `VAE(likelihood=...)` takes
an object of the class; a row in `LIKELIHOODS` (`__init__.py`) gives it a name for the command line.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType

import numpy as np

from ..params import Array, Block, Shapes
from .support import Reals, Support


class Likelihood(ABC):
    """p(x|z) of an image x of D numbers, given what the decoder puts out for z.

    Attributes
    ----------
    name : as the command line and saved files write it
    support : what data it takes
    shapes : of parameters of its own, by name; none
    recordable : True promises that `forward` and `backward` do nothing but call kernels, so that their calls may be
        recorded once and replayed (`engine/`), with what they take from `self` as it was at the first pass.  It must
        stand in the class itself: a subclass may compute something else
    fits_batch : does `fit_batch` choose a parameter for all images of a batch together?
    """

    name: str
    support: Support = Reals()
    shapes: Shapes = {}
    recordable: bool = False
    fits_batch: bool = False

    def output_dim(self, input_dim: int) -> int:
        """P, how many numbers the decoder puts out for an image of D numbers: one for each."""
        return input_dim

    def initialize(self, params: Block) -> None:
        """Set parameters of its own, if there are any."""

    def bias_at(self, mean: Array) -> Array:
        """The output bias (P,) at which the decoder starts at the mean image (D,): 0 where nothing better is known."""
        return np.zeros(self.output_dim(len(mean)))

    @abstractmethod
    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        """nll (B, K) = -log p(x|z), from output (B, K, P) and x (B, D).  `kept` (B, K, P) is memory for what `backward`
        needs again."""

    @abstractmethod
    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        """doutput (B, K, P) from dnll (B, K); and the gradients of its own parameters."""

    @abstractmethod
    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from output (rows, P)."""

    @abstractmethod
    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D) from output (rows, P)."""

    def fit_batch(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array) -> None:
        """Where `fits_batch`: nll as `forward` leaves it, at the parameter that is best for this batch, in training."""

    def fit_images(self, params: Block, x: Array, mean: Array) -> None:
        """Where `fits_batch`: set that parameter to what is best for images x and their reconstructions (N, D)."""


def mean_within(mean: Array) -> Array:
    """The mean image, kept a thousandth away from black and white, where parameters would be infinite."""
    return np.clip(mean, 1e-3, 1 - 1e-3)


def solve(increasing: Callable[[Array], Array], target: Array, low: float, high: float) -> Array:
    """Where the function is `target` (D,), each entry on its own, by bisection between two numbers."""
    lower, upper = np.full(target.shape, low), np.full(target.shape, high)
    middle: Array = lower
    for _ in range(70):
        middle = 0.5 * (lower + upper)
        below = increasing(middle) < target
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return middle
