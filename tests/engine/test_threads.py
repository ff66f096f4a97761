"""The threads that replay: in phases, woken when they sleep, in order again after an interrupt, gone with their
model; and what they must leave as it was.
"""
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from unittest import mock

import numpy as np
import pytest
import threadpoolctl

from npvae import ELBO, VAE, Callback, fit
from npvae.kernels import fused
from npvae.engine import team
from npvae.kernels.fused import native
from npvae.kernels.fused.native import ASLEEP
from npvae.engine.executor import available_cores
from whole_models import batch
from executors import X, X_TEST, bits, model, result
from workers import WORTH, other_threads, small_work_is_shared, wait_until  # noqa: F401 (one is a fixture)
from crews import Sums, run_interrupted

TEAMS = pytest.mark.parametrize("threads", [2, 3])


# ---- The team


@TEAMS
def test_a_phase_begins_when_the_one_before_has_ended(threads):
    before, crew, orders = set(threading.enumerate()), team.Team(threads), [Sums(threads), Sums(threads)]
    assert not other_threads(before)
    for turn in range(40):
        orders[turn % 2].check(crew)
    assert len(other_threads(before)) == threads - 1


def test_small_work_needs_no_thread(monkeypatch):
    """Numbers in an array, or multiplications of a product: so many are worth a second thread."""
    before, crew = set(threading.enumerate()), team.Team(2)

    def threads_for(kernel, *shapes):
        arrays = tuple(np.ones(shape) for shape in shapes)
        crew.run(team.ParallelProgram([[[(kernel, arrays)]]], 2))
        assert (arrays[0] == (2 if kernel is fused.add else len(arrays[2]))).all()
        return len(other_threads(before))

    monkeypatch.setattr(team, "_MIN_WORK", WORTH)
    for numbers in (WORTH - 1, WORTH):
        assert len(team.ParallelProgram([[[product(numbers)]]], 2).programs) == 1 + (numbers == WORTH)
        tasks = [product()], [(fused.add, tuple(np.ones((3, numbers))))]
        assert len(team.ParallelProgram([tasks], 2).programs) == 1 + (numbers == WORTH)
    assert threads_for(fused.add, *[WORTH - 1] * 3) == 0
    assert threads_for(fused.matmul, (1, WORTH - 1), (1, 1), (1, WORTH - 1)) == 0
    assert threads_for(fused.matmul, (2, 1), (2, WORTH // 2 + 1), (WORTH // 2 + 1, 1)) == 1


def product(columns=1):
    """A call, for which nothing has to be compiled."""
    return fused.matmul, (np.zeros((1, columns)), np.ones((1, 1)), np.ones((1, columns)))


def test_an_order_is_a_program_for_each_thread():
    """Tasks in turn, the leader's last; between phases that have any calls they meet, but one by itself does not."""
    a, b, c, d, e, f = calls = [product() for _ in "abcdef"]
    letters = {id(arguments): letter for (_, arguments), letter in zip(calls, "abcdef")}

    def text(program):
        return "".join(letters.get(id(arguments), "|") for _, arguments in program.calls)

    for threads, texts in ((1, ["abcdef"]), (2, ["bc||", "ad|e|f"]), (3, ["d|e|", "bc||", "a||f"])):
        order = team.ParallelProgram([[[a], [b, c], [d]], [[], []], [[], [], [e]], [[f], []]], threads)
        assert [text(program) for program in order.programs] == texts and text(order.sequential) == "abcdef"
        meetings = {(arguments[0], threads - 1 - number, *arguments[1:3]) for number, one in enumerate(order.programs)
                    for kernel, arguments in one.calls if kernel is native.barrier}
        assert meetings == {(min(meetings)[0], i, i, threads) for i in range(threads) if threads > 1}
        assert order.rows.tolist() == [[one.table.ctypes.data, len(one.calls)] for one in order.programs]
        order.set_scalars([0.5, 3.0])
        assert all((one.scalars[:, :2] == (0.5, 3.0)).all() for one in (*order.programs, order.sequential))


@pytest.mark.parametrize("seconds, mean", [([8.0], 8.0), ([8.0, 4.0], 7.0), ([8.0, 4.0, 7.0, 11.0], 8.0),
                                           ([8.0, 1000.0], 10.0), ([8.0, 0.0], 8.0), ([8.0, -1.0], 8.0)])
def test_the_mean_time_of_a_way(seconds, mean, monkeypatch):
    """Of the newest run a quarter; a long run counts as twice the mean, and one that took no time not at all."""
    monkeypatch.setattr(team, "_RETRY_EVERY", 5)
    mean, seconds = mean / 512, [one / 512 for one in seconds]
    for slow in (False, True):
        for other, sooner in ((mean - 1e-9, True), (mean, False), (mean + 1e-9, False)):
            order = team.ParallelProgram([[[product()], [product()]]], 2)
            assert [order.is_for_one() for _ in range(5)] == [False, False, False, False, True]
            for one in seconds:
                order.note_time(one, slow)
            order.note_time(other, not slow)
            faster = sooner if not slow else other > mean
            assert [order.is_for_one() for _ in range(6)] == [*[faster] * 4, not faster, faster]
    assert team.ParallelProgram([[[product()]]], 1).is_for_one()


def test_a_run_is_timed_from_its_beginning_to_its_end(monkeypatch):
    took, order = [], team.ParallelProgram([[[product()]]], 1)
    monkeypatch.setattr(order, "note_time", lambda *arguments: took.append(arguments))
    monkeypatch.setattr(time, "perf_counter", iter([5.0, 7.5]).__next__)
    team.Team(2).run(order)
    assert took == [(2.5, True)] and order.programs[0].calls[0][1][0] == 1


@pytest.mark.every(2)
@TEAMS
def test_an_order_is_done_in_the_faster_way(threads, monkeypatch):
    """By all threads or by one, as the times of late say; the results are right in either."""
    monkeypatch.setattr(team, "_RETRY_EVERY", 10)
    crew, sums, takes, ways = team.Team(threads), Sums(threads), {True: 2.0}, []
    took = sums.order.note_time

    def instead(seconds, one):
        ways.append(one)
        assert seconds > 0
        took(takes[one], one)

    monkeypatch.setattr(sums.order, "note_time", instead)
    for takes[False], most in ((1.0, False), (9.0, True), (1.0, False)):      # a quiet machine, a busy one, and again
        for _ in range(200):
            sums.check(crew)
        late = ways[-100:]
        assert late.count(most) == 90 and late.count(not most) == 10
    assert not any(ways[:9]) and ways[9]
    for one, seconds in ((False, 1000.0), (False, 0.5), (True, 2.0)):      # one long run is an accident
        took(seconds, one)
    assert not any(sums.order.is_for_one() for _ in range(9))


@pytest.mark.every(4)
@TEAMS
@pytest.mark.parametrize("clock", [lambda: 5.0, itertools.count(9, -1).__next__, lambda: time.time_ns() // 10**10],
                         ids=["stands still", "goes back", "goes in steps of 10 s"])
def test_a_clock_that_says_little(threads, clock, monkeypatch):
    """All threads go on; and once the clock goes on, it is believed."""
    monkeypatch.setattr(team, "_RETRY_EVERY", 10)
    crew, sums, ways = team.Team(threads), Sums(threads), []
    took = sums.order.note_time
    monkeypatch.setattr(sums.order, "note_time", lambda seconds, one: (ways.append(one), took(seconds, one)))
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", clock)
        for _ in range(30):
            sums.check(crew)
    assert ways.count(False) >= 20
    for _ in range(50):
        took(3.0, False), took(2.0, True)
    assert sum(sums.order.is_for_one() for _ in range(10)) == 9


@TEAMS
def test_sleeping_threads_are_woken(threads):
    crew, sums = team.Team(threads), Sums(threads)
    for _ in range(5):
        sums.check(crew)
        wait_until(lambda: crew.mailboxes[:, ASLEEP].all())
    sums.check(crew)


@pytest.mark.parametrize("threads, asleep", [
    (2, True), (2, False), *(pytest.param(3, asleep, marks=pytest.mark.slow) for asleep in (True, False))])
def test_what_an_interrupt_leaves_is_cleared_up(threads, asleep):
    """Wherever it comes; also where it comes again, and before another order."""
    crew, sums, other = team.Team(threads), Sums(threads), Sums(threads)
    sums.check(crew)
    for line in range(1, 100):
        if asleep:
            wait_until(lambda: crew.mailboxes[:, ASLEEP].all())
        interrupted = run_interrupted(crew, sums.order, line)
        run_interrupted(crew, other.order, line)
        other.check(crew)
        sums.check(crew)
        if not interrupted:
            break
    assert 5 < line < 99


@TEAMS
def test_threads_end_with_their_team(threads):
    """Whether they are awake or asleep."""
    before, sums = set(threading.enumerate()), Sums(threads)
    for asleep in (False, True):
        crew = team.Team(threads)
        sums.check(crew)
        if asleep:
            wait_until(lambda: crew.mailboxes[:, ASLEEP].all())
        assert len(other_threads(before)) == threads - 1
        crew = None
        wait_until(lambda: not other_threads(before))


# ---- The threads of a model

@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("at", ["the beginning", "the end"])
def test_after_an_interrupt(call, at, monkeypatch):
    """Ctrl-C around the forward pass, or the backward pass: the next step is as ever."""
    vae, real, calls = model(2), team.lead, []
    x, eps = batch(vae, 20, 2, 5)
    expected = bits(vae, x, eps)

    def interrupted(*arguments):
        calls.append(arguments)
        done = real(*arguments) if len(calls) != call or at == "the end" else None
        if len(calls) == call:
            raise KeyboardInterrupt
        return done

    for _ in range(3):
        calls.clear()
        with monkeypatch.context() as patch, threadpoolctl.threadpool_limits(2):
            patch.setattr(team, "lead", interrupted)
            with pytest.raises(KeyboardInterrupt):
                vae.loss_and_gradients(x, eps)
            assert blas_threads() == {2}
        assert bits(vae, x, eps) == expected


def test_threads_end_with_their_model(monkeypatch):
    """None is started before there is work, nor for work that is too small; and many models do not pile them up."""
    vae = model(1)
    call = batch(vae, 20, 2, 5)
    result(vae, *call)      # where nothing has been compiled yet, more than one thread would start a process
    before = set(threading.enumerate())
    vae.threads = 3
    with monkeypatch.context() as patch:
        patch.setattr(team, "_MIN_WORK", WORTH)
        result(vae, *call)
    assert not other_threads(before)
    vae.threads = 3
    result(vae, *call)
    assert len(other_threads(before)) == 2
    del vae
    for seed in range(5):
        result(model(2, seed=seed), *call)
    gc.collect()
    wait_until(lambda: not other_threads(before))


# ---- What is left behind

def blas_threads():
    """Of NumPy's library, the first that was loaded: SciPy and others bring their own, which no pass uses."""
    return {next(library["num_threads"] for library in threadpoolctl.threadpool_info()
                 if library["user_api"] == "blas")}


class Broken(ELBO):
    def __call__(self, nll, reg, step):
        raise ZeroDivisionError


def test_blas_has_one_thread_inside_and_as_many_as_before_after():
    inside, vae = [], model(2)

    class Look(Callback):
        def on_step(self, run):
            inside.append(blas_threads())

    with threadpoolctl.threadpool_limits(2):
        x, eps = batch(vae, 20, 2, 5)
        with pytest.raises(ZeroDivisionError):
            fit(vae, X, X_TEST, 1, 25, objective=Broken())
        assert blas_threads() == {2}
        with pytest.raises(ZeroDivisionError):
            vae.loss_and_gradients(x, eps, Broken())
        assert blas_threads() == {2}
        with mock.patch.object(team, "lead", lambda *_: inside.append(blas_threads()) or True):
            vae.loss_and_gradients(x, eps)
        assert inside == [{1}] * 2 and blas_threads() == {2}
        fit(vae, X, X_TEST, 1, 25, callbacks=[Look()])
        assert inside == [{1}] * 5 and blas_threads() == {2}
        vae.elbo(X / 255, np.random.default_rng(0)), vae.log_likelihood(X / 255, np.random.default_rng(0), 9)
        assert blas_threads() == {2}


# ---- vae.threads

@pytest.mark.parametrize("value, error", [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError),
                                          ("2", TypeError), (None, TypeError), ([2], TypeError)])
def test_threads_that_are_refused(value, error):
    vae = model(2)
    engine = vae.engine
    with pytest.raises(error, match="^threads must be .*at least 1, got ") as caught:
        vae.threads = value
    assert "\n" not in str(caught.value) and vae.threads == 2 and vae.engine is engine


@pytest.mark.parametrize("environment, cores", [
    ({}, 6), ({"OMP_NUM_THREADS": "3"}, 3), ({"OPENBLAS_NUM_THREADS": "1"}, 1), ({"MKL_NUM_THREADS": "2"}, 2),
    ({"OMP_NUM_THREADS": "5", "MKL_NUM_THREADS": "4"}, 4), ({"OMP_NUM_THREADS": "99"}, 6),
    *(({"OMP_NUM_THREADS": value}, 6) for value in ("", "0", "-1", "4,2", "many", "2.0"))])
def test_available_cores(environment, cores, monkeypatch):
    """What the system allows, or less by the environment; a model takes two of them at most."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6), raising=False)
    assert available_cores() == cores
    assert VAE(7, (), 3).threads == min(2, cores)
    monkeypatch.delattr(os, "sched_getaffinity")      # not on every system
    for count in (4, None):
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        assert available_cores() == min(cores, count or 1)


FORK_WHILE_ANOTHER_COMPILES = """
import os, signal, threading, time
import numpy as np, npvae
from npvae.kernels import fused
from numba.core.compiler_lock import global_compiler_lock
from llvmlite.binding import ffi

def hold(lock):
    with lock:
        held.set()
        time.sleep(0.2)

for lock in (global_compiler_lock, ffi.lib._lock):
    held = threading.Event()
    thread = threading.Thread(target=hold, args=(lock,))
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)
        vae = npvae.VAE(6, (), 2)
        vae.threads = 1
        vae.loss_and_gradients(np.full((4, 6), 0.5), np.ones((4, 1, 2)))
        os._exit(0)
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
print("works")
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs a fork that is safe")
def test_a_fork_while_another_thread_compiles():
    """The child must not wait for a lock whose holder it does not have."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK_WHILE_ANOTHER_COMPILES], capture_output=True,
                         text=True, timeout=200)
    assert (run.returncode, run.stdout) == (0, "works\n"), run.stderr
