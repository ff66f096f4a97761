"""The continuous Bernoulli: a density of grey pixels in [0, 1].  Read after `bernoulli.py`."""
from types import ModuleType

import numpy as np

from ..kernels import reference
from ..params import Array, Block
from .base import Likelihood, mean_within, solve
from .support import UnitInterval


class ContinuousBernoulli(Likelihood):
    """Independent grey pixels with a density on [0, 1], C lambda^x (1 - lambda)^(1 - x),  lambda = sigmoid(logits).
    The constant C normalises the Bernoulli's formula (Loaiza-Ganem and Cunningham 2019)."""

    name = "continuous-bernoulli"
    recordable = True
    support = UnitInterval()

    def bias_at(self, mean: Array) -> Array:
        """The logits at which E[x], which is not lambda, is the mean image."""
        return solve(lambda logits: self.mean(reference, logits[None])[0], mean_within(mean), -1000, 1000)

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.continuous_bernoulli_nll_forward(nll, kept, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.continuous_bernoulli_nll_backward(doutput, dnll, kept, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, D), by the `tail` that the forward kernel writes."""
        nll, tail = np.empty((len(output), 1), output.dtype), np.empty_like(output)
        kernels.continuous_bernoulli_nll_forward(nll, tail[:, None], output[:, None], np.zeros_like(output))
        return np.where(output.real < 0, tail, 1 - tail)

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D), by inverting the distribution function  F(x) = (exp(l x) - 1) / (exp(l) - 1):

            x = log(1 + u (exp(l) - 1)) / l,   u uniform on [0, 1),   for l < 0;   for l > 0, 1 - x has the logit -l
        """
        u = rng.random(output.shape)
        t = np.maximum(np.abs(output), 1e-12)      # towards 0 the distribution is uniform
        x = np.minimum(np.log1p(u * np.expm1(-t)) / -t, 1)
        return np.where(output < 0, x, 1 - x).astype(output.dtype)
