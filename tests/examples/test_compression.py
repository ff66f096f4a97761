"""The table of `examples/compression.py`; and, slow, whole test sets under every kernel of BLAS."""
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compression

from npvae import VAE, compress, decompress, fit
from npvae.cli import program
from npvae.data import binarize, load_mnist
from refusals import assert_refused
from scripts import run_script
from tiny_runs import TINY, without_pictures

pytest.importorskip("constriction")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "compression.py"


def test_images_side_by_side():
    images = np.arange(5)[:, None] * 10 + np.arange(6)
    assert compression.side_by_side(images, (2, 3)).tolist() == [
        [0, 1, 2, 10, 11, 12, 20, 21, 22], [3, 4, 5, 13, 14, 15, 23, 24, 25],
        [30, 31, 32, 40, 41, 42, 0, 0, 0], [33, 34, 35, 43, 44, 45, 0, 0, 0]]


def test_random_bits_cannot_be_compressed_by_anyone():
    """Eight pixels fit a byte; nothing is shorter."""
    bits = np.random.default_rng(0).integers(0, 2, (64, 1024), dtype=np.uint8)
    for name, size in compression.others(bits, (32, 32), True).items():
        assert 1023 < size < 1.4 * 1024, name
    assert all(size < 100 for size in compression.others(np.zeros((64, 1024), np.uint8), (32, 32), False).values())


def test_a_run_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    without_pictures(monkeypatch)
    grey = np.random.default_rng(0).integers(0, 256, (60, 4, 3), dtype=np.uint8)
    np.savez("data.npz", train=grey[:20], test=grey[20:])
    program.main(["train", *TINY, "--likelihood", "discretized-logistic", "--kernels", "numpy",
                  "--out", "run", "--quiet"])
    done = run_script(SCRIPT, "run", "--out", "x.png")
    assert done.returncode == 0, done.stderr
    head, _, row, name = done.stdout.splitlines()
    cells = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    vae, x = VAE.load("run/checkpoint.npz"), grey[20:].reshape(40, 12)
    data = compress(vae, x)
    assert cells["bits an image"] == "run, 40 images" and cells["npvae"] == f"**{len(data) / 5:,.1f}**"
    assert float(cells["npvae / -ELBO"]) == pytest.approx(len(data) / 5 / float(cells["-ELBO"]), abs=0.01)
    with Image.open(name) as picture:
        assert picture.size == (1350, 420)


def test_a_missing_run_is_one_line(tmp_path):
    done = run_script(SCRIPT, tmp_path / "gone", "--out", tmp_path / "x.png")
    assert_refused((done.returncode, done.stdout, done.stderr), "there is no run in", SCRIPT.name)


# ---- The same bytes under every kernel of BLAS

CODE = """
import hashlib, sys
import numpy as np
from npvae import VAE, compress, decompress
vae, x = VAE.load(sys.argv[1], kernels=sys.argv[3]), np.load(sys.argv[2])
data = open(sys.argv[4], "rb").read()
assert np.array_equal(decompress(vae, data), x)
print(hashlib.sha256(compress(vae, x)).hexdigest())
"""


@pytest.mark.slow      # pytest -m slow tests/examples/test_compression.py
@pytest.mark.parametrize("likelihood, images", [("bernoulli", 10_000), ("discretized-logistic", 2000),
                                                ("beta-binomial", 1000)])
def test_files_are_the_same_and_read_under_every_kernel_thread_and_twin(likelihood, images, tmp_path):
    """Here and in other processes; at most 1.01 times the bound."""
    train, _, test, _ = load_mnist()
    if likelihood == "bernoulli":
        test = binarize(test, "static", np.random.default_rng(0))
    vae, x = VAE(784, (100,), 10, likelihood=likelihood), test[:images]
    fit(vae, train, test, 2, binarize="dynamic" if likelihood == "bernoulli" else "none", callbacks=[])
    data = compress(vae, x)
    assert np.array_equal(decompress(vae, data), x)
    bound = -np.mean([vae.elbo(x, np.random.default_rng(i)).mean() for i in range(4)]) / np.log(2)
    assert len(data) * 8 / images <= 1.01 * bound
    vae.save(tmp_path / "model.npz")
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.npvae").write_bytes(data)
    files = [str(tmp_path / name) for name in ("model.npz", "x.npy")]
    tried = 0
    for kernel in ("Haswell", "Sandybridge", "SkylakeX", "Prescott", "Zen"):
        for threads, twin in (("1", "numba"), ("2", "numpy")):
            environment = {**os.environ, "OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": threads,
                           "PYTHONPATH": str(ROOT)}
            done = subprocess.run([sys.executable, "-c", CODE, *files, twin, str(tmp_path / "x.npvae")], text=True,
                                  env=environment, capture_output=True)
            if kernel == "SkylakeX" and done.returncode < 0:
                continue      # this processor has no AVX-512
            assert (done.returncode, done.stdout.strip()) == (0, hashlib.sha256(data).hexdigest()), done.stderr
            tried += 1
    assert tried >= 8
