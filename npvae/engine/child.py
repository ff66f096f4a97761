"""Another Python process, which runs code of this package while the reader's own goes on.

Python looks for modules in the current folder first, for `python -c` as for `python -m`; and PYTHONPATH may name it.
A file numpy.py there, downloaded with some data, would be run.  So the process is isolated (-I: no PYTHONPATH, no
current folder, no user's site), finds modules where this one does but for that folder, and loads npvae from where this
one has it.
"""
import os
import subprocess
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def start(code: str) -> "subprocess.Popen[bytes]":
    """A process that runs this code, in which npvae is imported; silent, and without input.  Raises OSError."""
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
