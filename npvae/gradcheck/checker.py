"""Are gradients right?  They are compared with numerical derivatives; a report names the worst entry of each tensor.

Needs NumPy and the modules beside it, and knows nothing of VAEs: use it in any project.

    complex       Im f(theta + i h) / h,  h = 1e-30                exact to rounding: nothing is subtracted, so h can be
                  (Squire and Trapp 1998)                          tiny.  f must take complex numbers and be analytic
    central       (f(theta + h) - f(theta - h)) / 2h               error some eps^(2/3) at the best h, which is
                                                                   h = eps^(1/3) max(1, |theta|)
    directional   the derivative along random +-1 vectors v,       a few evaluations for a tensor of any size: for large
                  compared with the sum of gradient * v            models.  By complex or by central differences

The rule: an entry's error is |analytic - numeric| / max(|numeric|, RMS of the tensor's numeric gradient).  The RMS
allows for rounding in entries that are small beside their neighbours.  There is *no absolute tolerance*: with one, a
checker lets wrong gradients pass when the loss is scaled down.

Three cases need more than this rule, and the report names them:

    not analytic   np.abs, np.var and the like drop the imaginary part.  So in each tensor the complex step is compared
                   with central differences along a random direction, and if the two disagree by more than truncation
                   and rounding, central differences judge the tensor.  If the loss jumps, or if its rounding hides
                   them and larger steps contradict the complex step, the tensor is UNDECIDED
    a kink         a tie of a maximum, a ReLU at exactly 0.  A value between the slopes on the two sides is neither
                   right nor wrong: UNDECIDED, which is not ok.  Any other value is wrong
    a zero         a gradient whose terms cancel, such as that of a bias in front of batch normalisation.  Analytic and
                   numeric value are both rounding errors; if no larger than those of the terms, they count as zero
"""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import bridge
from .derivatives import (
    CENTRAL_STEP, KINK, Array, Loss, Number, Point, Probe, Slopes, by_central, cancelling, closely, entries,
    imaginary_parts_may_be_lost, repeated, require_float64, require_something, slopes)
from .diagnosis import diagnose, other_arguments
from .report import Report, TensorReport
from .rules import broken_rules, copies

TOLERANCES = {"complex": 1e-12, "central": 1e-7, "directional": 1e-12, "directional central": 1e-7}
_UPSTREAM = 20260314      # seed of the upstream gradient; inputs from the same seed could hide an error, or fake one
_NOISE = 30.0      # an error is called rounding up to so many times the measured effect of rounding
_HIDDEN = 1e-9      # relative to the gradient: if rounding hides larger errors, the report says so
_CANCELLED = 1000.0      # as _NOISE, for terms that cancel


def numerical_gradient(loss: Loss, parameters: Mapping[str, Array], method: str = "complex") -> dict[str, Array]:
    """d loss / d parameters, one entry at a time, by "complex" or "central" differences.

    loss takes a dict of arrays (complex128 for method "complex", float64 otherwise) and returns a number; it must be
    deterministic.  The arrays are copies: `parameters` is not changed.  Unlike the checks below, this function does not
    test whether the complex step is right.

    Raises ValueError for an unknown method, for no parameters, an empty one, or a loss that is not one number;
    TypeError for parameters that are not float64 (rounding in float32 hides errors below 1e-3), and for a loss that
    takes no complex numbers.
    """
    if method not in ("complex", "central"):
        raise ValueError(f"method must be one of complex, central, got {method!r}")
    require_something("parameters", parameters)
    point = Point(loss, parameters)
    slope = point.complex_slope if method == "complex" else lambda name, probe: point.central_slope(name, probe)[0]
    return {name: np.array([slope(name, probe) for probe in entries(theta)]).reshape(theta.shape)
            for name, theta in point.real.items()}


def compare(analytic: Mapping[str, Array], numeric: Mapping[str, Array], method: str = "complex",
            tolerance: float | None = None, counts: Mapping[str, float] | None = None) -> Report:
    """Compare analytic with numeric gradients, tensor by tensor.  NaN or infinity on either side is an infinite error.

    counts : factors by which a wrong gradient may be off, by name, such as {"B": 128}, for the diagnosis

    Raises ValueError if names or shapes differ or the method is unknown, TypeError for gradients not in float64.
    """
    tolerance = _tolerance(method, tolerance)
    require_something("numeric", numeric)
    _check_names(analytic, numeric)
    numeric = {name: np.asarray(value) for name, value in numeric.items()}
    return Report(method, tolerance, tuple(
        _compare(name, np.asarray(analytic[name]), Slopes(value, np.zeros(value.shape)), tolerance, counts or {},
                 _named(numeric)) for name, value in numeric.items()))


