"""Normalizing flows: invertible steps that turn the Gaussian draw z0 into a richer z.  Read after `latents.py`, whose
`Composed` puts them to use; the formulas are in `kernels/reference/flows.py`.

A flow makes z from z0, and log |det dz/dz0| of every draw, by which the density shrinks.  Buffers:  a.z0, a.z, d.z0,
d.z (B, K, Z);  a.log_det, d.log_det (B, K).

mu and logvar are still those of z0.  So what `VAE.encode` gives, and what is counted from it, active units and
`information_per_dimension`, is of z0; the ELBO, log p(x) and all images are of z.
"""
import math
import re
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any

import numpy as np

from .layers import Dense
from .masks import MaskedDense, hidden_degrees, input_degrees, mask
from .params import Array, Block, Shapes, Take
from .validate import shown

_BLOCK = 500      # rows at a time where a whole data set is passed through
_STEPS = 1000
_STILL = math.log(math.e - 1)      # softplus of it is 1
_GATE = 2.0      # where a gate starts: sigmoid(2) = 0.88 of z0 stays; "+1 or +2" (Kingma et al. 2016, section 4)


class NoFlow:
    """z is z0, in the same memory; log_det stays 0."""

    recordable = True      # does nothing but call kernels; see `lanes.py`
    name = "gaussian"
    shapes: Shapes = {}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """It has no parameters."""

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        a.z0, d.z0 = a.z, d.z

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """Nothing is to be done."""

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """Nothing is to be done."""

    def join(self, kernels: ModuleType, d: Any) -> None:
        """It does not read the encoder's output, so d.h, what the heads say of that, is all: it is d.encoder[-1]."""

    def transform(self, z0: Array, vae: Any, x: Array, labels: Array | None) -> Array:
        """z (B, Z) of z0 (B, Z), drawn for the images x (B, D)."""
        return z0


class _Steps(ABC):
    """T steps in a row, z0 -> ... -> z, and a third head of the encoder, "flow", that tells each step what to do for an
    image: a.told (B, T, width), one for all K draws.   log_det = sum over the steps of log_det_t.

    A flow adds what a step is: `step`, and directly below it its derivative, `step_back`.
    """

    def __init__(self, steps: int, context: int, width: int) -> None:
        self.steps, self.width = steps, width
        self.head = Dense("flow", context, steps * width, "identity")
        self.shapes: dict[str, tuple[int, ...]] = dict(self.head.shapes)

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        """a.z_at, d.z_at: z0 ... z, T + 1 of them.  And d.h is no longer all that is said of the encoder's output."""
        B, K, Z = a.eps.shape
        d.h_flow = None
        for one, mark in ((a, ""), (d, "d")):
            one.z_at = [*take(f"{mark}flow z", self.steps, B, K, Z), one.z]
            one.z0 = one.z_at[0]
            one.told_rows = take(f"{mark}flow told", B, self.steps * self.width)
            one.told = one.told_rows.reshape(B, self.steps, self.width)
            one.told_pre = take("flow told pre", B, self.steps * self.width)
        a.log_det_at = take("flow log det", self.steps, B, K)
        if d.encoder[-1] is not None:      # there is a hidden layer
            d.h, d.h_flow = (take(f"dencoder by {head}", *d.encoder[-1].shape) for head in ("mu and logvar", "flow"))

    def forward(self, kernels: ModuleType, a: Any, params: Block) -> None:
        """From z0 through all steps to z;   log_det = sum_t log_det_t  (D14.2)."""
        self.head.forward(kernels, a.told_rows, a.told_pre, a.encoder[-1], params)
        for t in range(self.steps):
            self.step(kernels, a, t, params)
        kernels.sum_first(a.log_det, a.log_det_at)

    def backward(self, kernels: ModuleType, d: Any, a: Any, grads: Block, params: Block) -> None:
        """The forward pass read upwards.  log_det is a plain sum, so d.log_det is that of every step."""
        for t in reversed(range(self.steps)):
            self.step_back(kernels, d, a, t, grads, params)
        self.head.backward(kernels, d.h_flow, d.told_pre, grads, d.told_rows, a.told_rows, a.encoder[-1], params)

    def join(self, kernels: ModuleType, d: Any) -> None:
        """The encoder's output feeds three heads: d.h from those of mu and logvar, and d.h_flow."""
        kernels.add(d.encoder[-1], d.h, d.h_flow)

    def transform(self, z0: Array, vae: Any, x: Array, labels: Array | None) -> Array:
        """z (B, Z) of z0 (B, Z), drawn for the images x (B, D)."""
        z, labels = np.empty(z0.shape, vae.dtype), vae.check_labels(labels, len(x))
        for start in range(0, len(x), _BLOCK):
            block = slice(start, start + _BLOCK)
            a, _ = vae.passes(len(x[block]), 1)
            vae._encode(x[block], labels[block], a)
            a.z0[:, 0] = z0[block]
            self.forward(vae.kernels, a, vae.parameters)
            z[block] = a.z[:, 0]
        return z

    @abstractmethod
    def step(self, kernels: ModuleType, a: Any, t: int, params: Block) -> None:
        """From a.z_at[t] to a.z_at[t + 1] and a.log_det_at[t]."""

    @abstractmethod
    def step_back(self, kernels: ModuleType, d: Any, a: Any, t: int, grads: Block, params: Block) -> None:
        """From d.z_at[t + 1] and d.log_det to d.z_at[t] and d.told[:, t]."""


