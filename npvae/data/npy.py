"""Reads arrays from .npy and .npz files, and of these only the rows that are needed.  Not part of the lesson;
`readers.py` and `checkpoint.py` use it.

`np.load` allocates whatever a header promises and reads the whole array.  Here the header is first compared with the
size of the file, and rows that are not needed are skipped.  Pickled arrays, which can run code, are refused.
"""
import io
import math
import struct
import warnings
import zipfile
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..system.terminal import shortened
from .reading import taken

#: bytes read at a time
PIECE = 2 ** 20
_MOST_HEADER = 10_000      # bytes, as in np.load: a longer header may exhaust the stack of Python's parser
_MOST_DIRECTORY = 2 ** 24      # bytes of a zip's list of members, which is read at once: about 100,000 members
#: bytes up to which a file may be compressed by any ratio
MOST_EXPANDED = 2 ** 27
#: the largest ratio by which deflate can compress
DEFLATE_RATIO = 1032
_END, _LOCATOR = b"PK\5\6", b"PK\6\7"      # signatures at the end of a zip, and of a zip64


class StoredArray(NamedTuple):
    """An array in a file, and the stream that is to be read from the end of its header."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool      # Fortran order: the first index varies fastest

    def read(self, *ranges: range) -> list[NDArray[Any]]:
        """The rows of each range, in ascending order; without ranges the whole array.  A zip member is read to its end,
        to verify its checksum.  Raises EOFError if the file is too short."""
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
        self.stream.read(1)      # at the end, zipfile verifies the checksum
        shaped = [rows_found.reshape(len(rows_found), *self.shape[1:], order="F" if self.by_columns else "C")
                  for rows_found in found]
        return shaped

    def read_rows(self, *parts: NDArray[Any]) -> list[NDArray[Any]]:
        """The rows of each part (n,), in ascending order; no row is in two of them.  Of what lies between them little
        is read."""
        wanted = np.sort(np.concatenate(parts))
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        if len(wanted) > wanted[-1] // 2:
            found, = self.read(range(int(wanted[-1]) + 1))
            wanted = np.arange(len(found))
        else:
            found = np.concatenate(self.read(*(range(int(run[0]), int(run[-1]) + 1) for run in runs)))
        return [taken(found, np.searchsorted(wanted, part)) for part in parts]

    def _read_runs(self, runs: list[tuple[int, NDArray[Any]]], length: int) -> None:
        """From the next `length` numbers of the stream, fill each array with those that begin at its start."""
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
    """Fill a contiguous array from the stream, piece by piece, so that the memory for missing data is never touched.
    Raises EOFError with the number of missing bytes."""
    target = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
    filled = 0
    while filled < len(target):
        count = stream.readinto(target[filled:filled + PIECE])      # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{len(target) - filled:,} bytes are missing")
        filled += count


def stored_array(stream: IO[bytes], size: int) -> StoredArray:
    """The array of a .npy file, a stream of `size` bytes.  Raises ValueError or EOFError for a damaged header, one that
    promises another size, and for an array of pickles."""
    magic = stream.read(8)
    length = {1: 2, 2: 4, 3: 4}.get(magic[6] if len(magic) == 8 else 0)
    if not magic.startswith(b"\x93NUMPY") or length is None:
        raise ValueError("it is not an array file of NumPy")
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
    """Shape, order and dtype."""
    read = np.lib.format.read_array_header_1_0 if header[6] == 1 else np.lib.format.read_array_header_2_0
    stream = io.BytesIO(header)
    stream.seek(8)
    try:
        with warnings.catch_warnings():      # NumPy warns of headers written by Python 2
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
    return shortened(f"{value:,}" if isinstance(value, int) else str(value), 60)


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """The zip archive in a file.  Raises zipfile.BadZipFile for a list of members that is damaged, names one twice, or
    is longer than 16 MiB, since zipfile would read it at once."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 2 ** 16 - 200))
    tail = file.read()
    at = len(tail) - 22
    if tail[at:at + 4] != _END or tail[-2:] != b"\0\0":      # a comment follows
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
    """Raises ValueError for a compression ratio that no images have, as of a file that was made to exhaust memory: zips
    of photographs and digits have ratios of 1 to 30, such files about a thousand."""
    if size > MOST_EXPANDED and size > 100 * packed:
        raise ValueError(f"its {packed:,} bytes become {size:,}, {size // max(1, packed):,} times as many: read its "
                         "first images with --limit, or unpack it")


def open_member(archive: zipfile.ZipFile, name: str, whole: bool = True) -> StoredArray:
    """An array in a zip, stored or deflated; `whole` says that all of it will be read.  Raises ValueError, EOFError, or
    what zipfile raises for a damaged archive."""
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy never uses")
    if member.file_size > DEFLATE_RATIO * (member.compress_size + 1):
        raise ValueError(f"{name} cannot have the size that it claims")
    if whole:
        check_expansion(member.file_size, member.compress_size)
    return stored_array(archive.open(name), member.file_size)
