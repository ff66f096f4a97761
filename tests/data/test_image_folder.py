"""Folders of pictures: every pixel arrives as it is, in a known order, or the file that does not fit is named."""
import io
import logging
import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from files import LAST, refusal, small_set, write_folder
from npvae import data
from npvae.data import load_pictures

PICTURES = "pictures such as .png and .jpg"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def grey(rng, n=12, height=3, width=5):
    return rng.integers(0, 256, (n, height, width), dtype=np.uint8)


def save(folder, images, names):
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder


def rows(images):
    return images.reshape(len(images), -1)


def one(path):
    """The picture, loaded from a folder that holds it twice."""
    folder = path.parent / "two"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}{path.suffix}").write_bytes(path.read_bytes())
    loaded = load_pictures(folder, reading=LAST)
    assert np.array_equal(loaded.train_images, loaded.test_images) and loaded.train_images.dtype == np.uint8
    return loaded.train_images.reshape(loaded.image_shape)


# --- order, split and labels ---

@pytest.mark.parametrize("n, n_test", [(2, 1), (12, 1), (31, 3)])
def test_pixels_order_and_split(n, n_test, tmp_path, rng):
    """2 before 10, and the last tenth is the test set."""
    images = grey(rng, n)
    folder = save(tmp_path / "mine", images[::-1], [f"img{i}.png" for i in range(n, 0, -1)])
    for source in folder, str(folder):
        loaded = data.load(source, reading=LAST)
        assert loaded.name == "mine" and loaded.image_shape == (3, 5)
        assert np.array_equal(loaded.train_images, rows(images[:n - n_test]))
        assert np.array_equal(loaded.test_images, rows(images[n - n_test:]))
        assert loaded.train_labels is None and loaded.test_labels is None and not loaded.ink
        assert loaded.train_images.dtype == np.uint8 and loaded.train_images.flags.c_contiguous


def test_natural_order(tmp_path, rng):
    names = ["2.png", "10.png", "a1b2.png", "a1b10.png", "A2.png", "a.png", "b.png"]
    images = grey(rng, len(names))
    loaded = load_pictures(save(tmp_path / "x", images, names), reading=LAST)
    assert np.array_equal(np.vstack([loaded.train_images, loaded.test_images]), rows(images))


def test_classes_take_turns(tmp_path, rng):
    """20 of a and 10 of b: so the tenth at the end, and any beginning, holds some of each."""
    images = grey(rng, 30)
    save(tmp_path / "x" / "a", images[:20], [f"{i}.png" for i in range(20)])
    save(tmp_path / "x" / "b", images[20:], [f"{i}.png" for i in range(10)])
    loaded = data.load(tmp_path / "x", reading=LAST)
    labels = [*loaded.train_labels.tolist(), *loaded.test_labels.tolist()]
    assert labels == ["a", "b", "a"] * 10 and len(loaded.test_labels) == 3
    together = np.vstack([loaded.train_images, loaded.test_images])
    assert np.array_equal(together[np.array(labels) == "a"], rows(images[:20]))
    assert np.array_equal(together[np.array(labels) == "b"], rows(images[20:]))


def test_classes_called_by_numbers(tmp_path, rng):
    for name in ("10", "9", "-1")[:2]:
        save(tmp_path / "x" / name, grey(rng, 2), ["a.png", "b.png"])
    loaded = load_pictures(tmp_path / "x", reading=LAST)
    assert loaded.train_labels.dtype == np.int64 and loaded.train_labels.tolist() == [9, 10, 9]
    save(tmp_path / "x" / "-1", grey(rng, 1), ["a.png"])
    assert load_pictures(tmp_path / "x", reading=LAST).train_labels.dtype.kind == "U"


@pytest.mark.parametrize("classes", [False, True])
def test_train_and_test(classes, tmp_path, rng):
    images = grey(rng, 7)
    for part, some in (("train", images[:4]), ("test", images[4:])):
        for i, image in enumerate(some):
            save(tmp_path / "x" / part / (f"class {i % 2}" if classes else ""), [image], [f"{i}.png"])
    loaded = data.load(tmp_path / "x", reading=LAST)
    assert np.array_equal(loaded.train_images, rows(images[:4])) and loaded.name == "x" and not loaded.ink
    assert np.array_equal(loaded.test_images, rows(images[4:]))
    labels = [None if part is None else part.tolist() for part in (loaded.train_labels, loaded.test_labels)]
    assert labels == ([["class 0", "class 1"] * 2, ["class 0", "class 1", "class 0"]] if classes else [None, None])


