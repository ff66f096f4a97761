"""The likely mistake behind a wrong gradient, found from the pattern of its errors.  Read after `report.py`.

Each pattern below is a common mistake.  They are tried from the most specific to the most general, and the first that
fits is reported.  A diagnosis is a hint: it describes the numbers, not the code.
"""
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from .derivatives import Array, Point, Probe

_CLOSE = 1e-6      # relative: numbers that are closer than this fit a pattern
_EXPLAINED = 0.01      # share of the error that a pattern may leave; more, and small errors would fit near-symmetries


@dataclass(frozen=True)
class _Case:
    """A wrong gradient and the right one, scaled so that the largest entry of both is 1."""

    analytic: Array
    numeric: Array
    wrong: Array      # bool: the entries that are wrong
    others: Mapping[str, Array]
    counts: Mapping[str, float]
    at: Array | None      # the values of the tensor itself

    def fits(self, a: Array, b: Array) -> bool:
        """Are a and b equal up to rounding, and far closer to each other than analytic and numeric gradient?  False if
        both are zero."""
        if a.shape != b.shape:
            return False
        scale = max(np.abs(a).max(), np.abs(b).max())
        error = np.abs(self.analytic - self.numeric).max()
        return bool(0 < scale < np.inf and np.abs(a - b).max() <= min(_CLOSE * scale, _EXPLAINED * error))


def diagnose(analytic: Array, numeric: Array, wrong: Array, others: Mapping[str, Array], counts: Mapping[str, float],
             along_directions: bool, at: Array | None = None) -> str:
    """The likely mistake behind a wrong `analytic`, in a few words; "" if no pattern fits.

    wrong : bool, the entries whose error exceeds the tolerance
    others : arrays that may have been returned by mistake, by name: gradients of other tensors, the upstream gradient
    counts : factors by which a gradient may be off, by name, such as {"B": 128}
    along_directions : the values are derivatives along random directions, not entries
    at : the values of the tensor itself
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
        return "not zero, and the loss does not depend on this tensor, or has an extremum here"
    patterns = [_is_constant_ratio]
    if not along_directions:
        patterns += [_is_transposed, _is_shifted, _has_blocks_exchanged, _is_in_one_place, _is_masked, _is_another,
                     _is_summed_forwards, _is_applied_twice, _is_scaled_along_an_axis, _is_off_everywhere,
                     _is_off_by_a_constant, _holds_statistics_constant]
    with np.errstate(all="ignore"):      # what overflows or underflows fits no pattern
        size = max(np.abs(analytic).max(), np.abs(numeric).max())
        case = _Case(analytic / size, numeric / size, wrong, {name: value / size for name, value in others.items()},
                     counts, at)
        if not (case.analytic.any() and case.numeric.any()):
            return ""
        return next((found for pattern in patterns for found in pattern(case)), "")


def _is_constant_ratio(case: _Case) -> Iterator[str]:
    unit = case.numeric / np.abs(case.numeric).max()      # the square of a small number would underflow
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
    for axes in combinations(range(case.analytic.ndim), 2):
        if case.fits(np.flip(case.analytic, axes), case.numeric):
            yield f"in reverse order along axes {axes[0]} and {axes[1]}: is a kernel flipped that should not be?"


_BLOCKS = range(2, 9)      # gates, heads, parts of one matrix


def _has_blocks_exchanged(case: _Case) -> Iterator[str]:
    """An axis consists of equal blocks, as the gates of an LSTM in one matrix.  Blocks are exchanged; or some blocks
    are wrong in every entry and the others are right."""
    for axis, length in enumerate(case.analytic.shape):
        for count in (count for count in _BLOCKS if length % count == 0 and (count < length or length <= 4)):
            analytic, numeric = (np.split(value, count, axis) for value in (case.analytic, case.numeric))
            wrong = [part for part, mask in enumerate(np.split(case.wrong, count, axis)) if mask.any()]
            if not 1 < len(wrong) < 5:
                continue
            places = [next((p for p in wrong if p != q and case.fits(analytic[q], numeric[p])), None) for q in wrong]
            if None not in places and len(set(places)) == len(wrong):
                swapped = " and ".join(map(str, wrong)) if len(wrong) == 2 else ", ".join(map(str, wrong))
                yield (f"parts {swapped} of {count} along axis {axis} have each other's gradient: are two gates "
                       "swapped?")
    for axis, length in enumerate(case.analytic.shape):
        for count in (count for count in (2, 3, 4) if length % count == 0 and length >= 2 * count):
            masks = np.split(case.wrong, count, axis)
            wrong = [part for part, mask in enumerate(masks) if mask.any()]
            if len(wrong) < count and all(masks[part].all() for part in wrong) and masks[0].size > 2:
                which = f"part {wrong[0]}" if len(wrong) == 1 else f"parts {', '.join(map(str, wrong))}"
                yield f"only {which} of {count} along axis {axis} {'is' if len(wrong) == 1 else 'are'} wrong: a gate?"


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


def _is_summed_forwards(case: _Case) -> Iterator[str]:
    """y = cumsum(x):  dx_j = sum of dy_i over i >= j.  Summed from the wrong end, analytic_j = sum of dy_i over i <= j.

    Then  analytic_j = numeric_0 - numeric_(j+1).  If x is multiplied by a factor before the sum, compare the ratio of
    the two gradients with that of the two sums of dy.
    """
    says = "is the sum of a cumulative sum's gradient taken from the wrong end?  It runs backwards"
    upstream = case.others.get("the upstream gradient")
    for axis, length in enumerate(case.analytic.shape):
        if length < 3:
            continue
        analytic, numeric = (np.moveaxis(value, axis, 0) for value in (case.analytic, case.numeric))
        shifted = np.concatenate([numeric[1:], np.zeros_like(numeric[:1])])
        backwards = np.concatenate([np.zeros_like(numeric[:1]), numeric[:-1]])
        for forwards in (numeric[:1] - shifted, numeric[-1:] - backwards):
            if case.fits(analytic, forwards):
                yield f"summed along axis {axis} in the other direction: {says}"
        if upstream is not None and upstream.shape == case.analytic.shape:
            sums = np.cumsum(upstream, axis), np.flip(np.cumsum(np.flip(upstream, axis), axis), axis)
            for right, wrong in (sums, sums[::-1]):
                if case.fits(case.analytic * right, case.numeric * wrong):
                    yield f"summed along axis {axis} in the other direction: {says}"


def _is_applied_twice(case: _Case) -> Iterator[str]:
    """numeric = upstream f', analytic = upstream f' f':  analytic * upstream = numeric^2."""
    upstream = case.others.get("the upstream gradient")
    if upstream is None or upstream.shape != case.analytic.shape:
        return
    if case.fits(case.analytic * upstream, case.numeric * case.numeric):
        yield "the derivative of the activation is applied twice"


