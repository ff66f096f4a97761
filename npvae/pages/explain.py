"""explain.html: one image goes through the network, and its gradient comes back.  Not part of the lesson.

The nodes of the page are the calls of kernels that a pass of the model makes: `Tracer` stands in for the module of
kernels, makes each call, and notes it with its values.  So the page shows what the model computes, whatever its parts.
The passes are computed here, in float64, for a few images and a few values of one eps; `templates/explain.js` draws.
Only what the page can compute again from other arrays is left out: a matrix product with more numbers than its two
factors together, as dW = x^T dpre of one image, a masked matrix, a part of a matrix.  The page is one file: it needs no
library and loads nothing.
"""
import copy
import hashlib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from ..buffers import Activations, Gradients
from ..evaluate.dimensions import nats_per_dimension
from ..gradcheck.derivatives import COMPLEX_STEP, entries
from ..kernels import reference
from ..kernels.roles import roles_of
from ..model.vae import VAE
from ..objectives import ELBO, Objective
from ..params import Array
from ..system.files import write_atomically
from ..validate import integer
from .explorer import base64_of
from .report import TEMPLATES, escape, fill

IMAGES = 5      # in the menu
EPS = tuple(np.linspace(-2, 2, 9).tolist())      # places of the slider
#: the page holds fewer images and places where it would otherwise have more bytes than these
ENOUGH = 2_800_000
#: the most parameters that a page can hold: its size is some three bytes for each
MOST = 4_000_000
#: arrays of at most so many numbers stand in the page in full precision; of larger ones parameters, which are only
#: looked at, as 16-bit parts of the largest, all others in float32
FEW = 64
#: the chapters that derive the equations, if this npvae is a clone of its repository
CHAPTERS = Path(__file__).resolve().parents[2] / "examples" / "derivations"
#: a network of at most so many parameters is checked entry by entry, of others four entries in each tensor
SMALL, SOME = 200, 4


def write_explain(vae: VAE, x: Array, path: Path, image_shape: tuple[int, ...], objective: Objective | None = None,
                  step: int = 0, draws: int = 1, labels: Array | None = None, names: Sequence[str] = (), seed: int = 0,
                  title: str = "One image through the network, and its gradient back", book: str | None = None) -> Path:
    """Write the page of a VAE, atomically.  Returns the path.

    x (N, D): images, of which the first few are in the menu, under `names`; labels (N,) for a model with classes;
    image_shape (height, width) with height * width = D; objective at this step of its schedules, the ELBO if it is
    None; draws: K; seed: of eps.  All of it is computed in float64 by the reference kernels.
    book: the address of the site that examples/book.py makes; ids of equations lead there, or else, if this npvae is a
    clone of its repository, to the chapters in it.
    Raises ValueError or TypeError for what does not fit, for a model that is too large, and for one that computes NaN
    or infinity.
    """
    if len(image_shape) != 2 or math.prod(image_shape) != vae.input_dim:
        raise ValueError(f"image_shape must be (height, width) with a product of {vae.input_dim}, got {image_shape}")
    if vae.parameters.flat.size > MOST:
        raise ValueError(f"a model of {vae.parameters.flat.size:,} parameters is too large for a web page; at most "
                         f"{MOST:,} fit")
    if objective is None:
        objective = ELBO(sampled=not vae.latent.analytic)
    lesson = _Lesson(vae, x[:IMAGES], labels if labels is None else labels[:IMAGES], objective, step,
                     integer("draws", draws, 1), np.random.default_rng(integer("seed", seed, 0)))
    write_atomically(path, _page(lesson, image_shape, [*names[:IMAGES]], title, _links(Path(path), book)))
    return Path(path)


def _links(page: Path, book: str | None) -> dict[str, str]:
    """For each equation, where its chapter is: on the site of the book, or a file, as seen from the page if both lie in
    one repository."""
    found, inside = dict[str, str](), page.resolve().is_relative_to(CHAPTERS.parents[1])
    for chapter in sorted(CHAPTERS.glob("*-*.md")):
        file = Path(os.path.relpath(chapter, page.resolve().parent)).as_posix() if inside else chapter.as_uri()
        for equation in re.findall(r"^\*\*\[?(D\d+\.\d+)\b", chapter.read_text(encoding="utf-8"), re.MULTILINE):
            found[equation] = (file if book is None else
                               f"{book.rstrip('/')}/derivations/{chapter.stem}.html#{equation}")
    return found


