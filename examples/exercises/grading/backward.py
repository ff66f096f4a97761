"""Exercise 7: every value of the forward pass; every gradient by the complex step, with its paths told apart."""
import numpy as np

from npvae.gradcheck import numerical_gradient

from .answers import Array, Arrays, Numbers, Student, Wrong, agree, array, pick

B, D, H, Z, G = 4, 6, 5, 2, 7      # images, pixels, hidden units of the encoder, latent variables, of the decoder
LAYERS = {"encoder": (D, H), "mu": (H, Z), "logvar": (H, Z), "decoder": (Z, G), "output": (G, D)}
COUNTS = {"B": B, "D": D, "Z": Z}


def numbers(rng: np.random.Generator) -> Numbers:
    return {"BETA": pick(rng, (0.3, 0.4, 0.6, 0.7, 0.8))}


def draw(rng: np.random.Generator) -> tuple[Arrays, Array, Array]:
    """Parameters, biases included, images and noise; no ReLU near its kink."""
    while True:
        params = {f"{layer}.{name}": 0.7 * rng.standard_normal(shape if name == "W" else shape[1])
                  for layer, shape in LAYERS.items() for name in "Wb"}
        x, eps = rng.random((B, D)), rng.standard_normal((B, Z))
        f = forward_values(params, x, eps, 1.0)
        hidden = np.concatenate([f["pre_enc"].ravel(), f["pre_dec"].ravel()])
        if np.abs(hidden).min() > 1e-3 and 0.2 < np.mean(hidden > 0) < 0.8:
            return params, x, eps


def forward_values(p: Arrays, x: Array, eps: Array, beta: float, heads: Arrays | None = None) -> Arrays:
    """The forward pass, for complex numbers too.  heads: what "mu" and "logvar" read in place of h_enc, to tell paths
    apart."""
    f: Arrays = {"pre_enc": x @ p["encoder.W"] + p["encoder.b"]}
    f["h_enc"] = np.where(f["pre_enc"].real > 0, f["pre_enc"], 0)
    for head in ("mu", "logvar"):
        f[head] = (heads or {}).get(head, f["h_enc"]) @ p[f"{head}.W"] + p[f"{head}.b"]
    f["z"] = f["mu"] + np.exp(f["logvar"] / 2) * eps
    f["pre_dec"] = f["z"] @ p["decoder.W"] + p["decoder.b"]
    f["h_dec"] = np.where(f["pre_dec"].real > 0, f["pre_dec"], 0)
    f["logits"] = f["h_dec"] @ p["output.W"] + p["output.b"]
    f["nll"] = np.sum(np.log(1 + np.exp(f["logits"])) - x * f["logits"], axis=1)
    f["kl"] = np.sum(0.5 * (f["mu"] ** 2 + np.exp(f["logvar"]) - 1 - f["logvar"]), axis=1)
    f["loss"] = np.asarray(np.mean(f["nll"] + beta * f["kl"]))
    return f


def forward(s: Student, rng: np.random.Generator) -> None:
    for beta in (s.number("BETA"), 1.0):
        params, x, eps = draw(rng)
        want = forward_values(params, x, eps, beta)
        found = s.ask("forward", params, x, eps, *(() if beta != 1 else (beta,)))
        if not isinstance(found, dict):
            raise Wrong(f"forward should return a dict, and returns a {type(found).__name__}")
        for name in ("h_enc", "mu", "logvar", "z", "h_dec", "logits", "nll", "kl", "loss"):
            if name not in found:
                raise Wrong(f"forward returns no {name}")
            pre = {"h_enc": "pre_enc", "h_dec": "pre_dec"}.get(name)
            slips: dict[str, Array | float] = {"the ReLU is missing": want[pre]} if pre else {}
            if name == "z":
                slips = {"mu is decoded, without noise": want["mu"], "exp(logvar) is taken for sigma":
                         want["mu"] + np.exp(want["logvar"]) * eps}
            if name in ("mu", "logvar"):
                slips = {"the heads are exchanged": want["logvar" if name == "mu" else "mu"]}
            if name == "loss":
                nll, kl = want["nll"], want["kl"]
                n, k = float(np.mean(nll)), float(np.mean(kl))
                slips = {"a sum over the batch, not a mean": B * (n + beta * k), "the KL term is missing": n,
                         "the KL term is subtracted": n - beta * k, "beta is not used": n + k,
                         "beta multiplies the nll, too": beta * (n + k),
                         "nll is a sum over the batch, kl a mean": B * n + beta * k}
            agree(name, array(name, found[name], want[name].shape), want[name], COUNTS, slips=slips)


