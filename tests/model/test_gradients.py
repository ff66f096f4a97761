"""Whole models: every named tensor against complex step and central differences, fused against reference."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae import ELBO, IWAE, VAE, FreeBits
from npvae.gradcheck import compare, numerical_gradient
from npvae.layers import ACTIVATIONS
from strategies import LIKELIHOODS, seeds, sizes
from whole_models import OBJECTIVES, STEP, batch, check, loss_in, near_a_kink, twins


@pytest.mark.every(15)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_and_likelihood(objective, likelihood):
    report = check("complex", *OBJECTIVES[objective], seed=1, size=3, input_dim=5, hidden=(4,), latent_dim=2,
                   activation="tanh", likelihood=likelihood)
    assert report.ok, report
    assert report.vacuous == (("likelihood.logvar",) if likelihood == "gaussian-optimal" else ()), report


@pytest.mark.every(19)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5), (6, 5, 8)])
@pytest.mark.parametrize("objective", ["elbo", "iwae K=5"])
def test_every_activation_and_depth(activation, hidden, objective):
    """The decoder's widths are its own: shapes that agree by accident hide a wrong path."""
    report = check("complex", *OBJECTIVES[objective], seed=2, input_dim=7, hidden=hidden, latent_dim=3,
                   activation=activation, decoder_hidden=[width + 3 for width in hidden])
    assert report.ok, report
    assert not any(tensor.vacuous for tensor in report.tensors), report


@pytest.mark.parametrize("objective", ["elbo", "iwae K=5"])
def test_heads_and_output_that_are_not_linear(objective):
    """The derivative of tanh looks at the layer's output, which that of the identity ignores: is it handed the right
    one?"""
    objective, draws = OBJECTIVES[objective]
    models = twins(4, input_dim=7, hidden=(6,), latent_dim=3, activation="tanh")
    for model in models:
        tanh = model.encoder.layers[0]
        for layer in (model.mu, model.logvar, model.output.layer):
            layer.activation = tanh.activation
    vae, analytic = models
    x, eps = batch(vae, 4, draws, 4)
    _, gradients = vae.loss_and_gradients(x, eps, objective, STEP)
    report = compare(gradients, numerical_gradient(loss_in(analytic, x, eps, objective), vae.parameters, "complex"),
                     "complex")
    assert report.ok, report


@pytest.mark.every(29)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_central_differences(activation, objective):
    """The independent method: real arithmetic only, redrawn where a kink is within reach of the step."""
    report = check("central", *OBJECTIVES[objective], seed=3, size=3, input_dim=5, hidden=(4,), latent_dim=2,
                   activation=activation)
    assert report.ok, report


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@given(size=sizes("BDHGZ", most=6), draws=st.integers(1, 5), seed=seeds, activation=st.sampled_from(list(ACTIVATIONS)),
       likelihood=st.sampled_from(list(LIKELIHOODS)), objective=st.sampled_from(list(OBJECTIVES)))
def test_random_architectures(kernels, size, draws, seed, activation, likelihood, objective):
    """Both kernel modules in float64 against the complex step through the reference.

    The fused kernels sum in another order: importance weights, exponentials of differences of nlls in the hundreds,
    turn the last digit of an nll into some 1e-12.
    """
    report = check("complex", OBJECTIVES[objective][0], draws, seed, size["B"], kernels, input_dim=size["D"],
                   hidden=(size["H"], size["G"]), latent_dim=size["Z"], activation=activation, likelihood=likelihood)
    assert report.worst.error <= (1e-12 if kernels == "numpy" else 1e-10), report


@given(size=sizes("BDHZ", most=40), draws=st.integers(1, 5), seed=seeds,
       activation=st.sampled_from(list(ACTIVATIONS)), likelihood=st.sampled_from(list(LIKELIHOODS)),
       objective=st.sampled_from(list(OBJECTIVES)))
def test_fused_float32_agrees_with_the_reference(size, draws, seed, activation, likelihood, objective):
    """Loss and gradients of the training path (float32, fused) against float64 in plain NumPy."""
    config = dict(input_dim=size["D"], hidden=(size["H"],), latent_dim=size["Z"], activation=activation,
                  likelihood=likelihood, seed=seed)
    exact, fast = VAE(**config, dtype="float64", kernels="numpy"), VAE(**config, dtype="float32", kernels="numba")
    exact.parameters.flat[...] = fast.parameters.flat
    objective = OBJECTIVES[objective][0]
    x, eps = (value.astype(np.float32) for value in batch(exact, size["B"], draws, seed))
    if near_a_kink(exact, x, eps, objective):
        return
    loss, gradients = exact.loss_and_gradients(x, eps, objective, STEP)
    fast_loss, fast_gradients = fast.loss_and_gradients(x, eps, objective, STEP)
    assert fast_loss == pytest.approx(loss, rel=1e-4)
    for name in gradients:
        error = np.linalg.norm(fast_gradients[name] - gradients[name])
        assert error <= 1e-3 * np.linalg.norm(gradients[name]) + 1e-4 * gradients.norm(), name


def test_gradients_do_not_depend_on_what_was_computed_before():
    """Buffers are reused: another batch size, another K and the other KL term in between change nothing."""
    vae, _ = twins(5, input_dim=7, hidden=(6,), latent_dim=3)
    vae.passes(17, 5)      # memory for the largest: were it renewed below, stale numbers would be gone
    x, eps = batch(vae, 4, 2, 5)
    first, gradients = vae.loss_and_gradients(x, eps)
    kept = gradients.flat.copy()
    for size, draws, objective in ((3, 5, IWAE()), (9, 1, ELBO()), (1, 1, FreeBits(0.1))):
        vae.loss_and_gradients(*batch(vae, size, draws, 6), objective)
    vae.encode(np.full((17, 7), 0.5)), vae.sample(3, np.random.default_rng(0))
    again, gradients = vae.loss_and_gradients(x, eps)
    assert again == first and np.array_equal(gradients.flat, kept)


@given(seed=seeds)
def test_a_batch_is_the_mean_of_its_rows(seed):
    """Loss and gradients are means over images: halves of a batch, weighted by their sizes, make the whole."""
    vae, _ = twins(seed, input_dim=7, hidden=(6,), latent_dim=3, activation="tanh")
    x, eps = batch(vae, 5, 3, seed)
    for objective in (ELBO(0.7), IWAE()):
        loss, gradients = vae.loss_and_gradients(x, eps, objective)
        whole, total, parts = gradients.flat.copy(), 0.0, np.zeros_like(gradients.flat)
        for rows in (slice(0, 2), slice(2, 5)):
            part, gradients = vae.loss_and_gradients(x[rows], eps[rows], objective)
            total += part * len(x[rows]) / 5
            parts += gradients.flat * len(x[rows]) / 5
        assert total == pytest.approx(loss, rel=1e-13)
        assert np.linalg.norm(parts - whole) <= 1e-13 * np.linalg.norm(whole)
