"""Files: only regular ones are opened, no more of a text is read than a run keeps, none is ever half written, and a
folder belongs to one run at a time.

Not part of the lesson.  Locks are those of the operating system, which lets go of them when a process dies, however it
dies: what a killed run has left never stands in the way of the next one.
"""
import contextlib
import errno
import io
import json
import math
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: bytes of a text that a run keeps: the metrics of some 100,000 epochs
MOST_TEXT = 2 ** 25
_MOST_DIGITS = 100      # of a whole number: the state of a generator has 39
_TEMPORARY = re.compile(r"\.npvae-[0-9a-f]{16}\.tmp")      # the name of a file while it is being written


# ---- Read

def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading bytes.

    A named pipe, a device or a folder is refused at once, also if it takes the place of a file at this very moment:
    what is looked at is what has been opened, and the opening does not wait for a writer.  Raises OSError; its strerror
    says what the path is, as in "it is a named pipe, and no file".
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a device"
        raise OSError(errno.EINVAL, f"it is {kind}, and no file", path)
    return handle


def read_text(path: str | Path) -> bytes:
    """The bytes of a text that a run keeps.  Raises OSError, also for more of them than `MOST_TEXT`."""
    with open_regular(path) as file:
        text = file.read(MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise OSError(errno.EFBIG, f"it holds more than {MOST_TEXT:,} bytes, and no run keeps so many here", str(path))
    return text


def parse_json(text: bytes, finite: bool = True) -> Any:
    """What a text of JSON holds.  Raises ValueError, in one line, for what is none, and for what no two programs read
    alike: a name twice in one object, whole numbers of more than 100 digits, nesting that no stack holds, and, if
    `finite`, NaN, infinity and numbers beyond double precision."""
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_int=_whole,
                          parse_constant=_refuse if finite else float, parse_float=_real if finite else float)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is no UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:100]!r} stands twice in one object")
        found[name] = value
    return found


def _real(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _whole(text: str) -> int:
    return int(text) if len(text) <= _MOST_DIGITS else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text if len(text) <= 20 else text[:17] + '...'} is no number that can be used")


# ---- Written

def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace the file by `data`, entirely or not at all, also if the power fails.

    The bytes are written beside it and made durable; then they take its place in one step; and then the folder, which
    says so, is made durable.  What a killed process has left half written in the folder is removed.  Raises OSError
    that names the file.
    """
    path = Path(path)
    try:
        remove_leftovers(path.parent)
        file, temporary = _new_file(path.parent)
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if sys.platform == "win32":
                    file.close()      # no file can be moved there while it is open
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        needed = f", {len(data):,} bytes are needed" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise OSError(error.errno, f"{error.strerror or error}{needed}", str(path)) from None


def _new_file(folder: Path) -> tuple[io.BufferedWriter, Path]:
    """A new file, open and locked for as long as it is, with the permissions that the umask leaves."""
    while True:
        path = folder / f".npvae-{secrets.token_hex(8)}.tmp"
        try:
            file = open(path, "xb")
        except FileExistsError:
            continue
        if _is_locked(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return file, path
        file.close()      # between its making and its locking somebody took it for a leftover


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed `write_atomically` has left in a folder: files of its names that no living process locks.
    Not on Windows, where a file must be closed before it can be moved, and is nobody's in between."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError), open_regular(entry.path) as file:
                    if _is_locked(file.fileno()):
                        os.unlink(entry.path)


def _is_locked(handle: int) -> bool | None:
    """Lock an open file until it is closed, unless another process has.  None on a file system without locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def sync_folder(folder: Path) -> None:
    """Make it durable that files have come into a folder or gone.  Where folders cannot be opened (Windows), there is
    nothing to do.  Raises OSError."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- Owned

class InUseError(OSError):
    """Another process has claimed the folder."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within this context the folder, made if need be, is this process's alone among all that claim it.

    What has been made here and is empty at the end is removed.  On a file system without locks nobody is kept out.
    Raises InUseError, and OSError where there can be no such folder.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        handle = _lock_folder(folder)
    except InUseError:
        raise      # and the folder is the other's, were it still empty
    except OSError:
        _remove_empty(missing)
        raise
    try:
        yield
    finally:
        _remove_empty(missing)
        os.close(handle)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _lock_folder(folder: Path) -> int:
    """An open file that holds the lock until it is closed: the folder itself, so that nothing is left in it."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            if os.path.lexists(error.filename) and not os.path.isdir(error.filename):
                raise
            continue      # a folder that another removed, before it was seen to be one
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as opened:
            if sys.platform == "win32":      # no folder can be opened there; this file goes when it is closed
                handle = os.open(folder / ".npvae-lock", os.O_RDWR | os.O_CREAT | os.O_TEMPORARY)
            else:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, handle)
            if _is_locked(handle) is False:
                raise InUseError(errno.EAGAIN, "it is in use", str(folder))
            if sys.platform == "win32" or os.path.samestat(os.fstat(handle), os.stat(folder)):
                opened.pop_all()
                return handle
        # gone again: whoever had made it did not need it
