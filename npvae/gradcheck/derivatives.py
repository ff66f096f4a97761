"""Numerical derivatives of any loss, and how far each can be believed.  Read before `checker.py`.

    complex    Im f(theta + i h v) / h,  h = 1e-30         exact to rounding, if f is analytic and takes complex numbers
    central    (f(theta + h v) - f(theta - h v)) / 2h      right to some eps^(2/3), for any f that has a derivative

The complex step is blind where f drops an imaginary part, as np.abs and np.var do, and at a kink it sees one side only.
So each tensor's complex derivative along one random direction is held against central differences (`hold`): that is a
real derivative of the function as it is used, and costs some four evaluations.

Stands on NumPy alone.
"""
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Loss = Callable[[dict[str, Array]], Any]

EPS = float(np.finfo(np.float64).eps)
COMPLEX_STEP = 1e-30
CENTRAL_STEP = EPS ** (1 / 3)
KINK = 1e-3      # one-sided slopes that differ by more of the gradient's size may have a kink between them
_LARGE_STEP = 1e-8      # sideways, where a derivative times 1e-30 would be no number any more
_HIDING = 1e-3      # of a slope: rounding that hides more leaves it to larger steps to confirm the complex step
_FIRST_STEP, _FACTOR, _RUNGS = 2.0 ** -10, 8.0, 14      # of the ladder of central differences in `hold`


# -- arguments ---------------------------------------------------------------------------------------------------------

def require_something(what: str, arrays: Mapping[str, Array]) -> None:
    """Raise ValueError unless there is an array, and none is empty; TypeError unless all are float64."""
    if not arrays:
        raise ValueError(f"{what} must hold at least one array: with none, nothing is checked")
    for name, value in arrays.items():
        require_float64(name, value)
        if not np.size(value):
            raise ValueError(f"{name} has shape {np.shape(value)}: it is empty, there is nothing to check")


def require_float64(name: str, value: Any) -> None:
    """Raise TypeError for any other type, with what to do about it."""
    dtype = np.asarray(value).dtype
    if dtype != np.float64:
        reason = ""
        if dtype in (np.float32, np.float16):
            reason = ": rounding in lower precision hides errors below 1e-3"
        elif dtype.kind in "iub":
            reason = (f": there is no derivative by whole numbers.  Indices, labels and masks go into `constants` of "
                      f"check_pair (constants=[{name!r}]), numbers are turned with .astype(float)")
        raise TypeError(f"{name} must be float64, got {dtype}{reason}")


def _number(loss: Any) -> Any:
    dtype = np.asarray(loss).dtype
    if np.ndim(loss) or dtype.kind not in "fciu":
        raise ValueError(f"loss must return one number, got {type(loss).__name__} of shape {np.shape(loss)}")
    if dtype in (np.float32, np.float16, np.complex64):
        raise TypeError(f"loss must return float64, got {dtype}: rounding in lower precision hides errors below 1e-3")
    return loss


# -- a loss at a point -------------------------------------------------------------------------------------------------

class Probe(NamedTuple):
    """A direction in one tensor: its entries theta[place] move by `direction`, in steps of some `size`."""

    place: Any
    direction: Any
    size: float


def entries(theta: Array) -> list[Probe]:
    """Each entry alone, with the step  h = eps^(1/3) max(1, |theta_i|)  for its central difference  (D9.2)."""
    return [Probe(index, 1.0, CENTRAL_STEP * max(1.0, abs(theta[index]))) for index in np.ndindex(theta.shape)]


