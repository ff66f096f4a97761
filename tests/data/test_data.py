"""npvae.data, arrays and binarization: files are read exactly as they are or refused in one line that names them."""
import io
import tempfile
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from files import LAST, refusal, same_images, small_set, write_folder
from npvae.data import arrays, idx, images as others, readers, tables
from npvae.data import BINARIZATIONS, DataError, Reading, binarize


@pytest.fixture
def content(rng):
    return small_set(rng)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# --- .npy and .npz ---

@pytest.mark.parametrize("n, n_test", [(2, 1), (9, 1), (19, 1), (20, 2), (57, 5)])
def test_npy_gives_its_last_tenth_to_the_test_set(n, n_test, tmp_path, rng):
    array = rng.integers(0, 256, (n, 6), dtype=np.uint8)
    np.save(tmp_path / "words.npy", array)
    np.savez(tmp_path / "words.npz", anything=array)
    for path in tmp_path / "words.npy", str(tmp_path / "words.npz"):
        loaded = readers.load(path, reading=LAST)
        assert loaded.name == "words" and loaded.image_shape == (1, 6)
        assert loaded.train_labels is None and loaded.test_labels is None
        assert np.array_equal(loaded.train_images, array[:n - n_test])
        assert np.array_equal(loaded.test_images, array[n - n_test:])


def test_the_test_part_is_drawn_at_random_with_a_seed_of_its_own(tmp_path):
    """Or it would be one class of a file sorted by class."""
    np.save(tmp_path / "x.npy", np.arange(200, dtype=np.uint8)[:, None])
    loaded, again = readers.load(tmp_path / "x.npy"), readers.load(tmp_path / "x.npy")
    tests = loaded.test_images[:, 0].astype(int)
    assert np.array_equal(tests, again.test_images[:, 0]) and len(tests) == 20 and (np.diff(tests) > 0).all()
    assert tests.min() < 40 and tests.max() > 160
    assert sorted([*tests, *loaded.train_images[:, 0]]) == [*range(200)]
    few = readers.load(tmp_path / "x.npy", limit=5)
    assert np.array_equal(few.test_images, loaded.test_images[:5])
    assert np.array_equal(few.train_images, loaded.train_images[:5])
    third = readers.load(tmp_path / "x.npy", reading=Reading(test_fraction=0.3))
    assert len(third.test_images) == 60


@pytest.mark.parametrize("shape, image_shape", [
    ((5, 12), (1, 12)), ((5, 16), (4, 4)), ((5, 1), (1, 1)), ((5, 3, 4), (3, 4)), ((5, 2, 8), (2, 8))])
def test_image_shape(shape, image_shape, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    loaded = arrays.load_array(tmp_path / "x.npy", reading=LAST)
    assert loaded.image_shape == image_shape
    assert loaded.train_images.shape == (4, image_shape[0] * image_shape[1])


@pytest.mark.parametrize("dtype, low", [("uint8", 0), ("bool", 0), ("float16", -3), ("float32", -3),
                                        ("float64", -3), ("longdouble", -3), (">f4", -3), (">f8", -3)])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(10, 12), (10, 3, 4)])
