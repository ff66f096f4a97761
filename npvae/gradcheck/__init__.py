"""Is a gradient right?  A checker for any project: it knows nothing of VAEs.

    checker       `check_gradients`, `check_pair`: the questions, and the verdict
    derivatives   the numbers a gradient is held against: complex step and central differences
    report        what is said about each tensor
    diagnosis     the likely slip
    rules         what a backward pass must keep besides: it is linear, it changes no input
    bridge        functions of PyTorch and JAX
"""
from .checker import TOLERANCES, check_gradients, check_pair, compare, numerical_gradient
from .derivatives import CENTRAL_STEP, Loss
from .report import Report, TensorReport

__all__ = [
    "TOLERANCES", "check_gradients", "check_pair", "compare", "numerical_gradient", "CENTRAL_STEP", "Loss",
    "Report", "TensorReport"]
