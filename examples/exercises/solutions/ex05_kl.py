"""Exercise 5: the KL term.

q(z|x) = Normal(mu, e^logvar) in each of Z dimensions; mu, logvar, z and eps are (B, Z).  Terms are summed over Z: a kl
is (B,), and so is its gradient dkl.
"""
import numpy as np

# your numbers: the prior Normal(PRIOR_MEAN, e^PRIOR_LOGVAR) of the last two functions
PRIOR_MEAN = 0.5
PRIOR_LOGVAR = -0.4


def gaussian_kl(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL(q(z|x) || Normal(0, 1)), (B,)."""
    return 0.5 * (mu ** 2 + np.expm1(logvar) - logvar).sum(axis=1)


def gaussian_kl_backward(dkl: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dmu and dlogvar, (B, Z)."""
    return dkl[:, None] * mu, dkl[:, None] * 0.5 * np.expm1(logvar)


def log_ratio(z: np.ndarray, eps: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """log q(z|x) - log p(z) at one draw z = mu + sigma eps, with p = Normal(0, 1); (B,).  The KL is its mean."""
    return 0.5 * (z ** 2 - eps ** 2 - logvar).sum(axis=1)


def kl_to_prior(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL(q(z|x) || Normal(PRIOR_MEAN, e^PRIOR_LOGVAR)), (B,)."""
    ratio = logvar - PRIOR_LOGVAR
    return 0.5 * ((mu - PRIOR_MEAN) ** 2 * np.exp(-PRIOR_LOGVAR) + np.expm1(ratio) - ratio).sum(axis=1)


def kl_to_prior_backward(dkl: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dmu and dlogvar of kl_to_prior, (B, Z)."""
    dmu = dkl[:, None] * (mu - PRIOR_MEAN) * np.exp(-PRIOR_LOGVAR)
    return dmu, dkl[:, None] * 0.5 * np.expm1(logvar - PRIOR_LOGVAR)
