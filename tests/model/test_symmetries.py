"""Whole models: where noise goes, what may be permuted, and what the initial weights look like."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE
from npvae.layers import ACTIVATIONS
from npvae.likelihoods.support import fitting
from strategies import LIKELIHOODS, seeds

NAMES = pytest.mark.parametrize("kernels", ["numpy", "numba"])
OBJECTIVES = {"elbo": ELBO(0.7), "sampled elbo": ELBO(sampled=True), "iwae": IWAE()}
LIKELIHOOD = pytest.mark.parametrize("likelihood", LIKELIHOODS)
ROW_BY_ROW = pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name != "gaussian-optimal"])
B, K, D, H, G, Z = 5, 4, 7, 6, 8, 3


class Record(ELBO):
    """An objective that keeps what each image and draw contributes."""

    def __call__(self, nll, reg, step):
        self.nll, self.reg = nll.copy(), reg.copy()
        return super().__call__(nll, reg, step)


def example(seed, kernels="numpy", likelihood="bernoulli", **config):
    """A model with random biases, images and noise."""
    vae = VAE(**{"input_dim": D, "hidden": (H, G), "latent_dim": Z, "activation": "tanh", "seed": seed, **config},
              likelihood=likelihood, dtype="float64", kernels=kernels)
    rng = np.random.default_rng(seed)
    vae.parameters.flat[...] += 0.3 * rng.standard_normal(vae.parameters.flat.size)
    return vae, fitting(vae.likelihood, rng.random((B, D))), rng.standard_normal((B, K, Z)), rng


def evaluate(vae, x, eps, objective):
    loss, gradients = vae.loss_and_gradients(x, eps, objective)
    return loss, {name: gradient.copy() for name, gradient in gradients.items()}


def assert_same(one, other):
    """Two losses with their gradients, up to the order of summation."""
    assert one[0] == pytest.approx(other[0], rel=1e-12)
    for name in one[1]:
        assert np.abs(one[1][name] - other[1][name]).max() <= 1e-12 * (1 + np.abs(one[1][name]).max()), name


# --- noise and images reach their own row, and no other ---

@pytest.mark.every(5)
@NAMES
@ROW_BY_ROW
@pytest.mark.parametrize("sampled", [False, True])
def test_each_draw_uses_its_own_noise_only(kernels, likelihood, sampled):
    vae, x, eps, _ = example(1, kernels, likelihood)
    before, after = Record(sampled=sampled), Record(sampled=sampled)
    vae.loss_and_gradients(x, eps, before)
    eps[2, 1] += 0.5
    vae.loss_and_gradients(x, eps, after)
    changed = np.zeros((B, K), bool)
    changed[2, 1] = True
    assert np.array_equal(before.nll != after.nll, changed)
    assert np.array_equal(before.reg != after.reg, changed if sampled else np.zeros((B, Z), bool))


@NAMES
@pytest.mark.parametrize("dimension", range(Z))
def test_every_dimension_of_the_noise_is_used(kernels, dimension):
    vae, x, eps, _ = example(2, kernels)
    loss, gradients = evaluate(vae, x, eps, ELBO())
    eps[..., dimension] *= -1
    other, changed = evaluate(vae, x, eps, ELBO())
    assert abs(loss - other) > 1e-6
    assert all((gradients[name] != changed[name]).any() for name in gradients)


@pytest.mark.every(5)
@NAMES
@ROW_BY_ROW
@pytest.mark.parametrize("sampled", [False, True])
def test_each_image_reaches_its_own_row_only(kernels, likelihood, sampled):
    vae, x, eps, _ = example(3, kernels, likelihood)
    before, after = Record(sampled=sampled), Record(sampled=sampled)
    vae.loss_and_gradients(x, eps, before)
    x[3] = 1 - x[3]
    vae.loss_and_gradients(x, eps, after)
    for one, other in ((before.nll, after.nll), (before.reg, after.reg)):
        assert (one[3] != other[3]).all()
        assert np.array_equal(np.delete(one, 3, axis=0), np.delete(other, 3, axis=0))


# --- what may be permuted ---

@pytest.mark.every(5)
@NAMES
@pytest.mark.parametrize("objective", OBJECTIVES)
@given(seed=seeds)
def test_the_order_of_images_and_of_draws_does_not_matter(kernels, objective, seed):
    vae, x, eps, rng = example(seed, kernels)
    images, draws = rng.permutation(B), rng.permuted(np.tile(np.arange(K), (B, 1)), axis=1)
    before = evaluate(vae, x, eps, OBJECTIVES[objective])
    assert_same(evaluate(vae, x[images], eps[images], OBJECTIVES[objective]), before)
    assert_same(evaluate(vae, x, np.take_along_axis(eps, draws[..., None], axis=1), OBJECTIVES[objective]), before)


def check_permuted(vae, axes, order, x, eps, new_eps, objective):
    """Renumbering units, in every tensor that has them on an axis, changes neither loss nor, renumbered, gradients."""
    loss, gradients = evaluate(vae, x, eps, objective)
    for name, axis in axes:
        vae.parameters[name][...] = np.take(vae.parameters[name], order, axis)
        gradients[name] = np.take(gradients[name], order, axis)
    assert_same(evaluate(vae, x, new_eps, objective), (loss, gradients))


UNITS = {      # a layer's units: the columns of its W, its b, and the rows of what reads it
    "encoder.0": (H, [("encoder.0.W", 1), ("encoder.0.b", 0), ("encoder.1.W", 0)]),
    "encoder.1": (G, [("encoder.1.W", 1), ("encoder.1.b", 0), ("mu.W", 0), ("logvar.W", 0)]),
    "decoder.0": (G, [("decoder.0.W", 1), ("decoder.0.b", 0), ("decoder.1.W", 0)]),
    "decoder.1": (H, [("decoder.1.W", 1), ("decoder.1.b", 0), ("output.W", 0)])}


@pytest.mark.every(3)
@NAMES
@pytest.mark.parametrize("layer", UNITS)
@given(seed=seeds, activation=st.sampled_from(list(ACTIVATIONS)))
def test_hidden_units_have_no_order(kernels, layer, seed, activation):
    vae, x, eps, rng = example(seed, kernels, activation=activation)
    width, axes = UNITS[layer]
    check_permuted(vae, axes, rng.permutation(width), x, eps, eps, IWAE())


LATENT = [("mu.W", 1), ("mu.b", 0), ("logvar.W", 1), ("logvar.b", 0), ("decoder.0.W", 0)]


@pytest.mark.every(5)
@NAMES
@pytest.mark.parametrize("objective", OBJECTIVES)
@given(seed=seeds)
def test_latent_dimensions_have_no_order(kernels, objective, seed):
    vae, x, eps, rng = example(seed, kernels)
    order = rng.permutation(Z)
    check_permuted(vae, LATENT, order, x, eps, eps[..., order], OBJECTIVES[objective])


@pytest.mark.every(5)
@NAMES
@pytest.mark.parametrize("objective", OBJECTIVES)
@given(seed=seeds)
def test_latent_dimensions_have_no_sign(kernels, objective, seed):
    """z -> -z in some dimensions: mu, its noise and the decoder's rows change sign, logvar does not."""
    vae, x, eps, rng = example(seed, kernels)
    sign = rng.choice([-1.0, 1.0], Z)
    loss, gradients = evaluate(vae, x, eps, OBJECTIVES[objective])
    for name, flip in (("mu.W", sign), ("mu.b", sign), ("decoder.0.W", sign[:, None])):
        vae.parameters[name][...] *= flip
        gradients[name] = gradients[name] * flip
    assert_same(evaluate(vae, x, eps * sign, OBJECTIVES[objective]), (loss, gradients))


