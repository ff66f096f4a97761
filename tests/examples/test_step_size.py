"""Numerical derivatives are as good as theory says, and no better."""
from pathlib import Path

import numpy as np

from refusals import assert_refused
from scripts import run_script

SCRIPT = Path(__file__).parents[2] / "examples" / "step_size.py"


def test_each_method_is_as_good_as_theory_says(tmp_path):
    done = run_script(SCRIPT, "--out", tmp_path / "step_size.png")
    assert done.returncode == 0 and (tmp_path / "step_size.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in done.stdout.splitlines() if "best error" in line]
    best = {row[0]: (float(row[3]), float(row[-1])) for row in rows}
    eps = np.finfo(float).eps
    assert eps ** 0.5 / 30 < best["forward"][0] < eps ** 0.5 * 30 and 1e-10 < best["forward"][1] < 1e-6
    assert eps ** (2 / 3) / 30 < best["central"][0] < eps ** (2 / 3) * 30 and 1e-7 < best["central"][1] < 1e-4
    assert best["complex"][0] < 1e-14 and best["complex"][1] < 1e-8


def test_a_missing_folder_is_one_line(tmp_path):
    done = run_script(SCRIPT, "--out", tmp_path / "none" / "x.png")
    assert_refused((done.returncode, done.stdout, done.stderr), "there is no folder", SCRIPT.name)
