"""Mistakes that others shipped, planted in a copy of the kernels or in the model: the check that `test_gradients.py`
makes has to catch each one.
"""
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import ELBO, IWAE, VAE
from npvae.kernels import reference
from npvae.latents import DiagonalGaussian
from npvae.layers import Dense
from test_gradients import check, test_gradients_do_not_depend_on_what_was_computed_before as buffers_are_clean

MODEL = {"input_dim": 7, "hidden": (6, 5), "latent_dim": 3, "activation": "tanh", "likelihood": "bernoulli"}
SQUARE = {"input_dim": 6, "hidden": (6,), "latent_dim": 6}      # here shapes give nothing away


def after(name, change):
    """The kernel of that name, its outputs spoilt afterwards by change(*arguments)."""
    def kernel(*arguments):
        getattr(reference, name)(*arguments)
        change(*arguments)
    return {name: kernel}


def instead(name, kernel):
    return {name: kernel}


# --- slips in a kernel ---

def mask_from_the_gradient(dpre, db, dout, out):
    dpre[...] = np.where(dout.real > 0, dout, 0)
    np.sum(dpre, axis=0, out=db)


def mask_lost(dpre, db, dout, out):
    dpre[...] = dout
    np.sum(dpre, axis=0, out=db)


def bias_gradient_as_mean(dpre, db, dout, out):
    db /= len(dpre)


def tanh_without_square(dpre, db, dout, out):
    dpre[...] = dout * (1 - out)
    np.sum(dpre, axis=0, out=db)


def tanh_from_the_input(dpre, db, dout, out):
    dpre[...] = dout * (1 - np.tanh(out) ** 2)
    np.sum(dpre, axis=0, out=db)


def without_one_minus_x(dlogits, dnll, mean, x):
    dlogits[...] = dnll[:, :, None] * -x[:, None, :] * (1 - mean)


def bernoulli_with_epsilon(dlogits, dnll, mean, x):
    """d log(p + 1e-4): an epsilon the forward pass does not have."""
    x = x[:, None, :]
    dlogits[...] = dnll[:, :, None] * ((1 - x) / (1 - mean + 1e-4) - x / (mean + 1e-4)) * mean * (1 - mean)


def clamped_logits(nll, mean, logits, x):
    """A clamp in the forward that the backward ignores."""
    reference.bernoulli_nll_forward(nll, mean, np.where(logits.real > 0.3, 0.3, logits), x)


def mean_over_pixels(nll, mean, logits, x):
    """Mean in the forward, sum in the backward."""
    reference.bernoulli_nll_forward(nll, mean, logits, x)
    nll /= x.shape[1]


def halved(dlogvar):
    dlogvar *= 0.5


def no_derivative_of_the_softplus(doutput, dnll, output, x):
    pixels = x.shape[1]
    logvar = reference.likelihoods.LOGVAR_FLOOR
    logvar = logvar + np.logaddexp(0, output[..., pixels:].real - logvar)
    residual = output[..., :pixels] - x[:, None, :]
    doutput[..., pixels:] = dnll[:, :, None] * 0.5 * (1 - residual ** 2 * np.exp(-logvar))


def other_noise(dmu, dlogvar, dz, logvar, eps):
    """The noise drawn twice, once for forward and once for backward."""
    reference.reparameterize_backward(dmu, dlogvar, dz, logvar, np.random.default_rng(0).standard_normal(eps.shape))


def derivative_by_sigma(dmu, dlogvar, dz, logvar, eps):
    np.sum(dz * eps, axis=1, out=dlogvar)


def first_draw_only(dmu, dlogvar, dz, logvar, eps):
    dmu[...] = dz[:, 0]


def zero(first, second, *rest):
    first[...] = 0
    second[...] = 0


def kl_sign(dmu, dlogvar, dkl, mu, logvar):
    dmu *= -1
    dlogvar *= -1


def kl_without_minus_one(dmu, dlogvar, dkl, mu, logvar):
    dlogvar[...] = 0.5 * dkl * np.exp(logvar)


def unweighted(dlog_w, dbound, weights):
    dlog_w[...] = dbound[:, None] / weights.shape[1]


