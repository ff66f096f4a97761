"""A second stochastic layer above z: a prior that is itself a VAE.  Read after `priors.py`.

    up      z = h1 -> encoder2 -> mu2, logvar2 -> z2 = h2 = mu2 + exp(logvar2 / 2) eps2            q(h2|h1)
    down    z2 -> decoder2 -> prior_mu, prior_logvar -> log N(z; prior_mu, exp(prior_logvar))      p(h1|h2)
    top     p(h2) = N(0, I)

h1 and h2 are the names in the IWAE paper (Burda, Grosse and Salakhutdinov 2016, equations 1 and 2).  Here h1 is z,
which the model's encoder draws and its decoder takes; h2 is z2, drawn once for each z.  In place of log p(z) the layer
gives

    log_p = log p(z|z2) + log p(z2) - log q(z2|z)

at that draw.  exp(log_p) is an unbiased estimate of p(z), the integral of p(z|z2) p(z2) over z2.  So
w = p(x|z) exp(log_p) / q(z|x)  is an unbiased estimate of p(x), and with  log_ratio = log q(z|x) - log_p  ELBO and IWAE
are the bounds of the whole model.

Shapes:  R = B K rows, one for each draw of z;  Y the width of z2.
"""
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..buffers import Activations, Gradients
from ..kernels import reference
from ..layers import MLP, Activation, Dense
from ..params import Allocate, Array, Block
from .base import Encode, Prior


def widths_in(name: str) -> tuple[int, ...]:
    """The widths in a name such as "hierarchical:100,100,50".  Raises ValueError."""
    if not re.fullmatch("hierarchical:[1-9][0-9]*(,[1-9][0-9]*)*", name):
        raise ValueError("prior hierarchical needs the widths of its hidden layers, if any, and of its latent "
                         f"variable, as in hierarchical:100,100,50, got {name!r}")
    return tuple(map(int, name.partition(":")[2].split(",")))


@dataclass(eq=False, repr=False)
class LayerActivations:
    """The values of the second layer, in the order of the pass."""

    z: Array                    # (R, Z)
    encoder: list[Array]        # z, then (R, H) of each hidden layer
    encoder_pre: list[Array]    # (R, H)
    mu_pre: Array               # (R, Y)
    mu: Array                   # (R, Y)
    logvar_pre: Array           # (R, Y)
    logvar: Array               # (R, Y)
    eps: Array                  # (R, 1, Y)   one draw for each row, for the kernels of `latents`
    z2: Array                   # (R, 1, Y)
    log_ratio: Array            # (R, 1)      log q(z2|z) - log p(z2)
    decoder: list[Array]        # z2 (R, Y), then (R, H) of each hidden layer
    decoder_pre: list[Array]    # (R, H)
    prior_mu_pre: Array         # (R, Z)
    prior_mu: Array             # (R, Z)
    prior_logvar_pre: Array     # (R, Z)
    prior_logvar: Array         # (R, Z)
    log_p_z: Array              # (R,)        log p(z|z2)
    log_p: Array                # (R,)        log p(z), estimated


@dataclass(eq=False, repr=False)
class LayerGradients:
    """The gradients of the values, in the order of the backward pass."""

    log_p: Array                # (R,)
    log_ratio: Array            # (R, 1)
    z_down: Array               # (R, Z)      through p(z|z2)
    z_up: Array                 # (R, Z)      through q(z2|z)
    z: Array                    # (R, Z)      through both
    prior_mu: Array             # (R, Z)
    prior_logvar: Array         # (R, Z)
    prior_mu_pre: Array         # (R, Z)
    prior_logvar_pre: Array     # (R, Z)
    g_mu: Array                 # of the decoder's output, through prior_mu
    g_logvar: Array             # and through prior_logvar
    decoder: list[Array]        # dz2 (R, Y) through p(z|z2), then (R, H) of each hidden layer
    decoder_pre: list[Array]    # (R, H)
    z2_p: Array                 # (R, 1, Y)   through p(z|z2), the memory of decoder[0]
    z2_kl: Array                # (R, 1, Y)   through the KL term
    z2: Array                   # (R, 1, Y)   through both
    mu: Array                   # (R, Y)
    mu_pre: Array               # (R, Y)
    logvar_z: Array             # (R, Y)      through z2
    logvar_kl: Array            # (R, Y)      through the KL term
    logvar: Array               # (R, Y)
    logvar_pre: Array           # (R, Y)
    h_mu: Array                 # of the encoder's output, through mu
    h_logvar: Array             # and through logvar
    encoder: list[Array]        # z_up (R, Z), then (R, H) of each hidden layer
    encoder_pre: list[Array]    # (R, H)


