"""What mutation testing (`mutation.py`) found no test for: values at kinks and extremes, defaults, the edges of blocks.

Values are held against definitions written with `math`, one number at a time, so the reference kernels are judged
without their twins.
"""
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given

from npvae import (
    ELBO, IWAE, VAE, Adam, CosineLR, CyclicalAnnealing, FreeBits, Gaussian, LinearAnnealing, StepLR, layers)
from npvae.model import active_units_per_layer, hierarchical_vae
from npvae.kernels import fused, reference
from npvae.kernels.reference.likelihoods import LOGVAR_FLOOR
from npvae.latents import DiagonalGaussian
from npvae.layers import Dense
from npvae.likelihoods import LIKELIHOODS, make_likelihood
from npvae.params import Block
from npvae.objectives import KLEstimator
from strategies import IMAGES, seeds
from kernel_calls import PAIRS, draw_inputs, run_backward, run_forward

MODULES = pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])


# --- activations, at their kink and far from it ---

def softplus(a):
    return max(a, 0.0) + math.log1p(math.exp(-abs(a)))


def sigmoid(a):
    return math.exp(-softplus(-a))


def normal(a):
    return math.erfc(-a / math.sqrt(2)) / 2


ACTIVATIONS = {      # name: (f, f')
    "identity": (lambda a: a, lambda a: 1.0),
    "relu": (lambda a: max(a, 0.0), lambda a: float(a > 0)),
    "leaky_relu": (lambda a: a if a > 0 else 0.01 * a, lambda a: 1.0 if a > 0 else 0.01),
    "elu": (lambda a: a if a > 0 else math.expm1(a), lambda a: 1.0 if a > 0 else math.exp(a)),
    "tanh": (math.tanh, lambda a: 1 - math.tanh(a) ** 2),
    "sigmoid": (sigmoid, lambda a: math.exp(-softplus(-a) - softplus(a))),
    "softplus": (softplus, sigmoid),
    "silu": (lambda a: a * sigmoid(a), lambda a: sigmoid(a) + a * sigmoid(a) * sigmoid(-a)),
    "gelu": (lambda a: a * normal(a), lambda a: normal(a) + a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi))}
POINTS = np.array([[-1000.0], [-40.0], [-2.5], [-0.5], [-1e-9], [0.0], [1e-9], [0.5], [2.5], [40.0], [1000.0]])


