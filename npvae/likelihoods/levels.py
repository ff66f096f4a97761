"""Likelihoods P(x|z) of bytes: probabilities of the 256 grey levels of a pixel.  Read after `bernoulli.py`; the
formulas are in `kernels/reference/levels.py`.

Images are bytes, or floats x = i / 255; other numbers have probability zero and raise ValueError.  So nll, in nats, is
never negative, and can be compared between these likelihoods and with the lengths of lossless codes.
"""
import math
from collections.abc import Iterator
from types import ModuleType

import numpy as np

from ..kernels import reference
from ..kernels.reference.dense import softplus
from ..kernels.reference.levels import LEVELS, LOG_SCALE_FLOOR
from ..params import Array, Block
from ..validate import integer
from .base import Likelihood, mean_within, solve
from .support import Levels

_STEPS = LEVELS - 1      # from black to white


class _Levels(Likelihood):
    """Defaults of the three likelihoods below."""

    levels = LEVELS
    support = Levels()


class DiscretizedLogistic(_Levels):
    """The probability of an interval around each level under a logistic distribution; black and white also get the
    tails.  The decoder gives the location and the scale of every pixel, the scale bounded below by `LOG_SCALE_FLOOR`
    (Kingma et al. 2016; Salimans et al. 2017)."""

    name = "discretized-logistic"
    recordable = True

    def output_dim(self, input_dim: int) -> int:
        return 2 * input_dim

    def bias_at(self, mean: Array) -> Array:
        """Locations at which E[x] is the mean image, with a standard deviation near 1/4 for every pixel.  (The location
        is not the mean, since all below black counts as black.)"""
        r = math.log(0.25 * math.sqrt(3) / math.pi)

        def with_scale(location: Array) -> Array:
            return np.concatenate([location, np.full(mean.shape, r)])
        return with_scale(solve(lambda location: self.mean(reference, with_scale(location)[None])[0],
                                mean_within(mean), -1, 2))

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.discretized_logistic_nll_forward(nll, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.discretized_logistic_nll_backward(doutput, dnll, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, 2 D):  1/255 sum_{i = 1}^{255} P(level >= i)."""
        location, r = np.split(output, 2, axis=1)
        edges = ((np.arange(_STEPS)[:, None] + 0.5) / _STEPS).astype(output.dtype)      # between levels
        mean, chances = np.empty_like(location), np.empty((_STEPS, location.shape[1]), output.dtype)
        for row, m, rate in zip(mean, location, _rate(r)):
            kernels.sigmoid_forward(chances, (m - edges) * rate, np.zeros(len(m), output.dtype))
            row[...] = chances.mean(axis=0)
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D): a draw from the logistic distribution, at the nearest level."""
        location, r = np.split(output, 2, axis=1)
        x = location + rng.logistic(size=location.shape) / _rate(r)
        return (np.clip(np.rint(_STEPS * x), 0, _STEPS) / _STEPS).astype(output.dtype)


class Categorical(_Levels):
    """A probability for each level of every pixel, by a softmax (van den Oord et al. 2016).  The decoder has 256
    outputs for each pixel, which takes memory and time; it does not know that neighbouring levels are similar.

    Parameters
    ----------
    levels : how many there are, x = i / (levels - 1); 256 for bytes
    """

    recordable = True
    adjacent = True

    def __init__(self, levels: int = LEVELS) -> None:
        self.levels = integer("levels", levels, 2)
        self.support = Levels(self.levels)
        self.name = f"categorical:{self.levels}"

    def output_dim(self, input_dim: int) -> int:
        return self.levels * input_dim

    def bias_at(self, mean: Array) -> Array:
        """Logits at which E[x] is the mean image: a uniform distribution over all levels, of more weight the greyer the
        mean is, mixed with black and white."""
        m, steps = mean_within(mean)[:, None], self.levels - 1
        uniform = np.minimum(m, 1 - m)
        white = (m - 0.5 * uniform) / (1 - uniform)
        ends = np.arange(self.levels) == np.array([[0], [steps]])
        p: Array = uniform / self.levels + (1 - uniform) * ((1 - white) * ends[0] + white * ends[1])
        return np.log(p).ravel()

    def _top_and_total(self, nll: Array, kept: Array, x: Array) -> Array:
        """The first numbers of `kept`, as two arrays (B, K, D).  The rest of it is never touched, and so takes no
        memory."""
        return kept.ravel()[:2 * nll.size * x.shape[1]].reshape(2, *nll.shape, x.shape[1])

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.categorical_nll_forward(nll, *self._top_and_total(nll, kept, x), output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.categorical_nll_backward(doutput, dnll, *self._top_and_total(dnll, kept, x), output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, levels D):  sum_i p_i i / (levels - 1)."""
        mean = np.empty((len(output), output.shape[1] // self.levels), output.dtype)
        for row, p in self._probabilities(mean, output):
            row[...] = p @ np.arange(self.levels) / (self.levels - 1)
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D): the first level whose cumulative probability exceeds a uniform random number."""
        x = np.empty((len(output), output.shape[1] // self.levels), output.dtype)
        for row, p in self._probabilities(x, output):
            cumulative = np.cumsum(p, axis=1)
            uniform = rng.random(row.shape)[:, None] * cumulative[:, -1:]      # whose last entry is 1 up to rounding
            row[...] = np.sum(cumulative[:, :-1] <= uniform, axis=1) / (self.levels - 1)
        return x

    def _probabilities(self, x: Array, output: Array) -> Iterator[tuple[Array, Array]]:
        """For each row, so that memory stays small: that row of x (rows, D), to be written, and the probabilities (D,
        levels)."""
        for row, scores in zip(x, output.reshape(*x.shape, self.levels)):
            p = np.exp(scores - np.max(scores, axis=1, keepdims=True))
            yield row, p / np.sum(p, axis=1, keepdims=True)


class BetaBinomial(_Levels):
    """255 trials with a success probability drawn from Beta(alpha, beta); the decoder gives alpha and beta of every
    pixel.  Small alpha and beta make black and white likely, large ones a narrow peak (Townsend et al. 2019)."""

    name = "beta-binomial"
    recordable = True

    def output_dim(self, input_dim: int) -> int:
        return 2 * input_dim

    def bias_at(self, mean: Array) -> Array:
        """log alpha and log beta at which E[x] is the mean image and alpha + beta = 1: black and white are most likely.
        """
        m = mean_within(mean)
        return np.concatenate([np.log(m), np.log(1 - m)])

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.beta_binomial_nll_forward(nll, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.beta_binomial_nll_backward(doutput, dnll, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, 2 D):  alpha / (alpha + beta)."""
        log_alpha, log_beta = np.split(output, 2, axis=1)
        mean = np.empty_like(log_alpha)
        kernels.sigmoid_forward(mean, log_alpha - log_beta, np.zeros(mean.shape[1], mean.dtype))
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D).  Where the larger of alpha and beta lies beyond exp(700) or exp(-700), near the limits
        of double precision, both are scaled by one factor, which keeps their ratio."""
        logs = np.stack(np.split(output.real.astype(float), 2, axis=1))
        larger = logs.max(axis=0)
        alpha, beta = np.exp(np.maximum(logs - larger + np.clip(larger, -700, 700), -740))
        x: Array = rng.binomial(_STEPS, rng.beta(alpha, beta)) / _STEPS
        return x.astype(output.dtype)


def _rate(r: Array) -> Array:
    """1 / s, from the second half of the output of a discretized logistic."""
    rate: Array = np.exp(-(LOG_SCALE_FLOOR + softplus(r - LOG_SCALE_FLOOR)))
    return rate
