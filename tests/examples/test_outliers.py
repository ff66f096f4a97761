"""examples/outliers.py: scores in which higher means more like the training data."""
import argparse

import numpy as np

import outliers


def test_a_row_of_the_table():
    """Of dark images that a model has seen, and light ones that it has not, as of another kind."""
    rng = np.random.default_rng(0)
    dark, light = rng.integers(0, 60, (220, 784), dtype=np.uint8), rng.integers(190, 256, (20, 784), dtype=np.uint8)
    args = argparse.Namespace(hidden=5, likelihood="gaussian-learned", seed=0, epochs=2, samples=3, progress=False)
    name, *numbers = outliers.compare("dark/light", dark[:200], dark[200:], light, args).split()
    aurocs, means = np.array(numbers[:3], float), np.array(numbers[3:], float)
    assert name == "dark/light" and (aurocs > 0.95).all() and means[0] > means[1]
    against_itself = outliers.compare("same", dark[:200], dark[200:], dark[200:], args).split()[1:4]
    assert against_itself == ["0.500"] * 3
