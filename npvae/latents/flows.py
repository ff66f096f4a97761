"""Normalizing flows: invertible steps that turn the Gaussian draw z0 into a richer z.  Read after `base.py`; the
formulas are in `kernels/reference/flows.py`.

mu and logvar are still those of z0.  So what `VAE.encode` gives, and what is counted from it, active units and
`information_per_dimension`, is of z0; the ELBO, log p(x) and all images are of z.
"""
import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from ..buffers import Activations, Gradients
from ..layers import Dense, MaskedDense, hidden_degrees, input_degrees, mask
from ..params import Allocate, Array, Block
from ..validate import one_of, shown
from .base import Flow

_STEPS = 1000
_STILL = math.log(math.e - 1)      # softplus of it is 1
_GATE = 2.0      # where a gate starts: sigmoid(2) = 0.88 of z0 stays; "+1 or +2" (Kingma et al. 2016, section 4)


class NoFlow(Flow[None]):
    """z is z0, in the same memory; log_det stays 0."""

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`
    name = "gaussian"

    def forward(self, kernels: ModuleType, a: Activations, own: None, params: Block) -> None:
        """Nothing is to be done."""

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: None, grads: Block, params: Block
                 ) -> None:
        """Nothing is to be done."""


@dataclass
class StepBuffers:
    """Of T steps, each of which is told `width` numbers by the encoder."""

    z_at: list[Array]       # T + 1 of (B, K, Z): z0, ..., z
    dz_at: list[Array]
    told_rows: Array        # (B, T width)
    told_pre: Array
    told: Array             # (B, T, width), the same memory as told_rows
    dtold_rows: Array
    dtold: Array
    log_det_at: Array       # (T, B, K)


Steps = TypeVar("Steps", bound=StepBuffers)


class _Steps(Flow[Steps]):
    """T steps in a row, z0 -> ... -> z, and a third head of the encoder, "flow", that tells each step what to do for an
    image: told (B, T, width), one for all K draws.   log_det = sum over the steps of log_det_t.

    A flow adds what a step is: `step`, and directly below it its derivative, `step_back`.
    """

    reads_encoder = True

    def __init__(self, steps: int, context: int, width: int) -> None:
        self.steps, self.width = steps, width
        self.head = Dense("flow", context, steps * width, "identity")
        self.shapes = dict(self.head.shapes)

    def _steps(self, a: Activations, d: Gradients, allocate: Allocate) -> StepBuffers:
        """Those of every flow of this kind."""
        (B, K, Z), T, width = a.z.shape, self.steps, self.width
        between, dbetween = allocate("flow z", T - 1, B, K, Z), allocate("dflow z", T - 1, B, K, Z)
        told, dtold = allocate("flow told", B, T * width), allocate("dflow told", B, T * width)
        return StepBuffers(
            z_at=[a.z0, *between, a.z], dz_at=[d.z0, *dbetween, d.z],
            told_rows=told, told_pre=allocate("flow told pre", B, T * width), told=told.reshape(B, T, width),
            dtold_rows=dtold, dtold=dtold.reshape(B, T, width), log_det_at=allocate("flow log det", T, B, K))

    def forward(self, kernels: ModuleType, a: Activations, own: Steps, params: Block) -> None:
        """From z0 through all steps to z;   log_det = sum_t log_det_t  (D14.2)."""
        self.head.forward(kernels, own.told_rows, own.told_pre, a.encoder[-1], params)
        for t in range(self.steps):
            self.step(kernels, own, t, params)
        kernels.sum_first(a.log_det, own.log_det_at)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Steps, grads: Block, params: Block
                 ) -> None:
        """The forward pass read upwards.  log_det is a plain sum, so d.log_det is that of every step."""
        for t in reversed(range(self.steps)):
            self.step_back(kernels, own, d.log_det, t, grads, params)
        self.head.backward(kernels, d.h_flow, own.told_pre, grads, own.dtold_rows, own.told_rows, own.told_pre,
                           a.encoder[-1], params)

    @abstractmethod
    def step(self, kernels: ModuleType, own: Steps, t: int, params: Block) -> None:
        """From z_at[t] to z_at[t + 1] and log_det_at[t]."""

    @abstractmethod
    def step_back(self, kernels: ModuleType, own: Steps, dlog_det: Array, t: int, grads: Block, params: Block) -> None:
        """From dz_at[t + 1] and dlog_det (B, K) to dz_at[t] and dtold[:, t]."""


@dataclass
class PlanarBuffers(StepBuffers):
    """What a planar step keeps."""

    plane: Array            # (T, B, K)    w.z + bias
    u_hat: Array            # (T, B, Z)
    du_hat: Array
    stretch: Array          # (T, B)       w.u_hat
    dstretch: Array
    dw_direction: Array     # (B, Z)
    dw_plane: Array         # (B, Z)


class Planar(_Steps[PlanarBuffers]):
    """z <- z + u_hat tanh(w.z + bias), T times: each pushes along one direction, away from a plane or towards it.  The
    encoder says u, w and bias (Rezende and Mohamed 2015)."""

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`

    def __init__(self, steps: int, context: int, latent_dim: int) -> None:
        super().__init__(steps, context, 2 * latent_dim + 1)
        self.name, self.latent_dim = f"planar:{steps}", latent_dim

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

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> PlanarBuffers:
        (B, K, Z), T = a.z.shape, self.steps
        return PlanarBuffers(
            **vars(self._steps(a, d, allocate)), plane=allocate("flow pre", T, B, K),
            u_hat=allocate("flow u_hat", T, B, Z), du_hat=allocate("dflow u_hat", T, B, Z),
            stretch=allocate("flow stretch", T, B), dstretch=allocate("dflow stretch", T, B),
            dw_direction=allocate("dflow w by direction", B, Z), dw_plane=allocate("dflow w by plane", B, Z))

    def step(self, kernels: ModuleType, own: PlanarBuffers, t: int, params: Block) -> None:
        u, w, bias = self._parts(own.told[:, t])
        kernels.planar_direction_forward(own.u_hat[t], own.stretch[t], u, w)
        kernels.planar_forward(own.z_at[t + 1], own.log_det_at[t], own.plane[t], own.z_at[t], own.u_hat[t],
                               own.stretch[t], w, bias)

    def step_back(self, kernels: ModuleType, own: PlanarBuffers, dlog_det: Array, t: int, grads: Block, params: Block
                  ) -> None:
        (u, w, _), (du, dw, dbias) = self._parts(own.told[:, t]), self._parts(own.dtold[:, t])
        kernels.planar_backward(own.dz_at[t], own.du_hat[t], own.dstretch[t], own.dw_plane, dbias, own.dz_at[t + 1],
                                dlog_det, own.plane[t], own.z_at[t], own.u_hat[t], own.stretch[t], w)
        kernels.planar_direction_backward(du, own.dw_direction, own.du_hat[t], own.dstretch[t], u, w)
        kernels.add(dw, own.dw_direction, own.dw_plane)      # w says where to push and from which plane


