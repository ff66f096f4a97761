"""Published tables, reproduced.

    python examples/paper_tables.py rows                     the rows, and what the papers report for them
    python examples/paper_tables.py train vae-k1             train a row for hours, or continue it; Ctrl-C saves
    python examples/paper_tables.py measure vae-k1           log p(x) of the 10,000 test images, for all saved models
    python examples/paper_tables.py table                    all results so far, as a table in Markdown

Rows of dynamic binarization follow Burda, Grosse and Salakhutdinov 2016 (IWAE), tables 1 and 2: 784-200-200 tanh to 50
and its mirror image, Glorot's uniform weights, output bias at the logit of the mean pixel, batches of 20, pixels
binarized anew for every batch, Adam with eps 1e-4, stages i = 0 ... 7 of 3^i epochs at a learning rate of
1e-3 * 10^(-i/7): 3,280 epochs.  Their published code (github.com/yburda/iwae) differs from the paper: it has 59,600
images, never shuffled, beta1 = 0.99, and a loss summed over the batch, which acts like an eps 20 times smaller.  Row
vae-k1-published-code follows the code.

Rows of static binarization use the 50,000/10,000/10,000 images of Larochelle and Murray 2011, which are not part of
npvae (--static FILE), a network of 784-300-300 to 40, and batches of 100.  The two that compare priors follow Tomczak
and Welling 2018: Adam at 5e-4, 100 epochs of KL annealing, and the model of the best epoch on the 10,000 validation
images.  Those with MADE decoders would overfit in that time: they have 40 epochs, a learning rate that falls from 1e-3
to 0 by a cosine, and weight decay 0.1.

Checkpoints and saved models go to a folder for each row in --out.  `measure` appends its results to
`examples/paper_tables.jsonl`, each with protocol, seed, seconds and commit.  `examples/paper_row_in_pytorch.py` trains
and measures row vae-k1 with independent code.
"""
import argparse
import math
import sys
import time
import zlib
from collections.abc import Callable as Function, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from npvae import (
    ELBO, IWAE, VAE, Adam, Callback, Checkpoint, CosineLR, FreeBits, LinearAnnealing, MetricsLog, Progress, StepLR,
    active_units, checkpoint, cli, fit, load_mnist)
from npvae.data import binarize, to_float
from npvae.evaluate import LogLikelihood, kl_per_dimension, log_likelihood
from npvae.model import active_units_per_layer
from npvae.engine.executor import available_cores
from npvae.objectives import Objective
from npvae.train import Run
from paper_records import add_line, commit, evenly, fingerprint, largest_first, lines, trained_by

RESULTS = Path(__file__).with_name("paper_tables.jsonl")
ENDS = [sum(3 ** i for i in range(stages + 1)) for stages in range(8)]      # of the stages: 1, 4, 13, ... 3280
WARMUP, PATIENCE, LONGEST = 100, 50, 400      # epochs, for rows that save the best model
MADE_WARMUP, MADE_EPOCHS = 10, 40
BLOCK = 250      # images measured at a time; the results so far are saved after each block
FULL = 5000, 10000      # draws and images of a full measurement

IWAE_NET: dict[str, Any] = {"hidden": (200, 200), "latent_dim": 50, "activation": "tanh"}
STATIC_NET: dict[str, Any] = {"hidden": (300, 300), "latent_dim": 40, "activation": "relu"}


def by_stages(per_epoch: int) -> Adam:
    """Adam, eps 1e-4, 1e-3 * 10^(-i/7) for 3^i epochs"""
    return Adam(StepLR(1e-3, [end * per_epoch for end in ENDS[:-1]], 10 ** (-1 / 7)), eps=1e-4)


def as_published(per_epoch: int) -> Adam:
    """Adam, beta1 0.99, eps 5e-6, 1e-3 * 10^(-i/7) for 3^i epochs"""
    return Adam(by_stages(per_epoch).lr, beta1=0.99, eps=1e-4 / 20)


def at_one_rate(per_epoch: int) -> Adam:
    """Adam, 5e-4, best epoch on the validation images"""
    return Adam(5e-4)


def regularized(per_epoch: int) -> Adam:
    """Adam, weight decay 0.1, 1e-3 to 0 by a cosine"""
    return Adam(CosineLR(1e-3, MADE_EPOCHS * per_epoch), weight_decay=0.1)


