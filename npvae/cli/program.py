"""The program `npvae`: the table of its commands, and their flags.  Not part of the lesson; `commands.py` and `runs.py`
have the code of the commands.
"""
import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from .. import data
from ..checkpoint import CheckpointError
from ..engine.executor import available_cores
from ..latents.aggregate import components_in
from . import codes, commands, compressed, options, runs
from .command_line import CHECKPOINT, Parser, UsageError, number

_HELP = """npvae: variational autoencoders from scratch in NumPy, every gradient derived and written by hand

first steps:
  npvae train                  train on MNIST, which comes with npvae, for some seconds; the results are in runs/mnist
  npvae sample runs/mnist      a picture of new digits
  npvae explore runs/mnist     a web page: drag through the latent space

with a folder PICTURES of your own pictures, all of one size:
  npvae train --data-dir PICTURES --out runs/mine

commands:
{commands}

npvae COMMAND --help lists the flags of a command, with examples.  RUN is a folder that npvae train has made.
npvae --version prints the versions of npvae and of what it runs on.
exit codes: 0 done, 1 training failed or gradients are wrong, 2 bad input (one line says why), 130 Ctrl-C"""


_ROWS_OUT = "a .png file for a picture, .csv for a table, or .npy for an array (N, D)"


class Command(NamedTuple):
    """A command: its line of help, and the functions that make its parser, run it, and parse its flags."""

    help: str
    parser: Callable[[], argparse.ArgumentParser]
    run: Callable[[argparse.Namespace], int | None]
    parse: Callable[[argparse.ArgumentParser, Sequence[str]], argparse.Namespace] = argparse.ArgumentParser.parse_args


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command that `argv` names; by default, that of the command line.  Returns its exit code, None for 0.
    Raises the exceptions that `cli.exit_code` handles."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP.format(commands="\n".join(f"  {name:12s} {command.help}" for name, command in COMMANDS.items())))
        return 0
    if argv[0] == "--version":
        print(versions())
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(f"there is no command {argv[0]}; the commands are {', '.join(COMMANDS)} (see npvae --help)")
    command = COMMANDS[argv[0]]
    args = command.parse(command.parser(), argv[1:])
    with threadpool_limits(vars(args).get("threads", 1), user_api="blas"):
        return command.run(args) if vars(args).get("run") is None else _on_run(command, args)


def versions() -> str:
    """npvae and what it runs on, as a bug report needs it: packages, BLAS, cores."""
    lines = [f"Python {platform.python_version()} on {platform.platform()}"]
    for package in "npvae", "numpy", "numba", "matplotlib", "mpi4py":
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{package} is not installed")
    for library in threadpool_info():
        if library["user_api"] == "blas":
            lines.append(f"BLAS {library['internal_api']} {library['version']}"
                         f"{', ' + library['architecture'] if library.get('architecture') else ''}")
    lines.append(f"{available_cores()} cores")
    return "\n".join(lines)


def _on_run(command: Command, args: argparse.Namespace) -> int | None:
    """Run a command on a trained run.  Overflow in its model gives no warnings, and errors name a file as their source.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return command.run(args)
    except (UsageError, CheckpointError, data.DataError):
        raise
    except MemoryError as error:
        source = vars(args).get("data_dir") or args.run
        raise MemoryError(f"{source}: there is not enough memory: {error}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{args.run / CHECKPOINT}: {error}") from None


# ---- The parsers

def _train_parser() -> argparse.ArgumentParser:
    parser = options.training_parser()
    parser.prog = "npvae train"
    return parser


def _run_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser with the argument RUN."""
    parser = Parser(f"npvae {name}", description, f"examples:\n{examples}")
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that npvae train has made, finished or not")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", default=None, metavar="PATH",
                        help=f"other data than the run's, of as many pixels: {data.ALLOWED}")


def _add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=number(int, 0, bits=128), default=0, help=f"seed of {what}")


