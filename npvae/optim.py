"""Adam on one flat block, and learning-rate schedules.  Read after `model/`; the formulas are in
`kernels/reference/optim.py`.

A schedule is a function of the step, which counts from 0.
"""
import math
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from .objectives import Schedule as Schedule
from .params import Block, HasUpdate
from .validate import Described, integer, real


class ConstantLR(Described):
    """The learning rate lr at every step."""

    made_of = ("lr",)

    def __init__(self, lr: float) -> None:
        self.lr = real("lr", lr, 0, strict=True)

    def __call__(self, step: int) -> float:
        return self.lr


class StepLR(Described):
    """lr * factor^n, with n the number of `milestones` (steps, ascending) that have been reached."""

    made_of = ("lr", "milestones", "factor")

    def __init__(self, lr: float, milestones: Sequence[int], factor: float = 0.1) -> None:
        self.lr, self.factor = real("lr", lr, 0, strict=True), real("factor", factor, 0, strict=True)
        self.milestones = [integer("milestones", milestone, 1) for milestone in milestones]
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend, got {list(milestones)}")

    def __call__(self, step: int) -> float:
        """lr * factor^n,  n = number of milestones <= step          (D8.7)"""
        return self.lr * self.factor ** sum(step >= milestone for milestone in self.milestones)


class CosineLR(Described):
    """lr * (1 + cos(pi step / total_steps)) / 2: from lr down to 0 (Loshchilov and Hutter 2017, without restarts)."""

    made_of = ("lr", "total_steps")

    def __init__(self, lr: float, total_steps: int) -> None:
        self.lr, self.total_steps = real("lr", lr, 0, strict=True), integer("total_steps", total_steps, 1)

    def __call__(self, step: int) -> float:
        """lr / 2 [ 1 + cos(pi t / T) ],  t = min(step, T),  T = total_steps      (D8.6)"""
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.total_steps)))


class Adam(Described):
    """Adam (Kingma and Ba 2015, Algorithm 1); with weight decay AdamW (Loshchilov and Hutter 2019, Algorithm 2).

    Parameters
    ----------
    lr : step size, or a function of the step
    beta1, beta2 : decay of the two running means, in [0, 1)
    eps : added to sqrt(v_hat), after the bias correction
    max_norm : a gradient with a larger global norm is scaled down to it; None never scales
    weight_decay : each step multiplies the weights W of layers by 1 - lr * weight_decay; biases are left alone

    Attributes
    ----------
    t : number of steps taken
    m, v : running means of the gradient and of its square, blocks like the parameters; None before the first step

    Raises ValueError or TypeError for numbers out of range.
    """

    made_of = ("lr", "beta1", "beta2", "eps", "max_norm", "weight_decay")

    def __init__(self, lr: float | Schedule = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                 max_norm: float | None = None, weight_decay: float = 0.0) -> None:
        self.lr: Schedule = lr if callable(lr) else ConstantLR(lr)
        self.beta1, self.beta2 = real("beta1", beta1, 0), real("beta2", beta2, 0)
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if beta >= 1:
                raise ValueError(f"{name} must be less than 1, got {beta}")
        self.eps = real("eps", eps, 0, strict=True)
        self.max_norm = None if max_norm is None else real("max_norm", max_norm, 0, strict=True)
        self.weight_decay = real("weight_decay", weight_decay, 0)
        self.t = 0
        self.m: Block | None = None
        self.v: Block | None = None

    def prepare(self, parameters: Block) -> tuple[Block, Block]:
        """m and v, made at the first use.  Raises ValueError if they belong to other parameters, or if eps is below the
        smallest normal number of their type."""
        if self.m is None or self.v is None:
            if self.eps < (least := np.finfo(parameters.flat.dtype).tiny):      # it may round to 0, and give 0/0
                raise ValueError(f"eps must be at least {least:.2g} for {parameters.flat.dtype}, got {self.eps}")
            self.m, self.v = parameters.zeros_like(), parameters.zeros_like()
        if self.m.shapes != parameters.shapes or self.m.flat.dtype != parameters.flat.dtype:
            raise ValueError("this optimizer has taken steps on other parameters: make a new one for this model")
        return self.m, self.v

    def step(self, parameters: Block, gradients: Block, kernels: ModuleType | HasUpdate | None = None) -> None:
        """One update of `parameters`, in place, by `adam_update` of `kernels` (by default those of
        `parameters.kernels`).

        The gradient is clipped, by its norm over all tensors together:

            scale * gradient,  scale = min(1, max_norm / |gradient|)      (D8.5)

        and before the update the weights decay, without changing the moments:  W <- (1 - lr weight_decay) W     (D8.8)

        Raises ValueError as `prepare` does.
        """
        m, v = self.prepare(parameters)
        lr, scale = self.lr(self.t), 1.0
        if self.max_norm is not None:
            largest, ratio = gradients.norm_in_parts()      # their product may overflow
            scale = self.max_norm / largest / ratio if largest * ratio > self.max_norm else 1.0
        self.t += 1
        for name, value in parameters.items() if self.weight_decay else ():
            if name.endswith(".W"):
                value *= 1 - lr * self.weight_decay
        kernels = parameters.kernels if kernels is None else kernels
        kernels.adam_update(parameters.flat, m.flat, v.flat, gradients.flat, lr, self.beta1, self.beta2, self.eps,
                            scale, self.t)
