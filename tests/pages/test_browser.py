"""report.html and explore.html in headless Chromium: they open without a message, decode what vae.decode does, follow
the pointer, and fit a phone.  Skipped, saying so, where Chromium or chromedriver is not installed."""
import json
import statistics
import time

import numpy as np
import pytest
from browser import MISSING, Browser

from npvae import VAE
from npvae.pages import write_explorer
from npvae.pages.explorer import MEANS
from npvae.layers import ACTIVATIONS
from npvae.likelihoods import make_likelihood
from strategies import IMAGES
from npvae.plotting import learning_curves
from npvae.pages import write_report
from npvae.pages.report import PICTURES

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed")

SHAPE = (6, 7)


@pytest.fixture(scope="module")
def chromium():
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium):
    """Every test ends without a message in the console, and without a request to any server."""
    chromium.size(1280, 800)
    yield chromium
    assert chromium.console() == []
    requests = chromium.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in requests if not name.startswith("data:")] == []


@pytest.fixture
def explore(browser, tmp_path):
    """Opens the page of a model with random weights; the model and its test images."""
    def explore(latent_dim=2, hidden=(9, 8), images=40, shape=SHAPE, ink=True, **settings):
        rng, dim = np.random.default_rng(latent_dim), shape[0] * shape[1]
        vae = VAE(dim, hidden, latent_dim, kernels="numpy", **settings)
        vae.parameters.flat[...] = rng.normal(0, 1.5 / np.sqrt(max(hidden, default=2)), vae.parameters.flat.size)
        x = rng.random((images, dim))
        write_explorer(vae, x, np.sort(np.arange(images) % 4), shape, tmp_path / "explore.html", ink)
        browser.open(tmp_path / "explore.html")
        return vae, x
    return explore


def point(browser):
    return browser.run("return npvae.point")


def ink(browser, selector="#image"):
    """A canvas as pixels in [0, 1], 1 black; they are grey and opaque."""
    pixels = browser.run("""const canvas = document.querySelector(arguments[0]), copy = canvas.cloneNode();
        const context = copy.getContext("2d", {willReadFrequently: true});
        context.drawImage(canvas, 0, 0);
        return Array.from(context.getImageData(0, 0, copy.width, copy.height).data)""", selector)
    red, green, blue, alpha = np.array(pixels).reshape(-1, 4).T
    assert (red == green).all() and (red == blue).all() and (alpha == 255).all()
    return 1 - red / 255


def assert_shows(browser, vae, z):
    """The page stands at z, and the canvas shows what the model decodes there."""
    assert point(browser) == pytest.approx(list(z), abs=1e-6)
    expected = np.clip(vae.decode(np.array([z], dtype=float))[0], 0, 1)
    np.testing.assert_allclose(ink(browser), expected, rtol=0, atol=0.51 / 255)


# ---- The decoder

MODELS = {**{name: {"activation": name} for name in ACTIVATIONS},
          **{name: {"likelihood": name} for name in IMAGES if make_likelihood(name).mean.__func__ in MEANS},
          **{f"depth {len(hidden)}": {"hidden": hidden} for hidden in ((), (9,), (9, 8), (9, 8, 7))},
          **{f"Z = {Z}": {"latent_dim": Z} for Z in (1, 2, 20)}, "float64": {"dtype": "float64"}}


@pytest.mark.parametrize("name", MODELS)
def test_the_page_decodes_what_the_model_decodes(browser, explore, name):
    vae, _ = explore(**{"latent_dim": 5, **MODELS[name]})
    z = np.random.default_rng(0).normal(0, 1.5, (100, vae.latent_dim))
    decoded = browser.run("return arguments[0].map(z => Array.from(npvae.decode(z)))", z.tolist())
    expected = vae.decode(z)
    assert np.ptp(expected, axis=0).min() > 0.01      # it does depend on z
    # 1 / 255 = 4e-3 is what could be seen
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-5)
    browser.run("npvae.setPoint(arguments[0])", z[7].tolist())
    assert_shows(browser, vae, z[7])


def test_pixels_beyond_0_and_1_are_cut_off(browser, explore):
    vae, _ = explore(likelihood="gaussian")
    browser.run("npvae.setPoint([3, -3])")
    decoded = vae.decode(np.array([[3.0, -3.0]]))
    assert decoded.min() < -0.5 and decoded.max() > 1.5
    assert_shows(browser, vae, [3, -3])


