"""Exercise 4: the likelihoods, log p(x|z) from what the decoder says.

Shapes: logits, mean and x (B, D); nll = -log p(x|z) in nats, summed over the D pixels, is (B,), and so is dnll.
"""
import numpy as np

# your numbers
MEAN_PIXEL = 0.3


def softplus(t: np.ndarray) -> np.ndarray:
    """log(1 + e^t), for any t: neither 1000 nor -1000 may overflow or lose its digits."""
    raise NotImplementedError("softplus, D3.2")


def bernoulli_nll(logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """-log p(x|z) of pixels that are 1 with probability p = 1 / (1 + e^-logit); (B,)."""
    raise NotImplementedError("bernoulli_nll, D3.1")


def bernoulli_nll_backward(dnll: np.ndarray, logits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dlogits (B, D).  Without overflow, again."""
    raise NotImplementedError("bernoulli_nll_backward, D3.4")


def gaussian_nll(mean: np.ndarray, x: np.ndarray, logvar: float) -> np.ndarray:
    """-log p(x|z) of pixels x ~ Normal(mean, e^logvar), one logvar for all; (B,)."""
    raise NotImplementedError("gaussian_nll, D4.1")


def gaussian_nll_backward(dnll: np.ndarray, mean: np.ndarray, x: np.ndarray, logvar: float
                          ) -> tuple[np.ndarray, float]:
    """dmean (B, D) and dlogvar, a number."""
    raise NotImplementedError("gaussian_nll_backward, D4.2, D4.3")


def best_logit() -> tuple[float, float]:
    """Many pixels share one logit, and a share MEAN_PIXEL of them is white.  Which logit is best, and what is the mean
    nll of a pixel then?"""
    raise NotImplementedError("best_logit, D3.7")
