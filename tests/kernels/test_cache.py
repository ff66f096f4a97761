"""The start: kernels kept on disk, and what must not reach the user, whatever the disk, the home or numba may do."""
import contextlib
import errno
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from npvae.kernels.fused import compile as compiling

ROOT = Path(__file__).parents[2]
TINY = """
def double(out, x):
    for i in range(x.size):
        out[i] = x[i] + x[i]

def triple(out, x):
    for i in range(x.size):
        out[i] = x[i] + x[i] + x[i]
"""
TYPES = ("float32", "int32")
posix = pytest.mark.skipif(os.name != "posix", reason="owners and permissions")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A module of two kernels, which fresh processes can import as well."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.py").write_text(TINY)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("tiny")
    sys.path.remove(str(folder))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two places for the cache, neither of them made yet."""
    both = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(compiling, "_folders", lambda: both)
    return both


def hits(kernel, dtype="float32"):
    """Call the kernel as a new process would, check what it computes, and count what came from disk: 0 or 1."""
    compiled, x, out = compiling.jit(kernel), np.arange(1, 6).astype(dtype), np.zeros(5, dtype)
    compiled(out, x)
    assert np.array_equal(out, {"double": 2, "triple": 3}[kernel.__name__] * x)
    return sum(compiled.stats.cache_hits.values())


def files(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


# --- damaged and foreign files ---

DAMAGE = {
    "empty": lambda file, content: b"",
    "shorter than its checksum": lambda file, content: content[:31],
    "half": lambda file, content: content[:len(content) // 2],
    "zeros after a power cut": lambda file, content: bytes(len(content)),
    "one bit": lambda file, content: content[:-999] + bytes([content[-999] ^ 1]) + content[-998:],
    "right checksum, no pickle": lambda file, content: compiling._checksum(file, b"text") + b"text",
    "right checksum, no kernel": lambda file, content: compiling._checksum(file, b"N.") + b"N."}


@pytest.mark.every(3)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_replaced(tiny, folders, damage):
    assert hits(tiny.double) == 0
    file, = files(folders[0])
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[damage](file, whole))
    assert file.read_bytes() != whole
    assert hits(tiny.double) == 0
    assert files(folders[0]) == [file] and hits(tiny.double) == 1


def test_the_code_of_another_kernel_or_of_other_types_is_not_run(tiny, folders):
    """What an index that several processes write can come to: the right name, and behind it something else."""
    calls = [(tiny.double, "float32"), (tiny.double, "int32"), (tiny.triple, "int32")]
    assert [hits(*call) for call in calls] == [0, 0, 0]
    three = files(folders[0])
    contents = [file.read_bytes() for file in three]
    assert len(set(contents)) == 3
    for file, content in zip(three, contents[1:] + contents[:1]):
        file.write_bytes(content)
    assert [hits(*call) for call in calls] == [0, 0, 0]
    assert [hits(*call) for call in calls] == [1, 1, 1]


@posix
def test_a_file_that_others_can_write_is_not_loaded(tiny, folders, monkeypatch):
    hits(tiny.double)
    file, = files(folders[0])
    for mode, loaded in ((0o666, 0), (0o664, 0), (0o644, 1), (0o600, 1)):
        file.chmod(mode)
        assert hits(tiny.double) == loaded, oct(mode)
    monkeypatch.setattr(compiling.os, "geteuid", lambda: 1000)
    for owner in (1000, 0, 1001):
        with pytest.raises(PermissionError) if owner == 1001 else contextlib.nullcontext():
            compiling._demand_ours(os.stat_result((0o100644, 1, 1, 1, owner, 1, 1, 0, 0, 0)))


@posix
def test_nothing_is_kept_where_everybody_can_write_every_file(tiny, folders, monkeypatch):
    change = os.chmod
    monkeypatch.setattr(compiling.os, "chmod", lambda file, mode: change(file, 0o777))
    assert hits(tiny.double) == 0
    assert files(folders[0]) == files(folders[1]) == []


# --- disks that take nothing ---

def test_a_folder_that_cannot_be_made_vanishes_or_cannot_be_written_any_more(tiny, folders):
    """A plain file in its place stops root as well, whom permissions do not."""
    folders[0].write_text("in the way")
    assert hits(tiny.double) == 0 and len(files(folders[1])) == 1
    assert hits(tiny.double) == 1
    folders[0].unlink()
    shutil.rmtree(folders[1])
    assert hits(tiny.double) == 0 and len(files(folders[0])) == 1
    shutil.rmtree(folders[0])
    assert hits(tiny.double) == 0 and hits(tiny.double) == 1


def test_a_read_only_folder_is_read(tiny, folders, monkeypatch):
    """Compiled by root for all, say; a damaged file in it cannot be replaced, and the next folder takes the kernel."""
    hits(tiny.double)
    make = tempfile.mkstemp
    monkeypatch.setattr(compiling.tempfile, "mkstemp", lambda dir: make(dir=dir if dir == folders[1] else os.devnull))
    assert hits(tiny.double) == 1 and not files(folders[1])
    files(folders[0])[0].write_bytes(b"damaged")
    assert hits(tiny.double) == 0 and hits(tiny.double) == 1 and len(files(folders[1])) == 1


@pytest.mark.parametrize("fails", ["write", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_a_file_is_there_whole_or_not_at_all(tiny, folders, monkeypatch, fails, error):
    def fail(*args):
        raise error

    class Full(io.FileIO):
        def write(self, content):
            fail(super().write(content[:100]))

    if fails == "write":
        kinds = {"rb": open, "wb": Full}
        monkeypatch.setattr(compiling, "open", lambda file, mode: kinds[mode](file, mode), raising=False)
    else:
        monkeypatch.setattr(compiling.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt) if isinstance(error, KeyboardInterrupt) else contextlib.nullcontext():
        assert hits(tiny.double) == 0
    assert folders[0].is_dir() and files(folders[0]) == files(folders[1]) == []


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """An installation that cannot be written: below a plain file, which stops root as well."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "file" / "compile.py"))
    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "file"


