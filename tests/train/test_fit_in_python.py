"""fit as one calls it in a notebook: without a test set, with a bar, with callbacks of one's own."""
import numpy as np
import pytest

from npvae import VAE, Adam, Callback, Checkpoint, CheckpointError, EarlyStopping, MetricsLog, fit
from npvae.likelihoods import Bernoulli

X = (np.random.default_rng(0).random((30, 6)) < 0.4).astype(np.float32)


def model():
    return VAE(6, (5,), 2, kernels="numpy")


def test_without_a_test_set(tmp_path):
    """The same steps as with one, and metrics of training alone; callbacks cope, and a stopped run goes on exactly."""
    one, other = model(), model()
    history, with_test = fit(one, X, epochs=3, batch_size=8), fit(other, X, X[:5], 3, 8)
    assert np.array_equal(one.parameters.flat, other.parameters.flat)
    left_out = {"test_loss", "test_nll", "test_kl", "active_units"}
    for short, long in zip(history, with_test):
        assert long.keys() - short.keys() == left_out and short["train_loss"] == long["train_loss"]
    path, again, whole = tmp_path / "run.npz", model(), model()
    callbacks = [Checkpoint(path), MetricsLog(tmp_path / "log"), EarlyStopping()]
    fit(again, X, epochs=2, batch_size=8, callbacks=callbacks)
    fit(whole, X, epochs=3, batch_size=8, resume=path)
    assert np.array_equal(whole.parameters.flat, one.parameters.flat)
    with pytest.raises(CheckpointError, match="'test_loss' is missing"):
        fit(model(), X, X[:5], 3, 8, resume=path)
    with pytest.raises(ValueError, match="labels_test were given without x_test"):
        fit(model(), X, labels_test=np.zeros(5, int), batch_size=8)


def test_training_stops_when_the_training_loss_does_not_fall():
    assert len(fit(model(), X, epochs=9, batch_size=30, optimizer=Adam(1e-12), callbacks=[EarlyStopping(1)])) < 9


def test_progress(capsys):
    fit(model(), X, epochs=2, batch_size=8, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[1].startswith("epoch   2/2  train ") and "test" not in lines[1]
    with pytest.raises(TypeError, match="progress must be True or False"):
        fit(model(), X, progress=3)


class Misspelt(Callback):
    def on_epoch_end(self, run):
        pass


class Idle(Callback):
    def after_epoch(self, run):
        pass


class Helped(Callback):
    def on_end(self, run):
        self.draw()

    def draw(self):
        self.drawn = True


def test_a_hook_that_nothing_calls_is_refused():
    hooks = "the hooks are on_start, on_step, on_epoch, on_interrupt, on_end"
    for callback, says in ((Misspelt(), "Misspelt has a method on_epoch_end, which nothing calls"),
                           (Idle(), "Idle overrides no hook")):
        with pytest.raises(TypeError, match=f"callbacks: {says}.*{hooks}"):
            fit(model(), X, batch_size=8, callbacks=[callback])
    helped = Helped()
    fit(model(), X, epochs=1, batch_size=8, callbacks=[helped])
    assert helped.drawn


class Mine(Bernoulli):
    name = "of my own"


def test_loading_says_how_to_pass_a_part_of_ones_own(tmp_path):
    VAE(6, (5,), 2, likelihood=Mine(), kernels="numpy").save(tmp_path / "x.npz")
    with pytest.raises(CheckpointError, match="one of your own is passed again, in Python: VAE.load"):
        VAE.load(tmp_path / "x.npz")
    assert VAE.load(tmp_path / "x.npz", "numpy", likelihood=Mine()).likelihood.name == "of my own"


def test_lists_and_bytes_are_taken_by_encode_as_by_fit():
    vae, bits = model(), X.astype(np.uint8)
    expected = vae.encode(X)[0]
    for same in (X.tolist(), bits, bits.astype(bool), bits.astype(np.int64), bits.tolist(), np.ma.array(X)):
        assert np.array_equal(vae.encode(same)[0], expected)
        fit(model(), same, epochs=1, batch_size=30)
    assert repr(vae).startswith("VAE of ")
