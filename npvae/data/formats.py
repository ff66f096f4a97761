"""Data sets as they are published, told by the names of their files.  Not part of the lesson; `readers.load` asks here
for what is no plain folder of pictures and no single array or table.

    EMNIST, QMNIST       IDX files; EMNIST's stand on their side, and are turned
    KMNIST               kmnist-train-imgs.npz and three more, each of one array
    Kaggle               train.csv and test.csv, the latter without labels
    CIFAR-10, CIFAR-100  the binary version.  The Python version is of pickles, which can run code: never read
    .amat                text, 0 and 1: binarized MNIST in three files
    .mat                 an array of MATLAB, by SciPy
    .mtx, .h5ad          a matrix of counts, by SciPy or anndata
"""
import gzip
import importlib
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..system.files import open_regular
from .arrays import load_array, load_labels
from .idx import load_set, read_role
from .images import ImageData, fail, flat_shape, luma, parts, turned
from .reading import Reading, taken
from .tables import load_csv

_IDX = re.compile(r"(?P<set>.*?)-?(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx\d-(ubyte|int)(\.gz)?")
_MOST_LABELS = 2 ** 26      # bytes of QMNIST's labels, of which there are 60,000 times 8
_MATRIX, _FEW = (".mat", ".mtx", ".h5ad"), 5


