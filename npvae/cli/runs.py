"""A training run and the folder it leaves: made by `train`, opened again by `open_run`.  Beside the lesson.

    data -> model -> objective, optimizer -> fit -> pictures, report.html, numbers

`npvae train` is this one function; every other command of `npvae` starts at `open_run`.  A training loop of one's own,
as in `examples/train_mnist.py`, leaves the same files by `Results`, in `own_folder`.
"""
import argparse
import contextlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from .. import data
from ..checkpoint import CheckpointError
from . import command_line, options
from ..data.labels import Class, class_codes, find_classes
from ..model.vae import VAE, load_with_manifest
from ..objectives import Objective
from ..optim import Adam
from ..pages.report import REPORT, write_report
from ..params import Array
from ..plotting.pictures import PICTURES, save_pictures
from ..system.files import InUseError, claimed, sync_folder, write_atomically
from ..system.terminal import plain
from ..train.callbacks import Callback, Checkpoint, MetricsLog, Progress
from ..train.loop import fit, new_run
from ..train.rows import BINARIZE_ONCE, Rows
from ..train.run import Metrics, Run, saved_state
from ..validate import NonFiniteError, shown
from .command_line import CHECKPOINT, CONFIG, METRICS, UsageError

EXPLORER = "explore.html"
FEW_STEPS = 1000      # with fewer, pictures tend to be grey mush
#: the files of a run, and what each is
FILES = {CONFIG: "settings, size of an image, versions", METRICS: "the numbers of each epoch, one JSON object a line",
         CHECKPOINT: "the model, and what an exact resume needs",
         REPORT: "settings, numbers, curves and pictures on one page", EXPLORER: "the decoder in a web page",
         **dict.fromkeys(PICTURES, "a picture that training left"),
         **dict.fromkeys(("sample.png", "reconstruct.png", "interpolate.png", "traverse.png"),
                         "a picture made by the command of that name")}


# ---- Made

def train(args: argparse.Namespace) -> None:
    """A whole run, as the flags say; what it prints goes to stdout, its progress to stderr.

    The folder is this run's alone until it ends.  Raises what `fit` raises, KeyboardInterrupt that says how to go on,
    and UsageError where another run has the folder.
    """
    with own_folder(args):
        _train(args)


@contextlib.contextmanager
def own_folder(args: argparse.Namespace) -> Iterator[None]:
    """Within this context the folder --out is this run's alone, and what goes wrong is said of its flags and files.
    Raises what `train` does."""
    _check_places(args)
    try:
        with contextlib.ExitStack() as held, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            _claim(args.out, held)
            options.check_folder(args)      # again: another run may have ended there since
            yield
    except KeyboardInterrupt:
        begun = (args.out / CONFIG).exists()
        raise KeyboardInterrupt(f"stopped; go on with:  {options.resume_command(args)}" if begun else "stopped"
                                ) from None
    except NonFiniteError as error:
        kept = "; a checkpoint from before is kept" * (args.out / CHECKPOINT).exists()
        raise NonFiniteError(f"{error}{kept}") from None
    except (UsageError, CheckpointError, data.DataError):
        raise
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        source = args.out / CONFIG if args.resume else args.data_dir
        if isinstance(error, MemoryError):
            raise MemoryError(f"{source}: there is not memory enough to train so: {error}") from None
        raise UsageError(f"{source}: {error}" if args.resume else str(error)) from None


def _claim(out: Path, held: contextlib.ExitStack) -> None:
    try:
        held.enter_context(claimed(out))
    except InUseError:
        raise UsageError(f"--out {out} is in use by another run: wait for its end, or choose another folder") from None
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None


