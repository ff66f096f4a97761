"""The decoder's last step: from its hidden layer h to what the likelihood takes.  Read after `latents/`.

In `DenseOutput` the pixels are independent given z; in `MADE` each pixel also depends on the pixels before it.  There
E[x|z] would be a sum over all 2^D images.  In its place MADE generates one image, pixel by pixel, and gives the
probability of each pixel given those before it.  Pixels are drawn if there is a random generator; otherwise each takes
its more likely value.

To add a decoder, subclass `Decoder` and pass an object of the class as `VAE(decoder=...)`.
"""
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic

import numpy as np

from .buffers import Activations, Gradients
from .latents.base import Own
from .layers import Activation, Dense, MaskedDense, Staircase, hidden_degrees, input_degrees, mask
from .likelihoods.base import Likelihood
from .likelihoods.support import Levels, Reals, Support
from .params import Allocate, Array, Block, Shapes
from .validate import one_of, shown


class Decoder(ABC, Generic[Own]):
    """The step from the decoder's hidden layer a.decoder[-1] (B K, H) to its output a.rows (B K, P).

    Attributes
    ----------
    name : as the command line and saved files write it
    support : the data it takes, beside what the likelihood says
    shapes : name -> shape of its parameters
    W, b : names of the weights and of the bias of its last layer
    reads_data : pixels depend on others, so that all of them must be there
    recordable : as in `Likelihood` (`likelihoods/base.py`)
    """

    name: str
    support: Support = Reals()
    shapes: Shapes
    W: str
    b: str
    reads_data: bool = False
    recordable: bool = False

    @abstractmethod
    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Set its parameters."""

    def check(self, x: Array, name: str, white: int = 1) -> None:
        """Raises ValueError, which calls x `name`, for images that it cannot take; a white pixel has the value `white`.
        """

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> Own:
        """Further arrays that it needs, for as many images and draws as `a` has; the other methods get them as `own`.
        """
        return None      # type: ignore[return-value]      # for a decoder that needs none, Own is None

    @abstractmethod
    def forward(self, kernels: ModuleType, a: Activations, own: Own, params: Block) -> None:
        """a.rows (B K, P) from a.decoder[-1] (B K, H), and from the images a.x (B, D) if pixels depend on others."""

    @abstractmethod
    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Own, grads: Block, params: Block
                 ) -> None:
        """d.decoder[-1] (B K, H) from d.rows (B K, P), and the gradients of its parameters into `grads`."""

    def generate(self, kernels: ModuleType, a: Activations, own: Own, params: Block, rng: np.random.Generator | None
                 ) -> None:
        """a.rows for new images: `forward`, unless pixels depend on others."""
        self.forward(kernels, a, own, params)

    def draw(self, kernels: ModuleType, a: Activations, likelihood: Likelihood, params: Block, rng: np.random.Generator
             ) -> Array:
        """x ~ p(x|z) (rows, D), after `generate`."""
        return likelihood.draw(kernels, a.rows, params, rng)


class DenseOutput(Decoder[None]):
    """output = h W + b: pixels that are independent given z."""

    recordable = True
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


@dataclass(eq=False, repr=False)
class MADEBuffers:
    """The arrays of MADE, with H masked units, and h of H' numbers.  Products of x are computed once per image, those
    of h once per draw."""

    by_x: Array           # (B, H)       x (W * M)
    dby_x: Array
    by_h: Array           # (B K, H)     h V
    made_pre: Array       # (B K, H)     x (W * M) + h V
    dmade_pre: Array
    made: Array           # (B K, H)     m
    dmade: Array
    by_h_last: Array      # (B K, D)     h V'
    sum_last: Array       # (B K, D)     m (W' * M') + h V'
    by_x_last: Array      # (B, D)       x (W'' * M'')
    dby_x_last: Array
    dh_made: Array        # (B K, H')    of h, through m
    dh_output: Array      # (B K, H')    and directly


class MADE(Decoder[MADEBuffers]):
    """D binary pixels in order, each of which depends on z and on the pixels before it; one masked hidden layer of
    `units`.

        p(x|z) = prod_d p(x_d | x_1 ... x_{d-1}, z)          the chain rule of probability, which holds for any p(x|z)

        m      = f( x (W * M) + h V + b )                    h (B K, H'), the decoder's last hidden layer, depends on z
        logits = m (W' * M') + h V' + x (W'' * M'') + c      the third term only with `direct`

    (Germain et al. 2015, MADE, equations 5 to 9, with one hidden layer, given z.)  By the masks, logit d does not
    depend on pixel d or any after it.  So one pass gives all D factors, and the probabilities of all 2^D images sum to
    one.

    The parameter made.W (D + H', H) holds W and below it V; output.W (H + H', D) holds W', V' and, with `direct`, W''
    in D further rows.  Since h has degree 0, V and V' are not masked.  The others are made.b and output.b.

    With a dense decoder, everything that makes pixels depend on each other must be in z.  Here the pixels before say
    much of it.  If z is then worth less than its KL term costs, training stops using it (posterior collapse); free
    bits, annealing or a smaller beta prevent that (Bowman et al. 2016; Chen et al. 2017).

    MADE takes binary images only, as its own draws are.
    """

    recordable = True
    reads_data = True
    support = Levels(2)

    def __init__(self, hidden: int, input_dim: int, units: int, activation: str | Activation, direct: bool) -> None:
        self.name = f"made:{units}" + "+direct" * direct
        order, degrees = input_degrees(input_dim), hidden_degrees(units, input_dim)
        of_h = np.zeros(hidden, int)      # degree 0: every unit sees h
        seen = np.concatenate([degrees, of_h, order] if direct else [degrees, of_h])
        self.first = MaskedDense("made", mask(np.concatenate([order, of_h]), degrees), activation)
        self.last = MaskedDense("output", mask(seen, order, strict=True), "identity")
        self.W, self.b, self.shapes = self.last.W, self.last.b, {**self.first.shapes, **self.last.shapes}
        self.pixels, self.h = slice(input_dim), slice(input_dim, input_dim + hidden)      # rows of made.W: W, V
        self.units, self.h_last = slice(units), slice(units, units + hidden)              # rows of output.W: W', V',
        self.direct = slice(units + hidden, None) if direct else None                     # and W''
        self.stairs, self.stairs_last = Staircase(self.first.mask[self.pixels]), Staircase(self.last.mask[self.units])
        self.stairs_direct = Staircase(self.last.mask[self.direct]) if direct else None
        self.known = np.searchsorted(degrees, order)      # number of units of degree < d, those that output d sees

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """As `MaskedDense` does."""
        for layer, own in zip((self.first, self.last), rng.spawn(2)):
            layer.initialize(params, own)

    def check(self, x: Array, name: str, white: int = 1) -> None:
        """Raises ValueError for grey pixels, for which the factors p(x_d | x_1 ... x_{d-1}, z) would be no
        distribution."""
        grey = x[(x != 0) & (x != white)]
        if grey.size:
            raise ValueError(f"{name} must be black and white for a decoder made:H, found {grey[0]:g} among "
                             "zeros and ones: use fit(binarize=...) or --binarize")

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
        """The logits of  p(x|z) = prod_d p(x_d | x_1 ... x_{d-1}, z)  (D14.9).

        The products with x are computed once per image, and added to those with h of each draw.
        """
        h, draws = a.decoder[-1], a.output.shape[:2]
        first, last = self.first.weights(kernels, params), self.last.weights(kernels, params)
        self.stairs.forward(kernels, own.by_x, a.x, first[self.pixels])
        kernels.matmul(own.by_h, h, first[self.h])
        kernels.add_to_draws_forward(own.made_pre.reshape(*draws, -1), own.by_h.reshape(*draws, -1), own.by_x)
        self.first.activation.forward(kernels, own.made, own.made_pre, params[self.first.b])
        self.stairs_last.forward(kernels, a.rows_pre, own.made, last[self.units])
        kernels.matmul(own.by_h_last, h, last[self.h_last])
        kernels.add(own.sum_last, a.rows_pre, own.by_h_last)
        if self.stairs_direct:
            self.stairs_direct.forward(kernels, own.by_x_last, a.x, last[self.direct])
            kernels.add_to_draws_forward(a.rows_pre.reshape(a.output.shape), own.sum_last.reshape(a.output.shape),
                                         own.by_x_last)
        kernels.identity_forward(a.rows, a.rows_pre if self.direct else own.sum_last, params[self.b])

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: MADEBuffers, grads: Block, params: Block
                 ) -> None:
        """Backward pass of  logits = m (W' * M') + h V' + x (W'' * M'') + c,  m = f(s),  s = x (W * M) + h V + b:

            dc  = sum of the rows of dlogits                     db  = sum of the rows of ds
            dW' = (m^T dlogits) * M'                             dm  = dlogits (W' * M')^T,   ds = dm f'(s)
            dW'' = (x^T sum_k dlogits) * M''                     dW  = (x^T sum_k ds) * M      K draws share one x
            dV' = h^T dlogits                                    dV  = h^T ds
            dh  = dlogits V'^T + ds V^T

        x is data and needs no gradient.
        """
        h, draws = a.decoder[-1], a.output.shape[:2]
        first, last, dfirst, dlast = self.first.masked, self.last.masked, grads[self.first.W], grads[self.last.W]
        kernels.identity_backward(d.rows_pre, grads[self.b], d.rows, a.rows)
        self.stairs_last.backward(kernels, dlast[self.units], own.made, d.rows_pre)
        kernels.matmul(dlast[self.h_last], h.T, d.rows_pre)
        if self.stairs_direct:
            kernels.add_to_draws_backward(own.dby_x_last, d.rows_pre.reshape(a.output.shape))
            self.stairs_direct.backward(kernels, dlast[self.direct], a.x, own.dby_x_last)
        self.stairs_last.backward_input(kernels, own.dmade, d.rows_pre, last[self.units])
        self.first.activation.backward(kernels, own.dmade_pre, grads[self.first.b], own.dmade, own.made, own.made_pre,
                                       params[self.first.b])
        kernels.add_to_draws_backward(own.dby_x, own.dmade_pre.reshape(*draws, -1))
        self.stairs.backward(kernels, dfirst[self.pixels], a.x, own.dby_x)
        kernels.matmul(dfirst[self.h], h.T, own.dmade_pre)
        kernels.matmul(own.dh_output, d.rows_pre, last[self.h_last].T)
        kernels.matmul(own.dh_made, own.dmade_pre, first[self.h].T)
        kernels.add(d.decoder[-1], own.dh_output, own.dh_made)

    def generate(self, kernels: ModuleType, a: Activations, own: MADEBuffers, params: Block,
                 rng: np.random.Generator | None) -> None:
        """Generates images pixel by pixel from a.decoder[-1]: the images into a.x (rows, D), their logits into a.rows.

        With `rng` they are draws from p(x|z): x_d = 1 where logit_d + l > 0, with l from the logistic distribution,
        which has probability sigmoid(logit_d)  (D14.10).  Without it l = 0, and each pixel takes its more likely value
        given those before it: the greedy path.  That is one image, and not the mean E[x|z], a sum over 2^D images.

        A new pixel adds one row of W to the hidden units, and a unit is final once no later pixel can reach it.  So all
        D steps together cost about as much as one forward pass.
        """
        h, x, logits = a.decoder[-1], a.x, a.rows
        first, last = self.first.weights(kernels, params), self.last.weights(kernels, params)
        b, pre = params[self.first.b], own.by_h
        kernels.matmul(own.by_h, h, first[self.h])
        kernels.matmul(own.by_h_last, h, last[self.h_last])
        kernels.identity_forward(logits, own.by_h_last, params[self.b])
        noise = np.zeros(x.shape) if rng is None else rng.logistic(size=x.shape)
        final = 0
        for d, known in enumerate(self.known):
            new, final = slice(final, known), known
            if new.start < known:
                made = np.empty_like(pre[:, new], order="C")
                self.first.activation.forward(kernels, made, np.ascontiguousarray(pre[:, new]), b[new])
                own.made[:, new] = made
            logits[:, d] += own.made[:, :known] @ last[:known, d]
            if self.direct:
                logits[:, d] += x[:, :d] @ last[self.direct][:d, d]
            x[:, d] = logits[:, d].real + noise[:, d] > 0
            pre[:, known:] += x[:, d, None] * first[d, known:]

    def draw(self, kernels: ModuleType, a: Activations, likelihood: Likelihood, params: Block, rng: np.random.Generator
             ) -> Array:
        """x ~ p(x|z) (rows, D), as `generate` has drawn it."""
        return a.x


#: as the command line writes them, and what they mean
DECODERS = {
    "dense": "pixels are independent given z",
    "made:H": "a pixel depends on those before it, through H masked units, as in made:500",
    "made:H+direct": "and directly, as in made:500+direct"}

_MADE = re.compile(r"made:([1-9][0-9]*)(\+direct)?")


def masked_units(decoder: str) -> tuple[int, bool]:
    """The number of masked units of the decoder of that name, 0 for dense, and whether pixels reach the output
    directly.  Raises ValueError, with the known names."""
    made = _MADE.fullmatch(decoder) if isinstance(decoder, str) else None
    if not made and decoder != "dense":
        raise ValueError(f"decoder must be {one_of(DECODERS)}, or an object of class Decoder, got {shown(decoder)}")
    return (int(made[1]), bool(made[2])) if made else (0, False)


def make_decoder(decoder: str | Decoder[Any], hidden: int, likelihood: Likelihood, input_dim: int,
                 activation: str | Activation) -> Decoder[Any]:
    """The last step of that name, after a layer of `hidden` units, or the object itself.  Raises ValueError, with the
    known names, and for a likelihood that the decoder does not admit."""
    if isinstance(decoder, Decoder):
        return decoder
    units, direct = masked_units(decoder)
    if not units:
        return DenseOutput(hidden, likelihood.output_dim(input_dim))
    if likelihood.name != "bernoulli":
        raise ValueError(f"decoder {decoder} needs likelihood bernoulli, got {likelihood.name}: use decoder dense")
    return MADE(hidden, input_dim, units, activation, direct)
