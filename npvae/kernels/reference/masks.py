"""Masked weights: what makes a dense layer autoregressive.  For the masked layers of `npvae/layers.py`."""
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.inexact]


def mask_forward(out: Array, W: Array, mask: Array) -> None:
    """out = W * mask.   W, mask, out (D, H);  mask holds zeros and ones, a constant of the architecture.

    Germain et al. 2015, equation 7.  It is a product, not a choice between W and 0, so that NaN goes through.
    """
    np.multiply(W, mask, out=out)


def mask_backward(dW: Array, a: Array, b: Array, mask: Array) -> None:
    """forward was  out = W * mask,  and then a product,  pre = x out:   dW = (x^T dpre) * mask.

    a = x^T (D, B);  b = dpre (B, H).  Zero where the weight has no say, even if the product is NaN there: the fused
    twin leaves out what it can of it.
    """
    np.matmul(a, b, out=dW)
    dW[mask == 0] = 0
