"""The latent variable z: q(z|x), p(z), the draw, and the KL term between them.  Read after `likelihoods/`.

    gaussian       q(z|x) = N(mu, sigma^2) and p(z) = N(0, I): reparameterization, and the KL term in closed form
    base           the classes of priors and flows, to be subclassed
    composed       any flow with any prior; the KL term is computed at the draws
    flows          richer q(z|x): planar and inverse autoregressive flows
    priors         richer p(z): a mixture of Gaussians, the VampPrior
    aggregate      a mixture of Gaussians fitted to codes after training, to draw from in place of p(z)
    second_layer   a prior that is a VAE itself: two stochastic layers
"""
from .aggregate import GaussianMixture, fit_mixture
from .composed import Composed, compose
from .gaussian import DiagonalGaussian

#: no longer used here, but earlier versions had it: the values of `gradient` that leave the score out
ESTIMATORS = ("stl", "dreg")

__all__ = [
    "GaussianMixture", "fit_mixture", "Composed", "compose", "DiagonalGaussian"]
