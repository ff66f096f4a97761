"""Every kernel, found by name: gradients against numerical ones, fused against reference, and the contract."""
import inspect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from npvae.gradcheck import compare, numerical_gradient
from npvae.kernels import fused, reference
from strategies import seeds, sizes
from kernel_calls import PAIRS, draw_inputs, main_outputs, run_backward, run_forward

SIZES = sizes("BKDHZ")


UNPAIRED = {"matmul", "add", "subtract", "negate", "sum_first", "transpose", "transpose_each", "sum_squares",
            "append_labels_forward", "append_labels_backward", "split_missing", "append_missing",
            "log1p_features", "log_features", "one_hot", "log_total",      # test_counts.py, test_categories.py
            "standardize_columns",
            "adam_update", "gather_rows", "gather_binarized", "box_muller",
            "path_ratio_backward", "path_q_backward", "scale_draws",      # those three: test_estimators.py
            "mask_forward", "mask_backward"}      # test_masks.py


def typed(inputs, dtype):
    """The inputs in that type, but for integers."""
    return {key: value if value.dtype.kind == "i" else value.astype(dtype) for key, value in inputs.items()}


def direct_inputs(pair):
    return [name for name in pair.inputs if name not in pair.constant]


def test_every_kernel_is_here():
    """Both twins, the same names in the same order with the same parameters, and nothing untested."""
    names = {f"{name}_{way}" for name in PAIRS for way in ("forward", "backward")} | UNPAIRED
    assert set(reference.__all__) == names
    assert reference.__all__ == fused.__all__
    for name in names:
        plain, compiled = getattr(reference, name), getattr(getattr(fused, name), "py_func", getattr(fused, name))
        assert list(inspect.signature(plain).parameters) == list(inspect.signature(compiled).parameters), name
        assert plain.__doc__, name


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("method", ["complex", pytest.param("central", marks=pytest.mark.slow)])
@settings(max_examples=3)
@given(size=sizes("BKDHZ", most=5), seed=seeds)
def test_backward_is_the_derivative_of_forward(name, method, size, seed):
    """<upstream, outputs> differentiated numerically, entry by entry, in the reference, whose twin is equal."""
    pair = PAIRS[name]
    inputs, upstream = draw_inputs(pair, size, seed)
    main = main_outputs(name)
    outputs = run_forward(reference, name, inputs)
    analytic = run_backward(reference, name, inputs, outputs, upstream)
    fixed = {key: inputs[key] for key in inputs if key not in analytic}

    def loss(moved):
        values = {key: {**fixed, **moved}[key] for key in inputs}
        out = run_forward(reference, name, values, next(iter(moved.values())).dtype)
        return sum((upstream[key] * out[key]).sum() for key in main)

    assert set(analytic) == set(direct_inputs(pair))
    numeric = numerical_gradient(loss, {key: inputs[key] for key in analytic}, method)
    size = sum(np.abs(upstream[key]).sum() for key in main)      # a lone sum whose terms cancel has lost its digits
    assume(not any(value.shape == (1,) and abs(value[0]) < 0.01 * size for value in numeric.values()))
    if method == "central":      # nor does a difference see a gradient beneath the rounding of the terms
        terms = sum((np.abs(upstream[key]) * (np.abs(outputs[key]) + pair.hidden)).sum() for key in main)
        assume(not any(0 < np.sqrt(np.square(value).mean()) < 1e-4 * terms for value in numeric.values()))
    report = compare(analytic, numeric, method)
    assert report.ok, report


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-5)])
@given(size=SIZES, seed=seeds)
def test_twins_are_equal(name, dtype, tolerance, size, seed):
    """Fused forward and backward in float64 and float32 against the reference in float64."""
    inputs, upstream = draw_inputs(PAIRS[name], size, seed)
    exact = run_forward(reference, name, inputs)
    exact_gradient = run_backward(reference, name, inputs, exact, upstream)
    low = typed(inputs, dtype)
    outputs = run_forward(fused, name, low)
    gradient = run_backward(fused, name, low, outputs, {key: value.astype(dtype) for key, value in upstream.items()})
    for key, value in {**exact, **exact_gradient}.items():
        ours = {**outputs, **gradient}[key]
        assert ours.dtype == dtype
        # sums of up to B K D terms of both signs, each of size 1 to 10: the error is measured against what was summed
        scale = max(np.abs(value).max(), 3 * np.sqrt(size["B"] * size["K"] * size["D"]))
        assert np.abs(ours - value).max() <= tolerance * scale, key


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
def test_backward_is_linear_and_changes_no_input(name, module):
    """Twice the upstream is twice the gradient, to the bit; zero gives zero; forward values stay as they are."""
    size = dict(zip("BKDHZ", (4, 3, 7, 5, 6)))
    inputs, upstream = draw_inputs(PAIRS[name], size, 1)
    outputs = run_forward(module, name, inputs)
    kept = {key: value.copy() for key, value in {**inputs, **outputs}.items()}
    once = run_backward(module, name, inputs, outputs, upstream)
    again = run_backward(module, name, inputs, outputs, upstream)
    twice = run_backward(module, name, inputs, outputs, {key: 2 * value for key, value in upstream.items()})
    none = run_backward(module, name, inputs, outputs, {key: 0 * value for key, value in upstream.items()})
    for key in once:
        assert np.array_equal(once[key], again[key]) and np.array_equal(2 * once[key], twice[key]), key
        assert not none[key].any(), key
    for key, value in {**inputs, **outputs}.items():
        assert np.array_equal(value, kept[key]), key


