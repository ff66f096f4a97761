"""fit: every row once per epoch, metrics that mean what they say, NaN stopped at once, nothing allocated in a step."""
import contextlib
import io
import json
import math
import re
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import (
    ELBO, IWAE, VAE, Adam, Callback, Checkpoint, CheckpointError, EarlyStopping, FreeBits, LinearAnnealing,
    MetricsLog, NonFiniteError, Progress, StepLR, fit)
from npvae import checkpoint
from npvae.data import readers
from npvae.train import loop, rows
from npvae.train import Rows, Run, train_step

RNG = np.random.default_rng(8)
X, X_TEST = RNG.random((11, 6)), RNG.random((5, 6))
KEYS = ["epoch", "step", "seconds", "images_per_second", "learning_rate", "beta", "train_loss", "train_nll", "train_kl",
        "test_loss", "test_nll", "test_kl", "active_units"]


def small(**changes):
    return VAE(**{"input_dim": 6, "hidden": (4,), "latent_dim": 2, "kernels": "numpy", **changes})


class At(Callback):
    """Calls action(run) once, after step number `step`."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, run):
        if run.step == self.step:
            self.action(run)


class Spy(Callback):
    """The run, and the rows of every training batch."""

    def __init__(self):
        self.batches = []

    def on_start(self, run):
        self.run, gather = run, run.train.gather

        def watched(x, index, kernels, rng):
            self.batches.append((run.epoch, index.copy()))
            gather(x, index, kernels, rng)

        run.train.gather = watched


# ---- Batches

@given(rows=st.integers(1, 25), data=st.data(), epochs=st.integers(1, 3))
def test_each_epoch_sees_every_row_once(rows, data, epochs):
    size = data.draw(st.integers(1, rows))
    spy = Spy()
    fit(small(), RNG.random((rows, 6)), X_TEST, epochs, size, callbacks=[spy])
    for epoch in range(epochs):
        indices = [index for number, index in spy.batches if number == epoch]
        assert [len(index) for index in indices] == rows // size * [size] + [rows % size] * (rows % size > 0)
        assert sorted(np.concatenate(indices)) == list(range(rows))


def test_the_order_depends_on_epoch_and_seed_alone():
    def orders(seed, **settings):
        spy = Spy()
        fit(small(), np.tile(X, (9, 1)), X_TEST, 2, 99, seed=seed, callbacks=[spy], **settings)
        return [tuple(index) for _, index in spy.batches]

    first, second = orders(0)
    assert first != second and first != tuple(range(99))
    assert orders(1)[0] not in (first, second)
    assert orders(0, objective=IWAE(), n_samples=3, binarize="dynamic") == [first, second]
    assert orders(0, shuffle=False) == 2 * [tuple(range(99))]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_the_data_set_is_not_copied(dtype, binarize):
    x, spy = (X * 255 if dtype == np.uint8 else X).astype(dtype), Spy()
    x.flags.writeable = False
    fit(small(), x, X_TEST, 1, 4, binarize=binarize, callbacks=[spy])
    assert np.shares_memory(spy.run.train.array, x)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", ">f8", "f4", "f8", "u1"])
def test_what_the_model_sees(dtype, kernels):
    """Floats of any kind as they are, bytes divided by 255."""
    x, vae, seen = (X * 255 if dtype == "u1" else X).astype(dtype), small(kernels=kernels), []
    fit(vae, x, x, 1, 11, callbacks=[At(1, lambda run: seen.append(vae.passes(11, 1)[0].x.copy()))])
    expected = x / 255 if dtype == "u1" else x
    assert np.allclose(np.sort(seen[0], axis=0), np.sort(expected.astype("f8"), axis=0), rtol=1e-6, atol=0)


def test_binarizations():
    """Dynamic draws differ from epoch to epoch, static and threshold ones do not; all are zeros and ones."""
    vae, grey = small(), np.tile(X, (5, 1))
    for binarize in ("threshold", "static", "dynamic"):
        seen = []

        def keep(run):
            index = np.argsort(spy.batches[-1][1])
            seen.append(vae.passes(55, 1)[0].x[index])

        spy = Spy()
        fit(vae, grey, X_TEST, 2, 55, binarize=binarize, callbacks=[spy, At(1, keep), At(2, keep)])
        assert set(np.unique(seen)) == {0, 1}
        assert np.array_equal(*seen) == (binarize != "dynamic")
        assert np.array_equal(seen[0], grey >= 0.5) == (binarize == "threshold")


def test_dynamic_binarization_is_white_as_often_as_a_pixel_is_bright():
    rows, (a, _) = Rows("x_train", np.full((2000, 6), 0.2), small(), "dynamic", 0, 0), small().passes(2000, 1)
    rows.gather(a, np.arange(2000), small().kernels, np.random.default_rng(0))
    assert abs(a.x.mean() - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 12000) and set(np.unique(a.x)) == {0, 1}


@pytest.mark.parametrize("binarize", ["none", "static", "dynamic"])
def test_a_decoder_that_looks_at_pixels_is_given_black_and_white(binarize):
    """0 and 255 are that; of greys, it is what is drawn of them."""
    vae, white = small(decoder="made:3"), np.where(X > 0.5, np.uint8(255), np.uint8(0))
    for x in (white, white / 255):
        assert np.array_equal(Rows("x_train", x, vae, binarize, 0, 0).floats(), white / 255)
    for x in (white - (white > 254), white // 2 / 255):
        refused = pytest.raises(ValueError, match="^x_train must be black and white")
        with refused if binarize == "none" else contextlib.nullcontext():
            Rows("x_train", x, vae, binarize, 0, 0)


def test_what_a_resumed_run_must_find_again():
    """Labels where the model has classes; their sums where there are any."""
    plain = Rows("x_train", X, small(), "none", 0, 0)
    with_labels = Rows("x_train", X, small(classes=3), "none", 0, 0, np.arange(11) % 3)
    assert plain.labels is None and list(plain.checksums()) == ["data_crc32"]
    assert with_labels.checksums() == {**plain.checksums(), "labels_crc32": zlib.crc32(np.arange(11) % 3)}
    for vae, labels, says in ((small(), np.arange(11), "labels_train were given"),
                              (small(classes=3), None, "labels_train must be given")):
        with pytest.raises(ValueError, match=says):
            Rows("x_train", X, vae, "none", 0, 0, labels)


# ---- Streams

def test_what_is_drawn_once_has_a_stream_of_its_own():
    """That of its purpose, before the first epoch."""
    grey = np.full((99, 6), 0.5)
    expected = readers.binarize(grey, "static", rows.stream(7, rows.BINARIZE_ONCE, 0))
    assert np.array_equal(Rows("x_train", grey, small(), "static", 7, rows.BINARIZE_ONCE).array, expected)
    others = [rows.stream(7, *purpose).random(9) for purpose in ((0, 3), (3, 0), (3, 1), (1, 0), (0, 0))]
    assert len(np.unique(others)) == 45


class Watched(ELBO):
    """The ELBO; keeps the step that it is told, and x and eps of every batch: in training, and apart in evaluation."""

    def __init__(self, vae):
        super().__init__()
        self.vae, self.seen, self.evaluated = vae, [], []

    def __call__(self, nll, reg, step):
        a, _ = self.vae.passes(*nll.shape)
        self.seen.append((step, a.x.copy(), a.eps.copy()))
        return super().__call__(nll, reg, step)

    def bound(self):
        bound = Watched(self.vae)
        bound.seen = self.evaluated
        return bound


def watched(epochs=3, seed=0, **settings):
    """What a run of grey images, all alike, gives its model: batches of 4, 4 and 3, a test set of 11."""
    vae = small()
    objective = Watched(vae)
    fit(vae, np.full((11, 6), 0.5), np.full((11, 6), 0.5), epochs, 4, objective=objective, n_samples=2, seed=seed,
        **{"binarize": "dynamic", **settings})
    return objective


def of_epoch(objective, epoch):
    """x (11, 6) and eps (11, 2, 2) of an epoch's training, in the order in which they were drawn."""
    batches = objective.seen[3 * epoch:3 * epoch + 3]
    return [np.concatenate([batch[i] for batch in batches]) for i in (1, 2)]


