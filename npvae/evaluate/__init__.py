"""How good a trained model is, in nats per image.  Read after `train/`.

z is always drawn from q(z|x).  Evaluated at z = mu, a model seems some 9 nats better on MNIST, and nothing is bounded.

    bounds       elbo, log_likelihood: lower bounds on log p(x), from one draw of z and from many
    scores       how likely single rows are, and by which of their columns; outliers
    imputation   what missing cells may hold
    exact        log p(x) itself, for models where it has a closed form
    dimensions   how much information each latent dimension carries
    summary      all of these at once, with standard errors
"""
from typing import TYPE_CHECKING

from ..system.later import later
from .bounds import (
    LogLikelihood, Progress, checked, column_scores, draw_noise, elbo, elbo_terms, importance_bound, jackknife,
    log_likelihood, rows_at_once)
from .dimensions import active_units, count_active, information_per_dimension, kl_per_dimension, nats_per_dimension
from .imputation import posterior_draws, posterior_mean
from .scores import RowScores, auroc, quantiles, score_rows

if TYPE_CHECKING:
    from .exact import exact_log_likelihood, why_not_exact
    from .summary import Estimate, Summary, summarize

__getattr__ = later(__name__, "exact", "summary")

__all__ = [
    "LogLikelihood", "Progress", "checked", "column_scores", "draw_noise", "elbo", "elbo_terms", "importance_bound",
    "jackknife", "log_likelihood", "rows_at_once", "active_units", "count_active", "information_per_dimension",
    "kl_per_dimension", "nats_per_dimension", "posterior_draws", "posterior_mean", "RowScores", "auroc", "quantiles",
    "score_rows", "exact_log_likelihood", "why_not_exact", "Estimate", "Summary", "summarize"]
