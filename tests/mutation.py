"""Mutation testing of npvae's own arithmetic: plant one small slip at a time, and see whether the tests notice.

    python tests/mutation.py [--module NAME] [--limit N] [--seed S] [--jobs 2] [--verbose]

A *mutant* is a module with one place of its syntax tree changed (`mutation_operators.py`): an operator, a constant, a
sign, an axis, an argument, a name, a statement left out.  It is *killed* when a test fails on it, does not end, or
cannot import it.  One that survives shows that a test is missing, or else changes nothing that can be seen; the latter
are called *equivalent*, and stand with the reason in `equivalent_mutants.py`.  Status 0 says that at least 98 % were
killed and that every survivor is explained.

Left out: docstrings, annotations, imports, type aliases, f-strings, `raise` (what is refused in which words, other
tests say; the *conditions* are mutated), isinstance and hasattr, and the book-keeping of `VAE.save`, `load`, `config`.

Each mutant is judged in a process of its own, forked from one that has imported everything but npvae and the tests.
The tests run on the reference kernels alone: the compiled twins are copies, and would catch nearly all by comparison.
POSIX only.
"""
import argparse
import ast
import functools
import gc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equivalent_mutants import EQUIVALENT
from mutation_operators import OPERATORS, Place

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = frozenset({"VAE.save", "VAE.load", "VAE.config"})
GOAL = 0.98

# What to mutate, and the test files that judge it: cheap and discriminating ones first.
_KERNELS = ("test_kernels", "test_mutants", "test_identities", "test_gradients")
_MODEL = ("test_fixtures::test_loss_and_every_gradient", "test_mutants", "test_model", "test_symmetries",
          "test_linear_model", "test_evaluate", "test_identities", "test_gradients", "test_one_file", "test_train")
TARGETS = {
    "npvae.kernels.reference.arrays": _KERNELS,
    "npvae.kernels.reference.dense": _KERNELS,
    "npvae.kernels.reference.likelihoods": (*_KERNELS, "test_continuous_bernoulli", "test_gaussian_optimal"),
    "npvae.kernels.reference.levels": ("test_levels", "test_kernels"),
    "npvae.kernels.reference.latents": _KERNELS, "npvae.kernels.reference.objectives": (*_KERNELS, "test_objectives"),
    "npvae.kernels.reference.priors": ("test_kernels", "test_priors"),
    "npvae.kernels.reference.flows": ("test_kernels", "test_flows"),
    "npvae.kernels.reference.masks": ("test_kernels", "test_masks"),
    "npvae.kernels.reference.estimators": ("test_estimators",),
    "npvae.kernels.reference.optim": ("test_optim", "test_mutants"),
    "npvae.kernels.reference.batches": ("test_kernels", "test_mutants", "test_evaluate"),
    "npvae.params": ("test_optim", *_MODEL), "npvae.layers": _MODEL,
    "npvae.likelihoods": (*_MODEL, "test_continuous_bernoulli", "test_gaussian_optimal", "test_levels"),
    "npvae.levels": ("test_levels", "test_level_images"),
    "npvae.priors": ("test_priors", "test_prior_models"),
    "npvae.second_layer": ("test_second_layer", "test_prior_models", "test_hierarchical"),
    "npvae.hierarchical": ("test_hierarchical", "test_second_layer"),
    "npvae.flows": ("test_flows", "test_flow_models"), "npvae.masks": ("test_masks", "test_made", "test_flows"),
    "npvae.made": ("test_made", "test_masks"), "npvae.outputs": ("test_made", *_MODEL),
    "npvae.latents": (*_MODEL, "test_estimators", "test_prior_models", "test_flow_models", "test_second_layer"),
    "npvae.objectives": ("test_objectives", "test_optim", *_MODEL, "test_estimators"),
    "npvae.buffers": (*_MODEL, "test_conditional", "test_prior_models"),
    "npvae.model": (*_MODEL, "test_estimators", "test_conditional", "test_prior_models", "test_made"),
    "npvae.evaluate": ("test_evaluate", "test_log_likelihood", "test_mutants", "test_model", "test_linear_model",
                       "test_train"),
    "npvae.summary": ("test_summary",),
    "npvae.optim": ("test_optim", "test_mutants", "test_fixtures::test_adam_is_torch_optim_adam", "test_train")}

