"""The program `npvae`: its commands and their flags.  Beside the lesson; `commands.py` and `runs.py` do the work.

`main` takes the first word as the command; each command has a parser of its own, so that it can be read by itself.
"""
import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from .. import data
from ..checkpoint import CheckpointError
from . import commands, options, runs
from .command_line import CHECKPOINT, Parser, UsageError, number

_HELP = """npvae: variational autoencoders from scratch in NumPy, every gradient derived and written by hand

the first three things to do:
  npvae train                  train on MNIST, which comes with npvae; seconds, and all results are in runs/mnist
  npvae sample runs/mnist      new digits: a picture
  npvae explore runs/mnist     a web page to drag through the latent space

and with pictures of your own, all of one size, in the folder PICTURES:
  npvae train --data-dir PICTURES --out runs/mine

commands:
{commands}

npvae COMMAND --help says more, with examples.  RUN is a folder that npvae train has made.
exit codes: 0 done, 1 training failed or gradients are wrong, 2 bad input (one line says what), 130 stopped by Ctrl-C"""


class Command(NamedTuple):
    """One command: a line of help, its parser, how that is used, and what is done with the flags."""

    help: str
    parser: Callable[[], argparse.ArgumentParser]
    run: Callable[[argparse.Namespace], int | None]
    parse: Callable[[argparse.ArgumentParser, Sequence[str]], argparse.Namespace] = argparse.ArgumentParser.parse_args


def main(argv: Sequence[str] | None = None) -> int | None:
    """Do what the command line (of this process, or `argv`) says; the exit code, None for 0.  Raises what
    `cli.exit_code` expects."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_HELP.format(commands="\n".join(f"  {name:12s} {command.help}" for name, command in COMMANDS.items())))
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(f"there is no command {argv[0]}; the commands are {', '.join(COMMANDS)} (see npvae --help)")
    command = COMMANDS[argv[0]]
    args = command.parse(command.parser(), argv[1:])
    with threadpool_limits(vars(args).get("threads", 1), user_api="blas"):
        return command.run(args) if vars(args).get("run") is None else _on_run(command, args)


def _on_run(command: Command, args: argparse.Namespace) -> int | None:
    """The command on a trained run.  Numbers that overflow in its model are no warnings, and what is wrong with the
    model is said of its file."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return command.run(args)
    except (UsageError, CheckpointError, data.DataError):
        raise
    except MemoryError as error:
        source = vars(args).get("data_dir") or args.run
        raise MemoryError(f"{source}: there is not memory enough: {error}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{args.run / CHECKPOINT}: {error}") from None


# ---- The parsers

def _training() -> argparse.ArgumentParser:
    parser = options.training_parser()
    parser.prog = "npvae train"
    return parser


def _parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """What the commands on a run have in common."""
    parser = Parser(f"npvae {name}", description, f"examples:\n{examples}")
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that npvae train has made, finished or not")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", default=None, metavar="PATH",
                        help=f"other data than the run's, of as many pixels: {data.ALLOWED}")


def _add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=number(int, 0, bits=128), default=0, help=what)


