"""The published tables: protocols, stopping and going on, what is measured, and the table made of it."""
import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import paper_records
import paper_tables

from npvae import VAE, checkpoint, evaluate
from npvae.data import to_float

TINY = {"hidden": (5,), "latent_dim": 3}
ROW = replace(paper_tables.ROWS["vae-k1"], model=TINY, epochs=3, keep=(2, 3))
STATIC = replace(paper_tables.ROWS["static-normal"], model={**TINY, "decoder": "made:4"}, epochs=5, batch=10)


def call(monkeypatch, tmp_path, command, *flags):
    """A command of the program, on 70 images and tiny networks; its exit code."""
    x_train, labels, x_test, test_labels = paper_tables_data()
    monkeypatch.setattr(paper_tables, "load_mnist", lambda: (x_train, labels, x_test, test_labels))
    monkeypatch.setattr(paper_tables, "ROWS", {"other": ROW, "vae-k1": ROW, "static-made": STATIC,
                                               "published": replace(ROW, images=60, shuffle=False)})
    flags = [*flags, *(["--out", tmp_path / "out", "--threads", 1] if command in ("train", "measure") else [])]
    flags += ["--results", tmp_path / "results.jsonl"] if command in ("measure", "table") else []
    monkeypatch.setattr(sys, "argv", ["paper_tables.py", command, *map(str, flags)])
    return paper_tables.cli.exit_code(paper_tables.main)


def paper_tables_data():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 784), np.uint8)
    return pixels[:70], np.zeros(70, np.uint8), pixels[70:], np.zeros(30, np.uint8)


def static_file(path):
    """A binarization as `--static` takes it; its rows."""
    rows = {name: np.random.default_rng(i).integers(0, 2, (count, 784), np.uint8)
            for i, (name, count) in enumerate((("train", 40), ("valid", 20), ("test", 10)))}
    np.savez(path, **{name: np.packbits(array, axis=1) for name, array in rows.items()})
    return rows


def small_model(seed=0, **changes):
    vae = VAE(**{"input_dim": 6, **TINY, "kernels": "numpy", "seed": seed, **changes})
    vae.parameters.flat[...] += np.random.default_rng(seed).normal(0, 0.3, vae.parameters.flat.shape)
    return vae, np.random.default_rng(seed).integers(0, 2, (11, 6)).astype(np.float32)


# ---- The protocols

