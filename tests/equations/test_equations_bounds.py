"""Chapters 10 and 11, equation by equation: the importance-weighted bound, and the cures of posterior collapse."""
import contextlib
import math
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, CyclicalAnnealing, FreeBits, LinearAnnealing
from npvae.evaluate import count_active, elbo, kl_per_dimension, log_likelihood
from npvae.kernels import fused, reference
from npvae.objectives import KLEstimator

equation = pytest.mark.equation
KERNELS = (reference, fused)
NLL, RATIO, KL = (np.random.default_rng(seed).uniform(low, high, shape) for seed, low, high, shape in
                  ((1, 88, 95, (3, 4)), (2, -2, 6, (3, 4)), (3, 0, 1, (3, 5))))      # B 3, K 4, Z 5

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D10.1": (reference.importance_bound_forward, "- math.log(log_w.shape[1])", ""),
    "D10.2": (reference.importance_bound_forward, "np.argmax(log_w.real", "np.argmin(log_w.real"),
    "D10.3": (reference.importance_bound_forward, "shifted / total[:, None]", "shifted / log_w.shape[1]"),
    "D10.4": (reference.importance_bound_backward, "dbound[:, None] * weights", "-dbound[:, None] * weights"),
    "D10.5": (IWAE.__call__, "-(nll + beta * reg)", "-(nll - beta * reg)"),
    "D10.6": (reference.importance_bound_forward, "np.where(infinite, m, m + np.log(total)) - math.log(log_w.shape[1])",
              "np.mean(log_w, axis=1)"),
    "D10.7": (log_likelihood, "bound + np.log(own.shape[1])", "bound"),
    "D11.1": (ELBO.__call__, "self.beta(step) /", "1 /"),
    "D11.2": (LinearAnnealing.__call__, "min(1.0, step / self.steps)", "step / self.steps"),
    "D11.3": (CyclicalAnnealing.__call__, "position / self.ratio", "position * self.ratio"),
    "D11.4": (FreeBits.__call__, "np.where(paid, mean, self.bits)", "np.where(paid, mean, 0)"),
    "D11.5": (FreeBits.__call__, "np.where(paid, beta / batch, 0)", "np.full(paid.shape, beta / batch)"),
    "D11.6": (count_active, "mu.var(axis=0", "mu.std(axis=0"),
    "D11.7": (elbo, "-nll - kl", "-nll + kl"),
    "D11.8": (kl_per_dimension, "kl.mean(axis=0", "kl.sum(axis=0")}


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def importance_bound(kernels, log_w):
    bound, weights = np.empty(len(log_w), log_w.dtype), np.empty_like(log_w)
    kernels.importance_bound_forward(bound, weights, log_w)
    return bound, weights


def log_mean_exp(log_w):
    """log 1/K sum exp(log_w) of each row, as it is defined, with 28 digits and exponents that hold it."""
    return [float((sum(Decimal(value).exp() for value in row) / len(row)).ln()) for row in log_w.tolist()]


def along(function, value, index):
    """The derivative of function(value) with respect to one entry, by the complex step."""
    moved = value.astype(complex)
    moved[index] += 1e-30j
    return np.imag(function(moved)) / 1e-30


# --- chapter 10 ---

@equation("D10.1")
def test_the_bound_is_the_logarithm_of_the_mean_weight():
    log_w = np.random.default_rng(5).normal(0, 2, (3, 4))
    for kernels in KERNELS:
        bound, _ = importance_bound(kernels, log_w)
        for b in range(3):
            close(bound[b], math.log(math.fsum(math.exp(value) for value in log_w[b]) / 4))


FAR = np.array([[-5000.25, -5001.5, -7000.0, -9000.0], [3000.0, 2999.0, 400.0, -9000.0], [-800.0, -801.0, 40.0, 39.5]])


@equation("D10.2")
def test_no_weight_is_too_large_or_too_small():
    for kernels in KERNELS:
        close(importance_bound(kernels, FAR)[0], log_mean_exp(FAR))


@equation("D10.3")
def test_weights_are_shares_of_the_whole():
    for log_w in (FAR, np.random.default_rng(6).normal(-90, 2, (3, 4))):
        exact = [[Decimal(value).exp() for value in row] for row in log_w.tolist()]
        for kernels in KERNELS:
            _, weights = importance_bound(kernels, log_w)
            close(weights, [[float(value / sum(row)) for value in row] for row in exact])
            close(weights.sum(axis=1), 1)


@equation("D10.4")
def test_bound_by_log_w():
    rng = np.random.default_rng(7)
    log_w, dbound = rng.normal(-90, 2, (3, 4)), np.array([1.5, -0.4, 0.7])
    for kernels in KERNELS:
        dlog_w = np.empty_like(log_w)
        kernels.importance_bound_backward(dlog_w, dbound, importance_bound(kernels, log_w)[1])
        for index in np.ndindex(3, 4):
            slope = along(lambda moved: importance_bound(reference, moved)[0], log_w, index)
            close(dlog_w[index], dbound @ slope)


