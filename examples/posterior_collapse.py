"""Posterior collapse: a VAE that does not use its z, and four remedies.

    python examples/posterior_collapse.py               a table and runs/posterior_collapse.png, in about two minutes
    python examples/posterior_collapse.py --quick       only to see that it runs, in some seconds

What it is.  q(z|x) equals the prior for every image: the KL is 0, no unit is active, and all draws of z decode to the
same picture.  The loss is that of a model without z, with independent pixels.  The table starts with that number.

Why.  The loss contains the KL from the first step, but the decoder cannot use z yet: between z and the pixels are three
sigmoid layers, and the slope of a sigmoid is at most 1/4, so the output hardly depends on z.  At first, therefore, the
KL alone determines the encoder's gradient, and within a hundred steps z is noise.  The decoder then learns to ignore z,
and while it does, the encoder gets no gradient through z: at collapse all these gradients are zero (chapter 11 of
`derivations/`).  The point is not an optimum: the remedies reach losses 80 nats and more below.  It is a saddle point,
proved for the linear VAE (Lucas et al. 2019), and here so flat that 25 epochs do not leave it.  Adam's eps is 1e-4, as
in Burda et al. 2016.  With eps = 1e-8 Adam's steps keep their length however small the gradient is, and the same run
leaves the saddle after 8 epochs, with two active units.

Remedies.  Network, initial weights, data, order and number of steps are the same in all runs, and all numbers are those
of the plain ELBO.

    linear annealing      beta rises from 0 to 1 over the first half, so the decoder learns to use z before the KL has
                          its full weight (Bowman et al. 2016, Generating Sentences from a Continuous Space)
    cyclical annealing    beta rises four times, each time from better codes (Fu et al. 2019); here the cycles are so
                          short that most units are lost again, and the remedy is the weakest of the four
    free bits             the first 0.25 nats of each dimension are free, so no dimension is switched off early; in the
                          end all dimensions use these nats, to no purpose in some (Kingma et al. 2016, equation 15)
    beta = 0.3            the KL has a smaller weight throughout (Higgins et al. 2017): the run collapses too, but the
                          KL's gradient is weaker, and it leaves after some epochs; its loss is not minus the ELBO

Another seed changes the results of the remedies by several nats and may change their order.  Collapse has other causes,
which annealing does not cure: a KL summed over dimensions with a mean over pixels, which for MNIST is beta = 784; and a
Gaussian decoder with too large a sigma, for which ignoring z is optimal.
"""
import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from tqdm import tqdm

from npvae import (
    ELBO, VAE, Adam, Callback, CyclicalAnnealing, FreeBits, LinearAnnealing, active_units, cli, fit,
    kl_per_dimension, load_mnist)
from npvae.system.files import write_atomically
from npvae.data import binarize, to_float
from npvae.plotting import png
from npvae.plotting.figures import BLUE, FONT, ORANGE, label_axes, mosaic, new_figure
from npvae.objectives import Objective
from npvae.train import Run

NETWORK: dict[str, Any] = {"hidden": (200,), "latent_dim": 50, "decoder_hidden": (200, 200, 200),
                           "activation": "sigmoid"}
EPOCHS, BATCH, LR, EPS = 25, 128, 1e-3, 1e-4      # of Adam, as Burda et al. 2016 have it
POINTS = 200      # of the KL curve
SAMPLES = (3, 8)      # rows and columns of draws from the prior in the picture


