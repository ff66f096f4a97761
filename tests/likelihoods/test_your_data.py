"""Likelihoods of counts, of numbers in any unit, and of codes: values, names, draws, starts, models."""
import base64
import math

import numpy as np
import pytest

from npvae import VAE, Adam, fit
from npvae.cli.program import main
from npvae.gradcheck import check_gradients
from npvae.kernels import fused, reference
from npvae.likelihoods import make_likelihood
from npvae.likelihoods.support import fitting
from npvae.pages.explorer import decoder_layers
from npvae.params import Block

D = 4
NAMES = ["poisson", "poisson:size", "negative-binomial:column", "negative-binomial:shared+size",
         "negative-binomial:decoder", "zero-inflated-negative-binomial:column",
         "zero-inflated-negative-binomial:decoder+size", "multinomial", "student-t:column", "student-t:4.0+shared",
         "laplace:shared", "log-normal:column", "ordinal:3", "ordinal:2,5,3,4", "categories:3", "categories:2,5,3,4"]
MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["reference", "fused"])


def rng():
    return np.random.default_rng(1)


def of(name, dtype="float64"):
    """The likelihood, and parameters of its own that are all different."""
    likelihood = make_likelihood(name)
    params = Block(likelihood.parameter_shapes(D), dtype)
    likelihood.initialize(params)
    params.flat[...] += 0.3 * rng().standard_normal(params.flat.size) + 1.2
    return likelihood, params


def cells_of(kernels, name, output, x, dtype="float64"):
    """The kernel's cell at one output and one number."""
    cells = np.empty((1, 1, 1), dtype)
    offset = () if name in ("student_t", "laplace", "log_normal") else (np.zeros(1, dtype),)
    getattr(kernels, f"{name}_nll_forward")(cells, np.array([[output]], dtype), np.array([[x]], dtype), *offset)
    return float(cells[0, 0, 0])


#: kernel, output, x, and -log p(x) in 60 digits, rounded to 20 (by mpmath)
EXACT = [
    ("poisson", [-30.0], 0.0, 9.3576229688401746049e-14),
    ("poisson", [-20.0], 1.0, 20.000000002061153622),
    ("poisson", [1.5], 3.0, 1.7734485395661198234),
    ("poisson", [6.875], 1000.0, 4.9035440728399544101),
    ("poisson", [13.75], 1000000.0, 2107.5428907240802443),
    ("poisson", [20.75], 1000000000.0, 360574.96940017822782),
    ("poisson", [3.0], 1000000000.0, 16723265868.312519531),
    ("negative_binomial", [2.0, -6.90625], 0.0, 0.0089198022203120922065),
    ("negative_binomial", [2.0, -6.90625], 1.0, 6.9153053321897075653),
    ("negative_binomial", [20.75, -6.90625], 1000000000.0, 27.636857091103361936),
    ("negative_binomial", [1.5, 0.0], 5.0, 2.708479667896514457),
    ("negative_binomial", [9.0, 2.0625], 17.0, 41.997133027426634973),
    ("negative_binomial", [3.75, 13.8125], 40.0, 2.8417385873472888366),
    ("negative_binomial", [13.75, 13.8125], 1000000.0, 1079.3109852253667333),
    ("negative_binomial", [20.75, 13.8125], 1000000000.0, 367.52056393009977269),
    ("negative_binomial", [2.0, 13.8125], 1000000000.0, 11804619950.768059759),
    ("negative_binomial", [1.0, 30.0], 3.0, 1.5100412976872368872),
    ("student_t", [0.5, 0.25, -3.0], 2.5, 4.5272265098950197018),
    ("student_t", [0.0, -1.0, 0.5], 1000000.0, 38.643528583823428927),
    ("student_t", [1.0, 0.0, 2.75], 3.0, 2.8296924467715682446),
    ("student_t", [1.0, 0.0, 13.75], 3.0, 2.9189366647302551006),
    ("student_t", [0.0, 1.0, 13.75], 50.0, 171.05767504086067263)]


@MODULES
@pytest.mark.parametrize("name, output, x, exact", EXACT)
def test_values_at_the_ends_of_the_range(kernels, name, output, x, exact):
    """These numbers are exact in float32, too: the fused kernels compute in double precision what they are given in
    single precision."""
    assert cells_of(kernels, name, output, x) == pytest.approx(exact, rel=2e-12)
    assert cells_of(kernels, name, output, x, "float32") == pytest.approx(exact, rel=2e-7)


