"""Missing cells: what stands in their place has no influence, and gradients of what is left are right."""
import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, fit
from npvae.gradcheck import check_gradients
from npvae.likelihoods import Gaussian, support
from npvae.likelihoods.base import OfCells

B, K, D, Z = 6, 3, 5, 2
RNG = np.random.default_rng(2)
GONE = RNG.random((B, D)) < 0.3
GONE[1], GONE[2] = True, False      # a row of which nothing is known, and a complete one
EPS = RNG.standard_normal((B, K, Z))


def model(seed=0, **config):
    vae = VAE(D, (4,), Z, **{"activation": "tanh", "dtype": "float64", "missing": True, **config}, seed=seed)
    vae.parameters.flat[...] += 0.3 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def data(vae, gone=GONE):
    x = support.fitting(vae.likelihood, np.random.default_rng(3).random((B, D)))
    return np.where(gone, np.nan, x)


class Counted(Gaussian):
    """A Gaussian whose encoder sees three numbers of each column but the last, of which it sees none."""

    recordable = False

    def features_dim(self, input_dim):
        return 3 * (input_dim - 1)

    def feature_columns(self, input_dim):
        return np.repeat(np.arange(input_dim - 1), 3)

    def features(self, kernels, features, x):
        features[...] = np.repeat(x[:, :-1], 3, axis=1) * np.tile([1, 2, -1], x.shape[1] - 1)


MODELS = {
    "bernoulli": {}, "gaussian": {"likelihood": "gaussian:0.5"}, "learned": {"likelihood": "gaussian-learned"},
    "pixel": {"likelihood": "gaussian-pixel"}, "categorical": {"likelihood": "categorical:4"},
    "continuous": {"likelihood": "continuous-bernoulli"}, "beta": {"likelihood": "beta-binomial"},
    "features": {"likelihood": Counted(0.5)}, "classes": {"classes": 3}, "vamp": {"prior": "vamp:4"},
    "vamp of features": {"prior": "vamp:4", "likelihood": Counted(0.5, learned=True)},
    "mixture": {"prior": "mixture:3", "likelihood": "gaussian-pixel"}, "two layers": {"prior": "hierarchical:3,2"},
    "flow": {"posterior": "iaf:1"}, "planar": {"posterior": "planar:1"}, "linear": {"hidden": ()}}


def labels_of(vae):
    return np.arange(B) % 3 if vae.classes else None


def eps_of(vae):
    return np.concatenate([EPS, EPS[..., :1].repeat(vae.noise_dim - Z, axis=2)], axis=2)


def built(name, **config):
    config = {**MODELS[name], **config}
    hidden = config.pop("hidden", (4,))
    vae = VAE(D, hidden, Z, **{"activation": "tanh", "dtype": "float64", "missing": True, **config})
    vae.parameters.flat[...] += 0.3 * np.random.default_rng(0).standard_normal(vae.parameters.flat.size)
    return vae


@pytest.mark.every(3)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_what_is_observed(name):
    vae, wide = built(name, kernels="numpy"), built(name, kernels="numpy", dtype="complex128")
    objective = IWAE() if vae.latent.gaussian and not vae.latent.analytic else ELBO(sampled=not vae.latent.analytic)
    x, eps, labels = data(vae), eps_of(vae), labels_of(vae)
    loss, gradients = vae.loss_and_gradients(x, eps, objective, labels=labels)
    assert np.isfinite(loss)
    report = check_gradients(lambda p: wide.loss(x, eps, objective, labels=labels, parameters=p),
                             dict(gradients), dict(vae.parameters), "directional", directions=6)
    assert report.ok, report


@pytest.mark.every(5)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("name", MODELS)
def test_a_placeholder_changes_no_bit(name, kernels):
    """Nor does what stands behind the mask of a masked array; and both kernels agree."""
    vae = built(name, kernels=kernels)
    objective, eps, labels = IWAE(), eps_of(vae), labels_of(vae)
    x = data(vae)
    loss, gradients = vae.loss_and_gradients(x, eps, objective, labels=labels)
    first = gradients.flat.copy()
    vae._placeholder[...] = vae.likelihood.support.nearest(np.full(D, 0.9))
    again, gradients = vae.loss_and_gradients(x, eps, objective, labels=labels)
    assert again == loss and np.array_equal(gradients.flat, first)
    for behind in (0.0, 1.0, 777.0):
        masked = np.ma.array(np.where(GONE, behind, x), mask=GONE)
        again, gradients = vae.loss_and_gradients(masked, eps, objective, labels=labels)
        assert again == loss and np.array_equal(gradients.flat, first)
    plain = built(name, kernels="numpy")
    other, gradients = plain.loss_and_gradients(x, eps, objective, labels=labels)
    assert other == pytest.approx(loss, rel=1e-10) and np.allclose(gradients.flat, first, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["bernoulli", "pixel", "features"])
