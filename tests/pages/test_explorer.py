"""explore.html without a browser: the decoder is in it bit for bit, so are points and images, and what does not fit is
refused.  `test_browser.py` opens it."""
import base64
import json
import math
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from pages import Page, loads_nothing

from npvae import VAE
from npvae.pages import explorer
from npvae.evaluate import kl_per_dimension
from npvae.pages import write_explorer
from npvae.kernels import reference
from npvae.layers import ACTIVATIONS, Activation
from npvae.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, make_likelihood
from strategies import IMAGES

SHAPE = (3, 4)


def model(latent_dim=5, hidden=(7, 6), likelihood="bernoulli", **settings):
    """A model whose encoder says something of its own about each dimension, more about some."""
    vae = VAE(12, hidden, latent_dim, likelihood=likelihood, kernels="numpy", seed=3, **settings)
    rng = np.random.default_rng(4)
    vae.parameters.flat[...] = rng.normal(0, 0.5, vae.parameters.flat.size)
    return vae


def images(n, dim=12):
    return np.random.default_rng(5).random((n, dim), dtype=np.float32)


def numbers(text, dtype="<f4"):
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.fixture
def write(tmp_path):
    """The page of a model and the data in it."""
    def write(vae, x=None, labels=None, shape=SHAPE, *ink):
        path = write_explorer(vae, images(60) if x is None else x, labels, shape, tmp_path / "explore.html", *ink)
        assert path == tmp_path / "explore.html"
        page = Page(path)
        (_, data), = page.all("script", type="application/json", id="model")
        return page, json.loads(data)
    return write


# ---- The decoder

DRAWABLE = [name for name in IMAGES if make_likelihood(name).mean.__func__ in explorer.MEANS]


@pytest.mark.every(3)
@pytest.mark.parametrize("likelihood", [*DRAWABLE, "gaussian:0.3"])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 6), (7, 6, 9)])
def test_the_weights_are_those_of_the_model_bit_for_bit(write, likelihood, hidden):
    vae = model(hidden=hidden, likelihood=likelihood)
    _, data = write(vae)
    names = [f"decoder.{i}" for i in range(len(hidden))] + ["output"]
    for layer, name in zip(data["layers"], names, strict=True):
        W, b = vae.parameters[f"{name}.W"], vae.parameters[f"{name}.b"]
        if name == "output":      # the means stand first, and nothing else is needed
            W, b = W[:, :12], b[:12]
        assert numbers(layer["W"]).reshape(W.shape).tobytes() == W.tobytes()
        assert numbers(layer["b"]).tobytes() == b.tobytes()
    assert [layer["f"] for layer in data["layers"]] == ["relu"] * len(hidden) + [
        {"bernoulli": "sigmoid", "continuous-bernoulli": "continuous_bernoulli"}.get(likelihood, "identity")]


