"""The decoder's last step: from its hidden layer h to what the likelihood takes.  Read after `latents/`.

Given z the pixels are independent, and the step is a dense layer; or each pixel depends on those before it (`MADE`).
For that one E[x|z], a sum over all images, stands for something else: the probability of each pixel after those before
it, along one path of pixels, a drawn one where there is a generator.

To add one, subclass `Decoder`; `VAE(decoder=...)` takes an object of the class.
"""
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np

from .buffers import Activations, Gradients
from .layers import Activation, Dense, MaskedDense, Staircase, hidden_degrees, input_degrees, mask
from .likelihoods.base import Likelihood
from .likelihoods.support import Levels, Reals, Support
from .params import Allocate, Array, Block, Shapes
from .validate import one_of, shown

Own = TypeVar("Own")


class Decoder(ABC, Generic[Own]):
    """a.rows (B K, P) from the decoder's hidden layer a.decoder[-1] (B K, H).

    Attributes
    ----------
    name : as the command line and saved files write it
    support : what data it takes, beside what the likelihood says
    shapes : of its parameters, by name
    W, b : the names of the weights and the bias of the last layer
    recordable : as of a likelihood (`likelihoods/base.py`)
    """

    name: str
    support: Support = Reals()
    shapes: Shapes
    W: str
    b: str
    recordable: bool = False

    @abstractmethod
    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Set its parameters."""

    def check(self, x: Array, name: str, white: int = 1) -> None:
        """Raises ValueError, which names x, for images that it cannot take; a white pixel is `white`."""

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> Own:
        """Arrays of its own, for as many images and draws as `a` has."""
        return None      # type: ignore[return-value]      # of a decoder that needs none, Own is None

    @abstractmethod
    def forward(self, kernels: ModuleType, a: Activations, own: Own, params: Block) -> None:
        """a.rows (B K, P) from a.decoder[-1] (B K, H), and from the images a.x (B, D) if it looks at pixels."""

    @abstractmethod
    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Own, grads: Block, params: Block
                 ) -> None:
        """d.decoder[-1] (B K, H) from d.rows (B K, P); and the gradients of its parameters."""

    def generate(self, kernels: ModuleType, a: Activations, own: Own, params: Block, rng: np.random.Generator | None
                 ) -> None:
        """a.rows for new images: the same, unless a pixel looks at others."""
        self.forward(kernels, a, own, params)

    def draw(self, kernels: ModuleType, a: Activations, likelihood: Likelihood, params: Block, rng: np.random.Generator
             ) -> Array:
        """x ~ p(x|z) (rows, D) from what `generate` left in `a`."""
        return likelihood.draw(kernels, a.rows, params, rng)


class DenseOutput(Decoder[None]):
    """output = h W + b."""

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`
    name = "dense"

    def __init__(self, hidden: int, output_dim: int) -> None:
        self.layer = Dense("output", hidden, output_dim, "identity")
        self.W, self.b, self.shapes = self.layer.W, self.layer.b, self.layer.shapes

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        self.layer.initialize(params, rng)

    def forward(self, kernels: ModuleType, a: Activations, own: None, params: Block) -> None:
        self.layer.forward(kernels, a.rows, a.rows_pre, a.decoder[-1], params)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: None, grads: Block, params: Block
                 ) -> None:
        self.layer.backward(kernels, d.decoder[-1], d.rows_pre, grads, d.rows, a.rows, a.rows_pre, a.decoder[-1],
                            params)


@dataclass
class MADEBuffers:
    """What MADE keeps: H units, H' numbers of h.  An image brings its part once for its draws, h for each."""

    by_x: Array           # (B, H)       x (W * M)
    dby_x: Array
    by_h: Array           # (B K, H)     h V
    made_pre: Array       # (B K, H)     both
    dmade_pre: Array
    made: Array           # (B K, H)     m
    dmade: Array
    by_h_last: Array      # (B K, D)     h V'
    sum_last: Array       # (B K, D)     m (W' * M') + h V'
    by_x_last: Array      # (B, D)       x (W'' * M'')
    dby_x_last: Array
    dh_made: Array        # (B K, H')    of h, by m
    dh_output: Array      # (B K, H')    and by the logits


