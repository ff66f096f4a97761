"""What `test_gradients` lends to other tests."""
import numpy as np

from npvae import ELBO, IWAE, VAE, CyclicalAnnealing, FreeBits, LinearAnnealing
from npvae.gradcheck import CENTRAL_STEP, compare, numerical_gradient
from npvae.likelihoods.support import fitting

OBJECTIVES = {
    "elbo": (ELBO(), 1), "elbo K=5": (ELBO(), 5), "beta": (ELBO(beta=0.3), 1), "beta schedule": (
        ELBO(LinearAnnealing(10)), 1), "cyclical": (ELBO(CyclicalAnnealing(20, cycles=2)), 5),
    "sampled KL": (ELBO(sampled=True), 5), "free bits": (FreeBits(0.3), 1), "free bits K=5": (FreeBits(0.2, 0.7), 5),
    "iwae K=1": (IWAE(), 1), "iwae K=5": (IWAE(), 5), "iwae beta": (IWAE(beta=0.6), 5)}
STEP = 4      # of the schedules


def twins(seed, kernels="numpy", **config):
    """A float64 model with random parameters, biases included, and the same model in complex numbers."""
    vae = VAE(**config, dtype="float64", kernels=kernels, seed=seed)
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(seed).standard_normal(vae.parameters.flat.size)
    return vae, VAE(**config, dtype="complex128", kernels="numpy", seed=seed)


def batch(vae, size, draws, seed):
    rng = np.random.default_rng(seed + 1)
    x = fitting(vae.likelihood, rng.random((size, vae.input_dim)))
    return x, rng.standard_normal((size, draws, vae.latent_dim))


def loss_in(vae, x, eps, objective):
    """The loss as a function of named parameters, for numerical derivatives."""
    def loss(parameters):
        return vae.loss(x, eps, objective, STEP, parameters=parameters)
    return loss


def near_a_kink(vae, x, eps, objective):
    """Is a rectifier, or the threshold of the free bits, within what a central difference moves it?"""
    vae.loss_and_gradients(x, eps, objective, STEP)
    a, _ = vae.passes(len(x), eps.shape[1])
    layers, inputs = [*vae.encoder.layers, *vae.decoder.layers], [*a.encoder[:-1], *a.decoder[:-1]]
    distances = [h @ vae.parameters[layer.W] + vae.parameters[layer.b] for h, layer in zip(inputs, layers)
                 if vae.activation in ("relu", "leaky_relu", "elu")]
    if isinstance(objective, FreeBits):      # exp(logvar) makes the KL move faster than a pre-activation
        distances.append(0.02 * (a.kl.mean(axis=0) - objective.bits))
    return any((np.abs(distance) < 20 * CENTRAL_STEP).any() for distance in distances)


def check_in_full(method, objective, draws, seed, size=4, kernels="numpy", **config):
    """Every named tensor of one model, one objective, against numerical derivatives through the reference: the report,
    the numeric gradients, the loss."""
    vae, analytic = twins(seed, kernels, **config)
    x, eps = batch(vae, size, draws, seed)
    while method == "central" and near_a_kink(vae, x, eps, objective):
        seed += 1
        x, eps = batch(vae, size, draws, seed)
    loss, gradients = vae.loss_and_gradients(x, eps, objective, STEP)
    gradients = {name: value.copy() for name, value in gradients.items()}
    parameters = {name: value.copy() for name, value in vae.parameters.items()}
    model = analytic if method == "complex" else vae
    numeric = numerical_gradient(loss_in(model, x, eps, objective), parameters, method)
    return compare(gradients, numeric, method), numeric, loss


def check(*arguments, **config):
    """The report alone."""
    return check_in_full(*arguments, **config)[0]
