"""Models with a learned prior: gradients by the complex step, estimators with less noise, bounds against the exact
log p(x) of a linear model, training, files; and what does not fit, refused.
"""
import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE, Checkpoint, FreeBits, fit
from npvae.latents import priors
from npvae.plotting import pictures, tile_figure
from npvae.gradcheck import compare, numerical_gradient
from npvae.kernels import reference
from npvae.params import Block
from npvae.plotting import manifold, manifold_grid, traversals
from npvae.objectives import Objective
from strategies import seeds, sizes
from whole_models import STEP, batch, check, loss_in
from statistics_of_draws import close_to
from prior_models import KERNELS, PRIORS, RNG, U, components, model


# --- gradients of whole models ---

OBJECTIVES = {"elbo": (ELBO(sampled=True), 3), "elbo K=1": (ELBO(0.3, sampled=True), 1), "iwae": (IWAE(), 4),
              "iwae beta": (IWAE(0.6), 2)}


@pytest.mark.every(10)
@KERNELS
@PRIORS
@pytest.mark.parametrize("hidden, objective", [((), "elbo K=1"), ((6,), "iwae"), ((6, 5), "elbo"), ((), "iwae beta")])
def test_every_tensor_against_the_complex_step(prior, objective, hidden, kernels):
    report = check("complex", *OBJECTIVES[objective], seed=1, size=8, kernels=kernels, input_dim=7, hidden=hidden,
                   latent_dim=3, activation="tanh", decoder_hidden=(9, 8)[:2 - len(hidden)], prior=prior)
    assert report.worst.error <= (1e-12 if kernels == "numpy" else 1e-10), report
    assert not any(tensor.vacuous for tensor in report.tensors), report
    assert any(tensor.name.startswith("prior") for tensor in report.tensors)


@settings(max_examples=6)
@given(size=sizes("BDHGZC", most=8), draws=st.integers(1, 4), seed=seeds, vamp=st.booleans(),
       objective=st.sampled_from(list(OBJECTIVES)))
def test_random_architectures(size, draws, seed, vamp, objective):
    report = check("complex", OBJECTIVES[objective][0], draws, seed, size["B"], "numba", input_dim=size["D"],
                   hidden=(size["H"], size["G"]), latent_dim=size["Z"], activation="softplus",
                   prior=f"{'vamp' if vamp else 'mixture'}:{size['C']}")
    assert report.worst.error <= 1e-10, report


@pytest.mark.parametrize("missing", ["the path through q(z|u)", "the path through q(z|x)", "the gradient of u"])
def test_both_paths_to_the_encoder_are_needed(missing, monkeypatch):
    vae, analytic = (VAE(7, (6,), 3, "tanh", dtype=dtype, kernels="numpy", prior="vamp:5", seed=1)
                     for dtype in ("float64", "complex128"))
    x, eps = batch(vae, 4, 3, 1)
    analytic.parameters.flat[...] = vae.parameters.flat
    numeric = numerical_gradient(loss_in(analytic, x, eps, IWAE()), vae.parameters, "complex")
    assert compare(vae.loss_and_gradients(x, eps, IWAE(), STEP)[1], numeric, "complex").ok
    backward = priors.Vamp.backward

    def broken(self, kernels, d, a, own, grads, params):
        backward(self, kernels, d, a, own, grads, params)
        if missing == "the path through q(z|u)":
            d.mu[4:], d.logvar[4:] = 0, 0
    monkeypatch.setattr(priors.Vamp, "backward", broken)
    if missing == "the path through q(z|x)":
        add = reference.add
        monkeypatch.setattr(reference, "add", lambda out, a, b: add(out, a, 0 * b if out.shape == (4, 3, 3) else b))
    if missing == "the gradient of u":
        monkeypatch.setattr(priors.Vamp, "rows_backward", lambda *arguments: None)
        vae.gradients[U][...] = 0
    report = compare(vae.loss_and_gradients(x, eps, IWAE(), STEP)[1], numeric, "complex")
    wrong = {tensor.name for tensor in report.tensors if tensor.error > 1e-12}
    assert wrong == ({U} if missing == "the gradient of u" else
                     {"encoder.0.W", "encoder.0.b", "mu.W", "mu.b", "logvar.W", "logvar.b"}
                     | ({U} if missing == "the path through q(z|u)" else set()))


