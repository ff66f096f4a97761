"""Likelihoods of codes 0, 1, ..., L - 1 that stand for categories or for steps of a scale.  Read after `own.py`; the
formulas are in `kernels/reference/categories.py`.  (`Categorical`, in `levels.py`, is of pixels.)"""
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..params import Array, Block, Shapes
from ..validate import integer
from .base import OfCells
from .support import Codes


class _Codes(OfCells):
    """Codes of columns that may have different numbers of levels.

    levels : L, the same for all columns, or one number for each of them
    """

    _family = ""

    def __init__(self, levels: int | Sequence[int] = 5) -> None:
        several = isinstance(levels, (Sequence, np.ndarray))
        each = tuple(integer("levels", level, 2) for level in (levels if isinstance(levels, (Sequence, np.ndarray))
                                                               else (levels,)))
        if not each:
            raise ValueError("levels must be a number from 2 on, or one for each column, got none")
        self.levels: int | tuple[int, ...] = each if several else each[0]
        self.name = f"{self._family}:" + ",".join(map(str, each))
        self.support = Codes(self.levels)

    def of_columns(self, input_dim: int) -> NDArray[np.int64]:
        """The number of levels (D,) of each column.  Raises ValueError if it is given for other columns."""
        if isinstance(self.levels, int):
            return np.full(input_dim, self.levels)
        if len(self.levels) != input_dim:
            raise ValueError(f"likelihood {self.name} has levels of {len(self.levels)} columns, but the data have "
                             f"{input_dim}")
        return np.array(self.levels)

    def features_dim(self, input_dim: int) -> int:
        return int(self.of_columns(input_dim).sum())

    def features(self, kernels: ModuleType, features: Array, x: Array) -> None:
        """Each code as a vector of zeros with a one at its place (one-hot)."""
        kernels.one_hot(features, x, self.of_columns(x.shape[1]))

    def feature_columns(self, input_dim: int) -> Array:
        levels = self.of_columns(input_dim)
        return np.repeat(np.arange(input_dim), levels)

    def single(self, summary: Array) -> Array:
        """The most probable code (rows, D), from the probabilities of all levels of each column."""
        return np.stack([np.argmax(p.real, axis=1) for p in self._by_column(summary)], axis=1).astype(summary.dtype)

    def _by_column(self, numbers: Array) -> list[Array]:
        """The part (rows, L) of each column in numbers (rows, sum of L)."""
        levels = (np.full(numbers.shape[1] // self.levels, self.levels) if isinstance(self.levels, int)
                  else np.array(self.levels))
        return np.split(numbers, np.cumsum(levels)[:-1], axis=1)


class Categories(_Codes):
    """Independent categories, by a softmax over the levels of each column.  They have no order, and no mean."""

    recordable = True
    adjacent = True
    _family = "categories"

    def output_dim(self, input_dim: int) -> int:
        return int(self.of_columns(input_dim).sum())

    def bias_at(self, mean: Array) -> Array:
        """0, all levels alike: a mean of codes says nothing."""
        return np.zeros(self.output_dim(len(mean)))

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """log of how often each level occurs, half a time more than it does."""
        levels = self.of_columns(x.shape[1])
        counts = [np.bincount(column[~np.isnan(column)].astype(int), minlength=size)
                  for column, size in zip(x.T, levels)]
        bias[...] = np.concatenate([np.log((count + 0.5) / (count.sum() + 0.5 * len(count))) for count in counts])

    def columns_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array, params: Block
                        ) -> None:
        kernels.categories_nll_forward(cells, output, x, self.of_columns(x.shape[1]))

    def columns_backward(self, kernels: ModuleType, doutput: Array, grads: Block, dcells: Array, kept: Array,
                         output: Array, x: Array, params: Block) -> None:
        kernels.categories_nll_backward(doutput, dcells, output, x, self.of_columns(x.shape[1]))

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """The most probable code (rows, D): categories have no mean."""
        return self.single(output)

    def summary(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """The probability of each level (rows, sum of L)."""
        shares = [np.exp(scores - scores.real.max(axis=1, keepdims=True)) for scores in self._by_column(output)]
        return np.concatenate([share / share.sum(axis=1, keepdims=True) for share in shares], axis=1)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D): the largest logit, after noise of Gumbel's distribution has been added to each."""
        return self.single((output.real + rng.gumbel(size=output.shape)).astype(output.dtype))


