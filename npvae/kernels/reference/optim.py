"""Adam, on the flat vector of all parameters.  Read after `objectives.py`."""
import math

import numpy as np

from .arrays import Array


def adam_update(theta: Array, m: Array, v: Array, grad: Array, lr: float, beta1: float, beta2: float, eps: float,
                scale: float, step: int) -> None:
    """One step of Adam (Kingma and Ba 2015, Algorithm 1), in place.  All arrays (P,); step counts from 1.

        g     = scale * grad                              scale < 1 where the gradient's norm is clipped
        m     = beta1 m + (1 - beta1) g                   running mean of the gradient                      (D8.1)
        v     = beta2 v + (1 - beta2) g^2                 running mean of its square                        (D8.2)
        m_hat = m / (1 - beta1^step)                      corrects the bias of starting at zero             (D8.3)
        v_hat = v / (1 - beta2^step)
        theta = theta - lr m_hat / (sqrt(v_hat) + eps)    eps is added *after* the bias correction          (D8.4)
    """
    g = scale * grad
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    rate = lr / (1 - beta1 ** step)
    root = math.sqrt(1 - beta2 ** step)
    np.subtract(theta, rate * m / (np.sqrt(v) / root + eps), out=theta)
