"""Chapter 13, equation by equation: mixtures, the VampPrior and two stochastic layers, in both kernel modules."""
import math
from statistics import NormalDist

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE
from npvae.kernels import fused, reference
from npvae.latents import Composed
from npvae.latents.priors import Vamp
from npvae.latents.second_layer import SecondLayer
from npvae.objectives import KLEstimator

equation = pytest.mark.equation
KERNELS = (reference, fused)
RNG = np.random.default_rng(13)
MEAN, LOGVAR, LOGITS = RNG.normal(0, 1.5, (4, 3)), RNG.normal(-0.5, 0.8, (4, 3)), RNG.normal(0, 1, 4)     # C = 4, Z = 3
Z, DLOG_P = RNG.normal(0, 1.5, (2, 5, 3)), RNG.standard_normal((2, 5))                                   # B = 2, K = 5

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D13.1": (reference.mixture_forward, "np.sum(0.5 * (logvar", "np.sum(0.4 * (logvar"),
    "D13.2": (reference.mixture_forward, "- np.log(np.sum(np.exp(logits", "+ np.log(np.sum(np.exp(logits"),
    "D13.3": (Composed.forward, "kernels.subtract(a.log_ratio", "kernels.add(a.log_ratio"),
    "D13.4": (reference.mixture_forward, "shifted / total", "shifted * total"),
    "D13.5": (reference.mixture_backward, "dz[...] -= pull", "dz[...] += pull"),
    "D13.6": (reference.mixture_backward, "dmean[c] = np.sum(pull", "dmean[c] = -np.sum(pull"),
    "D13.7": (reference.mixture_backward, "- dlogits[c])", "+ dlogits[c])"),
    "D13.8": (reference.mixture_backward, "dlogits[...] -= pi", "dlogits[...] += pi"),
    "D13.9": (Vamp.rows_backward, "own.dbias, drows", "own.dbias, -drows"),
    "D13.10": (SecondLayer.forward, "kernels.subtract(v.log_p,", "kernels.add(v.log_p,")}


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def log_normal(z, mu, logvar):
    """log N(z; mu, exp(logvar))."""
    return -0.5 * (logvar + (z - mu) ** 2 / np.exp(logvar) + np.log(2 * np.pi))


def mixture(kernels, z=Z, mean=MEAN, logvar=LOGVAR, logits=LOGITS):
    """log_p (B, K), responsibilities (B, K, C), 1 / s (C, Z)."""
    dtype = np.result_type(z, mean, logvar, logits)
    log_p, weights = np.empty(z.shape[:2], dtype), np.empty((*z.shape[:2], len(mean)), dtype)
    inverse, peak = np.empty(mean.shape, dtype), np.empty(len(mean), dtype)
    kernels.mixture_forward(log_p, weights, inverse, peak, z, mean, logvar, logits)
    return log_p, weights, inverse


def joint(z):
    """p(c, z) of each component (C,) at one z (Z,), a product over its dimensions."""
    total = sum(math.exp(logit) for logit in LOGITS)
    return [math.exp(LOGITS[c]) / total * math.prod(
        NormalDist(MEAN[c, j], math.exp(LOGVAR[c, j] / 2)).pdf(z[j]) for j in range(3)) for c in range(4)]


# --- the best prior, and the KL term ---

@equation("D13.1")
def test_the_mean_kl_is_information_and_what_the_prior_lacks():
    """And every other prior costs more than the aggregate posterior."""
    mu, logvar = np.array([[-1.5], [0.2], [0.4], [2.0]]), np.array([[-1.0], [-2.0], [0.3], [-0.5]])
    z, width = np.linspace(-16, 16, 3201, retstep=True)
    log_q = log_normal(z, mu, logvar)
    for kernels in KERNELS:
        aggregate = mixture(kernels, z[None, :, None], mu, logvar, np.zeros(4))[0][0]
        information = (np.exp(log_q) * (log_q - aggregate)).sum(axis=1).mean() * width
        for mean, of_prior in ((0.0, 0.0), (0.3, 1.0), (-1.0, 0.5)):
            log_p = log_normal(z, mean, of_prior)
            apart = (np.exp(aggregate) * (aggregate - log_p)).sum() * width
            precise = math.exp(-of_prior)
            kl = 0.5 * ((mu - mean) ** 2 * precise + np.exp(logvar) * precise - 1 - logvar + of_prior)
            close(information + apart, kl.mean())
            assert apart > 0.05
        close(np.exp(aggregate).sum() * width, 1)


@equation("D13.2")
def test_a_mixture_is_a_sum_of_densities():
    for kernels in KERNELS:
        log_p = mixture(kernels)[0]
        for b, k in np.ndindex(2, 5):
            close(log_p[b, k], math.log(math.fsum(joint(Z[b, k]))))


@equation("D13.3")
def test_the_log_ratio_is_log_q_less_log_p_at_the_draw_and_kl_on_average():
    eps = np.linspace(-9, 9, 1201)
    chance = np.exp(-0.5 * eps ** 2) / np.exp(-0.5 * eps ** 2).sum()
    z, width = np.linspace(-16, 16, 3201, retstep=True)
    for name in ("numpy", "numba"):
        vae = VAE(4, (5,), 1, "tanh", dtype="float64", kernels=name, prior="mixture:3", seed=3)
        vae.parameters.flat[...] += 0.4 * np.random.default_rng(3).standard_normal(vae.parameters.flat.size)
        mean, logvar, logits = (vae.parameters[f"prior.{part}"] for part in ("mean", "logvar", "logits"))

        def log_p(z):
            return np.log(np.exp(logits) / np.exp(logits).sum() @ np.exp(log_normal(z, mean, logvar)))
        a, _ = vae.passes(2, len(eps))
        a.x[...], a.eps[...] = [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.5, 1.0]], eps[:, None]
        vae.forward(a, KLEstimator.SAMPLED)
        for b in range(2):
            log_q = log_normal(a.z[b, :, 0], a.mu[b], a.logvar[b])
            close(a.log_ratio[b], log_q - log_p(a.z[b, :, 0]), 1e-11)
            log_q = log_normal(z, a.mu[b], a.logvar[b])
            close(chance @ a.log_ratio[b], (np.exp(log_q) * (log_q - log_p(z))).sum() * width)


# --- the mixture's gradients ---

def along(which, place):
    """The derivative of log_p (B, K) by one number of z, mean, logvar or logits, by the complex step."""
    moved = [value.astype(complex) for value in (Z, MEAN, LOGVAR, LOGITS)]
    moved[which][place] += 1e-30j
    return mixture(reference, *moved)[0].imag / 1e-30


@equation("D13.4")
def test_responsibilities_by_the_rule_of_bayes_and_as_the_share_in_the_gradient():
    """A logit is in log pi_c and in the normaliser of pi, so  d log_p / d logit_c = r_c - pi_c."""
    pi = np.exp(LOGITS) / np.exp(LOGITS).sum()
    for kernels in KERNELS:
        weights = mixture(kernels)[1]
        for b, k in np.ndindex(2, 5):
            close(weights[b, k], np.array(joint(Z[b, k])) / math.fsum(joint(Z[b, k])))
        for c in range(4):
            close(weights[:, :, c], along(3, c) + pi[c])


def gradients(kernels):
    """dz, dmean, dlogvar, dlogits."""
    found = [np.empty_like(value) for value in (Z, MEAN, LOGVAR, LOGITS)]
    _, weights, inverse = mixture(kernels)
    kernels.mixture_backward(*found, DLOG_P, weights, inverse, Z, MEAN, LOGITS)
    return found


def check(which):
    for kernels in KERNELS:
        found = gradients(kernels)[which]
        for place in np.ndindex(found.shape):
            close(found[place], (DLOG_P * along(which, place)).sum())


@equation("D13.5")
def test_log_p_by_the_draw():
    check(0)


@equation("D13.6")
def test_log_p_by_the_means():
    check(1)


@equation("D13.7")
def test_log_p_by_the_log_variances():
    check(2)


@equation("D13.8")
def test_log_p_by_the_logits():
    check(3)


# --- priors that networks make ---

@equation("D13.9")
def test_the_gradient_of_pseudo_inputs():
    """Of the whole loss, with one hidden layer and with none, when only the pseudo-inputs move."""
    rng = np.random.default_rng(9)
    x, eps = rng.random((3, 4)), rng.standard_normal((3, 2, 2))
    for hidden in ((5,), ()):
        models = [VAE(4, hidden, 2, "tanh", dtype=dtype, kernels=name, prior="vamp:3", seed=1)
                  for dtype, name in (("float64", "numpy"), ("float64", "numba"), ("complex128", "numpy"))]
        v = rng.normal(0, 2, (3, 4))
        for vae in models:
            vae.parameters["prior.pseudo_inputs"][...] = v
        moving = models.pop()
        for objective in (ELBO(sampled=True), IWAE()):
            slope = np.empty_like(v)
            for place in np.ndindex(v.shape):
                moving.parameters["prior.pseudo_inputs"][place] += 1e-30j
                slope[place] = moving.loss_and_gradients(x, eps, objective)[0].imag / 1e-30
                moving.parameters["prior.pseudo_inputs"][place] = v[place]
            for vae in models:
                close(vae.loss_and_gradients(x, eps, objective)[1]["prior.pseudo_inputs"], slope)


@equation("D13.10")
def test_what_two_layers_hand_on_is_right_on_average():
    """z = z2 A + b + s noise, z2 one number: p(z) = N(b, A^T A + diag(s^2)), whatever the encoder of z2 says."""
    eps = np.linspace(-9, 9, 1201)
    chance = np.exp(-0.5 * eps ** 2) / np.exp(-0.5 * eps ** 2).sum()
    A, b, logvar = np.array([[0.9, -0.6]]), np.array([0.3, -0.2]), np.array([-0.4, 0.1])
    z = np.array([[0.0, 0.0], [1.2, -0.7], [-1.0, -1.1]])
    covariance = A.T @ A + np.diag(np.exp(logvar))
    away = z - b
    exact = -0.5 * ((away @ np.linalg.inv(covariance) * away).sum(axis=1)
                    + math.log(np.linalg.det(covariance)) + 2 * math.log(2 * math.pi))
    for name in ("numpy", "numba"):
        vae = VAE(4, (), 2, dtype="float64", kernels=name, prior="hierarchical:1")
        p = vae.parameters
        p["prior_mu.W"][...], p["prior_mu.b"][...] = A, b
        p["prior_logvar.W"][...], p["prior_logvar.b"][...] = 0, logvar
        p["mu2.W"][...], p["mu2.b"][...] = [[0.4], [-0.3]], 0.1
        p["logvar2.W"][...], p["logvar2.b"][...] = [[0.1], [0.05]], -0.3
        a, _ = vae.passes(3, len(eps))
        a.z[...], a.eps_prior[...] = z[:, None], eps[:, None]
        vae.prior.forward(vae.kernels, a, a.prior, p)
        close(np.log(np.exp(a.log_p) @ chance), exact)
        assert (a.log_p @ chance < exact - 0.01).all()      # and its logarithm lies too low
