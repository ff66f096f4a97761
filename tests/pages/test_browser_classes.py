"""explore.html of a conditional model in headless Chromium: the label that is chosen is what is decoded.  Skipped
where `test_browser.py` is.
"""
import numpy as np
import pytest

from npvae import VAE
from npvae.pages import write_explorer
from test_browser import assert_shows, browser, chromium, ink, pytestmark  # noqa: F401 (fixtures, and the mark)

NAMES, SHAPE = ["cat", "dog", "yak"], (6, 7)


@pytest.fixture
def page(browser, tmp_path):      # noqa: F811
    """Opens the page of a model that decodes each label differently; model, test images, labels."""
    rng = np.random.default_rng(0)
    vae, x, labels = VAE(42, (9,), 2, kernels="numpy", classes=3), rng.random((40, 42)), np.arange(40) * 7 % 3
    vae.parameters.flat[...] = rng.normal(0, 0.7, vae.parameters.flat.size)
    write_explorer(vae, x, np.array(NAMES)[labels], SHAPE, tmp_path / "explore.html", classes=NAMES)
    browser.open(tmp_path / "explore.html")
    return vae, x, labels


class Told:
    """The model under one label, as `assert_shows` asks it."""

    def __init__(self, vae, label):
        self.decode = lambda z: vae.decode(z, np.full(len(z), label))


def choose(browser, label):      # noqa: F811
    browser.run("""const select = document.getElementById("class"); select.value = arguments[0];
                   select.dispatchEvent(new Event("change"))""", str(label))


def chosen(browser):      # noqa: F811
    return browser.run("return document.getElementById('class').selectedOptions[0].textContent")


def test_every_label_decodes_as_the_model_does(browser, page):      # noqa: F811
    vae, _, _ = page
    z, seen = np.random.default_rng(1).normal(0, 1.5, (20, 2)), []
    for label in (2, 0, 1):
        choose(browser, label)
        assert chosen(browser) == NAMES[label]
        decoded = browser.run("return arguments[0].map(z => Array.from(npvae.decode(z)))", z.tolist())
        np.testing.assert_allclose(decoded, vae.decode(z, np.full(20, label)), rtol=1e-5, atol=1e-5)
        browser.run("npvae.setPoint([0.5, -1])")
        assert_shows(browser, Told(vae, label), [0.5, -1])
        seen.append(ink(browser))
    assert min(np.abs(one - other).max() for one, other in zip(seen, seen[1:])) > 0.05
    choose(browser, 2)      # the image follows at once, and the point stays
    assert_shows(browser, Told(vae, 2), [0.5, -1])


def test_test_images_bring_their_labels(browser, page):      # noqa: F811
    """The page opens at one, a click takes another's, and on the way between two the label changes in the middle."""
    vae, x, labels = page
    rows = [int(name.split()[2].strip(",")) for name in browser.run(
        "return [...document.querySelectorAll('#thumbs button')].map(button => button.getAttribute('aria-label'))")]
    mu = vae.encode(x[rows], labels[rows])[0]
    assert chosen(browser) == NAMES[labels[rows[0]]]
    assert_shows(browser, Told(vae, labels[rows[0]]), mu[0])
    browser.click("#thumbs button", 2)
    browser.click("#thumbs button", 22)
    assert labels[rows[2]] != labels[rows[22]]
    for t, end in ((0.2, 2), (0.49, 2), (0.5, 22), (1, 22)):
        browser.run("const slider = document.getElementById('t'); slider.value = arguments[0];"
                    "slider.dispatchEvent(new Event('input'))", t)
        assert chosen(browser) == NAMES[labels[rows[end]]]
        assert_shows(browser, Told(vae, labels[rows[end]]), (1 - t) * mu[2] + t * mu[22])


def test_random_draws_of_another_prior_are_its_own(browser, tmp_path):      # noqa: F811
    """And no circles are drawn: they belong to N(0, I)."""
    vae, x = VAE(42, (9,), 2, kernels="numpy", prior="mixture:2"), np.random.default_rng(0).random((40, 42))
    vae.parameters["prior.mean"][...] = [[9, -4], [7, -6]]
    write_explorer(vae, x, None, SHAPE, tmp_path / "explore.html")
    browser.open(tmp_path / "explore.html")
    draws = np.array(browser.run("""return Array.from({length: 300}, () => {
        document.getElementById("sample").click(); return npvae.point})"""))
    assert abs(draws.mean(axis=0) - [8, -5]).max() < 0.6 and len(np.unique(draws[:, 0])) > 100
    assert_shows(browser, vae, draws[-1])
    assert browser.run("return document.querySelectorAll('circle.prior').length") == 0


def test_the_label_can_be_reached_on_a_phone(browser, page):      # noqa: F811
    browser.size(390, 800)
    box = browser.run("const box = document.getElementById('class').getBoundingClientRect();"
                      "return [box.left, box.right, box.height]")
    assert 0 <= box[0] < box[1] <= 390 and box[2] > 10
    assert browser.run("return document.scrollingElement.scrollWidth") <= 390
