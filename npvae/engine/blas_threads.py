"""Two locks, for programs in which several threads use models.

    Owner               a model belongs to one thread at a time; a second thread is refused
    one_blas_thread     around passes in which BLAS must not start threads of its own
    all_blas_threads    around products that BLAS may share among its own threads

The last two are the two modes of one lock.  How many threads BLAS uses is one number for the whole process, and the
last digits of a product depend on it.  So any number of threads may hold the lock in one mode, but then none in the
other; who has waited longest is next.  It is held for one step of training, or for one call such as `encode`, and not
while callbacks run: they may wait for another thread.
"""
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class _ThisThread(threading.local):
    """An object that stands for this thread (its number would not do: after a fork another thread may get it), and the
    modes that it has entered, the innermost last: True is `one_blas_thread`."""

    def __init__(self) -> None:
        self.thread = object()
        self.modes: list[bool] = []


_this_thread = _ThisThread()


class Owner:
    """Held, as often as it likes, by the one thread that works with a model.  Copies of a model are free.

    Entering raises RuntimeError where another thread holds it.
    """

    def __init__(self) -> None:
        self._holder: dict[str, tuple[object, int]] = {}      # no lock, which an interrupt could leave locked
        self._depth = 0

    def __enter__(self) -> None:
        holder = self._holder.setdefault("thread", (_this_thread.thread, os.getpid()))
        if holder[0] is not _this_thread.thread:
            when = "" if holder[1] == os.getpid() else " when this process was forked from another"
            raise RuntimeError(f"this model {'is' if not when else 'was'} in use by another thread{when}: "
                               "each thread needs a model of its own")
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder.clear()

    def __reduce__(self) -> tuple[type["Owner"], tuple[()]]:
        return Owner, ()


class _Model(Protocol):
    @property
    def owner(self) -> Owner: ...


_M = TypeVar("_M", bound=_Model)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def by_one_thread(function: Callable[Concatenate[_M, _P], _T]) -> Callable[Concatenate[_M, _P], _T]:
    """A method of a model that runs in the thread that owns the model.  Raises RuntimeError in any other."""
    @functools.wraps(function)
    def alone(vae: _M, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with vae.owner:
            return function(vae, *args, **kwargs)
    return alone


class _BlasLock:
    """A lock with two modes.  It sets BLAS's number of threads: 1 where `single`, else as it was found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._single: bool | None = None      # the mode of those that hold it
        self._holders: set[object] = set()      # threads
        self._queue: list[object] = []      # threads that wait, who came first in front
        self._keepers: list[object] = []      # threads inside of `keep`, each as often as it has entered
        self._before: list[tuple[Any, int]] = []      # of each library, its threads before it was limited to 1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Around many steps: BLAS may stay limited to one thread between them, which saves the time to change it."""
        with self._lock:
            self._keepers.append(_this_thread.thread)
        try:
            yield
        finally:
            with self._lock:
                self._keepers.remove(_this_thread.thread)
                self._restore_if_unused()

    def change(self, single: bool | None) -> None:
        """Release it, where this thread holds it; then wait for it in that mode, unless it is None."""
        me = _this_thread.thread
        with self._lock:
            self._holders.discard(me)
            self._restore_if_unused()
            self._changed.notify_all()
            if single is not None:
                self._wait(me, single)

    def _wait(self, me: object, single: bool) -> None:
        """Until all who came before have got it, and nobody holds it in the other mode."""
        self._queue.append(me)
        try:
            self._changed.wait_for(lambda: self._queue[0] is me and (not self._holders or self._single == single))
        finally:
            self._queue.remove(me)
            self._changed.notify_all()
        self._holders.add(me)
        self._single = single
        if not single:
            self._restore()
        elif not self._before:
            self._before = [(library, library.num_threads) for library in _libraries()]
            for library, _ in self._before:
                _set_threads(library, 1)

    def _restore_if_unused(self) -> None:
        if not self._holders and not self._keepers:
            self._restore()

    def _restore(self) -> None:
        for library, number in self._before:
            _set_threads(library, number)
        self._before = []

    def _after_fork(self) -> None:
        """Of all threads only this one is left."""
        me = _this_thread.thread
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue.clear()
        self._holders &= {me}
        self._keepers = [keeper for keeper in self._keepers if keeper is me]
        with contextlib.suppress(Exception):
            self._restore_if_unused()


@functools.cache
def _libraries() -> list[Any]:
    """NumPy's BLAS, and those of others that are loaded by now."""
    import threadpoolctl
    libraries: list[Any] = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


def _set_threads(library: Any, number: int) -> None:
    """From version 3.8 on, threadpoolctl lets only the thread that first set the number change it, and ignores others,
    until that thread gives up control, or is forced to."""
    give_up_control = getattr(library, "clear_controlling_thread", lambda *force: None)
    give_up_control(True)
    library.set_num_threads(number)
    give_up_control()


_blas_lock = _BlasLock()


class _Mode(contextlib.ContextDecorator):
    """`with one_blas_thread:` or `@one_blas_thread`, nested or not."""

    def __init__(self, single: bool) -> None:
        self._single = single

    def __enter__(self) -> None:
        modes = _this_thread.modes
        if not modes or modes[-1] != self._single:
            _blas_lock.change(self._single)
        modes.append(self._single)

    def __exit__(self, *error: object) -> None:
        modes = _this_thread.modes
        single, outer = modes.pop(), modes[-1] if modes else None
        if outer != single:
            _blas_lock.change(outer)


def has_one_blas_thread() -> bool:
    """Is this thread inside of `one_blas_thread`?  Quicker to ask than to enter it once more."""
    return _this_thread.modes[-1:] == [True]


one_blas_thread = _Mode(True)
all_blas_threads = _Mode(False)
keep_one_blas_thread = _blas_lock.keep