def twin(vae: VAE, dtype: str) -> VAE:
    """The model in another dtype, with the reference kernels."""
    activation, likelihood, output, _, flow, prior = (cast(Any, part) for part in copy.deepcopy([*vae.parts]))
    other = VAE(vae.input_dim, vae.hidden, vae.latent_dim, activation, likelihood, dtype, "numpy", 0,
                vae.decoder_hidden, prior, flow, output, vae.classes, vae.missing)
    other.parameters.flat[...] = vae.parameters.flat
    return other


# ---- A pass, call by call

@dataclass(frozen=True)
class Place:
    """A name for some memory: bytes low to high, in rows of `row` bytes; of a matrix, `item` bytes for each number."""

    name: str
    low: int
    high: int
    row: int
    kind: str      # value, gradient, parameter or constant
    item: int = 0

    def holds(self, low: int, high: int) -> bool:
        return self.low <= low and high <= self.high and low < high


@dataclass(frozen=True)
class Argument:
    """An array that a kernel is given: what the kernel and what the model call it, and its values, copied."""

    parameter: str
    name: str
    kind: str
    written: bool
    low: int
    high: int
    values: Array


@dataclass(frozen=True)
class Step:
    """A call of a kernel; of the objective, between the two passes, `kernel` is None."""

    kernel: Callable[..., None] | None
    phase: str
    arguments: list[Argument]

    @property
    def name(self) -> str:
        return "objective" if self.kernel is None else self.kernel.__name__


class Tracer:
    """Stands in for a module of kernels: makes each call, and notes it with its values."""

    def __init__(self, kernels: ModuleType, vae: VAE, a: Activations, d: Gradients) -> None:
        self._kernels, self.phase, self.steps = kernels, "forward", list[Step]()
        self._vae, self._written, self._kept = vae, list[Place](), list[Any]()
        params = [_place(name, array, "parameter") for name, array in vae.parameters.items()]
        grads = [_place(f"d{name}", array, "gradient") for name, array in vae.gradients.items()]
        values = [*_places(a, ("x", "eps", "z", "output"), ""), *params]
        self._tables = {"forward": values, "backward": [*_places(d, ("output", "z_nll", "z", "h"), "d"), *grads,
                                                        *values]}

    def __getattr__(self, name: str) -> Callable[..., None]:
        kernel: Callable[..., None] = getattr(self._kernels, name)

        def call(*arguments: Any) -> None:
            kernel(*arguments)
            written = [role.isupper() for role in roles_of(kernel, arguments)]
            self.note(kernel, [*inspect.signature(getattr(reference, name, kernel)).parameters], arguments, written)
        return call

    def note(self, kernel: Callable[..., None] | None, parameters: Sequence[str], arguments: Sequence[Any],
             written: Sequence[bool]) -> None:
        """What has just been called.  What it reads is named first: an output takes its name from there, if it has no
        other."""
        self._kept.append(arguments)      # so that no other array gets the same memory
        found: dict[int, Argument] = {}
        for i in sorted(range(len(arguments)), key=lambda i: written[i]):
            if isinstance(arguments[i], np.ndarray) and arguments[i].size:
                inputs = [found[j].name for j in range(len(arguments)) if j in found and not written[j]]
                found[i] = self._argument(parameters[i], arguments[i], written[i], kernel, inputs)
        self.steps.append(Step(kernel, self.phase, [found[i] for i in sorted(found)]))

    def _argument(self, parameter: str, array: Array, written: bool, kernel: Callable[..., None] | None,
                  inputs: list[str]) -> Argument:
        low, high = _extent(array)
        known = self._tables["forward" if self.phase == "forward" else "backward"]
        if not written:
            known = [*self._written[::-1], *self._tables["forward"], *self._tables["backward"]]
        fitting = [place for place in known if place.holds(low, high)]
        place = min(fitting, key=lambda place: place.high - place.low, default=None)
        backwards = written and self.phase != "forward"
        if place is None:
            first = f"{kernel.__name__.partition('_')[0]}({inputs[0]})" if written and kernel and inputs else parameter
            kind = "gradient" if backwards else "value" if written else "constant"
            place = _place(parameter if backwards else first, array, kind)
        elif backwards and place.kind == "value":      # memory of a value that is needed no more
            place = replace(place, name=f"d{place.name}", kind="gradient")
        if written:
            self._written.append(place)
        return Argument(parameter, _part(place, array), place.kind, written, low, high, array.copy(order="K"))


