"""What `test_threads` lends to other tests."""
import sys

import numpy as np

from npvae.engine import team
from npvae.kernels import fused

RNG = np.random.default_rng(31)


class Sums:
    """An order of 7 phases: in each, 5 tasks add what two tasks of the phase before have left.  One of them is slow."""

    def __init__(self, threads):
        self.state, slow = np.full((8, 5, 3), np.nan), np.zeros((3, 20000))
        self.order = team.ParallelProgram([[[(fused.add, tuple(slow))] * (4 * (task == phase % 5)) + [
            (fused.add, (after[task], before[task], before[task - 1]))] for task in range(5)]
            for phase, (before, after) in enumerate(zip(self.state, self.state[1:]))], threads)

    def check(self, crew):
        expected = RNG.integers(-99, 99, (5, 3))
        self.state[0], self.state[1:] = expected, np.nan
        crew.run(self.order)
        for found in self.state[1:]:
            expected = expected + np.roll(expected, 1, axis=0)
            assert np.array_equal(found, expected)


def run_interrupted(crew, order, line):
    """Ctrl-C before that line of `team`, counted as they are executed; False if there are not so many."""
    lines = []

    def trace(frame, event, argument):
        if frame.f_code.co_filename != team.__file__:
            return None
        lines.append(event == "line")
        if sum(lines) == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        crew.run(order)
        return False
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
