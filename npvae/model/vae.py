"""The variational autoencoder: forward, and backward as its mirror image directly below it.  The heart of the lesson;
read after `objectives.py`.

    x -> encoder -> mu, logvar -> z = mu + exp(logvar / 2) eps -> decoder -> output -> nll = -log p(x|z)
                        \\-> KL( q(z|x) || p(z) )

Kingma and Welling 2014, Auto-Encoding Variational Bayes; Rezende, Mohamed and Wierstra 2014.
"""
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import checkpoint
from ..buffers import Activations, Gradients, Sizes, allocate_pass
from ..decoders import Decoder, make_decoder
from ..engine.blas_threads import Owner, all_blas_threads, by_one_thread
from ..engine.executor import DirectExecutor, ThreadedExecutor, available_cores, ensure_callable, make_executor
from ..evaluate import bounds, imputation
from ..kernels import load
from ..latents.aggregate import GaussianMixture, mixture_of
from ..latents.base import Flow, KLEstimator, Prior
from ..latents.composed import compose
from ..latents.flows import NoFlow, make_flow
from ..latents.priors import make_prior
from ..layers import MLP, Activation, Dense, make_activation
from ..likelihoods import make_likelihood, support
from ..likelihoods.base import Likelihood
from ..objectives import ELBO, Objective
from ..params import Array, Block, Shapes
from ..validate import Rng, boolean, choice, generator, integer, matrix, noise, numbers_of, shown, widths
from .sizes import check_memory, count_parameters, encoder_inputs

#: float32 to train, float64 to compare, complex128 to check gradients by the complex step
DTYPES = ("float32", "float64", "complex128")

_REQUIRED = {"input_dim", "hidden", "latent_dim", "activation", "likelihood", "dtype", "decoder_hidden"}
_DEFAULTS: dict[str, Any] = {"prior": "normal", "posterior": "gaussian", "decoder": "dense", "classes": 0,
                             "missing": False}


