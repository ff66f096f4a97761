"""What no gradient check can see: the gradient of a wrong objective is right.  Samplers against the densities they
claim to sample, densities against one.  (Bounds against log p(x), where that is known: `test_linear_model.py`.)

A statistical test here allows five standard errors, draws from a fixed seed, and is itself tested: each has negative
controls, mistakes that others have shipped, which the same function must catch.
"""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae.kernels import fused, reference
from npvae.likelihoods import LIKELIHOODS, make_likelihood
from npvae.params import Block
from strategies import seeds
from statistics_of_draws import close_to, nll_of

MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])


# --- q(z|x): the sampler and the two forms of the KL term ---

MU, LOGVAR = np.array([[0.5, -1.2, 0.0]]), np.array([[-1.5, 0.8, 0.3]])


def check_sampler(sample, size=200000):
    """sample(z, mu, logvar, eps) draws from N(mu, exp(logvar)): mean, variance, and a score that averages to zero."""
    z = np.empty((1, size, 3))
    sample(z, MU, LOGVAR, np.random.default_rng(1).standard_normal(z.shape))
    residual, variance = z[0] - MU, np.exp(LOGVAR[0])
    close_to(z[0], MU[0], "mean")
    close_to(residual ** 2, variance, "variance")
    close_to(residual / variance, np.zeros(3), "E d log q / d mu")
    close_to(0.5 * (residual ** 2 / variance - 1), np.zeros(3), "E d log q / d logvar")


def check_ratio(sample, log_ratio, kl, size=200000):
    """E_q[log q - log p] over draws of the sampler is the KL in closed form."""
    z, ratio, exact = np.empty((1, size, 3)), np.empty((1, size)), np.empty((1, 3))
    eps = np.random.default_rng(2).standard_normal(z.shape)
    sample(z, MU, LOGVAR, eps)
    log_ratio(ratio, z, LOGVAR, eps)
    kl(exact, MU, LOGVAR)
    close_to(ratio[0], exact.sum(), "KL")


def logvar_as_log_sigma(z, mu, logvar, eps):
    z[...] = mu[:, None] + np.exp(logvar)[:, None] * eps


def small_noise(z, mu, logvar, eps):
    reference.reparameterize_forward(z, mu, logvar, 0.01 * eps)


def no_mean(z, mu, logvar, eps):
    reference.reparameterize_forward(z, 0 * mu, logvar, eps)


def uniform_looking(z, mu, logvar, eps):
    reference.reparameterize_forward(z, mu, logvar, np.sign(eps) * 0.98)


def negative_ratio(ratio, z, logvar, eps):
    reference.log_ratio_forward(ratio, z, logvar, eps)
    ratio *= -1


def ratio_without_logvar(ratio, z, logvar, eps):
    ratio[...] = 0.5 * (z * z - eps * eps).sum(axis=-1)


def negative_kl(kl, mu, logvar):
    reference.gaussian_kl_forward(kl, mu, logvar)
    kl *= -1


def kl_of_sigma(kl, mu, logvar):
    reference.gaussian_kl_forward(kl, mu, 2 * logvar)


@MODULES
def test_the_sampler_draws_from_q(kernels):
    check_sampler(kernels.reparameterize_forward)


@pytest.mark.parametrize("broken", [logvar_as_log_sigma, small_noise, no_mean, uniform_looking])
def test_a_broken_sampler_is_found(broken):
    with pytest.raises(AssertionError, match="standard errors"):
        check_sampler(broken)


@MODULES
def test_sampled_kl_averages_to_the_closed_form(kernels):
    check_ratio(kernels.reparameterize_forward, kernels.log_ratio_forward, kernels.gaussian_kl_forward)


@pytest.mark.parametrize("broken", [{"sample": logvar_as_log_sigma}, {"sample": small_noise}, {"sample": no_mean},
                                    {"log_ratio": negative_ratio}, {"log_ratio": ratio_without_logvar},
                                    {"kl": negative_kl}, {"kl": kl_of_sigma}],
                         ids=lambda broken: next(iter(broken.values())).__name__)
def test_a_broken_kl_is_found(broken):
    right = {"sample": reference.reparameterize_forward, "log_ratio": reference.log_ratio_forward,
             "kl": reference.gaussian_kl_forward}
    with pytest.raises(AssertionError, match="KL"):
        check_ratio(**{**right, **broken})


