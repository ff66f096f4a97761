"""exp, expm1, log, log1p and the normal distribution as arithmetic that LLVM can vectorise.

    exp(x), expm1(x)     any x
    excess(x)            exp(x) - 1 - x, any x
    exp_unit(x)          exp(x), x <= 0
    log1p_unit(e)        log(1 + e), 0 <= e <= 1
    log(x)               x > 0, not subnormal
    normal(t)            phi(t) and Phi(-t) / phi(t), t >= 0, of the standard normal distribution
    difference(a, b)     a - b, which the compiler may not reorder
    scaled(x, factor)    x * factor, likewise
    log_unit(x)          log(x), 0 < x <= 1, not subnormal; single precision only
    cos_sin(v)           cos(2 pi v), sin(2 pi v), 0 <= v <= 1; single precision only

NaN gives NaN, but for log and log_unit, where it gives some number.  A result too large for its type is infinite.  One
below the least normal number (1e-38, 2e-308) is 0, since subnormal numbers are slow, and a trained decoder, which is
sure of its black pixels, makes them.

exp.  x = n log 2 + r with an integer n and |r| <= log(2) / 2, so exp(x) = 2^n exp(r).  log 2 is stored as a sum of two
parts; the first has so few bits that n times it is exact.  exp(r) is its Taylor series, up to where the next term is
below half a unit in the last place.  2^n is made by writing n into the exponent bits.  (For the largest x, 2^n is too
large for its type, though exp(x) is not: half of it is used there, and the result is doubled.)

log1p in double precision.  log(1 + e) = 2 artanh(s) = 2 (s + s^3/3 + s^5/5 + ...) with s = e / (2 + e) <= 1/3, up to
where the next term is below half a unit in the last place.
"""
import numba
import numpy as np
from numba.extending import overload

from .compile import STRICT, inlined
from .numba_private import known_options

_f, _d = np.float32, np.float64
_LOG2E_F, _HIGH_F, _LOW_F = _f(1.4426950408889634), _f(0.693359375), _f(-2.12194440e-4)
_LOG2E_D, _HIGH_D, _LOW_D = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LEAST_F, _MOST_F = _f(-87.33654), _f(88.72283)      # between them exp(x) is a normal number
_MOST_S_F, _MOST_S_D = _f(2.0 ** 127), 2.0 ** 1023
_LEAST_D, _MOST_D = -708.3964185322641, 709.782712893384
_PEAK_F, _PEAK_D = _f(0.3989422804014327), 0.3989422804014327      # 1 / sqrt(2 pi)


@inlined
def difference(a, b):
    """a - b.  In a kernel the compiler may turn (a - b) - c into a - (b + c), which loses c where a and b are large.
    Both differences have to be calls of this function to prevent it."""
    return a - b


@inlined
def scaled(x, factor):
    """x * factor.  In a kernel the compiler may turn (x * factor) * factor into x * (factor * factor), which overflows
    where factor is large."""
    return x * factor


@inlined
def _series_f(r, n):
    """s = 2^n,  r = x - n log 2,  t = exp(r) - 1 - r = r^2 (1/2! + r/3! + ... + r^5/7!):  exp(x) = s (t + r) + s."""
    s = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    p = _f(1 / 5040) * r + _f(1 / 720)
    p = p * r + _f(1 / 120)
    p = p * r + _f(1 / 24)
    p = p * r + _f(1 / 6)
    p = p * r + _f(1 / 2)
    return s, r, r * r * p


@inlined
def _series_d(r, n):
    """The same in double precision, up to r^11/13!."""
    s = np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)).view(np.float64)
    p = 1 / 6227020800 * r + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 1 / 2
    return s, r, r * r * p


# `_below_f` and `_below_d` for x <= 0, `_any_f` and `_any_d` for any x.  Where x is NaN, n becomes the least exponent,
# since only a number can be cast to an integer; the result is NaN because x still is.

@inlined
def _below_f(x):
    n = np.rint(x * _LOG2E_F)
    n = n if n > _f(-126) else _f(-126)
    return _series_f(x - n * _HIGH_F - n * _LOW_F, n)


