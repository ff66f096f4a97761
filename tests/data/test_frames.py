"""Tables in memory: a frame is taken by the names of its columns and their `to_numpy`."""
import numpy as np
import pytest

from files import refusal
from npvae import VAE, fit
from npvae.data import Reading, load_table
from npvae.likelihoods import Table

COLUMNS = {
    "size": np.array([1.5, 2.5, np.nan, -1.0] * 10), "city": np.array(["Rome", None, "Bonn", "Rome"] * 10, object),
    "n": np.arange(40) % 13, "ok": np.array([True, False] * 20)}


class Frame:
    """What pandas and polars have in common."""

    class Series:
        def __init__(self, cells):
            self.cells = cells

        def to_numpy(self):
            return self.cells

    def __init__(self, columns):
        self.columns, self._cells = list(columns), columns

    def __getitem__(self, name):
        return Frame.Series(self._cells[name])


def check(loaded):
    assert [(c.name, c.kind, c.levels) for c in loaded.columns] == [
        ("size", "real", ()), ("city", "binary", ("Bonn", "Rome")), ("n", "count", ()), ("ok", "binary", ("0", "1"))]
    rows = np.vstack([loaded.train_images, loaded.test_images])
    assert len(loaded.test_images) == 4 and np.isnan(rows).sum(axis=0).tolist() == [10, 10, 0, 0]


def test_a_frame_a_dict_and_a_model_of_it():
    for source in (Frame(COLUMNS), COLUMNS):
        check(load_table(source))
    loaded = load_table(COLUMNS, Reading(columns="n:poisson"))
    vae = VAE(4, (5,), 2, likelihood=Table(loaded.columns), missing=True)
    vae.start(loaded.train_images)
    fit(vae, loaded.train_images, loaded.test_images, 1, 10)
    assert np.isfinite(vae.elbo(loaded.test_images, np.random.default_rng(0))).all()


def test_a_frame_of_pandas():
    pandas = pytest.importorskip("pandas")
    check(load_table(pandas.DataFrame(COLUMNS)))


def test_an_array_and_labels():
    x = np.column_stack([COLUMNS["size"], COLUMNS["n"]])
    loaded = load_table(x, Reading(test_part="last"), labels=np.arange(40))
    assert [c.name for c in loaded.columns] == ["column 1", "column 2"]
    assert loaded.test_labels.tolist() == [36, 37, 38, 39]
    assert np.array_equal(loaded.train_images, x[:36].astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("source, says", [
    ({"a": np.array(["2020-01-01", "2021-01-01"], "M8[D]")}, "column 'a' holds dates or times: turn them into numbers"),
    ({"a": [1, 2, 3], "b": [1, 2]}, "all of one length"), ({}, "one or more"),
    (3, "a table must be a path, a data frame"),
    ({"a": np.ones((2, 2))}, "column 'a' has shape (2, 2), and (N,) is allowed"),
    ({"a": ["1", "2", "x"]}, "row 2, column 'a' holds 'x', which is not a number")])
def test_what_is_no_table_is_refused(source, says):
    refusal(load_table, source, name="a ", says=says)
