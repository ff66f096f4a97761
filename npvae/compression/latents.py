"""Latent variables in bins: Gaussians, and every prior, as symbols for the stack.  Read after `coder.py`.

    bin k is  z = (k - 2^(depth - 1)) delta,   delta = 2^-fraction,   k = 0 ... 2^depth - 1

and a Gaussian gives it the probability of its interval, from half a delta below z to half a delta above it.  The outer
bins also get the tails.

A prior with a hidden variable, the component of a mixture or the second layer's z2, has no such probability in closed
form.  It is coded as x itself is, by bits back: pop the hidden variable given z, push z given it, and push it.
"""
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from ..latents.base import Prior
from ..latents.priors import Mixture, StandardNormal, Vamp
from ..latents.second_layer import SecondLayer
from ..params import Array, Block
from . import exact
from .coder import Below, Symbols, table
from .network import Network

_MOST_LOGVAR = 40.0


class Gaussian(NamedTuple):
    """Independent Gaussians of any shape: their means and 1 / sigma."""

    mean: Array
    rate: Array

    @classmethod
    def of(cls, mean: Array, logvar: Array) -> "Gaussian":
        """From mean and log sigma^2."""
        return cls(mean, exact.exp(-0.5 * np.minimum(np.maximum(logvar, -_MOST_LOGVAR), _MOST_LOGVAR)))


STANDARD = Gaussian(np.zeros(()), np.ones(()))


class Bins(NamedTuple):
    """The bins of each latent variable: their number 2^depth, and their width 2^-fraction."""

    depth: int
    fraction: int

    def z(self, k: Array) -> Array:
        """The middle of bin k."""
        z: Array = (k - 2 ** (self.depth - 1)) * 2.0 ** -self.fraction
        return z

    def nearest(self, z: Array) -> Array:
        """The bin of z."""
        k = np.rint(z * 2.0 ** self.fraction) + 2 ** (self.depth - 1)
        nearest: Array = np.minimum(np.maximum(k, 0), 2 ** self.depth - 1).astype(np.int64)
        return nearest

    def below(self, q: Gaussian) -> Below:
        """P(bin < k) of a Gaussian:

            P(bin = k) = Phi((z_k + delta/2 - mean) / sigma) - Phi((z_k - delta/2 - mean) / sigma)        (D17.3)
        """
        return lambda k: exact.normal_below((self.z(k - 0.5) - q.mean) * q.rate)

    def need(self, q: Gaussian) -> Array:
        """More bits than popping each of these Gaussians takes in the mean, its entropy, where sigma > delta:

            H = log2(sigma / delta) + log2(2 pi e) / 2 = log2(sigma / delta) + 2.05              (D17.5)
        """
        need: Array = np.maximum(self.fraction - exact.log(q.rate) * exact.LOG2_E, 0) + 3
        return need

    def push(self, stack: Symbols, k: Array, q: Gaussian) -> None:
        """Push bins under q."""
        stack.push(k, self.depth, self.below(q))

    def pop(self, stack: Symbols, shape: tuple[int, ...], q: Gaussian) -> Array:
        """Pop bins under q: they are draws from it."""
        return stack.pop(shape, self.depth, self.below(q))


class CodedPrior(ABC):
    """p(z) for the stack.

    need : bits that its hidden variable takes from the stack, for each image, at most in the mean
    """

    need = 0.0

    @abstractmethod
    def push(self, stack: Symbols, k: Array, back: bool) -> None:
        """Push z of bins k (B, Z).  Its hidden variable is popped, or, if not `back`, chosen, as the stack is empty."""

    @abstractmethod
    def pop(self, stack: Symbols, batch: int, back: bool) -> Array:
        """Pop bins k (batch, Z), and push the hidden variable back."""


class CodedNormal(CodedPrior):
    """N(0, I)."""

    def __init__(self, bins: Bins, latent_dim: int) -> None:
        self.bins, self.Z = bins, latent_dim

    def push(self, stack: Symbols, k: Array, back: bool) -> None:
        self.bins.push(stack, k, STANDARD)

    def pop(self, stack: Symbols, batch: int, back: bool) -> Array:
        return self.bins.pop(stack, (batch, self.Z), STANDARD)


