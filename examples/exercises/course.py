"""The exercises of part one: start, check, see how far you are; and a debugging lab.

    python course.py start FOLDER [--seed N]    copy the files with blanks to FOLDER; N gives you numbers of your own
    python course.py check 03 [FOLDER]          check an exercise: 01 to 09, or train, which takes some minutes
    python course.py progress [FOLDER]          a table of all exercises
    python course.py lab [--seed N] [--cases K] find out which check catches a bug that a falling loss hides

FOLDER is the current one if you leave it out.  Exit code: 0 all right, 1 not yet, 2 the command is wrong.
"""
import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

from grading.chapters import EXERCISES, Exercise
from grading.parent import Verdict, grade, grade_all

DIFFICULTY = {1: "easy", 2: "medium", 3: "hard"}
RECORD = "course.json"


class Refused(Exception):
    """A command that cannot be carried out, and why."""


def record_of(folder: Path) -> dict[str, object]:
    """What `start` and `check train` wrote down."""
    path = folder / RECORD
    if not path.exists():
        raise Refused(f"{folder} was not made by `course.py start`: it holds no {RECORD}; name the folder that was")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(record["seed"], int) and record["seed"] >= 0):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(f'{path} cannot be read; it should hold {{"seed": N}}, N 0 or more') from None
    found: dict[str, object] = record
    return found


def seed_of(folder: Path) -> int:
    return int(str(record_of(folder)["seed"]))


def files_of(folder: Path) -> str:
    """Changes when a file of the student does."""
    paths = [folder / exercise.file for exercise in EXERCISES.values()]
    texts = [path.read_bytes() for path in paths if path.exists()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


# --- start ---

def start(folder: Path, seed: int | None) -> None:
    """Copy what is not there yet.  A file that is there stays as it is, whatever stands in it."""
    if folder.exists() and not folder.is_dir():
        raise Refused(f"{folder} is a file; name a folder")
    if (folder / RECORD).exists():
        before = seed_of(folder)
        if seed not in (None, before):
            raise Refused(f"{folder} was started with --seed {before}; another seed needs another folder")
        seed = before
    seed = seed or 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [exercise.file for exercise in EXERCISES.values() if (folder / exercise.file).exists()]
        if kept and not (folder / RECORD).exists():
            raise Refused(f"{folder} holds {kept[0]} and no {RECORD}: whose is it?  Name another folder")
        for exercise in EXERCISES.values():
            if exercise.file not in kept:
                with open(folder / exercise.file, "x", encoding="utf-8") as file:
                    file.write(exercise.text_for(seed))
        if not (folder / RECORD).exists():
            (folder / RECORD).write_text(json.dumps({"seed": seed}) + "\n", encoding="utf-8")
    except OSError as error:
        raise Refused(f"cannot write to {folder}: {error.strerror}") from None
    print(f"{len(EXERCISES) - len(kept)} files written to {folder}, {len(kept)} kept as they are; seed {seed}")
    print(f"Begin with {EXERCISES['01'].file}, and ask:  python {sys.argv[0]} check 01 {folder}")


# --- check ---

def check(exercise: Exercise, folder: Path) -> bool:
    """Print the verdict on each part."""
    record, begin = record_of(folder), time.perf_counter()
    chapter = exercise.chapter()
    print(f"{exercise.key}  {exercise.title}" + (f"      chapter: examples/derivations/{chapter}" if chapter else ""))
    if not (folder / exercise.file).exists():
        raise Refused(f"{folder} holds no {exercise.file}; `course.py start {folder}` writes it anew")
    if exercise.slow:
        print("Training takes some minutes: ten epochs on all of MNIST, with your code.")
    verdicts, printed, earlier = grade(exercise, folder, seed_of(folder), lambda line: print(f"  {line}", flush=True))
    same = {(one.verdict, one.says) for one in verdicts if one.verdict != "later"}
    if len(same) == 1 and "" not in (says := same.pop())[1:] and says[0] in ("WRONG", "ERROR"):
        print(f"  {says[0]:6s} {exercise.file:24s} {says[1]}")      # the file as a whole
    else:
        for verdict in verdicts:
            show(exercise, verdict)
    if earlier:
        print(f"  It uses {', '.join(earlier)}: not right yet, put that right first.")
    if printed:
        print(f"  (Your code prints {printed} lines; they are not shown here.)")
    right = sum(one.verdict == "right" for one in verdicts)
    print(f"{right} of {len(verdicts)} right   {time.perf_counter() - begin:.1f} s")
    if exercise.slow and right == len(verdicts):
        from npvae.system.files import write_atomically      # it takes longer to load than a check
        record["trained"] = {"files": files_of(folder), "says": verdicts[-1].says}
        write_atomically(folder / RECORD, (json.dumps(record) + "\n").encode())
    return right == len(verdicts)


def show(exercise: Exercise, verdict: Verdict) -> None:
    print(f"  {verdict.verdict:6s} {verdict.part:24s} {exercise.equations(verdict.part):20s} {verdict.says}".rstrip())
    if verdict.verdict in ("WRONG", "ERROR"):
        print(f"         hint: {next(part.hint for part in exercise.parts if part.name == verdict.part)}")


# --- progress ---

def progress(folder: Path) -> bool:
    """Print the table; all exercises are checked anew, but for the training, of which the record is shown."""
    record, seed = record_of(folder), seed_of(folder)
    print(f"    {'exercise':38s} {'right':>7s} {'minutes':>8s}  next")
    done, minutes, trained = True, 0, record.get("trained")
    for key, verdicts in grade_all(folder, seed).items():
        exercise = EXERCISES[key]
        if exercise.slow and isinstance(trained, dict) and trained.get("files") == files_of(folder):
            verdicts[-1] = Verdict(verdicts[-1].part, "right", str(trained["says"]))
        open_ones = [one for one in verdicts if one.verdict != "right"]
        left = sum(part.minutes for part in exercise.parts if part.name in {one.part for one in open_ones})
        following = f"{open_ones[0].part}: {open_ones[0].verdict}" if open_ones else verdicts[-1].says
        print(f"{key:>5s}  {exercise.title:36s} {len(verdicts) - len(open_ones):2d} of {len(verdicts)} "
              f"{left or '-':>8}  {following}".rstrip())
        done, minutes = done and not open_ones, minutes + left
    print(f"About {minutes} minutes are left." if minutes else "All exercises are right.")
    return done


# --- the command line ---

def seed_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, got {text!r}")
    return int(text)


def exercise_of(text: str) -> Exercise:
    key = text.zfill(2) if text.isascii() and text.isdigit() else text
    if key not in EXERCISES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(EXERCISES)}, got {text!r}")
    return EXERCISES[key]


