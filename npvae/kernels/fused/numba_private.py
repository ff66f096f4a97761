"""Every name of Numba and llvmlite that their documentation does not promise stands in this file.  Not part of the
lesson; `engine/README.md` says what each is for.

    known_options         compiler options, which only save time
    attach, loaded, kept, traits      machine code on disk
    compiler_locks        held by whoever compiles
    address, words        a compiled kernel called by its address, and its arguments
    layout_is_known       whether the two still are as `address` and `words` assume
    instructions          what compiled code does that Numba has no name for

A release of Numba may rename or change any of them.  Nothing breaks then: without the first five kernels are compiled
anew in each process, without the rest they are called one by one, and without Numba the NumPy kernels take over
(`tests/engine/test_trial.py` takes each name away in turn).
"""
import pickle
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

try:
    import numba
    from numba import types
    from numba.core import cpu
except Exception as error:      # beside ImportError: OSError of a broken llvmlite, AttributeError of a foreign NumPy
    raise ImportError(f"import numba: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error


# ---- Compiling

def known_options(*names: str) -> dict[str, bool]:
    """Of these options, those that this Numba has: it refuses others."""
    options = getattr(cpu, "CPUTargetOptions", None)
    return {name: True for name in names if hasattr(options, name)}


def attach(compiled: Any, cache: Any) -> None:
    """Let a kernel ask `cache` before it compiles itself, and tell it afterwards; that is where `cache=True` puts
    Numba's own."""
    compiled._cache = cache


def loaded(context: Any, content: bytes) -> Any:
    """The compiled kernel in these bytes, which `kept` has made."""
    from numba.core import compiler, runtime
    runtime.rtsys.initialize(context)      # all that loading needs; compiling needs 0.2 s more
    return compiler.CompileResult._rebuild(context, *pickle.loads(content))


def kept(compiled: Any) -> bytes | None:
    """A compiled kernel as bytes; None for one that no other process could use."""
    from numba.core import serialize
    return None if compiled.library.has_dynamic_globals else serialize.dumps(compiled._reduce())


def context_of(compiled: Any) -> Any:
    """Of a compiled kernel, what Numba hands on as the context."""
    return compiled.target_context


def traits(context: Any) -> tuple[object, ...]:
    """What machine code depends on: the processor, and whether Intel's vector mathematics is there."""
    return (*context.codegen().magic_tuple(), numba.config.USING_SVML)


def compiler_locks() -> list[Any]:
    """Of Numba and llvmlite, in the order in which they are taken; those that still have these names."""
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


# ---- A compiled kernel, called by its address

def address(kernel: Any, arguments: Sequence[Any]) -> int:
    """Where the machine code for arguments of these types begins; compiled if need be."""
    signature = tuple(map(numba.typeof, arguments))
    if signature not in kernel.native.overloads:
        kernel.native.compile(signature)
    compiled = kernel.native.overloads[signature]
    place: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return place


def words(value: Any) -> list[int]:
    """An argument as the integers that machine code takes for it: seven or more for an array, none for a float."""
    if isinstance(value, np.ndarray):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    return [value] if isinstance(value, int) else []


def layout_is_known(kernel: Any, dtype: str) -> bool:
    """Are arrays laid out, and is a kernel called, as `words` and `address` assume?  Nothing is called."""
    from numba.core import datamodel
    array, number, word = types.Array(numba.typeof(np.dtype(dtype)).dtype, 2, "C"), numba.float64, numba.int64
    fields = datamodel.default_manager.lookup(array)._fields
    called = kernel.native.targetctx.call_conv.get_function_type(numba.none, (array, number, word))
    kinds = "".join("p" if kind.is_pointer else {"i64": "w", "double": "d"}.get(str(kind), "?") for kind in called.args)
    return (tuple(fields) == ("meminfo", "parent", "nitems", "itemsize", "data", "shape", "strides")
            and kinds == "pp" + "ppwwpwwww" + "dw" and str(called.return_type) == "i32")


# ---- In compiled code

def instructions(n_words: int, n_doubles: int) -> tuple[Any, ...]:
    """What compiled functions call: `call`, `load`, `store`, `control`, `set_control`, `usleep`.

    `call` takes the address of a row: a function's address, so many integers, so many floating-point numbers.
    """
    from llvmlite import ir
    from numba.core import cgutils
    from numba.extending import intrinsic
    i32, i64, double = ir.IntType(32), ir.IntType(64), ir.DoubleType()
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")

    def control_instruction(builder: Any, name: str, word: Any) -> None:
        byte = ir.IntType(8).as_pointer()
        function = builder.module.declare_intrinsic(f"llvm.x86.sse.{name}", (), ir.FunctionType(ir.VoidType(), [byte]))
        builder.call(function, [builder.bitcast(word, byte)])

    @intrinsic
    def call(typing, row):
        """Call the function of a row, given by its address."""
        def generate(context, builder, signature, arguments):
            def entry(index: int, kind: Any) -> Any:
                place = builder.add(arguments[0], ir.Constant(i64, 8 * index))
                return builder.load(builder.inttoptr(place, kind.as_pointer()))
            kind = ir.FunctionType(i32, [i64] * n_words + [double] * n_doubles)
            function = builder.inttoptr(entry(0, i64), kind.as_pointer())
            builder.call(function, [entry(1 + i, i64) for i in range(n_words)]
                         + [entry(1 + n_words + i, double) for i in range(n_doubles)])
            return context.get_dummy_value()
        return types.void(types.int64), generate

    @intrinsic
    def load(typing, address):
        """A word that another thread may be writing."""
        def generate(context, builder, signature, arguments):
            return builder.load_atomic(builder.inttoptr(arguments[0], i64.as_pointer()), "seq_cst", 8)
        return types.int64(types.int64), generate

    @intrinsic
    def store(typing, address, value):
        """Write a word that another thread may be reading; whatever was written before is visible to it by then."""
        def generate(context, builder, signature, arguments):
            builder.store_atomic(arguments[1], builder.inttoptr(arguments[0], i64.as_pointer()), "seq_cst", 8)
            return context.get_dummy_value()
        return types.void(types.int64, types.int64), generate

    @intrinsic
    def control(typing):
        """The control word of this thread's arithmetic; 0 where it is not looked at."""
        def generate(context, builder, signature, arguments):
            word = cgutils.alloca_once_value(builder, ir.Constant(i32, 0))
            if is_x86:
                control_instruction(builder, "stmxcsr", word)
            return builder.load(word)
        return types.int32(), generate

    @intrinsic
    def set_control(typing, value):
        """Set it; nothing where it is not looked at."""
        def generate(context, builder, signature, arguments):
            if is_x86:
                word = cgutils.alloca_once_value(builder, arguments[0])
                control_instruction(builder, "ldmxcsr", word)
            return context.get_dummy_value()
        return types.void(types.int32), generate

    return call, load, store, control, set_control, types.ExternalFunction("usleep", types.int32(types.uint32))
