"""Markdown and source as HTML, by pandoc: formulas become MathML, which browsers draw themselves, without a network.

Needs the extra `book` of setup.cfg.
"""
from __future__ import annotations

import base64
import io
import re
import subprocess
import unicodedata
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

from npvae.cli import UsageError

_LINE = re.compile(r'<span id="cb\d+-(\d+)"><a href="#cb\d+-\d+"( aria-hidden="true" tabindex="-1")?></a>')
_BLOCK = re.compile(r'<div class="sourceCode".*?</div>', re.DOTALL)
_MATHML = "{http://www.w3.org/1998/Math/MathML}"
_APPLY, _BAR, _BRACE = "\u2061", "\u00af", "\u23df"      # function application, macron, bottom curly bracket
_FENCE = "~" * 30
_FONT = "ziamath/fonts/STIXTwoMath-Regular.ttf"
#: the italic letters of mathematics by the plain ones: browsers draw the first where <mi> holds the second
_ITALIC = {chr(int(unicodedata.decomposition(chr(code)).split()[1], 16)): chr(code) for code in (0x210E, *range(
    0x1D400, 0x1D7CA)) if unicodedata.name(chr(code), "").startswith(("MATHEMATICAL ITALIC", "PLANCK"))}

ElementTree.register_namespace("", _MATHML[1:-1])


def _convert(text: str, form: str) -> str:
    try:
        import pypandoc
    except ImportError:
        raise UsageError("the site needs pandoc, which pip install -e '.[book]' brings") from None
    command = [pypandoc.get_pandoc_path(), "-f", form, "-t", "html", "--mathml", "--wrap=none", "--fail-if-warnings"]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(" ".join(done.stderr.split()))
    return done.stdout


def html(markdown: str) -> str:
    """Markdown as GitHub reads it.  Raises ValueError for a formula that cannot be drawn."""
    text = _convert(markdown, "gfm")
    # no line begins with the comma behind a formula
    text = re.sub(r"(<math .*?</math>)([.,;:?!)’]+|-\w+|)", lambda match: f'<span class="whole">{_finished(match[1])}'
                  f"{match[2]}</span>" if match[2] else _finished(match[1]), text, flags=re.DOTALL)
    text = re.sub(r'<p>(<math display="block".*?</math>)</p>', r'<div class="formula">\1</div>', text, flags=re.DOTALL)
    return re.sub(r"(<table>.*?</table>)", r'<div class="scroll">\1</div>', _LINE.sub(r"<span>", text),
                  flags=re.DOTALL)


def _finished(formula: str) -> str:
    """A formula as browsers draw it well: spaces around a function such as log, as in print; bars and braces over and
    under several letters as lines, since fonts have none of every width."""
    tree = ElementTree.fromstring(formula)
    for node in [*tree.iter()]:
        children = [*node]
        tags = [child.tag.removeprefix(_MATHML) for child in children]
        if tags == ["mi", "mo"] and children[1].text == _APPLY:
            node.tag, node.text, node.attrib = children[0].tag, children[0].text, children[0].attrib
            node[:] = []
        elif tags == ["mrow", "mo"] and children[1].text in (_BAR, _BRACE):
            node.tag = children[0].tag
            node.set("class", "bar" if children[1].text == _BAR else "brace")
            node.remove(children[1])
    for row in [*tree.iter(f"{_MATHML}mrow"), *tree.iter(f"{_MATHML}mtd")]:
        children, spaces = [*row], 0
        for i, child in enumerate(children):
            before, after = children[i - 1] if i else None, children[i + 1] if i + 1 < len(children) else None
            if _is_function(child):
                for place, other in ((i, before), (i + 1, after)):
                    if other is not None and not _is_mark(other) and not (place == i and _is_function(other)):
                        row.insert(place + spaces, ElementTree.Element(f"{_MATHML}mspace", {"width": "0.167em"}))
                        spaces += 1
    return ElementTree.tostring(tree, "unicode", short_empty_elements=False).replace(f' xmlns="{_MATHML[1:-1]}"', "")


def _is_function(node: ElementTree.Element) -> bool:
    """log, max over j, and the like."""
    while node.tag.removeprefix(_MATHML) in ("munder", "msub", "msup"):
        node = node[0]
    return node.tag == f"{_MATHML}mi" and node.get("mathvariant") == "normal" and len(node.text or "") > 1


def _is_mark(node: ElementTree.Element) -> bool:
    """An operator, a sign, a space, or a whole that begins with a bracket."""
    return node.tag in (f"{_MATHML}mo", f"{_MATHML}mspace") or node.text == "\u2212" or bool(
        node.tag == f"{_MATHML}mrow" and len(node) and _is_mark(node[0]))


def highlighted(sources: Mapping[Path, str]) -> dict[Path, str]:
    """Each source as a block of code whose lines have the ids L1, L2 and so on."""
    languages = {".py": "python", ".js": "javascript", ".css": "css", ".html": "html", ".yml": "yaml", ".cfg": "ini",
                 ".toml": "toml", ".json": "json", ".jsonl": "json"}
    text = "\n\n".join(f"{_FENCE}{{.{languages.get(path.suffix, 'default')}}}\n{source.rstrip()}\n{_FENCE}"
                       for path, source in sources.items())
    blocks = _BLOCK.findall(_convert(text, "markdown").replace('class="default"', 'class="sourceCode"'))
    assert len(blocks) == len(sources)
    return {path: _LINE.sub(r'<span id="L\1"><a class="number" href="#L\1">\1</a>', block)
            for path, block in zip(sources, blocks, strict=True)}


def math_font(characters: set[str]) -> str:
    """STIX Two Math (SIL Open Font License) with these characters, their italics, the root, and all that formulas need
    to stretch them, as a data URI: a browser without a font for mathematics, as on many phones, would draw poor ones.

    No text holds the root: it is drawn for <msqrt>, and left out if the first font that has any letter has no root.
    """
    from fontTools import subset, ttLib
    try:
        path = metadata.distribution("ziamath").locate_file(_FONT)
    except metadata.PackageNotFoundError:
        raise UsageError("the site needs a font for mathematics, which pip install -e '.[book]' brings") from None
    font = ttLib.TTFont(str(path))
    maker = subset.Subsetter(subset.Options(layout_features=["ssty", "dtls"], notdef_outline=True, hinting=False))
    italics = {_ITALIC[c] for c in characters if c in _ITALIC}
    maker.populate(text="".join(sorted({"\u221a", *characters, *italics})))
    maker.subset(font)
    font.flavor = "woff"
    stream = io.BytesIO()
    font.save(stream)
    return "data:font/woff;base64," + base64.b64encode(stream.getvalue()).decode()
