"""Numerical derivatives of any loss, and how far each can be trusted.  Read before `checker.py`.

    complex    Im f(theta + i h v) / h,  h = 1e-30         exact to rounding, if f is analytic and takes complex numbers
    central    (f(theta + h v) - f(theta - h v)) / 2h      right to about eps^(2/3), for any f that has a derivative

The complex step is wrong where f drops an imaginary part, as np.abs and np.var do, and at a kink it sees only one side.
So in each tensor it is compared with central differences along one random direction (`hold`).  These differentiate the
function as it is used, with real numbers, and cost about four evaluations.
"""
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Number = complex | np.number[Any] | Array      # one real or complex number; an array has no axes
Loss = Callable[[dict[str, Array]], Number]

EPS = float(np.finfo(np.float64).eps)
COMPLEX_STEP = 1e-30
CENTRAL_STEP = EPS ** (1 / 3)
KINK = 1e-3      # relative to the gradient: one-sided slopes that differ by more may be those of a kink
_LARGE_STEP = 1e-8      # complex step for derivatives so small that 1e-30 times them would underflow
_HIDING = 1e-3      # relative to a slope: if rounding hides more of it, larger steps are tried as well
_FIRST_STEP, _FACTOR, _RUNGS = 2.0 ** -10, 8.0, 14      # the steps of the central differences in `hold`


# -- arguments ---------------------------------------------------------------------------------------------------------

def require_something(what: str, arrays: Mapping[str, Array]) -> None:
    """Raises ValueError if there is no array or one is empty, TypeError unless all are float64."""
    if not arrays:
        raise ValueError(f"{what} must hold at least one array: with none, nothing is checked")
    for name, value in arrays.items():
        require_float64(name, value)
        if not np.size(value):
            raise ValueError(f"{name} has shape {np.shape(value)}: it is empty, there is nothing to check")


def require_float64(name: str, value: object) -> None:
    """Raises TypeError for any other type, and says what to do about it."""
    dtype = np.asarray(value).dtype
    if dtype != np.float64:
        reason = ""
        if dtype in (np.float32, np.float16):
            reason = ": rounding in lower precision hides errors below 1e-3"
        elif dtype.kind in "iub":
            reason = (f": integers have no derivative.  Name indices, labels and masks in `constants` of check_pair "
                      f"(constants=[{name!r}]), convert other integers by .astype(float)")
        raise TypeError(f"{name} must be float64, got {dtype}{reason}")


def _number(loss: Number) -> complex:
    """The value of a loss.  Raises ValueError for anything but one number, TypeError for less than float64."""
    dtype = np.asarray(loss).dtype
    if np.ndim(loss) or dtype.kind not in "fciu":
        raise ValueError(f"loss must return one number, got {type(loss).__name__} of shape {np.shape(loss)}")
    if dtype in (np.float32, np.float16, np.complex64):
        raise TypeError(f"loss must return float64, got {dtype}: rounding in lower precision hides errors below 1e-3")
    return complex(loss)


# -- a loss at a point -------------------------------------------------------------------------------------------------

class Probe(NamedTuple):
    """A direction in one tensor: the entries theta[place] move along `direction` by steps of `size`."""

    place: EllipsisType | int | tuple[int, ...]
    direction: float | Array
    size: float


def entries(theta: Array) -> list[Probe]:
    """A probe for each entry, with the step  h = eps^(1/3) max(1, |theta_i|)  of its central difference  (D9.2)."""
    return [Probe(index, 1.0, CENTRAL_STEP * max(1.0, abs(theta[index]))) for index in np.ndindex(theta.shape)]


