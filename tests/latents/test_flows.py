"""Flows as maps: their Jacobian and its determinant, that they can be inverted, that densities stay densities.
(`test_flow_models.py` has them in whole models.)
"""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae import VAE
from npvae.kernels import fused, reference
from strategies import seeds

STEP = 1e-30      # of the complex step: nothing is rounded away
MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
POSTERIORS = pytest.mark.parametrize("posterior", ["planar:1", "planar:3", "iaf:1", "iaf:3:7", "iaf:2:2"])


def flow_vae(posterior, seed=0, latent_dim=3, dtype="float64", kernels="numpy", **config):
    """A model with random parameters, biases included."""
    vae = VAE(**{"input_dim": 7, "hidden": (6,), "activation": "tanh", **config}, latent_dim=latent_dim, dtype=dtype,
              kernels=kernels, seed=seed, posterior=posterior)
    vae.parameters.flat[...] += 0.3 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def images(vae, count, seed=0):
    return np.random.default_rng([seed, 1]).random((count, vae.input_dim))


def buffers_at(vae, x, z0):
    """The buffers of a pass that has come as far as z0 (B, K, Z)."""
    a, _ = vae.passes(*z0.shape[:2])
    a.x[...] = x
    vae._encode(a)
    a.z0[...] = z0
    return a


def push(vae, x, z0):
    """z (B, K, Z) and log_det (B, K) of z0 (B, K, Z), for images x (B, D)."""
    a = buffers_at(vae, x, z0)
    vae.flow.forward(vae.kernels, a, a.flow, vae.parameters)
    return a.z.copy(), a.log_det.copy()


def jacobian(move, z0):
    """d move / d z0 (Z, Z) at z0 (Z,) by the complex step: exact zeros stay exact."""
    return np.stack([move(z0 + 1j * STEP * unit).imag / STEP for unit in np.eye(len(z0))], axis=1)


def test_without_a_flow_z_is_z0():
    """In the same memory, in both directions."""
    a, d = VAE(7, (6,), 3, kernels="numpy", prior="mixture:2").passes(4, 3)
    assert a.z0 is a.z and d.z0 is d.z and not a.log_det.any()


# --- the Jacobian and its determinant ---

@POSTERIORS
@given(seed=seeds, size=st.integers(1, 5))
def test_log_det_is_that_of_the_numeric_jacobian(posterior, seed, size):
    vae, rng = flow_vae(posterior, seed, size, "complex128"), np.random.default_rng(seed)
    x, z0 = images(vae, 2, seed), rng.standard_normal((2, 3, size))
    _, log_det = push(vae, x, z0.astype(complex))
    for b, k in np.ndindex(2, 3):
        sign, expected = np.linalg.slogdet(jacobian(lambda one: push(vae, x[b:b + 1], one[None, None])[0][0, 0],
                                                    z0[b, k]))
        assert sign == 1 and abs(log_det[b, k] - expected) <= 1e-12 * max(1, abs(expected))


@POSTERIORS
@given(seed=seeds)
def test_log_dets_add_up_over_the_steps(posterior, seed):
    """Each step's own, at the point where the steps before have come to."""
    vae = flow_vae(posterior, seed, 4, "complex128")
    flow, x = vae.flow, images(vae, 1, seed)
    a = buffers_at(vae, x, np.random.default_rng(seed).standard_normal((1, 1, 4)).astype(complex))
    flow.forward(vae.kernels, a, a.flow, vae.parameters)
    points, log_dets = [one[0, 0].real.copy() for one in a.flow.z_at], a.flow.log_det_at[:, 0, 0].real.copy()
    assert len(points) == flow.steps + 1 and np.array_equal(points[-1], a.z[0, 0].real)
    assert a.log_det[0, 0] == pytest.approx(math.fsum(log_dets), rel=1e-13)

    def step(t, z):
        a.flow.z_at[t][0, 0] = z
        flow.step(vae.kernels, a.flow, t, vae.parameters)
        return a.flow.z_at[t + 1][0, 0].copy()
    for t in range(flow.steps):
        J = jacobian(lambda z: step(t, z), points[t])
        assert np.linalg.slogdet(J)[1] == pytest.approx(log_dets[t], abs=1e-12)
        if posterior.startswith("iaf"):      # triangular in the order of the step, s on the diagonal
            J = J[::(-1) ** t, ::(-1) ** t]
            assert not np.triu(J, 1).any(), "exactly: no dimension sees one that comes after it"
            assert np.tril(J, -1).any(axis=1)[1:].all() or flow.width < 4, "and each sees those before it"
            s = 1 / (1 + np.exp(-a.flow.net[t, 0, 0, 4:].real))
            assert np.allclose(np.diag(J), s[::(-1) ** t], rtol=1e-13, atol=0)


