"""Counts: -log P(x|z) in nats, for x = 0, 1, 2, ...  Read after `cells.py` and `gamma.py`.

Shapes:  cells (B, K, D), one term of nll for each column;  x (B, D);  the decoder's output (B, K, m D): D numbers of
the first kind, then D of the second, and so on;  offset (B,), added to every log mean of a row: the log of the row's
total, or 0.

All is computed in double precision: a count of 10^9 has terms of 10^10 nats, whose sum may be 10.  Written as below no
such terms appear, so that ten counts and ten billion have equally many right digits.
"""
import numpy as np

from .arrays import Array
from .dense import bounded, minus_abs, sigmoid, softplus
from .gamma import peak_slope, poisson_peak
from .latents import excess

#: bound of log r, r the dispersion of a negative binomial; beyond it the distribution is Poisson's to all digits
LARGEST = 300.0
FAR = 600.0      # exp of more would overflow soon


def log1p_features(features: Array, x: Array) -> None:
    """features = log(1 + x), both (B, D): what an encoder sees of counts, which may lie between 0 and 10^9."""
    features[...] = np.log1p(x)


def log_features(features: Array, x: Array) -> None:
    """features = log x, both (B, D), for positive numbers of any unit."""
    features[...] = np.log(x)


def log_total(offset: Array, x: Array) -> None:
    """offset[b] = log sum_d x[b, d],  or 0 for a row without counts.   x (B, D)."""
    total = np.sum(x, axis=-1)
    offset[...] = np.log(np.where(total == 0, 1, total))


def _double(output: Array) -> Array:
    return output.astype(np.promote_types(output.dtype, np.float64))


def _blocks(output: Array, number: int) -> list[Array]:
    """The blocks of an output (B, K, number D), in double precision."""
    return np.split(_double(output), number, axis=-1)


def _counts(x: Array) -> tuple[Array, Array]:
    """x (B, 1, D) in double precision, and log x, 0 for x = 0."""
    x = x.real.astype(np.float64)[:, None, :]
    return x, np.log(np.where(x > 0, x, np.where(x == 0, 1, np.nan)))


def _poisson(log_mean: Array, x: Array, log_x: Array) -> Array:
    """-log P(x) of D16.2."""
    t = log_mean - log_x
    cost: Array = poisson_peak(x) + np.where(x == 0, np.exp(t), x * excess(t))
    return cost


def poisson_nll_forward(cells: Array, output: Array, x: Array, offset: Array) -> None:
    """cells[b, k, d] = m - x log m + log x!,   m = exp(l),   l = output[b, k, d] + offset[b].

    For a large count this is a difference of large numbers.  With  g(x) = log x! - x log x + x,  the value at m = x,

        -log P(x) = g(x) + x [ exp(t) - 1 - t ],   t = l - log x,   or m if x = 0         (D16.2)

    where both terms are >= 0, and exp(t) - 1 - t is summed as a series near t = 0.
    """
    x, log_x = _counts(x)
    cells[...] = _poisson(_double(output) + offset[:, None, None], x, log_x)


def poisson_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array, offset: Array) -> None:
    """Backward pass of  -log P(x) = m - x log m + log x!,  m = exp(l):

        dl = dcells * (m - x) = dcells * x [ exp(t) - 1 ],   t = l - log x,   or m if x = 0        (D16.3)
    """
    x, log_x = _counts(x)
    t = _double(output) + offset[:, None, None] - log_x
    doutput[...] = dcells * np.where(x == 0, np.exp(t), x * np.expm1(t))


