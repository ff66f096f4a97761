"""Compressed bytes: equal arrays come back, and from damaged ones an error, never a wrong image."""
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import coded_models
from coded_models import images, model
from npvae import CompressionError, compress, decompress
from npvae.compression import container
from npvae.compression.network import Layer
from npvae.likelihoods.categories import Categories
from npvae.likelihoods.counts import NegativeBinomial, Poisson

pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def vae():
    return model()


@pytest.fixture(scope="module")
def x(vae):
    return images(vae, 50)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(container, "_MOST_IMAGES", 20)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_the_array_comes_back_with_its_type(dtype, vae, x):
    y = decompress(vae, compress(vae, x.astype(dtype)))
    assert np.array_equal(x.astype(dtype), y) and y.dtype == dtype


def test_bytes_and_what_they_mean(vae):
    white = 255 * images(vae, 9).astype(np.uint8)
    grey = model(likelihood="beta-binomial")
    levels = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    for one, x in ((vae, white), (grey, levels), (grey, levels // 128), (grey, levels.astype(np.float32) / 255)):
        assert np.array_equal(decompress(one, compress(one, x)), x)


@pytest.mark.parametrize("n", [0, 1, 19, 20, 21, 50])
def test_any_number_of_images(n, vae, x, small_blocks):
    data = compress(vae, x[:n])
    assert container.read_header(io.BytesIO(data)).images == n
    y = decompress(vae, data)
    assert np.array_equal(y, x[:n]) and y.shape == (n, 12)


@pytest.mark.parametrize("x, says", [
    (np.full((2, 12), 0.5), "x must hold black and white, .* for likelihood bernoulli, found 0.5"),
    (np.full((2, 12), 84, np.uint8), "found 84"), (np.ones((2, 11)), r"x must have shape \(rows, 12\)"),
    (np.full((2, 12), np.nan), "NaN"), (np.ones((0, 11)), "x must have shape")])
def test_what_would_not_come_back_is_refused(x, says, vae):
    with pytest.raises(ValueError, match=says):
        compress(vae, x)


def test_a_grey_that_is_not_a_byte_is_refused():
    vae = model(likelihood="discretized-logistic")
    x = np.full((2, 12), np.float32(7) / np.float32(255))
    assert np.array_equal(decompress(vae, compress(vae, x)), x)
    with pytest.raises(ValueError, match="whole numbers / 255, exactly as float32 has them, or bytes as uint8"):
        compress(vae, x + np.float32(1e-6))


def test_counts_and_codes_come_back():
    rng = np.random.default_rng(0)
    for likelihood, x in ((Poisson(), rng.poisson(3, (30, 12))), (NegativeBinomial(), 40 * rng.poisson(3, (30, 12))),
                          (Poisson(), np.zeros((3, 12))), (Categories([2, 3, 4] * 4), rng.integers(0, 2, (30, 12)))):
        vae = model(likelihood=likelihood)
        for dtype in ("uint8", "int32", "float32"):
            back = decompress(vae, compress(vae, x.astype(dtype)))
            assert np.array_equal(back, x.astype(dtype)) and back.dtype == dtype


def test_counts_too_large_for_their_table_are_refused():
    with pytest.raises(ValueError, match="counts up to 3,000,000,000 in 12 columns are too many probabilities"):
        compress(model(likelihood=Poisson()), np.full((2, 12), 3e9))


def test_progress_counts_the_blocks(vae, x, small_blocks):
    seen = []

    def counted(blocks):
        for block in blocks:
            seen.append(block)
            yield block

    data = compress(vae, x, progress=counted)
    decompress(vae, data, progress=counted)
    assert seen == [0, 1, 2, 0, 1, 2]


# ---- Damage

def outcome(vae, data):
    try:
        return decompress(vae, data)
    except CompressionError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)


@pytest.mark.every(20)
@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_are_an_error(seed, vae, x, small_blocks):
    """50 for each seed: a bit flipped, bytes cut off, left out or doubled, blocks exchanged."""
    rng, data = np.random.default_rng(seed), compress(vae, x)
    for _ in range(50):
        a, b = sorted(rng.integers(0, len(data), 2))
        flipped = bytearray(data)
        flipped[a] ^= 1 << rng.integers(8)
        damaged = [bytes(flipped), data[:a], data[:a] + data[b + 1:], data[:b] + data[a:]][rng.integers(4)]
        if damaged != data:
            assert isinstance(outcome(vae, damaged), str)


def blocks_of(data):
    """The header, and each block with its frame."""
    file = io.BytesIO(data)
    container.read_header(file)
    parts = [data[:file.tell()]]
    while told := file.read(20):
        parts.append(told + file.read(struct.unpack("<I", told[:4])[0]))
    return parts


def test_blocks_exchanged_or_of_another_file(vae, x, small_blocks):
    head, *blocks = blocks_of(compress(vae, x))
    assert len(blocks) == 3 and b"".join([head, *blocks]) == compress(vae, x)
    assert np.array_equal(outcome(vae, head + b"".join(blocks)), x)
    assert outcome(vae, head + blocks[1] + blocks[0] + blocks[2]) == "has a damaged block 1 of 3"
    other = blocks_of(compress(vae, 1 - x))
    assert other[0] == head
    assert outcome(vae, head + blocks[0] + other[2] + blocks[2]) == "has a damaged block 2 of 3"
    assert outcome(vae, head + blocks[0] + blocks[1]) == "ends within block 3 of 3, or that is damaged"
    assert outcome(vae, head + b"".join(blocks) + b"1234") == "has 4 bytes after its last block"


def test_another_model(vae, x):
    data = compress(vae, x)
    assert "another model" in outcome(model(seed=1), data)
    near = model()
    near.parameters["output.b"][3] = np.nextafter(near.parameters["output.b"][3], np.float32(2))
    assert "another model" in outcome(near, data)


@pytest.mark.parametrize("data, says", [
    (b"", "is not a file of npvae"), (b"PK\3\4 and more of it", "is not a file of npvae"),
    (container.MAGIC + b"\2" + bytes(100), "has format version 2, but this npvae reads 1"),
    (container.MAGIC, "ends within its header"), (container.MAGIC + b"\1" + bytes(99), "has a damaged header")])
def test_other_files(data, says, vae):
    assert says in outcome(vae, data)


@pytest.mark.parametrize("change", [
    {"images": 2 ** 60}, {"block": 2 ** 31}, {"block": 0}, {"dtype": "O8"}, {"white": 3}, {"shape": (2 ** 31,)},
    {"bins": container.Bins(200, 5)}])
def test_a_header_that_promises_too_much(change, vae, x):
    """With a right checksum, as only an attacker writes it."""
    data = compress(vae, x)
    header = container.read_header(io.BytesIO(data))
    assert isinstance(outcome(vae, header._replace(**change).packed() + data[len(header.packed()):]), str)


def test_a_machine_that_computes_otherwise_is_an_error(vae, x, monkeypatch):
    """One unit in the last digit of one weight, and no image is wrong."""
    data = compress(vae, x)
    made = Layer.__init__

    def slightly_off(self, dense, params):
        made(self, dense, params)
        self.scale = np.nextafter(self.scale, 1) * 1.0001

    monkeypatch.setattr(Layer, "__init__", slightly_off)
    assert "decodes to other images than were compressed" in outcome(vae, data)


# ---- The same bytes everywhere

def test_bytes_are_equal_under_other_kernels():
    """Another process has another kernel of BLAS, two threads, and compiled kernels of npvae.  `pytest -m slow` with
    `tests/examples/test_compression.py` tries more of them on whole test sets."""
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH":
                   os.pathsep.join([str(Path(__file__).parents[2]), str(Path(coded_models.__file__).parent)])}
    code = "import coded_models; print(coded_models.digests('numba'))"
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert (there.returncode, there.stdout) == (0, f"{coded_models.digests('numpy')}\n"), there.stderr
