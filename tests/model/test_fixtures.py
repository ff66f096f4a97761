"""Two independent oracles: PyTorch's and JAX's losses and gradients of 50 configurations each, and torch.optim.Adam.

Neither package is needed here: what they computed, in float64, was recorded by `fixtures/make_fixtures.py`.
"""
import ast
import functools
import hashlib
import importlib
import importlib.util
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, Adam, FreeBits
from npvae.kernels import load, reference
from npvae.layers import ACTIVATIONS
from npvae.params import Block

FOLDER = Path(__file__).resolve().parents[1] / "fixtures"
spec = importlib.util.spec_from_file_location("configurations", FOLDER / "configurations.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

FRAMEWORKS = ("torch", "jax")
TOLERANCES = {"numpy": 1e-12, "numba": 1e-10}
OBJECTIVES = {"elbo": lambda config: ELBO(config["beta"]),
              "sampled": lambda config: ELBO(config["beta"], sampled=True),
              "free bits": lambda config: FreeBits(config["bits"], config["beta"]),
              "iwae": lambda config: IWAE(config["beta"])}

read = functools.cache(made.read)
every_configuration = pytest.mark.parametrize("framework, i", [(name, i) for name in FRAMEWORKS for i in range(50)])


def recorded(framework, i):
    """Configuration i of a framework, the loss and the named gradients recorded for it."""
    arrays, manifest = read(f"{framework}.npz")
    config, flat = manifest["configurations"][i], arrays[f"{i:03d}"]
    shapes = made.shapes(config)
    stops = np.cumsum([math.prod(shape) for shape in shapes.values()])
    assert flat.shape == (stops[-1],)
    parts = np.split(flat, stops[:-1])
    return config, arrays["losses"][i], {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts)}


def computed(config, numbers, kernels="numpy"):
    """Loss and gradients that npvae finds for parameters, x and eps."""
    parameters, x, eps = numbers
    vae = VAE(config["input_dim"], config["hidden"], config["latent_dim"], config["activation"], config["likelihood"],
              "float64", kernels, decoder_hidden=config["decoder_hidden"])
    assert {name: value.shape for name, value in vae.parameters.items()} == made.shapes(config)
    for name, value in parameters.items():
        vae.parameters[name][...] = value
    loss, gradients = vae.loss_and_gradients(x, eps, OBJECTIVES[config["objective"]](config))
    return loss, dict(gradients)


def differences(loss, gradients, expected_loss, expected, tolerance):
    """The names of what differs by more than `tolerance`, relative to the loss or to the norm of the tensor."""
    assert list(gradients) == list(expected)
    different = [] if abs(loss - expected_loss) <= tolerance * abs(expected_loss) else ["loss"]
    for name, value in gradients.items():
        error, size = np.linalg.norm(value - expected[name]), np.linalg.norm(expected[name])
        if not error <= tolerance * size or (not expected[name].any() and value.any()):
            different.append(name)
    return different


# --- the model ---

@pytest.mark.every(2)
@pytest.mark.parametrize("kernels", TOLERANCES)
@every_configuration
def test_loss_and_every_gradient(framework, i, kernels):
    config, loss, gradients = recorded(framework, i)
    found = computed(config, made.inputs(config), kernels)
    assert differences(*found, loss, gradients, TOLERANCES[kernels]) == [], config


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_against_a_framework_itself(activation, framework, monkeypatch):
    """Where it is installed: an activation needs no new recording.  Four objectives, hidden layers on both sides."""
    monkeypatch.syspath_prepend(str(FOLDER))
    with patch.dict(os.environ):      # JAX sets some
        pytest.importorskip(framework)
        oracle = importlib.import_module(f"{framework}_oracle")
    try:
        oracle.activation_of(activation)
    except AttributeError:
        pytest.skip(f"{framework} has no {activation}")
    configs = {config["objective"]: config for config in map(made.draw, range(100, 120))
               if config["hidden"] and config["decoder_hidden"]}
    assert configs.keys() == OBJECTIVES.keys()
    for config in configs.values():
        config["activation"] = activation
        numbers = made.inputs(config)
        expected = oracle.loss_and_gradients(config, *numbers)
        for kernels, tolerance in TOLERANCES.items():
            assert differences(*computed(config, numbers, kernels), *expected, tolerance) == [], (config, kernels)


@pytest.mark.every(9)
@every_configuration
def test_every_setting_counts(framework, i):
    """Another activation, sigma, objective, beta or number of free bits than the recorded one is noticed."""
    config, loss, gradients = recorded(framework, i)
    numbers = made.inputs(config)
    others = [{"beta": config["beta"] * (1 + 1e-6)}]
    if config["hidden"] or config["decoder_hidden"]:
        others += [{"activation": name} for name in ACTIVATIONS if name != config["activation"]]
    if config["likelihood"].startswith("gaussian:"):
        others += [{"likelihood": f"gaussian:{float(config['likelihood'][9:]) * (1 + 1e-6)!r}"}]
    # free bits may all be paid for, and are the elbo then; with one draw, sampled and iwae are one
    same = {"free bits": "elbo", "iwae": "sampled" if config["draws"] == 1 else "iwae"}
    own = same.get(config["objective"], config["objective"])
    others += [{"objective": name, "bits": 1e3} for name in OBJECTIVES
               if name == "free bits" or same.get(name, name) != own]
    for other in others:
        found = computed({**config, **other}, numbers)
        assert differences(*found, loss, gradients, TOLERANCES["numba"]), (config, other)


