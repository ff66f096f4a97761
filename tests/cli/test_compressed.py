"""`npvae compress`, `decompress` and `info`: the bytes and arrays of the library, and errors in one line."""
import numpy as np
import pytest
from PIL import Image

from npvae import VAE, compress
from npvae.cli import program
from refusals import assert_refused
from tiny_runs import TINY, program_in, without_pictures

pytest.importorskip("constriction")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 4, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed")
    np.savez(folder / "data.npz", train=GREY[:20], test=GREY[20:])
    np.save(folder / "grey.npy", GREY)
    np.save(folder / "rows.npy", GREY.reshape(30, 12))
    np.save(folder / "none.npy", GREY[:0])
    np.save(folder / "wide.npy", GREY.reshape(20, 18))
    (folder / "pictures").mkdir()
    for i, image in enumerate(GREY[:12]):
        Image.fromarray(image).save(folder / "pictures" / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        without_pictures(patch)
        for flags in ("beta-binomial --out run", "beta-binomial --seed 1 --out other", "gaussian --out density"):
            program.main(["train", *TINY, "--kernels", "numpy", "--quiet", "--likelihood", *flags.split()])
        program.main(["compress", "run", "grey.npy", "--out", "x.npvae"])
    return folder


@pytest.fixture
def npvae(folder, monkeypatch, capsys):
    return program_in(folder, monkeypatch, capsys)


@pytest.mark.parametrize("name", ["grey", "rows", "none"])
def test_an_array_comes_back(name, npvae, folder, tmp_path):
    code, out, error = npvae("compress", "run", f"{name}.npy", "--out", tmp_path / "x.npvae")
    n = 0 if name == "none" else 30
    assert (code, error) == (0, "") and out.startswith(f"{tmp_path / 'x.npvae'}\n{n} images in ")
    assert npvae("decompress", tmp_path / "x.npvae", "--run", "run", "--out", tmp_path / "x.npy")[0] == 0
    assert (tmp_path / "x.npy").read_bytes() == (folder / f"{name}.npy").read_bytes()


def test_rows_give_the_bytes_of_the_library(npvae, folder, tmp_path):
    npvae("compress", "run", "rows.npy", "--out", tmp_path / "x.npvae")
    assert (tmp_path / "x.npvae").read_bytes() == compress(VAE.load(folder / "run" / "checkpoint.npz"),
                                                           GREY.reshape(30, 12))


def test_pictures_come_back_in_the_order_given(npvae, tmp_path):
    assert npvae("compress", "run", *(f"pictures/{i}.png" for i in range(12)), "--out", tmp_path / "x.npvae")[0] == 0
    assert npvae("decompress", tmp_path / "x.npvae", "--run", "run", "--out", tmp_path / "back")[0] == 0
    names = sorted(path.name for path in (tmp_path / "back").iterdir())
    assert names == [f"{i:02d}.png" for i in range(12)] and not list(tmp_path.glob(".npvae*"))
    assert np.array_equal([np.asarray(Image.open(tmp_path / "back" / name)) for name in names], GREY[:12])
    assert npvae("compress", "run", "pictures", "--out", tmp_path / "y.npvae")[0] == 0
    assert (tmp_path / "x.npvae").read_bytes() == (tmp_path / "y.npvae").read_bytes()


def test_several_files_one_after_the_other(npvae, tmp_path):
    npvae("compress", "run", "data.npz", "pictures", "--out", tmp_path / "x.npvae")
    npvae("decompress", tmp_path / "x.npvae", "--run", "run", "--out", tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), np.concatenate([GREY, GREY[:12]]))


def test_info_tells_what_a_file_says(npvae):
    code, out, error = npvae("info", "x.npvae")
    assert (code, error) == (0, "") and "30 of 4 x 3, as uint8, in 1 block\n" in out and "beta-binomial\n" in out


@pytest.mark.parametrize("command, says", [
    ("compress run wide.npy --out x.npvae", "^npvae: wide.npy: holds 18 numbers an image; the model takes 12$"),
    ("compress run grey.npy rows.npy --out y.npvae", "rows.npy: holds uint8 rows, grey.npy uint8 4 x 3; they must"),
    ("compress run gone.npy --out x.npvae", "gone.npy: there is no such file"),
    ("compress run x.npvae --out y.npvae", "x.npvae: cannot be read as a picture"),
    ("compress run grey.npy --out x.zip", "--out x.zip: must end in .npvae"),
    ("compress run grey.npy", "required: --out"),
    ("compress density grey.npy --out y.npvae", "grey.npy with density: likelihood gaussian cannot be compressed with"),
    ("decompress x.npvae --run other --out y.npy", "x.npvae: was compressed with another model"),
    ("decompress grey.npy --run run --out y.npy", "grey.npy: is not a file of npvae compress"),
    ("decompress gone.npvae --run run --out y.npy", "gone.npvae: No such file"),
    ("decompress x.npvae --run run --out pictures", "--out pictures: exists; give a new or an empty folder"),
    ("decompress x.npvae --run gone --out y.npy", "no run in gone")])
def test_one_line_says_what_was_wrong_and_nothing_is_written(command, says, npvae, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert_refused(npvae(*command.split()), says)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_damaged_file_gives_no_image(npvae, folder, tmp_path):
    data = bytearray((folder / "x.npvae").read_bytes())
    data[-9] ^= 4
    (tmp_path / "x.npvae").write_bytes(data)
    for out in ("x.npy", "pictures"):
        assert_refused(npvae("decompress", tmp_path / "x.npvae", "--run", "run", "--out", tmp_path / out),
                       "x.npvae: has a damaged block 1 of 1$")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npvae"]
