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
    raise NotImplementedError("adam_step, D8.1 to D8.4")


def two_steps() -> tuple[float, float]:
    """By hand: what Adam adds to a parameter in steps 1 and 2, if its gradients are GRADIENTS.  lr = 1, beta1 = 0.5,
    beta2 = 0.75, eps = 0."""
    raise NotImplementedError("two_steps, D8.1 to D8.4")


def cosine_lr(t: int, lr: float, steps: int) -> float:
    """The learning rate at step t: half a cosine from lr at t = 0 to 0 at t = steps, and 0 after that."""
    raise NotImplementedError("cosine_lr, D8.6")


def amsgrad_step(theta: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray, largest: np.ndarray,
                 lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """theta, m, v and largest after a step of AMSGrad (Reddi et al. 2018): Adam without the corrections of the bias,
    that divides by the root of the largest v so far, entry by entry."""
    raise NotImplementedError("amsgrad_step, D8.1, D8.2")