def _train(args: argparse.Namespace) -> None:
    # 1. Data: one image per row, bytes from 0 to 255 or numbers.
    images = load_images(args, args.quiet)
    x_train, x_test = images.train_images, images.test_images
    classes = find_classes(images, args.data_dir) if args.conditional else []
    y_train, y_test = (class_codes(y, classes, args.data_dir) for y in (images.train_labels, images.test_labels))

    # 2. The model, what it minimises, and how.
    vae = VAE(x_train.shape[1], args.hidden, args.latent, args.activation, args.likelihood, args.dtype, args.kernels,
              args.seed, prior=args.prior, posterior=args.posterior, decoder=args.decoder, classes=len(classes))
    vae.threads = args.threads
    objective = options.make_objective(args, len(x_train))
    optimizer = options.make_optimizer(args, len(x_train))
    batch_size = min(args.batch_size, len(x_train))

    # 3. Training, with a checkpoint after every epoch.
    callbacks: list[Callback] = [RunFolder(args, images, classes), Checkpoint(args.out / CHECKPOINT),
                                 MetricsLog(args.out / METRICS)]
    if not args.quiet:
        callbacks.append(Progress())
    with threadpool_limits(args.threads, user_api="blas"):
        try:
            history = fit(vae, x_train, x_test, args.epochs, batch_size, optimizer, objective, args.k, args.binarize,
                          args.seed, callbacks, _checkpoint_to_resume(args), y_train, y_test)
        except (ValueError, TypeError) as error:
            raise _of_file(args.data_dir, error) from None

        # 4. Pictures and numbers, of test images binarized as in training.
        _finish(args, images, vae, test_images(vae, images, args, y_test), history, classes)


def _finish(args: argparse.Namespace, images: data.ImageData, vae: VAE, x_test: Array, history: list[Metrics],
            classes: Sequence[Class] = ()) -> None:
    """What a run leaves at its end, besides the checkpoint; x_test (M, D) as the model sees it."""
    pictures = save_pictures(vae, x_test, images.test_labels, images.image_shape, history, args.out,
                             np.random.default_rng(args.seed), images.ink, classes)
    page = write_report(args.out)
    if not args.quiet:
        with contextlib.suppress(OSError):      # the run is complete, whether anybody can be told or not
            _print_result(args, len(images.train_images), history[-1], pictures, page)


def _of_file(source: str, error: Exception) -> Exception:
    """What `fit` says of an array, said of the file that it came from."""
    name, _, rest = str(error).partition(" ")
    part = {"x_train": "the training images", "x_test": "the test images"}.get(name)
    return data.DataError(f"{source}: {part} {rest}") if part else error


def _check_places(args: argparse.Namespace) -> None:
    """Raises UsageError where results would lie among the pictures of a folder, and be taken for pictures the next
    time, and where a folder has the name of a file to write."""
    pictures, out = (Path(os.path.realpath(path)) for path in (args.data_dir, args.out))
    if pictures.is_dir() and pictures in (out, *out.parents) and not data.holds_idx(pictures):
        raise UsageError(f"--out {args.out} lies in --data-dir {args.data_dir}, among the pictures; choose a folder "
                         "outside of it")
    for name in FILES:
        if (args.out / name).is_dir():
            raise UsageError(f"--out {args.out} holds a folder {name}, where a run has a file of that name; choose "
                             "another folder")


class RunFolder(Callback):
    """Writes config.json into the output folder when training starts: all input has been checked by then, and
    nothing has been computed.  A run that is replaced loses its numbers, pictures and checkpoint here."""

    def __init__(self, args: argparse.Namespace, images: data.ImageData, classes: Sequence[Class] = ()) -> None:
        self.args, self.more = args, {"image_shape": images.image_shape, "ink": images.ink,
                                      **({"classes": list(classes)} if classes else {})}

    def on_start(self, run: Run) -> None:
        """Raises UsageError where the folder cannot be written."""
        versions = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.platform()}
        config = {"settings": options.settings(self.args), **self.more, "versions": versions}
        out = self.args.out
        try:
            if self.args.overwrite:      # config.json first, durably: what is then left is no run that --resume takes
                (out / CONFIG).unlink(missing_ok=True)
                sync_folder(out)
                for name in FILES:
                    (out / name).unlink(missing_ok=True)
                sync_folder(out)
            write_atomically(out / CONFIG, json.dumps(config, indent=1).encode())
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None


