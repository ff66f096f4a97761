"""One array means one thing: in `fit`, in every method, measure and picture, and in the program."""
import copy
import json
import pickle
import re

import numpy as np
import pytest

from npvae import (ELBO, VAE, Bernoulli, Callback, active_units, evaluate, figures, fit, hierarchical_vae, plotting,
                   runs, summarize)
from npvae.data import BINARIZATIONS, binarize, load, to_float
from npvae.explorer import write_explorer
from npvae.hierarchical import active_units_per_layer
from npvae.likelihoods import LIKELIHOODS, find
from npvae.program import main
from npvae.support import Counts, Levels, Reals, Support, UnitInterval, fitting, part_of, scale_of, support_of

RNG = np.random.default_rng(15)
WHITE = RNG.integers(0, 2, (6, 4))      # black and white
BYTES = RNG.integers(0, 256, (6, 4), dtype=np.uint8)
BYTES[0, 0] = 200
PIXEL_NAMES = pytest.mark.parametrize("name", ["categorical:6" if name == "categorical" else name
                                               for name in LIKELIHOODS])


def rng():
    return np.random.default_rng(0)


def model(likelihood="bernoulli", **changes):
    return VAE(**{"input_dim": 4, "hidden": (3,), "latent_dim": 2, "likelihood": likelihood, "seed": 1, **changes})


class Watch(Callback):
    """What `fit` shows the model."""

    def on_start(self, run):
        self.seen = [run.train.floats(), run.test.floats()]


def by_fit(vae, x):
    watch = Watch()
    history = fit(vae, x, x, 1, 6, objective=ELBO(sampled=not vae.latent.analytic), callbacks=[watch], shuffle=False)
    return [*watch.seen, history[0]["test_loss"], vae.parameters.flat]


def numbers_of(summary):
    return [value for value in summary.plain().values() if isinstance(value, float)]


#: everything that takes images; what it makes of them, as arrays
CALLS = {
    "fit": by_fit,
    "fit, dynamic": lambda vae, x: [fit(vae, x, x, 1, 3, binarize="dynamic")[0]["test_loss"], vae.parameters.flat],
    "fit, static": lambda vae, x: [fit(vae, x, x, 1, 3, binarize="static")[0]["test_loss"], vae.parameters.flat],
    "loss_and_gradients": lambda vae, x: [vae.loss_and_gradients(x, np.ones((6, 2, 2)))[0], vae.gradients.flat],
    "encode": lambda vae, x: vae.encode(x),
    "reconstruct": lambda vae, x: vae.reconstruct(x, rng()),
    "elbo": lambda vae, x: vae.elbo(x, rng()),
    "log_likelihood": lambda vae, x: vae.log_likelihood(x, rng(), 20),
    "start_at": lambda vae, x: [vae.start_at(x[0]), vae.parameters.flat][1:],
    "evaluate.elbo": lambda vae, x: evaluate.elbo(vae, x, rng()),
    "evaluate.log_likelihood": lambda vae, x: evaluate.log_likelihood(vae, x, rng(), 20).values,
    "kl_per_dimension": lambda vae, x: evaluate.kl_per_dimension(vae, x),
    "information_per_dimension": lambda vae, x: evaluate.information_per_dimension(vae, x),
    "active_units": lambda vae, x: active_units(vae, x),
    "summarize": lambda vae, x: numbers_of(summarize(vae, x, rng(), 20))}


