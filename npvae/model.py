"""The variational autoencoder: forward, and backward as its mirror image directly below it.  The heart; read after
`objectives.py`.

    x -> encoder -> mu, logvar -> z = mu + exp(logvar / 2) eps -> decoder -> output -> nll = -log p(x|z)
                        \\-> KL( q(z|x) || p(z) )

Kingma and Welling 2014, Auto-Encoding Variational Bayes; Rezende, Mohamed and Wierstra 2014.
"""
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from . import checkpoint, evaluate, flows, likelihoods, outputs, priors, support
from .buffers import buffers
from .kernels import load
from .lanes import Direct, Lanes, available_cores, be_callable, engine
from .latents import ESTIMATORS, compose
from .layers import ACTIVATIONS, MLP, Dense
from .objectives import ELBO, Objective
from .params import Array, Block
from .sizes import check_memory, count_parameters
from .turns import Owner, all_blas_threads, by_one_thread
from .validate import choice, generator, integer, matrix, noise, numbers_of, shown, widths

#: float32 to train, float64 to compare, complex128 to check gradients by the complex step
DTYPES = ("float32", "float64", "complex128")

_BASE = {"input_dim", "hidden", "latent_dim", "activation", "likelihood", "dtype", "decoder_hidden"}
_PLAIN: dict[str, Any] = {"prior": "normal", "posterior": "gaussian", "decoder": "dense", "classes": 0}
_BLOCK = 500      # rows at a time where a whole data set is passed through