@MODULES
def test_values_against_scipy(kernels):
    stats = pytest.importorskip("scipy.stats")
    for m in (0.01, 1.0, 30.0, 1e4):
        for x in (0, 1, 7, 30, 10_000):
            exact = -stats.poisson.logpmf(x, m)
            assert cells_of(kernels, "poisson", [math.log(m)], x) == pytest.approx(exact, rel=1e-9)
            for r in (1e-3, 0.7, 20.0, 1e6):
                p = math.exp(-math.log1p(m / r))
                exact = -stats.nbinom.logpmf(x, r, p)
                ours = cells_of(kernels, "negative_binomial", [math.log(m), math.log(r)], x)
                assert ours == pytest.approx(exact, rel=1e-9 if r in (1e-3, 1e6) else 1e-12, abs=1e-9 * (x + 1))
    for x in (-4.0, 0.1, 60.0):
        for df in (0.1, 3.0, 1e3):
            exact = -stats.t.logpdf(x, df, 0.5, math.e)
            assert cells_of(kernels, "student_t", [0.5, 1.0, math.log(df)], x) == pytest.approx(exact, rel=1e-11)
        exact = -stats.laplace.logpdf(x, 0.5, math.e)
        assert cells_of(kernels, "laplace", [0.5, 1.0], x) == pytest.approx(exact, rel=1e-12)
    assert cells_of(kernels, "log_normal", [0.5, 0.2], 7.0) == pytest.approx(
        -stats.lognorm.logpdf(7.0, math.exp(0.2), scale=math.exp(0.5)), rel=1e-12)


# ---- Names

@pytest.mark.parametrize("name", NAMES)
def test_a_name_builds_the_likelihood_that_has_it(name):
    assert make_likelihood(name).name == name


@pytest.mark.parametrize("name, says", [
    ("poisson:column", "after the colon, size may follow"), ("negative-binomial:shared+column", "exclude each other"),
    ("negative-binomial:", "after the colon, column, shared, decoder or size may follow"),
    ("student-t:-1", "df must be"), ("student-t:4+decoder", "after the colon, column or shared may follow"),
    ("ordinal:1", "a whole number from 2 on, or one for each column"), ("categories:3,x", "a whole number from 2 on"),
    ("multinomial:size", "likelihood must be one of")])
def test_other_names_are_refused(name, says):
    with pytest.raises(ValueError, match=says):
        make_likelihood(name)


@pytest.mark.parametrize("name, x, says", [
    ("poisson", 0.5, "must hold whole numbers for likelihood poisson, found 0.5"),
    ("negative-binomial", -1, "must not hold negative numbers for likelihood negative-binomial"),
    ("log-normal", 0, "must hold positive numbers for likelihood log-normal, found 0"),
    ("ordinal:5,3,2,5", 3, "must hold codes from 0 to 2 in column 1 for likelihood ordinal, found 3"),
    ("categories:3", 1.5, "must hold codes, whole numbers from 0 on, for likelihood categories, found 1.5")])
def test_other_numbers_are_refused(name, x, says):
    data = np.ones((3, D))
    data[2, 1] = x
    with pytest.raises(ValueError, match=says):
        VAE(D, (3,), 2, likelihood=name).encode(data)


def test_levels_of_other_columns_are_refused():
    with pytest.raises(ValueError, match="levels of 3 columns, but the data have 4"):
        VAE(D, (3,), 2, likelihood="ordinal:5,3,2")


# ---- Models

@pytest.mark.parametrize("name", [pytest.param(name, marks=() if i % 4 == 1 else pytest.mark.slow)
                                  for i, name in enumerate(NAMES)])