@PRIORS
@given(seed=seeds)
def test_a_batch_is_the_mean_of_its_rows(prior, seed):
    vae = model(prior, seed)
    x, eps = batch(vae, 5, 3, seed)
    for objective in (ELBO(sampled=True), IWAE()):
        loss, gradients = vae.loss_and_gradients(x, eps, objective)
        whole, parts = gradients.flat.copy(), np.zeros_like(gradients.flat)
        for rows in (slice(0, 2), slice(2, 5)):
            parts += vae.loss_and_gradients(x[rows], eps[rows], objective)[1].flat * len(x[rows]) / 5
        assert np.linalg.norm(parts - whole) <= 1e-12 * np.linalg.norm(whole)


class Weighted(Objective):
    """An objective that weighs the images of a batch: with the weights of a quadrature rule, a mean over the noise."""

    def __init__(self, objective, weights):
        self.objective, self.weights, self.kl_estimator = objective, weights, objective.kl_estimator

    def __call__(self, nll, reg, step):
        loss, *rest = self.objective(nll, reg, step)
        return loss, *(np.broadcast_to(part, nll.shape) * (len(nll) * self.weights[:, None]) for part in rest)


@PRIORS
@pytest.mark.parametrize("draws, pair", [(1, (ELBO(sampled=True), ELBO(sampled=True, gradient="stl"))),
                                         (2, (IWAE(), IWAE(gradient="dreg")))], ids=["stl", "dreg"])
def test_estimators_with_less_noise_have_the_same_mean(prior, draws, pair):
    """Over the noise, by Gauss-Hermite quadrature.  What leaves out the score of q(z|x) must not leave out that of
    q(z|u), which is of the prior."""
    vae = VAE(7, (6,), 1, "tanh", dtype="float64", kernels="numpy", prior=prior, seed=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    eps = np.stack(np.meshgrid(*[nodes] * draws, indexing="ij"), axis=-1).reshape(-1, draws, 1)
    weights = np.prod(np.meshgrid(*[weights / weights.sum()] * draws), axis=0).ravel()
    x = np.tile(np.random.default_rng(0).random(7), (len(eps), 1))
    plain, other = (vae.loss_and_gradients(x, eps, Weighted(one, weights))[1].flat.copy() for one in pair)
    assert np.linalg.norm(plain - other) <= 1e-4 * np.linalg.norm(plain)
    at_a_node = [vae.loss_and_gradients(x[:1], eps[:1], one)[1].flat.copy() for one in pair]
    assert np.linalg.norm(at_a_node[0] - at_a_node[1]) > 0.1 * np.linalg.norm(plain)


# --- against the truth: a linear Gaussian decoder ---

@KERNELS
@PRIORS
def test_bounds_and_log_likelihood_against_the_exact_log_p(prior, kernels):
    """p(x) = sum_c pi_c N(x; mean_c W + b, W^T S_c W + sigma^2): importance sampling is right on average, the bounds
    stay below."""
    vae, sigma = model(prior, 4, input_dim=5, hidden=(), latent_dim=2, likelihood="gaussian:0.8", kernels=kernels), 0.8
    vae.parameters["logvar.b"][...] += 1
    (mean, logvar, pi), W, x = components(vae), vae.parameters["output.W"], np.random.default_rng(1).random((1, 5))
    p = 0.0
    for m, v, weight in zip(mean, logvar, pi):
        covariance, r = (W.T * np.exp(v)) @ W + sigma ** 2 * np.eye(5), x[0] - m @ W - vae.parameters["output.b"]
        p += weight * math.exp(-0.5 * (r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(covariance)[1]
                                       + 5 * math.log(2 * math.pi)))
    rows, rng = np.tile(x, (300, 1)), np.random.default_rng(2)
    ratios = np.exp(vae.log_likelihood(rows, rng, 100) - math.log(p))
    close_to(ratios, 1.0, "p(x)")
    assert ratios.std() < 1
    elbos, bounds = vae.elbo(rows, rng), vae.log_likelihood(rows, rng, 5)
    assert elbos.mean() < bounds.mean() < math.log(p)


# --- as any model ---

@pytest.mark.parametrize("dtype, kernels", [("float32", "numba"), ("float64", "numba"), ("float32", "numpy"),
                                            ("complex128", "numpy")])
@PRIORS
def test_shapes_types_and_the_way_to_disk(prior, dtype, kernels, tmp_path):
    vae, x, rng = model(prior, dtype=dtype, kernels=kernels), RNG.random((4, 7)), np.random.default_rng(0)
    results = [*vae.encode(x), vae.sample(9, rng), vae.sample(9, rng, mean=False), vae.reconstruct(x, rng),
               vae.elbo(x, rng)]
    assert [value.shape for value in results] == [(4, 3), (4, 3), (9, 7), (9, 7), (4, 7), (4,)]
    assert {value.dtype for value in results} == {np.dtype(dtype)}
    assert vae.config()["prior"] == prior == vae.prior.name
    if dtype != "complex128":
        assert vae.log_likelihood(x, rng, n_samples=30).shape == (4,)
        vae.save(tmp_path / "model.npz")
        loaded = VAE.load(tmp_path / "model.npz", kernels=kernels)
        assert np.array_equal(loaded.parameters.flat, vae.parameters.flat) and loaded.config() == vae.config()
        one, same = (each.sample(20, np.random.default_rng(1)) for each in (vae, loaded))
        assert np.array_equal(one, same)


@pytest.mark.every(2)
@KERNELS
@PRIORS
def test_training_moves_every_parameter_and_resumes_to_the_bit(prior, kernels, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 7), dtype=np.uint8)
    arguments = dict(batch_size=8, objective=ELBO(sampled=True), binarize="dynamic", seed=3)
    straight, first, second = (VAE(7, (6,), 3, prior=prior, kernels=kernels, seed=seed) for seed in (1, 1, 9))
    start = straight.parameters.flat.copy()
    history = fit(straight, x, x, 4, **arguments)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert (straight.parameters.flat != start).mean() > 0.9
    fit(first, x, x, 2, callbacks=[Checkpoint(tmp_path / "c.npz")], **arguments)
    fit(second, x, x, 4, resume=tmp_path / "c.npz", **arguments)
    assert np.array_equal(second.parameters.flat, straight.parameters.flat)