@pytest.mark.parametrize("shape, ratio", [((6, 7), 7 / 6), ((1, 42), 4), ((42, 1), 0.25)])
def test_the_canvas_has_the_shape_of_the_image(browser, explore, shape, ratio):
    explore(shape=shape)
    size = browser.run("const c = document.getElementById('image'); return [c.height, c.width]")
    width, height = browser.run("const c = document.getElementById('image'); return [c.clientWidth, c.clientHeight]")
    assert tuple(size) == shape and width / height == pytest.approx(ratio, rel=0.02)


# ---- The plane

def box(browser, selector):
    return browser.run("const box = document.querySelector(arguments[0]).getBoundingClientRect();"
                       "return [box.left, box.top, box.width, box.height]", selector)


def reach(browser):
    return browser.run("return JSON.parse(document.getElementById('model').textContent).reach")


@pytest.mark.parametrize("kind, width", [("mouse", 1280), ("touch", 390)])
@pytest.mark.parametrize("latent_dim", [2, 5])
def test_the_image_follows_the_pointer(browser, explore, latent_dim, kind, width):
    browser.size(width, 800)
    vae, _ = explore(latent_dim)
    shown = browser.run("return JSON.parse(document.getElementById('model').textContent).shown")
    browser.run("npvae.setPoint(arguments[0])", [0.5] * latent_dim)
    left, top, side, height = box(browser, "#plane")
    assert side == height
    pictures = []
    for across, up in ((0.3, 0.8), (0.9, 0.25)):      # parts of the plane, from left and from below
        target = left + across * side, top + (1 - up) * side
        browser.pointer(("move", left + side / 2, top + side / 2), ("down",), ("move", *target), ("up",),
                        ("move", left + 5, top + 5), kind=kind)      # let go, it stays
        z = [0.5] * latent_dim
        z[shown[0]], z[shown[1]] = [(2 * part - 1) * reach(browser) for part in (across, up)]
        assert point(browser) == pytest.approx(z, abs=1.5 * reach(browser) / side)      # half a pixel each way
        assert_shows(browser, vae, point(browser))
        x, y, width, _ = box(browser, "#handle")
        assert (x + width / 2, y + width / 2) == pytest.approx(target, abs=1)
        pictures.append(ink(browser))
    assert np.abs(pictures[0] - pictures[1]).max() > 0.05


def test_the_pointer_may_leave_the_plane(browser, explore):
    explore()
    left, top, side, _ = box(browser, "#plane")
    browser.pointer(("move", left + 50, top + 50), ("down",), ("move", left + side + 60, top + 50), ("up",))
    assert point(browser)[0] == reach(browser) and 0 < point(browser)[1] < reach(browser)


def test_the_arrow_keys_move_the_point(browser, explore):
    vae, _ = explore()
    browser.run("npvae.setPoint([0, 0]); document.getElementById('plane').focus()")
    browser.key(*"\ue014\ue014\ue014", *"\ue012", *"\ue013\ue013\ue013", *"\ue015", "x")      # right, left, up, down
    assert point(browser) == pytest.approx([0.2, 0.2])
    assert_shows(browser, vae, [0.2, 0.2])
    browser.size(1280, 300)      # where arrow keys would scroll
    browser.key(*"\ue015\ue015")
    time.sleep(0.3)      # scrolling takes its time
    assert browser.run("return [scrollY, document.scrollingElement.scrollHeight > 300]") == [0, True]


def test_a_drag_changes_the_picture_at_once(browser, explore):
    """784-400-20: from the pointer's event until the image is in the canvas, and until the browser has shown it."""
    explore(20, (400,), 2000, (28, 28))
    browser.run("""window.drawn = []; window.seen = [];
        document.getElementById("plane").addEventListener("pointermove", event => {
          drawn.push(npvae.latency);
          const channel = new MessageChannel();
          channel.port1.onmessage = () => seen.push(performance.now() - event.timeStamp);
          requestAnimationFrame(() => channel.port2.postMessage(0));
        })""")
    left, top, side, _ = box(browser, "#plane")
    path = [("move", left + 100 + 5 * i, top + 100 + 3 * i) for i in range(40)]
    browser.pointer(path[0], ("down",), *path[1:], ("up",))
    drawn, seen = browser.run("return drawn.slice(1)"), browser.run("return seen.slice(1)")
    assert len(drawn) > 5 and 0 < statistics.median(drawn) < 250      # many times what it takes, see the print
    print(f"\n784-400-20, pointer to image, ms: drawn {statistics.median(drawn):.1f} (most {max(drawn):.1f}), "
          f"shown {statistics.median(seen):.1f} (most {max(seen):.1f})")