def in_common(one, other):
    return np.intersect1d(one, other).size / one.size


def test_the_objective_is_told_the_step():
    """0 at the first, and in the evaluation the steps that were taken."""
    objective = watched()
    assert [step for step, _, _ in objective.seen] == list(range(9))
    assert [step for step, _, _ in objective.evaluated] == [3, 6, 9]


def test_each_epoch_draws_noise_and_pixels_anew():
    """No number of one epoch comes again in another, nor in the evaluation, nor in a run of another seed."""
    objective, other = watched(), watched(seed=1)
    drawn = [of_epoch(objective, epoch) for epoch in range(3)] + [of_epoch(other, 0)]
    evaluated = [[run.evaluated[0][i] for i in (1, 2)] for run in (objective, other)]
    for i, (x, eps) in enumerate([*drawn, *evaluated]):
        assert abs(x.mean() - 0.5) < 0.4 and np.unique(eps).size == eps.size
        for others_x, others_eps in [*drawn, *evaluated][:i]:
            assert in_common(eps, others_eps) < 0.1 and not np.array_equal(x, others_x)


def test_every_evaluation_has_the_same_draws():
    """Of pixels and of noise, so that epochs can be compared; and however long the run is, and in whatever order."""
    first, *others = [*watched().evaluated, *watched(1, shuffle=False).evaluated]
    assert first[2].shape == (11, 2, 2)      # as many for each image as in training
    for _, x, eps in others:
        assert np.array_equal(x, first[1]) and np.array_equal(eps, first[2])


