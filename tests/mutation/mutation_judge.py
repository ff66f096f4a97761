"""What the tests say of a mutant: pytest held open, a forked process for each question.

pytest collects once.  Then, instead of running anything, it hands the tests over (`collected`), and every question is
put to a fork of that process, which has imported all there is:

    measured    one test alone, without any slip: does it pass, how long does it take, which lines does it execute?
    verdict     a mutant, and the tests that execute its lines: the first that fails has killed it

Most mutants are planted by giving the function that stands in memory the code of its mutant.  What has been used at
the import already (a constant, a class attribute, a function called for a table) needs a second import: the fork
forgets the package and the tests, and collects the files of the chosen tests anew.

POSIX only.
"""
import ast
import contextlib
import functools
import gc
import importlib.machinery
import importlib.util
import itertools
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("-q", "--tb=native", "--no-header", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:randomly",
         "-p", "no:xdist", "-s", "-o", "addopts=", "-m", "not slow")
ANSWER = ".answer"
GRACE = 3.0      # seconds of the processor, before a test that has taken none is stopped
TOO_LONG = 6.0      # seconds of the processor, for one test
MEMORY = 8 << 30      # a mutated size may ask for terabytes


# --- forked processes ---

def forked(tasks: Iterable[tuple[Any, Callable[[], Any]]], processes: int) -> Iterator[tuple[Any, Any]]:
    """(key, what the function returns, by JSON) of each (key, function), as they come to an end.

    A child that does not come to an end by itself gives the number of the signal that stopped it.
    """
    running: dict[int, tuple[Any, str]] = {}
    for key, work in tasks:
        if len(running) >= processes:
            yield _finished(running)
        folder = tempfile.mkdtemp(prefix="mutation-")
        pid = os.fork()
        if not pid:
            _child(work, folder)
        running[pid] = key, folder
    while running:
        yield _finished(running)


def _child(work: Callable[[], Any], folder: str) -> None:
    try:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        if sys.platform == "linux":      # elsewhere the limit is not kept
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = folder
        answer = work()
    except BaseException as error:      # not a mutant's: see `verdict`
        answer = {"broken": repr(error)}
    with open(folder + ANSWER, "w", encoding="utf-8") as opened:
        json.dump(answer, opened)
    os._exit(0)