def _extent(array: Array) -> tuple[int, int]:
    """The first byte of an array, and the one after its last."""
    low: int = array.__array_interface__["data"][0]
    return low, low + sum((n - 1) * step for n, step in zip(array.shape, array.strides)) + array.itemsize


def _place(name: str, array: Array, kind: str) -> Place:
    return Place(name, *_extent(array), array.strides[0] if array.ndim else array.itemsize, kind,
                 array.itemsize * (array.ndim == 2))


def _part(place: Place, array: Array) -> str:
    """Its name, with the rows, and of a matrix the columns, that an array is of it; "part of", if it is anything else.
    """
    low, high = _extent(array)
    if (low, high) == (place.low, place.high):
        return place.name
    first, column = divmod(low - place.low, place.row)
    rows = (high - place.low) / place.row
    if not column and rows == int(rows):
        return f"{place.name}[{first}]" if rows == first + 1 else f"{place.name}[{first}:{int(rows)}]"
    if not place.item:
        return f"part of {place.name}"
    stored = array.T if array.ndim == 2 and array.strides[0] == array.itemsize else array
    height, first_column = len(stored) if stored.ndim > 1 else 1, column // place.item
    whole = height == (place.high - place.low + place.row - 1) // place.row
    return (f"{place.name}[{':' if whole else f'{first}:{first + height}'}, "
            f"{first_column}:{first_column + stored.shape[-1]}]")


def _places(arrays: object, first: Sequence[str], d: str, owner: str = "") -> Iterator[Place]:
    """The arrays of a dataclass by their names, those in `first` first: of two names for one memory one is enough.
    `d` is the letter before the names of gradients, or empty."""
    seen = set[tuple[int, int]]()
    for name in sorted((field.name for field in fields(cast(Any, arrays))), key=lambda name: name not in first):
        value = getattr(arrays, name)
        if name in ("index", "uniform", "noise"):      # what a training step makes the batch of
            continue
        if is_dataclass(value):
            yield from _places(value, (), "")
        elif isinstance(value, tuple):      # of a prior that is a network: values and gradients
            for part, letter in zip(value, ("", "d")):
                yield from _places(part, ("z", "z2"), letter, f"{name}.")
        for i, array in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(array, np.ndarray) or not array.size or _extent(array) in seen:
                continue
            seen.add(_extent(array))
            label = name if array is value else f"{name}.{i}"
            if name in ("encoder", "decoder"):      # the first is the input of layer 0
                label = f"{name}.{i - 1}" if i else f"{name}'s input"
            elif name in ("encoder_pre", "decoder_pre"):
                label = f"{name.removesuffix('_pre')}.{i}_pre"
            own = not d and name.startswith("d") and not name.startswith("decoder")
            kind = "constant" if array.dtype.kind in "iu" else "gradient" if d or own else "value"
            yield _place(d + owner + label, array, kind)


@dataclass(frozen=True)
class Case:
    """The passes of one image with one eps."""

    steps: list[Step]
    loss: float
    shown: dict[str, Array]      # x, mu, sigma, ... by name


