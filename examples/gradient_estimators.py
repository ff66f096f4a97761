"""A tighter bound, and a worse gradient?  Three estimators of the encoder's gradient against the number of draws K.

    python examples/gradient_estimators.py              half a minute; picture: runs/gradient_estimators.png
    python examples/gradient_estimators.py --quick      a few seconds, only to see that it runs

IWAE's bound is tighter the more draws it has, and the tighter it is, the less it depends on the encoder: the gradient,
the signal, falls as 1/K.  The noise in the plain estimate falls as 1/sqrt(K) only, so the signal drowns in it, as
1/sqrt(K) (Rainforth et al. 2018).  The doubly reparameterized one (DReG, Tucker et al. 2019) has the same mean, and
noise that falls as K^(-3/2): its signal-to-noise ratio rises, as sqrt(K).  Sticking the landing (STL, Roeder et al.
2017) has less noise too, but for K > 1 its mean is another one, and does not fall with the gradient that it estimates.
The decoder's gradient is the same in all three, and gains from more draws.

These are laws for large K; the more the weights of the draws differ, the later they hold: try --sigma 0.4.

Measured: a small network, trained on MNIST for a moment; one batch of test images; the noise drawn again and again.
"""
import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from npvae import IWAE, VAE, Adam, cli, fit, load_mnist
from npvae.system.files import write_atomically
from npvae.data import to_float
from npvae.plotting.figures import BLUE, GREY, INK, ORANGE, label_axes, new_figure

WAYS = {"total": GREY, "stl": ORANGE, "dreg": BLUE}
BATCH = 4      # images
Part = Any      # of the entries of a vector: a slice, or an array of bools


class Moments:
    """Mean and variance of vectors (P,) that come one at a time (Welford 1962).  Those of the mean need two."""

    def __init__(self, size: int) -> None:
        self.n, self.mean, self.squares = 0, np.zeros(size), np.zeros(size)

    def add(self, vector: np.ndarray) -> None:
        """One more."""
        self.n += 1
        away = vector - self.mean
        self.mean += away / self.n
        self.squares += away * (vector - self.mean)

    def noise(self, part: Part = slice(None)) -> float:
        """The root mean square distance from the mean, in some of the entries."""
        return float(np.sqrt(self.squares[part].sum() / (self.n - 1)))

    def signal(self, part: Part = slice(None)) -> float:
        """The length of the true mean, in some of the entries; that of n vectors is longer, by the noise left in it."""
        return float(np.sqrt(max(0.0, (self.mean[part] ** 2).sum() - self.noise(part) ** 2 / self.n)))


def measure(vae: VAE, x: np.ndarray, draws: int, repeats: int, seed: int) -> dict[str, float]:
    """With so many draws, on images x (B, D): lengths of gradients, in nats per unit of a parameter, and their ratios.

    signal       of the encoder's true gradient: of the mean of dreg, which is that of total
                 (tests/latents/test_estimator_means.py) and the least noisy
    noise ...    of each estimate of it
    bias stl     of the one that has another mean
    ratio ...    the signal against the root mean square error: noise, and for stl noise and bias
    decoder      signal against noise of the decoder's gradient

    All estimators see the same noise.
    """
    encoder = np.concatenate([np.full(value.size, name.split(".")[0] in ("encoder", "mu", "logvar"))
                              for name, value in vae.parameters.items()])
    found, rng = {name: Moments(len(encoder)) for name in (*WAYS, "bias")}, np.random.default_rng([seed, draws])
    for _ in range(repeats):
        eps = rng.standard_normal((len(x), draws, vae.latent_dim))
        each = {way: vae.loss_and_gradients(x, eps, IWAE(gradient=way))[1].flat.copy() for way in WAYS}
        for way, gradient in each.items():
            found[way].add(gradient)
        found["bias"].add(each["stl"] - each["dreg"])
    signal, noise = found["dreg"].signal(encoder), {way: found[way].noise(encoder) for way in WAYS}
    bias, plain = found["bias"].signal(encoder), found["total"]
    return {"K": draws, "signal": signal, **{f"noise {way}": noise[way] for way in WAYS}, "bias stl": bias,
            "ratio total": signal / noise["total"], "ratio stl": signal / float(np.hypot(noise["stl"], bias)),
            "ratio dreg": signal / noise["dreg"], "decoder": plain.signal(~encoder) / plain.noise(~encoder)}


