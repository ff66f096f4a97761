"""What a trained model is worth, in nats per image.  Read after `train.py`.

What needs a z draws it from q(z|x).  Evaluating at z = mu reads some 9 nats too good on MNIST and bounds nothing.

    elbo, log_likelihood      bounds of log p(x), from one draw and from many
    exact_log_likelihood      log p(x) itself, where it is known
    kl_per_dimension, information_per_dimension, active_units      what each latent dimension says about x

summary.py has all of it at once.
"""
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .likelihoods import Gaussian
from .params import Array
from .validate import choice

if TYPE_CHECKING:
    from .model import VAE

_BLOCK = 500      # images at a time
_IMAGES, _ROWS = 8, 1000      # images at a time where each has many draws, and decoder rows: they fit into the caches
_GROUPS = 16      # of draws: fewer find the error less well, more see no further
_NUMBERS = 2**25      # that the decoder puts out at a time: 128 MiB in float32

Progress = Callable[[Sequence[int]], Iterable[int]]


def rows_at_once(vae: "VAE", most: int) -> int:
    """How many decoder rows to compute at a time: `most`, or fewer where each is very wide (256 levels a pixel)."""
    return min(most, max(1, _NUMBERS // vae.output.shapes[vae.output.b][0]))


def draw_noise(a: SimpleNamespace, rng: np.random.Generator, kernels: Any) -> None:
    """a.eps (B, K, Z) ~ N(0, I), from uniform numbers of `rng`."""
    rng.random(out=a.uniform, dtype=np.float32)
    kernels.box_muller(a.noise, a.uniform)


def _draw(vae: "VAE", x: Array, draws: int, rng: np.random.Generator, labels: Array) -> SimpleNamespace:
    """The buffers of one pass over x (B, D) with fresh noise, not yet run."""
    a, _ = vae.passes(len(x), draws)
    a.x[...], a.labels[...] = x, labels
    draw_noise(a, rng, vae.engine.kernels)
    return a


# ---- Bounds of log p(x)

def elbo(vae: "VAE", x: Array, rng: np.random.Generator, labels: Array | None = None) -> Array:
    """log p(x) >= -nll - KL for each image (B,), one z each, the KL exact where it can be.  x (B, D), labels (B,).

    Minus its mean over images is D + R, distortion D = mean_b nll and rate R = mean_b KL  (D11.7).
    """
    x = vae.images(x, "x")
    labels = vae.check_labels(labels, len(x))
    bound, rows = np.empty(len(x), vae.dtype), rows_at_once(vae, _BLOCK)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        a = _draw(vae, x[block], 1, rng, labels[block])
        vae.engine.forward(a, sampled=not vae.latent.analytic)
        bound[block] = -a.nll[:, 0] - a.kl.sum(axis=1) if vae.latent.analytic else -a.nll[:, 0] - a.log_ratio[:, 0]
    return bound


@dataclass(frozen=True)
class LogLikelihood:
    """log p(x) of B images from L importance samples each, in nats, and how far it can be trusted.

    values : (B,), lower bounds in expectation
    ess : (B,), the effective sample size, 1 to L: so many draws from p(z|x) itself would tell as much (Kong 1992)
    errors : (B,), the standard deviation of each value when the draws are drawn anew; NaN for L = 1
    biases : (B,), the expectation of each value less log p(x), to first order in 1/L; NaN for L = 1

    No error of the draws contains the bias: a mean over many images averages errors away, and keeps the bias.  All of
    this sees only where q(z|x) has drawn.  Where few draws carry all the weight, the bias is an underestimate.
    """

    values: Array
    ess: Array
    errors: Array
    biases: Array
    n_samples: int

    @property
    def mean(self) -> float:
        """Over images."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, where the images stand for all others of their kind: their own spread, and that of the draws
        with it.  NaN for one image."""
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    @property
    def sampling_error(self) -> float:
        """Of the mean over these very images: the Monte Carlo error, from their draws alone."""
        return float(np.sqrt(np.square(self.errors).sum())) / len(self.errors)

    @property
    def sampling_bias(self) -> float:
        """Of the mean over images; below zero but for noise, as the logarithm of a mean is too low."""
        return float(self.biases.mean())


def log_likelihood(vae: "VAE", x: Array, rng: np.random.Generator, n_samples: int = 5000, labels: Array | None = None,
                   each: Callable[[slice, SimpleNamespace], None] | None = None, progress: Progress = iter
                   ) -> LogLikelihood:
    """log 1/L sum_l w_l,  w_l = p(x, z_l) / q(z_l|x),  z_l ~ q(z|x),  L = n_samples, for each image (B,) (Burda et al.
    2016, eq. 8).

    Samples come in blocks of k, joined by a running log-sum-exp in float64, so memory does not depend on L:

        total <- log [ exp(total) + k exp(bound of the block) ]       (D10.7)  at first -infinity, at the end less log L

    and in the same way the sum of squares, of which the block's part is (k exp(bound))^2 sum_k w~^2, with the
    normalised weights w~ of the kernel.  The two sums give the effective sample size  (sum_l w_l)^2 / sum_l w_l^2.  The
    total is kept for each of M = 16 groups of draws, from which `jackknife` has the errors and biases.

    `each` is called with the images and the buffers of every pass; `progress` is given the first image of each block.
    """
    x, labels = checked(vae, x, labels)
    rows = rows_at_once(vae, _ROWS)
    draws = min(n_samples, max(1, rows // min(_IMAGES, len(x))))
    images = max(1, rows // draws)
    ends = [n_samples * group // min(_GROUPS, n_samples) for group in range(min(_GROUPS, n_samples) + 1)]
    totals, squares = np.full((len(ends) - 1, len(x)), -np.inf), np.full(len(x), -np.inf)
    with vae.engine.running():
        for start in progress(range(0, len(x), images)):
            block = slice(start, start + images)
            for done in range(0, n_samples, draws):
                k = min(draws, n_samples - done)
                a = _draw(vae, x[block], k, rng, labels[block])
                vae.engine.forward(a, sampled=True)
                log_w = -(a.nll + a.log_ratio)
                for total, first, last in zip(totals, ends, ends[1:]):
                    own = log_w[:, max(first - done, 0):max(last - done, 0)]
                    if own.size:
                        bound, weights = importance_bound(vae, np.ascontiguousarray(own))
                        log_sum = bound + np.log(own.shape[1])
                        total[block] = np.logaddexp(total[block], log_sum)
                        squares[block] = np.logaddexp(squares[block],
                                                      2 * log_sum + np.log(np.square(weights).sum(axis=1)))
                if each is not None:
                    each(block, a)
    total = np.logaddexp.reduce(totals, axis=0)
    return LogLikelihood(total - np.log(n_samples), np.exp(2 * total - squares), *jackknife(totals, np.diff(ends)),
                         n_samples)


def jackknife(totals: Array, counts: Array) -> tuple[Array, Array]:
    """Standard error and bias of  log W = log 1/L sum_l w_l, (B,) each, from the logarithms of the sums over M groups
    of draws, totals (M, B), of counts (M,) draws.

        theta_g = log of the mean over all draws but those of group g,       theta. = 1/M sum_g theta_g

        error^2 = (M - 1) / M sum_g (theta_g - theta.)^2,        bias = (M - 1) (theta. - log W)

    (Quenouille 1956; Tukey 1958.)  The delta method, error^2 = 1 / ess - 1 / L, takes log W for linear in the weights
    and stops at one nat.  Where one draw of L carries most of the weight, log W moves by far more than that from one
    set of draws to the next, and leaving that draw out shows by how much.  NaN for one group.
    """
    M = len(counts)
    if M == 1:
        return np.full(totals.shape[1], np.nan), np.full(totals.shape[1], np.nan)
    without = np.stack([np.logaddexp.reduce(np.delete(totals, group, axis=0), axis=0) - np.log(counts.sum() - count)
                        for group, count in enumerate(counts)])
    errors = np.sqrt((M - 1) / M * np.square(without - without.mean(axis=0)).sum(axis=0))
    value = np.logaddexp.reduce(totals, axis=0) - np.log(counts.sum())
    return errors, (M - 1) * (without.mean(axis=0) - value)


def importance_bound(vae: "VAE", log_w: Array) -> tuple[Array, Array]:
    """log 1/K sum_k w (B,), and the normalised weights w~ (B, K), of log_w (B, K)."""
    bound, weights = np.empty_like(log_w[:, 0]), np.empty_like(log_w)
    vae.kernels.importance_bound_forward(bound, weights, log_w)
    return bound, weights


def exact_log_likelihood(vae: "VAE", x: Array, labels: Array | None = None) -> Array:
    """log p(x) of each image (B,), nats, in float64, for the models of which it is known: prior normal, a linear
    decoder, Gaussian pixels with one sigma.  The encoder does not matter.  x (B, D).

        x = z W + b + sigma noise,  z ~ N(0, I)      so      p(x) = N(x; b, W^T W + sigma^2 I)

    (probabilistic PCA: Tipping and Bishop 1999).  With  M = I + W W^T / sigma^2  (Z, Z)  and  r = x - b  there is no
    D x D matrix to invert (Woodbury):

        log det = D log sigma^2 + log det M,      r C^-1 r^T = ( r r^T - r W^T M^-1 W r^T / sigma^2 ) / sigma^2

    Labels move b, by the rows of W that belong to them.  Raises ValueError that says what fits.
    """
    wrong = why_not_exact(vae)
    if wrong:
        raise ValueError(f"log p(x) is known in closed form for prior normal, decoder dense, decoder_hidden=() and "
                         f"likelihood gaussian alone, got {wrong}: log_likelihood fits")
    x, labels = checked(vae, x, labels)
    W, b = (vae.parameters[name].astype(np.float64) for name in (vae.output.W, vae.output.b))
    of_label, W = W[vae.latent_dim:], W[:vae.latent_dim]
    variance = math.exp(vae.likelihood._logvar(vae.parameters)[0])
    r = x - b - (of_label[labels] if vae.classes else 0)
    M = np.eye(len(W)) + W @ W.T / variance
    projected = r @ W.T
    square = ((r * r).sum(axis=1) - (projected * np.linalg.solve(M, projected.T).T).sum(axis=1) / variance) / variance
    log_det = vae.input_dim * math.log(2 * math.pi * variance) + np.linalg.slogdet(M)[1]
    return np.asarray(-0.5 * (square + log_det))


def why_not_exact(vae: "VAE") -> str:
    """What keeps log p(x) from being known; "" for nothing."""
    config = vae.config()
    for name, fits in (("prior", "normal"), ("decoder", "dense"), ("decoder_hidden", [])):
        if config.get(name, fits) != fits:
            return f"{name} {config[name]}"
    return "" if type(vae.likelihood) is Gaussian else f"likelihood {vae.likelihood.name}"


def checked(vae: "VAE", x: Array, labels: Array | None) -> tuple[Array, Array]:
    """x (B, D) and labels (B,).  Raises ValueError or TypeError for what does not fit the model."""
    choice("the model's dtype", vae.dtype, ("float32", "float64"))
    x = vae.images(x, "x")
    return x, vae.check_labels(labels, len(x))


# ---- The latent dimensions

def kl_per_dimension(vae: "VAE", x: Array, labels: Array | None = None) -> Array:
    """The mean over images of KL(q(z_j|x) || p(z_j)), (Z,): how much each latent dimension says about x (B, D).

    Their sum is the rate: R = sum_j R_j,  R_j = mean_b kl[b, j]  (D11.8).

    Raises ValueError for a model whose KL term is no such sum.
    """
    if not vae.latent.analytic:
        config = {"prior": "normal", "posterior": "gaussian", **vae.config()}
        raise ValueError("the KL term is a sum over latent dimensions for prior normal with posterior gaussian alone, "
                         f"got prior {config['prior']} with posterior {config['posterior']}: information_per_dimension "
                         "fits")
    mu, logvar = vae.encode(x, labels)
    kl = np.empty_like(mu)
    vae.kernels.gaussian_kl_forward(kl, mu, logvar)
    return kl.mean(axis=0, dtype=np.float64)


def information_per_dimension(vae: "VAE", x: Array, labels: Array | None = None) -> Array:
    """At most so many nats each latent dimension says about which of the images x (B, D) it was drawn for, (Z,).

        1/2 [ log v_j - mean_b logvar[b, j] ],      v_j = Var_b(mu[b, j]) + mean_b exp(logvar[b, j])

    That is the mean over images of KL( q(z_j|x) || N(m_j, v_j) ), with the mean and the variance of z_j over all of
    them; with their mixture in place of that Gaussian it would be the mutual information, with N(0, 1) the KL.  Of all
    Gaussians this one is the nearest (Hoffman and Johnson 2016), so

        mutual information <= this <= KL per dimension

    and no prior is in it: it is there for every model.  Of a flow it is that of z0, which the flow starts from.
    """
    mu, logvar = (values.astype(np.float64) for values in vae.encode(x, labels))
    return 0.5 * (np.log(mu.var(axis=0) + np.exp(logvar).mean(axis=0)) - logvar.mean(axis=0))


def nats_per_dimension(vae: "VAE", x: Array, labels: Array | None = None) -> Array:
    """What pictures sort latent dimensions by, (Z,): KL per dimension where there is one, else information."""
    return kl_per_dimension(vae, x, labels) if vae.latent.analytic else information_per_dimension(vae, x, labels)


def active_units(vae: "VAE", x: Array, labels: Array | None = None) -> int:
    """Latent dimensions that say something about x (B, D)."""
    return count_active(vae.encode(x, labels)[0])


def count_active(mu: Array, threshold: float = 0.01) -> int:
    """Latent dimensions whose mean moves from image to image: Var_x(mu_j) > threshold  (D11.6), mu (B, Z) (Burda et
    al. 2016, section 5.2)."""
    return int(np.sum(mu.var(axis=0, dtype=np.float64) > threshold))
