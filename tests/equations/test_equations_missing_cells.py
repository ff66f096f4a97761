"""Chapter 18, equation by equation: rows with missing cells."""
import numpy as np
import pytest

from npvae import VAE
from npvae.evaluate import exact_log_likelihood, posterior_mean
from npvae.kernels import fused, reference

equation = pytest.mark.equation
KERNELS = (reference, fused)

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D18.1": (reference.sum_observed_forward, "missing == 0", "missing == 1"),
    "D18.2": (reference.sum_observed_backward, "missing == 0", "missing == 1"),
    "D18.3": (reference.append_missing, "out[:, width:] = missing", "out[:, width:] = 1 - missing"),
    "D18.4": (exact_log_likelihood, "seen.sum(axis=1) *", "vae.input_dim *"),
    "D18.5": (posterior_mean, 'np.einsum("bk,bks->bs", own, summary)', 'np.einsum("bk,bks->bs", own ** 2, summary)')}

RNG = np.random.default_rng(4)
CELLS, UPSTREAM = RNG.standard_normal((3, 2, 5)), RNG.standard_normal((3, 2))
MISSING = (RNG.random((3, 5)) < 0.4).astype(float)


@equation("D18.1")
def test_the_loss_is_that_of_the_observed_cells():
    for kernels in KERNELS:
        nll = np.empty((3, 2))
        kernels.sum_observed_forward(nll, CELLS, MISSING)
        expected = [[sum(c for c, gone in zip(row, MISSING[b]) if not gone) for row in CELLS[b]] for b in range(3)]
        np.testing.assert_allclose(nll, expected, rtol=1e-13)


@equation("D18.2")
def test_missing_cells_get_no_gradient():
    for kernels in KERNELS:
        dcells = np.empty_like(CELLS)
        kernels.sum_observed_backward(dcells, UPSTREAM, MISSING)
        assert np.array_equal(dcells, UPSTREAM[..., None] * (1 - MISSING)[:, None])


@equation("D18.3")
def test_the_encoder_sees_zeros_and_indicators():
    features, columns = RNG.standard_normal((3, 4)), np.array([0, 0, 3, 4])
    for kernels in KERNELS:
        out = np.empty((3, 9))
        kernels.append_missing(out, features, MISSING, columns)
        assert np.array_equal(out, np.hstack([features * (1 - MISSING[:, columns]), MISSING]))


def linear():
    """A linear decoder of sigma 0.5, and rows with gaps."""
    vae, rng = VAE(4, (), 2, likelihood="gaussian:0.5", dtype="float64", missing=True), np.random.default_rng(8)
    vae.parameters.flat[...] = 0      # q(z|x) is the prior
    vae.parameters["output.W"][...] = rng.standard_normal((2, 4))
    vae.parameters["output.b"][...] = rng.standard_normal(4)
    x = rng.standard_normal((3, 4))
    x[0, 1], x[1, [0, 3]] = np.nan, np.nan
    W = vae.parameters["output.W"]
    return vae, x, W.T @ W + 0.25 * np.eye(4)


@equation("D18.4")
def test_the_marginal_of_a_linear_gaussian_model():
    vae, x, C = linear()
    for row, found in zip(x, exact_log_likelihood(vae, x)):
        seen = ~np.isnan(row)
        r, part = row[seen] - vae.parameters["output.b"][seen], C[np.ix_(seen, seen)]
        expected = -0.5 * (r @ np.linalg.solve(part, r) + np.linalg.slogdet(2 * np.pi * part)[1])
        assert found == pytest.approx(expected, rel=1e-12)


@equation("D18.5")
def test_gaps_are_filled_with_the_conditional_mean():
    vae, x, C = linear()
    found, b = posterior_mean(vae, x, np.random.default_rng(0), 20_000), vae.parameters["output.b"]
    for row, mean in zip(x, found):
        seen = ~np.isnan(row)
        expected = b + C[:, seen] @ np.linalg.solve(C[np.ix_(seen, seen)], row[seen] - b[seen])
        assert np.abs(mean - expected)[~seen].max(initial=0) < 0.05