def _add_out(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    parser.add_argument("--out", type=Path, default=None, metavar="FILE", help=f"{what} (default: RUN/{default})")


def _evaluating() -> argparse.ArgumentParser:
    parser = _parser("evaluate", "What a trained model is worth on its test set, in nats per image: the evidence lower "
                     "bound, its two parts distortion and rate, importance-weighted bounds and log p(x) (Burda et al. "
                     "2016) with their errors and whether they stand in their order, active units, and the KL of each "
                     "latent dimension.  The test set is binarized as in training.",
                     "  %(prog)s runs/mnist\n"
                     "  %(prog)s runs/mnist --limit 10000 --json numbers.json     all of MNIST's test set; minutes\n"
                     "  %(prog)s runs/mnist --samples 50 --limit 100              a first look\n")
    parser.add_argument("--samples", type=number(int, 1), default=5000, metavar="L",
                        help="importance samples per image")
    parser.add_argument("--limit", type=number(int, 1), default=1000, metavar="N",
                        help="test images, evenly spread over the set; all, if it has no more")
    _add_seed(parser, "of the draws of z")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the numbers there, too")
    _add_data(parser)
    options.add_threads(parser)
    return parser


def _sampling() -> argparse.ArgumentParser:
    parser = _parser("sample", "New images: z from the prior, decoded.  A picture of them all, or rows of numbers.",
                     "  %(prog)s runs/mnist\n"
                     "  %(prog)s runs/mnist --count 25 --seed 3 --out digits.png\n"
                     "  %(prog)s runs/mnist --count 60000 --draw --out drawn.npy   (60000, 784), drawn pixels\n"
                     "  %(prog)s runs/by_class --label 3 8                         of a run with --conditional\n")
    parser.add_argument("--count", type=number(int, 1), default=100, metavar="N", help="how many")
    parser.add_argument("--label", nargs="+", default=None, metavar="NAME",
                        help="of which classes, where the run knows any: all of them unless named, class after class; "
                        "in a picture a row for each, with the same z along a column")
    parser.add_argument("--draw", action="store_true", help="draw the pixels from p(x|z), instead of their mean")
    _add_seed(parser, "of the draws")
    _add_out(parser, "sample.png", "a .png picture or an .npy array (N, D)")
    options.add_threads(parser)
    return parser


def _reconstructing() -> argparse.ArgumentParser:
    parser = _parser("reconstruct", "Test images, each with its reconstruction under it: E[x|z] at one z from q(z|x).",
                     "  %(prog)s runs/mnist\n"
                     "  %(prog)s runs/mnist --count 50 --seed 1                    other images\n"
                     "  %(prog)s runs/mnist --data-dir OTHER --out others.png      what it makes of other data\n")
    parser.add_argument("--count", type=number(int, 1), default=20, metavar="N", help="how many, chosen at random")
    _add_seed(parser, "of the choice and of z")
    return _with_data_and_out(parser, "reconstruct.png")


def _interpolating() -> argparse.ArgumentParser:
    parser = _parser("interpolate", "Pairs of test images, and straight ways between their codes, decoded.",
                     "  %(prog)s runs/mnist\n"
                     "  %(prog)s runs/mnist --count 10 --seed 1\n"
                     "  %(prog)s runs/mnist --images 3 18 4 2                      from 3 to 18, and from 4 to 2\n")
    parser.add_argument("--count", type=number(int, 1), default=6, metavar="N", help="pairs, chosen at random")
    parser.add_argument("--images", type=number(int, 0), nargs="+", default=None, metavar="I",
                        help="pairs of test images by their numbers, instead of random ones")
    _add_seed(parser, "of the choice")
    return _with_data_and_out(parser, "interpolate.png")


def _traversing() -> argparse.ArgumentParser:
    parser = _parser("traverse", "One test image, one latent coordinate varied from -3 to 3 sigma of the prior in "
                     "each row, those with the most KL first.",
                     "  %(prog)s runs/mnist\n"
                     "  %(prog)s runs/mnist --image 42 --rows 20 --out traverse42.png\n")
    parser.add_argument("--image", type=number(int, 0), default=0, metavar="I", help="test image to start from")
    parser.add_argument("--rows", type=number(int, 1), default=10, metavar="N", help="at most so many dimensions")
    return _with_data_and_out(parser, "traverse.png")


def _exploring() -> argparse.ArgumentParser:
    parser = _parser("explore", "A web page, in one file, with the decoder in it: drag through the latent space, and "
                     "the image follows.  It needs no network.",
                     "  %(prog)s runs/mnist\n"
                     "  %(prog)s runs/mnist --out digits.html\n")
    return _with_data_and_out(parser, runs.EXPLORER, "the page, .html")


def _with_data_and_out(parser: argparse.ArgumentParser, name: str, what: str = "the picture, .png"
                       ) -> argparse.ArgumentParser:
    _add_out(parser, name, what)
    _add_data(parser)
    options.add_threads(parser)
    return parser


def _checking() -> argparse.ArgumentParser:
    small = f"{commands.SMALL['pixels']}-7-5-{commands.SMALL['latent']}"
    parser = Parser("npvae gradcheck",
                    "Are the gradients right?  Those of a run's trained network, or of one that the flags name, in "
                    "float64 on the reference kernels, against the complex step, which is exact to rounding; of a "
                    "large network along random directions.  Exit code 1 if one is wrong.",
                    "examples:\n"
                    f"  %(prog)s                                             a small network, {small}\n"
                    "  %(prog)s runs/mnist                                  the trained one, along directions\n"
                    "  %(prog)s --hidden 9,8 --activation tanh --likelihood gaussian-pixel\n"
                    "  %(prog)s --objective iwae --k 5\n")
    parser.add_argument("run", type=Path, nargs="?", default=None, metavar="RUN",
                        help="a folder that npvae train has made")
    parser.add_argument("--pixels", type=number(int, 1), metavar="D", help="numbers per image")
    options.add_network(parser)
    options.add_objective(parser)
    _add_seed(parser, "of images, noise and, without RUN, parameters")
    parser.set_defaults(**dict.fromkeys(commands.SMALL))      # None: what is given can be told from what is not
    return parser


def _informing() -> argparse.ArgumentParser:
    return _parser("info", "Everything a run's folder says of it: settings, parameters, epochs done, last numbers, "
                   "versions, files.", "  %(prog)s runs/mnist\n")


COMMANDS = {
    "train": Command("train a model: pictures, numbers, report.html and a checkpoint", _training, runs.train,
                     options.parse),
    "evaluate": Command("measure it: bound, log p(x), active units", _evaluating, commands.evaluate),
    "sample": Command("new images from the prior", _sampling, commands.sample),
    "reconstruct": Command("test images and their reconstructions", _reconstructing, commands.reconstruct),
    "interpolate": Command("from one test image to another", _interpolating, commands.interpolate),
    "traverse": Command("one latent coordinate at a time", _traversing, commands.traverse),
    "gradcheck": Command("are the gradients right?  of a run or of any network", _checking, commands.gradcheck),
    "explore": Command("a web page to drag through the latent space", _exploring, commands.explore),
    "info": Command("settings, parameters, numbers and files of a run", _informing, commands.info)}
