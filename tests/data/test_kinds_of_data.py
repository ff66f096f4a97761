"""The kinds of data that people have: what the data line says of each, or the line that refuses it and says the cure.
None is silently taken for something else."""
import numpy as np
import pytest

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


ZEROS_AND_ONES = rng().integers(0, 2, (N, 8, 8))
DIGITS = rng().integers(0, 17, (N, 64))      # as scikit-learn's
DIGITS[0, 0] = 16
GREY = rng().integers(0, 256, (N, 8, 8))
GREY[0, 0], GREY[1, 0] = 0, 255
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
