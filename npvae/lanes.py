"""Two cores: how the passes of a model are run.  Beside the lesson; `model.py` says what is computed.

    Direct    on whole batches, as it is written, by Python; BLAS may use threads of its own
    Lanes     what a pass calls is recorded once and cut into lanes, each with some rows of every array (`cuts.py`);
              then it is replayed without Python (`kernels/fused/native.py`), each lane by one thread, BLAS with one

Chosen by measurement, 784-128-20 at batch 128 on two cores: BLAS with two threads and everything else on one core
0.63 ms a step, lanes 0.50 ms, of which the products alone are 0.40.  BLAS's threads meet after every product; two
threads of Python, one for each half of the batch, wait for the interpreter (0.55 ms).  Here the threads meet some ten
times in a step: around the forward pass, before the gradient of each layer's weights, before and after the update; and
more often where products are cut by the weights.

The lanes do not depend on the threads that run them, and nothing is added in an order that does: one thread and two
give the same bits.
"""
import contextlib
import functools
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .cuts import LINE, Call, phases, pieces, shares
from .kernels import reference
from .params import Array
from .turns import all_blas_threads, has_one_blas_thread, many_turns_with_one, one_blas_thread

if TYPE_CHECKING:
    from .model import VAE

Task = Callable[[Any], None]      # calls kernels of the module it is given


