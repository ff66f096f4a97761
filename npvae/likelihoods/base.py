"""The class of all likelihoods p(x|z), to be subclassed.  Read after `support.py`; the formulas are in
`kernels/reference/likelihoods.py` and `levels.py`.

A likelihood says how many outputs the decoder has for an image and which data it takes (`support`).  It calls the pair
of kernels that computes nll[b, k] = -log p(x[b] | z[b, k]), in nats, and its derivative.

To add one, subclass `Likelihood` and write four methods: `forward`, `backward`, `mean` and `draw`.  Where kernels give
the terms of nll, one a column, subclass `OfCells`, with `columns_forward` and `columns_backward` in place of the first
two.  Pass an object of the class as `VAE(likelihood=...)`; a row in `LIKELIHOODS` (`__init__.py`) gives it a name for
the command line.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ..params import Array, Block, Shapes
from .support import Reals, Support


class Likelihood(ABC):
    """p(x|z) of an image x of D numbers, given the P outputs of the decoder at z.

    Attributes
    ----------
    name : as the command line and saved files write it
    support : the data it takes
    shapes : name -> shape of its own parameters; empty by default.  `parameter_shapes` gives shapes that depend on D
    recordable : True promises that `forward` and `backward` only call kernels.  Their calls may then be recorded once
        and replayed (`engine/`), with what they took from `self` in the first pass.  Set it in the class itself: it is
        not inherited, as a subclass may compute something else
    fits_batch : True if `fit_batch` chooses a parameter for a whole batch
    by_column : nll is a sum of terms, one for each column of x, each of which depends on its own column alone.  Only
        then may cells be missing
    starts_at_data : the program calls `start` before it trains: without it, numbers of any unit take long to find
    adjacent : the m outputs of a column lie side by side, and not in m blocks of D
    """

    name: str
    support: Support = Reals()
    shapes: Shapes = {}
    recordable: bool = False
    fits_batch: bool = False
    by_column: bool = True
    adjacent: bool = False
    starts_at_data: bool = False

    def config(self) -> str | Mapping[str, Any]:
        """What `make_likelihood` makes it of again, for a file: its name by default."""
        return self.name

    def output_dim(self, input_dim: int) -> int:
        """P, the number of decoder outputs for an image of D numbers; D by default."""
        return input_dim

    def parameter_shapes(self, input_dim: int) -> Shapes:
        """Name -> shape of its own parameters, for an image of D numbers; `shapes` by default."""
        return self.shapes

    def features_dim(self, input_dim: int) -> int:
        """F, how many numbers the encoder sees of D columns; D by default."""
        return input_dim

    def features(self, kernels: ModuleType, features: Array, x: Array) -> None:
        """features (B, F), what the encoder sees of x (B, D).  Where this is not overridden it sees x itself."""

    def feature_columns(self, input_dim: int) -> Array:
        """(F,), integers: the column that each feature is computed from; one after the other by default."""
        return np.arange(self.features_dim(input_dim))

    def initialize(self, params: Block) -> None:
        """Set its own parameters, if it has any."""

    def bias_at(self, mean: Array) -> Array:
        """The output bias (P,) at which the decoder's first output is the mean image (D,); 0 by default."""
        return np.zeros(self.output_dim(len(mean)))

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """Set the output bias (P,) and its own parameters to the scale of data x (N, D), where training is to begin.
        NaN is a missing cell.  By default the bias is `bias_at` the mean, and the parameters stay as they are."""
        bias[...] = self.bias_at(column_means(x))

    @abstractmethod
    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        """nll (B, K) = -log p(x|z) in nats, from output (B, K, P) and x (B, D).  `kept` (B, K, P) is memory for values
        that `backward` needs."""

    @abstractmethod
    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        """doutput (B, K, P) from dnll (B, K), and the gradients of its own parameters into `grads`."""

    def columns_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array, params: Block
                        ) -> None:
        """cells (B, K, D) = -log p(x_d|z), the terms of nll.  Other arguments as of `forward`, which by default is
        given each cell as a row of one column."""
        output, x = self._cells_as_rows(kernels, output, x)
        self.forward(kernels, cells.reshape(-1, 1), kept.reshape(output.shape), output, x, params)

    def columns_backward(self, kernels: ModuleType, doutput: Array, grads: Block, dcells: Array, kept: Array,
                         output: Array, x: Array, params: Block) -> None:
        """As `backward`, from dcells (B, K, D)."""
        (B, K, D), rows = dcells.shape, self._cells_as_rows(kernels, output, x)
        copied = not np.may_share_memory(rows[0], output)
        drows = np.empty_like(rows[0]) if copied else doutput.reshape(rows[0].shape)
        self.backward(kernels, drows, grads, dcells.reshape(-1, 1), kept.reshape(drows.shape), *rows, params)
        if copied:
            kernels.transpose_each(doutput.reshape(B * K, -1, D), drows.reshape(B * K, D, -1))

    def _cells_as_rows(self, kernels: ModuleType, output: Array, x: Array) -> tuple[Array, Array]:
        """output (B K D, 1, m) and x (B K D, 1), a row for each cell: views, or copies made by kernels."""
        (B, K, P), D = output.shape, x.shape[1]
        if P > D and not self.adjacent:
            turned = np.empty((B * K, D, P // D), output.dtype)
            kernels.transpose_each(turned, output.reshape(B * K, P // D, D))
            output = turned
        if K > 1:
            repeated = np.empty((B, K, D), x.dtype)
            kernels.add_to_draws_forward(repeated, np.zeros_like(repeated), x)
            x = repeated
        return output.reshape(B * K * D, 1, P // D), x.reshape(-1, 1)

    def complete(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """output (rows, P) with all that `mean` needs of its own parameters, as further columns; by default output
        itself."""
        return output

    def complete_dim(self, input_dim: int) -> int:
        """How many columns `complete` returns for D columns of data; P by default."""
        return self.output_dim(input_dim)

    @abstractmethod
    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from output (rows, P), or from what `complete` has made of it."""

    @abstractmethod
    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """A draw x ~ p(x|z) (rows, D) from output (rows, P)."""

    def summary(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """Numbers (rows, S) of p(x|z) whose mean over draws of z tells of x, from output (rows, P): E[x|z] by default.
        For categories override it with the probabilities of all levels."""
        return self.mean(kernels, self.complete(kernels, output, params))

    def single(self, summary: Array) -> Array:
        """The one x (rows, D) that stands for such means (rows, S): the mean itself by default; for categories the most
        probable level."""
        return summary

    def fit_batch(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array) -> None:
        """In training, if `fits_batch`: nll (B, K) with the parameter that is best for this batch."""

    def fit_images(self, params: Block, x: Array, mean: Array) -> None:
        """If `fits_batch`: set that parameter to what is best for images x and their reconstructions `mean`, both (N,
        D)."""


class OfCells(Likelihood):
    """A likelihood whose kernels give cells, the terms of nll: the class of those that write `columns_forward` and
    `columns_backward` and leave the sum to a kernel."""

    starts_at_data = True

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        cells = np.empty((*nll.shape, x.shape[1]), nll.dtype)
        self.columns_forward(kernels, cells, kept, output, x, params)
        kernels.sum_cells_forward(nll, cells)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        dcells = np.empty((*dnll.shape, x.shape[1]), dnll.dtype)
        kernels.sum_cells_backward(dcells, dnll)
        self.columns_backward(kernels, doutput, grads, dcells, kept, output, x, params)


def column_means(x: Array) -> Array:
    """The mean (D,) of the observed cells of each column of x (N, D), in double precision; 0 where there is none."""
    observed = ~np.isnan(x)
    total = np.sum(x, axis=0, where=observed, dtype=np.float64)
    means: Array = total / np.maximum(observed.sum(axis=0), 1)
    return means


def mean_within(mean: Array) -> Array:
    """The mean image, kept within [0.001, 0.999]: for pure black or white the bias would be infinite."""
    return np.clip(mean, 1e-3, 1 - 1e-3)


def solve(increasing: Callable[[Array], Array], target: Array, low: float, high: float) -> Array:
    """The root (D,) of  increasing(root) = target,  entry by entry, by bisection between `low` and `high`."""
    lower, upper = np.full(target.shape, low), np.full(target.shape, high)
    middle: Array = lower
    for _ in range(70):
        middle = 0.5 * (lower + upper)
        below = increasing(middle) < target
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return middle
