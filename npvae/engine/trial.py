"""Does replaying work here?  It rests on what Numba and llvmlite do not document: how they lay out arrays, and how the
machine code of a kernel is called.

Where that has changed, a call could end the process.  So it is found out in three steps: layout and calling convention
are compared with those known, without calling anything; versions that the tests have not run with are tried in another
process, once, and the answer is kept beside the machine code of the kernels; at last a product and a kernel are
replayed here, and compared with NumPy.  Without replaying, kernels are called one by one, by Python.
"""
import contextlib
import functools
import hashlib
import platform
import signal
import sys

import numba
import numpy as np

from ..kernels.fused import compile
from . import child

TESTED = ("0.60", "0.68")      # of Numba, with the llvmlite that each demands: those of .github/workflows
_WORKS, _FAILS = b"works", b"fails"
_PATIENCE = 300      # seconds for the other process, which compiles what it tries
_KILLED = (-signal.SIGINT, -signal.SIGTERM, -9)      # which says nothing of replaying


@functools.cache
def can_replay(dtype: str, shared: bool = False) -> bool:
    """Can passes of numbers of this type be replayed, and, if `shared`, by several threads?  Warns where that could be
    expected."""
    if platform.system() == "Windows" or platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"):
        return False
    if dtype not in ("float32", "float64"):
        return False
    try:
        from ..kernels.fused.dense import identity_forward
        from ..kernels.fused.numba_private import layout_is_known
        from .recording import product_address
        if not product_address(np.dtype(dtype).char):
            return False
        works = layout_is_known(identity_forward, dtype) and _is_trusted() and replays(dtype, shared)
        reason = "a trial has failed"
    except Exception as error:
        works, reason = False, f"{type(error).__name__}: {error}"
    if not works:
        compile.warn_once(f"kernels are called one by one, slower ({reason})")
    return works


@functools.cache
def can_call(dtype: str) -> bool:
    """Do kernels work at all, called by Python?  Warns where they do not.  What it compiles, every model calls."""
    from ..kernels.fused.dense import identity_forward
    try:
        identity_forward(np.empty((1, 1), dtype), np.empty((1, 1), dtype), np.empty(1, dtype))
        return True
    except Exception as error:
        compile.warn_once(f"the NumPy kernels take over, several times slower ({type(error).__name__}: {error})")
        return False


def _is_trusted() -> bool:
    """Has this version been tested, or tried here?"""
    if numba.__version__.rpartition(".")[0] in TESTED:
        return True
    for folder in compile._folders():
        with contextlib.suppress(OSError, ValueError):
            return compile._read(folder / _name()) == _WORKS
    code = _try_elsewhere()
    if code not in (1, *_KILLED):      # 1: it could not begin
        for folder in compile._folders():
            with contextlib.suppress(OSError):
                compile._write(folder / _name(), _FAILS if code else _WORKS)
                break
    return code == 0


def _name() -> str:
    """Of the file that keeps the answer, in a folder whose name tells the sources of all kernels."""
    import llvmlite
    key = numba.__version__, llvmlite.__version__, np.__version__, sys.version, platform.machine()
    return f"replay-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}"


def _try_elsewhere() -> int:
    """The exit code of a process that replays."""
    process = child.start("from npvae.engine.trial import replays\n"
                          "sys.exit(0 if all(replays(dtype, True) for dtype in ('float32', 'float64')) else 3)")
    try:
        return process.wait(_PATIENCE)
    except BaseException:
        process.kill()
        process.wait()
        raise


def replays(dtype: str, shared: bool) -> bool:
    """A product and a kernel, replayed, agree with NumPy."""
    from ..kernels.fused.dense import identity_forward
    from ..kernels.fused.native import MAILBOX, lead, meet, serve
    from ..kernels.reference.arrays import matmul
    from .recording import Program
    a, b = np.arange(12, dtype=dtype).reshape(4, 3), np.arange(20, dtype=dtype).reshape(5, 4)
    product, out, bias = np.zeros((3, 5), dtype), np.zeros((3, 5), dtype), np.arange(5, dtype=dtype)
    program = Program([(matmul, (product, a.T, b.T)), (identity_forward, (out, product, bias))])
    if shared:      # by a leader without workers, and a worker without orders
        box = np.zeros(MAILBOX, np.int64)
        meet(box.ctypes.data, 0, 1, 0), serve(box.ctypes.data, 0)
        lead(0, np.array([(program.table.ctypes.data, len(program.table))]), 0, 1)
    else:
        program.run()
    return np.array_equal(out, a.T @ b.T + bias)
