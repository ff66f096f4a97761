"""The estimators for scikit-learn: its own checks, and what these cannot know.  Skipped where it is not installed."""
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from npvae import load_mnist  # noqa: E402
from npvae.sklearn import VAE, VAEImputer, VAEOutlierDetector  # noqa: E402

ESTIMATORS = [VAE, VAEImputer, VAEOutlierDetector]
QUICK = {"latent_dim": 2, "hidden": (8,), "epochs": 3, "n_score_samples": 5, "random_state": 0}


def correlated(rows=400, columns=5, seed=1):
    """Rows on a line through space, with a little noise, in columns of different units."""
    rng = np.random.default_rng(seed)
    line = rng.standard_normal((rows, 1)) * np.linspace(1, 2, columns)
    return (line + 0.1 * rng.standard_normal((rows, columns))) * 10.0 ** np.arange(columns) + 7


@parametrize_with_checks([estimator(**QUICK) for estimator in ESTIMATORS])      # none is expected to fail
def test_scikit_learn_checks_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_clone_and_a_pickle_give_the_same_bits(estimator):
    X = correlated(60)
    first = estimator(**QUICK).fit(X)
    copies = [clone(first).fit(X), pickle.loads(pickle.dumps(first))]
    for copy in copies:
        for method in "transform", "score_samples":
            if hasattr(first, method):
                np.testing.assert_array_equal(getattr(copy, method)(X), getattr(first, method)(X))


def test_densities_are_those_of_the_data_as_given():
    """In units 128 times as small, log p of a row of 5 numbers is less by 5 log 128; codes are the same."""
    X = correlated(100)
    one, other = VAE(**QUICK).fit(X), VAE(**QUICK).fit(128 * X)
    np.testing.assert_array_equal(other.transform(128 * X), one.transform(X))
    np.testing.assert_allclose(other.score_samples(128 * X), one.score_samples(X) - 5 * np.log(128), rtol=1e-12)


def test_samples_and_scores_follow_the_data():
    X = correlated(1000)
    model = VAE(2, hidden=(32,), random_state=0).fit(X)
    assert model.n_iter_ == 375, "3,000 steps of 8 batches"
    drawn = model.sample(2000, random_state=0)
    assert drawn.shape == (2000, 5)
    np.testing.assert_allclose(drawn.std(axis=0) / X.std(axis=0), 1, atol=0.25)
    deviation = (X - X.mean(axis=0)) / X.std(axis=0)
    independent = -0.5 * (deviation ** 2 + np.log(2 * np.pi)).sum(axis=1) - np.log(X.std(axis=0)).sum()
    assert model.score(X) > independent.mean() + 3, "it must know that the columns belong together"
    rebuilt = model.inverse_transform(model.transform(X))
    assert np.mean((rebuilt - X) ** 2 / X.var(axis=0)) < 0.1
    np.testing.assert_array_equal(model.sample(3, random_state=5), model.sample(3, random_state=5))


def test_partial_fit_goes_on():
    X = correlated(200)
    model = VAE(**QUICK)
    for epoch in range(3):
        model.partial_fit(X)
        assert model.n_iter_ == len(model.history_) == epoch + 1
    np.testing.assert_array_equal(model.transform(X), VAE(**QUICK).fit(X).transform(X))


def test_gaps_are_filled_from_the_rest_of_the_row():
    X = correlated(600)
    rng = np.random.default_rng(0)
    gaps = rng.random(X.shape) < 0.2
    gaps[:, 0] = False
    holed = np.where(gaps, np.nan, X)
    filled = VAEImputer(2, hidden=(32,), epochs=150, random_state=0).fit_transform(holed)
    np.testing.assert_array_equal(filled[~gaps], X[~gaps])
    error = np.where(gaps, filled - X, 0) / X.std(axis=0)
    assert np.sqrt((error ** 2).sum() / gaps.sum()) < 0.5, "the mean of a column alone has an error of 1"


def test_outliers_are_found():
    X = correlated(500)
    far = X[:20] * 1.0
    far[:, 0] -= 6 * X[:, 0].std()      # off the line
    detector = VAEOutlierDetector(2, hidden=(32,), epochs=100, n_score_samples=20, random_state=0).fit(X)
    assert np.mean(detector.predict(far) == -1) > 0.9
    assert np.mean(detector.predict(X) == -1) < 0.15
    assert (detector.fit_predict(X) == detector.predict(X)).all()
    share = VAEOutlierDetector(contamination=0.1, **QUICK).fit(X)
    assert np.mean(share.predict(X) == -1) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("given, message", [
    ({"contamination": 0.7}, r"contamination must be 'auto' or a number in \(0, 0.5\]"),
    ({"scale": "robust"}, "scale must be one of auto, standard, none"), ({"epochs": 0}, "epochs must be at least 1")])
def test_settings_are_checked_when_fitted(given, message):
    with pytest.raises(ValueError, match=message):
        VAEOutlierDetector(**{**QUICK, **given}).fit(correlated(20))


def test_it_stands_in_pipelines_and_searches_over_processes():
    X = correlated(120)
    y = (X[:, 0] > np.median(X[:, 0])).astype(int)
    columns = ColumnTransformer([("codes", VAE(**QUICK), [0, 1, 2])], remainder="passthrough",
                                verbose_feature_names_out=False)
    assert list(columns.fit(X).get_feature_names_out()) == ["vae0", "vae1", "x3", "x4"]
    search = GridSearchCV(make_pipeline(VAE(**QUICK), LogisticRegression()), {"vae__latent_dim": [1, 3]}, cv=2,
                          n_jobs=2)
    search.fit(X, y)
    assert search.best_score_ > 0.6 and search.best_params_["vae__latent_dim"] in (1, 3)


@pytest.mark.slow
def test_a_search_over_codes_of_digits_on_two_processes():
    """pytest -m slow tests/test_sklearn.py: logistic regression on codes of 2,000 digits, a minute or two."""
    images, labels, _, _ = load_mnist()
    X, y = images[:2000] / 255, labels[:2000]
    search = GridSearchCV(
        make_pipeline(VAE(likelihood="bernoulli", epochs=20, batch_size=50, dtype="float32", random_state=0),
                      LogisticRegression(max_iter=2000)), {"vae__latent_dim": [2, 10]}, cv=2, n_jobs=2)
    search.fit(X, y)
    assert search.best_params_ == {"vae__latent_dim": 10}
    assert search.best_score_ > 0.7


def test_codes_come_as_a_frame():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(correlated(40), columns=list("abcde"))
    model = VAE(**QUICK).set_output(transform="pandas").fit(X)
    assert list(model.transform(X)) == ["vae0", "vae1"]
    holed = X.mask(X > X.quantile(0.9))
    assert list(VAEImputer(**QUICK).set_output(transform="pandas").fit_transform(holed)) == list("abcde")
