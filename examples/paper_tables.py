"""Published tables, reproduced: a test that no one here wrote.

    python examples/paper_tables.py rows                     what there is to train, and what the papers report
    python examples/paper_tables.py train vae-k1             train a row, or go on with it: Ctrl-C saves, a row is hours
    python examples/paper_tables.py measure vae-k1           log p(x) of the 10,000 test images, of each model kept
    python examples/paper_tables.py table                    the table, in Markdown, of all results so far

Rows of dynamic binarization follow Burda, Grosse and Salakhutdinov 2016 (IWAE), tables 1 and 2: 784-200-200 tanh to 50
and its mirror image, Glorot's uniform weights, output bias at the logit of the mean pixel, batches of 20, pixels
binarized anew at every visit, Adam with eps 1e-4, stages i = 0 ... 7 of 3^i epochs at a learning rate of
1e-3 * 10^(-i/7): 3,280 epochs.  Rows of static binarization (the 50,000/10,000/10,000 images of Larochelle and Murray
2011, not a part of npvae: --static FILE) share a network of 784-300-300 to 40, batches of 100, Adam at 5e-4, 100 epochs
of KL annealing, and keep the model of the best epoch on the 10,000 validation images (Tomczak and Welling 2018).

Everything goes to --out: a folder for each row with its checkpoint and the models kept.  `measure` adds to
`examples/paper_tables.jsonl`: protocol, seed, seconds and commit stand beside each number.
"""
import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable as Function
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from npvae import (ELBO, IWAE, VAE, Adam, Callback, Checkpoint, FreeBits, LinearAnnealing, MetricsLog, Progress, StepLR,
                   active_units, cli, fit, load_mnist)
from npvae.checkpoint import write_atomically
from npvae.data import binarize, to_float
from npvae.evaluate import log_likelihood
from npvae.hierarchical import active_units_per_layer
from npvae.lanes import available_cores
from npvae.objectives import Objective
from npvae.train import Run

RESULTS = Path(__file__).with_suffix(".jsonl")
ENDS = [sum(3 ** i for i in range(stages + 1)) for stages in range(8)]      # of the stages: 1, 4, 13, 40, ... 3280
WARMUP, LONGEST = 100, 400      # epochs, static rows
BLOCK = 250      # images measured at a time; after each the result so far is on disk

IWAE_NET: dict[str, Any] = {"hidden": (200, 200), "latent_dim": 50, "activation": "tanh"}
STATIC_NET: dict[str, Any] = {"hidden": (300, 300), "latent_dim": 40, "activation": "relu"}


def annealed(per_epoch: int) -> LinearAnnealing:
    return LinearAnnealing(WARMUP * per_epoch)


@dataclass(frozen=True)
class Row:
    """A row of a table: a model, how it is trained, and after which epochs it is kept.

    objective : of the steps in an epoch, since schedules count steps
    keep : epochs after which the model is kept; none where the best on the validation images is
    """

    published: str
    data: str
    model: dict[str, Any]
    objective: Function[[int], Objective]
    k: int = 1
    epochs: int = ENDS[-1]
    keep: tuple[int, ...] = (100, *ENDS[4:])
    batch: int = field(default=20)


def static_row(published: str, objective: Function[[int], Objective] = lambda per_epoch: ELBO(annealed(per_epoch)),
               **model: Any) -> Row:
    return Row(published, "static", {**STATIC_NET, **model}, objective, 1, LONGEST, (), 100)


ROWS = {
    "vae-k1": Row("86.76, 19 units", "dynamic", IWAE_NET, lambda per_epoch: ELBO(sampled=True)),
    "vae-k5": Row("86.47, 20 units", "dynamic", IWAE_NET, lambda per_epoch: ELBO(sampled=True), 5),
    "iwae-k5": Row("85.54, 22 units", "dynamic", IWAE_NET, lambda per_epoch: IWAE(), 5),
    "iwae-k50": Row("84.78, 25 units", "dynamic", IWAE_NET, lambda per_epoch: IWAE(), 50),
    "two-layers-k1": Row("85.33", "dynamic", {**IWAE_NET, "latent_dim": 100, "prior": "hierarchical:100,100,50"},
                         lambda per_epoch: ELBO(sampled=True)),
    "static-normal": static_row("88.56", lambda per_epoch: ELBO(annealed(per_epoch), sampled=True)),
    "static-vamp": static_row("85.57", lambda per_epoch: ELBO(annealed(per_epoch), sampled=True), prior="vamp:500"),
    "static-made": static_row("88.40 (MADE alone)", lambda per_epoch: ELBO(), decoder="made:500"),
    "static-made-annealed": static_row("", decoder="made:500"),
    "static-made-free-bits": static_row("", lambda per_epoch: FreeBits(0.25), decoder="made:500")}


