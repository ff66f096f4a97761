"""What all programs share: checks of flags, errors in one line, exit codes, progress bars.  Not part of the lesson.

Exit codes:

    0      done
    1      training ended in NaN or infinity, or gradients are wrong
    2      bad input, or results cannot be written; one line on stderr says why
    130    stopped by Ctrl-C
    141    the reader of stdout has gone, as in `npvae info RUN | head -1`
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

from .. import validate
from ..system import interrupt, terminal
from ..system.terminal import one_line
from ..validate import NonFiniteError

if TYPE_CHECKING:
    from tqdm import tqdm

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint.npz"


class UsageError(ValueError):
    """Flags or files that a program cannot use.  The message is the line to print."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviated flags, shows defaults in its help, keeps the line breaks of the
    epilog, and raises UsageError instead of ending the process."""

    def __init__(self, prog: str | None, description: str, epilog: str) -> None:
        super().__init__(prog, description=textwrap.fill(description, 88), epilog=epilog, formatter_class=_Help,
                         allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with the default of each flag, unless that is None, False or hidden."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default is None or action.default is False or action.default is argparse.SUPPRESS
        return f"{action.help}{'' if silent else ' (default: %(default)s)'}"


def widths(text: str) -> tuple[int, ...]:
    """A type for argparse: layer widths, "400,200" as (400, 200) and "none" as ()."""
    if text == "none":
        return ()
    try:
        return validate.widths("--hidden", [int(width) for width in text.split(",")])
    except ValueError:
        raise argparse.ArgumentTypeError("must be positive integers such as 400,200, or none, got "
                                         f"{validate.shown(text)}") from None


def number(kind: type[int] | type[float], least: float, strict: bool = False, bits: int = 53
           ) -> Callable[[str], float]:
    """A type for argparse: finite numbers of at least `least`, or of more if `strict`; integers below 2^bits."""
    def convert(text: str) -> float:
        what = "an integer" if kind is int else "a number"
        try:
            value = (validate.integer("it", int(text), int(least)) if kind is int
                     else validate.real("it", float(text), least, strict))
        except ValueError:
            bound = f"{'more than' if strict else 'of at least'} {least:g}"
            raise argparse.ArgumentTypeError(f"must be {what} {bound}, got {validate.shown(text)}") from None
        if kind is int and value >= 2 ** bits:
            raise argparse.ArgumentTypeError(f"must be less than 2^{bits}, got {validate.shown(text)}")
        return value
    return convert


def output(flag: str, path: Path, suffixes: Sequence[str]) -> Path:
    """`path`, if a file can be written there; checked before the results are computed.  Raises UsageError."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{flag} {path}: must end in {' or '.join(suffixes)}")
    if path.name.lower() in (CONFIG, METRICS, CHECKPOINT):
        raise UsageError(f"{flag} {path}: a run keeps a file of its own under this name; choose another")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag} {path}: {path.parent} cannot be written")
    return path


def progress(items: Iterable[Any] | None, unit: str, total: int | None = None) -> "tqdm":
    """A tqdm bar over the items, or, without items, one that its `update` moves.

    It appears on stderr after one second, if that is a terminal.
    """
    from tqdm import tqdm      # imported here so that `npvae --help` is quick
    return tqdm(items, total=total, unit=unit, delay=1, leave=False, disable=None, dynamic_ncols=True,
                file=terminal.for_bars(sys.stderr))


def exit_code(main: Callable[[], int | None]) -> int:
    """Run a program and return its exit code, as listed at the top of this file.

    main : returns an exit code, or None for 0.  Its exceptions become exit codes and one line on stderr
    """
    with interrupt.deferred(), terminal.printing():
        try:
            return main() or 0
        except BrokenPipeError:
            return 141
        except KeyboardInterrupt as stop:
            signal.signal(signal.SIGINT, signal.SIG_IGN)      # a second Ctrl-C would interrupt the message
            _complain(f"\n{_program()}: {stop}" if str(stop) else f"\n{_program()}: stopped")
            return 130
        except NonFiniteError as error:
            _complain(f"{_program()}: {error}")
            return 1
        except OSError as error:
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            _complain(f"{_program()}: {one_line(text)}")
            return 2
        except (ValueError, TypeError, MemoryError) as error:
            text = str(error)      # a single line stays as it is: it may quote a command with several spaces in a row
            _complain(f"{_program()}: {one_line(text) if len(text.splitlines()) > 1 else text.strip()}")
            return 2


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def _program() -> str:
    """The name of the program.  For `python -m npvae`, sys.argv[0] is the path of __main__.py."""
    path = Path(sys.argv[0])
    return "npvae" if path.name == "__main__.py" else path.name


def shortest(program: str) -> str:
    """The name of a program without its folder, if the shell finds the same program by that; otherwise its path."""
    name = Path(program).name
    return name if shutil.which(name) == program else program
