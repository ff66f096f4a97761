"""fit: shuffled batches, one Adam step each, an evaluation per epoch.  Read after `optim.py`.

Everything random comes from `seed`, in separate streams: the order of the rows, the noise eps, the dynamic
binarization, the evaluation.  A stream starts anew at every epoch, so a run that was stopped and resumed goes on bit
for bit as if it had not been.
"""
import json
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import checkpoint, data, evaluate, support
from .callbacks import Callback
from .model import VAE
from .objectives import ELBO, Objective
from .optim import Adam
from .params import Array
from .validate import NonFiniteError, boolean, choice, described, integer, real, shown

_SHUFFLE, _NOISE, _BINARIZE, BINARIZE_ONCE, _EVALUATE, _SIGMA = range(6)      # the random streams
_BLOCK = 500      # decoder rows (test images times draws) at a time

Metrics = dict[str, float]


def stream(seed: int, purpose: int, epoch: int) -> np.random.Generator:
    """The generator for one purpose in one epoch, independent of all others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, epoch)))


class Rows:
    """A data set (N, D), not copied where that can be helped: batches are gathered by index, as scale * row.  Raises
    ValueError or TypeError for a wrong shape, type, or pixels that the model cannot take (`support.py`)."""

    def __init__(self, name: str, x: Array, vae: VAE, binarize: str, seed: int, purpose: int,
                 labels: Array | None = None) -> None:
        choice("binarize", binarize, data.BINARIZATIONS)
        self.dtype, self.of_bytes = vae.dtype, getattr(x, "dtype", None) == np.uint8
        self.dynamic = binarize == "dynamic"
        x, self.scale = support.read(x, name, vae.input_dim, vae.likelihood, vae.dtype, binarized=binarize != "none")
        self.array = np.ascontiguousarray(data.binarize(x, binarize, stream(seed, purpose, 0)))
        if not self.dynamic:
            vae.output.check(self.array, name, white=round(1 / self.scale))
        self.labels = (vae.check_labels(labels, len(x), name.replace("x_", "labels_"))
                       if vae.classes or labels is not None else None)
        self._noise: dict[tuple[int, ...], Array] = {}

    def __len__(self) -> int:
        return len(self.array)

    def floats(self) -> Array:
        """All rows (N, D), as the model sees them."""
        return support.floats(self.array, self.scale, self.dtype)

    def checksums(self) -> dict[str, int]:
        """Of what a resumed run must find again."""
        labels = {} if self.labels is None else {"labels_crc32": zlib.crc32(self.labels.data)}
        return {"data_crc32": zlib.crc32(self.array.data), **labels}

    def gather(self, a: SimpleNamespace, index: Array, kernels: Any, rng: np.random.Generator) -> None:
        """a.x (B, D) = the rows of `index` (B,), binarized anew if the binarization is dynamic."""
        a.index[...] = index
        if self.labels is not None:
            np.take(self.labels, a.index, out=a.labels, mode="clip")      # which needs no temporary, unlike "raise"
        if not self.dynamic:
            kernels.gather_rows(a.x, self.array, a.index, self.scale)
            return
        if a.x.shape not in self._noise:
            self._noise[a.x.shape] = np.empty(a.x.shape, np.float32)
        noise = self._noise[a.x.shape]
        rng.random(out=noise, dtype=np.float32)
        kernels.gather_binarized(a.x, self.array, a.index, noise, self.scale)


@dataclass
class Run:
    """The state of a training run, as callbacks see it."""

    vae: VAE
    optimizer: Adam
    objective: Objective
    train: Rows
    test: Rows
    settings: dict[str, Any]      # all that a resumed run must share
    epochs: int
    first_epoch: int = 0      # epochs that other calls of `fit` have done, and that `history` does not tell of
    epoch: int = 0      # epochs completed
    batch: int = 0      # batches done in the epoch under way
    history: list[Metrics] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=lambda: {"images": 0, "loss": 0, "nll": 0, "kl": 0, "seconds": 0})
    stop: bool = False      # set by a callback: no further epoch
    interrupted: bool = False      # set by Ctrl-C: no further step

    @property
    def batches(self) -> int:
        """Batches per epoch; the last may be smaller."""
        return -(-len(self.train) // self.settings["batch_size"])

    @property
    def step(self) -> int:
        """Steps taken since the beginning."""
        return self.epoch * self.batches + self.batch

    def begin_epoch(self) -> None:
        """Fresh streams and sums."""
        seed = self.settings["seed"]
        self.noise, self.draws = stream(seed, _NOISE, self.epoch), stream(seed, _BINARIZE, self.epoch)
        self.batch, self.sums = 0, dict.fromkeys(self.sums, 0.0)

    def save(self, path: str | Path) -> None:
        """Write all that an exact resume needs.  Raises OSError, and NonFiniteError before touching the file."""
        m, v = self.optimizer.prepare(self.vae.parameters)
        arrays = {"parameters": self.vae.parameters.flat, "m": m.flat, "v": v.flat}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise NonFiniteError(f"step {self.step}: {_first_nonfinite(self.vae) or name} holds NaN or infinity")
        state = {"first_epoch": self.first_epoch, "epoch": self.epoch, "batch": self.batch, "t": self.optimizer.t,
                 "history": self.history, "sums": self.sums, "noise": self.noise.bit_generator.state,
                 "draws": self.draws.bit_generator.state}
        checkpoint.write(path, arrays, {"vae": self.vae.config(), **self.vae.parameters.layout(),
                                        "settings": self.settings, "training": state})

    def restore(self, path: str | Path) -> None:
        """Go on from a checkpoint.  Raises CheckpointError that names what differs, before anything is changed."""
        m, v = self.optimizer.prepare(self.vae.parameters)
        needed = m.flat.shape, m.flat.dtype.name

        def check(manifest: dict[str, Any], headers: checkpoint.Headers) -> None:
            state = saved_state(path, manifest)
            ours = {**self.vae.config(), **self.settings}
            older = {"shuffle": True, **{name: ours[name] for name in ("objective", "optimizer")}}      # do not say it
            theirs = {**older, **manifest["vae"], **manifest["settings"]}
            differing = [f"{name} is {ours.get(name)!r} here and {shown(theirs.get(name))} there"
                         for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
            if differing:
                raise checkpoint.CheckpointError(f"{path}: belongs to a run with other settings: "
                                                 f"{'; '.join(differing)}")
            for name in ("parameters", "m", "v"):
                if headers.get(name) != needed:
                    raise checkpoint.CheckpointError(f"{path}: holds no {name} of {m.flat.dtype} {m.flat.shape}, as "
                                                     "this model needs")
            if state["epoch"] > self.epochs:
                raise checkpoint.CheckpointError(f"{path}: has done {state['epoch']} epochs; epochs must be at least "
                                                 f"that, got {self.epochs}")
            if state["batch"] > self.batches:
                raise checkpoint.CheckpointError(f"{path}: has done {state['batch']} batches of an epoch of "
                                                 f"{self.batches}")

        arrays, manifest = checkpoint.read(path, ("parameters", "m", "v"), check)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise checkpoint.CheckpointError(f"{path}: holds NaN or infinity among its {name}: no run saves any")
        state = manifest["training"]
        self.vae.parameters.flat[...], m.flat[...], v.flat[...] = arrays["parameters"], arrays["m"], arrays["v"]
        self.first_epoch = state.get("first_epoch", 0)
        self.epoch, self.batch, self.optimizer.t = state["epoch"], state["batch"], state["t"]
        self.history, self.sums = state["history"], state["sums"]
        self.noise.bit_generator.state, self.draws.bit_generator.state = state["noise"], state["draws"]


def fit(vae: VAE, x_train: Array, x_test: Array, epochs: int = 10, batch_size: int = 128,
        optimizer: Adam | None = None, objective: Objective = ELBO(), n_samples: int = 1, binarize: str = "none",
        seed: int = 0, callbacks: Sequence[Callback] = (), resume: str | Path | None = None,
        labels_train: Array | None = None, labels_test: Array | None = None, shuffle: bool = True,
        first_epoch: int = 0) -> list[Metrics]:
    """Train `vae` in place; one dict of metrics per epoch is returned.

    Parameters
    ----------
    x_train, x_test : data (N, D), which mean what `npvae.support` says: uint8 is 0 to 255, unless it holds 0 and 1
        alone;  x_train comes in a new order each epoch if `shuffle`
    epochs : in all, those before `first_epoch` and those of the run to `resume` among them
    optimizer : Adam; None makes one with its defaults
    objective : called on each batch; see `npvae.objectives`
    n_samples : K, draws of z per image
    binarize : "none" (pixels as they are), "threshold", "static" (one draw), "dynamic" (a draw at every visit; the test
        set is drawn once)
    callbacks : see `npvae.callbacks`
    resume : a checkpoint of the same run to go on from; what differs is refused: data, model, settings, and objective,
        optimizer and their schedules as far as they say what they were made of (a function does not)
    labels_train, labels_test : integers (N,), for a model with classes
    first_epoch : so many epochs were trained before, by other calls

    A second call begins anew with epoch 0: with the same seed its order, noise and binarization are those of the first
    call bit for bit, and schedules of beta start again; but the parameters go on, and so does an optimizer that is
    given again, its schedule among them.  `first_epoch` goes on with all of it: k epochs, and then

        fit(..., epochs=k + m, optimizer=optimizer, first_epoch=k)

    with the same optimizer and everything else as before are k + m epochs in one call, bit for bit.  Metrics, steps and
    checkpoints are numbered on; the history that is returned begins with epoch k + 1.

    Metrics, in nats per image where it applies: epoch, step, seconds (of the epoch), images_per_second (of training
    alone; 0 where the clock stands still), learning_rate, beta, train_loss (the objective), train_nll, train_kl,
    test_loss (minus the bound, always with beta = 1 and sampled z), test_nll, test_kl, active_units.

    Raises ValueError or TypeError before training for arguments that do not fit, CheckpointError for `resume`,
    NonFiniteError at the step where NaN or infinity appears, KeyboardInterrupt after the step that Ctrl-C ended.
    """
    _check_parts(vae, optimizer, objective, callbacks)
    epochs, seed = integer("epochs", epochs, 1), integer("seed", seed, 0)
    batch_size, n_samples = integer("batch_size", batch_size, 1), integer("n_samples", n_samples, 1)
    first_epoch, shuffle = integer("first_epoch", first_epoch, 0), boolean("shuffle", shuffle)
    _check_way(resume, first_epoch, epochs, optimizer)
    optimizer = Adam() if optimizer is None else optimizer
    choice("the model's dtype", vae.dtype, ("float32", "float64"))
    vae.check_objective(objective)
    train = Rows("x_train", x_train, vae, binarize, seed, BINARIZE_ONCE, labels_train)
    once = "static" if binarize == "dynamic" else binarize
    test = Rows("x_test", x_test, vae, once, seed + 1, BINARIZE_ONCE, labels_test)
    _check_together(train, test)
    vae.latent.check_training("x_train", train.array, train.scale)
    if batch_size > len(train):
        raise ValueError(f"batch_size must be at most the number of training images, {len(train)}, got {batch_size}")
    settings = {"batch_size": batch_size, "n_samples": n_samples, "binarize": binarize, "seed": seed,
                "images": len(train), "shuffle": shuffle, "objective": described(objective),
                "optimizer": described(optimizer), **train.checksums()}
    with vae.owner:
        run = Run(vae, optimizer, objective, train, test, settings, epochs, first_epoch, first_epoch)
        run.begin_epoch()
        run.optimizer.prepare(vae.parameters)
        if resume is not None:
            run.restore(resume)
        _train(run, callbacks)
    return run.history


def _check_parts(vae: Any, optimizer: Any, objective: Any, callbacks: Any) -> None:
    """Refuse a class in place of an object, and whatever else cannot play its part.  Raises TypeError."""
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise TypeError(f"callbacks must be a list of objects such as EarlyStopping(), got {shown(callbacks)}")
    for name, value, method, example in (("vae", vae, "forward_backward", "VAE()"),
                                         ("optimizer", Adam() if optimizer is None else optimizer, "prepare", "Adam()"),
                                         ("objective", objective, "sampled", "ELBO()"),
                                         *(("callbacks", one, "on_start", "EarlyStopping()") for one in callbacks)):
        if isinstance(value, type) or not hasattr(value, method):
            raise TypeError(f"{name} needs objects such as {example}, got {shown(value)}")


def _check_way(resume: Any, first_epoch: int, epochs: int, optimizer: Any) -> None:
    """How to begin: anew, from a checkpoint, or after other calls.  Raises TypeError or ValueError."""
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
    """Bytes and black and white beside each other: one of them is not what it seems.  Raises ValueError."""
    if train.of_bytes and test.of_bytes and train.scale != test.scale and train.array.any() and test.array.any():
        white, other = ("x_train", "x_test") if train.scale == 1 else ("x_test", "x_train")
        raise ValueError(f"{white} must not hold only 0 and 1 where {other} holds other bytes: black and white is not "
                         "0 and 1 of 255; give one of the two as floats")


def _train(run: Run, callbacks: Sequence[Callback]) -> None:
    """The epochs that are left."""
    with _ctrl_c_ends_the_step(run), run.vae.engine.running():
        for callback in callbacks:
            callback.on_start(run)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):      # every step is checked
                while run.epoch < run.epochs and not run.stop:
                    _train_epoch(run, callbacks)
        finally:
            run.vae.engine.forget()
            for callback in callbacks:
                callback.on_end(run)


def _train_epoch(run: Run, callbacks: Sequence[Callback]) -> None:
    """Go on from batch `run.batch` to the end of the epoch, evaluate, report."""
    order = stream(run.settings["seed"], _SHUFFLE, run.epoch).permutation(len(run.train))
    if not run.settings["shuffle"]:
        order.sort()
    size, before, began = run.settings["batch_size"], run.sums["seconds"], time.perf_counter()
    while run.batch < run.batches:
        with run.vae.engine.turn:
            train_step(run, order[run.batch * size:(run.batch + 1) * size])
        run.sums["seconds"] = before + time.perf_counter() - began
        for callback in callbacks:
            callback.on_step(run)
        _check_interrupt(run, callbacks)
    if hasattr(run.vae.likelihood, "after_epoch"):
        run.vae.likelihood.after_epoch(run.vae, run.train, stream(run.settings["seed"], _SIGMA, run.epoch))
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
    """Gather, draw, forward, backward, update.  Once the buffers are made, nothing is allocated."""
    vae, draws = run.vae, run.settings["n_samples"]
    a, d = vae.passes(len(index), draws)
    run.train.gather(a, index, vae.engine.kernels, run.draws)
    evaluate.draw_noise(a, run.noise, vae.engine.kernels)
    try:
        loss = vae.forward_backward(a, d, run.objective, run.step)
    except NonFiniteError as error:      # of a likelihood, which does not know the step
        raise NonFiniteError(f"step {run.step}: {error}") from None
    if not (math.isfinite(loss) and vae.engine.all_finite()):
        tensor = _first_nonfinite(vae, a)
        if tensor or not math.isfinite(loss) or run.optimizer.max_norm is None:      # clipping makes squares small
            raise _nonfinite_error(run, loss, tensor)
    run.optimizer.step(vae.parameters, vae.gradients, vae.engine.kernels)
    run.batch += 1
    for name, value in (("images", len(index)), ("loss", loss * len(index)), ("nll", a.nll.sum() / draws),
                        ("kl", _kl_sum(a, run.objective.sampled))):
        run.sums[name] += float(value)


def _kl_sum(a: SimpleNamespace, sampled: bool | str) -> float:
    """The KL term, averaged over draws, summed over the batch."""
    return a.log_ratio.sum() / a.log_ratio.shape[1] if sampled else a.kl.sum()


def _evaluate(run: Run) -> Metrics:
    """The bound on the test set, with beta = 1 and sampled z, and how many latent dimensions are in use."""
    vae, objective, draws = run.vae, run.objective.bound(), run.settings["n_samples"]
    rng = stream(run.settings["seed"], _EVALUATE, 0)
    total = {"loss": 0.0, "nll": 0.0, "kl": 0.0}
    mu = np.empty((len(run.test), vae.latent_dim))
    for block in _blocks(len(run.test), max(1, evaluate.rows_at_once(vae, _BLOCK) // draws)):
        a, _ = vae.passes(len(block), draws)
        run.test.gather(a, block, vae.engine.kernels, rng)
        evaluate.draw_noise(a, rng, vae.engine.kernels)
        vae.engine.forward(a, objective.sampled)
        loss, _, _ = objective(a.nll, a.log_ratio if objective.sampled else a.kl, run.step)
        if not (math.isfinite(loss) and math.isfinite(vae.parameters.norm())):
            raise _nonfinite_error(run, loss, _first_nonfinite(vae, a), "on the test set, ")
        mu[block] = a.mu[:len(block)]
        for name, value in (("loss", loss * len(block)), ("nll", a.nll.sum() / draws),
                            ("kl", _kl_sum(a, objective.sampled))):
            total[name] += float(value)
    return {**{f"test_{name}": value / len(run.test) for name, value in total.items()},
            "active_units": evaluate.count_active(mu)}


def _blocks(rows: int, size: int) -> Iterator[Array]:
    for start in range(0, rows, size):
        yield np.arange(start, min(start + size, rows))


def _nonfinite_error(run: Run, loss: float, tensor: str | None, where: str = "") -> NonFiniteError:
    if tensor is None and math.isfinite(loss):
        return NonFiniteError(f"step {run.step}: {where}the squares of gradient or parameters are too large for "
                              f"{run.vae.dtype}; the loss is {loss}; Adam(max_norm=...) scales gradients down")
    return NonFiniteError(f"step {run.step}: {where}{tensor or 'the loss'} holds NaN or infinity; the loss is {loss}")


def _first_nonfinite(vae: VAE, a: SimpleNamespace | None = None) -> str | None:
    """The first tensor, in forward order, that holds NaN or infinity."""
    tensors: list[tuple[str, Array]] = [(f"parameter {name}", value) for name, value in vae.parameters.items()]
    if a is not None:
        tensors += [("x", a.x), *((f"activation encoder.{i}", h) for i, h in enumerate(a.encoder[1:])),
                    ("activation mu", a.mu), ("activation logvar", a.logvar), ("activation z", a.z),
                    *((f"activation decoder.{i}", h) for i, h in enumerate(a.decoder[1:])),
                    ("activation output", a.rows), ("nll", a.nll), ("kl", a.kl), ("log q - log p", a.log_ratio)]
    tensors += [(f"gradient of {name}", value) for name, value in vae.gradients.items()]
    return next((name for name, value in tensors if not np.isfinite(value).all()), None)


def _check_interrupt(run: Run, callbacks: Sequence[Callback]) -> None:
    if run.interrupted:
        for callback in callbacks:
            callback.on_interrupt(run)
        raise KeyboardInterrupt


@contextmanager
def _ctrl_c_ends_the_step(run: Run) -> Iterator[None]:
    """Ctrl-C lets the step under way end; a second one stops at once.  Only the main thread can do this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: Any) -> None:
        run.interrupted = True
        signal.signal(signal.SIGINT, before)

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


