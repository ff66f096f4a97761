"""Data sets: MNIST is included; IDX files, arrays, tables and folders of pictures are read.  Not part of the lesson.

    readers   MNIST and other IDX files, .npy and .npz; binarization
    images    folders of pictures, tables in .csv
    labels    labels, as the classes of a conditional model
    npy       arrays in .npy and .npz files, of which only the rows needed are read
"""
from typing import TYPE_CHECKING

from ..system.later import later

if TYPE_CHECKING:
    from .images import DataError, ImageData, Progress, count_to_train, fail, flat_shape, load_csv, load_pictures
    from .readers import (
        ALLOWED, BINARIZATIONS, binarize, holds_idx, load, load_array, load_fashion_mnist, load_idx_folder, load_mnist,
        read_idx, to_float)

__getattr__ = later(__name__, "images", "readers", "labels")

__all__ = [
    "DataError", "ImageData", "Progress", "count_to_train", "fail", "flat_shape", "load_csv", "load_pictures",
    "ALLOWED", "BINARIZATIONS", "binarize", "holds_idx", "load", "load_array", "load_fashion_mnist",
    "load_idx_folder", "load_mnist", "read_idx", "to_float"]
