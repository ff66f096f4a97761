"""explain.html in headless Chromium: the numbers are those of `loss_and_gradients`, the keyboard alone suffices, a
click on a weight shows its three derivatives, and the page fits a phone.  Skipped where `test_browser.py` is."""
import numpy as np
import pytest
from explained import VARIANTS, D, Explained, error, masked, model, write

from npvae import VAE, load_mnist
from npvae.pages import explain
from test_browser import assert_fits, box, browser, chromium, pytestmark  # noqa: F401 (fixtures, and the mark)

LEFT, RIGHT, DOWN, UP, HOME, END, TAB, ENTER = "\ue012\ue014\ue015\ue013\ue011\ue010\ue004\ue007"


@pytest.fixture
def small(browser, tmp_path, monkeypatch):      # noqa: F811
    """Opens the page of a network of which every number is shown; the page as read in Python."""
    monkeypatch.setattr(explain, "EPS", (-1.0, 0.0, 0.75))
    vae = VAE(2, (3,), 2, "tanh", dtype="float64", kernels="numpy", seed=2)
    path = explain.write_explain(vae, np.array([[1.0, 0], [0, 1]]), tmp_path / "explain.html", (1, 2))
    browser.open(path)
    return Explained(path)


@pytest.mark.every(7)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_has_the_gradients_of_the_model(browser, tmp_path, monkeypatch, variant):      # noqa: F811
    monkeypatch.setattr(explain, "SOME", 1)
    vae, expected = write(variant, tmp_path / "explain.html", monkeypatch)
    browser.open(tmp_path / "explain.html")
    for place, (loss, gradients) in enumerate(expected):
        browser.run("const slider = document.getElementById('eps'); slider.value = arguments[0];"
                    "slider.dispatchEvent(new Event('input'))", place)
        found = browser.run("return [npvae.loss, Object.fromEntries(arguments[0].map(name => "
                            "[name, npvae.gradient(name)]))]", list(gradients))
        assert found[0] == pytest.approx(loss, rel=1e-9)
        for name, gradient in gradients.items():
            assert error(found[1][name], gradient) < 1e-6, name
    steps = browser.run("""const titles = [];
        for (let n = 0; n < npvae.nodes.length; n++) { npvae.go(n); titles.push(title.textContent); }
        return titles""")
    assert all(steps)


def test_a_product_that_the_page_computes_is_right(browser, tmp_path, monkeypatch):      # noqa: F811
    """784-32-5: dW of the first layer and of the last are not in the page."""
    monkeypatch.setattr(explain, "EPS", (-1.0, 0.75))
    monkeypatch.setattr(explain, "SOME", 1)
    vae = VAE(hidden=(32,), latent_dim=5, dtype="float64", kernels="numpy")
    x = load_mnist()[2][:1].reshape(1, -1)
    page = Explained(explain.write_explain(vae, x, tmp_path / "explain.html", (28, 28)))
    assert sum("product" in entry for entry in page.data["arrays"]) >= 2
    browser.open(tmp_path / "explain.html")
    eps = np.random.default_rng(0).standard_normal((1, 1, 5))
    eps[0, 0, page.data["j"]] = browser.run("return Number(document.getElementById('eps').value) ? 0.75 : -1")
    _, gradients = vae.loss_and_gradients(x, eps)
    for name, gradient in gradients.items():
        assert error(browser.run("return npvae.gradient(arguments[0])", name), gradient) < 1e-6, name

    # A click on a pixel of a tile is a click on that weight: column `unit` of encoder.0.W, row `pixel`.
    n = next(i for i, node in enumerate(page.nodes) if node["arguments"][0]["name"] == "dencoder.0.W")
    browser.run("npvae.go(arguments[0])", n)
    height, width = browser.run("const c = document.querySelector('#arrays figure:last-of-type .pick, #arrays .pick');"
                                "c.scrollIntoView({block: 'center'}); return [c.height, c.width]")
    left, top, wide, high = box(browser, "#arrays .pick")
    across = (width + 1) // 29
    unit, pixel = across + 1, 28 * 9 + 14      # the second tile of the second row
    spot = left + wide * (29 + 14.5) / width, top + high * (29 + 9.5) / height
    browser.pointer(("move", *spot), ("down",), ("up",))
    assert browser.run("return document.querySelector('#slopes th').textContent") == (
        f"d loss / d encoder.0.W[{pixel},{unit}], backpropagation")
    assert slopes(browser)[0] == pytest.approx(gradients["encoder.0.W"][pixel, unit], rel=1e-6, abs=1e-12)
    assert "gradient alone" in text(browser, "verdict")