KILLED, SURVIVED, ENDLESS, BROKEN = "killed", "survived", "endless", "broken"      # broken: the harness, not a mutant


# --- the mutants of a source ---

@dataclass(frozen=True)
class Mutant:
    """One slip.  `name` identifies it without line numbers: function, operator, and the text around the change."""

    name: str
    source: str      # of the whole module


def mutants(source: str, leave_out: frozenset[str] = frozenset()) -> Iterator[Mutant]:
    """Every mutant of a module's source, but those in the functions (`name` or `Class.name`) to leave out."""
    tree, lines, names = ast.parse(source), source.splitlines(), Counter()
    for unit, owner in units(tree, ""):
        if owner in leave_out:
            continue
        seen = {ast.unparse(unit)}
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
                    text = textwrap.indent(text, " " * unit.col_offset)
                    yield Mutant(name + (f" #{names[name]}" if names[name] > 1 else ""),
                                 "\n".join([*lines[:unit.lineno - 1], text, *lines[unit.end_lineno:], ""]))


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
    for field, value in ast.iter_fields(node):
        for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and field not in NOT_CODE and not is_left_out(child):
                yield Place(child, above, field, at, module)
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


# --- one mutant: a process ---

@dataclass(frozen=True)
class Suite:
    """Where the package and its tests are, and how a test run is started in the child."""

    root: Path
    files: tuple[str, ...]
    select: str = "not numba and not fused and not twins"
    seconds: int = 60      # of processor time, which other people's work does not use up

    def run(self) -> tuple[str, str]:
        """The verdict of the test files, one after another, and the test that failed first."""
        import pytest
        watch = FirstFailure()
        for file, _, test in (name.partition("::") for name in self.files):
            code = pytest.main(["-x", "-q", "--tb=no", "--no-header", "--assert=plain", "-p", "no:cacheprovider",
                                "-o", "addopts=", "-m", "not slow", "-k", self.select, "--rootdir", str(self.root),
                                f"{self.root}/tests/{file}.py" + (f"::{test}" if test else "")], plugins=[watch])
            if code == pytest.ExitCode.NO_TESTS_COLLECTED:
                return BROKEN, f"{file}.py holds no test"
            if code != pytest.ExitCode.OK:
                return KILLED, watch.failed or f"{file}.py cannot be collected"
        return SURVIVED, ""


class FirstFailure:
    """A pytest plugin that remembers which test failed, and how."""

    failed = ""

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        self.failed = self.failed or f"{call.excinfo.typename} in {node.nodeid}"


class Planted(importlib.machinery.SourceFileLoader):
    """Finds one module of the package, and gives it the mutant's code instead of the file's."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        super().__init__(module, str(path))
        self.source, self.used = source, False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name: str) -> Any:
        self.used = True
        return compile(self.source, self.path, "exec")


def file_of(root: Path, module: str) -> Path:
    return Path(root, *module.split(".")).with_suffix(".py")


def child(suite: Suite, module: str, source: str, pipe: int) -> None:
    """Judge in this process, write verdict and witness into the pipe, and end."""
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (suite.seconds, suite.seconds + 5))
        if sys.platform == "linux":      # elsewhere the limit is not kept; a mutated size may ask for terabytes
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        os.chdir(suite.root)
        sys.path[:0] = [str(suite.root), str(suite.root / "tests")]
        planted = Planted(module, file_of(suite.root, module), source)
        sys.meta_path.insert(0, planted)
        verdict, witness = suite.run()
        if verdict == SURVIVED and not planted.used:
            verdict, witness = BROKEN, f"no test imports {module}"
    except BaseException as error:      # SystemExit, MemoryError: whatever a mutant can bring about
        verdict, witness = KILLED, f"{type(error).__name__} outside the tests"
    os.write(pipe, f"{verdict}\n{witness}".encode()[:4000])
    os._exit(0)


def judge(jobs: Iterable[tuple[Any, Suite, str, str]], processes: int) -> Iterator[tuple[Any, str, str]]:
    """(key, verdict, witness) of each (key, suite, module, source), as they come to an end."""
    running: dict[int, tuple[Any, int]] = {}
    for key, suite, module, source in jobs:
        if len(running) >= processes:
            yield finished(running)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            child(suite, module, source, writer)
        os.close(writer)
        running[pid] = key, reader
    while running:
        yield finished(running)


def finished(running: dict[int, tuple[Any, int]]) -> tuple[Any, str, str]:
    """Wait for any child.  One that wrote nothing was stopped by the limit on its time, or crashed."""
    pid, status = os.wait()
    key, reader = running.pop(pid)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    if text:
        verdict, witness = text.split("\n", 1)
        return key, verdict, witness
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return key, ENDLESS if number in (signal.SIGXCPU, signal.SIGKILL) else KILLED, f"signal {number}"


# --- the study ---

def short(module: str) -> str:
    """The module's name below the package."""
    return module.split(".", 1)[1]


