"""Likelihoods P(x|z) of bytes: probabilities for the 256 grey levels of a pixel.  Read after `base.py`, which says
what a likelihood is; the formulas are in `kernels/reference/levels.py`.

Images are bytes, or given as x = i / 255; other numbers have probability zero, and are refused.  nll is then a cost in
nats, never negative, and comparable between these likelihoods, and with codes for images.
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

_STEPS = LEVELS - 1


class _Levels(Likelihood):
    """What the three have in common."""

    levels = LEVELS
    support = Levels()


class DiscretizedLogistic(_Levels):
    """What a logistic distribution has around each level, location and scale for every pixel from the decoder; the
    tails belong to black and white (Kingma et al. 2016; Salimans et al. 2017).  The scale is bounded below
    (`LOG_SCALE_FLOOR`)."""

    name = "discretized-logistic"
    recordable = True

    def output_dim(self, input_dim: int) -> int:
        return 2 * input_dim

    def bias_at(self, mean: Array) -> Array:
        """The decoder starts at the mean image, with a standard deviation near 1/4 throughout.  (The location is not
        the mean: what lies beyond black counts as black.)"""
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
    """A probability for each level of every pixel, by a softmax: the decoder puts out 256 numbers a pixel, which takes
    memory and time (van den Oord et al. 2016).  It is not told that neighbouring levels are alike.

    levels : how many there are, x = i / (levels - 1); 256 are those of bytes
    """

    recordable = True

    def __init__(self, levels: int = LEVELS) -> None:
        self.levels = integer("levels", levels, 2)
        self.support = Levels(self.levels)
        self.name = f"categorical:{self.levels}"

    def output_dim(self, input_dim: int) -> int:
        return self.levels * input_dim

    def bias_at(self, mean: Array) -> Array:
        """The decoder starts at the mean image: the same small probability for all levels, the more the greyer the mean
        is, and black or white beside it."""
        m, steps = mean_within(mean)[:, None], self.levels - 1
        uniform = np.minimum(m, 1 - m)
        white = (m - 0.5 * uniform) / (1 - uniform)
        ends = np.arange(self.levels) == np.array([[0], [steps]])
        p: Array = uniform / self.levels + (1 - uniform) * ((1 - white) * ends[0] + white * ends[1])
        return np.log(p).ravel()

    def _top_and_total(self, nll: Array, kept: Array, x: Array) -> Array:
        """Two arrays (B, K, D), the first numbers of `kept`: the others are left untouched, and so cost no memory."""
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
        """x ~ P(x|z) (rows, D): the first level whose cumulative probability exceeds a uniform number."""
        x = np.empty((len(output), output.shape[1] // self.levels), output.dtype)
        for row, p in self._probabilities(x, output):
            cumulative = np.cumsum(p, axis=1)
            uniform = rng.random(row.shape)[:, None] * cumulative[:, -1:]      # rounded, it may be the last
            row[...] = np.sum(cumulative[:, :-1] <= uniform, axis=1) / (self.levels - 1)
        return x

    def _probabilities(self, x: Array, output: Array) -> Iterator[tuple[Array, Array]]:
        """Row by row, which bounds the memory: of x (rows, D), to be written, and of the probabilities (D, levels)."""
        for row, scores in zip(x, output.reshape(*x.shape, self.levels)):
            p = np.exp(scores - np.max(scores, axis=1, keepdims=True))
            yield row, p / np.sum(p, axis=1, keepdims=True)


class BetaBinomial(_Levels):
    """255 tries with a probability that is itself drawn from Beta(alpha, beta), alpha and beta for every pixel from the
    decoder (Townsend et al. 2019).  Small alpha and beta make black and white likely, large ones a narrow peak."""

    name = "beta-binomial"
    recordable = True

    def output_dim(self, input_dim: int) -> int:
        return 2 * input_dim

    def bias_at(self, mean: Array) -> Array:
        """The decoder starts at the mean image, with alpha + beta = 1: black and white are likeliest."""
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
        """x ~ P(x|z) (rows, D).  Where the larger of alpha and beta is beyond exp(700) or exp(-700), near the ends of
        double precision, both are brought back by the same factor: what they are to each other counts."""
        logs = np.stack(np.split(output.real.astype(float), 2, axis=1))
        larger = logs.max(axis=0)
        alpha, beta = np.exp(np.maximum(logs - larger + np.clip(larger, -700, 700), -740))
        x: Array = rng.binomial(_STEPS, rng.beta(alpha, beta)) / _STEPS
        return x.astype(output.dtype)


def _rate(r: Array) -> Array:
    """1 / s from the second half of a discretized logistic's output."""
    rate: Array = np.exp(-(LOG_SCALE_FLOOR + softplus(r - LOG_SCALE_FLOOR)))
    return rate
