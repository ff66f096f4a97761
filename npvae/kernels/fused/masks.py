"""Masked weights, fused.  NumPy would be as fast; compiled kernels can be recorded (`engine/recording.py`)."""
from .arrays import matmul
from .compile import jit

__all__ = ["mask_forward", "mask_backward"]


@jit
def mask_forward(out, W, mask):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = W[i, j] * W.dtype.type(mask[i, j])


def mask_backward(dW, a, b, mask):
    matmul(dW, a, b)
    mask_in_place(dW, mask)


@jit
def mask_in_place(dW, mask):
    zero = dW.dtype.type(0)
    for i in range(dW.shape[0]):
        for j in range(dW.shape[1]):
            dW[i, j] = dW[i, j] if mask[i, j] else zero
