"""Copies and pickles: of a block they keep its views; of a model they are a model, which trains on bit for bit and
shares no memory with the first."""
import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import pytest

from npvae import (
    ELBO, IWAE, VAE, Adam, Bernoulli, Callback, CosineLR, CyclicalAnnealing, FreeBits, LinearAnnealing, StepLR, fit,
    hierarchical_vae)
from npvae.kernels import fused, reference
from npvae.params import Block

RNG = np.random.default_rng(2)
X = RNG.integers(0, 2, (12, 6), dtype=np.uint8)
Y = RNG.integers(3, size=12)
ONE_OF_EACH = pytest.mark.parametrize("again", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
                                      ids=["deepcopy", "pickle"])


def are_views(block):
    """Writing into a tensor changes the vector, and the reverse."""
    for name, view in block.items():
        assert np.shares_memory(view, block.flat) or not view.size
        view[...] = 7
    assert (block.flat == 7).all()
    block.flat[...] = np.arange(block.flat.size)
    assert np.concatenate([view.ravel() for view in block.values()]).tolist() == list(range(block.flat.size))


@ONE_OF_EACH
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_a_block_keeps_its_views(again, dtype):
    block = Block({"W": (3, 2), "b": (2,), "none": (0, 4), "scalar": ()}, dtype)
    block.flat[...] = RNG.standard_normal(block.flat.size)
    kept = block.flat.copy()
    other, also = again((block, block))
    assert other is also and other.shapes == block.shapes and other.flat.dtype == block.flat.dtype
    assert np.array_equal(other.flat, kept) and not np.shares_memory(other.flat, block.flat)
    are_views(other)
    assert np.array_equal(block.flat, kept)
    are_views(block)


def test_a_shallow_copy_of_a_block_shows_the_same_numbers():
    block = Block({"W": (3, 2), "b": (2,)}, "float32")
    other = copy.copy(block)
    assert np.shares_memory(other.flat, block.flat)
    are_views(other)
    assert block["b"].tolist() == [6, 7]


# ---- Models

class Own(Bernoulli):
    """A likelihood with a number and an array of its own."""

    def __init__(self):
        self.weight, self.table = 0.5, np.arange(3.0)

    def forward(self, kernels, nll, kept, output, x, params):
        super().forward(kernels, nll, kept, output, x, params)
        nll *= self.weight

    def backward(self, kernels, doutput, grads, dnll, kept, output, x, params):
        super().backward(kernels, doutput, grads, self.weight * dnll, kept, output, x, params)


MODELS = {
    "plain": {}, "reference": {"kernels": "numpy", "dtype": "float64"}, "linear": {"hidden": ()},
    "gaussian-learned": {"likelihood": "gaussian-learned"}, "gaussian-optimal": {"likelihood": "gaussian-optimal"},
    "categorical": {"likelihood": "categorical:4"}, "of the reader": {"likelihood": Own()},
    "VampPrior": {"prior": "vamp:3"}, "mixture and flow": {"prior": "mixture:2", "posterior": "iaf:2"},
    "planar": {"posterior": "planar:2"}, "MADE": {"decoder": "made:5+direct"}, "labels": {"classes": 3},
    "two layers": None}


def model(name):
    if MODELS[name] is None:
        return hierarchical_vae(6, ((4,), (3,)), (3, 2))
    return VAE(**{"input_dim": 6, "hidden": (4,), "latent_dim": 2, **MODELS[name]})


def train(vae, optimizer, first=0, callbacks=()):
    labels = {"labels_train": Y, "labels_test": Y} if vae.classes else {}
    history = fit(vae, X, X, first + 1, 5, optimizer, ELBO(sampled=not vae.latent.analytic), callbacks=callbacks,
                  first_epoch=first, **labels)
    return [history[0]["test_loss"], vae.parameters.flat.tobytes(), optimizer.m.flat.tobytes(), optimizer.t]


def arrays_in(value, seen):
    """Every array that can be reached from here; `seen` keeps what was visited alive, so that no id comes twice."""
    if id(value) in seen or isinstance(value, (str, type, ModuleType)):
        return []
    seen[id(value)] = value
    if isinstance(value, np.ndarray):
        return [value]
    parts = [*value.values()] if isinstance(value, Mapping) else [*value] if isinstance(value, (list, tuple)) else []
    parts += vars(value).values() if hasattr(value, "__dict__") else []
    return [array for part in parts for array in arrays_in(part, seen)]


