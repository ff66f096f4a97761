"""Another Python process, which runs code of this package in the background.

Python looks for modules in the current folder first, with `python -c` as with `python -m`, and PYTHONPATH may name that
folder too.  A file numpy.py there, downloaded with some data, would be run.  So the process is isolated (-I: no
PYTHONPATH, no current folder, no packages of the user's own), looks for modules where this process does, but for the
current folder, and loads npvae from where this process has it.
"""
import os
import subprocess
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def start(code: str) -> "subprocess.Popen[bytes]":
    """A process that imports npvae and runs this code, without input or output.  Raises OSError."""
    options = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
    before = (f"import sys; sys.path[:], sys.pycache_prefix = {_path()!r}, {sys.pycache_prefix!r}\n"
              "from importlib.util import module_from_spec, spec_from_file_location\n"
              f"spec = spec_from_file_location('npvae', {str(_PACKAGE / '__init__.py')!r})\n"
              "npvae = sys.modules['npvae'] = module_from_spec(spec)\n"
              "spec.loader.exec_module(npvae)\n")
    return subprocess.Popen([sys.executable, *options, "-c", before + code], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _path() -> list[str]:
    """Where this process looks for modules, without the current folder under any name."""
    return [folder for folder in sys.path if os.path.isabs(folder) and os.path.realpath(folder) != os.path.realpath("")]
