"""The exercises: every function left empty, right, and wrong in the ways that people get it wrong; what a student's
code may do to the checker; the program beside them; and the whole set, solved, as a VAE that learns MNIST."""
import ast
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import course
import lab
from chapters import chapter_of
from grading import child, parent, training
from grading.answers import Student, Wrong
from grading.chapters import EXERCISES, HERE, numbers_in
from scripts import run_script

PARTS = [(exercise, part) for exercise in EXERCISES.values() for part in exercise.parts]
QUICK = [(exercise, part) for exercise, part in PARTS if part.name not in exercise.slow]


def identity(case):
    return getattr(case, "key", getattr(case, "name", None))


each_part = pytest.mark.parametrize("exercise, part", QUICK, ids=identity)


# --- files ---

def functions(text):
    """(name, arguments, docstring) of the functions of a file, without those that a solution adds for itself."""
    return [(node.name, ast.unparse(node.args), ast.get_docstring(node)) for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=identity)
def test_a_solution_fills_the_blanks_of_its_file(exercise):
    blank, solved = (place.joinpath(exercise.file).read_text() for place in (HERE, HERE / "solutions"))
    assert functions(blank) == functions(solved) and numbers_in(blank) == numbers_in(solved)
    assert ast.get_docstring(ast.parse(blank)) == ast.get_docstring(ast.parse(solved))
    given = [name for name, _, doc in functions(blank) if doc.startswith("Given:")]
    assert [name for name, _, _ in functions(blank) if name not in given] == [part.name for part in exercise.parts]
    assert blank.count("raise NotImplementedError(") == len(exercise.parts) and "NotImplementedError" not in solved


@pytest.mark.parametrize("exercise, part", PARTS, ids=identity)
def test_a_blank_names_equations_that_a_chapter_states(exercise, part):
    equations = re.findall(r"D\d+\.\d+", exercise.equations(part.name))
    assert (equations or part.name == "batches") and all(chapter_of(equation) for equation in equations)
    assert part.minutes > 0 and part.difficulty in course.DIFFICULTY and part.hint


@pytest.mark.parametrize("exercise", [one for key, one in EXERCISES.items() if key != "train"], ids=identity)
def test_an_exercise_is_about_its_chapter(exercise):
    stated = {chapter_of(equation) for part in exercise.parts
              for equation in re.findall(r"D\d+\.\d+", exercise.equations(part.name))}
    assert exercise.chapter().startswith(f"{exercise.key}-") and exercise.key in stated


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=identity)
def test_seeds_give_other_numbers_and_nothing_else(exercise):
    texts = [exercise.text_for(seed) for seed in range(12)]
    assert texts[0] == (HERE / exercise.file).read_text()
    numbers = exercise.numbers_of(0)
    if numbers:
        assert len(set(texts)) > 3
    for seed, text in enumerate(texts):
        assert {name: numbers_in(text)[name] for name in numbers} == exercise.numbers_of(seed)
        rest, expected = ([line for line in one.splitlines() if line.split(" = ")[0] not in numbers]
                          for one in (text, texts[0]))
        assert rest == expected


# --- verdicts ---

@pytest.fixture
def student(monkeypatch):
    """Makes a Student of one file's text, with the solutions of the others beside it."""
    def make(exercise, text=None, seed=0):
        for other in EXERCISES.values():
            if other is exercise:
                break
            module(other.file[:-3], other.text_for(seed, HERE / "solutions"))
        one = module(exercise.file[:-3], exercise.text_for(seed, HERE / "solutions") if text is None else text)
        return Student(one, exercise.numbers_of(seed))

    def module(name, text):
        found = types.ModuleType(name)
        exec(compile(text, name, "exec"), vars(found))
        monkeypatch.setitem(sys.modules, name, found)
        return found
    return make


def verdict(exercise, part, one, seed=0):
    """What a check says, "" for right."""
    rng = np.random.default_rng([seed, len(part.name)])
    with np.errstate(all="ignore"):
        try:
            for _ in range(2):
                getattr(exercise.module, part.name)(one, rng)
        except Wrong as wrong:
            return str(wrong)
    return ""


@pytest.mark.every(3)
@pytest.mark.parametrize("seed", [0, 1, 2])
@each_part
def test_the_solution_is_right(exercise, part, seed, student):
    assert verdict(exercise, part, student(exercise, seed=seed), seed) == ""


@each_part
def test_a_blank_is_a_blank(exercise, part, student):
    with pytest.raises(NotImplementedError, match=part.name) as raised:
        verdict(exercise, part, student(exercise, exercise.text_for(0)))
    assert child.told(raised.value, HERE, exercise.file)[0] == "blank"


def replaced(exercise, part, old, new):
    """The solution with one piece of a function replaced; the whole body where `old` is ""."""
    text = exercise.text_for(0, HERE / "solutions")
    node = next(node for node in ast.parse(text).body if getattr(node, "name", "") == part.name)
    lines = text.splitlines(keepends=True)
    before, body, after = (lines[:node.body[0].end_lineno], lines[node.body[0].end_lineno:node.end_lineno],
                           lines[node.end_lineno:])
    if old:
        assert "".join(body).count(old) >= 1, f"{part.name} does not hold {old!r}"
        body = ["".join(body).replace(old, new)]
    else:
        body = [f"    {new}\n"]
    return "".join(before + body + after)


