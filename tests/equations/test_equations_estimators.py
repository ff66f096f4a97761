"""Chapter 15, equation by equation: the gradient estimators, in both kernel modules."""
import math

import numpy as np
import pytest

from npvae import IWAE
from npvae.kernels import fused, reference

equation = pytest.mark.equation
KERNELS = (reference, fused)
RATIO, Q, SCALE = reference.path_ratio_backward, reference.path_q_backward, reference.scale_draws

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D15.1": (RATIO, "(z - eps *", "(z + eps *"),
    "D15.2": (RATIO, "np.exp(-0.5 * logvar)", "np.exp(0.5 * logvar)"),
    "D15.3": (Q, "-dlog_q[:, :, None]", "dlog_q[:, :, None]"),
    "D15.4": (Q, "np.exp(-0.5 * logvar)", "np.exp(-logvar)"),
    "D15.5": (RATIO, "(z - eps *", "(0.5 * z - eps *"),
    "D15.6": (Q, "(eps * np.exp", "(eps * eps * np.exp"),
    "D15.7": (IWAE.__call__, "-beta * dlog_w", "-dlog_w"),
    "D15.8": (SCALE, "(1 - beta) + dlog_ratio", "dlog_ratio"),
    "D15.9": (SCALE, "axis=1)[:, None] / c", "axis=1)[:, None]")}

MU = np.array([[0.5, -1.2, 0.0], [1.5, 0.1, -0.7]])          # B = 2, Z = 3
LOGVAR = np.array([[-1.5, 0.8, 0.3], [0.0, -0.2, 1.1]])
rng = np.random.default_rng(3)
EPS, UPSTREAM = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 4))      # K = 4
Z = MU[:, None] + np.exp(0.5 * LOGVAR)[:, None] * EPS
H = 1e-30


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def log_q(z, mu, logvar):
    """Of each dimension alone, (B, K, Z)."""
    mu, logvar = mu[:, None], logvar[:, None]
    return -0.5 * ((z - mu) ** 2 / np.exp(logvar) + logvar + math.log(2 * math.pi))


def through_z(kernels, dz, logvar, eps):
    """dmu, dlogvar (B, Z)."""
    dmu, dlogvar = np.empty_like(logvar), np.empty_like(logvar)
    kernels.reparameterize_backward(dmu, dlogvar, dz, logvar, eps)
    return dmu, dlogvar


@equation("D15.1")
def test_the_whole_derivative_is_path_and_score():
    """The score by the complex step on log q(z; mu, logvar), z held fixed."""
    of_mu = (UPSTREAM[:, :, None] * log_q(Z, MU + 1j * H, LOGVAR).imag / H).sum(axis=1)
    of_logvar = (UPSTREAM[:, :, None] * log_q(Z, MU, LOGVAR + 1j * H).imag / H).sum(axis=1)
    for kernels in KERNELS:
        dz, path_dz, direct = np.empty_like(Z), np.empty_like(Z), np.empty_like(MU)
        kernels.log_ratio_backward(dz, direct, UPSTREAM, Z)
        kernels.path_ratio_backward(path_dz, UPSTREAM, Z, LOGVAR, EPS)
        total, path = through_z(kernels, dz, LOGVAR, EPS), through_z(kernels, path_dz, LOGVAR, EPS)
        close(total[0] - path[0], of_mu)
        close(total[1] + direct - path[1], of_logvar)


@equation("D15.2")
def test_log_ratio_by_z_alone():
    z = Z + 1j * H
    expected = UPSTREAM[:, :, None] * (log_q(z, MU, LOGVAR) + 0.5 * z ** 2).imag / H
    for kernels in KERNELS:
        dz = np.empty_like(Z)
        kernels.path_ratio_backward(dz, UPSTREAM, Z, LOGVAR, EPS)
        close(dz, expected)


@equation("D15.3")
def test_log_q_by_z_alone():
    expected = UPSTREAM[:, :, None] * log_q(Z + 1j * H, MU, LOGVAR).imag / H
    for kernels in KERNELS:
        dz = np.empty_like(Z)
        kernels.path_q_backward(dz, UPSTREAM, LOGVAR, EPS)
        close(dz, expected)


def line(points=241):
    """Noise, and the weight of each point in a mean."""
    eps = np.linspace(-9, 9, points)
    return eps, np.exp(-0.5 * eps ** 2) / np.exp(-0.5 * eps ** 2).sum()


def mean_scored(kernels, mu, logvar, f):
    """E[ f(z) score ] by mu and logvar, one latent dimension: what the kernels say of log q, less its path."""
    points, weight = line()
    eps, logvar = points.reshape(1, -1, 1), np.array([[logvar]])
    weighted = (weight * f(mu + math.exp(0.5 * logvar[0, 0]) * points))[None]
    dz, direct = np.empty_like(eps), np.empty_like(logvar)
    kernels.path_q_backward(dz, weighted, logvar, eps)
    kernels.log_q_backward(direct, weighted)
    by_mu, by_logvar = through_z(kernels, dz, logvar, eps)
    return -by_mu[0, 0], direct[0, 0] - by_logvar[0, 0]


@equation("D15.4")
def test_the_score_is_zero_on_average():
    for kernels in KERNELS:
        for mu, logvar in zip(MU.ravel(), LOGVAR.ravel()):
            close(mean_scored(kernels, mu, logvar, np.ones_like), (0, 0))


