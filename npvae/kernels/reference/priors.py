"""Priors: log p(z) of a draw, in nats.  A chapter of the kernels beside `latents`, where p(z) = N(0, I) is built in.

Shapes:  z (B, K, Z);  log_p (B, K).
"""
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

LOG_2PI = math.log(2 * math.pi)


def standard_normal_forward(log_p: Array, z: Array) -> None:
    """log_p[b, k] = log N(z; 0, I) = sum_j -1/2 [ z^2 + log 2 pi ]."""
    np.sum(-0.5 * (z * z + LOG_2PI), axis=-1, out=log_p)


def standard_normal_backward(dz: Array, dlog_p: Array, z: Array) -> None:
    """forward was  log_p = sum_j -1/2 z^2 + const:   dz = -dlog_p * z."""
    dz[...] = -dlog_p[:, :, None] * z