class Point:
    """A loss f and the parameters theta at which it is differentiated.

    loss : takes a dict of arrays, which are copies that belong to this object, and returns a number
    """

    def __init__(self, loss: Loss, parameters: Mapping[str, Array], complex_step: float = COMPLEX_STEP) -> None:
        self.loss, self.complex_step = loss, complex_step
        self.real = {name: np.array(value, dtype=float) for name, value in parameters.items()}

    @cached_property
    def complex_theta(self) -> dict[str, Array]:
        """theta as complex numbers."""
        return {name: value.astype(complex) for name, value in self.real.items()}

    @cached_property
    def middle(self) -> float:
        """f(theta)."""
        return _number(self.loss(self.real)).real

    @cached_property
    def noise(self) -> float:
        """The rounding error of f: its spread over four points within a few eps of theta, and at least eps |f|.

        Large terms that cancel in f leave a larger rounding error.  If they do not depend on theta, as the 10^8 in
        (f + 10^8) - 10^8, such small steps do not change f at all; larger ones show by how much it jumps.
        """
        rng = np.random.default_rng(0)
        values = [self.middle, *(self.nearby(rng).guarded() for _ in range(4))]
        rounding = max(float(np.ptp([value for value in values if np.isfinite(value)] or [0.0])),
                       EPS * abs(self.middle))
        return next((max(rounding, bend) for moves, bend in map(self.along, range(40, 3, -6)) if moves), rounding)

    def along(self, k: int) -> tuple[bool, float]:
        """Does f change along a line with steps of 2^-k theta, and by how much does it deviate from a straight line?"""
        rng = np.random.default_rng(0)
        v = {name: _direction(np.zeros(value.shape), rng) for name, value in self.real.items()}
        values = [Point(self.loss, {name: value * (1 + step * 2.0 ** -k * v[name]) for name, value in self.real.items()}
                        ).guarded() for step in range(1, 10)]
        with np.errstate(all="ignore"):
            return bool(np.ptp(values) > 0), float(np.abs(np.diff(values, 2)).max() / 2)

    @cached_property
    def steady(self) -> bool:
        """Is f deterministic, up to the rounding of sums in another order?"""
        again = self.guarded()
        return bool(abs(again - self.middle) <= 1e-9 * abs(self.middle)) or not np.isfinite(again)

    def nearby(self, rng: np.random.Generator, complex_step: float = COMPLEX_STEP) -> "Point":
        """The same loss at a point that differs from theta by a few eps."""
        return Point(self.loss, {name: value * (1 + EPS * rng.integers(-3, 4, value.shape))
                                 for name, value in self.real.items()}, complex_step)

    def guarded(self) -> float:
        """f(theta), or NaN if it raises an arithmetic error: theta may lie outside the domain of f."""
        try:
            with np.errstate(all="ignore"):
                return _number(self.loss(self.real)).real
        except (ArithmeticError, ValueError):
            return np.nan

    def complex_slope(self, name: str, probe: Probe) -> float:
        """Im f(theta + i h v) / h  (D9.3).

        Raises TypeError, which names the function to blame, if f takes only real numbers.
        """
        array = self.complex_theta[name]
        kept = array[probe.place].copy()
        try:
            array[probe.place] = kept + 1j * self.complex_step * probe.direction
            value = self.loss(self.complex_theta)
        except Exception as error:
            self.loss(self.real)      # an error with real numbers, too, is raised as it is
            raise TypeError(_no_complex_form(error)) from error
        finally:
            array[probe.place] = kept
        return _number(value).imag / self.complex_step

    def central_slope(self, name: str, probe: Probe, guarded: bool = False) -> tuple[float, float]:
        """Central difference along `direction` v with step h = `size`, and the jump between the slopes on its sides:

            slope    ( f(theta + h v) - f(theta - h v) ) / 2h                       (D9.1)
            jump     ( f(theta + h v) - 2 f(theta) + f(theta - h v) ) / h           (D9.6)
        """
        array, middle = self.real[name], self.middle
        kept = array[probe.place].copy()
        value = self.guarded if guarded else lambda: _number(self.loss(self.real)).real
        high = kept + probe.size * probe.direction
        low = kept - (high - kept)
        width = float(np.vdot(high - low, probe.direction) / np.vdot(probe.direction, probe.direction))
        try:      # `width` is 2h as rounded
            array[probe.place] = high
            upper = value()
            array[probe.place] = low
            lower = value()
        finally:
            array[probe.place] = kept
        with np.errstate(all="ignore"):
            return (upper - lower) / width, (upper - 2 * middle + lower) / (0.5 * width)


