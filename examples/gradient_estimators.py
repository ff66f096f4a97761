"""Does a tighter bound have a worse gradient?  Three estimators of the encoder's gradient, by the number of draws K.

    python examples/gradient_estimators.py              runs/gradient_estimators.png, in half a minute
    python examples/gradient_estimators.py --quick      only to see that it runs, in a few seconds

With more draws IWAE's bound is tighter, and then depends less on the encoder: the encoder's gradient, the signal, falls
as 1/K.  For each estimator the noise is the standard deviation of its gradient.

    total    noise falls only as 1/sqrt(K), so the signal-to-noise ratio falls as 1/sqrt(K) (Rainforth et al. 2018)
    dreg     doubly reparameterized (Tucker et al. 2019): the same mean, but noise falls as K^(-3/2), so the ratio rises
             as sqrt(K)
    stl      sticking the landing (Roeder et al. 2017): less noise than total, but biased for K > 1, and the bias does
             not fall with the signal

The decoder's gradient is the same for all three, and its ratio rises with K.  These laws hold for large K: later, the
more the importance weights of the draws differ.  Try --sigma 0.4.

The network is small and was trained on MNIST for a few epochs.  The gradients are those of one batch of test images,
with the noise drawn many times.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from npvae import IWAE, VAE, Adam, cli, fit, load_mnist
from npvae.system.files import write_atomically
from npvae.data import to_float
from npvae.plotting import png
from npvae.plotting.figures import BLUE, GREY, INK, ORANGE, label_axes, new_figure

ESTIMATORS = {"total": GREY, "stl": ORANGE, "dreg": BLUE}      # name -> colour in the picture
BATCH = 4      # images
Part = slice | np.ndarray      # some entries of a vector: a slice, or an array of bools


class Moments:
    """Mean and variance of vectors (P,) that are added one at a time (Welford 1962)."""

    def __init__(self, size: int) -> None:
        self.n, self.mean, self.squares = 0, np.zeros(size), np.zeros(size)

    def add(self, vector: np.ndarray) -> None:
        """Add a vector."""
        self.n += 1
        difference = vector - self.mean
        self.mean += difference / self.n
        self.squares += difference * (vector - self.mean)

    def noise(self, part: Part = slice(None)) -> float:
        """The root mean square distance of a vector from the mean, over the entries `part`.  Needs two vectors."""
        return float(np.sqrt(self.squares[part].sum() / (self.n - 1)))

    def signal(self, part: Part = slice(None)) -> float:
        """The length of the true mean, over the entries `part`.  The mean of n vectors is longer: its squared length is
        too large by noise^2 / n."""
        return float(np.sqrt(max(0.0, (self.mean[part] ** 2).sum() - self.noise(part) ** 2 / self.n)))


def measure(vae: VAE, x: np.ndarray, draws: int, repeats: int, seed: int) -> dict[str, float]:
    """Lengths of gradients with `draws` draws, on images x (B, D), in nats per unit of a parameter, and their ratios.

    signal       length of the encoder's true gradient, from the mean of dreg: total has the same mean
                 (tests/latents/test_estimator_means.py) and more noise
    noise ...    standard deviation of each estimator
    bias stl     length of the bias of stl
    ratio ...    signal / root mean square error, which for stl includes the bias
    decoder      signal / noise of the decoder's gradient

    All estimators get the same draws of z.
    """
    encoder = np.concatenate([np.full(value.size, name.split(".")[0] in ("encoder", "mu", "logvar"))
                              for name, value in vae.parameters.items()])
    found, rng = {name: Moments(len(encoder)) for name in (*ESTIMATORS, "bias")}, np.random.default_rng([seed, draws])
    for _ in range(repeats):
        eps = rng.standard_normal((len(x), draws, vae.latent_dim))
        each = {name: vae.loss_and_gradients(x, eps, IWAE(gradient=name))[1].flat.copy() for name in ESTIMATORS}
        for name, gradient in each.items():
            found[name].add(gradient)
        found["bias"].add(each["stl"] - each["dreg"])
    signal, noise = found["dreg"].signal(encoder), {name: found[name].noise(encoder) for name in ESTIMATORS}
    bias, plain = found["bias"].signal(encoder), found["total"]
    return {"K": draws, "signal": signal, **{f"noise {name}": noise[name] for name in ESTIMATORS}, "bias stl": bias,
            "ratio total": signal / noise["total"], "ratio stl": signal / float(np.hypot(noise["stl"], bias)),
            "ratio dreg": signal / noise["dreg"], "decoder": plain.signal(~encoder) / plain.noise(~encoder)}


def exponent(rows: Sequence[dict[str, float]], name: str) -> float:
    """The p of  value = c K^p,  by least squares on logarithms, for K >= 4, since the laws hold for large K.  NaN for
    fewer than two positive values."""
    points = np.array([(row["K"], row[name]) for row in rows if row["K"] >= 4 and row[name] > 0])
    return float(np.polyfit(np.log(points[:, 0]), np.log(points[:, 1]), 1)[0]) if len(points) > 1 else float("nan")


def trained(sigma: float, images: int, seed: int) -> tuple[VAE, np.ndarray]:
    """A small network in float64, trained for a few epochs, and test images x (B, D)."""
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
        for name, color in ESTIMATORS.items():
            line(sizes, rows, f"noise {name}", color)
            line(encoder, rows, f"ratio {name}", color)
        line(sizes, rows, "bias stl", ORANGE, "--")
        line(decoder, rows, "decoder", INK)
        label_axes(sizes, "Encoder: signal, noise and bias", "draws K", "length of the gradient")
        label_axes(encoder, "Encoder: signal / error", "draws K", "")
        label_axes(decoder, "Decoder: signal / noise", "draws K", "")
        figure.suptitle(f"The gradient of IWAE's bound, MNIST, sigma {sigma:g}; in brackets the exponent of K")
        return png(figure)


def line(axes: Axes, rows: Sequence[dict[str, float]], name: str, color: str, style: str = "-") -> None:
    """A line on logarithmic scales, with its exponent in the legend."""
    points = np.array([(row["K"], row[name]) for row in rows if row[name] > 0]).reshape(-1, 2)
    axes.loglog(points[:, 0], points[:, 1], "o" + style, color=color, linewidth=2.5,
                label=f"{name} ({exponent(rows, name):+.2f})")
    axes.legend(loc="best")


# ---- The program

def arguments() -> argparse.Namespace:
    """The flags.  Raises UsageError, also if the picture cannot be written."""
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    parser.add_argument("--most", type=cli.number(int, 1), default=256, metavar="K", help="the largest number of draws")
    parser.add_argument("--repeats", type=cli.number(int, 2), default=200, metavar="N",
                        help="number of times the noise is drawn")
    parser.add_argument("--limit", type=cli.number(int, 1), default=5000, metavar="N", help="images to train on")
    parser.add_argument("--sigma", type=cli.number(float, 0, strict=True), default=1.5,
                        help="of p(x|z): the smaller, the more the importance weights of the draws differ")
    parser.add_argument("--seed", type=cli.number(int, 0), default=0, help="seed of all random numbers")
    parser.add_argument("--quick", action="store_true", help="fewer of everything: only to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/gradient_estimators.png"), metavar="FILE",
                        help="a .png file for the picture")
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
    print(f"the encoder's gradient: signal, noise, bias ({args.repeats} repeats); in the last line the exponent of K\n")
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
