"""Medians, ratios and tables from timings, and whether losses agree.  Only arithmetic and text."""
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BASE = "npvae"      # the denominator of all ratios
IDLE_LIMIT = 0.02      # of a processor, while others work


def ratio_of_medians(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of their seconds over that of ours."""
    return statistics.median(theirs) / statistics.median(ours)


def median_of_ratios(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of the ratios within each round, so that what slows down a whole round cancels."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm: for ratios, the mean of the inverses is the inverse of the mean."""
    return math.exp(statistics.fmean(map(math.log, values)))


def loss_tolerance(images: float) -> float:
    """The relative distance from the median that is allowed for losses after this many images.  They are means over an
    epoch, so the noise of z contributes little.  But deep networks stay near 200 nats until they use z, and when that
    happens depends on the noise: after 72,000 images of 784-200-200-50 with batch 100, five seeds of one library are
    between 168 and 184 nats, and after 120,000 with batch 20 the loss still varies by 1.6 %."""
    return 0.1 if images < 100_000 else 0.03 if images < 600_000 else 0.015


def disagreements(losses: Mapping[str, float], tolerance: float) -> list[str]:
    """The contenders whose loss is not finite, or further from the median than the relative tolerance."""
    finite = [loss for loss in losses.values() if math.isfinite(loss)]
    middle = statistics.median(finite) if finite else math.nan
    return [f"{name} has {loss:.2f}, the median is {middle:.2f}" for name, loss in losses.items()
            if not abs(loss - middle) <= tolerance * abs(middle)]


def different_means(values: Mapping[str, Sequence[float]], slack: float = 0.02) -> list[str]:
    """The contenders whose values per image differ from npvae's: the mean difference exceeds five standard errors, and
    `slack` nats, which rounding in float32 and the bias of few samples may cause."""
    found = []
    for name, theirs in values.items():
        difference = np.subtract(theirs, values[BASE])
        mean, error = difference.mean(), difference.std() / math.sqrt(max(1, len(difference) - 1))
        if not abs(mean) <= max(5 * error, slack):
            found.append(f"{name} is {mean:+.3f} nats off, five standard errors are {5 * error:.3f}")
    return found


def summarize(answers: Mapping[str, Sequence[Mapping[str, Any]]], steps: float) -> dict[str, dict[str, float]]:
    """For each contender: median, least and most seconds, us per step, both ratios, cores in use, the last loss."""
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
    """Geometric means over the works, for contenders that did them all."""
    names = {name for rows in summaries.values() for name in rows}
    return {name: {kind: geometric_mean([rows[name][kind] for rows in summaries.values()])
                   for kind in ("ratio_of_medians", "median_of_ratios")}
            for name in sorted(names)
            if all("ratio_of_medians" in rows.get(name, ()) for rows in summaries.values())}


def plain(value: Any) -> Any:
    """The value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A text table: the first column aligned left, the others right.  None is shown as a dash."""
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
    """The table of one work."""
    columns = ("median", "least", "most", "us_per_step", "ratio_of_medians", "median_of_ratios", "cores", "loss")
    head = ("contender", "seconds", "least", "most", "us/step", "x npvae", "by round", "cores", "loss")
    lines = [table(head, [(name, *(row.get(column) for column in columns)) for name, row in rows.items()])]
    return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in missing.items())])
