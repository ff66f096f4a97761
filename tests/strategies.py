"""What the tests draw: sizes that are pairwise distinct (a transposed matrix then never fits), seeds, values."""
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[Any]

seeds = st.integers(0, 2**32 - 1)


def sizes(letters: str, most: int = 9) -> st.SearchStrategy[dict[str, int]]:
    """One size for each letter, pairwise distinct."""
    return st.lists(st.integers(1, most), min_size=len(letters), max_size=len(letters), unique=True).map(
        lambda drawn: dict(zip(letters, drawn)))


def spread(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Well-scaled numbers of both signs, none within 0.05 of zero."""
    return rng.uniform(0.05, 3.0, shape) * rng.choice([-1.0, 1.0], shape)
