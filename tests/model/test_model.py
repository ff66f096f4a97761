"""The handles of a model: names, shapes, types, blocks of rows, seeds; and every bad argument, refused in one line with
nothing changed.
"""
import contextlib
import inspect

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, Bernoulli, Gaussian, GaussianPixel, fit_mixture
from npvae.kernels import fused, reference
from npvae.layers import ACTIVATIONS
from npvae.likelihoods import LIKELIHOODS, make_likelihood
from npvae.params import Block
from npvae.likelihoods.support import fitting
from npvae.testing import small_likelihoods
from strategies import IMAGES

LIKELIHOOD = pytest.mark.parametrize("likelihood", IMAGES)
TYPES = pytest.mark.parametrize("dtype, kernels", [
    ("float32", "numba"), ("float64", "numba"), ("float32", "numpy"), ("float64", "numpy"), ("complex128", "numpy")])
D, H, G, Z = 7, 6, 5, 3


def model(**config):
    return VAE(**{"input_dim": D, "hidden": (H, G), "latent_dim": Z, "kernels": "numpy", **config})


def generator():
    return np.random.default_rng(0)


def images(n=4):
    return generator().random((n, D))


# --- parameters ---

def test_the_handles_of_the_design():
    """Argument names and defaults that other people's code relies on."""
    signature = inspect.signature(VAE)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    assert defaults == {"input_dim": 784, "hidden": (128,), "latent_dim": 20, "activation": "relu",
                        "likelihood": "bernoulli", "dtype": "float32", "kernels": "numba", "seed": 0,
                        "decoder_hidden": None, "prior": "normal", "posterior": "gaussian", "decoder": "dense",
                        "classes": 0, "missing": False}
    step = inspect.signature(VAE.loss_and_gradients).parameters
    assert list(step) == ["self", "x", "eps", "objective", "step", "labels"] and step["step"].default == 0
    assert isinstance(step["objective"].default, ELBO)
    assert inspect.signature(VAE.log_likelihood).parameters["n_samples"].default == 5000


def test_names_order_and_shapes():
    vae = model(decoder_hidden=(4, 8, 9))
    expected = {
        "encoder.0.W": (D, H), "encoder.0.b": (H,), "encoder.1.W": (H, G), "encoder.1.b": (G,),
        "mu.W": (G, Z), "mu.b": (Z,), "logvar.W": (G, Z), "logvar.b": (Z,),
        "decoder.0.W": (Z, 4), "decoder.0.b": (4,), "decoder.1.W": (4, 8), "decoder.1.b": (8,),
        "decoder.2.W": (8, 9), "decoder.2.b": (9,), "output.W": (9, D), "output.b": (D,)}
    for block in (vae.parameters, vae.gradients):
        assert [(name, value.shape) for name, value in block.items()] == list(expected.items())
        assert np.array_equal(block.flat, np.concatenate([value.ravel() for value in block.values()]))
    assert list(VAE(D, (), Z).parameters) == ["mu.W", "mu.b", "logvar.W", "logvar.b", "output.W", "output.b"]
    mirrored = VAE(D, (H, G), Z).parameters
    assert mirrored["decoder.0.W"].shape == (Z, G) and mirrored["decoder.1.W"].shape == (G, H)
    assert mirrored["output.W"].shape == (H, D)


def test_names_of_richer_parts_in_their_order():
    """In which they lie in a file: another one could not be read by who has it from an earlier day."""
    vae = model(hidden=(H,), posterior="iaf:2", prior="hierarchical:4,2", decoder="made:9")
    layers = ["encoder.0", "mu", "logvar", "decoder.0", "made", "output", "flow", "flow.0.hidden", "flow.0.gate",
              "flow.1.hidden", "flow.1.gate", "encoder2.0", "mu2", "logvar2", "decoder2.0", "prior_mu", "prior_logvar"]
    assert list(vae.parameters) == [f"{name}.{part}" for name in layers for part in "Wb"]
    assert list(model(prior="mixture:4").parameters)[-3:] == ["prior.mean", "prior.logvar", "prior.logits"]