class VAE:
    """A variational autoencoder of dense layers, every gradient written by hand.

    Parameters
    ----------
    input_dim : D, numbers per image
    hidden : widths of the encoder's hidden layers, input side first; may be empty
    latent_dim : Z
    activation : of every hidden layer; one of `npvae.layers.ACTIVATIONS`
    likelihood : a name of `npvae.likelihoods.LIKELIHOODS`, or an object like those there
    dtype : "float32" or "float64"; "complex128" (with the NumPy kernels) for checks by the complex step
    kernels : "numba" (fused, fast) or "numpy" (the reference, readable)
    seed : of the initial weights, an integer or a `numpy.random.Generator`; each layer gets a stream of its own
    decoder_hidden : widths of the decoder's hidden layers, latent side first; None mirrors the encoder's
    prior, posterior, decoder : names such as "vamp:500", "iaf:2", "made:500"; `npvae train --help` lists all forms
    classes : L, if images have labels 0 to L - 1, which encoder and decoder are then given

    Attributes
    ----------
    parameters, gradients : `Block`, name -> array; views, so writing into them changes the model

    Raises ValueError or TypeError that names the argument, MemoryError for a model larger than this machine's memory.
    """

    def __init__(self, input_dim: int = 784, hidden: Sequence[int] = (128,), latent_dim: int = 20,
                 activation: str = "relu", likelihood: str | likelihoods.Likelihood = "bernoulli",
                 dtype: str = "float32", kernels: str = "numba", seed: int | np.random.Generator = 0,
                 decoder_hidden: Sequence[int] | None = None, prior: str = "normal", posterior: str = "gaussian",
                 decoder: str = "dense", classes: int = 0) -> None:
        self.input_dim = integer("input_dim", input_dim, 1)
        self.hidden = widths("hidden", hidden)
        self.latent_dim = integer("latent_dim", latent_dim, 1)
        self.decoder_hidden = (self.hidden[::-1] if decoder_hidden is None
                               else widths("decoder_hidden", decoder_hidden))
        self.activation = choice("activation", activation, ACTIVATIONS)
        self.likelihood = likelihoods.find(likelihood)
        self.dtype = choice("dtype", np.dtype(dtype).name if isinstance(dtype, (type, np.dtype)) else dtype, DTYPES)
        if not isinstance(seed, np.random.Generator):
            seed = np.random.default_rng(integer("seed", seed, 0))
        if self.dtype == "complex128" and kernels == "numba":
            raise ValueError("dtype complex128 needs kernels='numpy': the fused kernels take real numbers only")
        self.kernels = load(kernels)
        self._kernels = kernels

        self.classes = integer("classes", classes, 0)
        check_memory(count_parameters(self.input_dim, self.hidden, self.latent_dim, self.decoder_hidden,
                                      self.likelihood, prior, posterior, decoder, self.classes),
                     np.dtype(self.dtype).itemsize)
        self.encoder = MLP("encoder", self.input_dim + self.classes, self.hidden, activation)
        self.mu = Dense("mu", self.encoder.n_out, self.latent_dim, "identity")
        self.logvar = Dense("logvar", self.encoder.n_out, self.latent_dim, "identity")
        self.latent = compose(flows.find(posterior, self.encoder.n_out, self.latent_dim),
                              priors.find(prior, self.input_dim, self.latent_dim, activation, posterior, self.classes))
        self.noise_dim = self.latent_dim + self.latent.noise
        self.decoder = MLP("decoder", self.latent_dim + self.classes, self.decoder_hidden, activation)
        self.output = outputs.find(decoder, self.decoder.n_out, self.likelihood, self.input_dim, activation)
        self._variant = {"prior": prior, "posterior": posterior, "decoder": decoder, "classes": self.classes}

        layers = [*self.encoder.layers, self.mu, self.logvar, *self.decoder.layers, self.output, self.latent]
        shapes = {name: shape for layer in layers for name, shape in layer.shapes.items()}
        self.parameters = Block({**shapes, **self.likelihood.shapes}, self.dtype)
        self.gradients = self.parameters.zeros_like()
        for layer, rng in zip(layers, seed.spawn(len(layers))):
            layer.initialize(self.parameters, rng)
        self.likelihood.initialize(self.parameters)
        self._forget()
        self.threads = min(2, available_cores())

    def _forget(self) -> None:
        """No memory yet for the arrays of a pass, none recorded."""
        self._memory: dict[str, Array] = {}
        self._passes: dict[tuple[int, int], tuple[SimpleNamespace, SimpleNamespace]] = {}
        self._engine: Direct | Lanes | None = None
        self.owner = Owner()

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy or a pickle: all but the memory of passes and what runs them; the kernels by name."""
        return {name: value for name, value in vars(self).items()
                if name not in ("kernels", "_memory", "_passes", "_engine", "owner")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.kernels = load(self._kernels)
        self._forget()

    @property
    def threads(self) -> int:
        """How many run the passes; 1 and 2 give the same bits in `Lanes`, else BLAS shares each product and rounds."""
        return self._threads

    @threads.setter
    @by_one_thread
    def threads(self, threads: int) -> None:
        """From now on.  Raises ValueError or TypeError for anything but a positive integer."""
        self._threads = integer("threads", threads, 1)
        self._passes.clear()      # what was recorded in them
        self._engine = None

    @property
    def engine(self) -> Direct | Lanes:
        """What runs the passes; chosen at the first, since trying it out compiles a kernel."""
        if self._engine is None:
            with self.owner:
                self._engine = engine(self, self._threads)
        return self._engine

    # -- the two passes ------------------------------------------------------------------------------------------

    def forward(self, a: SimpleNamespace, sampled: bool | str, kernels: ModuleType | None = None) -> None:
        """From a.x and a.eps to a.nll and a.kl (or, if `sampled`, a.log_ratio)."""
        params, kernels = self.parameters, kernels or self.kernels
        if self.classes:
            kernels.append_labels_forward(a.encoder[0], a.x, a.labels)
        self.latent.before(kernels, a, params)
        self.encoder.forward(kernels, a.encoder, a.encoder_pre, params)
        self.mu.forward(kernels, a.mu, a.mu_pre, a.encoder[-1], params)
        self.logvar.forward(kernels, a.logvar, a.logvar_pre, a.encoder[-1], params)
        self.latent.forward(kernels, a, params, sampled)
        if self.classes:
            kernels.append_labels_forward(a.decoder[0], a.z_rows, a.labels)
        self.decoder.forward(kernels, a.decoder, a.decoder_pre, params)
        self.output.forward(kernels, a, params)
        self.likelihood.forward(kernels, a.nll, a.kept, a.output, a.x, params)

    def backward(self, d: SimpleNamespace, a: SimpleNamespace, sampled: bool | str,
                 kernels: ModuleType | None = None) -> None:
        """The forward pass read upwards: from d.nll and d.kl (or d.log_ratio) to `gradients`, of all parameters.

        Two heads read one hidden layer h, so  dh = dmu Wmu^T + dlogvar Wlogvar^T  (D1.6).
        Along any direction v of the parameters,  d/dt loss(parameters + t v) = sum of grads * v  at t = 0  (D7.7).
        """
        params, grads, kernels = self.parameters, self.gradients, kernels or self.kernels
        self.likelihood.backward(kernels, d.output, grads, d.nll, a.kept, a.output, a.x, params)
        self.output.backward(kernels, d, a, grads, params)
        self.decoder.backward(kernels, d.decoder, d.decoder_pre, grads, a.decoder, params)
        if self.classes:
            kernels.append_labels_backward(d.z_rows, d.decoder[0])
        self.latent.backward(kernels, d, a, grads, params, sampled)
        self.logvar.backward(kernels, d.h_logvar, d.logvar_pre, grads, d.logvar, a.logvar, a.encoder[-1], params)
        self.mu.backward(kernels, d.h_mu, d.mu_pre, grads, d.mu, a.mu, a.encoder[-1], params)
        if self.hidden:
            kernels.add(d.h, d.h_mu, d.h_logvar)      # the encoder's output feeds both heads
            self.latent.join(kernels, d)
        self.encoder.backward(kernels, d.encoder, d.encoder_pre, grads, a.encoder, params)
        self.latent.after(kernels, d, a, grads, params)

    def forward_backward(self, a: SimpleNamespace, d: SimpleNamespace, objective: Objective, step: int) -> Any:
        """The loss of the batch in a.x under the noise in a.eps; its gradient is left in `self.gradients`."""
        self.engine.forward(a, objective.sampled)
        if hasattr(self.likelihood, "of_batch"):      # it looks at all images together, and only in training
            self.likelihood.of_batch(self.kernels, a.nll, a.kept, a.output, a.x)
        reg, dreg = (a.log_ratio, d.log_ratio) if objective.sampled else (a.kl, d.kl)
        loss, d.nll[...], dreg[...] = objective(a.nll, reg, step)
        self.engine.backward(d, a, objective.sampled)
        return np.asarray(loss).item()

    def passes(self, batch: int, draws: int) -> tuple[SimpleNamespace, SimpleNamespace]:
        """Every buffer of a training step, as `buffers.py` lists them: `a` the values, `d` their gradients.

        The memory is made once, for the largest batch seen; a smaller batch gets views of it.
        """
        with self.owner:      # a second thread would write into what the first reads
            if (batch, draws) not in self._passes:
                self._passes[batch, draws] = buffers(self, batch, draws, self._take)
            return self._passes[batch, draws]

    def _take(self, name: str, *shape: int) -> Array:
        """The first entries of the memory of that name, as `shape`; new memory where there is too little."""
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

        x (B, D), which means what `support.py` says, here and in all methods;  eps (B, K, Z) standard normal noise,
        wider (`noise_dim`) where the prior draws as well;  step is what schedules of the objective see;  labels (B,)
        where the model has classes.  A deterministic function of its arguments and of `parameters`.  Returns the loss
        and `self.gradients`, which the next call overwrites: copy what is to be kept.

        Raises ValueError or TypeError for wrong shapes, types or pixels.
        """
        x = self.images(x, "x")
        eps = noise("eps", eps, len(x), self.noise_dim)
        integer("step", step, 0)
        self.check_objective(objective)
        a, d = self.passes(len(x), eps.shape[1])
        a.x[...], a.labels[...] = x, self.check_labels(labels, len(x))
        a.eps[...], a.eps_prior[...] = eps[..., :self.latent_dim], eps[..., self.latent_dim:]
        return self.forward_backward(a, d, objective, step), self.gradients

    @by_one_thread
    @all_blas_threads
    def encode(self, x: Array, labels: Array | None = None) -> tuple[Array, Array]:
        """mu, logvar (B, Z) of q(z|x), or of what a flow starts from, x (B, D)."""
        x = self.images(x, "x")
        labels = self.check_labels(labels, len(x))
        be_callable(self)
        mu, logvar = np.empty((2, len(x), self.latent_dim), self.dtype)
        for start in range(0, len(x), _BLOCK):
            block = slice(start, start + _BLOCK)
            a, _ = self.passes(len(x[block]), 1)
            self._encode(x[block], labels[block], a)
            mu[block], logvar[block] = a.mu[:len(a.x)], a.logvar[:len(a.x)]
        return mu, logvar

    def _encode(self, x: Array, labels: Array, a: SimpleNamespace) -> None:
        """The forward pass as far as a.mu and a.logvar."""
        a.x[...], a.labels[...] = x, labels
        if self.classes:
            self.kernels.append_labels_forward(a.encoder[0], a.x, a.labels)
        self.latent.before(self.kernels, a, self.parameters)
        self.encoder.forward(self.kernels, a.encoder, a.encoder_pre, self.parameters)
        self.mu.forward(self.kernels, a.mu, a.mu_pre, a.encoder[-1], self.parameters)
        self.logvar.forward(self.kernels, a.logvar, a.logvar_pre, a.encoder[-1], self.parameters)

    @by_one_thread
    @all_blas_threads
    def decode(self, z: Array, labels: Array | None = None) -> Array:
        """E[x|z] (B, D), the mean image, z (B, Z); of a MADE decoder, probabilities along the greedy path."""
        z = matrix("z", z, self.latent_dim)
        be_callable(self)
        return self._decoder_output(z, self.check_labels(labels, len(z)))

    @by_one_thread
    @all_blas_threads
    def reconstruct(self, x: Array, rng: np.random.Generator, labels: Array | None = None) -> Array:
        """E[x|z] (B, D) at one z drawn from q(z|x), x (B, D)."""
        generator("rng", rng)
        x = self.images(x, "x")
        mu, logvar = self.encode(x, labels)
        z = self.latent.posterior_sample(mu, logvar, rng, self, x, labels)
        return self._decoder_output(z, self.check_labels(labels, len(z)), rng)

    @by_one_thread
    @all_blas_threads
    def sample(self, n: int, rng: np.random.Generator, mean: bool = True, labels: Array | None = None) -> Array:
        """n new images (n, D): z from the prior, and E[x|z], or with mean=False a draw from p(x|z).  labels (n,)."""
        labels = self.check_labels(labels, integer("n", n, 1))
        be_callable(self)
        z = self.latent.prior_sample(n, generator("rng", rng), self)
        return self._decoder_output(z, labels, rng, drawn=not mean)

    @by_one_thread
    def elbo(self, x: Array, rng: np.random.Generator, labels: Array | None = None) -> Array:
        """The evidence lower bound of each image (B,), nats, with one z drawn from q(z|x)."""
        return evaluate.elbo(self, x, generator("rng", rng), labels)

    @by_one_thread
    def log_likelihood(self, x: Array, rng: np.random.Generator, n_samples: int = 5000,
                       labels: Array | None = None) -> Array:
        """log p(x) of each image (B,), nats, by importance sampling (Burda et al. 2016): a lower bound in expectation,
        tight for many samples.  Raises ValueError for a model of complex numbers, which gradient checks alone need."""
        generator("rng", rng)
        return evaluate.log_likelihood(self, x, rng, integer("n_samples", n_samples, 1), labels).values

    @by_one_thread
    def start_at(self, mean: Array) -> None:
        """Set the output bias so that the decoder starts at the image `mean` (D,), such as the mean of the data."""
        mean = numbers_of("mean", mean)
        if mean.shape != (self.input_dim,):
            raise ValueError(f"mean must have shape ({self.input_dim},), got {mean.shape}")
        mean, scale = support.read(mean[None], "mean", self.input_dim, self.likelihood, self.dtype, mean=True)
        self.parameters[self.output.b][...] = self.likelihood.bias_at(support.floats(mean[0], scale))

    def config(self) -> dict[str, Any]:
        """What `VAE(...)` needs to build this architecture again; plain numbers and strings."""
        return {"input_dim": self.input_dim, "hidden": list(self.hidden), "latent_dim": self.latent_dim,
                "activation": self.activation, "likelihood": self.likelihood.name, "dtype": self.dtype,
                "decoder_hidden": list(self.decoder_hidden),
                **{name: value for name, value in self._variant.items() if value != _PLAIN[name]}}

    @by_one_thread
    def save(self, path: str | Path) -> None:
        """Write the model to one file, atomically."""
        checkpoint.write(path, {"parameters": self.parameters.flat}, {"vae": self.config(), **self.parameters.layout()})

    @staticmethod
    def load(path: str | Path, kernels: str = "numba", likelihood: likelihoods.Likelihood | None = None) -> "VAE":
        """The model in a file written by `save` or by a training run.  `likelihood` is needed where it is the reader's
        own class.  Raises checkpoint.CheckpointError."""
        return load_with_manifest(path, kernels, likelihood)[0]

    # -- helpers -------------------------------------------------------------------------------------------------

    def check_objective(self, objective: Objective) -> None:
        """Raises TypeError for what is no objective, ValueError for one that this latent variable does not admit."""
        if isinstance(objective, type) or not hasattr(objective, "sampled"):
            raise TypeError(f"objective must be an object like those of npvae.objectives, such as ELBO(), got "
                            f"{shown(objective)}")
        if not (objective.sampled or self.latent.analytic):
            raise ValueError(f"objective {type(objective).__name__} takes the KL term in closed form, which prior "
                             f"{self._variant['prior']} with posterior {self._variant['posterior']} has not: "
                             "ELBO(sampled=True) and IWAE() fit")
        if objective.sampled in ESTIMATORS and not self.latent.gaussian:
            raise ValueError(f"gradient {objective.sampled} needs a Gaussian q(z|x), which posterior "
                             f"{self._variant['posterior']} is not: gradient total fits")
        if objective.sampled == "dreg" and hasattr(self.likelihood, "of_batch"):      # w~ then moves with other draws
            raise ValueError(f"gradient dreg: in {self.likelihood.name} all draws share one sigma, so total fits")

    def check_labels(self, labels: Array | None, n: int, name: str = "labels") -> Array:
        """labels (n,) as integers, or zeros for a model without classes.  Raises ValueError or TypeError."""
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
        """x (B, D) in floats, as the model sees it.  Raises ValueError or TypeError for what it cannot take, naming
        `name`."""
        x, scale = support.read(x, name, self.input_dim, self.likelihood, self.dtype)
        self.output.check(x, name, white=round(1 / scale))
        return support.floats(x, scale, support.real(self.dtype))

    def _decoder_output(self, z: Array, labels: Array, rng: Any = None, drawn: bool = False) -> Array:
        """E[x|z] for z (B, Z), or if `drawn` x ~ p(x|z) (B, D); `rng` draws pixels."""
        images, rows = np.empty((len(z), self.input_dim), self.dtype), evaluate.rows_at_once(self, _BLOCK)
        for start in range(0, len(z), rows):
            block = slice(start, start + rows)
            a, _ = self.passes(len(z[block]), 1)
            a.z_rows[...], a.labels[...] = z[block], labels[block]
            if self.classes:
                self.kernels.append_labels_forward(a.decoder[0], a.z_rows, a.labels)
            self.decoder.forward(self.kernels, a.decoder, a.decoder_pre, self.parameters)
            self.output.generate(self.kernels, a, self.parameters, rng)
            images[block] = (self.output.draw(self, a, rng) if drawn
                             else self.likelihood.mean(self.kernels, a.rows))
        return images


