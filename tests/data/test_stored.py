"""Rows that stay in their file: the same numbers and the same training as from memory, and little of it at a time."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npvae import VAE, data, fit
from npvae.data import DataError, arrays, stored

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_blocks(monkeypatch):
    """Every array stays in its file, and is read a few rows at a time."""
    monkeypatch.setattr(arrays, "_LARGE", 0)
    monkeypatch.setattr(stored, "_BLOCK", 50)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rows_are_those_of_the_array(dtype, tmp_path, small_blocks):
    array = np.random.default_rng(1).integers(0, 256, (60, 3, 4)).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    loaded = data.load(tmp_path / "x.npy")
    train = loaded.train_images
    assert isinstance(train, stored.StoredRows) and isinstance(loaded.test_images, stored.StoredRows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_LARGE", 2 ** 30)
        expected = data.load(tmp_path / "x.npy")
    x = expected.train_images
    assert loaded.line == expected.line and train.shape == x.shape and train.dtype == x.dtype
    assert np.array_equal(train, x) and train.extent() == (x.min(), x.max())
    for key in (slice(3, 9), np.array([50, 2, 2, 31]), np.array([4, 5, 7]), slice(0, 0)):
        assert np.array_equal(train[key], x[key])


@pytest.mark.parametrize("binarize, dtype", [("none", np.uint8), ("dynamic", np.uint8), ("static", np.uint8),
                                             ("none", np.float32)])
def test_training_gives_the_same_bits(binarize, dtype, tmp_path, small_blocks):
    array = np.random.default_rng(2).integers(0, 256, (60, 12)).astype(np.uint8)
    np.save(tmp_path / "x.npy", array if dtype == np.uint8 else array / np.float32(255))
    histories, models = [], []
    for large in (0, 2 ** 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arrays, "_LARGE", large)
            loaded = data.load(tmp_path / "x.npy")
        vae = VAE(12, (5,), 2, kernels="numpy")
        history = fit(vae, loaded.train_images, loaded.test_images, 2, 16, binarize=binarize)
        histories.append([{**row, "seconds": 0, "images_per_second": 0} for row in history])
        models.append(vae.parameters.flat)
    assert histories[0] == histories[1] and np.array_equal(*models)


def test_numbers_that_cannot_be_used(tmp_path, small_blocks):
    array = np.ones((60, 5), np.float32)
    array[7, 2] = np.inf
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match="x.npy: the array holds infinity"):
        data.load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", 2 * np.ones((60, 5), np.float32))
    loaded = data.load(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x_train must lie in \[0, 1\] for likelihood bernoulli"):
        fit(VAE(5, (3,), 2, kernels="numpy"), loaded.train_images, loaded.test_images, 1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_array_larger_than_memory(dtype, tmp_path):
    """1.5 GB, of which a run of one epoch has less than 600 MiB in memory: about five minutes.

    pytest -m slow tests/data/test_stored.py -k larger
    """
    columns = 784 if dtype == "uint8" else 196
    shape = 2_000_000, columns
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", dtype, shape)
    rng = np.random.default_rng(0)
    for start in range(0, len(array), 100_000):
        array[start:start + 100_000] = rng.integers(0, 256 if dtype == "uint8" else 2, (100_000, columns))
    array.flush()
    del array
    code = ("import resource; from npvae.cli.program import main\n"
            "main('train --data-dir x.npy --hidden 16 --latent 4 --epochs 1 --batch-size 512 --out run'.split())\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=1500,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert float(done.stdout.splitlines()[-1]) < 600
