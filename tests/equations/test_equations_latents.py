"""Chapters 5 and 6, appendices F and G, equation by equation: the KL term and reparameterization, in both kernel
modules."""
import math
from statistics import NormalDist

import numpy as np
import pytest

from npvae.kernels import fused, reference

equation = pytest.mark.equation
KERNELS = (reference, fused)
MU = np.array([[0.5, -1.2, 0.0], [1.5, 0.1, -0.7]])          # B = 2, Z = 3
LOGVAR = np.array([[-1.5, 0.8, 0.3], [0.0, -0.2, 1.1]])

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D5.1": (reference.reparameterize_forward, "mu[:, None, :] + np", "mu[:, None, :] - np"),
    "D5.2": (reference.reparameterize_backward, "np.sum(dz, axis=1, out=dmu)", "np.sum(-dz, axis=1, out=dmu)"),
    "D5.3": (reference.reparameterize_backward, "axis=1) * 0.5", "axis=1) * -0.5"),
    "D5.4": (reference.reparameterize_forward, "np.exp(0.5 * logvar)", "np.exp(logvar)"),
    "D5.5": (reference.reparameterize_backward, "np.sum(dz, axis=1, out=dmu)", "np.mean(dz, axis=1, out=dmu)"),
    "D5.6": (reference.reparameterize_backward, "np.sum(dz * eps, axis=1)", "np.sum(dz, axis=1)"),
    "D5.7": (reference.box_muller, "np.sqrt(-2 * np", "np.sqrt(-1 * np"),
    "D6.1": (reference.gaussian_kl_forward, "mu * mu + excess", "mu * mu - excess"),
    "D6.2": (reference.gaussian_kl_backward, "dmu[...] = dkl * mu", "dmu[...] = -dkl * mu"),
    "D6.3": (reference.gaussian_kl_backward, "0.5 * np.expm1(logvar)", "-0.5 * np.expm1(logvar)"),
    "D6.4": (reference.log_ratio_forward, "- logvar[:, None, :]", "+ logvar[:, None, :]"),
    "D6.5": (reference.log_ratio_forward, "- eps * eps", "+ eps * eps"),
    "D6.6": (reference.log_ratio_backward, "dlog_ratio[:, :, None] * z", "-dlog_ratio[:, :, None] * z"),
    "D6.7": (reference.log_ratio_backward, "-0.5 * np.sum", "0.5 * np.sum")}


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def log_normal(z, mu, logvar):
    """log N(z; mu, exp(logvar))."""
    return -0.5 * (logvar + (z - mu) ** 2 / np.exp(logvar) + np.log(2 * np.pi))


def grid():
    """1,001 points of noise for each dimension alone, and the weight of each in an integral over z."""
    eps = np.linspace(-10, 10, 1001)
    return eps, np.exp(-0.5 * eps ** 2) / np.exp(-0.5 * eps ** 2).sum()


@equation("D5.1")
def test_z_stands_where_eps_stands():
    """At the same quantile of N(mu, sigma^2) as eps of N(0, 1): of all functions that keep the order, only this one."""
    for kernels in KERNELS:
        eps, z, _ = draws(kernels)
        for b, k, j in np.ndindex(eps.shape):
            target = NormalDist(MU[b, j], math.sqrt(math.exp(LOGVAR[b, j])))
            close(target.cdf(z[b, k, j]), NormalDist().cdf(eps[b, k, j]))


def moved(eps, mu, logvar):
    """The derivative of z (B, K, Z), when the imaginary parts of mu and logvar say how these move."""
    z = np.empty(eps.shape, complex)
    reference.reparameterize_forward(z, mu, logvar, eps)
    return z.imag / 1e-30


def through_z(kernels, dz, eps):
    """What `reparameterize_backward` makes of dz: dmu, dlogvar (B, Z)."""
    dmu, dlogvar = np.empty_like(MU), np.empty_like(MU)
    kernels.reparameterize_backward(dmu, dlogvar, dz, LOGVAR, eps)
    return dmu, dlogvar


