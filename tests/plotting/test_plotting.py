"""The pictures: coordinates and order right, nothing cut off, any shape drawn, no setting left changed."""

from statistics import NormalDist

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from npvae.plotting import charts, figures, pictures
from pictures import assert_nothing_cut_off, images


class LinearVAE:
    """mu = x A, mean = z A^T through a sigmoid: all that the pictures ask of a VAE."""

    def __init__(self, input_dim: int, latent_dim: int):
        self.input_dim, self.latent_dim = input_dim, latent_dim
        weights = np.random.default_rng(0).normal(size=(input_dim, latent_dim))
        self.weights = (weights / input_dim).astype(np.float32)
        self.decoded: list[np.ndarray] = []  # every z that was decoded
        self.rows_encoded: list[int] = []
        self.buffer = np.empty((1000, latent_dim), np.float32)  # a VAE may hand out the same memory again

    def encode(self, x):
        self.rows_encoded.append(len(x))
        if len(x) > len(self.buffer):
            raise AssertionError(f"{len(x)} rows encoded at once")
        mu = np.matmul(x, self.weights, out=self.buffer[:len(x)])
        return mu, np.broadcast_to(np.log(np.linspace(0.1, 1, self.latent_dim)), mu.shape).astype(np.float32)

    def decode(self, z):
        self.decoded.append(np.array(z))
        return 1 / (1 + np.exp(-z @ self.weights.T))

    def reconstruct(self, x, rng):
        return self.decode(self.encode(x)[0] + rng.normal(size=(len(x), self.latent_dim)))

    def sample(self, n, rng):
        return self.decode(rng.normal(size=(n, self.latent_dim)))


def epoch(number, beta=1.0):
    names = [f"{part}_{name}" for part in ("train", "test") for name in ("loss", "nll", "kl")]
    return {"epoch": number, "beta": beta, "active_units": 3, "seconds": 0.3,
            **{name: (i + 1) * 20.0 + 1 / number for i, name in enumerate(names)}}


def shown_tile(figure, shape, row, column, rows, columns):
    """The pixels of one tile, found without the module's own arithmetic where all gaps are alike."""
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    gap = (canvas.shape[0] - rows * shape[0]) // (rows + 1)
    assert canvas.shape == tuple(n * s + (n + 1) * gap for n, s in zip((rows, columns), shape, strict=True))
    top, left = gap + row * (shape[0] + gap), gap + column * (shape[1] + gap)
    return canvas[top:top + shape[0], left:left + shape[1]]


# ---- Pictures

