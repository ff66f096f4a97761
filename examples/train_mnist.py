"""Train a variational autoencoder on MNIST: the training loop in the open.

Read it from top to bottom.  What is called here stands in npvae, with every gradient derived and written by hand:
`VAE.loss_and_gradients` in npvae/model/vae.py, `Adam.step` in npvae/optim.py.  All results go to the folder --out:
pictures, a page that shows them (report.html), metrics.jsonl, config.json, checkpoint.npz.

Shapes: N training images, M test images, B batch, D pixels of an image, K draws of z for each image, Z latent.
"""
import argparse
import math
import sys
import time

from npvae import ELBO, VAE, Adam, NonFiniteError, cli      # before NumPy: from here on Ctrl-C ends it in one line
from npvae.cli import options, runs
from npvae.evaluate import count_active, elbo_terms

import numpy as np

#: what a first experiment changes; `npvae train` has all other flags
FLAGS = ("epochs", "hidden", "latent", "batch_size", "lr", "beta", "seed", "data_dir", "limit", "out", "overwrite")
EXAMPLES = """examples:
  python examples/train_mnist.py                                            784-128-20 on grey MNIST
  python examples/train_mnist.py --hidden 400 --out runs/400                the network of many tutorials
  python examples/train_mnist.py --latent 2 --epochs 30 --out runs/plane    a plane of digits
  python examples/train_mnist.py --data-dir PICTURES --out runs/mine        a folder of your own

for all else (other likelihoods, priors, posteriors and decoders, labels, IWAE, binarization, schedules,
threads, and --resume, also of a run made here) see npvae train --help
"""


def main() -> None:
    args = options.parse_few(FLAGS, "Train a variational autoencoder: a training loop to read and to change.", EXAMPLES)
    with runs.own_folder(args):      # refuses a folder that holds a run, or that another process writes to
        train(args)


def train(args: argparse.Namespace) -> None:
    """Data, model, optimizer; then epochs of batches; then pictures."""
    images = runs.load_images(args)      # 1. Data: one image per row.

    # 2. The model; what is minimised, in nats per image: reconstruction + beta KL; and how.
    vae = VAE(images.train_images.shape[1], args.hidden, args.latent, seed=args.seed)
    objective, adam = ELBO(args.beta), Adam(args.lr)

    results = runs.Results(args, images, vae, objective, adam)      # 3. The files.
    x_train, x_test = results.x_train, results.x_test      # (N, D), (M, D) floats: bytes / 255

    # 4. Training.  All randomness comes from --seed, so a second run gives the same numbers, bit for bit.
    rng = np.random.default_rng([args.seed, 1])
    try:
        with vae.engine.running():      # tells BLAS once, and not in every step, to leave the cores to npvae
            for epoch in range(1, args.epochs + 1):
                began, losses = time.perf_counter(), 0.0
                order = rng.permutation(len(x_train))      # (N,): each image once in an epoch, in a new order
                for start in cli.progress(range(0, len(x_train), args.batch_size), f"batch of epoch {epoch}"):
                    x = x_train[order[start:start + args.batch_size]]      # (B, D); the last batch may be smaller
                    # The noise of z = mu + exp(logvar / 2) eps is an argument: so the loss is a plain function of the
                    # parameters, which has a gradient.  One draw for each image is enough: K = 1.
                    eps = rng.standard_normal((len(x), 1, args.latent), dtype=np.float32)      # (B, K, Z)
                    loss, gradients = vae.loss_and_gradients(x, eps, objective, adam.t)
                    if not math.isfinite(loss):
                        raise NonFiniteError(f"step {adam.t}: the loss is {loss}; a smaller --lr may help")
                    adam.step(vae.parameters, gradients)
                    losses += loss * len(x)      # the loss is a mean over the batch
                trained = time.perf_counter() - began

                # 5. Evaluation: minus the bound, with beta = 1.  z is drawn, since at z = mu the reconstruction reads
                # some 9 nats too good; the same draws in each epoch, so that epochs compare.
                nll, kl, mu = elbo_terms(vae, x_test, np.random.default_rng([args.seed, 2]))      # (M,), (M,), (M, Z)
                test_nll, test_kl = float(nll.mean(dtype=np.float64)), float(kl.mean(dtype=np.float64))
                row = {"epoch": epoch, "step": adam.t, "learning_rate": args.lr, "beta": args.beta,
                       "train_loss": losses / len(x_train), "test_loss": test_nll + test_kl, "test_nll": test_nll,
                       "test_kl": test_kl, "active_units": count_active(mu),      # latent dimensions in use
                       "seconds": time.perf_counter() - began, "images_per_second": len(x_train) / trained}
                print(f"epoch {epoch:3d}/{args.epochs}  train {row['train_loss']:7.2f}  test {row['test_loss']:7.2f} "
                      f"(nll {test_nll:6.2f}, kl {test_kl:5.2f})  active {row['active_units']:2d}  "
                      f"{row['images_per_second']:8,.0f} img/s  {row['seconds']:5.1f} s", file=sys.stderr)
                results.history.append(row)
                results.save()      # metrics.jsonl and checkpoint.npz
    except KeyboardInterrupt:      # Ctrl-C: what has been learned so far is kept
        results.save()
        raise

    results.finish()      # 6. Pictures, report.html, and the last numbers on the screen.


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
