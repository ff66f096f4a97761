"""The program `npvae`.  Not part of the lesson.

    command_line   what all programs share: checks of flags, errors in one line, exit codes, progress bars
    options        the flags of a training run
    runs           a training run and its folder
    commands       what the other commands do with a run
    codes          the commands that take every row of a data set, or a file of codes
    tables         what is different about a run on a table
    compressed     compress and decompress
    program        the table of commands, and their flags
"""
from .command_line import (
    CHECKPOINT, CONFIG, METRICS, Parser, UsageError, exit_code, number, output, progress, shortest, widths)

__all__ = [
    "CHECKPOINT", "CONFIG", "METRICS", "Parser", "UsageError", "exit_code", "number", "output", "progress",
    "shortest", "widths"]
