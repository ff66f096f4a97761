"""All measures of `evaluate` at once, with standard errors, and a check that the bounds are ordered.  Read last.

    ELBO <= IWAE-5 <= IWAE-50 <= log p(x)         each in expectation over the draws (Burda et al. 2016, theorem 1)

All are computed from the same L draws of z per image.  IWAE-K uses them K at a time, which gives L / K values of it;
log p(x) uses them all at once.  Where the KL term has a closed form, the ELBO is computed twice, with the closed form
and with log q - log p at the draws: the two must agree.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..buffers import Activations
from ..params import Array
from ..validate import Rng, generator, integer
from . import bounds, dimensions, exact
from .bounds import LogLikelihood, Model, Progress

_SIGMAS = 4      # standard errors by which two bounds may be out of order,
_ROUNDING = 100      # plus so many units in the last place of the model's precision
_BIAS = 0.05      # nats: smaller biases are estimated well (tests/evaluate/test_log_likelihood.py)


class Estimate(NamedTuple):
    """A mean over images, in nats, and its Monte Carlo error from the draws of z: NaN if there are too few."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:9.2f}" + ("" if math.isnan(self.error) else f" +- {self.error:.2f}")


@dataclass(frozen=True)
class Summary:
    """The result of `summarize`.  Means over B images, in nats; errors are Monte Carlo errors, from the draws of z.

    elbo : with the KL term in closed form, or sampled if it has none
    sampled_elbo : with the KL term sampled; None if `elbo` is that already
    iwae : K -> the importance-weighted bound of K draws, for each K requested with 2 K <= L
    log_p : log p(x) of each image, with errors and biases
    exact : log p(x) of each image (B,) in closed form, or None
    distortion, rate : -log p(x|z) and the KL term: elbo = -distortion - rate
    kl_per_dimension : (Z,); None if the KL term is not a sum over latent dimensions
    information_per_dimension : (Z,)
    rounding : the rounding error to allow for when bounds are compared
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
        """The bounds by name, in ascending order if all is well."""
        exact = {} if self.exact is None else {"exact log p(x)": Estimate(float(self.exact.mean()), 0.0)}
        return {"ELBO": self.elbo, **{f"IWAE-{K}": bound for K, bound in self.iwae.items()},
                "log p(x)": Estimate(self.log_p.mean, self.log_p.sampling_error), **exact}

    @property
    def reliable(self) -> bool:
        """Is the bias of log p(x) so small that its estimate can be trusted?  If not, or with one draw, log p(x) is a
        lower bound at an unknown distance."""
        return self.log_p.sampling_bias >= -_BIAS

    @property
    def violations(self) -> list[str]:
        """A line for each two bounds that are out of order by more than four standard errors; [] if all is well."""
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
        """The whole summary as JSON can hold it, None for NaN and for what is missing."""
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
                 *([] if math.isnan(spread) else [f"  +- {spread:.2f} as an estimate for all images of this kind"]),
                 *([] if math.isnan(bias) else [low]),
                 f"  effective samples      {np.median(log_p.ess):9.1f}     in the median image; {log_p.ess.min():.1f} "
                 "at least",
                 f"active units             {self.active_units:6d}        of {len(self.information_per_dimension)}",
                 " <= ".join(self.bounds) + (": holds" if not self.violations else ": VIOLATED")]
        return "\n".join([*lines, *(f"  {line}" for line in self.violations)])


class _Moments:
    """Mean and standard error of a quantity with several draws for each image, from running sums."""

    def __init__(self, images: int) -> None:
        self.count, self.sum, self.squares = np.zeros((3, images))

    def add(self, images: slice, values: Array) -> None:
        """Add n more values for each of these images, values (B, n)."""
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
    """The same for the importance-weighted bound, which has one value for every K draws."""

    def __init__(self, vae: Model, images: int, K: int) -> None:
        super().__init__(images)
        self.vae, self.K, self.images, self.waiting = vae, K, slice(0), np.empty((0, 0))

    def add(self, images: slice, values: Array) -> None:
        """Add n log weights, values (B, n).  Those left over wait for the next pass over the same images."""
        waiting = np.concatenate([self.waiting, values], axis=1) if images == self.images else values
        whole = waiting.shape[1] // self.K * self.K
        self.images, self.waiting = images, waiting[:, whole:]
        if whole:
            bound, _ = bounds.importance_bound(self.vae, waiting[:, :whole].reshape(-1, self.K))
            super().add(images, bound.reshape(len(values), -1))


class _Bounds:
    """Collects the terms of all bounds from the passes of `log_likelihood`, which calls it after each."""

    def __init__(self, vae: Model, images: int, groups: Sequence[int]) -> None:
        self.vae, self.groups = vae, {K: _Groups(vae, images, K) for K in groups}
        self.nll, self.ratio, self.elbo, self.sampled = (_Moments(images) for _ in range(4))

    def __call__(self, images: slice, a: Activations) -> None:
        """Add a.nll and a.log_ratio (B, k): k draws for each of these images."""
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


def summarize(vae: Model, x: Array, rng: Rng, n_samples: int = 5000, labels: Array | None = None,
              groups: Sequence[int] = (5, 50), progress: Progress = iter) -> Summary:
    """Measure a model on the images x (B, D), with n_samples draws of z for each; labels (B,) if it has classes.

    groups : each K for which to report the importance-weighted bound; left out where 2 K > n_samples
    progress : wraps the loop over blocks of images, to show how far it is

    `log_p.values` is what `vae.log_likelihood` returns for the same generator.  Raises ValueError or TypeError, which
    names the argument.
    """
    x, labels = bounds.checked(vae, x, labels)
    rng = generator("rng", rng)
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
