"""Curves, bars and points: the course of training, and the latent space.  Read after `figures.py`.

Each function makes one matplotlib Figure, and its docstring says what to look for in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import BLUE, FONT, GREY, ORANGE, coloured_points, label_axes, new_figure, spread, strips

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, reconstruction term and KL against the epoch, from the metrics that `fit` returns, in nats per image.

    Look for: a test loss that still falls (train longer), or rises while the training loss falls (overfitting).  The KL
    usually grows while the reconstruction improves: information in z buys better pixels.  A KL that falls to zero and
    stays there is posterior collapse.  If beta varies it is drawn dotted, with its own axis.  Where it is not 1, the
    training loss is the objective with that beta; only the test loss is minus the bound.
    """
    from matplotlib.ticker import MaxNLocator
    if not history:
        raise ValueError("history is empty: learning curves need at least one epoch")
    epochs = [row["epoch"] for row in history]
    with new_figure(1350, 470) as figure:
        panels = [("loss", "Loss"), ("nll", "Reconstruction, -log p(x|z)"), ("kl", "KL(q(z|x) || p(z))")]
        for axes, (name, title) in zip(figure.subplots(1, 3), panels, strict=True):
            for part, colour, style in [("train", GREY, "--"), ("test", BLUE, "-")]:
                values = np.array([row.get(f"{part}_{name}", math.nan) for row in history], dtype=float)
                if part == "train" or np.isfinite(values).any():
                    axes.plot(epochs, values, style, color=colour, label=part, linewidth=2, marker="o",
                              markersize=6 if len(epochs) < 20 else 0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
            label_axes(axes, title, "epoch", "nats per image")
        betas = [row.get("beta", 1.0) for row in history]
        if len(set(betas)) > 1:
            twin = axes.twinx()
            twin.plot(epochs, betas, ":", color=ORANGE, alpha=0.7, linewidth=2)
            twin.set_ylim(bottom=0)
            twin.tick_params(labelsize=FONT, colors=ORANGE)
            twin.set_ylabel("beta", color=ORANGE)
        figure.axes[0].legend()
    return figure


def kl_per_dimension(kl: np.ndarray, threshold: float = 0.01) -> Figure:
    """The mean KL of every latent dimension, kl (Z,) in nats, as bars in falling order.

    Look for: the step from the dimensions that carry information to those near zero.  For the latter (grey, at most
    `threshold` nats) q(z_j|x) equals the prior for every image, so they tell the decoder nothing.  The bars add up to
    the KL term of the ELBO.
    """
    kl = np.asarray(kl)
    if kl.ndim != 1 or not len(kl) or not np.isfinite(kl).all():
        raise ValueError(f"kl must be a finite array (Z,) with Z >= 1; it has shape {kl.shape}")
    order = np.argsort(-kl, kind="stable")
    used = kl[order] > threshold
    with new_figure(1000, 500) as figure:
        axes = figure.add_subplot()
        axes.bar(np.arange(len(kl)), kl[order], color=np.where(used, BLUE, GREY), width=0.8)
        title = f"KL {kl.sum():.2f} nats in all, {used.sum()} of {len(kl)} dimensions above {threshold:g}"
        label_axes(axes, title, "latent dimension j, by falling KL", "mean KL (nats)")
        step = math.ceil(len(kl) / 25)  # more than 25 labels would overlap
        axes.set_xticks(np.arange(0, len(kl), step), [str(j) for j in order[::step]])
        middle, reach = (len(kl) - 1) / 2, 0.52 * max(len(kl), 6)  # so that a single bar does not fill the page
        axes.set_xlim(middle - reach, middle + reach)
    return figure


def latent_scatter(mu: np.ndarray, labels: np.ndarray | None = None, max_points: int = 5000) -> Figure:
    """The means mu (M, Z) of q(z|x) as points coloured by label (M,); at most max_points, evenly spaced.

    For Z > 2 the first two principal components are drawn, for Z = 1 one strip for each label.
    Look for: labels that form clusters although the VAE never saw them, and a whole cloud about as wide as the prior
    N(0, I).  Clusters that overlap in a projection may still be apart.
    """
    mu, labels = np.asarray(mu), None if labels is None else np.asarray(labels)
    if mu.ndim != 2 or not mu.size or not np.isfinite(mu).all():
        raise ValueError(f"mu must be a finite array (M, Z) with M, Z >= 1; it has shape {mu.shape}")
    if labels is not None and labels.shape != (len(mu),):
        raise ValueError(f"labels has shape {labels.shape}: allowed is ({len(mu)},), one for each row of mu")
    shown = spread(len(mu), max_points)
    points, names = (mu, ["z[0]", "z[1]"]) if mu.shape[1] <= 2 else principal_components(mu)
    points, labels = points[shown], None if labels is None else labels[shown]
    with new_figure(960, 800) as figure:
        axes = figure.add_subplot()
        label_axes(axes, f"Means of q(z|x), {len(points)} images", *names)
        if mu.shape[1] == 1:
            strips(axes, points[:, 0], labels)
        else:
            axes.set_aspect("equal", adjustable="datalim")
            coloured_points(figure, axes, points, labels)
    return figure


def principal_components(mu: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The projection (M, 2) of mu (M, Z), Z >= 2, on its first two principal components, and names for the two axes."""
    centred = mu - mu.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=len(mu) < 2)
    variance = np.append(scale ** 2, 0.0)[:2] / max(float((scale ** 2).sum()), np.finfo(float).tiny)
    two = directions[:2]
    # the sign of a principal component is arbitrary: fix it, so that a model always gives the same picture
    two = two * np.where(two[np.arange(2), np.abs(two).argmax(axis=1)] < 0, -1, 1)[:, None]
    return centred @ two.T, [f"principal component {i + 1} ({share:.0%} of variance)"
                             for i, share in enumerate(variance)]
