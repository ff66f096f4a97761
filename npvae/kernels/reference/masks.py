"""Masked weights, which make a dense layer autoregressive.  Read after `dense.py`; `npvae/layers.py` uses them."""
import numpy as np

from .arrays import Array


def mask_forward(out: Array, W: Array, mask: Array) -> None:
    """out = W * mask.   W, mask, out (in, out);  mask holds zeros and ones, fixed by the architecture.

    (Germain et al. 2015, equation 7.)  A product rather than a choice between W and 0, so that NaN is passed on.
    """
    np.multiply(W, mask, out=out)


def mask_backward(dW: Array, a: Array, b: Array, mask: Array) -> None:
    """Backward pass of  pre = x (W * mask)  with respect to W:   dW = (x^T dpre) * mask.

    a = x^T (in, B);  b = dpre (B, out).  dW is zero where mask is, even if the product is NaN there: the fused twin
    skips what it can of it.
    """
    np.matmul(a, b, out=dW)
    dW[mask == 0] = 0
