# mypy: disable-error-code="import-not-found"
"""A row of the published tables, reproduced independently of npvae's models: in PyTorch, with its autograd.

    python examples/paper_row_in_pytorch.py                                          train row vae-k1 for 100 epochs,
                                                                                     then measure log p(x)
    python examples/paper_row_in_pytorch.py --check runs/tables/vae-k1/epoch-100.npz     measure a model of npvae

The protocol is that of row vae-k1 in `examples/paper_tables.py` (Burda, Grosse and Salakhutdinov 2016), implemented
again: 784-200-200 tanh to 50 and its mirror image, Glorot's uniform weights, output bias at the logit of the mean
pixel, batches of 20, pixels binarized anew for every batch, a KL term estimated at the z drawn, and stages i = 0, 1,
2 ... of 3^i epochs at a learning rate of 1e-3 * 10^(-i/7).  Adam is PyTorch's, with eps 1e-4; like npvae's it adds eps
after the bias correction.  From npvae come the images of MNIST, the binarized test images, and the code that writes
records.

A checkpoint is written to --out after each epoch; the same command continues from it.  The record is appended to
`examples/paper_tables.jsonl`, which `paper_tables.py table` reads, and compared with npvae's record, if there is one.
"""
import argparse
import io
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import paper_records
import paper_tables
from npvae import cli, load_mnist
from npvae.checkpoint import read
from npvae.system.files import write_atomically
from npvae.data import binarize
from npvae.engine.executor import available_cores

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None  # type: ignore[assignment, unused-ignore]

ROW = "vae-k1"
NETWORK: dict[str, Any] = {"input_dim": 784, "hidden": [200, 200], "latent_dim": 50, "activation": "tanh",
                           "likelihood": "bernoulli", "dtype": "float32", "decoder_hidden": [200, 200]}
SIZES = "hidden", "latent_dim", "decoder_hidden"      # may differ in a model that is checked
BATCH = 20
DRAWS = 1000      # at a time, for one image

Weights = dict[str, Any]      # name -> tensor: W (in, out), b (out,)


# ---- The model

