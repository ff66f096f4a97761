"""The reference kernels, in lecture order: every formula of the VAE and its derivative, in plain NumPy.

    arrays        products, sums, transposition
    dense         bias and activation                       f(x W + b)
    likelihoods   reconstruction term                       -log p(x|z)
    latents       reparameterization, KL, log q - log p     z = mu + sigma eps
    priors        log p(z)
    objectives    log-sum-exp and importance weights        log 1/K sum w
    optim         Adam
    batches       rows of the data set, as numbers in [0, 1]; noise

The contract stands in `npvae/kernels/__init__.py`; shape letters: B batch, K draws per image, D data, H hidden,
Z latent, N rows of the data set, P parameters.
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
