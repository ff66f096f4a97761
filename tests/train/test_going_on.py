"""A second call of `fit`: what it repeats, what goes on, and how to go on with all of it; what resumed runs share."""
import copy

import numpy as np
import pytest

from npvae import (
    ELBO, IWAE, VAE, Adam, Callback, Checkpoint, CheckpointError, ConstantLR, CosineLR, CyclicalAnnealing, FreeBits,
    LinearAnnealing, StepLR, fit)
from npvae import checkpoint
from npvae.validate import described
from npvae.objectives import Objective

RNG = np.random.default_rng(21)
X, X_TEST = RNG.integers(0, 256, (11, 6), dtype=np.uint8), RNG.integers(0, 256, (5, 6), dtype=np.uint8)
Y, Y_TEST = RNG.integers(3, size=11), RNG.integers(3, size=5)
TIMING = ("seconds", "images_per_second")


def runs():
    """name -> of the model, of the call; new objects each time."""
    return {
        "warm-up, dynamic": ({}, {"objective": ELBO(LinearAnnealing(8)), "binarize": "dynamic"}),
        "cyclical, IWAE": ({}, {"objective": IWAE(CyclicalAnnealing(12, 3)), "n_samples": 3, "binarize": "static"}),
        "free bits": ({"dtype": "float64"}, {"objective": FreeBits(0.3, lambda step: 1 / (1 + step))}),
        "gaussian-optimal": ({"likelihood": "gaussian-optimal"}, {}),
        "VampPrior": ({"prior": "vamp:3"}, {"objective": ELBO(sampled=True), "binarize": "dynamic"}),
        "two layers": ({"prior": "hierarchical:3,2"}, {"objective": IWAE(), "n_samples": 2}),
        "flow": ({"posterior": "iaf:2", "prior": "mixture:2"}, {"objective": ELBO(sampled=True)}),
        "MADE": ({"decoder": "made:5"}, {"binarize": "dynamic"}),
        "labels": ({"classes": 3}, {"labels_train": Y, "labels_test": Y_TEST}),
        "as they stand": ({"kernels": "numpy"}, {"shuffle": False, "batch_size": 11})}


RUNS = pytest.mark.parametrize("name", runs())


class Leg:
    """A model, its optimizer and a run's settings, for one or more calls of `fit`."""

    def __init__(self, name):
        model, call = runs()[name]
        self.vae = VAE(6, (4,), 2, **model)
        self.optimizer = Adam(CosineLR(0.03, 20), max_norm=5.0, weight_decay=0.01)
        self.call = {"batch_size": 4, "seed": 3, "optimizer": self.optimizer, **call}

    def fit(self, epochs, **more):
        self.history = [{name: value for name, value in metrics.items() if name not in TIMING}
                        for metrics in fit(self.vae, X, X_TEST, epochs, **{**self.call, **more})]
        return self

    def bits(self):
        return [block.flat.tobytes() for block in (self.vae.parameters, self.optimizer.m, self.optimizer.v)]


@pytest.mark.every(3)
@RUNS
def test_k_epochs_and_m_more_are_k_plus_m(name, tmp_path):
    """Bit for bit, in one step or two, with the same objects, with copies of them, or through a checkpoint."""
    straight = Leg(name).fit(4)
    assert [metrics["epoch"] for metrics in straight.history] == [1, 2, 3, 4]
    leg, history = Leg(name), []
    for first, last in ((0, 1), (1, 3), (3, 4)):
        leg.fit(last, first_epoch=first, callbacks=[Checkpoint(tmp_path / f"{last}.npz")])
        history += leg.history
        leg.vae, leg.optimizer = copy.deepcopy((leg.vae, leg.optimizer)) if last == 1 else (leg.vae, leg.optimizer)
        leg.call["optimizer"] = leg.optimizer
    assert leg.bits() == straight.bits() and history == straight.history and leg.optimizer.t == straight.optimizer.t
    resumed = Leg(name).fit(4, resume=tmp_path / "3.npz")
    assert resumed.bits() == straight.bits() and resumed.history == straight.history[1:]      # what that call had


def test_going_on_is_not_beginning_anew():
    """The comparison above can fail: at epoch 0 again, or with another optimizer, other bits come out."""
    straight = Leg("warm-up, dynamic").fit(2)
    assert Leg("warm-up, dynamic").fit(1).fit(1).bits() != straight.bits()
    other = Leg("warm-up, dynamic").fit(1).fit(2, first_epoch=1, optimizer=Adam(CosineLR(0.03, 20)))
    assert other.vae.parameters.flat.tobytes() != straight.vae.parameters.flat.tobytes()
    assert other.history[0]["step"] == 6 and other.history[0]["beta"] == straight.history[1]["beta"]


