"""The conditional VAE (Sohn et al. 2015): the kernels that hand labels over, gradients of whole models, the same from
one-hot columns made by hand, training, and what is refused.  (The program: `test_conditional_runs.py`.)
"""
import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import given

from npvae import ELBO, IWAE, VAE, Adam, Checkpoint, CheckpointError, FreeBits, evaluate, fit, train
from npvae.gradcheck import compare, numerical_gradient
from npvae.kernels import fused, reference
from npvae.engine.executor import DirectExecutor, ThreadedExecutor
from npvae.likelihoods.support import fitting
from strategies import seeds, sizes, spread
from whole_models import twins
from workers import small_work_is_shared  # noqa: F401 (a fixture)

B, D, Z, L = 8, 7, 3, 4
LABELS = np.array([3, 0, 1, 1, 2, 0, 3, 1])
MODULES = pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])


def batch(draws, width=Z, seed=2):
    rng = np.random.default_rng(seed)
    return rng.random((B, D)), rng.standard_normal((B, draws, width))


def model(seed=1, **config):
    """Random parameters, biases included; all widths differ."""
    vae = VAE(**{"input_dim": D, "hidden": (6, 5), "latent_dim": Z, "activation": "tanh", "classes": L,
                 "dtype": "float64", "kernels": "numpy", "seed": seed, **config})
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae


# ---- The kernels

@MODULES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(size=sizes("BKDL"), seed=seeds)
def test_append_labels(module, dtype, size, seed):
    """Against one-hot columns by other means, in arrays that held garbage; backward is the left part, and no more."""
    rng, images, draws, width, classes = np.random.default_rng(seed), *(size[letter] for letter in "BKDL")
    x, labels = spread(rng, (images * draws, width)).astype(dtype), rng.integers(classes, size=images)
    kept, out, dx = x.copy(), np.full((images * draws, width + classes), 777, dtype), np.full_like(x, 777)
    module.append_labels_forward(out, x, labels)
    assert np.array_equal(out, np.concatenate([x, np.repeat(np.eye(classes)[labels], draws, axis=0)], axis=1))
    dout = spread(rng, out.shape).astype(dtype)
    module.append_labels_backward(dx, dout)
    assert np.array_equal(dx, dout[:, :width]) and np.array_equal(x, kept)
    nudged = np.empty_like(out)      # <dout, d out> = <dx, d x>: what moves with x, and nothing else
    module.append_labels_forward(nudged, x + np.eye(*x.shape, dtype=dtype), labels)
    assert np.sum(dout * (nudged - out)) == pytest.approx(np.trace(dx), rel=1e-3 if dtype == "float32" else 1e-12)


@MODULES
def test_nan_stays_in_its_place(module):
    x, out, dx = np.zeros((2, 3)), np.zeros((2, 5)), np.zeros((2, 3))
    x[1, 2] = np.nan
    module.append_labels_forward(out, x, np.array([1, 0]))
    assert np.argwhere(np.isnan(out)).tolist() == [[1, 2]]
    dout = np.zeros((2, 5))
    dout[0, 2] = dout[1, 3] = dout[1, 4] = np.nan      # the last two are by labels, which have no gradient
    module.append_labels_backward(dx, dout)
    assert np.argwhere(np.isnan(dx)).tolist() == [[0, 2]]


def test_append_labels_to_complex_numbers():
    x, out = spread(np.random.default_rng(0), (6, 2)) + 1e-30j, np.full((6, 5), 7j)
    reference.append_labels_forward(out, x, np.array([2, 0, 1]))
    assert np.array_equal(out[:, :2], x) and np.array_equal(out[:, 2:], np.eye(3)[[2, 2, 0, 0, 1, 1]])


# ---- Whole models

OBJECTIVES = {"elbo": ELBO(0.7), "iwae": IWAE(), "sampled elbo": ELBO(sampled=True), "free bits": FreeBits(0.1)}


def check(objective, draws, labels=LABELS, tolerance=1e-12, **config):
    """Every tensor of the model by the complex step; all classes occur, so none is vacuous."""
    config = {"input_dim": D, "hidden": (6, 5), "latent_dim": Z, "activation": "tanh", "classes": L, **config}
    vae, analytic = twins(3, **config)
    x, eps = batch(draws, vae.noise_dim)
    x = fitting(vae.output, x)
    _, gradients = vae.loss_and_gradients(x, eps, objective, labels=LABELS)

    def loss(parameters):
        return analytic.loss(x, eps, objective, labels=labels, parameters=parameters)

    report = compare({name: value.copy() for name, value in gradients.items()},
                     numerical_gradient(loss, vae.parameters, "complex"), "complex")
    assert report.worst.error <= tolerance, report
    assert not any(tensor.vacuous for tensor in report.tensors), report