def _add_out(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help=f"{what} (default: RUN/{default})")


def _add_out_and_data(parser: argparse.ArgumentParser, default: str, what: str = "a .png file for the picture") -> None:
    _add_out(parser, default, what)
    _add_data(parser)
    options.add_threads(parser)


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "evaluate",
        "Measure a trained model on its test set, in nats per image: the evidence lower bound and its two parts, "
        "distortion and rate; importance-weighted bounds and log p(x) (Burda et al. 2016) with standard errors, and "
        "whether the bounds are in order; active units; and the KL of each latent dimension.  The test set is "
        "binarized as in training.",
        "  %(prog)s runs/mnist\n"
        "  %(prog)s runs/mnist --limit 10000 --json numbers.json     all of MNIST's test set, in minutes\n"
        "  %(prog)s runs/mnist --samples 50 --limit 100              a first look\n")
    parser.add_argument("--samples", type=number(int, 1), default=5000, metavar="L",
                        help="importance samples per image")
    parser.add_argument("--limit", type=number(int, 1), default=1000, metavar="N",
                        help="number of test images, evenly spaced over the test set; all, if there are fewer")
    _add_seed(parser, "the draws of z")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="also write the numbers to this file")
    _add_data(parser)
    options.add_threads(parser)
    return parser


def _source(text: str) -> str:
    """A type for argparse: prior, or mixture:C."""
    if text != "prior":
        try:
            components_in(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, or be prior") from None
    return text


def _sample_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "sample", "Draw z from the prior, or from a mixture fitted to codes of the training set, and decode it: new "
        "images, as one picture, or rows of data.",
        "  %(prog)s runs/mnist\n"
        "  %(prog)s runs/mnist --from mixture:10                      fewer images that look like nothing\n"
        "  %(prog)s runs/mnist --count 25 --seed 3 --out digits.png\n"
        "  %(prog)s runs/mnist --count 60000 --draw --out drawn.npy   (60000, 784), drawn pixels\n"
        "  %(prog)s runs/mine --count 1000 --draw --out new.csv       a table\n"
        "  %(prog)s runs/by_class --label 3 8                         of a run with --conditional\n")
    parser.add_argument("--count", type=number(int, 1), default=100, metavar="N", help="number of images")
    parser.add_argument("--label", nargs="+", default=None, metavar="NAME",
                        help="classes of the images, for a run with --conditional: all classes by default; in a "
                        "picture each row has one class and each column one z")
    parser.add_argument("--from", dest="source", type=_source, default="prior", metavar="WHERE",
                        help="what z is drawn from: prior, p(z); or mixture:C, C Gaussians fitted to codes of the "
                        "training set, which are drawn from q(z|x)")
    parser.add_argument("--draw", action="store_true", help="draw pixels from p(x|z); by default they are its mean")
    _add_seed(parser, "the draws")
    _add_out(parser, "sample.png", _ROWS_OUT)
    options.add_threads(parser)
    return parser


def _encode_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "encode", "Write the code of every row of the run's data, or of other data: the mean mu of q(z|x), or draws of "
        "z.  A .csv has a column with the number of the row, counted from 0, and the labels, if there are any.",
        "  %(prog)s runs/mine                                         RUN/codes.csv\n"
        "  %(prog)s runs/mine --data-dir new.csv --out codes.csv --logvar\n"
        "  %(prog)s runs/mine --data-dir new.csv --out codes.npy      an array (N, Z)\n"
        "  %(prog)s runs/mine --draws 10 --seed 1                     ten draws of z a row\n")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--logvar", action="store_true", help="also write logvar, the log variances of q(z|x)")
    what.add_argument("--draws", type=number(int, 1), default=None, metavar="N",
                      help="write N draws of z a row instead of mu; in a .csv with a column draw")
    _add_seed(parser, "the draws")
    _add_out_and_data(parser, "codes.csv", "a .csv file, or .npy for the codes alone")
    return parser


