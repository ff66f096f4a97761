"""Checkpoints: read back exactly as written, or refused in one line that names the file; never half written."""
import copy
import functools
import hashlib
import io
import json
import math
import re
import textwrap
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from npvae import ELBO, IWAE, VAE, Adam, Checkpoint, CheckpointError, Gaussian, fit
from npvae import checkpoint
from npvae.likelihoods.support import fitting
from strategies import IMAGES

RNG = np.random.default_rng(5)
X, X_TEST = RNG.random((9, 6)), RNG.random((4, 6))
GOOD = {"format": "npvae checkpoint", "version": 1}


def small(**changes):
    return VAE(**{"input_dim": 6, "hidden": (3,), "latent_dim": 2, "kernels": "numpy", **changes})


def member(array, allow_pickle=False):
    """An array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=allow_pickle)
    return stream.getvalue()


def seal(path, members, how=zipfile.ZIP_STORED):
    """Write a file as the docstring of npvae.checkpoint describes it, with a digest that fits, whatever it holds."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"?" * 64
    body = stream.getvalue()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def refusal(call, path, *says):
    """The message of the CheckpointError that call raises: one line that begins with the file."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for text in says:
        assert text in message
    return message


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model's checkpoint: its path, its bytes and a scratch path beside it."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.npz"
    small().save(path)
    return path, path.read_bytes(), path.with_name("altered.npz")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The checkpoint of a training run of one epoch."""
    path = tmp_path_factory.mktemp("run") / "checkpoint.npz"
    fit(small(), X, X_TEST, 1, 4, callbacks=[Checkpoint(path)])
    return path


# ---- What is written is what is read

@given(st.data())
def test_round_trip(tmp_path_factory, data):
    dtypes = st.sampled_from(["<f4", "<f8", "u1", "<i8"])
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = {name: (100 * rng.random(data.draw(shapes))).astype(data.draw(dtypes)) for name in ("a", "b.W", "c/d")}
    manifest = data.draw(st.dictionaries(
        st.text(max_size=4).filter(lambda key: key not in GOOD),
        st.integers(-2**140, 2**140) | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.none(),
        max_size=3))
    path = tmp_path_factory.mktemp("round") / "c.npz"
    checkpoint.write(path, arrays, manifest)
    read, head = checkpoint.read(path)
    assert head == {**GOOD, **manifest}
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()
    some, _ = checkpoint.read(path, ["c/d", "b.W", "other"])
    assert list(some) == ["b.W", "c/d"]


def test_numpy_opens_it(written):
    path, _, _ = written
    with np.load(path) as archive:
        assert np.array_equal(archive["parameters"], small().parameters.flat)
        assert json.loads(archive["manifest.json"])["vae"]["hidden"] == [3]
        assert b'\n "version": 1,' in archive["manifest.json"]      # of lines, for whoever unpacks it


@pytest.mark.parametrize("config", [{}, {"classes": 3, "decoder": "made:4", "prior": "mixture:2", "posterior": "iaf:2"},
                                    {"likelihood": "gaussian-learned", "hidden": (), "prior": "vamp:2"}])
def test_numpy_alone_finds_every_tensor(config, tmp_path, monkeypatch):
    """By the lines of the docstring, in a model's file and in a run's."""
    monkeypatch.chdir(tmp_path)
    vae, x = small(**config), np.rint(X)
    recipe = textwrap.dedent("\n".join(re.findall("^    .*$", checkpoint.__doc__, re.M)))
    labels = np.arange(9) % 3 if config.get("classes") else None
    for save in (lambda: vae.save("model.npz"),
                 lambda: fit(vae, x, x, 1, 9, objective=IWAE(), callbacks=[Checkpoint("model.npz")],
                             labels_train=labels, labels_test=labels)):
        save()
        found = {"np": np, "json": json, "math": math}
        exec(recipe, found)
        assert list(found["tensors"]) == list(vae.parameters) and not len(found["flat"])
        assert all(np.array_equal(found["tensors"][name], value) for name, value in vae.parameters.items())
        assert found["manifest"]["vae"] == vae.config()


