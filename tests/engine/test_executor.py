"""Threads that replay what was recorded once: the passes are the direct ones, the same bits every time, and
nothing stale.  What they stand on is tested in `test_replay.py` and `test_threads.py`.
"""
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import ELBO, IWAE, VAE, Adam, Bernoulli, Checkpoint, FreeBits, Gaussian, StepLR, fit
from npvae.latents.flows import NoFlow
from npvae.kernels import reference
from npvae.engine import trial
from npvae.engine.executor import DirectExecutor, ThreadedExecutor
from npvae.layers import ACTIVATIONS
from npvae.likelihoods import make_likelihood
from npvae.latents.priors import StandardNormal
from strategies import LIKELIHOODS, seeds, sizes
from whole_models import OBJECTIVES, batch, near_a_kink
from workers import small_work_is_shared  # noqa: F401 (a fixture)
from executors import RNG, X, X_TEST, assert_equal, bits, model, result, run_directly

RECORDABLE = [name for name in LIKELIHOODS if "recordable" in vars(type(make_likelihood(name)))]


# ---- Replayed = direct

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(size=sizes("BDHGFZ", most=40), depth=st.integers(0, 3), draws=st.integers(1, 5), threads=st.integers(1, 5),
       seed=seeds, activation=st.sampled_from(list(ACTIVATIONS)), likelihood=st.sampled_from(RECORDABLE),
       objective=st.sampled_from(list(OBJECTIVES)))
def test_replayed_is_direct(dtype, size, depth, draws, threads, seed, activation, likelihood, objective):
    """Against the reference in double precision, and against the same kernels called one by one."""
    config = dict(input_dim=size["D"], hidden=[size[letter] for letter in "HGF"[:depth]], latent_dim=size["Z"],
                  activation=activation, likelihood=likelihood, seed=seed)
    exact, ours = model(**config, kernels="numpy"), model(threads, **config, dtype=dtype)
    exact.parameters.flat[...] = ours.parameters.flat
    call = *(value.astype(dtype) for value in batch(ours, size["B"], draws, seed)), OBJECTIVES[objective][0]
    assert isinstance(ours.engine, ThreadedExecutor) and isinstance(exact.engine, DirectExecutor)
    replayed = result(ours, *call)
    if dtype == "float64":      # the weights of IWAE are exponentials of nlls in the hundreds
        tolerance = 1e-10 if "iwae" in objective else 1e-12
        assert_equal(replayed, result(exact, *call), tolerance, tolerance)
        assert_equal(replayed, run_directly(ours, *call), tolerance, tolerance)
    elif not near_a_kink(exact, *call):
        assert_equal(replayed, result(exact, *call), 1e-3, 1e-4)
        assert_equal(replayed, run_directly(ours, *call), 1e-3, 1e-4)


@pytest.mark.parametrize("threads, objective, draws", [
    (1, ELBO(), 1), (2, IWAE(), 3), pytest.param(4, ELBO(), 1, marks=pytest.mark.slow)])
def test_every_size_of_batch(threads, objective, draws):
    """Whatever the number of tasks, and of rows in the last."""
    exact, ours = model(kernels="numpy", likelihood="gaussian-learned:1"), model(threads,
                                                                                 likelihood="gaussian-learned:1")
    for size in (1, 2, 3, 5, 8, 9, 19, 32, 33, 1):
        call = *batch(ours, size, draws, size), objective
        assert_equal(result(ours, *call), result(exact, *call), 1e-12, 1e-13)


@pytest.mark.every(5)
@pytest.mark.parametrize("rows", [1, 20, 64, 65, 127, 129])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-4)])
@pytest.mark.parametrize("decoder", ["dense", "made:66+direct"])
def test_wide_layers(decoder, rows, dtype, tolerance):
    """Where products are split by the weights: up to some 32 rows; and where BLAS is given their transpose: up to 64
    rows in a task, 64 columns and more."""
    config = dict(input_dim=70, hidden=(64, 66), latent_dim=65, decoder=decoder)
    exact, ours = model(**config, kernels="numpy"), model(2, **config, dtype=dtype)
    exact.parameters.flat[...] = ours.parameters.flat
    call = tuple(value.astype(dtype) for value in batch(ours, rows, 1, 2))
    for threads in (2, 4):
        ours.threads = threads
        assert_equal(result(ours, *call), result(exact, *call), tolerance)


