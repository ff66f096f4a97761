"""Priors p(z).  Read after `latents.py`, whose `Composed` puts them to use; the formulas are in
`kernels/reference/priors.py`.

A prior makes log p(z) of every draw, and its derivative by z and by what it has learned.  Buffers:  a.z (B, K, Z);
a.log_p, d.log_p (B, K);  d.z_p (B, K, Z) takes dz.
"""
import re
from types import ModuleType
from typing import Any

import numpy as np

from .params import Array, Block, Shapes, Take
from .second_layer import SecondLayer, widths_in
from .validate import shown

_SPREAD = 0.3      # of the initial means of a mixture


class StandardNormal:
    """p(z) = N(0, I)."""

    recordable = True      # does nothing but call kernels; see `lanes.py`
    name = "normal"
    rows = 0
    noise = 0
    shapes: Shapes = {}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """It has no parameters."""

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """It needs none."""

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Before the encoder: it asks for no rows there."""

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """After the encoder's backward pass: it asked for no rows."""

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        kernels.standard_normal_forward(a.log_p, a.z)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        kernels.standard_normal_backward(d.z_p, d.log_p, a.z)

    def sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        """z (n, Z)."""
        return rng.standard_normal((n, vae.latent_dim))


class Mixture:
    """p(z) = sum_c pi_c N(z; mean_c, diag(exp(logvar_c))), all of it learned: "mixture:C", of C components.

    Parameters: prior.mean, prior.logvar (C, Z), and prior.logits (C,), of which pi is the softmax.
    """

    recordable = True      # does nothing but call kernels; see `lanes.py`
    rows = 0
    noise = 0
    mean, logvar, logits = "prior.mean", "prior.logvar", "prior.logits"

    def __init__(self, components: int, latent_dim: int) -> None:
        self.name, self.components = f"mixture:{components}", components
        self.shapes: Shapes = {self.mean: (components, latent_dim), self.logvar: (components, latent_dim),
                               self.logits: (components,)}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Equal weights, unit variances, and means that differ: equal components would get equal gradients for ever."""
        params[self.mean][...] = rng.normal(0, _SPREAD, params[self.mean].shape)
        params[self.logvar][...] = params[self.logits][...] = 0

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """What the kernels keep of each draw and of each component."""
        (B, K, Z), C = a.z.shape, self.components
        a.prior_weights = take("prior weights", B, K, C)
        a.prior_inverse, a.prior_peak = take("prior inverse", C, Z), take("prior peak", C)

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Before the encoder: it asks for no rows there."""

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """After the encoder's backward pass: it asked for no rows."""

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        kernels.mixture_forward(a.log_p, a.prior_weights, a.prior_inverse, a.prior_peak, a.z, params[self.mean],
                                params[self.logvar], params[self.logits])

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        kernels.mixture_backward(d.z_p, grads[self.mean], grads[self.logvar], grads[self.logits], d.log_p,
                                 a.prior_weights, a.prior_inverse, a.z, params[self.mean], params[self.logits])

    def sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        """z (n, Z): a component by its weight, then a draw from it."""
        mean, logvar, logits = (vae.parameters[name] for name in (self.mean, self.logvar, self.logits))
        pi = np.exp(logits.real - logits.real.max())
        return _draw(mean, logvar, rng.choice(self.components, n, p=pi / pi.sum()), rng)


