"""The fused kernels: twins of the reference, compiled by Numba, each one pass over memory.

Same names, same signatures, same order as `npvae/kernels/reference`; read the formulas there.  Here only speed is
added, by four means: no temporary arrays; loops that LLVM (Numba's compiler) vectorises; exp and log1p as polynomials
(`elementary.py`), since a call of the C library prevents vectorisation; and constants in the type of the arrays, since
`0.5 * x` would compute a float32 x in float64.

Nothing is compiled at import: a kernel is compiled at its first call, and the machine code is kept on disk
(`compile.py`).  `native.py` calls compiled kernels without Python between them, for `npvae/engine`.

A kernel that only the reference has is taken from there, with one warning that it is slower.
"""
import functools
import warnings
from collections.abc import Callable
from typing import Any

from .arrays import (
    matmul, add, subtract, negate, sum_first, transpose, transpose_each, sum_squares,
    add_to_draws_forward, add_to_draws_backward, append_labels_forward, append_labels_backward)
from .dense import (
    identity_forward, identity_backward, relu_forward, relu_backward, leaky_relu_forward, leaky_relu_backward,
    elu_forward, elu_backward, tanh_forward, tanh_backward, sigmoid_forward, sigmoid_backward,
    softplus_forward, softplus_backward, silu_forward, silu_backward, gelu_forward, gelu_backward)
from .masks import mask_forward, mask_backward
from .likelihoods import (
    bernoulli_nll_forward, bernoulli_nll_backward, gaussian_nll_forward, gaussian_nll_backward,
    gaussian_pixel_nll_forward, gaussian_pixel_nll_backward,
    gaussian_optimal_nll_forward, gaussian_optimal_nll_backward,
    continuous_bernoulli_nll_forward, continuous_bernoulli_nll_backward)
from .levels import (
    discretized_logistic_nll_forward, discretized_logistic_nll_backward,
    categorical_nll_forward, categorical_nll_backward, beta_binomial_nll_forward, beta_binomial_nll_backward)
from .cells import (
    sum_cells_forward, sum_cells_backward, sum_observed_forward, sum_observed_backward, split_missing, append_missing)
from .latents import (
    reparameterize_forward, reparameterize_backward, gaussian_kl_forward, gaussian_kl_backward,
    log_ratio_forward, log_ratio_backward, log_q_forward, log_q_backward)
from .counts import (
    log1p_features, log_features, log_total, poisson_nll_forward, poisson_nll_backward, negative_binomial_nll_forward,
    negative_binomial_nll_backward, zero_inflated_nll_forward, zero_inflated_nll_backward, multinomial_nll_forward,
    multinomial_nll_backward)
from .reals import (
    append_parameters_forward, append_parameters_backward, student_t_nll_forward, student_t_nll_backward,
    laplace_nll_forward, laplace_nll_backward, log_normal_nll_forward, log_normal_nll_backward)
from .categories import (
    one_hot, categories_nll_forward, categories_nll_backward, ordinal_nll_forward, ordinal_nll_backward)
from .tables import (
    standardize_columns, take_columns_forward, take_columns_backward, place_cells_forward, place_cells_backward,
    gaussian_columns_nll_forward, gaussian_columns_nll_backward)
from .priors import (
    standard_normal_forward, standard_normal_backward,
    gaussian_log_density_forward, gaussian_log_density_backward, mixture_forward, mixture_backward)
from .flows import (
    planar_direction_forward, planar_direction_backward, planar_forward, planar_backward, gate_forward, gate_backward)
from .objectives import importance_bound_forward, importance_bound_backward
from .estimators import path_ratio_backward, path_q_backward, scale_draws
from .optim import adam_update
from .batches import gather_rows, gather_binarized, box_muller


@functools.cache
def __getattr__(name: str) -> Callable[..., Any]:
    """A kernel of the reference that has no twin here.  Raises AttributeError for any other name."""
    from .. import reference
    kernel: Callable[..., Any] | None = None if name.startswith("_") else getattr(reference, name, None)
    if kernel is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"kernel {name} has no compiled twin: that of NumPy takes its place, slower", RuntimeWarning,
                  stacklevel=2)
    return kernel


__all__ = [
    "matmul", "add", "subtract", "negate", "sum_first", "transpose", "transpose_each", "sum_squares",
    "add_to_draws_forward", "add_to_draws_backward",
    "append_labels_forward", "append_labels_backward",
    "identity_forward", "identity_backward", "relu_forward", "relu_backward",
    "leaky_relu_forward", "leaky_relu_backward", "elu_forward", "elu_backward", "tanh_forward", "tanh_backward",
    "sigmoid_forward", "sigmoid_backward", "softplus_forward", "softplus_backward",
    "silu_forward", "silu_backward", "gelu_forward", "gelu_backward",
    "mask_forward", "mask_backward",
    "bernoulli_nll_forward", "bernoulli_nll_backward", "gaussian_nll_forward", "gaussian_nll_backward",
    "gaussian_pixel_nll_forward", "gaussian_pixel_nll_backward",
    "gaussian_optimal_nll_forward", "gaussian_optimal_nll_backward",
    "continuous_bernoulli_nll_forward", "continuous_bernoulli_nll_backward",
    "discretized_logistic_nll_forward", "discretized_logistic_nll_backward",
    "categorical_nll_forward", "categorical_nll_backward", "beta_binomial_nll_forward", "beta_binomial_nll_backward",
    "sum_cells_forward", "sum_cells_backward", "sum_observed_forward", "sum_observed_backward",
    "split_missing", "append_missing",
    "reparameterize_forward", "reparameterize_backward", "gaussian_kl_forward", "gaussian_kl_backward",
    "log_ratio_forward", "log_ratio_backward", "log_q_forward", "log_q_backward",
    "log1p_features", "log_features", "log_total", "poisson_nll_forward", "poisson_nll_backward",
    "negative_binomial_nll_forward",
    "negative_binomial_nll_backward", "zero_inflated_nll_forward", "zero_inflated_nll_backward",
    "multinomial_nll_forward", "multinomial_nll_backward",
    "append_parameters_forward", "append_parameters_backward", "student_t_nll_forward", "student_t_nll_backward",
    "laplace_nll_forward", "laplace_nll_backward", "log_normal_nll_forward", "log_normal_nll_backward",
    "one_hot", "categories_nll_forward", "categories_nll_backward", "ordinal_nll_forward", "ordinal_nll_backward",
    "standardize_columns", "take_columns_forward", "take_columns_backward", "place_cells_forward",
    "place_cells_backward", "gaussian_columns_nll_forward", "gaussian_columns_nll_backward",
    "standard_normal_forward", "standard_normal_backward",
    "gaussian_log_density_forward", "gaussian_log_density_backward", "mixture_forward", "mixture_backward",
    "planar_direction_forward", "planar_direction_backward", "planar_forward", "planar_backward",
    "gate_forward", "gate_backward",
    "importance_bound_forward", "importance_bound_backward",
    "path_ratio_backward", "path_q_backward", "scale_draws",
    "adam_update", "gather_rows", "gather_binarized", "box_muller"]