def generate(root: Path, module: str) -> list[Mutant]:
    return list(mutants(file_of(root, module).read_text(encoding="utf-8"), LEFT_OUT))


def check_clean(suites: dict[str, Suite], processes: int) -> None:
    """Without a slip every suite passes: else every mutant would seem killed."""
    jobs = [(module, suite, module, file_of(suite.root, module).read_text(encoding="utf-8"))
            for module, suite in suites.items()]
    for module, verdict, witness in judge(jobs, processes):
        if verdict != SURVIVED:
            raise SystemExit(f"{module}: its tests fail without any slip: {verdict}, {witness}")


def study(suites: dict[str, Suite], explained: dict[str, str], limit: int | None = None, seed: int = 0,
          processes: int = 1, tell: Callable[[str], None] = print, verbose: bool = False) -> bool:
    """Judge every mutant of the modules, or `limit` drawn at random; print the table; is all as it should be?"""
    check_clean(suites, processes)
    jobs = [((module, mutant.name), suite, module, mutant.source)
            for module, suite in suites.items() for mutant in generate(suite.root, module)]
    if limit is not None and limit < len(jobs):
        import numpy as np
        jobs = [jobs[i] for i in sorted(np.random.default_rng(seed).choice(len(jobs), limit, replace=False))]
    counts: Counter[tuple[str, str]] = Counter()
    for (module, name), verdict, witness in judge(jobs, processes):
        full = f"{short(module)}.{name}"
        if verdict == BROKEN:
            raise SystemExit(f"{full}: {witness}")
        if verdict == SURVIVED:
            verdict = "explained" if full in explained else "unexplained"
            tell(f"survived, {verdict}: {full}")
        elif verbose:
            tell(f"{verdict}: {full}: {witness}")
        counts[module, verdict] += 1
    return table(list(suites), counts, tell)


def table(modules: list[str], counts: Counter[tuple[str, str]], tell: Callable[[str], None]) -> bool:
    """One row for each module and one for all; True if the goal is reached and every survivor explained."""
    verdicts = (KILLED, ENDLESS, "explained", "unexplained")
    rows = [(short(module), [counts[module, verdict] for verdict in verdicts]) for module in modules]
    rows.append(("all", [sum(row[1][i] for row in rows) for i in range(len(verdicts))]))
    tell("| module | mutants | killed | of these endless | survivors explained | unexplained |\n" + 6 * "|---" + "|")
    for name, (killed, endless, explained, unexplained) in rows:
        total = killed + endless + explained + unexplained
        share = f"{(killed + endless) / total:.1%}" if total else "-"
        tell(f"| {name} | {total} | {killed + endless} ({share}) | {endless} | {explained} | {unexplained} |")
    return not unexplained and killed + endless >= GOAL * total > 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=[short(module) for module in TARGETS], help="one module only")
    parser.add_argument("--limit", type=int, help="so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--verbose", action="store_true", help="say which test killed each mutant")
    args = parser.parse_args(arguments)
    os.environ.update(NPVAE_TEST_PROFILE="mutation", OPENBLAS_NUM_THREADS="1")
    for name in ("numpy", "pytest", "hypothesis", "hypothesis.extra.numpy", "numba"):      # once, for all children
        importlib.import_module(name)
    gc.freeze()
    start = time.monotonic()
    suites = {module: Suite(ROOT, files) for module, files in TARGETS.items() if args.module in (None, short(module))}
    tell = functools.partial(print, flush=True)
    good = study(suites, EQUIVALENT, args.limit, args.seed, args.jobs, tell, args.verbose)
    print(f"{time.monotonic() - start:.0f} seconds")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
