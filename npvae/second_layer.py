"""A second stochastic layer above z: the prior of a VAE that is a VAE itself.  Read after `priors.py`.

    up      z = h1 -> encoder2 -> mu2, logvar2 -> z2 = h2 = mu2 + exp(logvar2 / 2) eps2            q(h2|h1)
    down    z2 -> decoder2 -> prior_mu, prior_logvar -> log N(z; prior_mu, exp(prior_logvar))      p(h1|h2)
    on top  p(h2) = N(0, I)

h1 and h2 are the names of the IWAE paper (Burda, Grosse and Salakhutdinov 2016, equations 1 and 2); here they are z,
which the model's own encoder draws and its decoder sees, and z2, one for each z.  As log p(z) the layer hands on

    log_p = log p(z|z2) + log p(z2) - log q(z2|z)

one draw, of which exp(log_p) averages to the true p(z) = integral of p(z|z2) p(z2).  So w = p(x|z) exp(log_p) / q(z|x)
averages to p(x), and ELBO and IWAE, handed  log_ratio = log q(z|x) - log_p,  are those of the whole model.

Shapes:  R = B K rows, a row for each draw of z;  Y the width of z2.
"""
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .layers import MLP, Dense
from .params import Array, Block, Take


def widths_in(name: str) -> tuple[int, ...]:
    """The widths in "hierarchical:100,100,50".  Raises ValueError."""
    if not re.fullmatch("hierarchical:[1-9][0-9]*(,[1-9][0-9]*)*", name):
        raise ValueError("prior hierarchical needs the widths of its hidden layers, if any, and of what they draw, as "
                         f"hierarchical:100,100,50, got {name!r}")
    return tuple(map(int, name.partition(":")[2].split(",")))


