"""How much information each latent dimension carries about x, in nats.  Read after `bounds.py`."""
import numpy as np

from ..params import Array
from .bounds import Model

#: an active unit has a mean whose variance over images is larger (Burda et al. 2016, section 5.2)
ACTIVE = 0.01


def kl_per_dimension(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """KL(q(z_j|x) || p(z_j)) of each latent dimension j, (Z,), in nats, a mean over the images x (B, D).

    Their sum is the rate: R = sum_j R_j,  R_j = mean_b kl[b, j]  (D11.8).

    Raises ValueError for a model whose KL term is not a sum over dimensions.
    """
    if not vae.latent.analytic:
        config = {"prior": "normal", "posterior": "gaussian", **vae.config()}
        raise ValueError("the KL term is a sum over latent dimensions for prior normal with posterior gaussian alone, "
                         f"got prior {config['prior']} with posterior {config['posterior']}: information_per_dimension "
                         "fits")
    mu, logvar = vae.encode(x, labels)
    kl = np.empty_like(mu)
    vae.kernels.gaussian_kl_forward(kl, mu, logvar)
    mean: Array = kl.mean(axis=0, dtype=np.float64)
    return mean


def information_per_dimension(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """An upper bound on the mutual information between z_j and the image, (Z,), in nats; x (B, D).

        1/2 [ log v_j - mean_b logvar[b, j] ],      v_j = Var_b(mu[b, j]) + mean_b exp(logvar[b, j])

    It is the mean over images of KL( q(z_j|x) || N(m_j, v_j) ), where m_j and v_j are the mean and variance of z_j over
    all images.  With the mixture mean_b q(z_j|x_b) in place of that Gaussian it would be the mutual information, with
    N(0, 1) the KL per dimension.  Of all Gaussians, N(m_j, v_j) gives the smallest value (Hoffman and Johnson 2016), so

        mutual information <= this <= KL per dimension

    It does not depend on the prior, so every model has it.  With a flow it is that of z0, before the flow.
    """
    mu, logvar = (values.astype(np.float64) for values in vae.encode(x, labels))
    nats: Array = 0.5 * (np.log(mu.var(axis=0) + np.exp(logvar).mean(axis=0)) - logvar.mean(axis=0))
    return nats


def nats_per_dimension(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """The measure by which pictures sort latent dimensions, (Z,): KL per dimension, or information if there is none."""
    return kl_per_dimension(vae, x, labels) if vae.latent.analytic else information_per_dimension(vae, x, labels)


def active_units(vae: Model, x: Array, labels: Array | None = None) -> int:
    """The number of active units: latent dimensions whose mean varies over the images x (B, D)."""
    return count_active(vae.encode(x, labels)[0])


def count_active(mu: Array, threshold: float = ACTIVE) -> int:
    """The number of active units, from mu (B, Z): those with Var_x(mu_j) > threshold  (D11.6)  (Burda et al. 2016,
    section 5.2)."""
    return int(np.sum(mu.var(axis=0, dtype=np.float64) > threshold))
