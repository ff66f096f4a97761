"""The site: chapters, appendices, exercises, the reference of npvae, and its source with a link to each line.

A page stands where its file stands in the repository, without `examples/` before it: `derivations/06-kl.html`,
`npvae/layers.py.html`.  A file gets a page when a page links to it.  Needs the extra `book` of setup.cfg.
"""
from __future__ import annotations

import ast
import html
import json
import os
import re
import shutil
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from . import api, pandoc, source
from .notebooks import colab
from .source import EQUATION, ROOT, STATED

TITLE = "Backpropagation through a VAE"
HERE = Path(__file__).parent
CHAPTERS, EXERCISES = ROOT / "examples" / "derivations", ROOT / "examples" / "exercises"
_TEXT = {".py", ".js", ".css", ".html", ".cfg", ".toml", ".md", ".jsonl", ".json", ".yml", ""}
_VOID = {"br", "img", "hr", "input", "meta", "link", "wbr"}


class Section(NamedTuple):
    """What the search finds: where it is, under which title, and its words."""

    page: str
    anchor: str
    title: str
    words: list[str]


class Page(NamedTuple):
    """A page in the list of contents: the file it is made of, where it goes, its title."""

    path: Path
    out: PurePosixPath
    title: str


def place_of(path: Path) -> PurePosixPath:
    """Where on the site a file or folder of the repository is."""
    parts = PurePosixPath(path.relative_to(ROOT).as_posix())
    if parts.parts[:1] == ("examples",) and len(parts.parts) > 1:
        parts = PurePosixPath(*parts.parts[1:])
    if path == CHAPTERS / "README.md":
        return PurePosixPath("index.html")
    if path.is_dir():
        return place_of(path / "README.md") if (path / "README.md").is_file() else parts / "index.html"
    if path.suffix == ".md":
        return parts.with_name("index.html" if parts.name == "README.md" and len(parts.parts) > 1
                               else f"{parts.stem}.html")
    return parts.with_name(parts.name + ".html") if path.suffix in _TEXT else parts


def relative(target: PurePosixPath, page: PurePosixPath) -> str:
    """The address of `target` on `page`."""
    return PurePosixPath(os.path.relpath(target, page.parent)).as_posix()


def title_of(path: Path) -> str:
    """The first heading of a chapter, without marks."""
    heading = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return re.sub(r"[`*$]", "", heading[1]) if heading else path.stem


def contents() -> dict[str, list[Page]]:
    """The chapters and exercises, in reading order, part by part."""
    parts: dict[str, list[Page]] = {"": [Page(CHAPTERS / "README.md", PurePosixPath("index.html"), "Contents")]}
    for path in sorted(CHAPTERS.glob("*-*.md")):
        number = path.name.split("-")[0]
        part = "Appendices" if not number.isdigit() else "Part one" if int(number) < 10 else "Part two"
        parts.setdefault(part, []).append(Page(path, place_of(path), title_of(path)))
    for path in sorted(set(CHAPTERS.glob("*.md")) - set(CHAPTERS.glob("*-*.md")) - {CHAPTERS / "README.md"}):
        parts.setdefault("Appendices", []).append(Page(path, place_of(path), title_of(path)))
    exercises = sorted(EXERCISES.glob("**/*.md"), key=lambda path: (path.name != "README.md", path.name))
    if exercises:
        parts["Exercises"] = [Page(path, place_of(path), title_of(path)) for path in exercises]
    return parts


