"""The continuous Bernoulli likelihood: the Bernoulli's formula made a density.  Its constant and its mean to the last
digits, around lambda = 1/2 and far out; the density against one; draws against the density."""
import math
from decimal import Decimal, localcontext
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae.kernels import fused, reference
from npvae.kernels.reference.likelihoods import COTH
from npvae.likelihoods import make_likelihood
from npvae.params import Block
from strategies import seeds
from statistics_of_draws import close_to, nll_of
from bernoulli_numbers import bernoulli_numbers

MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
LIKELIHOOD = make_likelihood("continuous-bernoulli")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)
NODES, WEIGHTS = 0.5 * (NODES + 1), 0.5 * WEIGHTS      # from 0 to 1
#: around 0, around the bend at 1 where the series ends, where single precision is saturated, and beyond
SIZES = (1e-90, 1e-17, 1e-8, 1e-4, 0.02, 0.5, 1 - 1e-15, 1, 1 + 1e-15, 1.7, 5, 17, 40, 90, 800, 1e4)
LOGITS = np.array([-size for size in SIZES] + [0.0, *SIZES])


def value_and_mean(kernels, logits, x, dtype="float64"):
    """nll and mean of one pixel for each logit."""
    logits = np.asarray(logits, dtype)[:, None, None]
    nll, tail = np.full(logits.shape[:2], 777, dtype), np.full_like(logits, 777)
    kernels.continuous_bernoulli_nll_forward(nll, tail, logits, np.full((len(logits), 1), x, dtype))
    return nll[:, 0], np.where(logits < 0, tail, 1 - tail)[:, 0, 0]


def exact(logit):
    """A(l) = log((exp(l) - 1) / l) and A'(l), in 220 digits rounded to double precision."""
    if logit == 0:
        return 0.0, 0.5
    with localcontext() as context:
        context.prec = 220
        size = Decimal(abs(logit))
        e = (-size).exp()
        cumulant, mean = ((1 - e) / size).ln(), 1 / (1 - e) - 1 / size
        return (float(size + cumulant), float(mean)) if logit > 0 else (float(cumulant), float(1 - mean))


EXACT = np.array([exact(float(logit)) for logit in LOGITS])


def test_the_series_has_bernoulli_s_numbers():
    numbers = bernoulli_numbers(2 * len(COTH))
    for k, c in enumerate(COTH, 1):
        assert c == float(numbers[2 * k] / math.factorial(2 * k))


@MODULES
@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_nll_and_mean_to_the_last_digits(kernels, x):
    nll, mean = value_and_mean(kernels, LOGITS, x)
    size = np.abs(EXACT[:, 0]) + np.abs(x * LOGITS)      # of what is subtracted
    assert (np.abs(nll - (EXACT[:, 0] - x * LOGITS)) <= 1e-15 * size + 3e-16).all()
    assert np.allclose(mean, EXACT[:, 1], rtol=1e-15, atol=0)


@MODULES
def test_single_precision(kernels):
    """The logits rounded first, as the arrays hold them."""
    logits = LOGITS.astype(np.float32)
    expected = np.array([exact(float(logit)) for logit in logits])
    nll, mean = value_and_mean(kernels, logits, 0.25, "float32")
    size = np.abs(expected[:, 0]) + np.abs(0.25 * logits)
    assert (np.abs(nll - (expected[:, 0] - 0.25 * logits)) <= 3e-7 * size + 1e-7).all()
    assert np.allclose(mean, expected[:, 1], rtol=5e-7, atol=0)
    nll, mean = value_and_mean(kernels, np.array([-1e25, 1e25], np.float32), 0.0, "float32")      # no square overflows
    assert np.array_equal(mean.astype(float), [np.float32(1e-25), 1]) and np.allclose(nll, [-np.log(1e25), 1e25], 1e-6)
    assert np.array_equal(LIKELIHOOD.mean(kernels, np.array([[-1e25, 1e25]], np.float32)), [mean])


@MODULES
@given(logit=st.floats(-30, 30), x=st.floats(0, 1))
def test_it_is_the_bernoulli_with_the_constant_of_the_paper(kernels, logit, x):
    """log C = log [ 2 artanh(1 - 2 lambda) / (1 - 2 lambda) ], log 2 at lambda = 1/2; artanh(1 - 2 lambda) is
    -logit / 2."""
    logits, pixel = np.full((1, 1, 1), logit), np.full((1, 1), x)
    entropy, tail = np.empty((1, 1)), np.empty((1, 1, 1))
    kernels.bernoulli_nll_forward(entropy, tail, logits, pixel)
    nll, _ = value_and_mean(kernels, [logit], x)
    log_c = math.log(logit / math.tanh(logit / 2)) if abs(logit) > 1e-300 else math.log(2)
    assert nll[0] == pytest.approx(entropy[0, 0] - log_c, abs=1e-13)
    away = tail[0, 0, 0] - 0.5
    if 1e-4 < abs(away) < 0.49:
        assert log_c == pytest.approx(math.log(2 * math.atanh(-2 * away) / (-2 * away)), rel=1e-10)


@MODULES
@given(seed=seeds, size=st.sampled_from([1e-9, 0.5, 3, 12]))
def test_it_integrates_to_one_and_to_its_mean(kernels, seed, size):
    """One pixel by Gauss-Legendre; of two the density is the product."""
    logits = np.random.default_rng(seed).normal(0, size, 2)
    density = np.exp(-nll_of(kernels, LIKELIHOOD, logits[:1], NODES[:, None]))
    assert WEIGHTS @ density == pytest.approx(1, rel=1e-12)
    mean = LIKELIHOOD.mean(kernels, logits[None])[0]
    assert WEIGHTS @ (density * NODES) == pytest.approx(mean[0], rel=1e-12)
    pair = np.random.default_rng(seed + 1).random((5, 2))
    each = [nll_of(kernels, LIKELIHOOD, logits[d:d + 1], pair[:, d:d + 1]) for d in (0, 1)]
    assert np.allclose(nll_of(kernels, LIKELIHOOD, logits, pair), sum(each), rtol=1e-12, atol=1e-13)


