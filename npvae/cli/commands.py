"""The commands of `npvae`; `train` alone is in `runs.py`.  Not part of the lesson; `program.py` has their flags.

A command takes the parsed flags and prints its results or the files it has written.  What it raises, `exit_code` turns
into one line on stderr.
"""
import argparse
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import evaluate as measures, plotting
from . import command_line, compressed, options
from ..data.codes import Column, as_csv, as_npy, numbered
from ..data.images import ImageData
from ..data.labels import class_codes, listed
from ..evaluate.scores import WARNING
from ..evaluate.summary import Summary, summarize
from ..gradcheck.checker import check_gradients
from ..latents.aggregate import components_in, fit_mixture
from ..likelihoods.support import Codes, Counts, Levels, fitting
from ..model.vae import VAE
from ..objectives import Objective
from ..pages.explain import IMAGES, write_explain
from ..pages.explorer import write_explorer
from ..params import Array
from ..plotting.figures import label_text
from ..system.files import write_atomically
from ..system.terminal import plain
from .command_line import UsageError
from .runs import (
    EXPLAINED, EXPLORER, FILES, SavedRun, load_images, open_run, take_other_data, tell, test_images, training_images)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ENTRIES = 5000      # gradients of more entries are checked along random directions, not entry by entry
_DIRECTIONS = 32
_GAPS = 0.2      # share of missing cells in the random data of a gradient check
_EXTRA_LOSSES = 9      # roughly, for each tensor: they compare the complex step with central differences
#: the network that gradcheck takes by default: all its gradients are checked, entry by entry, in a second
SMALL = {"pixels": 12, "hidden": (7, 5), "latent": 3, "activation": "relu", "likelihood": "bernoulli",
         "prior": "normal", "posterior": "gaussian", "decoder": "dense", "objective": "elbo", "k": 2, "beta": 1.0,
         "free_bits": 0.0}
#: the network of explain --small by default: few enough numbers to show each of them
SMALLEST = {**SMALL, "pixels": 2, "hidden": (3,), "latent": 2, "activation": "tanh", "k": 1}
_FITTED = 10_000      # training images at most whose codes a mixture is fitted to
_MOST_DRAWS = 3      # of z on the page of a run


# ---- Numbers

def evaluate(args: argparse.Namespace) -> None:
    """Print bounds, log p(x), active units and the KL of each latent dimension, on test images."""
    run = open_run(args.run, args.threads)
    if args.json:
        command_line.output("--json", args.json, [".json"])
    images, x, labels = _test_set(run, args)
    chosen = plotting.spread(len(x), args.limit)
    x, labels = x[chosen], None if labels is None else labels[chosen]
    found = summarize(run.vae, x, np.random.default_rng(args.seed), args.samples, labels, progress=lambda blocks:
                      command_line.progress(blocks, "blocks of images"))
    meaning = "each image given its label; " * bool(run.classes) + meaning_of(run, x)
    print(f"{len(x):,} of {len(images.test_images):,} test images of {plain(run.args.data_dir)}, nats per image, "
          f"means; seed {args.seed}")
    print(textwrap.indent(str(found), "  "), f"({meaning})", sep="\n")
    if args.data_dir is not None:
        print(f"({WARNING})")
    _print_dimensions(found)
    if args.json:
        source = {"run": str(args.run), "data": run.args.data_dir, "images": len(x), "of": len(images.test_images),
                  "samples": args.samples, "seed": args.seed}
        numbers = {**source, **found.plain(), "meaning": meaning}
        write("--json", args.json, (json.dumps(numbers, indent=1) + "\n").encode())


