"""The summary of all that `evaluate` measures: it holds what its parts say, and tells when bounds miss their order."""
import json
import math
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from npvae import VAE, active_units, kl_per_dimension, plotting, summarize
from npvae.evaluate import LogLikelihood, exact_log_likelihood, information_per_dimension, nats_per_dimension
from npvae.pages import write_explorer
from npvae.plotting import pictures
from npvae.kernels import reference
from npvae.evaluate import Estimate, Summary
from npvae.evaluate.summary import _Groups, _Moments
from measured_models import linear_vae, worsen
from tiny_runs import TINY, program_in, without_pictures


def model(**config):
    vae = VAE(**{"input_dim": 6, "hidden": (5,), "latent_dim": 3, "kernels": "numpy", "dtype": "float64", **config})
    vae.parameters.flat[...] += 0.3 * np.random.default_rng(1).standard_normal(vae.parameters.flat.size)
    return vae


def images(vae, n, rng):
    """x (n, 6), black and white where the decoder looks at pixels."""
    x = rng.random((n, 6))
    return np.rint(x) if "decoder" in vae.config() else x


# ---- All at once

MODELS = {"plain": {}, "numba": {"kernels": "numba", "dtype": "float32"}, "mixture": {"prior": "mixture:3"},
          "flow": {"posterior": "planar:2"}, "classes": {"classes": 3}, "made": {"decoder": "made:4"},
          "two layers": {"prior": "hierarchical:2"}, "vamp": {"prior": "vamp:3"}}


@pytest.mark.every(6)
@pytest.mark.parametrize("name", MODELS)
def test_a_summary_holds_what_the_parts_say(name):
    vae, rng = model(**MODELS[name]), np.random.default_rng(1)
    x, labels = images(vae, 11, rng), np.arange(11) % 3 if vae.classes else None
    found = summarize(vae, x, np.random.default_rng(2), 400, labels)
    assert np.array_equal(found.log_p.values, vae.log_likelihood(x, np.random.default_rng(2), 400, labels))
    assert found.elbo.value == pytest.approx(-found.distortion - found.rate, rel=1e-6) and found.exact is None
    assert list(found.bounds) == ["ELBO", "IWAE-5", "IWAE-50", "log p(x)"] and found.violations == []
    bounds = [vae.elbo(x, rng, labels).mean() for _ in range(300)]
    assert abs(np.mean(bounds) - found.elbo.value) < 5 * math.hypot(np.std(bounds) / math.sqrt(300), found.elbo.error)
    assert found.active_units == active_units(vae, x, labels)
    np.testing.assert_array_equal(found.information_per_dimension, information_per_dimension(vae, x, labels))
    if vae.latent.analytic:
        np.testing.assert_array_equal(found.kl_per_dimension, kl_per_dimension(vae, x, labels))
        assert found.rate == pytest.approx(found.kl_per_dimension.sum(), rel=1e-6)
    else:
        assert found.kl_per_dimension is None and found.sampled_elbo is None
    assert json.loads(json.dumps(found.plain(), allow_nan=False)) == found.plain()
    assert str(found).endswith("ELBO <= IWAE-5 <= IWAE-50 <= log p(x): holds")


