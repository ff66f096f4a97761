"""Chapter 4 and appendices C to E, equation by equation: Bernoulli and Gaussian, in both kernel modules."""
import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from npvae.kernels import fused, reference
from npvae.kernels.reference.likelihoods import LOGVAR_FLOOR
from npvae.likelihoods import Bernoulli

equation = pytest.mark.equation
KERNELS = (reference, fused)
FORWARD, BACKWARD = reference.bernoulli_nll_forward, reference.bernoulli_nll_backward
GAUSSIAN, GAUSSIAN_BACK = reference.gaussian_nll_forward, reference.gaussian_nll_backward
PIXEL, PIXEL_BACK = reference.gaussian_pixel_nll_forward, reference.gaussian_pixel_nll_backward

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D3.1": (FORWARD, "np.where(negative, x, 1 - x)", "np.where(negative, 1 - x, x)"),
    "D3.2": (FORWARD, "+ np.log1p(e)", "- np.log1p(e)"),
    "D3.3": (FORWARD, "tail[...] = e / (1 + e)", "tail[...] = 1 / (1 + e)"),
    "D3.4": (BACKWARD, "= dnll[:, :, None]", "= -dnll[:, :, None]"),
    # what is left when p is clipped to [1e-7, 1 - 1e-7] and differentiated through
    "D3.5": (BACKWARD, "* np.where", "* (tail > 1e-7) * np.where"),
    "D3.6": (FORWARD, "np.sum(t * np", "np.mean(t * np"),
    "D3.7": (Bernoulli.bias_at, "np.log(p / (1 - p))", "np.log((1 - p) / p)"),
    "D4.1": (GAUSSIAN, "(logvar + LOG_2PI)", "(logvar - LOG_2PI)"),
    "D4.2": (GAUSSIAN_BACK, "dnll[:, :, None] * r * inverse", "-dnll[:, :, None] * r * inverse"),
    "D4.3": (GAUSSIAN_BACK, "mean.shape[-1] - np.sum", "mean.shape[-1] + np.sum"),
    "D4.4": (GAUSSIAN_BACK, "np.sum(r * r, axis=-1)", "np.mean(r * r, axis=-1)"),
    "D4.5": (PIXEL, "logvar = LOGVAR_FLOOR + softplus", "logvar = softplus"),
    "D4.6": (PIXEL_BACK, "upstream * residual * precision", "-upstream * residual * precision"),
    "D4.7": (PIXEL_BACK, "precision) * sigmoid(t)", "precision)"),
    "D4.8": (GAUSSIAN, "np.exp(-0.5 * logvar)", "np.exp(-logvar)")}

rng = np.random.default_rng(3)
LOGITS = 2 * rng.standard_normal((2, 3, 4))      # B 2, K 3, D 4: logits, or the means of a Gaussian
X = rng.random((2, 4))
UPSTREAM = rng.standard_normal((2, 3))
SPREAD = LOGVAR_FLOOR + 4 * rng.standard_normal((2, 3, 4))      # s, above and below the floor
H = 1e-30


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- Bernoulli (chapter 4, appendices C and D) ---

def bernoulli(kernels, logits, x):
    """nll (B, K) and tail (B, K, D)."""
    nll, tail = np.empty(logits.shape[:2], logits.dtype), np.empty_like(logits)
    kernels.bernoulli_nll_forward(nll, tail, logits, x)
    return nll, tail


def dlogits_of(kernels, dnll, logits, x):
    dlogits = np.empty_like(logits)
    kernels.bernoulli_nll_backward(dlogits, dnll, bernoulli(kernels, logits, x)[1], logits, x)
    return dlogits


def one_pixel(values):
    """(N, 1, 1): N images of one pixel."""
    return np.array(values, float).reshape(-1, 1, 1)


def exactly(formula, logit):
    """formula(e^l) in 400 digits, rounded once."""
    with localcontext() as context:
        context.prec = 400
        return float(formula(Decimal(logit).exp()))


EXTREME = [-700.0, -300.25, -40.0, -17.5, -1.0, -1e-9, 0.0, 0.3, 5.0, 16.5, 36.0, 40.0, 300.25, 700.0]


@equation("D3.1")
def test_exp_of_minus_nll_is_the_chance_of_every_image():
    images = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    logits = np.tile(LOGITS[:1], (16, 1, 1))
    for kernels in KERNELS:
        chance = np.exp(-bernoulli(kernels, logits, images)[0])
        close(chance.sum(axis=0), np.ones(3))
        for b, k in np.ndindex(16, 3):
            white = [0.5 * (1 + math.tanh(logit / 2)) for logit in LOGITS[0, k]]
            close(chance[b, k], math.prod(p if pixel else 1 - p for p, pixel in zip(white, images[b])))