def test_the_gradient_of_a_whole_model(name):
    """By the complex step; and the fused kernels, replayed by two threads, give the same."""
    settings = dict(input_dim=D, hidden=(3,), latent_dim=2, activation="tanh", likelihood=name)
    vae, analytic = (VAE(**settings, dtype=dtype, kernels="numpy") for dtype in ("float64", "complex128"))
    vae.parameters.flat[...] += 0.2 * rng().standard_normal(vae.parameters.flat.size)
    x, eps = fitting(vae.likelihood, rng().random((3, D))), rng().standard_normal((3, 2, 2))
    _, gradients = vae.loss_and_gradients(x, eps)
    gradients = {key: value.copy() for key, value in gradients.items()}
    report = check_gradients(lambda moved: analytic.loss(x, eps, parameters=moved), gradients, vae.parameters,
                             "complex")
    assert report.ok, report
    twin = VAE(**settings, dtype="float64")
    twin.parameters.flat[...] = vae.parameters.flat
    for threads in (1, 2):
        twin.threads = threads
        for _ in range(2):
            twin.loss_and_gradients(x, eps)
        for key, value in twin.gradients.items():
            np.testing.assert_allclose(value, gradients[key], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_mean_and_lie_in_the_support(name):
    """Categories have no mean, but frequencies."""
    likelihood, params = of(name)
    if "likelihood.log_totals" in params:
        params["likelihood.log_totals"][...] = np.log(np.linspace(20, 60, 100))
    output = np.tile(rng().normal(-0.4, 0.5, likelihood.output_dim(D)), (20_000, 1))
    x = likelihood.draw(reference, output, params, rng())
    likelihood.support.check(x, "x")
    if name.startswith("categories"):
        scores = np.split(output[:1], np.cumsum(likelihood.of_columns(D))[:-1], axis=1)
        found = [np.bincount(column.astype(int), minlength=s.size) / len(x) for column, s in zip(x.T, scores)]
        for frequency, s in zip(found, scores):
            np.testing.assert_allclose(frequency, np.exp(s[0]) / np.exp(s[0]).sum(), atol=0.02)
        return
    mean = likelihood.mean(reference, likelihood.complete(reference, output[:1], params))[0]
    error = np.abs(x.mean(axis=0) - mean) / (x.std(axis=0) / math.sqrt(len(x)))
    assert error.max() < 5, error


def test_a_missing_cell_has_no_influence_and_totals_cannot_miss_one():
    x = rng().integers(0, 9, (5, D)).astype(float)
    vae = VAE(D, (3,), 2, likelihood="negative-binomial", dtype="float64", missing=True)
    x[1, 2] = np.nan
    loss, gradients = vae.loss_and_gradients(x, np.ones((5, 1, 2)))
    assert math.isfinite(loss) and np.isfinite(gradients.flat).all() and gradients["likelihood.log_r"].all()
    for name in ("multinomial", "poisson:size"):
        with pytest.raises(ValueError, match="missing=True needs a likelihood that is a sum over columns"):
            VAE(D, (3,), 2, likelihood=name, missing=True)


# ---- What is learned

def dispersion(x):
    """The most likely log r of counts with the mean of x, its standard error, and its nll for each count."""
    l, ones = math.log(x.mean()), np.ones((len(x), 1, 1))

    def slope_and_nll(log_r):
        output, doutput, cells = np.tile([l, log_r], (len(x), 1, 1)), np.empty((len(x), 1, 2)), np.empty((len(x), 1, 1))
        fused.negative_binomial_nll_backward(doutput, ones, output, x[:, None], np.zeros(len(x)))
        fused.negative_binomial_nll_forward(cells, output, x[:, None], np.zeros(len(x)))
        return doutput[:, 0, 1].sum(), cells[:, 0, 0]
    low, high = -10.0, 15.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if slope_and_nll(middle)[0] > 0 else (middle, high)
    curvature = (slope_and_nll(middle + 1e-4)[0] - slope_and_nll(middle - 1e-4)[0]) / 2e-4
    return middle, 1 / math.sqrt(curvature), slope_and_nll(middle)[1]


@pytest.mark.parametrize("m, r", [(3.0, 0.3), (8.0, 2.0), (100.0, 20.0)])
def test_a_planted_dispersion_is_found_and_gains_what_theory_says(m, r):
    """Within two standard errors; and the gain over Poisson is their KL divergence (chapter 16)."""
    draw, n = np.random.default_rng(4), 5000
    x = draw.poisson(draw.gamma(r, m / r, n)).astype(float)
    log_r, error, nll = dispersion(x)
    assert abs(log_r - math.log(r)) < 2 * error
    poisson = np.empty((n, 1, 1))
    fused.poisson_nll_forward(poisson, np.full((n, 1, 1), math.log(x.mean())), x[:, None], np.zeros(n))
    k = np.arange(6000.0)[:, None]
    exact, plain = np.empty((2, 6000, 1, 1))
    reference.negative_binomial_nll_forward(exact, np.tile([math.log(m), math.log(r)], (6000, 1, 1)), k, np.zeros(6000))
    reference.poisson_nll_forward(plain, np.full((6000, 1, 1), math.log(m)), k, np.zeros(6000))
    divergence = float(np.sum(np.exp(-exact) * (plain - exact)))
    gain = poisson[:, 0, 0] - nll
    assert abs(gain.mean() - divergence) < 3 * gain.std() / math.sqrt(n)


def counts(n=600, r=2.0):
    draw = np.random.default_rng(6)
    mean = np.exp(draw.normal(1, 0.5, 8) + 0.4 * draw.standard_normal((n, 2)) @ draw.standard_normal((2, 8)))
    return draw.poisson(draw.gamma(r, mean / r)).astype("f4")


@pytest.mark.parametrize("name", ["poisson", "poisson:size", "negative-binomial", "zero-inflated-negative-binomial",
                                  "multinomial"])
def test_training_starts_at_the_mean_of_the_data(name):
    x = counts()
    vae = VAE(8, (5,), 2, likelihood=name)
    vae.start(x)
    vae.parameters[vae.output.W][...] = 0
    mean = vae.decode(np.zeros((1, 2)))[0]
    expected = 0.9 * x.mean(axis=0) if name.startswith("zero") else x.mean(axis=0)
    np.testing.assert_allclose(mean, expected, rtol=1e-4)
    drawn = vae.sample(4000, rng(), mean=False)
    assert np.abs(drawn.mean() / expected.mean() - 1) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["poisson", "multinomial", "negative-binomial", "negative-binomial:column+size"])
