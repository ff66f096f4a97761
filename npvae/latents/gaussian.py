"""The latent variable of the plain VAE: q(z|x) = N(mu, diag(exp(logvar))), p(z) = N(0, I).  Read after `likelihoods/`;
the formulas are in `kernels/reference/latents.py`.

Two forms of the KL term, for two kinds of objectives:

    exact       kl[b, j], the Kullback-Leibler divergence of each image and latent dimension     (B, Z)
    sampled     log q(z|x) - log p(z) at the drawn z, for each image and draw                    (B, K)

The sampled form has three backward passes (`KLEstimator`): the derivative of the loss, and two estimates of its mean
of lower variance (`kernels/reference/estimators.py`).

`Composed` makes a richer q(z|x) or p(z) of a flow (`flows.py`) and a prior (`priors.py`).
"""
from types import ModuleType

from ..buffers import Activations, Gradients
from ..params import Allocate, Block
from .base import KLEstimator


class DiagonalGaussian:
    """Draws z and computes the KL term, forward and backward.  `a` holds the values of a pass, `d` their gradients.

    analytic : the KL term has a closed form
    gaussian : q(z|x) is N(mu, sigma^2), whose derivative with respect to z the estimators STL and DReG need
    """

    recordable = True      # it only calls kernels; see `likelihoods/base.py`
    analytic = True
    gaussian = True

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> None:
        """It needs no arrays beside those of `buffers.py`."""

    def forward(self, kernels: ModuleType, a: Activations, params: Block, estimator: KLEstimator) -> None:
        """From a.mu, a.logvar and a.eps to a.z, and to a.kl or a.log_ratio."""
        kernels.reparameterize_forward(a.z, a.mu, a.logvar, a.eps)
        if estimator.is_sampled:
            kernels.log_ratio_forward(a.log_ratio, a.z, a.logvar, a.eps)
        else:
            kernels.gaussian_kl_forward(a.kl, a.mu, a.logvar)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, grads: Block, params: Block,
                 estimator: KLEstimator) -> None:
        """From d.z_nll (of the decoder) and d.kl or d.log_ratio (of the objective) to d.mu and d.logvar.

        Two paths meet: through z, marked _z, and through the KL term, marked _kl.

            dz      = dz_nll, or dz_nll + dz_kl where the KL term is sampled           (D7.5)
            dmu     = dmu_z + dmu_kl,   dlogvar = dlogvar_z + dlogvar_kl               (D7.6)

        (A sampled KL term depends on mu only through z, so there is no dmu_kl.)
        """
        if estimator.follows_path:
            kernels.path_ratio_backward(d.z_kl, d.log_ratio, a.z, a.logvar, a.eps)
            self._path_backward(kernels, d, a, estimator)
            return
        if estimator.is_sampled:
            kernels.log_ratio_backward(d.z_kl, d.logvar_kl, d.log_ratio, a.z)
            kernels.add(d.z, d.z_nll, d.z_kl)
            kernels.reparameterize_backward(d.mu, d.logvar_z, d.z, a.logvar, a.eps)
        else:
            kernels.reparameterize_backward(d.mu_z, d.logvar_z, d.z_nll, a.logvar, a.eps)
            kernels.gaussian_kl_backward(d.mu_kl, d.logvar_kl, d.kl, a.mu, a.logvar)
            kernels.add(d.mu, d.mu_z, d.mu_kl)
        kernels.add(d.logvar, d.logvar_z, d.logvar_kl)

    def _path_backward(self, kernels: ModuleType, d: Gradients, a: Activations, estimator: KLEstimator) -> None:
        """From d.z_nll and d.z_kl to d.mu and d.logvar, through z alone."""
        images = slice(len(a.eps))
        kernels.add(d.z, d.z_nll, d.z_kl)
        dz = d.z
        if estimator is KLEstimator.DOUBLY_REPARAMETERIZED:
            kernels.scale_draws(d.z_scaled, d.z, d.nll, d.log_ratio)
            dz = d.z_scaled
        kernels.reparameterize_backward(d.mu[images], d.logvar[images], dz, a.logvar[images], a.eps)
