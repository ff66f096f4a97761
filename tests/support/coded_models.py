"""Small models for tests of compression, with random weights, and images that suit them."""
import hashlib

import numpy as np

from npvae import VAE, compress
from npvae.likelihoods.support import fitting

D = 12


def model(seed=0, spread=0.1, **config):
    """A model whose weights and biases all differ from 0."""
    vae = VAE(**{"input_dim": D, "hidden": (9,), "latent_dim": 3, "kernels": "numpy", "seed": seed, **config})
    vae.parameters.flat[...] += spread * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def images(vae, n, seed=1):
    """n images (n, D) drawn from the model, in the floats that it sees."""
    x = vae.sample(n, np.random.default_rng(seed), mean=False)
    return fitting(vae.likelihood, x) if vae.likelihood.support.pixels else x      # bytes / 255 in double precision


def digests(kernels):
    """A hash of the bytes that three models compress images to."""
    found = []
    for config in ({}, {"activation": "tanh", "prior": "vamp:5"}, {"likelihood": "beta-binomial"}):
        vae = model(kernels=kernels, hidden=(300,), input_dim=90, **config)
        levels = np.random.default_rng(0).integers(0, 2 if vae.likelihood.name == "bernoulli" else 256, (40, 90))
        found.append(hashlib.sha256(compress(vae, levels.astype(np.uint8))).hexdigest())
    return found