def test_arrays_that_the_page_makes_of_others_are_right(browser, tmp_path, monkeypatch):      # noqa: F811
    page, _ = masked(tmp_path / "explain.html", monkeypatch)
    browser.open(tmp_path / "explain.html")
    found = browser.run("return npvae.nodes.flatMap((node, n) => node.arguments.map((_, i) => npvae.values(n, i)))")
    for (_, one, values), shown in zip(page.arguments(0), found, strict=True):
        np.testing.assert_allclose(shown, values, rtol=1e-12, atol=1e-15, err_msg=one["name"])


def text(browser, name):      # noqa: F811
    return browser.run("return document.getElementById(arguments[0]).textContent", name)


def slopes(browser):      # noqa: F811
    """The three derivatives on the page, as numbers."""
    cells = browser.run("return [...document.querySelectorAll('#slopes tr')].map(row => row.cells[1].textContent)")
    return [None if cell == "not computed" else float(cell.replace("\u2212", "-")) for cell in cells]


def tab_to(browser, wanted):      # noqa: F811
    """Press the tabulator until the element of that id has the focus."""
    for _ in range(300):
        if browser.run("return document.activeElement.id") == wanted:
            return
        browser.key(TAB)
    pytest.fail(f"the tabulator does not reach {wanted}")


def test_the_keyboard_alone_suffices(browser, small):      # noqa: F811
    n = len(small.nodes)
    browser.key(RIGHT, RIGHT, LEFT, RIGHT)
    assert browser.run("return npvae.step") == 2 and text(browser, "count") == f"step 3 of {n}, forward"
    assert browser.run("return document.querySelector('#map [aria-current=step] small').textContent") == "3 matmul"
    browser.key(END, RIGHT)
    assert browser.run("return npvae.step") == n - 1
    browser.key(HOME, LEFT)
    assert browser.run("return npvae.step") == 0 and text(browser, "ids") == ""
    browser.run("npvae.go(6)")
    assert text(browser, "ids") == "Equations D5.1" and "z[b, k] = mu[b] + sigma[b] * eps" in text(browser, "formula")
    link = browser.run("return document.querySelector('#ids a').href")
    assert link == small.data["links"]["D5.1"] and link.endswith("06-reparameterization.md")
    browser.run("npvae.go(0)")

    tab_to(browser, "case")      # the other image
    before = browser.run("return npvae.loss")
    browser.key(DOWN)
    assert browser.run("return npvae.loss") == pytest.approx(small.data["cases"][3 + 2]["loss"]) != before
    tab_to(browser, "eps")
    browser.key(LEFT)
    assert browser.run("return npvae.loss") == pytest.approx(small.data["cases"][3 + 1]["loss"])
    assert text(browser, "where") == "= 0" and browser.run("return npvae.step") == 0      # the arrows moved the slider
    browser.key(TAB, RIGHT)      # the map: one stop, and the arrows go through it
    assert browser.run("return document.activeElement.closest('#map li') !== null && npvae.step") == 1
    tab_to(browser, "on")
    browser.key(ENTER)
    assert browser.run("return npvae.step") == 2

    tab_to(browser, "tensor")
    browser.key(DOWN, DOWN)
    names = list(small.data["tensors"])
    assert browser.run("return document.getElementById('tensor').value") == names[2]
    tab_to(browser, "entry")
    browser.key(DOWN)
    check = small.data["checks"][names[2]][1]
    assert slopes(browser) == pytest.approx(check["slopes"][3 + 1], rel=1e-10)
    assert f"{names[2]}[{','.join(map(str, check['index']))}]" in text(browser, "slopes")


def test_every_number_of_the_small_network_can_be_read(browser, small):      # noqa: F811
    for n, node in enumerate(small.nodes):
        browser.run("npvae.go(arguments[0])", n)
        cells = browser.run("return [...document.querySelectorAll('#arrays td')].map(cell => cell.textContent)")
        order = sorted(range(len(node["arguments"])), key=lambda i: node["arguments"][i]["written"])
        expected = [value for one in order for value in browser.run("return npvae.values(...arguments)", n, one)]
        shown = [float(cell.replace("\u2212", "-")) for cell in cells]
        np.testing.assert_allclose(shown, expected, rtol=6e-4, atol=1e-12)      # four digits
    assert browser.run("return document.querySelectorAll('main canvas').length") == 0


