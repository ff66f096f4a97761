"""Objectives: one number to minimise from what each image contributes.  Read after `latents/`.

An objective is called as

    loss, dnll, dreg = objective(nll, reg, step)

with nll (B, K), and reg either the exact KL per dimension (B, Z) or, if the KL term is sampled, log q - log p (B, K).
loss is in nats per image, a mean over the batch, and always minus a bound.  dnll and dreg are dloss/dnll and
dloss/dreg; each has the shape of its array or broadcasts to it (a float where every entry is the same).  Nothing here
knows of a network, so each objective can be checked by itself, and a new one needs no edit elsewhere.

`objective.kl_estimator` says which form of reg it takes (`KLEstimator`).  Where it is sampled, `gradient` says what the
encoder learns from:

    total    the derivative of the loss under the noise that was drawn
    stl      without the score of q, which is noise: sticking the landing (Roeder et al. 2017).  The same on average for
             the ELBO, not for IWAE with more than one draw
    dreg     doubly reparameterized (Tucker et al. 2019), for IWAE: the same on average, with less noise

The loss is the same, the decoder's gradient too; the formulas are in `kernels/reference/estimators.py`.

`beta`, the weight of the KL term, is given as a number or as a function of the step; `objective.beta(step)` says it,
and `fit` records it.  `bound()` is the objective of the same kind that a test set is measured with: a true bound, with
beta = 1 and no free bits.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .kernels.reference import importance_bound_backward, importance_bound_forward
from .latents.base import KLEstimator as KLEstimator      # who writes an objective takes it from here
from .params import Array
from .validate import Described, choice, described, integer, real, shown

Schedule = Callable[[int], float]
Terms = tuple[Any, Any, Any]


class LinearAnnealing(Described):
    """beta rises in a straight line from 0 at step 0 to its full value at `steps` (Bowman et al. 2016)."""

    made_of = ("steps", "beta")

    def __init__(self, steps: int, beta: float = 1.0) -> None:
        self.steps, self.beta = integer("steps", steps, 1), real("beta", beta, 0)

    def __call__(self, step: int) -> float:
        """beta(step) = beta min(1, step / steps)  (D11.2)."""
        return self.beta * min(1.0, step / self.steps)


class CyclicalAnnealing(Described):
    """`cycles` times over: beta rises from 0 over the first `ratio` of a cycle, then stays (Fu et al. 2019, eq. 6)."""

    made_of = ("total_steps", "cycles", "ratio", "beta")

    def __init__(self, total_steps: int, cycles: int = 4, ratio: float = 0.5, beta: float = 1.0) -> None:
        self.total_steps, self.cycles = integer("total_steps", total_steps, 1), integer("cycles", cycles, 1)
        self.ratio, self.beta = real("ratio", ratio, 0, strict=True), real("beta", beta, 0)
        if self.ratio > 1:
            raise ValueError(f"ratio must be at most 1, got {ratio}")

    def __call__(self, step: int) -> float:
        """beta(step) = beta min(1, position / ratio),  position in [0, 1) how far the cycle is  (D11.3)."""
        if step >= self.total_steps:
            return self.beta
        position = (step * self.cycles / self.total_steps) % 1.0
        return self.beta * min(1.0, position / self.ratio)


class _Weight:
    """beta of a step, from a number or a schedule; what a schedule says is checked."""

    def __init__(self, beta: float | Schedule) -> None:
        self.beta = beta if callable(beta) else real("beta", beta, 0)

    def __call__(self, step: int) -> float:
        return real("beta", self.beta(step), 0) if callable(self.beta) else self.beta

    def __repr__(self) -> str:
        return described(self.beta)


_ESTIMATORS = {"total": KLEstimator.SAMPLED, "stl": KLEstimator.STICKING_THE_LANDING,
               "dreg": KLEstimator.DOUBLY_REPARAMETERIZED}


class Objective(Described, ABC):
    """What is minimised.  To add one, subclass: `__call__`, and `kl_estimator` unless the KL term is exact."""

    kl_estimator: KLEstimator = KLEstimator.EXACT
    gradient: str = "total"
    beta: Schedule

    @abstractmethod
    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """loss, dnll, dreg."""

    def bound(self) -> "Objective":
        """What a test set is measured with: the ELBO."""
        return ELBO(sampled=self.kl_estimator.is_sampled)

    @property
    def sampled(self) -> KLEstimator:
        """How it describes its estimator in a saved run."""
        return self.kl_estimator


class ELBO(Objective):
    """loss = mean_{b,k} nll + beta mean_b KL: minus the evidence lower bound at beta = 1 (Kingma and Welling 2014), the
    beta-VAE otherwise (Higgins et al. 2017).  `sampled` takes log q - log p at the draws in place of the exact KL;
    then `gradient` may be "stl"."""

    made_of = ("beta", "sampled")

    def __init__(self, beta: float | Schedule = 1.0, sampled: bool = False, gradient: str = "total") -> None:
        if sampled not in (True, False):
            raise TypeError(f"sampled must be True or False, got {shown(sampled)}: gradient= names an estimator")
        if gradient == "dreg":
            raise ValueError("gradient dreg is made of importance weights, which IWAE(gradient='dreg') has: for ELBO, "
                             "total and stl fit")
        if choice("gradient", gradient, ("total", "stl")) != "total" and not sampled:
            raise ValueError(f"gradient {gradient} leaves out a part of the sampled KL term, and this one is exact: "
                             f"ELBO(sampled=True, gradient={gradient!r}) fits")
        self.beta, self.gradient = _Weight(beta), gradient
        self.kl_estimator = _ESTIMATORS[gradient] if sampled else KLEstimator.EXACT

    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """loss = mean_{b,k} nll + beta mean_b sum_j kl  (D11.1), or of log_ratio + beta mean_{b,k} log_ratio.

            loss = 1/(B K) sum nll + beta/B sum kl                           (D7.2)
            dnll = 1/(B K)                                                   (D7.3)
            dkl  = beta/B,   dlog_ratio = beta/(B K)                         (D7.4)

        At beta = 1, on average over the noise:  loss = mean_b [ KL(q(z|x) || p(z|x)) - log p(x) ]           (D7.1)
        """
        batch, draws = nll.shape
        dnll = 1 / (batch * draws)
        dreg = self.beta(step) / (batch * draws if self.kl_estimator.is_sampled else batch)
        return dnll * nll.sum() + dreg * reg.sum(), dnll, dreg


class FreeBits(Objective):
    """loss = mean_{b,k} nll + beta sum_j max(bits, mean_b KL_j): a latent dimension may use `bits` nats, on average
    over the batch, without paying for them, and so is not switched off early (Kingma et al. 2016, equation 15)."""

    made_of = ("bits", "beta")

    def __init__(self, bits: float, beta: float | Schedule = 1.0) -> None:
        self.bits, self.beta = real("free bits", bits, 0), _Weight(beta)

    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """With R_j = mean_b kl[b, j], the mean over the batch:

            loss = mean_{b,k} nll + beta sum_j max(bits, R_j)             (D11.4)
            dkl[b, j] = beta / B where R_j > bits, else 0                 (D11.5)
        """
        batch, draws = nll.shape
        dnll = 1 / (batch * draws)
        beta = self.beta(step)
        mean = reg.sum(axis=0) / batch
        paid = ~(mean.real <= self.bits)      # so that NaN is paid for
        loss = dnll * nll.sum() + beta * np.where(paid, mean, self.bits).sum()
        return loss, dnll, np.where(paid, beta / batch, 0)


class IWAE(Objective):
    """loss = -mean_b log 1/K sum_k w,  log w = -nll - beta (log q - log p): the importance-weighted bound (Burda et al.
    2016).  K is the number of draws; K = 1 is the ELBO with a sampled KL term.  gradient: "total", "stl" or "dreg"."""

    made_of = ("beta", "sampled")

    def __init__(self, beta: float | Schedule = 1.0, gradient: str = "total") -> None:
        self.beta, self.gradient = _Weight(beta), choice("gradient", gradient, _ESTIMATORS)
        self.kl_estimator = _ESTIMATORS[gradient]

    def __call__(self, nll: Array, reg: Array, step: int) -> Terms:
        """log_w = -nll - beta log_ratio,  dbound = -1 / B,  and with the weights w~ of the kernel     (D10.5)

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
