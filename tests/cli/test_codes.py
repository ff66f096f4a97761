"""encode, decode and tables of samples: the numbers of the library, in files that other programs read."""
import csv
import io
import json
import shutil

import numpy as np
import pytest

from npvae import VAE, checkpoint, data, plotting
from npvae.cli import program, runs
from npvae.data.codes import load_codes
from npvae.evaluate import quantiles, score_rows
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


@pytest.mark.parametrize("name", ["run", "classes", "flow"])
def test_score(name, npvae, first, tmp_path):
    """The bits of `score_rows`, and of `vae.log_likelihood`; columns add up; quantiles among the training rows."""
    vae, x = VAE.load(first / name / "checkpoint.npz", "numba" if name == "run" else "numpy"), every_row(first)
    labels = np.concatenate([np.arange(50) % 3, np.load(first / "data.npz")["test_labels"]])
    given = (labels,) if name == "classes" else ()
    code, out, _ = npvae("score", name, "--samples", 30, "--columns", "--seed", 4, "--out", tmp_path / "x.csv")
    assert code == 0 and "(Nalisnick et al. 2019)" in out and out.startswith("150 rows of ")
    rng = np.random.default_rng(4)
    found = score_rows(vae, x, rng, 30, *given, columns=True)
    against = score_rows(vae, x[:50], rng, 30, *(one[:50] for one in given))
    rows = table(tmp_path / "x.csv")
    expected = {"row": np.arange(150), "log_p": found.log_p, "log_p_error": found.errors, "elbo": found.elbo,
                "reconstruction": found.reconstruction, "kl": found.kl,
                "quantile": quantiles(found.log_p, against.log_p), "reconstruction_12": found.columns[:, 11]}
    for column, values in expected.items():
        assert np.array_equal([float(row[column]) for row in rows], values), column
    assert np.array_equal(found.log_p, vae.log_likelihood(x, np.random.default_rng(4), 30, *given))
    assert ("label" in rows[0]) == (name == "classes")


def test_scores_in_other_files(npvae, first, tmp_path):
    flags = ["--samples", 1, "--against", 0, "--data-dir", "other.npz"]
    for kind in ("json", "npy"):
        assert npvae("score", "run", *flags, "--out", tmp_path / f"x.{kind}")[0] == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["warning"].endswith("(Nalisnick et al. 2019)") and found["columns"]["log_p_error"][0] is None
    names = ["log_p", "log_p_error", "elbo", "reconstruction", "kl"]
    assert [*found["columns"]] == ["row", *names] and len(found["columns"]["row"]) == 90
    numbers = np.array([found["columns"][name] for name in names], float).T
    assert np.array_equal(np.load(tmp_path / "x.npy"), numbers, equal_nan=True)
    assert "Nalisnick" in npvae("evaluate", "run", "--samples", 2, "--data-dir", "other.npz")[1]


@pytest.fixture
def gaps(first, tmp_path):
    """A run with missing cells, and a table for it, with semicolons, another column, gaps in columns 2 and 5."""
    folder = shutil.copytree(first / "run", tmp_path / "gaps")
    arrays, manifest = checkpoint.read(folder / "checkpoint.npz")
    vae = VAE(**{**manifest["vae"], "missing": True}, seed=3)
    flat = {name: vae.parameters.flat for name in arrays}
    checkpoint.write(folder / "checkpoint.npz", flat, {**manifest, "vae": vae.config(), **vae.parameters.layout()})
    x = np.random.default_rng(0).integers(1, 99, (20, 12)) / 100
    rows = [[f"{cell}0" for cell in row] for row in x]
    for i in range(0, 20, 3):
        rows[i][1], rows[i][4] = "", "NA"
        x[i, [1, 4]] = np.nan
    header = ["label", *(f"name {j}" for j in range(12))]
    source = tmp_path / "gaps.csv"
    source.write_text("\n".join(";".join(row) for row in [header, *([str(i % 2), *row] for i, row in enumerate(rows))]))
    return vae, x.astype(np.float32), folder, source


@pytest.mark.parametrize("draws", [None, 2])
def test_impute(draws, gaps, npvae, tmp_path, monkeypatch):
    """Missing cells get the numbers of `vae.impute`, with as many decimals as the column has; all others stand as in
    the file, to the character."""
    vae, x, folder, source = gaps
    monkeypatch.setattr(runs, "_reading", lambda args, whole: data.Reading(table=True, whole=whole))
    flags = ["--samples", 20, "--seed", 1, "--data-dir", source, *(["--draws", draws] if draws else [])]
    code, out, error = npvae("impute", folder, *flags, "--out", tmp_path / "x.csv")
    assert code == 0 and out.startswith("14 missing cells in 7 of 20 rows of "), error
    expected = vae.impute(x, np.random.default_rng(1), 20, draws)
    assert code == 0, error
    before, after = ([line.split(";") for line in path.read_text().splitlines()]
                     for path in (source, tmp_path / "x.csv"))
    assert after[0] == ["draw"] * bool(draws) + before[0] and len(after) == 1 + 20 * (draws or 1)
    for n, cells in enumerate(after[1:]):
        m, i = divmod(n, 20)
        cells = cells[1:] if draws else cells
        values = expected[m, i] if draws else expected[i]
        for j, (cell, old) in enumerate(zip(cells, before[1 + i])):
            assert cell == old if old not in ("", "NA") else float(cell) == pytest.approx(values[j - 1], abs=0.0051)
    assert npvae("impute", folder, *flags, "--out", tmp_path / "x.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)


BAD = {
    "impute run": "the run in run takes no missing cells", "score run --samples 0": "--samples: must be",
    "score run --out x.txt": "--out x.txt: must end in .csv or .npy or .json",
    "score run --data-dir wide.npy": "wide.npy: holds 18 pixels an image; the model takes 12",
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
