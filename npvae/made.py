"""The MADE decoder: a pixel depends on z and on the pixels before it.  Read after `masks.py` and `outputs.py`.

    p(x|z) = prod_d p(x_d | x_1 ... x_{d-1}, z)          no assumption at all: the chain rule of probability

    m      = f( x (W * M) + h V + b )                    h (B K, H'), the decoder's last hidden layer, brings z
    logits = m (W' * M') + h V' + x (W'' * M'') + c      the third term only if asked for: `direct`

(Germain et al. 2015, MADE, equations 5 to 9, of one hidden layer, in the order of the pixels; given z.)  The masks see
to it that logit d looks at no pixel from d on, so one pass gives all D factors, and the probabilities of all 2^D images
add up to one.  V, V' stand below W, W' in one matrix: h is an input of degree 0, which every unit may see.

Given z, the pixels of a dense decoder are independent; whatever makes them go together has to be in z.  This one sees
in the pixels before how strokes go on.  Then z is worth less than its KL term costs, and training switches it off,
unless it is told not to: free bits, annealing or a smaller beta (Bowman et al. 2016; Chen et al. 2017).
"""
from types import ModuleType
from typing import Any

import numpy as np

from .masks import MaskedDense, Staircase, hidden_degrees, input_degrees, mask
from .params import Array, Block, Take
from .support import Levels


class MADE:
    """Logits of D binary pixels in their order, one masked hidden layer of `units`.  Used as `outputs.DenseOutput` is.

    Parameters  made.W (D + H', H), made.b, output.W (H + H', D), output.b;  with `direct`, output.W has D rows more.
    It takes binary images only: it looks at pixels, and those it draws are zeros and ones.
    """

    recordable = True      # does nothing but call kernels; see `lanes.py`
    support = Levels(2)

    def __init__(self, hidden: int, input_dim: int, units: int, activation: str, direct: bool) -> None:
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

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """What an image brings (B, H) and (B, D), once for its draws; what h brings, and the hidden layer, for each."""
        B, (BK, hidden), H, D = len(a.x), a.decoder[-1].shape, self.units.stop, self.pixels.stop
        for one, mark in ((a, ""), (d, "d")):
            one.by_x, one.by_x_last = take(f"{mark}made by x", B, H), take(f"{mark}output by x", B, D)
            one.made = take(f"{mark}made", BK, H)
        a.by_h, a.by_h_last = take("made by h", BK, H), take("output by h", BK, D)
        a.sum_last = take("output by made and h", BK, D)
        a.made_pre = d.made_pre = take("made pre", BK, H)
        d.h_made, d.h_output = take("dh by made", BK, hidden), take("dh by output", BK, hidden)

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """The logits of  p(x|z) = prod_d p(x_d | x_1 ... x_{d-1}, z)  (D14.9).  x does not know of the draws: its
        products are made once for each image, and added to those of h.
        """
        h, draws = a.decoder[-1], a.output.shape[:2]
        W, V = self.first.weights(kernels, params), self.last.weights(kernels, params)
        self.stairs.forward(kernels, a.by_x, a.x, W[self.pixels])
        kernels.matmul(a.by_h, h, W[self.told])
        kernels.add_to_draws_forward(a.made_pre.reshape(*draws, -1), a.by_h.reshape(*draws, -1), a.by_x)
        getattr(kernels, self.first.activation_forward)(a.made, a.made_pre, params[self.first.b])
        self.stairs_last.forward(kernels, a.rows_pre, a.made, V[self.units])
        kernels.matmul(a.by_h_last, h, V[self.told_last])
        kernels.add(a.sum_last, a.rows_pre, a.by_h_last)
        if self.stairs_direct:
            self.stairs_direct.forward(kernels, a.by_x_last, a.x, V[self.direct])
            kernels.add_to_draws_forward(a.rows_pre.reshape(a.output.shape), a.sum_last.reshape(a.output.shape),
                                         a.by_x_last)
        kernels.identity_forward(a.rows, a.rows_pre if self.direct else a.sum_last, params[self.b])

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
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
        self.stairs_last.backward(kernels, dV[self.units], a.made, d.rows_pre)
        kernels.matmul(dV[self.told_last], h.T, d.rows_pre)
        if self.stairs_direct:
            kernels.add_to_draws_backward(d.by_x_last, d.rows_pre.reshape(a.output.shape))
            self.stairs_direct.backward(kernels, dV[self.direct], a.x, d.by_x_last)
        self.stairs_last.backward_input(kernels, d.made, d.rows_pre, V[self.units])
        getattr(kernels, self.first.activation_backward)(d.made_pre, grads[self.first.b], d.made, a.made)
        kernels.add_to_draws_backward(d.by_x, d.made_pre.reshape(*draws, -1))
        self.stairs.backward(kernels, dW[self.pixels], a.x, d.by_x)
        kernels.matmul(dW[self.told], h.T, d.made_pre)
        kernels.matmul(d.h_output, d.rows_pre, V[self.told_last].T)
        kernels.matmul(d.h_made, d.made_pre, W[self.told].T)
        kernels.add(d.decoder[-1], d.h_output, d.h_made)

    def generate(self, kernels: ModuleType, a: Any, params: Block, rng: np.random.Generator | None) -> None:
        """Images pixel by pixel, each after those before it, from a.decoder[-1]: left in a.x, their logits in a.rows.

        Drawn with `rng`: x_d = 1 where logit_d + l > 0, l logistic noise, which is so with probability
        sigmoid(logit_d)  (D14.10).  Without it l = 0, and each pixel takes the value that is likelier after the others:
        the greedy path.  It is one image, not the mean of all: E[x|z] would be a sum over 2^D of them.

        A pixel changes what comes after it by one row of W, and a unit is final as soon as no later pixel can reach it,
        so all D steps together are about the work of one forward pass.
        """
        h, x, logits = a.decoder[-1], a.x, a.rows
        W, V, b = self.first.weights(kernels, params), self.last.weights(kernels, params), params[self.first.b]
        kernels.matmul(a.by_h, h, W[self.told])
        kernels.matmul(a.by_h_last, h, V[self.told_last])
        kernels.identity_forward(logits, a.by_h_last, params[self.b])
        pre, noise = a.by_h, np.zeros(x.shape) if rng is None else rng.logistic(size=x.shape)
        final = 0
        for d, known in enumerate(self.known):
            new, final = slice(final, known), known
            if new.start < known:
                made = np.empty_like(pre[:, new], order="C")
                getattr(kernels, self.first.activation_forward)(made, np.ascontiguousarray(pre[:, new]), b[new])
                a.made[:, new] = made
            logits[:, d] += a.made[:, :known] @ V[:known, d]
            if self.direct:
                logits[:, d] += x[:, :d] @ V[self.direct][:d, d]
            x[:, d] = logits[:, d].real + noise[:, d] > 0
            pre[:, known:] += x[:, d, None] * W[d, known:]

    def draw(self, vae: Any, a: Any, rng: np.random.Generator) -> Array:
        """x ~ p(x|z) (rows, D): what `generate` drew."""
        return a.x
