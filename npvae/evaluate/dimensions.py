"""What each latent dimension says about x, in nats.  Read after `bounds.py`."""
import numpy as np

from ..params import Array
from .bounds import Model


def kl_per_dimension(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """The mean over images of KL(q(z_j|x) || p(z_j)), (Z,): how much each latent dimension says about x (B, D).

    Their sum is the rate: R = sum_j R_j,  R_j = mean_b kl[b, j]  (D11.8).

    Raises ValueError for a model whose KL term is no such sum.
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
    """At most so many nats each latent dimension says about which of the images x (B, D) it was drawn for, (Z,).

        1/2 [ log v_j - mean_b logvar[b, j] ],      v_j = Var_b(mu[b, j]) + mean_b exp(logvar[b, j])

    That is the mean over images of KL( q(z_j|x) || N(m_j, v_j) ), with the mean and the variance of z_j over all of
    them; with their mixture in place of that Gaussian it would be the mutual information, with N(0, 1) the KL.  Of all
    Gaussians this one is the nearest (Hoffman and Johnson 2016), so

        mutual information <= this <= KL per dimension

    and no prior is in it: it is there for every model.  Of a flow it is that of z0, which the flow starts from.
    """
    mu, logvar = (values.astype(np.float64) for values in vae.encode(x, labels))
    nats: Array = 0.5 * (np.log(mu.var(axis=0) + np.exp(logvar).mean(axis=0)) - logvar.mean(axis=0))
    return nats


def nats_per_dimension(vae: Model, x: Array, labels: Array | None = None) -> Array:
    """What pictures sort latent dimensions by, (Z,): KL per dimension where there is one, else information."""
    return kl_per_dimension(vae, x, labels) if vae.latent.analytic else information_per_dimension(vae, x, labels)


def active_units(vae: Model, x: Array, labels: Array | None = None) -> int:
    """Latent dimensions that say something about x (B, D)."""
    return count_active(vae.encode(x, labels)[0])


def count_active(mu: Array, threshold: float = 0.01) -> int:
    """Latent dimensions whose mean moves from image to image: Var_x(mu_j) > threshold  (D11.6), mu (B, Z) (Burda et
    al. 2016, section 5.2)."""
    return int(np.sum(mu.var(axis=0, dtype=np.float64) > threshold))
