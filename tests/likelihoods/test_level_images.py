"""Likelihoods of bytes and their images: what is refused and in which words, what fits, and how much memory it takes.
(Their probabilities: test_levels.py.)"""
import math
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import VAE, fit
from npvae.evaluate import bounds
from npvae.cli.commands import meaning_of
from npvae.evaluate import rows_at_once
from npvae.kernels import reference
from npvae.engine.executor import ThreadedExecutor
from npvae.likelihoods import make_likelihood
from npvae.params import Block
from npvae.likelihoods.support import fitting
from level_numbers import ALL, BYTES, NAMES, levels_of


# ---- Pixels

REAL = np.array([[0.0, 0.3]])


@NAMES
def test_what_is_no_level_is_refused_in_one_line_that_says_what_fits(name):
    likelihood, family = make_likelihood(name), name.partition(":")[0]
    fits = "whole numbers / 5" if ":" in name else "bytes / 255"
    vae = VAE(2, (), 1, likelihood=name)
    for call in (lambda: vae.encode(REAL), lambda: vae.elbo(REAL, np.random.default_rng(0)),
                 lambda: vae.loss_and_gradients(REAL, np.zeros((1, 1, 1))), lambda: fit(vae, REAL, REAL, 1, 1)):
        with pytest.raises(ValueError, match=f"must hold {fits} for likelihood {family}, found 0.3; other numbers in "
                                             r"\[0, 1\] fit likelihood continuous-bernoulli or gaussian$"):
            call()
    for bad, found in ((np.array([[0.0, 255.0]]), "values from 0 to 255: divide pixels from 0 to 255 by 255"),
                       (np.array([[0, np.nan]]), "NaN"), (-BYTES, "values from -1 to ")):
        with pytest.raises(ValueError, match=rf"^x must lie in \[0, 1\] for likelihood {family}, found {found}"):
            likelihood.support.check(bad, "x", f"likelihood {family}")


@NAMES
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_levels_are_taken_as_rounding_leaves_them(name, dtype):
    """float16 is too coarse for bytes: 0.5 / 255 of rounding in a level of 1 / 255."""
    likelihood = make_likelihood(name)
    x = levels_of(likelihood).astype(dtype)
    if dtype == "float16" and likelihood.levels == 256:
        with pytest.raises(ValueError, match="must hold"):
            likelihood.support.check(x, "x")
    else:
        likelihood.support.check(x, "x")
        likelihood.support.check(x + np.array(4e-7, dtype) * (0.5 - x), "x")
    likelihood.support.check(np.array([[0, 1]], np.uint8), "x")
    likelihood.support.check(np.array([[True]]), "x")


@pytest.mark.every(3)
@NAMES
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_bytes_and_images_yet_to_be_binarized(name, kernels):
    """Bytes need no division; greys to be binarized may be any; bytes are no multiples of 1/5, unless binarized."""
    rng = np.random.default_rng(0)
    grey, white = rng.integers(0, 256, (20, 4), dtype=np.uint8), rng.integers(0, 2, (20, 4), dtype=np.uint8) * 255

    def train(x, binarize="none"):
        vae = VAE(4, (3,), 2, likelihood=name, kernels=kernels)
        history = fit(vae, x, x, 1, 10, binarize=binarize)
        assert isinstance(vae.engine, ThreadedExecutor) == (kernels == "numba")
        assert math.isfinite(history[0]["test_loss"])
        return history[0]["test_loss"], vae.parameters.flat
    for x in [white] if ":" in name else [white, grey]:
        (loss, ours), (same, theirs) = train(x), train(x.astype(np.float32) / np.float32(255))
        assert loss == pytest.approx(same, rel=1e-5) and np.allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    if ":" in name:
        with pytest.raises(ValueError, match="^x_train must hold whole numbers / 5"):
            train(grey)
    for binarize in ("threshold", "static", "dynamic"):
        train(rng.random((20, 4)), binarize)
        if ":" not in name:
            train(grey, binarize)
    with pytest.raises(ValueError, match=r"^x_train must lie in \[0, 1\]"):
        train(rng.random((20, 4)) + 1, "dynamic")