def test_a_click_on_a_weight_shows_its_three_derivatives(browser, small):      # noqa: F811
    n = next(i for i, node in enumerate(small.nodes) if node["arguments"][0]["name"] == "dmu.W")
    browser.run("npvae.go(arguments[0]); document.querySelector('#arrays').scrollIntoView()", n)
    browser.click("#arrays .after td button", 3)      # of dmu.W (3, 2)
    check, = [check for check in small.data["checks"]["mu.W"] if check["index"] == [1, 1]]
    assert "mu.W[1,1]" in text(browser, "slopes")
    place = browser.run("return Number(document.getElementById('eps').value)")
    assert slopes(browser) == pytest.approx(check["slopes"][place], rel=1e-10)
    assert slopes(browser)[0] == pytest.approx(slopes(browser)[2], rel=1e-6) and slopes(browser)[0] != 0


def test_where_two_paths_meet_both_terms_and_their_sum(browser, small):      # noqa: F811
    found = {}
    for n, node in enumerate(small.nodes):
        if node["kernel"] == "add":
            browser.run("npvae.go(arguments[0])", n)
            names = browser.run("return [...document.querySelectorAll('#arrays figcaption b')].map(b => b.textContent)")
            signs = browser.run("return [...document.querySelectorAll('#arrays .sign')].map(one => one.textContent)")
            assert signs == ["+", "="]
            assert text(browser, "title") == f"Two paths meet: {names[2]} = {names[0]} + {names[1]}"
            found[names[2]] = names[:2]
    assert found == {"dmu": ["dmu_z", "dmu_kl"], "dlogvar": ["dlogvar_z", "dlogvar_kl"], "dh": ["dh_mu", "dh_logvar"]}


@pytest.mark.every(2)
@pytest.mark.parametrize("width, height, scheme", [(1280, 800, "light"), (390, 844, "dark")])
def test_the_page_fits(browser, tmp_path, monkeypatch, width, height, scheme):      # noqa: F811
    browser.media(prefers_color_scheme=scheme)
    browser.size(width, height)
    monkeypatch.setattr(explain, "EPS", (-1.0, 0.75))
    explain.write_explain(model(likelihood="gaussian-pixel", posterior="iaf:2"), np.eye(D), tmp_path / "explain.html",
                          (2, 3))
    browser.open(tmp_path / "explain.html")
    for n in range(0, browser.run("return npvae.nodes.length"), 5):
        browser.run("npvae.go(arguments[0])", n)
        assert_fits(browser, width)
    browser.media(prefers_color_scheme="")


def test_pictures_are_drawn_anew_in_the_dark(browser, tmp_path, monkeypatch):      # noqa: F811
    """Zero is the colour of the paper, whichever that is."""
    browser.media(prefers_color_scheme="light")
    monkeypatch.setattr(explain, "EPS", (-1.0, 0.75))
    monkeypatch.setattr(explain, "SOME", 1)
    explain.write_explain(VAE(784, (20,), 3, kernels="numpy"), np.eye(784)[:1], tmp_path / "explain.html", (28, 28))
    browser.open(tmp_path / "explain.html")
    corner = """return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {      // drawn anew
        const canvas = document.querySelector("#pass canvas"), copy = canvas.cloneNode();
        const context = copy.getContext("2d", {willReadFrequently: true});
        context.drawImage(canvas, 0, 0);
        done(Array.from(context.getImageData(5, 5, 1, 1).data.slice(0, 3)));
    })))"""
    assert browser.run(corner) == [255, 255, 255]
    browser.media(prefers_color_scheme="dark")
    assert browser.run(corner) == [0x15, 0x17, 0x1b]
    browser.media(prefers_color_scheme="")


def test_a_screen_reader_is_told(browser, small):      # noqa: F811
    """Each control has a name, pictures and tables have one, and the step's title is announced."""
    assert browser.run("return document.getElementById('title').closest('[aria-live=polite]') !== null")
    assert browser.run("""return [...document.querySelectorAll("input, select")].filter(one => !one.labels.length &&
        !one.ariaLabel).map(one => one.id)""") == []
    assert browser.run("""return [...document.querySelectorAll("button")].filter(one => !one.textContent.trim() &&
        !one.ariaLabel).length""") == 0
    assert browser.run("""return [...document.querySelectorAll("#arrays table, #pass table")].filter(one =>
        !one.ariaLabel).length""") == 0
    said = browser.run("return document.getElementById('eps').getAttribute('aria-valuetext')")
    assert said == f"eps {small.data['j']} is 0.75"