def test_the_stages():
    """Stage i: 3^i epochs at 1e-3 * 10^(-i/7), which makes 3,280 epochs; the static rows."""
    expected = [1e-3 * 10 ** (-i / 7) for i in range(8) for _ in range(3 ** i)]
    ends = np.flatnonzero(np.diff(expected)) + 1
    steps = [0, *(7 * ends - 1), *(7 * ends), 7 * 3280 - 1]      # of seven in an epoch, those around each change
    for name, row in paper_tables.ROWS.items():
        adam = row.adam(7)
        if row.data == "dynamic":
            theirs = (0.99, 5e-6, False, 59600) if name == "vae-k1-published-code" else (0.9, 1e-4, True, None)
            assert (adam.beta1, adam.eps, row.shuffle, row.images) == theirs and adam.beta2 == 0.999
            assert (row.epochs, row.batch) == (3280, 20)
            assert set(row.keep) == {100, 121, 364, 1093, 3280} and row.model["hidden"] == (200, 200)
            rates = [expected[step // 7] for step in steps]
            assert [adam.lr(step) for step in steps] == pytest.approx(rates, rel=1e-12)
        elif "decoder" in row.model:
            assert (row.epochs, row.keep, row.batch, adam.weight_decay) == (40, (40,), 100, 0.1)
            assert [adam.lr(step) for step in (0, 140, 280)] == pytest.approx([1e-3, 5e-4, 0])
        else:
            assert adam.lr(0) == adam.lr(10 ** 6) == 5e-4 and (row.keep, row.batch, adam.weight_decay) == ((), 100, 0)


def test_the_annealing_and_the_objectives():
    sampled = {name: row.objective(7) for name, row in paper_tables.ROWS.items()}
    assert [name for name, one in sampled.items() if not one.kl_estimator.is_sampled] == [
        "static-made", "static-made-annealed", "static-made-free-bits"]
    for name, epochs in (("static-normal", 100), ("static-vamp", 100), ("static-made-annealed", 10)):
        assert [sampled[name].beta(7 * epochs * part) for part in (0, 0.5, 1, 99)] == [0, 0.5, 1, 1]
    assert [paper_tables.protocol(paper_tables.ROWS[name])["objective"] for name in
            ("vae-k5", "iwae-k5", "static-vamp", "static-made", "static-made-free-bits")] == [
        "ELBO, sampled KL", "IWAE, sampled KL", "ELBO, sampled KL, annealed for 100 epochs", "ELBO, exact KL",
        "FreeBits, 0.5 nats, exact KL"]


def test_the_start():
    """Glorot's uniform weights in every matrix of a dynamic row, and the mean image."""
    pixels = paper_tables_data()[0]
    row = replace(ROW, model={"hidden": (60,), "latent_dim": 40, "prior": "hierarchical:50,30"})
    vae = paper_tables.new_model(row, pixels, 0)
    matrices = {name: value for name, value in vae.parameters.items() if name.endswith(".W")}
    assert len(matrices) > 7
    for name, value in matrices.items():
        limit = math.sqrt(6 / sum(value.shape))
        assert 0.98 * limit < np.abs(value).max() <= limit and value.std() == pytest.approx(limit / 3 ** 0.5, rel=0.05)
    mean = to_float(pixels).mean(axis=0)
    np.testing.assert_allclose(vae.parameters["output.b"], np.log(mean / (1 - mean)), atol=1e-5)
    assert not np.array_equal(paper_tables.new_model(row, pixels, 1).parameters.flat, vae.parameters.flat)


def test_the_images(monkeypatch, tmp_path):
    monkeypatch.setattr(paper_tables, "load_mnist", paper_tables_data)
    train, beside, test = paper_tables.load_rows(ROW, tmp_path)
    assert np.array_equal(paper_tables.load_rows(replace(ROW, images=9), tmp_path)[0], train[:9])
    pixels = paper_tables_data()[2]
    assert np.array_equal(train, paper_tables_data()[0]) and np.array_equal(beside, pixels)
    assert set(np.unique(test)) == {0, 255} and abs((test / 255 - pixels / 255).mean()) < 0.01
    assert 0.7 < ((test == 255) == (pixels >= 128)).mean() < 0.8      # drawn, not rounded
    assert np.array_equal(test, paper_tables.load_rows(ROW, tmp_path)[2])
    rows = static_file(tmp_path / "static.npz")
    for found, name in zip(paper_tables.load_rows(STATIC, tmp_path / "static.npz"), ("train", "valid", "test")):
        assert np.array_equal(found, rows[name] * 255)


# ---- Training

def test_train_go_on_measure_and_table(tmp_path, monkeypatch, capsys):
    for folder, stops in (("a", ((),)), ("b", (("--epochs", 2), ()))):
        for flags in stops:
            assert call(monkeypatch, tmp_path / folder, "train", "vae-k1", "--seed", 3, *flags) == 0
        metrics = tmp_path / folder / "out" / "vae-k1" / "metrics.jsonl"
        metrics.write_text("".join(json.dumps({**one, "seconds": 10}) + "\n" for one in paper_records.lines(metrics)))
        assert call(monkeypatch, tmp_path / folder, "measure", "vae-k1", "--samples", 10, "--images", 20) == 0
    assert capsys.readouterr().err.count("train ") == 6      # epochs, none of them twice
    settings = checkpoint.read(tmp_path / "b" / "out" / "vae-k1" / "checkpoint.npz")[1]["settings"]
    expected = {"batch_size": 20, "n_samples": 1, "binarize": "dynamic", "seed": 3, "images": 70}
    assert expected.items() <= settings.items()
    models = [[VAE.load(tmp_path / folder / "out" / "vae-k1" / f"epoch-{epoch}.npz").parameters.flat.tolist()
               for epoch in (2, 3)] for folder in "ab"]
    assert models[0] == models[1] and models[0][0] != models[0][1]
    a, b = (paper_records.lines(tmp_path / folder / "results.jsonl") for folder in "ab")
    sessions = paper_records.lines(tmp_path / "b" / "out" / "vae-k1" / "sessions.jsonl")
    assert [one["epoch"] for one in sessions] == [0, 2]
    for one, other, epoch in zip(a, b, (2, 3), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0} and one["training_seconds"] == 10 * epoch
        assert (one["row"], one["epoch"], one["seed"], one["samples"], one["images"]) == ("vae-k1", epoch, 3, 10, 20)
        assert one["commit"] == paper_records.commit() == one["measured_by"] and one["published"] == ROW.published
    assert call(monkeypatch, tmp_path / "a", "measure", "vae-k1", "--samples", 10, "--images", 20) == 0
    assert paper_records.lines(tmp_path / "a" / "results.jsonl") == a
    capsys.readouterr()
    assert call(monkeypatch, tmp_path / "a", "table") == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [["| vae-k1 (10 draws, 20 images)", str(one["epoch"]),
                                          f"{one['nll']:.2f} +- {one['error']:.2f}"] for one in a]
    assert call(monkeypatch, tmp_path / "a", "train", "vae-k1", "--seed", 4) == 2      # and has not been a session
    folder = tmp_path / "a" / "out" / "vae-k1"
    assert [one["epoch"] for one in paper_records.lines(folder / "sessions.jsonl")] == [0]
    (folder / "epoch-2.npz").write_bytes((folder / "epoch-3.npz").read_bytes())      # another model is measured anew
    assert call(monkeypatch, tmp_path / "a", "measure", "vae-k1", "--samples", 10, "--images", 20) == 0
    assert [one["nll"] for one in paper_records.lines(tmp_path / "a" / "results.jsonl")][2:] == [a[1]["nll"]]
    capsys.readouterr()
    assert rows[0][4] == f"{sum(a[0]['kl_per_dimension']):.2f}" and rows[0][6] == f"{ROW.published} |"
    assert call(monkeypatch, tmp_path / "a", "rows") == 0 and "static-made" in capsys.readouterr().out


def test_a_row_of_fewer_images_in_one_order(tmp_path, monkeypatch):
    """Its record says so beside what has been measured, and is known again."""
    assert call(monkeypatch, tmp_path, "train", "published") == 0
    for _ in range(2):
        assert call(monkeypatch, tmp_path, "measure", "published", "--samples", 3, "--images", 20) == 0
    records = paper_records.lines(tmp_path / "results.jsonl")
    assert [(one["epoch"], one["images"], one["training_images"], one["shuffle"]) for one in records] == [
        (2, 20, 60, False), (3, 20, 60, False)]


def test_a_row_of_static_binarization(tmp_path, monkeypatch, capsys):
    """The best epoch on the validation images is the one that is measured, on the test images."""
    monkeypatch.setattr(paper_tables, "WARMUP", 2)
    rows, folder = static_file(tmp_path / "static.npz"), tmp_path / "out" / "static-made"
    flags = "static-made", "--static", tmp_path / "static.npz"
    assert call(monkeypatch, tmp_path, "train", *flags) == 0
    assert call(monkeypatch, tmp_path, "measure", *flags, "--samples", 9) == 0
    one, = paper_records.lines(tmp_path / "results.jsonl")
    history = paper_records.lines(folder / "metrics.jsonl")
    assert len(history) == 5 and one["epoch"] == min(history[2:], key=lambda metrics: metrics["test_loss"])["epoch"]
    assert one["training_seconds"] == round(sum(metrics["seconds"] for metrics in history[:one["epoch"]]))
    vae = VAE.load(folder / "best.npz")
    value = evaluate.log_likelihood(vae, rows["test"].astype(np.float32), np.random.default_rng([2016, 0]), 9)
    assert one["nll"] == pytest.approx(-value.mean, rel=1e-6) and one["images"] == 10
    capsys.readouterr()
    assert call(monkeypatch, tmp_path, "table") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"static-made, epoch {one['epoch']}: KL per dimension")
    assert last.endswith(" ".join(f"{value:.2f}" for value in one["kl_per_dimension"]))


@pytest.mark.parametrize("losses, saved, stopped", [
    ([1, 2, 9, 8, 8, 7, 9], [3, 4, 6], None),      # the first two are of the annealing
    ([5, 5, 3, *[4] * 60], [3], 53), ([5, 5, 3, *[4] * 49, 2, *[4] * 60], [3, 53], 103)])
def test_which_models_are_kept(monkeypatch, tmp_path, losses, saved, stopped):
    monkeypatch.setattr(paper_tables, "WARMUP", 2)
    keep, kept, ends = paper_tables.Keep(STATIC, tmp_path), [], None
    run = SimpleNamespace(history=[], epoch=0, stop=False, vae=SimpleNamespace(save=lambda path: kept.append(
        (run.epoch, path.name))))
    for loss in losses:
        run.history.append({"test_loss": loss})
        run.epoch += 1
        keep.on_epoch(run)
        if run.stop:
            ends = run.epoch
            break
    assert kept == [(epoch, "best.npz") for epoch in saved] and ends == stopped
    again = SimpleNamespace(history=run.history, epoch=run.epoch, stop=False)
    keep.on_start(again)      # called once more
    assert again.stop == bool(stopped)
    assert paper_tables.best_epoch(run.history) == saved[-1]


def test_of_dynamic_rows_certain_epochs_are_kept(tmp_path):
    kept = []
    for epoch in range(1, 5):
        run = SimpleNamespace(history=[{"test_loss": 1}] * epoch, epoch=epoch, stop=False,
                              vae=SimpleNamespace(save=lambda path: kept.append((epoch, path.name))))
        paper_tables.Keep(ROW, tmp_path).on_epoch(run)
        assert not run.stop
    assert kept == [(2, "epoch-2.npz"), (3, "epoch-3.npz")]


# ---- Measuring

def test_what_is_measured(tmp_path):
    vae, x = small_model()
    found = paper_tables.measured(vae, x, 40, tmp_path / "partial.npz")
    direct = evaluate.log_likelihood(vae, x, np.random.default_rng([2016, 0]), 40)
    for name, value in (("nll", -direct.mean), ("error", direct.standard_error), ("ess", np.median(direct.ess)),
                        ("sampling_error", direct.sampling_error), ("sampling_bias", -direct.sampling_bias)):
        assert found[name] == pytest.approx(value, rel=1e-6), name
    kl = evaluate.kl_per_dimension(vae, x)
    assert found["kl_per_dimension"] == sorted(found["kl_per_dimension"], reverse=True)
    assert sum(found["kl_per_dimension"]) == pytest.approx(kl.sum(), abs=2e-4)
    assert found["active"] == evaluate.active_units(vae, x)
    assert found["minus_elbo"] == pytest.approx(-vae.elbo(x, np.random.default_rng(0)).mean())


def test_models_without_a_closed_form_of_the_KL_term(tmp_path):
    found = paper_tables.measured(*small_model(prior="vamp:3"), 5, tmp_path / "vamp.npz")
    assert "kl_per_dimension" not in found and found["nll"] > 0
    found = paper_tables.measured(*small_model(prior="hierarchical:4,2"), 5, tmp_path / "two.npz")
    assert "kl_per_dimension" not in found and len(found["active_per_layer"]) == 2
    assert found["active"] == sum(found["active_per_layer"])


def test_a_measurement_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_tables, "BLOCK", 4)
    vae, x = small_model()
    whole = paper_tables.measured(vae, x, 20, tmp_path / "whole.npz")
    sizes, likelihood = [], paper_tables.log_likelihood

    def stopping(vae, x, *rest):
        sizes.append(len(x))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return likelihood(vae, x, *rest)

    monkeypatch.setattr(paper_tables, "log_likelihood", stopping)
    with pytest.raises(KeyboardInterrupt):
        paper_tables.measured(vae, x, 20, tmp_path / "stopped.npz")
    assert {**paper_tables.measured(vae, x, 20, tmp_path / "stopped.npz"), "seconds": 0} == {**whole, "seconds": 0}
    assert sizes == [4, 4, 3, 3]
    other = small_model(seed=1)[0]
    for what, again in (((vae, x[:8], 20), 2), ((other, x[:8], 20), 2), ((other, x[:8], 21), 2), ((vae, x, 20), 3),
                        ((vae, 1 - x, 20), 3), ((vae, 1 - x, 20), 0)):
        sizes[:] = [None] * 3
        found = paper_tables.measured(*what, tmp_path / "stopped.npz")
        assert len(sizes) - 3 == again      # of another model, of other images or draws nothing is taken over
    assert found["nll"] != whole["nll"]


