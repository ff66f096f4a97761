"""Does replaying work here?  It relies on what Numba does not document: how arrays are laid out for compiled code, and
how the machine code of a kernel is called.

Where that has changed, a call could end the process.  So it is found out in three steps:

1. Layout and calling convention are compared with those known.  Nothing is called.
2. A version of Numba that the tests have not run with is tried in another process, once.  The answer is kept beside the
   machine code of the kernels.
3. A product and a kernel are replayed in this process, and compared with NumPy.

Without replaying, kernels are called one by one, by Python.
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
_KILLED = (-signal.SIGINT, -signal.SIGTERM, -9)      # exit codes that say nothing about replaying


@functools.cache
def can_replay(dtype: str, shared: bool = False) -> bool:
    """Can passes in this type be replayed, and, if `shared`, by several threads?  Warns where that was to be
    expected and fails."""
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
    """Do kernels work at all, called by Python?  Warns where they do not.  Compiles one that every model needs."""
    from ..kernels.fused.dense import identity_forward
    try:
        identity_forward(np.empty((1, 1), dtype), np.empty((1, 1), dtype), np.empty(1, dtype))
        return True
    except Exception as error:
        compile.warn_once(f"the NumPy kernels take over, several times slower ({type(error).__name__}: {error})")
        return False


def _is_trusted() -> bool:
    """Has this version been tested, or tried on this machine?"""
    if numba.__version__.rpartition(".")[0] in TESTED:
        return True
    for folder in compile._folders():
        with contextlib.suppress(OSError, ValueError):
            return compile._read(folder / _answer_file()) == _WORKS
    code = _try_elsewhere()
    if code not in (1, *_KILLED):      # 1: it could not begin
        for folder in compile._folders():
            with contextlib.suppress(OSError):
                compile._write(folder / _answer_file(), _FAILS if code else _WORKS)
                break
    return code == 0


def _answer_file() -> str:
    """The name of the file that keeps the answer.  Its folder's name holds a hash of the sources of all kernels."""
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
    """Do a product and a kernel, replayed, agree with NumPy?"""
    from ..kernels.fused.dense import identity_forward
    from ..kernels.fused.native import MAILBOX, barrier, lead, serve
    from ..kernels.reference.arrays import matmul
    from .recording import Program
    a, b = np.arange(12, dtype=dtype).reshape(4, 3), np.arange(20, dtype=dtype).reshape(5, 4)
    product, out, bias = np.zeros((3, 5), dtype), np.zeros((3, 5), dtype), np.arange(5, dtype=dtype)
    program = Program([(matmul, (product, a.T, b.T)), (identity_forward, (out, product, bias))])
    if shared:      # in this thread: a worker with nothing to do, and a leader without workers
        mailbox = np.zeros(MAILBOX, np.int64)
        barrier(mailbox.ctypes.data, 0, 1, 0), serve(mailbox.ctypes.data, 0)
        lead(0, np.array([(program.table.ctypes.data, len(program.table))]), 0, 1)
    else:
        program.run()
    return np.array_equal(out, a.T @ b.T + bias)
