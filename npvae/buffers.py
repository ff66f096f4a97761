"""Every array of a training step, in the order of the pass, with its shape.  Read beside `model/vae.py`.

`Activations`, `a` for short, holds the values of a forward pass, and `Gradients`, `d`, those of the backward pass: d.x
is the gradient of the loss with respect to a.x and has its shape.  What else a flow, a prior or a decoder needs, it
declares itself (`allocate` in its class).

    B   images of the batch                 H   units of a hidden layer, each layer its own
    K   draws of z for each image           P   outputs of the decoder for each image
    D   numbers of an image                 L   classes of labels, 0 for none
    F   features, what the encoder sees     I   its input without labels: F, or F + D with indicators of missing cells
    Z   latent dimensions                   N   further noise that the prior needs, 0 for most
    R   rows given to the encoder: the B images, and below them those of the prior, if it has any

`_pre` marks a matrix product before bias and activation.
"""
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .params import Allocate, Array


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model's arrays except B and K, by the letters above."""

    D: int
    F: int
    L: int
    Z: int
    N: int
    P: int
    prior_rows: int      # R - B
    hidden: Sequence[int]      # H of each hidden layer of the encoder
    decoder_hidden: Sequence[int]
    flow: bool      # z differs from z0
    third_head: bool      # the flow reads the encoder's output, as the layers of mu and logvar do
    keeps_pre: bool      # the activation's derivative is computed from its input
    features: bool      # the encoder sees features of x, not x itself
    missing: bool      # cells of x may be missing


@dataclass(eq=False, repr=False)
class Activations:
    """The values of a forward pass."""

    x: Array                     # (B, D)   the images, NaN where a cell is missing
    missing: Array | None        # (B, D)   1 where a cell is missing, else 0; None if none may be
    filled: Array                # (B, D)   x with a placeholder in missing cells; x itself if none may be missing
    features: Array              # (B, F)   what the encoder sees of it; mostly `filled` itself
    inputs: Array                # (R, I)   the encoder's input without labels; mostly x itself
    labels: Array                # (B,)     integers; 0 without classes
    index: Array                 # (B,)     the images' rows in the data set
    encoder: list[Array]         # (R, I + L), then (R, H) of each hidden layer
    encoder_pre: list[Array]     # (R, H)
    mu_pre: Array                # (R, Z)
    mu: Array                    # (R, Z)
    logvar_pre: Array            # (R, Z)
    logvar: Array                # (R, Z)
    uniform: Array               # uniform random numbers, float32; as many as in `noise`
    noise: Array                 # B K (Z + N) normal random numbers, made of them in pairs; one more if that is odd
    eps: Array                   # (B, K, Z)   the first B K Z of the noise
    eps_prior: Array             # (B, K, N)   the next B K N
    z0: Array                    # (B, K, Z)   mu + sigma eps; without a flow it is z
    z: Array                     # (B, K, Z)
    z_rows: Array                # (B K, Z)    z, one row for each draw; the same memory
    kl: Array                    # (B, Z)      KL( q(z_j|x) || p(z_j) ), where it has a closed form
    log_q: Array                 # (B, K)      log q0(z0|x)
    log_det: Array               # (B, K)      log |det dz/dz0|
    log_q_z: Array               # (B, K)      log q(z|x)
    log_p: Array                 # (B, K)      log p(z)
    log_ratio: Array             # (B, K)      log q(z|x) - log p(z)
    decoder: list[Array]         # (B K, Z + L), then (B K, H) of each hidden layer
    decoder_pre: list[Array]     # (B K, H)
    rows_pre: Array              # (B K, P)
    rows: Array                  # (B K, P)    the decoder's output, one row for each draw
    output: Array                # (B, K, P)   the same memory
    kept: Array                  # (B, K, P)   what the likelihood keeps for its backward pass
    cells: Array | None          # (B, K, D)   its terms -log p(x_d|z); None if no cell may be missing
    nll: Array                   # (B, K)      -log p(x|z)
    flow: object = None          # further arrays of the flow,
    prior: object = None         # of the prior,
    last: object = None          # and of the decoder's last step
    recorded: dict[Hashable, object] = field(default_factory=dict)      # kernel calls that the engine has recorded


