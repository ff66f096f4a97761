"""How a pass is partitioned, so that several threads can run it.  Beside the lesson, read before `executor.py`; the
README of this folder has a drawing.

    phases    a pass, kernel by kernel: each call becomes a task for every thread, with some rows of its arrays
    shares    all parameters, for their update

Threads meet where a call reads what another task has written: before the gradient of weights, a sum over all rows; and
before a prior that holds every draw against all of its components.  Where weights are more numbers than the rows that
go in and come out, the product is partitioned by the weights instead.
"""
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..kernels.roles import UNCUT, roles_of
from ..params import Array, Shapes

LINE = 64      # parameters are cut at multiples of it, so that no two threads write into one cache line

Call = tuple[Any, tuple[Any, ...]]      # a kernel and its arguments
Span = tuple[int, int]      # addresses


def pieces(size: int, number: int, multiple: int = 1) -> list[slice]:
    """0 ... size in so many pieces of nearly equal size, cut at multiples of a number."""
    ends = [size * i // number // multiple * multiple for i in range(number)] + [size]
    return [slice(*pair) for pair in zip(ends, ends[1:])]


def shares(shapes: Shapes, number: int) -> list[list[slice]]:
    """For each task its part of every tensor in a flat block: of weights, the rows that `phases` gives it."""
    ends, stop = [0], 0
    for size in map(math.prod, shapes.values()):
        ends += [(stop + size * i // number) // LINE * LINE for i in range(1, number + 1)]
        stop += size
    parts = [slice(*pair) for pair in zip(ends, [*ends[1:-1], stop])]
    return [[part for part in parts[task::number] if part.start < part.stop] for task in range(number)]


def phases(calls: Sequence[Call], number: int, batch: int, draws: int, kernels: ModuleType,
           record: Callable[[Any], list[Call]]) -> list[list[list[Call]]]:
    """Phases of so many tasks, as `ThreadedExecutor.order` takes them, from the calls of a pass on a batch, with so
    many draws.

    All tasks of a phase may run at the same time; what a task reads was written in an earlier phase, or by itself.
    Sums over rows are put off, until somebody reads them or the pass ends.
    """
    found = [_Phase(number)]
    sums: list[tuple[Array, list[Array]]] = []

    def add(*tasks: Sequence[Call]) -> None:
        if not found[-1].take(tasks):
            found.append(_Phase(number))
            found[-1].take(tasks)

    def add_sums() -> None:
        for i, (total, parts) in enumerate(sums):
            calls = record(lambda kernels: add_up(kernels, total, parts))
            add(*[calls if task == i % number else [] for task in range(number)])
        sums.clear()

    for kernel, arguments in calls:
        if _meet({_span(total) for total, _ in sums}, set(map(_span, arguments))):
            add_sums()
        if kernel.__name__ in UNCUT:
            add([(kernel, arguments)])
        elif kernel is kernels.matmul and _is_cut_by_weights(*arguments):
            out, x, W = arguments
            rows, parts = (_rows(len(array), number, batch, draws) for array in (out, W))
            for tasks in _by_weights(kernel, out, x, W, rows, parts, record):
                add(*tasks)
        else:
            roles = roles_of(kernel, arguments)
            own, needs_rows = _by_rows(roles, arguments, number, batch, draws), set(roles).isdisjoint("PE")
            add(*([(kernel, one)] if len(one[0]) or not needs_rows else [] for one in own))
            sums += [(total, parts) for role, total, *parts in zip(roles, arguments, *own) if role == "P"]
    add_sums()
    return [phase.tasks for phase in found]


class _Phase:
    """Tasks that may run at the same time, and the memory that each of them reads and writes."""

    def __init__(self, number: int) -> None:
        self.tasks: list[list[Call]] = [[] for _ in range(number)]
        self._touched: list[tuple[set[Span], set[Span]]] = [(set(), set()) for _ in range(number)]

    def take(self, tasks: Sequence[Sequence[Call]]) -> bool:
        """Add these calls to the tasks; False, and nothing added, if one of them touches what another task has written
        or writes what another has touched."""
        touched = [_touched(calls) for calls in tasks]
        for i, (read, written) in enumerate(touched):
            for j, (others_read, others_written) in enumerate(self._touched):
                if i != j and (_meet(read | written, others_written) or _meet(written, others_read)):
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
    """From the first byte to the last: of some columns of a matrix it takes in the others."""
    start = array.__array_interface__["data"][0]
    length = sum((n - 1) * stride for n, stride in zip(array.shape, array.strides)) + array.itemsize
    return start, start + length


def _meet(some: set[Span], others: set[Span]) -> bool:
    return any(start < others_stop and others_start < stop for start, stop in some
               for others_start, others_stop in others)


def _rows(size: int, number: int, batch: int, draws: int) -> list[slice]:
    """A part for each task: of rows for every draw, those of the same images as of rows for every image."""
    return pieces(size, number, draws if size == batch * draws else 1)


def _by_rows(roles: str, arguments: Sequence[Array], number: int, batch: int,
             draws: int) -> list[tuple[Array, ...]]:
    """The arguments of each task."""
    size = min(len(value) for role, value in zip(roles, arguments) if role in "Rr")

    def own(role: str, value: Array, part: slice, first: bool) -> Array:
        if role in "Rr":
            each = len(value) // size if size else 1
            return value[part.start * each:part.stop * each]
        return value if role == "s" or role == "E" and first else np.empty_like(value)

    return [tuple(own(role, value, part, i == 0) for role, value in zip(roles, arguments, strict=True))
            for i, part in enumerate(_rows(size, number, batch, draws))]


def _is_cut_by_weights(out: Array, x: Array, W: Array) -> bool:
    """Sums are added as flat arrays: not into some columns of a matrix."""
    return W.size >= out.size + x.size and (_is_transposed(W) or out.flags.c_contiguous)


def _is_transposed(W: Array) -> bool:
    return W.strides[0] < W.strides[1]


def _by_weights(kernel: Any, out: Array, x: Array, W: Array, rows: Sequence[slice], parts: Sequence[slice],
                record: Callable[[Any], list[Call]]) -> list[list[list[Call]]]:
    """A product in tasks that have some rows of W each, and the tasks that add them up, each some rows of the result:

        x W = sum over parts  x[:, part] W[part]            dpre W^T has the columns  dpre W[part]^T
    """
    if _is_transposed(W):
        return [[[(kernel, (out[:, part], x, W[:, part]))] for part in pieces(W.shape[1], len(rows))]]
    terms = [np.empty_like(out) for _ in parts]
    return [[[(kernel, (term, x[:, part], W[part]))] for term, part in zip(terms, parts)],
            [record(lambda kernels: add_up(kernels, out[own], [term[own] for term in terms])) for own in rows]]


def add_up(kernels: ModuleType, total: Array, parts: Sequence[Array]) -> None:
    """Of an even number of parts; the first is overwritten where there are more than two."""
    kernels.add(total, parts[0], parts[1])
    source, target = total, parts[0]      # to and fro, as no output may be an input; an odd number of times
    for part in parts[2:]:
        kernels.add(target, source, part)
        source, target = target, source
