"""The README's commands and its six lines are what the programs take and do."""
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npvae.cli import options, program

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_six_lines_run(monkeypatch):
    """As printed, but on the first 2,000 images and for one epoch."""
    block = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL).group(1)
    assert "epochs=10" in block and len(block.splitlines()) <= 6
    scope = {}
    exec(block.replace("epochs=10", "epochs=1").replace("fit(vae, x_train, x_test",
                                                        "fit(vae, x_train[:2000], x_test[:100]"), scope)
    assert scope["digits"].shape == (100, 784) and np.isfinite(scope["digits"]).all()


@pytest.mark.parametrize("row", [row for row in TEXT.splitlines() if row.startswith("| `--")])
def test_every_row_of_the_table_is_a_command(row, tmp_path):
    flags = shlex.split(re.match(r"\| `([^`]*)`", row).group(1))
    args = options.parse(options.training_parser(), [*flags, "--out", str(tmp_path)])
    assert args.epochs in (10, 30)


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT)
    assert len(links) > 10
    assert not [link for link in links if not (link.startswith("https://") or (ROOT / link).exists())]


def test_the_commands_for_images_of_your_own_run(tmp_path, monkeypatch, capsys):
    """As printed, on a folder of 30 pictures and for one epoch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (30, 9, 7), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "FOLDER" / f"{i}.png")
    commands = re.search(r"```\n(npvae train --data-dir FOLDER.*?)```", TEXT, re.DOTALL).group(1).splitlines()
    assert [command.split()[1] for command in commands] == ["train", "sample", "evaluate", "explore"]
    for command in commands:
        assert not program.main(shlex.split(command.replace("--epochs 250", "--epochs 1"))[1:])
    assert "log p(x)" in capsys.readouterr().out
    assert {"report.html", "explore.html", "sample.png"} <= {path.name for path in (tmp_path / "runs/mine").iterdir()}


def test_the_published_tables_are_those_of_the_records(monkeypatch, capsys):
    """README's table is what the command beside it prints."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import paper_tables
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "table"])
    paper_tables.main()
    assert capsys.readouterr().out.split("\n\n")[0].strip() in TEXT