@pytest.mark.every(9)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients(objective, draws, kernels):
    check(OBJECTIVES[objective], draws, kernels=kernels, tolerance=1e-12 if kernels == "numpy" else 1e-10)


@pytest.mark.every(15)
@pytest.mark.parametrize("parts", [
    {"hidden": ()}, {"decoder": "made:9"}, {"decoder": "made:9+direct"}, {"posterior": "planar:2"},
    {"posterior": "iaf:2:9"}, {"prior": "mixture:5"}, {"prior": "hierarchical:9,2"},
    {"likelihood": "gaussian-learned"}, {"likelihood": "gaussian-pixel"}], ids=str)
@pytest.mark.parametrize("draws", [1, 3])
def test_gradients_beside_other_parts(parts, draws):
    check(IWAE(), draws, **parts)


def test_the_gradient_check_sees_the_labels():
    with pytest.raises(AssertionError):
        check(ELBO(), 1, labels=np.roll(LABELS, 1))


# ---- The same by hand

def one_hot(labels):
    return np.array([[float(label == i) for i in range(L)] for label in labels])


def wide_models(vae):
    """An encoder of D + L inputs, and a decoder of Z + L, in models that know nothing of labels."""
    config = dict(hidden=(6, 5), activation="tanh", dtype="float64", kernels="numpy")
    encoder, decoder = VAE(D + L, latent_dim=Z, **config), VAE(D, latent_dim=Z + L, **config)
    for other, parts in ((encoder, ("encoder", "mu", "logvar")), (decoder, ("decoder", "output"))):
        for name, value in vae.parameters.items():
            if name.startswith(tuple(f"{part}." for part in parts)):
                other.parameters[name][...] = value
    return encoder, decoder


def test_one_hot_columns_by_hand_give_the_same_numbers():
    """Encoder, decoder and loss, from models of wider inputs, NumPy and the definition of the ELBO."""
    vae, (x, eps) = model(), batch(1)
    encoder, decoder = wide_models(vae)
    mu, logvar = encoder.encode(np.concatenate([x, one_hot(LABELS)], axis=1))
    assert all(np.array_equal(*pair) for pair in zip(vae.encode(x, LABELS), (mu, logvar)))
    z = mu + np.exp(logvar / 2) * eps[:, 0]
    p = decoder.decode(np.concatenate([z, one_hot(LABELS)], axis=1))
    assert np.array_equal(vae.decode(z, LABELS), p)
    nll = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)
    kl = 0.5 * (mu ** 2 + np.exp(logvar) - 1 - logvar).sum(axis=1)
    assert vae.loss_and_gradients(x, eps, labels=LABELS)[0] == pytest.approx((nll + kl).mean(), rel=1e-13)


def test_labels_of_k_draws():
    """Each draw is decoded with the label of its own image."""
    vae, (x, eps) = model(), batch(3)
    vae.loss_and_gradients(x, eps, IWAE(), labels=LABELS)
    a, _ = vae.passes(B, 3)
    _, decoder = wide_models(vae)
    expected = decoder.decode(np.concatenate([a.z_rows, one_hot(np.repeat(LABELS, 3))], axis=1))
    assert np.array_equal(vae.likelihood.mean(vae.kernels, a.output.reshape(-1, D)), expected)


def test_wrong_labels_change_the_loss():
    """Every other label of every image changes the terms of that image, and of no other."""
    vae, (x, eps) = model(), batch(2)

    def terms(labels):
        loss, _ = vae.loss_and_gradients(x, eps, labels=labels)
        a, _ = vae.passes(B, 2)
        return loss, np.concatenate([a.nll, a.kl], axis=1)

    loss, right = terms(LABELS)
    assert terms(LABELS)[0] == loss and abs(terms(np.roll(LABELS, 1))[0] - loss) > 1e-3
    for image, other in itertools.product(range(B), range(1, L)):
        labels = LABELS.copy()
        labels[image] = (labels[image] + other) % L
        changed = (np.abs(terms(labels)[1] - right) > 1e-6).any(axis=1)
        assert changed.tolist() == [i == image for i in range(B)]
    swapped, images = LABELS.copy(), x.copy()
    swapped[[0, 1]], images[[0, 1]] = swapped[[1, 0]], images[[1, 0]]
    noise = eps.copy()
    noise[[0, 1]] = eps[[1, 0]]      # images move together with their labels and noise: the same batch
    assert vae.loss_and_gradients(images, noise, labels=swapped)[0] == pytest.approx(loss, rel=1e-14)


