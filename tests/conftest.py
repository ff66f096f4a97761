"""Profiles, floating-point rules and threads that hold for every test."""
import gc
import os
import signal
import sys
from collections import Counter
from pathlib import Path

# Started in the background, a process ignores Ctrl-C, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before NumPy is loaded, here and in the programs that tests start: BLAS threads that wait for each other spin, and on
# a busy machine a product of two small matrices then takes milliseconds.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import threadpoolctl  # noqa: E402
from hypothesis import HealthCheck, Phase, settings  # noqa: E402

from chapters import EQUATION, chapter_of  # noqa: E402
from npvae.testing import register_profiles  # noqa: E402

register_profiles(max_examples=5)
# Under a mutant (`mutation.py`) it only matters whether a test fails, not on how small an example.
settings.register_profile("mutation", deadline=None, max_examples=8, derandomize=True, database=None,
                          phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False,
                          suppress_health_check=list(HealthCheck))
# The same examples in every run; NPVAE_TEST_PROFILE=npvae draws new ones.
settings.load_profile(os.environ.get("NPVAE_TEST_PROFILE", "npvae-ci"))


_SUPPORT = Path(__file__).parent / "support"
_START = {}      # of each module of tests: its generators and those it borrows, each with its state after all imports
_BLAS = threadpoolctl.ThreadpoolController()


def process_state():
    """What a test could change for all that come after it."""
    return {"environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
            "folder": os.getcwd(), "path of imports": [*sys.path], "trace function": [sys.gettrace()],
            "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            "umask": _umask(), "floating-point errors": np.geterr(), "collector": gc.isenabled(),
            "BLAS threads": [library.num_threads for library in _BLAS.lib_controllers],
            "subnormal numbers": np.float64(5e-324) * np.float64(1) != 0,
            "style of pictures": _style_of_pictures(),
            "Hypothesis profile": (settings.get_current_profile_name(), settings().max_examples)}


def _style_of_pictures():
    """But for the backend, which Matplotlib chooses when it is first needed."""
    matplotlib = sys.modules.get("matplotlib")
    return {name: value for name, value in dict.items(matplotlib.rcParams) if name != "backend"} if matplotlib else None


def _umask():
    """Read without setting it, where the system tells."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(line for line in file if line.startswith("Umask"))
    except OSError:
        return None


def left_changed(before):
    """Of each thing that is not what it was, the name, value before and value after."""
    after = process_state()
    return {name: (value, after[name]) for name, value in before.items() if value is not None and after[name] != value}


@pytest.fixture(autouse=True)
def every_test_by_itself(request):
    """What a test finds does not depend on those before it: a module's generators begin anew, and the process must be
    left as it was.  Overflow, division by zero and invalid operations fail; underflow to zero is what exp(-1000) is."""
    for generator, state in _START.get(request.module, ()):
        generator.bit_generator.state = state
    with np.errstate(all="raise", under="ignore"):
        before = process_state()
        yield
        assert left_changed(before) == {}, "the test leaves the process changed"


def pytest_addoption(parser):
    parser.addoption("--equation", help="run only the chapter and the tests of an equation, such as D6.1")
    parser.addoption("--size", type=int, help="how many cases a campaign of the marker slow takes")


def pytest_configure(config):
    equation = config.getoption("--equation")
    if equation and not EQUATION.fullmatch(equation):
        raise pytest.UsageError(f"--equation must be an id such as D6.1, got {equation!r}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `pytest -n 2` a file's tests run in one process, where what they share is made once."""
    from xdist.scheduler import LoadFileScheduling
    return LoadFileScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_ignore_collect(collection_path, config):
    """With --equation, files that do not name it are not even imported."""
    equation = config.getoption("--equation")
    if equation and collection_path.suffix == ".py" and collection_path.name != "test_chapters.py":
        return True if f'"{equation}"' not in collection_path.read_text(encoding="utf-8") else None
    return None


def _leave_out_cases(items):
    """Of a test with the marker every(n), the cases 0, n, 2n ... stay in an ordinary run; the others become slow."""
    seen = Counter()
    for item in items:
        mark = item.get_closest_marker("every")
        if mark:
            case = seen[item.module, item.originalname]
            seen[item.module, item.originalname] += 1
            if case % mark.args[0]:
                item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)      # before pytest leaves out what is slow
def pytest_collection_modifyitems(config, items):
    lent = [module for module in sys.modules.values() if str(_SUPPORT) in (getattr(module, "__file__", None) or "")]
    for module in {item.module for item in items}:
        _START[module] = [(value, value.bit_generator.state) for one in (module, *lent) for value in vars(one).values()
                          if type(value) is np.random.Generator]
    equation = config.getoption("--equation")
    if not equation and settings.get_current_profile_name() != "mutation":      # where every test counts
        _leave_out_cases(items)
    if equation:
        kept = [item for item in items if any(mark.args == (equation,) for mark in item.iter_markers("equation"))
                or item.name == f"test_a_chapter_runs[{chapter_of(equation)}]"]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
