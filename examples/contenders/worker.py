"""The process of one contender: started once, asked many times, idle in between.

    main() with the arguments "JAX scan" FOLDER THREADS

One JSON object per line each way.  It says hello with its versions, or why it is absent; then, until its input ends:

    {"do": "train" or "likelihood", "work": ...}   makes ready                             -> {"ready": true}
        {"do": "turn"}                             one epoch, or the values once           -> {"seconds": ..., ...}
        {"do": "stop"}                             lets go of the work                     -> {"stopped": true}
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
    """What a contender sees of the parent: it waits to be asked, works, and says what came of it."""

    def __init__(self, requests: TextIO, answers: TextIO) -> None:
        self.requests, self.answers = requests, answers
        self.cpu = 0.0
        self.pools: list[dict[str, Any]] = []

    def say(self, **answer: Any) -> None:
        """One line to the parent."""
        print(json.dumps(answer), file=self.answers, flush=True)

    def hear(self) -> dict[str, Any]:
        """The next request; "exit" when the parent is gone."""
        line = self.requests.readline()
        return json.loads(line) if line else {"do": "exit"}

    def wait(self) -> bool:
        """Ready: block until asked for the first turn.  False if there is to be none."""
        self.say(ready=True)
        return self._asked()

    def done(self, **result: Any) -> bool:
        """One turn is over; block until asked for the next.  False if there is to be none."""
        self.say(**{"cpu": time.process_time() - self.cpu, "peak": machine.peak_memory(), **result})
        return self._asked()

    def _asked(self) -> bool:
        request = self.hear()
        if request["do"] == "stop":
            self.pools = machine.blas()      # while the contender's own setting of threads still holds
        self.cpu = time.process_time()
        return bool(request["do"] == "turn")


def serve(name: str, folder: Path, threads: int, turns: Turns) -> None:
    """Answer until the parent is gone."""
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
    """What libraries print goes to stderr: the real stdout carries answers only."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, folder, threads = sys.argv[1:]
    serve(name, Path(folder), int(threads), Turns(sys.stdin, answers))


if __name__ == "__main__":
    main()