@pytest.mark.every(3)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_goes_through(name, module, dtype):
    """NaN in any entry of any input reaches an output that counts: no kernel hides it."""
    size = dict(zip("BKDHZ", (4, 3, 7, 5, 6)))
    clean, _ = draw_inputs(PAIRS[name], size, 3)
    for key in clean:
        for position in (0, -1):
            inputs = typed(clean, dtype)
            if inputs[key].dtype.kind == "i":
                continue
            inputs[key].flat[position] = np.nan
            with np.errstate(invalid="ignore"):
                outputs = run_forward(module, name, inputs)
                assert any(np.isnan(outputs[output]).any() for output in main_outputs(name)), (key, position)


@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
@given(logit=st.floats(-1e4, 1e4), x=st.sampled_from([0.0, 0.25, 1.0]))
def test_bernoulli_from_extreme_logits(module, logit, x):
    """No overflow and no clipping: nll is exact for logits of any size, and so is the gradient's sign."""
    nll, logits = np.empty((1, 1)), np.full((1, 1, 1), logit)
    module.bernoulli_nll_forward(nll, logits, logits, np.full((1, 1), x))
    expected = np.logaddexp(0, logit) - x * logit
    assert nll[0, 0] == pytest.approx(expected, rel=1e-13, abs=1e-300 + 1e-15 * abs(logit))
    assert 0 <= logits[0, 0, 0] <= 1


@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
@given(shift=st.floats(-1e4, 1e4), seed=seeds)
def test_importance_bound_is_shift_invariant(module, shift, seed):
    """log mean exp(log_w + c) = c + log mean exp(log_w), also where exp(c) overflows; weights sum to one."""
    log_w = np.random.default_rng(seed).normal(0, 3, (4, 7))
    bound, weights, moved, same = np.empty(4), np.empty((4, 7)), np.empty(4), np.empty((4, 7))
    module.importance_bound_forward(bound, weights, log_w)
    module.importance_bound_forward(moved, same, log_w + shift)
    assert np.allclose(moved, bound + shift, rtol=1e-12, atol=1e-10)
    assert np.allclose(weights.sum(axis=1), 1, rtol=1e-12) and np.allclose(weights, same, rtol=1e-9)
    assert np.allclose(bound, np.log(np.exp(log_w).mean(axis=1)), rtol=1e-12)


@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gather(module, dtype):
    """Bytes become x / 255 within one rounding, white exactly 1; floats stay; the binarized draw compares noise < p."""
    rng = np.random.default_rng(4)
    rows = rng.integers(0, 256, (11, 5), dtype=np.uint8)
    rows[0], rows[1] = 255, 0
    index = np.array([0, 1, 10, 3, 3])
    x, noise = np.empty((5, 5), dtype), rng.random((5, 5)).astype(dtype)
    module.gather_rows(x, rows, index, 1 / 255)
    assert np.allclose(x, rows[index] / 255, rtol=2 * np.finfo(dtype).eps, atol=0)
    assert (x[0] == 1).all() and (x[1] == 0).all()
    probability = x.copy()
    module.gather_binarized(x, rows, index, noise, 1 / 255)
    assert np.array_equal(x, (noise < probability).astype(dtype))
    module.gather_binarized(x, rows, index, probability, 1 / 255)
    assert not x.any()      # noise equal to p is not less than it, and the next smaller number is
    module.gather_binarized(x, rows, index, np.nextafter(probability, -1), 1 / 255)
    assert x.all()
    noise[0], noise[1] = 0, 1 - np.finfo(dtype).epsneg      # the least and the largest a generator draws
    module.gather_binarized(x[:2], rows, np.array([1, 0]), noise[:2], 1 / 255)
    assert (x[0] == 0).all() and (x[1] == 1).all()
    floats = rng.random((11, 5)).astype("float32")
    module.gather_rows(x, floats, index, 1.0)
    assert np.array_equal(x, floats[index].astype(dtype))


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-14), ("float32", 2e-6)])
@given(seed=seeds, step=st.integers(1, 10000), scale=st.floats(0.1, 1))
def test_adam_twins(dtype, tolerance, seed, step, scale):
    rng = np.random.default_rng(seed)
    state = [rng.standard_normal(13), rng.standard_normal(13), rng.random(13), rng.standard_normal(13)]
    exact, low = [a.copy() for a in state], [a.astype(dtype) for a in state]
    reference.adam_update(*exact, 1e-3, 0.9, 0.999, 1e-8, scale, step)
    fused.adam_update(*low, 1e-3, 0.9, 0.999, 1e-8, scale, step)
    for a, b in zip(exact, low):
        assert np.abs(a - b).max() <= tolerance * max(1, np.abs(a).max())


