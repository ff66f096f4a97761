"""The mutation harness on toy modules; and, with `pytest -m slow`, the whole study."""
import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import mutation
from equivalent_mutants import EQUIVALENT, PATTERNS, reason
from mutation import mutants

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the harness forks")
TESTS = Path(__file__).resolve().parent

SOURCE = '''"""A module."""
import math

Array = list
RATE = 0.5


def f(a: float, b: float = 2) -> float:
    """A function."""
    if a < b:
        raise ValueError(f"{a} is less than {b - 1}")
    return a - b
'''
CHANGES = {
    "module: constant: RATE = 0.5": ["RATE = 1.5", "RATE = 1.0", "RATE = 0.25", "RATE = -0.5"],
    "f: constant: b=2": ["b=3", "b=1", "b=-2"],
    "f: comparison: if a < b:": ["if a <= b:", "if a > b:"],
    "f: condition: if a < b:": ["if not a < b:", "if True:", "if False:"],
    "f: name: if a < b:": ["if b < b:", "if a < a:"],
    "f: arithmetic: return a - b": ["return a + b", "return a * b", "return a", "return b", "return b - a"],
    "f: sign: return a - b": ["return -(a - b)"],
    "f: name: return a - b": ["return b - b", "return a - a"]}


generate = functools.cache(lambda module: mutation.generate(mutation.ROOT, module))


# --- what is generated ---

def test_exactly_these_mutants_of_a_module():
    """And none in docstrings, annotations, imports, type aliases, messages."""
    expected = {f"{before} -> {after}" for before, changes in CHANGES.items() for after in changes}
    assert {mutant.name for mutant in mutants(SOURCE)} == expected


def test_each_mutant_differs_in_the_one_place_that_its_name_says():
    for mutant in mutants(SOURCE):
        before, after = mutant.name.split(": ", 2)[2].split(" -> ")
        before, after = (f"b: float={text[2:]}" if text.startswith("b=") else text for text in (before, after))
        expected = ast.unparse(ast.parse(SOURCE)).replace(before, after)
        assert ast.unparse(ast.parse(mutant.source)) == expected != ast.unparse(ast.parse(SOURCE)), mutant.name


def changes(operator, line):
    """What an operator makes of one line."""
    source = f"def f(x: Array, z: Array, n: int, mu: Array, logvar: Array, a: Any, flag: bool):\n    {line}\n"
    return [mutant.source.splitlines()[1].strip() for mutant in mutants(source)
            if mutant.name.split(": ")[1] == operator]


