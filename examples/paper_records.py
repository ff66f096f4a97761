"""Records of the programs for the published tables: one JSON object per line, with the commit that produced it."""
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from npvae.system.files import write_atomically

_BUT_RECORDS = ":(exclude)paper_tables.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one JSON object per line; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_line(path: Path, record: dict[str, Any]) -> None:
    """Append an object to the file."""
    write_atomically(path, "".join(json.dumps(one) + "\n" for one in [*lines(path), record]).encode())


def commit() -> str:
    """The git commit of the running code, with "-dirty" if files other than the records have changed since."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    try:
        name, changed = git("describe", "--always"), git("diff", "--name-only", "HEAD", "--", ":/", _BUT_RECORDS)
    except OSError:
        return "unknown"
    return name + "-dirty" * bool(changed) or "unknown"


def trained_by(sessions: list[dict[str, Any]], epoch: int) -> str:
    """The commits that trained a model up to this epoch, in order."""
    found = [one["commit"] for one in sessions if one["epoch"] < epoch]
    known = bool(sessions) and sessions[0]["epoch"] == 0
    return ", ".join(dict.fromkeys(found if known else ["unknown", *found]))


def evenly(x: np.ndarray, images: int) -> np.ndarray:
    """`images` rows of x, evenly spaced, since the test images of the static binarization are sorted by label."""
    return x[np.arange(min(images, len(x))) * len(x) // min(images, len(x))]


def largest_first(kl: np.ndarray) -> list[float]:
    """KL per dimension for a record: rounded, in falling order."""
    return [round(float(value), 4) for value in np.sort(kl)[::-1]]


def fingerprint(samples: int, *arrays: np.ndarray) -> list[int]:
    """Identifies what is measured: a measurement continues only with the same samples and arrays."""
    return [samples, *(zlib.crc32(np.ascontiguousarray(array).data) for array in arrays)]
