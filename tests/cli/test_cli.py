"""`npvae train`: every flag does something, every wrong one is refused in a line, and no run is ever harmed."""
import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from npvae import ELBO, IWAE, CosineLR, CyclicalAnnealing, FreeBits, LinearAnnealing, StepLR, checkpoint
from npvae.cli import command_line, options, program, runs
from npvae.layers import ACTIVATIONS
from npvae.system.files import claimed
from npvae.likelihoods import LIKELIHOODS
from refusals import assert_refused
from tiny_runs import contents, program_in, without_pictures

ROOT = Path(__file__).parents[2]
FILES = {"config.json", "metrics.jsonl", "checkpoint.npz", "reconstructions.png", "samples.png", "learning_curves.png",
         "traversals.png", "interpolation.png", "latent_scatter.png", "kl_per_dimension.png", "report.html"}
TINY = ["--hidden", "5", "--latent", "3", "--batch-size", "16", "--epochs", "2"]


def write_data(folder):
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 256, (70, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:50], test=grey[50:], test_labels=rng.integers(0, 3, 20),
             train_labels=np.arange(50) % 3)
    np.save(folder / "wide.npy", 3 * rng.random((70, 12), dtype=np.float32) - 1)
    np.save(folder / "nan.npy", np.full((70, 12), np.nan, np.float32))
    (folder / "file").write_text("not a folder")
    (folder / "half").mkdir()
    (folder / "half" / "t10k-images-idx3-ubyte").write_bytes(b"")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with data in it and a finished run, `run`; and what the program had printed."""
    folder, out, error = tmp_path_factory.mktemp("cli"), io.StringIO(), io.StringIO()
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
        patch.chdir(folder)
        code = command_line.exit_code(lambda: program.main(["train", *TINY, "--data-dir", "data.npz", "--out", "run"]))
    return folder, (code, out.getvalue(), error.getvalue())


@pytest.fixture
def run_program(first, monkeypatch, capsys):
    """`npvae train` within this process, in the folder of `first`: exit code, stdout, stderr.  No pictures."""
    without_pictures(monkeypatch)
    monkeypatch.setattr(runs, "write_report", lambda folder: folder / "report.html")
    return partial(program_in(first[0], monkeypatch, capsys), "train")


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())["settings"]


# ---- A whole run

def test_a_run_leaves_everything(first):
    folder, (code, _, error) = first
    assert code == 0, error
    assert {path.name for path in (folder / "run").iterdir()} == FILES
    history = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [metrics["epoch"] for metrics in history] == [1, 2]
    arrays, manifest = checkpoint.read(folder / "run" / "checkpoint.npz")
    assert manifest["training"]["history"] == history and {*arrays} == {"parameters", "m", "v"}
    assert manifest["vae"]["hidden"] == [5] and manifest["vae"]["latent_dim"] == 3


def test_a_run_without_a_terminal_prints_a_line_per_epoch(first):
    folder, (_, out, error) = first
    read, *epochs = error.splitlines()
    assert read == ("read 70 images of 4 x 3 from data.npz, uint8 0 to 255, taken as grey levels / 255; 3 labels, "
                    "0 to 2; the test part is its own, 20")
    assert [line[:11] for line in epochs] == ["epoch   1/2", "epoch   2/2"]
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["data"] == {"line": read, "values": "bytes", "warnings": []}
    assert read.removeprefix("read ") in (folder / "run" / "report.html").read_text()
    assert "\r" not in error
    assert "loss" in out and "of 3 latent dimensions" in out
    assert all(f"  {Path('run') / name}\n" in out for name in FILES if name.endswith(".png"))
    assert out.endswith(f"all on one page: {Path('run') / 'report.html'}\n")


def test_help(run_program):
    for flag in ("-h", "--help"):
        code, out, error = run_program(flag)
        assert code == 0 and not error
        assert all(name in out for name in (*FLAGS, "--out", "--resume", "--overwrite", "--quiet", "--threads"))


# ---- Every flag

FLAGS = {"--hidden": ("7,4", [7, 4]), "--latent": ("2", 2), "--activation": ("tanh", "tanh"),
         "--likelihood": ("gaussian:0.3", "gaussian:0.3"), "--prior": ("normal", "normal"),
         "--posterior": ("gaussian", "gaussian"), "--decoder": ("dense", "dense"),
         "--objective": ("iwae", "iwae"), "--k": ("3", 3), "--beta": ("0.5", 0.5), "--kl-warmup": ("0.5", 0.5),
         "--cyclical": ("2", 2), "--free-bits": ("0.1", 0.1), "--gradient": ("dreg", "dreg"), "--epochs": ("3", 3),
         "--binarize": ("dynamic", "dynamic"), "--batch-size": ("20", 20), "--lr": ("0.01", 0.01),
         "--lr-schedule": ("cosine", "cosine"), "--weight-decay": ("0.2", 0.2), "--seed": ("4", 4),
         "--dtype": ("float64", "float64"), "--kernels": ("numpy", "numpy"), "--data-dir": ("data.npz", "data.npz"),
         "--limit": ("40", 40), "--conditional": ("", True), "--header": ("yes", "yes"),
         "--label-column": ("species", "species"), "--delimiter": ("tab", "\t"), "--test-part": ("last", "last"),
         "--test-fraction": ("0.2", 0.2), "--values": ("bytes", "bytes"), "--transpose": ("", True),
         "--grey": ("", True), "--rgb": ("", True), "--resize": ("4X3", "4x3"),
         "--test-data": ("data.npz", "data.npz"), "--decimal": (",", ","), "--columns": ("age:skip", "age:skip")}
DEFAULTS = {"hidden": [128], "latent": 20, "activation": "relu", "likelihood": "bernoulli", "prior": "normal",
            "posterior": "gaussian", "decoder": "dense", "objective": "elbo", "k": 1, "beta": 1.0, "kl_warmup": 0.0,
            "cyclical": 0, "free_bits": 0.0, "gradient": "total", "binarize": "none", "epochs": 10,
            "batch_size": 128, "lr": 1e-3, "lr_schedule": "constant", "seed": 0, "dtype": "float32", "kernels": "numba",
            "data_dir": "mnist", "limit": None, "conditional": False, "weight_decay": 0.0, "header": None,
            "label_column": None, "delimiter": None, "decimal": None, "columns": None,
            "test_part": "random", "test_fraction": 0.1,
            "values": None, "transpose": False, "grey": False, "rgb": False, "resize": None, "test_data": None}


def test_no_flag_is_missing_here_and_the_defaults_are_those_of_the_readme():
    assert options.settings(options.training_parser().parse_args([])) == DEFAULTS
    assert {flag.strip("-").replace("-", "_") for flag in FLAGS} == {*DEFAULTS}


@pytest.mark.parametrize("without", [["--free-bits", "--rgb"], ["--objective", "--gradient", "--rgb"]])
def test_every_flag_lands_in_config_json_and_in_the_run(run_program, tmp_path, without):
    flags = {flag: values for flag, values in FLAGS.items() if flag not in without}
    line = [text for flag, (given, _) in flags.items() for text in (flag, given) if text]
    code, out, error = run_program(*line, "--out", tmp_path, "--threads", 1, "--quiet")
    assert (code, out, error) == (0, "", "")
    given = {flag.strip("-").replace("-", "_"): value for flag, (_, value) in flags.items()}
    assert settings_of(tmp_path) == {**DEFAULTS, **given}
    _, manifest = checkpoint.read(tmp_path / "checkpoint.npz")
    expected = {"input_dim": 12, "hidden": [7, 4], "latent_dim": 2, "activation": "tanh", "dtype": "float64",
                "likelihood": "gaussian:0.3", "decoder_hidden": [4, 7], "classes": 3}
    assert manifest["vae"] == expected
    for name, value in {"batch_size": 20, "n_samples": 3, "binarize": "dynamic", "seed": 4, "images": 40}.items():
        assert manifest["settings"][name] == value
    history = manifest["training"]["history"]
    assert [metrics["step"] for metrics in history] == [2, 4, 6]
    assert [metrics["learning_rate"] for metrics in history] == [CosineLR(0.01, 6)(step) for step in (1, 3, 5)]
    assert [metrics["beta"] for metrics in history] == pytest.approx([0.5, 0, 0.5])      # cycles of 3 steps, 1 to rise


@pytest.mark.parametrize("flags, kind, beta, steps", [
    ([], ELBO, lambda step: 1, range(9)), (["--beta", 4], ELBO, lambda step: 4, range(9)),
    (["--objective", "iwae"], IWAE, lambda step: 1, range(9)),
    (["--free-bits", 0.5, "--beta", 2], FreeBits, lambda step: 2, range(9)),
    (["--kl-warmup", 2.5, "--beta", 2], ELBO, LinearAnnealing(10, 2.0), range(20)),
    (["--cyclical", "--objective", "iwae"], IWAE, CyclicalAnnealing(40, 4), range(45)),
    (["--cyclical", 2, "--kl-warmup", 5], ELBO, CyclicalAnnealing(40, 2, 1.0), range(45)),
    (["--cyclical", 5, "--free-bits", 0.5], FreeBits, CyclicalAnnealing(40, 5), range(45))])
def test_objective(flags, kind, beta, steps):
    """4 steps an epoch, 10 epochs."""
    args = options.training_parser(batch_size=16).parse_args([str(flag) for flag in flags])
    objective = options.make_objective(args, images=64)
    assert type(objective) is kind and getattr(objective, "bits", 0.5) == 0.5
    assert [objective.beta(step) for step in steps] == pytest.approx([beta(step) for step in steps])


def test_optimizer():
    for flags, schedule in (([], lambda step: 0.1), (["--lr-schedule", "cosine"], CosineLR(0.1, 50)),
                            (["--lr-schedule", "steps"], StepLR(0.1, [25, 37]))):
        args = options.training_parser(batch_size=16, lr=0.1).parse_args([*flags, "--weight-decay", "0.2"])
        optimizer = options.make_optimizer(args, images=65)      # 5 steps an epoch: the last batch is one image
        assert [optimizer.lr(step) for step in range(52)] == [schedule(step) for step in range(52)]
        assert optimizer.weight_decay == 0.2


@pytest.mark.parametrize("flags, size", [(["--batch-size", 51], 50), (["--limit", 10], 10)])
def test_a_batch_is_never_larger_than_the_training_set(run_program, tmp_path, flags, size):
    """As with the default of 128 and a few pictures of one's own."""
    code, out, _ = run_program(*TINY, "--data-dir", "data.npz", "--out", tmp_path, *flags)
    assert code == 0 and "(trained for only 2 steps: for better pictures try more --epochs" in out
    manifest = checkpoint.read(tmp_path / "checkpoint.npz")[1]
    assert manifest["settings"]["batch_size"] == size
    assert [metrics["step"] for metrics in manifest["training"]["history"]] == [1, 2]
    assert run_program("--out", tmp_path, "--resume", "--epochs", 3, "--quiet") == (0, "", "")