@MODULES
def test_the_gradient_is_continuous_where_the_series_ends(kernels):
    """And its slope is the variance, on both sides."""
    for sign in (-1, 1):
        _, mean = value_and_mean(kernels, [sign * (1 - 1e-7), sign * (1 + 1e-7)], 0)
        variance = 1 - math.e / (math.e - 1) ** 2      # 1/l^2 - e^l / (e^l - 1)^2
        assert abs(mean[1] - mean[0]) == pytest.approx(2e-7 * variance, rel=1e-6)


# ---- Draws

POINTS = np.array([-800.0, -3.0, -1e-14, 0.0, 1e-6, 0.7, 40.0])


def check_draws(draw):
    """F(x) of a draw x is uniform on [0, 1], where F is the distribution function; and x averages to the mean."""
    x = draw(reference, np.tile(POINTS, (20000, 1)), Block({}, "float64"), np.random.default_rng(6))
    LIKELIHOOD.support.check(x, "x")
    close_to(x, np.array([exact(float(logit))[1] for logit in POINTS]), "mean")
    t = np.maximum(np.abs(POINTS), 1e-9)
    y = np.where(POINTS > 0, 1 - x, x)      # of logit -t
    uniform = np.sort(np.expm1(-t * y) / np.expm1(-t), axis=0)
    gap = np.abs(uniform - (np.arange(len(x))[:, None] + 0.5) / len(x)).max(axis=0)
    assert (gap < 2.2 / math.sqrt(len(x))).all(), f"distribution: off by {gap * math.sqrt(len(x))} / sqrt(n)"
    close_to((y[:, :-1] - y.mean(axis=0)[:-1]) * (y[:, 1:] - y.mean(axis=0)[1:]), np.zeros(6), "covariance")


def test_draws_follow_the_density():
    check_draws(LIKELIHOOD.draw)


def black_and_white(kernels, output, params, rng):
    return (rng.random(output.shape) < 1 / (1 + np.exp(-output))).astype(float)


def unmirrored(kernels, output, params, rng):
    return LIKELIHOOD.draw(kernels, -np.abs(output), params, rng)


def means(kernels, output, params, rng):
    return LIKELIHOOD.mean(kernels, output)


def a_little_flat(kernels, output, params, rng):
    return LIKELIHOOD.draw(kernels, 0.95 * output, params, rng)


def weak(kernels, output, params, rng):
    mean = LIKELIHOOD.mean(kernels, output)
    return mean + 0.95 * (LIKELIHOOD.draw(kernels, output, params, rng) - mean)


@pytest.mark.parametrize("broken", [black_and_white, unmirrored, means, a_little_flat, weak])
def test_wrong_draws_are_found(broken):
    with np.errstate(over="ignore"), pytest.raises(AssertionError, match="standard errors|distribution"):
        check_draws(broken)


def test_draws_from_every_uniform_number():
    """F(x) of a draw, or 1 - F(x), is the uniform number it is made from.  Both ends of these lead into [0, 1]."""
    for size in (1e-30, 0.5, 3.0, 12.0):
        for u in (0, 0.1, 0.5, 0.9, 1 - 2.0 ** -53):
            low, high = LIKELIHOOD.draw(reference, np.array([[-size, size]]), Block({}, "float64"), always(u))[0]
            assert 0 <= low <= 1 and high == 1 - low
            assert math.expm1(-size * low) / math.expm1(-size) == pytest.approx(u, rel=1e-11)
    logits = np.random.default_rng(0).standard_t(1, (1, 2000)).astype(np.float32)
    x = LIKELIHOOD.draw(reference, logits, Block({}, "float32"), always(1 - 2.0 ** -53))
    assert (x >= 0).all() and (x <= 1).all()


def always(u):
    """A generator of one number."""
    return SimpleNamespace(random=lambda shape: np.full(shape, float(u)))


def test_the_mean_has_a_derivative_at_zero():
    """The variance of the uniform distribution, to both sides; the series and the mirror meet there."""
    mean = LIKELIHOOD.mean(reference, np.array([[1e-30j, -1e-30j]]))
    assert (mean.real == 0.5).all() and np.allclose(mean.imag, [[1e-30 / 12, -1e-30 / 12]], rtol=1e-12, atol=0)


# ---- The class

def test_the_mean_image_is_found():
    """The logit at which E[x], not lambda, is the mean; a thousandth from black and white at most."""
    mean = np.array([0.0, 1e-3, 0.1, 0.5, 0.75, 0.999, 1.0])
    found = LIKELIHOOD.mean(fused, LIKELIHOOD.bias_at(mean)[None])[0]
    assert np.allclose(found, np.clip(mean, 1e-3, 0.999), rtol=1e-13)


@pytest.mark.parametrize("x, says", [(1.5, "values from 0 to 1.5: divide pixels from 0 to 255 by 255"), (np.nan, "NaN"),
                                     (-0.1, "values from -0.1 to 0")])
def test_pixels_beyond_0_and_1_are_refused(x, says):
    with pytest.raises(ValueError, match=f"for likelihood continuous-bernoulli, found {says}"):
        LIKELIHOOD.support.check(np.array([[0.0, x]]), "x", "likelihood continuous-bernoulli")