def test_what_systems_leave_in_folders_is_ignored(tmp_path, rng):
    images = grey(rng, 3)
    folder = save(tmp_path / "x", images, ["1.png", "2.png", "3.png"])
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (folder / name).write_text("no picture")
    for name in ("__MACOSX", ".thumbnails"):
        (folder / name).mkdir()
    assert np.array_equal(load_pictures(folder, reading=LAST).train_images, rows(images[:2]))


def test_a_folder_of_idx_files_is_still_one(tmp_path, rng):
    loaded = data.load(write_folder(tmp_path / "idx", small_set(rng)), reading=LAST)
    assert len(loaded.train_images) == 7 and loaded.train_labels is not None and loaded.ink


def test_progress_sees_every_picture(tmp_path, rng):
    seen = []
    data.load(save(tmp_path / "x", grey(rng, 4), [f"{i}.png" for i in range(4)]),
              lambda paths: (seen.append(path.name) or path for path in paths), reading=LAST)
    assert seen == ["0.png", "1.png", "2.png", "3.png"]


# --- formats ---

@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "pgm", "webp"])
def test_formats_without_loss(suffix, tmp_path, rng):
    image = grey(rng, 1)[0]
    Image.fromarray(image).save(tmp_path / f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(one(tmp_path / f"x.{suffix}"), image)


def test_jpeg(tmp_path):
    image = np.full((8, 16), 77, np.uint8)
    Image.fromarray(image).save(tmp_path / "x.jpg", quality=100)
    assert np.abs(one(tmp_path / "x.jpg").astype(int) - 77).max() <= 1


def test_colour_becomes_luma(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "x.png")
    assert one(tmp_path / "x.png").tolist() == [[76, 150, 29, 9]]      # 0.299, 0.587, 0.114


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode, tmp_path):
    picture = Image.new("RGBA" if mode == "P" else mode, (3, 1))
    for i, alpha in enumerate((255, 0, 51)):
        picture.putpixel((i, 0), (100, 100, 100, alpha) if mode != "LA" else (100, alpha))
    picture.convert(mode).save(tmp_path / "x.png")
    found = one(tmp_path / "x.png")[0].tolist()
    assert found[:2] == [100, 255] and (mode == "P" or found[2] in (223, 224))      # 0.2 * 100 + 0.8 * 255


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bits_are_not_cut_off(suffix, tmp_path):
    """Pillow's convert("L") makes 255 of everything above it."""
    image = np.array([[0, 257, 300, 65535], [128, 129, 32896, 386]], np.uint16)
    if suffix == "pgm":      # which Pillow has not always written
        (tmp_path / "x.pgm").write_bytes(b"P5 4 2 65535\n" + image.astype(">u2").tobytes())
    else:
        Image.fromarray(image).save(tmp_path / f"x.{suffix}")
    assert one(tmp_path / f"x.{suffix}").tolist() == [[0, 1, 1, 255], [0, 1, 128, 2]]


def test_black_and_white_and_palettes(tmp_path):
    bits = np.array([[True, False, True]])
    Image.fromarray(bits).save(tmp_path / "x.png")
    assert one(tmp_path / "x.png").tolist() == [[255, 0, 255]]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([10, 10, 10, 200, 200, 200, 30, 30, 30])
    (tmp_path / "b").mkdir()
    palette.save(tmp_path / "b" / "x.png")
    assert one(tmp_path / "b" / "x.png").tolist() == [[10, 200, 30]]


def test_the_first_frame_of_a_moving_picture(tmp_path, rng):
    first, second = (Image.fromarray(image) for image in grey(rng, 2))
    first.save(tmp_path / "x.gif", save_all=True, append_images=[second])
    assert np.array_equal(one(tmp_path / "x.gif"), np.asarray(first))


def test_a_camera_held_upright(tmp_path):
    """The file lies on its side and says so: orientation 6, to be turned by a quarter clockwise."""
    image = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "x.png", exif=exif)
    assert one(tmp_path / "x.png").tolist() == np.rot90(image, -1).tolist()


