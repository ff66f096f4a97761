"""npvae, trained by its public `fit`.

Measured per epoch: what `fit` itself calls the time of training alone (`images_per_second`), that is gathering and
scaling the bytes, drawing the noise, both passes, the test for NaN, Adam, and the sums of the metrics.  Not measured:
drawing the permutation, and the evaluation after the epoch, which is cut down to one batch of images.
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
    """npvae at work on so many threads.  The one place that says how."""
    vae.threads = threads      # with the NumPy kernels BLAS decides
    with threadpool_limits(threads, user_api="blas"):
        yield


def versions() -> dict[str, str]:
    """Of what does the arithmetic."""
    found = {"numpy": np.__version__}
    try:
        import numba
        found["numba"] = numba.__version__
    except ImportError:
        found["numba"] = "absent: the NumPy kernels take its place"
    return found


def model(job: Job) -> VAE:
    """The network of a job, its weights those that all start with."""
    work = job.work
    vae = VAE(work.input_dim, work.hidden, work.latent, work.activation, kernels=job.variant, **work.variant)
    for name, value in job.parameters.items():
        vae.parameters[name][...] = value
    return vae


def objective(work: Work) -> ELBO | IWAE:
    """What a work minimises."""
    return IWAE() if work.draws > 1 else ELBO(sampled=work.sampled)


class _Pause(Callback):
    """Between two epochs `fit` waits here until the parent asks for the next."""

    def __init__(self, turns: "Turns") -> None:
        self.turns = turns

    def on_start(self, run: "Run") -> None:
        run.stop = not self.turns.wait()

    def on_epoch(self, run: "Run") -> None:
        last, images = run.history[-1], len(run.train)
        run.stop = not self.turns.done(seconds=images / last["images_per_second"], loss=last["train_loss"])


def train(job: Job, turns: "Turns") -> None:
    """Epochs, one at a turn, in a single run of `fit`."""
    work, vae = job.work, model(job)
    with on_threads(vae, job.threads):
        fit(vae, job.pixels, job.pixels[:work.batch], epochs=10**9, batch_size=work.batch,
            optimizer=Adam(LR, BETA1, BETA2, EPS), objective=objective(work), n_samples=work.draws,
            seed=job.seed, callbacks=[_Pause(turns)])


def likelihood(job: Job, turns: "Turns") -> None:
    """log p(x) of every image, at each turn."""
    samples = job.options["samples"]
    vae, x = model(job), job.pixels / np.float32(255)
    with on_threads(vae, job.threads):
        vae.log_likelihood(x[:1], np.random.default_rng(1), samples)
        rng, go = np.random.default_rng(job.seed), turns.wait()
        while go:
            began = time.perf_counter()
            values: Array = vae.log_likelihood(x, rng, samples)
            go = turns.done(seconds=time.perf_counter() - began, values=values.tolist())
