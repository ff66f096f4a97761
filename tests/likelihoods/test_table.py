"""The likelihood of a table: every kind of column, in its own unit."""
import json
import math

import numpy as np
import pytest

from npvae import VAE, fit
from npvae.gradcheck import check_gradients
from npvae.kernels import reference
from npvae.likelihoods import Table, make_likelihood
from npvae.likelihoods.columns import Column

COLUMNS = [
    Column("length", "gaussian", (), 3.0, 2.0), Column("price", "log-normal", (), 1.0, 0.5),
    Column("city", "categorical", ("x", "y", "z")), Column("visits", "negative-binomial", (), 1.0, 0.7),
    Column("calls", "poisson", (), 1.0, 0.7), Column("grade", "ordinal", ("low", "mid", "high", "top")),
    Column("sex", "bernoulli", ("f", "m")), Column("gain", "student-t", (), -3.0, 10.0),
    Column("loss", "laplace", (), -3.0, 10.0), Column("mass", "gaussian", (), 100.0, 20.0),
    Column("town", "categorical", ("1", "2"))]
D = len(COLUMNS)


def model(columns=COLUMNS, hidden=(7,), **arguments):
    return VAE(len(columns), hidden, 3, "tanh", Table(columns), seed=1, **arguments)


def data(rows=5, gaps=0.0, seed=0, columns=COLUMNS):
    rng = np.random.default_rng(seed)
    x = Table(columns).support.nearest(rng.random((rows, len(columns))))
    x[rng.random(x.shape) < gaps] = np.nan
    return x


def moved(vae):
    """Parameters that are not those of the start."""
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(4).standard_normal(vae.parameters.flat.size)
    return vae


@pytest.mark.parametrize("missing", [False, True])
def test_gradients_and_twins(missing):
    x, eps = data(gaps=0.3 * missing), np.random.default_rng(1).standard_normal((5, 2, 3))
    plain = model(dtype="float64", kernels="numpy", missing=missing)
    plain.start(x)
    moved(plain)
    loss, gradients = plain.loss_and_gradients(x, eps)
    analytic = model(dtype="complex128", kernels="numpy", missing=missing)
    report = check_gradients(lambda parameters: analytic.loss(x, eps, parameters=parameters), gradients,
                             plain.parameters, "directional", directions=4)
    assert report.ok, report
    fused = model(dtype="float64", missing=missing)
    fused.parameters.flat[...] = plain.parameters.flat
    assert fused.loss_and_gradients(x, eps)[0] == pytest.approx(loss, rel=1e-12)
    assert np.allclose(fused.gradients.flat, gradients.flat, rtol=1e-9, atol=1e-12)


def test_a_column_alone_costs_what_it_costs_in_the_table():
    """nll is the sum over columns, whatever the order: each family finds its own columns, outputs and parameters."""
    x = data(4)
    vae = moved(model(dtype="float64", kernels="numpy"))
    output = np.random.default_rng(3).standard_normal((4, 2, vae.likelihood.output_dim(D)))
    cells, kept = np.empty((4, 2, D)), np.empty_like(output)
    vae.likelihood.columns_forward(vae.kernels, cells, kept, output, x, vae.parameters)
    nll = np.empty((4, 2))
    vae.likelihood.forward(vae.kernels, nll, kept, output, x, vae.parameters)
    assert np.allclose(nll, cells.sum(axis=-1), rtol=1e-14)
    for group in vae.likelihood.groups:
        for i, d in enumerate(group.columns):
            alone = Table([COLUMNS[d]])
            one = VAE(1, (), 1, likelihood=alone, dtype="float64", kernels="numpy")
            for name, value in one.parameters.items():
                if name.startswith("likelihood."):
                    whole = vae.parameters[name]
                    cuts = sum(len(COLUMNS[c].levels) - 1 for c in group.columns[:i]) if "cuts" in name else i
                    value[...] = whole if len(whole) == len(value) else whole[cuts:cuts + len(value)]
            start = (sum(len(COLUMNS[c].levels) for c in group.columns[:i]) if group.name == "categorical" else i)
            own = output[:, :, group.output[start]:group.output[start] + alone.output_dim(1)]
            found, memory = np.empty((4, 2, 1)), np.empty((4, 2, own.shape[2]))
            alone.columns_forward(one.kernels, found, memory, np.ascontiguousarray(own), x[:, d:d + 1], one.parameters)
            assert np.allclose(found[:, :, 0], cells[:, :, d], rtol=1e-12), COLUMNS[d].name


