"""The bug museum, examples/bug_museum.py: every exhibit is caught, at every scale of the loss; a gradient check sees
what it is said to see and no more; the intact code passes; an exhibit leaves nothing behind.
"""
import inspect
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from npvae.gradcheck import CENTRAL_STEP, check_gradients

import bug_museum
from museum import checks
from museum.exhibit import NO, NOT_APPLICABLE, RELU, YES, Outdated, planted

ROOT = Path(__file__).parents[2]
EXHIBITS = {exhibit.name: exhibit for room in bug_museum.ROOMS.values() for exhibit in room}
CODE = {one: one.__code__ for exhibit in EXHIBITS.values() for function, _, _ in exhibit.changes
        for one in [inspect.unwrap(function)]}
ANY = EXHIBITS["KL: the gradient's sign"]


def intact():
    return all(function.__code__ is code for function, code in CODE.items())


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert intact()


# --- the table ---

def test_the_collection():
    rooms = [exhibit for room in bug_museum.ROOMS.values() for exhibit in room]
    assert len(EXHIBITS) == len(rooms) >= 60 and len(bug_museum.ROOMS) == 8
    assert sum(not exhibit.also for exhibit in rooms) >= 60      # of one line
    assert len({(exhibit.changes, exhibit.setting) for exhibit in rooms}) == len(rooms)
    assert sum(exhibit.seen == NO for exhibit in rooms) >= 10
    for exhibit in rooms:
        assert exhibit.seen in (YES, NO, NOT_APPLICABLE), exhibit.name
        assert (exhibit.seen == YES) == (exhibit.caught_by == "complex step"), exhibit.name
        assert all(right != wrong and "\n" not in wrong for right, wrong in exhibit.lines()), exhibit.name


def test_every_check_has_a_negative_control():
    assert {exhibit.caught_by for exhibit in EXHIBITS.values()} == set(bug_museum.CHECKS)


@pytest.mark.every(16)
@pytest.mark.parametrize("name", EXHIBITS)
def test_every_exhibit_is_caught_where_the_loss_is_small(name):
    """And the complex step passes on those that no gradient check can see.  (loss x 1: the program itself.)"""
    result = bug_museum.examine(EXHIBITS[name], 1e-6)
    assert result.found and result.verdict == "caught"
    assert bool(result.gradient) == (EXHIBITS[name].seen == YES), result.gradient


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 1e-4, 1e-6])
def test_the_intact_code_passes_every_check(scale):
    found = bug_museum.intact(list(EXHIBITS.values()), scale)
    assert {check for check, _ in found} == set(bug_museum.CHECKS) and len(found) > 30
    assert not any(found.values()), {pair: text for pair, text in found.items() if text}


@pytest.mark.every(9)
@pytest.mark.parametrize("name", ["heads swapped", "KL: 1/4 for 1/2 in dlogvar", "Bernoulli: epsilon in the gradient",
                                  "ReLU: mask forgotten", "dW transposed", "IWAE: weights forgotten",
                                  "exp(logvar) taken for sigma", "IWAE: weights softmax(+loss)", None])
def test_the_verdict_does_not_depend_on_the_size_of_the_loss(name):
    """loss x 10^k, k = -8, -4 .. 8, with the same words; None is the intact code."""
    setting = EXHIBITS[name].setting if name else ANY.setting
    if name:
        with planted(EXHIBITS[name]):
            found = [checks.complex_step(replace(setting, scale=10.0 ** k)) for k in range(-8, 9, 4)]
    else:
        found = [checks.complex_step(replace(setting, scale=10.0 ** k)) for k in range(-8, 9, 4)]
    assert len(set(found)) == 1, found
    assert bool(found[0]) == (name is not None and EXHIBITS[name].seen == YES)


# --- the same slips by central differences, in real numbers only ---

@cache
def central_on_the_intact_code(setting):
    return central(setting)