def _is_scaled_along_an_axis(case: _Case) -> Iterator[str]:
    """analytic = c numeric with one factor c for each index of an axis: a factor is missing, or one too many."""
    analytic, numeric = case.analytic, case.numeric
    for axis in range(analytic.ndim if analytic.ndim > 1 else 0):
        rest = tuple(other for other in range(analytic.ndim) if other != axis)
        power = np.sum(numeric * numeric, axis=rest, keepdims=True)
        factor = np.where(power > 0, np.sum(numeric * analytic, axis=rest, keepdims=True) / power, 1)
        entries = np.count_nonzero(numeric, axis=rest)[case.wrong.any(axis=rest)]
        if entries.min() > 1 and case.fits(analytic, factor * numeric):      # any two numbers have a ratio
            yield (f"off by a factor of its own for each index of axis {axis}, from {factor.min():.4g} to "
                   f"{factor.max():.4g}: is the derivative of an activation, or a scale, missing or another layer's?")


def _is_off_everywhere(case: _Case) -> Iterator[str]:
    difference = case.analytic - case.numeric
    if difference.size > 1 and case.fits(difference, np.full(difference.shape, difference.mean())):
        yield ("off by the same amount all along axis 0: the same in every entry; is a constant, as of label "
               "smoothing, or the derivative of a normaliser missing, or one too many?")


def _is_off_by_a_constant(case: _Case) -> Iterator[str]:
    """The difference is the same for all entries along an axis, such as the derivative of a mean or normaliser."""
    difference = case.analytic - case.numeric
    for axis, length in enumerate(difference.shape):
        shared = np.broadcast_to(difference.mean(axis=axis, keepdims=True), difference.shape)
        if length > 1 and case.fits(difference, shared):
            yield (f"off by the same amount all along axis {axis}: the derivative of a sum or mean over it is missing, "
                   "or one too many?")


