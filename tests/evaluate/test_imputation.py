"""Imputation: against a linear Gaussian model, whose conditional distributions are known."""
import numpy as np
import pytest

from npvae import VAE
from npvae.evaluate import elbo_terms, exact_log_likelihood

D, Z, B = 5, 2, 12
RNG = np.random.default_rng(1)
GONE = RNG.random((B, D)) < 0.4
GONE[0], GONE[1] = False, True      # a complete row, and one of which nothing is known
X = np.where(GONE, np.nan, RNG.normal(0, 1.5, (B, D)))


@pytest.fixture(scope="module")
def vae():
    """A linear decoder of sigma 0.6; an encoder of some wide q(z|x)."""
    vae = VAE(D, (), Z, likelihood="gaussian:0.6", dtype="float64", missing=True)
    rng = np.random.default_rng(2)
    vae.parameters.flat[...] = 0.1 * rng.standard_normal(vae.parameters.flat.size)
    vae.parameters["output.W"][...] = rng.normal(0, 0.7, (Z, D))
    vae.parameters["logvar.b"][...] = 0.3
    return vae


def conditional(vae, row):
    """Mean and covariance (D, D) of a row given its observed cells, by the formula of a Gaussian."""
    W, b = vae.parameters["output.W"], vae.parameters["output.b"]
    C, seen = W.T @ W + 0.6 ** 2 * np.eye(D), ~np.isnan(row)
    gain = C[:, seen] @ np.linalg.inv(C[np.ix_(seen, seen)])
    return b + gain @ (row[seen] - b[seen]), C - gain @ C[seen]


def test_the_mean_is_that_of_the_conditional_distribution(vae):
    """Within the Monte Carlo error, measured with other seeds."""
    found = np.array([vae.impute(X, np.random.default_rng(seed), 4000) for seed in range(8)])
    exact = np.array([conditional(vae, row)[0] for row in X])
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.abs(found.mean(axis=0) - exact)[GONE].max() < 0.02
    assert (np.abs(found.mean(axis=0) - exact) < 5 * error + 1e-12)[GONE].all()


