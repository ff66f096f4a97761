"""Every kernel pair at the ends of its range, in both modules and both types: values and gradients against 200 digits.

The oracle is a kernel's formula in decimal arithmetic, as it stands on paper, and its derivatives by central
differences, whose step of 1e-50 costs nothing there.  An error is allowed that a few roundings of the inputs would make
as well; what its type cannot hold must be infinite, or NaN, and what is too small for it must be as small.
"""
import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from itertools import product

import numpy as np
import pytest

from npvae.kernels import fused, reference
from npvae.kernels.reference.levels import LOG_SCALE_FLOOR
from npvae.kernels.reference.likelihoods import LOGVAR_FLOOR
from kernel_calls import PAIRS, main_outputs, run_backward, run_forward

DIGITS = Context(prec=200, Emax=MAX_EMAX, Emin=MIN_EMIN)
STEP = Decimal("1e-50")
LOG_2PI = Decimal("1.8378770664093454835606594728112352797227949472755668256343")
SIZES = (1e-30, 1e-8, 0.3, 1.0, 17.0, 40.0, 90.0, 200.0, 800.0, 1e8)
LINE = [0.0, *SIZES, *(-size for size in SIZES)]
SOME = [-1e8, -800.0, -90.0, -17.0, -1.0, -1e-8, 0.0, 1e-3, 1.0, 40.0, 200.0, 1e8]


def softplus(a):
    return (1 + a.exp()).ln() if a < 0 else a + (1 + (-a).exp()).ln()


def sigmoid(a):
    return 1 / (1 + (-a).exp()) if a > 0 else a.exp() / (1 + a.exp())


def expm1(a):
    return a.exp() - 1


def tanh(a):
    return expm1(2 * a) / (2 + expm1(2 * a)) if a < 0 else -expm1(-2 * a) / (2 + expm1(-2 * a))


def normal(a):
    """Phi(a), by its series near 0 and by the continued fraction of Mills' ratio far out (Laplace)."""
    density, t = (-(a * a + LOG_2PI) / 2).exp(), abs(a)
    if t < 8:
        terms = [a]
        for k in range(1, 500):
            terms.append(terms[-1] * a * a / (2 * k + 1))
        return Decimal("0.5") + density * sum(terms)
    ratio = t
    for k in range(120, 0, -1):
        ratio = t + k / ratio
    return density / ratio if a < 0 else 1 - density / ratio


def log_sum(values):
    top = max(values)
    return top + sum((value - top).exp() for value in values).ln()


def log_normal(z, mu, logvar):
    return -((z - mu) ** 2 * (-logvar).exp() + logvar + LOG_2PI) / 2


def continuous(logit, x):
    if logit == 0:
        return Decimal(0)
    t, share = abs(logit), x if logit < 0 else 1 - x
    return ((1 - (-t).exp()) / t).ln() + t * share


def logistic(location, r, x):
    h, scale = Decimal(1) / 510, (Decimal(LOG_SCALE_FLOOR) + softplus(r - Decimal(LOG_SCALE_FLOOR))).exp()
    u, v = ((x + side * h - location) / scale for side in (1, -1))
    below, above = (softplus(-u) if x < 1 else 0), (softplus(v) if x > 0 else 0)
    w = 2 * h / scale
    inside = w.ln() - w / 2 if w < STEP else (1 - (-w).exp()).ln()
    return below + above - (inside if 0 < x < 1 else 0)


def rising(a, k):
    return math.prod((a + j for j in range(k)), start=Decimal(1))


def beta_binomial(log_alpha, log_beta, x):
    i, alpha, beta = int((255 * x).to_integral_value()), log_alpha.exp(), log_beta.exp()
    return (rising(alpha + beta, 255) / rising(alpha, i) / rising(beta, 255 - i) / math.comb(255, i)).ln()


def pixel(mean, s, x):
    logvar = Decimal(LOGVAR_FLOOR) + softplus(s - Decimal(LOGVAR_FLOOR))
    return -log_normal(x, mean, logvar)


def direction(u, w):
    a = u * w
    return u + (softplus(-a) - 1) / w, softplus(a)


def planar(z0, u_hat, stretch, w, bias):
    t = tanh(w * z0 + bias)
    slope = 4 / ((w * z0 + bias).exp() + (-w * z0 - bias).exp()) ** 2
    return z0 + u_hat * t, (t * t + slope * stretch).ln()


def byte(i):
    """As a type holds i / 255, which is a level all the same."""
    return np.float32(i / 255)


