"""Property-based gradient tests of your own layers: Hypothesis strategies and one assertion.  Read after `gradcheck/`.

    from hypothesis import given
    from npvae.testing import assert_gradients, inputs

    @given(inputs({"x": "BD", "gain": "D", "bias": "D"}, least=4))
    def test_layer_norm(inputs):
        assert_gradients(forward, backward, inputs)

Install with  pip install 'npvae[test]'.  `import npvae` loads neither this module nor Hypothesis.

How values are drawn.  Hypothesis draws the seed of one NumPy generator, from which all arrays of an example come.  So
values have no zeros, ties or repeated entries, and two arrays of one shape are never equal.  (Hypothesis's own arrays
have many equal entries, which hide a transposition.)  An array costs as much as one integer.  A failing example shrinks
to the smallest shape that fails and a small seed.  The entries do not shrink to round numbers, which would destroy the
pattern of errors from which a `Report` makes its diagnosis.
"""
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import overload

import numpy as np

from .gradcheck.checker import check_gradients, check_pair
from .gradcheck.derivatives import Array, Loss
from .gradcheck.report import Report
from .gradcheck.rules import Backward, Forward
from .layers import ACTIVATIONS
from .likelihoods import LIKELIHOODS
from .likelihoods.support import fitting
from .model.vae import VAE

try:
    from hypothesis import HealthCheck, settings
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("npvae.testing needs hypothesis: pip install 'npvae[test]'") from None

Shape = tuple[int, ...]


# -- settings ----------------------------------------------------------------------------------------------------------

def register_profiles(max_examples: int = 30) -> None:
    """Register the Hypothesis profiles "npvae" and "npvae-ci"; `settings.load_profile("npvae")` selects one.

    "npvae" draws new examples in every run, "npvae-ci" always the same.  Both draw `max_examples` for each test, few
    because each is a thorough check, and have no deadline, since the first call of a Numba kernel compiles it.
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
    """A size from `least` to `most` for each letter, as in shapes("BDH") -> {"B": 4, "D": 7, "H": 2}.

    The sizes are pairwise distinct, so that a transposed matrix or a sum over the wrong axis does not fit.

    Raises ValueError for a repeated letter and for fewer sizes than letters.
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
    """Numbers of both signs with absolute values from 0.05 to `most`, as in `matrices`, from your own generator."""
    values: Array = rng.uniform(0.05, most, shape) * rng.choice([-1.0, 1.0], shape)
    return values


def matrices(shape: Shape) -> st.SearchStrategy[Array]:
    """float64 arrays of that shape, with any number of axes: both signs, absolute values from 0.05 to 1, no two equal.

    Products of two such matrices have entries near 1, where activations are curved.  Where an activation is saturated,
    little but the rounding of 1 - tanh^2 is left of a gradient.
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

    A function has no derivative at a kink, and a central difference across it is wrong.  `margin` must be well above
    the step, 6e-6.  Raises ValueError if no numbers are left.
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
    """The inputs of a layer, with their shapes in letters, as inputs({"x": "BD", "W": "DH"}); sizes come from `shapes`.

    draw : strategies in place of `matrices`, as {"p": probabilities}
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
    """The generator of an example, shared by all of its arrays."""
    return st.shared(seeds().map(np.random.default_rng), key="npvae.testing")


@st.composite
def _drawn(draw: st.DrawFn, values: Callable[[np.random.Generator], Array]) -> Array:
    return np.asarray(values(draw(_generators())))


# -- models ------------------------------------------------------------------------------------------------------------

def small_vaes(kernels: str = "numpy", most: int = 8) -> st.SearchStrategy[VAE]:
    """Small models in float64 of any activation and likelihood, with up to two hidden layers, pairwise distinct sizes
    up to `most`, and random parameters, biases included.  Draw their pixels from `images`, since the likelihood decides
    what they may be.

    Some gradients may be zero throughout: a narrow layer of ReLUs may be inactive on a whole batch, and
    likelihood.logvar of gaussian-optimal has no gradient.  So call `assert_gradients` with
    vacuous=list(vae.parameters).
    """
    return st.builds(_small_vae, shapes("DHGZ", 1, most), st.integers(0, 2), st.sampled_from(list(ACTIVATIONS)),
                     st.sampled_from(small_likelihoods()), _generators(), st.just(kernels))


def small_likelihoods() -> list[str]:
    """Every likelihood by name, but the softmax over 4 levels in place of 256."""
    return ["categorical:4" if name == "categorical" else name for name in LIKELIHOODS]


def images(vae: VAE, rows: int) -> st.SearchStrategy[Array]:
    """Images (rows, D) from 0.02 to 0.98, moved to the nearest values that the model's likelihood and decoder take."""
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
    """For a loss."""


@overload
def assert_gradients(forward: Forward, backward: Backward, inputs: Mapping[str, Array], /, *,
                     method: str = ..., tolerance: float | None = ..., vacuous: Collection[str] = ...,
                     constants: Sequence[str] = ...) -> Report:
    """For a layer."""


def assert_gradients(function: Loss | Forward, derivative: Mapping[str, Array] | Backward, at: Mapping[str, Array], /,
                     *, method: str = "complex", tolerance: float | None = None, vacuous: Collection[str] = (),
                     counts: Mapping[str, float] | None = None, constants: Sequence[str] = ()) -> Report:
    """Fail unless the gradients are right, with the report as the message.  Two forms:

        assert_gradients(loss, gradients, parameters)       gradients (name -> array) of a loss: `check_gradients`
        assert_gradients(forward, backward, inputs)         a layer, with the rules for a backward pass: `check_pair`

    UNDECIDED fails, too: at a kink (a tie of a maximum, a ReLU at 0) there is no derivative to compare with; draw
    inputs by `away_from`.  A gradient that is zero up to rounding passes (see `gradcheck`).

    vacuous : names of tensors on which the function may not depend.  Any other tensor whose numeric gradient is zero
        throughout fails, since nothing was tested.
    method, tolerance, counts, constants : as in those two functions

    Returns the report.  Raises AssertionError, and what the two functions raise for arguments that do not fit.
    """
    __tracebackhide__ = True      # so that pytest points at the test
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
