"""Are the gradients right?  Numerical derivatives of any loss, and a report that names the worst entry of each tensor.

Stands on NumPy alone (with `report.py` and `rules.py` beside it) and knows nothing of VAEs: use it on any project.

    complex       Im f(theta + i h) / h,  h = 1e-30                exact to rounding: nothing is subtracted, so h can be
                  (Squire and Trapp 1998)                          tiny.  f must take complex numbers and be analytic
    central       (f(theta + h) - f(theta - h)) / 2h               error some eps^(2/3) at the best h, which is
                                                                   h = eps^(1/3) max(1, |theta|)
    directional   the derivative along random +-1 vectors v,       a few evaluations for a tensor of any size: for large
                  against the sum of gradient * v                  models.  By complex or by central differences

The rule: an entry's error is |analytic - numeric| / max(|numeric|, rms of the tensor's numeric gradient).  The floor by
the RMS forgives rounding in entries that are small beside their neighbours.  There is *no absolute tolerance*: with
one, a checker goes blind when the loss is scaled down, and lets wrong gradients pass.
"""
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .report import Report, TensorReport, diagnose
from .rules import broken_rules, copies

Array = NDArray[Any]
Loss = Callable[[dict[str, Array]], Any]

COMPLEX_STEP = 1e-30
CENTRAL_STEP = float(np.finfo(np.float64).eps ** (1 / 3))
TOLERANCES = {"complex": 1e-12, "central": 1e-7, "directional": 1e-12, "directional central": 1e-7}
_KINK = 1e-3      # one-sided slopes that differ by more of the gradient's size may have a kink between them


def numerical_gradient(loss: Loss, parameters: Mapping[str, Array], method: str = "complex") -> dict[str, Array]:
    """d loss / d parameters, one entry at a time, by "complex" or "central" differences.

    loss takes a dict of arrays (complex128 for method "complex", float64 otherwise) and returns a number; it must be a
    deterministic function.  The arrays it is given are copies: `parameters` is not touched.

    Raises ValueError for an unknown method, for no parameters, an empty one, or a loss that is not one number, and
    TypeError for parameters in less than float64: rounding in float32 hides errors below 1e-3.
    """
    return {name: slopes for name, (slopes, _) in _by_entry(loss, parameters, method).items()}


def _by_entry(loss: Loss, parameters: Mapping[str, Array], method: str) -> dict[str, tuple[Array, Array]]:
    """For each tensor: its slopes, and (central differences) by how much the slopes on the two sides differ.

    The step of a central difference is  h = eps^(1/3) max(1, |theta_i|)  (D9.2).
    """
    if method not in ("complex", "central"):
        raise ValueError(f"method must be one of complex, central, got {method!r}")
    work = _working_copies(parameters, method)
    middle = _number(loss(work)).real if method == "central" else 0.0
    found = {name: (np.zeros(array.shape), np.zeros(array.shape)) for name, array in work.items()}
    for name, array in work.items():
        for index in np.ndindex(array.shape):
            size = CENTRAL_STEP * max(1.0, abs(array[index]))
            slope, jump = _slope(loss, work, array, index, 1.0, size, middle, method)
            if jump > _KINK * abs(slope):      # a kink or curvature?  Curvature's part halves with the step, and again
                _, half = _slope(loss, work, array, index, 1.0, size / 2, middle, method)
                _, quarter = _slope(loss, work, array, index, 1.0, size / 4, middle, method)
                rounding = 100 * np.finfo(float).eps * abs(middle) / size
                halves = abs(half / jump - 0.5) < 0.1 and abs(quarter / jump - 0.25) < 0.1
                jump = 0.0 if jump <= rounding or halves else jump
            found[name][0][index], found[name][1][index] = slope, jump
    return found


