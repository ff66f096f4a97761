"""Two stochastic layers in use: what they draw, bounds and scores where log p(x) is known, training, files, the
program, and what is refused.  (Gradients and densities: `test_hierarchical.py`.)
"""
import math
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, Checkpoint, FreeBits, fit, hierarchical_vae
from npvae.gradcheck import compare, numerical_gradient
from npvae.model import active_units_per_layer
from npvae.kernels import reference
from npvae.engine.executor import DirectExecutor
from statistics_of_draws import close_to
from tiny_runs import TINY, program_in, without_pictures
from two_layers import B, D, Y, Z, batch, exact_log_p, hierarchy, linear, moments, set_posteriors

NAMES = pytest.mark.parametrize("kernels", ["numpy", "numba"])
ENCODERS = [f"{head}{layer}.{part}" for head in ("mu", "logvar") for layer in ("", "2") for part in "Wb"]


# --- what is drawn ---

def check_moments(draws, mean, covariance):
    close_to(draws, mean, "mean")
    apart = draws - mean
    close_to(apart[:, :, None] * apart[:, None], covariance, "covariance")


@NAMES
def test_draws_from_the_top_follow_the_density(kernels):
    """h1 ~ p(h1) and x ~ p(x), of the linear Gaussian model, whose log p(x) the densities add up to."""
    vae, rng = linear(kernels), np.random.default_rng(0)
    mean, of_h1, mean_x, of_x = moments(vae.parameters)
    check_moments(vae.draw_prior(100000, rng), mean, of_h1)
    check_moments(vae.sample(20000, rng, mean=False), mean_x, of_x)


def means_only(layer, n, rng, params):
    return layer.decode(rng.standard_normal((n, Y)), params)[0]


def logvar_as_log_sigma(layer, n, rng, params):
    mu, logvar = layer.decode(rng.standard_normal((n, Y)), params)
    return mu + np.exp(logvar) * rng.standard_normal(mu.shape)


def one_for_all(layer, n, rng, params):
    mu, logvar = layer.decode(np.tile(rng.standard_normal(Y), (n, 1)), params)
    return mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape)


def weak_top(layer, n, rng, params):
    mu, logvar = layer.decode(0.95 * rng.standard_normal((n, Y)), params)
    return mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape)


@pytest.mark.parametrize("broken", [means_only, logvar_as_log_sigma, one_for_all, weak_top])
def test_wrong_draws_are_found(broken):
    vae = linear()
    draws = broken(vae.prior, 100000, np.random.default_rng(0), vae.parameters)
    with pytest.raises(AssertionError, match="standard errors"):
        check_moments(draws, *moments(vae.parameters)[:2])


@NAMES
def test_both_ways_outside_of_training_are_those_within(kernels):
    """`encode` and `decode` of the second layer, which sampling uses, against the buffers of a pass."""
    for upper in ((), (8, 9)):
        vae = hierarchy(kernels=kernels, upper=upper)
        vae.loss_and_gradients(*batch(5), IWAE())
        a, _ = vae.passes(B, 5)
        layer = vae.prior
        own, _ = a.prior
        for ours, theirs in zip((*layer.encode(own.z, vae.parameters), *layer.decode(own.z2[:, 0], vae.parameters)),
                                (own.mu, own.logvar, own.prior_mu, own.prior_logvar)):
            assert np.allclose(ours, theirs, rtol=1e-13, atol=1e-14)
        assert np.allclose(own.z2[:, 0], own.mu + np.exp(own.logvar / 2) * a.eps_prior.reshape(-1, Y), rtol=1e-14)


# --- bounds and scores ---

def poor(kernels):
    """Encoders that are too wide and lean to one side."""
    vae = linear(kernels)
    set_posteriors(vae)
    for name in ("mu.W", "mu2.W"):
        vae.parameters[name][...] *= 0.8
    for name in ("logvar.b", "logvar2.b"):
        vae.parameters[name][...] += 0.5
    return vae, np.random.default_rng(5).standard_normal((1, D))


def check_weights(vae, x):
    """E p(x, h1, h2) / q(h1, h2|x) = p(x):  the weights of 100,000 draws, over p(x), average to one."""
    rng, images = np.random.default_rng(6), np.tile(x, (200, 1))
    vae.loss_and_gradients(images, rng.standard_normal((200, 500, Z + Y)), IWAE())
    a, _ = vae.passes(200, 500)
    close_to(np.exp(-a.nll - a.log_ratio - exact_log_p(vae.parameters, x)).reshape(-1, 1), 1, "weights")


@NAMES
def test_weights_are_unbiased(kernels):
    check_weights(*poor(kernels))


