"""How data are to be read: what the flags of reading say, and which rows are the test part.  Not part of the lesson;
`readers.load` takes a `Reading`.
"""
import re
from dataclasses import dataclass

import numpy as np

from ..likelihoods.columns import Wanted

#: what the numbers of a file are
VALUES = {"binary": "0 and 1, or black and white as 0 and 255", "bytes": "grey levels or colours from 0 to 255, "
          "divided by 255", "unit": "numbers from 0 to 1", "real": "any numbers, as they are", "counts": "0, 1, 2, ..."}
#: which rows are the test part of data that have none of their own
TEST_PARTS = {"random": "drawn at random with seed 0", "last": "the last rows"}
_TEST_SEED = 0      # of the rows drawn; not the run's seed, so that runs with other seeds have the same test part


@dataclass(frozen=True)
class Reading:
    """How to read a data set.  None stands for what is found in the data.

    Attributes
    ----------
    values : what the numbers are, a name in VALUES
    header : whether the first line of a table is one
    label_column : name of the column of a table that holds labels; None: "label", if there is one
    delimiter : between the cells of a table
    decimal : "." or ",", in the numbers of a table
    table : a file of numbers has columns of several kinds (True), or images (False)
    columns : the kinds of columns (`likelihoods/columns.py`); given, the file is a table
    transpose : rows and columns of each image, or of a matrix of counts, change places
    grey, rgb : colours become grey, or stay three numbers a pixel; with neither arrays stay as they are, and pictures
        become grey
    resize : (height, width) that pictures are brought to
    test_part : a name in TEST_PARTS
    test_fraction : the part of the rows that are the test part; at least one row
    whole : no test part is taken from the data
    """

    values: str | None = None
    header: bool | None = None
    label_column: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    table: bool | None = None
    columns: Wanted = None
    transpose: bool = False
    grey: bool = False
    rgb: bool = False
    resize: tuple[int, int] | None = None
    test_part: str = "random"
    test_fraction: float = 0.1
    whole: bool = False

    def parts(self, count: int, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the training part and of the test part, each in ascending order, of at least two; the first
        `limit` of each."""
        if self.whole:
            return np.arange(count)[:limit], np.arange(0)
        tests = min(count - 1, max(1, int(count * self.test_fraction)))
        if self.test_part == "last":
            return np.arange(count - tests)[:limit], np.arange(count - tests, count)[:limit]
        is_test = np.zeros(count, bool)
        is_test[np.random.default_rng(_TEST_SEED).permutation(count)[:tests]] = True
        return np.flatnonzero(~is_test)[:limit], np.flatnonzero(is_test)[:limit]


def size_of(text: str) -> tuple[int, int]:
    """(height, width) of "28x28".  Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d{0,3})[xX]([1-9]\d{0,3})", text)
    if not found:
        raise ValueError(f"must be HEIGHTxWIDTH, such as 28x28, got {text}")
    return int(found[1]), int(found[2])


def taken(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """array[rows], without a copy if the rows (n,), ascending, follow each other."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return array[int(rows[0]):int(rows[-1]) + 1]
    chosen: np.ndarray = array[rows]
    return chosen
