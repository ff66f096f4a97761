"""Objectives: the loss and its gradient, from the terms that each image contributes.  Read after `latents/`.

An objective is called as

    loss, dnll, dreg = objective(nll, reg, step)

with nll (B, K), and reg either the exact KL term of each dimension (B, Z) or, if it is sampled, log q - log p (B, K).
loss is minus a bound, in nats per image, a mean over the batch.  dnll = dloss/dnll and dreg = dloss/dreg have the shape
of their array or broadcast to it (a float if all entries are equal).  An objective knows nothing of the network, so
each can be tested by itself, and a new one needs no change elsewhere.

`objective.kl_estimator` says which form of reg it takes (`KLEstimator`).  If the KL term is sampled, `gradient` says
which gradient the encoder gets:

    total    the derivative of the loss for the given noise
    stl      sticking the landing (Roeder et al. 2017): without the score of q, which is noise.  Unbiased for the ELBO,
             biased for IWAE with more than one draw
    dreg     doubly reparameterized (Tucker et al. 2019): unbiased for IWAE, of lower variance

The loss and the decoder's gradient do not depend on it.  The formulas are in `kernels/reference/estimators.py`.

`beta`, the weight of the KL term, is a number or a function of the step; `objective.beta(step)` returns it, and `fit`
records it.  `objective.bound()` is the objective for test data: a true bound, with beta = 1 and no free bits.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from .kernels.reference import importance_bound_backward, importance_bound_forward
from .latents.base import KLEstimator as KLEstimator      # for objectives of users
from .params import Array
from .validate import Described, choice, described, integer, real, shown

Schedule = Callable[[int], float]
Terms = tuple[float, Array | float, Array | float]


class LinearAnnealing(Described):
    """beta rises linearly from 0 at step 0 to its final value at step `steps` (Bowman et al. 2016)."""

    made_of = ("steps", "beta")

    def __init__(self, steps: int, beta: float = 1.0) -> None:
        self.steps, self.beta = integer("steps", steps, 1), real("beta", beta, 0)

    def __call__(self, step: int) -> float:
        """beta(step) = beta min(1, step / steps)  (D11.2)."""
        return self.beta * min(1.0, step / self.steps)


class CyclicalAnnealing(Described):
    """In each of `cycles` cycles beta rises from 0 during the first `ratio` of the cycle, then stays (Fu et al. 2019,
    eq. 6)."""

    made_of = ("total_steps", "cycles", "ratio", "beta")

    def __init__(self, total_steps: int, cycles: int = 4, ratio: float = 0.5, beta: float = 1.0) -> None:
        self.total_steps, self.cycles = integer("total_steps", total_steps, 1), integer("cycles", cycles, 1)
        self.ratio, self.beta = real("ratio", ratio, 0, strict=True), real("beta", beta, 0)
        if self.ratio > 1:
            raise ValueError(f"ratio must be at most 1, got {ratio}")

    def __call__(self, step: int) -> float:
        """beta(step) = beta min(1, position / ratio),  where position in [0, 1) is the place within the cycle  (D11.3).
        """
        if step >= self.total_steps:
            return self.beta
        position = (step * self.cycles / self.total_steps) % 1.0
        return self.beta * min(1.0, position / self.ratio)


class _Weight:
    """beta as a function of the step, from a number or a schedule; the values of a schedule are checked."""

    def __init__(self, beta: float | Schedule) -> None:
        self.beta = beta if callable(beta) else real("beta", beta, 0)

    def __call__(self, step: int) -> float:
        return real("beta", self.beta(step), 0) if callable(self.beta) else self.beta

    def __repr__(self) -> str:
        return described(self.beta)


_ESTIMATORS = {"total": KLEstimator.SAMPLED, "stl": KLEstimator.STICKING_THE_LANDING,
               "dreg": KLEstimator.DOUBLY_REPARAMETERIZED}


class Objective(Described, ABC):
    """What is minimised.  To add one, subclass it and write `__call__`, and `kl_estimator` unless the KL term is exact.
    """

    kl_estimator: KLEstimator = KLEstimator.EXACT
    gradient: str = "total"
    beta: Schedule

    @abstractmethod
    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """loss, dnll and dreg, from nll (B, K) and reg (B, Z) or (B, K); see the top of this file."""

    def bound(self) -> "Objective":
        """The objective for test data: the ELBO."""
        return ELBO(sampled=self.kl_estimator.is_sampled)

    @property
    def sampled(self) -> KLEstimator:
        """The estimator, under the name that saved runs use."""
        return self.kl_estimator


class ELBO(Objective):
    """loss = mean_{b,k} nll + beta mean_b KL: minus the evidence lower bound at beta = 1 (Kingma and Welling 2014), the
    beta-VAE otherwise (Higgins et al. 2017).

    Parameters
    ----------
    beta : weight of the KL term, a number or a function of the step
    sampled : estimate the KL term by log q - log p at the draws, instead of the exact KL
    gradient : "total", or, if sampled, "stl"

    Raises ValueError or TypeError that names the argument.
    """

    made_of = ("beta", "sampled")

    def __init__(self, beta: float | Schedule = 1.0, sampled: bool = False, gradient: str = "total") -> None:
        if sampled not in (True, False):
            raise TypeError(f"sampled must be True or False, got {shown(sampled)}; an estimator is given as gradient=")
        if gradient == "dreg":
            raise ValueError("gradient dreg needs importance weights, as in IWAE(gradient='dreg'): for ELBO use total "
                             "or stl")
        if choice("gradient", gradient, ("total", "stl")) != "total" and not sampled:
            raise ValueError(f"gradient {gradient} needs a sampled KL term, and this one is exact: use "
                             f"ELBO(sampled=True, gradient={gradient!r})")
        self.beta, self.gradient = _Weight(beta), gradient
        self.kl_estimator = _ESTIMATORS[gradient] if sampled else KLEstimator.EXACT

    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """loss = mean_{b,k} nll + beta mean_b sum_j kl  (D11.1),  or, sampled, mean_{b,k} nll + beta mean_{b,k}
        log_ratio.

            loss = 1/(B K) sum nll + beta/B sum kl                           (D7.2)
            dnll = 1/(B K)                                                   (D7.3)
            dkl  = beta/B,   dlog_ratio = beta/(B K)                         (D7.4)

        At beta = 1 the mean of the loss over the noise is  mean_b [ KL(q(z|x) || p(z|x)) - log p(x) ]           (D7.1)
        """
        batch, draws = nll.shape
        dnll = 1 / (batch * draws)
        dreg = self.beta(step) / (batch * draws if self.kl_estimator.is_sampled else batch)
        return dnll * nll.sum() + dreg * reg.sum(), dnll, dreg


class FreeBits(Objective):
    """loss = mean_{b,k} nll + beta sum_j max(bits, mean_b KL_j)  (Kingma et al. 2016, equation 15).

    Each latent dimension may use `bits` nats for free, on average over the batch, so that none is switched off early.

    Parameters
    ----------
    bits : nats per latent dimension
    beta : weight of the KL term, a number or a function of the step

    Raises ValueError or TypeError that names the argument.
    """

    made_of = ("bits", "beta")

    def __init__(self, bits: float, beta: float | Schedule = 1.0) -> None:
        self.bits, self.beta = real("free bits", bits, 0), _Weight(beta)

    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """With R_j = mean_b kl[b, j]:

            loss = mean_{b,k} nll + beta sum_j max(bits, R_j)             (D11.4)
            dkl[b, j] = beta / B where R_j > bits, else 0                 (D11.5)
        """
        batch, draws = nll.shape
        dnll = 1 / (batch * draws)
        beta = self.beta(step)
        mean = reg.sum(axis=0) / batch
        paid = ~(mean.real <= self.bits)      # true for NaN, which must not be hidden
        loss = dnll * nll.sum() + beta * np.where(paid, mean, self.bits).sum()
        return loss, dnll, np.where(paid, beta / batch, 0)


class IWAE(Objective):
    """loss = -mean_b log 1/K sum_k w,  log w = -nll - beta (log q - log p): minus the importance-weighted bound (Burda
    et al. 2016).  K is the number of draws; K = 1 gives the ELBO with a sampled KL term.

    Parameters
    ----------
    beta : weight of the KL term, a number or a function of the step
    gradient : "total", "stl" or "dreg"

    Raises ValueError or TypeError that names the argument.
    """

    made_of = ("beta", "sampled")

    def __init__(self, beta: float | Schedule = 1.0, gradient: str = "total") -> None:
        self.beta, self.gradient = _Weight(beta), choice("gradient", gradient, _ESTIMATORS)
        self.kl_estimator = _ESTIMATORS[gradient]

    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """log_w = -nll - beta log_ratio,  dbound = -1 / B,  and with the normalised importance weights w~     (D10.5)

            dnll = w~ / B
            dlog_ratio = beta w~ / B

        gradient="stl" leaves out the score, whose mean is  beta E sum_k w~_k (1 - w~_k) path_k          (D15.7)
        """
        batch, beta = len(nll), self.beta(step)
        log_w = -(nll + beta * reg)
        bound, weights, dlog_w = np.empty_like(log_w[:, 0]), np.empty_like(log_w), np.empty_like(log_w)
        importance_bound_forward(bound, weights, log_w)
        importance_bound_backward(dlog_w, np.full_like(bound, -1 / batch), weights)
        return -bound.sum() / batch, -dlog_w, -beta * dlog_w

    def bound(self) -> "IWAE":
        return IWAE()
