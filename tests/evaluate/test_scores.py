"""Scores of single rows: parts that add up, quantiles and AUROC by counting pairs."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import VAE
from npvae.evaluate import auroc, quantiles, score_rows

scores = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(scores, scores)
def test_auroc_counts_pairs(inliers, outliers):
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in inliers for b in outliers]
    assert auroc(np.array(inliers), np.array(outliers)) == pytest.approx(np.mean(pairs))
    assert auroc(np.array(outliers), np.array(inliers)) == pytest.approx(1 - np.mean(pairs))


def test_auroc_of_shifted_normals():
    """Phi(shift / sqrt 2), for two normal distributions of variance 1."""
    rng = np.random.default_rng(0)
    assert auroc(rng.normal(1, 1, 20_000), rng.normal(0, 1, 20_000)) == pytest.approx(0.76025, abs=0.01)


def test_quantiles():
    assert quantiles(np.array([0, 1, 2.5, 9]), np.array([3, 1, 2, 1])).tolist() == [0, 0.25, 0.75, 1]


@pytest.mark.parametrize("config", [{}, {"posterior": "planar:1"}, {"classes": 2}, {"missing": True},
                                    {"likelihood": "gaussian"}])
def test_the_parts_of_a_score(config):
    rng = np.random.default_rng(1)
    vae = VAE(6, (5,), 2, **{"kernels": "numpy", "dtype": "float64", **config})
    vae.parameters.flat[...] += 0.3 * rng.standard_normal(vae.parameters.flat.size)
    x, labels = (rng.random((9, 6)) < 0.5).astype(float), np.arange(9) % 2 if "classes" in config else None
    if "missing" in config:
        x[::2, 3] = np.nan
    found = score_rows(vae, x, 7, 60, labels, columns=True)
    assert np.array_equal(found.log_p, vae.log_likelihood(x, 7, 60, labels))
    assert np.allclose(found.columns.sum(axis=1), found.reconstruction, rtol=1e-12)
    assert np.allclose(found.elbo, -found.reconstruction - found.kl, rtol=1e-12)
    assert (found.elbo < found.log_p + 4 * found.errors).all()
    single = np.array([vae.elbo(x, seed, labels) for seed in range(200)])
    spread = single.std(axis=0) * np.hypot(1 / np.sqrt(60), 1 / np.sqrt(200))
    assert (np.abs(found.elbo - single.mean(axis=0)) < 5 * spread).all()
    if "missing" in config:
        assert not found.columns[::2, 3].any() and found.columns[1::2, 3].all()
    assert score_rows(vae, x, 7, 60, labels).columns is None


def test_refusals():
    vae = VAE(4, (3,), 2, kernels="numpy")
    vae.likelihood.by_column = False
    with pytest.raises(ValueError, match="columns need a likelihood that is a sum over columns, which bernoulli"):
        score_rows(vae, np.ones((2, 4)), 0, columns=True)
    with pytest.raises(TypeError, match="rng must be"):
        score_rows(vae, np.ones((2, 4)), None)
