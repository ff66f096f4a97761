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
    """f of a dense layer and its derivative, by the kernels `{name}_forward` and `{name}_backward`.

    Parameters
    ----------
    name : of the kernels
    gain : Var(W) of the initial weights is gain / max(fan_in, fan_out)
    uses_input : the derivative is computed from a = pre + b if True, else from the output f(a)

    To add one, write a pair of kernels and a row in `ACTIVATIONS`.  Or write a subclass with its own `forward` and
    `backward`, and pass an object of it as `VAE(activation=...)`.
    """

    recordable = True      # it only calls kernels; see `likelihoods/base.py`

    def __init__(self, name: str, gain: float = 1, uses_input: bool = False) -> None:
        self.name, self.gain, self.uses_input = name, gain, uses_input

    def forward(self, kernels: ModuleType, out: Array, pre: Array, b: Array) -> None:
        """out = f(pre + b).   out, pre (B, H);  b (H,)."""
        getattr(kernels, f"{self.name}_forward")(out, pre, b)

    def backward(self, kernels: ModuleType, dpre: Array, db: Array, dout: Array, out: Array, pre: Array, b: Array
                 ) -> None:
        """dpre = dout f'(pre + b),  db = sum of the rows of dpre.   dpre, dout, out, pre (B, H);  db, b (H,)."""
        kernel = getattr(kernels, f"{self.name}_backward")
        if self.uses_input:
            kernel(dpre, db, dout, pre, b)
        else:
            kernel(dpre, db, dout, out)


#: By name, each with its gain.  Var(W) = 1 / fan_in keeps the variance of the values, 1 / fan_out that of the gradients
#: (Glorot and Bengio 2010).  Here it is the smaller of the two, times a gain.  With 1 / E[f(a)^2] for a standard normal
#: a, f keeps the mean square: 2 for ReLU (He et al. 2015), 1 / 0.3558 for SiLU, 1 / 0.4252 for GELU, where E[f(a)^2] is
#: 1/3 + 1 / (2 sqrt(3) pi).  ELU shares ReLU's 2 (its own is 1.55); tanh, sigmoid and softplus have 1 by custom.
#: With 2 / fan_in alone, the weights of a decoder of 20 inputs start too large, which costs some 0.9 nats in ten epochs
#: of 784-400-20.
ACTIVATIONS = {activation.name: activation for activation in (
    Activation("identity"), Activation("relu", 2), Activation("leaky_relu", 2), Activation("elu", 2),
    Activation("tanh"), Activation("sigmoid"), Activation("softplus"),
    Activation("silu", 2.81, uses_input=True), Activation("gelu", 2.35, uses_input=True))}


def make_activation(activation: str | Activation) -> Activation:
    """The activation of that name, or the object itself.  Raises ValueError, with the known names."""
    if isinstance(activation, Activation):
        return activation
    return ACTIVATIONS[choice("activation", activation, ACTIVATIONS)]