@dataclass(frozen=True)
class Row:
    """A row of a table: a model, how it is trained, and after which epochs it is saved.

    published : what the paper reports
    objective, adam : functions of the number of steps in an epoch, since schedules count steps
    images : use only this many of the training images; None for all
    keep : epochs after which the model is saved; none: the best on the validation images is
    """

    published: str
    data: str
    model: dict[str, Any]
    objective: Function[[int], Objective]
    k: int = 1
    adam: Function[[int], Adam] = by_stages
    epochs: int = ENDS[-1]
    keep: tuple[int, ...] = (100, *ENDS[4:])
    batch: int = 20
    images: int | None = None
    shuffle: bool = True


def prior_row(published: str, prior: str) -> Row:
    def objective(per_epoch: int) -> Objective:
        return ELBO(LinearAnnealing(WARMUP * per_epoch), sampled=True)
    return Row(published, "static", {**STATIC_NET, "prior": prior}, objective, 1, at_one_rate, LONGEST, (), 100)


def made_row(published: str, objective: Function[[int], Objective]) -> Row:
    model = {**STATIC_NET, "decoder": "made:500+direct"}
    return Row(published, "static", model, objective, 1, regularized, MADE_EPOCHS, (MADE_EPOCHS,), 100)


ROWS = {
    "vae-k1": Row("86.76, 19 units", "dynamic", IWAE_NET, lambda per_epoch: ELBO(sampled=True)),
    "vae-k1-published-code": Row("86.76, 19 units", "dynamic", IWAE_NET, lambda per_epoch: ELBO(sampled=True),
                                 adam=as_published, images=59600, shuffle=False),
    "vae-k5": Row("86.47, 20 units", "dynamic", IWAE_NET, lambda per_epoch: ELBO(sampled=True), 5),
    "iwae-k5": Row("85.54, 22 units", "dynamic", IWAE_NET, lambda per_epoch: IWAE(), 5),
    "iwae-k50": Row("84.78, 25 units", "dynamic", IWAE_NET, lambda per_epoch: IWAE(), 50),
    "two-layers-k1": Row("85.33", "dynamic", {**IWAE_NET, "latent_dim": 100, "prior": "hierarchical:100,100,50"},
                         lambda per_epoch: ELBO(sampled=True)),
    "static-normal": prior_row("88.56", "normal"), "static-vamp": prior_row("85.57", "vamp:500"),
    "static-made": made_row("88.40, MADE alone", lambda per_epoch: ELBO()),
    "static-made-annealed": made_row("", lambda per_epoch: ELBO(LinearAnnealing(MADE_WARMUP * per_epoch))),
    "static-made-free-bits": made_row("", lambda per_epoch: FreeBits(0.5))}


# ---- Data and models

def load_rows(row: Row, static: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training images, images for evaluation during training, and test images: (N, 784), bytes or zeros and ones.  The
    test images of dynamic rows are binarized once, with a seed of their own."""
    if row.data == "dynamic":
        x_train, _, x_test, _ = load_mnist()
        return x_train[:row.images], x_test, binarize(x_test, "static", np.random.default_rng(2016))
    try:
        with open(static, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            train, valid, test = (np.unpackbits(file[name], axis=1)[:, :784] for name in ("train", "valid", "test"))
    except Exception as error:      # zipfile, zlib and numpy raise many kinds
        raise cli.UsageError(f"--static {static} must be an .npz with the packed bits of train, valid and test: "
                             f"{error or type(error).__name__}") from None
    return train * np.uint8(255), valid * np.uint8(255), test * np.uint8(255)


def new_model(row: Row, x_train: np.ndarray, seed: int) -> VAE:
    """The protocol's initial model: uniform weights as in Glorot and Bengio 2010, output bias at the mean image."""
    vae = VAE(784, seed=seed, **row.model)
    if row.data == "dynamic":
        rng = np.random.default_rng(seed + 1)
        for name, value in vae.parameters.items():
            if name.endswith(".W"):
                limit = math.sqrt(6 / sum(value.shape))
                value[...] = rng.uniform(-limit, limit, value.shape)
    vae.start_at(to_float(x_train).mean(axis=0, dtype=np.float64))
    return vae


class Keep(Callback):
    """Saves the models to measure: those of the epochs `row.keep`, or, after annealing, the best on validation images.
    In the latter case training stops PATIENCE epochs after the best."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row, self.folder = row, folder

    def on_start(self, run: Run) -> None:
        run.stop = self._since_best(run) >= PATIENCE

    def on_epoch(self, run: Run) -> None:
        if run.epoch in self.row.keep:
            run.vae.save(self.folder / f"epoch-{run.epoch}.npz")
        if not self.row.keep and run.epoch > WARMUP and self._since_best(run) == 0:
            run.vae.save(self.folder / "best.npz")
        run.stop = self._since_best(run) >= PATIENCE

    def _since_best(self, run: Run) -> int:
        """Epochs since the best; 0 if training does not stop early or still anneals."""
        return 0 if self.row.keep or run.epoch <= WARMUP else run.epoch - best_epoch(run.history)


class Sessions(Callback):
    """Writes sessions.jsonl: a line each time that training starts or continues, with epochs done and commit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, run: Run) -> None:
        add_line(self.path, {"epoch": run.epoch, "commit": commit(), "threads": run.vae.threads})


