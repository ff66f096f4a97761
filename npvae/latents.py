"""The latent variable: q(z|x) = N(mu, diag(exp(logvar))) against p(z) = N(0, I).  Read after `likelihoods.py`; the
formulas are in `kernels/reference/latents.py`.

Two forms of the KL term, for two kinds of objective:

    analytic    kl[b, j], summed over nothing: KL per image and latent dimension, exact           (B, Z)
    sampled     log q(z|x) - log p(z) at the drawn z, per image and draw                         (B, K)

A richer q(z|x) or p(z) is put together by `Composed`, of a flow (`flows.py`) and a prior (`priors.py`).

The sampled form has three backward passes, and `sampled` says which: True is the derivative of the loss, "stl" and
"dreg" are estimates of its mean with less noise (`kernels/reference/estimators.py`).
"""
from types import ModuleType
from typing import Any

import numpy as np

from .flows import Flow, NoFlow
from .params import Array, Block, Shapes, Take
from .priors import Prior, StandardNormal

ESTIMATORS = ("stl", "dreg")


class DiagonalGaussian:
    """Draws z and measures the KL term, forward and backward.  `a` holds the values of a pass, `d` their gradients.

    Here the methods that only say why they do nothing are what `Composed` needs.

    analytic : the KL term is known in closed form
    gaussian : q(z|x) is N(mu, sigma^2) itself, whose derivative by z the `ESTIMATORS` need
    rows : how many rows the encoder is given below the images of a batch
    noise : how many standard normal numbers a draw takes beside the Z of z itself
    """

    recordable = True      # does nothing but call kernels; see `lanes.py`
    parts: tuple[Any, ...] = ()      # that call kernels for it
    analytic = True
    gaussian = True
    rows = 0
    noise = 0
    shapes: Shapes = {}

    def forward(self, kernels: ModuleType, a: Any, params: Block, sampled: bool | str) -> None:
        kernels.reparameterize_forward(a.z, a.mu, a.logvar, a.eps)
        if sampled:
            kernels.log_ratio_forward(a.log_ratio, a.z, a.logvar, a.eps)
        else:
            kernels.gaussian_kl_forward(a.kl, a.mu, a.logvar)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block, sampled: bool | str) -> None:
        """From d.z_nll, what the decoder says, and d.log_ratio or d.kl, what the objective says: d.mu and d.logvar.

        Two paths meet: through z, marked _z, and through the KL term, marked _kl.

            dz      = dz_nll, and where the KL term is sampled dz_nll + dz_kl          (D7.5)
            dmu     = dmu_z + dmu_kl,   dlogvar = dlogvar_z + dlogvar_kl               (D7.6)

        (If sampled, dz brings the KL term's part along, and there is no direct path to mu.)
        """
        if sampled in ESTIMATORS:
            kernels.path_ratio_backward(d.z_kl, d.log_ratio, a.z, a.logvar, a.eps)
            self._path_backward(kernels, d, a, sampled)
            return
        if sampled:
            kernels.log_ratio_backward(d.z_kl, d.logvar_kl, d.log_ratio, a.z)
            kernels.add(d.z, d.z_nll, d.z_kl)
            kernels.reparameterize_backward(d.mu, d.logvar_z, d.z, a.logvar, a.eps)
        else:
            kernels.reparameterize_backward(d.mu_z, d.logvar_z, d.z_nll, a.logvar, a.eps)
            kernels.gaussian_kl_backward(d.mu_kl, d.logvar_kl, d.kl, a.mu, a.logvar)
            kernels.add(d.mu, d.mu_z, d.mu_kl)
        kernels.add(d.logvar, d.logvar_z, d.logvar_kl)

    def _path_backward(self, kernels: ModuleType, d: Any, a: Any, sampled: bool | str) -> None:
        """From d.z_nll and d.z_kl to d.mu and d.logvar: the path through z is the only one."""
        images = slice(len(a.eps))
        kernels.add(d.z, d.z_nll, d.z_kl)
        dz = d.z
        if sampled == "dreg":
            kernels.scale_draws(d.z_scaled, d.z, d.nll, d.log_ratio)
            dz = d.z_scaled
        kernels.reparameterize_backward(d.mu[images], d.logvar[images], dz, a.logvar[images], a.eps)

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """It has no parameters of its own."""

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """Those of `buffers.py` are enough."""

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Before the encoder: there are no rows to fill."""

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """After the encoder's backward pass: no row has a gradient to hand on."""

    def join(self, kernels: ModuleType, d: Any) -> None:
        """To d.h, what the heads say of the encoder's output, no path is added: d.h is d.encoder[-1]."""

    def check_training(self, name: str, x: Array, scale: float) -> None:
        """Raises ValueError, which names the training images scale * x, for those that the prior cannot follow."""

    def prior_sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        """z ~ p(z), (n, Z)."""
        return rng.standard_normal((n, vae.latent_dim))

    def posterior_sample(self, mu: Array, logvar: Array, rng: np.random.Generator, vae: Any, x: Array,
                         labels: Array | None) -> Array:
        """z ~ q(z|x), one for each row of mu and logvar (B, Z), the encodings of x (B, D)."""
        return self.centre(mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape), vae, x, labels)

    def centre(self, mu: Array, vae: Any, x: Array, labels: Array | None) -> Array:
        """z without noise (B, Z), for images x (B, D) of which mu (B, Z) is the encoding, or any z0 in its place."""
        return mu