def find_folder(folder: Path) -> Callable[[Path, int | None, Reading], ImageData] | None:
    """The function that reads such a folder; None for a folder of pictures.  Raises DataError for one that holds data
    of which a file must be named."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    if any(_IDX.fullmatch(name) for name in names) or any("-ubyte" in name for name in names):
        return _load_idx
    lower = {name.lower() for name in names}
    if any(re.fullmatch(r"k(uzushiji)?\w*-train-imgs\.npz", name) for name in names):
        return _load_kmnist
    if {"train.csv", "test.csv"} <= lower:
        return _load_kaggle
    if any(name.endswith(".amat") for name in lower):
        return _load_amats
    if any(name.endswith(".bin") for name in lower) and {"data_batch_1.bin", "train.bin"} & lower:
        return _load_cifar
    if {"data_batch_1", "batches.meta"} & lower or {"train", "test", "meta"} <= lower:
        fail(folder, "holds the Python version of CIFAR, which is made of pickles; these can run code and are never "
                     "read: download the binary version, cifar-10-binary.tar.gz or cifar-100-binary.tar.gz")
    data = [name for name in names if Path(name).suffix.lower() in (".npy", ".npz", ".csv", *_MATRIX)]
    if data and len(data) == len(names):
        _fail_to_choose(folder, data)
    return None


def _fail_to_choose(folder: Path, names: list[str]) -> None:
    """Raises DataError for a folder of arrays or tables, with the flags that read it."""
    tests = [name for name in names if "test" in name.lower()]
    trains = [name for name in names if "train" in name.lower() and not re.search("label|y_|target", name.lower())]
    hint = f"--data-dir {folder / names[0]}"
    if trains and tests:
        test = next((name for name in tests if name.lower() == trains[0].lower().replace("train", "test")), tests[0])
        hint = f"--data-dir {folder / trains[0]} --test-data {folder / test}"
    more = f" and {len(names) - _FEW} more" * (len(names) > _FEW)
    fail(folder, f"holds {', '.join(names[:_FEW])}{more}; name the file to read, as in {hint}")


def load_file(path: Path, limit: int | None, reading: Reading) -> ImageData | None:
    """The data of a file of these formats; None for another.  A file of a published set stands for the set."""
    lower = path.name.lower()
    if _IDX.fullmatch(path.name):
        return _load_idx(path, limit, reading)
    if lower.endswith(".amat"):
        return _divided(path, _amat(path), reading, limit)
    if lower.endswith(".bin") and lower.startswith(("data_batch", "test_batch", "train", "test")):
        return _load_cifar(path.parent, limit, reading)
    if lower.endswith(_MATRIX):
        return _divided(path, _matrix(path, reading), reading, limit, counts=not lower.endswith(".mat"))
    if lower.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib")):
        fail(path, "is of pickles, which can run code, and is never read: np.savez('x.npz', x=array) writes arrays")
    if lower.endswith((".xlsx", ".xls", ".parquet", ".feather", ".h5", ".hdf5", ".arff", ".tfrecord")):
        fail(path, "is of a format that is not read: pandas writes a table by frame.to_csv('x.csv', index=False), and "
                   "NumPy an array by np.save('x.npy', array)")
    return None


# ---- IDX

def _load_idx(path: Path, limit: int | None, reading: Reading) -> ImageData:
    """A folder of IDX files, or the set to which a file belongs."""
    folder = path if path.is_dir() else path.parent
    found = {one.name: match for one in sorted(folder.iterdir()) if (match := _IDX.fullmatch(one.name))}
    sets = sorted({match["set"] for match in found.values()})
    if not path.is_dir():
        chosen = found[path.name]["set"]
    elif len(sets) > 1:
        one = next(name for name in found if found[name]["set"] == sets[-1])
        fail(folder, f"holds {len(sets)} sets, {', '.join(one or 'of MNIST' for one in sets)}; name a file of one, as "
                     f"in --data-dir {folder / one}")
    else:
        chosen = sets[0] if sets else ""
    images = load_set(folder, None, limit) if not chosen else _load_named(folder, chosen, found, limit)
    if not (reading.transpose or chosen.startswith("emnist")):
        return images
    notes = () if reading.transpose else ("its images stand with rows for columns, as EMNIST's do, and were turned",)
    shape, (height, width) = images.image_shape, images.image_shape[:2]
    train, test = turned(images.train_images, shape), turned(images.test_images, shape)
    return images._replace(train_images=train, test_images=test, image_shape=(width, height),
                           notes=images.notes + notes)


def _load_named(folder: Path, chosen: str, found: Mapping[str, "re.Match[str]"], limit: int | None) -> ImageData:
    """The set whose files begin with this name."""
    files = {(match["part"] == "train", match["what"]): folder / name for name, match in found.items()
             if match["set"] == chosen}
    missing = [f"{chosen}-{'train' if train else 'test'}-{what}" for train in (True, False)
               for what in ("images", "labels") if (train, what) not in files]
    if missing:
        fail(folder, f"lacks {', '.join(missing)} of the set {chosen}; all four are needed")
    x_train, x_test = (read_role(files[train, "images"], 3, limit).array for train in (True, False))
    y_train, y_test = (_idx_labels(files[train, "labels"])[:limit] for train in (True, False))
    for x, y, train in ((x_train, y_train, True), (x_test, y_test, False)):
        if len(x) != len(y):
            fail(files[train, "labels"], f"holds {len(y)} labels for {len(x)} images; one each is needed")
    if x_train.shape[1:] != x_test.shape[1:]:
        fail(files[False, "images"], f"holds images {x_test.shape[1:]}; the training images are {x_train.shape[1:]}")
    return ImageData(x_train.reshape(len(x_train), -1), y_train, x_test.reshape(len(x_test), -1), y_test,
                     (x_train.shape[1], x_train.shape[2]), chosen, stored="uint8")


def _idx_labels(path: Path) -> np.ndarray:
    """Labels of an IDX file: bytes, or the first of QMNIST's eight integers of each image."""
    if "-int" not in path.name:
        return read_role(path, 1, None).array
    with open_regular(path) as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        try:
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(_MOST_LABELS)
            rows, columns = struct.unpack(">II", content[4:12])
            labels = np.frombuffer(content, ">i4", offset=12).reshape(rows, columns)
            if content[:4] != b"\x00\x00\x0c\x02":
                raise ValueError("its header is not that of a matrix of int32")
        except (ValueError, EOFError, struct.error, OSError) as error:
            fail(path, f"is no IDX file of integers as QMNIST has them ({error})", error)
    return labels[:, 0].astype(np.int64)


# ---- Arrays and tables in several files

