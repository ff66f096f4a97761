"""Posterior collapse on purpose: what is measured, what is drawn, and that a collapse is one."""
import functools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import posterior_collapse

from npvae import ELBO, VAE, FreeBits, fit
from npvae.data import load_mnist, to_float
from refusals import assert_refused
from scripts import run_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "posterior_collapse.py"


@functools.cache
def digits():
    return to_float(load_mnist()[2][:300]).round()


def some_model(seed=0):
    vae = VAE(784, (30,), 5, seed=seed)
    fit(vae, digits(), digits()[:50], 3, 50, seed=seed)
    return vae


def test_the_measure_is_that_of_the_library():
    vae, x = some_model(), digits()[:200]
    found = posterior_collapse.measure(vae, x, np.random.default_rng(3))
    assert found.loss == pytest.approx(-vae.elbo(x, np.random.default_rng(3)).mean(), rel=1e-6)
    mu, logvar = vae.encode(x)
    kl = (0.5 * (mu ** 2 + np.exp(logvar) - 1 - logvar)).mean(axis=0)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-4)
    assert found.rate == pytest.approx(kl.sum(), rel=1e-4) and found.rate > 1
    assert found.active == (mu.var(axis=0) > 0.01).sum() > 0


def test_distortion_is_the_reconstruction_term():
    """Without hidden layers: logits = z W + b, z ~ q(z|x), averaged over many draws."""
    vae, x = VAE(784, (), 2, seed=1), digits()[:1]
    fit(vae, digits(), digits()[:50], 3, 50)
    rng = np.random.default_rng(0)
    found = posterior_collapse.measure(vae, np.repeat(x, 4000, axis=0), rng)
    mu, logvar = vae.encode(x)
    z = mu + np.exp(logvar / 2) * rng.standard_normal((4000, 2))
    logits = z @ vae.parameters["output.W"] + vae.parameters["output.b"]
    nll = (np.logaddexp(0, logits) - x * logits).sum(axis=1)
    assert abs(found.distortion - nll.mean()) < 5 * nll.std() * np.sqrt(2 / 4000) and nll.std() > 1


def test_a_decoder_without_z_is_no_better_than_independent_pixels():
    """A model whose decoder starts at the mean image and does not see z: its loss is that number, its KL zero."""
    vae = VAE(784, (10,), 3, dtype="float64")
    vae.parameters.flat[...] = 0
    p = np.clip(digits().mean(axis=0, dtype=np.float64), 1e-6, 1 - 1e-6)
    vae.parameters["output.b"][...] = np.log(p / (1 - p))
    found = posterior_collapse.measure(vae, digits(), np.random.default_rng(0))
    assert found.loss == pytest.approx(posterior_collapse.independent_pixels(digits(), digits()), rel=1e-6)
    assert found.rate == found.active == 0 and found.distortion == found.loss
    worse = posterior_collapse.independent_pixels(digits()[:20], digits())
    assert posterior_collapse.independent_pixels(digits(), digits()) < worse < np.inf


def test_every_run_starts_at_the_same_point_and_is_measured_alike(monkeypatch):
    seen = []

    def look(vae, x_train, x_test, *rest, seed, callbacks):
        seen.append((vae.parameters.flat.copy(), x_train, seed, rest[:2], rest[2].lr(0)))
        return fit(vae, x_train, x_test, *rest, seed=seed, callbacks=callbacks)

    monkeypatch.setattr(posterior_collapse, "fit", look)
    monkeypatch.setitem(posterior_collapse.NETWORK, "hidden", (8,))
    x = load_mnist()[0][:200]
    results = list(posterior_collapse.train(x, x[:100], epochs=2, seed=4))
    assert len(results) == len(seen) == len(posterior_collapse.objectives(4)) == 5
    np.testing.assert_allclose(seen[0][0][-784:], VAE().likelihood.bias_at(to_float(x).mean(axis=0)), rtol=1e-5)
    for theta, rows, *settings in seen:
        assert np.array_equal(theta, seen[0][0]) and rows is x and tuple(settings) == seen[0][2:]
    for result in results:
        epochs, kl, beta = result.curve.T
        assert epochs[0] == 0 and epochs[-1] == 2 and (np.diff(epochs) > 0).all() and (kl > 0).all()
        assert np.isfinite(result.samples).all() and result.samples.shape == (*posterior_collapse.SAMPLES, 784)
    beta = {result.name.split(",")[0]: result.curve[:, 2] for result in results}
    assert set(beta["plain ELBO"]) == set(beta["free bits"]) == {1}
    assert beta["linear annealing"][0] == 0 and beta["linear annealing"][-1] == 1


def test_the_objectives():
    """Two are measured with another beta than they train with, one pays for no KL below its bits; all end with a full
    beta but the beta-VAE."""
    runs = posterior_collapse.objectives(1000)
    plain, linear, cyclical, free, small = runs.values()
    assert list(runs)[0] == "plain ELBO" and isinstance(plain, ELBO) and isinstance(free, FreeBits)
    assert [run.beta(999) for run in (plain, linear, free)] == [1, 1, 1] and 0 < small.beta(0) == small.beta(999) < 1
    assert cyclical.beta(240) == 1 and cyclical.beta(250) == 0
    assert f"beta = {small.beta(0):g}" in runs and f"free bits, {free.bits:g} nats" in runs


def count(pixels, colour):
    """How many pixels (.., 3) have a colour such as "#1f5fa8"."""
    return (pixels == list(bytes.fromhex(colour[1:]))).all(axis=-1).sum()


@pytest.mark.slow
def test_the_program(monkeypatch, capsys, tmp_path):
    out = tmp_path / "collapse.png"
    monkeypatch.setattr(sys, "argv", ["posterior_collapse.py", "--epochs", "1", "--limit", "400", "--out", str(out)])
    monkeypatch.setitem(posterior_collapse.NETWORK, "hidden", (16,))
    posterior_collapse.main()
    lines = capsys.readouterr().out.splitlines()
    for name in posterior_collapse.objectives(1):
        row = next(line for line in lines if line.startswith(name))
        loss, distortion, kl = map(float, row[22:].split()[:3])
        assert loss == pytest.approx(distortion + kl, abs=0.02) and 0 < loss < 784
    with Image.open(out) as picture:
        pixels, colours = np.asarray(picture.convert("L")), np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 1350
    for row in np.array_split(pixels[20:-20], 5):      # every run has ink on the left, in the middle and on the right
        assert all((part < 128).mean() > 0.001 for part in np.array_split(row, 3, axis=1))
    bars, _, curves = np.array_split(colours, 3, axis=1)
    assert count(bars, posterior_collapse.BLUE) > 1000 and count(curves, posterior_collapse.BLUE) > 1000
    assert count(curves, posterior_collapse.ORANGE) > 1000 > count(bars, posterior_collapse.ORANGE)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all()      # nothing is cut off


@pytest.mark.parametrize("flags, words", [
    (["--epochs", "0"], "--epochs: must be an integer of at least 1, got '0'"), (["--z", "3"], "--z"),
    (["--limit", "0"], "--limit: must be an integer of at least 1"), (["--seed", "-1"], "--seed: must be an integer"),
    (["--out", "nowhere/x.png"], "there is no folder nowhere"), (["--out", "x.gif"], "must end in .png")])
def test_wrong_flags_are_one_line(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_script(SCRIPT, "--quick", "--out", "x.png", *flags)
    assert_refused((done.returncode, done.stdout, done.stderr), re.escape(words), "posterior_collapse.py")
    assert not list(tmp_path.iterdir())
