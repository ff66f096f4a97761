"""fit: shuffled batches, one Adam step each, an evaluation per epoch.  Read after `run.py`.

All randomness comes from `seed`, in separate streams: the order of the rows, the noise eps, the dynamic binarization,
the evaluation.  Each stream is seeded anew every epoch, and a checkpoint holds its state.  So a run that was stopped
and resumed gives the same bits as one that was not.
"""
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from .. import evaluate
from ..buffers import Activations
from ..data.stored import extent
from ..evaluate.bounds import BLOCK
from ..latents.base import KLEstimator
from ..model.vae import VAE
from ..objectives import ELBO, Objective
from ..optim import Adam
from ..params import Array
from ..validate import NonFiniteError, boolean, choice, described, integer, shown
from .callbacks import HOOKS, Callback, Progress
from .rows import BINARIZE_ONCE, _EVALUATE, _SHUFFLE, _SIGMA, Rows, stream
from .run import Metrics, Run, _first_nonfinite, _nonfinite_error

_FIT_IMAGES = 10_000      # training images at most that `VAE.fit_likelihood` is given


def fit(vae: VAE, x_train: Array, x_test: Array | None = None, epochs: int = 10, batch_size: int = 128,
        optimizer: Adam | None = None, objective: Objective = ELBO(), n_samples: int = 1, binarize: str = "none",
        seed: int = 0, callbacks: Sequence[Callback] = (), resume: str | Path | None = None,
        labels_train: Array | None = None, labels_test: Array | None = None, shuffle: bool = True,
        first_epoch: int = 0, progress: bool = False) -> list[Metrics]:
    """Train `vae` in place.  Returns a dict of metrics for each epoch.

    Parameters
    ----------
    x_train, x_test : data (N, D) and (M, D); uint8 means 0 to 255, unless it holds only 0 and 1
        (`npvae/likelihoods/support.py`).  Without x_test there are no metrics of it, nor active_units
    epochs : in all, including those before `first_epoch` and those of a resumed run
    optimizer : None stands for Adam()
    objective : what is minimised; see `npvae.objectives`
    n_samples : K, draws of z per image
    binarize : "none" (pixels as they are), "threshold", "static" (drawn once), or "dynamic" (drawn anew for every
        batch; the test set is drawn once)
    callbacks : see `npvae.train.callbacks`
    resume : a checkpoint of the same run to continue from.  It is refused if data, model, settings, objective or
        optimizer differ, except that schedules which are plain functions cannot be compared
    labels_train, labels_test : integers (N,) and (M,), for a model with classes
    shuffle : x_train in a new random order every epoch
    first_epoch : number of epochs that earlier calls have trained
    progress : print a line per epoch and, in a notebook or on a terminal, show a bar: callback `Progress()`

    A second call starts again at epoch 0: the same seed gives the same order, noise and binarization bit for bit, and
    schedules of beta start over.  Parameters are kept, and so are the moments and the learning-rate schedule of an
    optimizer that is passed again.  To continue in every respect, pass `first_epoch` as well: after k epochs,

        fit(..., epochs=k + m, optimizer=optimizer, first_epoch=k)

    with all other arguments as before gives the same bits as k + m epochs in one call.  Epochs and steps are numbered
    on; the history returned starts at epoch k + 1.

    Metrics, in nats per image where that applies: epoch, step, seconds (of the epoch), images_per_second (of training
    alone; 0 if the clock did not move), learning_rate, beta, train_loss (the objective), train_nll, train_kl,
    test_loss (minus the bound, always with beta = 1 and sampled z), test_nll, test_kl, active_units.

    Raises ValueError or TypeError, before training, for arguments that do not fit; CheckpointError for `resume`;
    NonFiniteError at the step where NaN or infinity appears; KeyboardInterrupt after Ctrl-C, when the step has ended.
    """
    _check_parts(vae, optimizer, objective, callbacks)
    epochs, seed = integer("epochs", epochs, 1), integer("seed", seed, 0)
    batch_size, n_samples = integer("batch_size", batch_size, 1), integer("n_samples", n_samples, 1)
    first_epoch, shuffle = integer("first_epoch", first_epoch, 0), boolean("shuffle", shuffle)
    callbacks = [*callbacks, Progress()] if boolean("progress", progress) else callbacks
    _check_start(resume, first_epoch, epochs, optimizer)
    run = new_run(vae, x_train, x_test, epochs, batch_size, Adam() if optimizer is None else optimizer, objective,
                  n_samples, binarize, seed, labels_train, labels_test, shuffle, first_epoch)
    with vae.owner:
        if resume is not None:
            run.restore(resume)
        _train(run, callbacks)
    return run.history


