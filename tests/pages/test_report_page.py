"""report.html without a browser: one file, nothing loaded, every number and picture in it, bad folders refused."""
import base64
import json
import math

import pytest
from pages import Page, loads_nothing

from npvae.cli import command_line, options
from npvae.pages import report
from npvae.plotting import PICTURES
from npvae.pages import write_report

SETTINGS = {"hidden": [7, 4], "latent": 9, "likelihood": "bernoulli", "objective": "elbo", "k": 1, "beta": 1.0,
            "binarize": "none", "epochs": 3, "data_dir": "mnist", "limit": None}
VERSIONS = {"python": "3.11.7", "numpy": "2.4.6", "machine": "Linux"}


def row(epoch, **changes):
    return {"epoch": epoch, "step": 9 * epoch, "seconds": 0.25, "images_per_second": 65432.1 + epoch, "beta": 1.0,
            "train_loss": 200 - 20.0 * epoch, "train_nll": 180 - 20.0 * epoch, "train_kl": 10.0 + epoch,
            "test_loss": 190 - 10.0 * epoch, "test_nll": 170 - 11.0 * epoch, "test_kl": 12.0 + epoch,
            "active_units": 5 + epoch, **changes}


@pytest.fixture
def write(tmp_path):
    """Writes a run's folder and its report; the page."""
    def write(history=None, settings=SETTINGS, pictures=(), folder=tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"settings": settings, "versions": VERSIONS}))
        history = [row(1), row(2), row(3)] if history is None else history
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in history))
        for name in pictures:
            (folder / name).write_bytes(b"\x89PNG " + name.encode())
        assert write_report(folder) == folder / "report.html"
        return Page(folder / "report.html")
    return write


def numbers(page):
    """The numbers in large type: name -> text."""
    return dict(zip(page.texts("dt"), page.texts("dd"), strict=True))


# ---- What is in it

def test_one_file_that_loads_nothing(write):
    page = write(pictures=PICTURES)
    assert loads_nothing(page)
    assert page.all("meta", name="viewport", content="width=device-width, initial-scale=1")
    assert page.all("html", lang="en") and "prefers-color-scheme: dark" in page.text


def test_the_final_numbers(write):
    page = write()
    assert numbers(page) == {"test loss": "160.00", "reconstruction": "137.00", "KL": "15.00", "active units": "8 ",
                             "epochs": "3", "seconds": "0.75", "images/s": "65,434"}
    assert page.texts("small") == ["of 9"]


def test_a_run_that_was_stopped_says_of_how_many_epochs(write):
    page = write([row(1), row(2)])
    assert numbers(page)["epochs"] == "2 " and page.texts("small") == ["of 9", "of 3"]


def test_every_setting_version_and_epoch(write):
    page = write()
    named = dict(zip(page.texts("th", scope="row"), page.texts("td")[-len(SETTINGS) - len(VERSIONS):], strict=True))
    assert named == {**{name.replace("_", " "): str(value) for name, value in SETTINGS.items()}, **VERSIONS,
                     "hidden": "7, 4", "limit": "–"}
    cells = page.texts("td")
    assert cells[8:16] == ["2", "160.00", "170.00", "148.00", "14.00", "7", "0.25", "65,434"]
    assert len(page.texts("th", scope="col")) == 8 and "epoch" in page.texts("th", scope="col")


def test_the_table_of_many_epochs_is_folded(write):
    assert "open" in write([row(i + 1) for i in range(20)]).all("details")[0][0]
    page = write([row(i + 1) for i in range(2100)])
    assert "open" not in page.all("details")[0][0] and page.texts("summary") == ["2,100 epochs"]


@pytest.mark.parametrize("changes, says, not_says", [
    ({}, ["evidence lower bound", "not a likelihood"], ["K ="]),
    ({"binarize": "static"}, ["evidence"], ["not a likelihood"]),
    ({"likelihood": "gaussian:0.1"}, ["evidence"], ["not a likelihood"]),
    ({"objective": "iwae", "k": 5}, ["importance-weighted bound, K = 5"], ["evidence"])])
def test_what_the_loss_is(write, changes, says, not_says):
    text = write(settings={**SETTINGS, **changes}).text
    assert all(part in text for part in says) and not any(part in text for part in not_says)


def test_it_reads_the_settings_of_the_program():
    """Names that the page asks for with .get, which would hide a change of name."""
    theirs = options.settings(options.training_parser().parse_args([]))
    assert {"data_dir", "latent", "epochs", "objective", "k", "likelihood", "binarize"} <= {*theirs}
    assert (theirs["likelihood"], theirs["objective"], theirs["binarize"]) == ("bernoulli", "elbo", "none")
    assert (report.CONFIG, report.METRICS) == (command_line.CONFIG, command_line.METRICS)


# ---- Pictures and curves

def test_every_picture_is_embedded_with_alt_and_caption(write, tmp_path):
    page = write(pictures=PICTURES)
    assert {f"{name}.png" for name in report.PICTURES} == {*PICTURES} - {"learning_curves.png"}
    images = page.all("img")
    for (attributes, _), name in zip(images, report.PICTURES, strict=True):
        head, data = attributes["src"].split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == (tmp_path / f"{name}.png").read_bytes()
        assert len(attributes["alt"]) > 20
    captions = page.texts("figcaption")[-len(images):]
    assert all(text.startswith("Look for ") for text in captions) and len({*captions}) == len(images)


