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

_CLOSE = 1e-6      # relative: patterns are judged on wrong gradients, well above rounding


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
        verdict = "right" if self.ok else "WRONG"
        lines = [f"gradients {verdict} ({self.method} differences, tolerance {self.tolerance:g})"]
        lines += [f"{'  ' if tensor.error <= self.tolerance else '* '}{tensor}" for tensor in self.tensors]
        return "\n".join(lines + [f"* {violation}" for violation in self.violations])


def diagnose(name: str, analytic: Array, numeric: Array, others: Mapping[str, Array],
             counts: Mapping[str, float]) -> str:
    """The likely slip behind a wrong `analytic`, in a few words; empty where no pattern fits.

    others : arrays the wrong gradient may turn out to be, by name: numeric gradients of the other tensors, the
        upstream gradient
    counts : numbers a gradient may be off by, by name, such as {"B": 128}
    """
    if not np.isfinite(analytic).all():
        return f"NaN or infinity in {np.sum(~np.isfinite(analytic))} of {analytic.size} entries"
    if not np.isfinite(numeric).all():
        return "the loss itself is NaN or infinite near these parameters"
    size = max(np.abs(analytic).max(), np.abs(numeric).max())      # so that no square vanishes or overflows
    analytic, numeric = analytic / size, numeric / size
    others = {other: value / size for other, value in others.items()}
    for pattern in (_is_zero, _is_constant_ratio, _is_transposed, _is_shifted, _is_another, _is_applied_twice,
                    _is_in_one_place, _is_masked, _is_scaled_along_an_axis, _is_off_by_a_constant):
        found = next(pattern(analytic, numeric, others, counts), "")
        if found:
            return found
    return ""


def _same(a: Array, b: Array) -> bool:
    """Equal up to rounding, in units of the larger; two zeros are not called equal."""
    scale = max(np.abs(a).max(), np.abs(b).max())
    return a.shape == b.shape and scale > 0 and bool(np.abs(a - b).max() <= _CLOSE * scale)


def _wrong(analytic: Array, numeric: Array) -> Array:
    return np.abs(analytic - numeric) > _CLOSE * np.abs(numeric).max()


def _is_zero(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
             ) -> Iterator[str]:
    if not analytic.any():
        yield "zero throughout: a path from here to the loss is missing, or the gradient was never written"
    elif not numeric.any():
        yield "the loss does not depend on this tensor, and the gradient is not zero"


def _is_constant_ratio(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                       ) -> Iterator[str]:
    ratio = float(np.vdot(numeric, analytic) / np.vdot(numeric, numeric))
    if not _same(analytic, ratio * numeric):
        return
    sign = "the sign is wrong and it is " if ratio < 0 else ""
    size = abs(ratio)
    if abs(size - 1) <= _CLOSE:
        yield "the sign is wrong"
    for label, count in counts.items():
        if count not in (1, 2) and abs(size / count - 1) <= _CLOSE:
            yield f"{sign}{label} = {count:g} times too large: is a mean over {label} missing?"
        if count not in (1, 2) and abs(size * count - 1) <= _CLOSE:
            yield f"{sign}{label} = {count:g} times too small: a mean over {label} too many, or a sum taken as a mean?"
    names = {2.0: "twice", 0.5: "half", 4.0: "four times", 0.25: "a quarter of", 3.0: "three times"}
    known = next((word for value, word in names.items() if abs(size / value - 1) <= _CLOSE), None)
    hints = {2.0: ": added twice, or a factor 1/2 forgotten?", 0.5: ": a factor 2 forgotten, or 1/2 applied twice?"}
    hint = next((text for value, text in hints.items() if abs(size / value - 1) <= _CLOSE), "")
    yield f"{sign}{known or f'{size:.9g} times'} what it should be, throughout{hint}"


def _is_transposed(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                   ) -> Iterator[str]:
    if analytic.ndim == 2 and analytic.shape[0] == analytic.shape[1] and _same(analytic.T, numeric):
        yield "transposed"
    if analytic.ndim == 2 and _same(analytic.reshape(analytic.shape[::-1]).T, numeric):
        yield "transposed in memory: the right numbers, laid out by columns"


