"""Chapter 16, equation by equation: the likelihoods of counts, of real numbers in any unit, and of codes, in both
kernel modules."""
import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from npvae.kernels import fused, reference
from npvae.kernels.reference.gamma import poisson_peak
from npvae.likelihoods import LogNormal

equation = pytest.mark.equation
KERNELS = (reference, fused)

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D16.1": (poisson_peak, "+ rest(z)", "- rest(z)"),
    "D16.2": (reference.poisson_nll_forward, "+ offset", "- offset"),
    "D16.3": (reference.poisson_nll_backward, "np.expm1(t)", "np.exp(t)"),
    "D16.4": (reference.negative_binomial_nll_forward, "+ offset", "- offset"),
    "D16.5": (reference.negative_binomial_nll_backward, "dcells * by_mean", "-dcells * by_mean"),
    "D16.6": (reference.negative_binomial_nll_backward, "dcells * by_r", "-dcells * by_r"),
    "D16.7": (reference.zero_inflated_nll_forward, "softplus(a) + c)", "softplus(a) - c)"),
    "D16.8": (reference.zero_inflated_nll_backward, "sigmoid(-s), 1)", "sigmoid(s), 1)"),
    "D16.9": (reference.multinomial_nll_forward, "- poisson_peak(total)", "+ poisson_peak(total)"),
    "D16.10": (reference.multinomial_nll_backward, "np.exp(log_p) * others", "-np.exp(log_p) * others"),
    "D16.11": (reference.student_t_nll_forward, "(df + 1)", "(df - 1)"),
    "D16.12": (reference.student_t_nll_backward, "dcells * (1 - h * u)", "dcells * (1 + h * u)"),
    "D16.13": (reference.laplace_nll_backward, "(1 - sign * u)", "(1 + sign * u)"),
    "D16.14": (reference.log_normal_nll_forward, "+ log_x[:, None, :]", "- log_x[:, None, :]"),
    "D16.15": (reference.ordinal_nll_forward, "softplus(p.v), 0) - inside", "softplus(p.v), 0) + inside"),
    "D16.16": (reference.ordinal_nll_backward, "-(du + dv)", "-(du - dv)"),
    "D16.17": (reference.append_parameters_backward, "dout[:, :, width:], axis", "dout[:, :, :width], axis"),
    "D16.18": (LogNormal.mean, "0.5 * np.exp(2 * s)", "np.exp(2 * s)")}

rng = np.random.default_rng(5)
UPSTREAM = rng.standard_normal((2, 3, 4))      # B 2, K 3, D 4
COUNTS = np.array([[0, 3, 1, 40], [7, 0, 1200, 2.0]])
OFFSET = np.array([0.3, -0.2])
REAL = 3 * rng.standard_normal((2, 4))
OUTPUT = rng.standard_normal((2, 3, 12))
H = 1e-30


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def cells_of(kernels, name, output, x, *more):
    cells = np.empty((*output.shape[:2], x.shape[1]), output.dtype)
    getattr(kernels, f"{name}_nll_forward")(cells, output, x, *more)
    return cells


def one_cell(kernels, name, output, x, *more):
    """c (N,) of one column, for each of its values x (N,), at the same output."""
    rows = np.tile(np.asarray(output, float), (len(x), 1, 1))
    return cells_of(kernels, name, rows, np.asarray(x, float).reshape(-1, 1), *more)[:, 0, 0]


def check_gradient(name, output, x, *more):
    """The backward kernels against the complex step on the reference."""
    expected = np.stack([np.sum(UPSTREAM * cells_of(reference, name, output + 1j * H * one, x, *more).imag / H, axis=-1)
                         for one in np.eye(output.shape[-1])], axis=-1)
    for kernels in KERNELS:
        doutput = np.full_like(output, 777)
        getattr(kernels, f"{name}_nll_backward")(doutput, UPSTREAM, output, x, *more)
        close(doutput / np.abs(expected).max(), expected / np.abs(expected).max())


def log_factorial(n):
    return Decimal(math.factorial(n)).ln()


# --- counts ---

@equation("D16.1")
def test_the_loss_of_a_count_at_its_mean_in_50_digits():
    with localcontext() as context:
        context.prec = 50
        for n in (0, 1, 2, 6, 7, 8, 9, 30, 170, 3000):
            exact = log_factorial(n) - (n * Decimal(n).ln() - n if n else 0)
            close(float(poisson_peak(np.array(float(n)))), float(exact), 1e-14)
            for kernels in KERNELS:
                close(one_cell(kernels, "poisson", [math.log(n or 1)], [n], np.zeros(1)), float(exact) if n else 1)


