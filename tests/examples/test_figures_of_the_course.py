"""The figures of the chapters are those that the code draws, are shown, and can be read on white and on black."""
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest

from chapters import CHAPTERS, ROOT
from derivations import figures

from npvae import VAE, cli

SVG = "{http://www.w3.org/2000/svg}"
PAGES = [*CHAPTERS.values(), ROOT / "README.md", ROOT / "examples" / "derivations" / "README.md"]
#: those that are drawn in a moment
QUICK = ("elbo_gap", "kl_order", "graph", "reparameterization", "likelihoods", "planar", "masks")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def committed(name):
    return (figures.FOLDER / f"{name}.svg").read_text(encoding="utf-8")


def content(text):
    """The words, and the coordinates of every curve that has a name: what no version of Matplotlib changes."""
    tree = ElementTree.fromstring(text)
    words = ["".join(element.itertext()) for element in tree.iter(f"{SVG}text")]
    curves = {group.get("id"): [float(number) for path in group.iter(f"{SVG}path")
                                for number in NUMBER.findall(path.get("d"))]
              for group in tree.iter(f"{SVG}g") if not re.search(r"_\d+$", group.get("id", "_1"))}
    return words, curves


def contrast(one, other):
    """The contrast of two colours such as "#1f2328", by the definition of WCAG 2."""
    def luminance(colour):
        parts = np.array([int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", QUICK)
def test_the_file_is_what_the_code_draws(name):
    (words, curves), (old_words, old_curves) = content(figures.draw(name)), content(committed(name))
    assert words == old_words and list(curves) == list(old_curves)
    for curve, points in curves.items():
        np.testing.assert_allclose(points, old_curves[curve], atol=0.3, err_msg=curve)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(figures.FIGURES) - set(QUICK)))
def test_a_figure_of_a_training_run_is_drawn(name):
    """Its numbers are those of the machine: a processor that rounds otherwise trains otherwise."""
    def words(text):
        return [re.sub(r"\d+\.\d+", "", word) for word in content(text)[0] if re.search("[a-z]", word)]
    assert words(figures.draw(name)) == words(committed(name))


def test_a_figure_is_the_same_bytes_each_time():
    assert figures.draw("elbo_gap") == figures.draw("elbo_gap")


def test_the_graph_shows_the_library_s_numbers():
    values = figures.worked_example()
    names = {"encoder.0": "1", "mu": "m", "logvar": "l", "decoder.0": "2", "output": "3"}
    vae = VAE(2, (3,), 2, "relu", dtype="float64", kernels="numpy")
    for name in vae.parameters:
        layer, _, kind = name.rpartition(".")
        vae.parameters[name][...] = values[kind + names[layer]]
    loss, gradients = vae.loss_and_gradients(values["x"], values["eps"][:, None])
    shown = {figures.BLUE: Counter(), figures.ORANGE: Counter()}
    for text in ElementTree.fromstring(committed("graph")).iter(f"{SVG}text"):
        colour = re.search("fill: (#[0-9a-f]{6})", text.get("style"))[1]
        if colour in shown:
            shown[colour][text.text] += 1
    for colour, arrays in ((figures.BLUE, [loss, *vae.parameters.values()]), (figures.ORANGE, gradients.values())):
        wanted = Counter(f"{number:.3f}".replace("-0.000", "0.000") for array in arrays for number in np.ravel(array))
        assert wanted <= shown[colour], wanted - shown[colour]


def test_every_figure_is_shown_with_words_for_who_cannot_see_it():
    shown = {}
    for page in PAGES:
        for words, file in re.findall(r"!\[([^]]*)\]\(([^)]*\.svg)\)", page.read_text(encoding="utf-8")):
            shown.setdefault((page.parent / file).resolve(), []).append(words)
    files = {figures.FOLDER / f"{name}.svg" for name in figures.FIGURES}
    assert files == set(figures.FOLDER.iterdir()), "a file without a function, or the other way round"
    assert files <= set(shown), files - set(shown)
    for file in files:
        drawn = " ".join(content(file.read_text(encoding="utf-8"))[0])
        for words in shown[file]:
            assert len(words) > 40 and all(number in drawn for number in re.findall(r"\d+\.\d+", words)), words


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_can_be_read_on_white_and_on_black(name):
    assert figures.FIGURES[name].__doc__
    text = committed(name)
    style = text[text.index("<style"):text.index("</style>")]
    drawn = text.replace(style, "")
    for what, colour in set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", drawn)):
        assert f'[style*="{what}: {colour}"]{{{what}:{figures.DARK[colour]}!important}}' in style
    for words in ElementTree.fromstring(text).iter(f"{SVG}text"):      # none is black by default
        colour = re.search("fill: (#[0-9a-f]{6})", words.get("style"))[1]
        assert colour != figures.LINE and float(re.search(r"font-size: ([\d.]+)px", words.get("style"))[1]) >= 12
    assert len(text) < 60_000


def test_colours_have_contrast_to_both_backgrounds():
    for light, dark in figures.DARK.items():
        if light not in (figures.PAPER, figures.LINE):
            assert contrast(light, figures.PAPER) >= 4.5 and contrast(dark, figures.DARK[figures.PAPER]) >= 4.5, light


def test_the_program(monkeypatch, capsys, tmp_path):
    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["figures.py", *flags, "--out", str(tmp_path)])
        return cli.exit_code(figures.main), capsys.readouterr()
    assert run("elbo_gap")[0] == 0
    assert (tmp_path / "elbo_gap.svg").read_text(encoding="utf-8") == figures.draw("elbo_gap")
    code, said = run("mask")
    assert code == 2 and "'mask': allowed are" in said.err and len(said.err.splitlines()) == 1
    tmp_path = tmp_path / "none"
    code, said = run()
    assert code == 2 and "there is no such folder" in said.err and len(said.err.splitlines()) == 1