@MODULES
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_chosen_points(module, name):
    """Also at 0, where rectifiers take the derivative from the left, and where exp would overflow."""
    f, derivative = ACTIVATIONS[name]
    pre, b = POINTS + [0, 3, -3], np.array([0.0, -3.0, 3.0])      # the kink lies at pre = -b, not at pre = 0
    a, dout = pre + b, np.random.default_rng(0).standard_normal(pre.shape)
    out, dpre, db = np.full(a.shape, 777.0), np.full(a.shape, 777.0), np.full(3, 777.0)
    getattr(module, f"{name}_forward")(out, pre, b)
    assert np.allclose(out, np.vectorize(f)(a), rtol=1e-14, atol=1e-300)
    layers.ACTIVATIONS[name].backward(module, dpre, db, dout, out, pre, b)
    expected = dout * np.vectorize(derivative)(a)
    assert np.allclose(dpre, expected, rtol=1e-13, atol=3e-16)
    assert np.allclose(db, expected.sum(axis=0), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("step", [1e-30, -1e-30])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_complex_step_at_chosen_points(name, step):
    """The reference is analytic wherever the function is, at 0 too.  Rectifiers count 0 as positive."""
    out = np.full(POINTS.shape, 777j)
    getattr(reference, f"{name}_forward")(out, POINTS + 1j * step, np.zeros(1))
    derivative = np.vectorize(ACTIVATIONS[name][1])(POINTS)
    derivative[POINTS == 0] = 1 if "relu" in name else derivative[POINTS == 0]
    assert np.allclose(out.imag / step, derivative, rtol=1e-13, atol=3e-16)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", PAIRS)
@given(seed=seeds)
def test_conjugate_in_conjugate_out(name, seed):
    """The reference branches on real parts alone: f(conj a) = conj f(a), forward and backward, to the bit, on a kink
    or a bend too, and where two real parts are equal.  Data of a kind, like counts, and indices stay as they are."""
    pair = PAIRS[name]
    inputs, upstream = draw_inputs(pair, dict(zip("BKDHZ", (4, 3, 7, 5, 6))), seed)
    rng = np.random.default_rng(seed)
    as_drawn = {key for key in pair.constant if key in pair.draw}
    here = [{key: value if key in as_drawn else value + 0.7j * rng.standard_normal(value.shape)
             for key, value in values.items()} for values in (inputs, upstream)]
    for value in filter(np.iscomplexobj, here[0].values()):
        value.real.flat[::2], value.real.flat[1::4] = 0, LOGVAR_FLOOR
    there = [{key: value.conj() for key, value in values.items()} for values in here]
    results = []
    for inputs, upstream in (here, there):
        outputs = run_forward(reference, name, inputs)
        results.append({**outputs, **run_backward(reference, name, inputs, outputs, upstream)})
    assert all(np.array_equal(results[1][key], value.conj()) for key, value in results[0].items())


# --- defaults that a user sees ---

@pytest.mark.parametrize("made, defaults", [
    (Adam, {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "max_norm": None, "weight_decay": 0.0}),
    (StepLR, {"factor": 0.1}), (CosineLR, {}), (LinearAnnealing, {"beta": 1.0}), (FreeBits, {"beta": 1.0}),
    (CyclicalAnnealing, {"cycles": 4, "ratio": 0.5, "beta": 1.0}), (Gaussian, {"sigma": 0.1, "learned": False}),
    (ELBO, {"beta": 1.0, "sampled": False, "gradient": "total"}), (IWAE, {"beta": 1.0, "gradient": "total"}),
    (VAE.sample, {"mean": True, "labels": None, "prior": None, "codes": None}),
    (VAE.log_likelihood, {"n_samples": 5000, "labels": None}),
    (active_units_per_layer, {"draws": 20, "labels": None}),
    (hierarchical_vae, {"input_dim": 784, "hidden": ((200, 200), (100, 100)), "latent_dims": (100, 50),
                        "activation": "tanh", "likelihood": "bernoulli", "dtype": "float32", "kernels": "numba",
                        "seed": 0})])
def test_defaults(made, defaults):
    parameters = inspect.signature(made).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == defaults


@pytest.mark.parametrize("prior", ["mixture:4", "vamp:5", "hierarchical:2", "hierarchical:6,2"])
def test_a_prior_knows_its_name(prior):
    assert VAE(5, (4,), 3, kernels="numpy", prior=prior).prior.name == prior


@pytest.mark.parametrize("hidden", [5, "ab", ((4,),), ((4,), (3,), (2,))])
def test_two_layers_have_two_sequences_of_widths(hidden):
    with pytest.raises(ValueError, match="^hidden must be two sequences"):
        hierarchical_vae(5, hidden, (3, 2))


# --- objectives ---

@pytest.mark.parametrize("step", [1e-30j, -1e-30j])
def test_free_bits_exactly_used_up_are_not_paid_for(step):
    """At the kink itself the derivative 0 is taken, from whichever side the complex step comes."""
    reg = np.array([[0.25, 2.0], [0.75, 1.0]]) + step
    loss, _, dreg = FreeBits(0.5, 3.0)(np.zeros((2, 1), complex), reg, 0)
    assert loss == 3 * (0.5 + 1.5 + step) and dreg.tolist() == [0, 1.5]


def test_sampled_is_made_a_plain_truth_value():
    assert repr(ELBO(sampled=np.bool_(True))) == repr(ELBO(sampled=1)) == "ELBO(beta=1.0, sampled=True)"


# --- parameters and the optimizer ---

def test_a_new_block_is_zero_whatever_the_old_one_holds():
    block = Block({"a.W": (2, 3), "a.b": (3,)}, "float32")
    assert not block.flat.any()
    block.flat[...] = 7
    new = block.zeros_like()
    assert not new.flat.any() and new.flat.dtype == np.float32 and new.shapes == block.shapes
    assert (block.flat == 7).all() and not np.shares_memory(new.flat, block.flat)


def test_moments_have_the_type_of_the_parameters_not_of_the_gradients():
    parameters, gradients = Block({"a": (3,)}, "float64"), Block({"a": (3,)}, "float32")
    optimizer = Adam()
    optimizer.step(parameters, gradients)
    assert optimizer.m.flat.dtype == optimizer.v.flat.dtype == np.float64


# --- messages ---

@pytest.mark.parametrize("make, says", [
    (lambda: Adam(beta1=1, beta2=1), "beta1 must"), (lambda: VAE(hidden=(0,)), "hidden[0] must"),
    (lambda: VAE(decoder_hidden=(0,)), "decoder_hidden[0] must")])
def test_the_first_wrong_argument_is_named_first(make, says):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value).startswith(says)


