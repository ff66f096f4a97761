"""Twelve layers that npvae does not have: right ones pass, written for complex numbers or not, and wrong ones fail."""
import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest

from npvae.gradcheck import check_pair

RNG = np.random.default_rng(2026)


def draw(*shape):
    return RNG.normal(size=shape)


@dataclass
class Layer:
    """Forward functions that compute the same, backward functions that are right, and wrong ones by their slip with
    what the report says of it ("" for nothing in particular)."""

    inputs: dict
    analytic: list
    right: list
    wrong: dict
    real: list = field(default_factory=list)      # forward functions that drop the imaginary part
    constants: tuple = ()


def but(gradients, **changes):
    """The gradients, some of them changed."""
    return {**gradients, **{name: change(gradients[name]) for name, change in changes.items()}}


# --- batch normalisation: mean and variance over the batch ---

def batch_norm(x, gain):
    centred = x - x.mean(0)
    return gain * centred / np.sqrt((centred * centred).mean(0) + 1e-5)


def batch_norm_real(x, gain):
    return gain * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def batch_norm_backward(dout, x, gain, mean=1, variance=1):
    s = np.sqrt(x.var(0) + 1e-5)
    x_hat, d = (x - x.mean(0)) / s, dout * gain
    return {"x": (d - mean * d.mean(0) - variance * x_hat * (d * x_hat).mean(0)) / s, "gain": (dout * x_hat).sum(0)}


# --- layer normalisation, by np.std ---

def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True))


def layer_norm_real(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


def layer_norm_backward(dout, x, variance=1):
    s = x.std(-1, keepdims=True)
    x_hat = (x - x.mean(-1, keepdims=True)) / s
    return {"x": (dout - dout.mean(-1, keepdims=True) - variance * x_hat * (dout * x_hat).mean(-1, keepdims=True)) / s}


# --- RMS normalisation ---

def rms_norm(x, gain):
    return gain * x / np.sqrt((x * x).mean(-1, keepdims=True))


def rms_norm_real(x, gain):
    return gain * x / (np.linalg.norm(x, axis=-1, keepdims=True) / math.sqrt(x.shape[-1]))


def rms_norm_backward(dout, x, gain, through=1):
    r, d = np.sqrt((x * x).mean(-1, keepdims=True)), dout * gain
    return {"x": d / r - through * x * (d * x).mean(-1, keepdims=True) / r ** 3, "gain": (dout * x / r).sum(0)}


# --- attention, whose key bias has no gradient ---

def attention(x, Wq, Wk, key_bias):
    scores = (x @ Wq) @ (x @ Wk + key_bias).T
    e = np.exp(scores - scores.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention_backward(dout, x, Wq, Wk, key_bias, normaliser=1):
    p, q, k = attention(x, Wq, Wk, key_bias), x @ Wq, x @ Wk + key_bias
    dscores = p * (dout - normaliser * (dout * p).sum(-1, keepdims=True))
    dq, dk = dscores @ k, dscores.T @ q
    return {"x": dq @ Wq.T + dk @ Wk.T, "Wq": x.T @ dq, "Wk": x.T @ dk, "key_bias": dk.sum(0)}


# --- convolution in one dimension, channels in and out ---

def convolution(x, w):
    """y[t, o] = sum_(k, i) x[t + k, i] w[k, i, o]"""
    length = len(x) - len(w) + 1
    return sum(x[k:k + length] @ w[k] for k in range(len(w)))


def convolution_backward(dout, x, w, turn=lambda w: w):
    dx, dw, turned = np.zeros_like(x), np.zeros_like(w), turn(w)
    for k in range(len(w)):
        dx[k:k + len(dout)] += dout @ turned[k].T
        dw[k] = x[k:k + len(dout)].T @ dout
    return {"x": dx, "w": dw}


# --- 2 x 2 max pooling ---

def pooled(x):
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).swapaxes(1, 2).reshape(-1, 4)


def max_pool(x):
    return pooled(x).max(-1)


def max_pool_real(x):
    corners = [(i, j) for i in range(0, x.shape[0], 2) for j in range(0, x.shape[1], 2)]
    return np.array([x[i:i + 2, j:j + 2].real.max() for i, j in corners])


def unpooled(d, x):
    return d.reshape(x.shape[0] // 2, x.shape[1] // 2, 2, 2).swapaxes(1, 2).reshape(x.shape)


def max_pool_backward(dout, x, share=lambda window: window == window.max(-1, keepdims=True)):
    return {"x": unpooled(share(pooled(x)) * dout.reshape(-1, 1), x)}


# --- one step of an LSTM, gates i, f, g, o in one matrix ---

def lstm_gates(x, h, W, U, b):
    i, f, g, o = np.split(x @ W + h @ U + b, 4, axis=-1)
    return 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), np.tanh(g), 1 / (1 + np.exp(-o))


def lstm(x, h, c, W, U, b):
    i, f, g, o = lstm_gates(x, h, W, U, b)
    return o * np.tanh(f * c + i * g)


def lstm_backward(dout, x, h, c, W, U, b, order=(0, 1, 2, 3), named=(0, 1, 2, 3)):
    """order: how the gates' gradients are put side by side; named: which gate is taken for which."""
    gates = lstm_gates(x, h, W, U, b)
    i, f, g, o = (gates[k] for k in named)
    cell = np.tanh(f * c + i * g)
    dc = dout * o * (1 - cell ** 2)
    slopes = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g ** 2), dout * cell * o * (1 - o)]
    slopes = [slopes[k] for k in named]
    d = np.concatenate([slopes[k] for k in order], axis=-1)
    return {"x": d @ W.T, "h": d @ U.T, "c": dc * f, "W": x.T @ d, "U": h.T @ d, "b": d.sum(0)}


