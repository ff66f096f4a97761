"""What `test_benchmark` lends to other tests."""
import numpy as np


def images(work, rng):
    """A batch of grey pixels, or of black and white ones."""
    x = rng.random((work.batch, work.input_dim), dtype=np.float32)
    return np.round(x) if work.variant else x