# ---- Refusals

BAD = {
    "--latent 0": "--latent: must be an integer of at least 1, got '0'",
    "--latent two": "--latent: must be an integer of at least 1, got 'two'",
    "--hidden -3": "--hidden: must be positive integers such as 400,200, or none, got '-3'",
    "--hidden 4,x": "--hidden: must be positive integers such as 400,200, or none, got '4,x'",
    "--hidden 4,,4": "--hidden: must be positive integers", "--hidden 0": "--hidden: must be positive integers",
    "--lr 0": "--lr: must be a number more than 0, got '0'", "--lr nan": "--lr: must be a number .*, got 'nan'",
    "--lr inf": "--lr: must be a number more than 0", "--lr -1": "--lr: must be a number more than 0",
    "--beta -1": "--beta: must be a number of at least 0, got '-1'", "--beta nan": "--beta: must be a number",
    "--k 0": "--k: must be an integer of at least 1, got '0'", "--k 1.5": "--k: must be an integer of at least 1",
    "--epochs 0": "--epochs: must be an integer of at least 1, got '0'", "--batch-size 0": "--batch-size: must be",
    "--seed -1": "--seed: must be an integer of at least 0", "--limit 0": "--limit: must be an integer of at least 1",
    "--threads 0": "--threads: must be", "--free-bits -1": "--free-bits: must be", "--kl-warmup -1": "--kl-warmup: ",
    "--cyclical -1": "--cyclical: must be", "--hidden": "--hidden: expected one .*npvae train --help",
    "--activation swish": f"--activation: .*'swish'.*{'.*'.join(ACTIVATIONS)}",
    "--likelihood weibull": f"--likelihood: .*{', '.join(LIKELIHOODS)}, got 'weibull'",
    "--likelihood gaussian:0": "--likelihood: .*'gaussian:0': sigma must be a finite number more than 0",
    "--posterior planar": "--posterior: posterior must be gaussian, planar:T, iaf:T or iaf:T:H, .*, got 'planar'",
    "--posterior iaf:2 --free-bits 0.1": "--free-bits needs the analytic KL of --posterior gaussian, got .* iaf:2",
    "--decoder made": "--decoder: decoder must be dense, made:H or made:H.direct, .*, got 'made'",
    "--decoder made:4 --likelihood gaussian": "decoder made:4 needs likelihood bernoulli, got .*: use decoder dense",
    "--objective vi": "--objective: .*'vi'.*elbo.*iwae",
    "--binarize grey": "--binarize: .*'grey'.*none.*threshold.*static.*dynamic",
    "--lr-schedule warm": "--lr-schedule: .*'warm'.*constant.*steps.*cosine",
    "--dtype float16": "--dtype: .*'float16'.*float32.*float64", "--kernels cuda": "--kernels: .*'cuda'.*numba.*numpy",
    "--data-dir nowhere": "nowhere: there is no such file or folder; .* are allowed",
    "--data-dir file": "file: is not a data set; .* are allowed",
    "--data-dir run": "--out run lies in --data-dir run, among the pictures; choose a folder outside",
    "--data-dir .": "--out run lies in --data-dir .,", "--data-dir half": "half: lacks train-images",
    "--data-dir wide.npy": r"wide.npy: the training images must lie in \[0, 1\] for",
    "--data-dir nan.npy": "nan.npy: the training images must have an observed cell in every",
    "--nonsense": "unrecognized arguments: --nonsense",
    "--hid 4": "unrecognized arguments: --hid 4", "--latent": "--latent: expected one argument",
    "--out file": "--out file cannot be written", "--out file/run": "--out file/run cannot be written",
    "--objective iwae --free-bits 1": "--free-bits needs the analytic KL of --objective elbo, got --objective iwae",
    "--cyclical 2 --kl-warmup 1.1": "--kl-warmup 1.1 is longer than one of the 2 cycles in 2 epochs",
    "--resume": "--resume and --overwrite exclude each other"}


