"""What a gradient check found: the report, and from the pattern of errors the likely slip.  Read beside `gradcheck.py`.

Stands on NumPy alone.  Each pattern below is a slip that people make; the first that fits is reported, the more
specific before the more general.  A diagnosis is a hint: it says what the numbers look like, not what the code says.
"""
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_CLOSE = 1e-6      # relative: numbers nearer than this fit a pattern
_EXPLAINED = 0.01      # and of the error a pattern may leave this much: else a slight error fits every near-symmetry


@dataclass(frozen=True)
class TensorReport:
    """One tensor: its largest error, where it is, the two values there, and what the pattern of errors looks like.

    For the directional methods `index` is the number of the direction, and the values are derivatives along it.
    """

    name: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    vacuous: bool      # the numeric gradient is zero throughout: nothing was tested
    norm_error: float      # |analytic - numeric| / |numeric|, Euclidean norms over the whole tensor
    kinks: int = 0      # entries where the slopes on the two sides differ: a central difference is wrong there
    diagnosis: str = ""

    def __str__(self) -> str:
        notes = [f"\n      looks like: {self.diagnosis}" if self.diagnosis else "",
                 "\n      the numeric gradient is zero throughout: this tests nothing" if self.vacuous else "",
                 f"\n      {self.kinks} entries lie at a kink of the loss: move the parameters" if self.kinks else ""]
        return (f"{self.name:20s} error {self.error:8.1e} at {str(list(self.index)):12s} "
                f"analytic {self.analytic: .12e}  numeric {self.numeric: .12e}{''.join(notes)}")


@dataclass(frozen=True)
class Report:
    """All tensors against one tolerance, and rules of a backward pass that were broken (`check_pair`)."""

    method: str
    tolerance: float
    tensors: tuple[TensorReport, ...]
    violations: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.violations and all(tensor.error <= self.tolerance for tensor in self.tensors)

    @property
    def worst(self) -> TensorReport:
        return max(self.tensors, key=lambda tensor: tensor.error)

    @property
    def vacuous(self) -> tuple[str, ...]:
        """The tensors whose numeric gradient is zero throughout."""
        return tuple(tensor.name for tensor in self.tensors if tensor.vacuous)

    def __str__(self) -> str:
        verdict = "right" if all(tensor.error <= self.tolerance for tensor in self.tensors) else "WRONG"
        rules = ", rules BROKEN" if self.violations else ""
        lines = [f"gradients {verdict}{rules} ({self.method} differences, tolerance {self.tolerance:g})"]
        lines += [f"{'  ' if tensor.error <= self.tolerance else '* '}{tensor}" for tensor in self.tensors]
        return "\n".join(lines + [f"* {violation}" for violation in self.violations])


@dataclass(frozen=True)
class _Case:
    """A wrong gradient beside the right one, in units in which the larger of the two has largest entry 1."""

    analytic: Array
    numeric: Array
    wrong: Array      # where the rule calls an entry wrong
    others: Mapping[str, Array]
    counts: Mapping[str, float]

    def fits(self, a: Array, b: Array) -> bool:
        """Are a and b, arrays or their products, the same up to rounding, and by far nearer than analytic and numeric?
        Two zeros are not called the same."""
        if a.shape != b.shape:
            return False
        scale = max(np.abs(a).max(), np.abs(b).max())
        error = np.abs(self.analytic - self.numeric).max()
        return bool(0 < scale < np.inf and np.abs(a - b).max() <= min(_CLOSE * scale, _EXPLAINED * error))


