"""Evaluation against exact values: in the linear Gaussian model log p(x) is known, and no bound may exceed it."""
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import IWAE, VAE, active_units, kl_per_dimension
from npvae.evaluate import bounds, count_active, elbo, elbo_terms, log_likelihood
from measured_models import SIGMA, exact, linear_vae, worsen


shapes = st.tuples(st.integers(1, 4), st.integers(5, 9))


# ---- With the exact posterior

@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@given(shape=shapes, seed=st.integers(0, 999), samples=st.sampled_from([1, 2, 7, 1000, 1001, 2500]))
def test_log_likelihood_is_exact_under_the_exact_posterior(kernels, shape, seed, samples):
    """Every importance weight equals p(x), so that any number of samples, in any blocks, gives log p(x)."""
    Z, D = shape
    vae, x = linear_vae(D, Z, seed, kernels)
    x = x[:3 if samples >= 1000 else 40]
    estimate = vae.log_likelihood(x, np.random.default_rng(seed), samples)
    assert estimate.shape == (len(x),) and estimate.dtype == np.float64
    assert np.allclose(estimate, exact(vae, x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_elbo_is_tight_on_average_under_the_exact_posterior(kernels):
    vae, x = linear_vae(8, 3, 5, kernels)
    draws = np.stack([vae.elbo(x, np.random.default_rng(seed)) for seed in range(400)])
    assert draws.shape == (400, 40)
    assert draws.std(axis=0).min() > 0.1      # z is drawn
    error = draws.std(axis=0) / math.sqrt(400)
    assert (np.abs(draws.mean(axis=0) - exact(vae, x)) < 5 * error).all()


# ---- With a worse one

def test_bounds_are_ordered_below_log_p():
    """ELBO = IWAE_1 < IWAE_5 < IWAE_50 < log p(x) on average (Burda et al. 2016, theorem 1); log p - ELBO is
    KL(q || p(z|x))."""
    vae, x = linear_vae(8, 3, 6)
    S = np.exp(vae.parameters["logvar.b"])
    worsen(vae)
    gap = 0.5 * (math.exp(0.3) - 1 - 0.3 + 0.4 ** 2 / S).sum()
    truth = exact(vae, x).mean()
    means, errors = {}, {}
    for samples, repeats in ((1, 600), (5, 300), (50, 60)):
        draws = [vae.log_likelihood(x, np.random.default_rng(seed), samples).mean() for seed in range(repeats)]
        means[samples], errors[samples] = np.mean(draws), np.std(draws) / math.sqrt(repeats)
    draws = [vae.elbo(x, np.random.default_rng(seed)).mean() for seed in range(600)]
    assert abs(np.mean(draws) - (truth - gap)) < 5 * np.std(draws) / math.sqrt(600)
    assert abs(means[1] - (truth - gap)) < 5 * errors[1]
    assert means[1] + 5 * errors[1] < means[5] - 5 * errors[5]
    assert means[5] + 5 * errors[5] < means[50] - 5 * errors[50]
    assert means[50] + 5 * errors[50] < truth


def test_log_likelihood_with_many_samples_comes_close():
    """The variance of the weights is finite (q is wider than p(z|x)), so the error falls as 1 / sqrt(L)."""
    vae, x = linear_vae(8, 3, 6)
    worsen(vae)
    distance = {samples: np.abs(vae.log_likelihood(x, np.random.default_rng(1), samples) - exact(vae, x)).mean()
                for samples in (50, 5000)}
    assert distance[5000] < 0.04 and distance[5000] < 0.3 * distance[50]


def test_the_estimate_is_the_iwae_objective():
    """Same noise, same number: minus the loss of IWAE with K = L."""
    vae, x = linear_vae(8, 3, 7)
    worsen(vae)
    estimate = vae.log_likelihood(x[:1], np.random.default_rng(3), 60)
    noise = vae.passes(1, 60)[0].eps.copy()      # still in the buffer
    loss, _ = vae.loss_and_gradients(x[:1], noise, IWAE())
    assert estimate[0] == pytest.approx(-loss, rel=1e-12)


# ---- Blocks, shapes, memory

@pytest.mark.parametrize("rows", [1, 2, 499, 500, 501, 1203])
def test_blocks_leave_no_row_out(rows):
    vae, _ = linear_vae(8, 3, 1)
    x = np.random.default_rng(rows).normal(size=(rows, 8))
    assert np.allclose(vae.log_likelihood(x, np.random.default_rng(0), 1), exact(vae, x), atol=1e-9)
    assert np.allclose(vae.log_likelihood(x, np.random.default_rng(0), 3), exact(vae, x), atol=1e-9)
    vae.parameters["output.W"][...] = 0      # nothing depends on z: the bound is the same for every draw
    nll = 0.5 * (((x - vae.parameters["output.b"]) / SIGMA) ** 2 + math.log(2 * math.pi * SIGMA ** 2)).sum(axis=1)
    mu, logvar = vae.encode(x)
    kl = 0.5 * (mu ** 2 + np.exp(logvar) - logvar - 1).sum(axis=1)
    bound = vae.elbo(x, np.random.default_rng(0))
    assert bound.shape == (rows,) and np.allclose(bound, -nll - kl, atol=1e-9)


@pytest.mark.parametrize("parts", [{}, {"posterior": "planar:2"}, {"prior": "vamp:3"}])
def test_the_terms_of_the_elbo(parts):
    """Of many blocks, too: KL in closed form where it is known, mu of the images alone and not of a prior's rows."""
    vae = VAE(12, (6,), 3, kernels="numpy", dtype="float64", seed=4, **parts)
    x = np.random.default_rng(2).random((1203, 12))
    nll, kl, mu = elbo_terms(vae, x, np.random.default_rng(3))
    assert np.array_equal(elbo(vae, x, np.random.default_rng(3)), -nll - kl)
    means, logvar = vae.encode(x)
    assert np.allclose(mu, means, rtol=1e-12, atol=0)
    closed = 0.5 * (means ** 2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
    assert np.allclose(kl, closed, rtol=1e-10, atol=0) is not bool(parts)


def test_no_images_are_refused():
    vae, x = linear_vae(8, 3, 1)
    for measure in (log_likelihood, elbo):
        with pytest.raises(ValueError, match=r"x must have shape \(rows, 8\) with at least one row, got \(0, 8\)"):
            measure(vae, x[:0], np.random.default_rng(0))


def test_memory_does_not_depend_on_the_number_of_samples():
    vae, x = linear_vae(50, 3, 2)
    vae.log_likelihood(x[:4], np.random.default_rng(0), 1000)
    peaks = []
    for samples in (1000, 20_000):
        tracemalloc.start()
        vae.log_likelihood(x[:4], np.random.default_rng(0), samples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("images, samples", [(1, 1000), (3, 300), (5, 1), (8, 125), (20, 50), (1, 5000), (3, 2000),
                                             (8, 5000), (20, 125), (40, 60)])
def test_passes_of_a_thousand_rows(images, samples, monkeypatch):
    """A pass decodes a thousand rows at most, not many less where there are more, and draws what is asked for.  It has
    eight images where there are so many: the tasks share images, not draws."""
    vae, x = linear_vae(8, 3, 1)
    passes, made = vae.passes, []
    monkeypatch.setattr(vae, "passes", lambda *sizes: made.append(sizes) or passes(*sizes))
    vae.log_likelihood(x[:images], np.random.default_rng(0), samples)
    rows = [batch * draws for batch, draws in made]
    assert sum(rows) == images * samples and max(rows) <= 1000 and min(rows) > 0
    assert max(batch for batch, _ in made) >= min(images, 8)
    assert len(rows) == 1 if sum(rows) <= 1000 else len(rows) <= 1.2 * sum(rows) / 1000 + 1


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_rows_so_wide_that_few_pass_at_once(rows, monkeypatch):
    """Fewer than the eight images of a pass: one draw of each, and then fewer images."""
    vae, x = linear_vae(8, 3, 1)
    monkeypatch.setattr(bounds, "rows_at_once", lambda vae, most: rows)
    passes, made = vae.passes, []
    monkeypatch.setattr(vae, "passes", lambda *sizes: made.append(sizes) or passes(*sizes))
    assert np.allclose(vae.log_likelihood(x[:9], np.random.default_rng(0), 2), exact(vae, x[:9]), atol=1e-9)
    assert sum(batch for batch, _ in made) == 18 and {draws for _, draws in made} == {1} and max(made) == (rows, 1)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian-learned", "gaussian-pixel"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_likelihood(likelihood, dtype):
    """Both have one finite value per image, of which the bound is the lower on average."""
    vae = VAE(6, (5,), 2, likelihood=likelihood, dtype=dtype, kernels="numpy", seed=1)
    x = np.random.default_rng(0).random((7, 6))
    bound, estimate = vae.elbo(x, np.random.default_rng(0)), vae.log_likelihood(x, np.random.default_rng(0), 50)
    for values in (bound, estimate):
        assert values.shape == (7,) and np.isfinite(values).all()
    assert bound.mean() < estimate.mean()


@pytest.mark.parametrize("samples, error", [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_number_of_samples_is_checked(samples, error):
    vae, x = linear_vae(8, 3, 1)
    with pytest.raises(error, match="n_samples must be"):
        vae.log_likelihood(x, np.random.default_rng(0), samples)


# ---- The latent dimensions

def test_kl_per_dimension():
    vae, x = linear_vae(8, 3, 4)
    mu, logvar = vae.encode(x)
    expected = (0.5 * (mu ** 2 + np.exp(logvar) - logvar - 1)).mean(axis=0)
    assert kl_per_dimension(vae, x).shape == (3,)
    assert np.allclose(kl_per_dimension(vae, x), expected, rtol=1e-12)
    assert kl_per_dimension(VAE(8, (), 3, kernels="numpy"), x.clip(0, 1)).dtype == np.float64      # mean of float32
    for name in ("mu.W", "logvar.W"):
        vae.parameters[name][:, 1] = 0
    vae.parameters["mu.b"][1], vae.parameters["logvar.b"][1] = 0, 0
    assert np.array_equal(kl_per_dimension(vae, x) == 0, [False, True, False])      # it equals the prior


def test_active_units():
    """Var_x(mu_j) > 0.01: a constant shift of mu says nothing about x."""
    vae, x = linear_vae(8, 3, 4)
    assert active_units(vae, x) == 3
    vae.parameters["mu.W"][:, 0] = 0
    vae.parameters["mu.b"][0] = 50
    assert active_units(vae, x) == 2
    assert isinstance(active_units(vae, x), int)
    mu = np.array([[0.0, 0.0, 3.0], [0.202, 0.198, 3.0]])      # variances 0.0102, 0.0098, 0
    assert count_active(mu) == 1 and count_active(mu, threshold=0.005) == 2
    assert count_active(np.tile(np.float32(1e4) + mu.astype("f4"), (20000, 1))) == 1      # no cancellation in float32
    assert count_active(np.array([[0.0], [1.0]]), threshold=0.25) == 0