# exercise.part -> (a piece of the solution, what stands there instead, what the verdict must say).  A piece "" stands
# for the whole body.
SLIPS = {
    "01.log_marginal": [
        ("WEIGHT ** 2 + SIGMA ** 2", "SIGMA ** 2", "as if z did not vary"),
        ("WEIGHT ** 2 + SIGMA ** 2", "WEIGHT ** 2", "the noise's share"),
        ("WEIGHT ** 2 + SIGMA ** 2", "(WEIGHT + SIGMA) ** 2", "deviations were added"),
        ("return log_normal", "return -log_normal", "the sign is wrong")],
    "01.posterior": [
        ("1 + WEIGHT", "WEIGHT", "as if the prior were flat"),
        ("1 / precision)", "precision)", "this is the precision"),
        (" / precision, ", ", ", "not multiplied by the variance"),
        ("(x - BIAS)", "x", "the bias is missing"),
        ("1 / precision)", "1 / np.sqrt(precision))", "this is the deviation")],
    "01.elbo": [
        (" - WEIGHT ** 2 * variance / SIGMA ** 2 / 2", "",
         "the share of the spread of z in E[log p(x|z)] is missing"),
        (" - 0.5 * (mu ** 2 + variance - 1 - logvar)", "", "minus the KL term is missing"),
        ("expected - 0.5", "expected + 0.5", "the KL term is added, not subtracted"),
        ("return expected", "return -expected", "ELBO: ")],
    "01.gap": [
        ("0.5 * ", "", "twice what it should be"),
        ("(mu - mean) ** 2 / variance", "0", "the share of the means is missing"),
        (" + ratio - 1 - np.log(ratio)", "", "the share of the variances is missing"),
        ("", "return 0.5 * (mu ** 2 + np.exp(logvar) - 1 - logvar)", "from the prior, not from the posterior"),
        ("return 0.5", "return -0.5", "the sign is wrong")],
    "02.by_hand": [
        ("dpre + 1", "dpre", "the path by which L reads u itself is missing"),
        ("2 * v", "v", "dv: half what it should be"),
        (" * (1 - v * v)", "", "dC: the derivative of tanh is missing"),
        ("du * B", "du * A", "dA: multiplied by the input itself"),
        ('"dv": dv, ', "", "a dict with the names")],
    "02.jacobian": [
        ("np.eye(n)])", "np.eye(n)]).T", "transposed"),
        ("np.eye(n)])", "np.eye(n)[::-1]])", "in reverse order along axis 0"),
        ("", "return vjp(np.ones(n))", "has the shape (3,), should be (3, 3)"),
        ("return np", "return 2 * np", "twice what it should be")],
    "02.softmax_backward": [
        (" - (y * dy).sum()", "", "as if the sum in the denominator did not depend on x"),
        ("return y * (dy - (y * dy).sum())", "return dy * y * (1 - y)", "only the diagonal"),
        ("(y * dy).sum()", "dy.mean()", "the mean of dy"),
        ("return y * ", "return ", "not multiplied by y")],
    "02.quadratic_backward": [
        ("M @ x + M.T @ x", "2 * M @ x", "as if M were symmetric"),
        ("M @ x + M.T @ x", "M @ x", "only the path through the left x"),
        ("return dy * (M", "return (M", "dx: the upstream gradient is not used"),
        ("np.outer(x, x)", "np.diag(x * x)", "only the diagonal of M"),
        ("np.outer(x, x)", "x", "dM has the shape (4,), should be (4, 4)")],
    "03.dense": [
        (" + b", "", "the bias is missing"),
        ("x @ W", "x @ W.T", "W is transposed"),
        ("x @ W", "x * W", "elementwise"),
        ("+ b", "+ b[:, None]", "along the wrong axis")],
    "03.dense_backward": [
        ("dy @ W.T", "dy @ W", "right for W transposed"),
        ("x.T @ dy", "dy.T @ x", "dW: transposed"),
        ("dy.sum(axis=0)", "dy.mean(axis=0)", "B = 3 times too small: a mean over B too many"),
        ("dy.sum(axis=0)", "dy.sum(axis=1)", "db: "),
        ("dy.sum(axis=0)", "dy", "a sum over axis 1 missing?"),
        ("dy @ W.T", "dy", "equal to the upstream gradient"),
        ("return dy @ W.T", "return -dy @ W.T", "the sign is wrong")],
    "03.relu": [
        ("np.maximum(a, 0)", "np.abs(a)", "|a|"),
        ("np.maximum(a, 0)", "np.minimum(a, 0)", "min(a, 0)"),
        ("np.maximum(a, 0)", "a > 0", "the type bool"),
        ("np.maximum(a, 0)", "np.where(a > 0, a.astype(float), 0)", "in float32, relu returns float64")],
    "03.relu_backward": [
        ("(y > 0)", "(dy > 0)", "the mask is taken from the gradient"),
        ("(y > 0)", "(y == 0)", "is a mask inverted?"),
        (" * (y > 0)", "", "a mask is missing"),
        ("dy * ", "1.0 * ", "the upstream gradient is not used")],
    "03.leaky_relu_backward": [
        ("SLOPE * dy", "0", "no leak on the way back"),
        ("dy, SLOPE * dy", "SLOPE * dy, dy", "the two sides are exchanged"),
        ("y > 0", "dy > 0", "the mask is taken from the gradient"),
        ("np.where(y > 0, dy, SLOPE * dy)", "dy", "equal to the upstream gradient")],
    "03.tanh_backward": [
        (" * (1 + y)", "", "a square is missing"),
        ("(1 - y) * (1 + y)", "(1 - np.tanh(y) ** 2)", "is tanh(a) already"),
        ("(1 - y) * (1 + y)", "(1 + y * y)", "a sign"),
        ("return dy", "return -dy", "the sign is wrong"),
        ("dy * ", "", "the upstream gradient is not used")],
    "03.tied_backward": [
        (" + x.T @ dpre", "", "only the path through the decoder"),
        ("dy.T @ h + ", "", "only the path through the encoder"),
        ("tanh_backward(dy @ W, h)", "dy @ W", "the derivative of tanh is missing"),
        ("dy.T @ h", "h.T @ dy", "raises ValueError")],
    "04.softplus": [
        ("", "return np.log(1 + np.exp(t))", "overflows"),
        ("", "return 1 / (1 + np.exp(-t))", "the sigmoid"),
        ("np.maximum(t, 0)", "np.maximum(-t, 0)", "softplus(-t)"),
        ("np.log1p(np.exp(-np.abs(t)))", "np.log(1 + np.exp(-np.abs(t)))", "the digits of e^t are lost")],
    "04.bernoulli_nll": [
        (".sum(axis=1)", ".mean(axis=1)", "D = 4 times too small: a mean over D too many"),
        ("return (", "return -(", "the sign is wrong"),
        (".sum(axis=1)", ".sum(axis=0)", "the shape"),
        ("x * logits", "(1 - x) * logits", "black and white are exchanged"),
        ("softplus(logits) - x * logits", "x * softplus(-logits)", "the term of the black pixels"),
        (".sum(axis=1)", ".mean(axis=1)", "sums to")],
    "04.bernoulli_nll_backward": [
        ("- x)", "- 1) * x", "the gradient of the term of the black pixels"),
        ("dnll[:, None] * ", "", "dnll is not used"),
        ("return dnll", "return -dnll", "the sign is wrong"),
        (" - x)", ")", "x is missing"),
        ("", "e = np.exp(logits); return dnll[:, None] * (e / (1 + e) - x)", "NaN or infinity in 1 of 2")],
    "04.gaussian_nll": [
        ("np.log(2 * np.pi)", "0", "log 2 pi is missing"),
        ("0.5 * (square", "(square", "twice what it should be"),
        ("np.exp(-logvar)", "np.exp(logvar)", "multiplied by the variance"),
        ("x.shape[1] * ", "", "counts once"),
        (".sum(axis=1)", ".mean(axis=1)", "nll: "),
        ("np.log(2 * np.pi)", "0", "sums to")],
    "04.gaussian_nll_backward": [
        ("r * precision", "r", "dmean: the precision is missing"),
        ("mean - x", "x - mean", "dmean: the sign is wrong"),
        ("x.shape[1] - ", "x.shape[1] / 2 - ", "1/4 for the 1/2 in front of D"),
        ("0.5 * ", "", "this is d sigma"),
        ("(x.shape[1] - ", "-(", "the term of the normaliser, D, is missing"),
        (".sum()", ".mean()", "B = 5 times too small")],
    "04.best_logit": [
        ("np.log(m / (1 - m))", "m", "this is the probability"),
        ("m / (1 - m)", "(1 - m) / m", "of black pixels"),
        (" - (1 - m) * np.log(1 - m)", "", "the share of the black pixels is missing"),
        ("np.log(m / (1 - m))", "m / (1 - m)", "the odds")],
    "05.gaussian_kl": [
        ("0.5 * ", "", "twice what it should be, throughout: added twice, or a factor 1/2 forgotten?"),
        ("return 0.5", "return -0.5", "the sign is wrong"),
        (".sum(axis=1)", ".mean(axis=1)", "Z = 3 times too small"),
        ("np.expm1(logvar)", "np.exp(logvar)", "the -1 is missing"),
        ("mu ** 2 + ", "", "the means are missing"),
        ("- logvar", "- logvar / 2", "KL: "),
        ("- logvar", "+ logvar", "wrong sign"),
        (".sum(axis=1)", "", "is a sum over axis 1 missing?"),
        ("mu ** 2 + np.expm1(logvar) - logvar", "(1 + mu ** 2) * np.exp(-logvar) - 1 + logvar",
         "the other direction")],
    "05.gaussian_kl_backward": [
        ("0.5 * ", "", "dlogvar: twice what it should be"),
        ("return dkl", "return -dkl", "dmu: the sign is wrong"),
        ("np.expm1(logvar)", "np.exp(logvar)", "the gradient of -1/2 logvar is missing"),
        ("dkl[:, None] * mu", "mu", "dkl is not used"),
        ("0.5 * np.expm1", "0.25 * np.expm1", "half what it should be"),
        ("return dkl[:, None] * mu, dkl[:, None] * 0.5 * np.expm1(logvar)",
         "return dkl[:, None] * 0.5 * np.expm1(logvar), dkl[:, None] * mu",
         "dmu: equal to dlogvar")],
    "05.log_ratio": [
        (" - eps ** 2", "", "without its eps^2"),
        (" - logvar", "", "without its logarithm of sigma"),
        ("z ** 2 - eps", "-eps", "log p is missing"),
        ("return 0.5", "return -0.5", "log p - log q"),
        ("0.5 * ", "", "twice")],
    "05.kl_to_prior": [
        (" * np.exp(-PRIOR_LOGVAR)", "", "KL: "),
        ("0.5 * ", "", "twice"),
        ("(mu - PRIOR_MEAN) ** 2 * np.exp(-PRIOR_LOGVAR)", "0", "the means are missing"),
        ("", "return 0.5 * (mu ** 2 + np.expm1(logvar) - logvar).sum(axis=1)", "the KL from Normal(0, 1)"),
        ("np.expm1(ratio) -", "np.expm1(ratio) +", "wrong sign")],
    "05.kl_to_prior_backward": [
        (" * np.exp(-PRIOR_LOGVAR)", "", "the precision of the prior is missing"),
        ("mu - PRIOR_MEAN", "mu", "the mean of the prior is missing"),
        ("0.5 * ", "", "twice"),
        (" - PRIOR_LOGVAR)", ")", "for the prior Normal(0, 1)")],
    "06.reparameterize": [
        ("logvar / 2", "logvar", "exp(logvar) is taken for sigma"),
        ("mu + ", "", "mu is missing"),
        (" * eps", "", "the mean of z over its noise"),
        ("np.exp(logvar / 2) * ", "", "sigma is missing"),
        ("mu + ", "mu - ", "eps has the wrong sign"),
        ("np.exp(logvar / 2) * eps", "0 * eps", "does not depend on eps")],
    "06.reparameterize_backward": [
        (" / 2) / 2", " / 2)", "dlogvar: twice"),
        (" * eps", "", "eps is missing"),
        ("* np.exp(logvar / 2) / 2", "", "the gradient of sigma"),
        ("return dz,", "return dz * eps,", "dmu: "),
        ("np.exp(logvar / 2)", "np.exp(logvar)", "the variance stands")],
    "06.score_estimates": [
        ("np.exp(-logvar)", "np.exp(-logvar / 2)", "the score has its square"),
        ("return f *", "return -f *", "the sign is wrong"),
        ("f * (z - mu)", "(z - mu)", "f is missing"),
        ("(z - mu)", "z", "z stands where"),
        ("np.exp(-logvar)", "1", "not divided by the variance")],
    "06.variances": [
        (" - (2 * MU) ** 2", "", "this is its mean square"),
        ("18 *", "6 *", "the score-function estimate"),
        ("4 * SIGMA ** 2", "SIGMA ** 2", "this is the variance of z"),
        (") / SIGMA ** 2 -", ") -", "not by the score eps / sigma"),
        ("return score, 4 * SIGMA ** 2", "return 4 * SIGMA ** 2, score", "the variance of the other one")],
    "06.exponential_draw": [
        ("/ rate", "* rate", "multiplied by the rate"),
        ("return -np", "return np", "the sign"),
        (" / rate", "", "the rate is missing"),
        ("np.log1p(-u)", "np.log(u)", "at u = 0, which a generator can return: "),
        ("-np.log1p(-u) / rate", "1 - np.exp(-rate * u)", "not its inverse")],
    "06.exponential_backward": [
        (" / rate)", ")", "a division by the rate is missing"),
        ("float(-", "float(", "the sign is wrong"),
        (".sum()", ".mean()", "N = 6 times too small"),
        ("dz * ", "", "dz is not used")],
    "07.forward": [
        ("np.mean(", "np.sum(", "loss: a sum over the batch"),
        ("beta * ", "", "beta is not used"),
        (" + beta", " - beta", "the KL term is subtracted"),
        ('reparameterize(f["mu"], f["logvar"], eps)', 'f["mu"]', "z: mu is decoded"),
        ('relu(dense(f["z"]', '(dense(f["z"]', "h_dec: the ReLU is missing"),
        ('params["logvar.W"], params["logvar.b"]', 'params["mu.W"], params["mu.b"]',
         "logvar: the heads are exchanged"),
        ('    f["nll"] =', '    f["NLL"] =', "KeyError")],
    "07.backward": [],      # below: its pieces stand in a helper
    "07.image_gradient": [
        (' - f["logits"] / len(x)', "", "only the path through the encoder"),
        ('dpre @ params["encoder.W"].T ', "", "only the path by which the nll itself reads x"),
        (" / len(x)", "", "dx: "),
        ('- f["logits"]', '+ f["logits"]', "has the wrong sign")],
    "08.adam_step": [
        ("m / (1 - beta1 ** t)", "m", "the bias of m is not corrected"),
        ("v / (1 - beta2 ** t)", "v", "the bias of v is not corrected"),
        ("(np.sqrt(v_hat) + eps)", "np.sqrt(v_hat + eps)", "eps is under the root"),
        ("theta - lr", "theta + lr", "uphill"),
        ("** t", "", "without its power of t"),
        ("grad ** 2", "np.abs(grad)", "v after step 1: |g| for g^2"),
        ("(1 - beta1) * grad\n", "grad\n", "1 - beta1 is missing"),
        ("beta1 * m", "beta2 * m", "m after step 2"),
        ("m = beta1", "m[...] = beta1", "changes its argument m")],
    "08.two_steps": [
        (" / 0.75, ", ", ", "the bias of m is not corrected"),
        (" / 0.4375", "", "the bias of v is not corrected"),
        ("m_hat / np.sqrt(v_hat)", "m_hat / v_hat", "the root is missing"),
        ("float(-np.sign(g1))", "float(np.sign(g1))", "step 1: the sign is wrong")],
    "08.cosine_lr": [
        ("min(1, t / steps)", "t / steps", "rises again"),
        ("lr / 2 *", "lr *", "lr is not halved"),
        ("1 + np", "1 - np", "at step 0 of 50"),
        ("lr / 2 * (1 + np.cos(np.pi * min(1, t / steps)))", "lr * (1 - t / steps)", "a straight line"),
        ("np.pi", "np.pi / 2", "step 50 of 50")],
    "08.amsgrad_step": [
        ("np.sqrt(largest)", "np.sqrt(v)", "divided by the root of v"),
        ("np.maximum(largest, v)", "v", "this is v"),
        ("np.maximum(largest, v)", "np.full(v.shape, max(largest.max(), v.max()))", "one number for all entries"),
        ("theta - lr", "theta + lr", "uphill"),
        ("m, v, largest", "m, largest, largest", "the largest v is stored as v")],
    "09.central_difference": [
        ("f(theta - step)", "f(theta)", "on one side only, divided by 2 h"),
        ("(2 * h)", "h", "twice"),
        ("(f(theta + step) - f(theta - step)) / (2 * h)", "(f(theta + step) - f(theta)) / h", "on one side only"),
        ("step[index] = h", "step[:] = h", "all entries are moved at once"),
        (" / (2 * h)", "", "the gradient: ")],
    "09.two_step_sizes": [
        (" + (near - far) / (RATIO ** 2 - 1)", "", "the error in h^2 is still there"),
        ("RATIO ** 2 - 1", "RATIO - 1", "for an error in h, not in h^2"),
        ("return near + (near - far) / (RATIO ** 2 - 1)", "return (near + far) / 2", "the mean of the two"),
        ("return near", "return far", "the gradient: ")],
    "09.complex_step": [
        ("1e-30", "1e-3", "right to"),
        (".imag / 1e-30", ".imag", "not divided by the step"),
        (".imag", ".real", "the real part"),
        ("step[index] = 1e-30j", "step[:] = 1e-30j", "all entries are moved at once")],
    "09.relative_error": [
        ("np.maximum(np.abs(numeric), np.sqrt(np.mean(numeric ** 2)))", "np.abs(numeric)",
         "relative to the numeric entry"),
        (" / np.maximum(np.abs(numeric), np.sqrt(np.mean(numeric ** 2)))", "", "this is the absolute error"),
        ("np.abs(analytic - numeric)", "(analytic - numeric)", "the sign of the error is kept"),
        ("np.maximum(", "np.minimum(", "the smaller of the two")],
    "09.gradient_is_right": [
        ("", "return True", "it says True to a gradient with the wrong sign"),
        ("", "return False", "it says False to the right gradient"),
        ("", "return bool(np.allclose(gradient, complex_step(loss, theta), rtol=1e-7, atol=1e-5))",
         "multiplied by 1e-08"),
        ("< 1e-10", "< 1e-2", "off by 1e-5 of itself"),
        ("bool(np.all(relative_error(gradient, complex_step(loss, theta)) < 1e-10))",
         "not bool(np.any(relative_error(gradient, complex_step(loss, theta)) > 1e-10))",
         "with NaN in it")],
    "09.sampler_is_honest": [
        ("", "return True", "it says True to one that takes exp(logvar) for sigma"),
        ("", "return False", "it says False to an honest sampler"),
        ("np.all(np.abs(u.mean(axis=0)) < 5 / np.sqrt(n))", "True", "off by 0.2 sigma"),
        ("np.exp(logvar / 2)", "np.exp(logvar)", "it says False to an honest sampler"),
        ("n = 20000", "n = 10 ** 9", "ValueError")],
    "train.initialize": [
        ("np.sqrt(gain / max(n_in, n_out))", "gain / max(n_in, n_out)", "v is taken for sigma"),
        ("gain / max", "1 / max", "as if g were 1"),
        (".astype(np.float32)", "", "should be float32"),
        ("scale * rng.standard_normal((n_in, n_out))", "np.zeros((n_in, n_out))", "all units stay alike"),
        ("rng.standard_normal((n_in", "np.random.default_rng(0).standard_normal((n_in", "start alike")],
    "train.batches": [
        ("rng.permutation(n)", "np.arange(n)", "never shuffled"),
        ("rng.permutation(n)", "rng.integers(0, n, n)", "twice"),
        ("range(0, n, size)", "range(0, n - size + 1, size)", "the last, smaller batch is dropped"),
        ("rng.permutation(n)", "np.random.default_rng(0).permutation(n)", "rng is not used"),
        ("start + size]", "start + size - 1]", "of 50 images come")]}