def diagnose(analytic: Array, numeric: Array, wrong: Array, others: Mapping[str, Array], counts: Mapping[str, float],
             along_directions: bool) -> str:
    """The likely slip behind a wrong `analytic`, in a few words; empty where no pattern fits.

    wrong : bool, the entries that are off by more than the tolerance
    others : arrays the wrong gradient may turn out to be, by name: numeric gradients of the other tensors, the
        upstream gradient
    counts : numbers a gradient may be off by, by name, such as {"B": 128}
    along_directions : the values are derivatives along random directions, and no place means anything
    """
    if not np.isfinite(analytic).all():
        what = "directions" if along_directions else "entries"
        return f"NaN or infinity in {np.sum(~np.isfinite(analytic))} of {analytic.size} {what}"
    if not np.isfinite(numeric).all():
        return "the loss itself is NaN or infinite near these parameters"
    if not wrong.any():
        return ""
    if not analytic.any():
        return "zero throughout: a path from here to the loss is missing, or the gradient was never written"
    if not numeric.any():
        return ("not zero, and the loss does not depend on this tensor (or the complex step is lost in an abs or a "
                "real part: then take method='central')")
    patterns = [_is_constant_ratio]
    if not along_directions:
        patterns += [_is_transposed, _is_shifted, _is_in_one_place, _is_masked, _is_another, _is_applied_twice,
                     _is_scaled_along_an_axis, _is_off_by_a_constant]
    with np.errstate(all="ignore"):      # what overflows or vanishes beside the other fits no pattern
        size = max(np.abs(analytic).max(), np.abs(numeric).max())
        case = _Case(analytic / size, numeric / size, wrong, {name: value / size for name, value in others.items()},
                     counts)
        if not (case.analytic.any() and case.numeric.any()):
            return ""
        return next((found for pattern in patterns for found in pattern(case)), "")


def _is_constant_ratio(case: _Case) -> Iterator[str]:
    unit = case.numeric / np.abs(case.numeric).max()      # the square of a small number would vanish
    ratio = float(np.vdot(unit, case.analytic) / np.vdot(unit, unit) / np.abs(case.numeric).max())
    if not (np.isfinite(ratio) and ratio and case.fits(case.analytic, ratio * case.numeric)):
        return
    size, sign = abs(ratio), "the sign is wrong and it is " if ratio < 0 else ""
    if ratio < 0 and _near(size, 1):
        yield "the sign is wrong"
    counts = {label: count for label, count in case.counts.items() if count not in (1, 2)}
    times = [(label, count) for label, count in counts.items() if _near(size, count)]
    parts = [(label, count) for label, count in counts.items() if _near(size * count, 1)]
    for found, word, hint in ((times, "large", "is a mean over {} missing?"),
                              (parts, "small", "a mean over {} too many, or a sum taken as a mean?")):
        if found:
            labels = " or ".join(label for label, _ in found)
            yield f"{sign}{labels} = {found[0][1]:g} times too {word}: {hint.format(labels)}"
    names = {2.0: "twice", 0.5: "half", 4.0: "four times", 0.25: "a quarter of", 3.0: "three times"}
    hints = {2.0: ": added twice, or a factor 1/2 forgotten?", 0.5: ": a factor 2 forgotten, or 1/2 applied twice?"}
    for value, name in names.items():
        if _near(size, value):
            yield f"{sign}{name} what it should be, throughout{hints.get(value, '')}"
    if np.count_nonzero(case.numeric) > 1:      # any two numbers have a ratio
        factor = f"1 {size - 1:+.3g}" if _near(size, 1) else f"{size:.7g}"
        yield f"{sign}{factor} times what it should be, throughout"


def _near(a: float, b: float) -> bool:
    return abs(a / b - 1) <= _CLOSE


def _is_transposed(case: _Case) -> Iterator[str]:
    if case.analytic.ndim == 2:
        if case.fits(case.analytic.T, case.numeric):
            yield "transposed"
        if case.fits(case.analytic.reshape(case.analytic.shape[::-1]).T, case.numeric):
            yield "transposed in memory: the right numbers, laid out by columns"


def _is_shifted(case: _Case) -> Iterator[str]:
    for axis, length in enumerate(case.analytic.shape):
        for step in (1, -1):
            if length > 2 and case.fits(np.roll(case.analytic, step, axis), case.numeric):
                yield f"shifted by one along axis {axis}: an index is off by one"
        if length > 1 and case.fits(np.flip(case.analytic, axis), case.numeric):
            yield f"in reverse order along axis {axis}"