def objectives(steps: int) -> dict[str, Objective]:
    """The objective of each run, for a training of `steps` steps.  All runs are measured with the plain ELBO."""
    return {"plain ELBO": ELBO(),
            "linear annealing": ELBO(LinearAnnealing(max(1, steps // 2))),
            "cyclical annealing": ELBO(CyclicalAnnealing(steps, cycles=4)),
            "free bits, 0.25 nats": FreeBits(0.25),
            "beta = 0.3": ELBO(beta=0.3)}


@dataclass(frozen=True)
class Measure:
    """A trained model on test images, in nats per image, always with beta = 1 and sampled z."""

    kl: np.ndarray      # (Z,), per latent dimension
    loss: float      # minus the ELBO
    active: int

    @property
    def rate(self) -> float:
        """KL(q(z|x) || p(z)): the nats needed for z."""
        return float(self.kl.sum())

    @property
    def distortion(self) -> float:
        """-log p(x|z): the nats needed for the image once z is known."""
        return self.loss - self.rate


def measure(vae: VAE, x: np.ndarray, rng: np.random.Generator) -> Measure:
    """Rate, distortion and active units on images x (M, D)."""
    return Measure(kl_per_dimension(vae, x), -float(vae.elbo(x, rng).mean()), active_units(vae, x))


def independent_pixels(x_train: np.ndarray, x: np.ndarray) -> float:
    """-log prod_i p(x_i), nats per image x (M, D), with p(x_i = 1) the mean of x_train (N, D): the best loss without z.
    Pixels that are always black in training get a probability of one in a million."""
    p = np.clip(x_train.mean(axis=0, dtype=np.float64), 1e-6, 1 - 1e-6)
    return float(-(x @ np.log(p) + (1 - x) @ np.log1p(-p)).mean())


class Watch(Callback):
    """Records KL and beta during training, and moves the progress bar."""

    def __init__(self, x: np.ndarray, bar: tqdm) -> None:
        self.x, self.bar = x, bar
        self.points: list[tuple[float, float, float]] = []      # epoch, KL of the images x (M, D), beta

    def on_start(self, run: Run) -> None:
        self.every = max(1, run.epochs * run.batches // POINTS)
        self.record(run)

    def on_step(self, run: Run) -> None:
        self.bar.update()
        if run.step % self.every == 0:
            self.record(run)

    def record(self, run: Run) -> None:
        """Append a point."""
        kl = float(kl_per_dimension(run.vae, self.x).sum())
        self.points.append((run.step / run.batches, kl, run.objective.beta(run.step)))


@dataclass(frozen=True)
class Result:
    """The result of one run."""

    name: str
    measure: Measure
    curve: np.ndarray      # (points, 3): epoch, KL, beta
    samples: np.ndarray      # (R, C, D), decoded draws from the prior
    seconds: float


def train(x_train: np.ndarray, x_test: np.ndarray, epochs: int, seed: int) -> Iterator[Result]:
    """The results, run by run.  Network, initial weights, data, order and noise are the same for all."""
    batch = min(BATCH, len(x_train))
    steps = epochs * -(-len(x_train) // batch)
    runs = objectives(steps)
    test = to_float(x_test)
    with cli.progress(None, "step", steps * len(runs)) as bar:
        for name, objective in runs.items():
            bar.set_description(name)
            began = time.perf_counter()
            vae = VAE(x_train.shape[1], **NETWORK, seed=seed)
            vae.start_at(to_float(x_train).mean(axis=0))      # the best output bias without z
            watch = Watch(test[:500], bar)
            fit(vae, x_train, x_test, epochs, batch, Adam(LR, eps=EPS), objective, seed=seed, callbacks=[watch])
            rng = np.random.default_rng(seed)
            found = measure(vae, test, rng)
            samples = vae.sample(SAMPLES[0] * SAMPLES[1], rng).reshape(*SAMPLES, -1)
            yield Result(name, found, np.array(watch.points), samples, time.perf_counter() - began)


# ---- The picture: one row for each run

def draw(results: list[Result], image_shape: tuple[int, ...]) -> bytes:
    """The picture, as PNG.  KL has the same scale in all rows; early in annealing it may exceed it."""
    most = 1.2 * max(result.measure.kl.max() for result in results)
    highest = 1.3 * max(result.measure.rate for result in results)
    with new_figure(1350, 40 + 245 * len(results)) as figure:
        rows = figure.subfigures(len(results), 1, height_ratios=[1] * (len(results) - 1) + [1.15], squeeze=False)
        for (row,), result in zip(rows, results):
            row.suptitle(headline(result), x=0.01, ha="left", fontweight="bold", fontsize=FONT + 1)
            bars, tiles, curve = row.subplots(1, 3, width_ratios=(1, 1.15, 1))
            draw_bars(bars, result.measure, most)
            draw_samples(tiles, result.samples, image_shape)
            draw_curve(curve, result.curve, highest)
        bars.set_xlabel("latent dimension, in order of KL")
        tiles.set_xlabel("decoded draws from the prior")
        curve.set_xlabel("epoch")
        return png(figure)


def headline(result: Result) -> str:
    """The title of a row: the numbers of a run."""
    found = result.measure
    return (f"{result.name}:   -ELBO {found.loss:.1f}  =  distortion {found.distortion:.1f}  +  KL {found.rate:.1f},"
            f"   {found.active} of {len(found.kl)} units active")


def draw_bars(axes: Axes, found: Measure, top: float) -> None:
    """The KL of each latent dimension, in falling order."""
    kl = np.sort(found.kl)[::-1]
    axes.bar(np.arange(len(kl)), kl, color=BLUE, width=0.8)
    axes.set(xlim=(-1, len(kl)), ylim=(0, top))
    axes.text(0.97, 0.9, f"largest: {kl[0]:.2g}", transform=axes.transAxes, ha="right", va="top")
    label_axes(axes, "", "", "KL (nats)")


def draw_samples(axes: Axes, samples: np.ndarray, image_shape: tuple[int, ...]) -> None:
    """Images (R, C, D) as tiles."""
    axes.imshow(mosaic(samples, image_shape)[0], cmap="gray_r", vmin=0, vmax=255, interpolation="hanning")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_curve(axes: Axes, curve: np.ndarray, top: float) -> None:
    """KL on test images and beta against the epoch, curve (points, 3)."""
    epoch, kl, beta = curve.T
    axes.plot(epoch, kl, color=BLUE, linewidth=2.5)
    axes.set(xlim=(0, epoch[-1]), ylim=(0, top))
    label_axes(axes, "", "", "KL (nats)")
    twin = axes.twinx()
    twin.plot(epoch, beta, ":", color=ORANGE, linewidth=2.5)
    twin.set(ylim=(0, 1.1), yticks=[0, 1])
    twin.tick_params(labelsize=FONT, colors=ORANGE)
    twin.set_ylabel("beta", color=ORANGE)


# ---- The program

def arguments() -> argparse.Namespace:
    """The flags.  Raises UsageError, also if the picture cannot be written: before training, not after it."""
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    parser.add_argument("--epochs", type=cli.number(int, 1), default=EPOCHS, help="epochs of each run")
    parser.add_argument("--limit", type=cli.number(int, 1), default=None, metavar="N",
                        help="use only the first N images")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="seed of all random numbers")
    parser.add_argument("--quick", action="store_true", help="2 epochs on 1,000 images: only to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/posterior_collapse.png"), metavar="FILE",
                        help="a .png file for the picture")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.limit = 2, 1000
    if args.out == parser.get_default("out"):
        args.out.parent.mkdir(exist_ok=True)
    cli.output("--out", args.out, [".png"])
    return args


def main() -> None:
    args = arguments()
    rng = np.random.default_rng(args.seed)
    x_train, _, x_test, _ = (part[:args.limit] for part in load_mnist())
    x_train, x_test = binarize(x_train, "static", rng), binarize(x_test, "static", rng)
    alone = independent_pixels(to_float(x_train), to_float(x_test))
    print(f"nats per test image, binarized, sampled z, beta = 1; without any z: {alone:.2f}\n")
    print(f"{'run':22s} {'-ELBO':>8s} {'distortion':>11s} {'KL':>7s} {'active units':>14s} {'seconds':>8s}")
    results = []
    for result in train(x_train, x_test, args.epochs, args.seed):
        found = result.measure
        tqdm.write(f"{result.name:22s} {found.loss:8.2f} {found.distortion:11.2f} {found.rate:7.2f} "
                   f"{f'{found.active} of {len(found.kl)}':>14s} {result.seconds:8.1f}")
        results.append(result)
    write_atomically(args.out, draw(results, (28, 28)))
    print(f"\npicture: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
