"""What must hold for a finished site: every link leads somewhere, no formula is left as it was typed."""
from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

_TYPED = re.compile(r"\$|\\[a-zA-Z]+|\\\\")


class _Page(HTMLParser):
    """The ids and links of a page, and the text in which a formula may have been left."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.twice: set[str] = set()
        self.links: list[str] = []
        self.typed: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            (self.twice if given["id"] in self.ids else self.ids).add(str(given["id"]))
        self.links += [str(given[name]) for name in ("href", "src") if given.get(name)]
        if tag == "merror" or "math" in (given.get("class") or "").split():
            self.typed.append(f"<{tag}>")
        if tag in ("pre", "code", "script", "style", "annotation"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open and _TYPED.search(data):
            self.typed.append(data.strip())


def complaints(site: Path) -> list[str]:
    """One line for each link that leads nowhere, id that stands twice on a page, and formula that was not drawn."""
    pages = {path.resolve(): _Page(path) for path in sorted(site.rglob("*.html"))}
    said = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        if not name.startswith("api/"):      # docstrings may speak of $ and \\n, and formulas in them are plain text
            said += [f"{name}: a formula is left as it was typed: {text[:80]}" for text in page.typed]
        said += [f"{name}: the id {one} stands twice" for one in sorted(page.twice)]
        for link in page.links:
            if re.match(r"(https?|data|mailto):", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            place = (path.parent / target).resolve() if target else path
            if not place.is_file():
                said.append(f"{name}: {link} leads to no file")
            elif anchor and place in pages and anchor not in pages[place].ids:
                said.append(f"{name}: {link} leads to no place on that page")
    return said
