"""The checks of gradients, distributions and bounds.  Each takes a `Setting` and returns what is wrong, in a few words,
or "".

A statistical check has a fixed seed and allows five standard errors.  Its negative controls are the exhibits: wrong
code that it must catch.
"""
import math
from typing import Any

import numpy as np

from npvae import ELBO, IWAE, VAE
from npvae.evaluate import draw_noise
from npvae.gradcheck import check_gradients
from npvae.likelihoods import make_likelihood
from npvae.objectives import KLEstimator, Objective
from npvae.params import Array, Block

from .exhibit import Setting

STEP = 3      # for schedules
D, Z, SIGMA = 5, 2, 0.4      # of the linear Gaussian model


class Scaled(Objective):
    """An objective times a number, to see whether mistakes are found in a small loss, too."""

    def __init__(self, objective: Objective, scale: float) -> None:
        self.objective, self.kl_estimator, self.scale = objective, objective.kl_estimator, scale

    def __call__(self, nll: Array, reg: Array, step: int) -> tuple[Any, Any, Any]:
        loss, dnll, dreg = self.objective(nll, reg, step)
        return self.scale * loss, self.scale * dnll, self.scale * dreg


class Record(Objective):
    """An objective that keeps the terms of each image and draw."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.kl_estimator = objective, objective.kl_estimator

    def __call__(self, nll: Array, reg: Array, step: int) -> tuple[Any, Any, Any]:
        self.nll, self.reg = nll.copy(), reg.copy()
        return self.objective(nll, reg, step)


def deviation(draws: Array, expected: Any, what: str) -> str:
    """Whether the mean of `draws` over axis 0 differs from `expected` by more than five standard errors."""
    error, allowed = np.abs(draws.mean(axis=0) - expected), draws.std(axis=0) / math.sqrt(len(draws)) + 1e-13
    worst = float(np.max(error / allowed))
    return "" if worst <= 5 else f"{what} off by {min(worst, 1e6):.0f}{'+' * (worst > 1e6)} standard errors"


def difference(found: Any, expected: Any, what: str, tolerance: float = 1e-10) -> str:
    """Whether two numbers or arrays differ by more than rounding."""
    found, expected = (np.ravel(value) for value in np.broadcast_arrays(found, expected))
    error = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    worst = int(np.argmax(error))
    return "" if error[worst] <= tolerance else f"{what} {found[worst]:.4g}, should be {expected[worst]:.4g}"


def first(*findings: str) -> str:
    """The first finding that is not "", or ""."""
    return next(filter(None, findings), "")


# --- gradients ---

def complex_step(s: Setting) -> str:
    """The gradient of each tensor equals the complex step up to rounding.  The only check of gradients."""
    vae, analytic = s.model(), s.model("complex128")
    x, eps = s.images_and_noise()
    objective = Scaled(s.objective, s.scale)
    _, gradients = vae.loss_and_gradients(x, eps, objective, STEP)

    def loss(parameters: dict[str, Array]) -> float:
        return analytic.loss(x, eps, objective, STEP, parameters=parameters)

    report = check_gradients(loss, gradients, vae.parameters, counts={
        "B": s.batch, "K": s.draws, "B K": s.batch * s.draws, "D": s.input_dim})
    wrong = [tensor for tensor in report.tensors if tensor.verdict != "right"]
    if not wrong:
        return f"nothing tested in {', '.join(report.vacuous)}" if report.vacuous else ""
    reported = next((tensor for tensor in reversed(wrong) if tensor.diagnosis), wrong[-1])      # nearest to the loss
    return f"{reported.name}: {reported.diagnosis or f'relative error {reported.error:.0e}'}"


def run_twice(s: Setting) -> str:
    """A batch gives the same bits again after other batches have used the same buffers."""
    vae, (x, eps) = s.model(), s.images_and_noise()
    vae.passes(2 * s.batch, s.draws)      # for the largest batch: new memory below would hide stale numbers
    before = {name: value.copy() for name, value in vae.loss_and_gradients(x, eps, s.objective)[1].items()}
    vae.loss_and_gradients(np.concatenate([x, x]), np.concatenate([eps, -eps]), s.objective)
    after = vae.loss_and_gradients(x, eps, s.objective)[1]
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    return f"another gradient the second time: {', '.join(changed)}" if changed else ""


# --- distributions ---

def _posterior_draws(s: Setting) -> tuple[Any, Array, Array, Array]:
    """20,000 draws of z for one image by the model's forward pass: its buffers, z, mu, exp(logvar)."""
    vae = s.model()
    a, _ = vae.passes(1, 20000)
    a.x[...] = 0.5
    draw_noise(a, np.random.default_rng(1), vae.kernels)
    vae.forward(a, KLEstimator.EXACT)
    vae.forward(a, KLEstimator.SAMPLED)
    return a, a.z[0], a.mu[0], np.exp(a.logvar[0])


