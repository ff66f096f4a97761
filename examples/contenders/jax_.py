# mypy: disable-error-code="import-not-found"
"""JAX: "step" jits one step, with its state donated; "scan" jits the whole epoch as one `lax.scan`.

These choices were the fastest: float32 images (bytes are no faster), the default generator (rbg is no faster), the
cross-entropy as a formula (jax.numpy.logaddexp and log_sigmoid are slower), Adam in plain `jax.numpy` over the tree.

The time of an epoch includes gathering, noise, value and gradient, Adam, and the sum of the losses, until all results
are there.
"""
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .works import BETA1, BETA2, EPS, LR, Job, Work, made_masks, order

if TYPE_CHECKING:
    from .worker import Turns

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def versions() -> dict[str, str]:
    """The versions of what does the arithmetic."""
    return {"jax": jax.__version__}


def _dense(p: Any, name: str, x: Any) -> Any:
    return x @ p[f"{name}.W"] + p[f"{name}.b"]


def _encode(work: Work, p: Any, x: Any) -> tuple[Any, Any]:
    for i in range(len(work.hidden)):
        x = _ACTIVATIONS[work.activation](_dense(p, f"encoder.{i}", x))
    return _dense(p, "mu", x), _dense(p, "logvar", x)


def _made(work: Work, p: Any, x: Any, h: Any) -> Any:
    """Logits (B, K, D) of pixels, each given the pixels before it and h;  x (B, D), h (B K, H)."""
    first, last = made_masks(work)
    W, V = p["made.W"], p["output.W"]
    by_x, by_h = x @ (W[:len(first)] * first), h @ W[len(first):]
    made = by_x[:, None] + by_h.reshape(len(x), -1, work.units) + p["made.b"]
    made = _ACTIVATIONS[work.activation](made).reshape(-1, work.units)
    return (made @ (V[:work.units] * last) + h @ V[work.units:] + p["output.b"]).reshape(len(x), -1, work.input_dim)


def _nll(work: Work, p: Any, x: Any, z: Any) -> Any:
    """-log p(x|z), (B, K);  x (B, D), z (B, K, Z)."""
    h = z.reshape(-1, work.latent)
    for i in range(len(work.hidden)):
        h = _ACTIVATIONS[work.activation](_dense(p, f"decoder.{i}", h))
    logits = _made(work, p, x, h) if work.units else _dense(p, "output", h).reshape(*z.shape[:2], -1)
    return jnp.sum(jnp.maximum(logits, 0) - x[:, None] * logits + jnp.log1p(jnp.exp(-jnp.abs(logits))), -1)


def _log_weights(work: Work, p: Any, x: Any, key: Any, draws: int) -> Any:
    """log p(x, z) - log q(z|x) at z drawn from q(z|x), (B, K)."""
    mu, logvar = (part[:, None] for part in _encode(work, p, x))
    eps = jax.random.normal(key, (len(x), draws, work.latent))
    z = mu + jnp.exp(0.5 * logvar) * eps
    if work.pseudo_inputs:
        return -_nll(work, p, x, z) + _vamp(work, p, z) + 0.5 * jnp.sum(eps * eps + logvar, -1)
    return -_nll(work, p, x, z) - 0.5 * jnp.sum(z * z - eps * eps - logvar, -1)


def _vamp(work: Work, p: Any, z: Any) -> Any:
    """log p(z) of a VampPrior, (B, K), without the log 2 pi that log q has as well."""
    mu, logvar = _encode(work, p, jax.nn.sigmoid(p["prior.pseudo_inputs"]))
    precision = jnp.exp(-logvar)      # (z - mu)^2 multiplied out: 4 times faster than B K C Z differences
    squares = (z * z) @ precision.T - 2 * z @ (mu * precision).T + jnp.sum(mu * mu * precision + logvar, -1)
    return jax.nn.logsumexp(-0.5 * squares, -1) - math.log(len(mu))


