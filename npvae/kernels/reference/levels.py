"""Pixels with 256 grey levels: -log P(x|z) in nats, for images of bytes.  Read after `likelihoods.py`.

Here each pixel has a probability for each of its 256 levels, x = 0, 1/255, ..., 1, and these sum to one.  So nll is the
length of a code for the image, and nll / (D log 2) its bits per pixel.  Shapes as in `likelihoods.py`:  nll (B, K);
the decoder's output (B, K, P);  x (B, D).
"""
import math

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .dense import sigmoid, softplus
from .gamma import REST, SHIFT, STIRLING, digamma_rest, rest  # noqa: F401      two of them in their former place

LEVELS = 256      # of a byte
HALF = 0.5 / (LEVELS - 1)      # half the distance between two levels

#: Lower bound of log s in `discretized_logistic_nll`: s = exp(-7) in PixelCNN++, where pixels run from -1 to 1.  The
#: level at x = m then has probability 0.973.
LOG_SCALE_FLOOR = -7 - math.log(2)

#: log (255 choose k), k = 0 ... 255
LOG_CHOOSE = np.array([math.log(math.comb(LEVELS - 1, k)) for k in range(LEVELS)])

#: bound of log alpha and log beta in the beta-binomial; beyond it (a + 255) / a rounds to 1
LARGEST = 300.0


def _level(x: Array, levels: int) -> Array:
    """The level of each pixel, (B, 1, D), as a float, so that NaN stays NaN."""
    level: Array = np.rint((levels - 1) * x.real)
    return level[:, None, :]


def _index(x: Array, levels: int) -> NDArray[np.intp]:
    """The level of each pixel, (B, 1, D), as an index; 0 where x is at no level, such as NaN."""
    level = _level(x, levels)
    return np.where(np.isin(level, np.arange(levels)), level, 0).astype(np.intp)