def number_of_cases(text: str) -> int:
    if seed_number(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, allow_abbrev=False, description=__doc__,
                                          formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    settings = {"usage": argparse.SUPPRESS, "allow_abbrev": False}
    one = commands.add_parser("start", help="copy the files with blanks", **settings)      # type: ignore[arg-type]
    one.add_argument("folder", type=Path, metavar="FOLDER")
    one.add_argument("--seed", type=seed_number, metavar="N", help="numbers of your own (default 0)")
    one = commands.add_parser("check", help="check an exercise", **settings)      # type: ignore[arg-type]
    one.add_argument("exercise", type=exercise_of, metavar="EXERCISE", help="01 to 09, or train")
    one.add_argument("folder", type=Path, nargs="?", default=Path("."), metavar="FOLDER")
    one = commands.add_parser("progress", help="a table of all exercises", **settings)      # type: ignore[arg-type]
    one.add_argument("folder", type=Path, nargs="?", default=Path("."), metavar="FOLDER")
    one = commands.add_parser("lab", help="the debugging lab", **settings)      # type: ignore[arg-type]
    one.add_argument("--seed", type=seed_number, default=0, metavar="N", help="another order of the cases")
    one.add_argument("--cases", type=number_of_cases, default=5, metavar="K", help="how many (default 5)")
    return main_parser


def main() -> int:
    arguments = parser()
    args = arguments.parse_args()
    try:
        if args.command == "start":
            start(args.folder, args.seed)
            return 0
        if args.command == "lab":
            from lab import run      # it loads the model
            return run(args.seed, args.cases)
        return int(not (check(args.exercise, args.folder) if args.command == "check" else progress(args.folder)))
    except Refused as error:
        arguments.error(str(error))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
