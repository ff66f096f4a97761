"""The MADE decoder: logits look at no pixel from their own on, the probabilities of all images add up to one, what is
drawn is what is claimed, and the gradients are right."""
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE, Adam, FreeBits, LinearAnnealing, decoders, evaluate, fit
from npvae.gradcheck import compare, numerical_gradient
from npvae.layers import ACTIVATIONS
from npvae.decoders import MADE
from strategies import seeds, sizes
from tiny_runs import TINY, library, program_in, without_pictures

DECODERS = pytest.mark.parametrize("decoder", ["made:6", "made:9+direct"])
KERNELS = pytest.mark.parametrize("kernels", ["numpy", "numba"])


def model(D=5, decoder="made:9+direct", seed=1, spread=0.5, dtype="float64", kernels="numpy", hidden=(6,), **config):
    """Random in every parameter, in masked weights too."""
    config = {"activation": "tanh", "latent_dim": 3, "decoder_hidden": [width + 1 for width in hidden], **config}
    vae = VAE(D, hidden, dtype=dtype, kernels=kernels, decoder=decoder, seed=seed, **config)
    vae.parameters.flat[...] = spread * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


def logits(vae, x, z):
    """x (B, D), z (B, K, Z) -> (B, K, D), and the buffers with the nll in them."""
    a, _ = vae.passes(*z.shape[:2])
    a.x[...], a.z[...] = x, z
    vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
    vae.output.forward(vae.kernels, a, a.last, vae.parameters)
    vae.likelihood.forward(vae.kernels, a.nll, a.kept, output := a.output.copy(), a.x, vae.parameters)
    return output, a


def all_images(D):
    return np.array(list(itertools.product([0.0, 1.0], repeat=D)))


def probabilities(vae, z):
    """p(x|z) of all 2^D images at one z (Z,)."""
    x = all_images(vae.input_dim)
    return np.exp(-logits(vae, x, np.tile(z, (len(x), 1, 1)))[1].nll[:, 0])


# ---- A density

def jacobian(vae, seed):
    """d logits / d x (K, D of x, D of logits), complex step, at a random x and K random z."""
    rng, D = np.random.default_rng(seed), vae.input_dim
    z = np.broadcast_to(rng.standard_normal((2, vae.latent_dim)), (D, 2, vae.latent_dim))
    a, _ = vae.passes(D, 2)
    a.x[...], a.z[...] = rng.random(D) + 1e-30j * np.eye(D), z
    vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
    vae.output.forward(vae.kernels, a, a.last, vae.parameters)
    return a.output.imag.swapaxes(0, 1) / 1e-30


@given(D=st.integers(1, 9), H=st.integers(8, 14), seed=seeds, direct=st.booleans(), hidden=st.sampled_from([(), (6,)]))
def test_a_logit_depends_on_the_pixels_before_it_and_on_no_other(D, H, seed, direct, hidden):
    """Exactly zero on and above the diagonal, not zero below: units of every degree leave no gap."""
    found = jacobian(model(D, f"made:{H}{'+direct' * direct}", seed, dtype="complex128", hidden=hidden), seed)
    expected = np.broadcast_to(np.triu(np.ones((D, D)), 1) > 0, found.shape)
    assert np.array_equal(found != 0, expected)


@DECODERS
@KERNELS
@pytest.mark.parametrize("D", range(1, 9))
def test_the_probabilities_of_all_images_add_up_to_one(D, kernels, decoder):
    """At any z; and they are no product over pixels, unless there is but one."""
    vae = model(D, decoder, seed=D, kernels=kernels, spread=1.0)
    for z in np.random.default_rng(D).standard_normal((3, 3)):
        p = probabilities(vae, z)
        assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).all()
        marginal = p @ all_images(D)
        product = np.prod(np.where(all_images(D), marginal, 1 - marginal), axis=1)
        assert (np.abs(p - product).max() > 1e-6) == (D > 1)


