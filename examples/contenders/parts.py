"""The parts of the benchmark.  Each takes the settings, prints tables, and returns its measurements as JSON values."""
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import summary
from .pool import Absent, Rounds, Settings, Worker, WorkerFailed, opened, with_caches
from .worker import CONTENDERS
from .works import ALL, WORKS, Work

Found = dict[str, Any]

FLOOR = "floor"
START = ("npvae", "PyTorch eager", "JAX scan")
LIKELIHOOD = ("npvae", "PyTorch eager", "PyTorch compiled", "JAX scan")
BLOCKS = (100, 250, 500, 1000, 2500, 5000)      # numbers of draws at a time; the fastest is found first
BATCHES, WIDTHS = (20, 50, 100, 128, 256, 512), (64, 100, 128, 200, 256, 400, 512, 800)
_MODEL = "784-200-200-50 b100 tanh"      # for the log-likelihood


def epochs(settings: Settings) -> Found:
    """Training: for every work, contenders take turns of one epoch."""
    found: Found = {"works": {}, "problems": []}
    with opened(settings.contenders, settings) as (workers, missing):
        for name in settings.works:
            work = settings.shortened(ALL[name])
            request = settings.request("train", work)
            rounds = Rounds(workers, dict.fromkeys(workers, request), settings.rounds, settings)
            missing.update(rounds.failed)
            rows = summary.summarize(rounds.answers, work.steps)
            tolerance = summary.loss_tolerance(work.images * (settings.rounds + 1))
            problems = _problems(name, rows, missing, rounds.idle, tolerance)
            found["works"][name] = {"turns": rounds.answers, "summary": rows, "idle": rounds.idle,
                                    "missing": dict(missing), "images": work.images,
                                    "gflop_per_step": work.flops() / 1e9}
            found["problems"] += problems
            settings.say(f"\n{name}: {work.images:,} images, {work.steps:.0f} steps of {work.flops() / 1e6:.0f} Mflop "
                         f"in products; {settings.rounds} rounds\n{summary.epochs_table(rows, missing)}")
            if FLOOR in rows and summary.BASE in rows:
                settings.say(f"npvae takes {1 / rows[FLOOR]['ratio_of_medians']:.2f} times its matrix products alone")
            for problem in problems:
                settings.say(f"*** {problem}")
    of_mean = [name for name in settings.works if name in WORKS]
    found["over_works"] = summary.over_works({name: found["works"][name]["summary"] for name in of_mean})
    if len(of_mean) > 1:
        rows_of_means = [(name, *row.values()) for name, row in found["over_works"].items()]
        settings.say("\ngeometric mean over the works, times npvae\n"
                     + summary.table(("contender", "of medians", "by round"), rows_of_means))
    return found


def _problems(work: str, rows: Mapping[str, Mapping[str, float]], missing: Mapping[str, str],
              idle: Mapping[str, float], tolerance: float) -> list[str]:
    """What makes the numbers of a work invalid."""
    losses = {name: row["loss"] for name, row in rows.items() if "loss" in row}
    return [*(f"LOSSES DISAGREE on {work}: {text} (tolerance {tolerance:.1%})"
              for text in summary.disagreements(losses, tolerance)),
            *(f"{name} did not do {work}: {reason}" for name, reason in missing.items() if "FAILED" in reason),
            *(f"NOT IDLE: {name} used {share:.0%} of a processor while others worked on {work}"
              for name, share in idle.items() if share > summary.IDLE_LIMIT)]