class Planar(_Steps):
    """z <- z + u_hat tanh(w.z + bias), T times: each pushes along one direction, away from a plane or towards it.  The
    encoder says u, w and bias (Rezende and Mohamed 2015)."""

    recordable = True      # does nothing but call kernels; see `lanes.py`

    def __init__(self, steps: int, context: int, latent_dim: int) -> None:
        super().__init__(steps, context, 2 * latent_dim + 1)
        self.latent_dim = latent_dim

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """Random directions w, the same for all images at first, of |w| = 1, since at 0 a step has no
        direction; and u = log(e - 1) w / |w|^2, where it does nothing: the model starts as the Gaussian one."""
        params[self.head.W][...] = 0
        u, w, bias = self._parts(params[self.head.b].reshape(1, self.steps, self.width))
        w[...] = rng.standard_normal(w.shape)
        w /= np.sqrt(np.sum(w * w, axis=-1, keepdims=True))
        u[...], bias[...] = _STILL * w, 0

    def _parts(self, told: Array) -> tuple[Array, Array, Array]:
        """u, w (B, T, Z), bias (B, T), as views."""
        return told[..., :self.latent_dim], told[..., self.latent_dim:-1], told[..., -1]

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        super().add_buffers(a, d, take)
        B, K, Z = a.eps.shape
        a.plane = take("flow pre", self.steps, B, K)
        for one, mark in ((a, ""), (d, "d")):
            one.u_hat = take(f"{mark}flow u_hat", self.steps, B, Z)
            one.stretch = take(f"{mark}flow stretch", self.steps, B)
        d.w_direction, d.w_plane = take("dflow w by direction", B, Z), take("dflow w by plane", B, Z)

    def step(self, kernels: ModuleType, a: Any, t: int, params: Block) -> None:
        u, w, bias = self._parts(a.told[:, t])
        kernels.planar_direction_forward(a.u_hat[t], a.stretch[t], u, w)
        kernels.planar_forward(a.z_at[t + 1], a.log_det_at[t], a.plane[t], a.z_at[t], a.u_hat[t], a.stretch[t], w, bias)

    def step_back(self, kernels: ModuleType, d: Any, a: Any, t: int, grads: Block, params: Block) -> None:
        (u, w, _), (du, dw, dbias) = self._parts(a.told[:, t]), self._parts(d.told[:, t])
        kernels.planar_backward(d.z_at[t], d.u_hat[t], d.stretch[t], d.w_plane, dbias, d.z_at[t + 1], d.log_det,
                                a.plane[t], a.z_at[t], a.u_hat[t], a.stretch[t], w)
        kernels.planar_direction_backward(du, d.w_direction, d.u_hat[t], d.stretch[t], u, w)
        kernels.add(dw, d.w_direction, d.w_plane)      # w says where to push and from which plane