def test_any_grey_is_a_mean_image():
    for name in ALL:
        vae = VAE(2, (), 1, likelihood=name)
        vae.start_at(np.array([0.1234, 0.5]))
        with pytest.raises(ValueError, match=r"^mean must lie in \[0, 1\] for likelihood"):
            vae.start_at(np.array([0.5, 1.2]))


def test_fitting():
    x = np.array([0.0, 0.1, 0.26, 1.0])
    assert fitting(make_likelihood("gaussian"), x) is x
    assert np.array_equal(255 * fitting(make_likelihood("beta-binomial"), x), [0, 26, 66, 255])
    assert np.array_equal(fitting(make_likelihood("categorical:3"), x), [0, 0, 0.5, 1])


# ---- Names and sizes

def test_a_categorical_has_as_many_levels_as_its_name_says():
    assert make_likelihood("categorical").name == "categorical:256"
    assert make_likelihood("categorical:2").output_dim(7) == 14
    for bad in ("categorical:1", "categorical:", "categorical:2.5", "categorical:-3", "categorical:x"):
        with pytest.raises(ValueError, match=f"^likelihood '{bad}': the number of levels must be a whole number"):
            make_likelihood(bad)
    with pytest.raises(ValueError, match="likelihood must be one of"):
        make_likelihood("beta-binomial:4")


def test_what_a_pass_of_the_softmax_touches():
    """Of `kept` two numbers a pixel; the rest of its 256 for each stays with the system."""
    likelihood, x = make_likelihood("categorical"), np.zeros((2, 5))
    nll, kept, output = np.empty((2, 3)), np.full((2, 3, 1280), 777.0), np.zeros((2, 3, 1280))
    likelihood.forward(reference, nll, kept, output, x, Block({}, "float64"))
    assert (kept.ravel()[:60] != 777).all() and (kept.ravel()[60:] == 777).all()
    assert np.allclose(nll, 5 * math.log(256))


def test_wide_decoders_take_fewer_rows_at_a_time(monkeypatch):
    width = SimpleNamespace(output=SimpleNamespace(b="b", shapes={"b": (256 * 784,)}))
    assert rows_at_once(width, 500) == 167
    width.output.shapes["b"] = (2 ** 40,)
    assert rows_at_once(width, 500) == 1
    vae = VAE(4, (3,), 2, likelihood="categorical", dtype="float64")
    x = fitting(vae.likelihood, np.random.default_rng(0).random((6, 4)))
    z = np.random.default_rng(1).standard_normal((6, 2))
    decoded, bound, made = vae.decode(z), vae.elbo(x, np.random.default_rng(0)), []
    monkeypatch.setattr(bounds, "_NUMBERS", 2 * 1024)      # two rows
    passes = vae.passes
    monkeypatch.setattr(vae, "passes", lambda *sizes: made.append(sizes) or passes(*sizes))
    assert np.array_equal(vae.decode(z), decoded) and made == 3 * [(2, 1)]
    made.clear()
    assert vae.elbo(x, np.random.default_rng(0)).shape == bound.shape and made == 3 * [(2, 1)]
    made.clear()
    vae.log_likelihood(x, np.random.default_rng(0), 5)
    assert set(made) == {(2, 1)} and len(made) == 3 * 5
    made.clear()
    fit(vae, x, x, 1, 6)
    assert made == [(6, 1), *3 * [(2, 1)]]      # a batch is what it is


@pytest.mark.parametrize("name, says", [
    ("categorical:6", "of 6 grey levels"), ("beta-binomial", "of 256 grey levels"),
    ("gaussian-optimal", "log densities"), ("continuous-bernoulli", "log densities")])
def test_the_program_says_what_its_numbers_are(name, says):
    run = SimpleNamespace(vae=SimpleNamespace(likelihood=make_likelihood(name)), columns=())
    assert says in meaning_of(run, np.zeros((1, 2)))
