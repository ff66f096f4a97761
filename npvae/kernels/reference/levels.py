"""Pixels with 256 grey levels: -log P(x|z), in nats, of whole images in bytes.  Read after `likelihoods.py`.

A byte is no real number.  Here each pixel has a probability for each of its 256 levels, x = 0, 1/255, ..., 1, and these
add up to one, so nll is what a code for the image would cost: divided by D log 2, bits per pixel.  Shapes as in
`likelihoods.py`:  nll (B, K);  what the decoder puts out (B, K, P);  x (B, D).
"""
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]

LEVELS = 256
HALF = 0.5 / (LEVELS - 1)      # half the distance between two levels

#: The scale of `discretized_logistic_nll` never falls below exp of this: PixelCNN++'s exp(-7), there of pixels from -1
#: to 1.  The level in the middle then has probability 0.973.
LOG_SCALE_FLOOR = -7 - math.log(2)

#: log (255 choose k), k = 0 ... 255
LOG_CHOOSE = np.array([math.log(math.comb(LEVELS - 1, k)) for k in range(LEVELS)])

#: B_2k / (2k), k = 1, 2, ..., with Bernoulli's numbers B, of Stirling's series; good to 1e-16 from SHIFT on
STIRLING = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)
SHIFT = 8


def _softplus(a: Array) -> Array:
    """log(1 + exp(a)), without overflow."""
    negative = a.real < 0
    return np.where(negative, 0, a) + np.log1p(np.exp(np.where(negative, a, -a)))