def memory_of(*parts):
    """Of models and optimizers, but for what runs a model."""
    state = [{name: value for name, value in vars(part).items() if name not in ("_engine", "_passes")}
             for part in parts]
    return arrays_in(state, {})


@pytest.mark.every(10)
@ONE_OF_EACH
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_trains_as_the_first_does(name, again):
    vae, optimizer = model(name), Adam(CosineLR(0.01, 20), weight_decay=0.01)
    train(vae, optimizer)
    other, others = again((vae, optimizer))
    assert other.config() == vae.config() and other.kernels is vae.kernels and other.threads == vae.threads
    assert np.array_equal(other.parameters.flat, vae.parameters.flat) and other.likelihood is not vae.likelihood
    ours, theirs = memory_of(vae, optimizer), memory_of(other, others)
    assert len(ours) > len(theirs) > 20      # ours has the memory of its passes
    assert not any(np.shares_memory(one, two) for one in ours for two in theirs)
    kept = vae.parameters.flat.copy(), optimizer.m.flat.copy()
    after = train(other, others, 1)
    assert np.array_equal(vae.parameters.flat, kept[0]) and np.array_equal(optimizer.m.flat, kept[1])
    assert train(vae, optimizer, 1) == after and not np.array_equal(vae.parameters.flat, kept[0])
    are_views(other.parameters)
    are_views(other.gradients)


@ONE_OF_EACH
def test_a_copy_may_be_taken_in_the_middle_of_training(again):
    """As whoever keeps the best model does; the training goes on as it would have."""
    class Keep(Callback):
        kept = []

        def on_step(self, run):
            self.kept.append((again(run.vae), run.vae.parameters.flat.copy()))

    one, two = model("plain"), model("plain")
    assert train(one, Adam(), 0, [Keep()]) == train(two, Adam())
    for copied, parameters in Keep.kept:
        assert np.array_equal(copied.parameters.flat, parameters)
        assert np.isfinite(copied.elbo(X, RNG)).all()


def test_a_pickle_names_its_kernels(tmp_path):
    """And is read in another process, whatever threads it has."""
    vae = model("plain")
    vae.threads = 1
    assert pickle.loads(pickle.dumps(vae)).kernels is fused and pickle.loads(pickle.dumps(vae)).threads == 1
    assert pickle.loads(pickle.dumps(model("reference"))).kernels is reference
    (tmp_path / "vae.pickle").write_bytes(pickle.dumps(vae))
    code = ("import pickle, sys; vae = pickle.load(open(sys.argv[1], 'rb'));"
            "print(vae.kernels.__name__, vae.parameters.flat.sum())")
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "vae.pickle")], capture_output=True, text=True,
                           timeout=300)
    assert found.stdout.split() == ["npvae.kernels.fused", str(vae.parameters.flat.sum())], found.stderr


@pytest.mark.parametrize("optimizer", [Adam(), Adam(StepLR(0.1, [3]), max_norm=1.0), Adam(CosineLR(0.1, 9))])
@ONE_OF_EACH
def test_an_optimizer_keeps_its_moments_and_its_schedule(optimizer, again):
    fresh = again(optimizer)
    assert repr(fresh) == repr(optimizer) and fresh.m is None
    train(model("plain"), fresh)
    other = again(fresh)
    assert other.t == fresh.t == 3 and other.lr(3) == fresh.lr(3)
    for one, two in ((other.m, fresh.m), (other.v, fresh.v)):
        assert np.array_equal(one.flat, two.flat) and not np.shares_memory(one.flat, two.flat)
        are_views(one)


@pytest.mark.parametrize("part", [
    ELBO(), ELBO(0.5, sampled=True, gradient="stl"), ELBO(LinearAnnealing(9, 0.3)), IWAE(CyclicalAnnealing(12, 3)),
    FreeBits(0.2, 0.7), IWAE(gradient="dreg")], ids=repr)
@ONE_OF_EACH
def test_an_objective_keeps_its_schedule(part, again):
    nll, reg, other = RNG.random((4, 3)), RNG.random((4, 3)), again(part)
    assert repr(other) == repr(part) and other.kl_estimator is part.kl_estimator
    for step in (0, 3, 20):
        assert other.beta(step) == part.beta(step)
        assert all(map(np.array_equal, other(nll, reg, step), part(nll, reg, step)))
