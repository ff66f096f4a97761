"""Where a training step is cut, so that several threads can run it.  Beside the lesson, read before `lanes.py`.

    images_of    a batch by its images: a pass on some of them is a lane
    phases       a pass; in it few rows times many weights are cut by the weights
    shares       all parameters, for their update

Cut by its images, a batch of 20 reads all weights in each lane, and some of them out of the other core's cache, which
has just updated them.  Cut by the weights, each core reads its own.  Two cores of an Intel Xeon, a step's time against
that of cuts by images alone, medians of three pairs: 784-200-200-50 at batch 20 0.81, with K = 5 draws 0.87, at batch
100 0.94; 784-400-20 at 128 0.95.
"""
import math
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .params import Array, Shapes

LINE = 64      # parameters are cut at multiples of it, so that no two threads write into one cache line

Call = tuple[Any, tuple[Any, ...]]      # a kernel and its arguments


def pieces(size: int, number: int, multiple: int = 1) -> list[slice]:
    """0 ... size in so many pieces of nearly equal size, cut at multiples of a number."""
    ends = [size * i // number // multiple * multiple for i in range(number)] + [size]
    return [slice(*pair) for pair in zip(ends, ends[1:])]


def images_of(a: SimpleNamespace, batch: int, part: slice) -> SimpleNamespace:
    """Views of some images of the batch: an array has a row for each image, or for each image and draw."""
    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(one) for one in value]
        if not isinstance(value, np.ndarray):
            return value
        draws = len(value) // batch
        return value[part.start * draws:part.stop * draws]
    return SimpleNamespace(**{name: cut(value) for name, value in vars(a).items()})


def shares(shapes: Shapes, number: int) -> list[list[slice]]:
    """For each lane its part of every tensor in a flat block: of weights, the rows that `phases` gives it."""
    ends, stop = [0], 0
    for size in map(math.prod, shapes.values()):
        ends += [(stop + size * i // number) // LINE * LINE for i in range(1, number + 1)]
        stop += size
    parts = [slice(*pair) for pair in zip(ends, [*ends[1:-1], stop])]
    return [[part for part in parts[lane::number] if part.start < part.stop] for lane in range(number)]


def phases(whole: Sequence[Call], lanes: Sequence[Sequence[Call]], number: int, kernels: ModuleType,
           record: Callable[[Any], list[Call]]) -> list[list[list[Call]]]:
    """Phases of tasks, as `Lanes.order` takes them, from the calls of all lanes; `whole` are those on an uncut batch.

    Where weights W are more numbers than the rows x that go in and come out, not the lanes make the product, but
    so many tasks, each with some rows of W:

        x W = sum over parts  x[:, part] W[part]            dpre W^T has the columns  dpre W[part]^T

    All tasks of a phase may run at the same time; what a task reads was written in an earlier phase, or by itself.
    """
    found: list[list[list[Call]]] = [[[] for _ in lanes]]
    for (kernel, arrays), *calls in zip(whole, *lanes):
        if kernel is not kernels.matmul or not _is_cut_by_weights(*arrays):
            for task, call in zip(found[-1], calls):
                task.append(call)
            continue
        out, x, W = arrays
        if _is_transposed(W):
            parts = pieces(W.shape[1], number)
            found += [[(kernel, (out[:, part], x, W[:, part]))] for part in parts], [[] for _ in lanes]
            continue
        parts = pieces(len(W), number)
        terms = [np.empty_like(out) for _ in parts]
        found.append([[(kernel, (term, x[:, part], W[part]))] for term, part in zip(terms, parts)])
        ends = np.cumsum([len(rows) for _, (rows, *_) in calls])[:-1]
        found.append([record(lambda kernels: add_up(kernels, rows, own))
                      for (_, (rows, *_)), *own in zip(calls, *(np.split(term, ends) for term in terms))])
    return found


def _is_cut_by_weights(out: Array, x: Array, W: Array) -> bool:
    """Sums are added as flat arrays: not into some columns of a matrix."""
    return W.size >= out.size + x.size and (_is_transposed(W) or out.flags.c_contiguous)


def _is_transposed(W: Array) -> bool:
    return W.strides[0] < W.strides[1]


def add_up(kernels: ModuleType, total: Array, parts: Sequence[Array]) -> None:
    """Of an even number of parts; the first is overwritten where there are more than two."""
    kernels.add(total, parts[0], parts[1])
    source, target = total, parts[0]      # to and fro, as no output may be an input; an odd number of times
    for part in parts[2:]:
        kernels.add(target, source, part)
        source, target = target, source