def central(setting):
    """Is the gradient right, by central differences?"""
    vae, moved = setting.model(), setting.model()
    x, eps = setting.images_and_noise()
    _, gradients = vae.loss_and_gradients(x, eps, setting.objective, checks.STEP)

    def loss(parameters):
        return moved.loss(x, eps, setting.objective, checks.STEP, parameters=parameters)
    return check_gradients(loss, gradients, vae.parameters, "central").ok


@pytest.mark.every(6)
@pytest.mark.parametrize("name", [name for name, exhibit in EXHIBITS.items() if exhibit.seen == YES][::4])
def test_central_differences_find_the_same(name):
    exhibit = EXHIBITS[name]
    assert central_on_the_intact_code(exhibit.setting)
    with planted(exhibit):
        assert not central(exhibit.setting)


def test_no_rectifier_stands_at_its_kink():
    vae, (x, eps) = RELU.model(), RELU.images_and_noise()
    vae.loss_and_gradients(x, eps)
    a, _ = vae.passes(1, 1)
    for layer, value in ((vae.encoder.layers[0], a.encoder[0]), (vae.decoder.layers[0], a.decoder[0])):
        assert np.abs(value @ vae.parameters[layer.W] + vae.parameters[layer.b]).min() > 100 * CENTRAL_STEP


# --- planting ---

def test_a_mistake_lasts_as_long_as_it_is_planted():
    with pytest.raises(ZeroDivisionError):
        with planted(ANY):
            assert not intact()
            raise ZeroDivisionError
    assert intact()


@pytest.mark.every(5)
@pytest.mark.parametrize("should", ["dmu[...] = 2 * dkl", "dkl", "upstream * mu * mu", "(dmu, dlogvar)", "mu.dkl"])
def test_an_exhibit_that_does_not_fit_the_code_is_refused(should, monkeypatch, capsys):
    """In one line that says where to mend it; in the table it is one row, and the others are shown."""
    exhibit = replace(ANY, also=((*ANY.changes[0][:1], should, "x"),))
    with pytest.raises(Outdated, match="exhibit .* gaussian_kl_backward should hold .* once") as caught:
        with planted(exhibit):
            pass
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(bug_museum, "ROOMS", {"KL": [exhibit, EXHIBITS["KL: the sign"]]})
    for flags in ((), ("--only", exhibit.name)):
        code, out = run(monkeypatch, capsys, *flags)
        assert code == 1 and "OUTDATED" in out and str(caught.value) in out
        assert ("1 caught" in out) == ("--only" not in flags)


def reworded(dx, dout, x, scale):
    """dx = dout * scale * x, which says the same."""
    first = scale[
        :, None]      # a comment: dout * scale * x
    dx[...] = (
        dout *
        first
        * x.T.T)


def test_an_exhibit_finds_its_line_in_other_words():
    """However it is broken and spaced; and a local variable may be called anything else, which the wrong line then
    calls it, too."""
    exhibit = replace(ANY, function=reworded, should="dout * factor * x.T.T", says="factor * dout.x * factor ** 2")
    assert exhibit.lines() == [("dout * first * x.T.T)", "first * dout.x * first ** 2)")]      # of the lines it is in
    exhibit = replace(exhibit, says="2 * factor * x")
    dx = np.empty((2, 3))
    with planted(exhibit):
        reworded(dx, None, np.ones((2, 3)), np.array([1.0, 2]))
    assert dx.tolist() == [[2, 2, 2], [4, 4, 4]]
    for names in ("dout * x * x.T.T", "factor * factor * x.T.T", "dout * factor * factor.T.T"):
        with pytest.raises(Outdated, match="0 times"):
            replace(exhibit, should=names).lines()
    result = bug_museum.examine(replace(ANY, should="dkl * mu", says="upstream * mu"))
    assert result.verdict == "OUTDATED" and "'upstream' is not defined" in result.outdated


# --- the program ---

