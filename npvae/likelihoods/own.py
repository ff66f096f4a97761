"""Parameters that a likelihood has for itself, one for every column or one for all.  Read after `base.py`.

Where the decoder gives a mean, and a scale or a dispersion is a parameter of the likelihood, a kernel of a few cells
would have to come in many forms.  Instead the parameters become further columns of the decoder's output
(`append_parameters_forward`), and the kernel takes all its numbers from there.
"""
from abc import abstractmethod
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from ..params import Array, Block, Shapes
from ..validate import one_of, shown
from .base import OfCells

#: for each column of x, for all of them, or for each column of each row, from the decoder
COLUMN, SHARED, DECODER = "column", "shared", "decoder"


class OwnParameters(OfCells):
    """A likelihood whose cells take m numbers of each column, of which the decoder gives the first ones, and parameters
    of its own the others.

    Attributes
    ----------
    blocks : m
    own : name -> `COLUMN` or `SHARED`, of its own parameters, in the order of the blocks; the last of the m
    """

    blocks: int = 1
    own: dict[str, str] = {}

    def output_dim(self, input_dim: int) -> int:
        return (self.blocks - len(self.own)) * input_dim

    def parameter_shapes(self, input_dim: int) -> Shapes:
        return {f"likelihood.{name}": (input_dim if of == COLUMN else 1,) for name, of in self.own.items()}

    @abstractmethod
    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        """cells (B, K, D) from the complete output (B, K, m D)."""

    @abstractmethod
    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        """doutput (B, K, m D) from dcells."""

    def columns_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array, params: Block
                        ) -> None:
        self.cells_forward(kernels, cells, kept, self._completed(kernels, output, params)[-1], x)

    def columns_backward(self, kernels: ModuleType, doutput: Array, grads: Block, dcells: Array, kept: Array,
                         output: Array, x: Array, params: Block) -> None:
        """The mirror image of `columns_forward`: the gradients of its own parameters are taken off one by one."""
        outputs = self._completed(kernels, output, params)
        douts = [doutput, *(np.empty_like(out) for out in outputs[1:])]
        self.cells_backward(kernels, douts[-1], dcells, kept, outputs[-1], x)
        for name, dout, dlonger in reversed([*zip(self.own, douts, douts[1:])]):
            kernels.append_parameters_backward(dout, self._parameter(grads, name), dlonger)

    def _completed(self, kernels: ModuleType, output: Array, params: Block) -> list[Array]:
        """output (B, K, P), and each time with one more of its own parameters appended."""
        outputs, width = [output], output.shape[2] // (self.blocks - len(self.own))
        for name in self.own:
            longer = np.empty((*output.shape[:2], outputs[-1].shape[2] + width), output.dtype)
            kernels.append_parameters_forward(longer, outputs[-1], self._parameter(params, name))
            outputs.append(longer)
        return outputs

    def _parameter(self, block: Block, name: str) -> Array:
        """The parameter of that name, (D,) or (1,), or where its gradient is to be written."""
        return block[f"likelihood.{name}"]

    def complete(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """(rows, m D) from output (rows, P)."""
        return self._completed(kernels, output[:, None], params)[-1][:, 0]

    def complete_dim(self, input_dim: int) -> int:
        return self.blocks * input_dim

    def _set_own(self, params: Block, name: str, bias: Array, values: Array) -> None:
        """The parameter of that name, or the part of the output bias that takes its place, is set to values (D,), of
        which one that is shared takes the mean."""
        if name not in self.own:
            bias[len(bias) - len(values):] = values
        else:
            params[f"likelihood.{name}"][...] = values if self.own[name] == COLUMN else np.mean(values)


def words_of(text: str, *choices: Sequence[str]) -> list[str | None]:
    """The words of a name such as "shared+size": of each group of choices the one that is there, or None.  Raises
    ValueError for other words and for two of one group."""
    words = text.split("+")
    found: list[str | None] = []
    for group in choices:
        there = [word for word in words if word in group]
        if len(there) > 1:
            raise ValueError(f"{' and '.join(there)} exclude each other")
        found.append(there[0] if there else None)
    unknown = [word for word in words if word not in found]
    if unknown:
        raise ValueError(f"after the colon, {one_of([word for group in choices for word in group])} may follow, joined "
                         f"by +, got {shown(unknown[0])}")
    return found
