"""Log-sum-exp and importance weights, fused."""
import math

from .compile import jit


@jit
def importance_bound_forward(bound, weights, log_w):
    zero, one = log_w.dtype.type(0), log_w.dtype.type(1)
    log_k = log_w.dtype.type(math.log(log_w.shape[1]))
    for b in range(log_w.shape[0]):
        m = log_w[b, 0]
        for k in range(log_w.shape[1]):
            m = log_w[b, k] if log_w[b, k] > m or math.isnan(log_w[b, k]) else m
        total = zero
        for k in range(log_w.shape[1]):
            weights[b, k] = math.exp(log_w[b, k] - m)
            total += weights[b, k]
        bound[b] = m + (zero if math.isinf(m) else math.log(total)) - log_k
        for k in range(log_w.shape[1]):
            weights[b, k] *= one / total


@jit
def importance_bound_backward(dlog_w, dbound, weights):
    for b in range(weights.shape[0]):
        for k in range(weights.shape[1]):
            dlog_w[b, k] = dbound[b] * weights[b, k]
