"""`python -m npvae` and the command `npvae`.  Beside the lesson; `program.py` says what they do."""
import sys

from . import program
from .cli import exit_code


def main() -> int:
    """The exit code of the command line."""
    return exit_code(program.main)


if __name__ == "__main__":
    sys.exit(main())