@pytest.mark.every(4)
@pytest.mark.parametrize("exercise, part, slip", [
    pytest.param(exercise, part, slip, id=f"{exercise.key}.{part.name}-{i}")
    for exercise, part in QUICK for i, slip in enumerate(SLIPS[f"{exercise.key}.{part.name}"])])
def test_a_slip_is_named(exercise, part, slip, student):
    old, new, says = slip
    try:
        told = verdict(exercise, part, student(exercise, replaced(exercise, part, old, new)))
    except Exception as error:      # it raises: then that is the verdict
        told = child.told(error, HERE, exercise.file)[1]
    assert says in told, told


BACKWARD = [
    ("dmu_z + dmu_kl", "dmu_z", "the gradient of mu.b: the part that comes from the reconstruction alone"),
    ("dlogvar_z + dlogvar_kl", "dlogvar_kl", "the gradient of logvar.b: the part that comes from the KL term alone"),
    ("dh_mu + dh_logvar", "dh_mu", "the gradient of encoder.b: the path through mu alone"),
    ("beta * share", "share", "the KL term counts as if beta were 1"),
    ("beta * share", "beta * share * len(x)", "from the KL term counts as a sum over the batch"),
    ("beta * share", "-beta * share", "from the KL term has the wrong sign"),
    ("1 / len(x), x.dtype", "1.0, x.dtype",
     "the gradient of output.b: B = 4 times too large: is a mean over B missing?"),
    ('relu_backward(dh_dec, f["h_dec"])', "dh_dec", "the gradient of decoder.b: "),
    ('return grads, relu_backward(dh_mu + dh_logvar, f["h_enc"])', "return grads, dh_mu + dh_logvar",
     "the gradient of encoder.b: the derivative of the ReLU is missing"),
    ("(dmu_z + dmu_kl,", "(dlogvar_z + dlogvar_kl,", "the gradient of mu.b: equal to the gradient of logvar.b"),
    ('grads["output.b"] = dense', "_ = dense", "returns no gradient of output.b"),
    ("x.T @ dpre", "dpre.T @ x", "encoder.W has the shape (5, 6), should be (6, 5): transposed?")]