def meaning_of(run: SavedRun, x: Array) -> str:
    """What the numbers mean: log likelihoods of what kind of data, or no likelihoods."""
    support = run.vae.likelihood.support
    if run.columns:
        return ("log densities of rows, whose real numbers are in the units of the file: they change with the unit; "
                "text and counts have probabilities")
    if isinstance(support, Levels):
        return f"log likelihoods of images of {support.levels} grey levels"
    if isinstance(support, Counts):
        given = getattr(run.vae.likelihood, "size", False)
        return "log likelihoods of counts" + ", the total of each row being given" * given
    if isinstance(support, Codes):
        return "log likelihoods of codes"
    if not support.pixels:
        return "log densities of real numbers: they may be positive"
    if run.vae.likelihood.name != "bernoulli":
        return "log densities of pixels as real numbers: they may be positive"
    if np.isin(x, (0, 1)).all():
        return "log likelihoods of black-and-white images"
    return "no likelihoods: grey pixels as Bernoulli targets give a cross-entropy; train with --binarize"


def _print_dimensions(found: Summary) -> None:
    """Print the KL of each latent dimension, or, where it has no closed form, a bound on the information; most first.
    """
    title, nats = "KL of each dimension, nats:", found.kl_per_dimension
    if nats is None:
        title, nats = "information about the image in each dimension, nats at most:", found.information_per_dimension
    cells = [f"z[{j}]".rjust(6) + f" {nats[j]:7.4f}" for j in np.argsort(-nats, kind="stable")]
    print(title, *("  " + "   ".join(cells[i:i + 6]) for i in range(0, len(cells), 6)), sep="\n")


