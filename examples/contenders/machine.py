"""Facts about the machine and the process, to be recorded with measurements."""
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TELLING = ("BLAS", "OMP_", "MKL", "NUMBA", "XLA", "JAX", "TORCH", "NPROC", "_NUM_THREADS", "MALLOC")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory() -> float | None:
    """The peak resident memory of this process, in MiB; None if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def cpu_seconds(pid: int) -> float | None:
    """Processor time that a process has used; None if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def blas() -> list[dict[str, Any]]:
    """The thread pools of this process: BLAS and OpenMP, their versions, architectures and numbers of threads."""
    from threadpoolctl import threadpool_info
    wanted = ("user_api", "internal_api", "version", "architecture", "num_threads")
    return [{key: pool.get(key) for key in wanted} for pool in threadpool_info()]


def telling(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that may affect measurements."""
    return {name: value for name, value in sorted(environment.items()) if any(part in name for part in _TELLING)}


def commit(root: Path) -> str | None:
    """The git commit of the measured code, with "+" if files have changed since; None outside a repository."""
    try:
        def git(*words: str) -> str:
            return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True,
                                  timeout=20).stdout.strip()
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def describe(root: Path) -> dict[str, Any]:
    """The facts that every record contains."""
    return {"cpu": cpu_model(), "cores": cores(), "system": platform.platform(),
            "python": platform.python_version(), "commit": commit(root)}