def _named(gradients: Mapping[str, Array]) -> dict[str, Array]:
    return {f"the gradient of {name}": value for name, value in gradients.items()}


def _tolerance(method: str, tolerance: float | None) -> float:
    if method not in TOLERANCES:
        raise ValueError(f"method must be one of {', '.join(TOLERANCES)}, got {method!r}")
    return TOLERANCES[method] if tolerance is None else tolerance


def _check_names(analytic: Mapping[str, Array], parameters: Mapping[str, Array]) -> None:
    if set(analytic) != set(parameters):
        raise ValueError(f"gradients name {sorted(analytic)}, parameters {sorted(parameters)}")
    for name, value in analytic.items():
        if np.shape(value) != np.shape(parameters[name]):
            raise ValueError(f"the gradient of {name} has shape {np.shape(value)}, the parameter "
                             f"{np.shape(parameters[name])}")
        require_float64(f"the gradient of {name}", value)


def _compare(name: str, analytic: Array, found: Slopes, tolerance: float, counts: Mapping[str, float],
             others: Mapping[str, Array], norm: float | None = None, allowed: float = 0.0, blurred: float = 0.0,
             at: Array | None = None) -> TensorReport:
    """Compare entries, or derivatives along directions if `norm`, that of the whole gradient, is given.

        error_i = |analytic_i - numeric_i| / max(|numeric_i|, r),  r = sqrt(mean_i numeric_i^2)         (D9.5)

    Differences up to `allowed` are rounding and count as zero; those up to `blurred` may be, and are UNDECIDED.
    """
    numeric = found.value
    finite = np.abs(np.where(np.isfinite(numeric), numeric, 0.0))
    largest = np.max(finite)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # in units of the largest: the square of 1e-200 would underflow, that of 1e200 overflow
        floor = max(largest * np.sqrt(np.mean(np.square(finite / largest))) if largest else largest, norm or 0.0)
        difference = np.abs(analytic - numeric)
        difference = np.where(np.isnan(difference), np.inf, np.where(difference <= allowed, 0.0, difference))
        size = np.maximum(finite, floor)
        error = np.where(difference == 0, 0.0, difference / size)
        norm_error = np.linalg.norm(difference / floor) / np.sqrt(numeric.size) if floor else np.max(error)
        kinks = found.jumps > (KINK * size if found.central else 0)
        between = kinks & (difference < 0.5 * found.jumps + 1e-5 * (found.jumps + size))      # false for infinity
    wrong = (error > tolerance) & ~between & ~(difference <= blurred)
    index = np.unravel_index(int(np.argmax(np.where(wrong | (not wrong.any()), error, -1.0))), error.shape)
    undecided = kinks.any() or np.any(error > tolerance)
    return TensorReport(
        name, float(error[index]), tuple(int(i) for i in index), float(analytic[index]), float(numeric[index]),
        vacuous=not (np.any(numeric) or norm or kinks.any()) and not (allowed and analytic.any() and not wrong.any()),
        norm_error=float(norm_error), tolerance=tolerance,
        verdict="WRONG" if wrong.any() else "UNDECIDED" if undecided else "right",
        kinks=int(np.sum(kinks)), note=found.note,
        diagnosis=diagnose(analytic, numeric, wrong, others, counts, norm is not None, at))


# -- a loss ------------------------------------------------------------------------------------------------------------

