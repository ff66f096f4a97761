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

from . import checkpoint, evaluate, likelihoods
from .kernels import load
from .lanes import Direct, Lanes, available_cores, engine
from .latents import DiagonalGaussian
from .layers import ACTIVATIONS, MLP, Dense
from .objectives import ELBO, Objective
from .params import Array, Block
from .validate import choice, generator, integer, matrix, numbers_of, shown, widths

#: float32 to train, float64 to compare, complex128 to check gradients by the complex step
DTYPES = ("float32", "float64", "complex128")

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

    Attributes
    ----------
    parameters, gradients : `Block`, name -> array; views, so writing into them changes the model

    Raises ValueError or TypeError that names the argument.
    """

    def __init__(self, input_dim: int = 784, hidden: Sequence[int] = (128,), latent_dim: int = 20,
                 activation: str = "relu", likelihood: str | likelihoods.Likelihood = "bernoulli",
                 dtype: str = "float32", kernels: str = "numba", seed: int | np.random.Generator = 0,
                 decoder_hidden: Sequence[int] | None = None) -> None:
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

        self.encoder = MLP("encoder", self.input_dim, self.hidden, activation)
        self.mu = Dense("mu", self.encoder.n_out, self.latent_dim, "identity")
        self.logvar = Dense("logvar", self.encoder.n_out, self.latent_dim, "identity")
        self.latent = DiagonalGaussian()
        self.decoder = MLP("decoder", self.latent_dim, self.decoder_hidden, activation)
        self.output = Dense("output", self.decoder.n_out, self.likelihood.output_dim(self.input_dim), "identity")

        layers = [*self.encoder.layers, self.mu, self.logvar, *self.decoder.layers, self.output]
        shapes = {name: shape for layer in layers for name, shape in layer.shapes.items()}
        self.parameters = Block({**shapes, **self.likelihood.shapes}, self.dtype)
        self.gradients = self.parameters.zeros_like()
        for layer, rng in zip(layers, seed.spawn(len(layers))):
            layer.initialize(self.parameters, rng)
        self.likelihood.initialize(self.parameters)
        self._memory: dict[str, Array] = {}
        self._passes: dict[tuple[int, int], tuple[SimpleNamespace, SimpleNamespace]] = {}
        self.threads = min(2, available_cores())

    @property
    def threads(self) -> int:
        """How many threads run the passes; 1 and 2 give the same bits.  (With the NumPy kernels BLAS decides.)"""
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        """From now on.  Raises ValueError or TypeError for anything but a positive integer."""
        self._threads = integer("threads", threads, 1)
        self._passes.clear()      # what was recorded in them
        self._engine: Direct | Lanes | None = None

    @property
    def engine(self) -> Direct | Lanes:
        """What runs the passes; chosen at the first, since trying it out compiles a kernel."""
        self._engine = self._engine or engine(self, self._threads)
        return self._engine

    # -- the two passes ------------------------------------------------------------------------------------------

    def forward(self, a: SimpleNamespace, sampled: bool, kernels: ModuleType | None = None) -> None:
        """From a.x and a.eps to a.nll and a.kl (or, if `sampled`, a.log_ratio)."""
        params, kernels = self.parameters, kernels or self.kernels
        self.encoder.forward(kernels, a.encoder, a.encoder_pre, params)
        self.mu.forward(kernels, a.mu, a.mu_pre, a.encoder[-1], params)
        self.logvar.forward(kernels, a.logvar, a.logvar_pre, a.encoder[-1], params)
        self.latent.forward(kernels, a, sampled)
        self.decoder.forward(kernels, a.decoder, a.decoder_pre, params)
        self.output.forward(kernels, a.rows, a.rows_pre, a.decoder[-1], params)
        self.likelihood.forward(kernels, a.nll, a.kept, a.output, a.x, params)

    def backward(self, d: SimpleNamespace, a: SimpleNamespace, sampled: bool, kernels: ModuleType | None = None,
                 grads: Block | None = None) -> None:
        """The forward pass read upwards: from d.nll and d.kl (or d.log_ratio) to `grads`, of all parameters.

        Two heads read one hidden layer h, so  dh = dmu Wmu^T + dlogvar Wlogvar^T  (D1.6).
        Along any direction v of the parameters,  d/dt loss(parameters + t v) = sum of grads * v  at t = 0  (D7.7).
        """
        params, grads, kernels = self.parameters, grads or self.gradients, kernels or self.kernels
        self.likelihood.backward(kernels, d.output, grads, d.nll, a.kept, a.output, a.x, params)
        self.output.backward(kernels, d.decoder[-1], d.rows_pre, grads, d.rows, a.rows, a.decoder[-1], params)
        self.decoder.backward(kernels, d.decoder, d.decoder_pre, grads, a.decoder, params)
        self.latent.backward(kernels, d, a, sampled)
        self.logvar.backward(kernels, d.h_logvar, d.logvar_pre, grads, d.logvar, a.logvar, a.encoder[-1], params)
        self.mu.backward(kernels, d.h_mu, d.mu_pre, grads, d.mu, a.mu, a.encoder[-1], params)
        if self.hidden:
            kernels.add(d.encoder[-1], d.h_mu, d.h_logvar)      # the encoder's output feeds both heads
        self.encoder.backward(kernels, d.encoder, d.encoder_pre, grads, a.encoder, params)

    def forward_backward(self, a: SimpleNamespace, d: SimpleNamespace, objective: Objective, step: int) -> Any:
        """The loss of the batch in a.x under the noise in a.eps; its gradient is left in `self.gradients`."""
        self.engine.forward(a, objective.sampled)
        reg, dreg = (a.log_ratio, d.log_ratio) if objective.sampled else (a.kl, d.kl)
        loss, d.nll[...], dreg[...] = objective(a.nll, reg, step)
        self.engine.backward(d, a, objective.sampled)
        return np.asarray(loss).item()

    def passes(self, batch: int, draws: int) -> tuple[SimpleNamespace, SimpleNamespace]:
        """Every buffer of a training step, with its shape: `a` the values, `d` their gradients.

        The memory is made once, for the largest batch seen; a smaller batch gets views of it.  `_pre` is a matrix
        product before bias and activation; its gradient takes its place, since no backward kernel looks back at it.
        """
        if (batch, draws) in self._passes:
            return self._passes[batch, draws]
        B, K, D, Z, P = batch, draws, self.input_dim, self.latent_dim, self.output.shapes[self.output.b][0]
        x, z, dz, output, doutput = (self._take("x", B, D), self._take("z", B, K, Z), self._take("dz by nll", B, K, Z),
                                     self._take("output", B, K, P), self._take("doutput", B, K, P))
        noise = self._take("eps", B * K * Z + B * K * Z % 2)      # it is drawn in pairs
        pre = {"encoder_pre": [self._take(f"encoder.{i} pre", B, H) for i, H in enumerate(self.hidden)],
               "mu_pre": self._take("mu pre", B, Z), "logvar_pre": self._take("logvar pre", B, Z),
               "decoder_pre": [self._take(f"decoder.{i} pre", B * K, H) for i, H in enumerate(self.decoder_hidden)],
               "rows_pre": self._take("output pre", B * K, P)}
        a = SimpleNamespace(
            x=x, encoder=[x, *(self._take(f"encoder.{i}", B, H) for i, H in enumerate(self.hidden))],
            mu=self._take("mu", B, Z), logvar=self._take("logvar", B, Z), z=z,
            noise=noise, eps=noise[:B * K * Z].reshape(B, K, Z), uniform=np.empty(noise.size, np.float32),
            kl=self._take("kl", B, Z), log_ratio=self._take("log_ratio", B, K),
            decoder=[z.reshape(B * K, Z),
                     *(self._take(f"decoder.{i}", B * K, H) for i, H in enumerate(self.decoder_hidden))],
            rows=output.reshape(B * K, P), output=output, kept=self._take("kept", B, K, P),
            nll=self._take("nll", B, K), index=np.empty(B, np.int64), orders={}, **pre)
        d = SimpleNamespace(
            encoder=[None, *(self._take(f"dencoder.{i}", B, H) for i, H in enumerate(self.hidden))],
            **{f"h_{head}": self._take(f"dencoder by {head}", B, self.hidden[-1]) if self.hidden else None
               for head in ("mu", "logvar")},
            mu=self._take("dmu", B, Z), mu_z=self._take("dmu by z", B, Z), mu_kl=self._take("dmu by kl", B, Z),
            logvar=self._take("dlogvar", B, Z), logvar_z=self._take("dlogvar by z", B, Z),
            logvar_kl=self._take("dlogvar by kl", B, Z),
            z=self._take("dz", B, K, Z), z_nll=dz, z_kl=self._take("dz by kl", B, K, Z),
            kl=self._take("dkl", B, Z), log_ratio=self._take("dlog_ratio", B, K),
            decoder=[dz.reshape(B * K, Z),
                     *(self._take(f"ddecoder.{i}", B * K, H) for i, H in enumerate(self.decoder_hidden))],
            rows=doutput.reshape(B * K, P), output=doutput, nll=self._take("dnll", B, K), **pre)
        self._passes[batch, draws] = a, d
        return a, d

    def _take(self, name: str, *shape: int) -> Array:
        """The first entries of the memory of that name, as `shape`; new memory where there is too little."""
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.zeros(size, self.dtype)
            self._passes.clear()
        return self._memory[name][:size].reshape(shape)

    # -- what users call -----------------------------------------------------------------------------------------

    def loss_and_gradients(self, x: Array, eps: Array, objective: Objective = ELBO(), step: int = 0
                           ) -> tuple[float, Block]:
        """The loss of a batch, in nats per image, and its gradient with respect to every parameter.

        x (B, D);  eps (B, K, Z) standard normal noise;  step is what schedules of the objective see.  A deterministic
        function of its arguments and of `parameters`.  Returns the loss and `self.gradients`, which the next call
        overwrites: copy what is to be kept.

        Raises ValueError or TypeError for wrong shapes, types or pixels.
        """
        x = self._images(x, "x")
        eps = numbers_of("eps", eps)
        if eps.ndim != 3 or eps.shape[::2] != (len(x), self.latent_dim) or not eps.shape[1]:
            raise ValueError(f"eps must have shape (B, K, Z) = ({len(x)}, K, {self.latent_dim}) with K at least 1, "
                             f"got {eps.shape}")
        if eps.dtype.kind not in "fiu" or not np.isfinite(eps).all():
            raise ValueError("eps must hold finite real numbers")
        integer("step", step, 0)
        if isinstance(objective, type) or not hasattr(objective, "sampled"):
            raise TypeError(f"objective must be an object like those of npvae.objectives, such as ELBO(), got "
                            f"{shown(objective)}")
        a, d = self.passes(len(x), eps.shape[1])
        a.x[...], a.eps[...] = x, eps
        return self.forward_backward(a, d, objective, step), self.gradients

    def encode(self, x: Array) -> tuple[Array, Array]:
        """mu, logvar (B, Z) of q(z|x), x (B, D)."""
        x = self._images(x, "x")
        mu, logvar = np.empty((2, len(x), self.latent_dim), self.dtype)
        for start in range(0, len(x), _BLOCK):
            block = slice(start, start + _BLOCK)
            a, _ = self.passes(len(x[block]), 1)
            a.x[...] = x[block]
            self.encoder.forward(self.kernels, a.encoder, a.encoder_pre, self.parameters)
            self.mu.forward(self.kernels, mu[block], a.mu_pre, a.encoder[-1], self.parameters)
            self.logvar.forward(self.kernels, logvar[block], a.logvar_pre, a.encoder[-1], self.parameters)
        return mu, logvar

    def decode(self, z: Array) -> Array:
        """E[x|z] (B, D), the mean image, z (B, Z)."""
        return self._mean(matrix("z", z, self.latent_dim))

    def reconstruct(self, x: Array, rng: np.random.Generator) -> Array:
        """E[x|z] (B, D) at one z drawn from q(z|x), x (B, D)."""
        generator("rng", rng)
        mu, logvar = self.encode(x)
        return self._mean(mu + np.exp(0.5 * logvar) * rng.standard_normal(mu.shape))

    def sample(self, n: int, rng: np.random.Generator, mean: bool = True) -> Array:
        """n new images (n, D): z from the prior, and E[x|z], or with mean=False a draw from p(x|z)."""
        shape = integer("n", n, 1), self.latent_dim
        output = self._decoder_output(generator("rng", rng).standard_normal(shape))
        if mean:
            return self.likelihood.mean(self.kernels, output)
        return self.likelihood.draw(self.kernels, output, self.parameters, rng)

    def elbo(self, x: Array, rng: np.random.Generator) -> Array:
        """The evidence lower bound of each image (B,), nats, with one z drawn from q(z|x)."""
        return evaluate.elbo(self, self._images(x, "x"), generator("rng", rng))

    def log_likelihood(self, x: Array, rng: np.random.Generator, n_samples: int = 5000) -> Array:
        """log p(x) of each image (B,), nats, by importance sampling (Burda et al. 2016): a lower bound in expectation,
        tight for many samples.  Raises ValueError for a model of complex numbers, which gradient checks alone need."""
        choice("the model's dtype", self.dtype, ("float32", "float64"))
        return evaluate.log_likelihood(self, self._images(x, "x"), generator("rng", rng),
                                       integer("n_samples", n_samples, 1))

    def start_at(self, mean: Array) -> None:
        """Set the output bias so that the decoder starts at the image `mean` (D,), such as the mean of the data."""
        mean = numbers_of("mean", mean)
        if mean.shape != (self.input_dim,):
            raise ValueError(f"mean must have shape ({self.input_dim},), got {mean.shape}")
        mean = self._images(mean[None], "mean")[0]
        self.parameters[self.output.b][...] = self.likelihood.bias_at(mean)

    def config(self) -> dict[str, Any]:
        """What `VAE(...)` needs to build this architecture again; plain numbers and strings."""
        return {"input_dim": self.input_dim, "hidden": list(self.hidden), "latent_dim": self.latent_dim,
                "activation": self.activation, "likelihood": self.likelihood.name, "dtype": self.dtype,
                "decoder_hidden": list(self.decoder_hidden)}

    def save(self, path: str | Path) -> None:
        """Write the model to one file, atomically."""
        checkpoint.write(path, {"parameters": self.parameters.flat}, {"vae": self.config()})

    @staticmethod
    def load(path: str | Path, kernels: str = "numba", likelihood: likelihoods.Likelihood | None = None) -> "VAE":
        """The model in a file written by `save` or by a training run.  `likelihood` is needed where it is the reader's
        own class.  Raises checkpoint.CheckpointError."""
        arrays, manifest = checkpoint.read(path)
        try:
            config = dict(manifest["vae"])
            vae = VAE(**{**config, "likelihood": likelihood or config["likelihood"], "kernels": kernels})
            flat = arrays["parameters"]
        except (KeyError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path}: holds no model that can be built here: {error}") from None
        if flat.shape != vae.parameters.flat.shape or flat.dtype != vae.parameters.flat.dtype:
            raise checkpoint.CheckpointError(
                f"{path}: holds {flat.size} parameters of {flat.dtype}, but its settings make a model of "
                f"{vae.parameters.flat.size} of {vae.dtype}")
        vae.parameters.flat[...] = flat
        return vae

    # -- helpers -------------------------------------------------------------------------------------------------

    def _images(self, x: Array, name: str) -> Array:
        x = matrix(name, x, self.input_dim)
        self.likelihood.check(x, name)
        return x

    def _mean(self, z: Array) -> Array:
        return self.likelihood.mean(self.kernels, self._decoder_output(z))

    def _decoder_output(self, z: Array) -> Array:
        output = np.empty((len(z), self.output.shapes[self.output.b][0]), self.dtype)
        for start in range(0, len(z), _BLOCK):
            block = slice(start, start + _BLOCK)
            a, _ = self.passes(len(z[block]), 1)
            a.decoder[0][...] = z[block]
            self.decoder.forward(self.kernels, a.decoder, a.decoder_pre, self.parameters)
            self.output.forward(self.kernels, output[block], a.rows_pre, a.decoder[-1], self.parameters)
        return output
