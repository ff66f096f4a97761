"""The commands of `npvae` that go through every row of a data set, or through a file of codes.  Not part of the lesson;
read `commands.py` first, and `data/codes.py` for the files.
"""
import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.codes import as_csv, as_npy, joined, load_codes, numbered
from ..data.labels import class_codes
from ..data.tables import read_cells
from ..evaluate.scores import WARNING, RowScores, quantiles, score_rows
from ..latents.flows import NoFlow
from ..likelihoods.columns import Column
from ..params import Array
from ..system.terminal import plain
from . import command_line, commands, runs
from .command_line import UsageError
from .runs import SavedRun, as_seen, load_images, take_other_data, tell, training_images

_LOW = 0.01      # rows below this quantile of the training rows are counted


def encode(args: argparse.Namespace) -> None:
    """Write the code of every row."""
    run, out = commands.opened(args, "codes.csv", [".csv", ".npy"])
    x, labels, codes, _ = _every_row(run, args)
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


def score(args: argparse.Namespace) -> None:
    """Write log p(x) and its parts for every row, and where each row stands among the training rows."""
    run, out = commands.opened(args, "scores.csv", [".csv", ".npy", ".json"])
    vae, rng = run.vae, np.random.default_rng(args.seed)
    if args.columns and not vae.likelihood.by_column:
        raise UsageError(f"--columns: likelihood {run.args.likelihood} is no sum over columns")
    training = training_images(run, args.against) if args.against else None
    x, labels, codes, columns = _every_row(run, args)

    def scored(rows: Array, classes: Array | None) -> RowScores:
        return score_rows(vae, rows, rng, args.samples, classes, args.columns, lambda blocks:
                          command_line.progress(blocks, "blocks of rows"))

    found = scored(x, codes)
    numbers = {"log_p": found.log_p, "log_p_error": found.errors, "elbo": found.elbo,
               "reconstruction": found.reconstruction, "kl": found.kl}
    if training is not None:
        numbers["quantile"] = quantiles(found.log_p, scored(*training).log_p)
    if found.columns is not None:
        names = [column.name for column in columns] or range(1, 1 + x.shape[1])
        numbers |= {f"reconstruction_{name}": part for name, part in zip(names, found.columns.T)}
    print(f"{len(x):,} rows of {plain(str(run.args.data_dir))}, nats per row, means: log p(x) "
          f"{found.log_p.mean():.2f}; ELBO {found.elbo.mean():.2f} = -reconstruction {found.reconstruction.mean():.2f} "
          f"- KL {found.kl.mean():.2f}")
    if training is not None:
        low = int((numbers["quantile"] < _LOW).sum())
        print(f"{low:,} rows with a log p(x) as low as that of the lowest {_LOW:.0%} of {len(training[0]):,} training "
              "rows")
    meaning = commands.meaning_of(run, x)
    print(f"({meaning})\n{WARNING[0].upper()}{WARNING[1:]}")
    table = {"row": np.arange(len(x)), **({} if labels is None else {"label": labels}), **numbers}
    if out.suffix.lower() == ".json":
        plainly = {name: [None if value != value else value for value in cells.tolist()]
                   for name, cells in table.items()}
        content = {"run": str(args.run), "data": run.args.data_dir, "samples": args.samples, "seed": args.seed,
                   "against": 0 if training is None else len(training[0]), "meaning": meaning, "warning": WARNING,
                   "columns": plainly}
        commands.write("--out", out, (json.dumps(content) + "\n").encode())
    else:
        commands.write("--out", out, as_csv(table) if out.suffix.lower() == ".csv" else
                       as_npy(np.stack([*numbers.values()], 1)))


def impute(args: argparse.Namespace) -> None:
    """Write the data with its missing cells filled in, once or several times."""
    run, out = commands.opened(args, "imputed.csv", [".csv", ".npy"])
    if not run.vae.missing:
        raise UsageError(f"the run in {run.folder} takes no missing cells: there were none in its training data")
    x, labels, codes, columns = _every_row(run, args)
    filled = run.vae.impute(x, np.random.default_rng(args.seed), args.samples, args.draws, codes)
    gaps = np.isnan(x)
    print(f"{int(gaps.sum()):,} missing cells in {int(gaps.any(axis=1).sum()):,} of {len(x):,} rows of "
          f"{plain(str(run.args.data_dir))}, filled in " + ("by their means, of categories by the most probable"
                                                            if args.draws is None else f"{args.draws} times"))
    if out.suffix.lower() == ".npy":
        commands.write("--out", out, as_npy(filled))
        return
    copies, source = filled.reshape(-1, *x.shape), Path(run.args.data_dir)
    number = [[]] if args.draws is None else [[str(m + 1)] for m in range(args.draws)]
    if columns and source.suffix.lower() == ".csv":
        layout, rows = read_cells(source, runs._reading(run.args, True))
        header, mark, comma = [layout.header] * bool(layout.header), layout.delimiter, layout.comma
        places = [layout.names.index(column.name) for column in columns]
    else:
        rows = [list(map(str, row)) for row in x]
        header, mark, comma, places = [[column.name for column in columns] or [*numbered("x", x)]], ",", False, [
            *range(x.shape[1])]
    written = [[*(["draw"] * (args.draws is not None)), *names] for names in header]
    for first, copy in zip(number, copies):
        for cells, row, gone in zip(rows, copy, gaps):
            cells = [*first, *cells]
            for j in np.flatnonzero(gone).tolist():
                text = columns[j].text(float(row[j])) if columns else str(row[j])
                cells[len(first) + places[j]] = text.replace(".", ",") if comma else text
            written.append(cells)
    commands.write("--out", out, joined(written, mark))


def _every_row(run: SavedRun, args: argparse.Namespace
               ) -> tuple[Array, Array | None, Array | None, Sequence[Column]]:
    """Every row of --data-dir, or of the run's data, in their order, those of a test set at the end: x (N, D) as the
    model sees it, binarized as in training; the labels (N,) in the data, if there are any; for a conditional
    model their class indices (N,); and the columns of a table."""
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
    return x, labels, codes, images.columns