class _Lesson:
    """The passes of a few images and places of the slider."""

    def __init__(self, vae: VAE, x: Array, labels: Array | None, objective: Objective, step: int, draws: int,
                 rng: np.random.Generator) -> None:
        self.vae, self.analytic = twin(vae, "float64"), twin(vae, "complex128")
        self.objective, self.step, self.labels = objective, step, labels
        self.x = self.vae.images(x, "x")
        self.vae.check_objective(objective)
        with np.errstate(divide="ignore"):      # of a single image, information is minus infinity
            nats = nats_per_dimension(self.vae, self.x, self.vae.check_labels(labels, len(self.x))
                                      if self.vae.classes else None)
        self.j = int(np.argmax(nats))      # eps[j] is what the slider moves: where z says most
        self.eps = rng.standard_normal((1, draws, self.vae.noise_dim))

    def noise(self, place: float) -> Array:
        """eps (1, K, Z), with that of the first draw moved."""
        eps: Array = self.eps.copy()
        eps[0, 0, self.j] = place
        return eps

    def batch(self, image: int, place: float) -> tuple[Any, ...]:
        """The arguments of `VAE.loss` for one image."""
        rows = slice(image, image + 1)
        return (self.x[rows], self.noise(place), self.objective, self.step,
                None if self.labels is None else np.asarray(self.labels)[rows])

    def case(self, image: int, place: float) -> Case:
        """Both passes, with a tracer in place of the kernels."""
        vae, estimator = self.vae, self.objective.kl_estimator
        x, eps, objective, step, labels = self.batch(image, place)
        a, d = vae.passes(1, eps.shape[1])
        a.x[...], a.labels[...] = x, vae.check_labels(labels, 1)
        a.eps[...], a.eps_prior[...] = eps[..., :vae.latent_dim], eps[..., vae.latent_dim:]
        tracer = Tracer(vae.kernels, vae, a, d)
        kernels = cast(ModuleType, tracer)
        vae.forward(a, estimator, kernels)
        if vae.likelihood.fits_batch:
            vae.likelihood.fit_batch(kernels, a.nll, a.kept, a.output, a.x)
        name, reg, dreg = (("log_ratio", a.log_ratio, d.log_ratio) if estimator.is_sampled else ("kl", a.kl, d.kl))
        loss, d.nll[...], dreg[...] = objective(a.nll, reg, step)
        tracer.phase = "objective"
        tracer.note(None, ("dnll", f"d{name}", "nll", name), (d.nll, dreg, a.nll, reg), (True, True, False, False))
        tracer.phase = "backward"
        vae.backward(d, a, estimator, kernels)
        if not (np.isfinite(loss) and np.isfinite(vae.gradients.flat).all()):
            raise ValueError("the model computes NaN or infinity for a test image, which no page can show")
        shown = {"x": x, "mu": a.mu[:1], "sigma": np.exp(0.5 * a.logvar[:1]), "eps": a.eps, "z": a.z, "logits": a.rows,
                 "p": vae.likelihood.mean(vae.kernels, vae.likelihood.complete(vae.kernels, a.rows, vae.parameters))}
        if vae.likelihood.name != "bernoulli":
            shown = {{"logits": "output", "p": "E[x|z]"}.get(key, key): value for key, value in shown.items()}
        return Case(tracer.steps, float(loss), {key: value.copy() for key, value in shown.items()})

    def gradient(self) -> dict[str, Array]:
        """That of the last case."""
        return {name: array.copy() for name, array in self.vae.gradients.items()}

    def numerical(self, name: str, index: tuple[int, ...], image: int, place: float) -> tuple[float, float]:
        """The derivative by one weight: by a complex step, and by a central difference.

            Im loss(w + i h) / h                                 as in D9.3
            ( loss(w + h) - loss(w - h) ) / 2h                   as in D9.1
        """
        batch, weights, moved = self.batch(image, place), self.vae.parameters[name], self.analytic.parameters[name]
        w = weights[index]
        h = float(entries(weights[index].reshape(1))[0].size)
        losses = []
        try:
            moved[index] = w + 1j * COMPLEX_STEP
            slope = np.imag(self.analytic.loss(*batch)) / COMPLEX_STEP
            for near in (w + h, w - h):
                weights[index] = near
                losses.append(self.vae.loss(*batch))
        finally:
            weights[index] = moved[index] = w
        return float(slope), (losses[0] - losses[1]) / float((w + h) - (w - h))


# ---- What the page is given

