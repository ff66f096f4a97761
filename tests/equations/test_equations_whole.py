"""Chapter 7, and D7.1 of chapter 1, equation by equation: the ELBO and the whole backward pass, in both kernel modules.

And what holds the chapter together: its program, the library and examples/vae_in_one_file.py agree, and a wrong sign in
any kernel that a training step calls makes the chapter fail.
"""
import contextlib
import doctest
import io
from types import SimpleNamespace

import numpy as np
import pytest

from chapters import CHAPTERS, code_of, failures
from npvae import ELBO, VAE
from npvae.kernels import fused, reference
from npvae.latents import DiagonalGaussian
from npvae.objectives import KLEstimator
from museum.exhibit import planted
import vae_in_one_file as one

equation = pytest.mark.equation
KERNELS = (reference, fused)

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {
    "D7.1": (ELBO.__call__, "+ dreg * reg.sum()", "- dreg * reg.sum()"),
    "D7.2": (ELBO.__call__, "return dnll * nll.sum()", "return -dnll * nll.sum()"),
    "D7.3": (ELBO.__call__, "reg.sum(), dnll, dreg", "reg.sum(), -dnll, dreg"),
    "D7.4": (ELBO.__call__, "is_sampled else batch)", "is_sampled else batch * draws)"),
    "D7.5": (DiagonalGaussian.backward, "kernels.add(d.z, d.z_nll, d.z_kl)", "kernels.add(d.z, d.z_nll, -d.z_kl)"),
    "D7.6": (DiagonalGaussian.backward, "kernels.add(d.mu, d.mu_z, d.mu_kl)", "kernels.add(d.mu, d.mu_z, -d.mu_kl)"),
    "D7.7": (VAE.backward, "grads, d.logvar, a.logvar", "grads, -d.logvar, a.logvar")}


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- the bound and the loss ---

def log_normal(z, mu, logvar):
    """log N(z; mu, exp(logvar))."""
    return -0.5 * (logvar + (z - mu) ** 2 / np.exp(logvar) + np.log(2 * np.pi))


@equation("D7.1")
def test_the_elbo_falls_short_of_log_p_by_the_divergence_from_the_posterior():
    """One latent dimension, where log p(x), the ELBO and KL(q(z|x) || p(z|x)) are sums over a fine grid."""
    z, width = np.linspace(-11, 11, 881, retstep=True)
    x, logits = np.array([[1.0, 0.0, 1.0]]), np.sin(z[None, :, None] * [1.3, -0.8, 2.1]) * 2 + [0.2, -0.5, 0.4]
    for kernels in KERNELS:
        nll, kl = np.empty((1, z.size)), np.empty((1, 1))
        kernels.bernoulli_nll_forward(nll, np.empty_like(logits), logits, x)
        log_joint = log_normal(z, 0, 0) - nll[0]
        log_p = np.log(np.exp(log_joint).sum() * width)
        for mu, logvar in ((0.4, -0.7), (-0.9, 0.2)):
            kernels.gaussian_kl_forward(kl, np.array([[mu]]), np.array([[logvar]]))
            log_q = log_normal(z, mu, logvar)
            losses = [ELBO()(nll[:, k:k + 1], kl, 0)[0] for k in range(z.size)]
            gap = (np.exp(log_q) * (log_q - (log_joint - log_p))).sum() * width
            close((np.exp(log_q) * losses).sum() * width, gap - log_p)
            assert gap > 0


NLL, KL = np.random.default_rng(5).gamma(2, size=(4, 3)), np.random.default_rng(6).gamma(2, size=(4, 2))      # B 4, K 3


def by_definition(nll, reg, beta, sampled):
    """Nats per image, then the mean of the images: one number at a time."""
    images = 0
    for b in range(len(nll)):
        reconstruction = sum(nll[b, k] for k in range(3)) / 3
        price = sum(reg[b, k] for k in range(3)) / 3 if sampled else sum(reg[b, j] for j in range(2))
        images = images + reconstruction + beta * price
    return images / len(nll)


def slopes(nll, reg, beta, sampled, moved):
    """The derivative of `by_definition` by each entry of "nll" or "reg", by the complex step."""
    found = np.empty(nll.shape if moved == "nll" else reg.shape)
    for place in np.ndindex(found.shape):
        step = np.zeros(found.shape, complex)
        step[place] = 1e-30j
        arguments = (nll + step, reg) if moved == "nll" else (nll, reg + step)
        found[place] = by_definition(*arguments, beta, sampled).imag / 1e-30
    return found


#: beta, sampled, and what stands for the KL term
OBJECTIVES = [(1.0, False, KL), (0.3, False, KL), (1.0, True, NLL - 2), (0.3, True, NLL - 2)]


@equation("D7.2")
def test_the_loss_is_nats_per_image():
    for beta, sampled, reg in OBJECTIVES:
        close(ELBO(beta, sampled)(NLL, reg, 0)[0], by_definition(NLL, reg, beta, sampled))


