"""What runs the passes of a model.  `model/vae.py` says what is computed; README.md in this folder says how it is run.

    DirectExecutor      calls kernels by Python, on whole batches, as the model is written; BLAS may use several threads
    ThreadedExecutor    records the kernel calls of a pass once and splits them into tasks, each with some rows of every
                        array (`partition.py`); then replays the tasks on several threads (`team.py`), and BLAS uses one
                        thread for each of them

The tasks do not depend on the number of threads that run them, and nothing is added in an order that does: one thread
and two give the same bits.
"""
import contextlib
import functools
import math
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from ..buffers import Activations, Gradients
from ..kernels import reference
from ..latents.base import KLEstimator
from ..params import Array, Block
from .blas_threads import Owner, all_blas_threads, has_one_blas_thread, keep_one_blas_thread, one_blas_thread
from .partition import ALIGNMENT, Call, parameter_slices, phases, pieces

if TYPE_CHECKING:
    from .team import ParallelProgram, Team

Task = Callable[[Any], object]      # a function of a module of kernels, which calls some of them


class Model(Protocol):
    """What an executor asks of a model."""

    dtype: str
    kernels: ModuleType
    parameters: Block
    gradients: Block
    owner: Owner

    @property
    def parts(self) -> Sequence[object]:
        """Likelihood, flow, prior and so on: whatever calls kernels."""

    @property
    def estimators(self) -> Sequence[KLEstimator]:
        """Those that its latent variable allows, the usual one first."""

    def forward(self, a: Activations, estimator: KLEstimator, kernels: ModuleType | None = None) -> None:
        """The forward pass, with these kernels or its own."""

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator, kernels: ModuleType | None = None) -> None:
        """The backward pass."""

    def passes(self, batch: int, draws: int) -> tuple[Activations, Gradients]:
        """The arrays of a pass."""

    def config(self) -> dict[str, Any]:
        """The arguments of `VAE` that make the same architecture."""


