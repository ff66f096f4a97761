"""Your own images: a folder of pictures.  Not part of the lesson; `tables.py` and `readers.py` read other formats.

`ImageData` is what every loader returns, `DataError` what every loader raises.
"""
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from ..likelihoods.columns import Column
from ..likelihoods.support import part_of
from ..system.files import open_regular
from .reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

#: wraps the loop over the files to be read, to show how far it is
Progress = Callable[[Sequence[Path]], Iterable[Path]]

_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}      # left in folders by Windows and macOS, and not hidden
_PICTURES = "pictures such as .png and .jpg"
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")      # not EPS, which Pillow gives to another program
_MOST_PIXELS, _MOST_BYTES = 2**24, 2**28      # of a picture: 4096 x 4096 is far more than a dense network takes


class DataError(ValueError):
    """A file or array that cannot be used.  One line says which, what is wrong with it, and what is allowed."""


class ImageData(NamedTuple):
    """A data set.  Images are C-contiguous rows of uint8 or float32, labels uint8, int64, text, or None."""

    train_images: np.ndarray  # (N, D)
    train_labels: np.ndarray | None  # (N,)
    test_images: np.ndarray  # (M, D)
    test_labels: np.ndarray | None  # (M,)
    image_shape: tuple[int, ...]  # (height, width) or, in colour, (height, width, 3), with a product of D
    name: str
    ink: bool = True  # a pixel of 1 is black, as ink on paper; False: it is white, as in photographs
    columns: tuple[Column, ...] = ()  # of a table; empty for images
    notes: tuple[str, ...] = ()  # what was guessed or lost in reading, each a sentence without its subject, the file
    stored: str = ""  # the type of the numbers in the file, such as "uint8"; "" for text
    split: str = ""  # how the test part was chosen: "random" or "last"; "" for one that the file names
    values: str = ""  # what the numbers were taken for, a name in `reading.VALUES`
    line: str = ""  # what was read, in a line for people

    def first(self, limit: int | None) -> "ImageData":
        """The first `limit` images of each set; all for None."""
        if limit is None:
            return self
        labels = (None if labels is None else labels[:limit] for labels in (self.train_labels, self.test_labels))
        train, test = (part_of(images, slice(limit)) for images in (self.train_images, self.test_images))
        return self._replace(train_images=train, train_labels=next(labels), test_images=test, test_labels=next(labels))


def fail(path: str | Path, what: str, cause: BaseException | None = None) -> NoReturn:
    """Raises DataError with "path: what" on one line, even if the path or a quoted message holds line breaks."""
    raise DataError(" ".join(f"{path}: {what}".splitlines())) from cause


