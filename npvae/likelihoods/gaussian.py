"""Gaussian likelihoods of real numbers, with one sigma or one for each pixel.  Read after `bernoulli.py`."""
import math
from types import ModuleType

import numpy as np

from ..kernels.reference.likelihoods import LOGVAR_FLOOR
from ..params import Array, Block, Shapes
from ..validate import NonFiniteError, real
from .base import Likelihood, column_means
from .support import Reals


class Gaussian(Likelihood):
    """Independent Gaussian pixels with one sigma.

    Parameters
    ----------
    sigma : its value, or its initial value if it is learned (`start` sets it to the scale of the data)
    learned : logvar is the parameter `likelihood.logvar`, learned with the others (D4.4 says where it is best)

    Raises ValueError unless sigma lies between 1e-30 and 1e30, so that 1 / sigma is a float32 as well.
    """

    recordable = True
    support = Reals()

    def __init__(self, sigma: float = 0.1, learned: bool = False) -> None:
        self.sigma = real("sigma", sigma, 0, strict=True)
        if not 1e-30 <= self.sigma <= 1e30:
            raise ValueError(f"sigma must lie between 1e-30 and 1e30, got {self.sigma}")
        self.name = ("gaussian-learned" if learned else "gaussian") + f":{self.sigma!r}"
        self.shapes: Shapes = {"likelihood.logvar": (1,)} if learned else {}

    def initialize(self, params: Block) -> None:
        for name in self.shapes:
            params[name][...] = 2 * math.log(self.sigma)

    def bias_at(self, mean: Array) -> Array:
        """The mean image itself."""
        return mean

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """The mean of the data, and, if sigma is learned, their standard deviation about it: the best Gaussian without
        z."""
        super().start(params, bias, x)
        for name in self.shapes:
            params[name][...] = _log_variance(x)

    def _logvar(self, block: Block) -> Array:
        """The learned entry of `block` (parameters or gradients), or a constant array if sigma is fixed."""
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
        mean: Array = output.copy()
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        sigma = np.exp(0.5 * self._logvar(params))
        return (output + sigma * rng.standard_normal(output.shape)).astype(output.dtype)


def _log_variance(x: Array) -> float:
    """log of the mean over all observed cells of (x - mean of their column)^2; that of 0.1^2 if all of it is 0."""
    squares = np.square(x - column_means(x))
    return math.log(float(np.nansum(squares)) / max(np.isfinite(squares).sum(), 1) or 0.01)


class GaussianPixel(Likelihood):
    """Independent Gaussian pixels; the decoder gives each its own sigma, bounded below by 0.05 (`LOGVAR_FLOOR`)."""

    name = "gaussian-pixel"
    recordable = True
    support = Reals()

    def output_dim(self, input_dim: int) -> int:
        return 2 * input_dim

    def bias_at(self, mean: Array) -> Array:
        """The mean image, with a sigma near 1/4 for every pixel."""
        return np.concatenate([mean, np.full_like(mean, 2 * math.log(0.25))])

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """The mean of the data, and for every column their standard deviation about it, unless `LOGVAR_FLOOR` is larger
        (D4.5, solved for s)."""
        super().start(params, bias, x)
        above = max(_log_variance(x) - LOGVAR_FLOOR, 1e-3)
        bias[x.shape[1]:] = LOGVAR_FLOOR + above + math.log(-math.expm1(-above))

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.gaussian_pixel_nll_forward(nll, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.gaussian_pixel_nll_backward(doutput, dnll, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) is the first half of the decoder's output (rows, 2 D)."""
        mean: Array = output[:, :output.shape[1] // 2].copy()
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D), with the logvar of D4.5."""
        mean = self.mean(kernels, output)
        logvar = LOGVAR_FLOOR + np.logaddexp(0, output[:, mean.shape[1]:].real - LOGVAR_FLOOR)
        return (mean + np.exp(0.5 * logvar) * rng.standard_normal(mean.shape)).astype(output.dtype)


class GaussianOptimal(Gaussian):
    """Independent Gaussian pixels with the one sigma that is best, in closed form (sigma-VAE, Rybkin et al. 2021).

    In training, sigma^2 is the mean squared residual of the batch (`fit_batch`).  In evaluation, images must not choose
    the sigma they are measured with, nor may an image's nll depend on the rest of its batch.  So `forward` takes sigma
    from the parameter `likelihood.logvar`, which is saved with the others but moved by no gradient.
    `VAE.fit_likelihood` sets it to the best value for training images, in the same closed form.  `npvae.fit` calls that
    after each epoch; a training loop of your own must do so, too.  (A running mean over batches lags behind: over a
    hundred batches, by ten nats where training is fast.)

    Where the decoder's output equals x in every pixel there is no best sigma: nll falls without bound as sigma goes to
    0. `fit_batch` and `fit_images` then raise NonFiniteError.
    """

    fits_batch = True

    def __init__(self) -> None:
        super().__init__(learned=True)
        self.name = "gaussian-optimal"

    def fit_batch(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array) -> None:
        """nll (B, K) at the sigma that is best for all of x (B, D) together.  Raises NonFiniteError."""
        logvar = kept.ravel()[:1]
        with np.errstate(divide="ignore", invalid="ignore"):
            kernels.gaussian_optimal_nll_forward(nll, logvar, output, x)
        self._check(logvar)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        """The backward pass of `fit_batch`."""
        grads["likelihood.logvar"][...] = 0
        kernels.gaussian_optimal_nll_backward(doutput, dnll, kept.ravel()[:1], output, x)

    def fit_images(self, params: Block, x: Array, mean: Array) -> None:
        """sigma^2 = mean of (x - mean)^2.  Raises NonFiniteError."""
        with np.errstate(divide="ignore"):
            logvar = np.log(np.mean((x - mean) ** 2, dtype=float))
        self._check(logvar)
        params["likelihood.logvar"][...] = logvar

    @staticmethod
    def _check(logvar: Array) -> None:
        if logvar == -math.inf:
            raise NonFiniteError("likelihood gaussian-optimal: the decoder's output equals x in every pixel, so "
                                 "the best sigma is 0 and the loss minus infinity; gaussian:0.1 has a fixed sigma")
