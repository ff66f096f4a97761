"""The entry point of `npvae` and `python -m npvae`; see `cli/program.py`.  Not part of the lesson."""
import sys

from .system import interrupt

interrupt.start()

from .cli import program  # noqa: E402
from .cli.command_line import exit_code  # noqa: E402


def main() -> int:
    """Run the program; its exit code."""
    return exit_code(program.main)


if __name__ == "__main__":
    sys.exit(main())
