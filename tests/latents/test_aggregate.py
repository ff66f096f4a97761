"""A mixture of Gaussians fitted to codes: EM climbs, finds what was planted, and is exact where there is an answer."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae.latents.aggregate import COVARIANCES, FLOOR, GaussianMixture, fit_mixture


def planted(n=3000):
    """Three components in two dimensions, one of them tilted, and n draws of them."""
    tilted = np.array([[1.0, 0.8], [0.8, 1.0]])
    mixture = GaussianMixture(np.array([0.5, 0.3, 0.2]), np.array([[0.0, 0], [6, 0], [0, 6]]),
                              np.array([tilted, 0.25 * np.eye(2), np.diag([2.0, 0.1])]))
    return mixture, mixture.sample(n, 0)


def dense_log_density(mixture, z):
    """By solving and by determinants, one code at a time."""
    found = []
    for one in z:
        terms = [np.log(w) - 0.5 * (one - m) @ np.linalg.solve(S, one - m) - 0.5 * np.linalg.slogdet(2 * np.pi * S)[1]
                 for w, m, S in zip(mixture.weights, mixture.means, mixture.covariances)]
        found.append(np.log(np.sum(np.exp(terms))))
    return np.array(found)


def test_log_density_and_its_integral():
    mixture, z = planted(50)
    assert np.allclose(mixture.log_density(z), dense_log_density(mixture, z), rtol=1e-12)
    grid = np.stack(np.meshgrid(np.arange(-8, 14, 0.05), np.arange(-8, 14, 0.05)), -1).reshape(-1, 2)
    assert np.exp(mixture.log_density(grid)).sum() * 0.05 ** 2 == pytest.approx(1, abs=1e-6)
    assert np.isfinite(mixture.log_density(np.full((1, 2), 1e4))).all()      # where each density underflows


@given(st.integers(0, 2 ** 20), st.integers(1, 8), st.sampled_from(COVARIANCES), st.sampled_from([1e-6, 1.0, 1e4]))
def test_no_step_lowers_the_likelihood(seed, components, covariance, scale):
    """Not even with codes that repeat, of which components collapse to a point, and in any unit."""
    rng = np.random.default_rng(seed)
    z = scale * np.repeat(rng.normal(size=(20, 3)), rng.integers(1, 4, 20), axis=0)
    mixture = fit_mixture(z, components, rng, covariance)
    assert np.isfinite(mixture.course).all() and np.diff(mixture.course).min(initial=0) > -1e-9
    assert mixture.weights.sum() == pytest.approx(1) and mixture.log_density(z).mean() >= mixture.course[-1] - 1e-9
    assert np.linalg.eigvalsh(mixture.covariances).min() >= FLOOR * z.var(axis=0).mean() * (1 - 1e-6)
    if covariance == "diagonal":
        assert np.array_equal(mixture.covariances, mixture.covariances * np.eye(3))


def test_what_was_planted_is_found():
    mixture, z = planted()
    found = fit_mixture(z, 3, 1)
    order = np.argsort(-found.weights)
    counts = mixture.weights * len(z)
    assert np.abs(found.weights[order] - mixture.weights).max() < 4 * np.sqrt(0.25 / len(z))
    for c, i in enumerate(order):
        sd = np.sqrt(mixture.covariances[c].diagonal())
        assert (np.abs(found.means[i] - mixture.means[c]) < 4 * sd / np.sqrt(counts[c])).all()
        assert (np.abs(found.covariances[i] - mixture.covariances[c])
                < 4 * np.sqrt(2 / counts[c]) * np.outer(sd, sd)).all()
    assert found.log_density(z).mean() >= mixture.log_density(z).mean()      # it was fitted to them


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_component_is_mean_and_covariance(covariance):
    z = np.random.default_rng(0).normal(size=(40, 3)) @ np.array([[1.0, 2, 0], [0, 1, 0.3], [0, 0, 0.1]]) + 7
    found, S = fit_mixture(z, 1, 0, covariance), np.cov(z.T, bias=True)
    assert np.allclose(found.means[0], z.mean(axis=0), rtol=1e-12)
    assert np.allclose(found.covariances[0], S if covariance == "full" else np.diag(S.diagonal()), rtol=1e-10)
    assert found.weights.tolist() == [1]


def test_draws_have_the_moments_of_the_mixture():
    mixture, z = planted(20_000)
    mean = mixture.weights @ mixture.means
    away = mixture.means - mean
    S = np.einsum("c,cij->ij", mixture.weights, mixture.covariances + away[:, :, None] * away[:, None])
    assert np.abs(z.mean(axis=0) - mean).max() < 4 * np.sqrt(S.max() / len(z))
    assert np.abs(np.cov(z.T, bias=True) - S).max() < 5 * np.sqrt(2 / len(z)) * S.max()
    assert np.array_equal(mixture.sample(3, 5), mixture.sample(3, np.random.default_rng(5)))


def test_codes_that_are_all_the_same():
    found = fit_mixture(np.ones((5, 2)), 3, 0)
    assert np.array_equal(found.means[found.weights > 0][0], [1, 1]) and np.isfinite(found.sample(4, 0)).all()


@pytest.mark.parametrize("arguments, error, says", [
    ((np.ones(3), 1, 0), ValueError, "codes must have shape"), (([["a"]], 1, 0), TypeError, "codes must hold real"),
    ((np.full((3, 2), np.nan), 1, 0), ValueError, "codes must hold finite"),
    ((np.ones((3, 2)), 0, 0), ValueError, "components must be at least 1"),
    ((np.ones((3, 2)), 4, 0), ValueError, "components must be at most the number of codes, 3, got 4"),
    ((np.ones((3, 2)), 1, None), TypeError, "rng must be"),
    ((np.ones((3, 2)), 1, 0, "tied"), ValueError, "covariance must be one of full, diagonal")])
def test_refusals(arguments, error, says):
    with pytest.raises(error, match=says):
        fit_mixture(*arguments)
