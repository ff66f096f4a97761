"""For `test_trial`: what npvae does where a name that Numba or llvmlite do not document is missing or has changed.

    python tests/support/private_names.py [PLACE ...]      for each a line of JSON: what runs the passes, warnings
"""
import importlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

PLACES = (
    "numba.extending intrinsic", "numba.core.datamodel default_manager", "numba.extending overload",
    "numba.core.cpu CPUTargetOptions", "numba.core.cpu CPUTargetOptions.no_cfunc_wrapper",
    "numba.core.cpu CPUTargetOptions.no_cpython_wrapper", "numba.core.cpu CPUTargetOptions.forceinline",
    "numba.core.runtime rtsys", "numba.core.serialize dumps", "numba.core.compiler CompileResult._reduce",
    "numba.core.compiler CompileResult._rebuild", "numba.core.dispatcher Dispatcher.enable_caching",
    "numba.core.codegen JITCodeLibrary.get_pointer_to_function", "llvmlite.ir IRBuilder.load_atomic",
    "llvmlite.ir IRBuilder.store_atomic")
WAYS = "missing", "raises", "called otherwise"


def train_without(place, way):
    """In a fork: take a name away, train, and say how that went."""
    module, _, name = place.partition(" ")
    owner = importlib.import_module(module)
    *outer, name = name.split(".")
    for one in outer:
        owner = next(kind for kind in getattr(owner, one).__mro__ if name in vars(kind))

    def raises(*arguments, **more):
        raise AttributeError(f"{name} has changed")

    if way == "missing":
        delattr(owner, name)
    else:
        setattr(owner, name, raises if way == "raises" else lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import npvae
        vae, twin = (npvae.VAE(6, (), 2, kernels=kernels, dtype="float64") for kernels in ("numba", "numpy"))
        vae.threads = 2
        x, eps = np.full((4, 6), 0.5), np.ones((4, 1, 2))
        found, right = vae.loss_and_gradients(x, eps), twin.loss_and_gradients(x, eps)
        error = max(abs(found[0] - right[0]), np.abs(found[1].flat - right[1].flat).max())
        losses = [npvae.fit(one, x, x, 1, 2)[0]["test_loss"] for one in (vae, twin)]
    assert max(error, abs(losses[0] - losses[1])) < 1e-5, (error, losses)
    how = "NumPy" if vae.kernels is twin.kernels else type(vae.engine).__name__
    return how, sorted({str(one.message).split(";")[0] for one in caught}), len(caught)


def all_ways(places):
    """A fork for each, of a process that has imported Numba and nothing of npvae."""
    import numba  # noqa: F401
    for place in places:
        for way in WAYS:
            child = os.fork()
            if not child:
                signal.alarm(200)
                try:
                    print(json.dumps([place, way, *train_without(place, way)]), flush=True)
                except BaseException as error:
                    print(json.dumps([place, way, repr(error)]), flush=True)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    all_ways(sys.argv[1:] or PLACES)
