"""Real and positive numbers of any unit: -log p(x|z) in nats, one cell for each column.  Read after `counts.py`.

Each family has a location from the decoder and a scale; chapter 16 says which to take when.  Shapes:  cells (B, K, D);
x (B, D);  output (B, K, m D): D numbers of the first kind, then D of the second, and so on.
"""
import math

import numpy as np

from .arrays import LOG_2PI, Array
from .counts import LARGEST
from .dense import bounded
from .gamma import SHIFT, rest, rest_slope
from .latents import excess

LOG_2 = math.log(2)


def append_parameters_forward(out: Array, output: Array, own: Array) -> None:
    """out[b, k] = [output[b, k], own]:  parameters that all rows share become columns of the decoder's output.

    output (B, K, P);  own (D,), one for each column of x, or (1,), one for all;  out (B, K, P + D).
    """
    width = output.shape[-1]
    out[:, :, :width] = output
    out[:, :, width:] = own


def append_parameters_backward(doutput: Array, down: Array, dout: Array) -> None:
    """Backward pass of  out[b, k] = [output[b, k], own]:

        down[d] = sum_{b, k} dout[b, k, P + d]        (D16.17)  every row depends on it;  of (1,), summed over d as well

    doutput is the first P columns of dout.
    """
    width = doutput.shape[-1]
    doutput[...] = dout[:, :, :width]
    total = np.sum(dout[:, :, width:], axis=(0, 1))
    down[...] = total if len(down) == len(total) else np.sum(total)


def _normalizer(log_df: Array) -> tuple[Array, Array]:
    """c(nu) of D16.11 and its derivative with respect to log nu."""
    log_df = bounded(log_df, LARGEST)
    a = 0.5 * np.exp(log_df)
    small, steps = a.real < SHIFT, np.arange(SHIFT)
    z = np.where(small, a + SHIFT, a)
    v = np.log1p(0.5 / z)
    value = z * excess(v) + rest(z) - rest(z + 0.5)
    slope = z * (excess(v) + rest_slope(z) - rest_slope(z + 0.5)) - 0.5 / (2 * z + 1)
    b = np.where(small, a, 1)[..., None] + steps
    near = 0.5 * (log_df - LOG_2 - np.log(z)) + np.sum(np.log1p(0.5 / b[..., 1:]), axis=-1) + np.log(a + 0.5) - (
        log_df - LOG_2)
    near_slope = 0.5 - 0.5 * a / z - np.sum(0.5 * a[..., None] / (b * (b + 0.5)), axis=-1)
    return value + np.where(small, near, 0), slope * np.where(small, a / z, 1) + np.where(small, near_slope, 0)


def _standard(output: Array, x: Array, blocks: int) -> tuple[Array, ...]:
    """(x - location) exp(-s), s = log scale, and what follows in the output, in double precision."""
    location, *others = np.split(output.astype(np.promote_types(output.dtype, np.float64)), blocks, axis=-1)
    return (x[:, None, :] - location) * np.exp(-others[0]), *others


def student_t_nll_forward(cells: Array, output: Array, x: Array) -> None:
    """Student's t, whose tails are heavy: an outlier at distance u costs (nu + 1) log u, where a Gaussian asks u^2 / 2.

        -log p(x) = (nu + 1)/2 log(1 + u^2 / nu) + s + 1/2 log(2 pi) + c(nu),      u = (x - m) exp(-s)
        c(nu) = log Gamma(nu/2) - log Gamma((nu + 1)/2) + 1/2 log(nu/2)             (D16.11)

    output (B, K, 3 D): the locations m, then s = log scale, then log nu, the degrees of freedom.  c falls to 0 as nu
    grows, and the rest becomes the Gaussian's.  With a = nu/2 and R of Stirling's formula,

        c = 1/2 - a log(1 + 1/(2 a)) + R(a) - R(a + 1/2)

    and 1/2 - a log(1 + 1/(2 a)) = a [ exp(v) - 1 - v ],  v = log(1 + 1/(2 a)).  For a < 8 it is taken at a + 8, and
    Gamma(a + 1) = a Gamma(a) leads back.
    """
    u, s, log_df = _standard(output, x, 3)
    df = np.exp(bounded(log_df, LARGEST))
    tail = 0.5 * (df + 1) * np.log1p(u * (u / df))
    cells[...] = tail + s + 0.5 * LOG_2PI + _normalizer(log_df)[0]


def student_t_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array) -> None:
    """Backward pass of  (nu + 1)/2 log(1 + u^2 / nu) + s + c(nu),   with  q = u^2 / nu,  h = (nu + 1) u / (nu + u^2):

        dm      = -dcells * h exp(-s)           ds = dcells * (1 - h u)                            (D16.12)
        dlog nu = dcells * [ 1/2 (nu (v - 1 + exp(-v)) - q / (1 + q)) + nu c'(nu) ],   v = log(1 + q)

    h is bounded: the further out, the weaker the pull.
    """
    u, s, log_df = _standard(output, x, 3)
    df = np.exp(bounded(log_df, LARGEST))
    q = u * (u / df)
    h = (1 + 1 / df) * u / (1 + q)
    by_df = 0.5 * (df * excess(-np.log1p(q)) - q / (1 + q)) + _normalizer(log_df)[1]
    doutput[...] = np.concatenate([dcells * -h * np.exp(-s), dcells * (1 - h * u), dcells * by_df], axis=-1)


def laplace_nll_forward(cells: Array, output: Array, x: Array) -> None:
    """-log p(x) = |u| + s + log 2,   u = (x - m) exp(-s)

    output (B, K, 2 D): the locations m, then s = log scale.  The best m is the median, as the best m of a Gaussian is
    the mean.
    """
    u, s = _standard(output, x, 2)
    cells[...] = np.where(u.real < 0, -u, u) + s + LOG_2


def laplace_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array) -> None:
    """Backward pass of  |u| + s + log 2,  u = (x - m) exp(-s):

        dm = -dcells * sign(u) exp(-s),  0 at u = 0,        ds = dcells * (1 - |u|)            (D16.13)
    """
    u, s = _standard(output, x, 2)
    sign = np.sign(u.real)
    doutput[...] = np.concatenate([dcells * -sign * np.exp(-s), dcells * (1 - sign * u)], axis=-1)


def log_normal_nll_forward(cells: Array, output: Array, x: Array) -> None:
    """A positive number whose logarithm is Gaussian:

        -log p(x) = 1/2 u^2 + s + 1/2 log(2 pi) + log x,   u = (log x - m) exp(-s)            (D16.14)

    output (B, K, 2 D): m, then s = log sigma, of log x.  The last term, log of dx / dlog x, makes it a density of x.
    """
    log_x = np.log(np.where(x.real > 0, x, np.nan))
    u, s = _standard(output, log_x, 2)
    cells[...] = 0.5 * u * u + s + 0.5 * LOG_2PI + log_x[:, None, :]


def log_normal_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array) -> None:
    """Backward pass of  1/2 u^2 + s + const,  u = (log x - m) exp(-s):

        dm = -dcells * u exp(-s),        ds = dcells * (1 - u^2)
    """
    u, s = _standard(output, np.log(np.where(x.real > 0, x, np.nan)), 2)
    doutput[...] = np.concatenate([dcells * -u * np.exp(-s), dcells * (1 - u * u)], axis=-1)