@pytest.mark.every(4)
@pytest.mark.parametrize("slip", BACKWARD, ids=[slip[1] for slip in BACKWARD])
def test_a_slip_in_the_whole_backward_pass_is_named(slip, student):
    exercise, part = next(pair for pair in PARTS if pair[1].name == "backward")
    text = exercise.text_for(0, HERE / "solutions")
    assert text.count(slip[0]) == 1
    assert slip[2] in verdict(exercise, part, student(exercise, text.replace(slip[0], slip[1])))


def test_every_part_has_three_slips():
    assert set(SLIPS) == {f"{exercise.key}.{part.name}" for exercise, part in QUICK}
    assert all(len(slips) >= 3 for name, slips in SLIPS.items() if name != "07.backward")


@pytest.mark.every(3)
@each_part
def test_what_is_no_answer_gets_one_verdict(exercise, part, student):
    one = student(exercise)
    right = getattr(one.module, part.name)
    for value, says in ((None, "returns None"), ("text", ""), (np.ones((2, 2), complex), ""), ([], "")):
        setattr(one.module, part.name, lambda *arguments, **named: value)
        told = verdict(exercise, part, one)
        assert told and says in told and "\n" not in told

    def spoilt(*arguments, **named):
        value = right(*arguments, **named)
        return tuple(one * np.nan for one in value) if isinstance(value, tuple) else value * np.nan
    if part.name not in ("by_hand", "forward", "backward", "initialize", "batches", "gradient_is_right",
                         "sampler_is_honest"):
        setattr(one.module, part.name, spoilt)
        assert "holds NaN or infinity" in verdict(exercise, part, one) or part.name == "softplus"


