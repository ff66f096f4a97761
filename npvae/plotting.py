"""Pictures of a trained VAE: what it rebuilds and dreams, how it learned, what its latent space holds.

Reading order: last. Each public function makes one matplotlib Figure, and its docstring says what to look for
in it; save_pictures makes the whole set; figures.py does the drawing. matplotlib is imported inside functions
only, and without pyplot: no window is opened, and no backend or setting of the caller's is changed.
Images are rows of D pixels in [0, 1] (others are clipped), drawn as ink on white paper, 0 white and 1 black, as
suits MNIST; with ink=False they are light, as in photographs, 0 black and 1 white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .checkpoint import write_atomically
from .figures import (BLUE, FONT, GREY, ORANGE, coloured_points, label_axes, new_figure, rows_of, strips,
                      tile_figure)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Autoencoder(Protocol):
    """The part of a VAE that the pictures need; npvae.model.VAE has it."""

    @property
    def latent_dim(self) -> int: ...
    def encode(self, x: np.ndarray, /) -> tuple[np.ndarray, np.ndarray]: ...
    def decode(self, z: np.ndarray, /) -> np.ndarray: ...
    def reconstruct(self, x: np.ndarray, rng: np.random.Generator, /) -> np.ndarray: ...
    def sample(self, n: int, rng: np.random.Generator, /) -> np.ndarray: ...


# ---- Pictures made of image tiles

def reconstructions(originals: np.ndarray, reconstructions: np.ndarray,
                    image_shape: tuple[int, int], ink: bool = True) -> Figure:
    """Images (N, D) in rows of ten, each with its reconstruction (N, D) directly under it.

    Look for: the same digit in the same slant and thickness, but smoother. Blur is what the decoder is
    unsure of; a wrong digit means that the code z lost it. If all look alike, the code is not used at all.
    """
    if originals.shape != reconstructions.shape:
        raise ValueError(f"reconstructions has shape {reconstructions.shape}, originals {originals.shape}: "
                         "the two must be equal")
    columns = min(10, len(originals))
    above, below = rows_of(originals, columns, ink), rows_of(reconstructions, columns, ink)
    rows = np.stack([above, below], axis=1).reshape(2 * len(above), columns, -1)
    return tile_figure(rows, image_shape, "Test images and their reconstructions",
                       row_labels=["original", "rebuilt"] * len(above), row_breaks=range(2, len(rows), 2), ink=ink)


def samples(images: np.ndarray, image_shape: tuple[int, int], ink: bool = True) -> Figure:
    """A square grid of images (N, D) decoded from draws of the prior, z ~ N(0, I).

    Look for: how many could pass as data. Crossbreeds of two digits come from regions of the prior that no
    training image is encoded to; few different shapes mean that the decoder ignores z.
    """
    side = math.ceil(math.sqrt(len(images)))
    return tile_figure(rows_of(images, side, ink), image_shape, "Decoded draws from the prior", ink=ink)


def manifold_grid(size: int) -> np.ndarray:
    """The codes z (size, size, 2) of the manifold picture: row 0 is its top row, where z[1] is largest.

    z = Phi^-1((i + 0.5) / size), i = 0..size-1: the middles of `size` slices of equal prior probability.
    """
    values = np.array([NormalDist().inv_cdf((i + 0.5) / size) for i in range(size)])
    return np.stack(np.meshgrid(values, values[::-1]), axis=-1)


def manifold(vae: Autoencoder, image_shape: tuple[int, int], size: int = 20, ink: bool = True) -> Figure:
    """The whole latent plane of a VAE with Z = 2, decoded on a size x size grid of equal prior probability.

    Look for: smooth change from tile to tile, and which digits are neighbours. The area a digit takes is
    the share of the prior's probability that decodes to it: about a tenth each, if the prior is well used.
    Axes as in latent_scatter. Raises ValueError unless vae.latent_dim is 2. Source: Kingma & Welling 2014,
    figure 4.
    """
    if vae.latent_dim != 2:
        raise ValueError(f"manifold needs a VAE with latent_dim 2, not {vae.latent_dim}; use traversals")
    if size < 1:
        raise ValueError(f"size is {size}: the grid needs at least 1 tile a side")
    z = manifold_grid(size)
    images = vae.decode(z.reshape(-1, 2).astype(np.float32)).reshape(size, size, -1)
    shown = {0, size // 4, size - 1 - size // 4, size - 1}
    across = [f"{value:.1f}" if i in shown else "" for i, value in enumerate(z[0, :, 0])]
    down = [f"{value:.1f}" if i in shown else "" for i, value in enumerate(z[:, 0, 1])]
    return tile_figure(images, image_shape, "The latent plane, decoded", row_labels=down,
                       column_labels=across, xlabel="z[0]", ylabel="z[1]", ink=ink)


def traversals(vae: Autoencoder, image: np.ndarray, kl_per_dimension: np.ndarray,
               image_shape: tuple[int, int], rows: int = 10, columns: int = 13, ink: bool = True) -> Figure:
    """One latent coordinate at a time: z = mu of `image` (D,), but z[j] runs from -3 to 3 along the row.

    The rows are the `rows` dimensions with the most KL (kl_per_dimension (Z,), nats), most first; the
    framed tile is the one nearest to the image's own mu[j]. Look for: a row that changes one thing (slant,
    width, a loop). A row of equal tiles is a dimension the decoder ignores; its KL should be near zero.
    """
    kl = np.asarray(kl_per_dimension)
    if kl.shape != (vae.latent_dim,):
        raise ValueError(f"kl_per_dimension has shape {kl.shape}: allowed is ({vae.latent_dim},)")
    if rows < 1 or columns < 1:
        raise ValueError(f"rows is {rows} and columns {columns}: both must be at least 1")
    mu = np.array(vae.encode(image.reshape(1, -1))[0][0])
    values = np.linspace(-3, 3, columns)
    order = np.argsort(-kl, kind="stable")[:rows]
    z = np.tile(mu, (len(order), columns, 1))
    z[np.arange(len(order)), :, order] = values
    images = vae.decode(z.reshape(-1, len(mu))).reshape(len(order), columns, -1)
    nearest = np.abs(values - mu[order, None]).argmin(axis=1)
    return tile_figure(images, image_shape, "One latent coordinate varied at a time",
                       row_labels=[f"z[{j}]: {kl[j]:.2f} nats" for j in order],
                       column_labels=[f"{round(value, 2) + 0.0:g}" for value in values],
                       xlabel="value of z[j]", frames=list(enumerate(nearest.tolist())), ink=ink)


def interpolation(vae: Autoencoder, pairs_of_images: np.ndarray, image_shape: tuple[int, int],
                  steps: int = 10, ink: bool = True) -> Figure:
    """Rows from one image to another: an original, `steps` decodings on the way, the other original.

    z = (1 - t) mu_a + t mu_b, t = 0..1, for pairs_of_images (P, 2, D); the framed ends are the originals.
    Look for: a plausible digit at every step. A cross-fade (both digits at once, half transparent) is what
    pixels would give; shapes of its own on the way show that the code holds more than pixels.
    """
    pairs = np.asarray(pairs_of_images)
    if pairs.ndim != 3 or pairs.shape[1] != 2 or not len(pairs) or steps < 2:
        raise ValueError(f"pairs_of_images has shape {pairs.shape} and steps is {steps}: allowed are "
                         "(P, 2, D) with P >= 1, and at least 2 steps")
    mu = vae.encode(pairs.reshape(-1, pairs.shape[-1]))[0].reshape(len(pairs), 2, 1, -1)
    t = np.linspace(0, 1, steps, dtype=mu.dtype)[:, None]
    z = (1 - t) * mu[:, 0] + t * mu[:, 1]
    decoded = vae.decode(z.reshape(-1, z.shape[-1])).reshape(len(pairs), steps, -1)
    images = np.concatenate([pairs[:, :1], decoded, pairs[:, 1:]], axis=1)
    return tile_figure(images, image_shape, "From one test image to another",
                       column_labels=["image a", "t = 0"] + [""] * (steps - 2) + ["t = 1", "image b"],
                       xlabel="decoded z = (1 - t) mu_a + t mu_b", column_breaks=(1, steps + 1),
                       frames=[(row, column) for row in range(len(pairs)) for column in (0, steps + 1)], ink=ink)


# ---- Charts

def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, reconstruction term and KL against the epoch, from the rows that fit() returns (nats per image).

    Look for: the test loss still falling (train longer), or rising while the training loss falls
    (overfitting). The KL usually grows while the reconstruction improves: bits in the code pay for better
    pixels. A KL that falls to zero and stays there is posterior collapse. A beta that varies is drawn
    dotted, with its own axis; where it is not 1, the training loss is the objective with that beta, and only
    the test loss is minus the bound.
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

    Look for: the step from the dimensions that carry information to those at zero. The latter (grey, at
    most `threshold` nats) are equal to the prior for every image, so the decoder learns nothing from them:
    the ELBO switches off what does not pay for itself. The bars add up to the KL term of the ELBO.
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
        step = math.ceil(len(kl) / 25)  # more labels than 25 would run into each other
        axes.set_xticks(np.arange(0, len(kl), step), [str(j) for j in order[::step]])
        middle, reach = (len(kl) - 1) / 2, 0.52 * max(len(kl), 6)  # a single bar should not fill the page
        axes.set_xlim(middle - reach, middle + reach)
    return figure


def latent_scatter(mu: np.ndarray, labels: np.ndarray | None = None, max_points: int = 5000) -> Figure:
    """The means mu (M, Z) of q(z|x) as points coloured by label (M,); of many, max_points evenly spread.

    Z = 2 is drawn as it is; Z > 2 by its first two principal components; Z = 1 as one strip for each label.
    Look for: labels that form clusters although the VAE never saw them, and a cloud that is as a whole
    about as wide as the prior N(0, I). Clusters on top of each other in a projection may well be apart.
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
    """mu (M, Z >= 2) on its first two principal components: points (M, 2) and two names for the axes."""
    centred = mu - mu.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=len(mu) < 2)
    variance = np.append(scale ** 2, 0.0)[:2] / max(float((scale ** 2).sum()), np.finfo(float).tiny)
    two = directions[:2]
    # the sign of a principal component is free: fix it so that the same model gives the same picture
    two = two * np.where(two[np.arange(2), np.abs(two).argmax(axis=1)] < 0, -1, 1)[:, None]
    return centred @ two.T, [f"principal component {i + 1} ({share:.0%} of variance)"
                             for i, share in enumerate(variance)]


