"""Exercise 3: the dense layer and its activations.

Shapes: x (B, I), W (I, O), b (O,), y (B, O).  dX is dloss/dX, with the shape of X.  Activations are elementwise, and
their backward functions get the output y, not the input.
"""
import numpy as np

# your numbers
SLOPE = 0.1      # of the leaky ReLU, where its input is negative


def dense(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """y = x W + b."""
    return x @ W + b


def dense_backward(dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dW and db of y = x W + b, from dy (B, O)."""
    return dy @ W.T, x.T @ dy, dy.sum(axis=0)


def relu(a: np.ndarray) -> np.ndarray:
    """y = max(a, 0), in the precision of a."""
    return np.maximum(a, 0)


def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """da of y = max(a, 0)."""
    return dy * (y > 0)


def leaky_relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """da of y = a where a > 0 and SLOPE a elsewhere."""
    return np.where(y > 0, dy, SLOPE * dy)


def tanh_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """da of y = tanh(a)."""
    return dy * (1 - y) * (1 + y)


def tied_backward(dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dx and dW of an autoencoder that uses one matrix twice: y = tanh(x W) W^T, y (B, I)."""
    h = np.tanh(x @ W)
    dpre = tanh_backward(dy @ W, h)
    return dpre @ W.T, dy.T @ h + x.T @ dpre
