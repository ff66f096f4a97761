"""Normalizing flows: invertible steps from the Gaussian draw z0 to a richer z.  Read after `base.py`; the formulas are
in `kernels/reference/flows.py`.

mu and logvar are those of z0.  So are what `VAE.encode` returns and what is computed from it, active units and
`information_per_dimension`; the ELBO, log p(x) and all images are those of z.
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

_MAX_STEPS = 1000
_IDENTITY = math.log(math.e - 1)      # softplus(w.u) = 1 there, so that a planar step is the identity
_GATE_BIAS = 2.0      # initial g: sigmoid(2) = 0.88 of z0 is kept; "+1 or +2" (Kingma et al. 2016, section 4)


class NoFlow(Flow[None]):
    """z = z0, in the same memory, and log_det = 0."""

    recordable = True
    name = "gaussian"

    def forward(self, kernels: ModuleType, a: Activations, own: None, params: Block) -> None:
        """There is nothing to compute."""

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: None, grads: Block, params: Block
                 ) -> None:
        """There is nothing to compute."""


@dataclass(eq=False, repr=False)
class StepBuffers:
    """The arrays of T steps, each of which gets `width` numbers from the encoder."""

    z_at: list[Array]       # T + 1 of (B, K, Z): z0, ..., z
    dz_at: list[Array]
    head_rows: Array        # (B, T width), what the encoder gives the steps
    head_pre: Array
    head: Array             # (B, T, width), the memory of head_rows
    dhead_rows: Array
    dhead: Array
    log_det_at: Array       # (T, B, K)


Steps = TypeVar("Steps", bound=StepBuffers)


class _StepwiseFlow(Flow[Steps]):
    """T steps in a row, z0 -> ... -> z, with parameters from a third head of the encoder, the layer "flow".

    The head gives each step `width` numbers for an image, shared by its K draws.   log_det = sum over the steps of
    log_det_t. A subclass says what a step is: `step`, and directly below it its backward pass, `step_back`.
    """

    reads_encoder = True

    def __init__(self, steps: int, context: int, width: int) -> None:
        self.steps, self.width = steps, width
        self.head = Dense("flow", context, steps * width, "identity")
        self.shapes = dict(self.head.shapes)

    def _steps(self, a: Activations, d: Gradients, allocate: Allocate) -> StepBuffers:
        """The arrays that every subclass needs."""
        (B, K, Z), T, width = a.z.shape, self.steps, self.width
        between, dbetween = allocate("flow z", T - 1, B, K, Z), allocate("dflow z", T - 1, B, K, Z)
        head, dhead = allocate("flow head", B, T * width), allocate("dflow head", B, T * width)
        return StepBuffers(
            z_at=[a.z0, *between, a.z], dz_at=[d.z0, *dbetween, d.z],
            head_rows=head, head_pre=allocate("flow head pre", B, T * width), head=head.reshape(B, T, width),
            dhead_rows=dhead, dhead=dhead.reshape(B, T, width), log_det_at=allocate("flow log det", T, B, K))

    def forward(self, kernels: ModuleType, a: Activations, own: Steps, params: Block) -> None:
        """From z0 through all steps to z;   log_det = sum_t log_det_t  (D14.2)."""
        self.head.forward(kernels, own.head_rows, own.head_pre, a.encoder[-1], params)
        for t in range(self.steps):
            self.step(kernels, own, t, params)
        kernels.sum_first(a.log_det, own.log_det_at)

    def backward(self, kernels: ModuleType, d: Gradients, a: Activations, own: Steps, grads: Block, params: Block
                 ) -> None:
        """The forward pass in reverse.  log_det is a sum over steps, so each of them gets the same d.log_det."""
        for t in reversed(range(self.steps)):
            self.step_back(kernels, own, d.log_det, t, grads, params)
        self.head.backward(kernels, d.h_flow, own.head_pre, grads, own.dhead_rows, own.head_rows, own.head_pre,
                           a.encoder[-1], params)

    @abstractmethod
    def step(self, kernels: ModuleType, own: Steps, t: int, params: Block) -> None:
        """From z_at[t] to z_at[t + 1] and log_det_at[t]."""

    @abstractmethod
    def step_back(self, kernels: ModuleType, own: Steps, dlog_det: Array, t: int, grads: Block, params: Block) -> None:
        """From dz_at[t + 1] and dlog_det (B, K) to dz_at[t] and dhead[:, t]."""


@dataclass(eq=False, repr=False)
class PlanarBuffers(StepBuffers):
    """The further arrays of planar steps."""

    plane: Array            # (T, B, K)    w.z + bias
    u_hat: Array            # (T, B, Z)
    du_hat: Array
    stretch: Array          # (T, B)       1 + w.u_hat
    dstretch: Array
    dw_direction: Array     # (B, Z)       through u_hat
    dw_plane: Array         # (B, Z)       through w.z + bias


class Planar(_StepwiseFlow[PlanarBuffers]):
    """T planar steps, z <- z + u_hat tanh(w.z + bias):  each pushes along one direction, away from a plane or towards
    it.  The encoder gives u, w and bias (Rezende and Mohamed 2015)."""

    recordable = True

    def __init__(self, steps: int, context: int, latent_dim: int) -> None:
        super().__init__(steps, context, 2 * latent_dim + 1)
        self.name, self.latent_dim = f"planar:{steps}", latent_dim

    def initialize(self, params: Block, rng: np.random.Generator) -> None:
        """The model starts with q(z|x) Gaussian: u = log(e - 1) w / |w|^2 makes each step the identity.  The directions
        w are random with |w| = 1, since w = 0 has no direction, and at first the same for all images."""
        params[self.head.W][...] = 0
        u, w, bias = self._parts(params[self.head.b].reshape(1, self.steps, self.width))
        w[...] = rng.standard_normal(w.shape)
        w /= np.sqrt(np.sum(w * w, axis=-1, keepdims=True))
        u[...], bias[...] = _IDENTITY * w, 0

    def _parts(self, head: Array) -> tuple[Array, Array, Array]:
        """u, w (B, T, Z) and bias (B, T), views of the head's output."""
        return head[..., :self.latent_dim], head[..., self.latent_dim:-1], head[..., -1]

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> PlanarBuffers:
        (B, K, Z), T = a.z.shape, self.steps
        return PlanarBuffers(
            **vars(self._steps(a, d, allocate)), plane=allocate("flow pre", T, B, K),
            u_hat=allocate("flow u_hat", T, B, Z), du_hat=allocate("dflow u_hat", T, B, Z),
            stretch=allocate("flow stretch", T, B), dstretch=allocate("dflow stretch", T, B),
            dw_direction=allocate("dflow w by direction", B, Z), dw_plane=allocate("dflow w by plane", B, Z))

    def step(self, kernels: ModuleType, own: PlanarBuffers, t: int, params: Block) -> None:
        u, w, bias = self._parts(own.head[:, t])
        kernels.planar_direction_forward(own.u_hat[t], own.stretch[t], u, w)
        kernels.planar_forward(own.z_at[t + 1], own.log_det_at[t], own.plane[t], own.z_at[t], own.u_hat[t],
                               own.stretch[t], w, bias)

    def step_back(self, kernels: ModuleType, own: PlanarBuffers, dlog_det: Array, t: int, grads: Block, params: Block
                  ) -> None:
        (u, w, _), (du, dw, dbias) = self._parts(own.head[:, t]), self._parts(own.dhead[:, t])
        kernels.planar_backward(own.dz_at[t], own.du_hat[t], own.dstretch[t], own.dw_plane, dbias, own.dz_at[t + 1],
                                dlog_det, own.plane[t], own.z_at[t], own.u_hat[t], own.stretch[t], w)
        kernels.planar_direction_backward(du, own.dw_direction, own.du_hat[t], own.dstretch[t], u, w)
        kernels.add(dw, own.dw_direction, own.dw_plane)      # w is in the direction and in the plane


