"""A program as `python SCRIPT flags` runs it, but within this process: a new one imports everything anew."""
import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest import mock


def run_script(script, *flags):
    """Its exit code, stdout and stderr."""
    argv, out, error, code = [str(script), *map(str, flags)], io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(error):
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
    return CompletedProcess(argv, code, out.getvalue(), error.getvalue())
