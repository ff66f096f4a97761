"""The chapters and exercises as Jupyter notebooks: prose as it is, each example a cell, which prints when it runs.

Needs the extra `notebook` of setup.cfg.
"""
from __future__ import annotations

import ast
import base64
import doctest
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from npvae.cli import UsageError

from .source import ROOT, STATED, module

if TYPE_CHECKING:
    from nbformat import NotebookNode

_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COLAB = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"
_INSTALL = """# in Colab, and wherever npvae is not installed yet
import importlib.util
if importlib.util.find_spec("npvae") is None:
    %pip install --quiet git+https://github.com/{}"""

_COURSE = """# where the course is, and its checks
import importlib.util, pathlib, sys
found = importlib.util.find_spec("npvae")
course = pathlib.Path(found.origin).parents[1] / "examples/exercises/course.py" if found else None\
"""
_CLONE = """
if not (course and course.exists()):
    !git clone --quiet --depth 1 https://github.com/{} npvae
    %pip install --quiet -e npvae
    course = "npvae/examples/exercises/course.py\""""


def colab(repository: str, path: Path) -> str:
    """The address that opens a chapter's notebook in Colab."""
    return f"https://colab.research.google.com/github/{repository}/blob/notebooks/{path.stem}.ipynb"


def notebook(path: Path, repository: str = "") -> NotebookNode:
    """A chapter as a notebook, not run.  With a `repository`, OWNER/NAME on GitHub, it begins with a badge that opens
    it in Colab, with a cell that installs npvae there, and its links to other files lead to that repository.  Raises
    UsageError without the extra `notebook`."""
    try:
        from nbformat import v4
    except ImportError:
        raise UsageError("notebooks need nbformat, which pip install -e '.[notebook]' brings") from None
    text = path.read_text(encoding="utf-8").split("<!-- equations -->")[0]
    cells = []
    if repository:
        cells.append(v4.new_markdown_cell(_COLAB.format(colab(repository, path))))
        cells.append(v4.new_code_cell(_INSTALL.format(repository)))
    for kind, content, want in _cells(text):
        if kind == "code":
            cells.append(v4.new_code_cell(content, metadata={"expected": want} if want else {}))
            if want.startswith("!"):
                cells[-1].metadata = {"expected": want[1:], "tags": ["raises-exception"]}
        elif content.strip():
            cells.append(v4.new_markdown_cell(_prose(content.strip("\n"), path.parent, repository)))
    return _numbered(cells)


def exercise(path: Path, repository: str = "") -> NotebookNode:
    """A file of `examples/exercises` as a notebook: its cells write the file anew, function by function, and the last
    one has it checked."""
    try:
        from nbformat import v4
    except ImportError:
        raise UsageError("notebooks need nbformat, which pip install -e '.[notebook]' brings") from None
    tree, lines = module(path)
    text, number = ast.get_docstring(tree) or "", path.stem[2:4]
    starts = [node.lineno - 1 for node in tree.body if isinstance(node, ast.FunctionDef)]
    parts = ["\n".join(lines[start:end]).rstrip() for start, end in zip([0, *starts], [*starts, len(lines)])]
    badge = [v4.new_markdown_cell(_COLAB.format(colab(repository, path)))] if repository else []
    return _numbered([
        *badge, v4.new_markdown_cell(f"# {text}"),
        v4.new_code_cell(_COURSE + (_CLONE.format(repository) if repository else "")),
        v4.new_code_cell("!{sys.executable} {course} start ."),
        v4.new_markdown_cell("Fill in the blanks, and run all cells from here on."),
        *(v4.new_code_cell(f"%%writefile {'-a ' * (i > 0)}{path.name}\n" + "\n\n" * (i > 0) + part)
          for i, part in enumerate(parts)),
        v4.new_code_cell(f"!{{sys.executable}} {{course}} check {number} .")])


def _numbered(cells: list[NotebookNode]) -> NotebookNode:
    from nbformat import v4
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"      # the same in every build
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
              "language_info": {"name": "python"}}
    return v4.new_notebook(cells=cells, metadata=kernel)


def _cells(text: str) -> Iterator[tuple[str, str, str]]:
    """(kind, content, expected output) of each cell: a cell of code ends where something is printed, or raised, which
    has an exclamation mark before it."""
    end = 0
    for fence in _FENCE.finditer(text):
        examples = doctest.DocTestParser().get_examples(fence[1])
        if not examples:
            continue      # a function of the source, for reading
        yield "prose", text[end:fence.start()], ""
        end, lines = fence.end(), ""
        for example in examples:
            lines += example.source
            if example.want:
                yield "code", lines.rstrip("\n"), f"!{example.exc_msg}" if example.exc_msg else example.want
                lines = ""
        if lines:
            yield "code", lines.rstrip("\n"), ""
    yield "prose", text[end:], ""


def _prose(text: str, folder: Path, repository: str) -> str:
    """Markdown as notebooks read it: formulas between dollars, pictures inside, nothing folded, links that lead on."""
    text = STATED.sub(r"**\1**", text)
    text = re.sub(r"^```math\n(.*?)\n```$", r"$$\n\1\n$$", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"</?details>|<!-- code: .* -->\n", "", re.sub(r"<details><summary>(.*?)</summary>", r"**\1**", text))

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        file = target.partition("#")[0]
        place = Path(os.path.normpath(folder / file))
        if target.startswith("https://") or not file:
            return match[0]
        if picture:
            kind = "svg+xml" if place.suffix == ".svg" else place.suffix[1:]
            return f"![{words}](data:image/{kind};base64,{base64.b64encode(place.read_bytes()).decode()})"
        if place.parent == folder and place.suffix == ".md" and "-" in place.name:
            return f"[{words}]({place.stem}.ipynb)"
        name = place.relative_to(ROOT).as_posix()
        return f"[{words}](https://github.com/{repository}/blob/main/{name})" if repository else words
    return re.sub(r"(!?)\[([^]]*)\]\(([^)]+)\)", link, text)


def run(book: NotebookNode, folder: Path) -> list[str]:
    """Run a notebook in place; one line for each cell that prints what the chapter does not say."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    try:
        NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
                       extra_arguments=["--log-level=40"]).execute()
    except CellExecutionError as error:
        return [str(error).strip().splitlines()[-1]]
    checker, said = doctest.OutputChecker(), []
    for cell in book.cells:
        if "expected" in cell.metadata and not checker.check_output(cell.metadata["expected"], _printed(cell), 0):
            said.append(f"expected {cell.metadata['expected'].strip()!r}, got {_printed(cell).strip()!r}")
    return said


def _printed(cell: NotebookNode) -> str:
    text = "".join(f"{one.ename}: {one.evalue}" if one.output_type == "error" else
                   one.get("text", "") or one.get("data", {}).get("text/plain", "") for one in cell.outputs)
    return text if text.endswith("\n") else text + "\n"
