"""log p(x) by importance sampling, with its errors and its effective sample size; exact values; and what each latent
dimension says of the image.  (Values, blocks and memory: `test_evaluate.py`.)
"""
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import ELBO, IWAE, VAE, Adam, active_units, fit, kl_per_dimension
from npvae.evaluate import bounds
from npvae.evaluate import (
    elbo, exact_log_likelihood, information_per_dimension, log_likelihood, nats_per_dimension, rows_at_once)
from npvae.kernels import fused, reference
from strategies import seeds
from measured_models import exact, linear_vae, worsen

MODULES = pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])


class Weights:
    """What `log_likelihood` asks of a model, with log w that no network made: (images, L)."""

    dtype = "float64"
    output = SimpleNamespace(b="b", shapes={"b": (3,)})

    def __init__(self, log_w, module):
        self.log_w, self.kernels, self.engine, self.done = log_w, module, self, {}

    def images(self, x, name):
        return x

    def check_labels(self, labels, n):
        return np.zeros(n, int)

    def passes(self, batch, draws):
        return SimpleNamespace(x=np.empty((batch, 1)), labels=np.empty(batch), uniform=np.empty(2, np.float32),
                               noise=np.empty(2), nll=np.empty((batch, draws)),
                               log_ratio=np.empty((batch, draws))), None

    def running(self):
        return np.errstate()

    def forward(self, a, sampled):
        first = sum(done == self.log_w.shape[1] for done in self.done.values())      # images of the blocks before
        rows, begun = slice(first, first + len(a.nll)), self.done.get(first, 0)
        a.nll[...] = 3 - self.log_w[rows, begun:begun + a.nll.shape[1]]
        a.log_ratio[...] = -3
        self.done.update({image: begun + a.nll.shape[1] for image in range(first, first + len(a.nll))})


