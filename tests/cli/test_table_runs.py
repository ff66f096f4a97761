"""npvae on a table of mixed columns with gaps, from one line to what every command makes of the run."""
import contextlib
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from npvae import VAE
from npvae.cli import command_line, program

PENGUINS = Path(__file__).parents[1] / "fixtures" / "penguins" / "penguins.csv"
FEW = ["--epochs", "4", "--batch-size", "64", "--threads", "1"]
#: without --hidden and the like, which the program chooses for a table
TRAIN = ["train", "--data-dir", str(PENGUINS), *FEW]


def npvae(*words):
    """Exit code, and what was printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line.exit_code(lambda: program.main(list(map(str, words))))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("penguins") / "run"
    code, out, err = npvae(*TRAIN, "--out", folder)
    assert code == 0, err
    return folder, out, err


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_line_says_what_it_took_the_columns_for_and_how_it_trains(run):
    folder, out, err = run
    for line in (r"body_mass_g +real +2700 to 6300 +2\n", r"sex +binary +female, male +11\n"):
        assert re.search(line, out)
    assert "read 344 rows of 8 columns" in err and "was taken as a table, since it holds text" in err
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert (settings["likelihood"], settings["hidden"], settings["latent"]) == ("table", [64], 8)
    assert (settings["epochs"], settings["batch_size"], settings["lr_schedule"]) == (4, 64, "cosine")
    chosen = next(line for line in out.splitlines() if line.startswith("settings for this table"))
    assert "--likelihood table --hidden 64 --latent 8" in chosen and "--epochs" not in chosen
    assert (folder / "report.html").exists() and (folder / "latent_scatter.png").exists()
    assert not (folder / "reconstructions.png").exists()


@pytest.mark.parametrize("words", [["evaluate", "--samples", "20"], ["gradcheck"], ["info"]])
def test_commands_that_print(words, run):
    code, out, err = npvae(words[0], run[0], *words[1:])
    assert code == 0, err
    says = {"evaluate": "log densities of rows", "gradcheck": "gradients right", "info": "8 columns, 310 to train"}
    assert says[words[0]] in out


def test_commands_that_write_tables(run, tmp_path):
    for words in (["sample", "--count", 30, "--draw"], ["reconstruct", "--count", 5], ["encode"]):
        code, _, err = npvae(words[0], run[0], *words[1:], "--out", tmp_path / f"{words[0]}.csv")
        assert code == 0, err
    samples, rebuilt = rows_of(tmp_path / "sample.csv"), rows_of(tmp_path / "reconstruct.csv")
    assert len(samples) == 30 and list(samples[0]) == PENGUINS.read_text().splitlines()[0].split(",")
    assert {row["species"] for row in samples} <= {"Adelie", "Chinstrap", "Gentoo"}
    assert all(re.fullmatch(r"\d{2,3}", row["flipper_length_mm"]) for row in samples)
    assert [row["of"] for row in rebuilt] == ["data", "rebuilt"] * 5
    test_rows = {tuple(row.values())[2:] for row in rebuilt[::2]}
    assert test_rows <= {tuple(row.values()) for row in (
        {key: "" if value == "NA" else value for key, value in row.items()} for row in rows_of(PENGUINS))}
    assert len(rows_of(tmp_path / "encode.csv")) == 344


def test_a_page_explains_a_row(run, tmp_path):
    code, _, err = npvae("explain", run[0], "--out", tmp_path / "page.html")
    assert code == 0 and (tmp_path / "page.html").stat().st_size > 10_000, err


def test_a_run_that_was_stopped_is_continued_bit_for_bit(run, tmp_path, monkeypatch):
    """Location and scale are found again from the same rows."""
    from npvae.train import callbacks
    after = callbacks.Checkpoint.on_epoch

    def stop(self, state):
        after(self, state)
        if state.epoch == 2:
            raise KeyboardInterrupt
    monkeypatch.setattr(callbacks.Checkpoint, "on_epoch", stop)
    assert npvae(*TRAIN, "--out", tmp_path / "run")[0] == 130
    monkeypatch.undo()
    assert npvae("train", "--out", tmp_path / "run", "--resume", "--threads", "1")[0] == 0
    models = [VAE.load(folder / "checkpoint.npz") for folder in (run[0], tmp_path / "run")]
    assert np.array_equal(*(vae.parameters.flat for vae in models))


def test_other_data_are_read_with_the_columns_of_the_run(run, tmp_path):
    """By name, in any order; what a level stands for stays."""
    (tmp_path / "new.csv").write_text(
        "year,sex,species,island,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g,note\n"
        "2008,male,Gentoo,Biscoe,45.1,15,,5000,a\n2009,female,Gentoo,Biscoe,NA,14,210,4500,b\n")
    code, out, err = npvae("evaluate", run[0], "--data-dir", tmp_path / "new.csv", "--samples", 10)
    assert code == 0 and "2 of 2" in out and "were left out: note" in err
    (tmp_path / "bad.csv").write_text((tmp_path / "new.csv").read_text().replace("Gentoo", "Emperor"))
    code, _, err = npvae("evaluate", run[0], "--data-dir", tmp_path / "bad.csv")
    assert code == 2 and "row 2, column 3 ('species') holds 'Emperor', which is none of its levels" in err


REFUSED = {
    "train --data-dir PENGUINS --columns species:real": "('species') holds 'Adelie', which is not a number, as real",
    "train --data-dir PENGUINS --columns age:real": "has no column 'age'; its columns are species, island",
    "train --data-dir PENGUINS --columns species=real": "--columns: 'species=real' is not NAME:KIND",
    "train --data-dir PENGUINS --columns nowhere.json": "--columns: nowhere.json: cannot be read (No such file",
    "train --data-dir PENGUINS --likelihood bernoulli": "holds 'Adelie', which is not a number",
    "train --data-dir PENGUINS --likelihood bernoulli --columns sex:skip": "bernoulli is of something else",
    "train --data-dir PENGUINS --binarize static": "--binarize static is for pictures, and",
    "train --likelihood table": "--likelihood table needs a .csv file, got mnist",
    "interpolate RUN": "is of a table, of whose rows there are no pictures: sample and reconstruct write a .csv",
    "traverse RUN": "there are no pictures", "sample RUN --out x.png": "--out x.png: must end in .npy or .csv",
    "explore RUN": "likelihood table: the page cannot compute its mean"}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(line, run, tmp_path):
    words = [{"PENGUINS": str(PENGUINS), "RUN": str(run[0])}.get(word, word) for word in line.split()]
    code, out, err = npvae(*words, *(["--out", tmp_path / "new"] if words[0] == "train" else []))
    assert code == 2 and REFUSED[line] in err, err
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())
