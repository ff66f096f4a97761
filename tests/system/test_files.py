"""What is no regular file is refused at once; what is written is there entirely or not at all, also after a power cut;
and what one process has claimed no other gets."""
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from npvae import VAE, CheckpointError, data
from npvae.data import DataError
from npvae.system.files import InUseError, claimed, open_regular, write_atomically
from npvae.cli.options import read_config
from npvae.cli import UsageError
from npvae.pages import write_report

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes, or locks on folders")


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
    (tmp_path / "config.json").write_text('{"settings": {}, "versions": {}}')
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "test_loss": 1.0}')
    assert write_report(tmp_path).exists()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    refused(lambda: write_report(tmp_path), (ValueError, OSError), tmp_path / name, "a named pipe")
    if name == "config.json":
        refused(lambda: read_config(tmp_path), UsageError, tmp_path / name, "")


def test_a_picture_is_closed(tmp_path):
    """Warnings are errors: a file that is left open would be one."""
    from PIL import Image
    for i in range(2):
        Image.fromarray(np.full((2, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    assert data.load(tmp_path).image_shape == (2, 3)


# ---- Entirely or not at all

@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, where, error):
    path = tmp_path / "c.npz"
    write_atomically(path, b"old")

    def fail(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(type(error)) as caught:
            write_atomically(path, b"new" * 1000)
    if isinstance(error, OSError):
        says = "[Errno 28] No space left on device, 3,000 bytes are needed: "
        assert str(caught.value) == f"{says}{str(path)!r}"
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.npz"]


class Disk:
    """What a power cut may leave of a folder, at its worst: of a file only what was synced; of names what was synced,
    and of what happened to them since any beginning.  Looked at before and after each of the calls that matter."""

    def __init__(self, folder, name, patch):
        self.folder, self.name, self.left = folder, name, set()
        self.durable = {entry.inode(): Path(entry).read_bytes() for entry in os.scandir(folder)}
        self.names = [self.listing()]
        for call in ("fsync", "replace", "unlink", "close", "open"):
            patch.setattr(os, call, self.watched(getattr(os, call)))

    def listing(self):
        return {entry.name: entry.inode() for entry in os.scandir(self.folder)}

    def watched(self, call):
        def watched(*args, **kwargs):
            self.left |= self.after_a_cut()
            result = call(*args, **kwargs)
            if call.__name__ == "fsync":
                inode, listing = os.fstat(args[0]).st_ino, self.listing()
                if inode == self.folder.stat().st_ino:
                    self.names = [listing]
                else:
                    self.durable[inode] = next(self.folder / name for name in listing
                                               if listing[name] == inode).read_bytes()
            self.names.append(self.listing())
            self.left |= self.after_a_cut()
            return result
        return watched

    def after_a_cut(self):
        """Everything that the file may hold; None where it may not be there."""
        return {self.durable.get(names[self.name], b"") if self.name in names else None for names in self.names}


@pytest.mark.parametrize("old", [b"old", None])
def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch, old):
    if old is not None:
        (tmp_path / "c").write_bytes(old)
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path, "c", patch)
        write_atomically(tmp_path / "c", b"new")
        assert disk.left == {old, b"new"} and disk.after_a_cut() == {b"new"}


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def without_flush(path, folder, file):
    os.fsync(file.fileno())
    file.flush()
    os.replace(file.name, path)
    sync(folder)


def without_sync(path, folder, file):
    file.flush()
    os.replace(file.name, path)
    sync(folder)


def folder_before_the_file_is_in_it(path, folder, file):
    file.flush()
    os.fsync(file.fileno())
    sync(folder)
    os.replace(file.name, path)


@pytest.mark.parametrize("write", [without_flush, without_sync, folder_before_the_file_is_in_it])
def test_the_disk_finds_what_could_be_forgotten(tmp_path, monkeypatch, write):
    """The test above can fail."""
    (tmp_path / "c").write_bytes(b"old")
    with monkeypatch.context() as patch, open(tmp_path / "t", "wb") as file:
        disk = Disk(tmp_path, "c", patch)
        file.write(b"new")
        write(tmp_path / "c", tmp_path, file)
        assert not disk.left <= {b"old", b"new"} or disk.after_a_cut() != {b"new"}


def test_permissions_follow_the_umask_which_nobody_touches(tmp_path, monkeypatch):
    mask = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("for an instant files of other threads are anybody's"))
            write_atomically(tmp_path / "c", b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o640


def test_a_missing_folder_is_an_os_error_that_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="c.npz"):
        write_atomically(tmp_path / "no" / "c.npz", b"")
    assert not list(tmp_path.iterdir())


WRITER = """
import os, signal, sys
from npvae.system.files import write_atomically
def stop(handle):
    print("writing", flush=True)
    sys.stdin.read(1) or os.kill(os.getpid(), signal.SIGKILL)
os.fsync = stop
write_atomically(sys.argv[1], b"from another process")
"""


def other_process(code, *args):
    process = subprocess.Popen([sys.executable, "-c", code, *args], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline()
    return process


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path):
    others = [".npvae-notes", ".npvae-0123456789abcdef", "x.tmp", ".c.0123456789abcdef.tmp"]
    for name in others:
        (tmp_path / name).touch()
    process = other_process(WRITER, str(tmp_path / "a"))
    write_atomically(tmp_path / "b", b"")
    assert len(list(tmp_path.iterdir())) == len(others) + 2      # it lives, and so does its file
    process.communicate("")      # the end of its input kills it
    assert process.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == len(others) + 2
    write_atomically(tmp_path / "b", b"")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "b"}


# ---- Claimed

CLAIM = "import sys; from npvae.system.files import claimed\nwith claimed(__import__('pathlib').Path(sys.argv[1])): " \
        "print('claimed', flush=True); sys.stdin.read()"


def test_a_claim_is_of_one_process_and_dies_with_it(tmp_path, monkeypatch):
    out = tmp_path / "a" / "b"
    process = other_process(CLAIM, str(out))
    with monkeypatch.context() as patch:
        for _ in range(2):
            with pytest.raises(InUseError), claimed(out):
                pass
            assert out.is_dir()      # empty, and not ours to remove
            patch.setattr(Path, "exists", lambda path: False)      # looked at before the other process had made it
    process.kill()
    process.communicate()
    with claimed(out):
        assert not list(out.iterdir())      # no trace of a lock


def test_folders_made_for_nothing_go(tmp_path):
    with pytest.raises(ValueError), claimed(tmp_path / "a" / "b" / "c"):
        raise ValueError
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with claimed(tmp_path / "mine"), claimed(tmp_path / "a" / "b"):
        (tmp_path / "a" / "x").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine", "x"]
    with pytest.raises(OSError), claimed(tmp_path / "new" / ("x" * 300)):
        pass
    with pytest.raises(FileExistsError), claimed(tmp_path / "a" / "x"):
        pass
    assert not (tmp_path / "new").exists()


def test_many_claim_a_folder_that_comes_and_goes(tmp_path):
    inside, together, failures = [], [], []

    def work():
        for _ in range(60):
            try:
                with claimed(tmp_path / "new"):
                    inside.append(1)
                    together.append(len(inside))
                    (tmp_path / "new" / "x").touch()
                    (tmp_path / "new" / "x").unlink()
                    inside.pop()
            except InUseError:
                pass
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and set(together) == {1}
