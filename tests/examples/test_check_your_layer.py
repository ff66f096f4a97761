"""The lesson in examples/check_your_layer.py: it runs, says what it promises, and its exit code can fail."""
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from npvae.testing import assert_gradients, inputs
from scripts import run_script

ROOT = Path(__file__).parents[2]
PATH = ROOT / "examples" / "check_your_layer.py"
_spec = importlib.util.spec_from_file_location("check_your_layer", PATH)
lesson = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lesson)

LAYER_NORM = inputs({"x": "BD", "gain": "D", "bias": "D"}, least=4)      # what the lesson's docstring says
SAYS = {      # what the report of each wrong layer says
    "mean_forgotten": "off by the same amount all along axis 1: the derivative of a sum or mean over it is missing",
    "variance_forgotten": "* x ",
    "mean_for_sum": "axis 0 of x = 4 times too small: a mean over axis 0 of x too many",
    "input_forgotten": "equal to the gradient of bias",
    "in_place": "* dout, the upstream gradient, is changed by backward",
    "accumulating": "* backward run twice gives two results: does it add to what was there"}


def test_it_runs_as_a_program():
    result = run_script(PATH)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("the right layer passes, 6 of 6 wrong ones are caught\n")
    assert result.stdout.count("gradients right (") == 1 and result.stdout.count("gradients WRONG (") == 4
    assert result.stdout.count("gradients right, rules BROKEN (") == 2


@pytest.mark.parametrize("wrong", lesson.WRONG, ids=lambda wrong: wrong.__name__)
def test_every_wrong_layer_is_caught_for_its_slip(wrong):
    report = lesson.check(wrong)
    assert not report.ok and SAYS[wrong.__name__] in str(report)
    assert len(lesson.WRONG) == len(SAYS)


@given(drawn=LAYER_NORM)
def test_the_right_layer_is_right(drawn):
    assert_gradients(lesson.forward, lesson.backward, drawn)
    assert_gradients(lesson.forward, lesson.backward, drawn, method="central")


@pytest.mark.parametrize("wrong", [wrong for wrong in lesson.WRONG if wrong is not lesson.accumulating],
                         ids=lambda wrong: wrong.__name__)
@given(drawn=LAYER_NORM)
def test_the_wrong_layers_fail_a_test_of_that_kind(wrong, drawn):
    with pytest.raises(AssertionError, match="gradients (WRONG|right, rules BROKEN)"):
        assert_gradients(lesson.forward, wrong, drawn)


def test_the_rows_are_normalised():
    x = np.random.default_rng(0).normal(3, 5, (4, 7))
    y = lesson.forward(x, np.ones(7), np.zeros(7))
    assert np.allclose(y.mean(axis=1), 0) and np.allclose(y.var(axis=1), 1, rtol=1e-5)


def nothing(dy, x, gain, bias):
    return {"x": 0 * x, "gain": 0 * gain, "bias": 0 * bias}


@pytest.mark.parametrize("name, value", [("backward", nothing), ("WRONG", [nothing, lesson.backward])])
def test_the_exit_code_is_1_when_the_lesson_is_not_true(name, value, monkeypatch, capsys):
    """The right layer failing, or a wrong one passing."""
    assert lesson.main() == 0
    monkeypatch.setattr(lesson, name, value)
    assert lesson.main() == 1
    assert ("FAILS" in capsys.readouterr().out) == (name == "backward")


def test_the_docstring_shows_the_test():
    assert '@given(inputs({"x": "BD", "gain": "D", "bias": "D"}, least=4))' in lesson.__doc__
    assert "assert_gradients(forward, backward, inputs)" in lesson.__doc__
