"""Does log p(x) find images of another kind?  MNIST against Fashion-MNIST, both ways, and a digit left out.

    python examples/outliers.py FOLDER

FOLDER holds the four IDX files of Fashion-MNIST.  A model is trained on one data set, and test images of that set are
told from images of another by a score of each image:

    log p(x)          by importance sampling
    ELBO
    reconstruction    the mean of log p(x|z) over z ~ q(z|x)

AUROC is the probability that an image of the training set's kind has the higher score, of one of each at random: 1 is
perfect, 0.5 is chance, and less means that the other kind seems more likely.  Nalisnick et al. 2019, Do Deep Generative
Models Know What They Don't Know?, found that on pictures of things.

With --limit 10000 --images 500 --samples 50, in some minutes:

    trained on / against                log p(x)            ELBO  reconstruction    mean log p(x) of the two
    MNIST / Fashion-MNIST                  0.999           1.000           1.000         -850      -3045
    Fashion-MNIST / MNIST                  0.082           0.126           0.133        -2162      -1196
    MNIST without 1 / 1                    0.022           0.021           0.021         -917       -531

Likelihood misleads in the last two: images with little ink have a high one, whatever they show.

All images have 256 grey levels, and log p(x) is a probability of bytes: beta-binomial pixels.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

from npvae import VAE, Adam, fit, load_mnist
from npvae.cli import Parser, exit_code, number
from npvae.data import load_fashion_mnist
from npvae.evaluate import auroc, score_rows
from npvae.evaluate.scores import WARNING

SCORES = ("log p(x)", "ELBO", "reconstruction")


def scores_of(vae: VAE, x: np.ndarray, samples: int, seed: int) -> dict[str, np.ndarray]:
    """The scores of images x (N, D) by name; higher is more like the training data."""
    found = score_rows(vae, x, seed, samples)
    return dict(zip(SCORES, (found.log_p, found.elbo, -found.reconstruction)))


def compare(name: str, train: np.ndarray, inliers: np.ndarray, outliers: np.ndarray, args: argparse.Namespace) -> str:
    """A row of the table: AUROC of each score of a model trained on `train` (N, D); all images are bytes."""
    vae = VAE(784, (args.hidden,), 20, likelihood=args.likelihood, seed=args.seed)
    fit(vae, train, epochs=args.epochs, optimizer=Adam(1e-3), seed=args.seed, progress=args.progress)
    ours, theirs = (scores_of(vae, x, args.samples, args.seed) for x in (inliers, outliers))
    means = f"{ours['log p(x)'].mean():10.0f} {theirs['log p(x)'].mean():10.0f}"
    return f"{name:28s}" + "".join(f"{auroc(ours[one], theirs[one]):16.3f}" for one in SCORES) + f"   {means}"


def main() -> None:
    """Train the models, one after the other, and print a row of the table for each."""
    parser = Parser(None, "AUROC of three scores on MNIST, Fashion-MNIST and a digit left out.",
                    "example:\n  python examples/outliers.py ~/fashion-mnist --epochs 10")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the four IDX files of Fashion-MNIST")
    parser.add_argument("--epochs", type=number(int, 1), default=5, help="of each training")
    parser.add_argument("--hidden", type=number(int, 1), default=200, help="width of the hidden layer")
    parser.add_argument("--likelihood", default="beta-binomial", help="of the pixels")
    parser.add_argument("--images", type=number(int, 1), default=1000, metavar="N", help="test images of each kind")
    parser.add_argument("--limit", type=number(int, 1), default=60000, metavar="N", help="training images")
    parser.add_argument("--samples", type=number(int, 1), default=100, metavar="L", help="importance samples")
    parser.add_argument("--digit", type=number(int, 0), default=1, help="the digit that is left out")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of all random numbers")
    parser.add_argument("--progress", action="store_true", help="show the course of training")
    args = parser.parse_args()
    fashion, _, fashion_test, _ = load_fashion_mnist(args.folder)
    mnist, labels, mnist_test, labels_test = load_mnist()
    fashion, mnist, labels = fashion[:args.limit], mnist[:args.limit], labels[:args.limit]
    n, left_out, found = args.images, labels == args.digit, labels_test == args.digit
    print(f"AUROC after {args.epochs} epochs, {args.likelihood}, {args.samples} importance samples, {n} images a kind")
    print(f"{'trained on / against':28s}" + "".join(f"{one:>16s}" for one in SCORES) + "    mean log p(x) of the two")
    rows = (("MNIST / Fashion-MNIST", mnist, mnist_test[:n], fashion_test[:n]),
            ("Fashion-MNIST / MNIST", fashion, fashion_test[:n], mnist_test[:n]),
            (f"MNIST without {args.digit} / {args.digit}", mnist[~left_out], mnist_test[~found][:n],
             mnist_test[found][:n]))
    for name, train, inliers, outliers in rows:
        print(compare(name, train, inliers, outliers, args), flush=True)
    print(WARNING[0].upper() + WARNING[1:])


if __name__ == "__main__":
    sys.exit(exit_code(main))
