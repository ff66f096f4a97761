"""What is printed is plain, whatever names and labels hold, and a stream that takes nothing ends no training."""
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npvae import VAE, Progress, fit
from npvae.cli import command_line, options, program
from npvae.plotting import latent_scatter, png
from npvae.system.terminal import plain, shell_word
from tiny_runs import PROGRAM, TINY, without_pictures

ROOT = Path(__file__).parents[2]
HOSTILE = ["a\x1b[31mb", "bell\x07", "a\nb", "\x9b2J", "\u202ereversed", "\udcff\udc9b", "\x00", "tab\there",
           "line\u2028"]
SPECIAL = ["-dash", "a b", "it's", 'a "quoted" $x `y` \\z', "50%d", "é中", *HOSTILE]


@pytest.mark.parametrize("text", HOSTILE)
def test_plain(text):
    assert plain(text).isprintable() and plain(text).isascii()


def test_plain_says_what_it_hides():
    assert plain("é 中, a-z") == "é 中, a-z"
    assert plain("a\x1b[31m\udcff\n\u202e") == "a\\x1b[31m\\xff\\n\\u202e"


@pytest.mark.every(4)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("text", [text for text in SPECIAL if "\0" not in text])
def test_a_word_for_the_shell(text, encoding, monkeypatch):
    """It is shown as it is, and means what it says."""
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    word = shell_word(text)
    assert plain(word) == word and word.encode(encoding)
    code = "import os, sys; print(os.fsencode(sys.argv[1]).hex())"
    done = subprocess.run(f"'{sys.executable}' -S -c '{code}' {word}", shell=True, capture_output=True, text=True)
    assert bytes.fromhex(done.stdout) == os.fsencode(text), done.stderr


@pytest.mark.parametrize("out", ["-dash", "a b", "a\udcff", "ends\n"])
def test_the_printed_command_finds_its_folder(out, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["npvae"])
    args = options.training_parser().parse_args([f"--out={out}"])
    code = "import os, sys; print(os.fsencode(sys.argv[sys.argv.index('--out') + 1]).hex())"
    command = options.resume_command(args).replace("npvae train", f"'{sys.executable}' -S -c \"{code}\"")
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    found = os.fsdecode(bytes.fromhex(done.stdout))
    assert Path(found) == Path(out), done.stderr
    parsed = options.training_parser().parse_args(["--out", found])
    assert parsed.out == Path(out)


# ---- Streams that take nothing

class Full(io.StringIO):
    """A full disk, or a pipe that nobody reads."""

    def __init__(self, error, terminal):
        super().__init__()
        self.error, self.terminal = error, terminal

    def write(self, text):
        raise self.error

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe"),
                                   ValueError("I/O operation on closed file")])
def test_training_goes_on_without_progress(error, terminal):
    x = np.random.default_rng(0).random((20, 6))
    history = fit(VAE(6, (4,), 2), x, x, 2, 5, callbacks=[Progress(Full(error, terminal))])
    assert [row["epoch"] for row in history] == [1, 2]


def test_training_goes_on_without_stderr(monkeypatch):
    """As Python has it for one that is closed."""
    x = np.random.default_rng(0).random((20, 6))
    monkeypatch.setattr(sys, "stderr", None)
    assert len(fit(VAE(6, (4,), 2), x, x, 2, 5, callbacks=[Progress()])) == 2


@pytest.mark.parametrize("stdout, stderr, code", [
    (None, None, 0), (None, Full(OSError(28, "full"), False), 0), (Full(OSError(28, "full"), False), io.StringIO(), 2),
    (Full(OSError(28, "full"), False), Full(OSError(28, "full"), False), 2),
    (Full(BrokenPipeError(32, "Broken pipe"), False), io.StringIO(), 141)])
def test_what_a_program_prints(stdout, stderr, code, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "argv", ["npvae"])
    assert command_line.exit_code(lambda: print("a result")) == code
    assert command_line.exit_code(lambda: print("a word", file=sys.stderr)) == 0
    if isinstance(stderr, io.StringIO) and not isinstance(stderr, Full) and code == 2:
        assert stderr.getvalue() == "npvae: standard output: cannot be written (full)\na word\n"

    def fail():
        raise ValueError("wrong")

    assert command_line.exit_code(fail) == 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    grey = np.random.default_rng(3).integers(0, 256, (60, 4, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", train=grey[:50], test=grey[50:])
    return folder


@pytest.mark.every(3)
@pytest.mark.parametrize("streams", ["2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"])
def test_a_whole_run(streams, data, tmp_path):
    """And Python, which flushes its streams when it ends, finds nothing to complain of."""
    out = tmp_path / "run"
    flags = " ".join([*TINY, "--kernels numpy --out", str(out)])
    done = subprocess.run(f"'{sys.executable}' -c '{PROGRAM}' train {flags} {streams}", shell=True, cwd=data,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300)
    assert done.returncode == 0 and (out / "report.html").read_text().rstrip().endswith("</html>")
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


# ---- A whole run on names that are commands to a terminal

def test_names_of_any_bytes(tmp_path, monkeypatch):
    """Labels and folders, on a terminal that knows ASCII alone."""
    labels = ["\x1b[31mred", "\udcff", "$x$ $\\frac{$", "中"]
    for label in labels:
        os.makedirs(tmp_path / "in" / label)
        for i in range(6):
            grey = np.random.default_rng(i).integers(0, 256, (3, 4), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "in" / label / f"{i}.png")
    monkeypatch.setattr(sys, "argv", ["npvae"])
    without_pictures(monkeypatch)
    out = str(tmp_path / "out\n \x1b]0;title\x07 \udcfe")

    def run(*argv):
        streams = [io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = command_line.exit_code(lambda: program.main(argv))
        printed = b"".join(stream.buffer.getvalue() for stream in streams).decode()
        assert all(line.isprintable() for line in printed.split("\n")), printed
        return code, printed

    code, printed = run("train", *TINY[2:], "--latent", "2", "--data-dir", str(tmp_path / "in"), "--conditional",
                        "--kernels", "numpy", "--out", out)
    assert code == 0 and "out\\n \\x1b]0;title\\x07 \\xfe/report.html" in printed, printed
    assert "out\\n \\x1b]0;title\\x07 \\xfe" in Path(out, "report.html").read_text(encoding="utf-8")
    code, printed = run("info", out)
    assert code == 0 and "classes   \\x1b[31mred, $x$ $\\frac{$, " in printed
    code, printed = run("explore", out)
    assert code == 0 and printed.count("\n") == 2, printed
    page = Path(out, "explore.html").read_text(encoding="utf-8")
    assert "\\x1b[31mred" in page and "\x1b" not in page
    code, printed = run("sample", out, "--label", "\x1b[1mno")
    assert code == 2 and "--label \\x1b[1mno: the classes of this run are" in printed


def test_a_label_is_no_formula_and_letters_that_the_font_lacks_are_boxes():
    labels = np.array(["$x$", "$\\frac{$", "中", "\x1b", "\udcff"] * 2)
    assert png(latent_scatter(np.random.default_rng(0).standard_normal((10, 2)), labels))
    assert png(latent_scatter(np.random.default_rng(0).standard_normal((10, 1)), labels))
