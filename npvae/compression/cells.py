"""p(x|z) of the cells of an image, a row of counts or a table, as symbols for the stack.  Read after `latents.py`.

A likelihood of cells that have finitely many levels can be coded.  `coded_cells` finds how, by the likelihood's class;
`coded_cells.register` teaches it another one.
"""
from abc import ABC, abstractmethod
from functools import singledispatch

import numpy as np

from ..kernels.reference.levels import LEVELS
from ..kernels.reference.tables import LOG1P
from ..likelihoods.base import Likelihood
from ..likelihoods.bernoulli import Bernoulli
from ..likelihoods.categories import Categories, Ordinal
from ..likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ..likelihoods.levels import BetaBinomial, Categorical, DiscretizedLogistic
from ..likelihoods.own import DECODER
from ..likelihoods.table import GroupParameters, Table
from ..params import Array, Block
from ..validate import shown
from . import exact
from .coder import Below, table

_STEPS = LEVELS - 1
_FLOOR = -7 - exact.LOG_2      # LOG_SCALE_FLOOR, without the library's logarithm
_MOST_CELLS = 2 ** 21      # probabilities held at a time
_MOST_COUNTS = 2 ** 25
_MOST_LOGIT = 40.0
_MOST_LOG = 12.0           # bounds of log alpha and log beta in the beta-binomial