class Point:
    """A loss f and the place theta where it is differentiated.

    loss : takes a dict of arrays and returns a number; the arrays are copies that belong to the point
    """

    def __init__(self, loss: Loss, parameters: Mapping[str, Array], complex_step: float = COMPLEX_STEP) -> None:
        self.loss, self.complex_step = loss, complex_step
        self.real = {name: np.array(value, dtype=float) for name, value in parameters.items()}

    @cached_property
    def sideways(self) -> dict[str, Array]:
        """theta in complex numbers."""
        return {name: value.astype(complex) for name, value in self.real.items()}

    @cached_property
    def middle(self) -> float:
        """f(theta)."""
        return float(_number(self.loss(self.real)).real)

    @cached_property
    def noise(self) -> float:
        """By how much rounding moves f: what four points within a few eps of theta have for it, and eps |f| at least.

        Terms that cancel in f leave their own rounding, which is more.  If they do not depend on theta, as the 10^8 in
        (f + 10^8) - 10^8, f stays where it is for so small steps: larger ones show by how much it jumps.
        """
        rng = np.random.default_rng(0)
        values = [self.middle, *(self.nearby(rng).guarded() for _ in range(4))]
        rounding = max(float(np.ptp([value for value in values if np.isfinite(value)] or [0.0])),
                       EPS * abs(self.middle))
        return next((max(rounding, bend) for moves, bend in map(self.along, range(40, 3, -6)) if moves), rounding)

    def along(self, k: int) -> tuple[bool, float]:
        """Does f move along a line with steps of 2^-k theta?  And by how much does it leave a straight line?"""
        rng = np.random.default_rng(0)
        v = {name: _direction(np.zeros(value.shape), rng) for name, value in self.real.items()}
        values = [Point(self.loss, {name: value * (1 + step * 2.0 ** -k * v[name]) for name, value in self.real.items()}
                        ).guarded() for step in range(1, 10)]
        with np.errstate(all="ignore"):
            return bool(np.ptp(values) > 0), float(np.abs(np.diff(values, 2)).max() / 2)

    @cached_property
    def steady(self) -> bool:
        """Is f(theta) the same twice, but for the rounding of sums taken in another order?"""
        again = self.guarded()
        return bool(abs(again - self.middle) <= 1e-9 * abs(self.middle)) or not np.isfinite(again)

    def nearby(self, rng: np.random.Generator, complex_step: float = COMPLEX_STEP) -> "Point":
        """The same loss a few roundings away."""
        return Point(self.loss, {name: value * (1 + EPS * rng.integers(-3, 4, value.shape))
                                 for name, value in self.real.items()}, complex_step)

    def guarded(self) -> float:
        """f(theta), NaN where that cannot be had: beyond the edge of where f is defined."""
        try:
            with np.errstate(all="ignore"):
                return float(_number(self.loss(self.real)).real)
        except (ArithmeticError, ValueError):
            return np.nan

    def complex_slope(self, name: str, probe: Probe) -> float:
        """Im f(theta + i h v) / h  (D9.3).

        Raises TypeError, with the function to blame, where f takes real numbers only.
        """
        array = self.sideways[name]
        kept = array[probe.place].copy()
        try:
            array[probe.place] = kept + 1j * self.complex_step * probe.direction
            value = self.loss(self.sideways)
        except Exception as error:
            self.loss(self.real)      # what fails here, too, is no matter of complex numbers
            raise TypeError(_no_complex_form(error)) from error
        finally:
            array[probe.place] = kept
        return float(_number(value).imag / self.complex_step)

    def central_slope(self, name: str, probe: Probe, guarded: bool = False) -> tuple[float, float]:
        """The central difference when theta moves along `direction` v by h = `size`, and the jump between its sides:

            slope    ( f(theta + h v) - f(theta - h v) ) / 2h                       (D9.1)
            jump     ( f(theta + h v) - 2 f(theta) + f(theta - h v) ) / h           (D9.6)
        """
        array, middle = self.real[name], self.middle
        kept = array[probe.place].copy()
        value = self.guarded if guarded else lambda: float(_number(self.loss(self.real)).real)
        high = kept + probe.size * probe.direction
        low = kept - (high - kept)
        width = float(np.vdot(high - low, probe.direction) / np.vdot(probe.direction, probe.direction))
        try:      # the width is that which came out after rounding
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
    """Without NumPy's warning of it: `hold` finds out, and the report says so."""
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
    """Which function takes no complex numbers, and what does in its place."""
    line = (traceback.extract_tb(error.__traceback__)[-1].line or "").strip()
    text = " ".join(str(error).split())
    ufunc, in_math = re.search(r"ufunc '(\w+)'", text), re.search(r"\bmath\.(\w+)", line)
    if "cast" in text.lower() and "ufunc" in text and "output" in text:
        what, does = "memory inside of it is float64", "make it with np.zeros_like(x), or in x.dtype"
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
    """The numerical derivatives of one tensor along its probes, and by how much the slopes on both sides differ."""

    value: Array
    jumps: Array
    central: bool = False      # central differences, and not the complex step
    note: str = ""      # why they are, though the complex step was asked for
    confirmed: bool = True      # does the complex step say what central differences say?  Else it judges nothing
    complex_step: float = COMPLEX_STEP


