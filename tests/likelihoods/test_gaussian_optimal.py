"""gaussian-optimal: in training the sigma that is best for the batch, in closed form; for measuring one that no image
under measurement has chosen."""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE, Callback, Checkpoint, FreeBits, NonFiniteError, fit
from npvae.kernels import fused, reference
from npvae.engine.executor import DirectExecutor
from npvae.train import loop, stream
from npvae.train.rows import _SIGMA
from npvae.objectives import KLEstimator
from strategies import seeds, spread
from linear_models import at_the_optimum, exact_log_p, sigma_points

MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
NAMES = pytest.mark.parametrize("kernels", ["numpy", "numba"])
B, K, D, Z = 5, 3, 7, 2
RNG = np.random.default_rng(8)
X, X_TEST = RNG.integers(0, 256, (53, D), dtype=np.uint8), RNG.integers(0, 256, (9, D), dtype=np.uint8)


def model(seed=0, **config):
    vae = VAE(**{"input_dim": D, "hidden": (6,), "latent_dim": Z, "activation": "tanh", "dtype": "float64", **config},
              likelihood="gaussian-optimal", seed=seed)
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def of_batch(kernels, mean, x):
    """nll and logvar."""
    nll, logvar = np.full(mean.shape[:2], 777.0), np.full(1, 777.0)
    kernels.gaussian_optimal_nll_forward(nll, logvar, mean, x)
    return nll, logvar


def at_sigma(kernels, mean, x, logvar):
    """nll and gradient of the Gaussian of one fixed sigma, equal weights."""
    nll, dmean, dlogvar = np.empty(mean.shape[:2]), np.empty_like(mean), np.empty(1)
    kernels.gaussian_nll_forward(nll, mean, x, logvar)
    kernels.gaussian_nll_backward(dmean, dlogvar, np.full_like(nll, 1 / nll.size), mean, x, logvar)
    return nll, dmean, dlogvar


@MODULES
@given(seed=seeds, factor=st.floats(0.2, 5))
def test_no_other_sigma_is_better_for_the_batch(kernels, seed, factor):
    """It is the mean squared residual over images, draws and pixels; nll is the Gaussian's there."""
    rng = np.random.default_rng(seed)
    mean, x = spread(rng, (B, K, D)), spread(rng, (B, D))
    nll, logvar = of_batch(kernels, mean, x)
    assert np.exp(logvar[0]) == pytest.approx(np.mean((mean - x[:, None]) ** 2), rel=1e-13)
    same, _, dlogvar = at_sigma(kernels, mean, x, logvar)
    assert np.allclose(nll, same, rtol=1e-13, atol=1e-13) and abs(dlogvar[0]) < 1e-13
    other, _, _ = at_sigma(kernels, mean, x, logvar + math.log(factor))
    assert other.mean() >= nll.mean()
    assert nll.mean() == pytest.approx(D / 2 * (logvar[0] + math.log(2 * math.pi) + 1), rel=1e-12)


@MODULES
def test_with_equal_weights_sigma_has_no_influence_with_others_it_has(kernels):
    """The envelope theorem.  (That both gradients are right the complex step says, in test_kernels.py.)"""
    rng = np.random.default_rng(5)
    mean, x = spread(rng, (B, K, D)), spread(rng, (B, D))
    _, logvar = of_batch(kernels, mean, x)
    _, plain, _ = at_sigma(kernels, mean, x, logvar)
    ours = np.empty_like(mean)
    kernels.gaussian_optimal_nll_backward(ours, np.full((B, K), 1 / (B * K)), logvar, mean, x)
    assert np.allclose(ours, plain, rtol=1e-12, atol=1e-15)
    squares, variance = np.sum((mean - x[:, None]) ** 2, axis=-1), np.exp(logvar)
    weights = (squares == squares.max()).astype(float)      # all on the worst
    kernels.gaussian_optimal_nll_backward(ours, weights, logvar, mean, x)
    c = (D - squares.max() / variance) / mean.size
    assert c < -0.01 and np.allclose(ours, (mean - x[:, None]) / variance * (weights[..., None] + c), rtol=1e-12)