def _is_in_one_place(case: _Case) -> Iterator[str]:
    shape = case.analytic.shape
    if case.wrong.size > 1 and case.wrong.sum() == 1:
        yield f"only the entry {[int(i[0]) for i in np.nonzero(case.wrong)]} is wrong"
    for axis, length in enumerate(shape):
        rows = np.unique(np.nonzero(case.wrong)[axis])
        if length > 1 and len(rows) == 1:
            place = f"{('row', 'column')[axis]} {rows[0]}" if len(shape) == 2 else f"index {rows[0]} of axis {axis}"
            zero = "" if np.take(case.analytic, rows[0], axis).any() else ", and it is zero"
            yield f"only {place} is wrong{zero}"


def _is_masked(case: _Case) -> Iterator[str]:
    wrong, place = case.wrong, f"in {case.wrong.sum()} of {case.wrong.size} entries, right elsewhere"
    zero = np.abs(case.numeric) <= _CLOSE * np.abs(case.numeric).max()
    if not case.analytic[wrong].any():
        yield f"zero where it should not be, {place}: a wrong mask?"
    if zero[wrong].all():
        yield f"not zero where it should be, {place}: a mask is missing?"
    if zero.any() and np.array_equal(zero, case.analytic != 0):
        yield "zero where it should not be, and nowhere else: is a mask inverted?"


def _is_another(case: _Case) -> Iterator[str]:
    for other, value in case.others.items():
        if case.fits(case.analytic, value):
            upstream = other == "the upstream gradient"
            yield f"equal to {other}{': is the derivative of the layer itself missing?' if upstream else ''}"
    for other, value in case.others.items():
        if case.fits(case.analytic - case.numeric, value):
            yield f"too large by {other}: added where it does not belong?"
        if case.fits(case.numeric - case.analytic, value):
            yield f"{other} is missing from the sum"


def _is_applied_twice(case: _Case) -> Iterator[str]:
    """numeric = upstream f', analytic = upstream f' f':  analytic * upstream = numeric^2."""
    upstream = case.others.get("the upstream gradient")
    if upstream is None or upstream.shape != case.analytic.shape:
        return
    if case.fits(case.analytic * upstream, case.numeric * case.numeric):
        yield "the derivative of the activation is applied twice"


def _is_scaled_along_an_axis(case: _Case) -> Iterator[str]:
    """analytic = c numeric with one factor c for each index of an axis: a factor that belongs there is missing."""
    analytic, numeric = case.analytic, case.numeric
    for axis in range(analytic.ndim if analytic.ndim > 1 else 0):
        rest = tuple(other for other in range(analytic.ndim) if other != axis)
        power = np.sum(numeric * numeric, axis=rest, keepdims=True)
        factor = np.where(power > 0, np.sum(numeric * analytic, axis=rest, keepdims=True) / power, 1)
        entries = np.count_nonzero(numeric, axis=rest)[case.wrong.any(axis=rest)]
        if entries.min() > 1 and case.fits(analytic, factor * numeric):      # any two numbers have a ratio
            yield (f"off by a factor of its own for each index of axis {axis}, from {factor.min():.4g} to "
                   f"{factor.max():.4g}: is the derivative of an activation, or a scale, missing or another layer's?")


def _is_off_by_a_constant(case: _Case) -> Iterator[str]:
    """A term that every entry along an axis shares, as from the derivative of a mean or of a normaliser."""
    difference = case.analytic - case.numeric
    for axis, length in enumerate(difference.shape):
        shared = np.broadcast_to(difference.mean(axis=axis, keepdims=True), difference.shape)
        if length > 1 and case.fits(difference, shared):
            yield (f"off by the same amount all along axis {axis}: the derivative of a sum or mean over it is missing, "
                   "or one too many?")
