"""Runs checks of a student's folder, in a process of its own: `python -m grading.child FOLDER SEED FILE ITEM...`

An item is an exercise and a part, such as 03.dense.  What happens is written to FILE, a line of JSON at a time, so that
the parent knows where a process stands that it has to end.
"""
import importlib
import io
import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import TextIO

import numpy as np

from .answers import Student, Wrong
from .chapters import EXERCISES, Exercise


class Counter(io.TextIOBase):
    """Takes the place of standard output, and counts its lines."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        return len(text)


def told(error: BaseException, folder: Path, own: str) -> tuple[str, str]:
    """(verdict, what it says) for what a student's code raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)
              if Path(frame.filename).resolve().parent == folder]
    if isinstance(error, Wrong):
        return "WRONG", str(error)
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else own
    if isinstance(error, NotImplementedError):
        return "blank", f"in {place}: solve that one first" if frames and Path(frames[-1].filename).name != own else ""
    if isinstance(error, SyntaxError):
        return "ERROR", f"Python cannot read {Path(error.filename or own).name}, line {error.lineno}: {error.msg}"
    message = " ".join(str(error).split())[:200]
    return "ERROR", f"raises {type(error).__name__}{message and ': ' + message} ({place})"


def read(exercise: Exercise, folder: Path, seed: int) -> Student:
    """The student's file, with the student's own numbers in it."""
    module: ModuleType = importlib.import_module(Path(exercise.file).stem)
    numbers = exercise.numbers_of(seed)
    for name, value in numbers.items():
        if getattr(module, name, None) != value:
            raise Wrong(f"{name} is {getattr(module, name, 'missing')}, and your number is {value}: put it back")
    return Student(module, numbers)


def run(folder: Path, seed: int, items: list[str], out: TextIO) -> None:
    started_by = os.getppid()

    def say(**event: object) -> None:
        if os.getppid() != started_by:      # nobody listens any more
            os._exit(1)
        out.write(json.dumps(event) + "\n")
        out.flush()

    counter = Counter()
    sys.stdout = sys.stderr = counter
    for item in items:
        key, _, name = item.partition(".")
        exercise = EXERCISES[key]
        say(begins=item)
        verdict, says = "right", ""
        try:
            student = read(exercise, folder, seed)
            say(read=exercise.key)
            rng = np.random.default_rng([seed, len(name)])
            check = getattr(exercise.module, name)
            if name in exercise.slow:
                says = f"{check(student, rng, lambda line: say(line=line)):.1f} nats"
            else:
                for _ in range(2):      # other numbers: no slip gives the right ones twice by chance
                    check(student, rng)
        except BaseException as error:      # a student's code may raise anything, SystemExit too
            verdict, says = told(error, folder, exercise.file)
        say(item=item, verdict=verdict, says=says)
    say(printed=counter.lines)


def main() -> None:
    folder, seed, path, *items = sys.argv[1:]
    here = Path(folder).resolve()
    sys.path.insert(0, str(here))      # after everything of ours is imported: no file of a student stands in its way
    os.chdir(here)
    warnings.simplefilter("ignore")
    with open(path, "a", encoding="utf-8") as out, np.errstate(all="ignore"):
        run(here, int(seed), items, out)


if __name__ == "__main__":
    main()
