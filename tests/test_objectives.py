"""Each objective by itself, on arrays that no network made: values against definitions, derivatives against numbers."""
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from npvae import ELBO, IWAE, CyclicalAnnealing, FreeBits, LinearAnnealing
from npvae.gradcheck import check_gradients
from strategies import seeds, sizes

STEP = 3
OBJECTIVES = {
    "elbo": ELBO(), "beta": ELBO(0.3), "no kl": ELBO(0), "sampled": ELBO(sampled=True),
    "sampled beta": ELBO(2.5, sampled=True), "linear": ELBO(LinearAnnealing(10)),
    "cyclical": ELBO(CyclicalAnnealing(40, cycles=2, ratio=0.4), sampled=True),
    "own schedule": ELBO(lambda step: 0.1 * step),
    "free bits": FreeBits(0.3), "free bits beta": FreeBits(0.7, 0.6), "no free bits": FreeBits(0),
    "free bits linear": FreeBits(0.5, LinearAnnealing(6)),
    "iwae": IWAE(), "iwae beta": IWAE(0.6), "iwae linear": IWAE(LinearAnnealing(8, beta=2))}
EACH = pytest.mark.parametrize("name", OBJECTIVES)


def defined(objective, nll, reg, beta):
    """The loss as the papers write it, image by image."""
    total = 0.0
    if isinstance(objective, FreeBits):
        mean_kl = [sum(reg[b, j] for b in range(len(reg))) / len(reg) for j in range(reg.shape[1])]
        return nll.mean() + beta * sum(max(objective.bits, kl) for kl in mean_kl)
    for b in range(len(nll)):
        if isinstance(objective, IWAE):
            weights = [math.exp(-nll[b, k] - beta * reg[b, k]) for k in range(nll.shape[1])]
            total -= math.log(sum(weights) / len(weights))
        else:
            total += sum(nll[b]) / nll.shape[1]
            total += beta * sum(reg[b]) / (nll.shape[1] if objective.kl_estimator.is_sampled else 1)
    return total / len(nll)


def terms(objective, size, seed):
    """nll and reg of the right shapes; the analytic KL is not negative, the sampled one may be."""
    rng = np.random.default_rng(seed)
    nll = rng.normal(3, 2, (size["B"], size["K"]))
    if objective.kl_estimator.is_sampled:
        return nll, rng.normal(1, 1, nll.shape)
    return nll, rng.exponential(0.5, (size["B"], size["Z"]))


@EACH
@given(size=sizes("BKZ"), seed=seeds)
def test_the_loss_is_what_the_definition_says(name, size, seed):
    objective = OBJECTIVES[name]
    nll, reg = terms(objective, size, seed)
    kept = nll.copy(), reg.copy()
    loss, dnll, dreg = objective(nll, reg, STEP)
    beta = {"beta": 0.3, "no kl": 0, "sampled beta": 2.5, "linear": 0.3, "cyclical": 3 / 8, "own schedule": 0.3,
            "free bits beta": 0.6, "free bits linear": 0.5, "iwae beta": 0.6, "iwae linear": 0.75}.get(name, 1)
    assert loss == pytest.approx(defined(objective, nll, reg, beta), rel=1e-12)
    assert np.array_equal(nll, kept[0]) and np.array_equal(reg, kept[1])
    assert np.ndim(loss) == 0 and np.broadcast_to(dnll, nll.shape).shape == nll.shape
    assert np.broadcast_to(dreg, reg.shape).shape == reg.shape


@pytest.mark.every(4)
@EACH
@pytest.mark.parametrize("method", ["complex", "central"])
@given(size=sizes("BKZ"), seed=seeds)
def test_the_derivatives_are_those_of_the_loss(name, method, size, seed):
    objective = OBJECTIVES[name]
    nll, reg = terms(objective, size, seed)
    if isinstance(objective, FreeBits):      # clear of its kink
        assume((np.abs(reg.mean(axis=0) - objective.bits) > 1e-3).all())
    _, dnll, dreg = objective(nll, reg, STEP)
    report = check_gradients(lambda p: objective(p["nll"], p["reg"], STEP)[0],
                             {"nll": np.broadcast_to(dnll, nll.shape), "reg": np.broadcast_to(dreg, reg.shape)},
                             {"nll": nll, "reg": reg}, method)
    assert report.ok, report


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@EACH
def test_results_fit_the_buffers_of_a_model(name, dtype):
    """Assigned into arrays of the model's type without a warning, which the test run would turn into an error."""
    nll, reg = (value.astype(dtype) for value in terms(OBJECTIVES[name], {"B": 4, "K": 3, "Z": 5}, 0))
    loss, into, also = np.empty((), dtype), np.empty_like(nll), np.empty_like(reg)
    loss[...], into[...], also[...] = OBJECTIVES[name](nll, reg, STEP)
    assert np.isfinite(loss) and np.isfinite(into).all() and np.isfinite(also).all()