def _negative_binomial(log_mean: Array, log_r: Array, x: Array, log_x: Array) -> tuple[Array, Array, Array]:
    """-log P(x) of D16.4, and its derivatives with respect to l (D16.5) and log r (D16.6)."""
    b = bounded(log_r, LARGEST)
    r = np.exp(b)
    n, odds = r + x, log_mean - b      # odds = log m/r
    share = r * sigmoid(odds)          # r m / (r + m)

    # F(q, t) = F(1 - q, -t): of the shares x/n and r/n the smaller is taken, which is at most 1/2
    t, turned = log_mean - log_x, 2 * x.real > n.real
    s, q = np.where(turned, -t, t), np.where(turned, r, x) / n
    beyond = np.where(s.real > FAR, s - FAR, 0)
    v = np.log1p(q * np.expm1(s - beyond)) + beyond
    near = minus_abs(s).real > -1
    deviance = n * np.where(near, q * excess(np.where(near, s, 0)) - excess(np.where(near, v, 0)), v - q * s)
    peaks = poisson_peak(r) + poisson_peak(x) - poisson_peak(n) + softplus(log_x - log_r)

    y = v + np.where(turned, t, 0)      # log (r + m) / n
    low = t.real < 1
    by_mean = np.where(low, x * np.expm1(np.where(low, t, 0)) * sigmoid(-odds), share - x * sigmoid(-odds))
    by_r = r * (peak_slope(r) - peak_slope(n)) - 0.5 * x / n + r * excess(-y)
    none, zero = x == 0, softplus(odds)
    return (np.where(none, r * zero, peaks + deviance), np.where(none, share, by_mean),
            np.where(none, r * excess(-zero), by_r))


def negative_binomial_nll_forward(cells: Array, output: Array, x: Array, offset: Array) -> None:
    """-log P(x) of a count with mean m and variance m + m^2 / r:

        P(x) = Gamma(x + r) / (x! Gamma(r)) (r / (r + m))^r (m / (r + m))^x

    output (B, K, 2 D): the first D columns, plus offset[b], are l = log m, the others log r.  r is called the
    dispersion, or the size.  As r grows the distribution becomes Poisson's.

    With n = x + r, with g of D16.1, which is the nll at the mean, and with t = l - log x,

        -log P(x) = g(r) + g(x) - g(n) + log(n / r) + n F(x / n, t)                  (D16.4)
        F(q, t) = log(1 + q (exp(t) - 1)) - q t                                      >= 0, 0 at t = 0
        -log P(0) = r log(1 + m / r)

    For |t| < 1, F is again a difference of two numbers near 0; with v = log(1 + q (exp(t) - 1)) it is

        F(q, t) = q [ exp(t) - 1 - t ] - [ exp(v) - 1 - v ]

    which loses no digits if q <= 1/2.  For larger q,  F(q, t) = F(1 - q, -t).
    """
    (log_mean, log_r), (x, log_x) = _blocks(output, 2), _counts(x)
    cells[...] = _negative_binomial(log_mean + offset[:, None, None], log_r, x, log_x)[0]


def negative_binomial_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array, offset: Array) -> None:
    """Backward pass of  -log P(x) = log Gamma(r) - log Gamma(n) + n log(r + m) - r log r - x log m + const,  n = x + r:

        dl     = dcells * (m - x) r / (r + m)                                        (D16.5)
        dlog r = dcells * r [ psi(r) - log r - psi(n) + log n + w - 1 - log w ],   w = n / (r + m)      (D16.6)

    doutput (B, K, 2 D) is [dl, dlog r].  By Stirling's formula  r [psi(r) - log r - psi(n) + log n] = -x / (2 n)  and a
    difference of two small numbers.  And  w - 1 - log w = exp(-y) - 1 + y  with  y = -log w.
    """
    (log_mean, log_r), (x, log_x) = _blocks(output, 2), _counts(x)
    _, by_mean, by_r = _negative_binomial(log_mean + offset[:, None, None], log_r, x, log_x)
    doutput[...] = np.concatenate([dcells * by_mean, dcells * by_r], axis=-1)


def zero_inflated_nll_forward(cells: Array, output: Array, x: Array, offset: Array) -> None:
    """-log P(x) of a count that is 0 with probability p, whatever the rest says, and else negative binomial:

        P(0) = p + (1 - p) NB(0),      P(x) = (1 - p) NB(x)  for x > 0,      p = sigmoid(a)

    output (B, K, 3 D): log mean, to which offset[b] is added; a; log r.  With c = -log NB(x),

        -log P(x) = softplus(a) + c                                                  for x > 0
        -log P(0) = softplus(a) - log(exp(a) + exp(-c)) = log(1 + (1 - exp(-c)) / (exp(a) + exp(-c)))       (D16.7)

    The second form is taken for c < 1.  For larger c it is softplus(-a) - softplus(-a - c)  if a >= 0, and
    softplus(a) + min(-a, c) - softplus(-|a + c|)  if a < 0.
    """
    (log_mean, a, log_r), (x, log_x) = _blocks(output, 3), _counts(x)
    c = _negative_binomial(log_mean + offset[:, None, None], log_r, x, log_x)[0]
    none, s = x == 0, a + c
    small = none & (c.real < 1)
    some = np.where(small, c, 0)
    near = np.log1p(-np.expm1(-some) / (np.exp(bounded(a, FAR)) + np.exp(-some)))
    far = np.where(a.real < 0, softplus(a) + np.where(s.real < 0, c, -a), softplus(-a)) - np.where(
        a.real < 0, softplus(minus_abs(s)), softplus(-s))
    cells[...] = np.where(none, np.where(small, near, far), softplus(a) + c)