@MODULES
@given(mu=st.floats(-3, 3), logvar=st.floats(-5, 3))
def test_kl_by_quadrature(kernels, mu, logvar):
    """Integral of q log(q / p) by the trapezoidal rule, both densities written out."""
    sigma, kl = math.sqrt(math.exp(logvar)), np.empty((1, 1))
    z, width = np.linspace(mu - 14 * sigma, mu + 14 * sigma, 2001, retstep=True)
    log_q = -0.5 * ((z - mu) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    log_p = -0.5 * z ** 2 - 0.5 * math.log(2 * math.pi)
    kernels.gaussian_kl_forward(kl, np.full((1, 1), mu), np.full((1, 1), logvar))
    assert kl[0, 0] == pytest.approx(width * np.sum(np.exp(log_q) * (log_q - log_p)), rel=1e-10, abs=1e-12)


@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(mu=st.floats(-30, 30), logvar=st.floats(-60, 30))
def test_kl_is_zero_at_the_prior_only(kernels, dtype, mu, logvar):
    """KL >= 0, up to the last digit of logvar, and it is more than 0 as soon as q is not the prior."""
    kl, mu, logvar = np.empty((1, 1), dtype), np.full((1, 1), mu, dtype), np.full((1, 1), logvar, dtype)
    kernels.gaussian_kl_forward(kl, mu, logvar)
    assert kl >= -np.finfo(dtype).eps * np.abs(logvar)
    if max(abs(mu), abs(logvar)) > 1e-3:
        assert kl > 0
    kernels.gaussian_kl_forward(kl, 0 * mu, 0 * logvar)
    assert kl == 0


@MODULES
@given(mu=st.floats(-2, 2), logvar=st.floats(-3, 1), a=st.floats(0.1, 1.5))
def test_gradients_through_the_noise(kernels, mu, logvar, a):
    """E sin(a z) = exp(-a^2 sigma^2 / 2) sin(a mu) in closed form; its derivatives (Bonnet 1964, Price 1958) are what
    the backward kernel gives when Gauss-Hermite nodes take the place of the noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights, eps = weights / weights.sum(), nodes[None, :, None]
    m, v, z = np.full((1, 1), mu), np.full((1, 1), logvar), np.empty((1, 40, 1))
    dmu, dlogvar = np.empty((1, 1)), np.empty((1, 1))
    kernels.reparameterize_forward(z, m, v, eps)
    kernels.reparameterize_backward(dmu, dlogvar, weights[:, None] * a * np.cos(a * z), v, eps)
    variance = math.exp(logvar)
    decay = math.exp(-0.5 * a * a * variance)
    assert dmu[0, 0] == pytest.approx(a * decay * math.cos(a * mu), abs=1e-12)
    assert dlogvar[0, 0] == pytest.approx(-0.5 * a * a * variance * decay * math.sin(a * mu), abs=1e-12)


@MODULES
def test_log_ratio_is_log_q_minus_log_p(kernels):
    """Draw by draw.  No gradient check sees the term in eps, and no average sees eps^2 replaced by its mean, 1."""
    rng = np.random.default_rng(0)
    mu, logvar, eps = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal((4, 2, 3))
    z, ratio = np.full(eps.shape, 777.0), np.full((4, 2), 777.0)
    kernels.reparameterize_forward(z, mu, logvar, eps)
    kernels.log_ratio_forward(ratio, z, logvar, eps)

    def log_normal(value, mean, sigma):
        return -0.5 * ((value - mean) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    for b, k in np.ndindex(4, 2):
        expected = math.fsum(log_normal(z[b, k, j], mu[b, j], math.exp(logvar[b, j] / 2)) - log_normal(z[b, k, j], 0, 1)
                             for j in range(3))
        assert ratio[b, k] == pytest.approx(expected, rel=1e-12, abs=1e-13)


@MODULES
def test_kl_at_chosen_points(kernels):
    """Also where sigma is nearly 1, and all of sigma^2 - 1 - log sigma^2 cancels but t^2 / 2 + t^3 / 6, t = logvar."""
    logvar = np.array([[-600.0, -3.0, -0.25, 0.0, 1e-5, 0.5, 4.0, 300.0]])
    rest = np.array([599.0, 2 + math.exp(-3), math.exp(-0.25) - 0.75, 0.0, 5e-11 + 1e-15 / 6, math.exp(0.5) - 1.5,
                     math.exp(4) - 5, math.exp(300)])
    for mu in (0.0, -2.5, 0.125):
        kl = np.full(logvar.shape, 777.0)
        kernels.gaussian_kl_forward(kl, np.full(logvar.shape, mu), logvar)
        assert np.allclose(kl, 0.5 * (mu * mu + rest), rtol=1e-10, atol=0)


# --- p(x|z): densities, means and draws ---


def mean_and_variance(likelihood, output):
    """Of each pixel, from the definitions: p and p (1 - p); m and sigma^2; m and 0.05^2 + exp(s)."""
    if likelihood.name == "bernoulli":
        p = 1 / (1 + np.exp(-output))
        return p, p * (1 - p)
    if likelihood.name == "gaussian-pixel":
        mean, s = np.split(output, 2)
        return mean, 0.05 ** 2 + np.exp(s)
    return output, np.full_like(output, likelihood.sigma ** 2)


GAUSSIANS = [*(name for name in LIKELIHOODS if name.startswith("gaussian")), "gaussian:0.3", "gaussian-learned:0.7"]
LIKELIHOOD_NAMES = ["bernoulli", *GAUSSIANS]      # the others: test_continuous_bernoulli.py, test_levels.py
DENSITIES = pytest.mark.parametrize("name", GAUSSIANS)


@MODULES
@given(seed=seeds, pixels=st.integers(1, 6))
def test_bernoulli_sums_to_one_over_all_images(kernels, seed, pixels):
    logits = np.random.default_rng(seed).normal(0, 3, pixels)
    images = (np.arange(2 ** pixels)[:, None] >> np.arange(pixels) & 1).astype(float)
    nll = nll_of(kernels, make_likelihood("bernoulli"), logits, images)
    p, q = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))
    assert np.exp(-nll).sum() == pytest.approx(1, rel=1e-12)
    assert np.allclose(np.exp(-nll), np.where(images == 1, p, q).prod(axis=1), rtol=1e-12, atol=0)


@MODULES
@DENSITIES
@given(seed=seeds)
def test_gaussians_integrate_to_one(kernels, name, seed):
    """One pixel, the trapezoidal rule; the density is N(x; m, sigma^2), and so is the product of three."""
    likelihood, rng = make_likelihood(name), np.random.default_rng(seed)
    output = rng.normal(0, 1, likelihood.output_dim(1))
    mean, variance = mean_and_variance(likelihood, output)
    sigma = math.sqrt(variance[0])
    x, width = np.linspace(mean[0] - 12 * sigma, mean[0] + 12 * sigma, 1001, retstep=True)
    assert width * np.exp(-nll_of(kernels, likelihood, output, x[:, None])).sum() == pytest.approx(1, rel=1e-11)
    output, x = rng.normal(0, 1, likelihood.output_dim(3)), rng.normal(0, 2, (5, 3))
    mean, variance = mean_and_variance(likelihood, output)
    expected = 0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=1)
    assert np.allclose(nll_of(kernels, likelihood, output, x), expected, rtol=1e-12, atol=1e-12)


def check_draws(kernels, likelihood, draw):
    """Draws average to mean(), which is E[x|z]; their variance is that of the density."""
    output = np.random.default_rng(3).normal(-0.5, 1, likelihood.output_dim(4))
    params = Block(likelihood.shapes, "float64")
    likelihood.initialize(params)
    mean, variance = mean_and_variance(likelihood, output)
    assert np.allclose(likelihood.mean(kernels, output[None]), mean, rtol=1e-12)
    x = draw(kernels, np.tile(output, (50000, 1)), params, np.random.default_rng(4))
    likelihood.support.check(x, "x")
    close_to(x, mean, "mean")
    close_to((x - mean) ** 2, variance, "variance")
    close_to((x - mean)[:, :-1] * (x - mean)[:, 1:], np.zeros(3), "pixels are independent: covariance")


@MODULES
@pytest.mark.parametrize("name", LIKELIHOOD_NAMES)
def test_draws_follow_the_density(kernels, name):
    likelihood = make_likelihood(name)
    check_draws(kernels, likelihood, likelihood.draw)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", LIKELIHOOD_NAMES)
@pytest.mark.parametrize("sigma", [0, 0.95])
def test_wrong_draws_are_found(name, sigma):
    """Means in place of draws, and noise 5% too weak."""
    likelihood = make_likelihood(name)

    def draw(kernels, output, params, rng):
        mean = likelihood.mean(kernels, output)
        return mean + sigma * (likelihood.draw(kernels, output, params, rng) - mean)
    with pytest.raises(AssertionError, match="standard errors"):
        check_draws(reference, likelihood, draw)
