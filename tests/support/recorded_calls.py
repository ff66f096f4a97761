"""What `test_replay` lends to other tests."""
import inspect

import numpy as np

from kernel_calls import PAIRS, draw_inputs, shape_of
from npvae.kernels import reference


def arguments_of(name, dtype):
    """For a kernel of that name, as `test_kernels` calls it, with scalars as plain floats; outputs hold 777."""
    rng, size = np.random.default_rng(6), dict(zip("BKDHZ", (4, 3, 7, 5, 6)))
    a, grey = rng.standard_normal((4, 7)).astype(dtype), rng.integers(0, 256, (9, 7), dtype=np.uint8)
    new, index, uniform = np.full((4, 7), 777, dtype), np.array([8, 0, 3, 3]), rng.random((4, 7), dtype=np.float32)
    draws, per_draw = rng.standard_normal((2, 5, 3)).astype(dtype), rng.standard_normal((2, 5)).astype(dtype)
    others = {
        "matmul": (new, np.rint(9 * a), np.rint(9 * rng.random((7, 7))).astype(dtype)), "add": (new, a, a[::-1].copy()),
        "subtract": (new, a, a[::-1].copy()), "negate": (new, a),
        "sum_first": (np.full((5, 3), 777, dtype), draws),
        "transpose": (new.reshape(7, 4), a),
        "transpose_each": (np.full((2, 3, 5), 777, dtype), draws),
        "split_missing": (new, new.copy(), a, a[0].copy()),
        "append_missing": (np.full((4, 16), 777, dtype), np.concatenate([a, a[:, :2]], axis=1), (a > 0.5).astype(dtype),
                           np.array([0, 1, 2, 3, 4, 5, 6, 6, 0])),
        "log1p_features": (new, a ** 2), "log_features": (new, a ** 2),
        "log_total": (new[:, 0].copy(), np.rint(9 * a ** 2)),
        "one_hot": (np.full((4, 23), 777, dtype), np.arange(28).reshape(4, 7).astype(dtype) % 4,
                    np.array([2, 4, 3, 2, 4, 3, 5])),
        "standardize_columns": (new, a * a, np.array([6, 0, 1, 5, 2, 3, 4]), np.array([0, 1, 2, 0, 1, 2, 0]),
                                a[0].astype(float), 0.5 + a[1].astype(float)),
        "sum_squares": (new[0, :1], a.ravel()),
        "adam_update": (a[0], a[1], a[2] ** 2, a[3], 0.01, 0.9, 0.99, 1e-8, 0.5, 3.0),
        "gather_rows": (new, grey, index, 1 / 255), "gather_binarized": (new, grey, index, uniform, 1 / 255),
        "box_muller": (new.ravel(), uniform.ravel()),
        "mask_forward": (new, a, a > 0),
        "mask_backward": (new, np.rint(9 * a), np.rint(9 * rng.random((7, 7))).astype(dtype), a > 0),
        "append_labels_forward": (np.full((4, 11), 777, dtype), a, np.array([3, 0])),
        "append_labels_backward": (new[:, :5].copy(), a),
        "path_ratio_backward": (draws.copy(), per_draw, draws, a[:2, :3].copy(), draws[::-1].copy()),
        "path_q_backward": (draws.copy(), per_draw, a[:2, :3].copy(), draws),
        "scale_draws": (np.full_like(draws, 777), draws, per_draw, per_draw[::-1].copy())}
    if name in others:
        return others[name]
    pair = PAIRS[name.rpartition("_")[0]]
    inputs, upstream = draw_inputs(pair, size, 6)
    values = {**inputs, **{key: rng.random(shape_of(letters, size)) for key, letters in pair.outputs.items()}}
    if name.endswith("forward"):
        values.update({key: np.full_like(values[key], 777) for key in pair.outputs})
        return [typed(values[key], dtype) for key in (*pair.outputs, *pair.inputs)]
    values.update({f"d{key}": value for key, value in upstream.items()})
    values.update({f"d{key}": np.full_like(value, 777) for key, value in inputs.items()})
    return [typed(values[key], dtype) for key in inspect.signature(getattr(reference, name)).parameters]


def typed(value, dtype):
    """The array in that type; indices stay what they are."""
    return value if value.dtype.kind == "i" else value.astype(dtype)
