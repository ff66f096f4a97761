"""Each fused kernel against its NumPy twin, at the shapes of training.

Kernels are found by name, and their arguments by the names in their signatures, as in the tests.  A kernel whose twins
give different numbers is not timed.  A kernel that the fused module imports from the reference is listed as shared.
"""
import inspect
import math
import statistics
import time
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from npvae.kernels import load
from npvae.layers import ACTIVATIONS
from npvae.params import Array

TOLERANCE = 1e-4      # relative to the largest number: rounding in sums of some thousand float32
SIZES = {"B": 128, "K": 1, "D": 784, "H": 400, "Z": 20, "N": 20000, "P": 653_000, "E": 50_000, "1": 1, "2": 1568,
         "L": 200704, "A": 794, "C": 500}
#: sizes for kernels that work on draws
_DRAWS = {"B": 20, "K": 50, "Z": 50, "2": 100}
_OWN_SIZES = {
    **dict.fromkeys(("add_to_draws", "reparameterize", "log_ratio", "log_q", "standard_normal", "planar_direction",
                     "planar", "gate", "importance_bound", "path_ratio", "path_q", "scale_draws"), _DRAWS),
    "transpose_each": {"K": 2}, "categorical_nll": {"B": 16},      # 256 numbers for each pixel
    "gaussian_log_density": {"B": 20, "Z": 100},      # the first of two latent layers
    "mixture": {"B": 100, "Z": 40}}      # as for 500 pseudo-inputs of a VampPrior

_ACTIVATION = {"out": "BH", "pre": "BH", "b": "H"}
#: kernel -> shape of every argument, outputs first; dX has the shape of X
SHAPES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("add", "subtract"), {"out": "BH", "a": "BH", "b": "BH"}),
    "negate": {"out": "BH", "a": "BH"}, "sum_first": {"out": "BZ", "x": "ABZ"},
    "transpose": {"out": "HD", "a": "DH"}, "transpose_each": {"out": "BHK", "a": "BKH"},
    "sum_squares": {"total": "1", "x": "P"},
    "add_to_draws": {"out": "BKD", "x": "BKD", "y": "BD"},
    "append_labels": {"out": "BA", "x": "BD", "labels": "B"},
    **dict.fromkeys(ACTIVATIONS, _ACTIVATION),
    "mask": {"out": "DH", "W": "DH", "mask": "DH", "a": "DB", "b": "BH"},      # a = x^T and b = dpre, of mask_backward
    "bernoulli_nll": {"nll": "BK", "tail": "BKD", "logits": "BKD", "x": "BD"},
    "gaussian_nll": {"nll": "BK", "mean": "BKD", "x": "BD", "logvar": "1"},
    "gaussian_pixel_nll": {"nll": "BK", "output": "BK2", "x": "BD"},
    "gaussian_optimal_nll": {"nll": "BK", "logvar": "1", "mean": "BKD", "x": "BD"},
    "continuous_bernoulli_nll": {"nll": "BK", "tail": "BKD", "logits": "BKD", "x": "BD"},
    "discretized_logistic_nll": {"nll": "BK", "output": "BK2", "x": "BD"},
    "categorical_nll": {"nll": "BK", "top": "BKD", "total": "BKD", "logits": "BKL", "x": "BD"},
    "beta_binomial_nll": {"nll": "BK", "output": "BK2", "x": "BD"},
    "sum_cells": {"nll": "BK", "cells": "BKD"},
    "sum_observed": {"nll": "BK", "cells": "BKD", "missing": "BD"},
    "split_missing": {"filled": "BD", "missing": "BD", "x": "BD", "placeholder": "D"},
    "append_missing": {"out": "B2", "features": "BD", "missing": "BD", "columns": "D"},
    "reparameterize": {"z": "BKZ", "mu": "BZ", "logvar": "BZ", "eps": "BKZ"},
    "gaussian_kl": {"kl": "BZ", "mu": "BZ", "logvar": "BZ"},
    "log_ratio": {"log_ratio": "BK", "z": "BKZ", "logvar": "BZ", "eps": "BKZ"},
    "log_q": {"log_q": "BK", "logvar": "BZ", "eps": "BKZ"},
    "standard_normal": {"log_p": "BK", "z": "BKZ"},
    "gaussian_log_density": {"log_p": "B", "z": "BZ", "mu": "BZ", "logvar": "BZ"},
    "mixture": {"log_p": "BK", "weights": "BKC", "inverse": "CZ", "peak": "C", "z": "BKZ", "mean": "CZ",
                "logvar": "CZ", "logits": "C"},
    "planar_direction": {"u_hat": "BZ", "stretch": "B", "u": "BZ", "w": "BZ"},
    "planar": {"z": "BKZ", "log_det": "BK", "pre": "BK", "z0": "BKZ", "u_hat": "BZ", "stretch": "B", "w": "BZ",
               "bias": "B"},
    "gate": {"z": "BKZ", "log_det": "BK", "z0": "BKZ", "net": "BK2"},
    "importance_bound": {"bound": "B", "weights": "BK", "log_w": "BK"},
    "path_ratio": {"log_ratio": "BK", "z": "BKZ", "logvar": "BZ", "eps": "BKZ"},
    "path_q": {"log_q": "BK", "z": "BKZ", "logvar": "BZ", "eps": "BKZ"},
    "scale_draws": {"out": "BKZ", "dz": "BKZ", "dnll": "BK", "dlog_ratio": "BK"},
    "adam_update": {"theta": "P", "m": "P", "v": "P", "grad": "P"},
    "gather_rows": {"x": "BD", "rows": "ND", "index": "B"},
    "gather_binarized": {"x": "BD", "rows": "ND", "index": "B", "noise": "BD"},
    "box_muller": {"eps": "E", "uniform": "E"}}
