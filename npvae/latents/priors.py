"""Priors p(z).  Read after `base.py`; the formulas are in `kernels/reference/priors.py`."""
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..buffers import Activations, Gradients
from ..kernels.reference.dense import sigmoid
from ..layers import Activation
from ..params import Allocate, Array, Block, Shapes
from ..validate import one_of, shown
from .base import Encode, Prior
from .second_layer import SecondLayer, widths_in

_SPREAD = 0.3      # standard deviation of the initial means of a mixture


class StandardNormal(Prior[None]):
    """p(z) = N(0, I)."""

    recordable = True
    name = "normal"

    def forward(self, kernels: ModuleType, a: Activations, own: None, params: Block) -> None:
        kernels.standard_normal_forward(a.log_p, a.z)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: None, grads: Block, params: Block
                 ) -> None:
        kernels.standard_normal_backward(d.z_p, d.log_p, a.z)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator, params: Block, encode: Encode) -> Array:
        """z (n, Z)."""
        return rng.standard_normal(shape)


@dataclass(eq=False, repr=False)
class MixtureBuffers:
    """What the kernels keep for the backward pass, of each draw and of each of the C components."""

    weights: Array     # (B, K, C)
    inverse: Array     # (C, Z)
    peak: Array        # (C,)


class Mixture(Prior[MixtureBuffers]):
    """p(z) = sum_c pi_c N(z; mean_c, diag(exp(logvar_c))), "mixture:C" with C components, all of it learned.

    Parameters: prior.mean, prior.logvar (C, Z), and prior.logits (C,), with pi = softmax(logits).
    """

    recordable = True
    mean, logvar, logits = "prior.mean", "prior.logvar", "prior.logits"

    def __init__(self, components: int, latent_dim: int) -> None:
        self.name, self.components = f"mixture:{components}", components
        self.shapes: Shapes = {self.mean: (components, latent_dim), self.logvar: (components, latent_dim),
                               self.logits: (components,)}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Equal weights, unit variances, and different means: equal components would have equal gradients forever."""
        params[self.mean][...] = rng.normal(0, _SPREAD, params[self.mean].shape)
        params[self.logvar][...] = params[self.logits][...] = 0

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> MixtureBuffers:
        (B, K, Z), C = a.z.shape, self.components
        return MixtureBuffers(weights=allocate("prior weights", B, K, C), inverse=allocate("prior inverse", C, Z),
                              peak=allocate("prior peak", C))

    def forward(self, kernels: ModuleType, a: Activations, own: MixtureBuffers, params: Block) -> None:
        kernels.mixture_forward(a.log_p, own.weights, own.inverse, own.peak, a.z, params[self.mean],
                                params[self.logvar], params[self.logits])

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: MixtureBuffers, grads: Block,
                 params: Block) -> None:
        kernels.mixture_backward(d.z_p, grads[self.mean], grads[self.logvar], grads[self.logits], d.log_p,
                                 own.weights, own.inverse, a.z, params[self.mean], params[self.logits])

    def sample(self, shape: tuple[int, int], rng: np.random.Generator, params: Block, encode: Encode) -> Array:
        """z (n, Z): choose a component by its weight, then draw from it."""
        logits = params[self.logits].real
        pi = np.exp(logits - logits.max())
        chosen = rng.choice(self.components, shape[0], p=pi / pi.sum())
        return _draw(params[self.mean], params[self.logvar], chosen, rng)


@dataclass(eq=False, repr=False)
class VampBuffers(MixtureBuffers):
    """Those of the mixture; constant zeros for the logits (equal weights pi) and for a bias; their gradients, which are
    unused."""

    logits: Array      # (C,)
    dlogits: Array     # (C,)
    bias: Array        # (D,)
    dbias: Array       # (D,)


class Vamp(Prior[VampBuffers]):
    """The VampPrior, p(z) = 1/C sum_c q(z|u_c), "vamp:C": the u_c are C learned images, called pseudo-inputs.

    It approximates the aggregate posterior, the mean of q(z|x) over all data, by C images (Tomczak and Welling 2018,
    equation 9).  u = sigmoid(v) lies within [0, 1]; v (C, D) is the parameter prior.pseudo_inputs.

    The u are rows of the encoder's input, below the images of the batch.  So one backward pass of the encoder, over all
    rows, adds up both paths to its weights: from q(z|x) of the images, and from q(z|u) in log p(z).  The gradient on u
    is that on the input of any layer.
    """

    recordable = True
    in_unit_interval = True
    v = "prior.pseudo_inputs"

    def __init__(self, components: int, input_dim: int) -> None:
        self.name, self.components, self.rows = f"vamp:{components}", components, components
        self.shapes: Shapes = {self.v: (components, input_dim)}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Dark noise: sigmoid(-3) = 0.05, as in the paper's program, with random differences between the pseudo-inputs.
        Starting from training images is no better (784-200-20, C = 100, 20 epochs of 20,000 images: 103.5 nats from
        either)."""
        params[self.v][...] = rng.normal(-3, 1, params[self.v].shape)

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> VampBuffers:
        (B, K, Z), D, C = a.z.shape, a.inputs.shape[1], self.components
        return VampBuffers(weights=allocate("prior weights", B, K, C), inverse=allocate("prior inverse", C, Z),
                           peak=allocate("prior peak", C), logits=allocate("prior logits", C),
                           dlogits=allocate("dprior logits", C), bias=allocate("prior bias", D),
                           dbias=allocate("dprior bias", D))

    def fill_rows(self, kernels: ModuleType, rows: Array, own: VampBuffers, params: Block) -> None:
        """u = sigmoid(v)."""
        kernels.sigmoid_forward(rows, params[self.v], own.bias)

    def rows_backward(self, kernels: ModuleType, drows: Array, rows: Array, own: VampBuffers, grads: Block,
                      params: Block) -> None:
        """    du = J_mu^T dmu + J_logvar^T dlogvar,   dv = du u (1 - u)                  (D13.9)

        with J the Jacobians of mu and logvar at u.  They are never built: the encoder's backward pass gives du,
        `drows`.
        """
        kernels.sigmoid_backward(grads[self.v], own.dbias, drows, rows)

    def forward(self, kernels: ModuleType, a: Activations, own: VampBuffers, params: Block) -> None:
        below = slice(len(a.x), None)
        kernels.mixture_forward(a.log_p, own.weights, own.inverse, own.peak, a.z, a.mu[below], a.logvar[below],
                                own.logits)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: VampBuffers, grads: Block, params: Block
                 ) -> None:
        below = slice(len(a.x), None)
        kernels.mixture_backward(d.z_p, d.mu[below], d.logvar[below], own.dlogits, d.log_p, own.weights, own.inverse,
                                 a.z, a.mu[below], own.logits)

    def pseudo_inputs(self, params: Block) -> Array:
        """u (C, D)."""
        return sigmoid(params[self.v])

    def sample(self, shape: tuple[int, int], rng: np.random.Generator, params: Block, encode: Encode) -> Array:
        """z (n, Z): choose a pseudo-input u, each equally likely, then draw from its q(z|u)."""
        mu, logvar = encode(self.pseudo_inputs(params))
        return _draw(mu, logvar, rng.integers(self.components, size=shape[0]), rng)