def test_the_points_stand_where_their_means_are(browser, explore):
    vae, x = explore()
    mu, (left, top, side, _) = vae.encode(x)[0], box(browser, "#plane")
    dots = np.array(browser.run("""return [...document.querySelectorAll("#scatter circle:not(.prior)")].map(dot => {
        const box = dot.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]})"""))
    expected = np.array([left, top]) + side / 2 * (1 + mu * [1, -1] / reach(browser))
    np.testing.assert_allclose(dots, expected, atol=0.6)
    colours = browser.run("return [...document.querySelectorAll('#scatter circle:not(.prior)')].map(dot => "
                          "dot.getAttribute('fill'))")
    assert len({*colours}) == 4 and len({*colours[:10]}) == 1


def test_the_two_dimensions_can_be_chosen(browser, explore):
    vae, x = explore(5)
    choose = """const select = document.querySelectorAll(".axis")[arguments[0]]; select.value = arguments[1];
                select.dispatchEvent(new Event("change"));
                return [...document.querySelectorAll(".axis")].map(select => Number(select.value))"""
    first, second = browser.run(choose, 0, [*browser.run(choose, 1, 0)][0])
    assert second == 0
    other = next(j for j in range(5) if j not in (first, 0))
    assert browser.run(choose, 0, other) == [other, 0]
    assert browser.run(choose, 1, other) == [0, other]      # chosen twice: the two change places
    names = browser.run("return [...document.querySelectorAll('#scatter text')].map(text => text.textContent)")
    assert names[:2] == ["z[0]", f"z[{other}]"]
    before = point(browser)
    left, top, side, _ = box(browser, "#plane")
    browser.pointer(("move", left + side / 4, top + side / 4), ("down",), ("up",))
    moved = np.flatnonzero(np.array(point(browser)) != before)
    assert moved.tolist() == sorted([0, other])


# ---- Sliders, buttons, test images

@pytest.mark.parametrize("latent_dim", [1, 5])
def test_sliders(browser, explore, latent_dim):
    vae, _ = explore(latent_dim)
    browser.click("#zero")
    assert_shows(browser, vae, [0] * latent_dim)
    slide = """const slider = document.querySelectorAll("#sliders input")[arguments[0]]; slider.value = 1.25;
               slider.dispatchEvent(new Event("input"));
               return [Number(slider.dataset.j), slider.nextElementSibling.textContent]"""
    j, text = browser.run(slide, latent_dim - 1)
    assert_shows(browser, vae, [1.25 * (i == j) for i in range(latent_dim)])
    assert text == "1.25" and f"z[{j}]" in browser.run(
        f"return document.querySelectorAll('#sliders span')[{latent_dim - 1}].textContent")
    browser.run("npvae.setPoint(arguments[0])", [-0.5] * latent_dim)
    assert browser.run("return [...document.querySelectorAll('#sliders input')].map(slider => Number(slider.value))"
                       ) == [-0.5] * latent_dim


def test_random_draws_come_from_the_prior(browser, explore):
    vae, _ = explore(5)
    draws = np.array(browser.run("""return Array.from({length: 400}, () => {
        document.getElementById("sample").click(); return npvae.point})"""))
    assert_shows(browser, vae, draws[-1])
    assert abs(draws.mean()) < 0.15 and abs(draws.var() - 1) < 0.22      # 6 sigma of 2,000 draws
    assert abs((draws ** 4).mean() - 3) < 1.4 and abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.3


def test_two_test_images_morph(browser, explore):
    vae, x = explore(3)
    rows = [int(name.split()[2].strip(",")) for name in browser.run(
        "return [...document.querySelectorAll('#thumbs button')].map(button => button.getAttribute('aria-label'))")]
    start, end = vae.encode(x[[rows[4], rows[11]]])[0]
    browser.click("#thumbs button", 4)
    assert_shows(browser, vae, start)
    assert browser.run("return document.getElementById('t').disabled")
    browser.click("#thumbs button", 11)      # and it plays
    parts = []
    for _ in range(10):
        time.sleep(0.03)
        z = np.array(point(browser))
        parts.append(((z - start) @ (end - start) / ((end - start) @ (end - start))).item())
        np.testing.assert_allclose(z, start + parts[-1] * (end - start), atol=1e-5)      # on the line between the two
    assert len({*parts}) > 2 and -1e-6 < min(parts) and max(parts) < 1 + 1e-6
    assert browser.run("return document.getElementById('play').textContent") == "Pause"
    browser.click("#play")
    paused = point(browser)
    time.sleep(0.1)
    assert point(browser) == paused
    for t in (0, 0.25, 1):
        browser.run("const slider = document.getElementById('t'); slider.value = arguments[0];"
                    "slider.dispatchEvent(new Event('input'))", t)
        assert_shows(browser, vae, (1 - t) * start + t * end)
    assert pressed(browser) == [4, 11]
    browser.click("#thumbs button", 7)      # the last two clicked count, and it begins again
    assert pressed(browser) == [7, 11] and browser.run("return Number(document.getElementById('t').value)") < 0.9


