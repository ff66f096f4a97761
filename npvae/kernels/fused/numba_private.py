"""Every name of Numba and llvmlite that their documentation does not promise.  No other file uses one.

    known_options                                    compiler options, which only save time
    attach_cache, dump, load, context_of, traits     compiled kernels on disk (`compile.py`)
    compiler_locks                                   held by whoever compiles
    code_address, argument_words                     a compiled kernel called by its address (`engine/recording.py`)
    layout_is_known                                  are the last two right for this version?

A release of Numba may rename or change any of them.  Nothing breaks then: without the first three groups kernels are
compiled anew in each process, without the rest they are called one by one, and without Numba the NumPy kernels take
over (`tests/engine/test_trial.py` takes each name away in turn).
"""
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    import numba
    from numba import types
    from numba.core import cpu
except Exception as error:      # beside ImportError: OSError of a broken llvmlite, AttributeError of a foreign NumPy
    raise ImportError(f"import numba: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


# ---- Compiling, and compiled kernels on disk

def known_options(*names: str) -> dict[str, bool]:
    """Those of these options that this Numba has: it refuses others."""
    options = getattr(cpu, "CPUTargetOptions", None)
    return {name: True for name in names if hasattr(options, name)}


def attach_cache(compiled: Any, cache: Any) -> None:
    """Let a kernel ask `cache` before it compiles itself, and tell it afterwards, as Numba's own cache is asked."""
    compiled._cache = cache


def dump(compiled: Any) -> bytes | None:
    """A compiled kernel as bytes; None for one that no other process could use."""
    from numba.core import serialize
    return None if compiled.library.has_dynamic_globals else serialize.dumps(compiled._reduce())


def load(context: Any, content: bytes) -> Any:
    """The compiled kernel in the bytes that `dump` has made."""
    from numba.core import compiler, runtime
    runtime.rtsys.initialize(context)      # all that loading needs; what compiling needs takes 0.2 s more
    return compiler.CompileResult._rebuild(context, *pickle.loads(content))


def context_of(compiled: Any) -> Any:
    """What Numba has compiled it for; `load` and `traits` take it."""
    return compiled.target_context


def traits(context: Any) -> tuple[object, ...]:
    """What machine code depends on: the processor, and whether Intel's vector mathematics library is there."""
    return (*context.codegen().magic_tuple(), numba.config.USING_SVML)


def compiler_locks() -> list[Any]:
    """Numba's and llvmlite's, in the order in which they are taken; those that still have these names."""
    found = []
    try:
        from numba.core.compiler_lock import global_compiler_lock
        found.append(global_compiler_lock._lock)
    except Exception:
        pass
    try:
        from llvmlite.binding import ffi
        found.append(ffi.lib._lock._lock)
    except Exception:
        pass
    return found


# ---- A compiled kernel called by its address

def code_address(kernel: Any, arguments: Sequence[Any]) -> int:
    """Where the machine code for arguments of these types begins.  Compiles it if need be."""
    signature = tuple(map(numba.typeof, arguments))
    if signature not in kernel.native.overloads:
        kernel.native.compile(signature)
    compiled = kernel.native.overloads[signature]
    address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return address


def argument_words(value: Any) -> list[int]:
    """The integers that machine code takes for an argument: five and the shape and strides for an array, one for an
    integer, none for a float, which is passed separately.  The two zeros are owners of the memory; there are none."""
    if isinstance(value, np.ndarray):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return [value] if isinstance(value, int) else []


def layout_is_known(kernel: Any, dtype: str) -> bool:
    """Does this Numba lay out arrays as `argument_words` does, and call kernels as `native.py` does: two pointers for
    result and error, the arguments, and a 32-bit status returned?  Only looks; nothing is called."""
    from numba.core import datamodel
    array, number, word = types.Array(numba.typeof(np.dtype(dtype)).dtype, 2, "C"), numba.float64, numba.int64
    fields = datamodel.default_manager.lookup(array)._fields
    called = kernel.native.targetctx.call_conv.get_function_type(numba.none, (array, number, word))
    kinds = "".join("p" if kind.is_pointer else {"i64": "w", "double": "d"}.get(str(kind), "?") for kind in called.args)
    return (tuple(fields) == ("meminfo", "parent", "nitems", "itemsize", "data", "shape", "strides")
            and kinds == "pp" + "ppwwpwwww" + "dw" and str(called.return_type) == "i32")