def sampler_variance(s: Setting) -> str:
    """z has the mean mu and the variance exp(logvar) of q(z|x)."""
    _, z, mu, variance = _posterior_draws(s)
    return first(deviation((z - mu) ** 2, variance, "variance"), deviation(z, mu, "mean"))


def score(s: Setting) -> str:
    """The score d log q / d(mu, logvar) has mean 0, and its square the Fisher information 1 / sigma^2 and 1/2."""
    _, z, mu, variance = _posterior_draws(s)
    by_mu, by_logvar = (z - mu) / variance, 0.5 * ((z - mu) ** 2 / variance - 1)
    return first(deviation(by_mu, 0, "E d log q / d mu"), deviation(by_logvar, 0, "E d log q / d logvar"),
                 deviation(by_mu ** 2, 1 / variance, "information on mu"),
                 deviation(by_logvar ** 2, 0.5, "information on logvar"))


def monte_carlo_kl(s: Setting) -> str:
    """The mean of log q(z|x) - log p(z) over draws equals the KL in closed form."""
    a, z, mu, variance = _posterior_draws(s)
    log_q = -0.5 * ((z - mu) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=1)
    log_p = -0.5 * (z ** 2 + np.log(2 * np.pi)).sum(axis=1)
    return first(deviation(log_q - log_p, a.kl.sum(), "KL"),
                 difference(a.log_ratio[0], log_q - log_p, "log q - log p"))


def independent_noise(s: Setting) -> str:
    """The noise of neighbouring images, draws, dimensions and batches is uncorrelated."""
    vae, rng = VAE(2, (), 30, kernels="numpy"), np.random.default_rng(2)
    a, _ = vae.passes(30, 30)
    draw_noise(a, rng, vae.kernels)
    eps = a.eps.copy()
    draw_noise(a, rng, vae.kernels)
    later = a.eps
    return first(deviation((eps[1:] * eps[:-1]).ravel(), 0, "correlation between images"),
                 deviation((eps[:, 1:] * eps[:, :-1]).ravel(), 0, "correlation between draws"),
                 deviation((eps[..., 1:] * eps[..., :-1]).ravel(), 0, "correlation between dimensions"),
                 deviation((eps * later).ravel(), 0, "correlation between batches"))


def _density(s: Setting) -> tuple[Any, VAE, Array, Array, Array]:
    """Likelihood, model, decoder output (P,), a grid of two-pixel images x (N, 2), p(x|z) times the area of a cell."""
    likelihood, vae = make_likelihood(s.likelihood), s.model()
    output = np.array([0.4, -0.7, -1.0, 0.3])[:likelihood.output_dim(2)]
    line = np.array([0.0, 1.0]) if s.likelihood == "bernoulli" else np.linspace(-16, 16, 401)
    x = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    nll, kept = np.empty((len(x), 1)), np.empty((len(x), 1, len(output)))
    params = Block(likelihood.shapes, "float64")
    likelihood.initialize(params)
    likelihood.forward(vae.kernels, nll, kept, np.tile(output, (len(x), 1, 1)), x, params)
    return likelihood, vae, output, x, np.exp(-nll[:, 0]) * (line[1] - line[0]) ** 2


def density_sums_to_one(s: Setting) -> str:
    """The sum, or integral, of exp(-nll) over all images is one."""
    *_, mass = _density(s)
    return "" if abs(mass.sum() - 1) <= 1e-9 else f"p(x|z) sums to {mass.sum():.3g}"