# --- a student's code in its own process ---

@pytest.fixture
def folder(tmp_path, capsys):
    course.start(tmp_path / "mine", 7)
    capsys.readouterr()
    return tmp_path / "mine"


def solve(folder, *keys, seed=7):
    for key in keys:
        exercise = EXERCISES[key]
        (folder / exercise.file).write_text(exercise.text_for(seed, HERE / "solutions"))


def write(folder, name, body):
    """Exercise 3 solved, with another body in one function."""
    exercise = EXERCISES["03"]
    part = next(part for part in exercise.parts if part.name == name)
    text = replaced(exercise, part, "", body)
    (folder / exercise.file).write_text(re.sub("^SLOPE.*$", f"SLOPE = {exercise.numbers_of(7)['SLOPE']}", text,
                                               flags=re.MULTILINE))


@pytest.mark.every(5)
@pytest.mark.parametrize("body, verdict, says", [
    ("while True: pass", "ERROR", "not done after 2 seconds: a loop without an end?"),
    ("import os; os._exit(3)", "ERROR", "ends the whole process, with exit code 3"),
    ("raise SystemExit(0)", "ERROR", "raises SystemExit: 0 (ex03_dense.py, line "),
    ("return 1 / 0", "ERROR", "raises ZeroDivisionError: division by zero (ex03_dense.py, line "),
    ("return relu(a)", "ERROR", "raises RecursionError"),
    ("return input()", "ERROR", "raises EOFError"),
    ("a[...] = np.maximum(a, 0); return a", "WRONG", "relu changes its argument a"),
    ("print('x' * 10000); return np.maximum(a, 0)", "right", "")], ids=lambda value: None)