def test_without_any_folder_a_kernel_is_compiled_in_memory(tiny, read_only, monkeypatch):
    """Nor a user's cache that can be made; a NUMBA_CACHE_DIR that cannot; no sources to know a kernel by."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only / "cache"))
    for chosen in ("", str(read_only / "chosen")):
        monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", chosen)
        assert len(compiling._folders()) == (1 if chosen else 2)
        assert [hits(tiny.double), hits(tiny.double)] == [0, 0]
    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", str(read_only.parent))
    monkeypatch.setattr(compiling, "_SOURCES", "")
    assert [hits(tiny.double), hits(tiny.double)] == [0, 0]
    assert list(read_only.parent.iterdir()) == [read_only]


# --- where, and under which name ---

def test_the_user_s_cache_is_an_absolute_path_below_a_home_that_exists(tiny, read_only, monkeypatch):
    here = read_only.parent

    def user(home, cache):
        for name, value in {"HOME": home, "USERPROFILE": home, "XDG_CACHE_HOME": cache}.items():
            monkeypatch.setenv(name, str(value))
        beside, *others = compiling._folders()
        assert beside.parent == read_only / "__pycache__"
        return [folder.parent for folder in others]

    assert user(here, "") == user(here, "relative") == [here / ".cache" / "npvae"]
    assert user(here / "none", here / "cache") == [here / "cache" / "npvae"]
    assert user(here / "none", "") == user(".", "") == []
    assert hits(tiny.double) == 0
    # neither HOME nor an entry among the users, as in a container under any number: "~" stays as it is
    monkeypatch.setattr(compiling.os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert len(compiling._folders()) == 1 and hits(tiny.double) == 0
    assert list(here.iterdir()) == [read_only]
    monkeypatch.undo()
    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", str(here / "chosen"))
    assert [folder.parent for folder in compiling._folders()] == [here / "chosen"]
    assert [hits(tiny.double), hits(tiny.double)] == [0, 1]


def test_a_file_s_name_tells_all_that_its_code_depends_on(tiny, monkeypatch):
    """Another machine on the same home folder, an upgrade, bounds checks switched on: no name in common."""
    array, single = compiling.numba.types.Array, compiling.numba.float32

    def name(kernel=tiny.double, types=array(single, 1, "C"), cpu="znver5"):
        code = SimpleNamespace(magic_tuple=lambda: ("x86_64-linux", cpu, "+avx2"))
        return compiling._DiskCache(kernel)._name((types,), SimpleNamespace(codegen=lambda: code))

    def changed(module, attribute):
        with monkeypatch.context() as context:
            context.setattr(module, attribute, "other")
            return name()

    edited = type(tiny.triple)(tiny.triple.__code__, vars(tiny), "double")
    names = [name(), name(edited), name(cpu="haswell"), name(types=array(single, 1, "A")),
             name(types=array(single, 1, "C", readonly=True)), name(types=array(compiling.numba.int32, 1, "C")),
             *(changed(*place) for place in ((compiling.numba, "__version__"), (compiling.np, "__version__"),
                                             (sys, "version"), (compiling.numba.config, "USING_SVML")))]
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")      # does not count
    assert name() == names[0]
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert len({*names, name()}) == 11


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The kernels as a package of another name, which a test can change or put into a zip file."""
    shutil.copytree(ROOT / "npvae" / "kernels", tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling.numba.config, "CACHE_DIR", "")
    yield tmp_path / "copied"
    for name in [name for name in sys.modules if name.partition(".")[0] in ("copied", "zipped")]:
        del sys.modules[name]