@equation("D3.2")
def test_softplus_keeps_its_digits_at_any_size():
    exact = [exactly(lambda e: (1 + e).ln(), logit) for logit in EXTREME]
    for kernels in KERNELS:
        nll, _ = bernoulli(kernels, one_pixel(EXTREME), np.zeros((len(EXTREME), 1)))
        np.testing.assert_allclose(nll[:, 0], exact, rtol=1e-14)


@equation("D3.3")
def test_the_chance_of_the_less_likely_colour_keeps_its_digits_at_any_size():
    exact = [exactly(lambda e: e / (1 + e), -abs(logit)) for logit in EXTREME]
    for kernels in KERNELS:
        _, tail = bernoulli(kernels, one_pixel(EXTREME), np.zeros((len(EXTREME), 1)))
        np.testing.assert_allclose(tail[:, 0, 0], exact, rtol=1e-14)


@equation("D3.4")
def test_nll_by_logits():
    for kernels in KERNELS:
        dlogits = dlogits_of(kernels, UPSTREAM, LOGITS, X)
        for d in range(4):
            slope = bernoulli(reference, LOGITS + 1j * H * np.eye(4)[d], X)[0].imag / H
            close(dlogits[..., d], UPSTREAM * slope)


@equation("D3.5")
def test_the_chain_rule_through_p_in_400_digits():
    """It takes so many: 1 - p is 1e-304 at l = 700, and so is the gradient of a pixel that is white."""
    for x in (0.0, 0.25, 1.0):
        def through_p(e):
            p = e / (1 + e)
            return (p - Decimal(x)) / (p * (1 - p)) * (p * (1 - p))

        exact = [exactly(through_p, logit) for logit in EXTREME]
        for kernels in KERNELS:
            dnll, targets = np.full((len(EXTREME), 1), 2.0), np.full((len(EXTREME), 1), x)
            dlogits = dlogits_of(kernels, dnll, one_pixel(EXTREME), targets)
            np.testing.assert_allclose(dlogits[:, 0, 0] / 2, exact, rtol=1e-14)


