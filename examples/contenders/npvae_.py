"""npvae, trained by its public `fit`.

The time of an epoch is the training time of `fit`, from `images_per_second`: gathering and scaling bytes, drawing
noise, both passes, the check for NaN, Adam, and the sums of the metrics.  It does not include the permutation, nor
evaluation after the epoch, for which there is only one batch of images.
"""
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from npvae import ELBO, IWAE, VAE, Adam, Callback, fit

from .works import BETA1, BETA2, EPS, LR, Array, Job, Work

if TYPE_CHECKING:
    from npvae.train import Run

    from .worker import Turns


@contextmanager
def on_threads(vae: VAE, threads: int) -> Iterator[None]:
    """Within this context npvae has this number of threads."""
    vae.threads = threads      # with NumPy kernels BLAS alone has threads
    with threadpool_limits(threads, user_api="blas"):
        yield


def versions() -> dict[str, str]:
    """The versions of what does the arithmetic."""
    found = {"numpy": np.__version__}
    try:
        import numba
        found["numba"] = numba.__version__
    except ImportError:
        found["numba"] = "absent: the NumPy kernels take its place"
    return found


def model(job: Job) -> VAE:
    """The network of a job, with the initial weights that all contenders have."""
    work = job.work
    vae = VAE(work.input_dim, work.hidden, work.latent, work.activation, kernels=job.variant, **work.variant)
    for name, value in job.parameters.items():
        vae.parameters[name][...] = value
    return vae


def objective(work: Work) -> ELBO | IWAE:
    """The objective of a work."""
    return IWAE() if work.draws > 1 else ELBO(sampled=work.sampled)


class _Pause(Callback):
    """Lets `fit` wait after each epoch until the parent process asks for the next."""

    def __init__(self, turns: "Turns") -> None:
        self.turns = turns

    def on_start(self, run: "Run") -> None:
        run.stop = not self.turns.wait()

    def on_epoch(self, run: "Run") -> None:
        last, images = run.history[-1], len(run.train)
        run.stop = not self.turns.done(seconds=images / last["images_per_second"], loss=last["train_loss"])


def train(job: Job, turns: "Turns") -> None:
    """One call of `fit`, with an epoch at each turn."""
    work, vae = job.work, model(job)
    with on_threads(vae, job.threads):
        fit(vae, job.pixels, job.pixels[:work.batch], epochs=10**9, batch_size=work.batch,
            optimizer=Adam(LR, BETA1, BETA2, EPS), objective=objective(work), n_samples=work.draws,
            seed=job.seed, callbacks=[_Pause(turns)])


def likelihood(job: Job, turns: "Turns") -> None:
    """At each turn, log p(x) of every image."""
    samples = job.options["samples"]
    vae, x = model(job), job.pixels / np.float32(255)
    with on_threads(vae, job.threads):
        vae.log_likelihood(x[:1], np.random.default_rng(1), samples)
        rng, go = np.random.default_rng(job.seed), turns.wait()
        while go:
            began = time.perf_counter()
            values: Array = vae.log_likelihood(x, rng, samples)
            go = turns.done(seconds=time.perf_counter() - began, values=values.tolist())
