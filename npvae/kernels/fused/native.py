"""Replaying: calls of compiled kernels from a table, without Python between them, by one thread or several.

Python needs a microsecond or two between two kernels, and only one thread at a time can run Python.  With two threads,
each with half of a batch, waiting for Python costs more than the second core brings.  So the calls of a pass are
recorded once (`engine/recording.py`) into a table, and replayed from there by one compiled function that has released
the interpreter lock.

A row of the table is one call: the address of a function, WORDS integers, DOUBLES floating-point numbers, and room for
what the function returns.  Every call passes all of them.  On Linux and macOS that is allowed: integers and
floating-point numbers go into separate registers, the rest on the stack, the caller removes them, and a function
ignores what it does not take.  So one type of call serves all functions.  (Windows puts both kinds into the same
registers: there nothing is replayed.)

While a table is replayed, subnormal numbers (in float32 those below 1e-38) count as zero.  Intel's processors take some
hundred times as long for a product of such numbers, and the weights of IWAE with K = 50 are full of them: a step took
55 ms, and takes 8.

Threads share memory as arrays of 64-bit integers, read and written by atomic instructions.
"""
import numpy as np

from .compile import jit
from .instructions import DOUBLES, WORDS, call, control, load, set_control, store, usleep

STATUS = 1 + WORDS + DOUBLES      # where the result stands in a row
ROW = STATUS + 2      # length of a row.  This and all lengths below: in integers of eight bytes

CACHE_LINE = 8      # what different threads write stands in different cache lines
#: A worker's mailbox: the number of the newest program posted and of the last one done; the table and its number of
#: calls; whether the worker sleeps.
POSTED, TABLE, CALLS, DONE, ASLEEP = (CACHE_LINE * i for i in range(5))
MAILBOX = 5 * CACHE_LINE

SPINS = 2_000_000      # how often a waiting thread looks, for some 0.5 ms, before it leaves the core to others
NAP = 50      # microseconds, between two looks after that

_SUBNORMAL_IS_ZERO = np.int32(0x8040)      # two bits of the control word: for results, for operands


@jit
def replay(table, calls):
    """Make so many calls, one after the other.  table is an address."""
    before = control()
    set_control(before | _SUBNORMAL_IS_ZERO)
    for i in range(calls):
        call(table + 8 * ROW * i)
    set_control(before)


@jit
def barrier(counters, me, threads, spins):
    """Wait until all threads have come here.  Stands in their tables as a call.  Each thread counts its barriers in
    counters, and waits until no other thread has counted fewer."""
    count = load(counters + 8 * CACHE_LINE * me) + 1
    store(counters + 8 * CACHE_LINE * me, count)
    for i in range(threads):
        left = spins
        while load(counters + 8 * CACHE_LINE * i) < count:
            left -= 1
            if left < 0:
                usleep(np.uint32(NAP))


@jit
def lead(mailboxes, programs, spins, post):
    """For the calling thread: post a program (table, calls) to every worker, replay its own, the last one, and wait
    until all are done.

    Returns False, with nothing done but the posting, if a worker sleeps: wake it, then call again with post = 0.
    """
    workers, awake = programs.shape[0] - 1, True
    for i in range(workers if post else 0):
        box = mailboxes + 8 * MAILBOX * i
        store(box + 8 * TABLE, programs[i, 0])
        store(box + 8 * CALLS, programs[i, 1])
        store(box + 8 * POSTED, load(box + 8 * POSTED) + 1)
        awake = awake and load(box + 8 * ASLEEP) == 0
    if awake:
        replay(programs[workers, 0], programs[workers, 1])
        for i in range(workers):
            box, left = mailboxes + 8 * MAILBOX * i, spins
            while load(box + 8 * DONE) != load(box + 8 * POSTED):
                left -= 1
                if left < 0:
                    usleep(np.uint32(NAP))
    return awake


@jit
def serve(box, spins):
    """For a worker: replay every program that is posted into its mailbox.

    After so many looks in vain it says in the mailbox that it is going to sleep, looks once more, since a program may
    have been posted in between, and returns.
    """
    idle = 0
    store(box + 8 * ASLEEP, 0)
    while idle <= spins:
        posted = load(box + 8 * POSTED)
        if posted == load(box + 8 * DONE):
            idle += 1
            if idle == spins:
                store(box + 8 * ASLEEP, 1)
        else:
            store(box + 8 * ASLEEP, 0)
            replay(load(box + 8 * TABLE), load(box + 8 * CALLS))
            store(box + 8 * DONE, posted)
            idle = 0


LINE, LOOKS, meet = CACHE_LINE, SPINS, barrier      # by their former names
