"""Adam against the textbook loop; the values of every schedule where they matter."""
import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from npvae import VAE, Adam, ConstantLR, CosineLR, CyclicalAnnealing, LinearAnnealing, StepLR
from npvae.kernels import load, reference
from npvae.params import Block

SHAPES = {"a.W": (3, 5), "a.b": (5,)}


def textbook_adam(theta, gradients, lr, beta1, beta2, eps, max_norm, decay=0.0):
    """Kingma and Ba 2015, Algorithm 1, one number at a time in float64; the norm clipped over all tensors at once."""
    theta = [float(value) for value in theta]
    m, v = [0.0] * len(theta), [0.0] * len(theta)
    for t, gradient in enumerate(gradients, start=1):
        norm = math.sqrt(sum(float(g) ** 2 for g in gradient))
        factor = max_norm / norm if max_norm is not None and norm > max_norm else 1.0
        for i, g in enumerate(gradient):
            g = float(g) * factor
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g ** 2
            m_hat, v_hat = m[i] / (1 - beta1 ** t), v[i] / (1 - beta2 ** t)
            theta[i] *= 1 - lr(t - 1) * decay * (i < 15)      # a.W stands before a.b
            theta[i] -= lr(t - 1) * m_hat / (math.sqrt(v_hat) + eps)
    return theta, m, v