def half_of_the_ratio(log_ratio, z, logvar, eps):
    reference.log_ratio_forward(log_ratio, z, logvar, eps)
    log_ratio *= 0.5


def test_weights_that_are_not_are_found():
    vae, x = poor("numpy")
    vae.kernels = SimpleNamespace(**{**vars(reference), "log_ratio_forward": half_of_the_ratio})
    with pytest.raises(AssertionError, match="weights"), mock.patch.object(VAE, "engine", property(DirectExecutor)):
        check_weights(vae, x)


@NAMES
def test_bounds_grow_and_stay_below_log_p(kernels):
    vae, x = poor(kernels)
    log_p, images, rng = exact_log_p(vae.parameters, x)[0], np.tile(x, (100, 1)), np.random.default_rng(7)
    results = []
    for draws in (1, 4, 16):
        bounds = [-vae.loss_and_gradients(images, rng.standard_normal((100, draws, Z + Y)), IWAE())[0]
                  for _ in range(40)]
        results.append((np.mean(bounds), np.std(bounds) / math.sqrt(40)))
    for (low, low_error), (high, high_error) in zip(results, [*results[1:], (log_p, 0)]):
        assert high - low > 5 * math.hypot(low_error, high_error), results
    elbo = vae.elbo(np.tile(x, (4000, 1)), rng)
    close_to(elbo[:, None], results[0][0], "ELBO")
    estimates = vae.log_likelihood(images, rng, 500)
    close_to(np.exp(estimates - log_p)[:, None], 1, "log_likelihood")
    assert np.abs(estimates.mean() - log_p) < 0.02


def sigma_points():
    """Noise that averages polynomials up to the third degree as N(0, I) does: +-sqrt(n) e_i."""
    n = Z + Y
    return np.tile(math.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)]), (B, 1, 1))


@NAMES
def test_scores_at_the_exact_posteriors(kernels):
    """E_q d log q = 0, so nothing pulls at either encoder; and E_q d log p(x, h1, h2) is d log p(x), the gradient of
    the model without any latent variable (Fisher's identity).  Averages over the noise are exact here."""
    vae, x = linear(kernels), np.random.default_rng(8).standard_normal((B, D))
    set_posteriors(vae)
    _, gradients = vae.loss_and_gradients(x, sigma_points(), ELBO(sampled=True))
    for name in ENCODERS:
        assert np.abs(gradients[name]).max() <= 1e-11, name
    model = {name: vae.parameters[name].copy() for name in
             ("output.W", "output.b", "prior_mu.W", "prior_mu.b", "prior_logvar.b", "likelihood.logvar")}
    numeric = numerical_gradient(lambda p: -exact_log_p(p, x).mean(), model, "complex")
    report = compare({name: gradients[name] for name in model}, numeric, "complex")
    assert report.worst.error <= 1e-11, report
    vae.parameters["mu2.W"][...] *= 1.1
    _, gradients = vae.loss_and_gradients(x, sigma_points(), ELBO(sampled=True))
    assert np.abs(gradients["mu2.W"]).max() > 1e-2      # elsewhere something does pull


def test_estimators_beside_a_second_layer():
    """STL and DReG leave out the score of q(h1|x) alone: nothing is left of its gradient at the exact posteriors,
    whatever is drawn; elsewhere the average is that of the derivative, and all other tensors' gradient is it."""
    vae, rng = linear(), np.random.default_rng(9)
    set_posteriors(vae)
    x, eps = rng.standard_normal((B, D)), rng.standard_normal((B, 3, Z + Y))
    for objective in (ELBO(sampled=True, gradient="stl"), IWAE(gradient="stl"), IWAE(gradient="dreg")):
        _, gradients = vae.loss_and_gradients(x, eps, objective)
        assert max(np.abs(gradients[name]).max() for name in ("mu.W", "mu.b", "logvar.W", "logvar.b")) <= 1e-11
    vae = hierarchy(likelihood="gaussian:0.5")
    x = np.tile(rng.random((1, D)), (50, 1))
    for total, reduced in ((ELBO(sampled=True), ELBO(sampled=True, gradient="stl")), (IWAE(), IWAE(gradient="dreg"))):
        difference = []
        for _ in range(60):
            eps = rng.standard_normal((50, 3, Z + Y))
            plain = vae.loss_and_gradients(x, eps, total)[1].flat.copy()
            difference.append(vae.loss_and_gradients(x, eps, reduced)[1].flat - plain)
        lower = sum(vae.parameters[name].size for name in vae.parameters
                    if name.startswith(("encoder.", "mu.", "logvar.")))
        assert not np.array(difference)[:, lower:].any() and np.array(difference)[:, :lower].any()
        close_to(np.array(difference), 0, "gradient")


