"""The study of gradient estimators: what it measures, and that the laws of the papers come out of it."""
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gradient_estimators

from npvae import IWAE, VAE
from refusals import assert_refused
from scripts import run_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "gradient_estimators.py"


def small_model(seed=0):
    vae = VAE(6, (5,), 2, "tanh", "gaussian:1.5", "float64", "numpy", seed)
    return vae, np.random.default_rng(seed).random((3, 6))


def moments_of(vectors):
    found = gradient_estimators.Moments(vectors.shape[1])
    for vector in vectors:
        found.add(vector)
    return found


def test_moments():
    """Those of numpy; and the length of the true mean, without what noise adds to that of a few vectors."""
    rng, part = np.random.default_rng(0), np.array([True, True, False, True])
    vectors = rng.normal([1.0, 2.0, -2.0, 5.0], [1.0, 3.0, 0.5, 2.0], (50, 4))
    found = moments_of(vectors)
    np.testing.assert_allclose(found.mean, vectors.mean(axis=0), rtol=1e-13)
    assert found.noise() == pytest.approx(np.sqrt(vectors.var(axis=0, ddof=1).sum()), rel=1e-12)
    assert found.noise(part) == pytest.approx(np.sqrt(vectors[:, part].var(axis=0, ddof=1).sum()), rel=1e-12)
    repeated = [moments_of(rng.normal(0.3, 1.0, (4, 100))) for _ in range(200)]
    squares = [found.signal() ** 2 for found in repeated]
    assert np.mean(squares) == pytest.approx(100 * 0.3 ** 2, abs=4 * np.std(squares) / np.sqrt(200))
    assert np.mean([(found.mean ** 2).sum() for found in repeated]) > 30
    part = np.arange(100) < 30
    assert np.mean([found.signal(part) ** 2 for found in repeated]) == pytest.approx(30 * 0.3 ** 2, rel=0.2)
    assert moments_of(np.array([[1.0], [-1.0]])).signal() == 0


def test_the_exponent():
    rows = [{"K": k, "y": 3 * k ** -1.5 if k >= 4 else 777, "zero": 0.0} for k in (1, 2, 4, 8, 32)]
    assert gradient_estimators.exponent(rows, "y") == pytest.approx(-1.5, rel=1e-12)
    assert all(np.isnan(gradient_estimators.exponent(*few)) for few in ((rows, "zero"), (rows[:3], "y"), ([], "y")))


def test_what_is_measured():
    """Against gradients gathered here, under the same noise."""
    vae, x = small_model()
    row = gradient_estimators.measure(vae, x, 3, 20, seed=5)
    rng, found = np.random.default_rng([5, 3]), {"total": [], "stl": [], "dreg": []}
    for _ in range(20):
        eps = rng.standard_normal((3, 3, 2))
        for way, kept in found.items():
            gradients = vae.loss_and_gradients(x, eps, IWAE(gradient=way))[1]
            kept.append([np.concatenate([gradients[name].ravel() for name in gradients
                                         if (name.split(".")[0] in ("encoder", "mu", "logvar")) == encoder])
                         for encoder in (True, False)])
    encoder, decoder = ({way: np.array([pair[side] for pair in kept]) for way, kept in found.items()}
                        for side in (0, 1))
    size = {way: np.sqrt(value.var(axis=0, ddof=1).sum()) for way, value in encoder.items()}

    def signal(value):
        return np.sqrt((value.mean(axis=0) ** 2).sum() - value.var(axis=0, ddof=1).sum() / 20)

    expected = {"K": 3, "signal": signal(encoder["dreg"]), **{f"noise {way}": size[way] for way in size},
                "bias stl": signal(encoder["stl"] - encoder["dreg"])}
    expected |= {"ratio total": expected["signal"] / size["total"],
                 "ratio stl": expected["signal"] / np.sqrt(size["stl"] ** 2 + expected["bias stl"] ** 2),
                 "ratio dreg": expected["signal"] / size["dreg"],
                 "decoder": signal(decoder["total"]) / np.sqrt(decoder["total"].var(axis=0, ddof=1).sum())}
    assert list(row) == list(expected) and row == pytest.approx(expected, rel=1e-10)
    assert min(row.values()) > 0 and row["noise dreg"] < row["noise total"]
    assert gradient_estimators.measure(vae, x, 1, 20, seed=5)["bias stl"] == 0


@pytest.mark.slow
def test_the_laws_of_the_papers():
    """Rainforth et al. 2018 and Tucker et al. 2019: each power of K within a tenth."""
    vae, x = small_model()
    vae.parameters.flat[...] *= 0.3      # where the weights of the draws differ little, the laws hold from few draws on
    rows = [gradient_estimators.measure(vae, x, draws, 300, seed=1) for draws in (8, 32, 128)]
    laws = {"signal": -1, "noise total": -0.5, "noise stl": -0.5, "noise dreg": -1.5, "bias stl": 0,
            "ratio total": -0.5, "ratio dreg": 0.5, "decoder": 0.5}
    for name, law in laws.items():
        assert gradient_estimators.exponent(rows, name) == pytest.approx(law, abs=0.1), name


def test_the_program(monkeypatch, capsys, tmp_path):
    out = tmp_path / "estimators.png"
    flags = ["--most", "8", "--repeats", "8", "--limit", "300", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gradient_estimators.py", *flags])
    gradient_estimators.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line[:5].strip().isdecimal()]
    assert [int(row[0]) for row in rows] == [1, 2, 4, 8] and all(len(row) == 10 for row in rows)
    assert all(float(value) > 0 for row in rows[1:] for value in row)
    powers = next(line.split() for line in lines if line.startswith(" K^"))
    assert len(powers) == 10 and float(powers[1]) < -0.5 < 0 < float(powers[-1])
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape == (620, 1500)
    assert all((part < 128).mean() > 0.005 for part in np.array_split(pixels[60:], 3, axis=1))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all()      # nothing is cut off


@pytest.mark.slow
@pytest.mark.slow
def test_one_draw_can_be_drawn():
    """There is no bias then, and no exponent."""
    row = gradient_estimators.measure(*small_model(), 1, 5, seed=0)
    assert gradient_estimators.draw([row], 1.5).startswith(b"\x89PNG")


@pytest.mark.parametrize("flags, words", [
    (["--most", "0"], "--most: must be an integer of at least 1, got '0'"), (["--repeats", "1"], "--repeats: must be"),
    (["--sigma", "0"], "--sigma: must be a number more than 0"), (["--out", "nowhere/x.png"], "there is no folder"),
    (["--out", "x.gif"], "must end in .png")])
def test_wrong_flags_are_one_line(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_script(SCRIPT, "--out", "x.png", *flags)
    assert_refused((done.returncode, done.stdout, done.stderr), re.escape(words), "gradient_estimators.py")
    assert not list(tmp_path.iterdir())
