"""Chapter 17, equation by equation: bits back.  The stack is one whole number, so that no package is needed."""
import math

import numpy as np
import pytest

from coded_models import images, model
from npvae.compression import cells, chain, coder, latents, network

equation = pytest.mark.equation

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D17.1": (coder._chance, "(top - middle) /", "(middle - floor) /"),
    "D17.2": (chain.Chain.push_batch, "q.mean.shape, q) if", "q.mean.shape, Gaussian(q.mean, 2 * q.rate)) if"),
    "D17.3": (latents.Bins.below, "self.z(k - 0.5)", "self.z(k)"),
    "D17.4": (chain.choose_bins, "np.frexp(rate)[1]) + 1", "np.frexp(rate)[1]) - 1"),
    "D17.5": (latents.Bins.need, "self.fraction - exact.log", "self.fraction + exact.log"),
    "D17.6": (latents.CodedMixture.push, "given = self.given(k)", "given = self.given(k) ** 2"),
    "D17.7": (network._power, "_EXACT - FRACTION", "_EXACT"),
    "D17.8": (cells.ratio, "(_STEPS - k - 1) + beta", "(_STEPS - k) + beta")}


class Number(coder.Symbols):
    """A stack that is one whole number, on which a bit has so many of 2^24 chances."""

    def __init__(self, seed=0, length=4000):
        self.n = int.from_bytes(np.random.default_rng(seed).bytes(length), "little")

    @property
    def bits(self):
        return math.log2(self.n)

    def push_bits(self, bits, chances):
        for bit, chance in zip(bits[::-1], chances[::-1]):
            ones = round(chance * 2 ** 24)
            f, c = (ones, 2 ** 24 - ones) if bit else (2 ** 24 - ones, 0)
            self.n = (self.n // f << 24) + c + self.n % f

    def pop_bits(self, chances):
        found = []
        for chance in chances:
            ones, rest = round(chance * 2 ** 24), self.n & 2 ** 24 - 1
            found.append(rest >= 2 ** 24 - ones)
            f, c = (ones, 2 ** 24 - ones) if found[-1] else (2 ** 24 - ones, 0)
            self.n = f * (self.n >> 24) + rest - c
        return np.array(found)


def log_normal(z, q):
    return -0.5 * ((z - q.mean) * q.rate) ** 2 + np.log(q.rate / math.sqrt(2 * math.pi))


@equation("D17.1")
def test_the_bits_of_a_symbol_multiply_to_its_probability():
    weights = np.array([3.0, 1, 1, 2, 9, 4, 6])
    for symbol in range(7):
        stack = Number()
        before = stack.bits
        stack.push(np.array([symbol]), *coder.table(weights))
        assert abs(stack.bits - before - math.log2(26 / weights[symbol])) < 1e-4


@equation("D17.2")
def test_an_image_costs_its_two_codes_and_gets_back_a_third():
    """And what is popped is what was pushed, stack included."""
    vae = model(dtype="float64")
    x = images(vae, 30).astype(np.int64)
    code = chain.Chain(vae, latents.Bins(12, 7))
    q, stack, copy = code.posterior(x), Number(), Number()
    z = code.bins.z(code.bins.pop(copy, q.mean.shape, q))
    before, n = stack.bits, stack.n
    code.push_batch(stack, x, q)
    a, _ = vae.passes(len(x), 1)
    a.z_rows[...] = z
    vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
    vae.output.forward(vae.kernels, a, a.last, vae.parameters)
    nll = np.logaddexp(0, np.where(x == 1, -1, 1) * a.rows).sum()
    log_p = log_normal(z, latents.STANDARD).sum()
    assert abs((stack.bits - before) * math.log(2) - (nll - log_p + log_normal(z, q).sum())) < 1
    assert (code.pop_batch(stack, len(x)) == x).all() and stack.n == n


@equation("D17.3")
def test_a_bin_has_the_probability_of_its_interval():
    bins, q = latents.Bins(8, 4), latents.Gaussian(np.array(0.3), np.array(1.6))
    k = np.arange(1, 256)
    P = np.diff(bins.below(q)(k))
    z = bins.z(k[:-1])
    right = [0.5 * (math.erf((b - 0.3) * 1.6 / 2 ** 0.5) - math.erf((a - 0.3) * 1.6 / 2 ** 0.5))
             for a, b in zip(z - 1 / 32, z + 1 / 32)]
    assert np.abs(P - right).max() < 4e-4
    assert abs(P @ z - 0.3) < 1e-3


@equation("D17.4")
def test_bins_cost_little_where_q_is_right_and_are_half_a_sigma_at_most():
    """p(z) = N(0, 1), p(x|z) = N(x; z, 1/3): the exact posterior of x = 1 is N(3/4, 1/4)."""
    def nats(fraction, sigma):
        bins = latents.Bins(fraction + 4, fraction)
        k = np.arange(2 ** bins.depth + 1)
        Q, P = (np.diff(bins.below(latents.Gaussian(np.array(m), np.array(1 / s)))(k))
                for m, s in ((0.75, sigma), (0.0, 1.0)))
        seen = (Q > 0) & (P > 0)
        return np.sum(Q[seen] * (np.log(Q[seen] / P[seen]) + 1.5 * (1 - bins.z(k[:-1][seen])) ** 2))

    for sigma in (0.5, 0.25):
        for fraction in (2, 3):
            cost = nats(fraction, sigma) - nats(7, sigma)
            second = 4.0 ** -fraction / 24 * (4 - 1 / sigma ** 2 - (0.75 ** 2 + sigma ** 2 - 1))
            assert abs(cost - second) < 0.2 * abs(second) + 1e-5
    vae = model(spread=0)
    for sigma in (0.01, 0.07, 0.12):
        vae.parameters["logvar.W"][...], vae.parameters["logvar.b"][...] = 0, 2 * np.log(sigma)
        assert sigma / 4 <= 2.0 ** -chain.Chain(vae, levels=np.zeros((3, 12), np.int64)).bins.fraction <= sigma / 2


@equation("D17.5")
def test_what_popping_a_gaussian_takes():
    bins, q = latents.Bins(10, 5), latents.Gaussian(np.array([0.3, -1.0, 0.02]), np.array([0.5, 5.0, 9.0]))
    Q = np.diff([bins.below(q)(np.full(3, k)) for k in range(1025)], axis=0)
    entropy = -np.sum(Q * np.log2(np.where(Q > 0, Q, 1)), axis=0)
    np.testing.assert_allclose(entropy, np.log2(32 / q.rate) + 0.5 * math.log2(2 * math.pi * math.e), atol=0.01)
    np.testing.assert_allclose(bins.need(q), entropy + 0.953, atol=0.01)


@equation("D17.6")
def test_a_mixture_costs_its_density_whichever_component_is_popped():
    rng = np.random.default_rng(0)
    bins, pi = latents.Bins(10, 6), np.array([0.5, 0.2, 0.3])
    q = latents.Gaussian(rng.standard_normal((3, 2)), np.exp(0.3 * rng.standard_normal((3, 2))))
    prior, k = latents.CodedMixture(bins, q, pi), rng.integers(512 - 90, 512 + 90, (12, 2))
    log_p = np.log(np.exp(log_normal(bins.z(k)[:, None], q).sum(axis=2)) @ pi)
    for one, right in zip(k, 2 * bins.fraction - log_p / math.log(2)):
        for seed in range(4):
            stack = Number(seed, 100)
            before, n = stack.bits, stack.n
            prior.push(stack, one[None], back=True)
            assert abs(stack.bits - before - right) < 0.1
            assert (prior.pop(stack, 1, back=True) == one).all() and stack.n == n


@equation("D17.7")
def test_the_largest_sum_of_a_layer_stays_below_2_to_the_53():
    rng = np.random.default_rng(0)
    for n_in, size in ((1, 1.0), (7, 1e-4), (784, 1.0), (3000, 1e7)):
        W = size * rng.standard_normal((n_in, 5))
        power = network._power(W)
        largest = max(abs(int(w)) for w in np.rint(W * 2.0 ** power).ravel())
        assert 2 ** 51 < n_in * 2 ** 24 * largest <= 2 ** 53


@equation("D17.8")
def test_the_ratio_of_neighbouring_levels():
    for a, b in ((3.0, 0.5), (0.2, 0.1), (900.0, 7.0), (1e5, 1e-5)):
        log_p = [math.log(math.comb(255, k)) + math.lgamma(k + a) + math.lgamma(255 - k + b) for k in range(256)]
        for k in range(255):
            assert abs(math.log(cells.ratio(k, a, b)) - (log_p[k] - log_p[k + 1])) < 1e-8
