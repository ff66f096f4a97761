"""The latent variable: q(z|x) = N(mu, diag(exp(logvar))) against p(z) = N(0, I).  Read after `likelihoods/`; the
formulas are in `kernels/reference/latents.py`.

Two forms of the KL term, for two kinds of objective:

    exact       kl[b, j], summed over nothing: KL per image and latent dimension                  (B, Z)
    sampled     log q(z|x) - log p(z) at the drawn z, per image and draw                         (B, K)

The sampled form has three backward passes (`KLEstimator`): the derivative of the loss, and two estimates of its mean
with less noise (`kernels/reference/estimators.py`).

A richer q(z|x) or p(z) is put together by `Composed`, of a flow (`flows.py`) and a prior (`priors.py`).
"""
from types import ModuleType

from ..buffers import Activations, Gradients
from ..params import Allocate, Block
from .base import KLEstimator


class DiagonalGaussian:
    """Draws z and measures the KL term, forward and backward.  `a` holds the values of a pass, `d` their gradients.

    analytic : is the KL term known in closed form?
    gaussian : is q(z|x) itself N(mu, sigma^2), whose derivative by z the estimators STL and DReG need?
    """

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`
    analytic = True
    gaussian = True

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> None:
        """The arrays of `buffers.py` are enough."""

    def forward(self, kernels: ModuleType, a: Activations, params: Block, estimator: KLEstimator) -> None:
        """From a.mu, a.logvar and a.eps to a.z, and to a.kl or a.log_ratio."""
        kernels.reparameterize_forward(a.z, a.mu, a.logvar, a.eps)
        if estimator.is_sampled:
            kernels.log_ratio_forward(a.log_ratio, a.z, a.logvar, a.eps)
        else:
            kernels.gaussian_kl_forward(a.kl, a.mu, a.logvar)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, grads: Block, params: Block,
                 estimator: KLEstimator) -> None:
        """From d.z_nll, which comes from the decoder, and d.kl or d.log_ratio, from the objective: d.mu and d.logvar.

        Two paths meet: through z, marked _z, and through the KL term, marked _kl.

            dz      = dz_nll, and where the KL term is sampled dz_nll + dz_kl          (D7.5)
            dmu     = dmu_z + dmu_kl,   dlogvar = dlogvar_z + dlogvar_kl               (D7.6)

        (If sampled, dz brings the KL term's part along, and there is no direct path to mu.)
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
        """From d.z_nll and d.z_kl to d.mu and d.logvar: the path through z is the only one."""
        images = slice(len(a.eps))
        kernels.add(d.z, d.z_nll, d.z_kl)
        dz = d.z
        if estimator is KLEstimator.DOUBLY_REPARAMETERIZED:
            kernels.scale_draws(d.z_scaled, d.z, d.nll, d.log_ratio)
            dz = d.z_scaled
        kernels.reparameterize_backward(d.mu[images], d.logvar[images], dz, a.logvar[images], a.eps)