#: kernel -> its outputs that count as one formula of the inputs, one number each, and where to try it
CASES = {
    "sigmoid": (lambda pre, b: sigmoid(pre + b), product(LINE, [0.0])),
    "softplus": (lambda pre, b: softplus(pre + b), product(LINE, [0.0])),
    "tanh": (lambda pre, b: tanh(pre + b), product(LINE, [0.0])),
    "elu": (lambda pre, b: pre + b if pre + b >= 0 else expm1(pre + b), product(LINE, [0.0])),
    "silu": (lambda pre, b: (pre + b) * sigmoid(pre + b), product(LINE, [0.0])),
    "gelu": (lambda pre, b: (pre + b) * normal(pre + b), product(LINE, [0.0])),
    "bernoulli_nll": (lambda logit, x: softplus(logit) - x * logit, product(LINE, [0.0, 0.25, 1.0])),
    "continuous_bernoulli_nll": (continuous, product(LINE, [0.0, 0.25, 1.0])),
    "gaussian_nll": (lambda mean, x, logvar: -log_normal(x, mean, logvar),
                     product([0.5, 0.25, 1e8], [0.5], [-150.0, -90.0, -1e-8, 0.0, 40.0, 170.0])),
    "gaussian_pixel_nll": (pixel, product([0.5, 0.25, 1e8], SOME, [0.5])),
    "discretized_logistic_nll": (logistic, product([-1e4, 0.25, 1e4], SOME, [0.0, byte(100), 1.0])),
    "categorical_nll": (lambda a, b, c, d, x: log_sum([a, b, c, d]) - [a, b, c, d][int(3 * x)], [
        (*(value + shift for value in values), x) for x in (0.0, 1.0) for shift in (0.0, -1024.0, 1e8)
        for values in ((0, 0, 0, 0), (0, -8, -64, -8), (-40, 0, -64, 0), (800, 0, 0, 80), (0, 0, 0, 1e8))]),
    "beta_binomial_nll": (beta_binomial, product([-1e4, -700.0, -400.0, 3.0, 800.0],
                                                 [-1e4, -400.0, 0.0, 800.5], [0.0, byte(17), 1.0])),
    "reparameterize": (lambda mu, logvar, eps: mu + (logvar / 2).exp() * eps,
                       product([0.0, 1e8], [logvar for logvar in LINE if logvar != 800], [1.5])),
    "gaussian_kl": (lambda mu, logvar: (mu * mu + logvar.exp() - 1 - logvar) / 2,
                    product([0.0, 1e-8, 1e8], [*LINE, -0.99])),
    "log_ratio": (lambda z, logvar, eps: (z * z - eps * eps - logvar) / 2, product([1e-8, 1e8], SOME, [1.5])),
    "log_q": (lambda logvar, eps: -(eps * eps + logvar + LOG_2PI) / 2, product(LINE, [1.5])),
    "standard_normal": (lambda z: -(z * z + LOG_2PI) / 2, product(LINE)),
    "gaussian_log_density": (log_normal, product([0.5, 1e8], [0.5, -0.25], [-150.0, -90.0, 0.0, 40.0, 170.0])),
    "mixture": (lambda z, a, b, la, lb, pa, pb: log_sum([
        pa + log_normal(z, a, la), pb + log_normal(z, b, lb)]) - log_sum([pa, pb]), [
        (z, 0.0, 2.0, logvar, 0.0, shift + apart, shift) for z in (0.0, 1e4) for logvar in (-150.0, -1.0)
        for shift in (0.0, -1e8) for apart in (0, 16, 1024)]),
    "planar_direction": (direction, product([-40.0, -17.0, -1.0, 0.0, 1e-3, 40.0], [-40.0, -1.0, 2.0])),
    "planar": (planar, product([-1e4, -8.0, 0.0, 20.0], [0.5], [1e-8, 1.0, 1e8], [-0.5], [1.0])),
    "gate": (lambda z0, m, g: (sigmoid(g) * z0 + sigmoid(-g) * m, -softplus(-g)), product([1.5], [-0.25], LINE)),
    "importance_bound": (lambda a, b, c: log_sum([a, b, c]) - Decimal(3).ln(), [
        (shift, shift + apart, shift - 8) for shift in (0.0, -1024.0, 1e8) for apart in (0, 1, -64, 1e8)]),
}
#: What a gradient may be off by beside that, in roundings of 1:  slopes are taken from an output that may round to 1; a
#: responsibility below e^-60 counts as 0; u_hat is u without its part along w; and logarithms of factorials, which
#: cancel, are as large as 1160.
SLACK = {"sigmoid": 1, "tanh": 1, "elu": 1, "mixture": 1, "planar_direction": 40, "beta_binomial_nll": 1200}
VALUES_TOO = ("planar_direction", "beta_binomial_nll")


