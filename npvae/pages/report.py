"""report.html: the results of a training run on one page.  Not part of the lesson.

Settings, final metrics, curves and pictures in a single file: the pictures are embedded as base64, the curves as SVG,
and the Content-Security-Policy forbids the browser to load anything else.
"""
import base64
import html
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from string import Template
from typing import Any, TypeGuard

from ..system.files import open_regular, parse_json, read_text, write_atomically
from ..system.terminal import plain

TEMPLATES = Path(__file__).with_name("templates")
CONFIG, METRICS, REPORT = "config.json", "metrics.jsonl", "report.html"

#: picture -> its title, its alternative text, what to look for; the learning curves are drawn by `_curve`
PICTURES = {
    "reconstructions": (
        "Reconstructions", "Rows of test images, each with its reconstruction under it",
        "Look for the same shape, slant and thickness, only smoother; if all look alike, z is not used."),
    "interpolation": (
        "From one test image to another", "Rows of images, each along a line in latent space between two test images",
        "Look for a plausible image at every step, not two half transparent ones on top of each other."),
    "samples": (
        "Samples", "A grid of images decoded from random draws of the prior",
        "Look for how many could pass as data; mixtures come from regions to which no image is encoded."),
    "columns": (
        "Each column", "For each column how often its values occur, in the test rows and in draws of the model",
        "Look for orange on blue; orange where there is no blue are values that the model invents."),
    "correlations": (
        "Which columns go together", "Two squares of colours: the correlations of all pairs of columns, in the test "
        "rows and in draws of the model",
        "Look for two pictures alike; one that is pale off its diagonal is a model whose columns do not know of each "
        "other."),
    "curves": (
        "Reconstructions", "Test rows as curves, each with its reconstruction",
        "Look for the same peaks at the same places; a smooth curve through noise is right."),
    "curves_drawn": (
        "Samples", "Rows of the test set and draws of the model, as curves",
        "Look for curves that could stand on the other side."),
    "class_samples": (
        "Samples of each class", "Rows of images, one for each label; down a column all are decoded from the same z",
        "Look for one style, such as slant or thickness, down each column, and one class along each row."),
    "pseudo_inputs": (
        "Pseudo-inputs", "Rows of images that the prior has learned, each with the image decoded from it below",
        "Look for decoded images of different kinds; a pseudo-input itself need not look like an image."),
    "latent_scatter": (
        "Where the encoder puts the test set", "Points: the means of q(z|x) of test images, coloured by label",
        "Look for labels that form clusters, although training never saw them, in a cloud as wide as the prior."),
    "manifold": (
        "The latent plane", "A grid of images: the latent plane, decoded at quantiles of the prior",
        "Look for smooth change from tile to tile, and for which shapes are neighbours."),
    "traversals": (
        "One latent coordinate at a time", "Rows of images; along each one latent coordinate runs over -3 to 3 sigma",
        "Look for rows that change one thing, such as slant or width; a row of equal tiles is a dimension not in use."),
    "kl_per_dimension": (
        "KL of each latent dimension", "Bars in falling order: the mean KL of each latent dimension in nats",
        "Look for the step from dimensions that carry information to those that equal the prior and carry none.")}

#: what to look for instead, if encoder and decoder were given the labels
CONDITIONAL = {
    "interpolation": "Look for a plausible image at every step; the label changes in the middle.",
    "latent_scatter": "Look for labels that mix: the decoder is given them, so z encodes only the style.",
    "traversals": "Look for rows that change one thing about the image, such as slant or width; its label stays."}

#: the table of epochs: key in metrics.jsonl -> heading
COLUMNS = {"epoch": "epoch", "train_loss": "training loss", "test_loss": "test loss", "test_nll": "reconstruction",
           "test_kl": "KL", "active_units": "active", "seconds": "seconds", "images_per_second": "images/s"}

Metrics = Sequence[Mapping[str, object]]      # a row for each epoch, as read from a file


def escape(text: str) -> str:
    """Any text, escaped for HTML, with unprintable characters replaced."""
    return html.escape(plain(text))


