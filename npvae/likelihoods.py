"""Likelihoods p(x|z): what the decoder's output means.  Read after `layers.py`; the formulas are in
`kernels/reference/likelihoods.py`.

A likelihood says how wide the decoder's output is, what x it accepts, and binds the kernel pair that makes
nll[b, k] = -log p(x[b] | z[b, k]) in nats and its derivative.  To add one: a pair of kernels, a class, a line in
LIKELIHOODS.

Buffers:  output, kept, doutput (B, K, output_dim);  nll (B, K);  x (B, D).  `output` is what the decoder says; in
`kept` the forward pass may leave what the backward pass needs again.

A class that says `recordable = True` promises that its forward and backward do nothing but call kernels on their
buffers; then they may be recorded once and replayed (`lanes.py`), with what they take from `self` as it was at the
first pass.  A class that computes beside them, or that changes later, says nothing.
"""
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from .kernels.reference.likelihoods import LOGVAR_FLOOR
from .params import Array, Block, Shapes
from .validate import choice, real, shown


class Bernoulli:
    """Independent binary pixels, p = sigmoid(logits).  Grey pixels in [0, 1] are taken as targets all the same: the
    summed binary cross-entropy, which is then no likelihood of the data (D3.6) but what most published VAEs report."""

    name = "bernoulli"
    recordable = True
    shapes: Shapes = {}

    def output_dim(self, input_dim: int) -> int:
        return input_dim

    def check(self, x: Array, name: str) -> None:
        """Raises ValueError unless every pixel lies in [0, 1]."""
        low, high = x.min(), x.max()
        if not (low >= 0 and high <= 1):
            found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}; bytes are divided by 255"
            raise ValueError(f"{name} must lie in [0, 1] for the Bernoulli likelihood, found {found}")

    def initialize(self, params: Block) -> None:
        """It has no parameters of its own."""

    def bias_at(self, mean: Array) -> Array:
        """The output bias at which the decoder starts at the mean image: its logit, the best that one bias for all
        images can be (D3.7), kept finite for pixels that are black or white throughout (Burda et al. 2016)."""
        p = np.clip(mean, 1e-3, 1 - 1e-3)
        return np.log(p / (1 - p))

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.bernoulli_nll_forward(nll, kept, output, x)      # keeps the means

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.bernoulli_nll_backward(doutput, dnll, kept, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, D)."""
        mean = np.empty_like(output)
        kernels.sigmoid_forward(mean, output, np.zeros(output.shape[1], output.dtype))
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z), zeros and ones (rows, D)."""
        return (rng.random(output.shape) < self.mean(kernels, output)).astype(output.dtype)


class Gaussian:
    """Independent Gaussian pixels with one sigma: fixed, or learned with the other parameters (then `sigma` is where
    it starts, and the parameter is `likelihood.logvar`, at its best for the sigma of D4.4)."""

    recordable = True

    def __init__(self, sigma: float = 0.1, learned: bool = False) -> None:
        self.sigma = real("sigma", sigma, 0, strict=True)
        self.name = ("gaussian-learned" if learned else "gaussian") + f":{self.sigma!r}"
        self.shapes: Shapes = {"likelihood.logvar": (1,)} if learned else {}

    def output_dim(self, input_dim: int) -> int:
        return input_dim

    def check(self, x: Array, name: str) -> None:
        """Raises ValueError for NaN or infinity; any other number is a possible pixel."""
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must hold finite numbers, found NaN or infinity")

    def initialize(self, params: Block) -> None:
        for name in self.shapes:
            params[name][...] = 2 * math.log(self.sigma)

    def bias_at(self, mean: Array) -> Array:
        """The decoder starts at the mean image."""
        return mean

    def _logvar(self, block: Block) -> Array:
        """The learned entry of `block`, or, sigma being fixed, a constant that takes its place."""
        if self.shapes:
            return block["likelihood.logvar"]
        return np.full(1, 2 * math.log(self.sigma), block.flat.dtype)

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.gaussian_nll_forward(nll, output, x, self._logvar(params))

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.gaussian_nll_backward(doutput, self._logvar(grads), dnll, output, x, self._logvar(params))

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) is the decoder's output itself."""
        return output.copy()

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        sigma = np.exp(0.5 * self._logvar(params))
        return (output + sigma * rng.standard_normal(output.shape)).astype(output.dtype)


class GaussianPixel:
    """Independent Gaussian pixels, a sigma for each from the decoder, never below 0.05 (`LOGVAR_FLOOR`)."""

    name = "gaussian-pixel"
    recordable = True
    shapes: Shapes = {}
    check = Gaussian.check

    def output_dim(self, input_dim: int) -> int:
        return 2 * input_dim

    def initialize(self, params: Block) -> None:
        """It has no parameters of its own."""

    def bias_at(self, mean: Array) -> Array:
        """The decoder starts at the mean image, with sigma near 1/4 throughout."""
        return np.concatenate([mean, np.full_like(mean, 2 * math.log(0.25))])

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.gaussian_pixel_nll_forward(nll, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.gaussian_pixel_nll_backward(doutput, dnll, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) is the first half of the decoder's output (rows, 2 D)."""
        return output[:, :output.shape[1] // 2].copy()

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D), with the logvar of D4.5."""
        mean = self.mean(kernels, output)
        logvar = LOGVAR_FLOOR + np.logaddexp(0, output[:, mean.shape[1]:].real - LOGVAR_FLOOR)
        return (mean + np.exp(0.5 * logvar) * rng.standard_normal(mean.shape)).astype(output.dtype)


Likelihood = Any    # one of the classes above, or the reader's own with the same methods

#: name -> how to make it; the Gaussians take a sigma, as in "gaussian:0.2"
LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli, "gaussian": Gaussian, "gaussian-learned": lambda: Gaussian(learned=True),
    "gaussian-pixel": GaussianPixel}


def find(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of that name, or the object itself.  Raises ValueError or TypeError with the known names."""
    if not isinstance(likelihood, str):
        if isinstance(likelihood, type) or not hasattr(likelihood, "output_dim"):
            raise TypeError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, or an object like those of "
                            f"npvae.likelihoods, got {shown(likelihood)}")
        return likelihood
    name, colon, sigma = likelihood.partition(":")
    if not colon or name not in ("gaussian", "gaussian-learned"):
        return LIKELIHOODS[choice("likelihood", likelihood, LIKELIHOODS)]()
    try:
        return Gaussian(float(sigma), learned=name == "gaussian-learned")
    except ValueError:
        raise ValueError(f"likelihood {shown(likelihood)}: sigma must be a finite number more than 0") from None
