"""Mutation testing of npvae's own arithmetic: plant one small slip at a time, and see whether the tests notice.

    python tests/mutation/mutation.py [--module NAME ...] [--limit N] [--seed S] [--jobs 2] [--seconds 30] [--verbose]

A *mutant* is a module with one place of its syntax tree changed (`mutation_operators.py`): an operator, a constant, a
sign, an axis, an argument, a name, a statement left out.  Every test is run once alone, without any slip, to learn
which lines it executes and how long it takes.  A mutant is given to the tests that execute its lines, those first that
are quick and have killed others in the same function, as many as take `--seconds` altogether.  It is

    killed      one of them fails, or cannot import it
    undecided   one takes ten times as long as without a slip and 3 s, and was stopped
    survived    all of them pass: a test is missing, or else it changes nothing that can be seen

The latter are called *equivalent*, and stand with the reason in `equivalent_mutants.py`.  Status 0 says that of those
decided at least 98 % were killed, and that every survivor is explained.

Verdicts are kept in a cache folder (`--results`) and taken from there as long as the mutated function and the test
files that gave them are the same: a study that was interrupted goes on, and after a change only what it may concern
is judged again.

Left out: docstrings, annotations, imports, type aliases, f-strings, `raise` (what is refused in which words, other
tests say; the *conditions* are mutated), isinstance and hasattr.  Mutants of reference kernels are not given to tests
of compiled kernels: those are copies, and would catch nearly all by comparison.  Tests that start programs of their
own judge nothing: the mutant would not be in there.  POSIX only.
"""
import argparse
import ast
import contextlib
import functools
import gc
import hashlib
import inspect
import json
import os
import re
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from equivalent_mutants import reason
from mutation_judge import Held, Lines, Probes, Test, collected, files_of, forked, functions, measured, verdict
from mutation_operators import OPERATORS, Place

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.98
_REFERENCE = "npvae.kernels.reference."
_COMPILED = re.compile("numba|fused|twins")

TARGETS = tuple(f"npvae.{name}" for name in (
    *(f"kernels.reference.{name}" for name in (
        "arrays", "dense", "masks", "likelihoods", "levels", "latents", "priors", "flows", "objectives", "estimators",
        "optim", "batches")),
    "params", "layers", *(f"likelihoods.{name}" for name in (
        "support", "base", "bernoulli", "gaussian", "continuous_bernoulli", "levels")),
    "buffers", *(f"latents.{name}" for name in ("base", "gaussian", "composed", "flows", "priors", "second_layer")),
    "decoders", "objectives", *(f"model.{name}" for name in ("vae", "hierarchical", "sizes")), "optim",
    *(f"train.{name}" for name in ("rows", "run", "loop", "callbacks")),
    *(f"evaluate.{name}" for name in ("bounds", "exact", "dimensions", "summary")),
    *(f"data.{name}" for name in ("arrays", "idx", "readers", "labels")), "checkpoint",
    *(f"engine.{name}" for name in ("partition", "executor", "blas_threads", "recording", "team")),
    *(f"gradcheck.{name}" for name in ("derivatives", "checker", "diagnosis", "rules", "report")), "validate"))


# --- the mutants of a source ---

@dataclass(frozen=True)
class Mutant:
    """One slip.  `name` identifies it without line numbers: function, operator, and the text around the change."""

    name: str
    source: str      # of the whole module
    text: str      # of the changed function or statement
    owner: str      # the dotted name of the function, or of where the statement stands
    function: tuple[str, int] | None      # name and first line, if its body has changed
    names: frozenset[str]      # what a changed statement outside of functions gives values to
    lines: int      # of the changed statement, as a mask
    body: int      # of the function around it, or the same


