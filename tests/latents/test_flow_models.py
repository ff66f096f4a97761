"""Flows as posteriors of whole models: every gradient, what log p(x) becomes where it is known, what is refused, and
that all of it can be trained, saved and looked at.  (`test_flows.py` has the flows by themselves.)
"""
import math

import numpy as np
import pytest
from hypothesis import given

from npvae import ELBO, IWAE, VAE, Adam, FreeBits, evaluate, fit
from npvae.latents.flows import InverseAutoregressive, NoFlow, Planar, make_flow
from npvae.engine.executor import DirectExecutor
from npvae.likelihoods.support import fitting
from npvae.plotting import interpolation, traversals
from npvae.testing import assert_gradients
from strategies import seeds
from linear_models import exact_log_p, linear_vae, set_posterior

NAMES = pytest.mark.parametrize("kernels", ["numpy", "numba"])
POSTERIORS = pytest.mark.parametrize("posterior", ["planar:1", "planar:3", "iaf:1", "iaf:3:7"])
OBJECTIVES = {"iwae": IWAE(0.8), "sampled elbo": ELBO(0.7, sampled=True)}
KINDS = {"planar:3": Planar, "iaf:2:5": InverseAutoregressive}


def shaken(vae, seed=0, size=0.3):
    """The model with random parameters, biases included."""
    vae.parameters.flat[...] += size * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def batch(vae, size, draws, seed=0):
    """Images, noise and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, vae.classes, size) if vae.classes else None
    x = fitting(vae.output, rng.random((size, vae.input_dim)))
    return x, rng.standard_normal((size, draws, vae.noise_dim)), labels


# --- gradients ---

def check(objective, draws, kernels="numpy", seed=0, vacuous=(), **config):
    """Every named tensor against the complex step through the reference."""
    config = {"input_dim": 5, "hidden": (4,), "latent_dim": 3, "activation": "tanh", **config}
    vae = shaken(VAE(**config, dtype="float64", kernels=kernels, seed=seed), seed)
    analytic = VAE(**config, dtype="complex128", kernels="numpy")
    x, eps, labels = batch(vae, 3, draws, seed)

    def loss(parameters):
        return analytic.loss(x, eps, objective, labels=labels, parameters=parameters)
    _, gradients = vae.loss_and_gradients(x, eps, objective, labels=labels)
    parameters = {name: value.copy() for name, value in vae.parameters.items()}
    assert_gradients(loss, {name: value.copy() for name, value in gradients.items()}, parameters, vacuous=vacuous,
                     tolerance=1e-12 if kernels == "numpy" else 1e-11)


@pytest.mark.every(5)
@POSTERIORS
@pytest.mark.parametrize("objective, draws", [("iwae", 3), ("sampled elbo", 1)])
def test_every_gradient(posterior, objective, draws):
    check(OBJECTIVES[objective], draws, posterior=posterior)


@pytest.mark.every(9)
@pytest.mark.parametrize("posterior", KINDS)
@pytest.mark.parametrize("config", [
    {"hidden": ()}, {"hidden": (6,), "decoder_hidden": (7, 8)}, {"classes": 2}, {"hidden": (), "classes": 2},
    {"prior": "mixture:4"}, {"prior": "hierarchical:4,2"}, {"decoder": "made:7"}, {"likelihood": "gaussian-learned"}],
    ids=str)
def test_every_gradient_beside_other_parts(posterior, config):
    """Without a hidden layer the flow reads the image itself; labels, priors and decoders go their own ways.  Fused."""
    check(IWAE(), 3, "numba", seed=1, posterior=posterior, **config)


@pytest.mark.parametrize("posterior, vacuous", [("planar:2", ()), ("iaf:2:4", ("flow.0.hidden.W", "flow.1.hidden.W"))])
def test_every_gradient_of_a_single_latent_dimension(posterior, vacuous):
    """The one dimension sees no other: the network knows only what the encoder says."""
    check(IWAE(), 3, seed=2, posterior=posterior, latent_dim=1, vacuous=vacuous)


@pytest.mark.every(2)
@pytest.mark.parametrize("posterior", KINDS)
def test_central_differences(posterior):
    """The independent method: real arithmetic only."""
    vae = shaken(VAE(5, (6,), 3, "tanh", dtype="float64", kernels="numpy", posterior=posterior), 3)
    x, eps, _ = batch(vae, 4, 2, 3)
    _, gradients = vae.loss_and_gradients(x, eps, IWAE())
    gradients, parameters = ({name: value.copy() for name, value in block.items()}
                             for block in (gradients, vae.parameters))

    def loss(moved):
        return vae.loss(x, eps, IWAE(), parameters=moved)
    assert_gradients(loss, gradients, parameters, method="central")


@POSTERIORS
def test_the_training_path_agrees_with_the_reference(posterior):
    """float32 and fused against float64 in plain NumPy: loss and every gradient."""
    config = dict(input_dim=31, hidden=(23,), latent_dim=11, posterior=posterior)
    fast = shaken(VAE(**config, seed=4), 4, 0.1)
    exact = VAE(**config, dtype="float64", kernels="numpy")
    exact.parameters.flat[...] = fast.parameters.flat
    x, eps, _ = (value if value is None else value.astype(np.float32) for value in batch(exact, 9, 4, 4))
    loss, gradients = exact.loss_and_gradients(x, eps, IWAE())
    fast_loss, fast_gradients = fast.loss_and_gradients(x, eps, IWAE())
    assert fast_loss == pytest.approx(loss, rel=1e-5)
    for name in gradients:
        error = np.linalg.norm(fast_gradients[name] - gradients[name])
        assert error <= 1e-4 * np.linalg.norm(gradients[name]) + 1e-5 * gradients.norm(), name


@pytest.mark.parametrize("posterior", KINDS)
def test_gradients_do_not_depend_on_what_was_computed_before(posterior):
    vae = shaken(VAE(7, (6,), 3, dtype="float64", posterior=posterior))
    x, eps, _ = batch(vae, 4, 2)
    vae.passes(17, 5)      # memory for the largest: were it renewed below, stale numbers would be gone
    first, gradients = vae.loss_and_gradients(x, eps, IWAE())
    kept = gradients.flat.copy()
    for size, draws in ((3, 5), (9, 1), (17, 5)):
        vae.loss_and_gradients(*batch(vae, size, draws, 6)[:2], IWAE())
    vae.encode(np.full((17, 7), 0.5)), vae.reconstruct(np.full((9, 7), 0.5), np.random.default_rng(0))
    again, gradients = vae.loss_and_gradients(x, eps, IWAE())
    assert again == first and np.array_equal(gradients.flat, kept)


# --- where a flow does nothing ---

def stand_still(vae):
    """An autoregressive flow whose gates are open, sigmoid(60) = 1, whatever the network says."""
    for _, gate in vae.flow.layers:
        vae.parameters[gate.W][...] = 0
        vae.parameters[gate.b][...] = np.repeat([0, 60], vae.latent_dim)


@pytest.mark.every(2)
@NAMES
@pytest.mark.parametrize("posterior", ["planar:3", "iaf:3"])
@given(seed=seeds)
def test_a_flow_that_stands_still_is_the_gaussian_model(kernels, posterior, seed):
    """The same loss, and the same gradients of all that both have.  A planar flow starts like that."""
    config = dict(input_dim=7, hidden=(6,), latent_dim=3, dtype="float64", kernels=kernels, seed=seed)
    plain, vae = VAE(**config), VAE(**config, posterior=posterior)
    if posterior == "iaf:3":
        stand_still(vae)
    x, eps, _ = batch(vae, 4, 3, seed)
    for objective in OBJECTIVES.values():
        expected, theirs = plain.loss_and_gradients(x, eps, objective)
        loss, ours = vae.loss_and_gradients(x, eps, objective)
        assert loss == pytest.approx(expected, rel=1e-13)
        for name in theirs:
            assert np.abs(ours[name] - theirs[name]).max() <= 1e-12 * theirs.norm(), name


@pytest.mark.parametrize("posterior", ["planar:3", "iaf:2"])
def test_how_a_flow_starts(posterior):
    """Directions of planar steps, or networks, differ from step to step; and all that a flow is told can be learned."""
    vae = VAE(7, (6,), 3, dtype="float64", kernels="numpy", posterior=posterior)
    steps = ([vae.parameters["flow.b"].reshape(3, 7)[t, 3:6] for t in range(3)] if posterior == "planar:3"
             else [vae.parameters[f"flow.{t}.gate.W"] for t in range(2)])
    assert not np.allclose(steps[0], steps[1])
    if posterior == "iaf:2":      # at first 0.88 of z0 stays, where nothing else is said
        assert (vae.parameters["flow.1.gate.b"] == [0, 0, 0, 2, 2, 2]).all()
    x, eps, _ = batch(vae, 4, 1)
    _, gradients = vae.loss_and_gradients(x, eps, IWAE())
    assert np.abs(gradients["flow.W"]).min(axis=0).max() > 0 and np.abs(gradients["flow.b"]).min() > 0


# --- log p(x), where it is known ---

def estimates(vae, x, draws, rng):
    """exp(bound of `draws` samples - log p(x)), again and again for one image: its mean is 1, whatever q(z|x) is."""
    log_p = exact_log_p(vae, x)[0]
    return np.exp(vae.log_likelihood(np.tile(x, (3000, 1)), rng, draws) - log_p)


def linear_flow_vae(posterior, kernels="numba", seed=5):
    """x = z W + b + noise, and an encoder whose Gaussian a flow has spoiled somewhat."""
    plain = linear_vae(kernels, seed)
    set_posterior(plain)
    vae = VAE(**{**plain.config(), "posterior": posterior}, kernels=kernels)
    for name, value in plain.parameters.items():
        vae.parameters[name][...] = value
    vae.parameters["logvar.b"][...] += 0.8      # wide enough that no importance weight is huge
    for name, value in vae.parameters.items():
        if name.startswith("flow"):
            if name.endswith("gate.b"):
                value[...] = [0, 0, 3, 3]
            value += 0.1 * np.random.default_rng(seed).standard_normal(value.shape)
    return vae


def check_expectation(vae, draws=20):
    weights = estimates(vae, np.random.default_rng(6).standard_normal((1, vae.input_dim)), draws,
                        np.random.default_rng(7))
    error = weights.std() / math.sqrt(len(weights))
    assert abs(weights.mean() - 1) <= 5 * error, f"off by {(weights.mean() - 1) / error:.1f} standard errors"
    assert error < 0.02, "and the test is sharp"


@pytest.mark.parametrize("posterior", ["planar:2", "iaf:2"])
def test_importance_weights_average_to_p(posterior):
    """E_q[p(x, z) / q(z|x)] = p(x), which takes the density of every draw, not only its mean."""
    check_expectation(linear_flow_vae(posterior))


@pytest.mark.every(3)
@pytest.mark.parametrize("posterior", ["planar:2", "iaf:2"])
@pytest.mark.parametrize("factor", [-1, 0, 0.5])
def test_a_wrong_log_det_is_found(posterior, factor, monkeypatch):
    vae = linear_flow_vae(posterior)
    flow, forward = type(vae.flow), type(vae.flow).forward

    def broken(self, kernels, a, own, params):
        forward(self, kernels, a, own, params)
        a.log_det *= factor
    monkeypatch.setattr(flow, "forward", broken)
    monkeypatch.setattr(VAE, "engine", property(DirectExecutor))      # it computes beside kernels
    with pytest.raises(AssertionError, match="standard errors"):
        check_expectation(vae)


@pytest.mark.every(2)
@NAMES
@pytest.mark.parametrize("posterior", ["planar:2", "iaf:2"])
def test_with_many_samples_log_likelihood_is_exact(kernels, posterior):
    vae, rng = linear_flow_vae(posterior, kernels), np.random.default_rng(8)
    x = rng.standard_normal((5, vae.input_dim))
    log_p = exact_log_p(vae, x)
    assert np.abs(vae.log_likelihood(x, rng, 20000) - log_p).max() < 0.05
    elbo = np.mean([evaluate.elbo(vae, x, rng) for _ in range(50)], axis=0)
    assert (elbo < log_p - 0.05).all()


def fit_encoder(vae, x, steps):
    """Adam on all but the decoder; the mean ELBO at the end."""
    adam, rng, decoder = Adam(0.02), np.random.default_rng(9), ("output.W", "output.b")
    kept = {name: vae.parameters[name].copy() for name in decoder}
    adam.prepare(vae.parameters)
    for _ in range(steps):
        vae.loss_and_gradients(x, rng.standard_normal((len(x), 8, vae.latent_dim)), ELBO(sampled=True))
        adam.step(vae.parameters, vae.gradients, vae.kernels)
        for name in decoder:
            vae.parameters[name][...] = kept[name]
    return -vae.loss_and_gradients(x, rng.standard_normal((len(x), 500, vae.latent_dim)), ELBO(sampled=True))[0]


@pytest.mark.every(3)
@pytest.mark.parametrize("posterior", ["gaussian", "planar:4", "iaf:2"])
def test_a_flow_closes_the_gap_that_a_diagonal_gaussian_leaves(posterior):
    """W's rows are not orthogonal, so the posterior is correlated: the best diagonal q leaves a known gap,
    1/2 [ sum_j log P_jj - log det P ] with P its precision."""
    W, sigma = np.array([[1.0, 0.2, 0.0], [0.9, -0.1, 0.3]]), 0.5
    vae = VAE(3, (), 2, likelihood=f"gaussian:{sigma}", dtype="float64", posterior=posterior, seed=1)
    vae.parameters["output.W"][...], vae.parameters["output.b"][...] = W, 0
    x = np.random.default_rng(1).standard_normal((16, 3)) @ np.diag([1.2, 0.5, 0.5])
    precision = np.eye(2) + W @ W.T / sigma ** 2
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    residual, covariance = x, W.T @ W + sigma ** 2 * np.eye(3)
    log_p = -0.5 * (np.sum(residual * np.linalg.solve(covariance, residual.T).T, axis=1)
                    + np.linalg.slogdet(covariance)[1] + 3 * math.log(2 * math.pi)).mean()
    left = log_p - fit_encoder(vae, x, 600)
    assert gap > 0.3 and (left == pytest.approx(gap, abs=0.02) if posterior == "gaussian" else 0 < left < 0.4 * gap)


# --- names and refusals ---

@pytest.mark.parametrize("name", ["", "planar", "planar:", "planar:0", "planar:-1", "planar:2:3", "planar:1.5", "iaf",
                                  "iaf:0", "iaf:2:0", "iaf:2:3:4", "gaussian:2", "Planar:2", "planar:2 ", "radial:2",
                                  "planar:\u0662", 3, None, ["planar:2"], np.zeros(3)], ids=repr)
def test_other_names_are_refused_in_one_line(name):
    with pytest.raises(ValueError, match="^posterior must be gaussian, planar:T, iaf:T or iaf:T:H, or an object of "
                                         "class Flow, got .*$"):
        VAE(7, (6,), 3, posterior=name)


def test_the_names_make_what_they_say():
    assert type(make_flow("gaussian", 6, 3)) is NoFlow
    for name, kind in KINDS.items():
        flow = make_flow(name, 6, 3)
        assert type(flow) is kind and flow.steps == int(name.split(":")[1])
    assert make_flow("planar:3", 6, 4).shapes == {"flow.W": (6, 27), "flow.b": (27,)}
    assert make_flow("iaf:1", 6, 3).shapes == make_flow("iaf:1:12", 6, 3).shapes == {
        "flow.W": (6, 12), "flow.b": (12,), "flow.0.hidden.W": (3, 12), "flow.0.hidden.b": (12,),
        "flow.0.gate.W": (12, 6), "flow.0.gate.b": (6,)}


@pytest.mark.parametrize("posterior", KINDS)
@pytest.mark.parametrize("objective, message", [
    (ELBO(), "objective ELBO needs the KL term in closed form, which prior normal with posterior {} does not have: "
             r"use ELBO\(sampled=True\) or IWAE\(\)"),
    (FreeBits(0.1), "objective FreeBits needs the KL term in closed form, .* posterior {} does not have: use .*"),
    (IWAE(gradient="dreg"), "gradient dreg needs a Gaussian .*posterior {} is not: use gradient total"),
    (IWAE(gradient="stl"), "gradient stl needs a Gaussian .*posterior {} is not: use gradient total"),
    (ELBO(sampled=True, gradient="stl"), "gradient stl needs a Gaussian .*posterior {} is not: use gradient total")])
def test_objectives_that_do_not_fit_are_refused(posterior, objective, message):
    vae = VAE(7, (6,), 3, posterior=posterior)
    x, eps, _ = batch(vae, 4, 2)
    for refused in (lambda: vae.loss_and_gradients(x, eps, objective), lambda: fit(vae, x, x, 1, 2, None, objective)):
        with pytest.raises(ValueError, match=f"^{message.format(posterior)}$"):
            refused()


def test_a_prior_made_of_gaussians_is_refused():
    with pytest.raises(ValueError, match="prior vamp:4 .*posterior planar:2 is not Gaussian: use posterior gaussian"):
        VAE(7, (6,), 3, prior="vamp:4", posterior="planar:2")


# --- training, files, pictures ---

@pytest.mark.parametrize("posterior", KINDS)
@pytest.mark.parametrize("classes", [0, 2])
def test_reconstruction_goes_through_the_flow(posterior, classes):
    """The z of `reconstruct` is that of the forward pass under the same noise; 600 images take two blocks."""
    vae = shaken(VAE(7, (6,), 3, dtype="float64", posterior=posterior, classes=classes))
    x, eps, labels = batch(vae, 600, 1)
    vae.loss_and_gradients(x, eps, IWAE(), labels=labels)
    a, _ = vae.passes(600, 1)
    z, z0 = a.z[:, 0].copy(), a.z0[:, 0].copy()
    assert np.abs(vae.move(z0, x, labels) - z).max() <= 1e-12 < np.abs(z - z0).max()
    mu, logvar = vae.encode(x, labels)
    assert np.abs(mu + np.exp(logvar / 2) * eps[:, 0] - z0).max() <= 1e-12

    class Replay(np.random.Generator):
        def standard_normal(self, shape):
            return eps[:, 0]
    images = vae.reconstruct(x, Replay(np.random.PCG64(0)), labels)
    assert np.abs(images - vae.decode(z, labels)).max() <= 1e-12


@pytest.mark.every(3)
@NAMES
@pytest.mark.parametrize("posterior", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_saving_and_looking(kernels, posterior, dtype, tmp_path):
    x = (np.random.default_rng(3).random((60, 4)) < [0.1, 0.9, 0.5, 0.3]).astype(np.float32)
    x[:, 3] = x[:, 2]
    vae = VAE(4, (8,), 2, dtype=dtype, kernels=kernels, posterior=posterior)
    history = fit(vae, x, x, epochs=12, batch_size=25, optimizer=Adam(0.01), objective=IWAE(), n_samples=3)
    assert history[-1]["test_loss"] < history[0]["test_loss"] - 0.1
    vae.save(tmp_path / "vae.npz")
    same = VAE.load(tmp_path / "vae.npz", kernels)
    assert same.config() == vae.config() and same.config()["posterior"] == posterior
    for one in (vae, same):
        rng = np.random.default_rng(5)
        images = one.sample(3, rng), one.reconstruct(x, rng), one.sample(3, rng, mean=False)
        assert [image.dtype for image in images] == [dtype] * 3 and np.isfinite(images[1]).all()
    assert np.array_equal(one.parameters.flat, vae.parameters.flat)
    log_p, elbo = vae.log_likelihood(x, rng, 200), np.mean([vae.elbo(x, rng) for _ in range(30)], axis=0)
    assert elbo.mean() < log_p.mean() < 0
    assert vae.encode(x)[0].shape == (60, 2) and evaluate.active_units(vae, x) in (0, 1, 2)


@pytest.mark.parametrize("posterior", KINDS)
def test_pictures_look_where_the_flow_leads(posterior, monkeypatch):
    """The ends of a way between two images are at f(mu), not at mu."""
    vae, seen = shaken(VAE(4, (8,), 2, posterior=posterior)), []
    x = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z, **labels: seen.append(z) or decode(z))
    assert interpolation(vae, x.reshape(2, 2, 4), (2, 2)) and traversals(vae, x[0], np.zeros(2), (2, 2))
    ends = vae.move(vae.encode(x)[0], x)
    assert np.allclose(seen[0].reshape(2, -1, 2)[:, [0, -1]].reshape(4, 2), ends, atol=1e-6)
    assert np.allclose(seen[1][0, 1], ends[0, 1], atol=1e-6) and not np.allclose(ends, vae.encode(x)[0], atol=0.1)
