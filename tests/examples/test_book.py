"""The book is made of the chapters and the source: what stands in it twice is the same, and what it links to is there.
"""
import base64
import doctest
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import npvae
from browser import MISSING, Browser
from chapters import ROOT, STATED, code_of
from npvae.cli import UsageError
from npvae.kernels.reference import latents
from npvae.layers import MLP
from press import check, notebooks, pandoc, source
from refusals import assert_refused
from scripts import run_script

SCRIPT = ROOT / "examples" / "book.py"
PAGES = sorted((ROOT / "examples").glob("**/*.md"))
PAGE = ROOT / "examples" / "derivations" / "page.md"
LATENTS = "npvae/kernels/reference/latents.py"


def book(*args, expect=0):
    result = run_script(SCRIPT, *args)
    assert result.returncode == expect, result.stderr
    return result


# --- the code beside an equation ---

def block(place, code=""):
    return f"Above.\n\n<!-- code: {place} -->\n```python\n{code}```\n\nBelow.\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_code_in_a_chapter_is_that_of_the_source(page):
    text = page.read_text(encoding="utf-8")
    assert source.filled(text, page) == text, "stale: run  python examples/book.py code"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_chapter_that_states_equations_links_them_to_the_code(page):
    text = page.read_text(encoding="utf-8")
    assert not STATED.search(text) or "<!-- equations -->" in text, "its last line must be <!-- equations -->"


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
    (block(f"{LATENTS} gaussian_kl"), "line 3: latents.py has no function gaussian_kl; it has excess, "),
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

    def book(*args, expect=0):
        result = subprocess.run([sys.executable, script, *args], capture_output=True, text=True)
        assert result.returncode == expect, result.stderr
        return result

    page.write_text(block(f"{LATENTS} gaussian_kl_backward"))
    assert book("code", "--check", expect=1).stdout == "examples/derivations/05-kl.md: stale\n"
    assert page.read_text() == block(f"{LATENTS} gaussian_kl_backward")
    assert book("code").stdout == "examples/derivations/05-kl.md: filled\n"
    assert page.read_text() == source.filled(page.read_text(), PAGE) != block(f"{LATENTS} gaussian_kl_backward")
    assert book("code", "--check").stdout == ""
    page.write_text(block(f"{LATENTS} missing"))
    assert book("code", expect=2).stderr.startswith(
        "book.py: examples/derivations/05-kl.md, line 3: latents.py has no function missing; it has ")


@pytest.mark.parametrize("args", [(), ("nothing",), ("code", "--wrong")])
def test_wrong_arguments_are_one_line(args):
    done = book(*args, expect=2)
    assert_refused((done.returncode, done.stdout, done.stderr), "", "book.py")


# --- the site ---

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("pypandoc")
    folder = tmp_path_factory.mktemp("book") / "site"
    book("site", folder)      # which fails on a broken link and on a formula left as it was typed
    return folder


def chapters():
    return [path for path in PAGES if path.parent.name == "derivations" and path.name != "README.md"]