@pytest.mark.parametrize("name", ["plain", "mixture"])
def test_bounds_are_those_of_all_draws(name):
    """Against log w of every draw, kept and put together by hand."""
    vae, x, kept = model(**MODELS[name]), np.random.default_rng(0).random((11, 6)), []
    forward = vae.forward

    def keep(a, sampled, kernels=None):
        forward(a, sampled, kernels)
        kept.append((a.nll.copy(), a.log_ratio.copy()))

    vae.forward = keep
    found = summarize(vae, x, np.random.default_rng(2), 330, groups=(7, 50, 120, 330, 1000))
    nll, ratio = (np.concatenate([np.concatenate([one[i] for one in kept[j:j + 3]], axis=1) for j in (0, 3)])
                  for i in (0, 1))
    assert nll.shape == (11, 330) and list(found.iwae) == [7, 50, 120]
    for K, bound in found.iwae.items():
        log_w = -(nll + ratio)[:, :330 // K * K].reshape(11, -1, K)
        values = np.log(np.exp(log_w).mean(axis=2))
        error = math.sqrt((values.var(axis=1, ddof=1) / values.shape[1]).sum()) / 11
        assert bound == pytest.approx((values.mean(), error), rel=1e-9)
    assert found.distortion == pytest.approx(nll.mean())
    sampled = found.sampled_elbo or found.elbo
    assert sampled.value == pytest.approx(-(nll + ratio).mean())
    assert sampled.error == pytest.approx(math.sqrt(((nll + ratio).var(axis=1, ddof=1) / 330).sum()) / 11)


def test_groups_wait_for_the_next_pass_over_the_same_images():
    groups, log_w = _Groups(model(), 6, 4), np.random.default_rng(0).normal(size=(6, 30))
    for images in (slice(0, 3), slice(3, 6)):
        for start, end in ((0, 2), (2, 3), (3, 12), (12, 13), (13, 30)):
            groups.add(images, log_w[images, start:end])
    expected = np.log(np.exp(log_w[:, :28].reshape(6, 7, 4)).mean(axis=2))
    assert groups.count.tolist() == [7] * 6
    assert groups.estimate() == pytest.approx((expected.mean(), np.sqrt(
        (expected.var(axis=1, ddof=1) / 7).sum()) / 6))


def test_moments_of_one_draw_have_no_error():
    moments = _Moments(2)
    moments.add(slice(0, 2), np.array([[1.0], [2.0]]))
    assert moments.estimate().value == 1.5 and math.isnan(moments.estimate().error)
    moments.add(slice(0, 2), np.array([[1.0], [2.0]]))
    assert moments.estimate() == (1.5, 0)


@pytest.mark.parametrize("samples", [1, 2, 9, 10])
def test_few_draws(samples):
    """What cannot be said is left out: no error of one draw, no bound of more than half as many draws as there are."""
    found = summarize(model(), np.full((4, 6), 0.5), np.random.default_rng(0), samples)
    assert list(found.iwae) == [5] * (samples == 10) and found.violations == []
    numbers = [*found.sampled_elbo, found.distortion, found.rate, found.rounding, found.log_p.standard_error,
               *(number for bound in found.bounds.values() for number in bound)]
    assert {type(number) for number in numbers} == {float}
    assert math.isnan(found.elbo.error) == (samples == 1) and (found.plain()["log_p_error"] is None) == (samples == 1)
    one = summarize(model(), np.full((1, 6), 0.5), np.random.default_rng(0), samples)
    assert one.plain()["log_p_standard_error"] is None and "these images" not in str(one) and "nan" not in str(one)


def test_memory_does_not_depend_on_the_number_of_samples():
    vae, x = linear_vae(50, 3, 2)
    summarize(vae, x[:4], np.random.default_rng(0), 1000)
    peaks = []
    for samples in (1000, 20_000):
        tracemalloc.start()
        summarize(vae, x[:4], np.random.default_rng(0), samples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# ---- The order of the bounds

def poor():
    vae, x = linear_vae(8, 3, 6)
    worsen(vae)
    return vae, x


def test_the_linear_model():
    """At the exact posterior all bounds are log p(x); elsewhere they rise to it."""
    vae, x = linear_vae(8, 3, 6)
    tight, truth = summarize(vae, x, np.random.default_rng(0), 300), exact_log_likelihood(vae, x).mean()
    np.testing.assert_allclose([bound.value for bound in (*tight.iwae.values(), tight.sampled_elbo)], truth, atol=1e-9)
    assert tight.log_p.ess.min() == pytest.approx(300) and not tight.violations
    vae, x = poor()
    found = summarize(vae, x, np.random.default_rng(0), 2000)
    values = [bound.value for bound in found.bounds.values()]
    assert list(found.bounds)[-1] == "exact log p(x)" and values == sorted(values) and values[-1] == truth
    assert abs(found.log_p.mean - truth) < 4 * found.log_p.sampling_error < 0.02
    assert "log p(x) <= exact log p(x): holds" in str(found) and f"exact                  {truth:9.2f}" in str(found)


def test_no_false_alarm():
    """Of 60 models of all kinds, trained or not."""
    for seed in range(60):
        vae = model(seed=seed, **list(MODELS.values())[seed % len(MODELS)])
        labels = np.arange(5) % 3 if vae.classes else None
        x, rng = images(vae, 5, np.random.default_rng(seed)), np.random.default_rng(seed)
        found = summarize(vae, x, rng, 120, labels)
        assert found.violations == [], (seed, str(found))


def test_how_low_log_p_is_stands_beside_it():
    """And where draws are too few to say, that they are: of a posterior far too narrow, one draw has nearly all
    weight."""
    vae, x = poor()
    found = summarize(vae, x, np.random.default_rng(0), 400)
    assert found.reliable and -0.05 < found.log_p.sampling_bias < -0.001
    assert f"  low by about {-found.log_p.sampling_bias:.2f}, the bias of" in str(found)
    assert found.plain()["log_p_bias"] == found.log_p.sampling_bias and found.plain()["log_p_reliable"] is True
    vae.parameters["logvar.b"][...] -= 12
    found = summarize(vae, x, np.random.default_rng(0), 60)
    assert not found.reliable and found.plain()["log_p_reliable"] is False
    ess = found.log_p.ess
    assert found.plain()["effective_samples"] == {"median": np.median(ess), "least": ess.min()} and np.ptp(ess) > 0.1
    assert f"low by at least {-found.log_p.sampling_bias:.2f}: too few effective samples" in str(found)
    one = summarize(vae, x, np.random.default_rng(0), 1)
    assert not one.reliable and one.plain()["log_p_bias"] is None and "low by" not in str(one)


def test_rounding_is_no_disorder():
    """Where all weights are equal the draws have next to no error, and the last digits stand in any order."""
    vae, x = linear_vae(8, 3, 6)
    low = VAE(8, (), 3, likelihood="gaussian:0.7", kernels="numpy")
    low.parameters.flat[...] = vae.parameters.flat
    found = [summarize(low, x[:n], np.random.default_rng(n), 300) for n in range(1, 21)]
    assert not any(one.violations for one in found)
    assert any(replace(one, rounding=0.0).violations for one in found)


def negated(name):
    right = getattr(reference, name)

    def wrong(out, *rest):
        right(out, *rest)
        out *= -1

    return name, wrong


def wrong_way_bound(bound, weights, log_w):
    right_bound(bound, weights, -log_w)
    bound *= -1


def half_the_square(nll, *rest):
    right_nll(nll, *rest)
    nll *= 0.9


right_bound, right_nll = reference.importance_bound_forward, reference.gaussian_nll_forward
PLANTED = {
    "KL negated": (*negated("gaussian_kl_forward"), r"ELBO -\S+ lies above IWAE-5"),
    "log q - log p negated": (*negated("log_ratio_forward"), "with the KL term in closed form, .* at the draws"),
    "-log mean 1/w": ("importance_bound_forward", wrong_way_bound, r"IWAE-5 -\S+ lies above IWAE-50"),
    "too small an nll": ("gaussian_nll_forward", half_the_square, r"log p\(x\) -\S+ lies above exact log p"),
    "z = mu": ("box_muller", lambda noise, uniform: noise.fill(0), "with the KL term in closed form, .* at the draws")}


@pytest.mark.parametrize("slip", PLANTED)
def test_a_wrong_order_is_reported(slip, monkeypatch):
    vae, x = poor()
    name, wrong, says = PLANTED[slip]
    assert summarize(vae, x, np.random.default_rng(0), 500).violations == []
    monkeypatch.setattr(reference, name, wrong)
    found = summarize(vae, x, np.random.default_rng(0), 500)
    lines = [line for line in found.violations if re.search(says, line)]
    assert len(lines) == 1 and f"  {lines[0]}" in str(found).splitlines() and "VIOLATED" in str(found)
    assert found.plain()["violations"] == found.violations


def by_hand(**changes):
    """A summary of three images: log p(x) is -9 +- 1/6, or +- 1/sqrt(3) as a sample, and low by 0.04."""
    log_p = LogLikelihood(np.array([-8.0, -9, -10]), np.array([100, 20, 61.5]), np.array([0.3, 0, 0.4]),
                          np.array([-0.03, -0.06, -0.03]), 1234)
    return Summary(**{
        "elbo": Estimate(-12.5, 0.25), "sampled_elbo": Estimate(-12.25, 0.5), "iwae": {
            5: Estimate(-11.0, math.nan), 50: Estimate(-10.0, 0.125)}, "log_p": log_p,
        "exact": np.array([-8.0, -9, -7]), "distortion": 9.5, "rate": 3.0, "active_units": 2, "rounding": 0.5,
        "kl_per_dimension": np.array([1.0, 2.0]), "information_per_dimension": np.array([0.5, 1.5, 0.25]), **changes})


def test_how_much_out_of_order_counts():
    """More than four standard errors of the two, and what rounding does: here 4 |(3, 4)| + 1/2."""
    def count(**changes):
        return len(by_hand(**changes).violations)

    for value, wrong in ((10.5, 0), (10.75, 1)):
        assert count(elbo=Estimate(value, 3.0), sampled_elbo=None, iwae={50: Estimate(-10.0, 4.0)}) == wrong
        for sign in (1, -1):
            low, high = Estimate(-30.0 - sign * value, 3.0), Estimate(-30.0 + sign * 10.0, 4.0)
            assert count(elbo=low, sampled_elbo=high) == count(elbo=high, sampled_elbo=low) == wrong
    for value in (-10.0, -5.0):
        assert count(elbo=Estimate(value, math.nan), sampled_elbo=None) == 0
    assert count(sampled_elbo=None, iwae={}, log_p=replace(by_hand().log_p, values=np.full(3, -7.0))) == 0
    assert count(exact=np.full(3, -10.5)) == 1


TEXT = """\
ELBO                        -12.50 +- 0.25     = -distortion - rate
  distortion, -log p(x|z)     9.50
  rate, KL(q(z|x) || p(z))    3.00
IWAE bound, K = 5           -11.00
IWAE bound, K = 50          -10.00 +- 0.12
log p(x)                     -9.00 +- 0.17     1,234 importance samples
  exact                      -8.00
  +- 0.58 as an estimate for all images of this kind
  low by about 0.04, the bias of the logarithm of a mean
  effective samples           61.5     in the median image; 20.0 at least
active units                  2        of 3
ELBO <= IWAE-5 <= IWAE-50 <= log p(x) <= exact log p(x): holds"""


def test_every_number_in_its_place():
    """In the table and as JSON."""
    found, wrong = by_hand(), by_hand(elbo=Estimate(-7.0, 0.25), exact=None, kl_per_dimension=None, iwae={})
    assert str(found) == TEXT and found.plain() == {
        "elbo": -12.5, "elbo_error": 0.25, "sampled_elbo": {"value": -12.25, "error": 0.5}, "distortion": 9.5,
        "rate": 3.0, "iwae": {"5": {"value": -11.0, "error": None}, "50": {"value": -10.0, "error": 0.125}},
        "log_p": -9.0, "log_p_error": pytest.approx(1 / 6), "log_p_standard_error": pytest.approx(3 ** -0.5),
        "log_p_bias": pytest.approx(-0.04), "log_p_reliable": True, "exact_log_p": -8.0,
        "effective_samples": {"median": 61.5, "least": 20.0}, "active_units": 2, "kl_per_dimension": [1.0, 2.0],
        "information_per_dimension": [0.5, 1.5, 0.25], "violations": []}
    assert wrong.plain()["exact_log_p"] is None and wrong.plain()["kl_per_dimension"] is None
    numbers = [*found.plain()["effective_samples"].values(), found.plain()["log_p"], found.plain()["exact_log_p"]]
    assert {type(number) for number in numbers} == {float}
    assert str(wrong).splitlines()[-3:] == ["ELBO <= log p(x): VIOLATED", *(f"  {line}" for line in wrong.violations)]
    assert wrong.plain()["violations"] == wrong.violations and len(wrong.violations) == 2
    assert by_hand(log_p=replace(found.log_p, biases=np.full(1, -0.05))).reliable      # the first order up to here


# ---- What is refused, and what must not be

@pytest.mark.parametrize("call, says", [
    (lambda vae, x: summarize(vae, x[:, 1:], np.random.default_rng(0)), r"x must have shape \(rows, 6\)"),
    (lambda vae, x: summarize(vae, x + 1, np.random.default_rng(0)), r"x must lie in \[0, 1\]"),
    (lambda vae, x: summarize(vae, x, None), "rng must be a numpy.random.Generator"),
    (lambda vae, x: summarize(vae, x, np.random.default_rng(0), 0), "n_samples must be at least 1"),
    (lambda vae, x: summarize(vae, x, np.random.default_rng(0), 9, groups=(1,)), "groups must be at least 2"),
    (lambda vae, x: summarize(vae, x, np.random.default_rng(0), 9, [1, 1]), "this model has no classes"),
    (lambda vae, x: summarize(model(classes=2), x, np.random.default_rng(0)), "labels must be given"),
    (lambda vae, x: summarize(model(dtype="complex128"), x, np.random.default_rng(0)), "dtype must be one of float32")])
def test_refused_in_one_line(call, says):
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        call(model(), np.full((2, 6), 0.5))
    assert "\n" not in str(caught.value)


@pytest.mark.every(2)
@pytest.mark.parametrize("config", [{"prior": "hierarchical:2"}, {"posterior": "planar:2"}], ids=str)
def test_pictures_and_page_of_models_without_a_kl_per_dimension(config, tmp_path, monkeypatch):
    vae, x = model(**config, dtype="float32"), np.random.default_rng(0).random((30, 6), dtype=np.float32)
    monkeypatch.setattr(pictures, "png", lambda figure: b"")
    paths = plotting.save_pictures(vae, x, None, (2, 3), [], tmp_path, np.random.default_rng(0))
    assert [path.name for path in paths] == ["reconstructions.png", "samples.png", "traversals.png",
                                             "interpolation.png", "latent_scatter.png"]
    order = np.argsort(-nats_per_dimension(vae, x))
    page = write_explorer(vae, x, None, (2, 3), tmp_path / "explore.html").read_text()
    assert [page.index(f'data-j="{j}"') for j in order] == sorted(page.index(f'data-j="{j}"') for j in range(3))
    assert "by falling information" in page


def test_the_program_on_a_run_without_a_kl_per_dimension(tmp_path, monkeypatch, capsys):
    without_pictures(monkeypatch)
    npvae = program_in(tmp_path, monkeypatch, capsys)
    np.savez("data.npz", train=np.full((20, 4, 3), 99, np.uint8), test=np.full((20, 4, 3), 150, np.uint8))
    assert npvae("train", *TINY, "--out", "run", "--prior", "mixture:3", "--quiet") == (0, "", "")
    code, out, error = npvae("evaluate", "run", "--samples", 60, "--json", "x.json")
    found = json.loads((tmp_path / "x.json").read_text())
    assert code == 0 and not error
    assert found["kl_per_dimension"] is None and len(found["information_per_dimension"]) == 3
    assert "information about the image in each dimension, nats at most:\n" in out
    assert npvae("traverse", "run")[0] == npvae("explore", "run")[0] == 0