def test_likelihoods_shape_the_output():
    assert model(likelihood="gaussian-pixel").parameters["output.W"].shape == (H, 2 * D)
    learned = model(likelihood="gaussian-learned:0.5").parameters
    assert list(learned)[-1] == "likelihood.logvar" and learned["likelihood.logvar"].shape == (1,)
    assert learned["likelihood.logvar"] == pytest.approx(2 * np.log(0.5))
    for given, name in ((Bernoulli(), "bernoulli"), (Gaussian(0.2), "gaussian:0.2"),
                        (GaussianPixel(), "gaussian-pixel"),
                        (Gaussian(learned=True), "gaussian-learned:0.1")):
        vae = model(likelihood=given)
        assert vae.likelihood is given and vae.config()["likelihood"] == name
        assert model(likelihood=name).config() == vae.config()


def test_writing_into_a_parameter_changes_the_model():
    vae = model(dtype="float64")
    x, eps = images(), np.ones((4, 2, Z))
    loss, mu = vae.loss_and_gradients(x, eps)[0], vae.encode(x)[0]
    vae.parameters["mu.b"][1] += 1
    assert np.allclose(vae.encode(x)[0] - mu, [0, 1, 0]) and vae.loss_and_gradients(x, eps)[0] != loss
    assert np.shares_memory(vae.parameters["mu.b"], vae.parameters.flat)
    with pytest.raises(TypeError):
        vae.parameters["mu.b"] = np.zeros(Z)


def test_the_returned_gradients_are_the_models():
    vae = model()
    _, gradients = vae.loss_and_gradients(images(), np.ones((4, 2, Z)))
    assert gradients is vae.gradients and isinstance(gradients, Block) and list(gradients) == list(vae.parameters)
    assert gradients.norm() == pytest.approx(np.linalg.norm(gradients.flat))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_seeds(dtype):
    """Equal seeds, equal models; a Generator is taken as it is, and its next model is another."""
    start = model(seed=3, dtype=dtype).parameters.flat
    assert np.array_equal(start, model(seed=3, dtype=dtype).parameters.flat)
    assert np.array_equal(start, model(seed=np.int64(3), dtype=dtype).parameters.flat)
    rng = np.random.default_rng(3)
    assert np.array_equal(start, model(seed=rng, dtype=dtype).parameters.flat)
    assert not np.array_equal(start, model(seed=rng, dtype=dtype).parameters.flat)
    assert not np.array_equal(start, model(seed=4, dtype=dtype).parameters.flat)


@pytest.mark.parametrize("cores, threads", [(1, 1), (2, 2), (3, 2), (64, 2)])
def test_a_model_takes_two_threads_where_there_are_two_cores(cores, threads, monkeypatch):
    monkeypatch.setattr("npvae.model.vae.available_cores", lambda: cores)
    assert model().threads == threads


# --- results ---

@pytest.mark.every(3)
@TYPES
@LIKELIHOOD
def test_shapes_and_types(likelihood, dtype, kernels):
    vae, rng = model(likelihood=likelihood, dtype=dtype, kernels=kernels), generator()
    x = fitting(vae.likelihood, images())
    assert vae.kernels is {"numba": fused, "numpy": reference}[kernels]
    mu, logvar = vae.encode(x)
    assert mu.shape == logvar.shape == (4, Z) and not np.array_equal(mu, logvar)
    drawn = vae.sample(9, rng, mean=False)
    results = [mu, logvar, vae.decode(mu.real), vae.reconstruct(x, rng), vae.sample(9, rng), drawn, vae.elbo(x, rng)]
    assert [value.shape for value in results[2:]] == [(4, D), (4, D), (9, D), (9, D), (4,)]
    assert {value.dtype for value in results} == {np.dtype(dtype)} == {vae.parameters.flat.dtype}
    assert likelihood != "bernoulli" or set(np.unique(drawn.real)) == {0, 1}
    loss, gradients = vae.loss_and_gradients(x, np.ones((4, 2, Z)), IWAE())
    assert isinstance(loss, complex if dtype == "complex128" else float) and gradients.flat.dtype == dtype
    if dtype != "complex128":
        assert vae.log_likelihood(x, rng, n_samples=3).shape == (4,)