def _draw(mean: Array, logvar: Array, chosen: Array, rng: np.random.Generator) -> Array:
    """z (n, Z), one draw from each of the chosen components (n,)."""
    return mean[chosen] + np.exp(0.5 * logvar[chosen]) * rng.standard_normal((len(chosen), mean.shape[1]))


#: as the command line writes them, and what they mean
PRIORS = {
    "normal": "N(0, I)",
    "mixture:C": "C Gaussians, as in mixture:50",
    "vamp:C": "the q(z|u) of C learned images u, as in vamp:500",
    "hierarchical:H,...,Y": "a second stochastic layer of Y numbers, behind hidden layers of H units each, as in "
                            "hierarchical:100,50"}


def make_prior(prior: str | Prior[Any], input_dim: int, latent_dim: int, activation: str | Activation) -> Prior[Any]:
    """The prior of that name, or the object itself.  Raises ValueError, with the known names."""
    if isinstance(prior, Prior):
        return prior
    name = prior if isinstance(prior, str) else ""
    if name == "normal":
        return StandardNormal()
    if components := re.fullmatch("mixture:([1-9][0-9]*)", name):
        return Mixture(int(components[1]), latent_dim)
    if components := re.fullmatch("vamp:([1-9][0-9]*)", name):
        return Vamp(int(components[1]), input_dim)
    if name.startswith("hierarchical"):
        return SecondLayer(latent_dim, widths_in(name), activation)
    raise ValueError(f"prior must be {one_of(PRIORS)}, or an object of class Prior, got {shown(prior)}")


def check_beside(prior: Prior[Any], posterior: str, classes: int) -> None:
    """Raises ValueError if the prior adds rows to the encoder's input and the rest of the model does not admit them:
    such rows have no labels, and their q(z|u) must be Gaussian."""
    if prior.rows and classes:
        raise ValueError(f"prior {prior.name} encodes pseudo-inputs, which have no labels, and this model has "
                         f"{classes} classes: use prior mixture:{prior.rows}")
    if prior.rows and posterior != "gaussian":
        raise ValueError(f"prior {prior.name} is a mixture of Gaussians q(z|u), and posterior {posterior} is not "
                         f"Gaussian: use posterior gaussian, or prior mixture:{prior.rows}")
