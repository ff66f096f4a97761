"""A training run and its folder.  Not part of the lesson; read `options.py` first.

`train` is the command `npvae train`; all other commands begin with `open_run`.  A training loop in a script, such as
`examples/train_mnist.py`, writes the same files with `own_folder` and `Results`.
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

from .. import data, plotting
from ..checkpoint import CheckpointError
from . import command_line, options, tables
from ..data.labels import Class, class_codes, find_classes
from ..likelihoods import TABLE, Table, make_likelihood
from ..likelihoods.columns import Column
from ..likelihoods.support import Counts, Reals, count_missing, part_of
from ..model.vae import VAE, load_with_manifest
from ..objectives import Objective
from ..optim import Adam
from ..pages.report import REPORT, is_read, write_report
from ..params import Array
from ..plotting.figures import spread
from ..plotting.pictures import PICTURES, save_pictures
from ..system.files import InUseError, claimed, sync_folder, write_atomically
from ..system.terminal import plain
from ..train.callbacks import Callback, Checkpoint, MetricsLog, Progress
from ..train.loop import fit, new_run
from ..train.rows import BINARIZE_ONCE, Rows
from ..train.run import Metrics, Run, saved_state
from ..validate import NonFiniteError, shown
from .command_line import CHECKPOINT, CONFIG, METRICS, UsageError

EXPLORER, EXPLAINED = "explore.html", "explain.html"
_START_ROWS = 10_000      # training images that tell the scale of all
_MOST_DRAWN = 2 ** 25      # numbers of the test images that pictures are made of
FEW_STEPS = 1000      # fewer tend to leave blurred grey pictures
#: the files of a run, with a description for `npvae info`
FILES = {CONFIG: "settings, size of an image, versions", METRICS: "the numbers of each epoch, one JSON object a line",
         CHECKPOINT: "the model, and what an exact resume needs",
         REPORT: "settings, numbers, curves and pictures on one page", EXPLORER: "a web page that contains the decoder",
         EXPLAINED: "a web page: one image through the network, and its gradient back",
         **dict.fromkeys(PICTURES, "a picture made by training"),
         **dict.fromkeys(("sample.png", "reconstruct.png", "interpolate.png", "traverse.png", "decode.png"),
                         "a picture made by the command of that name"),
         "codes.csv": "the code of every row, made by encode",
         "scores.csv": "how likely each row is, made by score",
         "imputed.csv": "the data with missing cells filled in, made by impute"}


# ---- Train

def train(args: argparse.Namespace) -> None:
    """Train as the flags say, and write the files of the run.  Results go to stdout, progress to stderr.

    The folder is locked until the run ends.  Raises what `fit` raises; UsageError if another run has locked the folder;
    KeyboardInterrupt whose message is how to continue.
    """
    with own_folder(args):
        _train(args)


@contextlib.contextmanager
def own_folder(args: argparse.Namespace) -> Iterator[None]:
    """Within this context the folder --out is locked for this run, and errors name the flag or file they come from.
    Raises what `train` does."""
    _check_places(args)
    try:
        with contextlib.ExitStack() as held, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            _claim(args.out, held)
            options.check_folder(args)      # again: another run may have ended there in the meantime
            yield
    except KeyboardInterrupt:
        started = (args.out / CONFIG).exists()
        raise KeyboardInterrupt(f"stopped; continue with:  {options.resume_command(args)}" if started else "stopped"
                                ) from None
    except NonFiniteError as error:
        kept = "; the last checkpoint is kept" * (args.out / CHECKPOINT).exists()
        raise NonFiniteError(f"{error}{kept}") from None
    except (UsageError, CheckpointError, data.DataError):
        raise
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        source = args.out / CONFIG if args.resume else args.data_dir
        if isinstance(error, MemoryError):
            raise MemoryError(f"{source}: there is not enough memory to train: {error}") from None
        raise UsageError(f"{source}: {error}" if args.resume else str(error)) from None


def _claim(out: Path, held: contextlib.ExitStack) -> None:
    try:
        held.enter_context(claimed(out))
    except InUseError:
        raise UsageError(f"--out {out} is in use by another run: wait until it ends, or choose another folder"
                         ) from None
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None


def _train(args: argparse.Namespace) -> None:
    # 1. Data: one image per row, bytes or floats.
    images = load_images(args, args.quiet)
    if images.columns:
        tables.settle(args, images)
    x_train, x_test = images.train_images, images.test_images
    classes = find_classes(images, args.data_dir) if args.conditional else []
    y_train, y_test = (class_codes(y, classes, args.data_dir) for y in (images.train_labels, images.test_labels))

    # 2. Model, objective, optimizer.
    likelihood = tables.likelihood_of(args, images)
    vae = VAE(x_train.shape[1], args.hidden, args.latent, args.activation, likelihood, args.dtype, args.kernels,
              args.seed, prior=args.prior, posterior=args.posterior, decoder=args.decoder, classes=len(classes),
              missing=count_missing(x_train) + count_missing(x_test) > 0)
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
            if args.binarize == "none":
                start_at_scale(vae, images)
            history = fit(vae, x_train, x_test, args.epochs, batch_size, optimizer, objective, args.k, args.binarize,
                          args.seed, callbacks, _checkpoint_to_resume(args), y_train, y_test)
        except (ValueError, TypeError) as error:
            raise _of_file(args.data_dir, error) from None

        # 4. Pictures and numbers, from test images binarized as in training.
        if x_test.size > _MOST_DRAWN:
            shown = spread(len(x_test), max(20, _MOST_DRAWN // x_test.shape[1]))
            y_test, labels = (None if y is None else y[shown] for y in (y_test, images.test_labels))
            images = images._replace(test_images=part_of(x_test, shown), test_labels=labels)
        _finish(args, images, vae, test_images(vae, images, args, y_test), history, classes)


def start_at_scale(vae: VAE, images: data.ImageData) -> None:
    """Training begins at the scale of the data, unless they are pixels in [0, 1], which are at that of a new model, and
    the likelihood does not ask for it."""
    x = images.train_images
    x = vae.images(x[spread(len(x), _START_ROWS)], "x_train")
    low, high = np.fmin.reduce(x, axis=None), np.fmax.reduce(x, axis=None)      # which pass over NaN
    if vae.likelihood.starts_at_data or images.columns or low < 0 or high > 1:
        vae.start(x)


def _finish(args: argparse.Namespace, images: data.ImageData, vae: VAE, x_test: Array, history: list[Metrics],
            classes: Sequence[Class] = ()) -> None:
    """Write pictures and report.html, and print the results.  x_test is (M, D), as the model sees it."""
    pictures = save_pictures(vae, x_test, images.test_labels, images.image_shape, history, args.out,
                             np.random.default_rng(args.seed), images.ink, classes)
    page = write_report(args.out)
    if not args.quiet:
        with contextlib.suppress(OSError):      # the run is complete, even if this cannot be printed
            _print_result(args, len(images.train_images), history[-1], pictures, page)


def _of_file(source: str, error: Exception) -> Exception:
    """An error of `fit` about an array, as an error about the file it was read from."""
    name, _, rest = str(error).partition(" ")
    part = {"x_train": "the training images", "x_test": "the test images"}.get(name)
    hint = "; --values bytes divides bytes by 255, --likelihood gaussian-learned takes any numbers" * (
        "must lie in [0, 1] for likelihood bernoulli" in rest)
    return data.DataError(f"{source}: {part} {rest}{hint}") if part else error


def _check_places(args: argparse.Namespace) -> None:
    """Raises UsageError if the run's pictures would lie in the data folder, where the next run would read them as data,
    or if a folder stands where a file is to be written."""
    pictures, out = (Path(os.path.realpath(path)) for path in (args.data_dir, args.out))
    if pictures.is_dir() and pictures in (out, *out.parents) and not data.holds_idx(pictures):
        raise UsageError(f"--out {args.out} lies in --data-dir {args.data_dir}, among the pictures; choose a folder "
                         "outside of it")
    for name in FILES:
        if (args.out / name).is_dir():
            raise UsageError(f"--out {args.out} holds a folder {name}, and a run writes a file of that name; choose "
                             "another folder")


class RunFolder(Callback):
    """Writes config.json when training starts, once all input has been checked.  With --overwrite, deletes the files of
    the old run first."""

    def __init__(self, args: argparse.Namespace, images: data.ImageData, classes: Sequence[Class] = ()) -> None:
        read = {"line": images.line, "values": images.values, "warnings": _warnings(args, images)}
        self.args, self.images = args, images
        self.facts = {"image_shape": images.image_shape, "ink": images.ink, "data": read,
                      **({"classes": list(classes)} if classes else {})}

    def on_start(self, run: Run) -> None:
        """Raises UsageError if the folder cannot be written."""
        versions = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.platform()}
        config = {"settings": options.settings(self.args), **self.facts, "versions": versions}
        out = self.args.out
        try:
            if self.args.overwrite:      # config.json first: without it --resume takes no half-deleted run
                (out / CONFIG).unlink(missing_ok=True)
                sync_folder(out)
                for name in FILES:
                    (out / name).unlink(missing_ok=True)
                sync_folder(out)
            write_atomically(out / CONFIG, json.dumps(config, indent=1).encode())
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None
        if not (self.args.quiet or self.args.resume):
            tell(self.args, self.images)


class Results:
    """The files of a run, for a training loop in a script.  All commands of `npvae` take such a run, `npvae train
    --resume` included.

    args : the flags, from `options.parse_few`
    x_train, x_test : images (N, D) and (M, D) as the model sees them: checked, and converted to floats
    history : a row of metrics for each epoch, to which the loop appends; the docstring of `fit` lists them

    Raises DataError for images that the model cannot take, UsageError if the folder cannot be written.
    """

    def __init__(self, args: argparse.Namespace, images: data.ImageData, vae: VAE, objective: Objective,
                 optimizer: Adam) -> None:
        self.args, self.images = args, images
        try:
            self._run = new_run(vae, images.train_images, images.test_images, args.epochs,
                                min(args.batch_size, len(images.train_images)), optimizer, objective, seed=args.seed)
        except (ValueError, TypeError) as error:
            raise _of_file(args.data_dir, error) from None
        assert self._run.test is not None
        self.x_train, self.x_test, self.history = self._run.train.floats(), self._run.test.floats(), self._run.history
        self._files: list[Callback] = [RunFolder(args, images), Checkpoint(args.out / CHECKPOINT),
                                       MetricsLog(args.out / METRICS)]
        for file in self._files:
            file.on_start(self._run)

    def save(self) -> None:
        """Write metrics and checkpoint, after an epoch or at Ctrl-C.  In the latter case the parameters include the
        steps of the unfinished epoch.  Raises OSError, NonFiniteError."""
        self._run.epoch = len(self.history)
        self._run.begin_epoch()
        for file in self._files:
            file.on_epoch(self._run)

    def finish(self) -> None:
        """Write pictures and report.html, and print the results."""
        _finish(self.args, self.images, self._run.vae, self.x_test, self.history)


def _checkpoint_to_resume(args: argparse.Namespace) -> Path | None:
    """The checkpoint from which --resume continues; None without --resume, and for a run that has not saved one yet.
    Raises UsageError if the metrics of finished epochs show that there was one."""
    path, metrics = args.out / CHECKPOINT, args.out / METRICS
    if not args.resume or path.exists():
        return path if args.resume else None
    if metrics.exists() and metrics.stat().st_size:
        raise UsageError(f"--resume: {args.out} holds {METRICS} of finished epochs, but no {CHECKPOINT} to continue "
                         "from; put it back, or start again with --overwrite")
    if not args.quiet:
        print(f"{plain(str(args.out))} holds no {CHECKPOINT} yet: the run starts from the beginning", file=sys.stderr)
    return None


def _print_result(args: argparse.Namespace, images: int, last: dict[str, float], pictures: list[Path],
                  page: Path) -> None:
    """Print the last metrics, numbers to compare them with, and where the pictures are."""
    print(f"\ntest set after epoch {last['epoch']}, sampled z, nats per image:  loss {last['test_loss']:.2f} "
          f"(reconstruction {last['test_nll']:.2f}, KL {last['test_kl']:.2f});  "
          f"{last['active_units']} of {args.latent} latent dimensions in use")
    if args.data_dir == "mnist" and args.likelihood == "bernoulli" and args.binarize == "none" and not args.conditional:
        print("(grey pixels as targets: a cross-entropy, no likelihood)\nfor comparison, 10 epochs, seeds 0 to 2: "
              "110.4 to 110.7 with the defaults, 105.5 to 105.7 with --hidden 400 (pytorch/examples: 105.6)")
    if last["step"] < FEW_STEPS:
        print(_more_steps(args, images, int(last["step"])))
    print("pictures:", *(plain(str(picture)) for picture in pictures), sep="\n  ")
    print(f"all on one page: {plain(str(page))}")


def _more_steps(args: argparse.Namespace, images: int, steps: int) -> str:
    """Advice after a run of few steps: flags with which it would make at least FEW_STEPS."""
    few_batches = images < 10 * args.batch_size
    size = min(16, args.batch_size) if few_batches else args.batch_size
    epochs = math.ceil(FEW_STEPS / options.steps_per_epoch(images, size) / 10) * 10
    what, flags = "more --epochs", f"--epochs {epochs}"
    if size < args.batch_size:
        what, flags = f"{what}, or a smaller --batch-size", f"--batch-size {size} {flags}"
    return f"(trained for only {steps} step{'s' * (steps != 1)}: for better pictures try {what}, such as {flags})"


# ---- Open

@dataclass(frozen=True)
class SavedRun:
    """A run, read from its folder.

    args : its settings, as `options.parse` returns them
    ink : whether 1 is shown as black, as for digits, or as white, as for photographs
    read : how the data were taken: the data line, what the numbers are, and warnings; empty for older runs
    training_images, epochs : the number of each
    last : metrics of the last epoch; empty before the first has ended
    classes : the labels of a conditional model; empty for others
    """

    folder: Path
    args: argparse.Namespace
    image_shape: tuple[int, ...]
    ink: bool
    versions: dict[str, Any]
    vae: VAE
    training_images: int
    epochs: int
    last: dict[str, Any]
    classes: list[Class]
    read: dict[str, Any]

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those of a table; none for images."""
        return self.vae.likelihood.columns if isinstance(self.vae.likelihood, Table) else ()


