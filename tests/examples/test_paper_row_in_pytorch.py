"""A row of the published tables in PyTorch: the same model as npvae's, trained by the same protocol.  All but one of
these tests need PyTorch."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import paper_records
import paper_row_in_pytorch as pytorch
import paper_tables

from npvae import ELBO, IWAE, VAE, checkpoint

ROOT = Path(__file__).parents[2]

NETWORK = {"hidden": (5, 4), "latent_dim": 3, "activation": "tanh"}


def saved(folder, seed=0, **changes):
    """A model of npvae as `paper_tables.py train` leaves it, away from its start."""
    vae, rng = VAE(784, seed=seed, **{**NETWORK, **changes}), np.random.default_rng(seed)
    vae.parameters.flat[...] += rng.normal(0, 0.1, vae.parameters.flat.shape)
    folder.mkdir(parents=True, exist_ok=True)
    vae.save(folder / "epoch-2.npz")
    checkpoint.write(folder / "checkpoint.npz", {}, {"settings": {"seed": seed}})
    return vae


def call(monkeypatch, tmp_path, *flags):
    monkeypatch.setattr(sys, "argv", ["paper_row_in_pytorch.py", "--out", str(tmp_path / "out"), "--results",
                                      str(tmp_path / "results.jsonl"), "--threads", "1", *map(str, flags)])
    return paper_tables.cli.exit_code(pytorch.main)


@pytest.fixture
def torch():
    """Its compiler writes into the environment, as soon as there is an optimizer."""
    module, before = pytest.importorskip("torch"), dict(os.environ)
    yield module
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def few_images(monkeypatch):
    """MNIST of 70 and 30 images, and a tiny network."""
    x_train, labels, x_test, test_labels = pytorch.load_mnist()
    monkeypatch.setattr(pytorch, "load_mnist", lambda: (x_train[:70], labels[:70], x_test[:30], test_labels[:30]))
    monkeypatch.setattr(pytorch, "NETWORK", {**pytorch.NETWORK, "hidden": [5, 4], "decoder_hidden": [4, 5],
                                             "latent_dim": 3})


def test_without_pytorch_it_says_so(tmp_path):
    code = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'x.py'; import paper_row_in_pytorch as p; " \
           "sys.exit(p.cli.exit_code(p.main))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "examples", capture_output=True, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (result.returncode, result.stderr) == (2, "x.py: needs PyTorch, which is not installed: pip install torch\n")


@pytest.mark.parametrize("objective, draws", [(ELBO(sampled=True), 1), (ELBO(sampled=True), 3), (IWAE(), 3)])
def test_loss_and_gradients_are_those_of_npvae(tmp_path, torch, objective, draws):
    """Of weights that npvae saved, under the same noise, in float64."""
    saved(tmp_path)
    weights, network = pytorch.saved_by_npvae(tmp_path / "epoch-2.npz")
    vae, rng = VAE(**{**network, "dtype": "float64"}), np.random.default_rng(1)
    vae.parameters.flat[...] = VAE.load(tmp_path / "epoch-2.npz").parameters.flat
    assert list(weights) == list(vae.parameters)
    x, eps = rng.integers(0, 2, (7, 784)).astype(float), rng.standard_normal((7, draws, 3))
    weights = {name: value.double().requires_grad_() for name, value in weights.items()}
    inputs = torch.from_numpy(x)
    log_w = pytorch.log_weights(weights, inputs, *pytorch.encode(weights, inputs), torch.from_numpy(eps))
    ours = -torch.logsumexp(log_w, 1).mean() + np.log(draws) if isinstance(objective, IWAE) else -log_w.mean()
    ours.backward()
    loss, gradients = vae.loss_and_gradients(x, eps, objective)
    assert ours.item() == pytest.approx(loss, rel=1e-12)
    for name, gradient in gradients.items():
        error = np.abs(weights[name].grad.numpy() - gradient).max()
        assert error < 1e-10 * np.abs(gradient).max(), name


def test_the_start_and_the_stages_are_those_of_the_protocol(torch):
    row = paper_tables.ROWS[pytorch.ROW]
    lr = row.adam(1).lr
    assert [pytorch.learning_rate(epoch) for epoch in range(3280)] == pytest.approx([lr(i) for i in range(3280)])
    images = pytorch.load_mnist()[0]
    vae = paper_tables.new_model(row, images, 0)
    assert vae.config() == pytorch.NETWORK and row.batch == pytorch.BATCH
    start = pytorch.initial(images.mean(axis=0) / 255, pytorch.seeded(0, 0))
    np.testing.assert_allclose(start["output.b"].numpy(), vae.parameters["output.b"], rtol=1e-5, atol=1e-6)
    for name, value in start.items():
        limit = np.sqrt(6 / sum(value.shape))
        if name.endswith(".W"):
            assert abs(float(value.std()) / limit - 3 ** -0.5) < 0.02 and 0.99 < float(value.abs().max()) / limit <= 1
        elif name != "output.b":
            assert not value.any()


def test_an_epoch_visits_every_image_once_in_random_order_binarized(monkeypatch, torch, few_images):
    seen, images = [], np.full((70, 784), 255, np.uint8)
    images[np.arange(70), np.arange(70)], images[:, 783] = 0, 128      # each is known by its black pixel
    monkeypatch.setattr(pytorch, "load_mnist", lambda: (images, None, None, None))
    encode = pytorch.encode
    monkeypatch.setattr(pytorch, "encode", lambda weights, x: seen.append(x.numpy()) or encode(weights, x))
    weights = {name: value.requires_grad_() for name, value in
               pytorch.initial(images.mean(axis=0) / 255, pytorch.seeded(0, 0)).items()}
    before, adam = {name: value.detach().clone() for name, value in weights.items()}, torch.optim.Adam(weights.values())
    for epoch in (1, 2):
        pytorch.train_epoch(weights, adam, torch.from_numpy(images), pytorch.seeded(0, epoch))
    assert [len(x) for x in seen] == 2 * [20, 20, 20, 10]
    assert all((value != before[name]).any() for name, value in weights.items())
    x = np.concatenate(seen)
    assert set(np.unique(x)) == {0, 1} and 40 < x[:, 783].sum() < 100
    orders = np.argmin(x[:, :70], axis=1).reshape(2, 70)
    assert np.array_equal(np.sort(orders), [range(70)] * 2) and (orders[0] != orders[1]).mean() > 0.5
    assert (x[:70, 783][np.argsort(orders[0])] != x[70:, 783][np.argsort(orders[1])]).any()


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, monkeypatch, torch, few_images, capsys):
    flags, seeds, rates, train_epoch = ["--samples", 20, "--images", 30], [], [], pytorch.train_epoch

    def seen(weights, adam, images, generator):
        seeds.append(generator.initial_seed())
        rates.append(adam.param_groups[0]["lr"])
        assert adam.param_groups[0]["eps"] == 1e-4 and adam.param_groups[0]["betas"] == (0.9, 0.999)
        return train_epoch(weights, adam, images, generator)

    monkeypatch.setattr(pytorch, "train_epoch", seen)
    for folder, stops in (("a", (3,)), ("b", (1, 3))):
        for epochs in stops:
            assert call(monkeypatch, tmp_path / folder, "--epochs", epochs, *flags) == 0
    assert len(set(seeds[:3])) == 3 and seeds[:3] == seeds[3:]
    assert rates == pytest.approx(2 * [1e-3, 1e-3 * 10 ** (-1 / 7), 1e-3 * 10 ** (-1 / 7)])
    (a,), (_, b) = (paper_records.lines(tmp_path / folder / "results.jsonl") for folder in "ab")
    assert {**a, "seconds": 0, "training_seconds": 0} == {**b, "seconds": 0, "training_seconds": 0}
    assert (a["row"], a["epoch"], a["seed"], a["samples"], a["images"]) == ("vae-k1-pytorch", 3, 0, 20, 30)
    assert a["minus_elbo"] > a["nll"] > 0 and len(a["kl_per_dimension"]) == 3
    assert call(monkeypatch, tmp_path / "a", "--epochs", 3, *flags) == 0      # nothing is left to do
    assert len(paper_records.lines(tmp_path / "a" / "results.jsonl")) == 1
    capsys.readouterr()
    for wrong, words in ((["--epochs", 2], "is already at epoch 3"),
                         (["--epochs", 3, "--seed", 1], "started with --seed 0")):
        assert call(monkeypatch, tmp_path / "a", *wrong) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "a" / "out" / "checkpoint.pt").write_bytes(b"nothing")
    assert call(monkeypatch, tmp_path / "a", "--epochs", 3) == 2
    error = capsys.readouterr().err
    assert "is no checkpoint of this program" in error and len(error.splitlines()) == 1


def test_a_model_of_npvae_is_measured_alike(tmp_path, monkeypatch, torch, few_images, capsys):
    """log p(x) of the same images by both, each by its own draws."""
    vae = saved(tmp_path / "iwae-k5", seed=4)
    x = (pytorch.binarize(pytorch.load_mnist()[2], "static", np.random.default_rng(2016)) == 255).astype(np.float32)
    npvae = {"row": "iwae-k5", "epoch": 2, "seed": 4, "samples": 300, "images": 30,
             **paper_tables.measured(vae, x, 300, tmp_path / "npvae.npz")}
    paper_records.add_line(tmp_path / "results.jsonl", npvae)
    assert call(monkeypatch, tmp_path, "--check", tmp_path / "iwae-k5" / "epoch-2.npz", "--samples", 300) == 0
    ours = paper_records.lines(tmp_path / "results.jsonl")[1]
    assert (ours["row"], ours["epoch"], ours["seed"], ours["images"]) == ("iwae-k5-checked", 2, 4, 30)
    error = np.hypot(ours["sampling_error"], npvae["sampling_error"])
    assert abs(ours["nll"] - npvae["nll"]) < 4 * error < 0.5
    assert ours["sampling_error"] == pytest.approx(npvae["sampling_error"], rel=0.2)
    assert ours["sampling_bias"] == pytest.approx(npvae["sampling_bias"], rel=0.3)
    assert ours["ess"] == pytest.approx(npvae["ess"], rel=0.2) and ours["active"] == npvae["active"]
    assert ours["error"] == pytest.approx(npvae["error"], rel=0.05)
    assert ours["kl_per_dimension"] == pytest.approx(npvae["kl_per_dimension"], abs=2e-4)
    assert abs(ours["minus_elbo"] - npvae["minus_elbo"]) < 3
    out = capsys.readouterr().out
    assert "iwae-k5, seed 4, epoch 2: NLL" in out and f"higher by {ours['nll'] - npvae['nll']:.4f}" in out


@pytest.mark.parametrize("row, changes, words", [
    ("static-normal", {}, "of a row of dynamic binarization"), ("vae-k1", {"activation": "relu"}, "only a plain VAE"),
    ("vae-k1", {"prior": "mixture:3"}, "only a plain VAE"), ("vae-k1", None, "no model that can be checked")])
def test_other_models_are_refused_in_one_line(row, changes, words, tmp_path, monkeypatch, torch, capsys):
    path = tmp_path / row / "epoch-2.npz"
    if changes is None:
        path.parent.mkdir()
        path.write_text(json.dumps({}))
    else:
        saved(tmp_path / row, **changes)
    assert call(monkeypatch, tmp_path, "--check", path) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