def start(settings: Settings) -> Found:
    """The whole process, from its start to the end of the first epoch, with empty caches and then with filled ones.  A
    first start of each does not count: it compiles bytecode, and brings the library's files into memory."""
    work = settings.shortened(WORKS["784-128-20 b128 relu"])
    request = settings.request("train", work)
    found: Found = {"runs": [], "missing": {}, "images": work.images, "problems": []}
    for turn in range(-1, settings.rounds):
        for name in [name for name in START if name in settings.contenders and name not in found["missing"]]:
            with tempfile.TemporaryDirectory(dir=settings.folder) as caches:
                for kind in ("cold", "warm") if turn >= 0 else ("does not count",):
                    try:
                        found["runs"].append({"contender": name, "kind": kind,
                                              **_start_once(name, request, Path(caches), settings)})
                    except WorkerFailed as error:
                        reason = "absent" if isinstance(error, Absent) else "FAILED"
                        found["missing"][name] = f"{reason}: {error}"
                        break
    rows = []
    for name in dict.fromkeys(run["contender"] for run in found["runs"] if run["contender"] not in found["missing"]):
        of = {kind: [run for run in found["runs"] if (run["contender"], run["kind"]) == (name, kind)]
              for kind in ("cold", "warm")}
        rows.append((name, *(statistics.median(run["seconds"] for run in of[kind]) for kind in of),
                     statistics.median(run["epoch"] for run in of["warm"]), *(_peak(of[kind]) for kind in of)))
    settings.say(f"\nstart-up: exec to the end of the first epoch of {work.name}, {work.images:,} images; medians of "
                 f"{settings.rounds}; each library keeps compiled code, JAX's own switch for that being on\n"
                 + summary.table(("contender", "cold s", "warm s", "of it epoch s", "cold MiB", "warm MiB"), rows))
    _say_missing(found, settings)
    return found


def _start_once(name: str, request: Mapping[str, Any], caches: Path, settings: Settings) -> Found:
    began = time.perf_counter()
    worker = Worker(name, settings, with_caches(settings.environment, caches, settings.folder / "bytecode"))
    try:
        worker.ask(**request)
        answer = worker.ask(do="turn")
        return {"seconds": time.perf_counter() - began, "epoch": answer["seconds"], "peak": answer["peak"]}
    finally:
        worker.close()


def _peak(turns: list[Any]) -> float | None:
    """The median peak memory in MiB; None if the system does not report it."""
    peaks = [turn["peak"] for turn in turns if turn["peak"] is not None]
    return statistics.median(peaks) if peaks else None


def _say_missing(found: Found, settings: Settings) -> None:
    for name, reason in found["missing"].items():
        settings.say(f"{name}: {reason}")
        if "FAILED" in reason:
            found["problems"].append(f"{name} {reason}")


def likelihood(settings: Settings) -> Found:
    """log p(x) of test images by importance sampling, in new processes, so that peak memory is that of this task."""
    images, samples = (20, 500) if settings.quick else (1000, 5000)
    work = Work(**{**vars(WORKS[_MODEL]), "images": images})
    trained = settings.request("likelihood", settings.shortened(WORKS[_MODEL]), "test.npy", 1 if settings.quick else 3)
    found: Found = {"images": images, "samples": samples, "blocks": {}, "problems": []}
    requests = {}
    for name in (name for name in LIKELIHOOD if name in settings.contenders):
        def request(block: int, images: int) -> Found:
            return {**trained, "work": {**trained["work"], "images": images},
                    "options": {"samples": samples, "block": block}}
        times = {} if name == "npvae" else _times_of_blocks(name, request, samples, settings)
        found["blocks"][name] = times
        requests[name] = request(min(times, key=times.__getitem__) if times else samples, work.images)
    with opened(requests, settings) as (workers, missing):
        rounds = Rounds(workers, requests, min(settings.rounds, 3), settings, warm_up=False)
    answers = rounds.answers
    found |= {"turns": answers, "missing": {**missing, **rounds.failed}}
    rows = summary.summarize(answers, images)
    table = [(name, row["median"], row["least"], row["most"], row.get("ratio_of_medians"), row.get("cores"),
              requests[name]["options"]["block"] if name != "npvae" else None, _peak(answers[name]),
              statistics.fmean(answers[name][0]["values"])) for name, row in rows.items()]
    settings.say(f"\nlog p(x) of {images:,} test images, {samples:,} samples each, 784-200-200-50; at most 3 rounds\n"
                 + summary.table(("contender", "seconds", "least", "most", "x npvae", "cores", "block", "peak MiB",
                                  "mean nats"), table))
    _say_missing(found, settings)
    if summary.BASE in answers:
        different = summary.different_means({name: turns[0]["values"] for name, turns in answers.items()})
        found["problems"] += [f"LOG-LIKELIHOODS DISAGREE: {text}" for text in different]
    for problem in found["problems"]:
        settings.say(f"*** {problem}")
    return found


def _times_of_blocks(name: str, request: Callable[[int, int], Found], samples: int, settings: Settings
                     ) -> dict[int, float]:
    """Seconds for a few images with each number of draws at a time; the faster of two turns."""
    images = 3 if settings.quick else 20
    times: dict[int, float] = {}
    with opened([name], settings) as (workers, _):
        for block in [block for block in BLOCKS if samples % block == 0]:
            rounds = Rounds(workers, {name: request(block, images)}, 2, settings)
            times |= {block: min(turn["seconds"] for turn in turns) for turns in rounds.answers.values()}
    return times


