"""Block: all parameters in one flat vector, with a named view of each tensor.  Read after the kernels.

There is one block for the parameters, one for their gradients, and one for each of Adam's two moments.  Layers use the
matrices by name; the optimizer, the gradient norm, checkpoints and finite differences use the flat vector.
"""
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .kernels import reference

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]
Allocate = Callable[..., Array]      # allocate(name, *shape): a view of the memory kept under that name
Take = Allocate      # its former name


class HasUpdate(Protocol):
    """Kernels that update all parameters together, as every module of kernels does."""

    def adam_update(self, theta: Array, m: Array, v: Array, grad: Array, lr: float, beta1: float, beta2: float,
                    eps: float, scale: float, step: int) -> None:
        """One update of theta, m and v (P,), in place."""


class _HasKernels(Protocol):
    @property
    def kernels(self) -> ModuleType | HasUpdate: ...


class _Model(Protocol):
    @property
    def engine(self) -> _HasKernels: ...


def _no_model() -> None:
    """In place of a weak reference, for a block that belongs to no model."""


class Block(Mapping[str, Array]):
    """A read-only mapping from names to arrays, all of them views of the array `flat`.  Its names cannot be changed,
    its numbers can: writing into `block["mu.W"]` writes into `block.flat`, also in a copy or a pickle of the block.

    Parameters
    ----------
    shapes : name -> shape of each tensor, in the order in which they lie in `flat`
    dtype : type of all of them
    """

    def __init__(self, shapes: Shapes, dtype: DTypeLike) -> None:
        self._over(shapes, np.zeros(sum(math.prod(shape) for shape in shapes.values()), dtype))

    def _over(self, shapes: Shapes, flat: Array) -> None:
        self.shapes, self.flat = dict(shapes), flat
        self._model: Callable[[], _Model | None] = _no_model
        self._views: dict[str, Array] = {}
        start = 0
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            self._views[name] = flat[start:stop].reshape(shape)
            start = stop

    def __getstate__(self) -> tuple[Shapes, Array]:
        """Leaves out the views, since NumPy would copy and pickle each as an array of its own."""
        return self.shapes, self.flat

    def __setstate__(self, state: tuple[Shapes, Array]) -> None:
        self._over(*state)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def kernels(self) -> ModuleType | HasUpdate:
        """The kernels an optimizer updates this block with: those of its model, or the reference without a model."""
        model = self._model()
        return reference if model is None else model.engine.kernels

    def belongs_to(self, model: _Model) -> None:
        """Lets `kernels` be those of `model` for as long as it exists.  A copy of the block belongs to no model."""
        self._model = weakref.ref(model)

    def zeros_like(self) -> "Block":
        """A block of zeros with the same names, shapes and type."""
        return Block(self.shapes, self.flat.dtype)

    def layout(self) -> dict[str, dict[str, list[int]]]:
        """The names and shapes of the tensors in `flat`, one after the other and row by row, for the manifest of a
        file."""
        return {"shapes": {name: list(shape) for name, shape in self.shapes.items()}}

    def norm(self) -> float:
        """sqrt(sum of squares) of all entries; NaN or infinite if any entry is."""
        largest, ratio = self.norm_in_parts()
        return largest * ratio

    def norm_in_parts(self) -> tuple[float, float]:
        """(s, r) with norm = s r.   s = 1, unless squares overflow or underflow; then s is the largest absolute entry,
        and r = sqrt(sum of (entry / s)^2)."""
        limits = np.finfo(self.flat.dtype)
        with np.errstate(over="ignore"):
            squares = np.dot(self.flat, self.flat)
        if not limits.tiny / limits.eps < squares < math.inf:
            largest = float(np.max(np.abs(self.flat), initial=0))
            if 0 < largest < math.inf:
                scaled = self.flat / largest
                return largest, math.sqrt(np.dot(scaled, scaled))
        return 1.0, math.sqrt(squares)
