"""What `test_gradcheck` lends to other tests."""
import numpy as np

B, N = 3, 4      # W is square on purpose: shapes do not give a transposition away
X = np.random.default_rng(0).standard_normal((B, N))


def network(p):
    """Two layers that share the square matrix W:  mean over rows of sum tanh(tanh(x W + b) W)^2 / 2."""
    h = np.tanh(X @ p["W"] + p["b"])
    y = np.tanh(h @ p["W"])
    return 0.5 * (y * y).sum() / B


def network_gradients(p, both_paths=True):
    h = np.tanh(X @ p["W"] + p["b"])
    y = np.tanh(h @ p["W"])
    outer = y * (1 - y * y) / B
    inner = (outer @ p["W"].T) * (1 - h * h)
    return {"W": X.T @ inner + (h.T @ outer if both_paths else 0), "b": inner.sum(axis=0)}


def changed(name, change):
    """A slip in one tensor of the right gradients."""
    return lambda p: {**network_gradients(p), name: change(network_gradients(p)[name])}


def put(index, change):
    def changed_entry(value):
        value = value.copy()
        value[index] = change(value[index])
        return value
    return changed_entry


SLIPS = {
    "sign": changed("W", np.negative), "factor 2": changed("W", lambda g: 2 * g),
    "factor 1/2": changed("b", lambda g: g / 2), "sum for mean": changed("W", lambda g: B * g),
    "mean twice": changed("b", lambda g: g / B), "transposed": changed("W", np.transpose),
    "one row zero": changed("W", put(2, np.zeros_like)),
    "one column zero": changed("W", put(np.s_[:, 1], np.zeros_like)),
    "all zero": changed("b", np.zeros_like), "rolled": changed("b", lambda g: np.roll(g, 1)),
    "reversed": changed("W", lambda g: g[::-1]), "absolute value": changed("W", np.abs),
    "clipped": changed("W", lambda g: np.clip(g, -np.abs(g).max() / 2, np.abs(g).max() / 2)),
    "one entry off by 1e-6": changed("W", put((1, 3), lambda g: g * (1 + 1e-6) if abs(g) > 0 else 1)),
    "one sign": changed("W", put((2, 1), np.negative)), "one entry NaN": changed("W", put((0, 3), lambda g: np.nan)),
    "one entry infinite": changed("b", put(1, lambda g: np.inf)), "all NaN": changed("b", lambda g: g * np.nan),
    "a constant": changed("b", lambda g: g + 1e-5 * np.abs(g).max()),
    "mean of the rows": changed("b", lambda g: 0 * g + g.mean()),
    "forgotten path": lambda p: network_gradients(p, both_paths=False),
    "another point": lambda p: network_gradients({name: value * 1.001 for name, value in p.items()}),
}


def example():
    rng = np.random.default_rng(1)
    return {"W": rng.normal(0, 0.7, (N, N)), "b": rng.normal(0, 0.7, N)}
