"""Pictures of tables and of curves: what is drawn is what the data hold."""
import numpy as np
import pytest

from npvae import VAE, plotting
from npvae.likelihoods.columns import Column
from npvae.plotting.figures import tile_figure
from npvae.plotting.pictures import save_pictures

COLUMNS = (Column("length mm", "gaussian"), Column("visits", "poisson"),
           Column("island", "categorical", ("Biscoe", "Dream", "Torgersen")))


def table(rows, seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(rows)
    return np.column_stack([180 + 10 * z, rng.poisson(np.exp(1 + z / 2)), rng.integers(0, 3, rows)])


def test_bars_are_the_shares_of_levels():
    x, drawn = table(50, 1), table(80, 2)
    x[:10, 2] = np.nan
    figure = plotting.columns_and_samples(x, drawn, COLUMNS)
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == [column.name for column in COLUMNS]
    bars = [bar.get_height() for bar in figure.axes[2].patches]
    np.testing.assert_allclose(bars[:3], [np.mean(x[10:, 2] == level) for level in range(3)])
    np.testing.assert_allclose(bars[3:], [np.mean(drawn[:, 2] == level) for level in range(3)])
    assert [text.get_text() for text in figure.axes[2].get_xticklabels()] == list(COLUMNS[2].levels)


def test_correlations_are_those_of_numpy_where_nothing_is_missing():
    x, drawn = table(200, 1), table(300, 2)
    left, right = plotting.correlations(x, drawn, COLUMNS).axes[:2]
    for axes, rows in ((left, x), (right, drawn)):
        np.testing.assert_allclose(axes.images[0].get_array(), np.corrcoef(rows.T), atol=1e-12)


def test_missing_cells_and_constant_columns_have_a_place():
    x = table(60, 1)
    x[::2, 0], x[:, 1] = np.nan, 3
    shown = plotting.correlations(x, x, COLUMNS).axes[0].images[0].get_array()
    assert np.isfinite(shown).all() and shown[1, 1] == 0 and shown[0, 0] == pytest.approx(1)
    plotting.png(plotting.columns_and_samples(np.full((2, 3), np.nan), x, COLUMNS))


def test_curves_are_the_rows():
    rows = np.random.default_rng(0).standard_normal((5, 30))
    panel = plotting.curves(rows, -rows).axes[0]
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), rows[0])
    np.testing.assert_array_equal(panel.lines[1].get_ydata(), -rows[0])
    left, right = plotting.curves_drawn(-rows, rows).axes
    np.testing.assert_array_equal(left.lines[3].get_ydata(), rows[3])
    np.testing.assert_array_equal(right.lines[3].get_ydata(), -rows[3])


@pytest.mark.parametrize("D, names", [(5, {"columns", "correlations"}), (40, {"curves", "curves_drawn"})])
def test_rows_that_are_no_images_are_not_drawn_as_such(D, names, tmp_path):
    x = (3 * np.random.default_rng(0).standard_normal((30, D))).astype(np.float32)
    vae = VAE(D, (6,), 3, likelihood="gaussian", kernels="numpy")
    paths = save_pictures(vae, x, None, (1, D), [], tmp_path, np.random.default_rng(0))
    assert {path.stem for path in paths} == names | {"latent_scatter", "kl_per_dimension"}


@pytest.mark.parametrize("ink", [True, False])
def test_numbers_that_are_no_pixels_get_a_bar_of_greys(ink):
    images = np.linspace(-3, 5, 8).reshape(1, 2, 4)
    figure = tile_figure(images, (2, 2), "reals", ink=ink)
    grid, bar = figure.axes
    assert bar.get_ylim() == (-3, 5)
    shown = np.asarray(grid.images[0].get_array())
    assert {0, 255} <= {*shown.ravel().tolist()}, "the smallest and the largest number are not clipped"
    assert len(np.unique(shown)) >= 8
    assert len(tile_figure(np.clip(images, -0.05, 1.05), (2, 2), "pixels").axes) == 1
