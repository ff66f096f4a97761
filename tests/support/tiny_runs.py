"""Small runs of `npvae train`, and the program within this process, for tests of its commands."""
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from npvae import VAE, checkpoint, plotting
from npvae.cli import command_line, program, runs

TINY = ["--data-dir", "data.npz", "--hidden", "6", "--latent", "3", "--batch-size", "16", "--epochs", "2"]
#: the program `npvae` in a process of its own, by `python -c`, but for the pictures
PROGRAM = """import sys; sys.argv[0] = "npvae"
from npvae import __main__
from npvae.cli import runs
runs.save_pictures = lambda *arguments: []
sys.exit(__main__.main())"""


def train_in(folder):
    """The folder, with data and trained runs in it: `run`, and `dynamic`, binarized anew at each visit; and with runs
    that cannot be used: `unsaved` and `custom`."""
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 256, (150, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:50], test=grey[50:], test_labels=rng.integers(0, 3, 100))
    np.savez(folder / "other.npz", train=grey[:50], test=grey[50:90] // 2)
    np.save(folder / "wide.npy", grey.reshape(-1, 18))
    (folder / "file").write_text("not a folder")
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        without_pictures(patch)
        program.main(["train", *TINY, "--out", "run", "--quiet"])
        program.main(["train", *TINY, "--out", "dynamic", "--binarize", "dynamic", "--kernels", "numpy", "--quiet"])
    shutil.copytree(folder / "run", folder / "unsaved").joinpath("checkpoint.npz").unlink()
    shutil.copytree(folder / "run", folder / "custom")
    arrays, manifest = checkpoint.read(folder / "run" / "checkpoint.npz")
    checkpoint.write(folder / "custom" / "checkpoint.npz", arrays,
                     {**manifest, "vae": {**manifest["vae"], "likelihood": "of my own"}})
    return folder


def without_pictures(monkeypatch):
    """Runs draw none: that takes longer than all else."""
    monkeypatch.setattr(runs, "save_pictures", lambda *arguments: [])


def program_in(folder, monkeypatch, capsys):
    """A function that calls the program within this process, in the folder: exit code, stdout and stderr."""
    def run(*argv):
        try:
            code = command_line.exit_code(lambda: program.main([str(word) for word in argv]))
        except SystemExit as stop:      # --help
            code = stop.code
        return (code, *capsys.readouterr())

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/npvae"])
    return run


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def library(folder, name="run", source="data.npz"):
    """The model of a run, and the test set as it sees it, both by the library alone."""
    x = np.load(folder / source)["test"].reshape(-1, 12)
    return VAE.load(folder / name / "checkpoint.npz"), x.astype(np.float32) / np.float32(255)


def pixels(path):
    return np.asarray(Image.open(path))


def drawn(figure, tmp_path):
    """The pixels of a figure."""
    (tmp_path / "expected.png").write_bytes(plotting.png(figure))
    return pixels(tmp_path / "expected.png")
