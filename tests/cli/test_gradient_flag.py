"""npvae train --gradient: which objective it makes, what it refuses, and that gradcheck holds the loss of such a run
against its own derivative."""
import numpy as np
import pytest

from npvae import ELBO, IWAE, FreeBits
from npvae.cli import options
from npvae.objectives import KLEstimator
from tiny_runs import TINY, program_in, without_pictures


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The program, in a folder with data; no pictures."""
    grey = np.random.default_rng(3).integers(0, 256, (70, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", train=grey[:50], test=grey[50:])
    without_pictures(monkeypatch)
    return program_in(tmp_path, monkeypatch, capsys)


EXACT, SAMPLED, STICKING_THE_LANDING, DOUBLY_REPARAMETERIZED = KLEstimator


@pytest.mark.parametrize("flags, kind, estimator", [
    ("", ELBO, EXACT), ("--gradient total", ELBO, EXACT), ("--gradient stl", ELBO, STICKING_THE_LANDING),
    ("--gradient total --free-bits 0.1", FreeBits, EXACT), ("--objective iwae", IWAE, SAMPLED),
    ("--objective iwae --gradient total", IWAE, SAMPLED),
    ("--objective iwae --gradient dreg", IWAE, DOUBLY_REPARAMETERIZED),
    ("--gradient stl --kl-warmup 2 --beta 3", ELBO, STICKING_THE_LANDING)])
def test_the_objective(flags, kind, estimator):
    args = options.training_parser().parse_args(flags.split())
    options.check_objective(args)
    objective = options.make_objective(args, 1280)
    assert type(objective) is kind and objective.kl_estimator is estimator
    assert objective.beta(10) == (1.5 if "warmup" in flags else 1)


@pytest.mark.parametrize("flags, says", [
    ("--gradient dreg", "--gradient dreg needs the weights of --objective iwae; stl fits elbo, total fits all"),
    ("--gradient dreg --free-bits 1", "--gradient dreg needs the weights of --objective iwae"),
    ("--gradient stl --objective iwae", "--gradient stl needs --objective elbo without --free-bits; dreg fits iwae"),
    ("--gradient stl --free-bits 1", "--gradient stl needs --objective elbo without --free-bits"),
    ("--gradient stl --posterior planar:2", "needs a Gaussian q(z|x), which posterior planar:2 is not"),
    ("--gradient dreg --objective iwae --posterior iaf:1", "needs a Gaussian q(z|x), which posterior iaf:1 is not"),
    ("--gradient reinforce", "'reinforce'")])
def test_what_does_not_fit_is_refused_in_one_line(flags, says, run, tmp_path):
    code, out, error = run("train", *TINY, "--out", tmp_path / "run", *flags.split())
    assert code == 2 and not out and len(error.splitlines()) == 1 and says in error
    assert not (tmp_path / "run").exists()


@pytest.mark.every(2)
@pytest.mark.parametrize("flags", ["--gradient stl", "--objective iwae --gradient dreg --k 3 --prior vamp:4"])
def test_a_run(flags, run, tmp_path):
    """It trains, another one than with the plain gradient; it is resumed with its own flag; and its gradients are found
    right, as what is checked there is the derivative of the loss."""
    here = ("--out", tmp_path / "run", "--quiet")
    assert run("train", *TINY, *flags.split(), *here) == (0, "", "")
    code, out, error = run("train", "--resume", *here, "--epochs", "3", "--gradient", "total")
    assert code == 2 and f"--gradient is {flags.split()[flags.split().index('--gradient') + 1]} there" in error
    assert run("train", "--resume", *here, "--epochs", "3") == (0, "", "")
    code, out, error = run("gradcheck", tmp_path / "run")
    assert code == 0, out
    assert run("evaluate", tmp_path / "run", "--samples", "5")[0] == 0
