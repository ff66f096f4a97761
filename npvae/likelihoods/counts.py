"""Likelihoods of counts, 0, 1, 2, ...  Read after `own.py`; the formulas are in `kernels/reference/counts.py`.

The encoder sees log(1 + x).  With `size` the mean of a count is the total of its row times a rate, so that the model
need not explain how much was counted in all, as by a longer text or a deeper sequencing; a row's total is given, and
no part of nll.
"""
from types import ModuleType

import numpy as np

from ..kernels.reference.dense import softplus
from ..params import Array, Block, Shapes
from ..validate import boolean, choice
from .base import column_means
from .own import COLUMN, DECODER, SHARED, OwnParameters
from .support import Counts

PARTS = 100      # of the training set, sorted by total: of each its mean total is kept
_LEAST = 1e-4      # takes the place of a smaller mean of a column, of which the logarithm is too far down
_MOST = 1e17      # takes the place of a larger mean in draws: NumPy's Poisson generator makes integers of 64 bits


class _Counts(OwnParameters):
    """Counts whose first number of the decoder is the log mean, or with `size` that of the mean's share of the total.

    The totals of the training set are kept with the model: sorted and cut into a hundred parts, of each of which
    `likelihood.log_totals` has the mean.  It is a parameter that no gradient moves.  New rows draw their totals from
    these, so that totals of draws have the mean of the data's.
    """

    support = Counts()
    size = False

    def features(self, kernels: ModuleType, features: Array, x: Array) -> None:
        """log(1 + x)."""
        kernels.log1p_features(features, x)

    def parameter_shapes(self, input_dim: int) -> Shapes:
        totals: Shapes = {"likelihood.log_totals": (PARTS,)} if self.size else {}
        return {**super().parameter_shapes(input_dim), **totals}

    def offset(self, kernels: ModuleType, output: Array, x: Array) -> Array:
        """(B,): the log total of each row of x, or 0."""
        offset = np.zeros(len(x), output.dtype)
        if self.size:
            kernels.log_total(offset, x)
        return offset

    def columns_backward(self, kernels: ModuleType, doutput: Array, grads: Block, dcells: Array, kept: Array,
                         output: Array, x: Array, params: Block) -> None:
        super().columns_backward(kernels, doutput, grads, dcells, kept, output, x, params)
        if self.size:
            grads["likelihood.log_totals"][...] = 0

    def bias_at(self, mean: Array) -> Array:
        """log mean; with `size` log of each column's share of the sum."""
        bias: Array = np.zeros(self.output_dim(len(mean)))
        bias[:len(mean)] = np.log(np.maximum(mean, _LEAST)) - (np.log(max(mean.sum(), _LEAST)) if self.size else 0)
        return bias

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """The mean of the data, and their totals."""
        super().start(params, bias, x)
        if self.size:
            totals = np.sort(np.maximum(np.nansum(x, axis=1, dtype=np.float64), 1))
            n, below = len(totals), np.concatenate([[0], np.cumsum(totals)])      # the sum of the first i totals
            sums = np.diff(np.interp(np.linspace(0, n, PARTS + 1), np.arange(n + 1), below))
            params["likelihood.log_totals"][...] = np.log(sums * PARTS / n)

    def complete(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """With `size` the log mean is that of a row whose total is the mean of all totals."""
        whole, columns = super().complete(kernels, output, params), output.shape[1] // (self.blocks - len(self.own))
        if self.size:
            whole = whole.copy()
            whole[:, :columns] += np.log(np.mean(np.exp(params["likelihood.log_totals"])))
        return whole

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) = exp(l), from the complete output."""
        mean: Array = np.exp(output[:, :output.shape[1] // self.blocks])
        return mean

    def _drawn_means(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> list[Array]:
        """The blocks (rows, D) of the complete output, the first as means, with totals drawn from those of the training
        set."""
        log_mean, *others = np.split(OwnParameters.complete(self, kernels, output, params).real.astype(float),
                                     self.blocks, axis=1)
        if self.size:
            log_mean = log_mean + draw_totals(params, len(output), rng)[:, None]
        return [np.exp(np.minimum(log_mean, np.log(_MOST))), *others]


def draw_totals(params: Block, n: int, rng: np.random.Generator) -> Array:
    """log totals (n,), each that of a part of the training set."""
    totals: Array = rng.choice(params["likelihood.log_totals"].real.astype(float), n)
    return totals


class Poisson(_Counts):
    """Independent Poisson counts; the decoder gives the log mean of each, so that the variance is the mean.

    size : the mean is the row's total times a rate
    """

    recordable = True

    def __init__(self, size: bool = False) -> None:
        self.size = boolean("size", size)
        self.name, self.by_column = "poisson" + ":size" * size, not size

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.poisson_nll_forward(cells, output, x, self.offset(kernels, output, x))

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.poisson_nll_backward(doutput, dcells, output, x, self.offset(kernels, output, x))

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D)."""
        mean, = self._drawn_means(kernels, output, params, rng)
        x: Array = rng.poisson(mean).astype(output.dtype)
        return x


