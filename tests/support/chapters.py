"""The chapters of `examples/derivations`: what runs in them, and the equations they number."""
import doctest
import functools
import re
from pathlib import Path

import numpy as np

from npvae.kernels import load, reference

ROOT = Path(__file__).parents[2]
#: by what stands before the dash in the file's name: a number for a chapter, a letter for an appendix
CHAPTERS = {path.name.split("-")[0]: path for path in sorted((ROOT / "examples" / "derivations").glob("*-*.md"))}
EQUATION = re.compile(r"\bD\d+\.\d+\b")
#: where a chapter states an equation: its id stands in bold at the start of a line, as a link or not
STATED = re.compile(r"^\*\*\[?(D\d+\.\d+)\]?\*\*", re.MULTILINE)
FENCE = re.compile(r"^```(\w*)$")


@functools.cache
def _chapters_by_equation() -> dict[str, str]:
    return {equation: chapter for chapter, path in CHAPTERS.items()
            for equation in STATED.findall(path.read_text(encoding="utf-8"))}


def chapter_of(equation: str) -> str:
    """The chapter that states an equation, such as "06"; "" if none does."""
    return _chapters_by_equation().get(equation, "")


def code_of(text: str) -> str:
    """The text with every line outside of ```python fences left empty, so that line numbers stay those of the file."""
    lines, language = [], None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = fence[1] if language is None else None
        lines.append(line if language == "python" and not fence else "")
    return "\n".join(lines) + "\n"


def failures(path: Path) -> str:
    """Run a chapter up to its first failure; what doctest has to say, empty if all is as it stands there."""
    test = doctest.DocTestParser().get_doctest(code_of(path.read_text(encoding="utf-8")), {}, path.stem, str(path), 0)
    assert test.examples, f"nothing runs in {path.name}"
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.FAIL_FAST).run(test, out=said.append)
    return "".join(said)


def fused_where_real(name):
    """The compiled twin of a kernel, but for complex numbers, which only the reference takes."""
    plain, compiled = getattr(reference, name), getattr(load("numba"), name)      # loaded when a test asks

    def kernel(*arguments):
        numbers = (value for value in arguments if isinstance(value, np.ndarray))
        return (plain if any(np.iscomplexobj(value) for value in numbers) else compiled)(*arguments)
    return kernel
