"""A PyTorch or JAX function as a pair of NumPy functions, for `check_pair`.  Read after `checker.py`.

Neither library is imported here: they are found by the types of what is given, and who gives a tensor has loaded its
library.  Nothing is traced or compiled; each call turns arrays into tensors and back.
"""
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Forward = Callable[..., Array]
Backward = Callable[..., Mapping[str, Array]]

_LIBRARIES = {"torch": "torch", "jax": "jax", "jaxlib": "jax"}


def in_numpy(forward: Callable[..., Any], backward: Callable[..., Mapping[str, Any]] | None,
             inputs: Mapping[str, Any], constants: Sequence[str]) -> tuple[Forward, Backward, dict[str, Array]]:
    """forward, backward and inputs in NumPy, as they are or wrapped; a missing backward is the library's own.

    Raises TypeError for a missing backward of a NumPy function, and where JAX computes in float32.
    """
    library = _library_of(forward, *inputs.values())
    if not library and backward is None:      # a function of jax.numpy takes NumPy arrays, and what it returns tells
        library = _library_of(forward(**inputs)) if "jax" in sys.modules else ""
    if not library:
        if backward is None:
            raise TypeError("backward is missing: None is for a PyTorch or JAX function alone, which differentiates "
                            "itself; give its inputs as tensors")
        return forward, backward, {name: np.array(value) for name, value in inputs.items()}
    wrap = _torch if library == "torch" else _jax
    arrays = {name: np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
              for name, value in inputs.items()}
    return (*wrap(forward, backward, constants), arrays)


def _library_of(*things: Any) -> str:
    """"torch" or "jax", where one of the things, or its class, comes from there; else ""."""
    for thing in things:
        owner = getattr(thing, "__self__", None)      # of a method, such as Function.apply
        for kind in (thing, owner, type(thing)):
            for base in kind.__mro__ if isinstance(kind, type) else ():
                library = _LIBRARIES.get(base.__module__.split(".")[0])
                if library:
                    return library
    return ""


def _one(out: Any) -> Any:
    """What forward returns, one array.  Raises TypeError for several."""
    if isinstance(out, (tuple, list, dict)):
        raise TypeError(f"forward must return one array, got {type(out).__name__}")
    return out


def _torch(forward: Any, backward: Any, constants: Sequence[str]) -> tuple[Forward, Backward]:
    torch = sys.modules["torch"]
    owner: Any = forward if isinstance(forward, type) else getattr(forward, "__self__", None)
    custom = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)

    def tensor(value: Array) -> Any:
        """Over the array's own memory, where it can be written, so that a change of it is seen."""
        return torch.from_numpy(value if value.flags.writeable else value.copy())

    def call(tensors: Mapping[str, Any]) -> Any:
        return owner.apply(*tensors.values()) if custom else forward(**tensors)

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


def _jax(forward: Any, backward: Any, constants: Sequence[str]) -> tuple[Forward, Backward]:
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