def test_every_formula_is_drawn(site):
    """As many in a page as dollars and fences ask for in its chapter."""
    for path in chapters():
        text = re.sub(r"^```python\n.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        text, fences = re.subn(r"^```math\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        inline = len(re.findall(r"\$[^$]+\$", re.sub(r"`[^`]*`", "", text)))
        page = (site / "derivations" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert (page.count('<math display="block"'), page.count("<math ")) == (fences, fences + inline), path.name


def back(site, page, chapter, equation):
    """Whether a page links to the equation."""
    link = f'<a href="{"../" * page.count("/")}derivations/{chapter}#{equation}">{equation}</a>'
    return link in (site / page).read_text(encoding="utf-8")


def test_an_equation_and_its_function_lead_to_each_other(site):
    for path in chapters():
        name = f"{path.stem}.html"
        page = (site / "derivations" / name).read_text(encoding="utf-8")
        for equation in STATED.findall(path.read_text(encoding="utf-8")):
            place = source.computed()[equation]
            assert place.name.split(".")[-1] in place.path.read_text(encoding="utf-8").splitlines()[place.line - 1]
            file = place.path.relative_to(ROOT).as_posix()
            beside = re.search(rf'<p class="stated" id="{equation}"><a class="computed" href="(.*?)"', page)[1]
            assert beside == f"../{file}.html#L{place.line}"
            assert back(site, f"{file}.html", name, equation)
            if place.is_public:
                assert back(site, f"api/{file[:-3].replace('/', '.')}.html", name, equation)


def test_every_chapter_is_in_the_contents_of_every_page(site):
    assert chapters()
    for page in ("index.html", "api/npvae.layers.html", "npvae/layers.py.html"):
        text = (site / page).read_text(encoding="utf-8")
        for path in chapters():
            assert f'href="{"../" * page.count("/")}derivations/{path.stem}.html"' in text, (page, path.name)


def test_every_public_name_is_in_the_reference(site):
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "api").iterdir())
    for name in npvae.__all__:
        if name not in ("__version__",):
            assert f'id="{name}"' in text, name


@pytest.mark.parametrize("body, says", [
    ('<a href="gone.html">', "gone.html leads to no file"), ('<a href="#gone">', "#gone leads to no place"),
    ('<img src="gone.svg">', "gone.svg leads to no file"), ('<a id="x"><a id="x">', "the id x stands twice"),
    ("one $x$", "a formula is left as it was typed: one $x$"), ("\\frac 1", "a formula is left as it was typed"),
    ('<span class="math inline">x</span>', "a formula is left as it was typed: <span>")])
def test_what_is_wrong_with_a_site_is_found(tmp_path, body, says):
    (tmp_path / "a.html").write_text(f"<p>{body}")
    assert [one for one in check.complaints(tmp_path) if says in one and one.startswith("a.html: ")]
    (tmp_path / "a.html").write_text('<p id="b"><a href="#b"><a href="a.html#b"><a href="https://x.org">'
                                     "<code>$x$</code><annotation>\\frac</annotation>")
    assert check.complaints(tmp_path) == []


@pytest.mark.parametrize("formula, drawn", [
    (r"2 \log x", "<mn>2</mn>_<mi>log</mi>_<mi>x</mi>"), (r"\log (x)", "<mi>log</mi><mo>(</mo>"),
    (r"- \log x", "<mi>−</mi><mi>log</mi>_"), (r"\log^2 x", "</msup>_<mi>x</mi>"),
    (r"\max_j x", "</munder>_<mi>x</mi>"), (r"a - \log x", "<mo>−</mo><mi>log</mi>_"),
    (r"\overline{\mathtt{kl}}", '<mrow class="bar"><mrow><mi>𝚔</mi><mi>𝚕</mi></mrow></mrow>')])
def test_formulas_have_the_spaces_and_bars_of_print(formula, drawn):
    pytest.importorskip("pypandoc")
    text = re.sub(r' (mathvariant|stretchy|form|xmlns|display)="[^"]*"', "", pandoc.html(f"```math\n{formula}\n```"))
    assert drawn in text.replace('<mspace width="0.167em"></mspace>', "_")


def test_the_font_has_the_italics_of_the_letters_in_formulas_and_the_root():
    """A browser draws <mi>h</mi> with U+210E, and other letters likewise; <msqrt> with U+221A."""
    for name in ("fontTools", "ziamath"):
        pytest.importorskip(name)
    from fontTools import ttLib
    font = base64.b64decode(pandoc.math_font(set("hxΣμ∂(")).partition(",")[2])
    assert set("hxΣμ∂(\u221a\u210e\U0001d465\U0001d6f4\U0001d707\U0001d715") <= set(
        map(chr, ttLib.TTFont(io.BytesIO(font)).getBestCmap()))


def test_a_formula_that_cannot_be_drawn_is_refused():
    pytest.importorskip("pypandoc")
    with pytest.raises(ValueError, match="gone"):
        pandoc.html(r"$\gone{x}$")


def test_a_folder_with_files_is_not_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty; choose a new folder, or --overwrite" in book("site", tmp_path, expect=2).stderr
    assert "is a file" in book("site", tmp_path / "mine.txt", expect=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_pandoc_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypandoc", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[book\]'"):
        pandoc.html("text")


@pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")
def test_in_a_browser_one_can_search_and_nothing_sticks_out(site):
    with Browser() as browser:
        browser.open(site / "derivations" / f"{chapters()[0].stem}.html")
        browser.click("[type=search]")
        browser.key(*"D6.1")
        found = browser.run("""return new Promise(done => {
            const look = () => { const links = [...document.querySelectorAll(".found a")].map(a => a.href);
                                 links.length ? done(links) : setTimeout(look, 50); }
            look(); })""")
        assert found[0].endswith("#D6.1")
        browser.key("\ue007")      # Enter follows the first
        assert browser.run("return location.hash") == "#D6.1"
        browser.click("button.theme")
        browser.click("button.theme")
        dark = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert dark == "rgb(21, 23, 27)"
        browser.size(390, 800)
        for path in chapters():      # drawings keep the size of their letters, and are scrolled
            browser.open(site / "derivations" / f"{path.stem}.html")
            assert browser.run("return document.documentElement.scrollWidth") == 390, path.name
            assert browser.run("return [...document.images].every(one => one.complete && one.naturalWidth)"), path.name
            assert browser.run("""return [...document.querySelectorAll("img[src$='.svg']")].every(one =>
                one.getBoundingClientRect().width === 480)"""), path.name
        assert browser.console() == []


# --- notebooks ---

def code_cells(made):
    return [cell for cell in made.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_a_notebook_holds_its_chapter(path):
    """The same code in the same order, each output expected below its cell, all prose, and nothing that only GitHub
    understands."""
    nbformat = pytest.importorskip("nbformat")
    made = notebooks.notebook(path)
    nbformat.validate(made)
    examples = doctest.DocTestParser().get_examples(code_of(path.read_text(encoding="utf-8")))
    assert "\n".join(cell.source for cell in code_cells(made)) == "".join(one.source for one in examples).rstrip("\n")
    expected = [cell.metadata["expected"] for cell in code_cells(made) if "expected" in cell.metadata]
    assert expected == [one.exc_msg or one.want for one in examples if one.want]
    prose = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert prose.startswith("# ") and not re.search(r"```math|<details>|<!--|\.md\)|\]\(\.\./", prose)
    assert set(STATED.findall(path.read_text(encoding="utf-8"))) == set(STATED.findall(prose))


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "exercises").glob("ex*.py")), ids=lambda path: path.stem)
def test_the_notebook_of_an_exercise_writes_its_file(path):
    """Its cells, run one after the other, leave the file as it is in the course."""
    nbformat = pytest.importorskip("nbformat")
    made = notebooks.exercise(path)
    nbformat.validate(made)
    *_, check_cell = code_cells(made)
    assert check_cell.source.endswith(f"check {path.stem[2:4]} .")
    written = [cell.source.partition("\n") for cell in code_cells(made) if cell.source.startswith("%%writefile")]
    assert [first for first, _, _ in written] == [f"%%writefile {path.name}"] + [f"%%writefile -a {path.name}"] * (
        len(written) - 1)
    assert "\n".join(rest for _, _, rest in written) + "\n" == path.read_text(encoding="utf-8")