# --- the buffers of a pass ---

def test_passes_are_made_once_for_each_batch_and_number_of_draws():
    vae = VAE(5, (4,), 3, kernels="numpy")
    vae.passes(6, 6)      # the largest: nothing below needs new memory
    made = {key: vae.passes(*key) for key in ((4, 1), (1, 4), (4, 4), (1, 1))}
    for (batch, draws), (a, d) in made.items():
        assert a.x.shape == (batch, 5) and a.z.shape == d.z.shape == (batch, draws, 3)
        assert a.noise.size == a.uniform.size == 2 * math.ceil(3 * batch * draws / 2)      # no more drawn than used
        assert vae.passes(batch, draws)[0] is a and vae.passes(batch, draws)[1] is d


def test_matrix_products_and_then_their_gradients_stand_where_the_names_say():
    vae, rng = example(hidden=(4, 6)), np.random.default_rng(0)
    x, eps = rng.random((7, 5)), rng.standard_normal((7, 2, 3))
    a, _ = vae.passes(7, 2)
    layers = [*vae.encoder.layers, vae.mu, vae.logvar, *vae.decoder.layers, vae.output]
    inputs = [*a.encoder, a.encoder[-1], *a.decoder]
    products = [*a.encoder_pre, a.mu_pre, a.logvar_pre, *a.decoder_pre, a.rows_pre]
    a.x[...], a.eps[...] = x, eps
    vae.forward(a, KLEstimator.EXACT)
    assert all(np.allclose(product, value @ vae.parameters[layer.W], rtol=1e-13, atol=1e-14)
               for product, value, layer in zip(products, inputs, layers, strict=True))
    _, gradients = vae.loss_and_gradients(x, eps)
    assert all(np.allclose(product.sum(axis=0), gradients[layer.b], rtol=1e-13, atol=1e-14)
               for product, layer in zip(products, layers))


# --- the model ---

def example(**config):
    return VAE(**{"input_dim": 5, "hidden": (4,), "latent_dim": 3, "dtype": "float64", "kernels": "numpy", **config})


def test_a_reconstruction_is_the_decoded_draw():
    """z = mu + sigma eps, eps what the generator gives; another sign or order would be as random, and not the same."""
    vae, x = example(seed=2), np.random.default_rng(0).random((6, 5))
    mu, logvar = vae.encode(x)
    eps = np.random.default_rng(7).standard_normal((6, 3))
    assert np.array_equal(vae.reconstruct(x, np.random.default_rng(7)), vae.decode(mu + np.exp(0.5 * logvar) * eps))


def test_new_images_have_the_learned_sigma():
    vae = example(likelihood="gaussian-learned:0.5")
    vae.parameters["likelihood.logvar"][...] = 2 * math.log(3)
    noise = [vae.sample(2000, np.random.default_rng(0), mean=mean) for mean in (False, True)]
    assert np.subtract(*noise).std() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("eps", [np.ones((4, 2, 3, 5)), np.ones((4, 2, 4)), np.ones((5, 2, 3)), np.ones((4, 3)),
                                 np.where(np.arange(24).reshape(4, 2, 3) == 17, np.nan, 1.0)],
                         ids=["four axes", "Z too large", "B too large", "two axes", "one NaN"])
