"""What is no regular file is refused at once: nothing waits for a writer that may never come."""
import os
import socket

import numpy as np
import pytest

from npvae import VAE, CheckpointError, data
from npvae.data import DataError
from npvae.files import open_regular
from npvae.options import read_config
from npvae.cli import UsageError
from npvae.report_page import write_report
from tiny_runs import train_in

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")


def refused(call, error, path, kind):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert str(path) in message and kind in message and len(message.splitlines()) == 1, message


def test_a_file_is_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"abc" and not os.get_inheritable(file.fileno())
    (tmp_path / "link").symlink_to("a")
    with open_regular(str(tmp_path / "link")) as file:
        assert file.read() == b"abc"


def test_nothing_else_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)      # the name of a socket must be short
    os.mkfifo("pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        before = os.listdir("/dev/fd")
        for path, kind in (("pipe", "a named pipe"), ("link", "a named pipe"), ("/dev/zero", "a device"),
                           (str(tmp_path), "Is a directory"), ("socket", ""), ("none", "No such file")):
            refused(lambda: open_regular(path), OSError, path, kind)
    assert len(os.listdir("/dev/fd")) <= len(before)      # none is left open


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv"])
def test_data(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(lambda: data.load(tmp_path / name), DataError, tmp_path / name, "a named pipe")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    refused(lambda: data.load(tmp_path / name), DataError, tmp_path / name, "a device")


def test_one_file_of_a_folder(tmp_path):
    for i in range(3):
        data_path = tmp_path / f"{i}.png"
        os.mkfifo(data_path)
    refused(lambda: data.load(tmp_path), DataError, tmp_path / "0.png", "a named pipe")
    os.mkfifo(tmp_path / "x-idx3-ubyte")
    refused(lambda: data.read_idx(tmp_path / "x-idx3-ubyte"), DataError, tmp_path / "x-idx3-ubyte", "a named pipe")


def test_a_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "c.npz")
    refused(lambda: VAE.load(tmp_path / "c.npz"), CheckpointError, tmp_path / "c.npz", "a named pipe")
    refused(lambda: VAE.load("/dev/zero"), CheckpointError, "/dev/zero", "a device")


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "manifold.png"])
def test_a_run(tmp_path, name):
    run = train_in(tmp_path) / "run"
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    refused(lambda: write_report(run), (ValueError, OSError), run / name, "a named pipe")
    if name == "config.json":
        refused(lambda: read_config(run), UsageError, run / name, "")


def test_a_picture_is_closed(tmp_path):
    """Warnings are errors: a file that is left open would be one."""
    from PIL import Image
    for i in range(2):
        Image.fromarray(np.full((2, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    assert data.load(tmp_path).image_shape == (2, 3)
