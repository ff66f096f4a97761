"""What a model says of single rows: how likely each is, and which part of it is not.  Read after `bounds.py`.

Rows with the lowest log p(x) are candidates for outliers.  The converse does not hold: see `WARNING`.
"""
from dataclasses import dataclass

import numpy as np

from ..buffers import Activations
from ..params import Array
from ..validate import Rng, generator, integer, numbers_of
from .bounds import Model, Progress, checked, log_likelihood

#: what must be said wherever scores are printed
WARNING = ("a high log p(x) does not show that a row is like the training data: data of another kind can have a higher "
           "one (Nalisnick et al. 2019)")


@dataclass(frozen=True)
class RowScores:
    """Scores of B rows, in nats, from L draws of z for each:  elbo = -reconstruction - kl <= log_p.

    log_p : (B,), log p(x) by importance sampling
    errors : (B,), its standard deviation over repeated draws; NaN for L = 1
    elbo : (B,)
    reconstruction : (B,), the mean of -log p(x|z) over the draws
    kl : (B,), in closed form where there is one, else the mean of log q(z|x) - log p(z) over the draws
    columns : (B, D), what each column adds to the reconstruction, 0 where its cell is missing; None if not asked for
    """

    log_p: Array
    errors: Array
    elbo: Array
    reconstruction: Array
    kl: Array
    columns: Array | None


def score_rows(vae: Model, x: Array, rng: Rng, n_samples: int = 500, labels: Array | None = None, columns: bool = False,
               progress: Progress = iter) -> RowScores:
    """`RowScores` of x (B, D), with labels (B,) for a model with classes.

    `log_p` is what `vae.log_likelihood` returns for the same generator; `columns` are the terms of the nll of the same
    draws.  progress : wraps the loop over blocks of rows.  Raises ValueError or TypeError that names the argument.
    """
    x, labels = checked(vae, x, labels)
    rng, n_samples = generator("rng", rng), integer("n_samples", n_samples, 1)
    if columns and not vae.likelihood.by_column:
        raise ValueError(f"columns need a likelihood that is a sum over columns, which "
                         f"{vae.likelihood.name.partition(':')[0]} is not")
    nll, kl = np.zeros((2, len(x)))
    terms = np.zeros(x.shape) if columns else None

    def add(block: slice, a: Activations) -> None:
        """The terms of a pass, to their sums over draws."""
        nll[block] += a.nll.sum(axis=1, dtype=np.float64)
        if vae.latent.analytic:
            each = np.empty_like(a.mu)
            vae.kernels.gaussian_kl_forward(each, a.mu, a.logvar)
            kl[block] += a.nll.shape[1] * each.sum(axis=1, dtype=np.float64)
        else:
            kl[block] += a.log_ratio.sum(axis=1, dtype=np.float64)
        if terms is not None:
            cells = np.empty((*a.nll.shape, vae.input_dim), vae.dtype)
            vae.likelihood.columns_forward(vae.kernels, cells, a.kept, a.output, a.filled, vae.parameters)
            terms[block] += cells.sum(axis=1, dtype=np.float64)

    found = log_likelihood(vae, x, rng, n_samples, labels if vae.classes else None, add, progress)
    nll, kl = nll / n_samples, kl / n_samples
    parts = None if terms is None else np.where(np.isnan(x), 0, terms / n_samples)
    return RowScores(found.values, found.errors, -nll - kl, nll, kl, parts)


def quantiles(scores: Array, reference: Array) -> Array:
    """For each of the scores (B,) the part of the reference (N,) that lies below it, equal ones counted half: 0 to 1.
    """
    scores, ordered = numbers_of("scores", scores), np.sort(numbers_of("reference", reference))
    below, upto = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    found: Array = (below + upto) / (2 * len(ordered))
    return found


def auroc(inliers: Array, outliers: Array) -> float:
    """The area under the ROC curve of a score that is to be higher for inliers (N,) than for outliers (M,): the
    probability that it is for one of each at random, equal scores counted half.  0.5 is chance.

        AUROC = 1/M sum_m (part of the inliers above outlier m)          (the U of Mann and Whitney 1947, over N M)
    """
    return 1 - float(quantiles(outliers, inliers).mean())