def open_run(folder: Path, threads: int = 1) -> SavedRun:
    """The run in this folder, finished or not.  Raises UsageError or CheckpointError."""
    config = options.read_config(folder)
    shape, ink, versions, classes, read = _checked(folder / CONFIG, config)
    args = argparse.Namespace(**{**config["settings"], "hidden": tuple(config["settings"]["hidden"])})
    path = folder / CHECKPOINT
    if not path.exists():
        raise UsageError(f"{folder} holds no {CHECKPOINT}: its training has not saved a model yet")
    vae, manifest = load_with_manifest(path, args.kernels)
    if not np.isfinite(vae.parameters.flat).all():
        raise CheckpointError(f"{path}: holds NaN or infinity among its parameters: the model cannot be used")
    vae.threads = threads
    if isinstance(vae.likelihood, Table):      # other data are read as those that it was trained on
        args.fitted = vae.likelihood.columns
    state = saved_state(path, manifest)
    if math.prod(shape) != vae.input_dim:
        raise UsageError(f"{folder}: {CONFIG} has images of {' x '.join(map(str, shape))}, {CHECKPOINT} a model of "
                         f"{vae.input_dim} pixels")
    if len(classes) != vae.classes:
        raise UsageError(f"{folder}: {CONFIG} has {len(classes)} classes, {CHECKPOINT} a model of {vae.classes}")
    return SavedRun(folder, args, shape, ink, versions, vae, manifest["settings"]["images"], state["epoch"],
                    state["history"][-1] if state["history"] else {}, classes, read)