@pytest.mark.parametrize("slip", ["last layer not strict", "direct not strict", "no mask in the first layer"])
def test_a_wrong_mask_makes_no_density(monkeypatch, slip):
    right, calls = decoders.mask, []

    def wrong(inputs, outputs, strict=False):
        calls.append(strict)
        if strict and slip == "last layer not strict":
            strict = False
        found = right(inputs, outputs, strict)
        if calls[-1] and slip == "direct not strict":
            found[-len(outputs):] = right(outputs, outputs)
        return np.ones_like(found) if not calls[-1] and slip.startswith("no mask") else found

    monkeypatch.setattr(decoders, "mask", wrong)
    assert abs(probabilities(model(spread=1.0), np.ones(3)).sum() - 1) > 1e-3
    assert calls == [False, True]


@DECODERS
def test_draws_of_one_image_share_its_pixels(decoder):
    """K draws at once are K passes of one draw each."""
    vae, rng = model(7, decoder), np.random.default_rng(1)
    x, z = (rng.random((4, 7)) < 0.5) * 1.0, rng.standard_normal((4, 3, 3))
    together = logits(vae, x, z)[0]
    for k in range(3):
        assert np.abs(logits(vae, x, z[:, k:k + 1])[0][:, 0] - together[:, k]).max() < 1e-14
    h = np.tanh(z[0, 1] @ vae.parameters["decoder.0.W"] + vae.parameters["decoder.0.b"])
    W, V, output = vae.parameters["made.W"], vae.parameters["output.W"], vae.output
    m = np.tanh(np.concatenate([x[0], h]) @ (W * output.first.mask) + vae.parameters["made.b"])
    seen = np.concatenate([m, h, x[0]] if output.direct else [m, h])
    by_hand = seen @ (V * output.last.mask) + vae.parameters["output.b"]
    assert np.abs(together[0, 1] - by_hand).max() < 1e-13


# ---- Images

def check_draws(draw, p, size=40000):
    """draw(n) gives images as often as p says, each of the 2^D within five standard errors."""
    x = draw(size)
    assert set(np.unique(x)) <= {0.0, 1.0}
    D = x.shape[1]
    counts = np.bincount((x @ (2 ** np.arange(D)[::-1])).astype(int), minlength=2 ** D)
    error = np.abs(counts - size * p) / np.sqrt(size * p * (1 - p))
    assert error.max() <= 5, f"off by {error.max():.1f} standard errors"


def drawn_at(vae, z, seed=0):
    def draw(n):
        labels = np.zeros(n, int)
        return vae._decoder_output(np.tile(z, (n, 1)), labels, np.random.default_rng(seed), drawn=True)
    return draw


@DECODERS
@KERNELS
def test_images_are_drawn_as_often_as_p_says(kernels, decoder):
    vae, z = model(4, decoder, kernels=kernels, spread=0.8), np.array([0.5, -1.0, 1.5])
    check_draws(drawn_at(vae, z), probabilities(vae, z))


@pytest.mark.parametrize("slip", ["wider noise", "every pixel for itself", "another z", "one late"])
def test_a_broken_sampler_is_found(slip, monkeypatch):
    vae, z = model(4, spread=0.8), np.array([0.5, -1.0, 1.5])
    p, other = probabilities(vae, z), vae
    if slip == "another z":
        z = z + 0.3
    elif slip == "one late":      # a unit counts only from the pixel after the next
        vae.output.known = np.maximum(vae.output.known - 2, 0)
    elif slip == "every pixel for itself":
        other = model(4, spread=0.8)
        other.parameters["made.W"][:4] = other.parameters["output.W"][-4:] = 0

    class Wider:
        def logistic(self, size):
            return 1.3 * np.random.default_rng(0).logistic(size=size)

    def draw(n):
        rng = Wider() if slip == "wider noise" else np.random.default_rng(0)
        return other._decoder_output(np.tile(z, (n, 1)), np.zeros(n, int), rng, drawn=True)

    with pytest.raises(AssertionError, match="standard errors"):
        check_draws(draw, p)