class SecondLayer:
    """q(z2|z) and p(z|z2) = Gaussians of diagonal covariance, each from hidden layers and two linear heads.

    latent_dim : Z, of the layer below
    widths : of the hidden layers on the way up, then Y; the way down mirrors them
    activation : of the hidden layers

    The noise of z2 is `a.eps_prior` (B, K, Y).  Images' labels, if there are any, stay below.
    """

    recordable = True      # does nothing but call kernels; see `lanes.py`
    rows = 0

    def __init__(self, latent_dim: int, widths: Sequence[int], activation: str) -> None:
        *self.hidden, self.noise = widths
        self.name = "hierarchical:" + ",".join(map(str, widths))
        self.encoder = MLP("encoder2", latent_dim, self.hidden, activation)
        self.mu = Dense("mu2", self.encoder.n_out, self.noise, "identity")
        self.logvar = Dense("logvar2", self.encoder.n_out, self.noise, "identity")
        self.decoder = MLP("decoder2", self.noise, self.hidden[::-1], activation)
        self.prior_mu = Dense("prior_mu", self.decoder.n_out, latent_dim, "identity")
        self.prior_logvar = Dense("prior_logvar", self.decoder.n_out, latent_dim, "identity")
        self._layers = [*self.encoder.layers, self.mu, self.logvar,
                        *self.decoder.layers, self.prior_mu, self.prior_logvar]
        self.shapes = {name: shape for layer in self._layers for name, shape in layer.shapes.items()}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        for layer, stream in zip(self._layers, rng.spawn(len(self._layers))):
            layer.initialize(params, stream)

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """Rows of numbers (R, .), and z2 also as (R, 1, Y): one draw for each row, for the kernels of `latents`."""
        B, K, Z = a.z.shape
        R, Y = B * K, self.noise
        for one, mark in ((a, ""), (d, "d")):
            one.z2, one.mu2, one.logvar2 = take(f"{mark}z2", R, 1, Y), take(f"{mark}mu2", R, Y), take(
                f"{mark}logvar2", R, Y)
            one.prior_mu, one.prior_logvar = take(f"{mark}prior_mu", R, Z), take(f"{mark}prior_logvar", R, Z)
            one.log_ratio2, one.log_p_rows = take(f"{mark}log_ratio2", R, 1), one.log_p.reshape(R)
            one.mu2_pre, one.logvar2_pre = take("mu2 pre", R, Y), take("logvar2 pre", R, Y)
            one.prior_mu_pre, one.prior_logvar_pre = take("prior_mu pre", R, Z), take("prior_logvar pre", R, Z)
            one.encoder2_pre = [take(f"encoder2.{i} pre", R, H) for i, H in enumerate(self.hidden)]
            one.decoder2_pre = [take(f"decoder2.{i} pre", R, H) for i, H in enumerate(self.hidden[::-1])]
            one.encoder2 = [take(f"{mark}encoder2.{i}", R, H) for i, H in enumerate(self.hidden)]
            one.decoder2 = [take(f"{mark}decoder2.{i}", R, H) for i, H in enumerate(self.hidden[::-1])]
        a.log_p_z, a.eps2 = take("log p(z|z2)", R), a.eps_prior.reshape(R, 1, Y)
        d.z2_p, d.z2_kl, d.logvar2_z, d.logvar2_kl = (take("dz2 by p(z|z2)", R, 1, Y), take("dz2 by kl", R, 1, Y),
                                                      take("dlogvar2 by z2", R, Y), take("dlogvar2 by kl", R, Y))
        d.z_p_rows, d.z_down, d.z_up = d.z_p.reshape(R, Z), take("dz by p(z|z2)", R, Z), take("dz by q(z2|z)", R, Z)
        for one, z, z2 in ((a, a.z_rows, a.z2), (d, d.z_up, d.z2_p)):
            one.encoder2, one.decoder2 = [z, *one.encoder2], [z2.reshape(R, Y), *one.decoder2]
        d.h2_mu, d.h2_logvar = (take(f"dencoder2 by {head}", *d.encoder2[-1].shape) for head in ("mu2", "logvar2"))
        d.g2_mu, d.g2_logvar = (take(f"ddecoder2 by {head}", *d.decoder2[-1].shape) for head in ("mu", "logvar"))

    def before(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Before the encoder: it asks for no rows there."""

    def after(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """After the encoder's backward pass: it asked for no rows."""

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """From a.z and a.eps_prior to a.log_p (B, K): up to z2, and down again.

            log_p = log p(z|z2) - [ log q(z2|z) - log p(z2) ]                          (D13.10)
        """
        self.encoder.forward(kernels, a.encoder2, a.encoder2_pre, params)
        self.mu.forward(kernels, a.mu2, a.mu2_pre, a.encoder2[-1], params)
        self.logvar.forward(kernels, a.logvar2, a.logvar2_pre, a.encoder2[-1], params)
        kernels.reparameterize_forward(a.z2, a.mu2, a.logvar2, a.eps2)
        kernels.log_ratio_forward(a.log_ratio2, a.z2, a.logvar2, a.eps2)      # log q(z2|z) - log p(z2)
        self.decoder.forward(kernels, a.decoder2, a.decoder2_pre, params)
        self.prior_mu.forward(kernels, a.prior_mu, a.prior_mu_pre, a.decoder2[-1], params)
        self.prior_logvar.forward(kernels, a.prior_logvar, a.prior_logvar_pre, a.decoder2[-1], params)
        kernels.gaussian_log_density_forward(a.log_p_z, a.z_rows, a.prior_mu, a.prior_logvar)
        kernels.subtract(a.log_p_rows, a.log_p_z, a.log_ratio2[:, 0])

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """The forward pass read upwards: from d.log_p (B, K) to d.z_p (B, K, Z) and the gradients of all its layers.

        z counts twice, as what p(z|z2) is asked about and as what q(z2|z) sees:   dz  = dz_down + dz_up
        and z2 twice, through p(z|z2) and in its own KL term:                      dz2 = dz2_p + dz2_kl
        """
        kernels.negate(d.log_ratio2[:, 0], d.log_p_rows)
        kernels.gaussian_log_density_backward(d.z_down, d.prior_mu, d.prior_logvar, d.log_p_rows, a.z_rows, a.prior_mu,
                                              a.prior_logvar)
        self.prior_logvar.backward(kernels, d.g2_logvar, d.prior_logvar_pre, grads, d.prior_logvar, a.prior_logvar,
                                   a.decoder2[-1], params)
        self.prior_mu.backward(kernels, d.g2_mu, d.prior_mu_pre, grads, d.prior_mu, a.prior_mu, a.decoder2[-1], params)
        kernels.add(d.decoder2[-1], d.g2_mu, d.g2_logvar)
        self.decoder.backward(kernels, d.decoder2, d.decoder2_pre, grads, a.decoder2, params)
        kernels.log_ratio_backward(d.z2_kl, d.logvar2_kl, d.log_ratio2, a.z2)
        kernels.add(d.z2, d.z2_p, d.z2_kl)
        kernels.reparameterize_backward(d.mu2, d.logvar2_z, d.z2, a.logvar2, a.eps2)
        kernels.add(d.logvar2, d.logvar2_z, d.logvar2_kl)
        self.logvar.backward(kernels, d.h2_logvar, d.logvar2_pre, grads, d.logvar2, a.logvar2, a.encoder2[-1], params)
        self.mu.backward(kernels, d.h2_mu, d.mu2_pre, grads, d.mu2, a.mu2, a.encoder2[-1], params)
        kernels.add(d.encoder2[-1], d.h2_mu, d.h2_logvar)
        self.encoder.backward(kernels, d.encoder2, d.encoder2_pre, grads, a.encoder2, params)
        kernels.add(d.z_p_rows, d.z_down, d.z_up)

    def encode(self, z: Array, vae: Any) -> tuple[Array, Array]:
        """mu2, logvar2 (R, Y) of q(z2|z), z (R, Z)."""
        return self._run(self.encoder, self.mu, self.logvar, z, vae)

    def decode(self, z2: Array, vae: Any) -> tuple[Array, Array]:
        """mu, logvar (R, Z) of p(z|z2), z2 (R, Y)."""
        return self._run(self.decoder, self.prior_mu, self.prior_logvar, z2, vae)

    def sample(self, n: int, rng: np.random.Generator, vae: Any) -> Array:
        """z (n, Z): z2 ~ N(0, I), then z ~ p(z|z2)."""
        mu, logvar = self.decode(rng.standard_normal((n, self.noise)), vae)
        return mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape)

    def _run(self, network: MLP, mu: Dense, logvar: Dense, x: Array, vae: Any) -> tuple[Array, Array]:
        """Both heads of a network at x (R, .), outside of a training step."""
        def outputs(layers: Sequence[Dense]) -> list[Array]:
            return [np.empty((len(x), *layer.shapes[layer.b]), vae.dtype) for layer in layers]

        acts = [np.ascontiguousarray(x, vae.dtype), *outputs(network.layers)]
        network.forward(vae.kernels, acts, outputs(network.layers), vae.parameters)
        heads = outputs([mu, logvar])
        for layer, out, pre in zip((mu, logvar), heads, outputs([mu, logvar])):
            layer.forward(vae.kernels, out, pre, acts[-1], vae.parameters)
        return heads[0], heads[1]