def test_nll_is_the_sum_over_the_observed_columns(name):
    """Of a model without these columns: those of its encoder are given 0 in their place, and the indicator."""
    vae = built(name)
    x, gone = data(vae), np.broadcast_to(np.arange(D) < 2, (B, D))
    whole = np.where(gone, np.nan, np.nan_to_num(x))
    a, _ = vae.passes(B, K)
    a.x[...], a.eps[...] = whole, EPS
    vae.forward(a, vae.estimators[0], vae.kernels)
    F = vae.likelihood.features_dim(D)
    assert np.array_equal(a.inputs[:B, F:], gone) and np.array_equal(a.missing, gone)
    assert not a.inputs[:B, :F][:, vae.likelihood.feature_columns(D) < 2].any()
    assert np.allclose(a.nll, a.cells[..., 2:].sum(axis=2), rtol=1e-12)
    nothing = np.full((B, D), np.nan)
    a.x[...] = nothing
    vae.forward(a, vae.estimators[0], vae.kernels)
    assert not a.nll.any()


def test_complete_data_have_the_loss_of_a_model_that_knows_no_gaps():
    """Its weights of the indicators have no influence."""
    vae, plain = model(), VAE(D, (4,), Z, "tanh", dtype="float64")
    for name, value in vae.parameters.items():
        plain.parameters[name][...] = value[:D] if name == "encoder.0.W" else value
    x = np.nan_to_num(data(vae))
    ours, gradients = vae.loss_and_gradients(x, EPS)
    theirs, others = plain.loss_and_gradients(x, EPS)
    assert ours == pytest.approx(theirs, rel=1e-13)
    assert np.allclose(gradients["output.W"], others["output.W"], rtol=1e-12)
    assert not gradients["encoder.0.W"][D:].any()


def test_features_without_gaps():
    """The encoder is as wide as the features, whatever the likelihood sees."""
    vae = built("features", missing=False)
    assert vae.parameters["encoder.0.W"].shape == (3 * (D - 1), 4)
    x = np.nan_to_num(data(vae))
    mu, logvar = vae.encode(x)
    seen = np.repeat(x[:, :-1], 3, axis=1) * np.tile([1, 2, -1], D - 1)
    h = np.tanh(seen @ vae.parameters["encoder.0.W"] + vae.parameters["encoder.0.b"])
    assert np.allclose(mu, h @ vae.parameters["mu.W"] + vae.parameters["mu.b"], rtol=1e-12)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["bernoulli", "pixel", "vamp", "classes"])
def test_train_save_load(name, tmp_path):
    """fit, elbo, log_likelihood, reconstruct and sample are finite, and a saved model is the same."""
    rng, vae = np.random.default_rng(5), built(name, dtype="float32")
    x = np.where(rng.random((60, D)) < 0.3, np.nan, rng.integers(0, 2, (60, D))).astype("f4")
    labels = np.arange(60) % 3 if vae.classes else None
    assert np.isnan(x).any(axis=1).any() and "some missing" in repr(vae)
    history = fit(vae, x, x[:20], 2, 20, objective=ELBO(sampled=not vae.latent.analytic), labels_train=labels,
                  labels_test=None if labels is None else labels[:20])
    assert np.isfinite(history[-1]["test_loss"])
    vae.save(tmp_path / "model.npz")
    loaded = VAE.load(tmp_path / "model.npz")
    for call in (lambda vae: vae.elbo(x, np.random.default_rng(0), labels),
                 lambda vae: vae.log_likelihood(x, np.random.default_rng(0), 20, labels),
                 lambda vae: vae.reconstruct(x, np.random.default_rng(0), labels),
                 lambda vae: vae.encode(x, labels)[0],
                 lambda vae: vae.sample(4, np.random.default_rng(0), labels=None if labels is None else labels[:4])):
        assert np.isfinite(call(vae)).all() and np.array_equal(call(vae), call(loaded))


