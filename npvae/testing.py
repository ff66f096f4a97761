"""Property-based tests of a layer of your own: what Hypothesis draws, and one assertion.  Read after `gradcheck/`.

    from hypothesis import given
    from npvae.testing import assert_gradients, inputs

    @given(inputs({"x": "BD", "gain": "D", "bias": "D"}, least=4))
    def test_layer_norm(inputs):
        assert_gradients(forward, backward, inputs)

Install with  pip install 'npvae[test]'.  `import npvae` does not load this module, nor Hypothesis.

How values are drawn.  All arrays of one example come from one NumPy generator, and Hypothesis draws its seed.  So the
values are generic (no zeros, no ties, no entry twice: Hypothesis's own arrays are filled with one repeated value, and
likes to draw equal ones, which hides a transposition), two arrays of one shape are never equal, an array costs as
much as one integer, and a failing example shrinks to the smallest shape that fails with a small seed.  The entries
themselves do not shrink to round numbers; the pattern of errors, which `Report` reads, would be lost with them.
"""
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .gradcheck.checker import check_gradients, check_pair
from .gradcheck.derivatives import Loss
from .gradcheck.report import Report
from .layers import ACTIVATIONS
from .likelihoods import LIKELIHOODS
from .likelihoods.support import fitting
from .model.vae import VAE

try:
    from hypothesis import HealthCheck, settings
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("npvae.testing needs hypothesis: pip install 'npvae[test]'") from None

Array = NDArray[Any]
Shape = tuple[int, ...]
Forward = Callable[..., Array]
Backward = Callable[..., Mapping[str, Array]]


# -- settings ----------------------------------------------------------------------------------------------------------

def register_profiles(max_examples: int = 30) -> None:
    """Register the Hypothesis profiles "npvae" and "npvae-ci"; `settings.load_profile("npvae")` chooses one.

    Both have no deadline, since the first call of a Numba kernel compiles it, and draw `max_examples` a test: entry by
    entry, a gradient check is a thorough example.  "npvae" draws new examples in every run, "npvae-ci" the same.
    """
    slow = [HealthCheck.too_slow]
    settings.register_profile("npvae", deadline=None, derandomize=False, max_examples=max_examples,
                              suppress_health_check=slow)
    settings.register_profile("npvae-ci", settings.get_profile("npvae"), derandomize=True)


# -- sizes and seeds ---------------------------------------------------------------------------------------------------

def seeds() -> st.SearchStrategy[int]:
    """Seeds for `numpy.random.default_rng`; they shrink towards 0."""
    return st.integers(0, 2**32 - 1)


def shapes(letters: str, least: int = 1, most: int = 9) -> st.SearchStrategy[dict[str, int]]:
    """A size for each letter, as shapes("BDH") -> {"B": 4, "D": 7, "H": 2}; pairwise distinct, `least` to `most`.

    Distinct, because a transposed matrix or a sum over the wrong axis then does not fit.

    Raises ValueError for a letter given twice and for fewer sizes than letters.
    """
    if len(set(letters)) < len(letters):
        raise ValueError(f"letters must differ from one another, got {letters!r}")
    if least < 1 or most - least + 1 < len(letters):
        raise ValueError(f"sizes from {least} to {most} must be positive and enough for the {len(letters)} letters of "
                         f"{letters!r}")
    return st.lists(st.integers(least, most), min_size=len(letters), max_size=len(letters), unique=True).map(
        lambda sizes: dict(zip(letters, sizes)))


# -- values ------------------------------------------------------------------------------------------------------------

def spread(rng: np.random.Generator, shape: Shape, most: float = 1.0) -> Array:
    """Well-scaled numbers of both signs, 0.05 to `most` in size: as `matrices`, from a generator of your own."""
    values: Array = rng.uniform(0.05, most, shape) * rng.choice([-1.0, 1.0], shape)
    return values


def matrices(shape: Shape) -> st.SearchStrategy[Array]:
    """float64 of that shape (of any number of axes), both signs, 0.05 to 1 in size, no two entries equal.

    Products of two such matrices stay near 1 in size, where activations are curved.  Where they are saturated, the
    rounding of 1 - tanh^2, right to the last digit or not, is all that is left of a gradient.
    """
    return _drawn(lambda rng: spread(rng, shape))


