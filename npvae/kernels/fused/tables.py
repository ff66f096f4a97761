"""Tables, fused."""
import math

from ..reference.arrays import LOG_2PI
from ..reference.tables import LOG, LOG1P
from .compile import jit
from .elementary import exp


@jit
def standardize_columns(u, x, columns, transforms, location, scale):
    for b in range(u.shape[0]):
        for i in range(u.shape[1]):
            value = x[b, columns[i]]
            if transforms[i] == LOG:
                value = math.log(value)
            elif transforms[i] == LOG1P:
                value = math.log1p(value)
            u[b, i] = (value - location[i]) / scale[i]


@jit
def take_columns_forward(part, whole, columns):
    for b in range(part.shape[0]):
        for k in range(part.shape[1]):
            for i in range(part.shape[2]):
                part[b, k, i] = whole[b, k, columns[i]]


@jit
def take_columns_backward(dwhole, dpart, columns):
    for b in range(dpart.shape[0]):
        for k in range(dpart.shape[1]):
            for i in range(dpart.shape[2]):
                dwhole[b, k, columns[i]] = dpart[b, k, i]


@jit
def place_cells_forward(cells, part, x, columns, transforms, log_scale):
    for b in range(part.shape[0]):
        for i in range(part.shape[2]):
            change = log_scale[i]
            if transforms[i] == LOG:
                change += math.log(x[b, columns[i]])
            for k in range(part.shape[1]):
                cells[b, k, columns[i]] = part[b, k, i] + change


@jit
def place_cells_backward(dpart, dcells, columns):
    for b in range(dpart.shape[0]):
        for k in range(dpart.shape[1]):
            for i in range(dpart.shape[2]):
                dpart[b, k, i] = dcells[b, k, columns[i]]


@jit
def gaussian_columns_nll_forward(cells, output, x):
    half, c = output.dtype.type(0.5), output.dtype.type(0.5 * LOG_2PI)
    n = x.shape[1]
    for b in range(cells.shape[0]):
        for k in range(cells.shape[1]):
            for d in range(n):
                s = output[b, k, n + d]
                u = (x[b, d] - output[b, k, d]) * exp(-s)
                cells[b, k, d] = half * u * u + s + c


@jit
def gaussian_columns_nll_backward(doutput, dcells, output, x):
    one = output.dtype.type(1)
    n = x.shape[1]
    for b in range(dcells.shape[0]):
        for k in range(dcells.shape[1]):
            for d in range(n):
                rate = exp(-output[b, k, n + d])
                u = (x[b, d] - output[b, k, d]) * rate
                doutput[b, k, d] = -dcells[b, k, d] * u * rate
                doutput[b, k, n + d] = dcells[b, k, d] * (one - u * u)