def _score_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "score", "How likely is each row of the run's data, or of other data?  In nats: log p(x) by importance "
        "sampling, with its error; the ELBO and its parts, reconstruction -log p(x|z) and KL; and the quantile of log "
        "p(x) among those of training rows, near 0 for outliers.",
        "  %(prog)s runs/mine --data-dir new.csv                      RUN/scores.csv\n"
        "  %(prog)s runs/mine --data-dir new.csv --columns --out scores.csv    which columns make a row unlikely\n"
        "  %(prog)s runs/mine --data-dir new.csv --samples 5000 --out scores.json\n")
    parser.add_argument("--samples", type=number(int, 1), default=500, metavar="L", help="importance samples per row")
    parser.add_argument("--columns", action="store_true",
                        help="also write what each column adds to the reconstruction: the terms of its sum")
    parser.add_argument("--against", type=number(int, 0), default=1000, metavar="N",
                        help="number of training rows, evenly spaced, to compare with; 0: no column quantile")
    _add_seed(parser, "the draws of z")
    _add_out_and_data(parser, "scores.csv", "a .csv or .json file, or .npy for the numbers alone")
    return parser


def _impute_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "impute", "Fill in the missing cells of the run's data, or of other data, by self-normalised importance "
        "sampling (Mattei and Frellsen 2019): with the mean given the observed cells of the row, for categories the "
        "most probable one; or several times with draws, for multiple imputation.  Observed cells stay as they stand "
        "in the file.",
        "  %(prog)s runs/mine --data-dir gaps.csv                     RUN/imputed.csv\n"
        "  %(prog)s runs/mine --data-dir gaps.csv --draws 20 --out filled.csv\n")
    parser.add_argument("--draws", type=number(int, 1), default=None, metavar="M",
                        help="write M completed tables, one below the other, with a column draw")
    parser.add_argument("--samples", type=number(int, 1), default=1000, metavar="L", help="importance samples per row")
    _add_seed(parser, "the draws")
    _add_out_and_data(parser, "imputed.csv", "a .csv file, or .npy for an array (N, D), or (M, N, D)")
    return parser


def _decode_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "decode", "Decode the codes in a file, as npvae encode writes it: E[x|z] of each row, as a picture, an array, "
        "or a table, which keeps the other columns of the file.",
        "  %(prog)s runs/mine --codes codes.csv                       RUN/decode.png\n"
        "  %(prog)s runs/mine --codes codes.npy --out rows.csv\n"
        "  %(prog)s runs/by_class --codes codes.csv --label 3         of a run with --conditional\n")
    parser.add_argument("--codes", type=Path, required=True, metavar="FILE",
                        help="a .csv file with columns mu_1, mu_2, ... or z_1, z_2, ..., or a .npy file (N, Z)")
    parser.add_argument("--label", default=None, metavar="NAME", help="class of all rows, for a run with "
                        "--conditional; by default that in the column label")
    _add_out(parser, "decode.png", _ROWS_OUT)
    options.add_threads(parser)
    return parser


def _reconstruct_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "reconstruct", "Draw test images, each above its reconstruction: E[x|z] at one z drawn from q(z|x).",
        "  %(prog)s runs/mnist\n"
        "  %(prog)s runs/mnist --count 50 --seed 1                    other images\n"
        "  %(prog)s runs/mnist --data-dir OTHER --out others.png      images of other data\n")
    parser.add_argument("--count", type=number(int, 1), default=20, metavar="N",
                        help="number of images, chosen at random")
    _add_seed(parser, "the choice and of z")
    _add_out_and_data(parser, "reconstruct.png")
    return parser