def _checked(path: Path, config: dict[str, Any]
             ) -> tuple[tuple[int, ...], bool, dict[str, str], list[Class], dict[str, Any]]:
    """The facts in config.json besides the settings: image shape, ink, versions, classes, and how the data were taken.
    Raises UsageError."""
    shape, versions, classes = (config.get(name) for name in ("image_shape", "versions", "classes"))
    ink, read = config.get("ink", True), config.get("data", {})      # older runs have no such entries
    classes = [] if classes is None else classes
    if not (isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape)
            and (len(shape) == 2 or len(shape) == 3 and shape[2] == 3)):
        wrong = f"image_shape must be two positive whole numbers, and 3 for colours, got {shown(shape)}"
    elif not isinstance(ink, bool):
        wrong = f"ink must be true or false, got {shown(ink)}"
    elif not (isinstance(versions, dict) and all(isinstance(version, str) for version in versions.values())):
        wrong = f"versions must be names with a text each, got {shown(versions)}"
    elif not (isinstance(classes, list) and all(type(one) in (int, str) for one in classes)
              and len({str(one) for one in classes}) == len(classes)):
        wrong = f"classes must be whole numbers or texts, each once, got {shown(classes)}"
    elif not is_read(read):
        wrong = f"data must say how the data were taken, got {shown(read)}"
    else:
        return tuple(shape), ink, versions, classes, read
    raise UsageError(f"{path} is not the {CONFIG} of a run: {wrong}")