def parts(path: str | Path, count: int, reading: Reading, what: str = "", limit: int | None = None
          ) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the training part and of the test part of a set of `count` images that has none of its own; see
    `Reading.parts`.  Raises DataError for a single image; `what` names the part of the file."""
    if count < 2 and not reading.whole:
        fail(path, f"{what}holds 1 image; at least 2 are needed, one to train and one to test")
    return reading.parts(count, limit)


def flat_shape(pixels: int) -> tuple[int, int]:
    """The (height, width) of an image given as a row of numbers: a square if possible, else a line."""
    side = math.isqrt(pixels)
    return (side, side) if side * side == pixels else (1, pixels)


def luma(images: np.ndarray) -> np.ndarray:
    """Grey (N, D) of images in colour (N, 3 D), as ITU-R 601 weighs them, in the same type; bytes as Pillow rounds
    them."""
    colours = images.reshape(len(images), images.shape[1] // 3, 3)
    if images.dtype == np.uint8:
        sums: np.ndarray = colours.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
        return (sums >> 16).astype(np.uint8)
    grey: np.ndarray = colours @ np.array([0.299, 0.587, 0.114], images.dtype)
    return grey


def turned(images: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    """Rows and columns of each image (N, D) of this shape change places."""
    rows: np.ndarray = images.reshape(-1, *image_shape).swapaxes(1, 2).reshape(images.shape)
    return rows


# ---- A folder of pictures

def load_pictures(folder: str | Path, progress: Progress = iter, limit: int | None = None,
                  reading: Reading = Reading()) -> ImageData:
    """Pictures of one size (PNG, JPEG, GIF, BMP, TIFF, WebP, PPM), sorted by name with numbers as numbers: 2 before 10.
    With `limit`, only the first `limit` pictures of each set are opened.

    Sub-folders `train` and `test` are the two sets; without them `reading` says how the test part is chosen.  Other
    sub-folders are classes: their names are the labels, int64 if all are integers.  Pictures of the classes alternate,
    so that the last and the first N images hold some of each class.

    Colours become grey (ITU-R 601 luma) or stay, as `reading` says, transparent pixels are put on white, 16 bits are
    rounded to 8, only the first frame of an animation is read, and a camera's rotation flag is applied.  Pictures of
    several sizes are brought to `reading.resize`: the middle is cut out and scaled.  Hidden files are ignored.
    Raises DataError for files that are not pictures, pictures of different sizes, and folders inside of classes.
    """
    folder = Path(folder)
    names = [path.name for path in sum(_entries(folder), [])]
    halves = [part for part in ("train", "test") if part in names]
    if halves and (len(halves), len(names)) != (2, 2):
        fail(folder, f"holds {' and '.join(halves)} but not these two sub-folders alone; a split needs both and "
                     "nothing beside them")
    if halves:
        sets = [_pictures(folder / half) for half in halves]
        labels = [_labels(pictures) for pictures in sets]
        sets = [pictures[:limit] for pictures in sets]
    else:
        pictures = _pictures(folder)
        rows, names_found = parts(folder, len(pictures), reading, limit=limit), _labels(pictures)
        sets = [[pictures[i] for i in part] for part in rows]
        labels = [None if names_found is None else names_found[part] for part in rows]
    images, shape, notes = read_pictures([path for pictures in sets for path, _ in pictures], progress, reading)
    if reading.transpose:
        images, shape = turned(images, shape), (shape[1], shape[0], *shape[2:])
    n = len(sets[0])
    return ImageData(images[:n], labels[0], images[n:], labels[1], shape, folder.resolve().name, ink=False,
                     notes=notes, stored="levels", split="" if halves else reading.test_part)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the sub-folders in a folder, without hidden ones, sorted by name with numbers as numbers."""
    try:
        paths = [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _CLUTTER]
    except OSError as error:
        fail(folder, f"cannot be read ({error.strerror})", error)
    paths.sort(key=lambda path: ([int(part) if part.isdecimal() else part.lower()
                                  for part in re.split(r"(\d+)", path.name)], path.name))
    return [path for path in paths if not path.is_dir()], [path for path in paths if path.is_dir()]


def _pictures(folder: Path) -> list[tuple[Path, str]]:
    """The pictures in a folder, in the order of use, each with its class; "" if there are no classes."""
    files, classes = _entries(folder)
    if files and classes:
        fail(folder, f"holds files ({files[0].name}) beside sub-folders ({classes[0].name}); only one or the other is "
                     "allowed")
    turns = [(0.0, path, "") for path in files]
    for one in classes:
        inside, deeper = _entries(one)
        if deeper or not inside:
            found = f"a sub-folder ({deeper[0].name})" if deeper else "nothing"
            fail(one, f"holds {found}; the folder of a class must hold {_PICTURES}, and nothing else")
        turns += [((i + 0.5) / len(inside), path, one.name) for i, path in enumerate(inside)]
    if not turns:
        fail(folder, f"holds nothing; {_PICTURES} are needed, or MNIST-like files (train-images-idx3-ubyte, ...)")
    return [(path, name) for _, path, name in sorted(turns, key=lambda turn: turn[0])]


def _labels(pictures: list[tuple[Path, str]]) -> np.ndarray | None:
    """The classes (N,), as int64 if all are integers, else as text; None if there are no classes."""
    names = [name for _, name in pictures]
    if not any(names):
        return None
    whole = all(re.fullmatch("[0-9]{1,18}", name) for name in names)
    return np.array(names, dtype=np.int64 if whole else np.str_)


class Pictures(NamedTuple):
    """Pictures as rows (N, D), uint8; the shape of one, (height, width) or (height, width, 3); and what was lost."""

    rows: np.ndarray
    image_shape: tuple[int, ...]
    notes: tuple[str, ...]


