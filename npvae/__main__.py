"""`python -m npvae` and the command `npvae`.  Beside the lesson; `cli/program.py` says what they do."""
import sys

from .system import interrupt

interrupt.start()

from .cli import program  # noqa: E402
from .cli.command_line import exit_code  # noqa: E402


def main() -> int:
    """The exit code of the command line."""
    return exit_code(program.main)


if __name__ == "__main__":
    sys.exit(main())
