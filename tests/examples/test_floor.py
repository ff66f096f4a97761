"""The floor of the benchmark, `contenders/floor.py`: the matrix products of training, all of them and no more."""
from dataclasses import replace

import numpy as np
import pytest

from npvae import VAE, decoders, layers
from contender_gradients import BOTH, DRAWN, MADE, SMALL, VAMP
from contenders import floor, npvae_, works
from benchmark_images import images


class Whole(layers.Staircase):      # all of a matrix
    def __init__(self, mask):
        self.mask, self.by_rows = mask, [(slice(None), slice(None))]
        self.by_columns = self.by_rows


@pytest.mark.parametrize("work", [
    SMALL, DRAWN, replace(SMALL, hidden=()), MADE, replace(MADE, draws=4, hidden=()), VAMP,
    replace(BOTH, draws=4), replace(VAMP, hidden=())],
    ids=["elbo", "iwae", "no hidden layer", "made", "iwae made", "vamp", "iwae vamp made", "vamp, no hidden layer"])
def test_the_floor_is_the_products_of_training(work, monkeypatch):
    """Every product that npvae makes in a step, and no other; flops count them.  Of a masked matrix npvae leaves out a
    quarter, zeros all of them, which the floor has."""
    for module in (layers, decoders):
        monkeypatch.setattr(module, "Staircase", Whole)
    vae = VAE(work.input_dim, work.hidden, work.latent, work.activation, kernels="numpy", **work.variant)
    rng, seen, matmul = np.random.default_rng(0), [], np.matmul

    def spy(a, b, out):
        seen.append((*a.shape, b.shape[1]))
        return matmul(a, b, out=out)
    x, eps = images(work, rng), rng.standard_normal((work.batch, work.draws, work.latent))
    with monkeypatch.context() as patch:
        patch.setattr(np, "matmul", spy)
        vae.loss_and_gradients(x, eps, npvae_.objective(work))
    assert sorted(seen) == sorted(work.products(work.batch))
    assert work.flops() == sum(2 * m * k * n for m, k, n in seen)
    step = floor.products(work, work.batch, floor._weights(work, rng), rng)
    assert sorted((*a.shape, b.shape[1]) for a, b, _ in step) == sorted(seen)
    for _ in range(3):
        floor.run(step, 1)
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for product in step for array in product)


def test_shares_of_the_weights_are_all_of_them():
    """Their products, added or side by side, are those of the step, each number once."""
    rng = np.random.default_rng(0)
    given = floor._weights(DRAWN, rng)
    step = floor.products(DRAWN, DRAWN.batch, given, rng)
    for a, b, out in step:
        shares = [floor._with_a_share((a, b, out), share, 3, list(given.values())) for share in range(3)]
        for x, W, part in shares:
            np.matmul(x, W, out=part)
        found = out if all(np.shares_memory(part, out) for *_, part in shares) else sum(part for *_, part in shares)
        assert np.allclose(found, a @ b, rtol=1e-3, atol=1e-4)
        assert sum(x.size * W.shape[1] for x, W, _ in shares) == a.size * b.shape[1]


def test_flops_by_hand():
    work = works.WORKS["784-128-20 b128 relu"]
    weights = 784 * 128 + 2 * 128 * 20 + 20 * 128 + 128 * 784
    assert work.flops() == 128 * 2 * (3 * weights - 784 * 128)
    assert work.steps == 60000 / 128