def load_images(args: argparse.Namespace, quiet: bool = False, whole: bool = False) -> data.ImageData:
    """The first `limit` images of the data that the settings name, read as they say; if `whole`, all of data without a
    test part are the test part."""
    def counted(paths: Sequence[Path]) -> Iterable[Path]:
        return paths if quiet else command_line.progress(paths, "pictures")

    return data.load(args.data_dir, counted, args.limit, _reading(args, whole), args.test_data)


def tell(args: argparse.Namespace, images: data.ImageData) -> None:
    """Say what was read, once it is known to fit, and what was guessed or lost."""
    print(images.line, *_warnings(args, images), sep="\n", file=sys.stderr)


def take_other_data(args: argparse.Namespace, data_dir: str) -> None:
    """Let the settings name these data, and all of them."""
    args.data_dir, args.limit, args.test_data = data_dir, None, None


def _warnings(args: argparse.Namespace, images: data.ImageData) -> list[str]:
    """What was guessed or lost in reading, a line each."""
    return [f"warning: {plain(args.data_dir)}: {plain(note)}" for note in images.notes]


def _reading(args: argparse.Namespace, whole: bool) -> data.Reading:
    """What the settings say about reading."""
    header = None if args.header is None else args.header == "yes"
    given = "likelihood" in getattr(args, "given", ("likelihood",))
    table = args.likelihood == TABLE or (False if given else None)
    support = Reals() if table else make_likelihood(args.likelihood).support
    values = args.values or (None if support.pixels else "counts" if isinstance(support, Counts) else "real")
    return data.Reading(values=values, header=header, label_column=args.label_column, delimiter=args.delimiter,
                        decimal=args.decimal, table=table, columns=getattr(args, "fitted", None) or args.columns,
                        transpose=args.transpose, grey=args.grey, rgb=args.rgb,
                        resize=None if args.resize is None else data.size_of(args.resize), test_part=args.test_part,
                        test_fraction=args.test_fraction, whole=whole)