def draws_follow_the_density(s: Setting) -> str:
    """The mean image, and images drawn by `draw`, have the moments of exp(-nll)."""
    likelihood, vae, output, x, mass = _density(s)
    params = Block(likelihood.shapes, "float64")
    likelihood.initialize(params)
    mean = mass @ x
    drawn = likelihood.draw(vae.kernels, np.tile(output, (20000, 1)), params, np.random.default_rng(3))
    return first(difference(likelihood.mean(vae.kernels, output[None])[0], mean, "mean image"),
                 deviation(drawn, mean, "mean of draws"),
                 deviation((drawn - mean) ** 2, mass @ (x - mean) ** 2, "variance of draws"))


def initial_weights(s: Setting) -> str:
    """Weights have the variance gain / max(fan_in, fan_out), and no two layers start alike."""
    vae = VAE(30, (30, 30), 30, dtype="float64", kernels="numpy")
    weights = [(name, value.ravel()) for name, value in vae.parameters.items() if name.endswith(".W")]
    for i, (name, one) in enumerate(weights):
        gain = 2 if "coder" in name else 1      # 2 before a ReLU
        found = deviation(one ** 2, gain / 30, f"variance of {name}")
        alike = [other for other, two in weights[:i] if abs(np.corrcoef(one, two)[0, 1]) > 5 / 30]
        if found or alike:
            return found or f"{name} and {alike[0]} start alike"
    return ""


# --- bounds, where log p(x) is known: the linear Gaussian model x = z W + b + sigma noise ---

def _linear_model(mean_times: float = 1, variance_times: float = 1) -> tuple[VAE, Array, Array, Array]:
    """A linear VAE whose q(z|x) is the exact posterior, with mean and variance times a number; three images, the last
    far from the data; their log p(x); and their KL(q(z|x) || p(z|x)), the gap of the ELBO."""
    rng, vae = np.random.default_rng(5), VAE(D, (), Z, likelihood=f"gaussian:{SIGMA}", dtype="float64", kernels="numpy")
    W, b = vae.parameters["output.W"], vae.parameters["output.b"]
    # orthogonal rows, so that the posterior has a diagonal covariance, as q(z|x) has
    W[...] = rng.uniform(0.5, 1.5, (Z, 1)) * np.linalg.qr(rng.standard_normal((D, D)))[0][:Z]
    b[...] = rng.standard_normal(D)
    x = rng.standard_normal((3, D)) * [[1], [1], [40]]
    variance = 1 / (1 + np.sum(W * W, axis=1) / SIGMA ** 2)
    mean = (x - b) @ W.T * variance / SIGMA ** 2
    vae.parameters["mu.W"][...] = mean_times * W.T * variance / SIGMA ** 2
    vae.parameters["mu.b"][...] = -b @ vae.parameters["mu.W"]
    vae.parameters["logvar.W"][...] = 0
    vae.parameters["logvar.b"][...] = np.log(variance_times * variance)
    covariance = W.T @ W + SIGMA ** 2 * np.eye(D)
    distance = np.sum((x - b) * np.linalg.solve(covariance, (x - b).T).T, axis=1)
    log_p = -0.5 * (distance + np.linalg.slogdet(covariance)[1] + D * math.log(2 * math.pi))
    shift = ((mean_times - 1) * mean) ** 2 / variance
    gap = 0.5 * np.sum(shift + variance_times - 1 - math.log(variance_times), axis=1)
    return vae, x, log_p, gap


def _sigma_points(images: int) -> Array:
    """Noise +-sqrt(Z) along each axis (B, 2 Z, Z).  Averages of a quadratic function over these draws are exact."""
    return np.tile(math.sqrt(Z) * np.concatenate([np.eye(Z), -np.eye(Z)]), (images, 1, 1))