@pytest.mark.parametrize("operator, line, expected", [
    ("arithmetic", "return 2 ** n", ["return 2 * n", "return 2 / n", "return 2", "return n", "return n ** 2"]),
    ("arithmetic", "x += z", ["x -= z", "x *= z"]),
    ("sign", "return -n", ["return n"]), ("sign", "y = np.exp(n)", ["y = -np.exp(n)", "y = np.exp(-n)"]),
    ("sign", "y = np.isfinite(x)", []), ("sign", "f(np.abs(x))", []), ("arithmetic", "f(abs(x - z))", [
        "f(abs(x + z))", "f(abs(x * z))", "f(abs(x))", "f(abs(z))"]), ("argument", "np.shares_memory(x, z)", [
            "np.shares_memory(x)"]), ("sign", "return np.empty(n)", []),
    ("comparison", "return a <= n", ["return a < n", "return a >= n"]),
    ("comparison", "return a is not None", ["return a is None"]),
    ("comparison", "return 0 < a == n", ["return 0 <= a == n", "return 0 > a == n", "return 0 < a != n"]),
    ("condition", "return a and n", ["return a or n", "return n", "return a"]),
    ("condition", "return 1 if flag else 2",
     ["return 1", "return 2", "return 1 if not flag else 2", "return 1 if True else 2", "return 1 if False else 2"]),
    ("condition", "return np.where(a, x, z)", ["return x", "return z"]),
    ("condition", "return not a", ["return a"]),
    ("constant", "return 0", ["return 1", "return -1"]), ("constant", "return True", ["return False"]),
    ("constant", "return 3", ["return 4", "return 2", "return -3"]), ("constant", "return 'text'", []),
    ("constant", "np.sum(x, axis=1)", ["np.sum(x, axis=2)", "np.sum(x, axis=0)"]),
    ("function", "return np.exp(n)", ["return np.expm1(n)", "return n"]),
    ("function", "return np.log1p(n)", ["return np.log(n)", "return n"]),
    ("function", "return np.argmax(x)", ["return np.argmin(x)"]), ("function", "return x.copy()", ["return x"]),
    ("function", "return min(a, n)", ["return max(a, n)", "return a", "return n"]),
    ("function", "return list(reversed(x))", ["return list(x)"]),
    ("argument", "f(x, z, n)", ["f(z, x, n)", "f(x, n, z)"]), ("argument", "f(x, x)", []),
    ("argument", "np.sum(x, axis=0, out=z)", ["np.sum(x, out=z)", "np.sum(x, axis=0)"]),
    ("argument", "return g('a', n), g('b', n)", ["return (g('b', n), g('b', n))", "return (g('a', n), g('a', n))"]),
    ("order", "return x[:, None]", ["return x[None, :]"]), ("order", "return {1: x, 2: z}", ["return {1: z, 2: x}"]),
    ("order", "a, b = n, x", ["a, b = (x, n)"]),
    ("index", "return x[:n]", ["return x[n:]", "return x[:]", "return x[:n + 1]", "return x[:n - 1]"]),
    ("index", "return x[::2]", ["return x[:]"]),
    ("index", "return x[n + 1]", ["return x[n + 1 + 1]", "return x[n + 1 - 1]"]),
    ("index", "return range(n)", ["return range(n + 1)", "return range(n - 1)"]),
    ("name", "return x.T", ["return x", "return z.T"]), ("name", "return mu", ["return logvar", "return z"]),
    ("name", "return a.mu + a.logvar", ["return a.logvar + a.logvar", "return a.mu + a.mu"]),
    ("name", "return a.mu", []), ("name", "return len(x)", []),
    ("statement", "x[...] = z", ["pass"]), ("statement", "f(x)", ["pass"]), ("statement", "y = x", []),
    ("statement", "x += z", ["x = z", "pass"])])
def test_what_each_operator_makes(operator, line, expected):
    assert changes(operator, line) == expected


@pytest.mark.parametrize("line", ["raise ValueError(n + 1)", "y = f'{n + 1}'", "y: Array[1]", "import numpy",
                                  "return isinstance(x, n)", "'a text'", "return None",
                                  "if TYPE_CHECKING: import numpy"])
def test_what_is_left_out(line):
    assert list(mutants(f"def f(n):\n    {line}\n")) == []


def test_decorators_stay_as_they_are():
    """Once, and in their place."""
    source = "class A:\n    @property\n    @cache\n    def f(self):\n        return 1\n"
    for mutant in mutants(source):
        assert mutant.source.splitlines()[1:4] == ["    @property", "    @cache", "    def f(self):"]
        assert len(mutant.source.splitlines()) == 5


@pytest.mark.every(3)
@pytest.mark.parametrize("module", [*mutation.TARGETS][::20])
def test_no_two_mutants_are_alike_and_none_is_the_original(module):
    source = mutation.file_of(mutation.ROOT, module).read_text(encoding="utf-8")
    made = generate(module)
    for attribute in ("name", "source"):
        assert max(Counter(getattr(mutant, attribute) for mutant in made).values()) == 1
    assert len(made) >= 10 and source not in {mutant.source for mutant in made}
    for mutant in made[::10]:
        compile(mutant.source, module, "exec")