def pressed(browser):
    return browser.run("return [...document.querySelectorAll('#thumbs button')].map((button, i) => "
                       "button.getAttribute('aria-pressed') == 'true' ? i : -1).filter(i => i >= 0)")


def test_the_thumbnails_are_the_test_images(browser, explore):
    vae, x = explore()
    np.testing.assert_allclose(ink(browser, "#thumbs button canvas"), x[0], rtol=0, atol=0.51 / 255)
    np.testing.assert_allclose(ink(browser, "#thumbs button:last-child canvas"), x[-1], rtol=0, atol=0.51 / 255)


def test_photographs_are_shown_as_they_are(browser, explore):
    """0 black and 1 white, decoded and as thumbnails."""
    vae, x = explore(ink=False)
    browser.run("npvae.setPoint([1, -1])")
    for selector, image in ("#image", vae.decode(np.array([[1.0, -1.0]]))[0]), ("#thumbs button canvas", x[0]):
        np.testing.assert_allclose(1 - ink(browser, selector), image, rtol=0, atol=0.51 / 255)


def test_playing_ends_where_the_point_is_moved(browser, explore):
    explore(2)
    for i in (0, 20):
        browser.click("#thumbs button", i)
    browser.click("#zero")
    time.sleep(0.1)
    assert point(browser) == [0, 0] and browser.run("return document.getElementById('play').textContent") == "Play"


def test_nothing_plays_by_itself_where_people_want_it_still(browser, explore):
    browser.media(prefers_reduced_motion="reduce")
    explore(2)
    for i in (0, 20):
        browser.click("#thumbs button", i)
    assert browser.run("return document.getElementById('play').textContent") == "Play"
    assert browser.run("return document.getElementById('t').disabled") is False
    browser.media(prefers_reduced_motion="")


# ---- Both pages on a desk and in a hand

@pytest.fixture
def report(browser, tmp_path):
    """Opens the report of a run with a picture of every name."""
    metrics = {f"{part}_{name}": 123.456 for part in ("train", "test") for name in ("loss", "nll", "kl")}
    history = [{"epoch": i + 1, "seconds": 1.5, "images_per_second": 1e5, "active_units": 3, **metrics}
               for i in range(39)]
    settings = {"hidden": [400, 200], "data_dir": "/a/long/path/" + "without-any-space" * 9, "latent": 20, "epochs": 40}
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings, "versions": {"machine": "Linux" * 20}}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, history)))
    learning_curves(history).savefig(tmp_path / "samples.png")      # 1350 pixels wide
    for name in PICTURES:
        (tmp_path / f"{name}.png").write_bytes((tmp_path / "samples.png").read_bytes())
    browser.open(write_report(tmp_path))
    browser.run("document.querySelector('details').open = true")


def assert_fits(browser, width):
    """No sideways scrolling, and nothing beyond the right edge but in a table that scrolls by itself."""
    scroll, inner = browser.run("return [document.scrollingElement.scrollWidth, innerWidth]")
    assert scroll <= inner == width      # a phone would zoom out to show what is too wide
    beyond = browser.run("""return [...document.body.querySelectorAll("*")].filter(one => !one.closest(".scroll") &&
        one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 80))""")
    assert beyond == []


@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
def test_the_report_fits(browser, report, width, height):
    browser.size(width, height)
    assert_fits(browser, width)
    assert browser.run("return [...document.images].map(image => image.naturalWidth)") == [1350] * len(PICTURES)


@pytest.mark.every(3)
@pytest.mark.parametrize("width, height", [(1280, 800), (390, 844)])
@pytest.mark.parametrize("latent_dim", [1, 2, 20])
def test_the_explorer_fits(browser, explore, latent_dim, width, height):
    browser.size(width, height)
    explore(latent_dim)
    assert_fits(browser, width)
    if latent_dim > 1:
        plane, picture = box(browser, "#plane"), box(browser, "#image")
        if width > 1000:      # side by side, both on the first screen
            assert plane[0] + plane[2] < picture[0] and max(plane[1] + plane[3], picture[1] + picture[3]) < height
        else:      # the image stays in sight while the page is scrolled to the last slider
            last = "#sliders" if latent_dim > 2 else "#plane"
            browser.run("document.querySelector(arguments[0]).scrollIntoView({block: 'end'})", last)
            _, top, _, size = box(browser, "#image")
            assert 0 <= top and top + size < height and plane[2] > 0.9 * 358