@settings(deadline=None, max_examples=4)
@given(n=st.integers(1, 25), shape=st.sampled_from([(28, 28), (1, 7), (9, 2), (3, 5), (1, 1), (70, 90)]))
def test_reconstructions_stand_under_their_originals(n, shape):
    x = images(n, shape[0] * shape[1])
    figure = pictures.reconstructions(x, 1 - x, shape)
    assert_nothing_cut_off(figure)
    canvas = np.asarray(figure.axes[0].images[0].get_array()).astype(int)
    _, tops, lefts, (height, width) = figures.mosaic(
        np.zeros((2 * -(-n // 10), min(n, 10), x.shape[1])), shape, range(2, 2 * -(-n // 10), 2))
    for i in range(n):
        block, column = divmod(i, 10)
        upper, lower = (canvas[top:top + height, lefts[column]:lefts[column] + width]
                        for top in tops[2 * block:2 * block + 2])
        np.testing.assert_allclose(upper + lower, 255, atol=1)
        expected = figures.resize(255 * x[i].reshape(1, *shape), height, width)[0]
        np.testing.assert_array_equal(upper, np.rint(expected))


@pytest.mark.parametrize("n, side", [(1, 1), (2, 2), (9, 3), (10, 4), (100, 10)])
def test_samples_fill_a_square(n, side):
    x = images(n, 28 * 20)
    figure = pictures.samples(x, (28, 20))
    assert_nothing_cut_off(figure)
    row, column = divmod(n - 1, side)
    tile = shown_tile(figure, (28, 20), row, column, -(-n // side), side)
    np.testing.assert_array_equal(tile, np.rint(255 * x[-1].reshape(28, 20)))


def test_manifold_grid_is_the_inverse_cdf_with_z1_upwards():
    z = pictures.manifold_grid(7)
    for i in range(7):
        quantile = NormalDist().inv_cdf((i + 0.5) / 7)
        np.testing.assert_allclose(z[:, i, 0], quantile)      # column i, counted from the left
        np.testing.assert_allclose(z[6 - i, :, 1], quantile)  # row i, counted from the bottom


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_manifold_draws_its_grid(size):
    vae = LinearVAE(12, 2)
    figure = pictures.manifold(vae, (3, 4), size=size)
    assert_nothing_cut_off(figure)
    top_right = 255 * vae.decode(pictures.manifold_grid(size)[0, -1]).reshape(3, 4)
    np.testing.assert_allclose(shown_tile(figure, (3, 4), 0, size - 1, size, size), top_right, atol=1)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == size and float(labels[0]) >= float(labels[-1])  # z[1] grows upwards


def test_traversal_rows_are_sorted_by_kl_and_vary_one_coordinate():
    vae, x = LinearVAE(6, 12), 5 * images(1, 6)[0]
    kl = np.random.default_rng(3).permutation(12) / 10
    figure = pictures.traversals(vae, x, kl, (2, 3), columns=5)
    assert_nothing_cut_off(figure)
    order, mu = np.argsort(-kl)[:10], x @ vae.weights
    z = vae.decoded[0].reshape(10, 5, 12)
    for row, j in enumerate(order):
        np.testing.assert_allclose(z[row, :, j], [-3, -1.5, 0, 1.5, 3])
        others = np.arange(12) != j
        np.testing.assert_allclose(z[row][:, others], np.tile(mu[others], (5, 1)), rtol=1e-5)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [f"z[{j}]: {kl[j]:.2f} nats" for j in order]
    nearest = np.abs(np.array([-3, -1.5, 0, 1.5, 3]) - mu[order, None]).argmin(axis=1)
    assert len(set(nearest)) > 2
    _, tops, lefts, _ = figures.mosaic(np.zeros((10, 5, 6)), (2, 3))
    assert [patch.get_xy() for patch in figure.axes[0].patches] == list(zip(lefts[nearest] - 0.5, tops - 0.5,
                                                                            strict=True))


def test_interpolation_runs_from_one_mean_to_the_other():
    vae, pairs = LinearVAE(6, 3), images(4, 6).reshape(2, 2, 6)
    figure = pictures.interpolation(vae, pairs, (2, 3), steps=5)
    assert_nothing_cut_off(figure)
    mu, z = pairs @ vae.weights, vae.decoded[0].reshape(2, 5, 3)
    np.testing.assert_allclose(z[:, 0], mu[:, 0], rtol=1e-5)
    np.testing.assert_allclose(z[:, -1], mu[:, 1], rtol=1e-5)
    np.testing.assert_allclose(z[:, 1], 0.75 * mu[:, 0] + 0.25 * mu[:, 1], rtol=1e-5)
    _, tops, lefts, _ = figures.mosaic(np.zeros((2, 7, 6)), (2, 3), column_breaks=(1, 6))
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    for row, top in enumerate(tops):  # the originals at both ends, framed and set apart
        for end, left in enumerate(lefts[[0, -1]]):
            np.testing.assert_array_equal(canvas[top:top + 2, left:left + 3],
                                          np.rint(255 * pairs[row, end].reshape(2, 3)))
    steps = np.diff(lefts)
    assert steps[0] == steps[-1] > steps[1:-1].max()
    assert {p.get_x() for p in figure.axes[0].patches} == set(lefts[[0, -1]] - 0.5)


# ---- Charts

@pytest.mark.every(3)
@pytest.mark.parametrize("epochs", [1, 2, 40])
@pytest.mark.parametrize("anneal", [False, True])
def test_learning_curves(epochs, anneal):
    history = [epoch(i, beta=i / epochs if anneal else 1.0) for i in range(1, epochs + 1)]
    figure = pictures.learning_curves(history)
    assert_nothing_cut_off(figure)
    assert len(figure.axes) == (4 if anneal and epochs > 1 else 3)  # the fourth is beta's
    for axes, name in zip(figure.axes, ("loss", "nll", "kl"), strict=False):
        for line, part in zip(axes.lines, ("train", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), range(1, epochs + 1))
            np.testing.assert_array_equal(line.get_ydata(), [row[f"{part}_{name}"] for row in history])
            assert line.get_label() == part and (epochs > 2 or line.get_markersize() > 0)
        assert "nats" in axes.get_ylabel()


def test_learning_curves_without_test_data_or_with_nan():
    rows = [{"epoch": i, "train_loss": np.nan, "train_nll": 2.0, "train_kl": 3.0} for i in (1, 2)]
    figure = pictures.learning_curves(rows)
    assert_nothing_cut_off(figure)
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]


@pytest.mark.every(3)
@pytest.mark.parametrize("latent_dim", [1, 2, 20, 333])
def test_kl_bars_fall_and_name_their_dimension(latent_dim):
    kl = np.random.default_rng(0).permutation(latent_dim) / 100.0
    figure = pictures.kl_per_dimension(kl, threshold=0.01)
    assert_nothing_cut_off(figure)
    axes = figure.axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], np.sort(kl)[::-1])
    for tick, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        assert kl[int(text.get_text())] == axes.patches[int(tick)].get_height()
    assert f"{kl.sum():.2f} nats" in axes.get_title()
    assert f"{max(0, latent_dim - 2)} of {latent_dim}" in axes.get_title()
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len({c for c, bar in zip(colours, axes.patches, strict=True) if bar.get_height() > 0.01}) <= 1
    assert len(set(colours)) == (2 if latent_dim > 2 else 1)


def test_principal_components_are_the_svd():
    mu = np.random.default_rng(0).normal(size=(50, 5)) @ np.diag([1.0, 5, 2, 3, 0.1])
    points, names = charts.principal_components(mu)
    u, s, vt = np.linalg.svd(mu - mu.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(u[:, :2] * s[:2]), atol=1e-10)
    np.testing.assert_allclose(points.var(axis=0), (s ** 2 / 50)[:2])
    shares = s[:2] ** 2 / (s ** 2).sum()
    assert [name.split("(")[1] for name in names] == [f"{share:.0%} of variance)" for share in shares]
    np.testing.assert_allclose(charts.principal_components(-mu)[0], -points)  # signs follow the data


@pytest.mark.every(7)
@pytest.mark.parametrize("latent_dim", [1, 2, 3, 20])
@pytest.mark.parametrize("n, classes", [(1, 1), (2, 2), (300, 10), (300, 11), (300, 300), (300, None)])
def test_latent_scatter(latent_dim, n, classes):
    mu = np.random.default_rng(0).normal(size=(n, latent_dim))
    figure = pictures.latent_scatter(mu, None if classes is None else np.arange(n) % classes)
    assert_nothing_cut_off(figure)
    axes = figure.axes[0]
    assert (axes.get_legend() is not None) == (classes is not None and classes <= 10 and latent_dim > 1)
    colour_bar = classes is not None and classes > 10 and latent_dim > 1
    assert len(figure.axes) == 1 + colour_bar
    if latent_dim == 1 and classes is None:
        assert sum(bar.get_height() for bar in axes.patches) == n
        return
    points = np.asarray(axes.collections[0].get_offsets())
    if latent_dim == 1:
        np.testing.assert_allclose(points[:, 0], mu[:, 0])
        np.testing.assert_array_equal(points[:, 1].round(), np.arange(n) % classes)
    else:
        expected = mu if latent_dim == 2 else charts.principal_components(mu)[0]
        np.testing.assert_allclose(points, expected)
    colours = axes.collections[0].get_facecolors()
    assert len(np.unique(colours, axis=0)) == (1 if classes is None else min(classes, n, 256))


@pytest.mark.every(3)
@pytest.mark.parametrize("labels", [
    ["cat", "dog", "yak"], [0.1, 0.25, 1e7], [f"kind {i}" for i in range(30)]], ids="abc")
@pytest.mark.parametrize("latent_dim", [1, 2])
def test_latent_scatter_takes_any_labels(labels, latent_dim):
    mu = np.random.default_rng(0).normal(size=(90, latent_dim))
    assert_nothing_cut_off(pictures.latent_scatter(mu, np.resize(labels, 90)))


def test_a_letter_that_the_font_lacks_is_no_warning():
    mu = np.random.default_rng(0).normal(size=(9, 2))
    assert pictures.png(pictures.latent_scatter(mu, np.resize(["𝔘", "日本"], 9))).startswith(b"\x89PNG")


def test_latent_scatter_draws_at_most_5000_points_of_every_label():
    labels = np.repeat(np.arange(10), 1200)  # sorted by label, as some files are
    figure = pictures.latent_scatter(np.random.default_rng(0).normal(size=(12_000, 2)), labels)
    colours, counts = np.unique(figure.axes[0].collections[0].get_facecolors(), axis=0, return_counts=True)
    assert counts.sum() == 5000 and len(colours) == 10 and counts.min() >= 499


# ---- All of them

@pytest.mark.every(5)
@pytest.mark.parametrize("latent_dim, n, shape, labelled", [
    (2, 2, (3, 4), True), (1, 1, (1, 12), False), (5, 3, (12, 1), True), (2, 30, (4, 3), False),
    (20, 2500, (28, 28), True)])
def test_save_pictures(tmp_path, latent_dim, n, shape, labelled):
    vae, x = LinearVAE(shape[0] * shape[1], latent_dim), images(n, shape[0] * shape[1])
    history = [epoch(1), epoch(2)]
    labels = np.arange(n) % 10 if labelled else None
    folder = tmp_path / "new" / "pictures"
    paths = pictures.save_pictures(vae, x, labels, shape, history, folder, np.random.default_rng(0))
    assert [path.name for path in paths] == [
        "reconstructions.png", "samples.png", "learning_curves.png",
        "manifold.png" if latent_dim == 2 else "traversals.png",
        "interpolation.png", "latent_scatter.png", "kl_per_dimension.png"]
    assert sorted(folder.iterdir()) == sorted(paths)  # and no temporary file
    for path in paths:
        height, width = imread(path).shape[:2]
        assert path.read_bytes().startswith(b"\x89PNG") and 60 <= height <= 1500 and 200 <= width <= 1700


@pytest.mark.slow
def test_save_pictures_is_reproducible_and_leaves_learning_curves_out_without_history(tmp_path):
    vae, x = LinearVAE(12, 3), images(7, 12)
    contents = []
    for name in "ab":
        paths = pictures.save_pictures(vae, x, None, (3, 4), [], tmp_path / name, np.random.default_rng(5))
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert "learning_curves.png" not in [path.name for path in paths] and len(paths) == 6


def test_scatter_gets_the_label_of_each_mean_and_at_most_10_000(tmp_path, monkeypatch):
    vae, x, seen = LinearVAE(4, 2), images(10_500, 4), []
    scatter = pictures.latent_scatter
    monkeypatch.setattr(pictures, "png", lambda figure: b"")
    monkeypatch.setattr(pictures, "latent_scatter", lambda *args: seen.append(args) or scatter(*args))
    pictures.save_pictures(vae, x, np.arange(10_500), (2, 2), [], tmp_path, np.random.default_rng(0))
    [(mu, labels)] = seen
    assert len(mu) == len(np.unique(labels)) == 10_000 and labels[0] == 0 and labels[-1] == 10_499
    np.testing.assert_allclose(mu, x[labels] @ vae.weights, rtol=1e-4, atol=1e-5)


class Told:
    """A conditional VAE that shows what it was told.  Pixels and codes: number of the image, its label as the image has
    it, the label given to `encode`; and, of pixels, the label given to `decode`."""

    latent_dim = 3

    def encode(self, x, labels):
        mu = np.column_stack([x[:, 0], x[:, 1], labels]).astype(float)
        return mu, np.full_like(mu, -1 - x[:, :1])

    def decode(self, z, labels):
        return np.column_stack([z, labels])

    def reconstruct(self, x, rng, labels):
        return self.decode(self.encode(x, labels)[0], labels)

    def sample(self, n, rng, mean=True, labels=None, prior=None):
        return self.decode(rng.normal(size=(n, 3)), labels)


def test_every_tile_is_made_of_the_image_and_the_label_that_belong_to_it(tmp_path, monkeypatch):
    shown, draw = {}, pictures.tile_figure
    monkeypatch.setattr(pictures, "tile_figure",
                        lambda images, shape, title, **more: shown.update({title: (images, more)})
                        or draw(images, shape, title, **more))
    monkeypatch.setattr(pictures, "png", lambda figure: b"")
    x, labels = np.zeros((30, 4)), np.random.default_rng(1).integers(1, 4, 30)      # classes 0, 1, 2
    x[:, 0], x[:, 1] = np.arange(30), labels - 1
    pictures.save_pictures(Told(), x, labels, (2, 2), [], tmp_path, np.random.default_rng(0), classes=[1, 2, 3])

    def of(images, numbers):
        """Are these what `Told` makes of the images of these numbers?"""
        return np.array_equal(images, np.column_stack([numbers, *3 * [(labels - 1)[numbers]]]))

    tiles, _ = shown["Test images and their reconstructions"]
    numbers = figures.spread(30, 20)
    assert np.array_equal(tiles[::2].reshape(20, 4), x[numbers]) and of(tiles[1::2].reshape(20, 4), numbers)
    tiles, _ = shown["From one test image to another"]
    assert len({tuple(row) for row in tiles[:, [0, -1], 0].tolist()}) == len(tiles) == 6
    assert sum(start[1] != end[1] for start, *_, end in tiles) > 2      # pairs of two classes
    for start, *steps, end in tiles:
        first, last = int(start[0]), int(end[0])
        assert np.array_equal([start, end], x[[first, last]]) and of([steps[0], steps[-1]], np.array([first, last]))
        assert [step[3] for step in steps] == 5 * [labels[first] - 1] + 5 * [labels[last] - 1]
    tiles, more = shown["One latent coordinate varied at a time"]
    for row, name in zip(tiles, more["row_labels"], strict=True):
        others = [j for j in range(4) if name[:4] != f"z[{j}]"]
        assert len(others) == 3 and (row[:, others] == np.array([0, *3 * [labels[0] - 1]])[others]).all()
    tiles, _ = shown["Decoded draws from the prior"]
    assert np.bincount(tiles[..., 3].ravel().astype(int)).tolist() == [34, 33, 33]
    assert (np.diff(tiles[..., 3].ravel()) >= 0).all()      # class by class
    tiles, more = shown["Draws from the prior, one z down each column"]
    assert more["row_labels"] == ["1", "2", "3"] and (tiles[..., 3].T == [0, 1, 2]).all()
    assert (tiles[..., :3] == tiles[:1, :, :3]).all() and np.unique(tiles[0, :, 0]).size == 10


def test_kl_is_the_mean_over_all_blocks():
    vae, x = LinearVAE(4, 3), images(2300, 4)
    mu, kl, _ = pictures._encode(vae, x, np.arange(2300))
    np.testing.assert_allclose(mu, x @ vae.weights, rtol=1e-4, atol=1e-5)
    variance = np.linspace(0.1, 1, 3)
    expected = (0.5 * (mu ** 2 + variance - 1 - np.log(variance))).mean(axis=0)
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    assert vae.rows_encoded == [1000, 1000, 300]


VAE2, VAE3, X = LinearVAE(12, 2), LinearVAE(12, 3), images(4, 12)


@pytest.mark.parametrize("call, words", [
    (lambda: pictures.manifold(VAE3, (3, 4)), "latent_dim 2, not 3"),
    (lambda: pictures.manifold(VAE2, (3, 4), size=0), "size is 0"),
    (lambda: pictures.samples(X, (3, 5)), r"image_shape is \(3, 5\).*12"),
    (lambda: pictures.samples(X[:0], (3, 4)), r"\(0, 12\)"),
    (lambda: pictures.samples(np.full_like(X, np.inf), (3, 4)), "infinity"),
    (lambda: pictures.reconstructions(X, X[:2], (3, 4)), r"\(2, 12\)"),
    (lambda: pictures.traversals(VAE3, X[0], np.ones(4), (3, 4)), r"\(4,\).*\(3,\)"),
    (lambda: pictures.traversals(VAE3, X[0], np.ones(3), (3, 4), columns=0), "columns 0"),
    (lambda: pictures.interpolation(VAE3, X, (3, 4)), r"\(P, 2, D\)"),
    (lambda: pictures.interpolation(VAE3, X.reshape(2, 2, 12), (3, 4), steps=1), "steps is 1"),
    (lambda: pictures.learning_curves([]), "history is empty"),
    (lambda: pictures.kl_per_dimension(np.ones((2, 3))), r"kl must .*\(2, 3\)"),
    (lambda: pictures.latent_scatter(np.full((2, 3), np.nan)), "mu must be a finite"),
    (lambda: pictures.latent_scatter(X, np.arange(3)), r"labels has shape \(3,\).*\(4,\)"),
])
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("x, labels, shape", [
    (X, None, (5, 5)), (X[:0], None, (3, 4)), (X, np.ones(3), (3, 4)), (X * np.inf, None, (3, 4))])
def test_save_pictures_writes_nothing_on_bad_input(tmp_path, x, labels, shape):
    with np.errstate(all="ignore"), pytest.raises(ValueError):
        pictures.save_pictures(VAE3, x, labels, shape, [epoch(1)], tmp_path / "new", np.random.default_rng(0))
    assert not (tmp_path / "new").exists()


# ---- Manners

def test_a_style_of_the_caller_is_neither_used_nor_changed(tmp_path):
    with matplotlib.rc_context({"image.origin": "lower", "font.size": 3, "text.color": "white",
                                "xtick.color": "white", "image.interpolation": "bicubic"}):
        before = dict(matplotlib.rcParams)
        changed = pictures.png(pictures.manifold(VAE2, (3, 4), size=4))
        assert dict(matplotlib.rcParams) == before
    assert changed == pictures.png(pictures.manifold(VAE2, (3, 4), size=4))
