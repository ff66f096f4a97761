"""Chapter 12, equation by equation: the likelihoods of grey pixels and of bytes, and the Gaussian with the batch's own
sigma, in both kernel modules."""
import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from npvae.kernels import fused, reference
from npvae.kernels.reference.levels import LOG_SCALE_FLOOR

equation = pytest.mark.equation
KERNELS = (reference, fused)
CONTINUOUS, LOGISTIC = reference.continuous_bernoulli_nll_forward, reference.discretized_logistic_nll_forward
CATEGORICAL, BETA_BINOMIAL = reference.categorical_nll_forward, reference.beta_binomial_nll_forward

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D12.1": (CONTINUOUS, "np.log((1 - e) / far)", "np.log((1 + e) / far)"),
    "D12.2": (reference.continuous_bernoulli_nll_backward, "= dnll[:, :, None]", "= -dnll[:, :, None]"),
    "D12.3": (CONTINUOUS, "0.5 - series * near", "0.5 + series * near"),
    "D12.4": (LOGISTIC, "(lower)) - inside", "(lower)) + inside"),
    "D12.5": (reference.discretized_logistic_nll_backward, "inside - upper", "-inside - upper"),
    "D12.6": (CATEGORICAL, "m - taken + np", "m - taken - np"),
    "D12.7": (reference.categorical_nll_backward, "np.where(taken, -others", "np.where(taken, others"),
    "D12.8": (BETA_BINOMIAL, "(rest_s - rest_a - rest_b)", "(rest_s + rest_a - rest_b)"),
    "D12.9": (reference.beta_binomial_nll_backward, "sigmoid(log_alpha - log_beta) * both", "both"),
    "D12.10": (reference.gaussian_optimal_nll_backward, "(dnll[:, :, None] + c)", "dnll[:, :, None]")}

rng = np.random.default_rng(3)
LOGITS = 2 * rng.standard_normal((2, 3, 4))      # B 2, K 3, D 4
X = rng.random((2, 4))
BYTES = np.array([[0, 17, 255, 128], [3, 255, 0, 250]]) / 255
LEVELS = np.arange(256.0)[:, None] / 255      # all images of one pixel
UPSTREAM = rng.standard_normal((2, 3))
NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)
NODES, WEIGHTS = 0.5 * (NODES + 1), 0.5 * WEIGHTS      # from 0 to 1
H = 1e-30


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def nll_of(kernels, name, output, x, *kept):
    """nll (B, K); what the forward pass leaves beside it is written to `kept`."""
    nll = np.empty(output.shape[:2], output.dtype)
    getattr(kernels, f"{name}_nll_forward")(nll, *kept, output, x)
    return nll


def by_output(name, output, x, *kept):
    """UPSTREAM * d nll / d output, by the complex step on the reference kernel."""
    kept = [value.astype(complex) for value in kept]
    slopes = [nll_of(reference, name, output + 1j * H * one, x, *kept).imag / H for one in np.eye(output.shape[-1])]
    return UPSTREAM[:, :, None] * np.stack(slopes, axis=-1)


def one_pixel(output, count):
    """The same output for each of so many images of one pixel, (count, 1, P)."""
    return np.tile(np.asarray(output, float), (count, 1, 1))


# --- the continuous Bernoulli ---

def continuous(kernels, logits, x):
    """nll (N,) and mean of one pixel, for each of its values x (N,)."""
    tail = np.empty((len(x), 1, 1))
    nll = nll_of(kernels, "continuous_bernoulli", one_pixel([logits], len(x)), x[:, None].copy(), tail)[:, 0]
    return nll, tail[0, 0, 0] if logits < 0 else 1 - tail[0, 0, 0]


