"""Conditional runs of the program: labels of a data set become classes, kept in config.json; every command takes such a
run and does what the library does; pictures and page show one class or all of them.
"""
import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npvae import VAE, DataError, checkpoint, evaluate, summarize
from npvae.cli import program
from npvae.plotting import figures, pictures
from npvae.pages import write_explorer
from npvae.data import ImageData
from npvae.data.labels import class_codes, find_classes, listed
from pages import Page
from refusals import assert_refused
from tiny_runs import contents, drawn, library, pixels, program_in, without_pictures

SHAPE, NAMES = (4, 3), ["cat", "dog", "yak"]
TINY = ["--hidden", "6", "--latent", "3", "--batch-size", "16", "--epochs", "2", "--conditional", "--quiet"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with a conditional run, and with data of other labels and of none."""
    folder, rng = tmp_path_factory.mktemp("conditional"), np.random.default_rng(3)
    grey = rng.integers(0, 256, (90, 4, 3), dtype=np.uint8)
    labels = rng.permutation(90) % 3 * 5      # 0, 5 and 10
    np.savez(folder / "data.npz", train=grey[:50], test=grey[50:], train_labels=labels[:50], test_labels=labels[50:])
    np.savez(folder / "other.npz", train=grey[:50], test=grey[50:70] // 2, test_labels=labels[50:70])
    np.savez(folder / "unknown.npz", train=grey[:50], test=grey[50:], train_labels=labels[:50],
             test_labels=np.arange(40) % 4 * 5)
    np.savez(folder / "half.npz", train=grey[:50], test=grey[50:], test_labels=labels[50:])
    np.savez(folder / "bare.npz", train=grey[:50], test=grey[50:])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        program.main(["train", *TINY, "--data-dir", "data.npz", "--out", "run"])
        without_pictures(patch)
        program.main(["train", *TINY[:-2], "--quiet", "--data-dir", "data.npz", "--out", "plain"])
    return folder


@pytest.fixture
def npvae(first, monkeypatch, capsys):
    return program_in(first, monkeypatch, capsys)


def opened(first, source="data.npz"):
    """Model, test images and labels as the model takes them, by the library alone."""
    vae, x = library(first, source=source)
    return vae, x, np.load(first / source)["test_labels"] // 5


# ---- Labels

def data_of(train, test=("a", "b")):
    labels = (None if part is None else np.asarray(part) for part in (train, test))
    return ImageData(np.zeros((3, 4)), next(labels), np.zeros((2, 4)), next(labels), (2, 2), "x")


def test_classes_are_the_sorted_labels():
    """Numbers by size, names by their letters; as JSON holds them."""
    for labels, classes in (([10, 9, 10, 2], [2, 9, 10]), (np.array([7, 0], np.uint8), [0, 7]),
                            (["yak", "cat", "yak"], ["cat", "yak"]), (["10", "9", "x"], ["10", "9", "x"])):
        assert find_classes(data_of(labels), "x") == classes == json.loads(json.dumps(classes))


def test_codes():
    codes = class_codes(np.array([10, 2, 9, 10]), [2, 9, 10], "x")
    assert codes.dtype == np.int64 and codes.tolist() == [2, 0, 1, 2]
    assert class_codes(np.array(["yak", "cat"]), ["cat", "dog", "yak"], "x").tolist() == [2, 0]
    assert class_codes(np.array(["3", "2"]), [2, 3], "x").tolist() == [1, 0]
    assert class_codes(np.array([3, 2]), ["2", "3"], "x").tolist() == [1, 0]
    assert class_codes(np.array([1, 2]), [], "x") is None is class_codes(None, [], "x")


@pytest.mark.parametrize("call, says", [
    (lambda: find_classes(data_of(None, None), "x.npz"), "x.npz: has no labels of its training images.* train"),
    (lambda: find_classes(data_of(None), "x.npz"), "x.npz: has no labels of its training images.* train"),
    (lambda: find_classes(data_of(["a", "b", "c"], None), "x.npz"), "x.npz: has no labels of its test images"),
    (lambda: class_codes(None, [0, 1], "y"), "y: has no labels, and this model needs one of its classes .*: 0, 1$"),
    (lambda: class_codes(np.array([0, 4]), [0, 1], "y"), "y: has the label 4, which is none of the classes .*: 0, 1$")])
def test_labels_that_do_not_fit(call, says):
    with pytest.raises(DataError, match=says.replace(".* train", "")) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_many_classes_are_named_in_part():
    assert listed([1, "b"]) == "1, b" and listed(range(1000)).endswith(", 18, 19 and 980 more")


# ---- Runs

def test_what_training_leaves(first):
    config = json.loads((first / "run" / "config.json").read_text())
    assert config["classes"] == [0, 5, 10] and config["settings"]["conditional"] is True
    plain = json.loads((first / "plain" / "config.json").read_text())
    assert "classes" not in plain and plain["settings"]["conditional"] is False
    assert library(first)[0].classes == 3 and library(first, "plain")[0].classes == 0
    assert (first / "run" / "class_samples.png").exists()
    page = Page(first / "run" / "report.html")
    assert "down each column, and one class along each row" in page.text and "Look for labels that mix" in page.text
    assert "class along" not in Page(first / "plain" / "report.html").text


def test_a_folder_of_named_pictures(npvae, tmp_path, monkeypatch):
    """Folders are classes; the run knows them by name, and so does every command."""
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (60, 4, 3), dtype=np.uint8)):
        (tmp_path / "pictures" / NAMES[i % 3]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "pictures" / NAMES[i % 3] / f"{i}.png")
    without_pictures(monkeypatch)
    assert npvae("train", *TINY, "--data-dir", tmp_path / "pictures", "--out", tmp_path / "run")[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["classes"] == NAMES
    assert npvae("sample", tmp_path / "run", "--label", "yak", "--count", 5, "--out", tmp_path / "x.npy")[0] == 0
    expected = VAE.load(tmp_path / "run" / "checkpoint.npz").sample(5, np.random.default_rng(0), labels=np.full(5, 2))
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)
    assert "classes   cat, dog, yak\n" in npvae("info", tmp_path / "run")[1]
    assert_refused(npvae("sample", tmp_path / "run", "--label", "owl"), "--label owl: .* are cat, dog, yak$")
    assert_refused(npvae("evaluate", tmp_path / "run", "--data-dir", "data.npz"), "data.npz: has the label 0, which")


def test_resumed(npvae, first, tmp_path, monkeypatch):
    """One epoch and one more are two, bit for bit; with other labels there is no going on."""
    without_pictures(monkeypatch)
    line = ["train", *TINY[:-4], "--epochs", 1, *TINY[-2:], "--data-dir", "data.npz", "--out", tmp_path / "run"]
    assert npvae(*line)[0] == 0
    before = contents(tmp_path)
    shutil.copy(first / "data.npz", tmp_path / "data.npz")
    data = dict(np.load("data.npz"))
    np.savez("data.npz", **{**data, "train_labels": data["train_labels"][::-1]})
    resume = ["train", "--resume", "--out", tmp_path / "run", "--epochs", 2, "--quiet"]
    assert_refused(npvae(*resume), "run with other settings: labels_crc32 is")
    shutil.copy(tmp_path / "data.npz", first / "data.npz")
    assert before.keys() <= contents(tmp_path).keys()
    assert npvae(*resume) == (0, "", "")
    one, other = (checkpoint.read(path / "checkpoint.npz")[0] for path in (tmp_path / "run", first / "run"))
    assert all(np.array_equal(one[name], other[name]) for name in ("parameters", "m", "v"))


# ---- Commands

def test_evaluate(npvae, first, tmp_path):
    code, out, error = npvae("evaluate", "run", "--samples", 60, "--limit", 15, "--json", tmp_path / "x.json")
    (vae, x, labels), found = opened(first), json.loads((tmp_path / "x.json").read_text())
    rows = figures.spread(40, 15)
    expected = summarize(vae, x[rows], np.random.default_rng(0), 60, labels[rows])
    assert code == 0 and not error and {**found, **expected.plain()} == found
    assert "(each image given its label; no likelihoods: grey" in out
    npvae("evaluate", "run", "--samples", 60, "--data-dir", "other.npz", "--json", tmp_path / "x.json")
    vae, x, labels = opened(first, "other.npz")
    expected = summarize(vae, x, np.random.default_rng(0), 60, labels)
    assert json.loads((tmp_path / "x.json").read_text())["log_p"] == expected.log_p.mean


@pytest.mark.parametrize("flags, count, labels", [
    ([], 100, [0] * 34 + [1] * 33 + [2] * 33), (["--count", 4], 4, [0, 0, 1, 2]),
    (["--label", 10, 0, "--count", 5, "--draw"], 5, [2, 2, 2, 0, 0]), (["--label", 5, "--count", 3], 3, [1, 1, 1])])
def test_sample_of_numbers(flags, count, labels, npvae, first, tmp_path):
    """Class after class, each image with a z of its own."""
    out = tmp_path / "x.npy"
    assert npvae("sample", "run", *flags, "--seed", 2, "--out", out) == (0, f"{out}\n", "")
    expected = library(first)[0].sample(count, np.random.default_rng(2), "--draw" not in flags, np.array(labels))
    assert np.array_equal(np.load(out), expected)


@pytest.mark.parametrize("flags, classes, columns", [
    ([], [0, 1, 2], 34), (["--label", 10, 0, "--count", 5], [2, 0], 3)])
def test_sample_as_a_picture(flags, classes, columns, npvae, first, tmp_path):
    """A row for each class, the same z down each column."""
    out = tmp_path / "x.png"
    assert npvae("sample", "run", *flags, "--out", out)[0] == 0
    vae = library(first)[0]
    images = pictures.same_z(vae, classes, columns, np.random.default_rng(0))
    figure = pictures.class_samples(images, [[0, 5, 10][i] for i in classes], SHAPE)
    assert np.array_equal(pixels(out), drawn(figure, tmp_path))


def test_sample_of_one_class_as_a_picture(npvae, first, tmp_path):
    assert npvae("sample", "run", "--label", 5, "--count", 7, "--out", tmp_path / "x.png")[0] == 0
    images = library(first)[0].sample(7, np.random.default_rng(0), labels=np.full(7, 1))
    assert np.array_equal(pixels(tmp_path / "x.png"), drawn(pictures.samples(images, SHAPE), tmp_path))


def test_pictures_of_test_images(npvae, first, tmp_path):
    """Each image is encoded and decoded under its own label."""
    vae, x, labels = opened(first)
    rng, out = np.random.default_rng(1), tmp_path / "x.png"
    chosen = np.sort(rng.choice(40, 7, replace=False))
    rebuilt = vae.reconstruct(x[chosen], rng, labels[chosen])
    npvae("reconstruct", "run", "--count", 7, "--seed", 1, "--out", out)
    assert np.array_equal(pixels(out), drawn(pictures.reconstructions(x[chosen], rebuilt, SHAPE), tmp_path))
    kl = evaluate.kl_per_dimension(vae, x, labels)
    npvae("traverse", "run", "--image", 6, "--out", out)
    figure = pictures.traversals(vae, x[6], kl, SHAPE, label=int(labels[6]))
    assert np.array_equal(pixels(out), drawn(figure, tmp_path))
    pairs = np.array([[3, 18], [4, 2]])
    npvae("interpolate", "run", "--images", 3, 18, 4, 2, "--out", out)
    figure = pictures.interpolation(vae, x[pairs], SHAPE, labels=labels[pairs])
    assert np.array_equal(pixels(out), drawn(figure, tmp_path))


def test_gradcheck_and_info(npvae):
    code, out, _ = npvae("gradcheck", "run")
    assert code == 0 and "gradients right" in out and "nothing was tested" not in out
    code, out, _ = npvae("info", "run")
    assert code == 0 and "classes   0, 5, 10\n" in out and re.search(r"encoder.0.W +15 x 6 ", out)
    assert "--conditional   True" in out and "classes " not in npvae("info", "plain")[1]


BAD = {
    "train --conditional --out new --data-dir half.npz": "half.npz: has no labels of its training images, which a cond",
    "train --conditional --out new --data-dir bare.npz": "bare.npz: has no labels of its training images",
    "train --conditional --out new --data-dir unknown.npz": "unknown.npz: has the label 15, which is none .* 0, 5, 10$",
    "train --conditional --out new --data-dir data.npz --prior vamp:4": "prior vamp:4 .* 3 classes: use prior mixture",
    **{f"{name} run --data-dir bare.npz": "bare.npz: has no labels, and this model needs .*: 0, 5, 10$"
       for name in ("evaluate", "reconstruct", "interpolate", "traverse", "explore")},
    "evaluate run --data-dir unknown.npz": "unknown.npz: has the label 15, which is none of the classes",
    "sample run --label 3": "--label 3: the classes of this run are 0, 5, 10$",
    "sample run --label 0 x": "--label x: the classes of this run are 0, 5, 10$",
    "sample run --label": "--label: expected at least one argument",
    "sample plain --label 0": "--label 0: the run in plain has no classes: it was trained without --conditional$",
    "sample torn": "torn: config.json has 2 classes, checkpoint.npz a model of 3$",
    "sample wrong": "wrong/config.json is not the config.json of a run: classes must be .*, got 3$"}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_in_one_line(line, npvae, first):
    for name, classes in (("torn", [0, 5]), ("wrong", 3)):
        shutil.copytree(first / "run", first / name, dirs_exist_ok=True)
        config = json.loads((first / "run" / "config.json").read_text())
        (first / name / "config.json").write_text(json.dumps({**config, "classes": classes}))
    before = contents(first)
    assert_refused(npvae(*line.split()), BAD[line])
    assert contents(first) == before


# ---- Pictures and page, by the library

@pytest.fixture(scope="module")
def vae():
    """Every label changes the image it decodes."""
    vae = VAE(12, (7, 6), 3, kernels="numpy", seed=3, classes=3)
    vae.parameters.flat[...] = np.random.default_rng(4).normal(0, 0.5, vae.parameters.flat.size)
    return vae


def images(n, dim=12):
    return np.random.default_rng(5).random((n, dim), dtype=np.float32)


@pytest.mark.parametrize("decoder", ["dense", "made:5"])
@pytest.mark.parametrize("prior", ["normal", "mixture:4", "hierarchical:2"])
@pytest.mark.parametrize("mean", [True, False])
def test_same_z(decoder, prior, mean):
    """Whatever the prior; and as many draws as are asked for, which differ."""
    vae = VAE(12, (7,), 3, kernels="numpy", classes=3, decoder=decoder, prior=prior, likelihood="bernoulli")
    z = []
    vae._decoder_output, right = lambda *args, **more: z.append(args[0]) or right(*args, **more), vae._decoder_output
    made = pictures.same_z(vae, [2, 0], 4, np.random.default_rng(0), mean)
    assert made.shape == (2, 4, 12) and np.array_equal(*z) and len(np.unique(z[0], axis=0)) == 4
    if decoder == "dense" and mean:
        np.testing.assert_allclose(made, [vae.decode(z[0], np.full(4, one)) for one in (2, 0)], rtol=1e-6)


@pytest.mark.parametrize("classes, columns, rows, lines", [(3, 10, 3, 1), (1, 1, 1, 1), (100, 4, 30, 1), (2, 50, 2, 5)])
def test_class_samples(classes, columns, rows, lines):
    """A row for each class under its name, of many thirty; many columns in lines of such rows."""
    x = images(classes * columns).reshape(classes, columns, 12)
    figure = pictures.class_samples(x, [f"class {i}" for i in range(classes)], (3, 4))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == rows * lines and labels[0] == "class 0" and labels[-1] == f"class {classes - 1}"
    canvas, n = np.asarray(figure.axes[0].images[0].get_array()), columns // lines
    _, tops, lefts, (height, width) = figures.mosaic(np.zeros((len(labels), n, 12)), (3, 4),
                                                     range(rows, len(labels), rows))
    for row, name in enumerate(labels):
        for column in (0, n - 1):
            tile = canvas[tops[row]:tops[row] + height, lefts[column]:lefts[column] + width]
            one = x[int(name.split()[1]), row // rows * n + column].reshape(3, 4)
            np.testing.assert_array_equal(tile, np.rint(255 * one))


def decoded(vae, monkeypatch):
    """What `vae.decode` is asked for."""
    calls, right = [], vae.decode
    monkeypatch.setattr(vae, "decode", lambda z, labels=None: calls.append((z, labels)) or right(z, labels))
    return calls


def test_the_way_from_image_to_image_changes_its_label_in_the_middle(vae, monkeypatch):
    x, labels, calls = images(4).reshape(2, 2, 12), np.array([[0, 2], [1, 1]]), decoded(vae, monkeypatch)
    pictures.interpolation(vae, x, (3, 4), steps=5, labels=labels)
    (z, used), = calls
    assert used.reshape(2, 5).tolist() == [[0, 0, 2, 2, 2], [1] * 5]
    ends = z.reshape(2, 5, 3)[:, [0, -1]]
    np.testing.assert_allclose(ends, vae.encode(x.reshape(4, 12), labels.reshape(4))[0].reshape(2, 2, 3), rtol=1e-6)


def test_traversals_and_manifold_of_one_label(vae, monkeypatch):
    calls = decoded(vae, monkeypatch)
    pictures.traversals(vae, images(1)[0], np.arange(3.0), (3, 4), columns=5, label=2)
    (z, used), = calls
    assert used.tolist() == [2] * 15
    np.testing.assert_allclose(z.reshape(3, 5, 3)[0, :, :2], np.tile(vae.encode(images(1), [2])[0][0, :2], (5, 1)))
    plane = VAE(12, (7,), 2, kernels="numpy", classes=3)
    calls = decoded(plane, monkeypatch)
    pictures.manifold(plane, (3, 4), 4, label=1)
    assert calls[0][1].tolist() == [1] * 16


def unchanged(figure):
    """What is drawn in a figure, in place of the picture of it."""
    axes = figure.axes[0]
    bars = [bar.get_height() for bar in axes.patches] + [points.get_facecolors() for points in axes.collections]
    return repr(([image.get_array().tobytes() for image in axes.images], bars)).encode()


def test_save_pictures_takes_names(vae, tmp_path, monkeypatch):
    """All pictures are those of the right labels: with others, those that show images differ."""
    monkeypatch.setattr(pictures, "png", unchanged)
    x, names = images(30), np.array(NAMES)[np.arange(30) * 7 % 3]
    paths = pictures.save_pictures(vae, x, names, (3, 4), [], tmp_path / "a", np.random.default_rng(0), classes=NAMES)
    assert [path.stem for path in paths] == ["reconstructions", "samples", "class_samples", "traversals",
                                             "interpolation", "latent_scatter", "kl_per_dimension"]
    rows, codes = np.arange(29, 3, -2), np.arange(30) * 7 % 3
    mu, nats, has_kl = pictures._encode(vae, x, rows, codes)
    assert has_kl and np.allclose(mu, vae.encode(x[rows], codes[rows])[0])
    np.testing.assert_allclose(nats, evaluate.kl_per_dimension(vae, x[rows], codes[rows]), rtol=1e-5)
    rng = np.random.default_rng(0)
    pictures.save_pictures(vae, x, np.roll(names, 1), (3, 4), [], tmp_path / "b", rng, classes=NAMES)
    same = {path.stem for path in paths if path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()}
    assert same == {"samples", "class_samples"}
    with pytest.raises(DataError, match="has the label cat, which is none of the classes"):
        pictures.save_pictures(vae, x, names, (3, 4), [], tmp_path / "c", np.random.default_rng(0), classes=[1, 2, 3])
    assert not (tmp_path / "c").exists()


def test_the_page_has_a_label_to_choose(vae, tmp_path):
    x, names = images(60), np.array(NAMES)[np.arange(60) * 7 % 3]
    page = Page(write_explorer(vae, x, names, (3, 4), tmp_path / "x.html", classes=NAMES))
    (_, data), = page.all("script", type="application/json", id="model")
    data = json.loads(data)
    options = [(found["value"], text) for (found, text) in page.all("option")][-3:]
    assert options == [(str(i), name) for i, name in enumerate(NAMES)] and data["classes"] == 3
    buttons = [found["aria-label"] for found, _ in page.all("button", aria_pressed="false")]
    rows = [int(re.search(r"image (\d+), label", name).group(1)) for name in buttons]
    assert [NAMES[i] for i in data["thumbLabels"]] == names[rows].tolist()
    for name, shown in (("mu", np.arange(60)), ("thumbMu", np.array(rows))):
        mu = np.frombuffer(base64.b64decode(data[name]), "<f4").reshape(-1, 3)
        np.testing.assert_allclose(mu, vae.encode(x[shown], shown * 7 % 3)[0], rtol=1e-4, atol=1e-6)
    W = np.frombuffer(base64.b64decode(data["layers"][0]["W"]), "<f4")
    assert W.tobytes() == vae.parameters["decoder.0.W"].tobytes() and len(W) == (3 + 3) * 6
    with pytest.raises(ValueError, match="classes must name each of the model's 3 classes, got 0 names"):
        write_explorer(vae, x, names, (3, 4), tmp_path / "y.html")
    plain = VAE(12, (7, 6), 3, kernels="numpy")
    page = Page(write_explorer(plain, x, None, (3, 4), tmp_path / "y.html"))
    assert len(page.all("option")) == 6 and Path(tmp_path / "y.html").read_text().count("<span hidden>as") == 1
