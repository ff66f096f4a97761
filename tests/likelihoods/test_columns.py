"""Cells: every likelihood's terms of nll, one a column, against nll itself and its gradient."""
import numpy as np
import pytest

from npvae.kernels import fused, reference
from npvae.likelihoods import Likelihood, make_likelihood
from npvae.likelihoods.support import fitting
from npvae.params import Block
from strategies import IMAGES

B, K, D = 5, 3, 4
NAMES = [*IMAGES, "categorical:5", "gaussian-learned:0.7"]


def case(name, draws=K, dtype="float64"):
    """A likelihood, its parameters, the decoder's output (B, K, P) and x (B, D)."""
    rng, likelihood = np.random.default_rng(3), make_likelihood(name)
    params = Block(likelihood.shapes, dtype)
    likelihood.initialize(params)
    output = rng.normal(0, 1, (B, draws, likelihood.output_dim(D))).astype(dtype)
    return likelihood, params, output, fitting(likelihood, rng.random((B, D))).astype(dtype)


def both(kernels, likelihood, params, output, x, dcells):
    """cells, and doutput and the gradient of the parameters, from dcells (B, K, D)."""
    cells, kept, grads = np.full(dcells.shape, 777, output.dtype), np.empty_like(output), params.zeros_like()
    likelihood.columns_forward(kernels, cells, kept, output, x, params)
    doutput = np.full_like(output, 777)
    if likelihood.fits_batch:      # whose gradient is that of a whole batch
        return cells, None, None
    likelihood.columns_backward(kernels, doutput, grads, dcells, kept, output, x, params)
    return cells, doutput, grads.flat


@pytest.mark.every(2)
@pytest.mark.parametrize("draws", [1, K])
@pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
@pytest.mark.parametrize("name", NAMES)
def test_cells_add_up_to_nll_and_their_gradients_to_its_gradient(name, kernels, draws):
    likelihood, params, output, x = case(name, draws)
    dnll = np.random.default_rng(4).normal(0, 1, (B, draws))
    cells, doutput, dparams = both(kernels, likelihood, params, output, x, np.repeat(dnll[..., None], D, axis=2))
    nll, kept, whole, grads = np.empty((B, draws)), np.empty_like(output), np.empty_like(output), params.zeros_like()
    likelihood.forward(kernels, nll, kept, output, x, params)
    assert np.allclose(cells.sum(axis=2), nll, rtol=1e-12, atol=1e-12)
    if not likelihood.fits_batch:
        likelihood.backward(kernels, whole, grads, dnll, kept, output, x, params)
        assert np.allclose(doutput, whole, rtol=1e-12, atol=1e-13)
        assert np.allclose(dparams, grads.flat, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in NAMES if not make_likelihood(name).fits_batch])
def test_a_cell_depends_on_its_own_column_and_has_its_own_gradient(name):
    """Each cell has another weight; a complex step of the weighted sum."""
    likelihood, params, output, x = case(name)
    dcells = np.random.default_rng(5).normal(0, 1, (B, K, D))
    cells, doutput, _ = both(reference, likelihood, params, output, x, dcells)
    moved = x.copy()
    moved[:, 1] = x[::-1, 1]
    others = np.arange(D) != 1
    again = both(reference, likelihood, params, output, moved, dcells)[0]
    assert np.array_equal(again[..., others], cells[..., others])
    direction = np.random.default_rng(6).choice([-1, 1], output.shape)
    wide = Block(likelihood.shapes, "complex128")
    wide.flat[...] = params.flat
    step, kept = np.empty((B, K, D), complex), np.empty(output.shape, complex)
    likelihood.columns_forward(reference, step, kept, output + 1e-30j * direction, x.astype(complex), wide)
    slope = (dcells * step).sum().imag / 1e-30
    assert slope == pytest.approx((doutput * direction).sum(), rel=1e-11)


def test_a_likelihood_is_by_column_and_its_encoder_sees_x_unless_it_says_otherwise():
    assert all(make_likelihood(name).by_column for name in NAMES)
    assert all(make_likelihood(name).features_dim(7) == 7 for name in NAMES)
    assert Likelihood.by_column


@pytest.mark.parametrize("name", ["gaussian-learned", "gaussian-pixel", "gaussian-optimal"])
def test_a_sigma_starts_at_the_scale_of_the_data(name):
    """Missing cells aside: nll of data whose columns have their own means is that of the pooled standard deviation."""
    rng, likelihood = np.random.default_rng(7), make_likelihood(name)
    x = rng.normal([3, -1, 0, 50], 2.5, (4000, D))
    x[rng.random(x.shape) < 0.3] = np.nan
    params, bias = Block(likelihood.shapes, "float64"), np.empty(likelihood.output_dim(D))
    likelihood.start(params, bias, x)
    full = np.where(np.isnan(x), bias[:D], x)
    cells = np.empty((len(x), 1, D))
    likelihood.columns_forward(reference, cells, np.empty((len(x), 1, len(bias))), np.tile(bias, (len(x), 1, 1)), full,
                               params)
    entropy = 0.5 * (np.log(2 * np.pi) + 1) + np.log(2.5)
    assert cells[:, 0][~np.isnan(x)].mean() == pytest.approx(entropy, abs=0.02)
    assert bias[:D] == pytest.approx([3, -1, 0, 50], abs=0.2)


def test_a_start_from_equal_numbers_is_finite():
    for name in NAMES:
        likelihood = make_likelihood(name)
        params, bias = Block(likelihood.shapes, "float64"), np.empty(likelihood.output_dim(D))
        likelihood.initialize(params)
        for x in (np.zeros((3, D)), np.full((3, D), np.nan)):
            likelihood.start(params, bias, x)
            assert np.isfinite(bias).all() and np.isfinite(params.flat).all(), name
