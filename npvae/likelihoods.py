"""Likelihoods p(x|z): what the decoder's output means.  Read after `layers.py`; the formulas are in
`kernels/reference/likelihoods.py`.

A likelihood says how wide the decoder's output is, what numbers it is a distribution of (`support`, see `support.py`),
and binds the kernel pair that makes nll[b, k] = -log p(x[b] | z[b, k]) in nats and its derivative.  To add one: a pair
of kernels, a class, a line in LIKELIHOODS.

Buffers:  output, kept, doutput (B, K, output_dim);  nll (B, K);  x (B, D).  `output` is what the decoder says; in
`kept` the forward pass may leave what the backward pass needs again.

A class that says `recordable = True` promises that its forward and backward do nothing but call kernels on their
buffers; then they may be recorded once and replayed (`lanes.py`), with what they take from `self` as it was at the
first pass.  A class that computes beside them, or that changes later, says nothing.
"""
import math
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .kernels import reference
from .kernels.reference.likelihoods import LOGVAR_FLOOR
from .levels import BetaBinomial, Categorical, DiscretizedLogistic, mean_within, solve
from .params import Array, Block, Shapes
from .support import Reals, UnitInterval
from .validate import NonFiniteError, choice, real, shown


class Bernoulli:
    """Independent binary pixels, p = sigmoid(logits).  Grey pixels in [0, 1] are taken as targets all the same: the
    summed binary cross-entropy, which is then no likelihood of the data (D3.6) but what most published VAEs report."""

    name = "bernoulli"
    recordable = True
    support = UnitInterval()
    shapes: Shapes = {}

    def output_dim(self, input_dim: int) -> int:
        return input_dim

    def initialize(self, params: Block) -> None:
        """It has no parameters of its own."""

    def bias_at(self, mean: Array) -> Array:
        """The output bias at which the decoder starts at the mean image: its logit, the best that one bias for all
        images can be (D3.7), kept finite for pixels that are black or white throughout (Burda et al. 2016)."""
        p = mean_within(mean)
        return np.log(p / (1 - p))

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.bernoulli_nll_forward(nll, kept, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.bernoulli_nll_backward(doutput, dnll, kept, output, x)

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
    it starts, and the parameter is `likelihood.logvar`, at its best for the sigma of D4.4).

    Raises ValueError unless sigma lies between 1e-30 and 1e30: beyond, 1 / sigma is no number in float32.
    """

    recordable = True
    support = Reals()

    def __init__(self, sigma: float = 0.1, learned: bool = False) -> None:
        self.sigma = real("sigma", sigma, 0, strict=True)
        if not 1e-30 <= self.sigma <= 1e30:
            raise ValueError(f"sigma must lie between 1e-30 and 1e30, got {self.sigma}")
        self.name = ("gaussian-learned" if learned else "gaussian") + f":{self.sigma!r}"
        self.shapes: Shapes = {"likelihood.logvar": (1,)} if learned else {}

    def output_dim(self, input_dim: int) -> int:
        return input_dim

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
    support = Reals()
    shapes: Shapes = {}

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


class GaussianOptimal(Gaussian):
    """Independent Gaussian pixels with the one sigma that is best, in closed form (sigma-VAE, Rybkin et al. 2021).

    In training, sigma^2 is the mean squared residual of the batch itself: `of_batch`, which the model calls where
    gradients are wanted.  Whoever measures a model must not let the images choose its sigma: `forward` takes a fixed
    one, `likelihood.logvar`, which gives each image the same nll whatever stands beside it.  It lies among the
    parameters and is saved with them, but no gradient moves it.  `fit_sigma` sets it, in the same closed form, to what
    is best for training images; `npvae.fit` calls that after each epoch, and a loop of your own has to.  (A running
    mean over batches would need a time span: over a hundred batches it is ten nats behind where training is fast.)

    Where the decoder's output equals every pixel no sigma is best: nll falls without bound as sigma goes to 0, and
    `of_batch` and `fit_sigma` raise NonFiniteError.
    """

    _IMAGES = 10_000      # so many tell sigma well enough: to some 0.003 nats on MNIST

    def __init__(self) -> None:
        super().__init__(learned=True)
        self.name = "gaussian-optimal"

    def of_batch(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array) -> None:
        """nll (B, K) as `forward` leaves it, but with the sigma that is best for all of x (B, D) together.  Raises
        NonFiniteError."""
        logvar = kept.ravel()[:1]
        with np.errstate(divide="ignore", invalid="ignore"):
            kernels.gaussian_optimal_nll_forward(nll, logvar, output, x)
        self._check(logvar)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        """The derivative of `of_batch`."""
        grads["likelihood.logvar"][...] = 0
        kernels.gaussian_optimal_nll_backward(doutput, dnll, kept.ravel()[:1], output, x)

    def fit_sigma(self, vae: Any, x: Array, rng: np.random.Generator, labels: Array | None = None) -> None:
        """Set the model's sigma to what is best for images x (B, D), one z ~ q(z|x) each.  Raises NonFiniteError."""
        with np.errstate(divide="ignore"):
            logvar = np.log(np.mean((x - vae.reconstruct(x, rng, labels)) ** 2, dtype=float))
        self._check(logvar)
        vae.parameters["likelihood.logvar"][...] = logvar

    @staticmethod
    def _check(logvar: Any) -> None:
        if logvar == -math.inf:
            raise NonFiniteError("likelihood gaussian-optimal: the decoder's output equals x in every pixel, so "
                                 "the best sigma is 0 and the loss minus infinity; gaussian:0.1 has one that is fixed")

    def after_epoch(self, vae: Any, rows: Any, rng: np.random.Generator) -> None:
        """`fit_sigma` on training data (`train.Rows`), or on 10,000 images evenly spread over them."""
        index = np.linspace(0, len(rows) - 1, min(len(rows), self._IMAGES)).astype(np.int64)
        images = SimpleNamespace(x=np.empty((len(index), vae.input_dim), vae.dtype), index=np.empty_like(index),
                                 labels=np.empty_like(index))
        rows.gather(images, index, vae.kernels, rng)
        self.fit_sigma(vae, images.x, rng, images.labels if vae.classes else None)