# --- schedules and bounds ---

def test_linear_annealing():
    schedule = LinearAnnealing(8, beta=0.5)
    assert [schedule(step) for step in (0, 2, 4, 8, 9, 10**9)] == [0, 0.125, 0.25, 0.5, 0.5, 0.5]


@given(total=st.integers(1, 60), cycles=st.integers(1, 6), ratio=st.floats(0.05, 1), beta=st.floats(0, 3))
def test_cyclical_annealing(total, cycles, ratio, beta):
    """Fu et al. 2019, equation 6: beta min(1, tau / ratio), tau the part of its cycle that a step has come to."""
    schedule = CyclicalAnnealing(total * cycles, cycles, ratio, beta)
    for step in range(total * cycles):
        tau = (step % total) / total
        assert schedule(step) == pytest.approx(beta * min(1, tau / ratio), rel=1e-9, abs=1e-9 * beta / ratio)
    assert schedule(total * cycles) == schedule(10**9) == beta


@pytest.mark.parametrize("make", [ELBO, lambda beta: ELBO(beta, sampled=True), lambda beta: FreeBits(0.1, beta), IWAE])
def test_a_schedule_sees_the_step(make):
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.25
    nll, reg = np.ones((2, 3)), np.ones((2, 3))
    scheduled = make(schedule)
    assert scheduled(nll, reg, 17)[0] == make(0.25)(nll, reg, 0)[0]
    assert seen == [17]
    assert scheduled.bound()(nll, reg, 5)[0] == make(1.0).bound()(nll, reg, 5)[0]
    assert seen == [17]      # a test set is measured with beta = 1, whatever the step


@EACH
@given(seed=seeds)
def test_the_bound_has_full_beta_and_no_free_bits(name, seed):
    objective = OBJECTIVES[name]
    bound = objective.bound()
    assert bound.kl_estimator is objective.kl_estimator and isinstance(bound, IWAE) == isinstance(objective, IWAE)
    nll, reg = terms(objective, {"B": 4, "K": 3, "Z": 5}, seed)
    plain = IWAE() if isinstance(objective, IWAE) else ELBO(sampled=objective.kl_estimator.is_sampled)
    assert bound(nll, reg, STEP)[0] == pytest.approx(defined(plain, nll, reg, 1), rel=1e-12)


# --- free bits ---

@given(size=sizes("BKZ"), seed=seeds, bits=st.floats(0, 2), beta=st.floats(0.1, 2))
def test_free_bits_have_a_floor(size, seed, bits, beta):
    """No gradient where the mean KL is below it, the ELBO's where it is above, and never a loss below the floor."""
    rng = np.random.default_rng(seed)
    nll, reg = rng.normal(3, 2, (size["B"], size["K"])), rng.exponential(1, (size["B"], size["Z"]))
    loss, dnll, dreg = FreeBits(bits, beta)(nll, reg, 0)
    _, same, full = ELBO(beta)(nll, reg, 0)
    paid = reg.sum(axis=0) / len(reg) > bits
    assert loss >= nll.mean() + beta * bits * size["Z"] - 1e-12
    assert loss >= ELBO(beta)(nll, reg, 0)[0] - 1e-12
    assert dnll == same and np.array_equal(np.broadcast_to(dreg, reg.shape)[0], np.where(paid, full, 0))


def test_free_bits_at_and_around_the_floor():
    """Images share the floor: their mean counts, not each of them."""
    nll, reg = np.zeros((2, 1)), np.array([[0.0, 0.5, 0.25], [1.0, 0.5, 0.25]])
    loss, _, dreg = FreeBits(0.5)(nll, reg, 0)
    assert loss == 1.5 and not np.any(dreg)
    loss, _, dreg = FreeBits(0.49)(nll, reg, 0)
    assert loss == 1.49 and np.broadcast_to(dreg, (2, 3)).tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]


# --- IWAE ---