class Composed(DiagonalGaussian):
    """z0 = mu + sigma eps,  z = flow(z0),  and any prior.  The KL term is sampled:

        log q(z|x) - log p(z) = log q0(z0|x) - log |det dz/dz0| - log p(z)

    (Rezende and Mohamed 2015, equation 13).  Rows of the encoder below the images belong to the prior.
    """

    recordable = True
    analytic = False

    def __init__(self, flow: Flow, prior: Prior) -> None:
        self.flow, self.prior = flow, prior
        self.parts = flow, prior
        self.rows, self.gaussian = prior.rows, type(flow) is NoFlow
        self.noise = prior.noise
        self.shapes = {**flow.shapes, **prior.shapes}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        self.flow.initialize(params, rng)
        self.prior.initialize(params, rng)

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        B, K, Z = a.eps.shape
        for one, mark in ((a, ""), (d, "d")):
            one.log_q, one.log_det, one.log_p = (take(f"{mark}log {name}", B, K) for name in ("q", "det", "p"))
        a.log_q_z = take("log q(z|x)", B, K)
        d.z_p, d.z_q = take("dz by prior", B, K, Z), take("dz by log q", B, K, Z)
        self.flow.add_buffers(a, d, take)
        self.prior.add_buffers(a, d, take)

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        self.prior.before(kernels, a, params)

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        self.prior.after(kernels, d, a, grads, params)

    def join(self, kernels: ModuleType, d: Any) -> None:
        self.flow.join(kernels, d)

    def forward(self, kernels: ModuleType, a: Any, params: Block, sampled: bool | str) -> None:
        """At the draws:

            log_ratio = log q(z|x) - log p(z)                                          (D13.3)
            log q(z|x) = log q0(z0|x) - log_det                                        (D14.1)
        """
        images = slice(len(a.eps))
        kernels.reparameterize_forward(a.z0, a.mu[images], a.logvar[images], a.eps)
        kernels.log_q_forward(a.log_q, a.logvar[images], a.eps)
        self.flow.forward(kernels, a, params)
        self.prior.forward(kernels, a, params)
        kernels.subtract(a.log_q_z, a.log_q, a.log_det)
        kernels.subtract(a.log_ratio, a.log_q_z, a.log_p)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block, sampled: bool | str) -> None:
        images = slice(len(a.eps))
        kernels.negate(d.log_p, d.log_ratio)
        self.prior.backward(kernels, d, a, grads, params)
        if sampled in ESTIMATORS:
            kernels.path_q_backward(d.z_q, d.log_ratio, a.logvar[images], a.eps)
            kernels.add(d.z_kl, d.z_p, d.z_q)
            self._path_backward(kernels, d, a, sampled)
            return
        kernels.add(d.z, d.z_nll, d.z_p)      # the decoder and the prior both look at z
        kernels.negate(d.log_det, d.log_ratio)
        self.flow.backward(kernels, d, a, grads, params)
        kernels.log_q_backward(d.logvar_kl, d.log_ratio)
        kernels.reparameterize_backward(d.mu[images], d.logvar_z, d.z0, a.logvar[images], a.eps)
        kernels.add(d.logvar[images], d.logvar_z, d.logvar_kl)

    def check_training(self, name: str, x: Array, scale: float) -> None:
        if hasattr(self.prior, "check_training"):
            self.prior.check_training(name, x, scale)

    def prior_sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        return self.prior.sample(n, rng, vae)

    def centre(self, mu: Array, vae: Any, x: Array, labels: Array | None) -> Array:
        return self.flow.transform(mu, vae, x, labels)


def compose(flow: Flow, prior: Prior) -> DiagonalGaussian:
    """The plain latent variable where that is enough: its KL term is exact."""
    if type(flow) is NoFlow and type(prior) is StandardNormal:
        return DiagonalGaussian()
    return Composed(flow, prior)
