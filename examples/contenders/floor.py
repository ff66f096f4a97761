"""The floor: only the matrix products of a training step, by `np.matmul` into existing buffers.

There is no activation, loss, noise, Adam or gathering.  A library whose products go to the same BLAS cannot be faster,
unless it skips zeros of masked matrices, which are multiplied in full here.  There are three forms, and the fastest
counts:

    together    one product after the other, each on all BLAS threads
    lanes       one Python thread for each part of the batch, with one BLAS thread each; the sum of the parts'
                gradients, which training needs, is left out
    weights     one Python thread for each part of every layer's weights, with one BLAS thread each; sums over parts,
                and waiting for the layer below, are left out
"""
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from .works import Array, Job, Work

if TYPE_CHECKING:
    from .worker import Turns

Product = tuple[Array, Array, Array]      # a, b, out


def versions() -> dict[str, str]:
    """The versions of what does the arithmetic."""
    return {"numpy": np.__version__}


def products(work: Work, images: int, weights: dict[str, Array], rng: np.random.Generator) -> list[Product]:
    """The products of one step on `images` images, in the order of training.  The input of a layer is the output of the
    layer below, as in training; its numbers are arbitrary, but not subnormal or infinite."""
    def filled(rows: int, columns: int) -> Array:
        return rng.standard_normal((rows, columns), dtype=np.float32)

    forward: list[Product] = []
    backward: list[Product] = []
    written: dict[str, Array] = {}
    for layer in work.layers():
        rows, back = work.rows(layer, images)
        if layer.reads not in written:      # x or z
            written[layer.reads] = filled(rows, layer.n_in)
        x, W, dpre = written[layer.reads][:rows], weights[layer.name], filled(rows, layer.n_out)
        written[layer.name] = filled(rows, layer.n_out)
        forward.append((x, W, written[layer.name]))
        if back:
            backward.append((dpre[rows - back:], W.T, filled(back, layer.n_in)))
        backward.append((x.T, dpre, np.empty_like(W)))
    return forward + backward[::-1]


def _weights(work: Work, rng: np.random.Generator) -> dict[str, Array]:
    return {layer.name: (rng.standard_normal((layer.n_in, layer.n_out)) / np.sqrt(layer.n_in)).astype(np.float32)
            for layer in work.layers()}


def run(step: list[Product], steps: int) -> None:
    """Do the products `steps` times."""
    for _ in range(steps):
        for a, b, out in step:
            np.matmul(a, b, out=out)


def together(work: Work, steps: int, threads: int) -> float:
    """Seconds of `steps` steps with all BLAS threads on each product."""
    rng = np.random.default_rng(0)
    step = products(work, work.batch, _weights(work, rng), rng)
    with threadpool_limits(threads, user_api="blas"):
        run(step, 2)
        began = time.perf_counter()
        run(step, steps)
        return time.perf_counter() - began


def lanes(work: Work, steps: int, threads: int) -> float:
    """Seconds of `steps` steps with the batch divided among Python threads."""
    rng = np.random.default_rng(0)
    given = _weights(work, rng)
    shares = [len(share) for share in np.array_split(np.arange(work.batch), threads) if len(share)]
    return _side_by_side([products(work, share, given, rng) for share in shares], steps)


def weights(work: Work, steps: int, threads: int) -> float:
    """Seconds of `steps` steps with the weights divided among Python threads."""
    rng = np.random.default_rng(0)
    given = _weights(work, rng)
    step = products(work, work.batch, given, rng)
    return _side_by_side([[_with_a_share(product, share, threads, list(given.values())) for product in step]
                          for share in range(threads)], steps)


def _with_a_share(product: Product, share: int, threads: int, given: list[Array]) -> Product:
    """The part of a product that belongs to some rows of W: terms of x W, columns of dpre W^T, rows of dW."""
    def part(rows: int) -> slice:
        return slice(rows * share // threads, rows * (share + 1) // threads)

    a, b, out = product
    if any(b is W for W in given):
        return a[:, part(len(b))], b[part(len(b))], np.empty_like(out)
    if any(b.base is W for W in given):
        return a, b[:, part(b.shape[1])], out[:, part(b.shape[1])]
    return a[part(len(a))], b, out[part(len(a))]


def _side_by_side(todo: list[list[Product]], steps: int) -> float:
    with threadpool_limits(1, user_api="blas"):
        for step in todo:
            run(step, 2)
        workers = [threading.Thread(target=run, args=(step, steps)) for step in todo]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - began


def train(job: Job, turns: "Turns") -> None:
    """At each turn, the products of an epoch in all forms; `seconds` is that of the fastest."""
    steps = max(1, round(job.work.steps))
    go = turns.wait()
    while go:
        forms = {form.__name__: form(job.work, steps, job.threads) * job.work.steps / steps
                 for form in (together, lanes, weights)}
        go = turns.done(seconds=min(forms.values()), forms=forms, cpu=None)      # of all forms