@equation("D12.1")
def test_grey_images_integrate_to_one():
    """The loss is lower than the Bernoulli's by the same for every image; and pixels are independent."""
    for kernels in KERNELS:
        for logit in (-20.0, -3.0, 0.4, 1e-9, 5.0):
            nll, _ = continuous(kernels, logit, NODES)
            close(WEIGHTS @ np.exp(-nll), 1)
            bernoulli, mean = np.empty((60, 1)), np.empty((60, 1, 1))
            kernels.bernoulli_nll_forward(bernoulli, mean, one_pixel([logit], 60), NODES[:, None].copy())
            close(np.ptp(bernoulli[:, 0] - nll), 0)
        nll = nll_of(kernels, "continuous_bernoulli", LOGITS, X, np.empty_like(LOGITS))
        close(nll[1, 2], sum(continuous(kernels, LOGITS[1, 2, d], X[1, d:d + 1])[0][0] for d in range(4)))


@equation("D12.2")
def test_the_mean_of_a_grey_pixel_is_what_the_gradient_holds_against_it():
    for kernels in KERNELS:
        for logit in (-20.0, -3.0, 0.4, 1e-9, 5.0):
            nll, mean = continuous(kernels, logit, NODES)
            close(mean, WEIGHTS @ (NODES * np.exp(-nll)))
        tails, dlogits = np.empty_like(LOGITS), np.empty_like(LOGITS)
        nll_of(kernels, "continuous_bernoulli", LOGITS, X, tails)
        kernels.continuous_bernoulli_nll_backward(dlogits, UPSTREAM, tails, LOGITS, X)
        close(dlogits, by_output("continuous_bernoulli", LOGITS, X, tails))


@equation("D12.3")
def test_the_series_around_one_half_in_220_digits():
    for kernels in KERNELS:
        for logit in (-0.99, -0.3, -1e-9, 1e-90, 1e-17, 1e-4, 0.02, 0.5, 0.999):
            with localcontext() as context:
                context.prec = 220
                size = Decimal(logit)
                cumulant, slope = ((size.exp() - 1) / size).ln(), 1 / (1 - (-size).exp()) - 1 / size
            nll, mean = continuous(kernels, logit, np.zeros(1))
            np.testing.assert_allclose(nll[0], float(cumulant), rtol=3e-16)
            np.testing.assert_allclose(mean, float(slope), rtol=3e-16)


# --- 256 levels ---

@equation("D12.4")
def test_levels_up_to_an_edge_have_what_the_distribution_function_says():
    """From both ends, so that neither tail is lost."""
    for kernels in KERNELS:
        for location, r in ((0.3, -3.0), (0.5, -5.0), (-0.4, -2.0), (1.2, 0.5)):
            chance = np.exp(-nll_of(kernels, "discretized_logistic", one_pixel([location, r], 256), LEVELS)[:, 0])
            scale = math.exp(LOG_SCALE_FLOOR + math.log1p(math.exp(r - LOG_SCALE_FLOOR)))
            edges = [((2 * i + 1) / 510 - location) / scale for i in range(255)]
            for sign, found in ((-1, np.cumsum(chance)[:-1]), (1, np.cumsum(chance[::-1])[-2::-1])):
                np.testing.assert_allclose(found, [1 / (1 + math.exp(sign * edge)) for edge in edges], rtol=1e-12)


@equation("D12.5")
def test_discretized_logistic_by_location_and_scale():
    output = np.concatenate([0.5 + 0.2 * LOGITS, LOG_SCALE_FLOOR + 2 + 2 * LOGITS[::-1]], axis=-1)
    expected = by_output("discretized_logistic", output, BYTES)
    for kernels in KERNELS:
        doutput = np.empty_like(output)
        kernels.discretized_logistic_nll_backward(doutput, UPSTREAM, output, BYTES)
        close(doutput / np.abs(expected).max(), expected / np.abs(expected).max())


def categorical(kernels, logits, x):
    """nll (B, K), and top and total (2, B, K, D)."""
    kept = np.empty((2, *logits.shape[:2], x.shape[1]))
    return nll_of(kernels, "categorical", logits, x, *kept), kept


@equation("D12.6")
def test_exp_of_minus_nll_is_the_chance_of_every_image_of_levels():
    images = np.array(list(itertools.product((0.0, 0.5, 1.0), repeat=2)))      # D 2, L 3
    weights = (1, 5, 2), (7, 0.25, 3)
    logits = np.log(np.concatenate(weights))
    for kernels in KERNELS:
        for shift in (0, 300):
            chance = np.exp(-categorical(kernels, one_pixel(logits + shift, 9), images)[0][:, 0])
            close(chance, [a * b / (8 * 10.25) for a, b in itertools.product(*weights)], 1e-12)


