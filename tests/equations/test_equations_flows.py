"""Chapter 14, equation by equation: flows, masks and the MADE decoder, in both kernel modules."""
import math
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import VAE
from npvae.latents import flows
from npvae.kernels import fused, reference
from npvae.latents import Composed
from npvae.decoders import MADE
from npvae.layers import hidden_degrees, input_degrees, mask
from npvae.objectives import KLEstimator

equation = pytest.mark.equation
KERNELS = (reference, fused)
RNG = np.random.default_rng(14)
Z0, DZ, DLOG_DET = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 5))
U, W, BIAS = RNG.normal(0, 2, (2, 3)), RNG.standard_normal((2, 3)), RNG.standard_normal(2)
NET = RNG.standard_normal((2, 5, 6))

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D14.1": (Composed.forward, "kernels.subtract(a.log_q_z", "kernels.add(a.log_q_z"),
    "D14.2": (flows._StepwiseFlow.forward, "own.log_det_at)", "own.log_det_at[1:])"),
    "D14.3": (reference.planar_forward, "t * t + slope", "t + slope"),
    "D14.4": (reference.planar_direction_forward, "softplus(-a) - 1", "softplus(-a) + 1"),
    "D14.5": (reference.planar_backward, "+ 2 * t * (1 - s)", "- 2 * t * (1 - s)"),
    "D14.11": (reference.planar_backward, "np.sum(slope * ddet,", "np.sum(ddet,"),
    "D14.12": (reference.planar_direction_backward, "+ 2 * dn[:, None] * w", "+ dn[:, None] * w"),
    "D14.13": (flows.InverseAutoregressive.step_back, "kernels.add(own.dz_at[t], own.dz_gate,",
               "kernels.add(own.dz_at[t], 0 * own.dz_gate,"),
    "D14.6": (reference.gate_forward, "np.sum(-softplus", "np.sum(softplus"),
    "D14.7": (reference.gate_backward, "* dz + dlog_det", "* dz - dlog_det"),
    "D14.8": (mask, "inputs[:, None] < outputs if strict", "inputs[:, None] <= outputs if strict"),
    "D14.9": (MADE.forward, "self.last.weights(kernels, params)", "params[self.last.W]"),
    "D14.10": (MADE.generate, "pre[:, known:] +=", "pre[:, known:] -=")}


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- densities under maps ---

def model(posterior, latent_dim, dtype="float64", kernels="numpy"):
    vae = VAE(4, (5,), latent_dim, "tanh", dtype=dtype, kernels=kernels, posterior=posterior, seed=2)
    vae.parameters.flat[...] += 0.5 * np.random.default_rng(2).standard_normal(vae.parameters.flat.size)
    return vae


def passed(vae, eps):
    """The buffers of a pass with the noise eps (K, Z), all for one image."""
    a, _ = vae.passes(1, len(eps))
    a.x[...], a.eps[0] = [0.0, 1.0, 0.5, 0.0], eps
    vae.forward(a, KLEstimator.SAMPLED)
    return a


def log_volume(posterior, eps):
    """log |det dz/deps| (K,) at eps (K, Z), the Jacobian by the complex step."""
    vae = model(posterior, eps.shape[1], "complex128")
    return np.array([np.linalg.slogdet(passed(vae, one + 1e-30j * np.eye(len(one))).z[0].imag / 1e-30)[1]
                     for one in eps])


def each(latent_dim):
    """Every kind of flow with its noise (K, Z), its log |det dz/deps| (K,), and its pass in each kernel module."""
    eps = np.random.default_rng(5).standard_normal((4, latent_dim))
    for posterior in ("planar:3", "iaf:3:8"):
        for kernels in ("numpy", "numba"):
            yield eps, log_volume(posterior, eps), passed(model(posterior, latent_dim, kernels=kernels), eps)


@equation("D14.1")
def test_the_density_is_that_of_the_noise_less_the_log_volume():
    """log_ratio = log q(z|x) - log p(z): the way from eps to z as one map, with all of its steps."""
    for eps, volume, a in each(3):
        log_p, of_noise = (-0.5 * (one ** 2 + np.log(2 * np.pi)).sum(axis=1) for one in (a.z[0], eps))
        close(a.log_ratio[0] + log_p, of_noise - volume)


@equation("D14.2")
def test_the_log_dets_of_the_steps_add_up():
    """To all of the volume but what z0 = mu + sigma eps has of it."""
    for eps, volume, a in each(4):
        close(a.log_det[0], volume - 0.5 * a.logvar[0].sum())


# --- the planar step ---

def planar(kernels, z0=Z0, u=U, w=W, bias=BIAS):
    """z, log_det, pre, u_hat, stretch."""
    dtype = np.result_type(z0, u, w, bias)
    u_hat, stretch, pre, log_det = (np.empty(shape, dtype) for shape in (u.shape, len(u), z0.shape[:2], z0.shape[:2]))
    z = np.empty(z0.shape, dtype)
    kernels.planar_direction_forward(u_hat, stretch, u, w)
    kernels.planar_forward(z, log_det, pre, z0, u_hat, stretch, w, bias)
    return z, log_det, pre, u_hat, stretch


def log_det_by_columns(step):
    """log |det dz/dz0| (B, K) of step(z0) = z."""
    columns = [step(Z0 + 1e-30j * one).imag / 1e-30 for one in np.eye(3)]
    return np.linalg.slogdet(np.stack(columns, axis=-1))[1]


@equation("D14.3")
def test_the_determinant_of_a_planar_step():
    expected = log_det_by_columns(lambda z0: planar(reference, z0)[0])
    for kernels in KERNELS:
        close(planar(kernels)[1], expected)


@equation("D14.4")
def test_the_direction_is_changed_along_w_alone_and_never_turns_back():
    """For u however much against w; and w.u_hat is at the least -1, from where it rises with w.u."""
    line = np.linspace(-4, 4, 401)
    for kernels in KERNELS:
        for push in (-6.0, -2.0, 0.0, 2.0, 6.0):
            u = U + push * W
            _, _, _, u_hat, stretch = planar(kernels, u=u)
            for b in range(2):
                along = u_hat[b] @ W[b]
                close(along, math.log1p(math.exp(u[b] @ W[b])) - 1)
                close(stretch[b], 1 + along)
                close(np.cross(u_hat[b] - u[b], W[b]), 0)
            z0 = line[None, :, None] * W[:, None] + U[:, None]      # a line along w
            z = planar(kernels, z0=z0, u=u)[0]
            assert (np.diff((z * W[:, None]).sum(axis=-1), axis=1) > 0).all()


def slope(step, values, which):
    """The derivative of sum DZ z + sum DLOG_DET log_det by each entry of values[which]."""
    found = np.empty(values[which].shape)
    for place in np.ndindex(found.shape):
        moved = [value.astype(complex) for value in values]
        moved[which][place] += 1e-30j
        z, log_det = step(*moved)
        found[place] = (np.sum(DZ * z.imag) + np.sum(DLOG_DET * log_det.imag)) / 1e-30
    return found


def planar_gradients(kernels):
    """dz0, dbias, du, and dw by its two ways: into the direction, and into the plane."""
    _, _, pre, u_hat, stretch = planar(kernels)
    dz0, du_hat, dstretch, dw_plane, dbias, du, dw = map(np.empty_like, (Z0, U, BIAS, W, BIAS, U, W))
    kernels.planar_backward(dz0, du_hat, dstretch, dw_plane, dbias, DZ, DLOG_DET, pre, Z0, u_hat, stretch, W)
    kernels.planar_direction_backward(du, dw, du_hat, dstretch, U, W)
    return dz0, dbias, du, dw + dw_plane


def planar_slope(which):
    return slope(lambda *values: planar(reference, *values)[:2], (Z0, U, W, BIAS), which)


@equation("D14.5")
def test_back_through_a_planar_step():
    for kernels in KERNELS:
        close(planar_gradients(kernels)[0], planar_slope(0), 1e-11)


@equation("D14.11")
def test_back_to_the_parameters_of_a_planar_step():
    """The kernel of the step alone: u_hat, stretch and w moved one by one, as if they did not depend on each other."""
    def step(u_hat, stretch, w, bias):
        pre, log_det = np.empty((2, *Z0.shape[:2]), complex)
        z = np.empty(Z0.shape, complex)
        reference.planar_forward(z, log_det, pre, Z0 + 0j, u_hat, stretch, w, bias)
        return z, log_det
    for kernels in KERNELS:
        _, _, pre, u_hat, stretch = planar(kernels)
        dz0, *found = map(np.empty_like, (Z0, U, BIAS, W, BIAS))
        kernels.planar_backward(dz0, *found, DZ, DLOG_DET, pre, Z0, u_hat, stretch, W)
        for which, gradient in enumerate(found):
            close(gradient, slope(step, (u_hat, stretch, W, BIAS), which), 1e-11)


@equation("D14.12")
def test_back_through_the_direction_of_a_planar_step():
    """To u, w and the bias as the encoder gives them, of which w has two ways: into the direction and into the plane.
    """
    for kernels in KERNELS:
        _, dbias, du, dw = planar_gradients(kernels)
        for which, gradient in ((1, du), (2, dw), (3, dbias)):
            close(gradient, planar_slope(which), 1e-11)


# --- the inverse autoregressive step ---

def gate(kernels, z0=Z0, net=NET):
    """z, log_det."""
    dtype = np.result_type(z0, net)
    z, log_det = np.empty(z0.shape, dtype), np.empty(z0.shape[:2], dtype)
    kernels.gate_forward(z, log_det, z0, net)
    return z, log_det


def told(z0):
    """m, g (B, K, 6) of z0 (B, K, 3): m_j and g_j depend on what comes before j, and strongly."""
    before = np.cumsum(z0, axis=-1) - z0
    return np.concatenate([np.sin(2 * before), 3 * np.cos(before * before)], axis=-1)


@equation("D14.6")
def test_the_determinant_of_an_autoregressive_step():
    net = told(Z0)
    expected = log_det_by_columns(lambda z0: gate(reference, z0, told(z0))[0])
    for kernels in KERNELS:
        z, log_det = gate(kernels, net=net)
        close(log_det, expected)
        stays = 0.5 * (1 + np.tanh(0.5 * net[..., 3:]))
        close(z, net[..., :3] + stays * (Z0 - net[..., :3]))


@equation("D14.7")
def test_back_through_a_gate():
    expected = [slope(lambda *values: gate(reference, *values), (Z0, NET), which) for which in range(2)]
    for kernels in KERNELS:
        dz0, dnet = np.empty_like(Z0), np.empty_like(NET)
        kernels.gate_backward(dz0, dnet, DZ, DLOG_DET, Z0, NET)
        close(dz0, expected[0])
        close(dnet, expected[1])


@equation("D14.13")
def test_z0_is_read_by_the_gate_and_by_its_network():
    """Two steps; the bias of the layer mu moves z0 and nothing else."""
    eps = np.random.default_rng(6).standard_normal((1, 3))
    moving = model("iaf:2:8", 3, "complex128")
    expected = []
    for one in np.eye(3):
        moving.parameters["mu.b"][...] += 1e-30j * one
        a = passed(moving, eps)
        expected.append((np.sum(DZ[0, 0] * a.z.imag) + DLOG_DET[0, 0] * a.log_det.imag.item()) / 1e-30)
        moving.parameters["mu.b"][...] = moving.parameters["mu.b"].real
    for kernels in ("numpy", "numba"):
        vae = model("iaf:2:8", 3, kernels=kernels)
        a, (_, d) = passed(vae, eps), vae.passes(1, 1)
        d.z[...], d.log_det[...] = DZ[0, 0], DLOG_DET[0, 0]
        vae.flow.backward(vae.kernels, d, a, a.flow, vae.gradients, vae.parameters)
        close(d.z0[0, 0], expected)


# --- masks, and the decoder made of them ---

@equation("D14.8")
def test_an_output_sees_what_comes_before_it_and_nothing_else():
    """Through two hidden layers, in any order of the inputs: the derivatives, where there should be none, are 0."""
    rng = np.random.default_rng(8)
    for order in (input_degrees(5), input_degrees(5)[::-1], rng.permutation(5) + 1):
        degrees = hidden_degrees(9, 5)
        masks = mask(order, degrees), mask(degrees, degrees), mask(degrees, order, strict=True)
        for kernels in KERNELS:
            out = rng.standard_normal(5) + 1e-30j * np.eye(5)
            for one in masks:
                W, masked = rng.uniform(0.5, 1.5, one.shape), np.empty_like(one)
                kernels.mask_forward(masked, W, one)
                out = np.tanh(out @ masked)
            for i, d in np.ndindex(5, 5):
                assert (out.imag[i, d] != 0) == (order[i] < order[d])


def decoder(direct, kernels):
    """A model of 3 pixels, random in every parameter, masked ones too; and one z."""
    vae = VAE(3, (5,), 2, "tanh", dtype="float64", kernels=kernels, decoder="made:5" + "+direct" * direct, seed=1)
    vae.parameters.flat[...] += np.random.default_rng(3).standard_normal(vae.parameters.flat.size)
    return vae, np.array([0.5, -1.0])


def decoded(vae, z, x):
    """log p(x|z) (N,) and logits (N, 3) of images x (N, 3)."""
    a, _ = vae.passes(len(x), 1)
    a.x[...], a.z[...] = x, z
    vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
    vae.output.forward(vae.kernels, a, a.last, vae.parameters)
    logits = a.output[:, 0].copy()
    vae.likelihood.forward(vae.kernels, a.nll, a.kept, a.output, a.x, vae.parameters)
    return -a.nll[:, 0], logits


IMAGES = np.array(list(np.ndindex(2, 2, 2)), float)
MODELS = [(direct, kernels) for direct in (False, True) for kernels in ("numpy", "numba")]


@equation("D14.9")
def test_a_made_decoder_is_a_distribution_and_its_logits_are_the_conditionals():
    for case in MODELS:
        log_p, logits = decoded(*decoder(*case), IMAGES)
        p = np.exp(log_p)
        close(p.sum(), 1)
        for row, d in np.ndindex(8, 3):
            alike = (IMAGES[:, :d] == IMAGES[row, :d]).all(axis=1)      # the same pixels before d
            on = p[alike & (IMAGES[:, d] == 1)].sum() / p[alike].sum()
            close(logits[row, d], math.log(on / (1 - on)), 1e-11)


@equation("D14.10")
def test_what_is_drawn_pixel_by_pixel_agrees_with_the_pass_that_sees_all():
    """With noise at the quantiles of the logistic distribution, 24 in each dimension, in all combinations."""
    share = (np.arange(24) + 0.5) / 24
    noise = np.stack(np.meshgrid(*3 * [np.log(share / (1 - share))]), axis=-1).reshape(-1, 3)
    for case in MODELS:
        vae, z = decoder(*case)
        a, _ = vae.passes(len(noise), 1)
        a.z[...] = z
        vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
        vae.output.generate(vae.kernels, a, a.last, vae.parameters, SimpleNamespace(logistic=lambda size: noise))
        drawn, logits = a.x.copy(), a.rows.copy()
        close(logits, decoded(vae, z, drawn)[1])
        assert np.array_equal(drawn, logits + noise > 0)
        often = np.bincount(drawn.astype(int) @ [4, 2, 1], minlength=8) / len(noise)
        close(often, np.exp(decoded(vae, z, IMAGES)[0]), 3 / 48)
