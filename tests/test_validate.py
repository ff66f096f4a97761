"""Arguments that are wrong are refused in one line that names them; those that are right come back made plain."""
import math
from fractions import Fraction

import numpy as np
import pytest

from npvae import validate
from npvae.validate import (
    boolean, choice, described, generator, integer, matrix, noise, numbers_of, real, shown, widths)


def refusals(function, kind, says, values):
    for value in values:
        with pytest.raises(kind, match=f"^beta must {says}") as caught:
            function(value)
        assert "\n" not in str(caught.value)


def test_a_value_is_shown_on_one_line_of_100_letters():
    assert shown("a b") == "'a b'" and shown(np.zeros((2, 1))) == "array([[0.], [0.]])"
    assert shown("x" * 98) == repr("x" * 98) and shown("x" * 99) == "'" + "x" * 96 + "..."


def test_whole_numbers():
    for value in (3, 4, np.int64(3), np.uint8(200)):
        assert integer("beta", value, 3) == value and type(integer("beta", value, 3)) is int
    refusals(lambda value: integer("beta", value, 3), TypeError, "be an integer of at least 3, got ",
             [True, np.True_, 3.0, "3", None, Fraction(9, 2)])
    refusals(lambda value: integer("beta", value, 3), ValueError, "be at least 3, got ", [2, -3])


def test_real_numbers():
    for value in (0, 0.5, np.float32(2), Fraction(1, 2)):
        assert real("beta", value, 0) == value and type(real("beta", value, 0)) is float
    for strict, bound in ((False, "at least"), (True, "more than")):
        assert real("beta", 1e-300, 0, strict) == 1e-300
        refusals(lambda value: real("beta", value, 0, strict), TypeError, f"be a number {bound} 0, got ",
                 [True, np.False_, "1", None, 1j])
        refusals(lambda value: real("beta", value, 0, strict), ValueError, f"be a finite number {bound} 0, got ",
                 [math.inf, -math.inf, math.nan, -1, -1e-300, *[0][:strict]])


def test_truth_values():
    assert boolean("beta", True) is True and boolean("beta", np.False_) is False
    refusals(lambda value: boolean("beta", value), TypeError, "be True or False, got ", [1, 0, None, "True"])


def test_widths():
    assert widths("beta", []) == () and widths("beta", (1, 2)) == widths("beta", np.array([1, 2])) == (1, 2)
    refusals(lambda value: widths("beta", value), TypeError, "be a sequence of layer widths such as",
             ["12", b"12", 3, None])
    with pytest.raises(ValueError, match=r"^beta\[1\] must be at least 1, got 0"):
        widths("beta", [1, 0])


def test_choices():
    assert choice("beta", "b", iter("abc")) == "b"
    refusals(lambda value: choice("beta", value, "abc"), ValueError, "be one of a, b, c, got ",
             ["d", 1, None, ["a"], np.array(["a"])])


def test_generators():
    rng = np.random.default_rng(0)
    assert generator("beta", rng) is rng
    assert all(generator("beta", seed).random() == np.random.default_rng(seed).random()
               for seed in (7, np.int64(0), 2 ** 70))
    refusals(lambda value: generator("beta", value), TypeError, "be a numpy.random.Generator",
             ["0", None, np.random.PCG64(0), True, 1.0])
    refusals(lambda value: generator("beta", value), ValueError, "be at least 0", [-1])


def test_arrays():
    x = np.ones((2, 3))
    assert numbers_of("beta", x) is x and numbers_of("beta", [[1, -2]]).tolist() == [[1, -2]]
    refusals(lambda value: numbers_of("beta", value), ValueError, "not be masked", [np.ma.array(x, mask=x > 0)])
    refusals(lambda value: numbers_of("beta", value), ValueError, "be an array of numbers, got rows", [[[1], [1, 2]]])


def test_matrices():
    for value in (np.ones((1, 3)), np.ones((4, 3), bool), [[1, 2, 3]]):
        assert matrix("beta", value, 3) is value or isinstance(value, list)
    refusals(lambda value: matrix("beta", value, 3), TypeError, "hold real numbers, got an array of ",
             [np.ones((2, 3)) * 1j, np.full((2, 3), "1"), np.full((2, 3), None)])
    refusals(lambda value: matrix("beta", value, 3), ValueError, r"have shape \(rows, 3\) with at least one row, got",
             [np.ones(shape) for shape in ((3,), (2, 3, 1), (3, 3, 3), (2, 2), (2, 4), (3, 2), (0, 3), ())])


def test_noise():
    for value in (np.ones((2, 1, 3)), np.ones((2, 5, 3), int)):
        assert noise("beta", value, 2, 3) is value
    refusals(lambda value: noise("beta", value, 2, 3), ValueError, r"have shape \(B, K, Z\) = \(2, K, 3\) with K at",
             [np.ones(shape) for shape in ((2, 3), (2,), (2, 5, 3, 1), (2, 5, 3, 4, 5), (2, 0, 3), (3, 5, 2), (2, 5, 4),
                                           (3, 5, 3), (2, 5, 2), (1, 5, 3))])
    x = np.ones((2, 1, 3))
    refusals(lambda value: noise("beta", value, 2, 3), ValueError, "hold finite real numbers",
             [x * 1j, x > 0, x.astype(str), x.astype(object), np.where(np.arange(3), x, np.nan), x * np.inf])


def test_what_a_part_is_called():
    class Part(validate.Described):
        made_of = ("one", "other")
        one, other = 0.5, len

    assert repr(Part()) == "Part(one=0.5, other=<built-in function len>)"
    assert described(iter([])) == "list_iterator" and described("a\n b") == r"'a\n b'"
