"""What runs the passes of a model, on one core or on several.  Beside the lesson: `model/vae.py` says what is computed,
README.md in this folder how it is run.

    DirectExecutor      whole batches, by Python, as the model is written; BLAS may use threads of its own
    ThreadedExecutor    the calls of a pass are recorded once and partitioned into tasks, each with some rows of every
                        array (`partition.py`); then they are replayed without Python (`recording.py`), the tasks by
                        threads, each with its own rows, and BLAS with one thread

The tasks do not depend on the threads that run them, and nothing is added in an order that does: one thread and two
give the same bits.
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
from .blas_threads import Owner, all_blas_threads, has_one_blas_thread, many_turns_with_one, one_blas_thread
from .partition import LINE, Call, phases, pieces, shares

if TYPE_CHECKING:
    from .team import Order, Team

Task = Callable[[Any], object]      # calls kernels of the module it is given


class Model(Protocol):
    """What an executor asks of a model."""

    dtype: str
    kernels: ModuleType
    parameters: Block
    gradients: Block
    owner: Owner

    @property
    def parts(self) -> Sequence[object]:
        """Those that call kernels: likelihood, flow, prior and so on."""

    @property
    def estimators(self) -> Sequence[KLEstimator]:
        """What its latent variable admits, the usual one first."""

    def forward(self, a: Activations, estimator: KLEstimator, kernels: ModuleType | None = None) -> None:
        """The forward pass, by these kernels or its own."""

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator, kernels: ModuleType | None = None) -> None:
        """The backward pass."""

    def passes(self, batch: int, draws: int) -> tuple[Activations, Gradients]:
        """The arrays of a pass."""

    def config(self) -> dict[str, Any]:
        """What makes the same architecture again."""


def available_cores() -> int:
    """Processors that this process may use, by the system's word or by that of OMP_NUM_THREADS and its like."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wishes = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    return min([cores, *(int(wish) for wish in wishes if wish.isdecimal() and int(wish))])


def make_executor(model: Model, threads: int) -> "DirectExecutor | ThreadedExecutor":
    """Threaded where the model can be recorded: fused kernels, and parts that do nothing but call them.

    That a part is `recordable` its own class must say: a subclass may compute something else.
    """
    if model.kernels is not reference and all(vars(type(part)).get("recordable") for part in model.parts):
        from ..kernels.fused.compile import is_cold
        from .trial import can_replay
        if threads > 1 and is_cold():
            _compile_the_rest(model)
        if can_replay(model.dtype, threads > 1):
            executor = ThreadedExecutor(model, threads)
            if executor.can_record():
                return executor
    be_callable(model)
    return DirectExecutor(model)


def be_callable(model: Model) -> None:
    """Before Python calls kernels: from now on those of NumPy, where it turns out that Numba compiles none."""
    if model.kernels is not reference:
        from .trial import can_call
        if not can_call(model.dtype):
            model.kernels = reference


def _compile_the_rest(model: Model) -> None:
    """The very first run: a second process compiles what a step needs last, into the cache on disk, while this one
    compiles what it needs first.  Numba compiles in one thread at a time.  Should it fail, nothing is lost but time."""
    from ..engine import child
    with contextlib.suppress(Exception):
        process = child.start(f"npvae.engine.executor.compile_backward(npvae.VAE(**{model.config()}))")
        threading.Thread(target=process.wait, daemon=True).start()


def compile_backward(model: Model) -> None:
    """Record the backward pass and the update, which compiles their kernels; for `_compile_the_rest`."""
    executor, estimator = ThreadedExecutor(model, 2), model.estimators[0]
    a, d = model.passes(128, 1)      # as many as are usual: smaller batches are partitioned elsewhere
    executor.record(lambda kernels: model.forward(a, estimator, kernels))      # it makes the memory of masked weights
    executor.order_backward(d, a, estimator)
    flat = model.parameters.flat
    executor.order([executor.record(lambda kernels: kernels.adam_update(flat, flat, flat, flat, *[0.0] * 6))])