class NegativeBinomial(_Counts):
    """Counts that vary more than Poisson's: variance m + m^2 / r, with a log mean from the decoder and a learned
    dispersion r.

    Parameters
    ----------
    dispersion : "column", one r for each column, `likelihood.log_r`; "shared", one for all; "decoder", which gives one
        for each count
    size : the mean is the row's total times a rate
    """

    recordable = True
    blocks = 2
    _family = "negative-binomial"

    def __init__(self, dispersion: str = COLUMN, size: bool = False) -> None:
        self.dispersion = choice("dispersion", dispersion, (COLUMN, SHARED, DECODER))
        self.size = boolean("size", size)
        self.own = {} if dispersion == DECODER else {"log_r": dispersion}
        self.name, self.by_column = f"{self._family}:{dispersion}" + "+size" * size, not size

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """The mean of the data, and for every column the r of its variance, m^2 / (variance - m), between 0.01 and
        1000."""
        super().start(params, bias, x)
        mean = np.maximum(column_means(x), _LEAST)
        excess = column_means(np.square(x.astype(np.float64) - mean)) - mean
        r = mean * mean / np.maximum(excess, 1e-3 * mean * mean)
        self._set_own(params, "log_r", bias, np.log(np.maximum(r, 0.01)))

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.negative_binomial_nll_forward(cells, output, x, self.offset(kernels, output, x))

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.negative_binomial_nll_backward(doutput, dcells, output, x, self.offset(kernels, output, x))

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D): a Poisson count whose mean is drawn from a Gamma distribution of shape r."""
        mean, log_r = self._drawn_means(kernels, output, params, rng)
        return _gamma_poisson(mean, log_r, rng).astype(output.dtype)


def _gamma_poisson(mean: Array, log_r: Array, rng: np.random.Generator) -> Array:
    r = np.exp(np.clip(log_r, -30, 30))
    counts: Array = rng.poisson(np.minimum(rng.gamma(r) * (mean / r), _MOST))
    return counts


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A negative binomial with additional zeros, of a probability that the decoder gives for each count, as its logit.

    With a dispersion from the decoder its three numbers of a column are hard to tell apart.
    """

    recordable = True
    blocks = 3
    _family = "zero-inflated-negative-binomial"

    def bias_at(self, mean: Array) -> Array:
        """log mean, and a probability of additional zeros of 0.1."""
        bias, D = super().bias_at(mean), len(mean)
        bias[D:2 * D] = np.log(0.1 / 0.9)
        return bias

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.zero_inflated_nll_forward(cells, output, x, self.offset(kernels, output, x))

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.zero_inflated_nll_backward(doutput, dcells, output, x, self.offset(kernels, output, x))

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) = (1 - p) exp(l), from the complete output."""
        log_mean, a, _ = np.split(output, 3, axis=1)
        mean: Array = np.exp(log_mean - softplus(a))
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D)."""
        mean, a, log_r = self._drawn_means(kernels, output, params, rng)
        zero = np.log(rng.random(a.shape)) < -np.logaddexp(0, -a)
        return np.where(zero, 0, _gamma_poisson(mean, log_r, rng)).astype(output.dtype)


class Multinomial(_Counts):
    """The row's total is given; the decoder says, by a softmax, to which columns its counts go: a bag of words.

    Columns are not independent, as their counts have a given sum.
    """

    name = "multinomial"
    recordable = True
    by_column = False
    size = True

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.multinomial_nll_forward(cells, kept, output, x)

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.multinomial_nll_backward(doutput, dcells, kept, x)

    def complete(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """The log means of a row whose total is the mean of all totals."""
        return super().complete(kernels, _log_shares(output), params)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D), from the complete output; not exp of the decoder's."""
        return super().mean(kernels, output)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ P(x|z) (rows, D)."""
        totals = np.rint(np.exp(np.minimum(draw_totals(params, len(output), rng), np.log(_MOST)))).astype(np.int64)
        p = np.exp(_log_shares(output.real.astype(float)))
        x: Array = rng.multinomial(totals, p / p.sum(axis=1, keepdims=True)).astype(output.dtype)
        return x


def _log_shares(logits: Array) -> Array:
    """log softmax (rows, D)."""
    scores = logits - logits.max(axis=1, keepdims=True)
    shares: Array = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return shares
