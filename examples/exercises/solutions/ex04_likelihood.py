"""Exercise 4: the likelihoods, log p(x|z) from what the decoder says.

Shapes: logits, mean and x (B, D); nll = -log p(x|z) in nats, summed over the D pixels, is (B,), and so is dnll.
"""
import numpy as np

# your numbers
MEAN_PIXEL = 0.3


def softplus(t: np.ndarray) -> np.ndarray:
    """log(1 + e^t), for any t: neither 1000 nor -1000 may overflow or lose its digits."""
    return np.maximum(t, 0) + np.log1p(np.exp(-np.abs(t)))


def bernoulli_nll(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """-log p(x|z) of pixels that are 1 with probability p = 1 / (1 + e^-logit); (B,)."""
    return (softplus(logits) - x * logits).sum(axis=1)


def bernoulli_nll_backward(dnll: np.ndarray, logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dlogits (B, D).  Without overflow, again."""
    e = np.exp(-np.abs(logits))
    return dnll[:, None] * (np.where(logits > 0, 1, e) / (1 + e) - x)


def gaussian_nll(mean: np.ndarray, x: np.ndarray, logvar: float) -> np.ndarray:
    """-log p(x|z) of pixels x ~ Normal(mean, e^logvar), one logvar for all; (B,)."""
    square = ((mean - x) ** 2).sum(axis=1)
    return 0.5 * (square * np.exp(-logvar) + x.shape[1] * (logvar + np.log(2 * np.pi)))


def gaussian_nll_backward(dnll: np.ndarray, mean: np.ndarray, x: np.ndarray, logvar: float
                          ) -> tuple[np.ndarray, float]:
    """dmean (B, D) and dlogvar, a number."""
    r, precision = mean - x, np.exp(-logvar)
    dlogvar = (dnll * 0.5 * (x.shape[1] - (r ** 2).sum(axis=1) * precision)).sum()
    return dnll[:, None] * r * precision, float(dlogvar)


def best_logit() -> tuple[float, float]:
    """Many pixels share one logit, and a share MEAN_PIXEL of them is white.  Which logit is best, and what is the mean
    nll of a pixel then?"""
    m = MEAN_PIXEL
    return float(np.log(m / (1 - m))), float(-m * np.log(m) - (1 - m) * np.log(1 - m))