def logits(shape: Shape) -> st.SearchStrategy[Array]:
    """Log-odds from -6 to 6: probabilities from 0.0025 to 0.9975, where a sigmoid is curved."""
    return _drawn(lambda rng: rng.uniform(-6.0, 6.0, shape))


def probabilities(shape: Shape) -> st.SearchStrategy[Array]:
    """Numbers from 0.02 to 0.98, such as pixels or the p of a Bernoulli; they do not sum to one."""
    return _drawn(lambda rng: rng.uniform(0.02, 0.98, shape))


def noise(shape: Shape) -> st.SearchStrategy[Array]:
    """Standard normal numbers, such as the eps (B, K, Z) of `VAE.loss_and_gradients`."""
    return _drawn(lambda rng: rng.standard_normal(shape))


def away_from(kinks: Sequence[float], shape: Shape, margin: float = 0.1) -> st.SearchStrategy[Array]:
    """Numbers from -3 to 3, none within `margin` of one of `kinks`, such as away_from([0], (4, 7)) before a ReLU.

    There a function has no derivative, and a central difference across it is wrong.  `margin` must be well above its
    step, 6e-6.  Raises ValueError where nothing is left.
    """
    if not margin > 0:
        raise ValueError(f"margin must be more than 0, got {margin}")
    gaps, start = [], -3.0
    for kink in sorted(kinks):
        gaps.append((start, kink - margin))
        start = max(start, kink + margin)
    free = np.array([(low, min(high, 3.0)) for low, high in [*gaps, (start, 3.0)] if low < min(high, 3.0)])
    if not len(free):
        raise ValueError(f"a margin of {margin} around kinks {list(kinks)} leaves nothing of -3 to 3")
    lengths = free[:, 1] - free[:, 0]

    def draw(rng: np.random.Generator) -> Array:
        place = rng.choice(len(free), shape, p=lengths / lengths.sum())
        values: Array = rng.uniform(free[place, 0], free[place, 1])
        return values
    return _drawn(draw)


def inputs(letters: Mapping[str, str], least: int = 1, most: int = 9,
           draw: Mapping[str, Callable[[Shape], st.SearchStrategy[Array]]] | None = None
           ) -> st.SearchStrategy[dict[str, Array]]:
    """A layer's inputs, as inputs({"x": "BD", "W": "DH"}): each of the shape its letters say, sizes from `shapes`.

    draw : the strategy of an input that is not from `matrices`, as {"p": probabilities}
    """
    strategies = {name: matrices for name in letters} | dict(draw or {})
    if set(strategies) != set(letters):
        raise ValueError(f"draw must name inputs among {', '.join(letters)}, got {', '.join(draw or ())}")
    return _inputs(letters, shapes("".join(sorted(set("".join(letters.values())))), least, most), strategies)


@st.composite
def _inputs(draw: st.DrawFn, letters: Mapping[str, str], sizes: st.SearchStrategy[dict[str, int]],
            strategies: Mapping[str, Callable[[Shape], st.SearchStrategy[Array]]]) -> dict[str, Array]:
    size = draw(sizes)
    return {name: draw(strategies[name](tuple(size[letter] for letter in axes))) for name, axes in letters.items()}


def _generators() -> st.SearchStrategy[np.random.Generator]:
    """The one generator of an example, which goes on from array to array."""
    return st.shared(seeds().map(np.random.default_rng), key="npvae.testing")


@st.composite
def _drawn(draw: st.DrawFn, values: Callable[[np.random.Generator], Array]) -> Array:
    return np.asarray(values(draw(_generators())))


# -- models ------------------------------------------------------------------------------------------------------------