@equation("D16.2")
def test_poisson_counts_sum_to_one_and_have_mean_and_variance():
    x = np.arange(200.0)
    for kernels in KERNELS:
        P = np.exp(-one_cell(kernels, "poisson", [1.7], x, np.full(200, 0.6)))
        close([P.sum(), P @ x, P @ (x - math.exp(2.3)) ** 2], [1, math.exp(2.3), math.exp(2.3)], 1e-11)
        close(one_cell(kernels, "poisson", [1.7], [3], np.full(1, 0.6)), math.exp(2.3) - 3 * 2.3 + math.log(6))


@equation("D16.3")
def test_poisson_gradient():
    check_gradient("poisson", OUTPUT[..., :4], COUNTS, OFFSET)


def negative_binomial(kernels, m, r, x):
    return one_cell(kernels, "negative_binomial", [math.log(m) - 0.5, math.log(r)], x, np.full(len(x), 0.5))


@equation("D16.4")
def test_negative_binomial_counts_in_50_digits():
    """Of whole r, whose Gamma functions are factorials."""
    for kernels, m, r in itertools.product(KERNELS, (0.01, 3.0, 5e4), (1, 2, 7, 8, 40, 10 ** 3)):
        x = [0, 1, 2, 9, 100, 2000]
        with localcontext() as context:
            context.prec = 50
            mean = Decimal(math.log(m) - 0.5 + 0.5).exp()
            size = Decimal(math.log(r)).exp()      # r up to rounding; the Gamma functions then are, too
            exact = [float(-(log_factorial(n + r - 1) - log_factorial(r - 1) - log_factorial(n)
                             + size * (size / (size + mean)).ln() + n * (mean / (size + mean)).ln())) for n in x]
        close(negative_binomial(kernels, m, r, x), exact)
    x = np.arange(4000.0)
    P = np.exp(-negative_binomial(reference, 6.0, 1.5, x))
    close([P.sum(), P @ x, P @ (x - 6) ** 2], [1, 6, 6 + 36 / 1.5], 1e-10)


@equation("D16.5")
@equation("D16.6")
def test_negative_binomial_gradients():
    check_gradient("negative_binomial", OUTPUT[..., :8] * [1, 1, 1, 1, 3, 3, 3, 3], COUNTS, OFFSET)


@equation("D16.7")
def test_additional_zeros():
    x = np.arange(3000.0)
    for kernels, a in itertools.product(KERNELS, (-3.0, 0.5, 4.0)):
        P = np.exp(-one_cell(kernels, "zero_inflated", [1.2, a, 0.4], x, np.zeros(3000)))
        p, plain = 1 / (1 + math.exp(-a)), np.exp(-negative_binomial(kernels, math.exp(1.2), math.exp(0.4), x))
        close(P, p * (x == 0) + (1 - p) * plain)
        close(P.sum(), 1)


@equation("D16.8")
def test_gradients_of_additional_zeros():
    check_gradient("zero_inflated", OUTPUT, COUNTS, OFFSET)


def multinomial(kernels, logits, x):
    cells, log_mean = np.empty((2, *logits.shape), logits.dtype)
    kernels.multinomial_nll_forward(cells, log_mean, logits, x)
    return cells, log_mean


@equation("D16.9")
def test_bags_of_a_given_size_sum_to_one():
    bags = np.array([bag for bag in itertools.product(range(6), repeat=3) if sum(bag) == 5], float)
    for kernels in KERNELS:
        nll = multinomial(kernels, np.tile([0.4, -2.0, 1.0], (len(bags), 1, 1)), bags)[0].sum(axis=-1)[:, 0]
        p = np.exp([0.4, -2.0, 1.0]) / np.exp([0.4, -2.0, 1.0]).sum()
        close(np.exp(-nll), [math.factorial(5) * np.prod([q ** n / math.factorial(int(n)) for q, n in zip(p, bag)])
                             for bag in bags])
        assert not multinomial(kernels, np.ones((1, 1, 3)), np.zeros((1, 3)))[0].any()      # nothing is counted


@equation("D16.10")
def test_multinomial_gradient():
    logits = OUTPUT[..., :4]
    expected = np.stack([np.sum(UPSTREAM * multinomial(reference, logits + 1j * H * one, COUNTS)[0].imag / H, axis=-1)
                         for one in np.eye(4)], axis=-1)
    for kernels in KERNELS:
        dlogits = np.empty_like(logits)
        kernels.multinomial_nll_backward(dlogits, UPSTREAM, multinomial(kernels, logits, COUNTS)[1], COUNTS)
        close(dlogits, expected, 1e-11)


# --- real and positive numbers ---

