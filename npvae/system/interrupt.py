"""Ctrl-C that comes at a bad moment.  Not part of the lesson.

An exception in the middle of an import comes out of whatever is being imported: as a traceback from within NumPy, as
"Exception ignored in ...", as another error, or not at all; and most of the first half second of `npvae` is imports.
To import this module is to call `start`: the package imports it before all others.
"""
import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

#: what sys.argv[0] ends in where this process is the program, and not another one that uses the library
_PROGRAMS = ("npvae", "npvae.exe", os.path.join("npvae", "__main__.py"), "train_mnist.py")


def start() -> None:
    """Until `started`, or for good until `deferred` takes over, Ctrl-C ends the program at once: nothing has been done
    yet, and nothing is to be tidied up.  In a process of another program nothing changes."""
    words, name = sys.orig_argv, sys.argv[0] if getattr(sys, "argv", None) else ""
    if name == "-m":      # what Python puts there while it imports the package of the program
        name = next((word[2:] or after for word, after in zip(words, [*words[1:], ""]) if word.startswith("-m")), "")
    is_ours = any(name == program or name.endswith(os.sep + program) for program in _PROGRAMS)
    if is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def started() -> None:
    """All is imported."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"\nnpvae: stopped\n")
    os._exit(130)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within this context Ctrl-C raises KeyboardInterrupt as always, but not in the middle of an import, and not where
    Python would ignore it: then a moment later."""
    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    if threading.current_thread() is not threading.main_thread() or before not in (signal.default_int_handler, _end):
        yield
        return

    imports = _imports(sys._getframe())

    def on_signal(number: int, frame: FrameType | None) -> None:
        if _imports(frame) <= imports:
            raise KeyboardInterrupt
        _once_more()

    def on_ignored(ignored: "sys.UnraisableHookArgs") -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            _once_more()
        else:
            hook(ignored)

    signal.signal(signal.SIGINT, on_signal)
    sys.unraisablehook = on_ignored
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def _imports(frame: FrameType | None) -> int:
    """How many calls of the import system are under way."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return count


def _once_more() -> None:
    """Ctrl-C again, soon."""
    def later() -> None:
        time.sleep(0.02)
        if hasattr(signal, "pthread_kill"):      # which wakes a main thread that sleeps, too
            signal.pthread_kill(main, signal.SIGINT)
        else:
            _thread.interrupt_main()

    main = threading.main_thread().ident or 0
    try:
        _thread.start_new_thread(later, ())
    except RuntimeError:      # no thread can be started
        raise KeyboardInterrupt from None


start()
