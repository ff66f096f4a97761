"""The flags of a training run, and the objective and optimizer that they name.  Not part of the lesson; read
`command_line.py` first.

Flags that decide what a run computes are its settings, which config.json keeps.  All others, such as --threads, may
differ when the run is resumed.
"""
import argparse
import math
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
from ..likelihoods import LIKELIHOODS, TABLE, make_likelihood
from ..likelihoods.columns import ALLOWED, said_of
from ..objectives import ELBO, IWAE, CyclicalAnnealing, FreeBits, LinearAnnealing, Objective, Schedule
from ..optim import Adam, ConstantLR, CosineLR, StepLR
from ..system.files import parse_json, read_text
from ..system.terminal import one_line, shell_word, shortened
from ..validate import shown
from .command_line import CHECKPOINT, CONFIG, METRICS, Parser, UsageError, number, shortest, widths

OBJECTIVES = ("elbo", "iwae")
LR_SCHEDULES = ("constant", "steps", "cosine")
_NOT_SETTINGS = ("out", "resume", "overwrite", "quiet", "threads", "given", "fitted")
#: settings that older runs lack: they ran with the defaults,
_ADDED = ("prior", "posterior", "decoder", "gradient", "conditional", "weight_decay", "values", "transpose",
          "grey", "rgb", "resize", "header", "label_column", "delimiter", "test_data", "test_fraction",
          "columns", "decimal")
#: or with what was the default then
_FORMER = {"test_part": "last"}

_EXAMPLES = """examples:
  %(prog)s                                            784-128-20 on grey MNIST, 10 epochs
  %(prog)s --hidden 400 --out runs/400                the network of many tutorials
  %(prog)s --latent 2 --epochs 30 --out runs/plane    a plane of digits
  %(prog)s --objective iwae --k 5 --binarize dynamic --out runs/iwae
  %(prog)s --conditional --out runs/by_class          choose the digit; z holds its style
  %(prog)s --data-dir PICTURES --out runs/mine        a folder of your own, all pictures of one size
  %(prog)s --data-dir PICTURES --out runs/few --batch-size 16 --epochs 200    the same for a hundred pictures
  %(prog)s --out runs/mine --resume --epochs 50       train longer, or continue after Ctrl-C
"""


