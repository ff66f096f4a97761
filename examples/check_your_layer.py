"""Is your layer's backward pass right?  Layer normalisation, which npvae does not have: one right version, six wrong.

    python examples/check_your_layer.py      exit code 0: the right one passes and every wrong one is caught

Each row of x (B, D) is normalised to mean 0 and variance 1, then each column is scaled and shifted (Ba, Kiros and
Hinton 2016):

    y = gain * x_hat + bias,    x_hat = (x - m) / s,    m = mean_D x,    s = sqrt(mean_D (x - m)^2 + 1e-5)

Backward, from dy (B, D), with d = dy * gain.  x_hat depends on x directly, through m, and through s:

    dgain = sum_B dy * x_hat        dbias = sum_B dy        dx = (d - mean_D d - x_hat * mean_D (d * x_hat)) / s

To test a layer of your own you need two functions: forward(**inputs) -> array, and backward(dy, **inputs) -> gradients
by name.  The test is one call; with shapes and values drawn by Hypothesis it reads:

    from hypothesis import given
    from npvae.testing import assert_gradients, inputs

    @given(inputs({"x": "BD", "gain": "D", "bias": "D"}, least=4))
    def test_layer_norm(inputs):
        assert_gradients(forward, backward, inputs)
"""
import sys
from collections.abc import Callable

import numpy as np

from npvae.gradcheck import check_pair
from npvae.gradcheck import Report

Arrays = dict[str, np.ndarray]


def normalise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x_hat (B, D) and s (B, 1).  Without abs and comparisons, so that x may be complex for exact derivatives."""
    centred = x - x.mean(axis=1, keepdims=True)
    s = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + 1e-5)
    return centred / s, s


def forward(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """y (B, D)."""
    return gain * normalise(x)[0] + bias


def backward(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """The gradients of x, gain and bias, from dy (B, D)."""
    x_hat, s = normalise(x)
    d = dy * gain
    dx = (d - d.mean(axis=1, keepdims=True) - x_hat * (d * x_hat).mean(axis=1, keepdims=True)) / s
    return {"x": dx, "gain": (dy * x_hat).sum(axis=0), "bias": dy.sum(axis=0)}


# --- Wrong versions ---

def mean_forgotten(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """dx as if m were a constant."""
    x_hat, s = normalise(x)
    d = dy * gain
    dx = (d - x_hat * (d * x_hat).mean(axis=1, keepdims=True)) / s
    return {**backward(dy, x, gain, bias), "x": dx}


def variance_forgotten(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """dx as if s were a constant."""
    s = normalise(x)[1]
    d = dy * gain
    return {**backward(dy, x, gain, bias), "x": (d - d.mean(axis=1, keepdims=True)) / s}


def mean_for_sum(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """dbias is the mean over rows instead of their sum."""
    return {**backward(dy, x, gain, bias), "bias": dy.mean(axis=0)}


def input_forgotten(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """dgain lacks its factor x_hat."""
    return {**backward(dy, x, gain, bias), "gain": dy.sum(axis=0)}


def in_place(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """The gradients are right, but dy is overwritten, and the caller may need it elsewhere."""
    gradients = backward(dy, x, gain, bias)
    dy *= gain
    return gradients


TOTAL: Arrays = {}


def accumulating(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Arrays:
    """Right at the first call; later ones add their gradients to it."""
    for name, gradient in backward(dy, x, gain, bias).items():
        TOTAL[name] = TOTAL.get(name, 0) + gradient
    return dict(TOTAL)


WRONG = [mean_forgotten, variance_forgotten, mean_for_sum, input_forgotten, in_place, accumulating]


def check(candidate: Callable[..., Arrays]) -> Report:
    """The test: one call, on inputs whose sizes differ and whose values have both signs."""
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(4, 7)), "gain": rng.normal(size=7), "bias": rng.normal(size=7)}
    return check_pair(forward, candidate, inputs)


def main() -> int:
    """Print all reports.  Returns 0 if the right version passes and every wrong one is caught, else 1."""
    reports = {candidate: check(candidate) for candidate in [backward, *WRONG]}
    for candidate, report in reports.items():
        print(f"{candidate.__name__}: {' '.join((candidate.__doc__ or '').split())}\n{report}\n")
    caught = [candidate for candidate in WRONG if not reports[candidate].ok]
    print(f"the right layer {'passes' if reports[backward].ok else 'FAILS'}, {len(caught)} of {len(WRONG)} wrong ones "
          "are caught")
    return 0 if reports[backward].ok and len(caught) == len(WRONG) else 1


if __name__ == "__main__":
    sys.exit(main())
