"""What stands where in the source, read without importing it; and the blocks of code in the chapters.

A block is a comment that names a file and a function (or a method, as Class.method), and a fence below it:

    <!-- code: npvae/kernels/reference/latents.py gaussian_kl_backward -->
    ```python
    ...
    ```

`filled` puts the lines of that function there, without its docstring and decorators.

An equation is stated in a chapter, its id in bold at the start of a line, and named in the docstring of the function
that computes it; `computed` finds the function.  A chapter that ends in the comment

    <!-- equations -->

has below it a link for each of its equations to that function's line; `filled` writes them and makes each id a link.
"""
from __future__ import annotations

import ast
import functools
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"<!-- *code\b.*")
_EQUATIONS = "<!-- equations -->\n"
_BLOCK = re.compile(r"<!-- code: (\S+) (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

EQUATION = re.compile(r"\bD\d+\.\d+\b")
#: where a chapter states an equation
STATED = re.compile(r"^\*\*\[?(D\d+\.\d+)\]?\*\*", re.MULTILINE)

Definition = ast.FunctionDef | ast.ClassDef


class Place(NamedTuple):
    """A function, method or class: its file, what it is called there, and the node that defines it."""

    path: Path
    name: str
    node: Definition

    @property
    def doc(self) -> str:
        """Its docstring; "" if it has none."""
        return ast.get_docstring(self.node) or ""

    @property
    def line(self) -> int:
        """The number of the line at which it begins."""
        return self.node.lineno

    @property
    def is_public(self) -> bool:
        """No part of its name begins with an underscore, but for `__call__`."""
        return all(not part.startswith("_") or part == "__call__" for part in self.name.split("."))


@functools.cache
def module(path: Path) -> tuple[ast.Module, list[str]]:
    """A file of Python, parsed, and its lines."""
    text = path.read_text(encoding="utf-8")
    return ast.parse(text), text.splitlines()


def definitions(path: Path) -> list[Place]:
    """Every function and class of a file, and every method as Class.method, in order."""
    found = []
    for node in module(path)[0].body:
        if isinstance(node, Definition):
            found.append(Place(path, node.name, node))
        if isinstance(node, ast.ClassDef):
            found += [Place(path, f"{node.name}.{inner.name}", inner) for inner in node.body
                      if isinstance(inner, Definition)]
    return found


def code(path: Path, name: str) -> str:
    """The lines of a function without its docstring.  Raises ValueError that says which functions there are."""
    functions = {place.name: place.node for place in definitions(path) if isinstance(place.node, ast.FunctionDef)}
    if name not in functions:
        raise ValueError(f"{path.name} has no function {name}; it has {', '.join(functions)}")
    node, lines = functions[name], module(path)[1]
    shown = lines[node.lineno - 1:node.end_lineno]
    if ast.get_docstring(node) is not None:
        doc = node.body[0]
        rest = lines[doc.end_lineno:node.end_lineno]
        if not rest:
            raise ValueError(f"{path.name} {name} has no lines but its docstring")
        shown = lines[node.lineno - 1:doc.lineno - 1] + rest[not rest[0].strip():]
    return textwrap.dedent("\n".join(shown)) + "\n"


@functools.cache
def computed(root: Path = ROOT) -> dict[str, Place]:
    """The function, method or class that computes each equation.  Of several whose docstrings name it, it is one that
    has the id alone in parentheses, and of those the last."""
    found: dict[str, Place] = {}
    alone: dict[str, Place] = {}
    for path in sorted((root / "npvae").rglob("*.py")):
        for place in definitions(path):
            for equation in EQUATION.findall(place.doc):
                found[equation] = place
                if f"({equation})" in place.doc:
                    alone[equation] = place
    return found | alone


def filled(text: str, path: Path, root: Path = ROOT) -> str:
    """The text of a chapter, which stands at `path`, with its blocks of code and its links as the source has it now.
    Raises ValueError that begins with the chapter and a line, for a block that is not well formed or names what is not
    there, and for an equation that no docstring names."""
    name = path.relative_to(root).as_posix()

    def where(match: re.Match[str]) -> str:
        return f"{name}, line {text.count(chr(10), 0, match.start()) + 1}"

    def put(match: re.Match[str]) -> str:
        file, function, _ = match.groups()
        try:
            if not (root / file).is_file():
                raise ValueError(f"there is no file {file}")
            return f"<!-- code: {file} {function} -->\n```python\n{code(root / file, function)}```"
        except ValueError as error:
            raise ValueError(f"{where(match)}: {error}") from None

    good = {match.start() for match in _BLOCK.finditer(text)}
    for mark in _MARK.finditer(text):
        if mark.start() not in good:
            raise ValueError(f"{where(mark)}: a block of code is <!-- code: FILE FUNCTION --> and then, in the next "
                             f"line, ```python; got {mark[0]}")
    prose, linked, _ = text.partition(_EQUATIONS)
    if linked:
        for match in STATED.finditer(prose):
            if match[1] not in computed(root):
                raise ValueError(f"{where(match)}: no docstring of npvae names {match[1]}")
        up = "../" * (len(path.relative_to(root).parts) - 1)
        links = [f'[{equation}]: {up}{place.path.relative_to(root).as_posix()}#L{place.line} "{place.name}"\n'
                 for equation in STATED.findall(prose) for place in [computed(root)[equation]]]
        prose = STATED.sub(r"**[\1]**", prose) + _EQUATIONS + "".join(links)
    return _BLOCK.sub(put, prose)