@pytest.mark.parametrize("posterior", ["gaussian", "iaf:2"])
def test_labels_stay_with_their_images_in_every_block(posterior):
    """Of more images than are encoded and decoded at a time: as of a few, one part after the other."""
    vae, rng = model(posterior=posterior), np.random.default_rng(0)
    x, z, labels = rng.random((1100, D)), rng.standard_normal((1100, Z)), rng.integers(L, size=1100)
    calls = [(lambda x, labels: np.hstack(vae.encode(x, labels)), x), (vae.decode, z)]
    if posterior != "gaussian":
        calls += [(lambda x, labels: vae.move(x[:, :Z], x, labels), x)]
    for call, array in calls:
        parts = [call(array[i:i + 110], labels[i:i + 110]) for i in range(0, 1100, 110)]
        assert np.allclose(call(array, labels), np.concatenate(parts), rtol=1e-12, atol=1e-14)
        assert not np.allclose(call(array, np.roll(labels, 1)), np.concatenate(parts))


# ---- On two cores

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("draws", [1, 3])
def test_recorded(dtype, draws):
    """What the kernels write is the same to the bit as by Python; gradients as far as products allow; and one
    thread and two give the same bits, with other labels in between."""
    vae = model(dtype=dtype, kernels="numba")
    assert isinstance(vae.engine, ThreadedExecutor)
    (x, eps), other = batch(draws), np.roll(LABELS, 3)

    def run(labels):
        for memory in (*vae._memory.values(), vae.gradients.flat):
            memory[...] = np.nan
        loss, gradients = vae.loss_and_gradients(x, eps, IWAE(), labels=labels)
        a, d = vae.passes(B, draws)
        return loss, gradients.flat.copy(), [values.copy() for values in (
            a.encoder[0], a.decoder[0][:, Z:], d.z_rows - d.decoder[0][:, :Z])]

    results = {}
    for threads in (1, 2):
        vae.threads = threads
        results[threads] = run(LABELS), run(other), run(LABELS)
    (one, one_other, again), two = results[1], results[2]
    for ours, theirs in ((one, again), (one, two[0]), (one_other, two[1]), (one, two[2])):
        assert ours[0] == theirs[0] and np.array_equal(ours[1], theirs[1])
    assert one[0] != one_other[0]
    with mock.patch.object(VAE, "engine", property(DirectExecutor)):
        direct = run(LABELS)
    assert all(np.array_equal(*pair) for pair in zip(one[2], direct[2])) and not one[2][2].any()
    assert np.array_equal(one[2][0], np.concatenate([x.astype(dtype), one_hot(LABELS)], axis=1))
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    assert np.linalg.norm(one[1] - direct[1]) <= tolerance * np.linalg.norm(direct[1])


# ---- Training

PROTOTYPES = np.random.default_rng(5).integers(0, 2, (L, D)) * 200


