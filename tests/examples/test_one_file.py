"""Lesson zero, examples/vae_in_one_file.py: is it right by itself, and does the library agree with it?"""
import ast
import gzip
import importlib.util
import math
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "vae_in_one_file.py"
spec = importlib.util.spec_from_file_location("vae_in_one_file", SCRIPT)
one = importlib.util.module_from_spec(spec)
spec.loader.exec_module(one)

# Pairwise distinct (B, D, H, Z), so that no transposed product can have the right shape by accident.
dimensions = st.lists(st.integers(1, 7), min_size=4, max_size=4, unique=True)
seeds = st.integers(0, 2**32 - 1)


def draw_problem(dims, seed, margin=0.0):
    """Float64 parameters (biases too), images with exact 0 and 1, noise; every ReLU margin off its kink."""
    batch, data, hidden, latent = dims
    rng = np.random.default_rng(seed)
    while True:
        params = one.initialize(rng, data, hidden, latent, dtype=np.float64)
        for w in params.values():
            w += 0.3 * rng.standard_normal(w.shape)
        x = np.clip(rng.uniform(-0.3, 1.3, (batch, data)), 0, 1)
        eps = rng.standard_normal((batch, latent))
        f = one.forward(params, x, eps)
        if min(np.abs(f.pre_enc).min(), np.abs(f.pre_dec).min()) > margin:
            return params, x, eps


def relative_error(analytic, numerical):
    """Largest deviation over the tensor's RMS; nothing absolute, so a zero tensor must be met exactly."""
    deviation, scale = np.abs(analytic - numerical).max(), np.sqrt((numerical**2).mean())
    return deviation / scale if scale > 0 else (0.0 if deviation == 0 else math.inf)


def test_file_is_short_and_stands_alone():
    source = SCRIPT.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 200
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            roots.add(node.module.split(".")[0])
    assert "numpy" in roots
    assert roots - {"numpy"} <= set(sys.stdlib_module_names)


@given(dimensions, seeds)
def test_loss_follows_the_definition_number_by_number(dims, seed):
    """The textbook formulas in scalar Python, with probabilities: fine for the moderate logits drawn here."""
    params, x, eps = draw_problem(dims, seed)
    p = {name: w.tolist() for name, w in params.items()}

    def layer(name, values, relu=False):
        columns = zip(*p[name + ".W"])
        out = [sum(v * w for v, w in zip(values, column)) + b for column, b in zip(columns, p[name + ".b"])]
        return [max(v, 0.0) for v in out] if relu else out

    total = 0.0
    for image, noise in zip(x.tolist(), eps.tolist()):
        h = layer("encoder.0", image, relu=True)
        mu, sigma = layer("mu", h), [math.exp(s) ** 0.5 for s in layer("logvar", h)]
        z = [m + s * e for m, s, e in zip(mu, sigma, noise)]
        for logit, pixel in zip(layer("output", layer("decoder.0", z, relu=True)), image):
            on, off = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(logit))
            total -= pixel * math.log(on) + (1 - pixel) * math.log(off)
        total += sum((m * m + s * s - 1) / 2 - math.log(s) for m, s in zip(mu, sigma))
    assert float(one.loss_and_gradients(params, x, eps)[0]) == pytest.approx(total / len(x), rel=1e-9, abs=0)