def _name(check: Callable[[str], object]) -> Callable[[str], str]:
    """A type for argparse: a name for which `check` raises no ValueError."""
    def convert(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text
    return convert


def _check_likelihood(name: str) -> None:
    """Raises ValueError for a name that is none of a likelihood."""
    if name != TABLE:      # its columns are not known yet
        make_likelihood(name)


def _described(names: Mapping[str, str]) -> str:
    """Names with their descriptions, for a help text."""
    return "; ".join(f"{name} = {description}" for name, description in names.items())


def _fraction(text: str) -> float:
    """A type for argparse: more than 0 and less than 1."""
    value = number(float, 0, strict=True)(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"must be less than 1, got {shown(text)}")
    return value


def _size(text: str) -> str:
    """A type for argparse: "28x28"."""
    try:
        return "x".join(map(str, data.size_of(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _delimiter(text: str) -> str:
    """A type for argparse: one character; "tab" for a tab."""
    mark = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(mark) != 1 or mark in "\r\n\"":
        raise argparse.ArgumentTypeError(f"must be one character, or tab, got {shown(text)}")
    return mark


def flag(setting: str) -> str:
    """The flag of a setting: "--batch-size" for "batch_size"."""
    return f"--{setting.replace('_', '-')}"


def flag_value(value: object) -> str:
    """The value of a setting as it stands on a command line: "400,200" for [400, 200]."""
    return (",".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a network."""
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", type=widths, default="128", metavar="400,200",
                         help="widths of the encoder's hidden layers, mirrored in the decoder; none: no such layers")
    network.add_argument("--latent", type=number(int, 1), default=20, metavar="Z", help="number of latent dimensions")
    network.add_argument("--activation", choices=list(ACTIVATIONS), default="relu", help="of the hidden layers")
    network.add_argument("--likelihood", type=_name(_check_likelihood), default="bernoulli", metavar="NAME",
                         help=f"{', '.join(LIKELIHOODS)}; the first two Gaussians take a sigma, as in gaussian:0.2; "
                         "discretized-logistic, categorical and beta-binomial give each of a byte's 256 levels a "
                         "probability; from poisson on they are for data that are no pixels: counts take :size, for "
                         "means relative to the row's total; the negative binomials :column, :shared or :decoder, "
                         "whose dispersion it is, as in negative-binomial:shared+size; student-t, laplace and "
                         "log-normal :column or :shared, and student-t:4 has 4 degrees of freedom; ordinal:5 and "
                         "categories:5 have 5 levels, ordinal:5,3,2 as many in each column; table gives each "
                         "column of a .csv its own")
    network.add_argument("--prior", type=_name(lambda text: priors.make_prior(text, 1, 1, "relu")), default="normal",
                         metavar="NAME", help=f"p(z): {_described(priors.PRIORS)}")
    network.add_argument("--posterior", type=_name(lambda text: flows.make_flow(text, 1, 1)), default="gaussian",
                         metavar="NAME", help=f"q(z|x): {_described(flows.POSTERIORS)}")
    network.add_argument("--decoder", type=_name(decoders.masked_units), default="dense", metavar="NAME",
                         help=f"p(x|z): {_described(decoders.DECODERS)}")


def add_objective(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags of an objective, and return their group."""
    objective = parser.add_argument_group("objective")
    objective.add_argument("--objective", choices=OBJECTIVES, default="elbo", help="bound to maximise")
    objective.add_argument("--k", type=number(int, 1), default=1, metavar="K", help="draws of z for each image")
    objective.add_argument("--beta", type=number(float, 0), default=1.0, help="weight of the KL term")
    objective.add_argument("--free-bits", type=number(float, 0), default=0.0, metavar="NATS",
                           help="KL that each latent dimension may use for free, as a mean over the batch")
    return objective


def training_parser(**defaults: object) -> argparse.ArgumentParser:
    """The parser for a training run.  `defaults` are settings whose defaults differ from those of `npvae train`."""
    parser = Parser(None, "Train a variational autoencoder.  The results are a checkpoint, numbers, pictures, and a "
                    "page that shows them all (report.html).", _EXAMPLES)
    add_network(parser)
    objective = add_objective(parser)
    objective.add_argument("--kl-warmup", type=number(float, 0), default=0.0, metavar="EPOCHS",
                           help="beta rises linearly from 0 over this many epochs; with --cyclical, in each cycle")
    objective.add_argument("--cyclical", type=number(int, 0), nargs="?", const=4, default=0, metavar="CYCLES",
                           help="beta rises from 0 in each of this many cycles, over half of the cycle unless "
                           "--kl-warmup is given")
    objective.add_argument("--gradient", choices=("total", "stl", "dreg"), default="total",
                           help="total: the derivative of the loss for the noise drawn; stl (for elbo, with a sampled "
                           "KL term) and dreg (for iwae): estimators of the encoder's gradient with less variance")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=number(int, 1), default=10, help="passes over the training images")
    training.add_argument("--batch-size", type=number(int, 1), default=128, metavar="B",
                          help="images per step, at most the whole training set")
    training.add_argument("--lr", type=number(float, 0, strict=True), default=1e-3, help="Adam's step size")
    training.add_argument("--lr-schedule", choices=LR_SCHEDULES, default="constant",
                          help="steps: a tenth of it after 1/2 and again after 3/4 of the run; cosine: falls to 0")
    training.add_argument("--weight-decay", type=number(float, 0), default=0.0, metavar="RATE",
                          help="each step shrinks the weights by the fraction lr * RATE, against overfitting; 0.1 is a "
                          "high rate")
    training.add_argument("--seed", type=number(int, 0, bits=128), default=0, help="seed of all random numbers")
    training.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="type of all arrays")
    training.add_argument("--kernels", choices=KERNELS, default="numba",
                          help="numba: fused and compiled; numpy: the readable reference")
    add_threads(training)
    where = parser.add_argument_group("data and results")
    where.add_argument("--data-dir", default="mnist", metavar="PATH", help=f"{data.ALLOWED}; mnist comes with npvae")
    where.add_argument("--binarize", choices=data.BINARIZATIONS, default="none",
                       help="none: grey levels as they are; threshold: white from the middle grey on; static: each "
                       "pixel drawn once, white with its grey level as the probability; dynamic: drawn anew for every "
                       "batch, the test images once")
    where.add_argument("--values", choices=data.VALUES, default=None,
                       help=f"what the numbers are (found out by default, and printed): {_described(data.VALUES)}")
    where.add_argument("--transpose", action="store_true",
                       help="rows and columns of each image, or of a matrix of counts, change places")
    where.add_argument("--grey", action="store_true", help="make colours grey, as is done with pictures anyhow")
    where.add_argument("--rgb", action="store_true", help="keep the colours of pictures: three numbers a pixel")
    where.add_argument("--resize", type=_size, default=None, metavar="HxW",
                       help="bring pictures to this height and width: the middle is cut out, and scaled")
    where.add_argument("--header", choices=("yes", "no"), default=None,
                       help="whether the first row of a table is one (found out by default)")
    where.add_argument("--label-column", default=None, metavar="NAME",
                       help="column of a table that holds labels, numbers or names (default: label, if there is one)")
    where.add_argument("--delimiter", type=_delimiter, default=None, metavar="MARK",
                       help="between the cells of a table, such as ';' or tab (found out by default)")
    where.add_argument("--decimal", choices=(".", ","), default=None, help="of the numbers of a table (found out by "
                       "default)")
    where.add_argument("--columns", type=_name(said_of), default=None, metavar="NAME:KIND,...",
                       help=f"kinds of columns of a table, where they are not as found: {ALLOWED}; as in "
                       "age:gaussian,grade:ordinal(low|mid|high),id:skip; or a .json file with the same")
    where.add_argument("--test-data", default=None, metavar="PATH",
                       help="the test part, in a file or folder of its own")
    where.add_argument("--test-part", choices=data.TEST_PARTS, default="random",
                       help=f"the test part of data that have none of their own: {_described(data.TEST_PARTS)}")
    where.add_argument("--test-fraction", type=_fraction, default=0.1, metavar="F", help="its share of the rows")
    where.add_argument("--conditional", action="store_true", help="tell encoder and decoder the label of each image")
    where.add_argument("--limit", type=number(int, 1), default=None, metavar="N", help="use only the first N images")
    where.add_argument("--out", type=Path, default=Path("runs/mnist"), metavar="FOLDER", help="folder for all results")
    where.add_argument("--resume", action="store_true", help="continue the run in --out with its own settings")
    where.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    where.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(**defaults)
    return parser


def add_threads(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --threads."""
    group.add_argument("--threads", type=number(int, 1), default=min(2, available_cores()), metavar="N",
                       help="number of cores to use; 1 and 2 give the same numbers up to rounding, and bit for bit "
                       "with --kernels numba, --prior normal, --posterior gaussian and any likelihood but "
                       "gaussian-optimal")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed flags; with --resume, the settings of the run in --out.  Writes nothing.  Raises UsageError."""
    args = parser.parse_args(argv)
    args.given = frozenset(_given(parser, argv))
    if args.resume and args.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if args.resume:
        _adopt(args, _given(parser, argv))
    check_folder(args)
    check_objective(args)
    check_reading(args)
    return args


def parse_few(flags: Collection[str], description: str, epilog: str, argv: Sequence[str] | None = None
              ) -> argparse.Namespace:
    """Like `parse`, for a script that has only some of the flags of `npvae train`, named in `flags` as settings.

    Raises UsageError; for a flag that only `npvae train` has, the message gives the command to run instead.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = training_parser()
    parser.description, parser.epilog, elsewhere = textwrap.fill(description, 88), epilog, set[str]()
    for action in parser._actions:
        if action.dest not in (*flags, "help"):
            action.help = argparse.SUPPRESS
            elsewhere.update(action.option_strings)
    for word in argv:
        if (given := word.partition("=")[0]) in elsewhere:
            raise UsageError(f"{given} is a flag of npvae train; run:  npvae train {' '.join(map(shell_word, argv))}")
    return parse(parser, argv)


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """The values of flags that the command line gives; no defaults."""
    blank = argparse.Namespace(**{action.dest: None for action in parser._actions})
    return {name: value for name, value in vars(parser.parse_args(argv, blank)).items() if value is not None}


def _adopt(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Replace `args` by the settings of the run to resume.  Raises UsageError if `given` has other values for them."""
    try:
        theirs = read_config(args.out)["settings"]
    except UsageError as error:
        raise UsageError(f"--resume: {error}") from None
    depends_on_epochs = theirs["lr_schedule"] != "constant" or theirs["cyclical"]
    may_change = () if depends_on_epochs else ("epochs",)
    ours = settings(argparse.Namespace(**{**vars(args), **given}))
    differing = [f"{flag(name)} is {theirs[name]} there, {ours[name]} here"
                 for name in given if name in ours and name not in may_change and ours[name] != theirs[name]]
    if differing:
        raise UsageError(f"--resume: the run in {args.out} has other settings: {'; '.join(differing)}")
    epochs = given.get("epochs", theirs["epochs"])
    vars(args).update({**theirs, "hidden": tuple(theirs["hidden"]), "epochs": epochs})


def check_folder(args: argparse.Namespace) -> None:
    """Raises UsageError if a new run would overwrite another run, or the remains of one."""
    if args.resume or args.overwrite:
        return
    if (args.out / CONFIG).exists():
        raise UsageError(f"--out {args.out} already holds a run: continue it with --resume, replace it with "
                         "--overwrite, or choose another folder")
    for name in CHECKPOINT, METRICS:
        if (args.out / name).exists():
            raise UsageError(f"--out {args.out} holds {name} of a run, but no {CONFIG}: replace it with --overwrite, "
                             "or choose another folder")


def check_objective(args: argparse.Namespace) -> None:
    """Raises UsageError for flags of the objective that exclude each other."""
    if args.objective == "iwae" and args.free_bits:
        raise UsageError("--free-bits needs the analytic KL of --objective elbo, got --objective iwae")
    if args.gradient == "stl" and (args.objective == "iwae" or args.free_bits):
        raise UsageError("--gradient stl needs --objective elbo without --free-bits; dreg fits iwae, total fits all")
    if args.gradient == "dreg" and args.objective == "elbo":
        raise UsageError("--gradient dreg needs the weights of --objective iwae; stl fits elbo, total fits all")
    for name, needed in (("posterior", "gaussian"), ("prior", "normal")):
        if args.free_bits and vars(args)[name] != needed:
            raise UsageError(f"--free-bits needs the analytic KL of --{name} {needed}, got --{name} {vars(args)[name]}")
    if args.cyclical and args.kl_warmup * args.cyclical > args.epochs:
        raise UsageError(f"--kl-warmup {args.kl_warmup:g} is longer than one of the {args.cyclical} cycles in "
                         f"{args.epochs} epochs")


def check_reading(args: argparse.Namespace) -> None:
    """Raises UsageError for flags of reading that exclude each other."""
    if args.grey and args.rgb:
        raise UsageError("--grey and --rgb exclude each other")


def has_exact_kl(args: argparse.Namespace) -> bool:
    """Whether the KL term of this network has a closed form.  If not, it is estimated from the draws of z."""
    return bool(args.posterior == "gaussian" and args.prior == "normal")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run, with its "settings" checked as flags are and completed.  Raises UsageError."""
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
    theirs = {**{name: defaults[name] for name in _ADDED}, **_FORMER, **config["settings"]}
    if theirs.keys() != defaults.keys():
        names = one_line(", ".join(sorted(theirs.keys() ^ defaults.keys())))
        raise UsageError(f"{path} is of another program or version: its settings differ in {shortened(names, 200)}")
    return {**config, "settings": _as_flags(path, parser, theirs)}


def _as_flags(path: Path, parser: argparse.ArgumentParser, theirs: dict[str, Any]) -> dict[str, Any]:
    """The settings of a file, parsed as flags.  Raises UsageError for settings that flags cannot have given."""
    try:
        args = parser.parse_args([word for name, value in theirs.items() for word in _as_words(name, value)])
        check_objective(args)
        check_reading(args)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removesuffix(f' (see {parser.prog} --help)')}") from None
    for name, value in theirs.items():
        if isinstance(value, str) and not _is_possible_argument(value):
            raise UsageError(f"{path}: {name} is {shown(value)}, which no command line can hold")
    ours = settings(args)
    for name, value in theirs.items():
        if ours[name] != value or isinstance(ours[name], bool) != isinstance(value, bool):
            raise UsageError(f"{path}: {name} is {shown(value)}, which no flag can give")
    return ours


def _as_words(setting: str, value: object) -> list[str]:
    """A setting as words of a command line."""
    if value is None or isinstance(value, bool):
        return [flag(setting)] if value else []
    return [f"{flag(setting)}={flag_value(value)}"]


def _is_possible_argument(text: str) -> bool:
    """Whether the operating system can pass this text to a program."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run, as values of JSON: every flag that decides what is computed."""
    kept = {name: value for name, value in vars(args).items() if name not in _NOT_SETTINGS}
    return {**kept, "hidden": list(args.hidden)}


def steps_per_epoch(images: int, batch_size: int) -> int:
    """The number of batches in an epoch; the last one may be smaller."""
    return math.ceil(images / batch_size)


def make_objective(args: argparse.Namespace, images: int) -> Objective:
    """The objective that the flags name, for a training set of `images` images."""
    steps = steps_per_epoch(images, args.batch_size)
    beta: float | Schedule = args.beta
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
    """Adam with the learning-rate schedule that the flags name, for a training set of `images` images."""
    total = args.epochs * steps_per_epoch(images, args.batch_size)
    if args.lr_schedule == "cosine":
        return Adam(CosineLR(args.lr, total), weight_decay=args.weight_decay)
    if args.lr_schedule == "steps":
        steps = StepLR(args.lr, sorted({max(1, total // 2), max(1, 3 * total // 4)}))
        return Adam(steps, weight_decay=args.weight_decay)
    return Adam(ConstantLR(args.lr), weight_decay=args.weight_decay)


def resume_command(args: argparse.Namespace) -> str:
    """The command that continues this run: `npvae train`, or `python -m npvae train` if a script was run."""
    program, python = Path(sys.argv[0]), shortest(sys.executable)
    start = [python, "-m", "npvae"] if program.suffix == ".py" else [shortest(sys.argv[0])]
    out = str(args.out)
    if out.startswith("-"):      # argparse would take it for a flag
        out = f"./{out}"
    if out.endswith("\n"):      # $(...), with which `shell_word` quotes, drops line breaks at the end
        out = f"{out}/"
    return " ".join(map(shell_word, [*start, "train", "--out", out, "--threads", str(args.threads), "--resume"]))
