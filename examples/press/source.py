"""What stands where in the source, read without importing it; and the blocks of code in the chapters.

A block is a comment that names a file and a function (or a method, as Class.method), and a fence below it:

    <!-- code: npvae/kernels/reference/latents.py gaussian_kl_backward -->
    ```python
    ...
    ```

`filled` puts the lines of that function there, without its docstring and decorators.
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
_BLOCK = re.compile(r"<!-- code: (\S+) (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Definition = ast.FunctionDef | ast.ClassDef


class Place(NamedTuple):
    """A function, method or class: what it is called in its module, and the node that defines it."""

    name: str
    node: Definition

    @property
    def doc(self) -> str:
        """Its docstring; "" if it has none."""
        return ast.get_docstring(self.node) or ""


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
            found.append(Place(node.name, node))
        if isinstance(node, ast.ClassDef):
            found += [Place(f"{node.name}.{inner.name}", inner) for inner in node.body if isinstance(inner, Definition)]
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


def filled(text: str, name: str, root: Path = ROOT) -> str:
    """A chapter with each of its blocks of code as the source has it now.  Raises ValueError that begins with the
    chapter's `name` and a line, for a block that is not well formed or names what is not there."""
    good = {match.start() for match in _BLOCK.finditer(text)}
    for mark in _MARK.finditer(text):
        if mark.start() not in good:
            raise ValueError(f"{name}, line {_line(text, mark)}: a block of code is <!-- code: FILE FUNCTION --> and "
                             f"then, in the next line, ```python; got {mark[0]}")

    def put(match: re.Match[str]) -> str:
        path, function, before = match.groups()
        try:
            if not (root / path).is_file():
                raise ValueError(f"there is no file {path}")
            return match[0][:match.start(3) - match.start()] + code(root / path, function) + "```"
        except ValueError as error:
            raise ValueError(f"{name}, line {_line(text, match)}: {error}") from None
    return _BLOCK.sub(put, text)


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1
