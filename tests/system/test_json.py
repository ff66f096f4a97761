"""Texts of JSON that a run keeps: read part by part, or refused in one line that names the file and the fault."""
import json
import re

import pytest

from npvae.cli import command_line, options
from npvae.system.files import MOST_TEXT, parse_json, read_text

REFUSED = {
    "[" * 100_000: "it is nested too deeply", '{"a":' * 100_000: "it is nested too deeply",
    "1" + "0" * 400: "10000000000000000... is not a number that can be used", "1e400": "1e400 is not a number",
    "-1e999": "-1e999 is not a number", "NaN": "NaN is not a number", "[-Infinity]": "-Infinity is not a number",
    '{"a": 1, "b": {"c": 2, "c": 3}}': "'c' stands twice in one object", "{": "Expecting property name",
    "": "Expecting value", "\ufeff{}": "Unexpected UTF-8 BOM", "{}\0": "Extra data",
    '"\0"': "Invalid control character", "'a'": "Expecting value"}


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_two_programs_read_alike(text):
    with pytest.raises(ValueError, match=re.escape(REFUSED[text])) as caught:
        parse_json(text.encode())
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding, byte", [("utf-16", 1), ("latin-1", 2)])
def test_what_is_no_utf_8(encoding, byte):
    with pytest.raises(ValueError, match=f"byte {byte} is not UTF-8"):
        parse_json('"é"'.encode(encoding))


def test_what_is_read():
    value = {"a": [1, -2.5, 1e-300, 2 ** 128, True, None, "é\u2028"], "b": {}}
    assert parse_json(json.dumps(value).encode()) == value
    assert repr(parse_json(b"[NaN, -Infinity, 1e400]", finite=False)) == "[nan, -inf, inf]"


def test_a_text_that_is_longer_than_any(tmp_path):
    path = tmp_path / "x"
    with open(path, "wb") as file:
        file.truncate(MOST_TEXT)
        assert len(read_text(path)) == MOST_TEXT
        file.truncate(10 ** 12)      # which takes no place on the disk
    with pytest.raises(OSError, match="it holds more than 33,554,432 bytes"):
        read_text(path)


# ---- Of settings

def write(folder, settings, **more):
    (folder / "config.json").write_text(json.dumps({"settings": settings, **more}))


@pytest.fixture
def settings():
    return options.settings(options.training_parser().parse_args([]))


@pytest.mark.parametrize("flags", [
    [], ["--hidden", "none"], ["--limit", "7"], ["--conditional"], ["--cyclical"], ["--data-dir=--help"],
    ["--objective", "iwae", "--k", "3", "--beta", "0.1"], ["--prior", "hierarchical:3,2"], ["--lr", "1e-05"]])
def test_settings_are_read_back(flags, tmp_path):
    given = options.settings(options.training_parser().parse_args(flags))
    write(tmp_path, given)
    assert options.read_config(tmp_path)["settings"] == given


WRONG = [None, "x", [], {}, -1, 0.5, 10 ** 90, True, [0], "9" * 30, "/"]
#: of these values, those that a flag may have given, besides its default
LET_THROUGH = {
    "hidden": [[]], "label_column": ["x", "9" * 30, "/"], "delimiter": ["x", "/"],
    **dict.fromkeys(["data_dir", "test_data"], ["x", "9" * 30, "/"]),
    **dict.fromkeys(["transpose", "grey", "rgb", "conditional"], [True]),
    **dict.fromkeys(["beta", "free_bits", "kl_warmup", "lr", "weight_decay", "test_fraction"], [0.5])}


def test_every_setting_is_looked_at(settings, tmp_path):
    """Taken away or another, it is refused in a line that names the file; what is let through is what a flag says."""
    for name in settings:
        write(tmp_path, {key: value for key, value in settings.items() if key != name})
        if name not in (*options._ADDED, *options._FORMER):
            with pytest.raises(command_line.UsageError,
                               match=f"config.json is of another program or version: .* {name}$"):
                options.read_config(tmp_path)
        for value in WRONG:
            write(tmp_path, {**settings, name: value})
            try:
                read = options.read_config(tmp_path)["settings"]
            except command_line.UsageError as error:
                assert str(tmp_path / "config.json") in str(error) and "\n" not in str(error) and len(str(error)) < 600
            else:
                assert value == settings[name] or value in LET_THROUGH.get(name, []), (name, value)
                assert read == {**settings, name: value}


@pytest.mark.parametrize("name, value, says", [
    ("latent", 10 ** 30, "argument --latent: must be less than 2^53, got '1000"),
    ("hidden", [4, 0], "--hidden: must be positive"),
    ("posterior", "iaf:" + "9" * 30, "at most 1,000 steps are allowed"), ("lr", "0.1", "lr is '0.1', which no flag"),
    ("conditional", 1, "--conditional: ignored explicit argument '1'"), ("k", True, "--k: expected one argument"),
    ("data_dir", "a\0b", "data_dir is 'a\\x00b', which no command line can hold"),
    ("data_dir", "\ud800", "data_dir is '\\ud800', which no command line can hold"),
    ("free_bits", 0.5, "free-bits needs the analytic KL of --objective elbo")])
def test_what_is_said_of_a_setting(name, value, says, settings, tmp_path):
    write(tmp_path, {**settings, "objective": "iwae", name: value})
    with pytest.raises(command_line.UsageError, match=re.escape(says)) as caught:
        options.read_config(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ") and "--help" not in str(caught.value)
