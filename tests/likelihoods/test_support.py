"""One array means one thing: in `fit`, in every method, measure and picture, and in the program."""
import copy
import json
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import ELBO, VAE, Bernoulli, Callback, active_units, evaluate, fit, hierarchical_vae, plotting, summarize
from npvae.cli import runs
from npvae.plotting import figures, pictures
from npvae.data import BINARIZATIONS, binarize, load, to_float
from npvae.pages import write_explorer
from npvae.model import active_units_per_layer
from npvae.likelihoods import make_likelihood
from npvae.cli.program import main
from npvae.likelihoods.base import Likelihood
from npvae.likelihoods.support import (
    Counts, Levels, Reals, Support, UnitInterval, fitting, floats, part_of, read, scale_of, together)
from strategies import IMAGES

RNG = np.random.default_rng(15)
WHITE = RNG.integers(0, 2, (6, 4))      # black and white
BYTES = RNG.integers(0, 256, (6, 4), dtype=np.uint8)
BYTES[0, 0] = 200
PIXEL_NAMES = pytest.mark.parametrize("name", ["categorical:6" if name == "categorical" else name
                                               for name in IMAGES])


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


@pytest.mark.every(8)
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
    "floats from 0 to 255": (BYTES.astype(float), r"must lie in \[0, 1\] .*: divide pixels from 0 to 255 by 255"),
    "int64 from 0 to 255": (BYTES.astype(int), r"holds int64 from \d+ to \d+: .* pass pixels from 0 to 255 as uint8"),
    "uint16": (BYTES.astype("u2") * 256, "holds uint16 from"), "negative": (-WHITE, "holds int64 from -1 to"),
    "NaN": (np.where(WHITE, np.nan, 0.0), r"must lie in \[0, 1\] .*, found NaN"),
    "complex": (WHITE * 1j, "must hold real numbers, got an array of complex128"),
    "object": (WHITE.astype(object), "must hold real numbers, got an array of object"),
    "text": (WHITE.astype(str), "must hold real numbers"), "times": (WHITE.astype("m8[s]"), "must hold real numbers"),
    "masked": (np.ma.array(WHITE * 1.0, mask=WHITE == 1), "must not be masked")}


@pytest.mark.every(5)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", REFUSED)
def test_one_refusal(call, what):
    """In every method, in one line, before a parameter changes."""
    vae, (x, says) = model(), REFUSED[what]
    before = vae.parameters.flat.copy()
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        CALLS[call](vae, x)
    assert "\n" not in str(caught.value) and np.array_equal(vae.parameters.flat, before)


@pytest.mark.parametrize("levels, whole", [(256, "bytes / 255"), (6, "whole numbers / 5")])
def test_levels_may_be_as_far_off_as_rounding(levels, whole):
    """A thousandth of one; a mean may lie anywhere between."""
    support, x = Levels(levels), np.arange(levels)[None] / (levels - 1)
    assert support.all_bytes == (levels == 256) and Levels().levels == 256
    support.check((x + 0.0007 / (levels - 1) * (x < 1)).astype("f4"), "x")
    wrong = x + 0.0015 / (levels - 1) * (x == 0)
    with pytest.raises(ValueError, match=f"^photos must hold {whole} for these, found {wrong[0, 0]:g}; other"):
        support.check(wrong, "photos", "these")
    support.check_mean(wrong, "photos", "these")
    for check in (support.check, support.check_mean):
        with pytest.raises(ValueError, match=r"^photos must lie in \[0, 1\] for these, found values from 0 to 2: d"):
            check(2 * x, "photos", "these")


def test_what_lies_in_the_unit_interval():
    UnitInterval().check(np.array([[0, 0.3, 1]]), "x")
    for outside in (-0.5, 1.5):
        with pytest.raises(ValueError, match=r"^x must lie in \[0, 1\] for this likelihood, found"):
            UnitInterval().check(np.array([[0.5, outside]]), "x")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_unit_interval_to_the_last_bit(dtype):
    """At any place, in any order of memory."""
    one, small = np.dtype(dtype).type(1), np.finfo(dtype).smallest_subnormal
    for number, lies_within in ((0, True), (-0.0, True), (small, True), (1, True), (np.nextafter(one, 2), False),
                                (-small, False), (-1, False), (np.inf, False), (-np.inf, False), (np.nan, False)):
        for place in range(6):
            x = np.full((2, 3), 0.5, dtype)
            x.flat[place] = number
            for view in (x, x[::-1, ::-1], np.asfortranarray(x)):
                if lies_within:
                    UnitInterval().check(view, "x")
                else:
                    with pytest.raises(ValueError, match=r"^x must lie in \[0, 1\] for this likelihood, found"):
                        UnitInterval().check(view, "x")