def slowly(vae, z, noise):
    """Pixel by pixel with a whole pass for each: images and logits."""
    x = np.zeros((len(z), vae.input_dim))
    for d in range(vae.input_dim):
        x[:, d] = logits(vae, x, z[:, None])[0][:, 0, d] + noise[:, d] > 0
    return x, logits(vae, x, z[:, None])[0][:, 0]


@KERNELS
@given(D=st.integers(1, 9), H=st.integers(1, 14), seed=seeds, direct=st.booleans(), drawn=st.booleans(),
       hidden=st.sampled_from([(), (6,)]), activation=st.sampled_from(list(ACTIVATIONS)))
def test_one_pass_in_small_steps_is_a_pass_for_each_pixel(kernels, D, H, seed, direct, drawn, hidden, activation):
    vae = model(D, f"made:{H}{'+direct' * direct}", seed, kernels=kernels, hidden=hidden, activation=activation)
    z = np.random.default_rng(seed).standard_normal((6, 3))
    noise = np.random.default_rng(seed).logistic(size=(6, D)) if drawn else np.zeros((6, D))
    x, expected = slowly(vae, z, noise)
    a, _ = vae.passes(6, 1)
    vae.output.generate(vae.kernels, a, a.last, vae.parameters, np.random.default_rng(seed) if drawn else None)
    assert np.array_equal(a.x, x) and np.abs(a.rows - expected).max() < 1e-12


def test_mean_images_are_probabilities_along_a_path():
    """decode: the greedy path; sample and reconstruct: a drawn one, the very one that mean=False gives."""
    vae = model(12, hidden=(6, 5), classes=2)
    z, labels = np.random.default_rng(5).standard_normal((7, 3)), np.arange(7) % 2
    mean = vae.decode(z, labels)
    assert mean.shape == (7, 12)
    for drawn, path in ((mean, (mean > 0.5) * 1.0),
                        [vae.sample(7, np.random.default_rng(6), mean=mean, labels=labels) for mean in (True, False)]):
        at = z if drawn is mean else np.random.default_rng(6).standard_normal((7, 3))
        a, _ = vae.passes(7, 1)
        a.x[...], a.z_rows[...], a.labels[...] = path, at, labels
        vae.kernels.append_labels_forward(a.decoder[0], a.z_rows, a.labels)
        vae.decoder.forward(vae.kernels, a.decoder, a.decoder_pre, vae.parameters)
        vae.output.forward(vae.kernels, a, a.last, vae.parameters)
        assert np.abs(drawn - 1 / (1 + np.exp(-a.rows))).max() < 1e-14
    x = (mean > 0.5) * 1.0
    vae.parameters["logvar.W"][...], vae.parameters["logvar.b"][...] = 0, -60      # so z is mu, and pixels alone differ
    again = [vae.reconstruct(x, np.random.default_rng(seed), labels) for seed in (1, 1, 2)]
    assert np.array_equal(*again[:2]) and np.abs(again[1] - again[2]).max() > 0.01


def test_more_images_than_a_block():
    """Of 1,001 rows each has its own z and its own pixels."""
    vae = model(3, spread=1.0)
    images, means = (vae.sample(1001, np.random.default_rng(2), mean=mean) for mean in (False, True))
    assert images.shape == means.shape == (1001, 3)
    z = np.random.default_rng(2).standard_normal((1001, 3))
    assert np.abs(means - 1 / (1 + np.exp(-logits(vae, images, z[:, None])[0][:, 0]))).max() < 1e-14


# ---- Gradients

OBJECTIVES = {"elbo": (ELBO(), 1), "elbo K=3": (ELBO(), 3), "beta": (ELBO(0.3), 1), "sampled": (ELBO(sampled=True), 3),
              "annealing": (ELBO(LinearAnnealing(10)), 1), "free bits": (FreeBits(0.02), 3), "iwae K=1": (IWAE(), 1),
              "iwae K=3": (IWAE(), 3)}


