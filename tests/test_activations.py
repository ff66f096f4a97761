"""SiLU and GELU to all digits, the gains, and an activation from outside, whose derivative needs its input.

`test_kernels.py` and `test_equations_dense.py` ask whether forward and backward belong together; here it is how many
digits are right, in both tails, and what a model makes of an activation that keeps its input.
"""
import functools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from npvae import IWAE, VAE, fit
from npvae.checkpoint import CheckpointError
from npvae.gradcheck import check_gradients
from npvae.kernels import fused, reference
from npvae.kernels.fused import elementary
from npvae.layers import ACTIVATIONS, Activation

MODULES = pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
TWO_PI = Decimal("6.283185307179586476925286766559005768394338798750211641949889")


# ---- Digits

@functools.cache
def mills(t):
    """Phi(-t) / phi(t) to 40 digits: Laplace's continued fraction, or 1 / (2 phi) - (t + t^3 / 3 + t^5 / 15 ...)."""
    if t > 6:
        ratio = t
        for k in range(400, 0, -1):
            ratio = t + k / ratio
        return 1 / ratio
    term = total = t
    for k in range(1, 300):
        term *= t * t / (2 * k + 1)
        total += term
    return TWO_PI.sqrt() * (t * t / 2).exp() / 2 - total


def gelu(a):
    t = abs(a)
    density = (-t * t / 2).exp() / TWO_PI.sqrt()
    tail = density * mills(t)
    phi = tail if a < 0 else 1 - tail
    return a * phi, phi + a * density


def silu(a):
    s, opposite = 1 / (1 + (-a).exp()), 1 / (1 + a.exp())
    return a * s, s * (1 + a * opposite)


def truth(function, points):
    with localcontext() as context:
        context.prec = 60
        return [function(Decimal(float(a))) for a in points]


def both_ways(module, name, a):
    """f(a) and f'(a) of a (1, H), half of each a coming from the bias."""
    pre, b, out, dpre, db = a / 2, a[0] / 2, np.full_like(a, 777), np.full_like(a, 777), np.full_like(a[0], 777)
    ACTIVATIONS[name].forward(module, out, pre, b)
    ACTIVATIONS[name].backward(module, dpre, db, np.ones_like(a), out, pre, b)
    assert np.array_equal(db, dpre[0], equal_nan=True)
    return out[0], dpre[0]


#: of each type, where the function leaves its normal numbers; and where the slope has its zero
LEAST = {("silu", "float32"): -87, ("silu", "float64"): -708, ("gelu", "float32"): -12.9, ("gelu", "float64"): -37.5}
ZERO = {"silu": -1.2784645, "gelu": -0.7517916}


@pytest.mark.every(2)
@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, function", [("silu", silu), ("gelu", gelu)])
def test_as_many_digits_as_there_are_in_both_tails(name, function, dtype, module):
    """Relative to the value itself, however small, within 8 roundings; the slope within 8 of what it is made of where
    it changes its sign."""
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.uniform(LEAST[name, dtype], 0, 150), rng.uniform(-4, 4, 200), rng.uniform(0, 40, 50),
                        [-40, -1e-30, 0, 1e-30, 1e-8, 40, ZERO[name]]]).astype(dtype)
    a = a[a >= LEAST[name, dtype]]
    values, slopes = map(np.array, zip(*truth(function, a)))
    found = [np.array(list(map(Decimal, numbers.tolist()))) for numbers in both_ways(module, name, a[None])]
    allowed = 8 * Decimal(float(np.finfo(dtype).eps))
    near = np.array([Decimal("0.3") if abs(one - ZERO[name]) < 1 else Decimal(0) for one in a])
    assert (abs(found[0] - values) <= allowed * abs(values)).all()
    assert (abs(found[1] - slopes) <= allowed * np.maximum(abs(slopes), near)).all()


@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_infinity_and_nan(name, dtype, module):
    """The limits; and no warning."""
    ends = np.array([[-np.inf, -1e30, -1000, 1000, 1e30, np.inf, np.nan]], dtype)
    with np.errstate(all="raise", under="ignore"):
        out, slope = both_ways(module, name, ends)
    assert np.array_equal(out, [0, 0, 0, 1000, ends[0, 4], np.inf, np.nan],
                          equal_nan=True)
    assert np.array_equal(slope, [0, 0, 0, 1, 1, 1, np.nan], equal_nan=True)


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_the_twin_in_single_precision_against_the_reference_in_double(name):
    a = np.linspace(-40, 40, 4001).astype("float32")[None]
    for ours, exact in zip(both_ways(fused, name, a), both_ways(reference, name, a.astype("float64"))):
        wrong = np.abs(ours - exact) - 1e-6 * np.abs(exact)
        small = 40 * np.finfo("float32").tiny      # exp of what is less counts as zero
        assert (wrong[np.abs(a[0] - ZERO[name]) > 0.5] <= small).all() and wrong.max() < 1e-6


@pytest.mark.parametrize("mills_of, tolerance", [(elementary._mills_f, 2.5e-7), (elementary._mills_d, 7e-16)])
def test_the_polynomials_are_mills_ratio(mills_of, tolerance):
    points = np.float32([0, 1e-6, 0.1, 0.7, 1, 1.9, 3, 4, 5.5, 8, 13, 20, 38]).tolist()
    kind = np.float32 if mills_of is elementary._mills_f else float
    for t, exact in zip(points, truth(mills, points)):
        assert float(mills_of.py_func(kind(t))) == pytest.approx(float(exact), rel=tolerance, abs=0), t