def test_the_test_set_is_drawn_by_itself():
    """Not by the draw of the training set, of which it would be a copy where images are alike."""
    spy, grey = Spy(), np.full((99, 6), 0.5)
    fit(small(), grey, grey, 1, 99, binarize="static", callbacks=[spy])
    train, test = spy.run.train.array, spy.run.test.array
    for drawn in (train, test):
        assert set(np.unique(drawn)) == {0, 1} and abs(drawn.mean() - 0.5) < 0.1
    assert abs(np.corrcoef(test.ravel(), train.ravel())[0, 1]) < 0.2


# ---- Metrics

class Recorder(ELBO):
    """The ELBO with a beta; keeps what each image contributed."""

    def __init__(self, beta):
        super().__init__(beta)
        self.nll, self.kl = [], []

    def __call__(self, nll, reg, step):
        self.nll.extend(nll.mean(axis=1))
        self.kl.extend(reg.sum(axis=1))
        return super().__call__(nll, reg, step)


@pytest.mark.parametrize("draws", [1, 3])
def test_training_metrics_are_means_over_images(draws):
    """11 images in batches of 4: the last batch counts by its 3 images, not as much as the others."""
    objective = Recorder(0.5)
    optimizer = Adam(StepLR(0.1, [3], factor=0.5))
    history = fit(small(dtype="float64"), X, X_TEST, 2, 4, optimizer, objective, draws)
    for epoch, metrics in enumerate(history):
        images = slice(11 * epoch, 11 * epoch + 11)
        nll, kl = np.mean(objective.nll[images]), np.mean(objective.kl[images])
        assert metrics["train_nll"] == pytest.approx(nll, rel=1e-12)
        assert metrics["train_kl"] == pytest.approx(kl, rel=1e-12)
        assert metrics["train_loss"] == pytest.approx(nll + 0.5 * kl, rel=1e-12)
        assert (metrics["epoch"], metrics["step"]) == (epoch + 1, 3 * epoch + 3)
    assert [metrics["learning_rate"] for metrics in history] == [0.1, 0.05]
    assert [metrics["beta"] for metrics in history] == [0.5, 0.5]


def test_the_learning_rate_is_the_one_that_was_used():
    """Also where the optimizer had taken steps before."""
    vae, optimizer = small(), Adam(StepLR(0.1, [3, 7], factor=0.5))
    rates = [metrics["learning_rate"] for _ in range(2) for metrics in fit(vae, X, X_TEST, 2, 6, optimizer)]
    assert rates == [0.1, 0.05, 0.05, 0.025]


def test_a_step_is_taken_along_the_gradient():
    """After one step, Adam's m is 1 - beta1 of it, and every parameter has gone lr against its sign."""
    vae, optimizer, seen = small(dtype="float64"), Adam(0.01), []
    start = vae.parameters.flat.copy()
    fit(vae, X, X_TEST, 1, 11, optimizer, callbacks=[At(1, lambda run: seen.append(vae.gradients.flat.copy()))])
    assert np.allclose(optimizer.m.flat, 0.1 * seen[0], rtol=1e-12, atol=0)
    clear = np.abs(seen[0]) > 1e-3
    assert clear.sum() > 9
    assert np.allclose((vae.parameters.flat - start)[clear], -0.01 * np.sign(seen[0])[clear], rtol=1e-4, atol=0)


