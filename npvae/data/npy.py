"""Arrays in .npy and .npz files: what they are is known before any of it is in memory, and only the rows that are asked
for ever are.  Beside the lesson; `readers.py` and `checkpoint.py` read with it.

`np.load` reads an array whole, and before that allocates whatever its header asks for.  Here a header is held against
the size of the file first, and what is not asked for passes by in pieces.  Pickled arrays, which run code, are refused.
"""
import io
import math
import struct
import warnings
import zipfile
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: bytes read at a time
PIECE = 2 ** 20
_MOST_HEADER = 10_000      # bytes, as in np.load: of more, Python's parser may run out of stack
_MOST_DIRECTORY = 2 ** 24      # bytes of a zip's list of members, which is read whole: some 100,000 of them
#: bytes that any zip may become
MOST_EXPANDED = 2 ** 27
_DEFLATE = 1032      # deflate makes nothing smaller than this part of it
_END, _LOCATOR = b"PK\5\6", b"PK\6\7"      # of a zip's list of members; of the longer form of that


class StoredArray(NamedTuple):
    """An array that is still in its file, and the stream that stands behind its header."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool      # "Fortran order": the first index runs fastest

    def read(self, *ranges: range) -> list[NDArray[Any]]:
        """The rows of each range, which ascend; without any, the whole array.  A zip is read to its end, since its
        checksum is of all.  Raises EOFError if that comes too early."""
        if not self.shape:
            whole = np.empty((), self.dtype)
            fill(self.stream, whole)
            return [whole]
        rows, width = self.shape[0], math.prod(self.shape[1:])
        ranges = ranges or (range(rows),)
        found = [np.empty((len(one), width), self.dtype, "F" if self.by_columns else "C") for one in ranges]
        if not self.by_columns:
            self._read_runs([(one.start * width, rows_found) for one, rows_found in zip(ranges, found)], rows * width)
        elif rows * self.dtype.itemsize > PIECE:
            for i in range(width):
                self._read_runs([(one.start, columns[:, i]) for one, columns in zip(ranges, found)], rows)
        else:
            step = PIECE // max(1, rows * self.dtype.itemsize)
            for i in range(0, width, step):
                block = np.empty((rows, len(range(width)[i:i + step])), self.dtype, "F")
                fill(self.stream, block.T)
                for one, columns in zip(ranges, found):
                    columns[:, i:i + step] = block[one.start:one.stop]
        self.stream.read(1)      # at the end a zip compares its checksum
        shaped = [rows_found.reshape(len(rows_found), *self.shape[1:], order="F" if self.by_columns else "C")
                  for rows_found in found]
        return shaped

    def _read_runs(self, runs: list[tuple[int, NDArray[Any]]], length: int) -> None:
        """Of the next `length` numbers those from each start on, each into its array."""
        at = 0
        for start, target in [*runs, (length, np.empty(0, self.dtype))]:
            self._skip((start - at) * self.dtype.itemsize)
            fill(self.stream, target)
            at = start + target.size

    def _skip(self, count: int) -> None:
        if not isinstance(self.stream, zipfile.ZipExtFile):
            self.stream.seek(count, io.SEEK_CUR)
            return
        while count > 0:
            passed = len(self.stream.read(min(count, PIECE)))
            if not passed:
                raise EOFError(f"{count:,} bytes are missing")
            count -= passed


def fill(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Read a contiguous array from the stream, in pieces, so that what is not there takes no memory.  Raises EOFError
    with the number of bytes that are missing."""
    target = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled:filled + PIECE])      # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{len(target) - filled:,} bytes are missing")
        filled += count


def stored_array(stream: IO[bytes], size: int) -> StoredArray:
    """The array of a .npy file, a stream of `size` bytes.  Raises ValueError or EOFError for a damaged header, one that
    promises another size, and for pickles."""
    magic = stream.read(8)
    length = {1: 2, 2: 4, 3: 4}.get(magic[6] if len(magic) == 8 else 0)
    if not magic.startswith(b"\x93NUMPY") or length is None:
        raise ValueError("it is no array as NumPy writes it")
    told = stream.read(length)
    count = int.from_bytes(told, "little")
    if count > _MOST_HEADER:
        raise ValueError(f"its header of {count:,} bytes is longer than {_MOST_HEADER:,}")
    shape, by_columns, dtype = _parse_header(magic + told + stream.read(count))
    promised, there = math.prod(shape) * dtype.itemsize, size - len(magic) - length - count
    if promised != there:
        raise ValueError(f"its header promises {_short(promised)} bytes, shape {_short(shape)}, and {there:,} follow")
    return StoredArray(stream, shape, dtype, by_columns)


def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type."""
    read: Any = (np.lib.format.read_array_header_1_0 if header[6] == 1 else np.lib.format.read_array_header_2_0)
    stream = io.BytesIO(header)
    stream.seek(8)
    try:
        with warnings.catch_warnings():      # NumPy's, of headers as Python 2 wrote them
            warnings.simplefilter("ignore")
            shape, by_columns, dtype = read(stream)
        if min(shape, default=0) < 0:
            raise ValueError
    except Exception:      # whatever Python's parser raises
        raise ValueError("its header is damaged") from None
    if dtype.hasobject:
        raise ValueError("Object arrays are refused: reading them may run code")
    return tuple(map(int, shape)), bool(by_columns), dtype


def _short(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The zip in a file.  Raises zipfile.BadZipFile for a list of members that is damaged, names one twice or is longer
    than 16 MiB, which zipfile would read whole."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 2 ** 16 - 200))
    tail = file.read()
    at = len(tail) - 22
    if tail[at:at + 4] != _END or tail[-2:] != b"\0\0":      # there is a comment behind it
        at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("its end is missing")
    length, = struct.unpack_from("<I", tail, at + 12)
    if at >= 76 and tail[at - 20:at - 16] == _LOCATOR:
        length, = struct.unpack_from("<Q", tail, at - 36)
    if length > _MOST_DIRECTORY:
        raise zipfile.BadZipFile(f"its list of members takes {length:,} bytes")
    archive = zipfile.ZipFile(file)
    if len(archive.namelist()) > len(set(archive.namelist())):
        raise zipfile.BadZipFile("it names a member twice")
    return archive


def check_expansion(size: int, packed: int) -> None:
    """Raises ValueError for a file that takes up much more memory than images can: photographs and digits become 1 to
    30 times smaller in a zip, a thousand times what was made to fill the memory of whoever opens it."""
    if size > MOST_EXPANDED and size > 100 * packed:
        raise ValueError(f"its {packed:,} bytes become {size:,}, {size // max(1, packed):,} times as many: read its "
                         "first images with --limit, or unpack it")


def open_member(archive: zipfile.ZipFile, name: str, whole: bool = True) -> StoredArray:
    """An array of a zip, stored or deflated, of which the `whole` is to be read.  Raises ValueError, EOFError, or what
    zipfile raises of a damaged one."""
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy never uses")
    if member.file_size > _DEFLATE * (member.compress_size + 1):
        raise ValueError(f"{name} is not as long as it says")
    if whole:
        check_expansion(member.file_size, member.compress_size)
    return stored_array(archive.open(name), member.file_size)