@pytest.mark.parametrize("config, said", [
    ({"likelihood": "gaussian-optimal"}, "missing=True needs a likelihood that is a sum over columns"),
    ({"decoder": "made:4"}, "missing=True needs decoder dense"), ({"missing": 1}, "missing must be True or False")])
def test_models_that_need_every_cell(config, said):
    with pytest.raises((ValueError, TypeError), match=said):
        VAE(D, **{"missing": True, **config})


def test_a_likelihood_that_is_no_sum_over_columns_is_refused():
    class Whole(Gaussian):
        by_column = False
    with pytest.raises(ValueError, match="a sum over columns"):
        VAE(D, likelihood=Whole(), missing=True)


@pytest.mark.parametrize("x, said", [
    (np.full((2, D), np.nan), "a model of data with gaps \\(missing=True\\) takes NaN"),
    (np.ma.array(np.zeros((2, D)), mask=np.eye(2, D)), "a model of data with gaps \\(missing=True\\) leaves it out")])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_model_that_knows_no_gaps_says_who_does(likelihood, x, said):
    with pytest.raises(ValueError, match=said) as caught:
        VAE(D, likelihood=likelihood).encode(x)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_trained_with_gaps():
    vae, x = model(), np.where(np.arange(D) == 3, np.nan, np.zeros((20, D)))
    with pytest.raises(ValueError, match="an observed cell in every column, column 3 has none"):
        fit(vae, x, x, 1, 5)
    with pytest.raises(ValueError, match="binarize needs complete data"):
        fit(vae, np.zeros((20, D)), np.zeros((20, D)), 1, 5, binarize="dynamic")
    with pytest.raises(ValueError, match="infinity|finite|must lie"):
        vae.encode(np.full((2, D), np.inf))


def test_masked_bytes_are_pixels():
    """Scaled as without a mask, whatever stands behind it."""
    vae = model(dtype="float32")
    pixels = np.random.default_rng(0).integers(0, 100, (B, D)).astype(np.uint8)
    masked = np.ma.array(np.where(GONE, 255, pixels), mask=GONE)
    expected = vae.encode(np.where(GONE, np.nan, pixels / 255).astype("f4"))
    assert np.array_equal(vae.encode(masked), expected)


def test_start_at_the_scale_of_the_data():
    vae = built("learned")
    x = np.random.default_rng(1).normal(7, 3, (500, D))
    x[np.random.default_rng(2).random(x.shape) < 0.2] = np.nan
    vae.start(x)
    assert vae.parameters["output.b"] == pytest.approx(np.nanmean(x, axis=0))
    assert vae.parameters["likelihood.logvar"][0] == pytest.approx(2 * np.log(3), abs=0.1)


class Halves(OfCells):
    """|x - output| / 2 + log 4 with kernels that give cells."""

    name = "halves"

    def columns_forward(self, kernels, cells, kept, output, x, params):
        residual = x[:, None] - output
        cells[...] = np.where(residual.real < 0, -residual, residual) / 2 + np.log(4)

    def columns_backward(self, kernels, doutput, grads, dcells, kept, output, x, params):
        doutput[...] = dcells * np.where((x[:, None] - output).real < 0, 0.5, -0.5)

    def mean(self, kernels, output):
        return output.copy()

    def draw(self, kernels, output, params, rng):
        return rng.laplace(output, 2)


@pytest.mark.parametrize("missing", [False, True])
def test_a_likelihood_of_cells(missing):
    vae, wide = (VAE(D, (4,), Z, "tanh", Halves(), dtype, "numpy", missing=missing)
                 for dtype in ("float64", "complex128"))
    x = data(vae) if missing else np.nan_to_num(data(vae))
    _, gradients = vae.loss_and_gradients(x, EPS)
    report = check_gradients(lambda p: wide.loss(x, EPS, parameters=p), dict(gradients), dict(vae.parameters),
                             "directional", directions=6)
    assert report.ok, report
    gradients = gradients.flat.copy()
    quick = VAE(D, (4,), Z, "tanh", Halves(), "float64", missing=missing)
    assert np.allclose(quick.loss_and_gradients(x, EPS)[1].flat, gradients, rtol=1e-10, atol=1e-12)
