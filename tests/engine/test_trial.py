"""What Numba and llvmlite do not document may change: kernels are then called one by one, or NumPy's take over."""
import json
import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from npvae import VAE
from npvae.engine import executor
from npvae.kernels import fused, reference
from npvae.engine import child, recording, trial
from npvae.kernels.fused import compile as compiling
from private_names import PLACES


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs a fork that is safe")
@pytest.mark.parametrize("places", [
    [PLACES[i] for i in (0, 1, 3)], pytest.param(PLACES, marks=pytest.mark.slow, id="all")])
def test_a_private_name_that_is_missing_or_changed(places):
    """The model trains, right, with one warning at most."""
    run = subprocess.run([sys.executable, Path(__file__).parents[1] / "support" / "private_names.py", *places],
                         capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == 3 * len(places)
    for place, way, how, messages, number in found:
        assert number == len(messages) == (how != "ThreadedExecutor"), (place, way, how, messages)
    assert {how for _, _, how, *_ in found} == {"ThreadedExecutor", "DirectExecutor", "NumPy"}


def test_machine_code_that_cannot_be_kept(told, tmp_path, monkeypatch):
    """Each new process compiles, and says so."""
    from numba.core.compiler import CompileResult

    def double(out, x):
        out[0] = x[0] + x[0]

    monkeypatch.setattr(compiling, "_folders", lambda: [tmp_path])
    monkeypatch.delattr(CompileResult, "_reduce")
    out = np.zeros(1)
    compiling.jit(double)(out, np.ones(1))
    assert out == 2 and not any(tmp_path.iterdir())
    assert told[0].startswith("compiled kernels cannot be kept: each start compiles them (AttributeError: ")


def test_it_works_here_and_says_nothing():
    anew = trial.can_replay.__wrapped__
    assert all(anew(dtype, shared) for dtype in ("float32", "float64") for shared in (True, False))
    assert not anew("complex128")


@pytest.fixture
def told(monkeypatch):
    messages = []
    monkeypatch.setattr(compiling, "warn_once", messages.append)
    return messages


def test_where_nothing_is_expected_nothing_is_told(told, monkeypatch):
    monkeypatch.setattr(recording, "product_address", lambda kind: 0)
    assert not trial.can_replay.__wrapped__("float32")
    monkeypatch.undo()
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert not trial.can_replay.__wrapped__("float32") and not told


@pytest.mark.parametrize("fields, convention", [
    (("meminfo", "parent", "itemsize", "nitems", "data", "shape", "strides"), None), (None, "another")])
def test_another_layout_is_seen_before_anything_is_called(fields, convention, told, monkeypatch):
    from numba.core import datamodel
    from numba.core.callconv import CPUCallConv
    monkeypatch.setattr(trial, "replays", lambda dtype, shared: pytest.fail("called"))
    if fields:
        manager = types.SimpleNamespace(lookup=lambda array: types.SimpleNamespace(_fields=fields))
        monkeypatch.setattr(datamodel, "default_manager", manager)
    else:
        real = CPUCallConv.get_function_type
        monkeypatch.setattr(CPUCallConv, "get_function_type",
                            lambda self, returned, given: real(self, returned, given[::-1]))
    assert not trial.can_replay.__wrapped__("float64") and len(told) == 1


def test_a_program_that_computes_something_else_is_not_used(told, monkeypatch):
    monkeypatch.setattr(recording, "replay", lambda table, calls: None)
    assert not trial.can_replay.__wrapped__("float32") and not trial.can_replay.__wrapped__("float64")
    assert len(told) == 2


@pytest.mark.every(4)
@pytest.mark.parametrize("code, kept, works", [
    ("", b"works", True), ("import ctypes; ctypes.string_at(0)", b"fails", False), ("sys.exit(3)", b"fails", False),
    ("raise ImportError", None, False), ("import os; os.kill(os.getpid(), 9)", None, False)])
def test_unknown_versions_are_tried_in_another_process_once(code, kept, works, tmp_path, monkeypatch):
    """A crash there is none here; what says nothing is not kept."""
    started, start = [], child.start
    monkeypatch.setattr(compiling, "_folders", lambda: [tmp_path / "cache"])
    monkeypatch.setattr(trial, "TESTED", ())
    monkeypatch.setattr(child, "start", lambda real: started.append(real) or start(code))
    for _ in range(2):
        assert trial._is_trusted() == works
    assert len(started) == (1 if kept else 2)
    assert [compiling._read(file) for file in (tmp_path / "cache").glob("*")] == ([kept] if kept else [])
    monkeypatch.setattr(np, "__version__", "99")
    trial._is_trusted()
    assert len(started) == (2 if kept else 3)


@pytest.mark.slow
def test_the_real_trial_in_another_process():
    assert trial._try_elsewhere() == 0


def test_a_process_that_cannot_be_started_is_no_answer(told, tmp_path, monkeypatch):
    def start(code):
        raise OSError("no more processes")

    monkeypatch.setattr(compiling, "_folders", lambda: [tmp_path])
    monkeypatch.setattr(trial, "TESTED", ())
    monkeypatch.setattr(child, "start", start)
    assert not trial.can_replay.__wrapped__("float32") and len(told) == 1 and not any(tmp_path.iterdir())


COMPILES_NOTHING = """
from numba.core import compiler
del compiler.compile_extra
import numpy as np, npvae

class OwnLikelihood(type(npvae.likelihoods.find("bernoulli"))):
    pass

x, z, eps = np.full((3, 6), 0.5), np.ones((3, 2)), np.ones((3, 1, 4))
rng = lambda: np.random.default_rng(0)
calls = {
    "encode": lambda vae: vae.encode(x), "decode": lambda vae: vae.decode(z),
    "sample": lambda vae: vae.sample(3, rng()),
    "reconstruct": lambda vae: vae.reconstruct(x, rng()), "elbo": lambda vae: vae.elbo(x, rng()),
    "log_likelihood": lambda vae: vae.log_likelihood(x, rng(), 5),
    "loss": lambda vae: vae.loss_and_gradients(x, eps[..., :vae.noise_dim], npvae.ELBO(sampled=True))[0]}
models = {
    "plain": lambda kernels: npvae.VAE(6, (), 2, kernels=kernels),
    "own": lambda kernels: npvae.VAE(6, (), 2, kernels=kernels, likelihood=OwnLikelihood()),
    "two layers": lambda kernels: npvae.hierarchical_vae(6, ((3,), (2,)), (2, 2), kernels=kernels)}
for model in models.values():
    for name, call in calls.items():
        found, right = model("numba"), model("numpy")
        found.threads = right.threads = 1      # a second thread would have another process compile
        assert np.array_equal(call(found), call(right)), name
print("works")
"""


def test_whatever_is_called_first_of_a_numba_that_compiles_nothing(tmp_path):
    run = subprocess.run([sys.executable, "-W", "always", "-c", COMPILES_NOTHING], capture_output=True, text=True,
                         env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert (run.returncode, run.stdout) == (0, "works\n"), run.stderr
    assert run.stderr.count("RuntimeWarning") == 1


@pytest.mark.parametrize("replays, calls, way", [
    (True, True, executor.ThreadedExecutor), (False, True, executor.DirectExecutor),
    (False, False, executor.DirectExecutor)])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_best_way_that_works_is_taken(replays, calls, way, threads, monkeypatch):
    """Replayed, called one by one, or NumPy's kernels; those are not asked about."""
    asked = []
    monkeypatch.setattr(compiling, "is_cold", lambda: False)
    monkeypatch.setattr(trial, "can_replay", lambda *arguments: asked.append(arguments) or replays)
    monkeypatch.setattr(trial, "can_call", lambda *arguments: asked.append(arguments) or calls)
    vae, other = (VAE(6, (), 2, dtype="float64", kernels=kernels) for kernels in ("numba", "numpy"))
    asked.clear()
    assert type(executor.make_executor(vae, threads)) is way
    assert type(executor.make_executor(other, threads)) is executor.DirectExecutor
    assert asked == [(vae.dtype, threads > 1), *[(vae.dtype,)] * (not replays)]
    assert vae.kernels is (fused if replays or calls else reference)
