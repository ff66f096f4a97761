"""Chapters 2 and 3, appendices A to C, equation by equation: the chain rule, the dense layer, the activations."""
import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from npvae import VAE
from npvae.gradcheck import check_pair, numerical_gradient
from npvae.kernels import fused, reference
from npvae.layers import ACTIVATIONS, MLP, Dense
from npvae.params import Block
from npvae.objectives import KLEstimator

equation = pytest.mark.equation
KERNELS = (reference, fused)
RNG = np.random.default_rng(11)
X, W, BIAS = RNG.standard_normal((5, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)      # B 5, in 4, out 3
DOUT = RNG.standard_normal((5, 3))
STEP = 1e-30

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D0.1": (check_pair, "np.sum(upstream * forward(", "np.sum(forward("),
    "D0.2": (Dense.backward, "params[self.W].T", "-params[self.W].T"),
    "D0.3": (Dense.backward, "(grads[self.W], x.T", "(grads[self.W], -x.T"),
    "D0.4": (reference.add, "np.add(a, b, out=out)", "np.add(a, -b, out=out)"),
    "D0.5": (reference.identity_backward, "np.sum(dpre, axis=0", "np.mean(dpre, axis=0"),
    "D0.6": (reference.tanh_backward, "dout * (1 - out)", "(1 - out)"),
    "D0.7": (MLP.backward, "reversed(list(enumerate(self.layers)))", "enumerate(self.layers)"),
    "D1.1": (Dense.forward, "pre, params[self.b]", "pre, -params[self.b]"),
    "D1.2": (Dense.backward, "grads[self.b], dout, out, pre", "grads[self.b], dout, dout, pre"),
    "D1.3": (Dense.backward, "dpre, grads[self.b]", "dpre, grads[self.b].copy()"),
    "D1.4": (Dense.backward, "x.T, dpre", "x.T, dout"),
    "D1.5": (Dense.backward, "dx, dpre, params", "dx, dout, params"),
    "D1.6": (VAE.backward, "d.h_mu, d.h_logvar)", "d.h_mu, d.h_mu)"),
    "D1.7": (Dense.initialize, "math.sqrt(self.activation.gain / max(shape))", "self.activation.gain / max(shape)"),
    "D2.1": (reference.identity_backward, "dpre[...] = dout", "dpre[...] = -dout"),
    "D2.2": (reference.relu_backward, "np.where(out.real > 0", "np.where(dout.real > 0"),
    "D2.3": (reference.leaky_relu_backward, "LEAKY_SLOPE * dout", "0 * dout"),
    "D2.4": (reference.elu_backward, "dout * (out + 1)", "dout * out"),
    "D2.5": (reference.tanh_backward, "* (1 + out)", "* (1 - out)"),
    "D2.6": (reference.sigmoid_backward, "dout * out * (1 - out)", "dout * out"),
    "D2.7": (reference.softplus_backward, "-np.expm1(-out)", "np.expm1(-out)"),
    "D2.8": (reference.dense.sigmoid, "np.exp(minus_abs(a))", "np.exp(-a)"),
    "D2.9": (reference.dense.softplus, "np.where(a.real < 0, 0, a)", "np.where(a.real < 0, a, 0)"),
    "D2.10": (reference.silu_backward, "* sigmoid(-a)", "* sigmoid(a)"),
    "D2.11": (reference.gelu_backward, "t * normal_density(t) -", "-t * normal_density(t) -"),
    "D2.12": (reference.dense.normal_tail, "sigmoid(-2 * math.pi", "sigmoid(-math.pi")}


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def unwritten(array):
    return np.full_like(array, np.nan)


# --- one dense layer, or its activation alone ---

def forward(activation, x, weights, bias, kernels=reference):
    layer = Dense("a", *weights.shape, activation)
    pre, out = np.empty((2, len(x), weights.shape[1]), np.result_type(x, weights, bias))
    layer.forward(kernels, out, pre, x, {"a.W": weights, "a.b": bias})
    return out


def backward(activation, kernels, weights=W):
    """dx, dpre, dW, db for the upstream gradient DOUT."""
    layer, params = Dense("a", *weights.shape, activation), {"a.W": weights, "a.b": BIAS}
    dx, dpre, grads = unwritten(X), unwritten(DOUT), {name: unwritten(value) for name, value in params.items()}
    out = forward(activation, X, weights, BIAS, kernels)
    pre = X @ weights if layer.activation.uses_input else dpre
    layer.backward(kernels, dx, dpre, grads, DOUT, out, pre, X, params)
    return dx, dpre, grads["a.W"], grads["a.b"]


def slopes(function, **arrays):
    """Of sum(DOUT * function(...)), entry by entry, by the complex step."""
    return numerical_gradient(lambda p: np.sum(DOUT * function(**p)), arrays)


def product(a, b):
    """a b by its definition, entry by entry."""
    return np.array([[sum(a[i, k] * b[k, j] for k in range(len(b))) for j in range(b.shape[1])] for i in range(len(a))])


def activate(name, a, kernels=reference):
    out = np.empty_like(a)
    getattr(kernels, f"{name}_forward")(out, a, np.zeros(a.shape[1]))
    return out


def activate_back(name, a, dout, kernels):
    """dpre, db."""
    dpre, db = unwritten(a), np.full(a.shape[1], np.nan)
    ACTIVATIONS[name].backward(kernels, dpre, db, dout, activate(name, a, kernels), a, np.zeros(a.shape[1]))
    return dpre, db


# --- the chain rule (chapter 2), and for a matrix product (appendix A) ---

@equation("D0.1")
def test_a_backward_function_is_a_vector_jacobian_product():
    """v . (J u) = u . (J^T v), with J u from the complex step along u, in x, W and b at once; and `check_pair` passes
    J^T v, but neither J v nor J^T times something else."""
    at = {"x": X, "weights": W, "bias": BIAS}
    moved = {name: value + 1j * STEP * np.cos(2 * value) for name, value in at.items()}
    for name, kernels in itertools.product(ACTIVATIONS, KERNELS):
        dx, _, dweights, dbias = backward(name, kernels)
        along_u = forward(name, **moved).imag / STEP
        close(np.sum(DOUT * along_u), sum(np.sum(np.cos(2 * value) * gradient)
                                          for value, gradient in ((X, dx), (W, dweights), (BIAS, dbias))))
    function, x = lambda x: np.tanh(W[:3] @ x), X[0, :3]
    jacobian = np.stack([function(x + 1j * STEP * e).imag / STEP for e in np.eye(3)], axis=1)      # column by column
    assert check_pair(function, lambda v, x: {"x": jacobian.T @ v}, {"x": x}).ok
    assert not check_pair(function, lambda v, x: {"x": jacobian @ v}, {"x": x}).ok
    assert not check_pair(function, lambda v, x: {"x": jacobian.T @ v[::-1]}, {"x": x}).ok


@equation("D0.2")
def test_product_by_its_first_factor():
    expected = slopes(product, a=X, b=W)["a"]
    for kernels in KERNELS:
        close(backward("identity", kernels)[0], expected)


@equation("D0.3")
def test_product_by_its_second_factor():
    expected = slopes(product, a=X, b=W)["b"]
    for kernels in KERNELS:
        close(backward("identity", kernels)[2], expected)


@equation("D0.4")
def test_two_paths_from_one_array():
    a, v = X, np.sin(3 * X)
    moved = a + 1j * STEP      # elementwise functions: every entry by itself
    expected = (v * activate("tanh", moved) + np.cos(v) * activate("softplus", moved)).imag / STEP
    for kernels in KERNELS:
        total = unwritten(a)
        kernels.add(total, activate_back("tanh", a, v, kernels)[0], activate_back("softplus", a, np.cos(v), kernels)[0])
        close(total, expected)


@equation("D0.5")
def test_what_was_broadcast_is_summed():
    expected = slopes(lambda a, b: np.array([[entry + b[j] for j, entry in enumerate(row)] for row in a]),
                      a=DOUT, b=BIAS)["b"]
    for kernels in KERNELS:
        close(activate_back("identity", X[:, :3].copy(), DOUT, kernels)[1], expected)


@equation("D0.6")
def test_the_jacobian_of_an_elementwise_function_is_diagonal():
    a = X[:, :3].copy()
    jacobian = np.empty((a.size, a.size))
    for i in range(a.size):
        moved = a.astype(complex)
        moved.flat[i] += 1j * STEP
        jacobian[:, i] = activate("tanh", moved).imag.ravel() / STEP
    assert np.count_nonzero(jacobian) == a.size == np.count_nonzero(np.diag(jacobian))
    for kernels in KERNELS:
        close(activate_back("tanh", a, DOUT, kernels)[0].ravel(), jacobian.T @ DOUT.ravel())


@equation("D0.7")
def test_a_chain_of_layers_is_read_from_its_end():
    net = MLP("net", 4, (3, 5, 2), "sigmoid")
    params = Block({name: shape for layer in net.layers for name, shape in layer.shapes.items()}, float)
    params.flat[...] = np.sin(np.arange(params.flat.size))
    grads, x, dout = params.zeros_like(), X[:1].copy(), DOUT[:1, :2].copy()
    whole, point = np.eye(4), x
    for layer in net.layers:      # the whole Jacobian, forwards: one column for each entry of x
        weights, bias = params[layer.W], params[layer.b]
        columns = [forward("sigmoid", point + 1j * STEP * e, weights, bias).imag[0] / STEP for e in np.eye(point.size)]
        whole, point = np.stack(columns, axis=1) @ whole, forward("sigmoid", point, weights, bias)
    for kernels in KERNELS:
        acts, pres = ([np.zeros((1, n)) for n in sizes] for sizes in ((4, 3, 5, 2), (3, 5, 2)))
        dacts = [np.zeros_like(act) for act in acts]
        acts[0][...], dacts[-1][...] = x, dout
        net.forward(kernels, acts, pres, params)
        net.backward(kernels, dacts, pres, grads, acts, pres, params)
        close(dacts[0][0], whole.T @ dout[0])


# --- the dense layer (chapter 3) ---

#: each activation and its derivative as functions of the input, by Python's own arithmetic
FORMULAS = {
    "identity": (lambda a: a, lambda a: 1.0),
    "relu": (lambda a: max(a, 0.0), lambda a: float(a > 0)),
    "leaky_relu": (lambda a: a if a > 0 else a / 100, lambda a: 1.0 if a > 0 else 0.01),
    "elu": (lambda a: a if a > 0 else math.exp(a) - 1, lambda a: 1.0 if a > 0 else math.exp(a)),
    "tanh": (math.tanh, lambda a: 1 / math.cosh(a) ** 2),
    "sigmoid": (lambda a: 1 / (1 + math.exp(-a)), lambda a: 1 / (2 + math.exp(a) + math.exp(-a))),
    "softplus": (lambda a: math.log(1 + math.exp(a)), lambda a: 1 / (1 + math.exp(-a))),
    "silu": (lambda a: a / (1 + math.exp(-a)),
             lambda a: (1 + math.exp(-a) + a * math.exp(-a)) / (1 + math.exp(-a)) ** 2),
    "gelu": (lambda a: a * math.erfc(-a / math.sqrt(2)) / 2,
             lambda a: math.erfc(-a / math.sqrt(2)) / 2 + a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi))}


@equation("D1.1")
def test_a_layer_entry_by_entry():
    for name, kernels in itertools.product(ACTIVATIONS, KERNELS):
        out = forward(name, X, W, BIAS, kernels)
        for i, j in np.ndindex(out.shape):
            close(out[i, j], FORMULAS[name][0](sum(X[i, k] * W[k, j] for k in range(4)) + BIAS[j]))


@equation("D1.2")
def test_a_layer_by_its_matrix_product():
    expected = {name: slopes(lambda pre: forward(name, pre, np.eye(3), BIAS), pre=product(X, W))["pre"]
                for name in ACTIVATIONS}
    for name, kernels in itertools.product(ACTIVATIONS, KERNELS):
        close(backward(name, kernels)[1], expected[name])


def layer_slopes(name):
    return slopes(lambda x, weights, bias: forward(name, x, weights, bias), x=X, weights=W, bias=BIAS)


@equation("D1.3")
def test_a_layer_by_its_bias():
    for name, kernels in itertools.product(("tanh", "relu", "softplus"), KERNELS):
        close(backward(name, kernels)[3], layer_slopes(name)["bias"])


@equation("D1.4")
def test_a_layer_by_its_weights():
    for name, kernels in itertools.product(("tanh", "relu", "softplus"), KERNELS):
        close(backward(name, kernels)[2], layer_slopes(name)["weights"])


@equation("D1.5")
def test_a_layer_by_its_input():
    for name, kernels in itertools.product(("tanh", "relu", "softplus"), KERNELS):
        close(backward(name, kernels)[0], layer_slopes(name)["x"])


def small_vae(dtype, kernels):
    """Identity as activation: moving the encoder's bias moves its output h just so.  B 6, K 2, D 5, H 4, Z 3."""
    vae, rng = VAE(5, (4,), 3, "identity", dtype=dtype, kernels=kernels), np.random.default_rng(5)
    vae.parameters.flat[...] = 0.5 * rng.standard_normal(vae.parameters.flat.size)
    a, d = vae.passes(6, 2)
    a.x[...], a.eps[...] = rng.random((6, 5)), rng.standard_normal((6, 2, 3))
    d.nll[...], d.kl[...] = rng.standard_normal((6, 2)), rng.standard_normal((6, 3))
    return vae, a, d


@equation("D1.6")
def test_two_heads_on_one_hidden_layer():
    moved, b, upstream = small_vae("complex128", "numpy")
    start, expected = moved.parameters.flat.copy(), np.empty((6, 4))
    for j in range(4):
        moved.parameters.flat[...] = start
        moved.parameters["encoder.0.b"][j] += 1j * STEP
        moved.forward(b, KLEstimator.EXACT)
        loss = (upstream.nll * b.nll).sum(axis=1) + (upstream.kl * b.kl).sum(axis=1)      # of each image
        expected[:, j] = loss.imag / STEP
    for kernels in ("numpy", "numba"):
        vae, a, d = small_vae("float64", kernels)
        vae.forward(a, KLEstimator.EXACT)
        vae.backward(d, a, KLEstimator.EXACT)
        close(d.encoder[-1], expected)


class Signs:
    """In place of a generator: scale times the given signs."""

    def __init__(self, signs):
        self.signs = signs

    def normal(self, mean, scale, shape):
        return mean + scale * np.reshape(self.signs, shape)


@equation("D1.7")
def test_initial_weights_keep_the_mean_square():
    """On average over all 2^6 patterns of signs, which are uncorrelated: exact, not a sample."""
    for activation, shape in itertools.product(ACTIVATIONS.values(), ((3, 2), (2, 3))):
        gain, name = activation.gain, activation.name
        layer, x, dpre = Dense("a", *shape, name), X[0, :shape[0]], DOUT[0, :shape[1]]
        params, forwards, backwards = Block(layer.shapes, float), 0, 0
        for signs in itertools.product((-1, 1), repeat=6):
            layer.initialize(params, Signs(signs))
            assert not params["a.b"].any()
            forwards, backwards = forwards + (x @ params["a.W"]) ** 2 / 64, backwards + (params["a.W"] @ dpre) ** 2 / 64
        n_in, n_out = shape
        close(forwards, gain * min(1, n_in / n_out) * np.mean(x ** 2))
        close(backwards, gain * min(1, n_out / n_in) * np.mean(dpre ** 2))


# --- activations (chapter 3, appendices B and C) ---

def derivative_agrees(name):
    """On both sides of 0: with the derivative as a function of the input, and with the complex step."""
    a = np.array([[-5.5, -1.2, -0.3], [-1e-3, 1e-3, 0.3], [0.8, 2.1, 5.5]])
    dout = DOUT[:3]
    by_input = dout * [[FORMULAS[name][1](value) for value in row] for row in a.tolist()]
    close(dout * activate(name, a + 1j * STEP).imag / STEP, by_input)
    for kernels in KERNELS:
        dpre, db = activate_back(name, a, dout, kernels)
        close(dpre, by_input)
        close(db, by_input.sum(axis=0))


@equation("D2.1")
def test_identity():
    derivative_agrees("identity")


@equation("D2.2")
def test_relu():
    derivative_agrees("relu")
    for kernels in KERNELS:      # the convention at the kink
        assert not activate_back("relu", np.zeros((2, 3)), np.ones((2, 3)), kernels)[0].any()


@equation("D2.3")
def test_leaky_relu():
    derivative_agrees("leaky_relu")


@equation("D2.4")
def test_elu():
    derivative_agrees("elu")


@equation("D2.5")
def test_tanh():
    derivative_agrees("tanh")


@equation("D2.6")
def test_sigmoid():
    derivative_agrees("sigmoid")


@equation("D2.7")
def test_softplus():
    derivative_agrees("softplus")


def to_all_digits(name, exact):
    """Against arithmetic with 28 digits, from where exp(a) is nothing to where it overflows."""
    points = [-1000.0, -700.0, -40.0, -1.5, -1e-9, 0.0, 0.3, 36.0, 40.0, 700.0, 1000.0]
    expected = [float(exact(Decimal(point))) for point in points]
    for kernels in KERNELS:
        np.testing.assert_allclose(activate(name, np.array([points]), kernels)[0], expected, rtol=4e-15, atol=1e-307)


@equation("D2.8")
def test_sigmoid_to_all_digits():
    to_all_digits("sigmoid", lambda a: 1 / (1 + (-a).exp()))


@equation("D2.9")
def test_softplus_to_all_digits():
    # 28 digits are not enough for log(1 + exp(-700)): below -30 its series, t - t^2 / 2, is exact to 26 digits
    to_all_digits("softplus", lambda a: (1 + a.exp()).ln() if a > -30 else a.exp() - a.exp() ** 2 / 2)


@equation("D2.10")
def test_silu():
    derivative_agrees("silu")


@equation("D2.11")
def test_gelu():
    derivative_agrees("gelu")


def normal_tail(t):
    """Phi(-t) = 1/2 - phi(t) (t + t^3 / 3 + t^5 / (3 5) + ...), as long as the digits of 1/2 last."""
    t = Decimal(t)
    term = total = t
    for k in range(1, 500):
        term *= t * t / (2 * k + 1)
        total += term
    two_pi = Decimal("6.28318530717958647692528676655900576839433879875")
    return Decimal("0.5") - (-t * t / 2).exp() / two_pi.sqrt() * total


@equation("D2.12")
def test_the_tail_of_the_normal_distribution_to_all_digits():
    points = [1e-9, 0.1, 0.35, 1.0, 2.5, 4.0, 6.0, 7.99, 8.0, 9.0]
    with localcontext() as context:
        context.prec = 45
        expected = np.array([float(normal_tail(point)) for point in points])
    np.testing.assert_allclose(reference.dense.normal_tail(np.array(points)), expected, rtol=2e-15, atol=0)
    for kernels in KERNELS:      # GELU of -t is -t Phi(-t)
        ours = activate("gelu", -np.array([points]), kernels)[0]
        np.testing.assert_allclose(ours, -np.array(points) * expected, rtol=2e-15, atol=0)