def test_pixel_types(dtype, low, order, shape, tmp_path, rng):
    array = np.asarray(rng.integers(low, 2, shape), dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    loaded = arrays.load_array(tmp_path / "x.npy", reading=LAST)
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
    loaded = readers.load(tmp_path / "four.npz", reading=LAST)
    assert loaded.name == "four" and loaded.image_shape == (3, 4)
    assert same_images(loaded, content)
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == kept_as


def test_npz_labels_are_optional_each(content, tmp_path):
    images = {"train": content["train-images"], "test": content["t10k-images"]}
    np.savez(tmp_path / "none.npz", **images)
    np.savez(tmp_path / "one.npz", test_labels=content["t10k-labels"], **images)
    none, one = readers.load(tmp_path / "none.npz", reading=LAST), readers.load(tmp_path / "one.npz", reading=LAST)
    assert none.train_labels is None and none.test_labels is None and one.train_labels is None
    assert np.array_equal(one.test_labels, content["t10k-labels"])


def ones(*shape, dtype=np.uint8):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("array, says", [
    (300 * ones(4, 3, dtype=np.int64), "holds int64 from 0 to 300, which are no bytes: --values counts or --values"),
    (-ones(4, 3, dtype=np.int8), "holds int8 from -1 to 0, which are no bytes"),
    (ones(4, 3, dtype=complex), "dtype complex128; uint8, bool, other integers and the float types are allowed"),
    (ones(4, 3, dtype="U3"), "dtype <U3"),
    (ones(4), "shape (4,); (N, D), (N, H, W) or (N, H, W, 3) is allowed"),
    (ones(4, 3, 2, 1, 1), "shape (4, 3, 2, 1, 1)"),
    (ones(4, 5, 2, 4), "images of 1 or 3 colours, (N, H, W, 3) or (N, 3, H, W), are allowed: the fourth is how opaque"),
    (ones(), "shape ()"), (ones(0, 3), "no dimension zero"), (ones(3, 0), "no dimension zero"),
    (ones(1, 3), "at least 2 are needed"),
    (np.array([[1.0], [np.inf]]), "holds infinity"), (np.array([[1e300], [1.0]]), "holds infinity"),
    (np.array([[1.0, np.nan], [-np.inf, 1]], np.float32), "holds infinity")])
def test_bad_arrays_are_refused(array, says, tmp_path):
    np.save(tmp_path / "bad.npy", array)
    refusal(readers.load, tmp_path / "bad.npy", name="bad.npy", says=says)
    np.savez(tmp_path / "bad.npz", train=array, test=array, other=array)
    if len(np.atleast_1d(array)) != 1 or array.ndim == 0:  # one image is enough where the test set is given
        refusal(readers.load, tmp_path / "bad.npz", name="bad.npz: train h", says=says)


def test_gaps_are_let_through(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[1, np.nan], [np.nan, np.nan]]))
    loaded = readers.load(tmp_path / "x.npy", reading=LAST)
    assert np.array_equal(loaded.train_images, [[1, np.nan]], equal_nan=True) and np.isnan(loaded.test_images).all()


def test_gaussian_pixels_of_any_finite_range_are_let_through(tmp_path):
    array = np.array([[-7.5], [1e30]])
    np.save(tmp_path / "x.npy", array)
    loaded = readers.load(tmp_path / "x.npy", reading=LAST)
    assert loaded.train_images.tolist() == [[-7.5]] and loaded.test_images.tolist() == [[np.float32(1e30)]]


@pytest.mark.parametrize("content, says", [
    ({}, "holds []; train and test, x_train and x_test, train_images and test_images, x and y, or a single array are"),
    ({"train": ones(2, 3), "valid": ones(2, 3)}, "holds ['train', 'valid']; train and test"),
    ({"train": ones(2, 3), "x_test": ones(2, 3)}, "train and test"),
    ({"train": ones(2, 3), "test": ones(2, 4)}, "train is uint8 (1, 3), test uint8 (2, 2); they must agree"),
    ({"x_train": ones(2, 3), "x_test": ones(2, 3, dtype=float)}, "x_test float64 (1, 3); they must agree"),
    ({"train": ones(2, 3), "test": ones(5, 3), "train_labels": ones(5)},
     "train_labels is uint8 (5,); integers (2,) that fit int64 are allowed"),
    ({"train": ones(2, 3), "test": ones(5, 3), "test_labels": ones(5, 2)}, "test_labels is uint8 (5, 2)"),
    ({"x_train": ones(2, 3), "x_test": ones(5, 3), "y_test": ones(5, dtype=float)}, "y_test is float64 (5,)"),
    ({"x_train": ones(2, 3), "x_test": ones(5, 3), "y_train": ones(2, dtype=np.uint64)},
     "y_train is uint64 (2,)")])
def test_bad_npz_contents_are_refused(content, says, tmp_path):
    np.savez(tmp_path / "bad.npz", **content)
    refusal(readers.load, tmp_path / "bad.npz", name="bad.npz", says=says)


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz"])
@pytest.mark.parametrize("raw", [b"", b"<html>\n404</html>", b"PK\x03\x04junk", b"\x93NUMPY",
                                 b"\x93NUMPY\x01\x00\x04\x00{(\n "],
                         ids=["empty", "web page", "zip", "magic", "header"])
def test_files_that_are_no_numpy_files(name, raw, tmp_path):
    (tmp_path / name).write_bytes(raw)
    refusal(readers.load, tmp_path / name, name=name, says="it is damaged, or no .npy or .npz of plain arrays")


