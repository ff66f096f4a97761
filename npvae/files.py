"""Files: only regular ones are opened, and none is ever half written.  Not part of the lesson."""
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading bytes.

    A named pipe, a device or a folder is refused at once, also if it takes the place of a file at this very
    moment: what is looked at is what has been opened, and the opening does not wait for a writer.  Raises OSError;
    its strerror says what the path is, as in "it is a named pipe, and no file".
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