class CodedMixture(CodedPrior):
    """A mixture of Gaussians, whose hidden variable is the component c.

    Parameters
    ----------
    q : the C components, (C, Z)
    weights : pi (C,), up to a factor
    """

    def __init__(self, bins: Bins, q: Gaussian, weights: Array) -> None:
        self.bins, self.q = bins, q
        self.weights = table(weights)
        log_peak = exact.log(weights)
        for j in range(q.mean.shape[1]):
            log_peak = log_peak + exact.log(q.rate[:, j])
        self._log_peak, self.need = log_peak, float(self.weights[0])

    def given(self, k: Array) -> Array:
        """P(c|z) (B, C), up to a factor, for z of bins k (B, Z)."""
        log_joint = np.zeros((len(k), 1)) + self._log_peak
        for j, z in enumerate(self.bins.z(k).T):
            r = (z[:, None] - self.q.mean[:, j]) * self.q.rate[:, j]
            log_joint -= 0.5 * (r * r)
        return exact.exp(log_joint - np.max(log_joint, axis=1, keepdims=True))

    def _component(self, c: Array) -> Gaussian:
        """That of each row, (B, Z).  A damaged file may name one that there is not."""
        c = np.minimum(c, len(self.q.mean) - 1)
        return Gaussian(self.q.mean[c], self.q.rate[c])

    def push(self, stack: Symbols, k: Array, back: bool) -> None:
        """Whichever c is popped, the stack grows by the same bits:

            log2(1/P(z|c)) + log2(1/pi_c) - log2(1/P(c|z)) = log2(1/P(z)),   P(c|z) = pi_c P(z|c) / P(z)      (D17.6)

        Here P(c|z) is computed from the densities at z, which differs a little.
        """
        given = self.given(k)
        c = stack.pop((len(k),), *table(given)) if back else np.argmax(given, axis=1)
        self.bins.push(stack, k, self._component(c))
        stack.push(c, *self.weights)

    def pop(self, stack: Symbols, batch: int, back: bool) -> Array:
        c = stack.pop((batch,), *self.weights)
        k = self.bins.pop(stack, (batch, self.q.mean.shape[1]), self._component(c))
        if back:
            stack.push(c, *table(self.given(k)))
        return k


class CodedSecondLayer(CodedPrior):
    """A second stochastic layer.  Its hidden variable is z2, of which q(z2|z) takes the place of P(c|z)."""

    def __init__(self, bins: Bins, prior: SecondLayer, params: Block) -> None:
        self.bins, self.Y, self.Z = bins, prior.noise, prior.shapes[prior.prior_mu.b][0]
        self._up = Network(prior.encoder, [prior.mu, prior.logvar], params)
        self._down = Network(prior.decoder, [prior.prior_mu, prior.prior_logvar], params)
        self.need = self.Y * (bins.fraction + 3.0)

    def _hidden(self, k: Array) -> Gaussian:
        """q(z2|z)."""
        return Gaussian.of(*self._up(self.bins.z(k)))

    def _given(self, k2: Array) -> Gaussian:
        """p(z|z2)."""
        return Gaussian.of(*self._down(self.bins.z(k2)))

    def push(self, stack: Symbols, k: Array, back: bool) -> None:
        q = self._hidden(k)
        k2 = self.bins.pop(stack, q.mean.shape, q) if back else self.bins.nearest(q.mean)
        self.bins.push(stack, k, self._given(k2))
        self.bins.push(stack, k2, STANDARD)

    def pop(self, stack: Symbols, batch: int, back: bool) -> Array:
        k2 = self.bins.pop(stack, (batch, self.Y), STANDARD)
        k = self.bins.pop(stack, (batch, self.Z), self._given(k2))
        if back:
            self.bins.push(stack, k2, self._hidden(k))
        return k


def coded_prior(prior: Prior[Any], bins: Bins, latent_dim: int, encoder: Network, params: Block) -> CodedPrior:
    """The prior for the stack.  Raises ValueError for one that is not known here."""
    if type(prior) is StandardNormal:
        return CodedNormal(bins, latent_dim)
    if type(prior) is Mixture:
        logits = params[prior.logits].astype(np.float64)
        q = Gaussian.of(params[prior.mean].astype(np.float64), params[prior.logvar].astype(np.float64))
        return CodedMixture(bins, q, exact.exp(logits - np.max(logits)))
    if type(prior) is Vamp:
        u = exact.sigmoid(params[prior.v].astype(np.float64))
        return CodedMixture(bins, Gaussian.of(*encoder(u)), np.ones(prior.components))
    if type(prior) is SecondLayer:
        return CodedSecondLayer(bins, prior, params)
    raise ValueError(f"prior {prior.name} cannot be compressed with; normal, mixture, vamp and hierarchical can")
