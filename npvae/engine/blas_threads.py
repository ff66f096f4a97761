"""Several threads that use models at the same time: who may go on.  Beside the lesson.

    Owner               a model works for one thread at a time; a second thread is refused
    one_blas_thread     around passes in which BLAS must keep to the thread that calls it
    all_blas_threads    around products that BLAS may share among its own threads

How many threads BLAS uses is one number for the whole process, and the last digits of a product depend on it.  So work
of the two kinds takes turns: any number of threads may be inside one of them, none inside the other, and whoever waited
first is next.  A turn is one step of training or one call such as `encode`.  Callbacks run between turns: they may wait
for another thread.
"""
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class _Here(threading.local):
    """This thread: an object that stands for it (its number would not do: after a fork another thread may get it), and
    the turns that it is inside of, the innermost last."""

    def __init__(self) -> None:
        self.thread = object()
        self.inside: list[bool] = []


_here = _Here()


class Owner:
    """Held, as often as it likes, by the one thread that works with a model.  Copies of a model are free.

    Entering raises RuntimeError where another thread holds it.
    """

    def __init__(self) -> None:
        self._holder: dict[str, tuple[object, int]] = {}      # no lock, which an interrupt could leave locked
        self._depth = 0

    def __enter__(self) -> None:
        holder = self._holder.setdefault("thread", (_here.thread, os.getpid()))
        if holder[0] is not _here.thread:
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
    """A function of a model that must not meet another thread's.  Raises RuntimeError where it does."""
    @functools.wraps(function)
    def alone(vae: _M, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with vae.owner:
            return function(vae, *args, **kwargs)
    return alone


class _Blas:
    """BLAS's number of threads: 1 while `single` work is under way, or will be soon, else as it was found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._single: bool | None = None      # the work that is under way, where there is any
        self._under_way: set[object] = set()      # threads
        self._queue: list[object] = []      # threads too, whoever waited first in front
        self._keepers: list[object] = []      # and these, each as often as it is inside
        self._before: list[tuple[Any, int]] = []      # threads of each library, while there is a limit
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around many turns of single work: the limit may stay between them."""
        with self._lock:
            self._keepers.append(_here.thread)
        try:
            yield
        finally:
            with self._lock:
                self._keepers.remove(_here.thread)
                self._lift_if_unused()

    def change(self, single: bool | None) -> None:
        """This thread ends its turn, if it has one, and waits for another, if it wants one."""
        me = _here.thread
        with self._lock:
            self._under_way.discard(me)
            self._lift_if_unused()
            self._changed.notify_all()
            if single is not None:
                self._wait(me, single)

    def _wait(self, me: object, single: bool) -> None:
        """Until all before have had their turn, and nobody is at work of the other kind."""
        self._queue.append(me)
        try:
            self._changed.wait_for(lambda: self._queue[0] is me and (not self._under_way or self._single == single))
        finally:
            self._queue.remove(me)
            self._changed.notify_all()
        self._under_way.add(me)
        self._single = single
        if not single:
            self._lift()
        elif not self._before:
            self._before = [(library, library.num_threads) for library in _libraries()]
            for library, _ in self._before:
                _set_threads(library, 1)

    def _lift_if_unused(self) -> None:
        if not self._under_way and not self._keepers:
            self._lift()

    def _lift(self) -> None:
        for library, number in self._before:
            _set_threads(library, number)
        self._before = []

    def _after_fork(self) -> None:
        """Of all threads only this one is left."""
        me = _here.thread
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue.clear()
        self._under_way &= {me}
        self._keepers = [keeper for keeper in self._keepers if keeper is me]
        with contextlib.suppress(Exception):
            self._lift_if_unused()


@functools.cache
def _libraries() -> list[Any]:
    """NumPy's BLAS, and those of others that are loaded by now."""
    import threadpoolctl
    libraries: list[Any] = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


def _set_threads(library: Any, number: int) -> None:
    """threadpoolctl from 3.8 on lets one thread alone change them, and ignores what others ask for, unless that thread
    is made to let go."""
    let_go = getattr(library, "clear_controlling_thread", lambda *force: None)
    let_go(True)
    library.set_num_threads(number)
    let_go()


_blas = _Blas()


class _Turn(contextlib.ContextDecorator):
    """`with one_blas_thread:` or `@one_blas_thread`, within each other or not."""

    def __init__(self, single: bool) -> None:
        self._single = single

    def __enter__(self) -> None:
        inside = _here.inside
        if not inside or inside[-1] != self._single:
            _blas.change(self._single)
        inside.append(self._single)

    def __exit__(self, *error: object) -> None:
        inside = _here.inside
        single, outer = inside.pop(), inside[-1] if inside else None
        if outer != single:
            _blas.change(outer)


def has_one_blas_thread() -> bool:
    """Is this a turn of `one_blas_thread` already?  Quicker to ask than to enter one more."""
    return _here.inside[-1:] == [True]


one_blas_thread = _Turn(True)
all_blas_threads = _Turn(False)
many_turns_with_one = _blas.kept
