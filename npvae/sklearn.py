"""Estimators for scikit-learn: codes, scores, samples, imputation, outliers.  Not part of the lesson.

    VAE                   a transformer to latent codes, and a density
    VAEImputer            fills missing cells; the interface of IterativeImputer
    VAEOutlierDetector    rows of low log p(x); the interface of IsolationForest

They stand in a Pipeline, a ColumnTransformer or a GridSearchCV, can be cloned and pickled, and are fitted in several
processes at once.  Only this module needs scikit-learn:  pip install "npvae[sklearn]".

What a fitted estimator computes for a row does not depend on the rows beside it: the noise of its Monte Carlo
estimates is drawn by a generator that is seeded with the numbers of the row.
"""
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import (BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, OneToOneFeatureMixin,
                          OutlierMixin, TransformerMixin)
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .likelihoods import make_likelihood
from .likelihoods.base import Likelihood
from .likelihoods.support import Reals
from .model.vae import VAE as Network
from .objectives import ELBO, IWAE
from .optim import Adam
from .params import Array
from .train.loop import fit
from .train.run import Metrics
from .validate import choice, real

_STEPS = 3000      # of a training whose epochs are not given
_SCALES = ("auto", "standard", "none")
_FLOATS: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}


class _Fitted(BaseEstimator):       # type: ignore[misc]
    """What the three estimators share: the network, its training, the scale of the columns.

    Parameters
    ----------
    latent_dim : Z, number of latent dimensions, which are the columns of the codes
    hidden : widths of the encoder's hidden layers, mirrored in the decoder
    activation, likelihood, prior, posterior : as `npvae.VAE` takes them
    scale : "standard" gives each column mean 0 and standard deviation 1 for the network, and undoes it in all that is
        returned: densities, too, are those of the data as they are given.  "none" leaves the numbers alone.  "auto" is
        "standard" for likelihoods of real numbers, "none" for others
    epochs : passes over the training set; None: as many as make 3,000 steps, at least 10
    batch_size, learning_rate, beta : of the training; a batch is at most the whole training set
    n_samples : K, draws of z per row and step; more than one trains by the importance-weighted bound
    n_score_samples : L, draws of z per row for log p(x) and for filling gaps
    dtype : "float64", so that results do not depend on how rows are cut into batches; "float32" is faster
    threads : cores for the training; 1, as scikit-learn's own processes use the others
    random_state : of the weights and all noise: an integer, a RandomState of NumPy, or None for a new seed each time

    Attributes
    ----------
    network_ : `npvae.VAE`, trained
    mean_, scale_ : (D,), of the columns; the network sees (x - mean_) / scale_
    n_iter_ : epochs trained
    history_ : metrics of each epoch, in nats per row as the network sees it
    """

    _fills_gaps = False

    def __init__(self, latent_dim: int = 10, *, hidden: Sequence[int] = (128,), activation: str = "relu",
                 likelihood: str | Likelihood = "gaussian-learned", prior: str = "normal", posterior: str = "gaussian",
                 scale: str = "auto", epochs: int | None = None, batch_size: int = 128, learning_rate: float = 1e-3,
                 beta: float = 1.0, n_samples: int = 1, n_score_samples: int = 100, dtype: str = "float64",
                 threads: int = 1, random_state: object = None) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.activation = activation
        self.likelihood = likelihood
        self.prior = prior
        self.posterior = posterior
        self.scale = scale
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.beta = beta
        self.n_samples = n_samples
        self.n_score_samples = n_score_samples
        self.dtype = dtype
        self.threads = threads
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _fit(self, X: object) -> Array:
        """Train a new network on X (N, D); returns X as floats.  Raises what scikit-learn raises."""
        checked: Array = validate_data(self, X, **_FLOATS, ensure_min_samples=2)
        batches = -(-len(checked) // self.batch_size)
        self._train(checked, max(10, -(-_STEPS // batches)) if self.epochs is None else self.epochs, anew=True)
        return checked

    def _train(self, X: Array, epochs: int, anew: bool) -> None:
        """Train for so many epochs, from new weights if `anew`."""
        if anew:
            self._begin(X)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            x = self._scaled(X)
        objective = ELBO(self.beta, sampled=not self.network_.latent.analytic) if self.n_samples == 1 else IWAE(
            self.beta)
        self.history_ += fit(
            self.network_, x, x, self.n_iter_ + epochs, min(self.batch_size, len(x)), self._optimizer, objective,
            self.n_samples, seed=self._seed, first_epoch=self.n_iter_)
        self.n_iter_ += epochs

    def _begin(self, X: Array) -> None:
        """A new network, and the scale of the columns of X (N, D)."""
        likelihood = make_likelihood(self.likelihood)
        scale = choice("scale", self.scale, _SCALES)
        if scale == "auto":
            scale = "standard" if type(likelihood.support) is Reals else "none"
        D = X.shape[1]
        self.mean_, self.scale_ = np.zeros(D), np.ones(D)
        if scale == "standard":
            known = ~np.isnan(X)
            count = np.maximum(known.sum(axis=0), 1)
            self.mean_ = np.where(known, X, 0).sum(axis=0) / count
            spread = np.sqrt(np.square(np.where(known, X - self.mean_, 0)).sum(axis=0) / count)
            self.scale_ = np.where(spread > 0, spread, 1.0)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.network_ = Network(D, self.hidden, self.latent_dim, self.activation, likelihood, self.dtype,
                                seed=self._seed, prior=self.prior, posterior=self.posterior,
                                missing=self._fills_gaps or bool(np.isnan(X).any()))
        self.network_.threads = self.threads
        self.network_.start(self._scaled(X))
        self._optimizer, self.n_iter_ = Adam(self.learning_rate), 0
        self.history_: list[Metrics] = []

    def _scaled(self, X: Array) -> Array:
        """X (N, D) as the network sees it."""
        x: Array = (X - self.mean_) / self.scale_
        return x

    def _unscaled(self, x: Array) -> Array:
        """x (..., D) of the network in the units of the data."""
        X: Array = x.astype(float) * self.scale_ + self.mean_
        return X

    def _checked(self, X: object) -> Array:
        """X (N, D), for a fitted estimator.  Raises what scikit-learn raises."""
        check_is_fitted(self)
        checked: Array = validate_data(self, X, reset=False, **_FLOATS)
        return checked

    def _noise_of(self, row: Array) -> np.random.Generator:
        """A generator that depends on the seed of the training and the numbers of this scaled row alone."""
        return np.random.default_rng([self._seed, zlib.crc32(np.ascontiguousarray(row).tobytes())])

    def _log_density(self, X: Array) -> Array:
        """log p(x) (N,), in nats and the units of the data, by importance sampling: a lower bound in expectation."""
        network, objective, values = self.network_, IWAE(), np.empty(len(X))
        x, units = self._scaled(X), np.where(np.isnan(X), 0, np.log(self.scale_)).sum(axis=1)
        for i in range(len(X)):
            eps = self._noise_of(x[i]).standard_normal((1, self.n_score_samples, network.noise_dim))
            values[i] = -network.loss(x[i:i + 1], eps, objective)
        densities: Array = values - units
        return densities


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, _Fitted):      # type: ignore[misc]
    """A variational autoencoder as a transformer from rows to latent codes, and as a density."""

    __doc__ += (_Fitted.__doc__ or "").partition("\n")[2]

    def fit(self, X: object, y: object = None) -> "VAE":
        """Train on X (N, D), which may have gaps (NaN)."""
        self._fit(X)
        return self

    def partial_fit(self, X: object, y: object = None) -> "VAE":
        """One further epoch, on X (N, D).  The first call sets the scale of the columns."""
        first = not hasattr(self, "network_")
        self._train(validate_data(self, X, reset=first, **_FLOATS, ensure_min_samples=2), 1, anew=first)
        return self

    @property
    def _n_features_out(self) -> int:
        return self.network_.latent_dim

    def transform(self, X: object) -> Array:
        """The codes (N, Z): the mean of q(z|x); with a flow, what it makes of that mean."""
        x = self._scaled(self._checked(X))
        mu, _ = self.network_.encode(x)
        return self.network_.move(mu, x)

    def inverse_transform(self, X: object) -> Array:
        """E[x|z] (N, D) at the codes X (N, Z)."""
        check_is_fitted(self)
        return self._unscaled(self.network_.decode(np.asarray(X)))

    def score_samples(self, X: object) -> Array:
        """log p(x) (N,) of each row, in nats, by importance sampling.

        It may be higher for rows that are unlike the data than for the data themselves (Nalisnick et al. 2019)."""
        return self._log_density(self._checked(X))

    def score(self, X: object, y: object = None) -> float:
        """The mean of `score_samples`."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: object = None) -> Array:
        """New rows (n_samples, D): draws from p(x|z), with z from the prior."""
        check_is_fitted(self)
        rng = np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))
        return self._unscaled(self.network_.sample(n_samples, rng, mean=False))


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, _Fitted):      # type: ignore[misc]
    """Fills missing cells (NaN) with what the rest of their row says, by self-normalised importance sampling."""

    __doc__ += (_Fitted.__doc__ or "").partition("\n")[2]
    _fills_gaps = True

    def fit(self, X: object, y: object = None) -> "VAEImputer":
        """Train on X (N, D), with or without gaps."""
        self._fit(X)
        return self

    def transform(self, X: object) -> Array:
        """X (N, D) with each gap filled by the mean of the cell given the cells observed.  These stay as they are."""
        filled = self._checked(X).copy()
        x = self._scaled(filled)
        for i in np.flatnonzero(np.isnan(filled).any(axis=1)):
            own = self.network_.impute(x[i:i + 1], self._noise_of(x[i]), self.n_score_samples)
            filled[i] = np.where(np.isnan(filled[i]), self._unscaled(own[0]), filled[i])
        gapless: Array = filled
        return gapless


class VAEOutlierDetector(OutlierMixin, _Fitted):      # type: ignore[misc]
    """Rows whose log p(x) is low among the training rows are outliers.

    A likelihood can be higher on foreign data than on the data of the training (Nalisnick et al. 2019), where these
    are simpler: smooth pictures, constant rows.  Try the detector on outliers that you know.
    """

    __doc__ += (_Fitted.__doc__ or "").partition("\n")[2] + """
    contamination : the fraction of the training rows that are outliers; or "auto": those below the lower quartile by
        more than 1.5 times the distance between the quartiles (Tukey 1977)
    """

    def __init__(self, latent_dim: int = 10, *, contamination: float | str = "auto", hidden: Sequence[int] = (128,),
                 activation: str = "relu", likelihood: str | Likelihood = "gaussian-learned", prior: str = "normal",
                 posterior: str = "gaussian", scale: str = "auto", epochs: int | None = None, batch_size: int = 128,
                 learning_rate: float = 1e-3, beta: float = 1.0, n_samples: int = 1, n_score_samples: int = 100,
                 dtype: str = "float64", threads: int = 1,
                 random_state: object = None) -> None:
        super().__init__(latent_dim, hidden=hidden, activation=activation, likelihood=likelihood, prior=prior,
                         posterior=posterior, scale=scale, epochs=epochs, batch_size=batch_size,
                         learning_rate=learning_rate, beta=beta, n_samples=n_samples, n_score_samples=n_score_samples,
                         dtype=dtype, threads=threads, random_state=random_state)
        self.contamination = contamination

    def fit(self, X: object, y: object = None) -> "VAEOutlierDetector":
        """Train on X (N, D) and set `offset_`, the score below which a row is an outlier."""
        if self.contamination != "auto":
            share = real("contamination", self.contamination, 0, strict=True)
            if share > 0.5:
                raise ValueError(f"contamination must be 'auto' or a number in (0, 0.5], got {share}")
        scores = self._log_density(self._fit(X))
        if self.contamination == "auto":
            low, high = np.percentile(scores, [25, 75])
            self.offset_ = float(low - 1.5 * (high - low))
        else:
            self.offset_ = float(np.percentile(scores, 100 * share))
        return self

    def score_samples(self, X: object) -> Array:
        """log p(x) (N,) of each row, in nats: the lower, the more of an outlier."""
        return self._log_density(self._checked(X))

    def decision_function(self, X: object) -> Array:
        """`score_samples` minus `offset_` (N,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: object) -> Array:
        """-1 for outliers, 1 for the other rows (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)
