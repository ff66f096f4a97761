"""Flags, run folders and exit codes of the programs.  Beside the lesson; see `examples/train_mnist.py`.

Exit codes: 0 done, 1 training failed (NaN), 2 bad input (one line on stderr says what), 130 ended by Ctrl-C.
"""
import argparse
import json
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import data, validate
from .callbacks import Callback
from .checkpoint import CheckpointError, write_atomically
from .kernels import KERNELS
from .lanes import available_cores
from .layers import ACTIVATIONS
from .likelihoods import LIKELIHOODS, find
from .objectives import ELBO, IWAE, CyclicalAnnealing, FreeBits, LinearAnnealing, Objective
from .optim import Adam, ConstantLR, CosineLR, StepLR
from .plotting import PICTURES
from .train import NonFiniteError, Run

OBJECTIVES = ("elbo", "iwae")
LR_SCHEDULES = ("constant", "steps", "cosine")
CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint.npz"
#: flags that say how a run is done, not what it computes: free to differ when it is resumed
_FREE = ("out", "resume", "overwrite", "quiet", "threads")


class UsageError(ValueError):
    """Flags that do not fit; the message is the one line to print."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")


def _widths(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return validate.widths("--hidden", [int(width) for width in text.split(",")])
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be positive integers such as 400,200, or none, got {text!r}") from None


def _number(kind: type, least: float, strict: bool = False) -> Callable[[str], Any]:
    """A converter that refuses what `validate` refuses, in argparse's way."""
    def convert(text: str) -> Any:
        what = "an integer" if kind is int else "a number"
        try:
            value = kind(text)
            return (validate.integer("it", value, int(least)) if kind is int
                    else validate.real("it", value, least, strict))
        except ValueError:
            bound = f"{'more than' if strict else 'of at least'} {least:g}"
            raise argparse.ArgumentTypeError(f"must be {what} {bound}, got {text!r}") from None
    return convert


def _likelihood(text: str) -> str:
    try:
        find(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def training_parser(**defaults: Any) -> argparse.ArgumentParser:
    """The flags of a training run.  `defaults` replaces the defaults of flags by name."""
    parser = _Parser(description="Train a variational autoencoder; ends with pictures, numbers and a checkpoint.",
                     formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", type=_widths, default=(128,), metavar="400,200",
                         help="widths of the encoder's hidden layers, mirrored in the decoder; none for no layer")
    network.add_argument("--latent", type=_number(int, 1), default=20, metavar="Z", help="latent dimensions")
    network.add_argument("--activation", choices=list(ACTIVATIONS), default="relu", help="of the hidden layers")
    network.add_argument("--likelihood", type=_likelihood, default="bernoulli", metavar="NAME",
                         help=f"{', '.join(LIKELIHOODS)}; the first two Gaussians take a sigma, as in gaussian:0.2")
    objective = parser.add_argument_group("objective")
    objective.add_argument("--objective", choices=OBJECTIVES, default="elbo", help="the bound to maximise")
    objective.add_argument("--k", type=_number(int, 1), default=1, metavar="K", help="draws of z per image")
    objective.add_argument("--beta", type=_number(float, 0), default=1.0, help="weight of the KL term")
    objective.add_argument("--kl-warmup", type=_number(float, 0), default=0.0, metavar="EPOCHS",
                           help="beta rises from 0 over so many epochs; with --cyclical, in each cycle")
    objective.add_argument("--cyclical", type=_number(int, 0), nargs="?", const=4, default=0, metavar="CYCLES",
                           help="beta rises from 0 so many times; over half of each cycle unless --kl-warmup says")
    objective.add_argument("--free-bits", type=_number(float, 0), default=0.0, metavar="NATS",
                           help="KL that each latent dimension may use without paying")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=_number(int, 1), default=10)
    training.add_argument("--batch-size", type=_number(int, 1), default=128, metavar="B")
    training.add_argument("--lr", type=_number(float, 0, strict=True), default=1e-3, help="Adam's step size")
    training.add_argument("--lr-schedule", choices=LR_SCHEDULES, default="constant",
                          help="steps: a tenth after 1/2 and again after 3/4 of the run; cosine: down to 0")
    training.add_argument("--seed", type=_number(int, 0), default=0, help="of all randomness")
    training.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    training.add_argument("--kernels", choices=KERNELS, default="numba", help="fused, or the readable reference")
    training.add_argument("--threads", type=_number(int, 1), default=min(2, available_cores()), metavar="N",
                          help="cores at work; 1 and 2 give the same numbers, bit for bit, with --kernels numba")
    where = parser.add_argument_group("data and results")
    where.add_argument("--data-dir", default="mnist", metavar="PATH",
                       help="mnist (it comes with npvae), a folder of IDX files, an .npy or .npz file")
    where.add_argument("--binarize", choices=data.BINARIZATIONS, default="none", help="of the pixels")
    where.add_argument("--limit", type=_number(int, 1), default=None, metavar="N", help="use the first N images only")
    where.add_argument("--out", type=Path, default=Path("runs/mnist"), metavar="FOLDER", help="where all results go")
    where.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own settings")
    where.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    where.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(**defaults)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags; with --resume, those of the run in --out.  Raises UsageError before anything is changed."""
    args = parser.parse_args(argv)
    if args.resume and args.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    config = args.out / CONFIG
    if args.resume:
        _adopt(args, _given(parser, argv), config)
    elif config.exists() and not args.overwrite:
        raise UsageError(f"--out {args.out} already holds a run: go on with it by --resume, replace it by --overwrite, "
                         "or choose another folder")
    if args.objective == "iwae" and args.free_bits:
        raise UsageError("--free-bits needs the analytic KL of --objective elbo, got --objective iwae")
    if args.cyclical and args.kl_warmup * args.cyclical > args.epochs:
        raise UsageError(f"--kl-warmup {args.kl_warmup:g} is longer than one of the {args.cyclical} cycles in "
                         f"{args.epochs} epochs")
    return args


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """The flags that stand on the command line, without the defaults of the others."""
    blank = argparse.Namespace(**{action.dest: None for action in parser._actions})
    return {name: value for name, value in vars(parser.parse_args(argv, blank)).items() if value is not None}


def _adopt(args: argparse.Namespace, given: dict[str, Any], config: Path) -> None:
    """Take the settings of the run to resume.  Raises UsageError that names those given otherwise."""
    try:
        theirs = dict(json.loads(config.read_text())["settings"])
    except OSError:
        raise UsageError(f"--resume: {config} cannot be read; is there a run in --out {args.out}?") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--resume: {config} is not the config.json of a run") from None
    if theirs.keys() != settings(args).keys():
        names = ", ".join(sorted(theirs.keys() ^ settings(args).keys()))
        raise UsageError(f"--resume: {config} is of another program or version: they differ in {names}")
    tied = theirs["lr_schedule"] != "constant" or theirs["cyclical"]
    free = _FREE if tied else (*_FREE, "epochs")
    ours = settings(argparse.Namespace(**{**vars(args), **given}))
    differing = [f"--{name.replace('_', '-')} is {theirs.get(name)} there, {ours[name]} here"
                 for name in given if name in ours and name not in free and ours[name] != theirs.get(name)]
    if differing:
        raise UsageError(f"--resume: the run in {args.out} has other settings: {'; '.join(differing)}")
    epochs = given.get("epochs", theirs["epochs"])
    vars(args).update({**theirs, "hidden": tuple(theirs["hidden"]), "epochs": epochs})


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What a run computes, as JSON holds it: every flag but those that say how it is done."""
    plain = {name: value for name, value in vars(args).items() if name not in _FREE}
    return {**plain, "hidden": list(args.hidden)}


