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
    raise NotImplementedError("gaussian_kl, D6.1")


def gaussian_kl_backward(dkl: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dmu and dlogvar, (B, Z)."""
    raise NotImplementedError("gaussian_kl_backward, D6.2, D6.3")


def log_ratio(z: np.ndarray, eps: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """log q(z|x) - log p(z) at one draw z = mu + sigma eps, with p = Normal(0, 1); (B,).  The KL is its mean."""
    raise NotImplementedError("log_ratio, D6.4")


def kl_to_prior(mu: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL(q(z|x) || Normal(PRIOR_MEAN, e^PRIOR_LOGVAR)), (B,)."""
    raise NotImplementedError("kl_to_prior, D6.1")


def kl_to_prior_backward(dkl: np.ndarray, mu: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dmu and dlogvar of kl_to_prior, (B, Z)."""
    raise NotImplementedError("kl_to_prior_backward, D6.2, D6.3")
