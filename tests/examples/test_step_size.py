"""Numerical derivatives are as good as theory says, and no better."""
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "step_size.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """The program within this process: exit code, stdout, stderr."""
    def run(*flags):
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, flags)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return (stop.value.code, *capsys.readouterr())
    return run


def test_each_method_is_as_good_as_theory_says(run, tmp_path):
    code, out, _ = run("--out", tmp_path / "step_size.png")
    assert not code and (tmp_path / "step_size.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split() for line in out.splitlines() if "best error" in line]
    best = {row[0]: (float(row[3]), float(row[-1])) for row in rows}
    eps = np.finfo(float).eps
    assert eps ** 0.5 / 30 < best["forward"][0] < eps ** 0.5 * 30 and 1e-10 < best["forward"][1] < 1e-6
    assert eps ** (2 / 3) / 30 < best["central"][0] < eps ** (2 / 3) * 30 and 1e-7 < best["central"][1] < 1e-4
    assert best["complex"][0] < 1e-14 and best["complex"][1] < 1e-8


def test_a_missing_folder_is_one_line(run, tmp_path):
    code, _, error = run("--out", tmp_path / "none" / "x.png")
    assert code == 2 and len(error.splitlines()) == 1 and "there is no folder" in error
