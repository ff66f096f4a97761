"""What `test_identities` lends to other tests."""
import math

import numpy as np

from npvae.params import Block


def close_to(draws, expected, what):
    """The mean of `draws` over axis 0 is `expected`, within five standard errors."""
    error = np.abs(draws.mean(axis=0) - expected)
    allowed = 5 * draws.std(axis=0) / math.sqrt(len(draws)) + 1e-12
    assert (error <= allowed).all(), f"{what}: off by {(error / allowed).max() * 5:.1f} standard errors"


def nll_of(kernels, likelihood, output, x):
    """-log p(x|z) of each row of x (N, D), the decoder saying output (P,) for all of them."""
    nll, kept = np.empty((len(x), 1)), np.empty((len(x), 1, len(output)))
    params = Block(likelihood.shapes, "float64")
    likelihood.initialize(params)
    likelihood.forward(kernels, nll, kept, np.tile(output, (len(x), 1, 1)), x, params)
    return nll[:, 0]
