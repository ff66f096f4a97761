"""Pictures of a trained VAE: reconstructions, samples, the latent space.  Read after `charts.py`.

Each public function makes one matplotlib Figure, and its docstring says what to look for in it; `save_pictures` makes
the whole set.  matplotlib is imported inside functions only, and without pyplot: no window is opened, and neither
backend nor settings are changed.  Images are rows of D pixels in [0, 1] (others are clipped) or bytes
(`likelihoods/support.py`).  They are drawn as ink on paper, 0 white and 1 black, as suits MNIST; with ink=False as
photographs, 0 black and 1 white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..data.labels import Class, class_codes
from ..evaluate.dimensions import information_per_dimension
from ..latents.aggregate import GaussianMixture
from ..latents.priors import StandardNormal, Vamp
from ..likelihoods.columns import Column
from ..likelihoods.support import Reals, to_float
from ..likelihoods.table import Table
from ..model.vae import VAE
from ..system.files import write_atomically
from .charts import kl_per_dimension, latent_scatter, learning_curves
from .figures import png, rows_of, spread, text_of, tile_figure
from .tables import columns_and_samples, columns_of, correlations, curves, curves_drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_CURVE = 24      # more numbers in a row are drawn as a curve
_CURVES = 12      # so many rows


class Autoencoder(Protocol):
    """The part of `VAE` that the pictures need."""

    @property
    def latent_dim(self) -> int: ...
    def encode(self, x: np.ndarray, /, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]: ...
    def decode(self, z: np.ndarray, /, labels: np.ndarray | None = None) -> np.ndarray: ...

    def reconstruct(self, x: np.ndarray, rng: np.random.Generator, /,
                    labels: np.ndarray | None = None) -> np.ndarray: ...

    def sample(self, n: int, rng: np.random.Generator, /, mean: bool = True,
               labels: np.ndarray | None = None, prior: GaussianMixture | None = None) -> np.ndarray: ...


# ---- Pictures made of image tiles

def reconstructions(originals: np.ndarray, reconstructions: np.ndarray,
                    image_shape: tuple[int, ...], ink: bool = True) -> Figure:
    """Images (N, D) in rows of ten, each with its reconstruction (N, D) under it.

    Look for: the same digit with the same slant and thickness, but smoother.  The decoder blurs what it is unsure of; a
    wrong digit means that z does not encode it.  If all reconstructions look alike, z is not used at all.
    """
    if originals.shape != reconstructions.shape:
        raise ValueError(f"reconstructions has shape {reconstructions.shape}, originals {originals.shape}: "
                         "the two must be equal")
    return _in_pairs(originals, reconstructions, image_shape, "Test images and their reconstructions",
                     ["original", "rebuilt"], ink)


def samples(images: np.ndarray, image_shape: tuple[int, ...], ink: bool = True,
            title: str = "Decoded draws from the prior") -> Figure:
    """A square grid of images (N, D) decoded from draws of the prior, z ~ p(z), or from what else the title says.

    Look for: how many could pass as data.  Mixtures of two digits come from regions of the prior to which no training
    image is encoded; little variety means that the decoder ignores z.
    """
    side = math.ceil(math.sqrt(len(images)))
    return tile_figure(rows_of(images, side, ink), image_shape, title, ink=ink)


def class_samples(images: np.ndarray, names: Sequence[Class], image_shape: tuple[int, ...], ink: bool = True,
                  source: str = "the prior") -> Figure:
    """Images (L, n, D) of a conditional VAE from `same_z`: a row for each of L classes, named by `names`, and the same
    z down each column.  Many columns are broken into blocks of L rows.  At most 30 classes are drawn.

    Look for: one style, such as slant or thickness, down each column, and one class along each row.  If the images in a
    column have nothing in common, z encodes the class as well; if all rows look alike, the label is not used.
    """
    if len(images) != len(names):
        raise ValueError(f"images has shape {images.shape}, for {len(names)} names: one is needed for each row")
    images, shown, n = to_float(images), spread(len(names), 30), images.shape[1]
    lines = math.ceil(n / max(10, math.ceil(math.sqrt(len(shown) * n))))
    rows = np.stack([rows_of(images[i], math.ceil(n / lines), ink) for i in shown], axis=1)
    return tile_figure(rows.reshape(-1, *rows.shape[2:]), image_shape, f"Draws from {source}, one z down each column",
                       row_labels=[text_of(names[i])[:20] for i in shown] * lines,
                       row_breaks=range(len(shown), len(shown) * lines, len(shown)), ink=ink)


def same_z(vae: Autoencoder, classes: Sequence[int], n: int, rng: np.random.Generator, mean: bool = True,
           prior: GaussianMixture | None = None) -> np.ndarray:
    """n images of each of the classes (L, n, D), decoded from the same n draws of the prior; `mean` and `prior` as in
    `VAE.sample`."""
    seed = int(rng.integers(2**63))
    return np.stack([vae.sample(n, np.random.default_rng(seed), mean=mean, labels=np.full(n, one), prior=prior)
                     for one in classes])


def pseudo_inputs(inputs: np.ndarray, decoded: np.ndarray, image_shape: tuple[int, ...], ink: bool = True
                  ) -> Figure:
    """At most 50 of the pseudo-inputs (C, D) of a VampPrior, with the mean image decoded from each (C, D) under it.

    Look for: decoded images that differ from each other and together show all kinds.  A pseudo-input need not look like
    an image itself.  Two that decode alike are redundant.  Source: Tomczak & Welling 2018.
    """
    if inputs.shape != decoded.shape:
        raise ValueError(f"decoded has shape {decoded.shape}, inputs {inputs.shape}: the two must be equal")
    inputs, decoded, shown = to_float(inputs), to_float(decoded), spread(len(inputs), 50)
    return _in_pairs(inputs[shown], decoded[shown], image_shape, "Pseudo-inputs, and what they stand for",
                     ["learned", "decoded"], ink)


def manifold_grid(size: int) -> np.ndarray:
    """The z (size, size, 2) of the tiles of `manifold`; row 0 is the top row, where z[1] is largest.

    z = Phi^-1((i + 0.5) / size), i = 0..size-1: the medians of `size` intervals of equal prior probability.
    """
    values = np.array([NormalDist().inv_cdf((i + 0.5) / size) for i in range(size)])
    return np.stack(np.meshgrid(values, values[::-1]), axis=-1)


def manifold(vae: Autoencoder, image_shape: tuple[int, ...], size: int = 20, label: int | None = None,
             ink: bool = True) -> Figure:
    """The latent plane of a VAE with Z = 2, decoded on a size x size grid of equal prior probability.  Another prior
    than N(0, I) is approximated by a Gaussian with its mean and sigma.

    Look for: smooth change from tile to tile, and which digits are neighbours.  The area of a digit is the prior
    probability that decodes to it: about a tenth each, if the prior is well used.  For a conditional VAE, the plane of
    one label.  Raises ValueError unless vae.latent_dim is 2.  Source: Kingma & Welling 2014, figure 4.
    """
    if vae.latent_dim != 2:
        raise ValueError(f"manifold needs a VAE with latent_dim 2, not {vae.latent_dim}; use traversals")
    if size < 1:
        raise ValueError(f"size is {size}: the grid needs at least 1 tile a side")
    centre, sigma = _prior_scale(vae)
    z = centre + sigma * manifold_grid(size)
    labels = _given(None if label is None else np.full(size * size, label))
    images = vae.decode(z.reshape(-1, 2).astype(np.float32), **labels).reshape(size, size, -1)
    shown = {0, size // 4, size - 1 - size // 4, size - 1}
    across = [f"{value:.1f}" if i in shown else "" for i, value in enumerate(z[0, :, 0])]
    down = [f"{value:.1f}" if i in shown else "" for i, value in enumerate(z[:, 0, 1])]
    return tile_figure(images, image_shape, "The latent plane, decoded", row_labels=down,
                       column_labels=across, xlabel="z[0]", ylabel="z[1]", ink=ink)


def traversals(vae: Autoencoder, image: np.ndarray, kl_per_dimension: np.ndarray,
               image_shape: tuple[int, ...], rows: int = 10, columns: int = 13, label: int | None = None,
               ink: bool = True) -> Figure:
    """One latent coordinate varied in each row: z = mu of `image` (D,), but z[j] runs from -3 to 3; with another prior
    than N(0, I), over its mean +- 3 sigma.

    The rows are the `rows` dimensions with the largest KL, from kl_per_dimension (Z,), in nats; the framed tile is the
    nearest to the image's own mu[j].  Look for: rows that change one thing, such as slant, width or a loop.  A row of
    equal tiles is a dimension that the decoder ignores; its KL should be near zero.  For a conditional VAE, `label` is
    that of the image.
    """
    kl = np.asarray(kl_per_dimension)
    if kl.shape != (vae.latent_dim,):
        raise ValueError(f"kl_per_dimension has shape {kl.shape}: allowed is ({vae.latent_dim},)")
    if rows < 1 or columns < 1:
        raise ValueError(f"rows is {rows} and columns {columns}: both must be at least 1")
    x, labels = _seen(vae, image).reshape(1, -1), None if label is None else np.array([label])
    mu = np.array(_centre(vae, x, vae.encode(x, **_given(labels))[0], labels)[0])
    values, (centre, sigma) = np.linspace(-3, 3, columns), _prior_scale(vae)
    order = np.argsort(-kl, kind="stable")[:rows]
    z = np.tile(mu, (len(order), columns, 1))
    z[np.arange(len(order)), :, order] = centre[order, None] + sigma[order, None] * values
    flat = z.reshape(-1, len(mu))
    images = vae.decode(flat, **_given(labels, len(flat))).reshape(len(order), columns, -1)
    nearest = np.abs(values - ((mu - centre) / sigma)[order, None]).argmin(axis=1)
    standard = not centre.any() and (sigma == 1).all()
    return tile_figure(images, image_shape, "One latent coordinate varied at a time",
                       row_labels=[f"z[{j}]: {kl[j]:.2f} nats" for j in order],
                       column_labels=[f"{round(value, 2) + 0.0:g}" for value in values],
                       xlabel="value of z[j]" if standard else "z[j], in sigmas from its mean",
                       frames=list(enumerate(nearest.tolist())), ink=ink)


def interpolation(vae: Autoencoder, pairs_of_images: np.ndarray, image_shape: tuple[int, ...],
                  steps: int = 10, labels: np.ndarray | None = None, ink: bool = True) -> Figure:
    """A row for each pair of images: one original, `steps` images decoded in between, the other original.

    z = (1 - t) mu_a + t mu_b, t = 0..1, for pairs_of_images (P, 2, D); the framed ends are the originals.
    Look for: a plausible digit at every step.  Interpolation of pixels would give both digits at once, half
    transparent; intermediate shapes show that z encodes more than pixels.  For a conditional VAE, labels (P, 2) are
    those of the images, and each step is decoded with the label of the nearer one.
    """
    pairs = _seen(vae, pairs_of_images)
    if pairs.ndim != 3 or pairs.shape[1] != 2 or not len(pairs) or steps < 2:
        raise ValueError(f"pairs_of_images has shape {pairs.shape} and steps is {steps}: allowed are "
                         "(P, 2, D) with P >= 1, and at least 2 steps")
    flat = pairs.reshape(-1, pairs.shape[-1])
    ends = None if labels is None else labels.reshape(-1)
    mu = _centre(vae, flat, vae.encode(flat, **_given(ends))[0], ends).reshape(len(pairs), 2, 1, -1)
    t = np.linspace(0, 1, steps, dtype=mu.dtype)[:, None]
    nearer = None if labels is None else np.where(t[:, 0] < 0.5, labels[:, :1], labels[:, 1:]).reshape(-1)
    z = (1 - t) * mu[:, 0] + t * mu[:, 1]
    decoded = vae.decode(z.reshape(-1, z.shape[-1]), **_given(nearer)).reshape(len(pairs), steps, -1)
    images = np.concatenate([pairs[:, :1], decoded, pairs[:, 1:]], axis=1)
    return tile_figure(images, image_shape, "From one test image to another",
                       column_labels=["image a", "t = 0"] + [""] * (steps - 2) + ["t = 1", "image b"],
                       xlabel="decoded z = (1 - t) mu_a + t mu_b", column_breaks=(1, steps + 1),
                       frames=[(row, column) for row in range(len(pairs)) for column in (0, steps + 1)], ink=ink)


# ---- All of them

#: the files that save_pictures may write: class_samples.png for a conditional VAE, manifold.png for Z = 2, else
#: traversals.png, kl_per_dimension.png if the KL term is a sum over dimensions, pseudo_inputs.png for a VampPrior; in
#: place of images, columns.png and correlations.png for a table, curves.png and curves_drawn.png for long rows
PICTURES = tuple(f"{name}.png" for name in (
    "reconstructions", "samples", "class_samples", "learning_curves", "manifold", "traversals", "interpolation",
    "latent_scatter", "kl_per_dimension", "pseudo_inputs", "columns", "correlations", "curves", "curves_drawn"))


def save_pictures(vae: Autoencoder, x_test: np.ndarray, labels: np.ndarray | None,
                  image_shape: tuple[int, ...], history: Sequence[Mapping[str, Any]], folder: str | Path,
                  rng: np.random.Generator, ink: bool = True, classes: Sequence[Class] = ()) -> list[Path]:
    """Write all pictures of a trained VAE as PNG into `folder`, which is created if missing.  Returns the paths.

    x_test (M, D) in [0, 1]; labels (M,) or None; history as `fit` returns it (if empty, no learning curves); classes:
    the labels of a conditional VAE, by class number; ink: is a pixel of 1 black?
    Nothing is written before all pictures are drawn, and each file is replaced atomically.  Raises ValueError for wrong
    shapes, and for labels that are not among the classes.
    """
    if x_test.ndim != 2 or not len(x_test) or x_test.shape[1] != math.prod(image_shape):
        raise ValueError(f"x_test has shape {x_test.shape}: allowed is (M, {math.prod(image_shape)}) "
                         f"with M >= 1, for image_shape {tuple(image_shape)}")
    if labels is not None and len(labels) != len(x_test):
        raise ValueError(f"labels has {len(labels)} entries, x_test {len(x_test)} rows: "
                         "the two must be equal")
    codes, encoded = class_codes(labels, classes, "the test set"), spread(len(x_test), 10_000)
    x_test = _seen(vae, x_test)
    mu, nats, has_kl = _encode(vae, x_test, encoded, codes)
    columns = _columns(vae, x_test, image_shape)
    if columns:
        figures = _of_rows(vae, x_test, codes, columns, rng)
    else:
        figures = _of_images(vae, x_test, codes, nats, image_shape, rng, ink)
    if classes and not columns:
        tiles = same_z(vae, range(len(classes)), 10, rng)
        figures["class_samples"] = class_samples(tiles, classes, image_shape, ink)
    if history:
        figures["learning_curves"] = learning_curves(history)
    figures["latent_scatter"] = latent_scatter(mu, None if labels is None else np.asarray(labels)[encoded])
    if has_kl:
        figures["kl_per_dimension"] = kl_per_dimension(nats)
    files = {Path(folder) / name: png(figures[name[:-4]]) for name in PICTURES if name[:-4] in figures}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        write_atomically(path, data)
    return list(files)


def _of_images(vae: Autoencoder, x: np.ndarray, labels: np.ndarray | None, nats: np.ndarray,
               image_shape: tuple[int, ...], rng: np.random.Generator, ink: bool) -> dict[str, Figure]:
    """The pictures made of tiles, by name.  Labels (M,) are those of a conditional VAE; then samples go by class."""
    def of(rows: np.ndarray) -> np.ndarray | None:
        return None if labels is None else labels[rows]

    shown = spread(len(x), 20)
    half = max(1, min(len(shown) // 2, 6))
    pairs = np.stack([shown[:half], shown[-half:]], axis=1)
    rebuilt = vae.reconstruct(x[shown], rng, **_given(of(shown)))
    drawn = None if labels is None else np.sort(np.unique(labels)[np.arange(100) % len(np.unique(labels))])
    figures = {"reconstructions": reconstructions(x[shown], rebuilt, image_shape, ink),
               "samples": samples(vae.sample(100, rng, **_given(drawn)), image_shape, ink),
               "interpolation": interpolation(vae, x[pairs], image_shape, labels=of(pairs), ink=ink)}
    first = None if labels is None else int(labels[0])
    if vae.latent_dim == 2:
        figures["manifold"] = manifold(vae, image_shape, label=first, ink=ink)
    else:
        figures["traversals"] = traversals(vae, x[0], nats, image_shape, label=first, ink=ink)
    inputs = vae.prior.pseudo_inputs(vae.parameters) if isinstance(vae, VAE) and isinstance(vae.prior, Vamp) else None
    if inputs is not None and inputs.shape[1] == x.shape[1]:      # others are wider than an image
        figures["pseudo_inputs"] = pseudo_inputs(inputs, vae.decode(vae.encode(inputs)[0]), image_shape, ink)
    return figures


def _columns(vae: Autoencoder, x: np.ndarray, image_shape: tuple[int, ...]) -> Sequence[Column]:
    """The columns of x (N, D) if its rows are those of a table, or one line of numbers that are no pixels."""
    if isinstance(vae, VAE) and isinstance(vae.likelihood, Table):
        return vae.likelihood.columns
    known = x[np.isfinite(x)]
    pixels = image_shape[0] > 1 or known.size and known.min() >= 0 and known.max() <= 1
    return () if pixels else columns_of(x.shape[1])


def _of_rows(vae: Autoencoder, x: np.ndarray, labels: np.ndarray | None, columns: Sequence[Column],
             rng: np.random.Generator) -> dict[str, Figure]:
    """The pictures of rows that are no images, by name: of each column, or of curves where there are many without
    names."""
    few = spread(len(x), 1000)
    drawn = vae.sample(1000, rng, mean=False, **_given(None if labels is None else np.resize(labels[few], 1000)))
    if len(columns) > _CURVE and columns == columns_of(len(columns)):
        rows = few[:_CURVES]
        rebuilt = vae.reconstruct(x[rows], rng, **_given(None if labels is None else labels[rows]))
        return {"curves": curves(x[rows], rebuilt), "curves_drawn": curves_drawn(drawn, x[few])}
    return {"columns": columns_and_samples(x[few], drawn, columns),
            "correlations": correlations(x[few], drawn, columns)}


# ---- Helpers

def _in_pairs(above: np.ndarray, below: np.ndarray, image_shape: tuple[int, ...], title: str,
              row_labels: list[str], ink: bool) -> Figure:
    """Images (N, D) in rows of ten, each with its counterpart (N, D) under it."""
    columns = min(10, len(above))
    pairs = [rows_of(above, columns, ink), rows_of(below, columns, ink)]
    rows = np.stack(pairs, axis=1).reshape(2 * len(pairs[0]), columns, -1)
    return tile_figure(rows, image_shape, title, row_labels=row_labels * len(pairs[0]),
                       row_breaks=range(2, len(rows), 2), ink=ink)


def _seen(vae: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Images of any shape as the model sees them."""
    return to_float(np.asarray(images), vae.likelihood.support if isinstance(vae, VAE) else Reals())


