"""npvae: variational autoencoders from scratch in NumPy, every gradient derived and written by hand.

Reading order, a few minutes each but the first:

    kernels/reference/   every formula and its derivative, in plain NumPy         <- the book
    params.py            Block: one flat vector with named views
    layers.py            Dense and MLP: one matrix product and one kernel each way;  masks.py, autoregressive ones
    support.py           what an array of data means
    likelihoods.py       p(x|z): Bernoulli, Gaussian;  levels.py, of bytes;  outputs.py, the decoder's last step, and
                         made.py, one that looks at the pixels before
    latents.py           q(z|x) and p(z): reparameterization and KL;  flows.py and priors.py, richer ones
    second_layer.py      a prior that is a VAE itself: two stochastic layers;  hierarchical.py makes such models
    objectives.py        ELBO, beta, annealing, free bits, IWAE; its gradient, or STL or DReG
    model.py             VAE: forward, and backward as its mirror image;  buffers.py lists its arrays
    optim.py             Adam and learning-rate schedules
    gradcheck.py         is a gradient right?  for any project;  derivatives.py, the numbers it is held against,
                         report.py, diagnosis.py, the likely slip, rules.py, what a layer must keep besides,
                         bridge.py, a PyTorch or JAX function
    testing.py           Hypothesis strategies and assert_gradients, for a layer of your own
    train.py             fit: batches, epochs, exact resume
    evaluate.py          what a trained model is worth;  summary.py, all of that at once
    plotting.py          pictures;  charts.py, curves and bars

and beside the lesson: data.py (MNIST, IDX files, arrays), images.py (folders of pictures, tables), labels.py,
callbacks.py, checkpoint.py, npy.py (arrays in files), sizes.py (of a model, before it is made), figures.py (how the
pictures are drawn), report_page.py and explorer.py (web pages), validate.py; the program: cli.py (exit codes),
options.py (flags), runs.py (a run and its folder), commands.py, program.py, __main__.py; what it meets outside:
files.py, terminal.py (what may be printed), interrupt.py (Ctrl-C); and what makes it fast, kernels/fused/, the
reference's compiled twins, lanes.py, which runs the passes on two cores, cuts.py, where a step is cut for that, and
turns.py, for threads of the reader's own.

Shapes are written with one letter each, everywhere: B batch, K draws per image, D data, H hidden, Z latent.  W is
(in, out).  dX is dLoss/dX with X's shape.  logvar is log sigma^2.  Losses are in nats, sums over D and Z, means over B.
"""
from . import interrupt
from .checkpoint import CheckpointError
from .callbacks import Callback, Checkpoint, EarlyStopping, MetricsLog, Progress
from .data import DataError, load_mnist
from .evaluate import active_units, kl_per_dimension
from .gradcheck import check_gradients
from .hierarchical import hierarchical_vae
from .levels import BetaBinomial, Categorical, DiscretizedLogistic
from .likelihoods import Bernoulli, ContinuousBernoulli, Gaussian, GaussianOptimal, GaussianPixel
from .model import VAE
from .objectives import ELBO, IWAE, CyclicalAnnealing, FreeBits, LinearAnnealing
from .optim import Adam, ConstantLR, CosineLR, StepLR
from .summary import summarize
from .train import NonFiniteError, fit

interrupt.started()

__version__ = "0.1.0"

__all__ = [
    "VAE", "hierarchical_vae", "fit", "Adam", "ConstantLR", "StepLR", "CosineLR",
    "ELBO", "FreeBits", "IWAE", "LinearAnnealing", "CyclicalAnnealing",
    "Bernoulli", "Gaussian", "GaussianPixel", "GaussianOptimal", "ContinuousBernoulli",
    "DiscretizedLogistic", "Categorical", "BetaBinomial",
    "Callback", "Checkpoint", "EarlyStopping", "MetricsLog", "Progress",
    "load_mnist", "check_gradients", "active_units", "kl_per_dimension", "summarize",
    "CheckpointError", "DataError", "NonFiniteError"]