def load_with_manifest(path: str | Path, kernels: str = "numba", likelihood: likelihoods.Likelihood | None = None
                       ) -> tuple[VAE, dict[str, Any]]:
    """The model in a file, as `VAE.load` gives it, and the file's manifest.  Nothing is allocated for a model that the
    file does not hold.  Raises checkpoint.CheckpointError."""
    def check(manifest: dict[str, Any], headers: checkpoint.Headers) -> None:
        config = _checked_config(manifest.get("vae"))
        needed = count_parameters(
            config["input_dim"], config["hidden"], config["latent_dim"], config["decoder_hidden"],
            likelihood or likelihoods.find(config["likelihood"]),
            *({**_PLAIN, **config}[name] for name in ("prior", "posterior", "decoder", "classes")))
        shape, dtype = headers.get("parameters", ((0,), config["dtype"]))
        if (shape, dtype) != ((needed,), config["dtype"]):
            raise ValueError(f"it holds {math.prod(shape)} parameters of {dtype}, but its settings make a model of "
                             f"{needed} of {config['dtype']}")

    def refuse_what_does_not_fit(manifest: dict[str, Any], headers: checkpoint.Headers) -> None:
        try:
            check(manifest, headers)
        except (KeyError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path}: holds no model that can be built here: {error}") from None

    arrays, manifest = checkpoint.read(path, ("parameters",), refuse_what_does_not_fit)
    try:
        vae = VAE(**{**manifest["vae"], "likelihood": likelihood or manifest["vae"]["likelihood"], "kernels": kernels})
    except (TypeError, ValueError, MemoryError) as error:
        raise checkpoint.CheckpointError(f"{path}: holds no model that can be built here: {error}") from None
    vae.parameters.flat[...] = arrays["parameters"]
    return vae, manifest


def _checked_config(config: Any) -> dict[str, Any]:
    """What `VAE.config` has written, its numbers and widths looked at.  Raises TypeError or ValueError."""
    if not isinstance(config, dict):
        raise ValueError(f"its manifest must say what VAE(...) was given, got {shown(config)}")
    missing, unknown = _BASE - config.keys(), config.keys() - _BASE - _PLAIN.keys()
    if missing or unknown:
        raise ValueError(f"its manifest must say {', '.join(sorted(_BASE))} of the model; " + (
            f"{', '.join(sorted(missing))} is missing" if missing else f"it says {shown(sorted(unknown)[0])}"))
    integer("input_dim", config["input_dim"], 1), integer("latent_dim", config["latent_dim"], 1)
    integer("classes", config.get("classes", 0), 0), choice("dtype", config["dtype"], DTYPES)
    widths("hidden", config["hidden"]), widths("decoder_hidden", config["decoder_hidden"])
    return config
