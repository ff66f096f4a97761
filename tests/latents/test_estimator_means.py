"""STL and DReG on average: their means are those of the plain gradient, by quadrature exactly and by drawing; and where
the posterior is exact, nothing is left that could vary.  The checks are themselves tested, with broken estimators.
"""
import math
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import ELBO, IWAE
from npvae.kernels import fused, reference
from estimator_models import LATENT, MODULES, gradient, models, noise, of_q
from linear_models import at_the_optimum, sigma_points


# --- by quadrature ---

class Weighted(IWAE):
    """Each row counts as it is told to: it is one node of a quadrature."""

    def __init__(self, beta, way, counts):
        super().__init__(beta, way)
        self.counts = len(counts) * counts[:, None]

    def __call__(self, nll, reg, step):
        loss, dnll, dreg = super().__call__(nll, reg, step)
        return loss, self.counts * dnll, self.counts * dreg


def mean_gradient(vae, draws, beta, way, kernels=reference, nodes=60):
    """E over the noise of the gradient for one image, one latent dimension, by Gauss and Hermite's rule in each draw.
    Noise of the prior's own is the same throughout: the means agree for any."""
    points, counts = np.polynomial.hermite_e.hermegauss(nodes)
    eps = np.stack(np.meshgrid(*[points] * draws), axis=-1).reshape(-1, draws, 1)
    counts = np.prod(np.meshgrid(*[counts / counts.sum()] * draws), axis=0).ravel()
    of_prior = np.random.default_rng(6).standard_normal((1, draws, vae.noise_dim - 1))
    eps = np.concatenate([eps, np.repeat(of_prior, len(eps), axis=0)], axis=-1)
    x = np.tile(np.random.default_rng(5).random((1, vae.input_dim)), (len(eps), 1))
    return gradient(vae, x, eps, Weighted(beta, way, counts), kernels)[1]


def narrow(latent="plain"):
    """A model with one latent dimension whose q(z|x) is near the posterior: the weights then vary as smoothly with the
    noise as the rule needs to be exact."""
    vae, _ = models(latent, Z=1)
    vae.parameters.flat[...] *= 0.3
    return vae


def check_means(vae, draws, beta, way, kernels=reference):
    """The means are equal: to 1e-10, relative to the norm of each tensor."""
    total, other = mean_gradient(vae, draws, beta, "total"), mean_gradient(vae, draws, beta, way, kernels)
    for name, value in total.items():
        error = np.linalg.norm(other[name] - value) / np.linalg.norm(value)
        assert error <= 1e-10, f"{name}: the means differ by {error:.1e}"


@pytest.mark.every(3)
@MODULES
@LATENT
@pytest.mark.parametrize("way, draws, beta", [("stl", 1, 1.0), ("stl", 1, 0.6), ("dreg", 1, 1.4), ("dreg", 2, 1.0),
                                              ("dreg", 2, 0.6), ("dreg", 2, 1.4)])
def test_the_mean_is_that_of_the_plain_gradient(kernels, latent, way, draws, beta):
    check_means(narrow(latent), draws, beta, way, kernels)


def broken(**kernels):
    """The kernels, some of them otherwise."""
    return SimpleNamespace(**{**{name: getattr(reference, name) for name in reference.__all__}, **kernels})


def without_weights(out, dz, dnll, dlog_ratio):
    out[...] = dz


def weights_twice(out, dz, dnll, dlog_ratio):
    reference.scale_draws(out, dz, dnll, dlog_ratio)
    reference.scale_draws(out, out.copy(), dnll, dlog_ratio)


def without_beta(out, dz, dnll, dlog_ratio):
    reference.scale_draws(out, dz, dnll, dnll)


def beta_alone(out, dz, dnll, dlog_ratio):
    out[...] = dz * (dlog_ratio / dnll.sum(axis=1, keepdims=True))[:, :, None]


def weights_of_the_mean(out, dz, dnll, dlog_ratio):
    reference.scale_draws(out, dz, dnll / dnll.shape[1], dlog_ratio)


def wrong_sign(dz, dlog_ratio, z, logvar, eps):
    reference.path_ratio_backward(dz, dlog_ratio, z, logvar, -eps)


def without_density(dz, dlog_ratio, z, logvar, eps):
    reference.path_ratio_backward(dz, dlog_ratio, z, logvar, 0 * eps)


def times_sigma(dz, dlog_ratio, z, logvar, eps):
    reference.path_ratio_backward(dz, dlog_ratio, z, -logvar, eps)


def wrong_sign_of_q(dz, dlog_q, logvar, eps):
    reference.path_q_backward(dz, -dlog_q, logvar, eps)