@equation("D3.6")
def test_grey_images_do_not_sum_to_one():
    """Gauss-Legendre over all grey images of two pixels."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    images = np.array(list(itertools.product(0.5 + 0.5 * nodes, repeat=2)))
    weight = np.outer(weights, weights).ravel() / 4
    for kernels in KERNELS:
        for logits in LOGITS[0, :, :2]:
            nll, _ = bernoulli(kernels, np.tile(logits, (400, 1, 1)), images)
            mass = math.prod(math.tanh(logit / 2) / logit for logit in logits)
            close(weight @ np.exp(-nll[:, 0]), mass)
            assert mass < 0.25


@equation("D3.7")
def test_the_best_single_bias_is_the_logit_of_the_mean_image():
    images = np.random.default_rng(5).random((6, 4))
    mean = images.mean(axis=0)
    entropy = -sum(m * math.log(m) + (1 - m) * math.log(1 - m) for m in mean)
    for kernels in KERNELS:
        logits = np.tile(Bernoulli().bias_at(mean), (6, 1, 1))
        close(bernoulli(kernels, logits, images)[0].mean(), entropy)
        for d in range(4):
            slopes = bernoulli(reference, logits + 1j * H * np.eye(4)[d], images)[0].imag / H
            close(slopes.mean(), 0)
            for step in (-1e-3, 1e-3):
                assert bernoulli(kernels, logits + step * np.eye(4)[d], images)[0].mean() > entropy + 1e-8


# --- Gaussian (chapter 4, appendix E) ---

def gaussian(kernels, mean, x, logvar):
    """nll (B, K)."""
    nll = np.empty(mean.shape[:2], np.result_type(mean, logvar))
    kernels.gaussian_nll_forward(nll, mean, x, logvar)
    return nll


def gaussian_gradients(kernels, logvar, dnll=UPSTREAM):
    dmean, dlogvar = np.empty_like(LOGITS), np.empty(1)
    kernels.gaussian_nll_backward(dmean, dlogvar, dnll, LOGITS, X, logvar)
    return dmean, dlogvar


def pixel(kernels, output, x):
    """nll (B, K) with a sigma for every pixel."""
    nll = np.empty(output.shape[:2], output.dtype)
    kernels.gaussian_pixel_nll_forward(nll, output, x)
    return nll


def moments(nll, middle, sigma):
    """What exp(-nll) integrates to over x, and its mean and variance.  nll(x) takes a grid (N,)."""
    x, width = np.linspace(middle - 10 * sigma, middle + 10 * sigma, 801, retstep=True)
    density = np.exp(-nll(x)) * width
    first = density @ x
    return density.sum(), first, density @ (x - first) ** 2


@equation("D4.1")
def test_exp_of_minus_nll_is_a_density_of_that_mean_and_variance():
    for kernels in KERNELS:
        for mean, logvar in [(0.4, -3.0), (-1.5, 0.7)]:
            def nll(x):
                return gaussian(kernels, np.full((x.size, 1, 1), mean), x[:, None], np.array([logvar]))[:, 0]
            close(moments(nll, mean, math.exp(logvar / 2)), (1, mean, math.exp(logvar)))


@equation("D4.1")
def test_pixels_are_independent():
    logvar = np.array([-0.6])
    for kernels in KERNELS:
        single = [gaussian(kernels, LOGITS[:, :, d:d + 1].copy(), X[:, d:d + 1].copy(), logvar) for d in range(4)]
        close(gaussian(kernels, LOGITS, X, logvar), sum(single))
        # one pixel, from the standard library
        for b, k in np.ndindex(2, 3):
            density = math.exp(-(X[b, 0] - LOGITS[b, k, 0]) ** 2 / (2 * math.exp(-0.6))) / math.sqrt(
                2 * math.pi * math.exp(-0.6))
            close(single[0][b, k], -math.log(density))


@equation("D4.2")
def test_nll_by_mean():
    logvar = np.array([-0.6])
    for kernels in KERNELS:
        dmean, _ = gaussian_gradients(kernels, logvar)
        for d in range(4):
            close(dmean[..., d], UPSTREAM * gaussian(reference, LOGITS + 1j * H * np.eye(4)[d], X, logvar).imag / H)


@equation("D4.3")
def test_nll_by_the_one_logvar():
    for kernels in KERNELS:
        for logvar in (-0.6, 1.3):
            _, dlogvar = gaussian_gradients(kernels, np.array([logvar]))
            slope = gaussian(reference, LOGITS, X, np.array([logvar + 1j * H])).imag / H
            close(dlogvar[0], (UPSTREAM * slope).sum())


@equation("D4.4")
def test_the_best_sigma_is_the_root_mean_squared_residual():
    mean_square = sum((X[b, d] - LOGITS[b, k, d]) ** 2 for b, k, d in np.ndindex(2, 3, 4)) / 24
    best = np.array([math.log(mean_square)])
    for kernels in KERNELS:
        _, dlogvar = gaussian_gradients(kernels, best, np.full((2, 3), 1 / 6))
        close(dlogvar, [0])
        lowest = gaussian(kernels, LOGITS, X, best).mean()
        close(lowest, 4 * 0.5 * math.log(2 * math.pi * math.e * mean_square))
        assert min(gaussian(kernels, LOGITS, X, best + step).mean() for step in (-1e-3, 1e-3)) > lowest + 1e-7


@equation("D4.5")
def test_a_pixel_s_variance_is_a_smooth_function_above_its_floor():
    floor, mean = 2 * math.log(0.05), 0.4
    for kernels in KERNELS:
        for s in (floor - 30, floor - 1.0, floor, floor + 0.5, -2.0, 3.0, 40.0):
            logvar = floor + exactly(lambda e: (1 + e).ln(), s - floor)

            def nll(x):
                output = np.empty((x.size, 1, 2))
                output[...] = mean, s
                return pixel(kernels, output, x[:, None])[:, 0]
            mass, middle, variance = moments(nll, mean, math.exp(logvar / 2))
            close((mass, variance / math.exp(logvar)), (1, 1))
            close((middle - mean) / math.exp(logvar / 2), 0)
            assert logvar >= floor and (s < 30 or logvar == s)


def pixel_gradients(kernels):
    output = np.concatenate([LOGITS, SPREAD], axis=-1)
    doutput = np.empty_like(output)
    kernels.gaussian_pixel_nll_backward(doutput, UPSTREAM, output, X)
    slopes = [pixel(reference, output + 1j * H * np.eye(8)[d], X).imag / H for d in range(8)]
    return doutput, UPSTREAM[:, :, None] * np.stack(slopes, axis=-1)


@equation("D4.6")
def test_nll_by_a_pixel_s_mean():
    for kernels in KERNELS:
        doutput, expected = pixel_gradients(kernels)
        close(doutput[..., :4], expected[..., :4])


@equation("D4.7")
def test_nll_by_what_a_pixel_s_logvar_is_made_of():
    for kernels in KERNELS:
        doutput, expected = pixel_gradients(kernels)
        close(doutput[..., 4:], expected[..., 4:])


@equation("D4.8")
def test_other_units_add_the_logarithm_of_their_ratio_for_every_pixel():
    for kernels in KERNELS:
        for a in (255.0, 0.2):
            here = gaussian(kernels, LOGITS, X, np.array([-0.6]))
            there = gaussian(kernels, a * LOGITS, a * X, np.array([-0.6 + 2 * math.log(a)]))
            close(there - here, np.full((2, 3), 4 * math.log(a)), 1e-12)
