"""The linear Gaussian model, x = z W + b + sigma noise: the one VAE where log p(x), the posterior and the optimum are
known, so bounds and gradients can be held against the truth.  (With W's rows orthogonal the posterior has a diagonal
covariance, and an encoder without hidden layers can be exact.)
"""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE, FreeBits
from strategies import seeds
from linear_models import D, NAMES, SIGMA, Z, at_the_optimum, exact_log_p, linear_vae, set_posterior, sigma_points


class Record(IWAE):
    """An objective that keeps what each image and draw contributes."""

    def __call__(self, nll, reg, step):
        self.nll, self.reg = nll.copy(), reg.copy()
        return super().__call__(nll, reg, step)


@NAMES
@given(seed=seeds, draws=st.integers(1, 5))
def test_at_the_exact_posterior_no_gap_is_left(kernels, seed, draws):
    """log p(x, z) - log q(z|x) is log p(x) at every z, so every single draw gives it, and so does every bound."""
    vae, rng = linear_vae(kernels, seed), np.random.default_rng(seed)
    set_posterior(vae)
    x, eps, record = rng.standard_normal((3, D)), rng.standard_normal((3, draws, Z)), Record()
    loss, _ = vae.loss_and_gradients(x, eps, record)
    log_p = exact_log_p(vae, x)
    assert np.abs(-record.nll - record.reg - log_p[:, None]).max() <= 1e-11
    assert loss == pytest.approx(-log_p.mean(), abs=1e-11)
    assert np.abs(vae.log_likelihood(x, rng, 7) - log_p).max() <= 1e-11


@NAMES
@given(seed=seeds)
def test_iwae_with_one_draw_is_the_elbo(kernels, seed):
    vae, rng = VAE(7, (6,), 3, dtype="float64", kernels=kernels, seed=seed), np.random.default_rng(seed)
    x, eps = rng.random((4, 7)), rng.standard_normal((4, 1, 3))
    for beta in (1.0, 0.6):
        loss, gradients = vae.loss_and_gradients(x, eps, IWAE(beta))
        kept = gradients.flat.copy()
        again, gradients = vae.loss_and_gradients(x, eps, ELBO(beta, sampled=True))
        assert again == pytest.approx(loss, rel=1e-14)
        assert np.abs(gradients.flat - kept).max() <= 1e-14 * gradients.norm()


def check_bounds(kernels, objective):
    """E[bound] grows with K and stays below log p(x), each by five standard errors; the encoder is a poor one."""
    vae, rng = linear_vae(kernels, 5), np.random.default_rng(6)
    set_posterior(vae)
    vae.parameters["mu.W"][...] *= 0.8
    vae.parameters["logvar.b"][...] += 0.7
    x = np.tile(rng.standard_normal(D), (100, 1))
    results = []
    for draws in (1, 4, 16):
        bounds = [-vae.loss_and_gradients(x, rng.standard_normal((100, draws, Z)), objective)[0] for _ in range(60)]
        results.append((np.mean(bounds), np.std(bounds) / math.sqrt(60)))
    for (low, low_error), (high, high_error) in zip(results, [*results[1:], (exact_log_p(vae, x)[0], 0)]):
        assert high - low > 5 * math.hypot(low_error, high_error), results


@NAMES
def test_iwae_grows_with_its_draws_and_stays_below_log_p(kernels):
    check_bounds(kernels, IWAE())


class SumOfWeights(IWAE):
    def __call__(self, nll, reg, step):
        return -np.log(np.exp(-nll - reg).sum(axis=1)).mean(), 0, 0


class WeightedLogs(IWAE):
    def __call__(self, nll, reg, step):
        weights = np.exp(-nll - reg)
        weights /= weights.sum(axis=1, keepdims=True)
        return (weights * (nll + reg)).sum(axis=1).mean(), 0, 0


class WithoutPrior(IWAE):
    def __call__(self, nll, reg, step):
        return super().__call__(nll, 0 * reg, step)


