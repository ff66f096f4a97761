"""Likelihoods of real and of positive numbers in any unit.  Read after `own.py`; the formulas are in
`kernels/reference/reals.py`.

The decoder gives the location of each number; the scale is a learned parameter, `likelihood.log_scale`, of each column
or of all.
"""
import math
from types import ModuleType

import numpy as np

from ..params import Array, Block, Shapes
from ..validate import choice, real
from .base import column_means
from .own import COLUMN, SHARED, OwnParameters
from .support import Positive, Reals

_DF = 5.0      # degrees of freedom where training starts
_LEAST = 1e-6      # a column that is constant starts with this scale, in units of its size


class _Scaled(OwnParameters):
    """A location and a scale.  scale : "column", one for each column, or "shared", one for all."""

    blocks = 2
    _family = ""

    def __init__(self, scale: str = COLUMN) -> None:
        self.scale = choice("scale", scale, (COLUMN, SHARED))
        self.own = {"log_scale": scale}
        self.name = f"{self._family}:{scale}"

    def bias_at(self, mean: Array) -> Array:
        """The mean itself."""
        return mean

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """The median of every column, and its mean absolute deviation from it."""
        middle = np.nan_to_num(np.nanmedian(x, axis=0))
        bias[:len(middle)] = middle
        self._set_own(params, "log_scale", bias, _log_deviation(x, middle))

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) is the location, the first block of the complete output."""
        mean: Array = output[:, :output.shape[1] // self.blocks].copy()
        return mean


def _log_deviation(x: Array, middle: Array) -> Array:
    """log of the mean absolute deviation (D,) of observed cells from `middle`, which may not be 0."""
    deviation = column_means(np.abs(x - middle))
    log: Array = np.log(np.maximum(deviation, _LEAST * np.maximum(np.abs(middle), 1e-3)))
    return log


class Laplace(_Scaled):
    """Independent numbers with the density  exp(-|x - m| / b) / (2 b).  The best m is a median: outliers have less
    influence than with a Gaussian."""

    recordable = True
    support = Reals()
    _family = "laplace"

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.laplace_nll_forward(cells, output, x)

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.laplace_nll_backward(doutput, dcells, output, x)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        location, s = np.split(self.complete(kernels, output, params), 2, axis=1)
        x: Array = (location + np.exp(s) * rng.laplace(size=location.shape)).astype(output.dtype)
        return x


class StudentT(_Scaled):
    """Independent numbers with heavy tails: Student's t around m, with scale exp(s) and nu degrees of freedom.

    Parameters
    ----------
    df : nu; None: one for all columns, learned as `likelihood.log_df`
    scale : "column" or "shared"

    For nu <= 1 it has no mean; the location is given in its place.
    """

    recordable = True
    support = Reals()
    blocks = 3
    _family = "student-t"

    def __init__(self, df: float | None = None, scale: str = COLUMN) -> None:
        super().__init__(scale)
        self.df = None if df is None else real("df", df, 0, strict=True)
        self.own = {"log_scale": scale, "log_df": SHARED}
        self.name = f"student-t:{scale}" if df is None else f"student-t:{self.df!r}+{scale}"

    def parameter_shapes(self, input_dim: int) -> Shapes:
        return {name: shape for name, shape in super().parameter_shapes(input_dim).items()
                if self.df is None or name != "likelihood.log_df"}

    def initialize(self, params: Block) -> None:
        if self.df is None:
            params["likelihood.log_df"][...] = math.log(_DF)

    def _parameter(self, block: Block, name: str) -> Array:
        """As in the class above; a given number of degrees of freedom is a constant, whose gradient nobody reads."""
        if name == "log_df" and self.df is not None:
            return np.full(1, math.log(self.df), block.flat.dtype)
        return super()._parameter(block, name)

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.student_t_nll_forward(cells, output, x)

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.student_t_nll_backward(doutput, dcells, output, x)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        location, s, log_df = np.split(self.complete(kernels, output, params).real, 3, axis=1)
        x: Array = (location + np.exp(s) * rng.standard_t(np.exp(np.clip(log_df, -7, 30)))).astype(output.dtype)
        return x


class LogNormal(_Scaled):
    """Positive numbers whose logarithm is Gaussian, as of prices and concentrations: the decoder gives the mean m of
    log x, and s = log sigma of it is `likelihood.log_scale`.  The encoder sees log x."""

    recordable = True
    support = Positive()
    _family = "log-normal"

    def features(self, kernels: ModuleType, features: Array, x: Array) -> None:
        """log x."""
        kernels.log_features(features, x)

    def bias_at(self, mean: Array) -> Array:
        """log of the mean, which is the mean of x as long as sigma is small."""
        return np.log(mean)

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """Mean and standard deviation of log x, for every column."""
        log_x = np.log(x.astype(np.float64))
        mean = column_means(log_x)
        bias[...] = mean
        self._set_own(params, "log_scale", bias, 0.5 * np.log(np.maximum(column_means((log_x - mean) ** 2), 1e-12)))

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.log_normal_nll_forward(cells, output, x)

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.log_normal_nll_backward(doutput, dcells, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) = exp(m + sigma^2 / 2)  (D16.18),  from the complete output: more than the median exp(m),
        since exp is convex (Jensen's inequality)."""
        m, s = np.split(output, 2, axis=1)
        mean: Array = np.exp(m + 0.5 * np.exp(2 * s))
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        m, s = np.split(self.complete(kernels, output, params), 2, axis=1)
        x: Array = np.exp(m + np.exp(s) * rng.standard_normal(m.shape)).astype(output.dtype)
        return x