@given(dimensions, seeds)
def test_sampler_and_kl_mean_the_same_sigma(dims, seed):
    """E_q[log q(z|x) - log p(z)] over the sampler's own z equals the closed-form KL.

    The integrand is quadratic in eps, so the 2 Z sigma points +-sqrt(Z) e_i give its expectation exactly. A
    sampler that takes logvar for log sigma passes every gradient check and fails here.
    """
    params, x, _ = draw_problem(dims, seed)
    latent, expectation = dims[3], 0.0
    points = math.sqrt(latent) * np.concatenate([np.eye(latent), -np.eye(latent)])
    for point in points:
        f = one.forward(params, x, np.tile(point, (len(x), 1)))
        log_q = -0.5 * (f.logvar + (f.z - f.mu) ** 2 / np.exp(f.logvar)).sum(axis=1)
        log_p = -0.5 * (f.z**2).sum(axis=1)
        expectation = expectation + (log_q - log_p) / len(points)
    scale = np.abs(f.mu).max() ** 2 + np.exp(f.logvar).max() + np.abs(f.logvar).max()
    np.testing.assert_allclose(expectation, f.kl, rtol=0, atol=1e-13 * latent * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_stay_finite_and_exact(dtype):
    params = one.initialize(np.random.default_rng(0), 4, 3, 2, dtype=dtype)
    for w in params.values():
        w[...] = 0
    params["output.b"][...] = [5000, -5000, 5000, -5000]
    x = np.array([[1, 0, 0.25, 0.25]], dtype)
    with np.errstate(all="raise", under="ignore"):
        loss, grads = one.loss_and_gradients(params, x, np.zeros((1, 2), dtype))
    assert loss == 0.75 * 5000 + 0.25 * 5000
    np.testing.assert_array_equal(grads["output.b"], np.array([0, 0, 0.75, -0.25], dtype))


@given(dimensions, seeds)
def test_precision_follows_the_input(dims, seed):
    params, x, eps = draw_problem(dims, seed, margin=1e-4)
    loss, grads = one.loss_and_gradients(params, x, eps)
    single = {name: w.astype(np.float32) for name, w in params.items()}
    loss32, grads32 = one.loss_and_gradients(single, x.astype(np.float32), eps.astype(np.float32))
    assert loss32.dtype == np.float32 and loss.dtype == np.float64
    assert float(loss32) == pytest.approx(float(loss), rel=1e-4, abs=0)
    for name, g in grads32.items():
        assert g.dtype == np.float32 and g.shape == params[name].shape, name


@given(dimensions, seeds)
def test_gradients_match_central_differences(dims, seed):
    """Fourth-order central difference (8 [L(h) - L(-h)] - [L(2h) - L(-2h)]) / 12h, entry by entry."""
    params, x, eps = draw_problem(dims, seed, margin=0.01)
    h = 1e-4
    loss, grads = one.loss_and_gradients(params, x, eps)
    assert list(grads) == list(params) and loss == one.forward(params, x, eps).loss
    for name, w in params.items():
        numerical = np.zeros_like(w)
        for i in np.ndindex(w.shape):
            kept = w[i]
            for step, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                w[i] = kept + step * h
                numerical[i] += weight * one.forward(params, x, eps).loss / (12 * h)
            w[i] = kept
        assert relative_error(grads[name], numerical) < 1e-7, name


@given(dimensions, seeds)
def test_gradients_match_the_complex_step(dims, seed):
    """dL/dw = Im L(w + ih) / h, without a difference and hence without cancellation: exact to rounding."""
    params, x, eps = draw_problem(dims, seed, margin=1e-9)
    h = 1e-30
    grads = one.loss_and_gradients(params, x, eps)[1]
    shifted = {name: w.astype(np.complex128) for name, w in params.items()}
    for name, w in shifted.items():
        exact = np.zeros(w.shape)
        for i in np.ndindex(w.shape):
            w[i] += 1j * h
            exact[i] = one.forward(shifted, x, eps).loss.imag / h
            w[i] -= 1j * h
        assert relative_error(grads[name], exact) < 1e-11, name


def test_own_gradient_check_passes_and_can_fail(monkeypatch):
    assert max(one.gradient_check(np.random.default_rng(5)).values()) < 1e-7
    monkeypatch.setattr(one, "sigmoid", lambda t: (1 + 1e-5) / (1 + np.exp(-t)))
    assert max(one.gradient_check(np.random.default_rng(5)).values()) > 1e-7


@given(dimensions, seeds)
def test_library_agrees_with_the_example(dims, seed):
    """Two implementations written apart from each other, one answer."""
    import npvae

    batch, data, hidden, latent = dims
    drawn, x, eps = draw_problem(dims, seed, margin=1e-9)
    vae = npvae.VAE(input_dim=data, hidden=(hidden,), latent_dim=latent, dtype="float64", kernels="numpy",
                    seed=0)
    assert list(vae.parameters) == list(drawn)
    for name, w in drawn.items():
        vae.parameters[name][...] = w
    params = {name: vae.parameters[name].copy() for name in drawn}
    loss, grads = one.loss_and_gradients(params, x, eps)
    library_loss, library_grads = vae.loss_and_gradients(x, eps[:, None, :])
    assert float(library_loss) == pytest.approx(float(loss), rel=1e-12, abs=0)
    assert set(library_grads) == set(grads)
    for name, g in grads.items():
        assert library_grads[name].shape == g.shape, name
        assert np.linalg.norm(library_grads[name] - g) <= 1e-12 * np.linalg.norm(g), name


def test_adam_is_algorithm_1():
    """Scalar by scalar; gradients of some 1e-8 show whether epsilon comes after the bias correction."""
    gradients = [3e-8, -1e-8, 2e-8, 5e-9]
    params, m, v = {"w": np.array([0.5, 0.5])}, {"w": np.zeros(2)}, {"w": np.zeros(2)}
    array, w, first, second = params["w"], 0.5, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        one.adam_step(params, {"w": np.array([g, -g])}, m, v, t, lr=0.01)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        w -= 0.01 * (first / (1 - 0.9**t)) / (math.sqrt(second / (1 - 0.999**t)) + 1e-8)
    assert params["w"] is array
    np.testing.assert_allclose(array - 0.5, [w - 0.5, 0.5 - w], rtol=1e-9, atol=0)


def test_evaluate_samples_z():
    params, x, _ = draw_problem((50, 6, 5, 3), 1)
    eps = np.random.default_rng(8).standard_normal((50, 3))
    sampled, at_mean = one.forward(params, x, eps), one.forward(params, x, 0 * eps)
    nll, kl = one.evaluate(params, x, np.random.default_rng(8))
    assert nll == pytest.approx(sampled.nll.mean(), rel=1e-14, abs=0) and nll != at_mean.nll.mean()
    assert kl == pytest.approx(sampled.kl.mean(), rel=1e-14, abs=0)
    assert one.evaluate(params, x, np.random.default_rng(9))[0] != nll


def test_train_sees_each_image_once_an_epoch_with_fresh_noise(monkeypatch, capsys):
    seen, noises, steps, sums = [], [], [], []
    original_loss, original_step = one.loss_and_gradients, one.adam_step

    def record_loss(params, x, eps):
        seen.append(x[:, 0].copy())
        noises.append(eps)
        loss, grads = original_loss(params, x, eps)
        sums.append(float(loss) * len(x))
        return loss, grads

    def record_step(params, grads, m, v, t):
        steps.append(t)
        original_step(params, grads, m, v, t)

    monkeypatch.setattr(one, "loss_and_gradients", record_loss)
    monkeypatch.setattr(one, "adam_step", record_step)
    images = np.linspace(0, 1, 300 * 4, dtype=np.float32).reshape(300, 4) ** 4
    rng = np.random.default_rng(0)
    one.train(one.initialize(rng, 4, 3, 2), images, images[:50], 2, rng)
    assert [len(batch) for batch in seen] == [128, 128, 44] * 2 and steps == [1, 2, 3, 4, 5, 6]
    epochs = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), images[:, 0])
        assert (order != images[:, 0]).any()
    assert (epochs[0] != epochs[1]).any()
    assert len(np.unique(np.concatenate(noises))) == 2 * 300 * 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, total in zip(lines, (sum(sums[:3]), sum(sums[3:]))):
        assert float(line.split()[4]) == pytest.approx(total / 300, abs=0.0051)


