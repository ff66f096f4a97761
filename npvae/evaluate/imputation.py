"""What missing cells may hold: p(x_missing|x_observed), by self-normalised importance sampling.  Read after
`bounds.py`.

Given z, columns are independent, so the observed ones tell of the missing ones through z alone:

    p(x_missing|x_observed) = integral of p(x_missing|z) p(z|x_observed) dz

Draws z_l ~ q(z|x_observed) stand for p(z|x_observed), each with the weight  w~_l = w_l / sum_l w_l,
w_l = p(x_observed, z_l) / q(z_l|x_observed):  the weights of `log_likelihood`  (Mattei and Frellsen 2019, MIWAE).
"""
import numpy as np

from ..buffers import Activations
from ..params import Array
from .bounds import Model, checked, importance_bound, passes_over


class _Weights:
    """The logarithm of the sum of the weights (B,) of the draws so far, which come in parts."""

    def __init__(self, rows: int) -> None:
        self.total = np.full(rows, -np.inf)

    def add(self, vae: Model, block: slice, a: Activations) -> tuple[Array, Array]:
        """The weights (b, K) of the draws of a pass, normalised among themselves, and the share (b,) that they have
        together in all the weight so far."""
        bound, weights = importance_bound(vae, -(a.nll + a.log_ratio))
        log_sum = bound + np.log(weights.shape[1])
        self.total[block] = np.logaddexp(self.total[block], log_sum)
        return weights.astype(np.float64), np.exp(log_sum - self.total[block])


def posterior_mean(vae: Model, x: Array, rng: np.random.Generator, n_samples: int, labels: Array | None = None
                   ) -> Array:
    """E[x|x_observed] (B, D) of all cells, also of those that x (B, D) shows; for categories the most probable level.

        E[f(z)|x_observed] = sum_l w~_l f(z_l),      L = n_samples draws for each row         (D18.5)

    f is `Likelihood.summary` of the decoder's output, from whose mean `Likelihood.single` makes a row.  Draws come in
    parts: the mean moves towards that of a new part by the share of the weight that the part has.
    """
    x, labels = checked(vae, x, labels)
    weights, found = _Weights(len(x)), np.zeros((0, 0))
    with vae.engine.running():
        for block, a in passes_over(vae, x, rng, n_samples, labels):
            own, share = weights.add(vae, block, a)
            summary = vae.likelihood.summary(vae.kernels, a.rows, vae.parameters).reshape(*own.shape, -1)
            if not found.size:
                found = np.zeros((len(x), summary.shape[-1]))
            found[block] += share[:, None] * (np.einsum("bk,bks->bs", own, summary) - found[block])
    return vae.likelihood.single(found)


def posterior_draws(vae: Model, x: Array, rng: np.random.Generator, n_samples: int, draws: int,
                    labels: Array | None = None) -> Array:
    """z ~ p(z|x_observed) (M, B, Z), M = `draws` for each row of x (B, D), by sampling importance resampling: of
    n_samples draws from q each is chosen with probability w~ (Rubin 1987).

    Draws come in parts: what was chosen is replaced from a new part with a probability that is the share of the weight
    that the part has.  So each draw is chosen with its weight among all.
    """
    x, labels = checked(vae, x, labels)
    weights, found = _Weights(len(x)), np.empty((draws, len(x), vae.latent_dim), vae.dtype)
    with vae.engine.running():
        for block, a in passes_over(vae, x, rng, n_samples, labels):
            own, share = weights.add(vae, block, a)
            for b, cumulative in enumerate(np.cumsum(own, axis=1)):
                new = rng.random(draws) < share[b]
                at = np.searchsorted(cumulative, rng.random(draws) * cumulative[-1], side="right")
                found[new, block.start + b] = a.z[b, np.minimum(at, len(cumulative) - 1)[new]]
    return found