def _interpolate_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "interpolate", "Draw pairs of test images, and between them decoded points of the line that joins their codes.",
        "  %(prog)s runs/mnist\n"
        "  %(prog)s runs/mnist --count 10 --seed 1\n"
        "  %(prog)s runs/mnist --images 3 18 4 2                      from 3 to 18, and from 4 to 2\n")
    parser.add_argument("--count", type=number(int, 1), default=6, metavar="N",
                        help="number of pairs, chosen at random")
    parser.add_argument("--images", type=number(int, 0), nargs="+", default=None, metavar="I",
                        help="numbers of the test images, pair by pair, instead of random ones")
    _add_seed(parser, "the choice")
    _add_out_and_data(parser, "interpolate.png")
    return parser


def _traverse_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "traverse", "Vary the code of one test image and decode it: in each row one latent coordinate runs from -3 to "
        "3 standard deviations of the prior.  Coordinates with the highest KL come first.",
        "  %(prog)s runs/mnist\n"
        "  %(prog)s runs/mnist --image 42 --rows 20 --out traverse42.png\n")
    parser.add_argument("--image", type=number(int, 0), default=0, metavar="I", help="number of the test image")
    parser.add_argument("--rows", type=number(int, 1), default=10, metavar="N", help="at most this many coordinates")
    _add_out_and_data(parser, "traverse.png")
    return parser


def _explore_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "explore", "Write a web page, in one file, that contains the decoder: drag a point through the latent space, "
        "and the page shows its image.  It needs no network.",
        "  %(prog)s runs/mnist\n"
        "  %(prog)s runs/mnist --out digits.html\n")
    _add_out_and_data(parser, runs.EXPLORER, "an .html file for the page")
    return parser


def _gradcheck_parser() -> argparse.ArgumentParser:
    small = f"{commands.SMALL['pixels']}-7-5-{commands.SMALL['latent']}"
    parser = Parser(
        "npvae gradcheck",
        "Check the gradients of a run's trained network, or of one that the flags name.  In float64 and with the "
        "reference kernels they are compared with the complex step, which is exact up to rounding; in a large network "
        "along random directions.  The exit code is 1 if a gradient is wrong.",
        "examples:\n"
        f"  %(prog)s                                             a small network, {small}\n"
        "  %(prog)s runs/mnist                                  a trained network, along random directions\n"
        "  %(prog)s --hidden 9,8 --activation tanh --likelihood gaussian-pixel\n"
        "  %(prog)s --objective iwae --k 5\n")
    parser.add_argument("run", type=Path, nargs="?", default=None, metavar="RUN",
                        help="a folder that npvae train has made")
    parser.add_argument("--pixels", type=number(int, 1), metavar="D", help="pixels of an image")
    options.add_network(parser)
    options.add_objective(parser)
    _add_seed(parser, "images, noise and, without RUN, parameters")
    parser.set_defaults(**dict.fromkeys(commands.SMALL))      # None: the flag was not given
    return parser


def _explain_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "npvae explain",
        "Write a web page, in one file, on which one image goes through the network and its gradient comes back: step "
        "by step each call of a kernel, with its formula and values; where two paths meet, both gradients and their "
        "sum; and the derivative with respect to a weight beside the complex step and the central difference.  The "
        "network is that of a run, or a small one, which the flags of network and objective may change.  All is "
        "computed in float64.",
        "examples:\n"
        "  %(prog)s runs/mnist\n"
        "  %(prog)s --small                              2-3-2, every number legible\n"
        "  %(prog)s --small --posterior planar:1 --likelihood gaussian\n")
    parser.add_argument("run", type=Path, nargs="?", default=None, metavar="RUN",
                        help="a folder that npvae train has made")
    parser.add_argument("--small", action="store_true", help="a small network that is not trained, in place of RUN")
    parser.add_argument("--pixels", type=number(int, 1), metavar="D", help="pixels of an image")
    options.add_network(parser)
    options.add_objective(parser)
    _add_seed(parser, "eps and, with --small, parameters")
    parser.add_argument("--book", metavar="ADDRESS", default=None,
                        help="where the site that examples/book.py makes is published: the ids of equations lead there "
                             "(default: to the chapters, if npvae runs from its repository)")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE",
                        help=f"an .html file for the page (default: RUN/{runs.EXPLAINED}, or {runs.EXPLAINED} here)")
    _add_data(parser)
    options.add_threads(parser)
    parser.set_defaults(**dict.fromkeys(commands.SMALL))      # None: the flag was not given
    return parser