def _slope(loss: Loss, work: dict[str, Array], array: Array, place: Any, direction: Any, size: float, middle: float,
           method: str) -> tuple[float, float]:
    """The derivative of the loss f when theta = array[place] moves along `direction` v, and the jump between its two
    sides:

        central     ( f(theta + h v) - f(theta - h v) ) / 2h                            (D9.1)
        complex     Im f(theta + i h v) / h                                             (D9.3)
        jump        | f(theta + h v) - 2 f(theta) + f(theta - h v) | / h                (D9.6)
    """
    kept = array[place].copy()
    try:
        if "central" not in method:
            array[place] = kept + 1j * COMPLEX_STEP * direction
            return _number(loss(work)).imag / COMPLEX_STEP, 0.0
        high = kept + size * direction
        low = kept - (high - kept)
        width = np.vdot(high - low, direction) / np.vdot(direction, direction)      # as it came out after rounding
        array[place] = high
        upper = _number(loss(work)).real
        array[place] = low
        lower = _number(loss(work)).real
        return (upper - lower) / width, abs(upper - 2 * middle + lower) / (0.5 * width)
    finally:
        array[place] = kept


def _working_copies(parameters: Mapping[str, Array], method: str) -> dict[str, Array]:
    _require_something("parameters", parameters)
    dtype = float if "central" in method else complex
    return {name: np.array(value, dtype=dtype) for name, value in parameters.items()}


def _require_something(what: str, arrays: Mapping[str, Array]) -> None:
    if not arrays:
        raise ValueError(f"{what} must hold at least one array: with none, nothing is checked")
    for name, value in arrays.items():
        _require_float64(name, value)
        if not np.size(value):
            raise ValueError(f"{name} has shape {np.shape(value)}: it is empty, there is nothing to check")


def _require_float64(name: str, value: Any) -> None:
    dtype = np.asarray(value).dtype
    if dtype != np.float64:
        reason = ": rounding in lower precision hides errors below 1e-3" if dtype in (np.float32, np.float16) else ""
        raise TypeError(f"{name} must be float64, got {dtype}{reason}")


def _number(loss: Any) -> Any:
    dtype = np.asarray(loss).dtype
    if np.ndim(loss) or dtype.kind not in "fciu":
        raise ValueError(f"loss must return one number, got {type(loss).__name__} of shape {np.shape(loss)}")
    if dtype in (np.float32, np.float16, np.complex64):
        raise TypeError(f"loss must return float64, got {dtype}: rounding in lower precision hides errors below 1e-3")
    return loss


def compare(analytic: Mapping[str, Array], numeric: Mapping[str, Array], method: str = "complex",
            tolerance: float | None = None, counts: Mapping[str, float] | None = None,
            others: Mapping[str, Array] | None = None, jumps: Mapping[str, Array] | None = None) -> Report:
    """Hold analytic against numeric gradients, tensor by tensor.  NaN or infinity on either side is an infinite error.

    counts : numbers that a wrong gradient may be off by, by name, such as {"B": 128}, for the diagnosis
    others : further arrays that a wrong gradient may turn out to be, by name, for the diagnosis
    jumps : by how much the slopes on the two sides of each entry differ, to count kinks

    Raises ValueError where names or shapes differ or the method is unknown, TypeError for gradients not in float64.
    """
    tolerance = _tolerance(method, tolerance)
    _require_something("numeric", numeric)
    _check_names(analytic, numeric)
    numeric = {name: np.asarray(value) for name, value in numeric.items()}
    return Report(method, tolerance, tuple(
        _compare(name, np.asarray(analytic[name]), numeric[name], tolerance, counts or {},
                 {**{f"the gradient of {other}": value for other, value in numeric.items() if other != name},
                  **(others or {})}, None if jumps is None else jumps[name]) for name in numeric))


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
        _require_float64(f"the gradient of {name}", value)


