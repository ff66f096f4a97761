"""What a test leaves changed in the process is noticed: the check of `conftest.py` that stands around every test."""
import gc
import os
import signal
import sys

import numpy as np
import pytest
from hypothesis import settings

import conftest


@pytest.fixture
def undone(monkeypatch):
    """What is changed here is not left to the tests that follow."""
    __import__("matplotlib")
    profile, handler = settings.get_current_profile_name(), signal.getsignal(signal.SIGTERM)
    with np.errstate(), conftest._BLAS.limit(limits=1, user_api="blas"):
        yield monkeypatch
    monkeypatch.undo()
    sys.settrace(None)
    signal.signal(signal.SIGTERM, handler)
    gc.enable()
    settings.load_profile(profile)


CHANGES = {
    "environment": lambda patch: patch.setenv("NPVAE_NEW", "1"), "folder": lambda patch: patch.chdir("/"),
    "path of imports": lambda patch: patch.setattr(sys, "path", [*sys.path, "/nowhere"]),
    "trace function": lambda patch: sys.settrace(lambda *_: None),
    "signal handlers": lambda patch: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "floating-point errors": lambda patch: np.seterr(over="ignore"), "collector": lambda patch: gc.disable(),
    "BLAS threads": lambda patch: conftest._BLAS.limit(limits=3, user_api="blas"),
    "subnormal numbers": lambda patch: patch.setattr(np, "float64", lambda value: 0 * value),
    "style of pictures": lambda patch: patch.setitem(sys.modules["matplotlib"].rcParams, "lines.linewidth", 7),
    "Hypothesis profile": lambda patch: settings.load_profile("mutation")}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_left_changed_is_noticed(name, undone):
    before = conftest.process_state()
    assert not conftest.left_changed(before)
    CHANGES[name](undone)
    assert [*conftest.left_changed(before)] == [name]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it cannot be read here without setting it")
def test_another_umask_is_noticed():
    before = conftest.process_state()
    mask = os.umask(0o077)
    try:
        assert [*conftest.left_changed(before)] == ["umask"]
    finally:
        os.umask(mask)


RNG = np.random.default_rng(0)


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_generator_of_the_module_begins_anew(which):
    assert RNG.random() == np.random.default_rng(0).random()