def test_components_start_apart_and_alike_in_every_type():
    for prior, name in (("mixture:6", "prior.mean"), ("vamp:6", U)):
        single, double = (VAE(7, (6,), 3, prior=prior, dtype=dtype, seed=2) for dtype in ("float32", "float64"))
        assert np.array_equal(single.parameters[name], double.parameters[name].astype(np.float32))
        assert len(np.unique(double.parameters[name])) == double.parameters[name].size
        plain = VAE(7, (6,), 3, seed=2)      # a prior changes nothing about the start of the rest
        assert all(np.array_equal(plain.parameters[key], single.parameters[key]) for key in plain.parameters)


def test_where_priors_start():
    """As their documentation says: a mixture of equal weights, unit variances and means of a spread of 0.3;
    pseudo-inputs that are dark noise, sigmoid(-3) = 0.05 where it is darkest to sigmoid(-1) = 0.27 in a few pixels."""
    p = VAE(7, (6,), 200, prior="mixture:50", kernels="numpy").parameters
    assert not p["prior.logvar"].any() and not p["prior.logits"].any()
    assert p["prior.mean"].std() == pytest.approx(0.3, rel=0.03) and abs(p["prior.mean"].mean()) < 0.015
    v = VAE(400, (6,), 3, prior="vamp:50", kernels="numpy").parameters[U]
    assert v.mean() == pytest.approx(-3, abs=0.03) and v.std() == pytest.approx(1, rel=0.03)
    u = 1 / (1 + np.exp(-v))
    assert np.median(u) == pytest.approx(0.047, abs=0.002) and np.mean(u > 0.27) < 0.05


@pytest.mark.parametrize("parts", [
    {"prior": "mixture:4"}, {"prior": "vamp:5"}, {"prior": "hierarchical:4,2"}, {"posterior": "planar:2"},
    {"posterior": "iaf:2"}, {"decoder": "made:9+direct"}, {"likelihood": "gaussian-learned"}], ids=str)
def test_every_parameter_is_given_its_start(parts):
    """By the part of the model that it belongs to, whatever was there."""
    vae = VAE(7, (6,), 3, kernels="numpy", **parts)
    for part in (vae.flow, vae.prior, vae.output, vae.likelihood):
        params = Block(part.shapes, "float64")
        params.flat[...] = 777
        part.initialize(params, *([] if part is vae.likelihood else [np.random.default_rng(0)]))
        assert not (params.flat == 777).any()


