"""Rules that a layer must obey besides having the right derivative, for `check_pair`.  Read beside `checker.py`.

A layer that breaks one can pass a gradient check and still spoil training: its gradients accumulate from call to call,
or are overwritten, or it writes into arrays of its caller.
"""
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from types import EllipsisType

import numpy as np

from .derivatives import Array

Forward = Callable[..., Array]
Backward = Callable[..., Mapping[str, Array]]
Rounding = Callable[[str], float]      # name of a tensor -> rounding to expect in its gradient


def broken_rules(forward: Forward, backward: Backward, inputs: Mapping[str, Array], upstream: Array, out: Array,
                 gradients: Mapping[str, Array], rng: np.random.Generator, rounding: Rounding
                 ) -> Iterator[str]:
    """A line for each rule that is broken.  `out` and `gradients` are the results of the first calls; `rounding` bounds
    the rounding error of a gradient whose terms cancel."""
    yield from _broken_by_forward(forward, inputs, out)
    yield from _broken_by_backward(backward, inputs, upstream, gradients)
    yield from _broken_linearity(backward, inputs, upstream, gradients, rng, rounding)
    yield from _broken_layouts(forward, backward, inputs, upstream, out, gradients, rounding)


def copies(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A copy of each array."""
    return {name: value.copy() for name, value in inputs.items()}


def _broken_by_forward(forward: Forward, inputs: Mapping[str, Array], out: Array) -> Iterator[str]:
    """Run twice, forward gives equal results; it overwrites no earlier result and changes no input."""
    arguments = copies(inputs)
    first = forward(**arguments)
    if not _equal(first, out):
        yield "forward run twice gives two results"
    if np.shares_memory(first, forward(**copies(inputs))):
        yield "the result of forward shares memory with that of the next call, which overwrites it"
    yield from (f"{name} is changed by forward" for name in inputs if not _equal(arguments[name], inputs[name]))


def _broken_by_backward(backward: Backward, inputs: Mapping[str, Array], upstream: Array,
                        gradients: Mapping[str, Array]) -> Iterator[str]:
    """Run twice, backward gives equal results; it changes no input, and its gradients share no memory."""
    arguments, dout = copies(inputs), upstream.copy()
    first = backward(dout, **arguments)
    if not all(_equal(first[name], gradients[name]) for name in gradients):
        yield "backward run twice gives two results: does it add to what was there, or draw at random?"
    second = backward(upstream.copy(), **copies(inputs))
    label = "dout, the upstream gradient,"
    for name, value in {**arguments, label: dout}.items():
        if not _equal(value, upstream if name is label else inputs[name]):
            yield f"{name} is changed by backward"
        for other, gradient in first.items():
            if np.shares_memory(gradient, value):
                yield f"the gradient of {other} shares memory with {name}"
    for name, gradient in first.items():
        if np.shares_memory(gradient, second[name]):
            yield f"the gradient of {name} shares memory with that of the next call, which overwrites it"
    for (name, gradient), (other, value) in combinations(first.items(), 2):
        if np.shares_memory(gradient, value):
            yield f"the gradients of {name} and {other} share memory"


def _broken_linearity(backward: Backward, inputs: Mapping[str, Array], upstream: Array, gradients: Mapping[str, Array],
                      rng: np.random.Generator, rounding: Rounding) -> Iterator[str]:
    """backward(0) = 0  and  backward(2 u - w) = 2 backward(u) - backward(w)  for upstream gradients u, w  (D9.8)."""
    if any(np.any(value) for value in backward(np.zeros(upstream.shape), **copies(inputs)).values()):
        yield "backward of a zero upstream gradient is not zero"
    other = rng.standard_normal(upstream.shape)
    apart = {name: np.array(value) for name, value in backward(other.copy(), **copies(inputs)).items()}
    together = backward(2 * upstream - other, **copies(inputs))
    if not all(_near(together[name], 2 * gradients[name] - apart[name], lambda: rounding(name)) for name in gradients):
        yield "backward is not linear in the upstream gradient"


def _broken_layouts(forward: Forward, backward: Backward, inputs: Mapping[str, Array], upstream: Array, out: Array,
                    gradients: Mapping[str, Array], rounding: Rounding) -> Iterator[str]:
    """Inputs that are read-only, Fortran-ordered or strided must work and give the same results."""
    for kind, layout in (("read-only", _read_only), ("Fortran-ordered", _fortran), ("strided", _strided)):
        try:
            same = _near(np.asarray(forward(**{name: layout(value) for name, value in inputs.items()})), out)
            again = backward(layout(upstream), **{name: layout(value) for name, value in inputs.items()})
            same = same and all(_near(np.asarray(again[name]), gradients[name], lambda: rounding(name))
                                for name in gradients)
        except Exception as error:      # whatever it is, it is reported
            yield f"{kind} inputs: {type(error).__name__}: {' '.join(str(error).split())}"
            continue
        if not same:
            yield f"{kind} inputs give another result"


def _read_only(value: Array) -> Array:
    value = np.array(value)
    value.flags.writeable = False
    return value


def _fortran(value: Array) -> Array:
    return np.array(value, order="F")


def _strided(value: Array) -> Array:
    """The same values as every second entry, along each axis, of a larger array."""
    wide = np.empty([2 * length for length in value.shape], value.dtype)
    every_second: tuple[slice | EllipsisType, ...] = (*[slice(None, None, 2)] * value.ndim, ...)
    view: Array = wide[every_second]      # with ..., the result is an array even if it has no axes
    view[...] = value
    return view


def _equal(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc")


def _near(a: Array, b: Array, rounding: Callable[[], float] = float) -> bool:
    """Equal up to the rounding of sums in another order; `rounding` bounds it where terms cancel."""
    if a.shape != b.shape:
        return False
    off = np.abs(a - b).max(initial=0.0)
    return bool(off <= 1e-10 * np.abs(b).max(initial=0.0) or off <= rounding())