class Site:
    """Everything that is written, by its place; and the files that pages have asked for."""

    def __init__(self, repository: str = "") -> None:
        self.repository = repository
        self.contents = contents()
        self.stated = {equation: page.out for pages in self.contents.values() for page in pages
                       for equation in STATED.findall(page.path.read_text(encoding="utf-8"))}
        self.written: dict[PurePosixPath, str | Path] = {}
        self.sections: list[Section] = []
        self.wanted: list[Path] = []

    def make(self) -> None:
        """All pages.  Raises ValueError for a formula that cannot be drawn, UsageError without the extra `book`."""
        order = [page for pages in self.contents.values() for page in pages]
        for i, page in enumerate(order):
            self.markdown(page, order[i - 1] if i else None, order[i + 1] if i + 1 < len(order) else None)
        self.reference()
        done = {page.path for page in order}
        sources: dict[Path, str] = {}
        while self.wanted:
            path = self.wanted.pop()
            if path in done:
                continue
            done.add(path)
            if path.is_dir():
                self.folder(path)
            elif path.suffix == ".md":
                self.markdown(Page(path, place_of(path), title_of(path)), None, None)
            elif path.suffix in _TEXT:
                sources[path] = path.read_text(encoding="utf-8")
            else:
                self.written[place_of(path)] = path
        for path, block in pandoc.highlighted(dict(sorted(sources.items()))).items():
            self.source(path, block)
        self.written[PurePosixPath("book.js")] = HERE / "book.js"
        self.written[PurePosixPath("search.js")] = "INDEX = " + json.dumps(
            [[*section[:3], " ".join(" ".join(section.words).split())] for section in self.sections],
            ensure_ascii=False) + "\n"
        text = "".join(text for text in self.written.values() if isinstance(text, str))
        drawn = {c for formula in re.findall(r"<math.*?<annotation", text, re.DOTALL) for c in html.unescape(formula)}
        self.written[PurePosixPath("book.css")] = (HERE / "book.css").read_text(encoding="utf-8").replace(
            "MATH_FONT", pandoc.math_font(drawn))

    def write(self, out: Path) -> None:
        """Write it to a folder."""
        for place, content in self.written.items():
            path = out / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                shutil.copyfile(content, path)

    # ---- kinds of pages

    def markdown(self, page: Page, before: Page | None, after: Page | None) -> None:
        text = page.path.read_text(encoding="utf-8").split("<!-- equations -->")[0]
        text = STATED.sub(r"**\1**", text)
        body = pandoc.html(text)
        body = re.sub(r"<p><strong>(D\d+\.\d+)</strong>", lambda match: self._stated(match[1], page.out), body)
        body = re.sub(r"<!-- code: (\S+) (\S+) -->", lambda match: self._from(match[1], match[2], page.out), body)
        rewriter = Rewriter(self, page.path.parent, page.out, page.title)
        body = rewriter.rewritten(body)
        around = "".join(f'<a class="{name}" href="{relative(other.out, page.out)}" rel="{name}">{other.title}</a>'
                         for name, other in (("prev", before), ("next", after)) if other)
        if self.repository and page.path.parent == CHAPTERS and "-" in page.path.stem:
            address = colab(self.repository, page.path)
            body = body.replace("</h1>", f'</h1>\n<p><a href="{address}">Open as a notebook in Colab</a></p>', 1)
        self.page(page.out, page.title, body + (f'<p class="around">{around}</p>' if around else ""))

    def _stated(self, equation: str, page: PurePosixPath) -> str:
        """The start of an equation: its id, a place to link to, and beside it the function that computes it."""
        computed = source.computed().get(equation)
        line = "" if computed is None else (
            f'<a class="computed" href="{self.line(computed, page)}" title="the code that computes it">'
            f"<code>{computed.name}</code></a>")
        return f'<p class="stated" id="{equation}">{line}<strong><a href="#{equation}">{equation}</a></strong>'

    def _from(self, file: str, name: str, page: PurePosixPath) -> str:
        place = next(place for place in source.definitions(ROOT / file) if place.name == name)
        return f'<p class="from"><a href="{self.line(place, page)}">{file}, line {place.line}</a></p>'

    def line(self, place: source.Place, page: PurePosixPath) -> str:
        """The address of the line at which something is defined."""
        self.wanted.append(place.path)
        return f"{relative(place_of(place.path), page)}#L{place.line}"

    def equation(self, equation: str, page: PurePosixPath) -> str:
        """The address of an equation; "" if no chapter states it."""
        return f"{relative(self.stated[equation], page)}#{equation}" if equation in self.stated else ""

    def reference(self) -> None:
        """A page for each module, and their list."""
        rows = []
        for path in api.modules():
            name, tree = api.dotted(path), source.module(path)[0]
            out = PurePosixPath("api", f"{name}.html")
            doc = ast.get_docstring(tree) or ""
            rows.append(f'<tr><td><a href="{name}.html"><code>{name}</code></a></td>'
                        f"<td>{html.escape(doc.splitlines()[0])}</td></tr>")
            self.wanted.append(path)
            parts = [f"<h1>{name}</h1>", self._docstring(doc, out),
                     f'<p><a href="{relative(place_of(path), out)}">source</a></p>']
            self.sections.append(Section(out.as_posix(), "", name, [doc]))
            for place in api.public(path):
                level = 3 if "." in place.name else 2
                parts.append(f'<h{level} id="{place.name}"><code>{place.name}</code> <a class="computed" '
                             f'href="{self.line(place, out)}">source</a></h{level}>\n'
                             f'<pre class="signature">{html.escape(api.signature(place))}</pre>\n'
                             f"{self._docstring(place.doc, out)}")
                self.sections.append(Section(out.as_posix(), place.name, f"{name}.{place.name}", [place.doc]))
            self.page(out, name, "\n".join(parts))
        self.page(PurePosixPath("api/index.html"), "Reference of npvae", "<h1>Reference of npvae</h1>\n<p>Public "
                  "names, module by module, in reading order.  An id such as D6.1 in a docstring leads to the "
                  "equation.</p>\n"
                  f'<div class="scroll"><table>{"".join(rows)}</table></div>')

    def _docstring(self, text: str, page: PurePosixPath) -> str:
        return api.docstring(text, lambda equation: self.equation(equation, page))

    def folder(self, path: Path) -> None:
        """The files and folders in a folder; those of npvae get pages."""
        out, rows = place_of(path), []
        for inner in sorted(path.iterdir()):
            if inner.name.startswith((".", "__pycache__")) or inner.suffix not in _TEXT:
                continue
            doc = (ast.get_docstring(source.module(inner)[0]) or "") if inner.suffix == ".py" else ""
            entry = f"<code>{inner.name}{'/' * inner.is_dir()}</code>"
            if inner.is_relative_to(ROOT / "npvae"):
                self.wanted.append(inner)
                entry = f'<a href="{relative(place_of(inner), out)}">{entry}</a>'
            rows.append(f"<tr><td>{entry}</td><td>{html.escape(doc.partition(chr(10))[0])}</td></tr>")
        name = path.relative_to(ROOT).as_posix()
        self.page(out, name, f'<h1>{name}</h1>\n<div class="scroll"><table>{"".join(rows)}</table></div>')

    def source(self, path: Path, block: str) -> None:
        """A file, line by line; equations that it names are links."""
        out, name = place_of(path), path.relative_to(ROOT).as_posix()

        def link(match: re.Match[str]) -> str:
            target = self.equation(match[0], out)
            return f'<a href="{target}">{match[0]}</a>' if target else match[0]
        self.page(out, name, f'<h1>{name}</h1>\n{EQUATION.sub(link, block)}')

    def page(self, out: PurePosixPath, title: str, body: str) -> None:
        """A page with all that is around it."""
        up = "../" * (len(out.parts) - 1)
        whole = (HERE / "page.html").read_text(encoding="utf-8")
        for name, value in (("UP", up), ("BOOK", TITLE), ("TITLE", html.escape(title)), ("CONTENTS", self._list(out)),
                            ("BODY", body)):
            whole = whole.replace("{" + name + "}", value)
        self.written[out] = whole

    def _list(self, page: PurePosixPath) -> str:
        """The list of contents, as it stands on a page."""
        def item(target: PurePosixPath, title: str) -> str:
            here = ' aria-current="page"' if target == page else ""
            return f'<li><a href="{relative(target, page)}"{here}>{title}</a></li>'
        parts = [(f"<h2>{part}</h2>" if part else "") + "<ul>"
                 + "".join(item(one.out, html.escape(one.title)) for one in pages) + "</ul>"
                 for part, pages in self.contents.items()]
        self.wanted.append(ROOT / "npvae")
        parts.append("<h2>Code</h2><ul>" + item(PurePosixPath("api/index.html"), "Reference of npvae")
                     + item(place_of(ROOT / "npvae"), "Source of npvae") + "</ul>")
        return "".join(parts)


