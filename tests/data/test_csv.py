"""CSV files of images: numbers arrive exactly, and what is no image is refused with its row and column."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from files import LAST, refusal
from npvae import data, load_mnist
from npvae.data import tables as tables_module
from npvae.data import DataError
from npvae.data import Reading, load_csv


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def table(array, header="", delimiter=",", end="\n"):
    rows = [delimiter.join(map(str, row)) for row in array.tolist()]
    return end.join([*([header] if header else []), *rows, ""])


def load_images(path, reading=Reading()):
    return load_csv(path, replace(reading, table=False))


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# --- what arrives ---

@pytest.mark.parametrize("delimiter, end", [(",", "\n"), (";", "\r\n"), ("\t", "\n"), (", ", "\n")])
@pytest.mark.parametrize("header", [False, True])
def test_bytes(delimiter, end, header, tmp_path, rng):
    grey = rng.integers(0, 256, (23, 16), dtype=np.uint8)
    names = delimiter.join(f"pixel{i}" for i in range(16)) if header else ""
    loaded = data.load(write(tmp_path / "grey.csv", table(grey, names, delimiter, end)), reading=LAST)
    assert loaded.name == "grey" and loaded.image_shape == (4, 4)
    assert loaded.train_images.dtype == loaded.test_images.dtype == np.uint8
    assert loaded.train_images.flags.c_contiguous
    assert np.array_equal(loaded.train_images, grey[:21]) and np.array_equal(loaded.test_images, grey[21:])
    assert loaded.train_labels is None and loaded.test_labels is None


@pytest.mark.parametrize("columns, image_shape", [(1, (1, 1)), (2, (1, 2)), (9, (3, 3)), (12, (1, 12))])
def test_fractions(columns, image_shape, tmp_path, rng):
    grey = rng.random((6, columns))
    loaded = load_images(write(tmp_path / "x.csv", table(grey)), reading=LAST)
    assert loaded.image_shape == image_shape and loaded.train_images.dtype == np.float32
    assert np.array_equal(loaded.train_images, grey[:5].astype(np.float32))
    assert np.array_equal(loaded.test_images, grey[5:].astype(np.float32))
    assert loaded.train_images.flags.c_contiguous


def test_zeros_and_ones_are_black_and_white(tmp_path):
    """Not 0 and 1 of 255."""
    loaded = load_images(write(tmp_path / "x.csv", "0,1\n1,1\n1,0\n"), reading=LAST)
    assert loaded.train_images.dtype == np.float32 and loaded.train_images.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("where", [0, 2, 6])
@pytest.mark.parametrize("name", ["label", '"Label"', " LABEL "])
def test_a_column_called_label(where, name, tmp_path, rng):
    grey, labels = rng.integers(0, 256, (20, 6), dtype=np.uint8), rng.integers(-5, 2**20, 20)
    header = [f"p{i}" for i in range(6)]
    header.insert(where, name)
    columns = np.insert(grey.astype(int), where, labels, 1)
    loaded = load_images(write(tmp_path / "x.csv", table(columns, ",".join(header))), reading=LAST)
    assert np.array_equal(np.vstack([loaded.train_images, loaded.test_images]), grey)
    assert np.array_equal(loaded.train_labels, labels[:18]) and np.array_equal(loaded.test_labels, labels[18:])
    assert loaded.train_labels.dtype == np.int64 and loaded.image_shape == (1, 6)


def test_a_label_makes_a_header_of_numbers_one(tmp_path):
    loaded = load_images(write(tmp_path / "x.csv", "label,0,1\n7,200,3\n8,1,2\n"), reading=LAST)
    assert loaded.train_images.tolist() == [[200, 3]] and loaded.train_labels.tolist() == [7]


@pytest.mark.parametrize("labels, kept", [(["16777217", "3"], [16777217, 3]), (["cat", " dog "], ["cat", "dog"]),
                                          (["1.0", "2"], [1, 2]), (["x", "3"], ["x", "3"])])
def test_labels_are_whole_numbers_or_names(labels, kept, tmp_path):
    text = "species,a\n{},200\n{},3\n".format(*labels)
    loaded = load_images(write(tmp_path / "x.csv", text), Reading(label_column="Species", test_part="last"))
    assert [*loaded.train_labels.tolist(), *loaded.test_labels.tolist()] == kept
    assert loaded.train_images.tolist() == [[200]] and not loaded.notes


@pytest.mark.parametrize("first, header, images, note", [
    ("0,1,2", None, 2, "its first row, 0, 1, 2, was taken as a header: --header no takes it as data"),
    ("1,2,3", None, 2, "--header no"), ("0,1,2", "no", 3, ""), ("0,1,2", "yes", 2, ""), ("0,2,3", None, 3, ""),
    ("a,b,c", None, 2, ""), ("a,b,c", "yes", 2, ""), ("7,0,1", "yes", 2, "")])
def test_a_header_of_numbers(first, header, images, note, tmp_path):
    """As pandas writes it for an array."""
    reading = Reading(header=None if header is None else header == "yes")
    loaded = load_images(write(tmp_path / "x.csv", first + "\n5,200,3\n6,7,1\n"), reading)
    assert len(loaded.train_images) + len(loaded.test_images) == images
    assert len(loaded.notes) == bool(note) and all(note in found for found in loaded.notes)


def test_a_first_row_that_only_may_be_a_header(tmp_path):
    loaded = load_images(write(tmp_path / "x.csv", "1,2,4,8,16,32,64,128\n9,9,9,9,9,9,9,9\n"))
    assert len(loaded.train_images) == 1 and "1, 2, 4, ..., increases as a header of numbers" in loaded.notes[0]


def test_what_pandas_writes(tmp_path):
    """Its index is no pixel."""
    loaded = load_images(write(tmp_path / "x.csv", ",0,1\n0,200,3\n1,7,9\n2,5,5\n"), LAST)
    assert loaded.train_images.tolist() == [[200, 3], [7, 9]] and "counts the rows" in loaded.notes[0]


def test_delimiters_that_are_named(tmp_path):
    path = write(tmp_path / "x.csv", "1|2\n3|4\n")
    assert load_images(path, Reading(delimiter="|")).image_shape == (1, 2)
    refusal(load_images, path, Reading(label_column="y"), name="x.csv",
            says="has no column y, which --label-column names")


def test_empty_lines_quotes_and_a_byte_order_mark(tmp_path):
    loaded = load_images(write(tmp_path / "x.csv", '\ufeff\n"a","b"\n\n"1","2"\n\n3,255\n\n'), reading=LAST)
    assert loaded.train_images.tolist() == [[1, 2]] and loaded.test_images.tolist() == [[3, 255]]


def test_the_table_of_kaggle(tmp_path, monkeypatch):
    """label,pixel0,...,pixel783: the same arrays as MNIST's own files, and never cell by cell in Python."""
    monkeypatch.delattr(tables_module, "_rows")
    images, labels, _, _ = load_mnist()
    columns = np.column_stack([labels[:3000], images[:3000]])
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    write(tmp_path / "train.csv", table(columns, header))
    loaded = data.load(str(tmp_path / "train.csv"), reading=LAST)
    assert loaded.image_shape == (28, 28)
    for part, rows in (("train", slice(0, 2700)), ("test", slice(2700, 3000))):
        assert np.array_equal(getattr(loaded, f"{part}_images"), images[:3000][rows])
        assert np.array_equal(getattr(loaded, f"{part}_labels"), labels[:3000][rows])