def available_cores() -> int:
    """How many cores this process may use: what the system allows, or less where OMP_NUM_THREADS or its like say."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wishes = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    return min([cores, *(int(wish) for wish in wishes if wish.isdecimal() and int(wish))])


def make_executor(model: Model, threads: int) -> "DirectExecutor | ThreadedExecutor":
    """A `ThreadedExecutor` where the model can be recorded: it has fused kernels, and parts that only call kernels.

    Each class of a part must say `recordable = True` itself: what is true of a class need not be of a subclass.
    """
    if model.kernels is not reference and all(vars(type(part)).get("recordable") for part in model.parts):
        from ..kernels.fused.compile import is_cold
        from .trial import can_replay
        if threads > 1 and is_cold():
            _compile_in_background(model)
        if can_replay(model.dtype, threads > 1):
            executor = ThreadedExecutor(model, threads)
            if executor.can_record():
                return executor
    ensure_callable(model)
    return DirectExecutor(model)


def ensure_callable(model: Model) -> None:
    """Before Python calls kernels: give the model those of NumPy, where Numba turns out to compile none."""
    if model.kernels is not reference:
        from .trial import can_call
        if not can_call(model.dtype):
            model.kernels = reference


def _compile_in_background(model: Model) -> None:
    """At the very first run: another process compiles what a step needs last, into the cache on disk, while this one
    compiles what it needs first.  (In one process, Numba compiles in one thread at a time.)  If it fails, only time is
    lost."""
    from . import child
    with contextlib.suppress(Exception):
        process = child.start(f"npvae.engine.executor.compile_backward(npvae.VAE(**{model.config()}))")
        threading.Thread(target=process.wait, daemon=True).start()


def compile_backward(model: Model) -> None:
    """Record the backward pass and the update, which compiles their kernels; for `_compile_in_background`."""
    executor, estimator = ThreadedExecutor(model, 2), model.estimators[0]
    a, d = model.passes(128, 1)      # a usual batch: a small one is split by weights, which needs other kernels
    executor.record(lambda kernels: model.forward(a, estimator, kernels))      # allocates the memory of masked weights
    executor.make_backward(d, a, estimator)
    flat = model.parameters.flat
    executor.make_program([executor.record(lambda kernels: kernels.adam_update(flat, flat, flat, flat, *[0.0] * 6))])


class DirectExecutor:
    """Runs whole batches, as the model is written.

    kernels : for what is not part of a pass: gathering a batch, noise, the update of all parameters
    blas_mode : a context manager, with BLAS's threads as this executor needs them
    """

    def __init__(self, model: Model) -> None:
        self.model, self.kernels = weakref.proxy(model), model.kernels      # the model holds its executor
        self.blas_mode = all_blas_threads

    @contextmanager
    def running(self) -> Iterator[None]:
        """A context manager, to stand around many calls."""
        with self.model.owner:
            yield

    def forward(self, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.forward`."""
        with self.blas_mode:
            self.model.forward(a, estimator)

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.backward`."""
        with self.blas_mode:
            self.model.backward(d, a, estimator)

    def forget(self) -> None:
        """At the end of a training: release its data.  Here nothing is held."""

    def all_finite(self) -> bool:
        """Are all gradients of the last backward pass finite, all parameters, and the sums of their squares?"""
        return all(math.isfinite(np.dot(block.flat, block.flat))
                   for block in (self.model.gradients, self.model.parameters))


class ThreadedExecutor:
    """Records passes, and replays them on several threads.  `kernels` and `blas_mode` as of `DirectExecutor`.

    n_tasks : into so many tasks every phase is split
    parameter_slices : for each task, the parameters that it updates
    """

    def __init__(self, model: Model, threads: int) -> None:
        self.model, self.threads = weakref.proxy(model), threads
        self.n_tasks = max(2, threads - threads % 2)      # even: see add_up
        self.parameter_slices = parameter_slices(model.parameters.shapes, self.n_tasks)
        self.squares = np.zeros((0, 0, 1), model.dtype)      # of the last backward pass
        self.kernels = WholeArrayKernels(self)
        self.blas_mode = one_blas_thread

    @functools.cached_property
    def _team(self) -> "Team":
        from .team import Team
        return Team(self.threads)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A context manager, to stand around many calls: BLAS is limited to one thread only once."""
        with self.model.owner, keep_one_blas_thread():
            yield

    def run(self, program: "ParallelProgram") -> None:
        """Replay it on all threads; returns when it is done."""
        if has_one_blas_thread():
            self._team.run(program)
        else:
            with self.blas_mode:
                self._team.run(program)

    def make_program(self, *phases: Sequence[Sequence[Call]]) -> "ParallelProgram":
        """From phases of tasks, each a list of recorded calls.  The tasks of a phase may run at the same time."""
        from .team import ParallelProgram
        return ParallelProgram(phases, self.threads)

    def record(self, task: Task) -> list[Call]:
        """The kernels that a task calls, with their arguments; nothing is computed."""
        from .recording import Recorder
        recorder = Recorder(self.model.kernels)
        task(recorder)
        return recorder.calls

    def can_record(self) -> bool:
        """Has every kernel that the passes call a compiled twin?"""
        from .recording import has_machine_code
        model, estimator = self.model, self.model.estimators[0]
        a, d = model.passes(1, 1)
        calls = self.record(lambda kernels: (model.forward(a, estimator, kernels),
                                             model.backward(d, a, estimator, kernels)))
        return all(has_machine_code(kernel) for kernel, _ in calls)

    def forward(self, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.forward`."""
        key = "forward", estimator.is_sampled
        if key not in a.recorded:
            a.recorded[key] = self.make_program(
                *self._phases(a, lambda kernels: self.model.forward(a, estimator, kernels)))
        self.run(cast("ParallelProgram", a.recorded[key]))

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.backward`, and the sums of squares that `all_finite` looks at."""
        key = "backward", estimator
        if key not in a.recorded:
            a.recorded[key] = self.make_backward(d, a, estimator)
        program, self.squares = cast("tuple[ParallelProgram, Array]", a.recorded[key])
        self.run(program)

    def make_backward(self, d: Gradients, a: Activations, estimator: KLEstimator) -> "tuple[ParallelProgram, Array]":
        """The program of `backward`, and the array into which it writes sums of squares of parts of all gradients and
        parameters."""
        gradients, written = self.model.gradients, list[Array]()
        # a task has at most one place per tensor for its parameters, two on average for what products have written
        # into its gradient, one for the gradient where they have not written all of it
        places = np.zeros((self.n_tasks, 4 * len(gradients), 1), self.model.dtype)
        squares = [iter(task) for task in places]

        def with_squares(calls: Sequence[Call], task: int) -> Iterator[Call]:
            """What a product has written is squared at once, while it is in the processor's cache."""
            for kernel, arguments in calls:
                yield kernel, arguments
                out = arguments[0]
                if kernel in products and np.may_share_memory(out, gradients.flat):
                    written.append(out)
                    yield from self.record(lambda kernels: kernels.sum_squares(next(squares[task]), out.reshape(-1)))

        products = self.model.kernels.matmul, self.model.kernels.mask_backward
        found = [[list(with_squares(calls, task)) for task, calls in enumerate(tasks)]
                 for tasks in self._phases(a, lambda kernels: self.model.backward(d, a, estimator, kernels))]
        others = [gradient.reshape(-1) for gradient in gradients.values()
                  if sum(out.size for out in written if np.may_share_memory(gradient, out)) < gradient.size]

        def rest(kernels: ModuleType, task: int) -> None:
            """The squares of all other gradients, and of the parameters."""
            for block in others:
                kernels.sum_squares(next(squares[task]), block[pieces(len(block), self.n_tasks, ALIGNMENT)[task]])
            for part in self.parameter_slices[task]:
                kernels.sum_squares(next(squares[task]), self.model.parameters.flat[part])

        ends = [self.record(functools.partial(rest, task=task)) for task in range(self.n_tasks)]
        return self.make_program(*found, ends), places

    def _phases(self, a: Activations, task: Task) -> list[list[list[Call]]]:
        """The phases of a pass."""
        batch, draws, _ = a.eps.shape
        return phases(self.record(task), self.n_tasks, batch, draws, self.model.kernels, self.record)

    def forget(self) -> None:
        """At the end of a training: release its data."""
        self.kernels.forget()

    def all_finite(self) -> bool:
        """As of `DirectExecutor`: a sum that is not finite contains a number that is not, or is too large."""
        return math.isfinite(self.squares.sum())


