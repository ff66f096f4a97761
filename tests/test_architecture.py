"""What holds the source together: who may import whom, and what an import costs."""
import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).parents[1]

# The rooms of npvae, and the modules at its top, in the order of imports: each may import from itself and from what
# stands before it, for annotations too.
ROOMS = ("system", "validate", "kernels", "params", "layers", "likelihoods", "buffers", "latents", "decoders",
         "objectives", "engine", "evaluate", "data", "checkpoint", "model", "compression", "optim", "train",
         "gradcheck", "testing", "plotting", "pages", "cli", "sklearn", "__main__", "_moved", "")

# Beyond NumPy and the standard library.
THIRD_PARTY = {
    "kernels.fused.compile": {"numba"}, "kernels.fused.elementary": {"numba"},
    "kernels.fused.numba_private": {"llvmlite", "numba"},
    "kernels.fused.instructions": {"llvmlite", "numba"}, "engine.recording": {"threadpoolctl"},
    "engine.trial": {"llvmlite", "numba"}, "engine.blas_threads": {"threadpoolctl"},
    "cli.runs": {"threadpoolctl"}, "cli.program": {"threadpoolctl"}, "train.callbacks": {"tqdm"},
    "compression.coder": {"constriction"}, "cli.compressed": {"PIL"}, "cli.command_line": {"tqdm"},
    "cli.commands": {"matplotlib"}, "data.images": {"PIL"}, "testing": {"hypothesis"},
    "plotting.figures": {"matplotlib"}, "plotting.charts": {"matplotlib"}, "plotting.pictures": {"matplotlib"},
    "plotting.tables": {"matplotlib"}, "sklearn": {"sklearn"}}
GENERATORS = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64"}


def module_name(path):
    parts = path.relative_to(ROOT / "npvae").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "npvae").rglob("*.py"))}
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


@functools.cache
def trees():
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports(name, tree):
    """(module, node) of each import; modules of npvae as "npvae" or "npvae.x"."""
    package = ["npvae", *name.split(".")] if name else ["npvae"]
    if SOURCES[name].name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[:len(package) - node.level + 1] if node.level else [])
            origin = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:      # `from . import data` names a module, `from .data import load` a function
                full = f"{origin}.{alias.name}"
                yield (full if full.removeprefix("npvae.") in SOURCES else origin), node


def own_imports(name):
    """The modules of npvae that a module imports, at its top, within functions, or for annotations alone."""
    return {module.removeprefix("npvae").removeprefix(".") for module, _ in imports(name, trees()[name])
            if module.split(".")[0] == "npvae"}


def test_imports_run_one_way_between_rooms():
    assert {name.partition(".")[0] for name in SOURCES} == set(ROOMS)
    for name in SOURCES:
        room = ROOMS.index(name.partition(".")[0])
        later = {other for other in own_imports(name) if ROOMS.index(other.partition(".")[0]) > room}
        assert not later - {"_moved"} or name == "", f"{name} imports {later}"


def test_imports_make_no_circle():
    """Within rooms either, but that a package gathers its modules."""
    graph = {name: own_imports(name) for name in SOURCES}
    done = set()
    while len(done) < len(graph):
        free = {name for name, others in graph.items() if name not in done and others <= done}
        assert free, f"a circle among {sorted(set(graph) - done)}"
        done |= free


def test_only_numpy_and_the_standard_library():
    """numba and llvmlite in the compiled kernels alone; matplotlib for pictures, and there inside functions only."""
    for name, tree in trees().items():
        others = {module.split(".")[0] for module, _ in imports(name, tree)} - set(sys.stdlib_module_names)
        assert others - {"npvae", "numpy"} == THIRD_PARTY.get(name, set()), name
        at_the_top = {id(node) for node in tree.body}
        for module, node in imports(name, tree):
            assert not module.startswith("matplotlib") or id(node) not in at_the_top, name


def test_names_that_numba_does_not_promise_stand_in_one_file():
    """All that is not in its documentation: numba.core, llvmlite.binding, attributes with an underscore."""
    for name, path in SOURCES.items():
        private = re.findall(r"numba\.core|llvmlite\.binding|\.fndesc|\._cache\b|\.overloads|targetctx|\._rebuild",
                             path.read_text(encoding="utf-8"))
        assert not private or name == "kernels.fused.numba_private", (name, private)


def test_no_global_random_state():
    """np.random.default_rng and the like, never np.random.normal or the module `random`."""
    for path in [*SOURCES.values(), *EXAMPLES, *TESTS]:
        text = path.read_text(encoding="utf-8")
        if set(re.findall(r"\b(?:np|numpy)\.random\b(?:\.| import )?(\w*)", text)) - GENERATORS or re.search(
                r"^\s*(?:import|from)\s.*\brandom\b", text, re.MULTILINE):
            for node in ast.walk(ast.parse(text)):
                used = set()
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
                    used = {node.attr} - GENERATORS
                elif isinstance(node, ast.ImportFrom) and node.module == "numpy.random":
                    used = {alias.name for alias in node.names} - GENERATORS
                elif isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                    used = {"random"} & {*names}
                assert not used, f"{path}, line {node.lineno}: {used}"