class Dense:
    """A dense layer, out = f(x W + b), with its backward pass.

    Parameters
    ----------
    name : its parameters are "{name}.W" (in, out) and "{name}.b" (out,)
    n_in, n_out : number of inputs and of outputs
    activation : f, by name or as an object
    """

    def __init__(self, name: str, n_in: int, n_out: int, activation: str | Activation) -> None:
        self.W, self.b = f"{name}.W", f"{name}.b"
        self.shapes: Shapes = {self.W: (n_in, n_out), self.b: (n_out,)}
        self.activation = make_activation(activation)

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """b = 0, and random W with  Var(W) = gain / max(in, out)  (D1.7).

        Drawn in float64, so that a model starts at the same point in every dtype.
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
        """Backward pass of  out = f(pre + b),  pre = x W:

            dpre = dout f'(pre + b)                    (D1.2)
            db   = sum of the rows of dpre             (D1.3)
            dW   = x^T dpre                            (D1.4)    by D0.3
            dx   = dpre W^T, unless dx is None         (D1.5)    by D0.2
        """
        self.activation.backward(kernels, dpre, grads[self.b], dout, out, pre, params[self.b])
        kernels.matmul(grads[self.W], x.T, dpre)
        if dx is not None:
            kernels.matmul(dx, dpre, params[self.W].T)


class MLP:
    """Dense layers in a row:  acts[0] is the input, acts[i + 1] the output of layer i, and pres[i] its matrix product,
    before bias and activation."""

    def __init__(self, name: str, n_in: int, widths: Sequence[int], activation: str | Activation) -> None:
        sizes = [n_in, *widths]
        self.layers = [Dense(f"{name}.{i}", sizes[i], sizes[i + 1], activation) for i in range(len(widths))]
        self.n_out = sizes[-1]
        self.uses_input = make_activation(activation).uses_input

    def forward(self, kernels: ModuleType, acts: Sequence[Array], pres: Sequence[Array], params: Block) -> None:
        """acts[0] is given; the other acts, and all pres, are written."""
        for i, layer in enumerate(self.layers):
            layer.forward(kernels, acts[i + 1], pres[i], acts[i], params)

    def backward(self, kernels: ModuleType, dacts: Sequence[Array | None], dpres: Sequence[Array], grads: Block,
                 acts: Sequence[Array], pres: Sequence[Array], params: Block) -> None:
        """The chain rule from the last layer to the first  (D0.7).

        dacts[-1] is given, the others are written; dacts[0] may be None, and is then left out.
        """
        for i, layer in reversed(list(enumerate(self.layers))):
            dout = dacts[i + 1]
            assert dout is not None      # only dacts[0] may be None
            layer.backward(kernels, dacts[i], dpres[i], grads, dout, acts[i + 1], pres[i], acts[i], params)


# ---- Masked layers: output d depends only on the inputs before d

# Every unit has a degree, which limits the units that it is connected to (Germain et al. 2015, MADE, section 4):
#
#     input d                     has degree d, from 1 to D, or any other order of these numbers
#     hidden unit of degree m     sees the inputs of degree <= m, and hidden units of degree <= m
#     output d                    sees the hidden units of degree < d
#
# So output d depends only on inputs of degree < d, through any number of layers: along a path the degree never falls,
# and in the last step it rises.  Hidden units have degrees 1 to D - 1.  No output would see a unit of degree D.  A unit
# of degree 0 sees no input; it is of use where the layer has further inputs, as in a flow.
#
#     order = input_degrees(D)
#     units = hidden_degrees(H, D)
#     first = MaskedDense("flow.0", mask(order, units), "relu")                           (B, D) -> (B, H)
#     second = MaskedDense("flow.1", mask(units, units), "relu")                          (B, H) -> (B, H)
#     last = MaskedDense("flow.2", mask(units, order, strict=True), "identity")           (B, H) -> (B, D)
#
# For two outputs per input the degrees are `np.tile(order, 2)`: all D first ones, then all D second ones.

def input_degrees(n: int) -> Array:
    """1 ... n, (n,): the natural order.  Flows alternate it with its reverse, `input_degrees(n)[::-1]`."""
    return np.arange(1, n + 1)


def hidden_degrees(units: int, n: int, rng: np.random.Generator | None = None, least: int = 1) -> Array:
    """Degrees of hidden units (units,) for n inputs, ascending, from `least` to n - 1.

    Without rng they are spread evenly: the numbers of units of two degrees differ by one at most, and fewer units than
    degrees are spaced equally.  (Degrees 1, 2, 3, ... in turn would leave none for the last inputs.)  With rng they are
    drawn uniformly (Germain et al. 2015, section 4.1).  For n = 1 all are `least`.
    """
    count = max(n - least, 1)
    if rng is not None:
        return np.sort(rng.integers(least, least + count, units))
    return least + np.arange(units) * count // units


def mask(inputs: Array, outputs: Array, strict: bool = False) -> Array:
    """M[i, j] = 1 where output j may depend on input i, else 0, (in, out):  where inputs[i] <= outputs[j], or, if
    `strict` (the last layer), inputs[i] < outputs[j]  (D14.8)."""
    below = inputs[:, None] < outputs if strict else inputs[:, None] <= outputs
    return below.astype(np.float64)


class Staircase:
    """Matrix products with masked weights W (in, out) whose degrees ascend, so that the mask looks like a staircase.

    Weights below the stairs are zero.  The products are computed in `steps` pieces, each without the rows or columns
    that are zero in it.  This skips (1 - 1 / steps) / 2 of W: a quarter with two pieces.
    """

    steps = 2      # three or four would gain less than 3 % more

    def __init__(self, mask: Array) -> None:
        self.mask, (n_in, n_out) = mask, mask.shape
        self.by_rows = [(rows, slice(n_out - mask[rows].any(axis=0).sum(), n_out)) for rows in self._cut(n_in)]
        self.by_columns = [(slice(0, mask[:, columns].any(axis=1).sum()), columns) for columns in self._cut(n_out)]

    def _cut(self, n: int) -> list[slice]:
        return [slice(n * i // self.steps, n * (i + 1) // self.steps) for i in range(self.steps)]

    def forward(self, kernels: ModuleType, out: Array, x: Array, W: Array) -> None:
        """out = x W, with W masked: the first outputs depend on the first inputs only."""
        for rows, columns in self.by_columns:
            kernels.matmul(out[:, columns], x[:, rows], W[rows, columns])

    def backward(self, kernels: ModuleType, dW: Array, x: Array, dout: Array) -> None:
        """dW = (x^T dout) * M."""
        for rows, _ in self.by_rows:
            kernels.mask_backward(dW[rows], x.T[rows], dout, self.mask[rows])

    def backward_input(self, kernels: ModuleType, dx: Array, dout: Array, W: Array) -> None:
        """dx = dout W^T, with W masked: the last inputs reach the last outputs only."""
        for rows, columns in self.by_rows:
            kernels.matmul(dx[:, rows], dout[:, columns], W[rows, columns].T)


class MaskedDense:
    """A dense layer with masked weights, out = f(x (W * M) + b), with the methods of `Dense`.

    A masked weight starts at zero, has no influence whatever its value, and its gradient is exactly zero.  `forward`
    keeps W * M in the layer for `backward`.  So the layer has memory of its own, and only one thread at a time may use
    it.

    Parameters
    ----------
    name, activation : as of `Dense`
    mask : M, (in, out), zeros and ones
    """

    def __init__(self, name: str, mask: Array, activation: str | Activation) -> None:
        self.W, self.b, self.mask = f"{name}.W", f"{name}.b", np.asarray(mask, bool)
        n_in, n_out = self.mask.shape
        self.shapes: Shapes = {self.W: (n_in, n_out), self.b: (n_out,)}
        self.activation = make_activation(activation)
        self.masked = np.empty(0)

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """b = 0, and random W with  Var(W[i, j]) = M[i, j] gain / max(sum_i M[i, j], sum_j M[i, j]):  as in `Dense`,
        but only the weights that are not masked count."""
        fan = np.maximum(np.maximum(self.mask.sum(axis=0), self.mask.sum(axis=1)[:, None]), 1)
        params[self.W][...] = self.mask * rng.normal(0, np.sqrt(self.activation.gain / fan))
        params[self.b][...] = 0

    def weights(self, kernels: ModuleType, params: Block) -> Array:
        """W * M (in, out), computed from `params`; kept in the layer until the next call."""
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
        """Backward pass of  out = f(x W' + b),  W' = W * M of the last forward pass:  as of `Dense`, but  dW = (x^T
        dpre) * M."""
        self.activation.backward(kernels, dpre, grads[self.b], dout, out, pre, params[self.b])
        kernels.mask_backward(grads[self.W], x.T, dpre, self.mask)
        if dx is not None:
            kernels.matmul(dx, dpre, self.masked.T)
