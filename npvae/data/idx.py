"""MNIST and other IDX files.  Not part of the lesson.

The IDX format (LeCun, Cortes and Burges, the MNIST page): two zero bytes, one byte for the type (0x08: uint8), one for
the number of dimensions, each dimension as a big-endian uint32, then the values in C order.  `read_idx` accepts only
files that end where the header says.
"""
import gzip
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..system.files import open_regular
from .arrays import fail_for_memory
from .images import ImageData, fail
from .npy import DEFLATE_RATIO, PIECE, check_expansion

_GZIP_MAGIC = b"\x1f\x8b"
_MAX_BYTES = 2**31  # far more than any IDX file in use; a header that promises more is damaged or malicious
EMBEDDED = Path(__file__).with_name("mnist")

# The four files of a folder and their number of dimensions.
_ROLES = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}
# SHA-256 of the decompressed files (their .gz differs from copy to copy) -> the set and the role.
_KNOWN = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": ("mnist", "train-images"),
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5": ("mnist", "train-labels"),
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": ("mnist", "t10k-images"),
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2": ("mnist", "t10k-labels"),
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888": ("fashion-mnist", "train-images"),
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9": ("fashion-mnist", "train-labels"),
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b": ("fashion-mnist", "t10k-images"),
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34": ("fashion-mnist", "t10k-labels"),
}
_UNKNOWN = ("an unknown set", "file")


def read_idx(path: str | Path) -> np.ndarray:
    """One IDX file of unsigned bytes, gzipped or not (its first two bytes decide, not its name).

    Returns a uint8 array of 1 to 3 dimensions.  Raises DataError if the file is missing, is not IDX, or is longer or
    shorter than its header says.
    """
    return _read_idx(Path(path), None).array


class _Idx(NamedTuple):
    """The first items of an IDX file, the shape of all of them, and the SHA-256 of the decompressed file."""

    array: np.ndarray
    shape: tuple[int, ...]
    digest: str


def _read_idx(path: Path, limit: int | None) -> _Idx:
    """Read the whole file, for its digest, and keep its first `limit` items."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if file.peek(2)[:2] == _GZIP_MAGIC:
                return _parse_idx(gzip.GzipFile(fileobj=file), path, size, size * DEFLATE_RATIO, limit)
            return _parse_idx(file, path, size, size, limit)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        state = "cut short" if isinstance(error, EOFError) else f"damaged ({error})"
        fail(path, f"the gzip stream is {state}; copy or download the file again", error)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror or error})", error)
    except MemoryError as error:
        fail_for_memory(path, error)


def _parse_idx(stream: io.BufferedIOBase, path: Path, packed: int, most: int, limit: int | None) -> _Idx:
    """Read an IDX stream piece by piece.  The file has `packed` bytes, which decompress to `most` at most."""
    shape, digest = _read_idx_header(stream, path), hashlib.sha256()
    digest.update(struct.pack(f">BBBB{len(shape)}I", 0, 0, 0x08, len(shape), *shape))
    promised = math.prod(shape)
    promise = f"the header promises {promised} bytes, shape {shape}"
    if promised > _MAX_BYTES:
        fail(path, f"{promise}; at most {_MAX_BYTES} bytes are allowed")
    if promised > most:
        fail(path, f"is cut short: {promise}, but only {most} bytes can follow")
    if limit is None:
        try:
            check_expansion(promised, packed)
        except ValueError as error:
            fail(path, str(error))
    array = np.empty((len(range(shape[0])[:limit]), *shape[1:]), dtype=np.uint8)
    kept = array.data.cast("B")
    passing = memoryview(bytearray(min(PIECE, promised - len(kept))))
    filled = 0
    while filled < promised:
        buffer = (kept[filled:filled + PIECE] if filled < len(kept) else passing)[:promised - filled]
        count = stream.readinto(buffer)
        if not count:
            fail(path, f"is cut short: {promise}, but only {filled} bytes follow")
        digest.update(buffer[:count])
        filled += count
    # Try to read one byte more: there must be none, and at the end gzip verifies its checksum.
    if stream.read(1):
        fail(path, f"has trailing bytes: {promise}, but more follow")
    return _Idx(array, shape, digest.hexdigest())


def _read_idx_header(stream: io.BufferedIOBase, path: Path) -> tuple[int, ...]:
    """The shape in an IDX header.  Raises DataError for a header that is wrong in any field."""
    magic = stream.read(4)
    if not magic:
        fail(path, "is empty; an IDX file is expected")
    if magic.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        fail(path, "is a web page (HTML or XML), not an IDX file: the download went wrong")
    if len(magic) < 4 or magic[:2] != b"\x00\x00":
        fail(path, f"is not an IDX file: it begins with {magic.hex(' ')}, not with 00 00 08 and 01 to 03")
    if magic[2] != 0x08:
        fail(path, f"holds values of IDX type 0x{magic[2]:02x}; only 0x08 (uint8) is allowed")
    ndim = magic[3]
    if not 1 <= ndim <= 3:
        fail(path, f"the header promises {ndim} dimensions; 1 (labels) to 3 (images) are allowed")
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        fail(path, f"ends inside the IDX header, which needs {4 + 4 * ndim} bytes")
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        fail(path, f"the header promises shape {shape}; every dimension must be at least 1")
    return shape


def load_mnist(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """MNIST, from the files in this package or from `folder`, in both cases verified by SHA-256.

    Returns train_images uint8 (60000, 784), train_labels uint8 (60000,), test_images uint8 (10000, 784),
    test_labels uint8 (10000,).  Raises DataError if any of the four files is not MNIST's.
    """
    return load_set(EMBEDDED if folder is None else folder, "mnist", None)[:4]  # type: ignore[return-value]


def load_fashion_mnist(folder: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fashion-MNIST (Xiao et al. 2017) from `folder`, verified by SHA-256; shapes as in `load_mnist`."""
    return load_set(folder, "fashion-mnist", None)[:4]  # type: ignore[return-value]