def _is_shifted(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                ) -> Iterator[str]:
    for axis, length in enumerate(analytic.shape):
        for step in (1, -1):
            if length > 2 and _same(np.roll(analytic, step, axis), numeric):
                yield f"shifted by one along axis {axis}: an index is off by one"
        if length > 1 and _same(np.flip(analytic, axis), numeric):
            yield f"in reverse order along axis {axis}"


def _is_another(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                ) -> Iterator[str]:
    for other, value in others.items():
        if _same(analytic, value):
            yield f"equal to {other}"
    for other, value in others.items():
        if value.shape == analytic.shape and _same(analytic - numeric, value):
            yield f"too large by {other}: added where it does not belong?"
        if value.shape == analytic.shape and _same(numeric - analytic, value):
            yield f"{other} is missing from the sum"


def _is_applied_twice(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                      ) -> Iterator[str]:
    """numeric = upstream f', analytic = upstream f' f':  analytic * upstream = numeric^2."""
    upstream = others.get("the upstream gradient")
    if upstream is not None and _same(analytic * upstream, numeric * numeric):
        yield "the derivative of the activation is applied twice"


def _is_in_one_place(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                     ) -> Iterator[str]:
    wrong = _wrong(analytic, numeric)
    if analytic.size > 1 and wrong.sum() == 1:
        yield f"only the entry {[int(i[0]) for i in np.nonzero(wrong)]} is wrong"
    for axis, length in enumerate(analytic.shape):
        rows = np.unique(np.nonzero(wrong)[axis])
        if length > 1 and len(rows) == 1 and analytic.ndim > 1:
            row = np.take(analytic, rows[0], axis)
            kind = {0: "row", 1: "column"}.get(axis, f"slice of axis {axis}") if analytic.ndim == 2 else f"axis {axis},"
            yield f"only {kind} {rows[0]} is wrong{'' if row.any() else ', and it is zero'}"


def _is_masked(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
               ) -> Iterator[str]:
    wrong, total = _wrong(analytic, numeric), analytic.size
    if wrong.any() and not analytic[wrong].any():
        yield f"zero where it should not be, in {wrong.sum()} of {total} entries, right elsewhere: a wrong mask?"
    if wrong.any() and not np.any(np.abs(numeric[wrong]) > _CLOSE * np.abs(numeric).max()):
        yield f"not zero where it should be, in {wrong.sum()} of {total} entries, right elsewhere: a mask is missing?"


def _is_scaled_along_an_axis(analytic: Array, numeric: Array, others: Mapping[str, Array],
                             counts: Mapping[str, float]) -> Iterator[str]:
    """analytic = c numeric with one factor c for each index of an axis: a factor that belongs there is missing."""
    for axis in range(analytic.ndim if analytic.ndim > 1 else 0):
        rest = tuple(other for other in range(analytic.ndim) if other != axis)
        power = np.sum(numeric * numeric, axis=rest, keepdims=True)
        factor = np.sum(numeric * analytic, axis=rest, keepdims=True) / np.where(power > 0, power, 1)
        if analytic.shape[axis] < analytic.size and _same(analytic, factor * numeric):
            yield (f"off by a factor of its own for each index of axis {axis}, from {factor.min():.4g} to "
                   f"{factor.max():.4g}: is the derivative of an activation, or a scale, missing or of a wrong layer?")


def _is_off_by_a_constant(analytic: Array, numeric: Array, others: Mapping[str, Array], counts: Mapping[str, float]
                          ) -> Iterator[str]:
    """A term that every entry along an axis shares, as from the derivative of a mean or of a normaliser."""
    difference = analytic - numeric
    for axis, length in enumerate(analytic.shape):
        shared = np.broadcast_to(difference.mean(axis=axis, keepdims=True), difference.shape)
        if length > 1 and _same(difference, shared):
            yield (f"off by the same amount all along axis {axis}: the derivative of a sum or mean over it is missing, "
                   "or one too many?")
