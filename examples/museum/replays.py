"""Checks that repeat in plain loops over numbers what the library computes: objectives, Adam, epochs of training.  Like
those in `checks.py`, each takes a `Setting` and returns what is wrong, or "".
"""
import math
from typing import Any

import numpy as np

from npvae import ELBO, IWAE, VAE, Adam, CyclicalAnnealing, FreeBits, LinearAnnealing, fit
from npvae.train import Callback
from npvae.kernels import reference
from npvae.optim import StepLR
from npvae.params import Array, Block

from .checks import Record, deviation, difference, first
from .exhibit import Setting


def objective_by_hand(s: Setting) -> str:
    """Objectives, their `bound()` and schedules equal their definitions, on random numbers."""
    rng = np.random.default_rng(1)
    nll, kl, ratio = rng.uniform(1, 3, (3, 2)), rng.uniform(0, 1, (3, 4)), rng.standard_normal((3, 2))
    per_latent = [sum(float(v) for v in column) / 3 for column in kl.T]
    w = [[math.exp(-one - 0.6 * other) for one, other in zip(*rows)] for rows in zip(nll, ratio)]
    expected: dict[Any, float] = {
        ELBO(0.7): nll.sum() / 6 + 0.7 * sum(per_latent),
        ELBO(0.7, sampled=True): nll.sum() / 6 + 0.7 * ratio.sum() / 6,
        FreeBits(0.5, 0.7): nll.sum() / 6 + 0.7 * sum(max(0.5, one) for one in per_latent),
        IWAE(0.6): -sum(math.log((one + two) / 2) for one, two in w) / 3}
    found = [difference(objective(nll, ratio if objective.kl_estimator.is_sampled else kl, 0)[0], value,
                        type(objective).__name__) for objective, value in expected.items()]
    found += [difference(objective.bound().beta(5), 1.0, f"beta of the bound of {type(objective).__name__}")
              for objective in expected]
    rise, cycles = LinearAnnealing(8, 0.5), CyclicalAnnealing(20, cycles=2, ratio=0.5)
    found += [difference(rise(step), value, f"linear annealing at step {step}")
              for step, value in ((0, 0), (2, 0.125), (8, 0.5), (30, 0.5))]
    found += [difference(cycles(step), value, f"cyclical annealing at step {step}")
              for step, value in ((0, 0), (3, 0.6), (7, 1), (10, 0), (12, 0.4), (25, 1))]
    return first(*found)


class TextbookAdam:
    """Kingma and Ba 2015, Algorithm 1, one number at a time."""

    def __init__(self, theta: Array, lr: Any, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                 max_norm: float = math.inf) -> None:
        self.theta, self.m, self.v = [float(v) for v in theta], [0.0] * len(theta), [0.0] * len(theta)
        self.t, self.lr, self.beta1, self.beta2, self.eps, self.max_norm = 0, lr, beta1, beta2, eps, max_norm

    def step(self, gradient: Array) -> None:
        lr, norm = self.lr(self.t), math.sqrt(sum(float(g) ** 2 for g in gradient))
        self.t += 1
        for i, g in enumerate(gradient):
            g = float(g) * min(1.0, self.max_norm / norm)
            self.m[i] = self.beta1 * self.m[i] + (1 - self.beta1) * g
            self.v[i] = self.beta2 * self.v[i] + (1 - self.beta2) * g * g
            m_hat, v_hat = self.m[i] / (1 - self.beta1 ** self.t), self.v[i] / (1 - self.beta2 ** self.t)
            self.theta[i] -= lr * m_hat / (math.sqrt(v_hat) + self.eps)


def adam_by_hand(s: Setting) -> str:
    """Seven steps equal the textbook's: gradients longer and shorter than max_norm, a schedule, a large eps."""
    rng, options = np.random.default_rng(2), {"beta1": 0.8, "beta2": 0.95, "eps": 0.01, "max_norm": 1.5}
    parameters, gradients = (Block({"W": (2, 3), "b": (3,)}, "float64") for _ in range(2))
    parameters.flat[...] = rng.standard_normal(9)
    schedule = StepLR(0.1, [3, 5], 0.5)
    adam, textbook = Adam(schedule, **options), TextbookAdam(parameters.flat, schedule, **options)
    for step in range(1, 8):
        gradients.flat[...] = rng.standard_normal(9) * (0.1 if step % 3 == 0 else 1.0)
        adam.step(parameters, gradients, reference)
        textbook.step(gradients.flat)
        found = difference(parameters.flat, np.array(textbook.theta), f"step {step}", 1e-12)
        if found:
            return found
    return ""


