"""Old import paths that still work, such as `npvae.levels` for `npvae.likelihoods.levels`.  Not part of the lesson.

A finder, the last in sys.meta_path, makes an empty module for an old path.  Its `__getattr__` looks names up in the new
modules.
"""
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from operator import attrgetter
from types import ModuleType

#: old module -> the modules that have its names now
MOVED = {
    "files": ("system.files",), "terminal": ("system.terminal",), "interrupt": ("system.interrupt",),
    "support": ("likelihoods.support",), "levels": ("likelihoods.levels", "likelihoods.base"),
    "masks": ("layers",), "outputs": ("decoders",), "made": ("decoders",),
    "flows": ("latents.flows", "latents.base"), "priors": ("latents.priors", "latents.base"),
    "second_layer": ("latents.second_layer",), "hierarchical": ("model.hierarchical",), "sizes": ("model.sizes",),
    "callbacks": ("train.callbacks",), "summary": ("evaluate.summary",),
    "derivatives": ("gradcheck.derivatives",), "report": ("gradcheck.report",), "diagnosis": ("gradcheck.diagnosis",),
    "rules": ("gradcheck.rules",), "bridge": ("gradcheck.bridge",),
    "lanes": ("engine.executor",), "cuts": ("engine.partition", "kernels.roles"), "turns": ("engine.blas_threads",),
    "kernels.fused.recording": ("engine.recording",), "kernels.fused.team": ("engine.team",),
    "kernels.fused.trial": ("engine.trial",), "kernels.fused.child": ("engine.child",),
    "images": ("data.images", "data.tables"), "labels": ("data.labels",), "npy": ("data.npy",),
    "figures": ("plotting.figures",), "charts": ("plotting.charts",),
    "report_page": ("pages.report",), "explorer": ("pages.explorer",),
    "options": ("cli.options",), "runs": ("cli.runs",), "commands": ("cli.commands",), "program": ("cli.program",)}
#: old module -> old name -> new name
RENAMED = {
    "outputs": {"find": "make_decoder", "Output": "Decoder"}, "flows": {"find": "make_flow"},
    "priors": {"find": "make_prior"},
    "lanes": {"Direct": "DirectExecutor", "Lanes": "ThreadedExecutor", "Whole": "WholeArrayKernels",
              "engine": "make_executor", "be_callable": "ensure_callable"},
    "cuts": {"LINE": "ALIGNMENT", "shares": "parameter_slices"},
    "turns": {"many_turns_with_one": "keep_one_blas_thread"},
    "kernels.fused.team": {"Bell": "Wake", "Order": "ParallelProgram"}}
#: old module -> old name -> a function that does the same, where no name does
FORMER: dict[str, dict[str, Callable[..., object]]] = {"support": {"support_of": attrgetter("support")}}


def module(name: str) -> ModuleType:
    """The module for an old path below npvae, one of `MOVED`."""
    return importlib.import_module(f"npvae.{name}")


class _OldPaths:
    """Finds and makes the modules of old paths."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == "npvae" and old in MOVED else None      # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name, f"Now in {' and '.join(MOVED[spec.name.partition('.')[2]])}.")

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.partition(".")[2]

        def look_up(name: str) -> object:
            if name in FORMER.get(old, ()):
                return FORMER[old][name]
            if not name.startswith("__"):
                for new in MOVED[old]:
                    found = importlib.import_module(f"npvae.{new}")
                    current = RENAMED.get(old, {}).get(name, name)
                    if hasattr(found, current):
                        return getattr(found, current)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        module.__getattr__ = look_up      # type: ignore[method-assign]


sys.meta_path.append(_OldPaths())