def check_gradients(objective, draws, seed, size, vacuous=(), kernels="numpy", tolerance=1e-12, **config):
    vae, analytic = model(seed=seed, kernels=kernels, **config), model(seed=seed, dtype="complex128", **config)
    rng = np.random.default_rng(seed)
    x, eps = (rng.random((size, vae.input_dim)) < 0.5) * 1.0, rng.standard_normal((size, draws, vae.noise_dim))
    labels = np.arange(size) % vae.classes if vae.classes else None
    gradients = {name: value.copy() for name, value in vae.loss_and_gradients(x, eps, objective, 4, labels)[1].items()}

    def loss(parameters):
        return analytic.loss(x, eps, objective, 4, labels, parameters=parameters)

    report = compare(gradients, numerical_gradient(loss, dict(vae.parameters), "complex"), "complex")
    assert report.worst.error <= tolerance, report
    assert not [tensor.name for tensor in report.tensors if tensor.vacuous and tensor.name not in vacuous], report
    for layer in (vae.output.first, vae.output.last):
        assert not gradients[layer.W][layer.mask == 0].any()


@pytest.mark.every(33)
@DECODERS
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_of_the_whole_model(objective, hidden, decoder):
    check_gradients(*OBJECTIVES[objective], seed=2, size=4, D=7, hidden=hidden, decoder=decoder)


@pytest.mark.every(4)
@pytest.mark.parametrize("parts", [{"prior": "mixture:4", "posterior": "planar:2"}, {"posterior": "iaf:2:8"},
                                   {"prior": "vamp:4"}, {"prior": "hierarchical:4,2"}], ids=str)
def test_gradients_with_richer_priors_and_posteriors(parts):
    check_gradients(IWAE(), 3, 5, 4, **parts)


@KERNELS
@given(size=sizes("BDH", most=6), draws=st.integers(1, 4), seed=seeds, activation=st.sampled_from(list(ACTIVATIONS)),
       objective=st.sampled_from(list(OBJECTIVES)), direct=st.booleans(), classes=st.sampled_from([0, 2]))
def test_gradients_of_random_architectures(kernels, size, draws, seed, activation, objective, direct, classes):
    """Which weights of few units are seen at all is left to chance."""
    check_gradients(OBJECTIVES[objective][0], draws, seed, size["B"], list(model().parameters), kernels,
                    1e-12 if kernels == "numpy" else 1e-10, D=size["D"], classes=classes, activation=activation,
                    decoder=f"made:{size['H']}{'+direct' * direct}")


@KERNELS
@pytest.mark.parametrize("D, H, unused", [(1, 3, ["made.W", "made.b"]), (5, 1, ["made.W"])])
def test_matrices_of_no_rows(kernels, D, H, unused):
    """One pixel has none before it; and one unit leaves one half of a staircase without any."""
    check_gradients(ELBO(), 2, 3, 4, unused, kernels, 1e-10, D=D, decoder=f"made:{H}+direct")


def test_one_pixel_is_drawn():
    assert model(1, "made:3").sample(5, np.random.default_rng(0), mean=False).shape == (5, 1)


# ---- Training and evaluation

@KERNELS
def test_masked_weights_stay_zero_in_training(kernels):
    vae = VAE(8, (6,), 3, "tanh", dtype="float32", kernels=kernels, decoder="made:7+direct", seed=1)
    assert all(vae.parameters[layer.W][layer.mask == 1].all() for layer in (vae.output.first, vae.output.last))
    start, x = vae.parameters.flat.copy(), np.random.default_rng(1).integers(0, 2, (40, 8)).astype(np.float32)
    x[:, 1::2] = x[:, ::2]
    history = fit(vae, x, x, epochs=20, batch_size=10, optimizer=Adam(0.03), objective=FreeBits(0.1), n_samples=2)
    assert history[-1]["test_loss"] < history[0]["test_loss"] - 1 and not np.array_equal(start, vae.parameters.flat)
    for layer in (vae.output.first, vae.output.last):
        W = vae.parameters[layer.W]
        assert not W[layer.mask == 0].any() and W[layer.mask == 1].all()