def scaling(settings: Settings) -> Found:
    """npvae's time against batch size and width, with the floor for comparison."""
    limit = min(settings.images, 12800)
    works = [Work(f"784-200-200-50 tanh, batch {batch}", (200, 200), 50, batch, "tanh", images=limit)
             for batch in BATCHES if batch <= limit]
    works += [Work(f"784-{width}-20 relu, batch 128", (width,), 20, 128, "relu", images=limit)
              for width in WIDTHS if 128 <= limit]
    found: Found = {"works": {}, "problems": []}
    rows: list[tuple[Any, ...]] = []
    with opened([name for name in ("npvae", FLOOR) if name in settings.contenders], settings) as (workers, missing):
        for work in works:
            requests = dict.fromkeys(workers, settings.request("train", work))
            rounds = Rounds(workers, requests, settings.rounds, settings)
            missing.update(rounds.failed)
            summed = summary.summarize(rounds.answers, work.steps)
            found["works"][work.name] = {"turns": rounds.answers, "summary": summed}
            ours, floor = (summed.get(name, {}).get("us_per_step") for name in ("npvae", FLOOR))
            rows.append((work.name, ours, ours and ours / work.batch, ours and work.flops() / ours / 1e3,
                         floor, ours and floor and ours / floor))
    found["missing"] = missing
    settings.say(f"\nnpvae against batch size and width; medians of {settings.rounds} epochs of {limit:,} images\n"
                 + summary.table(("work", "us/step", "us/image", "Gflop/s", "floor us/step", "x floor"), rows))
    _say_missing(found, settings)
    return found


def kernels(settings: Settings) -> Found:
    """Each fused kernel against its NumPy twin."""
    options = {"samples": 3, "least": 1e-3} if settings.quick else {"samples": 15, "least": 5e-3}
    rows: list[Any] = []
    with opened(["npvae"], settings) as (workers, missing):
        for name, worker in workers.items():
            try:
                rows = worker.ask(do="kernels", options=options)["rows"]
            except WorkerFailed as error:
                missing[name] = f"FAILED: {error}"
    found: Found = {"rows": rows, "missing": missing, "problems": []}
    columns = ("numpy_us", "numba_us", "ratio", "gb_per_s", "error")
    shared = [row["kernel"] for row in rows if "shared" in row]
    settings.say("\nkernels on one thread, float32, at the shapes of training; GB/s counts every argument once and may "
                 "come from a cache\n" + summary.table(
                     ("kernel", "NumPy us", "fused us", "ratio", "GB/s", "error"),
                     [(row["kernel"], *(row.get(column) for column in columns)) for row in rows
                      if row["kernel"] not in shared]))
    if shared:
        settings.say(f"one version, used by both: {', '.join(shared)}")
    found["problems"] = [f"{row['kernel']}: {row['note']}" for row in rows if "note" in row]
    for problem in found["problems"]:
        settings.say(f"*** {problem}")
    _say_missing(found, settings)
    return found


PARTS: dict[str, Callable[[Settings], Found]] = {
    "epochs": epochs, "start": start, "likelihood": likelihood, "scaling": scaling, "kernels": kernels}

#: seconds of one round of all contenders at full size, on two cores
_ROUND = dict(zip(ALL, (4.0, 9.0, 9.0, 17.0, 9.0, 14.0, 30.0, 40.0), strict=True))


def estimate(part: str, settings: Settings) -> float:
    """A rough estimate of a part's seconds, on two cores of a recent processor, with all libraries installed."""
    share = {name: settings.shortened(ALL[name]).images / ALL[name].images for name in settings.works}
    pauses = settings.pause * len(CONTENDERS)
    return {"epochs": 15 + sum(20 + (settings.rounds + 1) * (_ROUND[name] * share[name] + pauses)
                               for name in settings.works),
            "start": (settings.rounds * 2 + 1) * (3 + 3 + 3),
            "likelihood": 40.0 if settings.quick else 150 + 100 * min(settings.rounds, 3),
            "scaling": 14 * (settings.rounds + 1) * (0.2 + 0.6 * min(settings.images, 12800) / 12800),
            "kernels": 5.0 if settings.quick else 20.0}[part]
