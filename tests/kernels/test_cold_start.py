"""The very first run: a second process compiles what a step needs last, and nothing depends on it."""
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import npvae
from npvae import VAE
from npvae.engine import executor
from npvae.kernels import fused
from npvae.engine import team
from npvae.kernels.fused import compile as compiling
from workers import wait_until

BACKWARD = ("softplus_backward", "gaussian_pixel_nll_backward", "reparameterize_backward", "gaussian_kl_backward",
            "identity_backward", "sum_squares", "adam_update")


def compiled(name):
    return {str(types[0]) for types in getattr(fused, name).native.signatures}


def test_it_compiles_the_backward_pass_and_the_update():
    """In a process of its own: here other tests have compiled them."""
    code = ("import npvae, sys; from test_cold_start import BACKWARD, compiled\n"
            "vae = npvae.VAE(6, (5,), 2, 'softplus', 'gaussian-pixel', 'float64')\n"
            "assert not any(map(compiled, BACKWARD))\n"
            "npvae.engine.executor.compile_backward(vae)\n"
            "assert all(len(compiled(name)) == 1 and 'float64' in compiled(name).pop() for name in BACKWARD)\n"
            "assert not compiled('softplus_forward')\n")
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         env={"PYTHONPATH": f"{root}:{root / 'tests/support'}:{Path(__file__).parent}", "PATH": ""})
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("prior", ["normal", "mixture:3"])
def test_it_compiles_what_a_step_runs(prior, monkeypatch):
    """The same kernels for the same types as the backward pass and the update of 130 images, and no others."""
    vae, seen = VAE(70, (64,), 3, prior=prior), []

    class Order:
        def __init__(self, phases, threads):
            assert threads == 2
            seen.append({(call[0].__name__, *map(numba.typeof, call[1]))
                         for tasks in phases for calls in tasks for call in calls})

        def set_scalars(self, values):
            pass

    monkeypatch.setattr(team, "ParallelProgram", Order)
    monkeypatch.setattr(executor.ThreadedExecutor, "run", lambda self, order: None)
    executor.compile_backward(vae)
    engine, (a, d), flat = executor.ThreadedExecutor(vae, 2), vae.passes(130, 1), vae.parameters.flat
    engine.backward(d, a, vae.estimators[0])
    engine.kernels.adam_update(*(np.zeros_like(flat) for _ in range(4)), 0.1, 0.9, 0.99, 1e-8, 1.0, 1)
    compiled, run = seen[:2], seen[2:]
    assert compiled == run and {name for name, *_ in run[1]} == {"adam_update"}
    assert {"matmul", "sum_squares", "relu_backward", "reparameterize_backward"} <= {name for name, *_ in run[0]}


@pytest.fixture
def started(monkeypatch):
    """What would have been started as other processes; and of each thread that waits for one, is it a daemon?"""
    commands, daemons = [], queue.SimpleQueue()

    class Popen:
        def __init__(self, command, **options):
            commands.append(command)

        def wait(self):
            daemons.put(threading.current_thread().daemon)
            return 0

    monkeypatch.setattr(subprocess, "Popen", Popen)
    return SimpleNamespace(commands=commands, daemons=daemons)


@pytest.mark.parametrize("cold, threads, processes", [(True, 2, 1), (True, 1, 0), (False, 2, 0)])
def test_only_where_there_is_a_core_for_it_and_nothing_on_disk(cold, threads, processes, started, monkeypatch):
    monkeypatch.setattr(compiling, "is_cold", lambda: cold)
    vae = VAE(6, (5,), 2, dtype="float64")
    vae.threads = threads
    assert isinstance(vae.engine, executor.ThreadedExecutor) and isinstance(vae.engine, executor.ThreadedExecutor)
    assert len(started.commands) == processes


def test_its_program_builds_the_same_model(started):
    vae = VAE(6, (5, 4), 2, "tanh", "gaussian:0.3", "float64", decoder_hidden=(3,))
    executor._compile_in_background(vae)
    assert started.daemons.get(timeout=300)      # the program may end before it
    *_, last = started.commands[0][-1].splitlines()      # those before load npvae
    names = {"npvae": npvae}
    exec(last.replace("npvae.engine.executor.compile_backward(", "vae = ("), names)
    assert names["vae"].config() == vae.config()


HOSTILE = """
import pathlib, sys
pathlib.Path("ran").touch()
sys.exit("code of the current folder was run")
"""


def test_nothing_is_imported_from_the_current_folder(tmp_path):
    """In a folder with files of many names, which sys.path and PYTHONPATH name in several ways."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in ("numba", "llvmlite", "threadpoolctl", "sitecustomize", "usercustomize", "importlib", "json", "pickle",
                 "numpy", "npvae"):
        (folder / f"{name}.py").write_text(HOSTILE)
    root = Path(__file__).parents[2]
    code = f"""
import os, sys
from npvae.engine import child
sys.path[:0] = ["", ".", {str(folder)!r}, {str(folder / '..' / 'downloads')!r}]
os.environ["PYTHONPATH"] = os.pathsep.join(["", ".", {str(folder)!r}])
os.chdir({str(folder)!r})
sys.exit(child.start("import json, pickle, threadpoolctl; open({str(tmp_path / 'done')!r}, 'w')").wait())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                         env={"PYTHONPATH": str(root), "PATH": ""})
    assert (run.returncode, run.stderr) == (0, "")
    assert not (folder / "ran").exists()
    assert (tmp_path / "done").exists()


def test_nothing_depends_on_it(monkeypatch):
    def popen(*command, **options):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(compiling, "is_cold", lambda: True)
    vae = VAE(6, (5,), 2, dtype="float64")
    vae.threads = 2
    loss, gradients = vae.loss_and_gradients(np.full((4, 6), 0.5), np.ones((4, 1, 2)))
    assert np.isfinite(loss) and gradients.norm() > 0


def test_cold_is_an_empty_cache_that_can_be_filled(tmp_path, monkeypatch):
    folders = [tmp_path / "a" / "b", tmp_path / "c"]
    monkeypatch.setattr(compiling, "_folders", lambda: folders)
    assert compiling.is_cold()
    folders[1].mkdir()
    assert compiling.is_cold()
    (folders[1] / "kernel").touch()
    assert not compiling.is_cold()
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiling.os, "access", lambda path, mode: False)
    folders[:] = [tmp_path / "d"]
    assert not compiling.is_cold()
    folders.clear()
    assert not compiling.is_cold()


@pytest.mark.slow
def test_a_first_run_starts_it_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """The real thing, with an empty cache: the kernels of the backward pass arrive there."""
    code = ("import numpy as np, npvae\n"
            "vae = npvae.VAE(6, (5,), 2)\nvae.threads = 2\nvae.engine\n")
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True,
                         env={"PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""})
    assert (run.returncode, run.stderr) == (0, "")
    wait_until(lambda: any(path.name.startswith("adam_update") for path in tmp_path.rglob("*")))
