"""The stack gives back what was pushed, at the price of its probability; and popping draws."""
import numpy as np
import pytest

from npvae.compression.coder import Stack, table, uniform

pytest.importorskip("constriction")
rng = np.random.default_rng(0)


def random_words(n):
    return rng.integers(0, 2 ** 32, n, dtype=np.uint32)


@pytest.mark.parametrize("levels", [2, 3, 16, 200])
def test_symbols_come_back_in_reverse_and_cost_their_probability(levels):
    weights = rng.random((50, 40, levels)) ** 4
    p = weights / weights.sum(axis=-1, keepdims=True)
    symbols = (p.cumsum(axis=-1) < rng.random((50, 40, 1))).sum(axis=-1)
    stack = Stack(random_words(9))
    before = stack.bits
    stack.push(symbols, *table(weights))
    stack.push(symbols[::-1], *table(weights[::-1]))
    cost = -2 * np.log2(np.take_along_axis(p, symbols[..., None], axis=-1)).sum()
    assert abs(stack.bits - before - cost) < 1e-4 * cost + 2
    again = Stack(stack.words())
    assert (again.pop((50, 40), *table(weights[::-1])) == symbols[::-1]).all()
    assert (again.pop((50, 40), *table(weights)) == symbols).all()
    assert again.bits == before


def test_random_bits_give_symbols_of_the_distribution():
    """Pearson's chi^2 of 20,000 popped symbols, of 7 levels: 22.5 is exceeded once in a thousand times."""
    weights = np.array([0.02, 0.3, 0.08, 0.25, 0.05, 0.1, 0.2])
    symbols = Stack(random_words(2000)).pop((20000,), *table(np.tile(weights, (20000, 1))))
    expected = 20000 * weights
    assert (((np.bincount(symbols, minlength=7) - expected) ** 2) / expected).sum() < 22.5


def test_symbols_that_should_never_occur_come_back():
    weights = np.tile([1.0, 0.0, 0.0, 0.0, 1e-30], (5, 1))
    stack = Stack(random_words(3))
    stack.push(np.arange(5), *table(weights))
    assert (stack.pop((5,), *table(weights)) == np.arange(5)).all()


def test_uniform_symbols_cost_their_bits():
    symbols, stack = rng.integers(0, 16, 1000), Stack(random_words(3))
    before = stack.bits
    stack.push(symbols, 4, uniform(4))
    assert abs(stack.bits - before - 4000) <= 1
    assert (stack.pop((1000,), 4, uniform(4)) == symbols).all()


def test_an_attempt_is_taken_back():
    stack = Stack(random_words(5))
    words, saved = stack.words(), stack.save()
    stack.pop((30,), 4, uniform(4))
    assert stack.lowest < 160 - 100
    stack.restore(saved)
    assert (stack.words() == words).all()
