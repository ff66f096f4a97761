"""Are the gradients right?  Numerical derivatives of any loss, and a report that names the worst entry of each tensor.

Stands on NumPy alone and knows nothing of VAEs: use it on any project.

    complex     Im f(theta + i h) / h,  h = 1e-30                  exact to rounding: nothing is subtracted, so h can be
                (Squire and Trapp 1998)                            tiny.  f must take complex numbers and be analytic
    central     (f(theta + h) - f(theta - h)) / 2h                 error some eps^(2/3) at the best h, which is
                                                                   h = eps^(1/3) times the size of theta

The rule: an entry's error is |analytic - numeric| / max(|numeric|, rms of the tensor's numeric gradient).  The floor by
the RMS forgives rounding in entries that are small beside their neighbours.  There is *no absolute tolerance*: with
one, a checker goes blind when the loss is scaled down, and lets wrong gradients pass.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COMPLEX_STEP = 1e-30
CENTRAL_STEP = float(np.finfo(np.float64).eps ** (1 / 3))
TOLERANCES = {"complex": 1e-12, "central": 1e-7}


@dataclass(frozen=True)
class TensorReport:
    """One tensor: its largest error, where it is, and the two values there."""

    name: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    vacuous: bool      # the numeric gradient is zero throughout: nothing was tested

    def __str__(self) -> str:
        note = "   numeric gradient is zero throughout: tests nothing" if self.vacuous else ""
        return (f"{self.name:20s} error {self.error:8.1e} at {str(list(self.index)):12s} "
                f"analytic {self.analytic: .12e}  numeric {self.numeric: .12e}{note}")


@dataclass(frozen=True)
class Report:
    """All tensors, against one tolerance."""

    method: str
    tolerance: float
    tensors: tuple[TensorReport, ...]

    @property
    def ok(self) -> bool:
        return all(tensor.error <= self.tolerance for tensor in self.tensors)

    @property
    def worst(self) -> TensorReport:
        return max(self.tensors, key=lambda tensor: tensor.error)

    def __str__(self) -> str:
        verdict = "right" if self.ok else "WRONG"
        lines = [f"gradients {verdict} ({self.method} differences, tolerance {self.tolerance:g})"]
        lines += [f"{'  ' if tensor.error <= self.tolerance else '* '}{tensor}" for tensor in self.tensors]
        return "\n".join(lines)


def numerical_gradient(loss: Callable[[dict[str, Array]], Any], parameters: Mapping[str, Array],
                       method: str = "complex") -> dict[str, Array]:
    """d loss / d parameters, one entry at a time.

    loss takes a dict of arrays (complex128 for method "complex", float64 otherwise) and returns a number; it must be a
    deterministic function.  The arrays it is given are copies: `parameters` is not touched.

    Raises ValueError for an unknown method, for no parameters, an empty one, or a loss that is not one number, and
    TypeError for parameters in less than float64: rounding in float32 hides errors below 1e-3.
    """
    _known(method)
    if not parameters:
        raise ValueError("parameters must hold at least one array: with none, nothing is checked")
    for name, value in parameters.items():
        if np.asarray(value).dtype != np.float64:
            raise TypeError(f"{name} must be float64, got {np.asarray(value).dtype}: lower precision cannot be checked")
        if not np.size(value):
            raise ValueError(f"{name} has shape {np.shape(value)}: it is empty, there is nothing to check")
    work = {name: np.array(value, dtype=complex if method == "complex" else float)
            for name, value in parameters.items()}
    gradients = {name: np.zeros(np.shape(value)) for name, value in parameters.items()}
    for name, array in work.items():
        for index in np.ndindex(array.shape):
            kept = array[index]
            if method == "complex":
                array[index] = kept + 1j * COMPLEX_STEP
                slope = _number(loss(work)).imag / COMPLEX_STEP
            else:
                high = kept + CENTRAL_STEP * max(1.0, abs(kept))
                low = kept - (high - kept)
                array[index] = high
                upper = _number(loss(work)).real
                array[index] = low
                slope = (upper - _number(loss(work)).real) / (high - low)
            array[index] = kept
            gradients[name][index] = slope
    return gradients


def _known(method: str) -> None:
    if method not in TOLERANCES:
        raise ValueError(f"method must be one of {', '.join(TOLERANCES)}, got {method!r}")


def _number(loss: Any) -> Any:
    if np.ndim(loss) or np.asarray(loss).dtype.kind not in "fciu":
        raise ValueError(f"loss must return one number, got {type(loss).__name__} of shape {np.shape(loss)}")
    return loss


def compare(analytic: Mapping[str, Array], numeric: Mapping[str, Array], method: str = "complex",
            tolerance: float | None = None) -> Report:
    """Hold analytic against numeric gradients, tensor by tensor.  NaN or infinity on either side is an infinite error.

    Raises ValueError where names or shapes differ or the method is unknown, TypeError for what is not real numbers.
    """
    _known(method)
    if set(analytic) != set(numeric):
        raise ValueError(f"gradients name {sorted(analytic)}, parameters {sorted(numeric)}")
    return Report(method, TOLERANCES[method] if tolerance is None else tolerance,
                  tuple(_compare(name, np.asarray(analytic[name]), numeric[name]) for name in numeric))


def _compare(name: str, analytic: Array, numeric: Array) -> TensorReport:
    if analytic.shape != numeric.shape:
        raise ValueError(f"the gradient of {name} has shape {analytic.shape}, the parameter {numeric.shape}")
    if analytic.dtype.kind not in "fiu":
        raise TypeError(f"the gradient of {name} must hold real numbers, got {analytic.dtype}")
    finite = np.where(np.isfinite(numeric), numeric, 0)
    largest = np.max(np.abs(finite))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # in units of the largest, since the square of 1e-200 would vanish and that of 1e200 overflow
        floor = largest * np.sqrt(np.mean(np.square(finite / largest))) if largest else largest
        difference = np.abs(analytic - numeric)
        error = np.where(difference == 0, 0.0, difference / np.maximum(np.abs(numeric), floor))
    error = np.where(np.isnan(error), np.inf, error)
    index = np.unravel_index(int(np.argmax(error)), error.shape)
    return TensorReport(name, float(error[index]), tuple(int(i) for i in index), float(analytic[index]),
                        float(numeric[index]), vacuous=not np.any(numeric))


def check_gradients(loss: Callable[[dict[str, Array]], Any], gradients: Mapping[str, Array],
                    parameters: Mapping[str, Array], method: str = "complex", tolerance: float | None = None) -> Report:
    """Hold `gradients` (name -> array) against numerical derivatives of `loss` at `parameters`, entry by entry.

    >>> theta = {"w": np.array([1.0, 2.0])}
    >>> print(check_gradients(lambda p: (p["w"] ** 2).sum(), {"w": 2 * theta["w"]}, theta).ok)
    True
    """
    return compare(gradients, numerical_gradient(loss, parameters, method), method, tolerance)