@inlined
def _below_d(x):
    n = np.rint(x * _LOG2E_D)
    n = n if n > -1022.0 else -1022.0
    return _series_d(x - n * _HIGH_D - n * _LOW_D, n)


@inlined
def _any_f(x):
    """s, r and t of `_series_f`, and a factor of the result: 1; but where n = 128, half of s, and 2."""
    n = np.rint(x * _LOG2E_F)
    n = n if n > _f(-126) else _f(-126)
    n = n if n < _f(128) else _f(128)
    s, r, t = _series_f(x - n * _HIGH_F - n * _LOW_F, n)
    return (_MOST_S_F, r, t, _f(2)) if n > _f(127) else (s, r, t, _f(1))


@inlined
def _any_d(x):
    n = np.rint(x * _LOG2E_D)
    n = n if n > -1022.0 else -1022.0
    n = n if n < 1024.0 else 1024.0
    s, r, t = _series_d(x - n * _HIGH_D - n * _LOW_D, n)
    return (_MOST_S_D, r, t, 2.0) if n > 1023.0 else (s, r, t, 1.0)


@inlined
def _log1p_f(e):
    """log(1 + e) = e q(e), q the polynomial that equals log(1 + e) / e at the ten Chebyshev points of [0, 1].

    Unlike the series below it needs no division, and no s^2, which is subnormal, and slow, where e < 1e-19.  The worst
    error is 1.4 units in the last place.
    """
    q = _f(-0.00317606) * e + _f(0.01954253)
    q = q * e + _f(-0.05637361)
    q = q * e + _f(0.10543624)
    q = q * e + _f(-0.15269667)
    q = q * e + _f(0.19663274)
    q = q * e + _f(-0.24951616)
    q = q * e + _f(0.3332971)
    q = q * e + _f(-0.49999893)
    q = q * e + _f(1)
    return q * e


@inlined
def _log1p_d(e):
    """2 artanh(s), as above."""
    s = e / (2.0 + e)
    t = s * s
    p = 2 / 33 * t + 2 / 31
    p = p * t + 2 / 29
    p = p * t + 2 / 27
    p = p * t + 2 / 25
    p = p * t + 2 / 23
    p = p * t + 2 / 21
    p = p * t + 2 / 19
    p = p * t + 2 / 17
    p = p * t + 2 / 15
    p = p * t + 2 / 13
    p = p * t + 2 / 11
    p = p * t + 2 / 9
    p = p * t + 2 / 7
    p = p * t + 2 / 5
    p = p * t + 2 / 3
    return s * t * p + s * 2.0


# phi(t) = exp(-t^2 / 2) / sqrt(2 pi).  With h = t rounded to sixteenths, t^2 = h^2 + (t - h)(t + h).  h^2 is exact, and
# n log 2 is subtracted from it first; so t^2, which may be large, is not rounded.

@inlined
def _density_f(t):
    h = np.rint(_f(16) * t) * _f(1 / 16)
    x, y = _f(-0.5) * h * h, _f(-0.5) * (t - h) * (t + h)
    n = np.rint((x + y) * _LOG2E_F)
    n = n if n > _f(-126) else _f(-126)
    s, r, e = _series_f(x - n * _HIGH_F + y - n * _LOW_F, n)
    return _f(0) if x + y < _LEAST_F else (s * (e + r) + s) * _PEAK_F


@inlined
def _density_d(t):
    h = np.rint(16.0 * t) * (1 / 16)
    x, y = -0.5 * h * h, -0.5 * (t - h) * (t + h)
    n = np.rint((x + y) * _LOG2E_D)
    n = n if n > -1022.0 else -1022.0
    s, r, e = _series_d(x - n * _HIGH_D + y - n * _LOW_D, n)
    return 0.0 if x + y < _LEAST_D else (s * (e + r) + s) * _PEAK_D


