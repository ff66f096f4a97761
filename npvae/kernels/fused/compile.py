"""How the fused kernels are compiled, and where the machine code is kept.

Two decorators, and no other compilation options anywhere:

    jit         a kernel: kept on disk, may reorder sums (a row of 784 is summed in vector lanes)
    inlined     a scalar function used inside kernels: never reordered, since its digits depend on the order

`error_model="numpy"` matters: Python's model tests every division for zero, and the test stops vectorisation.
`fastmath=True` is not used: beyond the four flags below it gains nothing and deletes the handling of NaN and infinity.

On disk, a kernel has one file for each types of arguments.  The file's name holds a hash of all that the machine code
depends on, its first 32 bytes are a hash of its name and of the rest: it is the right file and whole, or not used, and
processes that start together replace it by its equal.  Whatever fails in reading or writing, the caller does not
notice: the kernel is compiled in memory.

Numba's own cache numbers its files and lists them in an index.  A damaged file raises from the caller's line
(numba #10434), and two processes that fill it at once can leave an index that leads to code for other types.
"""
import contextlib
import hashlib
import importlib.resources
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .numba_private import attach, compiler_locks, context_of, kept, known_options, loaded, traits      # before Numba
import numba

if getattr(numba.config, "DISABLE_JIT", 0):      # exp and log1p (`elementary.py`) exist as compiled code only
    raise ImportError("NUMBA_DISABLE_JIT is set")

_REORDER = {"reassoc", "contract", "nsz", "arcp"}
STRICT = {"error_model": "numpy", "fastmath": {"contract"}}


def jit(kernel: Callable[..., None]) -> Any:
    """Compile a kernel at its first call for given types; release the GIL while it runs.

    `kernel.native` is the same without the part that Python calls, which takes a quarter of the time to compile.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": _REORDER, **known_options("no_cfunc_wrapper")}
    compiled = numba.njit(kernel, **options)
    native = numba.njit(kernel, **known_options("no_cpython_wrapper"), **options)
    attach(compiled, _Disk(kernel))
    attach(native, _Disk(kernel, "native"))
    compiled.native = native
    return compiled


def is_cold() -> bool:
    """Is there no machine code of these sources on disk yet, but a place for it?"""
    def can_be_made(folder: Path) -> bool:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return os.access(folder, os.W_OK)
    folders = _folders()
    return not any(folder.is_dir() and any(folder.iterdir()) for folder in folders) and any(map(can_be_made, folders))


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a scalar function for use inside kernels only; products and sums may fuse, their order stays.

    LLVM leaves a long one as a call, which stops vectorisation, unless it is told.
    """
    return numba.njit(function, **known_options("no_cfunc_wrapper", "no_cpython_wrapper", "forceinline"), **STRICT)


_warned: list[str] = []


def warn_once(text: str) -> None:
    """Of all that is missing in this Numba, the first is told."""
    if not _warned:
        _warned.append(text)
        warnings.warn(f"numba {numba.__version__} is not as npvae knows it; {text}", RuntimeWarning, stacklevel=2)


