"""Train a variational autoencoder on MNIST: every gradient in it is written by hand.

    python examples/train_mnist.py                                  784-128-20 on grey MNIST, 10 epochs
    python examples/train_mnist.py --hidden 400                     the network of many tutorials
    python examples/train_mnist.py --latent 2 --epochs 30           a plane of digits
    python examples/train_mnist.py --objective iwae --k 5 --binarize dynamic
    python examples/train_mnist.py --data-dir PATH                  IDX files, your own pictures, a CSV table, arrays

Everything goes to --out: pictures, a page that shows them (report.html), metrics.jsonl, config.json, checkpoint.npz.
The steps, data -> model -> objective and optimizer -> fit -> pictures, stand in `npvae.runs.train`; `npvae train` is
the same program.
"""
import sys

from npvae import cli, options, runs


def main() -> None:
    runs.train(options.parse(options.training_parser()))


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