def new_run(vae: VAE, x_train: Array, x_test: Array | None, epochs: int, batch_size: int, optimizer: Adam,
            objective: Objective, n_samples: int = 1, binarize: str = "none", seed: int = 0,
            labels_train: Array | None = None, labels_test: Array | None = None, shuffle: bool = True,
            first_epoch: int = 0) -> Run:
    """The `Run` that `fit` makes of these arguments, before its first step.  Raises ValueError or TypeError."""
    choice("the model's dtype", vae.dtype, ("float32", "float64"))
    vae.check_objective(objective)
    train = Rows("x_train", x_train, vae, binarize, seed, BINARIZE_ONCE, labels_train)
    once = "static" if binarize == "dynamic" else binarize
    test = None if x_test is None else Rows("x_test", x_test, vae, once, seed + 1, BINARIZE_ONCE, labels_test)
    if test is None and labels_test is not None:
        raise ValueError("labels_test were given without x_test")
    if test is not None:
        _check_together(train, test)
    _check_columns(vae, train)
    _check_prior(vae, train)
    if batch_size > len(train):
        raise ValueError(f"batch_size must be at most the number of training images, {len(train)}, got {batch_size}")
    settings = {"batch_size": batch_size, "n_samples": n_samples, "binarize": binarize, "seed": seed,
                "images": len(train), "shuffle": shuffle, "objective": described(objective),
                "optimizer": described(optimizer), **train.checksums()}
    with vae.owner:
        run = Run(vae, optimizer, objective, train, test, settings, epochs, first_epoch, first_epoch)
        run.begin_epoch()
        run.optimizer.prepare(vae.parameters)
    return run


def _check_parts(vae: object, optimizer: object, objective: object, callbacks: object) -> None:
    """Raises TypeError for objects of the wrong kind, and for a class in place of an object."""
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise TypeError(f"callbacks must be a list of objects such as EarlyStopping(), got {shown(callbacks)}")
    for name, value, method, example in (("vae", vae, "forward_backward", "VAE()"),
                                         ("optimizer", Adam() if optimizer is None else optimizer, "prepare", "Adam()"),
                                         ("objective", objective, "kl_estimator", "ELBO()"),
                                         *(("callbacks", one, "on_start", "EarlyStopping()") for one in callbacks)):
        if isinstance(value, type) or not hasattr(value, method):
            raise TypeError(f"{name} needs objects such as {example}, got {shown(value)}")
    for one in callbacks:
        _check_hooks(one)


def _check_hooks(callback: object) -> None:
    """Raises TypeError for a method whose name begins like a hook's and that nothing calls, and for a callback without
    any hook of its own."""
    hooks, kind = ", ".join(HOOKS), type(callback)
    for name in dir(kind):
        if name.startswith("on_") and name not in HOOKS:
            raise TypeError(f"callbacks: {kind.__name__} has a method {name}, which nothing calls; the hooks are "
                            f"{hooks}")
    if isinstance(callback, Callback) and all(
            getattr(getattr(callback, name), "__func__", None) is getattr(Callback, name) for name in HOOKS):
        raise TypeError(f"callbacks: {kind.__name__} overrides no hook, so that nothing would call it; the hooks are "
                        f"{hooks}")