@pytest.mark.parametrize("objective, draws", [
    (ELBO(), 1), (ELBO(0.2, sampled=True), 2), (FreeBits(0.5), 1), (IWAE(), 3), (ELBO(LinearAnnealing(4)), 1)])
def test_keys_values_and_the_history(tmp_path, objective, draws):
    spy = Spy()
    history = fit(small(), X, X_TEST, 3, 4, objective=objective, n_samples=draws,
                  callbacks=[spy, MetricsLog(tmp_path / "metrics.jsonl")])
    assert history is spy.run.history and len(history) == 3
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history
    for metrics in history:
        assert list(metrics) == KEYS
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["images_per_second"] > 0 and metrics["seconds"] > 0
        assert metrics["images_per_second"] > 11 / metrics["seconds"]      # evaluation is not counted
        assert metrics["active_units"] in (0, 1, 2)
        total = metrics["test_nll"] + metrics["test_kl"]      # beta is 1 and nothing is free, whatever training has
        assert metrics["test_loss"] == pytest.approx(total, rel=1e-5) or draws == 3 and metrics["test_loss"] < total
        assert metrics["beta"] == objective.beta(metrics["step"] - 1)


@pytest.mark.parametrize("moved", range(5))
def test_units_are_active_over_the_whole_test_set(moved):
    """Of five images measured two at a time, whichever it is that differs from the others."""
    vae, x = small(hidden=()), np.zeros((5, 6))
    x[moved] = 1
    vae.parameters["mu.W"][...] = [[0.5, 0]] * 6
    assert fit(vae, X, x, 1, 11, Adam(1e-300), ELBO(sampled=True), 250)[0]["active_units"] == 1


def test_numbers_of_numpy_can_be_saved(tmp_path):
    """JSON knows no int64 or float32: they are made plain before training, not missed after an epoch."""
    one = np.int64(1)
    fit(small(), X, X_TEST, one, 4 * one, Adam(lambda step: np.float32(1e-3)), ELBO(lambda step: np.float32(1)), one,
        seed=one, callbacks=[Checkpoint(tmp_path / "c.npz"), MetricsLog(tmp_path / "metrics.jsonl")])
    assert checkpoint.read(tmp_path / "c.npz")[1]["settings"]["seed"] == 1


def test_evaluation_draws_z():
    """A linear Gaussian decoder, where E[nll] is known, and at z = mu is lower by tr(W S W^T) / 2 sigma^2."""
    vae = VAE(6, (), 2, likelihood="gaussian:0.5", dtype="float64", kernels="numpy", seed=3)
    p, x = vae.parameters, np.random.default_rng(1).normal(size=(3000, 6))
    p["logvar.W"][...] *= 0.1
    p["logvar.b"][...] = 0.3
    metrics = fit(vae, X, x, 1, 11, Adam(1e-300))[0]
    residual = x - (x @ p["mu.W"] + p["mu.b"]) @ p["output.W"] - p["output.b"]
    logvar = x @ p["logvar.W"] + p["logvar.b"]
    spread = np.exp(logvar) @ (p["output.W"] ** 2).sum(axis=1)
    at_mu = 3 * math.log(2 * math.pi * 0.25) + (residual ** 2).sum(axis=1) / 0.5
    expected = at_mu + spread / 0.5
    gram = p["output.W"] @ p["output.W"].T      # Var |r - u|^2 = 4 r' C r + 2 tr C^2 for u ~ N(0, C)
    linear = (np.exp(logvar) * (residual @ p["output.W"].T) ** 2).sum(axis=1)
    square = np.einsum("bj,jk,bk->b", np.exp(logvar), gram ** 2, np.exp(logvar))
    error = math.sqrt((4 * linear + 2 * square).sum()) / 0.5 / 3000
    assert abs(metrics["test_nll"] - expected.mean()) < 5 * error
    assert expected.mean() - at_mu.mean() > 20 * error
    kl = 0.5 * ((x @ p["mu.W"] + p["mu.b"]) ** 2 + np.exp(logvar) - logvar - 1).sum(axis=1)
    assert metrics["test_kl"] == pytest.approx(kl.mean(), rel=1e-12)