def test_a_function_that_misbehaves_gets_one_verdict_and_the_others_theirs(body, verdict, says, folder, monkeypatch):
    monkeypatch.setattr(parent, "LIMIT", 2.0)
    write(folder, "relu", body)
    verdicts, printed, _ = parent.grade(EXERCISES["03"], folder, 7)
    found = {one.part: one for one in verdicts}
    assert found["relu"].verdict == verdict and says in found["relu"].says and "\n" not in found["relu"].says
    assert {one.verdict for one in verdicts if one.part != "relu"} == {"right"}
    assert (printed > 0) == body.startswith("print")


@pytest.mark.every(4)
@pytest.mark.parametrize("text, says", [
    ("def dense(:\n", "Python cannot read ex03_dense.py, line 1"),
    ("while True: pass\n", "reading ex03_dense.py: not done"),
    ("import sys; sys.exit()\n", "raises SystemExit"), ("import nowhere\n", "raises ModuleNotFoundError"),
    ("SLOPE = 0.5\n", "SLOPE is 0.5, and your number is ")])
def test_a_file_that_cannot_be_read_is_told_once(text, says, folder, monkeypatch, capsys):
    monkeypatch.setattr(parent, "LIMIT", 2.0)
    (folder / "ex03_dense.py").write_text(text)
    assert not course.check(EXERCISES["03"], folder)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and says in out[1] and out[2].startswith("0 of 7 right")


