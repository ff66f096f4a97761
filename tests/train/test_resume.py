"""A run that was stopped anywhere, by Ctrl-C or kill -9, and resumed ends bit for bit where it would have ended."""
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from npvae import (
    ELBO, IWAE, VAE, Adam, Callback, Checkpoint, CheckpointError, CosineLR, CyclicalAnnealing, FreeBits,
    LinearAnnealing, MetricsLog, fit)
from npvae import checkpoint
from npvae.cli import command_line
from npvae.cli.program import main
from npvae.train import loop
from tiny_runs import PROGRAM, without_pictures

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(21)
X, X_TEST = RNG.integers(0, 256, (11, 6), dtype=np.uint8), RNG.integers(0, 256, (5, 6), dtype=np.uint8)
TIMING = ("seconds", "images_per_second")
OBJECTIVES = {
    "elbo": (ELBO(), 1), "elbo, 3 draws": (ELBO(), 3), "elbo, sampled": (ELBO(0.5, sampled=True), 2),
    "free bits": (FreeBits(0.3), 1), "iwae": (IWAE(), 5), "linear annealing": (ELBO(LinearAnnealing(9)), 1),
    "cyclical annealing": (IWAE(CyclicalAnnealing(12, 3)), 2)}


def without_timing(history):
    return [{name: value for name, value in metrics.items() if name not in TIMING} for metrics in history]