def test_a_notebook_opens_in_colab_and_installs_npvae_there():
    pytest.importorskip("nbformat")
    first, install, title = notebooks.notebook(chapters()[0], "someone/npvae").cells[:3]
    assert f"/github/someone/npvae/blob/notebooks/{chapters()[0].stem}.ipynb" in first.source
    assert "%pip install --quiet git+https://github.com/someone/npvae" in install.source
    assert title.source.startswith("# ")
    assert "OWNER/NAME" in book("site", "x", "--repository", "npvae", expect=2).stderr


def test_a_notebook_runs_and_what_it_should_print_is_compared(tmp_path):
    """In a process of its own: Jupyter's own warnings are not ours."""
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name)
    text = ("```python\n>>> a = 2\n>>> a * 3\n6\n>>> print(a)\n2\n>>> [][0]\nTraceback (most recent call last):\n"
            "IndexError: list index out of range\n>>> a + 1\n3\n```\n")
    program = ("import sys\nfrom pathlib import Path\nfrom press.notebooks import notebook, run\n"
               "print(run(notebook(Path(sys.argv[1])), Path.cwd()))")
    said = []
    broken = text + "```python\n>>> b\n```"
    for name, content in (("right", text), ("wrong", text.replace("6", "7")), ("broken", broken)):
        (tmp_path / name).write_text("# 1\n\n" + content)
        said.append(subprocess.run([sys.executable, "-c", program, tmp_path / name], cwd=tmp_path, capture_output=True,
                                   text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "examples")}).stdout)
    right, wrong, broken = said
    assert right == "[]\n" and "expected '7', got '6'" in wrong and "name 'b' is not defined" in broken
