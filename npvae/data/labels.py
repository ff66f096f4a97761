"""Labels of a data set, numbers or names, as the classes 0, 1, ... of a conditional model.  Not part of the lesson;
`images.py` and `readers.py` read the labels.
"""
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..system.terminal import plain
from .images import ImageData, fail

Class = int | str      # a label as config.json holds it


def find_classes(images: ImageData, source: str | Path) -> list[Class]:
    """The distinct labels of the training images, sorted.  Raises DataError, which names `source`, if there are no
    labels."""
    for part, labels in (("training", images.train_labels), ("test", images.test_labels)):
        if labels is None:
            fail(source, f"has no labels of its {part} images, which a conditional model needs: mnist, IDX files, "
                         "pictures in a sub-folder for each class, a .csv with a column label, or an .npz with labels "
                         "of both sets fit")
    return list(np.unique(np.asarray(images.train_labels)).tolist())


def class_codes(labels: np.ndarray | None, classes: Sequence[Class], source: str | Path) -> np.ndarray | None:
    """The index of each label (N,) in `classes`, int64; None if there are no classes.

    3 and "3" are the same label: in folders called 3 and x all labels are names.  Raises DataError, which names
    `source`, for images without labels and for a label that is not among the classes.
    """
    if not classes:
        return None
    if labels is None:
        fail(source, f"has no labels, and this model needs one of its classes for each image: {listed(classes)}")
    found, where = np.unique(labels, return_inverse=True)
    number = {str(name): i for i, name in enumerate(classes)}
    for name in found.tolist():
        if str(name) not in number:
            fail(source, f"has the label {name}, which is none of the classes that the model was trained on: "
                         f"{listed(classes)}")
    return np.array([number[str(name)] for name in found.tolist()], np.int64)[where]


def listed(classes: Sequence[Class]) -> str:
    """The names of at most twenty classes, and how many more there are."""
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    return ", ".join(plain(str(name)) for name in classes[:20]) + more