class StopAt(Callback):
    """What Ctrl-C does: a real SIGINT, during step number `step`."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Leg:
    """One call of fit with a model and an optimizer of its own; its state afterwards."""

    def __init__(self, path, seed, call, model, stop=None, resume=None):
        self.vae, self.optimizer = VAE(6, (4,), 2, seed=seed, **model), Adam(CosineLR(0.1, 20), max_norm=1.0)
        callbacks = [Checkpoint(path), *([] if stop is None else [StopAt(stop)])]
        self.history = None
        try:
            self.history = fit(self.vae, X, X_TEST, **call, optimizer=self.optimizer, callbacks=callbacks,
                               resume=resume)
        except KeyboardInterrupt:
            pass

    def bits(self):
        return [block.flat.tobytes() for block in (self.vae.parameters, self.optimizer.m, self.optimizer.v)]


# ---- In one process

@pytest.mark.parametrize("objective", OBJECTIVES)
@settings(max_examples=3)
@given(binarize=st.sampled_from(["none", "threshold", "static", "dynamic"]), batch_size=st.sampled_from([2, 3, 4, 11]),
       kernels=st.sampled_from(["numpy", "numba"]), dtype=st.sampled_from(["float32", "float64"]), data=st.data())
def test_stopped_and_resumed_is_straight(tmp_path_factory, objective, binarize, batch_size, kernels, dtype, data):
    folder, (objective, draws) = tmp_path_factory.mktemp("runs"), OBJECTIVES[objective]
    model = {"kernels": kernels, "dtype": dtype}
    call = {"epochs": 3, "batch_size": batch_size, "objective": objective, "n_samples": draws, "binarize": binarize,
            "seed": data.draw(st.integers(0, 5), label="seed")}
    straight = Leg(folder / "straight.npz", 0, call, model)
    steps = 3 * -(-11 // batch_size)
    stops = data.draw(st.lists(st.integers(1, steps), min_size=1, max_size=3, unique=True).map(sorted), label="stops")
    path, resume = folder / "stopped.npz", None
    for seed, stop in enumerate(stops):
        leg, resume = Leg(path, seed, call, model, stop, resume), path
        assert leg.history is None and leg.optimizer.t == stop
    last = Leg(path, 99, call, model, resume=path)      # another seed: all of the start comes from the file
    assert last.bits() == straight.bits() and last.optimizer.t == straight.optimizer.t == steps
    assert without_timing(last.history) == without_timing(straight.history)


def test_more_epochs_are_a_longer_run(tmp_path):
    """With nothing that depends on the length: 2 epochs and 2 more are 4 epochs."""
    call = {"batch_size": 4, "binarize": "dynamic"}
    straight = Leg(tmp_path / "a.npz", 0, {**call, "epochs": 4}, {})
    Leg(tmp_path / "b.npz", 0, {**call, "epochs": 2}, {})
    longer = Leg(tmp_path / "b.npz", 7, {**call, "epochs": 4}, {}, resume=tmp_path / "b.npz")
    assert longer.bits() == straight.bits()
    assert without_timing(longer.history) == without_timing(straight.history)


@pytest.mark.parametrize("stops", [[1], [2], [4], [3, 5]])
def test_the_seconds_of_an_epoch_are_those_of_all_its_parts(tmp_path, monkeypatch, stops):
    """By a clock that ticks once in each step; three steps an epoch."""
    ticks, step = [], loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda run, index: (ticks.append(1), step(run, index)))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(len(ticks)))
    path, call, resume = tmp_path / "a.npz", {"batch_size": 4, "epochs": 2}, None
    for stop in stops:
        Leg(path, 0, call, {"kernels": "numpy"}, stop, resume)
        resume = path
    history = Leg(path, 0, call, {"kernels": "numpy"}, resume=resume).history
    assert [(row["seconds"], row["images_per_second"]) for row in history] == [(3, 11 / 3)] * 2


def test_a_finished_run_stays_as_it_is(tmp_path):
    call = {"batch_size": 4, "epochs": 2}
    done = Leg(tmp_path / "a.npz", 0, call, {})
    content = (tmp_path / "a.npz").read_bytes()
    again = Leg(tmp_path / "a.npz", 7, call, {}, resume=tmp_path / "a.npz")
    assert again.bits() == done.bits() and again.history == done.history
    assert (tmp_path / "a.npz").read_bytes() == content


def test_a_resumed_run_keeps_its_order(tmp_path):
    """As they stand, or shuffled; older checkpoints do not say which, and were shuffled."""
    path, call = tmp_path / "a.npz", {"batch_size": 4, "epochs": 2}
    Leg(path, 0, {**call, "epochs": 1, "shuffle": False}, {})
    with pytest.raises(CheckpointError, match="shuffle is True here and False there"):
        Leg(path, 0, call, {}, resume=path)
    straight = Leg(tmp_path / "b.npz", 0, call, {})
    Leg(path, 0, {**call, "epochs": 1}, {})
    arrays, manifest = checkpoint.read(path)
    del manifest["settings"]["shuffle"]
    checkpoint.write(path, arrays, manifest)
    assert Leg(path, 0, call, {}, resume=path).bits() == straight.bits()


def test_the_noise_state_matters(tmp_path):
    """The comparison sees it when the stream of eps starts anew in the middle of an epoch."""
    call = {"batch_size": 4, "epochs": 2}
    straight = Leg(tmp_path / "a.npz", 0, call, {})
    Leg(tmp_path / "b.npz", 0, call, {}, stop=2)
    arrays, manifest = checkpoint.read(tmp_path / "b.npz")
    manifest["training"]["noise"] = np.random.default_rng(0).bit_generator.state
    checkpoint.write(tmp_path / "b.npz", arrays, manifest)
    assert Leg(tmp_path / "b.npz", 0, call, {}, resume=tmp_path / "b.npz").bits() != straight.bits()


def test_ctrl_c_ends_the_step_and_saves_in_the_middle(tmp_path):
    path, events = tmp_path / "c.npz", []
    before = signal.getsignal(signal.SIGINT)

    class Watch(Callback):
        def on_interrupt(self, run):
            events.append(("interrupt", run.step))

        def on_end(self, run):
            events.append(("end", run.step))

    with pytest.raises(KeyboardInterrupt):
        fit(VAE(6, (4,), 2, kernels="numpy"), X, X_TEST, 3, 4, callbacks=[Checkpoint(path), StopAt(5), Watch()])
    state = checkpoint.read(path)[1]["training"]
    assert (state["epoch"], state["batch"], state["t"]) == (1, 2, 5)
    assert events == [("interrupt", 5), ("end", 5)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    class Twice(Callback):
        def on_step(self, run):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second signal was swallowed")

    with pytest.raises(KeyboardInterrupt):
        fit(VAE(6, (4,), 2, kernels="numpy"), X, X_TEST, 3, 4, callbacks=[Checkpoint(tmp_path / "c"), Twice()])
    assert not list(tmp_path.iterdir())


def test_damage_is_refused_before_anything_is_changed(tmp_path):
    path, metrics = tmp_path / "c.npz", tmp_path / "metrics.jsonl"
    leg = Leg(path, 0, {"batch_size": 4, "epochs": 1}, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    bits = leg.bits()
    with pytest.raises(CheckpointError, match="damaged"):
        fit(leg.vae, X, X_TEST, 2, 4, leg.optimizer, resume=path, callbacks=[Checkpoint(path), MetricsLog(metrics)])
    assert leg.bits() == bits and path.read_bytes() == content and not metrics.exists()


# ---- The program, killed and interrupted from outside

FLAGS = "--hidden 6 --latent 3 --batch-size 2 --epochs 4 --binarize dynamic --lr-schedule cosine".split()


def program(folder, *flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, "train", "--out", folder.name, *flags], text=True,
                            cwd=folder.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def here(folder, *flags):
    """The program within this process, quietly: its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        without_pictures(patch)
        return command_line.exit_code(lambda: main(["train", "--out", folder.name, *flags, "--quiet"]))