def exact_log_p(s: Setting) -> str:
    """Every bound equals log p(x) if q is the exact posterior; otherwise the ELBO is lower by KL(q || posterior)."""
    rng = np.random.default_rng(6)
    vae, x, log_p, _ = _linear_model()
    for n, where in ((2, "at its optimum"), (3, "far from the data")):
        for objective, name in ((ELBO(), "ELBO"), (ELBO(sampled=True), "sampled ELBO"), (IWAE(), "IWAE")):
            loss, _ = vae.loss_and_gradients(x[:n], _sigma_points(n), objective)
            found = difference(-loss, log_p[:n].mean(), f"{name} {where}")
            if found:
                return found
    found = difference(vae.log_likelihood(x, rng, 1500), log_p, "log_likelihood()")
    vae, x, log_p, gap = _linear_model(0.8, 2)
    loss, _ = vae.loss_and_gradients(x, _sigma_points(3), ELBO())
    draws = vae.elbo(np.repeat(x[:1], 5000, axis=0), rng)
    return first(found, difference(-loss, np.mean(log_p - gap), "ELBO"), deviation(draws, (log_p - gap)[0], "elbo()"))


def iwae_grows(s: Setting) -> str:
    """IWAE with K = 1 equals the ELBO; its mean grows with K and stays below log p(x)."""
    vae, x, log_p, _ = _linear_model(0.8, 2)
    rng, means, errors = np.random.default_rng(8), [], []
    for draws in (1, 2, 5):
        a, _ = vae.passes(4000, draws)
        a.x[...] = x[0]
        draw_noise(a, rng, vae.kernels)
        vae.forward(a, KLEstimator.SAMPLED)
        bounds = [-IWAE()(a.nll[i:i + 100], a.log_ratio[i:i + 100], 0)[0] for i in range(0, 4000, 100)]
        means.append(np.mean(bounds))
        errors.append(np.std(bounds) / math.sqrt(len(bounds)))
        if draws == 1:
            elbo = a.nll.mean() + a.log_ratio.mean()
            if abs(np.mean(bounds) + elbo) > 1e-9:
                return f"IWAE with K = 1 is {np.mean(bounds):.3g}, the ELBO {-elbo:.3g}"
    for k, (low, high) in enumerate(zip(means, [*means[1:], log_p[0]])):
        if high - low <= 5 * math.hypot(*errors[k:k + 2]):
            return f"bounds for K = 1, 2, 5 and log p: {', '.join(f'{b:.2f}' for b in [*means, log_p[0]])}"
    return ""


def new_images(s: Setting) -> str:
    """Samples have the model's covariance; reconstructions vary as z does under q(z|x)."""
    vae, _, _, _ = _linear_model(0.8, 2)
    W, b, rng = vae.parameters["output.W"], vae.parameters["output.b"], np.random.default_rng(9)
    pictures, variance = vae.sample(20000, rng) - b, np.diag(W.T @ W)
    W[...], b[...] = np.eye(Z, D), 0      # a decoder whose output is z
    mu, logvar = vae.encode(np.ones((1, D)))
    shown = vae.reconstruct(np.ones((20000, D)), rng)[:, :Z]
    return first(deviation(pictures, 0, "mean of samples"), deviation(pictures ** 2, variance, "variance of samples"),
                 deviation(shown, mu[0], "mean of reconstructions"),
                 deviation((shown - mu) ** 2, np.exp(logvar[0]), "variance of reconstructions"))


# --- rows ---

def row_routing(s: Setting) -> str:
    """Each image and each draw of noise changes its own terms of the loss, and no others."""
    vae, (x, eps) = s.model(), s.images_and_noise()
    for sampled in (False, True):
        objective = Record(ELBO(sampled=sampled))
        vae.loss_and_gradients(x, eps, objective)
        nll, reg = objective.nll, objective.reg
        moved_eps, moved_x, noise, image = eps.copy(), x.copy(), np.zeros_like(nll, bool), np.arange(s.batch) == 1
        moved_eps[2, 1] += 0.5
        moved_x[1] = 1 - moved_x[1]
        noise[2, 1] = True
        vae.loss_and_gradients(x, moved_eps, objective)
        if not np.array_equal(objective.nll != nll, noise):
            return "noise changes other terms than those of its draw"
        vae.loss_and_gradients(moved_x, eps, objective)
        for before, after in ((nll, objective.nll), (reg, objective.reg)):
            if not np.array_equal((before != after).any(axis=1), image):
                return "an image changes other terms than those of its row"
    return ""