def fill(template: str, **parts: str) -> bytes:
    """The template of that name, filled with the style sheet and the parts, which are HTML."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(parts, style=style).encode()


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a run, from its config.json, metrics.jsonl and pictures.  Returns the path.

    Missing pictures are left out.  Raises ValueError, which names the file, if config.json or metrics.jsonl is missing
    or invalid; OSError if a picture cannot be read or the page cannot be written.
    """
    folder = Path(folder)
    config, history = _config(folder / CONFIG), _history(folder / METRICS)
    settings = config["settings"]
    panels = [_curve("Loss", history, ["train_loss", "test_loss"]),
              _curve("Reconstruction, −log p(x|z)", history, ["train_nll", "test_nll"]),
              _curve("KL(q(z|x) ‖ p(z))", history, ["train_kl", "test_kl"]),
              _curve("beta, the weight of the KL", history, ["beta"]) if _varies(history, "beta") else ""]
    page = fill(
        "report.html", title=escape(f"Training run: {folder.resolve().name}"),
        lead=_lead(config),
        numbers="\n".join(_numbers(history, settings)), meaning=_meaning(settings), curves="\n".join(panels),
        pictures="\n".join(_pictures(folder, settings)), open=" open" * (len(history) <= 20),
        summary=f"{len(history):,} epochs",
        epochs="\n".join(_epochs(history)), settings=_table(settings), versions=_table(config.get("versions", {})))
    write_atomically(folder / REPORT, page)
    return folder / REPORT


# ---- The files of the run

def _config(path: Path) -> dict[str, Any]:
    config = _parse(path, _read(path))
    if not all(isinstance(config.get(part), dict) for part in ("settings", "versions")) or not is_read(
            config.get("data", {})):
        raise ValueError(f"{path}: is not the {CONFIG} of a run, which holds settings and versions")
    return config


def is_read(read: object) -> bool:
    """Whether this is the entry "data" of a config.json: how the data were taken; older runs have none, or {}."""
    return isinstance(read, dict) and (not read or (
        all(isinstance(read.get(name), str) for name in ("line", "values")) and isinstance(read.get("warnings"), list)
        and all(isinstance(one, str) for one in read["warnings"])))


def _history(path: Path) -> list[dict[str, Any]]:
    """The metrics of each epoch, which may be NaN or infinite if training failed."""
    history = [_parse(path, line, f"line {i + 1}: ", finite=False) for i, line in enumerate(_read(path).splitlines())]
    if not history:
        raise ValueError(f"{path}: holds no epoch; a report needs at least one")
    return history


def _read(path: Path) -> bytes:
    try:
        return read_text(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); a report needs the folder of a run") from None


def _parse(path: Path, text: bytes, where: str = "", finite: bool = True) -> dict[str, Any]:
    try:
        value = parse_json(text, finite)
    except ValueError as error:
        raise ValueError(f"{path}: is not the {path.name} of a run: {where}{error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: is not the {path.name} of a run, which holds JSON objects")
    return value


# ---- Numbers and tables

def _lead(config: Mapping[str, Any]) -> str:
    """What the model was trained on, and how that was taken."""
    read = config.get("data") or {"line": "", "warnings": []}
    line = read["line"] and f"Data: {read['line'].removeprefix('read ')}."
    warnings = "".join(f"<br>{escape(warning[:1].upper() + warning[1:])}." for warning in read["warnings"])
    source = escape(f"A variational autoencoder, trained on {config['settings'].get('data_dir', 'its data')}.")
    return f"{source}{line and f'<br>{escape(line)}'}{warnings}"


def _numbers(history: Metrics, settings: Mapping[str, Any]) -> Iterator[str]:
    """The final numbers, in large type."""
    last, done = history[-1], len(history)
    seconds, speeds = ([value for row in history if _finite(value := row.get(key))]
                       for key in ("seconds", "images_per_second"))
    cells = [("test loss", last.get("test_loss"), ""), ("reconstruction", last.get("test_nll"), ""),
             ("KL", last.get("test_kl"), ""), ("active units", last.get("active_units"), settings.get("latent")),
             ("epochs", done, settings.get("epochs") if settings.get("epochs") != done else ""),
             ("seconds", sum(seconds) if seconds else None, ""),
             ("images/s", round(median(speeds)) if speeds else None, "")]
    for name, value, of in cells:
        yield (f"<div><dt>{name}</dt><dd>{_number(value)}"
               f"{f' <small>of {_number(of)}</small>' if of else ''}</dd></div>")