# ---- Callbacks

class Log(Callback):
    def __init__(self, name, log):
        for event in ("on_start", "on_step", "on_epoch", "on_interrupt", "on_end"):
            setattr(self, event, lambda run, event=event: log.append((name, event, run.step)))


def test_callbacks_are_called_in_order():
    log = []
    fit(small(), X, X_TEST, 2, 6, callbacks=[Log("a", log), Log("b", log)])
    occasions = [("on_start", 0), ("on_step", 1), ("on_step", 2), ("on_epoch", 2), ("on_step", 3), ("on_step", 4),
                 ("on_epoch", 4), ("on_end", 4)]
    assert log == [(name, event, step) for event, step in occasions for name in "ab"]


def test_training_in_another_thread_is_the_same():
    """Though only the main thread can look out for Ctrl-C."""
    here, there = small(), small()
    fit(here, X, X_TEST, 1, 4)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(fit, there, X, X_TEST, 1, 4).result()) == 1
    assert np.array_equal(here.parameters.flat, there.parameters.flat)


def test_an_interrupt_between_epochs_ends_the_epoch():
    """Such as Ctrl-C while a callback writes its file."""
    log = []

    class Interrupt(Callback):
        def on_epoch(self, run):
            run.interrupted = True

    with pytest.raises(KeyboardInterrupt):
        fit(small(), X, X_TEST, 2, 6, callbacks=[Interrupt(), Log("a", log)])
    assert [event for _, *event in log[-3:]] == [["on_epoch", 2], ["on_interrupt", 2], ["on_end", 2]]


def test_on_end_is_called_after_an_error():
    log = []
    with pytest.raises(ZeroDivisionError):
        fit(small(), X, X_TEST, 2, 6, callbacks=[Log("a", log), At(2, lambda run: 1 / 0)])
    assert log[-2:] == [("a", "on_step", 2), ("a", "on_end", 2)]


@pytest.mark.parametrize("patience, losses, epochs", [
    (1, [5, 4, 4, 3], 3), (2, [5, 4, 4.5, 4.2, 3], 4), (2, [5, 4, 4.5, 3, 3.5, 3.2, 2], 6), (3, [5, 4, 3, 2, 1], 5)])
def test_early_stopping(patience, losses, epochs):
    """Stops `patience` epochs after the best; equal is no improvement.  A run that had stopped does not go on."""
    class Script(Callback):
        def on_epoch(self, run):
            run.history[-1]["test_loss"] = losses[run.epoch - 1]

    history = fit(small(), X, X_TEST, len(losses), 11, callbacks=[Script(), EarlyStopping(patience)])
    assert len(history) == epochs
    again = SimpleNamespace(history=history, stop=False)
    EarlyStopping(patience).on_start(again)
    assert again.stop == (epochs < len(losses))
    with pytest.raises(ValueError, match="patience must be at least 1"):
        EarlyStopping(0)