@NAMES
@pytest.mark.parametrize("objective", [ELBO(), ELBO(sampled=True), IWAE(), FreeBits(0)])
def test_every_gradient_vanishes_at_the_optimum_of_a_linear_model(kernels, objective):
    """There the best sigma for the sigma points is that of probabilistic PCA; the loss is the exact -log p(x)."""
    learned, x, sigma = at_the_optimum(kernels, 3)
    vae = VAE(**{**learned.config(), "likelihood": "gaussian-optimal"}, kernels=kernels)
    vae.parameters.flat[...] = learned.parameters.flat
    vae.parameters["likelihood.logvar"][...] = 5      # not looked at
    vae.gradients.flat[...] = 777
    loss, gradients = vae.loss_and_gradients(x, sigma_points(len(x)), objective)
    assert loss == pytest.approx(-exact_log_p(vae, x, sigma).mean(), abs=1e-11)
    assert np.abs(gradients.flat).max() <= 1e-10
    vae.parameters["output.W"][...] *= 1.01
    assert vae.loss_and_gradients(x, sigma_points(len(x)), objective)[0] > loss


# ---- Measured with a sigma of its own

@NAMES
def test_what_is_measured_does_not_depend_on_the_images_beside_it(kernels):
    """And to measure is not to train: no parameter moves.  (In training all images have a say.)"""
    vae = model(kernels=kernels)
    x, eps = X[:6] / 255, RNG.standard_normal((6, K, Z))
    kept = vae.parameters.flat.copy()
    vae.loss_and_gradients(x, eps)
    vae.elbo(x, np.random.default_rng(0))

    def nlls(x, eps, trained):
        a, _ = vae.passes(len(x), K)
        a.x[...], a.eps[...] = x, eps
        vae.engine.forward(a, KLEstimator.EXACT)
        if trained:
            vae.likelihood.fit_batch(vae.kernels, a.nll, a.kept, a.output, a.x)
        return a.nll.copy()
    assert np.allclose(nlls(x[:1], eps[:1], False), nlls(x, eps, False)[:1], rtol=1e-12)
    assert not np.allclose(nlls(x[:1], eps[:1], True), nlls(x, eps, True)[:1], rtol=0.01)
    assert type(vae.engine) is DirectExecutor and np.array_equal(vae.parameters.flat, kept)
    once, logvar = nlls(x, eps, False), vae.parameters["likelihood.logvar"]
    a, _ = vae.passes(6, K)
    squares = np.sum((a.x[:, None] - a.output) ** 2, axis=2)
    assert np.allclose(once, 0.5 * (squares * np.exp(-logvar) + D * (logvar + math.log(2 * math.pi))), rtol=1e-12)
    logvar[...] = 0
    assert np.allclose(nlls(x, eps, False), 0.5 * (squares + D * math.log(2 * math.pi)), rtol=1e-12)


@pytest.mark.parametrize("kernels, binarize", [("numpy", "none"), ("numba", "none"), ("numba", "dynamic")])
def test_fit_leaves_the_sigma_that_is_best_for_the_training_images(kernels, binarize):
    """Of the last epoch's decoder; the test set is measured with it."""
    vae = model(kernels=kernels)
    before = float(vae.parameters["likelihood.logvar"][0])
    history = fit(vae, X, X_TEST, 3, 16, binarize=binarize)
    after, rng = float(vae.parameters["likelihood.logvar"][0]), stream(0, _SIGMA, 2)
    a, _ = vae.passes(len(X_TEST), 1)      # as the last evaluation left them
    expected = 0.5 * (np.sum((a.x[:, None] - a.output) ** 2, axis=2) / math.exp(after)
                      + D * (after + math.log(2 * math.pi)))
    assert after != before and history[-1]["test_nll"] == pytest.approx(expected.mean(), rel=1e-9)
    x = X / 255
    if binarize == "dynamic":
        x = (rng.random(x.shape, dtype=np.float32) < x).astype(float)
    assert math.exp(after) == pytest.approx(np.mean((vae.reconstruct(x, rng) - x) ** 2), rel=1e-6)