@pytest.mark.parametrize("flags", BAD)
def test_bad_input_is_refused_in_one_line(first, run_program, flags):
    """--overwrite, so that the run in the folder would be lost if the flags were looked at too late."""
    before = contents(first[0])
    tiny = (*TINY, "--data-dir", "data.npz", "--out", "run", "--overwrite")
    assert_refused(run_program(*tiny, *flags.split()), BAD[flags])
    assert contents(first[0]) == before


def test_a_folder_that_holds_a_run_is_left_alone(first, run_program):
    before = contents(first[0])
    assert_refused(run_program("--out", "run"), "--out run already holds a run: .*--resume.*--overwrite.*another")
    assert contents(first[0]) == before


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_folder_in_the_place_of_a_file_is_found_before_training(first, run_program, tmp_path, name):
    out = tmp_path / "run"
    (out / name).mkdir(parents=True)
    assert_refused(run_program(*TINY, "--data-dir", "data.npz", "--out", out, "--overwrite"), f"holds a folder {name}")
    assert [path.name for path in out.iterdir()] == [name]


def test_overwrite(first, run_program, tmp_path):
    shutil.copytree(first[0] / "run", tmp_path / "run")
    code, _, _ = run_program(*TINY, "--data-dir", "data.npz", "--out", tmp_path / "run", "--overwrite", "--epochs", 1)
    assert code == 0 and settings_of(tmp_path / "run")["epochs"] == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_overwrite_leaves_no_numbers_of_the_old_run(first, run_program, tmp_path):
    """A run that fails in its first epoch does not pass for the one it replaced."""
    out = shutil.copytree(first[0] / "run", tmp_path / "run")
    code, _, _ = run_program(*TINY, "--data-dir", "data.npz", "--out", out, "--overwrite", "--lr", 1e30, "--quiet")
    assert code == 1 and not (out / "checkpoint.npz").exists() and not (out / "metrics.jsonl").read_text()


