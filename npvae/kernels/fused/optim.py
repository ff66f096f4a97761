"""Adam, fused: parameters and both moments are read and written once per step."""
import math

from .compile import jit


@jit
def adam_update(theta, m, v, grad, lr, beta1, beta2, eps, scale, step):
    real = theta.dtype.type
    keep1, take1 = real(beta1), real(1 - beta1)
    keep2, take2 = real(beta2), real(1 - beta2)
    rate = real(lr / (1 - beta1 ** step))
    root = real(1 / math.sqrt(1 - beta2 ** step))
    epsilon, factor = real(eps), real(scale)
    for i in range(theta.size):
        g = factor * grad[i]
        m[i] = keep1 * m[i] + take1 * g
        v[i] = keep2 * v[i] + take2 * g * g
        theta[i] -= rate * m[i] / (math.sqrt(v[i]) * root + epsilon)
