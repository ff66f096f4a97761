"""What `test_commands` lends to other tests."""
import re


def assert_refused(result, says, name="npvae"):
    code, out, error = result
    assert code == 2 and not out
    assert len(error.splitlines()) == 1 and error.startswith(f"{name}: "), error
    assert re.search(says, error), error
