"""How a step is split into tasks: everything is in one part and no more, and what a task reads is there by then."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from npvae import VAE
from npvae.engine.partition import ALIGNMENT, parameter_slices, phases, pieces
from npvae.kernels.roles import NOT_SPLIT, roles_of
from npvae.kernels import fused, reference
from npvae.engine.executor import ThreadedExecutor
from recorded_calls import arguments_of


@given(size=st.integers(0, 500), number=st.integers(1, 6), multiple=st.sampled_from([1, 16, 64]))
def test_pieces(size, number, multiple):
    found = pieces(size, number, multiple)
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(size)) and len(found) == number
    assert all(part.start % multiple == 0 and abs(part.stop - part.start - size / number) <= multiple
               for part in found[:-1])


@given(shapes=st.lists(st.lists(st.integers(1, 40), max_size=2).map(tuple), min_size=1, max_size=6),
       number=st.sampled_from([2, 4]))
def test_parameter_slices_hold_every_parameter_once(shapes, number):
    """And of each tensor a task has the part that it multiplies, but for what a cache line adds at both ends."""
    found, owner, start = parameter_slices(dict(enumerate(shapes)), number), np.full(sum(map(math.prod, shapes)), -1), 0
    for task, parts in enumerate(found):
        assert len(parts) <= len(shapes)
        for part in parts:
            assert part.start < part.stop and (owner[part] == -1).all() and part.start * 4 % 64 == 0      # bytes
            owner[part] = task
    assert (owner >= 0).all() and len(found) == number
    for shape in shapes:
        size = math.prod(shape)
        for task, part in enumerate(pieces(size, number)):
            inner = owner[start + part.start:start + part.stop][:-ALIGNMENT or None]
            assert (inner == task).all() or size < number * ALIGNMENT
        start += size


MODEL = VAE(3, (), 1)      # which a recorder asks for kernels
RECORD = ThreadedExecutor(MODEL, 1).record


# ---- What the arguments of a kernel are

IN_A_PASS = sorted(set(fused.__all__) - {"transpose", "sum_squares", "adam_update", "gather_rows", "gather_binarized",
                                         "box_muller", "importance_bound_forward", "importance_bound_backward",
                                         "gaussian_optimal_nll_forward", "gaussian_optimal_nll_backward"})


def run(tasks_of_phases):
    """One task after the other, the last first."""
    for tasks in tasks_of_phases:
        for task in reversed(tasks):
            for kernel, arguments in task:
                kernel(*arguments)


@pytest.mark.every(5)
@pytest.mark.parametrize("number", [2, 4, 6])
@pytest.mark.parametrize("name", IN_A_PASS)
def test_a_kernel_in_parts_is_the_kernel(name, number):
    """It writes what its roles say and no more, and tasks make together what the kernel makes alone."""
    kernel, arguments = getattr(reference, name), arguments_of(name, "float64")
    roles = roles_of(kernel, arguments)
    before, whole = [value.copy() for value in arguments], [value.copy() for value in arguments]
    kernel(*whole)
    assert [not np.array_equal(*pair) for pair in zip(before, whole)] == [role.isupper() for role in roles]
    batch = len(arguments[0])
    found = phases([(kernel, tuple(arguments))], number, batch, 1, reference, RECORD)
    tasks = [own for tasks in found for task in tasks for kernel, own in task if kernel.__name__ == name]
    assert name in NOT_SPLIT or len(tasks) > 1
    assert all(sum(np.shares_memory(own[i], arguments[i]) for own in tasks) == 1
               for i, role in enumerate(roles) if role == "E")
    run([[[(getattr(reference, kernel.__name__), own) for kernel, own in task] for task in tasks] for tasks in found])
    for ours, alone in zip(arguments, whole):
        assert np.allclose(ours, alone, rtol=1e-12, atol=1e-12 * np.abs(alone).max())


def test_other_kernels_are_no_part_of_a_pass():
    """So that none can be forgotten above: this is all that the passes of every kind of model call."""
    called = set()
    for config in CONFIGS:
        vae, seen = VAE(30, **config), []
        a, d = vae.passes(4, 3)
        for estimator in vae.estimators:
            seen += ThreadedExecutor(vae, 1).record(lambda kernels: vae.forward(a, estimator, kernels))
            seen += ThreadedExecutor(vae, 1).record(lambda kernels: vae.backward(d, a, estimator, kernels))
        called |= {kernel.__name__ for kernel, _ in seen}
    assert called <= set(IN_A_PASS)


# ---- Phases

CONFIGS = [
    {"hidden": (64, 66), "latent_dim": 5, "activation": "tanh"},
    {"hidden": (), "latent_dim": 3, "classes": 4},
    {"hidden": (9,), "latent_dim": 40, "decoder": "made:70+direct"},
    {"hidden": (20,), "latent_dim": 6, "prior": "mixture:7"},
    {"hidden": (20,), "latent_dim": 6, "prior": "vamp:11"},
    {"hidden": (), "latent_dim": 6, "prior": "vamp:11"},
    {"hidden": (20,), "latent_dim": 6, "prior": "hierarchical:12,5"},
    {"hidden": (20,), "latent_dim": 6, "posterior": "planar:3"},
    {"hidden": (20,), "latent_dim": 6, "posterior": "iaf:2", "prior": "mixture:4", "decoder": "made:30", "classes": 3},
    {"hidden": (20,), "latent_dim": 6, "likelihood": "gaussian-learned:1"},
    {"hidden": (20,), "latent_dim": 6, "likelihood": "discretized-logistic"}]
WIDE = 70


class Spy(ThreadedExecutor):
    def __init__(self, vae):
        super().__init__(vae, 2)
        self.seen = []

    def make_program(self, *phases):
        self.seen.append([tasks for tasks in phases if any(tasks)])

    def run(self, program):
        pass


def passes(batch, draws=1, **config):
    """The phases of both passes of a model as they are given to the threads, and the model."""
    vae = VAE(WIDE, **(config or CONFIGS[0]))
    vae.threads = 2
    a, d = vae.passes(batch, draws)
    engine, estimator = Spy(vae), vae.estimators[0]
    engine.forward(a, estimator)
    engine.backward(d, a, estimator)
    return engine.seen, vae, engine


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


@pytest.mark.parametrize("batch, split", [(1, True), (2, True), (20, True), (100, False)])
def test_few_rows_are_split_by_the_weights(batch, split):
    """Each task has rows of its own, the same in the forward pass, in the backward pass and in the update; with many
    images it has all of them."""
    seen, vae, engine = passes(batch)
    W = vae.parameters["encoder.1.W"]
    at = (W.ctypes.data - vae.parameters.flat.ctypes.data) // W.itemsize
    for one_pass in seen:
        found = list(products_with(W, one_pass))
        assert len({phase for phase, _, _ in found}) == 1 and [task for _, task, _ in found] == [0, 1]
        assert [rows for _, _, rows in found] == ([range(32), range(32, 64)] if split else [range(64)] * 2)
    for task, rows in enumerate([range(32), range(32, 64)]):
        own = np.zeros(vae.parameters.flat.size, bool)
        for part in engine.parameter_slices[task]:
            own[part] = True
        assert own[at + 66 * rows.start + ALIGNMENT:at + 66 * rows.stop - ALIGNMENT].all()


def test_threads_meet_where_they_must():
    """Of many images the forward pass is one phase.  Backward they meet before each gradient of weights but those of
    the two heads, which is one meeting; before the biases are added up; and before their squares."""
    (forward, backward), vae, _ = passes(1000)
    assert len(forward) == 1 and len(backward) == 1 + 3 + 1 + 2 + 2


def test_draws_of_an_image_stay_together():
    """Rows for every draw and rows for every image are split between the same images, also where half of the draws ends
    within one: threads meet as often as where it does not."""
    (forward, backward), _, _ = passes(1001, 3)
    assert len(forward) == 1 and len(backward) == len(passes(1000, 3)[0][1])


def test_what_a_task_reads_is_not_written_before_it_has():
    """A product reads all of W, in each task; then W is written, in parts, if not at once.  Whichever task comes first,
    it must not write what the other has still to read."""
    rng, more = np.random.default_rng(0), np.ones((2, 90))
    x, W, one, other = (rng.standard_normal(shape) for shape in ((90, 5), (5, 6), (5, 6), (5, 6)))
    out, expected = np.full((90, 6), np.nan), x @ W
    between = fused.negate, tuple(more)
    run(phases([(fused.matmul, (out, x, W)), between, (fused.add, (W, one, other))], 2, 90, 1, fused, RECORD))
    assert np.allclose(out, expected, rtol=1e-13) and np.array_equal(W, one + other)


def kernels_in(found):
    """By name, for each task of each phase."""
    return [[[kernel.__name__ for kernel, _ in task] for task in tasks] for tasks in found]


@pytest.mark.parametrize("shape", [(6, 4), (2, 1)])
def test_what_a_task_writes_is_not_written_by_another_in_the_same_phase(shape):
    x, y = np.zeros(shape), np.ones((3, *shape))
    halves = [["negate"], ["negate"]]
    calls = [(reference.negate, (x, y[0])), (reference.sum_first, (x, y)), (reference.negate, (y[1], y[2]))]
    assert kernels_in(phases(calls, 2, len(x), 1, reference, RECORD)) == [halves, [["sum_first"], []], halves]


@pytest.mark.parametrize("number, added", [
    (2, [[0, 0], [2, 1], [1, 0]]), (4, [[0, 0, 0, 0], [3, 3, 3, 0], [0, 0, 0, 0], [3, 0, 0, 0]])])
def test_sums_over_rows_are_put_off_until_one_is_read(number, added):
    """Then the threads share those that are due, and each is added up once, into memory that is not read.  Who has
    added one up may read it."""
    rng = np.random.default_rng(0)
    dpre, dout, out = rng.integers(1, 9, (3, 4, 9, 5)).astype(float)
    sums, read = np.full((4, 5), np.nan), np.full((1, 5), np.nan)
    layers = [(reference.identity_backward, arrays) for arrays in zip(dpre, sums, dout, out)]
    found = phases([*layers[:3], (reference.negate, (read, sums[1:2])), layers[3]], number, 9, 1, reference, RECORD)
    assert [[task.count("add") for task in tasks] for tasks in kernels_in(found)] == added
    assert not any(np.shares_memory(out, term) for tasks in found for task in tasks for _, (out, *terms) in task
                   for term in terms)
    run(found)
    assert np.array_equal(sums, dout.sum(axis=1)) and np.array_equal(read, -sums[1:2])


@pytest.mark.parametrize("rows, inner, columns, split", [
    (2, 3, 6, True), (2, 6, 3, True), (3, 3, 6, False), (3, 6, 3, False), (2, 4, 4, True), (1, 9, 1, False)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_is_split_by_weights_that_are_as_many_numbers_as_its_rows(rows, inner, columns, split, turned):
    """Into sums, or where the weights are transposed into columns.  Sums are not for columns of a matrix; what they are
    of may be."""
    for wide_out, wide_x in ((0, 0), (0, 1), (1, 0)):
        W = np.ones((columns, inner)).T if turned else np.ones((inner, columns))
        out, x = np.zeros((rows, columns + wide_out))[:, :columns], np.ones((rows, inner + wide_x))[:, :inner]
        found = phases([(reference.matmul, (out, x, W))], 2, rows, 1, reference, RECORD)
        parts = [task[0][1][2].shape for task in found[0] if task]
        if split and (turned or not wide_out):
            shapes = [(inner, columns // 2), (inner, columns - columns // 2)] if turned else [
                (inner // 2, columns), (inner - inner // 2, columns)]
            assert parts == shapes and len(found) == 2 - turned
            assert turned or [task[0][1][0].shape for task in found[1]] == [(1, columns)] * 2
        else:
            assert parts == [W.shape] * min(rows, 2) and len(found) == 1
        run(found)
        assert (out == inner).all()


@pytest.mark.every(8)
@pytest.mark.parametrize("config", range(len(CONFIGS)))
@pytest.mark.parametrize("batch, draws", [(1, 1), (2, 1), (3, 2), (20, 1), (100, 3)])
def test_no_task_reads_what_another_writes_in_the_same_phase(batch, draws, config):
    """Nor do two write to one place.  Byte by byte, since rows of a matrix split by columns lie between each other."""
    def bytes_of(array):
        places = np.zeros((), np.int64)
        for size, stride in zip(array.shape, array.strides):
            places = places[..., None] + stride * np.arange(size)
        return set((array.ctypes.data + places).ravel().tolist())

    for one_pass in passes(batch, draws, **CONFIGS[config])[0]:
        for tasks in one_pass:
            written, read = [set() for _ in tasks], [set() for _ in tasks]
            for calls, mine, others in zip(tasks, written, read):
                for kernel, arguments in calls:
                    for role, array in zip(roles_of(kernel, arguments), arguments, strict=True):
                        (mine if role.isupper() else others).update(bytes_of(array))
            for i in range(len(tasks)):
                for j in range(len(tasks)):
                    assert i == j or not written[i] & (written[j] | read[j])


@pytest.mark.every(3)
@pytest.mark.parametrize("config", range(len(CONFIGS)))
@pytest.mark.parametrize("batch", [1, 20, 100])
def test_every_gradient_and_parameter_is_squared(batch, config):
    """After the last who writes it: `all_finite` asks for no more than these sums."""
    (_, backward), vae, engine = passes(batch, **CONFIGS[config])
    slots, blocks = set(), (vae.gradients.flat, vae.parameters.flat)
    seen = [np.zeros(block.size, bool) for block in blocks]

    def part_of(array, block):
        start = (array.ctypes.data - blocks[block].ctypes.data) // array.itemsize
        return seen[block][start:start + array.size]

    for kernel, arguments in (call for tasks in backward for task in tasks for call in task):
        out, *others = arguments
        if kernel is fused.sum_squares:
            slots.add(out.ctypes.data)
            assert np.shares_memory(out, engine.squares)
            part_of(others[0], not np.may_share_memory(others[0], blocks[0]))[...] = True
        elif np.may_share_memory(out, blocks[0]):
            assert not part_of(out, 0).any()
    assert all(part.all() for part in seen)
    assert len(slots) == sum(kernel is fused.sum_squares for tasks in backward for task in tasks for kernel, _ in task)


def test_sums_of_terms_are_the_products():
    """On tasks of any number, one after the other."""
    rng = np.random.default_rng(0)
    for number, batch in ((2, 1), (2, 7), (4, 7), (6, 2)):
        x, W, dpre = (rng.standard_normal(shape) for shape in ((batch, 30), (30, 40), (batch, 40)))
        out, dx = np.full((batch, 40), np.nan), np.full((batch, 30), np.nan)
        found = phases([(fused.matmul, (out, x, W)), (fused.matmul, (dx, dpre, W.T))], number, batch, 1, fused, RECORD)
        assert sum(kernel is fused.matmul for tasks in found for task in tasks for kernel, _ in task) == 2 * number
        run(found)
        assert np.allclose(out, x @ W, rtol=1e-13) and np.allclose(dx, dpre @ W.T, rtol=1e-13)
