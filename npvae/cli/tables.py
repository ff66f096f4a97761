"""What is different about a run on a table: its likelihood, its default settings, what is printed.  Not part of the
lesson; read `runs.py` first.
"""
import argparse
import math

import numpy as np

from ..data.columns import described
from ..data.images import ImageData
from ..likelihoods import TABLE, Likelihood, Table
from . import options
from .command_line import UsageError

_STEPS = 3000      # of training; on tables of a few hundred rows more of them gain some tenths of a nat


def settle(args: argparse.Namespace, images: ImageData) -> None:
    """Sets the likelihood and those settings that no flag has given to what suits this table, and says so."""
    if args.resume:
        return
    rows = len(images.train_images)
    batch_size = args.batch_size if "batch_size" in args.given else 16 if rows < 2000 else 128
    chosen = {"likelihood": TABLE, "hidden": (64,), "latent": min(8, max(2, len(images.columns))), "activation": "tanh",
              "batch_size": batch_size, "lr": 3e-3, "lr_schedule": "cosine",
              "epochs": max(10, math.ceil(_STEPS / options.steps_per_epoch(rows, batch_size)))}
    chosen = {name: value for name, value in chosen.items() if name not in args.given}
    vars(args).update(chosen)
    if not args.quiet:
        print(described(images.columns, np.concatenate([images.train_images, images.test_images])))
        words = [f"{options.flag(name)} {options.flag_value(list(value) if isinstance(value, tuple) else value)}"
                 for name, value in chosen.items()]
        print(f"settings for this table, unless flags give others: {' '.join(words)}\n")


def likelihood_of(args: argparse.Namespace, images: ImageData) -> str | Likelihood:
    """The likelihood that the settings name, of a table with its columns.  Raises UsageError for settings that a table
    does not take."""
    if not images.columns and args.likelihood == TABLE:
        raise UsageError(f"--likelihood table needs a .csv file, got {args.data_dir}")
    if not images.columns:
        return str(args.likelihood)
    if args.likelihood != TABLE:
        raise UsageError(f"--columns makes a table of {args.data_dir}, and --likelihood {args.likelihood} is of "
                         "something else: leave one of the two out")
    if args.binarize != "none":
        raise UsageError(f"--binarize {args.binarize} is for pictures, and {args.data_dir} is a table")
    return Table(images.columns)
