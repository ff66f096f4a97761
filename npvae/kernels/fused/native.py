"""Calls without the interpreter: a list of machine-code calls, and a second thread that waits for one.

Between two kernels Python spends a microsecond or two, and only one thread at a time can run Python.  With two threads
on half a batch each, waiting for Python costs more than the second core brings.  So the calls of a pass are noted once
(`recording.py`) and replayed from a table, in one compiled function that holds no interpreter lock.

A *call* is one row of the table: an address, then WORDS integers, then DOUBLES floating-point numbers.  The calling
conventions of Linux and macOS put the two kinds of arguments in separate registers, the rest on the stack, and leave it
to the caller to clean up; so a function may be called with more arguments than it takes, and one type of call serves
all.  (Windows mixes the two kinds: there nothing is replayed.)
"""
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compile import jit

WORDS, DOUBLES = 64, 8
ROW = 1 + WORDS + DOUBLES      # of the table, in units of eight bytes

#: One mailbox per worker thread, each word in a cache line of its own: the number of the newest order and of the last
#: one done; what to replay; and whether the worker sleeps.
LINE = 8
POSTED, TABLE, CALLS, DONE, ASLEEP = (LINE * i for i in range(5))
MAILBOX = 5 * LINE

LOOKS = 100_000      # of a thread that waits for another, some 0.1 ms; after that it leaves the core to others
NAP = 50      # microseconds

_I32, _I64, _DOUBLE = ir.IntType(32), ir.IntType(64), ir.DoubleType()


@intrinsic
def _call(typing, row):
    """Call the function of a row, given by its address."""
    def generate(context, builder, signature, arguments):
        def entry(index, kind):
            address = builder.add(arguments[0], ir.Constant(_I64, 8 * index))
            return builder.load(builder.inttoptr(address, kind.as_pointer()))
        kind = ir.FunctionType(_I32, [_I64] * WORDS + [_DOUBLE] * DOUBLES)
        function = builder.inttoptr(entry(0, _I64), kind.as_pointer())
        builder.call(function, [entry(1 + i, _I64) for i in range(WORDS)]
                     + [entry(1 + WORDS + i, _DOUBLE) for i in range(DOUBLES)])
        return context.get_dummy_value()
    return types.void(types.int64), generate


@intrinsic
def _load(typing, address):
    """A word that another thread may be writing."""
    def generate(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)
    return types.int64(types.int64), generate


@intrinsic
def _store(typing, address, value):
    """Write a word that another thread may be reading; whatever was written before is visible to it by then."""
    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()), "seq_cst", 8)
        return context.get_dummy_value()
    return types.void(types.int64, types.int64), generate


_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@jit
def replay(table, calls):
    """Make so many calls, one after the other; table is an address."""
    for i in range(calls):
        _call(table + 8 * ROW * i)


@jit
def wait(word, other, looks):
    """Until the two words are equal: look so many times, then give up the core now and then."""
    while _load(word) != _load(other):
        looks -= 1
        if looks < 0:
            _usleep(np.uint32(NAP))


@jit
def meet(counters, me, threads, looks):
    """A call in the tables of several threads: none goes on before all have come here."""
    mine = counters + 8 * LINE * me
    _store(mine, _load(mine) + 1)
    for i in range(threads):
        if i != me:
            theirs = counters + 8 * LINE * i
            left = looks
            while _load(theirs) < _load(mine):
                left -= 1
                if left < 0:
                    _usleep(np.uint32(NAP))


@jit
def lead(boxes, orders, looks):
    """Post an order (address, calls) to every worker; replay one's own, the last; wait.  False if a worker sleeps, and
    must be woken before `conclude`."""
    awake = True
    for i in range(orders.shape[0] - 1):
        box = boxes + 8 * MAILBOX * i
        _store(box + 8 * TABLE, orders[i, 0])
        _store(box + 8 * CALLS, orders[i, 1])
        _store(box + 8 * POSTED, _load(box + 8 * POSTED) + 1)
        awake = awake and _load(box + 8 * ASLEEP) == 0
    if awake:
        conclude(boxes, orders, looks)
    return awake


@jit
def conclude(boxes, orders, looks):
    """Replay one's own order, the last, and wait for the workers."""
    replay(orders[-1, 0], orders[-1, 1])
    for i in range(orders.shape[0] - 1):
        box = boxes + 8 * MAILBOX * i
        wait(box + 8 * DONE, box + 8 * POSTED, looks)


@jit
def serve(box, looks):
    """A worker: replay whatever is posted; return after so many looks in vain."""
    idle = 0
    while idle < looks:
        order = _load(box + 8 * POSTED)
        if order == _load(box + 8 * DONE):
            idle += 1
        else:
            replay(_load(box + 8 * TABLE), _load(box + 8 * CALLS))
            _store(box + 8 * DONE, order)
            idle = 0


@jit
def fall_asleep(box):
    """Announce it, then look once more, since an order may have come in between: may one sleep?"""
    _store(box + 8 * ASLEEP, 1)
    return _load(box + 8 * POSTED) == _load(box + 8 * DONE)


@jit
def wake_up(box):
    _store(box + 8 * ASLEEP, 0)