def test_active_units_of_both_layers():
    """h1: one unit that moves, two that do not.  h2: one that follows it; one that follows only the noise of h1, and
    would count if the error of its average did."""
    vae, rng = linear(), np.random.default_rng(10)
    p = vae.parameters
    p.flat[...] = 0
    p["mu.W"][0, 0], p["mu2.W"][0, 0], p["mu2.W"][1, 1] = 0.5, 1, 1
    x = rng.standard_normal((400, D))
    for centre in (0, 1000, 1000, 1000):
        p["mu2.b"][...] = centre
        assert active_units_per_layer(vae, x, rng, draws=5) == (1, 1)
    h1 = vae.draw_posterior(x, rng)
    assert (vae.prior.encode(h1, vae.parameters)[0].var(axis=0) > 0.01).all()
    vae = hierarchy(hidden=(), upper=(1,), activation="relu", likelihood="gaussian")
    p = vae.parameters
    p.flat[...] = 0      # but for the spread of h1, which moves, and E max(0, h1) = sigma / sqrt(2 pi) with it
    p["logvar.W"][0, 0] = p["encoder2.0.W"][0, 0] = p["mu2.W"][0, 0] = 1
    assert active_units_per_layer(vae, x, rng) == (0, 1)
    with pytest.raises(ValueError, match="two stochastic layers"):
        active_units_per_layer(hierarchy(prior="normal"), x, rng)


def test_which_units_of_h2_count():
    """Those of which the covariance is more than 0.01; here it is a variance, for h1 is drawn without noise."""
    vae, rng, x = linear(dtype="float32"), np.random.default_rng(12), np.tile([[1.0], [-1.0]], (500, D))
    p = vae.parameters
    p.flat[...] = 0
    p["logvar.b"][...], p["mu.W"][0, 0] = -80, 1
    for first, second, active in ((0.009, 0.009, 0), (0.009, 0.011, 1), (0.011, 0.011, 2)):
        p["mu2.W"][0] = np.sqrt([first, second])
        for centre in (0, 1000.1):      # what all images have in common does not count
            p["mu2.b"][...] = centre, 1
            assert active_units_per_layer(vae, x, rng) == (1, active)


def test_h1_is_drawn_as_the_model_draws_it():
    """With all that a flow and labels need, and twice as often as said."""
    vae, x, labels, rng = hierarchy(posterior="iaf:1", classes=2), batch(1)[0], np.arange(B) % 2, (
        np.random.default_rng(13))
    for draws in ({"draws": 1}, {"draws": 3}, {}):
        with mock.patch.object(vae, "draw_posterior", wraps=vae.draw_posterior) as drawn:
            active_units_per_layer(vae, x, rng, labels=labels, **draws)
        assert drawn.call_count == 2 * draws.get("draws", 20)
        for call in drawn.call_args_list:
            for given, right in zip(call.args, (x, rng, labels), strict=True):
                assert np.array_equal(given, right)


# --- training, files, the program ---

PIXELS = np.random.default_rng(11).integers(0, 256, (60, D), dtype=np.uint8)


def train(path, epochs, seed=1, resume=None, **config):
    vae = hierarchy(seed=seed, **config)
    history = fit(vae, PIXELS[:40], PIXELS[40:], epochs, 8, objective=IWAE(), n_samples=3, binarize="dynamic", seed=3,
                  callbacks=[Checkpoint(path)], resume=resume)
    return vae, [{name: value for name, value in metrics.items() if "second" not in name} for metrics in history]


@pytest.mark.parametrize("dtype, kernels", [("float32", "numba"), ("float64", "numpy")])
def test_trained_resumed_saved(tmp_path, dtype, kernels):
    config = {"dtype": dtype, "kernels": kernels}
    straight, history = train(tmp_path / "a.npz", 4, **config)
    assert history[-1]["test_loss"] < history[0]["test_loss"]
    train(tmp_path / "b.npz", 2, **config)
    resumed, again = train(tmp_path / "b.npz", 4, seed=2, resume=tmp_path / "b.npz", **config)
    assert again == history and np.array_equal(resumed.parameters.flat, straight.parameters.flat)
    loaded = VAE.load(tmp_path / "b.npz", kernels)
    assert loaded.config() == straight.config() and loaded.config()["prior"] == "hierarchical:8,9,2"
    x, eps = batch(3)
    assert loaded.loss_and_gradients(x, eps, IWAE())[0] == straight.loss_and_gradients(x, eps, IWAE())[0]
    one, other = (vae.log_likelihood(x, np.random.default_rng(0), 50) for vae in (loaded, straight))
    assert np.array_equal(one, other) and np.isfinite(one).all()
    assert loaded.reconstruct(x, np.random.default_rng(0)).shape == loaded.sample(4, np.random.default_rng(0)).shape
    assert loaded.encode(x)[0].shape == (B, Z) and loaded.decode(eps[:, 0, :Z]).shape == (B, D)


