"""explain.html without a browser: its steps are the calls of kernels of a pass, its numbers those of
`loss_and_gradients`, and what does not fit is refused.  `test_browser_explain.py` opens it."""
import re

import numpy as np
import pytest
from explained import VARIANTS, D, Explained, error, masked, model, write
from pages import loads_nothing

from npvae import VAE, load_mnist
from npvae.kernels import reference
from npvae.objectives import ELBO
from npvae.pages import explain


class Names:
    """Stands in for the kernels: makes each call, and keeps its name."""

    def __init__(self):
        self.names = []

    def __getattr__(self, name):
        return lambda *arguments: (self.names.append(name), getattr(reference, name)(*arguments))


#: parameters that no gradient moves in some models
FIXED = ("likelihood.logvar", "likelihood.log_totals")


@pytest.mark.every(6)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_shows_what_the_model_computes(variant, tmp_path, monkeypatch):
    vae, expected = write(variant, tmp_path / "explain.html", monkeypatch)
    page = Explained(tmp_path / "explain.html")
    assert_named(page)
    data = page.data
    assert loads_nothing(page.page) and len(data["cases"]) == len(expected) == 2

    # The steps are the calls of both passes, in their order.
    kernels, estimator = Names(), ELBO(sampled=not vae.latent.analytic).kl_estimator
    if "log_ratio" in [one["name"] for node in page.nodes for one in node["arguments"]]:
        estimator = ELBO(sampled=True).kl_estimator
    a, d = vae.passes(1, 1)
    a.x[...] = 1      # data of every likelihood
    vae.forward(a, estimator, kernels)
    if vae.likelihood.fits_batch:
        kernels.names.append("gaussian_optimal_nll_forward")
    kernels.names.append("objective")
    vae.backward(d, a, estimator, kernels)
    assert [node["kernel"] for node in page.nodes] == kernels.names
    buttons = page.page.all("button", type="button")
    assert len([one for one in page.page.all("li")]) == len(page.nodes) <= len(buttons)

    for case, (loss, gradients) in enumerate(expected):
        assert data["cases"][case]["loss"] == pytest.approx(loss, rel=1e-12)
        found = page.gradients(case)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            if name in FIXED and np.isnan(found[name]).all():      # fixed, or fitted to the batch
                assert (gradient == 0).all()
            else:
                assert error(found[name], gradient) < 1e-6, name
        previous = {}
        for node, one, values in page.arguments(case):      # where two paths meet
            previous = {} if one is node["arguments"][0] else previous
            previous[one["parameter"]] = values
            if node["kernel"] == "add" and len(previous) == 3:
                assert error(previous["a"] + previous["b"], previous["out"]) < 1e-6

    # Beside them stand the numerical derivatives.
    for name, checks in data["checks"].items():
        assert checks and len({tuple(check["index"]) for check in checks}) == len(checks)
        for check in checks:
            index = tuple(check["index"])
            assert check["weight"] == vae.parameters[name][index]
            for (_, gradients), (analytic, by_complex, central) in zip(expected, check["slopes"], strict=True):
                size = max(1, np.abs(gradients[name]).max())
                assert abs(analytic - gradients[name][index]) <= 1e-12 * size
                if name not in FIXED:
                    assert abs(by_complex - analytic) <= 1e-11 * size and abs(central - analytic) <= 1e-5 * size
    assert all(np.isfinite(page.array(i)).all() for i in range(len(data["arrays"])))


def assert_named(page):
    """Every array has a name, and what is read comes from somewhere."""
    for n, node in enumerate(page.nodes):
        assert node["formula"] and any(one["written"] for one in node["arguments"])
        for one in node["arguments"]:
            assert one["name"] and one["kind"] in ("value", "gradient", "parameter", "constant")
            if one["written"]:
                assert one["kind"] == ("value" if node["phase"] == "forward" else "gradient"), (node["kernel"], one)
            elif one.get("source") is not None:
                assert one["source"] < n
            elif one["kind"] == "gradient":
                pytest.fail(f"{node['kernel']} reads {one['name']}, which no step has written")


