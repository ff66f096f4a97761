"""Nothing that a file holds harms the program that reads it: a few cases of `hostile.py`, and its campaign."""
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "hostile.py"


def campaign(*flags):
    done = subprocess.run([sys.executable, str(SCRIPT), *map(str, flags)], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_few_hostile_files():
    campaign("--size", 5, "--seed", 7, "--new", 0)


@pytest.mark.slow
def test_hostile_files(pytestconfig):
    size = pytestconfig.getoption("--size") or 200
    campaign("--size", size, "--seed", 0, "--new", 30)
