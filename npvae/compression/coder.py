"""The entropy coder: a stack of bits, and symbols of given probabilities on it.  Read after `exact.py`.

The stack is that of the package constriction (Bamler 2022), asymmetric numeral systems (Duda 2009): pushing a symbol of
probability P makes the stack log2(1/P) bits longer, popping it makes it as much shorter, and what was pushed last is
popped first.  A stack of random bits gives symbols that are distributed as P says: popping draws.

A symbol of many values is pushed as bits, the most significant first, each with its probability given those before it.
So every distribution is given by one function, its cumulative probability.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..params import Array

Below = Callable[[Array], Array]      # below(k) = P(symbol < k), of each of the symbols, for an integer k for each

_WHOLE = 2.0 ** 24      # probabilities of bits are multiples of 2^-24, as in constriction
#: bits that must stay on the stack: with fewer, a symbol is not drawn by its probability
LEAST = 64


class Saved(NamedTuple):
    """A copy of a stack's bits."""

    ans: Any


class Symbols(ABC):
    """Symbols on a stack of bits, of which a subclass knows how to push and to pop single bits.

    Attributes
    ----------
    bits : how many there are
    """

    bits: int

    @abstractmethod
    def push_bits(self, bits: Array, chances: Array) -> None:
        """Push bits (n,), the last one first; chances (n,) is how likely each is to be 1."""

    @abstractmethod
    def pop_bits(self, chances: Array) -> Array:
        """Pop bits (n,) pushed with these chances."""

    def push(self, symbols: Array, depth: int, below: Below) -> None:
        """Push integers of any shape, from 0 to 2^depth - 1."""
        bits, chances = [], []

        def known(chance: Array, middle: Array) -> Array:
            bits.append(symbols >= middle)
            chances.append(chance)
            return bits[-1]

        _walk(symbols.shape, depth, below, known)
        self.push_bits(np.concatenate(bits, axis=None), np.concatenate(chances, axis=None))

    def pop(self, shape: tuple[int, ...], depth: int, below: Below) -> Array:
        """Pop integers of this shape, which were pushed with the same `depth` and `below`."""
        return _walk(shape, depth, below, lambda chance, middle: self.pop_bits(np.ravel(chance)).reshape(shape))


class Stack(Symbols):
    """The stack of constriction.

    Parameters
    ----------
    words : uint32, as `words` returned them; empty by default

    Attributes
    ----------
    lowest : the fewest bits after a pop since `save`
    """

    def __init__(self, words: Array | None = None) -> None:
        constriction = _constriction()
        self._ans = constriction.stream.stack.AnsCoder(*([] if words is None else [words.astype(np.uint32)]))
        self._bernoulli = constriction.stream.model.Bernoulli(perfect=False)
        self.lowest = 0

    @property
    def bits(self) -> int:      # type: ignore[override]
        """How many there are."""
        count: int = self._ans.num_valid_bits()
        return count

    def push_bits(self, bits: Array, chances: Array) -> None:
        self._ans.encode_reverse(bits.astype(np.int32), self._bernoulli, chances)

    def pop_bits(self, chances: Array) -> Array:
        bits: Array = self._ans.decode(self._bernoulli, chances) == 1
        self.lowest = min(self.lowest, self.bits)
        return bits

    def words(self) -> Array:
        """The bits (n,), as uint32."""
        words: Array = self._ans.get_compressed()
        return words

    def save(self) -> Saved:
        """A copy of the bits, to which `restore` returns."""
        self.lowest = self.bits
        return Saved(self._ans.clone())

    def restore(self, saved: Saved) -> None:
        """Takes back all since `save`."""
        self._ans = saved.ans


def _walk(shape: tuple[int, ...], depth: int, below: Below, next_bit: Callable[[Array, Array], Array]) -> Array:
    """The symbols, found bit by bit.  A symbol lies in an interval, at first of 2^depth numbers, that each bit halves.
    `next_bit` is given the probability of a 1 and the middle."""
    start, floor, top = np.zeros(shape, np.int64), np.zeros(shape), np.ones(shape)
    for half in (2 ** i for i in reversed(range(depth))):
        middle = start + half
        at_middle = below(middle)
        bit = next_bit(_chance(at_middle, floor, top), middle)
        start = np.where(bit, middle, start)
        floor, top = np.where(bit, at_middle, floor), np.where(bit, top, at_middle)
    return start


def _chance(middle: Array, floor: Array, top: Array) -> Array:
    """P(bit = 1) of a symbol in an interval, from `below` at its start, middle and end:

        P(bit = 1) = P(middle <= symbol < end) / P(start <= symbol < end)
                   = (below(end) - below(middle)) / (below(end) - below(start))              (D17.1)

    as a multiple of 2^-24 that is neither 0 nor 1; 1/2 where the probability of the interval has rounded to 0.
    """
    width = top - floor
    empty = width <= 0
    share = np.where(empty, 0.5, (top - middle) / np.where(empty, 1, width))
    chance: Array = np.minimum(np.maximum(np.rint(share * _WHOLE), 1), _WHOLE - 1) / _WHOLE
    return chance


def uniform(depth: int) -> Below:
    """All of 0 to 2^depth - 1 equally likely."""
    return lambda k: k / 2 ** depth


def table(weights: Array) -> tuple[int, Below]:
    """The number of bits of a symbol, and its distribution, from weights (..., L), not all 0, for symbols of shape
    (...), or from the same weights (L,) for all symbols.

    They are rounded to multiples of 2^-32 of the largest, so that their sums are exact.
    """
    levels = weights.shape[-1]
    whole = np.rint(weights / np.max(weights, axis=-1, keepdims=True) * 2.0 ** 32)
    ends = np.add.accumulate(whole, axis=-1)
    total = ends[..., -1]

    def below(k: Array) -> Array:
        place = np.minimum(k, levels) - 1      # never -1: a middle is at least 1
        found = ends[place] if ends.ndim == 1 else np.take_along_axis(ends, place[..., None], axis=-1)[..., 0]
        below: Array = found / total
        return below

    return max(1, (levels - 1).bit_length()), below


def _constriction() -> Any:
    """The package.  Raises ImportError, which says how to install it."""
    try:
        import constriction
    except ImportError:
        raise ImportError("compression needs the package constriction: pip install 'npvae[compress]'") from None
    return constriction
