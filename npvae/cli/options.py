"""The flags of a training run, the settings they make, and the objective and optimizer that these name.  Beside the
lesson; `runs.py` does what the flags say.
"""
import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import data, decoders
from ..engine.executor import available_cores
from ..kernels import KERNELS
from ..latents import flows, priors
from ..layers import ACTIVATIONS
from ..likelihoods import LIKELIHOODS, make_likelihood
from ..objectives import ELBO, IWAE, CyclicalAnnealing, FreeBits, LinearAnnealing, Objective
from ..optim import Adam, ConstantLR, CosineLR, StepLR
from ..system.files import parse_json, read_text
from ..system.terminal import shell_word
from ..validate import shown
from .command_line import CHECKPOINT, CONFIG, METRICS, Parser, UsageError, number, shortest, widths

OBJECTIVES = ("elbo", "iwae")
LR_SCHEDULES = ("constant", "steps", "cosine")
#: flags that say how a run is done, not what it computes: free to differ when it is resumed
_FREE = ("out", "resume", "overwrite", "quiet", "threads")
#: flags that came later: a run from before them has their defaults
_ADDED = ("prior", "posterior", "decoder", "gradient", "conditional", "weight_decay")

_EXAMPLES = """examples:
  %(prog)s                                            784-128-20 on grey MNIST, 10 epochs
  %(prog)s --hidden 400 --out runs/400                the network of many tutorials
  %(prog)s --latent 2 --epochs 30 --out runs/plane    a plane of digits
  %(prog)s --objective iwae --k 5 --binarize dynamic --out runs/iwae
  %(prog)s --conditional --out runs/by_class          a digit by its name, and its style in z
  %(prog)s --data-dir PICTURES --out runs/mine        a folder of your own, all pictures of one size
  %(prog)s --data-dir PICTURES --out runs/few --batch-size 16 --epochs 200    the same, of a hundred pictures
  %(prog)s --out runs/mine --resume --epochs 50       longer, or on after Ctrl-C
"""


def _known(check: Callable[[str], Any]) -> Callable[[str], str]:
    """A converter of names that refuses those that `check` refuses, in argparse's way."""
    def convert(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text
    return convert


def _listed(forms: Mapping[str, str]) -> str:
    """How the parts of a family are written, and what they are."""
    return "; ".join(f"{written}, {what}" for written, what in forms.items())


def add_network(parser: argparse.ArgumentParser) -> None:
    """The flags of a network."""
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", type=widths, default="128", metavar="400,200",
                         help="widths of the encoder's hidden layers, mirrored in the decoder; none for no layer")
    network.add_argument("--latent", type=number(int, 1), default=20, metavar="Z", help="latent dimensions")
    network.add_argument("--activation", choices=list(ACTIVATIONS), default="relu", help="of the hidden layers")
    network.add_argument("--likelihood", type=_known(make_likelihood), default="bernoulli", metavar="NAME",
                         help=f"{', '.join(LIKELIHOODS)}; the first two Gaussians take a sigma, as in gaussian:0.2; "
                         "the last three give every level of a byte a probability")
    network.add_argument("--prior", type=_known(lambda text: priors.make_prior(text, 1, 1, "relu")), default="normal",
                         metavar="NAME", help=f"p(z): {_listed(priors.PRIORS)}")
    network.add_argument("--posterior", type=_known(lambda text: flows.make_flow(text, 1, 1)), default="gaussian",
                         metavar="NAME", help=f"q(z|x): {_listed(flows.POSTERIORS)}")
    network.add_argument("--decoder", type=_known(decoders.masked_units), default="dense", metavar="NAME",
                         help=f"p(x|z): {_listed(decoders.DECODERS)}")