def check_gradients(loss: Loss, gradients: Mapping[str, Array], parameters: Mapping[str, Array],
                    method: str = "complex", tolerance: float | None = None,
                    counts: Mapping[str, float] | None = None, directions: int = 32,
                    rng: np.random.Generator | int | None = None) -> Report:
    """Compare `gradients` (name -> array) with numerical derivatives of `loss` at `parameters`, tensor by tensor.

    Parameters
    ----------
    loss : takes a dict of arrays and returns a number; for "complex" and "directional" complex arrays too
    gradients, parameters : name -> float64 array, the same names and shapes
    method : "complex" or "central", entry by entry; "directional" (complex) or "directional central", along
        `directions` random +-1 vectors per tensor, drawn from `rng`, a generator or a seed (by default a fixed one)
    tolerance : of the relative error; None for that of the method, see TOLERANCES.  Where the loss is not analytic in a
        tensor, central differences judge, with their own tolerance if that is larger
    counts : factors by which a wrong gradient may be off, such as {"B": 128}, for the diagnosis

    >>> theta = {"w": np.array([1.0, 2.0])}
    >>> print(check_gradients(lambda p: (p["w"] ** 2).sum(), {"w": 2 * theta["w"]}, theta).ok)
    True

    Raises ValueError or TypeError for arguments that do not fit, such as float32 or integers; TypeError for a loss that
    takes no complex numbers, if the method needs them, and for one that computes in float32 somewhere inside.
    """
    limit = _tolerance(method, tolerance)
    _check_names(gradients, parameters)
    require_something("parameters", parameters)
    if not isinstance(directions, (int, np.integer)) or directions < 1:
        raise ValueError(f"directions must be a whole number of at least 1, got {directions!r}")
    rng, point, counts = _generator(rng), Point(loss, parameters), counts or {}
    with imaginary_parts_may_be_lost():
        if method.startswith("directional"):
            tensors = _along_directions(point, gradients, method, limit, counts, directions, rng)
        else:
            tensors = _by_entry(point, gradients, method, limit, counts, {})
    return Report(method, limit, tensors)


def _generator(rng: np.random.Generator | int | None, seed: int = 0) -> np.random.Generator:
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is not None and (isinstance(rng, bool) or not isinstance(rng, (int, np.integer)) or rng < 0):
        raise TypeError("rng must be a numpy.random.Generator, as default_rng(0) makes one, or a seed, an integer of "
                        f"at least 0, got {rng!r}")
    return np.random.default_rng(seed if rng is None else rng)


def _by_entry(point: Point, gradients: Mapping[str, Array], method: str, tolerance: float,
              counts: Mapping[str, float], others: Mapping[str, Array]) -> tuple[TensorReport, ...]:
    found = {name: slopes(point, name, entries(theta), method) for name, theta in point.real.items()}
    found = {name: _shaped(value, point.real[name].shape) for name, value in found.items()}
    numeric = {name: value.value for name, value in found.items()}
    return tuple(_judge(point, name, entries(theta), np.asarray(gradients[name]), found[name], tolerance, counts,
                        {**_named(numeric), **others}) for name, theta in point.real.items())


def _shaped(found: Slopes, shape: tuple[int, ...]) -> Slopes:
    return replace(found, value=found.value.reshape(shape), jumps=found.jumps.reshape(shape))


def _of_other_arguments(point: Point, gradients: Mapping[str, Array], reports: Sequence[TensorReport]
                        ) -> tuple[TensorReport, ...]:
    """The reports, with a diagnosis if a wrong gradient would be right for other values of the tensors.  For layers
    only: a whole model has too many pairs of tensors."""
    unclear = [tensor.name for tensor in reports
               if tensor.verdict == "WRONG" and not tensor.diagnosis and tensor.norm_error > 1e-4]
    says = other_arguments(point, gradients, unclear)
    return tuple(replace(tensor, diagnosis=says.get(tensor.name, tensor.diagnosis)) for tensor in reports)


def _along_directions(point: Point, gradients: Mapping[str, Array], method: str, tolerance: float,
                      counts: Mapping[str, float], directions: int, rng: np.random.Generator
                      ) -> tuple[TensorReport, ...]:
    """The derivative along v is  sum_i gradient_i v_i.  Over random signs v its mean square is |gradient|^2  (D9.4), so
    the RMS in the rule is about the norm of the whole gradient.  The norm of the analytic gradient is a further lower
    bound for the denominator, since along a few directions all derivatives may be nearly zero by chance."""
    reports = []
    for name, theta in point.real.items():
        size = CENTRAL_STEP * max(1.0, float(np.abs(theta).max()))
        probes = [Probe(..., rng.choice([-1.0, 1.0], theta.shape), size) for _ in range(directions)]
        with np.errstate(invalid="ignore", over="ignore"):      # the report shows NaN and infinity
            analytic = np.array([np.sum(gradients[name] * probe.direction) for probe in probes])
        norm = _norm(np.asarray(gradients[name]))
        reports.append(_judge(point, name, probes, analytic, slopes(point, name, probes, method), tolerance, counts, {},
                              norm))
    return tuple(reports)