@dataclass(eq=False, repr=False)
class AutoregressiveBuffers(StepBuffers):
    """The further arrays of inverse autoregressive steps with a network of H units."""

    units_pre: Array        # (B, K, H)       z W
    units_sum: Array        # (B, K, H)       z W + head
    units: Array            # (T, B, K, H)
    dunits: Array
    net_pre: Array          # (B K, 2 Z)
    net: Array              # (T, B, K, 2 Z)  m, g
    dnet: Array
    dz_gate: Array          # (B, K, Z)       directly
    dz_net: Array           # (B, K, Z)       through the network


class InverseAutoregressive(_StepwiseFlow[AutoregressiveBuffers]):
    """T inverse autoregressive steps, z <- gate z + (1 - gate) m  (Kingma et al. 2016).

    gate_j and m_j come from a masked network that sees z_i for i < j only, and `head`, numbers from the encoder:

        hidden = tanh(z W + b + head)         [m, g] = hidden V + c          gate = sigmoid(g)

    Every other step takes the dimensions in reverse order, so that none is always the first.  Hidden units of degree 0
    see no z; through them `head` reaches even the first dimension.
    """

    recordable = True

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
            params[gate.b][len(params[gate.b]) // 2:] = _GATE_BIAS

    def allocate(self, a: Activations, d: Gradients, allocate: Allocate) -> AutoregressiveBuffers:
        (B, K, Z), T, H = a.z.shape, self.steps, self.width
        return AutoregressiveBuffers(
            **vars(self._steps(a, d, allocate)), units_pre=allocate("flow hidden pre", B, K, H),
            units_sum=allocate("flow hidden sum", B, K, H), units=allocate("flow hidden", T, B, K, H),
            dunits=allocate("dflow hidden", T, B, K, H), net_pre=allocate("flow net pre", B * K, 2 * Z),
            net=allocate("flow net", T, B, K, 2 * Z), dnet=allocate("dflow net", T, B, K, 2 * Z),
            dz_gate=allocate("dflow z by gate", B, K, Z), dz_net=allocate("dflow z by net", B, K, Z))

    def step(self, kernels: ModuleType, own: AutoregressiveBuffers, t: int, params: Block) -> None:
        hidden, gate = self.layers[t]
        kernels.matmul(_rows(own.units_pre), _rows(own.z_at[t]), hidden.weights(kernels, params))
        kernels.add_to_draws_forward(own.units_sum, own.units_pre, own.head[:, t])
        kernels.tanh_forward(_rows(own.units[t]), _rows(own.units_sum), params[hidden.b])
        gate.forward(kernels, _rows(own.net[t]), own.net_pre, _rows(own.units[t]), params)
        kernels.gate_forward(own.z_at[t + 1], own.log_det_at[t], own.z_at[t], own.net[t])

    def step_back(self, kernels: ModuleType, own: AutoregressiveBuffers, dlog_det: Array, t: int, grads: Block,
                  params: Block) -> None:
        """z0 is read by the gate and by the network that computes m and g, so  dz0 = dz_gate + dz_net  (D14.13)."""
        hidden, gate = self.layers[t]
        kernels.gate_backward(own.dz_gate, own.dnet[t], own.dz_at[t + 1], dlog_det, own.z_at[t], own.net[t])
        gate.backward(kernels, _rows(own.dunits[t]), own.net_pre, grads, _rows(own.dnet[t]), _rows(own.net[t]),
                      own.net_pre, _rows(own.units[t]), params)
        hidden.backward(kernels, _rows(own.dz_net), _rows(own.units_pre), grads, _rows(own.dunits[t]),
                        _rows(own.units[t]), _rows(own.units_sum), _rows(own.z_at[t]), params)
        kernels.add_to_draws_backward(own.dhead[:, t], own.units_pre)
        kernels.add(own.dz_at[t], own.dz_gate, own.dz_net)      # z is in the gate and in its network


def _rows(array: Array) -> Array:
    """(B, K, N) as (B K, N)."""
    return array.reshape(-1, array.shape[-1])


#: as the command line writes them, and what they mean
POSTERIORS = {
    "gaussian": "no flow",
    "planar:T": "T planar steps, as in planar:8",
    "iaf:T": "T inverse autoregressive steps, as in iaf:2",
    "iaf:T:H": "the same, of H units each, as in iaf:2:64"}

_NAMES = re.compile("gaussian|planar:([1-9][0-9]*)|iaf:([1-9][0-9]*)(?::([1-9][0-9]*))?")


def steps_in(posterior: str, latent_dim: int) -> tuple[int, int, int]:
    """The numbers that a name gives: planar steps, inverse autoregressive steps, and units of each of the latter.
    Raises ValueError, with the known names, for any other name, and for more steps than gradients survive."""
    name = _NAMES.fullmatch(posterior) if isinstance(posterior, str) else None
    if not name:
        raise ValueError(f"posterior must be {one_of(POSTERIORS)}, or an object of class Flow, got {shown(posterior)}")
    planar, autoregressive, units = (int(number or 0) for number in name.groups())
    if planar + autoregressive > _MAX_STEPS:
        raise ValueError(f"posterior {shown(posterior)}: at most {_MAX_STEPS:,} steps are allowed")
    return planar, autoregressive, units or 4 * latent_dim


def make_flow(posterior: str | Flow[Any], context: int, latent_dim: int) -> Flow[Any]:
    """The flow of the posterior of that name, or the object itself.  `context` is the width of the encoder's output.
    Raises ValueError, with the known names."""
    if isinstance(posterior, Flow):
        return posterior
    planar, autoregressive, units = steps_in(posterior, latent_dim)
    if planar:
        return Planar(planar, context, latent_dim)
    if autoregressive:
        return InverseAutoregressive(autoregressive, context, latent_dim, units)
    return NoFlow()
