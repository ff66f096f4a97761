"""The chapters of `examples/derivations` hold together with the code and the tests.

Every equation has an id, such as D6.1, that stands in three places: in its chapter, in the docstring of the code that
computes it, and on the test that proves it (`pytest --equation D6.1` runs chapter and test).  And for every equation a
slip is planted in the code, after which both must fail.
"""
import ast
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from chapters import CHAPTERS, EQUATION, ROOT, STATED, chapter_of, code_of, failures
from museum.exhibit import planted
from press.source import computed

TEXTS = {number: path.read_text(encoding="utf-8") for number, path in CHAPTERS.items()}
EQUATIONS = [equation for text in TEXTS.values() for equation in STATED.findall(text)]
PROOFS = [importlib.import_module(path.stem) for path in sorted(Path(__file__).parent.glob("test_equations_*.py"))]
TESTS = {}
for module in PROOFS:
    for test in vars(module).values():
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "equation":
                TESTS.setdefault(mark.args[0], []).append(test)
LATER = {"D14.11", "D14.12", "D14.13"}
SOLUTIONS = "S"      # the appendix that states no equation
NUMBERED = re.compile(r"^\*\*\d\.\*\*", re.MULTILINE)
SLIPS = {equation: slip for module in PROOFS for equation, slip in module.SLIPS.items()}


def docstrings():
    """(where, docstring) of everything in npvae that has one."""
    for path in sorted((ROOT / "npvae").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                yield f"{path.name}:{getattr(node, 'name', '')}", ast.get_docstring(node)


# --- chapter, docstring, test ---

def test_every_equation_stands_in_its_chapter_in_a_docstring_and_on_a_test():
    in_code = {equation for _, text in docstrings() for equation in EQUATION.findall(text)}
    assert len(EQUATIONS) == len(set(EQUATIONS)) >= 40
    assert set(EQUATIONS) == in_code == set(TESTS) == set(SLIPS)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_equations_are_numbered_in_order_and_shown(chapter):
    """Those with the same first number; the others of that number may stand in an appendix.  Later ones stand where
    they are needed."""
    stated = STATED.findall(TEXTS[chapter])
    families = {equation.split(".")[0]: [] for equation in stated}
    for equation in stated:
        family, _, number = equation.partition(".")
        if equation not in LATER:
            families[family].append(int(number))
    assert bool(stated) == (chapter != SOLUTIONS)
    assert all(numbers == sorted(numbers) for numbers in families.values())
    below_each = STATED.split(TEXTS[chapter])[2::2]
    for equation, below in zip(stated, below_each, strict=True):
        assert "```math\n" in below, f"{equation} has no formula"
    assert set(EQUATION.findall(TEXTS[chapter])) <= set(EQUATIONS)


@pytest.mark.every(10)
@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_slip_in_an_equation_fails_its_chapter_and_its_test(equation):
    function, should, says = SLIPS[equation]
    for proof in TESTS[equation]:
        proof()
    with planted(SimpleNamespace(name=equation, changes=((function, should, says),))):
        assert failures(CHAPTERS[chapter_of(equation)]), "the chapter notices nothing"
        for proof in TESTS[equation]:
            with pytest.raises((AssertionError, ArithmeticError)):
                proof()


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_slip_stands_in_code_that_names_the_equation(equation):
    assert equation in (SLIPS[equation][0].__doc__ or ""), "the planted slip is elsewhere"


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_link_from_the_equation_leads_to_that_code(equation):
    function, place = SLIPS[equation][0], computed()[equation]
    assert (str(place.path), place.name) == (inspect.getsourcefile(function), function.__qualname__)


# --- for the reader ---

@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_its_number_and_a_table_of_shapes(chapter):
    text = TEXTS[chapter]
    assert text.startswith(f"# {int(chapter) if chapter.isdecimal() else chapter}. ")
    assert "| symbol | shape | meaning |" in text or chapter == SOLUTIONS


@pytest.mark.parametrize("chapter", [chapter for chapter in CHAPTERS if chapter.isdecimal()])
def test_a_chapter_has_exercises_whose_solutions_are_checked(chapter):
    """The solutions stand below their exercises, or in an appendix under the chapter's number."""
    exercises = TEXTS[chapter].split("\n## Exercises\n")[1]
    solutions = exercises.split("<details>")[1:]
    if not solutions:
        solutions = NUMBERED.split(TEXTS[SOLUTIONS].split(f"\n## Chapter {int(chapter)}\n")[1].split("\n## ")[0])[1:]
    assert len(NUMBERED.findall(exercises)) == len(solutions) in (1, 2, 3)
    for solution in solutions:
        assert ">>>" in code_of(solution), "a solution without a check"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_formula_in_a_line_has_no_backslash_that_markdown_takes_away(chapter):
    """GitHub reads the escapes of Markdown first: of a thin space it leaves a comma."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", TEXTS[chapter], flags=re.MULTILINE | re.DOTALL)
    for formula in re.findall(r"\$[^$]+\$", text):
        assert not re.search(r"\\(?!\|)[^a-zA-Z\s]", formula), formula      # a bar, in tables


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_fences_are_closed_and_links_lead_somewhere(chapter):
    text = TEXTS[chapter]
    assert text.count("\n```") % 2 == 0
    assert len(re.findall(r"^```(math|python)$", text, re.MULTILINE)) * 2 == text.count("\n```")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        assert link.startswith("https://") or (CHAPTERS[chapter].parent / link).exists(), link


def test_the_glossary_is_in_alphabetical_order_and_each_word_stands_where_it_links():
    folder = CHAPTERS["01"].parent
    entries = re.findall(r"^\*\*(.+?)\.\*\* (.*?)(?=^\*\*|\Z)", (folder / "glossary.md").read_text(encoding="utf-8"),
                         re.MULTILINE | re.DOTALL)
    words = [word.lower() for word, _ in entries]
    assert len(words) > 50 and words == sorted(set(words))
    for word, (_, text) in zip(words, entries):
        links = re.findall(r"\]\(([^)]+)\)", text)
        assert links, word
        for link in links:
            assert word in " ".join((folder / link).read_text(encoding="utf-8").lower().split()), (word, link)