def iwae_loss(nll, ratio, beta):
    """Minus the mean over images of log 1/K sum_k w, by loops, with w = p(x|z) [p(z) / q(z|x)]^beta; nll near 90."""
    total = 0
    for b in range(len(nll)):
        mean = sum(np.exp(90 - nll[b, k]) * np.exp(-ratio[b, k]) ** beta for k in range(nll.shape[1])) / nll.shape[1]
        total += np.log(mean) - 90
    return -total / len(nll)


@equation("D10.5")
def test_iwae_and_its_gradients():
    for beta in (1, 0.7):
        loss, dnll, dratio = IWAE(beta)(NLL, RATIO, 0)
        close(loss, iwae_loss(NLL, RATIO, beta))
        for index in np.ndindex(NLL.shape):
            close(dnll[index], along(lambda nll: iwae_loss(nll, RATIO, beta), NLL, index))
            close(dratio[index], along(lambda ratio: iwae_loss(NLL, ratio, beta), RATIO, index))


@equation("D10.5")
def test_with_one_draw_it_is_the_elbo():
    for one, other in zip(IWAE(0.7)(NLL[:, :1], RATIO[:, :1], 0), ELBO(0.7, sampled=True)(NLL[:, :1], RATIO[:, :1], 0)):
        close(one, other)


def log_weights(kernels, eps):
    """log_w of each eps (N,): z ~ N(0, 1), x = z + 1/2 noise, x = 2, q = N(1, exp(-0.7))."""
    x, mu, logvar = (np.full((1, 1), value) for value in (2.0, 1.0, -0.7))
    eps = eps.reshape(1, -1, 1)
    z, nll, ratio = np.empty_like(eps), np.empty(eps.shape[:2]), np.empty(eps.shape[:2])
    kernels.reparameterize_forward(z, mu, logvar, eps)
    kernels.gaussian_nll_forward(nll, z, x, np.array([math.log(0.25)]))
    kernels.log_ratio_forward(ratio, z, logvar, eps)
    return -(nll + ratio)[0]


@equation("D10.6")
def test_the_bounds_grow_from_the_elbo_towards_log_p():
    """By quadrature over one, two and three draws.  The mean weight has the mean p(x), for any number of draws."""
    eps = np.linspace(-7, 7, 43)
    chance = np.exp(-0.5 * eps ** 2) / np.exp(-0.5 * eps ** 2).sum()
    log_p = -0.5 * (2 ** 2 / 1.25 + math.log(2 * math.pi * 1.25))
    gap = 0.5 * (0.6 ** 2 / 0.2 + math.exp(-0.7) / 0.2 - 1 - math.log(math.exp(-0.7) / 0.2))      # KL(q || N(1.6, 0.2))
    for kernels in KERNELS:
        each, means = log_weights(kernels, eps), []
        for draws in (1, 2, 3):
            log_w = np.stack(np.meshgrid(*draws * [each]), axis=-1).reshape(-1, draws)
            probability = np.stack(np.meshgrid(*draws * [chance]), axis=-1).reshape(-1, draws).prod(axis=1)
            bound, _ = importance_bound(kernels, log_w)
            means.append(probability @ bound)
            close(np.log(probability @ np.exp(bound)), log_p, 1e-9)
        close(means[0], log_p - gap, 1e-9)
        assert means[0] < means[1] - 0.1 and means[1] < means[2] - 0.1 and means[2] < log_p - 0.1


@equation("D10.6")
def test_leaving_one_draw_out_costs_on_average():
    """For any weights, which gives L_K <= L_{K+1}: the mean of the bounds of all draws but one, and that of all."""
    for log_w in (np.random.default_rng(8).normal(-90, 2, (50, 4)), FAR):
        for kernels in KERNELS:
            less = [importance_bound(kernels, np.delete(log_w, k, axis=1))[0] for k in range(4)]
            assert (importance_bound(kernels, log_w)[0] > np.mean(less, axis=0) + 1e-3).all()


class Draws:
    """What `log_likelihood` asks of a model, with terms that no network made; keeps them, (images, draws) a pass."""

    def __init__(self, kernels):
        self.kernels, self.engine, self.rng, self.passed = kernels, self, np.random.default_rng(9), []
        self.output = SimpleNamespace(b="output.b", shapes={"output.b": (1,)})
        self.dtype = "float64"

    def images(self, x, name):
        return x

    def check_labels(self, labels, rows):
        return np.zeros(rows)

    def passes(self, batch, draws):
        return SimpleNamespace(x=np.empty((batch, 1)), labels=np.empty(batch), uniform=np.empty(2, np.float32),
                               noise=np.empty(2), nll=np.empty((batch, draws)),
                               log_ratio=np.empty((batch, draws))), None

    def running(self):
        return contextlib.nullcontext()

    def forward(self, a, sampled):
        assert sampled is KLEstimator.SAMPLED
        a.nll[...] = self.rng.normal(900, 3, a.nll.shape)
        a.log_ratio[...] = self.rng.normal(20, 3, a.nll.shape)
        self.passed.append(-a.nll - a.log_ratio)


