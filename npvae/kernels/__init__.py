"""Kernels: the arithmetic of a VAE, and nothing else.  Read first, after `npvae/__init__.py`.

A kernel is a function that reads arrays and writes arrays.  Two packages, the *twins*, hold the same kernels under the
same names, in the same order:

    reference/   plain NumPy, each kernel with its derivation: the one to read
    fused/       Numba, one pass over memory: the one to train with

Both keep one contract:

1. `x_forward` computes values.  `x_backward`, directly below it, computes its vector-Jacobian product: from the
   gradient of the loss with respect to the outputs (the upstream gradient) that with respect to the inputs.  (One
   exception: `mask_backward` goes back through a mask and the matrix product after it.)
2. Arguments: outputs first, then the upstream gradients, then forward values, then scalars.
3. Outputs are overwritten, never added to.  Where a value is used twice, the caller adds its two gradients.
4. A kernel returns None and draws no random numbers.  The fused twin allocates nothing.
5. `dX` is dLoss/dX and has the shape of X.
6. An output shares no memory with an input; a compiler cannot vectorise a loop that might overwrite its own input.
7. The reference takes float32, float64 and complex128.  It compares real parts only and never calls abs or clip, so it
   is analytic wherever the function is, and one complex step gives a derivative to machine precision.
8. NaN in an input gives NaN in every output that depends on it.

Matrix products are left to BLAS: `matmul` is the same in both twins.
"""
import functools
import warnings
from types import ModuleType

KERNELS = ("numba", "numpy")


def load(name: str) -> ModuleType:
    """The module of kernels called `name`: "numpy" (the reference) or "numba" (the fused twin).

    If Numba is missing, fails to load, does not support the installed NumPy, has changed, or is switched off
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