def test_formulas_and_ids_come_from_the_docstrings():
    for kernel, phase, formula, ids in (
            (reference.reparameterize_forward, "forward", "z[b, k] = mu[b] + sigma[b] * eps[b, k]", ["D5.1"]),
            (reference.gaussian_kl_backward, "backward", "dlogvar = dkl * 1/2 [ exp(logvar) - 1 ]", ["D6.2", "D6.3"]),
            (reference.tanh_backward, "backward", "dpre[i, j] = dout[i, j] * f'(a[i, j])", ["D2.5", "D1.2", "D1.3"]),
            (reference.matmul, "forward", "out = a b", []), (reference.matmul, "backward", "db = a^T dout", [
                "D0.2", "D0.3"]),
            (reference.add, "backward", "out = a + b", ["D0.4"]), (ELBO(), "objective", "dnll = 1/(B K)", [
                "D11.1", "D7.2", "D7.3", "D7.4"])):
        found, numbers, text = explain.formula_of(kernel, phase)
        assert formula in found and numbers == ids and all(number in found for number in numbers), kernel
        assert re.sub(r"\s+", " ", text.splitlines()[0]) in re.sub(r"\s+", " ", found)


def test_backward_steps_stand_beside_the_step_they_go_back_through():
    lesson = explain._Lesson(model(), np.eye(D)[:1], None, ELBO(), 0, 1, np.random.default_rng(0))
    steps = lesson.case(0, 0.5).steps
    rows = explain._rows(steps)
    beside = {(step.name, step.arguments[0].name): steps[row].name for step, row in zip(steps, rows)
              if step.phase == "backward"}
    assert beside["matmul", "doutput.W"] == beside["matmul", "ddecoder.0"] == "matmul"
    assert beside["reparameterize_backward", "dmu_z"] == "reparameterize_forward"
    assert beside["gaussian_kl_backward", "dmu_kl"] == "gaussian_kl_forward"
    assert beside["add", "dmu"] == "identity_forward" and beside["relu_backward", "dencoder.0_pre"] == "relu_forward"
    for step, row in zip(steps, rows):
        if step.name == "matmul" and step.phase == "backward":
            assert any(one.low == steps[row].arguments[i].low for one in step.arguments for i in (1, 2)), step


@pytest.mark.parametrize("variant", ["planar:2", "iaf:2", "hierarchical:4,2", "made:5+direct", "vamp:2"])
def test_so_do_those_of_any_part(variant):
    vae = model(**VARIANTS[variant])
    objective = ELBO(sampled=not vae.latent.analytic)
    steps = explain._Lesson(vae, np.eye(D)[:1], None, objective, 0, 1, np.random.default_rng(0)).case(0, 0.5).steps
    rows, seen = explain._rows(steps), set()
    for step, row in zip(steps, rows):
        if step.phase == "backward" and step.name.endswith("_backward"):
            beside = "matmul" if step.name == "mask_backward" else step.name.replace("_backward", "_forward")
            assert steps[row].name == beside, step
            assert step.name == "mask_backward" or row not in seen, step      # each beside one of its own
            seen.add(row)
    names = {one.name for step in steps for one in step.arguments}
    assert not [name for name in names if "(" in name.replace("mask(", "") or name in ("out", "a", "b")]


@pytest.mark.slow
def test_a_page_of_mnist_is_small(tmp_path):
    """784-128-20: less than 3 MB, with several images and places of the slider, and right to 1e-6."""
    vae = VAE(kernels="numpy")
    x = load_mnist()[2][:5].reshape(5, -1)
    path = explain.write_explain(vae, x, tmp_path / "explain.html", (28, 28), names=[f"digit {i}" for i in range(5)])
    print(f"\n784-128-20: {path.stat().st_size:,} bytes")
    page = Explained(path)
    assert path.stat().st_size < 3_000_000 and len(page.data["cases"]) >= 10
    assert [text for text in page.page.texts("option") if text.startswith("digit")] == [f"digit {i}" for i in range(5)]
    exact, eps = explain.twin(vae, "float64"), np.random.default_rng(0).standard_normal((1, 1, 20))
    eps[0, 0, page.data["j"]] = page.data["places"][0]
    loss, gradients = exact.loss_and_gradients(x[:1], eps)
    found = page.gradients(0)
    assert page.data["cases"][0]["loss"] == pytest.approx(loss, rel=1e-12)
    worst = max(error(found[name], gradient) for name, gradient in gradients.items())
    print(f"gradients right to {worst:.1e}")
    assert worst < 1e-6