def _meaning(settings: Mapping[str, Any]) -> str:
    """An explanation of the loss."""
    bound = "evidence lower bound, with sampled z"
    if settings.get("objective") == "iwae":
        bound = f"importance-weighted bound, K = {_number(settings.get('k'))}"
    meaning = f"Nats per test image. The loss is minus the {bound}."
    if settings.get("likelihood") == "bernoulli" and settings.get("binarize") == "none":
        meaning += " With grey pixels as Bernoulli targets it is a cross-entropy, not a likelihood of the data."
    return meaning


def _epochs(history: Metrics) -> Iterator[str]:
    yield "<tr>" + "".join(f'<th scope="col">{heading}</th>' for heading in COLUMNS.values()) + "</tr>"
    for row in history:
        yield "<tr>" + "".join(f"<td>{_number(row.get(key))}</td>" for key in COLUMNS) + "</tr>"


def _table(values: Mapping[str, Any]) -> str:
    return "\n".join(f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(_plain(value))}</td></tr>'
                     for name, value in values.items())


def _number(value: object) -> str:
    """A metric as HTML: integers and large numbers without decimals, others with two."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.2f}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else escape(str(value))


def _plain(value: object) -> str:
    """A setting as text."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _varies(history: Metrics, key: str) -> bool:
    return len({str(row.get(key)) for row in history}) > 1


# ---- Pictures and curves

def _pictures(folder: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """Each picture that exists, with what to look for."""
    for name, (title, alt, look_for) in PICTURES.items():
        look_for = CONDITIONAL.get(name, look_for) if settings.get("conditional") else look_for
        path = folder / f"{name}.png"
        if path.exists():
            with open_regular(path) as file:
                data = base64.b64encode(file.read()).decode()
            yield (f'<figure id="{name}"><h2>{title}</h2><img alt="{alt}" src="data:image/png;base64,{data}">'
                   f"<figcaption>{look_for}</figcaption></figure>")


WIDTH, HEIGHT = 360, 220      # of a panel of curves, in CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 350, 10, 190      # edges of the plot area in a panel


def _curve(title: str, history: Metrics, keys: Sequence[str]) -> str:
    """A panel with each of the metrics `keys` against the epoch; "" if none of their values is finite."""
    lines = {key: [(i + 1, value) for i, row in enumerate(history) if _finite(value := row.get(key))] for key in keys}
    values = [value for line in lines.values() for _, value in line]
    if not values:
        return ""
    ticks = _ticks(min(values), max(values))
    low, high, end = min(*values, ticks[0]), max(*values, ticks[-1]), max(2, len(history))

    def place(epoch: float, value: float) -> tuple[float, float]:
        return (round(LEFT + (epoch - 1) / (end - 1) * (RIGHT - LEFT), 1),
                round(BOTTOM + (value - low) / (high - low) * (TOP - BOTTOM), 1))

    parts = [f'<text x="{LEFT}" y="{HEIGHT - 8}">epoch 1</text>',
             f'<text x="{RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{len(history)}</text>' * (len(history) > 1)]
    for value in ticks:
        y = place(1, value)[1]
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
                     f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for key, line in lines.items():
        kind = "train" if key.startswith("train") else "test"
        points = [place(*point) for point in line]
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>')
        parts += [f'<circle class="{kind}" cx="{x}" cy="{y}" r="3.5"/>' for x, y in points * (len(points) < 20)]
    return (f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{title}, against the epoch">{"".join(parts)}</svg></figure>')


def _ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers around low..high: multiples of 1, 2 or 5 times a power of ten."""
    reach = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(reach / 4))
    step = next(m * power for m in (1, 2, 5, 10) if reach / (m * power) <= 4)
    first = math.floor(low / step)
    return [i * step for i in range(first, max(first + 1, math.ceil(high / step)) + 1)]
