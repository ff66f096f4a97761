"""npvae.testing: what it draws, how failures shrink, and what assert_gradients says."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from npvae import ELBO, VAE
from npvae.gradcheck import check_gradients, check_pair
from npvae.layers import ACTIVATIONS
from npvae.likelihoods import LIKELIHOODS
from npvae.testing import (
    assert_gradients, away_from, images, inputs, logits, matrices, noise, probabilities, register_profiles, seeds,
    shapes, small_vaes, spread)

ROOT = Path(__file__).parents[1]
RANGES = {matrices: (-1, 1), logits: (-6, 6), probabilities: (0.02, 0.98), noise: (-6, 6),
          lambda shape: away_from([0, 1.5], shape): (-3, 3)}


# --- what is drawn ---

@given(drawn=shapes("BDH", least=2, most=4))
def test_sizes_are_pairwise_distinct(drawn):
    assert list(drawn) == ["B", "D", "H"] and sorted(drawn.values()) == [2, 3, 4]


def test_sizes_shrink_and_reach_both_ends():
    assert find(shapes("BD"), lambda size: size["D"] > size["B"]) == {"B": 1, "D": 2}
    assert find(shapes("A"), lambda size: size["A"] == 9) == {"A": 9}
    assert find(seeds(), lambda seed: seed >= 0) == 0
    assert find(seeds(), lambda seed: seed > 2**31) == 2**31 + 1


@pytest.mark.parametrize("strategy", RANGES)
@given(data=st.data(), size=shapes("ABC"))
def test_values_are_generic(strategy, data, size):
    """float64 of the shape asked for, within their range, no two alike, and no two arrays alike."""
    one, other = (data.draw(strategy(tuple(size.values()))) for _ in range(2))
    low, high = RANGES[strategy]
    for array in (one, other):
        assert array.dtype == float and array.shape == tuple(size.values()) and array.flags.writeable
        assert low <= array.min() and array.max() <= high
    assert len(np.unique([one, other])) == 2 * one.size


@pytest.mark.every(3)
@pytest.mark.parametrize("strategy", RANGES)
def test_values_fill_their_range(strategy):
    """Well scaled: not all near zero, both signs where there are two."""
    array = find(strategy((40, 50)), lambda array: True)
    low, high = RANGES[strategy]
    assert array.min() < low + 0.6 * (high - low) / 2 and array.max() > high - 0.6 * (high - low) / 2
    assert strategy is not matrices or np.abs(array).min() >= 0.05
    assert strategy is not noise or (abs(array.mean()) < 0.1 and abs(array.std() - 1) < 0.1)
    assert (strategy is probabilities) == bool((array > 0).all())


@given(kinks=st.lists(st.floats(-3.5, 3.5), max_size=4), margin=st.floats(1e-3, 0.3), data=st.data())
def test_values_keep_away_from_kinks(kinks, margin, data):
    array = data.draw(away_from(kinks, (3, 4), margin))
    assert all((np.abs(array - kink) >= margin * (1 - 1e-9)).all() for kink in kinks)
    assert (np.abs(array) <= 3).all()


def test_values_are_found_on_every_side_of_the_kinks():
    array = find(away_from([1, -1], (30, 30)), lambda array: True)
    assert [(array < -1.1).any(), (np.abs(array) < 0.9).any(), (array > 1.1).any()] == [True] * 3
    share = (np.abs(array) < 0.9).mean()
    assert share == pytest.approx(1.8 / 5.6, abs=0.06)


def test_spread_takes_a_generator():
    one = spread(np.random.default_rng(3), (50,), most=2.0)
    assert np.array_equal(one, spread(np.random.default_rng(3), (50,), most=2.0))
    assert 1.5 < np.abs(one).max() <= 2 and np.abs(one).min() >= 0.05 and (one > 0).any() and (one < 0).any()


@given(drawn=inputs({"x": "BD", "W": "DH", "p": "BH", "s": ""}, least=2, draw={"p": probabilities}))
def test_inputs_have_the_shapes_of_their_letters(drawn):
    assert list(drawn) == ["x", "W", "p", "s"] and drawn["s"].shape == ()
    (B, D), H = drawn["x"].shape, drawn["W"].shape[1]
    assert drawn["W"].shape == (D, H) and drawn["p"].shape == (B, H) and len({B, D, H}) == 3 and min(B, D, H) >= 2
    assert (drawn["p"] > 0).all()


def test_failures_shrink_to_the_smallest_shape():
    """And print as arrays that can be pasted."""
    smallest = find(inputs({"x": "BD", "W": "DH"}), lambda drawn: drawn["W"].shape[1] >= 3)
    assert sorted([*smallest["x"].shape, smallest["W"].shape[1]]) == [1, 2, 3]


@settings(max_examples=50)
@given(st.data())
def _collect(seen, data):
    seen.append(data.draw(small_vaes()))


@pytest.mark.slow
def test_small_vaes_are_of_every_kind():
    """Each is found, if a hundred draws by chance do not have it."""
    seen, plain = [], settings(max_examples=1000, phases=[Phase.generate])
    _collect(seen)
    for activation in set(ACTIVATIONS) - {vae.activation for vae in seen}:
        seen.append(find(small_vaes(), lambda vae: vae.activation == activation, settings=plain))
    for likelihood in set(LIKELIHOODS) - {vae.likelihood.name.split(":")[0] for vae in seen}:
        seen.append(find(small_vaes(), lambda vae: vae.likelihood.name.split(":")[0] == likelihood, settings=plain))
    assert {vae.likelihood.levels for vae in seen if vae.likelihood.name.startswith("categorical")} == {4}
    assert {len(vae.hidden) for vae in seen} == {0, 1, 2}
    for vae in seen:
        sizes = [vae.input_dim, vae.latent_dim, *vae.hidden]
        assert vae.dtype == "float64" and len(set(sizes)) == len(sizes) and max(sizes) <= 8
        assert all(value.all() for value in vae.parameters.values())      # biases too


@given(data=st.data(), vae=small_vaes(), draws=st.integers(1, 3))
def test_a_whole_model_by_way_of_the_library(data, vae, draws):
    """What a user's test of a model looks like."""
    x, eps = data.draw(images(vae, 4)), data.draw(noise((4, draws, vae.latent_dim)))
    analytic = VAE(**{**vae.config(), "dtype": "complex128"}, kernels="numpy")

    def loss(parameters):
        return analytic.loss(x, eps, ELBO(0.5), parameters=parameters)
    _, gradients = vae.loss_and_gradients(x, eps, ELBO(0.5))
    # of one column, or of a row without counts, a multinomial has no gradient; some parameters are not learned by it
    fixed = ["likelihood.log_totals"] + ["likelihood.logvar"] * (vae.likelihood.name == "gaussian-optimal")
    dead = list(vae.parameters) if vae.activation == "relu" or vae.likelihood.name == "multinomial" else [
        name for name in vae.parameters if name in fixed]
    assert_gradients(loss, gradients, vae.parameters, tolerance=1e-11, vacuous=dead)


