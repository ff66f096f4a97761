"""What is left behind by the threads: no thread without a leader, no data, no model."""
import gc
import threading
import weakref

import numpy as np

from npvae import Adam, fit
from npvae.engine import team
from whole_models import batch
from executors import X, X_TEST, bits, model, result
from crews import Sums, run_interrupted
from workers import other_threads, small_work_is_shared, wait_until  # noqa: F401 (a fixture)


def test_threads_that_cannot_be_started(monkeypatch):
    """Too many processes, no memory, or Ctrl-C while they start: no call waits for threads that do not exist."""
    vae, others, sums, start = model(2), model(2), Sums(3), threading.Thread.start
    call = batch(vae, 20, 2, 5)
    expected = bits(others, *call)
    for error in (RuntimeError("can't start new thread"), MemoryError()):
        for number in (0, 1):      # of those that can be started
            crew, before, started = team.Team(3), set(threading.enumerate()), []

            def start_some(thread):
                if len(started) == number:
                    raise error
                started.append(thread)
                start(thread)

            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", start_some)
                for _ in range(3):
                    sums.check(crew)
                if not number:
                    assert bits(vae, *call) == bits(vae, *call) == expected
            sums.check(crew)
            wait_until(lambda: not other_threads(before))
            vae.threads = 2
    for line in range(1, 40):      # Ctrl-C at any line, the beginning included
        crew, before = team.Team(3), set(threading.enumerate())
        interrupted = run_interrupted(crew, sums.order, line)
        sums.check(crew)
        crew = None
        wait_until(lambda: not other_threads(before))
        if not interrupted:
            break


def test_the_data_set_is_not_kept():
    """What was recorded holds the arrays; a training lets go of it."""
    vae = model()
    x = np.random.default_rng(0).random((50, 7))
    fit(vae, x, X_TEST, 1, 25)
    kept = weakref.ref(x)
    del x
    gc.collect()
    assert kept() is None


def test_a_model_is_freed_at_once():
    """Not only by the collector: the engine does not hold its model."""
    gc.collect()
    gc.disable()
    try:
        vae = model()
        result(vae, *batch(vae, 20, 2, 5))
        kept = weakref.ref(vae.parameters.flat)
        del vae
        assert kept() is None
    finally:
        gc.enable()


class Momentum(Adam):
    """The reader's own optimizer, on the kernels that it is given."""

    def step(self, parameters, gradients, kernels):
        self.t += 1
        change = -self.lr(self.t) * gradients.flat
        kernels.add(self.m.flat, parameters.flat, change)
        parameters.flat[...] = self.m.flat


def test_an_optimizer_may_call_any_kernel():
    """Not only those that are split into parts."""
    trained = [model(kernels=kernels) for kernels in ("numpy", "numba")]
    for vae in trained:
        fit(vae, X, X_TEST, 1, 25, Momentum())
    one, other = (vae.parameters.flat for vae in trained)
    assert np.allclose(one, other, rtol=1e-6, atol=1e-9) and np.abs(one - model().parameters.flat).max() > 1e-4