class InverseAutoregressive(_Steps):
    """z <- s z + (1 - s) m, T times, with s_j and m_j from a masked network that looks at z_i, i < j, and is told
    something by the encoder (Kingma et al. 2016):

        hidden = tanh(z W + b + told)         [m, g] = hidden V + c          s = sigmoid(g)

    Every other step takes the dimensions in reverse order, so that none is always the first.  Units of degree 0 see no
    z, so that even the first dimension hears what the encoder says.
    """

    recordable = True      # does nothing but call kernels; see `lanes.py`

    def __init__(self, steps: int, context: int, latent_dim: int, units: int) -> None:
        super().__init__(steps, context, units)
        self.layers = []
        for t in range(steps):
            order, degrees = input_degrees(latent_dim)[::(-1) ** t], hidden_degrees(units, latent_dim, least=0)
            self.layers.append((
                MaskedDense(f"flow.{t}.hidden", mask(order, degrees), "tanh"),
                MaskedDense(f"flow.{t}.gate", mask(degrees, np.tile(order, 2), strict=True), "identity")))
            for layer in self.layers[t]:
                self.shapes.update(layer.shapes)

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        self.head.initialize(params, rng)
        for hidden, gate in self.layers:
            hidden.initialize(params, rng)
            gate.initialize(params, rng)
            params[gate.b][len(params[gate.b]) // 2:] = _GATE

    def add_buffers(self, a: Any, d: Any, take: Take) -> None:
        super().add_buffers(a, d, take)
        (B, K, Z), T, H = a.eps.shape, self.steps, self.width
        for one, mark in ((a, ""), (d, "d")):
            one.net = take(f"{mark}flow net", T, B, K, 2 * Z)
            one.units = take(f"{mark}flow hidden", T, B, K, H)
            one.units_pre, one.net_pre = take("flow hidden pre", B, K, H), take("flow net pre", B * K, 2 * Z)
        a.units_told = take("flow hidden pre and told", B, K, H)
        d.z_gate, d.z_net = take("dflow z by gate", B, K, Z), take("dflow z by net", B, K, Z)

    def step(self, kernels: ModuleType, a: Any, t: int, params: Block) -> None:
        hidden, gate = self.layers[t]
        kernels.matmul(_rows(a.units_pre), _rows(a.z_at[t]), hidden.weights(kernels, params))
        kernels.add_to_draws_forward(a.units_told, a.units_pre, a.told[:, t])
        kernels.tanh_forward(_rows(a.units[t]), _rows(a.units_told), params[hidden.b])
        gate.forward(kernels, _rows(a.net[t]), a.net_pre, _rows(a.units[t]), params)
        kernels.gate_forward(a.z_at[t + 1], a.log_det_at[t], a.z_at[t], a.net[t])

    def step_back(self, kernels: ModuleType, d: Any, a: Any, t: int, grads: Block, params: Block) -> None:
        hidden, gate = self.layers[t]
        kernels.gate_backward(d.z_gate, d.net[t], d.z_at[t + 1], d.log_det, a.z_at[t], a.net[t])
        gate.backward(kernels, _rows(d.units[t]), d.net_pre, grads, _rows(d.net[t]), _rows(a.net[t]),
                      _rows(a.units[t]), params)
        hidden.backward(kernels, _rows(d.z_net), _rows(d.units_pre), grads, _rows(d.units[t]), _rows(a.units[t]),
                        _rows(a.z_at[t]), params)
        kernels.add_to_draws_backward(d.told[:, t], d.units_pre)
        kernels.add(d.z_at[t], d.z_gate, d.z_net)      # z goes through the gate, and into the network that sets it


def _rows(array: Array) -> Array:
    """(B, K, N) as (B K, N)."""
    return array.reshape(-1, array.shape[-1])


Flow = Any      # NoFlow, or a class with the same methods

_NAMES = re.compile("gaussian|planar:([1-9][0-9]*)|iaf:([1-9][0-9]*)(?::([1-9][0-9]*))?")


def steps_in(posterior: str, latent_dim: int) -> tuple[int, int, int]:
    """What a name asks for: planar steps, inverse autoregressive steps, units in each of those.  Raises ValueError with
    the known names, and for more steps than any gradient comes through."""
    name = _NAMES.fullmatch(posterior) if isinstance(posterior, str) else None
    if not name:
        raise ValueError("posterior must be gaussian, planar:T, iaf:T or iaf:T:H, with T steps and H hidden units in "
                         f"each, such as planar:8 or iaf:2:64, got {shown(posterior)}")
    planar, autoregressive, units = (int(number or 0) for number in name.groups())
    if planar + autoregressive > _STEPS:
        raise ValueError(f"posterior {shown(posterior)}: at most {_STEPS:,} steps are allowed")
    return planar, autoregressive, units or 4 * latent_dim


def find(posterior: str, context: int, latent_dim: int) -> Flow:
    """The flow that makes the posterior of that name; `context` is the width of the encoder's output.  Raises
    ValueError with the known names."""
    planar, autoregressive, units = steps_in(posterior, latent_dim)
    if planar:
        return Planar(planar, context, latent_dim)
    if autoregressive:
        return InverseAutoregressive(autoregressive, context, latent_dim, units)
    return NoFlow()