def test_pictures_that_are_missing_are_left_out(write):
    assert write().all("img") == []
    assert len(write(pictures=["samples.png", "traversals.png"]).all("img")) == 2


def panels(page):
    """What each SVG shows, read off its own scale: [(ticks, {class: [(x, value)]})]."""
    found = []
    for tag, attributes, text in page.elements:
        if tag == "svg":
            found.append(({}, {}))
        elif tag == "line":
            y = float(attributes["y1"])
        elif tag == "text" and attributes.get("text-anchor") == "end" and not text.isspace():
            if float(attributes["x"]) < report.LEFT:
                found[-1][0][float(text)] = y
        elif tag == "polyline":
            (low, low_y), *_, (high, high_y) = found[-1][0].items()
            points = [tuple(map(float, pair.split(","))) for pair in attributes["points"].split()]
            found[-1][1][attributes["class"]] = [
                (x, low + (y - low_y) / (high_y - low_y) * (high - low)) for x, y in points]
    return found


def test_the_curves_read_off_their_scale_are_the_metrics(write):
    history = [row(1), row(2, train_kl=-3.5), row(3, test_kl=14.31)]
    for (ticks, lines), name in zip(panels(write(history)), ("loss", "nll", "kl"), strict=True):
        assert 2 <= len(ticks) <= 6
        assert (ticks[max(ticks)], ticks[min(ticks)]) == (report.TOP, report.BOTTOM)
        for part in ("train", "test"):
            expected = [one[f"{part}_{name}"] for one in history]
            scale = max(ticks) - min(ticks)
            assert [value for _, value in lines[part]] == pytest.approx(expected, abs=scale / 1000)
            assert [x for x, _ in lines[part]] == [report.LEFT, 201, report.RIGHT]


def test_beta_is_drawn_where_it_varies(write):
    assert len(panels(write())) == 3
    ticks, lines = panels(write([row(1, beta=0.0), row(2, beta=0.4), row(3)]))[3]
    assert [value for _, value in lines["test"]] == pytest.approx([0, 0.4, 1], abs=1e-3)


@pytest.mark.parametrize("low, high", [(0, 1), (105.31, 105.32), (-600, -560.5), (3, 3), (0, 0), (1e-9, 3e-9),
                                       (0, 7e7)])
def test_ticks_are_round_numbers_around_the_values(low, high):
    ticks = report._ticks(low, high)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 6 and ticks[0] <= low and high <= ticks[-1]
    assert step / 10 ** math.floor(math.log10(step * 1.0001)) == pytest.approx(1) or round(
        step / 10 ** math.floor(math.log10(step)), 6) in (2, 5)


def test_one_epoch(write):
    page = write([row(1)])
    assert [len(lines["test"]) for _, lines in panels(page)] == [1, 1, 1] and len(page.all("circle")) == 6


@pytest.mark.parametrize("bad, shown", [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (None, "–")])
def test_metrics_that_are_no_numbers(write, bad, shown):
    page = write([row(1), row(2), row(3, test_loss=bad, seconds=bad)])
    assert numbers(page)["test loss"] == shown and numbers(page)["seconds"] == "0.50"
    assert len(panels(page)[0][1]["test"]) == 2 and len(panels(page)[0][1]["train"]) == 3
    nothing = write([{name: bad for name in row(1)}])
    assert panels(nothing) == [] and numbers(nothing)["images/s"] == "–"
    assert numbers(write([{}]))["KL"] == "–"


# ---- What people may write

def test_every_text_is_escaped(write, tmp_path):
    evil = "<b>&\"'</script><img src=x>"
    settings = {evil: evil, "data_dir": evil, "latent": evil, "epochs": evil, "objective": "iwae", "k": evil}
    page = write(settings=settings, history=[row(1, test_kl=evil, seconds=evil)], folder=tmp_path / "<i>&amp;")
    assert not page.all("b") and not page.all("i") and not page.all("img")
    assert page.texts("h1") == ["Training run: <i>&amp;"] and numbers(page)["KL"] == evil
    assert page.texts("th", scope="row")[0] == evil and f"of {evil}" in page.texts("small")


# ---- What is refused

@pytest.mark.parametrize("file, content, says", [
    ("config.json", None, "cannot be read"), ("metrics.jsonl", None, "cannot be read"),
    ("config.json", b"{", "is not the config.json"), ("config.json", b"[]", "holds JSON objects"),
    ("config.json", b'{"versions": {}}', "holds settings and versions"),
    ("config.json", b"\xff\xfe", "byte 1 is not UTF-8"),
    ("config.json", b'{"settings": {}, "versions": 3}', "holds settings and versions"),
    ("metrics.jsonl", b"", "holds no epoch"), ("metrics.jsonl", b'{"epoch": 1}\n3\n', "holds JSON objects"),
    ("metrics.jsonl", b'{"epoch": 1}\n{"epo', "is not the metrics.jsonl")])
def test_a_folder_that_is_no_run_is_refused_and_nothing_is_written(write, tmp_path, file, content, says):
    write()
    before = (tmp_path / "report.html").read_bytes()
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        write_report(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / file}: ") and len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))
