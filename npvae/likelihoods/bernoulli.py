"""The Bernoulli likelihood of binary pixels, which most published VAEs of MNIST use.  Read after `base.py`."""
from types import ModuleType

import numpy as np

from ..params import Array, Block
from .base import Likelihood, mean_within
from .support import UnitInterval


class Bernoulli(Likelihood):
    """Independent binary pixels, p = sigmoid(logits).  Grey pixels in [0, 1] are accepted, too: the nll is then the
    summed binary cross-entropy, which is not a likelihood of the data (see D3.6), but what most published VAEs report.
    """

    name = "bernoulli"
    recordable = True
    support = UnitInterval()

    def bias_at(self, mean: Array) -> Array:
        """The logit of the mean image: the best single bias for all images (D3.7), kept finite for pixels that are
        always black or always white (Burda et al. 2016)."""
        p = mean_within(mean)
        logit: Array = np.log(p / (1 - p))
        return logit

    def forward(self, kernels: ModuleType, nll: Array, kept: Array, output: Array, x: Array, params: Block) -> None:
        kernels.bernoulli_nll_forward(nll, kept, output, x)

    def backward(self, kernels: ModuleType, doutput: Array, grads: Block, dnll: Array, kept: Array, output: Array,
                 x: Array, params: Block) -> None:
        kernels.bernoulli_nll_backward(doutput, dnll, kept, output, x)

    def mean(self, kernels: ModuleType, output: Array) -> Array:
        """E[x|z] (rows, D) from the decoder's output (rows, D)."""
        mean = np.empty_like(output)
        kernels.sigmoid_forward(mean, output, np.zeros(output.shape[1], output.dtype))
        return mean

    def draw(self, kernels: ModuleType, output: Array, params: Block, rng: np.random.Generator) -> Array:
        """x ~ p(x|z), zeros and ones (rows, D)."""
        return (rng.random(output.shape) < self.mean(kernels, output)).astype(output.dtype)
