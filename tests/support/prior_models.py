"""What `test_priors` lends to other tests."""
import numpy as np
import pytest

from npvae import VAE

PRIORS = pytest.mark.parametrize("prior", ["mixture:4", "vamp:5"])
KERNELS = pytest.mark.parametrize("kernels", ["numpy", "numba"])
RNG = np.random.default_rng(17)
U = "prior.pseudo_inputs"


def model(prior, seed=0, **config):
    """In float64, with random parameters, biases included, and pseudo-inputs of all shades."""
    vae = VAE(**{"input_dim": 7, "hidden": (6, 5), "latent_dim": 3, "activation": "tanh", "dtype": "float64",
                 "kernels": "numpy", "prior": prior, "seed": seed, **config})
    vae.parameters.flat[...] += 0.5 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    if U in vae.parameters:
        vae.parameters[U][...] = np.random.default_rng(seed).normal(0, 3, vae.parameters[U].shape)
    return vae


def components(vae):
    """mean, logvar (C, Z) and pi (C,) of the prior, from its parameters."""
    p = vae.parameters
    if U in p:
        mean, logvar = vae.encode(1 / (1 + np.exp(-p[U])))
        return mean, logvar, np.full(len(mean), 1 / len(mean))
    return p["prior.mean"], p["prior.logvar"], np.exp(p["prior.logits"]) / np.exp(p["prior.logits"]).sum()