def labelled(n, seed):
    """Bytes that are all but told by the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(L, size=n)
    return (PROTOTYPES[labels] + rng.integers(0, 40, (n, D))).astype(np.uint8), labels


X, Y = labelled(150, 6)
X_TEST, Y_TEST = labelled(40, 7)


def trained(path=None, seed=1, epochs=4, resume=None, labels=Y, tests=Y_TEST, stop=(), **config):
    vae = VAE(D, (9,), 2, seed=seed, classes=L, **config)
    history = fit(vae, X, X_TEST, epochs, 16, binarize="dynamic", seed=3, resume=resume, labels_train=labels,
                  callbacks=[Checkpoint(path)] if path else [], labels_test=tests)
    return vae, [{name: value for name, value in row.items() if "second" not in name} for row in history]


def test_each_image_is_trained_with_its_own_label():
    """A sample of a class looks like the class; with the labels shuffled it does not."""
    def distance(labels):
        vae = VAE(D, (9,), 2, kernels="numpy", classes=L)
        fit(vae, X, X_TEST, 40, 16, Adam(0.01), labels_train=labels, labels_test=Y_TEST)
        means = [vae.sample(50, np.random.default_rng(0), labels=np.full(50, one)).mean(axis=0) for one in range(L)]
        return np.abs(means - (PROTOTYPES + 20) / 255).mean(axis=1).max()

    assert distance(Y) < 0.12 < 0.2 < distance(np.random.default_rng(0).permutation(Y))


def test_the_test_set_is_measured_with_its_labels():
    vae, history = trained(kernels="numpy")
    x = np.asarray(train.Rows("x_test", X_TEST, vae, "static", 4, 3, Y_TEST).array / 255, np.float32)

    def loss(labels):
        return -evaluate.elbo(vae, x, train.stream(3, 4, 0), labels).mean(dtype=float)

    assert history[-1]["test_loss"] == pytest.approx(loss(Y_TEST), rel=1e-6)
    assert abs(history[-1]["test_loss"] - loss((Y_TEST + 1) % L)) > 0.1


@pytest.mark.parametrize("config", [{"kernels": "numpy", "dtype": "float64"}, {}], ids=["numpy", "fused"])
def test_saved_and_resumed(config, tmp_path):
    straight, history = trained(tmp_path / "a.npz", **config)
    trained(tmp_path / "b.npz", epochs=2, **config)
    resumed, again = trained(tmp_path / "b.npz", seed=2, resume=tmp_path / "b.npz", **config)
    assert again == history and np.array_equal(resumed.parameters.flat, straight.parameters.flat)
    loaded = VAE.load(tmp_path / "b.npz", config.get("kernels", "numba"))
    assert loaded.config() == straight.config() and loaded.config()["classes"] == L
    assert "classes" not in VAE(D, (9,), 2, kernels="numpy").config()
    assert np.array_equal(loaded.sample(L, np.random.default_rng(0), labels=np.arange(L)),
                          straight.sample(L, np.random.default_rng(0), labels=np.arange(L)))


@pytest.mark.parametrize("labels, says", [(np.roll(Y, 1), "labels_crc32 is"), (None, "labels_train must be given")])
def test_no_resume_with_other_labels(labels, says, tmp_path):
    trained(tmp_path / "a.npz", epochs=1, kernels="numpy")
    with pytest.raises((CheckpointError, ValueError), match=says):
        trained(seed=2, resume=tmp_path / "a.npz", labels=labels, kernels="numpy")


# ---- Refusals

BAD = {
    "none": (None, r"labels must be given, one for each image: this model has 4 classes"),
    "too few": (LABELS[:5], r"labels must be integers of shape \(8,\), got int64 of shape \(5,\)"),
    "a matrix": (one_hot(LABELS).astype(int), r"labels must be integers of shape \(8,\), got int64 of shape \(8, 4\)"),
    "floats": (LABELS * 1.0, r"labels must be integers of shape \(8,\), got float64"),
    "truth values": (LABELS > 1, r"labels must be integers of shape \(8,\), got bool"),
    "names": (LABELS.astype(str), r"labels must be integers of shape \(8,\), got <U21"),
    "too large": (LABELS + 1, r"labels must lie in 0 to 3, found 1 to 4"),
    "negative": (LABELS - 1, r"labels must lie in 0 to 3, found -1 to 2"),
    "beyond int64": (LABELS.astype(np.uint64) + np.uint64(2**63), "labels must lie in 0 to 3, found 92233720"),
    "ragged": ([[1], [1, 2]], "labels must be an array of numbers")}
RNG = np.random.default_rng(0)
CALLS = {
    "loss": lambda vae, labels: vae.loss_and_gradients(*batch(1), labels=labels),
    "encode": lambda vae, labels: vae.encode(batch(1)[0], labels),
    "decode": lambda vae, labels: vae.decode(np.zeros((B, Z)), labels),
    "reconstruct": lambda vae, labels: vae.reconstruct(batch(1)[0], RNG, labels),
    "sample": lambda vae, labels: vae.sample(B, RNG, labels=labels),
    "elbo": lambda vae, labels: vae.elbo(batch(1)[0], RNG, labels),
    "log_likelihood": lambda vae, labels: vae.log_likelihood(batch(1)[0], RNG, 3, labels)}


@pytest.mark.every(3)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_refused_in_one_line(case, call):
    labels, says = BAD[case]
    with pytest.raises(ValueError, match=says) as caught:
        CALLS[call](model(), labels)
    assert "\n" not in str(caught.value)
    assert CALLS[call](model(), LABELS.tolist()) is not None      # any sequence of integers does


@pytest.mark.parametrize("call", CALLS)
def test_a_model_without_classes_refuses_labels(call):
    with pytest.raises(ValueError, match=r"labels were given, but this model has no classes: VAE\(classes=10\)"):
        CALLS[call](model(classes=0), LABELS)


@pytest.mark.parametrize("make, says", [
    (lambda: VAE(classes=-1), "classes must be at least 0, got -1"),
    (lambda: VAE(classes=2.5), "classes must be an integer"),
    (lambda: VAE(classes=3, prior="vamp:4"), "prior vamp:4 .* 3 classes: use prior mixture:4"),
    (lambda: fit(model(kernels="numpy"), X / 255, X_TEST / 255, labels_test=Y_TEST), "labels_train must be given"),
    (lambda: fit(model(kernels="numpy"), X / 255, X_TEST / 255, labels_train=Y), "labels_test must be given"),
    (lambda: fit(model(kernels="numpy"), X / 255, X_TEST / 255, labels_train=Y[1:]), r"labels_train .* \(149,\)"),
    (lambda: fit(model(classes=0), X / 255, X_TEST / 255, labels_test=Y_TEST), "labels_test were given, but")])
def test_what_else_is_refused(make, says):
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        make()
    assert "\n" not in str(caught.value)