def by_hand(log_w):
    """Value, ess, error and bias of one image, as their definitions say, with plain numbers."""
    def log_mean(log_w):
        most = max(log_w)
        return most + math.log(math.fsum(math.exp(value - most) for value in log_w) / len(log_w))

    L, M, value = len(log_w), min(16, len(log_w)), log_mean(log_w)
    cuts = [L * group // M for group in range(M + 1)]
    without = [log_mean(log_w[:a] + log_w[b:]) if M > 1 else math.nan for a, b in zip(cuts, cuts[1:])]
    centre, w = sum(without) / M, [math.exp(one - value) for one in log_w]
    return (value, sum(w) ** 2 / sum(one ** 2 for one in w),
            math.sqrt((M - 1) / M * sum((one - centre) ** 2 for one in without)) if M > 1 else math.nan,
            (M - 1) * (centre - value))


# ---- Errors and effective samples

@MODULES
@given(images=st.sampled_from([1, 3, 8, 11]), samples=st.sampled_from([1, 2, 7, 125, 126, 300, 1001]), seed=seeds,
       scale=st.sampled_from([0.1, 2.0, 30.0]))
def test_weights_made_by_hand(module, images, samples, seed, scale):
    """In however many passes; also where one weight is all that counts."""
    log_w = np.random.default_rng(seed).normal(-900, scale, (images, samples))
    found = log_likelihood(Weights(log_w, module), np.zeros((images, 1)), np.random.default_rng(0), samples)
    expected = np.array([by_hand(row) for row in log_w.tolist()])
    assert found.n_samples == samples
    np.testing.assert_allclose(np.stack([found.values, found.ess], axis=1), expected[:, :2], rtol=1e-10)
    np.testing.assert_allclose(np.stack([found.errors, found.biases], axis=1), expected[:, 2:], rtol=1e-6, atol=1e-11)
    assert samples == 1 or samples % 16 or (found.biases < 1e-11).all()      # Jensen's inequality, for groups alike
    assert (found.ess >= 1 - 1e-9).all() and (found.ess <= samples * (1 + 1e-9)).all()


@MODULES
def test_known_weights(module):
    """Two of four weights equal and the rest 0: as good as two draws.  Equal ones: as good as all.  `without`: log W
    when one draw is left out."""
    log_w = np.array([[0, 0, -2000, -2000], [5, 5, 5, 5], [0, math.log(3), -2000, -2000.0]])
    found = log_likelihood(Weights(log_w, module), np.zeros((3, 1)), np.random.default_rng(0), 4)
    np.testing.assert_allclose(found.ess, [2, 4, 16 / 10], rtol=1e-12)
    np.testing.assert_allclose(found.values, [math.log(0.5), 5, 0], atol=1e-12)
    without = np.log([[1 / 3, 1 / 3, 2 / 3, 2 / 3], [1] * 4, [1, 1 / 3, 4 / 3, 4 / 3]])
    np.testing.assert_allclose(found.errors, math.sqrt(3) * without.std(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.biases, 3 * (without.mean(axis=1) - [math.log(0.5), 0, 0]), atol=1e-12)


def test_means_over_images():
    found = log_likelihood(Weights(np.log([[1, 3], [2, 2], [4, 12.0]]), reference), np.zeros((3, 1)),
                           np.random.default_rng(0), 2)
    values = np.log([2, 2, 8])
    assert found.mean == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(3))
    assert found.sampling_error == pytest.approx(math.sqrt(2) * math.log(3) / 2 / 3)
    assert found.sampling_bias == pytest.approx((np.log([1, 3, 4, 12]).sum() / 2 - np.log([2, 8]).sum()) / 3)
    one = log_likelihood(Weights(np.zeros((1, 1)), reference), np.zeros((1, 1)), np.random.default_rng(0), 1)
    assert math.isnan(one.standard_error) and math.isnan(one.sampling_error) and one.ess[0] == 1


@pytest.mark.parametrize("kernels, dtype, rounding", [("numpy", "float64", 1e-9), ("numba", "float64", 1e-9),
                                                      ("numba", "float32", 1e-4)])
def test_at_the_exact_posterior_every_draw_counts(kernels, dtype, rounding):
    vae, x = linear_vae(8, 3, 5, kernels)
    low = VAE(8, (), 3, likelihood="gaussian:0.7", dtype=dtype, kernels=kernels)
    low.parameters.flat[...] = vae.parameters.flat
    for samples in (2, 300):
        found = log_likelihood(low, x, np.random.default_rng(0), samples)
        np.testing.assert_allclose(found.ess, samples, rtol=rounding)
        assert (found.errors <= math.sqrt(rounding)).all()
        np.testing.assert_allclose(found.values, exact(vae, x), rtol=1e-5)
    worsen(low)
    assert (log_likelihood(low, x, np.random.default_rng(0), 300).ess < 290).all()


def covered(estimates, errors, truth):
    """How many lie within 1 and within 1.96 standard errors, as sums of 200 coins would: five sigma of a binomial."""
    off = np.abs(estimates - truth) / errors
    for limit, share in ((1, 0.6827), (1.96, 0.95)):
        spread = 5 * math.sqrt(len(off) * share * (1 - share))
        assert abs(np.sum(off < limit) - len(off) * share) < spread, (limit, np.mean(off < limit))


def repeated(scale=1.0):
    """200 estimates of log p(x) of one image, with their errors, and the truth."""
    vae, x = linear_vae(8, 3, 6)
    worsen(vae)
    found = log_likelihood(vae, np.tile(x[:1], (200, 1)), np.random.default_rng(3), 600)
    return found.values, scale * found.errors, exact(vae, x[:1])[0]


def test_the_error_of_an_image_covers_the_truth_as_often_as_it_should():
    covered(*repeated())


@pytest.mark.parametrize("scale", [0.7, 1.6])
def test_errors_of_another_size_are_found(scale):
    with pytest.raises(AssertionError):
        covered(*repeated(scale))


TAILS = {      # of log w, with log E[w]: the posterior too wide, too narrow, and weights without a variance
    "normal 1": (lambda rng, size: rng.normal(0, 1, size), 0.5),
    "normal 2.5": (lambda rng, size: rng.normal(0, 2.5, size), 2.5 ** 2 / 2),
    "normal 4": (lambda rng, size: rng.normal(0, 4, size), 8.0),
    "chi-squared 0.2": (lambda rng, size: 0.4 * rng.gamma(10, 1, size), -10 * math.log(0.6)),
    "chi-squared 0.3": (lambda rng, size: 0.6 * rng.gamma(10, 1, size), -10 * math.log(0.4)),
    "Pareto 0.6": (lambda rng, size: 0.6 * rng.exponential(size=size), -math.log(0.4))}


@pytest.mark.every(5)
@pytest.mark.parametrize("samples", [60, 1000])
@pytest.mark.parametrize("tail", TAILS)
def test_the_error_holds_however_few_effective_samples_there_are(tail, samples):
    """The spread of 600 estimates of one number, against what each of them says of it: from half of all weights down to
    some four effective samples.  The delta method would say 1 / ess - 1 / L, and half of the truth at 4."""
    draw, truth = TAILS[tail]
    log_w = draw(np.random.default_rng(1), (600, samples))
    found = log_likelihood(Weights(log_w, fused), np.zeros((600, 1)), np.random.default_rng(0), samples)
    spread, delta = found.values.std(ddof=1), math.sqrt(np.mean(1 / found.ess - 1 / samples))
    assert 0.75 < spread / math.sqrt(np.square(found.errors).mean()) < 1.15
    if np.median(found.ess) < 6:
        assert spread / delta > 1.4
    bias = found.mean - truth
    if found.sampling_bias < -0.05:      # only so much can be said
        assert bias < 0.9 * found.sampling_bias
    else:
        assert 2.5 * found.sampling_bias - 0.02 < bias < 0.9 * found.sampling_bias + 3 * spread / math.sqrt(600)


KINDS = {"plain": ({}, ELBO()), "two layers": ({"prior": "hierarchical:6,3"}, ELBO(sampled=True)),
         "flow": ({"posterior": "planar:2"}, ELBO(sampled=True)), "vamp": ({"prior": "vamp:4"}, ELBO(sampled=True)),
         "iwae": ({}, IWAE())}


@pytest.mark.every(6)
@pytest.mark.parametrize("narrow", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_holds_for_trained_models(kind, narrow):
    """40 times the same 6 images: their errors against the spread of their values.  With the posterior of the training
    and with one too narrow, of which some four draws of 100 carry the weight."""
    config, objective = KINDS[kind]
    rng = np.random.default_rng(5)
    logits = 3 * rng.standard_normal((400, 4)) @ rng.standard_normal((4, 12))
    x = (rng.random((400, 12)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    vae = VAE(12, (16,), 8, **config)
    fit(vae, x, x[:20], 15, 20, Adam(lr=1e-2), objective, 5 if kind == "iwae" else 1)
    vae.parameters["logvar.b"][...] -= narrow
    found = log_likelihood(vae, np.tile(x[:6], (40, 1)), np.random.default_rng(0), 100)
    spread = math.sqrt(found.values.reshape(40, 6).var(axis=0, ddof=1).mean())
    assert 0.85 < spread / math.sqrt(np.square(found.errors).mean()) < 1.15
    if narrow:
        assert np.median(found.ess) < 13 and found.sampling_bias < -0.05
        assert spread > 1.2 * math.sqrt(np.mean(1 / found.ess - 1 / 100))      # the delta method
    else:
        assert np.median(found.ess) > 25 and found.sampling_bias > -0.05


def test_the_error_of_the_mean_covers_the_truth_as_often_as_it_should():
    """Over images: 200 sets of 50 that the model itself draws.  Over draws: 200 times the same 10 images."""
    vae, _ = linear_vae(8, 3, 6)
    W, b, rng = vae.parameters["output.W"], vae.parameters["output.b"], np.random.default_rng(4)
    x = rng.normal(size=(10_000, 3)) @ W + b + 0.7 * rng.normal(size=(10_000, 8))
    log_det = np.linalg.slogdet(W.T @ W + 0.49 * np.eye(8))[1]
    found = [log_likelihood(vae, part, rng, 1) for part in np.split(x, 200)]
    covered(np.array([one.mean for one in found]), np.array([one.standard_error for one in found]),
            -0.5 * (log_det + 8 * math.log(2 * math.pi) + 8))
    worsen(vae)
    found = [log_likelihood(vae, x[:10], rng, 300) for _ in range(200)]
    covered(np.array([one.mean for one in found]), np.array([one.sampling_error for one in found]),
            exact(vae, x[:10]).mean())


def test_its_defaults_and_what_it_shows_on_the_way():
    defaults = {p.name: p.default for p in inspect.signature(log_likelihood).parameters.values()}
    assert [defaults[name] for name in ("n_samples", "labels", "each", "progress")] == [5000, None, None, iter]
    vae, x = linear_vae(8, 3, 1)
    starts, seen = [], []

    def progress(blocks):
        starts.extend(blocks)
        return iter(blocks)

    found = log_likelihood(vae, x[:20], np.random.default_rng(0), 300, None,
                           lambda images, a: seen.append((images.start, a.nll.shape)), progress)
    assert starts == [0, 8, 16] and seen == [(start, (min(8, 20 - start), draws)) for start in starts
                                             for draws in (125, 125, 50)]
    assert np.array_equal(found.values, vae.log_likelihood(x[:20], np.random.default_rng(0), 300))


@pytest.mark.parametrize("config", [{}, {"prior": "mixture:3"}, {"posterior": "planar:2"}], ids=str)
def test_elbo_of_every_kind_of_model(config):
    """-nll - KL, exact where the KL term has a closed form, else at the z that was drawn; with or without labels."""
    vae = VAE(5, (4,), 2, dtype="float64", kernels="numpy", **config)
    vae.parameters.flat[...] += 0.5 * np.random.default_rng(1).standard_normal(vae.parameters.flat.size)
    x = np.random.default_rng(2).random((7, 5))
    bound = vae.elbo(x, np.random.default_rng(3))
    eps = vae.passes(7, 1)[0].eps.copy()      # still in the buffer
    assert np.array_equal(elbo(vae, x, np.random.default_rng(3)), bound)
    for i in range(7):
        loss, _ = vae.loss_and_gradients(x[i:i + 1], eps[i:i + 1], ELBO(sampled=bool(config)))
        assert bound[i] == pytest.approx(-loss, rel=1e-12)


def test_few_rows_at_a_time_where_the_decoder_is_wide(monkeypatch):
    """As with 256 numbers for each pixel; of several images at once, or of one, and never none."""
    def rows(width):
        return rows_at_once(SimpleNamespace(output=SimpleNamespace(b="b", shapes={"b": (width,)})), 500)

    assert (rows(784), rows(256 * 784), rows(2**24), rows(2**26)) == (500, 167, 2, 1)
    vae, x = linear_vae(8, 3, 1)
    for rows in (1, 3, 20):
        monkeypatch.setattr(bounds, "_NUMBERS", 8 * rows + 7)
        sizes = []
        found = log_likelihood(vae, x, np.random.default_rng(0), 30, None, lambda images, a: sizes.append(a.nll.size))
        assert np.allclose(found.values, exact(vae, x), atol=1e-9) and np.allclose(found.ess, 30)
        assert max(sizes) <= rows and len(sizes) <= 1.4 * 40 * 30 / rows
        assert np.allclose(vae.elbo(x, np.random.default_rng(0)).mean(), exact(vae, x).mean(), atol=1)


# ---- Exact values

@pytest.mark.parametrize("config", [{}, {"hidden": (5,)}, {"likelihood": "gaussian-learned:0.4"}, {"latent_dim": 7},
                                    {"posterior": "planar:2"}, {"classes": 3}], ids=str)
def test_exact_log_likelihood(config):
    """Against the density of N(b, W^T W + sigma^2 I) as a D x D matrix, whatever the encoder."""
    vae = VAE(**{"input_dim": 5, "hidden": (), "decoder_hidden": (), "latent_dim": 2, "likelihood": "gaussian:0.4",
                 "dtype": "float64", "kernels": "numpy", **config})
    rng = np.random.default_rng(0)
    for name in ("output.W", "output.b"):
        vae.parameters[name][...] = 0.3 * rng.normal(size=vae.parameters[name].shape)
    x, labels = 0.5 * rng.normal(size=(6, 5)), np.array([0, 2, 1, 1, 0, 2]) if vae.classes else None
    W, Z = vae.parameters["output.W"], vae.latent_dim
    covariance = W[:Z].T @ W[:Z] + 0.16 * np.eye(5)
    for i in range(6):
        r = x[i] - vae.parameters["output.b"] - (W[Z + labels[i]] if vae.classes else 0)
        expected = -0.5 * (r @ np.linalg.inv(covariance) @ r + np.linalg.slogdet(2 * math.pi * covariance)[1])
        assert exact_log_likelihood(vae, x, labels)[i] == pytest.approx(expected, rel=1e-12)
    estimate = log_likelihood(vae, x, rng, 20_000, labels)
    assert (np.abs(estimate.values - exact_log_likelihood(vae, x, labels)) < 5 * estimate.errors).all()
    assert estimate.errors.max() < 0.1


@pytest.mark.parametrize("config, got", [
    ({"prior": "mixture:3"}, "prior mixture:3"), ({"decoder_hidden": (4,)}, r"decoder_hidden \[4\]"),
    ({"likelihood": "bernoulli"}, "likelihood bernoulli"), ({"likelihood": "gaussian-pixel"}, "likelihood gaussian-p"),
    ({"likelihood": "bernoulli", "decoder": "made:4"}, "decoder made:4")], ids=str)
def test_no_exact_value_where_none_is_known(config, got):
    vae = VAE(5, (), 2, **{"likelihood": "gaussian", "dtype": "float64", "kernels": "numpy", **config})
    with pytest.raises(ValueError, match=f"log p.x. is known .* alone, got {got}.*: log_likelihood fits") as caught:
        exact_log_likelihood(vae, np.zeros((3, 5)))
    assert "\n" not in str(caught.value)
    vae = VAE(5, (), 2, likelihood="gaussian", kernels="numpy")
    for x, says in ((np.full((3, 5), np.nan), "x must hold finite numbers"), (np.zeros((3, 4)), "x must have shape")):
        with pytest.raises(ValueError, match=says):
            exact_log_likelihood(vae, x)


# ---- Latent dimensions

def test_information_lies_between_what_is_known_and_the_kl():
    """The mutual information of the linear model, by integration over a grid, is less; the KL is more; and where q(z_j)
    is Gaussian and N(0, 1), all three are one."""
    vae, x = linear_vae(8, 3, 4)
    x = np.tile(x, (50, 1))
    information, kl = information_per_dimension(vae, x), kl_per_dimension(vae, x)
    mu, logvar = vae.encode(x[:40])
    grid = np.linspace(-9, 9, 4001)
    sigma = np.exp(logvar / 2)[..., None]
    q = np.exp(-0.5 * ((grid - mu[..., None]) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    step, mixture = grid[1] - grid[0], q.mean(axis=0)
    ratio = np.log(np.where(q > 1e-250, q, 1) / np.where(q > 1e-250, mixture, 1))
    mutual = (q * ratio).sum(axis=-1).mean(axis=0) * step
    assert (mutual < information + 1e-9).all() and (information < kl).all() and (mutual > 0.01).all()
    vae.parameters["mu.W"][...] = vae.parameters["logvar.b"][...] = 0
    np.testing.assert_allclose(information_per_dimension(vae, x), 0, atol=1e-12)
    rng, normal = np.random.default_rng(0), VAE(3, (), 3, dtype="float64", likelihood="gaussian", kernels="numpy")
    normal.parameters["mu.W"][...], normal.parameters["logvar.b"][...] = np.diag([0.6, 0.8, 0.1]), np.log(
        [1 - 0.36, 1 - 0.64, 1 - 0.01])      # the aggregate is N(0, 1): I(x; z_j) = -1/2 log(1 - rho^2)
    normal.parameters["mu.b"][...] = normal.parameters["logvar.W"][...] = 0
    many = rng.normal(size=(100_000, 3))
    expected = -0.5 * np.log([1 - 0.36, 1 - 0.64, 1 - 0.01])
    np.testing.assert_allclose(information_per_dimension(normal, many), expected, atol=0.01)
    np.testing.assert_allclose(kl_per_dimension(normal, many), expected, atol=0.01)


def test_information_of_spreads_that_differ():
    """Three images with means 0, 1, 5 and variances 1, 4, 1/4 in one dimension: v = 14/3 + 7/4, mean logvar 0; and a
    unit counts as active by its variance over images, more than 0.01."""
    vae = VAE(3, (), 2, dtype="float64", likelihood="gaussian", kernels="numpy")
    vae.parameters.flat[...] = 0
    vae.parameters["mu.W"][:, 0], vae.parameters["logvar.W"][:, 0] = [0, 1, 5], np.log([1, 4, 1 / 4])
    np.testing.assert_allclose(information_per_dimension(vae, np.eye(3)), [math.log(14 / 3 + 7 / 4) / 2, 0], rtol=1e-14)
    vae.parameters["mu.W"][:, 1] = [0, 0.2, 0.2]      # a variance of 0.0089
    assert active_units(vae, np.eye(3)) == 1
    vae.parameters["mu.W"][:, 1] = [0, 0.22, 0.22]      # of 0.0108
    assert active_units(vae, np.eye(3)) == 2


@pytest.mark.parametrize("config, got", [({"prior": "mixture:4"}, "prior mixture:4 with posterior gaussian"),
                                         ({"posterior": "iaf:2"}, "prior normal with posterior iaf:2"),
                                         ({"prior": "vamp:3"}, "prior vamp:3 with"), ({"prior": "hierarchical:2"}, "")])
def test_no_kl_per_dimension_where_the_kl_is_no_sum_of_them(config, got):
    vae, x = VAE(6, (5,), 3, kernels="numpy", **config), np.random.default_rng(0).random((9, 6))
    with pytest.raises(ValueError, match=f"sum over latent dim.* got .*{got}.*: information_per_d.* fits$") as caught:
        kl_per_dimension(vae, x)
    assert "\n" not in str(caught.value)
    assert np.array_equal(nats_per_dimension(vae, x), information_per_dimension(vae, x))
    plain = VAE(6, (5,), 3, kernels="numpy")
    assert np.array_equal(nats_per_dimension(plain, x), kl_per_dimension(plain, x))


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_bounds_of_a_conditional_model(kernels):
    """Where z says nothing, the label of each image alone decides, in whichever block it is."""
    vae, rng = VAE(4, (), 2, dtype="float64", kernels=kernels, classes=3), np.random.default_rng(0)
    vae.parameters.flat[...] = 0
    vae.parameters["output.W"][2:] = rng.normal(size=(3, 4))
    x, labels = rng.random((1100, 4)), rng.integers(3, size=1100)
    logits = vae.parameters["output.W"][2 + labels]
    expected = (x * logits - np.logaddexp(0, logits)).sum(axis=1)
    np.testing.assert_allclose(vae.elbo(x, rng, labels), expected, rtol=1e-12)
    np.testing.assert_allclose(vae.log_likelihood(x, rng, 3, labels), expected, rtol=1e-12)


def test_latent_dimensions_of_a_conditional_model():
    """Under the labels of the images: another label, another q(z|x)."""
    vae, rng = VAE(6, (5,), 3, dtype="float64", kernels="numpy", classes=2), np.random.default_rng(0)
    vae.parameters.flat[...] = rng.normal(size=vae.parameters.flat.size)
    x, labels = rng.random((9, 6)), np.arange(9) % 2
    mu, logvar = vae.encode(x, labels)
    np.testing.assert_allclose(kl_per_dimension(vae, x, labels),
                               (0.5 * (mu ** 2 + np.exp(logvar) - 1 - logvar)).mean(axis=0), rtol=1e-12)
    told = VAE(1, (), 1, likelihood="gaussian", kernels="numpy", classes=2)      # mu = x - label
    told.parameters["mu.W"][...] = [[1], [0], [-1]]
    assert active_units(told, labels[:, None], labels) == 0 and active_units(told, labels[:, None], 1 - labels) == 1
    for measure in (kl_per_dimension, information_per_dimension):
        assert not np.allclose(measure(vae, x, labels), measure(vae, x, 1 - labels))
        with pytest.raises(ValueError, match="labels must be given"):
            measure(vae, x)
