"""A mixture of Gaussians fitted to codes, to draw new ones from in place of the prior.  Read after `priors.py`.

A decoder has been trained where the encoder puts the data: at the aggregate posterior  q(z) = 1/N sum_n q(z|x_n).  The
prior p(z) also has mass elsewhere, and what is decoded there looks like no data.  Makhzani et al. 2016 call q(z) so;
Ghosh et al. 2020 fit such a mixture after training.

Nothing here is part of the model or of its bound: p(x) stays the one of the prior.
"""
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..params import Array
from ..validate import Rng, choice, generator, integer, matrix, shown

COVARIANCES = ("full", "diagonal")
#: the least variance of a component in any direction, as a part of the mean variance of the codes.  Without one a
#: component that shrinks to a single code has an infinite density there, and the likelihood has no maximum.
FLOOR = 1e-4
_STEPS, _GAIN = 200, 1e-3      # EM ends after so many steps, or when one gains fewer nats per code
_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of C Gaussians over codes of Z numbers.

    weights (C,), means (C, Z), covariances (C, Z, Z)
    course : the mean log density of the codes, in nats, after each step of the fit
    """

    weights: Array
    means: Array
    covariances: Array
    course: Sequence[float] = ()

    def log_density(self, z: Array) -> Array:
        """log sum_c weights_c N(z; means_c, covariances_c), (N,) for z (N, Z), in nats."""
        terms = self._terms(matrix("z", z, self.means.shape[1]))
        total: Array = np.logaddexp.reduce(terms, axis=1)
        return total

    def sample(self, n: int, rng: Rng) -> Array:
        """n codes (n, Z)."""
        n, rng = integer("n", n, 1), generator("rng", rng)
        component = rng.choice(len(self.weights), n, p=self.weights)
        z = rng.standard_normal((n, self.means.shape[1]))
        for c, L in enumerate(np.linalg.cholesky(self.covariances)):
            z[component == c] = self.means[c] + z[component == c] @ L.T
        return z

    def _terms(self, z: Array) -> Array:
        """log weights_c N(z_n; means_c, covariances_c), (N, C).

        With covariance = L L^T and y = L^-1 (z - mean):  log N = -1/2 (|y|^2 + Z log 2 pi) - sum of log diag L.
        """
        terms = np.empty((len(z), len(self.weights)))
        with np.errstate(divide="ignore"):      # log 0 is the term of a component without weight
            log_weights = np.log(self.weights)
        for c, L in enumerate(np.linalg.cholesky(self.covariances)):
            y = (z - self.means[c]) @ np.linalg.inv(L).T
            log_volume = np.log(L.diagonal()).sum() + 0.5 * len(L) * _LOG_2PI
            terms[:, c] = log_weights[c] - 0.5 * np.square(y).sum(axis=1) - log_volume
        return terms


def fit_mixture(codes: Array, components: int, rng: Rng, covariance: str = "full") -> GaussianMixture:
    """The mixture of so many Gaussians under which codes (N, Z) have the highest density that EM finds.

        E:  r_nc = w_c N(z_n; m_c, S_c) / sum_k w_k N(z_n; m_k, S_k)              n_c = sum_n r_nc
        M:  w_c = n_c / N,   m_c = 1/n_c sum_n r_nc z_n,   S_c = 1/n_c sum_n r_nc (z_n - m_c)(z_n - m_c)^T

    (Dempster, Laird and Rubin 1977; Bishop 2006, section 9.2).  Neither step lowers the likelihood.  Eigenvalues of S_c
    below `FLOOR` are raised to it: that S_c is best among those with no smaller one, so that this stays true.  `rng`
    draws the first means, far from each other (k-means++, Arthur and Vassilvitskii 2007).

    codes : of the training set; draws of z, as `vae.draw_posterior` makes them, follow q(z), means mu are too narrow
    covariance : "full", or "diagonal" for components whose axes are those of z.  On MNIST (784-400-20, 10 components,
        10,000 codes) the KL divergence of q(z|x) from the mixture is 23.6 nats a test image with full covariances, 25.3
        with diagonal ones; from N(0, I) it is 26.3

    Raises ValueError or TypeError.
    """
    diagonal, rng = choice("covariance", covariance, COVARIANCES) == "diagonal", generator("rng", rng)
    z, components = _checked(codes, integer("components", components, 1))
    nearest = np.eye(components)[_nearest(z, _seeds(z, components, rng))]
    mixture, course = _maximize(z, nearest, diagonal), list[float]()
    while len(course) < _STEPS:
        terms = mixture._terms(z)
        total = np.logaddexp.reduce(terms, axis=1)
        course.append(float(total.mean()))
        if len(course) > 1 and course[-1] - course[-2] < _GAIN:
            break
        mixture = _maximize(z, np.exp(terms - total[:, None]), diagonal)
    return GaussianMixture(mixture.weights, mixture.means, mixture.covariances, tuple(course))


def components_in(name: str) -> int:
    """C of "mixture:C".  Raises ValueError."""
    if not re.fullmatch(r"mixture:[1-9]\d{0,3}", name):
        raise ValueError(f"must be mixture:C, such as mixture:10, with C from 1 to 9999, got {shown(name)}")
    return int(name.partition(":")[2])


def mixture_of(prior: object, codes: Array | None, rng: np.random.Generator) -> GaussianMixture | None:
    """The mixture that `VAE.sample` is to draw from; None for None.  Raises ValueError or TypeError."""
    if prior is None or isinstance(prior, GaussianMixture):
        if codes is not None:
            raise ValueError('codes are what prior="mixture:10" is fitted to, and no such prior was given')
        return prior
    if not isinstance(prior, str):
        raise TypeError(f'prior must be a mixture from fit_mixture, or "mixture:10", got {shown(prior)}')
    try:
        components = components_in(prior)
    except ValueError as error:
        raise ValueError(f"prior {error}") from None
    if codes is None:
        raise ValueError(f"prior {prior} needs codes to be fitted to: codes=vae.draw_posterior(x_train, rng)")
    return fit_mixture(codes, components, rng)


def _checked(codes: Array, components: int) -> tuple[Array, int]:
    """The codes (N, Z) in double precision.  Raises ValueError or TypeError."""
    z = matrix("codes", codes, np.shape(codes)[1] if np.ndim(codes) == 2 else 0).astype(np.float64)
    if not np.isfinite(z).all():
        raise ValueError("codes must hold finite numbers")
    if len(z) < components:
        raise ValueError(f"components must be at most the number of codes, {len(z)}, got {components}")
    return z, components


def _maximize(z: Array, r: Array, diagonal: bool) -> GaussianMixture:
    """The M step, for r (N, C).  A component that no code belongs to may be anywhere: its weight is 0."""
    counts = r.sum(axis=0)
    floor = FLOOR * z.var(axis=0).mean() or 1.0      # 1: all codes are the same
    means, covariances = np.empty((len(counts), z.shape[1])), np.empty((len(counts), z.shape[1], z.shape[1]))
    for c, count in enumerate(counts):
        if count < 1e-100:
            means[c], covariances[c] = z.mean(axis=0), floor * np.eye(z.shape[1])
            continue
        means[c] = r[:, c] @ z / count
        away = z - means[c]
        found = (r[:, c, None] * away).T @ away / count
        values, axes = np.linalg.eigh(np.diag(found.diagonal()) if diagonal else found)
        covariances[c] = (axes * np.maximum(values, floor)) @ axes.T
    return GaussianMixture(counts / len(z), means, covariances)


def _seeds(z: Array, components: int, rng: np.random.Generator) -> Array:
    """Codes (C, Z) far from each other: each is drawn with a probability that grows with the squared distance to the
    nearest of those before."""
    seeds = [z[rng.integers(len(z))]]
    for _ in range(components - 1):
        squares = np.min([np.square(z - seed).sum(axis=1) for seed in seeds], axis=0)
        total = squares.sum()
        seeds.append(z[rng.choice(len(z), p=squares / total) if total else rng.integers(len(z))])
    return np.array(seeds)


def _nearest(z: Array, seeds: Array) -> Array:
    """The index of the nearest seed (N,)."""
    found: Array = np.argmin([np.square(z - seed).sum(axis=1) for seed in seeds], axis=0)
    return found
