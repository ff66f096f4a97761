"""Is a gradient right?  A checker for any project: it knows nothing of VAEs.

    checker       `check_gradients` for a loss, `check_pair` for a layer
    derivatives   numerical derivatives: complex step and central differences
    report        the result for each tensor
    diagnosis     the likely mistake behind a wrong gradient
    rules         further rules for a backward pass: it is linear, it changes no input
    bridge        functions of PyTorch and JAX
"""
from .checker import TOLERANCES, check_gradients, check_pair, compare, numerical_gradient
from .derivatives import CENTRAL_STEP, Loss
from .report import Report, TensorReport

__all__ = [
    "TOLERANCES", "check_gradients", "check_pair", "compare", "numerical_gradient", "CENTRAL_STEP", "Loss",
    "Report", "TensorReport"]