# --- the assertion ---

AT = {"w": np.array([1.0, -2.0, 3.0]), "v": np.array([0.5])}


def loss(p):
    return (p["w"] ** 2).sum() + (p["v"] * p["w"][0]).sum()


RIGHT = {"w": 2 * AT["w"] + np.array([0.5, 0, 0]), "v": AT["w"][:1].copy()}


def forward(x, w):
    return x * w


def backward(dout, x, w):
    return {"x": dout * w, "w": dout * x}


PAIR = {"x": np.array([1.0, 2.0, 3.0]), "w": np.array([-1.0, 0.5, 2.0])}


@pytest.mark.parametrize("method", ["complex", "central", "directional", "directional central"])
def test_right_gradients_pass_and_wrong_ones_fail_with_the_report(method):
    report = check_gradients(loss, RIGHT, AT, method)
    assert assert_gradients(loss, RIGHT, AT, method=method) == report and report.ok
    wrong = {**RIGHT, "w": 7 * RIGHT["w"]}
    with pytest.raises(AssertionError) as caught:
        assert_gradients(loss, wrong, AT, method=method, counts={"B": 7})
    assert str(caught.value) == str(check_gradients(loss, wrong, AT, method, counts={"B": 7}))
    assert "is a mean over B missing?" in str(caught.value)
    assert not assert_gradients(loss, wrong, AT, method=method, tolerance=10).vacuous


@pytest.mark.parametrize("method", ["complex", "central"])
def test_right_layers_pass_and_wrong_ones_fail_with_the_report(method):
    report = check_pair(forward, backward, PAIR, method=method)
    assert assert_gradients(forward, backward, PAIR, method=method) == report and report.ok
    assert_gradients(forward, lambda dout, x, w: {"x": dout * w}, PAIR, method=method, constants=["w"])
    for wrong in (lambda dout, x, w: {"x": -dout * w, "w": dout * x},
                  lambda dout, x, w: {"x": dout * w, "w": np.multiply(dout, x, out=dout)}):
        with pytest.raises(AssertionError) as caught:
            assert_gradients(forward, wrong, PAIR, method=method)
        assert str(caught.value) == str(check_pair(forward, wrong, PAIR, method=method))