def test_overwrite_is_never_half_done(first, run_program, tmp_path, monkeypatch):
    """Wherever it is stopped, what is left is not taken for a run of the new settings."""
    unlink = os.unlink
    for stop in range(20):
        out, left = shutil.copytree(first[0] / "run", tmp_path / str(stop)), [stop]

        def stopping(path, **options):
            if Path(path).parent == out:
                left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            unlink(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", stopping)
            code, *_ = run_program(*TINY, "--data-dir", "data.npz", "--out", out, "--overwrite", "--quiet", "--seed", 7)
        if not code:
            break
        assert code == 130
        if stop:
            assert not (out / "config.json").exists()
        else:
            assert contents(out) == contents(first[0] / "run")
    assert stop > 5


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]])
def test_a_folder_that_another_run_has_is_refused(flags, copy, run_program, tmp_path):
    before = contents(copy)
    with claimed(copy):
        code, out, error = run_program(*([] if flags == ["--resume"] else [*TINY, "--data-dir", "data.npz"]),
                                       "--out", copy, *flags)
    says = "--out .* is in use by another run: wait until it ends, or choose another folder$"
    assert_refused((code, out, error), says if flags else "already holds a run")
    assert contents(copy) == before


def test_a_new_folder_that_another_run_has_is_refused(run_program, tmp_path):
    with claimed(tmp_path / "new"):
        result = run_program(*TINY, "--data-dir", "data.npz", "--out", tmp_path / "new")
        assert_refused(result, "--out .*new is in use by another run")
        assert not list((tmp_path / "new").iterdir())