def _black_and_white(x: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pixels are black, and which are white, (B, 1, D) each."""
    level = _level(x, LEVELS)
    return level == 0, level == LEVELS - 1


def _bin(output: Array, x: Array) -> tuple[Array, ...]:
    """u, l, w, t = rho - c, 1 / s and log s of `discretized_logistic_nll_forward`, (B, K, D) each."""
    location, rho = np.split(output, 2, axis=-1)
    t = rho - LOG_SCALE_FLOOR
    log_scale = LOG_SCALE_FLOOR + softplus(t)
    rate = np.exp(-log_scale)
    residual = x[:, None, :] - location
    return (residual + HALF) * rate, (residual - HALF) * rate, 2 * HALF * rate, t, rate, log_scale


def mean_exp(w: Array) -> Array:
    """(1 - exp(-w)) / w, the mean of exp(-a) over a from 0 to w; 1 at w = 0, which a very large scale s gives."""
    zero = w == 0      # there the fraction is (1 - 0) / (0 + 1)
    value: Array = (zero - np.expm1(-w)) / (zero + w)
    return value


def discretized_logistic_nll_forward(nll: Array, output: Array, x: Array) -> None:
    """nll[b, k] = sum_d -log P,   P the probability of x - h ... x + h under a logistic distribution,   h = HALF:

        P = sigmoid(u) - sigmoid(l),      u = (x + h - m) / s,      l = (x - h - m) / s

    The outer levels also get the tails:  l = -infinity for x = 0,  u = infinity for x = 1.  (Kingma et al. 2016, IAF;
    Salimans et al. 2017, PixelCNN++, with mixtures.)

    output (B, K, 2 D): the first D columns are the locations m, the others rho, from which

        log s = c + softplus(rho - c),   c = LOG_SCALE_FLOOR

    In a tail both sigmoids round to 0 or to 1, and their difference is lost.  With w = u - l = 2 h / s, exactly,

        sigmoid(u) - sigmoid(l) = (exp(u) - exp(l)) / ((1 + exp(u)) (1 + exp(l)))
                                = sigmoid(u) sigmoid(-l) (1 - exp(-w))

        -log P = softplus(-u) + softplus(l) - log(1 - exp(-w))              (D12.4)

    in which nothing cancels.  At the outer levels only one term is left:  softplus(-u) for x = 0,  softplus(l) for x =
    1.

    For a very large s, w would underflow.  So its logarithm is taken from log s:

        log(1 - exp(-w)) = log(2 h) - log s + log [ (1 - exp(-w)) / w ]
    """
    upper, lower, width, _, _, log_scale = _bin(output, x)
    black, white = _black_and_white(x)
    inside = np.where(black | white, 0, math.log(2 * HALF) - log_scale + np.log(mean_exp(width)))
    np.sum(np.where(white, 0, softplus(-upper)) + np.where(black, 0, softplus(lower)) - inside, axis=-1, out=nll)


def discretized_logistic_nll_backward(doutput: Array, dnll: Array, output: Array, x: Array) -> None:
    """Backward pass of  -log P = softplus(-u) + softplus(l) - log(1 - exp(-w)),  u, l = (x +- h - m) / s,  w = 2 h / s:

        du = -sigmoid(-u)  but 0 for x = 1          dl = sigmoid(l)  but 0 for x = 0
        d/dm     = -(du + dl) / s                                           (D12.5)
        d/dlog s = -u du - l dl + w / (exp(w) - 1)      the last term, of log(1 - exp(-w)), for 0 < x < 1 only
        drho = d/dlog s * sigmoid(rho - c)                                  (D12.5)

    each times dnll.  doutput (B, K, 2 D) is [dm, drho].

    For 0 < x < 1, du + dl is a difference of two sigmoids, which in a wide distribution are both near 1/2.  The
    addition theorem of tanh makes a product of it (where 1 + tanh tanh >= 0.05, since w is at most 8.6):

        sigmoid(l) - sigmoid(-u) = 1/2 [ tanh(l/2) + tanh(u/2) ] = 1/2 tanh((l + u)/2) [ 1 + tanh(l/2) tanh(u/2) ]
    """
    upper, lower, width, t, rate, _ = _bin(output, x)
    (black, white), upstream = _black_and_white(x), dnll[:, :, None]
    dlocation, drho = np.split(doutput, 2, axis=-1)
    dupper, dlower = np.where(white, 0, -sigmoid(-upper)), np.where(black, 0, sigmoid(lower))
    both = 0.5 * np.tanh(0.5 * (lower + upper)) * (1 + np.tanh(0.5 * lower) * np.tanh(0.5 * upper))
    inside = np.where(black | white, 0, np.exp(-width) / mean_exp(width))
    dlocation[...] = upstream * -np.where(black | white, dupper + dlower, both) * rate
    drho[...] = upstream * (inside - upper * dupper - lower * dlower) * sigmoid(t)


def categorical_nll_forward(nll: Array, top: Array, total: Array, logits: Array, x: Array) -> None:
    """nll[b, k] = sum_d log sum_j exp(l_j) - l_i  (D12.6):  the cross-entropy of a softmax over the L levels of pixel
    d.

    i is the level of x[b, d] = i / (L - 1)  (van den Oord et al. 2016, PixelRNN).  logits (B, K, D L): the L logits of
    a pixel are adjacent; L is taken from the shapes, 256 for bytes.  With m = max_j l_j, which keeps exp from
    overflowing,

        nll = sum_d (m - l_i) + log1p(others),      others = sum_j exp(l_j - m)  without the largest, whose term is 1

    m - l_i is computed first, since a constant in all logits may be large and changes nothing.  No term is negative.
    top = m  and  total = 1 + others, (B, K, D), are kept for the backward pass; a softmax would be as large as the
    logits, 256 times the number of pixels.
    """
    scores = logits.reshape(*top.shape, -1)
    largest = np.argmax(scores.real, axis=-1)[..., None]
    m = np.take_along_axis(scores, largest, axis=-1)
    shares = np.where(np.arange(scores.shape[-1]) == largest, 0, np.exp(scores - m))
    others = np.sum(shares, axis=-1, keepdims=True)
    top[..., None], total[..., None] = m, 1 + others
    taken = np.take_along_axis(scores, _index(x, scores.shape[-1])[..., None], axis=-1)
    cost = m - taken + np.log1p(others) + 0 * x[:, None, :, None]      # 0 x: a pixel that is NaN has no level
    np.sum(cost, axis=(2, 3), out=nll)


def categorical_nll_backward(dlogits: Array, dnll: Array, top: Array, total: Array, logits: Array, x: Array) -> None:
    """Backward pass of  nll = sum_d log sum_j exp(l_j) - l_i:

        dl_j = dnll * [ p_j - (j = i) ],      p_j = exp(l_j - top) / total, the softmax         (D12.7)

    and NaN for all levels of a pixel that is NaN.  p_i - 1 is computed as minus the sum of all other p_j, which keeps
    its digits where p_i is near 1.
    """
    scores = logits.reshape(*top.shape, -1)
    levels = scores.shape[-1]
    taken = np.arange(levels) == _index(x, levels)[..., None]
    p = np.exp(scores - top[..., None]) / total[..., None]
    others = np.sum(np.where(taken, 0, p), axis=-1, keepdims=True)
    upstream = dnll[..., None, None] + 0 * x[:, None, :, None]
    slope = np.where(taken, -others, p)
    dlogits[...] = (upstream * slope).reshape(dlogits.shape)


def _level_shares(a: Array, k: Array | int) -> Array:
    """sum over j = 1 ... SHIFT - 1 of  a k / ((a + j) (a + k + j)) = a / (a + j) - a / (a + k + j)."""
    steps = np.arange(1, SHIFT)
    shares: Array = np.sum((a * k)[..., None] / ((a[..., None] + steps) * ((a + k)[..., None] + steps)), axis=-1)
    return shares


def _rising(a: Array, k: Array | int) -> tuple[Array, Array]:
    """c and rest of `beta_binomial_nll_forward`:  log (a)_k = c log a + rest."""
    small, some = a.real < SHIFT, k != 0
    z, steps = np.where(small, a + SHIFT, a), np.arange(1, SHIFT)
    excess = (z + k - 0.5) * np.log1p(k / z) - k + rest(z + k) - rest(z)
    ratio = np.prod((a[..., None] + steps) / ((a + k)[..., None] + steps), axis=-1) / np.where(some, a + k, 1)
    return np.where(small, some, k), np.where(small, excess + k * np.log(z) + np.log(ratio), excess)


def _rising_slope(a: Array, k: Array | int) -> Array:
    """a H(a, k) of `beta_binomial_nll_backward`."""
    small, some = a.real < SHIFT, k != 0
    z = np.where(small, a + SHIFT, a)
    slope = a * (np.log1p(k / z) + digamma_rest(z + k) - digamma_rest(z))
    first = k / np.where(some, a + k, 1)      # a / a - a / (a + k), 0 for k = 0
    whole: Array = slope + np.where(small, first + _level_shares(a, k), 0)
    return whole


def _alpha_beta_level(output: Array, x: Array) -> tuple[Array, ...]:
    """log alpha, log beta, alpha, beta (B, K, D) and the level (B, 1, D), in double precision whatever the type of
    output: terms of a thousand nats cancel to a few.

    alpha and beta are bounded by exp(LARGEST), beyond which only their logarithms matter.
    """
    logs = output.astype(np.promote_types(output.dtype, np.float64))
    both = np.exp(np.where(logs.real > LARGEST, LARGEST, logs))
    return *np.split(logs, 2, axis=-1), *np.split(both, 2, axis=-1), _level(x, LEVELS)


def beta_binomial_nll_forward(nll: Array, output: Array, x: Array) -> None:
    """nll[b, k] = sum_d -log P(i),  i = 255 x[b, d]:  n = 255 trials whose success probability is itself drawn from
    Beta(alpha, beta)  (Townsend et al. 2019, for bytes):

        P(i) = (n choose i) B(i + alpha, n - i + beta) / B(alpha, beta)

    output (B, K, 2 D): the first D columns are log alpha, the others log beta.  With the rising factorial
    (a)_k = a (a + 1) ... (a + k - 1) = Gamma(a + k) / Gamma(a)  and  B(a, b) = Gamma(a) Gamma(b) / Gamma(a + b),

        -log P(i) = log (alpha + beta)_n - log (alpha)_i - log (beta)_{n - i} - log (n choose i)              (D12.8)

    A difference of two log Gamma would lose the digits of log (a)_k where a is large.  Stirling's formula,
    log Gamma(z) = (z - 1/2) log z - z + const + R(z),  gives it directly:

        log (a)_k = k log a + (a + k - 1/2) log(1 + k/a) - k + R(a + k) - R(a)
        R(z) = sum_j B_2j / (2j (2j - 1) z^(2j-1)),      eight terms of which are exact to rounding from z = 8 on

    For a < 8 it is taken at a + 8:  (a)_k = a [ (a + 8)_k / (a + k) ] prod_{0 < j < 8} (a + j) / (a + k + j),  k > 0.

    So  log (a)_k = c log a + rest,  with c = k for a >= 8,  else c = 1, or 0 if k = 0.  For very large or small a the
    terms c log a dominate, and are combined into differences of logarithms:

        c_s log(alpha + beta) - c_a log alpha - c_b log beta
            = c_a softplus(log beta - log alpha) + c_b softplus(log alpha - log beta)
              + (c_s - c_a - c_b) log(alpha + beta),      log(alpha + beta) = log alpha + softplus(log beta - log alpha)
    """
    log_alpha, log_beta, alpha, beta, level = _alpha_beta_level(output, x)
    (c_a, rest_a), (c_b, rest_b) = _rising(alpha, level), _rising(beta, LEVELS - 1 - level)
    c_s, rest_s = _rising(alpha + beta, LEVELS - 1)
    up, down = softplus(log_beta - log_alpha), softplus(log_alpha - log_beta)
    ways = LOG_CHOOSE[_index(x, LEVELS)]
    logarithms = c_a * up + c_b * down + (c_s - c_a - c_b) * (log_alpha + up)
    nll[...] = np.sum(logarithms + (rest_s - rest_a - rest_b) - ways, axis=-1)


def beta_binomial_nll_backward(doutput: Array, dnll: Array, output: Array, x: Array) -> None:
    """Backward pass of  -log P(i) = log (alpha + beta)_n - log (alpha)_i - log (beta)_{n - i} + const.   With

        H(a, k) = d/da log (a)_k = 1/a + ... + 1/(a + k - 1) = psi(a + k) - psi(a),      psi the digamma function,

        d/dlog alpha = dnll * alpha [ H(alpha + beta, n) - H(alpha, i) ]            (D12.9)
        d/dlog beta  = dnll * beta  [ H(alpha + beta, n) - H(beta, n - i) ]         (D12.9)

    doutput (B, K, 2 D) holds the two, side by side.  From Stirling's formula, psi(z) = log z + R'(z) - 1/(2 z):

        H(a, k) = log(1 + k/a) + [ R' - 1/(2 z) ] at z = a + k  -  [ R' - 1/(2 z) ] at z = a

    and for a < 8  H(a, k) = H(a + 8, k) + sum_{j < 8} [ 1/(a + j) - 1/(a + k + j) ].

    The code computes a H(a, k), which stays between 0 and k where 1/a and H overflow.  alpha H(alpha + beta, n) is
    sigmoid(log alpha - log beta)  times  (alpha + beta) H(alpha + beta, n).
    """
    dlog_alpha, dlog_beta = np.split(doutput, 2, axis=-1)
    log_alpha, log_beta, alpha, beta, level = _alpha_beta_level(output, x)
    both = _rising_slope(alpha + beta, LEVELS - 1)
    dlog_alpha[...] = dnll[:, :, None] * (sigmoid(log_alpha - log_beta) * both - _rising_slope(alpha, level))
    dlog_beta[...] = dnll[:, :, None] * (
        sigmoid(log_beta - log_alpha) * both - _rising_slope(beta, LEVELS - 1 - level))