def _compare(name: str, analytic: Array, numeric: Array, tolerance: float, counts: Mapping[str, float],
             others: Mapping[str, Array], jumps: Array | None, norm: float | None = None) -> TensorReport:
    """Entries, or, where `norm` of the whole gradient is given, derivatives along directions.

        error_i = |analytic_i - numeric_i| / max(|numeric_i|, r),  r = sqrt(mean_i numeric_i^2)         (D9.5)
    """
    finite = np.where(np.isfinite(numeric), numeric, 0)
    largest = np.max(np.abs(finite))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # in units of the largest, since the square of 1e-200 would vanish and that of 1e200 overflow
        floor = max(largest * np.sqrt(np.mean(np.square(finite / largest))) if largest else largest, norm or 0.0)
        difference = np.abs(analytic - numeric)
        error = np.where(difference == 0, 0.0, difference / np.maximum(np.abs(numeric), floor))
        norm_error = np.linalg.norm(difference / floor) / np.sqrt(numeric.size) if floor else np.max(error)
    error = np.where(np.isnan(error), np.inf, error)
    index = np.unravel_index(int(np.argmax(error)), error.shape)
    kinks = 0 if jumps is None else int(np.sum(jumps > _KINK * np.maximum(np.abs(numeric), floor)))
    return TensorReport(name, float(error[index]), tuple(int(i) for i in index), float(analytic[index]),
                        float(numeric[index]), vacuous=not (np.any(numeric) or norm), kinks=kinks,
                        norm_error=float(np.inf if np.isnan(norm_error) else norm_error),
                        diagnosis=diagnose(analytic, numeric, error > tolerance, others, counts, norm is not None))


def check_gradients(loss: Loss, gradients: Mapping[str, Array], parameters: Mapping[str, Array],
                    method: str = "complex", tolerance: float | None = None,
                    counts: Mapping[str, float] | None = None, directions: int = 32,
                    rng: np.random.Generator | None = None) -> Report:
    """Hold `gradients` (name -> array) against numerical derivatives of `loss` at `parameters`, tensor by tensor.

    Parameters
    ----------
    loss : takes a dict of arrays and returns a number; complex numbers included for "complex" and "directional"
    gradients, parameters : name -> float64 array, the same names and shapes
    method : "complex" or "central", entry by entry; "directional" (complex) or "directional central", along
        `directions` random +-1 vectors per tensor, drawn from `rng` (default: a fixed seed)
    tolerance : of the relative error; None takes that of the method, see TOLERANCES
    counts : numbers that a wrong gradient may be off by, such as {"B": 128}, for the diagnosis

    >>> theta = {"w": np.array([1.0, 2.0])}
    >>> print(check_gradients(lambda p: (p["w"] ** 2).sum(), {"w": 2 * theta["w"]}, theta).ok)
    True

    Raises ValueError or TypeError for arguments that do not fit; float32 is refused.
    """
    limit = _tolerance(method, tolerance)
    _check_names(gradients, parameters)
    if method.startswith("directional"):
        if not isinstance(directions, (int, np.integer)) or directions < 1:
            raise ValueError(f"directions must be a whole number of at least 1, got {directions!r}")
        return _check_directions(loss, gradients, parameters, method, limit, counts or {}, directions, _generator(rng))
    found = _by_entry(loss, parameters, method)
    return compare(gradients, {name: slopes for name, (slopes, _) in found.items()}, method, limit, counts,
                   jumps={name: jumps for name, (_, jumps) in found.items()})


def _generator(rng: np.random.Generator | None) -> np.random.Generator:
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, as default_rng(0) makes one, got {rng!r}")
    return np.random.default_rng(0) if rng is None else rng


def _check_directions(loss: Loss, gradients: Mapping[str, Array], parameters: Mapping[str, Array], method: str,
                      tolerance: float, counts: Mapping[str, float], directions: int, rng: np.random.Generator
                      ) -> Report:
    """The derivative along v is  sum_i gradient_i v_i ; over random signs v its mean square is |gradient|^2  (D9.4), so
    the rule's floor by the RMS measures each error against the norm of the whole tensor.  The norm of the analytic
    gradient is a second floor: along a few directions alone, the derivative may be nearly zero by chance."""
    work, reports = _working_copies(parameters, method), []
    for name, array in work.items():
        size = CENTRAL_STEP * max(1.0, float(np.abs(parameters[name]).max()))
        analytic, numeric = np.zeros(directions), np.zeros(directions)
        for k in range(directions):
            signs = rng.choice([-1.0, 1.0], array.shape)
            with np.errstate(invalid="ignore", over="ignore"):      # NaN and infinity stand in the report
                analytic[k] = np.sum(gradients[name] * signs)
            numeric[k], _ = _slope(loss, work, array, ..., signs, size, 0.0, method)
        norm = _norm(np.asarray(gradients[name]))
        reports.append(_compare(name, analytic, numeric, tolerance, counts, {}, None, norm))
    return Report(method, tolerance, tuple(reports))


