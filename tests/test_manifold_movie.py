"""The moving picture of the latent plane: its frames, its clock, and that filming does not change the training."""
import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import manifold_movie  # noqa: E402

from npvae import VAE, fit  # noqa: E402
from npvae.data import load_mnist, to_float  # noqa: E402
from npvae.plotting import manifold_grid  # noqa: E402

SCRIPT = ROOT / "examples" / "manifold_movie.py"


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


@pytest.mark.parametrize("total, frames", [(1, 2), (3, 50), (9, 10), (10, 7), (469, 50), (14070, 50), (14070, 2)])
def test_the_steps_are_dense_at_the_start(total, frames):
    steps = manifold_movie.frame_steps(total, frames)
    assert steps[:2] == [0, 1] and steps[-1] == total
    assert len(steps) == min(frames, total + 1)
    gaps = [b - a for a, b in pairwise(steps)]
    assert min(gaps) >= 1 and gaps[-1] == max(gaps)


def test_a_movie(monkeypatch, capsys, tmp_path):
    out = tmp_path / "new" / "plane.gif"
    text = run(monkeypatch, capsys, "--limit", 1500, "--epochs", 2, "--hidden", 20, "--frames", 9, "--out", out)
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
    assert plane[-1].std() > plane[0].std()      # from grey to ink and paper
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


def test_shades_are_the_nearest():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1)))
    frames, _ = frames_of(io.BytesIO(manifold_movie.gif([ramp, ramp.rotate(180)])))
    step = 255 / (manifold_movie.LEVELS - 1)
    assert np.abs(frames[0][0][0].astype(float) - np.arange(256)).max() <= step / 2 + 1
    assert {0, 255} <= set(frames[0][0][0].tolist())


@pytest.mark.parametrize("flags, words", [
    (["--epochs", "0"], "--epochs must be at least 1, got 0"), (["--epochs", "x"], "--epochs: invalid int value: 'x'"),
    (["--frames", "1"], "--frames must be at least 2, got 1"), (["--hidden", "400,0"], "argument --hidden"),
    (["--limit", "0"], "--limit must be at least 1, got 0"), (["--seed", "-1"], "seed must be at least 0, got -1"),
    (["--data-dir", "nowhere"], "nowhere: there is no such file or folder"),
    (["--out", "."], "is a folder"), (["--out", __file__ + "/x.gif"], "cannot be written"), (["--fps", "3"], "--fps")])
def test_wrong_flags_are_one_line(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["manifold_movie.py", "--out", str(tmp_path / "x.gif"), *flags])
    try:
        code = manifold_movie.cli.exit_code(manifold_movie.main)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and len(error.splitlines()) == 1 and words in error
    assert not list(tmp_path.iterdir())


def test_the_program_ends_with_its_exit_code():
    result = subprocess.run([sys.executable, SCRIPT, "--epochs", "0"], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr == "manifold_movie.py: --epochs must be at least 1, got 0\n"


def test_the_picture_of_the_readme():
    """Small enough to load at once, and long enough to see."""
    path = ROOT / "examples" / "pictures" / "manifold.gif"
    frames, loop = frames_of(path)
    assert path.stat().st_size < 2.5e6 and loop == 0 and 40 <= len(frames) <= 60
    assert 480 <= frames[0][0].shape[1] <= 560 and 2000 <= frames[-1][1] <= 3000