@dataclass(eq=False, repr=False)
class Gradients:
    """Gradients of the loss with respect to the values.  A name such as z_kl means: of z, by the path through kl."""

    nll: Array                   # (B, K)
    cells: Array | None          # (B, K, D)
    output: Array                # (B, K, P)
    rows: Array                  # (B K, P)     the same memory
    rows_pre: Array              # (B K, P)
    decoder: list[Array]         # (B K, Z + L), then (B K, H) of each hidden layer
    decoder_pre: list[Array]     # (B K, H)
    z_nll: Array                 # (B, K, Z)
    z_rows: Array                # (B K, Z)     the memory of z_nll, one row for each draw
    kl: Array                    # (B, Z)
    log_ratio: Array             # (B, K)
    log_p: Array                 # (B, K)
    log_det: Array               # (B, K)
    z_p: Array                   # (B, K, Z)    through log p(z)
    z_q: Array                   # (B, K, Z)    through log q(z|x)
    z_kl: Array                  # (B, K, Z)    through both
    z: Array                     # (B, K, Z)
    z_scaled: Array              # (B, K, Z)    for the doubly reparameterized estimator
    z0: Array                    # (B, K, Z)    without a flow it is d.z
    mu_z: Array                  # (B, Z)
    mu_kl: Array                 # (B, Z)
    mu: Array                    # (R, Z)
    mu_pre: Array                # (R, Z)
    logvar_z: Array              # (B, Z)
    logvar_kl: Array             # (B, Z)
    logvar: Array                # (R, Z)
    logvar_pre: Array            # (R, Z)
    h_mu: Array | None           # (R, H)    of the encoder's output h, through mu; None without a hidden layer
    h_logvar: Array | None       # (R, H)    through logvar
    h: Array | None              # (R, H)    through both; the whole gradient, unless a flow reads h too
    h_flow: Array | None         # (R, H)    through the flow
    encoder: list[Array | None]  # None (dx is not needed), then (R, H) of each hidden layer
    encoder_pre: list[Array]     # (R, H)
    prior_x: Array               # (R - B, I)   of the prior's rows
    prior_x_mu: Array            # (R - B, I)   through mu, for an encoder without hidden layers
    prior_x_logvar: Array        # (R - B, I)   through logvar, likewise


