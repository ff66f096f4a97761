"""Data sets: MNIST is included; IDX files, arrays, tables and folders of pictures are read.  Not part of the lesson.

    readers   `load`, for all formats; binarization
    arrays    images in .npy and .npz files
    idx       MNIST and other IDX files
    formats   data sets as they are published: EMNIST, KMNIST, CIFAR, folders of Kaggle, matrices of counts
    images    folders of pictures
    tables    .csv files, of images or of columns of several kinds
    columns   which kind of numbers each column holds
    frames    tables in memory: data frames, dicts of columns, arrays
    labels    labels, as the classes of a conditional model
    npy       arrays in .npy and .npz files, of which only the rows needed are read
    stored    rows of an array that stay in its file
    codes     files of results: codes, scores, samples
    reading   how data are to be read: what the flags of reading say
    meaning   what the numbers are, and the line that says how they were taken
"""
from typing import TYPE_CHECKING

from ..system.later import later

if TYPE_CHECKING:
    from .arrays import load_array
    from .idx import holds_idx, load_fashion_mnist, load_idx_folder, load_mnist, read_idx
    from .images import DataError, ImageData, Progress, fail, flat_shape, load_pictures
    from .readers import ALLOWED, BINARIZATIONS, binarize, load, to_float
    from .frames import load_table
    from .reading import TEST_PARTS, VALUES, Reading, size_of
    from .tables import load_csv

__getattr__ = later(__name__, "arrays", "idx", "images", "tables", "frames", "readers", "labels", "reading")

__all__ = [
    "DataError", "ImageData", "Progress", "fail", "flat_shape", "load_csv", "load_table", "load_pictures",
    "ALLOWED", "BINARIZATIONS", "binarize", "holds_idx", "load", "load_array", "load_fashion_mnist",
    "load_idx_folder", "load_mnist", "read_idx", "to_float", "TEST_PARTS", "VALUES", "Reading", "size_of"]
