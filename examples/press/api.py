"""The reference of npvae's public names: signatures and docstrings, read from the source."""
from __future__ import annotations

import ast
import html
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from .source import EQUATION, ROOT, Place, definitions, module

Link = Callable[[str], str]

_WIDTH = 88
#: a line of a docstring whose words stand in columns: a formula or a table, to be shown as it is
_COLUMNS = re.compile(r"\S {3,}\S")


def modules() -> list[Path]:
    """Every module with a docstring, in the order in which `npvae/__init__.py` names their rooms."""
    text = ast.get_docstring(module(ROOT / "npvae" / "__init__.py")[0]) or ""
    places = {name.strip("/"): text.index(name) for name in re.findall(r"\b[\w/]+(?:\.py|/)(?=[ ,;])", text)}

    def order(path: Path) -> tuple[int, bool, str]:
        name = path.relative_to(ROOT / "npvae").as_posix()
        room = max((known for known in places if name.startswith(known)), key=len, default="")
        return (places[room] if room else len(text) * (name != "__init__.py"), path.name != "__init__.py", name)
    return sorted((path for path in (ROOT / "npvae").rglob("*.py") if ast.get_docstring(module(path)[0])), key=order)


def dotted(path: Path) -> str:
    """npvae/layers.py as npvae.layers."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public(path: Path) -> list[Place]:
    """What a module defines for others.  Of several with one name (overloads, setters) it is the first that has a
    docstring, or the first."""
    found: dict[str, Place] = {}
    for place in definitions(path):
        if place.is_public and not (place.name in found and found[place.name].doc):
            found[place.name] = place
    return list(found.values())


def _arguments(node: ast.FunctionDef, method: bool) -> str:
    args = node.args
    if method and not any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list):
        args = ast.arguments(args.posonlyargs, args.args[1:], args.vararg, args.kwonlyargs, args.kw_defaults,
                             args.kwarg, args.defaults)
    return ast.unparse(args)


def signature(place: Place) -> str:
    """A function's first line, as short lines; a class with the arguments that make an object, and its fields."""
    node, name = place.node, place.name.split(".")[-1]
    if isinstance(node, ast.ClassDef):
        init = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        head = f"class {name}"
        inside = _arguments(init[0], True) if init else ", ".join(map(ast.unparse, node.bases))
        after = "".join(f"\n    {ast.unparse(one)}" for one in node.body if isinstance(one, ast.AnnAssign)
                        and isinstance(one.target, ast.Name) and not one.target.id.startswith("_"))
    else:
        head, inside = name, _arguments(node, "." in place.name)
        after = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if isinstance(node, ast.FunctionDef) and any(ast.unparse(one).endswith("property") for one in node.decorator_list):
        return f"{head}{after.replace(' -> ', ': ')}"
    if len(f"{head}({inside}){after}".splitlines()[0]) > _WIDTH:
        inside = "\n    " + ",\n    ".join(_split(inside)) + "\n"
    return f"{head}({inside}){after}"


def _split(arguments: str) -> list[str]:
    """At commas outside of brackets and strings."""
    return [part.strip() for part in re.findall(r"(?:\[[^]]*(?:\[[^]]*\][^]]*)*\]|\([^)]*\)|'[^']*'|[^,])+", arguments)]


def docstring(text: str, link: Link) -> str:
    """A docstring as HTML: paragraphs, and what stands in columns or is indented as it is.  `link` gives the address of
    an equation."""
    parts = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        columns = any(line.startswith("  ") or _COLUMNS.search(line) or set(line) == {"-"} for line in lines)
        shown = _text(textwrap.dedent(block), link)
        parts.append(f'<pre class="doc">{shown}</pre>' if columns else f"<p>{shown}</p>")
    return "\n".join(parts)


def _text(text: str, link: Link) -> str:
    text = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return EQUATION.sub(lambda match: f'<a href="{link(match[0])}">{match[0]}</a>' if link(match[0]) else match[0],
                        text)
