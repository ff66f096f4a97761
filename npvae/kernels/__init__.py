"""Kernels: the arithmetic of a VAE, and nothing but the arithmetic.  Read first, after `npvae/__init__.py`.

A kernel is a function on arrays.  Two twin packages hold the same kernels under the same names, in the same order:

    reference/   plain NumPy, each kernel with its derivation; the one to read
    fused/       Numba, one pass over memory; the one to train with

The contract, for both twins:

1. `x_forward` computes values; `x_backward`, directly below it, is its derivative.  (Not quite: `mask_backward` is that
   of a mask and of the product behind it, and its arguments are the product's.)
2. Arguments: outputs first, then the upstream gradients, then forward values, then scalars.
3. Outputs are written, never accumulated.  Where two paths meet, the caller adds, in a visible line.
4. Nothing is returned, nothing is drawn at random.  The fused twin allocates nothing.
5. `dX` is dLoss/dX and has the shape of X.
6. An output shares no memory with an input: a loop that may overwrite what it has yet to read is not vectorised.
7. The reference takes float32, float64 and complex128, and is analytic wherever the function is: it branches on
   `.real` and never calls abs or clip, so one complex step gives a derivative to machine precision.
8. NaN goes in, NaN comes out: no kernel hides one.

Matrix products go to BLAS: `matmul` is the same in both twins.
"""
import functools
import warnings
from types import ModuleType

KERNELS = ("numba", "numpy")


def load(name: str) -> ModuleType:
    """The kernel module of that name: "numpy" (the reference) or "numba" (the fused twin).

    Where numba is missing, fails to load, refuses the installed NumPy, has changed or is switched off
    (NUMBA_DISABLE_JIT), "numba" warns once and gives the reference.

    Raises ValueError for any other name.
    """
    if name not in KERNELS:
        raise ValueError(f"kernels must be one of {', '.join(KERNELS)}, got {name!r}")
    if name == "numba":
        return _fused_if_possible()
    from . import reference
    return reference


@functools.lru_cache(maxsize=None)      # warns once, and does not import anew what has failed
def _fused_if_possible() -> ModuleType:
    try:
        from . import fused
    except Exception as error:      # of an import, or of a name that Numba has no more
        from . import reference
        warnings.warn(f"numba cannot be used ({error}); the NumPy kernels take over, several times slower",
                      RuntimeWarning, stacklevel=3)
        return reference
    return fused