def _sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), without overflow."""
    negative = a.real < 0
    e = np.exp(np.where(negative, a, -a))
    return np.where(negative, e, 1) / (1 + e)


def _bin(output: Array, x: Array) -> tuple[Array, ...]:
    """u, l, w, t and 1 / s of `discretized_logistic_nll_forward`, (B, K, D)."""
    x, pixels = x[:, None, :], x.shape[-1]
    t = output[..., pixels:] - LOG_SCALE_FLOOR
    rate = np.exp(-(LOG_SCALE_FLOOR + _softplus(t)))
    residual = x - output[..., :pixels]
    return (residual + HALF) * rate, (residual - HALF) * rate, 2 * HALF * rate, t, rate


def discretized_logistic_nll_forward(nll: Array, output: Array, x: Array) -> None:
    """nll[b, k] = sum_d -log P,  P what a logistic distribution has between x - h and x + h,  h = HALF:

        P = sigmoid(u) - sigmoid(l),      u = (x + h - m) / s,      l = (x - h - m) / s

    but from -infinity on for x = 0, l = -infinity, and up to infinity for x = 1, u = infinity.  (Kingma et al. 2016,
    IAF; Salimans et al. 2017, PixelCNN++, who mix several.)

    output (B, K, 2 D): the first D columns are the locations m, the others r, from which

        log s = c + softplus(r - c),   c = LOG_SCALE_FLOOR

    In a tail both sigmoids round to 0 or to 1, and their difference is lost.  With w = u - l = 2 h / s, exactly,

        sigmoid(u) - sigmoid(l) = (exp(u) - exp(l)) / ((1 + exp(u)) (1 + exp(l)))
                                = sigmoid(u) sigmoid(-l) (1 - exp(-w))

        -log P = softplus(-u) + softplus(l) - log(1 - exp(-w))              (D12.4)

    in which nothing cancels; and at the edges terms fall away:  x = 0 leaves softplus(-u),  x = 1 softplus(l).
    """
    upper, lower, width, _, _ = _bin(output, x)
    black, white = (x.real < HALF)[:, None, :], (x.real > 1 - HALF)[:, None, :]
    below, above = np.where(white, 0, _softplus(-upper)), np.where(black, 0, _softplus(lower))
    inside = np.where(black | white, 0, np.log(-np.expm1(-width)))
    np.sum(below + above - inside, axis=-1, out=nll)


def discretized_logistic_nll_backward(doutput: Array, dnll: Array, output: Array, x: Array) -> None:
    """forward was  -log P = softplus(-u) + softplus(l) - log(1 - exp(-w)),  u, l = (x +- h - m) / s,  w = 2 h / s:

        du = -sigmoid(-u)  but 0 for x = 1          dl = sigmoid(l)  but 0 for x = 0
        d/dm     = -(du + dl) / s                                           (D12.5)
        d/dlog s = -u du - l dl + w / (exp(w) - 1)      the last for levels inside;  -w d/dw of log(1 - exp(-w))
        dr = d/dlog s * sigmoid(r - c)                                      (D12.5)

    each times dnll.  doutput (B, K, 2 D) is [dm, dr].
    """
    upper, lower, width, t, rate = _bin(output, x)
    pixels, upstream = x.shape[-1], dnll[:, :, None]
    black, white = (x.real < HALF)[:, None, :], (x.real > 1 - HALF)[:, None, :]
    dupper, dlower = np.where(white, 0, -_sigmoid(-upper)), np.where(black, 0, _sigmoid(lower))
    inside = np.where(black | white, 0, np.exp(-width) * width / -np.expm1(-width))
    doutput[..., :pixels] = upstream * -(dupper + dlower) * rate
    doutput[..., pixels:] = upstream * (inside - upper * dupper - lower * dlower) * _sigmoid(t)


def _level(x: Array, levels: int) -> NDArray[np.intp]:
    """The level of each pixel, an index (B, 1, D, 1) that exists also where x is none, such as NaN."""
    level = np.rint((levels - 1) * x.real)
    return np.where((level >= 0) & (level < levels), level, 0).astype(np.intp)[:, None, :, None]


def categorical_nll_forward(nll: Array, log_sum: Array, logits: Array, x: Array) -> None:
    """nll[b, k] = sum_d log sum_j exp(l_j) - l_i  (D12.6):  the cross-entropy of a softmax over the levels of pixel d,
    of which x[b, d] is the i-th, x = i / (L - 1).  (van den Oord et al. 2016, PixelRNN.)

    logits (B, K, D L): the L logits of a pixel stand side by side; L is taken from the shapes, 256 for bytes.  With
    m = max_j l_j, which changes nothing on paper and keeps exp from overflowing,

        log_sum = m + log sum_j exp(l_j - m)                (B, K, D), kept for the backward pass

    A softmax kept in its place would be as large as the logits, which are 256 times as many as pixels.
    """
    scores = logits.reshape(*log_sum.shape, -1)
    m = np.take_along_axis(scores, np.argmax(scores.real, axis=-1)[..., None], axis=-1)
    log_sum[...] = m[..., 0] + np.log(np.sum(np.exp(scores - m), axis=-1))
    taken = np.take_along_axis(scores, _level(x, scores.shape[-1]), axis=-1)[..., 0]
    np.sum(log_sum - taken + 0 * x[:, None, :], axis=-1, out=nll)      # 0 x: a pixel that is NaN has no level


def categorical_nll_backward(dlogits: Array, dnll: Array, log_sum: Array, logits: Array, x: Array) -> None:
    """forward was  nll = sum_d log sum_j exp(l_j) - l_i:

        dl_j = dnll * [ p_j - (j = i) ],      p_j = exp(l_j - log_sum), the softmax         (D12.7)

    and NaN for all levels of a pixel that is NaN.
    """
    scores = logits.reshape(*log_sum.shape, -1)
    levels = scores.shape[-1]
    taken = np.arange(levels) == _level(x, levels)
    upstream = dnll[..., None, None] + 0 * x[:, None, :, None]
    dlogits[...] = (upstream * (np.exp(scores - log_sum[..., None]) - taken)).reshape(dlogits.shape)


def _rest(z: Array) -> Array:
    """R(z), which Stirling's formula adds to (z - 1/2) log z - z + const."""
    total = 0 * z
    for k, c in reversed(list(enumerate(STIRLING, 1))):
        total = total / (z * z) + c / (2 * k - 1)
    return total / z


def _rest_slope(z: Array) -> Array:
    """R'(z) - 1/(2 z), which the formula's derivative adds to log z."""
    total = 0 * z
    for c in reversed(STIRLING):
        total = (total + c) / (z * z)
    return -total - 0.5 / z


def _log_rising(a: Array, k: Any) -> Array:
    """log (a)_k of `beta_binomial_nll_forward`, a > 0."""
    small = a.real < SHIFT
    z, steps = np.where(small, a + SHIFT, a), np.arange(SHIFT)
    ratio = np.where(small, np.prod((a[..., None] + steps) / ((a + k)[..., None] + steps), axis=-1), 1)
    return (z - 0.5) * np.log1p(k / z) + k * (np.log(z + k) - 1) + _rest(z + k) - _rest(z) + np.log(ratio)


