"""The state of a training run, and how it is saved and resumed exactly.  Read after `rows.py`."""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import checkpoint
from ..buffers import Activations
from ..model.vae import VAE
from ..objectives import Objective
from ..optim import Adam
from ..params import Array
from ..validate import NonFiniteError, integer, real, shown
from .rows import _BINARIZE, _NOISE, Rows, stream

Metrics = dict[str, float]


@dataclass
class Run:
    """The state of a training run, as callbacks see it."""

    vae: VAE
    optimizer: Adam
    objective: Objective
    train: Rows
    test: Rows | None      # None: training alone
    settings: dict[str, Any]      # must be the same when the run is resumed
    epochs: int
    first_epoch: int = 0      # epochs that earlier calls of `fit` have trained; not in `history`
    epoch: int = 0      # epochs completed
    batch: int = 0      # batches completed in the current epoch
    history: list[Metrics] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=lambda: {"images": 0, "loss": 0, "nll": 0, "kl": 0, "seconds": 0})
    stop: bool = False      # set by a callback: no further epoch
    interrupted: bool = False      # set by Ctrl-C: no further step

    @property
    def batches(self) -> int:
        """Batches per epoch; the last may be smaller."""
        size: int = self.settings["batch_size"]
        return -(-len(self.train) // size)

    @property
    def step(self) -> int:
        """Steps taken since the beginning."""
        return self.epoch * self.batches + self.batch

    def begin_epoch(self) -> None:
        """Seed the random streams and reset the sums."""
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
        """Continue from a checkpoint.  Raises CheckpointError, which names what differs, before anything is changed."""
        m, v = self.optimizer.prepare(self.vae.parameters)
        needed = m.flat.shape, m.flat.dtype.name

        def check(manifest: dict[str, Any], headers: checkpoint.Headers) -> None:
            state = saved_state(path, manifest, self.test is not None)
            ours = {**self.vae.config(), **self.settings}
            older = {"shuffle": True, **{name: ours[name] for name in ("objective", "optimizer")}}      # lack these
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


#: the metrics of an epoch that are used when a checkpoint is read
_READ_BACK = ("epoch", "step", "train_loss")
_OF_TEST = ("test_loss", "test_nll", "test_kl", "active_units")


def saved_state(path: str | Path, manifest: dict[str, Any], tested: bool = True) -> dict[str, Any]:
    """The entry "training" of a run's manifest, checked in every part, as is "settings"; `tested` says that the run had
    a test set.  Raises CheckpointError."""
    if "training" not in manifest:
        raise checkpoint.CheckpointError(f"{path}: holds a model but no training run to resume")
    try:
        state: dict[str, Any] = manifest["training"]
        settings = manifest["settings"]
        for counts, name, least in ((state, "epoch", 0), (state, "batch", 0), (state, "t", 0), (settings, "images", 1)):
            if integer(name, counts[name], least) >= 2 ** 63:
                raise ValueError(f"{name} must be below 2^63, got {counts[name]}")
        history, count = state["history"], state["epoch"] - integer("first_epoch", state.get("first_epoch", 0), 0)
        if not isinstance(history, list) or len(history) != count:
            raise ValueError(f"history must be the metrics of {count} epochs, got {shown(history)}")
        for metrics in history:
            for name in _READ_BACK + _OF_TEST * tested:
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


def _nonfinite_error(run: Run, loss: float, tensor: str | None, where: str = "") -> NonFiniteError:
    """`tensor` holds NaN or infinity; None where only a sum of squares overflowed."""
    if tensor is None and math.isfinite(loss):
        return NonFiniteError(f"step {run.step}: {where}the squares of gradient or parameters are too large for "
                              f"{run.vae.dtype}; the loss is {loss}; Adam(max_norm=...) scales gradients down")
    return NonFiniteError(f"step {run.step}: {where}{tensor or 'the loss'} holds NaN or infinity; the loss is {loss}")


def _first_nonfinite(vae: VAE, a: Activations | None = None) -> str | None:
    """The first tensor, in forward order, that holds NaN or infinity."""
    tensors: list[tuple[str, Array]] = [(f"parameter {name}", value) for name, value in vae.parameters.items()]
    if a is not None:
        tensors += [("x", a.filled), *((f"activation encoder.{i}", h) for i, h in enumerate(a.encoder[1:])),
                    ("activation mu", a.mu), ("activation logvar", a.logvar), ("activation z", a.z),
                    *((f"activation decoder.{i}", h) for i, h in enumerate(a.decoder[1:])),
                    ("activation output", a.rows), ("nll", a.nll), ("kl", a.kl), ("log q - log p", a.log_ratio)]
    tensors += [(f"gradient of {name}", value) for name, value in vae.gradients.items()]
    return next((name for name, value in tensors if not np.isfinite(value).all()), None)