@pytest.mark.every(21)
@every_configuration
def test_a_perturbed_copy_is_noticed(framework, i):
    """100 times the tolerance in one entry; zero where a number was; a number where zero was; NaN."""
    _, loss, gradients = recorded(framework, i)
    for tolerance in TOLERANCES.values():
        assert differences(loss, gradients, loss, gradients, tolerance) == []
        for factor in (1 + 2 * tolerance, 1 - 2 * tolerance, -1, 0, np.nan):
            assert differences(loss * factor, gradients, loss, gradients, tolerance) == ["loss"]
        for name, value in gradients.items():
            largest = np.unravel_index(np.argmax(np.abs(value)), value.shape)
            changes = [100 * tolerance * value[largest], -value[largest]] if value.any() else [1e-300, 1.0]
            for change in (*changes, np.nan):
                spoilt = value.copy()
                spoilt[largest] += change
                assert differences(loss, {**gradients, name: spoilt}, loss, gradients, tolerance) == [name]
            if value.any():
                assert differences(loss, {**gradients, name: 0 * value}, loss, gradients, tolerance) == [name]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_everything_occurs(framework):
    """Every recorded activation (in a hidden layer), likelihood, objective, each likelihood with each objective, ..."""
    configs = [recorded(framework, i)[0] for i in range(50)]
    kinds = [config["likelihood"].split(":")[0] for config in configs]
    objectives = [config["objective"] for config in configs]
    for part in ("hidden", "decoder_hidden"):
        assert {config["activation"] for config in configs if config[part]} == set(made.ACTIVATIONS)
        assert {len(config[part]) for config in configs} == {0, 1, 2, 3, 4}
    assert {*zip(kinds, objectives)} == {(kind, objective) for kind in made.LIKELIHOODS for objective in OBJECTIVES}
    assert {*zip([config["activation"] for config in configs], objectives)} == {
        (activation, objective) for activation in made.ACTIVATIONS for objective in OBJECTIVES}
    assert len({config["likelihood"] for config in configs}) >= 3 + 4      # four sigmas
    for name, values in (("beta", made.BETAS), ("bits", made.BITS)):
        assert {*zip(objectives, [config[name] for config in configs])} == {
            (objective, value) for objective in OBJECTIVES for value in values}
    assert {config["draws"] for config in configs} == {1, 2, 3, 4, 5}
    assert {config["batch"] for config in configs} == {1, 2, 3, 4, 5, 6, 7, 8, 9}
    sizes = {n for config in configs for n in (config["input_dim"], config["latent_dim"], *config["hidden"])}
    assert sizes == {*range(1, 18)}
    assert sum(config["hidden"] != config["decoder_hidden"][::-1] for config in configs) >= 40


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_few_gradients_are_zero(framework):
    """A tensor whose gradient is zero throughout tests little; dead rectifiers make a few."""
    tensors = [value for i in range(50) for value in recorded(framework, i)[2].values()]
    assert len(tensors) > 600 and sum(not value.any() for value in tensors) <= 0.02 * len(tensors)


# --- Adam ---

def run_adam(settings, kernels):
    """npvae's parameters after each recorded step."""
    parameters = Block({"theta": (12,)}, "float64")
    gradients, optimizer, rows = parameters.zeros_like(), Adam(**settings), []
    parameters.flat[...] = made.ADAM_START
    for step in range(1, made.ADAM_RECORDED[-1] + 1):
        gradients.flat[...] = made.adam_gradient(parameters.flat, step)
        optimizer.step(parameters, gradients, kernels)
        if step in made.ADAM_RECORDED:
            rows.append(parameters.flat.copy())
    return np.stack(rows)


def worst(rows, expected):
    """The largest relative error of a single number, at any recorded step; none of them is near zero."""
    assert rows.shape == expected.shape == (len(made.ADAM_RECORDED), 12) and np.abs(expected).min() > 1e-3
    return np.abs(rows / expected - 1).max()


every_adam = pytest.mark.parametrize("i", range(len(made.ADAM)))


@every_adam
@pytest.mark.parametrize("kernels", TOLERANCES)
def test_adam_is_torch_optim_adam(i, kernels):
    arrays, manifest = read("adam.npz")
    assert manifest["settings"] == list(made.ADAM) and manifest["recorded"] == list(made.ADAM_RECORDED)
    assert made.ADAM_RECORDED[-1] == 1000
    assert worst(run_adam(manifest["settings"][i], load(kernels)), arrays[f"{i:03d}"]) <= 1e-12


