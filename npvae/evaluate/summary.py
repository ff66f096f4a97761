"""All that this room measures, at once, with errors, and whether the bounds stand in their order.  Read last.

    ELBO <= IWAE-5 <= IWAE-50 <= log p(x)         each on average over the draws (Burda et al. 2016, theorem 1)

All of them are made of the same draws, L for each image.  IWAE-K takes them K at a time, so there are L / K values of
it; log p(x) takes them all at once.  And where the KL term has a closed form, the ELBO is there twice, with it and with
log q - log p at the draws: two ways to one number.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..buffers import Activations
from ..params import Array
from ..validate import generator, integer
from . import bounds, dimensions, exact
from .bounds import LogLikelihood, Model, Progress

_SIGMAS = 4      # standard errors by which bounds may miss their order
_ROUNDING = 100      # and units in the last place of the model's precision
_BIAS = 0.05      # nats: up to here the first order has most of it (tests/evaluate/test_log_likelihood.py)


class Estimate(NamedTuple):
    """A mean over images, in nats, and its standard error from the draws of z: NaN where there are too few."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:9.2f}" + ("" if math.isnan(self.error) else f" +- {self.error:.2f}")


@dataclass(frozen=True)
class Summary:
    """What `summarize` found.  Means over B images, in nats; errors are those of drawing z.

    elbo : with the KL term in closed form, or, where it has none, with that of the draws
    sampled_elbo : with that of the draws, None where there is no other
    iwae : K -> the bound of K draws, for each K that was asked for and that fits twice into L
    log_p : `evaluate.LogLikelihood`, of each image: with the error of its draws, that of the images, and its bias
    exact : log p(x) of each image (B,), where it is known
    distortion, rate : -log p(x|z) and the KL term: elbo = -distortion - rate
    kl_per_dimension : (Z,), None where the KL term is no sum over latent dimensions
    information_per_dimension : (Z,), see `evaluate`
    rounding : what a number may be off by its precision
    """

    elbo: Estimate
    sampled_elbo: Estimate | None
    iwae: dict[int, Estimate]
    log_p: LogLikelihood
    exact: Array | None
    distortion: float
    rate: float
    active_units: int
    kl_per_dimension: Array | None
    information_per_dimension: Array
    rounding: float

    @property
    def bounds(self) -> dict[str, Estimate]:
        """By name, in the order they should stand in."""
        exact = {} if self.exact is None else {"exact log p(x)": Estimate(float(self.exact.mean()), 0.0)}
        return {"ELBO": self.elbo, **{f"IWAE-{K}": bound for K, bound in self.iwae.items()},
                "log p(x)": Estimate(self.log_p.mean, self.log_p.sampling_error), **exact}

    @property
    def reliable(self) -> bool:
        """Is log p(x) low by so little that these draws tell by how much?  Else, as for one draw, it is a lower bound,
        and no number here says how far below log p(x) it lies."""
        return self.log_p.sampling_bias >= -_BIAS

    @property
    def violations(self) -> list[str]:
        """A line for each two that stand in the wrong order by more than four standard errors; [] where all is well."""
        named = list(self.bounds.items())
        found = [f"{name} {low.value:.2f} lies above {above} {high.value:.2f}" for (name, low), (above, high)
                 in zip(named, named[1:]) if low.value - high.value > self._slack(low, high)]
        if self.sampled_elbo and abs(self.elbo.value - self.sampled_elbo.value) > self._slack(self.elbo,
                                                                                              self.sampled_elbo):
            found.append(f"ELBO {self.elbo.value:.2f} with the KL term in closed form, {self.sampled_elbo.value:.2f} "
                         "with log q - log p at the draws")
        return found

    def _slack(self, one: Estimate, other: Estimate) -> float:
        return _SIGMAS * math.hypot(one.error, other.error) + self.rounding

    def plain(self) -> dict[str, Any]:
        """All of it as JSON holds it; None for what is not there."""
        def number(value: float) -> float | None:
            return float(value) if math.isfinite(value) else None

        def pair(bound: Estimate | None) -> dict[str, float | None] | None:
            return bound and {"value": number(bound.value), "error": number(bound.error)}

        def numbers(values: Array | None) -> list[float] | None:
            return None if values is None else values.tolist()

        log_p = self.log_p
        return {"elbo": number(self.elbo.value), "elbo_error": number(self.elbo.error),
                "sampled_elbo": pair(self.sampled_elbo), "distortion": self.distortion, "rate": self.rate,
                "iwae": {str(K): pair(bound) for K, bound in self.iwae.items()}, "log_p": number(log_p.mean),
                "log_p_error": number(log_p.sampling_error), "log_p_standard_error": number(log_p.standard_error),
                "log_p_bias": number(log_p.sampling_bias), "log_p_reliable": self.reliable,
                "exact_log_p": None if self.exact is None else number(self.exact.mean()),
                "effective_samples": {"median": float(np.median(log_p.ess)), "least": float(log_p.ess.min())},
                "active_units": self.active_units, "kl_per_dimension": numbers(self.kl_per_dimension),
                "information_per_dimension": numbers(self.information_per_dimension), "violations": self.violations}

    def __str__(self) -> str:
        log_p, spread, bias = self.log_p, self.log_p.standard_error, self.log_p.sampling_bias
        low = (f"  low by about {max(0, -bias):.2f}, the bias of the logarithm of a mean" if self.reliable else
               f"  low by at least {-bias:.2f}: too few effective samples to say by how much")
        lines = [f"ELBO                     {self.elbo}     = -distortion - rate",
                 f"  distortion, -log p(x|z) {self.distortion:8.2f}",
                 f"  rate, KL(q(z|x) || p(z)) {self.rate:7.2f}",
                 *(f"IWAE bound, K = {K:<6d}   {bound}" for K, bound in self.iwae.items()),
                 f"log p(x)                 {self.bounds['log p(x)']}     {log_p.n_samples:,} importance samples",
                 *([] if self.exact is None else [f"  exact                  {self.exact.mean():9.2f}"]),
                 *([] if math.isnan(spread) else [f"  +- {spread:.2f} where these images stand for all of their kind"]),
                 *([] if math.isnan(bias) else [low]),
                 f"  effective samples      {np.median(log_p.ess):9.1f}     the median image's; {log_p.ess.min():.1f} "
                 "the least",
                 f"active units             {self.active_units:6d}        of {len(self.information_per_dimension)}",
                 " <= ".join(self.bounds) + (": holds" if not self.violations else ": VIOLATED")]
        return "\n".join([*lines, *(f"  {line}" for line in self.violations)])