def mutants(source: str, owners: Container[str] | None = None) -> Iterator[Mutant]:
    """Every mutant of a module's source, or of the functions of these names in it."""
    tree, lines, names = ast.parse(source), source.splitlines(), Counter[str]()
    for unit, owner in units(tree, ""):
        if owners is not None and (owner or "module") not in owners:
            continue
        seen = {ast.unparse(unit)}
        first = min(node.lineno for node in (unit, *getattr(unit, "decorator_list", ())))
        body = unit.body if isinstance(unit, ast.FunctionDef) else []
        assigned = frozenset(target.id for target in getattr(unit, "targets", [getattr(unit, "target", None)])
                             if isinstance(target, ast.Name))
        for place in list(places(unit, (unit,), tree)):
            before = place.shown()
            for operator in OPERATORS:
                for other in operator(place):
                    place.put(other)
                    text, after = ast.unparse(ast.fix_missing_locations(unit)), place.shown()
                    place.put(place.node)
                    if text in seen:
                        continue
                    seen.add(text)
                    name = f"{owner or 'module'}: {operator.__name__}: {difference(before, after)}"
                    names[name] += 1
                    whole = [*lines[:first - 1], textwrap.indent(text, " " * unit.col_offset), *lines[unit.end_lineno:]]
                    in_body = bool(body) and any(node in body for node in (*place.above, place.node))
                    yield Mutant(name + (f" #{names[name]}" if names[name] > 1 else ""), "\n".join([*whole, ""]), text,
                                 owner, (unit.name, first) if in_body else None, assigned, changed_lines(place),
                                 mask(body[0].lineno if body else first, unit.end_lineno))


def changed_lines(place: Place) -> int:
    """Those of the innermost statement around a place; of a compound statement, its head."""
    inner: Any = next(node for node in (place.node, *reversed(place.above)) if isinstance(node, ast.stmt))
    body = getattr(inner, "body", None)
    return mask(inner.lineno, max(body[0].lineno - 1, inner.lineno) if body else inner.end_lineno)


def mask(first: int, last: int) -> int:
    """The lines as bits."""
    return (1 << last + 1) - (1 << first)


def difference(before: str, after: str) -> str:
    """before -> after; of long ones, the part that differs with 16 characters to either side."""
    if max(len(before), len(after)) <= 60:
        return f"{before} -> {after}"
    start = len(os.path.commonprefix([before, after]))
    end = min(len(os.path.commonprefix([before[::-1], after[::-1]])), min(len(before), len(after)) - start)
    first, last = max(start - 16, 0), max(end - 16, 0)
    return " -> ".join("..." * (first > 0) + text[first:len(text) - last] + "..." * (last > 0)
                       for text in (before, after))


def units(node: Any, owner: str) -> Iterator[tuple[Any, str]]:
    """Functions, methods, and the statements between them, each with the dotted name of where it stands."""
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from units(child, child.name)
        elif isinstance(child, ast.FunctionDef):
            yield child, f"{owner}.{child.name}".lstrip(".")
        elif not is_left_out(child):
            yield child, owner


NOT_CODE = {"annotation", "returns", "decorator_list", "type_params"}


def places(node: Any, above: tuple[Any, ...], module: ast.Module) -> Iterator[Place]:
    for name, value in ast.iter_fields(node):
        for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and name not in NOT_CODE and not is_left_out(child):
                yield Place(child, above, name, at, module)
                yield from places(child, (*above, child), module)


def is_left_out(node: ast.AST) -> bool:
    """Docstrings, imports (for types too), raise, f-strings, type checks; of assignments `__all__` and type aliases."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name == "__all__" or name[0].isupper() and not name.isupper()
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in ("isinstance", "hasattr")
    return (isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr))
            or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            or isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")


# --- who judges what ---

def file_of(root: Path, module: str) -> Path:
    return Path(root, *module.split(".")).with_suffix(".py")


def short(module: str) -> str:
    """The module's name below the package."""
    return module.split(".", 1)[1]