def available_cores() -> int:
    """Processors that this process may use, by the system's word or by that of OMP_NUM_THREADS and its like."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wishes = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    return min([cores, *(int(wish) for wish in wishes if wish.isdecimal() and int(wish))])


def engine(vae: "VAE", threads: int) -> "Direct | Lanes":
    """Lanes where the model can be recorded: fused kernels, and parts that do nothing but call them.

    That a part is `recordable` its own class must say: a subclass may compute something else.
    """
    parts = vae.likelihood, vae.output, vae.latent, *vae.latent.parts
    if vae.kernels is not reference and all(vars(type(part)).get("recordable") for part in parts):
        from .kernels.fused.compile import is_cold
        from .kernels.fused.trial import can_replay
        if threads > 1 and is_cold():
            _compile_the_rest(vae)
        if can_replay(vae.dtype, threads > 1):
            return Lanes(vae, threads)
    be_callable(vae)
    return Direct(vae)


def be_callable(vae: "VAE") -> None:
    """Before Python calls kernels: from now on those of NumPy, where it turns out that Numba compiles none."""
    if vae.kernels is not reference:
        from .kernels.fused.trial import can_call
        if not can_call(vae.dtype):
            vae.kernels = reference


def _compile_the_rest(vae: "VAE") -> None:
    """The very first run: a second process compiles what a step needs last, into the cache on disk, while this one
    compiles what it needs first.  Numba compiles in one thread at a time.  Should it fail, nothing is lost but time."""
    from .kernels.fused import child
    with contextlib.suppress(Exception):
        process = child.start(f"npvae.lanes.compile_backward(npvae.VAE(**{vae.config()}))")
        threading.Thread(target=process.wait, daemon=True).start()


def compile_backward(vae: "VAE") -> None:
    """Record the backward pass and the update, which compiles their kernels; for `_compile_the_rest`."""
    lanes, sampled = Lanes(vae, 2), not vae.latent.analytic
    a, d = vae.passes(128, 1)      # as many as are usual: smaller batches are cut elsewhere
    lanes.record(lambda kernels: vae.forward(a, sampled, kernels))      # it makes the memory of masked weights
    lanes.order_backward(d, a, sampled)
    flat = vae.parameters.flat
    lanes.order([lanes.record(lambda kernels: kernels.adam_update(flat, flat, flat, flat, *[0.0] * 6))])


class Direct:
    """Whole batches, as the model is written.  `kernels` are those for a whole batch or all parameters."""

    def __init__(self, vae: "VAE") -> None:
        self.vae, self.kernels = weakref.proxy(vae), vae.kernels      # the model holds its engine, not the reverse
        self.turn = all_blas_threads

    @contextmanager
    def running(self) -> Iterator[None]:
        """To stand around many calls."""
        with self.vae.owner:
            yield

    def forward(self, a: SimpleNamespace, sampled: bool | str) -> None:
        """`VAE.forward`."""
        with self.turn:
            self.vae.forward(a, sampled)

    def backward(self, d: SimpleNamespace, a: SimpleNamespace, sampled: bool | str) -> None:
        """`VAE.backward`."""
        with self.turn:
            self.vae.backward(d, a, sampled)

    def forget(self) -> None:
        """At the end of a training: let go of its data.  Here nothing is kept."""

    def all_finite(self) -> bool:
        """Are the gradients of the last backward pass, the parameters, and the sums of their squares?"""
        return all(math.isfinite(np.dot(block.flat, block.flat)) for block in (self.vae.gradients, self.vae.parameters))


class Lanes:
    """The same, recorded, and replayed by threads."""

    def __init__(self, vae: "VAE", threads: int) -> None:
        self.vae, self.threads = weakref.proxy(vae), threads
        self.number = max(2, threads - threads % 2)      # even: see add_up
        self.shares = shares(vae.parameters.shapes, self.number)
        self.squares = np.zeros((0, 0, 1), vae.dtype)      # of the last backward pass
        self.kernels = Whole(self)
        self.turn = one_blas_thread

    @functools.cached_property
    def _team(self) -> Any:
        from .kernels.fused.team import Team
        return Team(self.threads)

    @contextmanager
    def running(self) -> Iterator[None]:
        """To stand around many calls: BLAS is told only once to keep to the thread that calls it."""
        with self.vae.owner, many_turns_with_one():
            yield

    def run(self, order: Any) -> None:
        """Replay what `order` made, on all threads; back when all is done."""
        if has_one_blas_thread():
            self._team.run(order)
        else:
            with self.turn:
                self._team.run(order)

    def order(self, *phases: Sequence[Sequence[Any]]) -> Any:
        """Phases of tasks, each a list of recorded calls; the tasks of a phase may run at the same time."""
        from .kernels.fused.team import Order
        return Order(phases, self.threads)

    def record(self, task: Task) -> list[Any]:
        """The kernels that a task calls, with their arrays; nothing is computed."""
        from .kernels.fused.recording import Recorder
        recorder = Recorder(self.vae.kernels)
        task(recorder)
        return recorder.calls

    def forward(self, a: SimpleNamespace, sampled: bool | str) -> None:
        """`VAE.forward`."""
        key = "forward", sampled
        if key not in a.orders:
            a.orders[key] = self.order(*self._cut(a, lambda kernels: self.vae.forward(a, sampled, kernels)))
        self.run(a.orders[key])

    def backward(self, d: SimpleNamespace, a: SimpleNamespace, sampled: bool | str) -> None:
        """`VAE.backward`, and the squares of the gradients that it has written, for `all_finite`."""
        key = "backward", sampled
        if key not in a.orders:
            a.orders[key] = self.order_backward(d, a, sampled)
        order, self.squares = a.orders[key]
        self.run(order)

    def order_backward(self, d: SimpleNamespace, a: SimpleNamespace, sampled: bool | str) -> tuple[Any, Array]:
        """What `backward` runs, recorded, and where it leaves sums of squares of all gradients and parameters."""
        gradients, written = self.vae.gradients, list[Array]()
        # of parameters; of what products, at most two in a tensor on average, have written; of all else
        places = np.zeros((self.number, 4 * len(gradients), 1), self.vae.dtype)
        squares = [iter(lane) for lane in places]

        def with_squares(calls: Sequence[Call], lane: int) -> Iterator[Call]:
            """Those of a product are taken while it is in the cache."""
            for kernel, arguments in calls:
                yield kernel, arguments
                out = arguments[0]
                if kernel in products and np.may_share_memory(out, gradients.flat):
                    written.append(out)
                    yield from self.record(lambda kernels: kernels.sum_squares(next(squares[lane]), out.reshape(-1)))

        products = self.vae.kernels.matmul, self.vae.kernels.mask_backward
        found = [[list(with_squares(calls, lane)) for lane, calls in enumerate(tasks)]
                 for tasks in self._cut(a, lambda kernels: self.vae.backward(d, a, sampled, kernels))]
        others = [gradient.reshape(-1) for gradient in gradients.values()
                  if sum(out.size for out in written if np.may_share_memory(gradient, out)) < gradient.size]

        def rest(kernels: ModuleType, lane: int) -> None:
            """Of all other gradients, and of the parameters."""
            for block in others:
                kernels.sum_squares(next(squares[lane]), block[pieces(len(block), self.number, LINE)[lane]])
            for part in self.shares[lane]:
                kernels.sum_squares(next(squares[lane]), self.vae.parameters.flat[part])

        ends = [self.record(functools.partial(rest, lane=lane)) for lane in range(self.number)]
        return self.order(*found, ends), places

    def _cut(self, a: SimpleNamespace, task: Task) -> list[list[list[Call]]]:
        """The phases of a pass."""
        batch, draws, _ = a.eps.shape
        return phases(self.record(task), self.number, batch, draws, self.vae.kernels, self.record)

    def forget(self) -> None:
        """At the end of a training: let go of its data."""
        self.kernels.forget()

    def all_finite(self) -> bool:
        """As `Direct` has it."""
        return math.isfinite(self.squares.sum())


class Whole:
    """Kernels for a whole batch or all parameters, in parts that run at the same time."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = weakref.proxy(lanes)
        self._orders: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        """Any other kernel, as it is."""
        return getattr(self._lanes.vae.kernels, name)

    def forget(self) -> None:
        """What was recorded, and with it the arrays."""
        self._orders.clear()

    def gather_rows(self, x: Array, rows: Array, index: Array, scale: float) -> None:
        self._run("gather_rows", (x, rows, index), (scale,), self._rows(x), shared=1)

    def gather_binarized(self, x: Array, rows: Array, index: Array, noise: Array, scale: float) -> None:
        self._run("gather_binarized", (x, rows, index, noise), (scale,), self._rows(x), shared=1)

    def box_muller(self, eps: Array, uniform: Array) -> None:
        self._run("box_muller", (eps, uniform), (), [[part] for part in pieces(eps.size, self._lanes.number, LINE)])

    def adam_update(self, theta: Array, m: Array, v: Array, grad: Array, lr: float, beta1: float, beta2: float,
                    eps: float, scale: float, step: int) -> None:
        self._run("adam_update", (theta, m, v, grad), (lr, beta1, beta2, eps, scale, step), self._lanes.shares)

    def _rows(self, x: Array) -> list[list[slice]]:
        """Some for each lane."""
        return [[part] for part in pieces(len(x), self._lanes.number)]

    def _run(self, name: str, arrays: tuple[Array, ...], scalars: tuple[float, ...], parts: Sequence[Sequence[slice]],
             shared: int | None = None) -> None:
        """For each lane, its parts of all arrays but the shared one; the scalars may differ from call to call."""
        values = [float(value) for value in scalars]
        key = name, *map(id, arrays)
        if key not in self._orders:
            if len(self._orders) >= 16:      # arrays that come and go, data sets among them
                self._orders.clear()

            def call(kernels: ModuleType, own: Sequence[slice]) -> None:
                for part in own:
                    getattr(kernels, name)(*(array if i == shared else array[part] for i, array in enumerate(arrays)),
                                           *values)
            tasks = [self._lanes.record(functools.partial(call, own=own)) for own in parts]
            self._orders[key] = arrays, self._lanes.order(tasks)
        order = self._orders[key][1]
        order.set_scalars(values)
        self._lanes.run(order)
