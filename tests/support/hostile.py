"""Files that are damaged, mislead or are made to hurt, against every command that reads them.

    python tests/support/hostile.py --size 2000 --seed 0

Each case takes good data and a good run, does one thing to one file, and gives it to a command in a process of its own,
a fork of this one, which has loaded everything.  Some are given to a new Python besides.  The command must end with
exit code 2 and one line that names the file, or with 0 where the damage is harmless and what was read is what another
reader finds there; in less than 20 seconds of a processor and 2 GiB of memory; and after 2 nothing has changed on the
disk.  (Numbers that are finite and far too large end a training with 1, as NaN does.)

The exit code is 1 if one did not, and those are printed.
"""
import argparse
import contextlib
import csv
import gzip
import hashlib
import io
import json
import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from files import small_set, write_folder  # noqa: E402
from npvae import data  # noqa: E402
from npvae.cli import command_line, program, runs  # noqa: E402
from npvae.pages import report  # noqa: E402

SECONDS, BYTES = 20, 2 * 2 ** 30
PICTURES = ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm")
TRAIN = ["train", "--hidden", "6", "--latent", "3", "--epochs", "1", "--kernels", "numpy", "--quiet", "--threads", "1"]
NINES, DEEP = "9" * 30, 100_000


# ---- What is good