def small_vaes(kernels: str = "numpy", most: int = 8) -> st.SearchStrategy[VAE]:
    """Whole small models in float64, every activation and likelihood, none to two hidden layers, widths pairwise
    distinct and at most `most`; parameters random, biases included.  With no hidden layer the model is linear; a narrow
    layer of rectifiers may be dead on a whole batch, and no gradient moves likelihood.logvar of gaussian-optimal, which
    `assert_gradients` takes with vacuous=list(vae.parameters).  What pixels they take depends on the likelihood: draw
    them from `images`.
    """
    return st.builds(_small_vae, shapes("DHGZ", 1, most), st.integers(0, 2), st.sampled_from(list(ACTIVATIONS)),
                     st.sampled_from(small_likelihoods()), _generators(), st.just(kernels))


def small_likelihoods() -> list[str]:
    """Every likelihood, with few numbers for each pixel: the softmax over 4 levels in place of 256."""
    return ["categorical:4" if name == "categorical" else name for name in LIKELIHOODS]


def images(vae: VAE, rows: int) -> st.SearchStrategy[Array]:
    """Images (rows, D) from 0.02 to 0.98, as the model's likelihood takes them: where it has levels, at the nearest."""
    return probabilities((rows, vae.input_dim)).map(lambda x: fitting(vae.output, fitting(vae.likelihood, x)))


def _small_vae(size: dict[str, int], depth: int, activation: str, likelihood: str, rng: np.random.Generator,
               kernels: str) -> VAE:
    vae = VAE(size["D"], (size["H"], size["G"])[:depth], size["Z"], activation, likelihood, "float64", kernels, rng)
    vae.parameters.flat[...] += 0.2 * rng.standard_normal(vae.parameters.flat.size)
    return vae


# -- the assertion -----------------------------------------------------------------------------------------------------

@overload
def assert_gradients(loss: Loss, gradients: Mapping[str, Array], parameters: Mapping[str, Array], /, *,
                     method: str = ..., tolerance: float | None = ..., vacuous: Collection[str] = ...,
                     counts: Mapping[str, float] | None = ...) -> Report:
    """Of a loss."""


@overload
def assert_gradients(forward: Forward, backward: Backward, inputs: Mapping[str, Array], /, *,
                     method: str = ..., tolerance: float | None = ..., vacuous: Collection[str] = ...,
                     constants: Sequence[str] = ...) -> Report:
    """Of a layer."""


def assert_gradients(function: Callable[..., Any], derivative: Any, at: Mapping[str, Array], /, *,
                     method: str = "complex", tolerance: float | None = None, vacuous: Collection[str] = (),
                     counts: Mapping[str, float] | None = None, constants: Sequence[str] = ()) -> Report:
    """Fail unless the gradients are right, with the report as the message.  Two forms:

        assert_gradients(loss, gradients, parameters)       name -> array, held against the loss: `check_gradients`
        assert_gradients(forward, backward, inputs)         a layer: `check_pair`, with the rules for a backward pass

    What is undecided fails, too: an entry at a kink (a tie of a maximum, a ReLU at 0) has no derivative to be held
    against.  Draw inputs with `away_from`.  A gradient that is zero but for rounding passes (see `gradcheck`).

    vacuous : the tensors that the function may not depend on.  Any other whose numeric gradient is zero throughout
        fails, since nothing of it was tested.
    method, tolerance, counts, constants : as those two functions take them

    Returns the report.  Raises AssertionError, and what the two functions raise for arguments that do not fit.
    """
    __tracebackhide__ = True      # pytest then points at the test
    if isinstance(vacuous, str) or not set(vacuous) <= set(at):
        raise ValueError(f"vacuous must be a list of names among {', '.join(at)}, got {vacuous!r}")
    if callable(derivative):
        if counts is not None:
            raise ValueError("counts are for a loss and its gradients: of a layer, the lengths of all axes are known")
        report = check_pair(function, derivative, at, constants, method, tolerance)
    elif constants:
        raise ValueError("constants are for a layer: of a loss, leave them out of parameters and gradients")
    else:
        report = check_gradients(function, derivative, at, method, tolerance, counts)
    empty = [name for name in report.vacuous if name not in vacuous]
    if not report.ok or empty:
        untested = f"\n* nothing was tested of {', '.join(empty)}: other values, or vacuous={empty}" if empty else ""
        raise AssertionError(f"{report}{untested}")
    return report
