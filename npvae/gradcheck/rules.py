"""What a layer must keep besides having the right derivative: the rules of `check_pair`.  Read beside `checker.py`.

Stands on NumPy alone.  A layer that breaks one of them can pass a gradient check and still spoil a training run: its
gradients pile up, or are overwritten, or it writes into arrays that are not its own.
"""
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Forward = Callable[..., Array]
Backward = Callable[..., Mapping[str, Array]]
Rounding = Callable[[str], float]


def broken_rules(forward: Forward, backward: Backward, inputs: Mapping[str, Array], upstream: Array, out: Array,
                 gradients: Mapping[str, Array], rng: np.random.Generator, rounding: Rounding
                 ) -> Iterator[str]:
    """A line for each rule that does not hold.  `out` and `gradients` are what the first calls gave; `rounding` says
    what it may leave of the gradient of that name, where terms cancel."""
    yield from _broken_by_forward(forward, inputs, out)
    yield from _broken_by_backward(backward, inputs, upstream, gradients)
    yield from _broken_linearity(backward, inputs, upstream, gradients, rng, rounding)
    yield from _broken_layouts(forward, backward, inputs, upstream, out, gradients, rounding)


def copies(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Each array anew."""
    return {name: value.copy() for name, value in inputs.items()}


def _broken_by_forward(forward: Forward, inputs: Mapping[str, Array], out: Array) -> Iterator[str]:
    """Equal when run twice, not overwritten, changes nothing."""
    arguments = copies(inputs)
    first = forward(**arguments)
    if not _equal(first, out):
        yield "forward run twice gives two results"
    if np.shares_memory(first, forward(**copies(inputs))):
        yield "the result of forward shares memory with that of the next call, which overwrites it"
    yield from (f"{name} is changed by forward" for name in inputs if not _equal(arguments[name], inputs[name]))


def _broken_by_backward(backward: Backward, inputs: Mapping[str, Array], upstream: Array,
                        gradients: Mapping[str, Array]) -> Iterator[str]:
    """Equal when run twice, changes nothing, shares no memory."""
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
    """Inputs that cannot be written, lie by columns, or lie apart in memory must work and change nothing."""
    for kind, layout in (("read-only", _read_only), ("Fortran-ordered", _fortran), ("strided", _strided)):
        try:
            same = _near(np.asarray(forward(**{name: layout(value) for name, value in inputs.items()})), out)
            again = backward(layout(upstream), **{name: layout(value) for name, value in inputs.items()})
            same = same and all(_near(np.asarray(again[name]), gradients[name], lambda: rounding(name))
                                for name in gradients)
        except Exception as error:      # whatever the layer raises is the finding
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
    """The same numbers, every second entry of a larger array along each axis."""
    wide = np.empty([2 * length for length in value.shape], value.dtype)
    every_second: Any = (slice(None, None, 2),) * value.ndim
    view: Array = wide[every_second + (...,)]      # with ..., a number stays an array
    view[...] = value
    return view


def _equal(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc")


def _near(a: Array, b: Array, rounding: Callable[[], float] = float) -> bool:
    """Equal up to the rounding of sums taken in another order, which is `rounding` where terms cancel."""
    if a.shape != b.shape:
        return False
    off = np.abs(a - b).max(initial=0.0)
    return bool(off <= 1e-10 * np.abs(b).max(initial=0.0) or off <= rounding())