class _Arrays:
    """The values of all passes, each only once."""

    def __init__(self) -> None:
        self.encoded: list[list[float] | dict[str, Any]] = []
        self.bytes = 0
        self._known: dict[bytes, int] = {}

    def case(self, case: Case) -> list[int]:
        """The numbers of the arrays of all arguments of all steps."""
        found, before = list[int](), list[tuple[Argument, int]]()
        for step in case.steps:
            ids = dict[int, int]()
            for i, one in sorted(enumerate(step.arguments), key=lambda pair: pair[1].written):      # what is read first
                ids[i] = self.add(one.values, _recipe(step, [ids.get(j) for j in range(len(step.arguments))], self)
                                  if one.written else _part_of(one, before), one.kind == "parameter")
                before.append((one, ids[i]))
            found += [ids[i] for i in range(len(step.arguments))]
        return found

    def add(self, values: Array, recipe: dict[str, Any] | None = None, rough: bool = False) -> int:
        """The number of these values; recipe: how the page computes them, if it can."""
        flat = stored(values).ravel()
        key = hashlib.sha256(f"{rough} {flat.dtype}".encode() + flat.tobytes()).digest()
        if key not in self._known:
            entry = self._encode(flat, rough) if recipe is None or flat.size <= 4 * FEW else recipe
            self._known[key] = len(self.encoded)
            self.encoded.append(entry)
            self.bytes += len(json.dumps(entry))
        return self._known[key]

    def _encode(self, flat: Array, rough: bool) -> list[float] | dict[str, Any]:
        if flat.size <= FEW:
            return [float(value) for value in flat]
        if flat.dtype == bool:
            return {"bits": base64_of(np.packbits(flat)), "size": flat.size}
        if rough:
            unit = float(np.abs(flat).max()) / 32767 or 1.0
            return {"int16": base64_of(np.rint(flat / unit).astype("<i2")), "unit": unit}
        return {"float32": base64_of(flat.astype("<f4"))}


def _recipe(step: Step, ids: Sequence[int | None], arrays: _Arrays) -> dict[str, Any] | None:
    """How the page computes what a step writes from what it reads, of which `ids` are the numbers; None if it cannot,
    or if that saves nothing."""
    if step.name == "mask_forward" and not any(_turned(one.values) for one in step.arguments):
        return {"masked": [*ids[1:]]}
    if step.name not in ("matmul", "mask_backward"):
        return None
    a, b, *mask = (one.values for one in step.arguments[1:])
    if step.arguments[0].values.size <= 4 * FEW + a.size + b.size:
        return None
    return {"product": [arrays.add(a), arrays.add(b), *ids[3:]], "sizes": [len(a), *b.shape],
            "turned": [_turned(a), _turned(b)]}