@pytest.mark.every(3)
@pytest.mark.parametrize("broken", [SumOfWeights(), WeightedLogs(), WithoutPrior(), ELBO(sampled=True), ELBO()])
def test_a_broken_bound_is_found(broken):
    """log sum w; sum w~ log w; no KL; and the ELBO, which is a bound but does not grow."""
    with pytest.raises(AssertionError):
        check_bounds("numpy", broken)


# --- its optimum is probabilistic PCA: Tipping and Bishop 1999; Lucas et al. 2019 ---


@pytest.mark.every(5)
@NAMES
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", [ELBO(), ELBO(sampled=True), IWAE(), FreeBits(0)],
                         ids=["elbo", "sampled elbo", "iwae", "free bits 0"])
def test_every_gradient_vanishes_at_the_optimum(kernels, seed, objective):
    """No finite differences: a wrong term anywhere would leave a gradient.  The bound is the exact log-likelihood."""
    vae, x, sigma = at_the_optimum(kernels, seed)
    loss, gradients = vae.loss_and_gradients(x, sigma_points(len(x)), objective)
    assert loss == pytest.approx(-exact_log_p(vae, x, sigma).mean(), abs=1e-11)
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() <= 1e-10, name
    for name, value in vae.parameters.items():      # and nowhere near it
        value += 0.01
        worse, gradients = vae.loss_and_gradients(x, sigma_points(len(x)), objective)
        assert worse > loss and np.abs(gradients[name]).max() > 1e-5, name
        value -= 0.01


@NAMES
@given(seed=seeds)
def test_the_two_kl_terms_agree_in_expectation(kernels, seed):
    """Sampled and closed form, averaged over sigma points: the same loss and the same gradients, away from any
    optimum.  This is E_q[score] = 0 and the reparameterization gradient at once."""
    vae, rng = linear_vae(kernels, seed), np.random.default_rng(seed)
    vae.parameters.flat[...] += 0.3 * rng.standard_normal(vae.parameters.flat.size)
    x = rng.standard_normal((3, D))
    loss, gradients = vae.loss_and_gradients(x, sigma_points(3), ELBO(0.7))
    kept = gradients.flat.copy()
    again, gradients = vae.loss_and_gradients(x, sigma_points(3), ELBO(0.7, sampled=True))
    assert again == pytest.approx(loss, rel=1e-12)
    assert np.abs(gradients.flat - kept).max() <= 1e-12 * np.abs(kept).max()


@NAMES
def test_new_images_follow_the_model(kernels):
    """Drawn images have mean b and covariance W^T W + sigma^2 I, and mean images W^T W; a reconstruction of one image
    spreads by the posterior: here with an encoder of its own variances and a decoder that shows z as it is."""
    vae, rng = linear_vae(kernels, 8), np.random.default_rng(9)
    W, b, n = vae.parameters["output.W"], vae.parameters["output.b"], 100000
    for mean, noise in ((True, 0), (False, SIGMA)):
        x = vae.sample(n, rng, mean=mean)
        covariance = W.T @ W + noise ** 2 * np.eye(D)
        assert np.abs((x.mean(axis=0) - b) / np.sqrt(np.diag(covariance) / n)).max() < 5
        spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) + covariance ** 2)
        assert np.abs((np.cov(x.T) - covariance) / spread).max() < 5 / math.sqrt(n)
    W[...], b[...], vae.parameters["logvar.b"][...] = np.eye(Z, D), 0, [-1.0, 0.6]
    one = np.ones((1, D))
    mu, logvar = vae.encode(one)
    z = vae.reconstruct(np.tile(one, (n, 1)), rng)[:, :Z]
    assert np.abs((z.mean(axis=0) - mu) / np.exp(logvar / 2)).max() < 5 / math.sqrt(n)
    assert np.abs(z.var(axis=0) / np.exp(logvar) - 1).max() < 5 * math.sqrt(2 / n)
