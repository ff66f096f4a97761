"""The program `npvae`.  Beside the lesson.

    command_line   what every program does alike: flags refused in one line, exit codes, progress
    options        the flags of a run
    runs           a run and its folder
    commands       what each command does
    program        the commands and their flags
"""
from .command_line import (
    CHECKPOINT, CONFIG, METRICS, Parser, UsageError, exit_code, number, output, progress, shortest, widths)

__all__ = [
    "CHECKPOINT", "CONFIG", "METRICS", "Parser", "UsageError", "exit_code", "number", "output", "progress",
    "shortest", "widths"]
