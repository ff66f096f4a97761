"""Chapter 8 and appendix H, equation by equation: Adam, clipping and schedules, in both kernel modules."""
import math
from itertools import product

import numpy as np
import pytest

from npvae import Adam, CosineLR, StepLR
from npvae.kernels import fused, reference
from npvae.params import Block

equation = pytest.mark.equation
KERNELS = (reference, fused)
SHAPES = {"W": (2, 3), "b": (3,)}

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D8.1": (reference.adam_update, "(1 - beta1) * g", "(1 + beta1) * g"),
    "D8.2": (reference.adam_update, "(1 - beta2) * g * g", "(1 + beta2) * g * g"),
    "D8.3": (reference.adam_update, "lr / (1 - beta1 ** step)", "lr / (1 - beta1)"),
    "D8.4": (reference.adam_update, "np.sqrt(v) / root + eps", "(np.sqrt(v) + eps) / root"),
    "D8.5": (Adam.step, "self.max_norm / largest / ratio if", "ratio / self.max_norm if"),
    "D8.6": (CosineLR.__call__, "1 + math.cos", "1 - math.cos"),
    "D8.7": (StepLR.__call__, "step >= milestone", "step > milestone"),
    "D8.8": (Adam.step, "1 - lr * self.weight_decay", "1 - self.weight_decay")}


def close(a, b, tolerance=1e-13):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=0)


def run(kernels, gradients, lr=0.1, eps=1e-8, beta1=0.9, beta2=0.999, scale=1.0):
    """theta (T, P) after each step from 0, and the last m and v; gradients (T, P)."""
    theta, m, v = (np.zeros(gradients.shape[1]) for _ in range(3))
    path = []
    for t, g in enumerate(gradients, start=1):
        kernels.adam_update(theta, m, v, g, lr, beta1, beta2, eps, scale, t)
        path.append(theta.copy())
    return np.array(path), m, v


def weighted_sum(values, beta):
    """sum_i (1 - beta) beta^(T - i) values_i, the running mean without a recursion."""
    terms = [[(1 - beta) * beta ** (len(values) - i) * float(value) for value in row]
             for i, row in enumerate(values, start=1)]
    return [math.fsum(column) for column in zip(*terms)]


def gradients_of_all_sizes():
    rng = np.random.default_rng(5)
    return rng.uniform(0.5, 2.0, (40, 7)) * rng.choice([-1.0, 1.0], (40, 7)) * 10.0 ** np.arange(-3, 4)


@equation("D8.1")
def test_m_is_a_weighted_sum_of_all_gradients():
    gradients = gradients_of_all_sizes()
    for kernels in KERNELS:
        for beta1, scale in ((0.9, 1.0), (0.5, 0.25)):
            _, m, _ = run(kernels, gradients, beta1=beta1, scale=scale)
            np.testing.assert_allclose(m, weighted_sum(scale * gradients, beta1), rtol=1e-11)      # terms cancel


@equation("D8.2")
def test_v_is_a_weighted_sum_of_all_squares():
    gradients = gradients_of_all_sizes()
    for kernels in KERNELS:
        for beta2, scale in ((0.999, 1.0), (0.6, 0.25)):
            _, _, v = run(kernels, gradients, beta2=beta2, scale=scale)
            close(v, weighted_sum((scale * gradients) ** 2, beta2))


@equation("D8.3")
def test_corrected_means_are_right_on_average():
    """A gradient of 2, -1/2 or 1 by chance, and all 81 histories of four steps, an entry each: the mean over them is
    the expectation.  An eps that swamps the root shows m_hat as the step, one of zero then shows v_hat."""
    outcomes = [2.0, -0.5, 1.0]
    histories = np.array(list(product(outcomes, repeat=4))).T.copy()      # T = 4, P = 81
    huge = 2.0 ** 100
    for kernels in KERNELS:
        for t in range(4):
            shown, _, _ = run(kernels, histories, lr=huge, eps=huge)
            m_hat = -np.diff(shown, axis=0, prepend=0)[t]
            steps, _, _ = run(kernels, histories, lr=1.0, eps=1e-300)
            v_hat = (m_hat / np.diff(steps, axis=0, prepend=0)[t]) ** 2
            close(m_hat.mean(), np.mean(outcomes))
            close(v_hat.mean(), np.mean(np.square(outcomes)), 1e-11)      # the step is the difference of two thetas


