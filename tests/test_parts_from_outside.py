"""What it costs to add to npvae from outside: a likelihood, a prior and an activation, each one class and its formulas,
no file of npvae edited.  Each passes gradient checks, trains, is measured, saved and loaded."""
import math

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE, Adam, fit, summarize
from npvae.checkpoint import CheckpointError
from npvae.gradcheck import check_gradients
from npvae.latents.base import Prior
from npvae.layers import Activation
from npvae.likelihoods.base import Likelihood
from npvae.likelihoods.support import Counts

log_factorial = np.vectorize(math.lgamma)


class Poisson(Likelihood):
    """Counts: log p(x|z) = x t - exp(t) - log x!,  t the decoder's output."""

    name = "my-poisson"      # npvae has one of its own
    support = Counts()

    def bias_at(self, mean):
        return np.log(mean + 0.1)

    def forward(self, kernels, nll, kept, output, x, params):
        x = x[:, None]
        nll[...] = (np.exp(output) - x * output + log_factorial(x.real + 1.0)).sum(axis=2)

    def backward(self, kernels, doutput, grads, dnll, kept, output, x, params):
        doutput[...] = dnll[..., None] * (np.exp(output) - x[:, None])

    def mean(self, kernels, output):
        return np.exp(output)

    def draw(self, kernels, output, params, rng):
        return rng.poisson(np.exp(output.real)).astype(output.dtype)


class Laplace(Prior):
    """p(z) = prod_j exp(-|z_j| / b) / (2 b), with one b for all, learned: its logarithm is the parameter."""

    name = "laplace"
    shapes = {"prior.log_b": (1,)}

    def initialize(self, params, rng):
        params["prior.log_b"][...] = -0.3

    def forward(self, kernels, a, own, params):
        log_b = params["prior.log_b"]
        sizes = np.where(a.z.real < 0, -a.z, a.z)
        a.log_p[...] = -(sizes * np.exp(-log_b) + log_b + math.log(2)).sum(axis=2)

    def backward(self, kernels, d, a, own, grads, params):
        log_b = params["prior.log_b"]
        signs = np.where(a.z.real < 0, -1, 1)
        d.z_p[...] = -d.log_p[..., None] * signs * np.exp(-log_b)
        grads["prior.log_b"][...] = (d.log_p[..., None] * (signs * a.z * np.exp(-log_b) - 1)).sum()

    def sample(self, shape, rng, params, encode):
        return rng.laplace(0, np.exp(params["prior.log_b"][0].real), shape)


class Swish(Activation):
    """a / (1 + exp(-2 a)), whose derivative needs its input."""

    def __init__(self):
        super().__init__("swish2", gain=2, uses_input=True)

    def forward(self, kernels, out, pre, b):
        a = pre + b
        out[...] = a / (1 + np.exp(-2 * a))

    def backward(self, kernels, dpre, db, dout, out, pre, b):
        a = pre + b
        s = 1 / (1 + np.exp(-2 * a))
        dpre[...] = dout * (s + 2 * a * s * (1 - s))
        db[...] = dpre.sum(axis=0)


COUNTS = np.random.default_rng(0).poisson([[0.5, 3, 8, 1], [4, 1, 0.3, 9]], (30, 2, 4)).reshape(60, 4)
PARTS = {"likelihood": Poisson, "prior": Laplace, "activation": Swish}
EACH = pytest.mark.parametrize("added", [*([name] for name in PARTS), list(PARTS)], ids="+".join)


def model(added, dtype="float64", kernels="numba", **config):
    parts = {"likelihood": "gaussian:2.0", **{name: PARTS[name]() for name in added}}
    vae = VAE(4, (6, 5), 2, dtype=dtype, kernels=kernels, **{**parts, **config})
    vae.parameters.flat[...] *= 0.3      # raw counts go in, and a rate comes out by exp
    return vae, parts


@pytest.mark.every(3)
@EACH
@pytest.mark.parametrize("objective, draws", [(ELBO(0.7, sampled=True), 1), (IWAE(), 3)], ids=["elbo", "iwae"])
def test_every_gradient_is_right(added, objective, draws):
    vae, _ = model(added)
    moving, _ = model(added, "complex128", "numpy")
    rng = np.random.default_rng(1)
    vae.parameters.flat[...] += 0.2 * rng.standard_normal(vae.parameters.flat.size)
    x, eps = COUNTS[:5].astype(float), rng.standard_normal((5, draws, 2))
    _, gradients = vae.loss_and_gradients(x, eps, objective)

    def loss(parameters):
        return moving.loss(x, eps, objective, parameters=parameters)

    report = check_gradients(loss, gradients, vae.parameters)
    assert report.ok and not report.vacuous, report