def test_a_float64_model_is_rounded_to_float32(write):
    vae = model(dtype="float64")
    _, data = write(vae)
    np.testing.assert_array_equal(numbers(data["layers"][-1]["W"]), vae.parameters["output.W"].ravel().astype("f4"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_page_has_every_function(write, activation):
    page, data = write(model(activation=activation))
    script = page.texts("script")[-1]
    assert script == "\n" + (explorer.TEMPLATES / "explore.js").read_text(encoding="utf-8")
    assert {*explorer.functions()} == {*ACTIVATIONS, *explorer.MEANS.values()}
    assert data["layers"][0]["f"] == activation


def by_python(section, values):
    """What each function of the script makes of the values: an expression, which is the same in Python but for
    `? :`, behind helpers of the same kind."""
    names = {"__builtins__": {}, "Math": SimpleNamespace(**vars(math), abs=abs, max=max, min=min, PI=math.pi)}

    def function(argument, expression):
        expression = re.sub(r"^(.*?) \? (.*?) : (.*)$", r"(\2) if \1 else (\3)", expression)
        return eval(f"lambda {argument}: ({expression})", names)
    for name, *helper in re.findall(r"^const (\w+) = (\w+) => (.*?);$", section, re.MULTILINE | re.DOTALL):
        names[name] = function(*helper)
    found = re.findall(r"^  (\w+): a => (.*),$", section, re.MULTILINE)
    return {name: [function("a", expression)(value) for value in values] for name, expression in found}


def by_node(section, values):
    program = section + f"""
        const found = Object.entries(FUNCTIONS).map(([name, f]) => [name, {values}.map(f)]);
        console.log(JSON.stringify(Object.fromEntries(found)));"""
    return json.loads(subprocess.run(["node", "-e", program], check=True, capture_output=True, timeout=300).stdout)


@pytest.mark.parametrize("run", [by_python, pytest.param(by_node, marks=pytest.mark.skipif(
    not shutil.which("node"), reason="needs node"))])
def test_the_page_computes_what_the_model_computes(run):
    """Each function against its kernel; the mean of a continuous Bernoulli on both sides of where its series ends."""
    values = [*np.linspace(-8, 8, 41), -0.1001, -0.0999, -1e-3, -1e-9, 1e-9, 1e-3, 0.0999, 0.1001, 30, -30]
    script = (explorer.TEMPLATES / "explore.js").read_text(encoding="utf-8")
    section, = re.findall(r"^// ---- 1\..*?(?=^// ---- 2\.)", script, re.MULTILINE | re.DOTALL)
    found = run(section, [float(value) for value in values])
    assert found.keys() == {*ACTIVATIONS, *explorer.MEANS.values()}
    a = np.array(values)[:, None]
    for name, ours in found.items():
        expected = np.empty_like(a)
        if name in ACTIVATIONS:
            getattr(reference, f"{name}_forward")(expected, a, np.zeros(1))
        else:
            likelihood = "poisson" if name == "exp" else name.replace("_", "-")
            expected = make_likelihood(likelihood).mean(reference, a)
        assert np.allclose(ours, expected[:, 0], rtol=2e-9, atol=1e-15), name


# ---- Points, sliders, buttons

def test_sliders_and_axes_by_falling_kl(write):
    vae, x = model(latent_dim=6), images(60)
    page, data = write(vae, x)
    kl = kl_per_dimension(vae, x)
    order = sorted(range(6), key=lambda j: -kl[j])
    assert order != list(range(6)) and len({*np.round(kl, 2)}) == 6
    assert [int(found["data-j"]) for found, _ in page.all("input") if "data-j" in found] == order
    assert page.texts("small")[1:7] == [f"{kl[j]:.2f} nats" for j in order]
    assert data["shown"] == order[:2]
    for offset in (0, 6):      # two selects
        assert [found["value"] for found, _ in page.all("option")][offset:offset + 6] == [str(j) for j in order]


@pytest.mark.parametrize("latent_dim, plane, choice, sliders", [(1, False, False, 1), (2, True, False, 0),
                                                                (3, True, True, 3)])
def test_one_two_and_more_dimensions(write, latent_dim, plane, choice, sliders):
    vae = model(latent_dim=latent_dim)
    vae.parameters["mu.W"][:, -1] *= 5      # the most KL: first, but in the plane of two
    page, data = write(vae)
    assert len([found for found, _ in page.all("input") if "data-j" in found]) == sliders
    sections = [found for found, _ in page.all("section")]
    assert ("hidden" not in sections[0], "hidden" not in sections[1]) == (plane, sliders > 0)
    assert ("hidden" not in page.all("span", class_="row")[0][0]) == choice
    assert len(data["shown"]) == min(2, latent_dim)
    assert data["shown"] == [0, 1] if latent_dim == 2 else data["shown"][0] == latent_dim - 1


def test_the_points_are_the_means_of_the_test_images(write):
    vae, x = model(), images(60)
    x[31] = 4      # far out
    vae.likelihood = Gaussian()
    page, data = write(vae, x)
    mu = vae.encode(x)[0]
    np.testing.assert_array_equal(numbers(data["mu"]).reshape(60, 5), mu)
    assert np.abs(mu).max() <= data["reach"] <= 1.1 * np.abs(mu).max() + 0.5
    assert {found["max"] for found, _ in page.all("input") if "data-j" in found} == {str(data["reach"])}
    assert "60 test images" in page.text


@pytest.mark.every(3)
@pytest.mark.parametrize("latent_dim, dots", [(100, 800), (5, 2000), (3400, 24)])
def test_of_many_test_images_some_are_shown_evenly_spread(write, latent_dim, dots):
    vae, x = model(latent_dim=latent_dim, hidden=()), images(2500)
    _, data = write(vae, x)
    mu = numbers(data["mu"]).reshape(-1, latent_dim)
    assert len(mu) == len(data["colours"]) == dots
    np.testing.assert_allclose(mu[[0, -1]], vae.encode(x)[0][[0, -1]], rtol=1e-4, atol=1e-4)


def test_test_images_of_every_label_can_be_clicked(write):
    vae, x, labels = model(), images(500), np.random.default_rng(0).integers(0, 10, 500)
    page, data = write(vae, x, labels)
    named = [found["aria-label"] for found, _ in page.all("button", aria_pressed="false")]
    rows, shown = zip(*(map(int, re.fullmatch(r"test image (\d+), label (\d)", name).groups()) for name in named))
    assert len({*rows}) == 24 and list(shown) == sorted(shown) and {*shown} == {*range(10)}
    assert list(shown) == labels[list(rows)].tolist()
    np.testing.assert_array_equal(numbers(data["thumbs"], "u1").reshape(24, 12), np.rint(255 * x[list(rows)]))
    np.testing.assert_allclose(numbers(data["thumbMu"]).reshape(24, 5), vae.encode(x[list(rows)])[0], rtol=1e-5)


@pytest.mark.parametrize("classes, named", [(1, 1), (10, 10), (11, 11), (47, 24)])
def test_colours_by_label(write, classes, named):
    labels = np.arange(100) * 7 % classes
    page, data = write(model(), images(100), labels)
    colour = dict(zip(labels.tolist(), data["colours"], strict=True))
    assert [colour[label] for label in labels] == data["colours"] and len({*colour.values()}) == classes
    assert all(re.fullmatch("#[0-9a-f]{6}", one) for one in colour.values())
    names = page.texts("li")
    assert len(names) == named and names == sorted(names, key=int)
    dots = [found["style"] for found, _ in page.all("i")]
    assert dots == [f"background:{colour[int(name)]}" for name in names]


def test_ink_or_light(write):
    assert write(model())[1]["ink"] is True and write(model(), None, None, SHAPE, False)[1]["ink"] is False


def test_without_labels(write):
    page, data = write(model())
    assert not page.all("ul") and len({*data["colours"]}) == 1
    assert page.all("button", aria_pressed="false")[5][0]["aria-label"] == "test image 13"


def test_few_test_images(write):
    page, data = write(model(), images(1))
    assert len(page.all("button", aria_pressed="false")) == 1 and len(data["colours"]) == 1


@pytest.mark.parametrize("shape, aspect", [((3, 4), 4 / 3), ((4, 3), 0.75), ((1, 12), 4), ((12, 1), 0.25)])
def test_the_shape_of_the_image(write, shape, aspect):
    page, data = write(model(), shape=shape)
    assert data["shape"] == [*shape]
    assert float(page.all("main")[0][0]["style"].removeprefix("--aspect: ")) == pytest.approx(aspect, rel=1e-4)


# ---- The file

def test_one_file_that_loads_nothing(write):
    page, _ = write(model(), labels=np.arange(60) % 3)
    assert loads_nothing(page)
    script = (explorer.TEMPLATES / "explore.js").read_text(encoding="utf-8")
    assert not re.search(r"fetch|XMLHttp|import|Worker|WebSocket|eval|</script", script)
    assert page.all("meta", name="viewport", content="width=device-width, initial-scale=1")


def test_every_control_has_a_name(write):
    page, _ = write(model())
    for tag, attributes, text in page.elements:
        if tag in ("button", "select", "input") and "data-j" not in attributes:
            assert attributes.get("aria-label") or text.strip(), (tag, attributes)
    assert len(page.all("label")) == 5 + 2      # of the sliders and the selects


def test_labels_are_escaped(write):
    evil = "<b>&\"'</script>"
    page, _ = write(model(), labels=np.array(["a", evil] * 30))
    assert not page.all("b") and sorted(page.texts("li")) == sorted([evil, "a"])
    assert page.all("button", aria_pressed="false")[0][0]["aria-label"].endswith(f", label {evil}")


def test_the_size_of_the_usual_page(tmp_path):
    vae = VAE(784, (128,), 20, kernels="numpy")
    path = write_explorer(vae, images(2100, 784), np.arange(2100) % 10, (28, 28), tmp_path / "explore.html")
    assert 500_000 < path.stat().st_size < 1_000_000


# ---- What is refused

class OwnMean(Bernoulli):
    name = "own-mean"

    def mean(self, kernels, output):
        return 1 - super().mean(kernels, output)


class OwnDraw(Bernoulli):
    """Borrows its mean, which the page knows."""
    name = "own-draw"

    def draw(self, kernels, output, params, rng):
        return np.zeros_like(output)


def test_a_likelihood_with_a_known_mean_is_taken(write):
    assert write(model(likelihood=OwnDraw()))[1]["layers"][-1]["f"] == "sigmoid"


class OwnActivation(Activation):
    """Of a name that the page knows, but another function."""

    def forward(self, kernels, out, pre, b):
        kernels.relu_forward(out, pre, b)
        out *= 2


def test_an_activation_that_no_layer_of_the_decoder_has_does_no_harm(write):
    page, data = write(model(activation=OwnActivation("<b>"), hidden=()))
    assert len(data["layers"]) == 1 and not page.all("b") and "&lt;b&gt;" in page.text


def broken(name, value, **settings):
    vae = model(**settings)
    vae.parameters[name].flat[1] = value
    return vae


REFUSED = {
    "complex": (lambda: model(dtype="complex128"), {}, "the model's dtype must be one of float32, float64"),
    **{name: (lambda name=name: model(likelihood=name), {}, "the page cannot compute its mean, only those of bernoull")
       for name in LIKELIHOODS if make_likelihood(name).mean.__func__ not in explorer.MEANS},
    "own likelihood": (lambda: model(likelihood=OwnMean()), {}, "likelihood own-mean: the page cannot compute its"),
    "own activation": (lambda: model(activation=OwnActivation("snake")), {},
                       f"activation snake: the page cannot compute it, only {', '.join(ACTIVATIONS)}$"),
    "another relu": (lambda: model(activation=OwnActivation("relu")), {}, "activation relu: the page cannot compute"),
    "made": (lambda: model(decoder="made:4"), {}, "decoder made:4: the page cannot draw .* a dense decoder fits$"),
    "NaN": (lambda: broken("output.b", np.nan), {}, "output.W and output.b must hold finite float32 numbers"),
    "infinity": (lambda: broken("decoder.1.W", np.inf), {}, "decoder.1.W and decoder.1.b must hold finite"),
    "too large": (lambda: broken("output.W", 1e200, dtype="float64"), {}, "must hold finite float32 numbers"),
    "NaN in the encoder": (lambda: broken("logvar.b", np.nan), {}, "the encoder puts x_test at NaN or infinity"),
    "columns": (model, {"x_test": images(5, 11)}, r"x_test must have shape \(rows, 12\)"),
    "no rows": (model, {"x_test": images(0)}, "x_test must have shape .* at least one row"),
    "bytes": (model, {"x_test": np.full((5, 12), 255)}, "x_test holds int64 from 255 to 255"),
    "NaN in x": (model, {"x_test": np.full((5, 12), np.nan)}, "x_test must lie in"),
    "shape": (model, {"image_shape": (3, 5)}, r"image_shape must be \(height, width\) with a product of 12"),
    "three sides": (model, {"image_shape": (3, 2, 2)}, r"image_shape must be \(height, width\)"),
    "labels": (model, {"labels": np.arange(59)}, r"labels must have shape \(60,\)"),
    "columns of labels": (model, {"labels": np.zeros((60, 1))}, r"labels must have shape \(60,\)")}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(tmp_path, case):
    make, changes, says = REFUSED[case]
    arguments = {"x_test": images(60), "labels": None, "image_shape": SHAPE, "path": tmp_path / "explore.html"}
    with pytest.raises(ValueError, match=says) as caught:
        write_explorer(make(), **{**arguments, **changes})
    assert len(str(caught.value).splitlines()) == 1 and not list(tmp_path.iterdir())
