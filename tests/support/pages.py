"""A web page read without a browser: its elements in order, every one closed where it should be."""
import re
from html.parser import HTMLParser
from pathlib import Path

LINK = re.compile(r'"D\d+\.\d+": ?"(file|https)://[^"]*"')      # from an equation to its chapter, in the data of a page
VOID = {"meta", "link", "img", "input", "br"}
ALONE = {"svg", "circle", "line", "path", "polyline"}      # of SVG: may close themselves


class Page(HTMLParser):
    """elements: [tag, attributes, the text directly in it], in the order in which they open.  Raises AssertionError
    where tags are not nested."""

    def __init__(self, path):
        super().__init__()
        self.text, self.elements, self.open = Path(path).read_text(encoding="utf-8"), [], []
        self.feed(self.text)
        self.close()
        assert self.open == [] and self.elements[0][0] == "html"

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), (tag, attributes)
        self.elements.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        assert tag in ALONE
        self.elements.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def all(self, tag, **attributes):
        """(attributes, text) of each element of that tag that has those attributes; class_ for class."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [(found, text) for name, found, text in self.elements
                if name == tag and wanted.items() <= found.items()]

    def texts(self, tag, **attributes):
        return [text for _, text in self.all(tag, **attributes)]


def loads_nothing(page):
    """Every address in it holds its own data, and its policy allows no other.  A link that a reader may follow to a
    chapter loads nothing."""
    addresses = [value for _, attributes, _ in page.elements for name, value in attributes.items()
                 if name in ("src", "href", "srcset", "action", "data", "poster", "background")]
    policy, = [found["content"] for found, _ in page.all("meta", http_equiv="Content-Security-Policy")]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    return (all(address.startswith("data:") for address in addresses) and "://" not in LINK.sub("", page.text)
            and "@import" not in page.text and "url(" not in page.text and rules.pop("default-src") == "'none'"
            and rules.pop("img-src") == "data:" and {*rules} <= {"style-src", "script-src"}
            and {*rules.values()} == {"'unsafe-inline'"})
