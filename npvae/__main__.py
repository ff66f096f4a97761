"""The entry point of `npvae` and `python -m npvae`; see `cli/program.py`.  Not part of the lesson."""
import sys

from .system import interrupt

interrupt.start()      # Ctrl-C during the imports below ends the program in one line

from .cli import program  # noqa: E402
from .cli.command_line import exit_code  # noqa: E402


def main() -> int:
    """Run the program and return its exit code."""
    return exit_code(program.main)


if __name__ == "__main__":
    sys.exit(main())