def functions(body):
    """Functions and methods, one level deep."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body)


def test_what_is_public_is_described_and_annotated():
    for name, tree in trees().items():
        if name.startswith("kernels.fused."):
            continue
        assert ast.get_docstring(tree), name
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), (name, node.name)
        for node in functions(tree.body):
            if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert all(a.annotation for a in given if a.arg not in ("self", "cls")), (name, node.name)
                assert node.returns, (name, node.name)
                given += [a for a in (node.args.vararg, node.args.kwarg) if a]
                types = [node.returns, *(a.annotation for a in given)]
                assert not any(isinstance(one, ast.Name) and one.id == "Any" for one in types), (name, node.name)


def test_every_handle_of_the_model_is_described():
    model = next(node for node in trees()["model.vae"].body if isinstance(node, ast.ClassDef) and node.name == "VAE")
    handles = [node for node in functions(model.body) if not node.name.startswith("_")]
    assert [node.name for node in handles if not ast.get_docstring(node)] == [] and len(handles) > 10


def test_the_reading_order_names_every_room():
    guide = ast.get_docstring(trees()[""])
    for room in set(ROOMS) - {"", "__main__"}:
        assert f"{room}/" in guide or f"{room}.py" in guide, room
    for name, path in SOURCES.items():
        room, _, module = name.partition(".")
        if module and "." not in module and room not in ("kernels", "engine", "system"):
            guide = ast.get_docstring(trees()[room], clean=False)
            assert f"    {module} " in guide, f"{room}/__init__.py does not name {module}"


def test_the_hypothesis_profile_is_loaded():
    """A first call compiles, which no deadline allows for.  And what passes today passes tomorrow, unless it is asked
    for new examples."""
    assert settings.default.deadline is None
    assert settings().max_examples == 5 and settings().deadline is None
    assert settings().derandomize == (os.environ.get("NPVAE_TEST_PROFILE", "npvae-ci") == "npvae-ci")


# --- in a fresh process ---

def python(code, *flags):
    """What a fresh interpreter prints, with the package importable and nothing else changed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run([sys.executable, *flags, "-c", code], env=environment, capture_output=True, text=True,
                          timeout=300, cwd=ROOT)


def test_importing_npvae_loads_no_compiler_and_no_pictures():
    result = python("import sys, npvae, npvae.plotting, npvae.cli.options\n"
                    "heavy = {'numba', 'llvmlite', 'matplotlib', 'hypothesis', 'pytest', 'scipy'} & set(sys.modules)\n"
                    "print(sorted(heavy))", "-W", "error")
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")


def test_a_model_compiles_nothing_before_its_first_step():
    """And a step of the elbo compiles (or loads) the kernels that it calls, so the count does count."""
    result = python(
        "import numpy as np, npvae\n"
        "vae = npvae.VAE(4, (3,), 2)\n"
        "from npvae.kernels import fused\n"
        "kernels = [(name, getattr(fused, name)) for name in fused.__all__]\n"
        "kernels = [(name, kernel) for name, kernel in kernels if hasattr(kernel, 'native')]\n"
        "compiled = lambda: [name for name, kernel in kernels if kernel.signatures or kernel.native.signatures]\n"
        "print(compiled())\n"
        "vae.loss_and_gradients(np.full((5, 4), 0.5), np.ones((5, 1, 2)))\n"
        "print('relu_backward' in compiled(), 'adam_update' in compiled())")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\nTrue False\n"


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None      # any import of it fails
import numpy as np
import npvae
from npvae.kernels import reference
for seed in range(3):
    vae = npvae.VAE(6, (5,), 2, seed=seed)
    assert vae.kernels is reference
x, eps = np.random.default_rng(0).random((4, 6)), np.ones((4, 1, 2))
for objective in (npvae.ELBO(), npvae.IWAE()):
    loss, gradients = vae.loss_and_gradients(x, eps, objective)
    same, expected = npvae.VAE(6, (5,), 2, kernels="numpy", seed=2).loss_and_gradients(x, eps, objective)
    assert loss == same and np.array_equal(gradients.flat, expected.flat)
history = npvae.fit(vae, x, x, epochs=1, batch_size=2, callbacks=[])
print("works")
"""


def test_without_numba_the_numpy_kernels_take_over_with_one_warning():
    result = python(WITHOUT_NUMBA)
    assert (result.returncode, result.stdout) == (0, "works\n"), result.stderr
    assert result.stderr.count("RuntimeWarning") == 1 and "NumPy kernels take over" in result.stderr
    assert "Traceback" not in result.stderr
    strict = python(WITHOUT_NUMBA, "-W", "error::RuntimeWarning")
    assert strict.returncode == 1 and "RuntimeWarning: numba cannot be used" in strict.stderr
