"""The lock on BLAS's number of threads: who gets it when, and what the number is then.  Step by step, with libraries
that only remember what they are told.
"""
import contextlib
import functools
import os
import sys
import queue
import threading
import time

import pytest
import threadpoolctl

from npvae.engine import blas_threads
from npvae.engine.blas_threads import all_blas_threads, has_one_blas_thread, one_blas_thread

forks = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs a fork that is safe")


class Library:
    """As of threadpoolctl before 3.8."""

    def __init__(self, threads):
        self.num_threads = threads

    def set_num_threads(self, number):
        self.num_threads = number


class ShyLibrary(Library):
    """As of threadpoolctl 3.8: what one thread has changed, no other may, unless that one lets go."""

    holder = "somebody else"

    def set_num_threads(self, number):
        if self.holder is None:
            self.num_threads, self.holder = number, threading.current_thread()

    def clear_controlling_thread(self, force=False):
        if force or self.holder is threading.current_thread():
            self.holder = None


class Worker:
    """A thread that does one thing after the other."""

    def __init__(self):
        self.tasks, self.open = queue.SimpleQueue(), 0
        self.errors, self.stack = [], contextlib.ExitStack()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            task = self.tasks.get()
            try:
                task()
            except BaseException as error:
                self.errors.append(error)
            self.open -= 1

    def begin(self, task):
        self.open += 1
        self.tasks.put(task)

    def has_done(self):
        until(lambda: not self.open)
        assert not self.errors, self.errors

    def enter(self, mode):
        self.begin(lambda: self.stack.enter_context(mode))
        self.has_done()

    def waits_for(self, mode, blas, others=0):
        """It asks for the mode and has to wait, behind so many others."""
        self.begin(lambda: self.stack.enter_context(mode))
        until(lambda: len(blas._queue) > others or not self.open)
        assert self.open and len(blas._queue) == others + 1

    def leave(self):
        """All that it has entered."""
        self.begin(self.stack.close)
        self.has_done()


def until(done, seconds=5):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it waits for ever"
        time.sleep(0.001)


def in_time(test):
    """A test in a thread of its own, for which nobody waits for ever."""
    @functools.wraps(test)
    def limited(**fixtures):
        worker = Worker()
        worker.begin(lambda: test(**fixtures))
        until(lambda: not worker.open, 15)
        if worker.errors:
            raise worker.errors[0]
    return limited


@pytest.fixture
def libraries(monkeypatch):
    found = [Library(8), ShyLibrary(4)]
    monkeypatch.setattr(blas_threads, "_libraries", lambda: found)
    return found


@pytest.fixture
def blas(libraries, monkeypatch):
    blas = blas_threads._BlasLock()
    monkeypatch.setattr(blas_threads, "_blas_lock", blas)
    return blas


@pytest.fixture
def numbers(libraries):
    return lambda: [library.num_threads for library in libraries]


@in_time
def test_blas_has_one_thread_in_that_mode_and_all_of_them_elsewhere(blas, numbers):
    """Within each other too; and a limit somebody set in between is what is found afterwards."""
    with one_blas_thread:
        assert numbers() == [1, 1] and has_one_blas_thread()
        with one_blas_thread, all_blas_threads:
            assert numbers() == [8, 4] and not has_one_blas_thread()
            with one_blas_thread:
                assert numbers() == [1, 1] and has_one_blas_thread()
                with all_blas_threads:
                    assert numbers() == [8, 4]
                assert numbers() == [1, 1]
            assert numbers() == [8, 4]
        assert numbers() == [1, 1] and has_one_blas_thread()
    assert numbers() == [8, 4] and not has_one_blas_thread()
    with all_blas_threads:
        blas_threads._libraries()[0].num_threads = 3
        with one_blas_thread:
            assert numbers() == [1, 1]
    assert numbers() == [3, 4]


@in_time
def test_no_thread_of_threadpoolctl_keeps_the_libraries(blas, libraries):
    """Neither who held them before is in the way, nor are they held afterwards, when another lifts the limit."""
    with one_blas_thread:
        assert libraries[1].num_threads == 1 and libraries[1].holder is None
    assert libraries[1].holder is None


@in_time
def test_between_steps_the_limit_stays_where_it_is_kept(blas, numbers):
    """As often as they are kept, by whichever thread; work of the other kind lifts it nevertheless."""
    worker = Worker()
    with blas.keep():
        assert numbers() == [8, 4]
        with blas.keep(), blas.keep():
            with one_blas_thread:
                pass
            assert numbers() == [1, 1]
        assert numbers() == [1, 1]
        with all_blas_threads:
            assert numbers() == [8, 4]
        with one_blas_thread:
            pass
        worker.enter(blas.keep())
    assert numbers() == [1, 1]
    worker.leave()
    assert numbers() == [8, 4]
    with one_blas_thread:
        worker.enter(one_blas_thread)
        worker.leave()
        assert numbers() == [1, 1]
        with blas.keep():
            pass
        assert numbers() == [1, 1]
    assert numbers() == [8, 4]