def test_nothing_stale_is_replayed(tmp_path):
    """Larger buffers, other parameters, other draws, another number of threads: each is seen at the next call."""
    exact, ours = model(kernels="numpy"), model(2)
    first = {size: batch(ours, size, 2, size) for size in (9, 30)}

    def check(size, draws, objective=ELBO()):
        exact.parameters.flat[...] = ours.parameters.flat
        call = *(first[size] if draws == 2 else batch(ours, size, draws, 3)), objective
        assert_equal(result(ours, *call), result(exact, *call), 1e-12)

    for size, draws in ((9, 2), (30, 2), (9, 2), (9, 5), (9, 2)):
        check(size, draws)
        check(size, draws, IWAE())
        ours.parameters["decoder.0.W"][1] *= -1
        check(size, draws)
    for threads in (1, 4, 2):
        ours.threads = threads
        assert ours.threads == threads
        check(30, 2)
    ours.start_at(np.full(7, 0.2))
    check(9, 2)
    ours.save(tmp_path / "vae.npz")
    loaded = VAE.load(tmp_path / "vae.npz")
    loaded.threads = 2
    assert bits(loaded, *first[30]) == bits(ours, *first[30])


def test_kernels_for_a_whole_batch_are_the_kernels():
    """With the scalars of each call, which are no part of what is recorded; also of more rows than there are images."""
    vae, rng, x = model(2), np.random.default_rng(0), np.full((9, 7), np.nan)
    rows, index = rng.integers(0, 256, (3, 7), dtype=np.uint8), rng.integers(0, 3, 9)
    calls = {"adam_update": (*rng.random((4, vae.parameters.flat.size)), 0.01, 0.9, 0.99, 0.1, 0.5, 3.0),
             "gather_rows": (x, rows, index, 1 / 255), "box_muller": (np.zeros(202), rng.random(202, np.float32)),
             "gather_binarized": (x, rows, index, rng.random((9, 7), np.float32), 1 / 255)}
    for name, arguments in calls.items():
        tolerance = 1e-5 if name == "box_muller" else 1e-12      # which is all in float32
        for factor in (1.0, 0.5):
            ours = [value * factor if isinstance(value, float) else value for value in arguments]
            exact = [value.copy() if isinstance(value, np.ndarray) else value for value in ours]
            getattr(reference, name)(*exact)
            getattr(vae.engine.kernels, name)(*ours)
            assert all(np.allclose(*pair, rtol=tolerance, atol=tolerance) for pair in zip(ours, exact)), name


@pytest.mark.parametrize("inputs, layer, tensors", [
    ("encoder", 1, {"encoder.1.W"}), ("encoder", 2, {"mu.W", "logvar.W"}), ("decoder", 0, {"decoder.0.W"}),
    ("decoder", 1, {"decoder.1.W"}), ("decoder", 2, {"output.W"})])
@pytest.mark.parametrize("entry", [(0, 0), (-1, -1)])
def test_nan_in_one_gradient_is_seen(inputs, layer, tensors, entry):
    """Each of them is looked at, to its last row: NaN comes between the passes, into what one layer was given."""
    vae = model(2, activation="identity")
    x, eps = batch(vae, 20, 1, 5)

    class Planted(ELBO):
        def __call__(self, nll, reg, step):
            getattr(vae.passes(20, 1)[0], inputs)[layer][entry] = np.nan
            return super().__call__(nll, reg, step)

    vae.loss_and_gradients(x, eps)
    assert vae.engine.all_finite()
    loss, gradients = vae.loss_and_gradients(x, eps, Planted())
    assert {name for name, value in gradients.items() if np.isnan(value).any()} == tensors and np.isfinite(loss)
    assert not vae.engine.all_finite()
    vae.loss_and_gradients(x, eps)
    assert vae.engine.all_finite()


