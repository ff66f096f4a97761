"""Checkpoints that are never silently wrong.  Not part of the lesson.

A checkpoint is an ordinary uncompressed .npz (NumPy opens it) whose member `manifest.json` says what it holds, and
whose zip comment is the SHA-256 of every byte before it: a file that was cut short or altered by one bit is refused.

A model is the array `parameters`, one vector.  In the manifest "shapes" names the tensors that lie in it one after the
other, and "vae" is what `VAE(...)` was given (what has its default there may be missing).  NumPy alone reads it:

    file = np.load("model.npz")
    manifest, flat, tensors = json.loads(file["manifest.json"]), file["parameters"], {}
    for name, shape in manifest["shapes"].items():
        size = math.prod(shape)
        tensors[name], flat = flat[:size].reshape(shape), flat[size:]

What is computed of them stands in the docstrings of model.py, of flows.py, priors.py, second_layer.py and made.py, and
of the kernels that these name.
"""
import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .files import MOST_TEXT, open_regular, parse_json, write_atomically
from .npy import open_member, open_zip
from .params import Array
from .validate import integer

FORMAT, VERSION = "npvae checkpoint", 1
_DIGITS = 64      # of a SHA-256 in hexadecimal


class CheckpointError(ValueError):
    """The one error of this module: a file that is no checkpoint, is damaged, or does not fit."""


def write(path: str | Path, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> None:
    """Write arrays and a manifest (anything JSON can hold) as one checkpoint, atomically.  Raises OSError."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        head = {"format": FORMAT, "version": VERSION, **manifest}
        # A ZipInfo has a date of its own: a clock before 1980, which no zip file can hold, loses no checkpoint.
        archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(head, indent=1))
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
        archive.comment = b"0" * _DIGITS
    body = stream.getvalue()[:-_DIGITS]
    write_atomically(path, body + hashlib.sha256(body).hexdigest().encode())


Headers = Mapping[str, tuple[tuple[int, ...], str]]      # name -> shape and type of an array that is not read yet


def read(path: str | Path, names: Collection[str] | None = None,
         check: Callable[[dict[str, Any], Headers], None] | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the manifest of a checkpoint.

    names : of the arrays that are needed; None for all
    check : is given the manifest, and shape and type of each array, before any array is in memory; raises ValueError,
        TypeError or KeyError for what does not fit

    Raises CheckpointError for a file that is missing, no checkpoint, damaged, of a newer version, or holds pickles.
    """
    try:
        with open_regular(path) as file:
            _check_digest(path, file)
            return _read(path, file, names, check)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError as error:
        raise CheckpointError(f"{path}: there is no memory for it: {error}") from None
    except Exception as error:      # whatever zipfile and the like raise at bytes that were made to mislead
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: is not a checkpoint of npvae: {reason}") from None


def _check_digest(path: str | Path, file: BinaryIO) -> None:
    """The last bytes are the digest of those before them, and a zip ends with them.  Gigabytes that were put into it
    are found without being read."""
    size = os.fstat(file.fileno()).st_size
    is_zip = file.read(2) == b"PK"
    if is_zip and size > _DIGITS + 22:
        file.seek(size - _DIGITS - 22)
        mark, length, start = struct.unpack("<4s8xII2x", file.read(22))      # where members are listed
        is_whole = mark == b"PK\5\6" and (start + length == size - _DIGITS - 22 or start == 2 ** 32 - 1)
        digest, left = hashlib.sha256(), size - _DIGITS
        file.seek(0)
        while is_whole and left:
            piece = file.read(min(left, 2 ** 20))
            digest.update(piece)
            left -= len(piece) or left
        if is_whole and digest.hexdigest().encode() == file.read():
            return
    kind = ("is damaged (cut short or altered), or not a checkpoint of npvae" if is_zip
            else "is not a checkpoint of npvae")
    raise CheckpointError(f"{path}: {kind} (its SHA-256 does not match)")


def _read(path: str | Path, file: BinaryIO, names: Collection[str] | None,
          check: Callable[[dict[str, Any], Headers], None] | None) -> tuple[dict[str, Array], dict[str, Any]]:
    with open_zip(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it holds compressed members, and those of a checkpoint are stored as they are")
        if sum(member.file_size for member in archive.infolist()) > os.fstat(file.fileno()).st_size:
            raise ValueError("its members are longer than the file")
        if "manifest.json" not in archive.namelist():
            raise ValueError("it holds no manifest.json")
        if archive.getinfo("manifest.json").file_size > MOST_TEXT:
            raise ValueError(f"its manifest is longer than {MOST_TEXT:,} bytes")
        manifest = parse_json(archive.read("manifest.json"))
        version = manifest.get("version") if isinstance(manifest, dict) else None
        if version is None or manifest.get("format") != FORMAT:
            raise ValueError("its manifest says neither this format nor its version")
        if integer("its version", version, 1) > VERSION:
            raise CheckpointError(f"{path}: has format version {version}, this npvae reads up to {VERSION}; a newer "
                                  "npvae is needed")
        members = [name for name in archive.namelist() if name.endswith(".npy")]
        headers = {}
        for name in members:
            with (stored := open_member(archive, name)).stream:
                headers[name.removesuffix(".npy")] = stored.shape, stored.dtype.name
        if check:
            check(manifest, headers)
        arrays = {}
        for name in headers if names is None else [name for name in headers if name in names]:
            with (stored := open_member(archive, f"{name}.npy")).stream:
                arrays[name], = stored.read()
    return arrays, manifest
