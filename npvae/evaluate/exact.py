"""log p(x) itself, for the models where it has a closed form.  Read after `bounds.py`."""
import math

import numpy as np

from ..likelihoods.gaussian import Gaussian
from ..params import Array
from .bounds import Model, checked


def exact_log_likelihood(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """log p(x) of each image (B,), nats, in float64; x (B, D).  For models with a normal prior, a linear decoder and
    Gaussian pixels of one sigma.  The encoder does not matter.

        x = z W + b + sigma noise,  z ~ N(0, I)      so      p(x) = N(x; b, W^T W + sigma^2 I)

    (probabilistic PCA: Tipping and Bishop 1999).  With  C = W^T W + sigma^2 I,  M = I + W W^T / sigma^2  (Z, Z)  and
    r = x - b,  Woodbury's identity avoids the inverse of the (D, D) matrix C:

        log det C = D log sigma^2 + log det M,      r C^-1 r^T = ( r r^T - r W^T M^-1 W r^T / sigma^2 ) / sigma^2

    A label adds its row of W to b.  Missing cells are left out of all sums over d, since a marginal of a Gaussian is
    the Gaussian of the rest: so each row has its own M  (D18.4).

    Raises ValueError for any other model, and says which fit.
    """
    wrong = why_not_exact(vae)
    if wrong:
        raise ValueError(f"log p(x) is known in closed form for prior normal, decoder dense, decoder_hidden=() and "
                         f"likelihood gaussian alone, got {wrong}: log_likelihood fits")
    assert isinstance(vae.likelihood, Gaussian)
    x, labels = checked(vae, x, labels)
    W, b = (vae.parameters[name].astype(np.float64) for name in (vae.output.W, vae.output.b))
    of_label, W = W[vae.latent_dim:], W[:vae.latent_dim]
    variance = math.exp(vae.likelihood._logvar(vae.parameters)[0])
    seen = ~np.isnan(x)
    r = np.where(seen, x - b - (of_label[labels] if vae.classes else 0), 0)
    projected = r @ W.T
    if vae.missing:
        M = np.eye(len(W)) + np.einsum("bd,zd,yd->bzy", seen, W, W, optimize=True) / variance
        solved = np.linalg.solve(M, projected[..., None])[..., 0]
    else:
        M = np.eye(len(W)) + W @ W.T / variance
        solved = np.linalg.solve(M, projected.T).T
    square = ((r * r).sum(axis=1) - (projected * solved).sum(axis=1) / variance) / variance
    log_det = seen.sum(axis=1) * math.log(2 * math.pi * variance) + np.linalg.slogdet(M)[1]
    return np.asarray(-0.5 * (square + log_det))


def why_not_exact(vae: Model) -> str:
    """The part of the model that leaves log p(x) without a closed form; "" if it has one."""
    config = vae.config()
    for name, fits in (("prior", "normal"), ("decoder", "dense"), ("decoder_hidden", [])):
        if config.get(name, fits) != fits:
            return f"{name} {config[name]}"
    return "" if type(vae.likelihood) is Gaussian else f"likelihood {vae.likelihood.name}"
