"""Runs with a learned prior: from the flag to the folder and back, the pictures of pseudo-inputs, and runs from before
there was such a flag.
"""
import json
import shutil

import numpy as np
import pytest

from npvae import VAE, checkpoint, plotting
from npvae.cli import options
from npvae.plotting import figures
from pictures import assert_nothing_cut_off, images
from tiny_runs import TINY, contents, drawn, pixels, program_in, without_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With data and, once trained, runs in it."""
    folder, rng = tmp_path_factory.mktemp("priors"), np.random.default_rng(3)
    grey = rng.integers(0, 256, (150, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:50], test=grey[50:], test_labels=rng.integers(0, 3, 100))
    return folder


@pytest.fixture
def npvae(folder, monkeypatch, capsys):
    return program_in(folder, monkeypatch, capsys)


def trained(npvae, folder, prior):
    """The folder of a run of that prior, trained if it is not there; with pictures, where some are of its own."""
    name = prior.replace(":", "")
    if not (folder / name).exists():
        with pytest.MonkeyPatch.context() as patch:
            if not prior.startswith("vamp"):
                without_pictures(patch)
            assert npvae("train", *TINY, "--prior", prior, "--out", name, "--quiet", "--kernels", "numpy")[0] == 0
    return folder / name


def settings_of(run):
    return json.loads((run / "config.json").read_text())["settings"]


@pytest.mark.every(2)
@pytest.mark.parametrize("prior", ["vamp:13", "mixture:4"])
def test_from_the_flag_to_the_folder_and_back(prior, npvae, folder):
    run = trained(npvae, folder, prior)
    assert settings_of(run)["prior"] == prior and checkpoint.read(run / "checkpoint.npz")[1]["vae"]["prior"] == prior
    assert (run / "pseudo_inputs.png").exists() == (prior == "vamp:13")
    assert ("Pseudo-inputs" in (run / "report.html").read_text(encoding="utf-8")) == (prior == "vamp:13")
    for line in ("sample", "explore", "evaluate --limit 20 --samples 20", "gradcheck"):
        name, *flags = line.split()
        code, out, error = npvae(name, run, *flags)
        assert (code, error) == (0, ""), line
    assert f"--prior         {prior}" in npvae("info", run)[1]
    code, out, _ = npvae("gradcheck", "--prior", prior, "--objective", "iwae")
    assert code == 0 and "prior." in out
    vae = VAE.load(run / "checkpoint.npz")
    assert np.array_equal(pixels(run / "sample.png"), drawn(plotting.samples(
        vae.sample(100, np.random.default_rng(0)), (4, 3)), folder))


def test_a_run_from_before_the_flag_goes_on_as_one_with_the_default(npvae, folder, monkeypatch):
    """Its config.json lacks what came later; all else must still be there."""
    without_pictures(monkeypatch)
    run = trained(npvae, folder, "normal")
    for name, missing in (("old", options._ADDED), ("older", ("prior", "seed"))):
        shutil.copytree(run, folder / name)
        config = json.loads((run / "config.json").read_text())
        for key in missing:
            del config["settings"][key]
        (folder / name / "config.json").write_text(json.dumps(config))
    shutil.copytree(run, folder / "new")
    before = contents(folder / "older")
    code, out, error = npvae("train", "--resume", "--out", "older")
    assert code == 2 and not out and error.count("\n") == 1 and "its settings differ in seed" in error
    assert contents(folder / "older") == before
    assert "--prior         normal" in npvae("info", "old")[1]
    for name in ("old", "new"):
        assert npvae("train", "--resume", "--out", name, "--epochs", 3, "--quiet") == (0, "", "")
    assert settings_of(folder / "old") == settings_of(folder / "new")
    old, new = (checkpoint.read(folder / name / "checkpoint.npz")[0] for name in ("old", "new"))
    assert all(np.array_equal(old[key], new[key]) for key in new)


def test_another_prior_is_not_resumed(npvae, folder, monkeypatch):
    without_pictures(monkeypatch)
    run = trained(npvae, folder, "mixture:4")
    before = contents(run)
    code, out, error = npvae("train", "--resume", "--out", run.name, "--prior", "vamp:4")
    assert code == 2 and not out and "--prior is mixture:4 there, vamp:4 here" in error and error.count("\n") == 1
    assert contents(run) == before
    assert npvae("train", "--resume", "--out", run.name, "--epochs", 3, "--quiet") == (0, "", "")
    assert settings_of(run) == {**json.loads(before[next(path for path in before if path.name == "config.json")])[
        "settings"], "epochs": 3}


@pytest.mark.parametrize("flags, says", [
    ("--prior mixture:0", "--prior: prior must be normal, mixture:C, vamp:C or hierarchical"),
    ("--prior mixture:4 --free-bits 0.1", "--free-bits needs the analytic KL of --prior normal, got --prior mixture:4"),
    ("--prior vamp:4 --posterior iaf:2", "prior vamp:4 is a mixture of Gaussians q(z|u), and posterior iaf:2 ")])
def test_what_does_not_fit_is_refused_before_anything_is_written(flags, says, npvae, folder):
    before = contents(folder)
    code, out, error = npvae("train", *TINY, "--out", "none", *flags.split())
    assert code == 2 and not out and says in error and error.count("\n") == 1
    assert contents(folder) == before


# --- the picture ---

def test_each_pseudo_input_stands_above_what_is_decoded_from_it():
    inputs, decoded = images(13, 12), images(26, 12)[13:]
    figure = plotting.pseudo_inputs(inputs, decoded, (3, 4))
    assert_nothing_cut_off(figure)
    _, tops, lefts, _ = figures.mosaic(np.zeros((4, 10, 12)), (3, 4), row_breaks=[2])
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    for n in range(13):
        left = lefts[n % 10]
        for top, image in zip(tops[2 * (n // 10):], (inputs[n], decoded[n])):
            tile = canvas[top:top + 3, left:left + 4]
            np.testing.assert_array_equal(tile, np.rint(255 * image.reshape(3, 4)))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["learned", "decoded"] * 2


def test_of_many_pseudo_inputs_fifty_are_shown():
    inputs = np.linspace(0, 1, 500)[:, None] * np.ones(4)
    figure = plotting.pseudo_inputs(inputs, 1 - inputs, (2, 2))
    assert len(figure.axes[0].get_yticklabels()) == 10
    _, tops, lefts, _ = figures.mosaic(np.zeros((10, 10, 4)), (2, 2), row_breaks=range(2, 10, 2))
    canvas = np.asarray(figure.axes[0].images[0].get_array()).astype(float)
    shown = canvas[np.ix_(tops, lefts)]
    assert shown[0, 0] == 0 and shown[-2, -1] == 255 and (np.diff(shown[::2].ravel()) > 0).all()
    assert np.abs(shown[::2] + shown[1::2] - 255).max() <= 1


def test_they_are_those_of_the_model(npvae, folder, tmp_path):
    run = trained(npvae, folder, "vamp:13")
    vae = VAE.load(run / "checkpoint.npz")
    inputs = 1 / (1 + np.exp(-vae.parameters["prior.pseudo_inputs"]))
    expected = plotting.pseudo_inputs(inputs, vae.decode(vae.encode(inputs)[0]), (4, 3))
    difference = pixels(run / "pseudo_inputs.png").astype(float) - drawn(expected, tmp_path)
    assert np.abs(difference).max() <= 2      # another number of rows in a product may turn the last digit


def test_pictures_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"decoded has shape \(3, 12\), inputs \(4, 12\): the two must be equal"):
        plotting.pseudo_inputs(images(4, 12), images(3, 12), (3, 4))