def test_images_that_no_pseudo_input_is_like():
    """Of floats and of bytes; the ends of [0, 1] fit."""
    for x, found in (([[0, 1]], ""), ([[-0.5, 1]], "-0.5 to 1:"), ([[0, 1.25]], "0 to 1.25:")):
        vae = VAE(2, (3,), 2, likelihood="gaussian", prior="vamp:5", kernels="numpy")
        call = functools.partial(fit, vae, np.array(x, float), np.zeros((1, 2)), 1, 1, objective=IWAE())
        if found:
            with pytest.raises(ValueError, match=rf"x_train must lie in \[0, 1\] for prior vamp:5, .* from {found}"):
                call()
        else:
            call()


# --- pictures ---

@pytest.mark.parametrize("prior", ["normal", "mixture:2"])
def test_pictures_of_the_latent_space_reach_as_far_as_the_prior(prior, monkeypatch):
    """Traversals and the plane: -3 to 3, in sigmas of the prior about its mean.  Of a traversal that tile is framed
    which is nearest to the image's own mu: near 0, in the middle of N(0, I), and beyond either end of the mixture."""
    vae, asked, framed, draw = VAE(6, (5,), 2, prior=prior, kernels="numpy", dtype="float64"), [], [], tile_figure
    monkeypatch.setattr(pictures, "tile_figure", lambda *images, frames=(), **more: framed.append(frames)
                        or draw(*images, frames=frames, **more))
    mean, sigma = np.array([[0, 0], [1, 1]]) if prior == "normal" else np.array([[10, -20], [3, 2]])
    if prior != "normal":
        vae.parameters["prior.mean"][...] = mean
        vae.parameters["prior.logvar"][...] = 2 * np.log(sigma)
    monkeypatch.setattr(vae, "decode", lambda z, right=vae.decode: asked.append(np.array(z)) or right(z))
    traversals(vae, np.full(6, 0.5), np.array([1.0, 2.0]), (2, 3), columns=5)
    assert framed == [[(0, 2), (1, 2)] if prior == "normal" else [(0, 4), (1, 0)]]
    manifold(vae, (2, 3), size=4)
    (along, plane), slack = asked, 0.0 if prior == "normal" else 0.1
    for j, row in zip((1, 0), along.reshape(2, 5, 2)):
        assert abs((row[:, j] - mean[j]) / sigma[j] - [-3, -1.5, 0, 1.5, 3]).max() <= slack
        assert (row[:, 1 - j] == row[0, 1 - j]).all()
    assert abs((plane - mean) / sigma - manifold_grid(4).reshape(-1, 2)).max() <= slack + 1e-6


# --- refused ---

@pytest.mark.parametrize("config, says", [
    *(({"prior": bad}, "prior must be normal, mixture:C, vamp:C or hierarchical:H,...,Y, or an object of class Prior, ")
      for bad in ("mixture", "mixture:0", "mixture:02", "mixture:-1", "mixture:2.5", "vamp:", "vamp:x", "Vamp:3", 3,
                  None, ["mixture:3"], np.array(["normal", "vamp:3"]))),
    ({"prior": "vamp:3", "classes": 10}, "prior vamp:3 encodes pseudo-inputs, which have no labels, and this model has "
     "10 classes: use prior mixture:3"),
    ({"prior": "vamp:3", "posterior": "planar:2"}, "prior vamp:3 is a mixture of Gaussians q(z|u), and posterior "
     "planar:2 is not Gaussian: use posterior gaussian, or prior mixture:3")])
def test_what_does_not_fit_is_refused_in_a_line(config, says):
    with pytest.raises(ValueError) as caught:
        VAE(7, (6,), 3, **config)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@PRIORS
@pytest.mark.parametrize("objective", [ELBO(), FreeBits(0.1)], ids=["elbo", "free bits"])
def test_objectives_with_an_exact_kl_are_refused(prior, objective):
    vae = VAE(7, (6,), 3, prior=prior)
    for call in (lambda: vae.loss_and_gradients(np.full((2, 7), 0.5), np.ones((2, 1, 3)), objective),
                 lambda: fit(vae, np.zeros((9, 7)), np.zeros((9, 7)), 1, 3, objective=objective)):
        with pytest.raises(ValueError, match=rf"which prior {prior} with .*: use ELBO\(sampled=True\) or IWAE\(\)"):
            call()
