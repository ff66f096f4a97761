"""Starts the process that runs a student's code, and ends it where it does not end by itself."""
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .chapters import EXERCISES, HERE, Exercise

LIMIT = 10.0      # seconds for a part; they take some hundredths
EPOCH = 600.0      # for an epoch of training


@dataclass(frozen=True)
class Verdict:
    """right, WRONG, blank, ERROR (it raises, or does not end), later (not checked yet)."""

    part: str
    verdict: str
    says: str


def _later(exercise: Exercise) -> list[Verdict]:
    return [Verdict(name, "later", "checked when the parts above are right") for name in exercise.slow]


def grade_all(folder: Path, seed: int) -> dict[str, list[Verdict]]:
    """The verdicts on all parts of all exercises but the slow ones, in one process."""
    parts = [(exercise, part.name) for exercise in EXERCISES.values() for part in exercise.parts
             if part.name not in exercise.slow]
    found, _ = _run([f"{exercise.key}.{name}" for exercise, name in parts], folder, seed, lambda line: None)
    verdicts: dict[str, list[Verdict]] = {key: [] for key in EXERCISES}
    for (exercise, _), verdict in zip(parts, found):
        verdicts[exercise.key].append(verdict)
    return {key: found + _later(EXERCISES[key]) for key, found in verdicts.items()}


def grade(exercise: Exercise, folder: Path, seed: int, say: Callable[[str], None] = lambda line: None
          ) -> tuple[list[Verdict], int, list[str]]:
    """The verdict on each part; how many lines the code printed; which parts of earlier exercises are not right.

    Slow parts are run when all others are right.
    """
    names = [part.name for part in exercise.parts]
    quick, printed = _run([f"{exercise.key}.{name}" for name in names if name not in exercise.slow], folder, seed, say)
    late = [f"{exercise.key}.{name}" for name in exercise.slow]
    if late and all(one.verdict == "right" for one in quick):
        found, more = _run(late, folder, seed, say)
        quick, printed = quick + found, printed + more
    else:
        quick += _later(exercise)
    earlier: list[str] = []
    if exercise.needs and any(one.verdict in ("WRONG", "ERROR") for one in quick):
        found, _ = _run(list(exercise.needs), folder, seed, say)
        earlier = [f"{one.part} in {EXERCISES[item.split('.')[0]].file}" for item, one in zip(exercise.needs, found)
                   if one.verdict != "right"]
    return quick, printed, earlier


def _run(items: list[str], folder: Path, seed: int, say: Callable[[str], None]) -> tuple[list[Verdict], int]:
    """The verdicts on these parts.  After a part that does not end, or ends the process, another process goes on."""
    verdicts: dict[str, Verdict] = {}
    printed = 0
    while len(verdicts) < len(items):
        rest = [item for item in items if item not in verdicts]
        events, how = _watch(rest, folder, seed, say)
        for event in events:
            if "item" in event:
                name = str(event["item"]).partition(".")[2]
                verdicts[str(event["item"])] = Verdict(name, str(event["verdict"]), str(event["says"]))
            printed += int(str(event.get("printed", 0)))
        if how:
            began = [str(event["begins"]) for event in events if "begins" in event]
            if not began:      # not the student's doing
                raise RuntimeError(f"the checks do not start: {how}")
            key = began[-1].partition(".")[0]
            while_read = "begins" in events[-1]      # then no part of this file can be checked
            for item in rest if while_read else began[-1:]:
                if item.startswith(f"{key}.") and item not in verdicts:
                    verdicts[item] = Verdict(item.partition(".")[2], "ERROR",
                                             f"{f'reading {EXERCISES[key].file}: ' * while_read}{how}")
    return [verdicts[item] for item in items], printed


def _watch(items: list[str], folder: Path, seed: int, say: Callable[[str], None]
           ) -> tuple[list[dict[str, object]], str]:
    """What the process reports; and "", or how it ended before its time."""
    # One thread for matrix products: more gain little here, and on a busy machine they wait for each other.
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    trains = any(item.partition(".")[2] in EXERCISES[item.partition(".")[0]].slow for item in items)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "events"
        path.touch()
        process = subprocess.Popen(
            [sys.executable, "-m", "grading.child", str(folder.resolve()), str(seed), str(path), *items], cwd=HERE,
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        events: list[dict[str, object]] = []
        try:
            last, limit = time.monotonic(), 60.0      # NumPy is loaded first; a cold disk may take its time
            while True:
                ended = process.poll() is not None
                lines = path.read_text(encoding="utf-8").split("\n")[:-1]
                for line in lines[len(events):]:
                    events.append(json.loads(line))
                    last, limit = time.monotonic(), EPOCH if trains else LIMIT
                    if "line" in events[-1]:
                        say(str(events[-1]["line"]))
                if ended:
                    break
                if time.monotonic() - last > limit:
                    return events, f"not done after {limit:.0f} seconds: a loop without an end?"
                time.sleep(0.01)
        finally:
            process.kill()
            error = process.communicate()[1].decode(errors="replace").strip().splitlines()
    if events and "printed" in events[-1]:
        return events, ""
    return events, f"it ends the whole process, with exit code {process.returncode}{error and ': ' + error[-1] or ''}"
