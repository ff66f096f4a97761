"""explore.html: the decoder in a web page.  Drag a point over the latent plane, and the image follows.

Not part of the lesson; read `plotting/` first.  This module writes weights, test images and their latent means into the
page.  `templates/explore.js` runs the decoder in the browser, in plain JavaScript, with weights in float32 (those of a
float64 model are rounded).  The page is one file: it needs no library and loads nothing.
"""
import base64
import colorsys
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.labels import Class, class_codes
from ..decoders import Decoder
from ..evaluate.dimensions import nats_per_dimension
from ..latents.priors import StandardNormal
from ..layers import ACTIVATIONS, Activation, Dense
from ..likelihoods.bernoulli import Bernoulli
from ..likelihoods.continuous_bernoulli import ContinuousBernoulli
from ..likelihoods.counts import NegativeBinomial, Poisson
from ..likelihoods.gaussian import Gaussian, GaussianPixel
from ..likelihoods.reals import Laplace, LogNormal
from ..model.vae import VAE
from ..params import Array
from ..plotting.figures import label_text, spread
from ..system.files import write_atomically
from ..system.terminal import plain
from ..validate import choice
from .report import TEMPLATES, escape, fill

#: `mean` of a likelihood -> the function in explore.js that does the same with the first D columns of the output
MEANS: dict[object, str] = {Bernoulli.mean: "sigmoid", ContinuousBernoulli.mean: "continuous_bernoulli",
                            Gaussian.mean: "identity", GaussianPixel.mean: "identity", Laplace.mean: "identity",
                            Poisson.mean: "exp", NegativeBinomial.mean: "exp", LogNormal.mean: "exp"}
#: colours of up to ten labels, as in the pictures: matplotlib's tab10
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
#: the most test images in the plane, the most numbers in their latent means, and test images to click on
POINTS, NUMBERS, THUMBS = 2000, 80_000, 24
#: draws from a prior other than N(0, I), for the page to choose from
DRAWS = 500


def write_explorer(vae: VAE, x_test: Array, labels: Array | None, image_shape: tuple[int, ...], path: Path,
                   ink: bool = True, classes: Sequence[Class] = ()) -> Path:
    """Write the page of a trained VAE, atomically.  Returns the path.

    x_test (N, D): images, of which up to 2,000 become points in the plane and 24 become buttons; labels (N,) or None;
    image_shape (height, width) or (height, width, 3), with a product of D; classes: the labels of a conditional model
    by class number, from which the reader of the page chooses; ink: is a pixel of 1 black?
    Raises ValueError or TypeError for other shapes and pixels, for complex or non-finite parameters, for a likelihood
    or activation that the page cannot compute, and for a decoder that is not dense.
    """
    layers = decoder_layers(vae)
    x_test = vae.images(x_test, "x_test")
    if image_shape[2:] not in ((), (3,)) or math.prod(image_shape) != vae.input_dim:
        raise ValueError(f"image_shape must be (height, width) with a product of {vae.input_dim}, or (height, width, "
                         f"3), got {image_shape}")
    if labels is not None and np.shape(labels) != (len(x_test),):
        raise ValueError(f"labels must have shape ({len(x_test)},), one for each row of x_test, got {np.shape(labels)}")
    if len(classes) != vae.classes:
        raise ValueError(f"classes must name each of the model's {vae.classes} classes, got {len(classes)} names")
    codes = class_codes(labels, classes, "x_test")
    names = np.full(len(x_test), "") if labels is None else np.array([label_text(label) for label in labels])
    order = np.arange(len(x_test)) if labels is None else np.argsort(labels, kind="stable")
    write_atomically(path, _page(vae, layers, x_test, names, order, image_shape, classes, codes, ink))
    return Path(path)


def decoder_layers(vae: VAE) -> list[dict[str, str]]:
    """The decoder as the page needs it: for each layer W and b in base64, and f, the name of the function that follows.

    The output has only the columns that hold means, without the log-variances of GaussianPixel.  Where the mean is exp
    of the output times a constant for each column, the log of that is added to b.
    """
    choice("the model's dtype", vae.dtype, ("float32", "float64"))
    mean = MEANS.get(getattr(vae.likelihood.mean, "__func__", None))      # also if another class uses one
    if mean is None:
        raise ValueError(f"likelihood {vae.likelihood.name}: the page cannot compute its mean, only those of "
                         "bernoulli, continuous-bernoulli, poisson, negative-binomial, laplace, student-t, log-normal "
                         "and the Gaussians")
    decoder = vae.config().get("decoder", "dense")
    if decoder != "dense":
        raise ValueError(f"decoder {decoder}: the page cannot draw pixel after pixel; a dense decoder fits")
    layers = []
    parts: list[tuple[Dense | Decoder[Any], int | None, str]] = [
        *((layer, None, _function(layer.activation)) for layer in vae.decoder.layers),
        (vae.output, vae.input_dim, mean)]
    for layer, columns, f in parts:
        with np.errstate(over="ignore"):
            W, b = (vae.parameters[name][..., :columns] for name in (layer.W, layer.b))
            if f == "exp":
                b = b + _log_factors(vae)
            W, b = W.astype("<f4"), b.astype("<f4")
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError(f"{layer.W} and {layer.b} must hold finite float32 numbers, found others")
        layers.append({"W": base64_of(W), "b": base64_of(b), "f": f})
    return layers


def _log_factors(vae: VAE) -> Array:
    """log of E[x|z] (D,) at an output of 0: by what exp of an output is multiplied."""
    likelihood, zero = vae.likelihood, np.zeros((1, vae.likelihood.output_dim(vae.input_dim)), vae.dtype)
    factors: Array = np.log(likelihood.mean(vae.kernels, likelihood.complete(vae.kernels, zero, vae.parameters))[0])
    return factors