# --- invertibility ---

@MODULES
@given(seed=seeds, size=st.integers(1, 5), scale=st.sampled_from([0.3, 1, 3]))
def test_a_planar_step_never_turns_back(kernels, seed, size, scale):
    """For any u and w, however large: w.u_hat = -1 + softplus(w.u) > -1, what is not along w stays, and from z one
    finds z0 again."""
    rng = np.random.default_rng(seed)
    (u, w), bias, z0 = scale * rng.standard_normal((2, 4, size)), rng.standard_normal(4), rng.normal(0, 2, (4, 6, size))
    u_hat, stretch, z = np.empty((4, size)), np.empty(4), np.empty((4, 6, size))
    log_det, pre = np.empty((4, 6)), np.empty((4, 6))
    kernels.planar_direction_forward(u_hat, stretch, u, w)
    along, length = (w * u).sum(axis=1), (w * w).sum(axis=1)
    assert np.allclose(stretch, np.logaddexp(0, along), rtol=1e-13, atol=0) and (stretch > 0).all()
    size_of_terms = np.abs(w * u_hat).sum(axis=1) + 1
    assert (np.abs((w * u_hat).sum(axis=1) + 1 - stretch) <= 1e-13 * size_of_terms).all()
    across = u_hat - u - ((u_hat - u) * w).sum(axis=1, keepdims=True) / length[:, None] * w
    assert (np.abs(across).max(axis=1) <= 1e-13 * (np.abs(u_hat) + np.abs(u)).max(axis=1)).all()
    kernels.planar_forward(z, log_det, pre, z0, u_hat, stretch, w, bias)
    target = (w[:, None] * z).sum(axis=2)      # y + (stretch - 1) tanh(y + bias), y = w.z0, which grows with y
    low, high = target - np.abs(stretch - 1)[:, None] - 1, target + np.abs(stretch - 1)[:, None] + 1
    for _ in range(200):
        y = (low + high) / 2
        above = y + (stretch - 1)[:, None] * np.tanh(y + bias[:, None]) > target
        low, high = np.where(above, low, y), np.where(above, y, high)
    found = z - u_hat[:, None] * np.tanh(y + bias[:, None])[:, :, None]
    assert np.abs(found - z0).max() <= 1e-9 * (1 + (size_of_terms / np.minimum(stretch, 1)).max())


@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_planar_steps_of_extreme_parameters(kernels, dtype):
    """w.u from -80 to 1000: nothing overflows, stretch keeps its digits, log_det is finite."""
    along = np.array([-80.0, -20.0, -1e-3, 0.0, 1.0, 30.0, 1000.0], dtype)
    w, u = np.array([[1.0, 0]] * 7, dtype), np.stack([along, np.ones(7, dtype)], axis=1)
    u_hat, stretch, z0 = np.empty((7, 2), dtype), np.empty(7, dtype), np.zeros((7, 1, 2), dtype)
    kernels.planar_direction_forward(u_hat, stretch, u, w)
    digits = 4 * np.finfo(dtype).eps
    exact = np.logaddexp(0, along.astype(float))
    assert np.allclose(stretch, exact, rtol=digits, atol=0) and (u_hat[:, 1] == 1).all()
    assert np.allclose(u_hat[:, 0], exact - 1, rtol=digits, atol=digits * 1)
    z, log_det, pre = np.empty_like(z0), np.empty((7, 1), dtype), np.empty((7, 1), dtype)
    kernels.planar_forward(z, log_det, pre, z0, u_hat, stretch, w, np.zeros(7, dtype))
    assert np.allclose(log_det[:, 0], np.log(exact), rtol=digits, atol=digits)      # at tanh' = 1


