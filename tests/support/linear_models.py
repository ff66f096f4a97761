"""What `test_linear_model` lends to other tests."""
import math

import numpy as np
import pytest

from npvae import VAE

NAMES = pytest.mark.parametrize("kernels", ["numpy", "numba"])
D, Z, SIGMA = 5, 2, 0.4


def linear_vae(kernels, seed, likelihood=f"gaussian:{SIGMA}"):
    """x = z W + b + sigma noise, no hidden layers, W's rows orthogonal, so that the posterior has a diagonal
    covariance and the encoder can hold it."""
    vae, rng = VAE(D, (), Z, likelihood=likelihood, dtype="float64", kernels=kernels), np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((D, D)))[0][:Z]
    vae.parameters["output.W"][...] = rng.uniform(0.5, 1.5, (Z, 1)) * directions
    vae.parameters["output.b"][...] = rng.standard_normal(D)
    return vae


def set_posterior(vae, sigma=SIGMA):
    """The encoder that is exact: p(z|x) = N((x - b) W^T C / s^2, C),  C = (I + W W^T / s^2)^-1."""
    W, b = vae.parameters["output.W"], vae.parameters["output.b"]
    covariance = np.linalg.inv(np.eye(Z) + W @ W.T / sigma ** 2)
    vae.parameters["mu.W"][...] = W.T @ covariance / sigma ** 2
    vae.parameters["mu.b"][...] = -b @ vae.parameters["mu.W"]
    vae.parameters["logvar.W"][...] = 0
    vae.parameters["logvar.b"][...] = np.log(np.diag(covariance))


def exact_log_p(vae, x, sigma=SIGMA):
    """log N(x; b, W^T W + s^2 I) of each row."""
    W, residual = vae.parameters["output.W"], x - vae.parameters["output.b"]
    covariance = W.T @ W + sigma ** 2 * np.eye(D)
    distance = np.sum(residual * np.linalg.solve(covariance, residual.T).T, axis=1)
    return -0.5 * (distance + np.linalg.slogdet(covariance)[1] + D * math.log(2 * math.pi))


def sigma_points(images):
    """Noise (B, 2 Z, Z), +- sqrt(Z) along each axis: mean 0 and covariance I, so averages over these draws are exact
    expectations of anything quadratic in eps, as everything in this model is."""
    points = math.sqrt(Z) * np.concatenate([np.eye(Z), -np.eye(Z)])
    return np.tile(points, (images, 1, 1))


def at_the_optimum(kernels, seed):
    """A data set, and the linear VAE of greatest likelihood for it: W spans the first Z principal directions, sigma^2
    is the mean variance of the others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, D)) * [3, 2, 0.7, 0.5, 0.4] @ np.linalg.qr(rng.standard_normal((D, D)))[0]
    x += rng.standard_normal(D)
    variance, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    sigma = math.sqrt(variance[:-Z].mean())
    vae = VAE(D, (), Z, likelihood=f"gaussian-learned:{sigma!r}", dtype="float64", kernels=kernels)
    vae.parameters["output.W"][...] = np.sqrt(variance[-Z:, None] - sigma ** 2) * directions[:, -Z:].T
    vae.parameters["output.b"][...] = x.mean(axis=0)
    set_posterior(vae, sigma)
    return vae, x, sigma
