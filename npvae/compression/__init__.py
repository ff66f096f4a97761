"""Lossless compression: a trained model as a code, by bits back.  Chapter 17 of `examples/derivations` derives it.

    exact       exp, log and the normal distribution with the same bits on every machine
    network     encoder and decoder in whole numbers, which no order of summation changes
    coder       a stack of bits, on which a symbol of probability P takes log2(1/P) bits
    latents     z in bins; every prior
    cells       p(x|z) of each likelihood
    outputs     the decoder: independent cells, MADE
    chain       images on the stack: about -ELBO / log 2 bits each
    container   the file: header, blocks, checksums
"""
from .container import CompressionError, Header, compress, decompress, fingerprint, read, read_header, write

__all__ = ["CompressionError", "Header", "compress", "decompress", "fingerprint", "read", "read_header", "write"]