@equation("D16.11")
def test_students_t_against_gamma_functions_and_towards_the_gaussian():
    x = np.array([-40.0, -1.0, 0.3, 2.0, 1e4])
    u = (x - 0.3) / math.exp(0.7)
    for kernels in KERNELS:
        for nu in (0.2, 1, 3, 14, 16, 30):
            exact = (0.5 * (nu + 1) * np.log1p(u * u / nu) + 0.7 + 0.5 * math.log(math.pi * nu)
                     + math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2))
            close(one_cell(kernels, "student_t", [0.3, 0.7, math.log(nu)], x), exact)
        gaussian = 0.5 * u[:4] ** 2 + 0.7 + 0.5 * math.log(2 * math.pi)
        close(one_cell(kernels, "student_t", [0.3, 0.7, 40.0], x[:4]), gaussian)


@equation("D16.12")
def test_gradients_of_students_t():
    check_gradient("student_t", OUTPUT * np.repeat([1, 1, 3], 4), REAL)


@equation("D16.13")
def test_gradients_of_the_laplace_distribution():
    check_gradient("laplace", OUTPUT[..., :8], REAL)
    for kernels in KERNELS:
        close(one_cell(kernels, "laplace", [0.5, 1.2], [-3, 0.5, 9]),
              np.array([3.5, 0, 8.5]) * math.exp(-1.2) + 1.2 + math.log(2))


@equation("D16.14")
def test_the_density_of_a_positive_number():
    x = np.exp([-9.0, 0.1, 4.0])
    for kernels in KERNELS:
        u = (np.log(x) - 0.4) / math.exp(-0.3)
        close(one_cell(kernels, "log_normal", [0.4, -0.3], x),
              0.5 * u * u - 0.3 + 0.5 * math.log(2 * math.pi) + np.log(x))
    check_gradient("log_normal", OUTPUT[..., :8], np.exp(REAL))


# --- levels in an order ---

LEVELS = np.array([2, 4, 3, 2])
CODES = np.array([[0, 2, 1, 1], [1, 3, 2, 0.0]])
CUTS = rng.standard_normal(7)


@equation("D16.15")
def test_levels_up_to_a_cut_have_what_the_sigmoid_says():
    t = np.array([-1.5, 0.4, -2.0, 1.0])
    points = np.cumsum([t[0], *np.exp(t[1:])])
    for kernels, h in itertools.product(KERNELS, (-6.0, 0.2, 30.0)):
        P = np.exp(-one_cell(kernels, "ordinal", [h], np.arange(5.0), t, np.array([5])))
        close(np.cumsum(P)[:4], 1 / (1 + np.exp(h - points)))
        close(P.sum(), 1)


@equation("D16.16")
def test_gradients_of_levels_in_an_order():
    h = OUTPUT[..., :4]
    by_h = UPSTREAM * cells_of(reference, "ordinal", h + 1j * H, CODES, CUTS, LEVELS).imag / H
    by_cuts = [np.sum(UPSTREAM * cells_of(reference, "ordinal", h + 0j, CODES, CUTS + 1j * H * one, LEVELS).imag / H)
               for one in np.eye(7)]
    for kernels in KERNELS:
        dh, dcuts = np.full_like(h, 777), np.full_like(CUTS, 777)
        kernels.ordinal_nll_backward(dh, dcuts, UPSTREAM, h, CODES, CUTS, LEVELS)
        close(dh, by_h)
        close(dcuts, by_cuts)


# --- parameters of a column, and means ---

@equation("D16.17")
def test_a_parameter_of_a_column_is_learned_from_all_rows_and_draws():
    for kernels, size in itertools.product(KERNELS, (4, 1)):
        out, doutput, down = np.empty((2, 3, 8)), np.empty((2, 3, 4)), np.full(size, 777.0)
        kernels.append_parameters_forward(out, OUTPUT[..., :4], CUTS[:size])
        assert np.array_equal(out[..., :4], OUTPUT[..., :4]) and (out[..., 4:] == CUTS[:size]).all()
        kernels.append_parameters_backward(doutput, down, OUTPUT[..., :8])
        assert np.array_equal(doutput, OUTPUT[..., :4])
        close(down, OUTPUT[..., 4:8].sum(axis=(0, 1)).reshape(size, -1).sum(axis=1))


@equation("D16.18")
def test_the_mean_of_exp_of_a_gaussian():
    """By Gauss and Hermite's rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    for m, s in ((0.5, -0.4), (-2.0, 0.3)):
        expected = weights @ np.exp(m + math.exp(s) * nodes) / weights.sum()
        for kernels in KERNELS:
            close(LogNormal().mean(kernels, np.array([[m, s]])), [[expected]])