#: what is read back of each epoch's metrics
_READ_BACK = ("epoch", "step", "train_loss", "test_loss", "test_nll", "test_kl", "active_units")


def saved_state(path: str | Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The "training" of a run's checkpoint, every part of it and of "settings" looked at.  Raises CheckpointError."""
    if "training" not in manifest:
        raise checkpoint.CheckpointError(f"{path}: holds a model but no training run to resume")
    try:
        state, settings = manifest["training"], manifest["settings"]
        for counts, name, least in ((state, "epoch", 0), (state, "batch", 0), (state, "t", 0), (settings, "images", 1)):
            if integer(name, counts[name], least) >= 2 ** 63:
                raise ValueError(f"{name} must be below 2^63, got {counts[name]}")
        history, count = state["history"], state["epoch"] - integer("first_epoch", state.get("first_epoch", 0), 0)
        if not isinstance(history, list) or len(history) != count:
            raise ValueError(f"history must be the metrics of {count} epochs, got {shown(history)}")
        for metrics in history:
            for name in _READ_BACK:
                real(name, metrics[name], -math.inf)
        for name in ("images", "loss", "nll", "kl", "seconds"):
            real(name, state["sums"][name], -math.inf)
        for name in ("noise", "draws"):
            generator = np.random.PCG64()
            generator.state = state[name]
            same = json.dumps(generator.state, sort_keys=True) == json.dumps(state[name], sort_keys=True)
            if not same or state[name]["has_uint32"] not in (0, 1):
                raise ValueError(f"{name} must be the state of a generator, got {shown(state[name])}")
        manifest["vae"].items(), settings.items()
    except KeyError as error:
        raise checkpoint.CheckpointError(f"{path}: is not the checkpoint of a run of this npvae: {error} is missing"
                                         ) from None
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path}: is not the checkpoint of a run of this npvae: {error}") from None
    return state