class Rewriter(HTMLParser):
    """Passes a page on with its links as they are on the site and with the equations it names as links, and collects
    what the search shall find."""

    def __init__(self, site: Site, folder: Path, out: PurePosixPath, title: str) -> None:
        super().__init__(convert_charrefs=False)
        self.site, self.folder, self.page, self.title = site, folder, out, title
        self.parts: list[str] = []
        self.open: list[str] = []
        self.heading: str | None = None

    def rewritten(self, text: str) -> str:
        self.feed(text)
        self.close()
        return "".join(self.parts)

    def inside(self, *tags: str) -> bool:
        return any(tag in self.open for tag in tags)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text, given = self.get_starttag_text() or "", dict(attrs)
        for name in ("href", "src"):
            if given.get(name):
                text = text.replace(f'{name}="{html.escape(str(given[name]))}"',
                                    f'{name}="{html.escape(self.link(str(given[name])))}"')
        if tag in ("h1", "h2", "h3"):
            self.site.sections.append(Section(self.page.as_posix(), "" if tag == "h1" else given.get("id") or "",
                                              self.title, []))
        if tag == "p" and given.get("class") == "stated":
            self.site.sections.append(Section(self.page.as_posix(), given["id"] or "", f"{given['id']}, {self.title}",
                                              []))
        if tag == "math" and self.site.sections:
            self.site.sections[-1].words.append("…")
        self.parts.append(text)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        self.parts.append(f"</{tag}>")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self.inside("pre", "math") and self.site.sections:
            self.site.sections[-1].words.append(data)
        if not self.inside("a", "pre", "code", "math", "h1", "h2", "h3"):
            def link(match: re.Match[str]) -> str:
                target = self.site.equation(match[0], self.page)
                return f'<a href="{target}">{match[0]}</a>' if target else match[0]
            data = EQUATION.sub(link, data)
        self.parts.append(data)

    def handle_entityref(self, name: str) -> None:
        self.parts.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.parts.append(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        pass

    def link(self, target: str) -> str:
        """A link of the repository as one of the site."""
        file, mark, anchor = target.partition("#")
        if re.match(r"(https?|data|mailto):", target) or not file:
            return target
        path = Path(os.path.normpath(self.folder / file))
        if not path.is_relative_to(ROOT) or not path.exists():
            return target      # the check of the finished site reports it
        self.site.wanted.append(path)
        return relative(place_of(path), self.page) + mark + anchor


def build(out: Path, repository: str = "") -> Iterable[Path]:
    """Make the site in a folder; the files written.  With a `repository`, OWNER/NAME on GitHub, each chapter links to
    its notebook in Colab."""
    site = Site(repository)
    site.make()
    site.write(out)
    return [out / place for place in site.written]