@pytest.mark.every(5)
@pytest.mark.parametrize("decoder_hidden", [None, (), (5, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("likelihood", [*IMAGES, "negative-binomial:shared+size", "student-t:4+shared",
                                        "ordinal:3,2,4,5,2,3", "gaussian:0.37", "gaussian-learned:0.61",
                                        "categorical:6"])
def test_model_round_trip(tmp_path, likelihood, dtype, decoder_hidden):
    vae = small(likelihood=likelihood, dtype=dtype, decoder_hidden=decoder_hidden, activation="tanh", seed=3)
    vae.parameters.flat[...] += RNG.normal(0, 0.1, vae.parameters.flat.shape)
    vae.save(tmp_path / "m.npz")
    loaded = VAE.load(tmp_path / "m.npz", kernels="numpy")
    assert loaded.config() == vae.config()
    assert loaded.parameters.shapes == vae.parameters.shapes
    assert loaded.parameters.flat.dtype == dtype
    assert loaded.parameters.flat.tobytes() == vae.parameters.flat.tobytes()
    x = fitting(vae.likelihood, np.clip(X, 0, 1))
    bounds = [model.elbo(x, np.random.default_rng(1)) for model in (vae, loaded)]
    assert np.array_equal(*bounds)


def test_model_of_a_run_and_other_kernels(run):
    arrays, _ = checkpoint.read(run)
    for kernels in ("numba", "numpy"):
        assert np.array_equal(VAE.load(run, kernels).parameters.flat, arrays["parameters"])


def test_own_likelihood_is_handed_in(tmp_path):
    own = Gaussian(0.4)
    own.name = "my own"
    path = tmp_path / "own.npz"
    small(likelihood=own).save(path)
    refusal(lambda: VAE.load(path), path, "'my own'", "bernoulli, gaussian")
    assert VAE.load(path, likelihood=own).likelihood is own


def test_what_could_not_be_read_is_not_written(tmp_path):
    for arrays, manifest, says in (({"a": np.array([{}])}, {}, "Object arrays"), ({}, {"a": [math.inf]}, "JSON"),
                                   ({}, {"a": {"b": math.nan}}, "JSON")):
        with pytest.raises(ValueError, match=says):
            checkpoint.write(tmp_path / "c.npz", arrays, manifest)
    assert not list(tmp_path.iterdir())


def test_of_more_than_two_gigabytes(tmp_path, monkeypatch):
    """The zip gets a second end from there on, in which lengths have 64 bits."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    checkpoint.write(tmp_path / "c.npz", {"a": np.arange(99.0)}, {"b": 1})
    assert b"PK\6\7" in (tmp_path / "c.npz").read_bytes()
    assert checkpoint.read(tmp_path / "c.npz")[0]["a"].tolist() == list(range(99))


@pytest.mark.parametrize("piece", [1, 7, 2 ** 20])
def test_the_digest_is_of_all_pieces(written, monkeypatch, piece):
    path, content, altered = written
    monkeypatch.setattr(checkpoint, "PIECE", piece)
    checkpoint.read(path)
    for position in (len(content) // 2, len(content) - 65):
        altered.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1:])
        refusal(lambda: checkpoint.read(altered), altered)


# ---- Damage

@settings(max_examples=60)
@given(st.data())
def test_every_flipped_bit_is_refused(written, data):
    _, content, path = written
    altered = bytearray(content)
    altered[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(altered)
    refusal(lambda: checkpoint.read(path), path)


def test_every_flipped_bit_of_the_digest_is_refused(written):
    _, content, path = written
    for position in range(len(content) - 64, len(content)):
        for bit in range(8):      # bit 5 makes a small letter a capital: the same number in hexadecimal
            altered = bytearray(content)
            altered[position] ^= 1 << bit
            path.write_bytes(altered)
            refusal(lambda: checkpoint.read(path), path)


def test_every_truncation_is_refused(written):
    _, content, path = written
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refusal(lambda: checkpoint.read(path), path)


@pytest.mark.parametrize("call", ["VAE.load", "fit"])
@pytest.mark.parametrize("alter", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: b"", lambda c: b"<html>" * 99])
def test_damage_is_refused_wherever_it_is_read(written, alter, call):
    _, content, path = written
    path.write_bytes(alter(content))
    refusal((lambda: VAE.load(path)) if call == "VAE.load" else lambda: fit(small(), X, X_TEST, 1, 4, resume=path),
            path, "not a checkpoint of npvae")


def test_a_plain_npz_is_refused(tmp_path):
    path = tmp_path / "plain.npz"
    np.savez(path, parameters=np.zeros(4))
    refusal(lambda: checkpoint.read(path), path, "not a checkpoint of npvae")


@pytest.mark.parametrize("name", ["nothing.npz", "."])
def test_what_cannot_be_read_is_refused(tmp_path, name):
    refusal(lambda: checkpoint.read(tmp_path / name), tmp_path / name, "cannot be read")


# ---- A digest that fits, content that does not

LONG_HEADER = member(np.zeros(2)).replace(b"(2,), }" + b" " * 13, b"(20000000000000,), }")
CRAFTED = {
    "newer version": ({"manifest.json": json.dumps({**GOOD, "version": 2})}, ("version 2", "up to 1", "newer npvae")),
    "other format": ({"manifest.json": json.dumps({**GOOD, "format": "soup"})}, ("not a checkpoint of npvae",)),
    "no format": ({"manifest.json": json.dumps({"version": 1})}, ("not a checkpoint of npvae",)),
    "no version": ({"manifest.json": json.dumps({"format": "npvae checkpoint"})}, ("not a checkpoint", "version")),
    "a list": ({"manifest.json": "[1, 2]"}, ("not a checkpoint of npvae", "manifest")),
    "no JSON": ({"manifest.json": "\xff{"}, ("not a checkpoint of npvae",)),
    "deep JSON": ({"manifest.json": "[" * 200_000}, ("not a checkpoint of npvae",)),
    "version 0": ({"manifest.json": json.dumps({**GOOD, "version": 0})}, ("not a checkpoint", "version must be at")),
    "no manifest": ({"parameters.npy": member(np.zeros(3))}, ("not a checkpoint of npvae", "manifest.json")),
    "object array": ({"manifest.json": json.dumps(GOOD),
                      "parameters.npy": member(np.array([{}, []], dtype=object), allow_pickle=True)},
                     ("not a checkpoint of npvae", "Object arrays")),
    "raw pickle": ({"manifest.json": json.dumps(GOOD), "parameters.npy": b"\x80\x04N."}, ("not a checkpoint",)),
    "short array": ({"manifest.json": json.dumps(GOOD), "parameters.npy": member(np.zeros(9))[:-1]},
                    ("not a checkpoint of npvae",)),
    "160 terabytes": ({"manifest.json": json.dumps(GOOD), "parameters.npy": LONG_HEADER},
                      ("not a checkpoint of npvae",))}


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_files_are_refused(tmp_path, case):
    members, says = CRAFTED[case]
    path = tmp_path / "crafted.npz"
    seal(path, members)
    refusal(lambda: checkpoint.read(path), path, *says)


def test_a_file_sealed_here_is_accepted(tmp_path):
    """So that the refusals above are for their content."""
    seal(tmp_path / "c.npz", {"manifest.json": json.dumps(GOOD), "a.npy": member(np.arange(3))})
    arrays, manifest = checkpoint.read(tmp_path / "c.npz")
    assert manifest == GOOD and arrays["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("alone", [True, False])
def test_a_deflated_checkpoint_is_refused(tmp_path, alone):
    """A small file of large arrays: ours are as long in the file as in memory."""
    path, deflated = tmp_path / "c.npz", zipfile.ZipInfo("a.npy")
    deflated.compress_type = zipfile.ZIP_DEFLATED
    seal(path, {"manifest.json": json.dumps(GOOD), "a.npy" if alone else deflated: member(np.zeros(10 ** 6))},
         zipfile.ZIP_DEFLATED if alone else zipfile.ZIP_STORED)
    assert path.stat().st_size < 10_000
    refusal(lambda: checkpoint.read(path), path, "compressed members")


def sealed_anew(path, body):
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def test_what_was_put_before_the_first_member_is_refused(written):
    """Also where the digest fits: so gigabytes in a hole need not be read."""
    _, content, path = written
    sealed_anew(path, content[:-64])
    checkpoint.read(path)
    sealed_anew(path, b"PK\3\4" + content[:-64])
    refusal(lambda: checkpoint.read(path), path, "not a checkpoint", "first member")


def test_members_that_are_longer_than_the_file_are_refused(tmp_path):
    """What the list of members says: nothing is taken into memory for it."""
    path, note = tmp_path / "c.npz", b"written by hand"
    seal(path, {"manifest.json": json.dumps(GOOD), "note": note})
    sizes = [len(note).to_bytes(4, "little"), (10 ** 9).to_bytes(4, "little")]
    before, _, after = path.read_bytes()[:-64].rpartition(sizes[0])
    sealed_anew(path, before + sizes[1] + after)
    refusal(lambda: checkpoint.read(path), path, "longer than the file")


def test_a_manifest_longer_than_any_run_keeps_is_refused(written, monkeypatch):
    path, _, _ = written
    with zipfile.ZipFile(path) as archive:
        length = archive.getinfo("manifest.json").file_size
    monkeypatch.setattr(checkpoint, "MOST_TEXT", length)
    checkpoint.read(path)
    monkeypatch.setattr(checkpoint, "MOST_TEXT", length - 1)
    refusal(lambda: checkpoint.read(path), path, "manifest is longer than")


def test_an_error_without_words_is_named(written):
    def check(manifest, headers):
        raise ValueError

    path, _, _ = written
    refusal(lambda: checkpoint.read(path, check=check), path, "ValueError")


@pytest.mark.parametrize("name", ["posterior", "prior", "decoder"])
def test_a_model_that_only_its_name_makes_large(tmp_path, name):
    """Neither the time nor the memory is taken that it asks for."""
    form = {"posterior": "iaf:2:{}", "prior": "mixture:{}", "decoder": "made:{}"}[name]
    path = tmp_path / "m.npz"
    for many in ("9" * 9, "9" * 30):
        config = {**small().config(), name: form.format(many)}
        checkpoint.write(path, {"parameters": np.zeros(70, "f4")}, {"vae": config})
        tracemalloc.start()
        try:
            refusal(lambda: VAE.load(path), path, "holds 70 parameters of float32, but its settings make a model of")
            assert tracemalloc.get_traced_memory()[1] < 2 ** 20
        finally:
            tracemalloc.stop()


def test_only_the_arrays_that_are_needed_are_read(tmp_path):
    """A model beside 40 MB of something else."""
    path, vae = tmp_path / "m.npz", small()
    checkpoint.write(path, {"parameters": vae.parameters.flat, "m": np.zeros(5 * 10 ** 6)}, {"vae": vae.config()})
    tracemalloc.start()
    try:
        assert np.array_equal(VAE.load(path).parameters.flat, vae.parameters.flat)
        assert tracemalloc.get_traced_memory()[1] < 2 ** 22
    finally:
        tracemalloc.stop()


GONE = object()
WRONG = [GONE, "x", None, [], {}, [[]], -1, 0.5, 10 ** 90, True]
#: what a run that has ended an epoch does without, or has a default for; True is 1, and so may be right
NO_USE = {("shapes",), ("format",), ("version",), ("settings", "shuffle"), ("settings", "n_samples"),
          ("settings", "objective"), ("settings", "optimizer"), ("training", "first_epoch"),
          *(("training", "sums", name) for name in ("images", "loss", "nll", "kl", "seconds"))}


def keys(manifest, above=()):
    """The path of each key, of every depth."""
    for key, value in manifest.items():
        yield (*above, key)
        if isinstance(value, dict) and key != "shapes":
            yield from keys(value, (*above, key))


@pytest.mark.slow
def test_every_key_of_a_manifest_is_looked_at(run, tmp_path):
    """Taken away or of another type, it is refused in a line and nothing is changed, or it was of no use: the model and
    what comes of the run are the same."""
    arrays, manifest = checkpoint.read(run)
    path, straight = tmp_path / "c.npz", small()
    fit(straight, X, X_TEST, 2, 4)
    for where in keys(manifest):
        for replacement in WRONG:
            changed = copy.deepcopy(manifest)
            *above, last = where
            inner = functools.reduce(lambda part, key: part[key], above, changed)
            if replacement is GONE:
                del inner[last]
            else:
                inner[last] = replacement
            checkpoint.write(path, arrays, changed)
            vae = small(seed=3)
            before = vae.parameters.flat.copy()
            try:
                fit(vae, X, X_TEST, 2, 4, resume=path)
            except CheckpointError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error), where
                assert np.array_equal(vae.parameters.flat, before), where
            else:
                assert where in NO_USE or replacement == functools.reduce(lambda part, key: part[key], where, manifest)
                assert np.array_equal(vae.parameters.flat, straight.parameters.flat), (where, replacement)


@pytest.mark.parametrize("config, parameters, says", [
    ({}, np.zeros(31, "f4"), ("holds 31 parameters of float32", "70 of float32")),
    ({}, np.zeros(70), ("holds 70 parameters of float64", "70 of float32")),
    ({"hidden": [4]}, np.zeros(70, "f4"), ("holds 70 parameters of float32", "81 of float32")),
    ({"activation": "swish"}, np.zeros(70, "f4"), ("activation must be one of", "relu", "'swish'")),
    ({"likelihood": "weibull"}, np.zeros(70, "f4"), ("likelihood must be one of", "bernoulli", "'weibull'")),
    ({"latent_dim": 0}, np.zeros(70, "f4"), ("latent_dim", "at least 1")),
    ({"flavour": 1}, np.zeros(70, "f4"), ("its manifest must say activation, decoder_hidden,", "it says 'flavour'")),
    ({}, None, ("holds 0 parameters of float32", "70 of float32")),
    (None, np.zeros(70, "f4"), ("its manifest must say what VAE(...) was given, got None",)),
    ([1], np.zeros(70, "f4"), ("its manifest must say what VAE(...) was given, got [1]",))])
def test_model_that_does_not_fit_its_settings(tmp_path, config, parameters, says):
    path = tmp_path / "m.npz"
    checkpoint.write(path, {} if parameters is None else {"parameters": parameters},
                     {"vae": {**small().config(), **config} if isinstance(config, dict) else config})
    refusal(lambda: VAE.load(path), path, "holds no model that can be built here: ", *says)


@pytest.mark.parametrize("name", small().config())
def test_a_model_needs_all_its_settings(tmp_path, name):
    config = small().config()
    del config[name]
    checkpoint.write(tmp_path / "m.npz", {"parameters": small().parameters.flat}, {"vae": config})
    refusal(lambda: VAE.load(tmp_path / "m.npz"), tmp_path / "m.npz", "its manifest must say ", f"; {name} is missing")


# ---- Resuming with something else

@pytest.mark.parametrize("model, training, says", [
    ({"hidden": (4,), "decoder_hidden": (3,)}, {}, "hidden is [4] here and [3] there"),
    ({"decoder_hidden": (5,)}, {}, "decoder_hidden is [5] here and [3] there"),
    ({"latent_dim": 3}, {}, "latent_dim is 3 here and 2 there"),
    ({"activation": "tanh"}, {}, "activation is 'tanh' here and 'relu' there"),
    ({"likelihood": "gaussian"}, {}, "likelihood is 'gaussian:0.1' here and 'bernoulli' there"),
    ({"dtype": "float64"}, {}, "dtype is 'float64' here and 'float32' there"),
    ({"prior": "mixture:2"}, {"objective": ELBO(sampled=True)}, "prior is 'mixture:2' here and None there"),
    ({}, {"batch_size": 3}, "batch_size is 3 here and 4 there"),
    ({}, {"n_samples": 2}, "n_samples is 2 here and 1 there"),
    ({}, {"binarize": "dynamic"}, "binarize is 'dynamic' here and 'none' there"),
    ({}, {"seed": 1}, "seed is 1 here and 0 there"),
    ({}, {"x_train": X[:8]}, "images is 8 here and 9 there"),
    ({}, {"x_train": X[::-1]}, "data_crc32 is")])
def test_resume_names_what_differs(run, model, training, says):
    vae, optimizer = small(**model, seed=4), Adam()
    before = vae.parameters.flat.copy()
    call = {"x_train": X, "x_test": X_TEST, "epochs": 2, "batch_size": 4, "optimizer": optimizer, **training}
    message = refusal(lambda: fit(vae, **call, resume=run), run, "other settings", says)
    changed = {*model, *training} - {"decoder_hidden" if "hidden" in model else "", "x_train"}
    assert message.count(" here and ") == (len(changed) if changed else 1 + (len(call["x_train"]) != len(X)))
    assert np.array_equal(vae.parameters.flat, before) and optimizer.t == 0


def test_resume_needs_a_run(written):
    path, _, _ = written
    refusal(lambda: fit(small(), X, X_TEST, 1, 4, resume=path), path, "no training run to resume")


def test_resume_needs_arrays_that_fit(run, tmp_path):
    arrays, manifest = checkpoint.read(run)
    path = tmp_path / "c.npz"
    for broken in ({"m": arrays["m"][:1]}, {"v": arrays["v"].astype("f8")}, {"parameters": arrays["m"][:, None]}):
        checkpoint.write(path, {**arrays, **broken}, manifest)
        refusal(lambda: fit(small(), X, X_TEST, 2, 4, resume=path), path, f"holds no {next(iter(broken))} of float32")


METRICS = ("epoch", "step", "train_loss", "test_loss", "test_nll", "test_kl", "active_units")


@pytest.mark.every(2)
@pytest.mark.parametrize("where, value, says", [
    *(((part, name), least - 1, f"{name} must be at least {least}, got {least - 1}") for part, name, least in (
        ("training", "epoch", 0), ("training", "batch", 0), ("training", "t", 0), ("settings", "images", 1),
        ("training", "first_epoch", 0))),
    *(((part, name), 2 ** 63, f"{name} must be below 2^63, got 9223372036854775808") for part, name in (
        ("training", "epoch"), ("training", "batch"), ("training", "t"), ("settings", "images"))),
    (("training", "t"), "x", "t must be an integer of at least 0, got 'x'"),
    (("vae", "prior"), "mixture:2", "other settings: prior is None here and 'mixture:2' there"),
    (("settings", "more"), 3, "other settings: more is None here and 3 there"),
    (("training", "batch"), 4, "has done 4 batches of an epoch of 3"),
    (("training", "first_epoch"), 1, "history must be the metrics of 0 epochs"),
    *((("training", "sums", name), "x", f"{name} must be a number") for name in (
        "images", "loss", "nll", "kl", "seconds")),
    *((("training", "history", 0, name), "x", f"{name} must be a number") for name in METRICS),
    *((("training", *rest), value, f"{rest[0]} must be the state of a generator, got ") for rest, value in (
        (("noise", "has_uint32"), 2), (("draws", "has_uint32"), -1), (("noise", "more"), 1))),
    *((("training", name, "bit_generator"), "MT19937", "") for name in ("noise", "draws"))])
def test_a_state_of_training_that_no_run_has(run, tmp_path, where, value, says):
    arrays, manifest = checkpoint.read(run)
    *above, last = where
    functools.reduce(lambda part, key: part[key], above, manifest)[last] = value
    checkpoint.write(tmp_path / "c.npz", arrays, manifest)
    refusal(lambda: fit(small(), X, X_TEST, 2, 4, resume=tmp_path / "c.npz"), tmp_path / "c.npz", says)


@pytest.mark.parametrize("name", ["parameters", "m", "v"])
def test_a_state_that_is_not_finite_is_refused(run, tmp_path, name):
    arrays, manifest = checkpoint.read(run)
    arrays[name][3] = np.nan
    checkpoint.write(tmp_path / "c.npz", arrays, manifest)
    vae, optimizer = small(seed=3), Adam()
    refusal(lambda: fit(vae, X, X_TEST, 2, 4, optimizer, resume=tmp_path / "c.npz"), tmp_path / "c.npz",
            f"holds NaN or infinity among its {name}")
    assert np.array_equal(vae.parameters.flat, small(seed=3).parameters.flat) and not optimizer.m.flat.any()


@pytest.mark.parametrize("first", [None, 1])
def test_where_a_run_began_is_kept(first, run, tmp_path):
    """With epoch 0 where an older checkpoint does not say it."""
    arrays, manifest = checkpoint.read(run)
    del manifest["training"]["first_epoch"]
    manifest["training"].update({} if first is None else {"first_epoch": first, "history": []})
    checkpoint.write(tmp_path / "c.npz", arrays, manifest)
    fit(small(), X, X_TEST, 2, 4, resume=tmp_path / "c.npz", callbacks=[Checkpoint(tmp_path / "d.npz")])
    assert checkpoint.read(tmp_path / "d.npz")[1]["training"]["first_epoch"] == (first or 0)


def test_resume_to_fewer_epochs_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    fit(small(), X, X_TEST, 2, 4, callbacks=[Checkpoint(path)])
    refusal(lambda: fit(small(), X, X_TEST, 1, 4, resume=path), path, "2 epochs", "got 1")


@pytest.mark.parametrize("year", [1901, 1970, 2150])
def test_a_clock_that_no_zip_file_can_hold_loses_nothing(tmp_path, monkeypatch, year):
    """Boards without a battery start in 1970.  And the same content is the same file at any time."""
    arrays, manifest = {"a": np.arange(3.0)}, {"b": 1}
    checkpoint.write(tmp_path / "today.npz", arrays, manifest)
    monkeypatch.setattr(time, "localtime", lambda *seconds: time.struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0)))
    checkpoint.write(tmp_path / "then.npz", arrays, manifest)
    assert (tmp_path / "then.npz").read_bytes() == (tmp_path / "today.npz").read_bytes()
    assert np.array_equal(checkpoint.read(tmp_path / "then.npz")[0]["a"], arrays["a"])
