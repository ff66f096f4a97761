"""What an exhibit is: a line of npvae, the wrong line in its place, and how the one is exchanged for the other while a
check runs.  No file is touched: the source of one function is read, changed, compiled, and the function given the new
code until the check is over.
"""
import builtins
import inspect
import keyword
import re
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
        return [(right, wrong) for function, should, says in self.changes
                for right, wrong in [_lines(_source(function), *_exchange(self.name, function, should, says,
                                                                          _source(function)))]]


class Outdated(ValueError):
    """npvae no longer holds what an exhibit, or the slip of a test, changes."""


@contextmanager
def planted(exhibit: Exhibit) -> Iterator[None]:
    """While this lasts, npvae holds the mistake; afterwards, also after an error, it does not.

    Raises Outdated, which names both, where a function does not hold the piece of code once.
    """
    code = {one: one.__code__ for function, _, _ in exhibit.changes for one in [inspect.unwrap(function)]}
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
    source = _source(function)
    for changed, should, says in exhibit.changes:
        if inspect.unwrap(changed) is function:
            start, stop, instead = _exchange(exhibit.name, function, should, says, source)
            source = source[:start] + instead + source[stop:]
    scope = dict(function.__globals__)
    exec(compile(source, f"<{exhibit.name}>", "exec"), scope)
    return scope[function.__name__].__code__


def _source(function: Any) -> str:
    """Without its decorators: a property's stays where it is."""
    source = textwrap.dedent(inspect.getsource(function))
    return source[source.index("def "):]


def _exchange(name: str, function: Any, should: str, says: str, source: str) -> tuple[int, int, str]:
    """Where in the source the piece `should` starts and stops, and what to write there: `says`.

    Code is compared, not text: line breaks, spaces, comments and docstrings do not count, nor what a local variable is
    called, if it is another name throughout the piece and the name that the exhibit knows is gone.
    """
    code, piece = _tokens(source), [token[0] for token in _tokens(should)]
    function = inspect.unwrap(function)      # a decorator of another module stays where it is
    local = {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    known = local | {*function.__globals__, *dir(builtins), *keyword.kwlist}

    def renamed(found: list[str]) -> dict[str, str] | None:
        """The names of the piece -> those of the code; None where the two differ in more."""
        names: dict[str, str] = {}
        for i, (ours, theirs) in enumerate(zip(piece, found)):
            attribute = i > 0 and piece[i - 1] == "."
            if ours != theirs and (attribute or ours in known or not ours.isidentifier() or theirs not in local):
                return None
            if ours.isidentifier() and not attribute and names.setdefault(ours, theirs) != theirs:
                return None
        return names if len({*names.values()}) == len(names) else None

    places = [(i, names) for i in range(len(code) - len(piece) + 1)
              for names in [renamed([token[0] for token in code[i:i + len(piece)]])] if names is not None]
    if len(places) != 1:
        raise Outdated(f"exhibit {name!r}: {function.__qualname__} should hold {should!r} once, and holds it "
                       f"{len(places)} times; examples/museum or the SLIPS of tests/ need the new line")
    first, names = places[0]
    instead = re.sub(r"(?<![\w.])[^\W\d]\w*", lambda word: names.get(word[0], word[0]), says)
    return code[first].start(), code[first + len(piece) - 1].end(), instead


def _tokens(source: str) -> list[re.Match[str]]:
    """Names, numbers, strings and single signs; of a comment nothing."""
    pattern = r'#.*|("""(?:.|\n)*?"""|"[^"\n]*"|[^\W\d]\w*|\d[\w.]*|[^\s\\])'
    return [token for token in re.finditer(pattern, source) if token[1]]


def _lines(source: str, start: int, stop: int, instead: str) -> tuple[str, str]:
    """The lines in which something is exchanged, before and after."""
    first, last = source.rfind("\n", 0, start) + 1, source.find("\n", stop)
    right = source[first:last if last >= 0 else None]
    return _joined(right), _joined(source[first:start] + instead + source[stop:last if last >= 0 else None])


def _joined(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())