@functools.cache
def source_of(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def generate(root: Path, module: str) -> list[Mutant]:
    return list(mutants(source_of(str(file_of(root, module)))))


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def words(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")


@dataclass(eq=False)
class Suite:
    """The tests and what each executes; `imported` are the lines executed while they were collected."""

    root: Path
    tests: dict[str, Test]
    imported: Lines
    functions: dict[str, Any]      # of the tests

    def judges(self, module: str, mutant: Mutant) -> list[str]:
        """The tests that execute the lines of a mutant; of a constant, those that execute or have a line with its
        name."""
        changed, around = {module: mutant.lines}, {module: mutant.body}
        if mutant.names:
            changed, around = self.lines_with(mutant.names), {module: -1}
        elif mutant.function is None:      # a default
            changed = around
        found = [*dict.fromkeys([*self.executing(changed), *self.mentioning(mutant.names)])] or self.executing(around)
        return [name for name in found if not (module.startswith(_REFERENCE) and _COMPILED.search(name))]

    def executing(self, where: Lines) -> list[str]:
        return [name for name, test in self.tests.items() if test.passed
                and any(test.lines.get(module, 0) & bits for module, bits in where.items())]

    @functools.cache
    def lines_with(self, names: frozenset[str]) -> Lines:
        """The lines of all modules in which one of the names stands."""
        pattern = words(names)
        return {module: sum(1 << number for number, line in enumerate(self.source(module).splitlines(), 1)
                            if pattern.search(line)) for module in self.imported}

    @functools.cache
    def mentioning(self, names: frozenset[str]) -> list[str]:
        """The tests in whose own code one of the names stands."""
        return [name for name, test in self.tests.items() if names and test.passed
                and words(names).search(inspect.getsource(self.functions[name]))]

    def source(self, module: str) -> str:
        return source_of(str(file_of(self.root, module)))

    def in_memory(self, module: str, mutant: Mutant) -> tuple[str, int] | None:
        """The function to change in memory; None where it has been used at the import already."""
        return None if self.imported[module] & mutant.body else mutant.function

    def files(self, names: Iterable[str]) -> str:
        """A hash of the test files in which the tests of these names stand."""
        return digest(*(source_of(str(self.root / file)) for file in sorted(files_of(names))))

    def basis(self, witness: str, judges: list[str]) -> str:
        """Of a verdict: the test that failed, or else all that could have."""
        failed = witness.partition(" in ")[2]
        return self.files([failed] if failed in self.tests else judges)


class Order:
    """Which tests come first: the quick ones, those that execute little else, and those that have killed mutants of the
    same function or module."""

    def __init__(self, tests: dict[str, Test], seconds: float) -> None:
        self.tests, self.seconds, self.kills = tests, seconds, Counter[tuple[str, str]]()
        self.breadth = {name: sum(bits.bit_count() for bits in test.lines.values()) for name, test in tests.items()}

    def killed(self, module: str, owner: str, name: str) -> None:
        self.kills.update([(f"{module}.{owner}", name), (module, name)])

    def chosen(self, module: str, owner: str, names: list[str], mentioning: Container[str] = ()) -> list[str]:
        """Of these, best first, as many as take the seconds that there are; before all others those that mention what
        has changed."""
        def rank(name: str) -> tuple[bool, float]:
            near, far = self.kills[f"{module}.{owner}", name], self.kills[module, name]
            cost = (self.tests[name].seconds + 0.01) * self.breadth[name]
            return name not in mentioning, cost / (1 + near) ** 2 / (1 + far)
        left, found = self.seconds, list[str]()
        for name in sorted(names, key=rank):
            left -= self.tests[name].seconds
            if left < 0 and found:
                break
            found.append(name)
        return found


# --- what is kept ---

@dataclass
class Verdict:
    """Of one mutant.  `basis` is a hash of the test files that gave it."""

    verdict: str
    witness: str      # the failure of the test that killed it
    basis: str
    asked: int      # so many tests


class Kept:
    """Verdicts in a file of one JSON list a line: key and verdict."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.known = {key: Verdict(*rest) for key, *rest in map(json.loads, lines)}

    def add(self, key: str, found: Verdict) -> None:
        self.known[key] = found
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps([key, *vars(found).values()]), file=file)

    def holds(self, key: str, suite: Suite, judges: list[str], asked: int) -> bool:
        """Is the verdict on this mutant what it would be today, with so many of its judges asked?"""
        found = self.known.get(key)
        if found is None or found.verdict != KILLED and found.asked < asked:
            return False
        return found.basis == suite.basis(found.witness, judges)


# --- the study ---

KILLED, SURVIVED, UNDECIDED = "killed", "survived", "undecided"
STOPPED = (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL)


@dataclass
class Study:
    """What is judged, and how."""

    root: Path
    probed: Sequence[str]      # modules of which it is known which test executes what
    modules: Sequence[str]      # those to judge, among them
    reason: Callable[[str], str]      # why a mutant is equivalent, if that has been explained
    folder: Path
    limit: int | None = None
    seed: int = 0
    processes: int = 1
    seconds: float = 30
    verbose: bool = False
    files: Sequence[str] = ("tests",)      # of tests that judge
    output: TextIO = field(default_factory=lambda: sys.stdout)      # pytest has another

    def tell(self, text: str) -> None:
        print(text, file=self.output, flush=True)

    def run(self) -> bool:
        """Judge every mutant of the modules, or `limit` drawn at random; print the table; is all as it should be?"""
        probes = Probes({module: file_of(self.root, module) for module in self.probed})
        self.folder.mkdir(parents=True, exist_ok=True)
        found: list[Any] = []

        def work(items: Sequence[Any], held: Held) -> None:
            try:
                found.append(self.judge_all(items, held, probes))
            except BaseException as error:      # pytest would take it for an error of its own
                found.append(error)

        sys.meta_path.insert(0, probes)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            code = collected(self.root, work, self.files)
        if not found:
            raise SystemExit(f"the tests cannot be collected: pytest ends with {code}")
        if isinstance(found[0], BaseException):
            raise found[0]
        return bool(found[0])

    def judge_all(self, items: Sequence[Any], held: Held, probes: Probes) -> bool:
        imported = {**dict.fromkeys(probes.seen, 0), **probes.taken()}
        functions()
        gc.freeze()
        suite = Suite(self.root, self.measure(items, held, probes), imported,
                      {item.nodeid: inspect.unwrap(item.function) for item in items})
        failing = [name for name, test in suite.tests.items()
                   if not test.passed and {*self.modules} & test.lines.keys()]
        for name in failing:
            self.tell(f"not asked, since it fails without any slip: {name}")
        kept, order = Kept(self.folder / "verdicts"), Order(suite.tests, self.seconds)
        counts = Counter[tuple[str, str]]()
        jobs = [(module, mutant) for module in self.modules for mutant in generate(self.root, module)]
        if self.limit is not None and self.limit < len(jobs):
            import numpy as np
            jobs = [jobs[i] for i in sorted(np.random.default_rng(self.seed).choice(len(jobs), self.limit, False))]
        jobs.sort(key=lambda job: suite.in_memory(*job) is None)      # those that take an import are slow: last

        def count(module: str, mutant: Mutant, found: Verdict) -> None:
            full = f"{short(module)}.{mutant.name}"
            kind = found.verdict
            if kind == KILLED:
                order.killed(module, mutant.owner, found.witness.partition(" in ")[2])
            elif kind == SURVIVED:
                kind = "explained" if self.reason(full) else "unexplained"
            if self.verbose or found.verdict != KILLED and kind != "explained":
                self.tell(f"{kind}: {full}: {found.witness}")
            counts[module, kind] += 1

        by_name = {item.nodeid: item for item in items}
        seconds = {name: test.seconds for name, test in suite.tests.items()}

        def tasks() -> Iterator[tuple[Any, Callable[[], Any]]]:
            for module, mutant in jobs:
                key, judges = digest(module, mutant.name, mutant.text), suite.judges(module, mutant)
                names = order.chosen(module, mutant.owner, judges, suite.mentioning(mutant.names))
                if kept.holds(key, suite, judges, len(names)):
                    count(module, mutant, kept.known[key])
                    continue
                yield (module, mutant, key, judges, names), functools.partial(
                    verdict, self.root, file_of(self.root, module), module, mutant.source,
                    suite.in_memory(module, mutant), [by_name[name] for name in names], held, seconds)

        began, done = time.monotonic(), 0
        for (module, mutant, key, judges, names), answer in forked(tasks(), self.processes):
            if isinstance(answer, dict):
                raise SystemExit(f"{short(module)}.{mutant.name}: {answer}")
            if answer in STOPPED:
                kind, witness = UNDECIDED, f"stopped by signal {answer}"
            elif answer:
                kind, witness = KILLED, answer if isinstance(answer, str) else f"signal {answer}"
            else:
                kind, witness = SURVIVED, f"{len(names)} of {len(judges)} tests"
            found = Verdict(kind, witness, suite.basis(witness, judges), len(names))
            kept.add(key, found)
            count(module, mutant, found)
            done += 1
            if done % 500 == 0:
                self.tell(f"{sum(counts.values())} of {len(jobs)}, {done / (time.monotonic() - began):.1f} a second")
        return table(self.modules, counts, self.tell) and not failing

    def measure(self, items: Sequence[Any], held: Held, probes: Probes) -> dict[str, Test]:
        """What is known of each test; what was measured before, while it and all that it executes were the same, is
        read from a file."""
        path, known = self.folder / "tests", dict[str, tuple[str, Test]]()
        if path.exists():
            known = {name: (basis, Test(*rest)) for name, basis, *rest in
                     map(json.loads, path.read_text(encoding="utf-8").splitlines())}
        support = digest(*(source_of(str(file)) for file in sorted((self.root / "tests").rglob("*.py"))
                           if not file.name.startswith(("test_", "mutation", "equivalent"))))

        def basis(name: str, test: Test) -> str:
            return digest(support, *self.probed, source_of(str(self.root / name.partition("::")[0])),
                          *(source_of(str(file_of(self.root, module)))
                            for module in sorted(test.lines)))

        def holds(was: str, test: Test, name: str) -> bool:
            there = all(file_of(self.root, module).exists() for module in test.lines)      # and has not moved
            return there and was == basis(name, test)

        found = {item.nodeid: known[item.nodeid][1] for item in items
                 if item.nodeid in known and holds(*known[item.nodeid], item.nodeid)}
        missing = [item for item in items if item.nodeid not in found]
        with path.open("a", encoding="utf-8") as file:
            for number, (name, test) in enumerate(measured(missing, held, probes, self.processes), 1):
                found[name] = test
                print(json.dumps([name, basis(name, test), *vars(test).values()]), file=file, flush=True)
                if number % 500 == 0 or number == len(missing):
                    self.tell(f"{number} of {len(missing)} tests have been run once, each alone")
        return found


def table(modules: Sequence[str], counts: Counter[tuple[str, str]], tell: Callable[[str], None]) -> bool:
    """One row for each module and one for all; True if the goal is reached and every survivor explained."""
    kinds = (KILLED, "explained", "unexplained", UNDECIDED)
    rows = [(short(module), [counts[module, kind] for kind in kinds]) for module in modules]
    rows.append(("all", [sum(row[1][i] for row in rows) for i in range(len(kinds))]))
    tell("| module | decided | killed | survivors explained | unexplained | undecided |\n" + 6 * "|---" + "|")
    for name, (killed, explained, unexplained, undecided) in rows:
        decided = killed + explained + unexplained
        share = f"{killed / decided:.1%}" if decided else "-"
        tell(f"| {name} | {decided} | {killed} ({share}) | {explained} | {unexplained} | {undecided} |")
    return not unexplained and killed >= GOAL * decided > 0


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "npvae", "mutation")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", nargs="+", choices=[short(module) for module in TARGETS], metavar="NAME",
                        help="these modules only, as in npvae/: " + ", ".join(map(short, TARGETS)))
    parser.add_argument("--tests", nargs="+", metavar="NAME", help="judged by these files only, such as test_flows")
    parser.add_argument("--limit", type=int, help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=30, help="of tests for a mutant, by their time without a slip")
    parser.add_argument("--results", type=Path, default=cache_folder(), help="the folder of verdicts (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="say which test killed each mutant")
    args = parser.parse_args(arguments)
    os.environ.update(NPVAE_TEST_PROFILE="mutation", OPENBLAS_NUM_THREADS="1")
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    start = time.monotonic()
    modules = [module for module in TARGETS if args.module is None or short(module) in args.module]
    files = [str(path.relative_to(ROOT)) for name in args.tests or () for path in (ROOT / "tests").rglob(f"{name}.py")]
    good = Study(ROOT, TARGETS, modules, reason, args.results, args.limit, args.seed, args.jobs, args.seconds,
                 args.verbose, files or ["tests"]).run()
    print(f"{time.monotonic() - start:.0f} seconds")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