def test_a_run_that_ends_while_another_one_starts(first, run_program, tmp_path, monkeypatch):
    """It is not written over: what was seen before the folder was claimed is looked at again."""
    out, check, calls = tmp_path / "out", options.check_folder, []

    def late(args):
        check(args)
        if not calls:
            shutil.copytree(first[0] / "run", out)
        calls.append(args)

    monkeypatch.setattr(options, "check_folder", late)
    assert_refused(run_program(*TINY, "--data-dir", "data.npz", "--out", out), "already holds a run")
    assert contents(out) == contents(first[0] / "run")


@pytest.mark.parametrize("name", ["checkpoint.npz", "metrics.jsonl"])
def test_what_is_left_of_a_run_is_left_alone(name, first, run_program, tmp_path):
    shutil.copy(first[0] / "run" / name, tmp_path)
    before = contents(tmp_path)
    assert_refused(run_program(*TINY, "--data-dir", "data.npz", "--out", tmp_path), f"holds {name} of a run, but no")
    assert contents(tmp_path) == before


def test_ctrl_c_before_a_run_has_begun_names_no_way_to_go_on(run_program, monkeypatch, tmp_path):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "load_images", stop)
    assert run_program(*TINY, "--out", tmp_path / "new") == (130, "", "\nnpvae: stopped\n")
    assert not (tmp_path / "new").exists()


# ---- Resuming

@pytest.fixture
def copy(first, tmp_path):
    """A copy of the finished run, to go on with."""
    return shutil.copytree(first[0] / "run", tmp_path / "copy")


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "settings": {**config["settings"], **changes}}))


def test_resume_with_more_epochs(copy, run_program):
    before = (copy / "metrics.jsonl").read_text()
    code, _, error = run_program("--out", copy, "--resume", "--epochs", 3)
    assert code == 0 and [line[:11] for line in error.splitlines()] == ["epoch   3/3"]
    metrics = (copy / "metrics.jsonl").read_text()
    assert metrics.startswith(before) and len(metrics.splitlines()) == 3
    assert settings_of(copy)["epochs"] == 3 and settings_of(copy)["hidden"] == [5]


def test_resume_with_its_own_settings_given_again(copy, run_program):
    assert run_program("--out", copy, "--resume", *TINY, "--data-dir", "data.npz", "--quiet") == (0, "", "")


