"""The picture of numerical errors: each method is best where theory says, and as good."""
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[2] / "examples" / "step_size.py"


def test_each_method_is_as_good_as_theory_says(tmp_path):
    picture = tmp_path / "step_size.png"
    result = subprocess.run([sys.executable, SCRIPT, "--out", picture], capture_output=True, text=True, check=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in result.stdout.splitlines() if "best error" in line]
    best = {row[0]: (float(row[3]), float(row[-1])) for row in rows}
    eps = np.finfo(float).eps
    assert eps ** 0.5 / 30 < best["forward"][0] < eps ** 0.5 * 30 and 1e-10 < best["forward"][1] < 1e-6
    assert eps ** (2 / 3) / 30 < best["central"][0] < eps ** (2 / 3) * 30 and 1e-7 < best["central"][1] < 1e-4
    assert best["complex"][0] < 1e-14 and best["complex"][1] < 1e-8


def test_a_missing_folder_is_one_line(tmp_path):
    result = subprocess.run([sys.executable, SCRIPT, "--out", tmp_path / "none" / "x.png"], capture_output=True,
                            text=True)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "there is no folder" in result.stderr