class Screen(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


def test_progress():
    plain, terminal = Screen(False), Screen(True)
    fit(small(), X, X_TEST, 2, 4, callbacks=[Progress(plain), Progress(terminal)])
    lines = plain.getvalue().splitlines()
    assert [line[:11] for line in lines] == ["epoch   1/2", "epoch   2/2"] and "\r" not in plain.getvalue()
    for line in lines:
        assert line in terminal.getvalue()
    assert "\r" in terminal.getvalue() and "img/s" in terminal.getvalue() and "0.00/22.0" in terminal.getvalue()


def test_the_bar_counts_images_and_says_what_the_run_says(monkeypatch, tmp_path):
    """11 images an epoch in batches of 4, 4 and 3, all of which it has counted at the end; a resumed run, too."""
    bars, sums = [], []

    class Bar:
        def __init__(self, total, initial, file, **more):
            self.total, self.n, self.said, self.lines = total, initial, [], []
            bars.append(self)
            assert more == {"unit": "img", "unit_scale": True, "leave": False, "dynamic_ncols": True}

        def update(self, n):
            self.n += n
            return True

        def set_description(self, text, refresh):
            self.said.append(text)

        def set_postfix_str(self, text, refresh):
            self.said[-1] += " " + text

        def write(self, text, file):
            self.lines.append(text)

        def close(self):
            pass

    class Sums(Callback):
        def on_step(self, run):
            loss, nll, kl = (run.sums[name] / run.sums["images"] for name in ("loss", "nll", "kl"))
            sums.append(f"epoch {run.epoch + 1}/{run.epochs} loss {loss:.2f} (nll {nll:.2f}, kl {kl:.2f})")

    monkeypatch.setattr("tqdm.tqdm", Bar)
    path = tmp_path / "c.npz"
    history = fit(small(), X, X_TEST, 2, 4, callbacks=[Sums(), Progress(Screen(True)), Checkpoint(path)])
    with pytest.raises(KeyboardInterrupt):
        fit(small(), X, X_TEST, 2, 4,
            callbacks=[At(2, lambda run: setattr(run, "interrupted", True)), Checkpoint(path)])
    straight, said = bars.pop(), list(sums)
    sums.clear()
    fit(small(), X, X_TEST, 2, 4, callbacks=[Sums(), Progress(Screen(True))], resume=path)
    assert (straight.n, straight.total, straight.said) == (22, 22, said)
    assert (bars[0].n, bars[0].total, bars[0].said) == (22, 22, sums) and said[2:] == sums
    for line, metrics in zip(straight.lines, history, strict=True):
        assert re.findall(r"[a-z]+ +-?[0-9.]+", line)[:5] == [
            f"epoch {metrics['epoch']:3d}", f"train {metrics['train_loss']:7.2f}", f"test {metrics['test_loss']:7.2f}",
            f"nll {metrics['test_nll']:6.2f}", f"kl {metrics['test_kl']:5.2f}"]


def test_a_clock_that_stands_still_divides_nothing(monkeypatch):
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 7.0)
    monkeypatch.setattr(loop.time, "time", lambda: 7.0)      # the progress bar's
    history = fit(small(), X, X_TEST, 2, 4, callbacks=[Progress(Screen(False)), Progress(Screen(True))])
    assert [(row["seconds"], row["images_per_second"]) for row in history] == [(0, 0)] * 2


# ---- Arguments

@pytest.mark.parametrize("changes, error, says", [
    ({"x_train": X[0]}, ValueError, "x_train must have shape"), ({"x_train": X[:, :5]}, ValueError, "x_train .*6"),
    ({"x_test": X[:0]}, ValueError, "x_test must have shape"), ({"x_test": X[:, :, None]}, ValueError, "x_test"),
    ({"x_train": (9 * X).astype(int)}, ValueError, "x_train holds int64 from 0 to 8: .* as uint8 and .* as floats"),
    ({"x_train": X.astype(str)}, TypeError, "x_train must hold real numbers"),
    ({"x_train": X + 1}, ValueError, r"x_train must lie in \[0, 1\]"),
    ({"x_test": -X}, ValueError, r"x_test must lie in \[0, 1\]"),
    ({"x_test": np.where(X > 0.9, np.nan, X)}, ValueError, "x_test must lie .* (nan|NaN)"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"), ({"epochs": 1.5}, TypeError, "epochs"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"), ({"batch_size": 2.0}, TypeError, "batch_size"),
    ({"batch_size": 12}, ValueError, "batch_size must be at most the number of training images, 11, got 12"),
    ({"n_samples": 0}, ValueError, "n_samples must be at least 1"), ({"n_samples": True}, TypeError, "n_samples"),
    ({"seed": -1}, ValueError, "seed must be at least 0"), ({"seed": None}, TypeError, "seed must be an integer"),
    ({"optimizer": 1e-3}, TypeError, r"optimizer needs objects such as Adam\(\), got 0.001"),
    ({"objective": IWAE}, TypeError, "objective needs objects"), ({"more": [Progress]}, TypeError, "callbacks needs"),
    ({"binarize": "grey"}, ValueError, "binarize must be one of none, threshold, static, dynamic, got 'grey'"),
    ({"resume": "nowhere.npz"}, CheckpointError, "nowhere.npz: cannot be read"),
    ({"vae": small(dtype="complex128")}, ValueError, "dtype must be one of float32, float64"),
    ({"vae": small(likelihood="gaussian"), "x_train": X + 1, "binarize": "dynamic"}, ValueError, r"x_train .*\[0, 1\]"),
    ({"vae": small(hidden=(5,))}, ValueError, "this optimizer has taken steps on other parameters")])
