"""What a column of a table is: its name, its kind of numbers, and the family of distributions that fits them.  Read
before `table.py`; `data/columns.py` finds the kind of each column from the data.
"""
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

from ..system.files import parse_json, read_text
from ..system.terminal import plain, shortened
from ..validate import one_of, shown

#: family of distributions -> the kind of numbers that it is for
FAMILIES = {"gaussian": "real", "student-t": "real", "laplace": "real", "log-normal": "positive", "poisson": "count",
            "negative-binomial": "count", "bernoulli": "binary", "categorical": "category", "ordinal": "ordinal"}
#: kind of numbers -> its family, unless another is asked for
KINDS = {"real": "gaussian", "positive": "log-normal", "count": "negative-binomial", "binary": "bernoulli",
         "category": "categorical", "ordinal": "ordinal"}
#: kinds whose cells are indices of levels
CODED = ("binary", "category", "ordinal")
#: in place of a family: the column is left out
SKIP = "skip"

_ITEM = re.compile(r"(?P<name>.+):(?P<kind>[a-z-]+)(?:\((?P<levels>.*)\))?", re.DOTALL)
#: families and kinds, as an error lists them
ALLOWED = one_of([*KINDS, *(family for family in FAMILIES if family not in KINDS), SKIP])


class Column(NamedTuple):
    """A column of a table.

    A cell is a number: itself for reals and counts, the index of its level for the others.  NaN is a missing cell.
    """

    name: str
    family: str                      # a key of `FAMILIES`
    levels: tuple[str, ...] = ()     # of binary, category and ordinal columns, as they are written in the file
    location: float = 0.0            # mean and standard deviation of the training rows, in which the network
    scale: float = 1.0               # counts; of log x for positive numbers, of log(1 + x) for counts
    decimals: int = 6                # at most, in the data: 0 for whole numbers

    @property
    def kind(self) -> str:
        """The kind of its numbers, a key of `KINDS`."""
        return FAMILIES[self.family]

    def text(self, value: float) -> str:
        """A number of this column as its file would write it; empty where the cell is missing."""
        if value != value:
            return ""
        if self.levels:
            return self.levels[round(value)]
        text = f"{value:.{self.decimals}f}"
        return text.rstrip("0").rstrip(".") if self.decimals else text


def plain_column(column: Column) -> dict[str, object]:
    """The column as values of JSON."""
    return {**column._asdict(), "levels": list(column.levels)}


def column_of(plain: object) -> Column:
    """The column of `plain_column`.  Raises ValueError for what is none."""
    given = dict(plain) if isinstance(plain, Mapping) else {}
    name, family, levels = given.get("name"), given.get("family"), given.get("levels")
    location, scale, decimals = given.get("location"), given.get("scale"), given.get("decimals")
    if not (given.keys() == {*Column._fields} and isinstance(name, str) and isinstance(family, str)
            and family in FAMILIES and isinstance(levels, list) and all(isinstance(level, str) for level in levels)
            and isinstance(location, (int, float)) and isinstance(scale, (int, float)) and math.isfinite(location)
            and 0 < scale < math.inf and type(decimals) is int and 0 <= decimals <= 20):
        raise ValueError(f"{shown(plain)} is no column of a table")
    fewest = 2 if FAMILIES[family] in CODED else 0
    if len({*levels}) != len(levels) or len(levels) < fewest or len(levels) > (
            2 if family == "bernoulli" else math.inf if fewest else 0):
        raise ValueError(f"column {shown(name)} of family {family} cannot have the levels {shown(levels)}")
    return Column(name, family, tuple(levels), float(location), float(scale), decimals)


def family_of(name: str) -> str:
    """The family of that name, or of that kind of numbers; or `SKIP`.  Raises ValueError with what is allowed."""
    family = KINDS.get(name, name)
    if family not in FAMILIES and family != SKIP:
        raise ValueError(f"{shown(name)} is no kind of column: {ALLOWED} are allowed")
    return family


class Wish(NamedTuple):
    """What someone says of a column: its family, or `SKIP`, and its levels in order, if they are given."""

    family: str
    levels: tuple[str, ...] = ()


