"""How a kernel may be cut into rows: which of its arguments have them.  Not part of the lesson; `engine/partition.py`
asks.  A new kernel needs an entry only if it writes more than its first argument, or takes one without rows.
"""
from collections.abc import Callable, Sequence

#: What a kernel's arguments are: R, r rows that it writes, reads, as many of each image in all of its arguments;
#: s read by every task; P a sum over the rows, of which a task makes its part; E written by all tasks alike.
ROLES = {
    "matmul": "Rrs", "mask_backward": "Rrsr", "gaussian_nll_forward": "Rrrs", "gaussian_nll_backward": "RPrrrs",
    "mixture_forward": "RREErsss", "mixture_backward": "RPPPrrsrss",
    **{f"{name}_forward": "Rrs" for name in (
        "identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "silu", "gelu")},
    **{f"{name}_backward": "RPrr" for name in (
        "identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus")},
    "silu_backward": "RPrrs", "gelu_backward": "RPrrs"}
#: Of all others every argument has rows; so many are written, where they are more than one.
_WRITTEN = {
    "bernoulli_nll_forward": 2, "continuous_bernoulli_nll_forward": 2, "categorical_nll_forward": 3,
    "reparameterize_backward": 2, "gaussian_kl_backward": 2, "log_ratio_backward": 2,
    "gaussian_log_density_backward": 3, "planar_direction_forward": 2, "planar_direction_backward": 2,
    "planar_forward": 3, "planar_backward": 5, "gate_forward": 2, "gate_backward": 2}
UNCUT = ("sum_first",)      # its rows are no images


def roles_of(kernel: Callable[..., None], arguments: Sequence[object]) -> str:
    """A letter for each argument, as `ROLES` explains them."""
    written = _WRITTEN.get(kernel.__name__, 1)
    return ROLES.get(kernel.__name__, "R" * written + "r" * (len(arguments) - written))
