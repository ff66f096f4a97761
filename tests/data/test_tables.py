"""Tables of mixed columns: the kind that each column is found to be, its cells, and what is refused and how."""
import json
import math
from pathlib import Path

import numpy as np
import pytest

from files import refusal
from npvae.data import DataError, Reading, load_csv
from npvae.data.columns import described
from npvae.likelihoods.columns import Column

PENGUINS = Path(__file__).parents[1] / "fixtures" / "penguins" / "penguins.csv"


def rows_of(loaded):
    """All rows, and which of them are for testing is forgotten."""
    return np.vstack([loaded.train_images, loaded.test_images])


def read(tmp_path, text, **wishes):
    (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_csv(tmp_path / "x.csv", Reading(**wishes))


def written(columns, delimiter=","):
    """A CSV of these columns, name -> cells."""
    return "\n".join(map(delimiter.join, [columns, *zip(*[map(str, cells) for cells in columns.values()])])) + "\n"


def kinds(loaded):
    return {column.name: column.kind for column in loaded.columns}


# --- the kind of a column ---

def test_penguins():
    """Text, whole numbers, reals and 19 gaps."""
    loaded = load_csv(PENGUINS)
    assert kinds(loaded) == {
        "species": "category", "island": "category", "bill_length_mm": "real", "bill_depth_mm": "real",
        "flipper_length_mm": "real", "body_mass_g": "real", "sex": "binary", "year": "category"}
    assert loaded.columns[0].levels == ("Adelie", "Chinstrap", "Gentoo") and loaded.columns[6].levels[1] == "male"
    assert len(loaded.train_images) == 310 and len(loaded.test_images) == 34 and loaded.image_shape == (1, 8)
    rows = rows_of(loaded)
    assert np.isnan(rows).sum(axis=0).tolist() == [0, 0, 2, 2, 2, 2, 11, 0] and rows.dtype == np.float32
    assert loaded.notes[0].startswith("was taken as a table, since it holds text or missing cells")
    lines = described(loaded.columns, rows).splitlines()
    assert [line.split() for line in lines[2:4]] == [["island", "category", "Biscoe,", "Dream,", "Torgersen", "-"],
                                                     ["bill_length_mm", "real", "32.1", "to", "59.6", "2"]]


CYCLE = np.arange(120)
FOUND = {      # cells -> kind, or a word of the note why the column is left out
    "real": np.round(np.sin(CYCLE) * 7, 2), "positive": np.round(np.exp(2 * np.sin(CYCLE)), 3) + 0.001,
    "count": CYCLE * 7 % 40, "binary": ["yes", "no"] * 60, "category": ["low", "mid", "high"] * 40,
    "numbers the rows": CYCLE + 1, "holds 7 alone": CYCLE * 0 + 7, "look like identifiers": [f"a{i}" for i in CYCLE],
    "all its cells are missing": ["NA"] * 120}
WHOLE = {      # whole numbers -> kind
    "grades": (CYCLE % 4 + 1, "category"), "years": (2001 + CYCLE % 9, "category"), "ages": (18 + CYCLE % 60, "real"),
    "rare": ([0, 1, 2, 3] + [0, 1] * 58, "count"), "sexes": (CYCLE % 2 + 1, "binary"), "bits": (CYCLE % 2, "binary"),
    "many": (CYCLE % 11, "count"), "below": (CYCLE % 30 - 5, "real")}


def test_kinds_that_are_found(tmp_path):
    loaded = read(tmp_path, written(FOUND))
    left_out = [name for name in FOUND if " " in name]
    assert kinds(loaded) == {name: name for name in FOUND if name not in left_out}
    for name in left_out:
        assert sum(f"column {name} was left out" in note and name in note.split(":")[1] for note in loaded.notes) == 1
    assert loaded.columns[3].levels == ("no", "yes") and rows_of(loaded)[:2, 3].tolist() in ([1, 0], [0, 1], [1, 1])
    assert loaded.columns[0].decimals == 2 and loaded.columns[2].decimals == 0


def test_kinds_of_whole_numbers(tmp_path):
    loaded = read(tmp_path, written({name: cells for name, (cells, _) in WHOLE.items()}))
    assert kinds(loaded) == {name: kind for name, (_, kind) in WHOLE.items()}
    assert loaded.columns[0].levels == ("1", "2", "3", "4") and loaded.columns[4].levels == ("1", "2")


def test_what_is_said_goes_before_what_is_found(tmp_path):
    text = written({"age": CYCLE % 60, "grade": ["mid", "low", "high"] * 40, "a:b": CYCLE % 3, "id": CYCLE + 1,
                    "z": np.exp(np.sin(CYCLE))})
    said = "age:gaussian, grade:ordinal(low|mid|high),a:b:poisson,id:laplace,z:skip"
    loaded = read(tmp_path, text, columns=said)
    assert [(c.name, c.family, c.levels) for c in loaded.columns] == [
        ("age", "gaussian", ()), ("grade", "ordinal", ("low", "mid", "high")), ("a:b", "poisson", ()),
        ("id", "laplace", ())]
    (tmp_path / "schema.json").write_text(json.dumps({
        "age": "real", "grade": {"kind": "ordinal", "levels": ["low", "mid", "high"]}, "a:b": {"kind": "poisson"},
        "id": "laplace", "z": "skip"}))
    for columns in (tmp_path / "schema.json", str(tmp_path / "schema.json"),
                    json.loads((tmp_path / "schema.json").read_text())):
        again = read(tmp_path, text, columns=columns)
        assert again.columns == loaded.columns and np.array_equal(again.train_images, loaded.train_images)
    assert np.array_equal(rows_of(loaded)[:, 1] % 3, (rows_of(loaded)[:, 3] % 3 == 1) + 2 * (
        rows_of(loaded)[:, 3] % 3 == 0))


# --- cells ---

CELLS = "city;size;born\r\n\"Köln; \"\"am Rhein\"\"\";1,5;1990\r\nBonn;-2,25;NA\r\n?;null;1985\r\nBonn; 3 ;nan\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_as_excel_writes_it(encoding, tmp_path):
    """Semicolons, decimal commas, quotes, a byte order mark, \\r\\n, "sep=;", and all ways to leave a cell out."""
    for text in (CELLS, "sep=;\r\n" + CELLS):
        loaded = read(tmp_path, text.encode(encoding), columns="born:real,size:real")
        assert kinds(loaded) == {"city": "binary", "size": "real", "born": "real"}
        assert loaded.columns[0].levels == ("Bonn", 'Köln; "am Rhein"')
        rows = rows_of(loaded)
        assert np.array_equal(rows[np.argsort(rows[:, 1])], np.float32([
            [0, -2.25, math.nan], [1, 1.5, 1990], [0, 3, math.nan], [math.nan, math.nan, 1985]]), equal_nan=True)
        assert any("decimal comma" in note for note in loaded.notes)


def test_tabs_and_other_delimiters(tmp_path):
    columns = {"a": [1.5, 2.5, -3], "b": ["x, y", "z", "z"]}
    for delimiter, said in (("\t", None), ("|", "|")):
        loaded = read(tmp_path, written(columns, delimiter), delimiter=said)
        assert sorted(rows_of(loaded)[:, 0]) == [-3, 1.5, 2.5] and loaded.columns[1].levels == ("x, y", "z")


@pytest.mark.parametrize("text, header, names", [
    ("0,1,2\n5,6,-7\n5,8,9\n4,2,1.5\n", None, ["0", "1", "2"]), ("5,a,-7\n5,b,9\n4,b,1\n", None, None),
    ("name,2019,2020\na,3,-4\nb,5,6.5\nb,2,2\n", True, ["name", "2019", "2020"]),
    ("x,2\n3,-4\n5,6.5\n", None, ["x", "2"]), ("x,y\nu,v\nv,u\nu,u\n", False, None),
    (",a\n0,5\n1,-6\n2,2\n", None, ["a"])])
def test_names_of_columns(text, header, names, tmp_path):
    """Also those of pandas: 0, 1, 2, ..., and an index without a name."""
    loaded = read(tmp_path, text, header=header)
    assert [c.name for c in loaded.columns] == (names or [f"column {i + 1}" for i in range(len(loaded.columns))])


def test_the_test_set_is_drawn_at_random(tmp_path):
    text = written({"v": np.linspace(-1, 1, 200), "kind": ["a"] * 100 + ["b"] * 100})
    first, last, larger = (read(tmp_path, text, **said) for said in (
        {}, {"test_part": "last"}, {"test_fraction": 0.3}))
    assert len(first.test_images) == len(last.test_images) == 20 and len(larger.test_images) == 60
    assert (last.test_images[:, 1] == 1).all()
    assert 0.1 < first.test_images[:, 1].mean() < 0.9 and (np.diff(first.train_images[:, 0]) > 0).all()
    assert sorted(rows_of(first)[:, 0]) == sorted(rows_of(larger)[:, 0])


def test_labels(tmp_path):
    for column, name in ((None, "Label"), ("Class", "class")):
        text = written({"v": [1.5, -2, 3], name: ["a", "b", "a"], "w": [1, 2, 4]})
        loaded = read(tmp_path, text, label_column=column)
        assert [c.name for c in loaded.columns] == ["v", "w"]
        labels = dict(zip(rows_of(loaded)[:, 0], [*loaded.train_labels, *loaded.test_labels]))
        assert labels == {1.5: "a", -2: "b", 3: "a"}
    loaded = read(tmp_path, written({"v": [1.5, -2, 3], "year": [7, 8, 9]}), label_column="year")
    assert loaded.train_labels.dtype == np.int64


def test_location_and_scale_are_those_of_the_training_rows(tmp_path):
    loaded = read(tmp_path, written({"r": np.round(np.sin(CYCLE), 3), "p": FOUND["positive"], "n": CYCLE * 7 % 40}))
    moves = (lambda v: v, np.log, np.log1p)
    for column, values, moved in zip(loaded.columns, loaded.train_images.T.astype(float), moves):
        assert (column.location, column.scale) == pytest.approx((moved(values).mean(), moved(values).std()), rel=1e-6)


def test_the_columns_of_a_model_are_found_by_name(tmp_path):
    """In another order, among others, and with fewer levels: the codes stay the same."""
    columns = (Column("grade", "ordinal", ("low", "mid", "high")), Column("n", "poisson", location=2.0))
    loaded = read(tmp_path, "n,other,grade\n3,x,high\n4,y,low\n,z,high\n", columns=columns)
    assert loaded.columns == columns
    assert sorted(map(str, rows_of(loaded).tolist())) == ["[0.0, 4.0]", "[2.0, 3.0]", "[2.0, nan]"]
    assert "its columns that the model does not take were left out: other" in loaded.notes
    refusal(lambda: read(tmp_path, "n,grade\n3,best\n4,low\n", columns=columns), name="x.csv",
            says="row 2, column 2 ('grade') holds 'best', which is none of its levels: low, mid, high")
    refusal(lambda: read(tmp_path, "n,mark\n3,low\n4,low\n", columns=columns), name="x.csv",
            says="has no column 'grade', which the model takes; its columns are n, mark")


def test_images_or_a_table(tmp_path):
    """Pixels without names of their own are images; everything else is a table, and a note says so."""
    grey = (np.arange(7 * 9).reshape(7, 9) * 5 % 256).tolist()
    body = "".join(",".join(map(str, row)) + "\n" for row in grey)
    assert not read(tmp_path, body).columns and read(tmp_path, body, table=True).columns
    for header, said in ((",".join(f"px{i}" for i in range(9)), ""), (",".join("abcdefghi"), "its columns have names")):
        loaded = read(tmp_path, f"{header}\n{body}")
        assert bool(loaded.columns) == bool(said) and any(said in note for note in loaded.notes) == bool(said)
    for changed, said in ((body.replace("250", "300"), "its numbers, from 0 to 300, are no pixels"),
                          (body.replace("250", ""), "it holds text or missing cells"),
                          ("".join(line.partition(",")[2] + "\n" for line in body.split()), "it has 8 columns")):
        assert f"was taken as a table, since {said}" in "".join(read(tmp_path, changed).notes)


# --- what is refused ---

BAD = {      # text, what is said of its columns -> the error
    ("a,b\n1,2\n2,3\nx,1\n", ""):
        "row 4, column 1 ('a') holds 'x', which is not a number, as 2 other cells of this column are: leave it empty "
        "if it is missing, or say --columns a:category",
    ("a,day\n1,2007-11-11\n2,2007-11-12\n-3,2008-01-01\n", ""):
        "column 'day' holds dates or times, such as '2007-11-11': turn them into numbers first, as days since the "
        "first one, or leave it out with --columns day:skip",
    ("a,at\n1,11/30/07 12:30\n-2,12/01/07 8:15\n", ""): "column 'at' holds dates or times",
    ("a,b\n1,-2\n2,inf\n", ""): "row 3, column 2 ('b') holds inf; numbers up to 1e+30 are allowed",
    ("a,a\n1,-2\n2,3\n", ""): "has two columns called 'a'",
    ("a\nx\nx\nx\n", ""): "holds no column that can be learned from (its column a was left out: it holds 'x' alone)",
    ("t,v\n1600000000.5,1\n1600000001,3\n1600000003,-2\n1600000002,-2\n", ""):
        "column 't' lies between 1600000000",
    ("a,b\n1,-2\n0,3\n", "a:log-normal"): "row 3, column 1 ('a') holds 0, which is not positive, as log-normal needs",
    ("a,b\n1.5,-2\n0,3\n", "a:count"): "row 2, column 1 ('a') holds 1.5, which is not a count",
    ("a,b\nx,-2\ny,3\n", "a:real"): "row 2, column 1 ('a') holds 'x', which is not a number, as real needs",
    ("a,b\nx,-2\ny,3\n", "a:ordinal"): "column 'a' holds texts, whose order must be said, as in --columns "
                                       "'a:ordinal(low|mid|high)'",
    ("a,b\nx,-2\ny,3\n", "a:ordinal(x|z)"): "row 3, column 1 ('a') holds 'y', which is none of its levels: x, z",
    ("a,b\n1,-2\n2,3\n3,4\n", "a:binary"): "column 'a' holds 3 different values; binary takes two",
    ("a,b\n1,-2\n0,3\n", "c:real"): "has no column 'c'; its columns are a, b",
    ("a,b\n1,-2\n0,3\n", "a=real"):
        "columns: 'a=real' is not NAME:KIND, as age:gaussian or grade:ordinal(low|mid|high)",
    ("a,b\n1,-2\n0,3\n", "a:normal"):
        "columns: column 'a': 'normal' is no kind of column: real, positive, count, binary, category, ordinal, gauss",
    ("a,b\n1,-2\n0,3\n", "a:real(1|2)"): "columns: column 'a': real takes no levels",
    ("a,b\n1,-2\n0,3\n", "a:ordinal(1|1)"): "columns: column 'a': levels must be two or more different texts",
    ("a,b\n1,-2\n0,3\n", "a:real,a:skip"): "columns: column 'a' is named twice",
    ("a,b\n1,-2\n0,3\n", "nowhere.json"): "columns: nowhere.json: cannot be read (No such file or directory)"}


@pytest.mark.parametrize("text, said", BAD)
def test_bad_tables(text, said, tmp_path):
    name = "columns" if BAD[text, said].startswith("columns") else "x.csv"
    refusal(lambda: read(tmp_path, text, columns=said or None), name=name, says=BAD[text, said])


@pytest.mark.parametrize("schema", ["[]", '{"a": 3}', '{"a": {"levels": ["x"]}}', '{"a": {"kind": "real", "u": 1}}',
                                    "{"])
def test_bad_schemas(schema, tmp_path):
    (tmp_path / "schema.json").write_text(schema)
    with pytest.raises(DataError, match=r"columns: .*schema\.json: ") as caught:
        read(tmp_path, "a,b\n1,-2\n0,3\n", columns=tmp_path / "schema.json")
    assert len(str(caught.value).splitlines()) == 1
