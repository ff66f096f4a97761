"""Threads, and forks, that use models at the same time: the bits of each are those it has alone, or it is refused.

In processes of their own: they need BLAS with two threads, and a fork no threads that other tests have left behind.
"""
import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from npvae import VAE, Adam, Callback, fit
from npvae.engine.blas_threads import Owner

ROOT = Path(__file__).parents[2]
forks = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs a fork that is safe")
X = np.random.default_rng(0).random((600, 300), dtype=np.float32)


def in_a_process_of_its_own(function):
    code = f"import test_blas_threads as here; here.{function.__name__}()"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2",
                   "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
                   "PYTHONWARNINGS": "error,ignore:.*fork:DeprecationWarning"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def model(kernels, hidden=(200,)):
    vae = VAE(300, hidden, 10, kernels=kernels)
    vae.threads = 2
    return vae


def train(kernels, hidden=(200,), epochs=2):
    vae = model(kernels, hidden)
    history = fit(vae, X, X[:300], epochs, 200, Adam(max_norm=1.0))
    return vae.parameters.flat.tobytes(), history[-1]["test_loss"]


def evaluate(kernels):
    vae, found = model(kernels), []
    for _ in range(2):
        rng = np.random.default_rng(0)
        found += [*vae.encode(X), vae.reconstruct(X, rng), vae.sample(300, rng), vae.elbo(X, rng),
                  vae.log_likelihood(X[:2], rng, 100)]
    return [array.tobytes() for array in found]


WORKS = [(train, "numba"), (train, "numba", (150, 90), 3), (train, "numpy"), (evaluate, "numba"), (evaluate, "numpy")]


def blas_threads():
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


def the_same_bits_as_alone():
    before = blas_threads()
    alone = [work(*arguments) for work, *arguments in WORKS]
    with ThreadPoolExecutor(len(WORKS)) as pool:
        jobs = [pool.submit(work, *arguments) for work, *arguments in WORKS]
        assert [job.result(120) for job in jobs] == alone
    assert blas_threads() == before


class Look(Callback):
    def __init__(self, look):
        self.look = look

    def on_step(self, run):
        self.look()


def in_another_thread(task):
    """What it returns or raises."""
    found = []

    def run():
        try:
            found.append(task())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert found, "it waits for ever"
    return found[0]


USES = {
    "fit": lambda vae: fit(vae, X, X, 1, 600), "encode": lambda vae: vae.encode(X),
    "decode": lambda vae: vae.decode(np.zeros((5, 10))), "sample": lambda vae: vae.sample(5, np.random.default_rng(0)),
    "reconstruct": lambda vae: vae.reconstruct(X, np.random.default_rng(0)),
    "elbo": lambda vae: vae.elbo(X, np.random.default_rng(0)),
    "log_likelihood": lambda vae: vae.log_likelihood(X[:2], np.random.default_rng(0), 5),
    "loss_and_gradients": lambda vae: vae.loss_and_gradients(X[:5], np.zeros((5, 1, 10))),
    "start_at": lambda vae: vae.start_at(X[0]), "save": lambda vae: vae.save(os.devnull + "/x"),
    "threads": lambda vae: setattr(vae, "threads", 1), "passes": lambda vae: vae.passes(7, 1)}


@pytest.mark.parametrize("kernels", ["numba", "numpy"])
def test_a_model_at_work_refuses_another_thread(kernels):
    """Each use, before it has changed anything; its own thread may use it, and once it is done anybody may."""
    vae, seen = model(kernels), {}

    def look():
        vae.encode(X[:3])
        seen.update({name: in_another_thread(lambda: use(vae)) for name, use in USES.items()})

    fit(vae, X, X[:300], 2, 200, Adam(max_norm=1.0), callbacks=[Look(look)])
    assert vae.parameters.flat.tobytes() == train(kernels)[0]
    for name in USES:
        assert isinstance(seen[name], RuntimeError), name
        assert str(seen[name]) == "this model is in use by another thread: each thread needs a model of its own"
    assert not isinstance(in_another_thread(lambda: vae.encode(X)), Exception)


def test_an_error_frees_the_model():
    vae = model("numpy")
    with pytest.raises(TypeError):
        vae.encode("images")
    assert not isinstance(in_another_thread(lambda: vae.encode(X)), Exception)
    held = Owner()
    with held:
        for other in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
            assert in_another_thread(other.__enter__) is None
        assert isinstance(in_another_thread(held.__enter__), RuntimeError)


def a_callback_may_wait_for_a_thread():
    """That needs BLAS in the other way."""
    found = []
    for kernels in ("numba", "numpy"):
        look = Look(lambda: found.extend(in_another_thread(lambda: work(other)) for work in (train, evaluate)
                                         for other in ("numba", "numpy")))
        fit(model(kernels), X, X[:300], 1, 600, callbacks=[look])
    assert found == [work(other) for work in (train, evaluate) for other in ("numba", "numpy")] * 2


# ---- Forks

def child_does(task):
    """In a fork of this process; it says what went wrong."""
    child = os.fork()
    if not child:
        signal.alarm(120)
        try:
            task()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def a_fork_in_a_callback():
    """The child may go on with the model that is being trained, and with others."""
    alone, vae, before = train("numba"), model("numba"), blas_threads()

    def go_on():
        vae.encode(X)
        fit(vae, X, X[:300], 1, 600)
        assert train("numba") == alone
        assert in_another_thread(lambda: train("numba")) == alone
        error = in_another_thread(lambda: vae.encode(X))
        assert "was in use by another thread when this process was forked" in str(error)

    steps = iter(range(6))
    fit(vae, X, X[:300], 2, 200, Adam(max_norm=1.0), callbacks=[
        Look(lambda: child_does(go_on) if next(steps) in (0, 4) else None)])
    assert (vae.parameters.flat.tobytes(), blas_threads()) == (alone[0], before)
    child_does(lambda: fit(vae, X, X[:300], 1, 600))


def a_fork_while_another_thread_trains():
    """Wherever that thread is.  Its model is refused in the child; all others work, and BLAS has all of its threads."""
    alone, before, vae = train("numba"), blas_threads(), model("numba")
    begun, stop = threading.Event(), threading.Event()

    class Stop(Callback):
        def on_step(self, run):
            begun.set()
            run.stop = stop.is_set()

    def look():
        try:
            vae.encode(X)
            raise AssertionError("not refused")
        except RuntimeError as error:
            assert str(error) == ("this model was in use by another thread when this process was forked from another: "
                                  "each thread needs a model of its own")
        assert blas_threads() == before
        assert train("numba") == alone and train("numpy")

    thread = threading.Thread(target=fit, args=(vae, X, X[:300], 10**6, 200), kwargs={"callbacks": [Stop()]})
    thread.start()
    try:
        assert begun.wait(60)
        for _ in range(2):
            child_does(look)
        process = multiprocessing.get_context("fork").Process(target=look)
        process.start()
        process.join(120)
        assert process.exitcode == 0
    finally:
        stop.set()
        thread.join()
    assert blas_threads() == before


# ---- In processes of their own

@pytest.mark.parametrize("case", [
    the_same_bits_as_alone, pytest.param(a_callback_may_wait_for_a_thread, marks=pytest.mark.slow)])
def test_models_at_work_at_once(case):
    in_a_process_of_its_own(case)


@forks
@pytest.mark.parametrize("fork", [
    a_fork_in_a_callback, pytest.param(a_fork_while_another_thread_trains, marks=pytest.mark.slow)])
def test_a_fork_during_training(fork):
    in_a_process_of_its_own(fork)
