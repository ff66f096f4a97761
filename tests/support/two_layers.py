"""Models of two stochastic layers, for their tests: one with random parameters; and the linear Gaussian one, of which
log p(x) and both posteriors are known.
"""
import math

import numpy as np

from npvae import VAE

B, D, Z, Y = 4, 7, 3, 2


def hierarchy(seed=1, upper=(8, 9), **config):
    """A float64 model with random parameters, biases included; all widths differ."""
    prior = "hierarchical:" + ",".join(map(str, [*upper, Y]))
    vae = VAE(**{"input_dim": D, "hidden": (6, 10), "latent_dim": Z, "activation": "tanh", "dtype": "float64",
                 "kernels": "numpy", "seed": seed, "prior": prior, **config})
    if vae.dtype != "complex128":
        vae.parameters.flat[...] += 0.3 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def batch(draws, seed=0, rows=B):
    rng = np.random.default_rng(seed)
    return rng.random((rows, D)), rng.standard_normal((rows, draws, Z + Y))


# --- the linear Gaussian model ---

def linear(kernels="numpy", seed=2, **config):
    """h2 ~ N(0, I),  h1 = h2 A + a + s noise,  x = h1 W + b + sigma noise, no hidden layers.

    A's columns are orthogonal or zero, so h1's components are independent, W's rows are orthogonal, and s is one number
    where A is not zero: so both posteriors have diagonal covariances, and linear encoders can hold them.
    """
    vae, rng = hierarchy(hidden=(), upper=(), likelihood="gaussian-learned", kernels=kernels, **config), (
        np.random.default_rng(seed))
    p = vae.parameters
    p.flat[...] = 0
    p["likelihood.logvar"][...] = 2 * math.log(0.4)
    p["output.W"][...] = rng.uniform(0.5, 1.5, (Z, 1)) * np.linalg.qr(rng.standard_normal((D, D)))[0][:Z]
    p["output.b"][...], p["prior_mu.b"][...] = rng.standard_normal(D), rng.standard_normal(Z)
    p["prior_mu.W"][:, :Y] = 1.3 * np.linalg.qr(rng.standard_normal((Y, Y)))[0]
    p["prior_logvar.b"][...] = [math.log(0.5)] * Y + [math.log(0.8)] * (Z - Y)
    return vae


def moments(p):
    """Mean and covariance of h1, and of x."""
    A, W = p["prior_mu.W"], p["output.W"]
    of_h1, mean = A.T @ A + np.diag(np.exp(p["prior_logvar.b"])), p["prior_mu.b"]
    return mean, of_h1, mean @ W + p["output.b"], W.T @ of_h1 @ W + np.exp(p["likelihood.logvar"]) * np.eye(D)


def set_posteriors(vae):
    """Both encoders exact: q(h1|x) = p(h1|x) and q(h2|h1) = p(h2|h1)."""
    p = vae.parameters
    A, W, s2 = p["prior_mu.W"], p["output.W"], np.exp(p["prior_logvar.b"])
    mean, of_h1, _, _ = moments(p)
    first = np.linalg.inv(np.linalg.inv(of_h1) + W @ W.T / np.exp(p["likelihood.logvar"]))
    p["mu.W"][...] = W.T @ first / np.exp(p["likelihood.logvar"])
    p["mu.b"][...] = mean @ np.linalg.inv(of_h1) @ first - p["output.b"] @ p["mu.W"]
    p["logvar.b"][...] = np.log(np.diag(first))
    second = np.linalg.inv(np.eye(Y) + (A / s2) @ A.T)
    p["mu2.W"][...] = (A / s2).T @ second
    p["mu2.b"][...] = -p["prior_mu.b"] @ p["mu2.W"]
    p["logvar2.b"][...] = np.log(np.diag(second))
    assert np.allclose(first, np.diag(np.diag(first))) and np.allclose(second, np.diag(np.diag(second)))


def exact_log_p(p, x):
    """log N(x; mean, covariance) of each row; analytic, for the complex step."""
    *_, mean, covariance = moments(p)
    distance = np.sum((x - mean) * np.linalg.solve(covariance, (x - mean).T).T, axis=1)
    return -0.5 * (distance + np.log(np.linalg.det(covariance)) + D * math.log(2 * math.pi))