@pytest.mark.every(2)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("name", small_likelihoods())
def test_means_and_draws_have_the_type_of_the_output(name, dtype):
    """And draws are what the likelihood is a distribution of."""
    likelihood = make_likelihood(name)
    output = generator().normal(0, 30, (9, likelihood.output_dim(D))).astype(dtype)
    x = likelihood.draw(reference, output, Block(likelihood.parameter_shapes(D), dtype), generator())
    complete = likelihood.complete(reference, output, Block(likelihood.parameter_shapes(D), dtype))
    mean = likelihood.mean(reference, complete)
    assert x.dtype == mean.dtype == dtype
    assert x.shape == mean.shape == (9, D)
    likelihood.support.check(x.real, "x")


@pytest.mark.every(2)
@LIKELIHOOD
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_many_rows_are_rows_one_by_one(likelihood, kernels):
    """More than 500 rows pass in blocks; the last one is shorter."""
    vae = model(likelihood=likelihood, dtype="float64", kernels=kernels)
    x = fitting(vae.likelihood, images(1003))
    z = generator().standard_normal((1003, Z))
    mu, logvar = vae.encode(x)
    mean, bound = vae.decode(z), vae.elbo(x, generator())
    for row in (0, 1, 499, 500, 501, 999, 1000, 1002):
        one = slice(row, row + 1)
        assert np.allclose(vae.encode(x[one])[0], mu[one], rtol=1e-12, atol=1e-14)
        assert np.allclose(vae.encode(x[one])[1], logvar[one], rtol=1e-12, atol=1e-14)
        assert np.allclose(vae.decode(z[one]), mean[one], rtol=1e-12, atol=1e-14)
    assert bound.shape == (1003,) and np.isfinite(bound).all() and len(np.unique(bound)) == 1003


@pytest.mark.parametrize("rows", [1, 499, 500, 501, 1000, 1203])
def test_every_row_passes_once_with_one_draw(rows, monkeypatch):
    """In no two blocks, and in none that is empty."""
    vae, made = model(), []
    passes, x, z = vae.passes, images(rows), generator().standard_normal((rows, Z))
    monkeypatch.setattr(vae, "passes", lambda *sizes: made.append(sizes) or passes(*sizes))
    for call in (lambda: vae.encode(x), lambda: vae.decode(z), lambda: vae.elbo(x, generator())):
        made.clear()
        call()
        assert sum(batch for batch, _ in made) == rows
        assert {draws for _, draws in made} == {1} and min(made) > (0, 1)


def test_results_are_the_callers_own():
    """The next call overwrites buffers, not what was returned before."""
    vae = model(dtype="float64", kernels="numpy")
    x, z, rng = images(), np.ones((4, Z)), generator()
    calls = [lambda: vae.encode(x)[0], lambda: vae.encode(x)[1], lambda: vae.decode(z), lambda: vae.reconstruct(x, rng),
             lambda: vae.sample(4, rng), lambda: vae.elbo(x, rng)]
    results = [call() for call in calls]
    kept = [value.copy() for value in results]
    vae.loss_and_gradients(1 - x, -np.ones((4, 1, Z)))
    vae.encode(1 - x), vae.decode(-z), vae.sample(4, rng)
    assert all(np.array_equal(value, same) for value, same in zip(results, kept))


@pytest.mark.parametrize("seed", [0, 1])
def test_random_handles_are_given_by_their_generator(seed):
    vae, x = model(), images()
    for handle in (lambda rng: vae.reconstruct(x, rng), lambda rng: vae.sample(5, rng), lambda rng: vae.elbo(x, rng),
                   lambda rng: vae.sample(5, rng, mean=False), lambda rng: vae.log_likelihood(x, rng, 3)):
        first = handle(np.random.default_rng(seed))
        assert np.array_equal(first, handle(np.random.default_rng(seed)))
        assert not np.array_equal(first, handle(np.random.default_rng(seed + 2)))