def test_training_a_tiny_data_set_reduces_the_loss(capsys):
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (3, 12)).astype(np.float32)
    images = patterns[rng.integers(0, 3, 256)]
    params = one.initialize(rng, 12, 16, 2)
    before = sum(one.evaluate(params, images, np.random.default_rng(1)))
    one.train(params, images, images, 150, rng)
    after = sum(one.evaluate(params, images, np.random.default_rng(1)))
    assert before > 8.0        # 12 fair coins cost 12 log 2 = 8.3 nats
    assert 1.0 < after < 4.0   # three equally likely patterns cost at least log 3 = 1.1 nats
    printed = re.findall(r"test loss +([\d.]+) = recon ([\d.]+) \+ KL ([\d.]+)", capsys.readouterr().out)
    assert len(printed) == 150
    for total, recon, kl in printed:
        assert float(total) == pytest.approx(float(recon) + float(kl), abs=0.0151)


def idx(images, magic=2051, shape=None):
    """An IDX file of images; shape overrides what its header claims."""
    return struct.pack(">4i", magic, *(shape or images.shape)) + images.tobytes()


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


def write_folder(folder, train=None):
    """Both files with PIXELS in them, or the training file with the given bytes."""
    for name, content in (("train", train), ("t10k", None)):
        content = gzip.compress(idx(PIXELS)) if content is None else content
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(content)
    return folder