def test_a_byte_of_2_is_no_black_and_white_and_no_bytes_are():
    assert to_float(np.array([0, 2], np.uint8)).tolist() == [0, np.float32(2) / np.float32(255)]
    assert to_float(np.zeros((0, 4), np.uint8)).shape == (0, 4)
    assert floats(np.array([51.0]), 1 / 255) == 0.2


def test_images_that_will_be_binarized_and_means_may_have_any_grey():
    x, part = np.full((2, 4), 0.3), likelihood_of(Levels(6))
    read(x, "photos", 4, part, "float32", mean=True)
    read(x, "photos", 4, part, "float32", binarized=True)
    for wrong, flags, says in ((x, {}, "must hold whole numbers / 5"), (5 * x, {"mean": True}, r"must lie in \[0, 1\]"),
                               (5 * x, {"binarized": True}, r"must lie in \[0, 1\] to be binarized"),
                               (1j * x, {}, "must hold real numbers")):
        with pytest.raises((ValueError, TypeError), match=f"^photos {says}"):
            read(wrong, "photos", 4, part, "float32", **flags)


def test_who_has_numbers_below_0_is_not_told_to_divide():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\] for these, found values from -0.5 to 255$"):
        UnitInterval().check_mean(np.array([[-0.5, 255]]), "x", "these")