def exponent(rows: Sequence[dict[str, float]], name: str) -> float:
    """p of  value = c K^p,  by least squares on double logarithmic scales, from 4 draws on: the laws are those of many.
    NaN for fewer than two points above zero."""
    points = np.array([(row["K"], row[name]) for row in rows if row["K"] >= 4 and row[name] > 0])
    return float(np.polyfit(np.log(points[:, 0]), np.log(points[:, 1]), 1)[0]) if len(points) > 1 else float("nan")


def trained(sigma: float, images: int, seed: int) -> tuple[VAE, np.ndarray]:
    """A small network after a moment of training, in float64, and test images x (B, D) to measure it on."""
    x_train, _, x_test, _ = load_mnist()
    x, few = to_float(x_train[:images]), to_float(x_test[:BATCH])
    vae = VAE(784, (50,), 5, "tanh", f"gaussian:{sigma!r}", "float64", seed=seed)
    vae.threads = 1
    vae.start_at(x.mean(axis=0))
    fit(vae, x, few, 5, min(100, images), Adam(2e-3), IWAE(gradient="dreg"), n_samples=5, seed=seed)
    return vae, few


# ---- The picture

def draw(rows: Sequence[dict[str, float]], sigma: float) -> bytes:
    """The picture, as PNG."""
    with new_figure(1500, 620) as figure:
        sizes, encoder, decoder = figure.subplots(1, 3)
        line(sizes, rows, "signal", INK)
        for way, color in WAYS.items():
            line(sizes, rows, f"noise {way}", color)
            line(encoder, rows, f"ratio {way}", color)
        line(sizes, rows, "bias stl", ORANGE, "--")
        line(decoder, rows, "decoder", INK)
        label_axes(sizes, "Encoder: what the estimates hold", "draws K", "length of the gradient")
        label_axes(encoder, "Encoder: signal to error", "draws K", "")
        label_axes(decoder, "Decoder: signal to noise", "draws K", "")
        figure.suptitle(f"The gradient of IWAE's bound, MNIST, sigma {sigma:g}; in brackets the power of K")
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def line(axes: Axes, rows: Sequence[dict[str, float]], name: str, color: str, style: str = "-") -> None:
    """One line on double logarithmic scales, its exponent in the legend."""
    points = np.array([(row["K"], row[name]) for row in rows if row[name] > 0]).reshape(-1, 2)
    axes.loglog(points[:, 0], points[:, 1], "o" + style, color=color, linewidth=2.5,
                label=f"{name} ({exponent(rows, name):+.2f})")
    axes.legend(loc="best")


# ---- The program

def arguments() -> argparse.Namespace:
    """The flags.  Raises UsageError, also for a picture that cannot be written."""
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    parser.add_argument("--most", type=cli.number(int, 1), default=256, metavar="K", help="the largest number of draws")
    parser.add_argument("--repeats", type=cli.number(int, 2), default=200, metavar="N",
                        help="times that the noise is drawn")
    parser.add_argument("--limit", type=cli.number(int, 1), default=5000, metavar="N", help="images to train on")
    parser.add_argument("--sigma", type=cli.number(float, 0, strict=True), default=1.5,
                        help="of a pixel given z: the smaller, the more the weights of the draws differ")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="of all randomness")
    parser.add_argument("--quick", action="store_true", help="little of everything: only to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/gradient_estimators.png"), metavar="FILE",
                        help="the picture to write, .png")
    args = parser.parse_args()
    if args.quick:
        args.most, args.repeats, args.limit = 16, 10, 500
    if args.out == parser.get_default("out"):
        args.out.parent.mkdir(exist_ok=True)
    cli.output("--out", args.out, [".png"])
    return args


def main() -> None:
    args = arguments()
    vae, x = trained(args.sigma, args.limit, args.seed)
    print(f"the encoder's gradient: signal, noise, bias ({args.repeats} repeats); in the last line the power of K\n")
    rows: list[dict[str, float]] = []
    for power in range(args.most.bit_length()):
        rows.append(measure(vae, x, 2 ** power, args.repeats, args.seed))
        if not power:
            print("    K " + "".join(f"{name:>13s}" for name in rows[0] if name != "K"))
        print(f"{2 ** power:5d} " + "".join(f"{value:13.3g}" for name, value in rows[-1].items() if name != "K"))
    print(" K^   " + "".join(f"{exponent(rows, name):+13.2f}" for name in rows[0] if name != "K"))
    write_atomically(args.out, draw(rows, args.sigma))
    print(f"picture: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
