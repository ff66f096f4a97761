"""Runs on data with gaps: `npvae train` sees them, and every command takes the run."""
import numpy as np
import pytest

from npvae import VAE
from tiny_runs import program_in, without_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("gaps"), np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        x = rng.normal(40, 7, (90, 6)).astype("f4")
        np.save("whole.npy", x)
        x[rng.random(x.shape) < 0.3] = np.nan
        np.save("gaps.npy", x)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    return program_in(folder, monkeypatch, capsys)


FLAGS = ["train", "--likelihood", "gaussian-learned", "--hidden", "6", "--latent", "2", "--batch-size", "20"]


def test_gaps_are_found_and_every_command_takes_the_run(run, folder, monkeypatch):
    without_pictures(monkeypatch)
    code, _, error = run(*FLAGS, "--data-dir", "gaps.npy", "--epochs", "2", "--out", "straight")
    missing = int(np.isnan(np.load("gaps.npy")).sum())
    assert code == 0
    assert f"taken as real numbers, {missing} cells missing; " in error.splitlines()[0]
    assert run(*FLAGS, "--data-dir", "gaps.npy", "--epochs", "1", "--out", "a", "--quiet")[::2] == (0, "")
    assert run("train", "--out", "a", "--resume", "--epochs", "2", "--quiet")[0] == 0
    a, b = (VAE.load(folder / name / "checkpoint.npz") for name in ("a", "straight"))
    assert a.missing and np.array_equal(a.parameters.flat, b.parameters.flat)
    assert np.allclose(a.parameters["output.b"], 40, atol=3)      # it began at the scale of the data
    assert np.exp(a.parameters["likelihood.logvar"][0] / 2) == pytest.approx(7, rel=0.3)
    code, said, _ = run("evaluate", "a", "--samples", "20")
    assert code == 0 and "log p(x)" in said and "nan" not in said.lower()
    code, said, _ = run("gradcheck", "a")
    assert code == 0 and ", missing True" in said
    for command in ("encode", "explore", "explain", "reconstruct"):
        code, said, error = run(command, "a")
        assert (code, error) == (0, ""), (command, error)
    assert run("evaluate", "a", "--samples", "5", "--data-dir", "whole.npy")[0] == 0


def test_a_run_on_complete_data_refuses_gaps_in_a_line(run, monkeypatch):
    without_pictures(monkeypatch)
    code, _, error = run(*FLAGS, "--data-dir", "whole.npy", "--epochs", "1", "--out", "b")
    assert code == 0 and "missing" not in error
    code, _, error = run("evaluate", "b", "--data-dir", "gaps.npy")
    assert code == 2 and error.count("\n") == 1
    assert "gaps.npy: the test set must hold finite numbers" in error and "a model of data with gaps" in error


@pytest.mark.parametrize("flags, said", [
    (["--likelihood", "gaussian-optimal"], "missing=True needs a likelihood that is a sum over columns"),
    (["--decoder", "made:4", "--likelihood", "bernoulli"], "missing=True needs decoder dense"),
    (["--binarize", "static"], "binarize needs complete data")])
def test_what_cannot_do_with_gaps_is_refused_in_a_line(run, folder, flags, said):
    code, _, error = run("train", "--data-dir", "gaps.npy", "--out", "refused", *flags)
    assert code == 2 and error.count("\n") == 1 and said in error
    assert not (folder / "refused" / "config.json").exists()
