"""What was written for npvae before its modules were arranged in rooms: imports, and saved runs.

`fixtures/old_runs` was written by that version: a run stopped in the middle of its second epoch, and what three epochs
ended in.  `fixtures/public_names.json` lists the modules and public names that it had.
"""
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae import VAE, checkpoint, fit

FIXTURES = Path(__file__).parent / "fixtures"
RUNS = json.loads((FIXTURES / "old_runs" / "expected.json").read_text(encoding="utf-8"))
NAMES = json.loads((FIXTURES / "public_names.json").read_text(encoding="utf-8"))
#: of the model's own workings, and of the loaders'
GONE = {"buffers": {"buffers"}, "images": {"count_to_train"}}
LABELS = np.arange(40) % 3


def images(binary):
    x = (np.random.default_rng(16).random((40, 9)) < np.linspace(0.1, 0.9, 9)).astype(np.uint8) * 255
    x[0, 0] = 7
    return x > 100 if binary else x


def options(run):
    """The arguments of `fit`, with objective and optimizer as they were written."""
    made = {name: eval(value, vars(npvae)) if name in ("objective", "optimizer") else value
            for name, value in run["options"].items() if name != "binary"}
    return {**made, **({"labels_train": LABELS, "labels_test": LABELS[:10]} if run["labels"] else {})}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on(name):
    """With its parameters and Adam's moments as they were, to what the version before went on to: the same to rounding,
    which is the machine's."""
    run, path = RUNS[name], FIXTURES / "old_runs" / f"{name}.npz"
    x = images(run["options"].get("binary"))
    vae = VAE(**run["config"], kernels="numpy", seed=9)
    history = fit(vae, x, x[:10], 3, 8, seed=5, resume=path, **options(run))
    assert len(history) == 3 and history[-1]["test_loss"] == pytest.approx(run["loss"], rel=1e-5)
    theta = vae.parameters.flat.astype(float)
    assert theta.sum() == pytest.approx(run["sum"], rel=1e-4)
    assert (theta ** 2).sum() == pytest.approx(run["square"], rel=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_a_model_is_read_bit_for_bit(name):
    path = FIXTURES / "old_runs" / f"{name}.npz"
    arrays, manifest = checkpoint.read(path)
    vae = VAE.load(path, "numpy")
    assert np.array_equal(vae.parameters.flat, arrays["parameters"]) and vae.config() == manifest["vae"]


def test_other_settings_than_the_saved_ones_are_still_refused():
    x = images(False)
    with pytest.raises(checkpoint.CheckpointError, match=r"objective is .ELBO\(beta=0.5, sampled=False\). here and"):
        fit(VAE(**RUNS["plain"]["config"], kernels="numpy"), x, x[:10], 3, 8, seed=5, objective=npvae.ELBO(0.5),
            resume=FIXTURES / "old_runs" / "plain.npz")


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_is_imported_from_where_it_was(module):
    name = "npvae" + f".{module}" * bool(module)
    found = importlib.import_module(name)
    assert [one for one in NAMES[module] if not hasattr(found, one)] == sorted(GONE.get(module, ()))
    assert not hasattr(found, "no_such_name")


def test_old_modules_are_attributes_of_the_package_too():
    """And are what they are called now; a name that never was is missing."""
    code = ("import npvae; assert npvae.levels.BetaBinomial is npvae.likelihoods.levels.BetaBinomial\n"
            "from npvae import lanes, outputs\n"
            "assert lanes.Lanes.__name__ == 'ThreadedExecutor' and outputs.find.__name__ == 'make_decoder'\n"
            "print(hasattr(npvae, 'no_such_module'))")
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100,
                           cwd=Path(npvae.__file__).parents[1])
    assert (found.stdout, found.stderr) == ("False\n", "")
