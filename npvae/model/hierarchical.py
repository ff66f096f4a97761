"""Two stochastic layers, as in the IWAE paper: a constructor, and what is counted per layer.  Read after
`latents/second_layer.py`, which is the lesson.
"""
from collections.abc import Sequence

import numpy as np

from ..evaluate.dimensions import count_active
from ..latents.second_layer import SecondLayer
from ..likelihoods.base import Likelihood
from ..params import Array
from ..validate import generator, integer, shown, widths
from .vae import VAE


def hierarchical_vae(input_dim: int = 784, hidden: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
                     latent_dims: Sequence[int] = (100, 50), activation: str = "tanh",
                     likelihood: str | Likelihood = "bernoulli", dtype: str = "float32",
                     kernels: str = "numba", seed: int | np.random.Generator = 0) -> VAE:
    """The model of two stochastic layers of Burda, Grosse and Salakhutdinov 2016, section 5.1:

        x -> hidden[0] -> h1 (Z) -> hidden[1] -> h2 (Y)          latent_dims = (Z, Y); the way down mirrors the way up

    It is  VAE(input_dim, hidden[0], Z, activation, ..., prior="hierarchical:100,100,50"), with the widths of hidden[1]
    and Y, and does all that a VAE does; `VAE.load` reads it.  Of the two layers the lower one is what its methods speak
    of: `encode` gives q(h1|x), `decode` takes h1, and `sample` starts at the top.  `prior` is the upper one,
    whose own `encode` gives q(h2|h1) and `decode` p(h1|h2).  Objectives are ELBO(sampled=True) and IWAE(), noise is
    (B, K, Z + Y).

    Raises ValueError or TypeError that names the argument.
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str) or len(hidden) != 2:
        raise ValueError(f"hidden must be two sequences of layer widths, as ((200, 200), (100, 100)), got "
                         f"{shown(hidden)}")
    lower, upper = widths("hidden[0]", hidden[0]), widths("hidden[1]", hidden[1])
    dims = widths("latent_dims", latent_dims)
    if len(dims) != 2:
        raise ValueError(f"latent_dims must be two widths, as (100, 50), got {shown(latent_dims)}")
    return VAE(input_dim, lower, dims[0], activation, likelihood, dtype, kernels, seed,
               prior="hierarchical:" + ",".join(map(str, [*upper, dims[1]])))


def active_units_per_layer(vae: VAE, x: Array, rng: np.random.Generator, draws: int = 20,
                           labels: Array | None = None) -> tuple[int, int]:
    """How many units of h1 and of h2 are active: those with  Var_x( E[h | x] ) > 0.01,  x (B, D)  (Burda et al. 2016,
    section 5.2).

    Of h1 the mean is q(h1|x)'s own.  Of h2 it is E mu2(h1), h1 ~ q(h1|x), an average over `draws`, whose error would
    count as variance.  So it is taken twice, `draws` times each, and the covariance of the two over images, in which
    errors do not add up, takes the variance's place.

    Raises ValueError or TypeError.
    """
    upper = vae.prior
    if not isinstance(upper, SecondLayer):
        raise ValueError("active_units_per_layer needs a model of two layers, as hierarchical_vae makes it; for one "
                         "layer there is active_units")
    generator("rng", rng)
    integer("draws", draws, 1)
    x = vae.images(x, "x")
    mu, _ = vae.encode(x, labels)
    first, second = (np.mean([upper.encode(vae.draw_posterior(x, rng, labels), vae.parameters)[0]
                              for _ in range(draws)], axis=0, dtype=np.float64) for _ in range(2))
    covariance = ((first - first.mean(axis=0)) * second).mean(axis=0)
    return count_active(mu), int(np.sum(covariance > 0.01))
