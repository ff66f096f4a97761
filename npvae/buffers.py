"""Every array of a training step, listed once with its shape.  Read beside `model.py`, as its list of names.  Those
that a flow, a prior or a MADE decoder needs besides, it lists itself, in its `add_buffers`.

`a` holds the values of a pass, `d` their gradients.  B images, K draws each, D pixels, Z latent dimensions, H the width
of a hidden layer, P numbers that the decoder puts out, L classes of labels (0 for none), N numbers that the prior
draws itself (0 for most).  The encoder has R rows: the images, and below them those that the prior asks for, if it does
(`latents.py`).

`_pre` is a matrix product before bias and activation; its gradient takes its place, since no backward kernel looks back
at it.
"""
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from .params import Take

if TYPE_CHECKING:
    from .model import VAE


def buffers(vae: "VAE", batch: int, draws: int, take: Take) -> tuple[SimpleNamespace, SimpleNamespace]:
    """`a` and `d` for so many images and draws, in memory that `take` hands out."""
    B, K, D, Z, L, P = batch, draws, vae.input_dim, vae.latent_dim, vae.classes, vae.output.shapes[vae.output.b][0]
    R = B + vae.latent.rows
    x, z, dz, output, doutput = (take("x", R, D), take("z", B, K, Z), take("dz by nll", B, K, Z),
                                 take("output", B, K, P), take("doutput", B, K, P))
    N, size = vae.latent.noise, B * K * (Z + vae.latent.noise)
    noise = take("eps", size + size % 2)      # it is drawn in pairs
    pre = {"encoder_pre": [take(f"encoder.{i} pre", R, H) for i, H in enumerate(vae.hidden)],
           "mu_pre": take("mu pre", R, Z), "logvar_pre": take("logvar pre", R, Z),
           "decoder_pre": [take(f"decoder.{i} pre", B * K, H) for i, H in enumerate(vae.decoder_hidden)],
           "rows_pre": take("output pre", B * K, P)}
    a = SimpleNamespace(
        x=x[:B], encoder=[take("x and y", R, D + L) if L else x,
                          *(take(f"encoder.{i}", R, H) for i, H in enumerate(vae.hidden))],
        mu=take("mu", R, Z), logvar=take("logvar", R, Z), z=z, z_rows=z.reshape(B * K, Z),
        noise=noise, eps=noise[:B * K * Z].reshape(B, K, Z), eps_prior=noise[B * K * Z:size].reshape(B, K, N),
        uniform=np.empty(noise.size, np.float32),
        kl=take("kl", B, Z), log_ratio=take("log_ratio", B, K),
        decoder=[take("z and y", B * K, Z + L) if L else z.reshape(B * K, Z),
                 *(take(f"decoder.{i}", B * K, H) for i, H in enumerate(vae.decoder_hidden))],
        rows=output.reshape(B * K, P), output=output, kept=take("kept", B, K, P), nll=take("nll", B, K),
        index=np.empty(B, np.int64), labels=np.zeros(B, np.int64), orders={}, **pre)
    d = SimpleNamespace(
        encoder=[None, *(take(f"dencoder.{i}", R, H) for i, H in enumerate(vae.hidden))],
        **{f"h_{head}": take(f"dencoder by {head}", R, vae.hidden[-1]) if vae.hidden else None
           for head in ("mu", "logvar")},
        mu=take("dmu", R, Z), mu_z=take("dmu by z", B, Z), mu_kl=take("dmu by kl", B, Z),
        logvar=take("dlogvar", R, Z), logvar_z=take("dlogvar by z", B, Z), logvar_kl=take("dlogvar by kl", B, Z),
        z=take("dz", B, K, Z), z_nll=dz, z_rows=dz.reshape(B * K, Z), z_kl=take("dz by kl", B, K, Z),
        z_scaled=take("dz scaled", B, K, Z),
        kl=take("dkl", B, Z), log_ratio=take("dlog_ratio", B, K),
        decoder=[take("dz and dy", B * K, Z + L) if L else dz.reshape(B * K, Z),
                 *(take(f"ddecoder.{i}", B * K, H) for i, H in enumerate(vae.decoder_hidden))],
        rows=doutput.reshape(B * K, P), output=doutput, nll=take("dnll", B, K), **pre)
    d.h = d.encoder[-1]
    vae.latent.add_buffers(a, d, take)
    vae.output.add_buffers(a, d, take)
    return a, d