class RunFolder(Callback):
    """Makes the output folder and writes config.json when training starts: all input has been checked by then, and
    nothing has been computed.  A run that is replaced loses its numbers, pictures and checkpoint here."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def on_start(self, run: Run) -> None:
        out, versions = self.args.out, {"python": platform.python_version(), "numpy": np.__version__,
                                        "machine": platform.platform()}
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / CONFIG, json.dumps({"settings": settings(self.args), "versions": versions},
                                                      indent=1).encode())
            if self.args.overwrite:
                for name in (METRICS, CHECKPOINT, *PICTURES):
                    (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None


def make_objective(args: argparse.Namespace, images: int) -> Objective:
    """The objective that the flags name; `images` in the training set turns epochs into steps."""
    steps = -(-images // args.batch_size)
    beta: Any = args.beta
    if args.cyclical:
        ratio = args.kl_warmup * args.cyclical / args.epochs or 0.5
        beta = CyclicalAnnealing(args.epochs * steps, args.cyclical, ratio, args.beta)
    elif args.kl_warmup:
        beta = LinearAnnealing(max(1, round(args.kl_warmup * steps)), args.beta)
    if args.objective == "iwae":
        return IWAE(beta)
    return FreeBits(args.free_bits, beta) if args.free_bits else ELBO(beta)


def make_optimizer(args: argparse.Namespace, images: int) -> Adam:
    """Adam with the learning-rate schedule that the flags name."""
    total = args.epochs * -(-images // args.batch_size)
    if args.lr_schedule == "cosine":
        return Adam(CosineLR(args.lr, total))
    if args.lr_schedule == "steps":
        return Adam(StepLR(args.lr, sorted({max(1, total // 2), max(1, 3 * total // 4)})))
    return Adam(ConstantLR(args.lr))


def exit_code(main: Callable[[], None]) -> int:
    """Run a program; bad input becomes one line on stderr and 2, NaN 1, Ctrl-C 130."""
    name = Path(sys.argv[0]).name
    try:
        main()
    except KeyboardInterrupt as stop:
        print(f"\n{name}: {stop}" if str(stop) else f"\n{name}: stopped", file=sys.stderr)
        return 130
    except NonFiniteError as error:
        print(f"{name}: {error}; a checkpoint from before is kept", file=sys.stderr)
        return 1
    except (UsageError, CheckpointError, data.DataError, ValueError, TypeError, OSError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def resume_command(args: argparse.Namespace) -> str:
    """The command that goes on with this run."""
    python = Path(sys.executable).name
    if shutil.which(python) != sys.executable:
        python = sys.executable
    return shlex.join([python, sys.argv[0], "--out", str(args.out), "--threads", str(args.threads), "--resume"])


def checkpoint_to_resume(args: argparse.Namespace) -> Path | None:
    """The checkpoint that --resume goes on from; None without --resume, or if the run had not saved one yet."""
    path = args.out / CHECKPOINT
    return path if args.resume and path.exists() else None
