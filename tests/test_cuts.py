"""Where a step is cut: everything is in one part and no more, and what a thread reads is there when it reads it."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import VAE
from npvae.cuts import LINE, phases, pieces, shares
from npvae.kernels import fused
from npvae.lanes import Lanes


@given(size=st.integers(0, 500), number=st.integers(1, 6), multiple=st.sampled_from([1, 16, 64]))
def test_pieces(size, number, multiple):
    found = pieces(size, number, multiple)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(size)) and len(found) == number
    assert all(part.start % multiple == 0 and abs(part.stop - part.start - size / number) <= multiple
               for part in found[:-1])


@given(shapes=st.lists(st.lists(st.integers(1, 40), max_size=2).map(tuple), min_size=1, max_size=6),
       number=st.sampled_from([2, 4]))
def test_shares_hold_every_parameter_once(shapes, number):
    """And of each tensor a lane has the part that it multiplies, but for what a cache line adds at both ends."""
    found, owner, start = shares(dict(enumerate(shapes)), number), np.full(sum(map(math.prod, shapes)), -1), 0
    for lane, parts in enumerate(found):
        for part in parts:
            assert part.start < part.stop and (owner[part] == -1).all() and part.start % LINE == 0
            owner[part] = lane
    assert (owner >= 0).all() and len(found) == number
    for shape in shapes:
        size = math.prod(shape)
        for lane, part in enumerate(pieces(size, number)):
            inner = owner[start + part.start:start + part.stop][:-LINE or None]
            assert (inner == lane).all() or size < number * LINE
        start += size


WIDE = 70


def passes(batch):
    """The phases of both passes of a model as they are given to the threads, and the model."""
    vae, seen = VAE(WIDE, (64, 66), 5, "tanh"), []
    vae.threads = 2
    a, d = vae.passes(batch, 1)

    class Spy(Lanes):
        def order(self, *phases):
            seen.append(phases)

        def run(self, order):
            pass

    engine = Spy(vae, 2)
    engine.forward(a, False)
    engine.backward(d, a, False)
    return seen, vae, engine


def products_with(weights, seen):
    """(phase, task, the rows of the weights that it reads) of each product with them."""
    start, stop = weights.ctypes.data, weights.ctypes.data + weights.nbytes
    for phase, tasks in enumerate(seen):
        for number, task in enumerate(tasks):
            for kernel, arrays in task:
                if kernel is fused.matmul and start <= arrays[2].ctypes.data < stop:
                    W = arrays[2] if arrays[2].strides[1] == arrays[2].itemsize else arrays[2].T
                    first = (W.ctypes.data - start) // weights.strides[0]
                    yield phase, number, range(first, first + len(W))


@pytest.mark.parametrize("batch, cut", [(1, True), (2, True), (20, True), (100, False)])
def test_few_rows_are_cut_by_the_weights(batch, cut):
    """Each task has rows of its own, the same in the forward pass, in the backward pass and in the update; with many
    images it has all of them."""
    seen, vae, engine = passes(batch)
    (first, *forward), backward = seen
    assert not any(first)
    W = vae.parameters["encoder.1.W"]
    at = (W.ctypes.data - vae.parameters.flat.ctypes.data) // W.itemsize
    for one_pass in (forward, backward):
        found = list(products_with(W, one_pass))
        assert len({phase for phase, _, _ in found}) == 1 and [task for _, task, _ in found] == [0, 1]
        assert [rows for _, _, rows in found] == ([range(32), range(32, 64)] if cut else [range(64)] * 2)
    for task, rows in enumerate([range(32), range(32, 64)]):
        own = np.zeros(vae.parameters.flat.size, bool)
        for part in engine.shares[task]:
            own[part] = True
        assert own[at + 66 * rows.start + LINE:at + 66 * rows.stop - LINE].all()


@pytest.mark.parametrize("batch", [1, 2, 3, 20, 100])
def test_no_task_reads_what_another_writes_in_the_same_phase(batch):
    """Nor do two write to one place.  Byte by byte, since rows of a matrix cut by columns lie between each other."""
    def bytes_of(array):
        places = np.zeros((), np.int64)
        for size, stride in zip(array.shape, array.strides):
            places = places[..., None] + stride * np.arange(size)
        return set((array.ctypes.data + places).ravel().tolist())

    for one_pass in passes(batch)[0]:
        for tasks in one_pass:
            written, read = [set() for _ in tasks], [set() for _ in tasks]
            for calls, mine, others in zip(tasks, written, read):
                for kernel, arrays in calls:
                    outputs = OUTPUTS.get(kernel.__name__, 1)
                    arrays = [array for array in arrays if isinstance(array, np.ndarray)]
                    mine.update(*map(bytes_of, arrays[:outputs]))
                    others.update(*map(bytes_of, arrays[outputs:]))
            for i in range(len(tasks)):
                for j in range(len(tasks)):
                    assert i == j or not written[i] & (written[j] | read[j])


#: arrays that a kernel writes, first among its arguments, where they are more than one
OUTPUTS = {"bernoulli_nll_forward": 2, "gaussian_kl_backward": 2, "tanh_backward": 2, "identity_backward": 2,
           "reparameterize_backward": 2}


def test_sums_of_terms_are_the_products():
    """On tasks of any number, one after the other."""
    rng, vae = np.random.default_rng(0), VAE(3, (), 1)
    for number, batch in ((2, 1), (2, 7), (4, 7), (6, 2)):
        x, W, dpre = (rng.standard_normal(shape) for shape in ((batch, 30), (30, 40), (batch, 40)))
        out, dx = np.full((batch, 40), np.nan), np.full((batch, 30), np.nan)
        parts = pieces(batch, min(number, batch))
        whole = [(fused.matmul, (out, x, W)), (fused.matmul, (dx, dpre, W.T))]
        lanes = [[(fused.matmul, (out[part], x[part], W)), (fused.matmul, (dx[part], dpre[part], W.T))]
                 for part in parts]
        found = phases(whole, lanes, number, fused, Lanes(vae, 1).record)
        assert [len(tasks) for tasks in found] == [len(lanes), number, len(lanes), number, len(lanes)]
        for tasks in found:
            for task in tasks:
                for kernel, arrays in task:
                    kernel(*arrays)
        assert np.allclose(out, x @ W, rtol=1e-13) and np.allclose(dx, dpre @ W.T, rtol=1e-13)
