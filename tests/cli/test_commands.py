"""The pictures that the commands of `npvae` make, hold what the library says; and every wrong word is refused."""
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npvae import evaluate, plotting
from npvae.cli import command_line, commands, program
from tiny_runs import contents, drawn, library, pixels, program_in, train_in, without_pictures
from refusals import assert_refused

ROOT = Path(__file__).parents[2]
SHAPE = (4, 3)
ON_A_RUN = ("evaluate", "sample", "encode", "score", "impute", "reconstruct", "interpolate", "traverse", "gradcheck",
            "explore", "explain", "info")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("commands"))


@pytest.fixture
def npvae(first, monkeypatch, capsys):
    return program_in(first, monkeypatch, capsys)


@pytest.fixture
def asked(monkeypatch):
    """What a function of `plotting` was called with, after which it goes on."""
    calls = []

    def watch(name):
        function = getattr(plotting, name)
        monkeypatch.setattr(plotting, name, lambda *args, **more: (calls.append((*args, more)),
                                                                   function(*args, **more))[1])
        return calls
    return watch


# ---- What is made

@pytest.mark.every(5)
@pytest.mark.parametrize("flags, count, seed, mean", [
    ([], 100, 0, True), (["--count", 7, "--seed", 3], 7, 3, True), (["--count", 5, "--draw"], 5, 0, False)])
@pytest.mark.parametrize("kind", ["npy", "png"])
def test_sample(flags, count, seed, mean, kind, npvae, first, tmp_path):
    out = tmp_path / f"x.{kind}"
    assert npvae("sample", "run", *flags, "--out", out) == (0, f"{out}\n", "")
    expected = library(first)[0].sample(count, np.random.default_rng(seed), mean)
    assert np.isin(expected, (0, 1)).all() != mean
    if kind == "npy":
        assert np.array_equal(np.load(out), expected)
    else:
        assert np.array_equal(pixels(out), drawn(plotting.samples(expected, SHAPE), tmp_path))


def test_endings_in_capital_letters(npvae, tmp_path):
    for name in ("x.PNG", "x.NPY"):
        assert npvae("sample", "run", "--out", tmp_path / name)[0] == 0
    assert (tmp_path / "x.PNG").read_bytes().startswith(b"\x89PNG") and np.load(tmp_path / "x.NPY").shape == (100, 12)