# --- rows of a table, by whole numbers ---

def embedding(table, index):
    return np.tanh(table[index])


def embedding_backward(dout, table, index, add=np.add.at):
    dtable = np.zeros_like(table)
    add(dtable, index, dout * (1 - np.tanh(table[index]) ** 2))
    return {"table": dtable}


def overwrite(array, index, values):
    array[index] = values


# --- cumulative sum, with weights ---

def cumulative(x, w):
    return np.cumsum(x * w, axis=0)


def cumulative_backward(dout, x, w, direction=-1):
    d = np.cumsum(dout[::direction], axis=0)[::direction]
    return {"x": d * w, "w": d * x}


# --- cosine similarity of rows ---

def cosine(a, b):
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def cosine_real(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def cosine_backward(dout, a, b, norm=1):
    na, nb = np.linalg.norm(a, axis=-1, keepdims=True), np.linalg.norm(b, axis=-1, keepdims=True)
    cos, d = (a * b).sum(-1, keepdims=True) / (na * nb), dout[:, None]
    return {"a": d * (b / (na * nb) - norm * cos * a / na ** 2), "b": d * (a / (na * nb) - cos * b / nb ** 2)}


# --- cross-entropy with smoothed labels ---

def smoothed(labels, classes, smoothing=0.1):
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


def cross_entropy(logits, labels):
    top = logits.real.max(-1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return -np.array((smoothed(labels, logits.shape[-1]) * log_p).sum(-1).mean())


def cross_entropy_backward(dout, logits, labels, target=smoothed):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return {"logits": dout * (e / e.sum(-1, keepdims=True) - target(labels, logits.shape[-1])) / len(logits)}


# --- Huber's loss of a difference ---

def huber(x, y):
    d = x - y
    return np.where(d.real > 1, d - 0.5, np.where(d.real < -1, -d - 0.5, 0.5 * d * d))


def huber_real(x, y):
    d = np.abs(x - y)
    return np.where(d <= 1, 0.5 * d * d, d - 0.5)


def huber_backward(dout, x, y, clip=1.0):
    d = dout * np.clip(x - y, -clip, clip)
    return {"x": d, "y": -d}


LABELS = np.array([2, 0, 4, 2, 1])
LAYERS = {
    "batch norm": Layer(
        {"x": draw(6, 4), "gain": draw(4)}, [batch_norm], [batch_norm_backward],
        {partial(batch_norm_backward, variance=0): "off by a multiple of the tensor itself",
         partial(batch_norm_backward, mean=0): "off by the same amount all along axis 0",
         partial(batch_norm_backward, mean=0, variance=0): "as if the batch statistics did not depend"},
        [batch_norm_real]),
    "layer norm": Layer(
        {"x": draw(5, 6)}, [layer_norm], [layer_norm_backward],
        {partial(layer_norm_backward, variance=0): "held constant",
         partial(layer_norm_backward, variance=1 + 1e-3): "off by a multiple of the tensor itself"},
        [layer_norm_real]),
    "RMS norm": Layer(
        {"x": draw(4, 5), "gain": draw(5)}, [rms_norm], [rms_norm_backward],
        {partial(rms_norm_backward, through=0): "a norm or mean square over it held constant"},
        [rms_norm_real]),
    "attention": Layer(
        {"x": draw(5, 3), "Wq": draw(3, 4) / 2, "Wk": draw(3, 4) / 2, "key_bias": draw(4)}, [attention],
        [attention_backward,
         lambda *a, **k: but(attention_backward(*a, **k), key_bias=np.zeros_like)],
        {partial(attention_backward, normaliser=0): "wrong where the gradient is zero up to rounding",
         lambda dout, **k: but(attention_backward(dout, **k), key_bias=lambda d: d + 1e-8 * dout.sum()): "zero up to"}),
    "convolution": Layer(
        {"x": draw(8, 2), "w": draw(3, 2, 2)}, [convolution], [convolution_backward],
        {partial(convolution_backward, turn=lambda w: w[::-1]): "right for w reversed along axis 0",
         partial(convolution_backward, turn=lambda w: w.swapaxes(1, 2)): "transposed in axes 1 and 2",
         lambda *a, **k: but(convolution_backward(*a, **k), w=lambda dw: dw[::-1].copy()):
            "in reverse order along axis 0"}),
    "max pooling": Layer(
        {"x": draw(4, 6)}, [max_pool], [max_pool_backward],
        {partial(max_pool_backward, share=lambda window: window == window.min(-1, keepdims=True)): "",
         partial(max_pool_backward, share=lambda window: 0.25 + 0 * window): ""}, [max_pool_real]),
    "LSTM": Layer(
        {"x": draw(5, 4), "h": draw(5, 3), "c": draw(5, 3), "W": draw(4, 12), "U": draw(3, 12), "b": draw(12)},
        [lstm], [lstm_backward],
        {partial(lstm_backward, order=(1, 0, 2, 3)):
            "parts 0 and 1 of 4 along axis 0 have each other's gradient: are two gates swapped?",
         partial(lstm_backward, named=(1, 0, 2, 3)):
            "right for parts 0 and 1 of 4 exchanged in W, U, b: swapped gates?",
         lambda *a, **k: but(lstm_backward(*a, **k), b=lambda db: db * ([1] * 6 + [2, 3, 4] + [1] * 3)):
            "only part 2 of 4 along axis 0 is wrong"}),
    "embedding": Layer(
        {"table": draw(6, 3), "index": np.array([[0, 5, 2], [2, 2, 1]])}, [embedding], [embedding_backward],
        {partial(embedding_backward, add=overwrite): "only row 2 is wrong"}, constants=("index",)),
    "cumulative sum": Layer(
        {"x": draw(7, 3), "w": draw(7, 3)}, [cumulative], [cumulative_backward],
        {partial(cumulative_backward, direction=1): "summed along axis 0 in the other direction"}),
    "cosine similarity": Layer(
        {"a": draw(4, 5), "b": draw(4, 5)}, [cosine], [cosine_backward],
        {partial(cosine_backward, norm=0): "a norm or mean square over it held constant"},
        [cosine_real]),
    "cross-entropy": Layer(
        {"logits": draw(5, 6), "labels": LABELS}, [cross_entropy], [cross_entropy_backward],
        {partial(cross_entropy_backward, target=lambda t, n: smoothed(t, n) - 0.1 / n):
            "a constant, as of label smoothing",
         partial(cross_entropy_backward, target=lambda t, n: np.eye(n)[t]): "",
         lambda *a, **k: but(cross_entropy_backward(*a, **k), logits=lambda d: 5 * d): "= 5 times too large"},
        constants=("labels",)),
    "Huber's loss": Layer(
        {"x": 2 * draw(4, 5), "y": draw(4, 5)}, [huber], [huber_backward],
        {partial(huber_backward, clip=np.inf): "",
         partial(huber_backward, clip=0.999): ""},
        [huber_real])}
FORWARDS = [(name, forward) for name, layer in LAYERS.items() for forward in layer.analytic + layer.real]


@pytest.mark.every(3)
@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("name, forward", FORWARDS, ids=lambda value: getattr(value, "__name__", None))
def test_right_layers_pass(name, forward, method):
    layer = LAYERS[name]
    for backward in layer.right:
        report = check_pair(forward, backward, layer.inputs, layer.constants, method)
        assert report.ok and report.verdict == "right" and "looks like" not in str(report), report
        assert ("not analytic" in str(report)) == (forward in layer.real and method == "complex")


@pytest.mark.every(4)
@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("name, forward", FORWARDS, ids=lambda value: getattr(value, "__name__", None))
def test_wrong_layers_fail(name, forward, method):
    """For their slip, which the report names, whichever numbers judge."""
    layer = LAYERS[name]
    for backward, says in layer.wrong.items():
        report = check_pair(forward, backward, layer.inputs, layer.constants, method)
        assert report.verdict == "WRONG" and not report.ok and not report.violations, report
        assert says in str(report) and "sum or mean over axis 0" not in str(report), report
        assert says or not any(tensor.diagnosis for tensor in report.tensors), report


@pytest.mark.parametrize("name", LAYERS)
def test_the_forms_of_a_layer_are_one_function(name):
    layer = LAYERS[name]
    first, *others = (forward(**layer.inputs) for forward in layer.analytic + layer.real)
    assert all(np.allclose(first, other, rtol=1e-12, atol=1e-14) for other in others) and len(LAYERS) == 12
