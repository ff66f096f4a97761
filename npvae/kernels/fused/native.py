"""Calls without the interpreter: a list of machine-code calls, and a second thread that waits for one.

Between two kernels Python spends a microsecond or two, and only one thread at a time can run Python.  With two threads
on half a batch each, waiting for Python costs more than the second core brings.  So the calls of a pass are noted once
(`engine/recording.py`) and replayed from a table, in one compiled function that holds no interpreter lock.

A *call* is one row of the table: an address, then WORDS integers, DOUBLES floating-point numbers, and room for what
the function returns.  The calling conventions of Linux and macOS put the two kinds of arguments into separate
registers, the rest on the stack, and leave it to the caller to clean up; so a function may be called with more
arguments than it takes, and one type of call serves all.  (Windows mixes the two kinds: there nothing is replayed.)

While a table is replayed, subnormal numbers (in float32 those below 1e-38) count as zero.  Processors of Intel's take
some hundred times as long for a product of such numbers, and the weights of IWAE with K = 50 are full of them: there a
step took 55 ms, and takes 8.
"""
import numpy as np

from .compile import jit
from .numba_private import instructions

WORDS, DOUBLES = 112, 8
STATUS = 1 + WORDS + DOUBLES
ROW = STATUS + 2      # of the table, in units of eight bytes

#: One mailbox per worker thread, each word in a cache line of its own: the number of the newest order and of the last
#: one done; what to replay; and whether the worker sleeps.
LINE = 8
POSTED, TABLE, CALLS, DONE, ASLEEP = (LINE * i for i in range(5))
MAILBOX = 5 * LINE

LOOKS = 2_000_000      # of a thread that waits for another, some 0.5 ms; after that it leaves the core to others
NAP = 50      # microseconds

_SMALL_IS_ZERO = np.int32(0x8040)      # two bits of the control word: of results, of operands

_call, _load, _store, _control, _set_control, _usleep = instructions(WORDS, DOUBLES)


@jit
def replay(table, calls):
    """Make so many calls, one after the other; table is an address."""
    before = _control()
    _set_control(before | _SMALL_IS_ZERO)
    for i in range(calls):
        _call(table + 8 * ROW * i)
    _set_control(before)


@jit
def meet(counters, me, threads, looks):
    """A call in the tables of several threads: none goes on before all have come here."""
    turn = _load(counters + 8 * LINE * me) + 1
    _store(counters + 8 * LINE * me, turn)
    for i in range(threads):
        left = looks
        while _load(counters + 8 * LINE * i) < turn:
            left -= 1
            if left < 0:
                _usleep(np.uint32(NAP))


@jit
def lead(boxes, orders, looks, post):
    """Post an order (address, calls) to every worker, replay one's own, the last, and wait until all are done.

    False, with nothing but the posting done, if a worker sleeps: wake it, then call again with post = 0.
    """
    workers, awake = orders.shape[0] - 1, True
    for i in range(workers if post else 0):
        box = boxes + 8 * MAILBOX * i
        _store(box + 8 * TABLE, orders[i, 0])
        _store(box + 8 * CALLS, orders[i, 1])
        _store(box + 8 * POSTED, _load(box + 8 * POSTED) + 1)
        awake = awake and _load(box + 8 * ASLEEP) == 0
    if awake:
        replay(orders[workers, 0], orders[workers, 1])
        for i in range(workers):
            box, left = boxes + 8 * MAILBOX * i, looks
            while _load(box + 8 * DONE) != _load(box + 8 * POSTED):
                left -= 1
                if left < 0:
                    _usleep(np.uint32(NAP))
    return awake


@jit
def serve(box, looks):
    """A worker: replay whatever is posted.  After so many looks in vain it announces that it falls asleep, looks once
    more, since an order may have come in between, and returns."""
    idle = 0
    _store(box + 8 * ASLEEP, 0)
    while idle <= looks:
        order = _load(box + 8 * POSTED)
        if order == _load(box + 8 * DONE):
            idle += 1
            if idle == looks:
                _store(box + 8 * ASLEEP, 1)
        else:
            _store(box + 8 * ASLEEP, 0)
            replay(_load(box + 8 * TABLE), _load(box + 8 * CALLS))
            _store(box + 8 * DONE, order)
            idle = 0
