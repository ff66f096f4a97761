"""How fast is npvae?  Against PyTorch, JAX, and the matrix products alone, on the machine it is run on.

    python examples/benchmark.py                      everything
    python examples/benchmark.py epochs               training only; others: start likelihood scaling kernels
    python examples/benchmark.py epochs --works "784-128-20 b128 relu" --rounds 9
    python examples/benchmark.py epochs --works 7 8                        a MADE decoder, a VampPrior
    python examples/benchmark.py --quick              does it all work?  a minute or two; the numbers mean little
    python examples/benchmark.py --json results.json

Rules: each contender has a process of its own; they take turns, an epoch each, for --rounds rounds after a warm-up,
and only one works at a time.  All start from the same weights, see the same batches, minimise the same loss by the same
Adam; their losses have to agree.  Noise is drawn by each library's own generator, as part of the work.  A library that
is not installed is reported as absent.  OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which slow down NumPy's BLAS alone, are
taken out of the environment of every contender unless --keep-blas-settings is given; so are the variables that set
numbers of threads: --threads sets them for all.

Leave the machine alone meanwhile, and compare only numbers of one run.  Exit code 0; 1 if losses disagree, a contender
failed, or one that should have been idle was not; 2 for bad input.  Read on in `contenders/`.
"""
import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from contenders import machine, pool, summary, works
from contenders.parts import PARTS, estimate
from contenders.worker import CONTENDERS

from npvae import cli
from npvae.system.files import write_atomically
from npvae.validate import choice, integer, shown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise cli.UsageError(f"{message} (see --help)")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = _Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False,
                   formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("parts", nargs="*", default=["all"], metavar="part", help=f"{', '.join(PARTS)} or all")
    made.add_argument("--works", nargs="+", default=["all"], metavar="WORK",
                      help=f"of the part epochs, by name or number from 1: {'; '.join(works.WORKS)}; and those of the "
                      f"family, which all leaves out: {'; '.join(works.FAMILY)}")
    made.add_argument("--contenders", nargs="+", default=list(CONTENDERS), metavar="NAME", help="leave some out")
    made.add_argument("--rounds", type=int, default=5, help="epochs that count, of each contender")
    made.add_argument("--images", type=int, default=60000, metavar="N", help="at most so many in an epoch")
    made.add_argument("--threads", type=int, default=machine.cores(), metavar="N", help="of every contender")
    made.add_argument("--data", default="mnist", help="mnist or synthetic")
    made.add_argument("--seed", type=int, default=0, help="of weights, order and noise")
    made.add_argument("--quick", action="store_true", help="two rounds of 1,280 images, and less of everything else")
    made.add_argument("--keep-blas-settings", action="store_true",
                      help=f"leave {' and '.join(pool.BLAS_SETTINGS)} as they are")
    made.add_argument("--coretype", metavar="NAME", help="set OPENBLAS_CORETYPE for all, such as Haswell")
    made.add_argument("--json", type=Path, metavar="FILE", help="all raw timings, replaced after every part")
    return made


def chosen_works(given: list[str]) -> tuple[str, ...]:
    """Names of works from names or numbers.  Raises ValueError."""
    names = list(works.ALL)
    if given == ["all"]:
        return tuple(works.WORKS)
    return tuple(names[int(text) - 1] if text.isdigit() and 0 < int(text) <= len(names)
                 else choice("--works", text, names) for text in given)


def chosen_parts(given: list[str]) -> list[str]:
    """Names of parts, in order.  Raises ValueError."""
    for part in given:
        choice("part", part, [*PARTS, "all"])
    return list(PARTS) if "all" in given else [part for part in PARTS if part in given]


def make_settings(args: argparse.Namespace, folder: Path) -> tuple[pool.Settings, dict[str, Any]]:
    """What the flags say, and what is worth recording of it.  Raises ValueError."""
    for name, least in (("rounds", 1), ("images", 1), ("threads", 1), ("seed", 0)):
        integer(f"--{name}", getattr(args, name), least)
    choice("--data", args.data, ("mnist", "synthetic"))
    for name in args.contenders:
        choice("--contenders", name, CONTENDERS)
    if args.json is not None and not args.json.parent.is_dir():
        raise cli.UsageError(f"--json {args.json}: there is no folder {args.json.parent}")
    if args.coretype is not None and not args.coretype.isalnum():
        raise cli.UsageError(f"--coretype must be a name OpenBLAS knows, such as Haswell, got {shown(args.coretype)}")
    environment, removed = pool.environment(args.keep_blas_settings, args.coretype)
    rounds, images = (min(args.rounds, 2), min(args.images, 1280)) if args.quick else (args.rounds, args.images)
    settings = pool.Settings(folder, environment, args.threads, rounds, images, chosen_works(args.works),
                             tuple(args.contenders), args.seed, quick=args.quick,
                             say=lambda text: print(text, flush=True))
    record = {"machine": machine.describe(Path(works.__file__).parents[2]), "removed_from_environment": removed,
              "environment": machine.telling(environment), "threads": args.threads, "rounds": rounds,
              "images": images, "data": args.data, "seed": args.seed, "quick": args.quick}
    return settings, record


def main() -> None:
    args = parser().parse_args()
    parts = chosen_parts(args.parts)
    with tempfile.TemporaryDirectory(prefix="npvae-benchmark-") as name:
        settings, record = make_settings(args, Path(name))
        works.write_pixels(settings.folder, args.data)
        about = record["machine"]
        print(f"{about['cpu']}, {about['cores']} cores, {args.threads} threads each; Python {about['python']}, npvae "
              f"{about['commit'] or 'outside a repository'}")
        print(f"environment of every contender: {record['environment'] or 'nothing that matters'}; removed: "
              f"{record['removed_from_environment'] or 'nothing'}")
        minutes = sum(estimate(part, settings) for part in parts) / 60
        print(f"{', '.join(parts)}: some {max(minutes, 1):.0f} minutes", flush=True)
        problems = run(parts, settings, record, args.json)
    if problems:
        print(f"\n*** {len(problems)} problems, see above: do not use these numbers", flush=True)
        raise SystemExit(1)


def run(parts: list[str], settings: pool.Settings, record: dict[str, Any], path: Path | None) -> list[str]:
    """The parts, one after the other; returns what went wrong."""
    results: dict[str, Any] = {}
    problems = []
    for part in parts:
        began = time.perf_counter()
        results[part] = PARTS[part](settings)
        results[part]["took"] = time.perf_counter() - began
        problems += results[part]["problems"]
        if path is not None:
            whole = {**record, "versions": settings.versions, "thread_pools": settings.pools, "parts": results}
            write_atomically(path, json.dumps(summary.plain(whole), indent=1, allow_nan=False).encode())
    print("\nversions and thread pools")
    for name, versions in settings.versions.items():
        pools = "; ".join(f"{pool['internal_api']} {pool['version'] or ''} {pool['architecture'] or ''} "
                          f"{pool['num_threads']} threads".replace("  ", " ") for pool in settings.pools.get(name, []))
        print(f"  {name}: {', '.join(f'{key} {value}' for key, value in versions.items())}"
              f"{f'  [{pools}]' if pools else ''}")
    return problems


if __name__ == "__main__":
    sys.exit(cli.exit_code(main))