class Watch(Callback):
    """What a step sees: images, noise, beta, and its number."""

    def __init__(self):
        self.seen = []

    def on_step(self, run):
        a, _ = run.vae.passes(11, 1)
        self.seen.append((a.x.tobytes(), a.eps.tobytes(), run.objective.beta(run.step - 1), run.step))


def test_a_second_call_repeats_what_the_seed_says():
    """Order, noise, binarization and beta of epoch 0; the parameters and the optimizer with its schedule go on."""
    leg, watch = Leg("warm-up, dynamic"), Watch()
    for first in (0, 0, 2):
        leg.fit(first + 2, first_epoch=first, batch_size=11, callbacks=[watch])
    one, two, three = watch.seen[:2], watch.seen[2:4], watch.seen[4:]
    assert one == two and len({*one, *three}) == 4 and [entry[3] for entry in three] == [3, 4]
    assert leg.optimizer.t == 6 and leg.history[-1]["learning_rate"] == CosineLR(0.03, 20)(5)


@pytest.mark.parametrize("changes, error, says", [
    ({"first_epoch": -1}, ValueError, "first_epoch must be at least 0, got -1"),
    ({"first_epoch": 1.0}, TypeError, "first_epoch must be an integer"),
    ({"first_epoch": 3}, ValueError, "epochs counts those before first_epoch, and must be more than 3, got 3"),
    ({"first_epoch": 1, "optimizer": None}, ValueError, "optimizer must be given with first_epoch 1: the one"),
    ({"first_epoch": 1, "resume": "a.npz"}, ValueError, "first_epoch 1 and resume exclude each other"),
    ({"resume": 3}, TypeError, "resume must be the path of a checkpoint, got 3"),
    ({"resume": b"a.npz"}, TypeError, "resume must be the path of a checkpoint"),
    ({"shuffle": "no"}, TypeError, "shuffle must be True or False, got 'no'"),
    ({"shuffle": None}, TypeError, "shuffle must be True or False"),
    ({"callbacks": Callback()}, TypeError, "callbacks must be a list of objects such as EarlyStopping"),
    ({"callbacks": "log"}, TypeError, "callbacks must be a list of objects"),
    ({"optimizer": Adam}, TypeError, "optimizer needs objects such as Adam"),
    ({"optimizer": 0}, TypeError, "optimizer needs objects such as Adam"),
    ({"objective": None}, TypeError, "objective needs objects such as ELBO"),
    ({"objective": "elbo"}, TypeError, "objective needs objects such as ELBO"),
    ({"labels_train": Y}, ValueError, "labels_train were given, but this model has no classes"),
    ({"seed": True}, TypeError, "seed must be an integer"), ({"epochs": "3"}, TypeError, "epochs must be an integer")])
def test_bad_arguments_are_named(changes, error, says):
    leg = Leg("gaussian-optimal")
    before = leg.vae.parameters.flat.copy()
    with pytest.raises(error, match=f"^{says}") as caught:
        leg.fit(**{"epochs": 3, **changes})
    assert "\n" not in str(caught.value) and np.array_equal(leg.vae.parameters.flat, before)


@pytest.mark.parametrize("vae", [VAE, None, "vae"])
def test_what_is_no_model_is_named(vae):
    with pytest.raises(TypeError, match=r"^vae needs objects such as VAE\(\), got"):
        fit(vae, X, X_TEST)


# ---- What a resumed run must share