class Vamp:
    """p(z) = 1/C sum_c q(z|u_c): "vamp:C", of C pseudo-inputs u, images that are learned (Tomczak and Welling 2018, VAE
    with a VampPrior, equation 9).  The prior nearest to what the encoder makes of all data, with few images for all.

    u = sigmoid(v) stays within [0, 1]; v (C, D) is the parameter prior.pseudo_inputs.  The u are rows of the encoder
    below the images of the batch, so its backward pass, one for all rows, adds up two paths to the encoder's weights:
    from q(z|x) of the images, and from q(z|u) in log p(z).  u then gets its gradient as any layer's input does.
    """

    recordable = True      # does nothing but call kernels; see `lanes.py`
    noise = 0
    v = "prior.pseudo_inputs"

    def __init__(self, components: int, input_dim: int) -> None:
        self.name, self.components, self.rows = f"vamp:{components}", components, components
        self.shapes: Shapes = {self.v: (components, input_dim)}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Dark noise: sigmoid(-3) = 0.05, where the paper's program starts too, with differences from the first step
        on.  Images of the training set do no better (784-200-20, C = 100, 20 epochs of 20,000 images: 103.5 nats from
        either)."""
        params[self.v][...] = rng.normal(-3, 1, params[self.v].shape)

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """Those of the kernels; equal weights pi and no bias, which stay 0; and the gradient of u."""
        (B, K, Z), D, C = a.z.shape, a.x.shape[1], self.components
        a.prior_weights = take("prior weights", B, K, C)
        a.prior_inverse, a.prior_peak = take("prior inverse", C, Z), take("prior peak", C)
        a.prior_logits, d.prior_logits = take("prior logits", C), take("dprior logits", C)
        a.prior_bias, d.prior_bias = take("prior bias", D), take("dprior bias", D)
        d.u, d.u_mu, d.u_logvar = take("du", C, D), take("du by mu", C, D), take("du by logvar", C, D)

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        kernels.sigmoid_forward(a.encoder[0][len(a.x):], params[self.v], a.prior_bias)

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """du = dpre W^T of the layer that reads u, for its rows alone: the images need no gradient.

            du = J_mu^T dmu + J_logvar^T dlogvar,   dv = du u (1 - u)                  (D13.9)

        with the Jacobians of the encoder's heads at u, which nobody has to make.
        """
        below = slice(len(a.x), None)
        if a.encoder_pre:
            kernels.matmul(d.u, d.encoder_pre[0][below], params["encoder.0.W"].T)
        else:      # no hidden layer: both heads read u itself
            kernels.matmul(d.u_mu, d.mu_pre[below], params["mu.W"].T)
            kernels.matmul(d.u_logvar, d.logvar_pre[below], params["logvar.W"].T)
            kernels.add(d.u, d.u_mu, d.u_logvar)
        kernels.sigmoid_backward(grads[self.v], d.prior_bias, d.u, a.encoder[0][below])

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        below = slice(len(a.x), None)
        kernels.mixture_forward(a.log_p, a.prior_weights, a.prior_inverse, a.prior_peak, a.z, a.mu[below],
                                a.logvar[below], a.prior_logits)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        below = slice(len(a.x), None)
        kernels.mixture_backward(d.z_p, d.mu[below], d.logvar[below], d.prior_logits, d.log_p, a.prior_weights,
                                 a.prior_inverse, a.z, a.mu[below], a.prior_logits)

    def check_training(self, name: str, x: Array, scale: float) -> None:
        """Raises ValueError for training images scale * x outside [0, 1]: no u is like them."""
        low, high = scale * x.min(), scale * x.max()
        if low < 0 or high > 1:
            raise ValueError(f"{name} must lie in [0, 1] for prior {self.name}, whose pseudo-inputs do, found values "
                             f"from {low:g} to {high:g}: prior mixture:{self.components} fits")

    def pseudo_inputs(self, vae: Any) -> tuple[Array, Array, Array]:
        """u (C, D), and mu and logvar (C, Z) of q(z|u)."""
        a, _ = vae.passes(1, 1)
        vae._encode(a.x, a.labels, a)      # whatever image is there goes along, unused
        return a.encoder[0][1:].copy(), a.mu[1:].copy(), a.logvar[1:].copy()

    def sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        """z (n, Z): a pseudo-input, each as likely as any other, then a draw from its q(z|u)."""
        _, mu, logvar = self.pseudo_inputs(vae)
        return _draw(mu, logvar, rng.integers(self.components, size=n), rng)


def _draw(mean: Array, logvar: Array, chosen: Array, rng: np.random.Generator) -> Array:
    """z (n, Z), one from each of the chosen components (n,)."""
    return mean[chosen] + np.exp(0.5 * logvar[chosen]) * rng.standard_normal((len(chosen), mean.shape[1]))


Prior = Any      # StandardNormal, or a class with the same methods


def find(prior: str, input_dim: int, latent_dim: int, activation: str, posterior: str = "gaussian",
         classes: int = 0) -> Prior:
    """The prior of that name, beside a posterior and so many classes.  Raises ValueError with the known names, or with
    those that fit."""
    name = prior if isinstance(prior, str) else ""
    if name == "normal":
        return StandardNormal()
    if components := re.fullmatch("mixture:([1-9][0-9]*)", name):
        return Mixture(int(components[1]), latent_dim)
    if components := re.fullmatch("vamp:([1-9][0-9]*)", name):
        if classes:
            raise ValueError(f"prior {prior} encodes pseudo-inputs, which have no labels, and this model has {classes} "
                             f"classes: prior mixture:{components[1]} fits")
        if posterior != "gaussian":
            raise ValueError(f"prior {prior} is made of Gaussians q(z|u), and posterior {posterior} is none: posterior "
                             f"gaussian fits, or prior mixture:{components[1]}")
        return Vamp(int(components[1]), input_dim)
    if name.startswith("hierarchical"):
        return SecondLayer(latent_dim, widths_in(name), activation)
    raise ValueError("prior must be normal, mixture:C or vamp:C with C components, such as vamp:500, or hierarchical: "
                     f"with the widths of a second layer, such as hierarchical:100,50, got {shown(prior)}")
