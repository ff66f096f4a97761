"""How the fused kernels are compiled, and where the machine code is kept on disk.

Two decorators; no other file sets options of the compiler:

    jit         a kernel: kept on disk; the compiler may reorder its sums, so that a row of 784 is summed with SIMD
    inlined     a scalar function used inside kernels: never reordered, since its last digits depend on the order

`error_model="numpy"` matters: in Python's model every division is tested for zero, and the test prevents vectorisation.
`fastmath=True` is not used: beyond the four flags below it gains nothing and deletes the handling of NaN and infinity.

On disk, a kernel has one file for each combination of argument types.  The file's name contains a hash of all that the
machine code depends on; the file begins with a hash of its name and content.  So it is the right file and complete, or
it is not used; and processes that start together write the same file.  If reading or writing fails, the kernel is
compiled in memory, and the caller does not notice.

Numba's own cache is not used.  It numbers its files and lists them in an index: a damaged file raises an error in the
caller (numba #10434), and two processes that fill it at once can leave an index that leads to code for other types.
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

# first, as its ImportError says what is wrong with Numba
from .numba_private import attach_cache, compiler_locks, context_of, dump, known_options, load, traits
import numba

if getattr(numba.config, "DISABLE_JIT", 0):      # exp and log1p (`elementary.py`) exist as compiled code only
    raise ImportError("NUMBA_DISABLE_JIT is set")

_REORDER = {"reassoc", "contract", "nsz", "arcp"}
STRICT = {"error_model": "numpy", "fastmath": {"contract"}}


def jit(kernel: Callable[..., None]) -> Any:
    """Compile a kernel at its first call with arguments of given types.  It runs without the interpreter lock.

    `kernel.native` is the same for replaying.  It has no part that Python calls, which would take a quarter of the time
    to compile.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": _REORDER, **known_options("no_cfunc_wrapper")}
    compiled = numba.njit(kernel, **options)
    native = numba.njit(kernel, **known_options("no_cpython_wrapper"), **options)
    attach_cache(compiled, _DiskCache(kernel))
    attach_cache(native, _DiskCache(kernel, "native"))
    compiled.native = native
    return compiled


def is_cold() -> bool:
    """Is there no machine code of these sources on disk yet, though it could be kept?"""
    def can_be_made(folder: Path) -> bool:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return os.access(folder, os.W_OK)
    folders = _folders()
    return not any(folder.is_dir() and any(folder.iterdir()) for folder in folders) and any(map(can_be_made, folders))


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a scalar function for use inside kernels.  A product and a sum may be fused; their order stays.

    Inlining is forced: LLVM would leave a long function as a call, which prevents vectorisation.
    """
    return numba.njit(function, **known_options("no_cfunc_wrapper", "no_cpython_wrapper", "forceinline"), **STRICT)


_warned: list[str] = []


def warn_once(text: str) -> None:
    """Warn about the first thing that is missing in this Numba, and not about others."""
    if not _warned:
        _warned.append(text)
        warnings.warn(f"numba {numba.__version__} is not as npvae knows it; {text}", RuntimeWarning, stacklevel=2)


class _DiskCache:
    """Numba asks it for a kernel before it compiles one, and gives it the compiled kernel afterwards.  A kernel that
    cannot be loaded is compiled; one that cannot be kept is compiled again in the next process."""

    cache_path = None

    def __init__(self, kernel: Callable[..., None], variant: str = "") -> None:
        self._kernel, self._variant = kernel, variant

    def load_overload(self, types: Any, context: Any = None, *more: Any) -> Any:
        """The compiled kernel for arguments of these types; None makes Numba compile it."""
        for folder in _folders():
            with contextlib.suppress(Exception):      # whatever a missing, damaged or foreign file may raise
                return load(context, _read(folder / self._name(types, context)))
        return None

    def save_overload(self, types: Any, compiled: Any = None, *more: Any) -> None:
        """Write it into the first folder where that is possible."""
        try:
            content = dump(compiled)
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
        """Numba calls these too; there is nothing to do."""

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

    Of all: a kernel depends on functions in `elementary.py`, and on constants of the reference.
    """
    try:
        kernels = importlib.resources.files(__package__.rpartition(".")[0])      # a folder, or a place in a zip file
        files = [file for folder in (kernels, kernels / "reference", kernels / "fused")
                 for file in sorted(folder.iterdir(), key=str) if file.name.endswith((".py", ".pyc"))]
        text = b"".join(file.name.encode() + file.read_bytes() for file in files)
        return hashlib.sha256(text).hexdigest()[:16] if text else ""
    except Exception:
        return ""


_SOURCES = _sources()      # as they are now: that is what will be compiled, whatever is edited later


def _checksum(file: Path, content: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + content).digest()


def _demand_ours(status: os.stat_result) -> None:
    """Refuse a file that somebody else could have written: loading a pickle can run any code."""
    if os.name == "posix" and (status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022):
        raise PermissionError("others can write this file")


def _read(file: Path) -> bytes:
    with open(file, "rb") as opened:
        _demand_ours(os.fstat(opened.fileno()))
        checksum, content = opened.read(32), opened.read()
    if checksum != _checksum(file, content):
        raise ValueError("damaged, or of another name")
    return content


def _write(file: Path, content: bytes) -> None:
    """Write the complete file, or none."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with open(handle, "wb") as opened:
            opened.write(_checksum(file, content) + content)
        os.chmod(temporary, 0o644)      # others may read what root has compiled for all
        _demand_ours(os.stat(temporary))      # some file systems let everybody write
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _Fork:
    """A fork waits until no other thread compiles.  Else the child would find the compiler's locks held by a thread
    that does not exist there, for ever."""

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