def zero_inflated_nll_backward(doutput: Array, dcells: Array, output: Array, x: Array, offset: Array) -> None:
    """Backward pass of  -log P(x) = softplus(a) + c  for x > 0,  softplus(a) - log(exp(a) + exp(-c))  for x = 0:

        da = dcells * sigmoid(a),   dc = dcells                                      for x > 0
        da = -dcells * (1 - exp(-c)) sigmoid(-a) sigmoid(a + c),   dc = dcells * sigmoid(-a - c)   for x = 0    (D16.8)

    da of a zero is sigmoid(a) less sigmoid(a + c), the probability that this zero is one of the extra ones, written as
    a product.  dl and dlog r are dc times those of the negative binomial (D16.5, D16.6).
    """
    (log_mean, a, log_r), (x, log_x) = _blocks(output, 3), _counts(x)
    c, by_mean, by_r = _negative_binomial(log_mean + offset[:, None, None], log_r, x, log_x)
    none, s = x == 0, a + c
    weight = dcells * np.where(none, sigmoid(-s), 1)
    da = dcells * np.where(none, np.expm1(-np.where(none, c, 0)) * sigmoid(-a) * sigmoid(s), sigmoid(a))
    doutput[...] = np.concatenate([weight * by_mean, da, weight * by_r], axis=-1)


def multinomial_nll_forward(cells: Array, log_mean: Array, logits: Array, x: Array) -> None:
    """n draws from a softmax over the D columns, n = sum_d x_d the row's total:

        -log P(x) = sum_d log x_d! - x_d log p_d  -  log n!,      p = softmax(logits)

    With m_d = n p_d this is D Poisson distributions, given their total:

        -log P(x) = sum_d c_d - g(n),     c_d = -log Poisson(x_d; m_d),     g(n) = -log Poisson(n; n)        (D16.9)

    since sum_d m_d = n.  Each count bears its share of g(n):  cells = c_d - g(n) x_d / n.

    logits, cells (B, K, D).  log_mean = log n + log p (B, K, D) is kept for the backward pass.  For a row without
    counts cells are 0.
    """
    total = np.sum(x.real.astype(np.float64), axis=-1)[:, None, None]
    scores = _double(logits)
    top = np.take_along_axis(scores, np.argmax(scores.real, axis=-1)[..., None], axis=-1)
    log_p = scores - top - np.log(np.sum(np.exp(scores - top), axis=-1, keepdims=True))
    x, log_x = _counts(x)
    rate = np.log(np.where(total == 0, 1, total)) + log_p
    log_mean[...] = rate
    each = _poisson(rate, x, log_x) - poisson_peak(total) * x / np.where(total == 0, 1, total)
    cells[...] = np.where(total == 0, 0, each)


def multinomial_nll_backward(dlogits: Array, dcells: Array, log_mean: Array, x: Array) -> None:
    """Backward pass of  cells = m_d - x_d log m_d + const,  m = n p,  p = softmax(logits):

        dr_d = dcells * (m_d - x_d),      dlogits_d = dr_d (1 - p_d) - p_d sum_{i != d} dr_i          (D16.10)

    If dcells is the same for all columns, the sum of all dr is 0, and dlogits = dcells * (n p - x).
    """
    total = np.sum(x.real.astype(np.float64), axis=-1)[:, None, None]
    x, log_x = _counts(x)
    rate = _double(log_mean)
    drate = dcells * np.where(x == 0, np.exp(rate), x * np.expm1(rate - log_x))
    log_p = rate - np.log(np.where(total == 0, 1, total))
    others = np.sum(drate, axis=-1, keepdims=True) - drate
    dlogits[...] = np.where(total == 0, 0, drate * -np.expm1(log_p) - np.exp(log_p) * others)