def _norm(gradient: Array) -> float:
    """Euclidean, where it can be had: NaN and infinity stand in the derivatives."""
    largest = float(np.abs(gradient).max())
    return largest * float(np.linalg.norm(gradient / largest)) if 0 < largest < np.inf else 0.0


def check_pair(forward: Callable[..., Array], backward: Callable[..., Mapping[str, Array]],
               inputs: Mapping[str, Array], constants: Sequence[str] = (), method: str = "complex",
               tolerance: float | None = None, rng: np.random.Generator | None = None) -> Report:
    """Check a layer: is `backward` the derivative of `forward`, and a well-behaved function?

    f(inputs) = sum of dout * forward(inputs)  is a loss whose gradient `backward` has to return, dout random  (D9.7).

    Parameters
    ----------
    forward : called as forward(**inputs), returns one array.  With method "complex" the inputs are complex128 too: no
        float64 memory inside, no abs; what cannot be done in complex numbers takes method "central"
    backward : called as backward(dout, **inputs), dout shaped like forward's result; returns name -> gradient for
        every input but the `constants`
    inputs : name -> float64 array, values away from kinks
    constants : names of inputs that get no gradient
    method, tolerance : "complex" or "central", and what an error may be; None: what the method can do, `TOLERANCES`
    rng : draws the upstream gradient (default: a fixed seed)

    The derivative is that of the number sum(dout * forward(inputs)), dout held fixed: J^T dout  (D0.1).
    Beside it: forward and backward give the same bits when run twice; backward is linear in the upstream
    gradient and gives zero for zero; no argument is changed; no gradient shares memory with an argument, with another
    gradient or with an earlier one, and forward's result is not overwritten by the next; read-only, Fortran-ordered
    and strided inputs give the same.  What is broken stands in the report's `violations`.

    Raises ValueError or TypeError for arguments that do not fit; float32 is refused.
    """
    rng = _generator(rng)
    if isinstance(constants, str) or not set(constants) <= set(inputs):
        raise ValueError(f"constants must be a list of names among {', '.join(inputs)}, got {constants!r}")
    inputs = {name: np.array(value) for name, value in inputs.items()}
    moving = {name: value for name, value in inputs.items() if name not in constants}
    _working_copies(moving, method)
    out, upstream, gradients = _first_calls(forward, backward, inputs, moving, rng)

    def loss(moved: dict[str, Array]) -> Any:
        return np.sum(upstream * forward(**copies({**inputs, **moved})))

    counts = {f"axis {axis} of {name}": float(length) for name, value in inputs.items()
              for axis, length in enumerate(value.shape)}
    slopes = _by_entry(loss, moving, method)
    report = compare(gradients, {name: slope for name, (slope, _) in slopes.items()}, method, tolerance, counts,
                     {"the upstream gradient": upstream}, {name: jumps for name, (_, jumps) in slopes.items()})
    broken = broken_rules(forward, backward, inputs, upstream, out, gradients, rng)
    return Report(report.method, report.tolerance, report.tensors, tuple(broken))


def _first_calls(forward: Callable[..., Array], backward: Callable[..., Mapping[str, Array]],
                 inputs: Mapping[str, Array], moving: Mapping[str, Array], rng: np.random.Generator
                 ) -> tuple[Array, Array, dict[str, Array]]:
    """What forward returns, an upstream gradient of its shape, and what backward makes of that."""
    out = forward(**copies(inputs))
    if not isinstance(out, (np.ndarray, np.generic, float)):
        raise TypeError(f"forward must return one array, got {type(out).__name__}")
    _require_float64("what forward returns", out)
    out = np.array(out)
    upstream = rng.standard_normal(out.shape)
    gradients = backward(upstream.copy(), **copies(inputs))
    if not isinstance(gradients, Mapping):
        raise TypeError(f"backward must return a mapping of names to gradients, got {type(gradients).__name__}")
    _check_names(gradients, moving)
    return out, upstream, {name: np.array(value) for name, value in gradients.items()}
