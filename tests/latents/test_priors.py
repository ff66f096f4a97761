"""Learned priors: mixtures of Gaussians, and the VampPrior, whose components the encoder makes of learned images.

Densities against grids and formulas written out, samplers against densities, symmetries, single precision.  Whole
models: `test_prior_models.py`.
"""
import math

import numpy as np
import pytest
from hypothesis import given

from npvae import ELBO, IWAE, VAE
from npvae.kernels import fused, reference
from strategies import seeds
from whole_models import batch
from statistics_of_draws import close_to
from prior_models import KERNELS, PRIORS, RNG, U, components, model

MODULES = pytest.mark.parametrize("module", [reference, fused], ids=["numpy", "numba"])


def log_p(vae, z):
    """log p(z) (N,) as a pass computes it, of one image with N draws z (N, Z)."""
    a, _ = vae.passes(1, len(z))
    a.x[...] = 0.5
    vae._encode(a)
    a.z[0] = z
    vae.prior.forward(vae.kernels, a, a.prior, vae.parameters)
    return a.log_p[0].copy()


def density(z, mean, logvar, pi):
    """sum_c pi_c N(z; mean_c, s_c^2), written out."""
    sigma = np.exp(0.5 * logvar)
    each = np.exp(-0.5 * ((z[:, None] - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    return each.prod(axis=2) @ pi


# --- the density ---

@KERNELS
@PRIORS
@given(seed=seeds)
def test_log_p_is_that_of_the_mixture(prior, kernels, seed):
    vae = model(prior, seed, kernels=kernels)
    z = np.random.default_rng(seed).normal(0, 2, (9, 3))
    assert np.allclose(log_p(vae, z), np.log(density(z, *components(vae))), rtol=1e-11, atol=1e-12)


@KERNELS
@PRIORS
@pytest.mark.parametrize("latent_dim, points", [(1, 2001), (2, 301)])
def test_p_integrates_to_one(prior, kernels, latent_dim, points):
    vae = model(prior, 3, kernels=kernels, latent_dim=latent_dim)
    axis, width = np.linspace(-25, 25, points, retstep=True)
    z = np.stack(np.meshgrid(*[axis] * latent_dim), axis=-1).reshape(-1, latent_dim)
    assert np.exp(log_p(vae, z)).sum() * width ** latent_dim == pytest.approx(1, abs=1e-10)


@KERNELS
def test_one_standard_component_is_the_standard_normal(kernels):
    """The loss and every gradient of a model with prior normal, and a slope at the new parameters."""
    plain, vae = (model(prior, kernels=kernels) for prior in ("normal", "mixture:1"))
    for name in vae.parameters:
        vae.parameters[name][...] = plain.parameters[name] if name in plain.parameters else 0
    x, eps = batch(vae, 4, 3, 1)
    for objective in (ELBO(sampled=True), IWAE()):
        loss, gradients = vae.loss_and_gradients(x, eps, objective)
        same, expected = plain.loss_and_gradients(x, eps, objective)
        assert loss == pytest.approx(same, rel=1e-14)
        for name in expected:
            assert np.abs(gradients[name] - expected[name]).max() <= 1e-14 * expected.norm(), name
        assert not gradients["prior.logits"].any() and gradients["prior.mean"].any()


@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_from_every_component_and_beside_a_narrow_one(module, dtype):
    """Nothing overflows; the weights are exact: those of 30 sigma away are 0, and a shift of all logits is none."""
    z = np.array([[[300.0, 0.0], [-2.0, 5.0], [0.0, 0.0]]], dtype)
    mean = np.array([[0, 0], [-2, 5], [1, 1], [0, 0]], dtype)
    logvar, logits = np.array([[0, 0], [-12, -12], [1, 0], [0, 0]], dtype), np.array([1, 2, 3, 1], dtype)
    found = []
    for shift in (0, 2 ** 17):      # with which these logits are still exact
        log_p, weights = np.full((1, 3), 7, dtype), np.full((1, 3, 4), 7, dtype)
        module.mixture_forward(log_p, weights, np.empty_like(mean), np.empty_like(logits), z, mean, logvar,
                               logits + np.dtype(dtype).type(shift))
        found += [log_p, weights]
    pi = np.exp([1, 2, 3, 1]) / np.exp([1, 2, 3, 1]).sum()
    assert found[0][0, 0] == pytest.approx(
        math.log(pi[2]) - 299 ** 2 / 2 / math.e - 0.5 - 0.5 - math.log(2 * math.pi), rel=1e-6)
    assert found[0][0, 1] == pytest.approx(math.log(pi[1]) + 12 - math.log(2 * math.pi), rel=1e-5)
    assert np.allclose(found[1][0, :2], [[0, 0, 1, 0], [0, 1, 0, 0]], atol=1e-6)
    assert found[1][0, 2, 0] == found[1][0, 2, 3] and np.allclose(found[1].sum(axis=2), 1, rtol=1e-6)
    assert np.array_equal(found[0], found[2]) and np.array_equal(found[1], found[3])


@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_and_distances_of_any_size(module, dtype):
    """Only differences of logits count, and of a z far from all components those of its distances.  exp(1000) overflows
    in both types, and exp(-199^2 / 2) is 0 in both."""
    z, mean = np.array([[[200.0]]], dtype), np.array([[-1], [1], [1]], dtype)
    logits, logvar = np.array([1000, 1000, -1000], dtype), np.zeros((3, 1), dtype)
    log_p, weights, precision = np.empty((1, 1), dtype), np.empty((1, 1, 3), dtype), np.empty((3, 1), dtype)
    module.mixture_forward(log_p, weights, precision, np.empty(3, dtype), z, mean, logvar, logits)
    assert log_p[0, 0] == pytest.approx(-math.log(2) - 199 ** 2 / 2 - math.log(2 * math.pi) / 2, rel=1e-6)
    assert np.allclose(weights, [0, 1, 0], rtol=1e-15, atol=1e-30)
    dz, dmean, dlogvar, dlogits = np.empty_like(z), np.empty_like(mean), np.empty_like(mean), np.empty_like(logits)
    module.mixture_backward(dz, dmean, dlogvar, dlogits, np.ones((1, 1), dtype), weights, precision, z, mean, logits)
    for found, expected in ((dz, [-199]), (dmean, [0, 199, 0]), (dlogvar, [0, (199 ** 2 - 1) / 2, 0]),
                            (dlogits, [-0.5, 0.5, 0])):
        assert np.allclose(found.ravel(), expected, rtol=1e-6, atol=1e-30)


def squares_expanded(z, mean, logvar):
    """What two matrix products make of (z - mean)^2 / s^2, in the type of z: (N, C)."""
    precision = np.exp(-logvar)
    return (z * z) @ precision.T - 2 * z @ (mean * precision).T + (mean * mean * precision).sum(axis=1)


def test_single_precision_keeps_its_digits():
    """500 narrow components in 50 dimensions, as a trained VampPrior has them: log p within 1e-6 of itself, gradients
    as well.  The square expanded loses ten times as much, and would not pass."""
    z, mean = RNG.normal(0, 2, (1, 20, 50)), RNG.normal(0, 2, (500, 50))
    mean[:20] = z[0] + RNG.normal(0, 0.1, (20, 50))
    logvar, logits, upstream = RNG.uniform(-6, -3, (500, 50)), RNG.normal(0, 1, 500), RNG.standard_normal((1, 20))
    low = [value.astype(np.float32) for value in (z, mean, logvar, logits, upstream)]
    results = {}
    for module, values in ((fused, low), (reference, [value.astype(np.float64) for value in low])):
        z, mean, logvar, logits, upstream = values
        log_p, weights, inverse, peak = (np.empty(shape, z.dtype)
                                         for shape in ((1, 20), (1, 20, 500), (500, 50), 500))
        module.mixture_forward(log_p, weights, inverse, peak, z, mean, logvar, logits)
        gradients = [np.empty_like(value) for value in (z, mean, logvar, logits)]
        module.mixture_backward(*gradients, upstream, weights, inverse, z, mean, logits)
        results[module] = [log_p, *gradients]
    for ours, exact in zip(results[fused], results[reference]):
        assert ours.dtype == np.float32 and np.abs(ours - exact).max() <= 1e-6 * np.abs(exact).max()
    log_p = results[reference][0][0]
    expanded = squares_expanded(*(value[0] if value.ndim == 3 else value for value in low[:3]))
    error = 0.5 * np.abs(expanded - squares_expanded(z[0], mean, logvar))[range(20), range(20)]
    assert error.max() > 10e-6 * np.abs(log_p).max()


# --- the sampler ---

def check_sampler(sample, vae, size=40000):
    """Along several directions, the share of draws below several thresholds is what the mixture says."""
    (mean, logvar, pi), rng = components(vae), np.random.default_rng(5)
    z = sample(size, rng, vae)
    assert z.shape == (size, 3)
    for direction in (*np.eye(3), *rng.standard_normal((4, 3))):
        middle, sigma = mean @ direction, np.sqrt(np.exp(logvar) @ direction ** 2)
        for threshold in np.quantile(z @ direction, np.linspace(0.1, 0.9, 9)):
            below = np.vectorize(math.erf)((threshold - middle) / sigma / math.sqrt(2)) / 2 + 0.5
            close_to((z @ direction < threshold).astype(float), below @ pi, "p(z)")


def drawn(vae, rng, chosen, scale=0.5):
    mean, logvar, _ = components(vae)
    return mean[chosen] + np.exp(scale * logvar[chosen]) * rng.standard_normal((len(chosen), 3))


BROKEN = {
    "one component": lambda n, rng, vae: drawn(vae, rng, np.zeros(n, int)),
    "other weights": lambda n, rng, vae: drawn(vae, rng, rng.integers(4, size=n) * rng.integers(2, size=n)),
    "logvar as log sigma": lambda n, rng, vae: drawn(vae, rng, rng.choice(
        len(components(vae)[2]), n, p=components(vae)[2]), 1.0),
    "a component for each coordinate": lambda n, rng, vae: np.stack([drawn(vae, rng, rng.choice(
        len(components(vae)[2]), n, p=components(vae)[2]))[:, j] for j in range(3)], axis=1),
    "the standard normal": lambda n, rng, vae: rng.standard_normal((n, 3))}


def spread_out(prior, **config):
    """Components far enough apart to be told from each other, of different weights."""
    vae = model(prior, 2, **config)
    for name in ("mu.W", "prior.mean"):
        if name in vae.parameters:
            vae.parameters[name][...] *= 3
    return vae


@PRIORS
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_the_sampler_draws_from_p(prior, kernels):
    vae = spread_out(prior, kernels=kernels)
    check_sampler(lambda size, rng, vae: vae.draw_prior(size, rng), vae)


@PRIORS
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_sampler_is_found(prior, broken):
    with pytest.raises(AssertionError, match="standard errors"):
        check_sampler(BROKEN[broken], spread_out(prior))


# --- what is special about a VampPrior ---

@KERNELS
def test_where_the_encoder_ignores_the_image_nothing_is_paid(kernels):
    """q(z|x) is then q(z|u), so log q - log p is 0 at every draw."""
    vae = model("vamp:1", kernels=kernels)
    vae.parameters["mu.W"][...] = vae.parameters["logvar.W"][...] = 0
    x, eps = batch(vae, 4, 3, 1)
    a, _ = vae.passes(4, 3)
    loss, _ = vae.loss_and_gradients(x, eps, ELBO(sampled=True))
    assert np.abs(a.log_ratio).max() <= 1e-14 and loss == pytest.approx(a.nll.mean(), rel=1e-14)


@KERNELS
def test_images_among_the_pseudo_inputs_pay_no_more_than_log_c(kernels):
    """p(z) is at least q(z|x) / C: no draw costs more, and together they are the mean of q(z|x) over the data."""
    vae, C = spread_out("vamp:5", kernels=kernels), 5
    x, eps = 1 / (1 + np.exp(-vae.parameters[U])), np.random.default_rng(0).standard_normal((C, 50, 3))
    a, _ = vae.passes(C, 50)
    vae.loss_and_gradients(x, eps, IWAE())
    assert 0.5 < a.log_ratio.max() <= math.log(C) + 1e-12
    others, eps = batch(vae, 40, 50, 1)
    a, _ = vae.passes(40, 50)
    vae.loss_and_gradients(others, eps, IWAE())
    assert a.log_ratio.max() > math.log(C)


@KERNELS
@PRIORS
def test_the_order_of_the_components_does_not_matter(prior, kernels):
    """Nor, for a VampPrior, whether each pseudo-input is there once or twice."""
    vae = model(prior, kernels=kernels)
    x, eps = batch(vae, 4, 3, 1)
    C, new = vae.prior.components, [name for name in vae.parameters if name.startswith("prior")]
    loss, gradients = vae.loss_and_gradients(x, eps, IWAE())
    kept, order = {name: value.copy() for name, value in gradients.items()}, np.random.default_rng(3).permutation(C)
    assert not np.array_equal(order, np.arange(C))
    for name in new:
        vae.parameters[name][...] = vae.parameters[name][order]
    again, gradients = vae.loss_and_gradients(x, eps, IWAE())
    assert again == pytest.approx(loss, rel=1e-13)
    for name, value in gradients.items():
        assert np.abs(value - (kept[name][order] if name in new else kept[name])).max() <= 1e-13 * vae.gradients.norm()
    if U in vae.parameters:
        double = model(f"vamp:{2 * C}", kernels=kernels)
        for name, value in vae.parameters.items():
            double.parameters[name][...] = np.concatenate([value, value]) if name == U else value
        again, gradients = double.loss_and_gradients(x, eps, IWAE())
        assert again == pytest.approx(loss, rel=1e-13)
        assert np.allclose(gradients[U][:C], vae.gradients[U] / 2, rtol=1e-9, atol=1e-14)


@KERNELS
def test_encoding_images_ignores_the_pseudo_inputs(kernels):
    plain, vae = (model(prior, kernels=kernels) for prior in ("normal", "vamp:5"))
    for name in plain.parameters:
        plain.parameters[name][...] = vae.parameters[name]
    x = np.random.default_rng(0).random((503, 7))
    for ours, expected in zip(vae.encode(x), plain.encode(x)):
        assert ours.shape == (503, 3) and np.allclose(ours, expected, rtol=1e-13, atol=1e-14)
    inputs = vae.prior.pseudo_inputs(vae.parameters)
    assert np.allclose(inputs, 1 / (1 + np.exp(-vae.parameters[U])), rtol=1e-14)
    assert all(np.allclose(one, other, rtol=1e-13) for one, other in zip(vae.encode(inputs), plain.encode(inputs)))


def test_a_draw_is_the_mean_of_a_component_plus_sigma_times_noise():
    """By the noise that the generator gives: first the component, by its weight, then eps."""
    vae, n = VAE(7, (6,), 3, dtype="float64", kernels="numpy", prior="mixture:4"), 50
    mean, logvar, logits = (vae.parameters[f"prior.{name}"] for name in ("mean", "logvar", "logits"))
    logvar[...], logits[...] = np.log([[4], [1], [9], [0.25]]), np.log([1, 2, 3, 4])
    rng = np.random.default_rng(8)
    chosen = rng.choice(4, n, p=[0.1, 0.2, 0.3, 0.4])
    expected = mean[chosen] + np.array([2, 1, 3, 0.5])[chosen, None] * rng.standard_normal((n, 3))
    for offset in (0, 1e4, -1e4):      # the weights are those of exp(logits), which would overflow
        logits[...] += offset
        assert np.allclose(vae.draw_prior(n, np.random.default_rng(8)), expected, rtol=1e-9)
        logits[...] -= offset
    logits[...] = [-1e4, 0, 1e4, 0]      # nor would the differences of these
    assert vae.draw_prior(n, np.random.default_rng(8)).std() == pytest.approx(3, rel=0.25)


def test_a_standard_normal_prior_beside_a_flow_draws_as_without_one():
    drawn = [VAE(7, (6,), 3, kernels="numpy", posterior=posterior).draw_prior(9, np.random.default_rng(0))
             for posterior in ("gaussian", "planar:2")]
    assert np.array_equal(*drawn) and np.array_equal(drawn[0], np.random.default_rng(0).standard_normal((9, 3)))