def run(monkeypatch, capsys, *flags):
    monkeypatch.setattr(sys, "argv", ["bug_museum.py", *flags])
    code = bug_museum.main()
    return code, capsys.readouterr().out


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 20])
def test_the_table(step, monkeypatch, capsys):
    """Loss x 1: caught, and seen or not seen by a gradient check as stated."""
    monkeypatch.setattr(bug_museum, "ROOMS", {room: shown[::step] for room, shown in bug_museum.ROOMS.items()})
    names = [exhibit.name for shown in bug_museum.ROOMS.values() for exhibit in shown]
    code, out = run(monkeypatch, capsys)
    rows = [line for line in out.splitlines() if line.startswith("  ")]
    assert code == 0 and "The intact code passes" in out
    assert [row[2:52].strip() for row in rows] == names
    assert all(EXHIBITS[row[2:52].strip()].caught_by in row and " caught " in row for row in rows)
    assert f"{len(names)} exhibits, {len(names)} caught" in out
    assert all(room in out for room in bug_museum.ROOMS) and max(map(len, out.splitlines())) <= 190


def test_the_table_as_markdown(monkeypatch, capsys):
    few = {"One room": [EXHIBITS["exp(logvar) taken for sigma"], EXHIBITS["Adam: |g| for g^2"]]}
    monkeypatch.setattr(bug_museum, "ROOMS", few)
    code, out = run(monkeypatch, capsys, "--markdown", "--scale", "1e-6")
    rows = [line.replace("\\|", "") for line in out.splitlines() if line.startswith("| ")]
    assert code == 0 and len(rows) == 3 and {row.count("|") for row in rows} == {9} and "loss x 1e-06" in out
    assert "`z[...] = mu[:, None, :] + np.exp(logvar)[:, None, :] * eps`" in rows[1] and "three libraries" in rows[1]


def test_one_exhibit_at_length(monkeypatch, capsys):
    code, out = run(monkeypatch, capsys, "--only", "heads swapped")
    assert code == 0 and "npvae.model.vae.VAE.backward" in out and "equal to the gradient of mu.b" in out
    assert "grads, d.logvar, a.logvar" in out and "grads, d.mu, a.logvar" in out


@pytest.mark.every(2)
@pytest.mark.parametrize("broken, words", [
    ({"says": ANY.should}, "ESCAPED"), ({"says": ANY.should, "seen": NO}, "ESCAPED"),
    ({"seen": NO}, "NOT AS STATED"), ({"caught_by": "score"}, "ESCAPED"),
    ({"seen": YES, "caught_by": "Adam by hand", **{name: getattr(EXHIBITS["Adam: uphill"], name)
                                                   for name in ("function", "should", "says")}}, "NOT AS STATED")])
def test_the_program_fails_when_a_bug_escapes(broken, words, monkeypatch, capsys):
    monkeypatch.setattr(bug_museum, "ROOMS", {"One room": [replace(ANY, **broken)]})
    code, out = run(monkeypatch, capsys)
    assert code == 1 and words in out and "1 exhibits, 0 caught" in out


def test_the_program_fails_on_a_false_alarm(monkeypatch, capsys):
    monkeypatch.setattr(bug_museum, "ROOMS", {"One room": [EXHIBITS["Adam: uphill"]]})
    monkeypatch.setitem(bug_museum.CHECKS, "Adam by hand", lambda setting: "something")
    code, out = run(monkeypatch, capsys)
    assert code == 1 and "FALSE ALARM on the intact code: Adam by hand" in out


@pytest.mark.parametrize("page", ["README.md", "examples/derivations/09-checking.md"])
def test_a_page_says_how_many_there_are_and_how_many_no_gradient_check_sees(page):
    text, unseen = (ROOT / page).read_text(encoding="utf-8"), sum(one.seen == NO for one in EXHIBITS.values())
    assert re.search(rf"\b{len(EXHIBITS)}\b.{{,20}}mistakes.{{,60}}\b{unseen}\b", text, re.DOTALL)


@pytest.mark.parametrize("flags, words", [
    (["--only", "heads"], "names no exhibit; similar: heads swapped"), (["--scale", "0"], "more than 0, got '0'"),
    (["--scale", "nan"], "more than 0, got 'nan'"), (["--scale", "x"], "more than 0, got 'x'")])
def test_wrong_flags_are_one_line(flags, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bug_museum.py", *flags])
    with pytest.raises(SystemExit) as stop:
        bug_museum.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1 and words in error