@equation("D5.2")
def test_z_by_mu():
    for kernels in KERNELS:
        eps, z, _ = draws(kernels)
        for b, j in np.ndindex(MU.shape):
            one = np.zeros_like(MU)
            one[b, j] = 1e-30
            close(through_z(kernels, np.sin(z), eps)[0][b, j], np.sum(np.sin(z) * moved(eps, MU + 1j * one, LOGVAR)))


@equation("D5.3")
def test_z_by_logvar():
    for kernels in KERNELS:
        eps, z, _ = draws(kernels)
        for b, j in np.ndindex(MU.shape):
            one = np.zeros_like(MU)
            one[b, j] = 1e-30
            close(through_z(kernels, np.sin(z), eps)[1][b, j], np.sum(np.sin(z) * moved(eps, MU, LOGVAR + 1j * one)))


def noise_and_z(kernels):
    """The noise of `grid`, the same for each image and dimension; its weight (K, 1); and z."""
    eps, weight = grid()
    eps = np.tile(eps[None, :, None], (2, 1, 3))
    z = np.empty_like(eps)
    kernels.reparameterize_forward(z, MU, LOGVAR, eps)
    return eps, weight[:, None], z


def wave(t, mu, logvar, part):
    """E[cos(t z)] (part "real") or E[sin(t z)] ("imag") for z ~ N(mu, exp(logvar)); analytic in mu and logvar."""
    return np.exp(-0.5 * t ** 2 * np.exp(logvar)) * (np.cos if part == "real" else np.sin)(t * mu)


@equation("D5.4")
def test_z_has_the_distribution_of_q():
    """By its characteristic function E[exp(i t z)], which only that distribution has."""
    for kernels in KERNELS:
        _, weight, z = noise_and_z(kernels)
        for t in (0.3, 1.0, 2.5):
            close(np.sum(weight * np.cos(t * z), axis=1), wave(t, MU, LOGVAR, "real"))
            close(np.sum(weight * np.sin(t * z), axis=1), wave(t, MU, LOGVAR, "imag"))


@equation("D5.5")
def test_on_average_dmu_is_the_derivative_of_the_mean():
    """f(z) = sin(t z), whose mean is known."""
    for kernels in KERNELS:
        eps, weight, z = noise_and_z(kernels)
        for t in (0.4, 1.3):
            dmu, _ = through_z(kernels, weight * t * np.cos(t * z), eps)
            close(dmu, wave(t, MU + 1e-30j, LOGVAR, "imag").imag / 1e-30)


@equation("D5.6")
def test_on_average_dlogvar_is_the_derivative_of_the_mean_and_the_mean_of_the_curvature():
    for kernels in KERNELS:
        eps, weight, z = noise_and_z(kernels)
        for t in (0.4, 1.3):
            _, dlogvar = through_z(kernels, weight * t * np.cos(t * z), eps)
            close(dlogvar, wave(t, MU, LOGVAR + 1e-30j, "imag").imag / 1e-30)
            close(dlogvar, 0.5 * np.exp(LOGVAR) * np.sum(weight * -t ** 2 * np.sin(t * z), axis=1))


@equation("D5.7")
def test_uniform_numbers_become_normal_ones():
    """The way back exists, and an even spread over the square gives the shares of N(0, 1) to each interval.

    All in float32, whatever the type of eps, hence 1e-6."""
    line = (np.arange(128) + 0.5) / 128
    uniform = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1).astype(np.float32)
    for kernels in KERNELS:
        eps = np.empty(uniform.size)
        kernels.box_muller(eps, uniform)
        x, y = eps.reshape(-1, 2).T
        close(1 - np.exp(-0.5 * (x ** 2 + y ** 2)), uniform[::2], 1e-6)
        close(np.arctan2(y, x) / (2 * np.pi) % 1, uniform[1::2], 1e-6)
        for edge in (-2, -1, -0.3, 0.5, 1.5):
            close([np.mean(x < edge), np.mean(y < edge)], NormalDist().cdf(edge), 3e-3)


def kl_of(kernels, mu, logvar):
    kl = np.empty(mu.shape, np.result_type(mu, logvar))
    kernels.gaussian_kl_forward(kl, mu, logvar)
    return kl


