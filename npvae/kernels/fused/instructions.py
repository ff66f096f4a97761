"""What `native.py` needs and Numba has no name for, as functions for compiled code.  Addresses are int64.

    call(row)                                call the function of a row of the table, with its arguments
    load(address), store(address, word)      one word that another thread writes or reads
    control(), set_control(word)             how this thread's arithmetic treats subnormal numbers; only x86 has it
    usleep(microseconds)                     of the C library

Each is made of instructions of LLVM, by `numba.extending.intrinsic` and `llvmlite.ir`, as their documentation says.
"""
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WORDS, DOUBLES = 112, 8      # arguments of every call

_I8, _I32, _I64, _DOUBLE = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.DoubleType()
_FUNCTION = ir.FunctionType(_I32, [_I64] * WORDS + [_DOUBLE] * DOUBLES)
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


@intrinsic
def call(typing, row):
    """Call the function whose address comes first in the row, with the WORDS + DOUBLES arguments behind it."""
    def generate(context, builder, signature, arguments):
        def entry(index: int, kind: Any) -> Any:
            place = builder.add(arguments[0], ir.Constant(_I64, 8 * index))
            return builder.load(builder.inttoptr(place, kind.as_pointer()))
        return builder.call(builder.inttoptr(entry(0, _I64), _FUNCTION.as_pointer()),
                            [entry(1 + i, kind) for i, kind in enumerate(_FUNCTION.args)])
    return types.int32(types.int64), generate


@intrinsic
def load(typing, address):
    """A word that another thread may be writing."""
    def generate(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)
    return types.int64(types.int64), generate


@intrinsic
def store(typing, address, word):
    """Write a word that another thread may be reading.  Who reads it sees all that this thread has written before."""
    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)
        return arguments[1]
    return types.int64(types.int64, types.int64), generate


@intrinsic
def control(typing):
    """The control word of this thread's floating-point arithmetic."""
    def generate(context, builder, signature, arguments):
        return _with_control_word(builder, "stmxcsr", ir.Constant(_I32, 0))
    return types.int32(), generate


@intrinsic
def set_control(typing, word):
    """Set it."""
    def generate(context, builder, signature, arguments):
        return _with_control_word(builder, "ldmxcsr", arguments[0])
    return types.int32(types.int32), generate


def _with_control_word(builder: Any, instruction: str, word: Any) -> Any:
    """Place the word in memory, have the instruction read or write it there, and give back what it is then."""
    if not _IS_X86:
        return word
    with builder.goto_entry_block():      # once, also where this stands in a loop
        place = builder.alloca(_I32)
    builder.store(word, place)
    function = builder.module.declare_intrinsic(
        f"llvm.x86.sse.{instruction}", (), ir.FunctionType(ir.VoidType(), [_I8.as_pointer()]))
    builder.call(function, [builder.bitcast(place, _I8.as_pointer())])
    return builder.load(place)


@intrinsic
def usleep(typing, microseconds):
    """Leave the core to other threads for so long, at least."""
    def generate(context, builder, signature, arguments):
        try:
            function = builder.module.get_global("usleep")
        except KeyError:
            function = ir.Function(builder.module, ir.FunctionType(_I32, [_I32]), "usleep")
        return builder.call(function, arguments)
    return types.int32(types.uint32), generate
