"""Long studies: the claims of the README at full size.  Run by `pytest -m slow -s tests/examples/test_studies.py`; each
prints what it found."""
import numpy as np
import pytest

from npvae import ELBO, VAE, Adam, CosineLR, load_mnist
from npvae.gradcheck import derivatives
from npvae.gradcheck import CENTRAL_STEP, check_gradients
from npvae.layers import ACTIVATIONS
from strategies import LIKELIHOODS
from whole_models import OBJECTIVES, check, check_in_full, loss_in, twins
from linear_models import NAMES, D, Z, at_the_optimum, exact_log_p, sigma_points

pytestmark = pytest.mark.slow


def architectures(count):
    """Random models: depth 1 to 4, widths 1 to 17, B 1 to 9, K 1 to 5; activations, likelihoods and objectives each
    occur equally often."""
    rng, names = np.random.default_rng(2026), (list(ACTIVATIONS), LIKELIHOODS, list(OBJECTIVES))
    for i in range(count):
        depth = rng.integers(1, 5)
        activation, likelihood, objective = (names[k][(i // step) % len(names[k])]
                                             for k, step in enumerate((1, 7, 63)))
        yield dict(objective=OBJECTIVES[objective][0], draws=int(rng.integers(1, 6)), size=int(rng.integers(1, 10)),
                   seed=i, input_dim=int(rng.integers(1, 18)), hidden=rng.integers(1, 18, depth).tolist(),
                   latent_dim=int(rng.integers(1, 18)), activation=activation, likelihood=likelihood,
                   decoder_hidden=rng.integers(1, 18, depth).tolist())


def test_random_architectures_by_the_complex_step():
    """Every named tensor of 500 models, every entry."""
    tensors = [tensor for config in architectures(500) for tensor in check("complex", **config).tensors]
    worst = max(tensors, key=lambda tensor: tensor.error)
    norm = max(tensor.norm_error for tensor in tensors)
    print(f"\ncomplex step: 500 models, {len(tensors)} tensors, worst entry {worst.error:.1e} ({worst.name}), "
          f"worst norm {norm:.1e}")
    assert worst.error <= 1e-9 and norm <= 1e-12


def test_random_architectures_by_central_differences(monkeypatch):
    """The same models.  Rounding of the loss f leaves an error of eps |f| / h in every entry: a tensor whose gradient
    is too small beside it (a sigmoid network four layers deep under a loss of a thousand nats) cannot be judged at
    1e-7 and is counted instead; the complex step has judged it.  A model above 1e-7 is measured once more at half the
    step, where the truncation error, h^2 f'''/6, is a quarter."""
    worst, judged, again = 0.0, 0, 0
    for config in architectures(500):
        errors = central_errors(config)
        if max(errors, default=0.0) > 1e-7:
            again += 1
            with monkeypatch.context() as patch:
                patch.setattr(derivatives, "CENTRAL_STEP", CENTRAL_STEP / 2)
                errors = central_errors(config)
        worst, judged = max([worst, *errors]), judged + len(errors)
    print(f"\ncentral differences: 500 models, worst entry of {judged} tensors {worst:.1e}; {again} models measured "
          f"again at half the step")
    assert worst <= 1e-7 and judged > 6500


def central_errors(config):
    """The error of each tensor that central differences can judge."""
    report, numeric, loss = check_in_full("central", **config)
    rounding = 10 * np.finfo(float).eps * abs(loss) / CENTRAL_STEP
    return [tensor.error for tensor in report.tensors
            if rounding <= 1e-7 * np.sqrt(np.mean(numeric[tensor.name] ** 2))]


def test_the_full_network_along_random_directions():
    """784-400-20 on MNIST: 32 directions per tensor; a relative error of 1e-8 in one weight is caught in all 32."""
    vae, analytic = twins(0, input_dim=784, hidden=(400,), latent_dim=20)
    x = load_mnist()[0][:16] / 255
    eps = np.random.default_rng(0).standard_normal((16, 1, 20))
    gradients = {name: value.copy() for name, value in vae.loss_and_gradients(x, eps)[1].items()}
    parameters = {name: value.copy() for name, value in vae.parameters.items()}
    loss = loss_in(analytic, x, eps, ELBO())
    report = check_gradients(loss, gradients, parameters, "directional", tolerance=1e-13)
    print(f"\n784-400-20: {len(report.tensors)} tensors x 32 directions, worst error {report.worst.error:.1e} of |g|")
    assert report.ok and not report.vacuous, report
    rng, caught = np.random.default_rng(1), 0
    for trial in range(32):      # another weight each time, among those that matter, checked along one direction
        name = list(gradients)[trial % len(gradients)]
        wrong = gradients[name].copy()
        large = np.flatnonzero(np.abs(wrong) >= np.sqrt(np.mean(wrong ** 2)))
        wrong.flat[rng.choice(large)] *= 1 + 1e-8
        one = check_gradients(lambda p: loss({**parameters, **p}), {name: wrong}, {name: parameters[name]},
                              "directional", tolerance=1e-13, directions=1, rng=rng)
        caught += not one.ok
    print(f"784-400-20: a relative error of 1e-8 in one weight caught in {caught} of 32")
    assert caught == 32


@NAMES
def test_a_hundred_data_sets_at_their_optimum(kernels):
    """Linear VAE at the probabilistic PCA optimum: |ELBO - log p| in nats per row, and every gradient entry."""
    gaps, entries = [], []
    for seed in range(100):
        vae, x, sigma = at_the_optimum(kernels, seed)
        loss, gradients = vae.loss_and_gradients(x, sigma_points(len(x)), ELBO())
        gaps.append(abs(loss + exact_log_p(vae, x, sigma).mean()))
        entries.append(np.abs(gradients.flat).max())
    print(f"\npPCA ({kernels}), 100 data sets: |ELBO - log p| at most {max(gaps):.1e}, gradient at most "
          f"{max(entries):.1e}")
    assert max(gaps) <= 1e-12 and max(entries) <= 1e-11


def test_training_reaches_the_exact_likelihood():
    """From random weights, Adam takes a linear VAE to the maximum likelihood of its data, known in closed form."""
    gaps = []
    for seed in range(20):
        best, x, sigma = at_the_optimum("numpy", seed)
        goal = exact_log_p(best, x, sigma).mean()
        steps = 20000
        vae = VAE(D, (), Z, likelihood="gaussian-learned:1.0", dtype="float64", kernels="numpy", seed=seed)
        adam, noise = Adam(CosineLR(1e-2, steps)), sigma_points(len(x))
        for step in range(steps):
            vae.loss_and_gradients(x, noise, ELBO())
            adam.step(vae.parameters, vae.gradients)
        gaps.append(goal + vae.loss_and_gradients(x, noise, ELBO())[0])
    print(f"\ntraining: 20 seeds end {min(gaps):.1e} to {max(gaps):.1e} nats per row below the maximum likelihood")
    assert all(-1e-9 <= gap <= 1e-3 for gap in gaps), gaps