class DirectExecutor:
    """Whole batches, as the model is written.  `kernels` are those for a whole batch or all parameters."""

    def __init__(self, model: Model) -> None:
        self.model, self.kernels = weakref.proxy(model), model.kernels      # the model holds its executor
        self.turn = all_blas_threads

    @contextmanager
    def running(self) -> Iterator[None]:
        """To stand around many calls."""
        with self.model.owner:
            yield

    def forward(self, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.forward`."""
        with self.turn:
            self.model.forward(a, estimator)

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.backward`."""
        with self.turn:
            self.model.backward(d, a, estimator)

    def forget(self) -> None:
        """At the end of a training: let go of its data.  Here nothing is kept."""

    def all_finite(self) -> bool:
        """Are the gradients of the last backward pass, the parameters, and the sums of their squares?"""
        return all(math.isfinite(np.dot(block.flat, block.flat))
                   for block in (self.model.gradients, self.model.parameters))


class ThreadedExecutor:
    """The same, recorded, and replayed by threads."""

    def __init__(self, model: Model, threads: int) -> None:
        self.model, self.threads = weakref.proxy(model), threads
        self.number = max(2, threads - threads % 2)      # even: see add_up
        self.shares = shares(model.parameters.shapes, self.number)
        self.squares = np.zeros((0, 0, 1), model.dtype)      # of the last backward pass
        self.kernels = WholeArrayKernels(self)
        self.turn = one_blas_thread

    @functools.cached_property
    def _team(self) -> "Team":
        from .team import Team
        return Team(self.threads)

    @contextmanager
    def running(self) -> Iterator[None]:
        """To stand around many calls: BLAS is told only once to keep to the thread that calls it."""
        with self.model.owner, many_turns_with_one():
            yield

    def run(self, order: "Order") -> None:
        """Replay what `order` made, on all threads; back when all is done."""
        if has_one_blas_thread():
            self._team.run(order)
        else:
            with self.turn:
                self._team.run(order)

    def order(self, *phases: Sequence[Sequence[Call]]) -> "Order":
        """Phases of tasks, each a list of recorded calls; the tasks of a phase may run at the same time."""
        from .team import Order
        return Order(phases, self.threads)

    def record(self, task: Task) -> list[Call]:
        """The kernels that a task calls, with their arrays; nothing is computed."""
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
            a.recorded[key] = self.order(*self._cut(a, lambda kernels: self.model.forward(a, estimator, kernels)))
        self.run(cast("Order", a.recorded[key]))

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator) -> None:
        """`VAE.backward`, and the squares of the gradients that it has written, for `all_finite`."""
        key = "backward", estimator
        if key not in a.recorded:
            a.recorded[key] = self.order_backward(d, a, estimator)
        order, self.squares = cast("tuple[Order, Array]", a.recorded[key])
        self.run(order)

    def order_backward(self, d: Gradients, a: Activations, estimator: KLEstimator) -> "tuple[Order, Array]":
        """What `backward` runs, recorded, and where it leaves sums of squares of all gradients and parameters."""
        gradients, written = self.model.gradients, list[Array]()
        # of parameters; of what products, at most two in a tensor on average, have written; of all else
        places = np.zeros((self.number, 4 * len(gradients), 1), self.model.dtype)
        squares = [iter(task) for task in places]

        def with_squares(calls: Sequence[Call], task: int) -> Iterator[Call]:
            """Those of a product are taken while it is in the cache."""
            for kernel, arguments in calls:
                yield kernel, arguments
                out = arguments[0]
                if kernel in products and np.may_share_memory(out, gradients.flat):
                    written.append(out)
                    yield from self.record(lambda kernels: kernels.sum_squares(next(squares[task]), out.reshape(-1)))

        products = self.model.kernels.matmul, self.model.kernels.mask_backward
        found = [[list(with_squares(calls, task)) for task, calls in enumerate(tasks)]
                 for tasks in self._cut(a, lambda kernels: self.model.backward(d, a, estimator, kernels))]
        others = [gradient.reshape(-1) for gradient in gradients.values()
                  if sum(out.size for out in written if np.may_share_memory(gradient, out)) < gradient.size]

        def rest(kernels: ModuleType, task: int) -> None:
            """Of all other gradients, and of the parameters."""
            for block in others:
                kernels.sum_squares(next(squares[task]), block[pieces(len(block), self.number, LINE)[task]])
            for part in self.shares[task]:
                kernels.sum_squares(next(squares[task]), self.model.parameters.flat[part])

        ends = [self.record(functools.partial(rest, task=task)) for task in range(self.number)]
        return self.order(*found, ends), places

    def _cut(self, a: Activations, task: Task) -> list[list[list[Call]]]:
        """The phases of a pass."""
        batch, draws, _ = a.eps.shape
        return phases(self.record(task), self.number, batch, draws, self.model.kernels, self.record)

    def forget(self) -> None:
        """At the end of a training: let go of its data."""
        self.kernels.forget()

    def all_finite(self) -> bool:
        """As `DirectExecutor` has it."""
        return math.isfinite(self.squares.sum())


class WholeArrayKernels:
    """Kernels for a whole batch or all parameters, in parts that run at the same time."""

    def __init__(self, executor: ThreadedExecutor) -> None:
        self._executor = weakref.proxy(executor)
        self._orders: dict[tuple[Hashable, ...], tuple[tuple[Array, ...], Order]] = {}

    def __getattr__(self, name: str) -> Any:
        """Any other kernel, as it is."""
        return getattr(self._executor.model.kernels, name)

    def forget(self) -> None:
        """What was recorded, and with it the arrays."""
        self._orders.clear()

    def gather_rows(self, x: Array, rows: Array, index: Array, scale: float) -> None:
        self._run("gather_rows", (x, rows, index), (scale,), self._rows(x), shared=1)

    def gather_binarized(self, x: Array, rows: Array, index: Array, noise: Array, scale: float) -> None:
        self._run("gather_binarized", (x, rows, index, noise), (scale,), self._rows(x), shared=1)

    def box_muller(self, eps: Array, uniform: Array) -> None:
        self._run("box_muller", (eps, uniform), (), [[part] for part in pieces(eps.size, self._executor.number, LINE)])

    def adam_update(self, theta: Array, m: Array, v: Array, grad: Array, lr: float, beta1: float, beta2: float,
                    eps: float, scale: float, step: int) -> None:
        self._run("adam_update", (theta, m, v, grad), (lr, beta1, beta2, eps, scale, step), self._executor.shares)

    def _rows(self, x: Array) -> list[list[slice]]:
        """Some for each task."""
        return [[part] for part in pieces(len(x), self._executor.number)]

    def _run(self, name: str, arrays: tuple[Array, ...], scalars: tuple[float, ...], parts: Sequence[Sequence[slice]],
             shared: int | None = None) -> None:
        """For each task, its parts of all arrays but the shared one; the scalars may differ from call to call."""
        values = [float(value) for value in scalars]
        key = name, *map(id, arrays)
        if key not in self._orders:
            if len(self._orders) >= 16:      # arrays that come and go, data sets among them
                self._orders.clear()

            def call(kernels: ModuleType, own: Sequence[slice]) -> None:
                for part in own:
                    getattr(kernels, name)(*(array if i == shared else array[part] for i, array in enumerate(arrays)),
                                           *values)
            tasks = [self._executor.record(functools.partial(call, own=own)) for own in parts]
            self._orders[key] = arrays, self._executor.order(tasks)
        order = self._orders[key][1]
        order.set_scalars(values)
        self._executor.run(order)
