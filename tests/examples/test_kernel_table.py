"""The benchmark's table of kernels: each of which there are two is in it, and none whose numbers differ is timed."""
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest

from npvae.kernels import reference

from contenders import kernel_table


def small_sizes(monkeypatch):
    monkeypatch.setattr(kernel_table, "SIZES", {**kernel_table.SIZES, "B": 9, "D": 31, "H": 17, "N": 40, "P": 101,
                                                "2": 62, "L": 31 * 256, "A": 41, "C": 21})


@pytest.mark.slow
def test_every_kernel_is_validated_and_timed(monkeypatch):
    """Those of which there are two; the other is BLAS's."""
    small_sizes(monkeypatch)
    rows = kernel_table.measure(samples=1, least=0)
    assert [row["kernel"] for row in rows] == reference.__all__
    assert [row["kernel"] for row in rows if "shared" in row] == ["matmul"]
    assert [row for row in rows if "note" in row] == []
    for row in [row for row in rows if "shared" not in row]:
        assert row["error"] <= 1e-5 and row["ratio"] > 0 and row["bytes"] > 0


@pytest.mark.parametrize("kernel", ["relu_forward", "bernoulli_nll_forward", "bernoulli_nll_backward", "tanh_backward",
                                    "adam_update", "gather_rows", "gather_binarized", "log_ratio_backward",
                                    "mixture_forward", "planar_backward", "scale_draws", "append_labels_forward"])
def test_a_wrong_kernel_is_refused(kernel, monkeypatch):
    """Any of its outputs off by a thousandth, or NaN, and it is not timed."""
    small_sizes(monkeypatch)
    right, parameters = getattr(reference, kernel), inspect.signature(getattr(reference, kernel)).parameters
    written = kernel_table.Call(kernel, reference, np.random.default_rng(0)).written
    assert written
    for output in written:
        for factor in (1.001, math.nan):
            def wrong(*arguments):
                right(*arguments)
                arguments[list(parameters).index(output)][...] *= factor
            row = kernel_table.row(kernel, reference, SimpleNamespace(**{kernel: wrong}), 1, 0)
            assert "REFUSED" in row["note"] and "ratio" not in row, output


def test_a_kernel_without_arguments_is_named():
    plain, compiled = (SimpleNamespace(novel_forward=function) for function in (min, max))
    row = kernel_table.row("novel_forward", plain, compiled, 1, 0)
    assert row == {"kernel": "novel_forward", "note": "NOT TIMED: its arguments are not in kernel_table.SHAPES"}
