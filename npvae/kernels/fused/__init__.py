"""The fused kernels: the reference's twins, compiled by Numba, each one pass over memory.

Same names, same signatures, same order as `npvae/kernels/reference`; read the formulas there.  What is added here is
only speed, and it comes from four things: no temporaries; loops that LLVM vectorises; exp and log1p as polynomials
(`elementary.py`), since a call to libm stops vectorisation; and constants bound to the arrays' own type, since
`0.5 * x` would compute a float32 x in float64.

Nothing compiles at import: a kernel compiles at its first call, and the machine code is kept on disk (`compile.py`).
"""
from .arrays import matmul, add, transpose, sum_squares, append_labels_forward, append_labels_backward
from .dense import (
    identity_forward, identity_backward, relu_forward, relu_backward, leaky_relu_forward, leaky_relu_backward,
    elu_forward, elu_backward, tanh_forward, tanh_backward, sigmoid_forward, sigmoid_backward,
    softplus_forward, softplus_backward)
from .likelihoods import (
    bernoulli_nll_forward, bernoulli_nll_backward, gaussian_nll_forward, gaussian_nll_backward,
    gaussian_pixel_nll_forward, gaussian_pixel_nll_backward)
from .latents import (
    reparameterize_forward, reparameterize_backward, gaussian_kl_forward, gaussian_kl_backward,
    log_ratio_forward, log_ratio_backward, log_q_forward, log_q_backward)
from .priors import standard_normal_forward, standard_normal_backward
from .objectives import importance_bound_forward, importance_bound_backward
from .optim import adam_update
from .batches import gather_rows, gather_binarized, box_muller

__all__ = [
    "matmul", "add", "transpose", "sum_squares", "append_labels_forward", "append_labels_backward",
    "identity_forward", "identity_backward", "relu_forward", "relu_backward",
    "leaky_relu_forward", "leaky_relu_backward", "elu_forward", "elu_backward", "tanh_forward", "tanh_backward",
    "sigmoid_forward", "sigmoid_backward", "softplus_forward", "softplus_backward",
    "bernoulli_nll_forward", "bernoulli_nll_backward", "gaussian_nll_forward", "gaussian_nll_backward",
    "gaussian_pixel_nll_forward", "gaussian_pixel_nll_backward",
    "reparameterize_forward", "reparameterize_backward", "gaussian_kl_forward", "gaussian_kl_backward",
    "log_ratio_forward", "log_ratio_backward", "log_q_forward", "log_q_backward",
    "standard_normal_forward", "standard_normal_backward",
    "importance_bound_forward", "importance_bound_backward",
    "adam_update", "gather_rows", "gather_binarized", "box_muller"]