class Results:
    """What a training loop of one's own leaves in --out: the files that `npvae train` leaves, for all that reads them,
    and `npvae train --resume` among it.  Made of the flags (`options.parse_few`), the data, and what is trained.

    x_train, x_test : images (N, D) and (M, D) as the model sees them, in floats, all of them checked
    history : a row of numbers for each epoch, to be appended to; the docstring of `fit` says which

    Raises DataError for images that the model cannot take, UsageError where the folder cannot be written.
    """

    def __init__(self, args: argparse.Namespace, images: data.ImageData, vae: VAE, objective: Objective,
                 optimizer: Adam) -> None:
        self.args, self.images = args, images
        try:
            self._run = new_run(vae, images.train_images, images.test_images, args.epochs,
                                min(args.batch_size, len(images.train_images)), optimizer, objective, seed=args.seed)
        except (ValueError, TypeError) as error:
            raise _of_file(args.data_dir, error) from None
        self.x_train, self.x_test, self.history = self._run.train.floats(), self._run.test.floats(), self._run.history
        self._files: list[Callback] = [RunFolder(args, images), Checkpoint(args.out / CHECKPOINT),
                                       MetricsLog(args.out / METRICS)]
        for file in self._files:
            file.on_start(self._run)

    def save(self) -> None:
        """Write numbers and checkpoint, after an epoch or at Ctrl-C: what was trained in an epoch that has not ended
        stays in the parameters.  Raises OSError, NonFiniteError."""
        self._run.epoch = len(self.history)
        self._run.begin_epoch()
        for file in self._files:
            file.on_epoch(self._run)

    def finish(self) -> None:
        """Write pictures and report.html, and print what has come out."""
        _finish(self.args, self.images, self._run.vae, self.x_test, self.history)


def _checkpoint_to_resume(args: argparse.Namespace) -> Path | None:
    """The checkpoint that --resume goes on from; None without --resume, or, which is said, if the run had not saved
    one yet.  Raises UsageError where there must have been one."""
    path, metrics = args.out / CHECKPOINT, args.out / METRICS
    if not args.resume or path.exists():
        return path if args.resume else None
    if metrics.exists() and metrics.stat().st_size:
        raise UsageError(f"--resume: {args.out} holds {METRICS} of epochs that are done, but no {CHECKPOINT} to go on "
                         "from; put it back, or begin anew by --overwrite")
    if not args.quiet:
        print(f"{plain(str(args.out))} holds no {CHECKPOINT} yet: the run begins anew", file=sys.stderr)
    return None


def _print_result(args: argparse.Namespace, images: int, last: dict[str, float], pictures: list[Path],
                  page: Path) -> None:
    """The final numbers, what to expect for comparison, and where the pictures are."""
    print(f"\ntest set after epoch {last['epoch']}, sampled z, nats per image:  loss {last['test_loss']:.2f} "
          f"(reconstruction {last['test_nll']:.2f}, KL {last['test_kl']:.2f});  "
          f"{last['active_units']} of {args.latent} latent dimensions in use")
    if args.data_dir == "mnist" and args.likelihood == "bernoulli" and args.binarize == "none" and not args.conditional:
        print("(grey pixels as targets: a cross-entropy, no likelihood)\nto compare, after 10 epochs, seeds 0 to 2: "
              "110.4 to 110.7 with the defaults, 105.5 to 105.7 with --hidden 400 (pytorch/examples: 105.6)")
    if last["step"] < FEW_STEPS:
        print(_more_steps(args, images, int(last["step"])))
    print("pictures:", *(plain(str(picture)) for picture in pictures), sep="\n  ")
    print(f"all on one page: {plain(str(page))}")


def _more_steps(args: argparse.Namespace, images: int, steps: int) -> str:
    """What to say of a run of few steps: the flags to try, with an example that makes FEW_STEPS of it."""
    few_batches = images < 10 * args.batch_size
    size = min(16, args.batch_size) if few_batches else args.batch_size
    epochs = math.ceil(FEW_STEPS / math.ceil(images / size) / 10) * 10
    what, flags = "more --epochs", f"--epochs {epochs}"
    if size < args.batch_size:
        what, flags = f"{what}, or a smaller --batch-size", f"--batch-size {size} {flags}"
    return f"(trained for only {steps} step{'s' * (steps != 1)}: for better pictures try {what}, such as {flags})"


# ---- Opened again