def _rising_slope(a: Array, k: Any) -> Array:
    """S(a, k) of `beta_binomial_nll_backward`, a > 0."""
    small = a.real < SHIFT
    z, steps = np.where(small, a + SHIFT, a), np.arange(SHIFT)
    inverses = np.sum(1 / (a[..., None] + steps) - 1 / ((a + k)[..., None] + steps), axis=-1)
    return np.log1p(k / z) + _rest_slope(z + k) - _rest_slope(z) + np.where(small, inverses, 0)


def _alpha_beta_level(output: Array, x: Array) -> tuple[Array, Array, Array]:
    """alpha, beta (B, K, D), i (B, 1, D), in double precision whatever the type: of terms of a thousand nats a few are
    left."""
    both = np.exp(output.astype(np.result_type(output, np.float64)))
    return both[..., :x.shape[-1]], both[..., x.shape[-1]:], np.rint((LEVELS - 1) * x[:, None, :].real.astype(float))


def beta_binomial_nll_forward(nll: Array, output: Array, x: Array) -> None:
    """nll[b, k] = sum_d -log P(i),  i = 255 x[b, d]:  binomial, of n = 255 tries, with a probability that is itself
    drawn, from Beta(alpha, beta)  (Townsend et al. 2019, for bytes):

        P(i) = (n choose i) B(i + alpha, n - i + beta) / B(alpha, beta)

    output (B, K, 2 D): the first D columns are log alpha, the others log beta.  With the rising factorial
    (a)_k = a (a + 1) ... (a + k - 1) = Gamma(a + k) / Gamma(a)  and  B(a, b) = Gamma(a) Gamma(b) / Gamma(a + b),

        -log P(i) = log (alpha + beta)_n - log (alpha)_i - log (beta)_{n - i} - log (n choose i)              (D12.8)

    For log (a)_k a difference of two log Gamma would lose digits where a is large.  Stirling's formula,
    log Gamma(z) = (z - 1/2) log z - z + const + R(z),  gives it directly:

        log (a)_k = (a - 1/2) log(1 + k/a) + k [ log(a + k) - 1 ] + R(a + k) - R(a)
        R(z) = sum_j B_2j / (2j (2j - 1) z^(2j-1)),      eight terms of which are exact to rounding from z = 8 on

    and below 8 it is taken at a + 8, since  (a)_k = (a + 8)_k  prod_{j < 8} (a + j) / (a + k + j).
    """
    alpha, beta, level = _alpha_beta_level(output, x)
    ways = LOG_CHOOSE[_level(x, LEVELS)[..., 0]]
    nll[...] = np.sum(_log_rising(alpha + beta, LEVELS - 1) - _log_rising(alpha, level)
                      - _log_rising(beta, LEVELS - 1 - level) - ways, axis=-1)


def beta_binomial_nll_backward(doutput: Array, dnll: Array, output: Array, x: Array) -> None:
    """forward was  -log P(i) = log (alpha + beta)_n - log (alpha)_i - log (beta)_{n - i} + const.   With

        S(a, k) = d/da log (a)_k = 1/a + ... + 1/(a + k - 1) = psi(a + k) - psi(a)

    psi the digamma function:

        d/dlog alpha = dnll * alpha [ S(alpha + beta, n) - S(alpha, i) ]            (D12.9)
        d/dlog beta  = dnll * beta  [ S(alpha + beta, n) - S(beta, n - i) ]         (D12.9)

    doutput (B, K, 2 D) holds the two, side by side.  From Stirling's formula, psi(z) = log z + R'(z) - 1/(2 z):

        S(a, k) = log(1 + k/a) + [ R' - 1/(2 z) ]  at z = a + k  less at z = a

    and below 8  S(a, k) = S(a + 8, k) + sum_{j < 8} [ 1/(a + j) - 1/(a + k + j) ].
    """
    pixels, upstream = x.shape[-1], dnll[:, :, None]
    alpha, beta, level = _alpha_beta_level(output, x)
    both = _rising_slope(alpha + beta, LEVELS - 1)
    doutput[..., :pixels] = upstream * alpha * (both - _rising_slope(alpha, level))
    doutput[..., pixels:] = upstream * beta * (both - _rising_slope(beta, LEVELS - 1 - level))
