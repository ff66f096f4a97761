"""The parent process: the environment of the contenders, a process for each, and turns, so that only one works."""
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import npvae

from . import machine
from .works import Work, describe, write_parameters

_ROOTS = Path(__file__).resolve().parents[1], Path(npvae.__file__).resolve().parents[1]      # of contenders, of npvae
#: like `python -m contenders.worker`, but nothing is imported from the current folder
_WORKER = f"""
import os, sys
sys.path[:] = [*{[str(root) for root in _ROOTS]}, *(path for path in sys.path if os.path.realpath(path) != os.getcwd())]
from contenders.worker import main
main()
"""
#: they restrict NumPy's BLAS, and no other library's, to instructions of an older processor
BLAS_SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
#: each process sets its number of threads from --threads, by functions of its library
THREAD_SETTINGS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
_CACHES = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
           "JAX_COMPILATION_CACHE_DIR")


class WorkerFailed(RuntimeError):
    """A contender's process ended, or its answer was invalid.  The message is the last line it wrote."""


class Absent(WorkerFailed):
    """The library is not installed."""


@dataclass(frozen=True)
class Settings:
    """The settings of all parts."""

    folder: Path      # of images and weights
    environment: Mapping[str, str]
    threads: int
    rounds: int
    images: int
    works: tuple[str, ...]
    contenders: tuple[str, ...]
    seed: int = 0
    pause: float = 0.1      # seconds before each turn, so that the threads of the last one go to sleep
    quick: bool = False
    say: Callable[[str], None] = print
    versions: dict[str, Any] = field(default_factory=dict)      # filled in as workers start
    pools: dict[str, Any] = field(default_factory=dict)      # their thread pools, filled in as they stop

    def shortened(self, work: Work) -> Work:
        """The work with at most `self.images` images."""
        return replace(work, images=max(work.batch, min(work.images, self.images)))

    def request(self, do: str, work: Work, pixels: str = "train.npy", epochs: int = 0) -> dict[str, Any]:
        """The request to a worker for a work, with weights that npvae has trained for `epochs` epochs."""
        return {"do": do, "work": describe(work), "pixels": pixels, "seed": self.seed,
                "parameters": write_parameters(self.folder, work, self.seed, epochs)}


def environment(keep_blas_settings: bool, coretype: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """The environment of all contenders, and the variables of this process that were removed from it."""
    removed = THREAD_SETTINGS if keep_blas_settings else THREAD_SETTINGS + BLAS_SETTINGS
    ours = {name: value for name, value in os.environ.items() if name not in removed}
    if coretype is not None:
        ours["OPENBLAS_CORETYPE"] = coretype
    ours["PYTHONPATH"] = os.pathsep.join([*map(str, _ROOTS), *filter(None, [ours.get("PYTHONPATH")])])
    return ours, {name: os.environ[name] for name in removed if name in os.environ}


def with_caches(environment: Mapping[str, str], caches: Path, bytecode: Path) -> dict[str, str]:
    """The environment with all caches of compiled code in one folder (JAX has one only if it is named), and Python's
    bytecode, which installed packages already have, in another."""
    plain = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**plain, **{name: str(caches / name.lower()) for name in _CACHES}, "PYTHONPYCACHEPREFIX": str(bytecode),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


class Worker:
    """One contender's process.  Raises Absent if its library is not installed."""

    def __init__(self, name: str, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self.name, self.settings = name, settings
        self.log = (settings.folder / f"{name}.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, name, str(settings.folder), str(settings.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, encoding="utf-8",
            env=dict(environment or settings.environment))
        try:
            self.versions = self.ask()["versions"]
        except WorkerFailed:
            self.close()
            raise
        settings.versions[name] = self.versions

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, if any is given, and wait for an answer.  Raises WorkerFailed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            if request:
                print(json.dumps(request), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):      # it is gone, or what it said is no JSON
            raise WorkerFailed(self._last_words()) from None
        if "absent" in answer:
            raise Absent(answer["absent"])
        return answer

    def close(self) -> None:
        """End the process: its input ends, and if that does not help it is killed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def _last_words(self) -> str:
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        return lines[-1] if lines else f"the process ended without a word, exit code {self.process.poll()}"


@contextmanager
def opened(names: Iterable[str], settings: Settings) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Within this context: the workers that could be started, by name, and for the others the reason."""
    workers: dict[str, Worker] = {}
    missing: dict[str, str] = {}
    try:
        for name in names:
            try:
                workers[name] = Worker(name, settings)
            except Absent as error:
                missing[name] = f"absent: {error}"
            except WorkerFailed as error:
                missing[name] = f"FAILED: {error}"
        yield workers, missing
    finally:
        for worker in workers.values():
            worker.close()


class Rounds:
    """Turns of several contenders at one work.

    answers   name -> the answers of the measured turns
    failed    name -> why it failed; its worker is closed and removed from `workers`
    idle      name -> the share of a processor that it used while others worked, which should be almost 0
    """

    def __init__(self, workers: dict[str, Worker], requests: Mapping[str, Mapping[str, Any]], rounds: int,
                 settings: Settings, warm_up: bool = True) -> None:
        """After a warm-up turn, `rounds` rounds of one turn each; every other round is in reverse order."""
        self.workers, self.pause = workers, settings.pause
        self.failed: dict[str, str] = {}
        names = [name for name in requests if name in workers]
        self._others = {name: [0.0, 1e-9] for name in names}      # processor time, time
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for name in names:
            self._attempt(name, **requests[name])
            if warm_up:
                self._attempt(name, do="turn")
        for turn in range(rounds):
            for name in names[::-1 if turn % 2 else 1]:
                turns[name] += self._turn(name)
        for name in names:
            for answer in self._attempt(name, do="stop"):
                settings.pools[name] = answer["blas"]
        self.answers = {name: found for name, found in turns.items() if name not in self.failed}
        self.idle = {name: self._others[name][0] / self._others[name][1] for name in self.answers}

    def _attempt(self, name: str, **request: Any) -> list[dict[str, Any]]:
        """A list of the answer; empty if the contender fails or has failed."""
        if name in self.failed:
            return []
        try:
            return [self.workers[name].ask(**request)]
        except WorkerFailed as error:
            self.failed[name] = f"FAILED: {error}"
            self.workers.pop(name).close()
            return []

    def _turn(self, name: str) -> list[dict[str, Any]]:
        """A turn; meanwhile the processor time of the others is measured."""
        time.sleep(self.pause)
        before, began = self._used(), time.perf_counter()
        answer = self._attempt(name, do="turn")
        elapsed, after = time.perf_counter() - began, self._used()
        for other in before.keys() & after.keys() - {name}:
            self._others[other][0] += after[other] - before[other]
            self._others[other][1] += elapsed
        return answer

    def _used(self) -> dict[str, float]:
        """Processor time of each contender so far, if the system reports it."""
        used = {name: machine.cpu_seconds(self.workers[name].process.pid) for name in self._others
                if name in self.workers}
        return {name: seconds for name, seconds in used.items() if seconds is not None}