def add_objective(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The flags of an objective; their group."""
    objective = parser.add_argument_group("objective")
    objective.add_argument("--objective", choices=OBJECTIVES, default="elbo", help="the bound to maximise")
    objective.add_argument("--k", type=number(int, 1), default=1, metavar="K", help="draws of z per image")
    objective.add_argument("--beta", type=number(float, 0), default=1.0, help="weight of the KL term")
    objective.add_argument("--free-bits", type=number(float, 0), default=0.0, metavar="NATS",
                           help="KL that each latent dimension may use without paying")
    return objective


def training_parser(**defaults: object) -> argparse.ArgumentParser:
    """The flags of a training run.  `defaults` replaces the defaults of flags by name."""
    parser = Parser(None, "Train a variational autoencoder; ends with pictures, numbers, a page that shows them all "
                    "(report.html) and a checkpoint.", _EXAMPLES)
    add_network(parser)
    objective = add_objective(parser)
    objective.add_argument("--kl-warmup", type=number(float, 0), default=0.0, metavar="EPOCHS",
                           help="beta rises from 0 over so many epochs; with --cyclical, in each cycle")
    objective.add_argument("--cyclical", type=number(int, 0), nargs="?", const=4, default=0, metavar="CYCLES",
                           help="beta rises from 0 so many times; over half of each cycle unless --kl-warmup says")
    objective.add_argument("--gradient", choices=("total", "stl", "dreg"), default="total",
                           help="total: the derivative of the loss at its draws; others estimate the encoder's part "
                           "with less noise: stl for elbo, whose KL term it samples, dreg for iwae")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1), default=10, help="passes over the training images")
    training.add_argument("--batch-size", type=number(int, 1), default=128, metavar="B",
                          help="images per step; of fewer images, all of them")
    training.add_argument("--lr", type=number(float, 0, strict=True), default=1e-3, help="Adam's step size")
    training.add_argument("--lr-schedule", choices=LR_SCHEDULES, default="constant",
                          help="steps: a tenth after 1/2 and again after 3/4 of the run; cosine: down to 0")
    training.add_argument("--weight-decay", type=number(float, 0), default=0.0, metavar="RATE",
                          help="weights shrink by lr times this in each step, against overfitting; 0.1 is much")
    training.add_argument("--seed", type=number(int, 0, bits=128), default=0, help="of all randomness")
    training.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of all numbers")
    training.add_argument("--kernels", choices=KERNELS, default="numba", help="fused, or the readable reference")
    add_threads(training)
    where = parser.add_argument_group("data and results")
    where.add_argument("--data-dir", default="mnist", metavar="PATH", help=f"{data.ALLOWED}; mnist comes with npvae")
    where.add_argument("--binarize", choices=data.BINARIZATIONS, default="none",
                       help="none: greys as they are; threshold: white from the middle grey on; static: drawn once, "
                       "the grey is the chance of white; dynamic: drawn anew at every visit, the test images once")
    where.add_argument("--conditional", action="store_true", help="tell encoder and decoder the label of each image")
    where.add_argument("--limit", type=number(int, 1), default=None, metavar="N", help="use the first N images only")
    where.add_argument("--out", type=Path, default=Path("runs/mnist"), metavar="FOLDER", help="where all results go")
    where.add_argument("--resume", action="store_true", help="go on with the run in --out, with its own settings")
    where.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    where.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(**defaults)
    return parser


def add_threads(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The flag for the cores."""
    group.add_argument("--threads", type=number(int, 1), default=min(2, available_cores()), metavar="N",
                       help="cores at work; 1 and 2 give the same numbers to rounding, and bit for bit with --kernels "
                       "numba, --prior normal, --posterior gaussian and any likelihood but gaussian-optimal")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags; with --resume, those of the run in --out.  Raises UsageError before anything is changed."""
    args = parser.parse_args(argv)
    if args.resume and args.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if args.resume:
        _adopt(args, _given(parser, argv))
    check_folder(args)
    check_objective(args)
    return args


def parse_few(flags: Collection[str], description: str, epilog: str, argv: Sequence[str] | None = None
              ) -> argparse.Namespace:
    """As `parse`, for a script that takes these flags of `npvae train` alone.  Raises UsageError, for another one with
    the command that takes it."""
    argv = sys.argv[1:] if argv is None else argv
    parser = training_parser()
    parser.description, parser.epilog, elsewhere = textwrap.fill(description, 88), epilog, set[str]()
    for action in parser._actions:
        if action.dest not in (*flags, "help"):
            action.help = argparse.SUPPRESS
            elsewhere.update(action.option_strings)
    for flag in (word.partition("=")[0] for word in argv):
        if flag in elsewhere:
            raise UsageError(f"{flag} is a flag of npvae train; run:  npvae train {' '.join(map(shell_word, argv))}")
    return parse(parser, argv)


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """The flags that stand on the command line, without the defaults of the others."""
    blank = argparse.Namespace(**{action.dest: None for action in parser._actions})
    return {name: value for name, value in vars(parser.parse_args(argv, blank)).items() if value is not None}


def _adopt(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Take the settings of the run to resume.  Raises UsageError that names those given otherwise."""
    try:
        theirs = read_config(args.out)["settings"]
    except UsageError as error:
        raise UsageError(f"--resume: {error}") from None
    tied = theirs["lr_schedule"] != "constant" or theirs["cyclical"]
    free = _FREE if tied else (*_FREE, "epochs")
    ours = settings(argparse.Namespace(**{**vars(args), **given}))
    differing = [f"--{name.replace('_', '-')} is {theirs[name]} there, {ours[name]} here"
                 for name in given if name in ours and name not in free and ours[name] != theirs[name]]
    if differing:
        raise UsageError(f"--resume: the run in {args.out} has other settings: {'; '.join(differing)}")
    epochs = given.get("epochs", theirs["epochs"])
    vars(args).update({**theirs, "hidden": tuple(theirs["hidden"]), "epochs": epochs})


def check_folder(args: argparse.Namespace) -> None:
    """Raises UsageError where a new run would take the place of another, or of what is left of one."""
    if args.resume or args.overwrite:
        return
    if (args.out / CONFIG).exists():
        raise UsageError(f"--out {args.out} already holds a run: go on with it by --resume, replace it by --overwrite, "
                         "or choose another folder")
    for name in CHECKPOINT, METRICS:
        if (args.out / name).exists():
            raise UsageError(f"--out {args.out} holds {name} of a run, but no {CONFIG}: replace it by --overwrite, or "
                             "choose another folder")


def check_objective(args: argparse.Namespace) -> None:
    """Raises UsageError for flags of an objective that exclude each other."""
    if args.objective == "iwae" and args.free_bits:
        raise UsageError("--free-bits needs the analytic KL of --objective elbo, got --objective iwae")
    if args.gradient == "stl" and (args.objective == "iwae" or args.free_bits):
        raise UsageError("--gradient stl needs --objective elbo without --free-bits; dreg fits iwae, total fits all")
    if args.gradient == "dreg" and args.objective == "elbo":
        raise UsageError("--gradient dreg needs the weights of --objective iwae; stl fits elbo, total fits all")
    for name, plain in (("posterior", "gaussian"), ("prior", "normal")):
        if args.free_bits and vars(args)[name] != plain:
            raise UsageError(f"--free-bits needs the analytic KL of --{name} {plain}, got --{name} {vars(args)[name]}")
    if args.cyclical and args.kl_warmup * args.cyclical > args.epochs:
        raise UsageError(f"--kl-warmup {args.kl_warmup:g} is longer than one of the {args.cyclical} cycles in "
                         f"{args.epochs} epochs")


def has_exact_kl(args: argparse.Namespace) -> bool:
    """Is the KL term of this network known in closed form?  Else its value at the draws takes its place."""
    return bool(args.posterior == "gaussian" and args.prior == "normal")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run; its "settings" are those of `settings`, each as its flag takes it.  Raises UsageError.
    """
    path = folder / CONFIG
    try:
        config = parse_json(read_text(path))
        if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
            raise ValueError("it holds no settings")
    except OSError as error:
        raise UsageError(f"there is no run in {folder}: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{path} is not the {CONFIG} of a run: {error}") from None
    parser = training_parser()
    defaults = settings(parser.parse_args([]))
    theirs = {**{name: defaults[name] for name in _ADDED}, **config["settings"]}
    if theirs.keys() != defaults.keys():
        names = " ".join(", ".join(sorted(theirs.keys() ^ defaults.keys())).split())
        raise UsageError(f"{path} is of another program or version: they differ in {names[:200]}")
    return {**config, "settings": _as_flags(path, parser, theirs)}


def _as_flags(path: Path, parser: argparse.ArgumentParser, theirs: dict[str, Any]) -> dict[str, Any]:
    """The settings of a file, read as the command line that says the same.  Raises UsageError for those that no command
    line can say."""
    try:
        args = parser.parse_args([word for name, value in theirs.items() for word in _flag(name, value)])
        check_objective(args)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removesuffix(f' (see {parser.prog} --help)')}") from None
    for name, value in theirs.items():
        if isinstance(value, str) and not _is_a_word(value):
            raise UsageError(f"{path}: {name} is {shown(value)}, which no command line can hold")
    ours = settings(args)
    for name, value in theirs.items():
        if ours[name] != value or isinstance(ours[name], bool) != isinstance(value, bool):
            raise UsageError(f"{path}: {name} is {shown(value)}, which no flag of training says")
    return ours


def _flag(name: str, value: Any) -> list[str]:
    """A setting as words of a command line."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or isinstance(value, bool):
        return [flag] if value else []
    return [f"{flag}={(','.join(map(str, value)) or 'none') if isinstance(value, list) else value}"]


def _is_a_word(text: str) -> bool:
    """Can the system pass this text to a program?"""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What a run computes, as JSON holds it: every flag but those that say how it is done."""
    plain = {name: value for name, value in vars(args).items() if name not in _FREE}
    return {**plain, "hidden": list(args.hidden)}


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
        return IWAE(beta, args.gradient)
    if args.gradient == "stl":
        return ELBO(beta, sampled=True, gradient="stl")
    return FreeBits(args.free_bits, beta) if args.free_bits else ELBO(beta, sampled=not has_exact_kl(args))


def make_optimizer(args: argparse.Namespace, images: int) -> Adam:
    """Adam with the learning-rate schedule that the flags name."""
    total = args.epochs * -(-images // args.batch_size)
    if args.lr_schedule == "cosine":
        return Adam(CosineLR(args.lr, total), weight_decay=args.weight_decay)
    if args.lr_schedule == "steps":
        steps = StepLR(args.lr, sorted({max(1, total // 2), max(1, 3 * total // 4)}))
        return Adam(steps, weight_decay=args.weight_decay)
    return Adam(ConstantLR(args.lr), weight_decay=args.weight_decay)


def resume_command(args: argparse.Namespace) -> str:
    """The command that goes on with this run: `npvae train` where that runs, `python -m npvae train` for a script."""
    program, python = Path(sys.argv[0]), shortest(sys.executable)
    start = [python, "-m", "npvae"] if program.suffix == ".py" else [shortest(sys.argv[0])]
    out = str(args.out)
    if out.startswith("-"):      # it would be taken for a flag
        out = f"./{out}"
    if out.endswith("\n"):      # a shell cuts off line breaks at the end
        out = f"{out}/"
    return " ".join(map(shell_word, [*start, "train", "--out", out, "--threads", str(args.threads), "--resume"]))