@LIKELIHOOD
def test_start_at_the_mean_image(likelihood):
    """With output.W = 0 every z decodes to it; a pixel that is black throughout comes out as near black as it can."""
    vae, mean = model(likelihood=likelihood, dtype="float64"), np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    before = {name: value.copy() for name, value in vae.parameters.items()}
    vae.start_at(mean)
    assert all(np.array_equal(before[name], vae.parameters[name]) for name in before if name != "output.b")
    vae.parameters["output.W"][...] = 0
    decoded = vae.decode(generator().standard_normal((5, Z)))
    assert np.allclose(decoded[:, 1:-1], mean[1:-1], rtol=1e-12)
    assert np.allclose(decoded, mean, atol=1.1e-3) and np.isfinite(vae.parameters.flat).all()
    x = fitting(vae.likelihood, np.stack([mean, mean / 2]))
    assert np.isfinite(vae.loss_and_gradients(x, np.ones((2, 1, Z)))[0])


# --- bad arguments ---

ACTIVATION_NAMES, LIKELIHOOD_NAMES = ", ".join(ACTIVATIONS), ", ".join(LIKELIHOODS)
CONSTRUCTOR = [
    ({"input_dim": 0}, "input_dim must be at least 1, got 0"), ({"input_dim": 7.0}, "input_dim must be an integer"),
    ({"input_dim": "7"}, "input_dim must be an integer of at least 1, got '7'"),
    ({"input_dim": np.eye(9)}, "input_dim must be an integer"),
    ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"), ({"latent_dim": -2}, "latent_dim must be at least 1"),
    ({"latent_dim": True}, "latent_dim must be an integer"), ({"latent_dim": None}, "latent_dim must be an integer"),
    ({"hidden": (6, -3)}, "hidden[1] must be at least 1, got -3"), ({"hidden": (0,)}, "hidden[0] must be at least 1"),
    ({"hidden": "400"}, "hidden must be a sequence of layer widths such as (400, 200), got '400'"),
    ({"hidden": 400}, "hidden must be a sequence"), ({"hidden": {4, 5}}, "hidden must be a sequence"),
    ({"hidden": (1.5,)}, "hidden[0] must be an integer"), ({"hidden": np.eye(30)}, "hidden[0] must be an integer"),
    ({"decoder_hidden": (0,)}, "decoder_hidden[0] must be at least 1"),
    ({"decoder_hidden": 5}, "decoder_hidden must be a sequence"),
    ({"activation": "swish"}, f"activation must be one of {ACTIVATION_NAMES}, got 'swish'"),
    ({"activation": None}, f"activation must be one of {ACTIVATION_NAMES}, got None"),
    ({"activation": np.eye(9)}, f"activation must be one of {ACTIVATION_NAMES}, got array"),
    ({"likelihood": "weibull"}, f"likelihood must be one of {LIKELIHOOD_NAMES}, got 'weibull'"),
    ({"likelihood": "bernoulli:2"}, f"likelihood must be one of {LIKELIHOOD_NAMES}, got 'bernoulli:2'"),
    ({"likelihood": None}, f"likelihood must be one of {LIKELIHOOD_NAMES}, or an object"),
    ({"likelihood": Gaussian}, f"likelihood must be one of {LIKELIHOOD_NAMES}, or an object"),
    *(({"likelihood": f"gaussian:{sigma}"}, f"likelihood 'gaussian:{sigma}': sigma must be a finite number more than 0")
      for sigma in ("0", "-1", "inf", "nan", "x", "")),
    ({"dtype": "float16"}, "dtype must be one of float32, float64, complex128, got 'float16'"),
    ({"dtype": int}, "dtype must be one of float32, float64, complex128, got 'int"), ({"dtype": None}, "dtype must be"),
    ({"dtype": "complex128", "kernels": "numba"}, "dtype complex128 needs kernels='numpy'"),
    ({"dtype": complex, "kernels": "numba"}, "dtype complex128 needs kernels='numpy'"),
    ({"kernels": "torch"}, "kernels must be one of numba, numpy, got 'torch'"), ({"kernels": 1}, "kernels must be one"),
    ({"seed": -1}, "seed must be at least 0, got -1"), ({"seed": "a"}, "seed must be an integer"),
    ({"seed": None}, "seed must be an integer"), ({"seed": 0.5}, "seed must be an integer")]


def one_line(caught, says):
    message = str(caught.value)
    assert says in message and "\n" not in message and len(message) < 400


@pytest.mark.parametrize("config, says", CONSTRUCTOR, ids=lambda value: str(value)[:40])
def test_bad_settings_are_named(config, says):
    with pytest.raises((ValueError, TypeError)) as caught:
        model(**config)
    one_line(caught, says)