# --- refusals ---

def spoil_text(folder):
    (folder / "notes.txt").write_text("hello")


def spoil_size(folder):
    Image.new("L", (6, 4)).save(folder / "9.png")


def spoil_cut(folder):
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[:len(content) // 2])


def spoil_floats(folder):
    Image.fromarray(np.ones((3, 5), np.float32)).save(folder / "1.tiff")


def spoil_integers(folder):
    Image.fromarray(np.ones((3, 5), np.int32)).save(folder / "1.tiff")


def spoil_beside(folder):
    (folder / "class").mkdir()


def spoil_train(folder):
    save(folder / "train", [np.zeros((3, 5), np.uint8)], ["1.png"])


def spoil_all(folder):
    for path in folder.iterdir():
        path.unlink()


def spoil_most(folder):
    for path in list(folder.iterdir())[1:]:
        path.unlink()


@pytest.mark.parametrize("spoil, name, says", [
    (spoil_text, "notes.txt", "cannot be read as a picture (it is damaged, or none of PNG, JPEG, GIF, BMP, TIFF, "
     f"WEBP, PPM); a folder must hold {PICTURES}, or MNIST-like files"),
    (spoil_size, "9.png", "is 6 x 4 pixels, "), (spoil_size, "0.png", "0.png 5 x 3; all pictures must be of one size"),
    (spoil_cut, "1.png", "cannot be read as a picture"), (spoil_floats, "1.tiff", "holds pixels of 32 bits (mode F)"),
    (spoil_integers, "1.tiff", "holds pixels of 32 bits (mode I); 1 to 16 are allowed"),
    (spoil_beside, "x: ", "holds files (0.png) beside sub-folders (class); only one or the other is allowed"),
    (spoil_train, "x: ", "holds train but not these two sub-folders alone; a split needs both"),
    (spoil_all, "x: ", f"holds nothing; {PICTURES} are needed, or MNIST-like files (train-images-idx3-ubyte"),
    (spoil_most, "x: ", "holds 1 image; at least 2 are needed, one to train and one to test")])
def test_what_does_not_fit_is_named(spoil, name, says, tmp_path, rng):
    folder = save(tmp_path / "x", grey(rng, 3), ["0.png", "1.png", "2.png"])
    spoil(folder)
    refusal(data.load, folder, name=name, says=says)


def test_folders_that_do_not_fit(tmp_path, rng):
    save(tmp_path / "deep" / "a" / "b", grey(rng, 2), ["0.png", "1.png"])
    refusal(data.load, tmp_path / "deep", name="deep/a: ", says="holds a sub-folder (b); the folder of a class must")
    save(tmp_path / "empty" / "a", grey(rng, 2), ["0.png", "1.png"])
    (tmp_path / "empty" / "b").mkdir()
    refusal(data.load, tmp_path / "empty", name="empty/b: ", says="holds nothing; the folder of a class")
    save(tmp_path / "split" / "train", grey(rng, 2), ["0.png", "1.png"])
    save(tmp_path / "split" / "test", grey(rng, 1, 5, 3), ["0.png"])
    refusal(data.load, tmp_path / "split", name="test/0.png", says="is 3 x 5 pixels")
    save(tmp_path / "half" / "train", grey(rng, 2), ["0.png", "1.png"])
    save(tmp_path / "half" / "other", grey(rng, 2), ["0.png", "1.png"])
    refusal(data.load, tmp_path / "half", name="half: ", says="holds train but not these two sub-folders alone")
    (tmp_path / "split" / "valid").mkdir()
    refusal(data.load, tmp_path / "split", name="split: ", says="holds train and test but not these two")
    refusal(load_pictures, tmp_path / "absent", name="absent", says="cannot be read (No such file or directory)")


def test_what_libtiff_says_of_damage_is_no_message_of_ours(tmp_path, rng, capfd):
    """It is written in C, and writes to the process's own stderr, past Python's."""
    Image.fromarray(grey(rng, 1, 20, 20)[0]).save(stream := io.BytesIO(), "TIFF", compression="tiff_adobe_deflate")
    folder = save(tmp_path / "x", grey(rng, 2), ["0.png", "1.png"])
    raw = stream.getvalue()
    (folder / "2.tiff").write_bytes(raw[:12] + bytes(188) + raw[200:])
    with pytest.raises(OSError), Image.open(folder / "2.tiff") as damaged:
        damaged.load()
    assert "ZIPDecode" in capfd.readouterr().err
    refusal(data.load, folder, name="2.tiff", says="cannot be read as a picture (it is damaged")
    os.write(2, b"stderr is back")
    assert capfd.readouterr() == ("", "stderr is back")


def test_tiff_where_stderr_is_closed(tmp_path, rng):
    folder, kept = save(tmp_path / "x", images := grey(rng, 2), ["0.tiff", "1.tiff"]), os.dup(2)
    os.close(2)
    try:
        found = load_pictures(folder, reading=LAST)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert np.array_equal(np.concatenate([found.train_images, found.test_images]), rows(images))


# --- files that are made to hurt ---

def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def black(width, height):
    """A PNG of one bit a pixel, whose bytes are an eight thousandth of its pixels."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes((width + 7) // 8 + 1)) for _ in range(height)]
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
            + chunk(b"IDAT", b"".join([*rows, packer.flush()])) + chunk(b"IEND", b""))


def eps():
    Image.new("L", (5, 3)).save(stream := io.BytesIO(), "EPS")
    return stream.getvalue()


HURTS = {
    "13,300 pixels a side": lambda: (black(13_300, 13_300),
                                     "is 13300 x 13300 pixels; at most 16,777,216 in all are allowed"),
    "more than Pillow opens": lambda: (black(19_000, 19_000), "pixels; at most 16,777,216 in all are allowed"),
    "a promise": lambda: (b"P5 70000 70000 255\n" + bytes(99), "pixels; at most 16,777,216 in all are allowed"),
    "a program": lambda: (eps(), "none of PNG, JPEG, GIF, BMP, TIFF, WEBP, PPM"),
    "text that expands": lambda: (
        black(5, 3)[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10 ** 8))) + black(5, 3)[33:],
        "cannot be read as a picture")}


@pytest.mark.parametrize("case", HURTS)
def test_pictures_that_are_made_to_hurt(case, tmp_path, rng, capfd, caplog):
    """Refused in little memory, and without a word of Pillow's."""
    content, says = HURTS[case]()
    folder = save(tmp_path / "x", grey(rng, 3), ["0.png", "1.png", "2.png"])
    (folder / "1.png").write_bytes(content)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            refusal(data.load, folder, name="1.png", says=says)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 23
    finally:
        tracemalloc.stop()
    assert capfd.readouterr() == ("", "")


def test_what_pillow_says_of_an_odd_file_is_no_line_of_ours(tmp_path, rng, capfd, monkeypatch):
    """A warning and a logged error; the loggers are as before."""
    folder, real = save(tmp_path / "x", grey(rng, 2), ["0.png", "1.png"]), Image.open

    def talks(*args, **more):
        warnings.warn("odd", UserWarning)
        logging.getLogger("PIL.TiffImagePlugin").error("odd")
        return real(*args, **more)

    monkeypatch.setattr(Image, "open", talks)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])      # those of pytest, so that Python's last resort speaks
    assert len(data.load(folder, reading=LAST).train_images) == 1
    assert capfd.readouterr() == ("", "") and not logging.getLogger("PIL").handlers


def test_a_picture_of_a_gigabyte_is_not_read(tmp_path, rng):
    folder = save(tmp_path / "x", grey(rng, 2), ["0.png", "1.png"])
    with open(folder / "1.png", "ab") as file:
        file.truncate(10 ** 9)
    refusal(data.load, folder, name="1.png", says="is larger than 268,435,456 bytes")


def test_with_a_limit_no_other_picture_is_opened(tmp_path, rng):
    images = grey(rng, 40)
    folder = save(tmp_path / "x", images, [f"{i}.png" for i in range(40)])
    for i in (*range(3, 36), 39):
        (folder / f"{i}.png").write_bytes(b"damaged")
    loaded = data.load(folder, limit=3, reading=LAST)
    assert np.array_equal(loaded.train_images, rows(images[:3]))
    assert np.array_equal(loaded.test_images, rows(images[36:39]))
