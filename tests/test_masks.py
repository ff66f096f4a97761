"""Masked layers: who sees whom, by the masks alone, by derivatives that are exactly zero, and in training."""
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npvae.kernels import fused, reference
from npvae.layers import ACTIVATIONS, Dense
from npvae.layers import MaskedDense, Staircase, hidden_degrees, input_degrees, mask
from npvae.params import Block
from npvae.testing import assert_gradients
from strategies import seeds, sizes


def layers_over(n, widths, rng=None, order=None, outputs=1, activation="tanh"):
    """The layers of the module's docstring, as many hidden ones as `widths` says."""
    order = input_degrees(n) if order is None else order
    degrees = [order, *(hidden_degrees(width, n, rng) for width in widths)]
    stack = [MaskedDense(f"layer.{i}", mask(*pair), activation) for i, pair in enumerate(zip(degrees, degrees[1:]))]
    return [*stack, MaskedDense("last", mask(degrees[-1], np.tile(order, outputs), strict=True), "identity")]


def parameters_of(stack, dtype, seed, spread=0.5):
    """Random in every entry, masked ones too: that they start at zero must not be what makes them count for nothing."""
    params = Block({name: shape for layer in stack for name, shape in layer.shapes.items()}, dtype)
    params.flat[...] = spread * np.random.default_rng(seed).standard_normal(params.flat.size)
    return params


def run(stack, x, params, kernels=reference):
    for layer in stack:
        out, pre = np.full((2, len(x), layer.mask.shape[1]), 777, params.flat.dtype)
        layer.forward(kernels, out, pre, x, params)
        x = out
    return x


def jacobian(stack, params, n, seed):
    """d out / d x (n, outputs) at a random x, column by column of x, by the complex step."""
    x = np.random.default_rng(seed).standard_normal(n)
    return run(stack, x + 1e-30j * np.eye(n), params).imag / 1e-30


# ---- Degrees

@given(units=st.integers(0, 60), n=st.integers(1, 20), least=st.integers(0, 1))
def test_degrees_are_dealt_out_evenly(units, n, least):
    degrees, allowed = hidden_degrees(units, n, least=least), range(least, max(n, least + 1))
    assert len(degrees) == units and set(degrees) <= set(allowed) and (np.diff(degrees) >= 0).all()
    counts = np.array([np.sum(degrees == degree) for degree in allowed])
    assert counts.max() - counts.min() <= 1
    if 1 < units <= len(allowed):      # then in equal distances, and the last quarter of the inputs is not left out
        assert np.ptp(np.diff(degrees)) <= 1 and degrees[-1] >= allowed[-1] - np.ceil(len(allowed) / units)


def test_random_degrees_are_uniform_and_from_the_generator():
    draw = hidden_degrees(30000, 4, np.random.default_rng(0))
    assert (np.diff(draw) >= 0).all() and np.array_equal(draw, hidden_degrees(30000, 4, np.random.default_rng(0)))
    counts = np.bincount(draw, minlength=4)
    assert counts[0] == 0 and 0 < np.abs(counts[1:] - 10000).max() < 5 * np.sqrt(30000 * 2 / 9)
    assert set(hidden_degrees(99, 4, np.random.default_rng(0), least=0)) == {0, 1, 2, 3}


def test_masks_written_out():
    order, units = input_degrees(3), hidden_degrees(4, 3)
    assert units.tolist() == [1, 1, 2, 2]
    for rng in (None, np.random.default_rng(0)):
        assert hidden_degrees(4, 1, rng).tolist() == [1, 1, 1, 1]
    assert mask(order, units).tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert mask(units, order, strict=True).tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1]]
    assert mask(units, units).tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


# ---- Who sees whom

@given(n=st.integers(1, 9), widths=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=seeds,
       drawn=st.booleans(), shuffled=st.booleans(), outputs=st.integers(1, 2))
