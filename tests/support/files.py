"""Small IDX files and data sets for the tests, and what a refusal must look like."""
import gzip
import struct

import numpy as np
import pytest

from npvae.data import DataError, Reading

ROLES = {"train-images": 3, "train-labels": 1, "t10k-images": 3, "t10k-labels": 1}
LAST = Reading(test_part="last")      # the rows stay in their order
STANDARD = {role: f"{role}-idx{ndim}-ubyte" for role, ndim in ROLES.items()}


def idx_bytes(array, type_byte=0x08):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, type_byte, array.ndim, *array.shape) + array.tobytes()


def header(*shape):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def refusal(call, *args, name, says):
    """The message of the DataError that call raises: one line, naming the file and then saying what is wrong."""
    with pytest.raises(DataError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert name in message and says in message, message
    assert message.index(name) <= message.index(says)
    return message


def small_set(rng, n_train=7, n_test=5, height=3, width=4):
    return {"train-images": rng.integers(0, 256, (n_train, height, width), dtype=np.uint8),
            "train-labels": rng.integers(0, 10, n_train, dtype=np.uint8),
            "t10k-images": rng.integers(0, 256, (n_test, height, width), dtype=np.uint8),
            "t10k-labels": rng.integers(0, 10, n_test, dtype=np.uint8)}


def write_folder(folder, content, names=STANDARD):
    folder.mkdir(exist_ok=True)
    for role, array in content.items():
        raw = idx_bytes(array)
        (folder / names[role]).write_bytes(gzip.compress(raw) if names[role].endswith(".gz") else raw)
    return folder


def same_images(loaded, content):
    """Whether an ImageData holds exactly the four arrays of content, images as rows."""
    train, test = content["train-images"], content["t10k-images"]
    return (np.array_equal(loaded.train_images, train.reshape(len(train), -1))
            and np.array_equal(loaded.test_images, test.reshape(len(test), -1))
            and np.array_equal(loaded.train_labels, content["train-labels"])
            and np.array_equal(loaded.test_labels, content["t10k-labels"]))