def test_arguments_are_refused_before_anything_changes(changes, error, says):
    vae, optimizer, log = changes.get("vae", small()), Adam(), []
    optimizer.prepare(small().parameters)
    before = vae.parameters.flat.copy()
    call = {"vae": vae, "x_train": X, "x_test": X_TEST, "epochs": 1, "batch_size": 4, "optimizer": optimizer, **changes}
    callbacks = [Log("a", log), *call.pop("more", [])]
    with pytest.raises(error, match=says) as caught:
        fit(**call, callbacks=callbacks)
    assert "\n" not in str(caught.value)
    assert np.array_equal(vae.parameters.flat, before) and optimizer.t == 0 and not log


# ---- NaN and infinity

@pytest.mark.every(7)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("name", list(small(likelihood="gaussian-learned").parameters))
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nan_in_a_parameter_stops_the_next_step(tmp_path, name, value, kernels):
    vae, path, log = small(likelihood="gaussian-learned", kernels=kernels), tmp_path / "c.npz", []
    plant = At(5, lambda run: run.vae.parameters[name].flat.__setitem__(-1, value))
    with pytest.raises(NonFiniteError, match=f"^step 5: parameter {name} holds NaN or infinity") as caught:
        fit(vae, X, X_TEST, 3, 4, callbacks=[Checkpoint(path), plant, Log("a", log)])
    assert "\n" not in str(caught.value) and log[-2:] == [("a", "on_step", 5), ("a", "on_end", 5)]
    assert checkpoint.read(path)[1]["training"]["epoch"] == 1
    assert np.isfinite(VAE.load(path, kernels).parameters.flat).all()


@pytest.mark.every(3)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("lr", [1e20, 1e38, 1e300])
def test_a_huge_learning_rate(tmp_path, lr, steps, kernels):
    """Step 4 explodes.  The next pass, in training or in the evaluation at the end of the epoch, says so."""
    path, optimizer = tmp_path / "c.npz", Adam(lambda step: lr if step == 4 * steps - 1 else 1e-3)
    with pytest.raises(NonFiniteError, match=rf"^step {4 * steps}: .*(parameter|activation|nll|kl).* holds NaN"):
        fit(small(kernels=kernels), X, X_TEST, 9, 11 if steps == 1 else 4, optimizer, callbacks=[Checkpoint(path)])
    assert checkpoint.read(path)[1]["training"]["epoch"] == 3
    assert np.isfinite(VAE.load(path, kernels).elbo(X, RNG)).all()


def test_save_refuses_what_is_not_finite(tmp_path):
    path = tmp_path / "c.npz"
    with pytest.raises(NonFiniteError, match="^step 4: v holds NaN"):
        fit(small(), X, X_TEST, 3, 6, callbacks=[
            Checkpoint(path), At(3, lambda run: run.optimizer.v.flat.__setitem__(0, np.inf))])      # a step of 0
    assert checkpoint.read(path)[1]["training"]["epoch"] == 1


@pytest.mark.parametrize("operation", [
    lambda: np.float64(1) / np.float64(0), lambda: np.float64(0) / np.float64(0), lambda: np.exp(np.float64(1e9)),
    lambda: np.float64(np.inf) - np.float64(np.inf)])
def test_no_operation_is_refused_before_its_outcome_is(operation):
    """Whatever NumPy is told to do at such: here it raises."""
    class Odd(ELBO):
        def __call__(self, nll, reg, step):
            return operation(), *super().__call__(nll, reg, step)[1:]

    with pytest.raises(NonFiniteError, match="^step 0: the loss holds NaN or infinity; the loss is (nan|inf)$"):
        fit(small(), X, X_TEST, 1, 4, objective=Odd())


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_gradient_that_is_nan_stops_the_run(max_norm):
    """Clipped or not, and where the loss is finite."""
    class Odd(ELBO):
        def __call__(self, nll, reg, step):
            loss, dnll, dreg = super().__call__(nll, reg, step)
            return loss, np.nan * dnll, dreg

    with pytest.raises(NonFiniteError, match=r"^step 0: gradient of encoder.0.W holds NaN or infinity; the loss is \d"):
        fit(small(), X, X_TEST, 1, 4, Adam(max_norm=max_norm), Odd())


