"""Elementary functions are right, and made of operations that IEEE 754 defines to the last bit."""
import ast
import inspect
import math

import numpy as np
import pytest

from npvae.compression import exact

X = np.concatenate([np.linspace(-40, 40, 4001), [-700.0, 700.0, 1e-300, -1e-12, 0.0]])


@pytest.mark.parametrize("name, right", [
    ("exp", np.exp), ("sigmoid", lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))),
    ("softplus", lambda x: np.logaddexp(0, x)), ("tanh", np.tanh)])
def test_functions_of_real_numbers(name, right):
    np.testing.assert_allclose(getattr(exact, name)(X), right(X), rtol=2e-13, atol=2e-16)


def test_beyond_their_bounds_they_stay_finite():
    x = np.array([-1e308, -701.0, 701.0, 1e308])
    assert (exact.exp(x) == exact.exp(np.array([-700.0, -700, 700, 700]))).all()
    assert (exact.sigmoid(x)[2:] == 1).all() and (exact.sigmoid(x)[:2] < 1e-300).all()


def test_logarithm():
    x = np.concatenate([np.geomspace(1e-300, 1e300, 3001), [1.0, 0.5, np.nextafter(1, 2), math.sqrt(0.5)]])
    np.testing.assert_allclose(exact.log(x), np.log(x), rtol=1e-14, atol=1e-16)


def test_normal_distribution():
    t = np.arange(-20000, 20001) / 2048      # where it has no rounding
    right = np.array([0.5 * math.erfc(-a / math.sqrt(2)) for a in t])
    inside = np.abs(t) < 8
    assert np.abs(exact.normal_below(t) - right).max() < 3e-9
    assert (exact.normal_below(t[~inside]) == (t[~inside] > 0)).all()
    middle = np.abs(t) < 5
    np.testing.assert_allclose(np.diff(exact.normal_below(t[middle])), np.diff(right[middle]), rtol=1e-6)


def test_only_operations_that_are_the_same_everywhere():
    """No function of a library of mathematics, and no sum over an axis."""
    allowed = {"minimum", "maximum", "rint", "abs", "where", "sign", "frexp", "full", "shape", "concatenate", "arange",
               "int64", "float64", "add"}
    tree = ast.parse(inspect.getsource(exact))
    used = {node.attr for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"}
    assert used <= allowed, used - allowed
    of_math = {node.attr for node in ast.walk(tree)
               if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "math"}
    assert of_math <= {"factorial", "sqrt"}
