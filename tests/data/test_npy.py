"""Arrays in files: every row arrives as NumPy wrote it, and no more than is asked for is ever in memory."""
import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, strategies as st

from files import LAST, refusal
from npvae.data import images, npy, readers

DTYPES = ["u1", "?", "<f4", ">f4", "<f8", "<f2", "longdouble", "<i8"]


@given(st.data())
def test_any_rows_of_any_array(tmp_path_factory, data):
    """In either order, alone or in a zip, in one piece or in many."""
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=3)))
    array = (100 * np.random.default_rng(0).random(shape)).astype(data.draw(st.sampled_from(DTYPES)))
    if data.draw(st.booleans()):
        array = np.asfortranarray(array)
    ends = sorted(data.draw(st.lists(st.integers(0, shape[0] if shape else 0), min_size=4, max_size=4)))
    ranges = [range(ends[0], ends[1]), range(ends[2], ends[3])] if shape and data.draw(st.booleans()) else []
    path = tmp_path_factory.mktemp("npy") / "x"
    np.save(stream := io.BytesIO(), array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npy, "PIECE", data.draw(st.sampled_from([1, 7, 2 ** 20])))
        how = data.draw(st.sampled_from([None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        if how is None:
            path.write_bytes(stream.getvalue())
            with open(path, "rb") as file:
                found = npy.stored_array(file, os.path.getsize(path)).read(*ranges)
        else:
            with zipfile.ZipFile(path, "w", how) as archive:
                archive.writestr("x.npy", stream.getvalue())
            with open(path, "rb") as file, npy.open_zip(file) as archive:
                found = npy.open_member(archive, "x.npy").read(*ranges)
    for rows, one in zip(found, ranges or [None], strict=True):
        expected = array if one is None else array[one.start:one.stop]
        assert rows.dtype == array.dtype and np.array_equal(rows, expected)


@pytest.mark.every(2)
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", "CF")
def test_with_a_limit_only_the_first_rows_are_in_memory(save, order, tmp_path):
    """40 MB of pixels, of which 7 images are asked for."""
    array = np.full((40_000, 1000), 3, np.uint8, order)
    array[:5] = np.arange(5)[:, None]
    array[36_000:36_005] = 100 + np.arange(5)[:, None]
    with open(tmp_path / "x.npy", "wb") as file:
        save(file, array)
    tracemalloc.start()
    try:
        images = readers.load(tmp_path / "x.npy", limit=5, reading=LAST)
        assert tracemalloc.get_traced_memory()[1] < 6 * 2 ** 20
    finally:
        tracemalloc.stop()
    assert images.train_images[:, 999].tolist() == [0, 1, 2, 3, 4]
    assert images.test_images[:, 0].tolist() == [100, 101, 102, 103, 104]


def header(text, version=1):
    """The beginning of a .npy file whose header is that text."""
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def promise(shape, dtype="<f4"):
    return header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode())


LIES = {
    "a terabyte": (promise((10 ** 9, 250)) + bytes(1000), "header promises 1,000,000,000,000 bytes, shape (1000000000, "
                   "250), and 1,000 follow"),
    "one row more": (promise((5, 3)) + bytes(48), "promises 60 bytes, shape (5, 3), and 48 follow"),
    "one row less": (promise((3, 3)) + bytes(48), "promises 36 bytes, shape (3, 3), and 48 follow"),
    "fewer than none": (promise((-4, -3)) + bytes(48), "its header is damaged"),
    "beyond 2^64": (promise((10 ** 30, 2)) + bytes(48), "promises 8,000,000,"),
    "no shape": (header(b"{'descr': '<f4'}") + bytes(48), "its header is damaged"),
    "nested": (header(b"(" * 9000) + bytes(48), "its header is damaged"),
    "not text": (header(bytes(range(128, 256))) + bytes(48), "its header is damaged"),
    "a long header": (header(b" " * 20_000) + bytes(48), "its header of 20,000 bytes is longer than 10,000"),
    "4 GB of header": (b"\x93NUMPY\2\0" + b"\xff" * 4 + bytes(48), "its header of 4,294,967,295 bytes is longer"),
    "cut in the header": (promise((4, 3))[:30], "its header is damaged"),
    "a newer version": (header(b"{}", 9), "it is not an array file of NumPy"),
    "objects": (promise((4, 3), "|O") + bytes(96), "Object arrays are refused")}


@pytest.mark.every(6)
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", LIES)
def test_a_header_that_lies(case, zipped, tmp_path):
    raw, says = LIES[case]
    path = tmp_path / "x.npy"
    path.write_bytes(raw)
    if zipped:
        with zipfile.ZipFile(path := tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", raw)
    tracemalloc.start()
    try:
        refusal(readers.load, path, name=path.name, says=says)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 22
    finally:
        tracemalloc.stop()


def members(path, how=zipfile.ZIP_DEFLATED, **arrays):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, array in arrays.items():
            np.save(stream := io.BytesIO(), array)
            archive.writestr(f"{name}.npy", stream.getvalue())
    return path.read_bytes()


def test_a_zip_that_lies(tmp_path):
    path = tmp_path / "x.npz"
    raw = members(path, zipfile.ZIP_BZIP2, x=np.zeros((9, 4), np.uint8))
    refusal(readers.load, path, name="x.npz", says="x.npy is compressed in a way that NumPy never uses")
    raw = members(path, x=np.zeros((9, 4), np.uint8))
    path.write_bytes(raw.replace(struct.pack("<I", 164), struct.pack("<I", 2 ** 31)))
    refusal(readers.load, path, name="x.npz", says="x.npy cannot have the size that it claims")
    at = raw.rindex(b"PK\5\6") + 12
    path.write_bytes(raw[:at] + struct.pack("<I", 2 ** 31) + raw[at + 4:])
    refusal(readers.load, path, name="x.npz", says="its list of members takes 2,147,483,648 bytes")
    path.write_bytes(raw[:-1])
    refusal(readers.load, path, name="x.npz", says="(its end is missing)")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", "")
        archive.writestr("train.npy", "")
    refusal(readers.load, path, name="x.npz", says="it names a member twice")


def test_damage_behind_the_rows_that_are_read_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "x.npz"
    raw = members(path, zipfile.ZIP_STORED, x=np.full((90, 40), 7, np.uint8))
    at = raw.index(b"\7" * 100) + 60 * 40
    path.write_bytes(raw[:at] + b"\0" + raw[at + 1:])
    with pytest.raises(images.DataError, match="Bad CRC-32"):
        readers.load(path, limit=2, reading=LAST)