def _check_start(resume: object, first_epoch: int, epochs: int, optimizer: object) -> None:
    """A run starts anew, from a checkpoint, or after other calls.  Raises TypeError or ValueError."""
    if resume is not None and not isinstance(resume, (str, Path)):
        raise TypeError(f"resume must be the path of a checkpoint, got {shown(resume)}")
    if not first_epoch:
        return
    if resume is not None:
        raise ValueError(f"first_epoch {first_epoch} and resume exclude each other: a checkpoint knows its epoch")
    if first_epoch >= epochs:
        raise ValueError(f"epochs counts those before first_epoch, and must be more than {first_epoch}, got {epochs}")
    if optimizer is None:
        raise ValueError(f"optimizer must be given with first_epoch {first_epoch}: the one of the epochs before, or a "
                         "new one")


def _check_together(train: Rows, test: Rows) -> None:
    """Raises ValueError if of two sets of bytes one holds only 0 and 1: they would not mean the same."""
    if train.of_bytes and test.of_bytes and train.scale != test.scale and train.array.any() and test.array.any():
        white, other = ("x_train", "x_test") if train.scale == 1 else ("x_test", "x_train")
        raise ValueError(f"{white} must not hold only 0 and 1 where {other} holds other bytes: 1 would mean white in "
                         "one and 1/255 in the other; give one of the two as floats")


def _check_columns(vae: VAE, train: Rows) -> None:
    """Raises ValueError if a column of the training set has no cell to learn from."""
    if vae.missing:
        empty = np.all([np.isnan(block).all(axis=0) for block in train.blocks()], axis=0)
        if empty.any():
            raise ValueError(f"x_train must have an observed cell in every column, column {int(empty.argmax())} has "
                             "none: leave it out")


def _check_prior(vae: VAE, train: Rows) -> None:
    """Raises ValueError for images outside [0, 1] with a VampPrior, whose pseudo-inputs are confined to [0, 1]."""
    if not vae.prior.in_unit_interval:
        return
    low, high = (train.scale * end for end in extent(train.array))
    if low < 0 or high > 1:
        raise ValueError(f"x_train must lie in [0, 1] for prior {vae.prior.name}, whose pseudo-inputs do, found values "
                         f"from {low:g} to {high:g}: prior mixture:{vae.prior.rows} fits")


def _train(run: Run, callbacks: Sequence[Callback]) -> None:
    """Train the remaining epochs."""
    with _ctrl_c_ends_the_step(run), run.vae.engine.running():
        for callback in callbacks:
            callback.on_start(run)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):      # `train_step` checks
                while run.epoch < run.epochs and not run.stop:
                    _train_epoch(run, callbacks)
        finally:
            run.vae.engine.forget()
            for callback in callbacks:
                callback.on_end(run)


def _train_epoch(run: Run, callbacks: Sequence[Callback]) -> None:
    """Train from batch `run.batch` to the end of the epoch, evaluate, and call the callbacks."""
    order = stream(run.settings["seed"], _SHUFFLE, run.epoch).permutation(len(run.train))
    if not run.settings["shuffle"]:
        order.sort()
    size, before, began = run.settings["batch_size"], run.sums["seconds"], time.perf_counter()
    while run.batch < run.batches:
        with run.vae.engine.blas_mode:
            train_step(run, order[run.batch * size:(run.batch + 1) * size])
        run.sums["seconds"] = before + time.perf_counter() - began
        for callback in callbacks:
            callback.on_step(run)
        _check_interrupt(run, callbacks)
    if run.vae.likelihood.fits_batch:
        _fit_likelihood(run)
    metrics = _evaluate(run)
    seconds, images, trained = before + time.perf_counter() - began, run.sums["images"], run.sums["seconds"]
    run.history.append({
        "epoch": run.epoch + 1, "step": run.step, "seconds": seconds,
        "images_per_second": images / trained if trained else 0.0,
        "learning_rate": float(run.optimizer.lr(run.optimizer.t - 1)), "beta": float(run.objective.beta(run.step - 1)),
        **{f"train_{name}": run.sums[name] / images for name in ("loss", "nll", "kl")}, **metrics})
    run.epoch += 1
    run.begin_epoch()
    for callback in callbacks:
        callback.on_epoch(run)
    _check_interrupt(run, callbacks)