@pytest.mark.parametrize("chapter", ["fused/elementary.py", "fused/compile.py", "reference/dense.py", "__init__.py"])
def test_an_edit_anywhere_among_the_kernels_counts(copied, chapter):
    """From the next import on: what is edited under a running process is not what that process compiles."""
    module = importlib.import_module("copied.fused.compile")
    folder = module._folders()[0]
    os.utime(copied / chapter, (1, 1))
    assert module._sources() == module._SOURCES == folder.name.removeprefix("numba-") != ""
    (copied / chapter).write_text((copied / chapter).read_text() + "# an edit\n")
    assert module._sources() != module._SOURCES and module._folders()[0] == folder


def test_kernels_in_a_zip_file(copied, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "packages.zip", "w") as archive:
        for file in files(copied):
            archive.write(file, Path("zipped") / file.relative_to(copied))
    monkeypatch.syspath_prepend(str(tmp_path / "packages.zip"))
    fused = importlib.import_module("zipped.fused")
    assert ".zip" in fused.__file__
    pre, b, out = np.ones((2, 3)), np.ones(3), np.zeros((2, 3))
    again = fused.compile.jit(fused.identity_forward.py_func)
    for kernel, found in ((fused.identity_forward, 0), (again, 1)):
        kernel(out, pre, b)
        assert (out == 2).all() and sum(kernel.stats.cache_hits.values()) == found
    assert [file.parents[1] for file in files(tmp_path / "cache")] == [tmp_path / "cache" / "npvae"]


# --- fresh processes ---

def environment(*path, **changes):
    """That of a fresh process, without settings of numba or for warnings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHONWARN"))}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))} | changes


def run(code, variables, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], env=variables, capture_output=True, text=True,
                          timeout=300)


COLD = """
import os, sys
import numpy as np
import tiny
from npvae.kernels.fused.compile import jit

def work(types):
    loaded = 0
    for factor, function in ((2, tiny.double), (3, tiny.triple)):
        for dtype in types:
            kernel, x, out = jit(function), np.arange(5).astype(dtype), np.zeros(5, dtype)
            kernel(out, x)
            assert np.array_equal(out, factor * x), (factor, dtype)
            loaded += sum(kernel.stats.cache_hits.values())
    return loaded

types, children, (start, go) = sys.argv[1:], [], os.pipe()
for i in range(2):
    if not (child := os.fork()):
        os.close(go)
        os.read(start, 1)      # until the parent lets go of its end
        work(types[i:] + types[:i])
        os._exit(0)
    children.append(child)
assert not os.path.exists(os.environ["NUMBA_CACHE_DIR"])
os.close(go)
print([os.waitpid(child, 0)[1] for child in children], work(types), "numba.np.linalg" in sys.modules)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that start together are forked")
def test_two_cold_processes_at_once(tiny, tmp_path):
    """Importing writes nothing; the two write four files; a third loads these, and no module that compiling needs."""
    result = run(COLD, environment(Path(tiny.__file__).parent, NUMBA_CACHE_DIR=str(tmp_path / "cache")), *TYPES)
    assert (result.stdout, result.stderr, result.returncode) == (f"{[0] * 2} 4 False\n", "", 0)
    assert len(files(tmp_path)) == 4


LOAD = """
import warnings
from npvae import kernels
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert all(kernels.load("numba") is kernels.load("numpy") for _ in range(3))
warning, = caught
assert warning.filename == "<string>"
print(warning.category.__name__, warning.message)
"""
BROKEN = {
    "raise ImportError('Numba needs NumPy 2.0 or less. Got NumPy 2.9.')": "ImportError: Numba needs NumPy 2.0 or less.",
    "# what a removal left behind": "ImportError: cannot import name 'types' from 'numba'",
    "raise OSError('Could not find/load shared object file\\nlibllvmlite.so')": "OSError: Could not find",
    "raise AttributeError('_ARRAY_API not found')": "AttributeError: _ARRAY_API not found",
    "raise SystemError('initialization of _internal failed')": "SystemError: initialization of _internal failed",
    "raise ValueError('numpy.dtype size changed')": "ValueError: numpy.dtype size changed"}


@pytest.mark.every(3)
@pytest.mark.parametrize("source", BROKEN)
def test_a_numba_that_does_not_load_means_numpy_kernels_and_one_warning(tmp_path, source):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(source)
    result = run(LOAD, environment(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(rf"RuntimeWarning numba cannot be used \(import numba: {re.escape(BROKEN[source])}.*\); "
                        r"the NumPy kernels take over, several times slower\n", result.stdout), result.stdout


def test_numba_switched_off_means_the_same():
    result = run(LOAD, environment(NUMBA_DISABLE_JIT="1"))
    assert result.stdout.startswith("RuntimeWarning numba cannot be used (NUMBA_DISABLE_JIT is set)"), result.stderr