def assert_one_line(result, *fragments):
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for fragment in fragments:
        assert fragment in result.stderr


def test_command_trains(tmp_path):
    result = run_script(SCRIPT, "--epochs", 2, "--data", write_folder(tmp_path))
    assert result.returncode == 0 and result.stderr == ""
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("epoch")] == ["1", "2"]


def test_command_checks_gradients():
    result = run_script(SCRIPT, "--check")
    assert result.returncode == 0 and result.stderr == ""
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names == list(one.initialize(np.random.default_rng(0)))


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_command_refuses_epochs(tmp_path, value):
    assert_one_line(run_script(SCRIPT, f"--epochs={value}", "--data", write_folder(tmp_path)), "--epochs", value)


def test_command_names_what_is_wrong_in_one_line(tmp_path):
    assert_one_line(run_script(SCRIPT, "--epoch", "3"), "--epoch")
    assert_one_line(run_script(SCRIPT, "--data", tmp_path / "nowhere"), "nowhere", "No such file")
    write_folder(tmp_path, train=b"not gzip")
    assert_one_line(run_script(SCRIPT, "--data", tmp_path), "train-images-idx3-ubyte.gz", "gzip")
    (write_folder(tmp_path) / "t10k-images-idx3-ubyte.gz").unlink()
    assert_one_line(run_script(SCRIPT, "--data", tmp_path), "t10k-images-idx3-ubyte.gz", "No such file")


@pytest.mark.parametrize("raw", [
    b"", b"\0\0\x08\x03", idx(PIXELS)[:-1], idx(PIXELS) + b"\0", idx(PIXELS, magic=2049), idx(PIXELS[:0]),
    idx(PIXELS, shape=(6, 28, 28)), idx(PIXELS, shape=(5, 14, 56)), idx(PIXELS, shape=(-5, 28, 28)),
])
def test_reader_refuses_what_is_not_28_by_28_images(tmp_path, raw):
    write_folder(tmp_path, train=gzip.compress(raw))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz.*28 x 28"):
        one.read_images(tmp_path / "train-images-idx3-ubyte.gz")


def test_reader_refuses_truncation_and_damage(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    packed = gzip.compress(idx(PIXELS))
    for position in range(10, len(packed), 97):  # ten bytes of gzip header hold a free time stamp
        damaged = packed[:position] + bytes([packed[position] ^ 0xFF]) + packed[position + 1:]
        for content in (damaged, packed[:position], packed[:position % 10]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=path.name):
                one.read_images(path)


def test_reader_scales_pixels(tmp_path):
    images = one.read_images(write_folder(tmp_path) / "train-images-idx3-ubyte.gz")
    assert images.dtype == np.float32 and images.shape == (5, 784)
    np.testing.assert_array_equal(images, PIXELS.reshape(5, 784).astype(np.float32) / np.float32(255))
