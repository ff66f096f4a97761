"""Exercise 7: the whole backward pass of a VAE.

    x -> encoder (dense, ReLU) -> h_enc -> two dense heads, mu and logvar -> z -> decoder (dense, ReLU) -> h_dec
      -> output (dense) -> logits;      loss = mean over the batch of (nll + beta kl), nll Bernoulli, prior Normal(0, 1)

params holds W (in, out) and b (out,) of the five layers under "encoder.W", "encoder.b", "mu.W", ..., "output.b".  x is
(B, D), eps (B, Z).  Build it from what you wrote in exercises 3 to 6; their files lie beside this one.
"""
import numpy as np

from ex03_dense import dense, dense_backward, relu, relu_backward  # noqa: F401
from ex04_likelihood import bernoulli_nll, bernoulli_nll_backward  # noqa: F401
from ex05_kl import gaussian_kl, gaussian_kl_backward  # noqa: F401
from ex06_reparameterization import reparameterize, reparameterize_backward  # noqa: F401

Arrays = dict[str, np.ndarray]

# your number: the weight of the KL term
BETA = 0.5


def forward(params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float = BETA) -> Arrays:
    """The values h_enc, mu, logvar, z, h_dec, logits, nll (B,), kl (B,) and loss, a number, under these names."""
    raise NotImplementedError("forward, D7.2")


def backward(f: Arrays, params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float = BETA) -> Arrays:
    """The gradient of the loss with respect to every entry of params, under the same names.  f is what forward gave."""
    raise NotImplementedError("backward, D7.3 to D7.6")


def image_gradient(f: Arrays, params: Arrays, x: np.ndarray, eps: np.ndarray, beta: float = BETA) -> np.ndarray:
    """dx (B, D), the gradient of the loss with respect to the images.  How many paths lead from x to the loss?"""
    raise NotImplementedError("image_gradient, D0.4")
