"""Dense layers: one matrix product each way, one kernel each way.  Read after `params.py`.

    forward     out  = f(x W + b)
    backward    dpre = dout f'          dW = x^T dpre          db = sum of the rows of dpre          dx = dpre W^T

Shapes:  x, dx (B, in);  W, dW (in, out);  b, db (out,);  out, dout, dpre (B, out).  B counts rows: images, or images
times draws in the decoder.  The matrix products go to BLAS; a transposed view costs nothing there.
"""
import math
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from .params import Array, Block, Shapes
from .validate import choice

#: Every activation, and the gain of its initial weights, Var(W) = gain / max(fan_in, fan_out): of the two conditions of
#: Glorot and Bengio 2010, 1 / fan_in to keep the variance of values and 1 / fan_out that of gradients, the quieter one;
#: times the 2 of He et al. 2015 for rectifiers, which pass half of it.  2 / fan_in alone makes a decoder that starts
#: from 20 numbers too loud: on 784-400-20, ten epochs, it costs some 0.9 nats.
ACTIVATIONS = {"identity": 1, "relu": 2, "leaky_relu": 2, "elu": 2, "tanh": 1, "sigmoid": 1, "softplus": 1}


class Dense:
    """out = f(x W + b), with explicit backward pass.  The parameters are found by name, "{name}.W" and "{name}.b"."""

    def __init__(self, name: str, n_in: int, n_out: int, activation: str) -> None:
        self.W, self.b = f"{name}.W", f"{name}.b"
        self.shapes: Shapes = {self.W: (n_in, n_out), self.b: (n_out,)}
        self.gain = ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]
        self.activation_forward, self.activation_backward = f"{activation}_forward", f"{activation}_backward"

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Random W with Var(W) = gain / max(in, out)  (D1.7), zero b.

        Drawn in float64, so that every dtype starts at the same point.
        """
        shape = params[self.W].shape
        params[self.W][...] = rng.normal(0, math.sqrt(self.gain / max(shape)), shape)
        params[self.b][...] = 0

    def forward(self, kernels: ModuleType, out: Array, pre: Array, x: Array, params: Block) -> None:
        """out = f(x W + b)  (D1.1)."""
        kernels.matmul(pre, x, params[self.W])
        getattr(kernels, self.activation_forward)(out, pre, params[self.b])

    def backward(self, kernels: ModuleType, dx: Array | None, dpre: Array, grads: Block, dout: Array, out: Array,
                 x: Array, params: Block) -> None:
        """forward was  out = f(pre + b),  pre = x W:

            dpre = dout f'(pre + b)                    (D1.2)
            db   = sum of the rows of dpre             (D1.3)
            dW   = x^T dpre                            (D1.4)    as of any product: D0.3
            dx   = dpre W^T, where it is asked for     (D1.5)    and D0.2
        """
        getattr(kernels, self.activation_backward)(dpre, grads[self.b], dout, out)
        kernels.matmul(grads[self.W], x.T, dpre)
        if dx is not None:
            kernels.matmul(dx, dpre, params[self.W].T)


class MLP:
    """Dense layers in a row: acts[0] is the input, acts[i + 1] the output of layer i, pres[i] its matrix product."""

    def __init__(self, name: str, n_in: int, widths: Sequence[int], activation: str) -> None:
        sizes = [n_in, *widths]
        self.layers = [Dense(f"{name}.{i}", sizes[i], sizes[i + 1], activation) for i in range(len(widths))]
        self.n_out = sizes[-1]

    def forward(self, kernels: ModuleType, acts: Sequence[Array], pres: Sequence[Array], params: Block) -> None:
        for i, layer in enumerate(self.layers):
            layer.forward(kernels, acts[i + 1], pres[i], acts[i], params)

    def backward(self, kernels: ModuleType, dacts: Sequence[Array], dpres: Sequence[Array], grads: Block,
                 acts: Sequence[Array], params: Block) -> None:
        """The chain rule from the last layer to the first  (D0.7).

        dacts[-1] is given; the others are written, dacts[0] only if it is not None.
        """
        for i, layer in reversed(list(enumerate(self.layers))):
            layer.backward(kernels, dacts[i], dpres[i], grads, dacts[i + 1], acts[i + 1], acts[i], params)