class _Disk:
    """What Numba asks before it compiles a kernel, and tells afterwards.  Whatever it has changed in that, a
    kernel that cannot be loaded is compiled, and one that cannot be kept is compiled again in the next process."""

    cache_path = None

    def __init__(self, kernel: Callable[..., None], variant: str = "") -> None:
        self._kernel, self._variant = kernel, variant

    def load_overload(self, types: Any, context: Any = None, *more: Any) -> Any:
        """The compiled kernel for arguments of these types; None makes Numba compile it."""
        for folder in _folders():
            with contextlib.suppress(Exception):      # whatever a missing, damaged or foreign file may raise
                return loaded(context, _read(folder / self._name(types, context)))
        return None

    def save_overload(self, types: Any, compiled: Any = None, *more: Any) -> None:
        """Write it into the first folder that takes it."""
        try:
            content = kept(compiled)
            if content is None:
                return
            name = self._name(types, context_of(compiled))
        except Exception as error:
            warn_once(f"compiled kernels cannot be kept: each start compiles them ({type(error).__name__}: {error})")
            return
        for folder in _folders():
            with contextlib.suppress(Exception):      # read-only, full, gone
                return _write(folder / name, content)

    def enable(self) -> None:
        """Of Numba's protocol; there is nothing to do."""

    disable = flush = enable

    def _name(self, types: Any, context: Any) -> str:
        """The kernel's name, and a hash of what its machine code depends on besides the sources of all kernels."""
        settings = sorted(f"{name}={value}" for name, value in os.environ.items()
                          if name.startswith("NUMBA_") and name not in ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"))
        key = (self._variant, self._kernel.__module__, self._kernel.__code__.co_code, types,
               traits(context), numba.__version__, np.__version__, sys.version, settings)
        return f"{self._kernel.__name__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}"


def _folders() -> list[Path]:
    """Where machine code may be kept, best first: each is tried in turn, and none needs to exist or be writable.

    NUMBA_CACHE_DIR alone, where it is set; else beside this file, then the user's cache.  A relative XDG_CACHE_HOME is
    ignored, as its specification demands, and a home folder that does not exist is not made.
    """
    home, cache = os.path.expanduser("~"), os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.join(home, ".cache") if os.path.isabs(home) and os.path.isdir(home) else ""
    ours = [Path(__file__).parent / "__pycache__", *([Path(cache, "npvae")] if cache else [])]
    chosen = getattr(numba.config, "CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR"))
    bases = [Path(chosen)] if chosen else ours
    return [base / f"numba-{_SOURCES}" for base in bases] if _SOURCES else []


def _sources() -> str:
    """A hash of the sources of all kernels, "" where none can be read.

    A kernel is compiled anew when a helper in `elementary.py` changes, or a constant that it takes from the reference.
    """
    try:
        kernels = importlib.resources.files(__package__.rpartition(".")[0])      # a folder, or a place in a zip file
        files = [file for chapter in (kernels, kernels / "reference", kernels / "fused")
                 for file in sorted(chapter.iterdir(), key=str) if file.name.endswith((".py", ".pyc"))]
        text = b"".join(file.name.encode() + file.read_bytes() for file in files)
        return hashlib.sha256(text).hexdigest()[:16] if text else ""
    except Exception:
        return ""


_SOURCES = _sources()      # as they are at the import, since that is what will be compiled


def _seal(file: Path, content: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + content).digest()


def _demand_ours(status: os.stat_result) -> None:
    """Refuse a file that somebody else could have written: to load a pickle is to run it."""
    if os.name == "posix" and (status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022):
        raise PermissionError("others can write this file")


def _read(file: Path) -> bytes:
    with open(file, "rb") as opened:
        _demand_ours(os.fstat(opened.fileno()))
        seal, content = opened.read(32), opened.read()
    if seal != _seal(file, content):
        raise ValueError("damaged, or of another name")
    return content


def _write(file: Path, content: bytes) -> None:
    """Put the file there whole, or leave no trace."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with open(handle, "wb") as opened:
            opened.write(_seal(file, content) + content)
        os.chmod(temporary, 0o644)      # others may read what root has compiled for all
        _demand_ours(os.stat(temporary))      # some file systems let everybody write
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _Fork:
    """A fork waits until no other thread compiles: the child would find the locks taken, for good, by a thread that it
    has not."""

    def __init__(self) -> None:
        self._locks = compiler_locks()

    def before(self) -> None:
        for lock in self._locks:
            lock.acquire()

    def after(self) -> None:
        for lock in reversed(self._locks):
            lock.release()


if hasattr(os, "register_at_fork"):
    _fork = _Fork()
    os.register_at_fork(before=_fork.before, after_in_parent=_fork.after, after_in_child=_fork.after)