class _Moments:
    """The mean of what is drawn for each image, and its standard error, from two sums over the draws."""

    def __init__(self, images: int) -> None:
        self.count, self.sum, self.squares = np.zeros((3, images))

    def add(self, images: slice, values: Array) -> None:
        """values (B, n), n more for each of these images."""
        values = values.astype(np.float64)
        self.count[images] += values.shape[1]
        self.sum[images] += values.sum(axis=1)
        self.squares[images] += np.square(values).sum(axis=1)

    def estimate(self) -> Estimate:
        mean = self.sum / self.count
        if self.count.min() < 2:
            return Estimate(float(mean.mean()), math.nan)
        variance = np.maximum(self.squares / self.count - np.square(mean), 0) / (self.count - 1)      # of the mean
        return Estimate(float(mean.mean()), math.sqrt(variance.sum()) / len(mean))


class _Groups(_Moments):
    """The same of the bound of K draws, one value for every K of them."""

    def __init__(self, vae: Model, images: int, K: int) -> None:
        super().__init__(images)
        self.vae, self.K, self.images, self.waiting = vae, K, slice(0), np.empty((0, 0))

    def add(self, images: slice, values: Array) -> None:
        """values (B, n) of log w.  What makes no group of K waits for the next pass over the same images."""
        waiting = np.concatenate([self.waiting, values], axis=1) if images == self.images else values
        whole = waiting.shape[1] // self.K * self.K
        self.images, self.waiting = images, waiting[:, whole:]
        if whole:
            bound, _ = bounds.importance_bound(self.vae, waiting[:, :whole].reshape(-1, self.K))
            super().add(images, bound.reshape(len(values), -1))


class _Bounds:
    """Looks into every pass of `evaluate.log_likelihood`."""

    def __init__(self, vae: Model, images: int, groups: Sequence[int]) -> None:
        self.vae, self.groups = vae, {K: _Groups(vae, images, K) for K in groups}
        self.nll, self.ratio, self.elbo, self.sampled = (_Moments(images) for _ in range(4))

    def __call__(self, images: slice, a: Activations) -> None:
        """a.nll, a.log_ratio (B, k), of k draws for these images."""
        log_w, ratio = -(a.nll + a.log_ratio), a.log_ratio
        if self.vae.latent.analytic:
            kl = np.empty_like(a.mu)
            self.vae.kernels.gaussian_kl_forward(kl, a.mu, a.logvar)
            ratio = np.broadcast_to(kl.sum(axis=1)[:, None], a.nll.shape)
        self.nll.add(images, a.nll)
        self.ratio.add(images, ratio)
        self.elbo.add(images, -a.nll - ratio)
        for moments in (self.sampled, *self.groups.values()):
            moments.add(images, log_w)


def summarize(vae: Model, x: Array, rng: np.random.Generator, n_samples: int = 5000, labels: Array | None = None,
              groups: Sequence[int] = (5, 50), progress: Progress = iter) -> Summary:
    """Measure a model on the images x (B, D), with n_samples draws of z for each; labels (B,) where it has classes.

    groups : each K of which the importance-weighted bound is reported, where 2 K <= n_samples
    progress : is given the first image of each block, to show how far it is

    `log_p` holds what `vae.log_likelihood` returns for the same generator.  Raises ValueError or TypeError that names
    the argument.
    """
    x, labels = bounds.checked(vae, x, labels)
    generator("rng", rng)
    n_samples = integer("n_samples", n_samples, 1)
    groups = sorted({K for K in (integer("groups", K, 2) for K in groups) if 2 * K <= n_samples})
    found = _Bounds(vae, len(x), groups)
    given = labels if vae.classes else None
    log_p = bounds.log_likelihood(vae, x, rng, n_samples, given, found, progress)
    analytic, elbo = vae.latent.analytic, found.elbo.estimate()
    iwae = {K: moments.estimate() for K, moments in found.groups.items()}
    size = max(map(abs, (elbo.value, log_p.mean, found.nll.estimate().value)))
    return Summary(
        elbo, found.sampled.estimate() if analytic else None, iwae, log_p,
        None if exact.why_not_exact(vae) else exact.exact_log_likelihood(vae, x, given),
        found.nll.estimate().value, found.ratio.estimate().value, dimensions.active_units(vae, x, given),
        dimensions.kl_per_dimension(vae, x, given) if analytic else None,
        dimensions.information_per_dimension(vae, x, given), _ROUNDING * float(np.finfo(vae.dtype).eps) * size)