def finish(process, code=0):
    out, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    return out, error


def wait_for_epochs(folder, process, epochs):
    """Return in the middle of the epoch after so many."""
    metrics, until = folder / "metrics.jsonl", time.monotonic() + 300
    while not metrics.exists() or len(metrics.read_text().splitlines()) < epochs:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.002)


def result(folder):
    """What must be equal bit for bit, and the metrics."""
    arrays, manifest = checkpoint.read(folder / "checkpoint.npz")
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert history == manifest["training"]["history"]
    return {name: array.tobytes() for name, array in arrays.items()}, without_timing(history)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder with the data and a run of four epochs in it."""
    folder = tmp_path_factory.mktemp("program")
    grey = np.random.default_rng(2).integers(0, 256, (2050, 16), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:2000], test=grey[2000:])
    assert here(folder / "straight", *FLAGS, "--data-dir", "data.npz") == 0
    return folder


@pytest.mark.slow
def test_kill_9_in_the_third_epoch(straight):
    killed = straight / "killed"
    process = program(killed, *FLAGS, "--data-dir", "data.npz")
    wait_for_epochs(killed, process, 2)
    process.kill()
    finish(process, -signal.SIGKILL)
    assert len((killed / "metrics.jsonl").read_text().splitlines()) in (2, 3)      # 3 on a machine that stood still
    _, error = finish(program(killed, "--resume"))
    assert re.match(r"epoch +[34]/4", error)      # it went on, and did not start anew
    assert result(killed) == result(straight / "straight")
    assert not [entry for entry in killed.iterdir() if entry.name.endswith(".tmp")]


def test_ctrl_c_prints_the_command_that_resumes(straight):
    stopped = straight / "stop it"      # a name that must be quoted
    process = program(stopped, *FLAGS, "--data-dir", "data.npz")
    wait_for_epochs(stopped, process, 1)
    process.send_signal(signal.SIGINT)
    out, error = finish(process, 130)
    assert "Traceback" not in error and not out
    command = shlex.split(re.search(r"continue with:  (.*)$", error.strip()).group(1))
    assert checkpoint.read(stopped / "checkpoint.npz")[1]["training"]["epoch"] in (1, 2, 3)
    assert command[:4] == ["npvae", "train", "--out", "stop it"] and command[-1] == "--resume"
    assert here(stopped, *command[4:]) == 0
    assert result(stopped) == result(straight / "straight")
