"""encode, decode and tables of samples: the numbers of the library, in files that other programs read."""
import csv
import io

import numpy as np
import pytest

from npvae import VAE, plotting
from npvae.cli import program
from npvae.data.codes import load_codes
from tiny_runs import TINY, drawn, library, pixels, program_in, train_in, without_pictures
from refusals import assert_refused


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = train_in(tmp_path_factory.mktemp("codes"))
    data = np.load(folder / "data.npz")
    np.savez(folder / "classes.npz", **data, train_labels=np.arange(50) % 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        without_pictures(patch)
        for flags in (["--data-dir", "classes.npz", "--conditional", "--out", "classes"],
                      ["--posterior", "planar:1", "--out", "flow"]):
            program.main(["train", *TINY, "--kernels", "numpy", "--quiet", *flags])
    return folder


@pytest.fixture
def npvae(first, monkeypatch, capsys):
    return program_in(first, monkeypatch, capsys)


def every_row(first, source="data.npz"):
    data = np.load(first / source)
    x = np.concatenate([data["train"], data["test"]]).reshape(-1, 12)
    return x.astype(np.float32) / np.float32(255)


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_encode(npvae, first, tmp_path):
    """mu and logvar of every row, training rows first, with the bits of `vae.encode`."""
    out = tmp_path / "x.csv"
    assert npvae("encode", "run", "--logvar", "--out", out) == (0, f"{out}\n", "")
    mu, logvar = library(first)[0].encode(every_row(first))
    codes = load_codes(out, 3)
    assert np.array_equal(codes.z.astype(np.float32), mu) and codes.others["row"] == list(map(str, range(150)))
    found = np.array([codes.others[f"logvar_{j}"] for j in (1, 2, 3)]).T
    assert np.array_equal(found.astype(np.float32), logvar)
    assert npvae("encode", "run", "--data-dir", "other.npz", "--out", tmp_path / "x.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), library(first)[0].encode(every_row(first, "other.npz"))[0])
    assert npvae("encode", "run")[1] == "run/codes.csv\n" and "the code of every row" in npvae("info", "run")[1]


def test_rows_stand_in_the_order_of_the_file(npvae, first, tmp_path):
    """Of a single array, too, of which training draws a test part; and a single row is enough."""
    x = np.random.default_rng(0).random((30, 12)).astype(np.float32)
    for rows in (x, x[:1]):
        np.save(tmp_path / "rows.npy", rows)
        assert npvae("encode", "run", "--data-dir", tmp_path / "rows.npy", "--out", tmp_path / "x.npy")[0] == 0
        assert np.array_equal(np.load(tmp_path / "x.npy"), library(first)[0].encode(rows)[0])


def test_encode_draws(npvae, first, tmp_path):
    rng, vae, x = np.random.default_rng(5), library(first)[0], every_row(first)
    assert npvae("encode", "run", "--draws", 2, "--seed", 5, "--out", tmp_path / "x.csv")[0] == 0
    codes = load_codes(tmp_path / "x.csv", 3)
    assert [codes.others[name][:4] for name in ("row", "draw")] == [["0", "0", "1", "1"], ["1", "2", "1", "2"]]
    for draw in range(2):
        assert np.array_equal(codes.z[draw::2], vae.draw_posterior(x, rng))


def test_codes_of_a_flow_are_moved_by_it(npvae, first, tmp_path):
    vae, x = VAE.load(first / "flow" / "checkpoint.npz", "numpy"), every_row(first)
    assert npvae("encode", "flow", "--out", tmp_path / "x.csv")[0] == 0
    assert np.array_equal(load_codes(tmp_path / "x.csv", 3).z.astype(np.float32), vae.move(vae.encode(x)[0], x))
    assert (tmp_path / "x.csv").read_text().startswith("row,z_1,")
    assert_refused(npvae("encode", "flow", "--logvar"), "--logvar: q.z.x. of posterior planar:1 has no variances")


@pytest.mark.parametrize("name", ["run", "classes"])
def test_from_rows_to_codes_and_back(name, npvae, first, tmp_path):
    """decode gives the bits of `vae.decode`, from either kind of file, and keeps rows and labels."""
    vae = VAE.load(first / name / "checkpoint.npz", "numpy" if name == "classes" else "numba")
    x, source = every_row(first), tmp_path / "x.csv"
    labels = np.concatenate([np.arange(50) % 3, np.load(first / "data.npz")["test_labels"]])
    given = () if name == "run" else (labels,)
    for kind in ("csv", "npy"):
        assert npvae("encode", name, "--out", tmp_path / f"x.{kind}")[0] == 0
    expected = vae.decode(vae.encode(x, *given)[0], *given)
    assert npvae("decode", name, "--codes", source, "--out", tmp_path / "rows.csv")[0] == 0
    rows = table(tmp_path / "rows.csv")
    assert [row["row"] for row in rows] == list(map(str, range(150)))
    found = np.array([[row[f"x_{j + 1}"] for j in range(12)] for row in rows]).astype(np.float32)
    assert np.array_equal(found, expected)
    if given:
        assert [row["label"] for row in rows] == list(map(str, labels))
        assert_refused(npvae("decode", name, "--codes", tmp_path / "x.npy"), "no column label.*--label NAME")
        assert npvae("decode", name, "--codes", tmp_path / "x.npy", "--label", 2, "--out", tmp_path / "y.npy")[0] == 0
        assert np.array_equal(np.load(tmp_path / "y.npy"), vae.decode(vae.encode(x, labels)[0], np.full(150, 2)))
    else:
        np.save(tmp_path / "few.npy", np.load(tmp_path / "x.npy")[:7])
        assert npvae("decode", name, "--codes", tmp_path / "few.npy", "--out", tmp_path / "y.png")[0] == 0
        picture = plotting.samples(expected[:7], (4, 3), True, "Decoded codes")
        assert np.array_equal(pixels(tmp_path / "y.png"), drawn(picture, tmp_path))
        assert_refused(npvae("decode", name, "--codes", source, "--label", 2), "--label 2: .* has no classes")


def test_samples_in_a_table(npvae, first, tmp_path):
    vae, out = VAE.load(first / "classes" / "checkpoint.npz", "numpy"), tmp_path / "x.csv"
    assert npvae("sample", "classes", "--count", 5, "--label", 2, 0, "--draw", "--out", out)[0] == 0
    expected = vae.sample(5, np.random.default_rng(0), mean=False, labels=np.array([2, 2, 2, 0, 0]))
    rows = np.array([[*row.values()] for row in table(out)], float)
    assert np.array_equal(rows, np.column_stack([[2, 2, 2, 0, 0], expected]))


def test_samples_from_a_mixture(npvae, first, tmp_path):
    """The bits of `vae.sample` with codes that are drawn from q(z|x) of the training images."""
    train = np.load(first / "data.npz")["train"].reshape(-1, 12).astype(np.float32) / np.float32(255)
    vae, rng = library(first)[0], np.random.default_rng(2)
    assert npvae("sample", "run", "--from", "mixture:2", "--count", 9, "--seed", 2, "--out", tmp_path / "x.npy")[0] == 0
    expected = vae.sample(9, rng, prior="mixture:2", codes=vae.draw_posterior(train, rng))
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)
    assert npvae("sample", "classes", "--from", "mixture:2", "--count", 9, "--out", tmp_path / "x.png")[0] == 0


BAD = {
    "sample run --from mixture": "--from: must be mixture:C, such as mixture:10, .* got 'mixture', or be prior",
    "sample run --from mixture:0": "--from: must be mixture:C", "sample run --from mixture:51": "at most the number of",
    "encode run --out x.txt": "--out x.txt: must end in .csv or .npy",
    "encode run --data-dir wide.npy": "wide.npy: holds 18 pixels an image; the model takes 12",
    "encode run --draws 0": "--draws: must be", "encode run --draws 2 --logvar": "not allowed with argument",
    "encode classes --data-dir wide.npy": "wide.npy: has no labels", "decode run": "required: --codes",
    "decode nowhere --codes x.csv": "there is no run in nowhere", "decode run --codes x.csv": "x.csv: cannot be read",
    "decode run --codes data.npz": "data.npz: must end in .csv or .npy",
    "decode run --codes wide.npy": r"wide.npy: holds an array of shape \(100, 18\)",
    "decode classes --codes wide.npy --label 7": "wide.npy: holds an array of shape",
    "decode run --codes x.csv --out x.jpg": "--out x.jpg: must end in .png or .npy or .csv"}


@pytest.mark.parametrize("words", BAD)
def test_refusals(words, npvae):
    assert_refused(npvae(*words.split()), BAD[words])