def test_draws_have_mean_and_covariance_of_the_conditional_distribution(vae):
    """Those of cells of one row are dependent, through z."""
    draws = vae.impute(X, np.random.default_rng(3), 4000, draws=3000)
    for b, gone in enumerate(GONE):
        mean, C = conditional(vae, X[b])
        seen = draws[:, b][:, gone]
        assert np.allclose(seen.mean(axis=0), mean[gone], atol=0.12)
        if gone.any():
            assert np.allclose(np.atleast_2d(np.cov(seen.T)), C[np.ix_(gone, gone)], atol=0.2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("draws", [None, 3])
def test_observed_cells_stay_to_the_bit(vae, dtype, draws):
    """In double precision, too, if the model has single precision; and a complete table comes back as it is."""
    model = VAE(D, (), Z, likelihood="gaussian:0.6", missing=True, dtype=dtype)
    model.parameters.flat[...] = vae.parameters.flat
    before = X.copy()
    filled = model.impute(X, np.random.default_rng(0), 7, draws)
    assert filled.shape == ((3,) if draws else ()) + X.shape and filled.dtype == X.dtype
    assert np.array_equal(X, before, equal_nan=True) and np.isfinite(filled).all()
    assert (np.where(GONE, 0, filled) == np.where(GONE, 0, X)).all()
    if draws:
        assert (np.ptp(filled, axis=0) > 0)[GONE].all()
    assert np.array_equal(model.impute(filled.reshape(-1, D), np.random.default_rng(0), 7), filled.reshape(-1, D))
    again = model.impute(np.ma.array(np.nan_to_num(X), mask=GONE), 0, 7, draws)
    assert np.array_equal(again, filled)


def test_draws_in_parts_are_those_of_the_whole(vae, monkeypatch):
    """With a few rows of the decoder at a time, the same mean within the error; each part is weighed by its share."""
    from npvae.evaluate import imputation
    whole = vae.impute(X, np.random.default_rng(5), 2000)
    real = imputation.passes_over
    monkeypatch.setattr(imputation, "passes_over", lambda vae, x, rng, n, labels: real(vae, x, rng, n, labels, 160))
    parts = vae.impute(X, np.random.default_rng(5), 2000)
    assert np.abs(parts - whole)[GONE].max() < 0.1
    draws = vae.impute(X, np.random.default_rng(5), 300, draws=300)
    assert np.abs(draws.mean(axis=0) - whole)[GONE].max() < 0.35


def test_categories_take_their_most_probable_level():
    """Of the mean probabilities, not of the mean level."""
    from npvae.likelihoods import Categorical

    class Modes(Categorical):
        def summary(self, kernels, output, params):
            scores = np.exp(output.reshape(len(output), -1, self.levels))
            return (scores / scores.sum(axis=-1, keepdims=True)).reshape(output.shape)

        def single(self, summary):
            return summary.reshape(len(summary), -1, self.levels).argmax(axis=-1) / (self.levels - 1)
    vae = VAE(2, (), 1, likelihood=Modes(3), missing=True)
    vae.parameters["output.W"][...] = 0
    vae.parameters["output.b"][...] = np.log([0.45, 0.1, 0.45, 0.5, 0.1, 0.4])
    x = np.array([[0.5, np.nan], [np.nan, 1]], "f4")
    assert vae.impute(x, np.random.default_rng(0), 20).tolist() == [[0.5, 0], [0, 1]]


def test_labels_are_those_of_the_rows():
    vae = VAE(2, (), 1, likelihood="gaussian:0.1", missing=True, classes=3)
    vae.parameters.flat[...] = 0
    vae.parameters["output.W"][1:] = [[1, 10], [2, 20], [3, 30]]
    x, labels = np.array([[0, 0], [2, np.nan], [np.nan, 30], [1, np.nan]], "f4"), np.array([0, 1, 2, 0])
    filled = vae.impute(x, np.random.default_rng(0), 5, labels=labels)
    assert filled.tolist() == [[0, 0], [2, 20], [3, 30], [1, 10]]
    draws = vae.impute(x, np.random.default_rng(0), 5, 200, labels=labels)
    assert np.allclose(draws.mean(axis=0), filled, atol=0.05)


@pytest.mark.parametrize("call, said", [
    (lambda vae: vae.impute(X, "0"), "rng must be"),
    (lambda vae: vae.impute(X, RNG, 0), "n_samples must be at least 1"),
    (lambda vae: vae.impute(X, RNG, 5, 0), "draws must be at least 1"),
    (lambda vae: VAE(D).impute(np.where(GONE, np.nan, 0.5), RNG), "a model of data with gaps"),
    (lambda vae: vae.column_scores(X, RNG, 0), "n_samples must be at least 1")])
def test_wrong_arguments(vae, call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call(vae)


# ---- scores

@pytest.mark.parametrize("config", [
    {"likelihood": "gaussian-pixel"}, {"missing": True, "likelihood": "gaussian-learned:1"}, {"classes": 2},
    {"prior": "mixture:3"}, {"decoder": "made:4"}], ids=str)
def test_column_scores_add_up_to_the_reconstruction(config):
    """Of the same draws; 0 where a cell is missing."""
    vae, x = VAE(D, (4,), Z, **config), np.where(GONE, np.nan, RNG.integers(0, 2, (B, D)))
    x = x if vae.missing else np.nan_to_num(x)
    labels = np.arange(B) % 2 if vae.classes else None
    scores = vae.column_scores(x, np.random.default_rng(4), labels=labels)
    nll, _, _ = elbo_terms(vae, x, np.random.default_rng(4), labels)
    assert scores.shape == x.shape and np.allclose(scores.sum(axis=1), nll, rtol=1e-5)
    assert not scores[np.isnan(x)].any()
    many = vae.column_scores(x, np.random.default_rng(4), 2000, labels=labels)
    other = vae.column_scores(x, np.random.default_rng(5), 2000, labels=labels)
    assert np.allclose(many, other, atol=0.5) and not np.array_equal(many, other)


def test_the_likelihood_of_rows_with_gaps(vae):
    """Exact, by importance sampling, and the marginal of the observed columns."""
    exact = exact_log_likelihood(vae, X)
    W, b = vae.parameters["output.W"], vae.parameters["output.b"]
    C = W.T @ W + 0.6 ** 2 * np.eye(D)
    for row, value in zip(X, exact):
        seen = ~np.isnan(row)
        r, part = row[seen] - b[seen], C[np.ix_(seen, seen)]
        expected = -0.5 * (r @ np.linalg.solve(part, r) + np.linalg.slogdet(2 * np.pi * part)[1])
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert np.abs(vae.log_likelihood(X, np.random.default_rng(0), 20000) - exact).max() < 0.1
    assert exact[1] == 0