def _norm(gradient: Array) -> float:
    """The Euclidean norm; 0 for NaN and infinity, which the derivatives show."""
    largest = float(np.abs(gradient).max())
    return largest * float(np.linalg.norm(gradient / largest)) if 0 < largest < np.inf else 0.0


def _judge(point: Point, name: str, probes: Sequence[Probe], analytic: Array, found: Slopes, tolerance: float,
           counts: Mapping[str, float], others: Mapping[str, Array], norm: float | None = None) -> TensorReport:
    """Apply the rule; and again, with an allowance, if it says WRONG but both values may be rounding errors."""
    tolerance = max(tolerance, TOLERANCES["central"]) if found.note else tolerance
    rest: dict[str, Any] = {"norm": norm, "at": point.real[name]}
    report = _compare(name, analytic, found, tolerance, counts, others, **rest)
    if not point.steady:
        return replace(report, verdict="UNDECIDED", diagnosis="", note="the loss gives two values at the same "
                       "parameters, so it has no derivative: draw its noise once, before the check")
    if not found.confirmed and report.verdict != "UNDECIDED" and np.isfinite(report.analytic):
        return replace(report, verdict="UNDECIDED", diagnosis="")
    if report.verdict != "WRONG" or not np.isfinite([report.analytic, report.numeric]).all():
        return report
    values, smooth = np.ravel(found.value), np.ravel(found.jumps) == 0
    worst = int(np.ravel_multi_index(report.index, found.value.shape))
    if not smooth[worst]:
        return report
    if not found.central and report.error < TOLERANCES["central"]:      # too small an error for `hold` to detect
        close, rounding = closely(point, name, probes[worst])
        if abs(close - report.analytic) + rounding < 0.3 * abs(close - report.numeric):
            again = _shaped(by_central(point, name, probes, report.numeric, close), found.value.shape)
            return _judge(point, name, probes, analytic, again, tolerance, counts, others, norm)
    largest = int(np.argmax(np.where(smooth & np.isfinite(values), np.abs(values), -1.0)))
    noise = _NOISE * repeated(point, name, [probes[worst], probes[largest]], values[[worst, largest]], found)
    if found.central:      # a loss that no step changes shows nothing but its rounding
        noise = max(noise, 4 * point.noise / probes[worst].size)
    is_zero = np.abs(values[largest]) <= noise      # even the largest entry is rounding
    if is_zero:
        bound, flat = cancelling(point, name)
        bound *= _CANCELLED / (np.sqrt(point.real[name].size) if norm is None else 1.0)
        if not found.central or flat:
            zero = replace(found, value=np.where(np.abs(found.value) <= noise, 0.0, found.value))
            report = _compare(name, analytic, zero, tolerance, counts, others, allowed=bound,
                              blurred=noise * found.central, **rest)
            return replace(report, zero_bound=float(bound))
    scale = np.abs(report.analytic - report.numeric) / report.error
    if found.central and (is_zero or noise > tolerance * scale):
        report = _compare(name, analytic, found, tolerance, counts, others, blurred=noise, **rest)
    else:
        report = _compare(name, analytic, found, tolerance, counts, others, allowed=noise, **rest)
    if report.verdict == "WRONG" or noise <= max(_HIDDEN, tolerance) * scale:
        return report
    size = f"gradients of up to {noise:.0e}" if is_zero else f"errors of up to {noise / scale:.0e} of this gradient"
    hidden = f"rounding hides {size}, since terms cancel"
    return replace(report, note=f"{report.note}; {hidden}" if report.note else hidden)


# -- a layer -----------------------------------------------------------------------------------------------------------

