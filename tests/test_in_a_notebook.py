"""npvae in a Jupyter notebook: a progress bar that is seen, figures that show themselves, a model that draws itself."""
import importlib.util
import pickle
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from npvae import VAE, Progress, fit
from npvae.plotting import kl_per_dimension, png
from npvae.system.terminal import in_notebook

X = np.random.default_rng(3).random((12, 6))


def small():
    return VAE(input_dim=6, hidden=(4,), latent_dim=2, kernels="numpy")


@pytest.fixture
def notebook(monkeypatch):
    """As in a kernel without ipywidgets."""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find(name))
    return shell


def test_a_notebook_is_known_by_its_kernel(notebook, monkeypatch):
    assert in_notebook()
    notebook.config = {"TerminalIPythonApp": {}}
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_progress_goes_to_the_cell_as_text_without_widgets(notebook, capsys):
    fit(small(), X, X, epochs=2, batch_size=4, callbacks=[Progress()])
    out, err = capsys.readouterr()
    assert re.findall(r"^epoch +(\d)/2", out.replace("\r", "\n"), re.MULTILINE).count("2") and "img/s" in out
    assert "%|" in out, "no bar"
    assert err == ""


def test_with_widgets_the_bar_is_that_of_notebooks(notebook, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ipywidgets")
    made = []

    class Bar:
        def __init__(self, **given):
            made.append(given)

        def update(self, n):
            return False

        def write(self, line, file):
            pass

        def close(self):
            pass

    monkeypatch.setitem(sys.modules, "tqdm.notebook", SimpleNamespace(tqdm_notebook=Bar))
    fit(small(), X, X, epochs=2, batch_size=4, callbacks=[Progress()])
    assert [given["total"] for given in made] == [24]


def test_outside_of_notebooks_nothing_has_changed(capsys):
    fit(small(), X, X, epochs=1, batch_size=4, callbacks=[Progress()])
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("epoch   1/1") and "%|" not in err


def test_a_figure_shows_itself():
    figure = kl_per_dimension(np.array([1.0, 0.5]))
    assert figure._repr_png_() == png(figure) and png(figure).startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("given", [
    {}, {"hidden": (), "classes": 10}, {"prior": "vamp:7", "decoder": "made:5", "hidden": (5, 3)},
    {"prior": "mixture:4", "posterior": "iaf:2", "likelihood": "gaussian-learned"}])
def test_a_model_draws_itself_and_counts_its_parameters(given):
    vae = VAE(**{"input_dim": 6, "hidden": (4,), "latent_dim": 2, "kernels": "numpy", **given})
    first, *parts = repr(vae).splitlines()
    assert first == f"VAE of {vae.parameters.flat.size:,} parameters, float32"
    counts = [re.search(r" {3,}([\d,]+)$", part) for part in parts]
    assert sum(int(count[1].replace(",", "")) for count in counts if count) == vae.parameters.flat.size
    for value in given.values():
        assert not isinstance(value, str) or value in repr(vae)


def test_the_drawing_of_a_model():
    assert repr(VAE(hidden=(200, 100), latent_dim=5, kernels="numpy")) == """\
VAE of 356,494 parameters, float32
  x  784
  |  encoder: 784 -> 200 -> 100, relu                     177,100
  |  mu, logvar: 100 -> 5                                   1,010
  |  posterior: gaussian
  z  5
  |  prior: normal
  |  decoder: 5 -> 100 -> 200, relu                        20,800
  |  output, dense: 200 -> 784                            157,584
  x  784, bernoulli"""
