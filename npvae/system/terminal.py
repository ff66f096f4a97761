"""What is printed for people: nothing raw, and nothing that ends a training.  Not part of the lesson.

Names of files and labels come from anywhere.  On a terminal a control character in one is a command, a byte that is no
UTF-8 cannot be encoded, and neither can most letters where the locale is ASCII; in a page of UTF-8 the same holds.
"""
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast


def plain(text: str) -> str:
    """`text` with an escape, as in \\x1b, in place of each character that cannot be printed, line breaks included.

    A byte of a path that is no UTF-8 becomes \\xff, by its number.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(c: str) -> str:
    return f"\\x{ord(c) - 0xdc00:02x}" if 0xdc80 <= ord(c) <= 0xdcff else c.encode("unicode_escape").decode()


def shell_word(text: str) -> str:
    """`text` as one word of a command that the terminal shows as it is, and that a shell reads as it was meant."""
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    if text.isprintable() and text.encode(encoding, "replace").decode(encoding) == text:
        return shlex.quote(text)
    special = {ord("%"): "%%", ord("\\"): "\\\\"}
    octal = "".join(special.get(byte, chr(byte) if 32 <= byte < 127 and byte != ord("'") else f"\\{byte:03o}")
                    for byte in os.fsencode(text))
    return f"\"$(printf -- '{octal}')\""


class Terminal:
    """A text stream to print on: every line `plain`, in letters that it can encode, and written at once.

    stream : where it goes; None, as Python has it for one that is closed, takes everything and shows nothing
    name : where it is given, a stream that cannot be written raises OSError by that name; otherwise what comes after
        is dropped without a word
    bars : control characters are the program's own, such as those of a progress bar, and stay

    A stream that has failed once is let go of, so that Python does not fail on it again when it ends.
    """

    def __init__(self, stream: TextIO | None, name: str = "", bars: bool = False) -> None:
        self.stream, self.name, self.bars = stream, name, bars
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        shown = text if self.bars else "\n".join(map(plain, text.split("\n")))
        shown = shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
        self._try(lambda stream: stream.write(shown))
        self.flush()
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return bool(self._try(lambda stream: stream.isatty()))

    def fileno(self) -> int:
        """Raises OSError where there is none."""
        if self.stream is None:
            raise io.UnsupportedOperation("a stream that is closed has no number")
        return self.stream.fileno()

    def _try(self, action: Callable[[TextIO], Any]) -> Any:
        try:
            return None if self.stream is None else action(self.stream)
        except (OSError, ValueError) as error:      # full, or nobody reads on; closed
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self.fileno())
            self.stream = None
            if self.name:
                number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
                raise OSError(number, f"cannot be written ({reason or error})", self.name) from None


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Within this context what is printed goes through a Terminal: errors and progress while there is somebody to read
    them, results by all means.  No file takes the number of a standard stream that is closed."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    out, error = Terminal(sys.stdout, name="standard output"), Terminal(sys.stderr)
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, error)):
        yield


def for_bars(stream: TextIO | None) -> TextIO:
    """The stream as a progress bar needs it: its own control characters stay, and a failure is not the program's."""
    return cast(TextIO, Terminal(stream.stream if isinstance(stream, Terminal) else stream, bars=True))