def gradcheck(args: argparse.Namespace) -> int:
    """Compare the gradients of a run's network, or of one that flags name, with the complex step, in float64.  Returns
    exit code 1 if they are wrong."""
    given = _given(args)
    vae, objective, draws, step = (_of_run(open_run(args.run)) if args.run else
                                   _of_flags(args, {**SMALL, **given}))
    analytic = VAE(**{**vae.config(), "dtype": "complex128", "kernels": "numpy"})
    rng = np.random.default_rng(args.seed)
    batch = max(2, 8 // draws)
    x = fitting(vae.output, fitting(vae.likelihood, rng.random((batch, vae.input_dim))))
    eps = rng.standard_normal((batch, draws, vae.noise_dim))
    if vae.missing:
        x = np.where(rng.random(x.shape) < _GAPS, np.nan, x)
    labels = rng.integers(vae.classes, size=batch) if vae.classes else None
    loss, gradients = vae.loss_and_gradients(x, eps, objective, step, labels)
    size = vae.parameters.flat.size
    by_entry = size <= _MOST_ENTRIES

    def loss_at(parameters: dict[str, Array]) -> float:
        bar.update()
        return analytic.loss(x, eps, objective, step, labels, parameters)

    losses = (size if by_entry else _DIRECTIONS * len(vae.parameters)) + _EXTRA_LOSSES * len(vae.parameters)
    with command_line.progress(None, "losses", losses) as bar:
        report = check_gradients(loss_at, gradients, vae.parameters, "complex" if by_entry else "directional",
                                 counts={"B": batch, "K": draws, "B K": batch * draws}, directions=_DIRECTIONS)
    network = "-".join(map(str, (vae.input_dim, *vae.hidden, vae.latent_dim)))
    how = "each of them" if by_entry else f"{_DIRECTIONS} random directions in each tensor"
    variant = "".join(f", {name} {vae.config()[name]}" for name in (
        "prior", "posterior", "decoder", "classes", "missing") if name in vae.config())
    print(f"{network}, {vae.activation}, {vae.likelihood.name}{variant}, {type(objective).__name__}, K = {draws}, loss "
          f"{loss:.6f}\n{size:,} parameters, {how} by the complex step\n{report}")
    return 0 if report.ok else 1


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of network and objective that were given.  Raises UsageError if RUN was given as well."""
    given = {name: value for name in SMALL if (value := getattr(args, name)) is not None}
    if args.run and given:
        raise UsageError(f"{options.flag(next(iter(given)))} and RUN exclude each other: a run has its own network")
    return given


def _of_run(run: SavedRun) -> tuple[VAE, Objective, int, int]:
    """The trained network, its objective, K, and the number of steps trained, for schedules of beta."""
    vae = VAE(**{**run.vae.config(), "dtype": "float64", "kernels": "numpy"})
    vae.parameters.flat[...] = run.vae.parameters.flat
    run.args.gradient = "total"      # the other estimators are not the derivative of the loss
    return vae, options.make_objective(run.args, run.training_images), run.args.k, int(run.last.get("step", 0))


def _of_flags(args: argparse.Namespace, network: dict[str, Any]) -> tuple[VAE, Objective, int, int]:
    """The network that these flags name, with random weights and biases; its objective, K, and step 0."""
    flags = argparse.Namespace(**{**vars(options.training_parser().parse_args([])), **network})
    options.check_objective(flags)
    vae = VAE(flags.pixels, flags.hidden, flags.latent, flags.activation, flags.likelihood, "float64", "numpy",
              args.seed, prior=flags.prior, posterior=flags.posterior, decoder=flags.decoder)
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(args.seed).standard_normal(vae.parameters.flat.size)
    return vae, options.make_objective(flags, 1), flags.k, 0


def info(args: argparse.Namespace) -> None:
    """Print what a run's folder, or a compressed file, holds."""
    if args.run.suffix == compressed.SUFFIX and args.run.is_file():
        compressed.info(args.run)
        return
    run = open_run(args.run)
    vae, last = run.vae, run.last
    what = f"{len(run.columns)} columns" if run.columns else f"{' x '.join(map(str, run.image_shape))} pixels"
    print(f"run       {plain(str(args.run))}\n"
          f"{'rows  ' if run.columns else 'images'}    {what}, {run.training_images:,} to train\n"
          + f"data      {plain(run.read.get('line', ''))}\n" * bool(run.read) +
          f"classes   {listed(run.classes)}\n" * bool(run.classes) +
          f"epochs    {run.epochs} of {run.args.epochs}")
    if last:
        print(f"last      loss {last['test_loss']:.2f} on the test set (reconstruction {last['test_nll']:.2f}, KL "
              f"{last['test_kl']:.2f}), {last['train_loss']:.2f} in training; {last['active_units']} of "
              f"{vae.latent_dim} latent dimensions in use")
    print("versions  " + ", ".join(plain(f"{name} {value}") for name, value in run.versions.items()))
    print("settings")
    for name, value in options.settings(run.args).items():
        print(f"  {options.flag(name):15s} {plain(options.flag_value(value))}")
    print("parameters")
    for name, value in vae.parameters.items():
        print(f"  {name:18s} {' x '.join(map(str, value.shape)):>12s} {value.size:12,}")
    flat = vae.parameters.flat
    print(f"  {'in all':18s} {flat.dtype.name:>12s} {flat.size:12,}   {_bytes(flat.nbytes)}")
    print("files")
    for path in sorted(path for path in args.run.iterdir() if path.is_file() and path.name[0] != "."):
        what = FILES.get(path.name, "not a file of a run")
        print(f"  {plain(path.name):22s} {_bytes(path.stat().st_size):>9s}   {what}")


def _bytes(count: int) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


# ---- Pictures

def sample(args: argparse.Namespace) -> None:
    """Write new rows of data, as a picture, an array or a table."""
    run, out = opened(args, "sample.png", [".png", ".npy", ".csv"])
    rng, vae, chosen = np.random.default_rng(args.seed), run.vae, chosen_classes(run, args.label)
    mixture, source = None, "the prior"
    if args.source != "prior":
        x, y = training_images(run, _FITTED)
        codes = vae.draw_posterior(x, rng, y)
        mixture, source = fit_mixture(codes, components_in(args.source), rng), "a mixture fitted to codes"
    if out.suffix.lower() == ".png" and len(chosen) > 1:
        images = plotting.same_z(vae, chosen, -(-args.count // len(chosen)), rng, not args.draw, mixture)
        names = [run.classes[i] for i in chosen]
        write_picture(out, plotting.class_samples(images, names, run.image_shape, run.ink, source))
        return
    labels = np.array(chosen)[np.arange(args.count) * len(chosen) // args.count] if chosen else None
    named = {"label": [run.classes[i] for i in labels]} if labels is not None else {}
    rows = vae.sample(args.count, rng, not args.draw, labels, mixture)
    write_rows(run, out, rows, named, f"Decoded draws from {source}")


def chosen_classes(run: SavedRun, names: list[str] | None) -> list[int]:
    """The indices of the classes with these names; of all classes if `names` is None."""
    if names is None:
        return list(range(len(run.classes)))
    if not run.classes:
        raise UsageError(f"--label {names[0]}: the run in {run.folder} has no classes: it was trained without "
                         "--conditional")
    known = [str(name) for name in run.classes]
    for name in names:
        if name not in known:
            raise UsageError(f"--label {name}: the classes of this run are {listed(run.classes)}")
    return [known.index(name) for name in names]


def reconstruct(args: argparse.Namespace) -> None:
    """Draw test images, each above its reconstruction; or write them so as a table."""
    run, out = opened(args, "reconstruct.png", [".png", ".csv"])
    _, x, labels = _test_set(run, args)
    rng = np.random.default_rng(args.seed)
    chosen = np.sort(rng.choice(len(x), min(args.count, len(x)), replace=False))
    rebuilt = run.vae.reconstruct(x[chosen], rng, None if labels is None else labels[chosen])
    if out.suffix.lower() == ".csv":
        rows: dict[str, Column] = {"row": np.repeat(chosen, 2), "of": ["data", "rebuilt"] * len(chosen)}
        write_rows(run, out, np.stack([x[chosen], rebuilt], axis=1).reshape(2 * len(chosen), -1), rows, "")
        return
    write_picture(out, plotting.reconstructions(x[chosen], rebuilt, run.image_shape, run.ink))


def interpolate(args: argparse.Namespace) -> None:
    """Draw lines through latent space between pairs of test images, decoded."""
    run, out = opened(args, "interpolate.png", [".png"])
    if args.images is not None and len(args.images) % 2:
        raise UsageError(f"--images must be pairs of test images, got {len(args.images)} numbers")
    _, x, labels = _test_set(run, args)
    if args.images is None:
        chosen = np.random.default_rng(args.seed).permutation(len(x))[:2 * args.count]
        chosen = np.resize(chosen, len(chosen) + len(chosen) % 2)
    else:
        chosen = np.array([_in_range(image, "--images", len(x)) for image in args.images])
    pairs = chosen.reshape(-1, 2)
    write_picture(out, plotting.interpolation(run.vae, x[pairs], run.image_shape,
                                              labels=None if labels is None else labels[pairs], ink=run.ink))


def traverse(args: argparse.Namespace) -> None:
    """Draw one test image with one latent coordinate varied in each row, most informative coordinates first."""
    run, out = opened(args, "traverse.png", [".png"])
    _, x, labels = _test_set(run, args)
    image = _in_range(args.image, "--image", len(x))
    nats = measures.nats_per_dimension(run.vae, x, labels)
    write_picture(out, plotting.traversals(run.vae, x[image], nats, run.image_shape, rows=args.rows,
                                           label=None if labels is None else int(labels[image]), ink=run.ink))


def explore(args: argparse.Namespace) -> None:
    """Write a web page that contains the decoder."""
    run, out = opened(args, EXPLORER, [".html"])
    images, x, _ = _test_set(run, args)
    write_explorer(run.vae, x, images.test_labels, run.image_shape, out, run.ink, run.classes)
    print(f"{plain(str(out))}\nopen it in any browser, no network needed:  {out.resolve().as_uri()}")


def explain(args: argparse.Namespace) -> None:
    """Write a web page on which one image goes through the network, and its gradient comes back."""
    given = _given(args)
    if args.run is not None and args.small:
        raise UsageError("--small and RUN exclude each other: a run has its own network")
    if args.run is None and not args.small:
        raise UsageError("a RUN, or --small for a small network, is needed (see npvae explain --help)")
    if args.small:
        if args.data_dir is not None:
            raise UsageError("--data-dir and --small exclude each other: a small network has its own images")
        out = command_line.output("--out", Path(EXPLAINED) if args.out is None else args.out, [".html"])
        vae, objective, draws, step = _of_flags(args, {**SMALLEST, **given})
        x = fitting(vae.output, fitting(vae.likelihood, _corners(vae.input_dim)))
        names = [f"[{' '.join(f'{pixel:.3g}' for pixel in image[:8])}{' ...' * (len(image) > 8)}]" for image in x]
        write_explain(vae, x, out, (1, vae.input_dim), objective, step, draws, names=names, seed=args.seed,
                      book=args.book)
    else:
        run, out = opened(args, EXPLAINED, [".html"])
        images, x, labels = _test_set(run, args)
        vae, objective, draws, step = _of_run(run)
        chosen = plotting.spread(len(x), IMAGES)
        names = [f"test image {i}" for i in chosen]
        if images.test_labels is not None:
            names = [f"{name}, {label_text(label)}" for name, label in zip(names, images.test_labels[chosen])]
        shape = run.image_shape[0], math.prod(run.image_shape[1:])      # three numbers of a colour side by side
        write_explain(vae, x[chosen], out, shape, objective, step, min(draws, _MOST_DRAWS),
                      None if labels is None else labels[chosen], names, args.seed, book=args.book)
    print(f"{plain(str(out))}\nopen it in any browser, no network needed:  {out.resolve().as_uri()}")


def _corners(pixels: int) -> Array:
    """Four black-and-white images (4, D), all different if D > 1."""
    return (np.array([[1], [2], [3], [0]]) >> np.arange(pixels) % 2 & 1).astype(float)


# ---- Helpers

def opened(args: argparse.Namespace, name: str, suffixes: list[str]) -> tuple[SavedRun, Path]:
    """The run, and the file to write: --out, or the file called `name` in the run's folder."""
    run = open_run(args.run, args.threads)
    if run.columns and ".png" in suffixes:      # a row of a table is no picture
        suffixes = [suffix for suffix in suffixes if suffix != ".png"]
        if not suffixes:
            raise UsageError(f"the run in {args.run} is of a table, of whose rows there are no pictures: sample and "
                             "reconstruct write a .csv")
        name = name.replace(".png", ".csv")
    return run, command_line.output("--out", args.run / name if args.out is None else args.out, suffixes)


def _test_set(run: SavedRun, args: argparse.Namespace) -> tuple[ImageData, Array, Array | None]:
    """The data of the run, or of --data-dir; its test images (M, D), all images of other data without a test part,
    binarized as in training; and, for a conditional model, their class indices (M,)."""
    other = args.data_dir is not None
    if other:
        take_other_data(run.args, args.data_dir)
    images = load_images(run.args, whole=other)
    labels = class_codes(images.test_labels, run.classes, run.args.data_dir)
    x = test_images(run.vae, images, run.args, labels)
    if other:
        tell(run.args, images)
    return images, x, labels


def _in_range(image: int, flag: str, n: int) -> int:
    if image >= n:
        raise UsageError(f"{flag} {image}: there are {n} test images, 0 to {n - 1}")
    return image


def write_rows(run: SavedRun, out: Path, x: Array, others: Mapping[str, Column], title: str) -> None:
    """Write rows of data x (N, D): a picture with a title, an array, or a table that begins with the columns `others`.
    """
    suffix = out.suffix.lower()
    if suffix == ".png":
        write_picture(out, plotting.samples(x, run.image_shape, run.ink, title))
    else:
        write("--out", out, as_npy(x) if suffix == ".npy" else as_csv({**others, **_named(run, x)}))


def _named(run: SavedRun, x: Array) -> Mapping[str, Column]:
    """The columns of x (N, D) by name: those of a table with their texts, else x_1, x_2, ..."""
    if not run.columns:
        return numbered("x", x)
    return {column.name: list(map(column.text, cells.tolist())) for column, cells in zip(run.columns, x.T)}


def write_picture(out: Path, figure: "Figure") -> None:
    """Write the figure to --out and print its path."""
    write("--out", out, plotting.png(figure))


def write(flag: str, path: Path, content: bytes) -> None:
    """Write a file that `flag` names, whole or not at all, and print its path.  Raises UsageError."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be written: {error.strerror}") from None
    print(plain(str(path)))