@pytest.mark.parametrize("ending", [".csv", ".CSV", ".npy", ".NPY", ".npz", ".Npz"])
def test_endings_in_capital_letters(ending, tmp_path, rng):
    grey = rng.integers(2, 256, (5, 6), dtype=np.uint8)
    path = write(tmp_path / f"x{ending}", table(grey))
    if "n" in ending.lower():
        with open(path, "wb") as file:      # given a name, NumPy would add an ending
            np.savez(file, grey) if ending.lower() == ".npz" else np.save(file, grey)
    loaded = data.load(path, reading=LAST)
    assert np.array_equal(loaded.train_images, grey[:4]) and np.array_equal(loaded.test_images, grey[4:])
    assert loaded.ink and loaded.name == "x"


# --- what is refused ---

ALLOWED = "only numbers are allowed"
BAD = {
    "1,2\n3,x\n": f"row 2, column 2 holds 'x', which is not a number; {ALLOWED}",
    "a,b\n1,2\n\n3,four\n": "row 4, column 2 ('b') holds 'four', which is not a number",
    "1,2\n3,\n": "row 2, column 2 is empty", "a,b\n,2\n": "row 2, column 1 ('a') is empty",
    "1,2\n,\n": "row 2, column 1 is empty", "a,2\n1,2\n": "holds 1 image; at least 2 are needed",
    "1,2\n3,4,5\n": "row 2 has 3 cells, row 1 2; all rows must be of one length",
    "a,b\n1,2\n3\n": "row 3 has 1 cells, the header 2", "a,b,c\n1,2\n3,4\n": "row 2 has 2 cells, the header 3",
    "1,2\n3,4\n   \n": "row 3 has 1 cells, row 1 2",
    "1,2\n3,nan\n": "row 2, column 2 holds nan, which is not a pixel", "1,2\n\ninf,3\n": "row 3, column 1 holds inf",
    "1,2\n3,1e60\n": "row 2, column 2 holds 1e60, which is not a pixel", "1,2\n3,-1\n": "column 2 holds -1, which is",
    "1,2\n256,3\n": "row 2, column 1 holds 256, which is not a pixel: from 0 to 1, or integers from 0 to 255",
    "label,a\n3,0.5\n4,7\n": "row 2, column 2 ('a') holds 0.5, which is not a pixel, and the largest number is 7",
    "0.5,1\n-0.25,1\n": "row 2, column 1 holds -0.25", "0,1\n0,1.5\n": "row 2, column 2 holds 1.5",
    "label,a\n1.5,2\n3,4\n": "row 2, column 1 ('label') holds 1.5, which is not a label: whole numbers",
    "a,label\n1,2\n3,nan\n": "row 3, column 2 ('label') holds nan, which is not a label: whole numbers below",
    "label,label,a\n1,2,3\n": "has 2 columns called label; one is allowed", "label\n1\n2\n": "holds labels alone",
    "1,2\n": "holds 1 image; at least 2 are needed", "a,b\n": "holds a header alone", "": "is empty",
    "\n \n": "is empty; a table of numbers, one image a row, is expected",
    "0,5;0,3\n0,1;x\n": "row 2, column 2 holds 'x', which is not a number",
    "1;2\n0.5;3,0\n": "row 2, column 2 holds '3,0', which is not a number",
    "3,4\n1_0,2\n": "row 2, column 1 holds '1_0'", "1 2\n3 4\n": "row 2, column 1 ('1 2') holds '3 4', which is not a",
    "1,2\n3," + "9" * 40_000 + "\n": "row 2, column 2 holds " + "9" * 97 + "..., which is not a pixel",
    "1,2\n3," + "x" * 140_000 + "\n": "row 2 holds a cell of more than 131,072 characters, which is not a number; only",
    "x" * 140_000 + ",2\n": "row 1 holds a cell of more than 131,072 characters, which is not a number; only numbers a",
    "1,2\n3,\xe9\u0661\n": "row 2, column 2 holds 'é"}


