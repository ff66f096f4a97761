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
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import open_regular, write_atomically
from .params import Array

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


def read(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the manifest of a checkpoint.

    Raises CheckpointError for a file that is missing, no checkpoint, damaged, of a newer version, or holds pickles.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    body, digest = data[:-_DIGITS], data[-_DIGITS:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        kind = ("is damaged (cut short or altered), or not a checkpoint of npvae" if data.startswith(b"PK")
                else "is not a checkpoint of npvae")
        raise CheckpointError(f"{path}: {kind} (its SHA-256 does not match)")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            if manifest.get("format") != FORMAT:
                raise CheckpointError(f"{path}: is not a checkpoint of npvae")
            if manifest["version"] > VERSION:
                raise CheckpointError(f"{path}: has format version {manifest['version']}, this npvae reads up to "
                                      f"{VERSION}; a newer npvae is needed")
            arrays = {name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)),
                                                                          allow_pickle=False)
                      for name in archive.namelist() if name.endswith(".npy")}
    except CheckpointError:
        raise
    except Exception as error:      # whatever zipfile, json, numpy or malloc raise at bytes that were made to mislead
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: is not a checkpoint of npvae: {reason}") from None
    return arrays, manifest
