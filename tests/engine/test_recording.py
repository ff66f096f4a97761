"""Recorded calls: the same bits as the calls themselves."""
import gc
import platform
import weakref

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae.kernels import fused
from npvae.engine import team
from npvae.engine.recording import Program, Recorder
from strategies import seeds
from workers import small_work_is_shared  # noqa: F401 (a fixture)
from recorded_calls import arguments_of

RNG = np.random.default_rng(31)
TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def copies(arguments):
    return [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]


#: those that a pass of a recordable model may call; others are NumPy's, here as in the reference
RECORDABLE = [name for name in fused.__all__
              if name in ("matmul", "add", "subtract", "negate", "mask_backward")
              or hasattr(getattr(fused, name), "native")]


@pytest.mark.every(6)
@TYPES
@pytest.mark.parametrize("name", RECORDABLE)
def test_every_kernel_can_be_recorded(name, dtype):
    """The recorder computes nothing; the program computes the same bits as the call, as often as it is run."""
    arguments, kernel, recorder = arguments_of(name, dtype), getattr(fused, name), Recorder(fused)
    called, recorded = copies(arguments), copies(arguments)
    assert getattr(recorder, name)(*recorded) is None
    assert [call[0] for call in recorder.calls] == [kernel]
    program = Program(recorder.calls)
    assert all(map(np.array_equal, recorded, arguments))
    for _ in range(2):
        kernel(*called)
        program.run()
        assert all(map(np.array_equal, recorded, called))
        assert not all(map(np.array_equal, recorded, arguments))


@TYPES
@given(shape=st.tuples(*[st.sampled_from([1, 2, 3, 5, 63, 64, 65, 70])] * 3), seed=seeds, data=st.data())
def test_products_of_whole_numbers(dtype, shape, seed, data):
    """Plain and transposed, rows out of a larger matrix or none, into rows and columns of one, any length 1: exact, and
    nothing else is written."""
    rng, (rows, inner, columns) = np.random.default_rng(seed), shape

    def factor(rows, columns, spare):
        """With so many rows too many in memory, before it or (negative) after it."""
        turned = data.draw(st.booleans(), label="transposed")
        stored = rng.integers(-9, 9, (rows + abs(spare), columns)[::-1 if turned else 1]).astype(dtype)
        stored = stored.T if turned else stored
        return stored[spare:] if spare > 0 else stored[:rows]

    a, b = factor(rows, inner, data.draw(st.integers(-2, 2), label="spare")), factor(inner, columns, 0)
    left, right = (data.draw(st.integers(0, 2), label="columns") for _ in range(2))
    whole = np.full((rows + 4, left + columns + right), np.nan, dtype)
    out = whole[2:-2, left:left + columns]
    empty = [(fused.matmul, (out[:0], a[:0], b))] * data.draw(st.integers(0, 1), label="no rows")
    Program([*empty, (fused.matmul, (out, a, b))]).run()
    assert np.array_equal(out, np.matmul(a.astype(float), b.astype(float)))
    out[...] = np.nan
    assert np.isnan(whole).all()


@TYPES
@pytest.mark.parametrize("rows, inner, columns, turned", [
    (64, 70, 64, True), (1, 64, 65, True), (65, 70, 64, False), (64, 63, 64, False), (64, 64, 63, False)])
def test_few_rows_times_a_large_transposed_matrix(rows, inner, columns, turned, dtype):
    """By the product's transpose; the factors that change are seen again."""
    out, a, b = (np.full(shape, np.nan, dtype) for shape in ((rows, columns), (rows, inner), (columns, inner)))
    program = Program([(fused.matmul, (out, a, b.T))])
    assert len(program.table) == 1 + turned
    for _ in range(2):
        a[...], b[...] = RNG.integers(-9, 9, a.shape), RNG.integers(-9, 9, b.shape)
        program.run()
        assert np.array_equal(out, a.astype(float) @ b.T.astype(float))


@TYPES
@pytest.mark.parametrize("pattern", [np.tri(7, 6).T, np.tri(7, 6, -3).T, np.zeros((6, 7)), np.ones((6, 7))], ids=str)
def test_columns_that_a_mask_takes_away(pattern, dtype):
    """They are left out of the product, and become zero all the same, whatever stood there."""
    dW, a, b = np.full((6, 7), np.nan, dtype), RNG.integers(-9, 9, (6, 4)), RNG.integers(-9, 9, (4, 7))
    factors = a.astype(dtype), b.astype(dtype)
    program = Program([(fused.mask_backward, (dW, *factors, pattern > 0))])
    for _ in range(2):
        program.run()
        assert np.array_equal(dW, (a @ b) * pattern)
        dW[...] = np.nan


@TYPES
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="others are not slow with them")
@pytest.mark.parametrize("threads", [1, 2])
def test_subnormal_numbers_are_zero_while_a_program_runs(threads, dtype, small_work_is_shared):  # noqa: F811
    """Operands and results, in kernels and in products, in every thread; outside, all is as it was."""
    tiny, one = np.finfo(dtype).tiny, np.ones((2, 1), dtype)
    small, least = np.full((1, 2), tiny / 8, dtype), np.full((1, 2), tiny, dtype)
    tasks = []
    for _ in range(2):
        sums, products = np.full((2, 1, 2), 7, dtype), np.full((2, 1, 2), 7, dtype)
        tasks.append((sums, products, [
            (fused.add, (sums[0], small, small)), (fused.add, (sums[1], least, -1.5 * least)),
            (fused.matmul, (products[0], 1e3 * one[:1], small)),
            (fused.matmul, (products[1], one[:1] / 16, least))]))
    order = team.ParallelProgram([[calls for _, _, calls in tasks]], threads)
    assert len(order.programs) == threads
    for _ in range(3):
        team.Team(threads).run(order)
        assert all(not sums.any() and not products.any() for sums, products, _ in tasks)
        assert (small + small > 0).all() and (least / 16 > 0).all()


def test_calls_are_made_in_order_and_keep_their_arrays():
    """A program lives as long as it is wanted, whatever else holds its arrays; its scalars can be changed."""
    a, recorder = np.arange(3.0), Recorder(fused)
    states = [a, *np.full((50, 3), np.nan)]
    for before, after in zip(states, states[1:]):
        recorder.add(after, before, a)
    kept, last, program = weakref.ref(a), states[-1], Program(recorder.calls)
    del a, recorder, states, before, after
    gc.collect()
    program.run()
    assert np.array_equal(last, [0, 51, 102]) and kept() is not None
    grey, x = np.full((4, 2), 3, np.uint8), np.zeros((4, 2))
    program = Program([(fused.gather_rows, (x, grey, np.arange(4), 1.0))])
    for factor in (1.0, 0.5):
        program.scalars[:, 0] = factor
        program.run()
        assert (x == 3 * factor).all()