def _loss(p: Any, work: Work, x: Any, key: Any) -> Any:
    """Minus the bound, a mean over the batch."""
    if work.sampled:
        log_w = _log_weights(work, p, x, key, work.draws)
        return math.log(work.draws) - jnp.mean(jax.nn.logsumexp(log_w, 1))
    mu, logvar = _encode(work, p, x)
    z = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape)
    kl = 0.5 * jnp.sum(mu * mu + jnp.exp(logvar) - 1 - logvar)
    return (jnp.sum(_nll(work, p, x, z[:, None])) + kl) / len(x)


def _step(work: Work, state: Any, data: Any, rows: Any) -> Any:
    """One step of Adam; the state is parameters, two moments, steps taken, key, sum of losses."""
    p, m, v, t, key, total = state
    key, draw = jax.random.split(key)
    loss, g = jax.value_and_grad(_loss)(p, work, data[rows], draw)
    t = t + 1
    root = jnp.sqrt(1 - BETA2 ** t)
    rate, eps = LR * root / (1 - BETA1 ** t), EPS * root      # lr m_hat / (sqrt(v_hat) + eps), expanded
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
    p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + eps), p, m, v)
    return p, m, v, t, key, total + loss * len(rows)


def _by_step(work: Work) -> Callable[[Any, Any, Any], Any]:
    step = jax.jit(lambda state, data, rows: _step(work, state, data, rows), donate_argnums=0)

    def epoch(state: Any, data: Any, index: Any) -> Any:
        for start in range(0, work.images, work.batch):
            state = step(state, data, index[start:start + work.batch])
        return state
    return epoch


def _by_scan(work: Work) -> Callable[[Any, Any, Any], Any]:
    """The full batches in one scan, then the smaller last one."""
    full = work.images // work.batch * work.batch

    def epoch(state: Any, data: Any, index: Any) -> Any:
        batches = index[:full].reshape(-1, work.batch)
        state, _ = jax.lax.scan(lambda state, rows: (_step(work, state, data, rows), None), state, batches)
        return _step(work, state, data, index[full:]) if full < work.images else state
    return jax.jit(epoch, donate_argnums=0)


def _limit(threads: int) -> None:
    """XLA creates its thread pool with the first array, with as many threads as NPROC says."""
    os.environ["NPROC"] = str(threads)


def train(job: Job, turns: "Turns") -> None:
    """At each turn, an epoch."""
    _limit(job.threads)
    work = job.work
    data = jnp.asarray(job.pixels / np.float32(255))
    start = {name: jnp.array(value) for name, value in job.parameters.items()}
    zeros = [{name: jnp.zeros_like(value) for name, value in start.items()} for _ in range(2)]
    state: Any = (start, *zeros, jnp.zeros(()), jax.random.key(job.seed), jnp.zeros(()))
    run = (_by_scan if job.variant == "scan" else _by_step)(work)
    go, epoch = turns.wait(), 0
    while go:
        index = order(job.seed, epoch, work.images).astype(np.int32)
        began = time.perf_counter()
        state = jax.block_until_ready(run((*state[:-1], jnp.zeros(())), data, index))
        seconds = time.perf_counter() - began
        go, epoch = turns.done(seconds=seconds, loss=float(state[-1]) / work.images), epoch + 1


def likelihood(job: Job, turns: "Turns") -> None:
    """At each turn, log p(x) of every image: a scan over blocks of draws inside a map over images, in one jit."""
    _limit(job.threads)
    work, samples, block = job.work, job.options["samples"], job.options["block"]
    data = jnp.asarray(job.pixels / np.float32(255))
    p = {name: jnp.array(value) for name, value in job.parameters.items()}

    def log_p(image_and_key: Any) -> Any:
        image, key = image_and_key

        def add(total: Any, key: Any) -> Any:
            log_w = _log_weights(work, p, image[None], key, block)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_w)), None
        total, _ = jax.lax.scan(add, -jnp.inf, jax.random.split(key, samples // block))
        return total - math.log(samples)

    run = jax.jit(lambda data, key: jax.lax.map(log_p, (data, jax.random.split(key, len(data)))))
    compiled = run.lower(data, jax.random.key(0)).compile()
    go, turn = turns.wait(), 0
    while go:
        began = time.perf_counter()
        values = np.asarray(compiled(data, jax.random.key(job.seed + turn)))
        go, turn = turns.done(seconds=time.perf_counter() - began, values=values.tolist()), turn + 1
