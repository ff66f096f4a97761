"""What `test_kernels` lends to other tests."""
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from npvae.kernels import reference
from npvae.kernels.reference import tables
from npvae.layers import ACTIVATIONS
from strategies import spread


@dataclass(frozen=True)
class Pair:
    """How to call x_forward: the shapes, in letters, of its outputs and inputs, in the order of its signature."""

    outputs: dict[str, str]
    inputs: dict[str, str]
    constant: tuple[str, ...] = ()      # inputs without a gradient
    draw: dict[str, Callable] = field(default_factory=dict)      # inputs that are not just spread over the reals
    hidden: float = 0.0      # the size of numbers that cancel within each output


def unit(rng, shape):
    return rng.uniform(0.02, 0.98, shape)


def positive(rng, shape):
    return rng.uniform(0.05, 3, shape)


def small(rng, shape):
    """Where tanh of w.z is curved: where it is flat, rounding is all that is left of its slope."""
    return 0.1 * spread(rng, shape)


def grey(rng, shape):
    """Of 256 levels, many of them black or white."""
    return np.where(rng.random(shape) < 0.4, rng.integers(0, 2, shape), rng.integers(0, 256, shape) / 255)


def thirds(rng, shape):
    """Of four levels: 256 would be too many to move one by one."""
    return rng.integers(0, 4, shape) / 3


def gone(rng, shape):
    """1 where a cell is missing, a third of them."""
    return (rng.random(shape) < 0.3).astype(float)


def counts(rng, shape):
    """Small and large ones, many of them 0."""
    return rng.integers(0, 2, shape) * np.rint(np.exp(rng.uniform(-1, 12, shape)))


def totals(rng, shape):
    """The last column is not 0, so that every row has a total."""
    x = counts(rng, shape)
    x[:, -1] += 1
    return x


def codes(rng, shape):
    return rng.integers(0, 4, shape).astype(float)


def four(rng, shape):
    """The number of levels of each column."""
    return np.full(shape, 4)


def in_another_order(rng, shape):
    """All columns."""
    return rng.permutation(shape[0])


def logarithms(rng, shape):
    return np.full(shape, tables.LOG)


ACTIVATION = Pair({"out": "BH"}, {"pre": "BH", "b": "H"})
PAIRS = {
    **dict.fromkeys(ACTIVATIONS, ACTIVATION),
    "add_to_draws": Pair({"out": "BKH"}, {"x": "BKH", "y": "BH"}, ("x",)),      # dx would be dout
    "bernoulli_nll": Pair({"nll": "BK", "tail": "BKD"}, {"logits": "BKD", "x": "BD"}, ("x",), {"x": unit}),
    "gaussian_nll": Pair({"nll": "BK"}, {"mean": "BKD", "x": "BD", "logvar": "1"}, ("x",), {"x": unit}),
    "gaussian_pixel_nll": Pair({"nll": "BK"}, {"output": "BK2", "x": "BD"}, ("x",), {"x": unit}),
    "gaussian_optimal_nll": Pair({"nll": "BK", "logvar": "1"}, {"mean": "BKD", "x": "BD"}, ("x",), {"x": unit}),
    "continuous_bernoulli_nll": Pair({"nll": "BK", "tail": "BKD"}, {"logits": "BKD", "x": "BD"}, ("x",), {"x": unit}),
    "discretized_logistic_nll": Pair({"nll": "BK"}, {"output": "BK2", "x": "BD"}, ("x",), {"x": grey}),
    "categorical_nll": Pair({"nll": "BK", "top": "BKD", "total": "BKD"}, {"logits": "BK4", "x": "BD"}, ("x",),
                            {"x": thirds}),
    "beta_binomial_nll": Pair({"nll": "BK"}, {"output": "BK2", "x": "BD"}, ("x",), {"x": grey},
                              hidden=1160.0),      # log 255!
    "sum_cells": Pair({"nll": "BK"}, {"cells": "BKD"}),
    "sum_observed": Pair({"nll": "BK"}, {"cells": "BKD", "missing": "BD"}, ("missing",), {"missing": gone}),
    "poisson_nll": Pair({"cells": "BKD"}, {"output": "BKD", "x": "BD", "offset": "B"}, ("x", "offset"), {"x": counts}),
    "negative_binomial_nll": Pair({"cells": "BKD"}, {"output": "BK2", "x": "BD", "offset": "B"}, ("x", "offset"),
                                  {"x": counts}),
    "zero_inflated_nll": Pair({"cells": "BKD"}, {"output": "BK3", "x": "BD", "offset": "B"}, ("x", "offset"),
                              {"x": counts}),
    "multinomial_nll": Pair({"cells": "BKD", "log_mean": "BKD"}, {"logits": "BKD", "x": "BD"}, ("x",), {"x": totals}),
    "append_parameters": Pair({"out": "BK2"}, {"output": "BKD", "own": "D"}),
    "student_t_nll": Pair({"cells": "BKD"}, {"output": "BK3", "x": "BD"}, ("x",)),
    "laplace_nll": Pair({"cells": "BKD"}, {"output": "BK2", "x": "BD"}, ("x",)),
    "log_normal_nll": Pair({"cells": "BKD"}, {"output": "BK2", "x": "BD"}, ("x",), {"x": positive}),
    "categories_nll": Pair({"cells": "BKD"}, {"logits": "BK4", "x": "BD", "levels": "D"}, ("x", "levels"),
                           {"x": codes, "levels": four}),
    "ordinal_nll": Pair({"cells": "BKD"}, {"output": "BKD", "x": "BD", "cuts": "3", "levels": "D"}, ("x", "levels"),
                        {"x": codes, "levels": four}),
    "take_columns": Pair({"part": "BKD"}, {"whole": "BKD", "columns": "D"}, ("columns",),
                         {"columns": in_another_order}),
    "place_cells": Pair({"cells": "BKD"}, {"part": "BKD", "x": "BD", "columns": "D", "transforms": "D",
                                           "log_scale": "D"}, ("x", "columns", "transforms", "log_scale"),
                        {"x": positive, "columns": in_another_order, "transforms": logarithms}),
    "gaussian_columns_nll": Pair({"cells": "BKD"}, {"output": "BK2", "x": "BD"}, ("x",)),
    "reparameterize": Pair({"z": "BKZ"}, {"mu": "BZ", "logvar": "BZ", "eps": "BKZ"}, ("eps",)),
    "gaussian_kl": Pair({"kl": "BZ"}, {"mu": "BZ", "logvar": "BZ"}),
    "log_ratio": Pair({"log_ratio": "BK"}, {"z": "BKZ", "logvar": "BZ", "eps": "BKZ"}, ("eps",)),
    "log_q": Pair({"log_q": "BK"}, {"logvar": "BZ", "eps": "BKZ"}, ("eps",)),
    "standard_normal": Pair({"log_p": "BK"}, {"z": "BKZ"}),
    "gaussian_log_density": Pair({"log_p": "B"}, {"z": "BZ", "mu": "BZ", "logvar": "BZ"}),
    "mixture": Pair({"log_p": "BK", "weights": "BKH", "inverse": "HZ", "peak": "H"},
                    {"z": "BKZ", "mean": "HZ", "logvar": "HZ", "logits": "H"}),
    "planar_direction": Pair({"u_hat": "BZ", "stretch": "B"}, {"u": "BZ", "w": "BZ"}),
    "planar": Pair({"z": "BKZ", "log_det": "BK", "pre": "BK"},
                   {"z0": "BKZ", "u_hat": "BZ", "stretch": "B", "w": "BZ", "bias": "B"},
                   draw={"stretch": positive, "w": small, "bias": small}),
    "gate": Pair({"z": "BKD", "log_det": "BK"}, {"z0": "BKD", "net": "BK2"}),
    "importance_bound": Pair({"bound": "B", "weights": "BK"}, {"log_w": "BK"}),
}