@pytest.mark.parametrize("single", [True, False])
@in_time
def test_threads_in_one_mode_go_together_and_those_in_the_other_wait(single, blas, numbers):
    """Until all have ended, then in the order in which they came; but nobody waits who is in that mode already."""
    this, other = blas_threads._Mode(single), blas_threads._Mode(not single)
    a, b, c, d, e = workers = [Worker() for _ in range(5)]
    limits = {this: [1, 1], other: [8, 4]} if single else {other: [1, 1], this: [8, 4]}
    a.enter(this)
    b.enter(this)
    c.waits_for(other, blas)
    d.waits_for(this, blas, 1)
    e.waits_for(this, blas, 2)
    a.enter(this)
    a.leave()
    assert c.open and d.open and e.open and numbers() == limits[this]
    b.leave()
    c.has_done()
    assert d.open and e.open and numbers() == limits[other]
    c.leave()
    for worker in (d, e):
        worker.has_done()
    assert numbers() == limits[this]
    for worker in workers:
        worker.leave()
    assert numbers() == [8, 4] and not blas._queue
    with other:
        assert numbers() == limits[other]


@in_time
def test_who_needs_the_other_mode_within_one_waits_like_others(blas, numbers):
    """For those in that mode that came first, and again for the mode around it."""
    a, b = Worker(), Worker()
    a.enter(one_blas_thread)
    b.waits_for(all_blas_threads, blas)
    a.enter(all_blas_threads)
    b.has_done()
    a.begin(a.stack.close)
    until(lambda: blas._queue or not a.open)
    assert a.open and numbers() == [8, 4]
    b.leave()
    a.has_done()
    assert not blas._holders


def test_who_is_interrupted_while_waiting_lets_the_next_go(blas, monkeypatch):
    a, b, c = Worker(), Worker(), Worker()
    interrupt, wait = threading.Event(), blas._changed.wait

    def interrupted(timeout=None):
        if threading.current_thread() is not b.thread:
            return wait(timeout)
        if interrupt.is_set():
            raise KeyboardInterrupt
        return wait(0.01)

    monkeypatch.setattr(blas._changed, "wait", interrupted)
    a.enter(one_blas_thread)
    b.waits_for(all_blas_threads, blas)
    c.waits_for(one_blas_thread, blas, 1)
    interrupt.set()
    c.has_done()
    assert isinstance(b.errors.pop(), KeyboardInterrupt)
    for worker in (a, b, c):
        worker.leave()
    b.enter(all_blas_threads)


@pytest.mark.parametrize("inside", [True, False])
@in_time
def test_a_fork_leaves_this_thread_alone(inside, blas, numbers):
    """Whatever the others did, who hold the lock, wait, keep or are at work: their modes end with them."""
    a, b = Worker(), Worker()
    a.enter(blas.keep())
    a.enter(one_blas_thread)
    b.waits_for(all_blas_threads, blas)
    me = [blas.keep(), one_blas_thread] if inside else []
    with contextlib.ExitStack() as stack:
        blas._queue.clear()      # so that this thread need not wait
        for mode in me:
            stack.enter_context(mode)
        blas._queue.append(b)
        blas._lock.acquire()
        blas._after_fork()
        assert numbers() == ([1, 1] if inside else [8, 4])
        with one_blas_thread:
            assert numbers() == [1, 1]
        assert numbers() == ([1, 1] if inside else [8, 4])
        with all_blas_threads:
            assert numbers() == [8, 4]
    assert numbers() == [8, 4]


@in_time
def test_a_fork_within_one_of_several_modes_ends_the_limit_with_that_mode(blas, numbers):
    a = Worker()
    a.enter(one_blas_thread)
    with one_blas_thread:
        blas._after_fork()
        assert numbers() == [1, 1]
    assert numbers() == [8, 4]


@forks
@in_time
def test_a_fork_is_noticed(blas, numbers):
    Worker().enter(one_blas_thread)
    assert numbers() == [1, 1]
    child = os.fork()
    if not child:
        os._exit(numbers() != [8, 4])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@forks
def test_a_model_that_another_thread_held_before_a_fork_says_so(monkeypatch):
    owner = blas_threads.Owner()
    Worker().enter(owner)
    for pid, says in ((os.getpid(), "is in use by another thread: "),
                      (0, "was in use by another thread when this process was forked from another: ")):
        monkeypatch.setattr(os, "getpid", lambda: pid)
        with pytest.raises(RuntimeError, match=f"^this model {says}each thread needs"), owner:
            pass


def test_the_libraries_are_those_of_blas():
    assert [library.info() for library in blas_threads._libraries.__wrapped__()] == [
        info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
