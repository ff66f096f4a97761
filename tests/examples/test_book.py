"""The book is made of the chapters and the source: what stands in it twice is the same, and what it links to is there.
"""
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chapters import ROOT
from npvae.kernels.reference import latents
from npvae.layers import MLP
from press import source

SCRIPT = ROOT / "examples" / "book.py"
PAGES = sorted((ROOT / "examples").glob("**/*.md"))
PAGE = ROOT / "examples" / "derivations" / "page.md"
LATENTS = "npvae/kernels/reference/latents.py"


def book(*args, expect=0, script=SCRIPT):
    result = subprocess.run([sys.executable, script, *args], capture_output=True, text=True)
    assert result.returncode == expect, result.stderr
    return result


# --- the code beside an equation ---

def block(place, code=""):
    return f"Above.\n\n<!-- code: {place} -->\n```python\n{code}```\n\nBelow.\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_code_in_a_chapter_is_that_of_the_source(page):
    text = page.read_text(encoding="utf-8")
    assert source.filled(text, page) == text, "stale: run  python examples/book.py code"


def test_a_block_is_filled_with_the_lines_of_a_function_without_its_docstring():
    empty = block(f"{LATENTS} gaussian_kl_backward")
    whole = inspect.getsource(latents.gaussian_kl_backward)
    head, _, body = whole.split('"""')
    code = head.rstrip(" ") + body.lstrip("\n")
    assert source.filled(empty, PAGE) == block(f"{LATENTS} gaussian_kl_backward", code)
    stale = block(f"{LATENTS} gaussian_kl_backward", "    dmu[...] = dkl\n")
    assert source.filled(stale, PAGE) == source.filled(empty, PAGE)


def test_a_block_may_hold_a_method_and_a_page_several_blocks():
    text = source.filled(block("npvae/layers.py MLP.backward") + block(f"{LATENTS} log_q_backward"), PAGE)
    assert text.count("def ") == 2 and "\ndef backward(self, " in text and "\ndef log_q_backward(" in text
    assert inspect.getsource(MLP.backward).splitlines()[-1].strip() in text


def test_a_chapter_that_ends_in_links_leads_to_the_function_of_each_equation():
    text = "**D6.1** a sentence\n\n**[D6.2]** another\n\n<!-- equations -->\n[D6.1]: stale\n"
    lines = {name: inspect.getsourcelines(getattr(latents, name))[1]
             for name in ("gaussian_kl_forward", "gaussian_kl_backward")}
    assert source.filled(text, PAGE) == (
        "**[D6.1]** a sentence\n\n**[D6.2]** another\n\n<!-- equations -->\n"
        f'[D6.1]: ../../{LATENTS}#L{lines["gaussian_kl_forward"]} "gaussian_kl_forward"\n'
        f'[D6.2]: ../../{LATENTS}#L{lines["gaussian_kl_backward"]} "gaussian_kl_backward"\n')
    assert source.filled("**D6.1** no links asked for\n", PAGE) == "**D6.1** no links asked for\n"


def test_code_keeps_comments_and_blank_lines_inside(tmp_path):
    (tmp_path / "a.py").write_text('@cache\ndef f(x):\n    """One.\n\n    Two."""\n\n    # why\n    y = x\n\n'
                                   '    return y\n'
                                   'def g(x): return x\n')
    assert source.code(tmp_path / "a.py", "f") == "def f(x):\n    # why\n    y = x\n\n    return y\n"
    assert source.code(tmp_path / "a.py", "g") == "def g(x): return x\n"


@pytest.mark.parametrize("text, says", [
    (block(f"{LATENTS} gaussian_kl"), "line 3: latents.py has no function gaussian_kl; it has _excess, "),
    (block("npvae/nothing.py f"), "line 3: there is no file npvae/nothing.py"),
    (block(f"{LATENTS}"), "line 3: a block of code is <!-- code: FILE FUNCTION -->"),
    ("one\n\n**D6.99** two\n\n<!-- equations -->\n", "line 3: no docstring of npvae names D6.99"),
    (block(f"{LATENTS} log_q_backward").replace("```python", "```"), "line 3: a block of code is"),
    (block(f"{LATENTS} log_q_backward").replace("-->\n", "-->\n\n"), "line 3: a block of code is")])
def test_a_block_that_cannot_be_filled_is_named(text, says):
    with pytest.raises(ValueError, match="^examples/derivations/page.md, ") as raised:
        source.filled(text, PAGE)
    assert says in str(raised.value)


def test_the_program_fills_and_checks(tmp_path):
    for folder in ("examples/press", "npvae/kernels/reference"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    script = Path(shutil.copy(SCRIPT, tmp_path / "examples"))
    page = tmp_path / "examples" / "derivations" / "05-kl.md"
    page.parent.mkdir()
    page.write_text(block(f"{LATENTS} gaussian_kl_backward"))
    assert book("code", "--check", script=script, expect=1).stdout == "examples/derivations/05-kl.md: stale\n"
    assert page.read_text() == block(f"{LATENTS} gaussian_kl_backward")
    assert book("code", script=script).stdout == "examples/derivations/05-kl.md: filled\n"
    assert page.read_text() == source.filled(page.read_text(), PAGE) != block(f"{LATENTS} gaussian_kl_backward")
    assert book("code", "--check", script=script).stdout == ""
    page.write_text(block(f"{LATENTS} missing"))
    assert book("code", script=script, expect=2).stderr.startswith(
        "book.py: examples/derivations/05-kl.md, line 3: latents.py has no function missing; it has ")


@pytest.mark.parametrize("args", [(), ("nothing",), ("code", "--wrong")])
def test_wrong_arguments_are_one_line(args):
    assert len(book(*args, expect=2).stderr.splitlines()) == 1
