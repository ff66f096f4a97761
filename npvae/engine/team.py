"""Threads that replay programs at the same time, without waiting for the interpreter.

    ParallelProgram     a program for each thread, with barriers between phases
    Team                the calling thread, which leads, and its workers

A worker looks into its mailbox for some 0.5 ms after each program, so that in training it is there when the next one
comes.  Then it sleeps, until the leader wakes it.

Where other programs want the cores as well, threads that wait for each other are slower than one thread (on two cores,
one of them busy, a step of 784-200-200-50 at batch 20 took 12 ms, and 1.1 ms with one thread).  So a parallel program
is run by one thread now and then, and from then on in whichever way was faster: 1.2 ms.  The results are the same bits.
"""
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels.fused.native import ASLEEP, CACHE_LINE, DONE, MAILBOX, POSTED, SPINS, barrier, lead, serve
from ..kernels.reference.arrays import matmul
from .recording import Call, Program

#: Wakes a worker: True, there is work; False, end.  A SimpleQueue, as the garbage collector may put something into it.
Wake = queue.SimpleQueue[bool]

_MIN_WORK = 40_000      # multiplications of a product, or numbers in an array, that are worth a second thread
_RETRY_EVERY = 100      # after so many runs the slower way is tried again
_NEW = 0.25      # the weight of the newest run in the mean time of a way


class ParallelProgram:
    """What the threads of a team do at the same time: `programs`, one for each thread, the leader's last.

    It is made of phases, phase -> task -> calls.  The tasks of a phase are distributed among the threads.  A phase
    begins when all tasks of the one before have ended.  `sequential` is all of it for one thread.
    """

    def __init__(self, phases: Sequence[Sequence[Sequence[Call]]], threads: int) -> None:
        phases = [tasks for tasks in phases if any(tasks)]
        if not any(_is_worth_a_thread(call) for tasks in phases for calls in tasks for call in calls):
            threads = 1
        self._counters = np.zeros((threads, CACHE_LINE), np.int64)      # of the barriers each thread has come to
        self.programs = []
        for thread in reversed(range(threads)):
            wait = [(barrier, (self._counters.ctypes.data, thread, threads, SPINS))] * (threads > 1)
            calls: list[Call] = []
            for phase, tasks in enumerate(phases):
                calls += wait * (phase > 0) + [call for task in tasks[thread::threads] for call in task]
            self.programs.append(Program(calls))
        self.rows = np.array([(program.table.ctypes.data, len(program.table)) for program in self.programs])
        self.sequential = (self.programs[0] if threads == 1 else
                           Program([call for tasks in phases for task in tasks for call in task]))
        self._runs, self._seconds = 0, {True: math.inf, False: math.inf}      # by one thread, by all

    def set_scalars(self, scalars: Sequence[float]) -> None:
        """Give every call these floating-point arguments."""
        for program in (*self.programs, self.sequential):
            program.scalars[:, :len(scalars)] = scalars

    def is_for_one(self) -> bool:
        """Shall one thread do the next run?"""
        if len(self.programs) == 1:
            return True
        self._runs += 1
        faster = self._seconds[True] < self._seconds[False]
        return faster if self._runs % _RETRY_EVERY else not faster

    def note_time(self, seconds: float, one: bool) -> None:
        """How long a run by one thread, or by all, took.  A long one counts as twice the mean, since it may be an
        accident; a clock that has not moved, or has gone back, says nothing."""
        mean = self._seconds[one]
        if seconds > 0:
            self._seconds[one] = seconds if mean == math.inf else (1 - _NEW) * mean + _NEW * min(seconds, 2 * mean)


def _is_worth_a_thread(call: Call) -> bool:
    kernel, arguments = call
    if kernel is matmul:
        out, a, _ = arguments
        return bool(out.size * a.shape[1] >= _MIN_WORK)
    return bool(arguments[0].size >= _MIN_WORK)


class Team:
    """The calling thread and threads - 1 workers, which end when the team is deleted.  Where they cannot be started,
    the calling thread does everything."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._started_in = 0      # the process that has the workers: a fork of it has none
        self._failed_in = 0      # the process in which they could not be started
        self._unfinished: ParallelProgram | None = None

    def run(self, program: ParallelProgram) -> None:
        """Returns when all of it is done."""
        if self._unfinished is not None and self._started_in == os.getpid():      # an exception came in between
            self._finish(self._unfinished)
        one, began = program.is_for_one() or not self._has_workers(), time.perf_counter()
        if one:
            program.sequential.run()
        else:
            self._run_in_parallel(program)
        program.note_time(time.perf_counter() - began, one)

    def _has_workers(self) -> bool:
        """Are there workers in this process?  They are started when they are first needed."""
        if self._started_in != os.getpid() != self._failed_in:
            try:
                self._start_workers()
            except (RuntimeError, MemoryError):      # the system's limit of threads, or no memory for their stacks
                self._failed_in = os.getpid()
        return self._started_in == os.getpid()

    def _run_in_parallel(self, program: ParallelProgram) -> None:
        self._unfinished = program
        try:
            if not lead(self._address, program.rows, SPINS, 1):
                self._wake_workers()
                lead(self._address, program.rows, SPINS, 0)
        except BaseException:      # Ctrl-C: no worker may be left waiting at a barrier
            self._finish(program)
            raise
        self._unfinished = None

    def _finish(self, program: ParallelProgram) -> None:
        if (self.mailboxes[:, DONE] != self.mailboxes[:, POSTED]).any():
            self._wake_workers()
            lead(self._address, program.rows, SPINS, 0)

    def _wake_workers(self) -> None:
        for mailbox, wake in zip(self.mailboxes, self._wakes):
            if mailbox[ASLEEP]:
                wake.put(True)

    def _start_workers(self) -> None:
        self._unfinished = None
        # new ones: workers of an attempt that failed may still use theirs
        self.mailboxes = np.zeros((self.threads - 1, MAILBOX), np.int64)
        self._address = self.mailboxes.ctypes.data
        self._wakes: list[Wake] = [Wake() for _ in self.mailboxes]
        try:
            for mailbox, wake in zip(self.mailboxes, self._wakes):
                threading.Thread(target=_work, args=(mailbox.ctypes.data, self.mailboxes, wake), daemon=True).start()
            weakref.finalize(self, _end_workers, self._wakes)
            self._started_in = os.getpid()
        except BaseException:
            self._started_in = 0
            _end_workers(self._wakes)
            raise


def _work(mailbox: int, memory: Any, wake: Wake) -> None:
    """What a worker does; it holds `memory`, so that its mailbox outlives the team."""
    goes_on = True
    while goes_on:
        serve(mailbox, SPINS)
        goes_on = wake.get()


def _end_workers(wakes: Sequence[Wake]) -> None:
    for wake in wakes:
        wake.put(False)