def test_sigma_of_a_gaussian_is_checked():
    for sigma in (0, -1, np.nan, "0.1", None):
        with pytest.raises((ValueError, TypeError)) as caught:
            Gaussian(sigma)
        one_line(caught, "sigma must be a")


X, EPS = images(), np.ones((4, 2, Z))
WIDTH = f"x must have shape (rows, {D}) with at least one row, got"
UNIT = "x must lie in [0, 1] for likelihood bernoulli"
BAD_X = [
    (X[0], f"{WIDTH} (7,)"), (X[:, :5], f"{WIDTH} (4, 5)"), (X[None], f"{WIDTH} (1, 4, 7)"), (X[:0], f"{WIDTH} (0, 7)"),
    (X * 1.0j, "x must hold real numbers, got an array of complex128"), (X.astype(str), "x must hold real numbers"),
    ([[0.5] * D, [0.5]], "x must be an array of numbers, got rows of different lengths"),
    (None, "x must hold real numbers"), (X + 1, f"{UNIT}, found values from"), (X - 0.1, UNIT),
    (np.where(X > 0.5, np.nan, X), f"{UNIT}, found NaN"), (np.where(X > 0.5, np.inf, X), UNIT),
    (np.floor(255 * X), "divide pixels from 0 to 255 by 255, or pass them as uint8"),
    ((255 * X).astype(np.int64), "x holds int64 from 0 to 254: for likelihood bernoulli, pass pixels")]
SHAPE = f"eps must have shape (B, K, Z) = (4, K, {Z}) with K at least 1, got"
BAD_EPS = [
    (EPS[:, 0], f"{SHAPE} (4, 3)"), (EPS[:, :0], f"{SHAPE} (4, 0, 3)"), (EPS[:2], f"{SHAPE} (2, 2, 3)"),
    (EPS[..., :2], f"{SHAPE} (4, 2, 2)"), (None, f"{SHAPE} ()"), (EPS * np.nan, "eps must hold finite real numbers"),
    (EPS * 1j, "eps must hold finite real numbers"), (EPS.astype(str), "eps must hold finite real numbers"),
    ([[1.0], [1.0, 2.0]], "eps must be an array of numbers")]
CALLS = [
    *((lambda vae, x=x: vae.loss_and_gradients(x, EPS), says) for x, says in BAD_X),
    *((lambda vae, x=x: vae.encode(x), says) for x, says in BAD_X),
    *((lambda vae, x=x: vae.reconstruct(x, generator()), says) for x, says in BAD_X),
    *((lambda vae, x=x: vae.elbo(x, generator()), says) for x, says in BAD_X),
    *((lambda vae, x=x: vae.log_likelihood(x, generator(), 3), says) for x, says in BAD_X),
    *((lambda vae, eps=eps: vae.loss_and_gradients(X, eps), says) for eps, says in BAD_EPS),
    (lambda vae: vae.loss_and_gradients(X, EPS, "elbo"), "objective must be an object like those of npvae.objectives"),
    (lambda vae: vae.loss_and_gradients(X, EPS, ELBO), "objective must be an object"),
    (lambda vae: vae.loss_and_gradients(X, EPS, ELBO(), -1), "step must be at least 0, got -1"),
    (lambda vae: vae.loss_and_gradients(X, EPS, ELBO(), 0.5), "step must be an integer"),
    (lambda vae: vae.decode(X), "z must have shape (rows, 3) with at least one row, got (4, 7)"),
    (lambda vae: vae.decode(np.ones(Z)), "z must have shape (rows, 3)"),
    (lambda vae: vae.decode("z"), "z must hold real numbers"),
    (lambda vae: vae.sample(0, generator()), "n must be at least 1, got 0"),
    (lambda vae: vae.sample(1.5, generator()), "n must be an integer"),
    (lambda vae: vae.log_likelihood(X, generator(), 0), "n_samples must be at least 1, got 0"),
    *((call, "rng must be a numpy.random.Generator") for call in (
        lambda vae: vae.sample(3, True), lambda vae: vae.reconstruct(X, None), lambda vae: vae.elbo(X, 1.0),
        lambda vae: vae.log_likelihood(X, "0", 3))),
    (lambda vae: vae.sample(3, 0, prior="mixture:2"), "prior mixture:2 needs codes to be fitted to"),
    (lambda vae: vae.sample(3, 0, prior="vamp:2", codes=EPS[:, 0]), "prior must be mixture:C, such as mixture:10"),
    (lambda vae: vae.sample(3, 0, prior=3), "prior must be a mixture from fit_mixture"),
    (lambda vae: vae.sample(3, 0, codes=EPS[:, 0]), "codes are what prior="),
    (lambda vae: vae.sample(3, 0, prior="mixture:2", codes=X), "codes must have shape (rows, 3)"),
    (lambda vae: vae.start_at(np.full(5, 0.5)), f"mean must have shape ({D},), got (5,)"),
    (lambda vae: vae.start_at(X), f"mean must have shape ({D},), got (4, 7)"),
    (lambda vae: vae.start_at(None), f"mean must have shape ({D},), got ()"),
    (lambda vae: vae.start_at(np.full(D, 2.0)), "mean must lie in [0, 1]")]


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_bad_arguments_are_named_and_change_nothing(kernels):
    """Parameters, gradients and the next result are what they were."""
    vae = model(dtype="float64", kernels=kernels)
    loss, gradients = vae.loss_and_gradients(X, EPS)
    kept = vae.parameters.flat.copy(), gradients.flat.copy()
    for call, says in CALLS:
        with pytest.raises((ValueError, TypeError)) as caught:
            call(vae)
        one_line(caught, says)
        assert np.array_equal(vae.parameters.flat, kept[0]) and np.array_equal(vae.gradients.flat, kept[1]), says
    again, gradients = vae.loss_and_gradients(X, EPS)
    assert again == loss and np.array_equal(gradients.flat, kept[1])


