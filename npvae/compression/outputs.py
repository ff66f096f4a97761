"""The decoder and its cells on the stack: pixels that are independent given z, and MADE.  Read after `cells.py`."""
from abc import ABC, abstractmethod

import numpy as np

from ..decoders import MADE, DenseOutput
from ..model.vae import VAE
from ..params import Array
from .cells import CodedCells
from .coder import Symbols
from .network import Layer, Network, rounded


class CodedOutput(ABC):
    """p(x|z) for the stack."""

    @abstractmethod
    def push(self, stack: Symbols, levels: Array, z: Array) -> None:
        """Push images of these levels (B, D), given z (B, Z)."""

    @abstractmethod
    def pop(self, stack: Symbols, z: Array) -> Array:
        """Pop the levels (B, D)."""


class CodedDense(CodedOutput):
    """Cells that are independent given z."""

    def __init__(self, vae: VAE, output: DenseOutput, cells: CodedCells) -> None:
        self.D, self.cells = vae.input_dim, cells
        self._network = Network(vae.decoder, [output.layer], vae.parameters)

    def push(self, stack: Symbols, levels: Array, z: Array) -> None:
        output, rows = self._network(z)[0], self.cells.rows(self.D)
        for start in range(0, len(z), rows):
            part = slice(start, start + rows)
            stack.push(levels[part], self.cells.depth, self.cells.below(output[part]))

    def pop(self, stack: Symbols, z: Array) -> Array:
        output, rows = self._network(z)[0], self.cells.rows(self.D)
        levels = np.empty((len(z), self.D), np.int64)
        for start in reversed(range(0, len(z), rows)):
            part = slice(start, start + rows)
            levels[part] = stack.pop(levels[part].shape, self.cells.depth, self.cells.below(output[part]))
        return np.minimum(levels, self.cells.levels - 1)      # of a damaged file


class CodedMADE(CodedOutput):
    """Pixels of which each depends on those before it.  One pass gives the probabilities of an image that is known;
    popping goes pixel by pixel, as `MADE.generate` does.  The sums are of whole numbers, and so both are equal."""

    def __init__(self, vae: VAE, made: MADE, cells: CodedCells) -> None:
        self.made, self.cells = made, cells
        self._network = Network(vae.decoder, [], vae.parameters)
        self._first, self._last = Layer(made.first, vae.parameters), Layer(made.last, vae.parameters)

    def push(self, stack: Symbols, levels: Array, z: Array) -> None:
        h, x = self._network.hidden(z), rounded(levels)
        m = rounded(self._first(np.concatenate([x, h], axis=1)))
        logits = self._last(np.concatenate([m, h, x] if self.made.direct else [m, h], axis=1))
        stack.push(levels.T, self.cells.depth, self.cells.below(logits.T))

    def pop(self, stack: Symbols, z: Array) -> Array:
        made, first, last = self.made, self._first, self._last
        h, levels = self._network.hidden(z), np.empty((len(z), made.pixels.stop), np.int64)
        pre, by_h = h @ first.W[made.h], h @ last.W[made.h_last]
        x, m = np.empty(levels.shape), np.empty(pre.shape)
        final = 0
        for d, known in enumerate(made.known):
            new, final = slice(final, known), known
            m[:, new] = rounded(first.activation(pre[:, new] * first.scale + first.b[new]))
            sums = by_h[:, d] + m[:, :known] @ last.W[:known, d]
            if made.direct:
                sums += x[:, :d] @ last.W[made.direct][:d, d]
            logit = sums * last.scale + last.b[d]
            levels[:, d] = stack.pop(logit.shape, self.cells.depth, self.cells.below(logit))
            x[:, d] = rounded(levels[:, d])
            pre[:, known:] += x[:, d, None] * first.W[d, known:]
        return levels


def coded_output(vae: VAE, cells: CodedCells) -> CodedOutput:
    """The decoder for the stack.  Raises ValueError for one that is not known here."""
    if isinstance(vae.output, DenseOutput):
        return CodedDense(vae, vae.output, cells)
    if isinstance(vae.output, MADE):
        return CodedMADE(vae, vae.output, cells)
    raise ValueError(f"decoder {vae.output.name} cannot be compressed with; dense and made can")
