"""What a trained model is worth, in nats per image.  Read after `train/`.

What needs a z draws it from q(z|x).  Evaluating at z = mu reads some 9 nats too good on MNIST and bounds nothing.

    bounds       elbo, log_likelihood: bounds of log p(x), from one draw and from many
    exact        log p(x) itself, where it is known
    dimensions   what each latent dimension says about x
    summary      all of that at once, with errors
"""
from .bounds import (
    LogLikelihood, Progress, checked, draw_noise, elbo, elbo_terms, importance_bound, jackknife, log_likelihood,
    rows_at_once)
from .dimensions import active_units, count_active, information_per_dimension, kl_per_dimension, nats_per_dimension
from .exact import exact_log_likelihood, why_not_exact
from .summary import Estimate, Summary, summarize

__all__ = [
    "LogLikelihood", "Progress", "checked", "draw_noise", "elbo", "elbo_terms", "importance_bound", "jackknife",
    "log_likelihood", "rows_at_once", "active_units", "count_active", "information_per_dimension", "kl_per_dimension",
    "nats_per_dimension", "exact_log_likelihood", "why_not_exact", "Estimate", "Summary", "summarize"]
