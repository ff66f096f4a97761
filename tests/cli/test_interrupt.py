"""Ctrl-C that comes at a bad moment: one line and exit code 130, not swallowed, and nothing of Python's own."""
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from npvae.system.interrupt import deferred

ROOT = Path(__file__).parents[2]
BAD_MOMENT = """
import signal, time
swallowed = False
try:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.1)
except BaseException:
    swallowed = True
"""


def test_not_in_the_middle_of_an_import(tmp_path, monkeypatch):
    (tmp_path / "interrupted_import.py").write_text(BAD_MOMENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), deferred():
        module = importlib.import_module("interrupted_import")
        assert not module.swallowed
        time.sleep(60)
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_at_once_elsewhere():
    with pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")


def test_not_where_python_would_ignore_it(capfd):
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), deferred():
        Finalized()
        time.sleep(60)
    assert capfd.readouterr().err == ""


def test_a_signal_that_is_ignored_stays_ignored():
    """As it is for a program that a shell has put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("start, ours", [(["-m", "npvae"], True), (["npvae"], True), (["-mnpvae"], True),
                                         (["other.py"], False), (["-m", "other"], False), (["-mother"], False)])
def test_while_the_program_starts(start, ours, tmp_path):
    """The first thing that it imports takes long: NumPy.  A process of another program is left as it was."""
    (tmp_path / "numpy.py").write_text("import signal, time; signal.raise_signal(signal.SIGINT); time.sleep(60)")
    (tmp_path / "npvae").write_text("import sys\nfrom npvae.__main__ import main\nsys.exit(main())")
    (tmp_path / "other.py").write_text("import npvae")
    done = subprocess.run([sys.executable, *start], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    if ours:
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nnpvae: stopped\n")
    else:
        assert done.returncode in (130, -signal.SIGINT) and "KeyboardInterrupt" in done.stderr