# ---- All of them

#: the files that save_pictures may write; manifold.png where Z = 2, traversals.png otherwise
PICTURES = tuple(f"{name}.png" for name in ("reconstructions", "samples", "learning_curves", "manifold", "traversals",
                                            "interpolation", "latent_scatter", "kl_per_dimension"))


def save_pictures(vae: Autoencoder, x_test: np.ndarray, labels: np.ndarray | None,
                  image_shape: tuple[int, int], history: Sequence[Mapping[str, Any]], folder: str | Path,
                  rng: np.random.Generator, ink: bool = True) -> list[Path]:
    """Write every picture of a trained VAE as PNG into `folder` (made if missing); the paths, in order.

    x_test (M, D) in [0, 1]; labels (M,) or None; history as fit() returns it (empty: no learning curves);
    ink: are pixels ink, or light?
    Nothing is written before all pictures are drawn, and each file is replaced atomically. Raises
    ValueError for bad shapes.
    """
    if x_test.ndim != 2 or not len(x_test) or x_test.shape[1] != math.prod(image_shape):
        raise ValueError(f"x_test has shape {x_test.shape}: allowed is (M, {math.prod(image_shape)}) "
                         f"with M >= 1, for image_shape {tuple(image_shape)}")
    if labels is not None and len(labels) != len(x_test):
        raise ValueError(f"labels has {len(labels)} entries, x_test {len(x_test)} rows: "
                         "the two must be equal")
    encoded = spread(len(x_test), 10_000)
    mu, kl = _encode(vae, x_test, encoded)
    shown = x_test[spread(len(x_test), 20)]
    half = max(1, min(len(shown) // 2, 6))
    pairs = np.stack([shown[:half], shown[-half:]], axis=1)
    figures = {"reconstructions": reconstructions(shown, vae.reconstruct(shown, rng), image_shape, ink),
               "samples": samples(vae.sample(100, rng), image_shape, ink)}
    if history:
        figures["learning_curves"] = learning_curves(history)
    if vae.latent_dim == 2:
        figures["manifold"] = manifold(vae, image_shape, ink=ink)
    else:
        figures["traversals"] = traversals(vae, x_test[0], kl, image_shape, ink=ink)
    figures["interpolation"] = interpolation(vae, pairs, image_shape, ink=ink)
    figures["latent_scatter"] = latent_scatter(mu, None if labels is None else np.asarray(labels)[encoded])
    figures["kl_per_dimension"] = kl_per_dimension(kl)
    files = {Path(folder) / f"{name}.png": png(figure) for name, figure in figures.items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        write_atomically(path, data)
    return list(files)


# ---- Helpers

def _encode(vae: Autoencoder, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu (N, Z) of x[rows], and the mean KL (Z,) of these N rows, KL = 0.5 (mu^2 + sigma^2 - 1 - logvar)."""
    mu, kl = np.empty((len(rows), vae.latent_dim)), np.zeros(vae.latent_dim)
    for start in range(0, len(rows), 1000):  # the hidden layers of all images would take too much memory
        block = slice(start, start + 1000)
        mu[block], logvar = vae.encode(x[rows[block]])
        kl += (0.5 * (mu[block] ** 2 + np.exp(logvar) - 1 - logvar)).sum(axis=0)
    return mu, kl / len(rows)


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0..n-1, evenly spread: data sorted by label still shows every label."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure", facecolor="white")
    return buffer.getvalue()
