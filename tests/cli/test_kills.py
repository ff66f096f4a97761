"""Killed at any moment, in any family, by any signal: no file is torn, and --resume ends bit for bit where the run
would have ended.

    pytest -m slow tests/cli/test_kills.py --size 200
"""
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npvae import checkpoint
from tiny_runs import PROGRAM

ROOT = Path(__file__).parents[2]
TIMING = ("seconds", "images_per_second")
#: 40 epochs of 4 steps: most of a run is the writing of checkpoints
ALWAYS = "--data-dir data.npz --hidden 6 --latent 4 --batch-size 16 --epochs 40 --threads 2".split()
#: every family of flags, and with it what else could be forgotten at a resume: schedules, binarization, labels, types
FAMILIES = [
    "", "--binarize dynamic", "--binarize static --lr-schedule cosine", "--binarize threshold --kernels numpy",
    "--dtype float64 --lr-schedule steps", "--weight-decay 0.1 --activation tanh", "--conditional --binarize dynamic",
    "--conditional --likelihood gaussian-pixel", "--likelihood gaussian", "--likelihood gaussian:0.3 --beta 2",
    "--likelihood gaussian-optimal", "--likelihood continuous-bernoulli --kl-warmup 20",
    "--likelihood discretized-logistic", "--likelihood gaussian-learned --k 2",
    "--likelihood categorical --dtype float64", "--likelihood beta-binomial --kernels numpy",
    "--objective iwae --k 5", "--objective iwae --k 3 --gradient dreg --binarize dynamic", "--gradient stl --k 2",
    "--free-bits 0.2", "--cyclical 3", "--cyclical 2 --objective iwae --k 2", "--prior mixture:5",
    "--prior vamp:7 --binarize dynamic", "--prior hierarchical:5,3", "--posterior planar:3",
    "--posterior iaf:2:5 --lr-schedule cosine", "--posterior iaf:2 --prior mixture:3 --k 2",
    "--decoder made:6 --binarize dynamic", "--decoder made:5+direct --binarize threshold --kernels numpy",
    "--conditional --prior mixture:4 --posterior planar:2 --objective iwae --k 2"]
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)

pytestmark = pytest.mark.slow


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", range(metafunc.config.getoption("--size") or 20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    grey = np.random.default_rng(5).integers(0, 256, (80, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:60], test=grey[60:], train_labels=np.arange(60) % 3,
             test_labels=np.arange(20) % 3)
    return folder


def start(folder, *flags, pictures=False):
    program = ["-m", "npvae"] if pictures else ["-c", PROGRAM]
    return subprocess.Popen([sys.executable, *program, "train", *flags], cwd=folder, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process, *codes):
    error = process.communicate(timeout=600)[1]
    assert process.returncode in codes, (process.returncode, error)
    return error


@cache
def straight(folder, family):
    """What an uninterrupted run of the family ends in, and its seconds."""
    out, began = folder / f"straight {family}", time.monotonic()
    finish(start(folder, *ALWAYS, *family.split(), "--out", str(out)), 0)
    return result(out), time.monotonic() - began


def result(out):
    """What must be equal bit for bit: parameters, moments, and all numbers but times."""
    arrays, manifest = checkpoint.read(out / "checkpoint.npz")
    history = manifest["training"]["history"]
    assert metrics(out) == history
    numbers = [{name: value for name, value in epoch.items() if name not in TIMING} for epoch in history]
    return {name: array.tobytes() for name, array in arrays.items()}, numbers


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def check_files(out):
    """Each file is whole, and no two contradict each other."""
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if "config.json" not in names:
        assert not names - {name for name in names if is_temporary(name)}
        return
    json.loads((out / "config.json").read_text())
    done = 0
    if "checkpoint.npz" in names:
        done = len(checkpoint.read(out / "checkpoint.npz")[1]["training"]["history"])
    if "metrics.jsonl" in names:
        assert len(metrics(out)) in (done, done - 1)
    for name in names:
        if name.endswith(".png"):
            Image.open(out / name).load()
        if name == "report.html":
            assert (out / name).read_text().rstrip().endswith("</html>")


def is_temporary(name):
    return name.startswith(".npvae-") and name.endswith(".tmp")


def kill(process, out, rng, seconds):
    """Send a signal at a random moment: of the whole run, or while a file is being written."""
    time.sleep(rng.uniform(0, 0.95) * seconds)
    if rng.random() < 0.6:
        until = time.monotonic() + 0.2 * seconds
        while process.poll() is None and time.monotonic() < until:
            if out.exists() and any(map(is_temporary, os.listdir(out))):
                break
    process.send_signal(number := SIGNALS[rng.integers(len(SIGNALS))])
    error = finish(process, 0, -number, 130)
    began = "/npvae/" in error      # before, it is Python that starts, and Python that is interrupted
    assert not began or ("Traceback" not in error and "Exception ignored" not in error), error


def test_killed_and_resumed_is_straight(case, folder):
    rng, family = np.random.default_rng([15, case]), FAMILIES[case % len(FAMILIES)]
    expected, seconds = straight(folder, family)
    out, flags, pictures = folder / f"killed {case}", [*ALWAYS, *family.split()], case % 5 == 4
    for _ in range(2 if case % 4 == 3 else 1):
        again = ["--resume"] if (out / "config.json").exists() else flags
        kill(start(folder, *again, "--out", str(out), pictures=pictures), out, rng, (1 + pictures) * seconds)
        check_files(out)
    again = ["--resume"] if (out / "config.json").exists() else flags
    finish(start(folder, *again, "--out", str(out), pictures=pictures), 0)
    check_files(out)
    assert result(out) == expected
    assert not list(filter(is_temporary, os.listdir(out)))