def test_without_the_correction_some_steps_turn_back():
    """The control: with u in place of u_hat the map along w is not monotone for w.u < -1."""
    y = np.linspace(-3, 3, 101)
    assert (np.diff(y - 2 * np.tanh(y)) < 0).any() and (np.diff(y + (np.log1p(np.exp(-2)) - 1) * np.tanh(y)) > 0).all()


@given(seed=seeds)
def test_an_autoregressive_flow_can_be_inverted(seed):
    """Last step first, and in it one dimension after the other: z0_j = (z_j - (1 - s_j) m_j) / s_j."""
    vae, Z = flow_vae("iaf:3", seed, 4), 4
    flow, x = vae.flow, images(vae, 1, seed)
    z0 = np.random.default_rng(seed).standard_normal((1, 5, Z))
    a = buffers_at(vae, x, z0)
    flow.forward(vae.kernels, a, a.flow, vae.parameters)
    z = a.z.copy()
    for t in (2, 1, 0):
        found = np.zeros_like(z)
        for j in range(Z)[::(-1) ** t]:
            a.flow.z_at[t][...] = found
            flow.step(vae.kernels, a.flow, t, vae.parameters)
            s, m = 1 / (1 + np.exp(-a.flow.net[t, :, :, Z + j])), a.flow.net[t, :, :, j]
            found[:, :, j] = (z[:, :, j] - (1 - s) * m) / s
        z = found
    assert np.abs(z - z0).max() <= 1e-10 * np.exp(-a.flow.log_det_at.sum(axis=0)).max()


# --- densities ---

def log_q(vae, x, z0, log_det, mu, logvar):
    """log q(z|x) (points,) by its definition, of the points z0 (points, Z)."""
    log_q0 = -0.5 * ((z0 - mu) ** 2 / np.exp(logvar) + logvar + math.log(2 * math.pi)).sum(axis=1)
    return log_q0 - log_det


def mass(vae, x, broken=lambda log_det: log_det):
    """The integral of q(z|x) over the plane: a grid of z0 is pushed through the flow, and each of its cells counts
    with the area that it has there (shoelace formula) and the mean density at its corners."""
    mu, logvar = (value[0] for value in vae.encode(x))
    t = np.linspace(-7, 7, 401)
    grid = np.stack(np.meshgrid(t, t, indexing="ij"), axis=2).reshape(-1, 2) * np.exp(logvar / 2) + mu
    z, log_det = push(vae, x, grid[None])
    q = np.exp(log_q(vae, x, grid, broken(log_det[0]), mu, logvar)).reshape(401, 401)
    z = z[0].reshape(401, 401, 2)
    first, second = z[1:, 1:] - z[:-1, :-1], z[:-1, 1:] - z[1:, :-1]      # the diagonals
    area = 0.5 * np.abs(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0])
    return (area * (q[1:, 1:] + q[:-1, 1:] + q[1:, :-1] + q[:-1, :-1]) / 4).sum()


@pytest.mark.every(3)
@pytest.mark.parametrize("posterior", ["planar:4", "iaf:3"])
@pytest.mark.parametrize("seed", range(3))
def test_densities_integrate_to_one(posterior, seed):
    vae = flow_vae(posterior, seed, latent_dim=2, kernels="numba")
    x = images(vae, 1, seed)
    assert mass(vae, x) == pytest.approx(1, abs=1e-3)
    for broken in (np.negative, np.zeros_like, lambda log_det: 0.9 * log_det):      # sign, forgotten, a part of it
        assert abs(mass(vae, x, broken) - 1) > 4e-3


@pytest.mark.parametrize("posterior", ["planar:4", "iaf:3"])
def test_densities_on_a_line_integrate_to_one(posterior):
    """And z goes up with z0: the flow neither folds nor tears the line."""
    vae = flow_vae(posterior, 5, latent_dim=1)
    x = images(vae, 1)
    mu, logvar = (value[0] for value in vae.encode(x))
    z0 = np.linspace(-8, 8, 20001)[:, None] * np.exp(logvar / 2) + mu
    z, log_det = push(vae, x, z0[None])
    q, steps = np.exp(log_q(vae, x, z0, log_det[0], mu, logvar)), np.diff(z[0, :, 0])
    assert (steps > 0).all() and (steps * (q[1:] + q[:-1]) / 2).sum() == pytest.approx(1, abs=1e-6)