class WholeArrayKernels:
    """Kernels on a whole batch or on all parameters, outside of a pass.  Each call is split into tasks, recorded when
    it is first made with these arrays, and replayed by all threads; its scalars may differ from call to call."""

    def __init__(self, executor: ThreadedExecutor) -> None:
        self._executor = weakref.proxy(executor)
        self._programs: dict[tuple[Hashable, ...], tuple[tuple[Array, ...], ParallelProgram]] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Any other kernel, not split."""
        kernel: Callable[..., None] = getattr(self._executor.model.kernels, name)
        return kernel

    def forget(self) -> None:
        """Release what was recorded, and with it the arrays."""
        self._programs.clear()

    def gather_rows(self, x: Array, rows: Array, index: Array, scale: float) -> None:
        self._run("gather_rows", (x, rows, index), (scale,), self._slices(len(x)), shared=1)

    def gather_binarized(self, x: Array, rows: Array, index: Array, noise: Array, scale: float) -> None:
        self._run("gather_binarized", (x, rows, index, noise), (scale,), self._slices(len(x)), shared=1)

    def box_muller(self, eps: Array, uniform: Array) -> None:
        self._run("box_muller", (eps, uniform), (), self._slices(eps.size, ALIGNMENT))

    def adam_update(self, theta: Array, m: Array, v: Array, grad: Array, lr: float, beta1: float, beta2: float,
                    eps: float, scale: float, step: int) -> None:
        self._run("adam_update", (theta, m, v, grad), (lr, beta1, beta2, eps, scale, step),
                  self._executor.parameter_slices)

    def _slices(self, size: int, multiple: int = 1) -> list[list[slice]]:
        """One for each task."""
        return [[part] for part in pieces(size, self._executor.n_tasks, multiple)]

    def _run(self, name: str, arrays: tuple[Array, ...], scalars: tuple[float, ...], parts: Sequence[Sequence[slice]],
             shared: int | None = None) -> None:
        """`parts` are the slices of the arrays that each task gets; of array number `shared` it gets all."""
        values = [float(value) for value in scalars]
        key = name, *map(id, arrays)
        if key not in self._programs:
            if len(self._programs) >= 16:      # each holds its arrays, data sets among them
                self._programs.clear()

            def call(kernels: ModuleType, own: Sequence[slice]) -> None:
                for part in own:
                    getattr(kernels, name)(*(array if i == shared else array[part] for i, array in enumerate(arrays)),
                                           *values)
            tasks = [self._executor.record(functools.partial(call, own=own)) for own in parts]
            self._programs[key] = arrays, self._executor.make_program(tasks)
        program = self._programs[key][1]
        program.set_scalars(values)
        self._executor.run(program)
