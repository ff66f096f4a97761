"""Models with two stochastic layers, as in the IWAE paper: a constructor, and the active units of each layer.  Read
after `latents/second_layer.py`, which is the lesson."""
from collections.abc import Sequence

import numpy as np

from ..evaluate.dimensions import ACTIVE, count_active
from ..latents.second_layer import SecondLayer
from ..likelihoods.base import Likelihood
from ..params import Array
from ..validate import Rng, generator, integer, shown, widths
from .vae import VAE


def hierarchical_vae(input_dim: int = 784, hidden: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
                     latent_dims: Sequence[int] = (100, 50), activation: str = "tanh",
                     likelihood: str | Likelihood = "bernoulli", dtype: str = "float32",
                     kernels: str = "numba", seed: int | np.random.Generator = 0) -> VAE:
    """The model with two stochastic layers of Burda, Grosse and Salakhutdinov 2016, section 5.1:

        x -> hidden[0] -> h1 (Z) -> hidden[1] -> h2 (Y)          latent_dims = (Z, Y)

    The way down has the same layers in reverse.  It is short for  VAE(..., prior="hierarchical:100,100,50"),  with the
    widths of hidden[1] and Y, and has all methods of a VAE.  They refer to the lower layer: `encode` gives q(h1|x),
    `decode` takes h1.  `sample` starts at the top.  `prior` is the upper layer; its `encode` gives q(h2|h1) and its
    `decode` p(h1|h2).  Objectives are ELBO(sampled=True) and IWAE(); noise is (B, K, Z + Y).

    Raises ValueError or TypeError that names the argument.
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str) or len(hidden) != 2:
        raise ValueError(f"hidden must be two sequences of layer widths, such as ((200, 200), (100, 100)), got "
                         f"{shown(hidden)}")
    lower, upper = widths("hidden[0]", hidden[0]), widths("hidden[1]", hidden[1])
    dims = widths("latent_dims", latent_dims)
    if len(dims) != 2:
        raise ValueError(f"latent_dims must be two widths, such as (100, 50), got {shown(latent_dims)}")
    return VAE(input_dim, lower, dims[0], activation, likelihood, dtype, kernels, seed,
               prior="hierarchical:" + ",".join(map(str, [*upper, dims[1]])))


def active_units_per_layer(vae: VAE, x: Array, rng: Rng, draws: int = 20,
                           labels: Array | None = None) -> tuple[int, int]:
    """The number of active units of h1 and of h2, those with  Var_x( E[h | x] ) > 0.01  (Burda et al. 2016, section
    5.2).

    x (B, D);  labels (B,) for a model with classes.  E[h1 | x] is the mean of q(h1|x).  E[h2 | x] is estimated: the
    mean of mu2(h1) over `draws` of h1 ~ q(h1|x).  Its variance over images would include the variance of that estimate.
    So it is estimated twice, independently, and the covariance of the two estimates over images is used.

    Raises ValueError or TypeError that names the argument.
    """
    upper = vae.prior
    if not isinstance(upper, SecondLayer):
        raise ValueError("active_units_per_layer needs a model with two stochastic layers, as from hierarchical_vae; "
                         "for one layer use active_units")
    rng = generator("rng", rng)
    integer("draws", draws, 1)
    x = vae.images(x, "x")
    mu, _ = vae.encode(x, labels)
    first, second = (np.mean([upper.encode(vae.draw_posterior(x, rng, labels), vae.parameters)[0]
                              for _ in range(draws)], axis=0, dtype=np.float64) for _ in range(2))
    covariance = ((first - first.mean(axis=0)) * second).mean(axis=0)
    return count_active(mu), int(np.sum(covariance > ACTIVE))
