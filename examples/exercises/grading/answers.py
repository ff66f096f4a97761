"""A student's file, and the verdict on what its functions return.  All numbers are judged here."""
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from npvae.gradcheck import numerical_gradient
from npvae.gradcheck.diagnosis import diagnose

Array = np.ndarray
Arrays = dict[str, Array]
Number = int | float | tuple[float, ...]
Numbers = dict[str, Number]      # a student's own, by name


class Wrong(Exception):
    """An answer is wrong, and how."""


@dataclass(frozen=True)
class Student:
    """A student's file as a module, and the numbers that stand in it."""

    module: ModuleType
    numbers: Mapping[str, Number]

    def number(self, name: str) -> float:
        value = self.numbers[name]
        assert not isinstance(value, tuple)
        return value

    def ask(self, name: str, *arguments: object, **named: object) -> object:
        """What a function returns; it must leave its arguments as they are."""
        function = getattr(self.module, name, None)
        if not callable(function):
            raise Wrong(f"the file has no function {name}")
        given = [_copy(argument) for argument in arguments]
        found: object = function(*given, **named)
        labels = list(inspect.signature(function).parameters)
        for i, (before, after) in enumerate(zip(arguments, given)):
            label = labels[i] if i < len(labels) else f"argument {i + 1}"
            if not _same(before, after):
                raise Wrong(f"{name} changes its argument {label}, which belongs to the caller")
        if found is None:
            raise Wrong(f"{name} returns None: is a return missing?")
        return found

    def array(self, name: str, shape: tuple[int, ...], *arguments: object, **named: object) -> Array:
        """The one array, or number if the shape is (), that a function returns."""
        return array(f"what {name} returns", self.ask(name, *arguments, **named), shape)

    def arrays(self, name: str, shapes: Mapping[str, tuple[int, ...]], *arguments: object) -> Arrays:
        """The several arrays that a function returns, in this order."""
        found = self.ask(name, *arguments)
        if not isinstance(found, (tuple, list)) or len(found) != len(shapes):
            count = f"{len(found)} of them" if isinstance(found, (tuple, list)) else f"a {type(found).__name__}"
            raise Wrong(f"{name} should return {len(shapes)} things, {', '.join(shapes)}, and returns {count}")
        return {label: array(label, value, shape) for (label, shape), value in zip(shapes.items(), found)}


def _copy(value: object) -> object:
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


def _same(before: object, after: object) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(before[name], after[name]) for name in before)
    return not isinstance(before, np.ndarray) or np.array_equal(before, np.asarray(after), equal_nan=True)


def array(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """The value as float64, if it is a real array of that shape without NaN and infinity."""
    if not isinstance(value, (np.ndarray, np.generic, float, int)) or isinstance(value, bool):
        raise Wrong(f"{name} is a {type(value).__name__}, should be {'an array' if shape else 'a number'}")
    found = np.asarray(value)
    if found.dtype.kind not in "fi":
        raise Wrong(f"{name} has the type {found.dtype}, should be real numbers")
    if found.shape != shape:
        raise Wrong(f"{name} has the shape {found.shape}, should be {shape}{_why(found.shape, shape)}")
    if not np.isfinite(found).all():
        raise Wrong(f"{name} holds NaN or infinity in {np.sum(~np.isfinite(found))} of {found.size} entries")
    if found.dtype in (np.float32, np.float16):
        raise Wrong(f"{name} is {found.dtype}: compute in the precision of the arguments")
    return found.astype(float)


def _why(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found == shape[::-1]:
        return ": transposed?"
    if len(found) > len(shape) and found[:len(shape)] == shape:
        return f": is a sum over axis {len(shape)} missing?"
    if len(found) < len(shape) and shape[:len(found)] == found:
        return f": a sum or mean over axis {len(found)} too many?"
    return ""


def agree(name: str, got: Array, want: Array | float, counts: Mapping[str, float] | None = None,
          parts: Mapping[str, Array] | None = None, slips: Mapping[str, Array | float] | None = None,
          tolerance: float = 1e-9) -> None:
    """Raise Wrong if the numbers differ: with the slip that would give exactly these, or the checker's diagnosis.

    counts : factors by which the answer may be off, by name, such as {"B": 4}
    parts : arrays that may be missing from a sum, or returned by mistake, by name
    slips : what a common mistake gives, by its name
    """
    got, want = np.atleast_1d(got), np.broadcast_to(np.atleast_1d(want), np.atleast_1d(got).shape)
    size = max(float(np.sqrt(np.mean(want ** 2))), 1e-300)
    wrong = _differ(got, want, tolerance, size)
    if not wrong.any():
        return
    for slip, value in (slips or {}).items():
        if not _differ(got, np.broadcast_to(np.atleast_1d(value), got.shape), tolerance, size).any():
            raise Wrong(f"{name}: {slip}")
    others = {label: np.broadcast_to(np.atleast_1d(part), got.shape) for label, part in (parts or {}).items()}
    said = diagnose(got, want, wrong, others, dict(counts or {}), False)
    worst = np.unravel_index(int(np.argmax(np.abs(got - want))), got.shape)
    place = f" at {[int(i) for i in worst]}" if got.size > 1 else ""
    raise Wrong(f"{name}: {said}" if said else
                f"{name}: {got[worst]:.6g}{place} is off by {abs(got[worst] - want[worst]) / size:.1g} of its size; "
                f"{wrong.sum()} of {wrong.size} entries are wrong")


def _differ(got: Array, want: Array, tolerance: float, size: float) -> Array:
    """The rule of D9.5; size is the root mean square of what is right."""
    found: Array = np.abs(got - want) > tolerance * np.maximum(np.abs(want), size)
    return found


def agree_on_gradients(got: Arrays, loss: Callable[[Arrays], complex], inputs: Mapping[str, Array],
                       counts: Mapping[str, float] | None = None,
                       parts: Mapping[str, Mapping[str, Array]] | None = None,
                       slips: Mapping[str, Mapping[str, Array | float]] | None = None) -> None:
    """The gradients that a student returns, "dx" for "x", against the complex step of the loss."""
    want = numerical_gradient(loss, {name: np.asarray(inputs[name], float) for name in inputs if f"d{name}" in got})
    for name, gradient in want.items():
        rest = {f"d{other}": value for other, value in want.items()
                if other != name and value.shape == gradient.shape and np.any(value != gradient)}
        agree(f"d{name}", got[f"d{name}"], gradient, counts, {**(parts or {}).get(name, {}), **rest},
              (slips or {}).get(name))


def normal_average(degree: int = 40) -> tuple[Array, Array]:
    """Nodes and weights (N,) for averages over eps ~ Normal(0, 1), exact for polynomials up to twice the degree."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(degree)
    return nodes, weights / weights.sum()


def log_normal(x: Array, mean: Array | float, variance: Array | float) -> Array:
    """log of the density of Normal(mean, variance)."""
    found: Array = -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    return found


def pick(rng: np.random.Generator, values: Iterable[float]) -> float:
    """One of the values, for a student's numbers."""
    return float(rng.choice(list(values)))