def test_a_wrong_earlier_exercise_is_named(folder, capsys):
    solve(folder, "03", "04", "05", "06", "07")
    path = folder / "ex05_kl.py"
    path.write_text(path.read_text().replace("0.5 * np.expm1(logvar)\n", "np.expm1(logvar)\n"))
    assert not course.check(EXERCISES["07"], folder)
    assert "It uses gaussian_kl_backward in ex05_kl.py: not right yet" in capsys.readouterr().out
    (folder / "ex03_dense.py").write_text(EXERCISES["03"].text_for(7))
    course.check(EXERCISES["07"], folder)
    assert "blank  forward" in (out := capsys.readouterr().out) and "in ex03_dense.py, line" in out


# --- the program ---

def program(*arguments):
    return run_script(HERE / "course.py", *arguments)


def test_start_check_and_solve(tmp_path, monkeypatch):
    result = program("start", tmp_path / "mine", "--seed", "4")
    assert (result.returncode, result.stderr) == (0, "") and "10 files written" in result.stdout
    mine = tmp_path / "mine"
    assert {path.name for path in mine.iterdir()} == {"course.json", *(one.file for one in EXERCISES.values())}
    result = program("check", "5", mine)
    assert result.returncode == 1 and result.stdout.count("  blank ") == 5 and "0 of 5 right" in result.stdout
    solve(mine, "05", seed=4)
    monkeypatch.chdir(mine)
    result = program("check", "05")
    assert (result.returncode, result.stderr) == (0, "") and "5 of 5 right" in result.stdout


def test_a_verdict_comes_with_a_hint_and_without_the_solution(folder, capsys):
    write(folder, "dense_backward", "return dy @ W.T, dy.T @ x, dy.sum(axis=0)")
    assert not course.check(EXERCISES["03"], folder)
    out = capsys.readouterr().out
    assert re.search(r"WRONG  dense_backward +D1.3, D1.4, D1.5 +dW: transposed\n +hint: Each gradient has", out)
    assert "6 of 7 right" in out


def test_start_never_overwrites(folder, capsys):
    (folder / "ex03_dense.py").write_text("my own\n")
    (folder / "ex04_likelihood.py").unlink()
    course.start(folder, None)
    assert (folder / "ex03_dense.py").read_text() == "my own\n" and (folder / "ex04_likelihood.py").exists()
    assert "1 files written" in capsys.readouterr().out
    assert (folder / "ex04_likelihood.py").read_text() == EXERCISES["04"].text_for(7)


def test_progress_counts(folder, capsys):
    solve(folder, "01", "08")
    assert not course.progress(folder)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(EXERCISES)
    assert [re.search(r"(\d+) of \d", line)[1] for line in lines[1:-1]] == list("4000000400")
    left = sum(one.minutes for key, one in EXERCISES.items() if key not in ("01", "08"))
    assert lines[-1] == f"About {left} minutes are left."


def test_progress_remembers_a_training_until_a_file_changes(folder, capsys, monkeypatch):
    right = parent.Verdict
    monkeypatch.setattr(course, "grade", lambda exercise, folder, seed, say: (
        [right(part.name, "right", "110.9 nats") for part in exercise.parts], 0, []))
    monkeypatch.setattr(course, "grade_all", lambda folder, seed: {key: [
        right(part.name, "later" if part.name in exercise.slow else "right", "") for part in exercise.parts]
        for key, exercise in EXERCISES.items()})
    assert course.check(EXERCISES["train"], folder) and course.progress(folder)
    assert "All exercises are right." in (out := capsys.readouterr().out) and "110.9 nats" in out.splitlines()[-2]
    (folder / "ex08_adam.py").write_text("changed\n")
    assert not course.progress(folder)


@pytest.mark.parametrize("arguments, says", [
    (["check", "10", "."], "01, 02"), (["check", "three", "."], "'three'"),
    (["check", "03", "nowhere"], "course.py start"), (["check", "01", "broken"], "cannot be read"),
    (["start", "mine", "--seed", "-1"], "'-1'"), (["start", "mine", "--seed", "1.5"], "'1.5'"),
    (["lab", "--cases", "0"], "'0'"), (["progress", "nowhere"], "nowhere"), (["start", "file"], "is a file"),
    (["start", "other"], "ex03_dense.py"), (["start", "seven", "--seed", "8"], "--seed 7"),
    (["solve"], "solve"), ([], "COMMAND"), (["check", "03", "seven"], "holds no ex03_dense.py")])
