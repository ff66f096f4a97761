"""The program `npvae`: every command does what the library does, and leaves nothing when it refuses."""
import argparse
import base64
import json
import platform
import re
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from npvae import VAE, Callback, checkpoint, evaluate, plotting
from npvae.cli import commands, options, program, runs
from npvae.kernels import reference
from npvae.evaluate import summarize
from tiny_runs import TINY, drawn, library, pixels, program_in, train_in, without_pictures

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "sample", "encode", "decode", "score", "impute", "reconstruct", "interpolate",
            "traverse", "gradcheck", "explore", "explain", "compress", "decompress", "info")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("program"))


@pytest.fixture
def npvae(first, monkeypatch, capsys):
    return program_in(first, monkeypatch, capsys)


# ---- Help

def test_help_names_every_command(npvae):
    for argv in ([], ["-h"], ["--help"]):
        code, out, error = npvae(*argv)
        assert code == 0 and not error
        lines = out.splitlines()
        start = lines.index("commands:") + 1
        named = [line.split()[0] for line in lines[start:start + len(COMMANDS)]]
        assert named == list(COMMANDS) == list(program.COMMANDS)
        assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_in_the_help_is_a_command(name, npvae):
    code, out, error = npvae(name, "--help")
    assert code == 0 and not error and max(map(len, out.splitlines())) <= 120
    examples = [line.split("  ")[0].split() for line in re.findall("^  (npvae .*)", out, re.MULTILINE)]
    assert examples and all(words[:2] == ["npvae", name] for words in examples)
    for words in examples:
        program.COMMANDS[name].parser().parse_args(words[2:])


def test_the_version_and_what_it_runs_on(npvae):
    code, out, error = npvae("--version")
    assert code == 0 and not error
    lines = out.splitlines()
    assert lines[0].startswith(f"Python {platform.python_version()} on ") and f"numpy {np.__version__}" in lines
    assert any(line.startswith("npvae ") for line in lines)
    assert any(line.startswith("BLAS ") for line in lines) and re.fullmatch(r"\d+ cores", lines[-1])


# ---- Training

def test_two_runs_are_the_same(npvae, first, tmp_path, monkeypatch):
    """Bit for bit, from the same flags."""
    without_pictures(monkeypatch)
    assert npvae("train", *TINY, "--out", tmp_path / "again", "--quiet") == (0, "", "")
    assert (tmp_path / "again" / "config.json").read_bytes() == (first / "run" / "config.json").read_bytes()
    one, other = (checkpoint.read(path / "checkpoint.npz")[0] for path in (tmp_path / "again", first / "run"))
    assert all(np.array_equal(one[name], other[name]) for name in ("parameters", "m", "v"))