def same(one, other):
    one, other = (value if isinstance(value, (list, tuple)) else [value] for value in (one, other))
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def shapes_of(x):
    """The same numbers as arrays of every kind: their strides, byte order, writability and owner mean nothing."""
    wide = np.zeros((len(x), 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    fixed = x.copy()
    fixed.flags.writeable = False
    return {"strided": wide[:, ::2], "upwards": x[::-1].copy()[::-1], "read-only": fixed,
            "columns": np.asfortranarray(x), "other byte order": x.astype(x.dtype.newbyteorder())}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_one_meaning(call, kernels, tmp_path):
    """Black and white of any type; bytes as x / 255; floats as they are; in every layout."""
    def made(x):
        return CALLS[call](model(kernels=kernels), x)

    expected = made(WHITE.astype("f4"))
    for dtype in ("u1", "?", "i1", "i8", ">i4", "u2", "f2", "f8", ">f4", ">f8", "g"):
        same(made(WHITE.astype(dtype)), expected)
    same(made(WHITE.tolist()), expected)
    grey = made(BYTES / np.float64(255))
    same(made(BYTES), grey)
    for x in (BYTES, (BYTES / 255).astype("f4")):
        np.save(tmp_path / "x.npy", x)
        for kind in [*shapes_of(x).values(), np.load(tmp_path / "x.npy", mmap_mode="r"), np.ma.array(x)]:
            same(made(kind), grey)


REFUSED = {
    "floats from 0 to 255": (BYTES.astype(float), r"must lie in \[0, 1\] .*: divide by 255 what runs from 0 to 255"),
    "int64 from 0 to 255": (BYTES.astype(int), r"holds int64 from \d+ to \d+: pixels from 0 to 255 are given as uint8"),
    "uint16": (BYTES.astype("u2") * 256, "holds uint16 from"), "negative": (-WHITE, "holds int64 from -1 to"),
    "NaN": (np.where(WHITE, np.nan, 0.0), r"must lie in \[0, 1\] .*, found NaN"),
    "complex": (WHITE * 1j, "must hold real numbers, got an array of complex128"),
    "object": (WHITE.astype(object), "must hold real numbers, got an array of object"),
    "text": (WHITE.astype(str), "must hold real numbers"), "times": (WHITE.astype("m8[s]"), "must hold real numbers"),
    "masked": (np.ma.array(WHITE * 1.0, mask=WHITE == 1), "must not be masked")}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", REFUSED)
def test_one_refusal(call, what):
    """In every method, in one line, before a parameter changes."""
    vae, (x, says) = model(), REFUSED[what]
    before = vae.parameters.flat.copy()
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        CALLS[call](vae, x)
    assert "\n" not in str(caught.value) and np.array_equal(vae.parameters.flat, before)


@PIXEL_NAMES
@pytest.mark.parametrize("call", ["fit", "loss_and_gradients", "encode", "reconstruct", "elbo", "log_likelihood"])
def test_of_every_likelihood_of_pixels(name, call):
    levels = getattr(support_of(find(name)), "levels", 256)
    grey = (BYTES // 51 * 51) if levels == 6 else BYTES
    for x, floats in ((WHITE.astype(np.uint8), WHITE * 1.0), (grey, grey / 255)):
        same(CALLS[call](model(name), x), CALLS[call](model(name), floats))


@pytest.mark.parametrize("name", ["gaussian:0.2", "gaussian-pixel"])
def test_reals_are_not_confined_and_integers_say_which_they_are(name):
    x = 2 + 3 * RNG.standard_normal((6, 4))
    assert np.array_equal(by_fit(model(name), x)[0], x)
    with pytest.raises(ValueError, match="x holds int64 from -.*: pixels .* as uint8, other numbers as floats"):
        model(name).encode(x.astype(int))
    with pytest.raises(ValueError, match="x must hold finite numbers, found NaN or infinity as float32"):
        model(name).encode(1e300 * x)
    assert np.isfinite(model(name, dtype="float64").encode(1e100 * x)[0]).all()


def test_a_flow_sees_what_the_encoder_sees():
    """`reconstruct` hands the images to the flow as well."""
    vae = model(posterior="iaf:2")
    same(vae.reconstruct(BYTES, rng()), vae.reconstruct(BYTES / 255, rng()))
    two = hierarchical_vae(4, ((3,), (3,)), (2, 2))
    assert active_units_per_layer(two, BYTES, rng(), 3) == active_units_per_layer(two, BYTES / 255, rng(), 3)


# ---- Once for each array

DARK = np.vstack([np.tile(np.array([[0, 1, 1, 0]], np.uint8), (700, 1)), [[0, 9, 1, 255]]]).astype(np.uint8)


@pytest.mark.parametrize("posterior", ["gaussian", "iaf:2"])
def test_blocks_of_rows_do_not_decide(posterior):
    """The first 700 images are nearly black; more than a block of every method has none but those."""
    vae = model(posterior=posterior)
    for call in ("fit", "encode", "reconstruct", "elbo", "evaluate.log_likelihood", "information_per_dimension"):
        x = DARK if call != "fit" else DARK[-6:]
        same(CALLS[call](copy.deepcopy(vae), x), CALLS[call](copy.deepcopy(vae), x / 255))


def test_nearly_black_images_are_black_and_white_unless_divided():
    """Documented: nothing in the array says otherwise."""
    vae, dark = model(), DARK[:1]
    same(vae.encode(dark), vae.encode(dark * 1.0))
    assert not np.allclose(vae.encode(dark), vae.encode(dark / 255))


def test_training_and_test_images_mean_the_same():
    for train, test, white in ((BYTES, DARK[:3], "x_test"), (DARK[:3], BYTES, "x_train")):
        with pytest.raises(ValueError, match=f"^{white} must not hold only 0 and 1 where x_.*; give one of the"):
            fit(model(), train, test, 1, 3)
    black = np.zeros((3, 4), np.uint8)
    for train, test in ((BYTES, black), (DARK[:3], black), (black, DARK[:3]), (BYTES, DARK > 0), (BYTES, DARK / 255),
                        (black, BYTES), (BYTES / 255, BYTES)):
        fit(model(), train, test, 1, 3)


def test_some_rows_mean_what_they_mean_in_the_whole():
    assert part_of(DARK, slice(701)) is not None and scale_of(part_of(DARK, slice(700, None))) == 1 / 255
    first = part_of(DARK, slice(3))
    assert first.dtype == np.float32 and first.tolist() == (DARK[:3] / np.float32(255)).tolist()
    assert part_of(DARK[:9], slice(3)).dtype == np.uint8 and part_of(0 * DARK, slice(3)).dtype == np.uint8


@pytest.mark.parametrize("how", BINARIZATIONS)
def test_black_and_white_bytes_stay_when_binarized(how):
    white = WHITE.astype(np.uint8)
    assert np.array_equal(binarize(white, how, rng()), white)
    same(to_float(white), WHITE)
    same(by_fit(model(), white), [WHITE, WHITE, *by_fit(model(), WHITE * 1.0)[2:]])


# ---- Other data than pixels

class Often(Bernoulli):
    """Counts, by a Poisson with mean exp(output), without a kernel of its own."""

    name = "often"
    support = Counts()
    seen = ()

    def bias_at(self, mean):
        return np.log(mean)

    def forward(self, kernels, nll, kept, output, x, params):
        self.seen = np.unique(x).tolist()
        nll[...] = (np.exp(output) - x[:, None] * output).sum(axis=-1)

    def backward(self, kernels, doutput, grads, dnll, kept, output, x, params):
        doutput[...] = dnll[..., None] * (np.exp(output) - x[:, None])


COUNTS = np.array([[0, 1, 3, 200], [7, 0, 255, 2], [1, 1, 0, 0]], np.uint8)


@pytest.mark.parametrize("dtype", ["u1", "i8", "u2", ">i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("call", ["fit", "loss_and_gradients", "elbo", "encode", "summarize", "start_at"])
def test_counts_are_what_they_say(dtype, call):
    """Whatever their type, and also where a byte is 0 or 1 alone."""
    for x in (np.tile(COUNTS, (2, 1)), np.tile(COUNTS[2:], (6, 1))):
        vae = model(Often())
        vae.parameters.flat[...] *= 0.01
        other = copy.deepcopy(vae)
        if call == "start_at":
            x = x + np.uint8(1)
        same(CALLS[call](vae, x.astype(dtype)), CALLS[call](other, x.astype(float)))
        if call == "fit":
            assert vae.likelihood.seen == np.unique(x).tolist()


def test_what_is_no_count_is_refused():
    vae = model(Often())
    for bad, says in ((np.full((6, 4), 0.5), "x must hold whole numbers for likelihood often, found 0.5"),
                      (np.full((6, 4), -1), "x must hold numbers from 0 on for likelihood often, found -1"),
                      (np.full((6, 4), np.inf), "x must hold finite numbers")):
        with pytest.raises(ValueError, match=says):
            vae.elbo(bad, rng())
    for how in BINARIZATIONS[1:]:
        with pytest.raises(ValueError, match="^binarize needs pixels, and likelihood often takes other numbers"):
            fit(vae, COUNTS, COUNTS, 1, 3, binarize=how)


def test_a_likelihood_says_what_it_takes_or_takes_any_pixel():
    """One of the reader's without a word about it; and one that looks for itself."""
    class Silent:
        name = "silent"

    class Even(Silent):
        def check(self, x, name):
            if (x * 255 % 2 > 0.01).any():
                raise ValueError(f"{name} must be even")

    assert type(support_of(Silent())) is Reals and scale_of(BYTES, support_of(Silent())) == 1 / 255
    odd = type("Odd", (Even, Bernoulli), {})()
    with pytest.raises(ValueError, match="x must be even"):
        model(odd).encode(BYTES | 1)
    model(odd).encode(np.zeros((2, 4)))


@pytest.mark.parametrize("support", [Support(), Reals(), UnitInterval(), Levels(), Levels(3), Counts()])
def test_random_images_for_gradient_checks_lie_within(support):
    class Any:
        pass

    part, x = Any(), np.random.default_rng(0).random((5, 7))
    part.support = support
    support.check(fitting(part, x), "x")
    assert len(np.unique(fitting(part, x))) > 2


# ---- Pictures, pages, the program

def test_pictures_of_bytes_and_of_floats_are_the_same(tmp_path, monkeypatch):
    """Also where what is shown of the images is nearly black."""
    vae, seen = model(), []
    monkeypatch.setattr(plotting, "tile_figure", lambda images, *others, **more: seen.append(images))
    monkeypatch.setattr(plotting, "png", lambda figure: b"")

    def pictures(x):
        seen.clear()
        plotting.samples(x, (2, 2))
        plotting.reconstructions(x, x[::-1], (2, 2), False)
        plotting.class_samples(np.stack([x, x[::-1]]), [0, 1], (2, 2))
        plotting.pseudo_inputs(x, x[::-1], (2, 2))
        plotting.interpolation(vae, x[-4:].reshape(2, 2, 4), (2, 2))
        plotting.traversals(vae, x[-1], np.ones(2), (2, 2))
        plotting.save_pictures(vae, x, None, (2, 2), [], tmp_path, rng())
        return [figures.mosaic(images, (2, 2))[0] for images in seen]

    def thumbnails(x):
        page = write_explorer(vae, x, None, (2, 2), tmp_path / "page.html").read_text(encoding="utf-8")
        return re.search('"thumbs":"([^"]+)"', page)[1]

    for x in (BYTES, DARK[-8:]):
        one, other = pictures(x), pictures(x / np.float32(255))
        assert len(one) == len(other) == 10 and all(map(np.array_equal, one, other))
        assert thumbnails(x) == thumbnails(x / np.float32(255))


def write_idx(folder, train, test):
    folder.mkdir()
    for name, images in (("train", train), ("t10k", test)):
        shape = np.array([len(images), 2, 2], ">u4").tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + images.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + shape[:4] + bytes(len(images)))


def write_pictures(folder, images):
    from PIL import Image
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.reshape(2, 2)).save(folder / f"{i}.png")


def sources(folder, images, dtypes):
    """One data set in every form that the program reads: 40 images of 2 x 2, the last four the test set."""
    def text(x):
        return "\n".join(",".join(map(str, row)) for row in x.tolist())

    for dtype in dtypes:
        np.save(folder / f"{dtype}.npy", images.astype(dtype))
        np.savez(folder / f"{dtype}.npz", train=images[:36].astype(dtype), test=images[36:].astype(dtype))
    (folder / "table.csv").write_text(text(images))
    write_idx(folder / "idx", images[:36], images[36:])
    write_pictures(folder / "pictures", images)
    return [*(f"{dtype}.{kind}" for dtype in dtypes for kind in ("npy", "npz")), "table.csv", "idx", "pictures"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Train and evaluate without drawing: the test loss, the bound, and the images that pictures would show."""
    shown = []
    monkeypatch.setattr(runs, "save_pictures", lambda vae, x, *others: shown.append(x) or [])
    return lambda source, out, *flags: [*_run(source, out, *flags), shown[-1]]


def _run(source, out, *flags):
    assert main(["train", "--data-dir", str(source), "--out", str(out), "--hidden", "3", "--latent", "2", "--quiet",
                 "--epochs", "1", "--batch-size", "6", *flags]) is None
    assert main(["evaluate", str(out), "--samples", "20", "--json", f"{out}.json"]) is None
    metrics = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return [metrics["test_loss"], json.loads((out.parent / f"{out.name}.json").read_text())["elbo"]]


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian:0.2"])
def test_the_program_means_what_the_methods_mean(tmp_path, likelihood, run):
    """Black and white in 0 and 1, in every form and type, has one test loss, that of `fit`."""
    white = np.random.default_rng(3).integers(0, 2, (40, 4), dtype=np.uint8)
    vae = VAE(4, (3,), 2, likelihood=likelihood)
    expected = fit(vae, white[:36], white[36:], 1, 6)[0]["test_loss"]
    for name in sources(tmp_path, white, ["u1", "?", "f4"]):
        loss, _, shown = run(tmp_path / name, tmp_path / f"run of {name}", "--likelihood", likelihood)
        assert loss == expected and np.array_equal(shown, white[36:]), name


def test_the_program_decides_once_for_a_file(tmp_path, run):
    """Of bytes whose first rows, and last, are 0 and 1 alone: the test set does not change what they mean, nor does
    --limit in a table, which is read as a whole."""
    dark = np.tile(np.array([[0, 1, 1, 0]], np.uint8), (40, 1))
    dark[20] = [0, 9, 1, 255]
    np.save(tmp_path / "u1.npy", dark)
    np.save(tmp_path / "f4.npy", (dark / np.float32(255)).astype("f4"))
    for i, flags in enumerate([[], ["--binarize", "dynamic"]]):
        same(run(tmp_path / "u1.npy", tmp_path / f"u{i}", *flags), run(tmp_path / "f4.npy", tmp_path / f"f{i}", *flags))
    (tmp_path / "table.csv").write_text("\n".join(",".join(map(str, row)) for row in dark.tolist()))
    first = load(tmp_path / "table.csv", limit=6)
    for x in (first.train_images, first.test_images):
        assert np.array_equal(to_float(x), dark[:len(x)] / np.float32(255))
    assert len(first.train_images) == 6 and load(tmp_path / "table.csv", limit=25).train_images.dtype == np.uint8


# ---- A copy of a likelihood takes its support along

def test_a_copy_takes_the_same_data():
    vae = model(Often())
    vae.parameters.flat[...] *= 0.01
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert other.loss_and_gradients(COUNTS, np.ones((3, 1, 2)), ELBO())[0] == vae.loss_and_gradients(
            COUNTS, np.ones((3, 1, 2)), ELBO())[0]
