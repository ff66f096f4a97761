"""Likelihoods of bytes: all 256 levels sum to one, against exact arithmetic and far out; means and draws.
(Gradients: test_kernels.py, test_gradients.py.  Which pixels are refused: test_level_images.py.)"""
import math
from decimal import Decimal, localcontext
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given

from npvae.kernels import fused, reference
from npvae.kernels.reference.gamma import SHIFT, STIRLING
from npvae.kernels.reference.levels import LOG_SCALE_FLOOR
from npvae.likelihoods import make_likelihood
from npvae.params import Block
from npvae.likelihoods.support import fitting
from strategies import IMAGES, seeds
from bernoulli_numbers import bernoulli_numbers
from statistics_of_draws import close_to, nll_of
from level_numbers import ALL, BYTES, NAMES, levels_of

MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
N = 255


def probabilities(kernels, likelihood, output):
    """Of every level of one pixel."""
    return np.exp(-nll_of(kernels, likelihood, np.asarray(output, float), levels_of(likelihood)))


def spread_out(likelihood, seed):
    """What a decoder may say of one pixel: sharp, flat, beyond black and white."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, likelihood.output_dim(1)) * rng.choice([0.1, 1, 4])


def test_every_likelihood_is_tested_somewhere():
    """Those of images: here, as a Gaussian or Bernoulli in test_identities.py, or in test_continuous_bernoulli.py."""
    assert {*IMAGES} == {*ALL, "continuous-bernoulli", "bernoulli", "gaussian", "gaussian-learned",
                         "gaussian-pixel", "gaussian-optimal"}


# ---- Probabilities

@pytest.mark.every(3)
@MODULES
@NAMES
@given(seed=seeds)
def test_all_levels_sum_to_one(kernels, name, seed):
    """And pixels are independent: an nll of three is the sum of three."""
    likelihood = make_likelihood(name)
    assert probabilities(kernels, likelihood, spread_out(likelihood, seed)).sum() == pytest.approx(1, abs=2e-12)
    each = [spread_out(likelihood, seed + d) for d in range(3)]
    if name.startswith("categorical"):
        output = np.concatenate(each)
    else:
        output = np.stack(each, axis=1).ravel()
    x = fitting(likelihood, np.random.default_rng(seed).random((5, 3)))
    x[0], x[1] = 0, 1
    alone = sum(nll_of(kernels, likelihood, each[d], x[:, d:d + 1]) for d in range(3))
    nll = nll_of(kernels, likelihood, output, x)
    assert np.allclose(nll, alone, rtol=1e-12, atol=1e-11) and (nll > -1e-11).all()


@MODULES
@pytest.mark.parametrize("location, r", [(0.5, -30), (0.5, 12), (-9, -3), (1.6, -5), (1 / 510, -9), (0.2, -2)])
def test_discretized_logistic_against_decimals(kernels, location, r):
    """sigmoid(u) - sigmoid(l), above the middle sigmoid(-l) - sigmoid(-u), in 60 digits: in double precision nothing
    would be left of most of them."""
    def sigmoid(a):
        return 1 / (1 + (-a).exp())
    levels, expected = [*range(0, 256, 15), 1, 254], []
    with localcontext() as context:
        context.prec = 60
        floor = Decimal(LOG_SCALE_FLOOR)
        scale = (floor + (1 + (Decimal(r) - floor).exp()).ln()).exp()
        for i in levels:
            below, above = ((Decimal(2 * i + side) / 510 - Decimal(location)) / scale for side in (-1, 1))
            if i in (0, 255):
                p = sigmoid(-below if i else above)
            else:
                p = sigmoid(-below) - sigmoid(-above) if below > 0 else sigmoid(above) - sigmoid(below)
            expected.append(float(-p.ln()))
    nll = nll_of(kernels, make_likelihood("discretized-logistic"), np.array([location, r], float), BYTES[levels])
    assert np.allclose(nll, expected, rtol=2e-14, atol=1e-15)


@pytest.mark.every(3)
@MODULES
@pytest.mark.parametrize("location", [-1e6, -40.0, 0.3, 60.0, 1e6])
@pytest.mark.parametrize("r", [-200.0, -7.0, 0.0, 50.0])
def test_discretized_logistic_far_out(kernels, location, r):
    """No overflow, no logarithm of zero; the gradient points to the pixel."""
    x = np.array([[0.0], [100 / 255], [1.0]])
    output, dnll = np.tile([location, r], (3, 1, 1)), np.ones((3, 1))
    doutput = np.full_like(output, 777)
    assert np.isfinite(nll_of(kernels, make_likelihood("discretized-logistic"), output[0, 0], x)).all()
    kernels.discretized_logistic_nll_backward(doutput, dnll, output, x)
    assert np.isfinite(doutput).all() and doutput[0, 0, 0] >= 0 >= doutput[2, 0, 0]      # black: down, white: up
    assert doutput[1, 0, 0] * (location - x[1, 0]) >= 0 and (r > 0 or doutput[1, 0, 0])


@MODULES
def test_categorical_is_a_softmax(kernels):
    """A shift of the logits changes nothing, however large; nor do huge logits overflow."""
    likelihood, rng = make_likelihood("categorical"), np.random.default_rng(0)
    logits = rng.normal(0, 3, 256)
    expected = np.exp(logits) / np.exp(logits).sum()
    for shift in (0, -1e4, 1e4):
        assert np.allclose(probabilities(kernels, likelihood, logits + shift), expected, rtol=1e-11)
    nll = nll_of(kernels, likelihood, 1e4 * (np.arange(256) == 7), BYTES)
    assert nll[7] == 0 and (np.delete(nll, 7) == 1e4).all()


@MODULES
def test_a_pixel_that_is_nan_has_no_gradient(kernels):
    dlogits, logits = np.ones((1, 2, 6)), np.zeros((1, 2, 6))
    kernels.categorical_nll_backward(dlogits, np.ones((1, 2)), np.zeros((1, 2, 2)), np.full((1, 2, 2), 3.0), logits,
                                     np.array([[np.nan, 0.5]]))
    assert np.isnan(dlogits[..., :3]).all() and np.allclose(dlogits[..., 3:], [1 / 3, -2 / 3, 1 / 3])


def rising(a, k):
    return math.prod(Fraction(a) + j for j in range(k))


@pytest.mark.every(3)
@MODULES
@pytest.mark.parametrize("alpha, beta", [(1, 1), (2, 5), (7, 8), (8, 300), (0.25, 0.5), (5000, 2)])
def test_beta_binomial_against_fractions(kernels, alpha, beta):
    """P(i) in exact arithmetic, its derivatives as sums of 1 / (a + j); alpha = beta = 1 makes all levels alike."""
    output = np.log([alpha, beta])
    alpha, beta = Fraction(alpha), Fraction(beta)
    whole = rising(alpha + beta, N)
    nll, doutput = nll_of(kernels, make_likelihood("beta-binomial"), output, BYTES), np.empty((256, 1, 2))
    kernels.beta_binomial_nll_backward(doutput, np.ones((256, 1)), np.tile(output, (256, 1, 1)), BYTES)
    slope = [np.cumsum([0, *(1 / (float(a) + j) for j in range(N))]) for a in (alpha, beta)]
    both = math.fsum(1 / (float(alpha + beta) + j) for j in range(N))
    for i in (*range(0, 256, 5), 1, 254):
        p = math.comb(N, i) * rising(alpha, i) * rising(beta, N - i) / whole
        assert nll[i] == pytest.approx(-(math.log(p.numerator) - math.log(p.denominator)), abs=1e-12, rel=1e-12)
        assert doutput[i, 0, 0] == pytest.approx(float(alpha) * (both - slope[0][i]), rel=1e-11, abs=1e-12)
        assert doutput[i, 0, 1] == pytest.approx(float(beta) * (both - slope[1][N - i]), rel=1e-11, abs=1e-12)
    if alpha == beta == 1:
        assert np.allclose(nll, math.log(256), rtol=1e-12)


def test_stirlings_series():
    """Its coefficients, and that eight of them are enough where it is used: the ninth is below rounding."""
    numbers = bernoulli_numbers(18)
    for k, c in enumerate(STIRLING, 1):
        assert c == float(numbers[2 * k] / (2 * k))
    assert float(numbers[18]) / 18 / SHIFT ** 18 < 2e-16
    values = np.array([1e-6, 0.3, 1.0, 2.0, 7.999, 8.0, 100.0, 1e5])
    for k in (0, 1, 200):
        count, rest = reference.levels._rising(values, k)
        assert np.allclose(count * np.log(values) + rest,
                           [math.lgamma(a + k) - math.lgamma(a) for a in values], rtol=1e-9, atol=1e-11)


@MODULES
@pytest.mark.parametrize("log_alpha, log_beta", [
    (-300, 0), (0, -300), (-30, 5), (40, -40), (30, 30), (80, 80), (-10000, 3), (400, -10000), (-10000, -700),
    (700, 10000), (10000, 10000)])
def test_beta_binomial_far_out(kernels, log_alpha, log_beta):
    """Only black, only white, a binomial: finite, and black and white are what is left where alpha and beta vanish.
    Nothing overflows on the way, nor is divided by alpha = 0."""
    likelihood = make_likelihood("beta-binomial")
    nll = nll_of(kernels, likelihood, np.array([log_alpha, log_beta], float), BYTES)
    doutput = np.empty((256, 1, 2))
    kernels.beta_binomial_nll_backward(doutput, np.ones((256, 1)), np.tile([log_alpha, log_beta], (256, 1, 1)) * 1.0,
                                       BYTES)
    assert np.isfinite(nll).all() and np.isfinite(doutput).all()
    if log_alpha != log_beta:
        assert nll[0 if log_alpha < log_beta else 255] == pytest.approx(0, abs=1e-11)
    else:      # the n-th row of Pascal's triangle: the probability is certain to be 1/2
        expected = [N * math.log(2) - math.log(math.comb(N, i)) for i in range(256)]
        assert np.allclose(nll, expected, atol=1e-9)


@NAMES
def test_single_precision(name):
    """An nll of 700 pixels to a millionth, on the path that trains."""
    likelihood, rng = make_likelihood(name), np.random.default_rng(1)
    output = rng.normal(0, 1.5, (3, 2, likelihood.output_dim(700))).astype(np.float32)
    x = fitting(likelihood, np.where(rng.random((3, 700)) < 0.5, 0, rng.random((3, 700)))).astype(np.float32)
    found = {}
    for module, dtype in ((fused, "float32"), (reference, "float64")):
        nll, kept = np.empty((3, 2), dtype), np.empty(output.shape, dtype)
        likelihood.forward(module, nll, kept, output.astype(dtype), x.astype(dtype), Block({}, dtype))
        found[dtype] = nll
    assert np.allclose(found["float32"], found["float64"], rtol=1e-6, atol=0)


# ---- Means and draws

@MODULES
@NAMES
@given(seed=seeds)
def test_the_mean_is_that_of_the_probabilities(kernels, name, seed):
    likelihood = make_likelihood(name)
    output = spread_out(likelihood, seed)
    expected = probabilities(kernels, likelihood, output) @ levels_of(likelihood)
    assert likelihood.mean(kernels, output[None])[0] == pytest.approx(expected, rel=1e-11, abs=1e-11)


def check_draws(name, draw, size=15000):
    """The frequency of every level against its probability; levels that are hardly ever drawn taken together."""
    likelihood, pixels = make_likelihood(name), (0, 3, 8)
    each = [spread_out(likelihood, seed) for seed in pixels]
    if name == "discretized-logistic":
        each[1] = np.array([0.4, -30.0])      # one level has nearly all: 102
    output = np.concatenate(each) if name.startswith("categorical") else np.stack(each, axis=1).ravel()
    block = size // 50
    rng = np.random.default_rng(4)
    x = np.concatenate([draw(likelihood, np.tile(output, (block, 1)), rng) for _ in range(50)])
    likelihood.support.check(x, "x")
    level = np.rint((likelihood.levels - 1) * x).astype(int)
    for d, one in enumerate(each):
        p = probabilities(reference, likelihood, one)
        common = p * size > 20
        seen = np.bincount(level[:, d], minlength=likelihood.levels) / size
        seen, p = (np.append(values[common], values[~common].sum()) for values in (seen, p))
        error = np.sqrt(p * (1 - p) / size) + 1e-3 / size
        assert (np.abs(seen - p) <= 5 * error + 1 / size).all(), "off by more than five standard errors"
    close_to((x[:, :-1] - x.mean(axis=0)[:-1]) * (x[:, 1:] - x.mean(axis=0)[1:]), np.zeros(2), "covariance")


def right(likelihood, output, rng):
    return likelihood.draw(reference, output, Block({}, "float64"), rng)


def means(likelihood, output, rng):
    return np.repeat(fitting(likelihood, likelihood.mean(reference, output[:1])), len(output), axis=0)


def one_level_up(likelihood, output, rng):
    return np.minimum(right(likelihood, output, rng) + 1 / (likelihood.levels - 1), 1)


def mirrored(likelihood, output, rng):
    return 1 - right(likelihood, output, rng)


def weak(likelihood, output, rng):
    mean = likelihood.mean(reference, output[:1])      # all rows are alike
    return fitting(likelihood, mean + 0.8 * (right(likelihood, output, rng) - mean))


def one_for_all(likelihood, output, rng):
    """The same noise for every pixel."""
    same = SimpleNamespace(
        random=lambda shape: np.broadcast_to(rng.random((*shape[:-1], 1)), shape),
        logistic=lambda size: np.broadcast_to(rng.logistic(size=(size[0], 1)), size))
    return likelihood.draw(reference, output, Block({}, "float64"), same)


@pytest.mark.every(2)
@NAMES
def test_draws_follow_the_probabilities(name):
    check_draws(name, right)


@pytest.mark.every(21)
@NAMES
@pytest.mark.parametrize("broken", [means, one_level_up, mirrored, weak, one_for_all])
def test_wrong_draws_are_found(name, broken):
    if broken is not one_for_all or name != "beta-binomial":      # whose two generators have no such short cut
        with pytest.raises(AssertionError, match="standard errors"):
            check_draws(name, broken)


def test_every_pixel_of_a_categorical_has_logits_of_its_own():
    """Each its mean and its draw, and a size of its own: what all logits of a pixel have in common says nothing."""
    likelihood, level = make_likelihood("categorical:4"), np.arange(50 * 3).reshape(50, 3) % 4
    output = 200.0 * (np.arange(4) == level[..., None]) + np.array([-5000, 0, 3000])[:, None]      # all but certain
    for found in (likelihood.mean(reference, output.reshape(50, 12)), likelihood.draw(
            reference, output.reshape(50, 12), Block({}, "float64"), np.random.default_rng(0))):
        assert np.allclose(found, level / 3, rtol=1e-15, atol=1e-80)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_level_without_a_chance_is_never_drawn(dtype):
    """The first and the last of six, from the first and the last number of a generator."""
    output = np.random.default_rng(0).standard_normal((3, 500, 6)).astype(dtype)
    output[..., [0, -1]] = -1e4
    for u, level in ((0.0, 1), (1 - 2.0 ** -53, 4)):
        same = SimpleNamespace(random=lambda shape, u=u: np.full(shape, u))
        x = make_likelihood("categorical:6").draw(reference, output.reshape(3, -1), Block({}, dtype), same)
        assert np.array_equal(x, np.full((3, 500), level / 5, dtype))


def test_draws_of_a_beta_binomial_far_out():
    """A fair coin thrown 255 times, one thrown once, or no coin; side by side, in single precision."""
    log_alpha, log_beta, expected = np.array([
        (1e4, 1e4, 0.5), (1e4, -1e4, 1), (-1e4, 1e4, 0), (-1e4, -1e4, 0.5), (0, 1e4, 0), (1e4, 1e4 + 50, 0),
        (-1e4, -1e4 + 50, 0)]).T
    output = np.tile(np.concatenate([log_alpha, log_beta]), (2000, 1)).astype(np.float32)
    x = make_likelihood("beta-binomial").draw(reference, output, Block({}, "float32"), np.random.default_rng(0))
    spread = np.where(expected != 0.5, 0, np.where(log_alpha > 0, 0.5 / math.sqrt(255), 0.5))
    assert (np.abs(x.mean(axis=0) - expected) <= 5 * spread / math.sqrt(len(x))).all()
    assert np.allclose(x.std(axis=0), spread, rtol=0.1, atol=0)


def test_a_discretized_logistic_starts_with_a_standard_deviation_of_a_quarter():
    """s pi / sqrt(3), in every pixel."""
    r = make_likelihood("discretized-logistic").bias_at(np.array([0.2, 0.5, 1.0]))[3:]
    s = np.exp(LOG_SCALE_FLOOR + np.log1p(np.exp(r - LOG_SCALE_FLOOR)))
    assert np.allclose(s * math.pi / math.sqrt(3), 0.25, rtol=0.01)
