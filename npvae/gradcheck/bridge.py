"""Turns a PyTorch or JAX function into a pair of NumPy functions, for `check_pair`.  Read after `checker.py`.

Neither library is imported here.  They are recognised by the types of the arguments: whoever passes a tensor has
imported its library.  Each call converts arrays to tensors and back; nothing is traced or compiled.
"""
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from .derivatives import Array
from .rules import Backward, Forward

Out = TypeVar("Out")
_LIBRARIES = {"torch": "torch", "jax": "jax", "jaxlib": "jax"}


class Tensor(Protocol):
    """What is used of a torch.Tensor."""

    def detach(self) -> "Tensor": ...
    def numpy(self) -> Array: ...
    def requires_grad_(self) -> "Tensor": ...


def in_numpy(forward: Callable[..., object], backward: Callable[..., Mapping[str, Any]] | None,
             inputs: Mapping[str, Any], constants: Sequence[str]) -> tuple[Forward, Backward, dict[str, Array]]:
    """forward, backward and inputs as NumPy functions and arrays; for backward=None, by automatic differentiation.

    Raises TypeError if a NumPy function has no backward, and if JAX computes in float32.
    """
    library = _library_of(forward, *inputs.values())
    if not library and backward is None:      # jax.numpy takes NumPy arrays, but returns its own
        library = _library_of(forward(**inputs)) if "jax" in sys.modules else ""
    if not library:
        if backward is None:
            raise TypeError("backward is missing: None is for a PyTorch or JAX function alone, which differentiates "
                            "itself; give its inputs as tensors")
        numpy_forward: Forward = forward      # type: ignore[assignment]      # `check_pair` looks at what it returns
        return numpy_forward, backward, {name: np.array(value) for name, value in inputs.items()}
    wrap = _torch if library == "torch" else _jax
    arrays = {name: np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
              for name, value in inputs.items()}
    return (*wrap(forward, backward, constants), arrays)


def _library_of(*things: object) -> str:
    """"torch" or "jax" if one of the things, or its class, comes from that library; else ""."""
    for thing in things:
        owner = getattr(thing, "__self__", None)      # the class of a method such as Function.apply
        for kind in (thing, owner, type(thing)):
            for base in kind.__mro__ if isinstance(kind, type) else ():
                library = _LIBRARIES.get(base.__module__.split(".")[0])
                if library:
                    return library
    return ""


def _one(out: Out) -> Out:
    """What forward returned, one array.  Raises TypeError for several."""
    if isinstance(out, (tuple, list, dict)):
        raise TypeError(f"forward must return one array, got {type(out).__name__}")
    return out


def _torch(forward: Callable[..., Any], backward: Callable[..., Mapping[str, Tensor]] | None, constants: Sequence[str]
           ) -> tuple[Forward, Backward]:
    torch = sys.modules["torch"]
    owner = forward if isinstance(forward, type) else getattr(forward, "__self__", None)
    custom = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    apply = getattr(owner, "apply") if custom else None      # which takes no arguments by name

    def tensor(value: Array) -> Tensor:
        """Shares the array's memory if that is writeable, so that changes made by the layer are noticed."""
        shared: Tensor = torch.from_numpy(value if value.flags.writeable else value.copy())
        return shared

    def call(inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = apply(*inputs.values()) if apply else forward(**inputs)
        return out

    def forward_in_numpy(**inputs: Array) -> Array:
        with torch.no_grad():
            return np.array(_one(call({name: tensor(value) for name, value in inputs.items()})).numpy())

    def backward_in_numpy(dout: Array, **inputs: Array) -> dict[str, Array]:
        tensors = {name: tensor(value) for name, value in inputs.items()}
        if backward is not None:
            return {name: np.array(value.detach().numpy()) for name, value in backward(tensor(dout), **tensors).items()}
        moving = {name: value.requires_grad_() for name, value in tensors.items() if name not in constants}
        found = torch.autograd.grad(call(tensors), list(moving.values()), tensor(dout), allow_unused=True)
        return {name: np.zeros(inputs[name].shape) if value is None else np.array(value.numpy())
                for name, value in zip(moving, found)}
    return forward_in_numpy, backward_in_numpy


def _jax(forward: Callable[..., object], backward: Callable[..., Mapping[str, Any]] | None, constants: Sequence[str]
         ) -> tuple[Forward, Backward]:
    jax = sys.modules["jax"]
    if jax.numpy.zeros(1).dtype != np.float64:
        raise TypeError("JAX computes in float32, which hides errors below 1e-3: start with "
                        "jax.config.update('jax_enable_x64', True)")

    def forward_in_numpy(**inputs: Array) -> Array:
        return np.array(_one(forward(**{name: jax.numpy.asarray(value) for name, value in inputs.items()})))

    def backward_in_numpy(dout: Array, **inputs: Array) -> dict[str, Array]:
        arrays = {name: jax.numpy.asarray(value) for name, value in inputs.items()}
        if backward is not None:
            found = backward(jax.numpy.asarray(dout), **arrays)
        else:
            moving = {name: value for name, value in arrays.items() if name not in constants}
            _, pull_back = jax.vjp(lambda moved: forward(**{**arrays, **moved}), moving)
            found, = pull_back(jax.numpy.asarray(dout))
        return {name: np.array(value) for name, value in found.items()}
    return forward_in_numpy, backward_in_numpy