@equation("D10.7")
def test_blocks_of_draws_give_what_all_draws_at_once_do():
    for kernels in KERNELS:
        model = Draws(kernels)
        estimate = log_likelihood(model, np.zeros((3, 1)), np.random.default_rng(0), 700).values
        assert [log_w.shape for log_w in model.passed] == [(3, 333), (3, 333), (3, 34)]
        close(estimate, log_mean_exp(np.concatenate(model.passed, axis=1)))


# --- chapter 11 ---

@equation("D11.1")
def test_beta_weighs_the_kl():
    loss, dnll, dkl = ELBO(0.3)(NLL, KL, 0)

    def defined(nll, kl):
        return sum(sum(nll[b]) / 4 + 0.3 * sum(kl[b]) for b in range(3)) / 3
    close(loss, defined(NLL, KL))
    for index in np.ndindex(KL.shape):
        close(np.broadcast_to(dkl, KL.shape)[index], along(lambda kl: defined(NLL, kl), KL, index))


@equation("D11.2")
def test_linear_annealing_is_a_ramp():
    steps = np.arange(25)
    close([LinearAnnealing(10, beta=0.8)(step) for step in steps], np.interp(steps, [0, 10], [0, 0.8]))


@equation("D11.3")
def test_cyclical_annealing_is_ramps_and_plateaus():
    """Cycles of 10 steps, 4 of them rising; and where a cycle is no whole number of steps, in exact fractions."""
    ramp = np.interp(np.arange(10), [0, 4], [0, 0.8])
    schedule = CyclicalAnnealing(30, cycles=3, ratio=0.4, beta=0.8)
    close([schedule(step) for step in range(35)], np.concatenate([ramp, ramp, ramp, np.full(5, 0.8)]))
    schedule = CyclicalAnnealing(25, cycles=4, ratio=0.5)
    close([schedule(step) for step in range(25)],
          [float(min(Fraction(1), 2 * (Fraction(4 * step, 25) % 1))) for step in range(25)])


BITS = 0.5


def free_bits_loss(nll, kl):
    """By loops, beta = 0.7."""
    means = [sum(kl[:, j]) / 3 for j in range(5)]
    return sum(sum(row) for row in nll) / 12 + 0.7 * sum(mean if mean.real > BITS else BITS for mean in means)


@equation("D11.4")
def test_free_bits_are_not_counted():
    assert 0 < np.sum(KL.mean(axis=0) > BITS) < 5      # some pay, some do not
    close(FreeBits(BITS, 0.7)(NLL, KL, 0)[0], free_bits_loss(NLL, KL))


@equation("D11.5")
def test_free_bits_by_kl():
    _, dnll, dkl = FreeBits(BITS, 0.7)(NLL, KL, 0)
    for index in np.ndindex(KL.shape):
        close(np.broadcast_to(dkl, KL.shape)[index], along(lambda kl: free_bits_loss(NLL, kl), KL, index))
    for index in np.ndindex(NLL.shape):
        close(dnll, along(lambda nll: free_bits_loss(nll, KL), NLL, index))


@equation("D11.6")
def test_a_unit_is_active_where_its_mean_moves():
    """+-r around any centre has the variance r^2."""
    for radius, active in ((0.0, 0), (0.099, 0), (0.101, 1), (3.0, 1)):
        for centre in (0.0, -50.0):
            assert count_active(np.array([[centre - radius, 7.0], [centre + radius, 7.0]])) == active


def small_vae(kernels):
    """A model with random parameters, biases included, and its images (B, D)."""
    vae, rng = VAE(5, (4,), 3, "tanh", "gaussian:0.6", "float64", kernels), np.random.default_rng(10)
    vae.parameters.flat[...] += 0.3 * rng.standard_normal(vae.parameters.flat.size)
    return vae, rng.standard_normal((7, 5))


def kl_integrals(mu, logvar):
    """The integral of q log(q / p) for each image and dimension, (B, Z)."""
    eps = np.linspace(-10, 10, 1001)
    weight = np.exp(-0.5 * eps ** 2) / np.exp(-0.5 * eps ** 2).sum()
    z = mu[..., None] + np.exp(0.5 * logvar)[..., None] * eps
    return (weight * 0.5 * (z * z - eps * eps - logvar[..., None])).sum(axis=-1)


@equation("D11.7")
def test_the_elbo_is_minus_distortion_minus_rate():
    for name in ("numpy", "numba"):
        vae, x = small_vae(name)
        found = elbo(vae, x, np.random.default_rng(11))
        eps = vae.passes(len(x), 1)[0].eps[:, 0].copy()      # the noise is still in the buffer
        mu, logvar = vae.encode(x)
        residual = x - vae.decode(mu + np.exp(0.5 * logvar) * eps)
        constant = math.log(0.6 * math.sqrt(2 * math.pi))
        nll = np.array([sum(0.5 * (r / 0.6) ** 2 + constant for r in row) for row in residual])
        close(-found, nll + kl_integrals(mu, logvar).sum(axis=1))


@equation("D11.8")
def test_the_rate_of_a_dimension_is_its_mean_kl():
    for name in ("numpy", "numba"):
        vae, x = small_vae(name)
        close(kl_per_dimension(vae, x), kl_integrals(*vae.encode(x)).mean(axis=0))