def allocate_pass(sizes: Sizes, B: int, K: int, allocate: Allocate) -> tuple[Activations, Gradients]:
    """`a` and `d` for B images and K draws, in memory that `allocate` provides by name."""
    D, F, L, Z, N, P, R = sizes.D, sizes.F, sizes.L, sizes.Z, sizes.N, sizes.P, B + sizes.prior_rows
    width = F + D * sizes.missing
    hidden, decoder_hidden = list(enumerate(sizes.hidden)), list(enumerate(sizes.decoder_hidden))

    def like_pre(name: str, pre: Array) -> Array:
        """The gradient of a matrix product, in the memory of the product unless a backward kernel still reads that."""
        return allocate(f"d{name}", *pre.shape) if sizes.keeps_pre else pre

    # x is the encoder's input, unless something is computed in between
    computed = sizes.features or sizes.missing
    inputs = allocate("encoder input" if computed else "x", R, width)
    x = allocate("x", B, D) if computed else inputs[:B]
    filled = allocate("x filled", B, D) if sizes.missing else x
    features = filled if not sizes.features else allocate("features", B, F) if sizes.missing else inputs[:B]
    size = B * K * (Z + N)
    noise = allocate("noise", size + size % 2)
    z, output = allocate("z", B, K, Z), allocate("output", B, K, P)
    a = Activations(
        x=x, missing=allocate("missing", B, D) if sizes.missing else None, filled=filled, features=features,
        inputs=inputs, labels=np.zeros(B, np.int64), index=np.empty(B, np.int64),
        encoder=[allocate("x and labels", R, width + L) if L else inputs,
                 *(allocate(f"encoder.{i}", R, H) for i, H in hidden)],
        encoder_pre=[allocate(f"encoder.{i} pre", R, H) for i, H in hidden],
        mu_pre=allocate("mu pre", R, Z), mu=allocate("mu", R, Z),
        logvar_pre=allocate("logvar pre", R, Z), logvar=allocate("logvar", R, Z),
        uniform=np.empty(noise.size, np.float32), noise=noise,
        eps=noise[:B * K * Z].reshape(B, K, Z), eps_prior=noise[B * K * Z:size].reshape(B, K, N),
        z0=allocate("z0", B, K, Z) if sizes.flow else z, z=z, z_rows=z.reshape(B * K, Z),
        kl=allocate("kl", B, Z), log_q=allocate("log q0(z0|x)", B, K), log_det=allocate("log det", B, K),
        log_q_z=allocate("log q(z|x)", B, K), log_p=allocate("log p(z)", B, K),
        log_ratio=allocate("log ratio", B, K),
        decoder=[allocate("z and labels", B * K, Z + L) if L else z.reshape(B * K, Z),
                 *(allocate(f"decoder.{i}", B * K, H) for i, H in decoder_hidden)],
        decoder_pre=[allocate(f"decoder.{i} pre", B * K, H) for i, H in decoder_hidden],
        rows_pre=allocate("output pre", B * K, P), rows=output.reshape(B * K, P), output=output,
        kept=allocate("kept", B, K, P), cells=allocate("cells", B, K, D) if sizes.missing else None,
        nll=allocate("nll", B, K))
    doutput, dz_nll, dz = allocate("doutput", B, K, P), allocate("dz by nll", B, K, Z), allocate("dz", B, K, Z)
    last = (R, sizes.hidden[-1]) if sizes.hidden else None
    encoder = [None, *(allocate(f"dencoder.{i}", R, H) for i, H in hidden)]
    d = Gradients(
        nll=allocate("dnll", B, K), cells=allocate("dcells", B, K, D) if sizes.missing else None,
        output=doutput, rows=doutput.reshape(B * K, P), rows_pre=a.rows_pre,
        decoder=[allocate("dz and dlabels", B * K, Z + L) if L else dz_nll.reshape(B * K, Z),
                 *(allocate(f"ddecoder.{i}", B * K, H) for i, H in decoder_hidden)],
        decoder_pre=[like_pre(f"decoder.{i} pre", pre) for i, pre in enumerate(a.decoder_pre)],
        z_nll=dz_nll, z_rows=dz_nll.reshape(B * K, Z),
        kl=allocate("dkl", B, Z), log_ratio=allocate("dlog ratio", B, K), log_p=allocate("dlog p(z)", B, K),
        log_det=allocate("dlog det", B, K),
        z_p=allocate("dz by log p", B, K, Z), z_q=allocate("dz by log q", B, K, Z), z_kl=allocate("dz by kl", B, K, Z),
        z=dz, z_scaled=allocate("dz scaled", B, K, Z), z0=allocate("dz0", B, K, Z) if sizes.flow else dz,
        mu_z=allocate("dmu by z", B, Z), mu_kl=allocate("dmu by kl", B, Z), mu=allocate("dmu", R, Z), mu_pre=a.mu_pre,
        logvar_z=allocate("dlogvar by z", B, Z), logvar_kl=allocate("dlogvar by kl", B, Z),
        logvar=allocate("dlogvar", R, Z), logvar_pre=a.logvar_pre,
        h_mu=allocate("dh by mu", *last) if last else None, h_logvar=allocate("dh by logvar", *last) if last else None,
        h=allocate("dh by mu and logvar", *last) if last and sizes.third_head else encoder[-1],
        h_flow=allocate("dh by flow", *last) if last and sizes.third_head else None,
        encoder=encoder, encoder_pre=[like_pre(f"encoder.{i} pre", pre) for i, pre in enumerate(a.encoder_pre)],
        prior_x=allocate("drows", sizes.prior_rows, width),
        prior_x_mu=allocate("drows by mu", sizes.prior_rows, width),
        prior_x_logvar=allocate("drows by logvar", sizes.prior_rows, width))
    return a, d