@inlined
def _mills_f(t):
    """Phi(-t) / phi(t) = p(u) / (t + 4), with u = (t - 4) / (t + 4) from -1 to 1 and p the polynomial that equals
    (t + 4) Phi(-t) / phi(t) at the twelve Chebyshev points (the form of Shepherd and Laframboise 1981)."""
    w = _f(1) / (t + _f(4))
    u = (t - _f(4)) * w
    p = _f(5.50932917e-05) * u + _f(-4.32642108e-06)
    p = p * u + _f(-0.000545871111)
    p = p * u + _f(0.000334986871)
    p = p * u + _f(0.00407138505)
    p = p * u + _f(-0.00872292358)
    p = p * u + _f(-0.0188966904)
    p = p * u + _f(0.151391936)
    p = p * u + _f(-0.467541281)
    p = p * u + _f(0.970409539)
    p = p * u + _f(-1.52377091)
    p = p * u + _f(1.89321906)
    return p * w


@inlined
def _mills_d(t):
    """The same in double precision, by twenty-four points: within 1.2e-16."""
    w = 1.0 / (t + 4.0)
    u = (t - 4.0) * w
    p = -3.744020186309977e-10 * u - 4.2257947491339237e-09
    p = p * u - 1.0471399141324121e-09
    p = p * u + 4.0236252969052012e-08
    p = p * u + 4.3663271694168523e-08
    p = p * u - 1.9738931713497465e-07
    p = p * u - 3.9896597010923752e-07
    p = p * u + 6.6346580512440725e-07
    p = p * u + 2.5673811705941761e-06
    p = p * u - 1.5664275229520689e-06
    p = p * u - 1.4842471487746988e-05
    p = p * u + 1.7911870822522725e-06
    p = p * u + 8.8095420962248108e-05
    p = p * u - 4.7818158341117348e-06
    p = p * u - 0.00057926922790938796
    p = p * u + 0.00033424436090694754
    p = p * u + 0.0040878556695920273
    p = p * u - 0.0087222952476968939
    p = p * u - 0.018900450860734452
    p = p * u + 0.15139176231101523
    p = p * u - 0.46754096299837045
    p = p * u + 0.97040955486761848
    p = p * u - 1.5237709108199831
    p = p * u + 1.8932190633084853
    return p * w


def exp(x):
    """exp(x)."""


def exp_unit(x):
    """exp(x) for x <= 0."""


def expm1(x):
    """exp(x) - 1, without losing the digits of a small x."""


def excess(x):
    """exp(x) - 1 - x, without losing the digits of a small x."""


def log1p_unit(e):
    """log(1 + e) for 0 <= e <= 1."""


def log(x):
    """log x for a normal number x > 0."""


def normal(t):
    """phi(t) and Phi(-t) / phi(t) (Mills' ratio) for t >= 0."""


@overload(exp, jit_options=STRICT)
def _exp_by_type(x):
    def single(x):
        s, r, t, d = _any_f(x)
        y = (s * (t + r) + s) * d
        return _f(0) if x < _LEAST_F else (_f(np.inf) if x > _MOST_F else y)

    def double(x):
        s, r, t, d = _any_d(x)
        y = (s * (t + r) + s) * d
        return 0.0 if x < _LEAST_D else (np.inf if x > _MOST_D else y)
    return single if x == numba.float32 else double


@overload(exp_unit, jit_options=STRICT)
def _exp_unit_by_type(x):
    def single(x):
        s, r, t = _below_f(x)
        return _f(0) if x < _LEAST_F else s * (t + r) + s

    def double(x):
        s, r, t = _below_d(x)
        return 0.0 if x < _LEAST_D else s * (t + r) + s
    return single if x == numba.float32 else double


@overload(expm1, jit_options=STRICT)
def _expm1_by_type(x):
    def single(x):
        s, r, t, d = _any_f(x)
        y = (s * (t + r) + (s - _f(1))) * d
        return _f(-1) if x < _LEAST_F else (_f(np.inf) if x > _MOST_F else y)

    def double(x):
        s, r, t, d = _any_d(x)
        y = (s * (t + r) + (s - 1.0)) * d
        return -1.0 if x < _LEAST_D else (np.inf if x > _MOST_D else y)
    return single if x == numba.float32 else double