@equation("D8.4")
def test_a_gradient_that_stays_the_same_makes_equal_steps():
    """Of lr g / (|g| + eps), from gradients far below eps to far above: eps is added after the correction."""
    g = np.array([1e-6, -1e-4, 1e-3, -1.0, 1e3])
    t = np.arange(1, 31)[:, None]
    for kernels in KERNELS:
        for eps in (1e-3, 1e-8):
            path, _, _ = run(kernels, np.tile(g, (30, 1)), lr=0.3, eps=eps)
            close(path, -t * 0.3 * g / (np.abs(g) + eps), 1e-11)
        one, _, _ = run(kernels, gradients_of_all_sizes(), eps=1e-300)
        other, _, _ = run(kernels, 1e5 * gradients_of_all_sizes(), eps=1e-300)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)      # the units of a gradient do not matter


def clipped(kernels, values, max_norm):
    """The gradient after clipping: m after one step without memory."""
    parameters, gradients = Block(SHAPES, "float64"), Block(SHAPES, "float64")
    gradients.flat[...] = values
    adam = Adam(beta1=0.0, max_norm=max_norm)
    adam.step(parameters, gradients, kernels)
    return adam.m.flat


@equation("D8.5")
def test_clipping_takes_the_nearest_vector_that_is_short_enough():
    rng = np.random.default_rng(6)
    gradient = rng.standard_normal(9)
    length = math.sqrt(math.fsum(float(g) ** 2 for g in gradient))
    ball = rng.standard_normal((2000, 9))
    ball *= rng.random((2000, 1)) ** (1 / 9) / np.linalg.norm(ball, axis=1, keepdims=True)      # uniform, radius 1
    for kernels in KERNELS:
        for factor in (1e-3, 0.3, 0.999):
            near = clipped(kernels, gradient, factor * length)
            close(math.sqrt(math.fsum(float(g) ** 2 for g in near)), factor * length)
            others = np.linalg.norm(factor * length * ball - gradient, axis=1)
            assert np.linalg.norm(near - gradient) < others.min()
            close(near * gradient[0], near[0] * gradient)      # one direction
        for factor in (1.001, 50.0):
            assert np.array_equal(clipped(kernels, gradient, factor * length), gradient)


@equation("D8.8")
def test_weights_shrink_beside_adam_and_not_through_it():
    """Loshchilov and Hutter 2019: where all gradients are 0, W_t = W_0 prod (1 - lr lambda); elsewhere Adam's step is
    added, and its moments know nothing of the decay."""
    schedule, rng = StepLR(0.1, [3], 0.5), np.random.default_rng(7)
    for kernels in KERNELS:
        for size in (0.0, 1.0):
            decayed, plain = Adam(schedule, weight_decay=0.4), Adam(schedule)
            one, other, gradients = (Block({"layer.W": (2, 3), "layer.b": (3,)}, "float64") for _ in range(3))
            one.flat[...] = other.flat[...] = rng.standard_normal(9)
            start, moved = one["layer.W"].copy(), np.zeros((2, 3))
            for t in range(5):
                gradients.flat[...] = size * rng.standard_normal(9)
                before = other["layer.W"].copy()
                for optimizer, block in ((decayed, one), (plain, other)):
                    optimizer.step(block, gradients, kernels)
                factors = [1 - (0.1 if i < 3 else 0.05) * 0.4 for i in range(t + 1)]
                moved = moved * factors[t] + other["layer.W"] - before
                np.testing.assert_allclose(one["layer.W"], start * math.prod(factors) + moved, rtol=1e-12)
            assert np.array_equal(one["layer.b"], other["layer.b"])
            assert np.array_equal(decayed.m.flat, plain.m.flat) and np.array_equal(decayed.v.flat, plain.v.flat)


@equation("D8.6")
def test_cosine_at_angles_known_since_euclid():
    root = math.sqrt
    cosines = {0: 1, 10: (root(6) + root(2)) / 4, 20: root(3) / 2, 24: (1 + root(5)) / 4, 30: root(2) / 2, 40: 1 / 2,
               48: (root(5) - 1) / 4, 60: 0}      # of 180 degrees / 120 times the key
    cosines.update({120 - t: -value for t, value in cosines.items()})
    schedule = CosineLR(0.8, 120)
    for t, value in cosines.items():
        assert math.isclose(schedule(t), 0.4 * (1 + value), rel_tol=1e-14, abs_tol=1e-16), t
    assert schedule(121) == schedule(10 ** 6) == schedule(120) == 0


@equation("D8.7")
def test_steps_down_at_each_milestone():
    schedule, lr = StepLR(0.8, [3, 4, 9], factor=0.25), 0.8
    for t in range(12):
        if t in (3, 4, 9):
            lr /= 4
        assert schedule(t) == lr, t