@pytest.mark.every(7)
@NAMES
@LIKELIHOOD
@given(seed=seeds, activation=st.sampled_from(["identity", "tanh", "sigmoid", "softplus", "elu"]))
def test_one_image_gives_gradients_of_rank_one(kernels, likelihood, seed, activation):
    """dW = x^T dpre and db = dpre where there is one row: each dW is the outer product of the layer's input and db."""
    vae, x, eps, _ = example(seed, kernels, likelihood, activation=activation)
    _, gradients = evaluate(vae, x[:1], eps[:1, :1], ELBO())
    a, _ = vae.passes(1, 1)
    inputs = {"encoder.0": a.encoder[0], "encoder.1": a.encoder[1], "mu": a.encoder[2], "logvar": a.encoder[2],
              "decoder.0": a.decoder[0], "decoder.1": a.decoder[1], "output": a.decoder[2]}
    for name, value in inputs.items():
        expected = np.outer(value, gradients[f"{name}.b"])
        assert np.allclose(gradients[f"{name}.W"], expected, rtol=1e-12, atol=0), name
        assert np.abs(expected).max() > 0, name


# --- initial weights ---

@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_weights_have_the_documented_variance(activation):
    """Normal, mean 0, variance gain / max(fan_in, fan_out) in hidden layers and 1 / max elsewhere; biases zero."""
    vae = VAE(110, (90, 70), 50, activation, decoder_hidden=(80, 60), dtype="float64", kernels="numpy", seed=3)
    for name, value in vae.parameters.items():
        if name.endswith(".b"):
            assert (value == 0).all(), name
            continue
        gain = ACTIVATIONS[activation].gain if name.startswith(("encoder", "decoder")) else 1
        variance = gain / max(value.shape)
        assert abs(value.mean()) < 5 * np.sqrt(variance / value.size), name
        assert abs((value ** 2).mean() / variance - 1) < 5 * np.sqrt(2 / value.size), name
        assert abs((value ** 4).mean() / variance ** 2 / 3 - 1) < 5 * np.sqrt(96 / 9 / value.size), name


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_no_two_layers_start_alike(activation):
    """Equal shapes throughout; neither equal weights, nor the same stream begun elsewhere, nor correlated ones."""
    vae = VAE(40, (40, 40), 40, activation, dtype="float64", kernels="numpy")
    weights = {name: value.ravel() for name, value in vae.parameters.items() if name.endswith(".W")}
    assert len(weights) == 7
    for one in weights:
        for other in weights:
            if one < other:
                assert abs(np.corrcoef(weights[one], weights[other])[0, 1]) < 5 / 40, (one, other)
                assert not np.isin(weights[one], weights[other]).any(), (one, other)


def test_each_layer_has_a_stream_of_its_own():
    """Another input width leaves the initial weights of all layers that do not see it as they are."""
    one, other = (VAE(width, (6,), 3, kernels="numpy", seed=11) for width in (7, 9))
    for name in ("mu.W", "logvar.W", "decoder.0.W"):
        assert np.array_equal(one.parameters[name], other.parameters[name]), name


def test_initial_weights_do_not_depend_on_type_or_kernels():
    """The same point in float32, float64 and complex128, up to rounding."""
    start = VAE(7, (6,), 3, dtype="float64", kernels="numpy", seed=5).parameters.flat
    for dtype, kernels in (("float32", "numpy"), ("float32", "numba"), ("float64", "numba"), ("complex128", "numpy")):
        other = VAE(7, (6,), 3, dtype=dtype, kernels=kernels, seed=5).parameters.flat
        assert np.array_equal(other, start.astype(dtype)), (dtype, kernels)
    assert not np.array_equal(start, VAE(7, (6,), 3, dtype="float64", kernels="numpy", seed=6).parameters.flat)
