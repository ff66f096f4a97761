"""npvae: variational autoencoders from scratch in NumPy, every gradient derived and written by hand.

Reading order, a few minutes each but the first:

    kernels/reference/   every formula and its derivative, in plain NumPy         <- the book
    params.py            Block: one flat vector with named views
    layers.py            Dense and MLP: one matrix product and one kernel each way; activations; masked layers
    likelihoods/         p(x|z), and what an array of data means
    buffers.py           every array of a training step, with its shape
    latents/             q(z|x) and p(z): reparameterization and KL; flows, richer priors, a second stochastic layer
    decoders.py          the decoder's last step; MADE, where a pixel depends on those before it
    objectives.py        ELBO, beta, annealing, free bits, IWAE
    model/               VAE: forward, and backward as its mirror image
    optim.py             Adam and learning-rate schedules
    train/               fit: batches, epochs, exact resume
    evaluate/            bounds on log p(x), active latent dimensions, a summary
    gradcheck/           checks of gradients written by hand, of any project
    testing.py           Hypothesis strategies and assert_gradients, for a layer of your own

and beside the lesson:

    engine/              runs the passes on all cores;  kernels/fused/, the reference's compiled twins
    data/                MNIST, IDX files, arrays, tables, folders of pictures
    compression/         lossless compression by bits back
    plotting/, pages/    pictures;  web pages
    cli/                 the program npvae
    sklearn.py           estimators for scikit-learn, which only this module needs
    checkpoint.py        models and runs in files
    validate.py          checks of arguments, with messages that name the argument
    system/              files, the terminal, Ctrl-C
    _moved.py            former import paths of modules

Shapes are written with one letter each, everywhere: B batch, K draws per image, D data, H hidden, Z latent.  W is
(in, out).  dX is dLoss/dX with X's shape.  logvar is log sigma^2.  Losses are in nats, sums over D and Z, means over B.
"""
from typing import TYPE_CHECKING

from .system import interrupt      # before all others: Ctrl-C during an import
from .system.later import later
from . import _moved
from .checkpoint import CheckpointError
from .likelihoods import (
    Bernoulli, BetaBinomial, Categorical, ContinuousBernoulli, DiscretizedLogistic, Gaussian, GaussianOptimal,
    GaussianPixel)
from .model import VAE, hierarchical_vae
from .objectives import ELBO, IWAE, CyclicalAnnealing, FreeBits, LinearAnnealing
from .optim import Adam, ConstantLR, CosineLR, StepLR
from .train import Callback, Checkpoint, EarlyStopping, MetricsLog, Progress, fit
from .validate import NonFiniteError

if TYPE_CHECKING:
    from .compression import CompressionError, compress, decompress
    from .data import DataError, load_mnist
    from .evaluate import active_units, kl_per_dimension, summarize
    from .gradcheck import check_gradients
    from .latents import fit_mixture

_later = later(__name__, "data", "evaluate", "gradcheck", "latents", "testing", "plotting", "pages", "compression")


def __getattr__(name: str) -> object:
    return _moved.module(name) if name in _moved.MOVED else _later(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


interrupt.started()

__version__ = "0.1.0"

__all__ = [
    "VAE", "hierarchical_vae", "fit", "Adam", "ConstantLR", "StepLR", "CosineLR",
    "ELBO", "FreeBits", "IWAE", "LinearAnnealing", "CyclicalAnnealing",
    "Bernoulli", "Gaussian", "GaussianPixel", "GaussianOptimal", "ContinuousBernoulli",
    "DiscretizedLogistic", "Categorical", "BetaBinomial",
    "Callback", "Checkpoint", "EarlyStopping", "MetricsLog", "Progress",
    "load_mnist", "check_gradients", "active_units", "kl_per_dimension", "summarize", "fit_mixture",
    "compress", "decompress",
    "CheckpointError", "CompressionError", "DataError", "NonFiniteError"]
