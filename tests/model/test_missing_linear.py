"""A linear Gaussian model trained on rows with gaps reaches the maximum likelihood of probabilistic PCA with missing
data, which EM finds."""
import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, Adam
from npvae.evaluate import exact_log_likelihood


def em(x, Z, steps):
    """W (Z, D), b (D,) and sigma^2 of greatest likelihood for x (N, D), by EM (Tipping and Bishop 1999, with the sums
    over observed cells alone)."""
    (N, D), seen = x.shape, ~np.isnan(x)
    W, b, variance = np.random.default_rng(0).standard_normal((Z, D)), np.nanmean(x, axis=0), 1.0
    for _ in range(steps):
        S = np.linalg.inv(np.eye(Z) + np.einsum("bd,zd,yd->bzy", seen, W, W) / variance)      # covariance of z
        m = np.einsum("bzy,by->bz", S, np.where(seen, x - b, 0) @ W.T) / variance
        h = np.concatenate([m, np.ones((N, 1))], axis=1)
        hh = h[:, :, None] * h[:, None, :]
        hh[:, :Z, :Z] += S
        normal, right = np.einsum("bd,bij->dij", seen, hh), np.einsum("bd,bi->di", np.where(seen, x, 0), h)
        both = np.linalg.solve(normal, right[..., None])[..., 0]
        W, b = both[:, :Z].T, both[:, Z]
        spread = np.einsum("zd,bzy,yd->bd", W, S, W)
        variance = np.where(seen, (x - h @ both.T) ** 2 + spread, 0).sum() / seen.sum()
    return W, b, variance


def log_likelihood(x, W, b, variance):
    """Mean of log N(x_o; b_o, C_oo) over rows."""
    C, total = W.T @ W + variance * np.eye(x.shape[1]), 0.0
    for row in x:
        seen = ~np.isnan(row)
        r, part = row[seen] - b[seen], C[np.ix_(seen, seen)]
        total -= 0.5 * (r @ np.linalg.solve(part, r) + np.linalg.slogdet(2 * np.pi * part)[1])
    return total / len(x)


def trained(vae, x, steps, objective, noise, rates):
    """Adam on all of x, at each of the rates in turn."""
    vae.start(x)
    for rate in rates:
        optimizer = Adam(lr=rate)
        optimizer.prepare(vae.parameters)
        for _ in range(steps):
            _, gradients = vae.loss_and_gradients(x, noise(), objective)
            optimizer.step(vae.parameters, gradients, vae.kernels)
    return exact_log_likelihood(vae, x).mean()


def test_a_linear_encoder_is_exact_where_columns_are_alike():
    """Each row lacks one of three columns, and each rotation of the columns is in the data.  So all weights are equal,
    the posterior's are the same whichever column is missing, and a linear encoder holds it: then the ELBO is log p(x).
    Its noise is +-1, over which the mean of what is quadratic is exact."""
    rng = np.random.default_rng(3)
    base = 1.2 * rng.standard_normal((40, 1)) + 0.6 * rng.standard_normal((40, 3))
    rows = np.concatenate([np.roll(base, turn, axis=1) for turn in range(3)])
    x = np.concatenate([np.where(np.arange(3) == column, np.nan, rows) for column in range(3)])
    vae = VAE(3, (), 1, likelihood="gaussian-learned", dtype="float64", kernels="numpy", missing=True)
    eps = np.tile([[[1.0], [-1.0]]], (len(x), 1, 1))
    found = trained(vae, x, 300, ELBO(), lambda: eps, (0.1, 0.02))
    best = log_likelihood(x, *em(x, 1, 300))
    assert -1e-3 < found - best < 1e-9


@pytest.mark.slow      # pytest -m slow tests/model/test_missing_linear.py
def test_rows_with_any_gaps():
    """Two dimensions, six columns, 30 % of the cells missing at random: with the bound of MIWAE of 50 draws and an
    encoder of 64 units."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, 2)) @ rng.standard_normal((2, 6)) + 0.7 * rng.standard_normal((200, 6))
    x[rng.random(x.shape) < 0.3] = np.nan
    vae = VAE(6, (64,), 2, "tanh", "gaussian-learned", "float64", decoder_hidden=(), missing=True)
    found = trained(vae, x, 1500, IWAE(), lambda: rng.standard_normal((200, 50, 2)), (0.01, 0.003, 0.0005))
    best = log_likelihood(x, *em(x, 2, 2000))
    assert -1e-3 < found - best < 1e-9