#: the number of outputs of forward kernels that have more than one
_OUTPUTS = {"bernoulli_nll": 2, "gaussian_optimal_nll": 2, "continuous_bernoulli_nll": 2, "categorical_nll": 3,
            "mixture": 4, "planar_direction": 2, "planar": 3, "gate": 2, "importance_bound": 2,
            "split_missing": 2}
_IN_PLACE = {"adam_update": ("theta", "m", "v")}
_SCALARS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "scale": 1 / 255, "step": 7}


def family(kernel: str) -> str:
    """relu_forward -> relu."""
    return kernel.removesuffix("_forward").removesuffix("_backward")


def _value(name: str, argument: str, letters: str, rng: np.random.Generator) -> Array:
    sizes = {**SIZES, **_OWN_SIZES.get(name, {})}
    shape = tuple(sizes[letter] for letter in letters)
    if argument == "rows":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if argument == "x" and name in ("discretized_logistic_nll", "categorical_nll", "beta_binomial_nll"):
        return (rng.integers(0, 256, shape) / 255).astype(np.float32)
    if argument == "index":
        return rng.permutation(SIZES["N"])[:shape[0]]
    if argument == "labels":
        return rng.integers(0, 10, shape)
    if argument == "columns":
        return np.arange(shape[0])
    if argument == "missing":
        return (rng.random(shape) < 0.3).astype(np.float32)
    if argument == "mask":
        return rng.random(shape) < 0.5
    if argument in ("x", "noise", "uniform", "v", "weights", "stretch", "total", "dnll", "dlog_ratio"):
        return rng.random(shape, dtype=np.float32)
    return np.float32(0.5) * rng.standard_normal(shape, dtype=np.float32)


