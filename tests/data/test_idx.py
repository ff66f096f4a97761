"""npvae.data, IDX files and folders of them: read exactly as they are, or refused in one line that names them."""
import gzip
import hashlib
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from files import ROLES, STANDARD, header, idx_bytes, refusal, same_images, small_set, write_folder
from npvae.data import idx, readers
from npvae.data import DataError, ImageData

MNIST_SHA256 = {
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

idx_arrays = st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).flatmap(
    lambda shape: arrays(np.uint8, tuple(shape), fill=st.nothing()))


@pytest.fixture
def content(rng):
    return small_set(rng)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def mnist():
    return idx.load_mnist()


# --- read_idx ---

@settings(deadline=None)
@given(idx_arrays, st.booleans(), st.sampled_from(["images", "images.gz"]))
def test_idx_round_trip_whatever_the_name_says(array, compressed, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array))
        for given_path in path, str(path):
            result = idx.read_idx(given_path)
            assert result.dtype == np.uint8
            assert result.shape == array.shape
            assert np.array_equal(result, array)


def test_idx_longer_than_one_chunk(tmp_path, rng):
    array = rng.integers(0, 256, (3, 701, 1009), dtype=np.uint8)
    assert array.size > 2 * idx.PIECE
    (tmp_path / "x").write_bytes(gzip.compress(idx_bytes(array), 1))
    assert np.array_equal(idx.read_idx(tmp_path / "x"), array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
PACKED = gzip.compress(GOOD, mtime=0)
BAD_IDX = {
    "empty": (b"", "is empty"),
    "empty in gzip": (gzip.compress(b""), "is empty"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "web page after a byte order mark": (b"\xef\xbb\xbf<html>", "web page"),
    "web page in gzip": (gzip.compress(b"\n<html>"), "web page"),
    "text": (b"404: not found", "is not an IDX file: it begins with 34 30 34 3a"),
    "short magic": (b"\x00\x00\x08", "is not an IDX file: it begins with 00 00 08"),
    "gzip header cut": (PACKED[:5], "gzip stream is cut short"),
    "gzip cut": (PACKED[:-9], "gzip stream is cut short"),
    "gzip checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "gzip stream is damaged"),
    "gzip body": (PACKED[:10] + b"\xff" * 20, "gzip stream is damaged"),
    "bytes after gzip": (PACKED + b"junk", "gzip stream is damaged"),
    "float32": (b"\x00\x00\x0d\x03" + GOOD[4:], "IDX type 0x0d; only 0x08"),
    "int8": (b"\x00\x00\x09\x03" + GOOD[4:], "IDX type 0x09; only 0x08"),
    "no dimensions": (b"\x00\x00\x08\x00", "promises 0 dimensions; 1 (labels) to 3"),
    "four dimensions": (header(2, 3, 4, 1) + bytes(24), "promises 4 dimensions"),
    "header cut": (GOOD[:15], "ends inside the IDX header, which needs 16 bytes"),
    "no images": (header(0, 3, 4), "promises shape (0, 3, 4); every dimension must be at least 1"),
    "no width": (header(2, 3, 0), "promises shape (2, 3, 0); every dimension must be at least 1"),
    "payload cut": (GOOD[:-1], "header promises 24 bytes, shape (2, 3, 4), but only 23 bytes"),
    "payload cut in gzip": (gzip.compress(GOOD[:-1]), "but only 23 bytes"),
    "trailing byte": (GOOD + b"\x00", "has trailing bytes: the header promises 24 bytes"),
    "trailing byte in gzip": (gzip.compress(GOOD + b"\x00"), "has trailing bytes"),
    "trailing gzip member": (PACKED + gzip.compress(b"\x00"), "has trailing bytes"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx_files_are_refused_in_one_line(case, tmp_path):
    content, says = BAD_IDX[case]
    path = tmp_path / "bad-images-ubyte"
    path.write_bytes(content)
    refusal(idx.read_idx, path, name="bad-images-ubyte", says=says)


def test_idx_paths_that_cannot_be_read(tmp_path):
    refusal(idx.read_idx, tmp_path / "absent", name="absent", says="No such file")
    refusal(idx.read_idx, tmp_path, name=tmp_path.name, says="cannot be read")
    (tmp_path / "two\nlines").write_bytes(b"")
    refusal(idx.read_idx, tmp_path / "two\nlines", name="two lines", says="is empty")


@settings(deadline=None, max_examples=80)
@given(st.data(), st.booleans())
def test_no_damage_to_an_idx_file_goes_unnoticed_or_raises_anything_else(draw, compressed):
    original = PACKED if compressed else GOOD
    raw = bytearray(original)
    at = draw.draw(st.integers(0, len(raw) - 1))
    cut, altered, longer = b"", bytes([raw[at] ^ 0x41]) + raw[at + 1:], raw[at:] + bytes(9)
    raw[at:] = draw.draw(st.sampled_from([cut, altered, longer]))
    assume(raw != original)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        path.write_bytes(raw)
        try:
            result = idx.read_idx(path)
        except DataError as error:
            assert "damaged" in str(error) and "\n" not in str(error)
        else:
            # No checksum protects a plain payload or the time in a gzip header, and gzip allows zeros after
            # its end. Nothing else may be accepted.
            assert compressed or (at >= 16 and len(raw) == len(GOOD))
            assert not compressed or np.array_equal(result.ravel(), np.arange(24))


@pytest.mark.parametrize("shape", [(2**31 + 1,), (2**32 - 1,) * 3, (70000, 2**16, 2**16)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_absurd_promise_is_refused_before_any_allocation(shape, pack, tmp_path, monkeypatch):
    def no_allocation(*args, **kwargs):
        raise AssertionError("memory was asked for")

    (tmp_path / "huge").write_bytes(pack(header(*shape) + bytes(100)))
    monkeypatch.setattr(np, "empty", no_allocation)
    refusal(idx.read_idx, tmp_path / "huge", name="huge", says=f"at most {2**31} bytes are allowed")


def test_a_gzip_bomb_is_not_inflated(tmp_path):
    """100 bytes promised, 64 MiB inside; damage behind the first of them must not even be noticed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(header(100)) + packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    intact = bomb + packer.compress(bytes(63 * 2**20)) + packer.flush()
    for name, raw in ("intact", intact), ("damaged", bomb + b"\xff" * 1000):
        (tmp_path / name).write_bytes(raw)
        tracemalloc.start()
        try:
            refusal(idx.read_idx, tmp_path / name, name=name, says="has trailing bytes")
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_what_would_fill_the_memory_is_read_with_a_limit_alone(content, tmp_path):
    """140 MB in a file of 600 kB; and what so small a file cannot hold is refused before any of it is read."""
    folder = write_folder(tmp_path / "x", content)
    (folder / "train-images-idx3-ubyte").write_bytes(gzip.compress(header(140_000, 25, 40) + bytes(140_000_000), 1))
    (folder / "train-labels-idx1-ubyte").write_bytes(header(140_000) + bytes(140_000))
    (folder / "t10k-images-idx3-ubyte").write_bytes(header(5, 25, 40) + bytes(5000))
    refusal(readers.load, folder, name="train-images", says="become 140,000,000, ")
    tracemalloc.start()
    try:
        loaded = readers.load(folder, limit=3)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 23
    finally:
        tracemalloc.stop()
    assert loaded.train_images.shape == (3, 1000) and len(loaded.train_labels) == 3 and len(loaded.test_labels) == 3
    for pack in (bytes, gzip.compress):
        (tmp_path / "lie").write_bytes(pack(header(2 ** 30) + bytes(100)))
        refusal(idx.read_idx, tmp_path / "lie", name="lie",
                says="is cut short: the header promises 1073741824 bytes")


# --- folders ---

@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folder_of_idx_files_under_each_name(dash, suffix, content, tmp_path):
    names = {role: f"{role}{dash}idx{ndim}-ubyte{suffix}" for role, ndim in ROLES.items()}
    folder = write_folder(tmp_path / "letters", content, names)
    for loaded in idx.load_idx_folder(folder), idx.load_idx_folder(str(folder)), readers.load(folder):
        assert isinstance(loaded, ImageData)
        assert loaded.name == "letters"
        assert loaded.image_shape == (3, 4)
        assert loaded.train_images.shape == (7, 12) and loaded.test_images.shape == (5, 12)
        assert loaded.train_images.flags.c_contiguous and loaded.train_images.dtype == np.uint8
        assert same_images(loaded, content)


@pytest.mark.parametrize("missing", [["train-labels"], ["t10k-images", "t10k-labels"], list(ROLES)])
def test_missing_files_are_named_and_no_others(missing, content, tmp_path):
    folder = write_folder(tmp_path / "gaps", {role: content[role] for role in ROLES if role not in missing})
    message = refusal(idx.load_idx_folder, folder, name="gaps", says="all four are needed")
    for role in ROLES:
        assert (STANDARD[role] in message) == (role in missing)
    assert ".idx for -idx" in message and ".gz" in message


def test_folder_paths_that_are_none(tmp_path):
    refusal(idx.load_idx_folder, tmp_path / "absent", name="absent", says="no such folder")
    (tmp_path / "file").write_bytes(GOOD)
    refusal(idx.load_idx_folder, tmp_path / "file", name="file", says="is not a folder")


@pytest.mark.parametrize("role, other, says", [
    ("train-images", "train-labels", "holds labels (1 dimension); its name calls for images (3 dimensions)"),
    ("t10k-labels", "t10k-images", "holds images (3 dimensions); its name calls for labels (1 dimension)")])
def test_images_and_labels_exchanged(role, other, says, content, tmp_path):
    content[role] = content[other]
    refusal(idx.load_idx_folder, write_folder(tmp_path / "x", content), name=STANDARD[role], says=says)


def test_a_matrix_is_no_image_file(content, tmp_path):
    content["train-images"] = content["train-images"].reshape(7, 12)
    folder = write_folder(tmp_path / "x", content)
    refusal(idx.load_idx_folder, folder, name=STANDARD["train-images"], says="a matrix (2 dimensions)")


@pytest.mark.parametrize("part, count", [("train", 7), ("t10k", 5)])
def test_counts_of_images_and_labels_must_agree(part, count, content, tmp_path):
    content[f"{part}-labels"] = content[f"{part}-labels"][:-1]
    folder = write_folder(tmp_path / "x", content)
    refusal(idx.load_idx_folder, folder, name=STANDARD[f"{part}-labels"],
            says=f"holds {count - 1} labels for {count} images")


def test_train_and_test_shapes_must_agree(content, tmp_path):
    content["t10k-images"] = content["t10k-images"].transpose(0, 2, 1).copy()
    folder = write_folder(tmp_path / "x", content)
    refusal(idx.load_idx_folder, folder, name=STANDARD["t10k-images"],
            says="holds images (4, 3); the training images are (3, 4)")


def test_a_bad_file_in_a_folder_is_named(content, tmp_path):
    folder = write_folder(tmp_path / "x", content)
    (folder / STANDARD["t10k-labels"]).write_bytes(b"<html>")
    refusal(readers.load, folder, name=STANDARD["t10k-labels"], says="web page")


# --- the two sets known by their hashes ---

@pytest.fixture
def two_sets(monkeypatch, rng):
    """Two small sets that take the places of MNIST and Fashion-MNIST in the table of hashes."""
    sets = {family: small_set(rng) for family in ("mnist", "fashion-mnist")}
    known = {hashlib.sha256(idx_bytes(array)).hexdigest(): (family, role)
             for family, content in sets.items() for role, array in content.items()}
    monkeypatch.setattr(idx, "_KNOWN", known)
    return sets["mnist"], sets["fashion-mnist"]


def test_a_known_set_is_recognised_whatever_its_folder_and_packing(two_sets, tmp_path):
    for number, (content, family) in enumerate(zip(two_sets, ("mnist", "fashion-mnist"))):
        names = {**STANDARD, "train-images": "train-images.idx3-ubyte.gz"}
        loaded = readers.load(write_folder(tmp_path / f"folder{number}", content, names))
        assert loaded.name == family
        assert same_images(loaded, content)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("most", [0, 1])
def test_one_file_of_another_set_is_found(role, most, two_sets, tmp_path):
    folder = write_folder(tmp_path / "mixed", {**two_sets[most], role: two_sets[1 - most][role]})
    family, other = ("mnist", "fashion-mnist")[::1 - 2 * most]
    for call in idx.load_idx_folder, (idx.load_mnist, idx.load_fashion_mnist)[most]:
        refusal(call, folder, name=STANDARD[role], says=f"is not {family}'s {role} but {other}'s {role}")


@pytest.mark.parametrize("role", ROLES)
def test_one_altered_file_of_a_known_set_is_found(role, two_sets, tmp_path):
    altered = {name: array.copy() for name, array in two_sets[1].items()}
    altered[role].flat[1] ^= 1
    folder = write_folder(tmp_path / "altered", altered)
    for call in readers.load, idx.load_fashion_mnist:
        refusal(call, folder, name=STANDARD[role],
                says=f"is not fashion-mnist's {role} but an unknown set's file")


def test_the_right_file_in_the_wrong_place_is_found(two_sets, tmp_path):
    digits = two_sets[0]
    exchanged = {**digits, "train-images": digits["t10k-images"], "train-labels": digits["t10k-labels"]}
    refusal(readers.load, write_folder(tmp_path / "x", exchanged), name=STANDARD["train-images"],
            says="is not mnist's train-images but mnist's t10k-images")


def test_the_named_loaders_accept_their_own_set_only(two_sets, tmp_path, rng):
    digits, clothes = (write_folder(tmp_path / name, content) for name, content in zip("ab", two_sets))
    for call, own, other in (idx.load_mnist, digits, clothes), (idx.load_fashion_mnist, clothes, digits):
        result = call(own)
        assert type(result) is tuple and len(result) == 4
        assert result[0].shape == (7, 12) and result[1].shape == (7,)
        assert result[2].shape == (5, 12) and result[3].shape == (5,)
        refusal(call, other, name=STANDARD["train-images"], says="(by SHA-256), beside no file of")
    unknown = write_folder(tmp_path / "unknown", small_set(rng))
    refusal(idx.load_mnist, unknown, name=STANDARD["train-images"], says="an unknown set")
    assert readers.load(unknown).name == "unknown"


def test_embedded_mnist_is_mnist(mnist):
    assert type(mnist) is tuple and len(mnist) == 4
    shapes = {"train-images": (60000, 28, 28), "train-labels": (60000,),
              "t10k-images": (10000, 28, 28), "t10k-labels": (10000,)}
    for array, (role, shape) in zip(mnist, shapes.items()):
        assert array.dtype == np.uint8 and array.flags.c_contiguous
        assert array.shape == (shape[0], 784) if len(shape) == 3 else array.shape == shape
        assert hashlib.sha256(idx_bytes(array.reshape(shape))).hexdigest() == MNIST_SHA256[role]
    assert mnist[1][:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize("source", [None, "mnist"])
def test_load_without_a_path_is_embedded_mnist_in_little_memory(source, mnist):
    tracemalloc.start()
    try:
        loaded = readers.load(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded.name == "mnist" and loaded.image_shape == (28, 28)
    assert all(np.array_equal(a, b) for a, b in zip(loaded[:4], mnist))
    payload = sum(array.nbytes for array in mnist)
    assert peak < payload + 8 * 2**20


def test_an_altered_copy_of_the_embedded_set_is_refused(tmp_path, monkeypatch):
    for path in idx.EMBEDDED.glob("*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    labels = bytearray(gzip.decompress((tmp_path / "t10k-labels-idx1-ubyte.gz").read_bytes()))
    labels[-1] ^= 1
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setattr(idx, "EMBEDDED", tmp_path)
    refusal(idx.load_mnist, name="t10k-labels-idx1-ubyte.gz", says="is not mnist's t10k-labels")


def test_mnist_carries_its_own_licence_notice():
    notice = (Path(idx.__file__).parent / "mnist" / "LICENSE.md").read_text(encoding="utf-8")
    for text in "Yann LeCun and Corinna Cortes", "NIST", "CC BY-SA 3.0", *MNIST_SHA256.values():
        assert text in notice
