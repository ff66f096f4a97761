"""What holds the source together: who may import whom, and what an import costs."""
import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# Each module and the modules of npvae it may import: only ones further up, so there is no circle, and nobody is
# forgotten since a test holds the list against the folder.  Imports for type annotations alone do not count.
_CHAPTERS = ("arrays", "dense", "masks", "likelihoods", "levels", "latents", "priors", "flows", "objectives",
             "estimators", "optim", "batches")
_REFERENCE = {f"kernels.reference.{name}": {"kernels.reference.dense"}
              if name in ("likelihoods", "levels", "latents", "flows") else set() for name in _CHAPTERS}
_FUSED = {
    "kernels.fused.child": set(), "kernels.fused.compile": set(), "kernels.fused.elementary": {"kernels.fused.compile"},
    **{f"kernels.fused.{name}": {f"kernels.reference.{name}", "kernels.fused.compile", "kernels.fused.elementary"}
       for name in _CHAPTERS},
    "kernels.fused.native": {"kernels.fused.compile"},
    "kernels.fused.masks": {"kernels.fused.arrays", "kernels.fused.compile"},
    "kernels.fused.recording": {"kernels.fused.arrays", "kernels.fused.dense", "kernels.fused.masks",
                                "kernels.fused.native"},
    "kernels.fused.team": {"kernels.fused.arrays", "kernels.fused.native", "kernels.fused.recording"},
    "kernels.fused.trial": {"kernels.fused.child", "kernels.fused.compile", "kernels.fused.dense",
                            "kernels.fused.native", "kernels.fused.recording"}}
_ENGINE = {"kernels.fused.child", "kernels.fused.native", "kernels.fused.recording", "kernels.fused.team",
           "kernels.fused.trial"}
ALLOWED = {
    **_REFERENCE, "kernels.reference": set(_REFERENCE), **_FUSED, "kernels.fused": set(_FUSED) - _ENGINE,
    "kernels": {"kernels.reference", "kernels.fused"},
    "interrupt": set(), "files": set(), "terminal": set(),
    "validate": set(), "derivatives": set(), "report": set(), "diagnosis": {"derivatives"}, "rules": set(),
    "bridge": set(), "gradcheck": {"bridge", "derivatives", "diagnosis", "report", "rules"}, "npy": set(),
    "params": set(), "support": {"params", "validate"}, "images": {"files", "support", "validate"},
    "labels": {"images", "terminal"}, "data": {"files", "images", "npy", "support", "validate"},
    "figures": {"support", "terminal"},
    "buffers": {"params"},
    "layers": {"params", "validate"}, "masks": {"layers", "params", "validate"},
    "made": {"masks", "params", "support"},
    "levels": {"kernels.reference", "kernels.reference.dense", "kernels.reference.levels", "params", "support",
               "validate"},
    "likelihoods": {"kernels.reference", "kernels.reference.likelihoods", "levels", "params", "support", "validate"},
    "objectives": {"kernels.reference", "params", "validate"},
    "optim": {"kernels.reference", "params", "validate"},
    "cuts": {"layers", "params"},
    "turns": set(),
    "lanes": {"cuts", "kernels", "kernels.reference", "params", *_ENGINE, "kernels.fused.compile", "turns"},
    "checkpoint": {"files", "npy", "params", "validate"},
    "evaluate": {"likelihoods", "params", "validate"},
    "summary": {"evaluate", "params", "validate"},
    "second_layer": {"layers", "params"}, "priors": {"params", "second_layer", "validate"},
    "flows": {"layers", "masks", "params", "validate"}, "latents": {"flows", "params", "priors"},
    "outputs": {"layers", "made", "params", "validate"},
    "sizes": {"flows", "likelihoods", "outputs", "priors"},
    "model": {"buffers", "checkpoint", "evaluate", "flows", "kernels", "lanes", "latents", "layers", "likelihoods",
              "objectives", "outputs", "params", "priors", "sizes", "support", "turns", "validate"},
    "hierarchical": {"evaluate", "likelihoods", "model", "params", "second_layer", "validate"},
    "testing": {"gradcheck", "layers", "likelihoods", "model", "support"},
    "callbacks": {"files", "terminal", "validate"},
    "train": {"model", "objectives", "optim", "params", "checkpoint", "evaluate", "callbacks", "data", "support",
              "validate"},
    "charts": {"figures"}, "plotting": {"charts", "evaluate", "figures", "files", "labels", "support"},
    "report_page": {"files", "terminal"},
    "explorer": {"evaluate", "files", "labels", "likelihoods", "model", "params", "plotting", "report_page",
                 "terminal", "validate"},
    "cli": {"checkpoint", "data", "interrupt", "terminal", "train", "validate"},
    "options": {"cli", "data", "files", "flows", "kernels", "lanes", "layers", "likelihoods", "objectives", "optim",
                "outputs", "priors", "terminal", "validate"},
    "runs": {"callbacks", "checkpoint", "cli", "data", "files", "labels", "model", "options", "params", "plotting",
             "report_page", "terminal", "train", "validate"},
    "commands": {"cli", "data", "evaluate", "explorer", "files", "gradcheck", "labels", "model", "objectives",
                 "options", "params", "plotting", "runs", "summary", "support", "terminal"},
    "program": {"checkpoint", "cli", "commands", "data", "options", "runs"},
    "__main__": {"cli", "interrupt", "program"},
    "": {"checkpoint", "callbacks", "data", "evaluate", "gradcheck", "hierarchical", "interrupt", "levels",
         "likelihoods", "model", "objectives", "optim", "summary", "train"}}