def test_samples_can_be_trained_on(npvae, tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    npvae("sample", "run", "--count", 30, "--out", tmp_path / "x.npy")
    flags = ["--data-dir", tmp_path / "x.npy", "--out", tmp_path / "run", "--epochs", 1, "--quiet"]
    assert npvae("train", *flags) == (0, "", "")


def test_reconstruct(npvae, first, asked, tmp_path):
    calls = asked("reconstructions")
    out = tmp_path / "x.png"
    for flags in ([], ["--count", 200], ["--count", 3, "--seed", 1]):
        assert npvae("reconstruct", "run", *flags, "--out", out) == (0, f"{out}\n", "")
    vae, x = library(first)
    for (originals, rebuilt, shape, ink, _), count in zip(calls, (20, 100, 3), strict=True):
        where = [int(np.flatnonzero((x == image).all(axis=1))[0]) for image in originals]
        assert len(set(where)) == count and where == sorted(where) and shape == SHAPE and ink
    rng = np.random.default_rng(1)
    chosen = np.sort(rng.choice(100, 3, replace=False))
    figure = plotting.reconstructions(x[chosen], vae.reconstruct(x[chosen], rng), SHAPE)
    assert np.array_equal(pixels(out), drawn(figure, tmp_path))


def test_interpolate(npvae, first, asked, tmp_path):
    calls, out = asked("interpolation"), tmp_path / "x.png"
    for flags in (["--images", 3, 18, 4, 2], [], ["--count", 99], ["--data-dir", "other.npz", "--images", 39, 39]):
        code, printed, told = npvae("interpolate", "run", *flags, "--out", out)
        assert (code, printed) == (0, f"{out}\n") and told.startswith("read 90 images") == ("--data-dir" in flags)
    _, x = library(first)
    named, random, most, other = [pairs for _, pairs, _, _ in calls]
    assert np.array_equal(named, x[[[3, 18], [4, 2]]])
    assert random.shape == (6, 2, 12) and len(np.unique(random.reshape(12, 12), axis=0)) == 12
    assert most.shape == (50, 2, 12) and np.array_equal(np.unique(most.reshape(100, 12), axis=0), np.unique(x, axis=0))
    assert np.array_equal(other, library(first, source="other.npz")[1][[[39, 39]]])


def test_interpolate_between_an_odd_number_of_images(npvae, asked, tmp_path):
    three = np.arange(36, dtype=np.uint8).reshape(3, 12)
    np.savez(tmp_path / "three.npz", train=three, test=three)
    calls = asked("interpolation")
    assert npvae("interpolate", "run", "--data-dir", tmp_path / "three.npz", "--out", tmp_path / "x.png")[0] == 0
    assert calls[0][1].shape == (2, 2, 12)


def test_traverse(npvae, first, asked, tmp_path):
    calls, out = asked("traversals"), tmp_path / "x.png"
    assert npvae("traverse", "run", "--image", 5, "--rows", 2, "--out", out) == (0, f"{out}\n", "")
    vae, x = library(first)
    (_, image, kl, shape, more), = calls
    assert np.array_equal(image, x[5]) and np.array_equal(kl, evaluate.kl_per_dimension(vae, x))
    assert shape == SHAPE and more == {"rows": 2, "label": None, "ink": True}
    assert np.array_equal(pixels(out), drawn(plotting.traversals(vae, x[5], kl, SHAPE, rows=2), tmp_path))


def test_explore(npvae, first, monkeypatch, tmp_path):
    calls = []
    real = commands.write_explorer
    monkeypatch.setattr(commands, "write_explorer", lambda *args: calls.append(args) or real(*args))
    code, out, error = npvae("explore", "run", "--out", tmp_path / "x.html")
    (vae, images, labels, shape, path, ink, classes), = calls
    expected, x = library(first)
    assert code == 0 and not error and out.startswith(f"{path}\n") and f"{path.as_uri()}\n" in out
    assert np.array_equal(vae.parameters.flat, expected.parameters.flat) and np.array_equal(images, x)
    assert np.array_equal(labels, np.load(first / "data.npz")["test_labels"]) and shape == SHAPE and not classes and ink
    page = (tmp_path / "x.html").read_text()
    assert "<script" in page and page.rstrip().endswith("</html>")


def test_explain(npvae, first, monkeypatch, tmp_path):
    """A run's network, objective and images, and, where no run is named, a small network that the flags change."""
    calls = []
    monkeypatch.setattr(commands, "write_explain", lambda *args, **more: calls.append((*args, more)) or args[2])
    code, out, error = npvae("explain", "run", "--out", tmp_path / "x.html", "--seed", 3)
    (vae, images, path, shape, objective, step, draws, labels, names, seed, _), = calls
    expected, x = library(first)
    assert code == 0 and not error and out.startswith(f"{path}\n") and f"{path.as_uri()}\n" in out
    assert vae.dtype == "float64" and np.array_equal(vae.parameters.flat, expected.parameters.flat)
    assert np.array_equal(images, x[plotting.spread(len(x), 5)]) and (shape, draws, labels, seed) == (SHAPE, 1, None, 3)
    assert type(objective).__name__ == "ELBO" and step > 0 and len(names) == 5
    assert names[0] == f"test image 0, {np.load(first / 'data.npz')['test_labels'][0]}"

    monkeypatch.chdir(tmp_path)
    assert npvae("explain", "--small")[0] == npvae("explain", "--small", "--posterior", "planar:1", "--objective",
                                                   "iwae", "--k", 2, "--out", "planar.html")[0] == 0
    (small, images, path, *_), (planar, _, _, _, iwae, _, draws, more) = calls[1:]
    assert (small.input_dim, small.hidden, small.latent_dim, path) == (2, (3,), 2, Path("explain.html"))
    assert sorted(images.tolist()) == [[0, 0], [0, 1], [1, 0], [1, 1]] and more["names"][0] == "[1 0]"
    assert (type(iwae).__name__, draws, planar.config()["posterior"]) == ("IWAE", 2, "planar:1")


def test_where_results_go_by_themselves(npvae, first, tmp_path, monkeypatch):
    """Into the run's folder, and a second time in place of the first."""
    names = {"sample": "sample.png", "reconstruct": "reconstruct.png", "interpolate": "interpolate.png",
             "traverse": "traverse.png", "explore": "explore.html", "explain": "explain.html"}
    folder = shutil.copytree(first / "run", tmp_path / "run", ignore=shutil.ignore_patterns(*names.values()))
    before = contents(folder)
    monkeypatch.setattr(commands, "write_explain", lambda vae, images, path, *args, **more: path.write_text("a page"))
    for name, file in [*names.items(), ("sample", "sample.png")]:
        code, out, _ = npvae(name, folder)
        assert code == 0 and out.splitlines()[0] == str(folder / file)
    after = contents(folder)
    assert after.keys() - before.keys() == {Path(file) for file in names.values()}
    assert all(after[path] == before[path] for path in before)
    for file in names.values():
        if file.endswith(".png"):
            picture = pixels(folder / file)
            assert min(picture.shape[:2]) > 100 and len(np.unique(picture)) > 10


def test_threads_are_those_of_the_model_and_of_blas(npvae, monkeypatch):
    seen, blas = [], []
    opened, limit = commands.open_run, program.threadpool_limits

    def watch(folder, threads):
        run = opened(folder, threads)
        seen.append(run.vae.threads)
        return run

    monkeypatch.setattr(commands, "open_run", watch)
    monkeypatch.setattr(program, "threadpool_limits",
                        lambda *args, **more: (blas.append(args), limit(*args, **more))[1])
    npvae("sample", "run", "--threads", 3)
    npvae("traverse", "run", "--threads", 1)
    assert seen == [3, 1] and blas == [(3,), (1,)]


# ---- Refusals

USED = ", ".join(program.COMMANDS)
BAD = {
    "tarin": f"there is no command tarin; the commands are {USED}", "--count 3": "there is no command --count",
    "RUN": "there is no command RUN", "train --latent 0": "--latent: must be an integer .*see npvae train --help",
    "train --out run": "--out run already holds a run", "train extra": "unrecognized arguments: extra",
    "evaluate": "the following arguments are required: RUN .see npvae evaluate --help",
    **{f"{name} nowhere": "there is no run in nowhere: nowhere/config.json cannot be read" for name in ON_A_RUN},
    **{f"{name} empty": "there is no run in empty: empty/config.json cannot be read" for name in ON_A_RUN},
    **{f"{name} unsaved": "unsaved holds no checkpoint.npz: its training has not saved a model" for name in ON_A_RUN},
    **{f"{name} custom": "custom/checkpoint.npz: holds no model that can be built here: likelihood must be one of"
       for name in ON_A_RUN},
    "sample file": "there is no run in file", "info run extra": "unrecognized arguments: extra",
    **{f"{name} run --data-dir nowhere": "nowhere: there is no such file or folder; .* are allowed"
       for name in ("evaluate", "reconstruct", "interpolate", "traverse", "explore", "explain")},
    "traverse run --data-dir wide.npy": "wide.npy: holds 18 pixels an image; the model takes 12",
    "explore run --data-dir file": "file: is not a data set", "evaluate run --data-dir empty": "empty: holds nothing",
    "evaluate run --data-dir letters.csv": "letters.csv: row 2, column 3 holds 'x', which is not a number",
    "evaluate run --data-dir unequal": r"unequal/b.png: is 3 x 4 pixels, unequal/a.png 4 x 3; all pictures",
    "evaluate run --data-dir negative.npy": r"negative.npy: the test set must lie in \[0, 1\] for like",
    "train --data-dir unequal --out new": "unequal/.*pixels, unequal/.*; all pictures must be of one size",
    "train --data-dir letters.csv --out new": "letters.csv: row 2, column 3 holds 'x'",
    "evaluate run --samples 0": "--samples: must be an integer of at least 1, got '0'",
    "evaluate run --limit 0": "--limit: must be", "evaluate run --seed -1": "--seed: must be",
    "evaluate run --json nowhere/x.json": "--json nowhere/x.json: there is no folder nowhere",
    "evaluate run --json x.txt": "--json x.txt: must end in .json",
    "evaluate run --json run/config.json": "--json run/config.json: a run keeps a file of its own under this",
    "sample run --count 0": "--count: must be",
    "sample run --out x.jpg": "--out x.jpg: must end in .png or .npy or .csv",
    "sample run --out file/x.png": "--out file/x.png: there is no folder file",
    "sample run --out folder.png": "--out folder.png: is a folder; give the name of a file",
    "sample run --threads 0": "--threads: must be", "reconstruct run --out x.npy": "--out x.npy: must end in .png",
    "reconstruct run --count 0": "--count: must be", "explore run --out x.htm": "--out x.htm: must end in .html",
    "interpolate run --images 3": "--images must be pairs of test images, got 1 numbers",
    "interpolate run --images 3 100": "--images 100: there are 100 test images, 0 to 99",
    "interpolate run --images -1 3": "--images: must be an integer",
    "traverse run --image 100": "--image 100: there are 100 test images, 0 to 99",
    "traverse run --rows 0": "--rows: must be", "gradcheck run --hidden 4": "--hidden and RUN exclude each other",
    "gradcheck run --free-bits 0": "--free-bits and RUN exclude each other: a run has its own network",
    "gradcheck --objective iwae --free-bits 1": "--free-bits needs the analytic KL of --objective elbo",
    "explain": "a RUN, or --small for a small network, is needed", "explain --hidden 3": "a RUN, or --small",
    "explain run --small": "--small and RUN exclude each other", "explain run --latent 3": "--latent and RUN exclude",
    "explain --small --data-dir file": "--data-dir and --small exclude each other",
    "explain --small --out x.png": "--out x.png: must end in .html", "explain --small --k 0": "--k: must be",
    "explain --small --decoder made:3 --likelihood gaussian": "decoder made:3 needs likelihood bernoulli",
    "explain --small --hidden 2100,2100": "a model of [0-9,]+ parameters is too large for a web page; at most",
    "gradcheck --hidden x": "--hidden: must be positive integers", "gradcheck --pixels 0": "--pixels: must be"}


@pytest.fixture(scope="module")
def spoiled(first):
    """Data that cannot be used, beside the rest."""
    (first / "letters.csv").write_text("1,3,2,4\n5,6,x,8\n")
    (first / "unequal").mkdir()
    for name, size in (("a", (4, 3)), ("b", (3, 4))):
        Image.new("L", size).save(first / "unequal" / f"{name}.png")
    np.save(first / "negative.npy", np.full((20, 12), -1.0))
    (first / "folder.png").mkdir()


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_in_one_line(line, spoiled, npvae, first):
    before = contents(first)
    assert_refused(npvae(*line.split()), BAD[line])
    assert contents(first) == before


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("spoil, says", [
    (lambda folder: (folder / "config.json").write_text("{"), "config.json is not the config.json of a run"),
    (lambda folder: edit_config(folder, settings=3), "config.json is not .*: it holds no settings"),
    (lambda folder: edit_config(folder, settings={"flavour": 3}), "is of another program or version: .*flavour"),
    (lambda folder: edit_config(folder, image_shape=None), "config.json is not .*image_shape must be two"),
    (lambda folder: edit_config(folder, ink="yes"), "config.json is not .*ink must be true or false"),
    (lambda folder: edit_config(folder, image_shape=[3, 3]), "images of 3 x 3, checkpoint.npz a model of 12 pixels"),
    (lambda folder: (folder / "checkpoint.npz").write_bytes(b"PK"), "checkpoint.npz: .*or damaged: its end is missing"),
    (lambda folder: library(folder.parent, "spoiled")[0].save(folder / "checkpoint.npz"),
     "holds a model but no training")])
def test_a_spoiled_run_is_refused(spoil, says, npvae, first, tmp_path):
    shutil.copy(first / "data.npz", tmp_path)
    folder = shutil.copytree(first / "run", tmp_path / "spoiled")
    spoil(folder)
    before = contents(tmp_path)
    for name in ON_A_RUN:
        assert_refused(npvae(name, folder), says)
    assert contents(tmp_path) == before


def test_a_file_that_cannot_be_written_leaves_no_trace(npvae, first, monkeypatch):
    """A full disk, say: the old picture stays, whole."""
    npvae("sample", "run")
    before = contents(first)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert_refused(npvae("sample", "run", "--seed", 1), "--out run/sample.png cannot be written: No space left on d")
    assert contents(first) == before


def test_ctrl_c_is_one_line_and_130(npvae, monkeypatch, first):
    def stop(*args):
        raise KeyboardInterrupt

    before = contents(first)
    monkeypatch.setattr(plotting, "samples", stop)
    code, out, error = npvae("sample", "run")
    assert (code, out, error.split("\n")) == (130, "", ["", "npvae: stopped", ""])
    assert contents(first) == before


@pytest.mark.every(2)
@pytest.mark.parametrize("start", [["-m", "npvae"], ["-c", "import sys; sys.argv[0] = '/x/bin/npvae'; "
                                                     "from npvae.__main__ import main; sys.exit(main())"]])
def test_the_program_in_a_process_of_its_own(start, first):
    def run(*argv):
        done = subprocess.run([sys.executable, *start, *argv], cwd=first, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        return done.returncode, done.stdout, done.stderr

    assert_refused(run("info", "nowhere"), "there is no run in nowhere")


@pytest.mark.every(3)
@pytest.mark.parametrize("argv", [["info", "run"], ["train", "--help"], []])
def test_a_pipe_that_nobody_reads_ends_the_program_quietly(argv, first):
    """As in `npvae info RUN | head -1`."""
    process = subprocess.Popen([sys.executable, "-m", "npvae", *argv], cwd=first, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) in ((0, 141) if "--help" in argv else (141,))      # argparse passes over it


def test_without_an_output_nothing_is_missed(first):
    """As in `npvae info RUN >&-`."""
    done = subprocess.run(f"'{sys.executable}' -m npvae info run >&-", shell=True, cwd=first, text=True,
                          stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_progress_shows_on_a_terminal_alone(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = command_line.progress(None, "losses", 3)
        bar.delay = 0
        bar.update(3)
        bar.refresh()
        bar.close()
        assert ("3/3" in stream.getvalue()) == shown
