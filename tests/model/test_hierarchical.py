"""Two stochastic layers: the gradients of every tensor, and the densities.  (What is drawn, bounds, and use:
`test_second_layer.py`.)
"""
import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE
from npvae.gradcheck import compare, numerical_gradient
from npvae.kernels import reference
from npvae.engine.executor import DirectExecutor, ThreadedExecutor
from npvae.likelihoods.support import fitting
from two_layers import B, D, Y, Z, batch, exact_log_p, hierarchy, linear, set_posteriors

NAMES = pytest.mark.parametrize("kernels", ["numpy", "numba"])


# --- gradients ---

def check_gradients(objective, draws, method="complex", labels=None, **config):
    vae, analytic = hierarchy(**config), hierarchy(**{**config, "dtype": "complex128", "kernels": "numpy"})
    x, eps = batch(draws)
    x = fitting(vae.output, x)
    _, gradients = vae.loss_and_gradients(x, eps, objective, labels=labels)
    gradients = {name: value.copy() for name, value in gradients.items()}
    parameters = {name: value.copy() for name, value in vae.parameters.items()}
    model = analytic if method == "complex" else vae

    def loss(moved):
        return model.loss(x, eps, objective, labels=labels, parameters=moved)
    report = compare(gradients, numerical_gradient(loss, parameters, method), method)
    assert report.ok and not any(tensor.vacuous for tensor in report.tensors), report
    assert {tensor.name for tensor in report.tensors} == set(vae.parameters)
    assert report.worst.error <= (1e-12 if method == "complex" else 1e-7), report


@pytest.mark.every(7)
@NAMES
@pytest.mark.parametrize("likelihood, objective, draws", [
    ("bernoulli", ELBO(sampled=True), 1), ("bernoulli", IWAE(), 5), ("gaussian-learned", ELBO(0.3, sampled=True), 5),
    ("gaussian-pixel", IWAE(beta=0.6), 5)])
def test_every_tensor(kernels, likelihood, objective, draws):
    check_gradients(objective, draws, kernels=kernels, likelihood=likelihood, hidden=(6,), upper=(8,))


@pytest.mark.every(7)
@pytest.mark.parametrize("upper", [(), (8,), (8, 9, 10)])
@pytest.mark.parametrize("hidden", [(), (6,)])
@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_every_depth(upper, hidden, activation):
    check_gradients(IWAE(), 3, upper=upper, hidden=hidden, activation=activation)


def test_beside_labels():
    check_gradients(IWAE(), 5, hidden=(6,), upper=(8,), classes=4, labels=np.array([3, 0, 1, 1]))


def test_beside_a_flow_and_a_decoder_that_sees_pixels():
    check_gradients(IWAE(), 5, kernels="numba", posterior="iaf:1", decoder="made:11", hidden=(6,), upper=(8,))


def test_central_differences():
    check_gradients(IWAE(), 5, method="central", hidden=(6,), upper=(8,))


def test_float32_and_fused_agree_with_the_reference():
    for draws, objective in ((1, ELBO(sampled=True)), (5, IWAE())):
        exact, fast = hierarchy(), hierarchy(dtype="float32", kernels="numba")
        exact.parameters.flat[...] = fast.parameters.flat
        x, eps = (value.astype("float32") for value in batch(draws, rows=20))
        loss, gradients = exact.loss_and_gradients(x, eps, objective)
        fast_loss, fast_gradients = fast.loss_and_gradients(x, eps, objective)
        assert fast_loss == pytest.approx(loss, rel=1e-6)
        for name in gradients:
            assert np.linalg.norm(fast_gradients[name] - gradients[name]) <= 2e-5 * gradients.norm(), name
        assert isinstance(fast.engine, ThreadedExecutor)


def test_nothing_is_left_in_the_buffers():
    vae = hierarchy()
    vae.passes(17, 6)
    loss, gradients = vae.loss_and_gradients(*batch(2), IWAE())
    kept = gradients.flat.copy()
    for rows, draws in ((3, 5), (9, 1), (1, 1)):
        vae.loss_and_gradients(*batch(draws, 5, rows), ELBO(sampled=True))
    vae.sample(3, np.random.default_rng(0))
    again, gradients = vae.loss_and_gradients(*batch(2), IWAE())
    assert again == loss and np.array_equal(gradients.flat, kept)


# --- densities by hand ---

def log_normal(value, mean, logvar):
    """log N(value; mean, exp(logvar)), summed over the last axis, from the density as it is in books."""
    sigma = np.sqrt(np.exp(logvar))
    return np.sum(np.log(np.exp(-(value - mean) ** 2 / (2 * sigma ** 2)) / (sigma * np.sqrt(2 * np.pi))), axis=-1)


def by_hand(p, x, eps):
    """log q(h1|x), log q(h2|h1), log p(h2), log p(h1|h2), log p(x|h1) of one image and draw: the paper's sentences."""
    def dense(name, value):
        return value @ p[f"{name}.W"] + p[f"{name}.b"]

    def stack(name, value):
        for i in range(2):
            value = np.tanh(dense(f"{name}.{i}", value))
        return value

    h = stack("encoder", x)
    mu1, logvar1 = dense("mu", h), dense("logvar", h)
    h1 = mu1 + np.exp(logvar1 / 2) * eps[:Z]
    h = stack("encoder2", h1)
    mu2, logvar2 = dense("mu2", h), dense("logvar2", h)
    h2 = mu2 + np.exp(logvar2 / 2) * eps[Z:]
    down = stack("decoder2", h2)
    pixels = 1 / (1 + np.exp(-dense("output", stack("decoder", h1))))
    return (log_normal(h1, mu1, logvar1), log_normal(h2, mu2, logvar2), log_normal(h2, 0, np.zeros(Y)),
            log_normal(h1, dense("prior_mu", down), dense("prior_logvar", down)),
            np.sum(x * np.log(pixels) + (1 - x) * np.log(1 - pixels)))