def test_resume_of_a_run_that_had_saved_nothing_yet(copy, run_program):
    (copy / "checkpoint.npz").unlink()
    (copy / "metrics.jsonl").write_text("")
    code, _, error = run_program("--out", copy, "--resume")
    says, *epochs = error.splitlines()
    assert code == 0 and len(epochs) == 2
    assert says == f"{copy} holds no checkpoint.npz yet: the run starts from the beginning"


def test_resume_without_a_checkpoint_that_was_there_loses_no_metrics(copy, run_program):
    (copy / "checkpoint.npz").unlink()
    before = contents(copy)
    assert_refused(run_program("--out", copy, "--resume"), "holds metrics.jsonl of finished epochs, but no check")
    assert contents(copy) == before


@pytest.mark.parametrize("flags, says", [
    ("--latent 4", "other settings: --latent is 3 there, 4 here$"),
    ("--hidden 6 --lr 0.1", r"--hidden is \[5\] there, \[6\] here; --lr is 0.001 there, 0.1 here$"),
    ("--objective iwae", "--objective is elbo there, iwae here"), ("--seed 1", "--seed is 0 there, 1 here"),
    ("--batch-size 128", "--batch-size is 16 there, 128 here"),      # a default, but given
    ("--data-dir mnist", "--data-dir is data.npz there, mnist here"), ("--epochs 1", "2 epochs.* at least .*got 1")])
def test_resume_with_other_settings_is_refused(copy, run_program, flags, says):
    before = contents(copy)
    assert_refused(run_program("--out", copy, "--resume", *flags.split()), says)
    assert contents(copy) == before


@pytest.mark.parametrize("changes", [{"lr_schedule": "cosine"}, {"lr_schedule": "steps"}, {"cyclical": 2}])
def test_more_epochs_are_refused_where_the_schedule_depends_on_them(copy, run_program, changes):
    edit_config(copy, **changes)
    before = contents(copy)
    assert_refused(run_program("--out", copy, "--resume", "--epochs", 3), "--epochs is 2 there, 3 here")
    assert contents(copy) == before


def damage(folder):
    content = bytearray((folder / "checkpoint.npz").read_bytes())
    content[len(content) // 3] ^= 1
    (folder / "checkpoint.npz").write_bytes(content)


@pytest.mark.parametrize("spoil, says", [
    (damage, "checkpoint.npz: .* or damaged"),
    (lambda folder: edit_config(folder, hidden=[6]), r"checkpoint.npz: .*hidden is \[6\] here and \[5\] there"),
    (lambda folder: edit_config(folder, data_dir="wide.npy", likelihood="gaussian"), "checkpoint.npz: .*likelihood is"),
    (lambda folder: edit_config(folder, latent=0), "config.json: argument --latent: must be an integer of"),
    (lambda folder: edit_config(folder, flavour=0), "config.json is of another program or version: .*flavour"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json is not the config.json of a run"),
    (lambda folder: (folder / "config.json").write_text('{"settings": 3}'), "is not the config.json of a run"),
    (lambda folder: (folder / "config.json").unlink(), "there is no run in .*config.json cannot be read")])
def test_resume_of_a_spoiled_run_is_refused(copy, run_program, spoil, says):
    spoil(copy)
    before = contents(copy)
    assert_refused(run_program("--out", copy, "--resume"), says)
    assert contents(copy) == before


def test_nan_ends_with_one_line_and_1(copy, run_program):
    edit_config(copy, lr=1e30)
    arrays, manifest = checkpoint.read(copy / "checkpoint.npz")
    del manifest["settings"]["optimizer"]      # as older ones: else the other learning rate is refused
    checkpoint.write(copy / "checkpoint.npz", arrays, manifest)
    before = (copy / "checkpoint.npz").read_bytes()
    code, out, error = run_program("--out", copy, "--resume", "--epochs", 3, "--quiet")
    assert code == 1 and not out and len(error.splitlines()) == 1
    assert "step 9: " in error and "holds NaN or infinity" in error and "the last checkpoint is kept" in error
    assert (copy / "checkpoint.npz").read_bytes() == before
