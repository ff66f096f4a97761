"""The likelihood of a table: each column has the family of distributions that fits its kind.  Read after `columns.py`;
the formulas are in `kernels/reference/tables.py`.

A cell of x is a number in its column's own unit: itself for reals and counts, the index of its level for categories.
So is everything that comes out: nll is the density of the data as they are, and means and draws are in their units.
The network counts in standard deviations from the mean of the training rows, which the columns know (`Column.location`
and `Column.scale`).
"""
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..kernels.reference.tables import IDENTITY, LOG, LOG1P
from ..params import Array, Block, Shapes
from ..validate import shown
from .base import Likelihood, OfCells, column_means
from .bernoulli import Bernoulli
from .categories import Categories, Ordinal
from .columns import FAMILIES, Column, column_of, plain_column
from .counts import NegativeBinomial, Poisson
from .own import OwnParameters
from .reals import Laplace, StudentT
from .support import Support

_LEAST_SCALE = 1e-3      # where training starts, of a sigma in units of the column's own standard deviation


class GaussianColumns(OwnParameters):
    """Independent Gaussian columns, each with a sigma of its own, whose logarithm is `likelihood.log_scale`."""

    name = "gaussian-columns"
    recordable = True
    blocks = 2
    own = {"log_scale": "column"}

    def bias_at(self, mean: Array) -> Array:
        """The mean itself."""
        return mean

    def start(self, params: Block, bias: Array, x: Array) -> None:
        """Mean and standard deviation of every column."""
        mean = column_means(x)
        bias[...] = mean
        spread = np.sqrt(column_means(np.square(x - mean)))
        self._set_own(params, "log_scale", bias, np.log(np.maximum(spread, _LEAST_SCALE)))

    def cells_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array) -> None:
        kernels.gaussian_columns_nll_forward(cells, output, x)

    def cells_backward(self, kernels: ModuleType, doutput: Array, dcells: Array, kept: Array, output: Array, x: Array
                       ) -> None:
        kernels.gaussian_columns_nll_backward(doutput, dcells, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) is the first half of the complete output."""
        mean: Array = output[:, :output.shape[1] // 2].copy()
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        m, s = np.split(self.complete(kernels, output, params), 2, axis=1)
        x: Array = (m + np.exp(s) * rng.standard_normal(m.shape)).astype(output.dtype)
        return x


class GroupParameters(Block):
    """The parameters of one group, of all those in `block`, under the names that its family gives them."""

    def __init__(self, block: Block, group: str) -> None:
        self.block, self.group, self.flat = block, group, block.flat

    def __getitem__(self, name: str) -> Array:
        return self.block[_named(name, self.group)]


def _named(name: str, group: str) -> str:
    """The name in a table of a parameter of a family: "likelihood.laplace.log_scale" of "likelihood.log_scale"."""
    return name.replace("likelihood.", f"likelihood.{group}.")


class _Group:
    """The columns of one family.

    columns (n,) : where they stand in the table
    output (P,) : where their outputs stand in the decoder's
    transforms, location, scale (n,) : u = (t(x) - location) / scale is what the family is of
    """

    def __init__(self, name: str, columns: Sequence[tuple[int, Column]], start: int) -> None:
        own = [column for _, column in columns]
        self.name, self.family = name, _family(name, own)
        self.columns = np.array([i for i, _ in columns])
        self.output = start + np.arange(self.family.output_dim(len(own)))
        self.complete_dim = self.family.complete_dim(len(own))
        self.coded = isinstance(self.family, (Categories, Ordinal))
        self.summary_dim = sum(len(column.levels) for column in own) if self.coded else len(own)
        of_reals = FAMILIES[name] == "real"
        self.transforms = np.array([LOG if column.kind == "positive" else IDENTITY for column in own])
        self.location = np.array([column.location if of_reals else 0.0 for column in own])
        self.scale = np.array([column.scale if of_reals else 1.0 for column in own])
        self.log_scale = np.log(self.scale)

    def inputs(self, kernels: ModuleType, x: Array) -> Array:
        """u (B, n) of x (B, D)."""
        u = np.empty((len(x), len(self.columns)), x.dtype)
        kernels.standardize_columns(u, x, self.columns, self.transforms, self.location, self.scale)
        return u

    def outputs(self, kernels: ModuleType, output: Array) -> Array:
        """The decoder's outputs (B, K, P) of these columns."""
        own = np.empty((*output.shape[:2], len(self.output)), output.dtype)
        kernels.take_columns_forward(own, output, self.output)
        return own

    def kept(self, kept: Array) -> Array:
        """Their part of the memory (B, K, P)."""
        B, K, _ = kept.shape
        return kept.reshape(-1)[self.output[0] * B * K:(self.output[-1] + 1) * B * K].reshape(B, K, -1)

    def x_of(self, u: Array) -> Array:
        """x (rows, n) of u (rows, n)."""
        t = self.location + self.scale * u
        return np.where(self.transforms == LOG, np.exp(np.where(self.transforms == LOG, t, 0)), t)

    def mean(self, kernels: ModuleType, complete: Array) -> Array:
        """E[x|z] (rows, n) in the units of x:  exp(m + sigma^2 / 2)  for t = log."""
        mean = self.family.mean(kernels, complete)
        if (self.transforms == LOG).any():
            log_sigma = complete[:, len(self.columns):]
            mean = mean + np.where(self.transforms == LOG, 0.5 * self.scale * np.exp(2 * log_sigma), 0)
        return self.x_of(mean)

    def summary(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """Of codes the probabilities of all levels, of other columns the mean in the units of x."""
        if self.coded:
            return self.family.summary(kernels, output, params)
        return self.mean(kernels, self.family.complete(kernels, output, params))

    def single(self, summary: Array) -> Array:
        """Of codes the most probable level, of binary columns the more probable one, of others the mean."""
        if self.name == "bernoulli":
            return np.rint(summary)
        return self.family.single(summary) if self.coded else summary


def _group_name(column: Column) -> str:
    """Columns with the same name form a group: a log-normal is a Gaussian of log x."""
    return "gaussian" if column.family == "log-normal" else column.family


def _family(name: str, columns: Sequence[Column]) -> Likelihood:
    """The likelihood of a group."""
    levels = [len(column.levels) for column in columns]
    if name in ("categorical", "ordinal"):
        return (Categories if name == "categorical" else Ordinal)(levels)
    families: dict[str, Callable[[], Likelihood]] = {
        "gaussian": GaussianColumns, "student-t": StudentT, "laplace": Laplace, "poisson": Poisson,
        "negative-binomial": NegativeBinomial, "bernoulli": Bernoulli}
    return families[name]()


class TableCells(Support):
    """The cells of a table: each column has its kind of numbers."""

    pixels = False
    all_bytes = False

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.positive, self.counts = (np.array([column.kind == kind for column in columns])
                                      for kind in ("positive", "count"))
        self.levels = np.array([len(column.levels) for column in columns])
        self.placeholder = np.where(self.positive, 1.0, 0.0)

    def check(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        self._check(x, name, whole=True)

    def check_mean(self, x: Array, name: str, whose: str = "this likelihood") -> None:
        self._check(x, name, whole=False)

    def _check(self, x: Array, name: str, whole: bool) -> None:
        super().check(x, name)
        coded = self.levels > 0
        broken = np.zeros_like(coded) if not whole else (x != np.rint(x)) & (self.counts | coded)
        for wrong, what in (((x <= 0) & self.positive, "positive numbers"),
                            ((x < 0) & self.counts, "counts"), (broken & self.counts, "counts"),
                            (((x < 0) | (x > self.levels - 1)) & coded, "the codes of its levels, 0 to "),
                            (broken & coded, "the codes of its levels, 0 to ")):
            if wrong.any():
                row, d = np.argwhere(wrong)[0]
                most = f"{self.levels[d] - 1}" if coded[d] else ""
                raise ValueError(f"{name} must hold {what}{most} in column {d}, {shown(self.columns[d].name)}, found "
                                 f"{x[row, d]:g}")

    def nearest(self, x: Array) -> Array:
        """x in [0, 1] as cells: reals up to two standard deviations from the mean, counts up to ten, codes."""
        location, scale = (np.array([getattr(column, name) for column in self.columns])
                           for name in ("location", "scale"))
        t = location + scale * (4 * x - 2)
        return np.where(self.levels > 0, np.minimum(np.floor(self.levels * x), self.levels - 1),
                        np.where(self.counts, np.rint(10 * x),
                                 np.where(self.positive, np.exp(np.where(self.positive, t, 0)), t)))


class Table(OfCells):
    """p(x|z) of a row of a table: a product over its columns, each with its own family.

    Parameters
    ----------
    columns : name, family, levels, location and scale of each column, in the order of x's; `npvae.data` finds them

    Columns of one family are computed together.  Their own parameters, such as the sigma of each Gaussian column, are
    called `likelihood.gaussian.log_scale` and the like.
    Raises TypeError or ValueError for what are no columns.
    """

    name = "table"
    recordable = True

    def __init__(self, columns: Sequence[Column]) -> None:
        if not isinstance(columns, Sequence) or not all(isinstance(column, Column) for column in columns):
            raise TypeError(f"columns must be a list of Column, got {shown(columns)}")
        self.columns = tuple(column_of(plain_column(column)) for column in columns)
        if len({column.name for column in self.columns}) < max(1, len(self.columns)):
            raise ValueError("columns must be one or more, each with a name of its own")
        self.support = TableCells(self.columns)
        self.groups: list[_Group] = []
        names = [_group_name(column) for column in self.columns]
        width = 0
        for name in sorted({*names}, key=names.index):
            group = _Group(name, [(i, self.columns[i]) for i in range(len(names)) if names[i] == name], width)
            self.groups.append(group)
            width += len(group.output)
        self._prepare_features()

    def config(self) -> Mapping[str, Any]:
        """What `make_likelihood` makes it of again, as plain numbers and strings."""
        return {"table": [plain_column(column) for column in self.columns]}

    # -- what the encoder sees -----------------------------------------------------------------------------------

    def _prepare_features(self) -> None:
        """Numbers, in units of their scale; then categories, a number for each level."""
        coded = np.array([column.kind in ("category", "ordinal") for column in self.columns])
        self.numbers, self.coded = np.flatnonzero(~coded), np.flatnonzero(coded)
        transforms = {"positive": LOG, "count": LOG1P}
        self.transforms = np.array([transforms.get(self.columns[i].kind, IDENTITY) for i in self.numbers], np.int64)
        self.location, self.scale = (np.array([getattr(self.columns[i], name) for i in self.numbers], float)
                                     for name in ("location", "scale"))
        self.levels = np.array([len(self.columns[i].levels) for i in self.coded], np.int64)

    def features_dim(self, input_dim: int) -> int:
        return len(self.numbers) + int(self.levels.sum())

    def feature_columns(self, input_dim: int) -> Array:
        return np.concatenate([self.numbers, np.repeat(self.coded, self.levels)])

    def features(self, kernels: ModuleType, features: Array, x: Array) -> None:
        """Numbers in standard deviations from their mean, counts by log(1 + x), a one at the place of each level."""
        own = features[:, None, :]
        if len(self.numbers):
            u = np.empty((len(x), len(self.numbers)), x.dtype)
            kernels.standardize_columns(u, x, self.numbers, self.transforms, self.location, self.scale)
            kernels.take_columns_backward(own, u[:, None, :], np.arange(len(self.numbers)))
        if len(self.coded):
            codes, n = np.empty((len(x), len(self.coded)), x.dtype), int(self.levels.sum())
            kernels.take_columns_forward(codes[:, None, :], x[:, None, :], self.coded)
            ones = np.empty((len(x), n), x.dtype)
            kernels.one_hot(ones, codes, self.levels)
            kernels.take_columns_backward(own, ones[:, None, :], len(self.numbers) + np.arange(n))

    # -- parameters ----------------------------------------------------------------------------------------------

    def output_dim(self, input_dim: int) -> int:
        if input_dim != len(self.columns):
            raise ValueError(f"likelihood table has {len(self.columns)} columns, and input_dim is {input_dim}")
        return sum(len(group.output) for group in self.groups)

    def parameter_shapes(self, input_dim: int) -> Shapes:
        return {_named(name, group.name): shape for group in self.groups
                for name, shape in group.family.parameter_shapes(len(group.columns)).items()}

    def initialize(self, params: Block) -> None:
        for group in self.groups:
            group.family.initialize(GroupParameters(params, group.name))

    def bias_at(self, mean: Array) -> Array:
        """Where each family's own bias is at the mean."""
        return np.concatenate([group.family.bias_at(self._u(group, mean[None])[0]) for group in self.groups])

    def start(self, params: Block, bias: Array, x: Array) -> None:
        for group in self.groups:
            own = bias[group.output]
            group.family.start(GroupParameters(params, group.name), own, self._u(group, x))
            bias[group.output] = own

    @staticmethod
    def _u(group: _Group, x: Array) -> Array:
        """What the group's family is of, in double precision; NaN stays NaN."""
        own = x[:, group.columns].astype(float)
        logs = group.transforms == LOG
        u: Array = (np.where(logs, np.log(np.where(logs, own, 1)), own) - group.location) / group.scale
        return u

    # -- the two passes ------------------------------------------------------------------------------------------

    def columns_forward(self, kernels: ModuleType, cells: Array, kept: Array, output: Array, x: Array, params: Block
                        ) -> None:
        """cells (B, K, D) = -log p(x_d|z), in the units of x (appendix J)."""
        for group in self.groups:
            part = np.empty((*cells.shape[:2], len(group.columns)), cells.dtype)
            group.family.columns_forward(kernels, part, group.kept(kept), group.outputs(kernels, output),
                                         group.inputs(kernels, x), GroupParameters(params, group.name))
            kernels.place_cells_forward(cells, part, x, group.columns, group.transforms, group.log_scale)

    def columns_backward(self, kernels: ModuleType, doutput: Array, grads: Block, dcells: Array, kept: Array,
                         output: Array, x: Array, params: Block) -> None:
        for group in self.groups:
            dpart = np.empty((*dcells.shape[:2], len(group.columns)), dcells.dtype)
            kernels.place_cells_backward(dpart, dcells, group.columns)
            own = group.outputs(kernels, output)
            down = np.empty_like(own)
            group.family.columns_backward(
                kernels, down, GroupParameters(grads, group.name), dpart, group.kept(kept), own,
                group.inputs(kernels, x), GroupParameters(params, group.name))
            kernels.take_columns_backward(doutput, down, group.output)

    # -- means and draws, in the units of x ----------------------------------------------------------------------

    def complete(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """(rows, sum of the groups' own complete outputs)."""
        return np.concatenate([group.family.complete(kernels, np.ascontiguousarray(output[:, group.output]),
                                                     GroupParameters(params, group.name)) for group in self.groups],
                              axis=1)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) of numbers, the probability of a binary column's second level, the mean code of ordered
        levels, the most probable one of others."""
        x = np.empty((len(output), len(self.columns)), output.dtype)
        ends = np.cumsum([group.complete_dim for group in self.groups])
        for group, own in zip(self.groups, np.split(output, ends[:-1], axis=1)):
            x[:, group.columns] = group.mean(kernels, np.ascontiguousarray(own))
        return x

    def summary(self, kernels: ModuleType, output: Array, params: Block) -> Array:
        """For each group what its own family says (rows, S), in the units of x."""
        return np.concatenate([group.summary(kernels, np.ascontiguousarray(output[:, group.output]),
                                             GroupParameters(params, group.name)) for group in self.groups], axis=1)

    def single(self, summary: Array) -> Array:
        """Means of numbers, the most probable level of others (rows, D)."""
        x, ends = np.empty((len(summary), len(self.columns)), summary.dtype), np.cumsum(
            [group.summary_dim for group in self.groups])
        for group, own in zip(self.groups, np.split(summary, ends[:-1], axis=1)):
            x[:, group.columns] = group.single(own)
        return x

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D)."""
        x = np.empty((len(output), len(self.columns)), output.dtype)
        for group in self.groups:
            u = group.family.draw(kernels, np.ascontiguousarray(output[:, group.output]),
                                  GroupParameters(params, group.name), rng)
            x[:, group.columns] = group.x_of(u)
        return x


def table_of_config(config: object) -> Table:
    """The table of `Table.config`, from a file.  Raises ValueError."""
    columns = config.get("table") if isinstance(config, Mapping) and len(config) == 1 else None
    if not isinstance(columns, list):
        raise ValueError(f"likelihood must be a name, or a table with its columns, got {shown(config)}")
    return Table([column_of(column) for column in columns])
