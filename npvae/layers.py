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


class Activation:
    """f of a dense layer and its derivative, from the kernels `{name}_forward` and `{name}_backward`.

    gain : Var(W) of the initial weights is gain / max(fan_in, fan_out)
    uses_input : is the derivative taken from the layer's input a = pre + b?  Otherwise from its output out = f(a)

    To add one, give it a pair of kernels and a row in `ACTIVATIONS`; or subclass, with `forward` and `backward` of your
    own, and hand the object to `VAE(activation=...)`.
    """

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`

    def __init__(self, name: str, gain: float = 1, uses_input: bool = False) -> None:
        self.name, self.gain, self.uses_input = name, gain, uses_input

    def forward(self, kernels: ModuleType, out: Array, pre: Array, b: Array) -> None:
        """out = f(pre + b).   out, pre (B, H);  b (H,)."""
        getattr(kernels, f"{self.name}_forward")(out, pre, b)

    def backward(self, kernels: ModuleType, dpre: Array, db: Array, dout: Array, out: Array, pre: Array, b: Array
                 ) -> None:
        """dpre = dout f'(pre + b), and db the sum of its rows."""
        kernel = getattr(kernels, f"{self.name}_backward")
        if self.uses_input:
            kernel(dpre, db, dout, pre, b)
        else:
            kernel(dpre, db, dout, out)


#: By name.  The gain: of the two conditions of Glorot and Bengio 2010, 1 / fan_in to keep the variance of values and
#: 1 / fan_out that of gradients, the quieter one; times the 2 of He et al. 2015 for rectifiers, which pass half of it.
#: 2 / fan_in alone makes a decoder that starts from 20 numbers too loud: on 784-400-20, ten epochs, it costs some 0.9
#: nats.  The 2 is 1 / E[f(a)^2] of a standard normal a.  For SiLU E[f(a)^2] = 0.3558; for GELU it is
#: 1/3 + 1 / (2 sqrt(3) pi) = 0.4252.
ACTIVATIONS = {activation.name: activation for activation in (
    Activation("identity"), Activation("relu", 2), Activation("leaky_relu", 2), Activation("elu", 2),
    Activation("tanh"), Activation("sigmoid"), Activation("softplus"),
    Activation("silu", 2.81, uses_input=True), Activation("gelu", 2.35, uses_input=True))}


def make_activation(activation: str | Activation) -> Activation:
    """The activation of that name, or the object itself.  Raises ValueError or TypeError with the known names."""
    if isinstance(activation, Activation):
        return activation
    return ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]


class Dense:
    """out = f(x W + b), with explicit backward pass.  The parameters are found by name, "{name}.W" and "{name}.b"."""

    def __init__(self, name: str, n_in: int, n_out: int, activation: str | Activation) -> None:
        self.W, self.b = f"{name}.W", f"{name}.b"
        self.shapes: Shapes = {self.W: (n_in, n_out), self.b: (n_out,)}
        self.activation = make_activation(activation)

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Random W with Var(W) = gain / max(in, out)  (D1.7), zero b.

        Drawn in float64, so that every dtype starts at the same point.
        """
        shape = params[self.W].shape
        params[self.W][...] = rng.normal(0, math.sqrt(self.activation.gain / max(shape)), shape)
        params[self.b][...] = 0

    def forward(self, kernels: ModuleType, out: Array, pre: Array, x: Array, params: Block) -> None:
        """out = f(x W + b)  (D1.1)."""
        kernels.matmul(pre, x, params[self.W])
        self.activation.forward(kernels, out, pre, params[self.b])

    def backward(self, kernels: ModuleType, dx: Array | None, dpre: Array, grads: Block, dout: Array, out: Array,
                 pre: Array, x: Array, params: Block) -> None:
        """forward was  out = f(pre + b),  pre = x W:

            dpre = dout f'(pre + b)                    (D1.2)
            db   = sum of the rows of dpre             (D1.3)
            dW   = x^T dpre                            (D1.4)    as of any product: D0.3
            dx   = dpre W^T, where it is asked for     (D1.5)    and D0.2
        """
        self.activation.backward(kernels, dpre, grads[self.b], dout, out, pre, params[self.b])
        kernels.matmul(grads[self.W], x.T, dpre)
        if dx is not None:
            kernels.matmul(dx, dpre, params[self.W].T)


class MLP:
    """Dense layers in a row: acts[0] is the input, acts[i + 1] the output of layer i, pres[i] its matrix product."""

    def __init__(self, name: str, n_in: int, widths: Sequence[int], activation: str | Activation) -> None:
        sizes = [n_in, *widths]
        self.layers = [Dense(f"{name}.{i}", sizes[i], sizes[i + 1], activation) for i in range(len(widths))]
        self.n_out = sizes[-1]
        self.uses_input = make_activation(activation).uses_input

    def forward(self, kernels: ModuleType, acts: Sequence[Array], pres: Sequence[Array], params: Block) -> None:
        for i, layer in enumerate(self.layers):
            layer.forward(kernels, acts[i + 1], pres[i], acts[i], params)

    def backward(self, kernels: ModuleType, dacts: Sequence[Array | None], dpres: Sequence[Array], grads: Block,
                 acts: Sequence[Array], pres: Sequence[Array], params: Block) -> None:
        """The chain rule from the last layer to the first  (D0.7).

        dacts[-1] is given; the others are written, dacts[0] only if it is not None.
        """
        for i, layer in reversed(list(enumerate(self.layers))):
            dout = dacts[i + 1]
            assert dout is not None      # only dacts[0] may be
            layer.backward(kernels, dacts[i], dpres[i], grads, dout, acts[i + 1], pres[i], acts[i], params)


# ---- Masked layers: output d depends on the inputs before d alone

# Every unit has a degree, and a unit never sees what is above its own (Germain et al. 2015, MADE, section 4):
#
#     input d                     has degree d, from 1 to D, or any other order of these numbers
#     hidden unit of degree m     sees the inputs of degree <= m, and hidden units of degree <= m
#     output d                    sees the hidden units of degree < d
#
# so output d depends on the inputs of degree < d alone, however many layers lie between: each step keeps or raises the
# degree, and the last one raises it.  The degrees of hidden units go from 1 to D - 1; a unit of degree D would be seen
# by no output, one of degree 0 sees no input, and is of use only where the layer is told something else as well.
#
#     order = input_degrees(D)
#     units = hidden_degrees(H, D)
#     first = MaskedDense("flow.0", mask(order, units), "relu")                           (B, D) -> (B, H)
#     second = MaskedDense("flow.1", mask(units, units), "relu")                          (B, H) -> (B, H)
#     last = MaskedDense("flow.2", mask(units, order, strict=True), "identity")           (B, H) -> (B, D)
#
# An output of two numbers for each input takes `np.tile(order, 2)`, and then has m in columns 0 ... D - 1, s behind.

def input_degrees(n: int) -> Array:
    """1 ... n, (n,): the natural order.  `input_degrees(n)[::-1]` is the reverse, which flows take in turns."""
    return np.arange(1, n + 1)


def hidden_degrees(units: int, n: int, rng: np.random.Generator | None = None, least: int = 1) -> Array:
    """Degrees of hidden units (units,) over n inputs, ascending, from `least` to n - 1.

    Without rng they are dealt out evenly: each degree to as many units as any other, or to one more; and if there are
    fewer units than degrees, to degrees in equal distances.  (Dealt 1, 2, 3, ... they would leave the last inputs to no
    unit.)  With rng they are uniform (Germain et al. 2015, section 4.1).  Over one input a unit has degree `least`.
    """
    count = max(n - least, 1)
    if rng is not None:
        return np.sort(rng.integers(least, least + count, units))
    return least + np.arange(units) * count // units


def mask(inputs: Array, outputs: Array, strict: bool = False) -> Array:
    """M[i, j] = 1 where output j sees input i, else 0, (in, out): where its degree is as high, or, if `strict` (the
    last layer), higher  (D14.8)."""
    below = inputs[:, None] < outputs if strict else inputs[:, None] <= outputs
    return below.astype(np.float64)


class Staircase:
    """Products with a matrix W that a mask (in, out) of ascending degrees has cut into a staircase.

    Above the stairs is every weight that has a say, below them zeros.  Taken in `steps` pieces, each with what it sees
    of the other side, the products leave out (1 - 1 / steps) / 2 of W: a quarter in two.
    """

    steps = 2      # three or four would gain less than 3 % more

    def __init__(self, mask: Array) -> None:
        self.mask, (n_in, n_out) = mask, mask.shape
        self.by_rows = [(rows, slice(n_out - mask[rows].any(axis=0).sum(), n_out)) for rows in self._cut(n_in)]
        self.by_columns = [(slice(0, mask[:, columns].any(axis=1).sum()), columns) for columns in self._cut(n_out)]

    def _cut(self, n: int) -> list[slice]:
        return [slice(n * i // self.steps, n * (i + 1) // self.steps) for i in range(self.steps)]

    def forward(self, kernels: ModuleType, out: Array, x: Array, W: Array) -> None:
        """out = x W, W masked: the first outputs see the first inputs only."""
        for rows, columns in self.by_columns:
            kernels.matmul(out[:, columns], x[:, rows], W[rows, columns])

    def backward(self, kernels: ModuleType, dW: Array, x: Array, dout: Array) -> None:
        """dW = (x^T dout) * M."""
        for rows, _ in self.by_rows:
            kernels.mask_backward(dW[rows], x.T[rows], dout, self.mask[rows])

    def backward_input(self, kernels: ModuleType, dx: Array, dout: Array, W: Array) -> None:
        """dx = dout W^T, W masked: the last inputs are seen by the last outputs only."""
        for rows, columns in self.by_rows:
            kernels.matmul(dx[:, rows], dout[:, columns], W[rows, columns].T)


class MaskedDense:
    """out = f(x (W * M) + b): used in place of `layers.Dense`, with its methods and their arguments.

    The mask is applied to W in the forward pass: a weight that it takes away has no say, whatever its value; its
    gradient is exactly zero; and it starts at zero and stays there.  The forward pass leaves W * M in the layer, where
    `backward`, or whoever calls `weights`, finds it.  The layer has memory of its own, so no two threads may use it.
    """

    def __init__(self, name: str, mask: Array, activation: str | Activation) -> None:
        self.W, self.b, self.mask = f"{name}.W", f"{name}.b", np.asarray(mask, bool)
        n_in, n_out = self.mask.shape
        self.shapes: Shapes = {self.W: (n_in, n_out), self.b: (n_out,)}
        self.activation = make_activation(activation)
        self.masked = np.empty(0)

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Random W, zero b: as of a dense layer, but of each weight the inputs counted that its output sees, and the
        outputs that see its input,  Var(W[i, j]) = M[i, j] gain / max(sum_i M[i, j], sum_j M[i, j])."""
        fan = np.maximum(np.maximum(self.mask.sum(axis=0), self.mask.sum(axis=1)[:, None]), 1)
        params[self.W][...] = self.mask * rng.normal(0, np.sqrt(self.activation.gain / fan))
        params[self.b][...] = 0

    def weights(self, kernels: ModuleType, params: Block) -> Array:
        """W * M (in, out) of these parameters; `forward` takes it from here, and it stays until the next call."""
        W = params[self.W]
        if self.masked.dtype != W.dtype or not self.masked.size:
            self.masked = np.empty_like(W)
        kernels.mask_forward(self.masked, W, self.mask)
        return self.masked

    def forward(self, kernels: ModuleType, out: Array, pre: Array, x: Array, params: Block) -> None:
        """out = f(x (W * M) + b).   x (B, in);  pre, out (B, out)."""
        kernels.matmul(pre, x, self.weights(kernels, params))
        self.activation.forward(kernels, out, pre, params[self.b])

    def backward(self, kernels: ModuleType, dx: Array | None, dpre: Array, grads: Block, dout: Array, out: Array,
                 pre: Array, x: Array, params: Block) -> None:
        """forward was  out = f(x W' + b),  W' = W * M:   as of a dense layer, and  dW = dW' * M = (x^T dpre) * M.

        Of the parameters that the last forward pass had.
        """
        self.activation.backward(kernels, dpre, grads[self.b], dout, out, pre, params[self.b])
        kernels.mask_backward(grads[self.W], x.T, dpre, self.mask)
        if dx is not None:
            kernels.matmul(dx, dpre, self.masked.T)