def _compress_parser() -> argparse.ArgumentParser:
    parser = _run_parser(
        "compress", "Compress images without loss, with a trained model as the code: some -ELBO / log 2 bits an image, "
        "by bits back (chapter 17 of the derivations).  The model must give probabilities: likelihood bernoulli for "
        "black-and-white images, discretized-logistic, beta-binomial or categorical for bytes, poisson and "
        "negative-binomial for counts, categories and ordinal for codes.  To read the file, the "
        "same RUN is needed.  Needs the package constriction: pip install 'npvae[compress]'.",
        "  %(prog)s runs/grey digits.npy --out digits.npvae\n"
        "  %(prog)s runs/grey pictures/*.png --out pictures.npvae      grey pictures, in this order\n")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE",
                        help="images: .npy, .npz, .csv, IDX files, pictures, folders of them; pictures are read as "
                        "grey bytes, a training and a test set one after the other")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npvae file to write")
    options.add_threads(parser)
    return parser


def _decompress_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "npvae decompress", "Read a file that npvae compress has written, with the run that it was written with.  The "
        "images are the same as before, bit by bit, on any machine; a damaged file is an error.",
        "examples:\n"
        "  %(prog)s digits.npvae --run runs/grey --out digits.npy\n"
        "  %(prog)s pictures.npvae --run runs/grey --out pictures      a new folder of .png files\n")
    parser.add_argument("file", type=Path, metavar="FILE", help="a .npvae file")
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="the run that it was written with")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT",
                        help="a .npy file for an array, or a new folder for pictures")
    options.add_threads(parser)
    return parser


def _info_parser() -> argparse.ArgumentParser:
    parser = Parser(
        "npvae info", "Print what a run's folder holds: settings, parameters, epochs done, last numbers, versions, "
        "files.  Or what a compressed file says of its images and its model.",
        "examples:\n  %(prog)s runs/mnist\n  %(prog)s digits.npvae\n")
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that npvae train has made, or a .npvae file")
    return parser


COMMANDS = {
    "train": Command("train a model: pictures, numbers, report.html and a checkpoint", _train_parser, runs.train,
                     options.parse),
    "evaluate": Command("bounds, log p(x) and active units on test images", _evaluate_parser, commands.evaluate),
    "sample": Command("new images", _sample_parser, commands.sample),
    "encode": Command("the code of every row of a data set", _encode_parser, codes.encode),
    "decode": Command("images or rows of data from codes", _decode_parser, codes.decode),
    "score": Command("how likely each row is, and by which of its parts", _score_parser, codes.score),
    "impute": Command("a data set with its missing cells filled in", _impute_parser, codes.impute),
    "reconstruct": Command("test images and their reconstructions", _reconstruct_parser, commands.reconstruct),
    "interpolate": Command("images between pairs of test images", _interpolate_parser, commands.interpolate),
    "traverse": Command("a test image, one latent coordinate varied at a time", _traverse_parser, commands.traverse),
    "gradcheck": Command("check the gradients of a run or of any network", _gradcheck_parser, commands.gradcheck),
    "explore": Command("a web page: drag through the latent space", _explore_parser, commands.explore),
    "explain": Command("a web page: one image through the network, and its gradient back", _explain_parser,
                       commands.explain),
    "compress": Command("images in a file, without loss, the model as the code", _compress_parser, compressed.compress),
    "decompress": Command("the images of a compressed file", _decompress_parser, compressed.decompress),
    "info": Command("settings, parameters, numbers and files of a run", _info_parser, commands.info)}
