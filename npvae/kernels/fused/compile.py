"""How the fused kernels are compiled, and where the machine code is kept.

Two decorators, and no other compilation options anywhere:

    jit         a kernel: cached on disk, may reorder sums (a row of 784 is summed in vector lanes)
    inlined     a scalar function used inside kernels: never reordered, since its digits depend on the order

`error_model="numpy"` matters: Python's model tests every division for zero, and the test stops vectorisation.
`fastmath=True` is not used: beyond the four flags below it gains nothing and deletes the handling of NaN and infinity.
"""
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_REORDER = {"reassoc", "contract", "nsz", "arcp"}
STRICT = {"error_model": "numpy", "fastmath": {"contract"}}


def _cache_folder() -> str | None:
    """The first folder that can be written, or None.  Its name holds a hash of the sources of all kernels.

    Numba's own key sees the file of the kernel only.  A kernel whose helper in `elementary.py` has changed, or a
    constant that it takes from the reference, would be loaded as it was before; with the hash it is compiled anew.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(here.parent.rglob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    bases = [numba.config.CACHE_DIR] if numba.config.CACHE_DIR else [here / "__pycache__", Path(home, "npvae")]
    for base in bases:
        folder = Path(base, f"numba-{digest.hexdigest()[:16]}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return str(folder)
        except OSError:
            continue
    return None


_FOLDER = _cache_folder()


def jit(kernel: Callable[..., None]) -> Any:
    """Compile a kernel at its first call for given types; release the GIL while it runs."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _FOLDER or numba.config.CACHE_DIR
    try:
        return numba.njit(kernel, cache=_FOLDER is not None, nogil=True, error_model="numpy", fastmath=_REORDER)
    finally:
        numba.config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a scalar function for use inside kernels; products and sums may fuse, their order stays."""
    return numba.njit(function, **STRICT)