def test_pickles_are_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([[Trap()], [Trap()]], dtype=object)
    np.save(tmp_path / "trap.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "trap.npz", train=trap, test=trap)
    (tmp_path / "bare.npy").write_bytes(trap.dumps())
    for name in "trap.npy", "trap.npz", "bare.npy":
        refusal(readers.load, tmp_path / name, name=name, says="plain arrays")
    assert not (tmp_path / "sprung").exists()


def test_a_foreign_member_of_a_zip_is_no_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    refusal(readers.load, tmp_path / "x.npz", name="x.npz", says="plain arrays (it is not an array file of NumPy)")


def numpy_files():
    files = []
    for save in np.save, np.savez, np.savez_compressed:
        buffer = io.BytesIO()
        save(buffer, np.arange(24, dtype=np.uint8).reshape(4, 6))
        files.append(buffer.getvalue())
    return files


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(numpy_files()), st.data())
def test_a_damaged_numpy_file_raises_nothing_but_data_error(raw, draw):
    at = draw.draw(st.integers(0, len(raw) - 1))
    damaged = bytearray(raw)
    altered = bytes([raw[at] ^ draw.draw(st.integers(1, 255))]) + raw[at + 1:]
    damaged[at:] = draw.draw(st.sampled_from([b"", altered]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.npy"
        path.write_bytes(damaged)
        try:
            loaded = arrays.load_array(path, reading=LAST)
        except DataError as error:
            assert "damaged.npy" in str(error) and "\n" not in str(error)
        else:
            assert loaded.train_images.ndim == 2


# --- load ---

def test_load_says_what_is_allowed(tmp_path):
    (tmp_path / "images.txt").write_text("1,2,3")
    allowed = "mnist, a folder of IDX files or of pictures, a .csv, .npy or .npz file are allowed"
    for source, name, says in ((tmp_path / "images.txt", "images.txt", "is not a data set"),
                               (tmp_path / "absent.npy", "absent.npy", "there is no such file or folder"),
                               (tmp_path / "absent.csv", "absent.csv", "there is no such file or folder"),
                               ("cifar", "cifar", "there is no such file or folder")):
        message = refusal(readers.load, source, name=name, says=says)
        assert allowed in message
    refusal(arrays.load_array, tmp_path / "absent.npy", name="absent.npy", says="No such file")
    for source in (17, np.zeros((2, 3))):
        with pytest.raises(TypeError):
            readers.load(source, reading=LAST)


def test_a_folder_called_mnist_is_reached_as_a_path(content, tmp_path, monkeypatch):
    write_folder(tmp_path / "mnist", content)
    monkeypatch.chdir(tmp_path)
    assert len(readers.load("./mnist", reading=LAST).train_images) == 7
    assert len(readers.load(Path("mnist"), reading=LAST).train_images) == 7
    assert len(readers.load("mnist", reading=LAST).train_images) == 60000


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
    rows_per_block = readers._BLOCK // 256
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
        monkeypatch.setattr(readers, "_BLOCK", block)
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


# --- what is more than is needed ---

@pytest.mark.slow
def test_a_zip_that_expands_a_thousandfold(tmp_path):
    """Two arrays of 135 MB each in a file of 264 kB: whole they are refused, with a limit their first rows are read."""
    array = np.zeros((2 ** 17 + 4000, 1000), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", train=array, test=array)
    refusal(readers.load, tmp_path / "x.npz", name="x.npz", says="times as many: read its first images with --limit")
    tracemalloc.start()
    try:
        assert readers.load(tmp_path / "x.npz", limit=6, reading=LAST).train_images.shape == (6, 1000)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 3 TiB"), OSError(24, "Too many open files"),
                                   OSError(13, "Permission denied")])
@pytest.mark.parametrize("source", ["x.npy", "x.npz", "x.csv", "idx", "pictures"])
def test_what_the_machine_refuses_is_said_of_the_file(source, error, content, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", ones(4, 3))
    np.savez(tmp_path / "x.npz", ones(4, 3))
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    write_folder(tmp_path / "idx", content)
    (tmp_path / "pictures").mkdir()
    for name in "ab":
        Image.fromarray(ones(4, 3)).save(tmp_path / "pictures" / f"{name}.png")

    def refuse(*args, **more):
        raise error

    for module in idx, arrays, others, tables:
        monkeypatch.setattr(module, "open_regular", refuse)
    name = {"idx": "-ubyte", "pictures": "a.png"}.get(source, source)
    says = getattr(error, "strerror", None) or "there is no memory for it"
    refusal(partial(readers.load, reading=LAST), tmp_path / source, name=name, says=says)


@pytest.mark.parametrize("error, says", [
    (OSError(36, "File name too long"), "cannot be read (File name too long)"), (OSError("gone"), "be read (gone)"),
    (MemoryError("3 TiB"), "there is no memory for it (3 TiB); fewer images")])
def test_a_path_that_cannot_be_looked_at(error, says, monkeypatch):
    monkeypatch.setattr(Path, "is_dir", mock.Mock(side_effect=error))
    refusal(readers.load, "some.npy", name="some.npy", says=says)
