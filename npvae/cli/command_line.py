"""What every program does alike: flags refused in one line, exit codes, progress.  Beside the lesson; `options.py` has
the flags of a run.

Exit codes: 0 done, 1 training failed (NaN) or gradients are wrong, 2 bad input, or results that cannot be written
(one line on stderr says what), 130 ended by Ctrl-C, 141 nobody read on (`npvae info RUN | head -1`).
"""
import argparse
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import data, validate
from ..checkpoint import CheckpointError
from ..system import interrupt, terminal
from ..validate import NonFiniteError

if TYPE_CHECKING:
    from tqdm import tqdm

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint.npz"


class UsageError(ValueError):
    """Flags that do not fit; the message is the one line to print."""


class Parser(argparse.ArgumentParser):
    """Flags in full, defaults in the help, the epilog as it is written, and a UsageError for what does not fit."""

    def __init__(self, prog: str | None, description: str, epilog: str) -> None:
        super().__init__(prog, description=textwrap.fill(description, 88), epilog=epilog, formatter_class=_Help,
                         allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Flags with their default, where it says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default is None or action.default is False or action.default is argparse.SUPPRESS
        return f"{action.help}{'' if silent else ' (default: %(default)s)'}"


def widths(text: str) -> tuple[int, ...]:
    """For argparse: 400,200 as (400, 200), none as ()."""
    if text == "none":
        return ()
    try:
        return validate.widths("--hidden", [int(width) for width in text.split(",")])
    except ValueError:
        raise argparse.ArgumentTypeError("must be positive integers such as 400,200, or none, got "
                                         f"{validate.shown(text)}") from None


def number(kind: type, least: float, strict: bool = False, bits: int = 53) -> Callable[[str], Any]:
    """A converter of flags that refuses what `validate` refuses, in argparse's way, and integers of more `bits`."""
    def convert(text: str) -> Any:
        what = "an integer" if kind is int else "a number"
        try:
            value = kind(text)
            value = (validate.integer("it", value, int(least)) if kind is int
                     else validate.real("it", value, least, strict))
        except ValueError:
            bound = f"{'more than' if strict else 'of at least'} {least:g}"
            raise argparse.ArgumentTypeError(f"must be {what} {bound}, got {validate.shown(text)}") from None
        if kind is int and value >= 2 ** bits:
            raise argparse.ArgumentTypeError(f"must be less than 2^{bits}, got {validate.shown(text)}")
        return value
    return convert


def output(flag: str, path: Path, suffixes: Sequence[str]) -> Path:
    """`path`, if a file can be written there.  Raises UsageError, so that nothing is computed in vain."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{flag} {path}: must end in {' or '.join(suffixes)}")
    if path.name.lower() in (CONFIG, METRICS, CHECKPOINT):
        raise UsageError(f"{flag} {path}: is the name of a file that a run needs; choose another")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; the name of a file is needed")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: {path.parent} cannot be written")
    return path


def progress(items: Iterable[Any] | None, unit: str, total: int | None = None) -> "tqdm":
    """The items, or what `update` counts, with a bar on stderr if that is a terminal and it lasts longer than a second.
    """
    from tqdm import tqdm      # no small part of the time that `npvae --help` would take
    return tqdm(items, total=total, unit=unit, delay=1, leave=False, disable=None, dynamic_ncols=True,
                file=terminal.for_bars(sys.stderr))


def exit_code(main: Callable[[], int | None]) -> int:
    """Run a program; the exit code it returns, or 0.  Bad input becomes one line on stderr and 2, NaN 1, Ctrl-C 130, a
    pipe that nobody reads 141 without a word."""
    with interrupt.deferred(), terminal.printing():
        try:
            return main() or 0
        except BrokenPipeError:
            return 141
        except KeyboardInterrupt as stop:
            signal.signal(signal.SIGINT, signal.SIG_IGN)      # one is enough
            _complain(f"\n{_program()}: {stop}" if str(stop) else f"\n{_program()}: stopped")
            return 130
        except NonFiniteError as error:
            _complain(f"{_program()}: {error}")
            return 1
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else error
            _complain(f"{_program()}: {' '.join(str(what).split())}")
            return 2
        except (UsageError, CheckpointError, data.DataError, ValueError, TypeError, MemoryError) as error:
            text = str(error)      # in which a command may stand whose words hold many spaces
            _complain(f"{_program()}: {' '.join(text.split()) if len(text.splitlines()) > 1 else text.strip()}")
            return 2


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _program() -> str:
    """The name of the program: of `python -m npvae`, sys.argv knows only the file."""
    path = Path(sys.argv[0])
    return "npvae" if path.name == "__main__.py" else path.name


def shortest(program: str) -> str:
    """The name alone, where the shell finds the same program by it."""
    name = Path(program).name
    return name if shutil.which(name) == program else program
