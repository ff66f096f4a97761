"""Rows of the data set by index, fused: converted and binarized without a copy in between; and noise."""
import math

import numpy as np

from .compile import jit
from .elementary import cos_sin, log_unit


@jit
def gather_rows(x, rows, index, scale):
    factor = x.dtype.type(scale)
    for b in range(x.shape[0]):
        row = index[b]
        for d in range(x.shape[1]):
            x[b, d] = x.dtype.type(rows[row, d]) * factor


@jit
def gather_binarized(x, rows, index, noise, scale):
    zero, one, factor = x.dtype.type(0), x.dtype.type(1), x.dtype.type(scale)
    for b in range(x.shape[0]):
        row = index[b]
        for d in range(x.shape[1]):
            x[b, d] = one if noise[b, d] < x.dtype.type(rows[row, d]) * factor else zero


@jit
def box_muller(eps, uniform):
    for i in range(eps.size // 2):
        r = math.sqrt(np.float32(-2) * log_unit(np.float32(1) - uniform[2 * i]))
        cosine, sine = cos_sin(uniform[2 * i + 1])
        eps[2 * i] = r * cosine
        eps[2 * i + 1] = r * sine