@pytest.mark.every(3)
@EACH
@pytest.mark.parametrize("kernels", ["numba", "numpy"])
def test_it_trains_is_measured_and_goes_through_a_file(added, kernels, tmp_path):
    vae, parts = model(added, kernels=kernels)
    x = COUNTS.astype(float)
    history = fit(vae, x, x, 30, 20, Adam(0.01), ELBO(sampled=True))
    assert history[-1]["test_loss"] < history[0]["test_loss"] - 0.1
    found, rng = summarize(vae, x, np.random.default_rng(2), 64), np.random.default_rng(3)
    assert np.isfinite(found.log_p.values).all() and not found.violations
    images = vae.sample(7, rng), vae.sample(7, rng, mean=False), vae.reconstruct(x, rng)
    assert all(np.isfinite(image).all() for image in images) and images[0].shape == (7, 4)
    vae.save(tmp_path / "model.npz")
    given = {name: PARTS[name]() for name in added}
    same = VAE.load(tmp_path / "model.npz", kernels, **given)
    assert np.array_equal(same.elbo(x, np.random.default_rng(4)), vae.elbo(x, np.random.default_rng(4)))
    assert same.config() == vae.config() and all(same.config()[name] == part.name for name, part in given.items())
    with pytest.raises(CheckpointError, match="model.npz: holds no model that can be built here: "):
        VAE.load(tmp_path / "model.npz", kernels)      # without what the file does not hold


def test_another_part_than_the_saved_one_is_refused(tmp_path):
    model(["likelihood"])[0].save(tmp_path / "model.npz")
    with pytest.raises(CheckpointError, match="its prior is 'normal', and 'laplace' was given"):
        VAE.load(tmp_path / "model.npz", likelihood=Poisson(), prior=Laplace())


def test_its_samples_follow_its_density():
    """Of the Laplace prior: the mean of |z| is b."""
    vae, _ = model(["prior"])
    z = vae.draw_prior(20000, np.random.default_rng(5))
    assert np.abs(z).mean() == pytest.approx(math.exp(-0.09), rel=0.03) and abs(z.mean()) < 0.03


def test_a_kernel_without_a_twin_is_that_of_numpy_with_one_warning(monkeypatch):
    """One pair of kernels in the reference is enough; the passes are then run call by call."""
    from npvae.kernels import fused, reference

    class Own(Poisson):
        recordable = True

        def forward(self, kernels, nll, kept, output, x, params):
            kernels.own_nll_forward(nll, output, x)

        def backward(self, kernels, doutput, grads, dnll, kept, output, x, params):
            kernels.own_nll_backward(doutput, dnll, output, x)

    def own_nll_forward(nll, output, x):
        nll[...] = (np.exp(output) - x[:, None] * output).sum(axis=2)

    def own_nll_backward(doutput, dnll, output, x):
        doutput[...] = dnll[..., None] * (np.exp(output) - x[:, None])

    for kernel in (own_nll_forward, own_nll_backward):
        monkeypatch.setattr(reference, kernel.__name__, kernel, raising=False)
    x, eps = COUNTS[:5].astype(float), np.ones((5, 1, 2))
    vae, twin = (VAE(4, (6,), 2, likelihood=Own(), dtype="float64", kernels=name) for name in ("numba", "numpy"))
    with pytest.warns(RuntimeWarning, match="kernel own_nll_.*ward has no compiled twin") as caught:
        loss, gradients = vae.loss_and_gradients(x, eps)
    assert len(caught) == 2 and type(vae.engine).__name__ == "DirectExecutor"      # one for each of the pair
    expected, theirs = twin.loss_and_gradients(x, eps)
    assert loss == pytest.approx(expected, rel=1e-12) and np.allclose(gradients.flat, theirs.flat, rtol=1e-9)
    vae.loss_and_gradients(x, eps)      # without another word
    assert not hasattr(fused, "no_such_kernel")