def test_samples_from_the_codes_of_the_data_have_its_mean(name):
    """In every column: chapter 16.  Those from the prior need not.  A minute:  pytest -m slow -k codes_of_the_data"""
    x = counts(2000)
    vae = VAE(8, (32,), 2, likelihood=name)
    vae.start(x)
    fit(vae, x, x, 40, 100, Adam(lr=2e-3), callbacks=[])
    mean = vae.sample(20_000, rng(), prior="mixture:20", codes=vae.draw_posterior(x, rng()))
    assert np.abs(mean.mean(axis=0) / x.mean(axis=0) - 1).max() < 0.15


@pytest.mark.slow
def test_a_trained_model_finds_the_dispersion_and_beats_poisson():
    """A minute:  pytest -m slow -k beats_poisson"""
    x, losses = counts(4000, r=1.0), {}
    for name in ("poisson", "negative-binomial:shared"):
        vae = VAE(8, (32,), 2, likelihood=name)
        vae.start(x)
        losses[name] = fit(vae, x[1000:], x[:1000], 40, 100, Adam(lr=2e-3), callbacks=[])[-1]["test_loss"]
    assert abs(vae.parameters["likelihood.log_r"][0]) < 0.2      # log of the planted 1
    assert losses["poisson"] - losses["negative-binomial:shared"] > 8 * 0.3


@pytest.mark.parametrize("name", ["poisson:size", "negative-binomial", "log-normal"])
def test_the_page_of_the_decoder_has_exp_with_the_right_factors(name):
    vae = VAE(8, (), 2, likelihood=name, kernels="numpy")
    vae.start(counts() + 1)
    layer, = decoder_layers(vae)
    W, b = (np.frombuffer(base64.b64decode(layer[key]), "<f4") for key in "Wb")
    z = rng().standard_normal((3, 2))
    assert layer["f"] == "exp"
    np.testing.assert_allclose(np.exp(z @ W.reshape(2, 8) + b), vae.decode(z), rtol=1e-4)


def test_a_run_of_counts(tmp_path, capsys):
    np.save(tmp_path / "counts.npy", counts(60))
    run = tmp_path / "run"
    assert not main(["train", "--data-dir", str(tmp_path / "counts.npy"), "--likelihood",
                     "negative-binomial:column+size", "--hidden", "4", "--latent", "2", "--epochs", "1", "--out",
                     str(run), "--quiet"])
    assert not main(["evaluate", str(run), "--samples", "5"])
    assert "log likelihoods of counts, the total of each row being given" in capsys.readouterr().out
