"""log p(x) itself, for the models of which it is known.  Read after `bounds.py`."""
import math

import numpy as np

from ..likelihoods.gaussian import Gaussian
from ..params import Array
from .bounds import Model, checked


def exact_log_likelihood(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """log p(x) of each image (B,), nats, in float64, for the models of which it is known: prior normal, a linear
    decoder, Gaussian pixels with one sigma.  The encoder does not matter.  x (B, D).

        x = z W + b + sigma noise,  z ~ N(0, I)      so      p(x) = N(x; b, W^T W + sigma^2 I)

    (probabilistic PCA: Tipping and Bishop 1999).  With  M = I + W W^T / sigma^2  (Z, Z)  and  r = x - b  there is no
    D x D matrix to invert (Woodbury):

        log det = D log sigma^2 + log det M,      r C^-1 r^T = ( r r^T - r W^T M^-1 W r^T / sigma^2 ) / sigma^2

    Labels move b, by the rows of W that belong to them.  Raises ValueError that says what fits.
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
    r = x - b - (of_label[labels] if vae.classes else 0)
    M = np.eye(len(W)) + W @ W.T / variance
    projected = r @ W.T
    square = ((r * r).sum(axis=1) - (projected * np.linalg.solve(M, projected.T).T).sum(axis=1) / variance) / variance
    log_det = vae.input_dim * math.log(2 * math.pi * variance) + np.linalg.slogdet(M)[1]
    return np.asarray(-0.5 * (square + log_det))


def why_not_exact(vae: Model) -> str:
    """What keeps log p(x) from being known; "" for nothing."""
    config = vae.config()
    for name, fits in (("prior", "normal"), ("decoder", "dense"), ("decoder_hidden", [])):
        if config.get(name, fits) != fits:
            return f"{name} {config[name]}"
    return "" if type(vae.likelihood) is Gaussian else f"likelihood {vae.likelihood.name}"