def train_step(run: Run, index: Array) -> None:
    """One step on the rows `index` (B,) of the training set: gather, draw noise, forward, backward, Adam.  Nothing is
    allocated once the buffers exist.  Raises NonFiniteError."""
    vae, draws = run.vae, run.settings["n_samples"]
    a, d = vae.passes(len(index), draws)
    run.train.gather(a, index, vae.engine.kernels, run.draws)
    evaluate.draw_noise(a, run.noise, vae.engine.kernels)
    try:
        loss = vae.forward_backward(a, d, run.objective, run.step)
    except NonFiniteError as error:      # raised by a likelihood, which does not know the step
        raise NonFiniteError(f"step {run.step}: {error}") from None
    if not (math.isfinite(loss) and vae.engine.all_finite()):
        tensor = _first_nonfinite(vae, a)
        if tensor or not math.isfinite(loss) or run.optimizer.max_norm is None:      # clipping copes with large ones
            raise _nonfinite_error(run, loss, tensor)
    run.optimizer.step(vae.parameters, vae.gradients, vae.engine.kernels)
    run.batch += 1
    for name, value in (("images", len(index)), ("loss", loss * len(index)), ("nll", a.nll.sum() / draws),
                        ("kl", _kl_sum(a, run.objective.kl_estimator))):
        run.sums[name] += float(value)


def _fit_likelihood(run: Run) -> None:
    """Call `VAE.fit_likelihood` on the training images, or on 10,000 of them, evenly spaced: on MNIST enough for
    sigma to be right to about 0.003 nats."""
    vae, rows, rng = run.vae, run.train, stream(run.settings["seed"], _SIGMA, run.epoch)
    index = np.linspace(0, len(rows) - 1, min(len(rows), _FIT_IMAGES)).astype(np.int64)
    x, labels = rows.taken(index, vae.kernels, rng)
    vae.fit_likelihood(x, rng, labels if vae.classes else None)


def _kl_sum(a: Activations, estimator: KLEstimator) -> float:
    """Sum over the batch of the KL term, which is averaged over draws."""
    return float(a.log_ratio.sum() / a.log_ratio.shape[1] if estimator.is_sampled else a.kl.sum())


def _evaluate(run: Run) -> Metrics:
    """Metrics of the test set: minus the bound, with beta = 1 and sampled z; its terms; the number of active units.
    None of them without a test set."""
    if run.test is None:
        return {}
    vae, objective, draws = run.vae, run.objective.bound(), run.settings["n_samples"]
    rng = stream(run.settings["seed"], _EVALUATE, 0)
    total = {"loss": 0.0, "nll": 0.0, "kl": 0.0}
    mu = np.empty((len(run.test), vae.latent_dim))
    for block in _blocks(len(run.test), max(1, evaluate.rows_at_once(vae, BLOCK) // draws)):
        a, _ = vae.passes(len(block), draws)
        run.test.gather(a, block, vae.engine.kernels, rng)
        evaluate.draw_noise(a, rng, vae.engine.kernels)
        vae.engine.forward(a, objective.kl_estimator)
        loss, _, _ = objective(a.nll, a.log_ratio if objective.kl_estimator.is_sampled else a.kl, run.step)
        if not (math.isfinite(loss) and math.isfinite(vae.parameters.norm())):
            raise _nonfinite_error(run, loss, _first_nonfinite(vae, a), "on the test set, ")
        mu[block] = a.mu[:len(block)]
        for name, value in (("loss", loss * len(block)), ("nll", a.nll.sum() / draws),
                            ("kl", _kl_sum(a, objective.kl_estimator))):
            total[name] += float(value)
    return {**{f"test_{name}": value / len(run.test) for name, value in total.items()},
            "active_units": evaluate.count_active(mu)}


def _blocks(rows: int, size: int) -> Iterator[Array]:
    for start in range(0, rows, size):
        yield np.arange(start, min(start + size, rows))


def _check_interrupt(run: Run, callbacks: Sequence[Callback]) -> None:
    if run.interrupted:
        for callback in callbacks:
            callback.on_interrupt(run)
        raise KeyboardInterrupt


@contextmanager
def _ctrl_c_ends_the_step(run: Run) -> Iterator[None]:
    """Ctrl-C lets the current step end, a second one stops at once.  In another thread than the main one, which alone
    may handle signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: FrameType | None) -> None:
        run.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