def test_images_from_all_over_the_test_set():
    x = np.arange(10)
    assert paper_records.evenly(x, 5).tolist() == [0, 2, 4, 6, 8] and paper_records.evenly(x, 3).tolist() == [0, 3, 6]
    assert paper_records.evenly(x, 10).tolist() == paper_records.evenly(x, 99).tolist() == x.tolist()


def test_which_commits_trained_a_model():
    first, second = {"epoch": 0, "commit": "a"}, {"epoch": 5, "commit": "b"}
    for sessions, epoch, commits in (
            ([first, second], 5, "a"), ([first, second], 6, "a, b"), ([second], 6, "unknown, b"),
            ([second], 5, "unknown"), ([], 5, "unknown"), ([first, first], 9, "a")):
        assert paper_records.trained_by(sessions, epoch) == commits


# ---- The table, and what is refused

def test_the_table(tmp_path, monkeypatch, capsys):
    """Rows in their order, then epochs; the repetition in PyTorch below its row."""
    record = {"samples": 5000, "images": 10000, "nll": 87.654, "error": 0.0712, "minus_elbo": 91.234, "active": 19,
              "published": "86.76", "model": {}}
    for name, epoch in (("static-made", 120), ("vae-k1-pytorch", 100), ("vae-k1", 3280), ("vae-k1", 100)):
        paper_records.add_line(tmp_path / "results.jsonl", {"row": name, "epoch": epoch, **record})
    two_layers = {"row": "other", "epoch": 1, **record, "active_per_layer": [12, 3], "kl_per_dimension": [20.0, 3.5]}
    paper_records.add_line(tmp_path / "results.jsonl", two_layers)
    assert call(monkeypatch, tmp_path, "table") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 8 and len(lines) == 7
    assert [" ".join(line.split(" | ")[:2]) for line in lines[2:]] == [
        "| other 1", "| vae-k1 100", "| vae-k1 3,280", "| vae-k1-pytorch 100", "| static-made 120"]
    assert lines[3] == "| vae-k1 | 100 | 87.65 +- 0.07 | 91.23 |  | 19 | 86.76 |"
    assert lines[2] == "| other | 1 | 87.65 +- 0.07 | 91.23 | 23.50 | 12 + 3 | 86.76 |"
    assert [json.loads(line)["row"] for line in (tmp_path / "results.jsonl").read_text().splitlines()][:2] == [
        "static-made", "vae-k1-pytorch"]


