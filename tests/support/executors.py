"""What `test_lanes` lends to other tests."""
from unittest import mock

import numpy as np
import pytest

from npvae import ELBO, VAE
from npvae.decoders import MADE
from npvae.engine.executor import DirectExecutor
from whole_models import STEP

RNG = np.random.default_rng(30)
CONSTANT = ("log det", "prior logits", "prior bias")      # 0 for good where no flow and no mixture writes them
X, X_TEST = RNG.integers(0, 256, (53, 7), dtype=np.uint8), RNG.integers(0, 256, (9, 7), dtype=np.uint8)


def model(threads=1, **config):
    vae = VAE(**{"input_dim": 7, "hidden": (6, 5), "latent_dim": 3, "activation": "tanh", "dtype": "float64", **config})
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(1).standard_normal(vae.parameters.flat.size)
    vae.threads = threads
    return vae


def result(vae, x, eps, objective=ELBO()):
    """Loss and gradients, from buffers that hold NaN at first.  Images of a MADE decoder are black and white; where
    there are classes, all occur."""
    x = np.rint(x) if isinstance(vae.output, MADE) else x
    labels = np.arange(len(x)) % vae.classes if vae.classes else None
    vae.passes(len(x), eps.shape[1])
    for name, memory in (*vae._memory.items(), ("gradients", vae.gradients.flat)):
        memory[...] = 0 if name in CONSTANT else np.nan
    loss, gradients = vae.loss_and_gradients(x, eps, objective, STEP, labels)
    return loss, {name: value.copy() for name, value in gradients.items()}


def bits(*arguments):
    loss, gradients = result(*arguments)
    return loss, {name: value.tobytes() for name, value in gradients.items()}


def run_directly(vae, *arguments):
    with mock.patch.object(VAE, "engine", property(DirectExecutor)):
        return result(vae, *arguments)


def assert_equal(ours, exact, tolerance, floor=0.0):
    """Loss and every tensor, relative to its norm; and, where its terms may cancel, to that of all."""
    total = np.sqrt(sum((value ** 2).sum() for value in exact[1].values()))
    assert ours[0] == pytest.approx(exact[0], rel=tolerance)
    for name, value in exact[1].items():
        error = np.linalg.norm(ours[1][name] - value)
        assert error <= tolerance * np.linalg.norm(value) + floor * total, (name, error)