def test_bounds_in_their_order_and_the_exact_value():
    """elbo <= log p(x), and importance sampling finds what a sum over a grid of z finds."""
    vae = model(4, latent_dim=1, spread=0.8)
    x, rng = all_images(4), np.random.default_rng(1)
    z, width = np.linspace(-9, 9, 401, retstep=True)
    nll = logits(vae, x, np.broadcast_to(z[:, None], (16, 401, 1)))[1].nll
    exact = np.log((np.exp(-nll - z ** 2 / 2) * width / math.sqrt(2 * math.pi)).sum(axis=1))
    assert np.exp(exact).sum() == pytest.approx(1, abs=1e-10)
    assert np.abs(vae.log_likelihood(x, rng, 20000) - exact).max() < 0.05
    elbo = np.array([vae.elbo(x, rng) for _ in range(400)])
    assert (elbo.mean(axis=0) < exact + 5 * elbo.std(axis=0) / 20).all() and elbo.mean() < exact.mean() - 0.5
    assert evaluate.kl_per_dimension(vae, x).shape == (1,)


def test_single_precision_is_double_precision_rounded():
    """Fused in float32 against the reference, wide enough that a part of the units sees everything."""
    fast, exact = (model(60, "made:33+direct", 3, 0.2, *kind) for kind in (("float32", "numba"), ("float64", "numpy")))
    rng = np.random.default_rng(2)
    x, eps = (rng.random((9, 60)) < 0.5).astype(np.float32), rng.standard_normal((9, 3, 3)).astype(np.float32)
    exact.parameters.flat[...] = fast.parameters.flat
    for objective in (ELBO(), IWAE()):
        loss, gradients = fast.loss_and_gradients(x, eps, objective)
        expected, other = exact.loss_and_gradients(x, eps, objective)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert np.abs(gradients.flat - other.flat).max() < 1e-5 * np.abs(other.flat).max()


def test_it_is_saved_and_loaded(tmp_path):
    vae = model(6, "made:4+direct", dtype="float32", kernels="numba")
    vae.save(tmp_path / "model.npz")
    again = VAE.load(tmp_path / "model.npz")
    assert isinstance(again.output, MADE) and again.config() == vae.config()
    assert vae.config()["decoder"] == "made:4+direct"
    images = [one.sample(5, np.random.default_rng(1), mean=False) for one in (vae, again)]
    assert np.array_equal(*images) and images[0].dtype == np.float32
    vae.start_at(np.full(6, 0.25))
    assert np.allclose(vae.parameters["output.b"], -np.log(3))


def test_the_program_trains_one(tmp_path, monkeypatch, capsys):
    images = np.random.default_rng(3).integers(0, 256, (60, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", train=images[:40], test=images[40:])
    without_pictures(monkeypatch)
    npvae = program_in(tmp_path, monkeypatch, capsys)
    flags = ("--decoder", "made:5", "--binarize", "dynamic", "--quiet")
    assert npvae("train", *TINY, *flags, "--out", "made") == (0, "", "")
    assert isinstance(library(tmp_path, "made")[0].output, MADE)
    for command in (("sample", "made", "--draw"), ("evaluate", "made", "--samples", 3), ("info", "made"),
                    ("gradcheck", "made"), ("gradcheck", "--decoder", "made:4+direct")):
        code, _, error = npvae(*command)
        assert (code, error) == (0, ""), command
    code, out, error = npvae("train", *TINY, "--decoder", "made:5", "--out", "grey")
    assert (code, out) == (2, "") and "--binarize" in error and not (tmp_path / "grey").exists()
    code, out, error = npvae("explore", "made")
    assert (code, out) == (2, "") and re.search("decoder made:5: .* a dense decoder fits$", error.strip())
