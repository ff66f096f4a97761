"""Files of codes and other results: what is written comes back bit for bit, and what cannot be codes is refused."""
import csv

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from npvae import DataError
from npvae.data.codes import as_csv, as_npy, load_codes, numbered


@given(hnp.arrays(st.sampled_from((np.float32, np.float64)), (3, 2),
                  elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_codes_come_back_bit_for_bit(tmp_path_factory, z):
    path = tmp_path_factory.getbasetemp() / "codes.csv"
    path.write_bytes(as_csv({"row": np.arange(3), **numbered("z", z), "name": ["a,b", "", 'c"\n']}))
    found = load_codes(path, 2)
    assert np.array_equal(found.z.astype(z.dtype), z) and found.others == {"row": ["0", "1", "2"],
                                                                           "name": ["a,b", "", 'c"\n']}
    assert np.array_equal(load_codes(save(path.with_suffix(".npy"), as_npy(z)), 2).z, z)


def save(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_numbers_are_as_short_as_they_can_be():
    x = np.array([[0.1, 1e-8], [1 / 3, 2]], np.float32)
    assert as_csv(numbered("x", x)).decode() == "x_1,x_2\n0.1,1e-08\n0.33333334,2.0\n"


def test_columns_are_found_by_name(tmp_path):
    """In any order, after a byte order mark, with empty lines and Windows' line ends."""
    path = save(tmp_path / "x.csv", "\ufeffmu_2,id,mu_1\r\n1,é,2\r\n\r\n3,b,4\r\n")
    found = load_codes(path, 2)
    assert found.z.tolist() == [[2, 1], [4, 3]] and found.others == {"id": ["é", "b"]}


@pytest.mark.parametrize("content, says", [
    ("", "has no codes: columns mu_1 to mu_2, or z_1 to z_2, are needed"), ("x_1,x_2\n1,2\n", "has no codes"),
    ("mu_1\n1\n", "has 1 columns of codes, mu_1 and so on; the model takes 2"),
    ("z_1,z_2,z_3\n1,2,3\n", "has 3 columns of codes"), ("mu_1,mu_2,mu_1\n1,2,3\n", "two columns called 'mu_1'"),
    ("mu_1,mu_3\n1,2\n", "has 1 columns of codes"), ("mu_1,mu_2\n", r"shape \(0, 2\)"),
    ("mu_1,mu_2\n1,2\n3\n", "row 3 has 1 cells, the header 2"), ("mu_1,mu_2\n1,x\n", "row 2 holds a code that is not"),
    ("mu_1,mu_2\n1,nan\n", "not finite numbers"), (b"mu_1,mu_2\n\xff,1\n", "no text in UTF-8"),
    ("mu_1,mu_2\n" + csv.field_size_limit() * "1" + "1,1\n", "field larger than field limit")])
def test_what_cannot_be_codes(content, says, tmp_path):
    with pytest.raises(DataError, match=f"x.csv: .*{says}") as caught:
        load_codes(save(tmp_path / "x.csv", content), 2)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("array, says", [
    (np.zeros((3, 3)), r"shape \(3, 3\); \(rows, 2\)"), (np.zeros(2), "shape"), (np.zeros((0, 2)), "at least one row"),
    (np.full((1, 2), np.inf), "finite"), (np.array([["a", "b"]]), "finite"), (np.zeros((1, 2), complex), "finite")])
def test_what_cannot_be_an_array_of_codes(array, says, tmp_path):
    with pytest.raises(DataError, match=f"x.npy: .*{says}"):
        load_codes(save(tmp_path / "x.npy", as_npy(array)), 2)


def test_a_file_that_is_no_array_or_is_not_there(tmp_path):
    short = as_npy(np.zeros((3, 2)))[:-8]
    for name, content, says in (("x.npy", b"mu_1", "not an array file"), ("x.npy", short, "promises"),
                                ("x.txt", b"", "must end in .csv or .npy")):
        with pytest.raises(DataError, match=f"{name}: .*{says}"):
            load_codes(save(tmp_path / name, content), 2)
    with pytest.raises(DataError, match="none.csv: cannot be read .No such file"):
        load_codes(tmp_path / "none.csv", 2)