def _given(labels: np.ndarray | None, n: int | None = None) -> dict[str, Any]:
    """Labels as a keyword argument, or none, for models without labels.  A single label is repeated n times."""
    return {} if labels is None else {"labels": labels if n is None else np.broadcast_to(labels, n)}


def _centre(vae: Autoencoder, x: np.ndarray, mu: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """The point (N, Z) that represents x (N, D) in latent space: its mu, or where a flow moves that."""
    return vae.move(mu, x, labels) if isinstance(vae, VAE) else mu


def _prior_scale(vae: Autoencoder) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (Z,) of p(z): 0 and 1 for N(0, I), else from 10,000 draws."""
    if not isinstance(vae, VAE) or isinstance(vae.prior, StandardNormal):
        return np.zeros(vae.latent_dim), np.ones(vae.latent_dim)
    draws = vae.draw_prior(10_000, np.random.default_rng(0))
    return draws.mean(axis=0, dtype=float), draws.std(axis=0, dtype=float)


def _encode(vae: Autoencoder, x: np.ndarray, rows: np.ndarray, labels: np.ndarray | None = None
            ) -> tuple[np.ndarray, np.ndarray, bool]:
    """The points (N, Z) of x[rows] in latent space; their mean KL (Z,), 0.5 (mu^2 + sigma^2 - 1 - logvar), and True;
    or, if that is not the model's KL term, the information (Z,) of `evaluate`, and False."""
    mu, kl = np.empty((len(rows), vae.latent_dim)), np.zeros(vae.latent_dim)
    for start in range(0, len(rows), 1000):  # for all images at once the hidden layers would need too much memory
        block = slice(start, start + 1000)
        of_block = None if labels is None else labels[rows[block]]
        mu[block], logvar = vae.encode(x[rows[block]], **_given(of_block))
        kl += (0.5 * (mu[block] ** 2 + np.exp(logvar) - 1 - logvar)).sum(axis=0)
        mu[block] = _centre(vae, x[rows[block]], mu[block], of_block)
    if not isinstance(vae, VAE) or vae.latent.analytic:
        return mu, kl / len(rows), True
    return mu, information_per_dimension(vae, x[rows], None if labels is None else labels[rows]), False
