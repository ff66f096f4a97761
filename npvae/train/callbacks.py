"""Callbacks: code that `fit` calls during training, such as checkpoints.  Not part of the lesson; read `run.py` first.

A callback is given the `Run`, and may set `run.stop` to make this epoch the last.  To write one, subclass `Callback`
and override the methods that you need; `EarlyStopping` is an example.
"""
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from ..system.files import write_atomically
from ..system.terminal import for_bars, in_notebook
from ..validate import integer
from .run import Run

if TYPE_CHECKING:
    from tqdm import tqdm


class Callback:
    """The base class.  Its methods do nothing."""

    def on_start(self, run: Run) -> None:
        """Before the first step, when a resumed run has been restored."""

    def on_step(self, run: Run) -> None:
        """After each step."""

    def on_epoch(self, run: Run) -> None:
        """After each epoch.  Its metrics are run.history[-1]."""

    def on_interrupt(self, run: Run) -> None:
        """After Ctrl-C, when the current step has ended."""

    def on_end(self, run: Run) -> None:
        """At the end, also after an error."""


#: the methods that `fit` calls
HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class EarlyStopping(Callback):
    """Stops training when the test loss, without a test set the training loss, has reached no new minimum for
    `patience` epochs."""

    def __init__(self, patience: int = 10) -> None:
        self.patience = integer("patience", patience, 1)

    def on_start(self, run: Run) -> None:
        if run.history:
            self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        losses = [metrics.get("test_loss", metrics["train_loss"]) for metrics in run.history]
        run.stop = len(losses) - 1 - losses.index(min(losses)) >= self.patience


class Checkpoint(Callback):
    """Saves the run after each epoch and at Ctrl-C, in one file that is replaced atomically."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_epoch(self, run: Run) -> None:
        run.save(self.path)

    def on_interrupt(self, run: Run) -> None:
        run.save(self.path)


class MetricsLog(Callback):
    """Writes the metrics, one JSON object per epoch and line.  The whole file is replaced each time, so a resumed run
    never repeats a line."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_start(self, run: Run) -> None:
        self.on_epoch(run)

    def on_epoch(self, run: Run) -> None:
        write_atomically(self.path, "".join(json.dumps(metrics) + "\n" for metrics in run.history).encode())


class Progress(Callback):
    """Prints a line per epoch and, on a terminal or in a notebook, a progress bar with the loss, its two terms, speed
    and time left.  `file` is stderr unless given; in a notebook stdout.  Training goes on if the file cannot be
    written."""

    def __init__(self, file: TextIO | None = None) -> None:
        self.notebook = file is None and in_notebook()
        self.file = for_bars(file if file is not None else sys.stdout if self.notebook else sys.stderr)
        self.bar: "tqdm | None" = None

    def on_step(self, run: Run) -> None:
        if not (self.notebook or self.file.isatty()):
            return
        size = min(run.settings["batch_size"], len(run.train) - (run.batch - 1) * run.settings["batch_size"])
        if self.bar is None:
            remaining = len(run.train) * (run.epochs - run.epoch)
            make = _bar_type(self.notebook)
            self.bar = make(total=remaining, unit="img", unit_scale=True, file=self.file, leave=False,
                            dynamic_ncols=True, initial=int(run.sums["images"]) - size)
        if self.bar.update(size):
            images = run.sums["images"]
            self.bar.set_description(f"epoch {run.epoch + 1}/{run.epochs}", refresh=False)
            self.bar.set_postfix_str(f"loss {run.sums['loss'] / images:.2f} (nll {run.sums['nll'] / images:.2f}, "
                                     f"kl {run.sums['kl'] / images:.2f})", refresh=False)

    def on_epoch(self, run: Run) -> None:
        m = run.history[-1]
        of_test = (f"  test {m['test_loss']:7.2f} (nll {m['test_nll']:6.2f}, kl {m['test_kl']:5.2f})  active "
                   f"{m['active_units']:2.0f}" if "test_loss" in m else "")
        line = (f"epoch {m['epoch']:3.0f}/{run.epochs}  train {m['train_loss']:7.2f}{of_test}  "
                f"{m['images_per_second']:8,.0f} img/s  {m['seconds']:5.1f} s")
        if self.bar is not None:
            self.bar.write(line, file=self.file)
        else:
            print(line, file=self.file, flush=True)

    def on_end(self, run: Run) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _bar_type(notebook: bool) -> "Callable[..., tqdm]":
    """tqdm's bar, imported when it is needed, since it would slow down `import npvae`.  A notebook without ipywidgets
    gets the one of text, and no warning."""
    if notebook and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm_notebook
        return cast("Callable[..., tqdm]", tqdm_notebook)
    import tqdm as bars
    return cast("Callable[..., tqdm]", bars.tqdm)