def test_pictures_of_ones_own_from_a_folder_to_a_page(npvae, tmp_path, monkeypatch):
    """What a new user does, with 60 pictures of two kinds and the defaults."""
    monkeypatch.chdir(tmp_path)
    without_pictures(monkeypatch)
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)):
        Path("pictures", "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(Path("pictures", "ab"[i % 2], f"{i}.png"))
    code, out, _ = npvae("train", "--data-dir", "pictures", "--out", "runs/mine", "--epochs", 3)
    assert code == 0 and "trained for only 3 steps" in out and "runs/mine/report.html" in out
    for command, *flags in (["sample"], ["evaluate", "--samples", 20], ["explore"], ["info"]):
        code, out, error = npvae(command, "runs/mine", *flags)
        assert code == 0 and not error and out
    assert "6 of 6 test images" in npvae("evaluate", "runs/mine", "--samples", 2)[1]
    page = Path("runs/mine/explore.html").read_text()
    assert ">a</li>" in page and ">b</li>" in page
    assert pixels("runs/mine/sample.png").ndim == 3
    files = {path.name for path in Path("runs/mine").iterdir()}
    code, _, _ = npvae("train", "--data-dir", "pictures", "--out", "runs/mine", "--epochs", 1, "--overwrite", "--quiet")
    assert code == 0 and files - {path.name for path in Path("runs/mine").iterdir()} == {"sample.png", "explore.html"}


@pytest.mark.slow
def test_photographs_come_out_as_they_went_in(npvae, tmp_path, monkeypatch):
    """Of the same pixels, those from a folder of pictures are shown as light, those from an array as ink."""
    monkeypatch.chdir(tmp_path)
    grey = np.random.default_rng(0).choice(np.array([0, 60, 255], np.uint8), (20, 4, 3))
    np.save("grey.npy", grey)
    Path("photos").mkdir()
    for i, image in enumerate(grey):
        Image.fromarray(image).save(Path("photos", f"{i}.png"))
    x = grey[18:].reshape(2, 12).astype(np.float32) / np.float32(255)
    for source, ink in ("photos", False), ("grey.npy", True):
        run = Path(f"run of {source}")
        assert npvae("train", "--data-dir", source, "--out", run, *TINY[2:], "--quiet") == (0, "", "")
        assert json.loads((run / "config.json").read_text())["ink"] is ink
        vae = VAE.load(run / "checkpoint.npz")
        history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for path in plotting.save_pictures(vae, x, None, (4, 3), history, tmp_path, np.random.default_rng(0), ink):
            assert (run / path.name).read_bytes() == path.read_bytes()
        kl, rng = evaluate.kl_per_dimension(vae, x), np.random.default_rng(0)
        pair = x[None, np.random.default_rng(0).permutation(2)]
        rng.choice(2, 2, replace=False)      # which ones
        of_images = {"sample": plotting.samples(vae.sample(100, np.random.default_rng(0)), (4, 3), ink),
                     "reconstruct": plotting.reconstructions(x, vae.reconstruct(x, rng), (4, 3), ink),
                     "interpolate": plotting.interpolation(vae, pair, (4, 3), ink=ink),
                     "traverse": plotting.traversals(vae, x[0], kl, (4, 3), ink=ink)}
        for command, figure in [*of_images.items()][ink::2]:      # each of them once
            assert npvae(command, run)[0] == 0
            assert np.array_equal(pixels(run / f"{command}.png"), drawn(figure, tmp_path)), command
        assert npvae("explore", run)[0] == 0
        page = json.loads(re.search('id="model">(.*?)</script>', (run / "explore.html").read_text()).group(1))
        assert page["ink"] is ink and base64.b64decode(page["thumbs"]) == grey[18:].tobytes()


def test_a_run_made_before_photographs_were_shown_as_they_are(npvae, first, tmp_path):
    folder = shutil.copytree(first / "run", tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("ink") is True
    (folder / "config.json").write_text(json.dumps(config))
    assert npvae("sample", folder)[0] == npvae("sample", first / "run")[0] == 0
    assert (folder / "sample.png").read_bytes() == (first / "run" / "sample.png").read_bytes()


@pytest.mark.parametrize("flags, images, says", [
    ([], 60_000, None),
    (["--epochs", "1"], 60_000, "only 469 steps: for better pictures try more --epochs, such as --epochs 10)"),
    ([], 54, "only 10 steps: for better pictures try more --epochs, or a smaller --batch-size, such as --batch-size 16 "
     "--epochs 250)"), (["--epochs", "1"], 54, "only 1 step: "), (["--epochs", "1000"], 54, None),
    (["--epochs", "999", "--batch-size", "8"], 5, "try more --epochs, such as --epochs 1000)")])
def test_a_run_of_few_steps_says_so(flags, images, says, capsys):
    """MNIST with the defaults does not."""
    args = options.training_parser().parse_args(flags)
    last = {"epoch": 1, "step": args.epochs * -(-images // args.batch_size), "active_units": 3,
            **dict.fromkeys(("test_loss", "test_nll", "test_kl"), 1.0)}
    runs._print_result(args, images, last, [], Path("report.html"))
    out = capsys.readouterr().out
    assert says in out if says else "trained for only" not in out


@given(st.integers(1, 70_000), st.integers(1, 1000))
def test_the_flags_that_a_short_run_names_take_steps_enough(images, batch_size):
    args = options.training_parser().parse_args(["--batch-size", str(batch_size)])
    line = runs._more_steps(args, images, 999)
    flags = options.training_parser().parse_args([*line.rstrip(")").split("such as ")[1].split(), "--lr", "1"])
    size = flags.batch_size if "--batch-size" in line else batch_size
    assert 1 <= size <= batch_size and runs.FEW_STEPS <= flags.epochs * -(-images // size)
    assert flags.epochs <= max(110, 10 * -(-runs.FEW_STEPS // -(-images // 16) // 10))


@pytest.mark.parametrize("argv0, start", [
    ("/x/npvae/__main__.py", "{python} -m npvae train "), ("x/train_mnist.py", "{python} -m npvae train "),
    ("/nowhere/bin/npvae", "/nowhere/bin/npvae train "), ("{on the path}", "npvae train ")])
def test_the_command_to_resume_by(argv0, start, tmp_path, monkeypatch):
    (tmp_path / "npvae").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [argv0.replace("{on the path}", str(tmp_path / "npvae"))])
    args = options.training_parser().parse_args(["--out", "a b", "--threads", "1"])
    assert options.resume_command(args) == start.format(python=sys.executable) + "--out 'a b' --threads 1 --resume"


# ---- Numbers

def test_evaluate(npvae, first, tmp_path):
    """The library's own numbers, from the same seed, on the screen and in the file."""
    code, out, error = npvae("evaluate", "run", "--samples", 30, "--seed", 4, "--json", tmp_path / "x.json")
    vae, x = library(first)
    found, expected = json.loads((tmp_path / "x.json").read_text()), summarize(vae, x, np.random.default_rng(4), 30)
    log_p, kl = vae.log_likelihood(x, np.random.default_rng(4), 30), evaluate.kl_per_dimension(vae, x)
    assert code == 0 and not error and found["images"] == found["of"] == 100 and found["samples"] == 30
    assert {**found, **expected.plain()} == found and found["elbo"] == expected.elbo.value
    assert found["log_p"] == log_p.mean() and found["log_p_standard_error"] == pytest.approx(log_p.std(ddof=1) / 10)
    assert found["kl_per_dimension"] == kl.tolist() and found["rate"] == pytest.approx(kl.sum(), rel=1e-6)
    assert found["elbo"] == pytest.approx(-found["distortion"] - found["rate"], rel=1e-6)
    assert found["active_units"] == evaluate.active_units(vae, x) and list(found["iwae"]) == ["5"]
    assert textwrap.indent(str(expected), "  ") in out and "ELBO <= IWAE-5 <= log p(x): holds" in out
    order = [int(j) for j in re.findall(r"z\[(\d)\]", out.split("KL of each dimension")[1])]
    assert order == np.argsort(-kl).tolist()
    assert "no likelihoods: grey pixels" in out


def test_a_few_images_are_spread_over_the_test_set(npvae, first, tmp_path):
    npvae("evaluate", "run", "--limit", 3, "--samples", 5, "--json", tmp_path / "x.json")
    vae, x = library(first)
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["images"] == 3 and found["kl_per_dimension"] == evaluate.kl_per_dimension(vae, x[[0, 50, 99]]).tolist()
    npvae("evaluate", "run", "--limit", 1, "--samples", 5, "--json", tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["log_p_standard_error"] is None


def test_the_test_set_is_the_one_that_training_measures(first, monkeypatch):
    monkeypatch.chdir(first)
    seen = []

    class Watch(Callback):
        def on_start(self, run):
            seen.append(run.test.array.copy())

    monkeypatch.setattr(runs, "Progress", Watch)
    monkeypatch.setattr(runs, "save_pictures", lambda vae, x, *rest: seen.append(x) or [])
    program.main(["train", *TINY, "--out", "watched", "--binarize", "dynamic", "--seed", "5"])
    _, x, _ = commands._test_set(runs.open_run(Path("watched")), argparse.Namespace(data_dir=None))
    shutil.rmtree("watched")
    assert set(np.unique(x)) == {0, 1} and np.array_equal(255 * x, seen[0]) and np.array_equal(x, seen[1])


def test_black_and_white_images_have_a_likelihood(npvae):
    assert "(log likelihoods of black-and-white images)" in npvae("evaluate", "dynamic", "--samples", 3)[1]


def test_other_data(npvae, first, tmp_path):
    npvae("evaluate", "run", "--samples", 3, "--data-dir", "other.npz", "--json", tmp_path / "x.json")
    vae, x = library(first, source="other.npz")
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["images"] == 40 and found["kl_per_dimension"] == evaluate.kl_per_dimension(vae, x).tolist()
    assert found["data"] == "other.npz"


def test_info(npvae, first):
    code, out, error = npvae("info", "run")
    vae, _ = library(first)
    last = json.loads((first / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert code == 0 and not error and "epochs    2 of 2" in out and "4 x 3 pixels, 50 to train" in out
    for name, value in vae.parameters.items():
        assert re.search(rf"{re.escape(name)} +{' x '.join(map(str, value.shape))} +{value.size}\n", out), name
    assert re.search(rf"in all +float32 +{vae.parameters.flat.size} ", out)
    assert f"loss {last['test_loss']:.2f} on the test set" in out and "--data-dir      data.npz" in out
    assert all(f"  {path.name} " in out for path in (first / "run").iterdir()) and "not a file of a run" not in out


def test_a_run_that_was_stopped_in_its_first_epoch(npvae, first, tmp_path):
    """It has a model, and no numbers yet."""
    shutil.copytree(first / "run", tmp_path / "young")
    arrays, manifest = checkpoint.read(tmp_path / "young" / "checkpoint.npz")
    manifest["training"].update(history=[], epoch=0)
    checkpoint.write(tmp_path / "young" / "checkpoint.npz", arrays, manifest)
    code, out, _ = npvae("info", tmp_path / "young")
    assert code == 0 and "epochs    0 of 2" in out and "last" not in out
    assert npvae("sample", tmp_path / "young")[0] == npvae("gradcheck", tmp_path / "young")[0] == 0


# ---- Gradients

@pytest.mark.every(2)
@pytest.mark.parametrize("flags, says", [
    ([], "12-7-5-3, relu, bernoulli, ELBO, K = 2, loss"), (["run"], "12-6-3, relu, bernoulli, ELBO, K = 1, loss"),
    (["--hidden", "4", "--latent", 2, "--pixels", 9, "--activation", "tanh", "--likelihood", "gaussian-pixel"],
     "9-4-2, tanh, gaussian-pixel, ELBO"), (["--objective", "iwae", "--k", 5], "IWAE, K = 5"),
    (["--free-bits", 0.1, "--hidden", "none"], "12-3, relu, bernoulli, FreeBits, K = 2")])
def test_gradcheck(flags, says, npvae):
    code, out, error = npvae("gradcheck", *flags)
    assert code == 0 and not error and says in out
    assert "gradients right (complex differences, tolerance 1e-12)" in out and "each of them by the complex step" in out


def test_gradcheck_of_a_large_network_goes_along_directions(npvae):
    code, out, _ = npvae("gradcheck", "--pixels", 200, "--hidden", 20)
    assert code == 0 and "gradients right (directional differences" in out and "32 random directions" in out


def test_gradcheck_looks_at_the_trained_parameters(npvae, first, tmp_path):
    vae, _ = library(first)
    vae.parameters["output.b"][...] = 1 / 3
    shutil.copytree(first / "run", tmp_path / "run")
    arrays, manifest = checkpoint.read(tmp_path / "run" / "checkpoint.npz")
    checkpoint.write(tmp_path / "run" / "checkpoint.npz", {**arrays, "parameters": vae.parameters.flat}, manifest)
    loss = [re.search(r"loss ([\d.]+)", npvae("gradcheck", folder)[1]).group(1) for folder in ("run", tmp_path / "run")]
    assert loss[0] != loss[1]


@pytest.mark.every(3)
@pytest.mark.parametrize("flags", [[], ["run"], ["--pixels", "200", "--hidden", "20"]])
def test_gradcheck_of_a_wrong_gradient_ends_with_1(flags, npvae, monkeypatch):
    right = reference.gaussian_kl_backward

    def wrong_sign(dmu, dlogvar, dkl, mu, logvar):
        right(dmu, dlogvar, dkl, mu, logvar)
        dlogvar *= -1

    monkeypatch.setattr(reference, "gaussian_kl_backward", wrong_sign)
    code, out, error = npvae("gradcheck", *flags)
    assert code == 1 and not error and "gradients WRONG" in out and re.search(r"\n\* logvar.b", out)