class VAE:
    """A variational autoencoder of dense layers, every gradient written by hand.

    Parameters
    ----------
    input_dim : D, numbers per image
    hidden : widths of the encoder's hidden layers, input side first; may be empty
    latent_dim : Z
    activation : of every hidden layer; a name in `npvae.layers.ACTIVATIONS`, or an object of class `Activation`
    likelihood : a name in `npvae.likelihoods.LIKELIHOODS`, or an object of class `Likelihood`
    dtype : "float32" or "float64"; "complex128" (with the NumPy kernels) for checks by the complex step
    kernels : "numba" (fused, fast) or "numpy" (the reference, readable)
    seed : of the initial weights, an integer or a `numpy.random.Generator`; each layer draws from its own stream
    decoder_hidden : widths of the decoder's hidden layers, latent side first; None mirrors the encoder's
    prior, posterior, decoder : names such as "vamp:500", "iaf:2", "made:500" (`npvae train --help` lists all forms), or
        objects of class `Prior`, `Flow`, `Decoder`
    classes : L > 0 for a conditional model: images have labels 0 to L - 1, which the encoder and the decoder are given
    missing : cells of x may be missing, NaN or masked: they are left out of nll, and the encoder is told which they are

    Wherever a method takes `rng`, an integer is the seed of a new generator: with rng=0 each call draws the same.

    Attributes
    ----------
    parameters, gradients : `Block`, name -> array; views, so writing into them changes the model

    Raises ValueError or TypeError that names the argument, MemoryError for a model larger than this machine's memory.
    """

    def __init__(self, input_dim: int = 784, hidden: Sequence[int] = (128,), latent_dim: int = 20,
                 activation: str | Activation = "relu", likelihood: str | Likelihood | Mapping[str, Any] = "bernoulli",
                 dtype: str = "float32", kernels: str = "numba", seed: int | np.random.Generator = 0,
                 decoder_hidden: Sequence[int] | None = None, prior: str | Prior[Any] = "normal",
                 posterior: str | Flow[Any] = "gaussian", decoder: str | Decoder[Any] = "dense", classes: int = 0,
                 missing: bool = False) -> None:
        self.input_dim = integer("input_dim", input_dim, 1)
        self.hidden = widths("hidden", hidden)
        self.latent_dim = integer("latent_dim", latent_dim, 1)
        self.decoder_hidden = (self.hidden[::-1] if decoder_hidden is None
                               else widths("decoder_hidden", decoder_hidden))
        self._activation = make_activation(activation)
        self.activation = self._activation.name
        self.likelihood = make_likelihood(likelihood)
        self.dtype = choice("dtype", np.dtype(dtype).name if isinstance(dtype, (type, np.dtype)) else dtype, DTYPES)
        if not isinstance(seed, np.random.Generator):
            seed = np.random.default_rng(integer("seed", seed, 0))
        if self.dtype == "complex128" and kernels == "numba":
            raise ValueError("dtype complex128 needs kernels='numpy': the fused kernels take real numbers only")
        self.kernels = load(kernels)
        self._kernels = kernels

        self.classes, self.missing = integer("classes", classes, 0), boolean("missing", missing)
        check_memory(count_parameters(self.input_dim, self.hidden, self.latent_dim, self.decoder_hidden,
                                      self.likelihood, prior, posterior, decoder, self.classes, self.missing),
                     np.dtype(self.dtype).itemsize)
        self._has_features = type(self.likelihood).features is not Likelihood.features
        inputs = encoder_inputs(self.input_dim, self.likelihood, self.missing)
        self.encoder = MLP("encoder", inputs + self.classes, self.hidden, self._activation)
        self.mu = Dense("mu", self.encoder.n_out, self.latent_dim, "identity")
        self.logvar = Dense("logvar", self.encoder.n_out, self.latent_dim, "identity")
        self.flow = make_flow(posterior, self.encoder.n_out, self.latent_dim)
        self.prior = make_prior(prior, inputs, self.latent_dim, self._activation)
        self.latent = compose(self.flow, self.prior)
        self.noise_dim = self.latent_dim + self.prior.noise
        self.decoder = MLP("decoder", self.latent_dim + self.classes, self.decoder_hidden, self._activation)
        self.output = make_decoder(decoder, self.decoder.n_out, self.likelihood, self.input_dim, self._activation)
        self._variant = {"prior": prior if isinstance(prior, str) else prior.name,
                         "posterior": posterior if isinstance(posterior, str) else posterior.name,
                         "decoder": decoder if isinstance(decoder, str) else decoder.name, "classes": self.classes,
                         "missing": self.missing}
        if self.missing:
            self._prepare_missing()

        layers: list[Dense | Decoder[Any]] = [
            *self.encoder.layers, self.mu, self.logvar, *self.decoder.layers, self.output]
        *streams, of_latent = seed.spawn(len(layers) + 1)
        own = self.likelihood.parameter_shapes(self.input_dim)
        shapes = {name: shape for each in (*(part.shapes for part in (*layers, self.flow, self.prior)), own)
                  for name, shape in each.items()}
        self.parameters = Block(shapes, self.dtype)
        self.gradients = self.parameters.zeros_like()
        for layer, rng in zip(layers, streams):
            layer.initialize(self.parameters, rng)
        self.flow.initialize(self.parameters, of_latent)
        self.prior.initialize(self.parameters, of_latent)
        self.likelihood.initialize(self.parameters)
        self._discard_passes()
        self.threads = min(2, available_cores())

    def _prepare_missing(self) -> None:
        """Raises ValueError if a part of the model cannot do without a cell."""
        name = self.likelihood.name.partition(":")[0]
        if not self.likelihood.by_column or self.likelihood.fits_batch:
            raise ValueError(f"missing=True needs a likelihood that is a sum over columns, which {name} is not")
        if self.output.reads_data:
            raise ValueError(f"missing=True needs decoder dense: in {self._variant['decoder']} a pixel depends on "
                             "others, which may be missing")
        self._placeholder = np.full(self.input_dim, self.likelihood.support.placeholder, self.dtype)
        self._feature_columns = self.likelihood.feature_columns(self.input_dim).astype(np.int64)

    def _discard_passes(self) -> None:
        """Discards the arrays of all passes and their recorded calls."""
        self._memory: dict[str, Array] = {}
        self._passes: dict[tuple[int, int], tuple[Activations, Gradients]] = {}
        self._engine: DirectExecutor | ThreadedExecutor | None = None
        self.owner = Owner()
        self.parameters.belongs_to(self)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy or a pickle: everything but the arrays of passes and the executor; the kernels by name."""
        return {name: value for name, value in vars(self).items()
                if name not in ("kernels", "_memory", "_passes", "_engine", "owner")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.kernels = load(self._kernels)
        self._discard_passes()

    @property
    def threads(self) -> int:
        """The number of threads that run the passes.  With a `ThreadedExecutor` 1 and 2 give the same bits; otherwise
        BLAS divides each product among them, which may change the rounding."""
        return self._threads

    @threads.setter
    @by_one_thread
    def threads(self, threads: int) -> None:
        """Sets the number of threads for all later passes.  Raises ValueError or TypeError."""
        self._threads = integer("threads", threads, 1)
        self._passes.clear()      # and with them the recorded calls
        self._engine = None

    @property
    def engine(self) -> DirectExecutor | ThreadedExecutor:
        """The executor of the passes, made at its first use, since the choice compiles a kernel."""
        if self._engine is None:
            with self.owner:
                self._engine = make_executor(self, self._threads)
        return self._engine

    @property
    def parts(self) -> Sequence[object]:
        """The parts that call kernels."""
        return self._activation, self.likelihood, self.output, self.latent, self.flow, self.prior

    @property
    def estimators(self) -> Sequence[KLEstimator]:
        """The ways in which this model's KL term can be estimated, the usual one first."""
        return [estimator for estimator in KLEstimator
                if (estimator.is_sampled or self.latent.analytic)
                and (not estimator.follows_path or self.latent.gaussian)]

    # -- the two passes ------------------------------------------------------------------------------------------

    def forward(self, a: Activations, estimator: KLEstimator, kernels: ModuleType | None = None) -> None:
        """From a.x and a.eps to a.nll and a.kl (or a.log_ratio, if the KL term is sampled)."""
        params, kernels = self.parameters, kernels or self.kernels
        self._fill_inputs(a, kernels)
        self.encoder.forward(kernels, a.encoder, a.encoder_pre, params)
        self.mu.forward(kernels, a.mu, a.mu_pre, a.encoder[-1], params)
        self.logvar.forward(kernels, a.logvar, a.logvar_pre, a.encoder[-1], params)
        self.latent.forward(kernels, a, params, estimator)
        if self.classes:
            kernels.append_labels_forward(a.decoder[0], a.z_rows, a.labels)
        self.decoder.forward(kernels, a.decoder, a.decoder_pre, params)
        self.output.forward(kernels, a, a.last, params)
        if a.cells is None:
            self.likelihood.forward(kernels, a.nll, a.kept, a.output, a.x, params)
        else:
            self.likelihood.columns_forward(kernels, a.cells, a.kept, a.output, a.filled, params)
            kernels.sum_observed_forward(a.nll, a.cells, a.missing)

    def _fill_inputs(self, a: Activations, kernels: ModuleType) -> None:
        """The input of the encoder: features of x, which cells are missing, labels, and below them the rows of the
        prior."""
        if a.missing is not None:
            kernels.split_missing(a.filled, a.missing, a.x, self._placeholder)
        if self._has_features:
            self.likelihood.features(kernels, a.features, a.filled)
        if a.missing is not None:
            kernels.append_missing(a.inputs[:len(a.x)], a.features, a.missing, self._feature_columns)
        if self.classes:
            kernels.append_labels_forward(a.encoder[0], a.inputs, a.labels)
        self._fill_prior_rows(a, kernels)

    def _fill_prior_rows(self, a: Activations, kernels: ModuleType) -> None:
        if self.prior.rows:
            self.prior.fill_rows(kernels, a.encoder[0][len(a.x):], a.prior, self.parameters)

    def backward(self, d: Gradients, a: Activations, estimator: KLEstimator, kernels: ModuleType | None = None) -> None:
        """The forward pass in reverse: from d.nll and d.kl (or d.log_ratio) to `gradients`, of all parameters.

        Two layers, mu and logvar, read one hidden layer h, so  dh = dmu Wmu^T + dlogvar Wlogvar^T  (D1.6).
        For any direction v of the parameters,  d/dt loss(parameters + t v) = sum of grads * v  at t = 0  (D7.7).
        """
        params, grads, kernels = self.parameters, self.gradients, kernels or self.kernels
        if d.cells is None:
            self.likelihood.backward(kernels, d.output, grads, d.nll, a.kept, a.output, a.x, params)
        else:
            kernels.sum_observed_backward(d.cells, d.nll, a.missing)
            self.likelihood.columns_backward(kernels, d.output, grads, d.cells, a.kept, a.output, a.filled, params)
        self.output.backward(kernels, d, a, a.last, grads, params)
        self.decoder.backward(kernels, d.decoder, d.decoder_pre, grads, a.decoder, a.decoder_pre, params)
        if self.classes:
            kernels.append_labels_backward(d.z_rows, d.decoder[0])
        self.latent.backward(kernels, d, a, grads, params, estimator)
        h = a.encoder[-1]
        self.logvar.backward(kernels, d.h_logvar, d.logvar_pre, grads, d.logvar, a.logvar, a.logvar_pre, h, params)
        self.mu.backward(kernels, d.h_mu, d.mu_pre, grads, d.mu, a.mu, a.mu_pre, h, params)
        if self.hidden:
            kernels.add(d.h, d.h_mu, d.h_logvar)      # h is read by mu and by logvar,
        if d.h_flow is not None:
            kernels.add(d.encoder[-1], d.h, d.h_flow)      # and by the flow
        self.encoder.backward(kernels, d.encoder, d.encoder_pre, grads, a.encoder, a.encoder_pre, params)
        if self.prior.rows:
            self._rows_backward(d, a, kernels)

    def _rows_backward(self, d: Gradients, a: Activations, kernels: ModuleType) -> None:
        """drows = dpre W^T of the layer that reads the rows of the prior, for these rows only: images need no gradient.
        """
        below, params = slice(len(a.x), None), self.parameters
        if self.hidden:
            kernels.matmul(d.prior_x, d.encoder_pre[0][below], params[self.encoder.layers[0].W].T)
        else:      # mu and logvar read the rows themselves
            kernels.matmul(d.prior_x_mu, d.mu_pre[below], params[self.mu.W].T)
            kernels.matmul(d.prior_x_logvar, d.logvar_pre[below], params[self.logvar.W].T)
            kernels.add(d.prior_x, d.prior_x_mu, d.prior_x_logvar)
        self.prior.rows_backward(kernels, d.prior_x, a.encoder[0][below], a.prior, self.gradients, params)

    def forward_backward(self, a: Activations, d: Gradients, objective: Objective, step: int) -> float:
        """The loss of the batch a.x with the noise a.eps, in nats per image; its gradient is left in `self.gradients`.

        For a complex model the loss is complex.
        """
        loss = self.forward_loss(a, d, objective, step)
        self.engine.backward(d, a, objective.kl_estimator)
        return loss

    def forward_loss(self, a: Activations, d: Gradients, objective: Objective, step: int) -> float:
        """The loss alone; its derivatives with respect to nll and kl (or log_ratio) are left in `d`."""
        estimator = objective.kl_estimator
        self.engine.forward(a, estimator)
        if self.likelihood.fits_batch:
            self.likelihood.fit_batch(self.kernels, a.nll, a.kept, a.output, a.x)
        reg, dreg = (a.log_ratio, d.log_ratio) if estimator.is_sampled else (a.kl, d.kl)
        loss, d.nll[...], dreg[...] = objective(a.nll, reg, step)
        value: float = np.asarray(loss).item()
        return value

    def passes(self, batch: int, draws: int) -> tuple[Activations, Gradients]:
        """Every array of a training step, as `buffers.py` lists them: `a` the values, `d` their gradients.

        The memory is allocated once, for the largest batch so far; smaller batches are views of it.
        """
        with self.owner:      # a second thread would overwrite what the first reads
            if (batch, draws) not in self._passes:
                sizes = Sizes(D=self.input_dim, F=self.likelihood.features_dim(self.input_dim), L=self.classes,
                              Z=self.latent_dim, N=self.prior.noise, P=self.output.shapes[self.output.b][0],
                              prior_rows=self.prior.rows, hidden=self.hidden, decoder_hidden=self.decoder_hidden,
                              flow=type(self.flow) is not NoFlow, third_head=self.flow.reads_encoder,
                              keeps_pre=self._activation.uses_input, features=self._has_features, missing=self.missing)
                a, d = allocate_pass(sizes, batch, draws, self._allocate)
                self.latent.allocate(a, d, self._allocate)
                a.last = self.output.allocate(a, d, self._allocate)
                self._passes[batch, draws] = a, d
            return self._passes[batch, draws]

    def _allocate(self, name: str, *shape: int) -> Array:
        """An array of this shape in the memory kept under `name`, which is enlarged if it is too small."""
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.zeros(size, self.dtype)
            self._passes.clear()
        return self._memory[name][:size].reshape(shape)

    # -- what users call -----------------------------------------------------------------------------------------

    @by_one_thread
    def loss_and_gradients(self, x: Array, eps: Array, objective: Objective = ELBO(), step: int = 0,
                           labels: Array | None = None) -> tuple[float, Block]:
        """The loss of a batch, in nats per image, and its gradient with respect to every parameter.

        A deterministic function of its arguments and of `parameters`.

        Parameters
        ----------
        x : (B, D); what its numbers mean is in `likelihoods/support.py`, here and in all methods
        eps : (B, K, Z), standard normal noise; `noise_dim` columns, more than Z, if the prior draws as well
        step : passed to the schedules of the objective
        labels : (B,), for a model with classes

        Returns
        -------
        the loss, and `self.gradients`, which the next call overwrites: copy what you keep

        Raises ValueError or TypeError for wrong shapes, types or pixels.
        """
        a, d = self._filled(x, eps, objective, step, labels)
        with self.engine.blas_mode:      # one for both passes
            return self.forward_backward(a, d, objective, step), self.gradients

    @by_one_thread
    def loss(self, x: Array, eps: Array, objective: Objective = ELBO(), step: int = 0, labels: Array | None = None,
             parameters: Mapping[str, Array] | None = None) -> float:
        """The loss of a batch by the forward pass alone, for numerical derivatives.

        parameters : name -> array, written into the model before the pass; None: the model's own

        The other arguments are those of `loss_and_gradients`.  With dtype="complex128", for complex steps, the loss is
        complex.
        """
        for name, value in (parameters or {}).items():
            self.parameters[name][...] = value
        a, d = self._filled(x, eps, objective, step, labels)
        with self.engine.blas_mode:
            return self.forward_loss(a, d, objective, step)

    def _filled(self, x: Array, eps: Array, objective: Objective, step: int, labels: Array | None
                ) -> tuple[Activations, Gradients]:
        """The arrays of a step, with the batch in them."""
        x = self.images(x, "x")
        eps = noise("eps", eps, len(x), self.noise_dim)
        integer("step", step, 0)
        self.check_objective(objective)
        a, d = self.passes(len(x), eps.shape[1])
        a.x[...], a.labels[...] = x, self.check_labels(labels, len(x))
        a.eps[...], a.eps_prior[...] = eps[..., :self.latent_dim], eps[..., self.latent_dim:]
        return a, d

    @by_one_thread
    @all_blas_threads
    def encode(self, x: Array, labels: Array | None = None) -> tuple[Array, Array]:
        """mu, logvar (B, Z) of q(z|x), or with a flow of q0(z0|x), for x (B, D)."""
        x = self.images(x, "x")
        mu, logvar, _ = self._pass_encoder(x, self.check_labels(labels, len(x)))
        return mu, logvar

    def _pass_encoder(self, x: Array, labels: Array, z0: Array | None = None) -> tuple[Array, Array, Array | None]:
        """mu, logvar (B, Z) of images as the model sees them; and z = flow(z0) (B, Z), if z0 (B, Z) is given."""
        ensure_callable(self)
        mu, logvar = np.empty((2, len(x), self.latent_dim), self.dtype)
        z = None if z0 is None else np.empty(z0.shape, self.dtype)
        for start in range(0, len(x), bounds.BLOCK):
            block = slice(start, start + bounds.BLOCK)
            a, _ = self.passes(len(x[block]), 1)
            a.x[...], a.labels[...] = x[block], labels[block]
            self._encode(a)
            mu[block], logvar[block] = a.mu[:len(a.x)], a.logvar[:len(a.x)]
            if z is not None and z0 is not None:
                a.z0[:, 0] = z0[block]
                self.flow.forward(self.kernels, a, a.flow, self.parameters)
                z[block] = a.z[:, 0]
        return mu, logvar, z

    def _encode(self, a: Activations) -> None:
        """The first part of `forward`, up to a.mu and a.logvar."""
        self._fill_inputs(a, self.kernels)
        self._encode_inputs(a)

    def _encode_inputs(self, a: Activations) -> None:
        """a.mu and a.logvar from a.encoder[0]."""
        kernels, params = self.kernels, self.parameters
        self.encoder.forward(kernels, a.encoder, a.encoder_pre, params)
        self.mu.forward(kernels, a.mu, a.mu_pre, a.encoder[-1], params)
        self.logvar.forward(kernels, a.logvar, a.logvar_pre, a.encoder[-1], params)

    @by_one_thread
    @all_blas_threads
    def move(self, z0: Array, x: Array, labels: Array | None = None) -> Array:
        """z = flow(z0) (B, Z), for z0 (B, Z) and the images x (B, D) that it belongs to; without a flow z0 itself."""
        return self._through_flow(matrix("z0", z0, self.latent_dim), x, labels)

    def _through_flow(self, z0: Array, x: Array, labels: Array | None) -> Array:
        if type(self.flow) is NoFlow:
            return z0
        x = self.images(x, "x")
        _, _, z = self._pass_encoder(x, self.check_labels(labels, len(x)), z0)
        assert z is not None
        return z

    @by_one_thread
    @all_blas_threads
    def draw_posterior(self, x: Array, rng: Rng, labels: Array | None = None) -> Array:
        """z ~ q(z|x) (B, Z), one draw for each image of x (B, D)."""
        rng = generator("rng", rng)
        mu, logvar = self.encode(x, labels)
        return self._through_flow(mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape), x, labels)

    @by_one_thread
    @all_blas_threads
    def decode(self, z: Array, labels: Array | None = None) -> Array:
        """E[x|z] (B, D), the mean image, for z (B, Z); with a MADE decoder, the probabilities along the greedy path."""
        z = matrix("z", z, self.latent_dim)
        return self._decoder_output(z, self.check_labels(labels, len(z)))

    @by_one_thread
    @all_blas_threads
    def reconstruct(self, x: Array, rng: Rng, labels: Array | None = None) -> Array:
        """E[x|z] (B, D) for x (B, D), at one draw of z from q(z|x)."""
        rng = generator("rng", rng)
        z = self.draw_posterior(x, rng, labels)
        return self._decoder_output(z, self.check_labels(labels, len(z)), rng)

    @by_one_thread
    @all_blas_threads
    def sample(self, n: int, rng: Rng, mean: bool = True, labels: Array | None = None,
               prior: GaussianMixture | str | None = None, codes: Array | None = None) -> Array:
        """n new images (n, D): z from the prior, then E[x|z], or a draw from p(x|z) if not `mean`.

        labels : (n,), for a model with classes
        prior : draws z in place of p(z): a mixture from `fit_mixture`, or "mixture:10", which fits one to `codes`
        codes : (N, Z), draws of z of the training set: `vae.draw_posterior(x_train, rng)`
        """
        labels, rng = self.check_labels(labels, integer("n", n, 1)), generator("rng", rng)
        mixture = mixture_of(prior, codes, rng)
        z = self.draw_prior(n, rng) if mixture is None else matrix("codes", mixture.sample(n, rng), self.latent_dim)
        return self._decoder_output(z, labels, rng, drawn=not mean)

    @by_one_thread
    @all_blas_threads
    def draw_prior(self, n: int, rng: Rng) -> Array:
        """z ~ p(z) (n, Z)."""
        shape = integer("n", n, 1), self.latent_dim
        return self.prior.sample(shape, generator("rng", rng), self.parameters, self._encode_rows)

    def _encode_rows(self, rows: Array) -> tuple[Array, Array]:
        """mu, logvar (R, Z) of the prior's own rows (R, I), which are like inputs of the encoder."""
        mu, logvar = np.empty((2, len(rows), self.latent_dim), self.dtype)
        for start in range(0, len(rows), bounds.BLOCK):
            block = slice(start, start + bounds.BLOCK)
            n = len(rows[block])
            a, _ = self.passes(n, 1)
            a.inputs[:n] = rows[block]
            self._fill_prior_rows(a, self.kernels)
            self._encode_inputs(a)
            mu[block], logvar[block] = a.mu[:n], a.logvar[:n]
        return mu, logvar

    @by_one_thread
    def fit_likelihood(self, x: Array, rng: Rng, labels: Array | None = None) -> None:
        """Sets the sigma of likelihood gaussian-optimal to the best value for x (B, D), with one z ~ q(z|x) for each
        image.  Does nothing for other likelihoods.  Raises NonFiniteError."""
        if self.likelihood.fits_batch:
            self.likelihood.fit_images(self.parameters, self.images(x, "x"), self.reconstruct(x, rng, labels))

    @by_one_thread
    def elbo(self, x: Array, rng: Rng, labels: Array | None = None) -> Array:
        """The evidence lower bound of each image (B,), in nats, estimated with one z drawn from q(z|x)."""
        return bounds.elbo(self, x, generator("rng", rng), labels)

    @by_one_thread
    def log_likelihood(self, x: Array, rng: Rng, n_samples: int = 5000,
                       labels: Array | None = None) -> Array:
        """log p(x) of each image (B,), in nats, by importance sampling (Burda et al. 2016): a lower bound in
        expectation, tight for many samples.  Raises ValueError for a complex model, which is for gradient checks only.
        """
        rng = generator("rng", rng)
        return bounds.log_likelihood(self, x, rng, integer("n_samples", n_samples, 1), labels).values

    @by_one_thread
    def column_scores(self, x: Array, rng: Rng, n_samples: int = 1, labels: Array | None = None
                      ) -> Array:
        """What each column adds to the reconstruction term -log p(x|z) of its row, (B, D) in nats, as a mean over
        n_samples draws of z from q(z|x); 0 for a missing cell."""
        rng = generator("rng", rng)
        return bounds.column_scores(self, x, rng, integer("n_samples", n_samples, 1), labels)

    @by_one_thread
    @all_blas_threads
    def impute(self, x: Array, rng: Rng, n_samples: int = 1000, draws: int | None = None,
               labels: Array | None = None) -> Array:
        """x (B, D) with its missing cells filled in; what is observed stays as it is, to the bit.

        draws : None for one value a cell, its mean given the observed cells of the row (of categories the most probable
            level); M for draws from the distribution of the missing cells, of shape (M, B, D): multiple imputation
        n_samples : draws of z for each row, from which both are computed (Mattei and Frellsen 2019)
        """
        rng, n_samples = generator("rng", rng), integer("n_samples", n_samples, 1)
        x, shape = self.images(x, "x"), () if draws is None else (integer("draws", draws, 1),)
        labels, gone = self.check_labels(labels, len(x)), np.isnan(x)
        rows = np.flatnonzero(gone.any(axis=1))
        filled: Array = np.broadcast_to(x, (*shape, *x.shape)).copy()
        if len(rows):
            own = labels[rows] if self.classes else None
            if draws is None:
                new = imputation.posterior_mean(self, x[rows], rng, n_samples, own)
            else:
                z = imputation.posterior_draws(self, x[rows], rng, n_samples, draws, own).reshape(-1, self.latent_dim)
                new = self._decoder_output(z, np.tile(labels[rows], draws), rng, drawn=True)
            filled[..., rows, :] = np.where(gone[rows], new.reshape(*shape, len(rows), -1), x[rows])
        return filled

    @by_one_thread
    def start_at(self, mean: Array) -> None:
        """Sets the output bias such that the decoder starts at the image `mean` (D,), for example the mean of the data.
        """
        mean = numbers_of("mean", mean)
        if mean.shape != (self.input_dim,):
            raise ValueError(f"mean must have shape ({self.input_dim},), got {mean.shape}")
        mean, scale = support.read(mean[None], "mean", self.input_dim, self.likelihood, self.dtype, mean=True)
        self.parameters[self.output.b][...] = self.likelihood.bias_at(support.floats(mean[0], scale))

    @by_one_thread
    def start(self, x: Array) -> None:
        """Sets the output bias, and the likelihood's own parameters such as a learned sigma, to the scale of data x
        (N, D).  For data that are not pixels in [0, 1], training begins much nearer to its end."""
        self.likelihood.start(self.parameters, self.parameters[self.output.b], self.images(x, "x"))

    def config(self) -> dict[str, Any]:
        """The arguments of `VAE(...)` that build this architecture again, as plain numbers and strings."""
        return {"input_dim": self.input_dim, "hidden": list(self.hidden), "latent_dim": self.latent_dim,
                "activation": self.activation, "likelihood": self.likelihood.config(), "dtype": self.dtype,
                "decoder_hidden": list(self.decoder_hidden),
                **{name: value for name, value in self._variant.items() if value != _DEFAULTS[name]}}

    @by_one_thread
    def save(self, path: str | Path) -> None:
        """Writes the model to one file, atomically."""
        checkpoint.write(path, {"parameters": self.parameters.flat}, {"vae": self.config(), **self.parameters.layout()})

    @staticmethod
    def load(path: str | Path, kernels: str = "numba", likelihood: Likelihood | None = None,
             activation: Activation | None = None, prior: Prior[Any] | None = None, posterior: Flow[Any] | None = None,
             decoder: Decoder[Any] | None = None) -> "VAE":
        """The model in a file that `save` or a training run has written.

        A file names its parts.  Those of your own classes are passed again, as objects:
        `VAE.load("model.npz", likelihood=MyLikelihood())`, and likewise activation, prior, posterior and decoder.

        Raises checkpoint.CheckpointError.
        """
        return load_with_manifest(path, kernels, likelihood, activation, prior, posterior, decoder)[0]

    def __repr__(self) -> str:
        """The network from x to x as text, and the parameters of each part."""
        D, Z, variant = self.input_dim, self.latent_dim, self._variant
        labels, active = f" and {self.classes} labels" if self.classes else "", f", {self.activation}"
        inputs, missing = encoder_inputs(D, self.likelihood, self.missing), ", some missing" if self.missing else ""

        def chain(name: str, *sizes: int) -> str:
            return f"|  {name}: {' -> '.join(map(str, sizes))}"

        def of(*parts: Any) -> list[Shapes]:
            return [part.shapes for part in parts]

        output = chain(f"output, {variant['decoder']}", self.decoder.n_out, self.likelihood.output_dim(D))
        parts: list[tuple[str, list[Shapes]]] = [
            (f"x  {D}{missing}{labels}", []),
            (chain("encoder", inputs + self.classes, *self.hidden) + active, of(*self.encoder.layers)),
            (chain("mu, logvar", self.encoder.n_out, Z), of(self.mu, self.logvar)),
            (f"|  posterior: {variant['posterior']}", of(self.flow)),
            (f"z  {Z}{labels}", []),
            (f"|  prior: {variant['prior']}", of(self.prior)),
            (chain("decoder", Z + self.classes, *self.decoder_hidden) + active, of(*self.decoder.layers)),
            (output, of(self.output)),
            (f"x  {D}, {self.likelihood.name}", [self.likelihood.parameter_shapes(D)])]
        lines = [f"VAE of {self.parameters.flat.size:,} parameters, {self.dtype}"]
        for text, inside in parts:
            count = sum(math.prod(shape) for shapes in inside for shape in shapes.values())
            if inside or not text.startswith("|"):
                lines.append(f"  {text:50s} {f'{count:,}' if count else '':>12s}".rstrip())
        return "\n".join(lines)

    # -- helpers -------------------------------------------------------------------------------------------------

    def check_objective(self, objective: Objective) -> None:
        """Raises TypeError for anything but an objective, ValueError for one that needs an estimator this model does
        not have."""
        if not isinstance(objective, Objective):
            raise TypeError(f"objective must be an object like those of npvae.objectives, such as ELBO(), got "
                            f"{shown(objective)}")
        estimator, posterior = objective.kl_estimator, self._variant["posterior"]
        if not (estimator.is_sampled or self.latent.analytic):
            raise ValueError(f"objective {type(objective).__name__} needs the KL term in closed form, which prior "
                             f"{self._variant['prior']} with posterior {posterior} does not have: use "
                             "ELBO(sampled=True) or IWAE()")
        if estimator.follows_path and not self.latent.gaussian:
            raise ValueError(f"gradient {objective.gradient} needs a Gaussian q(z|x), which posterior {posterior} is "
                             "not: use gradient total")
        if estimator is KLEstimator.DOUBLY_REPARAMETERIZED and self.likelihood.fits_batch:
            raise ValueError(f"gradient dreg: in {self.likelihood.name} all draws share one sigma; use gradient total")

    def check_labels(self, labels: Array | None, n: int, name: str = "labels") -> Array:
        """labels (n,) as integers; zeros for a model without classes.  Raises ValueError or TypeError that names
        `name`."""
        if not self.classes:
            if labels is not None:
                raise ValueError(f"{name} were given, but this model has no classes: VAE(classes=10) would take them")
            return np.zeros(n, np.int64)
        if labels is None:
            raise ValueError(f"{name} must be given, one for each image: this model has {self.classes} classes")
        labels = numbers_of(name, labels)
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers of shape ({n},), got {labels.dtype} of shape {labels.shape}")
        if n and not (labels.min() >= 0 and labels.max() < self.classes):
            raise ValueError(f"{name} must lie in 0 to {self.classes - 1}, found {labels.min()} to {labels.max()}")
        return labels.astype(np.int64)

    def images(self, x: Array, name: str) -> Array:
        """x (B, D) as floats, as the model sees it.  Raises ValueError or TypeError that names `name`."""
        x, scale = support.read(x, name, self.input_dim, self.likelihood, self.dtype, missing=self.missing)
        self.output.check(x, name, white=round(1 / scale))
        return support.floats(x, scale, support.real(self.dtype))

    def _decoder_output(self, z: Array, labels: Array, rng: np.random.Generator | None = None, drawn: bool = False
                        ) -> Array:
        """E[x|z] (B, D) for z (B, Z), or x ~ p(x|z) if `drawn`; a MADE decoder draws its pixels with `rng`."""
        ensure_callable(self)
        images, rows = np.empty((len(z), self.input_dim), self.dtype), bounds.rows_at_once(self, bounds.BLOCK)
        for start in range(0, len(z), rows):
            block = slice(start, start + rows)
            a, _ = self.passes(len(z[block]), 1)
            a.z_rows[...], a.labels[...] = z[block], labels[block]
            if self.classes:
                self.kernels.append_labels_forward(a.decoder[0], a.z_rows, a.labels)
            self.decoder.forward(self.kernels, a.decoder, a.decoder_pre, self.parameters)
            self.output.generate(self.kernels, a, a.last, self.parameters, rng)
            if drawn:
                assert rng is not None
                images[block] = self.output.draw(self.kernels, a, self.likelihood, self.parameters, rng)
            else:
                complete = self.likelihood.complete(self.kernels, a.rows, self.parameters)
                images[block] = self.likelihood.mean(self.kernels, complete)
        return images


