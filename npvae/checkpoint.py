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

What is computed of them stands in the docstrings of `model/vae.py`, of the parts in `latents/` and of `decoders.py`,
and of the kernels that these name.
"""
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .data.npy import PIECE, open_member, open_zip
from .params import Array
from .system.files import MOST_TEXT, open_regular, parse_json, write_atomically
from .validate import integer

FORMAT = "npvae checkpoint"
VERSION = 1
_DIGITS = 64      # of a SHA-256 in hexadecimal


class CheckpointError(ValueError):
    """The one error of this module: a file that is no checkpoint, is damaged, or does not fit."""


def write(path: str | Path, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> None:
    """Write arrays and a manifest as one checkpoint, atomically.  Raises OSError, and before the file is touched
    ValueError for an array of objects and for numbers in the manifest that JSON has not: NaN and infinity."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        head = {"format": FORMAT, "version": VERSION, **manifest}
        # A ZipInfo has a date of its own: a clock before 1980, which no zip file can hold, loses no checkpoint.
        archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(head, indent=1, allow_nan=False))
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
        with open_regular(path) as file, open_zip(file) as archive:
            _check_whole(file, archive)
            return _read(path, archive, names, check)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError as error:
        raise CheckpointError(f"{path}: there is no memory for it: {error}") from None
    except Exception as error:      # whatever zipfile and the like raise at bytes that were made to mislead
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: is not a checkpoint of npvae, or damaged: {reason}") from None


def _check_whole(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Nothing was put in, which is found without reading it, and the comment is the digest of all before it."""
    size = os.fstat(file.fileno()).st_size
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("it holds compressed members, and those of a checkpoint are stored as they are")
    if archive.getinfo("manifest.json").header_offset:
        raise ValueError("its first member is not where it was written")
    if sum(member.file_size for member in archive.infolist()) > size:
        raise ValueError("its members are longer than the file")
    digest, end = hashlib.sha256(), size - _DIGITS
    file.seek(0)
    for start in range(0, end, PIECE):
        digest.update(file.read(min(PIECE, end - start)))
    if digest.hexdigest().encode() != archive.comment:
        raise ValueError("it was cut short or altered, its SHA-256 does not match")


def _read(path: str | Path, archive: zipfile.ZipFile, names: Collection[str] | None,
          check: Callable[[dict[str, Any], Headers], None] | None) -> tuple[dict[str, Array], dict[str, Any]]:
    if archive.getinfo("manifest.json").file_size > MOST_TEXT:
        raise ValueError(f"its manifest is longer than {MOST_TEXT:,} bytes")
    manifest = parse_json(archive.read("manifest.json"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError("its manifest does not say that it is one")
    if (version := integer("its version", manifest.get("version"), 1)) > VERSION:
        raise CheckpointError(f"{path}: has format version {version}, this npvae reads up to {VERSION}; a newer "
                              "npvae is needed")
    headers = {}
    for name in archive.namelist():
        if name.endswith(".npy"):
            with (stored := open_member(archive, name)).stream:
                headers[name.removesuffix(".npy")] = stored.shape, stored.dtype.name
    if check:
        check(manifest, headers)
    arrays = {}
    for name in headers:
        if names is None or name in names:
            with (stored := open_member(archive, f"{name}.npy")).stream:
                arrays[name], = stored.read()
    return arrays, manifest