def test_what_tests_nothing_fails_unless_allowed():
    at = {"used": np.ones(2), "unused": np.ones(3), "idle": np.ones(1)}
    gradients = {"used": 2 * at["used"], "unused": np.zeros(3), "idle": np.zeros(1)}

    def loss(p):
        return (p["used"] ** 2).sum()
    for allowed, named in (([], "unused, idle"), (["unused"], "idle"), ({"idle", "used"}, "unused")):
        with pytest.raises(AssertionError) as caught:
            assert_gradients(loss, gradients, at, vacuous=allowed)
        assert f"\n* nothing was tested of {named}: other values, or vacuous=" in str(caught.value)
        assert str(caught.value).startswith(str(check_gradients(loss, gradients, at)))
    assert assert_gradients(loss, gradients, at, vacuous=["unused", "idle"]).vacuous == ("unused", "idle")
    with pytest.raises(AssertionError, match="gradients WRONG"):
        assert_gradients(loss, {**gradients, "idle": np.ones(1)}, at, vacuous=["unused", "idle"])
    with pytest.raises(AssertionError, match="nothing was tested of w"):
        assert_gradients(lambda x, w: x + 0 * w, lambda dout, x, w: {"x": 1 * dout, "w": 0 * dout}, PAIR)


@pytest.mark.parametrize("call, error, says", [
    (lambda: shapes("BDB"), ValueError, "letters must differ from one another, got 'BDB'"),
    (lambda: shapes("BDH", most=2), ValueError, "sizes from 1 to 2 must be positive and enough for the 3 letters of"),
    (lambda: shapes("B", least=0), ValueError, "sizes from 0 to 9 must be positive"),
    (lambda: away_from([0], (3,), 0), ValueError, "margin must be more than 0, got 0"),
    (lambda: away_from([-2, 0, 2], (3,), 1.5), ValueError, "a margin of 1.5 around kinks [-2, 0, 2] leaves nothing"),
    (lambda: inputs({"x": "BD"}, draw={"y": logits}), ValueError, "draw must name inputs among x, got y"),
    (lambda: inputs({"x": "BDH"}, most=2), ValueError, "enough for the 3 letters"),
    (lambda: assert_gradients(loss, RIGHT, AT, vacuous=["u"]), ValueError, "a list of names among w, v, got ['u']"),
    (lambda: assert_gradients(loss, RIGHT, AT, vacuous="w"), ValueError, "a list of names among w, v, got 'w'"),
    (lambda: assert_gradients(loss, RIGHT, AT, constants=["v"]), ValueError, "constants are for a layer"),
    (lambda: assert_gradients(forward, backward, PAIR, counts={}), ValueError, "counts are for a loss"),
    (lambda: assert_gradients(loss, RIGHT, AT, method="forward"), ValueError, "method must be one of"),
    (lambda: assert_gradients(loss, RIGHT, {"w": AT["w"]}), ValueError, "gradients name ['v', 'w'], parameters ['w']")])
def test_bad_arguments_are_named(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value) and "\n" not in str(caught.value)


# --- profiles, and the import ---

def test_profiles():
    before = settings().max_examples      # registering the profile in use changes it at once
    try:
        register_profiles(max_examples=7)
        for name in ("npvae", "npvae-ci"):
            profile = settings.get_profile(name)
            assert profile.deadline is None and profile.max_examples == 7
        assert settings.get_profile("npvae-ci").derandomize
        assert not settings.get_profile("npvae").derandomize
    finally:
        register_profiles()
        assert settings.get_profile("npvae").max_examples == 30
        register_profiles(max_examples=before)


def python(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_without_hypothesis_one_line_says_what_to_install():
    result = python("import sys; sys.modules['hypothesis'] = None\nimport npvae\nimport npvae.testing")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ImportError: npvae.testing needs hypothesis: pip install 'npvae[test]'"
    assert "ModuleNotFoundError" not in result.stderr


def test_the_core_does_not_load_hypothesis():
    result = python("import sys, npvae, npvae.gradcheck; print('hypothesis' in sys.modules); import npvae.testing\n"
                    "print('hypothesis' in sys.modules, 'numba' in sys.modules)")
    assert (result.returncode, result.stdout) == (0, "False\nTrue False\n"), result.stderr