BROKEN = {kernel.__name__: (replaced, kernel, draws, latent) for replaced, draws, latent, kernels in (
    ("scale_draws", 2, "plain", (without_weights, weights_twice, without_beta, beta_alone, weights_of_the_mean)),
    ("path_ratio_backward", 1, "plain", (wrong_sign, without_density, times_sigma)),
    ("path_q_backward", 1, "mixture", (wrong_sign_of_q,))) for kernel in kernels}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_estimator_is_found(name):
    replaced, kernel, draws, latent = BROKEN[name]
    vae = narrow(latent)
    check_means(vae, draws, 0.6, "dreg", broken())
    with pytest.raises(AssertionError, match="the means differ"):
        check_means(vae, draws, 0.6, "dreg", broken(**{replaced: kernel}))


def test_stl_is_biased_on_the_bound_of_several_draws():
    """Tucker et al. 2019: the mean of a weighted score is not zero.  Here it is as large as the gradient."""
    vae = narrow()
    total, other = mean_gradient(vae, 2, 1.0, "total"), mean_gradient(vae, 2, 1.0, "stl")
    for name, value in total.items():
        error = np.linalg.norm(other[name] - value) / np.linalg.norm(value)
        assert error > 0.1 if of_q(name) else error == 0, (name, error)


# --- by drawing ---

def check_by_drawing(vae, objective, kernels=reference, repeats=600):
    """Under the same noise, the difference to the plain gradient is zero on average, within four standard errors, in
    every entry of every tensor of q."""
    plain = IWAE(objective.beta) if isinstance(objective, IWAE) else ELBO(objective.beta, sampled=True)
    rng, (x, _) = np.random.default_rng(1), noise(vae, 2, 1)
    found = {name: np.empty((repeats, value.size)) for name, value in vae.parameters.items() if of_q(name)}
    for row in range(repeats):
        eps = rng.standard_normal((2, 4, 3))
        one, other = gradient(vae, x, eps, objective, kernels)[1], gradient(vae, x, eps, plain)[1]
        for name in found:
            found[name][row] = (one[name] - other[name]).ravel()
    for name, difference in found.items():
        off = np.abs(difference.mean(axis=0)) / (difference.std(axis=0) / math.sqrt(repeats))
        assert (off <= 4).all(), f"{name}: the mean is off by {off.max():.1f} standard errors"


DRAWN = {"stl": ELBO(sampled=True, gradient="stl"), "stl beta": ELBO(0.6, True, "stl"), "dreg": IWAE(gradient="dreg"),
         "dreg beta": IWAE(0.6, "dreg")}


@pytest.mark.every(2)
@pytest.mark.parametrize("objective", DRAWN)
def test_the_mean_over_draws_is_that_of_the_plain_gradient(objective):
    check_by_drawing(models()[0], DRAWN[objective])


@pytest.mark.every(3)
@pytest.mark.parametrize("objective, kernels", [
    (IWAE(gradient="stl"), {}), (IWAE(gradient="dreg"), {"scale_draws": weights_twice}),
    (IWAE(0.6, "dreg"), {"scale_draws": without_beta}), (DRAWN["stl"], {"path_ratio_backward": wrong_sign}),
    (DRAWN["stl"], {"path_ratio_backward": without_density})], ids=["stl", "squared", "beta", "sign", "density"])
def test_a_mean_that_is_off_is_found(objective, kernels):
    with pytest.raises(AssertionError, match="standard errors"):
        check_by_drawing(models()[0], objective, broken(**kernels))


# --- where the posterior is exact ---

@pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
@pytest.mark.parametrize("seed", range(3))
def test_no_variance_at_the_exact_posterior(kernels, seed):
    """Linear model at its optimum, probabilistic PCA: at every draw the encoder's gradient is zero, which is the exact
    one.  The plain gradient is that on average only, over the sigma points, and elsewhere nothing vanishes."""
    vae, x, _ = at_the_optimum("numpy", seed)
    exact = gradient(vae, x, sigma_points(len(x)), ELBO(sampled=True))[1]
    assert all(np.abs(value).max() <= 1e-10 for value in exact.values())
    estimators = [ELBO(sampled=True, gradient="stl"), IWAE(gradient="stl"), IWAE(gradient="dreg")]
    for draw in range(5):
        eps = np.random.default_rng(draw).standard_normal((len(x), 3, 2))
        for objective in (*estimators, ELBO(sampled=True), IWAE()):
            found = gradient(vae, x, eps, objective, kernels)[1]
            assert all((np.abs(value).max() <= 1e-10) == (of_q(name) and objective in estimators)
                       for name, value in found.items()), objective
    vae.parameters["logvar.b"][...] += 0.1
    for objective in estimators:
        found = gradient(vae, x, eps, objective, kernels)[1]
        assert all(np.abs(value).max() > 1e-3 for value in found.values())
