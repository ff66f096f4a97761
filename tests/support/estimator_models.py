"""What `test_estimators` lends to other tests."""
import numpy as np
import pytest

from npvae import VAE
from npvae.kernels import fused, reference
from npvae.latents import Composed
from strategies import spread

MODULES = pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])


def draws(size, seed):
    """mu, logvar, eps and the z that they make; an upstream gradient for each draw."""
    rng = np.random.default_rng(seed)
    mu, logvar = spread(rng, (size["B"], size["Z"])), spread(rng, (size["B"], size["Z"]))
    eps, up = spread(rng, (size["B"], size["K"], size["Z"])), rng.standard_normal((size["B"], size["K"]))
    return mu, logvar, eps, mu[:, None] + np.exp(logvar / 2)[:, None] * eps, up


LATENTS = {"plain": {}, "composed": {}, "mixture": {"prior": "mixture:2"}, "vamp": {"prior": "vamp:4"},
           "hierarchical": {"prior": "hierarchical:4,2"}}
LATENT = pytest.mark.parametrize("latent", LATENTS)


def models(latent="plain", seed=1, Z=3, name="numpy", **config):
    """A float64 model with random parameters, and its twin in complex numbers.  "composed" is the plain latent variable
    put together as the richer ones are."""
    def build(dtype, kernels):
        with pytest.MonkeyPatch.context() as patch:
            if latent == "composed":
                patch.setattr("npvae.model.vae.compose", Composed)
            return VAE(5, (6,), Z, "tanh", dtype=dtype, kernels=kernels, seed=seed, **LATENTS[latent], **config)

    vae, twin = build("float64", name), build("complex128", "numpy")
    vae.parameters.flat[...] += 0.3 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae, twin


def of_q(name):
    """Does q(z|x) have this parameter?"""
    return name.split(".")[0] in ("encoder", "mu", "logvar")


def noise(vae, size, draws, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((size, vae.input_dim)), rng.standard_normal((size, draws, vae.noise_dim))


def fill(a, x, eps, labels=0):
    """What a pass starts from."""
    Z = a.eps.shape[2]
    a.x[...], a.labels[...], a.eps[...], a.eps_prior[...] = x, labels, eps[..., :Z], eps[..., Z:]


def gradient(vae, x, eps, objective, kernels=reference, labels=0, step=0):
    """The loss, the gradient of every parameter, and the buffers of the pass."""
    a, d = vae.passes(len(x), eps.shape[1])
    fill(a, x, eps, labels)
    vae.forward(a, objective.kl_estimator, kernels)
    loss, d.nll[...], d.log_ratio[...] = objective(a.nll, a.log_ratio, step)
    vae.backward(d, a, objective.kl_estimator, kernels)
    return loss, {name: value.copy() for name, value in vae.gradients.items()}, a
