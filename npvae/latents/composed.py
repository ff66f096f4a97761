"""Any flow with any prior: the latent variable of every model but the plain one.  Read after `base.py`."""
from types import ModuleType
from typing import Any

from ..buffers import Activations, Gradients
from ..params import Allocate, Block
from .base import Flow, KLEstimator, Prior
from .flows import NoFlow
from .gaussian import DiagonalGaussian
from .priors import StandardNormal


class Composed(DiagonalGaussian):
    """z0 = mu + sigma eps,  z = flow(z0),  and any prior.  The KL term is computed at the draws:

        log q(z|x) - log p(z) = log q0(z0|x) - log |det dz/dz0| - log p(z)

    (Rezende and Mohamed 2015, equation 13).  Rows of mu and logvar below those of the images belong to the prior.
    """

    recordable = True
    analytic = False

    def __init__(self, flow: Flow[Any], prior: Prior[Any]) -> None:
        self.flow, self.prior = flow, prior
        self.gaussian = type(flow) is NoFlow

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> None:
        """The further arrays of the flow and of the prior."""
        a.flow = self.flow.allocate(a, d, allocate)
        a.prior = self.prior.allocate(a, d, allocate)

    def forward(self, kernels: ModuleType, a: Activations, params: Block, estimator: KLEstimator) -> None:
        """From a.mu, a.logvar and a.eps to a.z and a.log_ratio:

            log_ratio = log q(z|x) - log p(z)                                          (D13.3)
            log q(z|x) = log q0(z0|x) - log_det                                        (D14.1)
        """
        images = slice(len(a.eps))
        kernels.reparameterize_forward(a.z0, a.mu[images], a.logvar[images], a.eps)
        kernels.log_q_forward(a.log_q, a.logvar[images], a.eps)
        self.flow.forward(kernels, a, a.flow, params)
        self.prior.forward(kernels, a, a.prior, params)
        kernels.subtract(a.log_q_z, a.log_q, a.log_det)
        kernels.subtract(a.log_ratio, a.log_q_z, a.log_p)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, grads: Block, params: Block,
                 estimator: KLEstimator) -> None:
        """From d.z_nll and d.log_ratio to d.mu, d.logvar, and the gradients of the flow and the prior."""
        images = slice(len(a.eps))
        kernels.negate(d.log_p, d.log_ratio)
        self.prior.backward(kernels, d, a, a.prior, grads, params)
        if estimator.follows_path:
            kernels.path_q_backward(d.z_q, d.log_ratio, a.logvar[images], a.eps)
            kernels.add(d.z_kl, d.z_p, d.z_q)
            self._path_backward(kernels, d, a, estimator)
            return
        kernels.add(d.z, d.z_nll, d.z_p)      # z reaches both the decoder and the prior
        kernels.negate(d.log_det, d.log_ratio)
        self.flow.backward(kernels, d, a, a.flow, grads, params)
        kernels.log_q_backward(d.logvar_kl, d.log_ratio)
        kernels.reparameterize_backward(d.mu[images], d.logvar_z, d.z0, a.logvar[images], a.eps)
        kernels.add(d.logvar[images], d.logvar_z, d.logvar_kl)


def compose(flow: Flow[Any], prior: Prior[Any]) -> DiagonalGaussian:
    """The latent variable with this flow and prior: the plain one, whose KL term is exact, if neither is a special one.
    """
    if type(flow) is NoFlow and type(prior) is StandardNormal:
        return DiagonalGaussian()
    return Composed(flow, prior)