@pytest.mark.parametrize("entry", [(0, 0), (-1, -1)])
@pytest.mark.parametrize("layer, tensors", [(None, {"output.W"}), (2, {"made.W", "output.W"})])
def test_nan_in_the_gradient_of_a_made_decoder_is_seen(layer, tensors, entry):
    """In the first and the last product of those that make it."""
    vae = model(2, activation="identity", decoder="made:9")
    x, eps = batch(vae, 20, 1, 5)

    class Planted(ELBO):
        def __call__(self, nll, reg, step):
            a, _ = vae.passes(20, 1)
            (a.decoder[layer] if layer else a.last.made)[entry] = np.nan
            return super().__call__(nll, reg, step)

    result(vae, x, eps)
    assert vae.engine.all_finite()
    loss, gradients = vae.loss_and_gradients(np.rint(x), eps, Planted())
    assert {name for name, value in gradients.items() if np.isnan(value).any()} == tensors and np.isfinite(loss)
    assert not vae.engine.all_finite()


# ---- The same bits

@given(size=sizes("BDHGZ", most=40), depth=st.integers(0, 2), draws=st.integers(1, 3), seed=seeds,
       dtype=st.sampled_from(["float32", "float64"]), likelihood=st.sampled_from(LIKELIHOODS),
       objective=st.sampled_from(list(OBJECTIVES)))
def test_threads_do_not_change_the_bits(size, depth, draws, seed, dtype, likelihood, objective):
    """One, two and three threads share two tasks, four and five share four; and nothing depends on who is faster."""
    vae = model(1, input_dim=size["D"], hidden=[size[letter] for letter in "HG"[:depth]], latent_dim=size["Z"],
                likelihood=likelihood, dtype=dtype, seed=seed)
    call = *batch(vae, size["B"], draws, seed), OBJECTIVES[objective][0]
    seen = {}
    for threads in (1, 2, 3, 4, 5):
        vae.threads = threads
        seen[threads] = bits(vae, *call)
        assert bits(vae, *call) == seen[threads]
    assert seen[1] == seen[2] == seen[3] and seen[4] == seen[5]


RUNS = {
    "dynamic": ({}, {"binarize": "dynamic"}),
    "learned sigma": ({"likelihood": "gaussian-learned", "dtype": "float32"}, {}),
    "made": ({"decoder": "made:9+direct"}, {"binarize": "dynamic"}),
    "made iwae": ({"decoder": "made:8", "dtype": "float32"}, {"objective": IWAE(), "n_samples": 3,
                                                              "binarize": "static"}),
    "iwae": ({"hidden": (6,)}, {"objective": IWAE(), "n_samples": 3, "binarize": "static"}),
    "free bits": ({"hidden": (), "dtype": "float32"}, {"objective": FreeBits(0.1)})}


def train(path, threads, config, call, epochs=2, resume=None, **more):
    """Batches of 25, 25 and 3.  All that must be equal: parameters, moments, history but its seconds."""
    vae, optimizer = model(threads, **config, **more), Adam(StepLR(0.01, [2]), max_norm=5.0)
    history = fit(vae, X, X_TEST, epochs, 25, optimizer, callbacks=[Checkpoint(path)], resume=resume, **call)
    history = [{name: value for name, value in metrics.items() if name not in ("seconds", "images_per_second")}
               for metrics in history]
    return [block.flat.tobytes() for block in (vae.parameters, optimizer.m, optimizer.v)], history


@pytest.mark.every(6)
@pytest.mark.parametrize("run", RUNS)
def test_training_with_one_and_two_threads(run, tmp_path):
    path, again = tmp_path / "run.npz", tmp_path / "again.npz"
    one = train(path, 1, *RUNS[run])
    assert train(path, 2, *RUNS[run]) == one == train(path, 3, *RUNS[run])
    for first, second in ((1, 2), (2, 1)):
        train(again, first, *RUNS[run], epochs=1)
        assert train(again, second, *RUNS[run], resume=again, seed=7) == one
    with mock.patch.object(trial, "can_replay", lambda dtype, shared: False):
        plain = train(path, 1, *RUNS[run])
    for ours, theirs in zip(one[1], plain[1]):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_other_data_of_the_same_size():
    """A second training: other rows, another optimizer; and the sizes of what came before.  And a test set of as many
    images as a batch has, of other rows than those: each call gathers from the data that it is given."""
    histories = []
    for works in (True, False):
        with mock.patch.object(trial, "can_replay", lambda dtype, shared: works):
            vae = model(2)
            assert type(vae.engine) is (ThreadedExecutor if works else DirectExecutor)
            histories.append([fit(vae, x, x[:24:-1][:25], 2, 25, Adam(lr), binarize=binarize)[-1]["test_loss"]
                              for x, lr, binarize in ((X, 0.01, "none"), (255 - X, 0.02, "none"), (X, 0.01, "dynamic"),
                                                      (255 - X, 0.03, "dynamic"))])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


