"""Exercise 8: Adam.

theta, grad, m and v are arrays of one shape; t counts the steps from 1, and m and v are zero before the first.  Return
new arrays: the arguments stay as they are.
"""
import numpy as np

# your numbers: the gradients of two steps, for two_steps()
GRADIENTS = (2.0, -0.5)


def adam_step(theta: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray, t: int, lr: float = 1e-3,
              beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """theta, m and v after step t."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad ** 2
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return theta - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def two_steps() -> tuple[float, float]:
    """By hand: what Adam adds to a parameter in steps 1 and 2, if its gradients are GRADIENTS.  lr = 1, beta1 = 0.5,
    beta2 = 0.75, eps = 0."""
    g1, g2 = GRADIENTS
    m_hat, v_hat = (0.25 * g1 + 0.5 * g2) / 0.75, (0.1875 * g1 ** 2 + 0.25 * g2 ** 2) / 0.4375
    return float(-np.sign(g1)), float(-m_hat / np.sqrt(v_hat))


def cosine_lr(t: int, lr: float, steps: int) -> float:
    """The learning rate at step t: half a cosine from lr at t = 0 to 0 at t = steps, and 0 after that."""
    return float(lr / 2 * (1 + np.cos(np.pi * min(1, t / steps))))


def amsgrad_step(theta: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray, largest: np.ndarray,
                 lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """theta, m, v and largest after a step of AMSGrad (Reddi et al. 2018): Adam without the corrections of the bias,
    that divides by the root of the largest v so far, entry by entry."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad ** 2
    largest = np.maximum(largest, v)
    return theta - lr * m / (np.sqrt(largest) + eps), m, v, largest