class Log(Callback):
    """Keeps the images and the noise of every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[Array, Array]] = []

    def on_step(self, run: Any) -> None:
        size = run.settings["batch_size"]
        left = min(size, len(run.train) - (run.batch - 1) * size)
        a, _ = run.vae.passes(left, 1)
        self.steps.append((a.x.copy(), a.eps.copy()))


def epoch_by_hand(s: Setting) -> str:
    """Two epochs of fit() equal a replay: images, their order and noise; parameters; training losses; test metrics."""
    images = np.random.default_rng(3).integers(0, 256, (7, 3), dtype=np.uint8)
    train, test, schedule = images, images[:4] // 2, LinearAnnealing(5)
    vae, log, optimizer = _small_vae(), Log(), Adam(0.01)
    history = fit(vae, train, test, 2, 3, optimizer, ELBO(schedule), seed=1, callbacks=[log])
    epochs = [log.steps[:len(log.steps) // 2], log.steps[len(log.steps) // 2:]]
    seen = [np.concatenate([x for x, _ in steps]) for steps in epochs]
    noise = [float(eps[0, 0, 0]) for _, eps in log.steps]
    for rows in seen:
        if len(rows) != 7 or np.abs(np.sort(rows, axis=0) - np.sort(train / 255, axis=0)).max() > 1e-12:
            return "an epoch does not show every image once, as numbers in [0, 1]"
    if any(np.array_equal(rows, train / 255) for rows in seen) or np.array_equal(seen[0], seen[1]):
        return "the images are not shuffled anew"
    if len(set(noise)) != len(noise):
        return "two steps see the same noise"
    replayed, losses = _replay(log.steps, schedule)
    mu, logvar = vae.encode(test / 255)
    kl = 0.5 * (mu ** 2 + np.exp(logvar) - 1 - logvar)
    means = [np.average(part, axis=0, weights=[len(x) for x, _ in steps])
             for part, steps in zip((losses[:3], losses[3:]), epochs)]
    found = [difference(entry[f"train_{name}"], mean[i], f"train_{name}")
             for entry, mean in zip(history, means) for i, name in enumerate(("loss", "nll", "kl"))]
    last = history[-1]
    return first(f"{optimizer.t} steps of Adam for 6 batches" * (optimizer.t != 6),
                 difference(vae.parameters.flat, replayed, "parameters"), *found,
                 difference(last["test_kl"], kl.sum(axis=1).mean(), "test_kl"),
                 difference(last["test_loss"], last["test_nll"] + last["test_kl"], "test_loss"),
                 difference(last["active_units"], sum(np.var(column) > 0.01 for column in mu.T), "active_units"))


def _small_vae() -> VAE:
    vae = VAE(3, (4,), 2, "tanh", dtype="float64", kernels="numpy", seed=2)
    vae.parameters["mu.W"][:, 0] *= 10      # one latent dimension in use, one not
    vae.parameters["mu.W"][:, 1] *= 0.01
    return vae


def _replay(steps: list[tuple[Array, Array]], schedule: Any) -> tuple[Array, list[tuple[float, float, float]]]:
    """The parameters after these batches, and the mean loss, nll and KL of each batch."""
    vae, losses = _small_vae(), []
    adam = TextbookAdam(vae.parameters.flat, lambda step: 0.01)
    for step, (x, eps) in enumerate(steps):
        objective = Record(ELBO(schedule))
        _, gradients = vae.loss_and_gradients(x, eps, objective, step)
        nll, kl = objective.nll.mean(), objective.reg.sum(axis=1).mean()
        losses.append((nll + schedule(step) * kl, nll, kl))
        adam.step(gradients.flat)
        vae.parameters.flat[...] = adam.theta
    return vae.parameters.flat, losses


def binarization(s: Setting) -> str:
    """A pixel is white with its grey value as the probability."""
    rows, x = np.array([[10, 128, 250]], np.uint8), np.empty((20000, 3))
    noise = np.random.default_rng(4).random(x.shape)
    reference.gather_binarized(x, rows, np.zeros(len(x), int), noise, 1 / 255)
    return deviation(x, rows[0] / 255, "share of white pixels")