def check_pair(forward: Callable[..., Any], backward: Callable[..., Mapping[str, Any]] | None,
               inputs: Mapping[str, Any], constants: Sequence[str] = (), method: str = "complex",
               tolerance: float | None = None, rng: np.random.Generator | int | None = None) -> Report:
    """Check a layer: is `backward` the vector-Jacobian product of `forward`, and does it obey the rules?

    f(inputs) = sum of dout * forward(inputs),  dout random, is a loss whose gradient `backward` must return  (D9.7).

    Parameters
    ----------
    forward : called as forward(**inputs), returns one array.  For method "complex" it is also called with complex128
        inputs, and must not store them in float64 arrays; if it takes no complex numbers, use method "central"
    backward : called as backward(dout, **inputs), dout shaped like forward's result; returns name -> gradient for
        every input but the `constants`
    inputs : name -> float64 array, values away from kinks
    constants : names of inputs that get no gradient: indices, labels, masks, noise
    method, tolerance : "complex" or "central", and the largest relative error; None for that in `TOLERANCES`
    rng : draws the upstream gradient dout, a generator or a seed (by default a fixed one)

    With dout fixed the gradient of f is J^T dout  (D0.1).
    The rules: forward and backward give the same bits when run twice; backward is linear in the upstream gradient, and
    zero for zero; no argument is changed; no gradient shares memory with an argument, another gradient or one of an
    earlier call; forward's result is not overwritten by its next call; read-only, Fortran-ordered and strided inputs
    give the same results.  The report lists broken rules as `violations`.

    PyTorch and JAX: if an input is a tensor of theirs, or `forward` is theirs (a Module, an autograd.Function, a jitted
    function), both functions are called with tensors.  With backward=None the gradient comes from automatic
    differentiation, so that a custom backward pass inside is checked.

    Raises ValueError or TypeError for arguments that do not fit, such as float32 or integers; TypeError for a forward
    that takes no complex numbers, if the method needs them, and for one that computes in float32 somewhere inside.
    """
    rng = _generator(rng, _UPSTREAM)
    if isinstance(constants, str) or not set(constants) <= set(inputs):
        raise ValueError(f"constants must be a list of names among {', '.join(inputs)}, got {constants!r}")
    if method not in ("complex", "central"):
        raise ValueError(f"method must be one of complex, central, got {method!r}")
    forward, backward, inputs = bridge.in_numpy(forward, backward, inputs, constants)
    moving = {name: value for name, value in inputs.items() if name not in constants}
    require_something("parameters", moving)
    out, upstream, gradients = _first_calls(forward, backward, inputs, moving, rng)

    def loss(moved: dict[str, Array]) -> Number:
        value: Number = np.sum(upstream * forward(**copies({**inputs, **moved})))
        return value

    counts = {f"axis {axis} of {name}": float(length) for name, value in inputs.items()
              for axis, length in enumerate(value.shape)}
    point, limit = Point(loss, moving), _tolerance(method, tolerance)
    with imaginary_parts_may_be_lost():
        tensors = _of_other_arguments(point, gradients, _by_entry(point, gradients, method, limit, counts,
                                                                  {"the upstream gradient": upstream}))
    broken = broken_rules(forward, backward, inputs, upstream, out, gradients, rng,
                          lambda name: _CANCELLED * cancelling(point, name)[0])
    return Report(method, limit, tensors, tuple(broken))


def _first_calls(forward: Callable[..., Array], backward: Callable[..., Mapping[str, Array]],
                 inputs: Mapping[str, Array], moving: Mapping[str, Array], rng: np.random.Generator
                 ) -> tuple[Array, Array, dict[str, Array]]:
    """The result of forward, an upstream gradient of its shape, and the result of backward for it."""
    out = forward(**copies(inputs))
    if not isinstance(out, (np.ndarray, np.generic, float)):
        raise TypeError(f"forward must return one array, got {type(out).__name__}")
    require_float64("what forward returns", out)
    out = np.array(out)
    upstream = rng.standard_normal(out.shape)
    gradients = backward(upstream.copy(), **copies(inputs))
    if not isinstance(gradients, Mapping):
        raise TypeError(f"backward must return a mapping of names to gradients, got {type(gradients).__name__}")
    for name, value in gradients.items():
        if not isinstance(value, (np.ndarray, np.generic, float)):
            raise TypeError(f"the gradient of {name} must be an array, got {type(value).__name__}")
    _check_names(gradients, moving)
    return out, upstream, {name: np.array(value) for name, value in gradients.items()}
