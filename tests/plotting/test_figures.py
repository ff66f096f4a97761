"""Grids of images: every pixel in its place, dark for 1 or light, the right way up, shrunk by means; and no pyplot."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from npvae import VAE, plotting
from npvae.plotting import figures, pictures


@settings(deadline=None, max_examples=3)
@given(st.permutations([2, 3, 4, 5]), st.integers(0, 2), st.booleans())
def test_mosaic_puts_every_pixel_in_its_place(dims, row_break, ink):
    rows, columns, height, width = dims
    x = np.random.default_rng(0).random((rows, columns, height * width))
    breaks = {row_break} if row_break else set()
    canvas, tops, lefts, size = figures.mosaic(x, (height, width), row_breaks=breaks, ink=ink)
    assert size == (height, width)
    rest = canvas.astype(int)
    for r, top in enumerate(tops):
        for c, left in enumerate(lefts):
            tile = rest[top:top + height, left:left + width]
            np.testing.assert_array_equal(tile, np.rint(255 * (x[r, c] if ink else 1 - x[r, c]).reshape(height, width)))
            tile[:] = 0
    assert not rest.any()  # what is left is paper
    moved = tops - figures.mosaic(x, (height, width))[1]
    assert not moved[:row_break or rows].any() and (moved[row_break or rows:] > 0).all()


def test_ink_is_clipped_and_dark_means_one():
    figure = figures.tile_figure(np.array([[[-0.05, 0.0, 0.5, 1.0, 1.05, 0.2]]]), (2, 3), "clip")
    picture = figure.axes[0].images[0]
    np.testing.assert_array_equal(np.asarray(picture.get_array())[1:3, 1:4], [[0, 0, 128], [255, 255, 51]])
    assert picture.cmap(picture.norm(0))[:3] == (1, 1, 1) and picture.cmap(picture.norm(255))[:3] == (0, 0, 0)


@pytest.mark.parametrize("ink, left", [(True, 255), (False, 0)])
def test_ink_is_black_for_one_and_light_white(ink, left):
    """As a screen shows it: a tile that is 0 on the left and 1 on the right, on white paper."""
    figure = figures.tile_figure(np.array([[[0.0, 1.0]]]), (1, 2), "", ink=ink)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.axes[0].get_window_extent()
    middle = np.asarray(canvas.buffer_rgba())[round(figure.bbox.height - (box.y0 + box.y1) / 2)]
    shown = [middle[round(box.x0 + part * box.width)].tolist() for part in (0.01, 0.3, 0.7, 0.99)]
    assert shown == [[grey] * 3 + [255] for grey in (255, left, 255 - left, 255)]


VAE_2, VAE_3 = (VAE(6, (5,), latent, kernels="numpy", seed=1) for latent in (2, 3))
X = np.random.default_rng(2).random((13, 6), dtype=np.float32)
OF_IMAGES = {"reconstructions": lambda ink: plotting.reconstructions(X, X ** 2, (2, 3), ink),
             "samples": lambda ink: plotting.samples(X, (2, 3), ink),
             "manifold": lambda ink: plotting.manifold(VAE_2, (2, 3), size=3, ink=ink),
             "traversals": lambda ink: plotting.traversals(VAE_3, X[0], np.ones(3), (2, 3), ink=ink),
             "interpolation": lambda ink: plotting.interpolation(VAE_3, X[:4].reshape(2, 2, 6), (2, 3), ink=ink)}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_pictures_of_light_are_negatives_of_those_of_ink(name, monkeypatch):
    """But for what holds no image: it is paper in both."""
    grids = []
    mosaic = figures.mosaic
    monkeypatch.setattr(figures, "mosaic", lambda images, *rest: grids.append(images) or mosaic(images, *rest))
    ink, light = (np.asarray(OF_IMAGES[name](ink).axes[0].images[0].get_array()).astype(int) for ink in (True, False))
    assert np.isin(ink + light, (0, 254, 255, 256)).all() and not ink[:, 0].any() and not light[0].any()
    places = grids[1].reshape(-1, 6)
    empty = int((places == 1).all(axis=1).sum())      # of a row that is not full: white
    assert empty == {"reconstructions": 2 * 7, "samples": 3}.get(name, 0)
    assert np.count_nonzero(ink + light) == 6 * (len(places) - empty)


def test_save_pictures_draws_all_images_alike(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "png", lambda figure: b"")
    monkeypatch.setattr(pictures, "tile_figure", lambda *args, **more: seen.append(more["ink"]))
    for vae, ink in (VAE_2, [False]), (VAE_3, [False]), (VAE_3, []):
        plotting.save_pictures(vae, X, None, (2, 3), [], tmp_path, np.random.default_rng(0), *ink)
    assert seen == [*[False] * 8, *[True] * 4]


def test_the_first_pixel_is_drawn_top_left():
    figure = figures.tile_figure(np.eye(12)[None, :1], (3, 4), "")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    dark = np.argwhere(np.asarray(canvas.buffer_rgba())[..., 0] < 50)
    box = figure.axes[0].get_window_extent()
    height = figure.bbox.height
    assert dark[:, 0].max() < height - box.y0 - box.height / 2 and dark[:, 1].max() < box.x0 + box.width / 2


def test_resize_means_when_shrinking_and_repeats_when_growing():
    x = np.arange(24.0).reshape(1, 4, 6)
    np.testing.assert_allclose(figures.resize(x, 2, 3)[0], x[0].reshape(2, 2, 3, 2).mean(axis=(1, 3)))
    np.testing.assert_array_equal(figures.resize(x, 8, 12)[0], x[0].repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_allclose(figures.resize(x, 8, 3)[0], x[0].repeat(2, 0).reshape(8, 3, 2).mean(axis=2))


@pytest.mark.parametrize("shape, most, expected", [
    ((28, 28), 100, (28, 28)), ((1, 784), 784, (196, 784)), ((40, 2), 100, (40, 10)),
    ((300, 200), 30, (30, 20))])
def test_tile_size(shape, most, expected):
    assert figures.tile_size(shape, most) == expected


def test_matplotlib_is_imported_late_and_pyplot_never():
    script = """
import sys
import numpy as np
import npvae.plotting as plotting
assert "matplotlib" not in sys.modules, "import npvae.plotting imports matplotlib"
plotting.png(plotting.samples(np.ones((4, 6)), (2, 3)))
plotting.png(plotting.latent_scatter(np.ones((40, 2)), np.arange(40)))
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules, "a picture imports pyplot"
"""
    subprocess.run([sys.executable, "-c", script], check=True,
                   cwd=Path(figures.__file__).parents[1])  # where `import npvae` finds the package under test


def test_colours_are_drawn_as_they_are():
    """Two images of 1 x 2 pixels in colour, side by side; the gaps are white."""
    from npvae.plotting.figures import mosaic
    images = np.array([[[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0.2, 0.4, 0.6]]]]).reshape(1, 2, 6)
    canvas, tops, lefts, (height, width) = mosaic(images, (1, 2, 3), ink=False)
    assert (height, width) == (1, 2) and canvas.shape[2] == 3
    drawn = 255 - canvas
    for i, left in enumerate(lefts):
        assert np.array_equal(drawn[tops[0], left:left + 2].ravel(), np.rint(255 * images[0, i]))
    assert (drawn[0] == 255).all() and (drawn[:, 0] == 255).all()
    with pytest.raises(ValueError, match=r"image_shape is \(2, 1, 2\).* product of 6.*or \(height, width, 3\)"):
        mosaic(images, (2, 1, 2))