@NAMES
def test_log_ratio_is_the_sum_of_four_densities(kernels):
    vae, (x, eps) = hierarchy(kernels=kernels), batch(5)
    loss, _ = vae.loss_and_gradients(x, eps, IWAE())
    a, _ = vae.passes(B, 5)
    log_w = np.empty((B, 5))
    for b, k in np.ndindex(B, 5):
        q1, q2, p2, p1, nll = by_hand(vae.parameters, x[b], eps[b, k])
        assert a.log_ratio[b, k] == pytest.approx(q1 + q2 - p2 - p1, rel=1e-12)
        assert a.nll[b, k] == pytest.approx(-nll, rel=1e-12)
        log_w[b, k] = nll + p1 + p2 - q1 - q2
    assert loss == pytest.approx(-np.log(np.exp(log_w).mean(axis=1)).mean(), rel=1e-12)


@NAMES
def test_a_second_layer_that_says_nothing_is_not_there(kernels):
    """All its parameters zero: q(h2|h1) = p(h2), p(h1|h2) = N(0, I), and what is left is the VAE of one layer."""
    two, one = hierarchy(kernels=kernels), hierarchy(kernels=kernels, prior="normal")
    for name, value in two.parameters.items():
        value[...] = one.parameters[name] if name in one.parameters else 0
    x, eps = batch(5)
    for objective in (ELBO(sampled=True), IWAE(), IWAE(0.6)):
        loss, gradients = two.loss_and_gradients(x, eps, objective)
        expected, exact = one.loss_and_gradients(x, eps[..., :Z], objective)
        assert loss == pytest.approx(expected, rel=1e-14)
        for name in exact:
            assert np.abs(gradients[name] - exact[name]).max() <= 1e-14 * exact.norm(), name


def test_gaussian_log_density_far_from_its_mean():
    """Row by row; and sigma = exp(-60) in float32, whose exp(-logvar) is no finite number."""
    log_p = np.full(3, 777, "float32")
    mu, logvar = np.zeros((3, 2), "float32"), np.array([[-120, 0], [0, 0], [3, -3]], "float32")
    z = np.array([[0, 2], [1, 1], [0, 0]], "float32")
    reference.gaussian_log_density_forward(log_p, z, mu, logvar)
    assert np.allclose(log_p, -math.log(2 * math.pi) - np.array([2 - 60, 1, 0]), rtol=1e-6)


# --- the linear Gaussian model (`two_layers.py`) ---

def check_no_gap(vae):
    """At the exact posteriors  p(x, h1, h2) / q(h1, h2|x)  is p(x) whatever is drawn, so each weight is."""
    set_posteriors(vae)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((B, D))
    vae.loss_and_gradients(x, rng.standard_normal((B, 5, Z + Y)), IWAE())
    a, _ = vae.passes(B, 5)
    error = np.abs(-a.nll - a.log_ratio - exact_log_p(vae.parameters, x)[:, None]).max()
    assert error <= 1e-11, f"log w is off by {error:.1e} nats"


@NAMES
def test_at_the_exact_posteriors_every_weight_is_log_p(kernels):
    vae, x = linear(kernels), np.random.default_rng(4).standard_normal((B, D))
    check_no_gap(vae)
    assert np.abs(vae.log_likelihood(x, np.random.default_rng(0), 7) - exact_log_p(vae.parameters, x)).max() <= 1e-11
    assert np.abs(vae.elbo(x, np.random.default_rng(0)) - exact_log_p(vae.parameters, x)).max() <= 1e-11


def without_log_p2(log_ratio, z, logvar, eps):
    np.sum(-0.5 * (eps * eps + logvar[:, None, :] + math.log(2 * math.pi)), axis=-1, out=log_ratio)


def without_log_q2(log_ratio, z, logvar, eps):
    np.sum(0.5 * (z * z + math.log(2 * math.pi)), axis=-1, out=log_ratio)


def unnormalized(log_p, z, mu, logvar):
    np.sum(-0.5 * (z - mu) ** 2 * np.exp(-logvar), axis=-1, out=log_p)


def logvar_as_log_sigma(log_p, z, mu, logvar):
    reference.gaussian_log_density_forward(log_p, z, mu, 2 * logvar)


def standard_prior(log_p, z, mu, logvar):
    reference.gaussian_log_density_forward(log_p, z, 0 * mu, 0 * logvar)


def sigma_of_logvar(z, mu, logvar, eps):
    z[...] = mu[:, None] + np.exp(logvar)[:, None] * eps


@pytest.mark.parametrize("name, broken", [
    ("log_ratio_forward", without_log_p2), ("log_ratio_forward", without_log_q2), ("reparameterize_forward",
                                                                                   sigma_of_logvar),
    *(("gaussian_log_density_forward", broken) for broken in (unnormalized, logvar_as_log_sigma, standard_prior))])
def test_a_wrong_density_is_found(name, broken):
    vae = linear()
    vae.kernels = SimpleNamespace(**{**vars(reference), name: broken})
    with pytest.raises(AssertionError, match="nats"), mock.patch.object(VAE, "engine", property(DirectExecutor)):
        check_no_gap(vae)