def arrays(name, point, dtype):
    """The inputs of one image, one draw, one dimension; a mixture has two components, a bound three draws."""
    pair, values, inputs = PAIRS[name], list(point), {}
    letters = {"H": 2} if name == "mixture" else ({"K": 3} if name == "importance_bound" else {})
    for key, shape in pair.inputs.items():
        shape = tuple(int(letter) if letter in "124" else letters.get(letter, 1) for letter in shape)
        size = math.prod(shape)
        inputs[key], values = np.array(values[:size], dtype).reshape(shape), values[size:]
    assert not values
    return inputs


def oracle(function, point, moved):
    """The value and its derivatives by the inputs `moved`; and how much each of these moves, for a value the sum of
    |input * derivative|, for a derivative what it gains where all inputs grow together."""
    with localcontext(DIGITS):
        at = [Decimal(float(value)) for value in point]

        def value(inputs):
            found = function(*inputs)
            return sum(found) if isinstance(found, tuple) else found

        def slope(inputs, place):
            up, down = ([*inputs[:place], inputs[place] + step, *inputs[place + 1:]] for step in (STEP, -STEP))
            return (value(up) - value(down)) / (2 * STEP)

        slopes = [slope(at, place) for place in moved]
        grown, shrunk = ([one * (1 + step) if i in moved else one for i, one in enumerate(at)]
                         for step in (STEP, -STEP))
        sizes = [sum(abs(at[place] * one) for place, one in zip(moved, slopes)),
                 *(abs(slope(grown, place) - slope(shrunk, place)) / (2 * STEP) for place in moved)]
        return [value(at), *slopes], sizes


def check(found, right, size, dtype, digits, slack=0.0):
    limits = np.finfo(dtype)
    with localcontext(DIGITS):
        if abs(right) > Decimal(float(limits.max)) / 4:
            return not np.isfinite(found) or abs(right) < 5 * Decimal(float(limits.max))
        if not np.isfinite(found):
            return False
        allowed = digits * Decimal(float(limits.eps)) * (abs(right) + size + Decimal(slack))
        return abs(Decimal(float(found)) - right) <= allowed + 8 * max(Decimal(float(limits.tiny)), STEP ** 2)


@pytest.mark.every(6)
@pytest.mark.parametrize("third", range(3))
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_at_the_ends_of_the_range(name, third):
    function, points = CASES[name]
    pair, wrong = PAIRS[name], []
    for point in [*points][third::3]:
        inputs = arrays(name, np.float32(point), "float64")
        owner = [key for key, value in inputs.items() for _ in range(value.size)]
        moved = [i for i, key in enumerate(owner) if key not in pair.constant]
        right, sizes = oracle(function, np.float32(point), moved)
        for module, dtype in product((reference, fused), ("float64", "float32")):
            low = {key: value.astype(dtype) for key, value in inputs.items()}
            with np.errstate(all="ignore"):
                outputs = run_forward(module, name, low)
                upstream = {key: np.ones_like(outputs[key]) for key in main_outputs(name)}
                gradients = run_backward(module, name, low, outputs, upstream)
            total = sum(float(outputs[key].sum()) for key in main_outputs(name))
            found = [total, *(gradients[owner[i]].ravel()[i - owner.index(owner[i])] for i in moved)]
            whats = ["value", *(owner[i] for i in moved)] if np.isfinite(total) else ["value"]
            for what, ours, exact, size in zip(whats, found, right, sizes):
                slack = SLACK.get(name, 0) if what != "value" or name in VALUES_TOO else 0
                if not check(ours, exact, size, dtype, 8, slack):
                    wrong.append(f"{module.__name__[14:]} {dtype} {point}: {what} {ours}, not {exact:.6e}")
    assert not wrong, "\n".join([f"{len(wrong)} of {name}", *wrong[:30]])


