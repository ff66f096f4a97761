"""npvae.data: files are either read exactly as they are or refused in one line that names them."""
import gzip
import hashlib
import io
import struct
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from npvae import data
from npvae.data import BINARIZATIONS, DataError, ImageData, binarize

ROLES = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}
STANDARD = {role: f"{role}-idx{ndim}-ubyte" for role, ndim in ROLES.items()}
MNIST_SHA256 = {
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

idx_arrays = st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True).flatmap(
    lambda shape: arrays(np.uint8, tuple(shape), fill=st.nothing()))


def idx_bytes(array, type_byte=0x08):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, type_byte, array.ndim, *array.shape) + array.tobytes()


def header(*shape):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def refusal(call, *args, name, says):
    """The message of the DataError that call raises: one line, naming the file and saying what is wrong."""
    with pytest.raises(DataError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert name in message
    assert says in message, message
    return message


def small_set(rng, n_train=7, n_test=5, height=3, width=4):
    return {"train-images": rng.integers(0, 256, (n_train, height, width), dtype=np.uint8),
            "train-labels": rng.integers(0, 10, n_train, dtype=np.uint8),
            "t10k-images": rng.integers(0, 256, (n_test, height, width), dtype=np.uint8),
            "t10k-labels": rng.integers(0, 10, n_test, dtype=np.uint8)}


def write_folder(folder, content, names=STANDARD):
    folder.mkdir(exist_ok=True)
    for role, array in content.items():
        raw = idx_bytes(array)
        (folder / names[role]).write_bytes(gzip.compress(raw) if names[role].endswith(".gz") else raw)
    return folder


def same_images(loaded, content):
    """Whether an ImageData holds exactly the four arrays of content, images as rows."""
    train, test = content["train-images"], content["t10k-images"]
    return (np.array_equal(loaded.train_images, train.reshape(len(train), -1))
            and np.array_equal(loaded.test_images, test.reshape(len(test), -1))
            and np.array_equal(loaded.train_labels, content["train-labels"])
            and np.array_equal(loaded.test_labels, content["t10k-labels"]))


@pytest.fixture
def content(rng):
    return small_set(rng)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="module")
def mnist():
    return data.load_mnist()


# --- read_idx ---

@settings(deadline=None)
@given(idx_arrays, st.booleans(), st.sampled_from(["images", "images.gz"]))
def test_idx_round_trip_whatever_the_name_says(array, compressed, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array))
        for given_path in path, str(path):
            result = data.read_idx(given_path)
            assert result.dtype == np.uint8
            assert result.shape == array.shape
            assert np.array_equal(result, array)


def test_idx_longer_than_one_chunk(tmp_path, rng):
    array = rng.integers(0, 256, (3, 701, 1009), dtype=np.uint8)
    assert array.size > 2 * data._CHUNK
    (tmp_path / "x").write_bytes(gzip.compress(idx_bytes(array), 1))
    assert np.array_equal(data.read_idx(tmp_path / "x"), array)


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
    refusal(data.read_idx, path, name="bad-images-ubyte", says=says)


def test_idx_paths_that_cannot_be_read(tmp_path):
    refusal(data.read_idx, tmp_path / "absent", name="absent", says="No such file")
    refusal(data.read_idx, tmp_path, name=tmp_path.name, says="cannot be read")
    (tmp_path / "two\nlines").write_bytes(b"")
    refusal(data.read_idx, tmp_path / "two\nlines", name="two lines", says="is empty")


@settings(deadline=None, max_examples=300)
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
            result = data.read_idx(path)
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
    refusal(data.read_idx, tmp_path / "huge", name="huge", says=f"at most {2**31} bytes are allowed")


