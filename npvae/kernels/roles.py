"""How the arrays of a kernel may be split into rows, so that several threads can run it.  Not part of the lesson:
`engine/partition.py` uses it.  A new kernel needs an entry only if it writes more than its first argument, or takes an
argument without rows.
"""
from collections.abc import Callable, Sequence

#: A letter for each argument of a kernel; capitals are written, small letters are read.
#:
#:     R r    an array with rows, the same number for each image in all of these arguments: a task gets some of them
#:     s      shared: every task gets all of it (weights, a bias)
#:     P      a sum over rows: each task writes a partial sum, and these are added up
#:     E      does not depend on rows: every task writes the same values, all but one of them into spare memory
ROLES = {
    "matmul": "Rrs", "mask_backward": "Rrsr", "gaussian_nll_forward": "Rrrs", "gaussian_nll_backward": "RPrrrs",
    "standardize_columns": "Rrssss", "take_columns_forward": "Rrs", "take_columns_backward": "Rrs",
    "place_cells_forward": "Rrrsss", "place_cells_backward": "Rrs",
    "split_missing": "RRrs", "append_missing": "Rrrs",
    "mixture_forward": "RREErsss", "mixture_backward": "RPPPrrsrss",
    "append_parameters_forward": "Rrs", "append_parameters_backward": "RPr",
    "one_hot": "Rrs", "categories_nll_forward": "Rrrs", "categories_nll_backward": "Rrrrs",
    "ordinal_nll_forward": "Rrrss", "ordinal_nll_backward": "RPrrrss",
    **{f"{name}_forward": "Rrs" for name in (
        "identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "silu", "gelu")},
    **{f"{name}_backward": "RPrr" for name in (
        "identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus")},
    "silu_backward": "RPrrs", "gelu_backward": "RPrrs"}
#: In all other kernels every argument has rows.  How many arguments are written, where it is more than one:
_WRITTEN = {
    "bernoulli_nll_forward": 2, "continuous_bernoulli_nll_forward": 2, "categorical_nll_forward": 3,
    "gaussian_optimal_nll_forward": 2, "multinomial_nll_forward": 2,
    "reparameterize_backward": 2, "gaussian_kl_backward": 2, "log_ratio_backward": 2,
    "gaussian_log_density_backward": 3, "planar_direction_forward": 2, "planar_direction_backward": 2,
    "planar_forward": 3, "planar_backward": 5, "gate_forward": 2, "gate_backward": 2}
NOT_SPLIT = ("sum_first",)      # its rows are terms of a sum, not images


def roles_of(kernel: Callable[..., None], arguments: Sequence[object]) -> str:
    """A letter for each argument, as `ROLES` explains them."""
    written = _WRITTEN.get(kernel.__name__, 1)
    return ROLES.get(kernel.__name__, "R" * written + "r" * (len(arguments) - written))