@pytest.mark.parametrize("name", ["silu", "gelu"])
@pytest.mark.parametrize("step", [1e-30, -1e-30])
def test_the_complex_step_sees_the_slope_everywhere(name, step):
    """At 0, where the sides meet, and at 8, where a term ends, too."""
    a = np.array([[-38.0, -30, -8, -7.999, -3, -0.5, -1e-9, 0, 1e-9, 0.5, 2, 7.999, 8, 30, 38]])
    out = np.full(a.shape, 777j)
    ACTIVATIONS[name].forward(reference, out, a + 1j * step, np.zeros(a.shape[1]))
    for module in (reference, fused):
        slope = both_ways(module, name, a)[1]
        assert np.allclose(out.imag[0] / step, slope, rtol=1e-13, atol=1e-17)


# ---- Gains

@pytest.mark.parametrize("name", ["relu", "leaky_relu", "silu", "gelu"])
def test_the_gain_keeps_the_mean_square_of_a_standard_normal_number(name):
    """E[f(a)^2] by the trapezoidal rule, times the gain, is 1."""
    a = np.linspace(-9, 9, 2001)[:, None]
    out = np.empty_like(a)
    ACTIVATIONS[name].forward(reference, out, a, np.zeros(1))
    mean_square = (out ** 2 * np.exp(-a * a / 2)).sum() * (a[1, 0] - a[0, 0]) / math.sqrt(2 * math.pi)
    assert ACTIVATIONS[name].gain * mean_square == pytest.approx(1, abs=2e-3)


# ---- Models that keep the input

class Snake(Activation):
    """a + sin(a)^2 (Ziyin et al. 2020), whose slope 1 + sin(2a) cannot be had from the output."""

    def __init__(self):
        super().__init__("snake", 1.2, uses_input=True)

    def forward(self, kernels, out, pre, b):
        a = pre + b
        out[...] = a + np.sin(a) ** 2

    def backward(self, kernels, dpre, db, dout, out, pre, b):
        dpre[...] = dout * (1 + np.sin(2 * (pre + b)))
        np.sum(dpre, axis=0, out=db)


PARTS = {"plain": {"hidden": (6, 5)}, "second layer": {"hidden": (6,), "prior": "hierarchical:5,4"},
         "made": {"hidden": (6,), "decoder": "made:4"}, "made+direct": {"hidden": (), "decoder": "made:4+direct"},
         "vamp": {"hidden": (6,), "prior": "vamp:3"}, "iaf": {"hidden": (6,), "posterior": "iaf:2"},
         "labels": {"hidden": (6,), "classes": 3}}


@pytest.mark.every(23)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("activation", ["silu", "gelu", Snake()], ids=["silu", "gelu", "snake"])
@pytest.mark.parametrize("part", PARTS)
def test_gradients_of_models_of_every_part(part, activation, kernels):
    vae, analytic = (VAE(7, latent_dim=3, activation=activation, dtype=dtype, kernels=own, seed=2, **PARTS[part])
                     for dtype, own in (("float64", kernels), ("complex128", "numpy")))
    rng = np.random.default_rng(3)
    vae.parameters.flat[...] += 0.3 * rng.standard_normal(vae.parameters.flat.size)
    x, eps = rng.random((4, 7)).round(), rng.standard_normal((4, 3, 3 + getattr(vae.prior, "noise", 0)))
    labels = {"labels": np.array([0, 2, 1, 0])} if vae.classes else {}
    _, gradients = vae.loss_and_gradients(x, eps, IWAE(), **labels)

    def loss(parameters):
        return analytic.loss(x, eps, IWAE(), **labels, parameters=parameters)
    report = check_gradients(loss, gradients, vae.parameters, tolerance=1e-12 if kernels == "numpy" else 1e-11)
    assert report.ok, report


def images(n):
    return np.random.default_rng(5).random((n, 9), dtype=np.float32) ** 3


@pytest.mark.every(3)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("activation", ["silu", "gelu", Snake()], ids=["silu", "gelu", "snake"])
def test_a_model_trains_and_comes_back_from_its_file(activation, kernels, tmp_path):
    vae = VAE(9, (8, 7), 2, activation, kernels=kernels)
    history = fit(vae, images(400), images(100), epochs=4, batch_size=20)
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.1
    vae.save(tmp_path / "model.npz")
    given = {"activation": activation} if isinstance(activation, Activation) else {}
    again = VAE.load(tmp_path / "model.npz", kernels, **given)
    assert np.array_equal(again.reconstruct(images(5), np.random.default_rng(0)),
                          vae.reconstruct(images(5), np.random.default_rng(0)))
    assert again.config() == vae.config()


def test_an_activation_from_outside_has_to_be_given_again(tmp_path):
    VAE(9, (8,), 2, Snake(), kernels="numpy").save(tmp_path / "model.npz")
    with pytest.raises(CheckpointError, match="snake"):
        VAE.load(tmp_path / "model.npz", "numpy")
    with pytest.raises(CheckpointError, match="its activation is 'snake', and 'silu' was given"):
        VAE.load(tmp_path / "model.npz", "numpy", activation=ACTIVATIONS["silu"])


@pytest.mark.parametrize("activation, keeps", [("tanh", False), ("silu", True), (Snake(), True)],
                         ids=["tanh", "silu", "snake"])
def test_only_an_activation_that_uses_its_input_costs_a_buffer(activation, keeps):
    a, d = VAE(9, (8, 7), 2, activation, kernels="numpy").passes(4, 3)
    for one, other in zip([*a.encoder_pre, *a.decoder_pre], [*d.encoder_pre, *d.decoder_pre], strict=True):
        assert np.shares_memory(one, other) != keeps