def load_idx_folder(folder: str | Path) -> ImageData:
    """A folder with four IDX files named as MNIST's are: Fashion-MNIST, KMNIST, your own.

    The names: {train,t10k}-{images-idx3,labels-idx1}-ubyte, also with `.idx` for `-idx`, each also with `.gz`; if there
    are several, the first in that order is read.  If one file is known to be MNIST's or Fashion-MNIST's, all four are
    verified; otherwise none is, and the set is named after its folder.
    Raises DataError if a file is missing or bad, or if the four do not belong together.
    """
    return load_set(folder, None, None)


def load_set(folder: str | Path, family: str | None, limit: int | None) -> ImageData:
    """Read the folder, and verify it as `family`, or if None as the known set from which most of its files are."""
    folder = Path(folder)
    paths = _find_idx_files(folder)
    files = {role: read_role(path, _ROLES[role], limit) for role, path in paths.items()}
    for part in "train", "t10k":
        count, n_labels = files[f"{part}-images"].shape[0], files[f"{part}-labels"].shape[0]
        if count != n_labels:
            fail(paths[f"{part}-labels"], f"holds {n_labels} labels for {count} images; one each is needed")
    height, width = files["train-images"].shape[1:]
    if files["t10k-images"].shape[1:] != (height, width):
        fail(paths["t10k-images"], f"holds images {files['t10k-images'].shape[1:]}; the training images are "
                                   f"{height, width}")
    owners = {role: _KNOWN.get(file.digest, _UNKNOWN) for role, file in files.items()}
    known = [owner[0] for owner in owners.values() if owner != _UNKNOWN]
    family = family or max(known, key=known.count, default=None)
    if family is not None:
        _verify(paths, owners, family)
    train, test = files["train-images"].array, files["t10k-images"].array
    return ImageData(train.reshape(len(train), -1), files["train-labels"].array,
                     test.reshape(len(test), -1), files["t10k-labels"].array,
                     (height, width), family or folder.resolve().name, stored="uint8")


def _find_idx_files(folder: Path) -> dict[str, Path]:
    """The paths of the four files by role.  Raises DataError, which names the missing ones."""
    if not folder.is_dir():
        fail(folder, "is not a folder" if folder.exists() else "there is no such folder")
    found, missing = {}, []
    for role, ndim in _ROLES.items():
        names = [f"{role}{dash}idx{ndim}-ubyte{gz}" for dash in "-." for gz in ("", ".gz")]
        present = [folder / name for name in names if (folder / name).is_file()]
        if present:
            found[role] = present[0]
        else:
            missing.append(names[0])
    if missing:
        fail(folder, f"lacks {', '.join(missing)}; all four are needed (.idx for -idx and .gz are allowed)")
    return found


def read_role(path: Path, ndim: int, limit: int | None) -> _Idx:
    """One of the four files.  Raises DataError if it has not the number of dimensions that its role requires."""
    file = _read_idx(path, limit)
    if len(file.shape) != ndim:
        meaning = {1: "labels (1 dimension)", 2: "a matrix (2 dimensions)", 3: "images (3 dimensions)"}
        fail(path, f"holds {meaning[len(file.shape)]}; its name calls for {meaning[ndim]}")
    return file


def _verify(paths: Mapping[str, Path], owners: Mapping[str, tuple[str, str]], family: str) -> None:
    """Raises DataError, which names the first of the four files that is not the one of its role in `family`."""
    wrong = [role for role in paths if owners[role] != (family, role)]
    if wrong:
        owner, part = owners[wrong[0]]
        right = [paths[role].name for role in paths if role not in wrong]
        fail(paths[wrong[0]], f"is not {family}'s {wrong[0]} but {owner}'s {part} (by SHA-256), beside "
                              f"{', '.join(right) or 'no file'} of {family}; all four must be of one set")


def holds_idx(folder: Path) -> bool:
    """Does the folder hold IDX files, even if not all four?  If not, it is taken for a folder of pictures."""
    return any(folder.glob("*-ubyte*"))
