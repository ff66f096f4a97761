"""Exercise 3: the dense layer and its activations.

Shapes: x (B, I), W (I, O), b (O,), y (B, O).  dX is dloss/dX, with the shape of X.  Activations are elementwise, and
their backward functions get the output y, not the input.
"""
import numpy as np

# your numbers
SLOPE = 0.1      # of the leaky ReLU, where its input is negative


def dense(x: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """y = x W + b."""
    raise NotImplementedError("dense, D1.1")


def dense_backward(dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dW and db of y = x W + b, from dy (B, O)."""
    raise NotImplementedError("dense_backward, D1.3, D1.4, D1.5")


def relu(a: np.ndarray) -> np.ndarray:
    """y = max(a, 0), in the precision of a."""
    raise NotImplementedError("relu, D2.2")


def relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """da of y = max(a, 0)."""
    raise NotImplementedError("relu_backward, D2.2")


def leaky_relu_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """da of y = a where a > 0 and SLOPE a elsewhere."""
    raise NotImplementedError("leaky_relu_backward, D2.3")


def tanh_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """da of y = tanh(a)."""
    raise NotImplementedError("tanh_backward, D2.5")


def tied_backward(dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dx and dW of an autoencoder that uses one matrix twice: y = tanh(x W) W^T, y (B, I)."""
    raise NotImplementedError("tied_backward, D0.4, D1.4")