IN_ORDER = {
    "x": lambda a: a.x, "activation encoder.0": lambda a: a.encoder[1], "activation encoder.1": lambda a: a.encoder[2],
    "activation mu": lambda a: a.mu, "activation logvar": lambda a: a.logvar, "activation z": lambda a: a.z,
    "activation decoder.0": lambda a: a.decoder[1], "activation decoder.1": lambda a: a.decoder[2],
    "activation output": lambda a: a.rows, "nll": lambda a: a.nll, "kl": lambda a: a.kl,
    "log q - log p": lambda a: a.log_ratio}


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_the_first_tensor_that_is_not_finite_is_named(first, monkeypatch):
    """In the order in which the pass computes them: that one, and not those after it, one number of each NaN."""
    vae = small(hidden=(4, 3), decoder_hidden=(3, 5))
    forward, planted = vae.forward, list(IN_ORDER.values())[first:]

    class Broken(ELBO):
        def __call__(self, nll, reg, step):
            return math.nan, *super().__call__(nll, reg, step)[1:]

    def plant(a, *others):
        forward(a, *others)
        for tensor in planted:
            tensor(a)[-1, ..., -1] = np.nan

    monkeypatch.setattr(vae, "forward", plant)
    with pytest.raises(NonFiniteError, match=f"^step 0: {[*IN_ORDER][first]} holds NaN or infinity; the loss is nan"):
        fit(vae, X, X_TEST, 1, 4, objective=Broken())


# ---- Memory

@pytest.mark.every(5)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("objective, draws, binarize, most", [
    (ELBO(), 1, "none", 20), (ELBO(), 1, "dynamic", 20), (IWAE(), 5, "none", 40), (FreeBits(0.1), 1, "none", 40)])
def test_a_step_allocates_nothing(objective, draws, binarize, most, threads):
    """But the few numbers per image and draw, or per dimension, that IWAE and FreeBits return.  In KiB; an array
    (B, Z) has 10, and (B, D) 392."""
    x = RNG.integers(0, 256, (500, 784), dtype=np.uint8)
    vae, order = VAE(784, (128,), 20), RNG.permutation(500)
    vae.threads = threads
    rows = Rows("x_train", x, vae, binarize, 0, 0)
    run = Run(vae, Adam(), objective, rows, rows, {"n_samples": draws, "batch_size": 128, "seed": 0}, epochs=1)
    run.begin_epoch()
    batches = [order[start:start + 128] for start in range(0, 500, 128)]      # the last has 116
    with vae.engine.running():
        for step in range(8):
            train_step(run, batches[step % 4])
        tracemalloc.start()
        try:
            for step in range(40):
                train_step(run, batches[step % 4])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < most * 1024


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_a_kl_that_its_type_cannot_hold_stops_the_run(kernels):
    """exp(100) is no number of single precision: the loss must not be some large one."""
    vae = small(kernels=kernels, dtype="float32")
    vae.parameters["logvar.b"][...] = 100
    with pytest.raises(NonFiniteError, match="^step 0: "):
        fit(vae, X, X_TEST, 1, 4)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_a_gradient_whose_square_overflows_stops_the_run_unless_it_is_clipped(kernels):
    """A loss scaled by 1e25 has the same clipped gradient; without clipping Adam's v would be infinite for ever."""
    class Steep(ELBO):
        def __call__(self, nll, reg, step):
            return tuple(1e25 * value for value in super().__call__(nll, reg, step))

    found = []
    for objective in (ELBO(), Steep()):
        vae = small(kernels=kernels, dtype="float32")
        fit(vae, X, X_TEST, 1, 4, Adam(1e-3, max_norm=1e-3), objective)
        found.append(vae.parameters.flat.copy())
    assert np.allclose(*found, rtol=1e-4, atol=1e-6)
    with pytest.raises(NonFiniteError, match="^step 0: the squares of .* are too large for float32"):
        fit(small(kernels=kernels, dtype="float32"), X, X_TEST, 1, 4, objective=Steep())