@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name.startswith("gaussian")])
def test_gaussian_pixels_may_be_any_finite_number(likelihood):
    vae = model(likelihood=likelihood, dtype="float64")
    assert np.isfinite(vae.loss_and_gradients(10 * X - 5, EPS)[0])
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError) as caught:
            vae.encode(np.where(X > 0.5, bad, X))
        one_line(caught, "x must hold finite numbers, found NaN or infinity")


def test_whole_numbers_are_pixels_too():
    """Black and white as bytes, integers or booleans: nothing to divide by 255."""
    vae, white = model(dtype="float64"), X > 0.5
    expected = vae.loss_and_gradients(white.astype(float), EPS)[0]
    for dtype in (np.uint8, np.int64, bool, np.float32):
        assert vae.loss_and_gradients(white.astype(dtype), EPS)[0] == expected
    assert vae.loss_and_gradients(white.tolist(), EPS.tolist())[0] == expected


def test_bytes_for_a_decoder_that_looks_at_pixels():
    """0 and 255 are black and white; greys are refused, in floats and in bytes."""
    vae, white = model(decoder="made:4"), np.where(X > 0.5, np.uint8(255), np.uint8(0))
    assert np.array_equal(vae.encode(white), vae.encode(white / 255))
    for grey in (white // 2, white // 2 / 255, white - (white > 254)):
        with pytest.raises(ValueError, match="^x must be black and white for a decoder made:H"):
            vae.encode(grey)


def test_labels_of_a_model_without_classes_are_zeros():
    labels = model().check_labels(None, 3)
    assert labels.tolist() == [0, 0, 0] and labels.dtype == np.int64
    labels = model(classes=3).check_labels(np.array([2, 0, 1], np.uint8), 3)
    assert labels.tolist() == [2, 0, 1] and labels.dtype == np.int64


@pytest.mark.parametrize("config, fits", [
    ({}, (1, 1, 1, 1, 1, 1)), ({"posterior": "planar:1"}, (0, 1, 1, 0, 0, 0)),
    ({"prior": "mixture:2"}, (0, 1, 1, 1, 1, 1)), ({"likelihood": "gaussian-optimal"}, (1, 1, 1, 1, 1, 0))])
def test_which_objectives_a_model_takes(config, fits):
    """The exact KL term needs a closed form, stl and dreg a Gaussian posterior, dreg draws that share nothing."""
    objectives = (ELBO(), ELBO(sampled=True), IWAE(), ELBO(sampled=True, gradient="stl"), IWAE(gradient="stl"),
                  IWAE(gradient="dreg"))
    for objective, taken in zip(objectives, fits, strict=True):
        with contextlib.nullcontext() if taken else pytest.raises(ValueError, match="use "):
            model(**config).check_objective(objective)


def test_no_log_likelihood_of_complex_numbers():
    vae = model(dtype="complex128", kernels="numpy")
    with pytest.raises(ValueError, match="^the model's dtype must be one of float32, float64, got 'complex128'$"):
        vae.log_likelihood(images(3), generator())


@pytest.mark.parametrize("config", [
    {}, {"hidden": ()}, {"prior": "mixture:4"}, {"prior": "vamp:5"}, {"prior": "hierarchical:6,2"},
    {"posterior": "iaf:2"}, {"decoder": "made:6"}, {"decoder": "made:6+direct"}, {"classes": 3}],
    ids=str)
def test_every_layer_starts_with_weights_of_its_own(config):
    """None is left at zero, none has the numbers of another."""
    vae = VAE(**{"input_dim": 7, "hidden": (7, 7), "latent_dim": 7, **config})
    weights = [value[value != 0] for name, value in vae.parameters.items() if name.endswith(".W")]
    assert all(len(values) >= 3 and values.std() > 0.05 for values in weights)
    first = [*np.concatenate([values[:3] for values in weights])]
    assert len({*first}) == len(first)


def test_how_wide_a_layer_is_changes_nothing_about_the_start_of_the_others():
    """Each gets a stream of its own."""
    narrow, wide = (VAE(D, (4,), 2, kernels="numpy", seed=3).parameters for D in (5, 9))
    for name in narrow:
        assert np.array_equal(narrow[name], wide[name]) == (name not in ("encoder.0.W", "output.W", "output.b")), name


def test_the_loss_alone_is_that_of_a_step():
    """To the bit, at the parameters that it is given, which it writes into the model; of complex ones it is complex."""
    for config in ({}, {"prior": "mixture:3", "classes": 2}, {"likelihood": "gaussian-optimal"}):
        vae, other = (VAE(D, (4,), Z, dtype="float64", seed=seed, **config) for seed in (0, 1))
        labels = [0, 1] if vae.classes else None
        for objective in (ELBO(0.7, sampled=True), IWAE()):
            expected, gradients = other.loss_and_gradients(X[:2], EPS[:2], objective, 3, labels)
            kept = gradients.flat.copy()
            assert vae.loss(X[:2], EPS[:2], objective, 3, labels, other.parameters) == expected
            assert other.loss(X[:2], EPS[:2], objective, 3, labels) == expected
            assert np.array_equal(vae.parameters.flat, other.parameters.flat)
            assert np.array_equal(other.gradients.flat, kept)
    small = VAE(D, (4,), Z, dtype="complex128", kernels="numpy")
    assert isinstance(small.loss(X[:2], EPS[:2]), complex)


def test_a_seed_does_as_a_generator_of_that_seed():
    """Also where a method draws twice, which must not be the same numbers again."""
    vae, x = model(dtype="float64", kernels="numpy"), X
    for call in (lambda rng: vae.sample(5, rng, mean=False), lambda rng: vae.reconstruct(x, rng),
                 lambda rng: vae.draw_posterior(x, rng), lambda rng: vae.elbo(x, rng),
                 lambda rng: vae.log_likelihood(x, rng, 20), lambda rng: vae.draw_prior(3, rng)):
        assert np.array_equal(call(3), call(np.random.default_rng(3)))
    assert not np.array_equal(vae.draw_posterior(x, 3), vae.draw_posterior(x, 4))


def test_samples_from_a_mixture_of_codes():
    vae, codes = model(dtype="float64"), np.random.default_rng(1).normal(3, 0.1, (50, Z))
    mixture = fit_mixture(codes, 2, 5)
    rng = np.random.default_rng(6)
    assert np.array_equal(vae.sample(9, rng, prior=mixture), vae.decode(mixture.sample(9, 6)))
    rng = np.random.default_rng(5)
    fit_mixture(codes, 2, rng)
    assert np.array_equal(vae.sample(9, rng, prior=mixture), vae.sample(9, 5, prior="mixture:2", codes=codes))