def make_good(folder):
    """Data of every kind, images of 4 x 3 bytes in each, and three runs.  What makes a run's pictures is returned:
    where labels are not odd, it is left out, to save time."""
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 256, (40, 4, 3), dtype=np.uint8)
    np.save(folder / "bytes.npy", grey)
    np.save(folder / "columns.npy", np.asfortranarray(rng.random((40, 12))))
    np.savez(folder / "stored.npz", train=grey[:30], test=grey[30:], train_labels=np.arange(30) % 3,
             test_labels=np.arange(10) % 3)
    np.savez_compressed(folder / "deflated.npz", x_train=grey[:30], x_test=grey[30:], y_train=np.arange(30) % 3,
                        y_test=np.arange(10) % 3)
    rows = [["label", *(f"p{i}" for i in range(12))]]
    rows += [[i % 3, *image.ravel()] for i, image in enumerate(grey)]
    (folder / "table.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    content = small_set(rng, 30, 10, 4, 3)
    write_folder(folder / "idx", content)
    write_folder(folder / "idx_gz", content, {role: f"{role}-idx{array.ndim}-ubyte.gz" for role, array in
                                              content.items()})
    for suffix in PICTURES:
        for i, image in enumerate(grey[:12]):
            path = folder / suffix / f"class {i % 2}" / f"{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    os.chdir(folder)
    runs.save_pictures, save_pictures = lambda *args: [], runs.save_pictures
    for name, flags in (("run", []), ("conditional", ["--conditional"]),
                        ("made", ["--decoder", "made:5", "--binarize", "static", "--posterior", "iaf:2"])):
        program.main([*TRAIN, "--data-dir", "stored.npz", "--out", name, *flags])
    return save_pictures


# ---- What is done to bytes

def flip(raw, rng):
    raw = bytearray(raw)
    for at in rng.integers(0, len(raw), rng.integers(1, 9)):
        raw[at] ^= 1 << rng.integers(8)
    return bytes(raw)


def flip_near_the_start(raw, rng):
    return flip(raw[:80], rng) + raw[80:]


def flip_near_the_end(raw, rng):
    return raw[:-80] + flip(raw[-80:], rng)


def cut(raw, rng):
    return raw[:rng.integers(0, len(raw))]


def insert(raw, rng):
    at = rng.integers(0, len(raw))
    return raw[:at] + rng.bytes(int(rng.integers(1, 40))) + raw[at:]


def take_out(raw, rng):
    start, stop = np.sort(rng.integers(0, len(raw) + 1, 2))
    return raw[:start] + raw[stop:]


def swap(raw, rng):
    a, b, c = np.sort(rng.integers(0, len(raw) + 1, 3))
    return raw[:a] + raw[b:c] + raw[a:b] + raw[c:]


def blank(raw, rng):
    start, stop = np.sort(rng.integers(0, len(raw) + 1, 2))
    return raw[:start] + bytes([rng.choice([0, 255])]) * int(stop - start) + raw[stop:]


def numbers_of_the_header(raw, rng):
    """Extreme numbers of four bytes where lengths stand."""
    at = int(rng.integers(0, min(len(raw), 120)))
    number = int(rng.choice([0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 24]))
    return raw[:at] + struct.pack(str(rng.choice(["<", ">"])) + "I", number) + raw[at + 4:]


def other_encoding(raw, rng):
    return (raw.decode("latin-1").encode(str(rng.choice(["utf-16", "utf-32", "utf-8-sig", "utf-8"])))
            + b"\0" * int(rng.integers(0, 2)))


def other_content(raw, rng):
    """Of another kind by all that it holds."""
    choices = [b"", b"\0", b"\0" * 5000, b"\xff" * 5000, rng.bytes(3000), b"<html><body>404</body></html>", raw * 2,
               gzip.compress(raw), b"\x1f\x8b" + raw, b"PK\3\4" + raw, b"\x93NUMPY" + raw, b"\x89PNG\r\n\x1a\n" + raw,
               b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n(/etc/passwd) (r) file\n", b"(" * DEEP, b"[" * DEEP,
               b'{"a":' * DEEP, b"9" * DEEP, b"\r\n" * 900, b"<svg xmlns='http://www.w3.org/2000/svg'/>",
               b"import os\nos.abort()\n", b"\x80\x04cposix\nsystem\n(S'touch sprung'\ntR."]
    return choices[rng.integers(len(choices))]


BYTES_CHANGED = [flip, flip_near_the_start, flip_near_the_end, cut, insert, take_out, swap, blank,
                 numbers_of_the_header, other_encoding, other_content]


# ---- What is put in place of a file

def a_named_pipe(path, rng):
    os.mkfifo(path)


def a_device(path, rng):
    path.symlink_to(str(rng.choice(["/dev/zero", "/dev/null", "/dev/full"])))


def a_folder(path, rng):
    path.mkdir()


def a_circle(path, rng):
    path.symlink_to(path)


def nothing_behind_a_link(path, rng):
    path.symlink_to("nowhere")


def a_hole(path, rng):
    """3 GB that take no place on the disk, behind the first bytes of the file."""
    with open(path, "wb") as file:
        file.write(path.good[:int(rng.integers(0, len(path.good)))])
        file.truncate(3 * 10 ** 9)


def a_hole_between(path, rng):
    with open(path, "wb") as file:
        file.write(path.good[:len(path.good) // 2])
        file.seek(3 * 10 ** 9)
        file.write(path.good[len(path.good) // 2:])


REPLACED = [a_named_pipe, a_device, a_folder, a_circle, nothing_behind_a_link, a_hole, a_hole_between]


class Target(type(Path())):
    """A path that has not forgotten what was there."""

    good = b""


# ---- Kind by kind

def npy_header(shape, dtype="|u1", order=False, version=1):
    text = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def lie_in_npy(raw, rng):
    shape = [(10 ** 9, 12), (40, 10 ** 9), (2 ** 62, 4), (40, 4, 3), (480,), (), (0, 12), (-40, -12), (40, 4, 3, 1),
             (10 ** 30, 12), (40, 12.0), "40", (20, 12)][rng.integers(13)]
    dtype = str(rng.choice(["|u1", "<f4", "<f8", ">f2", "|O", "|S12", "<U9", "<i8", "<c16", "<M8[s]", "|V12", "f", "x",
                            "|b1"]))
    return npy_header(shape, dtype, bool(rng.integers(2)), int(rng.choice([1, 2, 3, 4]))) + raw[128:]


def not_finite(raw, rng):
    array = np.random.default_rng(0).random((40, 12))
    array[int(rng.integers(40)), 3] = rng.choice([np.nan, np.inf, -np.inf, 1e300, 5.0, -1.0, 1e38, 256])
    np.save(stream := io.BytesIO(), array.astype(str(rng.choice(["<f4", "<f8"]))) if array.max() < 1e38 else array)
    return stream.getvalue()


def zipped(raw, rng):
    """A zip made anew, with a member changed, added, taken away or of another kind."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(list(members)))
    what = rng.integers(6)
    if what == 0:
        members[name] = (lie_in_npy if rng.integers(2) else flip)(members[name], rng)
    elif what == 1:
        del members[name]
    elif what == 2:
        members[str(rng.choice(["train.npy", "../escape.npy", "x\0y", "manifest.json", "deep/" * 900]))] = b"x"
    elif what == 3:
        members[name] = not_finite(b"", rng)
    elif what == 4:
        np.save(stream := io.BytesIO(), np.array([{}, []], dtype=object), allow_pickle=True)
        members[name] = stream.getvalue()
    how = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][rng.integers(4)]
    with zipfile.ZipFile(stream := io.BytesIO(), "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def bomb(raw, rng):
    """Hundreds of megabytes of one number, in a file of less than one."""
    rows = int(rng.integers(20, 70)) * 10 ** 6
    header = npy_header((rows, 12), order=bool(rng.integers(2)))
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    piece = bytes(2 ** 20)
    stream, crc, left = io.BytesIO(), zlib.crc32(header), rows * 12
    stream.write(packer.compress(header))
    while left:
        crc, part = zlib.crc32(piece[:left], crc), piece[:left]
        stream.write(packer.compress(part))
        left -= len(part)
    stream.write(packer.flush())
    packed, size = stream.getvalue(), len(header) + rows * 12
    files, directory = b"", b""
    for name in (b"train.npy", b"test.npy"):
        common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(packed), size, len(name), 0)
        directory += (b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(files)) + name)
        files += b"PK\3\4" + common + name + packed
    return files + directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(directory), len(files), 0)


def idx_header(raw, rng):
    plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    ndim = plain[3]
    shape = [2 ** 31 - 1, 2 ** 32 - 1, 0, 1, 40, 10 ** 9, 3, 12]
    changed = struct.pack(f">BBBB{ndim}I", 0, 0, int(rng.choice([8, 9, 13])), ndim,
                          *(int(rng.choice(shape)) for _ in range(ndim)))
    changed += plain[4 + 4 * ndim:] + bytes(2 ** 26) * int(rng.integers(2))
    return gzip.compress(changed, 1) if plain is not raw else changed


def cells(raw, rng):
    """A table with a cell of another kind."""
    lines = raw.decode().splitlines()
    row, value = int(rng.integers(len(lines))), [
        "x", "", "1e400", "-1", "256", "0.5", "nan", "inf", "1_0", "٣", "9" * 200_000, "x" * 140_000, '"', '""""', "\0",
        "0x10", "1;2", "1\t2", "5 5", "\u2028", "\ufeff3", "'3'", "=1+1", "3\r4", "1e-400", "-0", "True", "\x1b[31m3"]
    parts = lines[row].split(",")
    parts[int(rng.integers(len(parts)))] = value[rng.integers(len(value))]
    lines[row] = ",".join(parts)
    return "\n".join(lines).encode()


def long_lines(raw, rng):
    return [b"1," * 3_000_000 + b"1\n", b"1" * 70_000_000, b"," * 40_000_000, raw.replace(b"\n", b","), b'"' + raw,
            b"label," * 200_000 + b"1\n" + raw, raw.replace(b",", b"\0,"), b"\n" * 10 ** 6 + raw][rng.integers(8)]


def picture(width, height, kind, **more):
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, kind, **more)
    return stream.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def picture_bomb(raw, rng):
    """Few bytes, very many pixels, or much text."""
    size = [(13_300, 13_300), (50_000, 50_000), (2 ** 31 - 1, 2 ** 31 - 1), (100_000, 1), (5000, 4000)][rng.integers(5)]
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0))
    packer = zlib.compressobj(1)
    packed = packer.compress(bytes(min(math.prod(size) // 8 + size[1], 3 * 10 ** 8))) + packer.flush()
    text = zlib.compress(bytes(10 ** 8), 1)
    return [head + chunk(b"IDAT", packed) + chunk(b"IEND", b""),
            raw[:33] + chunk(b"zTXt", b"Comment\0\0" + text) + raw[33:],
            raw[:33] + chunk(b"iCCP", b"x\0\0" + text) + raw[33:],
            b"P5 %d %d 255\n" % size + bytes(100), b"P6 %d %d 65535\n" % size + bytes(100),
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100),
            b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b","
            + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\2\x44\1\0;",
            picture(5000, 4000, str(rng.choice(["PNG", "TIFF", "GIF"])))][rng.integers(8)]


def other_picture(raw, rng):
    """Good pictures that do not fit: of another size, of 32 bits, in formats that are not opened."""
    stream = io.BytesIO()
    kind = str(rng.choice(["PNG", "TIFF", "EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS", "IM", "JPEG2000"]))
    image = Image.new(str(rng.choice(["L", "RGB"])), (int(rng.choice([3, 64])), 4))
    if kind == "TIFF":
        image = Image.fromarray(np.ones((4, 3), rng.choice([np.float32, np.int32])))
    image.save(stream, kind)
    return stream.getvalue()


HOSTILE_VALUES = [
    None, True, False, "", "x", "\x1b[31m\n", "\ud800", [], [[]], {}, {"a": {}}, 0, -1, 1, 3, 0.5, -0.5, 1e308,
    10 ** 18, 10 ** 90, 1e-320, "9" * 10 ** 5, [1] * 1000, ["x"], [0], [-1], [10 ** 9], [10 ** 9] * 3, f"iaf:{NINES}",
    f"iaf:2:{NINES}", f"planar:{NINES}", f"mixture:{NINES}", f"vamp:{NINES}", "iaf:1000:999", f"hierarchical:{NINES},2",
    f"made:{NINES}", f"categorical:{NINES}", "gaussian:1e400", "/dev/zero", "gaussian:" + "9" * 400,
    "../" * 50 + "etc/passwd", "--help", "--out=x", "a" * 5000, "mnist", "gaussian"]
RAW_VALUES = [
    "1" + "0" * 400, "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "[" * DEEP + "]" * DEEP, "'x'", "0x10",
    '{"a": 1, "a": 2}', "01", "1" * 5000, "\\u0000", '"\\u0000"', '"\\ud800"', "", "nul", "tru", "+1", ".5"]


def places(value, above=()):
    yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*above, key))


def change_json(raw, rng):
    """One value anywhere in it taken away, put twice, or made another."""
    value = json.loads(raw)
    where = list(places(value))
    *above, last = path = where[rng.integers(1, len(where))]
    inner, what = value, rng.integers(5)
    for key in above:
        inner = inner[key]
    if what == 0:
        del inner[last]
    elif what == 1:
        inner[last] = "@hostile@"
        return json.dumps(value, indent=1).replace('"@hostile@"', RAW_VALUES[rng.integers(len(RAW_VALUES))]).encode()
    elif what == 2 and isinstance(inner, dict):
        name = json.dumps(last)
        return json.dumps(value).replace(f"{name}:", f"{name}: 1, {name}:", 1).encode()
    elif what == 3 and isinstance(inner, dict):
        inner[str(rng.choice(["flavour", "", "\x1b", "seed ", "kernels", "x" * 10 ** 5]))] = 1
    else:
        inner[last] = HOSTILE_VALUES[rng.integers(len(HOSTILE_VALUES))]
    assert path
    return json.dumps(value, indent=1).encode()


def change_lines(raw, rng):
    lines = raw.splitlines()
    at = int(rng.integers(len(lines)))
    lines[at] = [lambda: change_json(lines[at], rng), lambda: b"", lambda: b"[]", lambda: b"3", lambda: lines[at] * 2,
                 lambda: b'{"test_loss": "' + b"x" * 40_000_000 + b'"}'][rng.integers(6)]()
    return b"\n".join(lines) + b"\n"


def seal(members, how=zipfile.ZIP_STORED):
    """A checkpoint whose digest is right, whatever it holds."""
    with zipfile.ZipFile(stream := io.BytesIO(), "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"?" * 64
    body = stream.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def reseal_manifest(raw, rng):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["manifest.json"] = (change_json if rng.integers(4) else
                                BYTES_CHANGED[rng.integers(len(BYTES_CHANGED))])(members["manifest.json"], rng)
    return seal(members)


def reseal_arrays(raw, rng):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice([name for name in members if name.endswith(".npy")]))
    array = np.load(io.BytesIO(members[name]))
    what = rng.integers(8)
    if what == 0:
        array[int(rng.integers(array.size))] = rng.choice([np.nan, np.inf, 3e38])
    elif what == 1:
        array = array.astype(str(rng.choice(["<f8", ">f4", "<i4", "<c8"])))
    elif what == 2:
        array = np.resize(array, array.size + int(rng.choice([-1, 1, 10 ** 6])))
    elif what == 3:
        array = array.reshape(1, -1)
    np.save(stream := io.BytesIO(), array)
    members[name] = stream.getvalue()
    if what == 4:
        del members[name]
    elif what == 5:
        members[name] = lie_in_npy(members[name], rng)
    elif what == 6:
        members["extra.npy"] = members[name]
    return seal(members, zipfile.ZIP_DEFLATED if what == 7 else zipfile.ZIP_STORED)


def odd_name(folder, rng):
    """Names of classes, and so labels, and of files in a folder of pictures."""
    name = str(rng.choice(["\x1b[31mred", "a\nb", "$\\frac$", "日本", "ل", "x" * 200, "<b>", "-1", "1e5", "٣", "a\u202eb",
                           "$", " ", "𝔘", "{}", "%s", "_", "^", "\\", "$x$", "a&b"]))
    old = sorted(path for path in folder.iterdir())[0]
    old.rename(folder / name)


def odd_folder(folder, rng):
    first = sorted(folder.iterdir())[0]
    what = rng.integers(7)
    if what == 0:
        (folder / "notes.txt").write_text("hello")
    elif what == 1:
        (first / "deeper").mkdir()
    elif what == 2:
        shutil.rmtree(first)
        first.mkdir()
    elif what == 3:
        os.mkfifo(first / "99.png")
    elif what == 4:
        first.rename(folder / "train")
    elif what == 5:
        (first / "link.png").symlink_to(folder)
    else:
        for path in list(folder.iterdir()):
            shutil.rmtree(path)


KINDS = {      # name -> the file in it that is changed (None: one at random), what is done to it besides
    "bytes.npy": [lie_in_npy, not_finite], "columns.npy": [lie_in_npy, not_finite], "stored.npz": [zipped, bomb],
    "deflated.npz": [zipped, bomb], "table.csv": [cells, cells, long_lines],
    "idx": [idx_header], "idx_gz": [idx_header],
    **{suffix: [picture_bomb, other_picture] for suffix in PICTURES},
    "config.json": [change_json] * 6, "checkpoint.npz": [reseal_manifest] * 5 + [reseal_arrays] * 3,
    "metrics.jsonl": [change_lines] * 3, "odd names": [odd_name], "odd folders": [odd_folder]}


def commands_on_data(source, rng, is_float):
    likelihood = ["--likelihood", "gaussian"] * bool(is_float or rng.integers(3) == 0)
    choices = [
        ["train", "--data-dir", source, "--out", "new", *TRAIN[1:], *likelihood,
         *["--limit", "6"] * int(rng.integers(2)),
         *["--conditional"] * int(rng.integers(4) == 0), *["--binarize", "static"] * int(rng.integers(4) == 0)],
        ["evaluate", "run", "--data-dir", source, "--samples", "10", "--limit", "5", "--threads", "1"],
        ["evaluate", "conditional", "--data-dir", source, "--samples", "10", "--limit", "5", "--threads", "1"],
        ["reconstruct", "run", "--data-dir", source, "--count", "3", "--out", "out.png", "--threads", "1"],
        ["interpolate", "conditional", "--data-dir", source, "--count", "1", "--out", "out.png", "--threads", "1"],
        ["traverse", "made", "--data-dir", source, "--out", "out.png", "--threads", "1"],
        ["explore", "run", "--data-dir", source, "--out", "out.html", "--threads", "1"]]
    return choices[rng.choice(len(choices), p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.1])]


def commands_on_run(run, rng):
    choices = [["info", run], ["sample", run, "--count", "3", "--out", "out.npy", "--threads", "1"],
               ["sample", run, "--count", "3", "--out", "out.png", "--threads", "1"],
               ["evaluate", run, "--samples", "10", "--limit", "5", "--threads", "1"],
               ["reconstruct", run, "--count", "2", "--out", "out.png", "--threads", "1"], ["gradcheck", run],
               ["explore", run, "--out", "out.html", "--threads", "1"],
               ["train", "--out", run, "--resume", "--epochs", "2", "--quiet", "--threads", "1"],
               ["train", "--out", run, "--resume", "--quiet", "--threads", "1"]]
    return choices[rng.integers(len(choices))]


def make_case(good, folder, rng):
    """One file of a copy of what is good changed: the command, the names of which the message must say one, and what is
    read from, if it is data."""
    kind = str(rng.choice(list(KINDS)))
    for name in ("run", "conditional", "made"):
        shutil.copytree(good / name, folder / name)
    shutil.copy(good / "stored.npz", folder)
    if kind.startswith("odd"):
        source = folder / str(rng.choice(PICTURES))
        shutil.copytree(good / source.name, source)
        KINDS[kind][0](source, rng)
        return kind, commands_on_data(source.name, rng, False), [source.name], source
    if kind in ("config.json", "checkpoint.npz", "metrics.jsonl"):
        run = str(rng.choice(["run", "conditional", "made"]))
        target, command = folder / run / kind, commands_on_run(run, rng)
        source = None
        if kind == "metrics.jsonl":
            command = ["report", run]
    else:
        source = folder / kind
        if (good / kind).is_dir():
            shutil.copytree(good / kind, source)
            target = sorted(path for path in source.rglob("*") if path.is_file())
            target = target[rng.integers(len(target))]
        else:
            target = source
            shutil.copy(good / kind, target)
        command = commands_on_data(kind, rng, kind == "columns.npy")
    target = Target(target)
    target.good = target.read_bytes()
    ways = [*BYTES_CHANGED, *KINDS[kind] * (8 // len(KINDS[kind])), *REPLACED]
    what = ways[rng.integers(len(ways))]
    target.unlink()
    if what in REPLACED:
        what(target, rng)
    else:
        target.write_bytes(what(target.good, rng))
    return f"{kind}, {what.__name__}", command, [target.name, kind] if source else [target.name], source


# ---- What another reader finds

def read_otherwise(source):
    """The images of a data set (N, D) by other means than npvae's, training images first."""
    if source.suffix == ".npy":
        array = np.load(source)
        return (array * np.uint8(255) if array.dtype == bool else array).reshape(len(array), -1)
    if source.suffix == ".npz":
        with np.load(source) as file:
            return np.concatenate([file[key].reshape(len(file[key]), -1) for key in
                                   (("train", "test") if {"train", "test"} <= {*file.files}
                                    else ("x_train", "x_test"))])
    if source.suffix == ".csv":
        rows = [row for row in csv.reader(source.read_text(encoding="utf-8-sig").splitlines(keepends=True)) if row]
        return np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    if source.name.startswith("idx"):
        arrays = []
        for role in ("train", "t10k"):
            raw = next(source.glob(f"{role}-images*")).read_bytes()
            raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            arrays.append(np.frombuffer(raw, np.uint8, offset=16).reshape(struct.unpack(">I", raw[4:8])[0], -1))
        return np.concatenate(arrays)
    return None      # pictures: what Pillow makes of them is all that there is


# ---- A case is run

def snapshot(folder):
    """What is in a folder, without looking into what must not be opened."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        small = path.is_file() and not path.is_symlink() and state.st_size < 10 ** 8
        found[str(path.relative_to(folder))] = (state.st_mode, state.st_size, state.st_mtime_ns,
                                                zlib.crc32(path.read_bytes()) if small else 0)
    return found


def in_a_fork(command, folder, source):
    """Exit code, stdout, stderr, seconds of a processor and bytes of memory of the command in a fork of this process,
    which is killed if it does not end."""
    began, child = time.monotonic(), os.fork()
    if not child:
        code = 99
        try:
            os.chdir(folder)
            for number, name in ((1, ".stdout"), (2, ".stderr")):
                os.dup2(os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            resource.setrlimit(resource.RLIMIT_AS, (2 * BYTES, 2 * BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (3 * SECONDS, 3 * SECONDS))
            sys.argv = ["npvae"]
            if command[0] == "report":
                code = command_line.exit_code(lambda: print(report.write_report(Path(command[1]))))
            else:
                code = command_line.exit_code(lambda: program.main(command))
            if code == 0 and source and "--limit" not in command and (expected := read_otherwise(source)) is not None:
                images = data.load(source)
                loaded = np.concatenate([images.train_images, images.test_images])
                same = np.array_equal(loaded, expected.astype(loaded.dtype))
                code = 0 if same and np.array_equal(expected, expected.astype(loaded.dtype)) or (
                    same and expected.dtype.kind == "f") else 98
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    try:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(4 * SECONDS)
        _, status, used = os.wait4(child, 0)
    finally:
        signal.alarm(0)
    out, error = ((folder.parent / name).read_bytes().decode(errors="replace") for name in (".stdout", ".stderr"))
    seconds = used.ru_utime + used.ru_stime if status != 9 else time.monotonic() - began
    return os.waitstatus_to_exitcode(status), out, error, seconds, 1024 * used.ru_maxrss


def in_a_new_python(command, folder):
    done = subprocess.run([sys.executable, "-m", "npvae", *command], cwd=folder, capture_output=True, text=True,
                          timeout=10 * SECONDS, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return done.returncode, done.stdout, done.stderr, 0, 0


def faults(result, names, before, after):
    """What is wrong with how a command ended."""
    code, out, error, seconds, memory = result
    diverged = code == 1 and "holds NaN or infinity" in error and len(error.splitlines()) == 1
    if code not in (0, 2) and not diverged:      # numbers that no likelihood refuses, or a step too large
        yield f"exit code {code}"
    if seconds > SECONDS:
        yield f"{seconds:.0f} seconds"
    if memory > BYTES:
        yield f"{memory / 2 ** 20:.0f} MiB"
    if "Traceback" in out + error:
        yield "a traceback"
    lines = error.splitlines()
    if code == 2:
        if len(lines) != 1 or not error.startswith("npvae: ") or out:
            yield f"{len(lines)} lines of error, {len(out)} characters of output"
        if not any(name in error for name in names):
            yield "no name"
        if len(error) > 5000:
            yield f"{len(error)} characters in a line"
        if before != after:
            yield f"changed: {sorted(set(before.items()) ^ set(after.items()))[:3]}"
    elif code == 0 and error:
        yield "words beside the result"


def campaign(numbers, seed, keep=None, others=0):
    """Run the cases of these numbers; what went wrong, in a line each."""
    outcomes, wrong, slowest, largest = Counter(), [], 0.0, 0
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        good = Path(name) / "good"
        good.mkdir()
        save_pictures = make_good(good)
        for done, number in enumerate(numbers, 1):
            folder = Path(name) / "place" / "case"
            folder.mkdir(parents=True)
            what, command, names, source = make_case(good, folder, np.random.default_rng([seed, number]))
            runs.save_pictures = save_pictures if what == "odd names" else lambda *args: []
            before = snapshot(folder)
            results = [in_a_fork(command, folder, source)]
            if (results[0][0] == 2 and command[0] != "report"
                    and outcomes["in a new Python, too"] < others * done / len(numbers)):
                results.append(in_a_new_python(command, folder))
                outcomes["in a new Python, too"] += 1
            after = snapshot(folder)
            for result in results:
                found = list(faults(result, names, before, after))
                outcomes["wrong" if found else "refused" if result[0] == 2 else "harmless"] += result is results[0]
                slowest, largest = max(slowest, result[3]), max(largest, result[4])
                if found:
                    wrong.append(f"case {number} ({what}): {' '.join(command)}: {'; '.join(found)}: "
                                 f"{result[2][-700:].strip()}")
                    print(wrong[-1], flush=True)
                elif keep:
                    print(f"case {number} ({what}): {' '.join(command)}: {result[0]}: {result[2].strip()[:300]}",
                          flush=True)
            if keep:
                with contextlib.suppress(shutil.Error):      # a pipe stays behind
                    shutil.copytree(folder, Path(keep) / str(number), symlinks=True)
            shutil.rmtree(folder.parent)
    print(f"{sum(outcomes[name] for name in ('refused', 'harmless', 'wrong')):,} hostile files, seed {seed}: "
          f"{outcomes['refused']:,} refused, {outcomes['harmless']:,} harmless, {outcomes['wrong']:,} wrong; "
          f"{outcomes['in a new Python, too']} in a new Python, too; at most {slowest:.1f} s and "
          f"{largest / 2 ** 20:.0f} MiB", flush=True)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th case from number I on: N parts can "
                        "run beside each other, and are together what one run is")
    parser.add_argument("--keep", metavar="FOLDER", help="leave every case there, and print how it ended")
    parser.add_argument("--new", type=int, default=30, help="how many are given to a new Python, too")
    options = parser.parse_args()
    first, step = map(int, options.part.split("/"))
    sys.exit(bool(campaign(range(first, options.size, step), options.seed, options.keep, options.new)))
