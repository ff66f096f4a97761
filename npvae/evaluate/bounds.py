"""Lower bounds on log p(x), in nats per image, from one draw of z and from many.  Read after `train/`."""
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..buffers import Activations, Gradients
from ..decoders import Decoder
from ..engine.executor import DirectExecutor, ThreadedExecutor, WholeArrayKernels
from ..latents.base import KLEstimator, Prior
from ..latents.gaussian import DiagonalGaussian
from ..likelihoods.base import Likelihood
from ..params import Array, Block
from ..validate import choice

BLOCK = 500      # rows (images, or images times draws) at a time, for a whole data set
_IMAGES, _ROWS = 8, 1000      # images at a time with many draws each, and their decoder rows, which fit into a cache
_GROUPS = 16      # groups of draws for the jackknife; more do not estimate the error better
_NUMBERS = 2**25      # decoder outputs at a time: 128 MiB in float32

Progress = Callable[[Sequence[int]], Iterable[int]]


class Model(Protocol):
    """The part of `VAE` that evaluation needs; `VAE` itself imports this module, and so cannot be imported here."""

    input_dim: int
    latent_dim: int
    classes: int
    missing: bool
    dtype: str
    kernels: ModuleType
    likelihood: Likelihood
    latent: DiagonalGaussian
    output: Decoder[Any]
    prior: Prior[Any]
    parameters: Block

    @property
    def engine(self) -> DirectExecutor | ThreadedExecutor:
        """The executor that runs the passes."""

    def passes(self, batch: int, draws: int) -> tuple[Activations, Gradients]:
        """The arrays of a pass, by batch size and draws."""

    def images(self, x: Array, name: str) -> Array:
        """x (B, D) as the model sees it."""

    def check_labels(self, labels: Array | None, n: int) -> Array:
        """labels (n,) as integers."""

    def encode(self, x: Array, labels: Array | None = None) -> tuple[Array, Array]:
        """mu, logvar (B, Z)."""

    def config(self) -> dict[str, Any]:
        """The arguments of VAE(...) that built the model."""


