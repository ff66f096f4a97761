"""Bits back: images on a stack, each for -log p(x|z) - log p(z) + log q(z|x) nats.  Read after `outputs.py`.

    push an image    pop z under q(z|x),    push x under p(x|z),    push z under p(z)
    pop an image     pop z under p(z),      pop x under p(x|z),     push z under q(z|x)

The second line undoes the first step by step.  The bits that choose z are those of the images before it, and come back
when z has been read: hence the name (Hinton and van Camp 1993; Townsend, Bird and Barber 2019).

Images go in batches, for all of which the network is computed at once: the batch's z are popped, then all x are pushed,
then all z.  A batch is as large as the bits on the stack allow.  The first image finds none: it is coded at the bin of
the mean of q(z|x), and so costs more.
"""
import numpy as np

from ..latents.flows import NoFlow
from ..model.vae import VAE
from ..params import Array
from .cells import CodedCells, coded_cells
from .coder import LEAST, Stack, Symbols, uniform
from .latents import Bins, Gaussian, coded_prior
from .network import FRACTION, Network
from .outputs import coded_output

#: images in a batch are 2^0 ... 2^8, or one without bits back: so many kinds of batches, as a symbol of 4 bits
_LARGEST, _KINDS = 8, 4
_SINGLE = _LARGEST + 1
_COARSEST, _WIDEST = 4, 8      # bins are at most 2^-4 wide, and z lies within 2^8


class Chain:
    """A trained model as a code for images of levels (N, D).

    Parameters
    ----------
    vae : the model
    bins : of its latent variables; None chooses by `levels`
    most : the largest count in the images
    levels : of some of the images that are to be coded

    Raises ValueError for a model that cannot be coded exactly, and says why.
    """

    def __init__(self, vae: VAE, bins: Bins | None = None, most: int = 0, levels: Array | None = None) -> None:
        check(vae)
        params = vae.parameters
        self.D, self.Z = vae.input_dim, vae.latent_dim
        self.cells: CodedCells = coded_cells(vae.likelihood, params, self.D, most)
        self._encoder = Network(vae.encoder, [vae.mu, vae.logvar], params)
        if bins is None:
            assert levels is not None
            bins = choose_bins(self.posterior(levels))
        self.bins = bins
        self._output = coded_output(vae, self.cells)
        self._prior = coded_prior(vae.prior, bins, vae.latent_dim, self._encoder, params)

    def posterior(self, levels: Array) -> Gaussian:
        """q(z|x) (B, Z), of images of these levels."""
        return Gaussian.of(*self._encoder(self.cells.features(levels)))

    # -- pushing and popping -------------------------------------------------------------------------------------

    def push(self, levels: Array) -> Array:
        """The words (n,) of a stack that holds images (N, D)."""
        start, stack = 0, Stack()
        q = [self.posterior(levels[i:i + 2 ** _LARGEST]) for i in range(0, len(levels), 2 ** _LARGEST)]
        mean, rate = (np.concatenate(parts) for parts in zip(*q)) if q else (np.empty((0, self.Z)),) * 2
        while start < len(levels):
            some = slice(start, start + 2 ** _LARGEST)
            start += self._push_some(stack, levels[some], Gaussian(mean[some], rate[some]))
        return stack.words()

    def _push_some(self, stack: Stack, levels: Array, q: Gaussian) -> int:
        """Push as many of these images as the bits on the stack allow, a power of two; return how many."""
        need = np.add.accumulate(np.add.accumulate(self.bins.need(q), axis=1)[:, -1] + self._prior.need)
        allowed = int(np.count_nonzero(need + LEAST <= stack.bits))
        for power in reversed(range(allowed.bit_length())):
            some, saved = slice(2 ** power), stack.save()
            self.push_batch(stack, levels[some], Gaussian(q.mean[some], q.rate[some]))
            if stack.lowest >= LEAST:
                stack.push(np.array([power]), _KINDS, uniform(_KINDS))
                return len(levels[some])
            stack.restore(saved)
        self.push_batch(stack, levels[:1], Gaussian(q.mean[:1], q.rate[:1]), back=False)
        stack.push(np.array([_SINGLE]), _KINDS, uniform(_KINDS))
        return 1

    def pop(self, words: Array, count: int) -> Array:
        """The images (count, D) on the stack of these words.  Raises ValueError if it holds another number of them."""
        levels, stop, stack = np.empty((count, self.D), np.int64), count, Stack(words)
        while stop:
            kind = int(stack.pop((1,), _KINDS, uniform(_KINDS))[0])
            n = 1 if kind == _SINGLE else 2 ** kind
            if kind > _SINGLE or n > stop:
                raise ValueError("its batches are not those of its images")
            levels[stop - n:stop] = self.pop_batch(stack, n, back=kind != _SINGLE)
            stop -= n
        if stack.bits:
            raise ValueError("bits are left over")
        return levels

    def push_batch(self, stack: Symbols, levels: Array, q: Gaussian, back: bool = True) -> None:
        """Push images (B, D) that have these q(z|x).  The stack grows by

            bits = log2(1/p(x|z)) + log2(1/p(z)) - log2(1/q(z|x))              (D17.2)

        each, whose mean over z is -ELBO / log 2.  If not `back`, z is the bin of q's mean and the last term missing.
        """
        k = self.bins.pop(stack, q.mean.shape, q) if back else self.bins.nearest(q.mean)
        self._output.push(stack, levels, self.bins.z(k))
        self._prior.push(stack, k, back)

    def pop_batch(self, stack: Symbols, batch: int, back: bool = True) -> Array:
        """Pop what `push_batch` has pushed: images (batch, D)."""
        k = self._prior.pop(stack, batch, back)
        levels = self._output.pop(stack, self.bins.z(k))
        if back:
            self.bins.push(stack, k, self.posterior(levels))
        return levels


def check(vae: VAE) -> None:
    """Raises ValueError if the model cannot be coded exactly, and says why."""
    if type(vae.flow) is not NoFlow:
        raise ValueError(f"posterior {vae.flow.name} cannot be compressed with: a flow moves the bins of z; use "
                         "posterior gaussian")
    if vae.classes:
        raise ValueError("a conditional model cannot be compressed with: the labels would have to be stored, too")
    if vae.missing:
        raise ValueError("a model of missing cells cannot be compressed with: their places would have to be stored")
    if not np.isfinite(vae.parameters.flat).all():
        raise ValueError("the model holds NaN or infinity among its parameters")


def choose_bins(q: Gaussian) -> Bins:
    """Bins for images of these q(z|x) (B, Z), so many that all means lie within, with 4 sigmas to spare, and at
    most half a sigma wide for 99 of 100 sigmas.  To second order of the width delta, bins cost, in nats,

        delta^2 / 24 * sum_j (c_j - 1 / sigma_j^2),   c_j = -E[ d^2 log p(x, z) / dz_j^2 ]              (D17.4)

    which is 0 where sigma_j is the best for this image.
    """
    rate = np.sort(q.rate, axis=None)[q.rate.size * 99 // 100]
    fraction = min(max(int(np.frexp(rate)[1]) + 1, _COARSEST), FRACTION)
    reach = np.max(np.abs(q.mean) + 4 / q.rate)
    return Bins(fraction + 1 + min(max(int(np.frexp(reach)[1]), 1), _WIDEST), fraction)
