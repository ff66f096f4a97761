"""What a trained model is worth, in nats per image.  Read after `train.py`.

All of it draws z from q(z|x).  Evaluating at z = mu reads some 9 nats too good on MNIST and bounds nothing.
"""
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .params import Array

if TYPE_CHECKING:
    from .model import VAE

_BLOCK = 500      # images at a time
_IMAGES, _ROWS = 8, 1000      # images at a time where each has many draws, and decoder rows: they fit into the caches


def draw_noise(a: SimpleNamespace, rng: np.random.Generator, kernels: Any) -> None:
    """a.eps (B, K, Z) ~ N(0, I), from uniform numbers of `rng`."""
    rng.random(out=a.uniform, dtype=np.float32)
    kernels.box_muller(a.noise, a.uniform)


def _draw(vae: "VAE", x: Array, draws: int, rng: np.random.Generator,
          labels: Array | None) -> SimpleNamespace:
    """The buffers of one pass over x (B, D) with fresh noise, not yet run."""
    a, _ = vae.passes(len(x), draws)
    a.x[...] = x
    if labels is not None:
        a.labels[...] = labels
    draw_noise(a, rng, vae.engine.kernels)
    return a


def elbo(vae: "VAE", x: Array, rng: np.random.Generator, labels: Array | None = None) -> Array:
    """log p(x) >= -nll - KL for each image (B,), one z each, the KL exact where it can be.  x (B, D), labels (B,).

    Minus its mean over images is D + R, distortion D = mean_b nll and rate R = mean_b KL  (D11.7).
    """
    bound = np.empty(len(x), vae.dtype)
    for start in range(0, len(x), _BLOCK):
        block = slice(start, start + _BLOCK)
        a = _draw(vae, x[block], 1, rng, None if labels is None else labels[block])
        vae.engine.forward(a, sampled=not vae.latent.analytic)
        bound[block] = -a.nll[:, 0] - a.kl.sum(axis=1) if vae.latent.analytic else -a.nll[:, 0] - a.log_ratio[:, 0]
    return bound


def log_likelihood(vae: "VAE", x: Array, rng: np.random.Generator, n_samples: int = 5000,
                   labels: Array | None = None) -> Array:
    """log 1/L sum_l p(x, z_l) / q(z_l|x), z_l ~ q(z|x), L = n_samples, for each image (B,) (Burda et al. 2016, eq. 8).

    Samples come in blocks of k, joined by a running log-sum-exp in float64, so memory does not depend on L:

        total <- log [ exp(total) + k exp(bound of the block) ]       (D10.7)  at first -infinity, at the end less log L
    """
    draws = min(n_samples, _ROWS // min(_IMAGES, max(1, len(x))))
    images = max(1, _ROWS // draws)
    total = np.full(len(x), -np.inf)
    with vae.engine.running():
        for start in range(0, len(x), images):
            block = slice(start, start + images)
            for done in range(0, n_samples, draws):
                k = min(draws, n_samples - done)
                a = _draw(vae, x[block], k, rng, None if labels is None else labels[block])
                vae.engine.forward(a, sampled=True)
                bound, weights = np.empty_like(a.nll[:, 0]), np.empty_like(a.nll)
                vae.kernels.importance_bound_forward(bound, weights, -(a.nll + a.log_ratio))
                total[block] = np.logaddexp(total[block], bound + np.log(k))
    return total - np.log(n_samples)


def kl_per_dimension(vae: "VAE", x: Array) -> Array:
    """The mean over images of KL(q(z_j|x) || p(z_j)), (Z,): how much each latent dimension says about x (B, D).

    Their sum is the rate: R = sum_j R_j,  R_j = mean_b kl[b, j]  (D11.8).
    """
    mu, logvar = vae.encode(x)
    kl = np.empty_like(mu)
    vae.kernels.gaussian_kl_forward(kl, mu, logvar)
    return kl.mean(axis=0, dtype=np.float64)


def active_units(vae: "VAE", x: Array) -> int:
    """Latent dimensions that say something about x (B, D)."""
    return count_active(vae.encode(x)[0])


def count_active(mu: Array, threshold: float = 0.01) -> int:
    """Latent dimensions whose mean moves from image to image: Var_x(mu_j) > threshold  (D11.6), mu (B, Z) (Burda et
    al. 2016, section 5.2)."""
    return int(np.sum(mu.var(axis=0, dtype=np.float64) > threshold))
