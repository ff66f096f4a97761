"""The process of one contender.  It answers requests and is idle between them.

    main() with the arguments "JAX scan" FOLDER THREADS

Requests and answers are JSON objects, one per line.  It first sends its versions, or why it is absent; then, until its
input ends, it takes:

    {"do": "train" or "likelihood", "work": ...}   prepare the work                        -> {"ready": true}
        {"do": "turn"}                             one epoch, or log p(x) of all images    -> {"seconds": ..., ...}
        {"do": "stop"}                             end the work                            -> {"stopped": true}
    {"do": "kernels", "work": ...}                 the table of kernels                    -> {"rows": ...}
"""
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from . import machine
from .works import read_job

#: name -> module, variant
CONTENDERS = {
    "npvae": ("npvae_", "numba"), "npvae, NumPy kernels": ("npvae_", "numpy"),
    "PyTorch eager": ("pytorch", "eager"), "PyTorch compiled": ("pytorch", "compiled"),
    "JAX step": ("jax_", "step"), "JAX scan": ("jax_", "scan"), "floor": ("floor", "")}


class Turns:
    """The connection to the parent process: a contender waits for a request, works, and sends the result."""

    def __init__(self, requests: TextIO, answers: TextIO) -> None:
        self.requests, self.answers = requests, answers
        self.cpu = 0.0
        self.pools: list[dict[str, Any]] = []

    def say(self, **answer: Any) -> None:
        """Send an answer to the parent."""
        print(json.dumps(answer), file=self.answers, flush=True)

    def hear(self) -> dict[str, Any]:
        """The next request; "exit" if the parent has ended."""
        line = self.requests.readline()
        return json.loads(line) if line else {"do": "exit"}

    def wait(self) -> bool:
        """Report that the work is prepared, and wait for the first turn.  False if there is none."""
        self.say(ready=True)
        return self._asked()

    def done(self, **result: Any) -> bool:
        """Send the result of a turn, and wait for the next.  False if there is none."""
        self.say(**{"cpu": time.process_time() - self.cpu, "peak": machine.peak_memory(), **result})
        return self._asked()

    def _asked(self) -> bool:
        request = self.hear()
        if request["do"] == "stop":
            self.pools = machine.blas()      # while the contender's number of threads is still set
        self.cpu = time.process_time()
        return bool(request["do"] == "turn")


def serve(name: str, folder: Path, threads: int, turns: Turns) -> None:
    """Answer requests until the parent ends."""
    module_name, variant = CONTENDERS[name]
    try:
        contender = importlib.import_module(f".{module_name}", __package__)
    except ImportError as error:
        turns.say(absent=" ".join(str(error).split()))
        return
    turns.say(versions=contender.versions())
    while (request := turns.hear())["do"] != "exit":
        if request["do"] == "kernels":
            from .kernel_table import measure
            turns.say(rows=measure(**request["options"]))
        elif request["do"] in ("train", "likelihood"):
            getattr(contender, request["do"])(read_job(folder, request, threads, variant), turns)
            turns.say(stopped=True, blas=turns.pools)


def main() -> None:
    """Serve on stdin and stdout; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, folder, threads = sys.argv[1:]
    serve(name, Path(folder), int(threads), Turns(sys.stdin, answers))


if __name__ == "__main__":
    main()
