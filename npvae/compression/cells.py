"""p(x|z) of the cells of an image, a row of counts or a table, as symbols for the stack.  Read after `latents.py`.

A likelihood of cells that have finitely many levels can be coded.  `coded_cells` finds how, by the likelihood's class;
`coded_cells.register` teaches it another one.
"""
from abc import ABC, abstractmethod
from functools import singledispatch

import numpy as np

from ..kernels.reference.levels import LEVELS
from ..likelihoods.base import Likelihood
from ..likelihoods.bernoulli import Bernoulli
from ..likelihoods.levels import BetaBinomial, Categorical, DiscretizedLogistic
from ..params import Array
from . import exact
from .coder import Below, table

_STEPS = LEVELS - 1
_FLOOR = -7 - exact.LOG_2      # LOG_SCALE_FLOOR, without the library's logarithm
_MOST_CELLS = 2 ** 21      # probabilities held at a time
_MOST_LOG = 12.0           # bounds of log alpha and log beta in the beta-binomial


class CodedCells(ABC):
    """Cells x = level / (levels - 1) of a given number of levels.

    Attributes
    ----------
    levels : of each cell
    tabulated : `below` holds a probability of every level in memory, so that few rows are given to it at a time
    """

    levels: int
    tabulated = True

    @property
    def depth(self) -> int:
        """Bits of a cell."""
        return (self.levels - 1).bit_length()

    def rows(self, columns: int) -> int:
        """How many rows to give to `below` at a time."""
        return max(1, _MOST_CELLS // (self.levels * columns)) if self.tabulated else 2 ** 30

    @abstractmethod
    def below(self, output: Array) -> Below:
        """P(level < k|z) of cells (B, D), from the decoder's output (B, P)."""


class CodedBernoulli(CodedCells):
    """Black and white."""

    levels, tabulated = 2, False

    def below(self, output: Array) -> Below:
        black = exact.sigmoid(-output)
        return lambda k: black      # k is 1, the only middle


class CodedLogistic(CodedCells):
    """The discretized logistic distribution:  P(level < k) = sigmoid((x - m) / s)  at the edge x below level k."""

    levels, tabulated = LEVELS, False

    def below(self, output: Array) -> Below:
        m, rho = np.split(output, 2, axis=1)
        rate = exact.exp(-(_FLOOR + exact.softplus(rho - _FLOOR)))
        return lambda k: exact.sigmoid(((k - 0.5) / _STEPS - m) * rate)


class CodedCategorical(CodedCells):
    """A softmax over the levels."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def below(self, output: Array) -> Below:
        scores = output.reshape(len(output), -1, self.levels)
        return table(exact.exp(scores - np.max(scores, axis=2, keepdims=True)))[1]


class CodedBetaBinomial(CodedCells):
    """The beta-binomial distribution of n = 255 trials.  Where alpha < beta, that of n - level is computed, which has
    them exchanged: then P(n) is at least 2^-n, and no P(k) / P(n) is too large for a float."""

    levels = LEVELS

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


@singledispatch
def coded_cells(likelihood: Likelihood) -> CodedCells:
    """How a likelihood's cells are coded.  Raises ValueError for a likelihood that gives no probabilities."""
    raise ValueError(f"likelihood {likelihood.name.partition(':')[0]} cannot be compressed with: it has a density and "
                     "no probabilities, or they are not known here; bernoulli, discretized-logistic, beta-binomial and "
                     "categorical can")


@coded_cells.register
def _bernoulli(likelihood: Bernoulli) -> CodedCells:
    return CodedBernoulli()


@coded_cells.register
def _logistic(likelihood: DiscretizedLogistic) -> CodedCells:
    return CodedLogistic()


@coded_cells.register
def _categorical(likelihood: Categorical) -> CodedCells:
    return CodedCategorical(likelihood.levels)


@coded_cells.register
def _beta_binomial(likelihood: BetaBinomial) -> CodedCells:
    return CodedBetaBinomial()