def _holds_statistics_constant(case: _Case) -> Iterator[str]:
    """Normalisation by the mean m and the deviation s of x itself, as in batch normalisation:

        dx = (d - mean d - x_hat mean(d x_hat)) / s,    but  d / s  if m and s are held constant

    so the two differ by  a + b x,  with the same a and b for all entries that are averaged over.
    """
    if case.at is None or case.at.shape != case.analytic.shape or not np.isfinite(case.at).all():
        return
    difference = case.analytic - case.numeric
    for count in range(1, difference.ndim + 1):
        for axes in combinations(range(difference.ndim), count):
            size = int(np.prod([difference.shape[axis] for axis in axes]))
            for kept, powers, what in ((1, (1,), "a norm or mean square"), (2, (0, 1), "mean and variance")):
                fitted = _fitted(difference, case.at, axes, powers)
                if (size - kept) * (difference.size // size) > 2 and size > kept and case.fits(difference, fitted):
                    where = "axis" if count == 1 else "axes"
                    yield (f"off by a multiple of the tensor itself{' and a constant' * (kept == 2)} all along {where} "
                           f"{' and '.join(map(str, axes))}: {what} over it held constant, as if the batch statistics "
                           "did not depend on it?")


def _fitted(difference: Array, at: Array, axes: tuple[int, ...], powers: tuple[int, ...]) -> Array:
    """The least-squares fit of the difference by these powers of the tensor's values, over the axes."""
    centred = at - at.mean(axis=axes, keepdims=True) if 0 in powers else at
    rest = difference - difference.mean(axis=axes, keepdims=True) if 0 in powers else difference
    square = np.sum(centred * centred, axis=axes, keepdims=True)
    slope = np.sum(rest * centred, axis=axes, keepdims=True) / np.where(square > 0, square, 1)
    fitted: Array = difference - rest + slope * centred
    return fitted


# -- the right gradient of something else ------------------------------------------------------------------------------

def other_arguments(point: Point, gradients: Mapping[str, Array], unclear: Sequence[str]) -> dict[str, str]:
    """A diagnosis for each wrong gradient that would be right if other tensors were rearranged, such as a convolution
    kernel that should have been flipped, or two gates of an LSTM that were exchanged."""
    found: dict[str, str] = {}
    for name in unclear:
        if np.isfinite(gradients[name]).all():
            found.update({name: says for turn, says in _turns(point.real, name)
                          if name not in found and _is_right_at(point, name, gradients[name], turn)})
    return found


Turn = dict[str, Callable[[Array], Array]]      # name of a tensor -> how it is rearranged


def _turns(tensors: Mapping[str, Array], name: str) -> Iterator[tuple[Turn, str]]:
    """The rearrangements to try, each with the diagnosis if it explains the gradient."""
    for other, value in tensors.items():
        if other == name:
            continue
        for count in range(1, value.ndim + 1):
            for axes in combinations(range(value.ndim), count):
                if all(value.shape[axis] > 1 for axis in axes):
                    where = f"axis {axes[0]}" if count == 1 else f"axes {' and '.join(map(str, axes))}"
                    yield ({other: partial(np.flip, axis=axes)},
                           f"right for {other} reversed along {where}: is a convolution kernel not flipped in the "
                           "backward pass, or flipped where it should not be?")
        for one, two in combinations(range(value.ndim), 2):
            if value.shape[one] == value.shape[two] > 1:
                yield ({other: partial(np.swapaxes, axis1=one, axis2=two)},
                       f"right for {other} transposed in axes {one} and {two}: a transpose missing, or one too many?")
    yield from _exchanged_gates(tensors)


def _exchanged_gates(tensors: Mapping[str, Array]) -> Iterator[tuple[Turn, str]]:
    """Exchange two of three or four equal parts of the last axis, in all tensors whose last axis has that length."""
    for length in {value.shape[-1] for value in tensors.values() if value.ndim}:
        for count in (count for count in (3, 4) if length % count == 0):
            for one, two in combinations(range(count), 2):
                order = np.arange(length).reshape(count, -1)
                order[[one, two]] = order[[two, one]]
                turn: Turn = {other: partial(np.take, indices=order.ravel(), axis=-1)
                              for other, value in tensors.items() if value.ndim and value.shape[-1] == length}
                yield turn, f"right for parts {one} and {two} of {count} exchanged in {', '.join(turn)}: swapped gates?"


def _is_right_at(point: Point, name: str, gradient: Array, turn: Turn) -> bool:
    """Does the gradient equal the derivative with rearranged tensors, along three random directions?"""
    rng = np.random.default_rng(0)
    turned = Point(point.loss, {other: turn[other](value) if other in turn else value
                                for other, value in point.real.items()}, point.complex_step)
    own, largest = turn.get(name, np.array), float(np.abs(gradient).max())
    near = 1e-6 * largest * float(np.linalg.norm(gradient / largest)) if largest else 0.0
    for _ in range(3):
        v = rng.uniform(0.5, 1, gradient.shape) * rng.choice([-1.0, 1.0], gradient.shape)
        try:
            with np.errstate(all="ignore"):
                slope = turned.central_slope(name, Probe(..., own(v), 1e-5), guarded=True)[0]
        except Exception:      # the loss may not accept a rearranged tensor
            return False
        if not abs(slope - np.sum(gradient * v)) <= near:
            return False
    return True