def test_what_is_no_command_gets_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for name, file, text in (("other", "ex03_dense.py", "mine"), ("seven", "course.json", '{"seed": 7}'),
                             ("broken", "course.json", "{")):
        Path(name).mkdir()
        Path(name, file).write_text(text)
    monkeypatch.setattr(sys, "argv", ["course.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        course.main()
    captured = capsys.readouterr()
    assert ended.value.code == 2 and captured.err.count("\n") == 1 and says in captured.err


# --- the lab ---

@pytest.mark.every(13)
@pytest.mark.parametrize("name", lab.CASES)
def test_a_case_of_the_lab_looks_fine_and_is_caught(name, monkeypatch):
    exhibit = lab.exhibit_of(name)
    found = lab.findings(exhibit)
    assert found[exhibit.caught_by] and not all(found.values())
    assert bool(found["complex step"]) == (exhibit.seen == "yes")
    assert sum(len(line) for line in lab.code(exhibit)) < 2000
    monkeypatch.setattr(lab, "EPOCHS", 3)
    with lab.planted(exhibit), np.errstate(all="ignore"):
        losses = lab.losses(exhibit)
    assert np.isfinite(losses).all() and sorted(losses, reverse=True) == losses and losses[-1] < 0.9 * losses[0]


def test_the_lab_asks_runs_and_tells(monkeypatch, capsys):
    monkeypatch.setattr(lab, "EPOCHS", 1)
    monkeypatch.setattr(lab, "IMAGES", 200)
    monkeypatch.setattr(lab, "CASES", ("KL: 1/2 forgotten in dlogvar",))
    answers = iter(["h", "B"])
    assert lab.run(0, 1, lambda prompt: next(answers)) == 0
    out = capsys.readouterr().out
    asked, told = out.split("They are run now:")
    assert "np.expm1(logvar)" in asked and "0.5" not in asked.split("_backward")[1] and "forgotten" not in asked
    assert "Answer with one letter" in asked and "-> sampler variance" in told and "should say" in told
    assert "0 of 1 bugs" in out and "No gradient check" not in out
    assert lab.run(0, 1, lambda prompt: "a") == 0 and "1 of 1 bugs" in capsys.readouterr().out

    def nothing(prompt):
        raise EOFError
    assert lab.run(0, 1, nothing) == 1 and "the lab ends here" in capsys.readouterr().out


# --- pages ---

def test_the_table_of_the_readme_is_that_of_the_program():
    rows = [f"| {one.key} | `{one.file}` | {one.title} | {len(one.parts)} | {one.minutes} | "
            + " ".join(str(sum(part.difficulty == level for part in one.parts)) for level in (1, 2, 3)) + " |"
            for one in EXERCISES.values()]
    text = (HERE / "README.md").read_text()
    assert all(row in text for row in rows), "\n".join(rows)
    assert f"{sum(one.minutes for one in EXERCISES.values())} minutes" in text


def test_the_minutes_of_a_week_are_the_sum_of_its_functions():
    minutes = {part.name: part.minutes for _, part in PARTS}
    every = {exercise.key: exercise.minutes for exercise in EXERCISES.values()}
    week = (every["03"] - minutes["tied_backward"] + every["04"] - minutes["best_logit"]
            + sum(minutes[name] for name in ("gaussian_kl", "gaussian_kl_backward", "reparameterize",
                                             "reparameterize_backward", "forward", "backward")))
    two = week + every["01"] + minutes["by_hand"] + minutes["adam_step"] + every["train"]
    text = (HERE / "lecturers.md").read_text()
    for label, expected in (("one week", week), ("two weeks", two), ("four weeks", sum(every.values()))):
        assert f"| {label}, {expected} minutes |" in text, expected


@pytest.mark.parametrize("page", ["README.md", "lecturers.md"])
def test_links_lead_somewhere_and_commands_exist(page):
    text = (HERE / page).read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert links and all((HERE / link).exists() for link in links if not link.startswith("https://"))
    commands = re.findall(r"^python examples/exercises/course.py (\w+)(?: (\w+))?", text, re.MULTILINE)
    assert commands and {name for name, _ in commands} <= {"start", "check", "progress", "lab"}
    assert {key for name, key in commands if name == "check"} <= set(EXERCISES)


# --- the whole set ---

def test_a_training_that_goes_wrong_ends_early(student, monkeypatch):
    """On few images: what is judged is the number of epochs and the losses, here those of a stand-in."""
    images = np.zeros((20, 784), np.uint8)
    monkeypatch.setattr("npvae.load_mnist", lambda: (images, None, images, None))
    one, losses, lines = student(EXERCISES["train"]), [], []
    monkeypatch.setattr(training, "test_loss", lambda params, images, rng: losses.pop(0))
    for sequence, says in (([150.0, np.nan], "nan after epoch 2"), ([150.0, 200.0], "does not learn"),
                           ([150.0] * 10, "something is amiss"), ([150.0] * 9 + [90.0], "too good")):
        losses[:] = sequence
        with pytest.raises(Wrong, match=says):
            training.train(one, np.random.default_rng(0), lines.append)
    losses[:] = [150.0] * 9 + [111.0]
    assert training.train(one, np.random.default_rng(0), lines.append) == 111.0 and "epoch 10 of 10" in lines[-1]
    monkeypatch.setattr(training, "EPOCHS", 3)
    for body, says in (("return {}", "returns a dict"), ("yield initialize(rng)", "yields 1 times"),
                       ("yield 5", "dict of")):
        exercise, part = next(pair for pair in PARTS if pair[1].name == "train")
        losses[:] = [111.0] * 3
        with pytest.raises(Wrong, match=says):
            training.train(student(exercise, replaced(exercise, part, "", body)), np.random.default_rng(0))


@pytest.mark.slow
def test_the_solutions_end_in_a_vae_at_110_to_112_nats(folder, capsys):
    """`course.py check` on everything, training included."""
    solve(folder, *EXERCISES)
    assert all(course.check(exercise, folder) for exercise in EXERCISES.values())
    out = capsys.readouterr().out
    loss = float(re.search(r"right +train .* ([\d.]+) nats", out)[1])
    print(out)
    assert 110 <= loss <= 112 and json.loads((folder / "course.json").read_text())["trained"]
    assert course.progress(folder)