def test_without_git_the_commit_is_unknown(monkeypatch):
    assert len(paper_records.commit()) >= 7
    monkeypatch.setenv("PATH", "")
    assert paper_records.commit() == "unknown"


@pytest.mark.parametrize("content, words", [
    (None, "No such file"), (b"", "No data left"), (b"PK\x03\x04 cut short", "must be an .npz"),
    ({"train": np.zeros((2, 98), np.uint8)}, "valid is not a file in the archive"),
    (dict.fromkeys(("train", "valid", "test"), np.zeros((2, 98))), "Expected an input array of unsigned byte")])
def test_a_wrong_static_file_is_one_line(content, words, tmp_path, monkeypatch, capsys):
    path = tmp_path / "static.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.savez(path, **content)
    assert call(monkeypatch, tmp_path, "train", "static-made", "--static", path) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"--static {path} must be" in error and words in error
    assert not (tmp_path / "out").exists()


def test_nothing_to_measure_is_one_line(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, tmp_path, "measure", "vae-k1") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "holds no model to measure: train vae-k1 leaves them" in error
    for flags, words in ((["measure", "vae-k2"], "vae-k2"), (["train", "vae-k1", "--epochs", "0"], "--epochs"),
                         (["measure", "vae-k1", "--samples", "1"], "--samples")):
        assert call(monkeypatch, tmp_path, *flags) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and words in error
    folder = tmp_path / "out" / "vae-k1"
    folder.mkdir(parents=True)
    checkpoint.write(folder / "checkpoint.npz", {}, {"settings": {"seed": 0}})
    (folder / "epoch-2.npz").write_bytes(b"nothing")
    assert call(monkeypatch, tmp_path, "measure", "vae-k1") == 2
    assert "is not a checkpoint of npvae" in capsys.readouterr().err