@dataclass
class AutoregressiveBuffers(StepBuffers):
    """What an inverse autoregressive step keeps of its network of H units."""

    units_pre: Array        # (B, K, H)       z W
    units_told: Array       # (B, K, H)       and what the encoder says
    units: Array            # (T, B, K, H)
    dunits: Array
    net_pre: Array          # (B K, 2 Z)
    net: Array              # (T, B, K, 2 Z)  m, g
    dnet: Array
    dz_gate: Array          # (B, K, Z)
    dz_net: Array           # (B, K, Z)


class InverseAutoregressive(_Steps[AutoregressiveBuffers]):
    """z <- s z + (1 - s) m, T times, with s_j and m_j from a masked network that looks at z_i, i < j, and is told
    something by the encoder (Kingma et al. 2016):

        hidden = tanh(z W + b + told)         [m, g] = hidden V + c          s = sigmoid(g)

    Every other step takes the dimensions in reverse order, so that none is always the first.  Units of degree 0 see no
    z, so that even the first dimension hears what the encoder says.
    """

    recordable = True      # does nothing but call kernels; see `likelihoods/base.py`

    def __init__(self, steps: int, context: int, latent_dim: int, units: int) -> None:
        super().__init__(steps, context, units)
        self.name = f"iaf:{steps}:{units}"
        self.layers: list[tuple[MaskedDense, MaskedDense]] = []
        for t in range(steps):
            order, degrees = input_degrees(latent_dim)[::(-1) ** t], hidden_degrees(units, latent_dim, least=0)
            self.layers.append((
                MaskedDense(f"flow.{t}.hidden", mask(order, degrees), "tanh"),
                MaskedDense(f"flow.{t}.gate", mask(degrees, np.tile(order, 2), strict=True), "identity")))
            self.shapes = {**self.shapes, **self.layers[t][0].shapes, **self.layers[t][1].shapes}

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        self.head.initialize(params, rng)
        for hidden, gate in self.layers:
            hidden.initialize(params, rng)
            gate.initialize(params, rng)
            params[gate.b][len(params[gate.b]) // 2:] = _GATE

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> AutoregressiveBuffers:
        (B, K, Z), T, H = a.z.shape, self.steps, self.width
        return AutoregressiveBuffers(
            **vars(self._steps(a, d, allocate)), units_pre=allocate("flow hidden pre", B, K, H),
            units_told=allocate("flow hidden pre and told", B, K, H), units=allocate("flow hidden", T, B, K, H),
            dunits=allocate("dflow hidden", T, B, K, H), net_pre=allocate("flow net pre", B * K, 2 * Z),
            net=allocate("flow net", T, B, K, 2 * Z), dnet=allocate("dflow net", T, B, K, 2 * Z),
            dz_gate=allocate("dflow z by gate", B, K, Z), dz_net=allocate("dflow z by net", B, K, Z))

    def step(self, kernels: ModuleType, own: AutoregressiveBuffers, t: int, params: Block) -> None:
        hidden, gate = self.layers[t]
        kernels.matmul(_rows(own.units_pre), _rows(own.z_at[t]), hidden.weights(kernels, params))
        kernels.add_to_draws_forward(own.units_told, own.units_pre, own.told[:, t])
        kernels.tanh_forward(_rows(own.units[t]), _rows(own.units_told), params[hidden.b])
        gate.forward(kernels, _rows(own.net[t]), own.net_pre, _rows(own.units[t]), params)
        kernels.gate_forward(own.z_at[t + 1], own.log_det_at[t], own.z_at[t], own.net[t])

    def step_back(self, kernels: ModuleType, own: AutoregressiveBuffers, dlog_det: Array, t: int, grads: Block,
                  params: Block) -> None:
        hidden, gate = self.layers[t]
        kernels.gate_backward(own.dz_gate, own.dnet[t], own.dz_at[t + 1], dlog_det, own.z_at[t], own.net[t])
        gate.backward(kernels, _rows(own.dunits[t]), own.net_pre, grads, _rows(own.dnet[t]), _rows(own.net[t]),
                      own.net_pre, _rows(own.units[t]), params)
        hidden.backward(kernels, _rows(own.dz_net), _rows(own.units_pre), grads, _rows(own.dunits[t]),
                        _rows(own.units[t]), _rows(own.units_told), _rows(own.z_at[t]), params)
        kernels.add_to_draws_backward(own.dtold[:, t], own.units_pre)
        kernels.add(own.dz_at[t], own.dz_gate, own.dz_net)      # z goes through the gate, and into its network


def _rows(array: Array) -> Array:
    """(B, K, N) as (B K, N)."""
    return array.reshape(-1, array.shape[-1])


#: how the command line writes them, and what they are
POSTERIORS = {
    "gaussian": "no flow",
    "planar:T": "T planar steps, as in planar:8",
    "iaf:T": "T inverse autoregressive steps, as in iaf:2",
    "iaf:T:H": "the same, of H units each, as in iaf:2:64"}

_NAMES = re.compile("gaussian|planar:([1-9][0-9]*)|iaf:([1-9][0-9]*)(?::([1-9][0-9]*))?")


def steps_in(posterior: str, latent_dim: int) -> tuple[int, int, int]:
    """What a name asks for: planar steps, inverse autoregressive steps, units in each of those.  Raises ValueError with
    the known names, and for more steps than any gradient comes through."""
    name = _NAMES.fullmatch(posterior) if isinstance(posterior, str) else None
    if not name:
        raise ValueError(f"posterior must be {one_of(POSTERIORS)}, or an object of class Flow, got {shown(posterior)}")
    planar, autoregressive, units = (int(number or 0) for number in name.groups())
    if planar + autoregressive > _STEPS:
        raise ValueError(f"posterior {shown(posterior)}: at most {_STEPS:,} steps are allowed")
    return planar, autoregressive, units or 4 * latent_dim


def make_flow(posterior: str | Flow[Any], context: int, latent_dim: int) -> Flow[Any]:
    """The flow that makes the posterior of that name, or the object itself; `context` is the width of the encoder's
    output.  Raises ValueError with the known names."""
    if isinstance(posterior, Flow):
        return posterior
    planar, autoregressive, units = steps_in(posterior, latent_dim)
    if planar:
        return Planar(planar, context, latent_dim)
    if autoregressive:
        return InverseAutoregressive(autoregressive, context, latent_dim, units)
    return NoFlow()