@pytest.mark.every(3)
@pytest.mark.parametrize("changes, says", [
    ({"objective": ELBO(0.5)}, r"objective is .ELBO\(beta=0.5, sampled=False\). here and .ELBO\(beta=1"),
    ({"objective": ELBO(sampled=True)}, "objective is .*sampled=True"),
    ({"objective": ELBO(sampled=True, gradient="stl")}, "objective is .*sampled='stl'"),
    ({"objective": ELBO(LinearAnnealing(9))}, r"objective is .ELBO\(beta=LinearAnnealing\(steps=9, beta=1.0\)"),
    ({"objective": ELBO(lambda step: 1.0)}, r"objective is .ELBO\(beta=function"),
    ({"objective": IWAE()}, "objective is .IWAE"),
    ({"objective": FreeBits(0.1)}, r"objective is .FreeBits\(bits=0.1"),
    ({"optimizer": Adam(2e-3)}, r"optimizer is .Adam\(lr=ConstantLR\(lr=0.002\), .* there"),
    ({"optimizer": Adam(CosineLR(1e-3, 50))}, r"optimizer is .Adam\(lr=CosineLR\(lr=0.001, total_steps=50"),
    ({"optimizer": Adam(StepLR(1e-3, [5]))}, r"optimizer is .Adam\(lr=StepLR\(lr=0.001, milestones=\[5\], factor="),
    ({"optimizer": Adam(beta1=0.8)}, "beta1=0.8"), ({"optimizer": Adam(eps=1e-4)}, "eps=0.0001"),
    ({"optimizer": Adam(max_norm=1.0)}, "max_norm=1.0"), ({"optimizer": Adam(weight_decay=0.1)}, "weight_decay=0.1")])
def test_a_run_resumes_with_its_objective_optimizer_and_schedules(tmp_path, changes, says):
    path, call = tmp_path / "a.npz", {"batch_size": 4, "objective": ELBO(), "optimizer": Adam()}
    fit(VAE(6, (4,), 2), X, X_TEST, 1, callbacks=[Checkpoint(path)], **call)
    vae = VAE(6, (4,), 2, seed=7)
    before = vae.parameters.flat.copy()
    with pytest.raises(CheckpointError, match=f"belongs to a run with other settings: .*{says}"):
        fit(vae, X, X_TEST, 2, resume=path, **{**call, **changes})
    assert np.array_equal(vae.parameters.flat, before)
    assert len(fit(vae, X, X_TEST, 2, resume=path, **{**call, "optimizer": Adam(ConstantLR(1e-3))})) == 2


def test_a_checkpoint_from_before_says_nothing_of_them(tmp_path):
    path = tmp_path / "a.npz"
    fit(VAE(6, (4,), 2), X, X_TEST, 1, 4, callbacks=[Checkpoint(path)])
    arrays, manifest = checkpoint.read(path)
    del manifest["settings"]["objective"], manifest["settings"]["optimizer"]
    checkpoint.write(path, arrays, manifest)
    assert len(fit(VAE(6, (4,), 2), X, X_TEST, 2, 4, Adam(0.5), ELBO(0.5), resume=path)) == 2


class Own(Objective):
    """An objective of the reader's, which says nothing of itself."""

    count = 0
    beta = staticmethod(lambda step: 1.0)

    def __call__(self, nll, reg, step):
        self.count += 1
        return ELBO()(nll, reg, step)


def test_what_says_nothing_of_itself_goes_by_its_class(tmp_path):
    """And functions by that alone: an address differs from process to process."""
    assert described(Own()) == "Own()" and described(lambda step: 1.0) == described(described) == "function"
    assert described(ELBO(Own())) == "ELBO(beta=Own(), sampled=False)"
    path, own = tmp_path / "a.npz", Own()
    fit(VAE(6, (4,), 2), X, X_TEST, 1, 4, objective=own, callbacks=[Checkpoint(path)])
    assert len(fit(VAE(6, (4,), 2), X, X_TEST, 2, 4, objective=own, resume=path)) == 2 and own.count


# ---- A VampPrior

@pytest.mark.parametrize("likelihood", ["gaussian:0.5", "gaussian-pixel"])
@pytest.mark.parametrize("x", [X / 255 - 0.5, 3 * (X / 255), np.where(X > 99, X / 255.0, -1e-3)])
def test_a_vamp_prior_needs_training_data_that_its_pseudo_inputs_can_be_like(likelihood, x):
    """sigmoid(v) lies in [0, 1]: elsewhere it would train, and log p(z) be of images that no data are like."""
    vae = VAE(6, (4,), 2, likelihood=likelihood, prior="vamp:3")
    before = vae.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"^x_train must lie in \[0, 1\] for prior vamp:3, .*: prior mixture:3 fits$"):
        fit(vae, x, X / 255, 1, 4, objective=ELBO(sampled=True))
    assert np.array_equal(vae.parameters.flat, before)
    fit(VAE(6, (4,), 2, likelihood=likelihood, prior="mixture:3"), x, x, 1, 4, objective=ELBO(sampled=True))
    fit(vae, X, x, 1, 4, objective=ELBO(sampled=True))      # test images may be any
    assert np.isfinite(vae.elbo(x, RNG)).all()
