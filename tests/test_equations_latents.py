"""Chapters 5 and 6, equation by equation: reparameterization and the KL term, in both kernel modules."""
import numpy as np
import pytest

from npvae.kernels import fused, reference

equation = pytest.mark.equation
KERNELS = (reference, fused)
MU, LOGVAR = np.array([[0.5, -1.2, 0.0], [1.5, 0.1, -0.7]]), np.array([[-1.5, 0.8, 0.3], [0.0, -0.2, 1.1]])     # B 2, Z 3

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D6.1": (reference.gaussian_kl_forward, "mu * mu + (np.expm1", "mu * mu - (np.expm1"),
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
