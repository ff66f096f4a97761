"""What the tests of explain.html lend each other: models of the whole family, and the page read without a browser."""
import base64
import json

import numpy as np

from npvae import ELBO, IWAE, VAE, FreeBits
from npvae.likelihoods import LIKELIHOODS
from npvae.likelihoods.support import fitting
from npvae.pages import explain
from pages import Page

D = 6
#: every likelihood, prior, posterior and decoder, and what else changes the way of a pass
VARIANTS = {
    **{name: {"likelihood": name} for name in (*LIKELIHOODS, "negative-binomial:shared+size", "ordinal:3,2,4,2,5,3")},
    **{name: {"prior": name} for name in ("mixture:3", "vamp:2", "hierarchical:4,2", "hierarchical:3")},
    **{name: {"posterior": name} for name in ("planar:2", "iaf:2", "iaf:1:5")},
    **{name: {"decoder": name} for name in ("made:5", "made:5+direct")},
    **{name: {"activation": name} for name in ("tanh", "gelu")},
    "all at once": {"prior": "mixture:2", "posterior": "iaf:1", "decoder": "made:4+direct", "draws": 2},
    "no hidden layer": {"hidden": ()}, "vamp, no hidden layer": {"hidden": (), "prior": "vamp:2"},
    "two hidden layers": {"hidden": (4, 3)}, "with labels": {"classes": 3}, "K = 3": {"draws": 3},
    "IWAE": {"objective": IWAE(), "draws": 3}, "free bits": {"objective": FreeBits(0.1)},
    "beta, sampled": {"objective": ELBO(0.3, sampled=True), "draws": 2}}


def model(hidden=(4,), latent_dim=3, **config):
    """A float64 model at random parameters, biases included."""
    vae = VAE(D, hidden, latent_dim, dtype="float64", kernels="numpy", seed=1, **config)
    vae.parameters.flat[...] += 0.2 * np.random.default_rng(2).standard_normal(vae.parameters.flat.size)
    return vae


def write(variant, path, monkeypatch, images=1, seed=5):
    """Write the page of a variant, with two places of the slider, and of each tensor a few entries checked.

    Returns the model, and for each case, in the order of the page, loss and gradients of another model with the same
    parameters.
    """
    config = {**VARIANTS[variant]}
    objective, draws = config.pop("objective", None), config.pop("draws", 1)
    vae, other = model(**config), model(**config)
    x = fitting(vae.output, fitting(vae.likelihood, np.random.default_rng(3).random((images, D))))
    labels = np.arange(images) % 3 if vae.classes else None
    monkeypatch.setattr(explain, "EPS", (-1.0, 0.75))
    monkeypatch.setattr(explain, "SMALL", 0)
    explain.write_explain(vae, x, path, (2, 3), objective, 4, draws, labels, seed=seed)
    if objective is None:
        objective = ELBO(sampled=not vae.latent.analytic)
    noise = np.random.default_rng(seed).standard_normal((1, draws, vae.noise_dim))
    data, expected = Explained(path).data, []
    for image in range(images):
        for place in data["places"]:
            noise[0, 0, data["j"]] = place
            rows = slice(image, image + 1)
            loss, gradients = other.loss_and_gradients(x[rows], noise, objective, 4,
                                                       None if labels is None else labels[rows])
            expected.append((loss, {name: value.copy() for name, value in gradients.items()}))
    return vae, expected


def masked(path, monkeypatch):
    """The page of a model whose decoder has masks, wide enough that matrices are made of others in the page.

    Returns the page, and the arguments of all steps of its only case, as they were.
    """
    monkeypatch.setattr(explain, "EPS", (0.75,))
    monkeypatch.setattr(explain, "SOME", 1)
    vae = VAE(64, (12,), 3, dtype="float64", kernels="numpy", decoder="made:24", prior="vamp:5", seed=1)
    x = (np.random.default_rng(3).random((1, 64)) < 0.5).astype(float)
    objective = ELBO(sampled=True)
    page = Explained(explain.write_explain(vae, x, path, (8, 8), objective, seed=5))
    lesson = explain._Lesson(vae, x, None, objective, 0, 1, np.random.default_rng(5))
    return page, [one for step in lesson.case(0, 0.75).steps for one in step.arguments]


def error(found, expected):
    """The largest difference, relative to the largest entry where that is above 1."""
    return np.abs(np.ravel(found) - np.ravel(expected)).max() / max(1, np.abs(expected).max())


class Explained:
    """The data in a page, decoded."""

    def __init__(self, path):
        self.page = Page(path)
        (_, text), = self.page.all("script", type="application/json", id="model")
        self.data = json.loads(text)
        self.nodes = self.data["nodes"]

    def array(self, number):
        entry = self.data["arrays"][number]
        if isinstance(entry, list):
            return np.array(entry)
        if "float32" in entry:
            return np.frombuffer(base64.b64decode(entry["float32"]), "<f4").astype(float)
        if "int16" in entry:
            return np.frombuffer(base64.b64decode(entry["int16"]), "<i2") * entry["unit"]
        if "masked" in entry:
            return np.multiply(*map(self.array, entry["masked"]))
        if "corner" in entry:
            (top, left), width = entry["corner"], entry["width"]
            whole = self.array(entry["part"]).reshape(-1, entry["columns"])
            return whole[top:top + entry["size"] // width, left:left + width].ravel()
        if "bits" in entry:
            packed = np.frombuffer(base64.b64decode(entry["bits"]), np.uint8)
            return np.unpackbits(packed)[:entry["size"]].astype(float)
        (a, b, *mask), (rows, inner, columns) = map(self.array, entry["product"]), entry["sizes"]
        a, b = (x.reshape(shape[::-1]).T if turned else x.reshape(shape) for x, shape, turned in
                zip((a, b), ((rows, inner), (inner, columns)), entry["turned"]))
        out = (a @ b).ravel()
        return out * mask[0] if mask else out

    def arguments(self, case):
        """(node, argument, values) of a case, in order."""
        ids = iter(self.data["cases"][case]["ids"])
        return [(node, one, self.array(next(ids))) for node in self.nodes for one in node["arguments"]]

    def gradients(self, case):
        """Put together from what the steps wrote of each tensor."""
        found = {name: np.full(np.prod(shape, dtype=int), np.nan) for name, shape in self.data["tensors"].items()}
        for _, one, values in self.arguments(case):
            if one["written"] and one["kind"] == "gradient" and "tensor" in one:
                found[one["tensor"]][one["start"]:one["start"] + values.size] = values
        return found