def slopes(point: Point, name: str, probes: Sequence[Probe], method: str) -> Slopes:
    """By "complex" or "central" differences; where the first cannot be believed, by the second."""
    _require_fine_steps(point, name)
    if "central" in method:
        return _central(point, name, probes)
    found = hold(point, name)
    if found.kind == "not analytic":
        return by_central(point, name, probes, found.sideways, found.central)
    values = np.array([found.point.complex_slope(name, probe) for probe in probes])
    if found.kind in ("smooth", "open"):
        told = Slopes(values, np.zeros(len(probes)), complex_step=found.point.complex_step)
        return told if found.kind == "smooth" else replace(told, confirmed=False, note=(
            f"no central differences confirm the complex step in {name}: the loss jumps here, or its rounding, some "
            f"{point.noise:.0e}, hides them.  Leave out what does not depend on {name}"))
    return _beside_kinks(found.point, name, probes, values, found)


def _require_fine_steps(point: Point, name: str) -> None:
    """Raise TypeError for a loss that moves with steps of 2^-14, in proportion, and not at all with one of 2^-40 that
    rounding would show, and by jumps of more than 2^-34 of itself: somewhere inside, it is float32."""
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
    """The central difference and the size of a kink within its step, 0 for none.

    A kink or curvature?  Curvature's part in the jump halves with the step, and again.  Where f is not defined on one
    side, its slope on the other is all there is, and decides nothing.
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


def _beside_kinks(point: Point, name: str, probes: Sequence[Probe], sideways: Array, found: "Held") -> Slopes:
    """The complex step, but for the entries at a kink, which have the mean of both sides; where an entry without one
    is not what central differences say, the loss is not analytic."""
    value, jumps = sideways.copy(), np.zeros(len(probes))
    central, rounding = np.zeros(len(probes)), np.zeros(len(probes))
    for k, probe in enumerate(probes):
        central[k], jumps[k], rounding[k] = _near_a_kink(point, name, probe, sideways[k])
    smooth = jumps == 0
    value[~smooth] = central[~smooth]
    scale = np.sqrt(np.mean(np.square(value[smooth]))) if smooth.any() else 0.0
    if np.any(np.abs(central - value) > 1e-5 * np.maximum(np.abs(value), scale) + rounding):
        return by_central(point, name, probes, found.sideways, found.central)
    return Slopes(value, jumps, complex_step=point.complex_step)


def _near_a_kink(point: Point, name: str, probe: Probe, sideways: float) -> tuple[float, float, float]:
    """The central difference, the size of the kink at this very place, 0 for none, and the rounding of the first.  A
    kink beside it, within the step, is left behind by a smaller step."""
    jump = np.inf
    for closer in (1.0, 1e-3, 1e-5):
        first, second = (_Rung(*point.central_slope(name, probe._replace(size=closer * probe.size / factor), True))
                         for factor in (1, _FACTOR))
        rounding = point.noise * _FACTOR / (closer * probe.size)
        rung = _extrapolate(first, second.slope, second.jump)
        if not np.isfinite(rung.limit):
            return _at_an_edge(point, name, probe, sideways)
        if abs(rung.kink) <= 32 * rounding + 1e-3 * abs(rung.jump) and 32 * rounding < jump / 4:
            return rung.limit, 0.0, 8 * rounding
        if closer == 1.0:
            limit, jump, blur = rung.limit, abs(rung.kink), 8 * rounding
    return limit, jump, blur


def _at_an_edge(point: Point, name: str, probe: Probe, sideways: float) -> tuple[float, float, float]:
    """Where f is defined on one side only, the slope of that side may confirm the complex step; else nothing can."""
    confirmed = any(abs(slope - sideways) <= 1e-3 * abs(sideways) for slope in _sides(point, name, probe))
    return sideways, 0.0 if confirmed else np.inf, 0.0


def _sides(point: Point, name: str, probe: Probe) -> list[float]:
    """The slopes of the two sides; NaN of one where f is not defined."""
    theta, kept, found = point.real[name], point.real[name].copy(), []
    try:
        for step in (probe.size, -probe.size):
            theta[probe.place] = kept[probe.place] + step * probe.direction
            found.append((point.guarded() - point.middle) / step)
            theta[...] = kept
    finally:
        theta[...] = kept
    return found


def by_central(point: Point, name: str, probes: Sequence[Probe], sideways: float, central: float) -> Slopes:
    """Central differences, since the complex step has lost something on its way: `sideways` where they have `central`.
    """
    found = _central(point, name, probes)
    return Slopes(found.value, found.jumps, True, (
        f"the loss is not analytic in {name}: along one direction the complex step says {sideways:.6e}, central "
        f"differences say {central:.6e}; these judge the tensor.  np.abs, np.var, np.std, np.linalg.norm, conj and "
        ".real drop or turn an imaginary part.  Write (d * d).mean() with d = x - x.mean() for a variance, "
        "np.sqrt((d * d).sum()) for a norm, np.where(x.real < 0, -x, x) for an absolute value"))


# -- is the complex step right? ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Held:
    """Along one direction: what the complex step and central differences say, and what follows."""

    kind: str      # "smooth": both agree; "kink": the slopes on both sides differ; "not analytic"; "open": no telling
    sideways: float
    central: float
    point: Point      # with the complex step that is large enough


def hold(point: Point, name: str) -> Held:
    """Hold the complex step against central differences, along a random direction in the tensor.

    A loss that is not analytic shows along nearly every direction, chance along one.  So a suspicion must repeat.
    """
    rng = np.random.default_rng(0)
    for _ in range(3):
        found = _hold_along(point, name, _direction(point.real[name], rng))
        if found.kind == "smooth":
            break
    return found


def _direction(theta: Array, rng: np.random.Generator) -> Array:
    """Random signs and sizes, so that no pattern of signs cancels: between 1/2 and 1 of  max(1, |theta_i|)."""
    return rng.choice([-1.0, 1.0], theta.shape) * rng.uniform(0.5, 1.0, theta.shape) * np.maximum(1.0, np.abs(theta))


class _Rung(NamedTuple):
    """Central differences with one step, and what they extrapolate to with those of the step before."""

    slope: float
    jump: float
    limit: float = np.nan
    kink: float = np.nan


def _hold_along(point: Point, name: str, v: Array) -> Held:
    """Down a ladder of steps h, h/8, h/64, ..., until two agree with the complex step, or cannot."""
    sideways = point.complex_slope(name, Probe(..., v, 0.0))
    if abs(sideways) * point.complex_step < 1e-290:      # of so small a number digits are lost, or all of it
        point = Point(point.loss, point.real, _LARGE_STEP)
        sideways = point.complex_slope(name, Probe(..., v, 0.0))
    if not np.isfinite(point.middle) or not np.isfinite(sideways):
        return Held("not analytic" if np.isfinite(sideways) else "smooth", sideways, point.middle, point)
    rungs: list[_Rung] = []
    suspicion: Held | None = None
    for k in range(_RUNGS):
        h = _FIRST_STEP / _FACTOR ** k
        slope, jump = point.central_slope(name, Probe(..., v, h), guarded=True)
        if not np.isfinite(slope):      # beyond the edge
            rungs.clear()
            continue
        rungs.append(_extrapolate(rungs[-1] if rungs else None, slope, jump))
        kind, central = _verdict(rungs, sideways, point.noise / h), rungs[-1].limit
        if suspicion and abs(central - suspicion.central) <= 16 * point.noise / h:
            return suspicion      # the same again, or as near as it can be said with so small a step
        if kind == "smooth":
            scale = max(abs(sideways), abs(central))
            hidden = 8 * point.noise / h > _HIDING * scale and _denied_from_afar(point, name, v, sideways)
            return Held("open" if hidden else "smooth", sideways, central, point)
        suspicion = Held(kind, sideways, central, point) if kind else suspicion
    if not rungs:
        return Held("kink", sideways, np.nan, point)      # the edge itself: entry by entry, one side may do
    return suspicion or Held("open", sideways, rungs[-1].limit, point)


def _denied_from_afar(point: Point, name: str, v: Array, sideways: float) -> bool:
    """Where rounding hides slopes of the size of this one, larger steps may still show that f moves otherwise."""
    rungs: list[_Rung] = []
    for h in _FIRST_STEP * _FACTOR ** np.arange(4, 0, -1):
        slope, jump = point.central_slope(name, Probe(..., v, h), guarded=True)
        if np.isfinite(slope):
            rungs.append(_extrapolate(rungs[-1] if rungs else None, slope, jump))
            if _verdict(rungs, sideways, point.noise / h) == "not analytic":
                return True
    return False


def _extrapolate(last: _Rung | None, slope: float, jump: float) -> _Rung:
    """What is left of slope D and jump J at h -> 0, by those with the step 8 h before: Richardson's extrapolation,
    which takes the first term out of the error.

        slope    D + (D - D_8h) / 63          jump    J + (J - J_8h) / 7          (D9.9)
    """
    if last is None:
        return _Rung(slope, jump)
    return _Rung(slope, jump, slope + (slope - last.slope) / (_FACTOR ** 2 - 1),
                 jump + (jump - last.jump) / (_FACTOR - 1))


def _verdict(rungs: list[_Rung], sideways: float, rounding: float) -> str:
    """"smooth", "kink" or "not analytic", as soon as the numbers say so; "" while they do not.

    Of the slope's error there is left rounding, noise / h, and some square of what was taken out, in units of the
    slope.  A jump that is left is a kink's.
    """
    if len(rungs) < 2:
        return ""
    last, now = rungs[-2:]
    apart, off = abs(now.slope - last.slope), abs(now.limit - sideways)
    scale = max(abs(sideways), abs(now.limit))
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
    """Central differences with two steps, extrapolated, and what rounding leaves of them: some 1,000 times closer than
    one, where the loss is smooth over a thousandth of theta."""
    large = probe._replace(size=_FIRST_STEP * probe.size / CENTRAL_STEP)
    small = large._replace(size=large.size / _FACTOR)
    first = _Rung(*point.central_slope(name, large, guarded=True))
    return _extrapolate(first, *point.central_slope(name, small, guarded=True)).limit, 8 * point.noise / small.size


# -- what rounding leaves of a zero ------------------------------------------------------------------------------------

def repeated(point: Point, name: str, probes: Sequence[Probe], values: Array, found: Slopes) -> float:
    """By how much derivatives change a few roundings away and with another step, at most, in three trials.  Of a
    gradient that is zero but for rounding, all of it does."""
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
    """What rounding leaves of terms that cancel, in the derivative of a loss that does not move with a tensor, along a
    direction with entries of some 1; and whether it is one that does not move with steps of up to the tensor's size.

        rounding of f(theta + h v) / h,     f still where it was                                       (D9.10)

    with h the size of theta; or so large that h alone makes the rounding, where theta is small beside what it is added
    to.  0 where the tensor is not used at all.
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
    """f at theta + move, four times, each a few roundings away; then f(theta - move).  Is any of them not f(theta)?"""
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
