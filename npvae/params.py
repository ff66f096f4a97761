"""Block: every parameter in one flat vector, with a named view of each tensor.  Read after the kernels.

One block for the parameters, one for their gradients, one for each of Adam's moments.  The layers see matrices by name;
the optimizer, the gradient's norm, the checkpoint and a finite difference see one vector.
"""
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .kernels import reference

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int, ...]]
Allocate = Callable[..., Array]      # allocate(name, *shape): the first numbers of the memory of that name
Take = Allocate      # its name before


def _no_model() -> None:
    """Instead of a weak reference."""


class Block(Mapping[str, Array]):
    """A read-only mapping of names to arrays that all lie in `flat`, in the order of `shapes`.

    The mapping cannot be changed, the arrays can: writing into `block["mu.W"]` writes into `block.flat`, also in a copy
    or a pickle of the block.
    """

    def __init__(self, shapes: Shapes, dtype: DTypeLike) -> None:
        self._over(shapes, np.zeros(sum(math.prod(shape) for shape in shapes.values()), dtype))

    def _over(self, shapes: Shapes, flat: Array) -> None:
        self.shapes, self.flat = dict(shapes), flat
        self._model: Callable[[], Any] = _no_model
        self._views: dict[str, Array] = {}
        start = 0
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            self._views[name] = flat[start:stop].reshape(shape)
            start = stop

    def __getstate__(self) -> tuple[Shapes, Array]:
        """Without the views: NumPy copies and pickles each as an array of its own."""
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
    def kernels(self) -> Any:
        """Those that an optimizer changes the block with: of the model whose parameters these are, as fast as its own
        passes, or of a block without one the reference's."""
        model = self._model()
        return reference if model is None else model.engine.kernels

    def belongs_to(self, model: object) -> None:
        """From now on, for as long as there is that model; a copy belongs to nobody."""
        self._model = weakref.ref(model)

    def zeros_like(self) -> "Block":
        """A block of the same names, shapes and type, all zero."""
        return Block(self.shapes, self.flat.dtype)

    def layout(self) -> dict[str, dict[str, list[int]]]:
        """For the manifest of a file that holds `flat`: which tensors lie in it, one after the other, row by row."""
        return {"shapes": {name: list(shape) for name, shape in self.shapes.items()}}

    def norm(self) -> float:
        """sqrt(sum of squares) over all tensors; NaN or infinite as soon as one entry is."""
        largest, ratio = self.norm_in_parts()
        return largest * ratio

    def norm_in_parts(self) -> tuple[float, float]:
        """s and r with norm = s r: 1 and the norm itself, or, where squares overflow or vanish, the largest entry and
        sqrt(sum of (entry / largest)^2)."""
        limits = np.finfo(self.flat.dtype)
        with np.errstate(over="ignore"):
            squares = np.dot(self.flat, self.flat)
        if not limits.tiny / limits.eps < squares < math.inf:
            largest = float(np.max(np.abs(self.flat), initial=0))
            if 0 < largest < math.inf:
                scaled = self.flat / largest
                return largest, math.sqrt(np.dot(scaled, scaled))
        return 1.0, math.sqrt(squares)
