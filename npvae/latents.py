"""The latent variable: q(z|x) = N(mu, diag(exp(logvar))) against p(z) = N(0, I).  Read after `likelihoods.py`; the
formulas are in `kernels/reference/latents.py`.

Two forms of the KL term, for two kinds of objective:

    analytic    kl[b, j], summed over nothing: KL per image and latent dimension, exact           (B, Z)
    sampled     log q(z|x) - log p(z) at the drawn z, per image and draw                         (B, K)
"""
from types import ModuleType
from typing import Any


class DiagonalGaussian:
    """Draws z and measures the KL term, forward and backward.  `a` holds the values of a pass, `d` their gradients."""

    recordable = True      # does nothing but call kernels; see `lanes.py`

    def forward(self, kernels: ModuleType, a: Any, sampled: bool) -> None:
        kernels.reparameterize_forward(a.z, a.mu, a.logvar, a.eps)
        if sampled:
            kernels.log_ratio_forward(a.log_ratio, a.z, a.logvar, a.eps)
        else:
            kernels.gaussian_kl_forward(a.kl, a.mu, a.logvar)

    def backward(self, kernels: ModuleType, d: Any, a: Any, sampled: bool) -> None:
        """From d.z_nll, what the decoder says, and d.log_ratio or d.kl, what the objective says: d.mu and d.logvar.

        Two paths meet: through z, marked _z, and through the KL term, marked _kl.

            dz      = dz_nll, and where the KL term is sampled dz_nll + dz_kl          (D7.5)
            dmu     = dmu_z + dmu_kl,   dlogvar = dlogvar_z + dlogvar_kl               (D7.6)

        (If sampled, dz brings the KL term's part along, and there is no direct path to mu.)
        """
        if sampled:
            kernels.log_ratio_backward(d.z_kl, d.logvar_kl, d.log_ratio, a.z)
            kernels.add(d.z, d.z_nll, d.z_kl)
            kernels.reparameterize_backward(d.mu, d.logvar_z, d.z, a.logvar, a.eps)
        else:
            kernels.reparameterize_backward(d.mu_z, d.logvar_z, d.z_nll, a.logvar, a.eps)
            kernels.gaussian_kl_backward(d.mu_kl, d.logvar_kl, d.kl, a.mu, a.logvar)
            kernels.add(d.mu, d.mu_z, d.mu_kl)
        kernels.add(d.logvar, d.logvar_z, d.logvar_kl)