# ---- Data, and a model at its start

def load_rows(row: Row, static: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training images, those that training looks at besides, test images: (N, 784), bytes or zeros and ones.  The test
    images of dynamic rows are binarized once, with a seed of their own."""
    if row.data == "dynamic":
        x_train, _, x_test, _ = load_mnist()
        return x_train, x_test, binarize(x_test, "static", np.random.default_rng(2016))
    try:
        with np.load(static, allow_pickle=False) as file:
            train, valid, test = (np.unpackbits(file[name], axis=1)[:, :784] for name in ("train", "valid", "test"))
    except (OSError, KeyError, ValueError) as error:
        raise cli.UsageError(f"--static {static} must be an .npz with the packed bits of train, valid and test: "
                             f"{error}") from None
    return train * np.uint8(255), valid * np.uint8(255), test * np.uint8(255)


def new_model(row: Row, x_train: np.ndarray, seed: int) -> VAE:
    """As the protocol starts it: Glorot's uniform weights, the output at the mean image."""
    vae = VAE(784, seed=seed, **row.model)
    if row.data == "dynamic":
        rng = np.random.default_rng(seed + 1)
        for name, value in vae.parameters.items():
            if name.endswith(".W"):
                limit = math.sqrt(6 / sum(value.shape))
                value[...] = rng.uniform(-limit, limit, value.shape)
    vae.start_at(to_float(x_train).mean(axis=0, dtype=np.float64))
    return vae


def optimizer(row: Row, per_epoch: int) -> Adam:
    if row.data == "dynamic":
        return Adam(StepLR(1e-3, [end * per_epoch for end in ENDS[:-1]], 10 ** (-1 / 7)), eps=1e-4)
    return Adam(5e-4)


class Keep(Callback):
    """The models that will be measured: those of certain epochs, or the best on the validation images, from the end of
    the annealing on; then training stops 50 epochs after the best."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row, self.folder = row, folder

    def on_epoch(self, run: Run) -> None:
        if run.epoch in self.row.keep:
            run.vae.save(self.folder / f"epoch-{run.epoch}.npz")
        losses = [metrics["test_loss"] for metrics in run.history][WARMUP:]
        if self.row.data == "static" and losses:
            best = losses.index(min(losses))
            if best == len(losses) - 1:
                run.vae.save(self.folder / "best.npz")
            run.stop = len(losses) - 1 - best >= 50


# ---- The commands

def train(args: argparse.Namespace) -> None:
    """Train a row to its last epoch, from its checkpoint if there is one."""
    row, folder = ROWS[args.row], args.out / args.row
    x_train, x_valid, _ = load_rows(row, args.static)
    vae = new_model(row, x_train, args.seed)
    vae.threads = args.threads
    per_epoch = -(-len(x_train) // row.batch)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.npz"
    with threadpool_limits(args.threads, user_api="blas"):
        fit(vae, x_train, x_valid, min(row.epochs, args.epochs or row.epochs), row.batch, optimizer(row, per_epoch),
            row.objective(per_epoch), row.k, "dynamic" if row.data == "dynamic" else "none", args.seed,
            [Keep(row, folder), Checkpoint(checkpoint), MetricsLog(folder / "metrics.jsonl"), Progress()],
            checkpoint if checkpoint.exists() else None)


def measure(args: argparse.Namespace) -> None:
    """log p(x) of the test images, for each kept model that has not been measured with so many samples and images."""
    row, folder = ROWS[args.row], args.out / args.row
    paths = sorted(folder.glob("epoch-*.npz"), key=lambda path: int(path.stem[6:])) + sorted(folder.glob("best.npz"))
    if not paths:
        raise cli.UsageError(f"{folder} holds no model to measure: train {args.row} leaves them")
    x_train, _, x_test = load_rows(row, args.static)
    x = to_float(x_test[:args.images])
    done = {(result["row"], result["epoch"], result["samples"], result["images"]) for result in results()}
    for path in paths:
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        epoch = best_epoch(history) if path.stem == "best" else int(path.stem[6:])
        if (args.row, epoch, args.samples, len(x)) in done:
            continue
        vae = VAE.load(path)
        vae.threads = args.threads
        with threadpool_limits(args.threads, user_api="blas"):
            found = measured(vae, x, args.samples, path.with_suffix(".measured.npz"))
        trained = sum(metrics["seconds"] for metrics in history[:epoch])
        record = {"row": args.row, "epoch": epoch, "samples": args.samples, "images": len(x), **found, "seed": 0,
                  "training_seconds": round(trained), "commit": commit(), "data": row.data, "k": row.k,
                  "batch": row.batch, "model": vae.config(), "published": row.published}
        write_atomically(RESULTS, "".join(json.dumps(one) + "\n" for one in [*results(), record]).encode())
        print(f"{args.row}, epoch {epoch}: NLL {found['nll']:.2f} +- {found['error']:.2f}, "
              f"{found['active']} active units")


def best_epoch(history: list[dict[str, Any]]) -> int:
    losses = [metrics["test_loss"] for metrics in history][WARMUP:]
    return WARMUP + 1 + losses.index(min(losses))


def measured(vae: VAE, x: np.ndarray, samples: int, partial: Path) -> dict[str, Any]:
    """NLL with its errors, by blocks of images; `partial` holds what is done, so that it can go on after a stop."""
    values, errors, ess, began = [], [], [], time.perf_counter()
    if partial.exists():
        with np.load(partial, allow_pickle=False) as file:
            if int(file["samples"]) == samples:
                values, errors, ess = (list(file[name]) for name in ("values", "errors", "ess"))
    for start in cli.progress(range(len(values), len(x), BLOCK), "block"):
        block = log_likelihood(vae, x[start:start + BLOCK], np.random.default_rng([2016, start]), samples)
        for old, new in ((values, block.values), (errors, block.errors), (ess, block.ess)):
            old.extend(new.tolist())
        np.savez(partial, values=values, errors=errors, ess=ess, samples=samples)
    units = (sum(active_units_per_layer(vae, x, np.random.default_rng(0))) if vae.latent.rows == 0 and
             "hierarchical" in str(vae.config().get("prior")) else active_units(vae, x))
    bound = vae.elbo(x, np.random.default_rng(0))
    return {"nll": -float(np.mean(values)), "error": float(np.std(values, ddof=1) / math.sqrt(len(values))),
            "sampling_error": float(np.sqrt(np.square(errors).sum()) / len(errors)),
            "ess": float(np.median(ess)), "minus_elbo": -float(bound.mean()), "active": int(units),
            "seconds": round(time.perf_counter() - began)}


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True,
                         text=True)
    return run.stdout.strip() or "unknown"


def table(args: argparse.Namespace) -> None:
    """All results, in Markdown."""
    print("| row | epochs | NLL, nats | -ELBO | active units | the paper |\n" + 6 * "|---" + "|")
    for one in sorted(results(), key=lambda one: (list(ROWS).index(one["row"]), one["epoch"])):
        print(f"| {one['row']} | {one['epoch']:,} | {one['nll']:.2f} +- {one['error']:.2f} | {one['minus_elbo']:.2f} | "
              f"{one['active']} | {one['published']} |")


def rows(args: argparse.Namespace) -> None:
    """What there is."""
    for name, row in ROWS.items():
        print(f"{name:22} {row.data:8} K {row.k:2}  {row.epochs:,} epochs  paper: {row.published or '-'}")


def arguments() -> argparse.Namespace:
    parser = cli.Parser(None, "Published tables, reproduced.", "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="rows|train|measure|table")
    for name, run in (("rows", rows), ("train", train), ("measure", measure), ("table", table)):
        what = (run.__doc__ or "").split("\n")[0]
        command = commands.add_parser(name, prog=f"{parser.prog} {name}", help=what, description=what, epilog="")
        command.set_defaults(run=run)
        if name in ("train", "measure"):
            command.add_argument("row", choices=list(ROWS))
            command.add_argument("--out", type=Path, default=Path("runs/tables"), metavar="FOLDER")
            command.add_argument("--static", type=Path, default=Path("binarized_mnist.npz"), metavar="FILE",
                                 help="the static binarization, for the rows called static")
            command.add_argument("--threads", type=cli.number(int, 1), default=min(2, available_cores()))
        if name == "train":
            command.add_argument("--epochs", type=cli.number(int, 1), default=None, help="stop after so many")
            command.add_argument("--seed", type=cli.number(int, 0), default=0)
        if name == "measure":
            command.add_argument("--samples", type=cli.number(int, 1), default=5000)
            command.add_argument("--images", type=cli.number(int, 2), default=10000)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.run(args)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