def test_arrays_that_are_made_of_others(tmp_path, monkeypatch):
    """Masked matrices, parts of matrices, products; parameters, which are only looked at, to 1/65534 of the largest."""
    page, arguments = masked(tmp_path / "explain.html", monkeypatch)
    kinds = {kind for entry in page.data["arrays"] if isinstance(entry, dict) for kind in entry}
    assert {"int16", "float32", "bits", "masked", "product", "corner"} <= kinds
    largest = max(np.abs(one.values).max() for one in arguments if one.kind == "parameter")
    for (_, one, values), wanted in zip(page.arguments(0), arguments, strict=True):
        rough = one["kind"] == "parameter" or one["name"].startswith("mask(")
        most = largest / 65534 if rough else 1e-7 * np.abs(wanted.values).max()
        assert np.abs(values - explain.stored(wanted.values).ravel()).max() <= 1.001 * most, one


def test_ids_of_equations_lead_to_their_chapters(tmp_path, monkeypatch):
    def links(place, book=None):
        place.parent.mkdir(exist_ok=True)
        vae = VAE(2, (3,), 2, dtype="float64", kernels="numpy")
        return Explained(explain.write_explain(vae, np.eye(2), place, (1, 2), book=book)).data["links"]
    monkeypatch.setattr(explain, "EPS", (0.75,))
    monkeypatch.setattr(explain, "SMALL", 0)
    chapter = next(explain.CHAPTERS.glob("05-*.md"))
    assert links(tmp_path / "explain.html")["D6.1"] == chapter.as_uri()
    assert links(tmp_path / "explain.html", "https://a.b/c/")["D6.1"] == "https://a.b/c/derivations/05-kl.html#D6.1"
    chapters = tmp_path / "clone" / "examples" / "derivations"
    chapters.mkdir(parents=True)
    monkeypatch.setattr(explain, "CHAPTERS", chapters)
    assert links(tmp_path / "clone" / "runs" / "explain.html") == {}
    (chapters / "01-one.md").write_text("D1.3 is below.\n\n**[D1.2]** one\n\n**D1.3** another\n")
    assert links(tmp_path / "clone" / "runs" / "explain.html") == dict.fromkeys(
        ("D1.2", "D1.3"), "../examples/derivations/01-one.md")


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    path, x = tmp_path / "explain.html", np.eye(D)
    with pytest.raises(ValueError, match="image_shape must be .* product of 6"):
        explain.write_explain(model(), x, path, (2, 2))
    with pytest.raises(ValueError, match="x must have shape"):
        explain.write_explain(model(), x[:, :5], path, (2, 3))
    with pytest.raises(ValueError, match="draws must be"):
        explain.write_explain(model(), x, path, (2, 3), draws=0)
    with pytest.raises(ValueError, match="labels must be given"):
        explain.write_explain(model(classes=3), x, path, (2, 3))
    with pytest.raises(ValueError, match="needs the KL term in closed form"):
        explain.write_explain(model(prior="mixture:2"), x, path, (2, 3), ELBO())
    broken = model()
    broken.parameters["mu.b"][0] = 1e200
    with pytest.raises(ValueError, match="NaN or infinity"), np.errstate(all="ignore"):
        explain.write_explain(broken, x, path, (2, 3))
    monkeypatch.setattr(explain, "MOST", 50)
    with pytest.raises(ValueError, match="too large for a web page; at most 50 fit"):
        explain.write_explain(model(), x, path, (2, 3))
    assert not path.exists()
