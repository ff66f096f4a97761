"""Exercise 9: checking a gradient, and what a gradient check cannot see.

f and loss are functions of one array that return a number; they take real and complex numbers.  theta is an array of
any shape, and its gradient has the same.
"""
from collections.abc import Callable

import numpy as np

# your number, for two_step_sizes()
RATIO = 2


def central_difference(f: Callable[[np.ndarray], float], theta: np.ndarray, h: float) -> np.ndarray:
    """The gradient of f, entry by entry, by the central difference with step h."""
    gradient = np.empty(theta.shape)
    for index in np.ndindex(theta.shape):
        step = np.zeros(theta.shape)
        step[index] = h
        gradient[index] = (f(theta + step) - f(theta - step)) / (2 * h)
    return gradient


def two_step_sizes(f: Callable[[np.ndarray], float], theta: np.ndarray, h: float) -> np.ndarray:
    """The gradient of f from the central differences with steps h and RATIO h, combined so that their errors in h^2
    cancel."""
    near, far = central_difference(f, theta, h), central_difference(f, theta, RATIO * h)
    return near + (near - far) / (RATIO ** 2 - 1)


def complex_step(f: Callable[[np.ndarray], complex], theta: np.ndarray) -> np.ndarray:
    """The gradient of f, exact to rounding."""
    gradient = np.empty(theta.shape)
    for index in np.ndindex(theta.shape):
        step = np.zeros(theta.shape, complex)
        step[index] = 1e-30j
        gradient[index] = f(theta + step).imag / 1e-30
    return gradient


def relative_error(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """The error of each entry, relative to the numeric entry or to the root mean square of all of them, whichever is
    larger."""
    return np.abs(analytic - numeric) / np.maximum(np.abs(numeric), np.sqrt(np.mean(numeric ** 2)))


def gradient_is_right(loss: Callable[[np.ndarray], complex], gradient: np.ndarray, theta: np.ndarray) -> bool:
    """Your checker: is this the gradient of the loss at theta?  Loss and gradient may be tiny."""
    return bool(np.all(relative_error(gradient, complex_step(loss, theta)) < 1e-10))


def sampler_is_honest(draw: Callable[[int], np.ndarray], mu: np.ndarray, logvar: np.ndarray) -> bool:
    """draw(n) gives n draws, (n, Z).  Do they have the mean mu (Z,) and the variance e^logvar (Z,), up to chance?

    No gradient check can answer that: the gradient of a wrong sampler may be right.
    """
    n = 20000
    z = draw(n)
    u = (z - mu) / np.exp(logvar / 2)
    # the mean of u is 0 +- 1 / sqrt(n), that of u^2 is 1 +- sqrt(2 / n)
    return bool(np.all(np.abs(u.mean(axis=0)) < 5 / np.sqrt(n))
                and np.all(np.abs((u ** 2).mean(axis=0) - 1) < 5 * np.sqrt(2 / n)))