KERNELS = {
    "mask from the wrong array": (instead("relu_backward", mask_from_the_gradient), {"activation": "relu"}),
    "mask lost": (instead("relu_backward", mask_lost), {"activation": "relu"}),
    "db as a mean": (after("sigmoid_backward", bias_gradient_as_mean), {"activation": "sigmoid"}),
    "db of the output layer as a mean": (after("identity_backward", bias_gradient_as_mean), {}),
    "1 - tanh": (instead("tanh_backward", tanh_without_square), {}),
    "derivative of tanh at the output": (instead("tanh_backward", tanh_from_the_input), {}),
    "without (1 - x)": (instead("bernoulli_nll_backward", without_one_minus_x), {}),
    "epsilon in a gradient": (instead("bernoulli_nll_backward", bernoulli_with_epsilon), {}),
    "clamp ignored": (instead("bernoulli_nll_forward", clamped_logits), {}),
    "mean forward, sum backward": (instead("bernoulli_nll_forward", mean_over_pixels), {}),
    "1/4 for 1/2, learned sigma": (
        after("gaussian_nll_backward", lambda dmean, dlogvar, *_: halved(dlogvar)),
        {"likelihood": "gaussian-learned:0.5"}),
    "-1/4 for -1/2, log q": (
        after("log_ratio_backward", lambda dz, dlogvar, *_: halved(dlogvar)), {"objective": IWAE()}),
    "1/4 for 1/2, KL": (
        after("gaussian_kl_backward", lambda dmu, dlogvar, *_: halved(dlogvar)), {}),
    "no softplus'": (
        after("gaussian_pixel_nll_backward", no_derivative_of_the_softplus), {"likelihood": "gaussian-pixel"}),
    "noise drawn twice": (instead("reparameterize_backward", other_noise), {}),
    "d sigma for d logvar": (after("reparameterize_backward", derivative_by_sigma), {}),
    "only the first draw": (after("reparameterize_backward", first_draw_only), {}),
    "path through z forgotten": (after("reparameterize_backward", zero), {}),
    "path through KL forgotten": (after("gaussian_kl_backward", zero), {}),
    "log q's own path forgotten": (after("log_ratio_backward", zero), {"objective": IWAE()}),
    "KL sign": (after("gaussian_kl_backward", kl_sign), {}),
    "KL without - 1": (after("gaussian_kl_backward", kl_without_minus_one), {}),
    "importance weights forgotten": (instead("importance_bound_backward", unweighted), {"objective": IWAE()}),
    "importance weights' sign": (
        after("importance_bound_backward", lambda dlog_w, *_: np.negative(dlog_w, out=dlog_w)), {"objective": IWAE()}),
}


def use(monkeypatch, changed):
    """Models built from here on get a copy of the reference kernels with some replaced; so do the objectives."""
    kernels = SimpleNamespace(**{**{name: getattr(reference, name) for name in reference.__all__}, **changed})
    monkeypatch.setattr("npvae.model.load", lambda name: kernels)
    monkeypatch.setattr("npvae.objectives.importance_bound_backward", kernels.importance_bound_backward)


def passes(method="complex", draws=3, seed=4, **config):
    return check(method, config.pop("objective", ELBO()), draws, seed, **{**MODEL, **config}).ok


def test_without_a_slip_the_checks_pass(monkeypatch):
    """The positive control: a copy with nothing replaced, in every configuration used below."""
    use(monkeypatch, {})
    configs = {str(config): config for _, config in [*KERNELS.values(), *LAYERS.values(), *LATENTS.values()]}
    for config in configs.values():
        for method in ("complex", "central"):
            assert passes(method, **config), (method, config)
    buffers_are_clean()


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("slip", KERNELS)
def test_a_slip_in_a_kernel_is_caught(slip, method, monkeypatch):
    changed, config = KERNELS[slip]
    use(monkeypatch, changed)
    assert not passes(method, **config)


# --- slips in the model ---

def dense(change):
    """Dense.backward, followed by change(layer, dx, dpre, grads, x, params)."""
    right = Dense.backward

    def backward(self, dx, dpre, grads, dout, out, x, params):
        right(self, dx, dpre, grads, dout, out, x, params)
        change(self, dx, dpre, grads, x, params)
    return backward