@pytest.mark.slow
def test_every_explained_mutant_exists():
    """An entry whose code has changed is to be removed; each has a reason."""
    patterns = [(owner, pattern) for owners in PATTERNS.values() for owner, pattern in owners.items()]
    named = {*(name.partition(": ")[0] for name in EQUIVALENT), *(owner for owner, _ in patterns)}
    made = set()
    for module in mutation.TARGETS:
        short = mutation.short(module) + "."
        owners = {name.removeprefix(short) for name in named if name.startswith(short)}
        source = mutation.file_of(mutation.ROOT, module).read_text(encoding="utf-8")
        made |= {short + mutant.name for mutant in mutants(source, owners)}
    assert {*EQUIVALENT} <= made, {*EQUIVALENT} - made
    for owner, pattern in patterns:
        assert any(re.fullmatch(f"{re.escape(owner)}: {pattern}", name, re.DOTALL) for name in made), (owner, pattern)
    assert all(len(why.split()) >= 4 for why in [*EQUIVALENT.values(), *PATTERNS])


def test_a_pattern_explains_no_more_than_it_matches():
    why, owner = "The last axis of a matrix is axis 1.", "kernels.reference.flows.planar_direction_forward"
    assert PATTERNS[why][owner] == "sign: .*axis=-1.* -> .*axis=1.*"
    assert reason(f"{owner}: sign: f(x, axis=-1) -> f(x, axis=1)") == why
    assert not reason(f"{owner}: sign: f(x, axis=-1) -> f(x, axis=0)")
    assert not reason(f"{owner}_: sign: f(x, axis=-1) -> f(x, axis=1)") and not reason("nothing")


# --- what is judged ---

TOY = """def double(n):
    return 2 * n


def decide(n):
    return not n
"""
IMPORTED = """import functools
import re
RATE = 2


def double(n, more=0):
    return RATE * n + more


TABLE = [double(n) for n in range(3)]


class Squares:
    @functools.cached_property
    def two(self):
        return 2 ** 2
"""
LOOP = """def wait(forever=False):
    while forever:
        pass

"""
RUN = """
import sys
sys.path[:0] = sys.argv[1:]
from pathlib import Path
import mutation, mutation_judge
mutation_judge.GRACE = 0.5
root = Path(sys.argv[2])
study = mutation.Study(root, ["toy.numbers_"], ["toy.numbers_"], lambda name: "", root / "results", processes=2,
                       verbose=True)
print("good" if study.run() else "not good")
"""
ALWAYS = """from toy.numbers_ import decide, double

def test_all():
    assert [double(3), double(-1), decide(0), decide(1)] == [6, -2, True, False]
"""
DOUBLE = "from toy.numbers_ import double\n\ndef test_double():\n    assert [double(3), double(-1)] == [6, -2]\n"


