"""How fast is npvae on this machine, compared with PyTorch, JAX, and the matrix products alone?

    python examples/benchmark.py                      everything
    python examples/benchmark.py epochs               only training; the other parts: start likelihood scaling kernels
    python examples/benchmark.py epochs --works "784-128-20 b128 relu" --rounds 9
    python examples/benchmark.py epochs --works 7 8                        a MADE decoder, a VampPrior
    python examples/benchmark.py --quick              only to see that it runs, in a minute or two
    python examples/benchmark.py --json results.json

Rules.  Each contender has a process of its own.  After a warm-up they take turns, one epoch at a time, for --rounds
rounds; only one works at a time.  All start from the same weights, see the same batches, and minimise the same loss
with the same Adam; their losses must agree.  Each library draws the noise with its own generator, within the measured
time.  A library that is not installed is reported as absent.  OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which slow down
only NumPy's BLAS, are removed from the environment of all contenders unless --keep-blas-settings is given.  So are
variables that set numbers of threads, which --threads sets for all.

Let nothing else run meanwhile, and compare only numbers of one run.  Exit codes: 0; 1 if losses disagree, a contender
failed, or one used the processor during another's turn; 2 for bad input.  Read on in `contenders/`.
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
    """The parser of the flags."""
    made = _Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False,
                   formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("parts", nargs="*", default=["all"], metavar="part", help=f"{', '.join(PARTS)} or all")
    made.add_argument("--works", nargs="+", default=["all"], metavar="WORK",
                      help=f"works of the part epochs, by name or by number from 1: {'; '.join(works.WORKS)}; or, not "
                      f"included in all: {'; '.join(works.FAMILY)}")
    made.add_argument("--contenders", nargs="+", default=list(CONTENDERS), metavar="NAME", help="libraries to measure")
    made.add_argument("--rounds", type=int, default=5, help="measured epochs of each contender")
    made.add_argument("--images", type=int, default=60000, metavar="N", help="at most this many images in an epoch")
    made.add_argument("--threads", type=int, default=machine.cores(), metavar="N", help="for every contender")
    made.add_argument("--data", default="mnist", help="mnist or synthetic")
    made.add_argument("--seed", type=int, default=0, help="seed of weights, order and noise")
    made.add_argument("--quick", action="store_true", help="only to see that it runs: two rounds of 1,280 images")
    made.add_argument("--keep-blas-settings", action="store_true",
                      help=f"leave {' and '.join(pool.BLAS_SETTINGS)} as they are")
    made.add_argument("--coretype", metavar="NAME", help="set OPENBLAS_CORETYPE for all, such as Haswell")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all timings to this file, after every part")
    return made


def chosen_works(given: list[str]) -> tuple[str, ...]:
    """The names of works that are given by name or number.  Raises ValueError."""
    names = list(works.ALL)
    if given == ["all"]:
        return tuple(works.WORKS)
    return tuple(names[int(text) - 1] if text.isdigit() and 0 < int(text) <= len(names)
                 else choice("--works", text, names) for text in given)


def chosen_parts(given: list[str]) -> list[str]:
    """The names of parts, in order.  Raises ValueError."""
    for part in given:
        choice("part", part, [*PARTS, "all"])
    return list(PARTS) if "all" in given else [part for part in PARTS if part in given]


def make_settings(args: argparse.Namespace, folder: Path) -> tuple[pool.Settings, dict[str, Any]]:
    """The settings that the flags give, and the record of machine and settings for --json.  Raises ValueError."""
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
    """Run the parts one after the other.  Returns the problems found."""
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
