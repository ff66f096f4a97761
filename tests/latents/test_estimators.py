"""The gradient estimators STL and DReG.  Neither is the derivative of the loss under given noise, so no gradient check
sees it; each is that of a loss in which something is held constant.  (Their means: `test_estimator_means.py`.)
"""
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE, LinearAnnealing, fit
from npvae.latents.base import Flow, KLEstimator
from npvae.latents.flows import NoFlow
from npvae.gradcheck import check_gradients, compare, numerical_gradient
from npvae.kernels import fused, reference
from npvae.latents import Composed, compose
from npvae.latents.priors import StandardNormal
from strategies import seeds, sizes, spread
from executors import X, X_TEST, assert_equal, bits, model, result, run_directly
from estimator_models import LATENT, MODULES, draws, fill, gradient, models, noise, of_q


# --- the kernels, against densities written out ---

def log_q(z, mu, logvar):
    return -0.5 * ((z - mu[:, None]) ** 2 / np.exp(logvar)[:, None] + logvar[:, None] + math.log(2 * math.pi)).sum(-1)


def log_p(z):
    return -0.5 * (z ** 2 + math.log(2 * math.pi)).sum(axis=-1)


@MODULES
@pytest.mark.parametrize("method", ["complex", "central"])
@given(size=sizes("BKZ"), seed=seeds)
def test_the_path_is_the_derivative_by_z_alone(kernels, method, size, seed):
    mu, logvar, eps, z, up = draws(size, seed)
    by_ratio, by_q = np.full((2, *z.shape), 777.0)
    kernels.path_ratio_backward(by_ratio, up, z, logvar, eps)
    kernels.path_q_backward(by_q, up, logvar, eps)
    ratio, q = lambda z: log_q(z, mu, logvar) - log_p(z), lambda z: log_q(z, mu, logvar)
    for analytic, density in ((by_ratio, ratio), (by_q, q)):
        report = check_gradients(lambda p: (up * density(p["z"])).sum(), {"z": analytic}, {"z": z}, method)
        assert report.ok, report


def softmax(log_w):
    weights = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@MODULES
@given(size=sizes("BKZ"), seed=seeds, beta=st.floats(0, 3))
def test_draws_are_scaled_by_their_weights(kernels, size, seed, beta):
    """Whatever factor an image's upstream gradient has; with one draw nothing changes, in the reference to the bit."""
    rng = np.random.default_rng(seed)
    weights, dz = softmax(rng.normal(0, 3, (size["B"], size["K"]))), spread(rng, (size["B"], size["K"], size["Z"]))
    dnll, out = spread(rng, (size["B"], 1)) * weights, np.full_like(dz, 777)
    kernels.scale_draws(out, dz, dnll, beta * dnll)
    assert np.allclose(out, (1 - beta + beta * weights)[:, :, None] * dz, rtol=1e-12, atol=1e-13 * (1 + beta))
    one = np.full_like(dz[:, :1], 777)
    kernels.scale_draws(one, dz[:, :1], dnll[:, :1], beta * dnll[:, :1])
    assert np.allclose(one, dz[:, :1], rtol=1e-15)
    assert np.array_equal(one, dz[:, :1]) or kernels is fused or beta > 2


def calls(kernels, size, seed, dtype="float64"):
    """name -> a call on arrays that are kept, its output and its inputs."""
    mu, logvar, eps, z, up = (value.astype(dtype) for value in draws(size, seed))
    dnll = softmax(up) / 7
    arrays = {"path_ratio_backward": (up, z, logvar, eps), "path_q_backward": (up, logvar, eps),
              "scale_draws": (z, dnll, np.asarray(0.7, dtype) * dnll)}
    for name, inputs in arrays.items():
        yield name, getattr(kernels, name), np.full(z.shape, 777, dtype), [x.copy() for x in inputs]


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-13), ("float32", 5e-6)])
@given(size=sizes("BKZ"), seed=seeds)
def test_twins_are_equal(dtype, tolerance, size, seed):
    for exact, fast in zip(calls(reference, size, seed), calls(fused, size, seed, dtype)):
        for _, kernel, out, inputs in (exact, fast):
            kept = [value.copy() for value in inputs]
            kernel(out, *inputs)
            assert all(map(np.array_equal, inputs, kept))
        assert np.abs(fast[2] - exact[2]).max() <= tolerance * np.abs(exact[2]).max(), exact[0]


@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_goes_through_and_zero_gives_zero(kernels, dtype):
    for index in range(4):
        for name, kernel, out, inputs in calls(kernels, {"B": 3, "K": 4, "Z": 2}, 1, dtype):
            kernel(out, np.zeros_like(inputs[0]), *inputs[1:])
            assert not out.any(), name
            if index < len(inputs):
                inputs[index].flat[-1] = np.nan
                kernel(out, *inputs)
                assert np.isnan(out).any(), (name, index)


# --- whole models ---