def test_images(vae: VAE, images: data.ImageData, args: argparse.Namespace, labels: Array | None = None) -> Array:
    """The test set (M, D) in floats, with the same binarization that `fit` evaluates on.

    labels : (M,), class indices for a conditional model

    Raises UsageError or DataError for images that do not fit the model.
    """
    return as_seen(vae, "the test set", images.test_images, args, labels)


def as_seen(vae: VAE, what: str, x: Array, args: argparse.Namespace, labels: Array | None = None) -> Array:
    """Images x (N, D) as `test_images` gives those of the test set; errors call them `what`."""
    if x.shape[1] != vae.input_dim:
        raise UsageError(f"{args.data_dir}: holds {x.shape[1]} pixels an image; the model takes {vae.input_dim}")
    binarize = "static" if args.binarize == "dynamic" else args.binarize
    try:
        return Rows(f"{args.data_dir}: {what}", x, vae, binarize, args.seed + 1, BINARIZE_ONCE, labels).floats()
    except (ValueError, TypeError) as error:
        raise data.DataError(str(error)) from None


def training_images(run: SavedRun, most: int) -> tuple[Array, Array | None]:
    """At most so many images of the run's training set, evenly spaced, as `test_images` gives those of the test set;
    and, for a conditional model, their class indices."""
    images = load_images(run.args)
    chosen = plotting.spread(len(images.train_images), most)
    labels = class_codes(images.train_labels, run.classes, run.args.data_dir)
    labels = None if labels is None else labels[chosen]
    return as_seen(run.vae, "the training set", part_of(images.train_images, chosen), run.args, labels), labels