@equation("D7.3")
def test_the_loss_by_nll():
    for beta, sampled, reg in OBJECTIVES:
        dnll = ELBO(beta, sampled)(NLL, reg, 0)[1]
        close(np.broadcast_to(dnll, NLL.shape), slopes(NLL, reg, beta, sampled, "nll"))


@equation("D7.4")
def test_the_loss_by_the_kl_term():
    for beta, sampled, reg in OBJECTIVES:
        dreg = ELBO(beta, sampled)(NLL, reg, 0)[2]
        close(np.broadcast_to(dreg, reg.shape), slopes(NLL, reg, beta, sampled, "reg"))


# --- the latent step: a decoder of one line, nll = sum_j c_j sin(z_j) ---

B, K, Z = 2, 4, 3
RNG = np.random.default_rng(7)
MU, LOGVAR, EPS, C = (RNG.standard_normal(shape) for shape in ((B, Z), (B, Z), (B, K, Z), Z))
DNLL, DRATIO, DKL = (RNG.standard_normal(shape) for shape in ((B, K), (B, K), (B, Z)))


def latent_backward(kernels, sampled):
    """The gradients that `DiagonalGaussian.backward` leaves, with upstream gradients as above."""
    a = SimpleNamespace(mu=MU, logvar=LOGVAR, eps=EPS, z=np.empty_like(EPS), kl=np.empty_like(MU),
                        log_ratio=np.empty((B, K)))
    d = SimpleNamespace(z=np.empty_like(EPS), z_kl=np.empty_like(EPS), kl=DKL, log_ratio=DRATIO)
    for name in ("mu", "mu_z", "mu_kl", "logvar", "logvar_z", "logvar_kl"):
        setattr(d, name, np.empty_like(MU))
    estimator = KLEstimator.SAMPLED if sampled else KLEstimator.EXACT
    DiagonalGaussian().forward(kernels, a, None, estimator)
    d.z_nll = DNLL[:, :, None] * C * np.cos(a.z)
    DiagonalGaussian().backward(kernels, d, a, None, None, estimator)
    return a, d


def latent_loss(sampled, z_moves=0, mu_moves=0, logvar_moves=0):
    """The derivative of sum dnll nll + the KL term's share, while z, mu or logvar move that way."""
    mu, logvar = MU + 1e-30j * mu_moves, LOGVAR + 1e-30j * logvar_moves
    z, kl, log_ratio = np.empty(EPS.shape, complex), np.empty(MU.shape, complex), np.empty((B, K), complex)
    reference.reparameterize_forward(z, mu, logvar, EPS)
    z += 1e-30j * z_moves
    reference.gaussian_kl_forward(kl, mu, logvar)
    reference.log_ratio_forward(log_ratio, z, logvar, EPS)
    share = np.sum(DRATIO * log_ratio) if sampled else np.sum(DKL * kl)
    return (np.sum(DNLL * np.sum(C * np.sin(z), axis=-1)) + share).imag / 1e-30


def unit(shape, place):
    one_entry = np.zeros(shape)
    one_entry[place] = 1
    return one_entry


@equation("D7.5")
def test_the_draw_feeds_the_decoder_and_the_log_ratio():
    for kernels in KERNELS:
        for sampled in (True, False):
            _, d = latent_backward(kernels, sampled)
            for place in np.ndindex(EPS.shape):
                close((d.z if sampled else d.z_nll)[place], latent_loss(sampled, z_moves=unit(EPS.shape, place)))


@equation("D7.6")
def test_the_heads_feed_the_draw_and_the_kl_term():
    for kernels in KERNELS:
        for sampled in (True, False):
            _, d = latent_backward(kernels, sampled)
            for place in np.ndindex(MU.shape):
                close(d.mu[place], latent_loss(sampled, mu_moves=unit(MU.shape, place)))
                close(d.logvar[place], latent_loss(sampled, logvar_moves=unit(MU.shape, place)))


# --- the whole ---

def step(vae, objective, kernels, moves=0):
    """The loss of a model whose parameters have moved that way, and its gradient: one vector."""
    rng = np.random.default_rng(8)
    vae.parameters.flat[...] = 0.4 * rng.standard_normal(vae.parameters.flat.size) + moves
    a, d = vae.passes(3, 2)                                                                 # B = 3, K = 2
    a.x[...], a.eps[...] = rng.random((3, 5)), rng.standard_normal((3, 2, 2))
    vae.forward(a, objective.kl_estimator, kernels)
    reg, dreg = (a.log_ratio, d.log_ratio) if objective.kl_estimator.is_sampled else (a.kl, d.kl)
    loss, d.nll[...], dreg[...] = objective(a.nll, reg, 0)
    vae.backward(d, a, objective.kl_estimator, kernels)
    return loss, vae.gradients.flat


