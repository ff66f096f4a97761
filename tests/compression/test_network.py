"""Networks in whole numbers: near those of the model, and the same in every order of summation."""
import numpy as np
import pytest

from coded_models import D, images, model
from npvae.compression.network import ACTIVATIONS, BOUND, Layer, Network, rounded
from npvae.layers import ACTIVATIONS as KNOWN
from npvae.layers import Activation, Dense
from npvae.params import Block


def encoder_of(vae):
    return Network(vae.encoder, [vae.mu, vae.logvar], vae.parameters)


@pytest.mark.parametrize("activation", KNOWN)
def test_it_computes_what_the_model_does(activation):
    vae = model(activation=activation, hidden=(9, 8), dtype="float64")
    x = images(vae, 50)
    for got, right in zip(encoder_of(vae)(x), vae.encode(x)):
        assert 0 < np.abs(got - right).max() < 2e-3


def test_every_activation_is_known():
    assert ACTIVATIONS.keys() == KNOWN.keys()


class Reversed:
    """A matrix whose product with another adds up in blocks, from the last row to the first."""

    def __init__(self, W):
        self.W = W

    def __rmatmul__(self, x):
        total = np.zeros((len(x), self.W.shape[1]))
        for stop in range(self.W.shape[0], 0, -7):
            rows = slice(max(0, stop - 7), stop)
            total += x[:, rows][:, ::-1] @ self.W[rows][::-1]
        return total

    __array_ufunc__ = None


def test_no_order_of_summation_changes_a_bit():
    """In floating point it does."""
    rng = np.random.default_rng(0)
    dense, params = Dense("layer", 500, 40, "identity"), Block({"layer.W": (500, 40), "layer.b": (40,)}, "float64")
    params.flat[...] = rng.standard_normal(params.flat.size)
    x, layer = rng.standard_normal((30, 500)), Layer(dense, params)
    whole = layer(rounded(x))
    layer.W = Reversed(layer.W)
    assert (layer(rounded(x)) == whole).all()
    assert (x @ params["layer.W"] != x @ Reversed(params["layer.W"])).any()


@pytest.mark.parametrize("n_in, size", [(1, 1e-3), (1, 1e6), (784, 1.0), (5000, 1e-20), (5000, 3e8)])
def test_the_largest_sums_are_exact(n_in, size):
    dense, params = Dense("layer", n_in, 1, "identity"), Block({"layer.W": (n_in, 1), "layer.b": (1,)}, "float64")
    params["layer.W"][...] = size * (1 + np.random.default_rng(0).random((n_in, 1)))
    layer = Layer(dense, params)
    x = rounded(np.full((1, n_in), 10 * BOUND))
    assert sum(int(a) * int(w) for a, w in zip(x[0], layer.W[:, 0])) == int((x @ layer.W)[0, 0]) <= 2 ** 53
    np.testing.assert_allclose(layer(x), BOUND * params["layer.W"].sum(), rtol=1e-4)


def test_weights_of_zero():
    vae = model()
    vae.parameters.flat[...] = 0
    mu, logvar = encoder_of(vae)(np.ones((2, D)))
    assert not mu.any() and not logvar.any()


def test_an_activation_of_ones_own_is_refused():
    class Square(Activation):
        pass

    with pytest.raises(ValueError, match="activation square cannot be computed with the same bits everywhere; ident"):
        encoder_of(model(activation=Square("square")))