@equation("D12.7")
def test_categorical_by_logits():
    logits, x = 3 * rng.standard_normal((2, 3, 15)), np.array([[0, 0.5, 1], [0.25, 0.25, 0.75]])      # D 3, L 5
    for kernels in KERNELS:
        dlogits, (_, kept) = np.empty_like(logits), categorical(kernels, logits, x)
        kernels.categorical_nll_backward(dlogits, UPSTREAM, *kept, logits, x)
        close(dlogits, by_output("categorical", logits, x, *kept))


@equation("D12.8")
def test_beta_binomial_is_the_binomial_averaged_over_its_coins():
    """The integral over p of C(n, i) p^i (1 - p)^(n - i) times the beta density: polynomials, so Gauss is exact."""
    p, weights = np.polynomial.legendre.leggauss(160)
    log_p, log_q, log_w = np.log(0.5 + 0.5 * p), np.log(0.5 - 0.5 * p), np.log(0.5 * weights)
    for alpha, beta in ((1, 1), (2, 5), (7, 9), (40, 12)):
        log_norm = math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
        for kernels in KERNELS:
            nll = nll_of(kernels, "beta_binomial", one_pixel(np.log([alpha, beta]), 256), LEVELS)[:, 0]
            close(np.exp(-nll).sum(), 1, 1e-11)
            for i in range(0, 256, 15):
                terms = log_w + (i + alpha - 1) * log_p + (255 - i + beta - 1) * log_q - log_norm
                close(np.exp(-nll[i]), math.comb(255, i) * np.exp(terms).sum(), 1e-11)


@equation("D12.9")
def test_beta_binomial_by_what_the_decoder_puts_out():
    """With alpha and beta on both sides of 8, where the series begins."""
    output = np.concatenate([LOGITS, 1 + LOGITS[::-1]], axis=-1)
    expected = by_output("beta_binomial", output, BYTES)
    for kernels in KERNELS:
        doutput = np.empty_like(output)
        kernels.beta_binomial_nll_backward(doutput, UPSTREAM, output, BYTES)
        close(doutput, expected, 1e-11)
        alpha, beta = np.exp(output[0, 1, [1, 5]])
        both, first = (math.fsum(1 / (a + j) for j in range(k)) for a, k in ((alpha + beta, 255), (alpha, 17)))
        close(doutput[0, 1, 1], UPSTREAM[0, 1] * alpha * (both - first), 1e-12)


# --- the batch's own sigma ---

@equation("D12.10")
def test_the_sigma_of_the_batch_and_what_the_means_do_to_it():
    """Unequal weights: sigma, of which every mean has a share, moves every nll."""
    variance = sum((X[b, d] - LOGITS[b, k, d]) ** 2 for b, k, d in np.ndindex(2, 3, 4)) / 24
    expected, unused = np.empty_like(LOGITS), np.empty(1, complex)
    for place in np.ndindex(LOGITS.shape):
        moved = LOGITS.astype(complex)
        moved[place] += 1j * H
        expected[place] = (UPSTREAM * nll_of_batch(reference, moved, unused).imag / H).sum()
    for kernels in KERNELS:
        logvar, same, dmean = np.empty(1), np.empty((2, 3)), np.empty_like(LOGITS)
        nll = nll_of_batch(kernels, LOGITS, logvar)
        kernels.gaussian_nll_forward(same, LOGITS, X, np.array([math.log(variance)]))
        close(logvar[0], math.log(variance))
        close(nll, same)
        kernels.gaussian_optimal_nll_backward(dmean, UPSTREAM, logvar, LOGITS, X)
        close(dmean, expected)


def nll_of_batch(kernels, mean, logvar):
    nll = np.empty(mean.shape[:2], mean.dtype)
    kernels.gaussian_optimal_nll_forward(nll, logvar, mean, X)
    return nll
