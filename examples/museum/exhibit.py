"""What an exhibit is: a line of npvae, and a wrong line that takes its place while a check runs.

No file is changed: the source of a function is read, changed and compiled, and the function has the new code until the
check is over.
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
    """The small model that a check builds, with B images and K draws.  Its sizes differ, so that a transposed matrix
    does not fit, except where a mistake needs equal sizes."""

    input_dim: int = 6
    hidden: tuple[int, ...] = (4,)
    decoder_hidden: tuple[int, ...] = (7,)
    latent_dim: int = 2
    activation: str = "tanh"
    likelihood: str = "bernoulli"
    objective: Any = ELBO(0.7)
    batch: int = 5
    draws: int = 3
    scale: float = 1.0      # factor of the loss and its gradients

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
# one row, so that a mask or a derivative can be seen: not a sum over rows
TANH, RELU, LEAKY, ELU, SIGMOID, SOFTPLUS = (
    replace(MODEL, hidden=(9,), activation=name, batch=1, draws=1)
    for name in ("tanh", "relu", "leaky_relu", "elu", "sigmoid", "softplus"))
SQUARE = Setting(6, (6,), (6,), 6, "relu", draws=1)      # all shapes fit, also wrong ones
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
    function : the function that is changed
    should, says : the piece of its code, right and wrong
    also : further changes (function, should, says), such as the derivative of a wrong formula
    shipped : projects that had the mistake, with the number of the issue or pull request on GitHub; "reported" if the
        authors have not confirmed it, "others" if it was published and is not named here
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
        """(right line, wrong line) for each change."""
        return [(right, wrong) for function, should, says in self.changes
                for right, wrong in [_lines(_source(function), *_exchange(self.name, function, should, says,
                                                                          _source(function)))]]


class Outdated(ValueError):
    """npvae no longer has the code that an exhibit, or the slip of a test, changes."""


@contextmanager
def planted(exhibit: Exhibit) -> Iterator[None]:
    """Within this context npvae has the mistake; afterwards, also after an error, it does not.

    Raises Outdated if a function does not have the piece of code exactly once.
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


def wrong_source(function: Any, exhibit: Exhibit) -> str:
    """The source of `function`, one that the exhibit changes, with its changes."""
    source = _source(function)
    for changed, should, says in exhibit.changes:
        if inspect.unwrap(changed) is inspect.unwrap(function):
            start, stop, instead = _exchange(exhibit.name, function, should, says, source)
            source = source[:start] + instead + source[stop:]
    return source


def _compiled(function: Any, exhibit: Exhibit) -> Any:
    """The code of `function` with the exhibit's changes to it."""
    scope = dict(function.__globals__)
    exec(compile(wrong_source(function, exhibit), f"<{exhibit.name}>", "exec"), scope)
    return scope[function.__name__].__code__


def _source(function: Any) -> str:
    """The source of a function without its decorators."""
    source = textwrap.dedent(inspect.getsource(function))
    return source[source.index("def "):]


def _exchange(name: str, function: Any, should: str, says: str, source: str) -> tuple[int, int, str]:
    """Where in the source the piece `should` starts and stops, and the text that replaces it, from `says`.

    Code is compared, not text: line breaks, spaces, comments and docstrings do not count.  Local variables may have
    been renamed, throughout the piece and if their old names no longer exist; `says` then gets the new names.
    """
    code, piece = _tokens(source), [token[0] for token in _tokens(should)]
    function = inspect.unwrap(function)      # the wrapper of a decorator has other names
    local = {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    known = local | {*function.__globals__, *dir(builtins), *keyword.kwlist}

    def renamed(found: list[str]) -> dict[str, str] | None:
        """Names in the piece -> names in the code; None if the two differ in anything else."""
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
    """Names, numbers, strings and single signs; no comments."""
    pattern = r'#.*|("""(?:.|\n)*?"""|"[^"\n]*"|[^\W\d]\w*|\d[\w.]*|[^\s\\])'
    return [token for token in re.finditer(pattern, source) if token[1]]


def _lines(source: str, start: int, stop: int, instead: str) -> tuple[str, str]:
    """The lines that contain the piece, before and after."""
    first, last = source.rfind("\n", 0, start) + 1, source.find("\n", stop)
    right = source[first:last if last >= 0 else None]
    return _joined(right), _joined(source[first:start] + instead + source[stop:last if last >= 0 else None])


def _joined(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines())