def judged(folder, tests, module=TOY):
    """What the study prints about the toy, under these tests, in a process of its own."""
    for path, text in (("toy/__init__.py", ""), ("toy/numbers_.py", module), ("tests/test_toy.py", tests)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    run = subprocess.run([sys.executable, "-c", RUN, TESTS, folder], capture_output=True, text=True, timeout=300)
    return run.stdout, run.stderr, run.returncode


def row(killed, decided, undecided=0):
    return f"| all | {decided} | {killed} ({killed / decided:.1%}) | 0 | {decided - killed} | {undecided} |\n"


def names(function, module=TOY):
    return [f"numbers_.{mutant.name}" for mutant in mutants(module) if mutant.name.startswith(function)]


@pytest.mark.slow
def test_what_was_used_at_the_import_is_imported_anew(tmp_path):
    """Constants, tables, defaults, and the functions that tables are made with."""
    tests = ("from toy import numbers_\n\ndef test_table():\n    assert numbers_.TABLE == [0, 2, 4]\n\n"
             "def test_rate():\n    assert numbers_.double(1, 3) == 5 and numbers_.double(2) == 4\n\n"
             "def test_squares():\n    assert numbers_.Squares().two == 4\n")
    out, _, _ = judged(tmp_path, tests, IMPORTED)
    assert all(f"killed: {name}: " in out for name in names("module", IMPORTED) + names("double", IMPORTED))
    lost = {line.split(" -> ")[1].split(": ")[0] for line in out.splitlines() if line.startswith("unexplained: ")}
    assert lost == {"return 2 * 2", "return (-2) ** 2"}      # they are 4, too


@pytest.mark.slow
def test_what_does_not_end_is_undecided(tmp_path):
    out, _, _ = judged(tmp_path, "from toy.numbers_ import wait\n\ndef test_wait():\n    wait()\n", LOOP)
    stopped = {line.split(": stopped by")[0] for line in out.splitlines() if ": stopped by signal" in line}
    assert stopped == {f"undecided: numbers_.wait: {change}" for change in (
        "constant: forever=False -> forever=True", "condition: while forever: -> while not forever:",
        "condition: while forever: -> while True:")}
    assert row(0, 1, 3) in out


def test_a_study_goes_on_where_it_was(tmp_path):
    """All mutants of `double` are killed, none of `decide`, which no test executes; and what was judged is not judged
    again, until what gave the verdict has changed."""
    verdicts = tmp_path / "results" / "verdicts"

    def count(tests):
        before = len(verdicts.read_text().splitlines()) if verdicts.exists() else 0
        out, _, _ = judged(tmp_path, tests)
        if not before:
            assert all(f"killed: {name}: " in out for name in names("double")) and "\nnot good\n" in out
            assert all(f"unexplained: {name}: 0 of 0 tests\n" in out for name in names("decide"))
        return row(8, 9) in out, len(verdicts.read_text().splitlines()) - before

    assert count(DOUBLE) == (True, 9)
    verdicts.write_text("".join(verdicts.read_text().splitlines(keepends=True)[:4]))      # interrupted
    assert count(DOUBLE) == (True, 5)
    tests = verdicts.with_name("tests")
    tests.write_text(tests.read_text().replace("toy.numbers_", "toy.moved_away"))      # since the study before
    assert count(DOUBLE) == (True, 0)
    assert count(DOUBLE + "\ndef test_more():\n    pass\n") == (True, 8)      # nobody has executed the ninth


def test_a_failing_test_is_named_and_not_asked(tmp_path):
    """It would kill every mutant; the other, which sees all, does."""
    out, _, _ = judged(tmp_path, ALWAYS + "\ndef test_wrong():\n    assert double(1) == 3\n")
    assert out.count("AssertionError in tests/test_toy.py::test_all") == 9 and "unexplained:" not in out
    assert "not asked, since it fails without any slip: tests/test_toy.py::test_wrong\n" in out
    assert row(9, 9) in out and "\nnot good\n" in out


@pytest.mark.slow
def test_tests_that_cannot_be_collected(tmp_path):
    out, err, code = judged(tmp_path, "import nothing\n")
    assert code == 1 and "the tests cannot be collected" in err and "|" not in out


@pytest.mark.parametrize("counts, good", [
    ({"killed": 98, "explained": 2}, True), ({"killed": 98, "explained": 2, "undecided": 50}, True),
    ({"killed": 97, "explained": 3}, False), ({"killed": 999, "unexplained": 1}, False), ({"undecided": 9}, False),
    ({}, False)])
def test_the_verdict(counts, good):
    lines = []
    counted = Counter({("npvae.one", verdict): number for verdict, number in counts.items()})
    assert mutation.table(["npvae.one"], counted, lines.append) == good
    assert len(lines) == 3 and lines[1].startswith("| one |") and lines[2].startswith("| all |")


@pytest.mark.slow
def test_the_study():
    """At least 98 % of all that is decided killed, every survivor explained."""
    run = subprocess.run([sys.executable, str(TESTS / "mutation.py")], stdout=subprocess.PIPE, text=True)
    print(run.stdout)
    assert run.returncode == 0