# Beyond NumPy and the standard library.
THIRD_PARTY = {"kernels.fused.compile": {"numba", "llvmlite"}, "kernels.fused.elementary": {"numba"},
               "kernels.fused.native": {"llvmlite", "numba"}, "kernels.fused.recording": {"numba", "threadpoolctl"},
               "kernels.fused.trial": {"llvmlite", "numba"},
               "turns": {"threadpoolctl"}, "runs": {"threadpoolctl"}, "program": {"threadpoolctl"},
               "callbacks": {"tqdm"}, "cli": {"tqdm"}, "images": {"PIL"},
               "testing": {"hypothesis"},
               "figures": {"matplotlib"}, "charts": {"matplotlib"}}
GENERATORS = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64"}


def module_name(path):
    parts = path.relative_to(ROOT / "npvae").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "npvae").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def nodes(tree):
    """Every node but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield node
            yield from nodes(node)


def imports(name, tree):
    """(module, node) of each import; modules of npvae as "npvae" or "npvae.x"."""
    package = ["npvae", *name.split(".")] if name else ["npvae"]
    if SOURCES[name].name != "__init__.py":
        package = package[:-1]
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[:len(package) - node.level + 1] if node.level else [])
            origin = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:      # `from . import data` names a module, `from .data import load` a function
                full = f"{origin}.{alias.name}"
                yield (full if full.removeprefix("npvae.") in SOURCES else origin), node


def test_imports_run_one_way():
    assert set(ALLOWED) == set(SOURCES)
    order = list(ALLOWED)
    for name, tree in TREES.items():
        assert all(order.index(other) < order.index(name) for other in ALLOWED[name]), name
        own = {module.removeprefix("npvae").removeprefix(".") for module, _ in imports(name, tree)
               if module.split(".")[0] == "npvae"}
        assert own <= ALLOWED[name], f"{name or 'npvae'} imports {own - ALLOWED[name]}"


def test_only_numpy_and_the_standard_library():
    """numba and llvmlite in the compiled kernels alone; matplotlib for pictures, and there inside functions only."""
    for name, tree in TREES.items():
        others = {module.split(".")[0] for module, _ in imports(name, tree)} - set(sys.stdlib_module_names)
        assert others - {"npvae", "numpy"} == THIRD_PARTY.get(name, set()), name
        at_the_top = {id(node) for node in tree.body}
        for module, node in imports(name, tree):
            assert not module.startswith("matplotlib") or id(node) not in at_the_top, name


@pytest.mark.parametrize("path", [*SOURCES.values(), *EXAMPLES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_global_random_state(path):
    """np.random.default_rng and the like, never np.random.normal or the module `random`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            assert node.attr in GENERATORS, f"line {node.lineno}: np.random.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "numpy.random":
            assert {alias.name for alias in node.names} <= GENERATORS, f"line {node.lineno}"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            assert "random" not in names, f"line {node.lineno}"


def functions(body):
    """Functions and methods, one level deep."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body)


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.startswith("kernels.fused.")])
def test_what_is_public_is_described_and_annotated(name):
    tree = TREES[name]
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
    for node in functions(tree.body):
        if not node.name.startswith("_") or node.name in ("__init__", "__call__"):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert all(a.annotation for a in given if a.arg not in ("self", "cls")), node.name
            assert node.returns, node.name


def test_every_handle_of_the_model_is_described():
    model = next(node for node in TREES["model"].body if isinstance(node, ast.ClassDef) and node.name == "VAE")
    handles = [node for node in functions(model.body) if not node.name.startswith("_")]
    assert [node.name for node in handles if not ast.get_docstring(node)] == [] and len(handles) > 10


def test_the_reading_order_names_every_module():
    guide = ast.get_docstring(TREES[""])
    for name in SOURCES:
        if name and "." not in name and name != "kernels":
            assert f"{name}.py" in guide, name
    assert "kernels/reference/" in guide and "kernels/fused/" in guide


def test_the_hypothesis_profile_is_loaded():
    """A first call compiles, which no deadline allows for.  And what passes today passes tomorrow, unless it is asked
    for new examples."""
    assert settings.default.deadline is None
    assert settings().max_examples == 30 and settings().deadline is None
    assert settings().derandomize == (os.environ.get("NPVAE_TEST_PROFILE", "npvae-ci") == "npvae-ci")


# --- in a fresh process ---

def python(code, *flags):
    """What a fresh interpreter prints, with the package importable and nothing else changed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run([sys.executable, *flags, "-c", code], env=environment, capture_output=True, text=True,
                          timeout=300, cwd=ROOT)


def test_importing_npvae_loads_no_compiler_and_no_pictures():
    result = python("import sys, npvae, npvae.plotting, npvae.options\n"
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
