"""From calls of kernels to a table of machine-code calls, which `native.replay` runs.

    recorder = Recorder(fused)
    vae.forward(a, estimator, kernels=recorder)      computes nothing, notes every kernel with its arguments
    program = Program(recorder.calls)
    program.run()                                    the forward pass

A program holds the addresses of its arrays, and keeps the arrays alive.  What is recorded must do nothing but call
kernels: anything else that it computes would not be computed again.
"""
import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import threadpoolctl

from ..kernels.fused.arrays import add, add_rows, as_rows, negate, negate_rows, subtract, subtract_rows, transpose
from ..kernels.fused.masks import mask_backward, mask_in_place
from ..kernels.fused.instructions import WORDS
from ..kernels.fused.native import ROW, STATUS, replay
from ..kernels.fused.numba_private import argument_words, code_address
from ..kernels.reference.arrays import matmul

Call = tuple[Callable[..., None], tuple[Any, ...]]

_ROW_MAJOR, _NO_TRANSPOSE, _TRANSPOSE = 101, 111, 112      # constants of the C interface to BLAS
_GEMM = ("scipy_cblas_{}gemm64_", "cblas_{}gemm64_", "cblas_{}gemm")      # in NumPy's wheels; elsewhere
_ON_ROWS = {add: add_rows, subtract: subtract_rows, negate: negate_rows}      # Python functions, and what they call


class Recorder:
    """Stands in for the module of the fused kernels: notes each call instead of making it."""

    def __init__(self, kernels: object) -> None:
        self._kernels = kernels
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        kernel = getattr(self._kernels, name)
        return lambda *arguments: self.calls.append((kernel, arguments))


class Program:
    """Calls as a table, a row each.  `scalars` are their floating-point arguments, which may be changed."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = [one for call in calls for one in _compiled_calls(call)]
        self.table = np.zeros((len(self.calls), ROW), np.int64)
        self.scalars = self.table[:, 1 + WORDS:STATUS].view(np.float64)
        for row, (kernel, arguments) in zip(self.table, self.calls):
            (_write_product if kernel is matmul else _write_kernel)(row, kernel, arguments)

    def run(self) -> None:
        replay(self.table.ctypes.data, len(self.table))


def has_machine_code(kernel: Callable[..., None]) -> bool:
    """Can a call of this kernel stand in a table?"""
    return hasattr(kernel, "native") or kernel in (matmul, mask_backward, *_ON_ROWS)


def _compiled_calls(call: Call) -> list[Call]:
    """The calls of compiled functions that one call of a kernel consists of.

    Few rows times a large transposed matrix are multiplied as  out^T = b^T a^T,  and the result is transposed: BLAS
    then rearranges the small factor in memory, not the large one.  (64 x 784 times 784 x 400: 210 us instead of 270.)
    """
    kernel, arguments = call
    if kernel in _ON_ROWS:
        return [(_ON_ROWS[kernel], as_rows(*arguments))]
    if kernel is mask_backward:
        dW, a, b, mask = arguments
        seen = slice(int(mask.any(axis=0).argmax()), None)      # the columns before would all become zero
        return [(matmul, (dW[:, seen], a, b[:, seen])), (mask_in_place, (dW, mask))]
    if kernel is not matmul:
        return [call]
    out, a, b = arguments
    if _is_row_major(b) or not len(out) <= 64 <= min(b.shape):
        return [call]
    turned = np.empty(out.shape[::-1], out.dtype)
    return [(matmul, (turned, b.T, a.T)), (transpose, (out, turned))]


def _write_kernel(row: Any, kernel: Any, arguments: tuple[Any, ...]) -> None:
    """By Numba's calling convention: pointers to where result and error go, then each argument."""
    row[0] = code_address(kernel, arguments)
    words = [row[STATUS:].ctypes.data, row[STATUS + 1:].ctypes.data]
    for value in arguments:
        words += argument_words(value)
    scalars = [value for value in arguments if isinstance(value, float)]
    row[1:1 + len(words)] = words
    row[1 + WORDS:].view(np.float64)[:len(scalars)] = scalars


def _write_product(row: Any, kernel: Any, arguments: tuple[Any, ...]) -> None:
    """out = 1 * a b + 0 * out,  by cblas_sgemm or cblas_dgemm."""
    out, a, b = arguments
    words = [_ROW_MAJOR, *(_NO_TRANSPOSE if _is_row_major(x) else _TRANSPOSE for x in (a, b)),
             len(out), out.shape[1], a.shape[1]]
    for x in (a, b, out):
        words += [x.ctypes.data, max(x.strides) // x.itemsize]
    row[0] = product_address(out.dtype.char)
    row[1:1 + len(words)] = words
    row[1 + WORDS:].view(out.dtype)[0] = 1      # a float32 takes the low bytes of its register; the next one holds 0


def _is_row_major(x: Any) -> bool:
    return bool(x.strides[1] == x.itemsize and x.strides[0] >= x.shape[1] * x.itemsize)


@functools.cache
def product_address(kind: str) -> int:
    """Where NumPy's BLAS has its matrix product for float32 ("f") or float64 ("d"); 0 if it is not found."""
    letter = {"f": "s", "d": "d"}[kind]
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas":
            functions = ctypes.CDLL(library["filepath"])
            for name in _GEMM:
                if hasattr(functions, name.format(letter)):
                    return ctypes.cast(getattr(functions, name.format(letter)), ctypes.c_void_p).value or 0
    return 0