@pytest.mark.parametrize("module", [reference, fused], ids=["numpy", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(size=SIZES, seed=seeds)
def test_products_sums_transposition(module, dtype, size, seed):
    """Of whole numbers: nothing is rounded."""
    rng = np.random.default_rng(seed)
    a, b, c = (rng.integers(-9, 9, shape).astype(dtype) for shape in ((size["B"], size["D"]), (size["D"], size["H"]),
                                                                      (size["B"], size["D"])))
    product, total, turned, squares = (np.full(shape, np.nan, dtype) for shape in (
        (size["B"], size["H"]), a.shape, a.shape[::-1], (1,)))
    module.matmul(product, a, b)
    assert np.array_equal(product, np.einsum("ij,jk->ik", a, b))
    module.matmul(product, np.asfortranarray(a), b.T.copy().T)
    assert np.array_equal(product, np.einsum("ij,jk->ik", a, b))
    module.add(total, a, c)
    assert np.array_equal(total, a + c)
    module.add(total[:, None], a[:, None], -c[:, None])
    assert np.array_equal(total, a - c)
    module.transpose(turned, a)
    assert np.array_equal(turned, a.T)
    module.sum_squares(squares, a.ravel())
    assert squares[0] == sum(value ** 2 for value in a.ravel())
    for bad in (np.nan, np.inf, -np.inf):
        a[-1, -1] = bad
        with np.errstate(invalid="ignore"):
            module.sum_squares(squares, a.ravel())
        assert not np.isfinite(squares[0])


@pytest.mark.parametrize("module", [reference, fused], ids=["numpy", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_missing_cells_are_told_apart(module, dtype):
    """A placeholder stands in their place, features of them are 0, and the indicators follow."""
    x = np.array([[1, np.nan, 3], [np.nan, np.inf, -6]], dtype)
    filled, missing, out = np.empty_like(x), np.empty_like(x), np.full((2, 7), 777, dtype)
    module.split_missing(filled, missing, x, np.array([7, 8, 9], dtype))
    assert filled.tolist() == [[1, 8, 3], [7, np.inf, -6]] and missing.tolist() == [[0, 1, 0], [1, 0, 0]]
    features = np.concatenate([filled[:, 1:], filled[:, 1:]], axis=1)
    module.append_missing(out, features, missing, np.array([1, 2, 1, 0]))
    assert out.tolist() == [[0, 3, 0, 3, 0, 1, 0], [np.inf, -6, np.inf, 0, 1, 0, 0]]
    turned, a = np.full((2, 3, 4), 777, dtype), np.arange(24).reshape(2, 4, 3).astype(dtype)
    module.transpose_each(turned, a)
    assert np.array_equal(turned, a.transpose(0, 2, 1))


@pytest.mark.parametrize("module", [reference, fused], ids=["numpy", "fused"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_are_taken_in_standard_deviations_from_their_mean(module, dtype):
    x, u = np.array([[1, 20, 8, 0], [np.nan, 10, 2, 3]], dtype), np.empty((2, 3), dtype)
    module.standardize_columns(u, x, np.array([3, 2, 0]), np.array([2, 1, 0]), np.array([0.5, 0.25, 3]),
                               np.array([2, 4, 0.5]))
    expected = [[-0.25, (np.log(8) - 0.25) / 4, -4], [(np.log(4) - 0.5) / 2, (np.log(2) - 0.25) / 4, np.nan]]
    assert np.allclose(u, expected, rtol=1e-6 if dtype == "float32" else 1e-15, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_from_uniform_numbers(dtype):
    """Twins alike, also at the edges; and against the formula in double precision."""
    uniform = np.random.default_rng(0).random(20000, dtype=np.float32)
    uniform[:8] = 0, 0, 0, 1 - 2 ** -24, 1 - 2 ** -24, 0.25, 0.5, 0.875
    noise = {module: np.full(20000, np.nan, dtype) for module in (reference, fused)}
    for module, eps in noise.items():
        module.box_muller(eps, uniform)
        r, turn = np.sqrt(-2 * np.log(1 - uniform[::2].astype(float))), uniform[1::2].astype(float)
        exact = np.stack([r * np.cos(2 * np.pi * turn), r * np.sin(2 * np.pi * turn)], axis=1).ravel()
        assert np.abs(eps - exact).max() <= 2e-6
    assert np.array_equal(noise[reference], noise[reference].astype(np.float32))