class Ordinal(_Codes):
    """Independent levels in an order, as of a scale from 0, never, to 4, always: pieces of a logistic distribution
    whose location the decoder gives (cumulative logits, or proportional odds; McCullagh 1980).

    The cut points of each column are learned, as `likelihood.cuts`: the lowest, then logs of the distances between
    them.
    """

    recordable = True
    _family = "ordinal"

    def parameter_shapes(self, input_dim: int) -> Shapes:
        return {"likelihood.cuts": (int((self.of_columns(input_dim) - 1).sum()),)}

    def bias_at(self, mean: Array) -> Array:
        """0: where the levels lie is said by the cut points."""
        return np.zeros(len(mean))

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """Cut points at which every level is as likely as it is frequent, where h = 0."""
        bias[...] = 0
        cuts = []
        for column, size in zip(x.T, self.of_columns(x.shape[1])):
            count = np.bincount(column[~np.isnan(column)].astype(int), minlength=size) + 0.5
            below = np.cumsum(count)[:-1] / count.sum()
            logits = np.log(below / (1 - below))
            cuts += [logits[:1], np.log(np.diff(logits))]
        params["likelihood.cuts"][...] = np.concatenate(cuts)

    def columns_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array, params: Block
                        ) -> None:
        kernels.ordinal_nll_forward(cells, output, x, params["likelihood.cuts"], self.of_columns(x.shape[1]))

    def columns_backward(self, kernels: ModuleType, doutput: Array, grads: Block, dcells: Array, kept: Array,
                         output: Array, x: Array, params: Block) -> None:
        kernels.ordinal_nll_backward(doutput, grads["likelihood.cuts"], dcells, output, x, params["likelihood.cuts"],
                                     self.of_columns(x.shape[1]))

    def complete(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """[h, c - h] (rows, D + sum of L - 1): the location, and how far above it each cut point lies."""
        sizes = self.of_columns(output.shape[1]) - 1
        numbers = np.split(params["likelihood.cuts"], np.cumsum(sizes)[:-1])
        cuts = np.concatenate([np.cumsum(np.concatenate([t[:1], np.exp(t[1:])])) for t in numbers])
        return np.concatenate([output, cuts - np.repeat(output, sizes, axis=1)], axis=1)

    def complete_dim(self, input_dim: int) -> int:
        return input_dim + int((self.of_columns(input_dim) - 1).sum())

    def summary(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """The probability of each level (rows, sum of L): P(x <= l|z) = sigmoid(c_l - h), and differences of that."""
        D, above = self._above(self.complete(kernels, output, params))
        below = np.empty_like(above)
        kernels.sigmoid_forward(below, above, np.zeros(below.shape[1], below.dtype))
        ends = np.cumsum(self.of_columns(D) - 1)[:-1]
        return np.concatenate([np.diff(part, axis=1, prepend=0, append=1) for part in np.split(below, ends, axis=1)],
                              axis=1)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) = sum over cut points c of sigmoid(h - c), from the complete output."""
        D, above = self._above(output)
        p = np.empty_like(above)
        kernels.sigmoid_forward(p, -above, np.zeros(p.shape[1], p.dtype))
        return self._sums(p, D)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D): how many cut points lie below a draw from the logistic distribution around h."""
        D, above = self._above(self.complete(kernels, output, params))
        noise = np.repeat(rng.logistic(size=output.shape), self.of_columns(D) - 1, axis=1)
        return self._sums((above.real < noise).astype(output.dtype), D)

    def _above(self, output: Array) -> tuple[int, Array]:
        D = output.shape[1] // self.levels if isinstance(self.levels, int) else len(self.levels)
        return D, output[:, D:]

    def _sums(self, numbers: Array, D: int) -> Array:
        """The sum over the cut points of each column."""
        sizes = self.of_columns(D) - 1
        sums: Array = np.add.reduceat(numbers, np.cumsum(sizes) - sizes, axis=1)
        return sums