def test_the_program_trains_and_opens_a_run_of_it(tmp_path, monkeypatch, capsys):
    without_pictures(monkeypatch)
    npvae = program_in(tmp_path, monkeypatch, capsys)
    np.savez("data.npz", train=PIXELS[:40].reshape(40, 7, 1), test=PIXELS[40:].reshape(20, 7, 1))
    assert npvae("train", *TINY, "--prior", "hierarchical:8,2", "--objective", "iwae", "--k", 2, "--out", "run",
                 "--quiet") == (0, "", "")
    for command in (["evaluate", "--samples", "20", "--limit", "10"], ["sample"], ["gradcheck"], ["info"]):
        code, out, error = npvae(command[0], "run", *command[1:])
        assert code == 0, error
    assert "prior_logvar.W" in out


def test_the_constructor():
    """The paper's network by default; each layer starts from a stream of its own."""
    vae = hierarchical_vae(kernels="numpy")
    shapes = {name: value.shape for name, value in vae.parameters.items() if name.endswith("W")}
    up = {"encoder.0": (784, 200), "encoder.1": (200, 200), "mu": (200, 100), "logvar": (200, 100),
          "encoder2.0": (100, 100), "encoder2.1": (100, 100), "mu2": (100, 50), "logvar2": (100, 50)}
    down = {"decoder2.0": (50, 100), "decoder2.1": (100, 100), "prior_mu": (100, 100), "prior_logvar": (100, 100),
            "decoder.0": (100, 200), "decoder.1": (200, 200), "output": (200, 784)}
    assert shapes == {f"{name}.W": shape for name, shape in {**up, **down}.items()}
    assert vae.activation == "tanh" and vae.noise_dim == 150
    square = [vae.parameters[name] for name, shape in shapes.items() if shape == (100, 100)]
    assert len(square) == 5 and all(abs(np.corrcoef(a.flat, b.flat)[0, 1]) < 0.1
                                    for i, a in enumerate(square) for b in square[:i])
    small = hierarchical_vae(7, ((), ()), (3, 2), kernels="numpy")
    assert small.config()["prior"] == small.prior.name == "hierarchical:2"
    same = VAE(7, (), 3, "tanh", kernels="numpy", prior="hierarchical:2")
    assert np.array_equal(small.parameters.flat, same.parameters.flat)


@pytest.mark.parametrize("call, message", [
    (lambda: hierarchy().loss_and_gradients(*batch(1), ELBO()), r"objective ELBO needs the KL term in closed form"),
    (lambda: hierarchy().loss_and_gradients(*batch(1), FreeBits(0.1)), r"use ELBO\(sampled=True\) or IWAE\(\)"),
    (lambda: hierarchy().loss_and_gradients(batch(1)[0], batch(1)[1][..., :Z], IWAE()), r"\(4, K, 5\)"),
    (lambda: hierarchy(classes=4).loss_and_gradients(*batch(1), IWAE()), "labels must be given"),
    (lambda: hierarchical_vae(hidden=(200, 200)), r"hidden\[0\] must be a sequence of layer widths"),
    (lambda: hierarchical_vae(hidden=((200, 200),)), "hidden must be two sequences"),
    (lambda: hierarchical_vae(latent_dims=(100,)), "latent_dims must be two widths"),
    (lambda: hierarchical_vae(latent_dims=(100, 50, 20)), "latent_dims must be two widths"),
    (lambda: hierarchical_vae(hidden=((200,), (0,))), r"hidden\[1\]\[0\] must be at least 1"),
    (lambda: active_units_per_layer(hierarchy(), batch(1)[0], np.random.default_rng(0), 0), "draws must be at least 1"),
    (lambda: active_units_per_layer(hierarchy(), batch(1)[0], None), "rng must be a numpy.random.Generator"),
    (lambda: hierarchical_vae(latent_dims=(100, 0)), r"latent_dims\[1\] must be at least 1"),
    *((lambda name=f"hierarchical{widths}": VAE(prior=name), "hierarchical:100,100,50") for widths in (
        "", ":", ":0", ":9,,2", ":-3", ":9, 2"))])
def test_refused_in_one_line(call, message):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        call()
    assert "\n" not in str(error.value)
