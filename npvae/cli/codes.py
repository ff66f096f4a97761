"""The commands of `npvae` that go through every row of a data set, or through a file of codes.  Not part of the lesson;
read `commands.py` first, and `data/codes.py` for the files.
"""
import argparse

import numpy as np

from ..data.codes import as_csv, as_npy, load_codes, numbered
from ..data.labels import class_codes
from ..latents.flows import NoFlow
from ..params import Array
from . import commands
from .command_line import UsageError
from .runs import SavedRun, as_seen, load_images, take_other_data, tell


def encode(args: argparse.Namespace) -> None:
    """Write the code of every row."""
    run, out = commands.opened(args, "codes.csv", [".csv", ".npy"])
    x, labels, codes = _every_row(run, args)
    vae, row, draws = run.vae, np.arange(len(x)), {}
    flows = type(vae.flow) is not NoFlow
    if args.logvar and flows:
        raise UsageError(f"--logvar: q(z|x) of posterior {run.args.posterior} has no variances of its own; --draws "
                         "draws from it")
    if args.draws:
        rng = np.random.default_rng(args.seed)
        z = np.stack([vae.draw_posterior(x, rng, codes) for _ in range(args.draws)], 1)
        row, draws = np.repeat(row, args.draws), {"draw": np.tile(np.arange(args.draws) + 1, len(x))}
        numbers = numbered("z", z.reshape(-1, vae.latent_dim))
    else:
        mu, logvar = vae.encode(x, codes)
        numbers = numbered("z", vae.move(mu, x, codes)) if flows else numbered("mu", mu)
        if args.logvar:
            numbers |= numbered("logvar", logvar)
    if out.suffix.lower() == ".npy":
        commands.write("--out", out, as_npy(np.stack([*numbers.values()], 1)))
        return
    named = {} if labels is None else {"label": labels[row]}
    commands.write("--out", out, as_csv({"row": row, **named, **draws, **numbers}))


def decode(args: argparse.Namespace) -> None:
    """Write E[x|z] of the codes in a file: as a picture, as an array, or as a table."""
    run, out = commands.opened(args, "decode.png", [".png", ".npy", ".csv"])
    z, others = load_codes(args.codes, run.vae.latent_dim)
    labels = None
    if args.label is not None:
        labels = np.full(len(z), commands.chosen_classes(run, [args.label])[0])
    elif run.classes and "label" not in others:
        raise UsageError(f"{args.codes}: has no column label, and the run in {run.folder} has classes: --label NAME "
                         "gives all codes that class")
    elif run.classes:
        labels = class_codes(np.array(others["label"]), run.classes, args.codes)
    commands.write_rows(run, out, run.vae.decode(z, labels), others, "Decoded codes")


def _every_row(run: SavedRun, args: argparse.Namespace) -> tuple[Array, Array | None, Array | None]:
    """Every row of --data-dir, or of the run's data, in their order, those of a test set at the end: x (N, D) as the
    model sees it, binarized as in training; the labels (N,) in the data, if there are any; and, for a conditional
    model, their class indices (N,)."""
    if args.data_dir is not None:
        take_other_data(run.args, args.data_dir)
    run.args.limit = None
    images = load_images(run.args, whole=True)
    labels = None
    if images.train_labels is not None and images.test_labels is not None:
        labels = np.concatenate([images.train_labels, images.test_labels])
    codes = class_codes(labels, run.classes, run.args.data_dir)
    x = as_seen(run.vae, "the data", np.concatenate([images.train_images, images.test_images]), run.args, codes)
    if args.data_dir is not None:
        tell(run.args, images)
    return x, labels, codes