@overload(excess, jit_options=STRICT)
def _excess_by_type(x):
    def single(x):
        s, r, t, d = _any_f(x)
        y = t if r == x else (s * (t + r) + (s - _f(1))) * d - x
        return _f(-1) - x if x < _LEAST_F else (_f(np.inf) if x > _MOST_F else y)

    def double(x):
        s, r, t, d = _any_d(x)
        y = t if r == x else (s * (t + r) + (s - 1.0)) * d - x
        return -1.0 - x if x < _LEAST_D else (np.inf if x > _MOST_D else y)
    return single if x == numba.float32 else double


@overload(log1p_unit, jit_options=STRICT)
def _log1p_by_type(e):
    return (lambda e: _log1p_f(e)) if e == numba.float32 else (lambda e: _log1p_d(e))


@inlined
def log_unit(x):
    """log x = n log 2 + log m,  x = 2^n m,  2/3 <= m < 4/3;  log m = 2 artanh(s),  s = (m - 1) / (m + 1)."""
    bits = np.float32(x).view(np.int32)
    n = (bits - np.int32(0x3F2AAAAB)) >> np.int32(23)
    f = np.int32(bits - (n << np.int32(23))).view(np.float32) - _f(1)
    s = f / (_f(2) + f)
    t = s * s
    p = _f(2 / 9) * t + _f(2 / 7)
    p = p * t + _f(2 / 5)
    p = p * t + _f(2 / 3)
    m = s * t * p + s * _f(2)
    return _f(n) * _HIGH_F + (_f(n) * _LOW_F + m)


@inlined
def _log_d(x):
    """The same in double precision, up to s^23: |s| <= 1/5."""
    bits = np.float64(x).view(np.int64)
    n = (bits - np.int64(0x3FE5555555555555)) >> np.int64(52)
    f = np.int64(bits - (n << np.int64(52))).view(np.float64) - 1.0
    s = f / (2.0 + f)
    t = s * s
    p = 2 / 23 * t + 2 / 21
    p = p * t + 2 / 19
    p = p * t + 2 / 17
    p = p * t + 2 / 15
    p = p * t + 2 / 13
    p = p * t + 2 / 11
    p = p * t + 2 / 9
    p = p * t + 2 / 7
    p = p * t + 2 / 5
    p = p * t + 2 / 3
    m = s * t * p + s * 2.0
    return n * _HIGH_D + (n * _LOW_D + m)


@overload(log, jit_options=STRICT)
def _log_by_type(x):
    return (lambda x: log_unit(x)) if x == numba.float32 else (lambda x: _log_d(x))


@overload(normal, jit_options={**STRICT, **known_options("forceinline")})
def _normal_by_type(t):
    return (lambda t: (_density_f(t), _mills_f(t))) if t == numba.float32 else (lambda t: (_density_d(t), _mills_d(t)))


@inlined
def cos_sin(v):
    """cos(2 pi v) and sin(2 pi v).  2 pi v = q pi / 2 + a, with an integer q and |a| <= pi / 4.  cos(a) and sin(a) are
    Taylor series; q exchanges them, or changes their signs."""
    q = np.rint(_f(4) * v)
    a = (v - _f(0.25) * q) * _f(2 * np.pi)
    t = a * a
    c = _f(1 / 40320) * t - _f(1 / 720)
    c = c * t + _f(1 / 24)
    c = (c * t - _f(0.5)) * t + _f(1)
    s = _f(1 / 362880) * t - _f(1 / 5040)
    s = s * t + _f(1 / 120)
    s = (s * t - _f(1 / 6)) * t * a + a
    quarter = np.int32(q) & np.int32(3)
    odd = (quarter & np.int32(1)) == 1
    cosine, sine = (s if odd else c), (c if odd else s)
    return (-cosine if quarter == 1 or quarter == 2 else cosine), (-sine if quarter >= 2 else sine)


turn = cos_sin      # by its former name