def log_joint(vae, a, beta, z, mu, logvar):
    """log p(x|z) - beta [ log q(z) - log p(z) ] of each draw at z: the decoder and the prior as they stand in the
    model, the density q with that mu and logvar."""
    a.z[...] = z
    if vae.classes:
        reference.append_labels_forward(a.decoder[0], a.z_rows, a.labels)
    vae.decoder.forward(reference, a.decoder, a.decoder_pre, vae.parameters)
    vae.output.forward(reference, a, a.last, vae.parameters)
    vae.likelihood.forward(reference, a.nll, a.kept, a.output, a.x, vae.parameters)
    prior = log_p(a.z)
    if isinstance(vae.latent, Composed):
        vae.prior.forward(reference, a, a.prior, vae.parameters)
        prior = a.log_p
    return -a.nll - beta * (log_q(a.z, mu, logvar) - prior)


def surrogate(vae, twin, x, eps, labels, beta, weighted, scale):
    """The loss that an estimator is the derivative of.  Constant are the weights w~, their factors s, and the mu and
    logvar of the density q.  The draws move under the decoder and the prior as they stand, and those under the draws as
    they stand:  -1/B sum w~ [ s g(z(phi); theta0) + g(z0; theta) ]."""
    theta = vae.parameters.flat.copy()
    _, _, a = gradient(vae, x, eps, IWAE(beta), labels=labels)
    B, z, mu, logvar = len(x), a.z.copy(), a.mu[:len(x)].copy(), a.logvar[:len(x)].copy()
    weights = softmax(-a.nll - beta * a.log_ratio) if weighted else np.full(a.nll.shape, 1 / a.nll.shape[1])
    factor = 1 - beta + beta * weights if scale else 1

    def loss(parameters):
        b, _ = twin.passes(B, eps.shape[1])
        fill(b, x, eps, labels)
        for name, value in parameters.items():
            twin.parameters[name][...] = value
        twin.forward(b, KLEstimator.SAMPLED)
        moved = b.z.copy()
        at_rest = log_joint(twin, b, beta, z, mu, logvar)
        twin.parameters.flat[...] = theta
        twin.forward(b, KLEstimator.SAMPLED)
        return -(weights * (factor * log_joint(twin, b, beta, moved, mu, logvar) + at_rest)).sum() / B
    return loss


SURROGATES = {      # objective, draws, weighted, scaled
    "elbo stl": (ELBO(0.7, sampled=True, gradient="stl"), 4, False, False),
    "iwae stl": (IWAE(0.7, "stl"), 4, True, False), "iwae stl K=1": (IWAE(gradient="stl"), 1, True, False),
    "dreg": (IWAE(gradient="dreg"), 4, True, True), "dreg beta": (IWAE(0.7, "dreg"), 4, True, True),
    "dreg K=1": (IWAE(0.7, "dreg"), 1, True, True),
    "dreg schedule": (IWAE(LinearAnnealing(10, 2), "dreg"), 4, True, True)}


@pytest.mark.every(31)
@MODULES
@pytest.mark.parametrize("latent, classes", [("plain", 0), ("plain", 4), ("composed", 4), ("mixture", 4), ("vamp", 0),
                                             ("hierarchical", 0)])
@pytest.mark.parametrize("objective", SURROGATES)
def test_an_estimator_is_the_derivative_of_its_surrogate(kernels, latent, objective, classes):
    """Every tensor, by the complex step."""
    objective, draws, weighted, scale = SURROGATES[objective]
    vae, twin = models(latent, classes=classes)
    x, eps = noise(vae, 4, draws)
    labels = np.arange(4) % classes if classes else 0
    loss = surrogate(vae, twin, x, eps, labels, objective.beta(3), weighted, scale)
    _, gradients, _ = gradient(vae, x, eps, objective, kernels, labels, step=3)
    report = compare(gradients, numerical_gradient(loss, dict(vae.parameters), "complex"), "complex")
    assert report.worst.error <= 1e-12 and not any(tensor.vacuous for tensor in report.tensors), report
    other = surrogate(vae, twin, x, eps, labels, objective.beta(3), weighted, not scale)
    if draws > 1:      # the surrogates do differ
        wrong = compare(gradients, numerical_gradient(other, dict(vae.parameters), "complex"), "complex")
        assert all((tensor.error > 1e-3) == of_q(tensor.name) for tensor in wrong.tensors), wrong


@pytest.mark.every(6)
@pytest.mark.parametrize("name", ["numpy", "numba"])
@LATENT
@settings(max_examples=4)
@given(seed=seeds, beta=st.floats(0.1, 2), draws=st.integers(1, 5))
def test_what_does_not_change(name, latent, seed, beta, draws):
    """The loss, and the gradients of the decoder and of the prior, to the bit; with one draw, DReG is STL, in the
    reference to the bit."""
    vae, _ = models(latent, seed % 1000, name=name)
    x, eps = noise(vae, 4, draws, seed)
    found = {}
    for way in ("total", "stl", "dreg"):
        loss, gradients = vae.loss_and_gradients(x, eps, IWAE(beta, way))
        found[way] = {"loss": loss, **{name: value.copy() for name, value in gradients.items()}}
    of_elbo = vae.loss_and_gradients(x, eps, ELBO(beta, True, "stl"))
    for key, value in found["total"].items():
        same = np.array_equal if name == "numpy" else partial(np.allclose, rtol=1e-12, atol=1e-15)
        assert same(found["stl"][key], found["dreg"][key]) or draws > 1, key
        for way in ("stl", "dreg"):
            assert np.array_equal(found[way][key], value) == (not of_q(key)), (way, key)
        if draws == 1 and key != "loss":
            assert np.allclose(of_elbo[1][key], found["stl"][key], rtol=1e-12, atol=1e-14), key