# ---- The commands

def train(args: argparse.Namespace) -> None:
    """Train a row, or continue it."""
    row, folder = ROWS[args.row], args.out / args.row
    x_train, x_valid, _ = load_rows(row, args.static)
    vae = new_model(row, x_train, args.seed)
    vae.threads = args.threads
    per_epoch = -(-len(x_train) // row.batch)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "checkpoint.npz"
    with threadpool_limits(args.threads, user_api="blas"):
        fit(vae, x_train, x_valid, min(row.epochs, args.epochs or row.epochs), row.batch, row.adam(per_epoch),
            row.objective(per_epoch), row.k, "dynamic" if row.data == "dynamic" else "none", args.seed,
            [Sessions(folder / "sessions.jsonl"), Keep(row, folder), Checkpoint(state),
             MetricsLog(folder / "metrics.jsonl"), Progress()],
            state if state.exists() else None, shuffle=row.shuffle)


def measure(args: argparse.Namespace) -> None:
    """Measure log p(x) of the test images for each saved model, unless its record exists."""
    row, folder = ROWS[args.row], args.out / args.row
    names = [*(f"epoch-{epoch}" for epoch in row.keep), "best"]
    paths = [path for path in (folder / f"{name}.npz" for name in names) if path.exists()]
    if not paths:
        raise cli.UsageError(f"{folder} holds no model to measure: train {args.row} leaves them")
    x = evenly(to_float(load_rows(row, args.static)[2]), args.images)
    seed, here = checkpoint.read(folder / "checkpoint.npz")[1]["settings"]["seed"], commit()
    for path in paths:
        history = lines(folder / "metrics.jsonl")
        epoch = best_epoch(history) if path.stem == "best" else int(path.stem[6:])
        what = {"row": args.row, "epoch": epoch, "seed": seed, "samples": args.samples, "images": len(x)}
        vae = VAE.load(path)
        model = {"crc32": zlib.crc32(vae.parameters.flat.data)}
        # records without `crc32`, an entry that was added later, are taken for this model's
        if any({**what, **model}.items() <= {**model, **one}.items() for one in lines(args.results)):
            continue
        vae.threads = args.threads
        with threadpool_limits(args.threads, user_api="blas"):
            found = measured(vae, x, args.samples, path.with_suffix(".measured.npz"))
        add_line(args.results, {
            **what, **model, **found, "training_seconds": round(sum(metrics["seconds"] for metrics in history[:epoch])),
            "commit": trained_by(lines(folder / "sessions.jsonl"), epoch), "measured_by": here, **protocol(row),
            "model": vae.config(), "published": row.published})
        print(f"{args.row}, epoch {epoch}: NLL {found['nll']:.2f} +- {found['error']:.2f}, "
              f"{found['active']} active units")


def best_epoch(history: list[dict[str, Any]]) -> int:
    losses = [metrics["test_loss"] for metrics in history][WARMUP:]
    return WARMUP + 1 + losses.index(min(losses))


def protocol(row: Row) -> dict[str, Any]:
    """How a row is trained, for its record."""
    objective = row.objective(1)
    rise = next(epoch for epoch in range(row.epochs) if objective.beta(epoch) == 1)
    words = [type(objective).__name__, *([f"{objective.bits} nats"] if isinstance(objective, FreeBits) else []),
             "sampled KL" if objective.kl_estimator.is_sampled else "exact KL",
             *([f"annealed for {rise} epochs"] if rise else [])]
    order = {} if row.shuffle else {"training_images": row.images, "shuffle": False}
    return {"data": row.data, "k": row.k, "batch": row.batch, **order, "objective": ", ".join(words),
            "optimizer": row.adam.__doc__}


def measured(vae: VAE, x: np.ndarray, samples: int, partial: Path) -> dict[str, Any]:
    """NLL with its errors, and the other numbers of a record.  `partial` is the file for unfinished results."""
    def block(start: int) -> Sequence[np.ndarray]:
        found = log_likelihood(vae, x[start:start + BLOCK], np.random.default_rng([2016, start]), samples)
        return found.values, found.errors, found.biases, found.ess

    found = by_blocks(block, x, fingerprint(samples, x, vae.parameters.flat), partial)
    if str(vae.config().get("prior")).startswith("hierarchical"):
        found["active_per_layer"] = active_units_per_layer(vae, x, np.random.default_rng(0))
    found["active"] = sum(found.get("active_per_layer", [active_units(vae, x)]))
    if vae.latent.analytic:
        found["kl_per_dimension"] = largest_first(kl_per_dimension(vae, x))
    return {**found, "minus_elbo": -float(vae.elbo(x, np.random.default_rng(0)).mean())}


def by_blocks(block: Function[[int], Any], x: np.ndarray, of: list[int], partial: Path) -> dict[str, Any]:
    """NLL of the images x, in nats, with its errors.

    block : start -> log p(x), errors, biases and effective sample sizes of BLOCK images from `start` on
    of : the `fingerprint` of this measurement
    partial : the file that keeps finished blocks, from which an interrupted measurement continues
    """
    done, seconds, began = np.empty((4, 0)), 0.0, time.perf_counter()
    if partial.exists():
        arrays, manifest = checkpoint.read(partial)
        if manifest.get("of") == of and arrays["done"].shape[0] == len(done):
            done, seconds = arrays["done"], manifest["seconds"]
    for start in cli.progress(range(done.shape[1], len(x), BLOCK), "block"):
        done = np.concatenate([done, block(start)], axis=1)
        checkpoint.write(partial, {"done": done}, {"of": of, "seconds": seconds + time.perf_counter() - began})
    values, errors, biases, ess = done
    found = LogLikelihood(values, ess, errors, biases, of[0])
    return {"seconds": round(seconds + time.perf_counter() - began), "nll": -found.mean,
            "error": found.standard_error, "sampling_error": found.sampling_error,
            "sampling_bias": -found.sampling_bias, "ess": float(np.median(ess))}


# ---- The table

def place(one: dict[str, Any]) -> tuple[int, str, int]:
    """The sort key of a record: rows of other programs, such as vae-k1-pytorch, come after the row they repeat."""
    row = one["row"]
    return list(ROWS).index(row if row in ROWS else row.rpartition("-")[0]), row, one["epoch"]


def table(args: argparse.Namespace) -> None:
    """Print all results in Markdown, and the KL per dimension of MADE decoders."""
    found = sorted(lines(args.results), key=place)
    print("| row | epochs | NLL, nats | -ELBO | KL | active units | the paper |\n" + 7 * "|---" + "|")
    for one in found:
        few = "" if (one["samples"], one["images"]) == FULL else f" ({one['samples']} draws, {one['images']} images)"
        kl = f"{sum(one['kl_per_dimension']):.2f}" if "kl_per_dimension" in one else ""
        units = " + ".join(map(str, one.get("active_per_layer", [one["active"]])))
        print(f"| {one['row']}{few} | {one['epoch']:,} | {one['nll']:.2f} +- {one['error']:.2f} | "
              f"{one['minus_elbo']:.2f} | {kl} | {units} | {one['published']} |")
    for one in found:
        if "decoder" in one["model"] and "kl_per_dimension" in one:
            print(f"\n{one['row']}, epoch {one['epoch']}: KL per dimension, nats, largest first: "
                  + " ".join(f"{value:.2f}" for value in one["kl_per_dimension"]))


def rows(args: argparse.Namespace) -> None:
    """Print the rows."""
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
                                 help="the images of static binarization, for the rows static-...")
            command.add_argument("--threads", type=cli.number(int, 1), default=min(2, available_cores()))
        if name == "train":
            command.add_argument("--epochs", type=cli.number(int, 1), default=None, help="stop after this many epochs")
            command.add_argument("--seed", type=cli.number(int, 0), default=0)
        if name == "measure":
            command.add_argument("--samples", type=cli.number(int, 2), default=FULL[0], help="draws for each image")
            command.add_argument("--images", type=cli.number(int, 2), default=FULL[1], help="test images")
        if name in ("measure", "table"):
            command.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.run(args)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
