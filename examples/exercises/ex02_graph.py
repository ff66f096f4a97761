"""Exercise 2: the chain rule on a computational graph, as vector-Jacobian products.

dX is dL/dX, with the shape of X.  A backward function takes the gradient of its output and returns that of its inputs.
"""
from collections.abc import Callable

import numpy as np

# your numbers
A = 0.8
B = -1.5
C = 0.4


def by_hand() -> dict[str, float]:
    """The graph u = A B,  v = tanh(u + C),  L = v^2 + u: its values, then its gradients from L back to A, B and C.

    Returns numbers under the names u, v, L, dv, du, dA, dB, dC.  u is read twice.
    """
    raise NotImplementedError("by_hand, D0.4, D0.7")


def jacobian(vjp: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
    """The Jacobian (n, m), J_ji = dy_j / dx_i, of a function with n outputs and m inputs.

    vjp(dy) is its backward function: dy (n,) -> dx (m,).
    """
    raise NotImplementedError("jacobian, D0.1")


def softmax_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx of y_i = e^x_i / sum_k e^x_k; dy and x are (n,).  Build no matrix."""
    raise NotImplementedError("softmax_backward, D0.1")


def quadratic_backward(dy: float, x: np.ndarray, M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dx (n,) and dM (n, n) of the number y = x^T M x.  M is not symmetric."""
    raise NotImplementedError("quadratic_backward, D0.4")
