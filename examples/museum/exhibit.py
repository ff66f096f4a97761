"""What an exhibit is: a line of npvae, the wrong line in its place, and how the one is exchanged for the other while a
check runs.  No file is touched: the source of one function is read, changed, compiled, and the function given the new
code until the check is over.
"""
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npvae import ELBO, IWAE, VAE, FreeBits
from npvae.params import Array

YES, NO, NOT_APPLICABLE = "yes", "no", "not applicable"


@dataclass(frozen=True)
class Setting:
    """The small model that a check builds; B images, K draws.  Sizes differ, so that a transposed matrix does not fit,
    unless the slip needs sizes that agree."""

    input_dim: int = 6
    hidden: tuple[int, ...] = (4,)
    decoder_hidden: tuple[int, ...] = (7,)
    latent_dim: int = 2
    activation: str = "tanh"
    likelihood: str = "bernoulli"
    objective: Any = ELBO(0.7)
    batch: int = 5
    draws: int = 3
    scale: float = 1.0      # of the loss, and of its gradients with it

    def model(self, dtype: str = "float64") -> VAE:
        """A model with random parameters, biases included; the same ones in every dtype."""
        vae = VAE(self.input_dim, self.hidden, self.latent_dim, self.activation, self.likelihood, dtype, "numpy", 4,
                  self.decoder_hidden)
        vae.parameters.flat[...] += 0.3 * np.random.default_rng(4).standard_normal(vae.parameters.flat.size)
        return vae

    def images_and_noise(self) -> tuple[Array, Array]:
        """x (B, D) in [0, 1] and eps (B, K, Z)."""
        rng = np.random.default_rng(7)
        return rng.random((self.batch, self.input_dim)), rng.standard_normal((self.batch, self.draws, self.latent_dim))


MODEL = Setting()
# one row, so that a mask or a derivative shows as it is, and not as a sum over rows
TANH, RELU, LEAKY, ELU, SIGMOID, SOFTPLUS = (
    replace(MODEL, hidden=(9,), activation=name, batch=1, draws=1)
    for name in ("tanh", "relu", "leaky_relu", "elu", "sigmoid", "softplus"))
SQUARE = Setting(6, (6,), (6,), 6, "relu", draws=1)      # here shapes give nothing away
DEEP = replace(MODEL, hidden=(4, 3), decoder_hidden=(7, 8))
GAUSS, LEARNED, PIXEL = (
    replace(MODEL, likelihood=name) for name in ("gaussian:0.5", "gaussian-learned:0.5", "gaussian-pixel"))
SAMPLED, IMPORTANCE = replace(MODEL, objective=ELBO(sampled=True)), replace(MODEL, objective=IWAE(0.6))
BITS = replace(MODEL, objective=FreeBits(0.35))


@dataclass(frozen=True)
class Exhibit:
    """One mistake.

    name : what a person would call it
    seen : can a gradient check see it?  YES, NO (the gradient of a wrong objective is right), or NOT_APPLICABLE (code
        that computes no loss)
    caught_by : the check that finds it, a name in `bug_museum.CHECKS`
    setting : the model it is checked on
    function : where the line stands
    should, says : the piece of the line, right and wrong
    also : further (function, should, says): a wrong formula and its derivative, where the two agree
    shipped : who had it, where that is known, with the number of the issue or pull request on GitHub that tells of it;
        "reported" where the authors have not confirmed it, "others" where it was published and is not named here
    """

    name: str
    seen: str
    caught_by: str
    setting: Setting
    function: Any
    should: str
    says: str
    also: tuple[tuple[Any, str, str], ...] = ()
    shipped: str = ""

    @property
    def changes(self) -> tuple[tuple[Any, str, str], ...]:
        return (self.function, self.should, self.says), *self.also

    def lines(self) -> list[tuple[str, str]]:
        """(the line as it stands in npvae, the line as it stands here), for each change."""
        return [(line, line.replace(should, says)) for function, should, says in self.changes
                for line in [_line(inspect.getsource(function), should)]]


def _line(source: str, piece: str) -> str:
    return next(line.strip() for line in source.splitlines() if piece in line)


@contextmanager
def planted(exhibit: Exhibit) -> Iterator[None]:
    """While this lasts, npvae holds the mistake; afterwards, also after an error, it does not.

    Raises ValueError where a line is not what the exhibit says it should be.
    """
    code = {function: function.__code__ for function, _, _ in exhibit.changes}
    wrong = {function: _compiled(function, exhibit) for function in code}
    try:
        for function in code:
            function.__code__ = wrong[function]
        yield
    finally:
        for function in code:
            function.__code__ = code[function]


def _compiled(function: Any, exhibit: Exhibit) -> Any:
    """The code of `function` with the exhibit's changes to it."""
    source = textwrap.dedent(inspect.getsource(function))
    source = source[source.index("def "):]      # a property's decorator stays where it is
    for changed, should, says in exhibit.changes:
        if changed is function:
            if source.count(should) != 1:
                raise ValueError(f"exhibit {exhibit.name!r}: {function.__qualname__} should hold {should!r} once, "
                                 f"and holds it {source.count(should)} times")
            source = source.replace(should, says)
    scope = dict(function.__globals__)
    exec(compile(source, f"<{exhibit.name}>", "exec"), scope)
    return scope[function.__name__].__code__