class MADE(Decoder[MADEBuffers]):
    """A pixel depends on z and on the pixels before it: logits of D binary pixels in their order, one masked hidden
    layer of `units`.

        p(x|z) = prod_d p(x_d | x_1 ... x_{d-1}, z)          no assumption at all: the chain rule of probability

        m      = f( x (W * M) + h V + b )                    h (B K, H'), the decoder's last hidden layer, brings z
        logits = m (W' * M') + h V' + x (W'' * M'') + c      the third term only if asked for: `direct`

    (Germain et al. 2015, MADE, equations 5 to 9, of one hidden layer, in the order of the pixels; given z.)  The masks
    see to it that logit d looks at no pixel from d on, so one pass gives all D factors, and the probabilities of all
    2^D images add up to one.  V, V' stand below W, W' in one matrix: h is an input of degree 0, which every unit may
    see.

    Given z, the pixels of a dense decoder are independent; whatever makes them go together has to be in z.  This one
    sees in the pixels before how strokes go on.  Then z is worth less than its KL term costs, and training switches it
    off, unless it is told not to: free bits, annealing or a smaller beta (Bowman et al. 2016; Chen et al. 2017).

    Parameters  made.W (D + H', H), made.b, output.W (H + H', D), output.b;  with `direct`, output.W has D rows more.
    It takes binary images only: it looks at pixels, and those it draws are zeros and ones.
    """

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`
    support = Levels(2)

    def __init__(self, hidden: int, input_dim: int, units: int, activation: str | Activation, direct: bool) -> None:
        self.name = f"made:{units}" + "+direct" * direct
        order, degrees = input_degrees(input_dim), hidden_degrees(units, input_dim)
        told = np.zeros(hidden, int)
        seen = np.concatenate([degrees, told, order] if direct else [degrees, told])
        self.first = MaskedDense("made", mask(np.concatenate([order, told]), degrees), activation)
        self.last = MaskedDense("output", mask(seen, order, strict=True), "identity")
        self.W, self.b, self.shapes = self.last.W, self.last.b, {**self.first.shapes, **self.last.shapes}
        self.pixels, self.told = slice(input_dim), slice(input_dim, input_dim + hidden)      # rows of made.W
        self.units, self.told_last = slice(units), slice(units, units + hidden)              # rows of output.W
        self.direct = slice(units + hidden, None) if direct else None
        self.stairs, self.stairs_last = Staircase(self.first.mask[self.pixels]), Staircase(self.last.mask[self.units])
        self.stairs_direct = Staircase(self.last.mask[self.direct]) if direct else None
        self.known = np.searchsorted(degrees, order)      # units of degree < d, all that output d sees

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """As masked layers are."""
        for layer, own in zip((self.first, self.last), rng.spawn(2)):
            layer.initialize(params, own)

    def check(self, x: Array, name: str, white: int = 1) -> None:
        """Raises ValueError for greys: of them the factors p(x_d | x_1 ... x_{d-1}, z) make no distribution."""
        grey = x[(x != 0) & (x != white)]
        if grey.size:
            raise ValueError(f"{name} must be black and white for a decoder made:H, which looks at pixels, found "
                             f"{grey[0]:g} among zeros and ones: fit(binarize=...) or --binarize make them so")

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> MADEBuffers:
        B, (BK, hidden), H, D = len(a.x), a.decoder[-1].shape, self.units.stop, self.pixels.stop
        pre = allocate("made pre", BK, H)
        return MADEBuffers(
            by_x=allocate("made by x", B, H), dby_x=allocate("dmade by x", B, H), by_h=allocate("made by h", BK, H),
            made_pre=pre, dmade_pre=allocate("dmade pre", BK, H) if self.first.activation.uses_input else pre,
            made=allocate("made", BK, H), dmade=allocate("dmade", BK, H),
            by_h_last=allocate("output by h", BK, D), sum_last=allocate("output by made and h", BK, D),
            by_x_last=allocate("output by x", B, D), dby_x_last=allocate("doutput by x", B, D),
            dh_made=allocate("dh by made", BK, hidden), dh_output=allocate("dh by output", BK, hidden))

    def forward(self, kernels: ModuleType, a: Activations, own: MADEBuffers, params: Block) -> None:
        """The logits of  p(x|z) = prod_d p(x_d | x_1 ... x_{d-1}, z)  (D14.9).  x does not know of the draws: its
        products are made once for each image, and added to those of h.
        """
        h, draws = a.decoder[-1], a.output.shape[:2]
        W, V = self.first.weights(kernels, params), self.last.weights(kernels, params)
        self.stairs.forward(kernels, own.by_x, a.x, W[self.pixels])
        kernels.matmul(own.by_h, h, W[self.told])
        kernels.add_to_draws_forward(own.made_pre.reshape(*draws, -1), own.by_h.reshape(*draws, -1), own.by_x)
        self.first.activation.forward(kernels, own.made, own.made_pre, params[self.first.b])
        self.stairs_last.forward(kernels, a.rows_pre, own.made, V[self.units])
        kernels.matmul(own.by_h_last, h, V[self.told_last])
        kernels.add(own.sum_last, a.rows_pre, own.by_h_last)
        if self.stairs_direct:
            self.stairs_direct.forward(kernels, own.by_x_last, a.x, V[self.direct])
            kernels.add_to_draws_forward(a.rows_pre.reshape(a.output.shape), own.sum_last.reshape(a.output.shape),
                                         own.by_x_last)
        kernels.identity_forward(a.rows, a.rows_pre if self.direct else own.sum_last, params[self.b])

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: MADEBuffers, grads: Block, params: Block
                 ) -> None:
        """forward was  logits = m (W' * M') + h V' + x (W'' * M'') + c,  m = f(s),  s = x (W * M) + h V + b:

            dc  = sum of the rows of dlogits                     db  = sum of the rows of ds
            dW' = (m^T dlogits) * M'                             dm  = dlogits (W' * M')^T,   ds = dm f'(s)
            dW'' = (x^T sum_k dlogits) * M''                     dW  = (x^T sum_k ds) * M      x is one for K draws
            dV' = h^T dlogits                                    dV  = h^T ds
            dh  = dlogits V'^T + ds V^T

        x is data and has no gradient.
        """
        h, draws = a.decoder[-1], a.output.shape[:2]
        W, V, dW, dV = self.first.masked, self.last.masked, grads[self.first.W], grads[self.last.W]
        kernels.identity_backward(d.rows_pre, grads[self.b], d.rows, a.rows)
        self.stairs_last.backward(kernels, dV[self.units], own.made, d.rows_pre)
        kernels.matmul(dV[self.told_last], h.T, d.rows_pre)
        if self.stairs_direct:
            kernels.add_to_draws_backward(own.dby_x_last, d.rows_pre.reshape(a.output.shape))
            self.stairs_direct.backward(kernels, dV[self.direct], a.x, own.dby_x_last)
        self.stairs_last.backward_input(kernels, own.dmade, d.rows_pre, V[self.units])
        self.first.activation.backward(kernels, own.dmade_pre, grads[self.first.b], own.dmade, own.made, own.made_pre,
                                       params[self.first.b])
        kernels.add_to_draws_backward(own.dby_x, own.dmade_pre.reshape(*draws, -1))
        self.stairs.backward(kernels, dW[self.pixels], a.x, own.dby_x)
        kernels.matmul(dW[self.told], h.T, own.dmade_pre)
        kernels.matmul(own.dh_output, d.rows_pre, V[self.told_last].T)
        kernels.matmul(own.dh_made, own.dmade_pre, W[self.told].T)
        kernels.add(d.decoder[-1], own.dh_output, own.dh_made)

    def generate(self, kernels: ModuleType, a: Activations, own: MADEBuffers, params: Block,
                 rng: np.random.Generator | None) -> None:
        """Images pixel by pixel, each after those before it, from a.decoder[-1]: left in a.x, their logits in a.rows.

        Drawn with `rng`: x_d = 1 where logit_d + l > 0, l logistic noise, which is so with probability
        sigmoid(logit_d)  (D14.10).  Without it l = 0, and each pixel takes the value that is likelier after the others:
        the greedy path.  It is one image, not the mean of all: E[x|z] would be a sum over 2^D of them.

        A pixel changes what comes after it by one row of W, and a unit is final as soon as no later pixel can reach it,
        so all D steps together are about the work of one forward pass.
        """
        h, x, logits = a.decoder[-1], a.x, a.rows
        W, V, b = self.first.weights(kernels, params), self.last.weights(kernels, params), params[self.first.b]
        kernels.matmul(own.by_h, h, W[self.told])
        kernels.matmul(own.by_h_last, h, V[self.told_last])
        kernels.identity_forward(logits, own.by_h_last, params[self.b])
        pre, noise = own.by_h, np.zeros(x.shape) if rng is None else rng.logistic(size=x.shape)
        final = 0
        for d, known in enumerate(self.known):
            new, final = slice(final, known), known
            if new.start < known:
                made = np.empty_like(pre[:, new], order="C")
                self.first.activation.forward(kernels, made, np.ascontiguousarray(pre[:, new]), b[new])
                own.made[:, new] = made
            logits[:, d] += own.made[:, :known] @ V[:known, d]
            if self.direct:
                logits[:, d] += x[:, :d] @ V[self.direct][:d, d]
            x[:, d] = logits[:, d].real + noise[:, d] > 0
            pre[:, known:] += x[:, d, None] * W[d, known:]

    def draw(self, kernels: ModuleType, a: Activations, likelihood: Likelihood, params: Block, rng: np.random.Generator
             ) -> Array:
        """x ~ p(x|z) (rows, D): what `generate` drew."""
        return a.x


#: how the command line writes them, and what they are
DECODERS = {
    "dense": "pixels are independent, given z",
    "made:H": "a pixel sees those before it, through H masked units, as in made:500",
    "made:H+direct": "and directly, as in made:500+direct"}

_MADE = re.compile(r"made:([1-9][0-9]*)(\+direct)?")


def masked_units(decoder: str) -> tuple[int, bool]:
    """How many masked units the decoder of that name has, 0 for dense, and whether pixels see pixels directly, too.
    Raises ValueError with the known names."""
    made = _MADE.fullmatch(decoder) if isinstance(decoder, str) else None
    if not made and decoder != "dense":
        raise ValueError(f"decoder must be {one_of(DECODERS)}, or an object of class Decoder, got {shown(decoder)}")
    return (int(made[1]), bool(made[2])) if made else (0, False)


def make_decoder(decoder: str | Decoder[Any], hidden: int, likelihood: Likelihood, input_dim: int,
                 activation: str | Activation) -> Decoder[Any]:
    """The last step of that name, after a layer of `hidden` units, or the object itself.  Raises ValueError for other
    names, and for a likelihood that does not fit."""
    if isinstance(decoder, Decoder):
        return decoder
    units, direct = masked_units(decoder)
    if not units:
        return DenseOutput(hidden, likelihood.output_dim(input_dim))
    if likelihood.name != "bernoulli":
        raise ValueError(f"decoder {decoder} needs likelihood bernoulli, got {likelihood.name}: decoder dense fits it")
    return MADE(hidden, input_dim, units, activation, direct)