def other_adam(**change):
    """The reference kernel, with arguments changed: name=function(old value, beta2, step)."""
    def update(theta, m, v, grad, lr, beta1, beta2, eps, scale, step):
        given = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "scale": scale, "step": step}
        given.update({name: function(given[name], beta2, step) for name, function in change.items()})
        reference.adam_update(theta, m, v, grad, **given)
    return SimpleNamespace(adam_update=update)


@pytest.mark.every(5)
@every_adam
@pytest.mark.parametrize("slip", [
    other_adam(eps=lambda eps, beta2, step: eps / math.sqrt(1 - beta2 ** step)),      # before the bias correction
    other_adam(eps=lambda eps, beta2, step: 1.01 * eps), other_adam(eps=lambda eps, beta2, step: 0.0 * eps + 1e-12),
    other_adam(step=lambda t, beta2, step: 10**9), other_adam(step=lambda t, beta2, step: t + 1),
    other_adam(lr=lambda lr, beta2, step: lr * (1 + 1e-9)), other_adam(beta1=lambda beta, beta2, step: beta + 1e-9),
    other_adam(beta2=lambda beta, beta2, step: beta + 1e-9)],
    ids=["eps inside", "another eps", "tiny eps", "no correction", "step ahead", "lr", "beta1", "beta2"])
def test_another_adam_is_noticed(i, slip):
    arrays, manifest = read("adam.npz")
    assert worst(run_adam(manifest["settings"][i], slip), arrays[f"{i:03d}"]) > 1e-11


# --- the files ---

FILES = ("adam.npz", "jax.npz", "torch.npz")


def test_the_files_are_the_committed_ones():
    assert set(made.sums()) == set(FILES) == {path.name for path in FOLDER.glob("*.npz")}
    assert sum((FOLDER / name).stat().st_size for name in FILES) <= 600_000
    for name in FILES:
        arrays, manifest = read(name)
        assert {"numpy", "python", *(FRAMEWORKS[1:] if name == "jax.npz" else FRAMEWORKS[:1])} <= set(
            manifest["versions"])
        assert manifest["date"] >= "2026" and set(manifest["sha256"]) == set(arrays)


@pytest.mark.every(7)
@every_configuration
def test_the_inputs_are_those_of_the_oracle(framework, i):
    """The seeds follow each other, so none was picked; from each come the same configuration and the same bits."""
    config = dict(recorded(framework, i)[0])
    assert config["seed"] == made.SEEDS[framework][i] == i + 50 * FRAMEWORKS.index(framework)
    parameters, x, eps = made.inputs(config)
    assert config.pop("inputs") == made.digest(*parameters.values(), x, eps)
    assert config == made.draw(config["seed"])


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(name):
    data, total = (FOLDER / name).read_bytes(), made.sums()[name]
    made.unpack(data, name, total)
    for position in np.linspace(0, len(data) - 1, 20, dtype=int):
        spoilt = bytearray(data)
        spoilt[position] ^= 1
        with pytest.raises(made.FixtureError, match="SHA256SUMS"):
            made.unpack(bytes(spoilt), name, total)
    with pytest.raises(made.FixtureError, match="SHA256SUMS"):
        made.unpack(data[:-1], name, total)


def one_ulp(array):
    changed = array.copy()
    changed.flat[-1] = np.nextafter(changed.flat[-1], np.inf)
    return changed


@pytest.mark.every(5)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [
    lambda arrays: {**arrays, "000": one_ulp(arrays["000"])}, lambda arrays: {**arrays, "002": arrays["001"]},
    lambda arrays: {**arrays, "001": arrays["001"].astype(np.float32)}, lambda arrays: {**arrays, "more": np.ones(3)},
    lambda arrays: {key: value for key, value in arrays.items() if key != "000"},
    lambda arrays: {**arrays, "000": arrays["000"].reshape(-1, 1)}],
    ids=["one ulp", "swapped", "float32", "one more", "one less", "reshaped"])
def test_a_changed_array_is_refused(name, change):
    """Even where somebody has brought SHA256SUMS up to date."""
    arrays, manifest = read(name)
    data = made.pack(change(arrays), manifest)
    with pytest.raises(made.FixtureError, match=name):
        made.unpack(data, name, hashlib.sha256(data).hexdigest())


def test_the_oracles_are_independent():
    """By their imports: no oracle knows npvae, the other oracle or the code shared with the tests."""
    allowed = {"torch_oracle": {"torch"}, "jax_oracle": {"jax", "jaxlib"}, "configurations": set(),
               "make_fixtures": {"configurations"}}
    assert {path.stem for path in FOLDER.glob("*.py")} == set(allowed)
    for name, own in allowed.items():
        tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module.split(".")[0] for module in found} - set(sys.stdlib_module_names) == {"numpy"} | own
