"""Threaded execution of the family: priors, flows, MADE decoders, labels, two stochastic layers, in combination."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from npvae import ELBO, IWAE, VAE, Adam, Checkpoint, fit
from npvae.engine.executor import DirectExecutor, ThreadedExecutor
from npvae.likelihoods import make_likelihood
from strategies import seeds, sizes
from executors import assert_equal, bits, model, result, run_directly
from workers import small_work_is_shared  # noqa: F401 (a fixture)

PRIORS = ["normal", "mixture:4", "vamp:5", "hierarchical:6,2", "hierarchical:3"]
POSTERIORS = ["gaussian", "planar:1", "planar:3", "iaf:2:5"]
DECODERS = ["dense", "made:6", "made:8+direct"]
OBJECTIVES = {"elbo": ELBO(0.7, sampled=True), "iwae": IWAE(), "elbo stl": ELBO(0.7, True, "stl"),
              "iwae stl": IWAE(0.6, "stl"), "dreg": IWAE(1.0, "dreg")}


@settings(max_examples=4)
@given(size=sizes("BDHGZ", most=40), depth=st.integers(0, 2), draws=st.integers(1, 4), seed=seeds,
       dtype=st.sampled_from(["float32", "float64"]), prior=st.sampled_from(PRIORS),
       posterior=st.sampled_from(POSTERIORS), decoder=st.sampled_from(DECODERS), classes=st.sampled_from([0, 3]),
       objective=st.sampled_from(list(OBJECTIVES)))
def test_replayed_is_direct(size, depth, draws, seed, dtype, prior, posterior, decoder, classes, objective):
    """In double precision against the reference, and against the same kernels called one by one; in both the same bits
    with any threads that make as many tasks."""
    if prior.startswith("vamp"):
        posterior, classes = "gaussian", 0
    if posterior != "gaussian" and objective not in ("elbo", "iwae"):      # the others need a Gaussian
        objective = "iwae"
    config = dict(input_dim=size["D"], hidden=[size[letter] for letter in "HG"[:depth]], latent_dim=size["Z"],
                  prior=prior, posterior=posterior, decoder=decoder, classes=classes, seed=seed)
    exact, ours = model(**config, kernels="numpy"), model(1, **config, dtype=dtype)
    exact.parameters.flat[...] = ours.parameters.flat
    rng = np.random.default_rng(seed)
    call = ((rng.random((size["B"], size["D"])) < 0.4).astype(dtype),
            rng.standard_normal((size["B"], draws, ours.noise_dim)).astype(dtype), OBJECTIVES[objective])
    seen = {}
    for threads in (1, 2, 3):
        ours.threads = threads
        assert isinstance(ours.engine, ThreadedExecutor)
        seen[threads] = bits(ours, *call)
        assert bits(ours, *call) == seen[threads]
    assert seen[1] == seen[2] == seen[3]
    if dtype == "float64":
        assert ours.engine.all_finite()
        assert_equal(result(ours, *call), result(exact, *call), 1e-10, 1e-10)
        assert_equal(result(ours, *call), run_directly(ours, *call), 1e-10, 1e-10)


RUNS = {"vamp": {"prior": "vamp:6"}, "mixture": {"prior": "mixture:4", "dtype": "float32"},
        "two layers": {"prior": "hierarchical:6,2"}, "planar": {"posterior": "planar:2"},
        "iaf before made": {"posterior": "iaf:1", "decoder": "made:9", "dtype": "float32"}}
X = 255 * np.random.default_rng(5).integers(0, 2, (53, 7), dtype=np.uint8)


def train(path, threads, config, epochs=2, resume=None):
    vae, optimizer = model(threads, **config), Adam(0.01)
    fit(vae, X, X[:9], epochs, 25, optimizer, objective=ELBO(sampled=True), callbacks=[Checkpoint(path)],
        resume=resume)
    assert isinstance(vae.engine, ThreadedExecutor)
    return [block.flat.tobytes() for block in (vae.parameters, optimizer.m, optimizer.v)]


@pytest.mark.every(3)
@pytest.mark.parametrize("run", RUNS)
def test_training_with_one_and_two_threads(run, tmp_path):
    """To the bit, and so is training that stops and goes on with the other."""
    path, again = tmp_path / "run.npz", tmp_path / "again.npz"
    one = train(path, 1, RUNS[run])
    assert train(path, 2, RUNS[run]) == one
    train(again, 2, RUNS[run], epochs=1)
    assert train(again, 1, RUNS[run], resume=again) == one


@pytest.mark.parametrize("config", [{"prior": "vamp:6"}, {"hidden": (2,), "decoder": "made:30+direct"}])
def test_what_was_not_finite_before_does_not_matter(config):
    """After NaN in every place of one pass, the next one, of another size or estimator, counts alone."""
    vae = model(2, input_dim=70, **config)
    x, eps = np.ones((40, 70)), np.random.default_rng(2).standard_normal((40, 1, vae.noise_dim))
    kept, sizes = vae.parameters.flat.copy(), ((40, ELBO(sampled=True)), (40, IWAE(1.0, "stl")), (1, IWAE()))
    for bad, bad_objective in sizes:
        for good, objective in sizes:
            vae.parameters.flat[...] = np.nan
            vae.loss_and_gradients(x[:bad], eps[:bad], bad_objective)
            assert not vae.engine.all_finite()
            vae.parameters.flat[...] = kept
            vae.loss_and_gradients(x[:good], eps[:good], objective)
            assert vae.engine.all_finite()


class Own(type(make_likelihood("bernoulli"))):
    """A likelihood that does not say that it can be recorded."""


def test_one_part_that_cannot_be_recorded_is_enough():
    vae = VAE(7, (6,), 3, likelihood=Own(), prior="vamp:4")
    assert type(vae.engine) is DirectExecutor