def read_pictures(paths: list[Path], progress: Progress, reading: Reading = Reading()) -> Pictures:
    """The pictures in these files, grey or with `reading.rgb` in colour, brought to `reading.resize` if that is given.
    """
    images, lost = np.empty((0, 0, 0), np.uint8), dict[str, Path]()
    for i, path in enumerate(progress(paths)):
        image = _pixels(path, reading, lost)
        if not i:
            images = np.empty((len(paths), *image.shape), np.uint8)
        elif image.shape != images.shape[1:]:
            (height, width), (first_height, first_width) = image.shape[:2], images.shape[1:3]
            fail(path, f"is {width} x {height} pixels, {paths[0]} {first_width} x {first_height}; all pictures must be "
                       f"of one size: --resize {min(64, height)}x{min(64, width)}, as an example, cuts out the middle "
                       "of each and scales it")
        images[i] = image
    return Pictures(images.reshape(len(paths), -1), images.shape[1:],
                    tuple(f"{what} (as in {first.name})" for what, first in lost.items()))


def _pixels(path: Path, reading: Reading, lost: dict[str, Path]) -> np.ndarray:
    """One picture (height, width) or (height, width, 3), uint8.  Into `lost` goes what of it was lost, with its path if
    it is the first."""
    from PIL import Image, ImageOps
    try:
        with _in_silence(), open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                fail(path, f"is larger than {_MOST_BYTES:,} bytes; a smaller picture is needed")
            with Image.open(file, formats=_FORMATS) as picture:
                _check_pixels(path, *picture.size)
                of_c = picture.format == "TIFF" and file.fileno() != 2      # 2 if stderr is closed
                with _stderr_is_nowhere() if of_c else nullcontext():
                    picture.load()
                upright, of_16_bits = ImageOps.exif_transpose(picture), picture.format in ("PNG", "PPM")
                if upright.mode.startswith("I;16") or upright.mode == "I" and of_16_bits:
                    lost.setdefault("16 bits a pixel were rounded to 8", path)
                    grey = np.rint(np.asarray(upright) / 257).astype(np.uint8)  # convert("L") would clip at 255
                    upright = Image.fromarray(grey)
                elif upright.mode in ("I", "F"):
                    fail(path, f"holds pixels of 32 bits (mode {upright.mode}); 1 to 16 are allowed")
                pixels = _in_colours(_on_white(upright, path, lost), path, reading, lost)
                if reading.resize is not None:
                    pixels = ImageOps.fit(pixels, reading.resize[::-1])
                return np.asarray(pixels)
    except DataError:
        raise
    except MemoryError as error:
        fail(path, f"cannot be read as a picture: there is no memory for it ({error})", error)
    except Image.DecompressionBombError:
        _check_pixels(path, _MOST_PIXELS, _MOST_PIXELS)
    except Exception as error:  # a damaged file raises whatever Pillow, struct or zlib raise
        reason = getattr(error, "strerror", None) or "it is damaged, or none of " + ", ".join(_FORMATS)
        fail(path, f"cannot be read as a picture ({reason}); a folder must hold {_PICTURES}, or MNIST-like files",
             error)
    raise AssertionError


def _check_pixels(path: Path, width: int, height: int) -> None:
    """Raises DataError for too large a picture, before it is decoded: a small file may hold very many pixels."""
    if width * height > _MOST_PIXELS:
        fail(path, f"is {width} x {height} pixels; at most {_MOST_PIXELS:,} in all are allowed: a smaller picture is "
                   "needed")


@contextmanager
def _in_silence() -> Iterator[None]:
    """Within this context Pillow's warnings and log messages are not shown."""
    import logging      # as Pillow does, and not with npvae

    logger, handler = logging.getLogger("PIL"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _stderr_is_nowhere() -> Iterator[None]:
    """Within this context nothing is written to stderr: libtiff, written in C, reports damaged files there."""
    try:
        kept = os.dup(2)
    except OSError:      # it is closed
        yield
        return
    with open(kept, "wb", closefd=True), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)


def _on_white(picture: "Image", path: Path, lost: dict[str, Path]) -> "Image":
    """The picture on a white background, where it is transparent."""
    if not picture.has_transparency_data:
        return picture
    from PIL import Image
    picture = picture.convert("RGBA")
    if np.asarray(picture)[..., 3].min() < 255:
        lost.setdefault("transparent pixels were put on white", path)
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def _in_colours(picture: "Image", path: Path, reading: Reading, lost: dict[str, Path]) -> "Image":
    """The picture in RGB or in grey."""
    if reading.rgb:
        return picture.convert("RGB")
    note = "colours became grey: --rgb keeps them, three numbers a pixel"
    if not (reading.grey or note in lost or picture.mode in ("1", "L", "LA")):
        colours = np.asarray(picture.convert("RGB"))
        if (colours[..., :1] != colours).any():
            lost[note] = path
    return picture.convert("L")