def shape_of(letters, size):
    return tuple(1 if letter == "1" else int(letter) * size["D"] if letter in "234" else size[letter]
                 for letter in letters)


def draw_inputs(pair, size, seed):
    rng = np.random.default_rng(seed)
    inputs = {name: pair.draw.get(name, spread)(rng, shape_of(letters, size)) for name, letters in pair.inputs.items()}
    if pair is ACTIVATION:      # a = pre + b is what has to stay clear of the kink at zero
        inputs["pre"] -= inputs["b"]
    upstream = {name: rng.standard_normal(shape_of(letters, size)) for name, letters in pair.outputs.items()}
    return inputs, upstream


def run_forward(module, name, inputs, dtype=None):
    """The outputs of a forward kernel, in arrays that held garbage."""
    pair, forward = PAIRS[name], getattr(module, f"{name}_forward")
    size = {letter: n for key, value in inputs.items() for letter, n in zip(pair.inputs[key], value.shape)}
    first = next(iter(inputs.values()))
    outputs = {key: np.full(shape_of(letters, size), 777, dtype or first.dtype)
               for key, letters in pair.outputs.items()}
    forward(*outputs.values(), *inputs.values())
    return outputs


def run_backward(module, name, inputs, outputs, upstream):
    """The gradients a backward kernel writes; its arguments are found by their names."""
    backward = getattr(module, f"{name}_backward")
    values = {**inputs, **outputs}
    names = list(inspect.signature(getattr(reference, f"{name}_backward")).parameters)
    written = {arg: np.full_like(inputs[arg[1:]], 777) for arg in names if arg.startswith("d") and arg[1:] in inputs}
    given_ = {arg: upstream[arg[1:]] for arg in names if arg.startswith("d") and arg[1:] in outputs}
    backward(*({**values, **written, **given_}[arg] for arg in names))
    return {arg[1:]: value for arg, value in written.items()}


def main_outputs(name):
    """Those with an upstream gradient; `mean` and `weights` are by-products."""
    upstream = inspect.signature(getattr(reference, f"{name}_backward")).parameters
    return [key for key in PAIRS[name].outputs if f"d{key}" in upstream]