@dataclass(frozen=True)
class SavedRun:
    """A run in its folder: `args` are its settings as `options.parse` gives them; `last`, metrics of the last epoch,
    is empty before the first has ended; `classes` are the labels that the model knows, if it is conditional."""

    folder: Path
    args: argparse.Namespace
    image_shape: tuple[int, int]
    ink: bool
    versions: dict[str, Any]
    vae: VAE
    training_images: int
    epochs: int
    last: dict[str, Any]
    classes: list[Class]


def open_run(folder: Path, threads: int = 1) -> SavedRun:
    """The run that `train` made, finished or not.  Raises UsageError or CheckpointError in one line."""
    config = options.read_config(folder)
    height, width, ink, versions, classes = _checked(folder / CONFIG, config)
    args = argparse.Namespace(**{**config["settings"], "hidden": tuple(config["settings"]["hidden"])})
    path = folder / CHECKPOINT
    if not path.exists():
        raise UsageError(f"{folder} holds no {CHECKPOINT}: its training has not saved a model yet")
    vae, manifest = load_with_manifest(path, args.kernels)
    if not np.isfinite(vae.parameters.flat).all():
        raise CheckpointError(f"{path}: holds NaN or infinity among its parameters: a model of no use")
    vae.threads = threads
    state = saved_state(path, manifest)
    if height * width != vae.input_dim:
        raise UsageError(f"{folder}: {CONFIG} has images of {height} x {width}, {CHECKPOINT} a model of "
                         f"{vae.input_dim} pixels")
    if len(classes) != vae.classes:
        raise UsageError(f"{folder}: {CONFIG} has {len(classes)} classes, {CHECKPOINT} a model of {vae.classes}")
    return SavedRun(folder, args, (height, width), ink, versions, vae, manifest["settings"]["images"], state["epoch"],
                    state["history"][-1] if state["history"] else {}, classes)


def _checked(path: Path, config: dict[str, Any]) -> tuple[int, int, bool, dict[str, str], list[Class]]:
    """What config.json says besides the settings: height, width, ink, versions, classes.  Raises UsageError."""
    shape, versions, classes = (config.get(name) for name in ("image_shape", "versions", "classes"))
    ink = config.get("ink", True)      # a run made before photographs were shown as they are
    classes = [] if classes is None else classes
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and side > 0 for side in shape)):
        wrong = f"image_shape must be two positive whole numbers, got {shown(shape)}"
    elif not isinstance(ink, bool):
        wrong = f"ink must be true or false, got {shown(ink)}"
    elif not (isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())):
        wrong = f"versions must be names with a text each, got {shown(versions)}"
    elif not (isinstance(classes, list) and all(type(one) in (int, str) for one in classes)
              and len({str(one) for one in classes}) == len(classes)):
        wrong = f"classes must be whole numbers or texts, each once, got {shown(classes)}"
    else:
        return shape[0], shape[1], ink, versions, classes
    raise UsageError(f"{path} is not the {CONFIG} of a run: {wrong}")


def load_images(args: argparse.Namespace, quiet: bool = False) -> data.ImageData:
    """The data that the settings name, cut to the first `limit` images."""
    def counted(paths: Sequence[Path]) -> Iterable[Path]:
        return paths if quiet else command_line.progress(paths, "pictures")

    return data.load(args.data_dir, counted, args.limit)


def test_images(vae: VAE, images: data.ImageData, args: argparse.Namespace, labels: Array | None = None) -> Array:
    """The test set (M, D), float, binarized by the very draw that `fit` evaluates on; labels (M,) as the model takes
    them.  Raises UsageError or DataError for images that do not fit the model."""
    if images.test_images.shape[1] != vae.input_dim:
        raise UsageError(f"{args.data_dir}: holds {images.test_images.shape[1]} pixels an image; the model takes "
                         f"{vae.input_dim}")
    binarize = "static" if args.binarize == "dynamic" else args.binarize
    try:
        return Rows(f"{args.data_dir}: the test set", images.test_images, vae, binarize, args.seed + 1, BINARIZE_ONCE,
                    labels).floats()
    except (ValueError, TypeError) as error:
        raise data.DataError(str(error)) from None
