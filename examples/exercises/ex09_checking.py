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
    raise NotImplementedError("central_difference, D9.1")


def two_step_sizes(f: Callable[[np.ndarray], float], theta: np.ndarray, h: float) -> np.ndarray:
    """The gradient of f from the central differences with steps h and RATIO h, combined so that their errors in h^2
    cancel."""
    raise NotImplementedError("two_step_sizes, D9.9")


def complex_step(f: Callable[[np.ndarray], complex], theta: np.ndarray) -> np.ndarray:
    """The gradient of f, exact to rounding."""
    raise NotImplementedError("complex_step, D9.3")


def relative_error(analytic: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """The error of each entry, relative to the numeric entry or to the root mean square of all of them, whichever is
    larger."""
    raise NotImplementedError("relative_error, D9.5")


def gradient_is_right(loss: Callable[[np.ndarray], complex], gradient: np.ndarray, theta: np.ndarray) -> bool:
    """Your checker: is this the gradient of the loss at theta?  Loss and gradient may be tiny."""
    raise NotImplementedError("gradient_is_right, D9.3, D9.5")


def sampler_is_honest(draw: Callable[[int], np.ndarray], mu: np.ndarray, logvar: np.ndarray) -> bool:
    """draw(n) gives n draws, (n, Z).  Do they have the mean mu (Z,) and the variance e^logvar (Z,), up to chance?

    No gradient check can answer that: the gradient of a wrong sampler may be right.
    """
    raise NotImplementedError("sampler_is_honest, D5.4")