@contextmanager
def imaginary_parts_may_be_lost() -> Iterator[None]:
    """Within this context NumPy does not warn of it: `hold` detects it, and the report says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        yield


# -- what has no complex form ------------------------------------------------------------------------------------------

_STEP = "{0}(x.real) is enough, since its derivative is zero"
_INSTEAD = {
    "logaddexp": "write logsumexp by hand, m + np.log(np.exp(a - m) + np.exp(b - m)), m = np.maximum(a.real, b.real)",
    "logaddexp2": "write m + np.log2(2 ** (a - m) + 2 ** (b - m)), with m = np.maximum(a.real, b.real)",
    "hypot": "write np.sqrt(a * a + b * b)", "fabs": "write np.where(x.real < 0, -x, x)",
    "arctan2": "write np.arctan(y / x) + np.where(x.real < 0, np.copysign(np.pi, y.real), 0)",
    "cbrt": "write s * (s * x) ** (1 / 3), with s = np.sign(x.real)",
    "copysign": "write np.where(x.real < 0, -x, x) * np.sign(y.real)",
    "heaviside": "write np.where(x.real > 0, 1.0, 0.0)", "remainder": "write x - n * np.floor(x.real / n)",
    "fmod": "write x - n * np.trunc(x.real / n)", "deg2rad": "write x * (np.pi / 180)",
    **{name: _STEP.format(f"np.{name}") for name in ("floor", "ceil", "trunc", "signbit")}}


def _no_complex_form(error: Exception) -> str:
    """The message for a function that takes no complex numbers: its name, and what to use instead."""
    import traceback      # not with npvae: it takes longer than all else here

    line = (traceback.extract_tb(error.__traceback__)[-1].line or "").strip()
    text = " ".join(str(error).split())
    ufunc, in_math = re.search(r"ufunc '(\w+)'", text), re.search(r"\bmath\.(\w+)", line)
    if "cast" in text.lower() and "ufunc" in text and "output" in text:
        what, does = "it writes into a float64 array", "make that by np.zeros_like(x), or in x.dtype"
    elif ufunc:
        name = ufunc[1]
        what, does = f"np.{name} has no complex form", _INSTEAD.get(name, "")
    elif in_math:
        name = in_math[1]
        what = f"math.{name} has no complex form"
        does = _INSTEAD.get(name) or (f"np.{name} has one" if hasattr(np, name) else "")
    else:
        what, does = f"{type(error).__name__} in `{line}`: {text}", ""
    hint = f"{does}; or take" if does else "take"
    return f"the complex step needs a function that takes complex numbers, and {what}: {hint} method='central'"


# -- slopes of a tensor ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Slopes:
    """The numerical derivatives of one tensor along its probes, and the jumps between the slopes on the two sides."""

    value: Array
    jumps: Array
    central: bool = False      # by central differences, not by the complex step
    note: str = ""      # why, if the complex step was requested
    confirmed: bool = True      # do central differences confirm the complex step?  If not, the verdict is UNDECIDED
    complex_step: float = COMPLEX_STEP


def slopes(point: Point, name: str, probes: Sequence[Probe], method: str) -> Slopes:
    """The derivatives by the complex step or by central differences; by the latter also where the former is wrong."""
    _require_fine_steps(point, name)
    if "central" in method:
        return _central(point, name, probes)
    found = hold(point, name)
    if found.kind == "not analytic":
        return by_central(point, name, probes, found.by_complex_step, found.by_central)
    values = np.array([found.point.complex_slope(name, probe) for probe in probes])
    if found.kind in ("smooth", "open"):
        told = Slopes(values, np.zeros(len(probes)), complex_step=found.point.complex_step)
        return told if found.kind == "smooth" else replace(told, confirmed=False, note=(
            f"no central differences confirm the complex step in {name}: the loss jumps here, or its rounding error of "
            f"about {point.noise:.0e} hides them.  Leave out terms that do not depend on {name}"))
    return _beside_kinks(found.point, name, probes, values, found)


def _require_fine_steps(point: Point, name: str) -> None:
    """Raises TypeError for a loss that is computed in float32 somewhere inside: it changes in proportion to steps of
    2^-10 and 2^-14, but not at all with a step of 2^-40 that float64 would show, and it jumps by 2^-34 of itself."""
    v = _direction(point.real[name], np.random.default_rng(0))

    def moved(k: int) -> float:
        return abs(point.central_slope(name, Probe(..., v, 2.0 ** -k), guarded=True)[0])
    with np.errstate(all="ignore"):
        if moved(40) != 0:
            return
        coarse, fine = moved(10), moved(14)
    size = abs(point.middle)
    in_proportion = abs(fine - coarse) < 0.1 * coarse and coarse * 2.0 ** -40 > 64 * EPS * size
    if in_proportion and point.along(22)[1] > 2.0 ** -34 * size:
        raise TypeError(f"the loss must be computed in float64 throughout, and moves with {name} in steps like those "
                        "of float32: rounding in lower precision hides errors below 1e-3, and so do numbers some 10^7 "
                        "times as large as the loss that cancel in it")


def _central(point: Point, name: str, probes: Sequence[Probe]) -> Slopes:
    found = np.zeros((2, len(probes)))
    for k, probe in enumerate(probes):
        found[:, k] = _slope_and_kink(point, name, probe)
    return Slopes(found[0], found[1], central=True)


def _slope_and_kink(point: Point, name: str, probe: Probe) -> tuple[float, float]:
    """The central difference, and the size of a kink within its step, 0 for none.

    The part of the jump that is due to curvature halves with the step; that of a kink does not.  If f is not defined on
    one side, the slope on the other is returned, with an infinite kink.
    """
    slope, jump = point.central_slope(name, probe, guarded=True)
    if not np.isfinite(slope) and np.isfinite(point.middle):
        return next((side for side in _sides(point, name, probe) if np.isfinite(side)), 0.0), np.inf
    jump = abs(jump)
    if jump <= KINK * abs(slope):
        return slope, 0.0
    if jump > 0:
        _, half = point.central_slope(name, probe._replace(size=probe.size / 2))
        _, quarter = point.central_slope(name, probe._replace(size=probe.size / 4))
        rounding = 32 * point.noise / probe.size
        halves = abs(abs(half) / jump - 0.5) < 0.1 and abs(abs(quarter) / jump - 0.25) < 0.1
        jump = 0.0 if jump <= rounding or halves else jump
    return slope, jump


def _beside_kinks(point: Point, name: str, probes: Sequence[Probe], by_complex_step: Array, found: "Held") -> Slopes:
    """The complex step, except for entries at a kink, which get the mean of the slopes on both sides.  If central
    differences contradict an entry that is not at a kink, the loss is not analytic, and they are used."""
    value, jumps = by_complex_step.copy(), np.zeros(len(probes))
    central, rounding = np.zeros(len(probes)), np.zeros(len(probes))
    for k, probe in enumerate(probes):
        central[k], jumps[k], rounding[k] = _near_a_kink(point, name, probe, by_complex_step[k])
    smooth = jumps == 0
    value[~smooth] = central[~smooth]
    scale = np.sqrt(np.mean(np.square(value[smooth]))) if smooth.any() else 0.0
    if np.any(np.abs(central - value) > 1e-5 * np.maximum(np.abs(value), scale) + rounding):
        return by_central(point, name, probes, found.by_complex_step, found.by_central)
    return Slopes(value, jumps, complex_step=point.complex_step)


def _near_a_kink(point: Point, name: str, probe: Probe, by_complex_step: float) -> tuple[float, float, float]:
    """The central difference, the size of a kink exactly at theta, 0 for none, and the rounding error of the former.
    Smaller steps avoid a kink that lies beside theta, within the first step."""
    jump = np.inf
    for closer in (1.0, 1e-3, 1e-5):
        first, second = (_Rung(*point.central_slope(name, probe._replace(size=closer * probe.size / factor), True))
                         for factor in (1, _FACTOR))
        rounding = point.noise * _FACTOR / (closer * probe.size)
        rung = _extrapolate(first, second.slope, second.jump)
        if not np.isfinite(rung.limit):
            return _at_an_edge(point, name, probe, by_complex_step)
        if abs(rung.kink) <= 32 * rounding + 1e-3 * abs(rung.jump) and 32 * rounding < jump / 4:
            return rung.limit, 0.0, 8 * rounding
        if closer == 1.0:
            limit, jump, blur = rung.limit, abs(rung.kink), 8 * rounding
    return limit, jump, blur


def _at_an_edge(point: Point, name: str, probe: Probe, by_complex_step: float) -> tuple[float, float, float]:
    """At an edge of its domain f has a slope on one side only.  It may confirm the complex step; nothing else can."""
    confirmed = any(abs(slope - by_complex_step) <= 1e-3 * abs(by_complex_step) for slope in _sides(point, name, probe))
    return by_complex_step, 0.0 if confirmed else np.inf, 0.0


def _sides(point: Point, name: str, probe: Probe) -> list[float]:
    """The slopes on the two sides, NaN on a side where f is not defined."""
    theta, kept, found = point.real[name], point.real[name].copy(), []
    try:
        for step in (probe.size, -probe.size):
            theta[probe.place] = kept[probe.place] + step * probe.direction
            found.append((point.guarded() - point.middle) / step)
            theta[...] = kept
    finally:
        theta[...] = kept
    return found


def by_central(point: Point, name: str, probes: Sequence[Probe], complex_slope: float, central: float) -> Slopes:
    """Central differences in place of a complex step that is wrong: along one direction the two slopes differ."""
    found = _central(point, name, probes)
    return Slopes(found.value, found.jumps, True, (
        f"the loss is not analytic in {name}: along one direction the complex step gives {complex_slope:.6e}, central "
        f"differences {central:.6e}, and so these judge the tensor.  np.abs, np.var, np.std, np.linalg.norm, conj "
        "and .real drop or change an imaginary part.  Write (d * d).mean() with d = x - x.mean() for a variance, "
        "np.sqrt((d * d).sum()) for a norm, np.where(x.real < 0, -x, x) for an absolute value"))


# -- is the complex step right? ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Held:
    """The slopes along one direction by the complex step and by central differences, and how they compare."""

    kind: str      # "smooth": they agree; "kink": the slopes on both sides differ; "not analytic"; "open": undecided
    by_complex_step: float
    by_central: float
    point: Point      # with a complex step that is large enough


def hold(point: Point, name: str) -> Held:
    """Compare the complex step with central differences along a random direction in the tensor.

    A disagreement by chance is rare; that of a loss which is not analytic shows along nearly every direction.  So it
    counts only if it occurs along three.
    """
    rng = np.random.default_rng(0)
    for _ in range(3):
        found = _hold_along(point, name, _direction(point.real[name], rng))
        if found.kind == "smooth":
            break
    return found


def _direction(theta: Array, rng: np.random.Generator) -> Array:
    """Random signs, and sizes between 1/2 and 1 times max(1, |theta_i|), so that slopes do not cancel by symmetry."""
    return rng.choice([-1.0, 1.0], theta.shape) * rng.uniform(0.5, 1.0, theta.shape) * np.maximum(1.0, np.abs(theta))


class _Rung(NamedTuple):
    """Slope and jump with one step, and their limits, extrapolated from this step and the larger one before."""

    slope: float
    jump: float
    limit: float = np.nan
    kink: float = np.nan


def _hold_along(point: Point, name: str, v: Array) -> Held:
    """Try steps h, h/8, h/64, ..., until the limit of two agrees with the complex step, or cannot."""
    complex_slope = point.complex_slope(name, Probe(..., v, 0.0))
    if abs(complex_slope) * point.complex_step < 1e-290:      # so small a number loses digits, or is 0
        point = Point(point.loss, point.real, _LARGE_STEP)
        complex_slope = point.complex_slope(name, Probe(..., v, 0.0))
    if not np.isfinite(point.middle) or not np.isfinite(complex_slope):
        return Held("not analytic" if np.isfinite(complex_slope) else "smooth", complex_slope, point.middle, point)
    rungs: list[_Rung] = []
    suspicion: Held | None = None
    for k in range(_RUNGS):
        h = _FIRST_STEP / _FACTOR ** k
        slope, jump = point.central_slope(name, Probe(..., v, h), guarded=True)
        if not np.isfinite(slope):      # outside the domain of f
            rungs.clear()
            continue
        rungs.append(_extrapolate(rungs[-1] if rungs else None, slope, jump))
        kind, central = _verdict(rungs, complex_slope, point.noise / h), rungs[-1].limit
        if suspicion and abs(central - suspicion.by_central) <= 16 * point.noise / h:
            return suspicion      # confirmed, as far as rounding lets so small a step tell
        if kind == "smooth":
            scale = max(abs(complex_slope), abs(central))
            hidden = 8 * point.noise / h > _HIDING * scale and _contradicted(point, name, v, complex_slope)
            return Held("open" if hidden else "smooth", complex_slope, central, point)
        suspicion = Held(kind, complex_slope, central, point) if kind else suspicion
    if not rungs:
        return Held("kink", complex_slope, np.nan, point)      # theta lies on the edge: each entry may have one side
    return suspicion or Held("open", complex_slope, rungs[-1].limit, point)


def _contradicted(point: Point, name: str, v: Array, complex_slope: float) -> bool:
    """Do larger steps, which rounding does not hide, contradict the complex step?"""
    rungs: list[_Rung] = []
    for h in _FIRST_STEP * _FACTOR ** np.arange(4, 0, -1):
        slope, jump = point.central_slope(name, Probe(..., v, h), guarded=True)
        if np.isfinite(slope):
            rungs.append(_extrapolate(rungs[-1] if rungs else None, slope, jump))
            if _verdict(rungs, complex_slope, point.noise / h) == "not analytic":
                return True
    return False


def _extrapolate(last: _Rung | None, slope: float, jump: float) -> _Rung:
    """Slope D and jump J in the limit h -> 0, from those with steps h and 8 h, by Richardson's extrapolation, which
    removes the leading term of the error.

        slope    D + (D - D_8h) / 63          jump    J + (J - J_8h) / 7          (D9.9)
    """
    if last is None:
        return _Rung(slope, jump)
    return _Rung(slope, jump, slope + (slope - last.slope) / (_FACTOR ** 2 - 1),
                 jump + (jump - last.jump) / (_FACTOR - 1))


def _verdict(rungs: list[_Rung], complex_slope: float, rounding: float) -> str:
    """"smooth", "kink" or "not analytic"; "" as long as the steps so far do not decide.

    After extrapolation the error of the slope is rounding, noise / h, and about the square of the term removed, both
    relative to the slope.  A jump that remains is due to a kink.
    """
    if len(rungs) < 2:
        return ""
    last, now = rungs[-2:]
    apart, off = abs(now.slope - last.slope), abs(now.limit - complex_slope)
    scale = max(abs(complex_slope), abs(now.limit))
    truncation = min(apart / 16, 4 * apart * (apart / scale)) if scale else 0.0
    smooth = abs(now.kink) <= 32 * rounding + 1e-3 * abs(now.jump)
    if smooth and off <= 8 * rounding + truncation:
        return "smooth"
    if len(rungs) < 3:
        return ""
    if not smooth and abs(now.kink - last.kink) <= 0.05 * abs(now.kink):
        return "kink"
    spread = abs(now.limit - last.limit) + 8 * rounding
    return "not analytic" if smooth and off > 3 * spread else ""


def closely(point: Point, name: str, probe: Probe) -> tuple[float, float]:
    """The central difference extrapolated from two steps, and its rounding error.  It is about 1,000 times as accurate
    as with one step, if the loss is smooth over a thousandth of theta."""
    large = probe._replace(size=_FIRST_STEP * probe.size / CENTRAL_STEP)
    small = large._replace(size=large.size / _FACTOR)
    first = _Rung(*point.central_slope(name, large, guarded=True))
    return _extrapolate(first, *point.central_slope(name, small, guarded=True)).limit, 8 * point.noise / small.size


# -- gradients that are zero up to rounding --------------------------------------------------------------------------

def repeated(point: Point, name: str, probes: Sequence[Probe], values: Array, found: Slopes) -> float:
    """The largest change of the derivatives when theta moves by a few eps and the step changes, in three trials.  If a
    gradient is zero up to rounding, the change is as large as the gradient."""
    rng, most = np.random.default_rng(0), 0.0
    for _ in range(3):
        step = rng.uniform(0.4, 0.9)
        other = point.nearby(rng, step * found.complex_step)
        for probe, value in zip(probes, values):
            if found.central:
                slope, _ = other.central_slope(name, probe._replace(size=step * probe.size), guarded=True)
            else:
                slope = other.complex_slope(name, probe)
            most = max(most, abs(slope - value)) if np.isfinite(slope) else most
    return most


def cancelling(point: Point, name: str) -> tuple[float, bool]:
    """For a loss that does not depend on a tensor, since terms cancel: a bound on the derivative that rounding leaves,
    along a direction with entries of about 1; and whether steps up to the tensor's size do leave the loss unchanged.

        rounding error of f(theta + h v) / h,     for f(theta + h v) = f(theta) up to rounding         (D9.10)

    h is the size of theta; or larger, so that h itself determines the rounding, if theta is small beside what it is
    added to.  The bound is 0 if the tensor is not used at all.
    """
    rng, bounds, used, flat = np.random.default_rng(0), [], False, True
    theta = point.real[name]
    size = float(np.sqrt(np.mean(np.square(theta)))) or 1.0
    for _ in range(3):
        v, roundings, bound = _direction(np.zeros(theta.shape), rng), [], 0.0
        for h in size * 64.0 ** np.arange(-2, 6):
            values, moves = _around(point, name, h * v, rng)
            used = used or moves
            if not np.isfinite(values).all():
                break
            rounding = max(float(np.ptp(values[:-1])), EPS * float(np.max(np.abs(values))))
            moved = abs(values[0] - values[-1]) > 60 * rounding
            flat = flat and not (moved and h <= size)
            if h <= size and not (moved and bound):
                bound = rounding / h
            if moved:
                break
            roundings.append(rounding)
        bounds.append(min(bound, rounding / h) if roundings and rounding > 16 * roundings[0] else bound)
    return max(bounds) if used else 0.0, flat


def _around(point: Point, name: str, move: Array, rng: np.random.Generator) -> tuple[Array, bool]:
    """f at four points a few eps from theta + move, and at theta - move; and whether any differs from f(theta)."""
    theta, found = point.real[name], []
    kept = theta.copy()
    try:
        for _ in range(4):
            theta[...] = (kept + move) * (1 + EPS * rng.integers(-2, 3, kept.shape))
            found.append(point.guarded())
        theta[...] = kept - move
        found.append(point.guarded())
    finally:
        theta[...] = kept
    values = np.array(found)
    return values, bool(np.any(values != point.middle))