class ContinuousBernoulli:
    """Independent grey pixels in [0, 1], a density that is C lambda^x (1 - lambda)^(1 - x), lambda = sigmoid(logits):
    the Bernoulli's formula with the constant that makes it one (Loaiza-Ganem and Cunningham 2019)."""

    name = "continuous-bernoulli"
    recordable = True
    support = UnitInterval()
    shapes: Shapes = {}

    def output_dim(self, input_dim: int) -> int:
        return input_dim

    def initialize(self, params: Block) -> None:
        """It has no parameters of its own."""

    def bias_at(self, mean: Array) -> Array:
        """The decoder starts at the mean image: E[x] there, not lambda, is it."""
        return solve(lambda logits: self.mean(reference, logits[None])[0], mean_within(mean), -1000, 1000)

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.continuous_bernoulli_nll_forward(nll, kept, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.continuous_bernoulli_nll_backward(doutput, dnll, kept, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, D), by what the nll leaves beside itself."""
        nll, tail = np.empty((len(output), 1), output.dtype), np.empty_like(output)
        kernels.continuous_bernoulli_nll_forward(nll, tail[:, None], output[:, None], np.zeros_like(output))
        return np.where(output.real < 0, tail, 1 - tail)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D), by the inverse of  F(x) = (exp(l x) - 1) / (exp(l) - 1):

            x = log(1 + u (exp(l) - 1)) / l,   u uniform on [0, 1),   for l < 0;  for l > 0, 1 - x is of logit -l
        """
        u = rng.random(output.shape)
        t = np.maximum(np.abs(output), 1e-12)      # towards 0 the distribution is uniform
        x = np.minimum(np.log1p(u * np.expm1(-t)) / -t, 1)
        return np.where(output < 0, x, 1 - x).astype(output.dtype)


Likelihood = Any    # one of the classes above or in `levels.py`, or the reader's own with the same methods

#: name -> how to make it; the first two Gaussians take a sigma, as in "gaussian:0.2", categorical a number of levels
LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli, "gaussian": Gaussian, "gaussian-learned": lambda: Gaussian(learned=True),
    "gaussian-pixel": GaussianPixel, "gaussian-optimal": GaussianOptimal, "continuous-bernoulli": ContinuousBernoulli,
    "discretized-logistic": DiscretizedLogistic, "categorical": Categorical, "beta-binomial": BetaBinomial}


def find(likelihood: str | Likelihood) -> Likelihood:
    """The likelihood of that name, or the object itself.  Raises ValueError or TypeError with the known names."""
    if not isinstance(likelihood, str):
        if isinstance(likelihood, type) or not hasattr(likelihood, "output_dim"):
            raise TypeError(f"likelihood must be one of {', '.join(LIKELIHOODS)}, or an object of such a class, got "
                            f"{shown(likelihood)}")
        return likelihood
    name, colon, number = likelihood.partition(":")
    if colon and name == "categorical":
        if not number.isdecimal() or int(number) < 2:
            raise ValueError(f"likelihood {shown(likelihood)}: the number of levels must be a whole number from 2 on")
        return Categorical(int(number))
    if not colon or name not in ("gaussian", "gaussian-learned"):
        return LIKELIHOODS[choice("likelihood", likelihood, LIKELIHOODS)]()
    try:
        sigma = float(number)
    except ValueError:
        sigma = math.nan
    try:
        return Gaussian(sigma, learned=name == "gaussian-learned")
    except ValueError as error:
        raise ValueError(f"likelihood {shown(likelihood)}: {error}") from None