@given(size=sizes("BK"), seed=seeds)
def test_iwae_weights(size, seed):
    """dnll is w~ / B: positive, summing to 1/B in each row, largest where nll + reg is smallest (not largest)."""
    objective = IWAE(0.7)
    rng = np.random.default_rng(seed)
    nll, reg = rng.normal(3, 2, (size["B"], size["K"])), rng.normal(1, 1, (size["B"], size["K"]))
    _, dnll, dreg = objective(nll, reg, 0)
    weights = np.exp(-nll - 0.7 * reg)
    weights /= weights.sum(axis=1, keepdims=True)
    assert np.allclose(dnll * size["B"], weights, rtol=1e-12) and np.allclose(dreg, 0.7 * dnll, rtol=1e-14)
    assert np.array_equal(dnll.argmax(axis=1), (nll + 0.7 * reg).argmin(axis=1))


@given(seed=seeds, shift=st.floats(-1e4, 1e4))
def test_iwae_does_not_overflow(seed, shift):
    """log mean exp needs its shift: MNIST's log w is near -100, and exp(-nll) of a longer image underflows."""
    rng = np.random.default_rng(seed)
    nll, reg = rng.normal(3, 2, (4, 6)), rng.normal(1, 1, (4, 6))
    loss, dnll, _ = IWAE()(nll, reg, 0)
    moved, same, _ = IWAE()(nll + shift, reg, 0)
    assert moved == pytest.approx(loss + shift, rel=1e-12, abs=1e-9) and np.allclose(same, dnll, rtol=1e-9)


@given(seed=seeds)
def test_iwae_lies_between_the_mean_and_the_best_draw(seed):
    rng = np.random.default_rng(seed)
    nll, reg = rng.normal(3, 2, (4, 6)), rng.normal(1, 1, (4, 6))
    loss = IWAE()(nll, reg, 0)[0]
    assert (nll + reg).min(axis=1).mean() < loss < ELBO(sampled=True)(nll, reg, 0)[0]


# --- bad arguments ---

@pytest.mark.parametrize("make, error, says", [
    (lambda: ELBO(-0.1), ValueError, "beta must be a finite number at least 0, got -0.1"),
    (lambda: ELBO(math.nan), ValueError, "beta must be a finite number at least 0, got nan"),
    (lambda: ELBO(math.inf), ValueError, "beta must be a finite number at least 0, got inf"),
    (lambda: ELBO("1"), TypeError, "beta must be a number at least 0, got '1'"),
    (lambda: ELBO(True), TypeError, "beta must be a number"), (lambda: ELBO(None), TypeError, "beta must be a number"),
    (lambda: IWAE(-1), ValueError, "beta must be"), (lambda: IWAE(1j), TypeError, "beta must be"),
    (lambda: FreeBits(-0.5), ValueError, "bits must be a finite number at least 0, got -0.5"),
    (lambda: FreeBits("2"), TypeError, "bits must be a number"), (lambda: FreeBits(1, -1), ValueError, "beta must be"),
    (lambda: LinearAnnealing(0), ValueError, "steps must be at least 1, got 0"),
    (lambda: LinearAnnealing(1.5), TypeError, "steps must be an integer of at least 1, got 1.5"),
    (lambda: LinearAnnealing(10, -1), ValueError, "beta must be"),
    (lambda: CyclicalAnnealing(0), ValueError, "total_steps must be at least 1"),
    (lambda: CyclicalAnnealing(10, 0), ValueError, "cycles must be at least 1"),
    (lambda: CyclicalAnnealing(10, ratio=0), ValueError, "ratio must be a finite number more than 0"),
    (lambda: CyclicalAnnealing(10, ratio=1.5), ValueError, "ratio must be at most 1, got 1.5"),
    (lambda: CyclicalAnnealing(10, beta=-2), ValueError, "beta must be")])
def test_bad_arguments_are_named(make, error, says):
    with pytest.raises(error) as caught:
        make()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_free_bits_hide_no_nan():
    """NaN is not more than `bits`: it would have cost nothing."""
    loss, _, dkl = FreeBits(0.5)(np.ones((2, 1)), np.array([[1.0, np.nan], [1.0, 0.0]]), 0)
    assert np.isnan(loss) and dkl.all()


@pytest.mark.parametrize("objective", [ELBO, IWAE, lambda beta: FreeBits(1, beta)])
def test_a_schedule_may_not_fall_below_zero(objective):
    with pytest.raises(ValueError, match="^beta must"):
        objective(beta=lambda step: -0.5)(np.ones((2, 1)), np.ones((2, 1)), 0)


@pytest.mark.parametrize("sampled", ["stl", 2, None])
def test_sampled_is_true_or_false(sampled):
    with pytest.raises(TypeError, match="^sampled must be True or False"):
        ELBO(sampled=sampled)
