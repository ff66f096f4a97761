"""The last exercise: ten epochs on MNIST, measured by the ELBO of the reference."""
import time
from collections.abc import Callable, Iterator

import numpy as np

from .answers import Array, Arrays, Numbers, Student, Wrong, agree
from .backward import forward_values

EPOCHS = 10
EXPECTED = (110.0, 112.0)      # nats per test image
LAYERS = {"encoder": (784, 128, 2), "mu": (128, 20, 1), "logvar": (128, 20, 1), "decoder": (20, 128, 2),
          "output": (128, 784, 1)}


def numbers(rng: np.random.Generator) -> Numbers:
    return {}


def initialize(s: Student, rng: np.random.Generator) -> None:
    params = s.ask("initialize", np.random.default_rng(int(rng.integers(1000))))
    if not isinstance(params, dict) or set(params) != {f"{layer}.{name}" for layer in LAYERS for name in "Wb"}:
        raise Wrong("initialize should return a dict with W and b of encoder, mu, logvar, decoder and output")
    for layer, (n_in, n_out, gain) in LAYERS.items():
        W, b = params[f"{layer}.W"], params[f"{layer}.b"]
        for name, value, shape in ((f"{layer}.W", W, (n_in, n_out)), (f"{layer}.b", b, (n_out,))):
            if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != np.float32:
                got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
                raise Wrong(f"{name} is {got}, should be float32 {shape}")
        agree(f"{layer}.b", b.astype(float), 0.0)
        v, found = gain / max(n_in, n_out), float(np.var(W.astype(float)))
        names = {"as g says": v, "as if g were 1": v / gain, "as if g were 2": 2 * v / gain, "v is taken for sigma":
                 v * v, "1": 1.0, "0: all units stay alike for ever": 0.0}
        if not abs(found / v - 1) < 0.15:
            told = next((name for name, one in names.items() if abs(found - one) <= 0.1 * one), "")
            raise Wrong(f"the variance of {layer}.W is {found / v:.3g} times what it should be{told and ': ' + told}")
    pairs = [("mu", "logvar")]
    for one, two in pairs:
        if np.array_equal(params[f"{one}.W"], params[f"{two}.W"]):
            raise Wrong(f"{one}.W and {two}.W start alike: is a generator made anew for each?")


def batches(s: Student, rng: np.random.Generator) -> None:
    def epoch(n: int, size: int, seed: int) -> list[Array]:
        found = s.ask("batches", np.random.default_rng(seed), n, size)
        if not hasattr(found, "__iter__"):
            raise Wrong(f"batches returns a {type(found).__name__}, should give one array after the other")
        return [np.asarray(index) for index in found]

    found = epoch(50, 8, 1)
    if not found or any(index.ndim != 1 or index.dtype.kind != "i" for index in found):
        raise Wrong("batches should give arrays of indices, (size,)")
    seen = np.concatenate(found)
    if len(seen) == 48:
        raise Wrong("the last, smaller batch is dropped")
    if len(set(seen.tolist())) < len(seen):
        raise Wrong("some images come twice: drawn with replacement?")
    if sorted(seen.tolist()) != list(range(50)):
        raise Wrong(f"{len(seen)} of 50 images come")
    if [len(index) for index in found] != [8] * 6 + [2]:
        raise Wrong(f"50 images in batches of 8 come as {[len(index) for index in found]}")
    if np.array_equal(seen, np.arange(50)):
        raise Wrong("the images are never shuffled")
    if np.array_equal(seen, np.concatenate(epoch(50, 8, 2))):
        raise Wrong("another generator gives the same order: rng is not used")


def test_loss(params: Arrays, images: Array, rng: np.random.Generator) -> float:
    """-ELBO in nats per image, with a sampled z."""
    wide = {name: np.asarray(value, float) for name, value in params.items()}
    return float(np.mean([forward_values(wide, x, rng.standard_normal((len(x), 20)), 1.0)["loss"]
                          for x in np.split(images, 10)]))


def train(s: Student, rng: np.random.Generator, say: Callable[[str], None] = lambda line: None) -> float:
    """The test loss after ten epochs; Wrong as soon as it is clear that it will not be what it should be."""
    from npvae import load_mnist      # not loaded by the checks that are over in a second
    x_train, _, x_test, _ = load_mnist()
    images, held_out = x_train.astype(np.float32) / 255, x_test.astype(float) / 255
    noise = np.random.default_rng(1)
    found = s.ask("train", np.random.default_rng(int(rng.integers(2 ** 31))), images, EPOCHS)
    if not isinstance(found, Iterator):
        raise Wrong(f"train returns a {type(found).__name__}, should `yield params` after each epoch")
    loss, start, epoch = np.inf, time.perf_counter(), 0
    for epoch, params in enumerate(found, 1):
        if not isinstance(params, dict) or any(f"{layer}.W" not in params for layer in LAYERS):
            raise Wrong("train should yield the dict of parameters")
        loss = test_loss(params, held_out, noise)
        say(f"epoch {epoch:2d} of {EPOCHS}   test loss {loss:7.2f} nats   {time.perf_counter() - start:5.0f} s")
        if not np.isfinite(loss):
            raise Wrong(f"the test loss is {loss} after epoch {epoch}")
        if loss > 190:      # 206 is a decoder that does not look at z; a right VAE is near 150
            raise Wrong(f"{loss:.1f} nats after epoch {epoch}: it does not learn, or much too slowly")
    if epoch != EPOCHS:
        raise Wrong(f"train yields {epoch} times, should {EPOCHS} times")
    low, high = EXPECTED
    if loss > high:
        raise Wrong(f"{loss:.1f} nats after ten epochs, should be {low:.0f} to {high:.0f}: it learns, and something is "
                    "amiss")
    if loss < low - 1:
        raise Wrong(f"{loss:.1f} nats after ten epochs is too good for this network: is it another one?")
    return loss