def test_another_unit_costs_its_logarithm_and_changes_nothing_else():
    """Centimetres for metres: location and scale follow, and so do means and draws."""
    x, eps = data(6), np.random.default_rng(1).standard_normal((6, 1, 3))
    others = [column._replace(location=100 * column.location, scale=100 * column.scale) if column.name == "length" else
              column._replace(location=column.location + math.log(100)) if column.name == "price" else column
              for column in COLUMNS]
    vae, other = moved(model(dtype="float64")), moved(model(others, dtype="float64"))
    units = np.array([100 if column.name in ("length", "price") else 1 for column in COLUMNS])
    first, second = vae.loss_and_gradients(x, eps)[0], other.loss_and_gradients(units * x, eps)[0]
    assert second - first == pytest.approx(2 * math.log(100), rel=1e-9)
    assert np.allclose(vae.gradients.flat, other.gradients.flat, rtol=1e-7, atol=1e-12)
    for mean in (True, False):
        ours, theirs = (one.sample(4, np.random.default_rng(2), mean=mean) for one in (vae, other))
        assert np.allclose(theirs, units * ours, rtol=1e-9)


def test_it_starts_at_the_best_independent_columns():
    """Where the decoder ignores z, nll is that of the maximum likelihood fit of every column by itself."""
    columns = [column for column in COLUMNS if column.family in ("gaussian", "log-normal", "categorical", "bernoulli")]
    x = data(300, columns=columns)
    vae = model(columns, dtype="float64")
    vae.start(x)
    vae.parameters["output.W"][...] = 0
    a, _ = vae.passes(300, 1)
    vae.loss_and_gradients(x, np.zeros((300, 1, 3)))
    best = 0.0
    for column, cells in zip(columns, x.T):
        if column.levels:
            p = np.bincount(cells.astype(int)) / 300
            best -= float(np.sum(p * np.log(p)))
        else:
            t = np.log(cells) if column.family == "log-normal" else cells
            best += 0.5 * math.log(2 * math.pi * math.e * t.var()) + (t.mean() if column.family == "log-normal" else 0)
    assert a.nll.mean() == pytest.approx(best, abs=1e-4)


def test_means_and_draws_are_in_the_units_of_the_data():
    vae = moved(model(dtype="float64"))
    z = np.tile(np.array([[0.3, -0.5, 1.0]]), (40_000, 1))
    mean = vae.decode(z[:1])[0]
    rng = np.random.default_rng(5)
    output = np.tile(_output(vae, z[:1]), (len(z), 1))
    draws = vae.likelihood.draw(vae.kernels, output, vae.parameters, rng)
    vae.likelihood.support.check(draws, "draws")
    for d, column in enumerate(COLUMNS):
        if column.family == "categorical":
            assert mean[d] == np.bincount(draws[:, d].astype(int)).argmax()
        else:
            assert abs(draws[:, d].mean() - mean[d]) < 5 * draws[:, d].std() / 200, column.name


def _output(vae, z):
    """The decoder's output (rows, P)."""
    a, _ = vae.passes(len(z), 1)
    a.z_rows[...] = z
    vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
    vae.output.forward(vae.kernels, a, a.last, vae.parameters)
    return a.rows.copy()


def test_the_encoder_sees_numbers_of_one_size_and_a_place_for_each_level():
    table = Table(COLUMNS)
    x = data(200)
    features = np.empty((200, table.features_dim(D)))
    table.features(VAE(D, (), 1, likelihood=table, dtype="float64").kernels, features, x)
    of = table.feature_columns(D)
    assert features.shape[1] == len(of) == 8 + 3 + 4 + 2
    assert np.allclose(features[:, of == 0][:, 0], (x[:, 0] - 3) / 2)
    assert np.allclose(features[:, of == 1][:, 0], (np.log(x[:, 1]) - 1) / 0.5)
    assert np.allclose(features[:, of == 3][:, 0], (np.log1p(x[:, 3]) - 1) / 0.7)
    assert np.array_equal(features[:, of == 5], x[:, 5, None] == np.arange(4))
    assert np.array_equal(features[:, of == 6][:, 0], x[:, 6])


