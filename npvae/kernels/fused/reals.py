"""Real and positive numbers, fused: in double precision, as in the reference."""
import math

import numpy as np

from ..reference.arrays import LOG_2PI
from ..reference.counts import LARGEST
from ..reference.gamma import SHIFT
from ..reference.reals import LOG_2
from .compile import inlined, jit
from .elementary import excess, exp
from .gamma import bounded, rest, rest_slope


@jit
def append_parameters_forward(out, output, own):
    P, step = output.shape[2], 0 if own.shape[0] == 1 else 1
    for b in range(out.shape[0]):
        for k in range(out.shape[1]):
            for p in range(P):
                out[b, k, p] = output[b, k, p]
            for d in range(out.shape[2] - P):
                out[b, k, P + d] = own[step * d]


@jit
def append_parameters_backward(doutput, down, dout):
    zero, P = down.dtype.type(0), doutput.shape[2]
    D, single = dout.shape[2] - P, down.shape[0] == 1
    total = 0.0
    for d in range(down.shape[0]):
        down[d] = zero
    for b in range(dout.shape[0]):
        for k in range(dout.shape[1]):
            for p in range(P):
                doutput[b, k, p] = dout[b, k, p]
            for d in range(D if single else 0):
                total += dout[b, k, P + d]
            for d in range(0 if single else D):
                down[d] += dout[b, k, P + d]
    if single:
        down[0] = total


@inlined
def _normalizer(log_df):
    """c(nu), as in the reference."""
    a, log_a = 0.5 * exp(log_df), log_df - LOG_2
    small = a < SHIFT
    z = a + SHIFT if small else a
    value = z * excess(math.log1p(0.5 / z)) + rest(z) - rest(z + 0.5)
    if small:
        value += 0.5 * (log_a - math.log(z)) + math.log(a + 0.5) - log_a
        for j in range(1, SHIFT):
            value += math.log1p(0.5 / (a + j))
    return value


@inlined
def _normalizer_slope(log_df):
    a = 0.5 * exp(log_df)
    small = a < SHIFT
    z = a + SHIFT if small else a
    slope = z * (excess(math.log1p(0.5 / z)) + rest_slope(z) - rest_slope(z + 0.5)) - 0.5 / (2.0 * z + 1.0)
    if small:
        slope = slope * a / z + 0.5 - 0.5 * a / z
        for j in range(SHIFT):
            slope -= 0.5 * a / ((a + j) * (a + j + 0.5))
    return slope


@jit
def student_t_nll_forward(cells, output, x):
    D = cells.shape[2]
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            for d in range(D):
                s, log_df = np.float64(output[b, k, D + d]), bounded(np.float64(output[b, k, 2 * D + d]), LARGEST)
                u, df = (np.float64(x[b, d]) - output[b, k, d]) * exp(-s), exp(log_df)
                tail = 0.5 * (df + 1.0) * math.log1p(u * (u / df))
                cells[b, k, d] = tail + s + 0.5 * LOG_2PI + _normalizer(log_df)


@jit
def student_t_nll_backward(doutput, dcells, output, x):
    D = dcells.shape[2]
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            for d in range(D):
                s, log_df = np.float64(output[b, k, D + d]), bounded(np.float64(output[b, k, 2 * D + d]), LARGEST)
                inverse, df, upstream = exp(-s), exp(log_df), dcells[b, k, d]
                u = (np.float64(x[b, d]) - output[b, k, d]) * inverse
                q = u * (u / df)
                h = (1.0 + 1.0 / df) * u / (1.0 + q)
                by_df = 0.5 * (df * excess(-math.log1p(q)) - q / (1.0 + q)) + _normalizer_slope(log_df)
                doutput[b, k, d], doutput[b, k, D + d] = upstream * -h * inverse, upstream * (1.0 - h * u)
                doutput[b, k, 2 * D + d] = upstream * by_df


@jit
def laplace_nll_forward(cells, output, x):
    D = cells.shape[2]
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            for d in range(D):
                s = np.float64(output[b, k, D + d])
                u = (np.float64(x[b, d]) - output[b, k, d]) * exp(-s)
                cells[b, k, d] = (-u if u < 0.0 else u) + s + LOG_2


@jit
def laplace_nll_backward(doutput, dcells, output, x):
    D = dcells.shape[2]
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            for d in range(D):
                inverse, upstream = exp(-np.float64(output[b, k, D + d])), dcells[b, k, d]
                u = (np.float64(x[b, d]) - output[b, k, d]) * inverse
                sign = -1.0 if u < 0.0 else (1.0 if u > 0.0 else 0.0 * u)
                doutput[b, k, d], doutput[b, k, D + d] = upstream * -sign * inverse, upstream * (1.0 - sign * u)


@jit
def log_normal_nll_forward(cells, output, x):
    D = cells.shape[2]
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            for d in range(D):
                s, log_x = np.float64(output[b, k, D + d]), math.log(np.float64(x[b, d]))
                u = (log_x - output[b, k, d]) * exp(-s)
                cells[b, k, d] = 0.5 * u * u + s + 0.5 * LOG_2PI + log_x


@jit
def log_normal_nll_backward(doutput, dcells, output, x):
    D = dcells.shape[2]
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            for d in range(D):
                inverse, upstream = exp(-np.float64(output[b, k, D + d])), dcells[b, k, d]
                u = (math.log(np.float64(x[b, d])) - output[b, k, d]) * inverse
                doutput[b, k, d], doutput[b, k, D + d] = upstream * -u * inverse, upstream * (1.0 - u * u)