def test_evaluation():
    vae, x = model(), RNG.random((41, 7))
    values = {}
    for threads in (1, 2):
        vae.threads = threads
        values[threads] = [vae.elbo(x, np.random.default_rng(0)), vae.log_likelihood(x, np.random.default_rng(0), 60)]
    assert np.array_equal(values[1][0], values[2][0]) and np.array_equal(values[1][1], values[2][1])
    with mock.patch.object(VAE, "engine", property(DirectExecutor)):
        assert np.allclose(values[1][0], vae.elbo(x, np.random.default_rng(0)), rtol=1e-6)
        assert np.allclose(values[1][1], vae.log_likelihood(x, np.random.default_rng(0), 60), rtol=1e-6)


# ---- What can be recorded

class InNumpy(Bernoulli):
    """The same, with NumPy instead of kernels."""

    def forward(self, kernels, nll, kept, output, x, params):
        kept[...] = 1 / (1 + np.exp(-output))
        nll[...] = (np.logaddexp(0, output) - x[:, None] * output).sum(axis=2)

    def backward(self, kernels, doutput, grads, dnll, kept, output, x, params):
        doutput[...] = dnll[:, :, None] * (kept - x[:, None])


class Halved(Bernoulli):
    """What follows the kernel is not recorded: a program would leave it out."""

    def forward(self, kernels, nll, kept, output, x, params):
        super().forward(kernels, nll, kept, output, x, params)
        nll *= 0.5

    def backward(self, kernels, doutput, grads, dnll, kept, output, x, params):
        super().backward(kernels, doutput, grads, dnll, kept, output, x, params)
        doutput *= 0.5


class Promised(Bernoulli):
    recordable = True


class Denied(Bernoulli):
    recordable = False


class Square(Gaussian):
    """sigma as a matrix: its gradient is neither that of a bias nor a product."""

    recordable = True

    def __init__(self):
        super().__init__(1.0, learned=True)
        self.shapes = {"likelihood.logvar": (1, 1)}

    def _logvar(self, block):
        return block["likelihood.logvar"].reshape(1)


@pytest.mark.parametrize("likelihood, engine", [
    (InNumpy, DirectExecutor), (Halved, DirectExecutor), (Denied, DirectExecutor), (Promised, ThreadedExecutor),
    (Square, ThreadedExecutor)])
def test_only_what_says_so_itself_is_recorded(likelihood, engine):
    """`recordable` is not inherited."""
    exact, ours = model(kernels="numpy", likelihood=likelihood()), model(2, likelihood=likelihood())
    assert type(ours.engine) is engine and type(exact.engine) is DirectExecutor
    for seed in (1, 2):
        call = *batch(ours, 20, 2, seed), IWAE()
        assert_equal(result(ours, *call), result(exact, *call), 1e-12)


class Turned(StandardNormal):
    """Any prior of one's own."""


class Still(NoFlow):
    """Any flow of one's own."""


@pytest.mark.parametrize("flow, prior, engine", [
    (NoFlow, StandardNormal, ThreadedExecutor), (Still, StandardNormal, DirectExecutor),
    (NoFlow, Turned, DirectExecutor)])
def test_what_a_latent_variable_is_made_of_has_to_say_so_too(flow, prior, engine):
    vae = model(2, posterior=flow(), prior=prior())
    assert type(vae.engine) is engine


@pytest.mark.parametrize("kernels, dtype, works", [
    ("numpy", "float64", True), ("numpy", "complex128", True), ("numba", "float64", False)])
def test_what_cannot_be_replayed_is_run_directly(kernels, dtype, works, monkeypatch):
    monkeypatch.setattr(trial, "can_replay", lambda dtype, shared: works)
    exact, vae = model(kernels="numpy"), model(2, kernels=kernels, dtype=dtype)
    assert type(vae.engine) is DirectExecutor
    call = *batch(vae, 20, 2, 5), IWAE()
    assert_equal(result(vae, *call), result(exact, *call), 1e-12)
    if dtype == "float64":
        ours, theirs = fit(vae, X, X_TEST, 1, 25)[0], fit(exact, X, X_TEST, 1, 25)[0]
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-4)
