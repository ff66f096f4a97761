"""Appendix J, equation by equation: columns in their own units, in both kernel modules."""
import math

import numpy as np
import pytest

from npvae.kernels import fused, reference
from npvae.kernels.reference.tables import IDENTITY, LOG

equation = pytest.mark.equation
PLACE, COLUMNS_BACK = reference.place_cells_forward, reference.gaussian_columns_nll_backward

#: for each equation: the function, a piece of its line, and what a slip makes of it (see `test_derivations.py`)
SLIPS = {"D16.40": (PLACE, "part + (log_scale + by_log)", "part + (log_scale - by_log)"),
         "D16.41": (COLUMNS_BACK, "dcells * (1 - u * u)", "dcells * (1 - u)")}


@equation("D16.40")
def test_the_density_of_a_column_in_its_own_unit():
    """Gaussian and log-normal by their textbook formulas, with mean a and deviation s of x and of log x."""
    x = np.array([[2.5, 7.0], [-1.0, 0.3]])
    location, scale = np.array([1.5, 0.4]), np.array([3.0, 0.7])
    for kernels in (reference, fused):
        u, part, cells = np.empty((2, 2)), np.empty((2, 1, 2)), np.full((2, 1, 2), np.nan)
        kinds, columns = np.array([IDENTITY, LOG]), np.arange(2)
        kernels.standardize_columns(u, x, columns, kinds, location, scale)
        kernels.gaussian_columns_nll_forward(part, np.zeros((2, 1, 4)), u)
        kernels.place_cells_forward(cells, part, x, columns, kinds, np.log(scale))
        for row, (real, positive) in enumerate(x):
            normal = math.exp(-((real - 1.5) / 3) ** 2 / 2) / (3 * math.sqrt(2 * math.pi))
            log_normal = math.exp(-((math.log(positive) - 0.4) / 0.7) ** 2 / 2) / (
                positive * 0.7 * math.sqrt(2 * math.pi))
            assert np.allclose(np.exp(-cells[row, 0]), [normal, log_normal], rtol=1e-12)


@equation("D16.41")
def test_the_gradients_of_a_column_s_mean_and_sigma():
    rng = np.random.default_rng(2)
    output, x, dcells = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2)), rng.random((3, 2, 2))
    slopes = []
    for step in np.eye(4):
        cells = np.empty((3, 2, 2), complex)
        reference.gaussian_columns_nll_forward(cells, output + 1e-30j * step, x)
        slopes.append(np.sum(dcells * cells.imag, axis=-1) / 1e-30)
    for kernels in (reference, fused):
        doutput = np.empty_like(output)
        kernels.gaussian_columns_nll_backward(doutput, dcells, output, x)
        assert np.allclose(doutput, np.stack(slopes, axis=-1), rtol=1e-12)
