"""Masked weights: what makes a dense layer autoregressive.  Chapter of the kernels, for `npvae/masks.py`."""
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def mask_forward(out: Array, W: Array, mask: Array) -> None:
    """out = W * mask.   W, mask, out (D, H);  mask holds zeros and ones, a constant of the architecture.

    Germain et al. 2015, equation 7.  It is a product, not a choice between W and 0, so that NaN goes through.
    """
    np.multiply(W, mask, out=out)


def mask_backward(dW: Array, dout: Array, mask: Array) -> None:
    """forward was  out = W * mask:   dW = dout * mask,  zero where the weight has no say."""
    np.multiply(dout, mask, out=dW)