def test_a_gzip_bomb_is_not_inflated(tmp_path):
    """100 bytes promised, 64 MiB inside; damage behind the first of them must not even be noticed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(header(100)) + packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    intact = bomb + packer.compress(bytes(63 * 2**20)) + packer.flush()
    for name, raw in ("intact", intact), ("damaged", bomb + b"\xff" * 1000):
        (tmp_path / name).write_bytes(raw)
        tracemalloc.start()
        try:
            refusal(data.read_idx, tmp_path / name, name=name, says="has trailing bytes")
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


# --- folders ---

@pytest.mark.parametrize("dash", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folder_of_idx_files_under_each_name(dash, suffix, content, tmp_path):
    names = {role: f"{role}{dash}idx{ndim}-ubyte{suffix}" for role, ndim in ROLES.items()}
    folder = write_folder(tmp_path / "letters", content, names)
    for loaded in data.load_idx_folder(folder), data.load_idx_folder(str(folder)), data.load(folder):
        assert isinstance(loaded, ImageData)
        assert loaded.name == "letters"
        assert loaded.image_shape == (3, 4)
        assert loaded.train_images.shape == (7, 12) and loaded.test_images.shape == (5, 12)
        assert loaded.train_images.flags.c_contiguous and loaded.train_images.dtype == np.uint8
        assert same_images(loaded, content)


@pytest.mark.parametrize("missing", [["train-labels"], ["t10k-images", "t10k-labels"], list(ROLES)])
def test_missing_files_are_named_and_no_others(missing, content, tmp_path):
    folder = write_folder(tmp_path / "gaps", {role: content[role] for role in ROLES if role not in missing})
    message = refusal(data.load_idx_folder, folder, name="gaps", says="all four are needed")
    for role in ROLES:
        assert (STANDARD[role] in message) == (role in missing)
    assert ".idx for -idx" in message and ".gz" in message


def test_folder_paths_that_are_none(tmp_path):
    refusal(data.load_idx_folder, tmp_path / "absent", name="absent", says="no such folder")
    (tmp_path / "file").write_bytes(GOOD)
    refusal(data.load_idx_folder, tmp_path / "file", name="file", says="is not a folder")


@pytest.mark.parametrize("role, other, says", [
    ("train-images", "train-labels", "holds labels (1 dimension); its name calls for images (3 dimensions)"),
    ("t10k-labels", "t10k-images", "holds images (3 dimensions); its name calls for labels (1 dimension)")])
def test_images_and_labels_exchanged(role, other, says, content, tmp_path):
    content[role] = content[other]
    refusal(data.load_idx_folder, write_folder(tmp_path / "x", content), name=STANDARD[role], says=says)


def test_a_matrix_is_no_image_file(content, tmp_path):
    content["train-images"] = content["train-images"].reshape(7, 12)
    folder = write_folder(tmp_path / "x", content)
    refusal(data.load_idx_folder, folder, name=STANDARD["train-images"], says="a matrix (2 dimensions)")


@pytest.mark.parametrize("part, count", [("train", 7), ("t10k", 5)])
def test_counts_of_images_and_labels_must_agree(part, count, content, tmp_path):
    content[f"{part}-labels"] = content[f"{part}-labels"][:-1]
    folder = write_folder(tmp_path / "x", content)
    refusal(data.load_idx_folder, folder, name=STANDARD[f"{part}-labels"],
            says=f"holds {count - 1} labels for {count} images")


def test_train_and_test_shapes_must_agree(content, tmp_path):
    content["t10k-images"] = content["t10k-images"].transpose(0, 2, 1).copy()
    folder = write_folder(tmp_path / "x", content)
    refusal(data.load_idx_folder, folder, name=STANDARD["t10k-images"],
            says="holds images (4, 3); the training images are (3, 4)")


def test_a_bad_file_in_a_folder_is_named(content, tmp_path):
    folder = write_folder(tmp_path / "x", content)
    (folder / STANDARD["t10k-labels"]).write_bytes(b"<html>")
    refusal(data.load, folder, name=STANDARD["t10k-labels"], says="web page")


# --- the two sets known by their hashes ---

@pytest.fixture
def two_sets(monkeypatch, rng):
    """Two small sets that take the places of MNIST and Fashion-MNIST in the table of hashes."""
    sets = {family: small_set(rng) for family in ("mnist", "fashion-mnist")}
    known = {hashlib.sha256(idx_bytes(array)).hexdigest(): (family, role)
             for family, content in sets.items() for role, array in content.items()}
    monkeypatch.setattr(data, "_KNOWN", known)
    return sets["mnist"], sets["fashion-mnist"]


def test_a_known_set_is_recognised_whatever_its_folder_and_packing(two_sets, tmp_path):
    for number, (content, family) in enumerate(zip(two_sets, ("mnist", "fashion-mnist"))):
        names = {**STANDARD, "train-images": "train-images.idx3-ubyte.gz"}
        loaded = data.load(write_folder(tmp_path / f"folder{number}", content, names))
        assert loaded.name == family
        assert same_images(loaded, content)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("most", [0, 1])
def test_one_file_of_another_set_is_found(role, most, two_sets, tmp_path):
    folder = write_folder(tmp_path / "mixed", {**two_sets[most], role: two_sets[1 - most][role]})
    family, other = ("mnist", "fashion-mnist")[::1 - 2 * most]
    for call in data.load_idx_folder, (data.load_mnist, data.load_fashion_mnist)[most]:
        refusal(call, folder, name=STANDARD[role], says=f"is not {family}'s {role} but {other}'s {role}")


@pytest.mark.parametrize("role", ROLES)
def test_one_altered_file_of_a_known_set_is_found(role, two_sets, tmp_path):
    altered = {name: array.copy() for name, array in two_sets[1].items()}
    altered[role].flat[1] ^= 1
    folder = write_folder(tmp_path / "altered", altered)
    for call in data.load, data.load_fashion_mnist:
        refusal(call, folder, name=STANDARD[role],
                says=f"is not fashion-mnist's {role} but an unknown set's file")


def test_the_right_file_in_the_wrong_place_is_found(two_sets, tmp_path):
    digits = two_sets[0]
    exchanged = {**digits, "train-images": digits["t10k-images"], "train-labels": digits["t10k-labels"]}
    refusal(data.load, write_folder(tmp_path / "x", exchanged), name=STANDARD["train-images"],
            says="is not mnist's train-images but mnist's t10k-images")


def test_the_named_loaders_accept_their_own_set_only(two_sets, tmp_path, rng):
    digits, clothes = (write_folder(tmp_path / name, content) for name, content in zip("ab", two_sets))
    for call, own, other in (data.load_mnist, digits, clothes), (data.load_fashion_mnist, clothes, digits):
        result = call(own)
        assert type(result) is tuple and len(result) == 4
        assert result[0].shape == (7, 12) and result[1].shape == (7,)
        assert result[2].shape == (5, 12) and result[3].shape == (5,)
        refusal(call, other, name=STANDARD["train-images"], says="(by SHA-256), beside no file of")
    unknown = write_folder(tmp_path / "unknown", small_set(rng))
    refusal(data.load_mnist, unknown, name=STANDARD["train-images"], says="an unknown set")
    assert data.load(unknown).name == "unknown"


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
        loaded = data.load(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded.name == "mnist" and loaded.image_shape == (28, 28)
    assert all(np.array_equal(a, b) for a, b in zip(loaded[:4], mnist))
    payload = sum(array.nbytes for array in mnist)
    assert peak < payload + 8 * 2**20


def test_an_altered_copy_of_the_embedded_set_is_refused(tmp_path, monkeypatch):
    for path in data._EMBEDDED.glob("*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    labels = bytearray(gzip.decompress((tmp_path / "t10k-labels-idx1-ubyte.gz").read_bytes()))
    labels[-1] ^= 1
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setattr(data, "_EMBEDDED", tmp_path)
    refusal(data.load_mnist, name="t10k-labels-idx1-ubyte.gz", says="is not mnist's t10k-labels")


def test_mnist_carries_its_own_licence_notice():
    notice = (Path(data.__file__).parent / "mnist" / "LICENSE.md").read_text(encoding="utf-8")
    for text in "Yann LeCun and Corinna Cortes", "NIST", "CC BY-SA 3.0", *MNIST_SHA256.values():
        assert text in notice


# --- .npy and .npz ---

@pytest.mark.parametrize("n, n_test", [(2, 1), (9, 1), (19, 1), (20, 2), (57, 5)])
def test_npy_gives_its_last_tenth_to_the_test_set(n, n_test, tmp_path, rng):
    array = rng.integers(0, 256, (n, 6), dtype=np.uint8)
    np.save(tmp_path / "words.npy", array)
    np.savez(tmp_path / "words.npz", anything=array)
    for path in tmp_path / "words.npy", str(tmp_path / "words.npz"):
        loaded = data.load(path)
        assert loaded.name == "words" and loaded.image_shape == (1, 6)
        assert loaded.train_labels is None and loaded.test_labels is None
        assert np.array_equal(loaded.train_images, array[:n - n_test])
        assert np.array_equal(loaded.test_images, array[n - n_test:])


@pytest.mark.parametrize("shape, image_shape", [
    ((5, 12), (1, 12)), ((5, 16), (4, 4)), ((5, 1), (1, 1)), ((5, 3, 4), (3, 4)), ((5, 2, 8), (2, 8))])
def test_image_shape(shape, image_shape, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    loaded = data.load_array(tmp_path / "x.npy")
    assert loaded.image_shape == image_shape
    assert loaded.train_images.shape == (4, image_shape[0] * image_shape[1])


@pytest.mark.parametrize("dtype, low", [("uint8", 0), ("bool", 0), ("float16", -3), ("float32", -3),
                                        ("float64", -3), ("longdouble", -3), (">f4", -3), (">f8", -3)])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(10, 12), (10, 3, 4)])
def test_pixel_types(dtype, low, order, shape, tmp_path, rng):
    array = np.asarray(rng.integers(low, 2, shape), dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    loaded = data.load_array(tmp_path / "x.npy")
    expected = {"uint8": np.uint8, "bool": np.uint8}.get(dtype, np.float32)
    values = array.reshape(10, 12).astype(np.float64) * (255 if dtype == "bool" else 1)
    for images, rows in (loaded.train_images, values[:9]), (loaded.test_images, values[9:]):
        assert images.dtype == expected and images.dtype.isnative and images.flags.c_contiguous
        assert np.array_equal(images, rows)


@pytest.mark.parametrize("keys", [("train", "test", "train_labels", "test_labels"),
                                  ("x_train", "x_test", "y_train", "y_test")])
@pytest.mark.parametrize("label_type, kept_as", [("uint8", "uint8"), ("int32", "int64"), ("int64", "int64")])
def test_npz_of_four_arrays(keys, label_type, kept_as, content, tmp_path):
    saved = {"train-images": content["train-images"], "t10k-images": content["t10k-images"],
             "train-labels": content["train-labels"].astype(label_type),
             "t10k-labels": content["t10k-labels"].astype(label_type)}
    np.savez_compressed(tmp_path / "four.npz", notes=np.array("text"),
                        **{key: saved[role] for key, role in zip(keys, ("train-images", "t10k-images",
                                                                        "train-labels", "t10k-labels"))})
    loaded = data.load(tmp_path / "four.npz")
    assert loaded.name == "four" and loaded.image_shape == (3, 4)
    assert same_images(loaded, content)
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == kept_as


def test_npz_labels_are_optional_each(content, tmp_path):
    images = {"train": content["train-images"], "test": content["t10k-images"]}
    np.savez(tmp_path / "none.npz", **images)
    np.savez(tmp_path / "one.npz", test_labels=content["t10k-labels"], **images)
    none, one = data.load(tmp_path / "none.npz"), data.load(tmp_path / "one.npz")
    assert none.train_labels is None and none.test_labels is None and one.train_labels is None
    assert np.array_equal(one.test_labels, content["t10k-labels"])


def ones(*shape, dtype=np.uint8):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("array, says", [
    (ones(4, 3, dtype=np.int64), "dtype int64; uint8, bool and the float types are allowed"),
    (ones(4, 3, dtype=np.int8), "dtype int8"), (ones(4, 3, dtype=np.uint16), "dtype uint16"),
    (ones(4, 3, dtype=complex), "dtype complex128"), (ones(4, 3, dtype="U3"), "dtype <U3"),
    (ones(4), "shape (4,); (N, D) or (N, H, W) is allowed"), (ones(4, 3, 2, 1), "shape (4, 3, 2, 1)"),
    (ones(), "shape ()"), (ones(0, 3), "no dimension zero"), (ones(3, 0), "no dimension zero"),
    (ones(1, 3), "at least 2 are needed"),
    (np.array([[1.0, 2.0], [np.nan, 4.0]]), "NaN or infinity"),
    (np.array([[1.0], [np.inf]]), "NaN or infinity"), (np.array([[1e300], [1.0]]), "NaN or infinity"),
    (np.array([[1.0], [-np.inf]], np.float32), "NaN or infinity")])
def test_bad_arrays_are_refused(array, says, tmp_path):
    np.save(tmp_path / "bad.npy", array)
    refusal(data.load, tmp_path / "bad.npy", name="bad.npy", says=says)
    np.savez(tmp_path / "bad.npz", train=array, test=array, other=array)
    if len(np.atleast_1d(array)) != 1 or array.ndim == 0:  # one image is enough where the test set is given
        refusal(data.load, tmp_path / "bad.npz", name="bad.npz: train h", says=says)


def test_gaussian_pixels_of_any_finite_range_are_let_through(tmp_path):
    array = np.array([[-7.5], [1e30]])
    np.save(tmp_path / "x.npy", array)
    loaded = data.load(tmp_path / "x.npy")
    assert loaded.train_images.tolist() == [[-7.5]] and loaded.test_images.tolist() == [[np.float32(1e30)]]


@pytest.mark.parametrize("content, says", [
    ({}, "holds []; train and test, x_train and x_test, or a single array are allowed"),
    ({"train": ones(2, 3), "valid": ones(2, 3)}, "holds ['train', 'valid']; train and test"),
    ({"train": ones(2, 3), "x_test": ones(2, 3)}, "train and test"),
    ({"train": ones(2, 3), "test": ones(2, 4)}, "train is uint8 (1, 3), test uint8 (2, 2); they must agree"),
    ({"x_train": ones(2, 3), "x_test": ones(2, 3, dtype=float)}, "x_test float32 (1, 3); they must agree"),
    ({"train": ones(2, 3), "test": ones(5, 3), "train_labels": ones(5)},
     "train_labels is uint8 (5,); integers (2,) that fit int64 are allowed"),
    ({"train": ones(2, 3), "test": ones(5, 3), "test_labels": ones(5, 1)}, "test_labels is uint8 (5, 1)"),
    ({"x_train": ones(2, 3), "x_test": ones(5, 3), "y_test": ones(5, dtype=float)}, "y_test is float64 (5,)"),
    ({"x_train": ones(2, 3), "x_test": ones(5, 3), "y_train": ones(2, dtype=np.uint64)},
     "y_train is uint64 (2,)")])
def test_bad_npz_contents_are_refused(content, says, tmp_path):
    np.savez(tmp_path / "bad.npz", **content)
    refusal(data.load, tmp_path / "bad.npz", name="bad.npz", says=says)


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz"])
@pytest.mark.parametrize("raw", [b"", b"<html>\n404</html>", b"PK\x03\x04junk", b"\x93NUMPY",
                                 b"\x93NUMPY\x01\x00\x04\x00{(\n "],
                         ids=["empty", "web page", "zip", "magic", "header"])
def test_files_that_are_no_numpy_files(name, raw, tmp_path):
    (tmp_path / name).write_bytes(raw)
    refusal(data.load, tmp_path / name, name=name, says="it is damaged, or no .npy or .npz of plain arrays")


def test_pickles_are_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([[Trap()], [Trap()]], dtype=object)
    np.save(tmp_path / "trap.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "trap.npz", train=trap, test=trap)
    (tmp_path / "bare.npy").write_bytes(trap.dumps())
    for name in "trap.npy", "trap.npz", "bare.npy":
        refusal(data.load, tmp_path / name, name=name, says="plain arrays")
    assert not (tmp_path / "sprung").exists()


def test_a_foreign_member_of_a_zip_is_no_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    refusal(data.load, tmp_path / "x.npz", name="x.npz", says="readme.txt has shape ()")


def numpy_files():
    files = []
    for save in np.save, np.savez, np.savez_compressed:
        buffer = io.BytesIO()
        save(buffer, np.arange(24, dtype=np.uint8).reshape(4, 6))
        files.append(buffer.getvalue())
    return files


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(numpy_files()), st.data())
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_a_damaged_numpy_file_raises_nothing_but_data_error(raw, draw):
    at = draw.draw(st.integers(0, len(raw) - 1))
    damaged = bytearray(raw)
    altered = bytes([raw[at] ^ draw.draw(st.integers(1, 255))]) + raw[at + 1:]
    damaged[at:] = draw.draw(st.sampled_from([b"", altered]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.npy"
        path.write_bytes(damaged)
        try:
            loaded = data.load_array(path)
        except DataError as error:
            assert "damaged.npy" in str(error) and "\n" not in str(error)
        else:
            assert loaded.train_images.ndim == 2


# --- load ---

def test_load_says_what_is_allowed(tmp_path):
    (tmp_path / "images.csv").write_text("1,2,3")
    allowed = "mnist, a folder of IDX files, a .npy and a .npz file are allowed"
    for source, name, says in ((tmp_path / "images.csv", "images.csv", "is no data set"),
                               (tmp_path / "absent.npy", "absent.npy", "there is no such file or folder"),
                               ("cifar", "cifar", "there is no such file or folder"),
                               (17, "source", "is of type int"),
                               (np.zeros((2, 3)), "source", "is of type ndarray")):
        message = refusal(data.load, source, name=name, says=says)
        assert allowed in message
    refusal(data.load_array, tmp_path / "absent.npy", name="absent.npy", says="No such file")


def test_a_folder_called_mnist_is_reached_as_a_path(content, tmp_path, monkeypatch):
    write_folder(tmp_path / "mnist", content)
    monkeypatch.chdir(tmp_path)
    assert len(data.load("./mnist").train_images) == 7
    assert len(data.load(Path("mnist")).train_images) == 7
    assert len(data.load("mnist").train_images) == 60000


# --- binarization ---

def test_the_known_binarizations():
    assert BINARIZATIONS == ("none", "threshold", "static", "dynamic")
    with pytest.raises(ValueError, match="'otsu' is unknown; known are none, threshold, static, dynamic$"):
        binarize(np.zeros((2, 3), np.uint8), "otsu", np.random.default_rng(0))
    with pytest.raises(DataError, match="dtype int64; uint8 and the float types"):
        binarize(np.zeros((2, 3), np.int64), "threshold", np.random.default_rng(0))


@pytest.mark.parametrize("how", ["none", "dynamic", "threshold"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_all_but_static_draw_nothing_and_change_no_input(how, dtype, rng):
    images = np.arange(256).reshape(64, 4).astype(dtype)
    before, state = images.copy(), rng.bit_generator.state
    result = binarize(images, how, rng)
    assert rng.bit_generator.state == state
    assert np.array_equal(images, before)
    assert (result is images) == (how != "threshold")


def test_threshold_on_both_sides_of_its_edge(rng):
    grey = np.array([[0, 1, 127], [128, 129, 255]], np.uint8)
    black_and_white = binarize(grey, "threshold", rng)
    assert black_and_white.dtype == np.uint8
    assert black_and_white.tolist() == [[0, 0, 0], [255, 255, 255]]
    for dtype in np.float16, np.float32, np.float64:
        below = np.nextafter(dtype(0.5), dtype(0))
        black_and_white = binarize(np.array([[0, below], [0.5, 1]], dtype), "threshold", rng)
        assert black_and_white.dtype == dtype
        assert black_and_white.tolist() == [[0, 0], [1, 1]]


def pixel_fan(dtype, n_rows=20000):
    """(n_rows, 256): column v has the grey value v."""
    fan = np.arange(256) if dtype == np.uint8 else np.arange(256) / 255
    return np.tile(fan.astype(dtype), (n_rows, 1))


def deviations(white, probability):
    """Column means of white (N, V) against their probabilities: overall z, largest |z|; 0 and 1 exact."""
    certain = (probability == 0) | (probability == 1)
    if not np.array_equal(white[:, certain].mean(axis=0), probability[certain]):
        return np.inf, np.inf
    mean, p = white[:, ~certain].mean(axis=0), probability[~certain]
    variance = p * (1 - p) / len(white)
    return np.sum(mean - p) / np.sqrt(np.sum(variance)), np.max(np.abs(mean - p) / np.sqrt(variance))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_static_draws_white_with_the_pixels_probability(dtype, rng):
    images = pixel_fan(dtype)
    result = binarize(images, "static", rng)
    assert result.dtype == dtype and result.shape == images.shape
    assert np.unique(result).tolist() == [0, 255 if dtype == np.uint8 else 1]
    overall, largest = deviations(result != 0, np.arange(256) / 255)
    assert abs(overall) < 4 and largest < 5


def test_the_statistics_above_would_notice_a_wrong_sampler(rng):
    images, probability = pixel_fan(np.uint8), np.arange(256) / 255
    uniform = rng.random(images.shape)
    right = uniform < images / 255
    overall, largest = deviations(right, probability)
    assert abs(overall) < 4 and largest < 5
    # the black pixel never white, the white one always, but every other one off by half a grey level
    shifted = (uniform < (images + 0.5) / 255) & (images > 0) | (images == 255)
    one_row = np.broadcast_to(right[:1], right.shape)
    for wrong in uniform < images / 256, shifted, uniform < (images / 255) ** 1.05, images >= 128, one_row:
        overall, largest = deviations(wrong, probability)
        assert abs(overall) > 4 or largest > 5


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("draw", [0, 1 - 2**-24])
def test_black_stays_black_and_white_white_at_the_ends_of_the_generator(dtype, draw):
    class Extreme:
        def random(self, size, dtype):
            return np.full(size, draw, dtype)

    white = 255 if dtype == np.uint8 else 1
    assert binarize(np.array([[0, white]], dtype), "static", Extreme()).tolist() == [[0, white]]


def test_static_pixels_are_independent_of_each_other(rng):
    """Neighbours, the next row, the next block: at p = 1/2 the correlations are 0 within 5 / sqrt(n)."""
    white = binarize(np.full((4096, 256), 0.5, np.float32), "static", rng) - 0.5
    rows_per_block = data._BLOCK // 256
    assert len(white) > 2 * rows_per_block
    for first, second in ((white[:, 1:], white[:, :-1]), (white[1:], white[:-1]),
                          (white[rows_per_block:], white[:-rows_per_block])):
        assert abs(4 * np.mean(first * second)) < 5 / np.sqrt(first.size)


def test_static_is_given_by_the_generator_alone(rng, monkeypatch):
    images = rng.integers(0, 256, (23, 7), dtype=np.uint8)
    first = binarize(images, "static", np.random.default_rng(3))
    assert np.array_equal(first, binarize(images, "static", np.random.default_rng(3)))
    assert not np.array_equal(first, binarize(images, "static", np.random.default_rng(4)))
    for block in 1, 14, 35, 10**6:  # rows at a time: 1, 2, 5, all
        monkeypatch.setattr(data, "_BLOCK", block)
        assert np.array_equal(first, binarize(images, "static", np.random.default_rng(3)))


@pytest.mark.parametrize("value", [-1e-6, 1.0001, np.nan])
def test_static_refuses_floats_that_are_no_probabilities(value, rng):
    images = np.full((3, 4), 0.5, np.float32)
    images[1, 2] = value
    state = rng.bit_generator.state
    with pytest.raises(DataError, match="static binarization allows 0 to 1") as caught:
        binarize(images, "static", rng)
    assert "\n" not in str(caught.value)
    assert rng.bit_generator.state == state


@pytest.mark.parametrize("how", ["static", "threshold"])
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 3, 5)])
def test_binarize_keeps_any_shape(how, shape, rng):
    assert binarize(np.zeros(shape, np.uint8), how, rng).shape == shape


@pytest.mark.parametrize("how", ["static", "threshold"])
def test_binarization_needs_little_memory_beside_its_result(how, rng):
    images = np.zeros((20000, 784), np.uint8)
    tracemalloc.start()
    try:
        binarize(images, how, rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes + 8 * 2**20