def test_noise_that_does_not_fit(eps):
    with pytest.raises(ValueError, match="^eps must"):
        example().loss_and_gradients(np.full((4, 5), 0.5), eps)


@pytest.mark.parametrize("objective", [ELBO, IWAE, FreeBits])
def test_a_class_is_no_objective(objective):
    with pytest.raises(TypeError, match="^objective must be an object"):
        example().loss_and_gradients(np.full((4, 5), 0.5), np.ones((4, 2, 3)), objective)


@pytest.mark.parametrize("mean", [np.full(6, 0.5), np.full(4, 0.5), np.full((5, 1), 0.5)])
def test_a_mean_image_that_does_not_fit(mean):
    with pytest.raises(ValueError, match=r"^mean must have shape \(5,\)"):
        example().start_at(mean)


# --- layers and likelihoods ---

def test_a_layer_is_initialized_whatever_its_parameters_were():
    layer, params = Dense("a", 3, 4, "relu"), Block({"a.W": (3, 4), "a.b": (4,)}, "float64")
    params.flat[...] = 7
    layer.initialize(params, np.random.default_rng(0))
    assert not params["a.b"].any() and (params["a.W"] != 7).all()


def test_black_and_white_pixels_start_at_a_thousandth_from_the_edge():
    bias = make_likelihood("bernoulli").bias_at(np.array([0.0, 1.0, 5e-4, 0.25]))
    assert bias == pytest.approx([math.log(1 / 999), math.log(999), math.log(1 / 999), -math.log(3)], rel=1e-12)


def test_every_pixel_starts_with_its_mean_and_a_sigma_near_a_quarter():
    mean = np.array([0.0, 0.25, 0.75])
    assert np.array_equal(make_likelihood("gaussian:0.2").bias_at(mean), mean)
    assert make_likelihood("gaussian-pixel").bias_at(mean) == pytest.approx([*mean, *3 * [-math.log(16)]], rel=1e-14)


@pytest.mark.parametrize("part", [
    DiagonalGaussian(), *(make_likelihood(name) for name in sorted(LIKELIHOODS) if name != "gaussian-optimal")],
    ids=lambda part: type(part).__name__)
def test_what_the_package_brings_can_be_recorded(part):
    """Each class says so itself: `make_executor` takes no base class's word for it."""
    assert vars(type(part))["recordable"] is True


@pytest.mark.parametrize("name", IMAGES)
def test_the_mean_image_is_not_a_view_of_the_output(name):
    output = np.random.default_rng(0).standard_normal((3, 512))
    assert not np.shares_memory(make_likelihood(name).mean(reference, output), output)


def test_a_pixel_is_drawn_white_where_noise_is_less_than_p():
    """Not where it is equal: p = 0 stays black though noise may be 0."""
    likelihood, output = make_likelihood("bernoulli"), np.zeros((1, 3))
    noise = SimpleNamespace(random=lambda shape: np.array([[0.5 - 1e-16, 0.5, 0.5 + 1e-16]]))
    assert likelihood.draw(reference, output, Block({}, "float64"), noise).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("name, pixels", [("gaussian:0.5", 4), ("gaussian-learned:0.5", 4), ("gaussian-pixel", 2)])
def test_a_draw_is_mean_plus_sigma_times_noise(name, pixels):
    likelihood, output = make_likelihood(name), np.random.default_rng(0).standard_normal((3, 4))
    params = Block(likelihood.shapes, "float64")
    likelihood.initialize(params)
    sigma = 0.5 if pixels == 4 else np.sqrt(0.05 ** 2 + np.exp(output[:, 2:]))
    expected = output[:, :pixels] + sigma * np.random.default_rng(5).standard_normal((3, pixels))
    assert np.allclose(likelihood.draw(reference, output, params, np.random.default_rng(5)), expected, rtol=1e-13)
