"""The moving picture of the latent plane: its frames, its clock, and that filming does not change the training."""
import io
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import manifold_movie

from npvae import VAE, fit
from npvae.data import load_mnist, to_float
from npvae.plotting import manifold_grid
from refusals import assert_refused
from scripts import run_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "manifold_movie.py"
SMALL = ["--limit", "200", "--epochs", "1"]


def frames_of(path):
    """Every frame of a GIF: grey pixels, and its duration in ms."""
    with Image.open(path) as movie:      # a path or a stream
        found = []
        for number in range(movie.n_frames):
            movie.seek(number)
            found.append((np.asarray(movie.convert("L")), movie.info["duration"]))
        return found, movie.info["loop"]


def run(monkeypatch, capsys, *flags):
    monkeypatch.setattr(sys, "argv", ["manifold_movie.py", *map(str, flags)])
    manifold_movie.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("total, frames", [(1, 2), (3, 50), (16, 9), (469, 50), (14070, 50), (14070, 2)])
def test_the_steps_are_dense_at_the_start(total, frames):
    steps = manifold_movie.frame_steps(total, frames)
    gaps = np.diff(steps)
    assert steps[0] == 0 and steps[-1] == total and len(steps) <= min(frames, total + 1)
    assert (gaps > 0).all() and gaps[-1] == gaps.max()
    assert len(steps) > 0.7 * min(frames, total)


def test_the_frames_of_the_readme():
    """Half of them in the first epoch, and later ones in geometric progression."""
    steps = np.array(manifold_movie.frame_steps(30 * 469, 50))
    assert len(steps) == 50 and 20 <= (steps <= 469).sum() <= 30
    ratios = steps[21:] / steps[20:-1]
    assert ratios.max() / ratios.min() < 1.05


def test_a_movie(monkeypatch, capsys, tmp_path):
    out = tmp_path / "plane.gif"
    text = run(monkeypatch, capsys, "--limit", 1500, "--epochs", 8, "--hidden", 100, "--frames", 9, "--out", out)
    frames, loop = frames_of(out)
    side = manifold_movie.SIDE * 30 + 2      # tiles of 28 pixels, gaps of 2
    assert "9 frames" in text and len(frames) == 9 and loop == 0
    assert [duration for _, duration in frames] == [600] + [100] * 7 + [2500]
    for pixels, _ in frames:
        assert pixels.shape == (side + manifold_movie.LINE, side) and 480 <= side <= 560
        assert len(np.unique(pixels)) <= manifold_movie.LEVELS
        assert (pixels[side:] < 100).any() and pixels[side:].mean() > 180      # some text, the rest white
    plane = [pixels[:side].astype(float) for pixels, _ in frames]
    assert all((a != b).any() for a, b in pairwise(plane[3:]))
    assert plane[-1].mean() > plane[0].mean() + 15      # from grey to ink on paper
    assert [path.name for path in out.parent.iterdir()] == ["plane.gif"]


def test_a_frame_is_the_plane_as_it_is():
    """The last frame shows what the trained model decodes, row by row, and the tiles of the top row have the largest
    z[1]; filming draws none of the training's random numbers."""
    x, _, test, _ = load_mnist()
    x, test = x[:1000], test[:200]
    filmed, alone = (VAE(784, (20,), 2, seed=1) for _ in range(2))
    film = manifold_movie.Film([0, 3, 8], to_float(test), (28, 28), seed=1)
    fit(filmed, x, test, 1, seed=1, callbacks=[film])
    fit(alone, x, test, 1, seed=1)
    assert np.array_equal(filmed.parameters.flat, alone.parameters.flat) and len(film.frames) == 3
    page = np.asarray(film.frames[-1]).astype(float)
    z = manifold_grid(manifold_movie.SIDE)
    for row, column in ((0, 0), (0, 15), (7, 4), (15, 3)):
        tile = page[2 + 30 * row:30 + 30 * row, 2 + 30 * column:30 + 30 * column]
        expected = 255 * (1 - alone.decode(z[row, column][None].astype(np.float32)))
        assert np.abs(tile - expected.reshape(28, 28)).max() <= 1
    assert z[0, 0, 1] > z[15, 0, 1]


def test_the_texts_do_not_touch():
    """The longest that can come: three groups of letters with white between them, and white at the margins."""
    tiles = np.zeros((manifold_movie.SIDE, manifold_movie.SIDE, 784))
    page = np.asarray(manifold_movie.draw(tiles, (28, 28), "step 99,999", "epoch 100.0", "test loss 544.5 nats"))
    assert (page[:-manifold_movie.LINE] == 255).all()
    inked = np.flatnonzero((page[-manifold_movie.LINE:] < 255).any(axis=0))
    wide = np.diff(inked) > 12      # between words it is half of that
    assert wide.sum() == 2 and inked[0] > 0 and inked[-1] < page.shape[1] - 1


def test_shades_are_the_nearest():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1)))
    frames, _ = frames_of(io.BytesIO(manifold_movie.gif([ramp, ramp.rotate(180)])))
    step = 255 / (manifold_movie.LEVELS - 1)
    assert np.abs(frames[0][0][0].astype(float) - np.arange(256)).max() <= step / 2 + 1
    assert {0, 255} <= set(frames[0][0][0].tolist())


@pytest.mark.parametrize("flags, words", [
    (["--epochs", "0"], "--epochs: must be an integer of at least 1, got '0'"),
    (["--frames", "1"], "--frames: must be an integer of at least 2, got '1'"),
    (["--hidden", "400,0"], "--hidden: must be positive integers such as 400,200, or none, got '400,0'"),
    (["--limit", "0"], "--limit: must be an integer of at least 1"), (["--seed", "-1"], "--seed: must be an integer"),
    (["--data-dir", "nowhere"], "nowhere: there is no such file or folder"), (["--fps", "3"], "--fps"),
    (["--out", "nowhere/x.gif"], "there is no folder nowhere"), (["--out", "x.png"], "must end in .gif")])
def test_wrong_flags_are_one_line(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_script(SCRIPT, *SMALL, "--out", "x.gif", *flags)
    assert_refused((done.returncode, done.stdout, done.stderr), re.escape(words), "manifold_movie.py")
    assert not list(tmp_path.iterdir())
