"""Checkpoints: models and training runs in files.  Not part of the lesson.

A checkpoint is an uncompressed .npz file, which NumPy can open.  Its member `manifest.json` describes the contents, and
its zip comment is the SHA-256 of all bytes before it, so that a truncated or altered file is refused.

A model is the array `parameters`, one vector.  In the manifest, "shapes" lists the tensors that lie in it one after the
other, and "vae" holds the arguments of `VAE(...)`, where defaults may be left out.  NumPy alone can read it:

    file = np.load("model.npz")
    manifest, flat, tensors = json.loads(file["manifest.json"]), file["parameters"], {}
    for name, shape in manifest["shapes"].items():
        size = math.prod(shape)
        tensors[name], flat = flat[:size].reshape(shape), flat[size:]

What is computed from the tensors is documented in `model/vae.py`, `latents/`, `decoders.py` and the kernels.
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
from .system.terminal import one_line
from .validate import integer

FORMAT = "npvae checkpoint"
VERSION = 1
_DIGITS = 64      # hexadecimal digits of a SHA-256


class CheckpointError(ValueError):
    """A file that is not a checkpoint, is damaged, or does not fit the model or run."""


def write(path: str | Path, arrays: Mapping[str, Array], manifest: Mapping[str, Any]) -> None:
    """Write arrays and a manifest as one checkpoint, atomically.

    Raises OSError; and ValueError, before the file is touched, for arrays of objects, and for NaN and infinity in the
    manifest, which JSON cannot hold.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        head = {"format": FORMAT, "version": VERSION, **manifest}
        # A ZipInfo has a fixed date.  The clock's may lie before 1980, which a zip file cannot hold.
        archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(head, indent=1, allow_nan=False))
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
        archive.comment = b"0" * _DIGITS
    body = stream.getvalue()[:-_DIGITS]
    write_atomically(path, body + hashlib.sha256(body).hexdigest().encode())


Headers = Mapping[str, tuple[tuple[int, ...], str]]      # name -> shape and dtype of an array that is not read yet
Check = Callable[[dict[str, Any], Headers], None]


def read(path: str | Path, names: Collection[str] | None = None,
         check: Check | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the manifest of a checkpoint.

    names : the arrays to read; None for all
    check : called with the manifest and the shape and dtype of each array, before any array is read; raises ValueError,
        TypeError or KeyError for what does not fit

    Raises CheckpointError for a file that is missing, damaged, not a checkpoint, of a newer version, or holds pickles.
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
    except Exception as error:      # zipfile and json raise many kinds for crafted files
        reason = one_line(str(error)) or type(error).__name__
        raise CheckpointError(f"{path}: is not a checkpoint of npvae, or damaged: {reason}") from None


def _check_whole(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Raises ValueError if members were added or altered, or the comment is not the digest of all bytes before it."""
    size = os.fstat(file.fileno()).st_size
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise ValueError("it holds compressed members, which a checkpoint never does")
    if archive.getinfo("manifest.json").header_offset:
        raise ValueError("its first member does not stand at its beginning")
    if sum(member.file_size for member in archive.infolist()) > size:
        raise ValueError("its members are longer than the file")
    digest, end = hashlib.sha256(), size - _DIGITS
    file.seek(0)
    for start in range(0, end, PIECE):
        digest.update(file.read(min(PIECE, end - start)))
    if digest.hexdigest().encode() != archive.comment:
        raise ValueError("it was cut short or altered: its SHA-256 does not match")


def _read(path: str | Path, archive: zipfile.ZipFile, names: Collection[str] | None,
          check: Check | None) -> tuple[dict[str, Array], dict[str, Any]]:
    if archive.getinfo("manifest.json").file_size > MOST_TEXT:
        raise ValueError(f"its manifest is longer than {MOST_TEXT:,} bytes")
    manifest = parse_json(archive.read("manifest.json"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"its manifest does not name the format {FORMAT!r}")
    if (version := integer("its version", manifest.get("version"), 1)) > VERSION:
        raise CheckpointError(f"{path}: has format version {version}, but this npvae reads up to {VERSION}: a newer "
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
