"""The book: chapters, exercises and source, brought together.

    python examples/book.py code           the code beside the equations, taken from the source into the chapters
    python examples/book.py code --check   says which of it is stale, and changes nothing
    python examples/book.py site FOLDER    a web site, with all formulas drawn; it needs no server and no network
    python examples/book.py notebooks FOLDER   chapters and exercises as Jupyter notebooks; --run runs them, too

Read `press/__init__.py` for how.
"""
import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

from npvae import cli
from npvae.system.files import write_atomically
from press import check, source

CHAPTERS = "examples/**/*.md"


def code(args: argparse.Namespace) -> int:
    """Fill the blocks of code in the chapters from the source, and link their equations to it."""
    stale = {}
    for path in sorted(source.ROOT.glob(CHAPTERS)):
        name, text = path.relative_to(source.ROOT).as_posix(), path.read_text(encoding="utf-8")
        now = source.filled(text, path)
        if now != text:
            stale[path] = now
            print(f"{name}: {'stale' if args.check else 'filled'}")
    if args.check:
        return int(bool(stale))
    for path, now in stale.items():
        write_atomically(path, now.encode())
    return 0


def site(args: argparse.Namespace) -> int:
    """A static web site of chapters, exercises, reference and source."""
    from press.site import build
    count = len(list(build(new_folder(args), args.repository or "")))
    complaints = check.complaints(args.folder)
    print("\n".join([*complaints, f"{args.folder}/index.html: {count} files"]))
    return int(bool(complaints))


def notebooks(args: argparse.Namespace) -> int:
    """The chapters and exercises as Jupyter notebooks."""
    from press.notebooks import exercise, notebook, run
    examples, folder, wrong = source.ROOT / "examples", new_folder(args), 0
    for path in [*sorted(examples.glob("derivations/*-*.md")), *sorted(examples.glob("exercises/ex*.py"))]:
        made = (notebook if path.suffix == ".md" else exercise)(path, args.repository or "")
        with tempfile.TemporaryDirectory() as place:      # in which exercises write files
            for complaint in run(made, Path(place)) if args.run_them else ():
                print(f"{path.stem}: {complaint}")
                wrong += 1
        write_atomically(folder / f"{path.stem}.ipynb", json.dumps(made, indent=1).encode())
        print(folder / f"{path.stem}.ipynb")
    return int(wrong > 0)


def new_folder(args: argparse.Namespace) -> Path:
    """args.folder.  Raises UsageError if something else may be in it."""
    folder: Path = args.folder
    if folder.exists() and not folder.is_dir():
        raise cli.UsageError(f"{folder}: is a file; the name of a folder is needed")
    if folder.is_dir() and any(folder.iterdir()) and not args.overwrite:
        raise cli.UsageError(f"{folder}: is not empty; choose a new folder, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def repository(text: str) -> str:
    """For argparse: OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"must be OWNER/NAME, got {text!r}")
    return text


def arguments() -> argparse.Namespace:
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="code|site|notebooks")
    for run in (code, site, notebooks):
        what = (run.__doc__ or "").split("\n")[0]
        command = commands.add_parser(run.__name__, prog=f"{parser.prog} {run.__name__}", help=what, description=what,
                                      epilog="")
        command.set_defaults(run=run)
        if run is code:
            command.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a block is stale")
        else:
            command.add_argument("folder", type=Path, metavar="FOLDER", help="where it is written")
            command.add_argument("--overwrite", action="store_true", help="also if files are there already")
            command.add_argument("--repository", type=repository, default=None, metavar="OWNER/NAME",
                                 help="on GitHub, where its branch `notebooks` holds them: for badges that open Colab")
        if run is notebooks:
            command.add_argument("--run", action="store_true", dest="run_them",
                                 help="run them; exit code 1 if one prints what its chapter does not say")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
