"""Output for people: any text can be printed, and a failing stream does not end a training run.  Not part of the
lesson.

Names of files and labels may hold anything: control characters, which command a terminal; bytes that are not UTF-8; and
letters that the locale's encoding lacks.
"""
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import TextIO, cast


def plain(text: str) -> str:
    """`text` with each unprintable character, line breaks included, replaced by an escape such as \\x1b.

    A byte of a path that is not UTF-8 becomes \\xff, by its number.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(c: str) -> str:
    return f"\\x{ord(c) - 0xdc00:02x}" if 0xdc80 <= ord(c) <= 0xdcff else c.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """`text` with each run of white space, line breaks included, replaced by one space."""
    return " ".join(text.split())


def shortened(text: str, most: int) -> str:
    """`text`, its end replaced by dots if it is longer than `most` characters."""
    return text if len(text) <= most else text[:most - 3] + "..."


def shell_word(text: str) -> str:
    """`text` quoted as one word of a shell command, in characters that the terminal can show."""
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    if text.isprintable() and text.encode(encoding, "replace").decode(encoding) == text:
        return shlex.quote(text)
    special = {ord("%"): "%%", ord("\\"): "\\\\"}
    octal = "".join(special.get(byte, chr(byte) if 32 <= byte < 127 and byte != ord("'") else f"\\{byte:03o}")
                    for byte in os.fsencode(text))
    return f"\"$(printf -- '{octal}')\""


class Terminal:
    """A text stream that escapes what cannot be shown (`plain`), replaces what it cannot encode, and does not buffer.

    stream : where the text goes; None, which Python uses for a closed stream, discards it
    name : if given, a failure to write raises OSError with this name; otherwise further output is discarded
    bars : keep control characters: they are the program's own, such as those of a progress bar

    A stream that has failed is replaced by the null device, so that Python does not fail on it again at exit.
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
        """Raises OSError if there is none."""
        if self.stream is None:
            raise io.UnsupportedOperation("a stream that is closed has no number")
        return self.stream.fileno()

    def _try(self, action: Callable[[TextIO], object]) -> object:
        try:
            return None if self.stream is None else action(self.stream)
        except (OSError, ValueError) as error:      # disk full or no reader; closed
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self.fileno())
            self.stream = None
            if self.name:
                number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
                raise OSError(number, f"cannot be written ({reason or error})", self.name) from None
            return None


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Within this context stdout and stderr are `Terminal`s.  A failure of stdout, which carries results, raises
    OSError; one of stderr is ignored.  The numbers of closed standard streams are taken, so that no file gets them."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    out, error = Terminal(sys.stdout, name="standard output"), Terminal(sys.stderr)
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, error)):
        yield


def for_bars(stream: TextIO | None) -> TextIO:
    """The stream for a progress bar: control characters are kept, failures ignored."""
    return cast(TextIO, Terminal(stream.stream if isinstance(stream, Terminal) else stream, bars=True))


def in_notebook() -> bool:
    """Whether this process is a notebook's: its stdout is no terminal, but somebody reads along."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", {})