@equation("D7.7")
def test_the_loss_moves_along_any_direction_as_the_gradient_says():
    real, moving = (VAE(5, (4,), 2, "tanh", dtype=dtype, kernels="numpy") for dtype in ("float64", "complex128"))
    directions = np.random.default_rng(9).standard_normal((6, real.parameters.flat.size))
    for objective in (ELBO(0.7), ELBO(0.7, sampled=True)):
        expected = [step(moving, objective, reference, 1e-30j * v)[0].imag / 1e-30 for v in directions]
        for kernels in KERNELS:
            close(directions @ step(real, objective, kernels)[1], expected)


# --- the chapter ---

def worked_example():
    """What is left when the code of the chapter has run."""
    names = {}
    for example in doctest.DocTestParser().get_examples(code_of(CHAPTERS["07"].read_text(encoding="utf-8"))):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(example.source, "07-backward.md", "single"), names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_the_chapter_the_library_and_the_one_file_example_agree(kernels):
    """Loss and every gradient, to 1e-12: three programs, of which no two share a line."""
    chapter = worked_example()
    vae = VAE(input_dim=2, hidden=(3,), latent_dim=2, dtype="float64", kernels=kernels)
    for name, short in zip(vae.parameters, chapter.parameters):
        vae.parameters[name][...] = chapter.parameters[short]
    loss, gradients = vae.loss_and_gradients(chapter.x, chapter.eps[:, None, :])
    one_loss, one_gradients = one.loss_and_gradients({**vae.parameters}, chapter.x, chapter.eps)
    close([loss, one_loss], chapter.values["loss"])
    assert list(gradients) == list(one_gradients) and len(gradients) == len(chapter.parameters) == 10
    for name, short in zip(gradients, chapter.parameters):
        by_hand = chapter.values["d" + short]
        for other in (gradients[name], one_gradients[name]):
            assert np.linalg.norm(other - by_hand) <= 1e-12 * np.linalg.norm(by_hand), name


#: a wrong sign in each kernel that a step calls, exact and sampled
WRONG_SIGNS = [
    (reference.matmul, "np.matmul(a, b", "np.matmul(-a, b"), (reference.add, "np.add(a, b", "np.subtract(a, b"),
    (reference.identity_forward, "np.add(pre, b", "np.subtract(pre, b"),
    (reference.identity_backward, "dpre[...] = dout", "dpre[...] = -dout"),
    (reference.relu_forward, "< 0, 0, a)", "< 0, 0, -a)"),
    (reference.relu_backward, "dout, 0)", "-dout, 0)"),
    (reference.bernoulli_nll_forward, "+ np.log1p(e)", "- np.log1p(e)"),
    (reference.bernoulli_nll_backward, "tail - x,", "tail + x,"),
    (reference.reparameterize_forward, "mu[:, None, :] + np", "mu[:, None, :] - np"),
    (reference.reparameterize_backward, "np.sum(dz, axis=1, out=dmu)", "np.sum(-dz, axis=1, out=dmu)"),
    (reference.reparameterize_backward, "axis=1) * 0.5", "axis=1) * -0.5"),
    (reference.gaussian_kl_forward, "+ excess(logvar)", "- excess(logvar)"),
    (reference.gaussian_kl_backward, "dmu[...] = dkl * mu", "dmu[...] = -dkl * mu"),
    (reference.gaussian_kl_backward, "dkl * 0.5", "dkl * -0.5"),
    (reference.log_ratio_forward, "- logvar[:, None, :]", "+ logvar[:, None, :]"),
    (reference.log_ratio_backward, "dlog_ratio[:, :, None] * z", "-dlog_ratio[:, :, None] * z"),
    (reference.log_ratio_backward, "-0.5 * np.sum", "0.5 * np.sum")]


@pytest.mark.every(4)
@pytest.mark.parametrize("slip", WRONG_SIGNS, ids=lambda slip: f"{slip[0].__name__}: {slip[2]}")
def test_a_wrong_sign_in_any_kernel_on_the_path_fails_the_chapter(slip):
    with planted(SimpleNamespace(name=slip[0].__name__, changes=(slip,))):
        assert failures(CHAPTERS["07"])


def test_the_wrong_signs_reach_every_kernel_of_a_step():
    """The list above is held against the kernels that are called in the two steps of the chapter."""
    called = set()

    def record(name):
        def kernel(*arguments):
            called.add(name)
            getattr(reference, name)(*arguments)
        return kernel
    recording = SimpleNamespace(**{name: record(name) for name in reference.__all__})
    vae = VAE(5, (4,), 2, "relu", dtype="float64", kernels="numpy")
    for sampled in (False, True):
        step(vae, ELBO(sampled=sampled), recording)
    assert called == {function.__name__ for function, _, _ in WRONG_SIGNS}
