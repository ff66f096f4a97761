"""`examples/train_mnist.py`: the loop in the open trains as `npvae train` does, and leaves a run like any."""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train_mnist
from npvae import VAE, checkpoint
from npvae.cli import command_line, options, program, runs
from npvae.data import load_mnist
from npvae.system.files import claimed
from scripts import run_script
from tiny_runs import contents, library

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "train_mnist.py"
TINY = ["--data-dir", "data.npz", "--hidden", "6", "--latent", "3", "--batch-size", "16", "--epochs", "2"]
TIMES = ("seconds", "images_per_second")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with data and a finished run in it, `run`; and what the script had printed."""
    folder, rng = tmp_path_factory.mktemp("train_mnist"), np.random.default_rng(3)
    grey = rng.integers(0, 256, (150, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:50], test=grey[50:], test_labels=rng.integers(0, 3, 100))
    np.save(folder / "wide.npy", 3 * rng.random((70, 12), dtype=np.float32) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run_script(SCRIPT, *TINY, "--out", "run")


@pytest.fixture
def script(first, monkeypatch, capsys):
    """The script within this process, in the folder of `first`: exit code, stdout, stderr."""
    def run(*flags):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, flags)])
        try:
            code = command_line.exit_code(train_mnist.main)
        except SystemExit as stop:      # --help
            code = stop.code
        return (code, *capsys.readouterr())

    monkeypatch.chdir(first[0])
    return run


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(runs, "_finish", lambda *args: None)


def history(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def result(folder):
    """What is the same in a second run: all but the times."""
    arrays, _ = checkpoint.read(folder / "checkpoint.npz")
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in history(folder)]
    return {name: array.tobytes() for name, array in arrays.items()}, rows


def assert_refused(done, says):
    code, out, error = done
    assert code == 2 and not out and len(error.splitlines()) == 1 and error.startswith("train_mnist.py: "), error
    assert re.search(says, error.strip()), error


# ---- What it trains

def test_two_runs_with_one_seed_are_the_same_bits(first, script, without_pictures):
    for seed in (0, 1):
        assert script(*TINY, "--seed", seed, "--out", f"seed {seed}")[0] == 0
    assert result(first[0] / "seed 0") == result(first[0] / "run")
    assert result(first[0] / "seed 1") != result(first[0] / "run")


@pytest.mark.slow
def test_the_loss_is_that_of_npvae_train(script, without_pictures, tmp_path):
    """In the mean of three seeds, which are some 3 nats apart after so few steps; both begin with the same weights."""
    train, _, test, _ = load_mnist()
    np.savez(tmp_path / "digits.npz", train=train[:3000], test=test[:500])
    flags = ["--data-dir", str(tmp_path / "digits.npz"), "--hidden", "32", "--latent", "4", "--batch-size", "32",
             "--epochs", "3"]
    losses = {"script": [], "command": []}
    for seed in map(str, range(3)):
        assert script(*flags, "--seed", seed, "--out", tmp_path / "script", "--overwrite")[0] == 0
        program.main(["train", *flags, "--seed", seed, "--out", str(tmp_path / "command"), "--overwrite", "--quiet"])
        for name, found in losses.items():
            found.append([history(tmp_path / name)[-1][term] for term in ("test_loss", "test_nll", "test_kl")])
    means = {name: np.mean(found, axis=0) for name, found in losses.items()}
    assert np.abs(means["script"] - means["command"]).max() < 1.5, losses


@pytest.mark.parametrize("beta", [0.0, 4.0])
def test_beta_is_in_the_training_loss_alone(script, without_pictures, tmp_path, beta):
    assert script(*TINY, "--beta", beta, "--lr", 1e-9, "--batch-size", 50, "--out", tmp_path / "run")[0] == 0
    vae = VAE(12, (6,), 3, seed=0)
    x = np.load("data.npz")["test"].reshape(-1, 12)
    elbo = vae.elbo(x, np.random.default_rng([0, 2]))
    row = history(tmp_path / "run")[-1]
    assert row["test_loss"] == pytest.approx(-elbo.mean(), rel=1e-5)
    assert row["test_loss"] == row["test_nll"] + row["test_kl"] and row["test_kl"] > 0.1
    eps = np.random.default_rng([0, 1])
    x = np.load("data.npz")["train"].reshape(-1, 12)
    x = x[eps.permutation(50)]
    loss, _ = vae.loss_and_gradients(x, eps.standard_normal((50, 1, 3), np.float32), train_mnist.ELBO(beta))
    assert history(tmp_path / "run")[0]["train_loss"] == pytest.approx(loss, rel=1e-5)


# ---- What it leaves

def test_the_folder_is_a_run_like_any(first, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "save_pictures", lambda *arguments: [])
    folder, done = first
    assert done.returncode == 0, done.stderr
    assert [line[:11] for line in done.stderr.splitlines()] == ["read 150 im", "epoch   1/2", "epoch   2/2"]
    assert "trained for only 8 steps" in done.stdout and "all on one page: run/report.html" in done.stdout
    program.main(["train", *TINY[2:], "--data-dir", str(folder / "data.npz"), "--out", str(tmp_path / "other"),
                  "--quiet"])
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (folder / "run", tmp_path / "other"))
    assert {**ours["settings"], "data_dir": str(folder / "data.npz")} == theirs["settings"]
    pictures = contents(folder / "run").keys() - contents(tmp_path / "other").keys()
    assert len(pictures) == 7 and all(path.suffix == ".png" for path in pictures)
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    for command, *flags in (["sample"], ["evaluate", "--samples", "5"], ["info"]):
        assert not program.main([command, "run", *flags]), command
    out = capsys.readouterr().out
    assert "epochs    2 of 2" in out and "ELBO" in out
    vae, x = library(Path("."))
    assert history(Path("run"))[-1]["test_loss"] == pytest.approx(-vae.elbo(x, np.random.default_rng([0, 2])).mean())


def test_overwrite_replaces_a_run(script, without_pictures, first, tmp_path):
    folder = shutil.copytree(first[0] / "run", tmp_path / "run")
    assert script(*TINY, "--epochs", 1, "--out", folder, "--overwrite")[0] == 0
    assert len(history(folder)) == 1 and not (folder / "report.html").exists()


# ---- Flags

def test_help_has_the_flags_of_a_first_experiment_and_names_the_program_with_all(script):
    code, out, error = script("--help")
    assert code == 0 and not error and max(map(len, out.splitlines())) <= 120
    flags = {f"--{name.replace('_', '-')}" for name in train_mnist.FLAGS}
    assert {*re.findall(r"^  (--[a-z-]+)", out, re.MULTILINE)} == flags
    assert "npvae train --help" in out
    examples = [shlex.split(line.split("  ")[0]) for line in re.findall(r"^  python examples/(.*)", out, re.MULTILINE)]
    assert len(examples) == 4 and all(words[0] == SCRIPT.name for words in examples)
    for _, *words in examples:
        options.parse_few(train_mnist.FLAGS, "", "", words)


ELSEWHERE = {"--activation": "tanh", "--likelihood": "gaussian:0.3", "--prior": "vamp:5", "--posterior": "iaf:2",
             "--decoder": "made:5", "--objective": "iwae", "--k": "5", "--free-bits": "0.1", "--kl-warmup": "2",
             "--cyclical": "3", "--gradient": "dreg", "--lr-schedule": "cosine", "--weight-decay": "0.1",
             "--dtype": "float64", "--kernels": "numpy", "--threads": "1", "--binarize": "dynamic",
             "--values": "counts", "--columns": "a:real", "--header": "no", "--label-column": "a", "--delimiter": ";",
             "--decimal": ",", "--test-data": "data.npz", "--test-part": "last", "--test-fraction": "0.2",
             "--resize": "8x8", "--transpose": None, "--grey": None, "--rgb": None,
             "--conditional": None, "--resume": None, "--quiet": None}


def test_no_flag_is_forgotten():
    here = {f"--{name.replace('_', '-')}" for name in train_mnist.FLAGS}
    parser = options.training_parser()
    assert {*ELSEWHERE} | here | {"-h", "--help"} == {*parser._option_string_actions}


@pytest.mark.every(3)
@pytest.mark.parametrize("flag", ELSEWHERE)
@pytest.mark.parametrize("joined", [False, True])
def test_a_flag_of_npvae_train_is_answered_with_the_command(flag, joined, first, script):
    """With all flags that were given, as a shell reads them."""
    value = ELSEWHERE[flag]
    words = [flag] if value is None else [f"{flag}={value}"] if joined else [flag, value]
    given = ["--out", "it's  a run", *words, "--latent", "5"]
    before = contents(first[0])
    done = script(*given)
    assert_refused(done, f"^train_mnist.py: {flag} is a flag of npvae train; run:  npvae train ")
    assert shlex.split(done[2].split("run:  ")[1]) == ["npvae", "train", *given]
    assert contents(first[0]) == before


@pytest.mark.parametrize("flags, says", [
    ("--nonsense", "unrecognized arguments: --nonsense .see train_mnist.py --help"), ("--hid 4", "unrecognized"),
    ("--latent 0", "--latent: must be an integer of at least 1, got '0'"), ("--lr nan", "--lr: must be a number"),
    ("--data-dir nowhere", "nowhere: there is no such file or folder"), ("--out data.npz", "cannot be written"),
    ("--data-dir .", "--out run lies in --data-dir ., among the pictures"),
    ("--data-dir wide.npy", r"^train_mnist.py: wide.npy: the training images must lie in \[0, 1\] for")])
def test_bad_input_is_refused_in_one_line(flags, says, first, script):
    """--overwrite, so that the run in the folder would be lost if the flags were looked at too late."""
    before = contents(first[0])
    assert_refused(script(*TINY, "--out", "run", "--overwrite", *flags.split()), says)
    assert contents(first[0]) == before


def test_a_folder_that_holds_a_run_is_left_alone(first, script):
    before = contents(first[0])
    assert_refused(script(*TINY, "--out", "run"), "--out run already holds a run: .*--overwrite")
    assert contents(first[0]) == before


def test_a_folder_that_another_process_has_is_refused(script, tmp_path):
    with claimed(tmp_path / "new"):
        assert_refused(script(*TINY, "--out", tmp_path / "new"), "--out .*new is in use by another run")
        assert not list((tmp_path / "new").iterdir())


def test_nan_ends_with_one_line_and_1(script, tmp_path):
    code, out, error = script(*TINY, "--lr", 1e30, "--out", tmp_path / "run")
    assert code == 1 and not out
    assert re.fullmatch("read 150 images.*\n"
                        "train_mnist.py: step [1-7]: the loss is .*; a smaller --lr may help\n", error), error
    assert not (tmp_path / "run" / "checkpoint.npz").exists()


# ---- Ctrl-C

def test_ctrl_c_within_an_epoch_keeps_what_was_learned(script, tmp_path, monkeypatch, without_pictures):
    """In the third step of the second epoch; the first has four.  And on by the printed command."""
    steps, compute = [], VAE.loss_and_gradients

    def stopping(vae, *args):
        steps.append(vae.parameters.flat.copy())
        if len(steps) == 7:
            raise KeyboardInterrupt
        return compute(vae, *args)

    with monkeypatch.context() as patch:
        patch.setattr(VAE, "loss_and_gradients", stopping)
        code, out, error = script(*TINY, "--out", tmp_path / "run")
    assert code == 130 and not out
    assert error.splitlines()[-1].startswith("train_mnist.py: stopped; continue with:  ")
    arrays, manifest = checkpoint.read(tmp_path / "run" / "checkpoint.npz")
    assert np.array_equal(arrays["parameters"], steps[-1])
    assert manifest["training"]["epoch"] == len(history(tmp_path / "run")) == 1 and manifest["training"]["t"] == 6
    assert runs.open_run(tmp_path / "run").epochs == 1
    python, *command = shlex.split(error.splitlines()[-1].split("continue with:  ")[1])
    assert os.path.samefile(shutil.which(python), sys.executable) and command[:3] == ["-m", "npvae", "train"]
    program.main(command[2:])
    assert len(history(tmp_path / "run")) == 2


def test_ctrl_c_while_it_is_imported(tmp_path):
    """The first thing that takes long is NumPy."""
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "numpy.py").write_text("import signal, time; signal.raise_signal(signal.SIGINT); time.sleep(60)")
    done = subprocess.run([sys.executable, SCRIPT.name], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nnpvae: stopped\n")
