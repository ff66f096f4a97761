"""Safe reading and atomic writing of files, and a lock on a run's folder.  Not part of the lesson.

The locks are the operating system's, which releases them when a process ends, however it ends: a killed run never
blocks the next one.
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

from .terminal import shortened

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: bytes of the largest text file that is read: the metrics of some 100,000 epochs
MOST_TEXT = 2 ** 25
_MOST_DIGITS = 100      # of an integer in JSON: the state of a random generator has 39
_TEMPORARY = re.compile(r"\.npvae-[0-9a-f]{16}\.tmp")      # names of files being written


# ---- Read

def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading bytes.

    A named pipe, a device or a folder is refused at once.  The check is made on the open file, so nothing can take its
    place in between, and opening a pipe does not wait for a writer.  Raises OSError, whose strerror says what the path
    is, as in "it is a named pipe, not a file".
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
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", path)
    return handle


def read_text(path: str | Path) -> bytes:
    """The bytes of a run's text file.  Raises OSError, also for more than `MOST_TEXT` bytes."""
    with open_regular(path) as file:
        text = file.read(MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise OSError(errno.EFBIG, f"it holds more than {MOST_TEXT:,} bytes, which no run writes", str(path))
    return text


def parse_json(text: bytes, finite: bool = True) -> object:
    """The value of a JSON text.  Raises ValueError, in one line, for invalid JSON, and for what programs read in
    different ways: a name twice in one object, integers of more than 100 digits, very deep nesting, and, if `finite`,
    NaN, infinity and numbers too large for double precision."""
    try:
        value: object = json.loads(text.decode(), object_pairs_hook=_object, parse_int=_integer,
                                   parse_constant=_refuse if finite else float, parse_float=_real if finite else float)
        return value
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
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


def _integer(text: str) -> int:
    return int(text) if len(text) <= _MOST_DIGITS else _refuse(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{shortened(text, 20)} is not a number that can be used")


# ---- Write

def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace the contents of the file by `data`, as `replacing` does.  Raises OSError, which names the file."""
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        needed = f", {len(data):,} bytes are needed" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise OSError(error.errno, f"{error.strerror}{needed}", str(path)) from None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[io.BufferedWriter]:
    """A file to write into, which replaces that of this path at the end of the context, completely or, if an exception
    leaves the context, not at all; also if the power fails.

    A temporary file beside it is written and synced to disk, then renamed to `path`, and the folder is synced.
    Temporary files that killed processes have left in the folder are removed.  An OSError is given the file's name.
    """
    path = Path(path)
    try:
        remove_leftovers(path.parent)
        file, temporary = _new_file(path.parent)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if sys.platform == "win32":
                    file.close()      # an open file cannot be renamed there
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _new_file(folder: Path) -> tuple[io.BufferedWriter, Path]:
    """A new file, open and locked, with the permissions that the umask leaves."""
    while True:
        path = folder / f".npvae-{secrets.token_hex(8)}.tmp"
        try:
            file = open(path, "xb")
        except FileExistsError:
            continue
        if _try_lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
            return file, path
        file.close()      # another process removed it as a leftover before it was locked


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed `write_atomically` has left: those that no living process locks.  On
    Windows nothing is removed in time: there a file must be closed, and so unlocked, before it is renamed."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError), open_regular(entry.path) as file:
                    if _try_lock(file.fileno()):
                        os.unlink(entry.path)


def _try_lock(handle: int) -> bool | None:
    """Lock an open file until it is closed.  False if another process has locked it, None if the file system has no
    locks."""
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
    """Sync a folder to disk: which files it holds.  Does nothing on Windows, where folders cannot be opened.  Raises
    OSError."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- Lock

class InUseError(OSError):
    """Another process has locked the folder."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within this context the folder, which is created if missing, is locked for this process.

    Folders created here are removed at the end if they are empty.  On a file system without locks nothing is locked.
    Raises InUseError if another process holds the lock, OSError if the folder cannot be created.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        handle = _lock_folder(folder)
    except InUseError:
        raise      # the folder belongs to the other process, even if it is empty
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
    """The handle that holds the lock until it is closed: that of the folder itself, so that no file is left in it."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            if os.path.lexists(error.filename) and not os.path.isdir(error.filename):
                raise
            continue      # another process removed the folder in between
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as opened:
            if sys.platform == "win32":      # folders cannot be opened there; closing this file deletes it
                handle = os.open(folder / ".npvae-lock", os.O_RDWR | os.O_CREAT | os.O_TEMPORARY)
            else:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, handle)
            if _try_lock(handle) is False:
                raise InUseError(errno.EAGAIN, "it is in use", str(folder))
            if sys.platform == "win32" or os.path.samestat(os.fstat(handle), os.stat(folder)):
                opened.pop_all()
                return handle
        # another process removed the folder: try again
