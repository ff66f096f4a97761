"""From the kernel calls of a pass to tasks for several threads.  Read before `executor.py`; README.md has a drawing.

    phases              the calls of a pass, each split into one part per task: some rows of its arrays
    parameter_slices    the same for the update of all parameters

The tasks of a phase may run at the same time; between two phases all threads wait for each other.  A new phase begins
where a call touches what another task has written: before the gradient of weights, which is a sum over the rows of all
tasks, and before a prior that compares every draw with all of its components.

A product x W is split by the rows of x.  Where W has as many numbers as x and the result together, it is split by W
instead, so that a task reads only its own part of W.
"""
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..kernels.roles import NOT_SPLIT, roles_of
from ..params import Array, Shapes

ALIGNMENT = 64      # parameters are split at multiples of it, so that no two threads write into one cache line

Call = tuple[Any, tuple[Any, ...]]      # a kernel and its arguments
Span = tuple[int, int]      # addresses: of the first byte, and behind the last


def pieces(size: int, number: int, multiple: int = 1) -> list[slice]:
    """0 ... size in so many pieces of nearly equal length, split at multiples of `multiple`."""
    ends = [size * i // number // multiple * multiple for i in range(number)] + [size]
    return [slice(*pair) for pair in zip(ends, ends[1:])]


def parameter_slices(shapes: Shapes, n_tasks: int) -> list[list[slice]]:
    """For each task, its part of every tensor in a flat block: of weights, the rows that `phases` gives it."""
    ends, stop = [0], 0
    for size in map(math.prod, shapes.values()):
        ends += [(stop + size * i // n_tasks) // ALIGNMENT * ALIGNMENT for i in range(1, n_tasks + 1)]
        stop += size
    parts = [slice(*pair) for pair in zip(ends, [*ends[1:-1], stop])]
    return [[part for part in parts[task::n_tasks] if part.start < part.stop] for task in range(n_tasks)]


def phases(calls: Sequence[Call], n_tasks: int, batch: int, draws: int, kernels: ModuleType,
           record: Callable[[Any], list[Call]]) -> list[list[list[Call]]]:
    """The phases of a pass on a batch with so many draws: phase -> task -> calls.

    What a task reads was written in an earlier phase, or by itself.  A kernel that sums over rows writes one partial
    sum per task; they are added up when somebody reads the sum, or at the end of the pass.  `record` gives the calls
    that a function of the kernels makes.
    """
    found = [_Phase(n_tasks)]
    sums: list[tuple[Array, list[Array]]] = []

    def add(*tasks: Sequence[Call]) -> None:
        if not found[-1].try_add(tasks):
            found.append(_Phase(n_tasks))
            found[-1].try_add(tasks)

    def add_sums() -> None:
        for i, (total, parts) in enumerate(sums):
            calls = record(lambda kernels: add_up(kernels, total, parts))
            add(*[calls if task == i % n_tasks else [] for task in range(n_tasks)])
        sums.clear()

    for kernel, arguments in calls:
        if _overlap({_span(total) for total, _ in sums}, set(map(_span, arguments))):
            add_sums()
        if kernel.__name__ in NOT_SPLIT:
            add([(kernel, arguments)])
        elif kernel is kernels.matmul and _is_split_by_weights(*arguments):
            out, x, W = arguments
            rows, parts = (_row_slices(len(array), n_tasks, batch, draws) for array in (out, W))
            for tasks in _split_by_weights(kernel, out, x, W, rows, parts, record):
                add(*tasks)
        else:
            roles = roles_of(kernel, arguments)
            own = _split_by_rows(roles, arguments, n_tasks, batch, draws)
            needs_rows = set(roles).isdisjoint("PE")
            add(*([(kernel, one)] if len(one[0]) or not needs_rows else [] for one in own))
            sums += [(total, parts) for role, total, *parts in zip(roles, arguments, *own) if role == "P"]
    add_sums()
    return [phase.tasks for phase in found]


class _Phase:
    """Tasks that may run at the same time, and the memory that each of them reads and writes."""

    def __init__(self, n_tasks: int) -> None:
        self.tasks: list[list[Call]] = [[] for _ in range(n_tasks)]
        self._touched: list[tuple[set[Span], set[Span]]] = [(set(), set()) for _ in range(n_tasks)]

    def try_add(self, tasks: Sequence[Sequence[Call]]) -> bool:
        """Add calls to each task.  False, and nothing added, if one of them touches what another task has written, or
        writes what another has touched."""
        touched = [_touched(calls) for calls in tasks]
        for i, (read, written) in enumerate(touched):
            for j, (others_read, others_written) in enumerate(self._touched):
                if i != j and (_overlap(read | written, others_written) or _overlap(written, others_read)):
                    return False
        for mine, calls, known, new in zip(self.tasks, tasks, self._touched, touched):
            mine += calls
            known[0].update(new[0])
            known[1].update(new[1])
        return True


def _touched(calls: Sequence[Call]) -> tuple[set[Span], set[Span]]:
    """The memory that calls read, and that which they write."""
    found: tuple[set[Span], set[Span]] = set(), set()
    for kernel, arguments in calls:
        for role, value in zip(roles_of(kernel, arguments), arguments, strict=True):
            found[role.isupper()].add(_span(value))
    return found


def _span(array: Array) -> Span:
    """All bytes from the first to the last.  Of some columns of a matrix it contains the other columns too."""
    start = array.__array_interface__["data"][0]
    length = sum((n - 1) * stride for n, stride in zip(array.shape, array.strides)) + array.itemsize
    return start, start + length


def _overlap(some: set[Span], others: set[Span]) -> bool:
    return any(start < others_stop and others_start < stop for start, stop in some
               for others_start, others_stop in others)


def _row_slices(size: int, n_tasks: int, batch: int, draws: int) -> list[slice]:
    """Rows for each task.  An array with a row for every draw is split between images, as one with a row for every
    image is: then a task finds its own images in both."""
    return pieces(size, n_tasks, draws if size == batch * draws else 1)


def _split_by_rows(roles: str, arguments: Sequence[Array], n_tasks: int, batch: int,
                   draws: int) -> list[tuple[Array, ...]]:
    """The arguments of each task."""
    size = min(len(value) for role, value in zip(roles, arguments) if role in "Rr")

    def own(role: str, value: Array, part: slice, first: bool) -> Array:
        if role in "Rr":
            each = len(value) // size if size else 1
            return value[part.start * each:part.stop * each]
        return value if role == "s" or role == "E" and first else np.empty_like(value)

    return [tuple(own(role, value, part, i == 0) for role, value in zip(roles, arguments, strict=True))
            for i, part in enumerate(_row_slices(size, n_tasks, batch, draws))]


def _is_split_by_weights(out: Array, x: Array, W: Array) -> bool:
    """The partial products are added as flat arrays, so the result must not be some columns of a larger matrix."""
    return W.size >= out.size + x.size and (_is_transposed(W) or out.flags.c_contiguous)


def _is_transposed(W: Array) -> bool:
    return W.strides[0] < W.strides[1]


def _split_by_weights(kernel: Any, out: Array, x: Array, W: Array, rows: Sequence[slice], parts: Sequence[slice],
                      record: Callable[[Any], list[Call]]) -> list[list[list[Call]]]:
    """Each task multiplies by its own rows of the stored weights:

        forward     x W = sum over parts  x[:, part] W[part]        a product per task; then they are added, by rows
        backward    dpre W^T has the columns  dpre W[part]^T        each task makes its own columns
    """
    if _is_transposed(W):
        return [[[(kernel, (out[:, part], x, W[:, part]))] for part in pieces(W.shape[1], len(rows))]]
    terms = [np.empty_like(out) for _ in parts]
    return [[[(kernel, (term, x[:, part], W[part]))] for term, part in zip(terms, parts)],
            [record(lambda kernels: add_up(kernels, out[own], [term[own] for term in terms])) for own in rows]]


def add_up(kernels: ModuleType, total: Array, parts: Sequence[Array]) -> None:
    """total = the sum of an even number of parts.  Overwrites the first part where there are more than two."""
    kernels.add(total, parts[0], parts[1])
    source, target = total, parts[0]      # no output may be an input: the sum goes to and fro, and ends in `total`
    for part in parts[2:]:
        kernels.add(target, source, part)
        source, target = target, source