def test_a_saved_table_loads_without_its_data(tmp_path):
    x = data(20, gaps=0.2).astype(np.float32)
    vae = model(missing=True)
    vae.start(x)
    fit(vae, x, x, 2, 10)
    vae.save(tmp_path / "table.npz")
    again = VAE.load(tmp_path / "table.npz")
    assert again.likelihood.columns == tuple(COLUMNS) and again.config() == json.loads(json.dumps(vae.config()))
    assert np.array_equal(again.encode(x)[0], vae.encode(x)[0])
    assert Table(COLUMNS).config() == make_likelihood(Table(COLUMNS).config()).config()


BAD_CELLS = {
    "price": (0.0, "positive numbers in column 1, 'price', found 0"), "visits": (-1.0, "counts in column 3, 'visits'"),
    "calls": (0.5, "counts in column 4, 'calls', found 0.5"),
    "city": (3.0, "the codes of its levels, 0 to 2 in column 2"),
    "grade": (1.5, "the codes of its levels, 0 to 3 in column 5, 'grade', found 1.5"), "length": (np.nan, "finite")}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_cell_that_does_not_fit_is_named(name):
    x, (value, says) = data(), BAD_CELLS[name]
    x[2, [column.name for column in COLUMNS].index(name)] = value
    with pytest.raises(ValueError, match="x must hold .*" + says):
        model().encode(x)


def plain(**changes):
    return {"table": [{**Table(COLUMNS).config()["table"][0], **changes}]}


@pytest.mark.parametrize("config", [
    {"table": []}, {"table": 3}, {"tables": []}, {"table": [{}]}, plain(family="normal"), plain(scale=0.0),
    plain(name=3), plain(levels=["a", "b"]),
    plain(family="categorical"), plain(family="categorical", levels=["a", "a"]),
    plain(location=math.inf), plain(decimals=-1), plain(more=1), plain(family="bernoulli", levels=["a", "b", "c"]),
    {"table": plain()["table"] * 2}])
def test_what_is_no_table_is_refused(config):
    with pytest.raises(ValueError) as caught:
        make_likelihood(config)
    assert len(str(caught.value).splitlines()) == 1


def test_other_misuse_is_refused():
    with pytest.raises(ValueError, match="likelihood table has 11 columns, and input_dim is 5"):
        VAE(5, likelihood=Table(COLUMNS))
    with pytest.raises(ValueError, match="likelihood table needs the columns of the data"):
        VAE(5, likelihood="table")
    with pytest.raises(TypeError, match="columns must be a list of Column"):
        Table("age:gaussian")


def test_gaps_are_filled_with_means_and_the_most_probable_levels():
    x = data(40, gaps=0.3)
    vae = moved(model(missing=True, kernels="numpy"))
    filled = vae.impute(x, 0, n_samples=20)
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)].astype(filled.dtype))
    Table(COLUMNS).support.check_mean(filled, "filled")
    for d, column in enumerate(COLUMNS):
        if column.levels:
            assert {*filled[:, d]} <= {*range(len(column.levels))}, column.name


@pytest.mark.parametrize("name", ["categories:3,2", "ordinal:3,2"])
def test_the_summary_of_codes_is_the_probability_of_each_level(name):
    likelihood, levels = make_likelihood(name), [3, 2]
    params = VAE(2, (), 1, likelihood=likelihood, dtype="float64", kernels="numpy").parameters
    params.flat[...] = np.random.default_rng(0).standard_normal(params.flat.size)
    output = np.random.default_rng(1).standard_normal((4, 1, likelihood.output_dim(2)))
    summary, at = likelihood.summary(reference, output[:, 0], params), 0
    for d, size in enumerate(levels):
        for level in range(size):
            cells, x = np.empty((4, 1, 2)), np.zeros((4, 2))
            x[:, d] = level
            likelihood.columns_forward(reference, cells, np.empty_like(output), output, x, params)
            np.testing.assert_allclose(summary[:, at], np.exp(-cells[:, 0, d]), rtol=1e-12)
            at += 1
    best = likelihood.single(summary)
    np.testing.assert_array_equal(best, np.stack([summary[:, :3].argmax(1), summary[:, 3:].argmax(1)], axis=1))