def test_a_large_set_is_represented_by_images_spread_over_it(monkeypatch):
    monkeypatch.setattr(loop, "_FIT_IMAGES", 5)
    vae, seen = model(dtype="float32", kernels="numpy"), []
    monkeypatch.setattr(vae, "fit_likelihood", lambda x, rng, labels: seen.append((x, labels)))
    fit(vae, X, X_TEST, 1, 16)
    (x, labels), = seen
    assert labels is None and x.dtype == vae.dtype
    assert np.allclose(x, X[[0, 13, 26, 39, 52]] / 255, rtol=1e-7)


def test_residuals_whose_squares_add_up_to_more_than_single_precision_holds():
    vae = model(dtype="float32", kernels="numpy")
    vae.fit_likelihood(np.full((8, D), 1e19, np.float32), np.random.default_rng(0))
    assert vae.parameters["likelihood.logvar"][0] == pytest.approx(38 * math.log(10))


def test_labels_go_along():
    vae, labels = model(classes=4), np.arange(53) % 4
    fit(vae, X, X_TEST, 1, 16, labels_train=labels, labels_test=labels[:9])
    rng, x = stream(0, _SIGMA, 0), X / 255
    best = np.mean((vae.reconstruct(x, rng, labels) - x) ** 2)
    assert np.exp(vae.parameters["likelihood.logvar"][0]) == pytest.approx(best, rel=1e-6)


class Stop(Callback):
    """After so many steps in all."""

    def __init__(self, steps):
        self.left = steps

    def on_step(self, run):
        self.left -= 1
        run.interrupted = self.left == 0


def test_a_run_that_was_stopped_goes_on_with_the_same_sigma(tmp_path):
    path, whole, parts = tmp_path / "c.npz", model(), model()
    history = fit(whole, X, X_TEST, 3, 16)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, X, X_TEST, 3, 16, callbacks=[Checkpoint(path), Stop(6)])
    again = model(seed=1)
    resumed = fit(again, X, X_TEST, 3, 16, resume=path)
    assert np.array_equal(again.parameters.flat, whole.parameters.flat)
    assert [one["test_loss"] for one in resumed] == [one["test_loss"] for one in history]
    again.save(path)
    assert VAE.load(path).parameters["likelihood.logvar"] == whole.parameters["likelihood.logvar"]


def test_new_images_have_the_model_s_sigma():
    vae = model()
    vae.parameters["likelihood.logvar"][...] = 2 * math.log(0.3)
    means, drawn = (vae.sample(4000, np.random.default_rng(1), mean=mean) for mean in (True, False))
    assert (drawn - means).std() == pytest.approx(0.3, rel=5 / math.sqrt(2 * drawn.size))


@NAMES
def test_without_any_residual_there_is_no_best_sigma(kernels):
    """Black images and a decoder that says black: nll has no least value.  Nothing is changed before that is said."""
    vae = VAE(D, (6,), Z, likelihood="gaussian-optimal", kernels=kernels)
    vae.parameters["output.W"][...] = vae.parameters["output.b"][...] = 0
    black, before = np.zeros((8, D), np.uint8), vae.parameters.flat.copy()
    says = "likelihood gaussian-optimal: the decoder's output equals x in every pixel, so the best sigma is 0"
    with pytest.raises(NonFiniteError, match=f"^{says}"):
        vae.loss_and_gradients(black / np.float32(255), np.zeros((8, 1, Z)))
    with pytest.raises(NonFiniteError, match=f"^{says}"):
        vae.fit_likelihood(black / np.float32(255), np.random.default_rng(0))
    with pytest.raises(NonFiniteError, match=f"^step 0: {says}"):
        fit(vae, black, black, 1, 4)
    assert np.array_equal(vae.parameters.flat, before)