class SecondLayer(Prior[tuple[LayerActivations, LayerGradients]]):
    """The prior with q(z2|z) and p(z|z2), diagonal Gaussians, each computed by hidden layers and two linear layers.

    Parameters
    ----------
    latent_dim : Z, of the layer below
    widths : those of the hidden layers on the way up, then Y; the way down has them in reverse
    activation : of the hidden layers

    The noise of z2 is `a.eps_prior` (B, K, Y).  Labels of images, if there are any, are not given to this layer.
    """

    recordable = True

    def __init__(self, latent_dim: int, widths: Sequence[int], activation: str | Activation) -> None:
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

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> tuple[LayerActivations, LayerGradients]:
        """Its values and their gradients."""
        B, K, Z = a.z.shape
        R, Y = B * K, self.noise
        up, down = list(enumerate(self.hidden)), list(enumerate(self.hidden[::-1]))
        keeps_pre = self.encoder.uses_input

        def like_pre(name: str, pre: Array) -> Array:
            return allocate(f"d{name}", *pre.shape) if keeps_pre else pre

        z2 = allocate("z2", R, 1, Y)
        own = LayerActivations(
            z=a.z_rows, encoder=[a.z_rows, *(allocate(f"encoder2.{i}", R, H) for i, H in up)],
            encoder_pre=[allocate(f"encoder2.{i} pre", R, H) for i, H in up],
            mu_pre=allocate("mu2 pre", R, Y), mu=allocate("mu2", R, Y),
            logvar_pre=allocate("logvar2 pre", R, Y), logvar=allocate("logvar2", R, Y),
            eps=a.eps_prior.reshape(R, 1, Y), z2=z2, log_ratio=allocate("log ratio 2", R, 1),
            decoder=[z2.reshape(R, Y), *(allocate(f"decoder2.{i}", R, H) for i, H in down)],
            decoder_pre=[allocate(f"decoder2.{i} pre", R, H) for i, H in down],
            prior_mu_pre=allocate("prior_mu pre", R, Z), prior_mu=allocate("prior_mu", R, Z),
            prior_logvar_pre=allocate("prior_logvar pre", R, Z), prior_logvar=allocate("prior_logvar", R, Z),
            log_p_z=allocate("log p(z|z2)", R), log_p=a.log_p.reshape(R))
        dz_up, dz2_p = allocate("dz by q(z2|z)", R, Z), allocate("dz2 by p(z|z2)", R, 1, Y)
        encoder = [dz_up, *(allocate(f"dencoder2.{i}", R, H) for i, H in up)]
        decoder = [dz2_p.reshape(R, Y), *(allocate(f"ddecoder2.{i}", R, H) for i, H in down)]
        return own, LayerGradients(
            log_p=d.log_p.reshape(R), log_ratio=allocate("dlog ratio 2", R, 1),
            z_down=allocate("dz by p(z|z2)", R, Z), z_up=dz_up, z=d.z_p.reshape(R, Z),
            prior_mu=allocate("dprior_mu", R, Z), prior_logvar=allocate("dprior_logvar", R, Z),
            prior_mu_pre=own.prior_mu_pre, prior_logvar_pre=own.prior_logvar_pre,
            g_mu=allocate("ddecoder2 by mu", *decoder[-1].shape),
            g_logvar=allocate("ddecoder2 by logvar", *decoder[-1].shape),
            decoder=decoder, decoder_pre=[like_pre(f"decoder2.{i} pre", pre) for i, pre in enumerate(own.decoder_pre)],
            z2_p=dz2_p, z2_kl=allocate("dz2 by kl", R, 1, Y), z2=allocate("dz2", R, 1, Y),
            mu=allocate("dmu2", R, Y), mu_pre=own.mu_pre, logvar_z=allocate("dlogvar2 by z2", R, Y),
            logvar_kl=allocate("dlogvar2 by kl", R, Y), logvar=allocate("dlogvar2", R, Y), logvar_pre=own.logvar_pre,
            h_mu=allocate("dencoder2 by mu2", *encoder[-1].shape),
            h_logvar=allocate("dencoder2 by logvar2", *encoder[-1].shape),
            encoder=encoder, encoder_pre=[like_pre(f"encoder2.{i} pre", pre) for i, pre in enumerate(own.encoder_pre)])

    def forward(self, kernels: ModuleType, a: Activations, own: tuple[LayerActivations, LayerGradients], params: Block
                ) -> None:
        """From a.z and a.eps_prior to a.log_p (B, K): up to z2, and down again.

            log_p = log p(z|z2) - [ log q(z2|z) - log p(z2) ]                          (D13.10)
        """
        v = own[0]
        self.encoder.forward(kernels, v.encoder, v.encoder_pre, params)
        self.mu.forward(kernels, v.mu, v.mu_pre, v.encoder[-1], params)
        self.logvar.forward(kernels, v.logvar, v.logvar_pre, v.encoder[-1], params)
        kernels.reparameterize_forward(v.z2, v.mu, v.logvar, v.eps)
        kernels.log_ratio_forward(v.log_ratio, v.z2, v.logvar, v.eps)      # log q(z2|z) - log p(z2)
        self.decoder.forward(kernels, v.decoder, v.decoder_pre, params)
        self.prior_mu.forward(kernels, v.prior_mu, v.prior_mu_pre, v.decoder[-1], params)
        self.prior_logvar.forward(kernels, v.prior_logvar, v.prior_logvar_pre, v.decoder[-1], params)
        kernels.gaussian_log_density_forward(v.log_p_z, v.z, v.prior_mu, v.prior_logvar)
        kernels.subtract(v.log_p, v.log_p_z, v.log_ratio[:, 0])

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: tuple[LayerActivations, LayerGradients],
                 grads: Block, params: Block) -> None:
        """The forward pass in reverse: from d.log_p (B, K) to d.z_p (B, K, Z) and the gradients of all its layers.

        z is used twice, in log p(z|z2) and as the input of q(z2|z):      dz  = dz_down + dz_up
        z2 is used twice, by p(z|z2) and in its own KL term:              dz2 = dz2_p + dz2_kl
        """
        v, g = own
        kernels.negate(g.log_ratio[:, 0], g.log_p)
        kernels.gaussian_log_density_backward(g.z_down, g.prior_mu, g.prior_logvar, g.log_p, v.z, v.prior_mu,
                                              v.prior_logvar)
        self.prior_logvar.backward(kernels, g.g_logvar, g.prior_logvar_pre, grads, g.prior_logvar, v.prior_logvar,
                                   v.prior_logvar_pre, v.decoder[-1], params)
        self.prior_mu.backward(kernels, g.g_mu, g.prior_mu_pre, grads, g.prior_mu, v.prior_mu, v.prior_mu_pre,
                               v.decoder[-1], params)
        kernels.add(g.decoder[-1], g.g_mu, g.g_logvar)
        self.decoder.backward(kernels, g.decoder, g.decoder_pre, grads, v.decoder, v.decoder_pre, params)
        kernels.log_ratio_backward(g.z2_kl, g.logvar_kl, g.log_ratio, v.z2)
        kernels.add(g.z2, g.z2_p, g.z2_kl)
        kernels.reparameterize_backward(g.mu, g.logvar_z, g.z2, v.logvar, v.eps)
        kernels.add(g.logvar, g.logvar_z, g.logvar_kl)
        self.logvar.backward(kernels, g.h_logvar, g.logvar_pre, grads, g.logvar, v.logvar, v.logvar_pre, v.encoder[-1],
                             params)
        self.mu.backward(kernels, g.h_mu, g.mu_pre, grads, g.mu, v.mu, v.mu_pre, v.encoder[-1], params)
        kernels.add(g.encoder[-1], g.h_mu, g.h_logvar)
        self.encoder.backward(kernels, g.encoder, g.encoder_pre, grads, v.encoder, v.encoder_pre, params)
        kernels.add(g.z, g.z_down, g.z_up)

    def encode(self, z: Array, params: Block) -> tuple[Array, Array]:
        """mu2, logvar2 (R, Y) of q(z2|z), z (R, Z)."""
        return _heads(self.encoder, self.mu, self.logvar, z, params)

    def decode(self, z2: Array, params: Block) -> tuple[Array, Array]:
        """mu, logvar (R, Z) of p(z|z2), z2 (R, Y)."""
        return _heads(self.decoder, self.prior_mu, self.prior_logvar, z2, params)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator, params: Block, encode: Encode) -> Array:
        """z (n, Z): z2 ~ N(0, I), then z ~ p(z|z2)."""
        mu, logvar = self.decode(rng.standard_normal((shape[0], self.noise)), params)
        return mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape)


def _heads(network: MLP, mu: Dense, logvar: Dense, x: Array, params: Block) -> tuple[Array, Array]:
    """Both outputs of a network at x (R, .), outside of a training step."""
    def outputs(layers: Sequence[Dense]) -> list[Array]:
        return [np.empty((len(x), *layer.shapes[layer.b]), params.flat.dtype) for layer in layers]

    acts = [np.ascontiguousarray(x, params.flat.dtype), *outputs(network.layers)]
    network.forward(reference, acts, outputs(network.layers), params)
    heads = outputs([mu, logvar])
    for layer, out, pre in zip((mu, logvar), heads, outputs([mu, logvar])):
        layer.forward(reference, out, pre, acts[-1], params)
    return heads[0], heads[1]