# --- how they run ---

ESTIMATED = {"elbo stl": ELBO(0.7, True, "stl"), "iwae stl": IWAE(0.7, "stl"), "dreg": IWAE(0.7, "dreg")}


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-3)])
@pytest.mark.parametrize("objective", ESTIMATED)
def test_two_cores_compute_the_same(objective, dtype, tolerance):
    """Recorded and replayed, one image or many, against the reference; the same bits for one thread and two."""
    for size, K in ((1, 1), (7, 3), (40, 2)):
        exact = model(kernels="numpy")
        x, eps = (value.astype(dtype) for value in noise(exact, size, K))
        call = x, eps, ESTIMATED[objective]
        ours = model(dtype=dtype)
        assert type(ours.engine).__name__ == "ThreadedExecutor"
        assert_equal(result(ours, *call), result(exact, *call), tolerance, tolerance)
        assert_equal(result(ours, *call), run_directly(ours, *call), tolerance, tolerance)
        assert bits(ours, *call) == bits(model(2, dtype=dtype), *call)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_what_was_computed_before_does_not_matter(kernels):
    """Recorded passes are kept by the estimator they are of, and buffers shared."""
    every = [ELBO(0.7), ELBO(0.7, True), IWAE(0.7), *ESTIMATED.values()]
    x, eps = noise(model(), 6, 3)
    fresh = [result(model(kernels=kernels), x, eps, objective) for objective in every]
    used = model(kernels=kernels)
    for index in (0, 5, 2, 3, 1, 4, 5, 4, 3, 2, 1, 0):
        loss, gradients = used.loss_and_gradients(x, eps, every[index], 4)
        assert loss == fresh[index][0]
        assert all(np.array_equal(value, fresh[index][1][name]) for name, value in gradients.items())


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_training(kernels):
    """The estimators train, each its own way, to about the same bound, which is measured as always."""
    last = {}
    for objective in (IWAE(), *ESTIMATED.values()):
        vae = VAE(7, (6,), 3, seed=1, kernels=kernels)
        history = fit(vae, X, X_TEST, 8, 16, objective=objective, n_samples=3, seed=2)
        assert history[-1]["test_loss"] < history[0]["test_loss"]
        last[tuple(vae.parameters["encoder.0.W"].ravel())] = history[-1]["test_loss"]
    assert len(last) == 4 and max(last.values()) - min(last.values()) < 0.5
    for objective in (IWAE(gradient="dreg"), ELBO(sampled=True, gradient="stl")):
        assert objective.bound().kl_estimator is KLEstimator.SAMPLED and type(objective.bound()) is type(objective)


# --- what does not fit ---

class Shift(Flow):
    """Some flow: z = z0 + 1."""

    name = "shift"

    def forward(self, kernels, a, own, params):
        a.z[...], a.log_det[...] = a.z0 + 1, 0

    def backward(self, kernels, d, a, own, grads, params):
        d.z0[...] = d.z


@pytest.mark.parametrize("make, words", [
    (lambda: IWAE(gradient="reinforce"), "gradient must be one of total, stl, dreg, got 'reinforce'"),
    (lambda: IWAE(gradient=None), "gradient must be one of total, stl, dreg"),
    (lambda: ELBO(gradient="STL", sampled=True), "gradient must be one of total, stl, got 'STL'"),
    (lambda: ELBO(gradient="dreg", sampled=True), "for ELBO use total or stl"),
    (lambda: ELBO(gradient="stl"), r"use ELBO\(sampled=True, gradient='stl'\)")])
def test_estimators_that_do_not_fit_the_bound(make, words):
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_estimators_need_the_density_of_a_gaussian():
    """Of a flow, d log q / dz is not known here; the plain gradient is.  And DReG needs draws that share nothing."""
    vae = VAE(5, (6,), 3, dtype="float64", posterior=Shift())
    x, eps = noise(vae, 4, 2)
    for objective in ESTIMATED.values():
        for call in (lambda: vae.loss_and_gradients(x, eps, objective),
                     lambda: fit(vae, x.astype("float32"), x.astype("float32"), objective=objective)):
            with pytest.raises(ValueError, match="needs a Gaussian q.*use gradient total") as caught:
                call()
            assert "\n" not in str(caught.value)
    vae = VAE(5, (6,), 3, likelihood="gaussian-optimal")
    with pytest.raises(ValueError, match="in gaussian-optimal all draws share one sigma; use gradient total"):
        vae.loss_and_gradients(x, eps, IWAE(gradient="dreg"))
    assert vae.loss_and_gradients(x, eps, ELBO(sampled=True, gradient="stl"))
    assert Composed(NoFlow(), StandardNormal()).gaussian and compose(NoFlow(), StandardNormal()).gaussian
