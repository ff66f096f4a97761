"""Dense networks in whole numbers, with the same bits on every machine.  Read after `exact.py`.

A product of matrices is a sum of many products of two numbers, and every BLAS adds them in an order of its own.  In
floating point the order changes the last digits.  Whole numbers below 2^53 are exact in double precision, so a product
of matrices of whole numbers, all of whose partial sums stay below 2^53, has one result in any order, with any number of
threads and any instructions, and is still a product by BLAS.
"""
import math
from collections.abc import Callable, Sequence

import numpy as np

from ..layers import MLP, Activation, Dense, MaskedDense
from ..params import Array, Block
from . import exact

#: inputs and activations are multiples of 2^-14, and bounded by 2^10
FRACTION, BOUND = 14, 2.0 ** 10
_EXACT = 53      # whole numbers up to 2^53 are exact in double precision

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda a: a, "relu": lambda a: np.maximum(a, 0), "leaky_relu": lambda a: np.where(a < 0, 0.01 * a, a),
    "elu": lambda a: np.where(a < 0, exact.exp(np.minimum(a, 0)) - 1, a), "tanh": exact.tanh,
    "sigmoid": exact.sigmoid, "softplus": exact.softplus, "silu": lambda a: a * exact.sigmoid(a),
    "gelu": lambda a: a * exact.normal_below(a)}


def rounded(a: Array) -> Array:
    """The whole numbers nearest to a 2^14, for a within the bounds; others count as the bound."""
    whole: Array = np.rint(np.minimum(np.maximum(a, -BOUND), BOUND) * 2.0 ** FRACTION)
    return whole


class Layer:
    """out = f(x W + b) of a trained layer, with x and W rounded to whole numbers.

    Raises ValueError for an activation that is not one of `ACTIVATIONS`.
    """

    def __init__(self, dense: Dense | MaskedDense, params: Block) -> None:
        W, self.b = params[dense.W].astype(np.float64), params[dense.b].astype(np.float64)
        if isinstance(dense, MaskedDense):
            W *= dense.mask
        name = dense.activation.name
        if type(dense.activation) is not Activation or name not in ACTIVATIONS:
            raise ValueError(f"activation {name} cannot be computed with the same bits everywhere; "
                             f"{', '.join(ACTIVATIONS)} can")
        self.activation = ACTIVATIONS[name]
        power = _power(W)
        self.W, self.scale = np.rint(W * 2.0 ** power), 2.0 ** -(power + FRACTION)

    def __call__(self, x: Array) -> Array:
        """f(x W + b) (B, out), from x (B, in) as `rounded` returns it."""
        out: Array = self.activation((x @ self.W) * self.scale + self.b)
        return out


def _power(W: Array) -> int:
    """The largest n for which every partial sum of x W, in whole numbers, stays below 2^53:

        sum_i |x_i| |W_ij|  <=  in * (2^24) * (max |W| 2^n + 1/2)  <=  2^53              (D17.7)

    W (in, out) is rounded to multiples of 2^-n, and x, below 2^10, to multiples of 2^-14.
    """
    largest = float(np.max(np.abs(W), initial=0))
    room = 2.0 ** (_EXACT - FRACTION) / BOUND / len(W) - 0.5
    return math.floor(math.log2(room / largest)) if largest else 0


class Network:
    """Hidden layers, and one or two layers that read the last of them: the outputs of encoder and decoder."""

    def __init__(self, hidden: MLP, heads: Sequence[Dense], params: Block) -> None:
        self._hidden = [Layer(layer, params) for layer in hidden.layers]
        self._heads = [Layer(layer, params) for layer in heads]

    def hidden(self, x: Array) -> Array:
        """The last hidden layer (B, H), rounded, from x (B, in)."""
        x = rounded(x)
        for layer in self._hidden:
            x = rounded(layer(x))
        return x

    def __call__(self, x: Array) -> list[Array]:
        """The output (B, out) of each head, from x (B, in)."""
        h = self.hidden(x)
        return [head(h) for head in self._heads]
