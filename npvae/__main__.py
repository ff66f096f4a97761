"""`python -m npvae` and the command `npvae`.  Beside the lesson; `program.py` says what they do."""
import sys

from . import interrupt

interrupt.start()

from . import program  # noqa: E402
from .cli import exit_code  # noqa: E402


def main() -> int:
    """The exit code of the command line."""
    return exit_code(program.main)


if __name__ == "__main__":
    sys.exit(main())
