"""Ctrl-C during imports.  Not part of the lesson.

A KeyboardInterrupt in the middle of an import may surface as a traceback from inside NumPy, as "Exception ignored in
...", as another error, or not at all; and the first half second of `npvae` is mostly imports.  Importing this module
calls `start`, so the package imports it before all others.
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

#: ends of sys.argv[0] if this process is the program, and not another one that uses the library
_PROGRAMS = ("npvae", "npvae.exe", os.path.join("npvae", "__main__.py"), "train_mnist.py")


def start() -> None:
    """From now on Ctrl-C ends the program at once, since there is nothing to clean up yet; until `started` is called or
    `deferred` takes over.  In a process of another program nothing changes."""
    words, name = sys.orig_argv, sys.argv[0] if getattr(sys, "argv", None) else ""
    if name == "-m":      # as long as Python imports the package of `python -m npvae`
        name = next((word[2:] or after for word, after in zip(words, [*words[1:], ""]) if word.startswith("-m")), "")
    is_ours = any(name == program or name.endswith(os.sep + program) for program in _PROGRAMS)
    if is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def started() -> None:
    """All imports are done: Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"\nnpvae: stopped\n")
    os._exit(130)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within this context Ctrl-C raises KeyboardInterrupt as usual; but in the middle of an import, and where Python
    would ignore the exception, it does so a moment later."""
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
    """The number of calls of the import system on the stack."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return count


def _once_more() -> None:
    """Send Ctrl-C again after 20 ms."""
    def later() -> None:
        time.sleep(0.02)
        if hasattr(signal, "pthread_kill"):      # wakes the main thread, too, if it sleeps
            signal.pthread_kill(main, signal.SIGINT)
        else:
            _thread.interrupt_main()

    main = threading.main_thread().ident or 0
    try:
        _thread.start_new_thread(later, ())
    except RuntimeError:      # the limit of threads is reached
        raise KeyboardInterrupt from None


start()