def dw_transposed(layer, dx, dpre, grads, x, params):
    grads[layer.W][...] = grads[layer.W].T.copy()


def dx_without_transposition(layer, dx, dpre, grads, x, params):
    if dx is not None:
        np.matmul(dpre, params[layer.W], out=dx)


def one_head_only(layer, dx, dpre, grads, x, params):
    """The encoder's output feeds both heads; what comes back through logvar is lost."""
    if layer.W == "logvar.W" and dx is not None:
        dx[...] = 0


def half_of_the_rows(layer, dx, dpre, grads, x, params):
    np.matmul(x[::2].T, dpre[::2], out=grads[layer.W])


LAYERS = {"dW transposed": (dw_transposed, SQUARE), "dx = dpre W": (dx_without_transposition, SQUARE),
          "one head only": (one_head_only, {}), "half of the rows": (half_of_the_rows, {})}


@pytest.mark.parametrize("slip", LAYERS)
def test_a_slip_in_a_layer_is_caught(slip, monkeypatch):
    change, config = LAYERS[slip]
    monkeypatch.setattr(Dense, "backward", dense(change))
    assert not passes(**config)


def latent(change):
    right = DiagonalGaussian.backward

    def backward(self, kernels, d, a, sampled):
        right(self, kernels, d, a, sampled)
        change(d)
    return backward


def heads_swapped(d):
    d.mu[...], d.logvar[...] = d.logvar.copy(), d.mu.copy()


def kl_twice(d):
    d.logvar += d.logvar_kl


def kl_of_mu_not_added(d):
    d.mu -= d.mu_kl


LATENTS = {"heads swapped": (heads_swapped, {}), "KL added twice": (kl_twice, {}),
           "KL of mu not added": (kl_of_mu_not_added, {})}


@pytest.mark.parametrize("slip", LATENTS)
def test_a_slip_where_paths_meet_is_caught(slip, monkeypatch):
    change, config = LATENTS[slip]
    monkeypatch.setattr(DiagonalGaussian, "backward", latent(change))
    assert not passes(**config)


def test_the_decoders_gradient_fed_to_the_encoder_is_caught(monkeypatch):
    """Shapes agree where the decoder mirrors the encoder and K = 1."""
    right = VAE.backward

    def backward(self, d, a, sampled):
        right(self, d, a, sampled)
        d.encoder[-1][...] = d.decoder[1]
        self.encoder.backward(d.encoder, d.encoder_pre, self.gradients, a.encoder, self.parameters)
    config = {"hidden": (6,), "decoder_hidden": (6,), "draws": 1}
    assert passes(**config)
    monkeypatch.setattr(VAE, "backward", backward)
    assert not passes(**config)


class SumLoss(ELBO):
    """A sum over the batch with the gradients of a mean."""

    def __call__(self, nll, reg, step):
        loss, dnll, dreg = super().__call__(nll, reg, step)
        return loss * len(nll), dnll, dreg


class NegativeWeights(IWAE):
    """softmax(+loss): the wrong draw gets the weight."""

    def __call__(self, nll, reg, step):
        loss, _, _ = super().__call__(nll, reg, step)
        _, dnll, _ = super().__call__(-nll, -reg, step)
        return loss, dnll, dnll


@pytest.mark.parametrize("objective", [SumLoss(), NegativeWeights()])
def test_a_slip_in_an_objective_is_caught(objective):
    assert not passes(objective=objective)


# --- what a single call does not show ---

def accumulate(name, n_outputs):
    """The kernel adds to its outputs instead of writing them: right only while the buffers are new."""
    def kernel(*arguments):
        before = [output.copy() for output in arguments[:n_outputs]]
        getattr(reference, name)(*arguments)
        for output, value in zip(arguments, before):
            output += value
    return {name: kernel}


@pytest.mark.parametrize("name, n_outputs", [("bernoulli_nll_backward", 1), ("gaussian_kl_backward", 2),
                                             ("relu_backward", 2), ("reparameterize_backward", 2)])
def test_a_stale_buffer_is_caught(name, n_outputs, monkeypatch):
    use(monkeypatch, accumulate(name, n_outputs))
    with pytest.raises(AssertionError):
        buffers_are_clean()