def load_with_manifest(path: str | Path, kernels: str = "numba", likelihood: Likelihood | None = None,
                       activation: Activation | None = None, prior: Prior[Any] | None = None,
                       posterior: Flow[Any] | None = None, decoder: Decoder[Any] | None = None
                       ) -> tuple[VAE, dict[str, Any]]:
    """The model in a file, as `VAE.load` returns it, and the file's manifest.  Nothing is allocated before the file is
    found to hold such a model.  Raises checkpoint.CheckpointError."""
    given = {name: part for name, part in (("likelihood", likelihood), ("activation", activation), ("prior", prior),
                                           ("posterior", posterior), ("decoder", decoder)) if part is not None}

    def check(manifest: dict[str, Any], headers: checkpoint.Headers) -> None:
        config = _checked_config(manifest.get("vae"))
        for name, part in given.items():
            if config[name] != (part.config() if isinstance(part, Likelihood) else part.name):
                raise ValueError(f"its {name} is {shown(config[name])}, and {shown(part.name)} was given")
        config |= given
        needed = count_parameters(
            config["input_dim"], config["hidden"], config["latent_dim"], config["decoder_hidden"],
            make_likelihood(config["likelihood"]), config["prior"], config["posterior"], config["decoder"],
            config["classes"], config["missing"])
        shape, dtype = headers.get("parameters", ((0,), config["dtype"]))
        if (shape, dtype) != ((needed,), config["dtype"]):
            raise ValueError(f"it holds {math.prod(shape)} parameters of {dtype}, but its settings make a model of "
                             f"{needed} of {config['dtype']}")

    def refuse_what_does_not_fit(manifest: dict[str, Any], headers: checkpoint.Headers) -> None:
        try:
            check(manifest, headers)
        except (KeyError, TypeError, ValueError) as error:
            part, more = str(error).partition(" ")[0], ""
            if part in ("likelihood", "activation", "prior", "posterior", "decoder") and part not in given:
                more = f"; one of your own is passed again, in Python: VAE.load(path, {part}=...)"
            raise checkpoint.CheckpointError(f"{path}: holds no model that can be built here: {error}{more}") from None

    arrays, manifest = checkpoint.read(path, ("parameters",), refuse_what_does_not_fit)
    try:
        vae = VAE(**{**manifest["vae"], **given, "kernels": kernels})
    except (TypeError, ValueError, MemoryError) as error:
        raise checkpoint.CheckpointError(f"{path}: holds no model that can be built here: {error}") from None
    vae.parameters.flat[...] = arrays["parameters"]
    return vae, manifest


def _checked_config(config: object) -> dict[str, Any]:
    """What `VAE.config` wrote, checked, and completed with defaults.  Raises TypeError or ValueError."""
    if not isinstance(config, dict):
        raise ValueError(f"its manifest must say what VAE(...) was given, got {shown(config)}")
    missing, unknown = _REQUIRED - config.keys(), config.keys() - _REQUIRED - _DEFAULTS.keys()
    if missing or unknown:
        raise ValueError(f"its manifest must say {', '.join(sorted(_REQUIRED))} of the model; " + (
            f"{', '.join(sorted(missing))} is missing" if missing else f"it says {shown(sorted(unknown)[0])}"))
    integer("input_dim", config["input_dim"], 1), integer("latent_dim", config["latent_dim"], 1)
    integer("classes", config.get("classes", 0), 0), boolean("missing", config.get("missing", False))
    choice("dtype", config["dtype"], DTYPES)
    widths("hidden", config["hidden"]), widths("decoder_hidden", config["decoder_hidden"])
    return {**_DEFAULTS, **config}