def run_adam(optimizer, theta, gradients, kernels):
    parameters = Block(SHAPES, gradients.dtype)
    parameters.flat[...] = theta
    block = parameters.zeros_like()
    for gradient in gradients:
        block.flat[...] = gradient
        optimizer.step(parameters, block, kernels)
        assert np.array_equal(block.flat, gradient)      # clipping leaves the gradients as they are
    return parameters.flat, optimizer.m.flat, optimizer.v.flat


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-13), ("float32", 2e-5)])
@settings(max_examples=8)
@given(data=st.data())
def test_adam_is_algorithm_1(kernels, dtype, tolerance, data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    beta1, beta2 = draw(st.sampled_from([(0.9, 0.999), (0.0, 0.9), (0.5, 0.0)]))
    eps, max_norm = draw(st.sampled_from([1e-8, 1e-4, 0.5])), draw(st.sampled_from([None, 0.3, 4.0]))
    decay = draw(st.sampled_from([0.0, 0.5]))
    lr = draw(st.sampled_from([ConstantLR(0.01), CosineLR(0.1, 40), StepLR(0.05, [7, 30])]))
    theta = rng.normal(size=20).astype(dtype)
    gradients = (rng.normal(size=(50, 20)) * rng.choice([0.1, 1.0, 3.0], (50, 1))).astype(dtype)
    expected = textbook_adam(theta, gradients, lr, beta1, beta2, eps, max_norm, decay)
    optimizer = Adam(lr, beta1, beta2, eps, max_norm, decay)
    for ours, book in zip(run_adam(optimizer, theta, gradients, load(kernels)), expected):
        assert ours.dtype == dtype
        assert np.linalg.norm(ours - book) <= tolerance * np.linalg.norm(book)
    assert optimizer.t == 50


def test_clipping_eps_and_decay_are_seen_by_the_test_above():
    """The settings change the result by far more than its tolerance."""
    rng = np.random.default_rng(0)
    theta, gradients = rng.normal(size=20), rng.normal(size=(50, 20)) * rng.choice([0.1, 1.0, 3.0], (50, 1))
    plain, *others = (textbook_adam(theta, gradients, ConstantLR(0.01), 0.9, 0.999, eps, norm, decay)[0]
                      for eps, norm, decay in ((1e-8, None, 0), (1e-8, 0.3, 0), (0.5, None, 0), (1e-8, None, 0.5)))
    for other in others:
        assert np.linalg.norm(np.subtract(plain, other)) > 1e-3 * np.linalg.norm(plain)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_first_step_is_lr_in_the_direction_of_the_sign(kernels):
    """The bias corrections cancel all but the sign: m_hat / sqrt(v_hat) = g / |g| at t = 1."""
    gradients = np.linspace(-2, 2, 20)[None]
    theta, _, _ = run_adam(Adam(0.25, eps=1e-300), np.zeros(20), gradients, load(kernels))
    assert np.allclose(theta, -0.25 * np.sign(gradients[0]), rtol=1e-14)


def test_moments_belong_to_the_parameters_they_were_made_for():
    optimizer = Adam()
    assert optimizer.m is None and optimizer.v is None and optimizer.t == 0
    for dtype in ("float32", "float64"):
        m, v = Adam().prepare(Block(SHAPES, dtype))
        assert m.flat.dtype == v.flat.dtype == dtype and m.shapes == v.shapes == SHAPES
        assert not m.flat.any() and not v.flat.any()
    first = optimizer.prepare(Block(SHAPES, "float64"))
    assert optimizer.prepare(Block(SHAPES, "float64"))[0] is first[0]
    for other in (Block(SHAPES, "float32"), Block({"a.W": (5, 3), "a.b": (5,)}, "float64")):
        with pytest.raises(ValueError, match="other parameters"):
            optimizer.prepare(other)


@pytest.mark.parametrize("make, name", [
    (lambda value: Adam(value), "lr"), (lambda value: Adam(eps=value), "eps"),
    (lambda value: Adam(max_norm=value), "max_norm"), (lambda value: ConstantLR(value), "lr"),
    (lambda value: StepLR(value, [1]), "lr"), (lambda value: StepLR(1.0, [1], value), "factor"),
    (lambda value: CosineLR(value, 10), "lr")])
def test_numbers_that_must_be_positive(make, name):
    for value in (0, 0.0, -1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^{name} must be a finite number more than 0, got"):
            make(value)
    for value in ("1e-3", True, 1j):
        with pytest.raises(TypeError, match=f"^{name} must be a number more than 0, got"):
            make(value)


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_decays_lie_in_zero_to_one(name):
    Adam(**{name: 0})
    for value, says in ((-0.1, "at least 0"), (1, "less than 1"), (1.5, "less than 1"), (math.nan, "finite")):
        with pytest.raises(ValueError, match=f"{name} must be .*{says}"):
            Adam(**{name: value})


# ---- Learning rates

def test_constant_lr():
    assert [ConstantLR(0.3)(step) for step in (0, 1, 10**9)] == [0.3] * 3
    assert [Adam(0.3).lr(step) for step in (0, 10**9)] == [0.3] * 2


def test_step_lr():
    schedule = StepLR(2.0, [3, 5], factor=0.5)
    assert [schedule(step) for step in range(8)] == [2, 2, 2, 1, 1, 0.5, 0.5, 0.5]
    assert StepLR(1.0, [])(99) == 1
    for milestones in ([5, 3], [3, 3]):
        with pytest.raises(ValueError, match="milestones must ascend"):
            StepLR(1.0, milestones)
    with pytest.raises(ValueError, match="milestones must be at least 1"):
        StepLR(1.0, [0, 3])
    with pytest.raises(TypeError, match="milestones must be an integer"):
        StepLR(1.0, [2.5])


def test_cosine_lr():
    schedule = CosineLR(4.0, 12)
    expected = {0: 4, 2: 2 + math.sqrt(3), 4: 3, 6: 2, 8: 1, 12: 0, 13: 0, 999: 0}
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, abs=1e-15)
    values = [schedule(step) for step in range(13)]
    assert values == sorted(values, reverse=True)
    for total in (0, -1):
        with pytest.raises(ValueError, match="total_steps must be at least 1"):
            CosineLR(1.0, total)


# ---- The weight of the KL term

def test_linear_annealing():
    schedule = LinearAnnealing(4, beta=2.0)
    assert [schedule(step) for step in range(7)] == [0, 0.5, 1, 1.5, 2, 2, 2]
    assert LinearAnnealing(1)(0) == 0 and LinearAnnealing(1)(1) == 1
    with pytest.raises(ValueError, match="steps must be at least 1"):
        LinearAnnealing(0)


def test_cyclical_annealing():
    """Three cycles of eight steps: up during the first half of each, full during the second, full for good after."""
    schedule = CyclicalAnnealing(24, cycles=3, ratio=0.5, beta=2.0)
    cycle = [0, 0.5, 1, 1.5, 2, 2, 2, 2]
    assert [schedule(step) for step in range(30)] == pytest.approx(3 * cycle + 6 * [2])
    saw = CyclicalAnnealing(8, cycles=2, ratio=1.0)
    assert [saw(step) for step in range(9)] == pytest.approx([0, 0.25, 0.5, 0.75, 0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("arguments, says", [
    ({"total_steps": 0}, "total_steps must be at least 1"), ({"cycles": 0}, "cycles must be at least 1"),
    ({"ratio": 0}, "ratio must be a finite number more than 0"), ({"ratio": 1.1}, "ratio must be at most 1"),
    ({"beta": -1}, "beta must be a finite number at least 0")])
def test_cyclical_annealing_refuses(arguments, says):
    with pytest.raises(ValueError, match=says):
        CyclicalAnnealing(**{"total_steps": 10, **arguments})


@given(total=st.integers(1, 10**6), cycles=st.integers(1, 20), ratio=st.floats(1e-3, 1), step=st.integers(0, 2 * 10**6))
def test_annealing_stays_between_zero_and_beta(total, cycles, ratio, step):
    for schedule in (CyclicalAnnealing(total, cycles, ratio, 0.7), LinearAnnealing(total, 0.7)):
        assert 0 <= schedule(step) <= 0.7
        assert schedule(0) == 0 and schedule(total) == 0.7


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype, size", [("float32", 1e20), ("float32", 1e-30), ("float64", 1e160), ("float64", 1e308),
                                         ("float64", 1e-200)])
def test_clipping_where_squares_overflow_or_vanish(dtype, size, kernels):
    """A gradient 3, -4 of any size is clipped to the same, and the first step goes by lr; the norm is its own."""
    shapes = {"W": (2,), "b": (3,)}
    parameters, gradients = Block(shapes, dtype), Block(shapes, dtype)
    gradients["W"][...] = np.array([3, -4]) * (size / 5)
    largest, ratio = gradients.norm_in_parts()
    assert largest / size * ratio == pytest.approx(1, rel=1e-6) and gradients.norm() == pytest.approx(size, rel=1e-6)
    optimizer = Adam(0.5, max_norm=0.1 * min(size, 1))
    optimizer.step(parameters, gradients, load(kernels))
    moments = 0.1 * optimizer.max_norm * np.array([0.6, -0.8])
    assert np.allclose(optimizer.m["W"], moments, rtol=1e-5, atol=0) and not optimizer.m["b"].any()
    if size > 1:
        assert np.allclose(parameters["W"], [-0.5, 0.5], rtol=1e-5)
    for bad in (np.inf, np.nan):
        gradients["b"][1] = bad
        assert not np.isfinite(gradients.norm())


def test_an_eps_that_vanishes_in_the_parameters_type_is_refused():
    """It would make 0/0 of a gradient that is 0."""
    with pytest.raises(ValueError, match="^eps must be at least 1.2e-38 for float32, got 1e-300"):
        Adam(eps=1e-300).prepare(Block({"W": (2,)}, "float32"))
    Adam(eps=1e-300).prepare(Block({"W": (2,)}, "float64"))


# ---- Whose kernels

def test_parameters_of_a_model_are_updated_by_its_executor():
    """As fast as `fit` does it, and to the same bits; those of nobody by the reference."""
    rng, models = np.random.default_rng(0), [VAE(6, (4,), 2, seed=0) for _ in range(2)]
    x, eps, optimizers = rng.random((8, 6)), rng.standard_normal((8, 1, 2)), [Adam(), Adam()]
    for vae, optimizer, kernels in zip(models, optimizers, (None, models[1].engine.kernels)):
        for _ in range(3):
            vae.loss_and_gradients(x, eps)
            optimizer.step(vae.parameters, vae.gradients, *[kernels] * (kernels is not None))
    assert models[0].parameters.kernels is models[0].engine.kernels
    assert np.array_equal(models[0].parameters.flat, models[1].parameters.flat)
    assert models[0].parameters.zeros_like().kernels is reference and models[0].gradients.kernels is reference


@pytest.mark.parametrize("again", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_copy_of_parameters_does_not_belong_to_the_model_and_those_of_a_copy_belong_to_the_copy(again):
    vae = VAE(6, (4,), 2)
    other = again(vae)
    assert again(vae.parameters).kernels is reference
    assert other.parameters.kernels is other.engine.kernels is not vae.engine.kernels
    assert vae.parameters.kernels is vae.engine.kernels


def test_parameters_outlive_their_model():
    vae = VAE(6, (4,), 2)
    vae.loss_and_gradients(np.zeros((2, 6)), np.zeros((2, 1, 2)))
    parameters, gradients, before = vae.parameters, vae.gradients, vae.parameters.flat.copy()
    del vae
    assert parameters.kernels is reference
    Adam().step(parameters, gradients)
    assert (parameters.flat != before).any()


def test_other_threads_change_the_executor_and_with_it_the_kernels():
    vae = VAE(6, (4,), 2)
    before = vae.parameters.kernels
    vae.threads = 1
    assert vae.parameters.kernels is vae.engine.kernels is not before