def _finished(running: dict[int, tuple[Any, str]]) -> tuple[Any, Any]:
    """Wait for any child; nothing that it started or wrote is left."""
    pid, status = os.wait()
    key, folder = running.pop(pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    try:
        answer = json.loads(Path(folder + ANSWER).read_text(encoding="utf-8"))
        os.unlink(folder + ANSWER)
    except (OSError, ValueError):
        answer = os.WTERMSIG(status)
    shutil.rmtree(folder, ignore_errors=True)
    return key, answer


# --- pytest, held open ---

class Held:
    """A plugin: `work(items)` runs in the place of the tests.  Remembers which test failed first, and how."""

    def __init__(self, work: Callable[[list[Any]], None]) -> None:
        self.work, self.failed, self.skipped = work, "", False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            raise session.Interrupted("some tests cannot be collected")
        self.work(session.items)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed = self.failed or f"failure in {report.nodeid}"
        self.skipped = self.skipped or report.skipped

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        """After the report."""
        self.failed = self.failed.replace(f"failure in {node.nodeid}", f"{call.excinfo.typename} in {node.nodeid}")

    def run(self, items: Sequence[Any], seconds: dict[str, float]) -> str:
        """The tests one after another, each within a limit; the first failure, or nothing."""
        for item, following in itertools.zip_longest(items, items[1:]):
            limit(seconds[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break
        return self.failed


def collected(root: Path, work: Callable[[list[Any], Held], None], files: Sequence[str] = ("tests",)) -> int:
    """Call `work` with the tests of these files, once they are collected; pytest's exit code."""
    held = Held(lambda items: work(items, held))      # it is known by then
    return int(pytest.main([*FLAGS, "--rootdir", str(root), *(str(root / file) for file in files)], plugins=[held]))


def limit(seconds: float) -> None:
    """Of a test that has taken so long without a slip: ten times as much of the processor, and a wait of minutes."""
    used = sum(os.times()[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + 10 * seconds + GRACE), hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(100 * seconds + 100))


# --- which test executes which lines ---

Lines = dict[str, int]      # of each module: bit n stands for line n


class Planted(importlib.machinery.SourceFileLoader):
    """Finds some modules of the package, and gives them other code than the file's."""

    def __init__(self, code: dict[str, tuple[Path, Any]]) -> None:
        self.code = code      # of each module: the file, and a source or a syntax tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in self.code:
            return importlib.util.spec_from_file_location(name, self.code[name][0], loader=self)
        return None

    def get_filename(self, fullname: str | None = None) -> str:
        return str(self.code[fullname or ""][0])

    def get_code(self, name: str) -> Any:
        path, source = self.code[name]
        return compile(source, str(path), "exec")


class Probes(Planted):
    """Imports modules with a note before each statement that its line is executed: no tracing is as cheap."""

    def __init__(self, files: dict[str, Path]) -> None:
        sources = {module: path.read_text(encoding="utf-8") for module, path in files.items()}
        self.seen = {module: bytearray(2 + source.count("\n")) for module, source in sources.items()}
        super().__init__({module: (path, probed(sources[module])) for module, path in files.items()})

    def exec_module(self, module: Any) -> None:
        module.__seen__ = self.seen[module.__name__]
        super().exec_module(module)

    def taken(self) -> Lines:
        """The lines executed since it was last asked."""
        found = {module: sum(1 << line for line, hit in enumerate(seen) if hit) for module, seen in self.seen.items()}
        for seen in self.seen.values():
            seen[:] = bytes(len(seen))
        return {module: bits for module, bits in found.items() if bits}


def probed(source: str) -> ast.Module:
    """The tree with `__seen__[line] = 1` before each statement."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                has_docstring = field == "body" and not isinstance(node, ast.If) and is_text(statements[:1])
                setattr(node, field, [*statements[:has_docstring], *(
                    one for statement in statements[has_docstring:] for one in (probe(statement), statement))])
    return ast.fix_missing_locations(tree)


def is_text(statements: list[ast.stmt]) -> bool:
    return any(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in statements)


def probe(statement: ast.stmt) -> ast.stmt:
    made = ast.parse(f"__seen__[{statement.lineno}] = 1").body[0]
    for node in ast.walk(made):
        if hasattr(node, "lineno"):
            ast.copy_location(node, statement)
    return made


@dataclass
class Test:
    """What is known of a test: does it pass alone, its seconds, the lines that it executes."""

    passed: bool
    seconds: float
    lines: Lines


def measured(items: Sequence[Any], held: Held, probes: Probes, processes: int) -> Iterator[tuple[str, Test]]:
    """Each test alone, without a slip.  What starts a program is no judge: the mutant would not be in there; and what
    takes too long is none that could be afforded."""
    def no_program(*_: Any, **__: Any) -> None:
        pytest.skip("starts a program")

    def work(item: Any) -> Any:
        subprocess.Popen.__init__ = no_program      # type: ignore[method-assign]
        began = sum(os.times()[:4])
        probes.taken()
        failed = held.run([item], {item.nodeid: TOO_LONG / 10})
        lines = {} if held.skipped else {module: hex(bits) for module, bits in probes.taken().items()}
        return [not failed, sum(os.times()[:4]) - began, lines]

    for name, answer in forked(((item.nodeid, functools.partial(work, item)) for item in items), processes):
        if isinstance(answer, dict):
            raise RuntimeError(f"{name}: {answer}")
        passed, seconds, lines = answer if isinstance(answer, list) else (True, TOO_LONG, {})
        yield name, Test(passed, seconds, {module: int(bits, 16) for module, bits in lines.items()})


# --- a mutant, planted ---

def verdict(root: Path, path: Path, module: str, source: str, function: tuple[str, int] | None, items: Sequence[Any],
            held: Held, seconds: dict[str, float]) -> str:
    """In a child: the first failure of these tests on the mutant of a module, or "".

    `function` is the name and the first line of the function that the mutant changes, None for one that can only be
    planted by importing anew.
    """
    if ".kernels." in module:      # what is compiled now is nobody else's
        keep_no_machine_code()
    planted = function is not None and put_code(path, source, function)
    try:
        if planted:
            return held.run(items, seconds)
        return import_anew(root, path, module, source, [item.nodeid for item in items], seconds)
    except BaseException as error:      # SystemExit, MemoryError: whatever a mutant can bring about
        return f"{type(error).__name__} outside the tests"


def keep_no_machine_code() -> None:
    """Numba's results go to no file."""
    compile_ = sys.modules.get("npvae.kernels.fused.compile")
    if compile_ is not None:
        setattr(compile_, "_write", lambda file, content: None)


@functools.cache
def functions() -> dict[tuple[str, str, int], list[Any]]:
    """All functions in memory, by file, name and first line; asked for before the first fork, so known to all."""
    found: dict[tuple[str, str, int], list[Any]] = {}
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType:      # isinstance asks what is being imported lazily
            code = thing.__code__
            found.setdefault((code.co_filename, code.co_name, code.co_firstlineno), []).append(thing)
    return found


def put_code(path: Path, source: str, function: tuple[str, int]) -> bool:
    """Give the functions in memory their mutant's code, and forget what they have said; False if that cannot be."""
    codes = [compile(source, str(path), "exec")]
    for code in codes:      # grows
        codes.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    new, = (code for code in codes if (code.co_name, code.co_firstlineno) == function)
    found = functions().get((str(path), *function), [])
    if not found or any(len(one.__closure__ or ()) != len(new.co_freevars) for one in found):
        return False
    for one in found:
        one.__code__ = new
    for thing in gc.get_objects():
        if type(thing) is functools._lru_cache_wrapper:
            thing.cache_clear()
    return True


def import_anew(root: Path, path: Path, module: str, source: str, names: list[str], seconds: dict[str, float]) -> str:
    """Forget the package and the tests; plant the mutant where it will be imported from; file by file, the first
    failure of the tests of these names."""
    for name, known in list(sys.modules.items()):
        if (getattr(known, "__file__", None) or "").startswith(f"{root}{os.sep}"):
            del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Probes)]
    sys.meta_path.insert(0, Planted({module: (path, source)}))
    for file, ours in files_of(names).items():
        failed = []

        def work(items: list[Any], held: Held) -> None:
            known = {item.nodeid: item for item in items}
            failed.append(held.run([known[name] for name in ours], seconds))

        limit(30)
        collected(root, work, [file])
        if failed != [""]:
            return "".join(failed) or f"{file} cannot be collected"
    return ""


def files_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The tests of each file, the files in the order of their first tests."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.partition("::")[0], []).append(name)
    return found
