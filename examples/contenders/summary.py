"""From raw timings to what is said of them: medians, ratios, agreement, tables.  Arithmetic and text only."""
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BASE = "npvae"      # what every ratio is taken to
IDLE_LIMIT = 0.02      # of a processor, while others work


def ratio_of_medians(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as long: median over median."""
    return statistics.median(theirs) / statistics.median(ours)


def median_of_ratios(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The same, each round compared with itself first: what slows a whole round down drops out."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm: the only mean of ratios that does not depend on which way round they are."""
    return math.exp(statistics.fmean(map(math.log, values)))


def loss_tolerance(images: float) -> float:
    """How far losses after so many images may lie from their median.  They are means over an epoch, which leaves little
    of the noise of z.  But the deep networks linger near 200 nats before they use z, and other noise ends it sooner or
    later: after 72,000 images of 784-200-200-50 with batch 100, five seeds of one library lie between 168 and 184, and
    after 120,000 with batch 20 the loss still varies by 1.6 %."""
    return 0.1 if images < 100_000 else 0.03 if images < 600_000 else 0.015


def disagreements(losses: Mapping[str, float], tolerance: float) -> list[str]:
    """Who is further from the median loss than the tolerance (relative), or has none that is finite."""
    finite = [loss for loss in losses.values() if math.isfinite(loss)]
    middle = statistics.median(finite) if finite else math.nan
    return [f"{name} has {loss:.2f}, the median is {middle:.2f}" for name, loss in losses.items()
            if not abs(loss - middle) <= tolerance * abs(middle)]


def different_means(values: Mapping[str, Sequence[float]], slack: float = 0.02) -> list[str]:
    """Whose values per image differ from npvae's by more than chance: the mean difference is beyond five of its own
    standard errors, and beyond `slack` nats (rounding in float32, and the bias of few samples)."""
    found = []
    for name, theirs in values.items():
        difference = np.subtract(theirs, values[BASE])
        mean, error = difference.mean(), difference.std() / math.sqrt(max(1, len(difference) - 1))
        if not abs(mean) <= max(5 * error, slack):
            found.append(f"{name} is {mean:+.3f} nats off, five standard errors are {5 * error:.3f}")
    return found


def summarize(answers: Mapping[str, Sequence[Mapping[str, Any]]], steps: float) -> dict[str, dict[str, float]]:
    """Per contender: median, least and most seconds, us a step, both ratios, cores in use, the last loss."""
    seconds = {name: [turn["seconds"] for turn in turns] for name, turns in answers.items()}
    found = {}
    for name, turns in answers.items():
        mine = seconds[name]
        row = {"median": statistics.median(mine), "least": min(mine), "most": max(mine),
               "us_per_step": statistics.median(mine) / steps * 1e6}
        if turns[-1].get("cpu") is not None:
            row["cores"] = statistics.median(turn["cpu"] / turn["seconds"] for turn in turns)
        if BASE in seconds:
            row["ratio_of_medians"] = ratio_of_medians(mine, seconds[BASE])
            row["median_of_ratios"] = median_of_ratios(mine, seconds[BASE])
        if "loss" in turns[-1]:
            row["loss"] = turns[-1]["loss"]
        found[name] = row
    return found


def over_works(summaries: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Geometric means over the works, of contenders that did them all."""
    names = {name for rows in summaries.values() for name in rows}
    return {name: {kind: geometric_mean([rows[name][kind] for rows in summaries.values()])
                   for kind in ("ratio_of_medians", "median_of_ratios")}
            for name in sorted(names)
            if all("ratio_of_medians" in rows.get(name, ()) for rows in summaries.values())}


def plain(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not know: None stands for them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they need to be: the first to the left, the others to the right.  None is shown as a dash."""
    texts = [list(head), *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in texts]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _shown(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return str(cell)


def epochs_table(rows: Mapping[str, Mapping[str, float]], missing: Mapping[str, str]) -> str:
    """One work."""
    columns = ("median", "least", "most", "us_per_step", "ratio_of_medians", "median_of_ratios", "cores", "loss")
    head = ("contender", "seconds", "least", "most", "us/step", "x npvae", "by round", "cores", "loss")
    lines = [table(head, [(name, *(row.get(column) for column in columns)) for name, row in rows.items()])]
    return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in missing.items())])