def functions() -> list[str]:
    """The names of the functions of one number in explore.js."""
    return re.findall(r"^  (\w+): a =>", _script(), re.MULTILINE)


def _script() -> str:
    return (TEMPLATES / "explore.js").read_text(encoding="utf-8")


def _function(activation: Activation) -> str:
    """The activation's name in explore.js.  Raises ValueError for one that is not there or has its own `forward`."""
    known = functions()
    if activation.name not in known or type(activation).forward is not Activation.forward:
        raise ValueError(f"activation {plain(activation.name)}: the page cannot compute it, only "
                         f"{', '.join(name for name in ACTIVATIONS if name in known)}")
    return activation.name


def _page(vae: VAE, layers: list[dict[str, str]], x: Array, names: Array, order: Array,
          image_shape: tuple[int, ...], classes: Sequence[Class], codes: Array | None, ink: bool) -> bytes:
    """The filled template.  `names` are the labels as text, "" without labels; `order` sorts the rows by label; `codes`
    are the class numbers for a conditional model."""
    def centres(rows: Array) -> Array:
        of_rows = None if codes is None else codes[rows]
        return vae.move(vae.encode(x[rows], of_rows)[0], x[rows], of_rows).astype("<f4")

    Z, (height, width) = vae.latent_dim, image_shape[:2]
    kl = np.maximum(nats_per_dimension(vae, x, codes), 0)      # rounding may give -1e-9
    by_kl = np.argsort(-kl, kind="stable").tolist()
    dots, buttons = spread(len(x), max(THUMBS, min(POINTS, NUMBERS // Z))), order[spread(len(x), THUMBS)]
    mu, thumb_mu = centres(dots), centres(buttons)
    most = max(np.abs(mu).max(), np.abs(thumb_mu).max())
    if not np.isfinite([most, *kl]).all():
        raise ValueError("the encoder puts x_test at NaN or infinity: the model cannot be drawn")
    reach = max(3.5, math.ceil(2.05 * float(most)) / 2)      # a multiple of 1/2, so that no dot lies on the edge
    standard = isinstance(vae.prior, StandardNormal)
    draws = (np.zeros((0, Z)) if standard else vae.draw_prior(DRAWS, np.random.default_rng(0))).astype("<f4")
    labels = list(dict.fromkeys(names[order].tolist()))
    colour = dict(zip(labels, _colours(len(labels)), strict=True))
    data = {"layers": layers, "shape": [int(side) for side in image_shape], "ink": bool(ink), "reach": reach,
            "shown": [0, 1] if Z == 2 else by_kl[:2], "mu": base64_of(mu), "thumbMu": base64_of(thumb_mu),
            "draws": base64_of(draws),
            "classes": len(classes), "thumbLabels": [] if codes is None else codes[buttons].tolist(),
            "colours": [colour[name] for name in names[dots].tolist()],
            "thumbs": base64_of(np.rint(255 * np.clip(np.nan_to_num(x[buttons]), 0, 1)).astype(np.uint8))}
    return fill(
        "explore.html", data=json.dumps(data, separators=(",", ":")),
        script=_script(),
        network="-".join(map(str, (Z, *vae.decoder_hidden, vae.input_dim))), activation=escape(vae.activation),
        verb="Drag the point" if Z > 1 else "Move the slider", likelihood=escape(vae.likelihood.name),
        points=f"Dots: where the encoder puts {len(dots):,} test images."
        + " Dashed: 1, 2 and 3 sigma of the prior." * standard,
        aspect=f"{min(4, max(0.25, width / height)):g}", legend=_legend(colour),
        options="".join(f'<option value="{j}">z[{j}], {kl[j]:.2f} nats</option>' for j in by_kl),
        sliders="\n".join(_slider(j, kl[j], reach) for j in ([] if Z == 2 else by_kl)),
        thumbs="\n".join(_thumb(i, names[i]) for i in buttons),
        measure="KL" if vae.latent.analytic else "information", no_classes=" hidden" * (not classes),
        classes="".join(f'<option value="{i}">{escape(label_text(name))}</option>' for i, name in enumerate(classes)),
        no_plane=" hidden" * (Z == 1), no_choice=" hidden" * (Z < 3), no_sliders=" hidden" * (Z == 2))


# ---- Parts of the page

def _slider(j: int, kl: float, reach: float) -> str:
    return (f'<label><span>z[{j}]</span> <small>{kl:.2f} nats</small> <input type="range" data-j="{j}" '
            f'min="{-reach}" max="{reach}" step="0.01"><output></output></label>')


def _thumb(row: int, name: str) -> str:
    return (f'<button type="button" aria-pressed="false" aria-label="test image {row}{", label " * bool(name)}'
            f'{escape(name)}"><canvas class="pixels"></canvas></button>')


def _legend(colour: dict[str, str]) -> str:
    """A dot and a name for each label, or for at most thirty of them."""
    names = [name for name in colour if name]
    items = [f'<li><i style="background:{colour[name]}"></i>{escape(name)}</li>'
             for name in names[::math.ceil(len(names) / 30) or 1]]
    return f'<ul class="legend" aria-label="labels">{"".join(items)}</ul>' if items else ""


def _colours(n: int) -> Sequence[str]:
    """A colour for each of n labels: distinct ones up to ten, else once around the colour wheel."""
    if n <= len(COLOURS):
        return COLOURS[:n]
    wheel = [colorsys.hls_to_rgb(i / n, 0.5, 0.65) for i in range(n)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in rgb) for rgb in wheel]


def base64_of(array: Array) -> str:
    """The bytes of an array, as text for a page."""
    return base64.b64encode(array.tobytes()).decode()