def _part_of(one: Argument, before: Sequence[tuple[Argument, int]]) -> dict[str, Any] | None:
    """How the page cuts an array out of the last larger one in whose memory it lies; None if there is none."""
    block = stored(one.values)
    for other, number in reversed(before):
        whole = stored(other.values)
        if block.ndim == whole.ndim == 2 and block.size < whole.size and other.low <= one.low < one.high <= other.high:
            top, left = divmod((one.low - other.low) // block.itemsize, whole.shape[1])
            height, width = block.shape
            if np.array_equal(whole[top:top + height, left:left + width], block):
                return {"part": number, "columns": whole.shape[1], "corner": [top, left], "width": width,
                        "size": block.size}
    return None


def stored(values: Array) -> Array:
    """An array in the order in which it lies in memory."""
    return np.ascontiguousarray(values.T if _turned(values) else values)


def _turned(values: Array) -> bool:
    """Is it a transposed view of a matrix?"""
    return values.ndim == 2 and values.flags.f_contiguous and not values.flags.c_contiguous


def _page(lesson: _Lesson, image_shape: tuple[int, ...], names: list[str], title: str, links: dict[str, str]) -> bytes:
    vae, arrays, trial = lesson.vae, _Arrays(), _Arrays()

    def numbers(case: Case, arrays: _Arrays) -> dict[str, Any]:
        return {"ids": arrays.case(case), "shown": [arrays.add(value) for value in case.shown.values()],
                "loss": case.loss}

    middle = len(EPS) // 2
    first = lesson.case(0, EPS[middle])
    numbers(first, trial)
    before = trial.bytes
    numbers(lesson.case(0, EPS[middle - 1]), trial)
    places, images = _fitting(before, max(1, trial.bytes - before), len(lesson.x))
    steps, cases, gradients = first.steps, [], []
    for image in range(images):
        for place in places:
            case = lesson.case(image, place)
            assert [step.name for step in case.steps] == [step.name for step in steps]
            cases.append(numbers(case, arrays))
            gradients.append(lesson.gradient())
    checks = {name: [_check(lesson, name, index, places, images, gradients)
                     for index in _chosen(gradients[0][name], vae.parameters.flat.size <= SMALL)]
              for name in vae.parameters}
    rows = _rows(steps)
    data = {
        "shape": [int(side) for side in image_shape], "small": vae.parameters.flat.size <= SMALL,
        "nodes": [_node(step, steps[:i], lesson) for i, step in enumerate(steps)],
        "cases": cases, "places": places, "arrays": arrays.encoded, "checks": checks,
        "shown": [[name, list(value.shape)] for name, value in first.shown.items()],
        "tensors": {name: list(value.shape) for name, value in vae.parameters.items()}, "j": lesson.j, "links": links}
    network = "-".join(map(str, (vae.input_dim, *vae.hidden, vae.latent_dim)))
    config = {"prior": "normal", "posterior": "gaussian", "decoder": "dense", **vae.config()}
    draws = lesson.eps.shape[1]
    return fill(
        "explain.html", title=escape(title), data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        script=(TEMPLATES / "explain.js").read_text(encoding="utf-8"),
        lead=escape(f"{network}, {vae.activation}, likelihood {vae.likelihood.name}, prior {config['prior']}, "
                    f"posterior {config['posterior']}, decoder {config['decoder']}; {lesson.objective!r}, {draws} "
                    f"draw{'s' * (draws > 1)} of z; {vae.parameters.flat.size:,} parameters."),
        images="".join(f"<option>{escape(name)}</option>" for name in
                       [*names, *(f"image {i}" for i in range(len(names), images))][:images]),
        last=str(len(places) - 1), start=str(_nearest(places, 0.5)), j=str(lesson.j), map="\n".join(_map(steps, rows)),
        tensors="".join(f"<option>{escape(name)}</option>" for name in vae.parameters))


def _fitting(fixed: int, each: int, images: int) -> tuple[list[float], int]:
    """Places of the slider and images, as many as fit into the page."""
    for count, places in ((images, EPS), (images, EPS[::2]), (min(2, images), EPS[::2])):
        if fixed + each * count * len(places) <= ENOUGH:
            return list(places), count
    return list(EPS[::4]), 1


def _nearest(places: Sequence[float], to: float) -> int:
    return int(np.argmin(np.abs(np.array(places) - to)))


def _chosen(gradient: Array, all_of_them: bool) -> list[tuple[int, ...]]:
    """The entries whose derivative is also computed numerically: all, or the largest and others down to zero."""
    if all_of_them or gradient.size <= SOME:
        return list(np.ndindex(gradient.shape))
    order = np.argsort(-np.abs(gradient.ravel()), kind="stable")
    many = max(SOME, int(np.count_nonzero(gradient)))
    flat = dict.fromkeys(int(order[int(i)]) for i in (0, many // 4, many // 2, gradient.size - 1))
    return [tuple(int(i) for i in np.unravel_index(index, gradient.shape)) for index in flat]


def _check(lesson: _Lesson, name: str, index: tuple[int, ...], places: list[float], images: int,
           gradients: list[dict[str, Array]]) -> dict[str, Any]:
    """For each case: the gradient's entry, the complex step, the central difference."""
    cases = [(image, place) for image in range(images) for place in places]
    return {"index": list(index), "weight": float(lesson.vae.parameters[name][index]),
            "slopes": [[float(gradient[name][index]), *lesson.numerical(name, index, *case)]
                       for gradient, case in zip(gradients, cases)]}


def _node(step: Step, before: Sequence[Step], lesson: _Lesson) -> dict[str, Any]:
    formula, ids, text = formula_of(lesson.objective if step.kernel is None else step.kernel, step.phase)
    return {"kernel": step.name, "phase": step.phase, "formula": formula, "ids": ids, "doc": text,
            "arguments": [_argument(one, before, lesson.vae) for one in step.arguments]}


def _argument(one: Argument, before: Sequence[Step], vae: VAE) -> dict[str, Any]:
    found: dict[str, Any] = {
        "parameter": one.parameter, "name": one.name, "kind": one.kind, "written": one.written,
        "shape": list(one.values.shape), "turned": _turned(one.values)}
    if not one.written:
        found["source"] = next((i for i in reversed(range(len(before))) if any(
            other.written and other.low < one.high and one.low < other.high for other in before[i].arguments)), None)
    for block in (vae.parameters, vae.gradients):
        for name, array in block.items():
            low, high = _extent(array)
            dense = one.values.size * array.itemsize == one.high - one.low
            if low <= one.low and one.high <= high and dense:
                found |= {"tensor": name, "start": (one.low - low) // array.itemsize}
    return found


def formula_of(source: object, phase: str = "forward") -> tuple[str, list[str], str]:
    """Of a kernel or an objective, from its docstring: the formula, the ids of the equations, the whole text.

    The formula is the first paragraph, and of others the lines that say what is computed.  An output that they do not
    name, such as dpre of an activation, is looked up in the docstring of the module.  What serves in both passes, as
    matmul does, has a paragraph on its backward pass, too.
    """
    method = isinstance(source, Objective)
    function: Any = source.__call__ if isinstance(source, Objective) else source
    text = re.sub("(?m)^" + " " * (8 if method else 4), "", function.__doc__ or "").strip()
    first, *others = re.split(r"\n\s*\n", text)
    lines = first.splitlines()
    for paragraph in others:
        both = phase == "backward" and paragraph.startswith("Its backward pass")
        lines += [line for line in paragraph.splitlines() if both or re.match(r" {2,}\S+(?:, +\w+)* +=", line)]
    module = sys.modules[function.__module__].__doc__ or ""
    for name in [name for name in inspect.signature(function).parameters if re.match(r"d[a-z]", name)][:2]:
        if not any(re.match(rf"\W*(?:.* )?{name}\b", line) for line in lines):
            lines += [line for line in module.splitlines() if re.match(rf"\s+{name}\[.*=", line)]
    formula = "\n".join(re.sub(r"^ +", "  ", re.sub(r"\s{3,}(?=\(D)", "   ", line.rstrip())) for line in lines)
    return formula, list(dict.fromkeys(re.findall(r"\bD\d+\.\d+\b", formula))), text


# ---- The map: forward on the left, downwards; backward on the right, upwards

def _rows(steps: Sequence[Step]) -> list[int]:
    """The row of each step: a step of the backward pass stands beside the one that it goes back through."""
    forward = [step for step in steps if step.phase == "forward"]
    rows, row = list[int](), len(forward)
    for i, step in enumerate(steps):
        if step.phase == "forward":
            rows.append(i)
        elif step.phase == "objective":
            rows.append(len(forward))
        else:
            likeness = [_likeness(step, other) for other in forward]
            best = max(likeness)
            row = len(forward) - 1 - likeness[::-1].index(best) if best else min(row, len(forward) - 1)
            rows.append(row)
    return rows


def _likeness(step: Step, through: Step) -> int:
    """How much a step looks like the backward pass of the other, or like one of the two of a matrix product."""
    output, given = step.arguments[0], {one.low for one in step.arguments[1:] if not one.written}
    if step.name in ("matmul", "mask_backward"):
        if through.name != "matmul":
            return 0
        x, weight = through.arguments[1:3]
        if output.kind == "gradient" and output.name.startswith("d") and _whole(output) == f"d{_whole(weight)}":
            return 3 if x.low in given else 1
        return 3 if weight.low in given else 0
    if step.name.endswith("_backward"):
        if through.name != step.name.replace("_backward", "_forward"):
            return 0
        names = {other.name for other in step.arguments}
        return 1 + sum(one.low in given or f"d{one.name}" in names for one in through.arguments)
    return int(f"d{through.arguments[0].name}" == output.name)      # a sum of gradients, where its value is made


def _whole(one: Argument) -> str:
    """The name of the tensor that an array is, or is a part of, masked or not."""
    return re.sub(r"mask\((.*)\)", r"\1", re.sub(r"^part of |\[.*", "", one.name))


def _map(steps: Sequence[Step], rows: Sequence[int]) -> Iterator[str]:
    """A button for each step, in order; their places are those of a grid."""
    last = max(rows)
    heights = [max(1, sum(step.phase == "backward" and row == r for step, row in zip(steps, rows)))
               for r in range(last + 1)]
    used = [0] * (last + 1)
    for i, (step, row) in enumerate(zip(steps, rows)):
        top = 1 + sum(heights[:row])
        place = f"{top} / span {heights[row]}"
        if step.phase == "backward":
            used[row] += 1
            place = f"{top + heights[row] - used[row]}"
        outputs = ", ".join(dict.fromkeys(one.name for one in step.arguments if one.written))
        short = re.sub("_(forward|backward)$", "", step.name)
        yield (f'<li class="{step.phase}" style="grid-row: {place}"><button type="button">'
               f'<small>{i + 1} {escape(short)}</small> {escape(outputs)}</button></li>')