def _load_kmnist(folder: Path, limit: int | None, reading: Reading) -> ImageData:
    """KMNIST: {kmnist,k49}-{train,test}-{imgs,labels}.npz."""
    prefix = next(path.name for path in sorted(folder.iterdir()) if path.name.endswith("-train-imgs.npz"))[:-15]
    whole = replace(reading, whole=True)
    train, test = (load_array(_existing(folder, f"{prefix}-{part}-imgs.npz"), limit, whole)
                   for part in ("train", "test"))
    y_train, y_test = (load_labels(_existing(folder, f"{prefix}-{part}-labels.npz"))[:limit]
                       for part in ("train", "test"))
    for part, images, labels in (("train", train, y_train), ("test", test, y_test)):
        if len(labels) < len(images.train_images):
            fail(folder / f"{prefix}-{part}-labels.npz", f"holds {len(labels)} labels; one for each image is needed")
    return train._replace(train_labels=y_train, test_images=test.train_images, test_labels=y_test, name=prefix,
                          split="")


def _existing(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        fail(folder, f"lacks {name}")
    return folder / name


def _load_kaggle(folder: Path, limit: int | None, reading: Reading) -> ImageData:
    """train.csv and test.csv; the columns of both must be the same but for the labels, which the latter may lack."""
    train_path, test_path = (next(path for path in folder.iterdir() if path.name.lower() == f"{part}.csv")
                             for part in ("train", "test"))
    train = load_csv(train_path, replace(reading, whole=True))
    test = load_csv(test_path, replace(reading, whole=True, columns=train.columns or None, label_column=(
        reading.label_column if train.train_labels is None or _has_column(test_path, reading) else None)))
    if test.image_shape != train.image_shape:
        fail(test_path, f"holds rows of {test.train_images.shape[1]} numbers, train.csv {train.train_images.shape[1]}; "
                        f"they must agree: --data-dir {train_path} takes the test part from train.csv")
    note = () if test.train_labels is not None or train.train_labels is None else (
        f"its test.csv has no labels: --data-dir {train_path} takes a test part with labels from train.csv",)
    return train._replace(test_images=test.train_images, test_labels=test.train_labels, split="",
                          name=folder.resolve().name, notes=train.notes + note)


def _has_column(path: Path, reading: Reading) -> bool:
    """Whether the first line of a table names the column of labels."""
    with open_regular(path) as file:
        first = file.readline(2 ** 20).decode("utf-8-sig", "replace").lower()
    return (reading.label_column or "label").lower() in re.split(r"[,;\t\"\s]+", first)


# ---- Text, and MATLAB's and the biologists' matrices

def _amat(path: Path) -> np.ndarray:
    """The numbers of an .amat file, separated by spaces; 0 and 1 as bytes."""
    try:
        with open_regular(path) as file:
            numbers: np.ndarray = np.loadtxt(file, np.float32, ndmin=2)
    except (ValueError, OSError) as error:
        fail(path, f"is no table of numbers with spaces between them ({error})", error)
    return numbers.astype(np.uint8) if numbers.size and np.isin(numbers, (0, 1)).all() else numbers


def _load_amats(folder: Path, limit: int | None, reading: Reading) -> ImageData:
    """Files of binarized MNIST: *train.amat, *test.amat, and *valid.amat, which is in neither part."""
    files = {part: path for path in sorted(folder.iterdir()) for part in ("train", "valid", "test")
             if path.name.lower().endswith(f"{part}.amat")}
    if not {"train", "test"} <= {*files}:
        fail(folder, "lacks a file *train.amat or *test.amat; name the file to read, as in --data-dir "
                     f"{next(folder.glob('*.amat'))}")
    train, test = _amat(files["train"]), _amat(files["test"])
    if train.shape[1] != test.shape[1]:
        fail(files["test"], f"has rows of {test.shape[1]} numbers, {files['train'].name} {train.shape[1]}")
    notes = (f"its {files['valid'].name} is in neither part",) if "valid" in files else ()
    return ImageData(train[:limit], None, test[:limit], None, flat_shape(train.shape[1]), folder.resolve().name,
                     notes=notes)


def _matrix(path: Path, reading: Reading) -> np.ndarray:
    """The one matrix of a .mat, .mtx or .h5ad file, dense."""
    found: Any
    try:
        if path.suffix.lower() == ".mtx":
            found = _needed("scipy.io", "scipy", path).mmread(path)
        elif path.suffix.lower() == ".h5ad":
            found = _needed("anndata", "anndata", path).read_h5ad(path).X
        else:
            content = _needed("scipy.io", "scipy", path).loadmat(path)
            names = [name for name in content if name[:1] != "_" and getattr(content[name], "ndim", 0) == 2
                     and min(content[name].shape) > 1 and content[name].dtype.kind in "buif"]
            if len(names) != 1:
                fail(path, f"holds the matrices {', '.join(names) or 'none'}; a file of one is read: in MATLAB, "
                           "save('x.mat', 'x')")
            found = content[names[0]]
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        fail(path, f"cannot be read ({error})", error)
    numbers = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    return np.ascontiguousarray(numbers.T if reading.transpose else numbers)


def _needed(module: str, package: str, path: Path) -> ModuleType:
    """A module of a package that need not be installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        fail(path, f"needs the package {package}: pip install {package}")


def _divided(path: Path, numbers: np.ndarray, reading: Reading, limit: int | None, counts: bool = False) -> ImageData:
    """A matrix as a data set, one row each; a matrix of counts has rows that are no images."""
    stored = str(numbers.dtype)
    if numbers.dtype != np.uint8:
        numbers = numbers.astype(np.float32)
    if not np.isfinite(numbers).all():
        fail(path, "holds NaN or infinity (as float32); only finite numbers are allowed")
    train, test = parts(path, len(numbers), reading, limit=limit)
    shape = (1, numbers.shape[1]) if counts else flat_shape(numbers.shape[1])
    return ImageData(taken(numbers, train), None, taken(numbers, test), None, shape, path.stem, stored=stored,
                     split=reading.test_part)


# ---- CIFAR

def _load_cifar(folder: Path, limit: int | None, reading: Reading) -> ImageData:
    """The binary version of CIFAR-10 or CIFAR-100: for each image its label, in CIFAR-100 after a coarser one, and
    32 x 32 bytes of red, of green and of blue."""
    ten = (folder / "data_batch_1.bin").exists()
    labels, size = (1, 10) if ten else (2, 100)
    trains = sorted(folder.glob("data_batch_*.bin")) if ten else [folder / "train.bin"]
    test = _existing(folder, "test_batch.bin" if ten else "test.bin")
    (x_train, y_train), (x_test, y_test) = _cifar(trains, labels, limit), _cifar([test], labels, limit)
    shape: tuple[int, ...] = (32, 32, 3)
    if reading.grey:
        x_train, x_test = map(luma, (x_train, x_test))
        shape = shape[:2]
    return ImageData(x_train, y_train, x_test, y_test, shape, f"cifar-{size}", ink=False, stored="uint8")


def _cifar(paths: list[Path], labels: int, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3072), red, green and blue of a pixel side by side, and the labels (N,)."""
    pieces, wanted = list[np.ndarray](), limit
    for path in paths:
        with open_regular(path) as file:
            content = file.read(-1 if wanted is None else wanted * (labels + 3072))
        if not content or len(content) % (labels + 3072):
            fail(path, f"is no batch of CIFAR: its {len(content):,} bytes are no multiple of {labels + 3072:,}")
        pieces.append(np.frombuffer(content, np.uint8).reshape(-1, labels + 3072))
        if wanted is not None and (wanted := wanted - len(pieces[-1])) == 0:
            break
    rows = np.concatenate(pieces)
    x = rows[:, labels:].reshape(-1, 3, 1024).swapaxes(1, 2).reshape(len(rows), -1)
    return np.ascontiguousarray(x), rows[:, labels - 1].astype(np.int64)
