"""What `test_evaluate` lends to other tests."""
import math

import numpy as np

from npvae import VAE

SIGMA = 0.7


def linear_vae(D, Z, seed, kernels="numpy"):
    """A VAE whose exact posterior a linear encoder can hold: z ~ N(0, I), x = z W + b + sigma noise.

    p(z|x) = N(mu, S) with S = (I + W W' / sigma^2)^-1 and mu = (x - b) W' S / sigma^2 (Bishop 2006, section 12.2).
    S is made diagonal, as q is, by a W with orthogonal rows.
    """
    vae = VAE(D, (), Z, likelihood=f"gaussian:{SIGMA}", dtype="float64", kernels=kernels)
    rng, p = np.random.default_rng(seed), vae.parameters
    rows = np.linalg.qr(rng.normal(size=(D, Z)))[0].T
    W, b = rng.uniform(0.3, 2, (Z, 1)) * rows, rng.normal(size=D)
    S = 1 / (1 + (W ** 2).sum(axis=1) / SIGMA ** 2)
    p["output.W"][...], p["output.b"][...] = W, b
    p["mu.W"][...] = W.T * S / SIGMA ** 2
    p["mu.b"][...] = -b @ p["mu.W"]
    p["logvar.W"][...], p["logvar.b"][...] = 0, np.log(S)
    x = rng.normal(size=(40, Z)) @ W + b + SIGMA * rng.normal(size=(40, D))
    return vae, x


def exact(vae, x):
    """log N(x; b, W' W + sigma^2 I)."""
    W, b = vae.parameters["output.W"], vae.parameters["output.b"]
    covariance = W.T @ W + SIGMA ** 2 * np.eye(W.shape[1])
    _, logdet = np.linalg.slogdet(covariance)
    square = np.einsum("bd,de,be->b", x - b, np.linalg.inv(covariance), x - b)
    return -0.5 * (square + logdet + W.shape[1] * math.log(2 * math.pi))


def worsen(vae):
    """A posterior that is shifted and too wide."""
    vae.parameters["mu.b"][...] += 0.4
    vae.parameters["logvar.b"][...] += 0.3
