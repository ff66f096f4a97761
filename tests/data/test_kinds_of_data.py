"""The kinds of data that people have: what the data line says of each, or the line that refuses it and says the cure.
None is silently taken for something else."""
import gzip
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from npvae import data
from npvae.data import DataError, Reading

N = 40


def rng():
    return np.random.default_rng(5)


def npy(array):
    def write(folder):
        np.save(folder / "x.npy", array)
        return folder / "x.npy"
    return write


def npz(**arrays):
    def write(folder):
        np.savez(folder / "x.npz", **arrays)
        return folder / "x.npz"
    return write


def text(content, name="x.csv"):
    def write(folder):
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name
    return write


def table(array, header=""):
    return text("\n".join([*([header] if header else []), *(",".join(map(str, row)) for row in array.tolist()), ""]))


def folder(**files):
    """A folder of files: bytes, text, or a function that writes one."""
    def write(folder):
        for name, content in files.items():
            path = folder / name
            if callable(content):
                content(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder
    return write


def idx(array, kind=8, order=">u1"):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.astype(order).tobytes()


def save(array):
    return lambda path: np.savez(path, array)


def idx_set(name, labels, label_type=8, part="test", images=None):
    """A set as EMNIST and QMNIST name it: 12 images to train, 5 to test."""
    images = GREY if images is None else images
    files, kind, dash = {}, *{8: ("idx1-ubyte", ">u1"), 12: ("idx2-int", ">i4")}[label_type]
    for role, rows in (("train", slice(12)), (part, slice(12, 17))):
        files[f"{name}-{role}-images-idx3-ubyte.gz"] = gzip.compress(idx(images[rows]))
        files[f"{name}-{role}-labels-{kind}.gz"] = gzip.compress(idx(labels[rows], label_type, dash))
    return files


def pictures(*sizes, mode="L"):
    def write(folder):
        for i, (height, width) in enumerate(sizes):
            shape = (height, width) if mode == "L" else (height, width, 3)
            Image.fromarray(rng().integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
        return folder
    return write


def cifar(labels, *names):
    batch = np.hstack([np.arange(6 * labels).reshape(6, labels), rng().integers(0, 256, (6, 3072))]).astype(np.uint8)
    return folder(**{name: batch.tobytes() for name in names})


def amat(array):
    return "".join(" ".join(map(str, row)) + " \n" for row in array.tolist())


ZEROS_AND_ONES = rng().integers(0, 2, (N, 8, 8))
DIGITS = rng().integers(0, 17, (N, 64))      # as scikit-learn's
DIGITS[0, 0] = 16
GREY = rng().integers(0, 256, (N, 8, 8))
GREY[0, 0], GREY[1, 0] = 0, 255
COLOURS = rng().integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
COLOURS[0, 0, 0], COLOURS[25, 0, 0] = 0, 255


def digits_csv(labelled):
    header = ["label"] * labelled + [f"pixel{i}" for i in range(64)]
    rows = np.column_stack([np.arange(40) % 10, GREY.reshape(N, 64)])[:, not labelled:]
    return "\n".join([",".join(header), *(",".join(map(str, row)) for row in rows.tolist()), ""])


TEST = "the test part is 4 of them, drawn at random (seed 0)"
FAR_BELOW = "its largest number is 16, far below 255, and it was divided by 255 all the same: --values counts or real"

#: what it is -> how it is written, how it is read, what the data line says, and what the notes say; or the refusal
KINDS = {
    "zeros and ones": (npy(ZEROS_AND_ONES.astype(np.uint8)), {}, "uint8 0 to 1, taken as binary; no labels; " + TEST,
                       ""),
    "black and white": (npy(255 * ZEROS_AND_ONES.astype(np.uint8)), {}, "uint8 0 to 255, taken as binary", ""),
    "zeros and ones, int64": (npy(ZEROS_AND_ONES), {}, "int64 0 to 1, taken as binary", ""),
    "zeros and ones, floats": (npy(ZEROS_AND_ONES.astype(float)), {}, "float64 0 to 1, taken as binary", ""),
    "bool": (npy(ZEROS_AND_ONES.astype(bool)), {}, "bool, taken as binary", ""),
    "bytes": (npy(GREY.astype(np.uint8)), {}, "read 40 images of 8 x 8 from ", ""),
    "bytes, taken": (npy(GREY.astype(np.uint8)), {}, "uint8 0 to 255, taken as grey levels / 255", ""),
    "bytes as int64": (npy(GREY), {}, "int64 0 to 255, taken as grey levels / 255", "its int64 were taken for pixels"),
    "bytes as floats": (npy(GREY.astype(np.float32)), {}, "float32 0 to 255, taken as real numbers",
                        "its floats are whole numbers from 0 to 255, and were taken as they are: --values bytes"),
    "bytes as floats, said": (npy(GREY.astype(np.float32)), {"values": "bytes"}, "taken as grey levels / 255", ""),
    "small integers": (npy(DIGITS), {}, "int64 0 to 16, taken as grey levels / 255", FAR_BELOW),
    "small integers, uint8": (npy(DIGITS.astype(np.uint8)), {}, "taken as grey levels / 255", FAR_BELOW),
    "small integers, said": (npy(DIGITS), {"values": "real"}, "int64 0 to 16, taken as real numbers", ""),
    "uint8 counts": (npy(DIGITS.astype(np.uint8)), {"values": "counts"}, "uint8 0 to 16, taken as counts", ""),
    "counts": (npy(300 * DIGITS), {}, None, "holds int64 from 0 to 4800, which are no bytes: --values counts or"),
    "counts, said": (npy(300 * DIGITS), {"values": "counts"}, "int64 0 to 4800, taken as counts", ""),
    "negative integers": (npy(DIGITS - 8), {}, None, "holds int64 from -8 to 8, which are no bytes: --values counts"),
    "negative integers as counts": (npy(DIGITS - 8), {"values": "counts"}, None, "and --values counts allows 0,"),
    "one-hot codes": (npy(np.eye(8, dtype=np.uint8)[np.arange(N) % 8]), {}, "uint8 0 to 1, taken as binary", ""),
    "real numbers": (npy(rng().normal(size=(N, 13))), {}, "taken as real numbers", ""),
    "real numbers as bytes": (npy(rng().normal(size=(N, 13))), {"values": "bytes"}, None,
                              "and --values bytes allows whole numbers from 0 to 255"),
    "real numbers as unit": (npy(rng().normal(size=(N, 13))), {"values": "unit"}, None, "allows numbers from 0 to 1"),
    "grey as binary": (npy(GREY.astype(np.uint8)), {"values": "binary"}, None, "--binarize threshold makes black and"),
    "fractions": (npy(rng().random((N, 13))), {}, "read 40 rows of 13 numbers from ", ""),
    "Keras' mnist.npz": (npz(x_train=GREY[:30].astype(np.uint8), y_train=np.arange(30) % 10,
                             x_test=GREY[30:].astype(np.uint8), y_test=np.arange(10)), {},
                         "taken as grey levels / 255; 10 labels, 0 to 9; the test part is its own, 10", ""),
    "EMNIST": (folder(**idx_set("emnist-letters", np.arange(40) % 26 + 1)), {},
               "read 17 images of 8 x 8 from", "rows for columns, as EMNIST's do, and were turned"),
    "EMNIST, its labels": (folder(**idx_set("emnist-letters", np.arange(40) % 26 + 1)), {"transpose": True},
                           "17 labels, 1 to 17; the test part is its own, 5", ""),
    "all of EMNIST": (folder(**idx_set("emnist-letters", np.arange(40)), **idx_set("emnist-digits", np.arange(40))), {},
                      None, "holds 2 sets, emnist-digits, emnist-letters; name a file of one, as in --data-dir"),
    "QMNIST": (folder(**idx_set("qmnist", np.stack([np.arange(40) % 10] + 7 * [np.arange(40)], 1), 12)), {},
               "uint8 0 to 255, taken as grey levels / 255; 10 labels, 0 to 9; the test part is its own, 5", ""),
    "half of QMNIST": (folder(**{"qmnist-train-images-idx3-ubyte": idx(GREY)}), {}, None,
                       "lacks qmnist-train-labels, qmnist-test-images, qmnist-test-labels of the set qmnist"),
    "KMNIST": (folder(**{"kmnist-train-imgs.npz": save(GREY.astype(np.uint8)),
                         "kmnist-train-labels.npz": save(np.arange(40, dtype=np.uint8) % 10),
                         "kmnist-test-imgs.npz": save(GREY[:5].astype(np.uint8)),
                         "kmnist-test-labels.npz": save(np.arange(5, dtype=np.uint8))}), {},
               "read 45 images of 8 x 8 from", ""),
    "KMNIST without labels": (folder(**{"kmnist-train-imgs.npz": save(GREY), "kmnist-test-imgs.npz": save(GREY)}), {},
                              None, "lacks kmnist-train-labels.npz"),
    "MedMNIST": (npz(train_images=GREY[:20].astype(np.uint8), val_images=GREY[20:25].astype(np.uint8),
                     test_images=GREY[25:].astype(np.uint8), train_labels=np.arange(20)[:, None] % 2,
                     val_labels=np.zeros((5, 1), int), test_labels=np.arange(15)[:, None] % 2), {},
                 "read 35 images of 8 x 8", "its val_images are in neither part"),
    "MedMNIST in colour": (npz(train_images=COLOURS[:20], test_images=COLOURS[20:],
                               train_labels=np.arange(20)[:, None] % 9, test_labels=np.arange(20)[:, None] % 9), {},
                           "read 40 images of 4 x 4 in colour from", ""),
    "colours first": (npy(np.moveaxis(COLOURS, 3, 1)), {}, "uint8 0 to 255, taken as colours / 255", ""),
    "colours made grey": (npy(COLOURS), {"grey": True}, "read 40 images of 4 x 4 from", ""),
    "grey with --rgb": (npy(GREY), {"rgb": True}, None, "has no colours, which --rgb asks for"),
    "CIFAR-10": (cifar(1, *(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"), {},
                 "read 36 images of 32 x 32 in colour from", ""),
    "CIFAR-100": (cifar(2, "train.bin", "test.bin"), {}, "6 labels, 1 to 11; the test part is its own, 6", ""),
    "CIFAR-10, of pickles": (folder(data_batch_1=b"\x80\x02}", test_batch=b"\x80", **{"batches.meta": b"\x80"}), {},
                             None, "never read: download the binary version, cifar-10-binary.tar.gz"),
    "binarized MNIST": (folder(**{f"binarized_mnist_{part}.amat": amat(ZEROS_AND_ONES.reshape(N, 64))
                                  for part in ("train", "valid", "test")}), {}, "taken as binary; no labels; the test",
                        "its binarized_mnist_valid.amat is in neither part"),
    "Kaggle's folder": (folder(**{"train.csv": digits_csv(True), "test.csv": digits_csv(False)}), {},
                        "10 labels, 0 to 9; of the test part none; the test part is its own, 40",
                        "its test.csv has no labels: --data-dir"),
    "pictures": (pictures(*12 * [(6, 6)]), {}, "read 12 images of 6 x 6 from", ""),
    "pictures in colour": (pictures(*12 * [(6, 6)], mode="RGB"), {}, "taken as grey levels / 255",
                           "colours became grey: --rgb keeps them, three numbers a pixel (as in "),
    "pictures, made grey": (pictures(*12 * [(6, 6)], mode="RGB"), {"grey": True}, "taken as grey levels / 255", ""),
    "pictures, kept in colour": (pictures(*12 * [(6, 6)], mode="RGB"), {"rgb": True}, "6 x 6 in colour from", ""),
    "photographs of several sizes": (pictures((6, 6), (6, 9)), {}, None, "--resize 6x6, as an example, cuts out"),
    "photographs, resized": (pictures((6, 6), (6, 9), (10, 5)), {"resize": (4, 5)}, "read 3 images of 4 x 5 from", ""),
    "a folder of arrays": (folder(**{"x_train.npy": lambda path: np.save(path, GREY),
                                     "x_test.npy": lambda path: np.save(path, GREY)}), {}, None, " --test-data "),
    "a pickle": (text("x", "x.pkl"), {}, None, "can run code, and is never read: np.savez("),
    "a sheet of Excel": (text("x", "x.xlsx"), {}, None, "pandas writes a table by frame.to_csv('x.csv', index=False)"),
    "a frame of pandas without names": (table(np.vstack([np.arange(64), 15 * DIGITS])), {}, "read 40 images of 8 x 8",
                                        "its first row, 0, 1, 2, ..., was taken as a header: --header no"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_said_what_data_were_taken_for(kind, tmp_path):
    write, reading, line, note = KINDS[kind]
    path = write(tmp_path)
    if line is None:
        with pytest.raises(DataError) as caught:
            data.load(path, reading=Reading(**reading))
        assert note in str(caught.value) and len(str(caught.value).splitlines()) == 1
        return
    loaded = data.load(path, reading=Reading(**reading))
    assert line in loaded.line, loaded.line
    assert bool(note) == bool(loaded.notes) and note in " ".join(loaded.notes), loaded.notes
    assert loaded.values in data.VALUES


def test_values_decide_what_the_model_sees(tmp_path):
    from npvae.likelihoods.support import to_float
    dark = rng().integers(0, 2, (N, 9)).astype(np.uint8)
    np.save(tmp_path / "x.npy", dark)
    for values, scale in (("binary", 1), ("bytes", 1 / 255), ("real", 1), ("counts", 1), (None, 1)):
        loaded = data.load(tmp_path / "x.npy", reading=Reading(values=values, test_part="last"))
        seen = np.vstack([to_float(loaded.train_images), to_float(loaded.test_images)])
        assert np.array_equal(seen, dark / np.float32(1 / scale))


def test_a_test_part_in_a_file_of_its_own(tmp_path):
    np.save(tmp_path / "train.npy", GREY.astype(np.uint8)), np.save(tmp_path / "test.npy", GREY[:7].astype(np.uint8))
    np.save(tmp_path / "wide.npy", GREY[:, :4].astype(np.uint8))
    loaded = data.load(tmp_path / "train.npy", test_source=tmp_path / "test.npy")
    assert np.array_equal(loaded.train_images, GREY.reshape(N, 64))
    assert np.array_equal(loaded.test_images, GREY[:7].reshape(7, 64))
    assert loaded.line.endswith(f"the test part is that of {tmp_path / 'test.npy'}, 7")
    with pytest.raises(DataError, match="wide.npy: holds images of 4 x 8, the training data 8 x 8"):
        data.load(tmp_path / "train.npy", test_source=tmp_path / "wide.npy")


def test_whole(tmp_path):
    """As evaluation of a file takes it."""
    path = npy(GREY.astype(np.uint8))(tmp_path)
    loaded = data.load(path, reading=Reading(whole=True))
    assert np.array_equal(loaded.test_images, GREY.reshape(N, 64)) and not len(loaded.train_images)
    assert loaded.line.endswith("all of them are the test part")


def test_a_set_stands_upright_and_its_colours_side_by_side(tmp_path):
    """Pixel by pixel: EMNIST is turned, CIFAR's planes and (N, 3, H, W) become (N, H, W, 3)."""
    images = np.arange(17 * 12).reshape(17, 3, 4)
    emnist = folder(**idx_set("emnist-letters", np.arange(17), images=images))(tmp_path)
    for source in emnist, emnist / "emnist-letters-train-images-idx3-ubyte.gz":
        loaded = data.load(source)
        assert loaded.image_shape == (4, 3)
        assert np.array_equal(loaded.train_images.reshape(12, 4, 3), images[:12].swapaxes(1, 2))
        assert np.array_equal(loaded.test_labels, np.arange(12, 17))
    (tmp_path / "cifar").mkdir()
    cifar(1, "data_batch_1.bin", "test_batch.bin")(tmp_path / "cifar")
    batch = np.frombuffer((tmp_path / "cifar" / "test_batch.bin").read_bytes(), np.uint8).reshape(6, 3073)
    loaded = data.load(tmp_path / "cifar", limit=4)
    pixels = loaded.test_images.reshape(4, 32, 32, 3)
    assert np.array_equal(pixels[:, 5, 7], batch[:4, 1:].reshape(4, 3, 32, 32)[..., 5, 7])
    assert loaded.test_labels.tolist() == [0, 1, 2, 3] and not loaded.ink
    first = npy(np.moveaxis(COLOURS, 3, 1))(tmp_path)
    assert np.array_equal(data.load(first, reading=Reading(whole=True)).test_images, COLOURS.reshape(N, 48))
    grey = data.load(first, reading=Reading(whole=True, grey=True)).test_images
    expected = [np.asarray(Image.fromarray(image).convert("L")).ravel() for image in COLOURS]
    assert np.array_equal(grey, expected)


def test_matrices_of_other_programs(tmp_path):
    scipy_io, sparse = pytest.importorskip("scipy.io"), pytest.importorskip("scipy.sparse")
    counts = rng().poisson(0.5, (N, 9))
    scipy_io.mmwrite(tmp_path / "x.mtx", sparse.coo_matrix(counts.T))
    loaded = data.load(tmp_path / "x.mtx", reading=Reading(whole=True, transpose=True, values="counts"))
    assert np.array_equal(loaded.test_images, counts) and loaded.image_shape == (1, 9)
    scipy_io.savemat(tmp_path / "x.mat", {"x": counts / 8, "note": "text"})
    assert np.array_equal(data.load(tmp_path / "x.mat", reading=Reading(whole=True)).test_images, counts / 8)
    scipy_io.savemat(tmp_path / "two.mat", {"x": counts, "y": counts})
    with pytest.raises(DataError, match="two.mat: holds the matrices x, y; a file of one is read"):
        data.load(tmp_path / "two.mat")


@pytest.mark.parametrize("name, package", [("x.mtx", "scipy"), ("x.mat", "scipy"), ("x.h5ad", "anndata")])
def test_what_must_be_installed(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None), monkeypatch.setitem(sys.modules, "anndata", None)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"{name}: needs the package {package}: pip install {package}"):
        data.load(tmp_path / name)
