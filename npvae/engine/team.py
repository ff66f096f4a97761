"""Threads that replay programs at the same time, without waiting for the interpreter or for each other.

A worker looks at its mailbox for some 0.5 ms after each order, so that in training it is there when the next one comes,
and then sleeps until the leader rings.

Where other programs want the cores as well, threads that wait for each other are slower than one by itself (on two
cores, one of them busy: 12 ms a step of 784-200-200-50 at batch 20, and 1.1 by itself).  So each order is done alone
now and then, and from then on in whichever way has been the faster: 1.2 ms.  The results are the same bits.
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

from ..kernels.fused.native import ASLEEP, DONE, LINE, LOOKS, MAILBOX, POSTED, lead, meet, serve
from ..kernels.reference.arrays import matmul
from .recording import Call, Program

#: wakes a worker; True: there is work, False: no more.  May be rung by the collector
Bell = queue.SimpleQueue[bool]

_WORTH = 40_000      # multiplications of a product, or numbers in an array, that are worth a second thread
_TRIAL = 100      # after so many runs the slower way is tried again
_NEW = 0.25      # the weight of the newest run in the mean of a way's seconds


class Order:
    """What the threads do at the same time: a program for each, the leader's last.

    `phases` are lists of tasks, each a list of calls.  The tasks of a phase are shared among the threads; a phase
    begins when the one before has ended.  `alone` is all of it for one thread.
    """

    def __init__(self, phases: Sequence[Sequence[Sequence[Call]]], threads: int) -> None:
        phases = [tasks for tasks in phases if any(tasks)]
        if not any(_is_worth_a_thread(call) for tasks in phases for calls in tasks for call in calls):
            threads = 1
        self._counters = np.zeros((threads, LINE), np.int64)
        self.programs = []
        for thread in reversed(range(threads)):
            barrier = [(meet, (self._counters.ctypes.data, thread, threads, LOOKS))] * (threads > 1)
            calls: list[Call] = []
            for phase, tasks in enumerate(phases):
                calls += barrier * (phase > 0) + [call for task in tasks[thread::threads] for call in task]
            self.programs.append(Program(calls))
        self.rows = np.array([(program.table.ctypes.data, len(program.table)) for program in self.programs])
        self.alone = (self.programs[0] if threads == 1 else
                      Program([call for tasks in phases for task in tasks for call in task]))
        self._runs, self._seconds = 0, {True: math.inf, False: math.inf}      # by one thread, by all

    def set_scalars(self, scalars: Sequence[float]) -> None:
        """Give every call these floating-point arguments."""
        for program in (*self.programs, self.alone):
            program.scalars[:, :len(scalars)] = scalars

    def is_for_one(self) -> bool:
        """Shall the next run be one thread's?"""
        if len(self.programs) == 1:
            return True
        self._runs += 1
        faster = self._seconds[True] < self._seconds[False]
        return faster if self._runs % _TRIAL else not faster

    def took(self, seconds: float, one: bool) -> None:
        """So long took a run by one thread, or by all; a long one counts as twice the mean, it may be an accident.  A
        clock that has not moved, or has gone back, says nothing."""
        mean = self._seconds[one]
        if seconds > 0:
            self._seconds[one] = seconds if mean == math.inf else (1 - _NEW) * mean + _NEW * min(seconds, 2 * mean)


def _is_worth_a_thread(call: Call) -> bool:
    kernel, arguments = call
    if kernel is matmul:
        out, a, _ = arguments
        return bool(out.size * a.shape[1] >= _WORTH)
    return bool(arguments[0].size >= _WORTH)


class Team:
    """The caller, and threads - 1 workers, which end when the team is gone.  Where they cannot be started, the caller
    does all by itself."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process = 0      # in which the workers live: a fork has none
        self._alone = 0      # the process in which none could be started
        self._under_way: Order | None = None

    def run(self, order: Order) -> None:
        """Back when all is done."""
        if self._under_way is not None and self._process == os.getpid():      # an exception came in between
            self._clear_up(self._under_way)
        one, began = order.is_for_one() or not self._is_there(), time.perf_counter()
        if one:
            order.alone.run()
        else:
            self._run_together(order)
        order.took(time.perf_counter() - began, one)

    def _is_there(self) -> bool:
        """Are there workers in this process?  They are hired when they are first wanted."""
        if self._process != os.getpid() != self._alone:
            try:
                self._hire()
            except (RuntimeError, MemoryError):      # the system's limit of threads, or no memory for their stacks
                self._alone = os.getpid()
        return self._process == os.getpid()

    def _run_together(self, order: Order) -> None:
        self._under_way = order
        try:
            if not lead(self._address, order.rows, LOOKS, 1):
                self._ring()
                lead(self._address, order.rows, LOOKS, 0)
        except BaseException:      # Ctrl-C: no worker may be left waiting for its leader
            self._clear_up(order)
            raise
        self._under_way = None

    def _clear_up(self, order: Order) -> None:
        if (self.boxes[:, DONE] != self.boxes[:, POSTED]).any():
            self._ring()
            lead(self._address, order.rows, LOOKS, 0)

    def _ring(self) -> None:
        for box, bell in zip(self.boxes, self._bells):
            if box[ASLEEP]:
                bell.put(True)

    def _hire(self) -> None:
        self._under_way = None
        self.boxes = np.zeros((self.threads - 1, MAILBOX), np.int64)      # of their own: others may be leaving yet
        self._address = self.boxes.ctypes.data
        self._bells: list[Bell] = [Bell() for _ in self.boxes]
        try:
            for box, bell in zip(self.boxes, self._bells):
                threading.Thread(target=_work, args=(box.ctypes.data, self.boxes, bell), daemon=True).start()
            weakref.finalize(self, _dismiss, self._bells)
            self._process = os.getpid()
        except BaseException:
            self._process = 0
            _dismiss(self._bells)
            raise


def _work(box: int, memory: Any, bell: Bell) -> None:
    """A worker's life; `memory` is held so that its mailbox outlives the team."""
    at_work = True
    while at_work:
        serve(box, LOOKS)
        at_work = bell.get()


def _dismiss(bells: Sequence[Bell]) -> None:
    for bell in bells:
        bell.put(False)