class CodedCells(ABC):
    """Cells x = level / steps.

    Attributes
    ----------
    levels : their number; where columns have different ones, the largest
    steps : 1 for counts and codes, which are their own levels
    tabulated : `below` holds a probability of every level in memory, so that few rows are given to it at a time
    """

    levels: int
    steps: int
    tabulated = True

    @property
    def depth(self) -> int:
        """Bits of a cell."""
        return max(1, (self.levels - 1).bit_length())

    def rows(self, columns: int) -> int:
        """How many rows to give to `below` at a time."""
        return max(1, _MOST_CELLS // (self.levels * columns)) if self.tabulated else 2 ** 30

    def features(self, levels: Array) -> Array:
        """What the encoder sees (B, F) of levels (B, D); x by default."""
        return levels / self.steps

    @abstractmethod
    def below(self, output: Array) -> Below:
        """P(level < k|z) of cells (B, D), from the decoder's output (B, P)."""


class CodedPixels(CodedCells):
    """Pixels from 0 to 1."""

    def __init__(self, levels: int = LEVELS) -> None:
        self.levels, self.steps = levels, levels - 1


class CodedBernoulli(CodedPixels):
    """Black and white."""

    tabulated = False

    def below(self, output: Array) -> Below:
        black = exact.sigmoid(-output)
        return lambda k: black      # k is 1, the only middle


class CodedLogistic(CodedPixels):
    """The discretized logistic distribution:  P(level < k) = sigmoid((x - m) / s)  at the edge x below level k."""

    tabulated = False

    def below(self, output: Array) -> Below:
        m, rho = np.split(output, 2, axis=1)
        rate = exact.exp(-(_FLOOR + exact.softplus(rho - _FLOOR)))
        return lambda k: exact.sigmoid(((k - 0.5) / _STEPS - m) * rate)


class CodedCategorical(CodedPixels):
    """A softmax over the levels."""

    def below(self, output: Array) -> Below:
        return _of_logs(output.reshape(len(output), -1, self.levels))


class CodedBetaBinomial(CodedPixels):
    """The beta-binomial distribution of n = 255 trials.  Where alpha < beta, that of n - level is computed, which has
    them exchanged: then P(n) is at least 2^-n, and no P(k) / P(n) is too large for a float."""

    def below(self, output: Array) -> Below:
        log_alpha, log_beta = np.split(np.minimum(np.maximum(output, -_MOST_LOG), _MOST_LOG), 2, axis=1)
        alpha, beta = exact.exp(log_alpha), exact.exp(log_beta)
        larger, smaller, mirrored = np.maximum(alpha, beta), np.minimum(alpha, beta), alpha < beta
        above = np.zeros((LEVELS + 1, *alpha.shape))      # P(level >= k), times a factor
        share = np.ones(alpha.shape)
        above[_STEPS] = share
        for k in reversed(range(_STEPS)):
            share *= ratio(k, larger, smaller)
            np.maximum(share, 1e-290, out=share)      # no subnormal numbers: some programs switch them off
            np.add(above[k + 1], share, out=above[k])
        whole = above[0]

        def below(k: Array) -> Array:
            part = np.take_along_axis(above, np.where(mirrored, LEVELS - k, k)[None], axis=0)[0]
            found: Array = np.where(mirrored, part, whole - part) / whole
            return found

        return below


def ratio(k: int, alpha: Array, beta: Array) -> Array:
    """Of two neighbouring levels of the beta-binomial, without a logarithm of a Gamma function:

        P(k) / P(k + 1) = (k + 1) (n - k - 1 + beta) / ((n - k) (k + alpha)),   n = 255              (D17.8)
    """
    quotient: Array = ((k + 1) * ((_STEPS - k - 1) + beta)) / ((_STEPS - k) * (k + alpha))
    return quotient


class CodedCounts(CodedCells):
    """Counts from 0 to the largest one in the file: the distribution is cut off there, so that it is a little shorter.

    Parameters
    ----------
    log_r : None for Poisson; () or (D,) for a negative binomial with this parameter; "decoder" for one of each cell
    zeros : the decoder gives the logit of additional zeros
    """

    steps = 1

    def __init__(self, most: int, columns: int, log_r: Array | str | None = None, zeros: bool = False) -> None:
        if (most + 1) * columns > _MOST_COUNTS:
            raise ValueError(f"counts up to {most:,} in {columns:,} columns are too many probabilities for the memory: "
                             f"{_MOST_COUNTS:,} at most")
        self.levels, self.log_r, self.zeros = most + 1, log_r, zeros
        self._k = np.arange(self.levels, dtype=float)
        self._log_factorial = np.add.accumulate(exact.log(np.maximum(self._k, 1)))

    def features(self, levels: Array) -> Array:
        """log(1 + x)."""
        return exact.log(1.0 + levels)

    def below(self, output: Array) -> Below:
        blocks = 1 + (isinstance(self.log_r, str)) + self.zeros
        log_mean, *others = np.split(output, blocks, axis=1)
        if self.log_r is None:
            return _of_logs(self._k * log_mean[..., None] - self._log_factorial)
        log_r = np.broadcast_to(others[-1] if isinstance(self.log_r, str) else self.log_r, log_mean.shape)
        log_p = -exact.softplus(log_r - log_mean)      # p = m / (m + r)
        steps = exact.log(exact.exp(log_r)[..., None] + np.maximum(self._k - 1, 0))      # log (r + k - 1)
        steps[..., 0] = 0
        logs = np.add.accumulate(steps, axis=-1) - self._log_factorial + self._k * log_p[..., None]
        if not self.zeros:
            return _of_logs(logs)
        weights = exact.exp(logs - np.max(logs, axis=-1, keepdims=True))
        total = np.add.accumulate(weights, axis=-1)[..., -1]
        weights[..., 0] += total * exact.exp(np.minimum(others[0], _MOST_LOGIT))      # pi / (1 - pi) = exp(a)
        return table(weights)[1]


class CodedCodes(CodedCells):
    """Codes of columns that have different numbers of levels: one-hot for the encoder."""

    steps = 1

    def __init__(self, sizes: Array) -> None:
        self.sizes, self.levels = sizes, int(sizes.max())

    def features(self, levels: Array) -> Array:
        return _one_hot(levels, self.sizes)


class CodedCategories(CodedCodes):
    """A softmax over the levels of each column."""

    def below(self, output: Array) -> Below:
        logs = np.full((len(output), len(self.sizes), self.levels), -np.inf)
        for d, scores in enumerate(np.split(output, np.cumsum(self.sizes)[:-1], axis=1)):
            logs[:, d, :self.sizes[d]] = scores
        return _of_logs(logs)


class CodedOrdinal(CodedCodes):
    """P(level < k) = sigmoid(c_k - h): the decoder gives h, and each column has cut points c."""

    tabulated = False

    def __init__(self, sizes: Array, numbers: Array) -> None:
        super().__init__(sizes)
        self._cuts = np.full((len(sizes), self.levels + 1), np.inf)
        for d, t in enumerate(np.split(numbers.astype(np.float64), np.cumsum(sizes - 1)[:-1])):
            self._cuts[d, 1:sizes[d]] = np.add.accumulate(np.concatenate([t[:1], exact.exp(t[1:])]))

    def below(self, output: Array) -> Below:
        columns = np.arange(len(self.sizes))
        return lambda k: exact.sigmoid(self._cuts[columns, np.minimum(k, self.levels)] - output)


class CodedTable(CodedCells):
    """Columns of counts and of codes, each as its family says.  Raises ValueError for columns of real numbers."""

    steps = 1

    def __init__(self, likelihood: Table, params: Block, most: int) -> None:
        reals = [column.name for column in likelihood.columns if column.kind in ("real", "positive")]
        if reals:
            raise ValueError(f"a table with real numbers cannot be compressed with, as column {shown(reals[0])}: they "
                             "have a density and no probabilities; leave them out with --columns")
        self.table = likelihood
        self.parts = [
            (group.columns, group.output,
             coded_cells(group.family, GroupParameters(params, group.name), len(group.columns), most))
            for group in likelihood.groups]
        self.levels = max(cells.levels for _, _, cells in self.parts)

    def features(self, levels: Array) -> Array:
        """Numbers in standard deviations from their mean, counts by log(1 + x), a one at the place of each code."""
        own = self.table
        x = levels[:, own.numbers].astype(float)
        t = np.where(own.transforms == LOG1P, exact.log(1 + x), x)
        return np.concatenate([(t - own.location) / own.scale, _one_hot(levels[:, own.coded], own.levels)], axis=1)

    def below(self, output: Array) -> Below:
        parts = [(columns, cells.levels, cells.below(output[:, own])) for columns, own, cells in self.parts]

        def below(k: Array) -> Array:
            found = np.ones(k.shape)
            for columns, levels, of_part in parts:
                place = k[:, columns]
                found[:, columns] = np.where(place < levels, of_part(np.minimum(place, levels - 1)), 1)
            return found

        return below


def _one_hot(levels: Array, sizes: Array) -> Array:
    """A one at the place of each code, (B, sum of sizes), of levels (B, D)."""
    ones = np.zeros((len(levels), int(np.sum(sizes))))
    start = np.cumsum(sizes) - sizes
    inside = levels < sizes      # a damaged file may hold other codes
    ones[np.nonzero(inside)[0], (start + levels)[inside]] = 1
    return ones


def _of_logs(logs: Array) -> Below:
    """From logarithms of weights (..., L), up to a constant of each symbol."""
    return table(exact.exp(logs - np.max(logs, axis=-1, keepdims=True)))[1]


@singledispatch
def coded_cells(likelihood: Likelihood, params: Block, columns: int, most: int) -> CodedCells:
    """How the cells of rows of so many columns are coded, by the class of the likelihood.

    params : of the model
    most : the largest count; ignored where the levels are known

    Raises ValueError for a likelihood that gives no probabilities.
    """
    raise ValueError(f"likelihood {likelihood.name.partition(':')[0]} cannot be compressed with: it gives no "
                     "probabilities of single cells; bernoulli, discretized-logistic, beta-binomial, categorical, "
                     "poisson, negative-binomial, categories and ordinal do")


@coded_cells.register
def _bernoulli(likelihood: Bernoulli, params: Block, columns: int, most: int) -> CodedCells:
    return CodedBernoulli(2)


@coded_cells.register
def _logistic(likelihood: DiscretizedLogistic, params: Block, columns: int, most: int) -> CodedCells:
    return CodedLogistic()


@coded_cells.register
def _categorical(likelihood: Categorical, params: Block, columns: int, most: int) -> CodedCells:
    return CodedCategorical(likelihood.levels)


@coded_cells.register
def _beta_binomial(likelihood: BetaBinomial, params: Block, columns: int, most: int) -> CodedCells:
    return CodedBetaBinomial()


@coded_cells.register
def _poisson(likelihood: Poisson, params: Block, columns: int, most: int) -> CodedCells:
    _without_size(likelihood)
    return CodedCounts(most, columns)


@coded_cells.register
def _negative_binomial(likelihood: NegativeBinomial, params: Block, columns: int, most: int) -> CodedCells:
    _without_size(likelihood)
    log_r: Array | str = DECODER if likelihood.dispersion == DECODER else params["likelihood.log_r"].astype(np.float64)
    return CodedCounts(most, columns, log_r, isinstance(likelihood, ZeroInflatedNegativeBinomial))


def _without_size(likelihood: Poisson | NegativeBinomial) -> None:
    if likelihood.size:
        raise ValueError(f"likelihood {likelihood.name} cannot be compressed with: the total of each row would have to "
                         "be stored, too")


@coded_cells.register
def _categories(likelihood: Categories, params: Block, columns: int, most: int) -> CodedCells:
    return CodedCategories(likelihood.of_columns(columns))


@coded_cells.register
def _ordinal(likelihood: Ordinal, params: Block, columns: int, most: int) -> CodedCells:
    return CodedOrdinal(likelihood.of_columns(columns), params["likelihood.cuts"])


@coded_cells.register
def _table(likelihood: Table, params: Block, columns: int, most: int) -> CodedCells:
    return CodedTable(likelihood, params, most)