@equation("D6.1")
def test_kl_is_the_integral_of_its_definition():
    eps, weight = grid()
    for b, j in np.ndindex(MU.shape):
        z = MU[b, j] + np.exp(LOGVAR[b, j] / 2) * eps
        integral = np.sum(weight * (log_normal(z, MU[b, j], LOGVAR[b, j]) - log_normal(z, 0, 0)))
        for kernels in KERNELS:
            close(kl_of(kernels, MU, LOGVAR)[b, j], integral)


def kl_gradients(kernels):
    dkl = np.array([[2.0, -1.0, 0.5], [0.3, 1.7, -0.9]])
    dmu, dlogvar = np.empty_like(MU), np.empty_like(MU)
    kernels.gaussian_kl_backward(dmu, dlogvar, dkl, MU, LOGVAR)
    return dkl, dmu, dlogvar


@equation("D6.2")
def test_kl_by_mu():
    for kernels in KERNELS:
        dkl, dmu, _ = kl_gradients(kernels)
        close(dmu, dkl * kl_of(reference, MU + 1e-30j, LOGVAR).imag / 1e-30)


@equation("D6.3")
def test_kl_by_logvar():
    for kernels in KERNELS:
        dkl, _, dlogvar = kl_gradients(kernels)
        close(dlogvar, dkl * kl_of(reference, MU, LOGVAR + 1e-30j).imag / 1e-30)


def draws(kernels, size=5):
    """eps, z, log_ratio of some draws (B, K, Z)."""
    eps = np.random.default_rng(3).standard_normal((2, size, 3))
    z, log_ratio = np.empty_like(eps), np.empty(eps.shape[:2])
    kernels.reparameterize_forward(z, MU, LOGVAR, eps)
    kernels.log_ratio_forward(log_ratio, z, LOGVAR, eps)
    return eps, z, log_ratio


@equation("D6.4")
def test_log_ratio_is_log_q_minus_log_p():
    for kernels in KERNELS:
        _, z, log_ratio = draws(kernels)
        log_q = log_normal(z, MU[:, None], LOGVAR[:, None]).sum(axis=-1)
        close(log_ratio, log_q - log_normal(z, 0, 0).sum(axis=-1))


@equation("D6.5")
def test_log_ratio_is_kl_on_average():
    eps, weight = grid()
    noise = np.tile(eps[None, :, None], (2, 1, 1))
    for kernels in KERNELS:
        total = 0
        for j in range(3):      # one dimension at a time: log_ratio is a sum over them
            z, log_ratio = np.empty_like(noise), np.empty(noise.shape[:2])
            kernels.reparameterize_forward(z, MU[:, j:j + 1].copy(), LOGVAR[:, j:j + 1].copy(), noise)
            kernels.log_ratio_forward(log_ratio, z, LOGVAR[:, j:j + 1].copy(), noise)
            total = total + (weight * log_ratio).sum(axis=1)
        close(total, kl_of(kernels, MU, LOGVAR).sum(axis=1))


def ratio_gradients(kernels):
    eps, z, _ = draws(kernels)
    upstream = np.random.default_rng(4).standard_normal(z.shape[:2])
    dz, dlogvar = np.empty_like(z), np.empty_like(MU)
    kernels.log_ratio_backward(dz, dlogvar, upstream, z)
    return eps, z, upstream, dz, dlogvar


def ratio_along(eps, z, logvar):
    """The derivative of log_ratio (B, K), when the imaginary parts of z and logvar say how these move."""
    log_ratio = np.empty(z.shape[:2], complex)
    reference.log_ratio_forward(log_ratio, z, logvar, eps)
    return log_ratio.imag / 1e-30


@equation("D6.6")
def test_log_ratio_by_z():
    for kernels in KERNELS:
        eps, z, upstream, dz, _ = ratio_gradients(kernels)
        for j in range(3):
            close(dz[..., j], upstream * ratio_along(eps, z + 1e-30j * np.eye(3)[j], LOGVAR))


@equation("D6.7")
def test_log_ratio_by_logvar_with_z_held():
    for kernels in KERNELS:
        eps, z, upstream, _, dlogvar = ratio_gradients(kernels)
        for j in range(3):
            slope = ratio_along(eps, z, LOGVAR + 1e-30j * np.eye(3)[j])
            close(dlogvar[:, j], (upstream * slope).sum(axis=1))