@pytest.mark.every(5)
@PIXEL_NAMES
@pytest.mark.parametrize("call", ["fit", "loss_and_gradients", "encode", "reconstruct", "elbo", "log_likelihood"])
def test_of_every_likelihood_of_pixels(name, call):
    levels = getattr(make_likelihood(name).support, "levels", 256)
    grey = (BYTES // 51 * 51) if levels == 6 else BYTES
    for x, as_floats in ((WHITE.astype(np.uint8), WHITE * 1.0), (grey, grey / 255)):
        same(CALLS[call](model(name), x), CALLS[call](model(name), as_floats))


@pytest.mark.parametrize("name", ["gaussian:0.2", "gaussian-pixel"])
def test_reals_are_not_confined_and_integers_say_which_they_are(name):
    x = 2 + 3 * RNG.standard_normal((6, 4))
    assert np.array_equal(by_fit(model(name), x)[0], x)
    with pytest.raises(ValueError, match="x holds int64 from -.* pixels .* as uint8 and other numbers as floats"):
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


def test_two_parts_of_one_data_set_mean_the_same():
    """Bytes of which one part is 0 and 1 alone; what is black means 0 either way."""
    black, dark = np.zeros((3, 4), np.uint8), DARK[:3]
    for one, other in ((BYTES, black), (black, dark), (dark, dark), (BYTES, BYTES), (BYTES / 255, dark)):
        assert together(one, other)[0] is one and together(one, other)[1] is other
    for one, other in (together(BYTES, dark), together(dark, BYTES)[::-1]):
        assert one is BYTES and other.dtype == np.float32 and np.array_equal(other, dark / np.float32(255))


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


@pytest.mark.every(3)
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
    for bad, says in ((0.5, "x must hold whole numbers for likelihood often, found 0.5"),
                      (-1, "x must not hold negative numbers for likelihood often, found -1"),
                      (np.inf, "x must hold finite numbers")):
        with pytest.raises(ValueError, match=says):
            vae.elbo(np.where(COUNTS == 255, bad, COUNTS.astype(float)), rng())
    for how in BINARIZATIONS[1:]:
        with pytest.raises(ValueError, match="^binarize needs pixels, and likelihood often takes other numbers"):
            fit(vae, COUNTS, COUNTS, 1, 3, binarize=how)


def test_a_likelihood_says_what_it_takes_or_takes_any_pixel():
    """One of the reader's without a word about it; and one whose support is the reader's own."""
    class Even(Support):
        def check(self, x, name, whose="this likelihood"):
            if (x * 255 % 2 > 0.01).any():
                raise ValueError(f"{name} must be even")

        all_bytes = False

    assert type(Likelihood.support) is Reals and scale_of(BYTES, Likelihood.support) == 1 / 255
    even = type("OfEven", (Bernoulli,), {"support": Even()})()
    with pytest.raises(ValueError, match="x must be even"):
        model(even).encode(BYTES | 1)
    model(even).encode(np.zeros((2, 4)))


@pytest.mark.parametrize("support", [Support(), Reals(), UnitInterval(), Levels(), Levels(3), Counts()])
def test_random_images_for_gradient_checks_lie_within(support):
    class Any:
        pass

    part, x = Any(), np.random.default_rng(0).random((5, 7))
    part.support = support
    support.check(fitting(part, x), "x")
    support.check(fitting(part, 0 * x), "x")
    assert len(np.unique(fitting(part, x))) > 2


# ---- What is looked at

class Looking(Support):
    """Remembers what it was shown."""

    def __init__(self, pixels=True, all_bytes=False):
        self.pixels, self.all_bytes, self.shown = pixels, all_bytes, []

    def check(self, x, name, whose="this likelihood"):
        self.shown.append(x)
        super().check(x, name, whose)


class Blind(Support):
    """As one of the reader's that says nothing of bytes."""

    check = None


def likelihood_of(support):
    return SimpleNamespace(name="looking:3", support=support)


def test_what_is_read_is_copied_only_where_no_model_can_use_it():
    for dtype in ("u1", "f4", "f8"):
        x = WHITE.astype(dtype)
        assert read(x, "x", 4, likelihood_of(Reals()), "float32")[0] is x
    seen, scale = read(WHITE > 0, "x", 4, likelihood_of(Reals()), "float32")
    assert seen.dtype == np.uint8 and np.array_equal(seen, WHITE) and scale == 1
    for dtype in ("i8", "f2", "g", ">f4"):
        for model_dtype, expected in (("float32", "f4"), ("float64", "f8"), ("complex128", "f8")):
            seen, _ = read(WHITE.astype(dtype), "x", 4, likelihood_of(Reals()), model_dtype)
            assert seen.dtype == expected and np.array_equal(seen, WHITE)


@pytest.mark.parametrize("binarized", [False, True])
@pytest.mark.parametrize("all_bytes", [False, True])
def test_bytes_are_looked_at_where_some_may_be_wrong(all_bytes, binarized):
    """Not where all are right, nor where they are black and white pixels or will be."""
    for pixels in (True, False)[:2 - binarized]:
        for x in (WHITE.astype(np.uint8), BYTES):
            support = Looking(pixels, all_bytes)
            seen, scale = read(x, "x", 4, likelihood_of(support), "float32", binarized, mean=not all_bytes)
            assert seen is x and scale == (1 / 255 if pixels and x is BYTES else 1)
            right = all_bytes or binarized or pixels and x is not BYTES
            assert len(support.shown) == (not right)
            read(x, "x", 4, likelihood_of(Blind()), "float32")
            if support.shown:
                assert support.shown[0].dtype == np.float32
                assert np.array_equal(support.shown[0], x / np.float32(255) if pixels else x)


def test_all_rows_are_looked_at_once_as_the_model_sees_them(monkeypatch):
    """A few at a time, and where they lie if the model has their type."""
    monkeypatch.setattr("npvae.likelihoods.support._ROWS", 2)
    for dtype in ("f4", "f8"):
        for rows in (4, 5):
            x, support = RNG.random((rows, 3)).astype(dtype), Looking()
            read(x, "x", 3, likelihood_of(support), "float32")
            assert [len(part) for part in support.shown] == [2, 2, 1][:rows - 2]
            assert np.array_equal(np.vstack(support.shown), x.astype("f4"))
            assert all(part.dtype == np.float32 for part in support.shown)
            assert np.shares_memory(support.shown[0], x) == (dtype == "f4")


@pytest.mark.parametrize("dtype", ["f8", "g"])
def test_what_no_float32_holds_is_refused_without_a_warning(dtype):
    with pytest.raises(ValueError, match="x must hold finite numbers, found NaN or infinity as float32"):
        read(np.full((2, 4), 1e300, dtype), "x", 4, likelihood_of(Reals()), "float32")


@pytest.mark.parametrize("x", [[[0, 2]], [[-1, 1]], [[-1, 0]], [[1, 255]]])
def test_whole_numbers_that_are_no_pixels_are_refused(x):
    low, high = x[0]
    with pytest.raises(ValueError, match=f"x holds int64 from {low} to {high}: for likelihood looking, pass pixels"):
        read(np.array(x, np.int64), "x", 2, likelihood_of(Reals()), "float32")
    read(np.array([[0, 1]]), "x", 2, likelihood_of(Reals()), "float32")
    assert read(np.abs(x), "x", 2, likelihood_of(Counts()), "float32")[0].tolist() == np.abs(x).tolist()


# ---- Pictures, pages, the program

def test_pictures_of_bytes_and_of_floats_are_the_same(tmp_path, monkeypatch):
    """Also where what is shown of the images is nearly black."""
    vae, seen = model(), []
    monkeypatch.setattr(pictures, "tile_figure", lambda images, *others, **more: seen.append(images))
    monkeypatch.setattr(pictures, "png", lambda figure: b"")

    def drawn(x):
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
        one, other = drawn(x), drawn(x / np.float32(255))
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
        loss, _, shown = run(tmp_path / name, tmp_path / f"run of {name}", "--likelihood", likelihood, "--test-part",
                             "last")
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