def layers(network: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The inputs and outputs of each dense layer, in the order in which npvae saves them."""
    up, down = [network["input_dim"], *network["hidden"]], [network["latent_dim"], *network["decoder_hidden"]]
    return {**{f"encoder.{i}": pair for i, pair in enumerate(zip(up, up[1:]))},
            "mu": (up[-1], down[0]), "logvar": (up[-1], down[0]),
            **{f"decoder.{i}": pair for i, pair in enumerate(zip(down, down[1:]))}, "output": (down[-1], up[0])}


def dense(weights: Weights, name: str, h: Any) -> Any:
    return functional.linear(h, weights[f"{name}.W"].T, weights[f"{name}.b"])


def hidden(weights: Weights, part: str, h: Any) -> Any:
    """The hidden layers of encoder or decoder."""
    for i in range(sum(name.startswith(f"{part}.") for name in weights) // 2):
        h = torch.tanh(dense(weights, f"{part}.{i}", h))
    return h


def encode(weights: Weights, x: Any) -> tuple[Any, Any]:
    """mu, logvar (B, Z) of q(z|x), x (B, D)."""
    h = hidden(weights, "encoder", x)
    return dense(weights, "mu", h), dense(weights, "logvar", h)


def log_p_of_x(weights: Weights, x: Any, z: Any) -> Any:
    """log p(x|z) (B, K), x (B, D) zeros and ones, z (B, K, Z)."""
    logits = dense(weights, "output", hidden(weights, "decoder", z))
    return -functional.binary_cross_entropy_with_logits(logits, x[:, None].expand_as(logits), reduction="none").sum(-1)


def log_weights(weights: Weights, x: Any, mu: Any, logvar: Any, eps: Any) -> Any:
    """log p(x|z) + log p(z) - log q(z|x) at z = mu + exp(logvar / 2) eps, (B, K), eps (B, K, Z)."""
    z = mu[:, None] + torch.exp(0.5 * logvar)[:, None] * eps
    log_prior = -0.5 * (z * z).sum(-1)      # both without their constant, which cancels
    log_q = -0.5 * (eps * eps + logvar[:, None]).sum(-1)
    return log_p_of_x(weights, x, z) + log_prior - log_q


def initial(mean: np.ndarray, generator: Any) -> Weights:
    """Uniform weights as in Glorot and Bengio 2010; zero biases, but at the output those of the mean image (D,)."""
    weights: Weights = {}
    for name, (n_in, n_out) in layers(NETWORK).items():
        limit = math.sqrt(6 / (n_in + n_out))
        weights[f"{name}.W"] = (2 * torch.rand(n_in, n_out, generator=generator) - 1) * limit
        weights[f"{name}.b"] = torch.zeros(n_out)
    weights["output.b"] = torch.logit(torch.from_numpy(mean), 1e-3).to(torch.float32)
    return weights


def saved_by_npvae(path: Path) -> tuple[Weights, dict[str, Any]]:
    """The weights by name, and the network, of a model saved by npvae: one vector with all tensors, W before b."""
    try:
        with np.load(path, allow_pickle=False) as file:
            flat, network = file["parameters"], json.loads(file["manifest.json"])["vae"]
        if {**network, **(sizes := dict.fromkeys(SIZES))} != {**NETWORK, **sizes}:
            raise ValueError("only a plain VAE of tanh layers and Bernoulli pixels can be checked")
        weights, start = {}, 0
        for name, (n_in, n_out) in layers(network).items():
            for letter, shape in (("W", (n_in, n_out)), ("b", (n_out,))):
                stop = start + math.prod(shape)
                weights[f"{name}.{letter}"] = torch.from_numpy(flat[start:stop].reshape(shape).copy())
                start = stop
        if start != len(flat):
            raise ValueError(f"it holds {len(flat)} numbers, and the network has {start}")
    except Exception as error:      # zipfile, json and numpy raise many kinds
        raise cli.UsageError(f"--check {path}: no model that can be checked: {error or type(error).__name__}") from None
    return weights, network


# ---- Training

def learning_rate(epoch: int) -> float:
    """The learning rate of an epoch, counted from 0: 1e-3 * 10^(-i/7) in stage i, which has 3^i epochs."""
    stage, end = 0, 1
    while epoch >= end:
        stage, end = stage + 1, end + 3 ** (stage + 1)
    return 1e-3 * 10 ** (-stage / 7)


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Train up to --epochs, from the checkpoint if there is one, and return the state."""
    images = torch.from_numpy(load_mnist()[0])
    path = args.out / "checkpoint.pt"
    state = restored(path, args) if path.exists() else {
        "weights": initial(images.numpy().mean(axis=0, dtype=np.float64) / 255, seeded(args.seed, 0)),
        "optimizer": None, "epoch": 0, "seed": args.seed, "seconds": 0.0, "commits": []}
    if state["epoch"] > args.epochs:
        raise cli.UsageError(f"{path}: is already at epoch {state['epoch']}; --epochs must be at least that")
    weights = {name: value.requires_grad_() for name, value in state["weights"].items()}
    adam = torch.optim.Adam(weights.values(), 1e-3, (0.9, 0.999), 1e-4, fused=True)
    if state["optimizer"]:
        adam.load_state_dict(state["optimizer"])
    commits = [*state["commits"], *([paper_records.commit()] if state["epoch"] < args.epochs else [])]
    state["commits"] = list(dict.fromkeys(commits))
    while state["epoch"] < args.epochs:
        began = time.perf_counter()
        adam.param_groups[0]["lr"] = learning_rate(state["epoch"])
        loss = train_epoch(weights, adam, images, seeded(args.seed, state["epoch"] + 1))
        state = {**state, "epoch": state["epoch"] + 1, "seconds": state["seconds"] + time.perf_counter() - began,
                 "weights": {name: value.detach() for name, value in weights.items()}, "optimizer": adam.state_dict()}
        stream = io.BytesIO()
        torch.save(state, stream)
        write_atomically(path, stream.getvalue())
        print(f"epoch {state['epoch']:3}/{args.epochs}  train {loss:7.2f}  {time.perf_counter() - began:5.1f} s",
              flush=True)
    return {**state, "weights": {name: value.detach() for name, value in weights.items()}}


def restored(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The state in a checkpoint of `train`.  Raises UsageError for any other file, and for another --seed."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        seed = state["seed"]
    except Exception as error:      # pickle, zipfile and torch raise many kinds
        raise cli.UsageError(f"{path}: is no checkpoint of this program: {type(error).__name__}") from None
    if seed != args.seed:
        raise cli.UsageError(f"{path}: was started with --seed {seed}, not {args.seed}")
    return state


def train_epoch(weights: Weights, adam: Any, images: Any, generator: Any) -> float:
    """Train on all images (N, D), bytes, once.  Returns the mean loss, in nats per image."""
    total = torch.zeros((), dtype=torch.float64)
    for index in torch.randperm(len(images), generator=generator).split(BATCH):
        x = torch.bernoulli(images[index].to(torch.float32) / 255, generator=generator)
        mu, logvar = encode(weights, x)
        eps = torch.randn(len(x), 1, mu.shape[1], generator=generator)
        loss = -log_weights(weights, x, mu, logvar, eps).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.detach() * len(x)
    return float(total) / len(images)


def seeded(seed: int, purpose: int) -> Any:
    """A random generator for one epoch, or for one block of images."""
    return torch.Generator().manual_seed(seed * 1_000_003 + purpose)


# ---- Measuring

def log_likelihood(weights: Weights, x: Any, generator: Any, samples: int) -> tuple[Any, Any, Any, Any]:
    """log p(x) of each image, its standard error and bias by the jackknife over 16 groups of draws, and effective
    sample size, (B,) each, from

        log W = log 1/L sum_l w_l,    ess = (sum_l w_l)^2 / sum_l w_l^2
    """
    found = []
    for image in x.split(1):
        mu, logvar = encode(weights, image)
        parts = [log_weights(weights, image, mu, logvar,
                             torch.randn(1, min(DRAWS, samples - start), mu.shape[1], generator=generator))
                 for start in range(0, samples, DRAWS)]
        log_w = torch.cat(parts, 1)[0].double()
        value = torch.logsumexp(log_w, 0) - math.log(samples)
        group = torch.arange(samples) * min(16, samples) // samples
        without = torch.stack([torch.logsumexp(log_w[group != g], 0) - math.log(int((group != g).sum()))
                               for g in range(int(group[-1]) + 1)])
        w = torch.exp(log_w - value)      # their mean is one
        found.append((value, without.std(correction=0) * math.sqrt(len(without) - 1),
                      (len(without) - 1) * (without.mean() - value), samples / (w * w).mean()))
    values, errors, biases, ess = (torch.stack(column) for column in zip(*found))
    return values, errors, biases, ess


def measured(weights: Weights, x: np.ndarray, samples: int, partial: Path) -> dict[str, Any]:
    """The numbers of `paper_tables.measured`, computed independently; x (N, D) zeros and ones."""
    images = torch.from_numpy(x)

    def block(start: int) -> Any:
        rows = images[start:start + paper_tables.BLOCK]
        return [column.numpy() for column in log_likelihood(weights, rows, seeded(2016, start), samples)]

    with torch.inference_mode():
        of = paper_records.fingerprint(samples, x, *(value.numpy() for value in weights.values()))
        found = paper_tables.by_blocks(block, x, of, partial)
        mu, logvar = encode(weights, images)
        kl = 0.5 * (mu * mu + logvar.exp() - 1 - logvar).double()
        z = mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=seeded(0, 0))
        log_p = log_p_of_x(weights, images, z[:, None])[:, 0].double()
        return {**found, "active": int((mu.double().var(0, correction=0) > 0.01).sum()),
                "kl_per_dimension": paper_records.largest_first(kl.mean(0).numpy()),
                "minus_elbo": float((kl.sum(1) - log_p).mean())}


def compare(record: dict[str, Any], row: str, path: Path) -> None:
    """Print the record, and npvae's records of the same numbers of epochs, images and draws."""
    same = {name: record[name] for name in ("epoch", "images", "samples")} | {"row": row}
    for one in [record, *(one for one in paper_records.lines(path) if same.items() <= one.items())]:
        print(f"{one['row']}, seed {one['seed']}, epoch {one['epoch']}: NLL {one['nll']:.3f}, {one['active']} active "
              f"units, -ELBO {one['minus_elbo']:.3f}")
        if one is not record:
            error = math.hypot(one["sampling_error"], record["sampling_error"])
            print(f"PyTorch's NLL is higher by {record['nll'] - one['nll']:.4f}, with a standard error of {error:.4f} "
                  "from the draws alone")


# ---- The command

def check(args: argparse.Namespace) -> tuple[Weights, dict[str, Any]]:
    """The model of npvae given by --check, and the entries of its record about training."""
    row, epoch = args.check.parent.name, args.check.stem.removeprefix("epoch-")
    if row not in paper_tables.ROWS or paper_tables.ROWS[row].data != "dynamic" or not epoch.isdecimal():
        raise cli.UsageError(f"--check {args.check}: must be a file such as runs/tables/{ROW}/epoch-100.npz, of a row "
                             "of dynamic binarization")
    weights, network = saved_by_npvae(args.check)
    seed = read(args.check.with_name("checkpoint.npz"))[1]["settings"]["seed"]
    return weights, {"row": f"{row}-checked", "epoch": int(epoch), "seed": seed, "model": network}


def run(args: argparse.Namespace) -> None:
    """Train or read, measure, add the record, compare."""
    if torch is None:
        raise cli.UsageError("needs PyTorch, which is not installed: pip install torch")
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.check:
        weights, about = check(args)
    else:
        state = train(args)
        weights = state["weights"]
        about = {"row": f"{ROW}-pytorch", "epoch": state["epoch"], "seed": state["seed"],
                 "training_seconds": round(state["seconds"]), "commit": ", ".join(state["commits"]),
                 **paper_tables.protocol(paper_tables.ROWS[ROW]), "model": NETWORK}
    x_test = binarize(load_mnist()[2], "static", np.random.default_rng(2016))
    x = paper_records.evenly((x_test == 255).astype(np.float32), args.images)
    here, partial = paper_records.commit(), args.out / f"{about['row']}-{about['epoch']}.measured.npz"
    what = {name: about[name] for name in ("row", "epoch", "seed")} | {"samples": args.samples, "images": len(x)}
    record = next((one for one in paper_records.lines(args.results) if what.items() <= one.items()), None)
    if record is None:
        record = {**what, **measured(weights, x, args.samples, partial), **about,
                  "measured_by": f"{here}, PyTorch {torch.__version__}", "published": ""}
        paper_records.add_line(args.results, record)
    compare(record, about["row"].rpartition("-")[0], args.results)


def main() -> None:
    parser = cli.Parser(None, "Row vae-k1 of the published tables in PyTorch: train it, or measure a model of npvae.",
                        "")
    parser.add_argument("--check", type=Path, default=None, metavar="FILE", help="measure this model of npvae instead")
    parser.add_argument("--out", type=Path, default=Path("runs/tables/pytorch"), metavar="FOLDER",
                        help="for the checkpoint and unfinished measurements")
    parser.add_argument("--epochs", type=cli.number(int, 1), default=100, help="epochs in all")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0)
    parser.add_argument("--samples", type=cli.number(int, 2), default=paper_tables.FULL[0], help="draws for each image")
    parser.add_argument("--images", type=cli.number(int, 2), default=paper_tables.FULL[1], help="test images")
    parser.add_argument("--threads", type=cli.number(int, 1), default=min(2, available_cores()))
    parser.add_argument("--results", type=Path, default=paper_tables.RESULTS, metavar="FILE", help="for the record")
    run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