@equation("D15.6")
def test_a_scored_mean_is_the_derivative_of_the_mean():
    """f(z) = sin(t z), whose mean is exp(-t^2 sigma^2 / 2) sin(t mu)."""
    def mean(mu, logvar):
        return np.exp(-0.5 * t ** 2 * np.exp(logvar)) * np.sin(t * mu)
    for kernels in KERNELS:
        for t in (0.4, 1.3):
            for mu, logvar in zip(MU.ravel(), LOGVAR.ravel()):
                close(mean_scored(kernels, mu, logvar, lambda z: np.sin(t * z)),
                      (mean(mu + 1j * H, logvar).imag / H, mean(mu, logvar + 1j * H).imag / H))


@equation("D15.5")
def test_at_the_exact_posterior_no_draw_says_anything():
    """x = z + noise of variance v, so that p(z|x) = N(x / (1 + v), v / (1 + v)); elsewhere they do."""
    x, v = rng.standard_normal((2, 3)), 0.3
    for kernels in KERNELS:
        for shift, still in ((0, True), (0.1, False)):
            logvar = np.full((2, 3), math.log(v / (1 + v)) + shift)
            z = (x / (1 + v))[:, None] + np.exp(0.5 * logvar)[:, None] * EPS
            by_x, by_ratio, ones = np.empty_like(z), np.empty_like(z), np.ones((2, 4))
            kernels.gaussian_nll_backward(by_x, np.empty(1), ones, z, x, np.array([math.log(v)]))
            kernels.path_ratio_backward(by_ratio, ones, z, logvar, EPS)
            assert (np.abs(by_x + by_ratio).max() < 1e-13) == still


# --- the bound of two draws, one latent dimension, and a likelihood that is no Gaussian in z ---

PLACE, WIDTH = 1.0, -0.7      # mu, logvar


def nll_of(z):
    return 1.5 * (z - 1.6) ** 2 + 0.3 * np.sin(z)


def slope_of(z):
    return 3 * (z - 1.6) + 0.3 * np.cos(z)


def pairs():
    """eps (N, 2, 1) and the weight of each row in a mean."""
    eps, weight = line(141)
    return np.stack(np.meshgrid(eps, eps), axis=-1).reshape(-1, 2, 1), np.outer(weight, weight).ravel()


def terms(eps, mu, logvar):
    """z (N, 2, 1), log_ratio (N, 2)."""
    z = mu + np.exp(0.5 * logvar) * eps
    return z, (0.5 * (z * z - eps * eps - logvar))[:, :, 0]


def exact(beta):
    """The derivatives of the mean bound, by mu and logvar."""
    eps, weight = pairs()
    slopes = []
    for mu, logvar in ((PLACE + 1j * H, WIDTH), (PLACE, WIDTH + 1j * H)):
        z, ratio = terms(eps, mu, logvar)
        slopes.append(weight @ np.log(np.exp(-nll_of(z[:, :, 0]) - beta * ratio).mean(axis=1)).imag / H)
    return slopes


def estimated(kernels, beta, scaled):
    """The mean of STL, or scaled of DReG, as the kernels have them, by mu and logvar; and w~ (N, 2), path (N, 2)."""
    eps, weight = pairs()
    z, ratio = terms(eps, PLACE, WIDTH)
    logvar, by_ratio = np.full((len(z), 1), WIDTH), np.empty_like(z)
    _, dnll, dratio = IWAE(beta)(nll_of(z[:, :, 0]), ratio, 0)
    kernels.path_ratio_backward(by_ratio, dratio, z, logvar, eps)
    dz = dnll[:, :, None] * slope_of(z) + by_ratio
    if scaled:
        kernels.scale_draws(dz, dz.copy(), dnll, dratio)
    return [-len(z) * (weight @ each[:, 0]) for each in through_z(kernels, dz, logvar, eps)]


@equation("D15.7")
def test_what_leaving_out_the_score_costs_with_two_draws():
    eps, weight = pairs()
    z, ratio = terms(eps, PLACE, WIDTH)
    sigma = math.exp(0.5 * WIDTH)
    for beta in (1.0, 0.6):
        log_w = -nll_of(z[:, :, 0]) - beta * ratio
        share = np.exp(log_w) / np.exp(log_w).sum(axis=1, keepdims=True)
        path = -slope_of(z[:, :, 0]) - beta * (z - eps / sigma)[:, :, 0]
        lost = [beta * (weight @ (share * (1 - share) * path * by).sum(axis=1)) for by in (1, eps[:, :, 0] * sigma / 2)]
        for kernels in KERNELS:
            close(np.subtract(estimated(kernels, beta, False), exact(beta)), lost, 1e-12)
            assert np.abs(lost).min() > 0.01


@equation("D15.8")
def test_dreg_is_right_on_average():
    for beta in (1.0, 0.6, 1.4):
        for kernels in KERNELS:
            close(estimated(kernels, beta, True), exact(beta), 1e-12)


@equation("D15.9")
def test_weights_and_beta_are_read_off_what_comes_from_above():
    weights, dz = np.array([[0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]), rng.standard_normal((2, 3, 2))
    for kernels in KERNELS:
        for c, beta in ((0.01, 0.4), (-3.0, 1.0), (1.0, 1.7)):
            out = np.empty_like(dz)
            kernels.scale_draws(out, dz, c * weights, c * beta * weights)
            for b, k in np.ndindex(2, 3):
                close(out[b, k], dz[b, k] * (1 - beta * (1 - weights[b, k])))
