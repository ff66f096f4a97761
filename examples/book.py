"""The book: chapters, exercises and source, brought together.

    python examples/book.py code           the code beside the equations, taken from the source into the chapters
    python examples/book.py code --check   says which of it is stale, and changes nothing

Read `press/__init__.py` for how.
"""
import argparse
import sys

from npvae import cli
from npvae.system.files import write_atomically
from press import source

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


def arguments() -> argparse.Namespace:
    parser = cli.Parser(None, (__doc__ or "").splitlines()[0], "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="code")
    for run in (code,):
        what = (run.__doc__ or "").split("\n")[0]
        command = commands.add_parser(run.__name__, prog=f"{parser.prog} {run.__name__}", help=what, description=what,
                                      epilog="")
        command.set_defaults(run=run)
        if run is code:
            command.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a block is stale")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