#: kernel, point, output or input, its right value (or its gradient's): found wrong from outside, in single precision
FOUND = [
    ("mixture", (0.0, 0.0, 0.0, 0.0, 0.0, 1e8, 1e8), "log_p", [-0.9189385332046727]),      # a common offset
    ("mixture", (0.0, 0.0, 0.0, 0.0, 0.0, -1e8, 1e8), "logits", [0.0, 0.0]),
    ("categorical_nll", (1e8, 1e8, -1e9, -1e9, 1.0 / 3), "nll", [0.6931471805599453]),
    ("categorical_nll", (1e8, 1e8, -1e9, -1e9, 1.0 / 3), "logits", [0.5, -0.5, 0, 0]),
    ("discretized_logistic_nll", (0.5, 105.0, byte(128)), "nll", [111.92755790627831]),
    ("discretized_logistic_nll", (0.5, 1e4, byte(128)), "nll", [10006.927557906278]),
    ("discretized_logistic_nll", (0.5, 20.0, byte(128)), "output", [-4.1651162486095644e-21, 1.0]),
    ("continuous_bernoulli_nll", (1e4, 1.0), "nll", [-9.210340371976184]),
    ("continuous_bernoulli_nll", (1e8, 1.0), "nll", [-18.420680743952367]),
    ("continuous_bernoulli_nll", (1e8, 1.0), "logits", [-1e-8]),
    ("bernoulli_nll", (17.0, 1.0), "logits", [-4.1399375473943306e-08]),
    ("bernoulli_nll", (40.0, 1.0), "logits", [-4.248354255291589e-18]),
    ("bernoulli_nll", (40.0, 1.0), "nll", [4.248354255291589e-18]),
    ("gaussian_kl", (0.0, 1e-6), "kl", [2.5000008207097489e-13]),      # of 1e-6 in single precision
    ("beta_binomial_nll", (-1e4, -700.0, 1.0), "nll", [9300.0]),
    ("beta_binomial_nll", (-1e4, -700.0, 1.0), "output", [-1.0, 1.0]),
    ("beta_binomial_nll", (-700.0, -690.0, byte(100)), "nll", [704.1073771566481]),
    ("gaussian_nll", (0.5, 0.5, -92.10340371976183), "nll", [-45.132762058836343]),      # sigma 1e-20, no residual
    ("gate", (0.0, 1.0, 40.0), "net", [4.248354255291589e-18, -4.248354255291589e-18]),
]


@pytest.mark.parametrize("name, point, what, right", FOUND)
@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_was_found_wrong_from_outside(name, point, what, right, dtype, module):
    inputs = arrays(name, np.float32(point), dtype)
    outputs = run_forward(module, name, inputs)
    found = outputs.get(what)
    if found is None:
        first = {key: np.full_like(outputs[key], key == main_outputs(name)[0]) for key in main_outputs(name)}
        found = run_backward(module, name, inputs, outputs, first)[what]
    assert np.allclose(found.ravel(), right, rtol=1e-6, atol=0)


@pytest.mark.parametrize("module, dtype, logvar", [(reference, "float32", 100.0), (fused, "float32", 100.0),
                                                   (reference, "float64", 800.0), (fused, "float64", 800.0)])
def test_what_its_type_cannot_hold_is_infinite_and_no_large_number(module, dtype, logvar):
    """A divergence must reach the check of every step."""
    with np.errstate(over="ignore"):
        for name, point in (("gaussian_kl", (0.0, logvar)), ("reparameterize", (0.0, 2 * logvar, 1.0))):
            outputs = run_forward(module, name, arrays(name, point, dtype))
            assert all(np.isposinf(value).all() for value in outputs.values())


@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
def test_bounds_without_any_weight(module):
    """All w are 0, or one is infinite: so is the bound, without a warning.  A NaN stays one."""
    log_w = np.array([[-np.inf, -np.inf], [-np.inf, 3], [np.inf, 3], [np.nan, np.inf], [3, 3]])
    outputs = run_forward(module, "importance_bound", {"log_w": log_w})
    assert np.allclose(outputs["bound"], [-np.inf, 3 - math.log(2), np.inf, np.nan, 3], equal_nan=True)
    assert np.array_equal(outputs["weights"][[1, 4]], [[0, 1], [0.5, 0.5]])
    assert np.isnan(outputs["weights"][[0, 2, 3]]).all()


@pytest.mark.parametrize("module", [reference, fused], ids=["reference", "fused"])
def test_a_draw_far_from_some_components_or_all(module):
    """Each draw has a density of its own: of what is too far for its type there is nothing, without a warning."""
    z = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3, 1)
    three = {"mean": np.array([[1e30], [0], [0]]), "logvar": np.zeros((3, 1)), "logits": np.zeros(3)}
    right = math.log(2 / 3) - 0.5 * (z[..., 0] ** 2 + math.log(2 * math.pi))
    for place in (None, *np.ndindex(2, 3)):
        moved, expected = z.copy(), right.copy()
        if place is not None:
            moved[place], expected[place] = -1e30, -np.inf
        inputs = {"z": moved, **{name: value.astype(np.float32) for name, value in three.items()}}
        with np.errstate(over="ignore"):
            outputs = run_forward(module, "mixture", inputs)
        assert np.allclose(outputs["log_p"], expected, rtol=1e-6)
        assert np.allclose(outputs["weights"][np.isfinite(expected)], [0, 0.5, 0.5])