def test_the_jacobian_is_zero_but_below_the_diagonal(n, widths, seed, drawn, shuffled, outputs):
    """Exactly zero wherever input >= output in the order; and exactly where paths lead it is not zero."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n) + 1 if shuffled else input_degrees(n)
    stack = layers_over(n, widths, rng if drawn else None, order, outputs)
    found = jacobian(stack, parameters_of(stack, "complex128", seed), n, seed)
    allowed = order[:, None] < np.tile(order, outputs)
    assert not found[~allowed].any()
    paths = np.linalg.multi_dot([layer.mask for layer in stack])
    assert np.array_equal(found != 0, paths > 0)


@pytest.mark.parametrize("widths", [(8,), (17,), (8, 16)])
def test_with_a_unit_of_each_degree_everything_allowed_is_seen(widths):
    stack = layers_over(9, widths)
    found = jacobian(stack, parameters_of(stack, "complex128", 1), 9, 1)
    assert np.array_equal(found != 0, np.triu(np.ones((9, 9)), 1) > 0)


@pytest.mark.parametrize("slip", ["not strict", "first strict", "no mask"])
def test_the_zero_jacobian_test_sees_a_wrong_mask(slip):
    order, units = input_degrees(5), hidden_degrees(8, 5)
    first, last = mask(order, units, strict=slip == "first strict"), mask(units, order, strict=slip != "not strict")
    stack = [MaskedDense("layer.0", np.ones_like(first) if slip == "no mask" else first, "tanh"),
             MaskedDense("last", last, "identity")]
    found = jacobian(stack, parameters_of(stack, "complex128", 1), 5, 1)
    assert not np.array_equal(found != 0, np.triu(np.ones((5, 5)), 1) > 0)


# ---- The layer

@pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
@given(activation=st.sampled_from(list(ACTIVATIONS)), size=sizes("BDH"), seed=seeds)
def test_backward_is_the_derivative_of_forward(kernels, activation, size, seed):
    """By x, W and b; of W, a masked entry has a gradient that is zero, not small."""
    rng = np.random.default_rng(seed)
    layer = MaskedDense("layer", rng.integers(0, 2, (size["D"], size["H"])), activation)
    x, dout = rng.standard_normal((size["B"], size["D"])), rng.standard_normal((size["B"], size["H"]))
    params = parameters_of([layer], "float64", seed)
    complex_layer = MaskedDense("layer", layer.mask, activation)

    def loss(at):
        params = Block(complex_layer.shapes, at["x"].dtype)
        params["layer.W"][...], params["layer.b"][...] = at["layer.W"], at["layer.b"]
        return (dout * run([complex_layer], at["x"], params)).sum()

    pre, grads = np.empty((2, *dout.shape)), params.zeros_like()
    out, dx, dpre, grads.flat[...] = np.empty_like(dout), np.full_like(x, 777), np.empty_like(dout), 777
    layer.forward(kernels, out, pre[0], x, params)
    layer.backward(kernels, dx, dpre, grads, dout, out, pre[0], x, params)
    assert_gradients(loss, {"x": dx, **grads}, {"x": x, **params}, vacuous=["x", "layer.W", "layer.b"])
    assert not grads["layer.W"][layer.mask == 0].any()
    asked, grads.flat[...] = grads.flat.copy(), 777      # below, x is data: the same gradients, and no product for it
    without_products = SimpleNamespace(**{**vars(kernels), "matmul": None})
    layer.backward(without_products, None, dpre, grads, dout, out, pre[0], x, params)
    assert np.array_equal(grads.flat, asked)


@pytest.mark.parametrize("kernels", [reference, fused], ids=["numpy", "numba"])
def test_what_is_masked_is_zero_whatever_the_product(kernels):
    """NaN in a weight goes through to whoever looks; in a product it does not reach a weight that has no say."""
    pattern, out = np.array([[True, False, False], [True, True, False]]), np.full((2, 3), 777.0)
    kernels.mask_forward(out, np.array([[1.0, 2, np.nan], [4, np.nan, 6]]), pattern)
    assert np.array_equal(out, [[1, 0, np.nan], [4, np.nan, 0]], equal_nan=True)
    kernels.mask_backward(out, np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6, np.nan], [7, np.nan, 8]]), pattern)
    assert np.array_equal(out, [[19, 0, 0], [43, np.nan, 0]], equal_nan=True)


@given(size=sizes("BDH", most=12), seed=seeds, strict=st.booleans(), drawn=st.booleans())
def test_a_staircase_leaves_out_nothing_but_zeros(size, seed, strict, drawn):
    """Against the products of the whole; and it does leave out something."""
    rng, D, H = np.random.default_rng(seed), size["D"], size["H"]
    degrees = input_degrees(D), hidden_degrees(H, D, rng if drawn else None)
    pattern = mask(*(degrees[::-1] if strict else degrees), strict) > 0
    stairs, W = Staircase(pattern), rng.integers(1, 9, pattern.shape) * pattern.astype(float)
    x, dout = (rng.integers(-9, 9, (size["B"], n)).astype(float) for n in pattern.shape)
    for kernels in (reference, fused):
        out, dx, dW = (np.full_like(like, np.nan) for like in (dout, x, W))
        stairs.forward(kernels, out, x, W)
        stairs.backward_input(kernels, dx, dout, W)
        stairs.backward(kernels, dW, x, dout)
        assert np.array_equal(out, x @ W) and np.array_equal(dx, dout @ W.T)
        assert np.array_equal(dW, (x.T @ dout) * pattern)
    assert all(pattern[block][:, 0].any() for block in stairs.by_rows if pattern[block].size)
    assert all(pattern[block][-1].any() for block in stairs.by_columns if pattern[block].size)
    if min(pattern.shape) > 3 and not drawn:
        for blocks in (stairs.by_rows, stairs.by_columns):
            assert sum(W[block].size for block in blocks) < 0.9 * W.size


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-15), ("complex128", 1e-15)])
def test_a_masked_weight_has_no_say_whatever_its_value(dtype, tolerance):
    layer = MaskedDense("layer", mask(input_degrees(6), hidden_degrees(9, 6)), "softplus")
    params = parameters_of([layer], dtype, 2)
    x = np.random.default_rng(3).standard_normal((4, 6)).astype(dtype)
    before = run([layer], x, params)
    assert before.dtype == dtype
    by_hand = np.log1p(np.exp(x @ (params["layer.W"] * layer.mask) + params["layer.b"]))
    assert np.abs(before - by_hand).max() <= 3 * tolerance
    params["layer.W"][layer.mask == 0] = 1e9
    assert np.array_equal(run([layer], x, params), before)
    params["layer.W"][0, 0] = 1e9
    assert not np.array_equal(run([layer], x, params), before)      # no copy of the old weights is kept


def test_a_layer_serves_models_of_every_dtype_in_turn():
    layer = MaskedDense("layer", mask(input_degrees(3), hidden_degrees(4, 3)), "tanh")
    for dtype in ("float32", "complex128", "float64", "float32"):
        params = parameters_of([layer], dtype, 2)
        assert run([layer], np.ones((2, 3), dtype), params).dtype == dtype
        assert layer.weights(reference, params) is layer.weights(reference, params)      # in memory of its own


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_weights_of_a_full_mask_are_those_of_a_dense_layer(activation):
    """Any number but 0 lets a weight through."""
    dense, masked = Dense("layer", 7, 5, activation), MaskedDense("layer", np.full((7, 5), 3), activation)
    ours, theirs = Block(masked.shapes, "float64"), Block(dense.shapes, "float64")
    ours.flat[...] = theirs.flat[...] = 777
    masked.initialize(ours, np.random.default_rng(1))
    dense.initialize(theirs, np.random.default_rng(1))
    assert np.array_equal(ours.flat, theirs.flat) and ours["layer.W"].any()


def test_initial_weights_count_what_is_seen():
    """The variance of each weight, over 4,000 draws: gain over the unmasked inputs of its output, or the unmasked
    outputs of its input if those are more; zero where masked.  An input nobody sees and a unit that sees nothing do
    not divide by zero; one weight between two that see nothing else has the whole gain."""
    pattern = np.array([[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0], 6 * [0], [0, 0, 0, 0, 0, 1]])
    layer = MaskedDense("layer", pattern, "relu")
    params, rng, square = Block(layer.shapes, "float64"), np.random.default_rng(1), 0
    for _ in range(4000):
        layer.initialize(params, rng)
        square = square + params["layer.W"] ** 2 / 4000
    expected = pattern * np.array([[2 / 3], [2 / 3], [2 / 3], [0], [2]])
    assert (np.abs(square - expected) <= 5 * expected * np.sqrt(2 / 4000)).all()


def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation must be one of identity, relu"):
        MaskedDense("layer", np.ones((2, 2)), "swish")