def _paths(params: Arrays, x: Array, eps: Array, beta: float) -> dict[str, dict[str, Array]]:
    """For each tensor, the parts of its gradient by name: through the two terms of the loss, and the two heads."""
    behind = {name: value for name, value in params.items() if name.split(".")[0] in ("encoder", "mu", "logvar")}
    encoder = {name: value for name, value in params.items() if name.startswith("encoder")}
    fixed = forward_values(params, x, eps, beta)["h_enc"]

    def nll(p: Arrays) -> complex:
        result: complex = forward_values({**params, **p}, x, eps, 0.0)["loss"].item()
        return result

    def by_head(other: str) -> Arrays:
        def loss(p: Arrays) -> complex:
            result: complex = forward_values({**params, **p}, x, eps, beta, {other: fixed})["loss"].item()
            return result
        return numerical_gradient(loss, encoder)

    def kl(p: Arrays) -> complex:
        result: complex = beta * np.mean(forward_values({**params, **p}, x, eps, 0.0)["kl"]).item()
        return result

    one, two = numerical_gradient(nll, behind), numerical_gradient(kl, behind)
    parts = {name: {"the part that comes from the reconstruction": one[name], "the part that comes from the KL term":
                    two[name]} for name in behind}
    for label, found in (("the path through mu", by_head("logvar")), ("the path through logvar", by_head("mu"))):
        for name in encoder:
            parts[name][label] = found[name]
    return parts


def backward(s: Student, rng: np.random.Generator) -> None:
    for beta in (s.number("BETA"), 1.0):
        params, x, eps = draw(rng)
        f = forward_values(params, x, eps, beta)

        def loss(p: Arrays) -> complex:
            result: complex = forward_values({**params, **p}, x, eps, beta)["loss"].item()
            return result

        found = s.ask("backward", {name: f[name] for name in f if "pre" not in name}, params, x, eps, beta)
        if not isinstance(found, dict):
            raise Wrong(f"backward should return a dict, and returns a {type(found).__name__}")
        missing, more = [name for name in params if name not in found], [name for name in found if name not in params]
        if missing or more:
            raise Wrong(f"backward returns no gradient of {', '.join(missing)}" if missing else
                        f"backward returns {', '.join(map(str, more))}, which are no parameters")
        want, parts = numerical_gradient(loss, params), _paths(params, x, eps, beta)

        def by_hidden(p: Arrays) -> complex:
            result: complex = forward_values(params, x, eps, beta, {"mu": p["h"], "logvar": p["h"]})["loss"].item()
            return result

        dh = numerical_gradient(by_hidden, {"h": f["h_enc"]})["h"]
        unmasked = {"encoder.b": dh.sum(axis=0), "encoder.W": x.T @ dh}
        for layer in reversed(LAYERS):      # from the loss back: what is wrong there is wrong below it, too
            for name in (f"{layer}.b", f"{layer}.W"):
                twin = {"mu": "logvar", "logvar": "mu"}.get(layer)
                rest = {f"the gradient of {twin}.{name[-1]}": want[f"{twin}.{name[-1]}"]} if twin else {}
                slips: dict[str, Array | float] = {}
                if name in unmasked:
                    slips["the derivative of the ReLU is missing"] = unmasked[name]
                for label, part in parts.get(name, {}).items():
                    slips[f"{label} alone"] = part
                    if "KL" in label:
                        slips["the KL term counts as if beta were 1"] = want[name] - part + part / beta
                        slips["the part that comes from the KL term counts as a sum over the batch"] = (
                            want[name] + (B - 1) * part)
                        slips["the part that comes from the KL term has the wrong sign"] = want[name] - 2 * part
                agree(f"the gradient of {name}", array(f"the gradient of {name}", found[name], params[name].shape),
                      want[name], COUNTS, {**parts.get(name, {}), **rest}, slips if beta != 1 else None)


def image_gradient(s: Student, rng: np.random.Generator) -> None:
    params, x, eps = draw(rng)
    beta = s.number("BETA")
    f = forward_values(params, x, eps, beta)

    def loss(p: Arrays) -> complex:
        result: complex = forward_values(params, p["x"], eps, beta)["loss"].item()
        return result

    want, direct = numerical_gradient(loss, {"x": x})["x"], -f["logits"] / B
    got = s.array("image_gradient", x.shape, {name: f[name] for name in f if "pre" not in name}, params, x, eps, beta)
    agree("dx", got, want, COUNTS, {"the path through the encoder": want - direct,
                                    "the path by which the nll itself reads x": direct},
          {"only the path through the encoder": want - direct, "only the path by which the nll itself reads x": direct,
           "the path by which the nll itself reads x has the wrong sign": want - 2 * direct})