def wishes(text: str) -> dict[str, Wish]:
    """Name of a column -> what the text says of it, as in "age:gaussian,city:categorical,grade:ordinal(low|mid|high)".
    Raises ValueError."""
    found: dict[str, Wish] = {}
    for item in _items(text):
        parts = _ITEM.fullmatch(item.strip())
        if parts is None:
            raise ValueError(f"{shown(item.strip())} is not NAME:KIND, as age:gaussian or grade:ordinal(low|mid|high); "
                             "names with commas or colons need a file, columns.json")
        name, kind, levels = parts["name"].strip(), parts["kind"], parts["levels"]
        if name in found:
            raise ValueError(f"column {shown(name)} is named twice")
        found[name] = _wish(name, kind, [] if levels is None else [level.strip() for level in levels.split("|")])
    return found


def _items(text: str) -> list[str]:
    """The items between the commas that stand in no parentheses."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += letter
    return items


def wishes_of(schema: object) -> dict[str, Wish]:
    """Name of a column -> what a schema, as a JSON file holds it, says of it:  {"age": "gaussian", "grade": {"kind":
    "ordinal", "levels": ["low", "mid", "high"]}}.  Raises ValueError."""
    if not isinstance(schema, Mapping):
        raise ValueError(f"it must be an object that gives each column a kind, got {shown(schema)}")
    found = {}
    for name, said in schema.items():
        kind, levels = (said.get("kind"), said.get("levels", [])) if isinstance(said, Mapping) else (said, [])
        extra = {*said} - {"kind", "levels"} if isinstance(said, Mapping) else ()
        if not isinstance(kind, str) or not isinstance(levels, Sequence) or extra:
            raise ValueError(f"column {shown(name)} must have a kind, as \"gaussian\", or {{\"kind\": \"ordinal\", "
                             f"\"levels\": [\"low\", \"high\"]}}, got {shown(said)}")
        found[str(name)] = _wish(str(name), kind, [str(level) for level in levels])
    return found


#: what is said of the columns: text or the path of a .json, as for `--columns`; what the file holds; or columns
Wanted = str | Path | Mapping[str, object] | Sequence[Column] | None


def are_columns(wanted: Wanted) -> TypeGuard[Sequence[Column]]:
    """Whether these are columns as found for a model that exists."""
    return isinstance(wanted, Sequence) and not isinstance(wanted, str)


def said_of(wanted: Wanted) -> dict[str, Wish]:
    """Name of a column -> what is said of it.  Raises ValueError."""
    if isinstance(wanted, Path) or isinstance(wanted, str) and wanted.lower().endswith(".json"):
        try:
            return wishes_of(parse_json(read_text(wanted)))
        except OSError as error:
            raise ValueError(f"{wanted}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ValueError(f"{wanted}: {error}") from None
    return wishes(wanted) if isinstance(wanted, str) else {} if wanted is None else wishes_of(wanted)


def _wish(name: str, kind: str, levels: Sequence[str]) -> Wish:
    try:
        family = family_of(kind)
        if levels and FAMILIES.get(family) not in CODED:
            raise ValueError(f"{kind} takes no levels")
        if levels and (len({*levels}) < max(2, len(levels)) or "" in levels):
            raise ValueError("levels must be two or more different texts")
        if levels and family == "bernoulli" and len(levels) > 2:
            raise ValueError(f"binary takes two levels, got {len(levels)}")
    except ValueError as error:
        raise ValueError(f"column {shown(name)}: {error}") from None
    return Wish(family, tuple(levels))


def listing(columns: Iterable[tuple[str, str, str, int]]) -> str:
    """A line for each column: name, kind, range or levels, number of missing cells."""
    rows = [("column", "kind", "range or levels", "missing"),
            *((shortened(plain(name), 30), kind, shortened(plain(what), 48), f"{missing:,}" if missing else "-")
              for name, kind, what, missing in columns)]
    widths = [max(map(len, part)) for part in zip(*rows)]
    return "\n".join("  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths)),
                                       row[3].rjust(widths[3])]) for row in rows)
