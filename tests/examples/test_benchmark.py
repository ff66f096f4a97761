"""The benchmark, examples/benchmark.py: its arithmetic, that all contenders do the same work, that it notices when they
do not, and small real runs through the processes it starts.  Nothing here asserts a time.
"""
import functools
import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import VAE, Adam, fit
from npvae.cli import command_line
from npvae.train import rows

import benchmark
import contender_gradients
from contender_gradients import BOTH, DRAWN, MADE, SMALL, WORKS
from contenders import machine, npvae_, parts, pool, summary, works
from benchmark_images import images

ROOT = Path(__file__).parents[2]


def needs(library):
    """Skip where it is missing.  It is not imported: that would change the process for other tests."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.fixture
def settings(tmp_path):
    """A small data set, one thread, two rounds; `said` is what was printed."""
    np.save(tmp_path / "train.npy", works.synthetic(200))
    np.save(tmp_path / "test.npy", works.synthetic(40))
    environment, _ = pool.environment(False, None)
    said = []
    made = pool.Settings(tmp_path, environment, threads=1, rounds=2, images=50, works=tuple(works.WORKS)[:2],
                         contenders=("npvae", "floor"), seed=4, pause=0, quick=True, say=said.append)
    return SimpleNamespace(made=made, said=said)


# --- arithmetic ---

def test_ratios():
    """A round that is ten times slower for both changes a ratio of medians, and no median of ratios."""
    theirs, ours = [2.0, 4.0, 60.0], [1.0, 4.0, 20.0]
    assert summary.ratio_of_medians(theirs, ours) == 1 and summary.median_of_ratios(theirs, ours) == 2
    assert summary.geometric_mean([2, 8]) == pytest.approx(4) and summary.geometric_mean([3, 1 / 3]) == pytest.approx(1)


def test_summary_of_turns():
    turns = {"npvae": [{"seconds": 1.0, "cpu": 2.0, "loss": 9.0}, {"seconds": 3.0, "cpu": 3.0, "loss": 8.0}],
             "other": [{"seconds": 5.0, "cpu": None}, {"seconds": 3.0, "cpu": None}]}
    rows = summary.summarize(turns, steps=4)
    assert rows["npvae"] == {"median": 2, "least": 1, "most": 3, "us_per_step": 5e5, "cores": 1.5, "loss": 8.0,
                             "ratio_of_medians": 1, "median_of_ratios": 1}
    assert rows["other"] == {"median": 4, "least": 3, "most": 5, "us_per_step": 1e6, "ratio_of_medians": 2,
                             "median_of_ratios": 3}
    twice = summary.over_works({"a": rows, "b": {"npvae": rows["npvae"]}})
    assert twice == {"npvae": {"ratio_of_medians": 1, "median_of_ratios": 1}}      # the other did not do them all


def test_losses_that_disagree_are_noticed():
    assert summary.disagreements({"a": 100.0, "b": 101.0, "c": 99.0}, 0.015) == []
    assert [text.split()[0] for text in summary.disagreements({"a": 100.0, "b": 101.0, "c": 98.0}, 0.015)] == ["c"]
    assert [text.split()[0] for text in summary.disagreements({"a": 100.0, "b": math.nan, "c": 100.5}, 0.015)] == ["b"]
    problems = parts._problems("work", {"a": {"loss": 1.0}, "b": {"loss": 1.0}, "c": {"loss": 2.0}, "floor": {}},
                               {"d": "absent: x", "e": "FAILED: y"}, {"a": 0.5, "b": 0.01}, 0.015)
    assert [problem.split()[0] for problem in problems] == ["LOSSES", "e", "NOT"]


def test_likelihoods_that_disagree_are_noticed():
    rng = np.random.default_rng(0)
    ours = rng.normal(-90, 10, 200)
    noisy = ours + rng.normal(0, 0.5, 200)
    assert summary.different_means({"npvae": ours, "other": noisy}) == []
    assert "nats off" in summary.different_means({"npvae": ours, "other": noisy + 0.3})[0]
    assert summary.different_means({"npvae": ours, "other": ours + math.nan})


def test_table_and_json():
    assert summary.table(("a", "b"), [("x", 1234.5), ("long", None)]) == (
        "a         b\n-----------\nx     1,234\nlong      -")
    assert summary.plain({"a": [1.0, math.inf, (math.nan,)]}) == {"a": [1.0, None, [None]]}


# --- the same work for all ---

def test_the_six_works():
    assert len(works.WORKS) == 6 and all(name == work.name for name, work in works.ALL.items())
    for work in works.WORKS.values():
        shapes = VAE(784, work.hidden, work.latent, work.activation).parameters.shapes
        assert all(shapes[f"{layer.name}.W"] == (layer.n_in, layer.n_out) for layer in work.layers())
        assert 2 * len(work.layers()) == len(shapes)


def test_masks_are_those_of_npvae():
    made, = (work for work in works.FAMILY.values() if work.units)
    for work in (made, MADE, replace(MADE, units=900), replace(MADE, input_dim=1)):
        output = VAE(work.input_dim, work.hidden, work.latent, **work.variant).output
        first, last = works.made_masks(work)
        assert np.array_equal(output.first.mask[:work.input_dim], first)
        assert np.array_equal(output.last.mask[:work.units], last)


def test_the_order_is_that_of_fit():
    for epoch in (0, 3):
        theirs = rows.stream(5, rows._SHUFFLE, epoch).permutation(50)
        assert np.array_equal(works.order(5, epoch, 50), theirs)


def test_pixels_and_jobs(settings):
    name = works.write_parameters(settings.made.folder, SMALL, 3)
    job = works.read_job(settings.made.folder, {**settings.made.request("train", SMALL), "parameters": name}, 1, "x")
    expected = VAE(784, SMALL.hidden, SMALL.latent, "tanh", seed=3).parameters
    assert job.work == SMALL and job.pixels.shape == (50, 784) and job.pixels.dtype == np.uint8
    assert all(np.array_equal(job.parameters[key], expected[key]) for key in expected)


# --- processes ---

def test_epochs_through_workers(settings):
    """What workers report is what `fit` finds in this process: the same weights, batches, noise and Adam."""
    names = ["npvae", "npvae, NumPy kernels", "floor"]
    with pool.opened(names, settings.made) as (workers, missing):
        assert list(workers) == names and not missing
        for work in (SMALL, DRAWN, BOTH):
            rounds = pool.Rounds(workers, dict.fromkeys(names, settings.made.request("train", work)), 2, settings.made)
            assert not rounds.failed and list(rounds.answers) == names and set(rounds.idle) == set(names)
            vae = VAE(784, work.hidden, work.latent, work.activation, kernels="numpy", seed=4, **work.variant)
            x = works.load_pixels(settings.made.folder / "train.npy", work)
            history = fit(vae, x, x[:20], 3, work.batch, Adam(1e-3), npvae_.objective(work), work.draws, seed=4)
            for name in names[:2]:      # the first epoch was the warm-up
                losses = [turn["loss"] for turn in rounds.answers[name]]
                assert losses == pytest.approx([metrics["train_loss"] for metrics in history[1:]], rel=1e-4)
            for turns in rounds.answers.values():
                assert all(turn["seconds"] > 0 for turn in turns)
            assert set(rounds.answers["floor"][0]["forms"]) == {"together", "lanes", "weights"}
    assert any(found["num_threads"] == 1 for found in settings.made.pools["npvae"] if found["user_api"] == "blas")


@pytest.mark.every(2)
@pytest.mark.parametrize("name, library", [("PyTorch eager", "torch"), ("JAX scan", "jax")])
def test_absent_and_failing_libraries(settings, name, library):
    """A library that cannot be imported is absent; one that breaks has failed, and the reason is its last words."""
    folder = settings.made.folder / "shadow"
    folder.mkdir()
    path = os.pathsep.join([str(folder), settings.made.environment["PYTHONPATH"]])
    made = replace(settings.made, environment={**settings.made.environment, "PYTHONPATH": path})
    for code, says in ((f"raise ImportError('no {library} here')", f"absent: no {library} here"),
                       ("raise RuntimeError('broken')", "FAILED: RuntimeError: broken")):
        (folder / f"{library}.py").write_text(code)
        with pool.opened([name, "floor"], made) as (workers, missing):
            assert list(workers) == ["floor"] and missing == {name: says}


def test_a_contender_that_dies_drops_out(settings):
    names = ["floor", "npvae"]
    with pool.opened(names, settings.made) as (workers, _):
        broken = {**settings.made.request("train", SMALL), "parameters": "none.npz"}
        requests = {"floor": settings.made.request("train", SMALL), "npvae": broken}
        rounds = pool.Rounds(workers, requests, 2, settings.made)
        assert list(workers) == ["floor"]
    assert list(rounds.answers) == ["floor"] and len(rounds.answers["floor"]) == 2
    assert "none.npz" in rounds.failed["npvae"] and rounds.failed["npvae"].startswith("FAILED: FileNotFoundError")


@pytest.mark.parametrize("name, tried", [
    ("PyTorch eager", (SMALL, DRAWN, BOTH)), ("JAX step", (DRAWN,)), ("JAX scan", (SMALL, BOTH)),
    ("PyTorch compiled", (replace(SMALL, images=40),)),      # ten seconds for each work and size of batch
    *(pytest.param(name, (SMALL, DRAWN, BOTH), marks=pytest.mark.slow) for name in ("JAX step", "PyTorch compiled"))])
def test_other_libraries_do_the_same(settings, name, tried):
    """Where they are installed: their losses and likelihoods are npvae's, as the benchmark judges it."""
    needs({"P": "torch", "J": "jax"}[name[0]])
    with pool.opened(["npvae", name], settings.made) as (workers, missing):
        assert not missing
        for work in tried:
            request = settings.made.request("train", work)
            rounds = pool.Rounds(workers, dict.fromkeys(workers, request), 2, settings.made)
            losses = {other: turns[-1]["loss"] for other, turns in rounds.answers.items()}
            assert not rounds.failed and len(losses) == 2 and not summary.disagreements(losses, 0.05)
        if BOTH in tried:
            request = {**settings.made.request("likelihood", BOTH), "options": {"samples": 200, "block": 50}}
            rounds = pool.Rounds(workers, dict.fromkeys(workers, request), 1, settings.made, warm_up=False)
            values = {other: turns[0]["values"] for other, turns in rounds.answers.items()}
            assert not rounds.failed and not summary.different_means(values) and len(values[name]) == 50


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Folder of what a library answers, and npvae's losses; each library is asked once."""
    @functools.cache
    def asked(library):
        folder, losses, rng = tmp_path_factory.mktemp(library), {}, np.random.default_rng(0)
        for name, work in WORKS.items():
            vae = VAE(work.input_dim, work.hidden, work.latent, work.activation, **work.variant)
            x = images(work, rng)
            eps = rng.standard_normal((work.batch, work.draws, work.latent), dtype=np.float32)
            losses[name], ours = vae.loss_and_gradients(x, eps, npvae_.objective(work))
            np.savez(folder / f"{name}.npz", x=x, eps=eps, **vae.parameters,
                     **{f"d {key}": value for key, value in ours.items()})
        run = subprocess.run([sys.executable, contender_gradients.__file__, library, folder], capture_output=True,
                             text=True, env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"})
        assert run.returncode == 0, run.stderr
        return folder, losses
    return asked


@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize("name", WORKS)
def test_other_libraries_have_the_same_gradients(library, name, answers):
    """At the same weights and noise."""
    needs(library)
    folder, losses = answers(library)
    with np.load(folder / f"{name}.answer.npz") as answer:
        arrays = dict(answer)
    assert arrays.pop("loss") == pytest.approx(losses[name], rel=1e-5) and len(arrays) >= 20
    for i in range(len(arrays) // 2):
        theirs, expected = arrays[f"theirs {i}"], arrays[f"ours {i}"]
        assert np.abs(theirs - expected).max() <= 1e-3 * max(np.abs(expected).max(), 1e-3)


# --- parts ---

@pytest.mark.slow
def test_parts_with_npvae_alone(settings, monkeypatch):
    """Each part runs to its table and finds nothing wrong."""
    monkeypatch.setattr(parts, "BATCHES", (20,))
    monkeypatch.setattr(parts, "WIDTHS", ())
    monkeypatch.setattr(parts, "START", ("floor",))      # npvae would compile everything
    made = replace(settings.made, rounds=1, works=tuple(works.WORKS)[:1])
    found = {part: parts.PARTS[part](made) for part in ("epochs", "start", "likelihood", "scaling")}
    assert all(not one["problems"] for one in found.values())
    assert "times its matrix products alone" in "".join(settings.said)
    assert [run["kind"] for run in found["start"]["runs"]] == ["does not count", "cold", "warm"]
    assert found["scaling"]["works"]["784-200-200-50 tanh, batch 20"]["summary"]["floor"]["ratio_of_medians"] > 0
    values = np.array(found["likelihood"]["turns"]["npvae"][0]["values"])
    assert values.shape == (20,) and np.isfinite(values).all() and (values < 0).all()
    json.dumps(found, allow_nan=False)


# --- the program ---

def test_environment(monkeypatch):
    for name in (*pool.BLAS_SETTINGS, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    plain, removed = pool.environment(False, None)
    assert not set(plain) & {*pool.BLAS_SETTINGS, *pool.THREAD_SETTINGS} and removed["OPENBLAS_CORETYPE"] == "4"
    kept, removed = pool.environment(True, None)
    assert set(kept) >= set(pool.BLAS_SETTINGS) and removed["OMP_NUM_THREADS"] == "4" and "OMP_NUM_THREADS" not in kept
    caches = pool.with_caches({"PYTHONDONTWRITEBYTECODE": "1", "A": "b"}, Path("c"), Path("d"))
    assert caches["A"] == "b" and "PYTHONDONTWRITEBYTECODE" not in caches and caches["PYTHONPYCACHEPREFIX"] == "d"
    assert caches["NUMBA_CACHE_DIR"] == os.path.join("c", "numba_cache_dir")
    assert pool.environment(False, "Haswell")[0]["OPENBLAS_CORETYPE"] == "Haswell"
    assert machine.telling(kept)["OPENBLAS_CORETYPE"] == "4" and "PATH" not in machine.telling(kept)


def test_machine():
    assert machine.cores() >= 1 and machine.cpu_model()
    assert machine.peak_memory() is None or 5 < machine.peak_memory() < 1e6
    assert machine.cpu_seconds(os.getpid()) is None or machine.cpu_seconds(os.getpid()) > 0
    assert machine.cpu_seconds(2**30) is None


def run_main(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, flags)])
    return command_line.exit_code(benchmark.main)


@pytest.mark.parametrize("flags, says", [
    (["nonsense"], "part must be one of"), (["--rounds", "0"], "--rounds must be at least 1"),
    (["--rounds", "x"], "invalid int value"), (["--works", "9"], "--works must be one of"),
    (["--contenders", "Theano"], "--contenders must be one of"), (["--data", "cats"], "--data must be one of"),
    (["--coretype", "a b"], "--coretype must be a name"), (["--threads", "0"], "--threads must be at least 1"),
    (["--json", "no/such/x.json"], "there is no folder"), (["--images", "-3"], "--images must be at least 1")])
def test_bad_input_is_one_line(flags, says, monkeypatch, capsys):
    assert run_main(monkeypatch, *flags) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


def test_works_by_name_and_number():
    names = list(works.WORKS)
    assert benchmark.chosen_works(["all"]) == tuple(names)
    assert benchmark.chosen_works(["2", names[5], "8"]) == (names[1], names[5], list(works.FAMILY)[1])
    assert benchmark.chosen_parts(["kernels", "epochs"]) == ["epochs", "kernels"]
    assert benchmark.chosen_parts(["all"]) == list(parts.PARTS)


def test_problems_end_with_1_and_results_are_kept(monkeypatch, capsys, tmp_path):
    """A part that finds something wrong: said loudly, exit code 1, and the file is written all the same."""
    def part(settings):
        return {"value": math.nan, "problems": ["LOSSES DISAGREE"]}
    monkeypatch.setitem(parts.PARTS, "kernels", part)
    monkeypatch.setattr(works, "write_pixels", lambda folder, source: None)
    with pytest.raises(SystemExit) as stop:
        run_main(monkeypatch, "kernels", "--data", "synthetic", "--json", tmp_path / "x.json")
    assert stop.value.code == 1 and "*** 1 problems" in capsys.readouterr().out
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["parts"]["kernels"]["value"] is None and record["machine"]["cores"] >= 1


@pytest.mark.slow
def test_it_runs_as_a_program(tmp_path):
    path = tmp_path / "x.json"
    result = subprocess.run([sys.executable, ROOT / "examples" / "benchmark.py", "epochs", "--contenders", "npvae",
                             "floor", "--works", "1", "--images", "256", "--rounds", "1", "--threads", "1", "--json",
                             path], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    record = json.loads(path.read_text())
    work = record["parts"]["epochs"]["works"]["784-128-20 b128 relu"]
    assert work["summary"]["npvae"]["loss"] > 50 and work["images"] == 256
    assert record["thread_pools"]["npvae"] and record["versions"]["npvae"]["numpy"] == np.__version__