def rows_at_once(vae: Model, most: int) -> int:
    """Decoder rows to compute at a time: `most`, or fewer if rows are very wide (256 logits per pixel)."""
    return min(most, max(1, _NUMBERS // vae.output.shapes[vae.output.b][0]))


def draw_noise(a: Activations, rng: np.random.Generator, kernels: ModuleType | WholeArrayKernels) -> None:
    """a.eps (B, K, Z) ~ N(0, I), by Box and Muller's transform of uniform numbers from `rng`."""
    rng.random(out=a.uniform, dtype=np.float32)
    kernels.box_muller(a.noise, a.uniform)


def draw_pass(vae: Model, x: Array, draws: int, rng: np.random.Generator, labels: Array) -> Activations:
    """The arrays of a pass over x (B, D), filled with x, labels and new noise; the pass itself is left to do."""
    a, _ = vae.passes(len(x), draws)
    a.x[...], a.labels[...] = x, labels
    draw_noise(a, rng, vae.engine.kernels)
    return a


def checked(vae: Model, x: Array, labels: Array | None) -> tuple[Array, Array]:
    """x (B, D) and labels (B,) as the model sees them.  Raises ValueError or TypeError for what does not fit it."""
    choice("the model's dtype", vae.dtype, ("float32", "float64"))
    x = vae.images(x, "x")
    return x, vae.check_labels(labels, len(x))


def elbo(vae: Model, x: Array, rng: np.random.Generator, labels: Array | None = None) -> Array:
    """The ELBO -nll - KL <= log p(x) of each image (B,) from one z each, with the exact KL where there is one.

    x (B, D), labels (B,).  Minus its mean over images is D + R: distortion D = mean_b nll, rate R = mean_b KL  (D11.7).
    """
    nll, kl, _ = elbo_terms(vae, x, rng, labels)
    return -nll - kl


def elbo_terms(vae: Model, x: Array, rng: np.random.Generator, labels: Array | None = None
               ) -> tuple[Array, Array, Array]:
    """The two terms of -`elbo`, nll (B,) and KL (B,), and mu (B, Z), as `count_active` takes it, from one pass."""
    x = vae.images(x, "x")
    labels = vae.check_labels(labels, len(x))
    nll, kl = np.empty((2, len(x)), vae.dtype)
    mu, rows = np.empty((len(x), vae.latent_dim), vae.dtype), rows_at_once(vae, BLOCK)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        a = draw_pass(vae, x[block], 1, rng, labels[block])
        vae.engine.forward(a, KLEstimator.EXACT if vae.latent.analytic else KLEstimator.SAMPLED)
        nll[block], mu[block] = a.nll[:, 0], a.mu[:len(a.x)]      # further rows belong to the prior
        kl[block] = a.kl.sum(axis=1) if vae.latent.analytic else a.log_ratio[:, 0]
    return nll, kl, mu


def column_scores(vae: Model, x: Array, rng: np.random.Generator, n_samples: int = 1, labels: Array | None = None
                  ) -> Array:
    """What each column adds to the reconstruction term of its row, (B, D) in nats:  the mean of -log p(x_d|z) over
    n_samples draws  z ~ q(z|x).  0 for a missing cell, so that a row adds up to its nll, for one draw that of
    `elbo_terms`.  Raises ValueError for a likelihood that is no sum over columns."""
    if not vae.likelihood.by_column:
        raise ValueError(f"column_scores needs a likelihood that is a sum over columns, which "
                         f"{vae.likelihood.name.partition(':')[0]} is not")
    x, labels = checked(vae, x, labels)
    scores = np.zeros(x.shape)
    with vae.engine.running():
        for block, a in passes_over(vae, x, rng, n_samples, labels, BLOCK if n_samples == 1 else _ROWS):
            cells = np.empty((*a.nll.shape, vae.input_dim), vae.dtype)
            vae.likelihood.columns_forward(vae.kernels, cells, a.kept, a.output, a.filled, vae.parameters)
            scores[block] += cells.sum(axis=1, dtype=np.float64)
    return np.where(np.isnan(x), 0, scores / n_samples)


def pass_size(vae: Model, images: int, n_samples: int, most: int = _ROWS) -> tuple[int, int]:
    """How many images and how many draws a pass has, where each of `images` needs n_samples draws: some `most` rows of
    the decoder."""
    rows = rows_at_once(vae, most)
    draws = min(n_samples, max(1, rows // min(_IMAGES, images)))
    return max(1, rows // draws), draws


def passes_over(vae: Model, x: Array, rng: np.random.Generator, n_samples: int, labels: Array, most: int = _ROWS
                ) -> Iterator[tuple[slice, Activations]]:
    """Forward passes with n_samples draws in all for each image of x (B, D), a block of images after the other; and
    which images these are."""
    images, draws = pass_size(vae, len(x), n_samples, most)
    for start in range(0, len(x), images):
        block = slice(start, start + images)
        for done in range(0, n_samples, draws):
            a = draw_pass(vae, x[block], min(draws, n_samples - done), rng, labels[block])
            vae.engine.forward(a, KLEstimator.SAMPLED)
            yield block, a


@dataclass(frozen=True)
class LogLikelihood:
    """Estimates of log p(x) of B images from L importance samples each, in nats, and how reliable they are.

    values : (B,), lower bounds on log p(x) in expectation
    ess : (B,), effective sample size, 1 to L: the number of draws from p(z|x) that would be as informative (Kong 1992)
    errors : (B,), standard deviation of each value over repeated draws; NaN for L = 1
    biases : (B,), expectation of each value minus log p(x), to first order in 1/L; NaN for L = 1

    A mean over many images averages the errors out, but not the biases.  All of these are estimated from the draws:
    where a few draws carry all the weight, the bias is underestimated.
    """

    values: Array
    ess: Array
    errors: Array
    biases: Array
    n_samples: int

    @property
    def mean(self) -> float:
        """The mean over images."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean as an estimate for the distribution that the images come from.  It includes the
        Monte Carlo error.  NaN for one image."""
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    @property
    def sampling_error(self) -> float:
        """Monte Carlo error of the mean over these images: of the draws of z alone."""
        return float(np.sqrt(np.square(self.errors).sum())) / len(self.errors)

    @property
    def sampling_bias(self) -> float:
        """Bias of the mean over images: negative, apart from noise, by Jensen's inequality."""
        return float(self.biases.mean())


def log_likelihood(vae: Model, x: Array, rng: np.random.Generator, n_samples: int = 5000, labels: Array | None = None,
                   each: Callable[[slice, Activations], None] | None = None, progress: Progress = iter
                   ) -> LogLikelihood:
    """log 1/L sum_l w_l,  w_l = p(x, z_l) / q(z_l|x),  z_l ~ q(z|x),  L = n_samples, for each image (B,) (Burda et al.
    2016, eq. 8).

    Samples are drawn in blocks of k and added by a running log-sum-exp in float64, so memory does not grow with L:

        total <- log [ exp(total) + k exp(bound of the block) ]       (D10.7)

    from -infinity on; log L is subtracted at the end.  The sum of squares is computed likewise: a block adds
    (k exp(bound))^2 sum_k w~^2, with the normalised weights w~ of the kernel.  The two sums give the effective sample
    size  (sum_l w_l)^2 / sum_l w_l^2.  A total is kept for each of M = 16 groups of draws, from which `jackknife`
    computes errors and biases.

    each : called after every pass with the images (a slice) and the arrays of the pass
    progress : wraps the loop over blocks of images, to show how far it is
    """
    x, labels = checked(vae, x, labels)
    images, draws = pass_size(vae, len(x), n_samples)
    ends = [n_samples * group // min(_GROUPS, n_samples) for group in range(min(_GROUPS, n_samples) + 1)]
    totals, squares = np.full((len(ends) - 1, len(x)), -np.inf), np.full(len(x), -np.inf)
    with vae.engine.running():
        for start in progress(range(0, len(x), images)):
            block = slice(start, start + images)
            for done in range(0, n_samples, draws):
                k = min(draws, n_samples - done)
                a = draw_pass(vae, x[block], k, rng, labels[block])
                vae.engine.forward(a, KLEstimator.SAMPLED)
                log_w = -(a.nll + a.log_ratio)
                for total, first, last in zip(totals, ends, ends[1:]):
                    own = log_w[:, max(first - done, 0):max(last - done, 0)]
                    if own.size:
                        bound, weights = importance_bound(vae, np.ascontiguousarray(own))
                        log_sum = bound + np.log(own.shape[1])
                        total[block] = np.logaddexp(total[block], log_sum)
                        squares[block] = np.logaddexp(squares[block],
                                                      2 * log_sum + np.log(np.square(weights).sum(axis=1)))
                if each is not None:
                    each(block, a)
    total = np.logaddexp.reduce(totals, axis=0)
    return LogLikelihood(total - np.log(n_samples), np.exp(2 * total - squares), *jackknife(totals, np.diff(ends)),
                         n_samples)


def jackknife(totals: Array, counts: Array) -> tuple[Array, Array]:
    """Standard error and bias (B,) of  log W = log 1/L sum_l w_l  by the jackknife.  The draws are in M groups of
    counts (M,) draws; totals (M, B) are the logarithms of each group's sum of weights.

        theta_g = log of the mean weight of all draws outside group g,       theta. = 1/M sum_g theta_g

        error^2 = (M - 1) / M sum_g (theta_g - theta.)^2,        bias = (M - 1) (theta. - log W)

    (Quenouille 1956; Tukey 1958.)  The delta method, error^2 = 1 / ess - 1 / L, treats log W as linear in the weights,
    so its error never exceeds one nat.  Where one draw carries most of the weight, log W varies by much more between
    sets of draws, and leaving that draw out shows by how much.  NaN for one group.
    """
    M = len(counts)
    if M == 1:
        return np.full(totals.shape[1], np.nan), np.full(totals.shape[1], np.nan)
    without = np.stack([np.logaddexp.reduce(np.delete(totals, group, axis=0), axis=0) - np.log(counts.sum() - count)
                        for group, count in enumerate(counts)])
    errors = np.sqrt((M - 1) / M * np.square(without - without.mean(axis=0)).sum(axis=0))
    value = np.logaddexp.reduce(totals, axis=0) - np.log(counts.sum())
    return errors, (M - 1) * (without.mean(axis=0) - value)


def importance_bound(vae: Model, log_w: Array) -> tuple[Array, Array]:
    """log 1/K sum_k w (B,) and the normalised weights w~ (B, K), from log_w (B, K)."""
    bound, weights = np.empty_like(log_w[:, 0]), np.empty_like(log_w)
    vae.kernels.importance_bound_forward(bound, weights, log_w)
    return bound, weights