@pytest.mark.parametrize("text", BAD)
def test_bad_tables(text, tmp_path):
    refusal(load_images, write(tmp_path / "x.csv", text), name="x.csv", says=BAD[text])


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"1,2\n3,\xff\xfe\n")
    refusal(load_images, tmp_path / "x.csv", name="x.csv", says="row 2, column 2 holds ")
    (tmp_path / "latin.csv").write_bytes("wine,price\nBlaufr\xe4n,1\nMerlot,2\n".encode("latin-1"))
    refusal(load_csv, tmp_path / "latin.csv", name="latin.csv", says="bytes that are no UTF-8: save the file as C")
    (tmp_path / "utf16.csv").write_bytes("1,2\n3,4\n".encode("utf-16"))
    assert load_images(tmp_path / "utf16.csv", LAST).test_images.tolist() == [[3, 4]]
    refusal(load_images, tmp_path / "absent.csv", name="absent.csv", says="cannot be read (No such file or directory)")
    refusal(load_images, tmp_path, name=tmp_path.name, says="cannot be read (Is a directory)")


@given(st.text(alphabet='0123456789.,;\t\n\r"e-+ nalbINF_\x00é', max_size=60))
def test_any_text_is_a_table_or_refused_in_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        loaded = load_csv(path, reading=LAST)
    except DataError as error:
        assert "any.csv" in str(error) and len(str(error).splitlines()) == 1
    else:
        assert loaded.train_images.dtype in (np.uint8, np.float32) and len(loaded.test_images) > 0
        assert np.isfinite(loaded.train_images).all() or loaded.columns
