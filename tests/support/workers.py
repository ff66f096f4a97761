"""For the tests of what runs on several threads."""
import faulthandler
import sys
import threading
import time

import pytest

from npvae.engine import team

WORTH = team._MIN_WORK


@pytest.fixture(autouse=True)
def small_work_is_shared(monkeypatch):
    """The work of the tests is small, and shared whether that is faster or not.  And a thread that waits for ever, in
    machine code, ends the whole program."""
    monkeypatch.setattr(team, "_MIN_WORK", 0)
    monkeypatch.setattr(team, "_RETRY_EVERY", sys.maxsize)
    faulthandler.dump_traceback_later(600, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def wait_until(condition):
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def other_threads(before):
    return set(threading.enumerate()) - before