class Call:
    """A kernel's arguments by name.  `written` are the names of those that it writes."""

    def __init__(self, kernel: str, plain: Any, rng: np.random.Generator) -> None:
        self.kernel, name = kernel, family(kernel)
        shapes = SHAPES[name]
        first = list(shapes)[:_OUTPUTS.get(name, 1)]
        values: dict[str, Any] = {argument: _value(name, argument, letters, rng)
                                  for argument, letters in shapes.items()}
        if kernel.endswith("_backward"):      # forward values that fit together, and upstream gradients
            if forward := getattr(plain, f"{name}_forward", None):
                forward(*(values[argument] for argument in inspect.signature(forward).parameters))
            values |= {f"d{argument}": _value(name, argument, letters, rng) for argument, letters in shapes.items()}
        parameters = list(inspect.signature(getattr(plain, kernel)).parameters)
        self.arguments = {argument: values[argument] if argument in values else _SCALARS[argument]
                          for argument in parameters}
        self.written = [argument for argument in parameters if argument in _IN_PLACE.get(name, ())
                        or (argument[0] == "d" and argument[1:] in shapes and argument[1:] not in first
                            if kernel.endswith("_backward") else argument in first and name not in _IN_PLACE)]

    @property
    def bytes(self) -> int:
        """Bytes that are read and written at least once; of the data set, those of gathered rows."""
        arrays = {name: value for name, value in self.arguments.items() if isinstance(value, np.ndarray)}
        touched = {name: value.nbytes for name, value in arrays.items()}
        if "rows" in arrays:
            touched["rows"] = len(arrays["index"]) * arrays["rows"].shape[1]
        twice = [name for name in self.written if name in _IN_PLACE.get(family(self.kernel), ())]
        return sum(touched.values()) + sum(touched[name] for name in twice)

    def copied(self, dtype: Any) -> dict[str, Any]:
        """Copies of the arguments, with floats of this type."""
        return {name: value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value
                for name, value in self.arguments.items()}


def worst_error(call: Call, compiled: Callable[..., None], plain: Callable[..., None]) -> float:
    """The largest difference between the compiled kernel in float32 and the plain one in float64, relative to the
    largest number.  Infinite if a difference is not finite."""
    low, exact = call.copied(np.float32), call.copied(np.float64)
    compiled(*low.values())
    plain(*exact.values())
    errors = []
    for name in call.written:
        with np.errstate(invalid="ignore"):
            error = np.abs(low[name] - exact[name]).max() / max(np.abs(exact[name]).max(), 1e-30)
        errors.append(float(error) if math.isfinite(error) else math.inf)
    return max(errors)


def timed(calls: Sequence[Callable[[], None]], samples: int, least: float) -> list[float]:
    """Median seconds of a call of each.  They take turns; a sample is as many calls as take `least` seconds."""
    counts = []
    for call in calls:
        call()
        began = time.perf_counter()
        call()
        counts.append(max(1, round(least / max(time.perf_counter() - began, 1e-7))))
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(samples):
        for call, count, seconds in zip(calls, counts, found):
            began = time.perf_counter()
            for _ in range(count):
                call()
            seconds.append((time.perf_counter() - began) / count)
    return [statistics.median(seconds) for seconds in found]


def row(kernel: str, plain: Any, compiled: Any, samples: int, least: float) -> dict[str, Any]:
    """A row of the table.  Without numbers, `note` says why, or the kernel is `shared`."""
    if getattr(plain, kernel) is getattr(compiled, kernel):
        return {"kernel": kernel, "shared": True}
    if family(kernel) not in SHAPES:
        return {"kernel": kernel, "note": "NOT TIMED: its arguments are not in kernel_table.SHAPES"}
    call = Call(kernel, plain, np.random.default_rng(0))
    slow, fast = getattr(plain, kernel), getattr(compiled, kernel)
    error = worst_error(call, fast, slow)
    if error > TOLERANCE:
        return {"kernel": kernel, "error": error if math.isfinite(error) else None,
                "note": f"REFUSED: differs from its twin by {error:.1e} of the largest number"}
    arguments = [call.copied(np.float32).values() for _ in range(2)]
    numpy_s, numba_s = timed([lambda: slow(*arguments[0]), lambda: fast(*arguments[1])], samples, least)
    return {"kernel": kernel, "error": error, "numpy_us": numpy_s * 1e6, "numba_us": numba_s * 1e6,
            "ratio": numpy_s / numba_s, "gb_per_s": call.bytes / numba_s / 1e9, "bytes": call.bytes}


def measure(samples: int, least: float, plain: ModuleType | SimpleNamespace | None = None,
            compiled: ModuleType | SimpleNamespace | None = None) -> list[dict[str, Any]]:
    """The rows of all kernels of npvae, or of the two modules given."""
    plain, compiled = plain or load("numpy"), compiled or load("numba")
    if plain is compiled:
        return [{"kernel": "all", "note": "NOT TIMED: numba is absent"}]
    return [row(kernel, plain, compiled, samples, least) for kernel in plain.__all__]
